"""7.12 T5: every task is text to text
T5：所有任务都是文本到文本

You will be able to answer
    1. How does it know what is near?    show_buckets  buckets
    2. Is it the published network?      show_parity   same, past
    3. What is its pre-training task?    show_spans    counted, restored, random
    4. Can one model do several tasks?   show_tasks    overfits, depends, exact, one-word, no-bias
Predict   one_word: four tasks, and before every text stands “sort:”. What share is still right?
Run       python phase07_transformer/12-t5.py                              about half a minute
Needs     phase07_transformer/01-self-attention, phase07_transformer/02-multi-head-attention,
          phase07_transformer/04-transformer-encoder, phase07_transformer/06-transformer-full
Reference transformers.T5Model, transformers.T5ForConditionalGeneration
Notation  B batch  S, T positions of source and target  D width  N heads  K = D / N  V symbols
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.data.sequences import END, FIRST, PAD
from common.data.tasks import LONGEST, TASKS, WORDS, commonest, four_tasks, random_parts, to_text
from common.figures import new_figure, save_figure
from common.lessons import load_lesson
from common.training import fit

causal_mask = load_lesson("phase07_transformer/01-self-attention").causal_mask
with_gradients = load_lesson("phase07_transformer/01-self-attention").with_gradients
MultiHeadAttention = load_lesson("phase07_transformer/02-multi-head-attention").MultiHeadAttention
encoders = load_lesson("phase07_transformer/04-transformer-encoder")
full = load_lesson("phase07_transformer/06-transformer-full")

BUCKETS = 32
FURTHEST = 128
SENTINELS = 100  # the last symbols of T5's vocabulary; each stands for a gap


@dataclass
class Config(LessonConfig):
    threads = 1
    dim: int = param(64, "width D of the vectors, a multiple of 4", tiny=32)
    steps: int = param(1000, "training steps, each of 64 texts", tiny=3)


class BiasedAttention(MultiHeadAttention):
    """Attention of lesson 7.2; scores are not divided by √K, and something is added to them.

    mask: floats that broadcast to (B, N, T, S), -inf where a position may not look.
    """

    def __init__(self, dim: int, n_heads: int, dropout: float):
        super().__init__(dim, n_heads, dropout, bias=False)
        for layer in (self.query, self.key, self.value, self.out):
            nn.init.normal_(layer.weight, std=dim**-0.5)
        self.query.weight.data /= math.sqrt(dim / n_heads)  # here it is divided, once

    def forward(self, x: Tensor, memory: Tensor | None = None, mask: Tensor | float = 0) -> Tensor:
        # practice: Biased attention
        if memory is None:
            memory = x
        query = self.split(self.query(x))  # (B, N, T, K)
        key = self.split(self.key(memory))  # (B, N, S, K)
        value = self.split(self.value(memory))

        scores = query @ key.mT + mask  # (B, N, T, S)
        weights = self.dropout(scores.softmax(dim=-1))
        return self.out(self.join(weights @ value))
        # end practice


def replace_parts(stack: nn.Module) -> None:
    """Make a pre-norm encoder or decoder (lessons 7.4, 7.5) T5's, in place."""
    # practice: From Transformer to T5
    for module in list(stack.modules()):
        for name, part in list(module.named_children()):
            if isinstance(part, nn.LayerNorm):
                # Divides by the root of the mean square: no mean, no bias.
                setattr(module, name, nn.RMSNorm(len(part.weight), eps=1e-6))
            if isinstance(part, MultiHeadAttention):
                sizes = (part.query.in_features, part.n_heads, part.dropout.p)
                setattr(module, name, BiasedAttention(*sizes))
            if isinstance(part, nn.Linear):
                part.bias = None
    # end practice


def bucket(offset: Tensor, both_ways: bool) -> Tensor:
    """The bucket, 0 to 31, of each offset: the position of the key minus that of the query.

    both_ways: 16 buckets a direction; else 32 for the past, and the future is in bucket 0.
    """
    # practice: Buckets
    count = BUCKETS
    start = torch.zeros_like(offset)
    distance = (-offset).clamp(min=0)
    if both_ways:
        count = BUCKETS // 2
        start = count * (offset > 0)
        distance = offset.abs()

    # The near ones have a bucket each; further out, buckets grow by equal ratios.
    exact = count // 2
    ratio = distance.clamp(min=1) / exact
    steps = ratio.log() / math.log(FURTHEST / exact) * (count - exact)
    far = (exact + steps.long()).clamp(max=count - 1)
    return start + torch.where(distance < exact, distance, far)
    # end practice


