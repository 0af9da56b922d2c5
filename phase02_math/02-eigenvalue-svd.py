"""2.2 Eigenvalues and SVD: what a matrix does, one direction at a time
特征值与奇异值分解：逐个方向看矩阵的作用

You will be able to answer
    1. Which direction keeps itself?     show_power  power, power-rate
    2. How do you find all of them?      show_all    eigen
    3. What is an SVD, and AᵀA's price?  show_svd    by-hand, layers, angles, zero, svd, lost, kept
    4. How good is a sum of few layers?  show_few    distance, best, few, noise
    5. Why is PCA an SVD, why centre?    show_pca    pca, centre
Predict   share_for_5: with a relative error of 5 %, how few of its numbers does a photograph need?
          Error: root of all squared differences, divided by the root of all squares.
Run       python phase02_math/02-eigenvalue-svd.py                         about 8 s
Needs     -
Reference np.linalg.svd, sklearn.decomposition
Notation  A matrix (m, n)  λ eigenvalue  σ singular value, largest first  k rank that is kept
"""

from dataclasses import dataclass

import numpy as np

from common.checks import check, check_close
from common.config import LessonConfig, main, param
from common.figures import BLUE, GREY, ORANGE, RED, new_figure, plot_images, save_figure
from common.record import current

RANKS = (5, 20, 60)


@dataclass
class Config(LessonConfig):
    data: str = param("photograph", "data set", choices=("photograph",))
    every: int = param(2, "keep every n-th pixel of the photograph in both directions", tiny=6)
    matrices: int = param(20, "random matrices of condition 1e8", tiny=5, low=5)


def power_iteration(a: np.ndarray, x: np.ndarray, steps: int) -> tuple[list[float], np.ndarray]:
    """Multiply again and again: the eigenvector with the largest |λ| wins.

    a: (n, n) with a basis of eigenvectors, one |λ| above all others. x: (n,), where to start, with
    a part along that one. Returns the estimates of λ, one a step, and the unit vectors (steps, n).
    """
    values = []
    path = []
    for _ in range(steps):
        x = a @ x
        x = x / np.linalg.norm(x)
        path.append(x)

        # If a x = λ x and x has length 1, then x·(a x) is λ: the Rayleigh quotient.
        values.append(x @ (a @ x))
    return values, np.array(path)


def show_power(cfg: Config) -> None:
    print("\n[1] Multiply again and again, and the eigenvector with the largest |λ| wins")
    a = np.array([[4.0, 1.0], [2.0, 3.0]])
    values, path = power_iteration(a, np.array([1.0, -1.0]), steps=50)
    print("  estimates of λ:", np.round(values[:5], 3), "…", values[-1])
    text = "on the rows (4, 1), (2, 3) power iteration finds λ = 5 and the direction (1, 1)"
    check_close("power", text, [values[-1], *path[-1]], [5, 0.5**0.5, 0.5**0.5])

    # The other eigenvector is (1, -2), with λ = 2. How much of each is in x?
    right, wrong = np.linalg.solve([[1, 1], [1, -2]], path.T)  # (steps,) each
    text = "in each step the error, the part along (1, -2), shrinks to λ₂ / λ₁ = 2/5 of itself"
    share = wrong / right
    check_close("power-rate", text, share[1:5] / share[:4], np.full(4, 2 / 5))


