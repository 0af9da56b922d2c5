"""Lesson 1.7: what its functions promise beyond what the lesson itself claims."""

import numpy as np
import pytest

from common.errors import LessonError
from common.lessons import load_lesson

visual = load_lesson("phase01_data_science/07-visualization-advanced")


@pytest.mark.parametrize("layout", ["a a b\na c b", "a b a", "a .\n. a", "a b\nb a"])
def test_what_is_no_rectangle_is_refused(layout: str) -> None:
    with pytest.raises(LessonError, match="no rectangle"):
        visual.spans(layout)


def test_lightness_takes_colours_of_any_shape() -> None:
    picture = np.random.default_rng(0).random((4, 5, 3))
    light = visual.lightness(picture)
    assert light.shape == (4, 5)
    assert light[2, 3] == pytest.approx(visual.lightness(picture[2, 3]))


def test_greys_grow_lighter_without_a_jump() -> None:
    greys = np.repeat(np.arange(256)[:, None] / 255, 3, axis=1)
    steps = np.diff(visual.lightness(greys))
    assert steps.min() > 0 and abs(np.diff(steps)).max() < 0.02
