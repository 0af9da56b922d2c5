"""8.3 WGAN: a distance that still tells the way
WGAN：梯度不消失的距离

You will be able to answer
    1. How far apart are two sets?  show_distance  by-hand, scipy, flat
    2. How do you bound a slope?    show_slopes    layer, penalty, locked, clipped
    3. Does a critic measure it?    show_critic    separates, estimate, slope
    4. What does a WGAN gain?  show_grid  fools, few, covers, near, falls, blurred, copies, caught
Predict   wgan: where a GAN has collapsed, how many of 25 Gaussians does a WGAN make?
Run       python phase08_generative/03-wgan.py                             about a minute
Needs     phase08_generative/01-gan-basics
Reference nn.utils.parametrizations.spectral_norm, scipy.stats.wasserstein_distance
Learns    separates, fools
Notation  B batch  G, f generator, critic  z noise  W distance  λ weight of the penalty
"""

from dataclasses import dataclass

import scipy.optimize
import scipy.stats
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.optim.lr_scheduler import LinearLR

from common.checks import check, check_close, expect
from common.config import LessonConfig, main, param
from common.data.mixtures import covered, grid, points_around
from common.figures import BLUE, new_figure, save_figure
from common.lessons import load_lesson

gan = load_lesson("phase08_generative/01-gan-basics")

WEIGHT = 10.0  # λ, Gulrajani et al. 2017
BATCH = 128


@dataclass
class Config(LessonConfig):
    threads = 1
    critics: int = param(5, "critics trained on two Gaussians", tiny=1)
    critic_steps: int = param(200, "training steps of each", tiny=5)
    runs: int = param(3, "networks trained on the grid, of each kind", tiny=1)
    gan_steps: int = param(1000, "steps of the GAN on the grid", tiny=3)
    wgan_steps: int = param(400, "steps of the WGAN's generator on the grid", tiny=3)


def distance_1d(x: Tensor, y: Tensor) -> Tensor:
    """Wasserstein distance between two sets of equally many numbers (n,): the least mean path."""
    # practice: The distance in one dimension
    # Paths that cross can be exchanged and get no longer: the smallest goes to the smallest.
    x = x.sort().values
    y = y.sort().values
    return (x - y).abs().mean()
    # end practice


def distance(x: Tensor, y: Tensor) -> float:
    """The same between sets of points (n, K). They have no order: all pairs are candidates."""
    cost = torch.cdist(x, y)
    rows, columns = scipy.optimize.linear_sum_assignment(cost)
    return cost[rows, columns].mean().item()


def show_distance(cfg: Config) -> None:
    print("\n[1] How far must each point be moved, on average?")
    x = torch.tensor([0.0, 3, 1]).double()
    y = torch.tensor([8.0, 2, 4]).double()
    text = "(0, 3, 1) to (8, 2, 4): 0 to 2, 1 to 4, 3 to 8, so the distance is (2 + 3 + 5) / 3"
    check_close("by-hand", text, distance_1d(x, y), 10 / 3)
    x = torch.randn(300).double()
    y = 2 * torch.randn(300).double() + 1
    theirs = scipy.stats.wasserstein_distance(x.numpy(), y.numpy())
    check_close("scipy", "two sets of 300: as SciPy's", distance_1d(x, y), theirs)

    # Real samples at 0, generated ones at b; the best D of 8.1 tells them apart with certainty.
    rows = []
    for place in (4.0, 2.0, 1.0):
        b = torch.tensor(place, requires_grad=True)
        (slope,) = torch.autograd.grad(distance_1d(torch.zeros(8), b.expand(8)), b)
        sure = torch.sigmoid(200 * (0.5 - b))  # D of a generated sample
        (flat,) = torch.autograd.grad(torch.log1p(-sure), b)
        rows.append([slope.item(), flat.item()])
    text = "real at 0, generated at 4, 2, 1: the distance has the slope 1, a sure D's loss 0"
    check_close("flat", text, rows, [[1.0, 0.0]] * 3)


def spectral_norm(weight: Tensor, steps: int = 200) -> Tensor:
    """The largest singular value of a matrix (n, m): how much it lengthens a vector at most."""
    # practice: The spectral norm
    direction = torch.ones(weight.shape[1]).to(weight)
    for _ in range(steps):
        # Power iteration: the direction with the largest singular value outgrows the others (2.2).
        direction = weight.T @ (weight @ direction)
        direction = direction / direction.norm()
    return (weight @ direction).norm()
    # end practice


