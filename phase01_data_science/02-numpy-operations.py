"""1.2 NumPy operations: broadcasting replaces the loop
NumPy 运算：用广播代替循环

You will be able to answer
    1. When do two shapes fit, and what is copied?     show_broadcasting  by-hand, rule, stretch
    2. Which axis does a sum remove, and why keep it?  show_axes          silent
    3. How do letters say any sum of products?         show_einsum        matmul, einsum
    4. Why does softmax subtract the largest score?    show_softmax       softmax, overflow, stable
    5. How do you get all distances without a loop?    show_distances     distances, plain, far
Predict   largest_score: up to which score can a float64 still hold exp(score)?
Run       python phase01_data_science/02-numpy-operations.py               about 2 s
Needs     -
Reference np.broadcast_shapes, np.broadcast_to, np.einsum, scipy.special, scipy.spatial
Notation  n, m number of points  d coordinates of a point
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import scipy

from common.checks import check, check_close
from common.config import LessonConfig, main, param
from common.figures import BLUE, GREY, ORANGE, RED, new_figure, save_figure

Shape = tuple[int, ...]


@dataclass
class Config(LessonConfig):
    width: int = param(480, "pixels across the map of nearest dots", tiny=45, low=3)


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
    """x as if it were repeated to `shape`, without a copy. Read-only: a cell stands for many."""
    missing = len(shape) - x.ndim
    strides = [0] * missing
    for length, wanted, stride in zip(x.shape, shape[missing:], x.strides):
        # A step of 0 bytes stays where it is and reads the same number again (1.1).
        strides.append(stride if length == wanted else 0)

    return np.lib.stride_tricks.as_strided(x, shape, strides, writeable=False)


def show_broadcasting(cfg: Config) -> None:
    print("\n[1] Shapes are compared from the right: equal lengths fit, and 1 fits every length")
    text = "(5, 1, 4) with (3, 1) gives (5, 3, 4)"
    check_close("by-hand", text, shape_or_error(broadcast_shape, (5, 1, 4), (3, 1)), (5, 3, 4))
    for a, b in [((3, 4), (4,)), ((3, 1), (4,)), ((3, 4), (3,)), ((0, 4), (1, 4))]:
        print(f"  {a} with {b!s:<7}->  {shape_or_error(broadcast_shape, a, b)}")

    # Up to four axes. Length 0 is a length like any other: 1 stretches to it, too.
    rng = cfg.rng()
    different = 0
    refused = 0
    for _ in range(200):
        a = tuple(rng.choice([0, 1, 1, 2, 3], size=rng.integers(5)).tolist())
        b = tuple(rng.choice([0, 1, 1, 2, 3], size=rng.integers(5)).tolist())
        ours = shape_or_error(broadcast_shape, a, b)
        numpys = shape_or_error(np.broadcast_shapes, a, b)
        refused += numpys == "ValueError"
        if ours != numpys:
            different += 1
            print(f"  {a} with {b}: got {ours}, wanted {numpys}")
    text = f"of 200 random pairs, {refused} do not fit; our rule and NumPy's differ on {{}}"
    check("rule", text, different, at_most=0)

    # Neighbours in memory hold other numbers, so a wrong stride reads a wrong number.
    table = np.arange(24.0).reshape(4, 6)
    parts = [table[1:4, 2:3], table[0, ::2], table[:1, 3:]]  # (3, 1), (3,), (1, 3)
    ours = [stretch(part, (2, 3, 3)) for part in parts]
    numpys = [np.broadcast_to(part, (2, 3, 3)) for part in parts]
    check_close("stretch", "stretched by steps of 0 bytes, arrays read as NumPy's do", ours, numpys)

    four = np.arange(4.0)
    million = stretch(four, (1_000_000, 4))
    print(f"  {million.size:,} numbers, strides {million.strides}, in the same {four.nbytes} bytes")


def shape_or_error(rule: Callable[[Shape, Shape], Shape], a: Shape, b: Shape) -> Shape | str:
    try:
        return rule(a, b)
    except ValueError:
        return "ValueError"


def show_axes(cfg: Config) -> None:
    print("\n[2] sum(axis=k) removes axis k; keepdims=True leaves a 1 there, so it still fits")
    x = np.ones((2, 3, 4))
    print(f"  {x.shape} summed over axis 1: {x.sum(axis=1).shape}", end="")
    print(f", with keepdims {x.sum(axis=1, keepdims=True).shape}")

    table = np.array([[1.0, 2, 3], [10, 20, 30], [100, 200, 300]])
    right = table - table.mean(axis=1, keepdims=True)  # (3, 3) - (3, 1): a mean for each row
    wrong = table - table.mean(axis=1)  # (3, 3) - (3,): the means lie along the columns
    print(f"  each row less its mean has the mean {right.mean(axis=1)}")
    print(f"  without keepdims the row means are  {wrong.mean(axis=1)}")
    text = "without keepdims a square table raises nothing, and a row mean of {} is left"
    check("silent", text, wrong.mean(axis=1).max(), above=100)


def einsum(formula: str, *operands: np.ndarray) -> np.ndarray:
    """Sum of products: einsum("ij,jk->ik", a, b) is a @ b.

    A letter names an axis; letters missing behind the arrow are summed. Each operand has a letter
    at most once.
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
    check_close("matmul", "ij,jk->ik is the matrix product", einsum("ij,jk->ik", a, b), a @ b)

    formulas = {
        "ij->ji": ("transpose", [a]),
        "ij->i": ("row sums", [a]),
        "i,j->ij": ("outer product", [a[0], b[0]]),
        "nij,nkj->nik": ("rows against rows, for every sample n", [batch, batch]),
        "nij,jk->nik": ("one matrix for every sample", [batch, b]),
        "ij,jk,ik->k": ("three arrays at once", [a, b, a @ b]),
    }
    ours = []
    numpys = []
    for formula, (meaning, operands) in formulas.items():
        print(f"  {formula:<14}{meaning}")
        ours.extend(einsum(formula, *operands).ravel())
        numpys.extend(np.einsum(formula, *operands).ravel())
    check_close("einsum", "our einsum computes these six as NumPy's does", ours, numpys)


