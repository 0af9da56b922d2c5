"""8.1 GAN basics: a forger and a detective
GAN 基础：造假者与侦探

You will be able to answer
    1. What does the best D answer?    show_best      by-hand, best
    2. Which loss helps a bad G?       show_losses    slopes, step
    3. Does G find all modes?          show_ring      told, fools, ring, equal, collapse
    4. How far apart are two sets?     show_distance  scipy, read, judge, few, missing, mixed
    5. Does G learn to draw digits?    show_digits    fell, digits, rarest, baseline
Predict   g_faster: G learns five times as fast as D. How many of 8 Gaussians does it then make?
Run       python phase08_generative/01-gan-basics.py                       about 30 s
Needs     phase05_cnn/04-lenet
Reference scipy.linalg.sqrtm
Learns    told, fools
Notation  B batch  G, D generator, discriminator  z noise  p, q densities of real, generated
"""

import copy
from dataclasses import dataclass

import scipy.linalg
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal
from torch.optim.lr_scheduler import LinearLR

from common.checks import check, check_close, expect
from common.config import LessonConfig, main, param
from common.data.images import load_images
from common.data.mixtures import covered, points_around, ring
from common.data.tensors import to_tensors
from common.figures import BLUE, new_figure, plot_images, save_figure
from common.lessons import load_lesson

lenet = load_lesson("phase05_cnn/04-lenet")
NOISE = 16  # numbers z from which G makes a digit


@dataclass
class Config(LessonConfig):
    threads = 1
    data: str = param("digits", "data set of [4] and [5]", choices=("digits", "mnist-5k", "mnist"))
    best_steps: int = param(1500, "training steps of D in [1]", tiny=10)
    ring_steps: int = param(600, "training steps on the ring", tiny=10)
    runs: int = param(3, "networks trained on the ring", tiny=1)
    judge_epochs: int = param(20, "passes of the judge over the pictures", tiny=2)
    digit_steps: int = param(2000, "training steps on the pictures", tiny=10)


