"""6.4 LSTM: a memory with three gates
LSTM：由三个门控制的记忆

You will be able to answer
    1. What does one step compute?         show_cell    by-hand, cell
    2. Is the whole network torch's?       show_stack   start, outputs, states, gradients
    3. Why can its gradient go far back?   show_path    product, half, balance, drawn
    4. How far back does a new LSTM see?   show_reach   default, scales
    5. What does it learn?   show_adding   first, overfits, depends, rnn, lstm, marked, unmarked
Predict   lstm: adding two numbers out of 100, a guess errs by 0.167, an RNN by as much; the LSTM?
Run       python phase06_rnn/04-lstm.py                                    about 30 s
Needs     phase06_rnn/01-rnn-basics, phase06_rnn/03-vanishing-gradient
Reference nn.LSTM, nn.LSTMCell
Notation  B batch  T time steps  D inputs at a step  H hidden units
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.figures import BLUE, GREEN, GREY, ORANGE, new_figure, save_figure
from common.lessons import load_lesson

vanishing = load_lesson("phase06_rnn/03-vanishing-gradient")
RNN = load_lesson("phase06_rnn/01-rnn-basics").RNN

# h, what the unit shows, and c, its memory
State = tuple[Tensor, Tensor]


@dataclass
class Config(LessonConfig):
    threads = 1
    length: int = param(100, "steps of a sequence", tiny=8, low=4)
    hidden_dim: int = param(32, "hidden units", tiny=16)
    steps: int = param(600, "training steps", tiny=150, low=20)
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
        """The same, when the input's part of the scores (B, 4H) is already computed."""
        # practice: One step
        h, c = state
        scores = from_input + h @ self.weight_hh.T + self.bias_hh  # (B, 4H)
        i, f, g, o = scores.chunk(4, dim=1)  # (B, H) each
        write = torch.sigmoid(i)
        keep = torch.sigmoid(f)
        show = torch.sigmoid(o)

        # The old memory is multiplied and added to, but never goes through a matrix or a tanh.
        c = keep * c + write * torch.tanh(g)
        h = show * torch.tanh(c)
        return h, c
        # end practice


def show_cell(cfg: Config) -> None:
    print("\n[1] One step: how much to keep, what to write, what to show")
    cell = LSTMCell(1, 1)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
        cell.bias_hh += math.log(2) / 2
        cell.bias_ih -= math.log(2) / 2
        cell.weight_ih.copy_(torch.tensor([[math.log(3)], [-math.log(3)], [math.log(2)], [0]]))
    h, c = cell(torch.ones(1, 1), (torch.zeros(1, 1), torch.full((1, 1), 2.0)))
    text = "one unit: 0.25 · 2 + 0.75 · 0.6 = 0.95 in memory, 0.5 · tanh 0.95 = 0.370 shown"
    check_close("by-hand", text, torch.cat([c, h]), [[0.95], [0.5 * math.tanh(0.95)]])

    torch.manual_seed(cfg.seed)
    reference = nn.LSTMCell(3, 5, dtype=torch.float64)
    cell = LSTMCell(3, 5).double()
    cell.load_state_dict(reference.state_dict())  # the names are the same
    x, h, c = torch.randn(7, 3), torch.randn(7, 5), torch.randn(7, 5)
    inputs = [tensor.double().requires_grad_() for tensor in (x, h, c)]
    found = []
    for one in (cell, reference):
        h, c = one(inputs[0], tuple(inputs[1:]))
        loss = (h * c.cos()).sum()
        gradients = torch.autograd.grad(loss, [*inputs, *one.parameters()])
        found.append(torch.cat([part.flatten() for part in (h, c, *gradients)]))
    text = "h, c and all gradients of a step are those of nn.LSTMCell"
    check_close("cell", text, found[0], found[1])


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
            # What the inputs contribute depends on no state: one product for all steps.
            from_input = x @ cell.weight_ih.T + cell.bias_ih  # (B, T, 4H)
            outputs = []
            for from_input_t in from_input.unbind(dim=1):
                h, c = cell.step(from_input_t, (h, c))
                outputs.append(h)
            last_h.append(h)
            last_c.append(c)

            # What this layer shows at each step is what the next one reads.
            x = torch.stack(outputs, dim=1)  # (B, T, H)
        return x, (torch.stack(last_h), torch.stack(last_c))
        # end practice


