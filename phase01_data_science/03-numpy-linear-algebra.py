"""1.3 Linear algebra in NumPy: solve, factor, fit
NumPy 线性代数：求解、分解与拟合

You will be able to answer
    1. How does a computer solve n equations, and why swap rows?  show_solve      solve, pivot, singular
    2. What do Q and R say about the columns of a matrix?         show_qr         qr-classical, qr-modified, qr-mirror
    3. Why are only the mirrors' columns at right angles?         show_hilbert    classical, modified, mirror
    4. How many directions are there, how far do errors grow?     show_condition  rank, condition, bound, worst
    5. How do you fit more equations than unknowns?               show_fit        three-ways, residual, squared, digits
Run       python phase01_data_science/03-numpy-linear-algebra.py           about 2 s
Needs     -
Notation  A (n, k) matrix with independent columns  Q (n, k) columns at right angles, of length 1  R (k, k) triangle
"""

from dataclasses import dataclass

import numpy as np

from common.checks import check, check_close
from common.config import LessonConfig, main, param
from common.figures import BLUE, GREY, ORANGE, new_figure, plot_curves, save_figure


@dataclass
class Config(LessonConfig):
    trials: int = param(50, "random matrices in each comparison with NumPy", tiny=8)


def solve(a: np.ndarray, b: np.ndarray, swap_rows: bool = True) -> np.ndarray:
    """x with a x = b, by elimination; a: (n, n), b: (n,) -> (n,). Raises ValueError when a column has no pivot."""
    a, b = np.array(a, dtype=float), np.array(b, dtype=float)  # copies: the caller keeps theirs
    # practice: make zeros below the diagonal
    # hint: in column k, swap the row with the largest entry (from row k on) up to row k: that is the pivot
    # hint: take factor = a[i, k] / a[k, k] times row k from every row i below; the same for b
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
        x[i] = (b[i] - r[i, i + 1 :] @ x[i + 1 :]) / r[i, i]
    # end practice
    return x


