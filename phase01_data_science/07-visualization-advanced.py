"""1.7 Visualisation: pictures that do not mislead
可视化进阶：不误导人的图

You will be able to answer
    1. What do a mean and a correlation not tell?   show_anscombe   pearson, flat, same, different
    2. How do you lay out plots of different size?  show_mosaic     spans, refused
    3. When do two y axes lie?                      show_twins      meet, crossing
    4. Which colours show numbers, not edges?       show_colours    lightness, monotone, jet
    5. When may panels be compared?                 show_multiples  own, shared-scale
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
# a name for each plot, a dot for an empty cell
LAYOUT = "top  top  .\nmain main side\nmain main side"
# two made-up series that have nothing to do with each other: thousands of users, millions in sales
YEARS = [2010, 2011, 2012, 2013, 2014, 2015, 2016, 2017, 2018, 2019, 2020, 2021, 2022, 2023, 2024]
USERS = [40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54]
SALES = [3, 3.4, 3.9, 4.3, 4.9, 5.5, 6.3, 7, 8, 9, 10.2, 11.5, 13, 14.7, 16.6]
CROSSINGS = (5, 9, 12)  # indices of years
PETALS = {"bins": 24, "range": (1, 7)}  # a bar for each quarter of a centimetre
Limits = tuple[float, float]


@dataclass
class Config(LessonConfig):
    data: str = param("iris", "data set, beside Anscombe's four", choices=("iris",))
    threads = 1


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Correlation of two (n,): 1 on a rising line, -1 on a falling one, nan for a constant."""
    # practice: How well does a straight line describe them?
    # Not by a deviation of 0: the mean of eleven times 0.3 is not 0.3, but one bit beside it.
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan

    dx = x - x.mean()
    dy = y - y.mean()
    return (dx * dy).mean() / np.sqrt((dx**2).mean() * (dy**2).mean())
    # end practice


def show_anscombe(cfg: Config) -> None:
    print("\n[1] Four sets of points: the same summary, and nothing else in common")
    sets = {name: np.array(points, dtype=float) for name, points in ANSCOMBE.items()}  # (2, 11)
    rows = []
    for name, (x, y) in sets.items():
        r = pearson(x, y)
        slope, intercept = np.polyfit(x, y, deg=1)
        rows.append([x.mean(), y.mean(), r, slope, intercept, x.var(ddof=1), y.var(ddof=1)])
        print(f"  {name:>3}: mean {y.mean():.2f}, r {r:.3f}, line {intercept:.2f} + {slope:.2f} x")

    # A falling cloud, too, and a small one: a correlation has a sign, and no unit.
    x, y = sets["II"]
    ours = [row[2] for row in rows] + [pearson(x / 100, -y / 100)]
    numpys = [np.corrcoef(x, y)[0, 1] for x, y in [*sets.values(), (x, -y)]]
    check_close("pearson", "our correlation is np.corrcoef's", ours, numpys)
    flat = [pearson(x, np.full(11, 3.0)), pearson(np.full(11, 0.3), y)]
    check_close(
        "flat",
        "beside a constant, be it 3 or 0.3, it is nan",
        flat,
        [np.nan, np.nan],
        equal_nan=True,
    )

    rounded = np.array(rows)[:, :5].round(2)
    spread = np.ptp(np.array(rows)[:, 5:], axis=0).max()
    text = f"means, r and line are equal to two decimals, variances within {spread:.3f}"
    check("same", text, (rounded == rounded[0]).all() and spread < 0.01)

    bent = np.abs(np.polyval(np.polyfit(x, y, 2), x) - y).max()  # from the best parabola
    x, y = sets["III"]
    straight = pearson(x[y < 12], y[y < 12])
    text = "yet II is a parabola, and III a line but for one point"
    check("different", text, bent < 0.01 and straight > 0.9999)


