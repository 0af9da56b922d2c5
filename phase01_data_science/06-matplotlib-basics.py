"""1.6 Matplotlib basics: figure, axes, and the right plot
Matplotlib 基础：画布、坐标轴与选对图形

You will be able to answer
    1. What is a figure made of, and what are its parts called?    show_anatomy   parts
    2. At which pixel does a number land?                          show_places    places, log-places
    3. Which plot answers which question?                          show_kinds     bars, histogram
    4. How many pixels do you get, and how large is the text?      show_saving    size, dpi, opens, damaged, text
Run       python phase01_data_science/06-matplotlib-basics.py              about 6 s
Needs     -
Reference np.histogram
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from common.checks import check, check_close
from common.config import LessonConfig, main, param
from common.data.tables import load_iris
from common.errors import LessonError
from common.figures import BLUE, COLOURS, GREEN, GREY, new_figure, save_figure

MEASURES = (
    "sepal length",
    "sepal width",
    "petal length",
    "petal width",
)  # the columns, in centimetres
KINDS = {  # kind of plot: the question that it answers, the names of its axes
    "line": ("how does it go on, in order?", "petal length, cm", "share of the flowers up to here"),
    "scatter": ("do two numbers go together?", "petal length, cm", "petal width, cm"),
    "bar": ("how much is it, for each of a few?", "", "petal length, cm: mean and sd"),
    "histogram": ("which values occur, how often?", "petal length, cm", "flowers"),
    "boxplot": ("how do groups differ, who is odd?", "", "sepal width, cm"),
    "image": ("what pattern has a whole table?", "50 flowers of each species", ""),
}


@dataclass
class Config(LessonConfig):
    data: str = param("iris", "data set", choices=("iris",))
    dpi: int = param(100, "dots per inch of the files in step 4", tiny=30, low=20)


def to_pixels(
    points: np.ndarray, limits: np.ndarray, box: np.ndarray, log: bool = False
) -> np.ndarray:
    """points: (n, 2) of data -> (n, 2) pixels from the lower left corner of the figure.

    limits: [[left, right], [bottom, top]] of the axes, in data; box: their left, bottom, width and height in pixels.
    """
    # practice: from a number to a pixel
    # hint: first the share of the way along the axis: 0 where it begins, 1 where it ends; a log axis takes logs first
    # hint: low, high = limits.T, then that share of the box's width and height, counted from the box's corner
    low, high = limits.T  # (2,) each: one number for x, one for y
    if log:
        points, low, high = np.log10(points), np.log10(low), np.log10(high)
    share = (points - low) / (high - low)
    pixels = box[:2] + share * box[2:]
    # end practice
    return pixels


def bin_counts(x: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """(bins + 1,) edges -> (bins,): how many values lie in each bin. A bin holds its left edge, the last one both."""
    # practice: count what falls between two edges
    # hint: left <= x < right, or a value on an edge counts twice; only the last bin also takes its right edge
    # hint: a table of True and False, (bins, n), by broadcasting: left and right are columns, edges[:-1, None]
    left, right = edges[:-1, None], edges[1:, None]  # (bins, 1) against x: (n,)
    inside = (x >= left) & (x < right)
    inside[-1] |= x == edges[-1]
    # end practice
    return inside.sum(axis=1)


def chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, content) of each chunk, whose bytes are: 4 length, 4 kind, the content, 4 CRC-32 of kind and content.
    Raises LessonError where the file is no PNG, is cut short or altered."""
    # practice: walk through a binary file
    # hint: int.from_bytes(png[a:a + 4]) reads four bytes as a number, the highest first
    # hint: the first chunk begins after 8 bytes that all PNGs share, the next one 12 + length bytes later
    # hint: place = 8, then a loop while place < len(png)
    place = 8
    while place < len(png):
        end = place + 8 + int.from_bytes(png[place : place + 4])
        kind, content = png[place + 4 : place + 8], png[place + 8 : end]
        if zlib.crc32(kind + content) != int.from_bytes(png[end : end + 4]):
            raise LessonError(
                f"this is no PNG, or is damaged at byte {place}. Save the figure again."
            )
        yield kind, content
        place = end + 4
    # end practice


