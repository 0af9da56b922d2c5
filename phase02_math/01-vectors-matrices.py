"""2.1 Vectors and matrices: a matrix moves space, and you can see what it keeps
向量与矩阵：看矩阵怎样变换空间，又保留了什么

You will be able to answer
    1. Which point of a plane is nearest?   show_nearest   norms, by-hand, orthogonal, nearest, kept
    2. Which points can vectors reach?      show_span      span, basis
    3. What does a matrix lose?             show_rank      rank-nullity, null-space, tolerance
    4. What does the determinant measure?   show_area      determinant, area
    5. What is the same in every basis?     show_basis     diagonal, invariant
Predict   kept: projected from 100 dimensions onto 25, what share of its length has a random vector?
Run       python phase02_math/01-vectors-matrices.py                       about 3 s
Needs     -
Reference np.linalg.norm, np.linalg.det, np.linalg.matrix_rank, np.linalg.lstsq
Notation  m, n rows and columns of a matrix  r rank  q matrix whose columns are orthonormal
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from common.checks import check, check_close
from common.config import LessonConfig, main, param
from common.figures import BLUE, GREEN, GREY, RED, SKY, YELLOW, new_figure, save_figure

# x and y of the corners
SQUARE = ([-1, 1, 1, -1], [-1, -1, 1, 1])
# an F, because no rotation or reflection turns it into itself
LETTER_F = (
    [-0.5, 0.5, 0.5, -0.1, -0.1, 0.3, 0.3, -0.1, -0.1, -0.5],
    [0.9, 0.9, 0.5, 0.5, 0.2, 0.2, -0.2, -0.2, -0.9, -0.9],
)
MAPS = {
    "rotate": [[0.8, -0.6], [0.6, 0.8]],
    "stretch": [[1.8, 0.0], [0.0, 0.6]],
    "shear": [[1.0, 0.8], [0.0, 1.0]],
    "reflect": [[0.6, 0.8], [0.8, -0.6]],
    "mix": [[0.4, -1.3], [1.5, 0.5]],
    "flatten": [[1.0, 0.8], [0.5, 0.4]],
}


@dataclass
class Config(LessonConfig):
    points: int = param(200_000, "random points that measure an area", tiny=40_000, low=1_000)
    matrices: int = param(200, "random matrices whose rank is known", tiny=30, low=20)


def norm(x: np.ndarray, p: float) -> float:
    """The p-norm of a vector: (sum |x_i|^p)^(1/p), and for p = inf the largest |x_i|."""
    sizes = np.abs(x)
    if p == np.inf:
        return sizes.max()
    return (sizes**p).sum() ** (1 / p)


def project(x: np.ndarray, q: np.ndarray) -> np.ndarray:
    """The point nearest to x among all that q's columns can reach.

    x: (m,). q: (m, r), whose columns are orthonormal: at right angles and of length 1. -> (m,)
    """
    # practice: Add up the parts along each direction
    nearest = np.zeros(len(x))
    for direction in q.T:
        length = direction @ x
        nearest = nearest + length * direction

    return nearest
    # end practice


def show_nearest(cfg: Config) -> float:
    print("\n[1] A norm decides what is near; for p = 2 a right angle finds the nearest point")
    x = np.array([3.0, -4.0])
    ours = [norm(x, p) for p in (1, 2, 3, np.inf)]
    text = "the length of (3, -4) is 7, 5, the cube root of 91, and 4 for p = 1, 2, 3 and ∞"
    check_close("norms", text, ours, [7, 5, 91 ** (1 / 3), 4])

    line = np.array([[1.0], [1.0]]) / np.sqrt(2)
    ours = project(np.array([3.0, 1.0]), line)
    text = "(2, 2) is the point nearest to (3, 1) on the line along (1, 1)"
    check_close("by-hand", text, ours, [2, 2])

    rng = cfg.rng()
    vectors = rng.normal(size=(6, 3))
    x = rng.normal(size=6)
    q, _ = np.linalg.qr(vectors)  # columns at right angles that reach the same points (1.3)
    nearest = project(x, q)
    rest = x - nearest
    text = "x minus its nearest point is at right angles to three vectors in six dimensions"
    check_close("orthogonal", text, vectors.T @ rest, [0, 0, 0])

    others = nearest + rng.normal(size=(1000, 3)) @ vectors.T  # (1000, 6), in the same subspace
    squared_distances = ((x - others) ** 2).sum(axis=1)
    squared_detours = ((nearest - others) ** 2).sum(axis=1)
    text = "1,000 other points of that space: distance² = shortest² + (distance to the nearest)²"
    check_close("nearest", text, squared_distances, rest @ rest + squared_detours)

    shares = []
    for _ in range(200):
        x = rng.normal(size=100)
        q, _ = np.linalg.qr(rng.normal(size=(100, 25)))
        shares.append(norm(project(x, q), 2) / norm(x, 2))
    kept = float(np.mean(shares))
    text = "projected from 100 dimensions onto 25, a random vector keeps {} of its length"
    check("kept", text, kept, above=0.45, below=0.55)
    return kept


def orthonormal_basis(vectors: np.ndarray, tol: float = 1e-10) -> np.ndarray:
    """Directions at right angles that reach just what the vectors reach, and no direction twice.

    vectors: (m, n), the columns. -> (m, r) with orthonormal columns. This is Gram–Schmidt (1.3),
    but a vector is left out if all but a share tol of it is reached already.
    """
    q = np.zeros((len(vectors), 0))
    for v in vectors.T:
        negligible = tol * norm(v, 2)  # relative: the unit of measurement must not matter
        # practice: Keep only what is new
        rest = v - project(v, q)

        # If little is left, v's rounding errors are large beside it, so subtract again.
        rest = rest - project(rest, q)

        length = norm(rest, 2)
        if length > negligible:
            q = np.column_stack([q, rest / length])
        # end practice
    return q


def show_span(cfg: Config) -> None:
    print("\n[2] Three arrows need not reach more than two do")
    u = np.array([1.0, 2.0, 0.0])
    v = np.array([0.0, 1.0, 1.0])
    plane = orthonormal_basis(np.column_stack([u, v, 2 * u - v]))
    text = "(1, 2, 0), (0, 1, 1) and (2, 3, -1) have {} directions and reach no more than a plane"
    check("span", text, plane.shape[1], at_least=2, at_most=2)

    # Columns of the Hilbert matrix (1.3), which are nearly parallel, and very short besides.
    index = np.arange(6)
    hilbert = 1e-12 / (index[:, None] + index + 1)
    q = orthonormal_basis(hilbert)
    text = "of six short, nearly parallel vectors too the basis has length 1 and right angles"
    check_close("basis", text, q.T @ q, np.eye(6))


def null_space(a: np.ndarray) -> np.ndarray:
    """An orthonormal basis of all x with a @ x = 0. a: (m, n) -> (n, n - r)"""
    rows = orthonormal_basis(a.T)  # (n, r)

    # Go on until all of space is reached: what comes after the rows is at right angles to each of
    # them, and that is what a @ x = 0 says.
    everything = orthonormal_basis(np.column_stack([rows, np.eye(a.shape[1])]))  # (n, n)
    return everything[:, rows.shape[1] :]


def show_rank(cfg: Config) -> None:
    print("\n[3] What the rows do not reach is sent to zero: rank + nullity = columns")
    rng = cfg.rng()
    found = []
    built = []
    largest = 0.0
    for _ in range(cfg.matrices):
        m, n = rng.integers(1, 8, size=2)
        r = rng.integers(0, min(m, n) + 1)

        # The product of an m x r and an r x n matrix has rank r, before anyone measures it.
        a = rng.normal(size=(m, r)) @ rng.normal(size=(r, n))
        lost = null_space(a)
        columns = orthonormal_basis(a).shape[1]
        rows = orthonormal_basis(a.T).shape[1]
        found.append([columns, rows, lost.shape[1]])
        built.append([r, r, n - r])

        slant = np.abs(lost.T @ lost - np.eye(lost.shape[1])).max(initial=0)
        largest = max(largest, slant, np.abs(a @ lost).max(initial=0))

    text = f"{cfg.matrices} matrices of known rank r: r by columns, r by rows, null space n - r"
    check_close("rank-nullity", text, found, built)
    text = "the bases of the null spaces are orthonormal and sent to zero, up to {}"
    check("null-space", text, largest, below=1e-10)

    wavering = np.array([[1.0, 1.0], [0.0, 1e-11]])
    ranks = [orthonormal_basis(wavering).shape[1], orthonormal_basis(wavering.T).shape[1]]
    text = "in floats rank needs a tolerance: rows (1, 1), (0, 1e-11) have 1 by columns, 2 by rows"
    check_close("tolerance", text, ranks, [1, 2])


def determinant(a: np.ndarray) -> float:
    """Expansion along the first column, in about n! steps. a: (n, n) with n of 1 or more."""
    # practice: A large determinant from smaller ones
    if len(a) == 1:
        return a[0, 0]

    total = 0.0
    for i, entry in enumerate(a[:, 0]):
        minor = np.delete(a[:, 1:], i, axis=0)  # (n - 1, n - 1), without row i and column 0
        total = total + (-1) ** i * entry * determinant(minor)
    return total
    # end practice


def area_scale(a: np.ndarray, inside: Callable, area: float, thrown: np.ndarray) -> float:
    """By how much the map a enlarges a shape, measured with random points and no formula.

    a: (2, 2). inside: (2, n) -> (n,), which points lie in the shape, which has this area and lies
    in the square from -1 to 1. thrown: (2, n) random numbers from 0 to 1.
    """
    # A box around the moved square holds the moved shape too.
    corners = a @ SQUARE
    low = corners.min(axis=1, keepdims=True)
    high = corners.max(axis=1, keepdims=True)
    points = low + (high - low) * thrown  # (2, n)

    # A point is in the moved shape if, moved back, it is in the shape.
    share = inside(np.linalg.solve(a, points)).mean()
    return share * np.prod(high - low) / area


def in_disc(points: np.ndarray) -> np.ndarray:
    x, y = points
    return x**2 + y**2 <= 1


def in_triangle(points: np.ndarray) -> np.ndarray:
    x, y = points
    return (np.abs(x) <= y) & (y <= 1)


def show_area(cfg: Config) -> dict[str, float]:
    print("\n[4] The determinant is the factor by which areas grow, whatever the shape")
    rng = cfg.rng()
    stack = rng.normal(size=(20, 4, 4))
    ours = [determinant(a) for a in stack]
    text = "20 random 4x4 matrices have the determinants that NumPy finds"
    check_close("determinant", text, ours, np.linalg.det(stack))

    print(f"  {'map':<10}{'determinant':>12}{'disc grew':>12}{'triangle grew':>15}")
    errors = []
    areas = {}
    for name, rows in MAPS.items():
        a = np.array(rows)
        exact = determinant(a)
        if name == "flatten":
            # All of the plane lands on a line. It has no area, and there is no way back.
            print(f"  {name:<10}{exact:>12.2f}{0:>12}{0:>15}")
            continue
        disc = area_scale(a, in_disc, np.pi, rng.random((2, cfg.points)))
        triangle = area_scale(a, in_triangle, 1.0, rng.random((2, cfg.points)))
        print(f"  {name:<10}{exact:>12.2f}{disc:>12.3f}{triangle:>15.3f}")
        errors += [abs(disc / abs(exact) - 1), abs(triangle / abs(exact) - 1)]
        if name == "mix":
            areas = {"mix_det": exact, "mix_area": triangle}

    # How many points hit is a matter of chance, hence the tolerance.
    text = "ten areas measured with random points are |det|, off by a share of {} at most"
    check("area", text, max(errors), at_most=0.06)
    return {**areas, "worst_area": max(errors)}


def in_basis(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The same map in the coordinates of the basis b: b⁻¹ a b. a, b: (n, n) -> (n, n)"""
    return np.linalg.solve(b, a @ b)


