"""8.6 Diffusion, the theory: undoing noise step by step
扩散模型原理：一步步去噪

You will be able to answer
    1. How does data become noise?        show_forward    by-hand, jump, schedules, left, half
    2. Which way back, if x_0 is known?   show_posterior  back, bayes
    3. And if it is not known?            show_score      guess, score
    4. Which ways lead from noise back?   show_ways       chain-by-hand, flow-by-hand, carried
    5. Do they bring a mixture back?      show_samples    chain, flow, gaussian, fewer
Predict   half: β grows evenly. After what share of the steps is half of the variance noise?
Run       python phase08_generative/06-diffusion-theory.py                  about 15 s
Needs     -
Reference -
Notation  n points  D coordinates  K Gaussians  T steps  x_0 data  x_t noisy data  ε noise
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributions as dist
from torch import Tensor

from common.checks import check, check_close, expect
from common.config import LessonConfig, main, param
from common.data.mixtures import SD, ring
from common.figures import BLUE, GREY, ORANGE, new_figure, save_figure

COUNTS = (5, 10, 25, 100)  # steps that [5] compares
LABELS = {"chain": "linear chain", "cosine": "cosine chain", "ddim": "cosine DDIM", "flow": "flow"}


@dataclass
class Config(LessonConfig):
    threads = 1
    steps: int = param(100, "steps T of the chain", low=8)
    points: int = param(20000, "points in a sample", tiny=1000)


def signal_left(beta: Tensor) -> Tensor:
    """ᾱ_0 = 1 and ᾱ_t = (1 - β_1) … (1 - β_t), the signal's share of the variance. (T + 1,)"""
    kept = 1 - beta.clamp(max=0.999)  # β = 1 would leave nothing to go back from
    return torch.cat([torch.ones(1), kept.cumprod(dim=0)])


def linear_schedule(steps: int) -> Tensor:
    """Ho et al. 2020: β grows evenly. Returns ᾱ (T + 1,)."""
    # practice: The linear schedule
    # Theirs has 1,000 steps, with β from 0.0001 to 0.02. Fewer steps must each do more.
    scale = 1000 / steps
    beta = torch.linspace(scale * 0.0001, scale * 0.02, steps, dtype=torch.float64)
    return signal_left(beta)
    # end practice


def cosine_schedule(steps: int) -> Tensor:
    """Nichol & Dhariwal 2021: ᾱ falls as a squared cosine. Returns ᾱ (T + 1,)."""
    time = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    # The 0.008 keeps the first steps from being too small.
    signal = ((time + 0.008) / 1.008 * math.pi / 2).cos().square()
    return signal_left(1 - signal[1:] / signal[:-1])


def forward_step(x: Tensor, t: int, alpha_bar: Tensor, noise: Tensor) -> Tensor:
    """x_{t-1} -> x_t: a bit less of what was there, a bit of noise."""
    beta = 1 - alpha_bar[t] / alpha_bar[t - 1]
    # Roots, so that a variance of 1 stays 1.
    return (1 - beta).sqrt() * x + beta.sqrt() * noise


def amounts(t: int | Tensor, alpha_bar: Tensor) -> tuple[Tensor, Tensor]:
    """a and b in x_t = a x_0 + b ε. A tensor of steps gives tensors of its shape."""
    return alpha_bar[t].sqrt(), (1 - alpha_bar[t]).sqrt()


def diffuse(x_0: Tensor, t: int | Tensor, alpha_bar: Tensor, noise: Tensor) -> Tensor:
    """x_0 -> x_t in one jump."""
    a, b = amounts(t, alpha_bar)
    return a * x_0 + b * noise


