"""Lesson 1.3: what its functions promise beyond what the lesson itself claims."""

import numpy as np
import pytest

from common.lessons import load_lesson

algebra = load_lesson("phase01_data_science/03-numpy-linear-algebra")
EPS = np.finfo(float).eps


@pytest.mark.parametrize("a", [[[1, 2], [2, 4]], [[0, 0], [0, 1]], [[0, 1], [0, 2]]])
def test_dependent_columns_are_refused(a: list) -> None:
    with pytest.raises(ValueError, match="has no pivot"):
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
