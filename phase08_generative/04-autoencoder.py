"""8.4 The autoencoder: squeeze, then rebuild
自编码器：压缩，再重建

You will be able to answer
    1. What do k numbers keep of a picture?   show_pca        by-hand, left-out
    2. What does a linear autoencoder find?   show_linear     scipy, span
    3. What do more layers add?               show_deep       overfits, depends, deep, nearest
    4. How does a network remove noise?       show_denoising  noise, wiener, score, linear, denoised
    5. How does a penalty switch units off?   show_sparse     soft, slope, active, fewer, pca
Predict   nearest_deep: 2 numbers for each digit; how often is the nearest one of the same class?
Run       python phase08_generative/04-autoencoder.py                      about 40 s
Needs     -
Reference scipy.linalg.subspace_angles
Notation  B batch  P pixels  K numbers of the code  C covariance of the pixels
"""

from dataclasses import dataclass
from functools import partial

import scipy.linalg
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import MultivariateNormal
from torch.optim.lr_scheduler import LinearLR

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.data.batches import Batches
from common.data.images import load_images
from common.data.tensors import to_tensors
from common.figures import new_figure, plot_images, save_figure
from common.training import fit

NOISE = 0.5  # standard deviation of the noise in [4], where black is 1 and white -1
PENALTY = 1.0  # strength of the penalty in [5]
UNITS = 256  # of the sparse autoencoder


@dataclass
class Config(LessonConfig):
    threads = 1
    data: str = param("digits", "data set", choices=("digits", "mnist-5k", "mnist"))
    epochs: int = param(100, "passes over the pictures of the other networks", tiny=2)


class Autoencoder(nn.Module):
    """Pictures (B, P) -> codes (B, K) -> pictures (B, P)"""

    def __init__(self, encoder: nn.Module, decoder: nn.Module):
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


