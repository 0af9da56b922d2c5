"""2.1 Vectors and matrices: a matrix moves space, and you can see what it keeps
向量与矩阵：矩阵搬动空间，而它保留了什么一眼可见

You will be able to answer
    1. How long is a vector, and who says so?                          show_norms        norms, norm-order
    2. Which points do some vectors reach, and which are superfluous?  show_span         span, basis
    3. Which point of a plane is nearest to mine?                      show_projection   orthogonal, nearest, fit
    4. What does a matrix lose, and how much is left?                  show_rank         rank, null-space, rank-nullity
    5. What does the determinant measure?                              show_area         determinant, area
    6. What stays the same when I describe the map in another basis?   show_basis        change, invariant, diagonal
Run       python phase02_math/01-vectors-matrices.py                       about 3 s
Needs     -
Notation  m, n rows and columns of a matrix  r rank  Q matrix whose columns are orthonormal
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from common.checks import check, check_close
from common.config import LessonConfig, main, param
from common.figures import BLUE, GREEN, GREY, ORANGE, RED, SKY, new_figure, save_figure

SQUARE = (-1, 1, 1, -1), (-1, -1, 1, 1)  # x and y of its corners
LETTER = (
    (-0.5, 0.5, 0.5, -0.1, -0.1, 0.3, 0.3, -0.1, -0.1, -0.5),  # an F has no symmetry to hide behind
    (0.9, 0.9, 0.5, 0.5, 0.2, 0.2, -0.2, -0.2, -0.9, -0.9),
)
MAPS = {
    "rotate": ((0.8, -0.6), (0.6, 0.8)),
    "stretch": ((1.8, 0.0), (0.0, 0.6)),
    "shear": ((1.2, 0.8), (0.0, 1.2)),
    "mirror": ((0.6, 0.8), (0.8, -0.6)),
    "mix": ((0.4, -1.3), (1.5, 0.5)),
    "flatten": ((1.2, 0.8), (0.6, 0.4)),
}


@dataclass
class Config(LessonConfig):
    points: int = param(400_000, "random points that measure an area", tiny=20_000, low=1_000)
    matrices: int = param(200, "random matrices for rank and determinant", tiny=20)


def norm(x: np.ndarray, p: float) -> float:
    """The p-norm of a vector: (sum |x_i|^p)^(1/p), and for p = inf the largest |x_i|."""
    sizes = np.abs(x)
    if p == np.inf:
        return sizes.max()
    return (sizes**p).sum() ** (1 / p)


def project(x: np.ndarray, q: np.ndarray) -> np.ndarray:
    """The nearest point to x in the span of q's columns, which are orthonormal. x: (m,), q: (m, r) -> (m,)"""
    # practice: drop a perpendicular
    # hint: along one unit vector u the shadow has length u·x, and shadows on perpendicular vectors add up
    # hint: shadow = np.zeros(len(x)), then for u in q.T: …
    shadow = np.zeros(len(x))
    for u in q.T:
        shadow = shadow + (u @ x) * u
    # end practice
    return shadow


def orthonormal_basis(vectors: np.ndarray, tol: float = 1e-10) -> np.ndarray:
    """Gram–Schmidt without what is reached already. vectors: (m, n), the columns -> (m, r) orthonormal columns."""
    q = np.zeros((len(vectors), 0))
    for v in vectors.T:
        negligible = tol * norm(v, 2)  # relative: the unit of measurement must not matter
        # practice: keep only what is new
        # hint: take away what the directions so far can reach; rounding leaves a trace of it, so take it away again
        # hint: rest = v - project(v, q), twice; what is not negligible is made as long as 1 and joins q
        rest = v - project(v, q)
        rest = rest - project(rest, q)
        length = norm(rest, 2)
        if length > negligible:
            q = np.column_stack([q, rest / length])
        # end practice
    return q


def null_space(a: np.ndarray) -> np.ndarray:
    """An orthonormal basis of all x with a @ x = 0. a: (m, n) -> (n, n - r)"""
    rows = orthonormal_basis(a.T)  # go on from the rows: what follows is perpendicular
    return orthonormal_basis(np.column_stack([rows, np.eye(a.shape[1])]))[:, rows.shape[1] :]


