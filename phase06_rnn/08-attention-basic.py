"""6.8 Attention: looking back instead of remembering
注意力入门：与其记住，不如回头看

You will be able to answer
    1. What does one look back compute?   show_attend    by-hand, padding, same
    2. When does the decoder ask?         show_decoders  asks
    3. Can it learn?                      show_learning  overfits, depends
    4. What does looking gain?            show_reversal  plain, slow, looking
    5. Do the weights say what is used?   show_weights   mass, neighbour
Predict   plain_20: 20 letters backwards, what share does a model without attention get right?
Run       python phase06_rnn/08-attention-basic.py                         about a minute
Needs     phase06_rnn/07-seq2seq
Reference F.scaled_dot_product_attention
Notation  B batch  S, T lengths of text and answer  D, H widths  V symbols
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from common.checks import check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.data.dates import PAD, START
from common.figures import BLUE, GREY, ORANGE, RED, new_figure, save_figure
from common.lessons import load_lesson
from common.training import fit

seq2seq = load_lesson("phase06_rnn/07-seq2seq")
Decoded = tuple[Tensor, Tensor, Tensor]  # logits, state, weights
SYMBOLS = 3 + 26  # PAD, START and END, then the letters


@dataclass
class Config(LessonConfig):
    threads = 1
    hidden_dim: int = param(64, "width H of the state", tiny=32)
    steps: int = param(600, "steps on strings, each of 64 of one length", tiny=6, low=6)
    tests: int = param(200, "strings of each length to test", tiny=10)


def attend(scores: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of the values, weighted by scores (B, T, S), for each of T queries.

    values (B, S, H), mask (B, S), False at padding -> contexts (B, T, H), weights (B, T, S).
    """
    # practice: A weighted mean
    # Before the softmax, so that the other weights sum to 1.
    scores = scores.masked_fill(~mask[:, None], float("-inf"))
    weights = scores.softmax(dim=-1)
    return weights @ values, weights
    # end practice


