"""Lesson 1.6: what its functions promise beyond what the lesson itself claims."""

import numpy as np
import pytest

from common.figures import new_figure, pyplot
from common.lessons import load_lesson

basics = load_lesson("phase01_data_science/06-matplotlib-basics")


@pytest.mark.parametrize("kind", basics.KINDS)
def test_no_sheet_is_empty(tmp_path, kind: str) -> None:
    cfg = basics.Config(out=tmp_path)
    path = basics.write_sheet(cfg, basics.load(cfg), kind, inches=4, dpi=40)
    picture = pyplot().imread(path)  # (height, width, 4), where 1 is white
    assert (picture.min(axis=2) < 0.9).mean() > 0.01


def test_bars_are_as_high_as_we_count() -> None:
    flowers = basics.load(basics.Config())
    figure, axis = new_figure()
    basics.plot_kind(axis, "histogram", flowers)
    heights = np.reshape([bar.get_height() for bar in axis.patches], (3, 12))
    edges = np.linspace(1, 7, 13)
    for rows, drawn in zip(flowers.values(), heights):
        assert basics.bin_counts(rows[:, 2], edges).tolist() == drawn.tolist()
    pyplot().close(figure)


def test_bars_begin_at_zero() -> None:
    figure, axis = new_figure()
    basics.plot_kind(axis, "bar", basics.load(basics.Config()))
    assert axis.get_ylim()[0] == 0
    pyplot().close(figure)