def show_basis(cfg: Config) -> None:
    print("\n[5] Another basis gives other numbers to the same map")
    reflection = np.array(MAPS["reflect"])
    along = np.array([2.0, 1.0])  # on the line of reflection: stays as it is
    across = np.array([-1.0, 2.0])  # at a right angle to it: is turned round
    theirs = in_basis(reflection, np.column_stack([along, across]))
    text = "in the basis (2, 1), (-1, 2) the reflection keeps one axis and turns the other round"
    check_close("diagonal", text, theirs, [[1, 0], [0, -1]])

    a, b = cfg.rng().normal(size=(2, 3, 3))
    theirs = in_basis(a, b)
    ours = [np.trace(a), determinant(a)]
    text = "trace and determinant are the same in a random basis"
    check_close("invariant", text, [np.trace(theirs), determinant(theirs)], ours)


# Pictures: skip on a first reading


def draw_nearest(cfg: Config) -> None:
    """Let a ball around x grow until it touches a line. Where that is depends on the norm."""
    x = np.array([0.4, 2.2])
    direction = np.array([2.0, 1.0]) / np.sqrt(5)
    steps = np.linspace(0, 4, 401)
    circle = np.array([np.cos(steps * np.pi / 2), np.sin(steps * np.pi / 2)])

    figure, axis = new_figure(size=(7.2, 6.0))
    axis.plot(*np.outer(direction, [-0.8, 4.2]), color="black")
    for p, colour, name in ((1, RED, "1"), (2, BLUE, "2"), (np.inf, GREEN, "∞")):
        distances = [norm(x - step * direction, p) for step in steps]
        touch = steps[np.argmin(distances)] * direction
        ball = min(distances) * circle / [norm(point, p) for point in circle.T]
        axis.plot(*(x[:, None] + ball), color=colour)
        axis.plot(*np.column_stack([x, touch]), "o--", color=colour, markersize=9)
        label = {"xytext": (9, -15), "textcoords": "offset points", "color": colour}
        axis.annotate(f"p = {name}", touch, **label)
    axis.text(x[0] - 0.05, x[1] + 0.12, "x", fontweight="bold", fontsize=15)
    axis.set(aspect="equal", xlim=(-1.9, 3.6), title="The nearest point of a line, by norm")
    save_figure(figure, cfg.out / "nearest")


