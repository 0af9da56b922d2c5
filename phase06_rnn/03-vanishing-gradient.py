"""6.3 The vanishing gradient: why the past is forgotten
梯度消失：RNN 为什么会忘记过去

You will be able to answer
    1. What does a step back do to a gradient?   show_back    by-hand
    2. At what rate does it shrink or grow?      show_rate    orthogonal, gaussian, tanh, above-one
    3. What tames a gradient that explodes?      show_clip    clipped, kept, cliff
    4. How far back does a new RNN see?          show_reach   reach, farther
    5. What does it then not learn?   show_adding  halves, overfits, depends, short, near, long
Predict   long: an RNN adds two numbers out of 100; guessing has the error 0.167, and the RNN?
Run       python phase06_rnn/03-vanishing-gradient.py                      about 30 s
Needs     phase04_mlp/09-weight-init, phase06_rnn/01-rnn-basics
Reference torch.autograd, nn.utils.clip_grad_norm_
Notation  B batch  T time steps  H hidden units  ρ spectral radius  lag: steps back from the last
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.figures import BLUE, GREEN, GREY, ORANGE, new_figure, plot_curves, save_figure
from common.lessons import load_lesson

fill_orthogonal = load_lesson("phase04_mlp/09-weight-init").fill_orthogonal
RNN = load_lesson("phase06_rnn/01-rnn-basics").RNN


Draw = Callable[[int, int, torch.Generator], tuple[Tensor, Tensor]]
SHORT = 10  # steps of the short sequences, and of the part of a long one that is near its end


@dataclass
class Config(LessonConfig):
    threads = 1
    length: int = param(100, "steps of the long sequences", tiny=16, low=11)
    hidden_dim: int = param(32, "hidden units", tiny=16)
    steps: int = param(600, "training steps, as many as lesson 6.4 needs", tiny=40, low=20)
    batch_size: int = param(64, "sequences in a batch")
    lr: float = param(0.01, "learning rate of Adam")


def gradient_norms(weight: Tensor, slopes: Tensor, gradient: Tensor) -> Tensor:
    """The norm of a loss's gradient at each state of h' = φ(W h + input), going back.

    weight: W (H, H). slopes: φ' at each of T steps (T, H). gradient: at the last state (H,).
    Returns T + 1 norms, the one at the last state first.
    """
    # practice: Back through the steps
    norms = [gradient.norm()]
    for slope in slopes.flip(0):
        # Through φ, which acts on each unit alone, then through W, whose way back is W transposed.
        gradient = weight.T @ (slope * gradient)
        norms.append(gradient.norm())
    return torch.stack(norms)
    # end practice


def show_back(cfg: Config) -> None:
    print("\n[1] One step back: times the slope of each unit, times W transposed")
    weight = torch.tensor([[0.0, 1.0], [0.5, 0.0]])
    slopes = torch.tensor([[1.0, 1.0], [0.5, 1.0]])
    norms = gradient_norms(weight, slopes, torch.tensor([1.0, 0.0]))
    text = "two units, two steps: the norms by hand are 1, 0.5 and 0.25"
    check_close("by-hand", text, norms, torch.tensor([1, 0.5, 0.25]))


def spectral_radius(weight: Tensor) -> Tensor:
    """The largest size of an eigenvalue (lesson 2.2); eigenvalues may be complex."""
    return torch.linalg.eigvals(weight).abs().max()


def show_rate(cfg: Config) -> dict[str, Tensor]:
    print("\n[2] 64 units, 300 steps back: what does a step multiply the norm by?")
    no_tanh = torch.ones(300, 64, dtype=torch.float64)  # slopes of 1
    inputs = 0.7 * torch.randn(300, 64, dtype=torch.float64)
    start = torch.randn(64, dtype=torch.float64)
    start /= start.norm()

    rotation = torch.empty(64, 64, dtype=torch.float64)
    fill_orthogonal(rotation, gain=0.9)
    orthogonal = gradient_norms(rotation, no_tanh, start)
    text = "0.9 times an orthogonal matrix, no tanh: 0.9 at every step, from the first on"
    check_close("orthogonal", text, orthogonal, 0.9 ** torch.arange(301, dtype=torch.float64))

    weight = random_weight(64, radius=0.9)
    gaussian = gradient_norms(weight, no_tanh, start)
    text = "Gaussian with a spectral radius of 0.9, no tanh: in the long run {} a step"
    check("gaussian", text, rate(gaussian), above=0.89, below=0.91)

    with_tanh = gradient_norms(weight, tanh_slopes(weight, inputs), start)
    text = "the same weights with tanh, and inputs of deviation 0.7: {}"
    check("tanh", text, rate(with_tanh), above=0.5, below=0.8)

    large = random_weight(64, radius=1.5)
    exploding = gradient_norms(large, no_tanh, start)
    print(f"  a radius of 1.5, no tanh: {rate(exploding):.2f}")
    large_tanh = gradient_norms(large, tanh_slopes(large, inputs), start)
    weak = gradient_norms(large, tanh_slopes(large, 0.01 * inputs), start)
    print(f"  the same with tanh, and inputs of deviation 0.007: {rate(weak):.2f}")
    text = "the same with tanh: with inputs as strong as these it shrinks too, {} a step"
    check("above-one", text, rate(large_tanh), above=0.8, below=1)
    return {
        "orthogonal, ρ = 0.9": orthogonal,
        "Gaussian, ρ = 0.9": gaussian,
        "Gaussian, ρ = 0.9, tanh": with_tanh,
        "Gaussian, ρ = 1.5": exploding,
        "Gaussian, ρ = 1.5, tanh": large_tanh,
    }


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Shorten all gradients together to a norm of at most max_norm, in place.

    The direction stays, since every gradient is multiplied by the same number. Returns the norm
    before.
    """
    # practice: Clip all gradients together
    gradients = [p.grad for p in parameters if p.grad is not None]
    total = torch.stack([gradient.norm() for gradient in gradients]).norm()
    factor = (max_norm / (total + 1e-6)).clamp(max=1)  # torch adds 1e-6; so do we, to agree
    for gradient in gradients:
        gradient.mul_(factor)
    return total
    # end practice


