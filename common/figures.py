"""The look of every figure in the course, and the standard pictures. pyplot is imported inside: it costs half a second.

Colours are Okabe and Ito's, which people with any kind of colour vision can tell apart; sizes are for a projector.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from common.files import atomic_path
from common.lessons import ROOT
from common.record import current

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW, GREY = COLOURS = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#F0E442",
    "#7F7F7F",
)

STYLE: dict[str, Any] = {
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


def new_figure(
    rows: int = 1, columns: int = 1, size: tuple[float, float] | None = None, **options: Any
):
    """plt.subplots in the house style: returns (figure, axes). No window is opened, so it works without a screen."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from cycler import cycler

    fitted = not current().tiny  # fitting the layout draws everything twice more
    plt.rcParams.update(
        STYLE | {"axes.prop_cycle": cycler(color=COLOURS), "figure.constrained_layout.use": fitted}
    )
    return plt.subplots(rows, columns, figsize=size or (6.4 * columns, 4.2 * rows), **options)


def save_figure(figure: "Figure", path: Path | str) -> Path:
    """Write it as a PNG, close it and say where it is. A tiny run draws it small and without fitting the layout."""
    import matplotlib.pyplot as plt

    path = (
        Path(path) if str(path).endswith(".png") else Path(f"{path}.png")
    )  # "lr-0.1" is no name with an ending
    with atomic_path(path) as temporary:
        render(figure, temporary)
    plt.close(figure)
    current().figures.append(path.name)
    print(f"  figure: {path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}")
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
    for (name, values), colour in zip(curves.items(), COLOURS * 3):
        steps = np.arange(start, start + len(values))
        axis.plot(
            steps, values, color=colour, marker="o" if len(values) < 20 else None, markersize=4
        )
    axis.set(xlabel=xlabel, ylabel=ylabel, yscale="log" if log else "linear")
    axis.yaxis.set_minor_formatter("")  # a log axis labels its powers of ten, which is enough
    axis.set_xlim(
        right=start + max((max(map(len, curves.values())) - 1) * 1.3, 1)
    )  # room for the labels
    axis.xaxis.get_major_locator().set_params(integer=True)
    floor = -np.inf
    ends = [
        (
            xy[np.isfinite(xy).all(axis=1)],
            line.get_color(),
            name,
        )  # a diverged curve ends before it does
        for line, name in zip(axis.lines[-len(curves) :], curves)
        if len(xy := line.get_xydata())
    ]
    for end, colour, name in sorted(
        ((xy[-1], *rest) for xy, *rest in ends if len(xy)), key=lambda e: e[0][1]
    ):
        height = axis.transData.transform(end)[1] * 72 / axis.figure.dpi  # in points
        floor = max(height, floor + 14)  # labels never overlap
        axis.annotate(
            f" {name}",
            end,
            xytext=(0, floor - height),
            textcoords="offset points",
            va="center",
            color=colour,
            fontweight="bold",
        )


def plot_images(axes, images: Sequence[np.ndarray], titles: Sequence[str] = ()) -> None:
    """Pictures into a grid of axes, without ticks; grey ones with the same scale for all."""
    grey = [image for image in images if np.ndim(image) == 2]
    scale = (
        {"cmap": "gray_r", "vmin": min(map(np.min, grey)), "vmax": max(map(np.max, grey))}
        if grey
        else {}
    )
    for number, axis in enumerate(np.ravel(axes)):
        axis.axis("off")
        if number < len(images):
            axis.imshow(images[number], **scale)  # a colour picture ignores them
            title = titles[number] if number < len(titles) else ""
            axis.set_title(title, fontsize=11, loc="center", fontweight="normal")


def plot_confusion(
    axis, true: Sequence[int], predicted: Sequence[int], classes: Sequence[str]
) -> None:
    """Rows: what it is; columns: what the model said. Colour shows only the errors, or the diagonal would hide them."""
    counts = np.zeros((len(classes), len(classes)), dtype=int)
    np.add.at(counts, (np.asarray(true), np.asarray(predicted)), 1)
    errors = counts * (1 - np.eye(len(classes), dtype=int))
    axis.imshow(errors, cmap="Oranges", vmin=0, vmax=max(errors.max(), 1))
    for i, j in zip(*np.nonzero(counts)):
        axis.text(
            j,
            i,
            counts[i, j],
            ha="center",
            va="center",
            fontsize=10,
            color=GREY if i == j else "white" if errors[i, j] > errors.max() / 2 else "black",
        )
    axis.set_xticks(range(len(classes)), classes, rotation=45 if max(map(len, classes)) > 2 else 0)
    axis.set_yticks(range(len(classes)), classes)
    axis.set(xlabel="predicted", ylabel="true")
    axis.grid(False)
