"""1.4 pandas basics: a table that knows its labels
pandas 基础：带标签的表格

You will be able to answer
    1. What do labels add to an array?                 show_labels  align, product, loc
    2. How do you pick rows, and which are copies?     show_rows    mask, shared, chained
    3. What does groupby do, said with a dictionary?   show_groups  groups, missing, weighted
    4. How many rows will a join have?                 show_joins   joins, double, none, unknown
    5. How do you turn a table: long, wide, by week?   show_shapes  round-trip, weeks, empty
Predict   joined: 900 different keys and 100 times “unknown”: joined to itself, how many rows?
Run       python phase01_data_science/04-pandas-basics.py                  about 2 s; --data titanic
Needs     -
Reference pd.DataFrame.groupby, pd.DataFrame.merge, pd.DataFrame.melt, pd.DataFrame.resample
"""

import sqlite3
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pandas as pd

from common.checks import check, check_close
from common.config import LessonConfig, main, param
from common.data.tables import IRIS_COLUMNS, load_iris, load_titanic
from common.figures import GREY, RED, new_figure, save_figure


@dataclass
class Config(LessonConfig):
    data: str = param("iris", "data set", choices=("iris", "titanic"))
    joins: int = param(50, "random pairs of tables whose joins are predicted", tiny=10)


def load(cfg: Config) -> tuple[pd.DataFrame, str, list[str]]:
    """The table, the column that groups it, and three of its columns of numbers."""
    if cfg.data == "titanic":
        return load_titanic(cfg), "Sex", ["Age", "Fare", "SibSp"]

    measures, species = load_iris()
    frame = pd.DataFrame(measures, columns=IRIS_COLUMNS)
    frame["species"] = species
    return frame, "species", ["petal_length", "sepal_length", "petal_width"]


def show_labels(cfg: Config) -> None:
    print("\n[1] Every row has a label, and arithmetic goes by labels, not by places")
    monday = pd.Series({"ana": 3, "bo": 5, "chen": 2})
    tuesday = pd.Series({"chen": 4, "ana": 1, "dee": 7})
    total = monday + tuesday
    print("  " + total.to_string().replace("\n", "\n  "))
    text = "ana is 3 + 1 and chen 2 + 4; who is missing on one of the days is NaN"
    check_close("align", text, total, [4, np.nan, 6, np.nan], equal_nan=True)
    print(f"  missing as 0: {monday.add(tuesday, fill_value=0).to_dict()}")

    twice = pd.Series([1, 2], index=["bo", "bo"])
    later = pd.Series([10, 20, 30], index=["bo", "bo", "dee"])
    rows_of_bo = len((twice + later).loc["bo"])
    check("product", "bo twice on both sides: the sum has {} rows of bo", rows_of_bo, at_least=4)

    numbered = pd.Series([10, 20, 30, 40], index=[3, 2, 1, 0])
    by_label = numbered.loc[3:1].tolist()
    by_place = numbered.iloc[1:3].tolist()
    text = f"labels 3, 2, 1, 0: loc[3:1] is {by_label}, end included; iloc[1:3] is {by_place}"
    check_close("loc", text, by_label + by_place, [10, 20, 30, 20, 30])


