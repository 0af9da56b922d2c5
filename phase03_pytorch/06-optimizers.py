"""3.6 Optimizers: seven rules that turn a gradient into a step
优化器：把梯度变成一步的七条规则

You will be able to answer
    1. Do a few lines do what torch.optim does?     show_parity   sgd, momentum, nesterov, adagrad, rmsprop, adam, adamw
    2. What did torch change in the papers?         show_papers   look-ahead, schedule, epsilon
    3. Who gets along a narrow, bent valley?        show_valley   faster, scale
    4. Why is AdamW not Adam with weight decay?     show_decay    decoupled, coupled
Run       python phase03_pytorch/06-optimizers.py                          about 6 s
Needs     -
Reference torch.optim
Learns    no model is trained here
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from common.checks import check, check_close, expect
from common.config import LessonConfig, main, param
from common.figures import COLOURS, new_figure, plot_curves, save_figure


@dataclass
class Config(LessonConfig):
    steps: int = param(300, "steps in the valley", tiny=20)


class Optimizer:
    """step() moves every parameter by the rule in `update`. A class's own values are the defaults of its settings."""

    weight_decay, coupled = 0.0, True  # coupled: its pull λp is added to the gradient

    def __init__(self, params: Iterable[Tensor], lr: float, **settings: float):
        self.params, self.lr = list(params), lr
        self.__dict__.update(settings)
        self.state: list[dict] = [
            {"t": 0} for _ in self.params
        ]  # what a rule remembers of each parameter

    @torch.no_grad()
    def step(self) -> None:
        for p, state in zip(self.params, self.state):
            if p.grad is not None:  # not part of this loss: left alone, memory too
                state["t"] += 1
                self.update(p, p.grad + self.weight_decay * p if self.coupled else p.grad, state)


class SGD(Optimizer):
    """One step against the gradient. Robbins and Monro let the rate fall; torch leaves that to a scheduler."""

    def update(self, p: Tensor, g: Tensor, state: dict) -> None:
        p -= self.lr * g


class Momentum(Optimizer):
    """A ball with inertia μ. In the papers the rate stands inside the velocity, v = μv - lr·g, in torch outside: the
    two differ once the rate changes. Dampening is torch's own; the very first gradient is not damped."""

    momentum, dampening = 0.9, 0.0

    def velocity(self, g: Tensor, state: dict) -> Tensor:
        # practice: a sum of all gradients that forgets the old ones
        # hint: the first velocity is the whole first gradient, for there is nothing to damp yet
        # hint: later: μ times the old velocity, plus 1 - dampening times the gradient; keep it in state["velocity"]
        share = 1 if state["t"] == 1 else 1 - self.dampening
        old = state.get("velocity", 0)
        state["velocity"] = self.momentum * old + share * g
        # end practice
        return state["velocity"]

    def update(self, p: Tensor, g: Tensor, state: dict) -> None:
        p -= self.lr * self.velocity(g, state)


class Nesterov(Momentum):
    """Look ahead. The paper asks for the gradient at p + μv. In torch p *is* that point, so that the gradient it is
    given will do; the step then holds what the velocity will do next time. Nothing else differs: step 2."""

    def update(self, p: Tensor, g: Tensor, state: dict) -> None:
        p -= self.lr * (g + self.momentum * self.velocity(g, state))


class Adagrad(Optimizer):
    """Each number divides by the root of all its squares so far. eps is added to the root, as in the paper; elsewhere
    it stands under the root, or the sum begins at 0.1."""

    eps = 1e-10

    def update(self, p: Tensor, g: Tensor, state: dict) -> None:
        state["squares"] = state.get("squares", 0) + g**2
        p -= self.lr * g / (state["squares"].sqrt() + self.eps)


class RMSProp(Optimizer):
    """Adagrad that forgets. Hinton's slide keeps 0.9 of the mean and has no eps; torch keeps 0.99, and adds eps to the
    root, where TensorFlow has it under it. Momentum sums up what is divided already."""

    alpha, eps, momentum = 0.99, 1e-8, 0.0

    def update(self, p: Tensor, g: Tensor, state: dict) -> None:
        # practice: divide by the size that gradients had lately
        # hint: a running mean of squares: alpha of the old one, 1 - alpha of the new square; it starts at 0
        # hint: a velocity, from 0, sums up g / (root + eps) with self.momentum, and the step is lr times it
        state["squares"] = self.alpha * state.get("squares", 0) + (1 - self.alpha) * g**2
        scaled = g / (state["squares"].sqrt() + self.eps)
        state["velocity"] = self.momentum * state.get("velocity", 0) + scaled
        p -= self.lr * state["velocity"]
        # end practice