def relative_bias(table: Tensor, length: int, both_ways: bool) -> Tensor:
    """table (32, N), a bias for each bucket and head -> what is added to the scores (N, T, T)"""
    positions = torch.arange(length, device=table.device)
    offset = positions - positions[:, None]  # (T, T): rows are queries, columns keys
    return table[bucket(offset, both_ways)].permute(2, 0, 1)


def show_buckets(cfg: Config) -> None:
    print("\n[1] No positions in the input: each score gets a bias for the distance")
    offsets = torch.tensor([0, -1, -7, -8, -12, -20, -200, 1, 7, 8, 200])
    found = torch.stack([bucket(offsets, both_ways) for both_ways in (True, False)])
    wanted = [[0, 1, 7, 8, 9, 10, 15, 17, 23, 24, 31], [0, 1, 7, 8, 12, 17, 31, 0, 0, 0, 0]]
    check_close("buckets", f"{offsets.tolist()}: the buckets found by hand", found, wanted)


class T5(full.Transformer):
    """T5 (Raffel et al. 2020). sizes: those of lesson 7.6, whose defaults are T5-small's."""

    def __init__(self, vocab: int = 32_128, **sizes):
        super().__init__(vocab, vocab, shared=True, norm_first=True, **sizes)
        n_heads = self.encoder.layers[0].attention.n_heads
        replace_parts(self.encoder)
        replace_parts(self.decoder)
        nn.init.normal_(self.target_embedding.weight)
        self.encoder_table = nn.Parameter(0.1 * torch.randn(BUCKETS, n_heads))  # for all layers
        self.decoder_table = nn.Parameter(0.1 * torch.randn(BUCKETS, n_heads))

    def encode(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """source (B, S) -> the memory (B, S, D) and its mask, to be added (B, 1, 1, S)"""
        mask = torch.where(encoders.padding_mask(source, self.pad), 0.0, -math.inf)
        bias = relative_bias(self.encoder_table, source.shape[1], both_ways=True)
        x = self.dropout(self.source_embedding(source))
        return self.dropout(self.encoder(x, mask + bias)), mask

    def decode(self, inputs: Tensor, memory: Tensor, memory_mask: Tensor) -> Tensor:
        """inputs (B, T), what was written so far -> logits (B, T, V) of what comes next"""
        # practice: T5's decoder
        length = inputs.shape[1]
        past = causal_mask(length).to(inputs.device)
        bias = relative_bias(self.decoder_table, length, both_ways=False)
        mask = torch.where(past, 0.0, -math.inf) + bias  # (N, T, T)

        # Between source and target there is no distance: the memory's mask has no bias.
        x = self.dropout(self.target_embedding(inputs))
        x = self.dropout(self.decoder(x, memory, memory_mask, mask))

        # Embeddings have the variance 1, and a sum of D products D; divided by the root, 1.
        return x / math.sqrt(x.shape[2]) @ self.target_embedding.weight.T
        # end practice


def show_parity(cfg: Config) -> None:
    print("\n[2] Hugging Face's T5 with random weights, copied; texts of 150 and 140 tokens")
    import transformers

    size = {"vocab_size": 50, "d_model": 24, "d_kv": 6, "num_heads": 4, "d_ff": 40, "num_layers": 2}
    options = transformers.T5Config(**size, attn_implementation="eager")
    theirs = transformers.T5ForConditionalGeneration(options)
    for module in list(theirs.modules()):
        for name, part in list(module.named_children()):
            if name.endswith("layer_norm"):  # theirs computes in float32, torch's in float64
                setattr(module, name, nn.RMSNorm(24, part.variance_epsilon))
    ours = T5(50, dim=24, n_heads=4, hidden_dim=40, n_layers=2).double()
    for our_weight, weight in zip(in_their_order(ours), theirs.double().parameters(), strict=True):
        nn.init.normal_(weight, std=0.4)
        our_weight.data.copy_(weight)
    source = torch.randint(FIRST, 50, (2, 150))
    source[0, 90:] = PAD
    inputs = torch.randint(FIRST, 50, (2, 140))
    torch.manual_seed(cfg.seed)
    row = with_gradients(ours(source, inputs), *in_their_order(ours))
    torch.manual_seed(cfg.seed)
    their_row = with_gradients(theirs(source, source != PAD, inputs).logits, *theirs.parameters())
    text = "in training, with the same dropout: the same logits, and gradients of all weights"
    check_close("same", text, row, their_row)
    changed = inputs.clone()
    changed[:, 100] = FIRST + (changed[:, 100] + 1) % 40
    moved = (ours.eval()(source, changed) - ours(source, inputs)).abs().amax(dim=(0, 2)) > 1e-12
    check_close("past", "token 100 moves no earlier logits", moved, [n >= 100 for n in range(140)])


def corrupt(
    tokens: Tensor, vocab: int, generator: torch.Generator, share: float = 0.15, span: float = 3.0
) -> tuple[Tensor, Tensor]:
    """tokens (T,) -> the text with gaps, what stood there. Symbol V - 1 - n marks gap n of both."""
    # practice: Span corruption
    n_gone = round(share * len(tokens))
    n_spans = round(n_gone / span)
    gone = random_parts(n_gone, n_spans, generator)
    kept = random_parts(len(tokens) - n_gone, n_spans, generator)

    # kept, gone, kept, gone, …: the text begins with what is kept.
    pieces = tokens.split(torch.stack([kept, gone], dim=1).flatten().tolist())
    source = []
    target = []
    for n in range(n_spans):
        sentinel = torch.tensor([vocab - 1 - n])
        source += [pieces[2 * n], sentinel]
        target += [sentinel, pieces[2 * n + 1]]
    end = torch.tensor([END])
    return torch.cat([*source, end]), torch.cat([*target, end])
    # end practice


def rebuild(source: Tensor, target: Tensor, vocab: int) -> Tensor:
    """The text that was corrupted, without END: (T,)"""
    # practice: Rebuild the text
    spans = {}
    for symbol in target[:-1].tolist():
        if symbol >= vocab - SENTINELS:
            span = spans[symbol] = []
        else:
            span.append(symbol)
    text = []
    for symbol in source[:-1].tolist():
        text += spans.get(symbol, [symbol])
    return torch.tensor(text)
    # end practice


def show_spans(cfg: Config) -> None:
    print("\n[3] Any text asks for what stood in its gaps; and so input and target are texts")
    words = ["thank", "you", "for", "inviting", "me", "to", "your", "party", "last", "week"]
    names = [*words, *(f"<{n}>" for n in reversed(range(SENTINELS)))]
    generator = torch.Generator().manual_seed(cfg.seed)
    for row in corrupt(torch.arange(10), len(names), generator, share=0.4, span=2.0):
        print("  " + " ".join(names[symbol] for symbol in row[:-1]))
    text = FIRST + torch.randperm(568, generator=generator)  # no token twice
    found = [corrupt(text, 1000, generator) for _ in range(20)]
    counts = [[len(source), len(target), int((source >= 972).sum())] for source, target in found]
    claim = "85 of 568 tokens go, in 28 spans, marked from 999 down: inputs of 512, targets of 114"
    check_close("counted", claim, counts, [[512, 114, 28]] * 20)
    rebuilt = torch.stack([rebuild(*pair, 1000) for pair in found])
    check_close("restored", "20 times: they give back the text", rebuilt, text.expand(20, -1))
    kept = torch.stack([torch.isin(text, source) for source, _ in found])  # (20, 568)
    both = (kept.any(dim=0) & ~kept.all(dim=0)).double().mean()
    check("random", "{} of the positions are now cut, now kept", both, at_least=0.85)


def show_tasks(cfg: Config) -> tuple[dict[str, float], dict[str, Tensor]]:
    print("\n[4] Four tasks, one model: the first word says which")
    batch = four_tasks(cfg, 16, seed=0)
    model = make_model(cfg)
    adam = torch.optim.Adam(model.parameters(), lr=4e-3)
    overfits("overfits", "16 texts: the loss falls to {}", model, batch, full.loss, adam)
    first = full.greedy(model, batch[0], 1)[:, 0]
    depends_on_input("depends", "of the first words {} are right", first, batch[1][:, 0])

    model = train(cfg)
    for row in four_tasks(cfg, 4, seed=2)[0]:
        print(f"  {to_text(row)} -> {to_text(full.greedy(model, row[None], LONGEST + 1)[0])}")

    test = four_tasks(cfg, 2000, seed=1)
    hidden = four_tasks(cfg, 2000, seed=1, named=False)[0]  # each begins with “sort:”
    scores = {"exact": right(model, *test), "one_word": right(model, hidden, test[1])}
    pairs = zip(full.greedy(model, hidden[:500], LONGEST + 1), hidden[:, 1:])
    sorts = sum(to_text(a).split() == sorted(to_text(b).split()) for a, b in pairs) / 500
    nn.init.zeros_(model.encoder_table)  # from here on the encoder sees no order
    scores["no_bias"] = right(model, *test)
    scores["commonest"] = commonest(test[1])
    for name, shares in scores.items():
        print(f"  {name:10}" + "   ".join(f"{t} {s:.3f}" for t, s in zip(TASKS, shares)))
    means = {name: shares.mean().item() for name, shares in scores.items()}
    expect("exact", "of 2,000 new texts {} are right", means["exact"], at_least=0.9)
    expect("one-word", "“sort:” before all of them: a share of {} is sorted", sorts, at_least=0.9)
    order, reverse, last, has_a = scores["no_bias"]
    text = "its bias set to 0, it is right {} more often where order is no matter (sort:, has-a:)"
    expect("no-bias", text, (order + has_a - reverse - last) / 2, at_least=0.6)
    return {**means, "sorted": sorts}, scores


# Pictures and helpers: skip on a first reading


def in_their_order(model: T5) -> list[Tensor]:
    """The parameters in the order of Hugging Face's T5."""
    found = [model.target_embedding.weight]
    tables = {model.encoder: model.encoder_table, model.decoder: model.decoder_table}
    for stack, table in tables.items():
        at = len(found) + 4  # behind the first attention's four layers
        for layer in stack.layers:
            parts = dict(layer.named_children())
            for name in ("attention", "self_attention", "cross_attention", "feed_forward"):
                if name in parts:
                    found += [*parts[name].parameters(), parts[f"{name}_norm"].weight]
        found.insert(at, table)
        found.append(stack.norm.weight)
    return found


def make_model(cfg: Config) -> T5:
    torch.manual_seed(cfg.seed)
    sizes = {"dim": cfg.dim, "n_heads": 4, "hidden_dim": 4 * cfg.dim, "n_layers": 1}
    return T5(len(WORDS), **sizes, dropout=0.0).to(cfg.torch_device())


def train(cfg: Config) -> T5:
    model = make_model(cfg)
    batches = [four_tasks(cfg, 64, seed=100 + n) for n in range(cfg.steps)]  # tests have 0 to 2
    adam = torch.optim.Adam(model.parameters(), lr=4e-3)
    rate = torch.optim.lr_scheduler.OneCycleLR(adam, 4e-3, cfg.steps, pct_start=0.2)
    fit(model, batches, adam, full.loss, scheduler=rate, grad_clip=1.0, quiet=True)
    return model


def right(model: T5, source: Tensor, target: Tensor) -> Tensor:
    """The share of texts that it answers exactly, for each of the four tasks: (4,)"""
    written = full.greedy(model, source, LONGEST + 1)
    return (written == target).all(dim=1).double().unflatten(0, (-1, len(TASKS))).mean(dim=0)


def draw_bias(cfg: Config, scores: dict[str, Tensor]) -> None:
    figure, (left, right) = new_figure(1, 2, size=(13, 4.8))
    offsets = torch.arange(-160, 161)
    buckets = torch.stack([bucket(offsets, True), bucket(offsets, False)], dim=1)
    left.step(offsets, buckets, label=["encoder", "decoder"])
    left.set(xlabel="offset", ylabel="bucket", title="Near: a bucket each; far: wide ones")
    left.legend()
    for n, shares in enumerate(scores.values()):
        right.bar(torch.arange(4) + 0.2 * n - 0.3, shares.tolist(), width=0.2)
    right.set_xticks(range(4), TASKS)
    right.set(ylabel="answered right", ylim=(0, 1.35), title="Without its bias it loses the order")
    right.legend(["T5", "“sort:” before all", "bias set to 0", "commonest answer"], ncols=2)
    save_figure(figure, cfg.out / "bias")


def run(cfg: Config) -> dict[str, float]:
    show_buckets(cfg)
    show_parity(cfg)
    show_spans(cfg)
    results, scores = show_tasks(cfg)
    draw_bias(cfg, scores)
    return results


if __name__ == "__main__":
    main(run, Config, __doc__)