def spans(layout: str) -> dict[str, tuple[int, int, int, int]]:
    """name -> first row, row after the last, first column, column after the last.

    As CSS reads grid-template-areas; "." is an empty cell. Raises LessonError where the cells
    of a name are no full rectangle.
    """
    cells = np.array([line.split() for line in layout.splitlines()])  # (rows, columns) of names
    found = {}
    for name in set(cells.ravel()) - {"."}:
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
    theirs = {}
    for name, axis in draw_mosaic(cfg, flowers).items():
        place = axis.get_subplotspec()
        rows = (place.rowspan.start, place.rowspan.stop)
        theirs[name] = (*rows, place.colspan.start, place.colspan.stop)
    found = spans(LAYOUT)
    ours = [found[name] for name in sorted(found)]
    wanted = [theirs[name] for name in sorted(theirs)]
    text = f"the rows and columns of {', '.join(sorted(theirs))} are those of subplot_mosaic"
    check_close("spans", text, ours, wanted)

    raised = None
    try:
        spans("a a b\na c b")
    except LessonError as error:
        raised = error
    check("refused", f"three a in the shape of an L raise LessonError: {raised}", bool(raised))


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


def show_twins(cfg: Config) -> None:
    print("\n[3] With two y axes, where the curves cross is decided by whoever draws them")
    figure, axis = new_figure()
    axis.set_ylim(10, 90)
    twin = axis.twinx()
    found = []
    crossed = []
    for place in CROSSINGS:
        twin.set_ylim(limits_that_cross(np.array(USERS), np.array(SALES), (10, 90), place))
        users_at = axis.transData.transform(np.c_[YEARS, USERS])[:, 1]  # pixels, lesson 1.6
        sales_at = twin.transData.transform(np.c_[YEARS, SALES])[:, 1]
        gap = sales_at - users_at
        found.append([gap[place], np.ptp(sales_at) / axis.bbox.height])
        crossed.append((gap[:place] < 0).all() and (gap[place + 1 :] > 0).all())
    pyplot().close(figure)
    text = "the curves meet on the screen in 2015, in 2019, in 2022, sales half the plot high"
    check_close("meet", text, found, [[0, 0.5]] * 3)
    text = "three times the same sales: below the users before that year, above them after it"
    check("crossing", text, all(crossed))


def lightness(rgb: np.ndarray) -> np.ndarray:
    """L* of CIELAB, 0 black to 100 white: how light a colour looks. sRGB (..., 3) -> (...)"""
    # A screen turns the number v into the light v²·⁴, nearly; this is the standard's curve.
    light = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)

    # The eye is least sensitive to blue.
    luminance = light @ [0.2126, 0.7152, 0.0722]
    dark = luminance * (29 / 3) ** 3
    return np.where(luminance <= (6 / 29) ** 3, dark, 116 * np.cbrt(luminance) - 16)


def show_colours(cfg: Config) -> dict[str, float]:
    print("\n[4] The eye reads shape from lightness: where it turns back, it sees an edge")
    greys = np.array([0, 10, 15, 30, 119, 128, 255])[:, None] / 255
    colours = np.vstack([np.repeat(greys, 3, axis=1), np.eye(3)])
    published = [0, 2.74, 4.32, 11.26, 50.03, 53.59, 100, 53.24, 87.73, 32.30]
    text = "black, five greys, white, red, green and blue have their published lightness"
    check_close("lightness", text, lightness(colours), published, atol=0.01)

    steps = {}
    for name in ("viridis", "cividis", "jet"):
        colours = pyplot().colormaps[name](np.arange(256))[:, :3]
        steps[name] = np.diff(lightness(colours))  # (255,)
    text = "viridis and cividis become lighter in every step, by {} at least"
    check("monotone", text, min(*steps["viridis"], *steps["cividis"]), above=0)
    back = float((steps["jet"] < 0).mean())
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
    in_cm = spread.max() / spread.min()
    text = f"spreads {in_cm:.1f} times apart look {{}} times apart on scales of their own"
    check("own", text, apart[0], below=in_cm / 2)
    check_close("shared-scale", "on one scale they look as far apart as they are", apart[1], in_cm)
    save_figure(figure, cfg.out / "multiples")
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
        same.set(title=f"{name}: the scale of all", xlim=(0.8, 7.2), xlabel="petal length, cm")


