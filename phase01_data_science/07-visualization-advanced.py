"""1.7 Visualisation: pictures that do not mislead
可视化进阶：不误导人的图

You will be able to answer
    1. What do a mean and a correlation not tell?   show_anscombe   pearson, same, different
    2. How do you lay out plots of different size?  show_mosaic     by-hand, refused, spans, shared
    3. When do two y axes lie?                      show_twins      crossing
    4. Which colours show numbers, not edges?       show_colours    lightness, monotone, jet
    5. When may panels be compared?                 show_multiples  own, shared-scale, note, sheet
Predict   jet_back: in which share of its steps does the rainbow map jet become darker?
Run       python phase01_data_science/07-visualization-advanced.py         about 8 s
Needs     phase01_data_science/06-matplotlib-basics
Reference np.corrcoef, get_subplotspec
"""

from dataclasses import dataclass

import numpy as np

from common.checks import check, check_close
from common.config import LessonConfig, main, param
from common.errors import LessonError
from common.figures import BLUE, COLOURS, GREY, ORANGE, RED, new_figure, pyplot, save_figure
from common.lessons import load_lesson

basics = load_lesson("phase01_data_science/06-matplotlib-basics")

X = [10, 8, 13, 9, 11, 14, 6, 4, 12, 7, 5]
X4 = [8, 8, 8, 8, 8, 8, 8, 19, 8, 8, 8]
# Anscombe's four sets of 11 points, (x, y)
ANSCOMBE = {
    "I": (X, [8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68]),
    "II": (X, [9.14, 8.14, 8.74, 8.77, 9.26, 8.10, 6.13, 3.10, 9.13, 7.26, 4.74]),
    "III": (X, [7.46, 6.77, 12.74, 7.11, 7.81, 8.84, 6.08, 5.39, 8.15, 6.42, 5.73]),
    "IV": (X4, [6.58, 5.76, 7.71, 8.84, 8.47, 7.04, 5.25, 12.50, 5.56, 7.91, 6.89]),
}
LAYOUT = "top  top  .\nmain main side\nmain main side"
PETALS = {"bins": 24, "range": (1, 7)}
Limits = tuple[float, float]


