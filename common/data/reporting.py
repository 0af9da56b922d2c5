"""What a report about a table needs and no lesson teaches: containers, charts as counts, words."""

import difflib
import importlib
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from common.data.cells import MOSTLY, are_days, to_dates, to_numbers
from common.errors import LessonError

if TYPE_CHECKING:
    from pandas import Categorical, DataFrame, Series

USED = ("number", "date", "category")  # the kinds that can be drawn and compared
LEVELS = 8  # of a category in a chart
CLASSES = 5  # of a target, each with its colour
UNITS = {"Age": "years", "Fare": "pounds"} | dict.fromkeys(
    ("sepal_length", "sepal_width", "petal_length", "petal_width"), "cm"
)


@dataclass
class Column:
    """What a column was understood to be.

    kind: number, date, category, text, id, constant or empty. values (n,): floats of a number, days
    since 1970 of a date, else strings; NaN where missing. odd: the cells that do not fit the kind.
    """

    name: str
    kind: str
    values: "Series"
    odd: list[str] = field(default_factory=list)
    remark: str = ""


def read_column(name: str, raw: "Series", kind_of: Callable[..., str]) -> Column:
    """Read the cells of a column as what they are, and keep those that do not fit.

    kind_of(name, known, numbers, days): its kind, from the known cells as strings, numbers, days.
    """
    import pandas as pd

    known = raw.dropna().astype(str)
    numbers, remark = to_numbers(known)
    days = pd.Series(np.nan, known.index)
    on_days = ""
    if numbers.notna().mean() < MOSTLY or are_days(numbers):
        days, on_days = to_dates(known)

    kind = kind_of(name, known, numbers, days)
    values = known
    if kind == "number":
        values = numbers
    elif kind == "date":
        values, remark = days, on_days
    elif numbers.notna().all() and kind == "category":
        # 1 and 1.0 are one class
        values = numbers.map("{:.0f}".format)
    elif numbers.notna().any() and kind in ("category", "text"):
        remark = f"{numbers.notna().mean():.0%} of the cells are numbers, the others words"

    odd = known[values.isna()].tolist()
    return Column(name, kind, values.reindex(raw.index), odd, remark)


class Table:
    """A table whose columns are understood.

    frame (n, k): the cells as they were read. values (n, k): the same as `read_column(name, cells)`
    understood them. findings: what a reader must know before any figure.
    """

    def __init__(
        self,
        name: str,
        frame: "DataFrame",
        target: str | None,
        findings: list[str],
        read_column: Callable[[str, "Series"], Column],
    ):
        import pandas as pd

        self.name = name
        self.frame = frame
        self.target = target
        self.findings = findings
        self.columns = {column: read_column(column, frame[column]) for column in frame}
        self.values = pd.DataFrame({column: c.values for column, c in self.columns.items()})
        if target is not None:
            _check_target(self)
        self.is_regression = target in self.of("number")

    def of(self, *kinds: str) -> list[str]:
        """The names of the columns of these kinds."""
        return [name for name, column in self.columns.items() if column.kind in kinds]


def _check_target(table: Table) -> None:
    """Raises LessonError for a target about which nothing can be learnt."""
    target = table.target
    if target not in table.columns:
        lower = {name.lower(): name for name in table.columns}
        close = difflib.get_close_matches(target.lower(), lower, 1)
        meant = f"Did you mean {lower[close[0]]!r}? " if close else ""
        raise LessonError(
            f"there is no column {target!r}. {meant}"
            f"The columns are {', '.join(table.columns)[:200]}."
        )

    kind = table.columns[target].kind
    counts = table.values[target].value_counts()
    why = ""
    if len(counts) < 2:
        why = "has one value or none, so there is nothing to predict"
    elif kind == "date":
        why = "holds dates, and a baseline predicts numbers or classes"
    elif kind not in ("number", "category"):
        why = f"is of the kind {kind}, nearly unique to each row like a name"
    elif counts.sum() < 10 or (kind == "category" and (counts >= 5).sum() < 2):
        why = "has too few rows: a baseline needs ten, and five in each of two classes"
    if why:
        raise LessonError(f"the target {target!r} {why}. Choose another --target, or leave it out.")


