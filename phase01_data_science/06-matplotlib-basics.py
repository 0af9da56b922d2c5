"""1.6 Matplotlib basics: figure, axes, and the right plot
Matplotlib 基础：画布、绘图区与合适的图形

You will be able to answer
    1. What is a figure made of?                        show_anatomy  tree, node
    2. At which pixel does a number land?               show_places   by-hand, places, log-places
    3. What do a histogram and a box plot draw?         show_kinds    histogram, bins, whiskers
    4. How many pixels do you get, how large is text?   show_saving   files, text, any-dpi
Predict   objects: of how many objects does a scatter plot of three species consist?
Run       python phase01_data_science/06-matplotlib-basics.py              about 6 s
Needs     -
Reference np.histogram, cbook.boxplot_stats, transData, findobj
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.checks import check, check_close
from common.config import LessonConfig, main, param
from common.data.tables import load_iris
from common.figures import BLUE, COLOURS, GREEN, GREY, new_figure, pyplot, save_figure

# the columns, in centimetres
MEASURES = ("sepal length", "sepal width", "petal length", "petal width")
# kind of plot: the question that it answers, the names of its axes
KINDS = {
    "line": ("how does y change as x grows?", "petal length, cm", "share of flowers up to here"),
    "scatter": ("do two numbers go together?", "petal length, cm", "petal width, cm"),
    "bar": ("how much is it, for each of a few?", "", "petal length, cm: mean and sd"),
    "histogram": ("which values occur, how often?", "petal length, cm", "flowers"),
    "boxplot": ("how do groups differ, who is odd?", "", "sepal width, cm"),
    "image": ("what pattern has a whole table?", "50 flowers of each species", ""),
}
Flowers = dict[str, np.ndarray]  # species: (50, 4)


@dataclass
class Config(LessonConfig):
    data: str = param("iris", "data set", choices=("iris",))
    dpi: int = param(101, "dots per inch of the files; odd, so that pixels are rounded", tiny=31)
    threads = 1


def descendants(artist) -> list:
    """The artist itself and everything that is drawn as a part of it, at any depth."""
    # practice: Everything below a node
    found = [artist]
    for child in artist.get_children():
        found.extend(descendants(child))
    return found
    # end practice


def show_anatomy(cfg: Config, flowers: Flowers) -> dict[str, int]:
    print("\n[1] A figure is a sheet, axes are the plots on it, and all that is drawn is a tree")
    figure, axis = new_figure()
    plot_kind(axis, "scatter", flowers)
    axis.set_title("")

    # Before that nothing has a place, and some ticks do not exist.
    figure.draw_without_rendering()
    kinds = {type(child).__name__ for child in axis.get_children()}
    print(f"  below the axes: {', '.join(sorted(kinds))}")
    found = descendants(figure)
    text = f"walking down from the figure finds {len(found)} objects, those that findobj finds"
    check_close("tree", text, sorted(map(id, found)), sorted(map(id, figure.findobj())))

    texts = figure.findobj(pyplot().Text)
    before = [text.get_text() for text in texts]
    axis.set_title("Petals")
    changed = sum(text.get_text() != old for text, old in zip(texts, before))
    check("node", f"of {len(texts)} texts axis.set_title changes one", changed == 1)
    pyplot().close(figure)
    return {"objects": len(found)}


def to_pixels(
    points: np.ndarray, limits: np.ndarray, box: np.ndarray, log: bool = False
) -> np.ndarray:
    """(n, 2) of data -> (n, 2) pixels, counted from the lower left corner of the figure.

    limits: [[left, right], [bottom, top]] of the axes, in data.
    box: left, bottom, width and height of the axes, in pixels.
    """
    # practice: From a number to a pixel
    low, high = limits.T  # (2,) each: one number for x, one for y
    if log:
        points = np.log10(points)
        low = np.log10(low)
        high = np.log10(high)

    # 0 where the axis begins, 1 where it ends; an axis upside down begins with the larger number.
    share = (points - low) / (high - low)  # (n, 2)
    return box[:2] + share * box[2:]
    # end practice


def show_places(cfg: Config, flowers: Flowers) -> None:
    print("\n[2] A number becomes a share of the axis, the share becomes a pixel")
    limits = np.array([[1, 7], [0, 2.5]])
    box = np.array([60, 60, 320, 210])
    pixel = to_pixels(np.array([[6, 1.5]]), limits, box)
    text = "a petal of 6 by 1.5 cm lies 326.7 pixels from the left and 186 from below"
    check_close("by-hand", text, pixel, [[60 + 320 * 5 / 6, 60 + 210 * 3 / 5]])

    plt = pyplot()
    figure = plt.figure(figsize=(4, 3), dpi=cfg.dpi, layout="none")
    axis = figure.add_axes((0.15, 0.2, 0.8, 0.7))  # left, bottom, width, height, as shares
    box = np.array([0.15, 0.2, 0.8, 0.7]) * [4, 3, 4, 3] * cfg.dpi
    petals = np.vstack(list(flowers.values()))[:, 2:]  # (150, 2)
    for claim, scale in [("places", "linear"), ("log-places", "log")]:
        axis.set(xscale=scale, yscale=scale, xlim=(0.5, 8), ylim=(3, 0.05))  # y upside down
        limits = np.array([axis.get_xlim(), axis.get_ylim()])
        ours = to_pixels(petals, limits, box, log=scale == "log")
        text = f"150 flowers on {scale} axes, y upside down: our pixels are matplotlib's"
        check_close(claim, text, ours, axis.transData.transform(petals))
    plt.close(figure)


def bin_counts(x: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """How many values lie in each bin. x: (n,), edges: (bins + 1,) -> (bins,)

    A bin holds its left edge, the last one its right edge too.
    """
    # practice: Count what falls between two edges
    left = edges[:-1, None]  # (bins, 1) against x: (n,)
    right = edges[1:, None]
    inside = (x >= left) & (x < right)  # (bins, n)
    inside[-1] |= x == edges[-1]
    return inside.sum(axis=1)
    # end practice


def whiskers(x: np.ndarray) -> tuple[float, float]:
    """Where the whiskers of a box plot end: at values, not at a distance."""
    low, high = np.percentile(x, [25, 75])

    # The box holds the middle half. Beyond one and a half box heights a value is drawn alone.
    reach = 1.5 * (high - low)
    inside = x[(x >= low - reach) & (x <= high + reach)]
    return inside.min(), inside.max()


def show_kinds(cfg: Config, flowers: Flowers) -> None:
    print("\n[3] A histogram counts between edges that somebody chose, a box plot marks values")
    petals = [rows[:, 2] for rows in flowers.values()]

    # Bins of different width; flowers lie on every edge, and outside.
    edges = np.array([1, 1.5, 4, 4.7, 5.6, 6.1])
    ours = [bin_counts(x, edges) for x in petals]
    numpys = [np.histogram(x, edges)[0] for x in petals]
    check_close("histogram", "our counts are np.histogram's, for bins of any width", ours, numpys)

    # Sepal lengths of all flowers, from 4.3 to 7.9 cm.
    x = np.concatenate([rows[:, 0] for rows in flowers.values()])
    places = []
    for bins in (6, 15):
        edges = np.linspace(4.25, 7.95, bins + 1)
        highest = bin_counts(x, edges).argmax()
        places.append(edges[highest : highest + 2].mean())
    text = "the highest of 6 bins lies at 6.41 cm, the highest of 15 bins at 5.11 cm"
    check_close("bins", text, places, [6.41, 5.11], atol=0.005)

    from matplotlib.cbook import boxplot_stats

    # Sepal widths, and a list whose ends lie exactly one and a half box heights from the box.
    groups = [rows[:, 1] for rows in flowers.values()]
    groups.append(np.array([1, 3, 4, 4.5, 5, 5.5, 6, 7, 9]))
    stats = boxplot_stats(groups)
    ours = [whiskers(x) for x in groups]
    theirs = [(box["whislo"], box["whishi"]) for box in stats]
    alone = sum(len(box["fliers"]) for box in stats)
    text = f"the whiskers end where matplotlib's do; {alone} flowers are drawn alone"
    check_close("whiskers", text, ours, theirs)


def show_saving(cfg: Config, flowers: Flowers) -> dict[str, float]:
    print("\n[4] Inches times dpi are pixels; text is measured in points, and a point is 1/72 inch")
    from PIL import Image

    said = []
    asked = []
    for inches, kind in enumerate(KINDS, start=4):
        with Image.open(write_sheet(cfg, flowers, kind, inches, cfg.dpi)) as image:
            image.load()
            said.append([*image.size, image.info["dpi"][0]])

        # A sheet is 4 to 3. Where inches times dpi is no whole number, matplotlib rounds down.
        asked.append([inches * cfg.dpi, int(0.75 * inches * cfg.dpi), cfg.dpi])

    text = "six files open with the pixels and the dpi asked for"
    check_close("files", text, said, asked, atol=0.02)

    shares = {inches: text_share(flowers, inches) for inches in (5, 10)}
    print(f"  on a sheet 5 inches wide the y label takes {shares[5]:.3f} of the height")
    check_close("text", "on twice the inches half of that", shares[10], shares[5] / 2)
    by_dpi = [text_share(flowers, 5, dpi) for dpi in (50, 100, 200, 400)]
    change = max(by_dpi) / min(by_dpi) - 1
    text = "from 50 to 400 dpi that share changes by {} of itself, as letters fit the pixels"
    check("any-dpi", text, change, at_most=0.1)
    return {"text_5_inches": shares[5], "text_10_inches": shares[10]}


# Pictures and helpers: skip on a first reading


def load(cfg: Config) -> Flowers:
    measures, species = load_iris()
    return {str(name): measures[species == name] for name in np.unique(species)}


def write_sheet(cfg: Config, flowers: Flowers, kind: str, inches: float, dpi: int) -> Path:
    """One plot into a file of its own, 4 to 3."""
    plt = pyplot()
    figure = plt.figure(figsize=(inches, 0.75 * inches), layout="none")
    plot_kind(figure.add_axes((0.2, 0.17, 0.77, 0.73)), kind, flowers)
    path = cfg.out / f"{kind}-{inches}-inches-{dpi}-dpi.png"
    figure.savefig(path, dpi=dpi)
    plt.close(figure)
    return path


def text_share(flowers: Flowers, inches: float, dpi: int = 150) -> float:
    """The share of the figure's height that the label of the y axis takes."""
    figure, axis = new_figure(size=(inches, 0.75 * inches), dpi=dpi)
    plot_kind(axis, "scatter", flowers)
    share = axis.yaxis.label.get_window_extent().height / figure.bbox.height
    pyplot().close(figure)
    return float(share)


