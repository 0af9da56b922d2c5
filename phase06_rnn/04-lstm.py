"""6.4 LSTM: a memory with three gates
LSTM：由三个门控制的记忆

You will be able to answer
    1. What does an LSTM compute?          show_network    by-hand, same
    2. Why can its gradient go far back?   show_path       product, half
    3. How far back does a new LSTM see?   show_reach      default, scales
    4. What does it learn?                 show_adding     overfits, depends, rnn, lstm, sooner
    5. What changes when it learns?        show_selection  plateau, marked, unmarked
Predict   lstm: adding two of 100 numbers, a guess errs by 0.167, an RNN too; an LSTM set to keep?
Run       python phase06_rnn/04-lstm.py                       about a minute and a half
Needs     phase06_rnn/01-rnn-basics, phase06_rnn/03-vanishing-gradient
Reference nn.LSTM, nn.LSTMCell
Notation  B batch  T time steps  D inputs at a step  H hidden units
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.figures import BLUE, GREEN, GREY, ORANGE, new_figure, save_figure
from common.lessons import load_lesson

RNN = load_lesson("phase06_rnn/01-rnn-basics").RNN
lesson_6_3 = load_lesson("phase06_rnn/03-vanishing-gradient")

# h, the output of the units, and c, their memory
State = tuple[Tensor, Tensor]


@dataclass
class Config(LessonConfig):
    threads = 1
    length: int = param(100, "steps of a sequence", tiny=8, low=4)
    hidden_dim: int = param(32, "hidden units", tiny=16)
    steps: int = param(600, "training steps", tiny=150, low=20)
    plateau: int = param(150, "a training step at which the error does not fall yet", tiny=10)
    batch_size: int = param(64, "sequences in a batch")
    lr: float = param(0.01, "learning rate of Adam", tiny=0.02)


class LSTMCell(nn.Module):
    """One step of an LSTM (Hochreiter and Schmidhuber 1997, forget gate by Gers et al. 2000).

    Parameters have the names, the shapes and the first values of nn.LSTMCell: in each stand four
    blocks of H rows, for the input gate i, the forget gate f, the candidate g, the output gate o.
    """

    def __init__(self, input_dim: int, hidden_dim: int):
        super().__init__()
        self.weight_ih = nn.Parameter(torch.empty(4 * hidden_dim, input_dim))
        self.weight_hh = nn.Parameter(torch.empty(4 * hidden_dim, hidden_dim))
        self.bias_ih = nn.Parameter(torch.empty(4 * hidden_dim))
        self.bias_hh = nn.Parameter(torch.empty(4 * hidden_dim))
        bound = 1 / math.sqrt(hidden_dim)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, x: Tensor, state: State) -> State:
        """x: (B, D), the state so far: h and c, each (B, H) -> the next h and c."""
        return self.step(x @ self.weight_ih.T + self.bias_ih, state)

    def step(self, from_input: Tensor, state: State) -> State:
        """The same, when the input's part of the pre-activations (B, 4H) is already computed."""
        # practice: One step
        h, c = state
        pre_activations = from_input + h @ self.weight_hh.T + self.bias_hh  # (B, 4H)
        i, f, g, o = pre_activations.chunk(4, dim=1)  # (B, H) each
        i = torch.sigmoid(i)
        f = torch.sigmoid(f)
        g = torch.tanh(g)
        o = torch.sigmoid(o)

        # The old memory is multiplied and added to, but never goes through a matrix or a tanh.
        c = f * c + i * g
        h = o * torch.tanh(c)
        return h, c
        # end practice


class LSTM(nn.Module):
    """Cells above each other, each reading a whole sequence; batch first."""

    def __init__(self, input_dim: int, hidden_dim: int, n_layers: int = 1):
        super().__init__()
        self.hidden_dim = hidden_dim
        input_dims = [input_dim] + [hidden_dim] * (n_layers - 1)
        self.cells = nn.ModuleList(LSTMCell(dim, hidden_dim) for dim in input_dims)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """x: (B, T, D) -> the top layer's h at each step (B, T, H), and the last h and c.

        state: h and c to begin with, (layers, B, H) each, as they are returned; zeros without one.
        """
        # practice: Through time, layer by layer
        if state is None:
            zeros = x.new_zeros(len(self.cells), len(x), self.hidden_dim)
            state = (zeros, zeros)

        last_h = []
        last_c = []
        for cell, h, c in zip(self.cells, *state):
            # The input's part depends on no state: one product for all steps.
            from_input = x @ cell.weight_ih.T + cell.bias_ih  # (B, T, 4H)
            outputs = []
            for from_input_t in from_input.unbind(dim=1):
                h, c = cell.step(from_input_t, (h, c))
                outputs.append(h)
            last_h.append(h)
            last_c.append(c)

            # What this layer puts out at each step is what the next one reads.
            x = torch.stack(outputs, dim=1)  # (B, T, H)
        return x, (torch.stack(last_h), torch.stack(last_c))
        # end practice