def draw_anscombe(cfg: Config) -> None:
    figure, axes = new_figure(2, 2, size=(11, 7.6), sharex=True, sharey=True)
    titles = ["noise about a line", "a curve", "one point tilts it", "one point makes it"]
    for axis, (name, (x, y)), title in zip(axes.flat, ANSCOMBE.items(), titles):
        axis.plot([2, 20], [4, 13], color=GREY)  # the least-squares line of all four
        axis.scatter(x, y, color=np.where(np.array(y) > 12, RED, BLUE), s=70, zorder=3)
        axis.set(title=f"{name}: {title}", xticks=range(5, 21, 5))
    text = "y = 3 + x / 2\nin all four"
    axes[0, 0].annotate(text, (16.5, 11.2), (15.5, 5), arrowprops={"arrowstyle": "->"})
    save_figure(figure, cfg.out / "anscombe")


def draw_mosaic(cfg: Config, flowers: dict[str, np.ndarray]) -> dict:
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
    both.set(xlabel="petal length, cm", xlim=(0.8, 7.2))
    both.set(ylabel="petal width, cm", ylim=(-0.1, 2.7))
    top.set(title="Petals: length and width, each alone and both together", ylabel="flowers")
    side.set_xlabel("flowers")
    save_figure(figure, cfg.out / "mosaic")
    return axes


def draw_twins(cfg: Config) -> None:
    figure = pyplot().figure(figsize=(13.5, 9))
    early, middle, late = CROSSINGS
    rows = [[early, middle], [early, middle], [late, "users"], [late, "sales"]]
    axes = figure.subplot_mosaic(rows)
    for place in CROSSINGS:
        axis = axes[place]
        axis.plot(YEARS, USERS, color=BLUE)
        axis.set(ylim=(10, 90), title=f"“Sales overtake users in {YEARS[place]}”")
        twin = axis.twinx()
        twin.plot(YEARS, SALES, color=ORANGE)
        twin.set_ylim(limits_that_cross(np.array(USERS), np.array(SALES), (10, 90), place))
        twin.grid(False)  # its lines would meet no tick on the left
        axis.scatter(YEARS[place], USERS[place], 250, "none", edgecolor=RED, lw=2.5, zorder=3)
        axis.set_ylabel("users, thousands", color=BLUE)
        twin.set_ylabel("sales, millions", color=ORANGE)

    axes["users"].plot(YEARS, USERS, color=BLUE)
    axes["users"].set(title="Two quantities, two plots", ylim=(0, 80), ylabel="users, thousands")
    axes["sales"].plot(YEARS, SALES, color=ORANGE)
    axes["sales"].set(ylim=(0, 20), ylabel="sales, millions")
    save_figure(figure, cfg.out / "twins")


def draw_colours(cfg: Config) -> None:
    bell = np.exp(-(np.linspace(-2, 2, 200) ** 2))
    hill = np.outer(bell, bell)
    value = np.linspace(0, 1, 256)
    figure = pyplot().figure(figsize=(13, 6.6))
    rows = [["jet", "viridis", "curve", "curve"], ["jet, grey", "viridis, grey", "curve", "curve"]]
    axes = figure.subplot_mosaic(rows)
    for name in ("jet", "viridis"):
        colours = pyplot().colormaps[name]
        axes[name].imshow(hill, cmap=name)
        axes[f"{name}, grey"].imshow(lightness(colours(hill)[..., :3]), "gray", vmin=0, vmax=100)
        axes[name].set(title=f"A smooth hill in {name}", xticks=[], yticks=[])
        axes[f"{name}, grey"].set(title="its lightness", xticks=[], yticks=[])
        light = lightness(colours(value)[:, :3])
        axes["curve"].scatter(value, light, c=value, cmap=name, s=60)
        axes["curve"].text(1.02, light[-1], name, va="center", fontweight="bold")
    axes["curve"].set(title="A map for numbers only goes up", xlabel="value", xlim=(-0.03, 1.2))
    axes["curve"].set_ylabel("lightness L*")
    save_figure(figure, cfg.out / "colours")


def run(cfg: Config) -> dict[str, float]:
    flowers = basics.load(cfg)
    show_anscombe(cfg)
    show_mosaic(cfg, flowers)
    show_twins(cfg)
    found = show_colours(cfg) | show_multiples(cfg, flowers)
    draw_anscombe(cfg)
    draw_twins(cfg)
    draw_colours(cfg)
    return found


if __name__ == "__main__":
    main(run, Config, __doc__)