def show_forward(cfg: Config) -> dict[str, float]:
    print("\n[1] Steps into noise, and one jump that does the same")
    alpha_bar = torch.tensor([1, 0.64, 0.16], dtype=torch.float64)
    x_1 = forward_step(torch.tensor(1.0), 1, alpha_bar, 0.5)
    x_2 = forward_step(x_1, 2, alpha_bar, 2.0)
    text = "ᾱ = 1, 0.64, 0.16: from x = 1 with ε = 0.5 to 1.1, with ε = 2 to 2.2821"
    check_close("by-hand", text, [x_1, x_2], [1.1, 2.2821], atol=5e-5)

    # Unit vectors for x_0 and each ε: the chain then shows with what factor each of them enters.
    found, wanted = [], []
    for alpha_bar in (linear_schedule(cfg.steps), cosine_schedule(cfg.steps)):
        unit = torch.eye(cfg.steps + 1).double()
        x = unit[0]
        for t in range(1, cfg.steps + 1):
            x = forward_step(x, t, alpha_bar, unit[t])
            found += [x[0], x[1:].norm()]  # variances of independent noise add up
            wanted += diffuse(unit[0, :2], t, alpha_bar, unit[1, :2])
    text = "after each step, in both schedules: mean and sd are those of one jump"
    check_close("jump", text, torch.stack(found), torch.stack(wanted))

    linear = linear_schedule(1000)
    cosine = cosine_schedule(1000)
    found = torch.stack([linear[500], cosine[500], linear[-1], cosine[-1]])
    text = "T = 1,000: halfway ᾱ = 0.0786 (cosine 0.4938), at the end 4.036e-5 (2.429e-9)"
    check_close("schedules", text, found, [0.0786, 0.4938, 4.036e-5, 2.429e-9], rtol=2e-4, atol=0)
    text = f"T = {cfg.steps}: at the end {{}} of the variance is signal"
    check("left", text, linear_schedule(cfg.steps)[-1], below=1e-3)
    half = (linear > 0.5).sum() / 1000
    check("half", "ᾱ falls below 1/2 after {} of the linear steps", half, above=0.25, below=0.27)
    return {"half": half, "half_cosine": (cosine > 0.5).sum() / 1000}