def show_rows(cfg: Config, frame: pd.DataFrame, columns: list[str]) -> None:
    print("\n[2] A condition is a column of True and False; a selection behaves as a copy")
    a, b = columns[:2]
    # The brackets are needed: & binds more tightly than >.
    low = frame[a].median()
    high = frame[b].median()
    chosen = frame[(frame[a] > low) & (frame[b] < high)]
    by_loop = []
    for label, x, y in zip(frame.index, frame[a], frame[b]):
        if x > low and y < high:
            by_loop.append(label)
    text = f"{a} over its median, {b} under: the {len(chosen)} rows that a loop finds"
    check_close("mask", text, chosen.index, by_loop)

    table = pd.DataFrame({"price": [1.0, 2.0, 3.0], "stock": [5, 0, 8]})
    selections = {
        'table[table["stock"] > 0]': table[table["stock"] > 0],
        "table.loc[[0, 2]]": table.loc[[0, 2]],
        'table[["price"]]': table[["price"]],
        "table.iloc[0:2]": table.iloc[0:2],
    }
    shared = []
    for name, part in selections.items():
        shared.append(np.shares_memory(part["price"], table["price"]))
        print(f"  {name:<28}{'shares the memory' if shared[-1] else 'is copied at once'}")
    text = "columns and slices share the table's memory, masks and lists of rows do not"
    check("shared", text, shared == [False, False, True, True])

    for part in selections.values():
        part.loc[0, "price"] = 99.0  # what was shared is copied now
    print(f"  99 was written into each of the four; the table has {table['price'].tolist()}")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # Two brackets: this writes into a copy that nobody keeps.
        table["price"][table["stock"] == 0] = 0.0
    print(f"  table[…][…] = 0 warns: {caught[0].category.__name__}")
    after_chain = table["price"].tolist()
    table.loc[table["stock"] == 0, "price"] = 0.0
    after_loc = table["price"].tolist()
    text = "table[…][…] = 0 is lost; table.loc[rows, column] = 0 arrives"
    check_close("chained", text, [after_chain, after_loc], [[1, 2, 3], [1, 0, 3]])


def group_by(
    keys: Iterable, values: Iterable[float], function: Callable[[list[float]], float]
) -> dict:
    """Split into one list a key, apply `function` to each list, combine to {key: result}.

    Keys are sorted. A missing key has no group; a missing value is left out of its group's list.
    An empty list is a group without a known value: the function says what that gives.
    """
    # practice: Split, apply, combine
    groups: dict = {}
    for key, value in zip(keys, values):
        if pd.isna(key):
            continue
        members = groups.setdefault(key, [])

        # The group exists even if none of its values is known.
        if not pd.isna(value):
            members.append(value)

    return {key: function(groups[key]) for key in sorted(groups)}
    # end practice


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else np.nan


def largest(values: list[float]) -> float:
    return max(values, default=np.nan)


def show_groups(cfg: Config, frame: pd.DataFrame, key: str, columns: list[str]) -> dict[str, float]:
    print(f"\n[3] groupby splits the rows by {key}, and applies a function to each part")
    means = frame.groupby(key)[columns].mean()
    print("  " + means.round(2).to_string().replace("\n", "\n  "))
    ours, pandas_ = both_groupbys(frame, key, columns)
    check_close("groups", "our means, maxima and counts are those of pandas", ours, pandas_)

    holes = pd.DataFrame({"key": ["b", None, "c", "b", "a"], "value": [4.0, 2, 5, np.nan, np.nan]})
    print(f"  key {holes['key'].tolist()}, value {holes['value'].tolist()}: groups a, b, c")
    ours, pandas_ = both_groupbys(holes, "key", ["value"])
    text = f"a missing key has no group, a missing value does not count: means {ours[0]}"
    check_close("missing", text, ours, pandas_, equal_nan=True)

    cities = pd.DataFrame({"city": ["X"] * 3 + ["Y"], "price": [1.0, 1, 1, 9]})
    by_city = cities.groupby("city")["price"].agg(["mean", "count"])
    weighted = (by_city["mean"] * by_city["count"]).sum() / by_city["count"].sum()
    text = f"prices 1, 1, 1 and 9: the means have the mean {by_city['mean'].mean():g}, the prices"
    check_close("weighted", f"{text} {weighted:g}", weighted, cities["price"].mean())
    first = means[columns[0]]
    return {f"mean_{name}": float(first[name]) for name in first.index}


def join_sizes(left: Iterable, right: Iterable) -> dict[str, int]:
    """How many rows the four joins of two tables have, from their key columns. No key is missing.

    Returns the numbers under the names inner, left, right and outer.
    """
    # practice: Count before you join
    on_left = Counter(left)
    on_right = Counter(right)

    # Two rows of a key on the left and three on the right make six pairs.
    pairs = sum(on_left[key] * on_right[key] for key in on_left)
    left_alone = sum(on_left[key] for key in on_left if key not in on_right)
    right_alone = sum(on_right[key] for key in on_right if key not in on_left)
    return {
        "inner": pairs,
        "left": pairs + left_alone,
        "right": pairs + right_alone,
        "outer": pairs + left_alone + right_alone,
    }
    # end practice