def draw_grids(cfg: Config) -> None:
    """What each matrix does to a grid, to an F, and to the two axis arrows."""
    from matplotlib.collections import LineCollection

    lines = []
    for at in np.linspace(-4, 4, 17):
        lines += [[[at, -4], [at, 4]], [[-4, at], [4, at]]]
    lines = np.array(lines)  # (lines, ends, 2)

    ticks = range(-2, 3)
    figure, axes = new_figure(2, 3, size=(11.4, 8.2))
    for axis, (name, rows) in zip(axes.ravel(), MAPS.items()):
        a = np.array(rows)
        axis.add_collection(LineCollection(lines @ a.T, colors=SKY, linewidths=1, zorder=1))
        axis.fill(*LETTER_F, color=GREY, alpha=0.35, zorder=2)
        axis.fill(*(a @ LETTER_F), color=YELLOW, alpha=0.9, zorder=3)
        in_data = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.018, "zorder": 4}
        axis.quiver(0, 0, *a[:, 0], color=RED, **in_data)
        axis.quiver(0, 0, *a[:, 1], color=BLUE, **in_data)

        axis.set_title(f"{name}: determinant {determinant(a):.2f}")
        matrix = "\n".join(f"{left:5.2f}  {right:5.2f}" for left, right in rows)
        axis.set_xlabel(matrix, family="monospace")
        axis.set(xlim=(-2, 2), ylim=(-2, 2), aspect="equal", xticks=ticks, yticks=ticks)

    title = "Red and blue: where the axes land, the columns of the matrix"
    figure.suptitle(title, x=0.01, ha="left")
    save_figure(figure, cfg.out / "grids")


def run(cfg: Config) -> dict[str, float]:
    kept = show_nearest(cfg)
    show_span(cfg)
    show_rank(cfg)
    areas = show_area(cfg)
    show_basis(cfg)
    draw_nearest(cfg)
    draw_grids(cfg)
    return {"kept": kept, **areas}


if __name__ == "__main__":
    main(run, Config, __doc__)