class Adam(Optimizer):
    """Momentum over RMSProp, both means corrected for having started at 0: Algorithm 1 of the paper. The shorter form
    that follows it there has another epsilon: step 2. Weight decay is coupled, as torch's Adam has it."""

    beta1, beta2, eps = 0.9, 0.999, 1e-8

    def update(self, p: Tensor, g: Tensor, state: dict) -> None:
        # practice: a mean of gradients over the root of a mean of their squares
        # hint: both start at 0, so after t = state["t"] steps they hold only the share 1 - beta ** t: divide by it
        # hint: state["mean"] = self.beta1 * state.get("mean", 0) + …; eps is added to the root
        state["mean"] = self.beta1 * state.get("mean", 0) + (1 - self.beta1) * g
        state["squares"] = self.beta2 * state.get("squares", 0) + (1 - self.beta2) * g**2
        mean = state["mean"] / (1 - self.beta1 ** state["t"])
        squares = state["squares"] / (1 - self.beta2 ** state["t"])
        p -= self.lr * mean / (squares.sqrt() + self.eps)
        # end practice


class AdamW(Adam):
    """Weight decay decoupled: it shrinks the weights and is never divided. In the paper its strength does not depend
    on the rate, only on the schedule; torch multiplies the two."""

    weight_decay, coupled = 0.01, False

    def update(self, p: Tensor, g: Tensor, state: dict) -> None:
        p *= 1 - self.lr * self.weight_decay
        super().update(p, g, state)


def path(optimizer: Optimizer, gradient: Callable[[Tensor], Tensor], steps: int) -> Tensor:
    """(steps + 1, *shape): where it leads its one parameter from here, if gradient(p) is the slope at p."""
    (p,) = optimizer.params
    seen = [p.clone()]
    for _ in range(steps):
        p.grad = gradient(p)
        optimizer.step()
        seen.append(p.clone())
    return torch.stack(seen)


def bend(p: Tensor) -> Tensor:
    """Rosenbrock's valley along a parabola, (1 - x)² + 100 (y - x²)²: lowest, 0, at (1, 1). (…, 2) -> (…)"""
    return (1 - p[..., 0]) ** 2 + 100 * (p[..., 1] - p[..., 0] ** 2) ** 2


def slope(p: Tensor) -> Tensor:
    return torch.func.grad(lambda q: bend(q).sum())(
        p
    )  # a sum, so each row of p gets its own gradient


def noisy_walk(make: Callable, settings: dict, seed: int) -> Tensor:
    """(50, 20): all numbers of four parameters after each of 50 steps; two are now and then without a gradient."""
    noise, seen = torch.Generator().manual_seed(seed), []
    params = [
        torch.randn(shape, generator=noise, dtype=torch.float64)
        for shape in ((3, 4), (3,), (1,), (2, 2))
    ]
    optimizer = make(params, lr=0.02, **settings)
    for step in range(50):
        for number, p in enumerate(params):  # a bowl, and noise as batches bring it
            skip = number > 1 and step % 7 == 3
            p.grad = (
                None if skip else p**3 + torch.randn(p.shape, generator=noise, dtype=torch.float64)
            )
        optimizer.step()
        seen.append(torch.cat([p.flatten() for p in params]))
    return torch.stack(seen)


def show_parity(cfg: Config) -> None:
    print(
        "\n[1] Fifty steps beside torch.optim, on noisy slopes, plain and with everything switched on"
    )
    theirs, decay = torch.optim, {"weight_decay": 0.1}
    table = [
        ("sgd", SGD, theirs.SGD, {}, decay),
        (
            "momentum",
            Momentum,
            theirs.SGD,
            {"momentum": 0.9},
            {"momentum": 0.8, "dampening": 0.3} | decay,
        ),
        (
            "nesterov",
            Nesterov,
            partial(theirs.SGD, nesterov=True),
            {"momentum": 0.9},
            {"momentum": 0.7} | decay,
        ),
        ("adagrad", Adagrad, theirs.Adagrad, {}, {"eps": 0.1} | decay),
        (
            "rmsprop",
            RMSProp,
            theirs.RMSprop,
            {},
            {"alpha": 0.9, "eps": 0.1, "momentum": 0.9} | decay,
        ),
        ("adam", Adam, theirs.Adam, {}, {"eps": 0.1} | decay),
        ("adamw", AdamW, theirs.AdamW, {}, decay),
    ]
    for claim, ours, reference, *variants in table:
        check_close(
            claim,
            f"{ours.__name__}: every parameter after every step",
            *(
                torch.stack([noisy_walk(make, settings, cfg.seed) for settings in variants])
                for make in (ours, reference)
            ),
        )


def show_papers(cfg: Config) -> None:
    print("\n[2] The papers' forms beside torch's")
    start, v, ahead = (
        torch.tensor([-1.2, 1.0], dtype=torch.float64),
        torch.zeros(2, dtype=torch.float64),
        [],
    )
    place = start.clone()
    for _ in range(51):
        ahead.append(place + 0.9 * v)  # the paper asks for the slope here …
        v = 0.9 * v - 0.0005 * slope(ahead[-1])
        place = place + v  # … and moves from there
    check_close(
        "look-ahead",
        "Nesterov: torch's p is the paper's p + μv, for 50 steps",
        path(Nesterov([start.clone()], 0.0005), slope, 50),
        torch.stack(ahead),
    )
    ball = Momentum([torch.zeros(1)], lr=0.01)
    steady, ball.lr = path(ball, torch.ones_like, 200).diff(dim=0)[-1], 0.001
    check_close(
        "schedule",
        "steps grow to lr / (1 - μ); at a tenth of the rate the next is a tenth (papers: 0.091)",
        torch.cat([steady, path(ball, torch.ones_like, 1).diff(dim=0)[0]]),
        [-0.1, -0.01],
    )
    first = path(
        Adam([torch.ones(4).double()], 1.0), lambda p: p.new_tensor([1e-8, 1e-4, 1, 1e4]), 1
    )[-1]
    check_close(
        "epsilon",
        "Adam's first step is lr, but lr / 2 where the slope is eps (short form: 0.03)",
        1 - first,
        [0.5, 1, 1, 1],
        atol=1e-3,
    )


