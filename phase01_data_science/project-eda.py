"""Project 1 Exploratory data analysis: one report for any table
探索性数据分析：给任意表格生成一份报告

You will be able to answer
    1. What does each column hold?   show_columns       kinds
    2. Which numbers move together?  show_correlations  monotone
    3. Is it an effect, or luck?     show_effects       eta, cramer, luck, own, step, noise, alone
    4. What can be predicted?        show_baseline      folds, unseen, copies, trees, gain, linear
    5. Can you pass the report on?   show_report        inside, escaped
Predict   one_rule_baseline: what share of irises does one yes-or-no question name? Guessing: 0.33.
Run       python phase01_data_science/project-eda.py   about 6 s; --data titanic; --csv FILE
Needs     -
Reference stats.contingency.association, stats.false_discovery_control, cross_val_score
"""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pandas as pd

from common.checks import check, check_close, expect
from common.config import LessonConfig, main, param
from common.data import reporting
from common.data.anycsv import read_any_csv, readable_name
from common.data.cells import MOSTLY, is_whole
from common.data.reporting import Column, Stopwatch, Table
from common.data.tables import load_frame
from common.errors import LessonError
from common.files import write_text
from common.lessons import ROOT

TARGETS = {"iris": "species", "titanic": "Survived"}
WANTED = {"iris": 0.93, "titanic": 0.80}
ABOVE_LINEAR = {"iris": (-0.03, 0.02), "titanic": (0.01, 0.1)}  # what the trees add
CODES = 5  # whole numbers with so few values are names of groups
LEVELS = 20  # so many words are still a category
ID_NAME = r"(^|[ _.-])(?i:id|no|nr|index|key)$|[a-z]I[dD]$"
IN_COMMON = 10  # rows behind a correlation
PAIRS = 60  # comparisons of groups
FOR_EACH = 40  # shuffles for each comparison, so that a single real effect can reach q = 1/40
ENOUGH = 50  # shuffles that reach an effect settle that it may be luck
LUCK_ROWS = 1000  # rows that are shuffled
MODEL_ROWS = 5000  # rows that the baseline sees
LARGE = 2000  # with so many, three folds dealt once, and half as many trees


@dataclass
class Config(LessonConfig):
    data: str | None = param(None, "data set (default: iris)", choices=("iris", "titanic"))
    csv: str | None = param(None, "a table of your own")
    target: str | None = param(None, "column to predict (default: species of iris, Survived)")
    encoding: str | None = param(None, "of the CSV (default: UTF-8, or what its first bytes say)")
    separator: str | None = param(None, "of the cells (default: the one by which rows agree)")
    keep_words: str = param("", "words such as NA that are values, separated by commas")
    columns: int = param(50, "columns to look at; more are named as left out", low=2)
    rows: int = param(100_000, "rows to read", low=2)
    shuffles: int = param(999, "least shuffles behind a p-value", tiny=99)
    repeats: int = param(2, "how often five-fold cross-validation is repeated", tiny=1)


def kind_of(name: str, known: pd.Series, numbers: pd.Series, days: pd.Series) -> str:
    """What a column holds: the first of these that is true of it.

    known (n,): its cells that are not missing, as strings. numbers, days (n,): the same cells read
    as a number and as a date, NaN where that fails.

        empty     there is no cell
        constant  all cells are equal
        date      MOSTLY of the cells (nine in ten) or more are dates
        id        ten or more whole numbers in plain digits, all different, that count up from 0
                  or 1 without a hole (in any order), or stand under a name that ID_NAME finds
        category  whole numbers, with at most CODES different values, and at most n/4
        number    MOSTLY or more are numbers, and not all of those are equal
        category  at most LEVELS different strings, and at most n/2
        text      whatever is left
    """
    # practice: What kind of thing is in this column?
    n = len(known)
    distinct = known.nunique()
    if n == 0:
        return "empty"
    if distinct == 1:
        return "constant"
    if days.notna().mean() >= MOSTLY:
        return "date"

    # a NaN is no whole number, so a single word among the numbers makes this False
    whole = is_whole(numbers)
    if whole and n >= 10 and distinct == n and known.str.isdigit().all():
        counts_up = numbers.min() in (0, 1) and np.ptp(numbers) == n - 1
        if counts_up or re.search(ID_NAME, name):
            return "id"

    # classes 1 to 3 are names that happen to be digits
    if whole and distinct <= min(CODES, n / 4):
        return "category"
    if numbers.notna().mean() >= MOSTLY and numbers.nunique() > 1:
        return "number"
    if distinct <= min(LEVELS, n / 2):
        return "category"
    return "text"
    # end practice