def posterior(x: Tensor, x_0: Tensor, t: int, alpha_bar: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of x_{t-1}, if x_t is x and the data was x_0."""
    # practice: One step back, if x_0 is known
    alpha = alpha_bar[t] / alpha_bar[t - 1]
    beta = 1 - alpha

    # Two Gaussians meet: what x_0 says about x_{t-1}, and what x_t says.
    from_data = alpha_bar[t - 1].sqrt() * beta * x_0
    from_next = alpha.sqrt() * (1 - alpha_bar[t - 1]) * x
    mean = (from_data + from_next) / (1 - alpha_bar[t])
    variance = beta * (1 - alpha_bar[t - 1]) / (1 - alpha_bar[t])
    return mean, variance
    # end practice


def show_posterior(cfg: Config) -> None:
    print("\n[2] One step back, if one knows where the point came from")
    x_0, x = torch.tensor([[1.0, 0.3, -0.8], [2.0, 0.5, 1.0]]).double()
    mean, variance = posterior(x, x_0, 2, torch.tensor([1, 0.64, 0.16], dtype=torch.float64))
    text = "ᾱ = 1, 0.64, 0.16, x_0 = 1, x_2 = 2: x_1 has the mean 8/7 and the variance 9/28"
    check_close("back", text, [mean[0], variance], [8 / 7, 9 / 28], atol=1e-6)
    # Bayes on a fine grid: p(x_1 | x_0) times p(x_2 | x_1), normalised.
    grid = torch.linspace(-9, 9, 100_001, dtype=torch.float64)[:, None]
    logits = dist.Normal(0.8 * x_0, 0.6).log_prob(grid)
    logits += dist.Normal(0.5 * grid, 0.75**0.5).log_prob(x)
    share = logits.softmax(dim=0)  # (100001, 3)
    wanted = (share * grid).sum(dim=0)
    spread = (share * (grid - wanted).square()).sum(dim=0)
    text = "for three pairs of x_0 and x_2: as by Bayes' rule on a grid"
    check_close("bayes", text, torch.cat([mean, variance.expand(3)]), torch.cat([wanted, spread]))


class Mixture:
    """Data whose density is known: K Gaussians with one sd around their centres (K, D)."""

    def __init__(self, weights: Tensor, centres: Tensor, sd: float):
        self.weights = weights.double() / weights.sum()
        self.centres = centres.double()
        self.sd = sd

    def draw(self, n: int) -> Tensor:
        points = self.centres[torch.multinomial(self.weights, n, replacement=True)]
        return points + self.sd * torch.randn_like(points)

    def denoise(self, x: Tensor, a: float, b: float) -> Tensor:
        """E[x_0 | x], where x = a x_0 + b ε. (n, D) -> (n, D)"""
        # practice: The mean of all x_0 that fit
        # With noise each Gaussian stays one: centre a μ, variance a² sd² + b².
        variance = (a * self.sd) ** 2 + b**2
        offset = x[:, None] - a * self.centres  # (n, K, D)

        # From which of them is x? Bayes' rule (2.6).
        logits = self.weights.log() - offset.square().sum(dim=2) / (2 * variance)
        share = logits.softmax(dim=1)  # (n, K)

        # Within one Gaussian: from its centre towards x, less far if there is more noise.
        means = self.centres + a * self.sd**2 / variance * offset
        return (share[:, :, None] * means).sum(dim=1)
        # end practice


def score(x: Tensor, x_0: Tensor, a: float, b: float) -> Tensor:
    """∇ log p(x): to where noisy data is denser. x_0 is E[x_0 | x] (Tweedie's formula)."""
    return (a * x_0 - x) / b**2


def show_score(cfg: Config) -> None:
    print("\n[3] If x_0 is not known: the mean of all that fit, and the score")
    pair = Mixture(torch.ones(2), torch.tensor([[-1.0], [1.0]]), sd=0)
    guess = pair.denoise(torch.tensor([[0.45]]), 0.8, 0.6)
    text = "data -1 or 1, x = 0.45, a = 0.8, b = 0.6: E[x_0] = tanh(1) = 0.7616, score 0.4424"
    found = torch.cat([guess, score(0.45, guess, 0.8, 0.6)])
    check_close("guess", text, found, [[0.7616], [0.4424]], atol=5e-5)
    data = make_data()
    alpha_bar = linear_schedule(cfg.steps)
    found, wanted = [], []
    for t in (2, cfg.steps // 4, cfg.steps):
        a, b = amounts(t, alpha_bar)
        x = diffuse(data.draw(50), t, alpha_bar, torch.randn(50, 2)).requires_grad_()
        found.append(score(x, data.denoise(x, a, b), a, b))
        wanted.append(torch.autograd.grad(log_density(data, x, a, b).sum(), x)[0])
    text = "eight Gaussians, little noise to much: the gradient of torch's log density"
    check_close("score", text, torch.cat(found), torch.cat(wanted))


def reverse_chain(x: Tensor, denoise: Callable, alpha_bar: Tensor) -> list[Tensor]:
    """DDPM's sampler: [x_T, …, x_0] from noise x_T. denoise(x, a, b) is E[x_0 | x]."""
    # practice: The chain of steps back
    path = [x]
    for t in range(len(alpha_bar) - 1, 0, -1):
        # x_0 is not known: the mean of all that fit takes its place.
        x_0 = denoise(x, *amounts(t, alpha_bar))
        mean, variance = posterior(x, x_0, t, alpha_bar)
        x = mean + variance.sqrt() * torch.randn_like(x)
        path.append(x)
    return path
    # end practice


def velocity(x: Tensor, x_0: Tensor, time: float) -> Tensor:
    """E[ε - x_0 | x], where x = (1 - time) x_0 + time ε. x_0 is E[x_0 | x]."""
    return (x - x_0) / time  # for ε = (x - (1 - time) x_0) / time


def flow(x: Tensor, denoise: Callable, steps: int) -> list[Tensor]:
    """From noise at time 1 to data at time 0 in equal steps (Euler's method)."""
    # practice: Follow the velocity
    path = [x]
    for number in range(steps, 0, -1):
        time = number / steps
        x_0 = denoise(x, 1 - time, time)
        x = x - velocity(x, x_0, time) / steps
        path.append(x)
    return path
    # end practice


def without_noise(x: Tensor, denoise: Callable, alpha_bar: Tensor) -> Tensor:
    """DDIM (8.7): from x_T through the chain's stages to x_0; its noise is kept, none is drawn."""
    for t in range(len(alpha_bar) - 1, 0, -1):
        a, b = amounts(t, alpha_bar)
        x_0 = denoise(x, a, b)
        x = diffuse(x_0, t - 1, alpha_bar, noise=(x - a * x_0) / b)
    return x


def show_ways(cfg: Config) -> None:
    print("\n[4] Two ways from noise to data: a chain of random steps, and a flow")
    one = Mixture(torch.ones(1), torch.tensor([[2.0, -1.0]]), sd=0.5)
    x = torch.randn(10_000, 2).double()
    path = torch.stack(reverse_chain(x, one.denoise, torch.tensor([1, 0.64, 0.16]).double()))
    mean = torch.tensor([[0], [15 / 22], [21 / 22]]) * one.centres
    sd = torch.tensor([[1], [0.6393], [0.2459]])
    off = torch.cat([(path.mean(dim=1) - mean) / sd, (path.std(dim=1) / sd - 1) * 2**0.5]) * 100
    text = "data N(μ, 0.5²), ᾱ as above: means and sds as by hand, up to {} standard errors"
    check("chain-by-hand", text, off.abs().max(), at_most=4)
    text = "the flow in two steps: from x to (x + μ) / 2 to μ + 0.2 x"
    wanted = torch.stack([x, (x + one.centres) / 2, one.centres + 0.2 * x])
    check_close("flow-by-hand", text, torch.stack(flow(x, one.denoise, 2)), wanted)

    data = make_data()
    x = (0.7 * data.draw(50) + 0.3 * torch.randn(50, 2)).requires_grad_()
    b = torch.full((50, 1, 1), 0.3, dtype=torch.float64, requires_grad=True)
    p = log_density(data, x, 1 - b, b).exp()
    current = p[:, None] * velocity(x, data.denoise(x, 0.7, 0.3), 0.3)
    change = torch.autograd.grad(p.sum(), b, retain_graph=True)[0].flatten()
    for d in (0, 1):
        change += torch.autograd.grad(current[:, d].sum(), x, retain_graph=True)[0][:, d]
    check_close("carried", "∂p/∂t + div(p v) = 0: v carries p along", change, 0 * change, atol=1e-8)


def sliced_distance(x: Tensor, y: Tensor) -> float:
    """Sliced Wasserstein: how far x (n, 2) moves to become y (n, 2) along a line; mean of 32."""
    angle = math.pi * torch.arange(32).double() / 32
    lines = torch.stack([angle.cos(), angle.sin()])  # (2, 32)
    # On a line the shortest way is to sort both and to match in order.
    shift = (x @ lines).sort(dim=0).values - (y @ lines).sort(dim=0).values
    return shift.abs().mean().item()


def show_samples(cfg: Config) -> tuple[dict[str, float], list[Tensor]]:
    print("\n[5] Eight Gaussians out of noise, by chain and flow: how far from the data")
    data = make_data()
    real = data.draw(cfg.points)
    gaussian = dist.MultivariateNormal(real.mean(dim=0), real.T.cov()).sample((cfg.points,))
    fresh = [sliced_distance(data.draw(cfg.points), real) for _ in range(5)]
    found = {"gaussian": sliced_distance(gaussian, real), "fresh": sum(fresh) / 5}
    print(f"  one Gaussian {found['gaussian']:.4f}, fresh {min(fresh):.4f} to {max(fresh):.4f}")
    for steps in COUNTS:
        x = torch.randn(cfg.points, 2).double()
        paths = {"chain": reverse_chain(x, data.denoise, linear_schedule(steps))}
        paths["cosine"] = reverse_chain(x, data.denoise, cosine_schedule(steps))
        paths["ddim"] = [without_noise(x, data.denoise, cosine_schedule(steps))]
        paths["flow"] = flow(x, data.denoise, steps)
        new = {name: sliced_distance(path[-1], real) for name, path in paths.items()}
        print(f"  {steps:>3} steps: " + ", ".join(f"{k} {v:.4f}" for k, v in new.items()))
        found |= {f"{name}_{steps}": distance for name, distance in new.items()}
    for name, bound in (("chain", 5), ("flow", 3)):
        ratio = found[f"{name}_100"] / found["fresh"]
        check(name, f"100 steps, {name}: {{}} times as far as fresh draws", ratio, at_most=bound)
    ratio = found["gaussian"] / found["chain_100"]
    check("gaussian", "one Gaussian is {} times as far as the chain", ratio, at_least=2)
    ratio = found["cosine_5"] / found["flow_5"]
    expect("fewer", "5 steps, the cosine chain: {} times as far as the flow", ratio, at_least=1.3)
    return found, paths["chain"]


# Pictures and helpers: skip on a first reading


def make_data() -> Mixture:
    """Eight Gaussians in a ring; the last is eight times as likely as the first."""
    return Mixture(torch.arange(1, 9), ring(), SD)


def log_density(data: Mixture, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Of a x_0 + b ε, at x (n, 2), by torch. a and b: numbers, or (n, 1, 1)."""
    sd = ((a * data.sd) ** 2 + b**2).sqrt()
    gaussians = dist.Independent(dist.Normal(a * data.centres, sd), 1)
    weights = dist.Categorical(data.weights.expand(gaussians.batch_shape))
    return dist.MixtureSameFamily(weights, gaussians).log_prob(x)


def draw_figures(cfg: Config, found: dict[str, float], path: list[Tensor]) -> None:
    alpha_bar = linear_schedule(100)
    x_0 = make_data().draw(2000)
    figure, axes = new_figure(2, 5, size=(13, 5.8), sharex=True, sharey=True)
    for (top, bottom), t in zip(axes.T, (0, 5, 15, 35, 100)):
        top.plot(*diffuse(x_0, t, alpha_bar, torch.randn_like(x_0)).T, ".", ms=1.5, color=BLUE)
        bottom.plot(*path[100 - t][:2000].T, ".", ms=1.5, color=ORANGE)
        top.set(title=f"t = {t}, ᾱ = {alpha_bar[t]:.2f}", xlim=(-2.8, 2.8), ylim=(-2.8, 2.8))
    figure.suptitle("Above: adding noise. Below: the chain back, nearly the same", weight="bold")
    save_figure(figure, cfg.out / "there-and-back")
    figure, axis = new_figure(size=(8, 5))
    for name, label in LABELS.items():
        values = [found[f"{name}_{steps}"] for steps in COUNTS]
        axis.semilogy(list(map(str, COUNTS)), values, "o-", label=label)
    axis.axhline(found["gaussian"], color=GREY, linestyle="--", label="one Gaussian")
    axis.axhline(found["fresh"], color=GREY, linestyle=":", label="fresh draws")
    axis.set(xlabel="steps", ylabel="distance to the data", title="No new noise: fewer steps")
    axis.legend()
    save_figure(figure, cfg.out / "steps")


def run(cfg: Config) -> dict[str, float]:
    halves = show_forward(cfg)
    show_posterior(cfg)
    show_score(cfg)
    show_ways(cfg)
    found, path = show_samples(cfg)
    draw_figures(cfg, found, path)
    return {**halves, **found}


if __name__ == "__main__":
    main(run, Config, __doc__)
