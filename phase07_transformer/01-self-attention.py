"""7.1 Self-attention: positions exchange information
自注意力：让各个位置交换信息

You will be able to answer
    1. What is computed?       show_step    by-hand, same, masked
    2. Why divide by a root?   show_scale   variance, scaled
    3. Is the future hidden?   show_causal  causal, past
    4. Does the order matter?  show_order   equivariant
    5. What do weights gain?   show_lookup  overfits, depends, model, swap, mean, found, root, start
Predict   mean: 8 letters with a digit each, one is asked for; all weights equal. How often right?
Run       python phase07_transformer/01-self-attention.py                  about 15 s
Needs     -
Reference F.scaled_dot_product_attention
Notation  B batch  T, S positions that ask and that answer  D, E widths of key and value
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.figures import BLUE, GREY, ORANGE, new_figure, save_figure
from common.training import fit

LETTERS = 26
DIGITS = 10
PAIRS = 8
QUESTION = 10  # stands where the digit is asked for


@dataclass
class Config(LessonConfig):
    threads = 1
    dim: int = param(64, "width D of the vectors", tiny=32)
    steps: int = param(400, "training steps, each of 64 lists", tiny=5)


def attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Scaled dot-product attention (Vaswani et al. 2017, equation 1).

    query (..., T, D), key (..., S, D), value (..., S, E) -> outputs (..., T, E) and the weights
    (..., T, S). mask: truth values that broadcast to (..., T, S), True where a position may look.
    A row that may look nowhere gets the weights 0 and the output 0.
    """
    # practice: Scaled dot-product attention
    scores = query @ key.mT  # (..., T, S): row t asks, column s answers

    # A dot product of D random terms has the variance D; divided by the root it has 1.
    scores = scores / math.sqrt(query.shape[-1])

    if mask is not None:
        # Before the softmax, so that the weights that are left sum to 1.
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = scores.softmax(dim=-1)

    if mask is not None:
        # A row of -inf only is 0 / 0: nan, which would spread to all that is computed from it.
        weights = weights.masked_fill(~mask, 0.0)
    return weights @ value, weights
    # end practice


def show_step(cfg: Config) -> None:
    print("\n[1] Products become scores, scores become weights, weights a mean of the values")
    query = torch.tensor([[math.log(3), 0, 0, 0]], dtype=torch.float64)
    key = torch.tensor([[2, 5, 0, 0], [0, 1, 0, 7], [2, 0, 9, 0]], dtype=torch.float64)
    value = torch.tensor([[4], [8], [100]], dtype=torch.float64)
    outputs, weights = attention(query, key, value, mask=torch.tensor([True, True, False]))
    text = "scores ln 3 and 0, so the weights 3/4 and 1/4, and the output 3/4 · 4 + 1/4 · 8 = 5"
    check_close("by-hand", text, torch.cat([outputs, weights], dim=1)[0], [5, 3 / 4, 1 / 4, 0])

    query, key, value = random_inputs()
    ours = with_gradients(attention(query, key, value)[0], query, key, value)
    theirs = with_gradients(F.scaled_dot_product_attention(query, key, value), query, key, value)
    check_close("same", "torch's outputs and gradients", ours, theirs)

    mask = torch.rand(2, 1, 4, 5) < 0.6
    mask[1, 0, 2] = False
    ours = with_gradients(attention(query, key, value, mask)[0], query, key, value)
    outputs = F.scaled_dot_product_attention(query, key, value, mask)
    theirs = with_gradients(outputs, query, key, value)
    text = "with a mask, too: where a row may look nowhere, the output is 0 and not nan"
    check_close("masked", text, ours, theirs)