def determinant(a: np.ndarray) -> float:
    """Expansion along the first row. It takes n! steps, so it is for looking, not for n above 8. a: (n, n)"""
    if len(a) == 1:
        return a[0, 0]
    total = 0.0
    # practice: a big determinant from smaller ones
    # hint: each entry of row 0 times the determinant of what its row and column leave over, with alternating signs
    # hint: minor = a without row 0 and column j; np.delete takes the column out
    for j, entry in enumerate(a[0]):
        minor = np.delete(a[1:], j, axis=1)
        total = total + (-1) ** j * entry * determinant(minor)
    # end practice
    return total


def area_scale(
    a: np.ndarray, inside: Callable, area: float, n: int, rng: np.random.Generator
) -> tuple[float, float]:
    """By how much a (2, 2) scales a shape in [-1, 1]², of this area, and the standard error. n: random points."""
    low, high = (
        (a @ SQUARE).min(axis=1),
        (a @ SQUARE).max(axis=1),
    )  # the moved shape lies in this box
    points = rng.uniform(low, high, (n, 2)).T
    share = inside(
        np.linalg.solve(a, points)
    ).mean()  # go back, and look whether that was in the shape
    box = np.prod(high - low)
    return share * box / area, box / area * np.sqrt(share * (1 - share) / n)


