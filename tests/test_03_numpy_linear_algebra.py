"""Lesson 1.3: what its functions promise beyond what the lesson itself claims."""

import numpy as np
import pytest

from common.lessons import load_lesson

algebra = load_lesson("phase01_data_science/03-numpy-linear-algebra")
EPS = np.finfo(float).eps


@pytest.mark.parametrize("a", [[[1, 2], [2, 4]], [[0, 0], [0, 1]], [[0, 1], [0, 2]]])
def test_dependent_columns_are_refused(a: list) -> None:
    with pytest.raises(ValueError, match=r"pivot of column . is 0"):
        algebra.solve(np.array(a), np.array([1, 2]))


def test_whole_numbers_are_solved_as_fractions_and_kept() -> None:
    a = np.array([[2, 1], [3, -4]])
    b = np.array([1, 2])
    assert np.allclose(algebra.solve(a, b), [6 / 11, -1 / 11])
    assert a.tolist() == [[2, 1], [3, -4]] and b.tolist() == [1, 2]


def test_r_is_triangular_to_the_last_bit() -> None:
    a = np.random.default_rng(0).normal(size=(5, 4))
    _, r = algebra.householder(a)
    assert r.shape == (4, 4) and np.array_equal(r, np.triu(r))


def test_factoring_leaves_the_matrix_alone() -> None:
    a = np.random.default_rng(0).normal(size=(5, 4))
    a.flags.writeable = False
    for factor in algebra.METHODS.values():
        q, r = factor(a)
        assert np.allclose(q @ r, a)


@pytest.mark.parametrize("shape", [(40, 2), (2, 40)])
def test_a_stretch_of_the_size_of_rounding_counts_as_none(shape: tuple) -> None:
    """The bound grows with the longer side, as NumPy's does."""
    a = np.zeros(shape)
    a[0, 0] = 1
    a[1, 1] = 20 * EPS
    assert len(algebra.trimmed_svd(a)[1]) == np.linalg.matrix_rank(a) == 1


def test_hilbert_matrix() -> None:
    assert np.allclose(algebra.hilbert(2), [[1, 1 / 2], [1 / 2, 1 / 3]])


def test_best_and_shortest_where_columns_depend_on_each_other() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(8, 6))
    a[:, 5] = a[:, 0] + a[:, 1]
    unseen = np.array([1, 1, 0, 0, 0, -1])  # a @ unseen is 0
    y = rng.normal(size=8)
    x = algebra.fit_svd(a, y)
    assert np.allclose(a.T @ (y - a @ x), 0)
    assert np.isclose(unseen @ x, 0)


def test_a_scaled_row_defeats_the_swap() -> None:
    """The exercise: divided by its largest entry, the row no longer looks like a good pivot."""
    a = np.array([[1, 1e20], [-1, 1]])
    b = np.array([1e20, 0])
    assert algebra.solve(a, b).tolist() == [0, 1]

    largest = abs(a).max(axis=1)
    assert algebra.solve(a / largest[:, None], b / largest).tolist() == [1, 1]


def test_factors_of_1_can_still_grow() -> None:
    """Wilkinson's matrix: the last column doubles in every step, and swapping finds nothing."""
    n = 60
    a = np.eye(n) - np.tril(np.ones((n, n)), -1)
    a[:, -1] = 1
    upper, _ = algebra.eliminate(a, np.ones(n), swap_rows=True)
    assert upper[-1, -1] == 2.0 ** (n - 1)
    assert np.linalg.cond(a) < 30
    x = np.random.default_rng(0).normal(size=n)
    assert abs(algebra.solve(a, a @ x) - x).max() > 0.1
