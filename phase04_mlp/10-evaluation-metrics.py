"""4.10 Evaluation metrics: when 99 % accuracy is worthless
评估指标：99% 准确率何时一文不值

You will be able to answer
    1. What do accuracy and recall count?  show_counts  by-hand, counts, lazy, recall, nobody
    2. What if no threshold is settled?    show_threshold    auc, pairs
    3. Which model, where few are positive?  show_rare  precision, short, by-auc, by-ap, diluted
    4. Are probabilities right?  show_calibration  binned, bins, honest, overconfident, blind
    5. How far off is a number?            show_regression   errors, better, outlier
Predict   rare_precision: 1 % positives, AUC 0.9, half of them found: what share of alarms is right?
Run       python phase04_mlp/10-evaluation-metrics.py                       about 3 s
Needs     -
Reference sklearn.metrics, calibration_curve
Notation  N samples  y labels, 1 or 0
"""

from dataclasses import dataclass

import numpy as np
from sklearn import metrics
from sklearn.calibration import calibration_curve
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from common.checks import check, check_close, expect
from common.config import LessonConfig, main, param
from common.figures import BLUE, GREY, ORANGE, new_figure, save_figure
from common.record import current


@dataclass
class Config(LessonConfig):
    threads = 1
    samples: int = param(100_000, "samples, of which 1 % are positive", tiny=20_000, low=10_000)


