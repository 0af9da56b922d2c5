"""1.4 pandas basics: a table that knows its labels
pandas 基础：带标签的表格

You will be able to answer
    1. What do labels add to an array?                 show_labels  align, loc
    2. How do you pick rows, and which are copies?     show_rows    mask, first-write, chained
    3. What does groupby do, said with a dictionary?   show_groups  groups, missing
    4. How many rows will a join have?                 show_joins   joins
    5. How do you turn a table: long, wide, by week?   show_shapes  melt, round-trip, weeks, gap
Predict   joined: 900 different keys and 100 times “unknown”: joined to itself, how many rows?
Run       python phase01_data_science/04-pandas-basics.py                  about 2 s; --data titanic
Needs     -
Reference pd.DataFrame.groupby, pd.DataFrame.merge, pd.DataFrame.melt, pd.DataFrame.resample
"""

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
from common.figures import BLUE, GREY, ORANGE, PURPLE, new_figure, save_figure


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
    check_close("align", text, total, [4, np.nan, 6, np.nan])

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
    part = table[["price"]]
    shared_before = np.shares_memory(part["price"], table["price"])
    part.loc[0, "price"] = 99.0
    shared_after = np.shares_memory(part["price"], table["price"])
    text = "a selection shares the table's memory until somebody writes into it"
    check("first-write", text, shared_before and not shared_after)
    print(f"  99 was written into the selection; the table has {table['price'].tolist()}")

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


def show_groups(cfg: Config, frame: pd.DataFrame, key: str, columns: list[str]) -> dict[str, float]:
    print(f"\n[3] groupby splits the rows by {key}, and applies a function to each part")
    grouped = frame.groupby(key)
    means = grouped[columns].mean()
    print("  " + means.round(2).to_string().replace("\n", "\n  "))
    ours = []
    for column in columns:
        for function in (np.mean, max, len):
            ours.append(list(group_by(frame[key], frame[column], function).values()))
    pandas_ = []
    for column in columns:
        pandas_ += [grouped[column].mean(), grouped[column].max(), grouped[column].count()]
    check_close("groups", "our means, maxima and counts are those of pandas", ours, pandas_)

    holes = pd.DataFrame({"key": ["b", None, "c", "b", "a"], "value": [4.0, 2, 5, np.nan, np.nan]})
    counts = group_by(holes["key"], holes["value"], len)
    pandas_counts = holes.groupby("key")["value"].count().to_dict()
    print(f"  key {holes['key'].tolist()}, value {holes['value'].tolist()}: pandas {pandas_counts}")
    text = f"a missing key has no group, and no missing value counts: {counts}"
    check("missing", text, list(counts.items()) == list(pandas_counts.items()))
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
    users = pd.DataFrame({"user": [1, 2, 3], "name": ["ana", "bo", "chen"]})
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

    keys = [*map(str, range(900)), *["unknown"] * 100]
    thousand = pd.DataFrame({"user": keys})
    joined = len(thousand.merge(thousand, on="user"))
    print(f"  1,000 rows by 1,000, 100 of each with the key “unknown”: {joined:,} rows")
    missing = pd.DataFrame({"user": [None, "ana"]})
    rows = len(missing.merge(missing, on="user"))
    print(f"  None and ana, joined to themselves: {rows} rows; SQL would make 1, without the NULL")
    return joined, {"users": users, "orders": orders}


def melt(frame: pd.DataFrame, keep: str) -> list[tuple]:
    """Wide to long: (label, column, value) for every cell outside of `keep`, column by column."""
    long = []
    for column in frame.columns:
        if column == keep:
            continue
        for label, value in zip(frame[keep], frame[column]):
            long.append((label, column, value))
    return long


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
    print(
        "\n[5] Wide: a row for each thing. Long: a row for each cell. By week: a row for seven days"
    )
    wide = frame[columns].rename_axis("row").reset_index()
    ours = pd.DataFrame(melt(wide, keep="row"), columns=["row", "variable", "value"])
    long = wide.melt(id_vars="row")
    text = f"{wide.shape} wide is {ours.shape} long, cell by cell as pandas melts it"
    check("melt", text, ours.equals(long.astype(ours.dtypes)))

    back = pd.DataFrame.from_dict(pivot(melt(wide, keep="row")), orient="index")
    pandas_back = long.pivot(index="row", columns="variable", values="value")
    text = "melted and pivoted, by us and by pandas, it is the table we began with"
    original = frame[columns]
    check_close("round-trip", text, [back[columns], pandas_back[columns]], [original, original])

    days = pd.date_range("2024-01-03", "2024-03-10")
    days = days.delete([4, 5, *range(47, 61)])  # two days without visits, and two weeks
    visits = pd.Series(cfg.rng().integers(50, 150, size=len(days)), index=days)
    ours = week_sums([day.date() for day in days], visits.tolist())
    weekly = visits.resample("W").sum()
    print(f"  visits of {len(visits)} days, week by week: {weekly.tolist()}")
    ours = [(sunday.toordinal(), total) for sunday, total in ours.items()]
    wanted = [(sunday.toordinal(), total) for sunday, total in weekly.items()]
    check_close(
        "weeks", "our Sundays and sums are those of resample, empty weeks too", ours, wanted
    )

    unknown = visits.shift(1).isna().sum()
    unknown_by_date = visits.shift(1, freq="D").reindex(days).isna().sum()
    text = "shift(1) takes the row before, 1 is unknown; shift(1, freq='D') takes yesterday, 3 are"
    check_close("gap", text, [unknown, unknown_by_date], [1, 3])


# Pictures: skip on a first reading


def draw_joins(cfg: Config, tables: dict[str, pd.DataFrame]) -> None:
    from matplotlib.patches import Rectangle

    tables = dict(tables)
    for kind in ("inner", "left", "right", "outer"):
        tables[kind] = tables["users"].merge(tables["orders"], on="user", how=kind)
    colours = {"user": PURPLE, "name": BLUE, "item": ORANGE}
    figure, axis = new_figure(size=(12.6, 3.8))
    left = 0.0
    for name, table in tables.items():
        for j, column in enumerate(table.columns):
            axis.text(left + j + 0.46, 0.75, column, ha="center", color=GREY)
            for i, value in enumerate(table[column]):
                is_known = not pd.isna(value)
                colour = colours[column] if is_known else "#EEEEEE"
                axis.add_patch(Rectangle((left + j, -i), 0.93, 0.6, color=colour))
                text = value if is_known else "NaN"
                style = {"color": "white", "fontweight": "bold"} if is_known else {"color": GREY}
                place = {"ha": "center", "va": "center"}
                axis.text(left + j + 0.46, -i + 0.29, text, **place, **style)

        title = f"{name}: {len(table)} rows"
        axis.text(left + table.shape[1] / 2, 1.35, title, ha="center", fontweight="bold")
        left += table.shape[1] + 0.8
    axis.set(xlim=(-0.2, left), ylim=(-4.2, 2.1), xticks=[], yticks=[], frame_on=False)
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
