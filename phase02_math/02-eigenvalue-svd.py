"""2.2 Eigenvalues and SVD: the directions that a matrix only stretches
特征值与奇异值分解：矩阵只拉伸、不转动的方向

You will be able to answer
    1. Which direction is only stretched?      show_power         power, power-rate
    2. How do you find all such directions?    show_all           eigen
    3. What is an SVD, what does AᵀA cost?     show_svd           by-hand, rebuilt, svd, lost, kept
    4. How good is a picture of few layers?    show_compression   distance, best, few
    5. Why is PCA an SVD, and why centre?      show_pca           pca, centre
Predict   share_for_5: what share of a photograph's numbers is needed for an error of 5 %?
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
    patches: int = param(5000, "8x8 pieces of the photograph for PCA", tiny=500, low=200)


def power_iteration(a: np.ndarray, x: np.ndarray, steps: int) -> tuple[list[float], np.ndarray]:
    """Multiply again and again: the eigenvector with the largest |λ| wins.

    a: (n, n). x: (n,), where to start. Returns the estimates of λ, one a step, and the unit vectors
    (steps, n).
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
    values, path = power_iteration(a, np.array([1.0, 0.0]), steps=50)
    print(f"  estimates of λ: {values[0]:.3f}, {values[1]:.3f}, …, {values[-1]:.12f}")
    text = "on the rows (4, 1), (2, 3) power iteration finds λ = 5 and the direction (1, 1)"
    check_close("power", text, [values[-1], *path[-1]], [5, 0.5**0.5, 0.5**0.5])

    # The other eigenvector is (1, -2), with λ = 2. How much of each is in x?
    right, wrong = np.linalg.solve([[1, 1], [1, -2]], path.T)  # (steps,) each
    text = "each step makes the wrong part smaller by λ₂ / λ₁ = 2/5"
    share = wrong / right
    check_close("power-rate", text, share[1:5] / share[:4], np.full(4, 2 / 5))


