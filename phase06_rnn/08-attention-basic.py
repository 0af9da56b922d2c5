"""6.8 Attention: looking back instead of remembering
注意力入门：与其记住，不如回头看

You will be able to answer
    1. What does one look back compute?     show_attend    by-hand, padding, same
    2. When and how does the decoder look?  show_decoders  luong, bahdanau
    3. Can it learn?                        show_learning  first-loss, overfits, depends
    4. What does looking gain, and where?   show_reversal  plain, looking, mass
    5. Does it learn dates sooner, too?     show_dates     dates, sooner
Predict   plain_20: reversing 20 letters, what share does a model without attention get right?
Run       python phase06_rnn/08-attention-basic.py                         about 50 s
Needs     phase06_rnn/07-seq2seq
Reference F.scaled_dot_product_attention
Notation  B batch  S, T lengths of text and answer  D, H widths  V symbols
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.data import dates
from common.data.batches import Batches
from common.data.dates import ISO_LENGTH, PAD, START
from common.figures import BLUE, GREY, ORANGE, new_figure, save_figure
from common.lessons import load_lesson
from common.training import fit

seq2seq = load_lesson("phase06_rnn/07-seq2seq")
Looked = tuple[Tensor, Tensor, Tensor]  # logits, state, weights
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
    behind = weights[1, :, 3:].sum().item()
    check("padding", "a weight of {} lies behind the end of a text", behind, at_least=0, at_most=0)
    theirs = F.scaled_dot_product_attention(queries, memory, memory, mask[:, None], scale=1.0)
    found = []
    for out in (ours, theirs):
        gradients = torch.autograd.grad(out.square().sum(), (queries, memory))
        found.append(torch.cat([out.flatten(), *(each.flatten() for each in gradients)]))
    text = "dot products as scores: torch's attention, gradients too"
    check_close("same", text, *found)


class LuongDecoder(nn.Module):
    """The GRU makes its step first; then its new state asks: q W k (Luong et al. 2015, "general").

    What it sees does not go back into the GRU, so that all T steps can be made in one call.
    """

    def __init__(self, symbols: int, dim: int, hidden_dim: int):
        super().__init__()
        self.embedding = seq2seq.Embedding(symbols, dim)
        self.gru = nn.GRU(dim, hidden_dim, batch_first=True)
        self.query = nn.Linear(hidden_dim, hidden_dim, bias=False)
        self.mix = nn.Linear(2 * hidden_dim, hidden_dim)
        self.head = nn.Linear(hidden_dim, symbols)

    def forward(self, inputs: Tensor, state: Tensor, memory: Tensor, mask: Tensor) -> Looked:
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

    def forward(self, inputs: Tensor, state: Tensor, memory: Tensor, mask: Tensor) -> Looked:
        """As LuongDecoder."""
        # practice: Bahdanau's decoder
        outputs = []
        looks = []
        for vectors in self.embedding(inputs).unbind(dim=1):
            context, weights = attend(self.score(state, memory), memory, mask)
            context = context[:, 0]  # (B, H)

            # The next step needs what this one has seen.
            state = self.cell(torch.cat([vectors, context], dim=1), state)
            outputs.append(self.head(torch.cat([state, context], dim=1)))
            looks.append(weights)
        return torch.stack(outputs, dim=1), state, torch.cat(looks, dim=1)
        # end practice


def show_decoders(cfg: Config) -> None:
    print("\n[2] Luong's decoder looks after the step of its GRU, Bahdanau's before it")
    inputs = torch.tensor([[1, 3, 4], [1, 5, 3]])
    memory = torch.randn(2, 5, 8)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    first = torch.randn(2, 8)
    luong = LuongDecoder(6, 4, 8)
    states, _ = luong.gru(luong.embedding(inputs), first[None])
    query = luong.query(states)
    seen = F.scaled_dot_product_attention(query, memory, memory, mask[:, None], scale=1.0)
    theirs = luong.head(luong.mix(torch.cat([seen, states], dim=-1)).tanh())
    text = "Luong: the GRU, torch's attention on its states, both mixed: the same logits"
    check_close("luong", text, luong(inputs, first, memory, mask)[0], theirs)

    bahdanau = BahdanauDecoder(6, 4, 8)
    state = first[1]
    logits = []
    for symbol in inputs[1]:
        pairs = [bahdanau.query(state) + bahdanau.key(key) for key in memory[1, :3]]
        weights = torch.stack([bahdanau.v(pair.tanh()) for pair in pairs]).softmax(dim=0)
        context = (weights * memory[1, :3]).sum(dim=0)
        vector = bahdanau.embedding.weight[symbol]
        state = bahdanau.cell(torch.cat([vector, context]), state)
        logits.append(bahdanau.head(torch.cat([state, context])))
    text = "Bahdanau: one position after the other, one step after the other: the same logits"
    ours, last, _ = bahdanau(inputs, first, memory, mask)
    ours = torch.cat([ours[1].flatten(), last[1]])
    check_close("bahdanau", text, ours, torch.cat([*logits, state]))


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

    def look(self, source: Tensor, inputs: Tensor) -> Looked:
        """source (B, S), what the decoder is fed (B, T) -> what the decoder returns."""
        memory, state = self.encoder(source)
        return self.decoder(inputs, state, memory, source != PAD)

    def forward(self, source: Tensor, inputs: Tensor) -> Tensor:
        return self.look(source, inputs)[0]


def show_learning(cfg: Config) -> None:
    print("\n[3] A first trial: 16 strings of 8 letters, to be written backwards")
    strings = reversed_strings(cfg, 16, 8)
    model = make_model(cfg, LuongDecoder, SYMBOLS)
    first = seq2seq.teacher_forced_loss(model, strings).item()
    check("first-loss", "the first loss is {}, near ln 29 = 3.37", first, above=3.2, below=3.6)
    adam = torch.optim.Adam(model.parameters(), lr=1e-2)
    overfits("overfits", "learned by heart: {}", model, strings, seq2seq.teacher_forced_loss, adam)
    text = "left alone it writes a share of {} of their last letters rightly"
    depends_on_input("depends", text, answer(model, strings[0], 8)[:, -1], strings[1][:, -1])


def show_reversal(cfg: Config) -> tuple[Tensor, dict[str, dict[int, float]]]:
    print("\n[4] Strings of 4 to 30 letters backwards: from one vector, or from all states")
    sizes = cfg.rng().integers(4, 31, size=cfg.steps).tolist()  # one a batch: no padding
    batches = [reversed_strings(cfg, 64, n, seed=1000 * step) for step, n in enumerate(sizes)]
    curves = {"plain": {}, "attention": {}}
    for name, decoder in [("plain", None), ("attention", LuongDecoder)]:
        model = make_model(cfg, decoder, SYMBOLS)
        train(model, batches)
        for length in (5, 10, 15, 20, 25, 30, 40):
            source, target = reversed_strings(cfg, cfg.tests, length)
            right = answer(model, source, length) == target
            curves[name][length] = right.float().mean().item()
        print(f"  {name:<10}" + "  ".join(f"{n}: {share:.3f}" for n, share in curves[name].items()))
    text = "of 20 letters from one vector, a share of {} is right"
    expect("plain", text, curves["plain"][20], below=0.5)
    expect("looking", "with attention it is {}", curves["attention"][20], at_least=0.9)

    source, target = reversed_strings(cfg, cfg.tests, 20)
    with torch.no_grad():
        _, _, weights = model.look(source, seq2seq.teacher_inputs(target))
    # The letter at place t of the answer stands at place S - 1 - t of the text.
    mass = weights.flip(2).diagonal(dim1=1, dim2=2).mean()
    expect(
        "mass", "a share of {} of the weight lies on the letter to write next", mass, at_least=0.9
    )
    return weights[0], curves


def show_dates(cfg: Config) -> tuple[dict[str, float], nn.Module, dates.DateSet]:
    print("\n[5] The dates of lesson 6.7, after one pass over them")
    data = dates.load_dates(cfg)
    source, target = data.test()
    right = {}
    for name, decoder in [("plain", None), ("bahdanau", BahdanauDecoder)]:
        model = make_model(cfg, decoder, dates.SYMBOLS)
        batches = Batches(data.x_train, data.y_train, batch_size=64, shuffle=True, seed=cfg.seed)
        train(model, batches)
        right[name] = seq2seq.exact(answer(model, source, ISO_LENGTH), target)
    text = "with Bahdanau's attention, after 250 steps, a share of {} is right"
    expect("dates", text, right["bahdanau"], at_least=0.2)
    expect("sooner", "after as many steps, the plain one gets {}", right["plain"], at_most=0.1)
    return right, model, data


# Pictures and helpers: skip on a first reading


def make_model(cfg: Config, decoder: type | None, symbols: int) -> nn.Module:
    """Without a decoder that looks: lesson 6.7's, with the same encoder. Same seed, same start."""
    torch.manual_seed(cfg.seed)
    encoder = BiEncoder(symbols, 32, cfg.hidden_dim)
    if decoder is None:
        model = seq2seq.Seq2Seq(symbols, 32, cfg.hidden_dim)
        model.encoder = encoder
    else:
        model = Attention(encoder, decoder(symbols, 32, cfg.hidden_dim))
    return model.to(cfg.torch_device())