def show_joins(cfg: Config) -> tuple[int, dict[str, pd.DataFrame]]:
    print("\n[4] A join makes one row for every pair of equal keys")
    users = pd.DataFrame({"user": [1, 2, 3], "balance": [10, 20, 30]})
    orders = pd.DataFrame({"user": [2, 2, 3, 4], "item": ["pen", "ink", "map", "cup"]})
    print(f"  3 users, 4 orders, predicted: {join_sizes(users['user'], orders['user'])}")

    rng = cfg.rng()
    tables = [(users[["user"]], orders[["user"]])]
    for _ in range(cfg.joins):
        left = pd.DataFrame({"user": rng.integers(0, 8, size=rng.integers(1, 12))})
        right = pd.DataFrame({"user": rng.integers(0, 8, size=rng.integers(1, 12))})
        tables.append((left, right))
    kinds = ["inner", "left", "right", "outer"]
    predicted = []
    counted = []
    for left, right in tables:
        sizes = join_sizes(left["user"], right["user"])
        predicted.append([sizes[kind] for kind in kinds])
        counted.append([len(left.merge(right, on="user", how=kind)) for kind in kinds])
    text = f"their four joins, and those of {cfg.joins} random pairs, have the rows we predict"
    check_close("joins", text, predicted, counted)

    before = users["balance"].sum()
    after = users.merge(orders, on="user", how="left")["balance"].sum()
    text = f"the users own {before}; added up after the left join {{}}, as user 2 counts double"
    check("double", text, after, above=before)

    keys = [f"key {number}" for number in range(900)] + ["unknown"] * 100
    thousand = pd.DataFrame({"user": keys})
    joined = len(thousand.merge(thousand, on="user"))
    text = f"900 different keys and 100 times “unknown”, joined to itself: {joined:,} rows"
    check_close("unknown", text, join_sizes(keys, keys)["inner"], joined)

    missing = pd.DataFrame({"user": [None, "ana"]})
    rows = len(missing.merge(missing, on="user"))
    query = "SELECT count(*) FROM t AS a JOIN t AS b ON a.user = b.user"
    query = f"WITH t(user) AS (VALUES (NULL), ('ana')) {query}"
    in_sql = sqlite3.connect(":memory:").execute(query).fetchone()[0]
    text = "None and ana joined to themselves, in pandas and in SQL, where NULL meets nothing"
    check_close("none", f"{text}: {rows} rows and {in_sql}", [rows, in_sql], [2, 1])
    return joined, {"users": users, "orders": orders}


def pivot(long: Iterable[tuple]) -> dict:
    """Long to wide: {label: {column: value}}. ValueError where two values want the same cell."""
    wide: dict = {}
    for label, column, value in long:
        row = wide.setdefault(label, {})
        if column in row:
            raise ValueError(f"two values for row {label}, column {column}")
        row[column] = value
    return wide


def week_sums(days: Iterable[date], values: Iterable[float]) -> dict[date, float]:
    """{Sunday: sum of the seven days that end with it}, in order; weeks without a day are 0."""
    # practice: From days to weeks
    sums: dict[date, float] = {}
    for day, value in zip(days, values):
        sunday = day + timedelta(days=6 - day.weekday())  # weekday() is 0 on Monday
        sums[sunday] = sums.get(sunday, 0) + value

    # Weeks in which nothing happened belong into the table, too.
    sunday = min(sums)
    while sunday < max(sums):
        sums.setdefault(sunday, 0)
        sunday += timedelta(days=7)
    return dict(sorted(sums.items()))
    # end practice