def with_luck(frame: "DataFrame") -> "DataFrame":
    """The table, and beside it a column of noise with gaps and a coin that was tossed."""
    rng = np.random.default_rng(0)
    gap = rng.random(len(frame)) < 0.2
    noise = np.where(gap, np.nan, rng.normal(size=len(frame)).round(2))
    return frame.assign(noise=noise, coin=rng.choice(["heads", "tails"], len(frame)))


def model_rows(table: Table, most: int, seed: int) -> "tuple[DataFrame, np.ndarray]":
    """The inputs (n, k) and the target (n,) of a baseline; what is left out becomes a finding.

    At most `most` rows, drawn at random. Of a target with classes, those of five rows or more.
    """
    target = table.target
    known = table.values.dropna(subset=target)
    known = known.sample(min(len(known), most), random_state=seed)
    if not table.is_regression:
        # one row of each class for every fold
        often = known.groupby(target)[target].transform("size") >= 5
        rare = len(known) - often.sum()
        if rare:
            table.findings.append(
                f"Baseline: {rare} rows of classes with fewer than five left out."
            )
        known = known[often]
    others = [name for name in table.of(*USED) if name != target]
    names = [name for name in others if known[name].count() > len(known) / 5]
    unused = [name for name in others if name not in names]
    if unused:
        table.findings.append(f"Baseline: mostly missing, so not used: {', '.join(unused)[:100]}.")
    return known[names], known[target].to_numpy()


class Stopwatch:
    """CPU-seconds that each part of a run took: `with watch.time("reading"): …`, print(watch).

    The first part is all that this process did before.
    """

    def __init__(self) -> None:
        self.seconds = {"starting": time.process_time()}

    @contextmanager
    def time(self, part: str) -> Iterator[None]:
        start = time.process_time()
        yield
        self.seconds[part] = time.process_time() - start

    def __str__(self) -> str:
        parts = ", ".join(f"{part} {seconds:.1f} s" for part, seconds in self.seconds.items())
        return f"{parts}; together {sum(self.seconds.values()):.1f} s"


def load_libraries() -> None:
    """Load the large ones now, or their time is taken for that of the part that needs them first.

    They are loaded after the table was read: a refusal of a bad file does not wait for them.
    """
    for name in ("scipy.stats", "sklearn.ensemble", "sklearn.model_selection", "jinja2"):
        importlib.import_module(name)


def plain(value: float) -> str:
    """A number as people write it: 206,856 and 0.0123, not 2.07e+05."""
    if 1000 <= abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def plain_day(value: float) -> str:
    """Days since 1970 as 2024-05-31."""
    import pandas as pd

    return str(pd.Timestamp(0).as_unit("s") + pd.Timedelta(days=value).floor("s"))[:10]


def plain_limit(x: np.ndarray, limit: float, kind: str) -> str:
    """A limit in as few digits as still divide x (n,) at the same place; of dates as a date."""
    if kind == "date":
        return plain_day(limit)
    rounded = limit
    for digits in range(3, 17):
        rounded = float(f"{limit:.{digits}g}")
        if ((x > rounded) == (x > limit)).all():
            break
    return np.format_float_positional(rounded, trim="-")


