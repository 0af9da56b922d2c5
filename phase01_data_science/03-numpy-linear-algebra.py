"""1.3 Linear algebra in NumPy: solve, factor, fit
NumPy 线性代数：求解、分解与拟合

You will be able to answer
    1. How are n equations solved, and why swap rows?   show_solve      pivot, solve
    2. What do Q and R say about a matrix's columns?    show_qr         qr
    3. Why do only mirrors keep right angles?           show_hilbert    classical, modified, mirror
    4. What do rank and condition number tell you?      show_condition  rank, worst
    5. How do you fit more equations than unknowns?     show_fit        three-ways, digits, shortest
Predict   condition: how many times can an error grow when you solve with 1 / (i + j + 1), 10 × 10?
Run       python phase01_data_science/03-numpy-linear-algebra.py           about 2 s
Needs     -
Reference np.linalg.solve, np.linalg.qr, np.linalg.lstsq, np.linalg.matrix_rank, np.linalg.cond
Notation  A (n, k) matrix with independent columns  Q (n, k) columns at right angles, of length 1
          R (k, k) upper triangular matrix
"""

from dataclasses import dataclass

import numpy as np

from common.checks import check, check_close
from common.config import LessonConfig, main, param
from common.figures import BLUE, GREY, ORANGE, new_figure, plot_curves, save_figure


@dataclass
class Config(LessonConfig):
    trials: int = param(50, "random matrices in each comparison with NumPy", tiny=8)


def eliminate(a: np.ndarray, b: np.ndarray, swap_rows: bool) -> tuple[np.ndarray, np.ndarray]:
    """The equations a x = b, with zeros below the diagonal: new a (n, n), new b (n,).

    Raises ValueError where a column has no pivot: it depends on the columns before it.
    """
    # practice: Zeros below the diagonal
    a = np.array(a, dtype=float)  # copies: the caller keeps theirs
    b = np.array(b, dtype=float)
    for k in range(len(b)):
        if swap_rows:
            # The largest pivot gives the smallest factors, none of them beyond 1.
            pivot = k + np.argmax(abs(a[k:, k]))
            a[[k, pivot]] = a[[pivot, k]]
            b[[k, pivot]] = b[[pivot, k]]
        if a[k, k] == 0:
            raise ValueError(f"column {k} has no pivot")

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
    matrices = rng.normal(size=(cfg.trials, 12, 12)) + 6 * np.eye(12)[::-1]
    right_sides = rng.normal(size=(cfg.trials, 12))
    matrices.flags.writeable = False
    right_sides.flags.writeable = False
    ours = [solve(a, b) for a, b in zip(matrices, right_sides)]
    numpys = [np.linalg.solve(a, b) for a, b in zip(matrices, right_sides)]
    text = f"{cfg.trials} systems of 12 equations have NumPy's solutions, up to {{}}"
    check_close("solve", text, ours, numpys)


