"""1.5 Preprocessing: clean the data without leaking the test set
数据预处理：清洗数据，但不泄漏测试集

You will be able to answer
    1. What becomes of impossible and missing numbers?    show_numbers    found, imputer, scaler, constant
    2. How does a category become numbers?                show_encodings  one-hot, unseen, means
    3. How does a date become numbers?                    show_dates      formats, circle
    4. How can pure noise look like knowledge?            show_leak       leak, honest, impute
    5. What does a pipeline look like that cannot leak?   show_pipeline   apart, full, alone, learns, inputs, accuracy
Run       python phase01_data_science/05-pandas-preprocessing.py           about 3 s; --data titanic for the passengers
Needs     -
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from common.checks import check, check_close, depends_on_input, expect, no_leak
from common.config import LessonConfig, main, param
from common.data.tables import IRIS_COLUMNS, load_iris, load_titanic
from common.figures import COLOURS, GREY, PURPLE, new_figure, save_figure

WANTED = {"iris": 0.85, "titanic": 0.74}  # held-out accuracy; the majority has about 0.33 and 0.62
IN_MM = {
    "iris": [7, 60, 111, 140],
    "titanic": [],
}  # rows whose first number we write down ten times too large


@dataclass
class Config(LessonConfig):
    data: str = param(
        "iris", "data set; iris gets holes and slips of the pen", choices=("iris", "titanic")
    )
    rows: int = param(1000, "rows of pure noise in the leak experiment", tiny=200, low=40)


class Cleaner:
    """Blanks wild values, fills gaps by the median, adds 0/1 columns for where they were: (n, k) -> (n, k + g)."""

    def fit(self, x: np.ndarray) -> "Cleaner":
        # practice: a middle and a spread that a wild value cannot move
        # hint: the median of each column, and the median of the distances from it; NaN does not count
        # hint: self.middle = np.nanmedian(x, axis=0)
        self.middle = np.nanmedian(x, axis=0)
        distance = abs(x - self.middle)
        self.spread = np.nanmedian(distance, axis=0)
        # end practice
        self.fill, self.had_gaps = (
            np.nanmedian(self.blank(x), axis=0),
            np.isnan(self.blank(x)).any(axis=0),
        )
        return self

    def blank(self, x: np.ndarray) -> np.ndarray:
        far = (abs(x - self.middle) > 10 * self.spread) & (self.spread > 0)
        return np.where(far, np.nan, x)

    def transform(self, x: np.ndarray) -> np.ndarray:
        x = self.blank(x)
        # practice: fill, and remember where
        # hint: np.where(gap, what to put there, what was there); broadcasting finds the column's median
        # hint: that a value was missing may be information: keep the gaps of the columns that had some, as 0 and 1
        gap = np.isnan(x)  # (n, k)
        filled = np.where(gap, self.fill, x)
        x = np.hstack([filled, gap[:, self.had_gaps]])
        # end practice
        return x


class Scaler:
    """Every column to mean 0 and standard deviation 1; a column that never varies only to 0. (n, k) -> (n, k)"""

    def fit(self, x: np.ndarray) -> "Scaler":
        # practice: what to remember from the training rows
        # hint: one mean and one standard deviation a column; dividing by 0 gives nan
        # hint: self.mean = x.mean(axis=0), then self.scale, then the zeros in it
        self.mean = x.mean(axis=0)
        self.scale = np.sqrt(((x - self.mean) ** 2).mean(axis=0))
        self.scale[self.scale == 0] = 1
        # end practice
        return self

    def transform(self, x: np.ndarray) -> np.ndarray:
        return (x - self.mean) / self.scale


class OneHot:
    """A column of 0 and 1 for every category of the training rows; one never seen before gives only zeros."""

    def fit(self, column: pd.Series) -> "OneHot":
        self.categories = np.array(sorted(column.dropna().unique()), dtype=object)
        return self

    def transform(self, column: pd.Series) -> np.ndarray:
        return (column.to_numpy(dtype=object)[:, None] == self.categories).astype(float)


def target_means(category: np.ndarray, y: np.ndarray, levels: int) -> np.ndarray:
    """(levels,): the mean target of each category; the overall mean for one without rows."""
    # practice: from a category to the mean of its labels
    # hint: np.bincount(category, weights=y, minlength=levels) adds up the labels of each category
    # hint: sums and counts, each with minlength; divide where there is something to divide by
    sums = np.bincount(category, weights=y, minlength=levels)
    counts = np.bincount(category, minlength=levels)
    means = np.where(counts > 0, sums / np.maximum(counts, 1), y.mean())
    # end practice
    return means


class Pipeline:
    """Numbers: cleaned and scaled. Categories: one-hot. All that it knows comes from the rows given to fit."""

    def fit(self, frame: pd.DataFrame, numbers: list[str], categories: list[str]) -> "Pipeline":
        x, self.numbers = frame[numbers].to_numpy(dtype=float), numbers
        self.cleaner = Cleaner().fit(x)
        self.scaler = Scaler().fit(
            self.cleaner.transform(x)
        )  # learns from what the step before lets through
        self.encoders = {name: OneHot().fit(frame[name]) for name in categories}
        return self

    def transform(self, frame: pd.DataFrame) -> np.ndarray:
        x = self.scaler.transform(self.cleaner.transform(frame[self.numbers].to_numpy(dtype=float)))
        return np.hstack(
            [x, *(encoder.transform(frame[name]) for name, encoder in self.encoders.items())]
        )


def load(cfg: Config) -> tuple[pd.DataFrame, list[str], list[str], np.ndarray]:
    """The table, its columns of numbers and of categories, and the classes (n,)."""
    if cfg.data == "titanic":
        frame = load_titanic(cfg).assign(
            Fare=lambda table: np.log1p(table["Fare"])
        )  # fares differ by factors
        return (
            frame,
            ["Age", "Fare", "SibSp", "Parch"],
            ["Sex", "Embarked", "Pclass"],
            frame["Survived"].to_numpy(),
        )
    (measures, species), rng = load_iris(), cfg.rng()
    frame = pd.DataFrame(measures, columns=IRIS_COLUMNS)
    frame = frame.mask(rng.random(frame.shape) < 0.1)
    frame.loc[IN_MM["iris"], "sepal_length"] = measures[IN_MM["iris"], 0] * 10
    frame["site"] = rng.choice(["hill", "lake", "road", None], len(frame), p=[0.4, 0.3, 0.2, 0.1])
    return frame, list(frame.columns[:4]), ["site"], np.unique(species, return_inverse=True)[1]


def show_numbers(cfg: Config, frame: pd.DataFrame, numbers: list[str]) -> None:
    print(
        "\n[1] Impossible values become gaps, gaps become medians with a note; then all columns get one scale"
    )
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import StandardScaler

    x = frame[numbers].to_numpy(dtype=float)
    cleaner = Cleaner().fit(x)
    blanked = cleaner.blank(x)
    wild = np.isnan(blanked) & ~np.isnan(x)
    for name, column, far in zip(numbers, x.T, wild.T):
        print(
            f"  {name:<13} median {np.nanmedian(column):5.2f}  mean {np.nanmean(column):5.2f}  blanked {column[far]}"
        )
    check(
        "found",
        "what was written down in millimetres is blanked, and nothing else",
        np.argwhere(wild).tolist() == [[row, 0] for row in IN_MM[cfg.data]],
    )
    check_close(
        "imputer",
        "ours equals scikit-learn's SimpleImputer with indicator",
        cleaner.transform(x),
        SimpleImputer(strategy="median", add_indicator=True).fit_transform(blanked),
    )
    full, flat = cleaner.transform(x), np.full((5, 1), 3.0)
    check_close(
        "scaler",
        "as StandardScaler",
        Scaler().fit(full).transform(full),
        StandardScaler().fit_transform(full),
    )
    check_close(
        "constant",
        "a column that never varies becomes 0",
        Scaler().fit(flat).transform(flat),
        flat * 0,
    )


def show_encodings(cfg: Config, frame: pd.DataFrame, categories: list[str]) -> None:
    print("\n[2] Categories: one column each, for 0, 1, 2 would claim an order that is not there")
    from sklearn.preprocessing import OneHotEncoder

    known = frame[categories].dropna()
    check_close(
        "one-hot",
        f"equals scikit-learn's OneHotEncoder for {', '.join(categories)}",
        np.hstack([OneHot().fit(known[name]).transform(known[name]) for name in categories]),
        OneHotEncoder(sparse_output=False).fit_transform(known),
    )
    encoder = OneHot().fit(pd.Series(["hill", "lake", "lake"]))
    check(
        "unseen",
        "a place never seen in training, and a missing one, give zeros and no error",
        encoder.transform(pd.Series(["lake", "moon", None])).tolist() == [[0, 1], [0, 0], [0, 0]],
    )
    check(
        "means",
        "means of the labels, for a category with two rows, with one, and with none (the overall mean)",
        target_means(np.array([0, 0, 1]), np.array([0, 1, 1]), 3).tolist() == [1 / 2, 1, 2 / 3],
    )


def show_dates(cfg: Config) -> None:
    print("\n[3] Dates: say the format, and lay the months on a circle")
    written = pd.Series(["2024-05-06", "06.05.2024", "2024-12-31", "nonsense"])
    formats = [
        pd.to_datetime(written, format=form, errors="coerce") for form in ("%Y-%m-%d", "%d.%m.%Y")
    ]
    parsed = formats[0].fillna(formats[1])
    check(
        "formats",
        "two spellings of the 6th of May agree; nonsense becomes NaT, a missing date",
        parsed[0] == parsed[1] == pd.Timestamp(2024, 5, 6)
        and parsed.isna().tolist() == [False, False, False, True],
    )
    circle = np.stack(
        [wave(2 * np.pi * np.arange(12) / 12) for wave in (np.sin, np.cos)]
    )  # (2, 12)
    step = np.linalg.norm(circle - np.roll(circle, 1, axis=1), axis=0)
    check_close(
        "circle",
        "12 to 1 is a step like any other; as plain numbers it is 11",
        step,
        np.full(12, step[1]),
    )


def show_leak(cfg: Config) -> dict:
    print("\n[4] The leak: labels that cannot be predicted, a category that means nothing")
    from sklearn.linear_model import LogisticRegression

    levels, scores = cfg.rows // 4, {}
    for rng in np.random.default_rng(cfg.seed).spawn(5):
        category, y = rng.integers(0, levels, cfg.rows), rng.integers(0, 2, cfg.rows)
        signal = np.where(rng.random(cfg.rows) < 0.2, np.nan, y + rng.normal(size=cfg.rows))
        train, test = np.split(rng.permutation(cfg.rows), 2)
        codes = {
            "before the split": target_means(category, y, levels)[
                category
            ],  # the means see all labels
            "in the pipeline": target_means(category[train], y[train], levels)[category],
            "mean before": np.where(np.isnan(signal), np.nanmean(signal), signal),
            "mean inside": np.where(np.isnan(signal), np.nanmean(signal[train]), signal),
        }
        for name, x in codes.items():
            model = LogisticRegression().fit(x[train, None], y[train])
            scores.setdefault(name, []).append(model.score(x[test, None], y[test]))
    before, inside, imputed, imputed_inside = (float(np.mean(values)) for values in scores.values())
    expect("leak", "target means taken before the split: accuracy on noise", before, above=0.62)
    expect("honest", "the same inside the pipeline: a coin", inside, at_least=0.45, at_most=0.55)
    expect(
        "impute",
        f"filled with the mean before the split {imputed:.3f}, inside {imputed_inside:.3f}: difference",
        abs(imputed - imputed_inside),
        at_most=0.02,
    )
    draw_leak(cfg, scores, {name: x[test] for name, x in codes.items()}, y[test])
    return {
        "leak": before,
        "honest": inside,
        "impute_difference": imputed - imputed_inside,
        "scores": scores,
    }


def show_pipeline(
    cfg: Config, frame: pd.DataFrame, numbers: list[str], categories: list[str], y: np.ndarray
) -> dict:
    print("\n[5] Split first; everything that is learnt is learnt from the training rows")
    from sklearn.linear_model import LogisticRegression

    train, test = np.split(cfg.rng().permutation(len(frame)), [len(frame) * 2 // 3])
    no_leak("apart", "no row stands on both sides", train, test)
    pipeline = Pipeline().fit(frame.iloc[train], numbers, categories)
    x_train, x_test = pipeline.transform(frame.iloc[train]), pipeline.transform(frame.iloc[test])
    check(
        "full",
        f"{x_train.shape[1]} columns, no NaN left",
        not np.isnan(np.vstack([x_train, x_test])).any(),
    )
    check_close(
        "alone",
        "a test row is treated the same alone and among others",
        x_test[:5],
        np.vstack([pipeline.transform(frame.iloc[[row]]) for row in test[:5]]),
    )
    few = LogisticRegression(C=1e6, max_iter=10_000).fit(x_train[:10], y[train[:10]])
    check(
        "learns",
        "the model can learn ten rows by heart",
        few.score(x_train[:10], y[train[:10]]),
        at_least=1,
    )
    predicted = LogisticRegression(max_iter=1000).fit(x_train, y[train]).predict(x_test)
    depends_on_input("inputs", "the answers depend on the row", predicted, y[test])
    accuracy, majority = (
        float((y[test] == guess).mean()) for guess in (predicted, np.bincount(y[train]).argmax())
    )
    expect(
        "accuracy",
        f"held-out accuracy, beside {majority:.2f} of the majority",
        accuracy,
        at_least=WANTED[cfg.data],
    )
    return {"accuracy": accuracy, "majority": majority}


def draw_leak(
    cfg: Config, scores: dict[str, list[float]], codes: dict[str, np.ndarray], y: np.ndarray
) -> None:
    figure, (left, *right) = new_figure(1, 3, size=(14, 4.2), width_ratios=(1.2, 1, 1))
    for place, name in enumerate(("before the split", "in the pipeline")):
        left.plot(
            np.linspace(place - 0.1, place + 0.1, 5),
            scores[name],
            "o",
            color=COLOURS[place],
            markersize=9,
        )
        groups = [codes[name][y == label] for label in (0, 1)]
        right[place].hist(
            groups, bins=np.linspace(0, 1, 9), color=[GREY, PURPLE], label=["y = 0", "y = 1"]
        )
        right[place].set(
            xlabel="code of the test row", title=f"Encoded {name}", ylim=(0, cfg.rows / 10)
        )
        right[place].legend()
    left.axhline(0.5, color=GREY, linestyle="--")
    left.set(
        xlim=(-0.5, 1.5),
        xticks=[0, 1],
        xticklabels=["encoded\nbefore the split", "encoded\nin the pipeline"],
        ylim=(0.35, 0.9),
        ylabel="held-out accuracy, one dot a seed",
        title="Labels that are pure noise",
    )
    save_figure(figure, cfg.out / "leak")


def run(cfg: Config) -> dict:
    frame, numbers, categories, y = load(cfg)
    show_numbers(cfg, frame, numbers)
    show_encodings(cfg, frame, categories)
    show_dates(cfg)
    return show_leak(cfg) | show_pipeline(cfg, frame, numbers, categories, y)


if __name__ == "__main__":
    main(run, Config, __doc__)