def read_column(name: str, raw: pd.Series) -> Column:
    return reporting.read_column(name, raw, kind_of)


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
            keep_words=tuple(word.strip() for word in cfg.keep_words.split(",")),
        )
        # from here on a name that is not UTF-8 can be printed and stored
        cfg.csv = readable_name(cfg.csv)
        return Table(Path(cfg.csv).stem, frame, cfg.target, notes, read_column)
    name = cfg.data or "iris"
    frame = load_frame(name, cfg)
    notes = []
    if name == "iris":
        frame = reporting.with_luck(frame)
        notes.append("The columns noise and coin are made up: they show chance.")
    return Table(name, frame, cfg.target or TARGETS[name], notes, read_column)


def show_columns(cfg: Config, table: Table) -> None:
    print("\n[1] What is in the columns? Ask what nine in ten of the cells can be read as")
    words = [f"word {i}" for i in range(25)]
    made = {
        "share": ("number", np.arange(40) / 7),
        "built": ("number", np.arange(1984, 2024)),
        "price": ("number", [f"${1000 + 37 * i:,}.50" for i in range(40)]),
        "two words in 40": ("number", [*range(38), "none", "n/v"]),
        "ten words in 40": ("text", [*range(30), *words[:10]]),
        "four values in 8": ("number", [2, 3, 5, 7, 7, 5, 3, 2]),
        "eight values": ("number", np.arange(40) % 8),
        "even": ("number", np.arange(40) * 2),
        "class": ("category", np.arange(40) % 3),
        "word": ("category", [*"abcd" * 10]),
        "equal, or a word": ("category", [1.5] * 38 + ["none", "n/v"]),
        "25 words, twice": ("text", words * 2),
        "12 words in 16": ("text", words[:12] + words[:4]),
        "day": ("date", [f"{i % 28 + 1:02d}.05.2024" for i in range(40)]),
        "day, or a word": ("date", [f"{i % 28 + 1:02d}.05.2024" for i in range(38)] + words[:2]),
        "row": ("id", 40 - np.arange(40)),
        "customer id": ("id", np.arange(40) * 3 + 1000),
        "few rows": ("number", np.arange(8)),
        "zip": ("text", [f"{i * 2500:05d}" for i in range(40)]),
        "same": ("constant", [0] * 40),
        "nothing": ("empty", [None] * 40),
    }
    right = 0
    for name, (kind, cells) in made.items():
        found = read_column(name, pd.Series(cells)).kind
        if found == kind:
            right += 1
        else:
            print(f"  the made-up column “{name}” is read as {found}, and is {kind}")
    check("kinds", f"{right} of {len(made)} made-up columns are read rightly", right == len(made))

    for name, column in table.columns.items():
        print(f"  {name[:30]:<30} {column.kind:<10} {table.frame[name].isna().sum()} missing")