def qr_algorithm(a: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """All eigenvalues of a symmetric matrix, largest |λ| first, and the eigenvectors as columns.

    a: (n, n) -> (n,), (n, n). The plain method of Francis (1961), without his shifts.
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
    for steps in (1, 10, 100):
        _, vectors = qr_algorithm(products, steps)
        turned = vectors.T @ products @ vectors
        off = np.abs(turned - np.diag(np.diag(turned))).max()
        print(f"  largest entry off the diagonal after {steps:>3} steps: {off:.1e}")

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


def svd_by_gram(a: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A = U diag(σ) Vᵀ through the eigenvectors of AᵀA.

    a: (m, n) -> u (m, p), σ (p,) largest first, v (n, p), with p the smaller of m and n.
    """
    if len(a) < a.shape[1]:
        v, sigma, u = svd_by_gram(a.T)
        return u, sigma, v

    # practice: From eigenvectors to singular vectors
    squares, v = largest_first(*np.linalg.eigh(a.T @ a))

    # Rounding can push a small square below 0, which has no root, and 0 divides nothing.
    squares = np.maximum(squares, np.finfo(float).tiny)
    sigma = np.sqrt(squares)
    u = a @ v / sigma
    return u, sigma, v
    # end practice


def low_rank(parts: tuple, k: int) -> np.ndarray:
    """The sum of the k strongest layers σ u vᵀ. parts: u (m, p), σ (p,), v (n, p) -> (m, n)"""
    u, sigma, v = parts
    return u[:, :k] * sigma[:k] @ v[:, :k].T


def share_of_numbers(parts: tuple, k: int) -> float:
    """How many numbers the first k columns of the parts have, of those in the whole matrix."""
    u, _, v = parts
    kept = [part[..., :k].size for part in parts]
    return sum(kept) / (len(u) * len(v))


def show_svd(cfg: Config, photo: np.ndarray) -> tuple:
    print(f"\n[3] Every matrix turns, stretches, turns: the photograph as well, {photo.shape}")
    _, sigma, _ = svd_by_gram(np.array([[3.0, 0.0], [4.0, 5.0]]))
    text = "the matrix with rows (3, 0) and (4, 5) has the singular values √45 and √5"
    check_close("by-hand", text, sigma, np.sqrt([45, 5]))

    rng = cfg.rng()
    rank_2 = rng.normal(size=(40, 2)) @ rng.normal(size=(2, 30))
    text = "a 40x30 matrix of rank 2 is the sum of its layers, though 28 of them are nothing"
    check_close("rebuilt", text, low_rank(svd_by_gram(rank_2), 30), rank_2)

    u, sigma, v = svd_by_gram(photo)
    u_ref, sigma_ref, vt_ref = np.linalg.svd(photo, full_matrices=False)
    both_ref = np.vstack([u_ref, vt_ref.T])
    both = same_sign(np.vstack([u, v]), both_ref)
    text = f"our {len(sigma)} singular values and vectors are np.linalg.svd's, up to {{}}"
    ours = np.vstack([sigma, both])
    check_close("svd", text, ours, np.vstack([sigma_ref, both_ref]), atol=1e-6)
    return u, sigma, v


def show_lost(cfg: Config) -> dict[str, np.ndarray]:
    """Still question 3. Returns each singular value and its median relative error on two ways."""
    print("  now singular values that fall from 1 to 1e-8, through AᵀA and directly")
    rng = cfg.rng()
    true = np.logspace(0, -8, 17)
    gram = []
    direct = []
    for _ in range(cfg.matrices):
        u, _ = np.linalg.qr(rng.normal(size=(40, 17)))
        v, _ = np.linalg.qr(rng.normal(size=(17, 17)))
        a = u * true @ v.T
        _, sigma, _ = svd_by_gram(a)
        gram.append(np.abs(sigma / true - 1))
        direct.append(np.abs(np.linalg.svd(a, compute_uv=False) / true - 1))

    errors = {"true": true, "gram": np.median(gram, axis=0), "direct": np.median(direct, axis=0)}
    for i in (0, 8, 12, 16):
        through, directly = errors["gram"][i], errors["direct"][i]
        print(f"  σ = {true[i]:.0e}   error through AᵀA {through:.0e}   directly {directly:.0e}")
    text = "through AᵀA the smallest value is wrong by a share of {} (median)"
    check("lost", text, errors["gram"][-1], above=0.003)
    text = "np.linalg.svd, which does not form AᵀA, keeps it up to {}"
    check("kept", text, errors["direct"][-1], below=1e-6)
    return errors


def show_compression(cfg: Config, photo: np.ndarray, parts: tuple) -> dict[str, float]:
    print("\n[4] Keep the k strongest layers: no matrix of rank k is nearer (Eckart and Young)")
    _, sigma, v = parts
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
    band = len(photo) // k + 1
    first_rows = np.arange(len(photo)) // band * band  # bands of equal rows, at most 20
    layers_2_to_21 = low_rank(parts, k + 1) - low_rank(parts, 1)
    rivals = [few @ (few.T @ photo), photo[first_rows], layers_2_to_21]
    ratios = []
    for rival in rivals:
        # A rank of k cannot tell k + 1 directions apart: one combination z is sent to 0.
        combination = np.linalg.svd(rival @ v[:, : k + 1], full_matrices=False)[2][-1]
        z = v[:, : k + 1] @ combination
        ratios.append(np.linalg.norm((photo - rival) @ z) / sigma[k])
    text = "3 other pictures of rank 20 each lose a direction, and are off there by {} σ₂₁ or more"
    check("best", text, min(ratios), at_least=1)

    needed = int(np.argmax(tails <= 0.05 * tails[0]))
    results["share_for_5"] = share_of_numbers(parts, needed)
    text = f"but an error of 5 % takes rank {needed}, a share of {{}} of the numbers"
    check("few", text, results["share_for_5"], above=0.5, below=0.8)
    return results


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


def show_pca(cfg: Config, photo: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    print("\n[5] PCA is the SVD of centred data: what do 8x8 pieces of the photograph share?")
    grey = photo.reshape(len(photo), -1, 3).mean(axis=2)  # (H, W)
    corners = cfg.rng().integers(0, np.array(grey.shape) - 7, size=(cfg.patches, 2))
    x = np.array([grey[i : i + 8, j : j + 8].ravel() for i, j in corners])  # (patches, 64)
    variances, directions = pca(x)

    mean = x.mean(axis=0)
    _, sigma, vt = np.linalg.svd(x - mean, full_matrices=False)
    directions = same_sign(directions, vt.T)
    check_close(
        "pca",
        "variances are σ² / (samples - 1), directions the right singular vectors (first 10)",
        np.vstack([variances, directions])[:, :10],
        np.vstack([sigma**2 / (len(x) - 1), vt.T])[:, :10],
        atol=1e-6,
    )
    uncentred = np.linalg.svd(x, full_matrices=False)[2][0]
    text = "without centring the first direction is that of the mean: the cosine is {}"
    check("centre", text, abs(uncentred @ mean) / np.linalg.norm(mean), above=0.99)
    return variances / variances.sum(), directions


# Pictures: skip on a first reading


def draw_lost(cfg: Config, errors: dict[str, np.ndarray]) -> None:
    figure, axis = new_figure(size=(7.6, 4.8))
    true = errors["true"]
    axis.loglog(true, np.maximum(errors["gram"], 1e-16), "o-", color=RED, label="through AᵀA")
    axis.loglog(true, errors["direct"], "o-", color=BLUE, label="directly")
    axis.loglog(true, 1e-16 / true**2, "--", color=GREY, label="1e-16 / σ²")
    axis.legend()
    axis.set(xlabel="true singular value", ylabel="relative error")
    axis.set_title("Squaring costs half of the digits")
    save_figure(figure, cfg.out / "lost")


def draw_photograph(cfg: Config, photo: np.ndarray, parts: tuple) -> None:
    """The photograph from few layers, and why: its singular values fall, those of noise do not."""
    figure, axes = new_figure(2, 2, size=(11.2, 8.0))
    *places, axis = axes.ravel()
    pictures = []
    titles = []
    for k in RANKS:
        pictures.append(low_rank(parts, k).clip(0, 1).reshape(len(photo), -1, 3))
        titles.append(f"rank {k}: {share_of_numbers(parts, k):.0%} of the numbers")
    plot_images(places, pictures, titles)

    _, noise, _ = svd_by_gram(cfg.rng().normal(size=photo.shape))
    for sigma, colour, name in ((parts[1], BLUE, "photograph"), (noise, ORANGE, "noise")):
        left_out = 1 - np.cumsum(sigma**2)[:-1] / (sigma**2).sum()
        axis.semilogy(np.arange(1, len(sigma)), left_out, color=colour, label=name)
    axis.legend(loc="lower left")
    axis.set(ylim=(1e-5, 1.5), xlabel="layers kept", ylabel="share of the squares left out")
    axis.set_title("A photograph has few strong layers")
    save_figure(figure, cfg.out / "photograph")


def draw_patches(cfg: Config, share: np.ndarray, directions: np.ndarray) -> None:
    figure, axis = new_figure(size=(10.4, 5.0))
    wall = np.full((3, 11, 8, 9), np.nan)  # 3 rows of 8 tiles, with a gap above and beside each
    for n, direction in enumerate(directions.T[:24]):
        row, column = divmod(n, 8)
        wall[row, 3:, column, :8] = direction.reshape(8, 8) / np.abs(direction).max()
        place = (9 * column + 3.5, 11 * row + 1.3)
        axis.text(*place, f"{share[n]:.1%}", ha="center", va="center")
    axis.imshow(wall.reshape(33, 72), cmap="RdBu_r", vmin=-1, vmax=1)
    axis.set_title("Principal directions of 8x8 pieces, and their share of the variance")
    axis.axis("off")
    save_figure(figure, cfg.out / "patches")


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
    results = show_compression(cfg, photo, parts)
    share, directions = show_pca(cfg, photo)
    draw_lost(cfg, errors)
    draw_photograph(cfg, photo, parts)
    draw_patches(cfg, share, directions)
    results["gram_error"] = errors["gram"][-1]
    results["direct_error"] = errors["direct"][-1]
    results["eight_directions"] = share[:8].sum()
    return results


if __name__ == "__main__":
    main(run, Config, __doc__)
