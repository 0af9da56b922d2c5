"""Lesson 4.10: its metrics are scikit-learn's; empty denominators, equal scores, edges of bins."""

import numpy as np
import pytest
from sklearn import metrics
from sklearn.calibration import calibration_curve

from common.lessons import load_lesson

lesson = load_lesson("phase04_mlp/10-evaluation-metrics")


def labels_and_scores(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels, three in ten positive, and scores of which many are equal."""
    rng = np.random.default_rng(seed)
    y = (rng.random(1000) < 0.3).astype(int)
    return y, (rng.random(1000) * (0.6 + 0.4 * y)).round(2)


@pytest.mark.parametrize("seed", range(3))
def test_counts_are_those_of_scikit_learn(seed: int) -> None:
    y, score = labels_and_scores(seed)
    predicted = (score > 0.4).astype(int)
    wanted = {
        "accuracy": metrics.accuracy_score(y, predicted),
        "precision": metrics.precision_score(y, predicted),
        "recall": metrics.recall_score(y, predicted),
        "f1": metrics.f1_score(y, predicted),
    }
    assert lesson.rates(y, predicted) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("y, predicted", [([0, 0], [1, 0]), ([1, 0], [0, 0]), ([1, 0], [0, 1])])
def test_a_denominator_of_0_gives_0(y: list[int], predicted: list[int]) -> None:
    rates = lesson.rates(np.array(y), np.array(predicted))
    assert rates["precision"] == rates["recall"] == rates["f1"] == 0


@pytest.mark.parametrize("seed", range(3))
def test_areas_are_those_of_scikit_learn(seed: int) -> None:
    y, score = labels_and_scores(seed)
    ours = [lesson.auc(y, score), lesson.average_precision(y, score)]
    wanted = [metrics.roc_auc_score(y, score), metrics.average_precision_score(y, score)]
    assert ours == pytest.approx(wanted, rel=1e-9)


def test_the_points_of_the_curve_are_those_of_scikit_learn() -> None:
    y, score = labels_and_scores(0)
    fpr, recall, _ = metrics.roc_curve(y, score, drop_intermediate=False)
    np.testing.assert_allclose(lesson.roc(y, score), [fpr, recall])


@pytest.mark.parametrize("first", [0, 1])
def test_constant_scores_know_nothing(first: int) -> None:
    y = np.repeat([first, 1 - first], 50)
    assert lesson.auc(y, np.zeros(100)) == 0.5
    assert lesson.average_precision(y, np.zeros(100)) == 0.5


def test_one_pair_in_the_wrong_order() -> None:
    assert lesson.auc(np.array([0, 1]), np.array([2, 1])) == 0


@pytest.mark.parametrize("highest", [0.7, 1.0])  # with 0.7 bins stay empty
@pytest.mark.parametrize("bins", [4, 10])
def test_bins_are_those_of_scikit_learn(bins: int, highest: float) -> None:
    rng = np.random.default_rng(0)
    probability = rng.random(2000) * highest
    y = (rng.random(2000) < probability**2).astype(int)
    options = {} if bins == 10 else {"bins": bins}
    predicted, observed, error = lesson.reliability(y, probability, **options)
    wanted_observed, wanted_predicted = calibration_curve(y, probability, n_bins=bins)
    np.testing.assert_allclose(predicted, wanted_predicted)
    np.testing.assert_allclose(observed, wanted_observed)

    count = np.histogram(probability, bins, range=(0, 1))[0]
    weights = count[count > 0] / 2000
    assert error == pytest.approx((weights * abs(wanted_predicted - wanted_observed)).sum())


def test_probabilities_of_0_and_1_have_their_bins() -> None:
    predicted, observed, error = lesson.reliability(np.array([1, 0, 0]), np.array([0.0, 1, 1]))
    assert predicted.tolist() == [0, 1] and observed.tolist() == [1, 0] and error == 1


def test_a_number_is_measured_as_by_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(5, 2, size=100)
    predicted = 0.5 * y + rng.normal(size=100)
    wanted = {
        "mae": metrics.mean_absolute_error(y, predicted),
        "rmse": metrics.root_mean_squared_error(y, predicted),
        "r2": metrics.r2_score(y, predicted),
    }
    assert lesson.regression_scores(y, predicted) == pytest.approx(wanted, rel=1e-9)


def test_dividing_the_logits_by_three_mends_the_calibration() -> None:
    """The note: one number repairs what multiplying by three has done, and keeps the order."""
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=1.5, size=20_000)
    y = (rng.random(20_000) < 1 / (1 + np.exp(-logits))).astype(int)
    losses = {}
    for number in (0.5, 1, 2, 3, 4, 6):
        probability = 1 / (1 + np.exp(-3 * logits / number))
        losses[number] = metrics.log_loss(y, probability)
    assert min(losses, key=losses.get) == 3


def test_where_people_look_at_a_hundred_alarms_sharp_is_better() -> None:
    """The note: of the first hundred nearly all are right with sharp, and many fewer with even."""
    rare, _ = lesson.show_rare(lesson.Config())
    right = {}
    for name in ("even", "sharp"):
        first = np.argsort(-rare[name])[:100]
        right[name] = rare["y"][first].mean()
    assert right["sharp"] > 0.95 and right["even"] < 0.8

    late = {}
    for name in ("even", "sharp"):
        true_pos, false_pos = lesson.running_counts(rare["y"], rare[name])
        four_fifths = np.searchsorted(true_pos, 0.8 * true_pos[-1])
        late[name] = true_pos[four_fifths] / (true_pos + false_pos)[four_fifths]
    assert late["even"] > 1.5 * late["sharp"]
