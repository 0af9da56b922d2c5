"""6.1 RNN basics: the same cell at every step
RNN 基础：每一步都是同一个单元

You will be able to answer
    1. What does one step compute?                     show_cell   by-hand
    2. What does the state know of the past?           show_state  past, resumed
    3. How are layers stacked, and is this torch's?    show_stack  states
    4. Which weights make a cell tell odd from even?   show_paper  five-bits, never-wrong
    5. Can training find them?   show_learn  last, overfits, depends, rnn, mlp, end, longer
Predict   mlp: it sees all 10 bits at once; what share of the strings it has not seen is right?
Run       python phase06_rnn/01-rnn-basics.py                              about 25 s
Needs     -
Reference nn.RNN
Notation  B batch  T time steps  D inputs at a step  H hidden units
"""

import itertools
import math
from dataclasses import dataclass
from statistics import mean, median

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.figures import BLUE, GREY, ORANGE, new_figure, save_figure


@dataclass
class Config(LessonConfig):
    threads = 1
    hidden_dim: int = param(32, "hidden units")
    bits: int = param(10, "length of the strings to learn from", tiny=8, low=4)
    steps: int = param(1500, "training steps, 32 strings each", tiny=30)
    lr: float = param(0.005, "learning rate of Adam", tiny=0.01)
    runs: int = param(3, "how many initialisations each model is trained from", tiny=1)


class RNNCell(nn.Module):
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh), after Elman (1990).

    Parameters have the names, shapes and initialisation of torch's cell.
    """

    def __init__(self, input_dim: int, hidden_dim: int):
        super().__init__()
        self.weight_ih = nn.Parameter(torch.empty(hidden_dim, input_dim))
        self.weight_hh = nn.Parameter(torch.empty(hidden_dim, hidden_dim))
        self.bias_ih = nn.Parameter(torch.empty(hidden_dim))
        self.bias_hh = nn.Parameter(torch.empty(hidden_dim))
        bound = 1 / math.sqrt(hidden_dim)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """This step's input x: (B, D), the state so far h: (B, H) -> the next state (B, H)."""
        # practice: One step
        from_input = x @ self.weight_ih.T + self.bias_ih
        from_state = h @ self.weight_hh.T + self.bias_hh
        return torch.tanh(from_input + from_state)
        # end practice


def show_cell(cfg: Config) -> None:
    print("\n[1] One step: the input and the old state, each weighted, added, and through tanh")
    cell = RNNCell(1, 1)
    set_weights(cell, weight_ih=[[2.0]], weight_hh=[[0.5]], bias_ih=[0.0], bias_hh=[0.0])
    states = [torch.zeros(1, 1)]
    for x in [0.5, 0.0, 0.0]:
        states.append(cell(torch.tensor([[x]]), states[-1]))
    text = "inputs 0.5, 0, 0: the states by hand, 0.762, 0.363 and 0.180"
    check_close("by-hand", text, torch.cat(states[1:]).flatten(), [0.762, 0.363, 0.180], atol=5e-4)