def correlate(numbers: pd.DataFrame) -> dict:
    """Pearson's and Spearman's correlation of every two columns (n, k), strongest pairs first.

    Only rows where both are known count. A pair with fewer than IN_COMMON of them, or with a column
    that is constant in them, has no correlation worth a number, and is counted instead.
    """
    pearson = numbers.corr("pearson", min_periods=IN_COMMON)
    # Spearman is Pearson on ranks; where cells are missing, on ranks within the rows in common
    if numbers.notna().all(axis=None):
        spearman = numbers.rank().corr("pearson", min_periods=IN_COMMON)
    else:
        spearman = numbers.corr("spearman", min_periods=IN_COMMON)
    known = numbers.notna().to_numpy(dtype=int)
    rows = pd.DataFrame(known.T @ known, numbers.columns, numbers.columns)

    pairs = []
    for a, b in combinations(numbers.columns, 2):
        pair = {"a": a, "b": b, "rows": rows.at[a, b]}
        pair |= {"pearson": pearson.at[a, b], "spearman": spearman.at[a, b]}
        pairs.append(pair)
    found = [pair for pair in pairs if not np.isnan(pair["pearson"] + pair["spearman"])]
    return {
        "pearson": pearson,
        "spearman": spearman,
        "pairs": sorted(found, key=lambda pair: -abs(pair["spearman"])),
        "left_out": len(pairs) - len(found),
    }


def show_correlations(cfg: Config, table: Table) -> dict:
    print("\n[2] Correlation: Pearson asks for a straight line, Spearman only for the same order")
    x = cfg.rng().normal(size=50)
    bent = correlate(pd.DataFrame({"x": x, "y": np.exp(3 * x)}))["pairs"][0]
    print(f"  y = exp 3x keeps the order of x: Spearman {bent['spearman']:.2f}")
    check("monotone", "but it is no straight line: Pearson is {}", bent["pearson"], below=0.9)

    found = correlate(table.values[table.of("number", "date")])
    for pair in found["pairs"][:3]:
        print("  {a} and {b}: Pearson {pearson:.2f}, Spearman {spearman:.2f}".format(**pair))
    return found


def eta_squared(groups: np.ndarray, x: np.ndarray) -> float:
    """The share of the variance of x that lies between groups: 0 equal means, 1 no spread within.

    groups (n,): numbers 0, 1, … of the group of each row, none of them empty. x (n,): floats.
    Sum over groups of n_g (mean_g - mean)², divided by the sum over rows of (x - mean)².
    """
    # practice: How much of the spread lies between the groups?
    mean = x.mean()
    counts = np.bincount(groups)
    means = np.bincount(groups, weights=x) / counts
    between = (counts * (means - mean) ** 2).sum()
    total = ((x - mean) ** 2).sum()
    return between / total
    # end practice


def cramers_v(groups: np.ndarray, labels: np.ndarray) -> float:
    """How far two columns of codes (n,) are from independent: 0 not at all, 1 completely.

    Codes are 0, 1, … and none is absent. With O the table of counts, E the one that independence
    would give (row total times column total, divided by n), and m the smaller number of levels:
    the root of (sum of (O - E)²/E) / (n (m - 1)).
    """
    # practice: How far are two groupings from independent?
    n = len(groups)
    shape = (groups.max() + 1, labels.max() + 1)
    cells = groups * shape[1] + labels  # the cell of the table into which each row falls
    counts = np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape)
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / n
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    return np.sqrt(chi_squared / (n * (min(shape) - 1)))
    # end practice


def permutation_p(
    statistic: Callable, groups: np.ndarray, x: np.ndarray, shuffles: int, rng: np.random.Generator
) -> float:
    """How often shuffled groups reach the statistic that was seen: shuffled, they have no effect.

    statistic(groups, x) is a float. With b of B shuffles at or above the observed value (1e-12
    below it is rounding), p = (b + 1) / (B + 1): the order that we met is a possible one too. As
    soon as b is ENOUGH, p is b divided by the shuffles so far (Besag and Clifford 1991).
    """
    # practice: Could it be luck?
    observed = statistic(groups, x)
    reached = 0
    for number in range(1, shuffles + 1):
        shuffled = rng.permutation(groups)
        if statistic(shuffled, x) >= observed - 1e-12:
            reached += 1
        if reached == ENOUGH:
            return reached / number
    return (reached + 1) / (shuffles + 1)
    # end practice