def show_attend(cfg: Config) -> None:
    print("\n[1] Scores become weights, and the weights a mean of what was read")
    scores = torch.tensor([[[2.0, 1.0, 0.0]]], dtype=torch.float64).log()
    values = torch.tensor([[[3.0], [9.0], [6.0]]], dtype=torch.float64)
    mask = torch.ones(1, 3, dtype=torch.bool)
    found = torch.cat(attend(scores, values, mask), dim=2)[0, 0]
    text = "scores ln 2, ln 1 and ln 0: weights 2/3, 1/3 and 0, and 2/3 · 3 + 1/3 · 9 = 5"
    check_close("by-hand", text, found, [5, 2 / 3, 1 / 3, 0])

    queries = torch.randn(2, 4, 8, dtype=torch.float64, requires_grad=True)
    memory = torch.randn(2, 5, 8, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    ours, weights = attend(queries @ memory.transpose(1, 2), memory, mask)
    check_close("padding", "no weight lies behind the end of a text", weights[1, :, 3:].sum(), 0.0)
    theirs = F.scaled_dot_product_attention(queries, memory, memory, mask[:, None], scale=1.0)
    found = []
    for out in (ours, theirs):
        gradients = torch.autograd.grad(out.square().sum(), (queries, memory))
        found.append(torch.cat([out.flatten(), *(each.flatten() for each in gradients)]))
    text = "dot products as scores: torch's attention, gradients too"
    check_close("same", text, *found)


class LuongDecoder(nn.Module):
    """The GRU makes its step first; then its new state asks: q W k (Luong et al. 2015, "general").

    What it sees does not go back into the GRU, so that all T steps can be made in one call. The
    paper also has "input feeding", which does send it back.
    """

    def __init__(self, symbols: int, dim: int, hidden_dim: int):
        super().__init__()
        self.embedding = seq2seq.Embedding(symbols, dim)
        self.gru = nn.GRU(dim, hidden_dim, batch_first=True)
        self.query = nn.Linear(hidden_dim, hidden_dim, bias=False)
        self.mix = nn.Linear(2 * hidden_dim, hidden_dim)
        self.head = nn.Linear(hidden_dim, symbols)

    def forward(self, inputs: Tensor, state: Tensor, memory: Tensor, mask: Tensor) -> Decoded:
        """inputs (B, T), state (B, H), memory (B, S, H): the encoder's states, mask (B, S).

        Returns logits (B, T, V), the last state (B, H) and the weights (B, T, S).
        """
        # practice: Luong's decoder
        states, last = self.gru(self.embedding(inputs), state[None])
        scores = self.query(states) @ memory.mT  # (B, T, S)
        context, weights = attend(scores, memory, mask)
        mixed = self.mix(torch.cat([context, states], dim=-1)).tanh()
        return self.head(mixed), last[0], weights
        # end practice


class BahdanauDecoder(nn.Module):
    """Looks first, with its old state q: v · tanh(W q + U k) (Bahdanau et al. 2015).

    What it sees goes into the step of its GRU, so that the steps can only be made in turn.
    """

    def __init__(self, symbols: int, dim: int, hidden_dim: int):
        super().__init__()
        self.embedding = seq2seq.Embedding(symbols, dim)
        self.query = nn.Linear(hidden_dim, hidden_dim, bias=False)
        self.key = nn.Linear(hidden_dim, hidden_dim, bias=False)
        self.v = nn.Linear(hidden_dim, 1, bias=False)
        self.cell = nn.GRUCell(dim + hidden_dim, hidden_dim)
        self.head = nn.Linear(2 * hidden_dim, symbols)

    def score(self, state: Tensor, memory: Tensor) -> Tensor:
        """A small network on the state (B, H) and each of memory (B, S, H) -> (B, 1, S)."""
        # practice: Bahdanau's score
        query = self.query(state)[:, None]  # (B, 1, H)

        # Broadcasting adds the one query to each of the S keys.
        hidden = (query + self.key(memory)).tanh()  # (B, S, H)
        return self.v(hidden).mT
        # end practice

    def forward(self, inputs: Tensor, state: Tensor, memory: Tensor, mask: Tensor) -> Decoded:
        """As LuongDecoder."""
        # practice: Bahdanau's decoder
        outputs = []
        seen = []
        for vectors in self.embedding(inputs).unbind(dim=1):
            context, weights = attend(self.score(state, memory), memory, mask)
            context = context[:, 0]  # (B, H)

            # The next step needs what this one has seen.
            state = self.cell(torch.cat([vectors, context], dim=1), state)
            outputs.append(self.head(torch.cat([state, context], dim=1)))
            seen.append(weights)
        return torch.stack(outputs, dim=1), state, torch.cat(seen, dim=1)
        # end practice


def show_decoders(cfg: Config) -> None:
    print("\n[2] Luong's decoder asks after the step of its GRU, Bahdanau's before it")
    memory = torch.randn(1, 5, 8)
    mask = torch.ones(1, 5, dtype=torch.bool)
    first = torch.randn(1, 8)
    inputs = torch.tensor([[1, 3, 4, 5]])
    changed = torch.tensor([[1, 3, 5, 5]])  # another symbol at step 2; steps begin at 0
    moved = []
    for decoder in (LuongDecoder(6, 4, 8), BahdanauDecoder(6, 4, 8)):
        _, _, before = decoder(inputs, first, memory, mask)
        _, _, after = decoder(changed, first, memory, mask)
        moved.append((before != after)[0].any(dim=1))  # (T,)
    text = "another symbol at step 2 moves Luong's weights at 2 and 3, Bahdanau's only at 3"
    check_close("asks", text, torch.stack(moved), [[False] * 2 + [True] * 2, [False] * 3 + [True]])


class BiEncoder(nn.Module):
    """Reads a text from both ends (lesson 6.6), with half the width for each direction."""

    def __init__(self, symbols: int, dim: int, hidden_dim: int):
        super().__init__()
        self.embedding = seq2seq.Embedding(symbols, dim)
        self.gru = nn.GRU(dim, hidden_dim // 2, bidirectional=True)

    def forward(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """source (B, S), filled up with PAD -> the states (B, S, H), the last of each (B, H)."""
        lengths = (source != PAD).sum(dim=1).cpu()
        x = self.embedding(source)
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        states, last = self.gru(packed)
        states, _ = pad_packed_sequence(states, batch_first=True, total_length=source.shape[1])
        return states, torch.cat([last[0], last[1]], dim=1)


class Attention(nn.Module):
    """Encoder and decoder. Between them pass all states of the text, not the last one only."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module):
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def decode(self, source: Tensor, inputs: Tensor) -> Decoded:
        """source (B, S), what the decoder is fed (B, T) -> what the decoder returns."""
        memory, state = self.encoder(source)
        return self.decoder(inputs, state, memory, source != PAD)

    def forward(self, source: Tensor, inputs: Tensor) -> Tensor:
        return self.decode(source, inputs)[0]


def show_learning(cfg: Config) -> None:
    print("\n[3] A first trial: 16 strings of 8 letters, to be written backwards")
    strings = reversed_strings(cfg, 16, 8)
    model = make_model(cfg, BahdanauDecoder)
    adam = torch.optim.Adam(model.parameters(), lr=1e-2)
    text = "Bahdanau's learns them by heart: the loss falls to {}"
    overfits("overfits", text, model, strings, seq2seq.teacher_forced_loss, adam)
    text = "left alone it writes {} of their last letters rightly"
    depends_on_input("depends", text, answer(model, strings[0], 8)[:, -1], strings[1][:, -1])


def show_reversal(cfg: Config) -> tuple[nn.Module, dict[str, dict[int, float]]]:
    print("\n[4] Strings of 4 to 30 letters backwards: from one vector, or from all states")
    batches = string_batches(cfg, longest=30, steps=2 * cfg.steps)
    plain = train(make_model(cfg, None), batches[: cfg.steps])
    longer = train(make_model(cfg, None), batches)
    attention = train(make_model(cfg, LuongDecoder), batches[: cfg.steps])

    curves = {}
    for name, model in (("plain", plain), ("plain, 2x steps", longer), ("attention", attention)):
        curves[name] = {n: letters_right(cfg, model, n) for n in (5, 10, 15, 20, 25, 30, 40)}
        print(f"  {name:<16}" + "  ".join(f"{n}: {share:.3f}" for n, share in curves[name].items()))
    text = "from one vector {} of the letters are right, in strings of 20"
    expect("plain", text, curves["plain"][20], below=0.5)
    gain = curves["plain, 2x steps"][10] - curves["plain"][10]
    text = "twice the steps add {} in strings of 10: there it had not finished learning"
    expect("slow", text, gain, at_least=0.05)
    text = "with Luong's attention {} are right, in strings of 20"
    expect("looking", text, curves["attention"][20], at_least=0.9)
    return attention, curves


def show_weights(cfg: Config, model: nn.Module) -> tuple[list[Tensor], dict[str, float]]:
    print("\n[5] Where the weights lie: read from both ends, and from the left only")
    weights = mirrored_weights(cfg, model, 20)
    mass = weights.diagonal(dim1=1, dim2=2).mean()
    text = "read from both ends: {} of the weight lies on the letter to write next"
    expect("mass", text, mass, at_least=0.9)

    left = make_model(cfg, LuongDecoder, seq2seq.Encoder)
    train(left, string_batches(cfg, longest=12, steps=cfg.steps))
    right = letters_right(cfg, left, 10)
    print(f"  read from the left: {right:.3f} of the letters are right, in strings of 10")
    found = mirrored_weights(cfg, left, 10)
    # The first letter written has no neighbour: it is the last one of the text.
    on_letter = found.diagonal(dim1=1, dim2=2)[:, 1:].mean()
    # The letter read after it stands one place to its right, in the mirrored text to its left.
    neighbour = found.diagonal(offset=-1, dim1=1, dim2=2).mean()
    text = f"and {on_letter:.3f} of the weight lies on that letter, {{}} on the one read after it"
    expect("neighbour", text, neighbour, at_least=0.8)
    shares = {"left": right, "on_letter": on_letter.item(), "neighbour": neighbour.item()}
    return [mirrored_weights(cfg, model, 10)[0], found[0]], shares


# Pictures and helpers: skip on a first reading


def make_model(cfg: Config, decoder: type | None, encoder: type = BiEncoder) -> nn.Module:
    """Without a decoder: lesson 6.7's, with the same encoder. Same seed, same start."""
    sizes = (SYMBOLS, 32, cfg.hidden_dim)
    torch.manual_seed(cfg.seed)
    reader = encoder(*sizes)
    if decoder is None:
        model = seq2seq.Seq2Seq(*sizes)
        model.encoder = reader
    else:
        model = Attention(reader, decoder(*sizes))
    return model.to(cfg.torch_device())


def reversed_strings(cfg: Config, n: int, length: int, seed: int = 10**9) -> tuple[Tensor, Tensor]:
    """n random strings of so many letters, and each of them backwards: (n, length) twice."""
    generator = torch.Generator().manual_seed(seed + cfg.seed)
    source = torch.randint(3, SYMBOLS, (n, length), generator=generator).to(cfg.torch_device())
    return source, source.flip(1)


def string_batches(cfg: Config, longest: int, steps: int) -> list[tuple[Tensor, Tensor]]:
    """Each batch has one length, so that nothing is padded, and a seed that no test has."""
    sizes = cfg.rng().integers(4, longest + 1, size=steps).tolist()
    return [reversed_strings(cfg, 64, n, seed=1000 * step) for step, n in enumerate(sizes)]


def train(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> nn.Module:
    """One epoch; the rate rises for a fifth of it and then falls to 0."""
    adam = torch.optim.Adam(model.parameters(), lr=8e-3, betas=(0.9, 0.99))
    rate = torch.optim.lr_scheduler.OneCycleLR(adam, 8e-3, len(batches), pct_start=0.2)
    loss_fn = seq2seq.teacher_forced_loss
    fit(model, batches, adam, loss_fn, scheduler=rate, grad_clip=1.0, quiet=True)
    return model


def letters_right(cfg: Config, model: nn.Module, length: int) -> float:
    source, target = reversed_strings(cfg, cfg.tests, length)
    return (answer(model, source, length) == target).float().mean().item()


@torch.no_grad()
def mirrored_weights(cfg: Config, model: nn.Module, length: int) -> Tensor:
    """The weights (B, T, S), the text mirrored: place t of the answer belongs to place t of it."""
    source, target = reversed_strings(cfg, cfg.tests, length)
    _, _, weights = model.decode(source, seq2seq.teacher_inputs(target))
    return weights.flip(2)


@torch.no_grad()
def answer(model: nn.Module, source: Tensor, length: int) -> Tensor:
    """Greedy answers (B, length). It begins anew for each symbol: slower, but for any model."""
    symbols = torch.full_like(source[:, :1], START)
    for _ in range(length):
        chosen = model(source, symbols)[:, -1].argmax(dim=1)
        symbols = torch.cat([symbols, chosen[:, None]], dim=1)
    return symbols[:, 1:]


def draw_looks(cfg: Config, curves: dict, looks: list[Tensor]) -> None:
    figure, axes = new_figure(1, 3, size=(16, 5))
    for (name, shares), colour in zip(curves.items(), [ORANGE, RED, BLUE]):
        axes[0].plot(list(shares), list(shares.values()), "o-", color=colour, label=name)
    axes[0].axvline(30, color=GREY, linestyle="--", label="longest in training")
    axes[0].axhline(1 / 26, color=GREY, linestyle=":", label="chance")
    axes[0].set(xlabel="letters in the string", ylabel="share of letters right", ylim=(0, 1.05))
    axes[0].set_title("From one vector: the longer, the fewer right")
    axes[0].legend(loc="center right", bbox_to_anchor=(1, 0.6), frameon=True, edgecolor="white")
    titles = ("Weights, both ends: the letter to write", "Weights, left only: the next one read")
    for axis, weights, title in zip(axes[1:], looks, titles):
        axis.imshow(weights.flip(1).cpu(), cmap="Blues", vmin=0, vmax=1)
        axis.plot([9, 0], [0, 9], ":", color=ORANGE, label="the letter to write")
        axis.set(xlabel="letter read", ylabel="letter written", title=title)
        axis.set(xticks=range(10), yticks=range(10))
        axis.grid(False)
    axes[2].legend(loc="upper left")
    save_figure(figure, cfg.out / "looks")


def run(cfg: Config) -> dict:
    show_attend(cfg)
    show_decoders(cfg)
    show_learning(cfg)
    attention, curves = show_reversal(cfg)
    looks, shares = show_weights(cfg, attention)
    draw_looks(cfg, curves, looks)
    at_10 = {"plain_10": curves["plain"][10], "longer_10": curves["plain, 2x steps"][10]}
    at_20 = {"plain_20": curves["plain"][20], "attention_20": curves["attention"][20]}
    return at_10 | at_20 | shares | {"curves": curves}


if __name__ == "__main__":
    main(run, Config, __doc__)