def png_size(png: bytes) -> tuple[int, int, float]:
    """Width and height in pixels, and dots per inch, as the file itself says."""
    content = dict(chunks(png))
    header, per_metre = content[b"IHDR"], int.from_bytes(content[b"pHYs"][:4])
    return int.from_bytes(header[:4]), int.from_bytes(header[4:8]), per_metre * 0.0254


def draw(axis, kind: str, flowers: dict[str, np.ndarray]) -> None:
    """One of KINDS into the axes. A species keeps its colour in every plot."""
    for place, (name, rows) in enumerate(flowers.items()):
        length, width, look = rows[:, 2], rows[:, 3], {"color": COLOURS[place], "label": name}
        if kind == "line":  # sorted values against their rank: no bins to choose
            axis.plot(np.sort(length), np.linspace(0.02, 1, 50), **look)
        elif kind == "scatter":
            axis.scatter(length, width, alpha=0.6, edgecolor="none", **look)
        elif kind == "bar":  # says how much, so it begins at 0
            axis.bar(name, length.mean(), yerr=length.std(), width=0.6, capsize=6, **look)
        elif kind == "histogram":  # the same bins for all, or heights mean nothing
            axis.hist(length, bins=12, range=(1, 7), alpha=0.65, **look)
        elif kind == "boxplot":
            axis.boxplot(
                rows[:, 1],
                positions=[place],
                widths=0.5,
                patch_artist=True,
                tick_labels=[name],
                boxprops={"facecolor": look["color"]},
                medianprops={"color": "white", "linewidth": 2},
            )
        else:  # every flower a column of four cells
            axis.imshow(
                rows.T,
                aspect="auto",
                extent=(50 * place, 50 * place + 50, 3.5, -0.5),
                vmin=0,
                vmax=8,
            )
    axis.set(title=f"{kind}: {KINDS[kind][0]}", xlabel=KINDS[kind][1], ylabel=KINDS[kind][2])
    if kind == "image":
        axis.set(
            xlim=(0, 150),
            yticks=range(4),
            yticklabels=MEASURES,
            xticks=[25, 75, 125],
            xticklabels=flowers,
        )
    if kind in ("line", "scatter", "histogram"):
        axis.legend(handlelength=1, borderpad=0)
    axis.grid(bool(axis.get_legend()))  # lines behind bars, boxes and images say nothing


def load(cfg: Config) -> dict[str, np.ndarray]:
    measures, species = load_iris()
    return {str(name): measures[species == name] for name in np.unique(species)}


