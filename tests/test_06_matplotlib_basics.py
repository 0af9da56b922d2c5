"""Lesson 1.6: what its functions promise beyond what the lesson itself claims."""

import numpy as np
import pytest
from PIL import Image

from common.figures import new_figure, pyplot
from common.lessons import load_lesson

basics = load_lesson("phase01_data_science/06-matplotlib-basics")


@pytest.mark.parametrize("dpi", [50, 99, 131])
def test_the_size_in_a_png_is_the_one_that_pillow_reads(tmp_path, dpi: int) -> None:
    figure = pyplot().figure(figsize=(3, 2), layout="none")
    figure.savefig(tmp_path / "a.png", dpi=dpi)
    pyplot().close(figure)
    width, height, said = basics.png_size((tmp_path / "a.png").read_bytes())
    assert (width, height) == Image.open(tmp_path / "a.png").size == (3 * dpi, 2 * dpi)
    assert said == pytest.approx(dpi, abs=0.02)


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