def rates(y: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Four answers to “how good?”. y, predicted: (N,), 1 or 0.

    accuracy: the share that is right. precision: of those called positive, the share that is.
    recall: of the positives, the share that is found. f1: 2 · precision · recall, divided by the
    sum of the two. Where a denominator is 0, the value is 0.
    """
    # practice: Count four kinds of answers
    found = ((predicted == 1) & (y == 1)).sum()
    called = (predicted == 1).sum()
    positives = (y == 1).sum()

    precision = found / called if called else 0.0
    recall = found / positives if positives else 0.0
    f1 = 2 * precision * recall / (precision + recall) if found else 0.0
    accuracy = (predicted == y).mean()
    # end practice
    return {"accuracy": accuracy, "precision": precision, "recall": recall, "f1": f1}


def show_counts(cfg: Config) -> None:
    print("\n[1] Accuracy counts all answers alike, precision and recall only some")
    y = np.array([1, 1, 1, 0, 0, 0, 0, 0])
    predicted = np.array([1, 1, 0, 1, 0, 0, 0, 0])
    found = list(rates(y, predicted).values())
    text = "two found, one missed, one false alarm: accuracy 6/8, all others 2/3"
    check_close("by-hand", text, found, [6 / 8, 2 / 3, 2 / 3, 2 / 3])

    rng = cfg.rng()
    y = (rng.random(1000) < 0.3).astype(int)
    predicted = (rng.random(1000) < 0.2 + 0.4 * y).astype(int)
    scores = [metrics.accuracy_score, metrics.precision_score, metrics.recall_score]
    wanted = [score(y, predicted) for score in [*scores, metrics.f1_score]]
    found = list(rates(y, predicted).values())
    check_close("counts", "all four are scikit-learn's", found, wanted, rtol=1e-9)

    # Who never calls anything positive is right 99 times in 100.
    y = np.zeros(cfg.samples, dtype=int)
    y[: cfg.samples // 100] = 1
    never = rates(y, np.zeros_like(y))
    text = "1 % positives: a model that always says no has an accuracy of {}"
    check("lazy", text, never["accuracy"], at_least=0.99, at_most=0.99)
    text = "its recall, precision and F1 sum to {}"
    total = never["recall"] + never["precision"] + never["f1"]
    check("recall", text, total, at_least=0, at_most=0)
    nobody = rates(np.array([0, 0]), np.array([1, 0]))
    check_close("nobody", "without any positive, recall is 0 too", nobody["recall"], 0.0)


def running_counts(y: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(found, false alarms) for every threshold, from the highest score down to the lowest.

    y, score: (N,). One entry for each different score: all samples that have it are called
    positive together, for no threshold lies between them.
    """
    # practice: One pass over the sorted scores
    order = np.argsort(-score)
    y = y[order]
    score = score[order]
    found = np.cumsum(y)
    false_alarms = np.cumsum(1 - y)

    last_of_its_score = np.append(score[1:] != score[:-1], True)
    return found[last_of_its_score], false_alarms[last_of_its_score]
    # end practice


def roc(y: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ROC curve from (0, 0) to (1, 1): share of negatives called, share of positives found."""
    found, false_alarms = running_counts(y, score)
    false_rate = np.append(0, false_alarms / false_alarms[-1])
    recall = np.append(0, found / found[-1])
    return false_rate, recall


def auc(y: np.ndarray, score: np.ndarray) -> float:
    """The area under the ROC curve, by trapezoids."""
    # practice: The area under a curve
    false_rate, recall = roc(y, score)
    widths = np.diff(false_rate)
    heights = (recall[1:] + recall[:-1]) / 2
    return (widths * heights).sum()
    # end practice


def show_threshold(cfg: Config) -> tuple[np.ndarray, np.ndarray]:
    print("\n[2] Breast cancer: where to put the threshold, and what does not depend on it?")
    data = load_breast_cancer()
    current().use_data("breast cancer", "from the package scikit-learn")
    x = data.data
    y = (data.target == 0).astype(int)  # 1: malignant
    model = make_pipeline(StandardScaler(), LogisticRegression())
    # Five folds: everybody's probability comes from a model that has not seen them.
    score = cross_val_predict(model, x, y, cv=5, method="predict_proba")[:, 1]

    print("  threshold   precision   recall   accuracy")
    for threshold in (0.9, 0.5, 0.1):
        row = rates(y, (score >= threshold).astype(int))
        shown = [row["precision"], row["recall"], row["accuracy"]]
        print(f"  {threshold:<9}" + "".join(f"{value:10.3f}" for value in shown))

    # Rounded scores: many samples share one, and no threshold can part them.
    rounded = score.round(2)
    wanted = metrics.roc_auc_score(y, rounded)
    text = "the area under the ROC curve is scikit-learn's"
    check_close("auc", text, auc(y, rounded), wanted, rtol=1e-9)
    positive = rounded[y == 1][:, None]
    negative = rounded[y == 0]
    pairs = (positive > negative).mean() + (positive == negative).mean() / 2
    text = "it is how often a positive outranks a negative, a tie counting half"
    check_close("pairs", text, auc(y, rounded), pairs)
    return y, score


def average_precision(y: np.ndarray, score: np.ndarray) -> float:
    """The area under the precision-recall curve, in steps: precision times the recall it adds."""
    # practice: Precision, weighted by the recall it adds
    found, false_alarms = running_counts(y, score)
    precision = found / (found + false_alarms)
    recall = found / found[-1]
    gained = np.diff(recall, prepend=0)
    return (gained * precision).sum()
    # end practice


def show_rare(cfg: Config) -> tuple[dict, float]:
    print("\n[3] 1 % positives: many negatives hide in a small share")
    rng = cfg.rng()
    y = np.zeros(cfg.samples, dtype=int)
    y[: cfg.samples // 100] = 1
    noise = rng.normal(size=cfg.samples)
    # even: every positive a little higher. sharp: half of them far above, half like negatives.
    even = noise + 1.8 * y
    lucky = y * (rng.random(cfg.samples) < 0.5)
    sharp = rng.normal(size=cfg.samples) + 5 * lucky
    scores = {"even": even, "sharp": sharp}
    for name, score in scores.items():
        areas = f"AUC {auc(y, score):.3f}   average precision {average_precision(y, score):.3f}"
        print(f"  {name:<7}{areas}")

    ties = even.round(1)
    wanted = metrics.average_precision_score(y, ties)
    text = "average precision is scikit-learn's"
    check_close("precision", text, average_precision(y, ties), wanted, rtol=1e-9)
    text = "no, yes: AUC 0; yes, no, yes: average precision (1 + 2/3) / 2"
    area = auc(np.array([0, 1]), np.array([2, 1]))
    precision = average_precision(np.array([1, 0, 1]), np.array([3, 2, 1]))
    check_close("short", text, [area, precision], [0, 5 / 6])
    gap = auc(y, even) - auc(y, sharp)
    check("by-auc", "by AUC the even model is ahead by {}", gap, at_least=0.08)
    gap = average_precision(y, sharp) - average_precision(y, even)
    check("by-ap", "by average precision the sharp one is ahead by {}", gap, at_least=0.15)

    # Every tenth negative only: as if positives were ten times as frequent.
    kept = (y == 1) | (np.arange(cfg.samples) % 10 == 0)
    moved = auc(y[kept], even[kept]) - auc(y, even)
    print(f"  with a tenth of the negatives the AUC of “even” moves by {moved:.4f}")
    gain = average_precision(y[kept], even[kept]) - average_precision(y, even)
    check("diluted", "but its average precision grows by {}", gain, at_least=0.25)

    found, false_alarms = running_counts(y, even)
    half = np.searchsorted(found, found[-1] / 2)
    rare_precision = float(found[half] / (found[half] + false_alarms[half]))
    print(
        f"  “even” at a recall of one half: a share of {rare_precision:.3f} of its alarms is right"
    )
    return scores | {"y": y}, rare_precision


def reliability(
    y: np.ndarray, probability: np.ndarray, bins: int = 10
) -> tuple[np.ndarray, np.ndarray, float]:
    """Predicted probabilities, observed frequencies, and the expected calibration error.

    The bins are equally wide, from 0 to 1; empty ones are left out. For each the mean probability
    and the share of positives; then the mean of their absolute differences over all samples.
    """
    # practice: Predicted and observed
    number = np.minimum((probability * bins).astype(int), bins - 1)
    count = np.bincount(number)
    used = count > 0
    predicted = np.bincount(number, weights=probability)[used] / count[used]
    observed = np.bincount(number, weights=y)[used] / count[used]
    error = (count[used] * np.abs(predicted - observed)).sum() / len(y)
    return predicted, observed, error
    # end practice


def show_calibration(cfg: Config) -> dict[str, tuple]:
    print("\n[4] Calibration: of all samples with a probability of p, is a share of p positive?")
    rng = cfg.rng()
    logits = rng.normal(scale=1.5, size=cfg.samples)
    honest = 1 / (1 + np.exp(-logits))
    y = (rng.random(cfg.samples) < honest).astype(int)
    overconfident = 1 / (1 + np.exp(-3 * logits))

    few = np.array([0.05, 0.25, 0.25, 0.94, 1])
    predicted, observed, error = reliability(np.array([0, 1, 1, 1, 1]), few)
    found = [*predicted, *observed, error]
    text = "0.05 for a negative; 0.25, 0.25, 0.94, 1 for positives: the error is 1.61 / 5"
    check_close("binned", text, found, [0.05, 0.25, 0.97, 0, 1, 1, 1.61 / 5])
    predicted, observed, error = reliability(y, honest)
    theirs_observed, theirs_predicted = calibration_curve(y, honest, n_bins=10)
    wanted = np.stack([theirs_predicted, theirs_observed])
    check_close(
        "bins", "the bins are scikit-learn's", np.stack([predicted, observed]), wanted, rtol=1e-9
    )
    text = "labels drawn with the probabilities themselves: the calibration error is {}"
    check("honest", text, error, below=0.015)
    curves = {"honest": (predicted, observed), "logits times 3": reliability(y, overconfident)[:2]}
    text = "logits times three: it is {}"
    check("overconfident", text, reliability(y, overconfident)[2], at_least=0.1)
    text = "and the AUC does not notice: the order is the same"
    check_close("blind", text, auc(y, 3 * logits), auc(y, logits))
    return curves


def regression_scores(y: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """mae and rmse in the unit of y; r2 compares with naming the mean of y. y, predicted: (N,)"""
    # practice: Three measures of a number
    error = predicted - y
    mae = np.abs(error).mean()
    mse = (error**2).mean()
    r2 = 1 - mse / y.var()
    # end practice
    return {"mae": mae, "rmse": np.sqrt(mse), "r2": r2}


def show_regression(cfg: Config) -> dict[str, float]:
    print("\n[5] Diabetes: a number is predicted, the disease a year later (25 to 346)")
    x, y = load_diabetes(return_X_y=True)
    current().use_data("diabetes", "from the package scikit-learn")
    order = cfg.rng().permutation(len(y))
    train, test = order[:300], order[300:]
    predicted = LinearRegression().fit(x[train], y[train]).predict(x[test])
    current().read_test(y[test])
    y_test = y[test]
    found = regression_scores(y_test, predicted)
    scores = [metrics.mean_absolute_error, metrics.root_mean_squared_error, metrics.r2_score]
    wanted = [score(y_test, predicted) for score in scores]
    check_close("errors", "all three are scikit-learn's", list(found.values()), wanted, rtol=1e-9)
    print("  linear model: " + "   ".join(f"{name} {value:.3g}" for name, value in found.items()))
    naive = regression_scores(y_test, np.full(len(y_test), y[train].mean()))
    ratio = found["rmse"] / naive["rmse"]
    expect("better", "its RMSE is {} of that of the training mean", ratio, at_most=0.85)

    # One row with a wrong unit.
    spoilt = predicted.copy()
    spoilt[0] = y_test[0] + 2000
    worse = regression_scores(y_test, spoilt)
    ratio = (worse["rmse"] / found["rmse"]) / (worse["mae"] / found["mae"])
    text = "one error of 2,000 raises the RMSE {} times as much as the MAE"
    check("outlier", text, ratio, at_least=1.5)
    return found


# Pictures and helpers: skip on a first reading


def draw_curves(cfg: Config, rare: dict, curves: dict) -> None:
    """The two models as ROC and as precision by recall; predicted and observed probabilities."""
    figure, (left, middle, right) = new_figure(1, 3, size=(15, 4.6))
    y = rare["y"]
    for name, colour in (("even", BLUE), ("sharp", ORANGE)):
        area = auc(y, rare[name])
        left.plot(*roc(y, rare[name]), color=colour, label=f"{name}: area {area:.2f}")
        found, false_alarms = running_counts(y, rare[name])
        area = average_precision(y, rare[name])
        few = found >= 10
        precision = (found / (found + false_alarms))[few]
        recall = found[few] / found[-1]
        middle.plot(recall, precision, color=colour, label=f"{name}: area {area:.2f}")
    left.plot([0, 1], [0, 1], "--", color=GREY)
    left.set(xlabel="share of negatives called", ylabel="recall", title="ROC: “even” is ahead")
    middle.axhline(0.01, color=GREY, linestyle="--")
    middle.set(xlabel="recall", ylabel="precision", title="Precision: “sharp” is ahead")

    for (name, (predicted, observed)), colour in zip(curves.items(), (BLUE, ORANGE)):
        right.plot(predicted, observed, "o-", color=colour, label=name)
    right.plot([0, 1], [0, 1], "--", color=GREY)
    right.set(xlabel="predicted probability", ylabel="share that is positive")
    right.set_title("Same order, other calibration")
    for axis, place in ((left, "lower right"), (middle, "upper right"), (right, "upper left")):
        axis.legend(loc=place)
    save_figure(figure, cfg.out / "curves")


def run(cfg: Config) -> dict:
    show_counts(cfg)
    y, score = show_threshold(cfg)
    rare, rare_precision = show_rare(cfg)
    curves = show_calibration(cfg)
    found = show_regression(cfg)
    draw_curves(cfg, rare, curves)
    areas = {f"auc_{name}": auc(rare["y"], rare[name]) for name in ("even", "sharp")}
    areas |= {f"ap_{name}": average_precision(rare["y"], rare[name]) for name in ("even", "sharp")}
    return {"rare_precision": rare_precision, "cancer_auc": auc(y, score)} | areas | found


if __name__ == "__main__":
    main(run, Config, __doc__)