def in_basis(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The same map for someone whose coordinates count in the columns of b: b⁻¹ a b. a, b: (n, n) -> (n, n)"""
    return np.linalg.solve(b, a @ b)


def show_norms(cfg: Config) -> None:
    print("\n[1] Length is a choice: each norm is another answer to “how far?”")
    x = np.array([3.0, -4.0])
    print(
        "  (3, -4) is "
        + ", ".join(f"{norm(x, p):.4g} long for p = {p:g}" for p in (1, 2, 3, np.inf))
    )
    vectors = cfg.rng().normal(size=(1000, 5))
    check_close(
        "norms",
        "ours equal np.linalg.norm on 1,000 vectors, p = 1, 2, 3, inf",
        [[norm(v, p) for p in (1, 2, 3, np.inf)] for v in vectors],
        np.stack([np.linalg.norm(vectors, p, axis=1) for p in (1, 2, 3, np.inf)], axis=1),
    )
    check(
        "norm-order",
        "largest ≤ p=2 ≤ p=1 ≤ √5 times p=2, for each of them",
        all(
            norm(v, np.inf) <= norm(v, 2) <= norm(v, 1) <= np.sqrt(5) * norm(v, 2) for v in vectors
        ),
    )


def show_span(cfg: Config) -> None:
    print("\n[2] Span: three arrows need not reach more than two do")
    u, v = np.array([1.0, 2.0, 0.0]), np.array([0.0, 1.0, 1.0])
    arrows = np.column_stack([u, v, 2 * u - v])  # the third can be said with the other two
    q = orthonormal_basis(arrows)
    print(
        f"  (1, 2, 0), (0, 1, 1), (2, 3, -1): {arrows.shape[1]} arrows, but {q.shape[1]} directions: a plane"
    )
    known, outside = 2 * u - 3 * v, np.array([1.0, 0.0, 0.0])
    check(
        "span",
        "2u - 3v lies in that plane, (1, 0, 0) does not",
        np.allclose(project(known, q), known) and not np.allclose(project(outside, q), outside),
    )
    hilbert = 1 / (np.arange(6)[:, None] + np.arange(6) + 1)  # six columns that are nearly one
    bases = [orthonormal_basis(1e-12 * cfg.rng().normal(size=(7, 4))), orthonormal_basis(hilbert)]
    check_close(
        "basis",
        "basis vectors have length 1 and right angles, of tiny and of nearly parallel vectors too",
        np.concatenate([(b.T @ b).ravel() for b in bases]),
        np.concatenate([np.eye(k).ravel() for k in (4, 6)]),
    )


def show_projection(cfg: Config) -> None:
    print("\n[3] The nearest point is found by a right angle")
    rng = cfg.rng()
    vectors, x = rng.normal(size=(6, 3)), rng.normal(size=6)
    shadow = project(x, orthonormal_basis(vectors))
    rest = x - shadow
    print(f"  |x|² = {x @ x:.4f} = |shadow|² + |rest|² = {shadow @ shadow:.4f} + {rest @ rest:.4f}")
    check_close(
        "orthogonal",
        "the rest is perpendicular to every vector of the subspace",
        vectors.T @ rest,
        [0, 0, 0],
    )
    others = shadow + rng.normal(size=(1000, 3)) @ vectors.T * 0.1
    check(
        "nearest",
        "none of 1,000 other points of the subspace is nearer; the best one's distance",
        min(norm(x - other, 2) for other in others),
        above=norm(rest, 2),
    )
    check_close(
        "fit",
        "so it is what np.linalg.lstsq fits",
        shadow,
        vectors @ np.linalg.lstsq(vectors, x)[0],
    )
    draw_nearest(cfg)


def show_rank(cfg: Config) -> None:
    print("\n[4] Every input dimension is either kept or sent to zero: rank + nullity = columns")
    rng, built, found, largest = cfg.rng(), [], [], 0.0
    for _ in range(cfg.matrices):
        m, n = rng.integers(1, 8, 2)
        r = rng.integers(0, min(m, n) + 1)
        a = rng.normal(size=(m, r)) @ rng.normal(
            size=(r, n)
        )  # r sets the rank before anyone measures it
        lost = null_space(a)
        built.append((r, r, r, n - r))
        found.append(
            (
                *(orthonormal_basis(t).shape[1] for t in (a, a.T)),
                np.linalg.matrix_rank(a),
                lost.shape[1],
            )
        )
        largest = max(
            largest,
            np.abs(a @ lost).max(initial=0),
            np.abs(lost.T @ lost - np.eye(n - r)).max(initial=0),
        )
    built, found = np.array(built), np.array(found)
    check(
        "rank",
        f"{cfg.matrices} random matrices: columns and rows have the rank they were built with; NumPy agrees",
        (found[:, :3] == built[:, :3]).all(),
    )
    check(
        "null-space",
        "the null space is orthonormal and sent to zero; the largest error",
        largest,
        below=1e-10,
    )
    check_close(
        "rank-nullity",
        "rank + nullity = columns, every time",
        found[:, ::3].sum(1),
        built[:, ::3].sum(1),
    )


def show_area(cfg: Config) -> dict[str, float]:
    print("\n[5] The determinant is the factor by which areas grow, whatever their shape")
    rng, grown, worst = cfg.rng(), {}, 0.0
    shapes = (
        ((lambda p: (p**2).sum(axis=0) <= 1), np.pi),
        ((lambda p: (abs(p[0]) <= p[1]) & (p[1] <= 1)), 1.0),
    )
    print(f"  {'map':<10}{'determinant':>12}{'disc grew':>12}{'triangle grew':>15}")
    for name, rows in list(MAPS.items())[:-1]:  # not the last: once flat, there is no way back
        a = np.array(rows)
        exact, results = (
            determinant(a),
            [area_scale(a, *shape, cfg.points, rng) for shape in shapes],
        )
        print(f"  {name:<10}{exact:>12.4f}{results[0][0]:>12.4f}{results[1][0]:>15.4f}")
        worst = max([worst] + [abs(scale - abs(exact)) / error for scale, error in results])
        grown[name] = results[1][0]
    stack = rng.normal(size=(cfg.matrices // 10, 4, 4))
    ours = [determinant(a) for a in stack]
    check_close(
        "determinant",
        f"ours is np.linalg.det on {len(stack)} random 4x4 matrices",
        ours,
        np.linalg.det(stack),
    )
    check(
        "area",
        "measured with random points it is |det|; largest deviation in standard errors",
        worst,
        at_most=4,
    )
    draw_grids(cfg)
    return {
        "shear_area": grown["shear"],
        "shear_det": determinant(np.array(MAPS["shear"])),
        "worst_deviation": worst,
    }


def show_basis(cfg: Config) -> None:
    print("\n[6] Another basis: other numbers, the same vector and the same map")
    (a, b), x = cfg.rng().normal(size=(2, 3, 3)), np.array([1.0, 2.0, 3.0])
    theirs = np.linalg.solve(b, x)  # x as it is called by those who count in b's columns
    print(f"  x = {x.round(3)} is called {theirs.round(3)} there")
    check_close(
        "change",
        "moved there and translated back = moved here",
        b @ (in_basis(a, b) @ theirs),
        a @ x,
    )
    check_close(
        "invariant",
        "trace and determinant belong to the map, not to the basis",
        [np.trace(in_basis(a, b)), determinant(in_basis(a, b))],
        [np.trace(a), determinant(a)],
    )
    own = np.array(
        [[2.0, -1.0], [1.0, 2.0]]
    )  # columns: the line of the mirror, and the one across it
    print(
        f"  a mirror: {MAPS['mirror']}; in the basis (2, 1), (-1, 2) it keeps one axis and turns the other"
    )
    check_close(
        "diagonal",
        "in its own basis the mirror is diagonal",
        in_basis(MAPS["mirror"], own),
        [[1, 0], [0, -1]],
    )


def draw_grids(cfg: Config) -> None:
    """What each matrix does to a grid, to an F, and to the two axis arrows."""
    from matplotlib.collections import LineCollection

    lines = np.array(
        [line for t in np.linspace(-4, 4, 17) for line in (((t, -4), (t, 4)), ((-4, t), (4, t)))]
    )
    figure, axes = new_figure(2, 3, size=(11.4, 8.2))
    for axis, (name, a) in zip(
        axes.ravel(), ((name, np.array(rows)) for name, rows in MAPS.items())
    ):
        axis.add_collection(LineCollection(lines, colors="#E4E4E4", linewidths=0.8, zorder=0))
        axis.add_collection(LineCollection(lines @ a.T, colors=SKY, linewidths=1, zorder=1))
        axis.fill(*LETTER, color=GREY, alpha=0.35, zorder=2)
        axis.fill(*(a @ LETTER), color=ORANGE, alpha=0.9, zorder=3)
        for arrow, colour in zip(a.T, (RED, GREEN)):  # column j is where axis j lands
            axis.quiver(
                0,
                0,
                *arrow,
                color=colour,
                angles="xy",
                scale_units="xy",
                scale=1,
                width=0.018,
                zorder=4,
            )
        axis.set(
            xlim=(-2, 2),
            ylim=(-2, 2),
            aspect="equal",
            xticks=(),
            yticks=(),
            title=f"{name}: determinant {determinant(a) + 0.0:.2f}",
        )
        axis.set_xlabel(
            "\n".join("  ".join(f"{number:5.2f}" for number in row) for row in a),
            family="monospace",
        )
    figure.suptitle(
        "Red and green: where the two axes land. They are the columns of the matrix",
        x=0.01,
        ha="left",
    )
    save_figure(figure, cfg.out / "grids")


def draw_nearest(cfg: Config) -> None:
    """Let a ball around a point grow until it touches a line: the meaning of distance decides where."""
    x, u = np.array([0.4, 2.2]), np.array([2.0, 1.0]) / np.sqrt(5)
    way = np.linspace(0, 4, 401)
    circle = np.array([np.cos(way * np.pi / 2), np.sin(way * np.pi / 2)])
    figure, axis = new_figure(size=(7.2, 6.0))
    axis.plot(*np.outer(u, [-0.8, 4.2]), color="black")
    for p, colour, name in ((1, RED, "1"), (2, BLUE, "2"), (np.inf, GREEN, "∞")):
        distances = [norm(x - t * u, p) for t in way]
        touch = way[np.argmin(distances)] * u
        axis.plot(
            *(x[:, None] + min(distances) * circle / [norm(c, p) for c in circle.T]), color=colour
        )
        axis.plot(
            *np.column_stack([x, touch]), color=colour, linestyle="--", marker="o", markersize=9
        )
        axis.annotate(
            f"p = {name}", touch, xytext=(9, -15), textcoords="offset points", color=colour
        )
    axis.annotate(
        "x", x, xytext=(-4, 9), textcoords="offset points", fontweight="bold", fontsize=15
    )
    axis.set(
        aspect="equal", xlim=(-1.9, 3.6), title="Nearest point of a line: which norm do you ask?"
    )
    save_figure(figure, cfg.out / "nearest")


def run(cfg: Config) -> dict:
    show_norms(cfg)
    show_span(cfg)
    show_projection(cfg)
    show_rank(cfg)
    results = show_area(cfg)
    show_basis(cfg)
    return results


if __name__ == "__main__":
    main(run, Config, __doc__)