def show_valley(cfg: Config) -> dict[str, float]:
    print(
        f"\n[3] {cfg.steps} steps in Rosenbrock's valley, each rule with the best of nine learning rates"
    )
    start, rates, walks, ends = (
        torch.tensor([-1.2, 1.0]).double(),
        torch.logspace(-4, 0, 9).double(),
        {},
        {},
    )
    for rule in (SGD, Momentum, Nesterov, Adagrad, RMSProp, Adam, AdamW):
        tried = path(
            rule([start.repeat(9, 1)], rates[:, None]), slope, cfg.steps
        )  # a row for each rate
        best = bend(tried[-1]).nan_to_num(torch.inf).argmin()
        walks[f"{rule.__name__}, lr {rates[best]:.2g}"] = tried[:, best]
        ends[rule.__name__.lower()] = bend(tried[-1, best]).item()
        print(f"  {rule.__name__:<10}lr {rates[best]:<8.2g}loss {bend(tried[-1, best]):.1e}")
    draw_valley(cfg, walks)
    expect(
        "faster",
        "plain SGD ends higher than Momentum, times",
        ends["sgd"] / ends["momentum"],
        at_least=10,
    )
    steep, flat = (
        path(Adam([start.clone()], 0.01), lambda p: factor * slope(p), 50) for factor in (1000, 1)
    )
    check_close(
        "scale", "a loss 1,000 times as large changes no step of Adam", steep, flat, atol=1e-6
    )
    return ends


def show_decay(cfg: Config) -> dict[str, float]:
    print(
        "\n[4] 2,000 weights that the loss does not need: half with loud noise as gradient, half with quiet noise"
    )
    loudness, curves, kept = torch.tensor([[10.0], [0.1]]).double(), {}, (1 - 0.01 * 0.1) ** 500
    for rule in (AdamW, Adam):
        noise = torch.Generator().manual_seed(cfg.seed)
        walk = path(
            rule([torch.ones(2, 1000).double()], 0.01, weight_decay=0.1),
            lambda p: loudness * torch.randn(p.shape, generator=noise),
            500,
        )  # (501, 2, 1000)
        loud, quiet = walk.mean(dim=2).T
        curves |= {f"{rule.__name__}, loud": loud, f"{rule.__name__}, quiet": quiet}
        if rule is AdamW:
            off = ((walk[-1].mean(dim=1) - kept) / walk[-1].std(dim=1) * 1000**0.5).abs().max()
            check(
                "decoupled",
                f"AdamW leaves (1 - lr λ)⁵⁰⁰ = {kept:.3f} of both, off by (sd)",
                off,
                at_most=4,
            )
    check(
        "coupled",
        f"Adam with the same λ leaves {loud[-1]:.3f} of the loud and {quiet[-1]:.3f} of the quiet ones",
        bool(loud[-1] > 0.9 and quiet[-1] < 0.1),
    )
    figure, axis = new_figure(size=(9, 4.6))
    plot_curves(axis, curves, xlabel="step", ylabel="mean weight left by the same decay", start=0)
    save_figure(figure, cfg.out / "decay")
    return {"left_loud": loud[-1].item(), "left_quiet": quiet[-1].item()}


def draw_valley(cfg: Config, walks: dict[str, Tensor]) -> None:
    figure, axes = new_figure(2, 4, size=(16, 7.6))
    x, y = torch.meshgrid(
        torch.linspace(-1.8, 1.8, 150), torch.linspace(-0.8, 2.2, 150), indexing="xy"
    )
    for axis, (name, walk), colour in zip(axes.flat, walks.items(), (*COLOURS[:6], "black")):
        axis.contourf(
            x,
            y,
            bend(torch.stack([x, y], dim=-1)).log10(),
            levels=range(-3, 5),
            cmap="Greys",
            alpha=0.3,
        )
        axis.plot(*walk.T, ".-", color=colour, markersize=4, linewidth=1)
        axis.plot(1, 1, "*", color="black", markersize=14)
        axis.set(title=name, xlim=(-1.8, 1.8), ylim=(-0.8, 2.2), xticks=[], yticks=[])
        axes[1, 3].semilogy(bend(walk), color=colour)
    axes[1, 3].set(title="Loss by step", xlabel="step", ylim=(1e-6, 100))
    save_figure(figure, cfg.out / "valley")


def run(cfg: Config) -> dict:
    show_parity(cfg)
    show_papers(cfg)
    return show_valley(cfg) | show_decay(cfg)


if __name__ == "__main__":
    main(run, Config, __doc__)
