"""6.5 GRU: the same idea with a quarter fewer weights
GRU：思路相同，参数少四分之一

You will be able to answer
    1. What does a GRU compute?           show_network    by-hand, same
    2. What are its two gates for?        show_gates      forgets, memory
    3. What does it save?                 show_size       faster
    4. What does it learn, and how soon?  show_learning   overfits, depends, adds, sooner
    5. What have its gates learned?       show_gates_at_work    opens, held-z, held-r
Predict   z_marked: a trained GRU keeps 0.8 of its state at an ordinary step; and at a marked one?
Run       python phase06_rnn/05-gru.py                                     about 30 s
Needs     phase06_rnn/03-vanishing-gradient, phase06_rnn/04-lstm
Reference nn.GRU
Notation  B batch  T steps of a sequence  D input width  H hidden width
"""

import copy
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from common.checks import check, check_close, depends_on_input, expect, overfits, timed
from common.config import LessonConfig, main, param
from common.figures import BLUE, GREEN, GREY, ORANGE, new_figure, save_figure
from common.lessons import load_lesson

lesson_6_3 = load_lesson("phase06_rnn/03-vanishing-gradient")
lesson_6_4 = load_lesson("phase06_rnn/04-lstm")


@dataclass
class Config(LessonConfig):
    threads = 1
    hidden_dim: int = param(32, "hidden width H of the networks that train", tiny=16)
    length: int = param(30, "steps T of the adding problem", tiny=8, low=8)
    steps: int = param(400, "training steps, each on new sequences", tiny=80, low=40)
    batch_size: int = param(64, "sequences in a step")
    lr: float = param(0.01, "learning rate", tiny=0.02)
    repeats: int = param(2, "times that each network is trained", tiny=1)


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
        """The same, with the input's part (B, 3H) already computed."""
        # practice: One step
        from_state = h @ self.weight_hh.T + self.bias_hh  # (B, 3H)
        r_input, z_input, n_input = from_input.chunk(3, dim=1)
        r_state, z_state, n_state = from_state.chunk(3, dim=1)

        r = torch.sigmoid(r_input + r_state)
        z = torch.sigmoid(z_input + z_state)

        # The reset gate meets the state's part only, its bias included.
        n = torch.tanh(n_input + r * n_state)

        # Where z keeps the old state, the candidate is not written.
        return z * h + (1 - z) * n
        # end practice


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
            # The input's part needs no state: one product for all steps.
            from_input = x @ cell.weight_ih.T + cell.bias_ih  # (B, T, 3H)
            outputs = []
            for from_input_t in from_input.unbind(dim=1):
                h = cell.step(from_input_t, h)
                outputs.append(h)
            last.append(h)
            x = torch.stack(outputs, dim=1)  # (B, T, H), which the next layer reads
        return x, torch.stack(last)
        # end practice


def show_network(cfg: Config) -> None:
    print("\n[1] One step on paper, then three layers and twelve steps beside torch")
    cell = GRUCell(1, 1)
    with torch.no_grad():
        cell.weight_ih.copy_(torch.tensor([[0.0], [0.0], [1.0]]))
        cell.weight_hh.copy_(torch.tensor([[0.0], [0.0], [2.0]]))
        cell.bias_ih.zero_()
        cell.bias_hh.copy_(torch.tensor([0.0, math.log(3), 0.0]))
    new = cell(torch.tensor([[0.5]]), torch.tensor([[1.0]]))
    print("  x = 0.5, h = 1, r = 1/2, z = 3/4:  n = tanh(0.5 + 1/2 · 2 · 1) = 0.9051")
    text = "one unit: the new state is 3/4 · 1 + 1/4 · 0.9051 = 0.9763, as on paper"
    check_close("by-hand", text, new, [[0.9763]], atol=1e-4)

    model = GRU(3, 5, n_layers=3).double()
    reference = nn.GRU(3, 5, num_layers=3, batch_first=True).double()
    for theirs, ours in zip(reference.parameters(), model.parameters(), strict=True):
        ours.data.copy_(theirs)
    x = torch.randn(4, 12, 3).double()
    h0 = torch.randn(3, 4, 5).double()

    found = []
    for network in (model, reference):
        from_zeros, _ = network(x)
        outputs, last = network(x, h0)
        found.append(torch.cat([from_zeros, outputs, last.transpose(0, 1)], dim=1))
    text = "with torch's weights: the states, from zeros and from a given start, and the last ones"
    check_close("same", text, found[0], found[1])