def softmax(scores: np.ndarray, axis: int = -1) -> np.ndarray:
    """Scores of any size -> positive weights in the same shape that add up to 1 along `axis`."""
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

    rows = np.array([[0.0, 1, 2], [1000, 1001, 1002], [-1000, -999, -998], [0, 0, 3000]])
    # NumPy warns here; in your own code, read its warnings.
    with np.errstate(over="ignore", invalid="ignore"):
        powers = np.exp(rows)
        on_paper = powers / powers.sum(axis=1, keepdims=True)
    for scores, weights in zip(rows, on_paper):
        print(f"  as on paper: {scores} -> {weights.round(3)}")
    text = "infinity divided by infinity: {} of the 3 weights of 1000, 1001, 1002 are nan"
    check("overflow", text, np.isnan(on_paper[1]).sum(), at_least=3)
    wanted = [[0.0900, 0.2447, 0.6652]] * 3 + [[0, 0, 1]]
    text = "ours gives the first three rows the same weights, and the last one 0, 0, 1"
    check_close("stable", text, softmax(rows), wanted, atol=1e-4)
    return float(np.log(np.finfo(np.float64).max))


def distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """All distances between points x (n, d) and y (m, d): (n, m), from |x|² + |y|² - 2 x·y.

    No loop, and no array of shape (n, m, d).
    """
    # practice: All pairs at once
    # Squares of large coordinates would cancel; distances do not depend on the origin, so move it.
    middle = y.mean(axis=0)  # (d,)
    x = x - middle
    y = y - middle

    x_squared = (x * x).sum(axis=1, keepdims=True)  # (n, 1)
    y_squared = (y * y).sum(axis=1)  # (m,)
    squared = x_squared + y_squared - 2 * x @ y.T  # (n, m)

    # Rounding can leave -1e-16 where 0 is right, and its root is nan.
    return np.sqrt(np.maximum(squared, 0))
    # end practice


def show_distances(cfg: Config) -> dict[str, float]:
    print("\n[5] All distances between two sets of points, without a loop")
    rng = cfg.rng()
    x = rng.normal(size=(60, 3))
    y = np.concatenate([x, rng.normal(size=(40, 3)) + 0.5])
    x.flags.writeable = False
    y.flags.writeable = False
    text = "60 × 100 distances are SciPy's up to {}, also from a point to itself"
    cdist = scipy.spatial.distance.cdist
    check_close("distances", text, distances(x, y), cdist(x, y), atol=1e-6)

    others = y[60:]
    print("  points near   formula as it stands is off by   with the origin moved")
    for size in (1, 1e2, 1e4, 1e6, 1e8):
        direction = np.array([1.0, -1.0, 2.0])
        far_x = x + size * direction
        far_y = others + size * direction
        true = cdist(far_x, far_y)
        x_squared = (far_x * far_x).sum(axis=1, keepdims=True)
        squared = x_squared + (far_y * far_y).sum(axis=1) - 2 * far_x @ far_y.T
        plain = np.sqrt(np.maximum(squared, 0))

        error_plain = abs(plain / true - 1).max()
        error_ours = abs(distances(far_x, far_y) / true - 1).max()
        print(f"  {size:>11.0e}{error_plain:>33.0e}{error_ours:>24.0e}")
    text = "near 10⁸ the formula as it stands has a relative error of {}: no digit is right"
    check("plain", text, error_plain, above=1)
    check("far", "with the origin moved, it is {}", error_ours, at_most=1e-12)
    return {"error_plain": error_plain, "error_ours": error_ours}


