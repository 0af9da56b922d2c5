"""6.8 Attention: looking back instead of remembering
注意力入门：与其记住，不如回头看

You will be able to answer
    1. What does one look back compute?             show_attend    by-hand, same, padding
    2. How do Luong and Bahdanau score a position?  show_scores    luong, bahdanau
    3. What does a decoder gain that can look?      show_reversal  first-loss, overfits, depends,
    4. Where does it look?                          show_where     mass, needed
    5. Does it help on dates, too?                  show_dates     step, dates, sooner
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
from common.data.dates import ISO_LENGTH, PAD
from common.figures import BLUE, GREY, ORANGE, new_figure, save_figure
from common.lessons import load_lesson
from common.training import fit

seq2seq = load_lesson("phase06_rnn/07-seq2seq")
LETTERS = 26
SYMBOLS = 3 + LETTERS  # before the letters stand PAD, START and END


@dataclass
class Config(LessonConfig):
    threads = 1
    dim: int = param(32, "width D of a symbol's vector", tiny=16)
    hidden_dim: int = param(64, "width H of the state", tiny=32)
    steps: int = param(600, "steps on strings, each of 64 of one length", tiny=2)
    longest: int = param(30, "longest string in training, the shortest has 4", low=5)
    passes: int = param(1, "passes over the dates")


def attend(scores: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """A weighted mean of the values for each query, more of those with a high score.

    scores (B, T, S), values (B, S, H), mask (B, S): False where there is only padding.
    Returns the contexts (B, T, H) and the weights (B, T, S), each row of which sums to 1.
    """
    # practice: A weighted mean
    # Before the softmax, so that the weights of what is left sum to 1.
    scores = scores.masked_fill(~mask[:, None], float("-inf"))
    weights = scores.softmax(dim=-1)
    return weights @ values, weights
    # end practice


def show_attend(cfg: Config) -> None:
    print("\n[1] Scores become weights, and the weights a mean of what was read")
    scores = torch.tensor([[[2.0, 1.0, 0.0]]], dtype=torch.float64).log()
    values = torch.tensor([[[3.0], [9.0], [6.0]]], dtype=torch.float64)
    mask = torch.ones(1, 3, dtype=torch.bool)
    context, weights = attend(scores, values, mask)
    text = "scores ln 2, ln 1 and ln 0: weights 2/3, 1/3 and 0, and 2/3 · 3 + 1/3 · 9 = 5"
    found = torch.cat([weights, context], dim=2)[0, 0]
    check_close("by-hand", text, found, torch.tensor([2 / 3, 1 / 3, 0, 5], dtype=torch.float64))

    queries = torch.randn(2, 4, 8, dtype=torch.float64, requires_grad=True)
    memory = torch.randn(2, 5, 8, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    ours, _ = attend(queries @ memory.transpose(1, 2), memory, mask)
    theirs = F.scaled_dot_product_attention(queries, memory, memory, mask[:, None], scale=1.0)
    found = []
    for out in (ours, theirs):
        gradients = torch.autograd.grad(out.square().sum(), (queries, memory))
        found.append(torch.cat([out.flatten(), *(each.flatten() for each in gradients)]))
    check_close("same", "dot products as scores: torch's attention, gradients too", *found)
    moved = gradients[1][1, 3:].abs().max()
    check("padding", "changing the padding changes the result by {}", moved, at_least=0, at_most=0)


class LuongScore(nn.Module):
    """Each query q with each key k: q W k (Luong et al. 2015, "general")."""

    def __init__(self, hidden_dim: int):
        super().__init__()
        self.weight = nn.Linear(hidden_dim, hidden_dim, bias=False)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """queries (B, T, H), keys (B, S, H) -> scores (B, T, S)."""
        return self.weight(queries) @ keys.transpose(1, 2)


class BahdanauScore(nn.Module):
    """A small network on each pair: v · tanh(W q + U k) (Bahdanau et al. 2015)."""

    def __init__(self, hidden_dim: int):
        super().__init__()
        self.query = nn.Linear(hidden_dim, hidden_dim, bias=False)
        self.key = nn.Linear(hidden_dim, hidden_dim, bias=False)
        self.v = nn.Linear(hidden_dim, 1, bias=False)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """queries (B, T, H), keys (B, S, H) -> scores (B, T, S)."""
        # practice: Bahdanau's score
        query = self.query(queries)[:, :, None]  # (B, T, 1, H)
        key = self.key(keys)[:, None]  # (B, 1, S, H)

        # Broadcasting pairs each query with each key.
        hidden = (query + key).tanh()  # (B, T, S, H)
        return self.v(hidden).squeeze(-1)
        # end practice


def show_scores(cfg: Config) -> None:
    print("\n[2] Two ways to say how well a query fits a key")
    queries = torch.randn(1, 2, 3, dtype=torch.float64)
    keys = torch.randn(1, 4, 3, dtype=torch.float64)
    luong = LuongScore(3).double()
    bahdanau = BahdanauScore(3).double()
    w = luong.weight.weight
    by_luong = torch.empty(1, 2, 4, dtype=torch.float64)
    by_bahdanau = torch.empty(1, 2, 4, dtype=torch.float64)
    for t, q in enumerate(queries[0]):
        for s, k in enumerate(keys[0]):
            by_luong[0, t, s] = k @ (w @ q)
            hidden = bahdanau.query.weight @ q + bahdanau.key.weight @ k
            by_bahdanau[0, t, s] = bahdanau.v.weight[0] @ hidden.tanh()
    text = "Luong: each of 2 x 4 scores is k · W q"
    check_close("luong", text, luong(queries, keys), by_luong)
    text = "Bahdanau: each is v · tanh(W q + U k)"
    check_close("bahdanau", text, bahdanau(queries, keys), by_bahdanau)


class BiEncoder(nn.Module):
    """Reads a text from both ends (lesson 6.6), with half the width for each direction."""

    def __init__(self, symbols: int, dim: int, hidden_dim: int):
        super().__init__()
        self.embedding = seq2seq.Embedding(symbols, dim)
        self.gru = nn.GRU(dim, hidden_dim // 2, batch_first=True, bidirectional=True)

    def forward(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """source (B, S), filled up with PAD -> a state for each place (B, S, H), the last (B, H)."""
        lengths = (source != PAD).sum(dim=1).cpu()
        vectors = self.embedding(source)
        packed = pack_padded_sequence(vectors, lengths, batch_first=True, enforce_sorted=False)
        states, last = self.gru(packed)
        states, _ = pad_packed_sequence(states, batch_first=True, total_length=source.shape[1])
        return states, torch.cat([last[0], last[1]], dim=1)


class LuongDecoder(nn.Module):
    """The decoder of lesson 6.7, which looks back after each step of its GRU."""

    def __init__(self, symbols: int, dim: int, hidden_dim: int):
        super().__init__()
        self.embedding = seq2seq.Embedding(symbols, dim)
        self.gru = nn.GRU(dim, hidden_dim, batch_first=True)
        self.score = LuongScore(hidden_dim)
        self.mix = nn.Linear(2 * hidden_dim, hidden_dim)
        self.head = nn.Linear(hidden_dim, symbols)

    def forward(
        self, inputs: Tensor, state: Tensor, memory: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """inputs (B, T), first state (B, H), the encoder's states (B, S, H), mask (B, S).

        Returns logits (B, T, V), the last state (B, H) and the weights (B, T, S).
        """
        # practice: Luong's decoder
        # What it saw does not go back into the GRU, so that all T steps are one call.
        states, last = self.gru(self.embedding(inputs), state[None])
        context, weights = attend(self.score(states, memory), memory, mask)
        mixed = self.mix(torch.cat([context, states], dim=-1)).tanh()
        return self.head(mixed), last[0], weights
        # end practice


class BahdanauDecoder(nn.Module):
    """Looks first, with the state that it comes from, and puts what it saw into the GRU."""

    def __init__(self, symbols: int, dim: int, hidden_dim: int):
        super().__init__()
        self.embedding = seq2seq.Embedding(symbols, dim)
        self.score = BahdanauScore(hidden_dim)
        self.cell = nn.GRUCell(dim + hidden_dim, hidden_dim)
        self.head = nn.Linear(2 * hidden_dim, symbols)

    def forward(
        self, inputs: Tensor, state: Tensor, memory: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As LuongDecoder."""
        # practice: Bahdanau's decoder
        outputs = []
        looks = []
        for vectors in self.embedding(inputs).unbind(dim=1):
            # One query, the state: the next step needs what this one has seen.
            context, weights = attend(self.score(state[:, None], memory), memory, mask)
            context = context[:, 0]  # (B, H)
            state = self.cell(torch.cat([vectors, context], dim=1), state)
            outputs.append(self.head(torch.cat([state, context], dim=1)))
            looks.append(weights)
        return torch.stack(outputs, dim=1), state, torch.cat(looks, dim=1)
        # end practice


class Attention(nn.Module):
    """Encoder and decoder, and between them all states of the text."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module):
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def look(self, source: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """source (B, S), what the decoder is fed (B, T) -> logits (B, T, V), weights (B, T, S)."""
        memory, state = self.encoder(source)
        logits, _, weights = self.decoder(inputs, state, memory, source != PAD)
        return logits, weights

    def forward(self, source: Tensor, inputs: Tensor) -> Tensor:
        return self.look(source, inputs)[0]