def show_gates(cfg: Config) -> dict[float, Tensor]:
    print("\n[2] The update gate keeps the state; the reset gate hides it from the candidate")
    cell = GRUCell(5, 5).double()
    x, h = torch.randn(2, 4, 5).double()
    cell.bias_ih.data[:10] = -50.0  # r = 0, z = 0
    text = "r = z = 0: h and -h lead to the same next state, by x alone"
    check_close("forgets", text, cell(x, -h), cell(x, h))

    curves = {bias: fraction_left(bias, cfg.seed) for bias in (0.0, 2.0, 4.0)}
    print("  bias of z        z   left of a change in h after 30 steps   z to the power of 30")
    for bias, fractions in curves.items():
        z = torch.tensor(bias).sigmoid()
        print(f"  {bias:9g}   {z:6.3f}   {fractions[30]:34.2g}   {z**30:20.2g}")
    half_life = (curves[4.0] > 0.5).sum().item()
    text = "an untrained GRU, bias of 4: half is left after {} steps; the formula says 38"
    check("memory", text, half_life, at_least=34, at_most=44)
    return curves


def show_size(cfg: Config) -> dict[str, float]:
    print("\n[3] Three blocks of weights instead of four")
    gru = GRU(64, 256, n_layers=2)
    lstm = lesson_6_4.LSTM(64, 256, n_layers=2)
    ours = sum(parameter.numel() for parameter in gru.parameters())
    theirs = sum(parameter.numel() for parameter in lstm.parameters())
    print(f"  two layers of 256: GRU {ours:,} parameters, LSTM {theirs:,}: ratio {ours / theirs}")

    x = torch.randn(64, cfg.length, 64)
    text = "on 64 sequences our GRU is {} times as fast as our LSTM"
    with torch.no_grad():
        speedup = timed("faster", text, lambda: lstm(x), lambda: gru(x), at_least=1.1, repeats=9)
    return {"share": ours / theirs, "speedup": speedup}


def show_learning(cfg: Config) -> tuple[dict[str, Tensor], dict[str, float], nn.Module]:
    print(f"\n[4] The adding problem over {cfg.length} steps: each network {cfg.repeats} times")
    generator = torch.Generator().manual_seed(cfg.seed)
    batch = lesson_6_3.adding_problem(32, cfg.length, generator)
    model = make_adder("GRU", cfg)
    adam = torch.optim.Adam(model.parameters(), lr=0.02)
    text = "32 sequences are learned by heart: the error falls to {}"
    overfits("overfits", text, model, batch, lesson_6_3.squared_error, adam, steps=150)

    curves = {}
    errors = {}
    learned_at = {}
    print(f"  {'':<16}  under 0.05 at step   error on new sequences")
    for kind in ["GRU", "GRU, half-lives", "LSTM, half-lives"]:
        rows = []
        found = []
        for repeat in range(cfg.repeats):
            # The same number gives all three networks the same sequences.
            settings = replace(cfg, seed=10 * cfg.seed + repeat)
            model = make_adder(kind, settings)
            losses = torch.tensor(lesson_6_3.train(model, cfg.length, settings))
            rows.append(losses.unfold(0, 20, 20).mean(dim=1))  # of 20 losses each
            found.append(lesson_6_3.new_error(model, cfg.length, settings))
            if kind == "GRU":
                gru = model
        curves[kind] = torch.stack(rows)  # (repeats, steps / 20)
        errors[kind] = max(found)
        # one group after the last that is over it
        learned_at[kind] = (20 * (curves[kind] >= 0.05).sum(dim=1) + 20).tolist()
        print(f"  {kind:<16}  {learned_at[kind]!s:>18}   " + "  ".join(f"{e:.4f}" for e in found))

    x, y = lesson_6_3.adding_problem(1000, cfg.length, generator)
    text = "GRU: is the sum over 1? Its accuracy is {}"
    depends_on_input("depends", text, (gru(x) > 1).long(), (y > 1).long())
    expect("adds", "the worst GRU has the error {}; guessing 0.167", errors["GRU"], at_most=0.01)
    ratio = sum(learned_at["GRU"]) / sum(learned_at["LSTM, half-lives"])
    text = "on average a GRU is under 0.05 after {} times as many steps as an LSTM"
    expect("sooner", text, ratio, at_most=0.85)
    return curves, {"gru": errors["GRU"], "lstm": errors["LSTM, half-lives"], "guess": 1 / 6}, gru


