"""6.3 The vanishing gradient: why the past is forgotten
梯度消失：为什么会忘记过去

You will be able to answer
    1. What does a step back do to a gradient?  show_back    by-hand, autograd
    2. At what rate does it shrink or grow?     show_rate    orthogonal, gaussian, tanh, above-one
    3. What tames a gradient that explodes?     show_clip    clipped, cliff
    4. How far back does a new RNN see?         show_reach   known, reach, farther
    5. What does it not learn?   show_adding  marked, spread, first, overfits, depends, short, long
Predict   long: an RNN adds two numbers out of 100; guessing has the error 0.167, and the RNN?
Run       python phase06_rnn/03-vanishing-gradient.py                      about 30 s
Needs     phase04_mlp/09-weight-init, phase06_rnn/01-rnn-basics
Reference torch.autograd, nn.utils.clip_grad_norm_
Notation  B batch  T time steps  H hidden units  ρ spectral radius
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.figures import BLUE, GREEN, GREY, ORANGE, RED, new_figure, save_figure
from common.lessons import load_lesson

fill_orthogonal = load_lesson("phase04_mlp/09-weight-init").fill_orthogonal
RNN = load_lesson("phase06_rnn/01-rnn-basics").RNN


@dataclass
class Config(LessonConfig):
    threads = 1
    length: int = param(100, "steps of the long sequences", tiny=8, low=4)
    short: int = param(10, "steps of the short ones", tiny=6, low=4)
    hidden_dim: int = param(32, "hidden units", tiny=16)
    steps: int = param(600, "training steps, as many as lesson 6.4 needs", tiny=120, low=20)
    batch_size: int = param(64, "sequences in a batch")
    lr: float = param(0.01, "learning rate of Adam")


def gradient_lengths(weight: Tensor, slopes: Tensor, gradient: Tensor) -> Tensor:
    """How long the gradient of a loss is at each state of h' = φ(W h + input), going back.

    weight: W (H, H). slopes: φ' at each of T steps (T, H). gradient: at the last state (H,).
    Returns T + 1 lengths, the one at the last state first.
    """
    # practice: Back through the steps
    lengths = [gradient.norm()]
    for slope in slopes.flip(0):
        # Through φ, which acts on each unit alone, then through W, whose way back is W transposed.
        gradient = weight.T @ (slope * gradient)
        lengths.append(gradient.norm())
    return torch.stack(lengths)
    # end practice


def show_back(cfg: Config) -> None:
    print("\n[1] One step back: times the slope of each unit, times W transposed")
    weight = torch.tensor([[0.0, 1.0], [0.5, 0.0]])
    slopes = torch.tensor([[1.0, 1.0], [0.5, 1.0]])
    lengths = gradient_lengths(weight, slopes, torch.tensor([1.0, 0.0]))
    text = "two units, two steps: the lengths found on paper are 1, 0.5 and 0.25"
    check_close("by-hand", text, lengths, torch.tensor([1, 0.5, 0.25]))

    weight = random_weight(8, 1.2)
    inputs = torch.randn(30, 8, dtype=torch.float64)
    start = torch.randn(8, dtype=torch.float64)
    states = run_states(weight.requires_grad_(), inputs)
    gradients = torch.autograd.grad(states[-1] @ start, states)
    by_autograd = torch.stack([gradient.norm() for gradient in reversed(gradients)])
    # tanh' = 1 − tanh², and a state is the tanh. The first one is where the way back ends.
    slopes = 1 - torch.stack(states[1:]).square()
    lengths = gradient_lengths(weight, slopes, start)
    check_close("autograd", "30 steps of tanh: the lengths are autograd's", lengths, by_autograd)


def spectral_radius(weight: Tensor) -> Tensor:
    """The largest size of an eigenvalue (lesson 2.2); eigenvalues may be complex."""
    return torch.linalg.eigvals(weight).abs().max()


def show_rate(cfg: Config) -> dict[str, Tensor]:
    print("\n[2] 64 units, 300 steps back: from lag 100 on, what does a step multiply by?")
    linear = torch.ones(300, 64, dtype=torch.float64)  # slopes of 1: no tanh
    start = torch.randn(64, dtype=torch.float64)
    start /= start.norm()
    rotation = torch.empty(64, 64, dtype=torch.float64)
    fill_orthogonal(rotation, gain=0.9)
    inputs = 0.7 * torch.randn(300, 64, dtype=torch.float64)
    curves = {"orthogonal, ρ = 0.9": gradient_lengths(rotation, linear, start)}
    for radius in [0.9, 1.5]:
        weight = random_weight(64, radius)
        curves[f"Gaussian, ρ = {radius}"] = gradient_lengths(weight, linear, start)
        slopes = 1 - torch.stack(run_states(weight, inputs)).square()
        curves[f"ρ = {radius}, tanh"] = gradient_lengths(weight, slopes, start)
    rates = {}
    for name, lengths in curves.items():
        rates[name] = (lengths[300] / lengths[100]).item() ** (1 / 200)
        print(f"  {name:<20} {rates[name]:.3f} a step; in the end its length is {lengths[-1]:.1e}")

    lags = torch.arange(301, dtype=torch.float64)
    text = "orthogonal times 0.9, no tanh: from the first step on it is 0.9 to the lag"
    check_close("orthogonal", text, curves["orthogonal, ρ = 0.9"], 0.9**lags)
    text = "Gaussian with a spectral radius of 0.9, no tanh: in the long run {} a step"
    check("gaussian", text, rates["Gaussian, ρ = 0.9"], above=0.89, below=0.91)
    text = "tanh shrinks it further: {} a step for the same weights"
    check("tanh", text, rates["ρ = 0.9, tanh"], above=0.5, below=0.8)
    text = "even a radius of 1.5 may then forget: {} a step"
    check("above-one", text, rates["ρ = 1.5, tanh"], above=0.8, below=1)
    return curves


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Shorten all gradients together to at most max_norm, in place; returns the length before.

    The direction stays, since every gradient is multiplied by the same number.
    """
    # practice: Clip all gradients together
    gradients = [p.grad for p in parameters if p.grad is not None]
    total = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()

    # The small number, torch's too, keeps a gradient of zeros from being divided by 0.
    factor = (max_norm / (total + 1e-6)).clamp(max=1)
    for gradient in gradients:
        gradient *= factor
    return total
    # end practice


