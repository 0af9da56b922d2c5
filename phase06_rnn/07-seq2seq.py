"""6.7 Sequence to sequence: dates in, ISO dates out
Seq2Seq：把各种写法的日期变成标准日期

You will be able to answer
    1. How does a symbol become a vector?      show_embedding  lookup, same
    2. How does a text become one vector?      show_encoder    alone
    3. What does the decoder see in training?  show_training   overfits, depends, forced
    4. What does it make of unseen dates?      show_test       no-leak, exact, other-form, doubt
    5. What does a beam find?                  show_beam       trap, carried, sure, unsure
Predict   exact: what share of dates that it never saw does it write in ISO form without a fault?
Run       python phase06_rnn/07-seq2seq.py                                 about 50 s
Needs     -
Reference F.embedding
Notation  B batch  S, T lengths of text and answer  D, H widths  V symbols  K width of the beam
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.checks import check_close, depends_on_input, expect, no_leak, overfits
from common.config import LessonConfig, main, param
from common.data import dates
from common.data.batches import Batches
from common.data.dates import END, ISO_LENGTH, PAD, START, SYMBOLS, DateSet
from common.figures import new_figure, plot_curves, save_figure
from common.training import fit


@dataclass
class Config(LessonConfig):
    threads = 1
    hidden_dim: int = param(128, "width H of the state", tiny=64)
    epochs: int = param(4, "passes over the training dates", tiny=2)


class Embedding(nn.Module):
    """A learned vector for each of V symbols: numbers (B, T) -> vectors (B, T, D)."""

    def __init__(self, symbols: int, dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(symbols, dim))

    def forward(self, numbers: Tensor) -> Tensor:
        return self.weight[numbers]


def show_embedding(cfg: Config) -> None:
    print("\n[1] An embedding is a linear layer on one-hot vectors, without the multiplication")
    numbers = torch.tensor([3, 1, 3, 0])
    ours = Embedding(5, 2).double()
    product = F.one_hot(numbers, 5).double() @ ours.weight  # (4, 5) @ (5, 2)
    check_close("lookup", "a lookup gives what the product gives", ours(numbers), product)
    theirs = F.embedding(numbers, ours.weight)
    check_close("same", "and what torch's embedding gives", ours(numbers), theirs)


class Encoder(nn.Module):
    """Reads a text, one symbol after the other. The GRU is that of lesson 6.5, in torch's code."""

    def __init__(self, symbols: int, dim: int, hidden_dim: int):
        super().__init__()
        self.embedding = Embedding(symbols, dim)
        self.gru = nn.GRU(dim, hidden_dim, batch_first=True)

    def forward(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """source (B, S), filled up with PAD -> the states (B, S, H), each text's last (B, H)."""
        # practice: The state after the last symbol
        states, _ = self.gru(self.embedding(source))

        # Behind the text the GRU goes on with PAD, so its own last state is not the one wanted.
        last = (source != PAD).sum(dim=1) - 1
        rows = torch.arange(len(source))
        return states, states[rows, last]
        # end practice


class Decoder(nn.Module):
    """Writes an answer: each symbol follows from the text's vector, a state, the symbol before."""

    def __init__(self, symbols: int, dim: int, hidden_dim: int):
        super().__init__()
        self.embedding = Embedding(symbols, dim)
        self.gru = nn.GRU(dim + hidden_dim, hidden_dim, batch_first=True)
        self.head = nn.Linear(hidden_dim, symbols)

    def forward(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """inputs (B, T), state (B, 2H) -> logits (B, T, V), state after the last input (B, 2H)."""
        # Two in one tensor, so that a search has one thing to carry along: the text's vector, which
        # no step changes, and the state of the GRU.
        context, hidden = state.chunk(2, dim=1)  # (B, H) each
        seen = context[:, None].expand(-1, inputs.shape[1], -1)  # (B, T, H)
        vectors = torch.cat([self.embedding(inputs), seen], dim=-1)

        # nn.GRU wants (1, B, H), on a GPU in one piece of memory.
        outputs, last = self.gru(vectors, hidden[None].contiguous())
        return self.head(outputs), torch.cat([context, last[0]], dim=1)

    def step(self, symbols: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One symbol each (B,), state (B, 2H) -> log p of the next (B, V), next state (B, 2H)."""
        logits, state = self(symbols[:, None], state)
        return logits[:, 0].log_softmax(dim=1), state


class Seq2Seq(nn.Module):
    """Encoder and decoder (Cho et al. 2014). All that passes between them is one vector."""

    def __init__(self, symbols: int, dim: int, hidden_dim: int):
        super().__init__()
        self.encoder = Encoder(symbols, dim, hidden_dim)
        self.decoder = Decoder(symbols, dim, hidden_dim)

    def start(self, source: Tensor) -> Tensor:
        """source (B, S) -> the decoder's first state (B, 2H): it begins with the text's vector."""
        _, context = self.encoder(source)
        return torch.cat([context, context], dim=1)

    def forward(self, source: Tensor, inputs: Tensor) -> Tensor:
        """source (B, S), what the decoder is fed (B, T) -> logits (B, T, V)."""
        return self.decoder(inputs, self.start(source))[0]


def show_encoder(cfg: Config, data: DateSet) -> None:
    print("\n[2] Texts of different lengths in one batch: the shorter ones are filled up")
    source = data.x_train[:4]
    encoder = make_model(cfg).encoder
    alone = []
    for row in source:
        text = dates.decode(row)
        print(f"  {text:<22} {len(text):2} characters -> a vector of {cfg.hidden_dim} numbers")
        states, _ = encoder(row[None, : len(text)])
        alone.append(states[0, -1])
    text = "each text's vector is the one that it has alone, without anything behind it"
    check_close("alone", text, encoder(source)[1], torch.stack(alone))


def teacher_inputs(target: Tensor) -> Tensor:
    """What the decoder is fed to learn target (B, T): START, then all but the last symbol."""
    # practice: One place late
    start = torch.full_like(target[:, :1], START)

    # Each symbol is asked for after the right ones before it; it never stands in its own input.
    return torch.cat([start, target[:, :-1]], dim=1)
    # end practice


def teacher_forced_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """batch: source (B, S), target (B, T), which has no PAD here: all answers are equally long."""
    source, target = batch
    logits = model(source, teacher_inputs(target))  # (B, T, V)
    return F.cross_entropy(logits.flatten(0, 1), target.flatten())


def after_end(log_p: Tensor, last: Tensor) -> Tensor:
    """Behind a last symbol (B,) END only END can follow, and costs nothing. log p: (B, V)"""
    # All rows make equally many steps, also those that have ended.
    only_end = torch.full_like(log_p, float("-inf"))
    only_end[:, END] = 0.0
    return torch.where((last == END)[:, None], only_end, log_p)


@torch.no_grad()
def greedy(step: Callable, state: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """A decoder's step, states (B, 2H) -> always the likeliest symbol (B, length), log p (B,)."""
    # practice: Greedy decoding
    symbols = torch.full((len(state), 1), START, device=state.device)
    score = torch.zeros(len(state), device=state.device)
    for _ in range(length):
        last = symbols[:, -1]
        log_p, state = step(last, state)
        best, chosen = after_end(log_p, last).max(dim=1)
        score = score + best

        # What was chosen is the next input: there is no teacher any more.
        symbols = torch.cat([symbols, chosen[:, None]], dim=1)
    return symbols[:, 1:], score
    # end practice


def show_training(cfg: Config, data: DateSet) -> None:
    print("\n[3] The right answer, one place late, is the input: all places are learned at once")
    batch = data.x_train[:16], data.y_train[:16]
    print(f"  input   ▸{dates.decode(teacher_inputs(batch[1])[0])}    ▸ is START, ■ END")
    print(f"  target  {dates.decode(batch[1][0])}■")

    model = make_model(cfg)
    adam = torch.optim.Adam(model.parameters(), lr=1e-2)
    overfits("overfits", "learned by heart: loss {}", model, batch, teacher_forced_loss, adam)
    written, score = answer(model, batch[0])
    text = "without the teacher {} of the last digits are right"
    depends_on_input("depends", text, written[:, -2], batch[1][:, -2])

    # The loss is a mean over rows and places, a score the sum over the places of a row.
    at_once = teacher_forced_loss(model, (batch[0], written))
    text = "fed its own answers in one call, it gives them the log p that it gave them step by step"
    check_close("forced", text, at_once, -score.mean() / ISO_LENGTH)


def show_test(cfg: Config, data: DateSet) -> tuple[nn.Module, dict]:
    print("\n[4] Dates that it never saw, and a form that it never saw")
    no_leak("no-leak", "no date stands in two of the three parts", *data.fingerprints())
    model, curves = train(cfg, data)
    source, target = data.test()
    written, score = answer(model, source)
    print_answers(source[:4], written, score)
    right = exact(written, target)
    linear = exact(dates.linear_answers(data, source), target)
    text = f"of the unseen dates {{}} are right in all places; a linear model gets {linear:.3f}"
    expect("exact", text, right, at_least=0.9)

    source, target = dates.other_form(cfg)
    written, doubtful = answer(model, source)
    surest = doubtful.topk(2).indices
    print_answers(source[surest], written[surest], doubtful[surest])
    expect("other-form", "the year in front: {} are right", exact(written, target), at_most=0.1)
    known = score.median().exp().item()
    unseen = doubtful.median().exp().item()
    surest_wrong = doubtful[(written != target).any(dim=1)].max().exp()
    text = f"median p of its answers: {known:.2f}, there {unseen:.2f}; the surest wrong: {{}}"
    expect("doubt", text, surest_wrong, at_least=0.9)
    metrics = {"exact": right, "linear": linear, "p_known": known, "p_unseen": unseen}
    return model, metrics | {"p_surest": surest_wrong.item(), "curves": curves}


@torch.no_grad()
def beam_search(step: Callable, state: Tensor, width: int, length: int) -> tuple[Tensor, Tensor]:
    """A step, one state (1, 2H) -> K answers (K, length) and their log p (K,), best first."""
    # practice: Beam search
    symbols = torch.full((1, 1), START, device=state.device)
    score = torch.zeros(1, device=state.device)
    for _ in range(length):
        last = symbols[:, -1]
        log_p, state = step(last, state)
        total = score[:, None] + after_end(log_p, last)  # (K, V)
        score, place = total.flatten().topk(min(width, total.numel()))

        # Each of the best belongs to one of the K answers so far: its symbols and its state go on.
        parent = place // total.shape[1]
        chosen = place % total.shape[1]
        symbols = torch.cat([symbols[parent], chosen[:, None]], dim=1)
        state = state[parent]
    return symbols[:, 1:], score
    # end practice


def trap(symbols: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The step of a made-up language: each symbol (K,) follows from the last -> log p (K, 10)."""
    a, b, c, d, e, f, g = range(3, 10)
    p = torch.zeros(10, 10)
    p[START, [a, b]] = torch.tensor([0.55, 0.45])
    p[a, [c, d, e]] = torch.tensor([0.34, 0.33, 0.33])
    p[b, [f, g]] = 0.5
    p[[c, d, e], END] = 1.0
    p[[f, g], END] = 0.5  # the other half would go on, with letters that do not matter here
    return p.log()[symbols], state


def show_beam(cfg: Config, data: DateSet, model: nn.Module) -> None:
    print("\n[5] Several answers are kept at each place, not the best one only")
    found = []
    for width in (1, 2, 3):
        symbols, score = beam_search(trap, torch.zeros(1, 1), width, length=3)
        written = "".join("·▸■abcdefg"[symbol] for symbol in symbols[0])
        print(f"  beam of {width}: {written} with probability {score[0].exp():.4f}")
        found.append(score[0].exp())
    text = "a beam of 1 finds 0.187, a beam of 2 only 0.1125, a beam of 3 again 0.187"
    check_close("trap", text, torch.stack(found), [0.187, 0.1125, 0.187], atol=1e-6)

    first = data.x_val[:1]
    symbols, score = beam_search(model.decoder.step, model.start(first), 4, length=3)
    at_once = teacher_forced_loss(model, (first.expand(4, -1), symbols))
    text = "one call gives the answers of a beam the log p that they had: their states came along"
    check_close("carried", text, at_once, -score.mean() / 3)

    form, iso = dates.other_form(cfg)
    source = torch.cat([data.x_val[:200], form[:200]])
    target = torch.cat([data.y_val[:200], iso[:200]])
    written, score = answer(model, source)
    beams = [beam_search(model.decoder.step, s[None], 4, ISO_LENGTH) for s in model.start(source)]
    found = torch.stack([symbols[0] for symbols, _ in beams])
    gain = torch.stack([log_p[0] for _, log_p in beams]) - score
    print(f"  right: {exact(written, target):.3f} greedy, {exact(found, target):.3f} with a beam")
    expect("sure", "known forms: a beam of 4 adds {} to log p", gain[:200].mean(), at_most=0.01)
    expect("unsure", "the unseen form: it adds {}", gain[200:].mean(), above=0.0005)


# Pictures and helpers: skip on a first reading


def make_model(cfg: Config) -> Seq2Seq:
    """The same seed gives the same first weights."""
    torch.manual_seed(cfg.seed)
    return Seq2Seq(SYMBOLS, 32, cfg.hidden_dim).to(cfg.torch_device())


def train(cfg: Config, data: DateSet) -> tuple[nn.Module, dict[str, list[float]]]:
    """The model, and the shares right after each epoch. The rate rises first, then falls to 0."""
    model = make_model(cfg)
    batches = Batches(data.x_train, data.y_train, batch_size=64, shuffle=True, seed=cfg.seed)
    adam = torch.optim.Adam(model.parameters(), lr=8e-3, betas=(0.9, 0.99))
    rate = torch.optim.lr_scheduler.OneCycleLR(adam, 8e-3, cfg.epochs * len(batches), pct_start=0.2)
    form, iso = dates.other_form(cfg)
    curves = {"known forms: right": [], "unseen form: right": [], "unseen form: p": []}
    for _ in range(cfg.epochs):
        fit(model, batches, adam, teacher_forced_loss, scheduler=rate, grad_clip=1.0, quiet=True)
        written, score = answer(model, form)
        curves["known forms: right"].append(exact(answer(model, data.x_val)[0], data.y_val))
        curves["unseen form: right"].append(exact(written, iso))
        curves["unseen form: p"].append(score.median().exp().item())
    return model, curves


@torch.no_grad()
def answer(model: Seq2Seq, source: Tensor) -> tuple[Tensor, Tensor]:
    """Greedy answers (B, T) and their log p (B,)."""
    return greedy(model.decoder.step, model.start(source), ISO_LENGTH)


def print_answers(source: Tensor, written: Tensor, score: Tensor) -> None:
    for row, symbols, log_p in zip(source, written, score):
        print(f"  {dates.decode(row):<22} -> {dates.decode(symbols)}  p = {log_p.exp():.2f}")


def exact(written: Tensor, target: Tensor) -> float:
    return (written == target).all(dim=1).float().mean().item()


def draw_curves(cfg: Config, curves: dict[str, list[float]]) -> None:
    figure, axis = new_figure(size=(9, 4.4))
    plot_curves(axis, curves, ylabel="share right; probability")
    axis.set_title("Unseen dates are soon read. An unseen form is not, but p rises")
    save_figure(figure, cfg.out / "curves")


def run(cfg: Config) -> dict:
    data = dates.load_dates(cfg)
    show_embedding(cfg)
    show_encoder(cfg, data)
    show_training(cfg, data)
    model, metrics = show_test(cfg, data)
    show_beam(cfg, data, model)
    draw_curves(cfg, metrics["curves"])
    return metrics


if __name__ == "__main__":
    main(run, Config, __doc__)