def show_gates_at_work(cfg: Config, model: nn.Module) -> tuple[dict[str, float], Tensor]:
    print("\n[5] The gates of the trained GRU, at marked steps and at others")
    generator = torch.Generator().manual_seed(cfg.seed + 1)
    x, y = lesson_6_3.adding_problem(1000, cfg.length, generator)
    is_marked = x[:, :, 1] == 1
    r, z = read_gates(model, x)  # (B, T, H) each
    means = {}
    for name, steps in [("marked", is_marked), ("other", ~is_marked)]:
        means[f"z_{name}"] = z[steps].mean().item()
        means[f"r_{name}"] = r[steps].mean().item()
        print(f"  {name:<6} steps: mean z {z[steps].mean():.2f}, mean r {r[steps].mean():.2f}")
    ratio = (1 - means["z_marked"]) / (1 - means["z_other"])
    text = "1 − z, what is replaced of the state, is {} times as large at marked steps as at others"
    expect("opens", text, ratio, at_least=1.3)

    # Each unit's gate is held at its own mean over the unmarked steps, in a copy of the network.
    held_z = hold_gate(model, 1, z[~is_marked].mean(dim=0))
    held_r = hold_gate(model, 0, r[~is_marked].mean(dim=0))
    with torch.no_grad():
        errors = [(m(x) - y).square().mean().item() for m in (model, held_z, held_r)]
    text = f"hold z still: the error rises from {errors[0]:.4f} to {{}}"
    expect("held-z", text, errors[1], at_least=0.1)
    expect("held-r", "hold r still: to no more than {}", errors[2], at_most=0.08)
    one = torch.stack([z[0].mean(dim=1), r[0].mean(dim=1), is_marked[0]])
    return {**means, "held_z": errors[1], "held_r": errors[2]}, one


# Pictures and helpers: skip on a first reading


@torch.no_grad()
def fraction_left(bias: float, seed: int, steps: int = 50) -> Tensor:
    """Two states a little apart, the same inputs: their distance at each step, first set to 1."""
    torch.manual_seed(seed)
    cell = GRUCell(2, 32).double()
    cell.bias_ih[32:64] += bias
    inputs = torch.randn(steps, 64, 2).double()
    h = torch.randn(64, 32).double() * 0.1
    other = h + 0.001 * torch.randn(64, 32)
    distances = []
    for x in inputs:
        distances.append((other - h).norm())
        h = cell(x, h)
        other = cell(x, other)
    return torch.stack(distances) / distances[0]


