"""2.2 Eigenvalues and SVD: the directions that a matrix only stretches, and a photograph in a tenth of its numbers
特征值与奇异值分解：矩阵只拉伸不转动的方向，以及只用十分之一的数保存一张照片

You will be able to answer
    1. How do you find a direction that a matrix only stretches?    show_power         power, power-rate
    2. How do you find all of them?                                 show_all           eigenvalues, eigenvectors
    3. What does the SVD do for a matrix that is not even square?   show_svd           svd-values, svd-vectors, rebuilt
    4. When does the short way through AᵀA lose everything?         show_lost          lost, kept
    5. How well can few numbers replace a picture, at best?         show_compression   frobenius, spectral, best
    6. What does PCA have to do with it, and why must it centre?    show_pca           pca-values, pca-axes, centre
Run       python phase02_math/02-eigenvalue-svd.py                         about 8 s
Needs     -
Reference np.linalg.eigh, np.linalg.svd
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
    every: int = param(2, "keep every n-th pixel of the photograph in both directions", tiny=12)
    matrices: int = param(20, "random matrices of condition 1e8", tiny=5)
    patches: int = param(5000, "8x8 pieces of the photograph for PCA", tiny=500, low=200)


def power_iteration(a: np.ndarray, x: np.ndarray, steps: int) -> tuple[list[float], np.ndarray]:
    """Multiply again and again: the direction that is stretched most wins. Returns λ after each step, and the x's."""
    values, path = [], [x]
    for _ in range(steps):
        # practice: one step towards the strongest direction
        # hint: bring the arrow back to length 1; then x·(A x), the Rayleigh quotient, is the stretch
        # hint: x = a @ x
        x = a @ x
        x = x / np.sqrt(x @ x)
        values.append(x @ (a @ x))
        path.append(x)
        # end practice
    return values, np.array(path)


def shift_of(a: np.ndarray) -> float:
    """Wilkinson's guess at one eigenvalue: that of the last 2x2 corner which lies nearer to the last entry."""
    half, off = (a[-2, -2] - a[-1, -1]) / 2, a[-1, -2]
    root = np.hypot(half, off)
    return a[-1, -1] + half - (root if half >= 0 else -root)