def plot_kind(axis, kind: str, flowers: Flowers) -> None:
    """One of KINDS into the axes. A species keeps its colour in every plot."""
    for place, (name, rows) in enumerate(flowers.items()):
        length = rows[:, 2]
        colour = COLOURS[place]
        match kind:
            case "line":
                # Sorted values against their rank show a distribution without bins to choose.
                rank = np.arange(1, len(rows) + 1) / len(rows)
                axis.plot(np.sort(length), rank, color=colour, label=name)
            case "scatter":
                axis.scatter(length, rows[:, 3], alpha=0.6, color=colour, label=name)
            case "bar":
                axis.bar(name, length.mean(), 0.6, yerr=length.std(), capsize=6, color=colour)
            case "histogram":
                # The same bins for all, or heights cannot be compared.
                axis.hist(length, np.linspace(1, 7, 13), alpha=0.65, color=colour, label=name)
            case "boxplot":
                look = {"boxprops": {"facecolor": colour}, "medianprops": {"color": "white"}}
                where = {"positions": [place], "widths": 0.5, "tick_labels": [name]}
                axis.boxplot(rows[:, 1], patch_artist=True, **where, **look)
    question, xlabel, ylabel = KINDS[kind]
    axis.set(title=f"{kind}: {question}", xlabel=xlabel, ylabel=ylabel)
    if kind == "image":
        # Every flower is a column of four cells.
        image = axis.imshow(np.vstack(list(flowers.values())).T, aspect="auto", vmin=0, vmax=8)
        axis.figure.colorbar(image, ax=axis, label="cm")
        axis.set_xticks([25, 75, 125], flowers)
        axis.set_yticks(range(4), MEASURES)
    named = kind in ("line", "scatter", "histogram")
    if named:
        axis.legend(handlelength=1, borderpad=0)
    axis.grid(named)