def gram_schmidt(a: np.ndarray, modified: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """a: (n, k) -> q (n, k), r (k, k), a = q r. modified: shadows of what is left, not of the column as it was."""
    q, r = np.zeros(a.shape), np.zeros((a.shape[1], a.shape[1]))
    for j in range(a.shape[1]):
        # practice: one more direction, at right angles to all before
        # hint: the shadow on a direction of length 1 is a dot product: q[:, i] @ column; take it away
        # hint: rest = a[:, j].copy(), then for i in range(j): …; at the end divide by the length
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
        # hint: v = r[j:, j].copy(), then add its length to v[0], with the sign that makes v longer
        v = r[j:, j].copy()
        v[0] += np.copysign(np.sqrt(v @ v), v[0])
        v = v / np.sqrt(v @ v)
        r[j:] -= 2 * np.outer(v, v @ r[j:])
        q[:, j:] -= 2 * np.outer(q[:, j:] @ v, v)  # mirrors undo themselves: this collects them
        # end practice
    return q[:, : a.shape[1]], np.triu(r[: a.shape[1]])


def methods() -> dict:
    return {
        "classical": gram_schmidt,
        "modified": lambda a: gram_schmidt(a, modified=True),
        "mirror": householder,
    }


def fit_normal(a: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Least squares by the normal equations AᵀA x = Aᵀy. a: (n, k), y: (n,) -> (k,)."""
    return solve(a.T @ a, a.T @ y)


def fit_qr(a: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Least squares by R x = Qᵀy."""
    q, r = householder(a)
    return back_substitute(r, q.T @ y)


def trimmed_svd(a: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """u (n, r), s (r,), vt (r, k) with a = u s vt, built in 2.2. The rank r counts what is more than round-off."""
    u, s, vt = np.linalg.svd(a, full_matrices=False)
    r = int((s > s[0] * max(a.shape) * np.finfo(float).eps).sum())
    return u[:, :r], s[:r], vt[:r]


def fit_svd(a: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Least squares by the singular values: of all best x the shortest, where there are many."""
    u, s, vt = trimmed_svd(a)
    return vt.T @ (u.T @ y / s)


def hilbert(n: int) -> np.ndarray:
    """1 / (i + j + 1): columns that look different and are almost the same direction."""
    return 1 / (np.arange(n)[:, None] + np.arange(n) + 1)


def positive(q: np.ndarray, r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same factors with R's diagonal positive: the sign of each pair of column and row is free, so fix it."""
    sign = np.sign(np.diag(r))
    return q * sign, sign[:, None] * r


def show_solve(cfg: Config) -> None:
    print("\n[1] Elimination: make zeros below the diagonal, then solve from the last row up")
    rng = cfg.rng()
    systems = [
        (rng.normal(size=(12, 12)) + 6 * np.eye(12)[::-1], rng.normal(size=12))
        for _ in range(cfg.trials)
    ]
    check_close(
        "solve",
        f"equals np.linalg.solve on {cfg.trials} systems of 12 equations",
        [solve(a, b) for a, b in systems],
        [np.linalg.solve(a, b) for a, b in systems],
    )
    a, b = np.array([[1e-20, 1], [1, 1]]), np.array([1.0, 2])
    check(
        "pivot",
        f"1e-20 x + y = 1, x + y = 2: rows swapped {solve(a, b)}, not {solve(a, b, swap_rows=False)}",
        np.allclose(solve(a, b), 1) and abs(solve(a, b, swap_rows=False)[0] - 1) > 0.5,
    )
    try:
        answer = solve(np.array([[1.0, 2], [2, 4]]), b)
    except ValueError as error:
        answer = str(error)
    check("singular", f"two equal directions are refused: “{answer}”", isinstance(answer, str))


def show_qr(cfg: Config) -> None:
    print(
        "\n[2] A = QR: Q holds the directions at right angles, R how much of each is in every column"
    )
    rng = cfg.rng()
    matrices = [
        *rng.normal(size=(cfg.trials, 9, 6)),
        -np.eye(9, 6),
    ]  # the last one's columns lie on the axes
    for name, method in methods().items():
        check_close(
            f"qr-{name}",
            f"{name}: Q and R equal np.linalg.qr's for {len(matrices)} matrices",
            *([np.vstack(positive(*qr(a))) for a in matrices] for qr in (method, np.linalg.qr)),
        )


def defect(name: str, n: int) -> np.ndarray:
    """QᵀQ - I of the Hilbert matrix, (n, n): all zeros if the columns of Q were exactly at right angles."""
    q, _ = methods()[name](hilbert(n))
    return q.T @ q - np.eye(n)


def show_hilbert(cfg: Config) -> dict[str, float]:
    print(
        "\n[3] The same three on the 10x10 Hilbert matrix: algebra says Q is orthogonal, arithmetic does not"
    )
    loss = {name: float(np.linalg.norm(defect(name, 10))) for name in methods()}
    check("classical", "classical Gram–Schmidt: ‖QᵀQ − I‖", loss["classical"], above=1)
    check(
        "modified",
        "modified Gram–Schmidt, one word changed",
        loss["modified"],
        at_least=1e-5,
        at_most=1e-3,
    )
    check(
        "mirror",
        "Householder's mirrors: each is orthogonal, so their product is",
        loss["mirror"],
        below=1e-13,
    )
    draw_hilbert(cfg)
    return loss


def show_condition(cfg: Config) -> None:
    print(
        "\n[4] Rank counts directions; the condition number says how much an error in b can grow in x"
    )
    rng = cfg.rng()
    thin, y = (
        rng.normal(size=(8, 3)) @ rng.normal(size=(3, 6)),
        rng.normal(size=8),
    )  # (8, 6), but three directions
    check(
        "rank",
        "three directions, as np.linalg.matrix_rank says; of all best fits lstsq's, the shortest",
        len(trimmed_svd(thin)[1]) == np.linalg.matrix_rank(thin) == 3
        and np.allclose(fit_svd(thin, y), np.linalg.lstsq(thin, y)[0]),
    )
    a = hilbert(4)
    u, s, _ = np.linalg.svd(a)
    kappa = s[0] / s[-1]
    check_close(
        "condition",
        f"largest : smallest value = np.linalg.cond = {kappa:,.0f}",
        kappa,
        np.linalg.cond(a),
    )
    pairs = [*rng.normal(size=(200, 2, 4)), (u[:, 0], u[:, -1])]  # b, and what is added to b
    growth = [
        np.linalg.norm(solve(a, error))
        / np.linalg.norm(solve(a, b))
        * np.linalg.norm(b)
        / np.linalg.norm(error)
        for b, error in pairs
    ]
    print(f"  relative error of x by that of b, 200 at random: median {np.median(growth):.1f}")
    check(
        "bound",
        f"the largest, {max(growth[:-1]):.0f}, by {kappa:,.0f}",
        max(growth[:-1]) / kappa,
        at_most=1,
    )
    check_close(
        "worst",
        "b in the strongest direction, error in the weakest: all of it",
        growth[-1],
        kappa,
        rtol=1e-6,
    )


def show_fit(cfg: Config) -> dict:
    print("\n[5] More equations than unknowns: drop the perpendicular onto what A can reach")
    rng = cfg.rng()
    problems = [(rng.normal(size=(30, 4)), rng.normal(size=30)) for _ in range(cfg.trials)]
    check_close(
        "three-ways",
        "normal equations, QR and SVD all equal np.linalg.lstsq",
        [[fit(a, y) for a, y in problems] for fit in (fit_normal, fit_qr, fit_svd)],
        [[np.linalg.lstsq(a, y)[0] for a, y in problems]] * 3,
    )
    check_close(
        "residual",
        "what is left over stands at right angles to every column",
        [a.T @ (y - a @ fit_qr(a, y)) for a, y in problems],
        np.zeros((cfg.trials, 4)),
    )
    a = np.vander(np.linspace(0, 1, 40), 4)  # columns t³, t², t, 1
    kappa = np.linalg.cond(a)
    check_close(
        "squared",
        f"cond(AᵀA) = cond(A)² = {kappa:.0f}²",
        np.linalg.cond(a.T @ a),
        kappa**2,
        rtol=1e-6,
    )
    errors: dict[str, list[float]] = {"normal equations": [], "QR": [], "SVD": []}
    for degree in range(1, 13):
        a = np.vander(np.linspace(0, 1, 40), degree + 1)
        for name, fit in zip(errors, (fit_normal, fit_qr, fit_svd)):
            errors[name].append(
                abs(fit(a, a.sum(axis=1)) - 1).max()
            )  # the true coefficients are all 1
    for name, values in errors.items():
        print(
            f"  exact data, {name:<17} errors {values[3]:.0e} (degree 4), {values[7]:.0e} (8), {values[11]:.0e} (12)"
        )
    check(
        "digits",
        "at degree 8, how many times further off the normal equations are than QR",
        errors["normal equations"][7] / errors["QR"][7],
        at_least=1000,
    )
    draw_fit(cfg, errors)
    return {
        "error_normal": errors["normal equations"][7],
        "error_qr": errors["QR"][7],
        "errors": errors,
    }


def draw_hilbert(cfg: Config) -> None:
    figure, axes = new_figure(1, 4, size=(14, 3.9), width_ratios=(1.9, 1, 1, 1))
    curves = {name: [np.linalg.norm(defect(name, n)) for n in range(2, 15)] for name in methods()}
    plot_curves(axes[0], curves, "size of the Hilbert matrix", "‖QᵀQ − I‖", start=2, log=True)
    axes[0].set_title("Right angles lost, by size")
    for axis, name in zip(axes[1:], methods()):
        picture = axis.imshow(
            np.log10(abs(defect(name, 10)) + 1e-17), vmin=-16, vmax=0, cmap="magma"
        )
        axis.set(title=f"{name}, 10×10", xticks=[], yticks=[])
    figure.colorbar(picture, ax=axes[-1], label="log₁₀ of |QᵀQ − I|")
    save_figure(figure, cfg.out / "hilbert")


def draw_fit(cfg: Config, errors: dict[str, list[float]]) -> None:
    figure, (left, right) = new_figure(1, 2, size=(13.6, 4.6))
    t = np.linspace(0, 1, 25)
    y, a = np.sin(5 * t) + cfg.rng().normal(size=25) * 0.25, np.vander(t, 4)
    left.vlines(t, a @ fit_qr(a, y), y, color=ORANGE)
    left.plot(t, a @ fit_qr(a, y), color=BLUE)
    left.plot(t, y, "o", color=GREY)
    left.set(title="Cubic fit: the sum of orange² is the least possible", xlabel="t", ylabel="y")
    plot_curves(right, errors, "degree of the polynomial", "error of the coefficients", log=True)
    right.set(title="The same fit by three formulas, no noise", xlim=(0.5, 17))
    save_figure(figure, cfg.out / "fit")


def run(cfg: Config) -> dict:
    show_solve(cfg)
    show_qr(cfg)
    loss = show_hilbert(cfg)
    show_condition(cfg)
    return loss | show_fit(cfg)


if __name__ == "__main__":
    main(run, Config, __doc__)