def qr_algorithm(a: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """All eigenvalues of a symmetric matrix, and the eigenvectors as columns.

    a: (n, n) whose |λ| all differ -> (n,), (n, n). The largest |λ| comes first, unless a falls into
    blocks, as a diagonal matrix does. Without the shifts that practical codes have.
    """
    # practice: Turn the matrix towards its own axes
    vectors = np.eye(len(a))
    for _ in range(steps):
        q, r = np.linalg.qr(a)

        # R Q = Qᵀ (Q R) Q = Qᵀ A Q: the same map, described in the basis Q (2.1).
        a = r @ q
        vectors = vectors @ q

    return np.diag(a), vectors
    # end practice


def show_all(cfg: Config, photo: np.ndarray) -> None:
    print("\n[2] The QR algorithm turns the axes until a symmetric matrix is diagonal")
    rows = photo[:: len(photo) // 11]  # a dozen rows of the photograph
    products = rows @ rows.T  # (12, 12), symmetric
    values, vectors = qr_algorithm(products, steps=1000)
    values_ref, vectors_ref = largest_first(*np.linalg.eigh(products))
    vectors = same_sign(vectors, vectors_ref)
    ours = np.vstack([values, vectors])
    text = f"after 1,000 steps {len(rows)} eigenvalues and vectors are np.linalg.eigh's, up to {{}}"
    check_close("eigen", text, ours, np.vstack([values_ref, vectors_ref]))


def largest_first(values: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """np.linalg.eigh begins with the smallest: turn values (n,) and columns (n, n) round."""
    return values[::-1], vectors[:, ::-1]


def same_sign(vectors: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """An eigenvector times -1 is one as well: turn each column to the side of the reference's."""
    return vectors * np.sign((vectors * reference).sum(axis=0))


def svd_by_gram(a: np.ndarray, tol: float = 1e-6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A = U diag(σ) Vᵀ through the eigenvectors of AᵀA, with the r singular values above 0.

    a: (m, n) -> u (m, r), σ (r,) largest first, v (n, r). Below tol times the largest, σ counts as
    0: its square is lost in the rounding of AᵀA.
    """
    if len(a) < a.shape[1]:
        v, sigma, u = svd_by_gram(a.T, tol)
        return u, sigma, v

    # practice: From eigenvectors to singular vectors
    squares, v = largest_first(*np.linalg.eigh(a.T @ a))

    # Rounding turns a zero into a tiny number of either sign, which has no root or divides nothing.
    kept = squares > tol**2 * squares[0]
    sigma = np.sqrt(squares[kept])
    v = v[:, kept]
    u = a @ v / sigma
    return u, sigma, v
    # end practice


def low_rank(parts: tuple, k: int) -> np.ndarray:
    """The sum of the k strongest layers σ u vᵀ. parts: u (m, r), σ (r,), v (n, r) -> (m, n)"""
    u, sigma, v = parts
    return u[:, :k] * sigma[:k] @ v[:, :k].T


def share_of_numbers(parts: tuple, k: int) -> float:
    """How many numbers k layers have, of those in the whole matrix."""
    u, _, v = parts
    return k * (len(u) + 1 + len(v)) / (len(u) * len(v))


def show_svd(cfg: Config, photo: np.ndarray) -> tuple:
    print("\n[3] Every matrix takes some directions at right angles to directions at right angles")
    _, sigma, _ = svd_by_gram(np.array([[3.0, 0.0], [4.0, 5.0]]))
    text = "the matrix with rows (3, 0) and (4, 5) has the singular values √45 and √5"
    check_close("by-hand", text, sigma, np.sqrt([45, 5]))

    rng = cfg.rng()
    # a thousand times, because "nothing" is relative to the largest value
    rank_2 = 1000 * rng.normal(size=(40, 2)) @ rng.normal(size=(2, 30))
    parts = svd_by_gram(rank_2)
    text = "a 40x30 matrix of rank 2 is the sum of its layers"
    check_close("layers", text, low_rank(parts, 30), rank_2)
    u, _, v = parts
    text = "it has two layers, and the columns of U and of V are orthonormal"
    check_close("angles", text, [u.T @ u, v.T @ v], [np.eye(2), np.eye(2)])

    found = [len(svd_by_gram(a)[1]) for a in (np.diag([1, 1e-5, 1e-7]), np.zeros((3, 2)))]
    text = "of the stretches 1, 1e-5 and 1e-7 two count, as tol is 1e-6; of a matrix of zeros none"
    check_close("zero", text, found, [2, 0])

    u, sigma, v = svd_by_gram(photo)
    u_ref, sigma_ref, vt_ref = np.linalg.svd(photo, full_matrices=False)
    both_ref = np.vstack([u_ref, vt_ref.T])
    both = same_sign(np.vstack([u, v]), both_ref)
    text = f"the photograph's {len(sigma)} values σ, with u and v, are np.linalg.svd's, up to {{}}"
    ours = np.vstack([sigma, both])
    check_close("svd", text, ours, np.vstack([sigma_ref, both_ref]), atol=1e-6)
    return u, sigma, v


def show_lost(cfg: Config) -> dict[str, float]:
    """Still question 3. Returns the median relative error of the smallest σ, in two ways."""
    print("  singular values that fall from 1 to 1e-8, found in two ways; their errors:")
    rng = cfg.rng()
    true = np.logspace(0, -8, 17)
    found = []
    for _ in range(cfg.matrices):
        u, _ = np.linalg.qr(rng.normal(size=(40, 17)))
        v, _ = np.linalg.qr(rng.normal(size=(17, 17)))
        a = u * true @ v.T

        squares = np.linalg.eigvalsh(a.T @ a)[::-1]
        roots = np.sqrt(np.abs(squares))
        direct = np.linalg.svd(a, compute_uv=False)
        found.append([roots, direct])

    roots, direct = np.median(np.abs(np.array(found) / true - 1), axis=0)  # (17,) each
    for i in (0, 8, 12, 16):
        print(f"  σ = {true[i]:.0e}   √λ of AᵀA {roots[i]:.0e}   directly {direct[i]:.0e}")
    text = "the root of the smallest eigenvalue of AᵀA is wrong by a share of {} (median)"
    check("lost", text, roots[-1], above=0.003)
    text = "np.linalg.svd, which does not form AᵀA, has the smallest σ up to {}"
    check("kept", text, direct[-1], below=1e-6)
    return {"root_error": roots[-1], "direct_error": direct[-1]}


def show_few(cfg: Config, photo: np.ndarray, parts: tuple) -> dict[str, float]:
    print("\n[4] Keep the k strongest layers: no matrix of rank k is nearer (Eckart and Young)")
    _, sigma, _ = parts
    tails = np.sqrt(np.cumsum(sigma[::-1] ** 2)[::-1])  # root of the squares from each σ on
    results = {}
    ours = []
    wanted = []
    for k in RANKS:
        rest = photo - low_rank(parts, k)
        ours.append([np.linalg.norm(rest), np.linalg.norm(rest, 2)])
        wanted.append([tails[k], sigma[k]])
        results[f"error_{k}"] = tails[k] / tails[0]
        share = share_of_numbers(parts, k)
        print(f"  rank {k:>2}: {share:.1%} of the numbers, error {results[f'error_{k}']:.1%}")
    text = "Frobenius: root of the squares left out. Largest stretch: the next σ. Both up to {}"
    check_close("distance", text, ours, wanted)

    k = 20
    few, _ = np.linalg.qr(photo @ cfg.rng().normal(size=(photo.shape[1], k)))
    mixtures = few @ (few.T @ photo)
    ratio = np.linalg.norm(photo - mixtures, 2) / sigma[k]
    text = "20 random mixtures of its columns leave a stretch of {} σ₂₁, 20 layers leave σ₂₁"
    check("best", text, ratio, at_least=1)

    needed = int(np.argmax(tails <= 0.05 * tails[0]))
    results["share_for_5"] = share_of_numbers(parts, needed)
    stored = sum(part[..., :needed].size for part in parts)
    text = f"but an error of 5 % takes rank {needed}: {stored:,} of {photo.size:,} numbers"
    check_close("few", text, results["share_for_5"] * photo.size, stored)

    results["top_photo"] = against_average(photo)[0]
    noise = 0.5 + cfg.rng().normal(size=photo.shape)
    results["top_noise"] = against_average(noise)[0]
    first = results["top_photo"]
    text = f"first layer, divided by the average one: photograph {first:.1f}, grey noise {{}}"
    check("noise", text, results["top_noise"], above=1.3, below=1.7)
    return results


def against_average(a: np.ndarray) -> np.ndarray:
    """Singular values of a, less its mean, divided by their root mean square. (m, n) -> (r,)"""
    _, sigma, _ = svd_by_gram(a - a.mean())
    return sigma / np.sqrt((sigma**2).mean())


def pca(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The directions in which data varies most.

    x: (samples, n) -> variances (n,), largest first, and the directions, the columns of (n, n).
    """
    # practice: Variance is an eigenvalue
    centred = x - x.mean(axis=0)
    covariance = centred.T @ centred / (len(x) - 1)  # (n, n)

    # Along a unit direction d the variance is dᵀ C d, largest at the first eigenvector of C.
    return largest_first(*np.linalg.eigh(covariance))
    # end practice


def show_pca(cfg: Config) -> None:
    print("\n[5] PCA is the SVD of centred data")
    # 300 points, spread most along (-1, 2), far from the origin
    x = cfg.rng().normal(size=(300, 2)) @ [[-1, 2], [0.4, 0.2]] + [6, 3]
    variances, directions = pca(x)

    _, sigma, vt = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    directions = same_sign(directions, vt.T)
    ours = np.vstack([variances, directions])
    text = "variances are σ² / (points - 1), directions the right singular vectors"
    check_close("pca", text, ours, np.vstack([sigma**2 / (len(x) - 1), vt.T]))

    uncentred = np.linalg.svd(x, full_matrices=False)[2][0]
    to_mean = x.mean(axis=0) / np.linalg.norm(x.mean(axis=0))
    cosine = abs(uncentred @ directions[:, 0])
    text = f"not centred, the first direction points to the mean: cosine {{}}; PCA's: {cosine:.2f}"
    check("centre", text, abs(uncentred @ to_mean), above=0.99)


# Pictures and helpers: skip on a first reading


def draw_ellipse(cfg: Config) -> None:
    """The matrix of the worked example on a circle, with singular and with eigenvectors."""
    a = np.array([[3.0, 0.0], [4.0, 5.0]])
    angles = np.linspace(0, 2 * np.pi, 200)
    circle = np.array([np.cos(angles), np.sin(angles)])
    u, sigma, v = svd_by_gram(a)
    _, kept = np.linalg.eig(a)

    figure, (left, right) = new_figure(1, 2, size=(11.0, 5.6))
    plot_directions(left, circle, kept, v, ("v₁", "v₂"))
    plot_directions(right, a @ circle, a @ kept, u * sigma, ("σ₁u₁", "σ₂u₂"))
    left.set_title("Dashed: eigenvectors")
    right.set_title("A takes v to σu; the dashed keep their lines")
    save_figure(figure, cfg.out / "ellipse")


def plot_directions(axis, curve, dashed, arrows, names) -> None:
    limit = 1.3 * np.abs(curve).max()
    axis.plot(*curve, color=GREY)
    axis.plot(*np.array([dashed[:, 0], [0, 0], dashed[:, 1]]).T, "--", color="black")
    for arrow, name, colour in zip(arrows.T, names, (RED, BLUE)):
        axis.quiver(0, 0, *arrow, color=colour, angles="xy", scale_units="xy", scale=1, width=0.012)
        place = arrow * (1 + 0.15 * limit / np.linalg.norm(arrow))
        axis.text(*place, name, color=colour, fontsize=15, ha="center", va="center")
    axis.set(aspect="equal", xlim=(-limit, limit), ylim=(-limit, limit))


def draw_photograph(cfg: Config, photo: np.ndarray, parts: tuple) -> None:
    """The photograph from few layers, and why: its singular values fall, those of noise do not."""
    figure, axes = new_figure(2, 2, size=(11.2, 8.0))
    *places, axis = axes.ravel()
    pictures = [low_rank(parts, k).clip(0, 1).reshape(len(photo), -1, 3) for k in RANKS]
    titles = [f"rank {k}: {share_of_numbers(parts, k):.0%} of the numbers" for k in RANKS]
    plot_images(places, pictures, titles)

    noise = cfg.rng().normal(size=photo.shape)
    for a, colour, name in ((photo, BLUE, "photograph"), (noise, ORANGE, "noise")):
        axis.semilogy(against_average(a), color=colour, label=name)
    axis.axhline(1, color=GREY, linestyle="--")
    axis.legend()
    axis.set(ylim=(1e-2, 20), xlabel="number of the layer", ylabel="σ / average")
    axis.set_title("A photograph's first layers stand out")
    save_figure(figure, cfg.out / "photograph")


def load_photo(cfg: Config) -> np.ndarray:
    """A photograph as one matrix of numbers 0…1: (height, width · 3), the colours side by side."""
    from sklearn.datasets import load_sample_image

    current().use_data("photograph", "china.jpg from the package scikit-learn")
    picture = load_sample_image("china.jpg")[:: cfg.every, :: cfg.every] / 255
    return picture.reshape(len(picture), -1)


def run(cfg: Config) -> dict[str, float]:
    photo = load_photo(cfg)
    show_power(cfg)
    show_all(cfg, photo)
    parts = show_svd(cfg, photo)
    errors = show_lost(cfg)
    results = show_few(cfg, photo, parts)
    show_pca(cfg)
    draw_ellipse(cfg)
    draw_photograph(cfg, photo, parts)
    return {**results, **errors}


if __name__ == "__main__":
    main(run, Config, __doc__)