def show_network(cfg: Config) -> None:
    print("\n[1] One step on paper, then three layers and nine steps beside torch")
    cell = LSTMCell(1, 1)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
        cell.weight_ih.copy_(torch.tensor([[math.log(3)], [-math.log(3)], [math.log(2)], [0]]))
    h, c = cell(torch.ones(1, 1), (torch.zeros(1, 1), torch.full((1, 1), 2.0)))
    text = "one unit: memory 0.25 · 2 + 0.75 · 0.6 = 0.95, output 0.5 · tanh 0.95 = 0.370"
    check_close("by-hand", text, torch.cat([c, h]), [[0.95], [0.5 * math.tanh(0.95)]])

    reference = nn.LSTM(3, 5, num_layers=3, batch_first=True, dtype=torch.float64)
    model = LSTM(3, 5, n_layers=3).double()
    for theirs, ours in zip(reference.parameters(), model.parameters(), strict=True):
        ours.data.copy_(theirs)
    x = torch.randn(4, 9, 3, dtype=torch.float64)
    start = tuple(torch.randn(2, 3, 4, 5, dtype=torch.float64))

    found = []
    for network in (model, reference):
        from_zeros, _ = network(x)
        outputs, (h, c) = network(x, start)
        last = torch.cat([h, c]).transpose(0, 1)  # (B, 6, 5)
        found.append(torch.cat([from_zeros, outputs, last], dim=1))
    text = "with torch's weights: the outputs, from zeros and from a state, and the last h and c"
    check_close("same", text, found[0], found[1])


def forget_bias(half_life: Tensor) -> Tensor:
    """The bias with which half of the memory is left after so many steps: sigmoid(bias)ⁿ = 1/2."""
    # practice: A bias for a half-life
    gate = 0.5 ** (1 / half_life)

    # The inverse of the sigmoid (lesson 2.7) is the log-odds.
    return torch.log(gate / (1 - gate))
    # end practice


@torch.no_grad()
def set_time_scales(model: LSTM, length: int) -> None:
    """Each unit gets a half-life of its own, drawn from 1 to `length` (Tallec and Ollivier 2018).

    Its input gate gets the opposite bias, so that the two gates add up to 1 where nothing but the
    biases counts: a unit that keeps for long writes little at a time.
    """
    for cell in model.cells:
        half_lives = 1 + (length - 1) * torch.rand(model.hidden_dim)
        input_bias, forget, _, _ = cell.bias_ih.chunk(4)  # parts of the parameter itself
        forget.copy_(forget_bias(half_lives))
        input_bias.copy_(-forget)

        # torch has a second bias, which is added.
        cell.bias_hh.zero_()


def show_path(cfg: Config) -> None:
    print("\n[2] From memory to memory: nothing but the forget gates, multiplied")
    torch.manual_seed(cfg.seed)
    model = LSTM(2, 5).double()
    cell = model.cells[0]
    x = torch.randn(1, 30, 2, dtype=torch.float64)
    whole = memory_gradient(model, x).abs().max()

    cell.weight_hh.data.zero_()  # now nothing in a step looks at h: the other paths are closed
    path = memory_gradient(model, x)
    pre_activations = x[0] @ cell.weight_ih.T + cell.bias_ih + cell.bias_hh  # (T, 4H)
    forget_gates = pre_activations[:, 5:10].sigmoid()
    text = "without W_hh: the gradient of c over 30 steps is the product of 30 forget gates"
    check_close("product", text, path, forget_gates.prod(dim=0), rtol=1e-7, atol=0)
    print(f"  at most {path.max():.1e}; with W_hh, which opens other paths, {whole:.1e}")

    for parameter in cell.parameters():
        parameter.data.zero_()
    x = torch.randn(1, 100, 2, dtype=torch.float64)
    half_lives = torch.tensor([1, 5, 20, 50, 100], dtype=torch.float64)
    cell.bias_ih.data[5:10] = forget_bias(half_lives)
    text = "five biases leave after 100 steps what half-lives of 1, 5, 20, 50, 100 promise"
    left = memory_gradient(model, x)
    check_close("half", text, left, 0.5 ** (100 / half_lives), rtol=1e-7, atol=0)