def show_anatomy(cfg: Config, flowers: dict[str, np.ndarray]) -> None:
    print(
        "\n[1] A figure is a sheet, axes are the plots on it, and everything drawn is an object somewhere below"
    )
    from matplotlib.patches import Rectangle

    figure, axis = new_figure(size=(13.4, 7.6))
    figure.set_layout_engine("none")
    axis.set_position(
        (0.275, 0.18, 0.46, 0.62)
    )  # left, bottom, width, height, as shares of the figure
    sheet = figure.add_artist(
        Rectangle((0.19, 0.04), 0.575, 0.92, facecolor="#F4F4EE", edgecolor=GREY, zorder=-1)
    )
    draw(axis, "scatter", flowers)
    heading, title = figure.suptitle("Three irises", y=0.93, fontsize=20), axis.set_title("Petals")
    (line,) = axis.plot([1, 6.8], [0.06, 2.5], color=GREY, zorder=0)
    note = axis.annotate("widest petal", (6.1, 2.5), (4, 2.62), arrowprops={"arrowstyle": "->"})
    axis.set(xlim=(0.5, 7.5), ylim=(-0.1, 2.9))
    axis.minorticks_on()
    legend, x, y = axis.legend(loc="lower right"), axis.xaxis, axis.yaxis
    figure.draw_without_rendering()  # only now has everything a place
    names = (  # side and height; name; how it is made; the object; where on it: shares of its width and height
        (0, 0.93, "Figure title", "figure.suptitle", heading, (-0.03, 0.5)),
        (0, 0.79, "Axes title", "axis.set_title", title, (-0.1, 0.5)),
        (0, 0.65, "Tick label", "axis.set_yticks", y.get_major_ticks()[5].label1, (-0.1, 0.5)),
        (0, 0.50, "Axis label", "axis.set_ylabel", y.label, (-0.2, 0.5)),
        (0, 0.36, "Minor tick", "axis.minorticks_on", y.get_minor_ticks()[6].tick1line, (0, 0.5)),
        (0, 0.21, "Spine", "axis.spines", axis.spines["left"], (0.5, 0.12)),
        (0, 0.07, "Figure", "plt.subplots", sheet, (0, 0)),
        (1, 0.93, "Annotation", "axis.annotate", note, (0.2, 1.1)),
        (1, 0.79, "Axes", "figure.add_axes", axis.patch, (1, 0.93)),
        (1, 0.65, "Line", "axis.plot", line, (1, 1)),
        (1, 0.50, "Grid line", "axis.grid", y.get_gridlines()[3], (1, 0.5)),
        (1, 0.36, "Legend", "axis.legend", legend, (1, 0.5)),
        (1, 0.21, "Tick", "axis.set_xticks", x.get_major_ticks()[7].tick1line, (0.5, 0)),
        (1, 0.07, "Axis label", "axis.set_xlabel", x.label, (1.03, 0.5)),
    )
    for side, height, name, call, part, touch in names:
        box, colour = part.get_window_extent(), (BLUE, GREEN)[side]
        figure.text(
            (0.155, 0.8)[side],
            height,
            name,
            color=colour,
            fontweight="bold",
            ha=("right", "left")[side],
        )
        figure.text(
            (0.155, 0.8)[side],
            height - 0.03,
            call,
            color=GREY,
            family="monospace",
            ha=("right", "left")[side],
        )
        axis.annotate(
            "",
            figure.transFigure.inverted().transform(box.p0 + np.array(touch) * box.size),
            ((0.162, 0.793)[side], height + 0.005),
            "figure fraction",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-|>",
                "color": colour,
                "linewidth": 1.4,
                "shrinkA": 0,
                "shrinkB": 0,
            },
        )
    below = figure.findobj()
    check(
        "parts",
        f"{len(below)} objects in a tree below the figure, the {len(names)} named in the picture among them",
        all(any(part is artist for artist in below) for *_, part, _ in names),
    )
    save_figure(figure, cfg.out / "anatomy")


def show_places(cfg: Config, flowers: dict[str, np.ndarray]) -> None:
    print("\n[2] A number becomes a share of the axis, the share becomes a pixel")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 3), dpi=cfg.dpi, layout="none")  # inches x dots per inch = pixels
    axis = figure.add_axes((0.15, 0.2, 0.8, 0.7))  # left, bottom, width, height, as shares
    box = np.array([0.15, 0.2, 0.8, 0.7]) * [4, 3, 4, 3] * cfg.dpi
    petals = np.vstack(list(flowers.values()))[:, 2:]  # (150, 2)
    for id, scale in (("places", "linear"), ("log-places", "log")):
        axis.set(
            xscale=scale, yscale=scale, xlim=(0.5, 8), ylim=(3, 0.05)
        )  # y upside down, as in a picture
        limits = np.array([axis.get_xlim(), axis.get_ylim()])
        check_close(
            id,
            f"150 flowers on {scale} axes, y upside down: our pixels equal those of axis.transData",
            to_pixels(petals, limits, box, scale == "log"),
            axis.transData.transform(petals),
        )