def show_stack(cfg: Config) -> None:
    print("\n[2] Three layers, nine steps, beside nn.LSTM with the same weights")
    starts = []
    for network in [LSTM, nn.LSTM]:
        torch.manual_seed(cfg.seed)
        starts.append(torch.cat([p.flatten() for p in network(3, 5).parameters()]))
    text = "the same seed gives a new network of one layer the same first weights"
    check_close("start", text, starts[0], starts[1])

    reference = nn.LSTM(3, 5, num_layers=3, batch_first=True, dtype=torch.float64)
    model = LSTM(3, 5, n_layers=3).double()
    for number, cell in enumerate(model.cells):
        for name, parameter in cell.named_parameters():
            parameter.data.copy_(getattr(reference, f"{name}_l{number}"))
    x = torch.randn(4, 9, 3, dtype=torch.float64)
    start = tuple(torch.randn(2, 3, 4, 5, dtype=torch.float64))
    found = []
    for one in (model, reference):
        free, _ = one(x)
        outputs, (h, c) = one(x, start)
        loss = (outputs * outputs.cos()).sum() + (h * c).sum()
        gradients = torch.autograd.grad(loss, list(one.parameters()))
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        found.append((torch.cat([free, outputs]), torch.stack([h, c]), flat))
    ours, torchs = found
    check_close("outputs", "the top layer's h, from zeros and from a state", ours[0], torchs[0])
    check_close("states", "all layers' last h and c", ours[1], torchs[1])
    check_close("gradients", "the gradients of all twelve parameters", ours[2], torchs[2])


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

    Its input gate gets the opposite bias, so that the two gates add up to 1 where the scores are
    the biases: a unit that keeps for long writes little at a time.
    """
    for cell in model.cells:
        half_lives = 1 + (length - 1) * torch.rand(model.hidden_dim)
        input_bias, forget, _, _ = cell.bias_ih.chunk(4)  # parts of the parameter itself
        forget.copy_(forget_bias(half_lives))
        input_bias.copy_(-forget)

        # torch has a second bias, which is added.
        cell.bias_hh.zero_()


def show_path(cfg: Config) -> None:
    print("\n[3] From memory to memory: nothing but the forget gates, multiplied")
    torch.manual_seed(cfg.seed)
    model = LSTM(2, 5).double()
    cell = model.cells[0]
    cell.weight_hh.data.zero_()  # the other way back, through h and the gates, is closed
    x = torch.randn(1, 30, 2, dtype=torch.float64)
    scores = x[0] @ cell.weight_ih.T + cell.bias_ih + cell.bias_hh  # (T, 4H)
    gates = scores[:, 5:10].sigmoid()
    text = "30 steps: the gradient of c is the product of 30 forget gates, in each unit"
    check_close("product", text, memory_gradient(model, x), gates.prod(dim=0))

    for parameter in cell.parameters():
        parameter.data.zero_()
    x = torch.randn(1, 100, 2, dtype=torch.float64)
    half_lives = torch.tensor([1, 5, 20, 50, 100], dtype=torch.float64)
    cell.bias_ih.data[5:10] = forget_bias(half_lives)
    print(f"  for half-lives of 1 to 100 steps the bias goes from 0 to {cell.bias_ih[9]:.2f}")
    text = "five biases leave after 100 steps what half-lives of 1, 5, 20, 50, 100 promise"
    check_close("half", text, memory_gradient(model, x), 0.5 ** (100 / half_lives))

    wide = LSTM(2, 500)
    drawn = []
    for _ in range(20):
        set_time_scales(wide, 100)
        biases = (wide.cells[0].bias_ih + wide.cells[0].bias_hh).detach()
        write, keep, _, _ = biases.sigmoid().chunk(4)
        drawn.append(-math.log(2) / keep.log())
    text = "with time scales the gates for writing and keeping add up to 1"
    check_close("balance", text, write + keep, torch.ones(500))
    ends = torch.stack(torch.stack(drawn).aminmax())
    text = f"10,000 half-lives reach from 1 to 100: drawn were {ends[0]:.2f} to {ends[1]:.2f}"
    check_close("drawn", text, ends, torch.tensor([1.0, 100.0]), atol=0.1, rtol=0)


def show_reach(cfg: Config) -> dict[str, Tensor]:
    print("\n[4] New networks, 100 steps: how much does the answer depend on an input far back?")
    x, _ = vanishing.adding_problem(64, 100, torch.Generator().manual_seed(cfg.seed))
    curves = {}
    for name in ["RNN", "LSTM", "LSTM, time scales"]:
        curves[name] = vanishing.reach(make_adder(cfg, name, 100), x)
        shares = "  ".join(f"{curves[name][lag]:.1e}" for lag in (1, 10, 50, 99))
        print(f"  {name:<17} as a share of the last input, 1, 10, 50, 99 steps back: {shares}")
    text = "torch's first biases: 50 steps back an input counts {} times as much as the last one"
    check("default", text, curves["LSTM"][50].item(), above=0, below=1e-6)
    text = "with half-lives of 1 to 100 steps it counts {} times as much"
    check("scales", text, curves["LSTM, time scales"][50].item(), above=0.001, below=2)
    return curves


def show_adding(cfg: Config) -> tuple[dict[str, list[float]], dict[str, float]]:
    print(f"\n[5] Add the two marked numbers of {cfg.length} steps; always saying 1 costs 0.167")
    generator = torch.Generator().manual_seed(cfg.seed)
    batch = vanishing.adding_problem(32, 10, generator)
    model = make_adder(cfg, "LSTM, time scales", 10)
    first = vanishing.squared_error(model, batch).item()
    text = "before training the error is {}; saying 0 would cost 7/6 on average"
    check("first", text, first, above=1 / 6, below=3)
    adam = torch.optim.Adam(model.parameters(), lr=0.02)
    text = "32 sequences of ten steps are learned by heart: the error falls to {}"
    overfits("overfits", text, model, batch, vanishing.squared_error, adam, steps=250)

    losses = {}
    errors = {"guess": 1 / 6}
    for key, name in [("rnn", "RNN"), ("lstm", "LSTM, time scales")]:
        model = make_adder(cfg, name, cfg.length)
        losses[name] = vanishing.train(model, cfg.length, cfg)
        errors[key] = vanishing.new_error(model, cfg.length, cfg)
    print("  error on new sequences:  " + "   ".join(f"{k} {e:.4f}" for k, e in errors.items()))

    x, y = vanishing.adding_problem(500, cfg.length, generator)
    x.requires_grad_()
    answers = model(x)
    text = "LSTM: whether the sum is over 1 is said rightly in a share of {}"
    depends_on_input("depends", text, (answers > 1).long(), (y > 1).long())
    expect("rnn", f"the RNN of 6.3, {cfg.steps} steps: {{}}", errors["rnn"], at_least=0.12)
    expect("lstm", "the LSTM, the same steps and batches: {}", errors["lstm"], at_most=0.01)

    # The derivative of a sum by each of its numbers is 1, by all other inputs 0.
    answers.sum().backward()
    slopes = x.grad[:, :, 0]
    markers = x.detach()[:, :, 1]
    marked = (slopes * markers).sum() / markers.sum()
    errors["marked"] = marked.item()
    text = "raise a marked number by a little: the answer rises by {} of that"
    expect("marked", text, errors["marked"], at_least=0.85, at_most=1.15)
    others = (slopes * (1 - markers)).abs().sum() / (1 - markers).sum()
    expect("unmarked", "raise an unmarked one: it moves by {} of that", others, at_most=0.03)
    return losses, errors


# Pictures and helpers: skip on a first reading


def make_adder(cfg: Config, name: str, length: int) -> nn.Module:
    """The network of 6.3 around one of the three; `length` is for the time scales."""
    torch.manual_seed(cfg.seed)
    if name == "RNN":
        return vanishing.Adder(RNN(2, cfg.hidden_dim))
    lstm = LSTM(2, cfg.hidden_dim)
    if name == "LSTM, time scales":
        set_time_scales(lstm, length)
    return vanishing.Adder(lstm)


def memory_gradient(model: LSTM, x: Tensor) -> Tensor:
    """d(sum of the last c) / d(first c) of one layer, for one sequence (1, T, D): (H,)."""
    c0 = torch.randn(1, 1, model.hidden_dim, dtype=torch.float64, requires_grad=True)
    _, (_, c) = model(x, (torch.zeros_like(c0), c0))
    c.sum().backward()
    return c0.grad.flatten()


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
    right.set(xlabel="training step", ylabel="error", title="The LSTM learns to add")
    right.legend(loc="lower left")
    save_figure(figure, cfg.out / "curves")


def run(cfg: Config) -> dict:
    show_cell(cfg)
    show_stack(cfg)
    show_path(cfg)
    reaches = show_reach(cfg)
    losses, errors = show_adding(cfg)
    draw_curves(cfg, reaches, losses)
    return errors


if __name__ == "__main__":
    main(run, Config, __doc__)
