"""6.7 Sequence to sequence: dates in, ISO dates out
Seq2Seq：把各种写法的日期变成标准日期

You will be able to answer
    1. How does a symbol become a vector?      show_embedding  lookup
    2. How does a text become one vector?      show_encoder    alone
    3. What does the decoder see in training?  show_training   first-loss, overfits, forced, depends
    4. What does it make of unseen dates?      show_test       no-leak, exact, other-form
    5. Does a beam find more than greed?       show_beam       exhaustive, trap, beam
Predict   exact: what share of dates that it never saw does it write in ISO form without a fault?
Run       python phase06_rnn/07-seq2seq.py                                 about 50 s
Needs     -
Reference nn.Embedding
Notation  B batch  S, T lengths of text and answer  D, H widths  V symbols  K width of the beam
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.checks import check, check_close, depends_on_input, expect, no_leak, overfits
from common.config import LessonConfig, main, param
from common.data import dates
from common.data.batches import Batches
from common.data.dates import END, ISO_LENGTH, PAD, START, SYMBOLS, DateSet
from common.figures import new_figure, plot_curves, save_figure
from common.training import fit

# (symbols (B,), state (B, 2H)) -> log p of the next symbol (B, V), next state (B, 2H)
Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


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
    theirs = nn.Embedding(5, 2)
    theirs.weight = ours.weight
    product = F.one_hot(numbers, 5).double() @ ours.weight  # (4, 5) @ (5, 2)

    found = []
    for vectors in (ours(numbers), product, theirs(numbers)):
        (gradient,) = torch.autograd.grad(vectors.square().sum(), ours.weight)
        found.append(torch.cat([vectors, gradient]).detach())
    text = "lookup, one-hot product and nn.Embedding: the same vectors and gradients"
    check_close("lookup", text, torch.stack([found[0], found[0]]), torch.stack(found[1:]))


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
        """inputs (B, T), state (B, 2H) -> logits (B, T, V), state after the last input (B, 2H).

        The first half of a state is the text's vector: every step sees it, and none changes it.
        """
        text, hidden = state.chunk(2, dim=1)
        seen = text[:, None].expand(-1, inputs.shape[1], -1)  # (B, T, H)
        vectors = torch.cat([self.embedding(inputs), seen], dim=-1)
        outputs, last = self.gru(vectors, hidden[None].contiguous())
        return self.head(outputs), torch.cat([text, last[0]], dim=1)

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
        _, text = self.encoder(source)
        return torch.cat([text, text], dim=1)

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


@torch.no_grad()
def greedy(step: Step, state: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Always the most likely symbol: states (B, 2H) -> symbols (B, length), their log p (B,)."""
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


def after_end(log_p: Tensor, last: Tensor) -> Tensor:
    """log p (B, V) as it is, but where the last symbol (B,) was END, only END can follow."""
    only_end = torch.full_like(log_p, float("-inf"))
    only_end[:, END] = 0.0
    return torch.where((last == END)[:, None], only_end, log_p)


def show_training(cfg: Config, data: DateSet) -> nn.Module:
    print("\n[3] The whole answer is known in training, so that all its places are learned at once")
    batch = data.x_train[:16], data.y_train[:16]
    model = make_model(cfg)
    first = teacher_forced_loss(model, batch).item()
    check("first-loss", "the first loss is {}, near ln 71 = 4.26", first, above=4.0, below=4.6)
    adam = torch.optim.Adam(model.parameters(), lr=1e-2)
    text = "16 dates are learned by heart: {}"
    overfits("overfits", text, model, batch, teacher_forced_loss, adam)

    written, score = answer(model, batch[0])
    at_once = teacher_forced_loss(model, (batch[0], written))
    text = "one call with its own answers gives the log p that they had symbol by symbol"
    check_close("forced", text, -ISO_LENGTH * at_once, score.mean(), atol=1e-4)
    text = "left alone it writes a share of {} of their last figures rightly"
    depends_on_input("depends", text, written[:, -2], batch[1][:, -2])
    return model


def show_test(cfg: Config, data: DateSet) -> dict:
    print("\n[4] Dates that it never saw, and a form that it never saw")
    no_leak("no-leak", "no date stands in two of the three parts", *data.fingerprints())
    model, curves = train(cfg, data)
    source, target = data.test()
    written, _ = answer(model, source)
    for row, symbols in zip(source[:5], written):
        print(f"  {dates.decode(row):<22} -> {dates.decode(symbols)}")
    linear = exact(dates.linear_answers(data, source), target)
    right = exact(written, target)
    text = f"a share of {{}} of them is right in all places, by a linear model {linear:.3f}"
    expect("exact", text, right, at_least=0.9)
    text = "but of those written like “1950, January 1” only {}: it has learned twelve forms"
    expect("other-form", text, curves["unseen form"][-1], at_most=0.1)
    return {"exact": right, "linear": linear, "curves": curves}


@torch.no_grad()
def beam_search(step: Step, state: Tensor, width: int, length: int) -> tuple[Tensor, Tensor]:
    """From one state (1, 2H): K answers (K, length) and their log p (K,), best first."""
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


