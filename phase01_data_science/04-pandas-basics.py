"""1.4 pandas basics: a table that knows its labels
pandas 基础：带标签的表格

You will be able to answer
    1. What does pandas add to an array?                           show_labels    align, loc, iloc
    2. How do you pick rows by a condition, and what is NaN?       show_masks     mask, nan
    3. What does groupby do, said with a dictionary?               show_groups    groups, missing, transform
    4. How many rows will a join have?                             show_joins     joins, random-joins, nan-joins
    5. How do wide and long tables turn into each other?           show_reshape   melt, round-trip
    6. What can an index of dates do that numbers cannot?          show_time      weeks, gap
    7. When is a table copied, and which assignment is lost?       show_copies    lazy, write, chained
Run       python phase01_data_science/04-pandas-basics.py                  about 2 s; --data titanic for the passengers
Needs     -
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


def group_by(
    keys: Iterable, values: Iterable[float], function: Callable[[list[float]], float]
) -> dict:
    """Split into one list a key, apply `function` to each list, combine into {key: result}, keys sorted."""
    # practice: split, apply, combine
    # hint: a missing key has no group; a missing value is left out, but its group exists. Only NaN is unequal to itself
    # hint: groups = {}, then for key, value in zip(keys, values): if key == key: members = groups.setdefault(key, [])
    groups: dict = {}
    for key, value in zip(keys, values):
        if key == key:
            members = groups.setdefault(key, [])
            if value == value:
                members.append(value)
    # end practice
    return {key: function(groups[key]) for key in sorted(groups)}


def join_sizes(left: Iterable, right: Iterable) -> dict[str, int]:
    """How many rows the four joins of two tables have, from nothing but their key columns."""
    # practice: count before you join
    # hint: twice on the left and three times on the right makes six rows; a left join also keeps those without partner
    # hint: m, n = Counter(left), Counter(right)
    m, n = Counter(left), Counter(right)  # a key that is absent counts 0
    both = sum(m[key] * n[key] for key in m)
    only_left = sum(m[key] for key in m if key not in n)
    only_right = sum(n[key] for key in n if key not in m)
    # end practice
    return {
        "inner": both,
        "left": both + only_left,
        "right": both + only_right,
        "outer": both + only_left + only_right,
    }


def melt(frame: pd.DataFrame, keep: str) -> list[tuple]:
    """Wide to long: one (label, column, value) for every cell outside of the column `keep`, column by column."""
    # practice: one row for every cell
    # hint: two loops: over the columns except `keep`, and over its labels together with the column's values
    # hint: for column in frame.columns: if column != keep: …
    long = []
    for column in frame.columns:
        if column != keep:
            for label, value in zip(frame[keep], frame[column]):
                long.append((label, column, value))
    # end practice
    return long


def pivot(long: Iterable[tuple]) -> dict:
    """Long to wide: {label: {column: value}}. Raises ValueError when two values want the same cell."""
    wide: dict = {}
    for label, column, value in long:
        if column in wide.setdefault(label, {}):
            raise ValueError(f"two values for row {label}, column {column}")
        wide[label][column] = value
    return wide


def week_sums(days: Iterable[date], values: Iterable[float]) -> dict[date, float]:
    """{Sunday: sum of the seven days that end with it}, from the first week to the last; empty weeks are 0."""
    # practice: from days to weeks
    # hint: day.weekday() is 0 on Monday and 6 on Sunday; timedelta(days=…) moves a date
    # hint: first every day into its Sunday, then fill the weeks in which nothing happened
    sums: dict[date, float] = {}
    for day, value in zip(days, values):
        sunday = day + timedelta(days=6 - day.weekday())
        sums[sunday] = sums.get(sunday, 0) + value
    for later in range(0, (max(sums) - min(sums)).days, 7):
        sums.setdefault(min(sums) + timedelta(days=later), 0)
    # end practice
    return dict(sorted(sums.items()))


def load(cfg: Config) -> tuple[pd.DataFrame, str, list[str]]:
    """The table, the column that groups it, and its columns of numbers."""
    if cfg.data == "titanic":
        return load_titanic(cfg), "Sex", ["Age", "Fare", "SibSp"]
    measures, species = load_iris()
    frame = pd.DataFrame(measures, columns=IRIS_COLUMNS).assign(species=species)
    return frame, "species", ["petal_length", "petal_width", "sepal_length"]


def show_labels(cfg: Config) -> None:
    print(
        "\n[1] Every row and column carries a label, and arithmetic goes by labels, not by places"
    )
    monday, tuesday = (
        pd.Series({"ana": 3, "bo": 5, "chen": 2}),
        pd.Series({"chen": 4, "ana": 1, "dee": 7}),
    )
    total = monday + tuesday
    print("  " + total.to_string().replace("\n", "\n  "))
    check(
        "align",
        "ana and chen add up though they stand elsewhere; who is missing once gives NaN",
        total["ana"] == 4 and total["chen"] == 6 and total[["bo", "dee"]].isna().all(),
    )
    numbered = pd.Series([10, 20, 30, 40], index=[3, 2, 1, 0])
    labels, places = numbered.loc[3:1].tolist(), numbered.iloc[1:3].tolist()
    check(
        "loc",
        f"labels 3, 2, 1, 0: loc[3:1] goes by label and includes the end: {labels}",
        labels == [10, 20, 30],
    )
    check("iloc", f"iloc[1:3] goes by place, as a list does: {places}", places == [20, 30])


def show_masks(cfg: Config, frame: pd.DataFrame, columns: list[str]) -> None:
    print(
        "\n[2] A condition is a column of True and False; as an index it keeps the rows with True"
    )
    a, b = columns[:2]
    low, high = frame[a].median(), frame[b].median()
    chosen = frame[
        (frame[a] > low) & (frame[b] > high)
    ]  # the brackets are needed: & binds before >
    by_hand = [i for i, (x, y) in enumerate(zip(frame[a], frame[b])) if x > low and y > high]
    check(
        "mask",
        f"{a} and {b} high: the {len(chosen)} rows a loop finds",
        chosen.index.tolist() == by_hand,
    )
    hole = pd.Series([1.0, np.nan, 3.0])
    check(
        "nan",
        "NaN == NaN is False, so only isna() finds it; mean() leaves it out",
        not (hole == np.nan).any() and hole.isna().sum() == 1 and hole.mean() == 2,
    )


def show_groups(cfg: Config, frame: pd.DataFrame, key: str, columns: list[str]) -> dict:
    print(
        f"\n[3] groupby splits the rows by {key}, applies a function to each part, combines the answers"
    )
    grouped = frame.groupby(key)[columns]
    print("  " + grouped.mean().round(2).to_string().replace("\n", "\n  "))
    ours = [
        [list(group_by(frame[key], frame[c], f).values()) for c in columns]
        for f in (np.mean, max, len)
    ]
    check_close(
        "groups",
        "our dictionary gives the same means, maxima and counts",
        ours,
        [getattr(grouped, name)().to_numpy().T for name in ("mean", "max", "count")],
    )
    holes = pd.DataFrame(
        {"key": ["b", None, "a", "b", "c"], "value": [1.0, 2.0, 3.0, np.nan, np.nan]}
    )
    counts = holes.groupby("key")["value"].count().to_dict()
    check(
        "missing",
        f"a missing key is in no group, a missing value in no count: {counts}",
        group_by(holes["key"], holes["value"], len) == counts == {"a": 1, "b": 1, "c": 0},
    )
    inside = frame[columns[0]] - frame.groupby(key)[columns[0]].transform("mean")
    check_close(
        "transform",
        "transform answers for every row: less its group's mean, each group has mean 0",
        inside.groupby(frame[key]).mean(),
        np.zeros(frame[key].nunique()),
        atol=1e-9,
    )
    return {f"mean_{name}": float(value) for name, value in grouped.mean()[columns[0]].items()}


def show_joins(cfg: Config) -> None:
    print(
        "\n[4] A join makes one row for every pair of equal keys; the kinds differ in what they do with the rest"
    )
    users = pd.DataFrame({"user": [1, 2, 3], "name": ["ana", "bo", "chen"]})
    orders = pd.DataFrame({"user": [2, 2, 3, 4], "item": ["pen", "ink", "map", "cup"]})
    said = join_sizes(users["user"], orders["user"])
    check_close(
        "joins",
        f"3 users, 4 orders, predicted: {said}",
        list(said.values()),
        [len(users.merge(orders, on="user", how=how)) for how in said],
    )
    rng = cfg.rng()
    pairs = [
        [pd.DataFrame({"key": rng.integers(0, 8, rng.integers(1, 12))}) for _ in "ab"]
        for _ in range(cfg.joins)
    ]
    check_close(
        "random-joins",
        f"the same for {cfg.joins} random pairs of tables",
        [list(join_sizes(a["key"], b["key"]).values()) for a, b in pairs],
        [[len(a.merge(b, on="key", how=how)) for how in said] for a, b in pairs],
    )
    empty = pd.DataFrame({"user": [None, "x"]})
    check(
        "nan-joins",
        "unlike SQL, merge takes two missing keys for equal",
        len(empty.merge(empty, on="user")) == 2,
    )
    draw_joins(cfg, users, orders)


def show_reshape(cfg: Config, frame: pd.DataFrame, columns: list[str]) -> None:
    print("\n[5] Wide: one row a thing, one column a property. Long: one row a cell")
    wide = frame[columns].rename_axis("row").reset_index()
    long = wide.melt(id_vars="row")  # columns row, variable, value
    ours = pd.DataFrame(melt(wide, "row"), columns=["row", "variable", "value"])
    check(
        "melt",
        f"{wide.shape} wide is {long.shape} long, as pandas melts it",
        ours.equals(long.astype(ours.dtypes)),
    )
    back = long.pivot(index="row", columns="variable", values="value")[columns]
    mine = pd.DataFrame.from_dict(pivot(melt(wide, "row")), orient="index")[columns]
    check(
        "round-trip",
        "melted and pivoted, by pandas and by us: the table we began with, cell by cell",
        np.array_equal(back, frame[columns], equal_nan=True)
        and np.array_equal(mine, frame[columns], equal_nan=True),
    )


def show_time(cfg: Config) -> None:
    print("\n[6] An index of dates knows weeks, gaps and months")
    days = pd.date_range("2024-01-03", "2024-03-10").delete(
        [4, 5, *range(47, 61)]
    )  # two days and two weeks missing
    visits = pd.Series(cfg.rng().integers(50, 150, len(days)), index=days)
    weekly = visits.resample("W").sum()
    print(f"  {len(visits)} days, {len(weekly)} weeks: {weekly.tolist()}")
    check(
        "weeks",
        "our week sums equal resample('W').sum(), weeks without a day included",
        week_sums([d.date() for d in days], visits.tolist())
        == {d.date(): v for d, v in weekly.items()},
    )
    unknown = [
        shifted.reindex(days).isna().sum() for shifted in (visits.shift(1), visits.shift(1, "D"))
    ]
    check(
        "gap",
        "shift(1) takes the row before; shift(1, 'D') yesterday, unknown after each gap",
        unknown == [1, 3],
    )


def show_copies(cfg: Config) -> None:
    print(
        "\n[7] Copy-on-write: every selection behaves as a copy, but nothing is copied until somebody writes"
    )
    table = pd.DataFrame({"price": [1.0, 2.0, 3.0], "stock": [5, 0, 8]})
    part = table[["price"]]
    check(
        "lazy",
        "a selected column still shares its memory",
        np.shares_memory(part["price"], table["price"]),
    )
    part.loc[0, "price"] = 99.0  # only now is anything copied
    check(
        "write",
        "the first write gives the selection its own: the table keeps its 1.0",
        table.loc[0, "price"] == 1.0 and not np.shares_memory(part["price"], table["price"]),
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        table["price"][table["stock"] == 0] = (
            0.0  # two brackets: writes into a copy that nobody holds
        )
    lost = table["price"].tolist() == [1.0, 2.0, 3.0]
    table.loc[table["stock"] == 0, "price"] = 0.0
    check(
        "chained",
        f"table[…][…] = 0 is lost ({caught[0].category.__name__}); table.loc[rows, column] = 0 is not",
        lost and table["price"].tolist() == [1.0, 0.0, 3.0],
    )


def draw_joins(cfg: Config, users: pd.DataFrame, orders: pd.DataFrame) -> None:
    from matplotlib.patches import Rectangle

    (figure, axis), left = new_figure(size=(12.6, 3.8)), 0.0
    tables = {"users": users, "orders": orders} | {
        how: users.merge(orders, on="user", how=how) for how in ("inner", "left", "right", "outer")
    }
    for name, table in tables.items():
        for j, column in enumerate(table.columns):
            axis.text(left + j + 0.46, 0.75, column, ha="center", color=GREY)
            for i, value in enumerate(table[column]):
                known = value == value  # NaN is not
                colour = (
                    {"user": PURPLE, "name": BLUE, "item": ORANGE}[column] if known else "#EEEEEE"
                )
                axis.add_patch(Rectangle((left + j, -i), 0.93, 0.6, color=colour))
                axis.text(
                    left + j + 0.46,
                    -i + 0.29,
                    value if known else "NaN",
                    ha="center",
                    va="center",
                    color="white" if known else GREY,
                    fontweight="bold" if known else None,
                )
        axis.text(
            left + table.shape[1] / 2,
            1.35,
            f"{name}: {len(table)} rows",
            ha="center",
            fontweight="bold",
        )
        left += table.shape[1] + 0.8
    axis.set(xlim=(-0.2, left), ylim=(-4.2, 2.1), xticks=[], yticks=[], frame_on=False)
    save_figure(figure, cfg.out / "joins")


def run(cfg: Config) -> dict:
    frame, key, columns = load(cfg)
    show_labels(cfg)
    show_masks(cfg, frame, columns)
    means = show_groups(cfg, frame, key, columns)
    show_joins(cfg)
    show_reshape(cfg, frame, columns)
    show_time(cfg)
    show_copies(cfg)
    return means | {"rows": len(frame)}


if __name__ == "__main__":
    main(run, Config, __doc__)
