"""1.2 NumPy operations: broadcasting replaces the loop
NumPy 运算：用广播代替循环

You will be able to answer
    1. What is a matrix product, entry by entry and as a step?   show_matmul         matmul, compose, order
    2. When do two shapes fit together, and what is copied?      show_broadcasting   rule, refused, stretch, no-copy
    3. Which axis does a sum remove, and why keep it?            show_axes           axis, keepdims, silent
    4. How does one line of letters say any sum of products?     show_einsum         einsum, einsum-matmul
    5. Why does softmax subtract the largest score first?        show_softmax        softmax, shift, overflow
    6. How do you get all distances without a loop?              show_distances      distances, self, far
Run       python phase01_data_science/02-numpy-operations.py               about 2 s
Needs     -
Notation  n, m number of points  d coordinates of a point
"""

from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import scipy

from common.checks import check, check_close
from common.config import LessonConfig, main, param
from common.figures import BLUE, GREY, ORANGE, RED, new_figure, save_figure


@dataclass
class Config(LessonConfig):
    width: int = param(480, "pixels across the map of nearest dots", tiny=45, low=3)


def broadcast_shape(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of x + y from the shapes of x and y alone. Raises ValueError when they do not fit."""
    # practice: when do two shapes fit, and what comes out?
    # hint: write the shapes under each other, flush right; a missing length counts as 1
    # hint: two lengths fit when they are equal or one of them is 1; then the other one wins, even when it is 0
    # hint: shape = [], then for n, m in zip_longest(reversed(a), reversed(b), fillvalue=1): …
    shape = []
    for n, m in zip_longest(reversed(a), reversed(b), fillvalue=1):
        if n != m and n != 1 and m != 1:
            raise ValueError(f"{a} and {b} do not fit: {n} against {m}")
        shape.append(m if n == 1 else n)
    shape.reverse()
    # end practice
    return tuple(shape)


def stretch(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """x as if it had been repeated to `shape`, without copying: an axis with stride 0 reads the same number again."""
    # practice: repeat without repeating
    # hint: lesson 1.1: a stride says how far away the next element is; how far is "the same one again"?
    # hint: new axes on the left, and those of length 1 that must grow, get stride 0; missing = len(shape) - x.ndim
    missing = len(shape) - x.ndim
    strides = [0] * missing
    for length, wanted, stride in zip(x.shape, shape[missing:], x.strides):
        strides.append(stride if length == wanted else 0)
    view = np.lib.stride_tricks.as_strided(x, shape, strides, writeable=False)
    # end practice
    return view


def einsum(formula: str, *operands: np.ndarray) -> np.ndarray:
    """einsum("ij,jk->ik", a, b): one axis for every letter, multiply, add up the letters that the result lacks."""
    inputs, output = formula.split("->")
    letters = output + "".join(sorted(set(inputs) - set(output) - {","}))
    # practice: a letter is an axis
    # hint: turn each operand into the order of `letters`; indexing with None inserts an axis that it lacks
    # hint: product = 1, then for names, operand in zip(inputs.split(","), operands): …
    product = 1
    for names, operand in zip(inputs.split(","), operands):
        turned = operand.transpose([names.index(letter) for letter in letters if letter in names])
        product = (
            product * turned[tuple(slice(None) if letter in names else None for letter in letters)]
        )
    product = product.sum(axis=tuple(range(len(output), len(letters))))
    # end practice
    return product


def softmax(scores: np.ndarray, axis: int = -1) -> np.ndarray:
    """Scores -> positive shares that add up to 1 along `axis`, in the same shape."""
    # practice: shares that survive large scores
    # hint: subtracting the same number from all scores changes no share; which one leaves no exponent above 0?
    # hint: top = scores.max(axis=axis, keepdims=True)
    top = scores.max(axis=axis, keepdims=True)
    weights = np.exp(scores - top)
    weights = weights / weights.sum(axis=axis, keepdims=True)
    # end practice
    return weights


def distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(n, d), (m, d) -> (n, m), from |x - y|² = |x|² + |y|² - 2 x·y: no loop, and no (n, m, d) array in between."""
    # practice: all pairs at once
    # hint: the three terms have shapes (n, 1), (m,) and (n, m): broadcasting adds them up
    # hint: first x, y = x - middle, y - middle, or large coordinates eat the digits; round-off can go below 0
    middle = y.mean(axis=0)
    x, y = x - middle, y - middle
    squares = (x * x).sum(axis=1)[:, None] + (y * y).sum(axis=1) - 2 * x @ y.T
    squares = np.maximum(squares, 0)
    # end practice
    return np.sqrt(squares)


def show_matmul(cfg: Config) -> None:
    print("\n[1] A matrix product: rows against columns, and one step after another")
    a, b, v = (cfg.rng().normal(size=shape) for shape in ((3, 4), (4, 2), 2))
    by_hand = [[(row * column).sum() for column in b.T] for row in a]
    check_close("matmul", "every entry is one row times one column, added up", by_hand, a @ b)
    check_close(
        "compose",
        "(a b) v = a (b v): both steps in one matrix, the right one first",
        by_hand @ v,
        a @ (b @ v),
    )
    turn, double_x = np.array([[0, -1], [1, 0]]), np.array([[2, 0], [0, 1]])
    print(
        f"  turn then widen: {(double_x @ turn).tolist()}; widen then turn: {(turn @ double_x).tolist()}"
    )
    check(
        "order",
        "so the order matters; and * is neither, it works entry by entry",
        not np.array_equal(turn @ double_x, double_x @ turn) and not (turn * double_x).any(),
    )


def show_broadcasting(cfg: Config) -> None:
    print("\n[2] Shapes are compared from the right; 1 stretches, everything else must be equal")
    rng = cfg.rng()
    pairs = [
        [tuple(rng.choice([0, 1, 1, 2, 3], rng.integers(0, 5)).tolist()) for _ in "ab"]
        for _ in range(200)
    ]
    ours, theirs = (
        [shape_or_error(rule, a, b) for a, b in pairs]
        for rule in (broadcast_shape, np.broadcast_shapes)
    )
    for a, b in (((3, 4), (4,)), ((3, 1), (1, 4)), ((5, 1, 4), (3, 1)), ((3, 4), (3,))):
        print(f"  {str(a):>10}  with {str(b):<8} ->  {shape_or_error(broadcast_shape, a, b)}")
    check(
        "rule",
        f"our rule agrees with np.broadcast_shapes on {len(pairs)} random pairs",
        ours == theirs,
    )
    check(
        "refused",
        "among them pairs that both refuse",
        theirs.count("error"),
        at_least=20,
        at_most=180,
    )
    x, column = np.arange(4.0), np.arange(3.0)[:, None]
    check_close(
        "stretch",
        "stretching with stride 0 equals np.broadcast_to",
        [stretch(a, (3, 4)) for a in (x, column)],
        [np.broadcast_to(a, (3, 4)) for a in (x, column)],
    )
    million = stretch(x, (1_000_000, 4))
    check(
        "no-copy",
        f"4 numbers read as {million.size:,}, in the same {x.nbytes} bytes: strides {million.strides}",
        np.shares_memory(million, x),
    )
    draw_broadcasting(cfg)


def shape_or_error(function, a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...] | str:
    try:
        return function(a, b)
    except ValueError:
        return "error"


def show_axes(cfg: Config) -> None:
    print(
        "\n[3] sum(axis=k) removes axis k; keepdims=True leaves a 1 there, so that the result still fits"
    )
    x = cfg.rng().normal(size=(2, 3, 4))
    print(
        f"  {x.shape} summed over axis 0, 1, 2: "
        + "  ".join(str(x.sum(axis=axis).shape) for axis in range(3))
    )
    check(
        "axis",
        "laying the slices along an axis on each other equals .sum(axis)",  # Python's sum adds slices
        all(np.allclose(sum(np.moveaxis(x, axis, 0)), x.sum(axis=axis)) for axis in range(3)),
    )
    table = np.array([[1.0, 2, 3], [10, 20, 30], [100, 200, 300]])
    right, wrong = table - table.mean(axis=1, keepdims=True), table - table.mean(axis=1)
    print(
        f"  row means after removing the row means: {right.mean(axis=1)}; without keepdims {wrong.mean(axis=1)}"
    )
    check_close(
        "keepdims", "with keepdims every row's mean becomes 0", right.mean(axis=1), np.zeros(3)
    )
    check(
        "silent",
        "without it a square table raises nothing, and takes row means from columns",
        np.array_equal(wrong[:, 0], table[:, 0] - table[0].mean())
        and not np.allclose(wrong.mean(axis=1), 0),
    )


def show_einsum(cfg: Config) -> None:
    print("\n[4] einsum: name the axes, and say which survive")
    a, b, t = (cfg.rng().normal(size=shape) for shape in ((3, 4), (4, 5), (2, 3, 4)))
    formulas = {
        "ij->ji": (a,),
        "ij->i": (a,),
        "i,j->ij": (a[0], b[0]),
        "ij,jk->ik": (a, b),
        "bij,bkj->bik": (t, t),
        "bij,jk->bik": (t, b),
        "ij,jk,ik->k": (a, b, a @ b),
    }
    meanings = (
        "transpose",
        "row sums",
        "outer product",
        "matrix product",
        "rows against rows, for every sample b",
        "one matrix for every sample",
        "three at once",
    )
    for formula, meaning in zip(formulas, meanings):
        print(f"  {formula:<14}{meaning}")
    check_close(
        "einsum",
        f"our einsum equals np.einsum for these {len(formulas)}",
        np.concatenate([np.ravel(einsum(f, *args)) for f, args in formulas.items()]),
        np.concatenate([np.ravel(np.einsum(f, *args)) for f, args in formulas.items()]),
    )
    check_close(
        "einsum-matmul", "ij,jk->ik is the matrix product", einsum("ij,jk->ik", a, b), a @ b
    )


def show_softmax(cfg: Config) -> None:
    print(
        "\n[5] Softmax turns scores into shares; written as in the book it breaks at a score of 710"
    )
    scores = cfg.rng().normal(size=(4, 4)) * 3
    check_close(
        "softmax",
        "equals scipy's softmax, along rows and along columns",
        [softmax(scores), softmax(scores, 0)],
        [scipy.special.softmax(scores, axis=axis) for axis in (1, 0)],
    )
    check_close(
        "shift",
        "adding 100 to every score changes no share",
        softmax(scores + 100),
        softmax(scores),
    )
    large = np.array([1000.0, 1001.0, 1002.0])
    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # NumPy would warn; so do not overlook its warnings
        naive = np.exp(large) / np.exp(large).sum()
    print(f"  scores {large}: as in the book {naive}, ours {softmax(large).round(3)}")
    check(
        "overflow",
        "the naive form gives nan, the stable one the shares of the scores 0, 1, 2",
        np.isnan(naive).all()
        and np.allclose(softmax(large), np.exp([0, 1, 2]) / np.exp([0, 1, 2]).sum()),
    )


def show_distances(cfg: Config) -> dict:
    print("\n[6] All distances between two sets of points, without a loop")
    rng = cfg.rng()
    x, y = rng.normal(size=(60, 3)), rng.normal(size=(40, 3)) + 0.5
    check_close(
        "distances",
        "equals scipy, 60 by 40 points",
        distances(x, y),
        scipy.spatial.distance.cdist(x, y),
    )
    check(
        "self",
        "a point is 0 away from itself, never nan: at most",
        np.diag(distances(x, x)).max(),
        at_most=1e-6,
    )
    print("  points moved by   plain formula is off by   ours by")
    for offset in (1.0, 1e2, 1e4, 1e6, 1e8):
        p, q = x + offset, y + offset
        true = np.sqrt(
            ((p[:, None] - q) ** 2).sum(axis=2)
        )  # safe, but (n, m, d) numbers in between
        plain = np.sqrt(
            np.maximum((p * p).sum(axis=1)[:, None] + (q * q).sum(axis=1) - 2 * p @ q.T, 0)
        )
        off, off_ours = (abs(found / true - 1).max() for found in (plain, distances(p, q)))
        print(f"  {offset:>14.0e}{off:>26.0e}{off_ours:>10.0e}")
    check(
        "far",
        "10⁸ away, ours is right to 12 digits, the plain one to none",
        off_ours < 1e-12 and off > 0.5,
    )
    draw_distances(cfg)
    return {"error_plain": off, "error_ours": off_ours}


def draw_broadcasting(cfg: Config) -> None:
    from matplotlib.patches import Rectangle

    row, column, table = (
        np.arange(4)[None],
        np.arange(0, 30, 10)[:, None],
        np.arange(0, 120, 10).reshape(3, 4),
    )
    pairs = [
        ("(3, 4)\n   (4,)", table, row),
        ("(3, 1)\n(1, 4)", column, row),
        ("(3, 4)\n   (3,)", table, row[:, 1:]),
    ]
    figure, axis = new_figure(size=(10.4, 6.2))
    for top, (shapes, a, b) in zip((0, -4.1, -8.2), pairs):
        fits = b.shape[1] == 4
        axis.text(0, top - 0.6, shapes, family="monospace", fontsize=14, va="center")
        for left, sign, part, colour in (
            (3.4, "", a, BLUE),
            (8.7, "+", b, ORANGE if fits else RED),
            (14, "=", a + b if fits else np.empty((0, 4)), GREY),
        ):
            axis.text(left - 0.7, top - 0.6, sign, fontsize=20, ha="center", va="center")
            left += 0 if fits else 4 - part.shape[1]
            for (i, j), value in np.ndenumerate(np.broadcast_to(part, (3, 4)) if fits else part):
                stored = i < part.shape[0] and j < part.shape[1]
                axis.add_patch(
                    Rectangle(
                        (left + j, top - i), 0.92, 0.92, color=colour, alpha=1 if stored else 0.22
                    )
                )
                axis.text(
                    left + j + 0.46,
                    top - i + 0.43,
                    value,
                    ha="center",
                    va="center",
                    fontsize=12,
                    color="white" if stored else GREY,
                    fontweight="bold",
                )
    axis.text(
        14,
        -8.8,
        "4 against 3, neither\nis 1: ValueError",
        color=RED,
        va="center",
        fontweight="bold",
    )
    axis.set(
        xlim=(-0.2, 18.4),
        ylim=(-10.6, 2),
        title="Write the shapes flush right; a length of 1 stretches",
    )
    axis.set_aspect("equal")
    axis.axis("off")
    axis.text(
        3.4, 1.35, "solid: in memory · pale: the same number, read again (stride 0)", color=GREY
    )
    save_figure(figure, cfg.out / "broadcasting")


def draw_distances(cfg: Config) -> None:
    shape = cfg.width * 2 // 3, cfg.width
    pixels = np.stack(
        np.meshgrid(np.linspace(0, 3, shape[1]), np.linspace(0, 2, shape[0])), axis=-1
    ).reshape(-1, 2)
    dots = cfg.rng().random((12, 2)) * [3, 2]
    gap = distances(pixels, dots)  # (pixels, 12) in one go
    figure, axis = new_figure(size=(7.6, 5.4))
    axis.imshow(
        gap.argmin(axis=1).reshape(shape), cmap="Paired", extent=(0, 3, 0, 2), origin="lower"
    )
    axis.contour(
        gap.min(axis=1).reshape(shape), levels=8, extent=(0, 3, 0, 2), colors="white", linewidths=1
    )
    axis.plot(*dots.T, "o", color="black", markersize=6)
    axis.set_title(f"{gap.size:,} distances in one call: whose dot is nearest?")
    axis.axis("off")
    save_figure(figure, cfg.out / "distances")


def run(cfg: Config) -> dict:
    show_matmul(cfg)
    show_broadcasting(cfg)
    show_axes(cfg)
    show_einsum(cfg)
    show_softmax(cfg)
    return show_distances(cfg)


if __name__ == "__main__":
    main(run, Config, __doc__)