def show_kinds(cfg: Config, flowers: dict[str, np.ndarray]) -> None:
    print("\n[3] First the question, then the plot")
    kinds = ["histogram"] if cfg.tiny else list(KINDS)  # axes cost more than all the rest
    figure, axes = new_figure(
        *((1, 1) if cfg.tiny else (2, 3)),
        size=(16.8, 9.8),
        squeeze=False,
        gridspec_kw={"wspace": 0.07, "hspace": 0.09},
    )
    for axis, kind in zip(axes.flat, kinds):
        draw(axis, kind, flowers)
    petals = [rows[:, 2] for rows in flowers.values()]
    bars = [bar.get_height() for bar in axes.flat[kinds.index("histogram")].patches]
    check_close(
        "bars",
        "the bars drawn are as high as we count",
        np.ravel([bin_counts(x, np.linspace(1, 7, 13)) for x in petals]),
        bars,
    )
    uneven = np.array([1, 1.5, 4, 4.7, 5.6, 6.1])  # flowers lie on every edge, and outside
    check_close(
        "histogram",
        "ours equals np.histogram, for bins of any width",
        [bin_counts(x, uneven) for x in petals],
        [np.histogram(x, uneven)[0] for x in petals],
    )
    save_figure(figure, cfg.out / "kinds")


def show_saving(cfg: Config, flowers: dict[str, np.ndarray]) -> dict:
    print(
        "\n[4] Inches times dots per inch are pixels; text is measured in points, and a point is 1/72 inch"
    )
    from matplotlib.figure import Figure
    from matplotlib.image import imread

    files = [
        (kind, 5, cfg.dpi + 5 * len(kind)) for kind in KINDS if kind != "scatter"
    ]  # kind, inches, dpi
    files += [("scatter", inches, dpi) for dpi in (30, 120) for inches in (5, 10)][
        : 2 if cfg.tiny else 4
    ]
    said, pictures, text = [], [], []
    for number, (kind, inches, dpi) in enumerate(files):
        sheet, path = (
            Figure(figsize=(inches, inches * 0.75), layout="none"),
            cfg.out / f"{number}-{kind}.png",
        )
        draw(axis := sheet.add_axes((0.17, 0.17, 0.8, 0.72)), kind, flowers)
        sheet.savefig(path, dpi=dpi)
        said.append(png_size(path.read_bytes()))
        pictures.append(imread(path))
        text.append(axis.yaxis.label.get_window_extent().height / sheet.bbox.height)
    asked, said = (
        np.array([(inches * dpi, inches * 0.75 * dpi, dpi) for _, inches, dpi in files]),
        np.array(said),
    )
    check_close(
        "size", f"all {len(files)} files have the pixels asked for", said[:, :2], asked[:, :2] // 1
    )
    check_close(
        "dpi",
        "and note their dots per inch, as whole dots per metre",
        said[:, 2],
        asked[:, 2],
        atol=0.02,
    )
    check(
        "opens",
        "and open with that shape, and are not blank",
        all(
            picture.shape[1::-1] == (w, h) and picture.std() > 0.05
            for picture, (w, h, _) in zip(pictures, said)
        ),
    )
    refused, whole = [], path.read_bytes()
    for broken in (
        whole[:-500],
        whole[:600] + bytes([whole[600] ^ 1]) + whole[601:],
        b"GIF89a" + whole,
    ):
        try:
            png_size(broken)
        except LessonError as error:
            refused.append(str(error))
    check(
        "damaged",
        f"cut short, one bit changed, no PNG at all: “{refused[1]}”",
        len(refused),
        at_least=3,
    )
    check_close(
        "text",
        "on twice the inches the text has half the share of the height",
        text[-1],
        text[-2] / 2,
    )
    figure, axes = new_figure(1 if cfg.tiny else 2, 2, size=(12, 9.8))
    for axis, picture, (_, inches, dpi) in zip(
        axes.flat, pictures[-axes.size :], files[-axes.size :]
    ):
        axis.imshow(picture)
        axis.set_title(f"{inches} inches wide, {dpi} dpi: {inches * dpi} pixels", loc="center")
        axis.axis("off")
    save_figure(figure, cfg.out / "sizes")
    return {"text_5_inches": text[-2], "text_10_inches": text[-1]}


def run(cfg: Config) -> dict:
    flowers = load(cfg)
    show_anatomy(cfg, flowers)
    show_places(cfg, flowers)
    show_kinds(cfg, flowers)
    return show_saving(cfg, flowers)


if __name__ == "__main__":
    main(run, Config, __doc__)
