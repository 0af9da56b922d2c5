"""7.3 Positional encoding: telling a set that it is a sequence
位置编码：让模型知道词元的次序

You will be able to answer
    1. What is added to the vectors?    show_tables   by-hand, untrained
    2. What does RoPE turn, and why?    show_rotate   offset, shift, bfloat16
    3. What does ALiBi subtract?        show_alibi    bias
    4. What does a model know then?     show_models   order, place
    5. And where texts are longer?      show_lengths  overfits, depends, tables, rope, window, alibi
Predict   sinusoidal_beyond: trained on 32 positions, sines reach 0.78 at 16 to 31. At 32 to 63?
Run       python phase07_transformer/03-positional-encoding.py             about half a minute
Needs     phase07_transformer/01-self-attention, phase07_transformer/02-multi-head-attention
Reference -
Notation  B batch  T positions  D width  N heads  K width of a head
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, new_figure, save_figure
from common.lessons import load_lesson
from common.training import fit

causal_mask = load_lesson("phase07_transformer/01-self-attention").causal_mask
MultiHeadAttention = load_lesson("phase07_transformer/02-multi-head-attention").MultiHeadAttention
KINDS = ("none", "sinusoidal", "learned", "rope", "alibi")
LETTERS = 12
BEST = 0.8 + 0.2 / LETTERS  # share of letters that the rule names: 0.817


@dataclass
class Config(LessonConfig):
    threads = 1
    dim: int = param(64, "width D of the vectors", tiny=32)
    length: int = param(32, "positions in training; the tests have 8 times as many", tiny=8, low=8)
    steps: int = param(300, "training steps, each of 32 texts", tiny=4)


def angles(positions: Tensor, dim: int) -> Tensor:
    """Position times frequency, for each pair of columns: positions (..., T) -> (..., T, D/2)."""
    # practice: The angles
    column = torch.arange(0, dim, 2, dtype=positions.dtype, device=positions.device)

    # From 1 radian per position in the first pair down to almost 1/10,000 in the last.
    frequencies = 10_000 ** (-column / dim)
    return positions[..., None] * frequencies
    # end practice


def sinusoidal(length: int, dim: int) -> Tensor:
    """The table that Vaswani et al. (2017) add to the embeddings: (T, D), D even."""
    # practice: The sinusoidal table
    # In float32 an angle of 1,000 would be off by up to 0.00003.
    turns = angles(torch.arange(length, dtype=torch.float64), dim)  # (T, D/2)

    # Sines in the columns 0, 2, 4, … and cosines in 1, 3, 5, …
    table = torch.stack([turns.sin(), turns.cos()], dim=-1)  # (T, D/2, 2)
    return table.flatten(start_dim=1).float()
    # end practice


class LearnedPositions(nn.Module):
    """A row of weights for each position, as in BERT and GPT-2."""

    def __init__(self, max_length: int, dim: int):
        super().__init__()
        self.table = nn.Embedding(max_length, dim)

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """Adds to x (..., T, D) the rows of its positions: start, start + 1, …"""
        positions = torch.arange(start, start + x.shape[-2], device=x.device)
        return x + self.table(positions)


def show_tables(cfg: Config) -> None:
    print("\n[1] A row for each position: of sines and cosines, or of weights")
    wanted = []
    for turn in (1, 0.1, 0.01, 0.001, 100, 10, 1, 0.1):
        wanted += [math.sin(turn), math.cos(turn)]
    text = "width 8: position 1 has sine and cosine of 1, 0.1, 0.01, 0.001; 100 of 100, 10, 1, 0.1"
    found = sinusoidal(101, 8)[[1, 100]].flatten()
    check_close("by-hand", text, found, torch.tensor(wanted))

    learned = LearnedPositions(8, 6)
    out = learned(torch.randn(3, 5, 6))
    (gradient,) = torch.autograd.grad(out.sum(), learned.table.weight)
    text = "8 learned rows, texts of 5: the last 3 get no gradient, and stay as they began"
    check_close("untrained", text, gradient[:, 0], torch.tensor([3.0] * 5 + [0.0] * 3))


def rotate(x: Tensor, positions: Tensor) -> Tensor:
    """RoPE (Su et al. 2021): rotates each pair of columns of x (..., T, D) by its position's angle.

    positions: (T,), or a shape that broadcasts to x's without D. For queries and keys, not values.
    """
    # practice: Rotate the pairs
    # bfloat16 has 8 binary digits: it would round position 257 to 256.
    dtype = torch.promote_types(x.dtype, torch.float32)
    turns = angles(positions.to(dtype), x.shape[-1])  # (T, D/2)
    cos = turns.cos()
    sin = turns.sin()

    first, second = x[..., 0::2], x[..., 1::2]  # (..., T, D/2) each
    turned = torch.stack([first * cos - second * sin, first * sin + second * cos], dim=-1)
    return turned.flatten(start_dim=-2).to(x.dtype)
    # end practice


def show_rotate(cfg: Config) -> None:
    print("\n[2] Queries and keys are turned by their positions; scores see the difference")
    query = torch.randn(3, 5, cfg.dim, dtype=torch.float64)
    key = torch.randn(3, 6, cfg.dim, dtype=torch.float64)
    scores = []
    for start in (0, 1000):
        turned = rotate(query, start + torch.arange(5))
        scores.append(turned @ rotate(key, start + torch.arange(6)).mT)  # (3, 5, 6)
    text = "5 queries, 6 keys: move them all on by 1,000 positions, and all scores stay the same"
    check_close("offset", text, scores[1], scores[0])

    table = sinusoidal(60, cfg.dim)
    matrix = rotate(torch.eye(cfg.dim), torch.tensor(-20))  # (D, D)
    text = "RoPE's matrix for -20 makes each row of the sinusoidal table the row 20 further on"
    check_close("shift", text, table[:40] @ matrix, table[20:])

    positions = torch.arange(4000, 4006)
    difference = rotate(key.bfloat16(), positions) - rotate(key, positions)
    text = "keys in bfloat16 at positions from 4,000 on: off by {}, no more than rounding"
    check("bfloat16", text, difference.abs().max(), at_most=0.04)


def alibi_bias(n_heads: int, length: int) -> Tensor:
    """What ALiBi (Press et al. 2022) adds to the scores: minus slope times distance. (N, T, T)"""
    # practice: ALiBi's bias
    head = torch.arange(1, n_heads + 1)
    slopes = 2.0 ** (-8 * head / n_heads)  # for 8 heads: 1/2, 1/4, … 1/256

    positions = torch.arange(length)
    distance = (positions[:, None] - positions).abs()  # (T, T)
    return -slopes[:, None, None] * distance
    # end practice


def show_alibi(cfg: Config) -> None:
    print("\n[3] Each head takes from its scores the distance, times a slope of its own")
    steep = torch.tensor([-2.0, -1, 0, -1]) / 16
    text = "2 heads, 4 positions: number 2 loses 2, 1, 0, 1 times the slopes 1/16 and 1/256"
    check_close("bias", text, alibi_bias(2, 4)[:, 2], torch.stack([steep, steep / 16]))


class PositionedAttention(MultiHeadAttention):
    """Multi-head attention (lesson 7.2), with RoPE or ALiBi inside where `kind` says so."""

    def forward(self, x: Tensor, mask: Tensor, kind: str) -> Tensor:
        """x (B, T, D), mask (T, T), True where a position may look -> (B, T, D)"""
        # practice: Positions inside attention
        query = self.split(self.query(x))  # (B, N, T, K)
        key = self.split(self.key(x))
        value = self.split(self.value(x))

        positions = torch.arange(x.shape[1], device=x.device)
        if kind == "rope":
            query = rotate(query, positions)
            key = rotate(key, positions)

        bias = torch.zeros(mask.shape, device=x.device).masked_fill(~mask, float("-inf"))
        if kind == "alibi":
            bias = bias + alibi_bias(self.n_heads, len(mask)).to(x.device)

        # Lesson 7.1's attention, from torch: it adds a bias to the scores.
        outputs = F.scaled_dot_product_attention(query, key, value, bias)
        return self.out(self.join(outputs))
        # end practice


class Model(nn.Module):
    """One layer that predicts the next letter: tokens (B, T) -> logits (B, T, letters)."""

    def __init__(self, cfg: Config, kind: str):
        super().__init__()
        torch.manual_seed(cfg.seed)  # the same initial weights
        self.kind = kind
        self.embedding = nn.Embedding(LETTERS, cfg.dim)
        self.attention = PositionedAttention(cfg.dim, n_heads=4)
        self.head = nn.Sequential(nn.Linear(cfg.dim, 256), nn.GELU(), nn.Linear(256, LETTERS))
        if kind == "learned":
            self.learned = LearnedPositions(8 * cfg.length, cfg.dim)

    def forward(self, tokens: Tensor, window: int = 10**6) -> Tensor:
        """window: how many positions each may look at, itself included."""
        x = self.embedding(tokens)  # (B, T, D)
        length = tokens.shape[1]
        if self.kind == "sinusoidal":
            x = x + sinusoidal(length, x.shape[2]).to(x.device)
        if self.kind == "learned":
            x = self.learned(x)

        mask = causal_mask(length).triu(1 - window).to(x.device)
        x = x + self.attention(x, mask, self.kind)
        return self.head(x)


def show_models(cfg: Config) -> None:
    print("\n[4] One layer with each of them, untrained")
    tokens = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6, 5, 0, 7]], device=cfg.torch_device())
    exchanged = tokens[:, [0, 1, 2, 3, 4, 5, 7, 6, 8, 9, 10]]
    order = []
    place = []
    for kind in KINDS:
        model = Model(cfg, kind).to(cfg.torch_device())
        difference = model(exchanged) - model(tokens)
        changed = difference.abs().amax(dim=(0, 2)) > 1e-5  # (T,)
        order.append([changed[:6].any().item(), changed[-1].item()])

        # The last five letters alone, and at the end of a text of which they see no more.
        difference = model(tokens, window=5)[:, -1] - model(tokens[:, -5:])[:, -1]
        place.append(difference.abs().max().item() > 1e-5)
    text = "exchange letters 6 and 7: outputs 0 to 5 stay; the last one, only without positions"
    check_close("order", text, order, [[False, False]] + 4 * [[False, True]])
    text = "the same five letters at 0 to 4 and at 6 to 10: only the tables make a difference"
    check_close("place", text, place, [False, True, True, False, False])


def show_lengths(cfg: Config) -> tuple[dict[str, float], dict[str, Tensor]]:
    print(f"\n[5] Trained on {cfg.length} positions; the rule would be right in {BEST:.3f}")
    batch = language(cfg, LETTERS, 9, seed=0)
    batch[:, 0] = torch.arange(LETTERS)  # no two begin alike, so that all can be known by heart
    model = Model(cfg, "sinusoidal").to(cfg.torch_device())
    adam = torch.optim.Adam(model.parameters(), lr=5e-3)
    text = "12 texts are learned by heart: the loss falls to {}"
    overfits("overfits", text, model, batch, next_letter_loss, adam)
    text = "the last letter depends on those before it: {} are right"
    depends_on_input("depends", text, model(batch)[:, -2].argmax(dim=1), batch[:, -1])

    tests = language(cfg, 128, 8 * cfg.length + 1, seed=1)
    right = {}
    for kind in KINDS:
        model = train(cfg, Model(cfg, kind).to(cfg.torch_device()))
        right[kind] = letters_right(model, tests)
        if kind in ("sinusoidal", "rope"):
            right[f"{kind}_window"] = letters_right(model, tests, window=cfg.length)

    n = cfg.length
    scores = {}
    print(f"  positions          {n // 2} to {n - 1}   {n} to {2 * n - 1}   {4 * n} to {8 * n - 1}")
    for name, share in right.items():
        parts = (share[n // 2 : n].mean(), share[n : 2 * n].mean(), share[4 * n :].mean())
        print(f"  {name:<17} {parts[0]:10.3f} {parts[1]:10.3f} {parts[2]:12.3f}")
        for place, part in zip(("trained", "beyond", "far"), parts):
            scores[f"{name}_{place}"] = part.item()

    text = f"of both tables the better is right in {{}} at positions {n} to {2 * n - 1}"
    expect("tables", text, max(scores["sinusoidal_beyond"], scores["learned_beyond"]), at_most=0.35)
    text = f"RoPE is right in {{}} from position {4 * n} on"
    expect("rope", text, scores["rope_far"], at_most=0.4)
    text = f"looking back at {n} positions only, as in training, it is right in {{}} there"
    expect("window", text, scores["rope_window_far"], at_least=0.77)
    text = "ALiBi has there {} of the share that it has within the trained positions"
    expect("alibi", text, scores["alibi_far"] / scores["alibi_trained"], above=0.9, below=1.1)
    return scores, right


# Pictures and helpers: skip on a first reading


def language(cfg: Config, n: int, length: int, seed: int) -> Tensor:
    """n texts (n, length). Two letters decide the next one, but some are drawn at random."""
    table = torch.from_numpy(cfg.rng().integers(LETTERS, size=(LETTERS, LETTERS)))
    generator = torch.Generator().manual_seed(10**6 * (cfg.seed + 1) + seed)
    text = torch.randint(LETTERS, (n, length), generator=generator)
    ruled = torch.rand(n, length, generator=generator) >= 0.2
    for place in range(2, length):
        named = table[text[:, place - 2], text[:, place - 1]]
        text[:, place] = torch.where(ruled[:, place], named, text[:, place])
    return text.to(cfg.torch_device())


def next_letter_loss(model: nn.Module, texts: Tensor) -> Tensor:
    logits = model(texts[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), texts[:, 1:].flatten())


def train(cfg: Config, model: nn.Module) -> nn.Module:
    # The tests have the seeds 0 and 1.
    batches = [language(cfg, 32, cfg.length + 1, seed=100 + step) for step in range(cfg.steps)]
    adam = torch.optim.Adam(model.parameters(), lr=3e-3)
    rate = torch.optim.lr_scheduler.OneCycleLR(adam, 3e-3, len(batches), pct_start=0.2)
    fit(model, batches, adam, next_letter_loss, scheduler=rate, quiet=True)
    return model


@torch.no_grad()
def letters_right(model: nn.Module, texts: Tensor, window: int = 10**6) -> Tensor:
    """For each position, the share of texts whose next letter is the most likely one. (T,)"""
    predicted = model(texts[:, :-1], window).argmax(dim=2)
    return (predicted == texts[:, 1:]).double().mean(dim=0).cpu()


def draw_encodings(cfg: Config) -> None:
    figure, (left, right) = new_figure(1, 2, size=(12, 4.4))
    left.imshow(sinusoidal(64, 32), aspect="auto", cmap="RdBu", vmin=-1, vmax=1)
    left.set(xlabel="column", ylabel="position", title="Sinusoidal: 1 is blue, -1 red")
    left.grid(False)
    for name, place in (("query", 0), ("key", 1), ("query", 2), ("key", 3)):
        vector = [1.0, 0.0] if name == "query" else [0.9, 0.3]
        x, y = rotate(torch.tensor(vector), torch.tensor(place)).tolist()
        right.plot((0, x), (0, y), color=BLUE if place < 2 else ORANGE)
        right.text(1.3 * x, 1.15 * y, f"{name} at {place}", ha="center", va="center")
    right.set(xlim=(-1.7, 1.7), ylim=(-0.7, 1.3), aspect="equal")
    right.set_title("RoPE: two positions on, the same angle")
    save_figure(figure, cfg.out / "encodings")


def draw_lengths(cfg: Config, right: dict[str, Tensor]) -> None:
    figure, axis = new_figure(size=(11, 5))
    colours = dict(zip(KINDS, (GREY, ORANGE, PURPLE, BLUE, GREEN)))
    places = (torch.arange(32) + 0.5) * cfg.length / 4
    for name, share in right.items():
        means = share.unflatten(0, (32, -1)).mean(dim=1)
        kind, _, window = name.partition("_")
        if name == "sinusoidal_window":
            continue
        label = f"{kind}, looking back at {cfg.length}" if window else kind
        axis.plot(places, means, "--" if window else "-", color=colours[kind], label=label)
    axis.axvline(cfg.length, color=GREY, linestyle=":", label="end of the trained positions")
    axis.axhline(BEST, color="k", linestyle=":", label="the rule")
    axis.set(xlabel="position", ylabel="share of letters right", ylim=(0, 1))
    axis.set_title(f"Trained on {cfg.length} positions, tested on {8 * cfg.length}")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    save_figure(figure, cfg.out / "lengths")


def run(cfg: Config) -> dict:
    show_tables(cfg)
    show_rotate(cfg)
    show_alibi(cfg)
    show_models(cfg)
    scores, right = show_lengths(cfg)
    draw_encodings(cfg)
    draw_lengths(cfg, right)
    return scores


if __name__ == "__main__":
    main(run, Config, __doc__)