def reconstruction_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The squared error of a picture, mean over the batch. batch: inputs, targets, both (B, P)"""
    # practice: The reconstruction loss
    inputs, targets = batch
    difference = model(inputs) - targets

    # A sum over the pixels: then it can be compared with variances.
    return difference.square().sum(dim=1).mean()
    # end practice


def pca_autoencoder(x: Tensor, k: int) -> Autoencoder:
    """PCA (2.2) of the rows of x (n, P), written as two linear layers."""
    model = Autoencoder(nn.Linear(x.shape[1], k), nn.Linear(k, x.shape[1])).to(x)
    # practice: PCA as an autoencoder
    mean = x.mean(dim=0)
    _, vectors = torch.linalg.eigh(x.T.cov())
    directions = vectors[:, -k:]  # (P, k): eigh sorts from small to large

    weights = {
        "encoder.weight": directions.T,
        "encoder.bias": -mean @ directions,
        "decoder.weight": directions,
        "decoder.bias": mean,
    }
    model.load_state_dict(weights)
    # end practice
    return model


@torch.no_grad()
def show_pca(cfg: Config, x: Tensor) -> None:
    print("\n[1] The best linear code: the directions of the largest variance")
    points = torch.tensor([[7, 5], [3, 1], [6, 2], [4, 4]]).double()
    model = pca_autoencoder(points, k=1)
    loss = reconstruction_loss(model, (points, points))
    found = torch.cat([model(points).flatten(), loss[None]])
    text = "one number keeps (7, 5) and (3, 1); (6, 2) and (4, 4) become (5, 3); the loss is 1"
    check_close("by-hand", text, found, [7.0, 5, 3, 1, 5, 3, 5, 3, 1])

    x = x.double()
    loss = reconstruction_loss(pca_autoencoder(x, k=4), (x, x))
    variances = torch.linalg.eigvalsh(x.T.cov(correction=0))
    text = f"digits, 4 numbers: the loss {loss:.3f} is the variance along the directions left out"
    check_close("left-out", text, loss, variances[:-4].sum())


def principal_angles(a: Tensor, b: Tensor) -> Tensor:
    """Between the subspaces that the columns of a and b (P, K) span: K angles in degrees."""
    # practice: Principal angles
    # Any basis describes a subspace; an orthonormal one has lengths and angles.
    a = torch.linalg.qr(a).Q
    b = torch.linalg.qr(b).Q

    # The singular values are the cosines, from the smallest angle to the largest.
    cosines = torch.linalg.svdvals(a.T @ b)
    return cosines.clamp(max=1).arccos().rad2deg()
    # end practice


def show_linear(cfg: Config, x: Tensor) -> dict[str, float]:
    print("\n[2] Two linear layers, 200 steps of gradient descent, 4 numbers for a digit")
    a, b = torch.randn(2, 50, 20).double()
    mixed = a @ torch.randn(20, 20).double()  # another basis of the subspace of a
    found = torch.cat([principal_angles(a, b), principal_angles(a, mixed)]).deg2rad()
    theirs = scipy.linalg.subspace_angles(a.numpy(), b.numpy())[::-1]  # largest last
    text = "random subspaces: SciPy's angles; two bases of one subspace: 0"
    check_close("scipy", text, found, [*theirs, *20 * [0.0]], atol=1e-6)

    x = x - x.mean(dim=0)
    torch.manual_seed(cfg.seed)
    model = Autoencoder(nn.Linear(x.shape[1], 4), nn.Linear(4, x.shape[1]))
    pca = pca_autoencoder(x, k=4).decoder.weight.double()
    before = principal_angles(model.decoder.weight.double(), pca)[-1].item()
    sgd = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9)
    fit(model, [(x, x)], sgd, reconstruction_loss, epochs=200, quiet=True)
    after = principal_angles(model.decoder.weight.double(), pca)[-1].item()
    check("span", f"to PCA's subspace: first {before:.0f} degrees, now {{}}", after, at_most=1)
    return {"angle_before": before, "angle": after}


def deep_autoencoder(pixels: int, k: int, width: int = 128) -> Autoencoder:
    """Two hidden layers on either side of a code of k numbers."""
    layers = [nn.Linear(pixels, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
    encoder = nn.Sequential(*layers, nn.Linear(width, k))

    # No ReLU behind the code nor behind the pixels: both may be negative.
    layers = [nn.Linear(k, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
    decoder = nn.Sequential(*layers, nn.Linear(width, pixels))
    return Autoencoder(encoder, decoder)


def show_deep(cfg: Config, x: Tensor, y: Tensor, new: Tensor, labels: Tensor) -> tuple[dict, dict]:
    print("\n[3] ReLU between the layers: the code may follow a curved surface")
    model = deep_autoencoder(x.shape[1], k=16)
    adam = torch.optim.Adam(model.parameters(), lr=3e-3)
    text = "16 digits by heart: the loss falls to {}"
    overfits("overfits", text, model, 2 * [x[:16]], reconstruction_loss, adam, steps=200, below=0.5)
    nearest = torch.cdist(model(x[:16]), x[:16]).argmin(dim=1)
    depends_on_input("depends", "each is nearest to its original: {}", nearest, torch.arange(16))

    found, codes = {}, {}
    for k in (2, 4, 8):
        torch.manual_seed(cfg.seed)
        models = {"pca": pca_autoencoder(x, k), "deep": deep_autoencoder(x.shape[1], k)}
        train_model(cfg, models["deep"], reconstruction_loss, x)
        for name, model in models.items():
            found[f"{name}_{k}"] = reconstruction_loss(model, (new, new)).item()
            if k == 2:
                codes[name] = model.encoder(new).detach()
                nearest = torch.cdist(codes[name], model.encoder(x)).argmin(dim=1)
                found[f"nearest_{name}"] = (y[nearest] == labels).double().mean().item()
    nearest = torch.cdist(new, x).argmin(dim=1)
    found["nearest_pixels"] = (y[nearest] == labels).double().mean().item()
    print("  error on new digits: " + "  ".join(f"{name} {v:.3f}" for name, v in found.items()))
    worst = max(found[f"deep_{k}"] / found[f"pca_{k}"] for k in (2, 4, 8))
    expect("deep", "with 2, 4 and 8 numbers its error is at most {} of PCA's", worst, at_most=0.75)
    gain = found["nearest_deep"] - found["nearest_pca"]
    text = "2 numbers: the nearest digit is of the same class {} more often than by PCA's"
    expect("nearest", text, gain, at_least=0.1)
    return found, codes


def denoising_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """As reconstruction_loss, but the model reads the inputs with new noise in each call."""
    # practice: The denoising loss
    inputs, targets = batch
    noisy = inputs + NOISE * torch.randn_like(inputs)
    return reconstruction_loss(model, (noisy, targets))
    # end practice


def wiener_filter(x: Tensor, sd: float) -> nn.Linear:
    """The best linear denoiser of pictures that vary as the rows of x (n, P)."""
    layer = nn.Linear(x.shape[1], x.shape[1]).to(x)
    # practice: The best linear denoiser
    mean = x.mean(dim=0)
    cov = x.T.cov(correction=0)

    # Noise adds its variance in every direction.
    noisy_cov = cov + sd**2 * torch.eye(len(cov)).to(x)
    weight = torch.linalg.solve(noisy_cov, cov)  # (P, P), symmetric
    layer.load_state_dict({"weight": weight, "bias": mean - weight @ mean})
    # end practice
    return layer


def show_denoising(cfg: Config, x: Tensor, new: Tensor) -> tuple[dict[str, float], dict]:
    print(f"\n[4] Noise with standard deviation {NOISE} on every pixel, and what removes it")
    found = denoising_loss(lambda noisy: 3 * noisy, 2 * [torch.ones(1000, 100)])
    # The mean of 100,000 squares (2 + 3 · noise)²: the sum over 100 has a standard error of 2.1.
    text = "100 pixels of 1, read with noise and tripled: the loss is 100 · (2² + 3² · 0.25): {}"
    check("noise", text, found, above=625 - 9, below=625 + 9)

    points = torch.tensor([[7, 5], [3, 1], [6, 2], [4, 4]]).double()
    found = wiener_filter(points, sd=2.0)(points)
    text = "noise of variance 4: (7, 5) moves to (6, 4), (6, 2) to (5.2, 2.8)"
    check_close("wiener", text, found[::2], [[6.0, 4.0], [5.2, 2.8]])

    density = MultivariateNormal(points.mean(dim=0), points.T.cov(correction=0) + 4 * torch.eye(2))
    score = torch.func.grad(lambda at: density.log_prob(at).sum())(points)
    text = "its step over the noise's variance is the gradient of the log density of noisy points"
    check_close("score", text, (found - points) / 4, score)

    torch.manual_seed(cfg.seed)
    noisy = new + NOISE * torch.randn_like(new)
    model = deep_autoencoder(x.shape[1], k=64, width=256)  # nothing is squeezed
    train_model(cfg, model, denoising_loss, x)
    models = {"noisy": nn.Identity(), "wiener": wiener_filter(x, NOISE), "network": model}
    errors = {key: reconstruction_loss(each, (noisy, new)).item() for key, each in models.items()}
    print("  error on new digits: " + "  ".join(f"{name} {v:.3f}" for name, v in errors.items()))
    copied, linear, learned = errors.values()
    expect("linear", "the Wiener filter leaves {} of the error", linear / copied, at_most=0.5)
    expect("denoised", "the network leaves {} of the filter's", learned / linear, at_most=0.85)
    pictures = {name: each(noisy[:10]).detach() for name, each in models.items()}
    return errors, {"new digits": new[:10], **pictures}


class SparseAutoencoder(nn.Module):
    """More units than pixels, of which few should be on. (B, P) -> (B, units) -> (B, P)"""

    def __init__(self, pixels: int, units: int):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(pixels, units), nn.ReLU())
        self.decoder = nn.Linear(units, pixels)

    def forward(self, x: Tensor) -> Tensor:
        # Columns of length 1: otherwise small codes and large weights would evade the penalty.
        weight = F.normalize(self.decoder.weight, dim=0)
        return F.linear(self.encoder(x), weight, self.decoder.bias)


def sparse_loss(model: SparseAutoencoder, batch: tuple, strength: float = PENALTY) -> Tensor:
    """The reconstruction loss plus `strength` times the sum of a picture's code (L1)."""
    # practice: The sparse loss
    inputs, _ = batch
    code = model.encoder(inputs)  # (B, units), none below 0

    penalty = code.sum(dim=1).mean()
    return reconstruction_loss(model, batch) + strength * penalty
    # end practice