def draw_anatomy(cfg: Config, flowers: Flowers) -> None:
    """Every part asked where it is, so that the arrows follow the layout."""
    figure, axis = new_figure(size=(13.4, 7.6))
    figure.set_layout_engine("none")
    axis.set_position((0.275, 0.18, 0.46, 0.62))
    sheet = pyplot().Rectangle((0.19, 0.04), 0.575, 0.92, facecolor="#F4F4EE", edgecolor=GREY)
    figure.add_artist(sheet).set_zorder(-1)
    plot_kind(axis, "scatter", flowers)
    heading = figure.suptitle("Three irises", y=0.93, fontsize=20)
    title = axis.set_title("Petals")
    axis.set(xlim=(0.5, 7.5), ylim=(-0.1, 2.9))
    legend = axis.legend(loc="lower right")
    rows, columns = axis.yaxis, axis.xaxis
    figure.draw_without_rendering()

    # name; how it is made; the object; where on it the arrow ends, as shares of its size
    left = [
        ("Figure title", "figure.suptitle", heading, (-0.03, 0.5)),
        ("Axes title", "axis.set_title", title, (-0.1, 0.5)),
        ("Tick label", "axis.set_yticks", rows.get_major_ticks()[5].label1, (-0.1, 0.5)),
        ("Axis label", "axis.set_ylabel", rows.label, (-0.2, 0.5)),
        ("Spine", "axis.spines", axis.spines["left"], (0.5, 0.12)),
        ("Figure", "plt.subplots", sheet, (0, 0)),
    ]
    right = [
        ("Axes", "figure.add_axes", axis.patch, (1, 0.93)),
        ("Grid line", "axis.grid", rows.get_gridlines()[3], (1, 0.5)),
        ("Legend", "axis.legend", legend, (1, 0.5)),
        ("Tick", "axis.set_xticks", columns.get_major_ticks()[7].tick1line, (0.5, 0)),
        ("Axis label", "axis.set_xlabel", columns.label, (1.03, 0.5)),
    ]
    sides = [(left, 0.155, "right", 0.162, BLUE), (right, 0.8, "left", 0.793, GREEN)]
    for parts, side, align, start, colour in sides:
        for number, (name, call, part, touch) in enumerate(parts):
            y = 0.93 - number * 0.85 / (len(parts) - 1)
            figure.text(side, y, name, color=colour, ha=align, fontweight="bold")
            figure.text(side, y - 0.03, call, color=GREY, ha=align, family="monospace")
            box = part.get_window_extent()
            tip = figure.transFigure.inverted().transform(box.p0 + np.array(touch) * box.size)
            arrow = {"arrowstyle": "-|>", "color": colour, "shrinkA": 0, "shrinkB": 0}
            place = {"xycoords": "figure fraction", "annotation_clip": False}
            axis.annotate("", tip, (start, y + 0.005), arrowprops=arrow, **place)
    save_figure(figure, cfg.out / "anatomy")