def show_beam(cfg: Config, data: DateSet, model: nn.Module) -> None:
    print("\n[5] Several answers are kept at each place, not the best one only")
    decoder = Decoder(4, 4, 8).double()
    state = torch.randn(1, 16, dtype=torch.float64)
    found, score = beam_search(decoder.step, state, width=4**4, length=4)
    log_p = exhaustive(decoder, state)  # of all answers, 0000 to 3333
    number = (found * torch.tensor([64, 16, 4, 1])).sum(dim=1)
    theirs = torch.stack([log_p[number], log_p.sort(descending=True)[0]])
    text = "4 symbols, 4 places: a beam of 256 lists all answers, with the log p of trying each"
    check_close("exhaustive", text, torch.stack([score, score]), theirs)

    ours = []
    for width in (1, 2, 3):
        symbols, score = beam_search(trap, torch.zeros(1, 1), width, length=4)
        ours.append(score[0].exp().item())
        print(f"  beam {width}: {symbols[0].tolist()} with probability {ours[-1]:.4f}")
    _, alone = greedy(trap, torch.zeros(1, 1), length=4)
    text = "greed finds 0.187, a beam of 2 only 0.1125, and a beam of 3 finds 0.187 again"
    check_close("trap", text, [alone.exp().item(), *ours], [0.187, 0.187, 0.1125, 0.187], atol=1e-6)

    # One that has learned 16 dates is unsure of others.
    step = model.decoder.step
    found = [beam_search(step, s[None], 4, ISO_LENGTH) for s in model.start(data.x_val[:200])]
    beam = torch.stack([score[0] for _, score in found])
    gain = (beam - answer(model, data.x_val[:200])[1]).mean()
    expect("beam", "200 dates: a beam of 4 raises the mean log p by {}", gain, above=0.02)


# Pictures and helpers: skip on a first reading


def make_model(cfg: Config) -> Seq2Seq:
    """The same seed gives the same first weights."""
    torch.manual_seed(cfg.seed)
    return Seq2Seq(SYMBOLS, 32, cfg.hidden_dim).to(cfg.torch_device())


def train(cfg: Config, data: DateSet) -> tuple[nn.Module, dict[str, list[float]]]:
    """The model, and the shares right after each pass. The rate rises first, then falls to 0."""
    model = make_model(cfg)
    batches = Batches(data.x_train, data.y_train, batch_size=64, shuffle=True, seed=cfg.seed)
    adam = torch.optim.Adam(model.parameters(), lr=8e-3, betas=(0.9, 0.99))
    steps = cfg.epochs * len(batches)
    rate = torch.optim.lr_scheduler.OneCycleLR(adam, 8e-3, steps, pct_start=0.2)
    tests = {"known forms": (data.x_val, data.y_val), "unseen form": dates.other_form(cfg)}
    curves = {name: [] for name in tests}
    for _ in range(cfg.epochs):
        fit(model, batches, adam, teacher_forced_loss, scheduler=rate, grad_clip=1.0, quiet=True)
        for name, (source, target) in tests.items():
            curves[name].append(exact(answer(model, source)[0], target))
    return model, curves


@torch.no_grad()
def answer(model: Seq2Seq, source: Tensor) -> tuple[Tensor, Tensor]:
    """Greedy answers (B, T) and their log p (B,)."""
    return greedy(model.decoder.step, model.start(source), ISO_LENGTH)


def exact(written: Tensor, target: Tensor) -> float:
    return (written == target).all(dim=1).float().mean().item()


def exhaustive(decoder: Decoder, state: Tensor) -> Tensor:
    """log p of every answer of four symbols at four places (256,)."""
    answers = torch.cartesian_prod(*[torch.arange(4)] * 4)
    inputs = teacher_inputs(answers)
    logits, _ = decoder(inputs, state.expand(256, -1))
    log_p = after_end(logits.log_softmax(dim=-1).flatten(0, 1), inputs.flatten())
    return log_p.gather(1, answers.reshape(-1, 1)).reshape(256, 4).sum(dim=1)


def trap(symbols: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """A step of a made-up language: the next symbol follows from the last one, without a state."""
    p = torch.zeros(11, 11)
    p[START, 3:5] = torch.tensor([0.55, 0.45])
    p[3, 5:8] = torch.tensor([0.34, 0.33, 0.33])  # after 3: one of three, and then the end
    p[5:8, END] = 1.0
    p[4, 8:10] = 0.5  # after 4: one of two, and then the end or another symbol
    p[8:10, [END, 10]] = 0.5
    return p.log()[symbols], state


def draw_curves(cfg: Config, curves: dict[str, list[float]]) -> None:
    figure, axis = new_figure(size=(8, 4.4))
    plot_curves(axis, curves, xlabel="pass", ylabel="share right in all places")
    axis.set_title("Unseen dates are soon read, an unseen form is not")
    save_figure(figure, cfg.out / "curves")


def run(cfg: Config) -> dict:
    data = dates.load_dates(cfg)
    show_embedding(cfg)
    show_encoder(cfg, data)
    unsure = show_training(cfg, data)
    metrics = show_test(cfg, data)
    show_beam(cfg, data, unsure)
    draw_curves(cfg, metrics["curves"])
    return metrics


if __name__ == "__main__":
    main(run, Config, __doc__)
