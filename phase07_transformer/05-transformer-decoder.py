"""7.5 The Transformer decoder: no peeking at the future
Transformer 解码器：看不到未来的词元

You will be able to answer
    1. What does a layer compute?      show_layer   by-hand
    2. Is it torch's decoder?          show_torch   post, pre
    3. Is the future hidden?           show_future  past, prefix, source, padding
    4. What is self-attention for?     show_expand  overfits, depends, whole, no-self
    5. How does a leak show itself?    show_leak    peeks, alone
Predict   peek: trained without a mask, what share of new texts does it generate correctly?
Run       python phase07_transformer/05-transformer-decoder.py             about half a minute
Needs     phase06_rnn/07-seq2seq, phase07_transformer/01-self-attention,
          phase07_transformer/02-multi-head-attention, phase07_transformer/03-positional-encoding,
          phase07_transformer/04-transformer-encoder
Reference nn.TransformerDecoderLayer, nn.TransformerDecoder
Notation  B batch  T positions of the target  S of the memory  D width  N heads  V symbols
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.checks import check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.data.sequences import END, FIRST, LETTERS, MOST_TIMES, PAD, START, expansions
from common.data.sequences import EXPANDED_LENGTH as LENGTH
from common.figures import new_figure, save_figure
from common.lessons import load_lesson
from common.training import fit

teacher_inputs = load_lesson("phase06_rnn/07-seq2seq").teacher_inputs
causal_mask = load_lesson("phase07_transformer/01-self-attention").causal_mask
with_gradients = load_lesson("phase07_transformer/01-self-attention").with_gradients
multi_head = load_lesson("phase07_transformer/02-multi-head-attention")
sinusoidal = load_lesson("phase07_transformer/03-positional-encoding").sinusoidal
encoder = load_lesson("phase07_transformer/04-transformer-encoder")

SYMBOLS = FIRST + LETTERS
Mask = Tensor | None


@dataclass
class Config(LessonConfig):
    threads = 1
    dim: int = param(32, "width D of the vectors, a multiple of 8")
    steps: int = param(600, "training steps, each of 64 lists", tiny=3)
    tests: int = param(1000, "new texts to be generated", tiny=20)


class DecoderLayer(nn.Module):
    """Masked self-attention, attention to the memory, the feed-forward network (lesson 7.4).

    What each computes is added to its input. norm_first: as in EncoderLayer.
    """

    def __init__(
        self,
        dim: int,
        n_heads: int,
        hidden_dim: int,
        dropout: float = 0.1,
        norm_first: bool = False,
        activation: str = "relu",
        eps: float = 1e-5,
    ):
        super().__init__()
        self.norm_first = norm_first
        self.self_attention = multi_head.MultiHeadAttention(dim, n_heads, dropout)
        self.cross_attention = multi_head.MultiHeadAttention(dim, n_heads, dropout)
        self.feed_forward = encoder.FeedForward(dim, hidden_dim, dropout, activation)
        self.self_attention_norm = nn.LayerNorm(dim, eps)
        self.cross_attention_norm = nn.LayerNorm(dim, eps)
        self.feed_forward_norm = nn.LayerNorm(dim, eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor, mask: Mask = None, memory_mask: Mask = None):
        """x (B, T, D), memory (B, S, D) -> (B, T, D). True in a mask: may attend."""
        # practice: A decoder layer
        if self.norm_first:
            query = self.self_attention_norm(x)
            x = x + self.dropout(self.self_attention(query, mask=mask))
            query = self.cross_attention_norm(x)
            x = x + self.dropout(self.cross_attention(query, memory, memory_mask))
            normed = self.feed_forward_norm(x)
            x = x + self.dropout(self.feed_forward(normed))
        else:
            update = self.self_attention(x, mask=mask)
            x = self.self_attention_norm(x + self.dropout(update))
            update = self.cross_attention(x, memory, memory_mask)
            x = self.cross_attention_norm(x + self.dropout(update))
            update = self.feed_forward(x)
            x = self.feed_forward_norm(x + self.dropout(update))
        return x
        # end practice


def show_layer(cfg: Config) -> None:
    print("\n[1] A layer: self-attention, cross-attention; by hand, without feed-forward network")
    layer = DecoderLayer(2, 1, 1, norm_first=True, eps=0.0).double().eval()
    encoder.switch_off(layer.feed_forward.outer)

    for part in (layer.self_attention, layer.cross_attention):
        # Queries of 0 make all weights equal; identity matrices pass the values on.
        encoder.switch_off(part.query)
        for linear in (part.value, part.out):
            nn.init.eye_(linear.weight)
            nn.init.zeros_(linear.bias)

    x = torch.tensor([[[3, 1], [0, 4]]], dtype=torch.float64)
    memory = torch.tensor([[[2, 0], [4, 6]]], dtype=torch.float64)
    text = "(3, 1) and (0, 4), the memory (2, 0), (4, 6), equal weights: (7, 3) and (3, 7)"
    check_close("by-hand", text, layer(x, memory, causal_mask(2))[0], [[7.0, 3], [3, 7]])


class Decoder(encoder.Encoder):
    """An Encoder of decoder layers, which all read the same memory. mask: causal if not given."""

    layer_class = DecoderLayer

    def forward(self, x: Tensor, memory: Tensor, memory_mask: Mask = None, mask: Mask = None):
        # practice: The stack
        if mask is None:
            mask = causal_mask(x.shape[1]).to(x.device)
        for layer in self.layers:
            x = layer(x, memory, mask, memory_mask)
        return self.norm(x)
        # end practice


def show_torch(cfg: Config) -> None:
    print("\n[2] Two layers of torch's decoder in training, with copied weights: causal, padding")
    # One sequence: torch draws the dropout of several in another order.
    x = torch.randn(1, 5, 12, dtype=torch.float64, requires_grad=True)
    memory = torch.randn(1, 4, 12, dtype=torch.float64, requires_grad=True)
    source = torch.tensor([[7, 5, PAD, PAD]])
    masks = {"tgt_mask": ~causal_mask(5), "memory_key_padding_mask": source == PAD}

    for name, norm_first in (("post", False), ("pre", True)):
        options = {"norm_first": norm_first, "activation": "gelu"}
        layer = nn.TransformerDecoderLayer(12, 3, 20, batch_first=True, **options)
        theirs = nn.TransformerDecoder(layer, 2, nn.LayerNorm(12)).double()
        encoder.randomize(theirs)

        ours = Decoder(2, 12, 3, 20, **options, final_norm=True).double()
        for our_layer, their_layer in zip(ours.layers, theirs.layers):
            load_torch(our_layer, their_layer)
        ours.norm.load_state_dict(theirs.norm.state_dict())

        torch.manual_seed(cfg.seed)
        row = with_gradients(ours(x, memory, encoder.padding_mask(source)), x, memory)
        torch.manual_seed(cfg.seed)
        their_row = with_gradients(theirs(x, memory, **masks), x, memory)
        text = f"{name}-norm, the same seed: the same dropout, outputs and gradients"
        check_close(name, text, row, their_row)


class Expander(nn.Module):
    """The source is pairs of letter and number, c3 a1; the target is ccca.

    source (B, 4, 2), inputs (B, T): the symbols so far -> logits (B, T, V) of the next ones.
    peek: no mask, and positions in the text, so that the next symbol can be found.
    """

    def __init__(self, cfg: Config, peek: bool = False):
        super().__init__()
        self.symbol = nn.Embedding(SYMBOLS, cfg.dim)
        self.number = nn.Embedding(MOST_TIMES + 1, cfg.dim)
        self.decoder = Decoder(2, cfg.dim, 4, 4 * cfg.dim, dropout=0.0)
        self.head = nn.Linear(cfg.dim, SYMBOLS)
        self.peek = peek
        self.register_buffer("table", sinusoidal(LENGTH, cfg.dim))

    def forward(self, source: Tensor, inputs: Tensor) -> Tensor:
        # practice: From pairs to logits
        letters, numbers = source.unbind(dim=-1)  # (B, S) each
        memory = self.symbol(letters) + self.number(numbers) + self.table[: letters.shape[1]]
        memory_mask = encoder.padding_mask(letters)

        # No positions here: under the causal mask the first sees one symbol, the second two, …
        x = self.symbol(inputs)  # (B, T, D)
        mask = None
        if self.peek:
            x = x + self.table[: inputs.shape[1]]
            mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device)
        return self.head(self.decoder(x, memory, memory_mask, mask))
        # end practice


def show_future(cfg: Config) -> None:
    print("\n[3] A model with two layers, untrained: what does a prediction depend on?")
    source, target = expansions(cfg, 3, seed=0)
    inputs = teacher_inputs(target)
    model = make_model(cfg).double()
    logits = model(source, inputs)  # (B, T, V)

    changed = inputs.clone()
    changed[:, 5] = FIRST + (changed[:, 5] + 1) % LETTERS
    text = "another symbol at position 5: the logits before it stay, from there on they change"
    moves = moved(model(source, changed), logits)
    check_close("past", text, moves, [False] * 5 + [True] * (LENGTH - 5))

    steps = [model(source, inputs[:, :n])[:, -1] for n in range(1, LENGTH + 1)]
    text = f"one pass over {LENGTH} positions: the same logits as {LENGTH} passes, symbol by symbol"
    check_close("prefix", text, logits, torch.stack(steps, dim=1))

    moves = moved(model(source[:, [1, 0, 2, 3]], inputs), logits)
    text = "the first two pairs exchanged: the logits of all positions change"
    check_close("source", text, moves, [True] * LENGTH)

    short = torch.cat([source[:, :2], torch.full_like(source[:, 2:], PAD)], dim=1)
    text = "padding behind two pairs: the logits are those of the two pairs alone"
    check_close("padding", text, model(short, inputs), model(source[:, :2], inputs))


def show_expand(cfg: Config) -> tuple[dict[str, float], Expander]:
    print("\n[4] From c3 a1 to ccca: 2 to 4 pairs are the memory, the text is generated")
    batch = expansions(cfg, 16, seed=0)
    model = make_model(cfg)
    adam = torch.optim.Adam(model.parameters(), lr=1e-2)
    text = "16 lists: the loss falls to {}"
    overfits("overfits", text, model, batch, cross_entropy, adam, steps=60, below=0.3)
    third = write(model, batch[0])[:, 2]
    depends_on_input("depends", "{} of the third symbols are right", third, batch[1][:, 2])

    test = expansions(cfg, cfg.tests, seed=1)
    whole = train(cfg, make_model(cfg))
    _, written = shares(whole, test)
    expect("whole", "{} of new texts are generated without an error", written, at_least=0.95)

    model = make_model(cfg)
    for layer in model.decoder.layers:
        # Self-attention adds 0 from now on, in training too: each symbol is alone with the memory.
        encoder.switch_off(layer.self_attention.out)
    _, no_self = shares(train(cfg, model), test)
    best = (1 / 9 + 1 / 27 + 1 / 81) / 3  # every number must be 1: it cannot count
    text = f"without self-attention {{}}; the best possible is {best:.3f}"
    expect("no-self", text, no_self, above=best - 0.03, below=best + 0.03)
    return {"whole": written, "no_self": no_self}, whole


def show_leak(cfg: Config) -> dict[str, float]:
    print("\n[5] The same decoder, trained without a mask: the next symbol is in its input")
    model = train(cfg, make_model(cfg, peek=True))
    test = expansions(cfg, cfg.tests, seed=1)
    symbols, texts = shares(model, test)
    expect("peeks", "given the right text, {} of the symbols are right", symbols, at_least=0.98)
    expect("alone", "of the texts that it generates by itself {}", texts, at_most=0.1)

    return {"peek_given": symbols, "peek": texts}


# Pictures and helpers: skip on a first reading


def moved(logits: Tensor, others: Tensor) -> Tensor:
    """(B, T, V) each -> True at the positions whose logits differ in any text: (T,)"""
    return (logits - others).abs().amax(dim=(0, 2)) > 1e-12


def load_torch(ours: DecoderLayer, theirs: nn.Module) -> None:
    """Copy the weights of nn.TransformerDecoderLayer."""
    multi_head.load_torch(ours.self_attention, theirs.self_attn)
    multi_head.load_torch(ours.cross_attention, theirs.multihead_attn)
    ours.feed_forward.inner.load_state_dict(theirs.linear1.state_dict())
    ours.feed_forward.outer.load_state_dict(theirs.linear2.state_dict())
    ours.self_attention_norm.load_state_dict(theirs.norm1.state_dict())
    ours.cross_attention_norm.load_state_dict(theirs.norm2.state_dict())
    ours.feed_forward_norm.load_state_dict(theirs.norm3.state_dict())


def make_model(cfg: Config, peek: bool = False) -> Expander:
    torch.manual_seed(cfg.seed)
    return Expander(cfg, peek).to(cfg.torch_device())


def cross_entropy(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    source, target = batch
    logits = model(source, teacher_inputs(target))
    return F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=PAD)


def train(cfg: Config, model: Expander) -> Expander:
    batches = [expansions(cfg, 64, seed=100 + n) for n in range(cfg.steps)]  # the tests have 1, 2
    adam = torch.optim.Adam(model.parameters(), lr=5e-3)
    rate = torch.optim.lr_scheduler.OneCycleLR(adam, 5e-3, len(batches), pct_start=0.2)
    fit(model, batches, adam, cross_entropy, scheduler=rate, quiet=True)
    return model


@torch.no_grad()
def write(model: nn.Module, source: Tensor) -> Tensor:
    """Greedy decoding: (B, 13) symbols, END and what follows it."""
    symbols = torch.full((len(source), 1), START, device=source.device)
    for _ in range(LENGTH):
        chosen = model(source, symbols)[:, -1].argmax(dim=1)
        symbols = torch.cat([symbols, chosen[:, None]], dim=1)
    return symbols[:, 1:]


@torch.no_grad()
def shares(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[float, float]:
    """The shares of right symbols under teacher forcing, and of right texts in greedy decoding."""
    source, target = batch
    known = target != PAD
    predicted = model(source, teacher_inputs(target)).argmax(dim=2)
    symbols = (predicted == target)[known].double().mean().item()

    right = (write(model, source) == target) | ~known  # what follows END does not count
    return symbols, right.all(dim=1).double().mean().item()


@torch.no_grad()
def draw_looks(cfg: Config, model: Expander) -> None:
    source, target = expansions(cfg, 8, seed=2)
    length, row = (target != PAD).sum(dim=1).max(dim=0)  # the longest
    target = target[row, :length]
    model(source[row][None], teacher_inputs(target[None]))

    names = ["end" if symbol == END else chr(ord("a") + symbol - FIRST) for symbol in target]
    pairs = [f"{chr(ord('a') + letter - FIRST)}{n}" for letter, n in source[row].tolist() if n]

    figure, (left, right) = new_figure(1, 2, size=(11, 5), width_ratios=(2, 1))
    layer = model.decoder.layers[-1]
    written = (left, layer.self_attention, ["start", *names[:-1]])
    for axis, part, columns in (written, (right, layer.cross_attention, pairs)):
        weights = part.weights[0].mean(dim=0)[:, : len(columns)].cpu()
        axis.imshow(weights, vmin=0, vmax=1, cmap="Blues", aspect="auto")
        axis.set_xticks(range(len(columns)), columns)
        axis.set_yticks(range(len(names)), names)
        axis.grid(False)

    left.set(xlabel="input", ylabel="next symbol", title="Self-attention: nothing from the future")
    right.set(xlabel="source", title="Cross-attention:\nthe pair being written")
    save_figure(figure, cfg.out / "looks")


def run(cfg: Config) -> dict[str, float]:
    show_layer(cfg)
    show_torch(cfg)
    show_future(cfg)
    scores, model = show_expand(cfg)
    draw_looks(cfg, model)
    return scores | show_leak(cfg)


if __name__ == "__main__":
    main(run, Config, __doc__)
