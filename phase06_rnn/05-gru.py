"""6.5 GRU: the same idea with a quarter fewer weights
GRU：同样的想法，少四分之一参数

You will be able to answer
    1. What does a GRU compute in one step?        show_step      by-hand
    2. What are its two gates for?                 show_gates     keeps, forgets, memory
    3. Is it torch's GRU, layer on layer?          show_layers    layers, last, gradients
    4. What does it save against an LSTM?          show_size      three-quarters, faster
    5. What does it learn?  show_learning  first-loss, overfits, depends, adds, sooner, moves
Predict   speedup: a GRU has 3/4 of an LSTM's weights. How many times faster is its step?
Run       python phase06_rnn/05-gru.py                                     about 30 s
Needs     phase06_rnn/03-vanishing-gradient, phase06_rnn/04-lstm
Reference nn.GRU
Notation  B batch  T steps of a sequence  D input width  H hidden width
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from common.checks import check, check_close, depends_on_input, expect, overfits, timed
from common.config import LessonConfig, main, param
from common.figures import BLUE, GREEN, GREY, ORANGE, new_figure, save_figure
from common.lessons import load_lesson

vanishing = load_lesson("phase06_rnn/03-vanishing-gradient")
lstm_lesson = load_lesson("phase06_rnn/04-lstm")


@dataclass
class Config(LessonConfig):
    threads = 1
    hidden_dim: int = param(32, "hidden width H of the networks that train", tiny=16)
    length: int = param(30, "steps T of the adding problem", tiny=8, low=8)
    steps: int = param(400, "training steps, each on new sequences", tiny=80, low=40)
    batch_size: int = param(64, "sequences in a step")
    lr: float = param(0.01, "learning rate", tiny=0.02)
    pairs: int = param(3, "times that a GRU and an LSTM are trained", tiny=1)


class GRUCell(nn.Module):
    """One step of a gated recurrent unit (Cho et al. 2014), the variant that nn.GRUCell computes.

    Three blocks of H rows in each weight: reset gate r, update gate z, candidate n.
    """

    def __init__(self, input_dim: int, hidden_dim: int):
        super().__init__()
        self.weight_ih = nn.Parameter(torch.empty(3 * hidden_dim, input_dim))
        self.weight_hh = nn.Parameter(torch.empty(3 * hidden_dim, hidden_dim))
        self.bias_ih = nn.Parameter(torch.empty(3 * hidden_dim))
        self.bias_hh = nn.Parameter(torch.empty(3 * hidden_dim))
        bound = 1 / math.sqrt(hidden_dim)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """x: (B, D), the state so far h: (B, H) -> the next state (B, H)."""
        return self.step(x @ self.weight_ih.T + self.bias_ih, h)

    def step(self, from_input: Tensor, h: Tensor) -> Tensor:
        """The same, with the input's share (B, 3H) already computed."""
        # practice: One step
        from_state = h @ self.weight_hh.T + self.bias_hh  # (B, 3H)
        r_input, z_input, n_input = from_input.chunk(3, dim=1)
        r_state, z_state, n_state = from_state.chunk(3, dim=1)

        r = torch.sigmoid(r_input + r_state)
        z = torch.sigmoid(z_input + z_state)

        # The reset gate meets the state's share only, its bias included.
        n = torch.tanh(n_input + r * n_state)

        # What z keeps of the old state, the candidate does not get.
        return z * h + (1 - z) * n
        # end practice


def show_step(cfg: Config) -> None:
    print("\n[1] Two gates, a candidate, and a mean of old state and candidate")
    cell = GRUCell(1, 1)
    with torch.no_grad():
        cell.weight_ih.copy_(torch.tensor([[0.0], [0.0], [1.0]]))
        cell.weight_hh.copy_(torch.tensor([[0.0], [0.0], [2.0]]))
        cell.bias_ih.zero_()
        cell.bias_hh.copy_(torch.tensor([0.0, math.log(3), 0.0]))
    new = cell(torch.tensor([[0.5]]), torch.tensor([[1.0]]))
    print("  x = 0.5, h = 1, r = 1/2, z = 3/4:  n = tanh(0.5 + 1/2 · 2 · 1) = 0.9051")
    text = "the new state is 3/4 · 1 + 1/4 · 0.9051 = 0.9763, as on paper"
    check_close("by-hand", text, new, [[0.9763]], atol=1e-4)


def show_gates(cfg: Config) -> dict[float, list[float]]:
    print("\n[2] The update gate keeps the state; the reset gate hides it from the candidate")
    cell = GRUCell(5, 5).double()
    x, h = torch.randn(2, 4, 5).double()
    with torch.no_grad():
        cell.bias_ih[5:10] = 50.0  # z = 1
        later = h
        for _ in range(1000):
            later = cell(torch.randn(4, 5).double(), later)
        check_close("keeps", "z = 1: a state outlives 1,000 steps unchanged", later, h)

        cell.bias_ih[:10] = -50.0  # r = 0, z = 0
        text = "r = z = 0: h and -h lead to the same next state, by x alone"
        check_close("forgets", text, cell(x, -h), cell(x, h))

    shares = {bias: shares_left(bias, cfg.seed) for bias in (0.0, 2.0, 4.0)}
    print("  bias of z   sigmoid   what is left of a change in h after 10 and 30 steps")
    for bias, share in shares.items():
        z = torch.tensor(bias).sigmoid()
        print(f"  {bias:9g}   {z:7.3f}   {share[10]:22.2g} {share[30]:9.2g}")
    factor = shares[4.0][30] / shares[0.0][30]
    text = "a fresh GRU: after 30 steps a bias of 4 has left {} times as much as a bias of 0"
    check("memory", text, factor, above=1e4)
    return shares


