"""1.5 Preprocessing: clean the data without leaking the test set
数据预处理：清洗数据，但不泄漏测试集

You will be able to answer
    1. What becomes of wild and missing numbers?      show_numbers     by-hand, found, parity
    2. How do categories and dates become numbers?    show_categories  one-hot, circle
    3. How can pure noise look like knowledge?        show_leak        leak, honest
    4. Why codes out of fold for the training rows?   show_own_label   own-code, tempted, unspoilt
    5. Which pipeline cannot leak?                    show_pipeline    alone, full, inputs, accuracy
Predict   leak: which share of coin tosses can a model guess from target means of all rows?
Run       python phase01_data_science/05-pandas-preprocessing.py           about 3 s
Needs     -
Reference StandardScaler, SimpleImputer, OneHotEncoder
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from common.checks import check, check_close, depends_on_input, expect
from common.config import LessonConfig, main, param
from common.data.tables import IRIS_COLUMNS, load_iris, load_titanic
from common.figures import GREY, PURPLE, new_figure, save_figure

NUMBERS = {"iris": [*IRIS_COLUMNS], "titanic": ["Age", "Fare", "SibSp", "Parch"]}
CATEGORIES = {"iris": ["site"], "titanic": ["Sex", "Embarked", "Pclass"]}
SLIPS = {"iris": [7, 60, 111, 140], "titanic": []}  # rows with a length in millimetres
WANTED = {"iris": 0.85, "titanic": 0.74}  # held-out accuracy


@dataclass
class Config(LessonConfig):
    data: str = param("iris", "iris with holes and slips of the pen", choices=("iris", "titanic"))
    rows: int = param(1000, "rows of coin tosses in the leak experiments", tiny=200, low=40)
    threads = 1


class Cleaner:
    """Blanks impossible values, fills gaps with medians, adds 0/1 columns for where gaps were."""

    def fit(self, x: np.ndarray) -> "Cleaner":
        """x: (n, k), with NaN for a gap."""
        # practice: A middle and a spread that a wild value cannot move
        self.middle = np.nanmedian(x, axis=0)  # (k,)
        distance = np.abs(x - self.middle)  # (n, k)
        self.spread = np.nanmedian(distance, axis=0)  # (k,)
        # end practice

        blanked = self.blank(x)
        self.fill = np.nanmedian(blanked, axis=0)
        self.had_gaps = np.isnan(blanked).any(axis=0)
        return self

    def blank(self, x: np.ndarray) -> np.ndarray:
        """NaN where a value lies more than ten spreads from the middle of its column."""
        far = np.abs(x - self.middle) > 10 * self.spread
        # Where most values are equal the spread is 0, and says nothing about the others.
        return np.where(far & (self.spread > 0), np.nan, x)

    def transform(self, x: np.ndarray) -> np.ndarray:
        """(n, k) -> (n, k + g), g of the columns having had gaps when it was fitted."""
        x = self.blank(x)
        gaps = np.isnan(x)
        filled = np.where(gaps, self.fill, x)

        # That somebody did not answer is often an answer.
        return np.hstack([filled, gaps[:, self.had_gaps]])


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
    print("\n[1] Impossible values become gaps, gaps become medians, and a column says where")
    people = np.array([[20, 1.6], [25, 1.7], [30, np.nan], [35, 1.8], [400, 2.0]])
    cleaner = Cleaner().fit(people)
    text = "ages of 20, 25, 30, 35 and 400 have the middle 30 and the spread 5"
    learnt = np.broadcast_arrays(cleaner.middle, cleaner.spread, people[0])[:2]
    check_close("by-hand", text, learnt, [[30, 1.75], [5, 0.1]])

    x = frame[NUMBERS[cfg.data]].to_numpy(dtype=float)
    cleaner = Cleaner().fit(x)
    wild = np.isnan(cleaner.blank(x)) & ~np.isnan(x)
    first = x[:, 0]
    print(f"  median {np.nanmedian(first):.2f}, mean {np.nanmean(first):.2f}; blanked {x[wild]}")
    slips = [[row, 0] for row in SLIPS[cfg.data]]
    text = f"the {len(slips)} slips of the pen are blanked, and nothing else"
    check("found", text, np.argwhere(wild).tolist() == slips)

    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # Learnt from every other row, used on the rest; the last column is the same everywhere.
    x = np.c_[x, np.full(len(x), 0.1)]
    cleaner = Cleaner().fit(x[::2])
    scaler = Scaler().fit(cleaner.transform(x[::2]))
    sklearns = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
    sklearns.fit(cleaner.blank(x[::2]))
    ours = scaler.transform(cleaner.transform(x[1::2]))
    theirs = sklearns.transform(cleaner.blank(x[1::2]))
    text = "filled, noted and scaled as by scikit-learn's SimpleImputer and StandardScaler"
    check_close("parity", text, ours, theirs)


class OneHot:
    """A column of 0 and 1 for each category of the training rows."""

    def fit(self, column: pd.Series) -> "OneHot":
        self.categories = np.array(sorted(column.dropna().unique()), dtype=object)  # (L,)
        return self

    def transform(self, column: pd.Series) -> np.ndarray:
        """(n,) -> (n, L). A missing category, and one never seen before, get zeros only."""
        names = column.to_numpy(dtype=object)[:, None]  # (n, 1) against (L,)
        return (names == self.categories).astype(float)


def on_circle(month: np.ndarray) -> np.ndarray:
    """Months 1 to 12 as places on a clock face, 12 at the top. (n,) -> (n, 2)"""
    angle = 2 * np.pi * month / 12
    return np.stack([np.sin(angle), np.cos(angle)], axis=1)


def show_categories(cfg: Config, frame: pd.DataFrame) -> None:
    print("\n[2] A category becomes columns, a date becomes a place on a circle")
    from sklearn.preprocessing import OneHotEncoder

    # Learnt from all categories but one, which is then seen for the first time.
    name = CATEGORIES[cfg.data][0]
    known = frame[frame[name].notna() & (frame[name] != frame[name].dropna().max())]
    sklearns = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(known[[name]])
    ours = OneHot().fit(known[name]).transform(frame[name])
    text = f"{name}, with gaps and a category never seen before: scikit-learn's OneHotEncoder"
    check_close("one-hot", text, ours, sklearns.transform(frame[[name]]))

    # 04.03. is in March here, in April elsewhere: only who knows the source can say the format.
    written = ["04.03.2024", "31.12.2024", "soon"]
    months = pd.to_datetime(written, format="%d.%m.%Y", errors="coerce").month
    print(f"  months of {', '.join(written)}: {months.tolist()}")
    places = on_circle(np.array([3, 12, 1]))
    text = "March lies at (1, 0), December at (0, 1), January one twelfth of a turn further"
    check_close("circle", text, places, [[1, 0], [0, 1], [1 / 2, np.sqrt(3) / 2]])


def target_means(category: np.ndarray, y: np.ndarray, levels: int) -> np.ndarray:
    """(levels,): the mean label of each category; the overall mean for one without rows."""
    sums = np.bincount(category, weights=y, minlength=levels)
    counts = np.bincount(category, minlength=levels)
    return np.where(counts > 0, sums / np.maximum(counts, 1), y.mean())


def show_leak(cfg: Config) -> dict[str, list[float]]:
    print("\n[3] Labels are coin tosses, the category is noise: nobody can beat one half")
    levels = cfg.rows // 4
    scores = {"leak": [], "honest": [], "mean_before": [], "mean_inside": []}
    for rng in np.random.default_rng(cfg.seed).spawn(5):
        category, y, train = coin_tosses(cfg, rng)
        # Wrong: these means have seen the labels of the test rows.
        leaky = target_means(category, y, levels)[category]
        honest = target_means(category[train], y[train], levels)[category]

        # The same mistake with the mean of a whole column, which fills its gaps.
        x = np.where(rng.random(cfg.rows) < 0.2, np.nan, y + rng.normal(size=cfg.rows))
        before = np.where(np.isnan(x), np.nanmean(x), x)
        inside = np.where(np.isnan(x), np.nanmean(x[train]), x)
        for name, column in zip(scores, [leaky, honest, before, inside]):
            scores[name].append(accuracies(column, y, train)["test"])

    leak, honest, before, inside = (float(np.mean(values)) for values in scores.values())
    expect("leak", "target means taken before the split: {} are right", leak, above=0.62)
    expect("honest", "target means of training rows: {}", honest, at_least=0.45, at_most=0.55)
    print(f"  gaps filled by the mean before the split {before:.4f}, after it {inside:.4f}")
    return scores


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


def show_own_label(cfg: Config) -> dict[str, list[float]]:
    print("\n[4] Means of the training rows still hold each training row's own label")
    category = np.array([0, 0, 0, 0, 1, 1, 2])
    y = np.array([1, 0, 1, 1, 1, 0, 0])
    fold = np.array([0, 0, 1, 2, 0, 1, 2])
    text = "labels 1 0 | 1 | 1 in three folds: codes 1, 1, 2/3, 2/3; a lone row: the others' mean"
    wanted = [1, 1, 2 / 3, 2 / 3, 0, 1, 3 / 5]
    check_close("own-code", text, out_of_fold(category, y, fold), wanted)

    scores = {"alone": [], "tempted_training": [], "tempted": [], "unspoilt": []}
    for rng in np.random.default_rng(cfg.seed).spawn(5):
        category, y, train = coin_tosses(cfg, rng)
        feature = y + rng.normal(size=cfg.rows)
        scores["alone"].append(accuracies(feature, y, train)["test"])

        codes = target_means(category[train], y[train], cfg.rows // 4)[category]
        tempted = accuracies(np.c_[feature, codes], y, train)
        scores["tempted_training"].append(tempted["training"])
        scores["tempted"].append(tempted["test"])

        fold = np.arange(train.sum()) % 5
        codes[train] = out_of_fold(category[train], y[train], fold)
        scores["unspoilt"].append(accuracies(np.c_[feature, codes], y, train)["test"])

    alone, training, tempted, unspoilt = (float(np.mean(values)) for values in scores.values())
    print(f"  a useful feature alone: {alone:.3f} are right")
    text = f"a useless target mean beside it: {training:.3f} in training, and in the test {{}} less"
    expect("tempted", text, alone - tempted, at_least=0.05)
    expect("unspoilt", "codes out of fold: in the test {} less", alone - unspoilt, at_most=0.02)
    return scores


@dataclass
class Pipeline:
    """Numbers cleaned and scaled, categories one-hot. Only `fit` learns."""

    numbers: list[str]
    categories: list[str]

    def fit(self, frame: pd.DataFrame) -> "Pipeline":
        x = frame[self.numbers].to_numpy(dtype=float)
        self.cleaner = Cleaner().fit(x)

        # A step learns from what the step before it lets through.
        self.scaler = Scaler().fit(self.cleaner.transform(x))
        self.encoders = {name: OneHot().fit(frame[name]) for name in self.categories}
        return self

    def transform(self, frame: pd.DataFrame) -> np.ndarray:
        """(n, all columns that the model gets)"""
        x = frame[self.numbers].to_numpy(dtype=float)
        x = self.scaler.transform(self.cleaner.transform(x))
        codes = [one_hot.transform(frame[name]) for name, one_hot in self.encoders.items()]
        return np.hstack([x, *codes])


def show_pipeline(cfg: Config, frame: pd.DataFrame, y: np.ndarray) -> dict[str, float]:
    print("\n[5] Split first; whatever is learnt is learnt from the training rows")
    from sklearn.linear_model import LogisticRegression

    train, test = np.split(cfg.rng().permutation(len(frame)), [len(frame) * 2 // 3])
    pipeline = Pipeline(NUMBERS[cfg.data], CATEGORIES[cfg.data]).fit(frame.iloc[train])
    x_train = pipeline.transform(frame.iloc[train])
    x_test = pipeline.transform(frame.iloc[test])

    alone = np.vstack([pipeline.transform(frame.iloc[[row]]) for row in test[:5]])
    check_close("alone", "a row gets the same numbers among others and alone", x_test[:5], alone)
    gaps = np.isnan(np.vstack([x_train, x_test])).sum()
    check("full", f"{x_train.shape[1]} columns, in which {{}} cells are empty", gaps, at_most=0)

    predicted = LogisticRegression(max_iter=1000).fit(x_train, y[train]).predict(x_test)
    depends_on_input("inputs", "the answer depends on the row: {} right", predicted, y[test])
    accuracy = float((predicted == y[test]).mean())
    expect("accuracy", "{} of the held-out rows are right", accuracy, at_least=WANTED[cfg.data])
    return {"accuracy": accuracy}


# Pictures and helpers: skip on a first reading


def coin_tosses(cfg: Config, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """For each row a category that means nothing, a label, and whether it is a training row."""
    category = rng.integers(cfg.rows // 4, size=cfg.rows)
    y = rng.integers(2, size=cfg.rows)
    train = np.arange(cfg.rows) < cfg.rows // 2
    return category, y, train


def accuracies(x: np.ndarray, y: np.ndarray, train: np.ndarray) -> dict[str, float]:
    """What a straight boundary gets right: lesson 1.8 builds it, here it only reads the columns."""
    from sklearn.linear_model import LogisticRegression

    x = x.reshape(len(y), -1)
    model = LogisticRegression().fit(x[train], y[train])
    return {"training": model.score(x[train], y[train]), "test": model.score(x[~train], y[~train])}


def load(cfg: Config) -> tuple[pd.DataFrame, np.ndarray]:
    """The table, and the classes (n,)."""
    if cfg.data == "titanic":
        frame = load_titanic(cfg)
        # Fares differ by factors, so their natural scale is the logarithm.
        return frame.assign(Fare=np.log1p(frame["Fare"])), frame["Survived"].to_numpy()

    measures, species = load_iris()
    rng = cfg.rng()
    frame = pd.DataFrame(measures, columns=list(IRIS_COLUMNS))
    frame = frame.mask(rng.random(frame.shape) < 0.1)
    frame.loc[SLIPS["iris"], "sepal_length"] = measures[SLIPS["iris"], 0] * 10
    frame["site"] = rng.choice(["hill", "lake", "road", None], len(frame), p=[0.4, 0.3, 0.2, 0.1])
    return frame, np.unique(species, return_inverse=True)[1]


def draw_leak(cfg: Config, scores: dict[str, list[float]]) -> None:
    """What the model sees of the test rows with either encoding."""
    category, y, train = coin_tosses(cfg, cfg.rng())
    before = target_means(category, y, cfg.rows // 4)[category]
    after = target_means(category[train], y[train], cfg.rows // 4)[category]
    titles = ["Means taken before the split", "Means of the training rows"]
    figure, axes = new_figure(1, 2, size=(12, 4.2), sharey=True)
    for axis, title, codes, name in zip(axes, titles, [before, after], scores):
        groups = [codes[~train & (y == label)] for label in (0, 1)]
        axis.hist(groups, np.linspace(0, 1, 9), color=[GREY, PURPLE], label=["y = 0", "y = 1"])
        axis.set(xlabel="code of a test row", ylabel="test rows")
        axis.set_title(f"{title}: {np.mean(scores[name]):.2f} right")
        axis.legend()
    save_figure(figure, cfg.out / "leak")


def run(cfg: Config) -> dict[str, float]:
    frame, y = load(cfg)
    show_numbers(cfg, frame)
    show_categories(cfg, frame)
    leak = show_leak(cfg)
    scores = leak | show_own_label(cfg)
    accuracy = show_pipeline(cfg, frame, y)
    draw_leak(cfg, leak)
    return {name: float(np.mean(values)) for name, values in scores.items()} | accuracy


if __name__ == "__main__":
    main(run, Config, __doc__)