def adjust(p: np.ndarray) -> np.ndarray:
    """p-values (k,) adjusted for their number, as Benjamini and Hochberg (1995) do; the same order.

    The i-th smallest of k becomes p·k/i, or the least such value of a larger p if that is smaller:
    where a larger p is announced, this one is as well.
    """
    # practice: What is left after so many tries?
    k = len(p)
    order = np.argsort(p)
    scaled = p[order] * k / np.arange(1, k + 1)
    # from the largest downwards, the smallest so far
    scaled = np.minimum.accumulate(scaled[::-1])[::-1]
    adjusted = np.empty(k)
    adjusted[order] = scaled
    return adjusted
    # end practice


def compare(cfg: Config, pairs: list[tuple[pd.Series, pd.Series]]) -> list[dict]:
    """Effects of groups on numbers (η²) or on labels (V); q is the adjusted p.

    The effect is that of all rows. Luck is asked of a sample of LUCK_ROWS at most: p and q are
    those of `shuffled` rows. Sorted by share - by_luck: share is η² or V², which for two groups
    and two labels are the same, by_luck its mean over all shuffles.
    """
    rng = cfg.rng()
    # p is at least 1 / (B + 1), and a single real effect has q = k·p
    shuffles = max(cfg.shuffles, FOR_EACH * len(pairs))
    results = []
    for groups, x in pairs:
        both = pd.DataFrame({"groups": groups, "x": x}).dropna()
        sample = both.sample(min(len(both), LUCK_ROWS), random_state=cfg.seed)
        if sample["groups"].nunique() < 2 or sample["x"].nunique() < 2:
            continue
        row = {"groups": groups.name, "x": x.name, "rows": len(both), "shuffled": len(sample)}
        numeric = x.dtype.kind == "f"
        statistic = eta_squared if numeric else cramers_v
        effect = statistic(*as_codes(both))
        p = permutation_p(statistic, *as_codes(sample), shuffles, rng)
        row |= {"measure": "η²" if numeric else "V", "effect": effect, "p": p}
        row["share"] = effect if numeric else effect**2
        levels = both["groups"].nunique() if numeric else both.nunique().max()
        row["by_luck"] = (levels - 1) / (len(both) - 1)
        results.append(row)

    adjusted = adjust(np.array([row["p"] for row in results]))
    for row, q in zip(results, adjusted):
        row["q"] = q
    return sorted(results, key=lambda row: row["by_luck"] - row["share"])