def reversed_strings(cfg: Config, n: int, length: int, seed: int = 10**9) -> tuple[Tensor, Tensor]:
    """n random strings of so many letters, and each of them backwards: (n, length) twice."""
    generator = torch.Generator().manual_seed(seed + cfg.seed)
    source = torch.randint(3, SYMBOLS, (n, length), generator=generator).to(cfg.torch_device())
    return source, source.flip(1)


def train(model: nn.Module, batches: list | Batches) -> None:
    """One pass; the rate rises for a fifth of it and then falls to 0."""
    adam = torch.optim.Adam(model.parameters(), lr=8e-3, betas=(0.9, 0.99))
    rate = torch.optim.lr_scheduler.OneCycleLR(adam, 8e-3, len(batches), pct_start=0.2)
    loss_fn = seq2seq.teacher_forced_loss
    fit(model, batches, adam, loss_fn, scheduler=rate, grad_clip=1.0, quiet=True)


@torch.no_grad()
def answer(model: nn.Module, source: Tensor, length: int) -> Tensor:
    """Greedy answers (B, length). It begins anew for each symbol: slower, but for any model."""
    symbols = torch.full_like(source[:, :1], START)
    for _ in range(length):
        chosen = model(source, symbols)[:, -1].argmax(dim=1)
        symbols = torch.cat([symbols, chosen[:, None]], dim=1)
    return symbols[:, 1:]


