"""Lesson 1.8: what its functions promise beyond what the lesson itself claims."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from common.errors import LessonError
from common.lessons import load_lesson

lesson = load_lesson("phase01_data_science/08-scikit-learn-basics")


@pytest.mark.parametrize("folds", [3, 5])
def test_every_fold_has_its_share_of_every_class(folds: int) -> None:
    y = np.repeat([0, 1, 2], [20, 33, 7])
    fold = lesson.deal_folds(y, folds, np.random.default_rng(0))
    counts = [np.bincount(fold[y == label], minlength=folds) for label in range(3)]
    assert np.ptp(counts, axis=1).max() <= 1
    assert np.ptp(np.sum(counts, axis=0)) <= 1


def test_folds_are_random() -> None:
    y = np.zeros(30, dtype=int)
    one, again, other = (lesson.deal_folds(y, 3, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert (one == again).all()
    assert (one != other).any()
    assert (one != np.arange(30) % 3).any()


class Spy:
    """Answers 7, and keeps what it was fitted with and asked."""

    # shared on purpose: held_out makes the models itself
    seen: list = []

    def fit(self, x: np.ndarray, y: np.ndarray) -> "Spy":
        self.seen.append((x, y))
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        return np.full(len(x), 7)


def test_neither_scaler_nor_model_sees_the_fold() -> None:
    x = np.array([[0.0], [2], [4], [1000]])
    fold = np.array([0, 0, 1, 1])
    Spy.seen = []
    answers = lesson.held_out(Spy, x, np.arange(4), fold)
    assert answers.tolist() == [7] * 4
    (first, y_first), (second, y_second) = Spy.seen
    assert np.allclose(first.ravel(), [-1, 1])
    assert np.allclose(second.ravel(), [-1, 1])
    assert (y_first.tolist(), y_second.tolist()) == ([2, 3], [0, 1])


def test_classes_need_not_be_numbers_from_0() -> None:
    x = np.array([[0.0], [1], [5], [6]])
    y = np.array(["cat", "cat", "dog", "dog"])
    assert lesson.Logistic().fit(x, y).predict(x).tolist() == y.tolist()


def test_axes_are_orthogonal_and_carry_their_variances() -> None:
    x = np.random.default_rng(0).normal(size=(50, 4)) * [5, 3, 2, 1]
    axes, variances = lesson.main_axes(x, 4)
    assert np.allclose(axes @ axes.T, np.eye(4))
    assert np.allclose((x @ axes.T).var(axis=0, ddof=1), variances)
    assert (np.diff(variances) < 0).all()


def test_a_centre_that_is_no_number_ends_with_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(x: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        return np.full_like(centres, np.nan), np.zeros(len(x), dtype=int), np.nan

    monkeypatch.setattr(lesson, "one_round", careless)
    with pytest.raises(LessonError, match="nan"):
        lesson.k_means(np.array([[0.0], [1]]), np.array([[0.0], [9]]))


def test_a_gradient_that_never_falls_ends_with_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lesson, "loss_gradient", lambda x, wanted, weights, c: weights + 1)
    with pytest.raises(LessonError, match="is it right"):
        lesson.Logistic(tolerance=0).fit(np.array([[0.0], [1]]), np.array([0, 1]))


def test_label_0_is_a_label_and_minus_1_is_none() -> None:
    x = np.array([[0.0], [1], [10], [11]])
    shares = lesson.spread_labels(x, np.array([0, -1, 1, -1]))
    assert shares.argmax(axis=1).tolist() == [0, 0, 1, 1]
    facts = lesson.spread_labels(x, np.array([0, 0, 1, 0]))
    assert facts.argmax(axis=1).tolist() == [0, 0, 1, 0]


def test_the_default_strength_is_that_of_scikit_learn() -> None:
    x = np.random.default_rng(0).normal(size=(60, 3))
    y = np.digitize(x[:, 0] + x[:, 1] ** 2, [0.3, 1.0])
    ours = lesson.Logistic(tolerance=1e-8).fit(x, y).weights
    theirs = LogisticRegression(tol=1e-10, solver="newton-cholesky").fit(x, y)
    assert np.allclose(ours[:-1], theirs.coef_.T, atol=1e-6)


@pytest.mark.parametrize("inverse_strength", [0.002, 10_000.0])
def test_the_step_is_short_enough(inverse_strength: float) -> None:
    """The columns say almost nothing, so the loss is as curved as it can be."""
    x = np.tile([[1.0], [-1.0]], (50, 1))
    y = np.arange(100) // 50
    y[0] = 1
    weights = lesson.Logistic(inverse_strength).fit(x, y).weights
    wanted = (y[:, None] == [0, 1]).astype(float)
    rows = np.c_[x, np.ones(100)]
    gradient = lesson.loss_gradient(rows, wanted, weights, inverse_strength)
    assert abs(gradient).max() < 0.03
    assert 0 < abs(weights).max() < 0.1