def show_sparse(cfg: Config, x: Tensor, new: Tensor) -> dict[str, float]:
    print(f"\n[5] {UNITS} units for {x.shape[1]} pixels, and a penalty on what they give")
    model = SparseAutoencoder(1, 1).double()
    for weight, value in zip(model.parameters(), (1.0, -0.15, 7.0, 0.0)):
        nn.init.constant_(weight, value)
    loss = sparse_loss(model, 2 * [torch.ones(1, 1).double()], strength=0.3)
    slope = torch.autograd.grad(loss, model.encoder[0].bias)[0]
    text = "(h - 1)² + 0.3 h is least at h = 0.85: there it is 0.2775, its slope 0"
    check_close("soft", text, torch.stack([loss, slope[0]]), [0.2775, 0.0])

    model = SparseAutoencoder(x.shape[1], UNITS)
    penalty = sparse_loss(model, (x, x), strength=2.0) - sparse_loss(model, (x, x), strength=0.0)
    slope = torch.autograd.grad(penalty, model.encoder[0].bias)[0]
    share = (model.encoder(x) > 0).float().mean(dim=0)
    text = "a penalty of 2 pulls at each bias with 2 times the share of pictures that switch it on"
    check_close("slope", text, slope, 2 * share)

    found = {}
    for name, strength in (("free", 0.0), ("sparse", PENALTY)):
        torch.manual_seed(cfg.seed)
        model = SparseAutoencoder(x.shape[1], UNITS)
        train_model(cfg, model, partial(sparse_loss, strength=strength), x)
        on = model.encoder(new) > 0
        found[name] = reconstruction_loss(model, (new, new)).item()
        found[f"active_{name}"] = on.float().sum(dim=1).mean().item()
        found[f"unused_{name}"] = (~on.any(dim=0)).sum().item()
    k = min(round(found["active_sparse"]), x.shape[1])  # PCA has no more directions than pixels
    found["pca_active"] = reconstruction_loss(pca_autoencoder(x, k), (new, new)).item()
    print("  on new digits: " + "  ".join(f"{name} {v:.3f}" for name, v in found.items()))
    text = "with the penalty {} units are on, on average"
    expect("active", text, found["active_sparse"], above=1, at_most=20)
    ratio = found["active_sparse"] / found["active_free"]
    expect("fewer", "that is {} of the number without it", ratio, at_most=0.25)
    ratio = found["sparse"] / found["pca_active"]
    expect("pca", f"its error is {{}} of that of PCA with {k} numbers", ratio, at_most=0.9)
    return found