def draw_kinds(cfg: Config, flowers: Flowers) -> None:
    figure, axes = new_figure(2, 3, size=(16.8, 9.8))
    for axis, kind in zip(axes.flat, KINDS):
        plot_kind(axis, kind, flowers)
    save_figure(figure, cfg.out / "kinds")


def draw_sizes(cfg: Config, flowers: Flowers) -> None:
    figure, axes = new_figure(2, 2, size=(12, 9.4))
    sizes = [(5, 30), (10, 30), (5, 120), (10, 120)]
    for axis, (inches, dpi) in zip(axes.flat, sizes):
        axis.imshow(pyplot().imread(write_sheet(cfg, flowers, "scatter", inches, dpi)))
        title = f"{inches} inches wide, {dpi} dpi: {inches * dpi} pixels"
        axis.set(title=title, xticks=(), yticks=())
        axis.spines[:].set(visible=True, color=GREY)
    save_figure(figure, cfg.out / "sizes")


def run(cfg: Config) -> dict[str, float]:
    flowers = load(cfg)
    anatomy = show_anatomy(cfg, flowers)
    show_places(cfg, flowers)
    show_kinds(cfg, flowers)
    shares = show_saving(cfg, flowers)
    draw_anatomy(cfg, flowers)
    draw_kinds(cfg, flowers)
    draw_sizes(cfg, flowers)
    return anatomy | shares


if __name__ == "__main__":
    main(run, Config, __doc__)