def gram_schmidt(a: np.ndarray, modified: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """a (n, k) -> q (n, k), r (k, k) with a = q r.

    modified: project what is left of a column, not the column as it was.
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


def modified_gram_schmidt(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return gram_schmidt(a, modified=True)


def householder(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """a (n, k) -> q (n, k), r (k, k) with a = q r, by k mirrors; each lays a column on an axis."""
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


METHODS = {"classical": gram_schmidt, "modified": modified_gram_schmidt, "mirror": householder}


def show_qr(cfg: Config) -> None:
    print("\n[2] A = QR: Q holds directions at right angles, R how much of each is in a column")
    _, r = householder(np.array([[3.0], [4.0]]))
    print(f"  the mirror lays (3, 4), of length 5, on the first axis at {r[0, 0]:.0f}")

    # Columns that lie on the axes already leave a mirror nothing to do; some begin with 0.
    matrices = [*cfg.rng().normal(size=(cfg.trials, 9, 6)), -np.eye(9, 6), np.eye(9, 6)[::-1]]
    numpys = [positive(*np.linalg.qr(a)) for a in matrices]
    ours = []
    for method in METHODS.values():
        ours.append([positive(*method(a)) for a in matrices])
    text = f"by all three methods, Q and R of {len(matrices)} matrices are NumPy's, up to {{}}"
    check_close("qr", text, ours, [numpys] * 3)


def positive(q: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Q above R, (n + k, k), with R's diagonal made positive.

    A column of Q and its row of R may both change sign: the product stays.
    """
    signs = np.sign(np.diag(r))
    return np.vstack([q * signs, signs[:, None] * r])


def hilbert(n: int) -> np.ndarray:
    """1 / (i + j + 1): columns that look different and have almost the same direction."""
    i = np.arange(n)
    return 1 / (i[:, None] + i + 1)


def show_hilbert(cfg: Config) -> dict[str, float]:
    print("\n[3] The same three on the 10 × 10 Hilbert matrix: on paper QᵀQ is I, in float64 …")
    defects = {name: size(defect(name, 10)) for name in METHODS}
    text = "classical Gram-Schmidt loses the right angles: ‖QᵀQ - I‖ is {}"
    check("classical", text, defects["classical"], above=1)
    text = "modified Gram-Schmidt, with one word changed: {}"
    check("modified", text, defects["modified"], at_least=1e-5, at_most=1e-3)
    text = "mirrors keep right angles, and so does a product of mirrors: {}"
    check("mirror", text, defects["mirror"], below=1e-13)
    return defects


def defect(name: str, n: int) -> np.ndarray:
    """QᵀQ - I of the Hilbert matrix, (n, n): 0 where two columns stand at right angles."""
    q, _ = METHODS[name](hilbert(n))
    return q.T @ q - np.eye(n)


def size(values: np.ndarray) -> np.float64:
    """Root of the sum of squares: the length of a vector, the Frobenius norm of a matrix."""
    return np.sqrt((values * values).sum())


def trimmed_svd(a: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """u (n, r), s (r,), vt (r, k) with a = u · s · vt. The rank r counts what is above rounding.

    s says how far a stretches along each of its own directions; lesson 2.2 builds u, s and vt.
    """
    u, s, vt = np.linalg.svd(a, full_matrices=False)
    rounding = s[0] * max(a.shape) * np.finfo(float).eps
    rank = (s > rounding).sum()
    return u[:, :rank], s[:rank], vt[:rank]


def show_condition(cfg: Config) -> float:
    print("\n[4] Rank counts directions; the condition number says how far an error can grow")
    rng = cfg.rng()
    ours = []
    numpys = []
    for directions in range(1, 6):
        a = 1e6 * rng.normal(size=(8, directions)) @ rng.normal(size=(directions, 6))
        ours.append(len(trimmed_svd(a)[1]))
        numpys.append(np.linalg.matrix_rank(a))
    check_close("rank", f"8 × 6 matrices of rank {ours}, as NumPy says", ours, numpys)

    a = hilbert(4)
    u, s, _ = trimmed_svd(a)
    growths = []
    for b, error in rng.normal(size=(200, 2, 4)):
        growths.append(error_growth(a, b, error))
    print(f"  4 × 4 Hilbert matrix, 200 random errors in b: in x they are {np.median(growths):.0f}")
    print(f"  times as large (median), and {max(growths):,.0f} times at most")
    text = f"b along the longest stretch, its error along the shortest: {s[0] / s[-1]:,.0f} times"
    worst = error_growth(a, b=100 * u[:, 0], error=0.01 * u[:, -1])
    check_close("worst", text, worst, np.linalg.cond(a), rtol=1e-6)
    return np.linalg.cond(hilbert(10))


def error_growth(a: np.ndarray, b: np.ndarray, error: np.ndarray) -> float:
    """Relative error of x, where a x = b, divided by the relative error of b."""
    x = solve(a, b)
    error_of_x = solve(a, error)
    return (size(error_of_x) / size(x)) / (size(error) / size(b))


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
    left_over = ys[0] - matrices[0] @ ours[1][0]
    print(
        f"  columns · what is left over: {abs(matrices[0].T @ left_over).max():.0e}, a right angle"
    )

    errors = {name: [] for name in FITS}
    for degree in range(1, 13):
        a = np.vander(np.linspace(0, 1, 40), degree + 1)  # (40, degree + 1): powers of t
        exact = a.sum(axis=1)  # all coefficients are 1, and nothing is noisy
        for name, fit in FITS.items():
            errors[name].append(abs(fit(a, exact) - 1).max())
    for name, values in errors.items():
        print(f"  {name:<17} errors {values[3]:.0e} (degree 4), {values[7]:.0e} (8)", end="")
        print(f", {values[11]:.0e} (12)")
    ratio = errors["normal equations"][7] / errors["QR"][7]
    text = "at degree 8 the normal equations are {} times as far off as QR"
    check("digits", text, ratio, at_least=1000)

    a = rng.normal(size=(8, 3)) @ rng.normal(size=(3, 6))  # six columns, three directions
    y = rng.normal(size=8)
    text = "with dependent columns many x are best; the SVD's is NumPy's, the shortest"
    check_close("shortest", text, fit_svd(a, y), np.linalg.lstsq(a, y)[0])
    return errors


# Pictures: skip on a first reading


def draw_hilbert(cfg: Config) -> None:
    figure, axes = new_figure(1, 4, size=(14, 3.9), width_ratios=(1.9, 1, 1, 1))
    curves = {}
    for name in METHODS:
        curves[name] = [size(defect(name, n)) for n in range(2, 15)]
    plot_curves(axes[0], curves, "size of the Hilbert matrix", "‖QᵀQ − I‖", start=2, log=True)
    axes[0].set_title("Right angles lost, by size")
    for axis, name in zip(axes[1:], METHODS):
        digits = np.log10(abs(defect(name, 10)) + 1e-17)
        picture = axis.imshow(digits, vmin=-16, vmax=0, cmap="magma")
        axis.set(title=f"{name}, 10 × 10", xticks=[], yticks=[])
    figure.colorbar(picture, ax=axes[-1], label="log₁₀ of |QᵀQ − I|")
    save_figure(figure, cfg.out / "hilbert")


def draw_fit(cfg: Config, errors: dict[str, list[float]]) -> None:
    figure, (left, right) = new_figure(1, 2, size=(13.6, 4.6))
    t = np.linspace(0, 1, 25)
    y = np.sin(5 * t) + cfg.rng().normal(size=25) * 0.25
    a = np.vander(t, 4)
    fitted = a @ fit_qr(a, y)
    left.vlines(t, fitted, y, color=ORANGE)
    left.plot(t, fitted, color=BLUE)
    left.plot(t, y, "o", color=GREY)
    left.set(title="Cubic fit: the sum of orange² is the least possible", xlabel="t", ylabel="y")
    plot_curves(right, errors, "degree of the polynomial", "error of the coefficients", log=True)
    right.set(title="Data without noise, fitted in three ways", xlim=(0.5, 17))
    save_figure(figure, cfg.out / "fit")


def run(cfg: Config) -> dict:
    show_solve(cfg)
    show_qr(cfg)
    defects = show_hilbert(cfg)
    condition = show_condition(cfg)
    errors = show_fit(cfg)
    draw_hilbert(cfg)
    draw_fit(cfg, errors)
    at_degree_8 = {"error_normal": errors["normal equations"][7], "error_qr": errors["QR"][7]}
    return {"condition": condition, **defects, **at_degree_8, "errors": errors}


if __name__ == "__main__":
    main(run, Config, __doc__)
