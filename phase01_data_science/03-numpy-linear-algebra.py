"""1.3 Linear algebra in NumPy: solve, factor, fit
NumPy 线性代数：求解、分解与拟合

You will be able to answer
    1. How does a computer solve n equations, and why swap rows?    show_solve        solve, pivot, singular
    2. What do Q and R say about the columns of a matrix?           show_qr           qr-gram, qr-mirror, qr-parts
    3. Three equal formulas: why is only one of them orthogonal?    show_hilbert      classical, modified, mirror
    4. How do you fit when there are more equations than unknowns?  show_fit          three-ways, right-angle
    5. How many directions are there, and how far do errors grow?   show_condition    rank, condition, bound, worst
    6. Why do good libraries not form AᵀA?                          show_squared      squared, digits
Run       python phase01_data_science/03-numpy-linear-algebra.py           about 2 s
Needs     -
Notation  A (n, k) matrix with independent columns  Q (n, k) columns at right angles, of length 1  R (k, k) triangle
"""
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from common.checks import check, check_close
from common.config import LessonConfig, main, param
from common.figures import BLUE, GREEN, GREY, ORANGE, new_figure, plot_curves, save_figure


@dataclass
class Config(LessonConfig):
    trials: int = param(50, "random matrices in each comparison with NumPy", tiny=8)


def solve(a: np.ndarray, b: np.ndarray, swap_rows: bool = True) -> np.ndarray:
    """x with a x = b, by elimination; a: (n, n), b: (n,) -> (n,). Raises ValueError when a column has no pivot."""
    a, b = np.array(a, dtype=float), np.array(b, dtype=float)       # copies: the caller keeps theirs
    # practice: make zeros below the diagonal
    # hint: in column k, swap the row with the largest entry (from row k on) up to row k: that is the pivot
    # hint: take factor = a[i, k] / a[k, k] times row k from every row i below; the same for b
    # hint: for k in range(len(b)): pivot = k + np.argmax(abs(a[k:, k])) if swap_rows else k
    for k in range(len(b)):
        pivot = k + np.argmax(abs(a[k:, k])) if swap_rows else k
        if a[pivot, k] == 0:
            raise ValueError(f"singular: column {k} depends on the columns before it")
        a[[k, pivot]], b[[k, pivot]] = a[[pivot, k]], b[[pivot, k]]
        for i in range(k + 1, len(b)):
            factor = a[i, k] / a[k, k]
            a[i] -= factor * a[k]
            b[i] -= factor * b[k]
    # end practice
    return back_substitute(a, b)


def back_substitute(r: np.ndarray, b: np.ndarray) -> np.ndarray:
    """x with r x = b for an upper triangle r: the last row has one unknown, the row above it one more …"""
    # practice: solve from the last row up
    # hint: when x[i + 1:] is known, row i has a single unknown left
    # hint: x = np.zeros(len(b)), then for i in reversed(range(len(b))): …
    x = np.zeros(len(b))
    for i in reversed(range(len(b))):
        x[i] = (b[i] - r[i, i + 1:] @ x[i + 1:]) / r[i, i]
    # end practice
    return x