def show_clip(cfg: Config) -> None:
    print("\n[3] Clipping: the gradient keeps its direction, and its norm has a bound")
    parameters = [nn.Parameter(torch.tensor(0.0)), nn.Parameter(torch.tensor(0.0))]
    parameters[0].grad = torch.tensor(3.0)
    parameters[1].grad = torch.tensor(4.0)
    clip_gradients(parameters, max_norm=1.0)
    clipped = torch.stack([p.grad for p in parameters])
    text = "gradients 3 and 4, together of norm 5: clipped to 1 they are 0.6 and 0.8"
    check_close("clipped", text, clipped, torch.tensor([0.6, 0.8]))
    clip_gradients(parameters, max_norm=3.0)
    kept = torch.stack([p.grad for p in parameters])
    check_close("kept", "with a limit of 3 they stay as they are", kept, clipped)

    print("  one weight, fifty steps: h = w⁵⁰, and the loss is (h − 0.5)²; at w = 1.05 it is 120")
    for max_norm in [1.0, math.inf]:
        w = nn.Parameter(torch.tensor(1.05, dtype=torch.float64))
        (w**50 - 0.5).square().backward()
        clip_gradients([w], max_norm)
        after = w.item() - 0.001 * w.grad.item()
        loss = (after**50 - 0.5) ** 2
        print(f"  a step of rate 0.001, clipped to {max_norm}: w = {after:.3f}, loss {loss:.4g}")
    check("cliff", "not clipped, the step throws the weight from 1.05 to {}", after, below=-1)


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


