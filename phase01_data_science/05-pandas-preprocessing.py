"""1.5 Preprocessing: clean the data without leaking the test set
数据预处理：清洗数据，但不泄漏测试集

You will be able to answer
    1. What becomes of outliers and missing values?   show_numbers     by-hand, limit, parity
    2. How do categories and dates become numbers?    show_categories  one-hot, format
    3. How can pure noise look like knowledge?        show_leak        leak, honest
    4. How may a code be made from the labels?        show_own_label   codes, in-sample, out-of-fold
    5. How does a pipeline keep the test rows out?    show_pipeline    untouched, alone, scaled
Predict   leak: which share of coin tosses can a model guess from category means of all rows?
Run       python phase01_data_science/05-pandas-preprocessing.py           about 5 s
Needs     -
Reference StandardScaler, SimpleImputer, OneHotEncoder
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from common.checks import check_close, expect
from common.config import LessonConfig, main, param
from common.data.tables import IRIS_COLUMNS, load_iris, load_titanic
from common.figures import GREY, PURPLE, new_figure, save_figure

NUMBERS = {"iris": [*IRIS_COLUMNS], "titanic": ["Age", "SibSp", "Parch"]}
CATEGORIES = {"iris": ["site"], "titanic": ["Sex", "Embarked", "Pclass"]}


@dataclass
class Config(LessonConfig):
    data: str = param("iris", "a table with gaps", choices=("iris", "titanic"))
    rows: int = param(1000, "rows of coin tosses in the leak experiments", tiny=200, low=40)
    threads = 1


class Cleaner:
    """Blanks outliers, and fills all gaps of a column with its median."""

    def fit(self, x: np.ndarray) -> "Cleaner":
        """x: (n, k), with NaN for a gap."""
        # An outlier moves a mean as far as it likes, a median by one place at most.
        self.median = np.nanmedian(x, axis=0)  # (k,)
        self.mad = np.nanmedian(np.abs(x - self.median), axis=0)  # (k,), median absolute deviation

        self.fill = np.nanmedian(self.blank(x), axis=0)
        return self

    def blank(self, x: np.ndarray) -> np.ndarray:
        """NaN where a value lies more than ten MADs from the median of its column."""
        far = np.abs(x - self.median) > 10 * self.mad
        # Where most values are equal the MAD is 0, and says nothing about the others.
        return np.where(far & (self.mad > 0), np.nan, x)

    def transform(self, x: np.ndarray) -> np.ndarray:
        x = self.blank(x)
        return np.where(np.isnan(x), self.fill, x)


class Scaler:
    """Every column to mean 0 and standard deviation 1; one that never varies becomes 0."""

    def fit(self, x: np.ndarray) -> "Scaler":
        """x: (n, k), without gaps."""
        # practice: What to remember of the training rows
        self.mean = x.mean(axis=0)  # (k,)
        self.scale = x.std(axis=0)  # (k,)

        # Not "where the scale is 0": by rounding it is 1e-16 for many columns of equal values.
        constant = x.max(axis=0) == x.min(axis=0)
        self.scale[constant] = 1
        return self
        # end practice

    def transform(self, x: np.ndarray) -> np.ndarray:
        return (x - self.mean) / self.scale


def show_numbers(cfg: Config, frame: pd.DataFrame) -> None:
    print("\n[1] Outliers become gaps, gaps become medians, and columns get one scale")
    # age, children, height in metres
    people = np.array([[20, 0, 1.6], [25, 0, 1.7], [30, np.nan, 1.8], [35, 0, 1.9], [400, 3, 18]])
    cleaner = Cleaner().fit(people)
    text = "400 years and 18 m become the medians of the others, 27.5 and 1.75; a gap becomes 0"
    wanted = [[20, 0, 1.6], [25, 0, 1.7], [30, 0, 1.8], [35, 0, 1.9], [27.5, 3, 1.75]]
    check_close("by-hand", text, cleaner.transform(people), wanted)

    ages = np.array([[-21.0], [-20], [80], [81]])
    text = "ages with median 30 and MAD 5: -20 and 80 stay, -21 and 81 become gaps"
    check_close("limit", text, cleaner.blank(ages)[:, 0], [np.nan, -20, 80, np.nan], equal_nan=True)

    from sklearn import impute, pipeline, preprocessing

    # Learnt from every other row, where the last column is always 0.7; used on the rest.
    x = frame[NUMBERS[cfg.data]].to_numpy()
    x = np.c_[x, 0.7 + np.arange(len(x)) % 2]
    cleaner = Cleaner().fit(x[::2])
    scaler = Scaler().fit(cleaner.transform(x[::2]))
    imputer = impute.SimpleImputer(strategy="median")
    sklearns = pipeline.make_pipeline(imputer, preprocessing.StandardScaler())
    sklearns.fit(cleaner.blank(x[::2]))
    ours = scaler.transform(cleaner.transform(x[1::2]))
    theirs = sklearns.transform(cleaner.blank(x[1::2]))
    text = "filled and scaled as by scikit-learn's SimpleImputer and StandardScaler"
    check_close("parity", text, ours, theirs)


class OneHot:
    """A column of True and False, 1 and 0, for each category of the training rows."""

    def fit(self, column: pd.Series) -> "OneHot":
        self.categories = sorted(column.dropna().unique())
        return self

    def transform(self, column: pd.Series) -> np.ndarray:
        """(n,) -> (n, L). A missing category, and one never seen before, get only False."""
        names = column.to_numpy()[:, None]  # (n, 1) against (L,)
        return names == self.categories


def show_categories(cfg: Config) -> None:
    print("\n[2] A category becomes columns of 0 and 1; a date needs its format")
    from sklearn.preprocessing import OneHotEncoder

    known = pd.DataFrame({"site": ["lake", "hill", "lake"]})
    new = pd.DataFrame({"site": ["hill", "road", None, "lake"]})
    sklearns = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(known)
    ours = OneHot().fit(known["site"]).transform(new["site"])
    text = "hill, an unknown road, a gap, lake: coded as by scikit-learn's OneHotEncoder"
    check_close("one-hot", text, ours, sklearns.transform(new))

    # Left to guess, pandas takes the format from the first date, here month first.
    written = ["04.03.2024", "31.12.2024", "soon"]
    guessed = pd.to_datetime(written, errors="coerce").month.tolist()
    months = pd.to_datetime(written, format="%d.%m.%Y", errors="coerce").month
    text = f"{', '.join(written)}: with the format months 3, 12, none; without it {guessed}"
    check_close("format", text, months, [3, 12, np.nan], equal_nan=True)


def target_means(category: np.ndarray, y: np.ndarray, levels: int) -> np.ndarray:
    """(levels,): the mean label of each category; the overall mean for one without rows."""
    sums = np.bincount(category, weights=y, minlength=levels)
    counts = np.bincount(category, minlength=levels)
    return np.where(counts > 0, sums / np.maximum(counts, 1), y.mean())


def show_leak(cfg: Config) -> dict[str, float]:
    print("\n[3] Labels are coin tosses, the category is noise: nobody can beat one half")
    scores = []
    for category, _, y, train in coin_tosses(cfg):
        # Wrong: these means have seen the labels of the test rows.
        leaky = target_means(category, y, cfg.rows // 4)[category]
        honest = target_means(category[train], y[train], cfg.rows // 4)[category]
        scores.append([accuracies(np.c_[codes], y, train)[1] for codes in (leaky, honest)])

    leak, honest = np.mean(scores, axis=0).tolist()
    expect("leak", "category means of all rows: {} of the test rows are right", leak, above=0.62)
    text = "category means of the training rows only: {} are right"
    expect("honest", text, honest, at_least=0.45, at_most=0.55)
    return {"leak": leak, "honest": honest}


def out_of_fold(category: np.ndarray, y: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """(n,): the code of each row, learnt from the rows of all folds but its own."""
    # practice: A code that has not seen the row's own label
    levels = category.max() + 1
    codes = np.empty(len(y))
    for number in np.unique(fold):
        coded = fold == number
        others = ~coded
        means = target_means(category[others], y[others], levels)
        codes[coded] = means[category[coded]]

    return codes
    # end practice


def show_own_label(cfg: Config) -> dict[str, float]:
    print("\n[4] Means of the training rows still hold each training row's own label")
    category = np.array([0, 0, 0, 0, 1, 1, 2])
    y = np.array([1, 0, 1, 1, 1, 0, 0])
    fold = np.array([0, 0, 1, 2, 0, 1, 2])
    text = "labels 1 and 0 in one fold, 1 and 1 in two others: their codes are 1, 1, 2/3, 2/3"
    wanted = [1, 1, 2 / 3, 2 / 3, 0, 1, 3 / 5]  # the last row is alone: the others' mean
    check_close("codes", text, out_of_fold(category, y, fold), wanted)

    scores = []
    for category, feature, y, train in coin_tosses(cfg):
        _, alone = accuracies(np.c_[feature], y, train)
        codes = target_means(category[train], y[train], cfg.rows // 4)[category]
        training, in_sample = accuracies(np.c_[feature, codes], y, train)

        fold = np.arange(train.sum()) % 5
        codes[train] = out_of_fold(category[train], y[train], fold)
        _, out = accuracies(np.c_[feature, codes], y, train)
        scores.append([alone, training, in_sample, out])

    alone, training, in_sample, out = np.mean(scores, axis=0).tolist()
    print(f"  a useful feature alone: {alone:.3f} of the test rows are right")
    text = f"with the useless category's means beside it {{}}, though {training:.3f} in training"
    expect("in-sample", text, in_sample, below=alone - 0.05)
    expect("out-of-fold", "with its means out of fold {}", out, above=alone - 0.02)
    return {"alone": alone, "training": training, "in_sample": in_sample, "out_of_fold": out}


@dataclass
class Pipeline:
    """Numbers cleaned and scaled, categories one-hot. Only `fit` learns."""

    numbers: list[str]
    categories: list[str]

    def fit(self, frame: pd.DataFrame) -> "Pipeline":
        x = frame[self.numbers].to_numpy()
        self.cleaner = Cleaner().fit(x)

        # A step learns from what the step before it lets through.
        self.scaler = Scaler().fit(self.cleaner.transform(x))
        self.encoders = {name: OneHot().fit(frame[name]) for name in self.categories}
        return self

    def transform(self, frame: pd.DataFrame) -> np.ndarray:
        """(n, all columns that the model gets)"""
        x = frame[self.numbers].to_numpy()
        x = self.scaler.transform(self.cleaner.transform(x))
        codes = [one_hot.transform(frame[name]) for name, one_hot in self.encoders.items()]
        return np.hstack([x, *codes])


def prepare(
    pipeline: Pipeline, frame: pd.DataFrame, train: np.ndarray, test: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The model's columns of the training and of the test rows, given by their numbers."""
    # practice: Split first
    known = frame.iloc[train]
    new = frame.iloc[test]
    pipeline.fit(known)
    return pipeline.transform(known), pipeline.transform(new)
    # end practice


