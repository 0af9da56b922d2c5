"""Lesson 1.2: what its functions promise beyond what the lesson itself claims."""

import numpy as np
import pytest
import scipy

from common.lessons import load_lesson

operations = load_lesson("phase01_data_science/02-numpy-operations")


def test_a_stretched_array_cannot_be_written_to() -> None:
    """One write would change a whole column."""
    stretched = operations.stretch(np.arange(3.0), (4, 3))
    with pytest.raises(ValueError, match="read-only"):
        stretched[0, 0] = 1


def test_softmax_runs_along_the_last_axis() -> None:
    scores = np.random.default_rng(0).normal(size=(2, 3, 4))
    assert np.allclose(operations.softmax(scores), scipy.special.softmax(scores, axis=2))


@pytest.mark.parametrize("a, b", [((2, 3), (2,)), ((0,), (2,)), ((1, 2, 3), (3, 3))])
def test_shapes_that_do_not_fit_are_named(a: tuple, b: tuple) -> None:
    with pytest.raises(ValueError) as caught:
        operations.broadcast_shape(a, b)
    assert f"{a} and {b} do not fit" in str(caught.value)


@pytest.mark.parametrize("shape", [(5,), (2, 5), (3, 2)])
def test_what_does_not_stretch_is_refused(shape: tuple) -> None:
    with pytest.raises(ValueError, match=r"do not fit|does not stretch"):
        operations.stretch(np.arange(3.0), shape)


def test_a_length_that_would_shrink_is_refused() -> None:
    with pytest.raises(ValueError, match="does not stretch"):
        operations.stretch(np.ones((2, 3)), (1, 3))
    with pytest.raises(ValueError, match="does not stretch"):
        operations.stretch(np.ones((2, 3)), (3,))


def test_einsum_sums_and_turns_a_single_array() -> None:
    a = np.random.default_rng(0).normal(size=(3, 4))
    assert np.allclose(operations.einsum("ij->ji", a), a.T)
    assert np.allclose(operations.einsum("ij->i", a), a.sum(axis=1))
    assert np.isclose(operations.einsum("ij->", a), a.sum())


def test_moving_the_origin_does_not_help_points_that_nearly_coincide() -> None:
    """As the note says; and one far point moves the origin away from all the others."""
    points = np.random.default_rng(0).normal(size=(40, 3))
    assert operations.relative_error(operations.distances, points, points + 1e-9) > 1

    far = np.concatenate([points, [[1e9, 0, 0]]])
    near = np.array(operations.loop_distances(points, points + 0.5))
    ours = operations.distances(points, np.concatenate([points + 0.5, far[-1:]]))[:, :-1]
    assert abs(ours / near - 1).max() > 0.1


def test_distances_leave_the_points_alone() -> None:
    x = np.random.default_rng(0).normal(size=(4, 3))
    x.flags.writeable = False
    assert operations.distances(x, x[:2]).shape == (4, 2)
