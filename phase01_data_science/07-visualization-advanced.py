"""1.7 Visualisation: pictures that do not mislead
可视化进阶：不误导人的图

You will be able to answer
    1. What do a mean, a variance and a correlation not tell?      show_anscombe   pearson, same, variance, different
    2. How do you lay out a figure with plots of different size?   show_mosaic     spans, refused, shared
    3. When do two y axes lie, and when may a plot have two?       show_twins      crossing
    4. Which colours show numbers without inventing edges?         show_colours    lightness, smooth, monotone, jet
    5. When may panels be compared, and what tells the reader?     show_multiples  own-scale, one-scale, note, style
Run       python phase01_data_science/07-visualization-advanced.py         about 8 s
Needs     phase01_data_science/06-matplotlib-basics
Reference np.corrcoef
"""

from dataclasses import dataclass

import numpy as np

from common.checks import check, check_close
from common.config import LessonConfig, main, param
from common.errors import LessonError
from common.figures import BLUE, COLOURS, GREY, ORANGE, RED, new_figure, save_figure
from common.lessons import load_lesson

BASICS = load_lesson("phase01_data_science/06-matplotlib-basics")
X = [10, 8, 13, 9, 11, 14, 6, 4, 12, 7, 5]
ANSCOMBE = {  # four sets of 11 points, (x, y)
    "I": (X, [8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68]),
    "II": (X, [9.14, 8.14, 8.74, 8.77, 9.26, 8.10, 6.13, 3.10, 9.13, 7.26, 4.74]),
    "III": (X, [7.46, 6.77, 12.74, 7.11, 7.81, 8.84, 6.08, 5.39, 8.15, 6.42, 5.73]),
    "IV": (
        [8] * 7 + [19] + [8] * 3,
        [6.58, 5.76, 7.71, 8.84, 8.47, 7.04, 5.25, 12.50, 5.56, 7.91, 6.89],
    ),
}
LAYOUT = "top  top  .\nmain main side\nmain main side\nlow  low  low"