@torch.no_grad()
def make_adder(kind: str, cfg: Config) -> nn.Module:
    """The network of 6.3 around a GRU or an LSTM; half-lives from 1 to T set what they keep."""
    torch.manual_seed(cfg.seed)
    if kind == "LSTM, half-lives":
        lstm = lesson_6_4.LSTM(2, cfg.hidden_dim)
        lesson_6_4.set_time_scales(lstm, cfg.length)
        return lesson_6_3.Adder(lstm)

    gru = GRU(2, cfg.hidden_dim)
    if kind == "GRU, half-lives":
        half_lives = 1 + (cfg.length - 1) * torch.rand(cfg.hidden_dim)
        gru.cells[0].bias_ih.chunk(3)[1].copy_(lesson_6_4.forget_bias(half_lives))
        gru.cells[0].bias_hh.chunk(3)[1].zero_()
    return lesson_6_3.Adder(gru)


@torch.no_grad()
def read_gates(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """r and z of a network of one layer at each step: x (B, T, 2) -> (B, T, H) each."""
    cell = model.recurrent.cells[0]
    states, _ = model.recurrent(x)
    before = torch.cat([torch.zeros_like(states[:, :1]), states[:, :-1]], dim=1)
    from_input = x @ cell.weight_ih.T + cell.bias_ih
    from_state = before @ cell.weight_hh.T + cell.bias_hh
    r, z, _ = (from_input + from_state).sigmoid().chunk(3, dim=2)
    return r, z


@torch.no_grad()
def hold_gate(model: nn.Module, block: int, values: Tensor) -> nn.Module:
    """A copy in which gate r (block 0) or z (block 1) has these values (H,) at every step."""
    held = copy.deepcopy(model)
    for parameter in held.recurrent.parameters():
        parameter.chunk(3)[block].zero_()
    held.recurrent.cells[0].bias_ih.chunk(3)[block].copy_(torch.logit(values))
    return held


def draw_memory(cfg: Config, curves: dict[float, Tensor]) -> None:
    figure, axis = new_figure()
    for (bias, fractions), colour in zip(curves.items(), [ORANGE, GREEN, BLUE]):
        z = torch.tensor(bias).sigmoid()
        axis.semilogy(fractions, color=colour)
        axis.semilogy(z ** torch.arange(len(fractions)), "--", color=colour, linewidth=1.3)
        axis.text(18, 2 * fractions[18], f"bias of z: {bias:g}", color=colour, fontweight="bold")
    axis.text(1, 2e-7, "dashed: z to that power", color=GREY)
    axis.set(xlabel="step", ylabel="what is left of a change", ylim=(1e-7, 5), xlim=(0, 40))
    axis.set_title("A bias decides how long an untrained GRU remembers")
    save_figure(figure, cfg.out / "memory")


def draw_learning(cfg: Config, curves: dict[str, Tensor], gates: Tensor) -> None:
    figure, (left, right) = new_figure(1, 2)
    for (kind, rows), colour in zip(curves.items(), [BLUE, GREEN, ORANGE]):
        steps = range(20, 20 * rows.shape[1] + 1, 20)
        lines = left.semilogy(steps, rows.T, color=colour)
        lines[0].set_label(kind)
    left.axhline(1 / 6, color=GREY, linestyle="--", label="always saying 1")
    left.set(xlabel="training step", ylabel="mean square error", title="The GRUs learn sooner")
    left.legend(loc="lower left")

    z, r, is_marked = gates
    places = is_marked.nonzero()
    right.plot(z, color=GREY, label="z")
    right.plot(places, z[places], "o", color=BLUE, label="z at a marked step")
    right.plot(r, color=ORANGE, label="r")
    right.set(xlabel="step of one sequence", ylabel="mean gate", title="Only z falls at markers")
    right.legend(loc="center right")
    save_figure(figure, cfg.out / "learning")


def run(cfg: Config) -> dict:
    show_network(cfg)
    fractions = show_gates(cfg)
    size = show_size(cfg)
    curves, errors, gru = show_learning(cfg)
    gates, one = show_gates_at_work(cfg, gru)
    draw_memory(cfg, fractions)
    draw_learning(cfg, curves, one)
    return {**size, **errors, **gates}


if __name__ == "__main__":
    main(run, Config, __doc__)
