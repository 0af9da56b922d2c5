"""1.3 Linear algebra in NumPy: solve, factor, fit
NumPy 线性代数：求解、分解与拟合

You will be able to answer
    1. How are n equations solved?         show_solve      pivot, solve, refused
    2. What do the factors Q and R say?    show_qr         qr
    3. Why do mirrors keep right angles?   show_hilbert    classical, modified, mirror, twice
    4. What do rank and condition say?     show_condition  rank, slips, worst
    5. How do you fit too many equations?  show_fit        three-ways, digits, noise
Predict   condition: how many times can an error grow when you solve with 1 / (i + j + 1), 10 × 10?
Run       python phase01_data_science/03-numpy-linear-algebra.py           about 2 s
Needs     -
Reference np.linalg.solve, np.linalg.qr, np.linalg.lstsq, np.linalg.matrix_rank, np.linalg.cond
Notation  A (n, k) matrix  Q (n, k) columns at right angles, of length 1  R (k, k) triangular
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from common.checks import check, check_close
from common.config import LessonConfig, main, param
from common.figures import new_figure, plot_curves, save_figure


@dataclass
class Config(LessonConfig):
    trials: int = param(50, "random matrices in each comparison with NumPy", tiny=8)


def eliminate(a: np.ndarray, b: np.ndarray, swap_rows: bool) -> tuple[np.ndarray, np.ndarray]:
    """The equations a x = b, with zeros below the diagonal: new a (n, n), new b (n,).

    ValueError where a pivot, the entry a[k, k] that factors divide by, is exactly 0.
    """
    # practice: Zeros below the diagonal
    a = np.array(a, dtype=float)  # copies: the caller keeps theirs
    b = np.array(b, dtype=float)
    for k in range(len(b)):
        if swap_rows:
            # The largest pivot of the column gives the smallest factors, none of them beyond 1.
            pivot = k + np.argmax(abs(a[k:, k]))
            a[[k, pivot]] = a[[pivot, k]]
            b[[k, pivot]] = b[[pivot, k]]
        if a[k, k] == 0:
            raise ValueError(f"the pivot of column {k} is 0")

        for i in range(k + 1, len(b)):
            factor = a[i, k] / a[k, k]
            a[i] -= factor * a[k]
            b[i] -= factor * b[k]
    return a, b
    # end practice


def back_substitute(r: np.ndarray, b: np.ndarray) -> np.ndarray:
    """x (k,) with r x = b, for an upper triangular r (k, k)."""
    # practice: Solve from the last row up
    x = np.zeros(len(b))
    for i in reversed(range(len(b))):
        # All unknowns but x[i] are known by now.
        known = r[i, i + 1 :] @ x[i + 1 :]
        x[i] = (b[i] - known) / r[i, i]
    return x
    # end practice


def solve(a: np.ndarray, b: np.ndarray, swap_rows: bool = True) -> np.ndarray:
    """x (n,) with a x = b. a: (n, n), b: (n,)."""
    upper, right_side = eliminate(a, b, swap_rows)
    return back_substitute(upper, right_side)


def show_solve(cfg: Config) -> None:
    print("\n[1] Elimination: make zeros below the diagonal, then solve from the last row up")
    a = np.array([[1e-20, 1], [-1, 1]])
    b = np.array([1.0, 0])
    answers = [solve(a, b, swap_rows=False), solve(a, b)]
    text = "1e-20 x + y = 1, -x + y = 0: not swapped x is 0, swapped 1, and 1 is right"
    check_close("pivot", text, answers, [[0, 1], [1, 1]])

    rng = cfg.rng()
    needs_swaps = 6 * np.eye(12)[::-1]  # large entries far from the diagonal
    matrices = rng.normal(size=(cfg.trials, 12, 12)) + needs_swaps
    right_sides = rng.normal(size=(cfg.trials, 12))
    ours = [solve(a, b) for a, b in zip(matrices, right_sides)]
    numpys = [np.linalg.solve(a, b) for a, b in zip(matrices, right_sides)]
    text = f"{cfg.trials} systems of 12 equations have NumPy's solutions, up to {{}}"
    check_close("solve", text, ours, numpys)

    refused = 0
    for singular in ([[1, 2], [2, 4]], [[1, 0], [3, 0]], [[0, 1], [0, 2]]):
        try:
            solve(np.array(singular), np.ones(2))
        except ValueError:
            refused += 1
    check("refused", "of 3 singular systems {} are refused", refused, at_least=3)


def gram_schmidt(a: np.ndarray, modified: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """a (n, k), independent columns -> q (n, k), r (k, k) with a = q r.

    modified: project what is left of a column, which holds the errors of earlier projections, too.
    """
    q = np.zeros(a.shape)
    r = np.zeros((a.shape[1], a.shape[1]))
    for j in range(a.shape[1]):
        rest = a[:, j]
        for i in range(j):
            column = rest if modified else a[:, j]
            r[i, j] = q[:, i] @ column
            rest = rest - r[i, j] * q[:, i]

        # What no earlier direction explains is a new direction.
        r[j, j] = np.sqrt(rest @ rest)
        q[:, j] = rest / r[j, j]
    return q, r


def modified(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return gram_schmidt(a, modified=True)


def householder(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """a (n, k), independent columns -> q (n, k), r (k, k) with a = q r.

    By k mirrors; each lays a column on an axis.
    """
    n, k = a.shape
    q = np.eye(n)
    r = a.astype(float)
    for j in range(k):
        # practice: The mirror that clears a column below the diagonal
        v = r[j:, j].copy()
        length = np.sqrt(v @ v)

        # Of the two mirrors, the one whose v grows: the other one subtracts, perhaps to 0.
        v[0] += np.copysign(length, v[0])
        v = v / np.sqrt(v @ v)

        # A mirror with normal v sends each column c to c - 2 v (v · c).
        r[j:] -= 2 * np.outer(v, v @ r[j:])
        q[:, j:] -= 2 * np.outer(q[:, j:] @ v, v)
        # end practice
    return q[:, :k], np.triu(r[:k])


METHODS = {"classical": gram_schmidt, "modified": modified, "mirror": householder}


def show_qr(cfg: Config) -> None:
    print("\n[2] A = QR: Q holds directions at right angles, R how much of each is in a column")
    _, r = householder(np.array([[3.0], [4.0]]))
    print(f"  the mirror lays (3, 4), of length 5, on the first axis at {r[0, 0]:.0f}")

    # Columns that lie on the axes already leave a mirror nothing to do; some begin with 0.
    already_on_axes = [-np.eye(9, 6), np.eye(9, 6)[::-1]]
    matrices = [*cfg.rng().normal(size=(cfg.trials, 9, 6)), *already_on_axes]
    ours = []
    numpys = []
    for factor in METHODS.values():
        for a in matrices:
            ours.append(one_form(*factor(a)))
            numpys.append(one_form(*np.linalg.qr(a)))
    text = f"by all three methods, Q and R of {len(matrices)} matrices are NumPy's, up to {{}}"
    check_close("qr", text, ours, numpys)


def hilbert(n: int) -> np.ndarray:
    """1 / (i + j + 1): columns that look different and have almost the same direction."""
    i = np.arange(n)
    return 1 / (i[:, None] + i + 1)


def show_hilbert(cfg: Config) -> dict[str, float]:
    print("\n[3] The same three on the 10 × 10 Hilbert matrix: on paper QᵀQ is I, in float64 …")
    defects = {name: defect(METHODS[name], hilbert(10)) for name in METHODS}
    text = "classical Gram-Schmidt loses the right angles: ‖QᵀQ - I‖ is {}"
    check("classical", text, defects["classical"], above=1)
    text = "modified Gram-Schmidt loses less: {}"
    check("modified", text, defects["modified"], at_least=1e-5, at_most=1e-3)
    text = "mirrors keep right angles, and so does a product of mirrors: {}"
    check("mirror", text, defects["mirror"], below=1e-13)
    twice = []
    for n in range(2, 15):
        once, _ = modified(hilbert(n))
        twice.append(defect(modified, once))
    text = "so does modified Gram-Schmidt, run again on its own Q, for 2 × 2 to 14 × 14: {} at most"
    check("twice", text, max(twice), below=1e-10)
    return defects


def defect(factor: Callable, a: np.ndarray) -> float:
    """‖QᵀQ - I‖, the root of the sum of squares: 0 where all columns stand at right angles."""
    q, _ = factor(a)
    return np.linalg.norm(q.T @ q - np.eye(a.shape[1]))


def trimmed_svd(a: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """u (n, r), s (r,), vt (r, k) with a = u · s · vt. The rank r counts what is above rounding.

    a makes an ellipse of a circle: s are its half axes, u their directions (built in 2.2).
    """
    u, s, vt = np.linalg.svd(a, full_matrices=False)
    rounding = s[0] * max(a.shape) * np.finfo(float).eps
    rank = (s > rounding).sum()
    return u[:, :rank], s[:rank], vt[:rank]


def show_condition(cfg: Config) -> tuple[float, float]:
    print("\n[4] Rank counts directions; the condition number says how far an error can grow")
    rng = cfg.rng()
    found = []
    for directions in range(1, 6):
        a = 1e6 * rng.normal(size=(8, directions)) @ rng.normal(size=(directions, 6))
        found.append(len(trimmed_svd(a)[1]))
    check_close("rank", "8 × 6, made of 1 to 5 directions: so are the ranks", found, range(1, 6))

    tenths = np.arange(1, 10).reshape(3, 3) / 10  # on paper the third row is 2 · second - first
    solve(tenths, np.ones(3))
    text = "rows .1 .2 .3 to .7 .8 .9, dependent on paper: not refused, condition 10 to the {}"
    check("slips", text, np.log10(np.linalg.cond(tenths)), above=15)

    a = hilbert(4)
    u, s, _ = trimmed_svd(a)
    # We draw x, not b: a random b would make x huge, and next to it every error looks small.
    growths = []
    for x, error in rng.normal(size=(200, 2, 4)):
        growths.append(error_growth(a, a @ x, error))
    grown = f"{np.median(growths):,.0f} times (median), {max(growths):,.0f} at most"
    print(f"  4 × 4 Hilbert matrix, 200 random x and errors of b: in x they grow {grown}")
    text = f"b along the longest stretch, its error along the shortest: {s[0] / s[-1]:,.0f} times"
    worst = error_growth(a, b=100 * u[:, 0], error=0.01 * u[:, -1])
    check_close("worst", text, worst, np.linalg.cond(a), rtol=1e-6)
    condition = np.linalg.cond(hilbert(10))
    print(f"  10 × 10, the error can grow {condition:.1e} times")
    return condition, float(np.median(growths))


def fit_normal(a: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Least squares by the normal equations AᵀA x = Aᵀy. a: (n, k), y: (n,) -> (k,)."""
    return solve(a.T @ a, a.T @ y)