def show_reach(cfg: Config) -> dict[str, Tensor]:
    print("\n[3] New networks, 100 steps: how much does the answer depend on an input far back?")
    x, _ = lesson_6_3.adding_problem(64, 100, torch.Generator().manual_seed(cfg.seed))
    curves = {}
    print("  1, 10, 50 and 99 steps back, as a ratio to the last input:")
    for name in ["RNN", "LSTM", "LSTM, time scales"]:
        curves[name] = lesson_6_3.reach(make_adder(cfg, name, 100), x)
        ratios = "  ".join(f"{curves[name][lag]:.1e}" for lag in (1, 10, 50, 99))
        print(f"  {name:<17}  {ratios}")
    text = "torch's first biases: 50 steps back an input counts {} times as much as the last one"
    check("default", text, curves["LSTM"][50].item(), above=0, below=1e-6)
    text = "with half-lives of 1 to 100 steps it counts {} times as much"
    check("scales", text, curves["LSTM, time scales"][50].item(), above=0.001, below=2)
    return curves


def show_adding(cfg: Config) -> tuple[dict[str, list[float]], dict[str, float], nn.Module]:
    print(f"\n[4] Add the two marked numbers of {cfg.length} steps; always saying 1 costs 0.167")
    generator = torch.Generator().manual_seed(cfg.seed)
    batch = lesson_6_3.adding_problem(32, 10, generator)
    model = make_adder(cfg, "LSTM, time scales", 10)
    adam = torch.optim.Adam(model.parameters(), lr=0.02)
    text = "32 sequences of ten steps are learned by heart: the error falls to {}"
    overfits("overfits", text, model, batch, lesson_6_3.squared_error, adam, steps=250)

    losses = {}
    errors = {"guess": 1 / 6}
    for key, name in [("rnn", "RNN"), ("plain", "LSTM"), ("lstm", "LSTM, time scales")]:
        model = make_adder(cfg, name, cfg.length)
        losses[name] = lesson_6_3.train(model, cfg.length, cfg)
        errors[key] = lesson_6_3.new_error(model, cfg.length, cfg)
        print(f"  {name:<17}  error on new sequences {errors[key]:.4f}")

    x, y = lesson_6_3.adding_problem(500, cfg.length, generator)
    text = "LSTM: is the sum over 1? Its accuracy is {}"
    depends_on_input("depends", text, (model(x) > 1).long(), (y > 1).long())
    text = f"the RNN of 6.3 has the error {{}} after {cfg.steps} steps"
    expect("rnn", text, errors["rnn"], at_least=0.12)
    text = "the LSTM with time scales, from the same batches, has {}"
    expect("lstm", text, errors["lstm"], at_most=0.01)

    second_half = {name: sum(row[cfg.steps // 2 :]) for name, row in losses.items()}
    ratio = second_half["LSTM, time scales"] / second_half["LSTM"]
    text = "it learns sooner than with torch's biases: the second half's losses are {} of those"
    expect("sooner", text, ratio, at_most=0.7)
    return losses, errors, model


def show_selection(cfg: Config, trained: nn.Module) -> tuple[dict[str, Tensor], Tensor, float]:
    print("\n[5] Raise one number by a little: by how much of that does the answer move?")
    early = make_adder(cfg, "LSTM, time scales", cfg.length)
    lesson_6_3.train(early, cfg.length, replace(cfg, steps=cfg.plateau))
    generator = torch.Generator().manual_seed(cfg.seed + 1)
    x, _ = lesson_6_3.adding_problem(500, cfg.length, generator)
    is_marked = x[:, :, 1] == 1

    slopes = {}
    ratios = []
    print("  after training step   a marked number   an unmarked one")
    for step, model in [(cfg.plateau, early), (cfg.steps, trained)]:
        by_number = answer_slopes(model, x)
        slopes[step] = by_number[0]
        marked = by_number[is_marked].mean().item()
        unmarked = by_number[~is_marked].abs().mean().item()
        print(f"  {step:19d}   {marked:15.4f}   {unmarked:15.4f}")
        ratios.append(marked / unmarked)
    text = "on the plateau a marked number counts {} times as much as an unmarked one"
    expect("plateau", text, ratios[0], above=0.3, below=3)
    # The derivative of a sum is 1 by each of its numbers, and 0 by all other inputs.
    text = "in the end, raise a marked number: the answer rises by {} of that"
    expect("marked", text, marked, at_least=0.85, at_most=1.15)
    expect("unmarked", "raise an unmarked one: it moves by {} of that", unmarked, at_most=0.03)
    return slopes, is_marked[0], marked


# Pictures and helpers: skip on a first reading


def make_adder(cfg: Config, name: str, length: int) -> nn.Module:
    """The network of 6.3 around one of the three; `length` is for the time scales."""
    torch.manual_seed(cfg.seed)
    if name == "RNN":
        return lesson_6_3.Adder(RNN(2, cfg.hidden_dim))
    lstm = LSTM(2, cfg.hidden_dim)
    if name == "LSTM, time scales":
        set_time_scales(lstm, length)
    return lesson_6_3.Adder(lstm)


def memory_gradient(model: LSTM, x: Tensor) -> Tensor:
    """d(sum of the last c) / d(first c) of one layer, for one sequence (1, T, D): (H,)."""
    c0 = torch.randn(1, 1, model.hidden_dim, dtype=torch.float64, requires_grad=True)
    _, (_, c) = model(x, (torch.zeros_like(c0), c0))
    c.sum().backward()
    return c0.grad.flatten()


def answer_slopes(model: nn.Module, x: Tensor) -> Tensor:
    """The derivative of each answer by each number of its sequence: (B, T, 2) -> (B, T)."""
    x = x.clone().requires_grad_()
    model(x).sum().backward()
    return x.grad[:, :, 0]


def draw_curves(cfg: Config, reaches: dict[str, Tensor], losses: dict[str, list]) -> None:
    figure, (left, right) = new_figure(1, 2)
    colours = {"RNN": ORANGE, "LSTM": GREEN, "LSTM, time scales": BLUE}
    for name, curve in reaches.items():
        left.semilogy(curve, color=colours[name], label=name)
    left.set(xlabel="steps back", ylabel="effect (last input = 1)")
    left.set_title("Before training: long half-lives reach far")
    left.legend(loc="lower left")

    for name, row in losses.items():
        means = torch.tensor(row).unfold(0, 10, 10).mean(dim=1)  # of 10 losses each
        steps = 10 * torch.arange(1, len(means) + 1)
        right.semilogy(steps, means, color=colours[name], label=name)
    right.axhline(1 / 6, color=GREY, linestyle="--", label="always saying 1")
    right.set(xlabel="training step", ylabel="error", title="They learn sooner, too")
    right.legend(loc="lower left")
    save_figure(figure, cfg.out / "curves")


def draw_selection(cfg: Config, slopes: dict[str, Tensor], is_marked: Tensor) -> None:
    figure, axes = new_figure(1, 2, size=(12.8, 3.4))
    colours = [BLUE if mark else GREY for mark in is_marked]
    titles = ["Plateau: marked or not, alike but the last", "In the end the marked ones count"]
    for axis, title, (step, by_number) in zip(axes, titles, slopes.items()):
        axis.bar(range(len(is_marked)), by_number, color=colours)
        axis.set(xlabel="step of one sequence", title=f"{title} (step {step})")
    axes[0].set_ylabel("effect on the answer")
    axes[1].text(20, 0.85, "blue: the two marked numbers", color=BLUE)
    save_figure(figure, cfg.out / "selection")


def run(cfg: Config) -> dict:
    show_network(cfg)
    show_path(cfg)
    reaches = show_reach(cfg)
    losses, errors, trained = show_adding(cfg)
    slopes, is_marked, marked = show_selection(cfg, trained)
    draw_curves(cfg, reaches, losses)
    draw_selection(cfg, slopes, is_marked)
    return {**errors, "marked": marked}


if __name__ == "__main__":
    main(run, Config, __doc__)