def make_preparation(inputs: "DataFrame") -> Any:
    """Gaps filled by the median, beside a column that says where they were; levels one-hot."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import OneHotEncoder

    numbers = [name for name in inputs if inputs[name].dtype.kind == "f"]
    levels = [name for name in inputs if name not in numbers]
    fill = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    encode = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return ColumnTransformer([("numbers", fill, numbers), ("levels", encode, levels)])


def rule_in_words(prepare: Any, stump: Any, inputs: "DataFrame", table: Table) -> str:
    """The question that a fitted tree of depth one asks of the inputs (n, k).

    prepare: the fitted ColumnTransformer of "numbers", an imputer with indicator, and "levels",
    one-hot, whose output the tree was given.
    """
    tree = stump.tree_
    if tree.node_count == 1:
        return "no single question helps"

    place = tree.feature[0]
    numbers = prepare.transformers_[0][2]
    levels = prepare.transformers_[1][2]
    if place < len(numbers):
        x = prepare.transform(inputs)[:, place]
        limit = plain_limit(x, tree.threshold[0], table.columns[numbers[place]].kind)
        question = f"{numbers[place]} is above {limit}"
    else:
        gaps = prepare.named_transformers_["numbers"].indicator_.features_ if numbers else []
        questions = [f"{numbers[gap]} is missing" for gap in gaps]
        known = prepare.named_transformers_["levels"].categories_ if levels else []
        for name, values in zip(levels, known):
            # only NaN differs from itself
            questions += [f"{name} is {v if v == v else 'missing'}" for v in values]
        question = questions[place - len(numbers)]

    no, yes = tree.value[1:, 0]
    if table.is_regression:
        return f"if {question}, say {plain(yes[0])}, else {plain(no[0])}"
    classes = stump.classes_
    return f"if {question}, say {classes[yes.argmax()]}, else {classes[no.argmax()]}"


def commonest_mistake(y: "np.ndarray", predicted: "np.ndarray") -> str:
    """Which class of the labels y (n,) is most often taken for which other, and how often."""
    import pandas as pd

    both = pd.DataFrame({"is": y, "said": predicted})
    wrong = both[both["is"] != both["said"]].value_counts()
    if wrong.empty:
        return "none"
    label, said = wrong.index[0]
    return f"{label} is taken for {said}, {wrong.iloc[0]} of {(y == label).sum()} times"


def describe(table: Table, name: str) -> dict[str, Any]:
    """The figures of one column, written out, and the counts of a small chart of all rows."""
    import pandas as pd

    column = table.columns[name]
    known = table.values[name].dropna()
    row: dict[str, Any] = {"column": column, "distinct": known.nunique()}
    row["missing"] = len(table.values) - len(known)
    if column.kind in ("number", "date"):
        write = plain if column.kind == "number" else plain_day
        low, middle, high = known.quantile([0, 0.5, 1])
        row |= {"mean": write(known.mean()), "sd": plain(known.std())}
        row |= {"low": write(low), "median": write(middle), "high": write(high)}
        row["sd"] += " days" if column.kind == "date" else ""
    else:
        common = known.value_counts().head(3)
        row["common"] = [(value[:30], count) for value, count in common.items()]
    if column.kind in USED:
        everyone = pd.Categorical.from_codes(np.zeros(len(table.values), dtype=int), ["all"])
        row["bars"] = [sum(bar) for bar in chart(table, name, everyone)["counts"]]
    return row


def commonest(labels: "Series", most: int) -> "Series":
    """Labels (n,), with those beyond the `most` commonest as one, with its share of the rows."""
    counts = labels.value_counts()
    if len(counts) <= most + 1:
        return labels
    rare = counts.index[most:]
    share = counts[rare].sum() / counts.sum()
    return labels.where(~labels.isin(rare), f"{len(rare)} others ({share:.0%})")


def target_groups(table: Table) -> "Series":
    """The group by which each row (n,) is coloured: its class, or a third of the target's range."""
    import pandas as pd

    if table.target is None:
        return pd.Series("all rows", table.values.index)
    values = table.values[table.target]
    if table.is_regression:
        thirds = ["1 lowest third", "2 middle third", "3 highest third"]
        values = pd.cut(values.rank(pct=True), 3, labels=thirds).astype(object)
        return values.fillna("missing")
    return commonest(values.fillna("missing"), CLASSES)


def make_charts(table: Table) -> list[dict[str, Any]]:
    """A chart of every column but the target, in the colours of the target."""
    import pandas as pd

    groups = pd.Categorical(target_groups(table))
    return [chart(table, name, groups) for name in table.of(*USED) if name != table.target]


