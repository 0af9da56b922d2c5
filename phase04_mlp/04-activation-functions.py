"""4.4 Activation functions: what makes a network nonlinear
激活函数：网络的非线性从何而来

You will be able to answer
    1. What do ten activations compute?      show_functions   parity
    2. How does a network learn through it?  show_network     network, overfits, depends
    3. When does a unit saturate?            show_saturation  saturated
    4. Which unit comes back from below 0?   show_recovery    by-hand, ends, away
    5. What kills ReLU units, and how many?  show_dead        off-centre, dead, centred
Predict   dead: inputs around 5 instead of 0, rate 0.3: what share of ReLU units ends up dead?
Run       python phase04_mlp/04-activation-functions.py                    about 15 s
Needs     phase03_pytorch/09-training-loop
Reference torch.sigmoid, torch.tanh, F.relu, F.leaky_relu, F.elu, F.softplus, F.silu, F.mish, F.gelu
Notation  B batch  H hidden units
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.data.batches import Batches
from common.figures import BLUE, ORANGE, new_figure, plot_curves, save_figure
from common.lessons import load_lesson
from common.training import fit

cross_entropy = load_lesson("phase03_pytorch/09-training-loop").cross_entropy


@dataclass
class Config(LessonConfig):
    threads = 1
    samples: int = param(500, "points to train on", tiny=100, low=40)
    hidden_dim: int = param(32, "units in each of two hidden layers", tiny=16, low=8)
    epochs: int = param(25, "passes over the data", tiny=10)
    lr: float = param(0.3, "learning rate")
    seeds: int = param(5, "first weights that are tried", tiny=1)


# This and the next nine return f(z) and the slope f'(z), in the shape of z.
def sigmoid(z: Tensor) -> tuple[Tensor, Tensor]:
    """1 / (1 + e^-z), from 0 to 1."""
    # practice: The sigmoid and its slope
    # Far below 0, e^-z is infinite and 1 / inf is 0, as it should be. e^z / (1 + e^z) is the
    # same on paper, but far above 0 it is inf / inf.
    value = 1 / (1 + torch.exp(-z))
    return value, value * (1 - value)
    # end practice


def tanh(z: Tensor) -> tuple[Tensor, Tensor]:
    """(e^z - e^-z) / (e^z + e^-z), from -1 to 1: the sigmoid at 2z, stretched."""
    value = 2 * sigmoid(2 * z)[0] - 1
    return value, 1 - value**2


def relu(z: Tensor) -> tuple[Tensor, Tensor]:
    """The larger of 0 and z (Nair and Hinton 2010). At 0 its slope is 0 by convention."""
    return z.clamp(min=0), (z > 0).to(z.dtype)


def leaky_relu(z: Tensor) -> tuple[Tensor, Tensor]:
    """A hundredth of z gets through below 0 (Maas 2013)."""
    slope = torch.where(z > 0, torch.ones_like(z), 0.01)
    return slope * z, slope


def elu(z: Tensor) -> tuple[Tensor, Tensor]:
    """e^z - 1 below 0 (Clevert 2015)."""
    below = torch.exp(z.clamp(max=0)) - 1  # 0 where z is positive
    return z.clamp(min=0) + below, below + 1


def softplus(z: Tensor) -> tuple[Tensor, Tensor]:
    """log(1 + e^z), a ReLU with a round corner. Its slope is the sigmoid."""
    value = z.clamp(min=0) + torch.log1p(torch.exp(-z.abs()))
    return value, sigmoid(z)[0]


def silu(z: Tensor) -> tuple[Tensor, Tensor]:
    """z · sigmoid(z), also called Swish (Elfwing 2017)."""
    gate, gate_slope = sigmoid(z)
    return z * gate, gate + z * gate_slope  # (uv)' = u'v + uv'


def mish(z: Tensor) -> tuple[Tensor, Tensor]:
    """z · tanh(softplus(z)) (Misra 2019)."""
    inner, inner_slope = softplus(z)
    gate, gate_slope = tanh(inner)
    return z * gate, gate + z * gate_slope * inner_slope


def gelu(z: Tensor) -> tuple[Tensor, Tensor]:
    """z · Φ(z): z times the probability that a normal number is smaller (Hendrycks 2016)."""
    # practice: GELU and its slope
    below = (1 + torch.erf(z / math.sqrt(2))) / 2  # Φ
    density = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)  # Φ' = φ
    return z * below, below + z * density
    # end practice


def gelu_tanh(z: Tensor) -> tuple[Tensor, Tensor]:
    """GELU without erf, as GPT-2 has it: Φ(z) ≈ (1 + tanh(√(2/π) (z + 0.044715 z³))) / 2."""
    inner = math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)
    inner_slope = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * z**2)
    step, step_slope = tanh(inner)
    below = (1 + step) / 2
    return z * below, below + z * step_slope * inner_slope / 2


TEN = [sigmoid, tanh, relu, leaky_relu, elu, softplus, silu, mish, gelu, gelu_tanh]
ACTIVATIONS = {function.__name__: function for function in TEN}


def show_functions(cfg: Config) -> None:
    print("\n[1] Ten activations and their slopes, beside torch and its autograd")
    references = {name: getattr(F, name, None) for name in ACTIVATIONS}
    references["gelu_tanh"] = partial(F.gelu, approximate="tanh")
    z = torch.cat([torch.linspace(-10, 10, 2001), torch.tensor([-1000, 0, 1000])]).double()
    z.requires_grad_()
    ours = []
    theirs = []
    print("               slopes from    to    off by")
    for name, function in ACTIVATIONS.items():
        value = references[name](z)
        (slope,) = torch.autograd.grad(value.sum(), z)
        theirs.append(torch.stack([value.detach(), slope]))
        ours.append(torch.stack(function(z.detach())))
        off = (ours[-1] - theirs[-1]).abs().max()
        print(f"  {name:<15} {slope.min():7.3f} {slope.max():7.3f}   {off:.0e}")
    text = "from -10 to 10 and at ±1000 all values and slopes are torch's, up to {}"
    check_close("parity", text, torch.stack(ours), torch.stack(theirs))


class ActivationFunction(torch.autograd.Function):
    """An activation in torch's graph: its slope is the factor of the chain rule."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, function: Callable) -> Tensor:
        value, slope = function(z)
        ctx.save_for_backward(slope)
        return value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        # practice: What an activation sends back
        (slope,) = ctx.saved_tensors
        # Each z acts on its own output only. The second input, a function, has no gradient.
        return gradient * slope, None
        # end practice


