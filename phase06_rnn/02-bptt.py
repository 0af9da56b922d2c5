"""6.2 Backpropagation through time: unroll, then differentiate
沿时间反向传播：先展开，再求导

You will be able to answer
    1. How does a gradient travel back through time?    show_hand      by-hand
    2. Why do the parts of all steps add up?            show_parity    copies, gradients
    3. What does truncation leave out?                  show_window    one-step, detach
    4. What does detach() keep, and what does it cut?   show_cut       kept, cut
    5. What is not learned?  show_echo  once, carried, overfits, depends, long, short, threshold
Predict   short: an input has to be repeated 8 steps later; the accuracy with a window of 5?
Run       python phase06_rnn/02-bptt.py                                    about 20 s
Needs     phase06_rnn/01-rnn-basics
Reference torch.autograd
Notation  B batch  T time steps  D inputs at a step  H hidden units
"""

from dataclasses import dataclass
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.figures import BLUE, GREY, ORANGE, RED, new_figure, save_figure
from common.lessons import load_lesson

basics = load_lesson("phase06_rnn/01-rnn-basics")
RNN, RNNCell = basics.RNN, basics.RNNCell

LAG = 8  # the stream has to be repeated so many steps later


@dataclass
class Config(LessonConfig):
    threads = 1
    hidden_dim: int = param(32, "hidden units")
    stream: int = param(4000, "steps of the stream to learn from", tiny=300, low=200)
    lr: float = param(0.01, "learning rate of Adam")
    runs: int = param(3, "initialisations that each window is tried with", tiny=1)


def unroll(cell: RNNCell, x: Tensor, h0: Tensor) -> Tensor:
    """All states, h0 first: x (B, T, D), h0 (B, H) -> (B, T + 1, H). The way back needs them."""
    states = [h0]
    for x_t in x.unbind(dim=1):
        states.append(cell(x_t, states[-1]))
    return torch.stack(states, dim=1)


