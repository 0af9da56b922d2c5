"""4.10 Evaluation metrics: when 99 % accuracy is worthless
评估指标：99% 准确率何时一文不值

You will be able to answer
    1. What do accuracy and recall count?    show_counts       by-hand, lazy
    2. What if no threshold is settled?      show_threshold    pairs
    3. Which model, where few are positive?  show_rare         steps, by-auc, half, unmoved, diluted
    4. Can a probability be believed?        show_calibration  binned, overconfident, blind
    5. How far off is a predicted number?    show_regression   errors, better, outlier
Predict   rare_precision: half of 1 % positives and 4 % of the rest flagged: what share is right?
Run       python phase04_mlp/10-evaluation-metrics.py                       about 3 s
Needs     -
Reference -
Notation  N samples  y labels, 1 or 0
"""

from dataclasses import dataclass

import numpy as np
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

    accuracy: the share that is right. precision: of the flagged, the share that is positive.
    recall: of the positives, the share that is flagged. f1: 2 · precision · recall, divided by
    the sum of the two. Where a denominator is 0, the value is 0.
    """
    # practice: Four measures from three counts
    true_pos = ((predicted == 1) & (y == 1)).sum()
    flagged = (predicted == 1).sum()
    positives = (y == 1).sum()

    precision = true_pos / flagged if flagged else 0.0
    recall = true_pos / positives if positives else 0.0
    f1 = 2 * precision * recall / (precision + recall) if true_pos else 0.0
    accuracy = (predicted == y).mean()
    # end practice
    return {"accuracy": accuracy, "precision": precision, "recall": recall, "f1": f1}


def show_counts(cfg: Config) -> None:
    print("\n[1] Accuracy counts all answers alike, precision and recall only some")
    y = np.array([1, 1, 1, 0, 0, 0, 0, 0])
    predicted = np.array([1, 1, 0, 1, 1, 0, 0, 0])
    text = "2 found, 1 missed, 2 false alarms: accuracy 5/8, precision 2/4, recall 2/3, F1 4/7"
    ours = list(rates(y, predicted).values())
    check_close("by-hand", text, ours, [5 / 8, 2 / 4, 2 / 3, 4 / 7])

    y = rare_labels(cfg)
    never = np.zeros_like(y)
    text = "1 % positives, and a model that always says no: accuracy 0.99, all others 0"
    check_close("lazy", text, list(rates(y, never).values()), [0.99, 0, 0, 0])


def running_counts(y: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(true positives, false positives) for every threshold, from the highest score down.

    y, score: (N,). One entry for each different score: all samples that have it are flagged
    together, for no threshold lies between them.
    """
    # practice: One pass over the sorted scores
    order = np.argsort(-score)
    y = y[order]
    score = score[order]
    true_pos = np.cumsum(y)
    false_pos = np.cumsum(1 - y)

    last_of_its_score = np.append(score[1:] != score[:-1], True)
    return true_pos[last_of_its_score], false_pos[last_of_its_score]
    # end practice