def show_clip(cfg: Config) -> None:
    print("\n[3] Clipping: the direction of the gradient, but never a longer step than this")
    values = torch.randn(8, dtype=torch.float64)
    found = []
    for clip in [clip_gradients, nn.utils.clip_grad_norm_]:
        rows = []
        for max_norm in [100.0, 1.0]:
            parameters = [nn.Parameter(torch.zeros_like(part)) for part in values.split([3, 4, 1])]
            parameters[0].grad = values[:3].clone()
            parameters[1].grad = values[3:7].clone()  # the third has none
            before = clip(parameters, max_norm)
            rows.append([before, *parameters[0].grad, *parameters[1].grad])
        found.append(torch.tensor(rows))
    text = f"two gradients, together {before:.2f} long, clipped to 100 and to 1: as torch does it"
    check_close("clipped", text, found[0], found[1])

    print("  one weight, fifty steps: h = w⁵⁰; at w = 1.05 the loss (h − 0.5)² is 120")
    losses = []
    for max_norm in [math.inf, 1.0]:
        w = nn.Parameter(torch.tensor(1.05, dtype=torch.float64))
        (w**50 - 0.5).square().backward()
        clip_gradients([w], max_norm)
        after = w.item() - 0.001 * w.grad.item()
        losses.append((after**50 - 0.5) ** 2)
    print(f"  a step of rate 0.001 lowers it to {losses[1]:.0f}, if the gradient is clipped to 1")
    check("cliff", "unclipped, the step raises it to {}", losses[0], above=1e6)