def show_shapes(cfg: Config, frame: pd.DataFrame, columns: list[str]) -> None:
    print("\n[5] Wide: a row for each thing. Long: one for each cell. By week: one for seven days")
    wide = frame[columns].rename_axis("row").reset_index()
    long = wide.melt(id_vars="row")
    print(f"  {wide.shape} wide is {long.shape} long; it begins {long.head(1).values.tolist()}")
    by_us = pd.DataFrame.from_dict(pivot(long.itertuples(index=False)), orient="index")
    by_pandas = long.pivot(index="row", columns="variable", values="value")
    text = "melted, then pivoted by us and by pandas, it is the table we began with"
    # Cells that are missing stay so: the passengers of --data titanic have some.
    wanted = [frame[columns]] * 2
    check_close("round-trip", text, [by_us[columns], by_pandas[columns]], wanted, equal_nan=True)

    closed = [*pd.date_range("2024-01-07", periods=2), *pd.date_range("2024-02-19", periods=14)]
    days = pd.date_range("2024-01-03", "2024-03-10").drop(closed)
    visits = pd.Series(cfg.rng().integers(50, 150, size=len(days)), index=days)
    weekly = visits.resample("W").agg(["count", "sum"])
    print("  " + weekly.T.to_string(header=[f"{day:%d.%m.}" for day in weekly.index]))
    ours = week_sums([day.date() for day in days], visits.tolist())
    wanted = {day.date(): total for day, total in weekly["sum"].items()}
    for day in sorted(ours.keys() | wanted.keys()):
        if ours.get(day) != wanted.get(day):
            print(f"  {day}: got {ours.get(day)}, wanted {wanted.get(day)}")
    same = list(ours.items()) == list(wanted.items())
    check("weeks", "our Sundays and sums are those of resample, in the same order", same)

    known = visits.resample("W").sum(min_count=1)
    text = "weeks without a day: sum() says 0, sum(min_count=1) leaves {} unknown"
    check("empty", text, known.isna().sum(), at_least=2, at_most=2)


# Pictures and helpers: skip on a first reading


def both_groupbys(frame: pd.DataFrame, key: str, columns: list[str]) -> tuple[list, list]:
    ours = []
    pandas_ = []
    for column in columns:
        for name, function in {"mean": mean, "max": largest, "count": len}.items():
            ours.append(list(group_by(frame[key], frame[column], function).values()))
            pandas_.append(frame.groupby(key)[column].agg(name))
    return ours, pandas_


def draw_joins(cfg: Config, tables: dict[str, pd.DataFrame]) -> None:
    from matplotlib.patches import Rectangle

    tables = dict(tables)
    for kind in ("inner", "left", "right", "outer"):
        tables[kind] = tables["users"].merge(tables["orders"], on="user", how=kind)
    colours = {"user": "#D9D9D9", "balance": "#BFDDF0", "item": "#FBE3B5"}
    figure, axis = new_figure(size=(12.6, 4.4))
    left = 0.0
    for name, table in tables.items():
        is_source = name in ("users", "orders")
        for j, column in enumerate(table.columns):
            axis.text(left + j + 0.46, 0.75, column, ha="center", color=GREY)
            again = table["user"].duplicated() & (column == "balance")
            for i, value in enumerate(table[column]):
                colour = "#F4F4F4" if pd.isna(value) else colours[column]
                edge = RED if again[i] else colour
                axis.add_patch(Rectangle((left + j, -i), 0.9, 0.6, fc=colour, ec=edge, lw=2))
                text = str(value).removesuffix(".0").replace("nan", "NaN")
                axis.text(left + j + 0.46, -i + 0.29, text, ha="center", va="center")

        title = f"given: {name}" if is_source else f"{name}: {len(table)} rows"
        axis.text(left, 1.35, title, fontweight="normal" if is_source else "bold")
        if "balance" in table:
            total = f"sum of balance {table['balance'].sum():g}"
            axis.text(left, -len(table) + 0.1, total, color=GREY if is_source else RED)
        left += table.shape[1] + 0.8
    axis.set(xlim=(-0.2, left), ylim=(-5, 2.1), xticks=[], yticks=[], frame_on=False)
    save_figure(figure, cfg.out / "joins")


def run(cfg: Config) -> dict[str, float]:
    frame, key, columns = load(cfg)
    show_labels(cfg)
    show_rows(cfg, frame, columns)
    means = show_groups(cfg, frame, key, columns)
    joined, tables = show_joins(cfg)
    show_shapes(cfg, frame, columns)
    draw_joins(cfg, tables)
    return {"joined": joined, "rows": len(frame), **means}


if __name__ == "__main__":
    main(run, Config, __doc__)