class Activation(nn.Module):
    """A layer that applies one of ACTIVATIONS to each number."""

    def __init__(self, name: str):
        super().__init__()
        self.function = ACTIVATIONS[name]

    def forward(self, z: Tensor) -> Tensor:
        return ActivationFunction.apply(z, self.function)


def show_network(cfg: Config) -> None:
    print("\n[2] Inner disc or outer ring? In a network the slope multiplies what comes back")
    x, y = rings(cfg.samples, centre=0, seed=cfg.seed)
    model = make_model("gelu", cfg.hidden_dim, cfg.seed)
    theirs = make_model("gelu", cfg.hidden_dim, cfg.seed)
    theirs[1] = theirs[3] = nn.GELU()
    for network in [model, theirs]:
        cross_entropy(network, (x, y)).backward()
    ours = torch.cat([p.grad.flatten() for p in model.parameters()])
    reference = torch.cat([p.grad.flatten() for p in theirs.parameters()])
    text = f"with nn.GELU instead of ours all {len(ours):,} gradients are the same, up to {{}}"
    check_close("network", text, ours, reference, atol=1e-7)

    adam = torch.optim.Adam(model.parameters(), lr=0.01)
    text = "40 points are learned by heart: the loss falls to {}"
    overfits("overfits", text, model, (x[:40], y[:40]), cross_entropy, adam)
    new_x, new_y = rings(400, centre=0, seed=cfg.seed + 1000)
    predicted = model(new_x).argmax(dim=1)
    depends_on_input("depends", "it gets a share of {} of new points right", predicted, new_y)