def show_scale(cfg: Config) -> list[tuple[int, float, float]]:
    print("\n[2] Random queries and keys: the wider, the larger their products")
    print("  variance of:  product  score   largest of 16 weights: with the root  without")
    rows = []
    for dim in (4, 16, 64, 256):
        query = torch.randn(4000, 1, dim)
        key = torch.randn(4000, 16, dim)
        products = (query @ key.mT).var().item()
        _, weights = attention(query, key, key)
        # ln weight = score - a term of the row; the difference of two has twice the variance.
        logs = weights.log()
        scores = (logs[:, :, 0] - logs[:, :, 1]).var().item() / 2
        with_root = weights.amax(dim=-1).mean().item()

        # A query that is longer by the root undoes the division.
        _, weights = attention(query * math.sqrt(dim), key, key)
        without = weights.amax(dim=-1).mean().item()
        print(f"  width {dim:4}{products:12.2f}  {scores:5.2f} {with_root:37.3f}  {without:7.3f}")
        rows.append((dim, with_root, without))
    text = "width 256: the product of two random vectors has the variance {}"
    check("variance", text, products, above=243, below=269)
    check("scaled", "divided by the root of 256, it has {}", scores, above=0.9, below=1.1)
    return rows


def causal_mask(length: int) -> Tensor:
    """(T, T), True where a position may look: position t at the positions 0 … t."""
    # practice: The causal mask
    allowed = torch.ones(length, length, dtype=torch.bool)
    return allowed.tril()
    # end practice