def qr_algorithm(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All eigenvalues of a symmetric matrix, largest first; eigenvectors as columns. a: (n, n) -> (n,), (n, n)"""
    a, vectors, size = a.copy(), np.eye(len(a)), len(a)
    nothing = 1e-15 * np.linalg.norm(a)
    for _ in range(40 * len(a)):  # two or three steps an eigenvalue; this is for bad luck
        # practice: turn the matrix towards its own axes
        # hint: factor Q R, then multiply in the wrong order: R Q = Qᵀ(Q R)Q is the same map in the basis Q
        # hint: subtract a guess at an eigenvalue (shift_of) from the diagonal first and add it again afterwards
        # hint: block = a[:size, :size]; shift = shift_of(block) * np.eye(size)
        block = a[:size, :size]
        shift = shift_of(block) * np.eye(size)
        q, r = np.linalg.qr(block - shift)
        a[:size, :size] = r @ q + shift
        vectors[:, :size] = vectors[:, :size] @ q  # the turns so far, which end as the eigenvectors
        # end practice
        while size > 1 and np.linalg.norm(a[size - 1, : size - 1]) <= nothing:
            size -= 1  # the last row is done: go on with the block above it
        if size == 1:
            break
    order = np.argsort(-np.diag(a))
    return np.diag(a)[order], vectors[:, order]


def svd_by_gram(a: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A = U diag(σ) Vᵀ through the eigenvectors of AᵀA. a: (m, n) -> (m, p), (p,), (n, p) with p = min(m, n)"""
    if len(a) < a.shape[1]:
        return svd_by_gram(a.T)[::-1]
    # practice: from eigenvectors to singular vectors
    # hint: AᵀA = V Σ² Vᵀ, where rounding can push a small square below 0; A V = U Σ, so a column of U is A v / σ
    # hint: values, v = qr_algorithm(a.T @ a)
    values, v = qr_algorithm(a.T @ a)
    s = np.sqrt(np.maximum(values, 0))
    u = a @ v / np.maximum(s, np.finfo(float).tiny)
    # end practice
    return u, s, v


def low_rank(u: np.ndarray, s: np.ndarray, v: np.ndarray, k: int) -> np.ndarray:
    """The k strongest layers: the sum of σ u vᵀ. Needs k (m + n + 1) numbers instead of m n."""
    return u[:, :k] * s[:k] @ v[:, :k].T


def pca(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The directions of most variance. x: (samples, n) -> variances (n,), largest first, and directions (n, n)"""
    # practice: variance is an eigenvalue
    # hint: along a unit direction d it is dᵀ C d, with the covariance matrix C = centredᵀ centred / (samples - 1)
    # hint: centred = x - x.mean(axis=0)
    centred = x - x.mean(axis=0)
    covariance = centred.T @ centred / (len(x) - 1)
    variances, directions = qr_algorithm(covariance)
    # end practice
    return variances, directions


def show_power(cfg: Config) -> None:
    print("\n[1] Multiply again and again, and the strongest direction wins")
    q = np.linalg.qr(cfg.rng().normal(size=(4, 4)))[0]
    a = q * [1.0, 0.8, 0.5, 0.2] @ q.T  # built from its eigenvectors, so we know them
    values, path = power_iteration(a, np.ones(4) / 2, 120)
    errors = np.linalg.norm(path - np.outer(path @ q[:, 0], q[:, 0]), axis=1)
    print(f"  λ after 1, 5, 20, 120 steps: {np.array(values)[[0, 4, 19, 119]]}")
    check_close(
        "power",
        "ends at the largest eigenvalue's direction",
        [values[-1], abs(path[-1] @ q[:, 0])],
        [1, 1],
    )
    check_close(
        "power-rate",
        "each step's error factor is λ₂/λ₁",
        (errors[60] / errors[50]) ** 0.1,
        0.8,
        rtol=1e-3,
    )


def show_all(cfg: Config, photo: np.ndarray) -> None:
    print("\n[2] The QR algorithm: all eigenvalues of a symmetric matrix, here photo @ photo.T")
    values, vectors = qr_algorithm(photo @ photo.T)
    expected, reference = (part[..., ::-1] for part in np.linalg.eigh(photo @ photo.T))
    check_close(
        "eigenvalues",
        "equal np.linalg.eigh's, to 13 digits",
        values,
        expected,
        rtol=0,
        atol=1e-13 * values[0],
    )
    check_close(
        "eigenvectors",
        "its vectors too, up to sign; neighbours a hair apart cost some digits",
        same_sign(vectors, reference),
        reference,
        atol=1e-6,
    )


def show_svd(cfg: Config, photo: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    print(
        f"\n[3] SVD: turn, stretch, turn. It exists for every matrix, such as the {photo.shape} photograph"
    )
    u, s, v = svd_by_gram(photo)
    u_ref, s_ref, vt_ref = np.linalg.svd(photo, full_matrices=False)
    check_close("svd-values", f"our {len(s)} singular values equal np.linalg.svd's", s, s_ref)
    both = np.vstack([u_ref, vt_ref.T])
    check_close(
        "svd-vectors",
        "the vectors too, up to the sign",
        same_sign(np.vstack([u, v]), both),
        both,
        atol=1e-6,
    )
    check_close("rebuilt", "U Σ Vᵀ is the photograph again", low_rank(u, s, v, len(s)), photo)
    return u, s, v


def show_lost(cfg: Config) -> dict[str, float]:
    print("\n[4] AᵀA squares the condition number: at 1e8 the smallest values drown in rounding")
    rng, true, errors = cfg.rng(), np.logspace(0, -8, 17), []
    for _ in range(cfg.matrices):
        left, right = (np.linalg.qr(rng.normal(size=(n, 17)))[0] for n in (40, 17))
        a = left * true @ right.T
        errors.append(
            [abs(s / true - 1) for s in (svd_by_gram(a)[1], np.linalg.svd(a, compute_uv=False))]
        )
    gram_error, direct_error = np.median(errors, axis=0)
    for i in (0, 8, 12, 16):
        print(
            f"  σ = {true[i]:.0e}   relative error: through AᵀA {gram_error[i]:.0e}   directly {direct_error[i]:.0e}"
        )
    check(
        "lost",
        "the smallest value through AᵀA is wrong by more than 2 % (median)",
        gram_error[-1],
        above=0.02,
    )
    check(
        "kept",
        "np.linalg.svd, which never forms AᵀA, keeps it to a millionth",
        direct_error[-1],
        below=1e-6,
    )
    figure, axis = new_figure(size=(7.6, 4.8))
    axis.loglog(true, gram_error, "o-", color=RED, label="through AᵀA")
    axis.loglog(true, direct_error, "o-", color=BLUE, label="directly")
    axis.loglog(true, 1e-16 / true**2, "--", color=GREY, label="1e-16 / σ²")
    axis.legend()
    axis.set(
        xlabel="true singular value",
        ylabel="relative error",
        title="Squaring costs half of the digits",
    )
    save_figure(figure, cfg.out / "lost")
    return {"gram_error": gram_error[-1], "direct_error": direct_error[-1]}


def show_compression(cfg: Config, photo: np.ndarray, parts: tuple) -> dict[str, float]:
    print("\n[5] Keep the k strongest layers: nothing of rank k comes closer (Eckart and Young)")
    s, ranks = parts[1], [k for k in (1, *RANKS) if k < len(parts[1])]
    rests = [photo - low_rank(*parts, k) for k in ranks]
    distances = [np.linalg.norm(rest) for rest in rests]
    errors = {
        f"error_{k}": distance / np.linalg.norm(photo) for k, distance in zip(ranks, distances)
    }
    for k, error in zip(ranks, errors.values()):
        print(
            f"  rank {k:>3}: {k * (sum(photo.shape) + 1) / photo.size:>6.1%} of the numbers, error {error:.1%}"
        )
    check_close(
        "frobenius",
        "distance: root of the squares left",
        distances,
        [np.linalg.norm(s[k:]) for k in ranks],
    )
    check_close(
        "spectral",
        "largest stretch left: the next value",
        [np.linalg.norm(r, 2) for r in rests],
        s[ranks],
    )
    others = (
        np.linalg.qr(photo @ mix)[0]
        for mix in cfg.rng().normal(size=(20, photo.shape[1], ranks[1]))
    )
    check(
        "best",
        f"the best of 20 other rank-{ranks[1]} pictures is farther away; by the factor",
        min(np.linalg.norm(photo - q @ (q.T @ photo)) for q in others) / distances[1],
        above=1,
    )
    noise = np.linalg.svd(cfg.rng().normal(size=photo.shape), compute_uv=False)
    draw_photo(cfg, photo, parts, noise)
    return errors


def show_pca(cfg: Config, photo: np.ndarray) -> dict[str, float]:
    print(
        "\n[6] PCA is the SVD of centred data: what do 8x8 pieces of a photograph have in common?"
    )
    rng, grey = cfg.rng(), photo.reshape(len(photo), -1, 3).mean(axis=2)  # (H, W)
    corners = rng.integers(0, np.array(grey.shape) - 7, (cfg.patches, 2))
    x = np.array([grey[i : i + 8, j : j + 8].ravel() for i, j in corners])  # (patches, 64)
    variances, directions = pca(x)
    s, vt = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)[1:]
    check_close(
        "pca-values",
        "variances are σ² / (samples - 1) of the centred data",
        variances,
        s**2 / (len(x) - 1),
    )
    check_close(
        "pca-axes",
        "and the first 10 directions its right singular vectors, up to sign",
        same_sign(directions[:, :10], vt[:10].T),
        vt[:10].T,
        atol=1e-6,
    )
    first, mean = (
        np.linalg.svd(x, full_matrices=False)[2][0],
        x.mean(axis=0) / np.linalg.norm(x.mean(axis=0)),
    )
    check(
        "centre",
        "without centring, direction 1 is the mean; cosine between them",
        abs(first @ mean),
        above=0.99,
    )
    share = variances / variances.sum()
    print(f"  8 of 64 directions hold {share[:8].sum():.1%} of the variance")
    draw_patches(cfg, directions, share)
    return {"eight_directions": share[:8].sum()}


def same_sign(vectors: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """An eigenvector times -1 is one as well: turn each column to the side of the reference's."""
    return vectors * np.sign((vectors * reference).sum(axis=0))


def draw_photo(cfg: Config, photo: np.ndarray, parts: tuple, noise: np.ndarray) -> None:
    """The photograph from few layers, and why it works: its singular values fall, those of noise do not."""
    figure, ((one, two), (three, axis)) = new_figure(2, 2, size=(11.2, 8.0))
    titles = [
        f"rank {k}: {k * (sum(photo.shape) + 1) / photo.size:.0%} of the numbers" for k in RANKS
    ]
    plot_images(
        (one, two, three),
        [low_rank(*parts, k).clip(0, 1).reshape(len(photo), -1, 3) for k in RANKS],
        titles,
    )
    for s, colour, name in (
        (parts[1], BLUE, "photograph"),
        (noise, ORANGE, "noise of the same size"),
    ):
        axis.semilogy(
            np.arange(1, len(s)),
            1 - np.cumsum(s[:-1] ** 2) / (s**2).sum(),
            color=colour,
            label=name,
        )
    axis.set(
        ylim=(1e-5, 1.5),
        xlabel="layers kept",
        ylabel="share left out",
        title="A photo has few strong layers",
    )
    axis.legend(loc="lower left")
    save_figure(figure, cfg.out / "photograph")


def draw_patches(cfg: Config, directions: np.ndarray, share: np.ndarray) -> None:
    figure, axis = new_figure(size=(10.4, 5.0))
    wall = np.full((3, 11, 8, 9), np.nan)  # 3 rows of 8 tiles, with a gap above and beside each
    for n, direction in enumerate(directions.T[:24]):
        wall[n // 8, 3:, n % 8, :8] = direction.reshape(8, 8) / abs(direction).max()
        axis.text(
            9 * (n % 8) + 3.5, 11 * (n // 8) + 1.3, f"{share[n]:.1%}", ha="center", va="center"
        )
    axis.imshow(wall.reshape(33, 72), cmap="RdBu_r", vmin=-1, vmax=1)
    axis.set_title(
        "The strongest patterns in 8x8 pieces of the photograph, and their share of the variance"
    )
    axis.axis("off")
    save_figure(figure, cfg.out / "patches")


def load_photo(cfg: Config) -> np.ndarray:
    """A photograph as one matrix of numbers 0…1: (height, width · 3), the colours side by side."""
    from sklearn.datasets import load_sample_image

    current().use_data("photograph", "china.jpg from the package scikit-learn")
    picture = load_sample_image("china.jpg")[:: cfg.every, :: cfg.every] / 255
    return picture.reshape(len(picture), -1)


def run(cfg: Config) -> dict:
    photo = load_photo(cfg)
    show_power(cfg)
    show_all(cfg, photo)
    parts = show_svd(cfg, photo)
    results = show_lost(cfg)
    results |= show_compression(cfg, photo, parts)
    return results | show_pca(cfg, photo)


if __name__ == "__main__":
    main(run, Config, __doc__)