def as_codes(both: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Groups as 0, 1, …, and x as floats or as codes too: what the statistics ask for."""
    groups = pd.factorize(both["groups"])[0]
    if both["x"].dtype.kind == "f":
        return groups, both["x"].to_numpy()
    return groups, pd.factorize(both["x"])[0]


def show_effects(cfg: Config, table: Table) -> dict[str, list[dict]]:
    print("\n[3] Groups: how large is the difference, and would shuffled labels show it as well?")
    show_parity(cfg)
    show_luck(cfg)
    groups = table.of("category")
    # the target last, so that it is Survived by Sex
    groups.sort(key=lambda name: name == table.target)
    names = [*product(groups, table.of("number", "date")), *combinations(groups, 2)]
    if table.target:
        names = [pair for pair in names if table.target in pair]
    if len(names) > PAIRS:
        table.findings.append(
            f"Group effects: only the first {PAIRS} of {len(names)} comparisons were made."
        )
    effects = compare(cfg, [(table.values[a], table.values[b]) for a, b in names[:PAIRS]])
    line = "{x} by {groups}: {measure} = {effect:.2f} ({rows} rows), p = {p:.2g}, adjusted {q:.2g}"
    for row in effects[:6]:
        print(f"  {line.format(**row)} ({row['shuffled']} rows shuffled)")

    # does it go along with the target that a cell is missing?
    missing = table.frame.isna()
    gaps = []
    for name in table.frame:
        if table.target not in (None, name) and missing[name].any():
            gaps.append((missing[name].astype(str), table.values[table.target]))
    by_gaps = compare(cfg, gaps)
    for row in by_gaps[:2]:
        print("  {x} by a gap in {groups}: {measure} = {effect:.2f}, p = {p:.2g}".format(**row))
    return {"effects": effects, "gaps": by_gaps}


def show_parity(cfg: Config) -> None:
    """The two measures of an effect against SciPy."""
    from scipy import stats

    rng = cfg.rng()
    groups = np.repeat([0, 1, 2], [20, 40, 60])
    x = rng.normal(size=120) + 0.2 * groups
    f = stats.f_oneway(*(x[groups == g] for g in range(3))).statistic
    # F is (between / 2) divided by (within / 117)
    by_scipy = 2 * f / (2 * f + 117)
    eta = eta_squared(groups, x)
    check_close("eta", "η² differs by {} from what SciPy's F says", eta, by_scipy)

    labels = np.where(rng.random(120) < 0.3, groups, np.arange(120) % 5)
    by_scipy = stats.contingency.association(pd.crosstab(groups, labels).to_numpy())
    v = cramers_v(groups, labels)
    check_close("cramer", "V differs by {} from SciPy's association", v, by_scipy)


def show_luck(cfg: Config) -> None:
    """p by hand, then one real effect among many columns of noise."""
    from scipy import stats

    rng = cfg.rng()
    six = np.array([0, 0, 0, 1, 1, 1])
    p = permutation_p(eta_squared, six, np.array([1.0, 2, 3, 5, 6, 7]), 1999, rng)
    check("luck", "2 of 20 deals of six rows are as extreme: p is {}", p, above=0.05, below=0.16)
    groups = np.repeat([0, 1, 2], 40)
    p = permutation_p(eta_squared, groups, groups * 1.0, 99, rng)
    check_close("own", "and if none of 99 shuffles is, p is 1/100, to {}", p, 0.01)

    text = "two p of 0.03 and 0.04 are both adjusted to 0.04, to {}"
    check_close("step", text, adjust(np.array([0.03, 0.04])), np.full(2, 0.04))

    x = pd.DataFrame(rng.normal(size=(120, PAIRS))).add_prefix("noise ")
    x["real"] = x.pop("noise 0") + groups
    codes = pd.Series(groups.astype(str), name="groups")
    found = compare(cfg, [(codes, x[name]) for name in x])
    p = np.array([row["p"] for row in found])
    q = np.array([row["q"] for row in found])
    is_real = np.array([row["x"] == "real" for row in found])
    lucky = (p[~is_real] < 0.05).sum()
    left = (q[~is_real] < 0.05).sum()
    by_scipy = stats.false_discovery_control(p)
    text = f"of 59 columns of noise {lucky} have p < 0.05, adjusted {left}; SciPy's differ by {{}}"
    check_close("noise", text, q, by_scipy)
    real = q[is_real].item()
    check("alone", "the one real effect among 60 has an adjusted p of {}", real, at_most=0.03)


def make_models(regression: bool, seed: int, large: bool = False) -> dict:
    """Three simple rivals, and many small trees, each of which corrects those before it."""
    from sklearn import dummy, ensemble, linear_model, tree
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # in a large table half the rounds, each with twice the step
    rounds, rate = (30, 0.2) if large else (60, 0.1)
    trees = {"max_iter": rounds, "learning_rate": rate, "max_leaf_nodes": 8, "random_state": seed}
    if regression:
        return {
            "mean_baseline": dummy.DummyRegressor(),
            "one_rule_baseline": tree.DecisionTreeRegressor(max_depth=1, random_state=seed),
            "linear": make_pipeline(StandardScaler(), linear_model.Ridge()),
            "trees": ensemble.HistGradientBoostingRegressor(**trees),
        }
    logistic = linear_model.LogisticRegression(max_iter=1000)
    return {
        "majority": dummy.DummyClassifier(),
        "one_rule_baseline": tree.DecisionTreeClassifier(max_depth=1, random_state=seed),
        "linear": make_pipeline(StandardScaler(), logistic),
        "trees": ensemble.HistGradientBoostingClassifier(**trees),
    }


def cross_validate(
    prepare, models: dict, inputs: pd.DataFrame, y: np.ndarray, folds: list
) -> tuple[dict[str, list[float]], np.ndarray]:
    """Score every model on rows that neither it nor the preparation has seen.

    inputs (n, k), y (n,). folds: pairs of arrays, the places of the training and of the test rows.
    In each fold fit fresh copies, made by sklearn.base.clone, on the training rows: of `prepare`
    (its `transform` turns inputs into a matrix), then of each model, which `score` judges on the
    test rows. Returns the scores {model: one a fold}, and (n,) what the last model predicts for
    each row when it is a test row.
    """
    # practice: Judged only by rows that were not seen
    from sklearn.base import clone

    scores = {name: [] for name in models}
    predicted = np.empty_like(y)
    for train, test in folds:
        ready = clone(prepare).fit(inputs.iloc[train])
        x_train = ready.transform(inputs.iloc[train])
        x_test = ready.transform(inputs.iloc[test])
        for name, model in models.items():
            fitted = clone(model).fit(x_train, y[train])
            scores[name].append(fitted.score(x_test, y[test]))
        predicted[test] = fitted.predict(x_test)
    return scores, predicted
    # end practice


def show_folds(cfg: Config) -> None:
    """cross_validate on a made table with gaps, where the smallest leak would change the scores."""
    from sklearn.model_selection import KFold, cross_val_predict, cross_val_score
    from sklearn.pipeline import make_pipeline

    rng = cfg.rng()
    x = rng.normal(size=(60, 2))
    y = x.sum(axis=1)
    inputs = pd.DataFrame(x, columns=["a", "b"]).mask(rng.random(x.shape) < 0.3)
    folds = list(KFold(5).split(inputs))
    prepare = reporting.make_preparation(inputs)
    models = make_models(True, cfg.seed)
    # with warm_start a second fit keeps what the first one learnt, unless it is that of a copy
    trees = models["trees"].set_params(warm_start=True, min_samples_leaf=5, max_iter=8)
    two = {"trees": trees, "linear": models["linear"]}
    scores, predicted = cross_validate(prepare, two, inputs, y, folds)

    ways = [make_pipeline(prepare, model) for model in two.values()]
    by_sklearn = [cross_val_score(way, inputs, y, cv=folds) for way in ways]
    ours = np.array([scores["trees"], scores["linear"]])
    text = "our scores differ by {} from scikit-learn's cross_val_score, which leaks nothing"
    check_close("folds", text, ours, np.array(by_sklearn))
    text = "what the last model predicts, by {} from cross_val_predict"
    check_close("unseen", text, predicted, cross_val_predict(ways[1], inputs, y, cv=folds))
    fitted = sum(hasattr(one, "n_features_in_") for one in (prepare, *two.values()))
    check("copies", f"{fitted} of the three that were handed in were fitted too", fitted == 0)


def show_baseline(cfg: Config, table: Table) -> dict | None:
    print("\n[4] What can be predicted? Each fold of the rows is judged by a model of the others")
    from sklearn.model_selection import RepeatedKFold, RepeatedStratifiedKFold
    from threadpoolctl import threadpool_limits

    show_folds(cfg)
    if not table.target:
        return None
    inputs, y = reporting.model_rows(table, MODEL_ROWS, cfg.seed)
    if inputs.empty or len(set(y)) < 2:
        print("  nothing: no column of numbers or categories stands beside the target")
        return None

    prepare = reporting.make_preparation(inputs)
    models = make_models(table.is_regression, cfg.seed, len(y) >= LARGE)
    splitter = RepeatedKFold if table.is_regression else RepeatedStratifiedKFold
    number, repeats = (3, 1) if len(y) >= LARGE else (5, cfg.repeats)
    splitter = splitter(n_splits=number, n_repeats=repeats, random_state=cfg.seed)
    # so few rows that a second thread would only wait for the first
    with threadpool_limits(1):
        folds = list(splitter.split(inputs, y))
        scores, predicted = cross_validate(prepare, models, inputs, y, folds)

    measure = "R2" if table.is_regression else "accuracy"
    print(f"  held-out {measure} of {len(y)} rows in {number} folds, mean ± standard deviation:")
    for name, values in scores.items():
        print(f"    {name:<18} {np.mean(values):.3f} ± {np.std(values):.3f}")
    mean = {name: float(np.mean(values)) for name, values in scores.items()}
    mean[measure] = mean.pop("trees")
    stump = models["one_rule_baseline"].fit(prepare.fit_transform(inputs), y)
    rule = reporting.rule_in_words(prepare, stump, inputs, table)
    print(f"  rule: {rule}")
    if not table.is_regression:
        print(f"  the trees' most common mistake: {reporting.commonest_mistake(y, predicted)}")

    if table.name in WANTED and not (cfg.csv or cfg.target):
        expect("trees", "the trees' accuracy is {}", mean[measure], at_least=WANTED[table.name])
        gain = mean[measure] - mean["one_rule_baseline"]
        expect("gain", "that is {} above the one rule", gain, above=0.01)
        low, high = ABOVE_LINEAR[table.name]
        more = mean[measure] - mean["linear"]
        expect("linear", "and {} above the linear model", more, at_least=low, at_most=high)
    found = {"measure": measure, "scores": scores, "mean": mean, "rule": rule}
    return found | {"rows": len(y), "inputs": list(inputs), "folds": number}


@functools.cache
def page_template():
    """The page beside this script. Jinja escapes what it inserts: no cell becomes a part of it."""
    from jinja2 import Environment

    page = (ROOT / "phase01_data_science" / "project-eda.html").read_text(encoding="utf-8")
    return Environment(autoescape=True).from_string(page)


def render(table: Table, **parts) -> str:
    rows = [reporting.describe(table, name) for name in table.columns]
    formulas = reporting.count_formulas(table)
    return page_template().render(parts, table=table, rows=rows, formulas=formulas)


def show_report(cfg: Config, table: Table, parts: dict) -> None:
    print("\n[5] The report: one file that asks for nothing from outside; a cell stays a cell")
    charts = reporting.make_charts(table)
    if not cfg.csv:  # a browser's fonts know more scripts than Matplotlib's
        reporting.draw_charts(charts, table.target, cfg.out / "columns")
    page = render(table, charts=charts, **parts)

    outside = reporting.addresses_outside(page)
    check("inside", f"{len(outside)} addresses in the report lead out of the file", not outside)
    cell = '"><script>alert(1)</script>'
    frame = pd.DataFrame({cell: [cell, "=cmd|' /C calc'!A0"] * 9, "<img src=x>": [*range(18)]})
    hostile = render(Table(cell, frame, None, [], read_column))
    tags = hostile.count("<script") + hostile.count("<img")
    check("escaped", f"of a table full of tags {tags} become tags of the page", tags == 0)
    path = cfg.out / ("report-" + re.sub(r"[^\w-]+", "-", table.name)[:60] + ".html")
    write_text(path, page)
    print(f"  open it in a browser: {path}")


def run(cfg: Config) -> dict:
    watch = Stopwatch()
    with watch.time("reading"):
        table = load(cfg)
    with watch.time("libraries"):
        reporting.load_libraries()
    with watch.time("columns"):
        show_columns(cfg, table)
    with watch.time("correlations"):
        correlations = show_correlations(cfg, table)
    with watch.time("groups"):
        effects = show_effects(cfg, table)
    with watch.time("baseline"):
        baseline = show_baseline(cfg, table)
    with watch.time("page"):
        show_report(cfg, table, {"correlations": correlations, "baseline": baseline, **effects})
    print(f"  where the CPU time went: {watch}")
    scores = baseline["mean"] if baseline else {}
    return scores | {"rows": len(table.frame), "columns": len(table.columns)}


if __name__ == "__main__":
    main(run, Config, __doc__)