def fit_qr(a: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Least squares by R x = Qᵀy."""
    q, r = householder(a)
    return back_substitute(r, q.T @ y)


def fit_svd(a: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Least squares by the singular values: where many x are best, the shortest of them."""
    u, s, vt = trimmed_svd(a)
    return vt.T @ (u.T @ y / s)


FITS = {"normal equations": fit_normal, "QR": fit_qr, "SVD": fit_svd}


def show_fit(cfg: Config) -> dict[str, list[float]]:
    print("\n[5] More equations than unknowns: the x whose A x comes nearest to y")
    rng = cfg.rng()
    matrices = rng.normal(size=(cfg.trials, 30, 4))
    ys = rng.normal(size=(cfg.trials, 30))
    ours = []
    for fit in FITS.values():
        ours.append([fit(a, y) for a, y in zip(matrices, ys)])
    numpys = [np.linalg.lstsq(a, y)[0] for a, y in zip(matrices, ys)]
    text = f"three ways, {cfg.trials} problems: all coefficients are NumPy's, up to {{}}"
    check_close("three-ways", text, ours, [numpys] * 3)
    errors = {name: [] for name in FITS}
    for degree in range(1, 13):
        a = np.vander(np.linspace(0, 1, 40), degree + 1)  # (40, degree + 1): powers of t
        exact = a.sum(axis=1)  # all coefficients are 1, and y is exact up to rounding
        for name, fit in FITS.items():
            errors[name].append(abs(fit(a, exact) - 1).max())
    lost = np.log10(errors["normal equations"][7] / errors["QR"][7])
    text = "degree 8, y exact up to rounding: the normal equations lose {} digits more than QR"
    check("digits", text, lost, at_least=3)

    a = np.vander(np.linspace(0, 1, 40), 9)
    measured = a.sum(axis=1) + 1e-6 * rng.normal(size=40)
    moved = np.linalg.norm(fit_qr(a, measured) - 1)
    added = np.linalg.norm(fit_normal(a, measured) - fit_qr(a, measured))
    text = f"noise of 1e-6 in y moves the coefficients by {moved:.0e}; normal equations add {{}}"
    check("noise", text, added, at_most=moved / 10)
    return errors


# Pictures and helpers: skip on a first reading


def one_form(q: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Q above R, (n + k, k), with a positive diagonal in R."""
    # A column of Q and its row of R may both change sign: the product stays.
    signs = np.sign(np.diag(r))  # (k,)
    return np.vstack([q * signs, r * signs[:, None]])


def error_growth(a: np.ndarray, b: np.ndarray, error: np.ndarray) -> float:
    """Relative error of x, where a x = b, divided by the relative error of b."""
    before = np.linalg.norm(error) / np.linalg.norm(b)
    after = np.linalg.norm(solve(a, error)) / np.linalg.norm(solve(a, b))
    return after / before


def draw_hilbert(cfg: Config) -> None:
    figure, axis = new_figure(size=(8, 4.6))
    curves = {}
    for name, factor in METHODS.items():
        curves[name] = [defect(factor, hilbert(n)) for n in range(2, 15)]
    plot_curves(axis, curves, "size of the Hilbert matrix", "‖QᵀQ − I‖", start=2, log=True)
    axis.set(title="Right angles lost, by size", xticks=range(2, 15, 2))
    save_figure(figure, cfg.out / "hilbert")


def draw_fit(cfg: Config, errors: dict[str, list[float]]) -> None:
    figure, axis = new_figure(size=(8, 4.6))
    plot_curves(axis, errors, "degree of the polynomial", "error of the coefficients", log=True)
    axis.set(title="Fitted to data exact up to rounding", xlim=(0.5, 17), xticks=range(2, 13, 2))
    save_figure(figure, cfg.out / "fit")


def run(cfg: Config) -> dict[str, float]:
    show_solve(cfg)
    show_qr(cfg)
    defects = show_hilbert(cfg)
    condition, median = show_condition(cfg)
    errors = show_fit(cfg)
    draw_hilbert(cfg)
    draw_fit(cfg, errors)
    return {"condition": condition, **defects, "median": median}


if __name__ == "__main__":
    main(run, Config, __doc__)