def step_back(
    cell: RNNCell, x: Tensor, before: Tensor, after: Tensor, d_after: Tensor
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """One step backwards, from the gradient of the new state to that of all it was made from.

    x: (B, D), the states before and after the step and d_after: (B, H). Returns the step's part
    of the gradient of each weight, the gradient of x, and that of the state before.
    """
    # practice: One step back
    # tanh' = 1 − tanh²
    d_z = d_after * (1 - after**2)
    parts = {
        "weight_ih": d_z.T @ x,  # (H, B) @ (B, D)
        "weight_hh": d_z.T @ before,
        "bias_ih": d_z.sum(dim=0),
        "bias_hh": d_z.sum(dim=0),
    }
    d_x = d_z @ cell.weight_ih
    d_before = d_z @ cell.weight_hh
    return parts, d_x, d_before
    # end practice


@torch.no_grad()
def bptt(
    cell: RNNCell, x: Tensor, states: Tensor, d_outputs: Tensor, window: int | None = None
) -> dict[str, Tensor]:
    """The gradient of a loss for every weight, every input and the first state.

    x: (B, T, D), states: (B, T + 1, H) from `unroll`, d_outputs: (B, T, H), what the loss sends
    directly to the state after each step. With a window, the first `window` steps are one part, the
    next `window` steps another, and no gradient passes from a part to the one before it.
    """
    # practice: Backwards through time
    grads = {name: torch.zeros_like(weight) for name, weight in cell.named_parameters()}
    grads["x"] = torch.empty_like(x)
    d_h = torch.zeros_like(states[:, 0])  # nothing comes from beyond the last step
    for t in reversed(range(x.shape[1])):
        # The state after step t has two readers: the loss, and the next step.
        d_h = d_h + d_outputs[:, t]
        parts, d_x, d_h = step_back(cell, x[:, t], states[:, t], states[:, t + 1], d_h)
        grads["x"][:, t] = d_x
        for name, part in parts.items():
            grads[name] += part  # the same weights at every step
        if window is not None and t > 0 and t % window == 0:
            d_h = torch.zeros_like(d_h)  # step t begins a window: cut
    grads["h0"] = d_h
    return grads
    # end practice


def show_hand(cfg: Config) -> None:
    print("\n[1] Two steps of one unit: both inputs are 1, and the loss is the last state")
    grads = two_steps(window=None)
    ours = [grads["weight_ih"].item(), grads["weight_hh"].item()]
    text = "the gradients by hand: 0.851 for W_ih, 0.282 for W_hh"
    check_close("by-hand", text, ours, [0.851, 0.282], atol=6e-4)


def show_parity(cfg: Config) -> None:
    print("\n[2] Unrolled, it is a deep network with the same weights in every layer")
    cell, x, h0, d_outputs = random_case(cfg.hidden_dim, 12, cfg.seed)
    states = unroll(cell, x, h0)
    ours = bptt(cell, x, states, d_outputs)

    # Twelve layers, each with a copy of its own of W_hh.
    copies = [cell.weight_hh.detach().clone().requires_grad_() for _ in range(12)]
    h = h0
    loss = 0
    for t, copy in enumerate(copies):
        h = torch.tanh(x[:, t] @ cell.weight_ih.T + cell.bias_ih + h @ copy.T + cell.bias_hh)
        loss = loss + (h * d_outputs[:, t]).sum()
    parts = torch.autograd.grad(loss, copies)
    text = "twelve layers with a W_hh each: their gradients add up to ours for the shared one"
    check_close("copies", text, ours["weight_hh"], torch.stack(parts).sum(dim=0))

    theirs = torch.autograd.grad((states[:, 1:] * d_outputs).sum(), [*cell.parameters(), x, h0])
    text = "the gradients of all weights, inputs and the first state are those of torch.autograd"
    check_close("gradients", text, in_order(ours), flat(theirs))


def show_window(cfg: Config) -> None:
    print("\n[3] Truncated: after every `window` steps the way back is cut")
    grads = two_steps(window=1)
    text = "case [1] with a window of one step: 0.611 is left of W_ih's 0.851"
    check_close("one-step", text, grads["weight_ih"].item(), 0.611, atol=6e-4)

    cell, x, h0, d_outputs = random_case(cfg.hidden_dim, 60, cfg.seed)
    ours = bptt(cell, x, unroll(cell, x, h0), d_outputs, window=7)
    h = h0
    loss = 0
    for t in range(60):
        if t > 0 and t % 7 == 0:
            h = h.detach()
        h = cell(x[:, t], h)
        loss = loss + (h * d_outputs[:, t]).sum()
    theirs = torch.autograd.grad(loss, [*cell.parameters(), x, h0])
    text = "60 steps, window 7: torch's gradients with h.detach() after every seventh step"
    check_close("detach", text, in_order(ours), flat(theirs))


def show_cut(cfg: Config) -> None:
    print("\n[4] Ten steps, and h.detach() after the fifth")
    cell, x, h0, _ = random_case(cfg.hidden_dim, 10, cfg.seed)
    whole = unroll(cell, x, h0)[:, -1]
    h = unroll(cell, x[:, :5], h0)[:, -1].detach()
    last = unroll(cell, x[:, 5:], h)[:, -1]
    check_close("kept", "the numbers go on: the last state is the same as without it", last, whole)

    last.sum().backward()
    norms = x.grad.norm(dim=(0, 2)).tolist()  # T numbers
    print("  gradient at each input: " + " ".join(f"{norm:.3f}" for norm in norms))
    text = "the gradient does not come back: nothing reaches the five inputs before it"
    check("cut", text, [norm > 0 for norm in norms] == [False] * 5 + [True] * 5)


class Echo(nn.Module):
    """Which bit came LAG steps ago? Signs (B, T), 1 or -1 -> logits (B, T), and the last state."""

    def __init__(self, hidden_dim: int):
        super().__init__()
        self.rnn = RNN(1, hidden_dim)
        self.head = nn.Linear(hidden_dim, 1)

    def forward(self, signs: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        states, h = self.rnn(signs.unsqueeze(2), h)
        return self.head(states).squeeze(2), h


def echo_loss(logits: Tensor, signs: Tensor) -> Tensor:
    """Mean cross-entropy between logits (B, T) and the signs (B, T) that they should repeat."""
    return F.binary_cross_entropy_with_logits(logits, (signs > 0).float())


def train(model: Echo, stream: Tensor, window: int, lr: float) -> list[float]:
    """Truncated BPTT along a stream of signs (B, steps): one update for every `window` steps.

    Reads LAG steps first, so that there is something to repeat. Returns the loss of each window.
    """
    # practice: Cut the graph, keep the state
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    losses = []
    with torch.no_grad():
        _, h = model(stream[:, :LAG])
    for start in range(LAG, stream.shape[1] - window + 1, window):
        logits, h = model(stream[:, start : start + window], h)
        loss = echo_loss(logits, stream[:, start - LAG : start - LAG + window])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

        # Keep the numbers, drop the graph: the next backward() must not run back into it.
        h = h.detach()
    return losses
    # end practice


def show_echo(cfg: Config) -> tuple[dict[int, list[float]], dict[str, float]]:
    print(f"\n[5] Repeat each bit {LAG} steps later, in 32 streams of {cfg.stream:,} bits")
    generator = torch.Generator().manual_seed(cfg.seed)
    stream = random_signs(32, cfg.stream, generator)
    test = random_signs(32, 500, generator)

    fresh = Echo(cfg.hidden_dim)
    losses = train(fresh, test, window=4, lr=0.0)
    whole = echo_loss(fresh(test)[0][:, LAG:], test[:, :-LAG])
    text = "without learning, windows of 4 give the loss of the stream read as a whole"
    check_close("carried", text, torch.tensor(losses).mean(), whole)

    bias = fresh.head.bias.item()
    train(fresh, torch.ones(1, LAG + 400), window=4, lr=1e-5)
    text = "100 windows that pull alike move the bias by {} steps of Adam: each counts once"
    check("once", text, (fresh.head.bias.item() - bias) / 1e-5, at_least=98, at_most=101)

    adam = torch.optim.Adam(fresh.parameters(), lr=0.01)
    text = "8 pieces of 20 steps can be memorised: loss {}"
    overfits("overfits", text, fresh, test[:8, :20], loss_of, adam, steps=200)
    echoed = fresh(test[:8, :20])[0][:, LAG:] > 0
    wanted = test[:8, : 20 - LAG] > 0
    depends_on_input("depends", "the echo follows the bits", echoed.flatten(), wanted.flatten())

    windows = (5, 8, 12, 20) if cfg.tiny else (2, 5, 8, 9, 12, 20)
    scores = {window: [] for window in windows}
    for number in range(cfg.runs):
        for window in windows:
            torch.manual_seed(100 * cfg.seed + number)
            model = Echo(cfg.hidden_dim)
            train(model, stream, window, cfg.lr)
            scores[window].append(accuracy(model, test))
    print("  window: accuracy on new streams, one number for each initialisation")
    for window, values in scores.items():
        print(f"  {window:6}: " + "  ".join(f"{value:.3f}" for value in values))

    medians = {"short": median(scores[5]), "long": median(scores[20])}
    medians |= {"window_8": median(scores[8]), "window_12": median(scores[12])}
    expect("long", "window 20: the accuracy is {}, the median", medians["long"], at_least=0.95)
    text = "window 5, and four times as many updates: {}; guessing gets 0.5"
    expect("short", text, medians["short"], at_most=0.75)
    gain = medians["window_12"] - medians["window_8"]
    expect("threshold", "window 12 gets {} more than window 8, the lag", gain, at_least=0.3)
    return scores, medians


# Pictures and helpers: skip on a first reading


def two_steps(window: int | None) -> dict[str, Tensor]:
    """The gradients of the case by hand: one unit, both weights 0.5, both inputs 1."""
    cell = RNNCell(1, 1)
    basics.set_weights(cell, weight_ih=[[0.5]], weight_hh=[[0.5]], bias_ih=[0.0], bias_hh=[0.0])
    x = torch.ones(1, 2, 1)
    states = unroll(cell, x, torch.zeros(1, 1))
    return bptt(cell, x, states, d_outputs=torch.tensor([[[0.0], [1.0]]]), window=window)


def random_case(hidden_dim: int, steps: int, seed: int) -> tuple[RNNCell, Tensor, Tensor, Tensor]:
    """A cell, inputs, a first state, and what a loss sends to each state; in float64."""
    torch.manual_seed(seed)
    cell = RNNCell(3, hidden_dim).double()
    x = torch.randn(4, steps, 3, dtype=torch.float64, requires_grad=True)
    h0 = torch.randn(4, hidden_dim, dtype=torch.float64, requires_grad=True)
    return cell, x, h0, torch.randn(4, steps, hidden_dim, dtype=torch.float64)


def flat(tensors: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def in_order(grads: dict[str, Tensor]) -> Tensor:
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "x", "h0")
    return flat([grads[name] for name in names])


def random_signs(n: int, steps: int, generator: torch.Generator) -> Tensor:
    return torch.randint(2, (n, steps), generator=generator).float() * 2 - 1


def loss_of(model: Echo, signs: Tensor) -> Tensor:
    return echo_loss(model(signs)[0][:, LAG:], signs[:, :-LAG])


@torch.no_grad()
def accuracy(model: Echo, signs: Tensor) -> float:
    logits, _ = model(signs)
    return ((logits[:, LAG:] > 0) == (signs[:, :-LAG] > 0)).float().mean().item()


def draw_windows(cfg: Config, scores: dict[int, list[float]]) -> None:
    figure, axis = new_figure(size=(7.6, 4.4))
    for window, values in scores.items():
        axis.plot([window] * len(values), values, "o", color=BLUE, alpha=0.6)
    axis.axvline(LAG + 0.5, color=ORANGE, linestyle="--")
    axis.text(LAG + 0.8, 0.75, "window longer than the lag", color=ORANGE)
    axis.axhline(0.5, color=GREY, linestyle="--")
    axis.text(16, 0.515, "guessing", color=GREY, ha="center")
    axis.set(xlabel="window", xticks=list(scores), ylabel="accuracy on new streams")
    axis.set_title(f"An echo after {LAG} steps: learned only with a window over {LAG}")
    save_figure(figure, cfg.out / "windows")


def draw_unrolled(cfg: Config) -> None:
    """Forward in grey, the gradient on its way back in red, cut between two windows."""
    figure, axis = new_figure(size=(10.4, 4.2))
    forward = {"arrowstyle": "-|>", "color": GREY, "shrinkA": 0, "shrinkB": 0, "linewidth": 2}
    back = forward | {"color": RED}
    box = {"boxstyle": "round,pad=0.6", "facecolor": "white", "edgecolor": BLUE, "linewidth": 2}
    for step in range(1, 7):
        axis.text(step, 0, f"step {step}", ha="center", va="center", color=BLUE, bbox=box)
        axis.annotate("", (step - 0.06, 0.75), (step - 0.06, 0.3), arrowprops=forward)
        axis.annotate("", (step + 0.06, 0.3), (step + 0.06, 0.75), arrowprops=back)
        axis.annotate("", (step, -0.3), (step, -0.75), arrowprops=forward)
        axis.text(step, 0.9, "loss", ha="center", va="center")
        axis.text(step, -0.9, "input", ha="center", va="center")
        axis.annotate("", (step - 0.3, 0.07), (step - 0.7, 0.07), arrowprops=forward)
        if step not in (1, 4):
            axis.annotate("", (step - 0.7, -0.07), (step - 0.3, -0.07), arrowprops=back)
    axis.axvline(3.5, 0.08, 0.92, color=ORANGE, linestyle="--")
    axis.text(3.5, 0.96, "detach()", color=ORANGE, ha="center")
    title = "States go on over the cut, gradients (red) do not come back over it"
    axis.set(xlim=(0.2, 6.6), ylim=(-1.1, 1.1), title=title)
    axis.axis("off")
    save_figure(figure, cfg.out / "unrolled")


def run(cfg: Config) -> dict:
    show_hand(cfg)
    show_parity(cfg)
    show_window(cfg)
    show_cut(cfg)
    scores, medians = show_echo(cfg)
    draw_unrolled(cfg)
    draw_windows(cfg, scores)
    return medians


if __name__ == "__main__":
    main(run, Config, __doc__)
