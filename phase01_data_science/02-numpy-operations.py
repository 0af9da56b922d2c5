"""1.2 NumPy operations: broadcasting replaces the loop
NumPy 运算：用广播代替循环

You will be able to answer
    1. When do two shapes fit?         show_broadcasting  by-hand, rule, stretch, shared
    2. Which axis does a sum remove?   show_axes          silent
    3. What do letters say in einsum?  show_einsum        einsum
    4. Why is softmax shifted?         show_softmax       softmax, overflow, stable
    5. What replaces a loop?           show_distances     pairs, faster, plain, far, wide
Predict   largest_score: up to which score can a float64 still hold exp(score)?
Run       python phase01_data_science/02-numpy-operations.py               about 2 s
Needs     -
Reference np.broadcast_shapes, np.broadcast_to, np.einsum, scipy.special.softmax
Notation  n, m number of points  d coordinates of a point
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import scipy

from common.checks import check, check_close, timed
from common.config import LessonConfig, main, param
from common.figures import BLUE, GREY, ORANGE, RED, new_figure, plot_curves, save_figure

Shape = tuple[int, ...]


@dataclass
class Config(LessonConfig):
    pairs: int = param(200, "random pairs of shapes, ours against NumPy's", tiny=100, low=50)


def broadcast_shape(a: Shape, b: Shape) -> Shape:
    """The shape of x + y, from the shapes of x and y alone.

    Raises ValueError where they do not fit.
    """
    # practice: When do two shapes fit, and what comes out?
    shape = []
    for n, m in zip_longest(reversed(a), reversed(b), fillvalue=1):
        if n == 1:
            shape.append(m)
        elif m == 1 or m == n:
            shape.append(n)
        else:
            raise ValueError(f"{a} and {b} do not fit: {n} against {m}")

    shape.reverse()
    return tuple(shape)
    # end practice


def stretch(x: np.ndarray, shape: Shape) -> np.ndarray:
    """x as if repeated to `shape`, without a copy; read-only. ValueError where it does not fit."""
    if broadcast_shape(x.shape, shape) != shape:
        raise ValueError(f"{x.shape} does not stretch to {shape}")

    missing = len(shape) - x.ndim
    strides = [0] * missing
    for length, wanted, stride in zip(x.shape, shape[missing:], x.strides):
        # A step of 0 bytes stays where it is and reads the same number again (1.1).
        strides.append(stride if length == wanted else 0)

    return np.lib.stride_tricks.as_strided(x, shape, strides, writeable=False)


def show_broadcasting(cfg: Config) -> None:
    print("\n[1] Shapes are compared from the right: equal lengths fit, and 1 fits every length")
    found = shape_or_error(broadcast_shape, (5, 1, 4), (3, 1))
    text = f"(5, 1, 4) with (3, 1) is to give (5, 3, 4): it gives {found}"
    check("by-hand", text, found == (5, 3, 4))

    # Up to four axes. Length 0 is a length like any other: 1 stretches to it, too.
    rng = cfg.rng()
    different = 0
    for _ in range(cfg.pairs):
        a = tuple(rng.choice([0, 1, 1, 2, 3], size=rng.integers(5)).tolist())
        b = tuple(rng.choice([0, 1, 1, 2, 3], size=rng.integers(5)).tolist())
        ours = shape_or_error(broadcast_shape, a, b)
        numpys = shape_or_error(np.broadcast_shapes, a, b)
        if ours != numpys:
            different += 1
            print(f"  {a} with {b}: got {ours}, wanted {numpys}")
    text = f"for {cfg.pairs} random pairs our rule gives NumPy's shape, or refuses as NumPy does"
    check("rule", text, different == 0)

    # Neighbours in memory hold other numbers, so a wrong stride reads a wrong number.
    table = np.arange(24.0).reshape(4, 6)
    parts = [table[1:4, 2:3], table[0, ::2], table[:1, 3:]]  # (3, 1), (3,), (1, 3)
    ours = [stretch(part, (2, 3, 3)) for part in parts]
    numpys = [np.broadcast_to(part, (2, 3, 3)) for part in parts]
    check_close("stretch", "stretched by steps of 0 bytes, arrays read as NumPy's do", ours, numpys)

    four = np.arange(4.0)
    million = stretch(four, (1_000_000, 4))
    text = "nothing is copied: 4,000,000 numbers lie in the memory of 4"
    check("shared", text, np.shares_memory(four, million))


def show_axes(cfg: Config) -> None:
    print("\n[2] sum(axis=k) removes axis k; keepdims=True leaves a 1 there, so it still fits")
    table = np.array([[1.0, 2, 3], [10, 20, 30], [100, 200, 300]])
    right = table - table.mean(axis=1, keepdims=True)  # (3, 3) - (3, 1): a mean for each row
    wrong = table - table.mean(axis=1)  # (3, 3) - (3,): the means lie along the columns
    print(f"  each row less its mean, with keepdims: the rows have the means {right.mean(axis=1)}")
    print(f"  without keepdims they have the means {wrong.mean(axis=1)}")
    text = "without keepdims a square table raises nothing, and a row mean of {} is left"
    check("silent", text, wrong.mean(axis=1).max(), above=100)


def einsum(formula: str, *operands: np.ndarray) -> np.ndarray:
    """Sum of products: einsum("ij,jk->ik", a, b) is a @ b.

    A letter names an axis; letters missing behind the arrow are summed. Each operand has a letter
    at most once. Here the whole product is built, for "ij,jk->ik" of shape (i, k, j), and then
    summed; np.einsum adds up as it goes.
    """
    inputs, output = formula.split("->")
    summed = sorted(set(inputs) - set(output) - {","})
    letters = [*output, *summed]

    product = 1.0
    for names, operand in zip(inputs.split(","), operands):
        present = [letter for letter in letters if letter in names]
        turned = operand.transpose([names.index(letter) for letter in present])

        # A letter that it lacks becomes an axis of length 1, which broadcasting stretches.
        lacking = [place for place, letter in enumerate(letters) if letter not in names]
        product = product * np.expand_dims(turned, tuple(lacking))

    return product.sum(axis=tuple(range(len(output), len(letters))))


def show_einsum(cfg: Config) -> None:
    print("\n[3] Name the axes, and say which survive: multiply, then add up the others")
    rng = cfg.rng()
    a = rng.normal(size=(3, 4))
    b = rng.normal(size=(4, 5))
    batch = rng.normal(size=(2, 3, 4))
    formulas = [
        ("ij,jk->ik", "matrix product", [a, b], a @ b),
        ("i,j->ij", "outer product", [a[0], b[0]], np.outer(a[0], b[0])),
        ("nij,jk->nik", "one matrix for every sample n", [batch, b], batch @ b),
        ("ij,jk,ik->k", "three arrays at once", [a, b, a @ b], ((a @ b) ** 2).sum(axis=0)),
    ]
    ours = []
    wanted = []
    for formula, meaning, operands, result in formulas:
        print(f"  {formula:<14}{meaning}")
        ours.extend(einsum(formula, *operands).ravel())
        wanted.extend(result.ravel())
    check_close("einsum", "our einsum gives what @, outer and sum give, up to {}", ours, wanted)


def softmax(scores: np.ndarray, axis: int = -1) -> np.ndarray:
    """Scores of any size -> weights from 0 to 1, same shape, that add up to 1 along `axis`."""
    # practice: Weights that survive large scores
    largest = scores.max(axis=axis, keepdims=True)

    # Subtracting the same number from all scores changes no weight, and now none exceeds 0.
    powers = np.exp(scores - largest)
    return powers / powers.sum(axis=axis, keepdims=True)
    # end practice


def show_softmax(cfg: Config) -> float:
    print("\n[4] Softmax turns scores into weights; written as on paper, it breaks at 710")
    # Square, so that a forgotten keepdims raises nothing; read-only, so that writing into it does.
    scores = cfg.rng().normal(size=(4, 4)) * 3
    scores.flags.writeable = False
    ours = [softmax(scores), softmax(scores, axis=0)]
    scipys = [scipy.special.softmax(scores, axis=1), scipy.special.softmax(scores, axis=0)]
    check_close("softmax", "along rows and along columns, our weights are SciPy's", ours, scipys)

    largest_score = float(np.log(np.finfo(np.float64).max))
    # NumPy warns of what goes wrong here, and we silence it. In your own code, read its warnings.
    with np.errstate(over="ignore", invalid="ignore"):
        print(f"  exp({largest_score:.4f}) works; exp(709.79) is {np.exp(709.79)}")
        rows = np.array([[0.0, 1, 2], [1000, 1001, 1002], [-1000, -999, -998], [0, 0, 3000]])
        powers = np.exp(rows)
        on_paper = powers / powers.sum(axis=1, keepdims=True)

    # exp(-1000) is too small for a float64 and becomes 0, so the third row is 0 divided by 0.
    for row, weights in zip(rows, on_paper):
        print(f"  as on paper: {row} -> {weights.round(3)}")
    text = "infinity divided by infinity: {} of the 3 weights of 1000, 1001, 1002 are nan"
    check("overflow", text, np.isnan(on_paper[1]).sum(), at_least=3)

    wanted = [on_paper[0], on_paper[0], on_paper[0], [0, 0, 1]]
    text = "ours gives the first three rows the same weights, and the last one 0, 0, 1"
    check_close("stable", text, softmax(rows), wanted)
    return largest_score


def loop_distances(x: np.ndarray, y: np.ndarray) -> list[list[float]]:
    """All distances between points x (n, d) and y (m, d), one pair after the other: (n, m)."""
    others = y.tolist()
    rows = []
    for point in x.tolist():
        rows.append([math.dist(point, other) for other in others])
    return rows


def expanded_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The same from |x|² + |y|² - 2 x·y: an array (n, m), no loop, and no array (n, m, d).

    By this formula: the claim `plain` shows where it fails, which a better way would not.
    """
    # practice: All pairs at once
    x_squared = (x * x).sum(axis=1, keepdims=True)  # (n, 1)
    y_squared = (y * y).sum(axis=1)  # (m,)
    squared = x_squared + y_squared - 2 * x @ y.T  # (n, m)

    # Rounding can leave -1e-16 where 0 is right, and its root is nan.
    return np.sqrt(np.maximum(squared, 0))
    # end practice


def distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The same with the origin moved between the points, which changes no distance."""
    # It helps where the points lie close together and far from 0: large squares would cancel.
    middle = y.mean(axis=0)  # (d,)
    return expanded_distances(x - middle, y - middle)


def show_distances(cfg: Config) -> tuple[float, dict[str, list[float]]]:
    print("\n[5] All distances between two sets of points: one call instead of a loop over pairs")
    rng = cfg.rng()
    x = rng.normal(size=(60, 3))
    y = np.concatenate([x, rng.normal(size=(40, 3)) + 0.5])
    # From a point to itself 1e-15 may be left of the squares, and its root is 3e-8.
    text = "60 × 100 distances are the loop's up to {} (from a point to itself, the root of 1e-15)"
    check_close("pairs", text, expanded_distances(x, y), loop_distances(x, y), atol=1e-6)

    a, b = rng.normal(size=(2, 200, 3))
    text = "40,000 distances: one call is {} times faster than the loop"
    ratio = timed("faster", text, lambda: loop_distances(a, b), lambda: distances(a, b), at_least=3)

    errors = cancellation(x, y[60:])
    text = "near 10⁸ the formula is off by {} times the distance: no digit is right"
    check("plain", text, errors["the formula"][8], above=1)
    check("far", "one group, origin moved into it: {}", errors["origin moved"][8], at_most=1e-12)
    text = "two groups near 10⁸ and -10⁸: {}, for no origin is near both"
    check("wide", text, errors["moved, two groups"][8], above=1)
    return ratio, errors


# Pictures and helpers: skip on a first reading


def shape_or_error(rule: Callable[[Shape, Shape], Shape], a: Shape, b: Shape) -> Shape | str:
    try:
        return rule(a, b)
    except ValueError:
        return "ValueError"


def cancellation(x: np.ndarray, y: np.ndarray) -> dict[str, list[float]]:
    """Largest relative errors with the points moved to 1, 10, … 10⁸ times (1, -1, 2)."""
    errors = {"the formula": [], "origin moved": [], "moved, two groups": []}
    for power in range(9):
        shift = 10.0**power * np.array([1.0, -1.0, 2.0])
        errors["the formula"].append(relative_error(expanded_distances, x + shift, y + shift))
        errors["origin moved"].append(relative_error(distances, x + shift, y + shift))

        two_x = np.concatenate([x + shift, x - shift])
        two_y = np.concatenate([y + shift, y - shift])
        errors["moved, two groups"].append(relative_error(distances, two_x, two_y))
    return errors


def relative_error(function: Callable, x: np.ndarray, y: np.ndarray) -> float:
    # The loop subtracts before it squares, so it does not cancel.
    return abs(function(x, y) / loop_distances(x, y) - 1).max()


def draw_broadcasting(cfg: Config) -> None:
    row = np.arange(4).reshape(1, 4)
    column = np.arange(0, 30, 10).reshape(3, 1)
    table = np.arange(0, 120, 10).reshape(3, 4)
    rows = [
        ("(3, 4)\n   (4,)", table, row, table + row),
        ("(3, 1)\n(1, 4)", column, row, column + row),
        ("(3, 4)\n   (3,)", table, row[:, 1:], None),
    ]
    figure, axis = new_figure(size=(10.4, 6.2))
    for top, (shapes, a, b, total) in zip((0, -4.1, -8.2), rows):
        axis.text(0, top - 0.6, shapes, family="monospace", fontsize=14, va="center")
        axis.text(8, top - 0.6, "+", fontsize=20, ha="center", va="center")
        draw_cells(axis, stretch(a, (3, 4)), a.shape, 3.4, top, BLUE)
        if total is None:
            draw_cells(axis, b, b.shape, 9.7, top, RED)
            continue
        axis.text(13.3, top - 0.6, "=", fontsize=20, ha="center", va="center")
        draw_cells(axis, stretch(b, (3, 4)), b.shape, 8.7, top, ORANGE)
        draw_cells(axis, total, total.shape, 14, top, GREY)

    axis.text(14, -8.8, "4 against 3, neither\nis 1: ValueError", color=RED, va="center")
    legend = "solid: in memory · pale: the same number, read again (stride 0)"
    axis.text(3.4, 1.35, legend, color=GREY)
    axis.set(xlim=(-0.2, 18.4), ylim=(-10.6, 2), aspect="equal")
    axis.set_title("Write the shapes flush right; a length of 1 stretches")
    axis.axis("off")
    save_figure(figure, cfg.out / "broadcasting")


def draw_cells(axis, shown: np.ndarray, stored: Shape, left: float, top: float, colour) -> None:
    """The numbers of `shown`, pale where they lie outside of the shape that is stored."""
    for (i, j), value in np.ndenumerate(shown):
        is_stored = i < stored[0] and j < stored[1]
        box = {"color": colour, "alpha": 1 if is_stored else 0.22}
        axis.fill_between([left + j, left + j + 0.92], top - i, top - i + 0.92, lw=0, **box)
        style = {"color": "white" if is_stored else GREY, "ha": "center", "va": "center"}
        axis.text(left + j + 0.46, top - i + 0.43, value, fontsize=12, fontweight="bold", **style)


def draw_errors(cfg: Config, errors: dict[str, list[float]]) -> None:
    figure, axis = new_figure(size=(9, 5))
    plot_curves(axis, errors, "n, with the points near 10ⁿ · (1, −1, 2)", "relative error", 0, True)
    axis.axhline(1, color=GREY, linestyle="--")
    axis.set(title="Largest error: above the dashed line no digit is right", xticks=range(9))
    save_figure(figure, cfg.out / "errors")


def run(cfg: Config) -> dict[str, float]:
    show_broadcasting(cfg)
    show_axes(cfg)
    show_einsum(cfg)
    largest_score = show_softmax(cfg)
    times_faster, errors = show_distances(cfg)
    draw_broadcasting(cfg)
    draw_errors(cfg, errors)
    return {"largest_score": largest_score, "times_faster": times_faster}


if __name__ == "__main__":
    main(run, Config, __doc__)
