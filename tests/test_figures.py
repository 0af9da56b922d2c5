"""Figures are written whole, without a screen, and show what they are given."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from common import record
from common.figures import (
    COLOURS,
    new_figure,
    plot_confusion,
    plot_curves,
    plot_images,
    pyplot,
    save_figure,
)
from common.lessons import ROOT


def texts(axis) -> list[str]:
    return [text.get_text().strip() for text in axis.texts]


def test_saving_writes_a_png_closes_the_figure_and_names_it(tmp_path, capsys):
    import matplotlib.pyplot as plt

    plt.close("all")  # what tests before this one left open
    log = record.start(tiny=False)
    figure, axis = new_figure()
    axis.plot([1, 2])
    path = save_figure(figure, tmp_path / "new" / "loss")
    assert (
        path == tmp_path / "new" / "loss.png"
        and Image.open(path).size == (960, 630)
        and not plt.get_fignums()
    )
    assert log.figures == ["loss.png"] and f"figure: {path}" in capsys.readouterr().out
    record.start(tiny=True)
    assert Image.open(save_figure(new_figure()[0], tmp_path / "small.png")).size == (256, 168)


def test_a_dot_in_a_name_is_no_ending(tmp_path):
    names = [
        save_figure(new_figure()[0], tmp_path / name).name
        for name in ("lr-0.1", "lr-0.01", "x.png")
    ]
    assert names == ["lr-0.1.png", "lr-0.01.png", "x.png"]


def test_importing_figures_does_not_import_pyplot():
    code = "import sys, common.figures; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize(
    "curves",
    [
        {"a": [3, 2, 1], "b": [1.0]},
        {"one": [5]},
        {"same": [1, 1], "as this": [1, 1]},
        {"none": []},
        {"diverged": [1, 10, np.inf, np.nan], "fine": [3, 2, 1, 0.5]},
        {"all bad": [np.nan, np.nan]},
    ],
)
@pytest.mark.parametrize("log", [False, True])
def test_curves_are_labelled_at_their_last_value(tmp_path, recwarn, curves, log):
    figure, axis = new_figure()
    plot_curves(axis, curves, log=log)
    shown = {name for name, values in curves.items() if np.isfinite(values).any()}
    assert set(texts(axis)) == shown and len(axis.lines) == len(curves)
    for text in axis.texts:
        values = np.asarray(curves[text.get_text().strip()], dtype=float)
        assert text.xy[1] == values[np.isfinite(values)][-1]
    save_figure(figure, tmp_path / "curves")
    assert not recwarn.list


def test_labels_of_curves_that_end_together_do_not_overlap(tmp_path):
    figure, axis = new_figure()
    plot_curves(axis, {name: [0, 1] for name in "abc"})
    figure.draw_without_rendering()
    boxes = sorted((text.get_window_extent() for text in axis.texts), key=lambda box: box.y0)
    assert all(low.y1 <= high.y0 for low, high in itertools.pairwise(boxes))


def test_grey_pictures_share_one_scale_and_spare_axes_stay_empty():
    _, axes = new_figure(2, 2)
    plot_images(
        axes,
        [np.full((4, 4), 10), np.full((4, 4), 200), np.zeros((4, 4, 3), np.uint8)],
        ["dark", "bright"],
    )
    first, second, colour, spare = np.ravel(axes)
    assert first.images[0].get_clim() == second.images[0].get_clim() == (10, 200)
    assert [a.get_title() for a in (first, second, colour)] == [
        "dark",
        "bright",
        "",
    ] and not spare.images
    plot_images(new_figure()[1], [])


def test_confusion_counts_and_colours_only_errors():
    _, axis = new_figure()
    plot_confusion(axis, [0, 0, 1, 1, 1], [0, 1, 1, 1, 0], ["cat", "dog"])
    assert {tuple(map(round, text.get_position())): text.get_text() for text in axis.texts} == {
        (0, 0): "1",
        (1, 0): "1",
        (0, 1): "1",
        (1, 1): "2",
    }
    assert axis.images[0].get_array().tolist() == [[0, 1], [1, 0]]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("predicted", "true")
    plot_confusion(new_figure()[1], [0, 1], [0, 1], ["cat", "dog"])  # no error at all


def test_neighbouring_colours_differ_for_any_kind_of_colour_vision():
    """Machado's matrices for full protan-, deuter- and tritanopia; distance in CIE Lab."""
    matrices = [
        np.eye(3),
        [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
        [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
        [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
    ]
    srgb = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in COLOURS[:5]])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    ) / [[0.9505], [1], [1.089]]
    for matrix in matrices:
        f = np.cbrt(np.clip(linear @ np.transpose(matrix), 0, 1) @ to_xyz.T)
        lab = np.stack(
            [116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1
        )
        assert np.linalg.norm(lab[1:] - lab[:-1], axis=1).min() > 20


# ------------------------------------------------------------------------- other people's machines

DRAW = """
import sys
from common.figures import new_figure, plot_images, pyplot, save_figure
import numpy as np

# a lesson that takes from matplotlib before it draws
from matplotlib.patches import Rectangle
figure, (curve, picture) = new_figure(1, 2)
curve.plot([0, 1, 2], [1, 3, 2], label=r"$x_1$ and 100 %")
curve.legend()
picture.imshow(np.arange(12).reshape(3, 4))
save_figure(figure, sys.argv[1])

from matplotlib.figure import Figure
bare = Figure()
bare.add_subplot().imshow(np.arange(12).reshape(3, 4))
bare.savefig(sys.argv[2])
print(pyplot().get_backend(), pyplot().rcParams["date.epoch"])
"""

THEIRS = """
text.usetex: True
savefig.bbox: tight
savefig.transparent: True
image.origin: lower
image.cmap: jet
font.size: 30
axes.prop_cycle: cycler(color=['k'])
date.epoch: 2000-01-01
figure.max_open_warning: 1
lines.linestyle: --
"""


def draw(folder, **environment: str) -> tuple[bytes, bytes, str]:
    """Two figures from a process of its own, with this environment and the folder as its own."""
    folder.mkdir()
    pictures = folder / "one.png", folder / "two.png"
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{DRAW}"
    # started in the folder, for a matplotlibrc there is read as well
    (folder / "matplotlibrc").write_text(environment.pop("rc", ""))
    answer = subprocess.run(
        [sys.executable, "-c", program, *map(str, pictures)],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0 and not answer.stderr, answer.stderr
    return *(picture.read_bytes() for picture in pictures), answer.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def usual(tmp_path_factory) -> tuple[bytes, bytes, str]:
    return draw(tmp_path_factory.mktemp("usual") / "here")


@pytest.mark.full
@pytest.mark.parametrize(
    "backend",
    ["module://matplotlib_inline.backend_inline", "module://nowhere", "nonsense", "qtagg"],
)
def test_a_notebooks_backend_changes_nothing(tmp_path, usual, backend):
    assert draw(tmp_path / "x", MPLBACKEND=backend) == usual


def test_a_users_settings_change_nothing(tmp_path, usual):
    assert usual[2] == "agg 1970-01-01T00:00:00"
    assert draw(tmp_path / "x", rc=THEIRS) == usual


def test_what_a_lesson_sets_afterwards_stays():
    plt = pyplot()
    before = plt.rcParams["font.family"]
    plt.rcParams["font.family"] = ["monospace"]
    new_figure()
    assert pyplot() is plt and plt.rcParams["font.family"] == ["monospace"]
    plt.rcParams["font.family"] = before
    plt.close("all")