class RNN(nn.Module):
    """Layers of cells: each reads a whole sequence, and the next one reads its states."""

    def __init__(self, input_dim: int, hidden_dim: int, n_layers: int = 1):
        super().__init__()
        self.hidden_dim = hidden_dim
        input_dims = [input_dim] + [hidden_dim] * (n_layers - 1)
        self.cells = nn.ModuleList(RNNCell(dim, hidden_dim) for dim in input_dims)

    def forward(self, x: Tensor, h0: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x: (B, T, D) -> the top layer's states (B, T, H), and each layer's last (layers, B, H).

        h0: (layers, B, H), the states to begin with; without them it begins with zeros.
        """
        # practice: Through time, layer by layer
        if h0 is None:
            h0 = x.new_zeros(len(self.cells), len(x), self.hidden_dim)

        last = []
        for cell, h in zip(self.cells, h0):
            states = []
            # A step has to wait for the one before it: this loop cannot run in parallel.
            for x_t in x.unbind(dim=1):  # T times (B, D)
                h = cell(x_t, h)
                states.append(h)
            last.append(h)

            # The states of this layer are the inputs of the next.
            x = torch.stack(states, dim=1)  # (B, T, H)
        return x, torch.stack(last)
        # end practice


def show_state(cfg: Config) -> None:
    print("\n[2] The state is all that a cell knows of the past, and it is made of all of it")
    model = RNN(3, 8).double()
    x = torch.randn(1, 10, 3, dtype=torch.float64)
    changed = x.clone()
    changed[:, 5] += 1
    whole, _ = model(x)
    moved = (model(changed)[0] - whole).abs().amax(dim=(0, 2)).tolist()  # T numbers
    print("  input 6 of 10 changes, states move by " + " ".join(f"{m:.3f}" for m in moved))
    text = "the five states before it stay as they are, the five from it on all move"
    check("past", text, [m > 0 for m in moved] == [False] * 5 + [True] * 5)

    first, h = model(x[:, :4])
    second, _ = model(x[:, 4:], h)
    text = "read in two parts, the state carried over, it gives the same states"
    check_close("resumed", text, torch.cat([first, second], dim=1), whole)


def show_stack(cfg: Config) -> None:
    print("\n[3] Three layers and nn.RNN: the same seed gives the same initial weights")
    torch.manual_seed(cfg.seed)
    ours = RNN(5, 7, n_layers=3).double()
    torch.manual_seed(cfg.seed)
    theirs = nn.RNN(5, 7, num_layers=3, batch_first=True).double()
    x = torch.randn(4, 6, 5, dtype=torch.float64)
    h0 = torch.randn(3, 4, 7, dtype=torch.float64)
    our_states, _ = ours(x, h0)
    states, _ = theirs(x, h0)
    check_close("states", "the top layer's states are torch's", our_states, states)


class OddEven(nn.Module):
    """After every bit: is the number of ones so far odd? Bits (B, T) -> logits (B, T)."""

    def __init__(self, hidden_dim: int):
        super().__init__()
        self.rnn = RNN(1, hidden_dim)
        self.head = nn.Linear(hidden_dim, 1)

    def forward(self, bits: Tensor) -> Tensor:
        states, _ = self.rnn(bits.unsqueeze(2))  # (B, T, H)
        return self.head(states).squeeze(2)  # the same head at every step


def paper_model() -> OddEven:
    """Two hidden units that tell odd from even, with weights set by hand.

    s, 1 for odd and 0 for even, is (h1 − h2) / 2. The first unit asks whether s + bit is over 0.5,
    the second whether it is over 1.5. tanh of k times the difference is almost ±1, yes or no.
    """
    # practice: Odd and even by hand
    model = OddEven(hidden_dim=2)
    k = 10.0  # steep enough: tanh(k / 2) is 0.9999
    set_weights(
        model.rnn.cells[0],
        weight_ih=[[k], [k]],
        weight_hh=[[k / 2, -k / 2], [k / 2, -k / 2]],  # k (h1 − h2) / 2 is k s, for both units
        bias_ih=[-0.5 * k, -1.5 * k],
        bias_hh=[0.0, 0.0],
    )
    # h1 − h2 is 2 for odd and 0 for even, so 1 lies between.
    set_weights(model.head, weight=[[1.0, -1.0]], bias=[-1.0])
    return model
    # end practice


def show_paper(cfg: Config) -> Tensor:
    print("\n[4] Odd or even: one bit of memory, turned over by every 1")
    model = paper_model()
    bits = torch.tensor([[1.0, 0, 1, 1, 0]])
    odd = (model(bits) > 0).flatten().tolist()
    text = "bits 1 0 1 1 0: the cell says odd, odd, even, odd, odd"
    check("five-bits", text, odd == [True, True, False, True, True])

    strings = random_bits(50, 1000, torch.Generator().manual_seed(cfg.seed))
    share = accuracy(model, strings).min().item()
    text = "strings of 1,000 bits: after every bit it gets a share of {} right"
    check("never-wrong", text, share, at_least=1, at_most=1)
    states, _ = model.rnn(bits.unsqueeze(2))
    return states[0].detach()


def odd_even_loss(model: nn.Module, bits: Tensor, only_end: bool = False) -> Tensor:
    """Mean cross-entropy, over all steps or over the last step alone. bits: (B, T)."""
    # practice: A loss after every bit
    targets = bits.cumsum(dim=1) % 2  # (B, T): 1 where the number of ones so far is odd
    logits = model(bits)
    if only_end:
        logits = logits[:, -1]
        targets = targets[:, -1]
    return F.binary_cross_entropy_with_logits(logits, targets)
    # end practice


def show_learn(cfg: Config) -> tuple[list[Tensor], dict[str, float]]:
    print(f"\n[5] Trained on half of the {2**cfg.bits:,} strings of {cfg.bits} bits")
    generator = torch.Generator().manual_seed(cfg.seed)
    strings = torch.tensor(list(itertools.product([0.0, 1.0], repeat=cfg.bits)))
    strings = strings[torch.randperm(len(strings), generator=generator)]
    seen, unseen = strings.chunk(2)

    fresh = OddEven(cfg.hidden_dim)
    last = F.binary_cross_entropy_with_logits(fresh(seen)[:, -1], seen.sum(dim=1) % 2)
    text = "a loss at the end only is that of the last answer"
    check_close("last", text, odd_even_loss(fresh, seen, only_end=True), last)
    adam = torch.optim.Adam(fresh.parameters(), lr=0.02)
    text = "8 strings can be memorised: loss {}"
    overfits("overfits", text, fresh, seen[:8], odd_even_loss, adam, steps=200)
    predicted = (fresh(seen[:8]) > 0).flatten()
    odd = (seen[:8].cumsum(dim=1) % 2 == 1).flatten()
    depends_on_input("depends", "and the answers then follow the bits", predicted, odd)

    models = {"mlp": [], "end": [], "rnn": []}
    for name, trained in models.items():
        for number in range(cfg.runs):
            seed = 100 * cfg.seed + number  # of the batches too: the three models see the same
            torch.manual_seed(seed)
            model = mlp(cfg.bits) if name == "mlp" else OddEven(cfg.hidden_dim)
            train(model, seen, cfg, seed, only_end=name == "end")
            trained.append(model)

    scores = {}
    print(f"  accuracy after the last bit, mean of {cfg.runs}:     seen strings  unseen strings")
    for name, trained in models.items():
        scores[name + "_seen"] = mean(accuracy(model, seen)[-1].item() for model in trained)
        scores[name] = mean(accuracy(model, unseen)[-1].item() for model in trained)
        print(f"  {name:42} {scores[name + '_seen']:12.3f} {scores[name]:15.3f}")

    long = random_bits(50 if cfg.tiny else 500, 200, generator)
    curves = [accuracy(model, long) for model in models["rnn"]]
    after_100 = [curve[99].item() for curve in curves]
    print(
        "  accuracy of each rnn after 100 bits:  "
        + "  ".join(f"{share:.3f}" for share in after_100)
    )

    expect("rnn", "RNN, loss after every bit: {} on unseen strings", scores["rnn"], at_least=0.95)
    text = "an MLP on all bits at once, as many steps: {} on unseen strings; guessing gets 0.5"
    expect("mlp", text, scores["mlp"], at_most=0.6)
    text = "RNN, loss after the last bit only: {}, and that on the strings it has seen"
    expect("end", text, scores["end_seen"], at_most=0.65)
    text = f"trained on {cfg.bits} bits, after 100 it still has {{}}, the median of the runs"
    expect("longer", text, median(after_100), at_least=0.95)
    return curves, scores


# Pictures and helpers: skip on a first reading


def random_bits(n: int, length: int, generator: torch.Generator) -> Tensor:
    return torch.randint(2, (n, length), generator=generator).float()


def set_weights(module: nn.Module, **values: list) -> None:
    module.load_state_dict({name: torch.tensor(value) for name, value in values.items()})


def mlp(bits: int) -> nn.Sequential:
    # One logit for each bit, as the RNN has.
    return nn.Sequential(nn.Linear(bits, 128), nn.ReLU(), nn.Linear(128, bits))


def train(model: nn.Module, strings: Tensor, cfg: Config, seed: int, only_end: bool) -> None:
    """The four lines of 3.9, with Adam, on random batches of the strings (N, T)."""
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=cfg.lr)
    for _ in range(cfg.steps):
        chosen = torch.randint(len(strings), (32,), generator=order)
        loss = odd_even_loss(model, strings[chosen], only_end)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def accuracy(model: nn.Module, strings: Tensor) -> Tensor:
    """The share of the strings (N, T) that is right after each bit. (T,)"""
    odd = strings.cumsum(dim=1) % 2 == 1
    return ((model(strings) > 0) == odd).float().mean(dim=0)


def draw_unrolled(cfg: Config, states: Tensor) -> None:
    """The model set by hand, unrolled: one box a step, always the same cell."""
    figure, axis = new_figure(size=(10.4, 4.4))
    arrow = {"arrowstyle": "-|>", "color": GREY, "shrinkA": 0, "shrinkB": 0, "linewidth": 2}
    box = {"boxstyle": "round,pad=0.6", "facecolor": "white", "edgecolor": BLUE, "linewidth": 2}
    for step, (bit, (h1, h2)) in enumerate(zip("10110", states.tolist())):
        axis.annotate("", (step + 0.78, 0), (step + 0.22, 0), arrowprops=arrow)
        axis.annotate("", (step, -0.25), (step, -0.75), arrowprops=arrow)
        axis.annotate("", (step, 0.75), (step, 0.25), arrowprops=arrow)
        axis.text(step, 0, "cell", ha="center", va="center", color=BLUE, bbox=box)
        axis.text(step, -0.95, f"bit {bit}", ha="center", va="center")
        word = "odd" if h1 - h2 > 1 else "even"
        axis.text(step, 0.95, word, ha="center", va="center", weight="bold")
        axis.text(step + 0.5, 0.12, f"({h1:.0f}, {h2:.0f})", ha="center", fontsize=11)
    axis.annotate("(0, 0)", (-0.22, 0), (-0.95, 0), va="center", fontsize=11, arrowprops=arrow)
    title = "One cell, five steps: the state on the arrow tells odd from even"
    axis.set(xlim=(-1, 5), ylim=(-1.2, 1.2), title=title)
    axis.axis("off")
    save_figure(figure, cfg.out / "unrolled")


def draw_lengths(cfg: Config, curves: list[Tensor], scores: dict[str, float]) -> None:
    figure, (left, right) = new_figure(1, 2, size=(12, 4.4))
    names = ["mlp", "end", "rnn"]
    places = torch.arange(3)
    left.bar(places - 0.2, [scores[name + "_seen"] for name in names], 0.4, color=GREY)
    left.bar(places + 0.2, [scores[name] for name in names], 0.4, color=BLUE)
    left.axhline(0.5, color=ORANGE, linestyle="--")
    left.text(-0.4, 1.04, "seen strings", color=GREY)
    left.text(0.5, 1.04, "unseen strings", color=BLUE)
    left.text(-0.4, 0.92, "guessing", color=ORANGE)
    labels = ["MLP", "RNN, loss\nat the end", "RNN, loss\nafter every bit"]
    left.set_xticks(places, labels)
    left.set(ylabel=f"accuracy after {cfg.bits} bits", ylim=(0, 1.15))
    left.set_title("Only the RNN with a loss after every bit learned")

    for curve in curves:
        right.plot(range(1, len(curve) + 1), curve, color=BLUE)
    right.axvline(cfg.bits, color=GREY, linestyle="--")
    right.text(cfg.bits, 1.04, "  trained up to here", color=GREY)
    right.axhline(0.5, color=ORANGE, linestyle="--")
    right.set(xscale="log", xlabel="bits read", ylabel="accuracy", ylim=(0, 1.15))
    right.set_title("The last of them, on longer strings")
    save_figure(figure, cfg.out / "lengths")


def run(cfg: Config) -> dict:
    show_cell(cfg)
    show_state(cfg)
    show_stack(cfg)
    states = show_paper(cfg)
    curves, scores = show_learn(cfg)
    draw_unrolled(cfg, states)
    draw_lengths(cfg, curves, scores)
    return scores


if __name__ == "__main__":
    main(run, Config, __doc__)