def slopes(critic: nn.Module, x: Tensor) -> Tensor:
    """The length of the critic's gradient at each of B points (B, …): (B,)"""
    # practice: The slopes
    x = x.detach().requires_grad_()
    # The points do not touch each other, so the gradient of the sum holds that of each.
    # create_graph: the slopes are to be lowered, so they need gradients themselves.
    (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return gradient.flatten(start_dim=1).norm(dim=1)
    # end practice


def penalty(critic: nn.Module, real: Tensor, fake: Tensor, two_sided: bool = False) -> Tensor:
    """The mean square of what slopes between real and fake have over 1; two_sided: or under."""
    # practice: The gradient penalty
    share = torch.rand(len(real), *[1] * (real.ndim - 1), device=real.device)
    between = share * real + (1 - share) * fake

    excess = slopes(critic, between) - 1
    if not two_sided:
        excess = excess.clamp(min=0)
    return excess.square().mean()
    # end practice


def critic_loss(critic: nn.Module, real: Tensor, fake: Tensor, two_sided: bool = False) -> Tensor:
    """Low if the critic is high on real samples, low on fake ones, and nowhere steeper than 1."""
    gap = critic(real).mean() - critic(fake).mean()
    return -gap + WEIGHT * penalty(critic, real, fake, two_sided)


def clip(critic: nn.Module, limit: float = 0.01) -> None:
    """Each weight from -limit to limit, as in the first WGAN (Arjovsky et al. 2017)."""
    # practice: Clipping
    with torch.no_grad():
        for weight in critic.parameters():
            weight.clamp_(-limit, limit)
    # end practice


def show_slopes(cfg: Config) -> None:
    print("\n[2] Three ways to bound a critic's slope")
    layer = nn.Linear(30, 20).double()
    matrix = layer.weight.detach().clone()
    theirs = parametrizations.spectral_norm(layer, n_power_iterations=200).weight
    text = "a matrix divided by its spectral norm is what torch's spectral_norm makes of it"
    check_close("layer", text, matrix / spectral_norm(matrix), theirs)

    line = nn.Linear(2, 1).double()
    found = []
    for row in ([3.0, 4.0], [0.3, 0.4]):
        line.weight.data.copy_(torch.tensor([row]))
        points = torch.randn(2, 50, 2).double()
        found += [penalty(line, *points, two_sided=both) for both in (False, True)]
    text = "slopes of 5 and of 1/2 cost, one-sided, 16 and 0; two-sided, 16 and 1/4"
    check_close("penalty", text, torch.stack(found), [16.0, 16, 0, 0.25])

    # f(x) = wx, real at 1, fake at 0, and at the start the wrong sign: w = -1/2.
    ends = []
    for two_sided in (False, True):
        line = nn.Linear(1, 1, bias=False).double()
        nn.init.constant_(line.weight, -0.5)
        sgd = torch.optim.SGD(line.parameters(), lr=0.04)
        one, zero = torch.tensor([[1.0], [0.0]]).double().split(1)  # each a batch (1, 1)
        for _ in range(80):
            descend(sgd, critic_loss(line, one, zero, two_sided))
        ends.append(line.weight.item())
    text = "f = wx from w = -1/2: one-sided ends at 1.05, two-sided at -0.95, the wrong sign"
    check_close("locked", text, ends, [1.05, -0.95], atol=1e-6)

    critic = gan.mlp(1, 1, width=64)
    clip(critic)
    steepest = slopes(critic, torch.linspace(-3, 3, 200)[:, None]).max()
    text = "a clipped critic, 64 wide: its slope is {}, and cannot be over 64 · 64 · 0.01³"
    check("clipped", text, steepest.detach(), above=0, at_most=64 * 64 * 0.01**3)


def train_critic(cfg: Config, two_sided: bool, seed: int) -> tuple[float, float]:
    """On N(1, 0.5²) and N(-1, 0.5²): f's mean on real minus that on fake; its slope between."""
    torch.manual_seed(seed)
    critic = gan.mlp(1, 1, width=64)
    adam = gan.adam_for(critic, 3e-3)
    falling = LinearLR(adam, 1, 0, total_iters=cfg.critic_steps)
    for _ in range(cfg.critic_steps):
        real, fake = torch.randn(2, 128, 1) / 2
        descend(adam, critic_loss(critic, real + 1, fake - 1, two_sided))
        falling.step()

    real, fake = torch.randn(2, 5000, 1) / 2
    gap = critic(real + 1).mean() - critic(fake - 1).mean()
    slope = slopes(critic, torch.linspace(-1, 1, 101)[:, None]).mean()
    return gap.item(), slope.item()


def show_critic(cfg: Config) -> dict[str, float]:
    print(f"\n[3] {cfg.critics} critics between N(1, 0.5²) and N(-1, 0.5²), whose W is 2")
    real, fake = torch.randn(2, 64, 1) / 2
    critic = gan.mlp(1, 1, width=64)
    adam = gan.adam_for(critic, 5e-3)
    for _ in range(100):
        descend(adam, critic_loss(critic, real + 1, fake - 1))
    gap = (critic(real + 1).mean() - critic(fake - 1).mean()).item()
    exact = distance_1d(real[:, 0] + 1, fake[:, 0] - 1)
    check("separates", "one fixed batch: the gap is {} of its W", gap / exact, above=0.8, below=1.2)

    found = {}
    for name, two_sided in (("one-sided", False), ("two-sided", True)):
        seeds = range(10 * cfg.seed, 10 * cfg.seed + cfg.critics)
        found[name] = torch.tensor([train_critic(cfg, two_sided, seed) for seed in seeds])
        print(f"  {name}: " + "  ".join(f"{gap:.2f}" for gap in found[name][:, 0].tolist()))
    gaps, means = found["one-sided"].T
    off = (gaps / 2.2 - 1).abs().max()
    expect("estimate", "one-sided: the gap is off from 2.2 by a share of {}", off, at_most=0.05)
    off = (means / 1.1 - 1).abs().max()
    expect("slope", "the mean slope is off from 1.1 by a share of {}", off, at_most=0.1)
    wrong = found["two-sided"][:, 0] < 0
    return {"estimate": gaps.mean().item(), "wrong": wrong.sum().item()}


def wgan_step(generator, critic, data: Tensor, g_adam, c_adam, turns: int = 3) -> None:
    """`turns` steps of the critic on fresh points (`batch_of`, noise (BATCH, 2)), then one of G."""
    # practice: One step of the WGAN
    for _ in range(turns):
        real = batch_of(data)
        fake = gan.sample(generator, torch.randn(BATCH, 2))  # without gradients
        descend(c_adam, critic_loss(critic, real, fake))

    # The generator goes where the critic is higher: that makes the distance smaller.
    descend(g_adam, -critic(generator(torch.randn(BATCH, 2))).mean())
    # end practice


def train_grid(cfg: Config, kind: str, rate: float, data: Tensor, seed: int) -> tuple[Tensor, list]:
    """Points of a generator; 20 looks at a WGAN: the critic's gap, W. rate: of D or the critic."""
    # Numbers of their own: to look does not change the training.
    noise = torch.randn(500, 2, generator=torch.Generator().manual_seed(seed))
    torch.manual_seed(seed)
    generator = gan.mlp(2, 2)
    critic = gan.mlp(2, 1)
    adams = gan.adam_for(generator, 1e-3), gan.adam_for(critic, rate)
    steps = cfg.wgan_steps if kind == "wgan" else cfg.gan_steps
    falling = [LinearLR(adam, 1, 0, total_iters=steps) for adam in adams]
    looks = []
    for step in range(1, steps + 1):
        if kind == "wgan":
            wgan_step(generator, critic, data, *adams)
        else:
            gan.gan_step(generator, critic, batch_of(data), torch.randn(BATCH, 2), *adams)
        for schedule in falling:
            schedule.step()

        if kind == "wgan" and step * 20 % steps < 20:
            fake = gan.sample(generator, noise)
            gap = critic(data).mean() - critic(fake).mean()
            looks.append([gap.item(), distance(fake, data[:500])])
    return gan.sample(generator, torch.randn(2000, 2)), looks


def score(points: Tensor, data: Tensor, new: Tensor) -> list[float]:
    """W to new real points; modes; share near one; share nearer to the data than to new points."""
    modes, near = covered(points, grid())
    to_data, to_new = (torch.cdist(points, each).amin(dim=1) for each in (data, new))
    closer = (to_data < to_new).double().mean().item()
    return [distance(points[:500], new[:500]), modes, near, closer]


def show_grid(cfg: Config) -> tuple[dict[str, float], dict[str, Tensor], Tensor]:
    print("\n[4] 25 Gaussians on a grid: a GAN and a WGAN, the networks alike")
    critic = nn.Linear(2, 1)
    generator = gan.mlp(2, 2)
    adams = gan.adam_for(generator, 3e-3), gan.adam_for(critic, 0.0)
    for _ in range(40):
        wgan_step(generator, critic, grid(), *adams, turns=0)
    lead = critic(gan.sample(generator, torch.randn(500, 2))).mean() - critic(grid()).max()
    check("fools", "critic frozen: G's points get {} over the best centre", lead.detach(), above=0)

    data, new = points_around(grid(), 4000).split(2000)
    pictures = {"new": points_around(grid(), 2000), "copies": data + 1e-4 * torch.randn(2000, 2)}
    pictures["even"] = 2.2 * torch.rand(2000, 2) - 1.1  # knows the square, but no mode
    found = {name: [score(points, data, new)] for name, points in pictures.items()}
    rates = {"equal": 1e-3, "d_faster": 3e-3, "wgan": 1e-3}
    runs = {}
    for kind, rate in rates.items():
        seeds = range(10 * cfg.seed, 10 * cfg.seed + cfg.runs)
        runs[kind] = [train_grid(cfg, kind, rate, data, seed) for seed in seeds]
        found[kind] = [score(points, data, new) for points, _ in runs[kind]]
        pictures[kind] = runs[kind][0][0]
    looks = torch.tensor([each for _, each in runs["wgan"]]).mean(dim=0)

    print("  means: W to new points; modes of 25; share near one; share nearer to data than to new")
    scores = {}
    for name, rows in found.items():
        means = torch.tensor(rows).mean(dim=0).tolist()
        keys = (f"{name}_distance", name, f"{name}_near", f"{name}_closer")
        scores |= dict(zip(keys, means))
        print(f"  {name:<9}" + "".join(f"{value:8.3g}" for value in means))
    for name, part in (("first", looks[:5]), ("last", looks[-5:])):
        scores[f"{name}_gap"], scores[f"{name}_distance"] = part.mean(dim=0).tolist()
    expect("few", "a GAN with equal rates makes {} of 25 modes", scores["equal"], at_most=18)
    more = scores["wgan"] - scores["equal"]
    expect("covers", "a WGAN with the same rates makes {} modes more", more, at_least=5)
    ratio = scores["wgan_distance"] / scores["equal_distance"]
    expect("near", "its W to new points is {} of that GAN's", ratio, at_most=0.7)
    ratio = scores["last_gap"] / scores["first_gap"]
    expect("falls", "its critic's gap in the last quarter: {} of the first", ratio, at_most=0.5)
    more = scores["wgan_near"] - scores["even_near"]
    expect("blurred", "near a mode: WGAN's share minus the even points' is {}", more, at_most=0.1)
    expect("copies", "WGAN: {} nearer to data than to new", scores["wgan_closer"], at_most=0.6)
    check("caught", "of planted copies: {}", scores["copies_closer"], at_least=0.95)
    return scores, pictures, looks


# Pictures and helpers: skip on a first reading


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def batch_of(data: Tensor) -> Tensor:
    return data[torch.randint(len(data), (BATCH,))]


def draw_grid(cfg: Config, pictures: dict[str, Tensor], looks: Tensor) -> None:
    names = {"new": "Real points", "even": "Evenly scattered", "equal": "GAN, equal rates"}
    names |= {"d_faster": "GAN, D's rate three times G's", "wgan": "WGAN, equal rates"}
    figure, axes = new_figure(2, 3, size=(12, 8))
    for axis, (kind, name) in zip(axes.flat, names.items()):
        modes, near = covered(pictures[kind], grid())
        axis.scatter(*grid().T, s=150, color="#D9D9D9")
        axis.plot(*pictures[kind].T, ".", markersize=2, color=BLUE)
        title = f"{name}:\n{modes} modes (grey), {near:.0%} near one"
        axis.set(title=title, xlim=(-1.5, 1.5), ylim=(-1.5, 1.5), aspect="equal")
    axes[1, 2].plot(looks, label=["critic's gap", "W to the data"])
    axes[1, 2].set(title="WGAN in training:\nmean of the runs", xlabel="twentieths of the training")
    axes[1, 2].legend()
    save_figure(figure, cfg.out / "grid")


def run(cfg: Config) -> dict[str, float]:
    show_distance(cfg)
    show_slopes(cfg)
    results = show_critic(cfg)
    scores, pictures, looks = show_grid(cfg)
    draw_grid(cfg, pictures, looks)
    return results | scores


if __name__ == "__main__":
    main(run, Config, __doc__)