def chart(table: Table, name: str, groups: "Categorical") -> dict[str, Any]:
    """How often each value occurs in each group of rows (n,): counts (bars, groups).

    Of a category the bars are its levels, commonest first; of a number or a date, equal steps,
    the last with both of its ends.
    """
    import pandas as pd

    x = table.values[name]
    kind = table.columns[name].kind
    levels = list(groups.categories)
    found: dict[str, Any] = {"name": name, "kind": kind, "levels": levels}
    if kind == "category":
        x = commonest(x, LEVELS)
        found["labels"] = list(x.value_counts().index)
        # places 0, 1, … of the labels; a missing one has -1 and falls into no bar
        values = pd.Categorical(x, found["labels"]).codes
        edges = np.arange(len(found["labels"]) + 1) - 0.5
    else:
        values = x.to_numpy()
        edges = np.linspace(x.min(), x.max(), min(20, x.nunique()) + 1)
        write = plain if kind == "number" else plain_day
        found["labels"] = [write(edges[0]), write(edges[-1])]

    # what is missing, NaN or -1, lies within no edges
    known = (values >= edges[0]) & (values <= edges[-1])
    bars = np.searchsorted(edges, values[known], "right") - 1
    bars = np.minimum(bars, len(edges) - 2)
    shape = (len(edges) - 1, len(levels))
    cells = bars * shape[1] + groups.codes[known]
    counts = np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape)
    return found | {"edges": edges, "counts": counts.tolist()}


def count_formulas(table: Table) -> int:
    """Cells that a spreadsheet program may run: they begin with = + - or @, and are no number."""
    import pandas as pd

    count = 0
    for column in table.columns.values():
        cells = column.values
        if column.kind in ("number", "date"):
            cells = pd.Series(column.odd, dtype=str)
        counts = cells.value_counts()
        begins = counts[counts.index.str.match(r"[=@+-].")]
        count += begins[pd.to_numeric(begins.index, errors="coerce").isna()].sum()
    return int(count)


def addresses_outside(page: str) -> list[str]:
    """The addresses of an HTML page that are neither a place in it nor data in it."""
    # the quotation marks of a cell are written &#34;
    addresses = re.findall(r'\b(?:src|href|srcset|action)="([^"]*)"', page)
    return [address for address in addresses if not address.startswith(("data:", "#"))]


def draw_charts(charts: list[dict], title: str, path: Path) -> Path:
    """The charts as one PNG. Text from the data is text: a $ in it begins no formula."""
    from matplotlib.ticker import MaxNLocator

    from common.figures import COLOURS, new_figure, save_figure

    rows = -(-len(charts) // 4)
    columns = -(-len(charts) // rows)
    figure, axes = new_figure(rows, columns, size=(13, 3.6 * rows + 0.5), squeeze=False)
    for axis in axes.flat[len(charts) :]:
        axis.axis("off")
    for axis, one in zip(axes.flat, charts):
        counts = np.array(one["counts"])  # (bars, groups)
        groups = len(one["levels"])
        for place, (level, colour, heights) in enumerate(zip(one["levels"], COLOURS, counts.T)):
            if one["kind"] == "category":
                # the groups side by side
                left = np.arange(len(counts)) - 0.4 + 0.8 * place / groups
                axis.bar(left, heights, 0.8 / groups, align="edge", color=colour, label=level)
            else:
                # each from the ground up, so that one shows through another where they overlap
                face = (colour, 0.35)
                axis.stairs(heights, one["edges"], fill=True, fc=face, ec=colour, label=level)
                axis.stairs(heights, one["edges"], color=colour, linewidth=1.5)
        if one["kind"] == "category":
            labels = [label[:9] for label in one["labels"]]
            axis.set_xticks(np.arange(len(counts)), labels, parse_math=False)
        unit = UNITS.get(one["name"])
        axis.set_xlabel(
            f"{one['name'][:24]} ({unit})" if unit else one["name"][:24], parse_math=False
        )
        axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    for axis in axes[:, 0]:
        axis.set_ylabel("rows")
    # so that the legend stands beside the title and above the charts
    figure.suptitle(f"Colours: {title}\n", x=0.01, ha="left", parse_math=False)
    bars, names = axes[0, 0].get_legend_handles_labels()
    legend = figure.legend(bars, names, ncols=7, loc="upper right")
    for text in legend.get_texts():
        text.set_parse_math(False)
    return save_figure(figure, path)