@dataclass
class Config(LessonConfig):
    data: str = param("iris", "data set, beside Anscombe's four", choices=("iris",))
    threads = 1


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Correlation of two (n,): 1 on a rising line, -1 on a falling one, nan for a constant."""
    # practice: How well does a straight line describe them?
    dx = x - x.mean()
    dy = y - y.mean()
    together = (dx * dy).mean()
    alone = np.sqrt((dx**2).mean() * (dy**2).mean())
    return together / alone if alone > 0 else np.nan
    # end practice


def show_anscombe(cfg: Config) -> None:
    print("\n[1] Four sets of points: the same summary, and nothing else in common")
    sets = {name: np.array(points, dtype=float) for name, points in ANSCOMBE.items()}  # (2, 11)
    means = np.array([points.mean(axis=1) for points in sets.values()])  # (4, 2)
    variances = np.array([points.var(axis=1, ddof=1) for points in sets.values()])
    correlations = np.array([pearson(x, y) for x, y in sets.values()])
    for name, mean, variance, r in zip(sets, means, variances, correlations):
        print(f"  {name:>3}: means {mean.round(2)}  variances {variance.round(3)}  r {r:.3f}")

    # A falling cloud, too, and a small one: a correlation has a sign, and no unit.
    x, y = sets["II"]
    ours = [*correlations, pearson(x / 100, -y / 100), pearson(x, np.full(11, 3.0))]
    numpys = [np.corrcoef(x, y)[0, 1] for x, y in sets.values()]
    numpys += [np.corrcoef(x, -y)[0, 1], np.nan]
    check_close("pearson", "our correlation is np.corrcoef's; nan for a constant", ours, numpys)

    summary = np.c_[means, correlations].round(2)
    spread = np.ptp(variances, axis=0).max()
    equal = (summary == summary[0]).all() and spread < 0.01
    check("same", f"means and r are equal to two decimals, variances within {spread:.4f}", equal)

    bent = np.abs(np.polyval(np.polyfit(x, y, 2), x) - y).max()  # from the best parabola
    x, y = sets["III"]
    straight = pearson(x[y < 12], y[y < 12])
    x, y = sets["IV"]
    upright = np.ptp(x[x < 19])
    text = "II is a parabola, III a line but for one point, IV has one x but for one point"
    check("different", text, bent < 0.01 and straight > 0.9999 and upright == 0)


def spans(layout: str) -> dict[str, tuple[int, int, int, int]]:
    """name -> first row, row after the last, first column, column after the last.

    As CSS reads grid-template-areas; "." is an empty cell. Raises LessonError where the cells
    of a name are no full rectangle.
    """
    cells = np.array([line.split() for line in layout.splitlines()])  # (rows, columns) of names
    found = {}
    for name in sorted(set(cells.ravel().tolist()) - {"."}):
        # practice: From a drawn layout to rectangles
        rows, columns = np.nonzero(cells == name)
        top = rows.min()
        bottom = rows.max() + 1
        left = columns.min()
        right = columns.max() + 1
        if (cells[top:bottom, left:right] != name).any():
            raise LessonError(f"“{name}” is no rectangle: give all cells inside it this name.")
        found[name] = (top, bottom, left, right)
        # end practice
    return found


def show_mosaic(cfg: Config, flowers: dict[str, np.ndarray]) -> None:
    print("\n[2] A layout drawn as text: every name gets its rectangle")
    print("  " + LAYOUT.replace("\n", "\n  "))
    found = spans("a a b\na a b\n. c c")
    text = "a, b and c get their rows and columns, from the first to one after the last"
    check_close("by-hand", text, [*found.values()], [[0, 2, 0, 2], [0, 2, 2, 3], [2, 3, 1, 3]])
    crooked = "a a b\na c b"
    try:
        refused = f"no, {list(spans(crooked))} were found"
    except LessonError as error:
        refused = str(error)
    check("refused", f"an L is refused: {refused}", "“a”" in refused)

    figure = pyplot().figure()
    axes = figure.subplot_mosaic([line.split() for line in LAYOUT.splitlines()])
    theirs = {}
    for name, axis in axes.items():
        place = axis.get_subplotspec()
        rows = (place.rowspan.start, place.rowspan.stop)
        theirs[name] = (*rows, place.colspan.start, place.colspan.stop)
    check("spans", "our rectangles are those of subplot_mosaic", spans(LAYOUT) == theirs)

    axes["top"].sharex(axes["main"])
    axes["main"].set_xlim(0.8, 7.2)
    text = "two plots that share an axis: zooming one zooms the other to {}"
    check("shared", text, axes["top"].get_xlim()[1], at_least=7.2, at_most=7.2)
    pyplot().close(figure)


def limits_that_cross(one: np.ndarray, two: np.ndarray, limits: Limits, place: int) -> Limits:
    """Limits of a second y axis on which `two` meets `one` at index `place`.

    one, two: (n,); limits: of the first axis. `two` gets half the height of the plot.
    """
    # practice: Let two curves cross where you like
    low, high = limits
    share = (one[place] - low) / (high - low)
    height = 2 * (two.max() - two.min())
    bottom = two[place] - share * height
    return bottom, bottom + height
    # end practice


def users_and_sales(cfg: Config) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """15 years of two series that have nothing to do with each other."""
    rng = cfg.rng()
    years = np.arange(2010, 2025)
    users = 40 + 1.5 * np.arange(15) + rng.normal(0, 0.8, 15)
    sales = 3 * 1.13 ** np.arange(15) + rng.normal(0, 0.1, 15)
    return years, users, sales


def show_twins(cfg: Config) -> None:
    print("\n[3] With two y axes, where the curves cross is decided by whoever draws them")
    years, users, sales = users_and_sales(cfg)
    found = []
    figure, axis = new_figure()
    axis.set_ylim(10, 90)
    twin = axis.twinx()
    for place in (3, 8, 12):
        twin.set_ylim(limits_that_cross(users, sales, (10, 90), place))
        users_at = axis.transData.transform(np.c_[years, users])[:, 1]  # pixels, lesson 1.6
        sales_at = twin.transData.transform(np.c_[years, sales])[:, 1]
        share = (sales_at[sales.argmax()] - sales_at[sales.argmin()]) / axis.bbox.height
        found.append([sales_at[place] - users_at[place], share])
    pyplot().close(figure)
    text = "in 2013, in 2018 and in 2022 the curves meet on the screen, sales half the plot high"
    check_close("crossing", text, found, [[0, 0.5]] * 3)


def lightness(rgb: np.ndarray) -> np.ndarray:
    """L* of CIELAB, 0 black to 100 white: how light a colour looks. sRGB (..., 3) -> (...)"""
    # A screen turns the number v into the light v²·⁴, nearly; this is the standard's curve.
    light = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)

    # The eye is least sensitive to blue.
    luminance = light @ [0.2126, 0.7152, 0.0722]
    dark = luminance * (29 / 3) ** 3
    return np.where(luminance <= (6 / 29) ** 3, dark, 116 * np.cbrt(luminance) - 16)


def show_colours(cfg: Config) -> dict[str, float]:
    print("\n[4] The eye reads shape from lightness: where it turns back, an edge is invented")
    greys = np.array([0, 10, 15, 30, 119, 128, 255])[:, None] / 255
    colours = np.vstack([np.repeat(greys, 3, axis=1), np.eye(3)])
    published = [0, 2.74, 4.32, 11.26, 50.03, 53.59, 100, 53.24, 87.73, 32.30]
    text = "black, five greys, white, red, green and blue have the lightness known of them"
    check_close("lightness", text, lightness(colours), published, atol=0.01)

    colormaps = pyplot().colormaps
    light = {}
    for name in ("viridis", "cividis", "jet"):
        light[name] = lightness(colormaps[name](np.arange(256))[:, :3])  # (256,)
    smallest = min(np.diff(light[name]).min() for name in ("viridis", "cividis"))
    text = "viridis and cividis become lighter in every step, by {} at least"
    check("monotone", text, smallest, above=0)
    back = float((np.diff(light["jet"]) < 0).mean())
    check("jet", "jet becomes darker in a share of {} of its steps", back, above=0.3)
    return {"jet_back": back}


def show_multiples(cfg: Config, flowers: dict[str, np.ndarray]) -> dict[str, float]:
    print("\n[5] Small multiples: the same plot again and again, on the same scale")
    figure, axes = new_figure(2, 3, size=(14, 7.4))
    plot_multiples(axes, flowers)
    spread = np.array([rows[:, 2].std() for rows in flowers.values()])
    widths = np.array([np.ptp(axis.get_xlim()) for axis in axes.flat]).reshape(2, 3)

    # One standard deviation as a share of the axis is what the eye compares.
    seen = spread / widths  # (2, 3)
    apart = seen.max(axis=1) / seen.min(axis=1)
    text = "on scales of their own the widest looks only {} times as wide as the narrowest"
    check("own", text, apart[0], below=1.5)
    text = f"on one scale it looks {apart[1]:.1f} times as wide, as it is in cm"
    check_close("shared-scale", text, apart[1], spread.max() / spread.min())

    # In points, not in data: the same distance on both scales.
    away = []
    look = {"textcoords": "offset points", "ha": "center", "va": "bottom"}
    for axis in axes[:, 2]:
        note = axis.annotate("the longest\n↓", (6.7, 4), (0, 36), **look)
        away.append(note.get_window_extent().y0 - axis.transData.transform((6.7, 4))[1])
    text = "on both scales a note 36 points above its flowers is half an inch away"
    check_close("note", text, np.array(away) / figure.dpi, [1 / 2, 1 / 2])
    save_figure(figure, cfg.out / "multiples")

    with pyplot().style.context("ggplot"):
        inside = pyplot().rcParams["axes.facecolor"]
    text = f"a style sheet in a with block: background {inside} inside, afterwards ours again"
    check("sheet", text, inside != pyplot().rcParams["axes.facecolor"] == "white")
    return {"own_scale": float(apart[0]), "one_scale": float(apart[1])}


# Pictures and helpers: skip on a first reading


def plot_multiples(axes, flowers: dict[str, np.ndarray]) -> None:
    """Above each species on its own scale, below on the scale of all. axes: (2, 3)"""
    pooled = np.concatenate(list(flowers.values()))[:, 2]
    for column, (name, rows) in enumerate(flowers.items()):
        own, same = axes[:, column]
        own.hist(rows[:, 2], 10, color=COLOURS[column])
        own.set(title=f"{name}: its own scale", ylabel="flowers")
        same.hist(pooled, color="#DDDDDD", **PETALS)  # what the part is a part of
        same.hist(rows[:, 2], color=COLOURS[column], **PETALS)
        same.set(title=f"{name}: the scale of all", xlim=(0.8, 7.2), ylabel="flowers")
        same.set_xlabel("petal length, cm")


def draw_anscombe(cfg: Config) -> None:
    figure, axes = new_figure(2, 2, size=(11, 7.6), sharex=True, sharey=True)
    titles = ["a line and noise", "a curve, not a line"]
    titles += ["one wrong point tilts the line", "one point makes the line"]
    for axis, (name, (x, y)), title in zip(axes.flat, ANSCOMBE.items(), titles):
        axis.plot([2, 20], [4, 13], color=GREY)  # the least-squares line of all four
        axis.scatter(x, y, color=np.where(np.array(y) > 12, RED, BLUE), s=70, zorder=3)
        axis.set(title=f"{name}: {title}", xticks=range(5, 21, 5))
    text = "y = 3 + x / 2\nin all four"
    axes[0, 0].annotate(text, (16.5, 11.2), (15.5, 5), arrowprops={"arrowstyle": "->"})
    save_figure(figure, cfg.out / "anscombe")


def draw_mosaic(cfg: Config, flowers: dict[str, np.ndarray]) -> None:
    figure = pyplot().figure(figsize=(11.5, 8))
    cells = [line.split() for line in LAYOUT.splitlines()]
    axes = figure.subplot_mosaic(cells, height_ratios=(0.7, 1, 1))
    top, both, side = (axes[name] for name in ("top", "main", "side"))
    top.sharex(both)
    side.sharey(both)
    look = {"alpha": 0.65, "edgecolor": "none"}
    for (name, rows), colour in zip(flowers.items(), COLOURS):
        length, width = rows[:, 2], rows[:, 3]
        both.scatter(length, width, color=colour, s=60, **look)
        both.text(length.mean() + 0.35, width.min() - 0.13, name, color=colour, weight="bold")
        top.hist(length, color=colour, **PETALS, **look)
        side.hist(width, np.arange(0, 2.7, 0.125), color=colour, orientation="horizontal", **look)
    both.set(xlabel="petal length, cm", ylabel="petal width, cm")
    both.set(xlim=(0.8, 7.2), ylim=(-0.1, 2.7))
    top.set(title="Petals: length and width, each alone and both together", ylabel="flowers")
    side.set_xlabel("flowers")
    save_figure(figure, cfg.out / "mosaic")


def draw_twins(cfg: Config) -> None:
    years, users, sales = users_and_sales(cfg)
    figure = pyplot().figure(figsize=(13.5, 9))
    axes = figure.subplot_mosaic([[3, 8], [3, 8], [12, "users"], [12, "sales"]])
    for place in (3, 8, 12):
        axis = axes[place]
        axis.plot(years, users, color=BLUE)
        axis.set(ylim=(10, 90), title=f"“Sales overtake users in {years[place]}”")
        twin = axis.twinx()
        twin.plot(years, sales, color=ORANGE)
        twin.set_ylim(limits_that_cross(users, sales, (10, 90), place))
        twin.grid(False)  # its lines would meet no tick on the left
        ring = {"color": RED, "markersize": 13, "fillstyle": "none", "markeredgewidth": 2.5}
        axis.plot(years[place], users[place], "o", **ring)
        axis.set_ylabel("users, thousands", color=BLUE)
        twin.set_ylabel("sales, millions", color=ORANGE)

    axes["users"].plot(years, users, color=BLUE)
    axes["users"].set(title="Two quantities, two plots", ylim=(0, 80), ylabel="users, thousands")
    axes["sales"].plot(years, sales, color=ORANGE)
    axes["sales"].set(ylim=(0, 20), ylabel="sales, millions")
    save_figure(figure, cfg.out / "twins")


def draw_colours(cfg: Config) -> None:
    bell = np.exp(-(np.linspace(-2, 2, 200) ** 2))
    figure = pyplot().figure(figsize=(13, 5.4))
    axes = figure.subplot_mosaic([["jet", "viridis", "curve", "curve"]])
    for name in ("jet", "viridis"):
        axes[name].imshow(np.outer(bell, bell), cmap=name)  # smooth: no edge anywhere
        axes[name].set(title=f"A smooth hill in {name}", xticks=[], yticks=[])
    value = np.linspace(0, 1, 256)
    curve = axes["curve"]
    for name, side in [("viridis", "bottom"), ("cividis", "top"), ("jet", "center")]:
        light = lightness(pyplot().colormaps[name](value)[:, :3])
        curve.scatter(value, light, c=value, cmap=name, s=60)
        curve.text(1.01, light[-1], name, va=side, fontweight="bold")
    curve.set(title="A map for numbers only goes up", xlabel="value", ylabel="lightness L*")
    save_figure(figure, cfg.out / "colours")


def run(cfg: Config) -> dict[str, float]:
    flowers = basics.load(cfg)
    show_anscombe(cfg)
    show_mosaic(cfg, flowers)
    show_twins(cfg)
    found = show_colours(cfg) | show_multiples(cfg, flowers)
    draw_anscombe(cfg)
    draw_mosaic(cfg, flowers)
    draw_twins(cfg)
    draw_colours(cfg)
    return found


if __name__ == "__main__":
    main(run, Config, __doc__)