def mlp(inputs: int, outputs: int, width: int = 128) -> nn.Sequential:
    layers = [nn.Linear(inputs, width), nn.LeakyReLU(0.2)]
    layers += [nn.Linear(width, width), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """-mean log D(x) - mean log(1 - D(G(z))), from logits of any shape. D is their sigmoid."""
    # practice: The discriminator's loss
    # softplus(-s) = -log σ(s) and softplus(s) = -log(1 - σ(s)), finite for each logit s (3.5).
    on_real = F.softplus(-real).mean()
    on_fake = F.softplus(fake).mean()
    return on_real + on_fake
    # end practice


def show_best(cfg: Config) -> None:
    print("\n[1] The best D answers p / (p + q)")
    # Coins: 3 of 4 real throws are heads, 1 of 4 fakes. D may give any answer to each side.
    answers = torch.tensor([3 / 4, 1 / 4]).double().logit().requires_grad_()  # heads, tails
    loss = discriminator_loss(answers[[0, 0, 0, 1]], answers[[0, 1, 1, 1]])
    slopes = torch.autograd.grad(loss, answers)[0]
    text = "coins, D = 3/4 for heads, 1/4 for tails: the loss is 1.1247, its gradient 0"
    check_close("by-hand", text, [loss.item(), *slopes], [1.1247, 0, 0], atol=5e-5)

    p, q = Normal(-1.0, 0.5), Normal(1.0, 1.0)
    torch.manual_seed(cfg.seed)
    model = mlp(1, 1, width=64)
    adam = torch.optim.Adam(model.parameters(), lr=3e-3)
    falling = LinearLR(adam, 1, 0, total_iters=cfg.best_steps)
    for _ in range(cfg.best_steps):
        loss = discriminator_loss(model(p.sample((1024, 1))), model(q.sample((1024, 1))))
        adam.zero_grad()
        loss.backward()
        adam.step()
        falling.step()

    x = torch.linspace(-4, 5, 500)[:, None]
    p_x, q_x = (density.log_prob(x).exp() for density in (p, q))
    error = (model(x).detach().sigmoid() - p_x / (p_x + q_x))[p_x + q_x > 0.02].abs().max()
    expect("best", "where p + q > 0.02, a trained D is off by at most {}", error, at_most=0.05)


def generator_loss(fake: Tensor, saturating: bool = False) -> Tensor:
    """What G lowers, from D's logits of G's samples."""
    # practice: The generator's two losses
    if saturating:
        # log(1 - D): what D lowers, with the other sign.
        return -F.softplus(fake).mean()

    # -log D: the same direction, but steep where D is sure that the sample is generated.
    return F.softplus(-fake).mean()
    # end practice


def gan_step(generator, discriminator, real, noise, g_adam, d_adam) -> tuple[Tensor, Tensor]:
    """A step of D, then one of G against the new D. Returns both losses, D's first."""
    # practice: One step of the game
    fake = generator(noise)

    # D learns to tell them apart. detach: nothing flows back into G.
    d_loss = discriminator_loss(discriminator(real), discriminator(fake.detach()))
    d_adam.zero_grad()
    d_loss.backward()
    d_adam.step()

    # G learns through D. D gets gradients too, but takes no step; its next turn clears them.
    g_loss = generator_loss(discriminator(fake))
    g_adam.zero_grad()
    g_loss.backward()
    g_adam.step()
    return d_loss.detach(), g_loss.detach()
    # end practice


def show_losses(cfg: Config) -> None:
    print("\n[2] Where D is sure that samples are generated, one loss is flat")
    logits = torch.tensor([0.5, 0.1, 0.01, 1e-4, 1e-8]).double().logit().requires_grad_()
    slopes = []
    for saturating in (True, False):
        # Five times the mean is the sum: each logit gets the slope of its own loss.
        slopes.append(torch.autograd.grad(5 * generator_loss(logits, saturating), logits)[0])
    d = logits.detach().sigmoid()
    text = "D = 0.5 to 1e-8: by the logit, log(1 - D) has the slope -D, -log D has D - 1"
    check_close("slopes", text, torch.stack(slopes), torch.stack([-d, d - 1]))

    # D(x) = σ(wx), G(z) = z + b. One real point, 1; z = 0, so G's weight plays no part; rates of 1.
    generator, discriminator = nn.Linear(1, 1), nn.Linear(1, 1, bias=False)
    nn.init.constant_(generator.bias, 3.0)
    nn.init.zeros_(discriminator.weight)
    sgds = [torch.optim.SGD(each.parameters(), lr=1) for each in (generator, discriminator)]
    path = []
    for _ in range(2):
        gan_step(generator, discriminator, torch.ones(1, 1), torch.zeros(1, 1), *sgds)
        path.append([discriminator.weight.item(), generator.bias.item()])
    text = "two steps of the game: w from 0 to -1 and -0.5029, b from 3 to 2.0474 and 1.6768"
    check_close("step", text, path, [[-1, 2.0474], [-0.5029, 1.6768]], atol=1e-4)


def train_ring(cfg: Config, g_rate: float, d_rate: float, seed: int) -> Tensor:
    """2,000 points of a generator, trained with these learning rates."""
    torch.manual_seed(seed)
    players = mlp(2, 2, width=64), mlp(2, 1, width=64)
    adams = adam_for(players[0], g_rate), adam_for(players[1], d_rate)
    for _ in range(cfg.ring_steps):
        gan_step(*players, points_around(ring(), 128), torch.randn(128, 2), *adams)
    return sample(players[0], torch.randn(2000, 2))


def show_ring(cfg: Config) -> tuple[dict[str, float], dict[str, Tensor]]:
    print("\n[3] Training on eight Gaussians in a ring")
    players = mlp(2, 2), mlp(2, 1)
    real = points_around(ring(), 64)
    noise = torch.randn(64, 2)
    adams = adam_for(players[0], 0.0), adam_for(players[1], 0.01)
    losses = [gan_step(*players, real, noise, *adams) for _ in range(100)]
    check("told", "G frozen: D's loss falls to {}", losses[-1][0], below=0.05)

    adams = adam_for(players[0], 0.01), adam_for(players[1], 0.0)
    losses = [gan_step(*players, real, noise, *adams) for _ in range(100)]
    check("fools", "D frozen: G's loss falls to {}", losses[-1][1], below=0.05)

    scores, pictures = {}, {}
    # The higher of both rates is the same in all three: "too high" is not what sets them apart.
    rates = {"d_faster": (4e-4, 2e-3), "equal": (2e-3, 2e-3), "g_faster": (2e-3, 4e-4)}
    for name, pair in rates.items():
        points = [train_ring(cfg, *pair, 10 * cfg.seed + number) for number in range(cfg.runs)]
        found = [covered(each, ring()) for each in points]
        print(f"  {name}, rates of G and D {pair}: (modes, share near one) {found}")

        modes = [count for count, _ in found]
        scores[name] = sum(modes) / cfg.runs
        scores[f"{name}_best"] = max(modes)
        pictures[name] = points[modes.index(min(modes))]
    expect("ring", "D's rate is higher: {} of 8 modes on average", scores["d_faster"], at_least=7)
    expect("equal", "equal rates: in the best run {} modes", scores["equal_best"], at_least=6)
    expect("collapse", "G's rate is higher: {} modes at best", scores["g_faster_best"], at_most=4)
    return scores, pictures


def gaussian_distance(mean: Tensor, cov: Tensor, other_mean: Tensor, other_cov: Tensor) -> float:
    """Squared Fréchet distance between two Gaussians: means (K,), covariances (K, K)."""
    # practice: The Fréchet distance
    shift = (mean - other_mean).square().sum()

    # A symmetric root of the covariance, by its eigenvectors (2.2).
    values, vectors = torch.linalg.eigh(cov)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T

    # root · other · root is symmetric; its eigenvalues are those of cov · other.
    values = torch.linalg.eigvalsh(root @ other_cov @ root)
    overlap = values.clamp(min=0).sqrt().sum()
    return (shift + cov.trace() + other_cov.trace() - 2 * overlap).item()
    # end practice


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """Between features (n, K) and (m, K), each summed up as a Gaussian."""
    x, y = x.double(), y.double()
    return gaussian_distance(x.mean(dim=0), x.T.cov(), y.mean(dim=0), y.T.cov())


def for_judge(pictures: Tensor) -> Tensor:
    """As LeNet-5 reads them in 5.4. (B, 1, H, W) from -1 to 1 -> (B, 1, 32, 32)"""
    ink = (pictures + 1) / 2 * 1.275 - 0.1
    return F.interpolate(ink, size=(32, 32), mode="bilinear")


def train_judge(train: tuple, test: tuple, epochs: int, seed: int) -> tuple[nn.Module, float]:
    """LeNet-5 of 5.4, trained on real pictures and their labels; its accuracy on the test set."""
    sets = [(for_judge(x), y) for x, y in (train, test)]
    return lenet.learn(lenet.LeNet5, sets, epochs, seed, lenet.moved)


@torch.no_grad()
def features(judge: nn.Module, pictures: Tensor) -> Tensor:
    """What the judge's last layer reads, 84 numbers. (B, 1, H, W) -> (B, 84)"""
    # practice: The features
    trunk = copy.deepcopy(judge)  # the judge itself keeps its last layer
    trunk.output = nn.Identity()
    return trunk(for_judge(pictures))
    # end practice


def show_distance(cfg: Config, judge, accuracy: float, train: tuple, test: tuple) -> dict:
    print("\n[4] How far a set of pictures is from the training pictures, by the judge's features")
    x, y = torch.randn(2, 40, 5).double()
    y = y @ torch.randn(5, 5).double() + 1
    product = scipy.linalg.sqrtm((x.T.cov() @ y.T.cov()).numpy()).real
    shift = (x.mean(dim=0) - y.mean(dim=0)).square().sum()
    wanted = (shift + (x.T.cov() + y.T.cov()).trace()).item() - 2 * product.trace()
    check_close("scipy", "five features: as with SciPy's root", frechet_distance(x, y), wanted)

    (real, _), (new, labels) = train, test
    logits = judge.output(features(judge, new)[:, :, None, None]).squeeze()  # a 1x1 convolution
    check_close("read", "the features give the judge's logits", logits, judge(for_judge(new)))
    expect("judge", "the judge's accuracy on new digits is {}", accuracy, at_least=0.97)

    # Two sets without strokes: each pixel from another picture; a Gaussian with all covariances.
    flat = real.flatten(start_dim=1)
    pixels = flat.gather(0, torch.randint(len(flat), (len(new), flat.shape[1])))
    cov = flat.T.cov() + 1e-4 * torch.eye(flat.shape[1])
    gaussian = MultivariateNormal(flat.mean(dim=0), cov).sample((len(new),))
    sets = {"new": new, "few": new[::4], "missing": new[labels < 7]}
    sets |= {"pixels": pixels.reshape(new.shape), "gaussian": gaussian.reshape(new.shape)}
    distances = {}
    for name, pictures in sets.items():
        distances[name] = frechet_distance(features(judge, pictures), features(judge, real))
        print(f"  {name:<8} {len(pictures):4} pictures, distance {distances[name]:.2f}")
    times = {name: distance / distances["new"] for name, distance in distances.items()}
    expect("few", "a quarter of the new digits: {} times as far", times["few"], at_least=1.5)
    expect("missing", "without 7, 8, 9: {} times as far", times["missing"], at_least=5)
    expect("mixed", "pixels mixed: {} times as far", times["pixels"], at_least=10)
    return distances


def show_digits(cfg: Config, judge: nn.Module, real: Tensor, n: int, baseline: float) -> tuple:
    print(f"\n[5] Training on {cfg.data}: {NOISE} random numbers become a picture")
    shape = real.shape[1:]
    torch.manual_seed(cfg.seed)
    generator = nn.Sequential(mlp(NOISE, shape.numel()), nn.Tanh(), nn.Unflatten(1, shape))
    discriminator = nn.Sequential(nn.Flatten(), mlp(shape.numel(), 1))
    # D's rate is higher, as in [3]. Both rates fall to 0, so that the two settle.
    adams = adam_for(generator, 3e-4), adam_for(discriminator, 9e-4)
    falling = [LinearLR(adam, 1, 0, total_iters=cfg.digit_steps + 1) for adam in adams]

    reference = features(judge, real)
    noise = torch.randn(n, NOISE)  # the same at each look
    looks = {}
    for step in range(cfg.digit_steps + 1):
        if step * 5 % cfg.digit_steps < 5:  # six times, evenly spread
            pictures = sample(generator, noise)
            distance = frechet_distance(features(judge, pictures), reference)
            looks[step] = distance, pictures[:10, 0]
        batch = real[torch.randint(len(real), (128,))]
        gan_step(generator, discriminator, batch, torch.randn(128, NOISE), *adams)
        for schedule in falling:
            schedule.step()

    named = judge(for_judge(pictures)).argmax(dim=1).bincount(minlength=10)  # of the last look
    print(f"  {n} pictures, classified as 0 to 9: {named.tolist()}")
    shares = named / (n / 10)  # 1 would be fair
    expect("fell", "the distance falls to {} of what it was", distance / looks[0][0], at_most=0.5)
    expect("digits", "{} digits have 1/4 of a fair share", (shares >= 1 / 4).sum(), at_least=6)
    expect("rarest", "the rarest digit: {} of a fair share", shares.min(), at_most=0.5)
    expect("baseline", "a Gaussian of pixels is nearer, by {}", distance - baseline, at_least=0.5)
    return {"gan": distance, "untrained": looks[0][0], "rarest": shares.min().item()}, looks


# Pictures and helpers: skip on a first reading


def adam_for(model: nn.Module, rate: float) -> torch.optim.Optimizer:
    """A short memory (usual: 0.9, 0.999): the opponent changes, and old gradients mislead."""
    return torch.optim.Adam(model.parameters(), lr=rate, betas=(0.5, 0.9))


@torch.no_grad()
def sample(generator: nn.Module, noise: Tensor) -> Tensor:
    return generator(noise)


def draw_ring(cfg: Config, pictures: dict[str, Tensor]) -> None:
    names = {"d_faster": "D learns faster", "equal": "Equal rates", "g_faster": "G learns faster"}
    figure, axes = new_figure(1, 3, size=(11, 4.4), sharex=True, sharey=True)
    for axis, (name, points) in zip(axes, pictures.items()):
        title = f"{names[name]}, worst run:\n{covered(points, ring())[0]} of 8 modes (grey)"
        axis.scatter(*ring().T, s=500, color="#D9D9D9")
        axis.plot(*points.T, ".", markersize=2, color=BLUE)
        axis.set(title=title, xlim=(-1.8, 1.8), ylim=(-1.8, 1.8), aspect="equal")
    save_figure(figure, cfg.out / "ring")


def draw_digits(cfg: Config, real: Tensor, looks: dict[int, tuple[float, Tensor]]) -> None:
    figure, axes = new_figure(len(looks) + 1, 10, size=(8, 6.6))
    plot_images(axes, torch.cat([*(pictures for _, pictures in looks.values()), real[:10, 0]]))
    for row, (step, (distance, _)) in zip(axes, looks.items()):
        row[0].set_title(f"step {step:,}: distance {distance:.1f}", fontsize=8)
    axes[-1, 0].set_title("real", fontsize=8)
    save_figure(figure, cfg.out / "digits")


def run(cfg: Config) -> dict[str, float]:
    show_best(cfg)
    show_losses(cfg)
    modes, points = show_ring(cfg)
    draw_ring(cfg, points)

    data = load_images(cfg, split_seed=cfg.seed)
    train = to_tensors(data.x_train, data.y_train, data.brightest)
    test = to_tensors(*data.test(), data.brightest)
    judge, accuracy = train_judge(train, test, cfg.judge_epochs, cfg.seed)
    distances = show_distance(cfg, judge, accuracy, train, test)
    metrics, looks = show_digits(cfg, judge, train[0], len(test[0]), distances["gaussian"])
    draw_digits(cfg, train[0], looks)
    return {**modes, **distances, **metrics, "judge": accuracy}


if __name__ == "__main__":
    main(run, Config, __doc__)
