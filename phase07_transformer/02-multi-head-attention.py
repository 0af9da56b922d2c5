"""7.2 Multi-head attention: several questions at once
多头注意力：同时提出几个查询

You will be able to answer
    1. What does a head compute?  show_heads   by-hand, apart
    2. Is it torch's layer?       show_torch   same, weights, dropped
    3. What is cross-attention?   show_memory  order, padding
    4. What does it cost?         show_cost    counted
    5. What do more heads gain?   show_lookup  overfits, depends, one, longer, two, four, many, look
Predict   heads_2: a vector asks for four digits at once: what share of them do two heads find?
Run       python phase07_transformer/02-multi-head-attention.py            about half a minute
Needs     phase07_transformer/01-self-attention
Reference nn.MultiheadAttention
Notation  B batch  T, S positions that ask, that answer  D width  N heads  K width of a head, D / N
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from common.checks import check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.figures import new_figure, save_figure
from common.lessons import load_lesson
from common.training import fit

self_attention = load_lesson("phase07_transformer/01-self-attention")
attention = self_attention.attention

LETTERS = 26
DIGITS = 10
PAIRS = 8
ASKED = 4


@dataclass
class Config(LessonConfig):
    threads = 1
    dim: int = param(64, "width D of the vectors, a multiple of 32", tiny=32)
    steps: int = param(600, "training steps, each of 64 lists", tiny=5)


class MultiHeadAttention(nn.Module):
    """Attention in n_heads parts of the width, side by side (Vaswani et al. 2017, 3.2.2).

    The weights (B, N, T, S) of the last call, before dropout, stay in `self.weights`.
    """

    def __init__(self, dim: int, n_heads: int, dropout: float = 0.0, bias: bool = True):
        super().__init__()
        if dim % n_heads != 0:
            raise ValueError(f"a width of {dim} cannot be divided among {n_heads} heads.")
        self.n_heads = n_heads
        self.query = nn.Linear(dim, dim, bias)
        self.key = nn.Linear(dim, dim, bias)
        self.value = nn.Linear(dim, dim, bias)
        self.out = nn.Linear(dim, dim, bias)
        self.dropout = nn.Dropout(dropout)
        self.weights = torch.empty(0)

    def split(self, x: Tensor) -> Tensor:
        """The width cut into heads, which then stand beside the batch: (B, T, D) -> (B, N, T, K)"""
        # practice: Split into heads
        x = x.unflatten(-1, (self.n_heads, -1))  # (B, T, N, K)
        return x.transpose(1, 2)
        # end practice

    def join(self, x: Tensor) -> Tensor:
        """The heads side by side again: (B, N, T, K) -> (B, T, D)"""
        # practice: Join the heads
        x = x.transpose(1, 2)  # (B, T, N, K)
        return x.flatten(start_dim=2)
        # end practice

    def forward(
        self, x: Tensor, memory: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """x (B, T, D) asks, memory (B, S, D) answers; without a memory, x itself. -> (B, T, D)

        mask: truth values that broadcast to (B, N, T, S), True where a position may look.
        """
        # practice: Multi-head attention
        if memory is None:
            memory = x
        query = self.split(self.query(x))  # (B, N, T, K)
        key = self.split(self.key(memory))  # (B, N, S, K)
        value = self.split(self.value(memory))

        outputs, weights = attention(query, key, value, mask)  # (B, N, T, K), (B, N, T, S)
        self.weights = weights.detach()
        if self.training and self.dropout.p > 0:
            # Some weights become 0, so that no output relies on one position: new means.
            outputs = self.dropout(weights) @ value
        return self.out(self.join(outputs))
        # end practice


def show_heads(cfg: Config) -> None:
    print("\n[1] Each head compares its own part of the width, and has weights of its own")
    x = torch.tensor([[[math.log(3), math.log(4)]]], dtype=torch.float64)
    memory = torch.tensor([[[1, 0], [0, 1]]], dtype=torch.float64)
    found = []
    for n_heads in (2, 1):
        layer = MultiHeadAttention(2, n_heads, bias=False).double()
        for part in (layer.query, layer.key, layer.value, layer.out):
            nn.init.eye_(part.weight)
        found.append(layer(x, memory)[0, 0].detach())
    print(f"  one head of width 2: ({found[1][0]:.2f}, {found[1][1]:.2f}), which sum to 1")
    text = "two heads of width 1: weights 3/4, 1/4 and 1/5, 4/5, so the output is (3/4, 4/5)"
    check_close("by-hand", text, found[0], [3 / 4, 4 / 5])

    layer = MultiHeadAttention(12, 3).double()
    x = torch.randn(2, 4, 12, dtype=torch.float64)
    memory = torch.randn(2, 5, 12, dtype=torch.float64)
    parts = []
    for rows in (slice(0, 4), slice(4, 8), slice(8, 12)):
        query = F.linear(x, layer.query.weight[rows], layer.query.bias[rows])
        key = F.linear(memory, layer.key.weight[rows], layer.key.bias[rows])
        value = F.linear(memory, layer.value.weight[rows], layer.value.bias[rows])
        parts.append(attention(query, key, value)[0])
    text = "three heads are three attentions of lesson 7.1, side by side, and a last layer"
    check_close("apart", text, layer(x, memory), layer.out(torch.cat(parts, dim=-1)))


def show_torch(cfg: Config) -> None:
    print("\n[2] torch's layer, with its weights copied; its mask says who may not look")
    ours = MultiHeadAttention(12, 3, dropout=0.3).double()
    theirs = nn.MultiheadAttention(12, 3, dropout=0.3, batch_first=True).double()
    for weight in theirs.parameters():
        nn.init.normal_(weight)
    load_torch(ours, theirs)

    x = torch.randn(2, 4, 12, dtype=torch.float64, requires_grad=True)
    memory = torch.randn(2, 5, 12, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(2, 3, 4, 5) < 0.6
    mask[..., 1] = True
    options = {"attn_mask": ~mask.flatten(0, 1), "average_attn_weights": False}
    ours.eval()
    theirs.eval()
    row = self_attention.with_gradients(ours(x, memory, mask), x, memory)
    outputs, weights = theirs(x, memory, memory, **options)
    text = "the same outputs and gradients, with a mask for each head"
    check_close("same", text, row, self_attention.with_gradients(outputs, x, memory))
    check_close("weights", "the same weights in each head", ours.weights, weights)

    ours.train()
    theirs.train()
    torch.manual_seed(cfg.seed)
    outputs = ours(x, memory, mask)
    torch.manual_seed(cfg.seed)
    theirs_dropped, _ = theirs(x, memory, memory, **options)
    check_close("dropped", "with the same seed, the same dropout", outputs, theirs_dropped)


def show_memory(cfg: Config) -> None:
    print("\n[3] Cross-attention: one sequence asks, another answers")
    layer = MultiHeadAttention(12, 3).double()
    x = torch.randn(2, 4, 12, dtype=torch.float64)
    memory = torch.randn(2, 5, 12, dtype=torch.float64)
    outputs = layer(x, memory)
    text = "the memory in another order: the outputs stay"
    check_close("order", text, layer(x, memory[:, [3, 0, 4, 2, 1]]), outputs)

    longer = torch.cat([memory, torch.randn(2, 2, 12, dtype=torch.float64)], dim=1)
    mask = (torch.arange(7) < 5).expand(2, 7)[:, None, None]  # (B, 1, 1, S)
    text = "two more positions in the memory, masked as padding: the outputs stay"
    check_close("padding", text, layer(x, longer, mask), outputs)


def products(length: int, dim: int) -> tuple[int, int]:
    """Multiplications for a sequence: in the four linear layers, and between its positions."""
    # practice: The cost
    # T rows times a D x D matrix, for query, key, value and out.
    layers = 4 * length * dim**2

    # A pair has a score and a share of the mean: K products each in N heads, and N · K is D.
    pairs = 2 * length**2 * dim
    return layers, pairs
    # end practice


def show_cost(cfg: Config) -> None:
    print("\n[4] Products: 4 T D² in the linear layers and 2 T² D between the positions")
    print("        T      D   linear layers           pairs   share of the pairs")
    for length, dim in ((128, 64), (128, 512), (1024, 512), (8192, 512), (8192, 4096)):
        layers, pairs = products(length, dim)
        share = pairs / (layers + pairs)
        print(f"  {length:7,}  {dim:5,}  {layers:14,}  {pairs:14,}   {share:18.2f}")

    formula = []
    counted = []
    for length, dim, n_heads in ((5, 16, 1), (5, 16, 2), (5, 16, 8), (40, 16, 4), (7, 24, 3)):
        formula.append(sum(products(length, dim)))
        layer = MultiHeadAttention(dim, n_heads)
        with FlopCounterMode(display=False) as counter:
            layer(torch.randn(1, length, dim))
        counted.append(counter.get_total_flops() // 2)  # a multiplication and an addition each
    text = "five layers with 1 to 8 heads: as many products as torch counts"
    check_close("counted", text, formula, counted)


class Lookup(nn.Module):
    """A list of pairs is the memory; four letters ask at once, in one vector, for their digits.

    pairs (B, 8, 2), asked (B, 4) -> logits (B, 4, 10).
    """

    def __init__(self, dim: int, n_heads: int):
        super().__init__()
        self.letter = nn.Embedding(LETTERS, dim)
        self.digit = nn.Embedding(DIGITS, dim)
        self.asked = nn.Embedding(ASKED * LETTERS, dim)  # a table for each of the four letters
        self.attention = MultiHeadAttention(dim, n_heads)
        outputs = ASKED * DIGITS
        self.head = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, outputs))

    def forward(self, pairs: Tensor, asked: Tensor) -> Tensor:
        letters, digits = pairs.unbind(dim=-1)  # (B, 8) each
        memory = self.letter(letters) + self.digit(digits)  # (B, 8, D)

        tables = LETTERS * torch.arange(ASKED, device=asked.device)
        question = self.asked(asked + tables).sum(dim=1, keepdim=True)  # (B, 1, D)
        x = question + self.attention(question, memory)
        return self.head(x[:, 0]).unflatten(1, (ASKED, DIGITS))


def show_lookup(cfg: Config) -> tuple[dict[str, float], dict[int, nn.Module]]:
    print("\n[5] 8 pairs of letter and digit; one vector asks for the digits of four letters")
    batch = lists(cfg, 16, seed=0)
    model = make_model(cfg, 4)
    adam = torch.optim.Adam(model.parameters(), lr=3e-3)
    overfits("overfits", "16 lists: the loss falls to {}", model, batch, cross_entropy, adam)
    pairs, asked, digits = batch
    text = "the answers depend on the list: {} of the first digits are right"
    depends_on_input("depends", text, model(pairs, asked).argmax(dim=2)[:, 0], digits[:, 0])

    test = lists(cfg, 2000, seed=1)
    models = {}
    scores = {}
    for n_heads in (1, 2, 4, 8, 32):
        models[n_heads] = train(cfg, make_model(cfg, n_heads), cfg.steps)
        scores[n_heads] = share_right(models[n_heads], test)
        size = sum(weight.numel() for weight in models[n_heads].parameters())
        print(f"  heads: {n_heads}, parameters: {size:,}, digits found: {scores[n_heads]:.3f}")
    longer = share_right(train(cfg, make_model(cfg, 1), 4 * cfg.steps), test)
    print("  one letter found, the other digits guessed: 1/4 + 3/4 · 1/10 = 0.325; two: 0.55")
    expect("one", "one head finds {} of the digits", scores[1], below=0.65)
    expect("longer", "one head with four times the steps finds {}", longer, below=0.85)
    expect("two", "two heads find {}", scores[2], above=0.6, below=0.9)
    expect("four", "four heads find {}", scores[4], at_least=0.95)
    expect("many", "32 heads, only 2 numbers wide, find {}", scores[32], below=0.6)

    look = looked_at(models[4], *test[:2])
    text = "for each letter asked, some head gives its pair {} of its weight, or more"
    expect("look", text, look.amax(dim=0).min(), at_least=0.8)
    named = {f"heads_{n_heads}": score for n_heads, score in scores.items()}
    return {"one_longer": longer} | named, models


# Pictures and helpers: skip on a first reading


@torch.no_grad()
def load_torch(ours: MultiHeadAttention, theirs: nn.Module) -> None:
    """Copy the weights of nn.MultiheadAttention, which keeps three layers in one matrix."""
    layers = (ours.query, ours.key, ours.value)
    for layer, weight in zip(layers, theirs.in_proj_weight.chunk(3)):
        layer.weight.copy_(weight)
    ours.out.weight.copy_(theirs.out_proj.weight)

    if theirs.in_proj_bias is not None:
        for layer, bias in zip(layers, theirs.in_proj_bias.chunk(3)):
            layer.bias.copy_(bias)
        ours.out.bias.copy_(theirs.out_proj.bias)


def lists(cfg: Config, n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """n lists, no letter twice: pairs (n, 8, 2), the letters asked (n, 4), their digits (n, 4)."""
    generator = torch.Generator().manual_seed(10**6 * cfg.seed + seed)
    letters = torch.rand(n, LETTERS, generator=generator).argsort(dim=1)[:, :PAIRS]
    digits = torch.randint(DIGITS, (n, PAIRS), generator=generator)
    places = torch.rand(n, PAIRS, generator=generator).argsort(dim=1)[:, :ASKED]
    batch = (torch.stack([letters, digits], dim=2), letters.gather(1, places))
    return tuple(each.to(cfg.torch_device()) for each in (*batch, digits.gather(1, places)))


def make_model(cfg: Config, n_heads: int) -> Lookup:
    torch.manual_seed(cfg.seed)
    return Lookup(cfg.dim, n_heads).to(cfg.torch_device())


def cross_entropy(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(*batch[:2]).flatten(0, 1), batch[2].flatten())


def train(cfg: Config, model: nn.Module, steps: int) -> nn.Module:
    batches = [lists(cfg, 64, seed=100 + step) for step in range(steps)]
    adam = torch.optim.Adam(model.parameters(), lr=3e-3)
    fit(model, batches, adam, cross_entropy, quiet=True)
    return model


@torch.no_grad()
def share_right(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> float:
    pairs, asked, digits = batch
    return (model(pairs, asked).argmax(dim=2) == digits).double().mean().item()


@torch.no_grad()
def looked_at(model: nn.Module, pairs: Tensor, asked: Tensor) -> Tensor:
    """The mean weight of each head on the pair of each letter asked: (N, 4)."""
    model(pairs, asked)
    weights = model.attention.weights[:, :, 0]  # (B, N, 8)
    is_pair = (pairs[:, :, :1] == asked[:, None]).to(weights.dtype)  # (B, 8, 4)
    return (weights @ is_pair).mean(dim=0)


@torch.no_grad()
def draw_heads(cfg: Config, models: dict[int, nn.Module]) -> None:
    figure, axes = new_figure(2, 1, size=(9, 5.6), height_ratios=(4, 1))
    pairs, asked, _ = lists(cfg, 1, seed=1)
    for axis, n_heads in zip(axes, (4, 1)):
        models[n_heads](pairs, asked)
        axis.imshow(models[n_heads].attention.weights[0, :, 0].cpu(), vmin=0, vmax=1, cmap="Blues")
        names = [f"{chr(ord('a') + letter)} {digit}" for letter, digit in pairs[0].tolist()]
        axis.set_xticks(range(PAIRS), names)
        axis.set_yticks(range(n_heads), [f"head {n}" for n in range(n_heads)])
        axis.grid(False)
    letters = ", ".join(chr(ord("a") + letter) for letter in asked[0].tolist())
    axes[0].set_title(f"Four heads (asked: {letters}; dark: weight 1)")
    axes[1].set_title("One head")
    save_figure(figure, cfg.out / "heads")


def run(cfg: Config) -> dict[str, float]:
    show_heads(cfg)
    show_torch(cfg)
    show_memory(cfg)
    show_cost(cfg)
    scores, models = show_lookup(cfg)
    draw_heads(cfg, models)
    return scores


if __name__ == "__main__":
    main(run, Config, __doc__)