def show_saturation(cfg: Config) -> None:
    print("\n[3] The share of slopes between -0.01 and 0.01, when z is normal with growing spread")
    # 10,000 quantiles of the normal distribution instead of draws: nothing depends on luck.
    z = torch.special.ndtri((torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000)
    spreads = [1, 3, 10, 30]
    print("  spread of z " + "".join(f"{spread:7}" for spread in spreads))
    for name, function in ACTIVATIONS.items():
        slopes = [function(spread * z)[1] for spread in spreads]
        shares = [(slope.abs() < 0.01).double().mean() for slope in slopes]
        print(f"  {name:<12}" + "".join(f"{share:7.3f}" for share in shares))
    print("  (SiLU, Mish, GELU at spread 1: near their lowest point the slope passes 0)")

    share = (sigmoid(10 * z)[1] < 0.01).double().mean()
    text = "spread 10: a share of {} of the sigmoid's z lies beyond ±4.585, as tables of Φ say"
    check("saturated", text, share, above=0.646, below=0.647)


def recover(function: Callable, z: float, steps: int, lr: float = 0.5) -> list[float]:
    """A unit that should answer 1: gradient descent on (f(z) - 1)². Returns z before each step,
    and after the last. z is moved directly, as if it were the unit's bias."""
    # practice: Bring a unit back
    path = [z]
    for _ in range(steps):
        value, slope = function(torch.tensor(path[-1]))

        # d/dz (f(z) - 1)² = 2 (f(z) - 1) · f'(z)
        gradient = 2 * (value - 1) * slope
        path.append(path[-1] - lr * gradient.item())
    return path
    # end practice


def show_recovery(cfg: Config) -> dict[str, list[float]]:
    print("\n[4] A unit at z = -2 should answer 1: z after 1,000 steps, and how long it is below 0")
    paths = {name: recover(function, -2.0, 1000) for name, function in ACTIVATIONS.items()}
    for name, path in paths.items():
        print(f"  {name:<11} z = {path[-1]:6.2f}   below 0 for {sum(z < 0 for z in path):4}")
    text = "one step takes leaky ReLU to -1.9898, but GELU to -2.0891, as on paper"
    first = [paths["leaky_relu"][1], paths["gelu"][1]]
    check_close("by-hand", text, first, [-1.9898, -2.0891], atol=1e-4)
    last = [paths[name][-1] for name in ["elu", "leaky_relu", "relu"]]
    text = "ELU and leaky ReLU end at 1; ReLU is still at -2: its slope is 0, so it is dead"
    check_close("ends", text, last, [1, 1, -2], atol=1e-3)
    text = "the GELU unit has moved away, to {}: left of its lowest point the slope is negative"
    check("away", text, paths["gelu"][-1], below=-3)
    return paths


def dead_share(model: nn.Sequential, x: Tensor) -> Tensor:
    """The share of hidden units whose slope is 0 for every sample of x: nothing can move them."""
    dead = []
    for layer in model:
        if isinstance(layer, Activation):
            _, slope = layer.function(x)  # (B, H)
            dead.append((slope == 0).all(dim=0))
        x = layer(x)
    return torch.cat(dead).float().mean()


def show_dead(cfg: Config) -> dict[tuple[str, str], tuple]:
    print("\n[5] The same points around (5, 5): many units see them all from one side")
    settings = {"centred": (0, cfg.lr), "slow": (5, cfg.lr / 10), "off": (5, cfg.lr)}
    rows = {}
    for setting, (centre, lr) in settings.items():
        print(f"  inputs around {centre}, rate {lr:g}: dead at first, after training, accuracy")
        for name in ["relu", "leaky_relu", "gelu"]:
            rows[name, setting] = before_and_after(cfg, name, centre, lr)
            print(f"    {name:<11}" + "".join(f"{value:7.3f}" for value in rows[name, setting]))

    factor = rows["relu", "off"][0] / max(rows["relu", "centred"][0], 1e-9)
    text = "before the first step {} times as many ReLU units are dead as around 0"
    expect("off-centre", text, factor, at_least=2)
    more = rows["relu", "off"][1] - rows["relu", "slow"][1]
    text = f"training at rate {cfg.lr:g} leaves a share of {{}} more dead than a tenth of this rate"
    expect("dead", text, more, at_least=0.08)
    lowest = min(rows[name, "centred"][2] for name in ["relu", "leaky_relu", "gelu"])
    highest = max(rows[name, "off"][2] for name in ["leaky_relu", "gelu"])
    text = "around 0 the worst of the three gets {} more right than the others, not dead, around 5"
    expect("centred", text, lowest - highest, at_least=0.1)
    return rows


# Pictures and helpers: skip on a first reading


def make_model(name: str, hidden: int, seed: int) -> nn.Sequential:
    """(B, 2) -> (B, 2), two hidden layers. The same seed gives the same first weights."""
    torch.manual_seed(seed)
    first = nn.Linear(2, hidden)
    second = nn.Linear(hidden, hidden)
    last = nn.Linear(hidden, 2)
    return nn.Sequential(first, Activation(name), second, Activation(name), last)


def rings(n: int, centre: float, seed: int) -> tuple[Tensor, Tensor]:
    """Points of a disc (class 0) and of a ring around it (1), shuffled: x (n, 2), y (n,)."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(2, (n,), generator=generator)
    share = torch.rand(n, generator=generator)
    radius = torch.where(y == 0, share.sqrt(), 1.5 + 0.7 * share)
    angle = 2 * math.pi * torch.rand(n, generator=generator)
    return centre + torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1), y


def before_and_after(cfg: Config, name: str, centre: float, lr: float) -> tuple:
    """Dead share before training, after it, and accuracy on the same points: means of the seeds."""
    rows = []
    for seed in range(10 * cfg.seed, 10 * cfg.seed + cfg.seeds):
        x, y = rings(cfg.samples, centre, seed)
        model = make_model(name, cfg.hidden_dim, seed)
        before = dead_share(model, x)
        batches = Batches(x, y, batch_size=64, shuffle=True, seed=seed)
        sgd = torch.optim.SGD(model.parameters(), lr=lr)
        fit(model, batches, sgd, cross_entropy, epochs=cfg.epochs, quiet=True)
        accuracy = (model(x).argmax(dim=1) == y).float().mean().item()
        rows.append([before, dead_share(model, x), accuracy])
    return tuple(torch.tensor(rows).mean(dim=0).tolist())


def draw_functions(cfg: Config) -> None:
    figure, axes = new_figure(2, 5, size=(13, 5.6), sharex=True, sharey=True)
    z = torch.linspace(-4, 4, 401)
    for axis, (name, function) in zip(axes.flat, ACTIVATIONS.items()):
        value, slope = function(z)
        axis.plot(z, value, color=BLUE, label="value")
        axis.plot(z, slope, color=ORANGE, label="slope")
        axis.set(ylim=(-1.2, 2.2), title=name)
    axes[0, 0].legend(loc="upper left")
    save_figure(figure, cfg.out / "functions")


def draw_recovery(cfg: Config, paths: dict[str, list[float]]) -> None:
    figure, axis = new_figure(size=(8, 4.4))
    axis.set_ylim(-8.5, 2.3)
    chosen = {name: paths[name][:400] for name in ["elu", "leaky_relu", "silu", "gelu", "relu"]}
    plot_curves(axis, chosen, "step", "z", start=0)
    axis.set_title("Wanted: from z = -2 to 1. ELU and leaky ReLU arrive")
    save_figure(figure, cfg.out / "recovery")


def run(cfg: Config) -> dict:
    show_functions(cfg)
    show_network(cfg)
    show_saturation(cfg)
    paths = show_recovery(cfg)
    rows = show_dead(cfg)
    draw_functions(cfg)
    draw_recovery(cfg, paths)
    numbers = {"dead": rows["relu", "off"][1], "away": paths["gelu"][-1]}
    for (name, setting), row in rows.items():
        for part, value in zip(["first", "after", "accuracy"], row):
            numbers[f"{name}_{setting}_{part}"] = value
    return numbers


if __name__ == "__main__":
    main(run, Config, __doc__)