# Pictures and helpers: skip on a first reading


def train_model(cfg: Config, model: nn.Module, loss_fn, x: Tensor) -> None:
    batches = Batches(x, x, batch_size=64, shuffle=True, seed=cfg.seed)
    adam = torch.optim.Adam(model.parameters(), lr=2e-3)
    falling = LinearLR(adam, 1, 0, total_iters=cfg.epochs * len(batches))
    fit(model, batches, adam, loss_fn, epochs=cfg.epochs, scheduler=falling, quiet=True)


def draw_codes(cfg: Config, codes: dict[str, Tensor], labels: Tensor, found: dict) -> None:
    figure, axes = new_figure(1, 2, size=(11, 5))
    for axis, title, (name, code) in zip(axes, ("PCA", "Deep autoencoder"), codes.items()):
        axis.scatter(*code.T, c=labels, cmap="tab10", s=8)
        for digit in range(10):
            middle = code[labels == digit].median(dim=0).values
            axis.text(*middle, str(digit), fontsize=20, fontweight="bold")
        axis.set_title(f"{title}: nearest of same class {found[f'nearest_{name}']:.2f}", size=13)
        axis.set(xlabel="first number of the code", ylabel="second")
    save_figure(figure, cfg.out / "codes")


def draw_denoised(cfg: Config, rows: dict[str, Tensor], errors: dict[str, float]) -> None:
    figure, axes = new_figure(4, 10, size=(10, 5.2))
    side = round(rows["network"].shape[1] ** 0.5)
    titles = ("new digits", "with noise", "Wiener filter", "network")
    for row, title, (name, pictures) in zip(axes, titles, rows.items()):
        plot_images(row, pictures.clamp(-1, 1).reshape(-1, side, side))
        error = f": error {errors[name]:.1f}" if name in errors else ""
        row[0].set_title(title + error, fontsize=13, loc="left")
    save_figure(figure, cfg.out / "denoised")


def run(cfg: Config) -> dict[str, float]:
    data = load_images(cfg, split_seed=cfg.seed)
    x, y = to_tensors(data.x_train, data.y_train, data.brightest)
    new, labels = to_tensors(*data.test(), data.brightest)
    x, new = (pictures.flatten(start_dim=1) for pictures in (x, new))

    show_pca(cfg, x)
    angles = show_linear(cfg, x)
    found, codes = show_deep(cfg, x, y, new, labels)
    errors, pictures = show_denoising(cfg, x, new)
    sparse = show_sparse(cfg, x, new)
    draw_codes(cfg, codes, labels, found)
    draw_denoised(cfg, pictures, errors)
    return {**angles, **found, **errors, **sparse}


if __name__ == "__main__":
    main(run, Config, __doc__)