def adding_problem(n: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Add the two marked numbers (Hochreiter and Schmidhuber 1997): x (n, length, 2), y (n,).

    At each step stand a number from 0 to 1 and a marker, 1 at two steps and 0 elsewhere. One
    marker lies in the first half, one in the second. Always saying 1 has the mean square error 1/6.
    """
    # practice: Sequences with two marked numbers
    numbers = torch.rand(n, length, generator=generator)
    first = torch.randint(length // 2, (n, 1), generator=generator)
    second = torch.randint(length // 2, length, (n, 1), generator=generator)
    markers = torch.zeros(n, length)
    markers.scatter_(1, first, 1.0)
    markers.scatter_(1, second, 1.0)
    return torch.stack([numbers, markers], dim=2), (numbers * markers).sum(dim=1)
    # end practice


class Adder(nn.Module):
    """A recurrent network reads the sequence; a linear layer says the sum: (B, T, 2) -> (B,)."""

    def __init__(self, recurrent: nn.Module):
        super().__init__()
        self.recurrent = recurrent
        self.head = nn.Linear(recurrent.hidden_dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        outputs, _ = self.recurrent(x)  # (B, T, H)
        return self.head(outputs[:, -1]).squeeze(1)


def reach(model: nn.Module, x: Tensor) -> Tensor:
    """How much the answer moves with the input at each lag, as a share of lag 0: (T,)."""
    x = x.clone().requires_grad_()
    model(x).sum().backward()
    by_step = x.grad.norm(dim=2).mean(dim=0)  # a mean over the sequences
    return by_step.flip(0) / by_step[-1]


def show_reach(cfg: Config) -> None:
    print("\n[4] A new RNN, 100 steps: how much does the answer depend on an input far back?")
    x, _ = adding_problem(64, 100, torch.Generator().manual_seed(cfg.seed))
    fading = 0.5 ** torch.arange(99, -1, -1)
    curves = {}
    for name, orthogonal in [("torch's start", False), ("orthogonal start", True)]:
        model = make_rnn(cfg, orthogonal)
        curves[name] = reach(model, x)
        radius = spectral_radius(model.recurrent.cells[0].weight_hh)
        shares = "  ".join(f"{curves[name][lag]:.1e}" for lag in (1, 10, 50, 99))
        print(f"  {name:<16}  ρ = {radius:.2f}, at lag 1, 10, 50, 99: {shares}")
    known = reach(lambda x: (x.sum(dim=2) * fading).sum(dim=1), x)
    text = "if each step halves what came before, the measure is 1/2 to the number of steps back"
    check_close("known", text, known, fading.flip(0))
    default, orthogonal = (curve[50].item() for curve in curves.values())
    text = "50 steps back an input counts {} times as much as the last one"
    check("reach", text, default, above=0, below=1e-6)
    text = "an orthogonal start makes that {} times as much"
    check("farther", text, orthogonal / default, at_least=1000)


def squared_error(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    x, y = batch
    return (model(x) - y).square().mean()


def show_adding(cfg: Config) -> tuple[dict[str, list[float]], dict[str, float]]:
    print(f"\n[5] Add the two marked numbers: {cfg.steps} steps of Adam on new sequences")
    x, y = adding_problem(2000, cfg.short, torch.Generator().manual_seed(cfg.seed + 1000))
    first_half = x[:, : cfg.short // 2, 1].sum(dim=1)
    markers = torch.stack([first_half, x[:, :, 1].sum(dim=1), y])
    text = "one marker stands in each half, two in all, and y is the sum of their numbers"
    wanted = torch.stack([torch.ones(2000), torch.full((2000,), 2.0), x.prod(dim=2).sum(dim=1)])
    check_close("marked", text, markers, wanted)
    shares = x[:, :, 1].mean(dim=0) * cfg.short / 2
    text = "and every step is marked in turn: the rarest {} times as often as it should"
    check("spread", text, shares.min(), above=0.7, at_most=1)

    model = make_rnn(cfg)
    batch = (x[:32], y[:32])
    text = "before training it is {}; saying 0 would cost 7/6 on average"
    check("first", text, squared_error(model, batch).item(), above=0.5, below=1.9)
    adam = torch.optim.Adam(model.parameters(), lr=0.02)
    text = "32 short sequences are learned by heart: the error falls to {}"
    overfits("overfits", text, model, batch, squared_error, adam, steps=150)

    models = {"short": make_rnn(cfg), "long": make_rnn(cfg)}
    models["orthogonal"] = make_rnn(cfg, orthogonal=True)
    curves = {}
    errors = {"guess": 1 / 6}  # always saying 1
    for name, model in models.items():
        length = cfg.short if name == "short" else cfg.length
        curves[name] = train(model, length, cfg)
        errors[name] = new_error(model, length, cfg)
    print("  error on new sequences:  " + "   ".join(f"{k} {e:.4f}" for k, e in errors.items()))

    predicted = models["short"](x) > 1
    text = "whether a short sum is over 1 is said rightly in a share of {}"
    depends_on_input("depends", text, predicted.long(), (y > 1).long())
    text = f"{cfg.short} steps are learned: the error is {{}}"
    expect("short", text, errors["short"], at_most=0.05)
    text = f"{cfg.length} steps are not, by the same network: {{}}"
    expect("long", text, errors["long"], at_least=0.12)
    return curves, errors


# Pictures and helpers: skip on a first reading


def random_weight(size: int, radius: float) -> Tensor:
    """Gaussian (size, size), scaled to that spectral radius."""
    weight = torch.randn(size, size, dtype=torch.float64)
    return weight * (radius / spectral_radius(weight))


def run_states(weight: Tensor, inputs: Tensor) -> list[Tensor]:
    """The states h' = tanh(W h + input), from zeros. inputs: (T, H) -> T states (H,)."""
    h = torch.zeros(len(weight), dtype=weight.dtype)
    states = []
    for x in inputs:
        h = torch.tanh(weight @ h + x)
        states.append(h)
    return states


def make_rnn(cfg: Config, orthogonal: bool = False) -> Adder:
    """The same seed gives the same first weights, but for W_hh if that is to be orthogonal."""
    torch.manual_seed(cfg.seed)
    model = Adder(RNN(2, cfg.hidden_dim))
    if orthogonal:
        fill_orthogonal(model.recurrent.cells[0].weight_hh)
    return model


def train(model: nn.Module, length: int, cfg: Config) -> list[float]:
    """The loss of each step: Adam on new sequences, gradients clipped to 1. Used by 6.4 as well."""
    optimizer = torch.optim.Adam(model.parameters(), lr=cfg.lr)
    generator = torch.Generator().manual_seed(cfg.seed)
    losses = []
    for _ in range(cfg.steps):
        loss = squared_error(model, adding_problem(cfg.batch_size, length, generator))
        optimizer.zero_grad()
        loss.backward()
        clip_gradients(model.parameters(), max_norm=1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def new_error(model: nn.Module, length: int, cfg: Config) -> float:
    """The mean square error on 2,000 sequences that training has not seen."""
    generator = torch.Generator().manual_seed(cfg.seed + 1000)
    return squared_error(model, adding_problem(2000, length, generator)).item()


def draw_curves(cfg: Config, lengths: dict[str, Tensor], losses: dict[str, list]) -> None:
    figure, (left, right) = new_figure(1, 2, size=(13, 4.8))
    for (name, curve), colour in zip(lengths.items(), [BLUE, ORANGE, ORANGE, RED, RED]):
        left.semilogy(curve[:151], "--" if "tanh" in name else "-", color=colour, label=name)
    left.set(xlabel="steps back", ylabel="length of the gradient", ylim=(1e-30, 1e44))
    left.set_title("Far back, each step multiplies by the same number")
    left.legend(loc="upper left", ncols=2)

    names = [f"{cfg.short} steps", f"{cfg.length} steps", f"{cfg.length} steps, orthogonal start"]
    for name, row, colour in zip(names, losses.values(), [BLUE, ORANGE, GREEN]):
        means = torch.tensor(row).unfold(0, 20, 20).mean(dim=1)  # of 20 losses each
        right.plot(20 * torch.arange(1, len(means) + 1), means, color=colour, label=name)
    right.axhline(1 / 6, color=GREY, linestyle="--", label="always saying 1")
    right.set(xlabel="training step", ylabel="error", ylim=(0, 0.4))
    right.set_title(f"Sequences of {cfg.short} steps are learned, of {cfg.length} not")
    right.legend(loc="upper right", ncols=2)
    save_figure(figure, cfg.out / "gradients")


def run(cfg: Config) -> dict:
    show_back(cfg)
    curves = show_rate(cfg)
    show_clip(cfg)
    show_reach(cfg)
    losses, errors = show_adding(cfg)
    draw_curves(cfg, curves, losses)
    return errors


if __name__ == "__main__":
    main(run, Config, __doc__)