class SelfAttention(nn.Module):
    """One head: each position makes a query, a key and a value from its own vector.

    x (B, T, D), mask as in `attention` -> (B, T, D). The weights (B, T, T) of the last call stay
    in `self.weights`.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.weights = torch.empty(0)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        # practice: Self-attention
        query = self.query(x)
        key = self.key(x)
        value = self.value(x)
        outputs, weights = attention(query, key, value, mask)
        self.weights = weights.detach()
        return outputs
        # end practice


def show_causal(cfg: Config) -> None:
    print("\n[3] Six positions; another vector at position 3, counted from 0")
    layer = SelfAttention(8).double()
    x = torch.randn(2, 6, 8, dtype=torch.float64)
    heads = (layer.query(x), layer.key(x), layer.value(x))
    theirs = F.scaled_dot_product_attention(*heads, is_causal=True)
    text = "our layer with our mask: torch's causal attention"
    check_close("causal", text, layer(x, causal_mask(6)), theirs)

    changed = x.clone()
    changed[:, 3] = torch.randn(8)
    moved = []
    for mask in (causal_mask(6), None):
        difference = layer(changed, mask) - layer(x, mask)
        moved.append(difference.abs().amax(dim=(0, 2)) > 1e-12)  # (T,)
    text = "causal: the outputs at 3, 4 and 5 change; without a mask all six do"
    check_close("past", text, torch.stack(moved), [[False] * 3 + [True] * 3, [True] * 6])


def show_order(cfg: Config) -> None:
    print("\n[4] The same vectors in another order")
    layer = SelfAttention(8).double()
    x = torch.randn(2, 6, 8, dtype=torch.float64)
    order = torch.tensor([4, 0, 5, 1, 3, 2])
    text = "the vectors in another order: the same outputs, in that order"
    check_close("equivariant", text, layer(x[:, order]), layer(x)[:, order])


class Lookup(nn.Module):
    """Pairs of letter and digit, then a letter with a question mark: which digit is its own?

    x (B, T, 2) -> logits (B, 10), from the last position. `mask` (T, T): who may look at whom.
    """

    def __init__(self, dim: int, mask: Tensor):
        super().__init__()
        self.letter = nn.Embedding(LETTERS, dim)
        self.digit = nn.Embedding(DIGITS + 1, dim)
        self.attention = SelfAttention(dim)
        self.head = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, DIGITS))
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        # practice: Look up
        letters, digits = x.unbind(dim=-1)  # (B, T) each
        x = self.letter(letters) + self.digit(digits)  # (B, T, D)

        # Added, so that a position keeps what it knew: a residual connection (lesson 5.7).
        x = x + self.attention(x, self.mask)
        return self.head(x[:, -1])
        # end practice


def show_lookup(cfg: Config) -> tuple[dict[str, float], nn.Module]:
    print(f"\n[5] {PAIRS} pairs of letter and digit; then a letter is given, its digit asked for")
    batch = lists(cfg, 16, seed=0)
    model = make_model(cfg, "attention")
    adam = torch.optim.Adam(model.parameters(), lr=1e-2)
    overfits("overfits", "16 lists: the loss falls to {}", model, batch, cross_entropy, adam)
    text = "the answers depend on the list: {} of them are right"
    depends_on_input("depends", text, model(batch[0]).argmax(dim=1), batch[1])

    x, y = lists(cfg, 2000, seed=1)
    model = make_model(cfg, "alone")
    vectors = model.letter(x[..., 0]) + model.digit(x[..., 1])
    layer = model.attention
    heads = (layer.query(vectors), layer.key(vectors), layer.value(vectors))
    seen = F.scaled_dot_product_attention(*heads, model.mask)
    text = "our network, with a mask: the logits are those with torch's attention"
    check_close("model", text, model(x), model.head((vectors + seen)[:, -1]))

    model = make_model(cfg, "mean")
    swapped = x.clone()
    swapped[:, [0, 1], 1] = x[:, [1, 0], 1]
    text = "all weights equal: two pairs exchange their digits, and the logits stay as they were"
    check_close("swap", text, model(swapped), model(x))

    scores = {}
    for kind in ("no_root", "small_start", "alone", "mean", "attention"):
        model = train(cfg, make_model(cfg, kind), lr=0.01)
        scores[kind] = right(model, x, y)
    scores["no_root_slow"] = right(train(cfg, make_model(cfg, "no_root"), lr=0.003), x, y)
    counts = F.one_hot(x[:, :-1, 1], DIGITS).sum(dim=1)  # (B, 10)
    frequent = counts.amax(dim=1).double().mean().item() / PAIRS
    print(f"  2,000 unseen lists, each position for itself: {scores['alone']:.3f} (a guess: 0.1)")
    text = f"all weights equal: {{}}; at best, with the most frequent digit, {frequent:.3f}"
    expect("mean", text, scores["mean"], above=0.2, at_most=frequent + 0.03)
    expect("found", "weights from queries and keys: {}", scores["attention"], at_least=0.97)
    text = f"without the root {{}}; at the rate 0.003 instead of 0.01, {scores['no_root_slow']:.3f}"
    expect("root", text, scores["no_root"], at_most=0.5)
    text = "at the rate 0.01, without the root, but with first scores as small as with it: {}"
    expect("start", text, scores["small_start"], at_most=0.5)
    return scores | {"most_frequent": frequent}, model


# Pictures and helpers: skip on a first reading


def random_inputs() -> list[Tensor]:
    """query (2, 3, T, 8), key (2, 3, S, 8), value (2, 3, S, 7) for T = 4 and S = 5."""
    shapes = ((2, 3, 4, 8), (2, 3, 5, 8), (2, 3, 5, 7))
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


def with_gradients(outputs: Tensor, *inputs: Tensor) -> Tensor:
    """The outputs and the gradients of the sum of their squares, in one row."""
    gradients = torch.autograd.grad(outputs.square().sum(), inputs)
    return torch.cat([each.flatten() for each in (outputs.detach(), *gradients)])


def lists(cfg: Config, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """n lists of pairs, no letter twice, then the question: (n, T, 2) and the digits (n,)."""
    generator = torch.Generator().manual_seed(10**6 * cfg.seed + seed)
    letters = torch.rand(n, LETTERS, generator=generator).argsort(dim=1)[:, :PAIRS]
    digits = torch.randint(DIGITS, (n, PAIRS), generator=generator)
    asked = torch.randint(PAIRS, (n, 1), generator=generator)

    pairs = torch.stack([letters, digits], dim=2)  # (n, pairs, 2)
    question = torch.stack([letters.gather(1, asked), torch.full((n, 1), QUESTION)], dim=2)
    device = cfg.torch_device()
    return torch.cat([pairs, question], dim=1).to(device), digits.gather(1, asked)[:, 0].to(device)


@torch.no_grad()
def make_model(cfg: Config, kind: str) -> Lookup:
    """The same network: "attention", "no_root", "small_start", "mean" or "alone"."""
    torch.manual_seed(cfg.seed)
    mask = torch.ones(PAIRS + 1, PAIRS + 1, dtype=torch.bool)
    if kind == "alone":
        mask = torch.eye(PAIRS + 1, dtype=torch.bool)
    model = Lookup(cfg.dim, mask)
    # Queries longer by the root undo the division; queries of 0 have equal scores.
    root = math.sqrt(cfg.dim)
    factor = {"no_root": root, "small_start": root, "mean": 0.0}.get(kind, 1.0)
    model.attention.query.register_forward_hook(lambda layer, inputs, query: factor * query)
    if kind == "small_start":
        # The first queries are those of "attention"; but a step moves them root times as far.
        model.attention.query.weight /= root
    return model.to(cfg.torch_device())


def cross_entropy(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def train(cfg: Config, model: nn.Module, lr: float) -> nn.Module:
    batches = [lists(cfg, 64, seed=100 + step) for step in range(cfg.steps)]
    adam = torch.optim.Adam(model.parameters(), lr=lr)
    fit(model, batches, adam, cross_entropy, quiet=True)
    return model


@torch.no_grad()
def right(model: nn.Module, x: Tensor, y: Tensor) -> float:
    return (model(x).argmax(dim=1) == y).double().mean().item()


def draw_scale(cfg: Config, rows: list[tuple[int, float, float]]) -> None:
    figure, axis = new_figure()
    dims, with_root, without = zip(*rows)
    axis.plot(dims, without, color=ORANGE, marker="o", label="without the root")
    axis.plot(dims, with_root, color=BLUE, marker="o", label="divided by the root")
    axis.axhline(1 / 16, color=GREY, linestyle="--", label="all 16 equal: 1/16")
    axis.set(xscale="log", xticks=dims, xticklabels=dims, ylim=(0, 1), xlabel="width")
    axis.set_title("Largest of 16 weights, random vectors")
    axis.legend()
    save_figure(figure, cfg.out / "scale")


@torch.no_grad()
def draw_lookup(cfg: Config, model: nn.Module) -> None:
    figure, axis = new_figure(size=(8, 4))
    x, _ = lists(cfg, 5, seed=1)
    model(x)
    weights = model.attention.weights[:, -1].cpu()  # (5, T), those of the question
    axis.imshow(weights, vmin=0, vmax=1, cmap="Blues")
    for row, pairs in enumerate(x.tolist()):
        for column, (letter, digit) in enumerate(pairs):
            name = chr(ord("a") + letter) + (" ?" if digit == QUESTION else f" {digit}")
            colour = "white" if weights[row, column] > 0.5 else "black"
            axis.text(column, row, name, ha="center", va="center", color=colour)
    axis.set(xticks=(), yticks=(), ylabel="five lists")
    axis.grid(False)
    axis.set_title("Where the question looks (dark: weight 1)")
    save_figure(figure, cfg.out / "lookup")


def run(cfg: Config) -> dict[str, float]:
    show_step(cfg)
    rows = show_scale(cfg)
    show_causal(cfg)
    show_order(cfg)
    scores, model = show_lookup(cfg)
    draw_scale(cfg, rows)
    draw_lookup(cfg, model)
    _, with_root, without = rows[-1]
    return scores | {"with_root": with_root, "without_root": without}


if __name__ == "__main__":
    main(run, Config, __doc__)
