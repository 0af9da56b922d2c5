"""The look of every figure in the course, and the standard pictures.

Colours are Okabe and Ito's, which people with any kind of colour vision can tell apart; sizes are
for a projector. Figures are files: no window opens, whatever MPLBACKEND or a matplotlibrc says.
"""

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from common.files import atomic_path
from common.lessons import shown
from common.record import current

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# a notebook names a backend of its own, with which matplotlib may not even be imported
os.environ["MPLBACKEND"] = "agg"

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, YELLOW, GREY = "#CC79A7", "#56B4E9", "#F0E442", "#7F7F7F"
COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW, GREY)

STYLE: dict[str, Any] = {
    "axes.prop_cycle": f"cycler(color={list(COLOURS)})",
    "figure.dpi": 150,
    "savefig.dpi": 150,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.8,
    "lines.linewidth": 2.2,
    "legend.frameon": False,
    "image.cmap": "viridis",
    "image.interpolation": "nearest",
}


@functools.cache
def pyplot() -> ModuleType:
    """matplotlib.pyplot, drawing into files, in the course's style, whatever the user's is.

    Every lesson that uses matplotlib directly takes it from here. The import costs half a second.
    """
    import matplotlib
    import matplotlib.pyplot as plt

    matplotlib.use("agg")
    defaults = dict(matplotlib.rcParamsDefault)
    del defaults["backend"]
    # not by rcdefaults(), which leaves the user's date epoch and the limit of open figures
    dict.update(matplotlib.rcParams, defaults)
    plt.rcParams.update(STYLE)
    return plt


def new_figure(
    rows: int = 1, columns: int = 1, size: tuple[float, float] | None = None, **options: Any
):
    """plt.subplots in the house style: returns (figure, axes)."""
    plt = pyplot()
    # fitting the layout draws everything twice more
    fitted = not current().tiny
    plt.rcParams.update(STYLE | {"figure.constrained_layout.use": fitted})
    return plt.subplots(rows, columns, figsize=size or (6.4 * columns, 4.2 * rows), **options)


def save_figure(figure: "Figure", path: Path | str) -> Path:
    """Write it as a PNG, close it and say where it is. A tiny run draws it small."""
    # "lr-0.1" is no name with an ending
    path = Path(path) if str(path).endswith(".png") else Path(f"{path}.png")
    with atomic_path(path) as temporary:
        render(figure, temporary)
    pyplot().close(figure)
    current().figures.append(path.name)
    print(f"  figure: {shown(path)}")
    return path


def render(figure: "Figure", path: Path) -> None:
    figure.savefig(path, dpi=40 if current().tiny else None)


def plot_curves(
    axis,
    curves: Mapping[str, Sequence[float]],
    xlabel: str = "epoch",
    ylabel: str = "loss",
    start: int = 1,
    log: bool = False,
) -> None:
    """One line per name, labelled at its right end instead of in a legend."""
    longest = max(len(values) for values in curves.values())
    ends = []
    for (name, values), colour in zip(curves.items(), COLOURS * 3):
        steps = np.arange(start, start + len(values))
        marker = "o" if len(values) < 20 else None
        axis.plot(steps, values, color=colour, marker=marker, markersize=4)
        # the label of a diverged curve stands where it was last finite
        known = np.flatnonzero(np.isfinite(np.asarray(values, dtype=float)))
        if len(known):
            ends.append((steps[known[-1]], values[known[-1]], name, colour))

    axis.set(xlabel=xlabel, ylabel=ylabel, yscale="log" if log else "linear")
    # a log axis labels its powers of ten, which is enough
    axis.yaxis.set_minor_formatter("")
    axis.xaxis.get_major_locator().set_params(integer=True)
    # room for the labels
    axis.set_xlim(right=start + max((longest - 1) * 1.3, 1))

    floor = -np.inf
    for x, y, name, colour in sorted(ends, key=lambda end: end[1]):
        # in points; a label never stands lower than the one below it allows
        height = axis.transData.transform((x, y))[1] * 72 / axis.figure.dpi
        floor = max(height, floor + 14)
        offset = {"xytext": (0, floor - height), "textcoords": "offset points", "va": "center"}
        axis.annotate(f" {name}", (x, y), color=colour, fontweight="bold", **offset)


def plot_images(axes, images: Sequence[np.ndarray], titles: Sequence[str] = ()) -> None:
    """Pictures into a grid of axes, without ticks; grey ones with the same scale for all."""
    scale = {}
    grey = [image for image in images if np.ndim(image) == 2]
    if grey:
        lowest = min(image.min() for image in grey)
        highest = max(image.max() for image in grey)
        scale = {"cmap": "gray_r", "vmin": lowest, "vmax": highest}

    for number, axis in enumerate(np.ravel(axes)):
        axis.axis("off")
        if number < len(images):
            # a colour picture ignores the scale
            axis.imshow(images[number], **scale)
            title = titles[number] if number < len(titles) else ""
            axis.set_title(title, fontsize=11, loc="center", fontweight="normal")


def plot_confusion(
    axis, true: Sequence[int], predicted: Sequence[int], classes: Sequence[str]
) -> None:
    """Rows: what it is; columns: what the model said. Colour shows the errors only."""
    counts = np.zeros((len(classes), len(classes)), dtype=int)
    np.add.at(counts, (np.asarray(true), np.asarray(predicted)), 1)
    # coloured too, the diagonal would hide them
    errors = counts * (1 - np.eye(len(classes), dtype=int))
    axis.imshow(errors, cmap="Oranges", vmin=0, vmax=max(errors.max(), 1))

    for i, j in zip(*np.nonzero(counts)):
        colour = "white" if errors[i, j] > errors.max() / 2 else "black"
        if i == j:
            colour = GREY
        axis.text(j, i, counts[i, j], ha="center", va="center", fontsize=10, color=colour)

    rotation = 45 if max(len(name) for name in classes) > 2 else 0
    axis.set_xticks(range(len(classes)), classes, rotation=rotation)
    axis.set_yticks(range(len(classes)), classes)
    axis.set(xlabel="predicted", ylabel="true")
    axis.grid(False)
