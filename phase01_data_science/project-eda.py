"""Project 1 Exploratory data analysis: one report for any table
探索性数据分析：给任意表格生成一份报告

You will be able to answer
    1. What kind of thing does each column hold?         show_columns        read
    2. How much is missing, and is that an accident?     show_gaps           gaps
    3. How are the values distributed?                   show_distributions  bars
    4. Which numbers move together?                      show_correlations   monotone
    5. Do groups differ, how much, and is it luck?       show_effects        noise
    6. What can be predicted, by how simple means?       show_baseline       apart, learns, inputs, accuracy, beats-rule
    7. Can the report be sent on, and trusted?           show_report         self-contained, escaped
Run       python phase01_data_science/project-eda.py   about 5 s; --data titanic; --csv FILE --target COLUMN for yours
Needs     phase01_data_science/04-pandas-basics, phase01_data_science/05-pandas-preprocessing
"""

import base64
import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pandas as pd

from common.checks import check, check_close, depends_on_input, expect
from common.config import LessonConfig, main, param
from common.data.anycsv import read_any_csv
from common.errors import LessonError
from common.figures import COLOURS, new_figure, save_figure
from common.files import write_text
from common.lessons import ROOT, load_lesson
from common.record import current

load_known = load_lesson("phase01_data_science/04-pandas-basics").load
Pipeline = load_lesson("phase01_data_science/05-pandas-preprocessing").Pipeline
TARGETS, WANTED = {"iris": "species", "titanic": "Survived"}, {"iris": 0.93, "titanic": 0.80}
MOSTLY, CODES, LEVELS = (
    0.9,
    5,
    20,
)  # share that must be readable; most levels of whole numbers, of words
USED, PAIRS, SAMPLE = (
    ("number", "date", "category"),
    60,
    5000,
)  # kinds in use, most comparisons, most rows
CHINESE = {
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "WenQuanYi Micro Hei",
    "Microsoft YaHei",
    "PingFang SC",
    "SimHei",
}
DATES = ("ISO8601", "%Y/%m/%d", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y")


@dataclass
class Config(LessonConfig):
    data: str | None = param(
        None, "data set; iris where there is no --csv either", choices=("iris", "titanic")
    )
    csv: Path | None = param(None, "a table of your own")
    target: str | None = param(
        None, "column to predict (default: species of iris, Survived of titanic)"
    )
    encoding: str | None = param(
        None, "of the CSV, such as gb18030 (default: UTF-8, or what its first bytes say)"
    )
    separator: str | None = param(
        None, "of the cells (default: , ; | or tab, whichever the first line has most of)"
    )
    columns: int = param(50, "columns to look at; more are named as left out", low=2)
    rows: int = param(100_000, "rows to read", low=2)
    shuffles: int = param(999, "shuffles behind a p-value", tiny=99)
    repeats: int = param(2, "how often five-fold cross-validation is repeated", tiny=1)


@dataclass
class Column:
    """values (n,): floats of a number, days since 1970 of a date, else strings; NaN where missing or odd."""

    name: str
    kind: str  # number, category, date, text, id, constant or empty
    values: pd.Series
    odd: list[str] = field(
        default_factory=list
    )  # cells that do not fit the kind, such as words among numbers
    remark: str = ""


@dataclass
class Table:
    name: str
    frame: pd.DataFrame  # as it was read
    target: str | None
    findings: list[str]

    def __post_init__(self) -> None:
        self.columns = {name: read_column(name, self.frame[name]) for name in self.frame}
        self.values = pd.DataFrame(
            {name: column.values for name, column in self.columns.items()}
        )  # (n, columns)
        self.is_regression = self.target in self.of("number")

    def of(self, *kinds: str) -> list[str]:
        return [name for name, column in self.columns.items() if column.kind in kinds]


def read_column(name: str, raw: pd.Series) -> Column:
    """Decide what a column holds: the first kind that nine in ten of its cells can be read as."""
    known = raw.dropna().astype(str).str.strip()
    distinct, n = known.nunique(), len(known)
    if distinct < 2:
        return Column(name, "constant" if n else "empty", known.reindex(raw.index))
    numbers = pd.to_numeric(known, errors="coerce").astype(float)
    codes = known.str.fullmatch(
        r"\d{16,}|0\d+"
    )  # 007 and a card's sixteen digits are names, not amounts
    numbers = numbers.where(
        (numbers.abs() < 1e100) & ~codes
    )  # and inf would make every mean useless
    whole = numbers.notna().all() and (numbers % 1 == 0).all()
    if whole and distinct == n >= 10 and np.ptp(numbers) < 2 * n:
        return Column(name, "id", known.reindex(raw.index))
    if whole and distinct <= min(CODES, n / 4):  # classes 1 to 3 are names that happen to be digits
        return Column(name, "category", numbers.map("{:.0f}".format).reindex(raw.index))
    some = known.sample(min(n, 500), random_state=0)  # parsing dates is slow
    fits = [pd.to_datetime(some, format=form, errors="coerce", utc=True).count() for form in DATES]
    dates = pd.to_datetime(
        known, format=DATES[int(np.argmax(fits))], errors="coerce", utc=True
    ).dt.tz_localize(None)
    days = (dates.dt.as_unit("s") - pd.Timestamp(0).as_unit("s")) / pd.Timedelta(
        days=1
    )  # nanoseconds end in 2262
    tie = "read as month/day/year; day/month/year would fit as well" * bool(
        0 < fits[-1] == fits[-2]
    )
    for kind, values, remark in (("number", numbers, ""), ("date", days, tie)):
        if values.notna().mean() >= MOSTLY and values.nunique() > 1:
            return Column(
                name, kind, values.reindex(raw.index), known[values.isna()].tolist(), remark
            )
    mixed = (
        f"{numbers.notna().mean():.0%} of the cells are numbers, the others words"
        if numbers.notna().any()
        else ""
    )
    return Column(
        name,
        "category" if distinct <= min(LEVELS, n / 2) else "text",
        known.reindex(raw.index),
        [],
        mixed,
    )


def load(cfg: Config) -> Table:
    """The table that the settings name, with every column understood."""
    if cfg.csv and cfg.data:
        raise LessonError("--csv and --data each name a table. Leave one of them out.")
    if cfg.csv:
        frame, notes = read_any_csv(
            cfg.csv,
            encoding=cfg.encoding,
            separator=cfg.separator,
            columns=cfg.columns,
            rows=cfg.rows,
            keep=cfg.target,
        )
        current().use_data(cfg.csv.name, cfg.csv)
        table = Table(cfg.csv.stem, frame, cfg.target, notes)
    else:
        table = Table(
            name := cfg.data or "iris", load_known(cfg)[0], cfg.target or TARGETS[name], []
        )
    check_target(table)
    return table


def check_target(table: Table) -> None:
    """Raises LessonError for a target about which nothing can be learnt."""
    if (target := table.target) is None:
        return
    if target not in table.columns:
        close = difflib.get_close_matches(
            target.lower(), [name.lower() for name in table.columns], 1
        )
        meant = "".join(
            f"Did you mean {name!r}? " for name in table.columns if name.lower() in close
        )
        raise LessonError(
            f"there is no column {target!r}. {meant}The columns are {', '.join(table.columns)[:200]}."
        )
    kind, counts = table.columns[target].kind, table.values[target].value_counts()
    few = counts.sum() < 10 or not table.is_regression and (counts >= 5).sum() < 2
    why = (
        "has one value or none, so there is nothing to predict"
        if len(counts) < 2
        else f"is of the kind {kind}, nearly unique to each row like a name"
        if kind not in ("number", "category")
        else "has too few rows: a baseline needs ten, and five in each of two classes"
        if few
        else ""
    )
    if why:
        raise LessonError(f"the target {target!r} {why}. Choose another --target, or leave it out.")


def eta_squared(groups: np.ndarray, x: np.ndarray) -> float:
    """Share of the variance of x (n,) that lies between the groups (n,) 0, 1, …: 0 equal means, 1 no spread within."""
    counts = np.bincount(groups)
    means = np.bincount(groups, x) / counts
    return counts @ (means - x.mean()) ** 2 / ((x - x.mean()) ** 2).sum()


def cramers_v(groups: np.ndarray, labels: np.ndarray) -> float:
    """How far two columns of codes (n,) are from independent: 0 not at all, 1 where one determines the other."""
    shape = groups.max() + 1, labels.max() + 1
    counts = np.bincount(groups * shape[1] + labels, minlength=shape[0] * shape[1]).reshape(shape)
    chance = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / len(
        groups
    )  # what independence would give
    return np.sqrt(((counts - chance) ** 2 / chance).sum() / (len(groups) * (min(shape) - 1)))


def permutation_p(
    statistic: Callable, groups: np.ndarray, x: np.ndarray, shuffles: int, rng
) -> tuple[float, float]:
    """The statistic, and how often shuffled groups reach it: they have no effect, so this is what luck alone can do."""
    observed = statistic(groups, x)
    reached = sum(
        statistic(rng.permutation(groups), x) >= observed - 1e-12 for _ in range(shuffles)
    )
    return float(observed), (reached + 1) / (
        shuffles + 1
    )  # the order we met is one of the possible ones


def compare(cfg: Config, pairs: list[tuple[pd.Series, pd.Series]]) -> list[dict]:
    """Effects of groups on numbers (eta²) or labels (V), strongest first; "q" is p adjusted for how many were tried."""
    from scipy.stats import false_discovery_control

    results, rng = [], cfg.rng()
    for groups, x in pairs:
        both = pd.DataFrame({"groups": groups, "x": x}).dropna().head(SAMPLE)
        codes, numeric = pd.factorize(both["groups"])[0], x.dtype.kind == "f"
        other = both["x"].to_numpy() if numeric else pd.factorize(both["x"])[0]
        if len(both) and np.ptp(codes) and np.ptp(other):
            effect, p = permutation_p(
                eta_squared if numeric else cramers_v, codes, other, cfg.shuffles, rng
            )
            results.append(
                {
                    "groups": groups.name,
                    "x": x.name,
                    "measure": "η²" if numeric else "V",
                    "effect": effect,
                    "p": p,
                    "rows": len(both),
                }
            )
    adjusted = false_discovery_control([result["p"] for result in results]) if results else []
    return sorted(
        ({**result, "q": float(q)} for result, q in zip(results, adjusted)),
        key=lambda r: -r["effect"],
    )


def matrices(
    inputs: pd.DataFrame, train: np.ndarray, test: np.ndarray
) -> tuple[Pipeline, np.ndarray, np.ndarray]:
    """The leak-free pipeline of 05, fitted on the training rows, and both parts as it gives them: (n, d), (m, d)."""
    numbers = [name for name in inputs if inputs[name].dtype.kind == "f"]
    pipeline = Pipeline().fit(
        inputs.iloc[train], numbers, [name for name in inputs if name not in numbers]
    )
    return pipeline, *(
        np.nan_to_num(pipeline.transform(inputs.iloc[part])) for part in (train, test)
    )


def make_models(regression: bool, seed: int) -> dict:
    """Three simple rivals, and many small trees, each of which corrects those before it."""
    from sklearn import dummy, ensemble, linear_model, tree

    one, many = (
        {"max_depth": 1, "random_state": seed},
        {"max_iter": 60, "max_leaf_nodes": 8, "random_state": seed},
    )
    if regression:
        return {
            "mean_baseline": dummy.DummyRegressor(),
            "one_rule_baseline": tree.DecisionTreeRegressor(**one),
            "linear": linear_model.Ridge(),
            "trees": ensemble.HistGradientBoostingRegressor(**many),
        }
    return {
        "majority": dummy.DummyClassifier(),
        "one_rule_baseline": tree.DecisionTreeClassifier(**one),
        "linear": linear_model.LogisticRegression(max_iter=1000),
        "trees": ensemble.HistGradientBoostingClassifier(**many),
    }


def cross_validate(
    cfg: Config, inputs: pd.DataFrame, y: np.ndarray, regression: bool
) -> tuple[dict, np.ndarray]:
    """{model: held-out score of each fold}, accuracy or R², and what the trees said of each row (n,) when held out."""
    from sklearn.model_selection import RepeatedKFold, RepeatedStratifiedKFold
    from threadpoolctl import threadpool_limits

    scores, said, folds = (
        {},
        np.empty_like(y),
        RepeatedKFold if regression else RepeatedStratifiedKFold,
    )
    with threadpool_limits(1):  # so few rows: a second thread would only wait for the first
        for train, test in folds(n_splits=5, n_repeats=cfg.repeats, random_state=cfg.seed).split(
            inputs, y
        ):
            _, x_train, x_test = matrices(inputs, train, test)
            for name, model in make_models(regression, cfg.seed).items():
                scores.setdefault(name, []).append(
                    float(model.fit(x_train, y[train]).score(x_test, y[test]))
                )
            said[test] = model.predict(x_test)
    return scores, said


def one_rule(inputs: pd.DataFrame, y: np.ndarray, regression: bool) -> str:
    """The question that the one-rule baseline asks, in words, learnt from all rows."""
    pipeline, x, _ = matrices(inputs, np.arange(len(y)), np.arange(1))
    tree = make_models(regression, 0)["one_rule_baseline"].fit(x, y).tree_
    if tree.node_count == 1:
        return "no single question helps"
    numbers, scaler, place = pipeline.numbers, pipeline.scaler, tree.feature[0]
    names = [
        *(f"{name} is above" for name in numbers),
        *(f"{name} is missing" for name, gap in zip(numbers, pipeline.cleaner.had_gaps) if gap),
        *(
            f"{name} is {level}"
            for name, encoder in pipeline.encoders.items()
            for level in encoder.categories
        ),
    ]
    bound = (
        f" {tree.threshold[0] * scaler.scale[place] + scaler.mean[place]:.3g}"
        if place < len(numbers)
        else ""
    )
    no, yes = (f"{v[0]:.3g}" if regression else np.unique(y)[v.argmax()] for v in tree.value[1:, 0])
    return f"if {names[place]}{bound}, say {yes}, else {no}"


def describe(table: Table, name: str) -> dict:
    """One column for the report: counts for a small histogram, and a summary in words."""
    column, known = table.columns[name], table.values[name].dropna()
    row = {"column": column, "missing": len(table.values) - len(known), "distinct": known.nunique()}
    if column.kind in ("number", "date"):
        low, middle, high = (
            f"{v:.4g}" if column.kind == "number" else f"{pd.Timestamp(v, unit='D'):%Y-%m-%d}"
            for v in known.quantile([0, 0.5, 1])
        )
        bars = np.histogram(
            known, np.linspace(known.min(), known.max(), min(20, row["distinct"]) + 1)
        )[0]
        return row | {"bars": bars.tolist(), "summary": f"{low} to {high}, median {middle}"}
    common = known.value_counts()
    return row | {
        "bars": common.tolist() if column.kind == "category" else [],
        "summary": ", ".join(
            value[:30] + f" ({n})" * (n > 1) for value, n in common.head(3).items()
        ),
    }


def draw_columns(cfg: Config, table: Table) -> Path | None:
    """Each of the first twelve columns, in the colours of up to six classes, or of a low, middle and high target."""
    names = [name for name in table.of(*USED) if name != table.target][:12]
    if not names:
        return None
    from matplotlib import font_manager, rcParams

    installed = sorted({*font_manager.get_font_names()} & CHINESE)
    rcParams.update({"font.family": ["DejaVu Sans", *installed], "date.converter": "concise"})
    target = (
        table.values[table.target] if table.target else pd.Series("all rows", table.values.index)
    )
    if table.is_regression:
        target = pd.cut(
            target.rank(pct=True), 3, labels=["1 lowest third", "2 middle", "3 highest"]
        ).astype(object)
    levels, rows = (
        sorted((target := target.fillna("missing")).value_counts().index[:6]),
        -(-len(names) // 4),
    )
    figure, axes = new_figure(
        rows, -(-len(names) // rows), size=(13, 3.2 * rows + 0.5), squeeze=False
    )
    for axis in axes.flat[len(names) :]:
        axis.axis("off")
    for axis, name in zip(axes.flat, names):
        x, style = table.values[name], {"stacked": True, "color": COLOURS[: len(levels)]}
        if name in table.of("category"):
            counts = (
                pd.crosstab(x, target)
                .reindex(columns=levels, fill_value=0)
                .head(8)
                .rename(index=lambda v: v[:9])
            )
            counts.plot.bar(
                ax=axis,
                legend=False,
                xlabel="",
                width=0.7,
                rot=30 if len(counts) > 4 else 0,
                **style,
            )
        else:
            axis.hist(
                [x[target == level].dropna() for level in levels],
                np.linspace(x.min(), x.max(), 21),
                **style,
            )
        if name in table.of("date") and x.abs().max() < 1e5:  # the year 9999 is beyond Matplotlib
            axis.xaxis_date()
        axis.set_title(name[:24], parse_math=False)  # a $ in a name begins no formula
    figure.suptitle(
        f"Colours: {table.target or 'none'}"[:40].replace("$", r"\$") + "\n", x=0.01, ha="left"
    )
    figure.legend(
        axes[0, 0].patches[:: len(axes[0, 0].patches) // len(levels)],
        [level[:16].replace("$", r"\$") for level in levels],
        ncols=6,
        loc="upper right",
    )
    return save_figure(figure, cfg.out / "columns")


def render(table: Table, **parts) -> str:
    """The report. Jinja escapes whatever it inserts, so no cell of the table becomes a part of the page."""
    from jinja2 import Environment

    texts = table.values[table.of("text", "category", "constant")].stack().astype(str)
    formulas = texts.str.match(r"\s*[=@+-]") & pd.to_numeric(texts, errors="coerce").isna()
    page = (ROOT / "phase01_data_science" / "project-eda.html").read_text(encoding="utf-8")
    return (
        Environment(autoescape=True)
        .from_string(page)
        .render(
            parts,
            table=table,
            formulas=int(formulas.sum()),
            rows=[describe(table, name) for name in table.columns],
        )
    )


def show_columns(cfg: Config, table: Table) -> None:
    print(
        "\n[1] What is in the columns? Ask of each which kind nine in ten of its cells can be read as"
    )
    for name, column in list(table.columns.items())[:12]:
        print(f"  {name[:30]:<30} {column.kind}")
    check(
        "read",
        "every cell with content was read, or is reported as odd",
        all(
            column.values.count() + len(column.odd) == table.frame[name].count()
            for name, column in table.columns.items()
        ),
    )


def show_gaps(cfg: Config, table: Table) -> list[dict]:
    print("\n[2] Missing values: how many, and do they go along with the target?")
    frame, missing = table.frame, table.frame.isna()
    print(
        f"  {', '.join(f'{name} {count}' for name, count in missing.sum().items() if count)[:300] or 'none'}"
    )
    check(
        "gaps",
        f"{missing.sum().sum()} missing cells, as many as a loop over all of them finds",
        missing.sum().sum()
        == sum(cell is None or cell != cell for name in frame for cell in frame[name]),
    )
    holes = [name for name in frame if missing[name].any() and table.target not in (None, name)]
    return compare(cfg, [(missing[name].astype(str), table.values[table.target]) for name in holes])


def show_distributions(cfg: Config, table: Table) -> Path | None:
    print("\n[3] Distributions: look before you compute")
    rows = [describe(table, name) for name in table.of(*USED)]
    check(
        "bars",
        f"in {len(rows)} histograms every known value stands in exactly one bar",
        all(sum(row["bars"]) == len(table.values) - row["missing"] for row in rows),
    )
    return draw_columns(cfg, table)


def show_correlations(cfg: Config, table: Table) -> dict:
    print("\n[4] Correlation: Pearson asks for a straight line, Spearman only for the same order")
    made = pd.DataFrame({"x": cfg.rng().normal(size=50)}).assign(
        y=lambda table: np.exp(3 * table["x"])
    )
    straight, order = (made.corr(method).iloc[0, 1] for method in ("pearson", "spearman"))
    check(
        "monotone",
        f"y = exp 3x bends, but keeps the order: Pearson {straight:.2f}, Spearman {order:.2f}",
        straight < 0.9 and order > 0.999,
    )
    numbers = table.values[table.of("number", "date")]
    pearson, spearman = numbers.corr("pearson"), numbers.corr("spearman")
    pairs = [
        {
            "a": a,
            "b": b,
            "pearson": pearson.loc[a, b],
            "spearman": spearman.loc[a, b],
            "rows": int((numbers[a].notna() & numbers[b].notna()).sum()),
        }
        for a, b in combinations(numbers, 2)
    ]
    pairs = sorted(
        (pair for pair in pairs if pair["rows"] > 2), key=lambda pair: -abs(pair["spearman"])
    )
    for pair in pairs[:3]:
        print("  {a} and {b}: Pearson {pearson:.2f}, Spearman {spearman:.2f}".format(**pair))
    return {
        "names": list(numbers),
        "pearson": pearson.to_numpy(),
        "spearman": spearman.to_numpy(),
        "pairs": pairs[:15],
    }


def show_effects(cfg: Config, table: Table) -> list[dict]:
    print("\n[5] Groups: how large is the difference, and would shuffled labels show it as well?")
    from scipy import stats

    luck = stats.f_oneway(
        *cfg.rng().normal(size=(3, 200, 20)), axis=1
    ).pvalue  # 200 columns, three groups of 20
    check(
        "noise",
        f"of 200 columns of pure noise {(luck < 0.05).sum()} have p < 0.05; once p is adjusted",
        (stats.false_discovery_control(luck) < 0.05).sum(),
        at_most=2,
    )
    groups = sorted(table.of("category"), key=lambda name: name == table.target)  # Survived by Sex
    pairs = [*product(groups, table.of("number", "date")), *combinations(groups, 2)]
    pairs = [pair for pair in pairs if not table.target or table.target in pair]
    if len(pairs) > PAIRS:
        table.findings.append(
            f"Group effects: only the first {PAIRS} of {len(pairs)} comparisons were made."
        )
    results = compare(cfg, [(table.values[a], table.values[b]) for a, b in pairs[:PAIRS]])
    for result in results[:4]:
        print(
            "  {x} by {groups}: {measure} = {effect:.2f}, p = {p:.3f}, adjusted {q:.3f}".format(
                **result
            )
        )
    return results


def show_baseline(cfg: Config, table: Table) -> dict | None:
    print(
        "\n[6] What can be predicted? Five folds; whatever is learnt is learnt from the other four"
    )
    target, regression = table.target, table.is_regression
    known = table.values.dropna(subset=target).sample(frac=1, random_state=cfg.seed).head(SAMPLE)
    known = (
        known if regression else known[known.groupby(target)[target].transform("size") >= 5]
    )  # one a fold
    names = [
        name for name in table.of(*USED) if name != target and known[name].count() > len(known) / 5
    ]
    if not names or known[target].nunique() < 2:
        print("  nothing: no column of numbers or categories stands beside it")
        return None
    inputs, y = known[names], known[target].to_numpy()
    train, test = np.arange(len(y)) % 5 > 0, np.arange(len(y)) % 5 == 0
    spoilt = inputs.iloc[
        np.where(test, 0, np.arange(len(y)))
    ]  # as many test rows, but all of them alike
    check_close(
        "apart",
        "with other test rows, the training rows are prepared in the very same way",
        matrices(spoilt, train, test)[1],
        matrices(inputs, train, test)[1],
    )
    scores, said = cross_validate(cfg, inputs, y, regression)
    measure = "R2" if regression else "accuracy"
    mean = {
        measure if name == "trees" else name: float(np.mean(values))
        for name, values in scores.items()
    }
    rule = one_rule(inputs, y, regression)
    print(
        f"  held-out {measure}: {', '.join(f'{name} {value:.3f}' for name, value in mean.items())}\n  rule: {rule}"
    )
    if table.name in WANTED and not (cfg.csv or cfg.target):
        _, x, _ = matrices(inputs, np.arange(20), np.arange(1))
        model = make_models(False, cfg.seed)["trees"].set_params(min_samples_leaf=1).fit(x, y[:20])
        check(
            "learns", "the model can learn twenty rows by heart", model.score(x, y[:20]), at_least=1
        )
        depends_on_input(
            "inputs",
            "the answer depends on the row",
            *(pd.factorize(v, sort=True)[0] for v in (said, y)),
        )
        expect(
            "accuracy",
            "accuracy on held-out rows, mean of folds",
            mean["accuracy"],
            at_least=WANTED[table.name],
        )
        expect(
            "beats-rule",
            "above the one rule",
            mean["accuracy"] - mean["one_rule_baseline"],
            above=0.01,
        )
    return {
        "measure": measure,
        "scores": scores,
        "mean": mean,
        "rule": rule,
        "rows": len(y),
        "inputs": names,
    }


def show_report(cfg: Config, table: Table, figure: Path | None, **parts) -> None:
    print(
        "\n[7] The report: one file that asks for nothing from outside, and in which the table stays data"
    )
    picture = figure and "data:image/png;base64," + base64.b64encode(figure.read_bytes()).decode()
    page = render(table, figure=picture, **parts)
    addresses = re.findall(
        r'\b(?:src|href|srcset|action)="([^"]*)"', page
    )  # a cell's own quotes are &#34;
    check(
        "self-contained",
        f"{len(addresses)} addresses in it, all of them inside of the file",
        all(address.startswith(("data:", "#")) for address in addresses),
    )
    cell = '"><script>alert(1)</script>'
    frame = pd.DataFrame({cell: [cell, "=cmd|' /C calc'!A0"] * 9, "<img src=x>": [*range(18)]})
    hostile = render(Table(cell, frame, None, []))
    check(
        "escaped",
        "a table full of tags and formulas becomes text in the page, and no tag",
        "=cmd|" in hostile
        and "&lt;script&gt;alert(1)" in hostile
        and "<script" not in hostile
        and "<img" not in hostile,
    )
    path = cfg.out / ("report-" + re.sub(r"[^\w-]+", "-", table.name)[:60] + ".html")
    write_text(path, page)
    print(f"  open it in a browser: {path}")


def run(cfg: Config) -> dict:
    table = load(cfg)
    show_columns(cfg, table)
    gaps = show_gaps(cfg, table)
    figure = show_distributions(cfg, table)
    correlations = show_correlations(cfg, table)
    effects = show_effects(cfg, table)
    baseline = show_baseline(cfg, table) if table.target else None
    show_report(
        cfg, table, figure, gaps=gaps, correlations=correlations, effects=effects, baseline=baseline
    )
    return (baseline["mean"] if baseline else {}) | {
        "rows": len(table.frame),
        "columns": len(table.columns),
    }


if __name__ == "__main__":
    main(run, Config, __doc__)