def gram_schmidt(a: np.ndarray, modified: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """a: (n, k) -> q (n, k), r (k, k) with a = q r. Every column loses its shadow on the directions before it.

    Classical: measure the shadows of the original column. Modified: measure those of what is left of it so far.
    """
    q, r = np.zeros(a.shape), np.zeros((a.shape[1], a.shape[1]))
    for j in range(a.shape[1]):
        # practice: one more direction, at right angles to all before
        # hint: the shadow on a direction of length 1 is a dot product: q[:, i] @ column
        # hint: take away the shadows on q[:, 0], …, q[:, j - 1]; what is left is divided by its length
        # hint: rest = a[:, j].copy(), then for i in range(j): r[i, j] = …
        rest = a[:, j].copy()
        for i in range(j):
            r[i, j] = q[:, i] @ (rest if modified else a[:, j])
            rest -= r[i, j] * q[:, i]
        r[j, j] = np.sqrt(rest @ rest)
        q[:, j] = rest / r[j, j]
        # end practice
    return q, r


def householder(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """a: (n, k) -> q (n, k), r (k, k) with a = q r, by k mirrors, each of which lays one column onto an axis."""
    q, r = np.eye(len(a)), a.astype(float)
    for j in range(a.shape[1]):
        # practice: the mirror that clears column j below the diagonal
        # hint: the mirror with normal v (length 1) sends every column c to c - 2 v (v · c)
        # hint: v = column plus or minus its length on the first axis, with the sign that makes v longer
        # hint: v = r[j:, j].copy(), then v[0] += …
        v = r[j:, j].copy()
        v[0] += np.copysign(np.sqrt(v @ v), v[0])
        v = v / np.sqrt(v @ v)
        r[j:] -= 2 * np.outer(v, v @ r[j:])
        q[:, j:] -= 2 * np.outer(q[:, j:] @ v, v)                   # mirrors undo themselves: this collects them
        # end practice
    return q[:, :a.shape[1]], np.triu(r[:a.shape[1]])


def fit_normal(a: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Least squares by the normal equations AᵀA x = Aᵀy. a: (n, k), y: (n,) -> (k,)."""
    return solve(a.T @ a, a.T @ y)


def fit_qr(a: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Least squares by R x = Qᵀy."""
    q, r = householder(a)
    return back_substitute(r, q.T @ y)


def fit_svd(a: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Least squares by the singular values (built in 2.2); of all best x the shortest, when there are many."""
    # practice: divide by what is there, leave out what is not
    # hint: in the basis of u and v, a multiplies by s: turn y, divide, turn back
    # hint: u, s, vt = np.linalg.svd(a, full_matrices=False); keep = slice(rank_of(s, a.shape))
    u, s, vt = np.linalg.svd(a, full_matrices=False)
    keep = slice(rank_of(s, a.shape))
    x = vt[keep].T @ (u[:, keep].T @ y / s[keep])
    # end practice
    return x


def rank_of(s: np.ndarray, shape: tuple[int, ...]) -> int:
    """How many singular values are more than round-off. s is sorted, largest first."""
    return int((s > s[0] * max(shape) * np.finfo(float).eps).sum())


def hilbert(n: int) -> np.ndarray:
    """1 / (i + j + 1): columns that look different and are almost the same direction."""
    return 1 / (np.arange(n)[:, None] + np.arange(n) + 1)


def tame(rng: np.random.Generator, n: int, k: int) -> np.ndarray:
    """A random (n, k) matrix with singular values from 1 to 10: condition number 10."""
    left, right = (np.linalg.qr(rng.normal(size=(m, k)))[0] for m in (n, k))
    return left * np.linspace(1, 10, k) @ right


def positive(q: np.ndarray, r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same factors with R's diagonal positive: the sign of each pair of column and row is free, so fix it."""
    sign = np.sign(np.diag(r))
    return q * sign, sign[:, None] * r


def show_solve(cfg: Config) -> None:
    print("\n[1] Elimination: make zeros below the diagonal, then solve from the last row up")
    rng = cfg.rng()
    systems = [(tame(rng, 12, 12), rng.normal(size=12)) for _ in range(cfg.trials)]
    check_close("solve", f"equals np.linalg.solve on {cfg.trials} systems of 12 equations",
                [solve(a, b) for a, b in systems], [np.linalg.solve(a, b) for a, b in systems])
    a, b = np.array([[1e-20, 1], [1, 1]]), np.array([1.0, 2])
    print(f"  1e-20 x + y = 1, x + y = 2: without swapping {solve(a, b, swap_rows=False)}, with {solve(a, b)}")
    check("pivot", "dividing by a tiny pivot drowns the second equation; swapping rows saves it (x = y = 1)",
          np.allclose(solve(a, b), 1) and abs(solve(a, b, swap_rows=False)[0] - 1) > 0.5)
    try:
        answer = solve(np.array([[1.0, 2], [2, 4]]), b)
    except ValueError as error:
        answer = str(error)
    check("singular", f"two equal directions are refused: “{answer}”", isinstance(answer, str))


def show_qr(cfg: Config) -> None:
    print("\n[2] A = QR: Q holds the directions at right angles, R how much of each is in every column")
    rng = cfg.rng()
    matrices = [tame(rng, 9, 6) for _ in range(cfg.trials)]
    reference = [np.vstack(positive(*np.linalg.qr(a))) for a in matrices]
    for name, method in (("qr-gram", gram_schmidt), ("qr-mirror", householder)):
        check_close(name, f"{method.__name__}: Q and R equal np.linalg.qr's, {cfg.trials} matrices",
                    [np.vstack(positive(*method(a))) for a in matrices], reference)
    triangle = -np.triu(tame(rng, 5, 5)) - 3 * np.eye(5)            # its columns lie on the axes already
    products = [q @ r - a for a in (matrices[0], triangle) for q, r in
                (gram_schmidt(a), gram_schmidt(a, modified=True), householder(a))]
    check("qr-parts", "Q times R is A again, all three ways; largest difference",
          max(abs(product).max() for product in products), at_most=1e-13)


def orthogonality(method: Callable, n: int) -> float:
    """How far Q's columns are from right angles: the size of QᵀQ - I (0 is perfect)."""
    q, _ = method(hilbert(n))
    return float(np.linalg.norm(q.T @ q - np.eye(n)))


def show_hilbert(cfg: Config) -> dict[str, float]:
    print("\n[3] The same three on the 10x10 Hilbert matrix: algebra says Q is orthogonal, arithmetic does not")
    methods = {"classical": gram_schmidt, "modified": lambda a: gram_schmidt(a, modified=True), "mirror": householder}
    loss = {name: orthogonality(method, 10) for name, method in methods.items()}
    check("classical", "classical Gram–Schmidt: ‖QᵀQ − I‖", loss["classical"], above=1)
    check("modified", "modified Gram–Schmidt, one word changed", loss["modified"], at_least=1e-5, at_most=1e-3)
    check("mirror", "Householder's mirrors: each is orthogonal, so their product is", loss["mirror"], below=1e-13)
    draw_hilbert(cfg, methods)
    return loss


def show_fit(cfg: Config) -> None:
    print("\n[4] More equations than unknowns: drop the perpendicular onto what A can reach")
    rng = cfg.rng()
    problems = [(tame(rng, 30, 4), rng.normal(size=30)) for _ in range(cfg.trials)]
    best = [np.linalg.lstsq(a, y)[0] for a, y in problems]
    check_close("three-ways", "normal equations, QR and SVD all equal np.linalg.lstsq",
                [[fit(a, y) for a, y in problems] for fit in (fit_normal, fit_qr, fit_svd)], [best] * 3)
    check_close("right-angle", "what is left over stands at right angles to every column",
                [a.T @ (y - a @ fit_qr(a, y)) for a, y in problems], np.zeros((cfg.trials, 4)))


def show_condition(cfg: Config) -> None:
    print("\n[5] Rank counts directions; the condition number says how much an error in b can grow in x")
    rng = cfg.rng()
    thin = rng.normal(size=(8, 3)) @ rng.normal(size=(3, 6))        # (8, 6), but only three directions
    s, y = np.linalg.svd(thin, compute_uv=False), rng.normal(size=8)
    print(f"  singular values {s.round(2)}: the last ones are round-off")
    check("rank", "three directions, as np.linalg.matrix_rank says; and of the many best fits lstsq's, the shortest",
          rank_of(s, thin.shape) == np.linalg.matrix_rank(thin) == 3
          and np.allclose(fit_svd(thin, y), np.linalg.lstsq(thin, y)[0]))
    a = hilbert(4)
    u, s, vt = np.linalg.svd(a)
    kappa = s[0] / s[-1]
    check_close("condition", f"largest by smallest singular value = np.linalg.cond: {kappa:,.0f}", kappa, np.linalg.cond(a))

    def growth(b: np.ndarray, change: np.ndarray) -> float:
        """Relative change of x by relative change of b."""
        x, moved = solve(a, b), solve(a, change)
        return np.sqrt(moved @ moved / (x @ x)) / np.sqrt(change @ change / (b @ b))

    random = [growth(*rng.normal(size=(2, 4))) for _ in range(200)]
    print(f"  growth of an error in b: median {np.median(random):.1f}, largest of 200 {max(random):,.0f}")
    check("bound", "never more than the condition number", max(random) / kappa, at_most=1)
    check_close("worst", "b along the strongest direction, the error along the weakest: all of it",
                growth(u[:, 0], u[:, -1]), kappa, rtol=1e-6)


def show_squared(cfg: Config) -> dict:
    print("\n[6] AᵀA squares the condition number: half of the digits are gone before you start")
    t = np.linspace(0, 1, 40)
    a = np.vander(t, 4, increasing=True)                            # columns 1, t, t², t³
    check_close("squared", f"cond(AᵀA) = cond(A)² = {np.linalg.cond(a):.0f}²", np.linalg.cond(a.T @ a),
                np.linalg.cond(a) ** 2, rtol=1e-6)
    errors: dict[str, list[float]] = {"normal equations": [], "QR": [], "SVD": []}
    for degree in range(1, 13):
        a = np.vander(t, degree + 1, increasing=True)
        truth = np.ones(degree + 1)
        for name, fit in zip(errors, (fit_normal, fit_qr, fit_svd)):
            errors[name].append(max(float(abs(fit(a, a @ truth) - truth).max()), 1e-16))
    for name, values in errors.items():
        print(f"  {name:<17} error of the coefficients at degree 4: {values[3]:.0e}, 8: {values[7]:.0e}, 12: {values[11]:.0e}")
    check("digits", "at degree 8 the normal equations are at least 1,000 times further off than QR",
          errors["normal equations"][7] / errors["QR"][7], at_least=1000)
    draw_squared(cfg, errors)
    return {"error_normal": errors["normal equations"][7], "error_qr": errors["QR"][7], "errors": errors}


def draw_hilbert(cfg: Config, methods: dict[str, Callable]) -> None:
    figure, axes = new_figure(1, 4, size=(14, 3.9), width_ratios=(1.9, 1, 1, 1))
    plot_curves(axes[0], {name: [max(orthogonality(method, n), 1e-17) for n in range(2, 15)]
                          for name, method in methods.items()}, "size of the Hilbert matrix", "‖QᵀQ − I‖", 2, log=True)
    axes[0].set_title("Right angles lost, by size")
    for axis, (name, method) in zip(axes[1:], methods.items()):
        q, _ = method(hilbert(10))
        picture = axis.imshow(np.log10(abs(q.T @ q - np.eye(10)) + 1e-17), vmin=-16, vmax=0, cmap="magma")
        axis.set_title(f"{name}, 10×10")
        axis.axis("off")
    figure.colorbar(picture, ax=axes[-1], label="log₁₀ of |QᵀQ − I|")
    save_figure(figure, cfg.out / "hilbert")


def draw_squared(cfg: Config, errors: dict[str, list[float]]) -> None:
    figure, (left, right) = new_figure(1, 2, size=(13, 4.6))
    rng = cfg.rng()
    t = np.sort(rng.random(25))
    y = np.sin(5 * t) + rng.normal(size=25) * 0.25
    a, grid = np.vander(t, 4, increasing=True), np.linspace(0, 1, 200)
    x = fit_qr(a, y)
    left.vlines(t, a @ x, y, color=ORANGE, linewidth=2)
    left.plot(grid, np.vander(grid, 4, increasing=True) @ x, color=BLUE)
    left.plot(t, y, "o", color=GREY)
    left.set(title="Least squares: the orange lengths, squared, add up to the least", xlabel="t", ylabel="y")
    plot_curves(right, errors, "degree of the polynomial", "error of the coefficients", log=True)
    right.set_title("The same fit by three formulas, without any noise")
    save_figure(figure, cfg.out / "fit")


def run(cfg: Config) -> dict:
    show_solve(cfg)
    show_qr(cfg)
    loss = show_hilbert(cfg)
    show_fit(cfg)
    show_condition(cfg)
    return {**loss, **show_squared(cfg)}


if __name__ == "__main__":
    main(run, Config, __doc__)