def near_the_end(n: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The adding problem with both markers in the last SHORT of `length` steps."""
    x, y = adding_problem(n, SHORT, generator)
    before = torch.zeros(n, length - SHORT, 2)
    before[:, :, 0] = torch.rand(n, length - SHORT, generator=generator)
    return torch.cat([before, x], dim=1), y


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
    at_50 = {}
    for name, orthogonal in [("torch's start", False), ("orthogonal start", True)]:
        model = make_rnn(cfg, orthogonal).double()
        curve = reach(model, x.double())
        at_50[name] = curve[50].item()
        radius = spectral_radius(model.recurrent.cells[0].weight_hh)
        shares = "  ".join(f"{curve[lag]:.1e}" for lag in (1, 10, 50, 99))
        print(f"  {name:<16}  ρ = {radius:.2f}, at lag 1, 10, 50, 99: {shares}")
    text = "torch's start: 50 steps back an input counts {} times as much as the last one"
    check("reach", text, at_50["torch's start"], above=0, below=1e-6)
    text = "with an orthogonal start, {} times"
    check("farther", text, at_50["orthogonal start"], above=1e-4, below=1)


def squared_error(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    x, y = batch
    return (model(x) - y).square().mean()


def show_adding(cfg: Config) -> tuple[dict[str, list[float]], dict[str, float]]:
    print(f"\n[5] Add the two marked numbers: {cfg.steps} steps of Adam on new sequences")
    x, _ = adding_problem(1000, SHORT, torch.Generator().manual_seed(cfg.seed))
    by_half = x[:, :, 1].reshape(1000, 2, SHORT // 2).sum(dim=2)
    text = "in each half one number is marked, and each place is in some sequence"
    check("halves", text, (by_half == 1).all() and x[:, :, 1].any(dim=0).all())

    x, y = adding_problem(32, SHORT, torch.Generator().manual_seed(cfg.seed + 1000))
    model = make_rnn(cfg)
    adam = torch.optim.Adam(model.parameters(), lr=0.02)
    text = "32 short sequences can be memorised: the error falls to {}"
    overfits("overfits", text, model, (x, y), squared_error, adam, steps=150)
    predicted = model(x) > 1
    text = "and the answers then follow the numbers: over 1 or not is right in a share of {}"
    depends_on_input("depends", text, predicted.long(), (y > 1).long())

    # The same network, the same number of steps: only the sequences differ.
    tasks = {
        "short": (adding_problem, SHORT),
        "near": (near_the_end, cfg.length),
        "long": (adding_problem, cfg.length),
    }
    curves = {}
    errors = {"guess": 1 / 6}  # always saying 1
    for name, (draw, length) in tasks.items():
        model = make_rnn(cfg)
        curves[name] = train(model, length, cfg, draw)
        errors[name] = new_error(model, length, cfg, draw)
    print("  error on new sequences:  " + "   ".join(f"{k} {e:.4f}" for k, e in errors.items()))

    text = f"{SHORT} steps are learned: the error is {{}}"
    expect("short", text, errors["short"], at_most=0.05)
    text = f"{cfg.length} steps too, if both marked numbers are among the last {SHORT}: {{}}"
    expect("near", text, errors["near"], at_most=0.05)
    text = f"{cfg.length} steps with one of them in the first half are not: {{}}"
    expect("long", text, errors["long"], at_least=0.12)
    return curves, errors


# Pictures and helpers: skip on a first reading


def random_weight(size: int, radius: float) -> Tensor:
    """Gaussian (size, size), scaled to that spectral radius."""
    weight = torch.randn(size, size, dtype=torch.float64)
    return weight * (radius / spectral_radius(weight))


def tanh_slopes(weight: Tensor, inputs: Tensor) -> Tensor:
    """tanh' at each step of h' = tanh(W h + input), from zeros. inputs: (T, H) -> (T, H)."""
    h = torch.zeros(len(weight), dtype=weight.dtype)
    slopes = []
    for x in inputs:
        h = torch.tanh(weight @ h + x)
        slopes.append(1 - h**2)
    return torch.stack(slopes)


def rate(norms: Tensor) -> float:
    """What a step multiplies by, far back: the mean of the steps from lag 100 to 300."""
    return (norms[300] / norms[100]).item() ** (1 / 200)


def make_rnn(cfg: Config, orthogonal: bool = False) -> Adder:
    """The same seed gives the same initial weights, but for W_hh if that is to be orthogonal."""
    torch.manual_seed(cfg.seed)
    model = Adder(RNN(2, cfg.hidden_dim))
    if orthogonal:
        fill_orthogonal(model.recurrent.cells[0].weight_hh)
    return model


def train(model: nn.Module, length: int, cfg: Config, draw: Draw = adding_problem) -> list[float]:
    """The loss of each step: Adam on new sequences, gradients clipped to 1. Used by 6.4 as well."""
    optimizer = torch.optim.Adam(model.parameters(), lr=cfg.lr)
    generator = torch.Generator().manual_seed(cfg.seed)
    losses = []
    for _ in range(cfg.steps):
        loss = squared_error(model, draw(cfg.batch_size, length, generator))
        optimizer.zero_grad()
        loss.backward()
        clip_gradients(model.parameters(), max_norm=1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def new_error(model: nn.Module, length: int, cfg: Config, draw: Draw = adding_problem) -> float:
    """The mean square error on 2,000 sequences that training has not seen."""
    generator = torch.Generator().manual_seed(cfg.seed + 1000)
    return squared_error(model, draw(2000, length, generator)).item()


def draw_curves(cfg: Config, norms: dict[str, Tensor], losses: dict[str, list]) -> None:
    figure, (left, right) = new_figure(1, 2, size=(13, 4.8))
    left.set(yscale="log", ylim=(1e-15, 1e15))
    curves = {f"{name}: × {rate(curve):.2f}": curve[:61] for name, curve in norms.items()}
    plot_curves(
        left, curves, xlabel="lag (steps back)", ylabel="norm of the gradient", start=0, log=True
    )
    left.set(xlim=(0, 135), xticks=[0, 20, 40, 60])  # room for the names
    left.set_title("On average each step multiplies by the same number")

    names = [f"{SHORT} steps", f"{cfg.length}, both numbers near the end", f"{cfg.length} steps"]
    for name, row, colour in zip(names, losses.values(), [BLUE, GREEN, ORANGE]):
        means = torch.tensor(row).unfold(0, 20, 20).mean(dim=1)  # of 20 losses each
        right.plot(20 * torch.arange(1, len(means) + 1), means, color=colour, label=name)
    right.axhline(1 / 6, color=GREY, linestyle="--", label="always saying 1")
    right.set(xlabel="training step", ylabel="error", ylim=(0, 0.4))
    right.set_title(f"{cfg.steps} training steps: not the length, the distance hurts")
    right.legend(loc="upper right")
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
