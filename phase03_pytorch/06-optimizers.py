"""3.6 Optimizers: what momentum, RMSProp, Adam and AdamW are each for
优化器：动量、RMSProp、Adam、AdamW 各自解决什么问题

You will be able to answer
    1. Do a few lines do what torch.optim does?   show_parity   sgd, momentum, rmsprop, adam, adamw
    2. What does momentum do in a narrow valley?  show_valley   valley
    3. Why does Adam ignore the loss's scale?     show_scale    scale
    4. What does Adam gain, and where little?     show_network  gains, he, overfits, depends
    5. Why is AdamW not Adam with an L2 penalty?  show_decay    decoupled, coupled
Predict   left_noisy: AdamW leaves 0.61 of a weight; what does Adam with L2 leave of a noisy one?
Run       python phase03_pytorch/06-optimizers.py                          about 20 s
Needs     -
Reference torch.optim
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.data.images import load_images
from common.figures import COLOURS, GREY, new_figure, save_figure


@dataclass
class Config(LessonConfig):
    threads = 1
    data: str = param("digits", "data set", choices=("digits",))
    steps: int = param(100, "steps on the network, for each rule, rate and seed", tiny=20)
    seeds: int = param(2, "how many first weights each rate is tried with", tiny=1)
    rates: int = param(8, "learning rates tried, from 0.0003 to 1", tiny=3, low=3)


class Optimizer:
    """What all rules share; step() moves each parameter by the rule in `update`.

    weight_decay: the λ of an L2 penalty λ/2 · ‖p‖², whose gradient λp joins that of the loss.
    """

    def __init__(self, params: Iterable, lr: float, weight_decay: float = 0):
        self.parameters = list(params)
        self.lr = lr
        self.weight_decay = weight_decay

        # What a rule remembers of each parameter. steps: how often it has been moved.
        self.state: list[dict] = [{"steps": 0} for _ in self.parameters]

    def zero_grad(self) -> None:
        for p in self.parameters:
            p.grad = None

    @torch.no_grad()
    def step(self) -> None:
        for p, state in zip(self.parameters, self.state):
            # A parameter that took no part in the loss is left alone, and so is its memory.
            if p.grad is None:
                continue
            gradient = p.grad + self.weight_decay * p
            state["steps"] += 1
            self.update(p, gradient, state)


class SGD(Optimizer):
    """A step against the gradient (Robbins and Monro 1951)."""

    def update(self, p: Tensor, gradient: Tensor, state: dict) -> None:
        p -= self.lr * gradient


class Momentum(Optimizer):
    """A velocity sums up gradients and forgets the old ones (Polyak 1964).

    v ← μv + g, p ← p − lr · v. The first velocity is the first gradient.
    """

    def __init__(self, params: Iterable, lr: float, momentum: float = 0.9, weight_decay: float = 0):
        super().__init__(params, lr, weight_decay)
        self.momentum = momentum

    def update(self, p: Tensor, gradient: Tensor, state: dict) -> None:
        # practice: A sum of gradients that forgets the old ones
        old = state.get("velocity", torch.zeros_like(p))
        state["velocity"] = self.momentum * old + gradient
        p -= self.lr * state["velocity"]
        # end practice


class RMSProp(Optimizer):
    """Each number divides its gradient by the size its gradients had lately (Hinton 2012).

    s ← αs + (1 − α)g², from 0; p ← p − lr · g / (√s + ε).
    """

    def __init__(self, params: Iterable, lr: float, alpha: float = 0.99, eps: float = 1e-8):
        super().__init__(params, lr)
        self.alpha = alpha
        self.eps = eps

    def update(self, p: Tensor, gradient: Tensor, state: dict) -> None:
        # practice: Divide by the size that gradients had lately
        old = state.get("squares", torch.zeros_like(p))
        state["squares"] = self.alpha * old + (1 - self.alpha) * gradient**2
        p -= self.lr * gradient / (state["squares"].sqrt() + self.eps)
        # end practice


class Adam(Optimizer):
    """A mean of gradients over the root of a mean of squares (Kingma and Ba 2014, Algorithm 1)."""

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        super().__init__(params, lr, weight_decay)
        self.beta1, self.beta2 = betas
        self.eps = eps

    def update(self, p: Tensor, gradient: Tensor, state: dict) -> None:
        # practice: A mean over the root of a mean of squares
        old_mean = state.get("mean", torch.zeros_like(p))
        old_squares = state.get("squares", torch.zeros_like(p))
        state["mean"] = self.beta1 * old_mean + (1 - self.beta1) * gradient
        state["squares"] = self.beta2 * old_squares + (1 - self.beta2) * gradient**2

        # After t steps from 0 the means hold only the share 1 − βᵗ of what they should.
        mean = state["mean"] / (1 - self.beta1 ** state["steps"])
        squares = state["squares"] / (1 - self.beta2 ** state["steps"])
        p -= self.lr * mean / (squares.sqrt() + self.eps)
        # end practice


class AdamW(Adam):
    """Adam with decoupled decay: it shrinks the weights beside the step, and is not divided."""

    def __init__(self, params: Iterable, lr: float, weight_decay: float = 0.01):
        super().__init__(params, lr)
        self.decay = weight_decay

    def update(self, p: Tensor, gradient: Tensor, state: dict) -> None:
        p *= 1 - self.lr * self.decay
        super().update(p, gradient, state)


def show_parity(cfg: Config) -> None:
    print("\n[1] Fifty steps on noisy gradients, every parameter compared after every step")
    pairs = {
        "sgd": (SGD, torch.optim.SGD, {"weight_decay": 0.1}),
        "momentum": (Momentum, torch.optim.SGD, {"momentum": 0.8, "weight_decay": 0.1}),
        "rmsprop": (RMSProp, torch.optim.RMSprop, {"alpha": 0.9, "eps": 0.1}),
        "adam": (Adam, torch.optim.Adam, {"betas": (0.8, 0.99), "eps": 0.1, "weight_decay": 0.1}),
        "adamw": (AdamW, torch.optim.AdamW, {"weight_decay": 0.1}),
    }
    for claim, (ours, reference, settings) in pairs.items():
        mine = noisy_walk(ours, settings, cfg.seed)
        theirs = noisy_walk(reference, settings, cfg.seed)
        check_close(claim, f"{ours.__name__} is torch's, up to {{}}", mine, theirs)


def show_valley(cfg: Config) -> dict[str, Tensor]:
    print("\n[2] A valley: momentum's steps grow along it, where gradients keep their sign")
    walks = {}
    for rule in (SGD, Momentum):
        p = torch.tensor([10.0, 1.0])
        optimizer = rule([p], lr=0.019)  # about SGD's best: from 0.02 on it diverges
        places = [p.clone()]
        for _ in range(100):
            p.grad = valley_gradient(p)
            optimizer.step()
            places.append(p.clone())
        walks[rule.__name__] = torch.stack(places)  # (101, 2)
    ratio = valley_loss(walks["SGD"][-1]) / valley_loss(walks["Momentum"][-1])
    check("valley", "valley, 100 steps: SGD's loss is {} times momentum's", ratio, at_least=100)
    return walks


def show_scale(cfg: Config) -> None:
    print("\n[3] Divided by its usual size, a gradient says where to go, not how far")
    ends = []
    for factor in (1, 1000):
        p = torch.tensor([10.0, 1.0])
        adam = Adam([p], lr=0.1)
        for _ in range(50):
            p.grad = factor * valley_gradient(p)
            adam.step()
        ends.append(p)
    text = "50 steps of Adam end in the same place if the loss is 1,000 times as large"
    check_close("scale", text, ends[1], ends[0])


def show_network(cfg: Config) -> tuple[Tensor, dict[str, Tensor], dict[str, float]]:
    print(f"\n[4] Digits, four hidden layers, {cfg.steps} steps; each rule with its own best rate")
    data = load_images(cfg)
    x = torch.from_numpy(data.x_train).flatten(1) / data.brightest  # (n, 64)
    y = torch.from_numpy(data.y_train)
    rates = torch.logspace(-3.5, 0, cfg.rates)
    losses = {}
    best = {}
    default = [(rule, False) for rule in (SGD, Momentum, RMSProp, Adam)]
    for rule, he in [*default, (SGD, True), (Adam, True)]:
        name = f"{rule.__name__}, He" if he else rule.__name__
        losses[name] = torch.empty(cfg.rates, cfg.seeds)
        for row, rate in enumerate(rates.tolist()):
            for seed in range(cfg.seeds):
                model = make_network(cfg.seed + seed, he)
                losses[name][row, seed] = train(model, rule(model.parameters(), rate), x, y, cfg)
        means = losses[name].mean(dim=1)
        best[name] = means.min()
        print(f"  {name:<9} best rate {rates[means.argmin()]:<7.2g} mean loss {best[name]:.3f}")

    factor = best["SGD"] / best["Adam"]
    expect("gains", "torch's first weights: SGD's loss is {} times Adam's", factor, at_least=4)
    factor_he = best["SGD, He"] / best["Adam, He"]
    expect("he", "He's first weights: {} times that factor", factor_he / factor, below=0.7)

    batch = (x[:32], y[:32])
    model = make_network(cfg.seed)
    adam = Adam(model.parameters(), lr=0.003)
    overfits("overfits", "32 digits are learned by heart: {}", model, batch, cross_entropy, adam)
    predicted = model(x).argmax(dim=1)
    depends_on_input("depends", "of all digits it then reads a share of {}", predicted, y)
    return rates, losses, {"factor": factor.item(), "factor_he": factor_he.item()}


def show_decay(cfg: Config) -> dict[str, float]:
    print("\n[5] Weights that the loss does not need: their gradients are nothing but noise")
    # Two groups of 1,000 weights, all 1 at first; the first has 100 times the noise.
    scale = torch.tensor([[10.0], [0.1]])
    left = {}
    for rule in (AdamW, Adam):
        rng = torch.Generator().manual_seed(cfg.seed)
        optimizer = rule([torch.ones(2, 1000)], lr=0.01, weight_decay=0.1)
        for _ in range(500):
            optimizer.parameters[0].grad = scale * torch.randn(2, 1000, generator=rng)
            optimizer.step()
        left[rule.__name__] = optimizer.parameters[0].mean(dim=1)

    expected = (1 - 0.01 * 0.1) ** 500
    text = f"AdamW leaves (1 − lr·λ)⁵⁰⁰ = {expected:.3f} of both groups' means, up to {{}}"
    check("decoupled", text, (left["AdamW"] - expected).abs().max(), below=0.05)
    noisy, quiet = left["Adam"].tolist()
    text = (
        f"Adam with L2 leaves {noisy:.3f} of the noisy weights, {quiet:.3f} of the quiet: {{}} less"
    )
    check("coupled", text, noisy - quiet, above=0.8)
    return {"left_noisy": noisy, "left_quiet": quiet}


# Pictures and helpers: skip on a first reading


def draw_valley(cfg: Config, walks: dict[str, Tensor]) -> None:
    figure, axis = new_figure(size=(9, 4.2))
    x, y = torch.meshgrid(torch.linspace(-8, 11, 120), torch.linspace(-1.6, 1.6, 80), indexing="xy")
    heights = valley_loss(torch.stack([x, y], dim=-1)).log10()
    axis.contourf(x, y, heights, levels=12, cmap="Greys", alpha=0.35)
    for (name, places), colour in zip(walks.items(), COLOURS):
        axis.plot(*places.T, ".-", color=colour, linewidth=1.2, label=name)
    axis.set(xlabel="along the valley", ylabel="across", title="100 steps at SGD's best rate")
    axis.legend(loc="upper left")
    save_figure(figure, cfg.out / "valley")


def draw_rates(cfg: Config, rates: Tensor, losses: dict[str, Tensor]) -> None:
    figure, axis = new_figure(size=(8, 4.6))
    for (name, table), colour in zip(losses.items(), [*COLOURS[:4], COLOURS[0], COLOURS[3]]):
        line = "o:" if "He" in name else "o-"
        axis.loglog(rates, table.mean(dim=1), line, color=colour, label=name)
    axis.axhline(math.log(10), color=GREY, label="guessing")
    axis.set(xlabel="learning rate", ylabel="loss", ylim=(0.01, 10), title="After the last step")
    axis.legend(loc="lower right", ncols=2)
    save_figure(figure, cfg.out / "rates")


def valley_gradient(p: Tensor) -> Tensor:
    """Of (x² + 100 y²) / 2: at the same distance 100 times as large across as along."""
    return p * torch.tensor([1.0, 100.0])


def valley_loss(p: Tensor) -> Tensor:
    return (p[..., 0] ** 2 + 100 * p[..., 1] ** 2) / 2


def noisy_walk(rule: Callable, settings: dict, seed: int) -> Tensor:
    """(50, 15): two parameters after each of 50 steps; one is at times without a gradient."""
    rng = torch.Generator().manual_seed(seed)
    matrix = torch.randn(3, 4, generator=rng, dtype=torch.float64)
    vector = torch.randn(3, generator=rng, dtype=torch.float64)
    optimizer = rule([matrix, vector], lr=0.02, **settings)
    seen = []
    for step in range(50):
        for p in (matrix, vector):
            p.grad = p**3 + torch.randn(p.shape, generator=rng, dtype=torch.float64)
        if step % 7 == 3:
            vector.grad = None
        optimizer.step()
        seen.append(torch.cat([matrix.flatten(), vector]))
    return torch.stack(seen)


def train(model: nn.Module, optimizer: Optimizer, x: Tensor, y: Tensor, cfg: Config) -> float:
    """Steps on batches of 64; returns the loss on all samples, infinite if it diverged."""
    order = torch.Generator().manual_seed(cfg.seed)
    for _ in range(cfg.steps):
        batch = torch.randint(len(x), (64,), generator=order)
        loss = F.cross_entropy(model(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return F.cross_entropy(model(x), y).nan_to_num(torch.inf).item()


def cross_entropy(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def make_network(seed: int, he: bool = False) -> nn.Sequential:
    """(n, 64) -> (n, 10), four hidden layers, with first weights of torch's or, larger, of He's."""
    torch.manual_seed(seed)
    layers = []
    for _ in range(4):
        layers += [nn.Linear(64, 64), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(64, 10))
    for layer in model[::2] if he else ():
        nn.init.kaiming_normal_(layer.weight)
    return model


def run(cfg: Config) -> dict[str, float]:
    show_parity(cfg)
    walks = show_valley(cfg)
    show_scale(cfg)
    rates, losses, metrics = show_network(cfg)
    metrics |= show_decay(cfg)
    draw_valley(cfg, walks)
    draw_rates(cfg, rates, losses)
    return metrics


if __name__ == "__main__":
    main(run, Config, __doc__)