def draw_looks(cfg: Config, curves: dict, strings: Tensor, model: nn.Module, x: Tensor) -> None:
    figure, axes = new_figure(1, 3, size=(15, 4.8))
    for (name, shares), colour in zip(curves.items(), [ORANGE, BLUE]):
        axes[0].plot(list(shares), list(shares.values()), "o-", color=colour, label=name)
    axes[0].axvline(30, color=GREY, linestyle="--")
    axes[0].text(30.5, 0.45, "longest in\ntraining", color=GREY)
    axes[0].set(xlabel="letters in the string", ylabel="share of letters right", ylim=(0, 1.05))
    axes[0].set_title("One vector fails as strings grow")
    axes[0].legend(loc=(0.3, 0.6))
    axes[1].imshow(strings.cpu(), cmap="Blues", vmin=0, vmax=1)
    axes[1].set(xlabel="letter read", ylabel="letter written", title="Reversing: from the end on")
    axes[1].set(xticks=range(0, 20, 5), yticks=range(0, 20, 5))
    text = dates.decode(x[0])
    written = answer(model, x, ISO_LENGTH)
    weights = model.look(x, seq2seq.teacher_inputs(written))[2].detach().cpu()
    axes[2].imshow(weights[0, :-1, : len(text)], cmap="Blues", vmin=0, vmax=1)
    axes[2].set_xticks(range(len(text)), text)
    axes[2].set_yticks(range(ISO_LENGTH - 1), dates.decode(written[0, :-1]).ljust(ISO_LENGTH - 1))
    axes[2].set_title("A date: the year first")
    for axis in axes[1:]:
        axis.grid(False)
    save_figure(figure, cfg.out / "looks")


def run(cfg: Config) -> dict:
    show_attend(cfg)
    show_decoders(cfg)
    show_learning(cfg)
    strings, curves = show_reversal(cfg)
    right, model, data = show_dates(cfg)
    draw_looks(cfg, curves, strings, model, data.x_val[:1])
    at_20 = {f"{name}_20": shares[20] for name, shares in curves.items()}
    return at_20 | right | {"curves": curves}


if __name__ == "__main__":
    main(run, Config, __doc__)