# Pictures: skip on a first reading


def draw_broadcasting(cfg: Config) -> None:
    row = np.arange(4).reshape(1, 4)
    column = np.arange(0, 30, 10).reshape(3, 1)
    table = np.arange(0, 120, 10).reshape(3, 4)
    figure, axis = new_figure(size=(10.4, 6.2))
    for top, a, shapes in ((0, table, "(3, 4)\n   (4,)"), (-4.1, column, "(3, 1)\n(1, 4)")):
        axis.text(0, top - 0.6, shapes, family="monospace", fontsize=14, va="center")
        axis.text(8, top - 0.6, "+", fontsize=20, ha="center", va="center")
        axis.text(13.3, top - 0.6, "=", fontsize=20, ha="center", va="center")
        draw_cells(axis, a, 3.4, top, BLUE)
        draw_cells(axis, row, 8.7, top, ORANGE)
        draw_cells(axis, a + row, 14, top, GREY)

    axis.text(0, -8.8, "(3, 4)\n   (3,)", family="monospace", fontsize=14, va="center")
    axis.text(8, -8.8, "+", fontsize=20, ha="center", va="center")
    draw_cells(axis, table, 3.4, -8.2, BLUE)
    draw_cells(axis, row[:, 1:], 9.7, -8.2, RED, stretched=False)
    refusal = "4 against 3, neither\nis 1: ValueError"
    axis.text(14, -8.8, refusal, color=RED, va="center", fontweight="bold")

    legend = "solid: in memory · pale: the same number, read again (stride 0)"
    axis.text(3.4, 1.35, legend, color=GREY)
    axis.set(xlim=(-0.2, 18.4), ylim=(-10.6, 2))
    axis.set_title("Write the shapes flush right; a length of 1 stretches")
    axis.set_aspect("equal")
    axis.axis("off")
    save_figure(figure, cfg.out / "broadcasting")


def draw_cells(
    axis, part: np.ndarray, left: float, top: float, colour: str, stretched: bool = True
) -> None:
    """The numbers of a part, and pale ones where it is stretched to (3, 4)."""
    from matplotlib.patches import Rectangle

    shown = stretch(part, (3, 4)) if stretched else part
    for (i, j), value in np.ndenumerate(shown):
        is_stored = i < part.shape[0] and j < part.shape[1]
        alpha = 1 if is_stored else 0.22
        text_colour = "white" if is_stored else GREY
        axis.add_patch(Rectangle((left + j, top - i), 0.92, 0.92, color=colour, alpha=alpha))
        place = {"ha": "center", "va": "center", "fontsize": 12, "fontweight": "bold"}
        axis.text(left + j + 0.46, top - i + 0.43, value, color=text_colour, **place)


def draw_distances(cfg: Config) -> None:
    height = cfg.width * 2 // 3
    across, up = np.meshgrid(np.linspace(0, 3, cfg.width), np.linspace(0, 2, height))
    pixels = np.stack([across.ravel(), up.ravel()], axis=1)  # (height * width, 2)
    dots = cfg.rng().random((12, 2)) * [3, 2]
    gaps = distances(pixels, dots)  # (height * width, 12)
    nearest = gaps.argmin(axis=1).reshape(height, cfg.width)
    gap = gaps.min(axis=1).reshape(height, cfg.width)

    figure, axis = new_figure(size=(7.6, 5.4))
    axis.imshow(nearest, cmap="Paired", extent=(0, 3, 0, 2), origin="lower")
    axis.contour(gap, levels=8, extent=(0, 3, 0, 2), colors="white", linewidths=1)
    axis.plot(*dots.T, "o", color="black", markersize=6)
    axis.set_title(f"{gaps.size:,} distances in one call: which dot is nearest?")
    axis.axis("off")
    save_figure(figure, cfg.out / "distances")


def run(cfg: Config) -> dict[str, float]:
    show_broadcasting(cfg)
    show_axes(cfg)
    show_einsum(cfg)
    largest_score = show_softmax(cfg)
    errors = show_distances(cfg)
    draw_broadcasting(cfg)
    draw_distances(cfg)
    return {"largest_score": largest_score, **errors}


if __name__ == "__main__":
    main(run, Config, __doc__)