def show_pipeline(cfg: Config, frame: pd.DataFrame) -> None:
    print("\n[5] Split first; whatever is learnt is learnt from the training rows")
    numbers = NUMBERS[cfg.data]
    pipeline = Pipeline(numbers, CATEGORIES[cfg.data])
    train, test = np.split(cfg.rng().permutation(len(frame)), [len(frame) * 2 // 3])
    x_train, x_test = prepare(pipeline, frame, train, test)

    changed = frame.copy()
    changed.loc[test, numbers] *= 3
    x_again, _ = prepare(pipeline, changed, train, test)
    text = "with all test numbers tripled, the training rows' columns stay as they were"
    check_close("untouched", text, x_again, x_train)

    alone = []
    for place in range(5):
        _, row = prepare(pipeline, frame, train, test[[place]])
        alone.append(row[0, : len(numbers)])
    text = "a test row gets the same numbers among others and alone"
    check_close("alone", text, np.array(alone), x_test[:5, : len(numbers)])

    scaled = x_train[:, : len(numbers)]
    text = "no gap is left, and the training rows' numbers have mean 0 and standard deviation 1"
    moments = np.append(scaled.mean(axis=0), scaled.std(axis=0))
    check_close("scaled", text, moments, np.repeat([0, 1], len(numbers)))


# Pictures and helpers: skip on a first reading


def coin_tosses(cfg: Config) -> Iterator[tuple[np.ndarray, ...]]:
    """Five tables: a useless category, a useful feature, the label, and which rows train."""
    for rng in np.random.default_rng(cfg.seed).spawn(5):
        category = rng.integers(cfg.rows // 4, size=cfg.rows)
        y = rng.integers(2, size=cfg.rows)
        feature = y + rng.normal(size=cfg.rows)
        train = np.arange(cfg.rows) < cfg.rows // 2
        yield category, feature, y, train


def accuracies(x: np.ndarray, y: np.ndarray, train: np.ndarray) -> tuple[float, float]:
    """What a straight boundary (lesson 1.8 builds it) gets right: in training, in the test."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression().fit(x[train], y[train])
    return model.score(x[train], y[train]), model.score(x[~train], y[~train])


def load(cfg: Config) -> pd.DataFrame:
    if cfg.data == "titanic":
        return load_titanic(cfg)

    rng = cfg.rng()
    measures, _ = load_iris()
    frame = pd.DataFrame(measures, columns=list(IRIS_COLUMNS))
    frame = frame.mask(rng.random(frame.shape) < 0.1)
    site = rng.choice(["hill", "lake", "road", None], len(frame), p=[0.4, 0.3, 0.2, 0.1])
    return frame.assign(site=site)


def draw_leak(cfg: Config) -> None:
    """What the model sees of the test rows of the first table."""
    category, _, y, train = next(coin_tosses(cfg))
    before = target_means(category, y, cfg.rows // 4)[category]
    after = target_means(category[train], y[train], cfg.rows // 4)[category]
    titles = ["Means of all rows tell the label", "Means of the training rows do not"]
    bins = np.linspace(-1 / 16, 17 / 16, 10)  # 0, 0.5 and 1 lie in the middle of a bin
    figure, axes = new_figure(1, 2, size=(12, 4.2), sharey=True)
    for axis, title, codes in zip(axes, titles, [before, after]):
        groups = [codes[~train & (y == label)] for label in (0, 1)]
        axis.hist(groups, bins, color=[GREY, PURPLE], label=["label 0", "label 1"])
        axis.set(xlabel="code of a test row", ylabel="test rows", title=title)
        axis.legend()
    save_figure(figure, cfg.out / "leak")


def run(cfg: Config) -> dict[str, float]:
    frame = load(cfg)
    show_numbers(cfg, frame)
    show_categories(cfg)
    leak = show_leak(cfg)
    own_label = show_own_label(cfg)
    show_pipeline(cfg, frame)
    draw_leak(cfg)
    return leak | own_label


if __name__ == "__main__":
    main(run, Config, __doc__)
