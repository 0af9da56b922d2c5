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