def roc(y: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ROC curve from (0, 0) to (1, 1): false positive rate and recall.

    The false positive rate (FPR) is the share of the negatives that is flagged.
    """
    true_pos, false_pos = running_counts(y, score)
    fpr = np.append(0, false_pos / false_pos[-1])
    recall = np.append(0, true_pos / true_pos[-1])
    return fpr, recall


def auc(y: np.ndarray, score: np.ndarray) -> float:
    """The area under the ROC curve, by trapezoids."""
    # practice: The area under a curve
    fpr, recall = roc(y, score)
    widths = np.diff(fpr)
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
    positive = rounded[y == 1][:, None]
    negative = rounded[y == 0]
    pairs = (positive > negative).mean() + (positive == negative).mean() / 2
    text = "the area under the ROC curve: how often a positive outranks a negative, ties half"
    check_close("pairs", text, auc(y, rounded), pairs)
    return y, score


def average_precision(y: np.ndarray, score: np.ndarray) -> float:
    """The area under the precision-recall curve, in steps: precision times the recall it adds."""
    # practice: Precision, weighted by the recall it adds
    true_pos, false_pos = running_counts(y, score)
    precision = true_pos / (true_pos + false_pos)
    recall = true_pos / true_pos[-1]
    gained = np.diff(recall, prepend=0)
    return (gained * precision).sum()
    # end practice


def show_rare(cfg: Config) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    print("\n[3] 1 % positives: a small share of very many negatives is many false alarms")
    ranked = average_precision(np.array([1, 0, 1]), np.array([3, 2, 1]))
    text = "ranked yes, no, yes: average precision 1/2 · 1 + 1/2 · 2/3 = 5/6"
    check_close("steps", text, ranked, 5 / 6)

    rng = cfg.rng()
    y = rare_labels(cfg)
    # even: every positive a little higher. sharp: three fifths of the positives far above all
    # others, the rest of them like negatives.
    even = rng.normal(size=cfg.samples) + 1.8 * y
    lucky = y * (rng.random(cfg.samples) < 0.6)
    sharp = rng.normal(size=cfg.samples) + 5 * lucky

    areas = {}
    halves = {}
    print("  model     AUC    average precision    precision at a recall of one half")
    for name, score in (("even", even), ("sharp", sharp)):
        areas[name] = auc(y, score)
        halves[name] = precision_at_half(y, score)
        print(f"  {name:<6}{areas[name]:8.3f}", end="")
        print(f"{average_precision(y, score):15.3f}{halves[name]:23.3f}")
    gap = areas["even"] - areas["sharp"]
    check("by-auc", "by AUC the even model is ahead by {}", gap, at_least=0.03)
    times = halves["sharp"] / halves["even"]
    text = "but where half is found, sharp has {} times the precision of even"
    check("half", text, times, at_least=4)

    # Every tenth negative only: as if positives were ten times as frequent.
    kept = (y == 1) | (np.arange(cfg.samples) % 10 == 0)
    moved = auc(y[kept], even[kept]) - areas["even"]
    text = "with a tenth of the negatives the AUC of even moves by {}"
    check("unmoved", text, moved, above=-0.015, below=0.015)
    gain = average_precision(y[kept], even[kept]) - average_precision(y, even)
    check("diluted", "but its average precision grows by {}", gain, at_least=0.25)
    measured = {"rare_precision": halves["even"], "sharp_precision": halves["sharp"]}
    return {"y": y, "even": even, "sharp": sharp}, measured | {"diluted": gain}


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


def show_calibration(cfg: Config) -> dict[str, tuple[np.ndarray, np.ndarray, float]]:
    print("\n[4] Calibration: of all samples with a probability of p, is a share of p positive?")
    rng = cfg.rng()
    logits = rng.normal(scale=1.5, size=cfg.samples)
    # The labels are drawn with these probabilities: nothing could be more honest.
    honest = 1 / (1 + np.exp(-logits))
    y = (rng.random(cfg.samples) < honest).astype(int)
    overconfident = 1 / (1 + np.exp(-3 * logits))

    few = np.array([0.25, 0.25, 0.85, 0.94, 1])
    text = "0.25 and 0.25, one positive; 0.85, 0.94 and 1, all positive: the error is 0.142"
    predicted, observed, error = reliability(np.array([0, 1, 1, 1, 1]), few)
    ours = [*predicted, *observed, error]
    check_close(
        "binned", text, ours, [0.25, 0.85, 0.97, 0.5, 1, 1, (2 * 0.25 + 0.15 + 2 * 0.03) / 5]
    )

    curves = {"honest": reliability(y, honest), "logits times 3": reliability(y, overconfident)}
    for name, (_, _, error) in curves.items():
        print(f"  {name:<15} calibration error {error:.3f}")
    times = curves["logits times 3"][2] / curves["honest"][2]
    text = "logits times three: the calibration error is {} times that of the true probabilities"
    check("overconfident", text, times, at_least=8)
    text = "and the AUC does not notice: the order is the same"
    check_close("blind", text, auc(y, overconfident), auc(y, honest))
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
    print("\n[5] Diabetes: a score of how far the disease has advanced after a year (25 to 346)")
    ours = list(regression_scores(np.array([1, 2, 6]), np.array([2, 2, 3])).values())
    text = "1, 2 and 6 predicted as 2, 2 and 3: MAE 4/3, RMSE √(10/3), R² 1 - 10/14"
    check_close("errors", text, ours, [4 / 3, (10 / 3) ** 0.5, 1 - 10 / 14])

    x, y = load_diabetes(return_X_y=True)
    current().use_data("diabetes", "from the package scikit-learn")
    order = cfg.rng().permutation(len(y))
    train = order[:300]
    test = order[300:]
    predicted = LinearRegression().fit(x[train], y[train]).predict(x[test])
    current().read_test(y[test])
    y_test = y[test]
    # One row with a wrong unit.
    spoilt = predicted.copy()
    spoilt[0] = y_test[0] + 2000

    rows = {
        "training mean": regression_scores(y_test, np.full(len(y_test), y[train].mean())),
        "linear model": regression_scores(y_test, predicted),
        "one row spoilt": regression_scores(y_test, spoilt),
    }
    print("                     MAE    RMSE      R²")
    for name, row in rows.items():
        print(f"  {name:<15}{row['mae']:7.1f}{row['rmse']:8.1f}{row['r2']:8.2f}")

    measured = rows["linear model"]
    ratio = measured["rmse"] / rows["training mean"]["rmse"]
    expect("better", "the model's RMSE is {} of that of the training mean", ratio, at_most=0.85)
    mae_times = rows["one row spoilt"]["mae"] / measured["mae"]
    rmse_times = rows["one row spoilt"]["rmse"] / measured["rmse"]
    text = f"one error of 2,000 makes the MAE {mae_times:.2f} times as large, the RMSE {{}} times"
    check("outlier", text, rmse_times, at_least=2)
    return {**measured, "mae_times": mae_times, "rmse_times": rmse_times}


# Pictures and helpers: skip on a first reading


def rare_labels(cfg: Config) -> np.ndarray:
    """(N,), of which the first hundredth is positive."""
    y = np.zeros(cfg.samples, dtype=int)
    y[: cfg.samples // 100] = 1
    return y


def precision_at_half(y: np.ndarray, score: np.ndarray) -> float:
    """The precision at the threshold that finds half of the positives."""
    true_pos, false_pos = running_counts(y, score)
    half = np.searchsorted(true_pos, true_pos[-1] / 2)
    return float(true_pos[half] / (true_pos[half] + false_pos[half]))


def draw_curves(cfg: Config, rare: dict, curves: dict) -> None:
    """Two models as ROC and as precision by recall; a reliability diagram."""
    figure, (left, middle, right) = new_figure(1, 3, size=(15, 4.6))
    y = rare["y"]
    for name, colour in (("even", BLUE), ("sharp", ORANGE)):
        fpr, recall = roc(y, rare[name])
        area = auc(y, rare[name])
        left.plot(fpr, recall, color=colour, label=f"{name}: area {area:.2f}")

        true_pos, false_pos = running_counts(y, rare[name])
        # Before ten are found the precision jumps about.
        precision = (true_pos / (true_pos + false_pos))[true_pos >= 10]
        recall = true_pos[true_pos >= 10] / true_pos[-1]
        area = average_precision(y, rare[name])
        middle.plot(recall, precision, color=colour, label=f"{name}: area {area:.2f}")
    left.plot([0, 1], [0, 1], ":", color=GREY)
    left.set(xlabel="false positive rate", ylabel="recall", title="ROC: “even” is ahead")
    middle.axhline(0.01, color=GREY, linestyle=":")
    middle.set(xlabel="recall", ylabel="precision", title="Precision: “sharp” is ahead")

    for (name, (predicted, observed, _)), colour in zip(curves.items(), (BLUE, ORANGE)):
        right.plot(predicted, observed, "o-", color=colour, label=name)
    right.plot([0, 1], [0, 1], ":", color=GREY)
    right.set(xlabel="predicted probability", ylabel="share that is positive")
    right.set_title("Reliability: same order, other calibration")
    for axis, place in ((left, "lower right"), (middle, (0.1, 0.7)), (right, "upper left")):
        axis.legend(loc=place)
    save_figure(figure, cfg.out / "curves")


def run(cfg: Config) -> dict[str, float]:
    show_counts(cfg)
    y, score = show_threshold(cfg)
    rare, measured = show_rare(cfg)
    curves = show_calibration(cfg)
    measured |= show_regression(cfg)
    draw_curves(cfg, rare, curves)

    for name in ("even", "sharp"):
        measured[f"auc_{name}"] = auc(rare["y"], rare[name])
        measured[f"ap_{name}"] = average_precision(rare["y"], rare[name])
    measured["ece_honest"] = curves["honest"][2]
    measured["ece_overconfident"] = curves["logits times 3"][2]
    return measured | {"cancer_auc": auc(y, score)}


if __name__ == "__main__":
    main(run, Config, __doc__)