@dataclass
class Config(LessonConfig):
    data: str = param("iris", "data set, beside Anscombe's four", choices=("iris",))


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Correlation of two (n,): 1 on a rising line, -1 on a falling one. nan where one of them never varies."""
    # practice: how well does a straight line describe them?
    # hint: only distances from the mean count: dx = x - mean of x, and the same for y
    # hint: the mean of dx dy, over the product of the two standard deviations
    dx, dy = x - np.mean(x), y - np.mean(y)
    together = np.mean(dx * dy)
    alone = np.sqrt(np.mean(dx**2) * np.mean(dy**2))
    # end practice
    return float(together / alone) if alone > 0 else float("nan")


def spans(layout: str) -> dict[str, tuple[int, int, int, int]]:
    """name -> rows from, to (not included), columns from, to, as in CSS's grid-template-areas; "." is nobody's.
    Raises LessonError when the cells of a name are no full rectangle."""
    cells = np.array([line.split() for line in layout.splitlines()])  # (rows, columns) of names
    found = {}
    for name in sorted(set(cells.ravel()) - {"."}):
        # practice: from a drawn layout to rectangles
        # hint: rows, columns = np.nonzero(cells == name) says where the name stands
        # hint: the rectangle from the smallest to the largest of each; all cells in it must carry the name
        rows, columns = np.nonzero(cells == name)
        top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
        if (cells[top:bottom, left:right] != name).any():
            raise LessonError(f"“{name}” is no rectangle: give all cells inside it this name.")
        found[name] = (int(top), int(bottom), int(left), int(right))
        # end practice
    return found


def limits_that_cross(
    one: np.ndarray, two: np.ndarray, limits: tuple[float, float], place: int
) -> tuple[float, float]:
    """Limits of a second y axis on which `two` meets `one` at index `place` and is half as tall as the axes.
    one, two: (n,); limits: of the first axis. The lie is that simple."""
    # practice: let two curves cross where you like
    # hint: at which share of its axis does `one` stand at that index? `two` must stand at the same
    # hint: the second axis spans twice the range of `two`; the share then says where it begins
    low, high = limits
    share = (one[place] - low) / (high - low)
    height = 2 * (two.max() - two.min())
    bottom = two[place] - share * height
    # end practice
    return bottom, bottom + height


def lightness(rgb: np.ndarray) -> np.ndarray:
    """L* of CIELAB, 0 black to 100 white: how light a colour looks. rgb: (..., 3) in sRGB, 0 to 1 -> (...)."""
    # practice: from the numbers on a screen to what the eye sees
    # hint: light = np.where(…) undoes the screen: v / 12.92 up to 0.04045, else ((v + 0.055) / 1.055) ** 2.4
    # hint: Y = 0.2126 red + 0.7152 green + 0.0722 blue; 116 cbrt(Y) - 16, but up to (6 / 29) ** 3 it is Y (29 / 3) ** 3
    light = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = light @ np.array([0.2126, 0.7152, 0.0722])  # the eye is least sensitive to blue
    dark = luminance * (29 / 3) ** 3
    seen = np.where(luminance <= (6 / 29) ** 3, dark, 116 * np.cbrt(luminance) - 16)
    # end practice
    return seen


def show_anscombe(cfg: Config) -> None:
    print("\n[1] Four sets of points: the same summary, and nothing else in common")
    sets = [(name, np.array(x, float), np.array(y)) for name, (x, y) in ANSCOMBE.items()]
    table = np.array(
        [(x.mean(), y.mean(), pearson(x, y), x.var(ddof=1), y.var(ddof=1)) for _, x, y in sets]
    )  # (4, 5)
    for (name, *_), (mx, my, r, vx, vy) in zip(sets, table):
        print(
            f"  {name:>3}: means {mx:.2f}, {my:.2f}; variances {vx:.3f}, {vy:.3f}; correlation {r:.3f}"
        )
    check_close(
        "pearson", "ours is np.corrcoef", table[:, 2], [np.corrcoef(x, y)[0, 1] for _, x, y in sets]
    )
    rounded = table[:, :3].round(2)
    check(
        "same",
        f"to two decimals all have means {rounded[0, 0]}, {rounded[0, 1]} and correlation {rounded[0, 2]}",
        (rounded == rounded[0]).all(),
    )
    check(
        "variance",
        "their variances differ by less than",
        np.ptp(table[:, 3:], axis=0).max(),
        below=0.01,
    )
    (_, x2, y2), (_, x3, y3), (_, x4, _) = sets[1:]
    bent = abs(np.polyval(np.polyfit(x2, y2, 2), x2) - y2).max()  # from the best parabola
    check(
        "different",
        "II is a parabola; III a line but for one point; IV has one x but for one point",
        bent < 0.01 and pearson(x3[y3 < 12], y3[y3 < 12]) > 0.9999 and np.ptp(x4[x4 < 19]) == 0,
    )
    rows = 1 if cfg.tiny else 2  # axes cost more than all the rest
    figure, axes = new_figure(rows, rows, size=(11, 7.6), sharex=True, sharey=True, squeeze=False)
    lessons = (
        "a line and noise",
        "a curve, not a line",
        "one wrong point tilts the line",
        "one point makes the line",
    )
    for axis, (name, x, y), lesson in zip(axes.flat, sets, lessons):
        axis.plot([2, 20], [4, 13], color=GREY)  # the least-squares line of all four: 3 + x / 2
        axis.scatter(x, y, color=np.where(y > 12, RED, BLUE), s=70, zorder=3)
        axis.set(title=f"{name}: {lesson}", xticks=range(5, 21, 5))
    axes[0, 0].annotate(
        "y = 3 + x / 2\nin all four", (16.5, 11.2), (15.5, 5), arrowprops={"arrowstyle": "->"}
    )
    save_figure(figure, cfg.out / "anscombe")


def show_mosaic(cfg: Config, flowers: dict[str, np.ndarray]) -> None:
    print(
        "\n[2] A layout drawn as text: every name gets its rectangle\n  "
        + LAYOUT.replace("\n", "\n  ")
    )
    figure, axis = new_figure(size=(11.5, 10.5))
    axis.remove()
    axes = figure.subplot_mosaic(
        [line.split() for line in LAYOUT.splitlines()], height_ratios=(0.7, 1, 1, 1.3)
    )
    places = {name: axis.get_subplotspec() for name, axis in axes.items()}
    theirs = {
        name: (p.rowspan.start, p.rowspan.stop, p.colspan.start, p.colspan.stop)
        for name, p in places.items()
    }
    check("spans", "our rectangles are matplotlib's", spans(LAYOUT) == theirs)
    try:
        check("refused", "an L is refused", not spans("a a b\na c b"))
    except LessonError as error:
        check("refused", f"an L is refused: {error}", "“a”" in str(error))
    axes["top"].sharex(axes["main"])  # from now on they have one scale
    axes["side"].sharey(axes["main"])
    for (name, rows), colour in zip(flowers.items(), COLOURS):
        axes["main"].scatter(
            rows[:, 2], rows[:, 3], color=colour, alpha=0.65, edgecolor="none", s=60
        )
        axes["main"].text(
            rows[:, 2].mean() + 0.35, rows[:, 3].min() - 0.13, name, color=colour, fontweight="bold"
        )
        axes["top"].hist(rows[:, 2], np.arange(1, 7.1, 0.25), color=colour, alpha=0.65)
        axes["side"].hist(
            rows[:, 3], np.arange(0, 2.7, 0.125), color=colour, alpha=0.65, orientation="horizontal"
        )
        axes["low"].plot(range(4), rows[::5].T, color=colour, alpha=0.3, linewidth=1)
        axes["low"].plot(range(4), rows.mean(axis=0), color=colour, linewidth=4)
    axes["main"].set(
        xlabel="petal length, cm", ylabel="petal width, cm", xlim=(0.8, 7.2), ylim=(-0.1, 2.7)
    )
    axes["top"].set(
        title="Petals: length and width, each alone and both together", ylabel="flowers"
    )
    axes["side"].set_xlabel("flowers")
    axes["low"].set(
        title="All four measures: means, and every fifth flower",
        ylabel="cm",
        xlim=(-0.25, 3.25),
        xticks=range(4),
        xticklabels=BASICS.MEASURES,
    )
    check(
        "shared",
        "zooming the scatter plot zooms the histograms beside it",
        axes["top"].get_xlim() == (0.8, 7.2) and axes["side"].get_ylim() == (-0.1, 2.7),
    )
    save_figure(figure, cfg.out / "mosaic")


def show_twins(cfg: Config) -> None:
    print("\n[3] With two y axes, where the curves cross is decided by whoever draws them")
    years, rng, places = np.arange(2010, 2025), cfg.rng(), (8,) if cfg.tiny else (3, 8, 12)
    users, sales = (
        40 + 1.5 * np.arange(15) + rng.normal(0, 0.8, 15),
        3 * 1.13 ** np.arange(15) + rng.normal(0, 0.1, 15),
    )
    figure, axes = new_figure(
        1 if cfg.tiny else 2, 2, size=(13.5, 9), gridspec_kw={"wspace": 0.08, "hspace": 0.08}
    )
    found, honest = [], axes.flat[-1]
    for axis, place in zip(axes.flat, places):
        axis.plot(years, users, color=BLUE)
        axis.set(ylim=(10, 90), title=f"“Sales overtake in {years[place]}”")
        twin = axis.twinx()
        twin.plot(years, sales, color=ORANGE)
        twin.set_ylim(limits_that_cross(users, sales, (10, 90), place))
        twin.grid(False)  # its lines would meet no tick on the left
        heights = [
            view.transData.transform(np.c_[years, y])[:, 1]
            for view, y in ((axis, users), (twin, sales))
        ]
        found.append([heights[1][place] - heights[0][place], np.ptp(heights[1]) / axis.bbox.height])
        axis.plot(
            years[place],
            users[place],
            "o",
            color=RED,
            markersize=13,
            fillstyle="none",
            markeredgewidth=2.5,
        )
        axis.set_ylabel("users, thousands", color=BLUE)
        twin.set_ylabel("sales, millions", color=ORANGE)
    check_close(
        "crossing",
        "crossings in years of our choice, to the pixel",
        found,
        [[0, 0.5]] * len(places),
    )
    for name, y, colour in (("users", users, BLUE), ("sales", sales, ORANGE)):
        honest.plot(years, 100 * y / y[0], color=colour)
        honest.text(
            2024, 100 * y[-1] / y[0], f" {name}", color=colour, fontweight="bold", va="center"
        )
    honest.secondary_yaxis("right", functions=(lambda v: v / 100, lambda v: v * 100)).set_ylabel(
        "times 2010"
    )
    honest.set(
        title="Honest: one scale, both begin at 100", ylabel="2010 = 100", xlim=(2009.4, 2026.5)
    )
    save_figure(figure, cfg.out / "twins")


def show_colours(cfg: Config) -> dict:
    print(
        "\n[4] The eye reads lightness first: where it turns back, the picture shows an edge that is not in the data"
    )
    from matplotlib import colormaps

    grey = np.repeat(np.arange(256)[:, None] / 255, 3, axis=1)
    check_close(
        "lightness",
        "black, #777777, white, red, green, blue: as published",
        lightness(np.vstack([grey[[0, 119, 255]], np.eye(3)])),
        [0, 50.03, 100, 53.24, 87.73, 32.30],
        atol=0.01,
    )
    check(
        "smooth",
        "256 greys: one step differs from the next by",
        abs(np.diff(lightness(grey), 2)).max(),
        below=0.02,
    )
    maps = {
        name: lightness(colormaps[name](np.arange(256))[:, :3])
        for name in ("viridis", "cividis", "jet")
    }
    check(
        "monotone",
        "viridis and cividis become lighter with every step",
        min(np.diff(maps[name]).min() for name in ("viridis", "cividis")),
        above=0,
    )
    back = float((np.diff(maps["jet"]) < 0).mean())
    check("jet", "jet becomes darker in this share of its steps", back, above=0.3)
    bell = np.exp(-(np.linspace(-2, 2, 24 if cfg.tiny else 200) ** 2))
    hill = np.outer(bell, bell)  # smooth: no edge anywhere
    figure, axis = new_figure(size=(14, 8))
    axis.remove()
    axes = figure.subplot_mosaic([["jet", "jet light", "viridis", "viridis light"], ["curve"] * 4])
    for name in ("jet", "viridis"):
        axes[name].imshow(hill, cmap=name)
        axes[f"{name} light"].imshow(
            lightness(colormaps[name](hill)[..., :3]), cmap="gray", vmin=0, vmax=100
        )
        axes[name].set(title=f"A smooth hill in {name}", xticks=[], yticks=[])
        axes[f"{name} light"].set(title="… its lightness alone", xticks=[], yticks=[])
    for (name, light), side in zip(maps.items(), ("bottom", "top", "center")):
        axes["curve"].scatter(
            np.linspace(0, 1, 256), light, c=np.linspace(0, 1, 256), cmap=name, s=60
        )
        axes["curve"].text(1.01, light[-1], name, va=side, fontweight="bold")
    axes["curve"].set(
        xlabel="value",
        ylabel="lightness L*",
        xlim=(-0.01, 1.1),
        title="A map for numbers only goes up",
    )
    save_figure(figure, cfg.out / "colours")
    return {"jet_back": back}


def show_multiples(cfg: Config, flowers: dict[str, np.ndarray]) -> dict:
    print("\n[5] Small multiples: the same plot again and again, on the same scale")
    import matplotlib.pyplot as plt

    flowers = dict(list(flowers.items())[:: 2 if cfg.tiny else 1])
    figure, axes = new_figure(2, len(flowers), size=(14, 7.4))
    pooled, bins = np.concatenate(list(flowers.values()))[:, 2], np.arange(1, 7.1, 0.25)
    for column, ((name, rows), colour) in enumerate(zip(flowers.items(), COLOURS)):
        own, same = axes[:, column]
        own.hist(rows[:, 2], 10, color=colour)
        same.hist(pooled, bins, color="#DDDDDD")  # what the part is a part of
        same.hist(rows[:, 2], bins, color=colour)
        own.set(title=f"{name}: its own scale", ylabel="flowers")
        same.set(
            title=f"{name}: the scale of all",
            xlim=(0.8, 7.2),
            xlabel="petal length, cm",
            ylabel="flowers",
        )
    spread = np.array([rows[:, 2].std() for rows in flowers.values()])
    shown = spread / [
        [np.ptp(axis.get_xlim()) for axis in row] for row in axes
    ]  # one sd as a share of the axis
    apart = shown.max(axis=1) / shown.min(axis=1)
    check(
        "own-scale",
        "own scales: the widest looks hardly wider than the narrowest, times",
        apart[0],
        below=1.5,
    )
    check_close(
        "one-scale",
        f"one scale: {apart[1]:.1f} times, as in cm",
        apart[1],
        spread.max() / spread.min(),
    )
    note = axes[1, 0].annotate(
        "narrow and high", (1.75, 22), xytext=(36, 0), textcoords="offset points"
    )
    check_close(
        "note",
        "a note 36 points from its point is 36/72 inch away, whatever the scale",
        figure.dpi / 2,
        note.get_window_extent().x0 - axes[1, 0].transData.transform((1.75, 22))[0],
    )
    with plt.style.context("ggplot"):  # plt.style.use would last until the end
        inside = plt.rcParams["axes.facecolor"]
    check(
        "style",
        f"a style sheet in a with block: background {inside} inside, afterwards ours again",
        inside != plt.rcParams["axes.facecolor"] == "white",
    )
    save_figure(figure, cfg.out / "multiples")
    return {"own_scale": float(apart[0]), "one_scale": float(apart[1])}


def run(cfg: Config) -> dict:
    flowers = BASICS.load(cfg)
    show_anscombe(cfg)
    show_mosaic(cfg, flowers)
    show_twins(cfg)
    return show_colours(cfg) | show_multiples(cfg, flowers)


if __name__ == "__main__":
    main(run, Config, __doc__)