class GRU(nn.Module):
    """Cells above each other, each reading a whole sequence; batch first."""

    def __init__(self, input_dim: int, hidden_dim: int, n_layers: int = 1):
        super().__init__()
        self.hidden_dim = hidden_dim
        input_dims = [input_dim] + [hidden_dim] * (n_layers - 1)
        self.cells = nn.ModuleList(GRUCell(dim, hidden_dim) for dim in input_dims)

    def forward(self, x: Tensor, h0: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x: (B, T, D) -> the top layer's states (B, T, H), and each layer's last (layers, B, H).

        h0: (layers, B, H), the states to begin with; zeros if there are none.
        """
        # practice: Layers over all steps
        if h0 is None:
            h0 = x.new_zeros(len(self.cells), len(x), self.hidden_dim)

        last = []
        for cell, h in zip(self.cells, h0):
            # The input's share needs no state: one product for all steps.
            from_input = x @ cell.weight_ih.T + cell.bias_ih  # (B, T, 3H)
            outputs = []
            for from_input_t in from_input.unbind(dim=1):
                h = cell.step(from_input_t, h)
                outputs.append(h)
            last.append(h)
            x = torch.stack(outputs, dim=1)  # (B, T, H), which the next layer reads
        return x, torch.stack(last)
        # end practice


def show_layers(cfg: Config) -> None:
    print("\n[3] Three layers over twelve steps, beside torch with the same weights")
    model = GRU(3, 5, n_layers=3).double()
    reference = nn.GRU(3, 5, num_layers=3, batch_first=True).double()
    with torch.no_grad():
        for theirs, ours in zip(reference.parameters(), model.parameters(), strict=True):
            theirs.copy_(ours)
    x = torch.randn(4, 12, 3).double().requires_grad_()
    h0 = torch.randn(3, 4, 5).double().requires_grad_()

    states = []
    ends = []
    gradients = []
    for each in (model, reference):
        outputs, last = each(x, h0)
        from_zero, _ = each(x)
        states.append(torch.stack([outputs, from_zero]))
        ends.append(last)
        loss = outputs.square().sum() + last.sum()
        gradients.append(flat(torch.autograd.grad(loss, [x, h0, *each.parameters()])))
    check_close("layers", "the top layer's states, from a given start and from zeros", *states)
    check_close("last", "the last states of all three layers", *ends)
    text = "the gradients of inputs, start and all 12 parameters"
    check_close("gradients", text, *gradients)


def show_size(cfg: Config) -> dict[str, float]:
    print("\n[4] Three blocks of weights instead of four")
    gru = GRU(64, 256, n_layers=2)
    lstm = lstm_lesson.LSTM(64, 256, n_layers=2)
    ours, theirs = len(flat(gru.parameters())), len(flat(lstm.parameters()))
    print(f"  two layers of 256: GRU {ours:,} parameters, LSTM {theirs:,}")
    text = "the GRU has a share of {} of them"
    check("three-quarters", text, ours / theirs, at_least=0.75, at_most=0.75)

    x = torch.randn(64, cfg.length, 64)
    text = "on 64 sequences the GRU is {} times faster; by the weights alone it would be 1.33"
    with torch.no_grad():
        speedup = timed("faster", text, lambda: lstm(x), lambda: gru(x), at_least=1.02, repeats=9)
    return {"share": ours / theirs, "speedup": speedup}


def show_learning(cfg: Config) -> tuple[dict[str, Tensor], dict[str, float], Tensor]:
    print(f"\n[5] The adding problem over {cfg.length} steps: {cfg.pairs} times a GRU and an LSTM")
    generator = torch.Generator().manual_seed(cfg.seed)
    x, y = vanishing.adding_problem(1000, cfg.length, generator)
    fresh = make_adder("GRU", cfg)
    first = vanishing.squared_error(fresh, (x, y)).item()
    text = "the first error is {}; saying 0 would cost 7/6 on average"
    check("first-loss", text, first, above=1 / 6, below=3)
    adam = torch.optim.Adam(fresh.parameters(), lr=0.02)
    batch = (x[:32], y[:32])
    text = "32 sequences are learned by heart: the error falls to {}"
    overfits("overfits", text, fresh, batch, vanishing.squared_error, adam, steps=150)

    losses = {"GRU": [], "LSTM": []}
    errors = {"GRU": [], "LSTM": []}
    for pair in range(cfg.pairs):
        # Both of a pair see the same sequences.
        settings = replace(cfg, seed=10 * cfg.seed + pair)
        for kind in losses:
            model = make_adder(kind, settings)
            losses[kind].append(vanishing.train(model, cfg.length, settings))
            errors[kind].append(vanishing.new_error(model, cfg.length, settings))
            if kind == "GRU":
                gru = model
    with torch.no_grad():
        answers = gru(x)
        states, _ = gru.recurrent(x)
    text = "whether a sum is over 1 is said rightly in a share of {}"
    depends_on_input("depends", text, answers > 1, y > 1)

    curves = {kind: torch.tensor(rows) for kind, rows in losses.items()}  # (pairs, steps)
    half = cfg.steps // 2
    halfway = {kind: rows[:, half - 20 : half].mean() for kind, rows in curves.items()}
    print("  mean square error, of 20 steps halfway and on new sequences at the end")
    for kind, found in errors.items():
        print(f"  {kind:<5} {halfway[kind]:.4f}   " + "   ".join(f"{e:.4f}" for e in found))
    text = "the worst GRU adds with an error of {}; always saying 1 costs 0.167"
    expect("adds", text, max(errors["GRU"]), at_most=0.01)
    text = "halfway the GRUs' error is a share of {} of the LSTMs'"
    expect("sooner", text, halfway["GRU"] / halfway["LSTM"], at_most=0.4)

    # How far the state goes at each step but the first three, in which it leaves zero.
    moves = (states[:, 3:] - states[:, 2:-1]).norm(dim=2)  # (B, T - 3)
    marked = x[:, 3:, 1] == 1
    ratio = moves[marked].mean() / moves[~marked].mean()
    text = "at a marked step the trained GRU's state moves {} times as far as at others"
    expect("moves", text, ratio, at_least=3)
    last = {"gru": max(errors["GRU"]), "lstm": max(errors["LSTM"]), "guess": 1 / 6}
    return curves, last | {"moves": ratio.item()}, torch.stack([moves[0], marked[0]])


# Pictures and helpers: skip on a first reading


def shares_left(bias: float, seed: int, steps: int = 50) -> list[float]:
    """Two states a little apart, the same inputs: their distance at each step, first set to 1."""
    torch.manual_seed(seed)
    cell = GRUCell(2, 32).double()
    inputs = torch.randn(steps, 64, 2).double()
    h = torch.randn(64, 32).double() * 0.1
    other = h + 0.001 * torch.randn(64, 32)
    distances = []
    with torch.no_grad():
        cell.bias_ih[32:64] += bias
        for x in inputs:
            distances.append((other - h).norm().item())
            h = cell(x, h)
            other = cell(x, other)
    return [distance / distances[0] for distance in distances]


def make_adder(kind: str, cfg: Config) -> nn.Module:
    """The network of 6.3 around a GRU, or around an LSTM with the time scales of 6.4."""
    torch.manual_seed(cfg.seed)
    if kind == "GRU":
        return vanishing.Adder(GRU(2, cfg.hidden_dim))
    lstm = lstm_lesson.LSTM(2, cfg.hidden_dim)
    lstm_lesson.set_time_scales(lstm, cfg.length)
    return vanishing.Adder(lstm)


def flat(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def draw_memory(cfg: Config, shares: dict[float, list[float]]) -> None:
    figure, axis = new_figure()
    for (bias, share), colour in zip(shares.items(), [ORANGE, GREEN, BLUE]):
        axis.semilogy(share, color=colour)
        axis.text(18, 2 * share[18], f"bias of z: {bias:g}", color=colour, fontweight="bold")
    axis.set(xlabel="step", ylabel="what is left of a change", ylim=(1e-7, 5), xlim=(0, 40))
    axis.set_title("A bias decides how long a fresh GRU remembers")
    save_figure(figure, cfg.out / "memory")


def draw_learning(cfg: Config, curves: dict[str, Tensor], moves: Tensor) -> None:
    figure, (left, right) = new_figure(1, 2)
    for (kind, rows), colour in zip(curves.items(), [BLUE, ORANGE]):
        means = rows.unfold(1, 20, 20).mean(dim=2)  # of 20 losses each: (pairs, steps / 20)
        steps = range(20, 20 * means.shape[1] + 1, 20)
        lines = left.semilogy(steps, means.T, color=colour)
        lines[0].set_label(kind)
    left.axhline(1 / 6, color=GREY, linestyle="--", label="always saying 1")
    left.set(xlabel="training step", ylabel="mean square error", title="The GRUs learn sooner")
    left.legend(loc="lower left")

    distances, marked = moves
    places = range(4, cfg.length + 1)
    right.bar(places, distances, color=[BLUE if mark else GREY for mark in marked])
    right.set(xlabel="step of one sequence", ylabel="how far the state moves")
    right.set_title("The trained state moves at markers (blue)")
    save_figure(figure, cfg.out / "learning")


def run(cfg: Config) -> dict:
    show_step(cfg)
    shares = show_gates(cfg)
    show_layers(cfg)
    size = show_size(cfg)
    curves, errors, moves = show_learning(cfg)
    draw_memory(cfg, shares)
    draw_learning(cfg, curves, moves)
    return {**size, **errors}


if __name__ == "__main__":
    main(run, Config, __doc__)
