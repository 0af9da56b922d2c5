"""7.6 The full Transformer: the paper's model, whole
完整的 Transformer：把论文里的模型造出来

You will be able to answer
    1. What surrounds the stacks?   show_model      embedded
    2. Is it torch's model?         show_torch      same
    3. How does the rate change?    show_rate       by-hand
    4. What does smoothing change?  show_smoothing  target, stops, smoothed
    5. Does it sort new sequences?  show_sorting    overfits, depends, ended, baseline, exact, sure
Predict   exact: of 1,000 unseen sequences of 10 symbols, what share is sorted without an error?
Run       python phase07_transformer/06-transformer-full.py                about 35 s
Needs     phase06_rnn/07-seq2seq, phase07_transformer/01-self-attention,
          phase07_transformer/03-positional-encoding, phase07_transformer/04-transformer-encoder,
          phase07_transformer/05-transformer-decoder
Reference nn.Transformer, F.cross_entropy
Notation  B batch  S, T positions of source and target  D width  V symbols
"""

import math
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.checks import check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.data.sequences import END, FIRST, PAD, START, sortings
from common.figures import BLUE, new_figure, save_figure
from common.lessons import load_lesson
from common.training import fit

teacher_inputs = load_lesson("phase06_rnn/07-seq2seq").teacher_inputs
with_gradients = load_lesson("phase07_transformer/01-self-attention").with_gradients
sinusoidal = load_lesson("phase07_transformer/03-positional-encoding").sinusoidal
encoder_lesson = load_lesson("phase07_transformer/04-transformer-encoder")
decoder_lesson = load_lesson("phase07_transformer/05-transformer-decoder")

SYMBOLS = FIRST + 20
LENGTH = 10


@dataclass
class Config(LessonConfig):
    threads = 1
    dim: int = param(64, "width D of the vectors, a multiple of 8", tiny=32)
    steps: int = param(800, "training steps, each of 64 sequences", tiny=3)
    warmup: int = param(200, "steps in which the rate rises")
    tests: int = param(1000, "unseen sequences to be sorted", tiny=20)


class Transformer(nn.Module):
    """Encoder and decoder with embeddings and positions (Vaswani et al. 2017, section 3).

    The default sizes are the paper's. The target's embedding is also the output layer; shared, as
    in the paper, it is the source's, too. final_norm: a norm behind each stack, as in torch.
    """

    def __init__(
        self,
        source_symbols: int,
        target_symbols: int,
        dim: int = 512,
        n_heads: int = 8,
        hidden_dim: int = 2048,
        n_layers: int = 6,
        dropout: float = 0.1,
        shared: bool = False,
        norm_first: bool = False,
        final_norm: bool | None = None,
        pad: int = PAD,
    ):
        super().__init__()
        if shared and source_symbols != target_symbols:
            raise ValueError(f"{source_symbols} and {target_symbols} symbols cannot share a table.")

        self.target_embedding = nn.Embedding(target_symbols, dim)
        self.source_embedding = self.target_embedding
        if not shared:
            self.source_embedding = nn.Embedding(source_symbols, dim)
        sizes = (n_layers, dim, n_heads, hidden_dim, dropout, norm_first)
        self.encoder = encoder_lesson.Encoder(*sizes, final_norm=final_norm)
        self.decoder = decoder_lesson.Decoder(*sizes, final_norm=final_norm)
        self.dropout = nn.Dropout(dropout)
        self.pad = pad

        encoder_lesson.xavier(self)
        for embedding in (self.source_embedding, self.target_embedding):
            nn.init.normal_(embedding.weight, std=dim**-0.5)

    def embed(self, embedding: nn.Embedding, tokens: Tensor) -> Tensor:
        """tokens (B, T) -> vectors with their positions (B, T, D)"""
        # practice: Tokens with their positions
        length = tokens.shape[1]
        dim = embedding.embedding_dim

        # The weights have the variance 1/D, which suits the output; as an input they are small.
        vectors = math.sqrt(dim) * embedding(tokens)
        positions = sinusoidal(length, dim).to(vectors)
        return self.dropout(vectors + positions)
        # end practice

    def encode(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """source (B, S) -> the memory (B, S, D) and its mask (B, 1, 1, S)"""
        mask = encoder_lesson.padding_mask(source, self.pad)
        return self.encoder(self.embed(self.source_embedding, source), mask), mask

    def decode(self, inputs: Tensor, memory: Tensor, memory_mask: Tensor) -> Tensor:
        """inputs (B, T), what was written so far -> logits (B, T, V) of what comes next"""
        x = self.decoder(self.embed(self.target_embedding, inputs), memory, memory_mask)
        # The product with each symbol's own vector is its score.
        return x @ self.target_embedding.weight.T

    def forward(self, source: Tensor, inputs: Tensor) -> Tensor:
        # practice: Source and inputs to logits
        memory, memory_mask = self.encode(source)
        return self.decode(inputs, memory, memory_mask)
        # end practice


def show_model(cfg: Config) -> None:
    print("\n[1] Embeddings and positions before the stacks, the embedding again behind them")
    model = Transformer(30, 30, dim=4, n_heads=1, hidden_dim=8, n_layers=1, shared=True)
    nn.init.constant_(model.source_embedding.weight, 0.5)
    nn.init.constant_(model.source_embedding.weight[9], 1.0)

    torch.manual_seed(cfg.seed)
    vectors = model.embed(model.source_embedding, torch.tensor([[7, 9]]))
    torch.manual_seed(cfg.seed)  # again, so that dropout removes the same entries
    wanted = F.dropout(torch.tensor([[1.0, 2, 1, 2], [2.8415, 2.5403, 2.0100, 3.0000]]), 0.1)
    text = "2 · embedding + sines and cosines, then dropout with the rate 0.1"
    check_close("embedded", text, vectors[0], wanted, atol=1e-4)


def show_torch(cfg: Config) -> None:
    print("\n[2] torch's model, with copied weights, on our vectors: it has no embeddings")
    source = torch.tensor([[7, 5, 9, PAD, PAD], [4, 6, 9, 8, 3]])
    inputs = torch.tensor([[START, 5, 7, 9], [START, 3, 4, 6]])
    causal = nn.Transformer.generate_square_subsequent_mask(4, dtype=torch.float64)
    is_pad = source == PAD
    masks = {"src_key_padding_mask": is_pad, "memory_key_padding_mask": is_pad, "tgt_mask": causal}

    # Both have width 12, 2 heads, 2 layers in each stack, and 20 in the hidden layer.
    theirs = nn.Transformer(12, 2, 2, 2, 20, batch_first=True).double().eval()
    encoder_lesson.randomize(theirs)
    ours = Transformer(10, 10, 12, 2, 20, 2, shared=True, final_norm=True).double().eval()
    load_torch(ours, theirs)

    embedding = ours.source_embedding
    row = with_gradients(ours(source, inputs), embedding.weight)
    vectors = theirs(ours.embed(embedding, source), ours.embed(embedding, inputs), **masks)
    their_row = with_gradients(vectors @ embedding.weight.T, embedding.weight)
    check_close("same", "the same logits and gradients of the embedding", row, their_row)


def warmup_rate(step: int, dim: int, warmup: int) -> float:
    """The learning rate of a step, counted from 1 (section 5.3): a line up, then 1 / √step down."""
    # practice: The learning rate
    rising = step * warmup**-1.5
    falling = step**-0.5
    return dim**-0.5 * min(rising, falling)
    # end practice


def show_rate(cfg: Config) -> None:
    print("\n[3] The rate: up on a straight line, then down as 1 / √step")
    rates = [warmup_rate(step, 16, 4) for step in (1, 2, 4, 16)]
    text = "width 16, 4 steps of warm-up: steps 1, 2, 4, 16 have 1/32, 1/16, 1/8, 1/16"
    check_close("by-hand", text, rates, [1 / 32, 1 / 16, 1 / 8, 1 / 16])


def smoothed_loss(logits: Tensor, target: Tensor, smoothing: float, pad: int = PAD) -> Tensor:
    """Cross-entropy with the target 1 - smoothing, and smoothing shared by all V symbols.

    logits (..., V), target (...) -> the mean over all that is not padding (section 5.4).
    """
    # practice: The smoothed loss
    log_p = logits.log_softmax(dim=-1)  # (..., V)
    right = log_p.gather(-1, target[..., None])[..., 0]  # (...)
    mean = log_p.mean(dim=-1)
    losses = -(1 - smoothing) * right - smoothing * mean

    known = target != pad
    return losses[known].mean()
    # end practice


def show_smoothing(cfg: Config) -> None:
    print("\n[4] Label smoothing: the target of the right symbol is less than 1")
    logits = torch.tensor([[math.log(17), 0, 0, 0]], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0])
    right = smoothed_loss(logits, target, smoothing=0.2, pad=9)
    surer = smoothed_loss(2 * logits, target, smoothing=0.2, pad=9)

    entropy = -0.85 * math.log(0.85) - 0.15 * math.log(0.05)
    text = "smoothing 0.2: 0.85 for the right of 4 symbols costs 0.588, 0.99 costs 0.860"
    wanted = [entropy, -math.log(289 / 292) + 0.15 * math.log(289)]
    check_close("target", text, torch.stack([right, surer]), wanted)

    (gradient,) = torch.autograd.grad(right, logits)
    check_close("stops", "at 0.85 all gradients are 0", gradient[0], [0.0] * 4)

    logits = torch.randn(3, 5, 7, dtype=torch.float64, requires_grad=True)
    target = torch.randint(1, 7, (3, 5))
    target[1, 2:] = PAD
    ours = with_gradients(smoothed_loss(logits, target, smoothing=0.1), logits)
    options = {"label_smoothing": 0.1, "ignore_index": PAD}
    theirs = F.cross_entropy(logits.flatten(0, 1), target.flatten(), **options)
    check_close("smoothed", "with padding: torch's", ours, with_gradients(theirs, logits))


@torch.no_grad()
def greedy(
    model: Transformer, source: Tensor, length: int, start: int = START, end: int = END
) -> Tensor:
    """source (B, S) -> the likeliest symbol at each step: (B, length), padding after END."""
    # practice: Greedy decoding
    memory, memory_mask = model.encode(source)  # once for all steps
    written = torch.full((len(source), 1), start, device=source.device)
    ended = torch.zeros(len(source), dtype=torch.bool, device=source.device)
    for _ in range(length):
        logits = model.decode(written, memory, memory_mask)[:, -1]  # (B, V)
        chosen = logits.argmax(dim=1).masked_fill(ended, model.pad)
        ended = ended | (chosen == end)
        written = torch.cat([written, chosen[:, None]], dim=1)
    return written[:, 1:]
    # end practice


def show_sorting(cfg: Config) -> tuple[dict[str, float], Transformer]:
    print(f"\n[5] {LENGTH} symbols out of 20, to be sorted")
    batch = sortings(cfg, 16, seed=0)
    model = make_model(cfg)
    adam = torch.optim.Adam(model.parameters(), lr=4e-3)
    text = "16 sequences: the loss falls to {}"
    overfits("overfits", text, model, batch, loss, adam, steps=80, below=0.3)
    written = greedy(model, batch[0], LENGTH + 1)
    depends_on_input("depends", "{} of the fifth symbols are right", written[:, 4], batch[1][:, 4])

    # With END set to what it writes first, it has to stop at once.
    first = written[0, 0].item()
    written = greedy(model, batch[0][:1], LENGTH + 1, end=first)
    text = "its first symbol as the end: nothing but padding after it"
    check_close("ended", text, written[0], [first] + [PAD] * LENGTH)

    source, target = sortings(cfg, cfg.tests, seed=1)
    symbols, sequences = by_position(cfg, target)
    text = f"each position's commonest symbol: {sequences:g} of the sequences, {{}} of the symbols"
    expect("baseline", text, symbols, below=0.35)

    model = train(cfg, make_model(cfg)).eval()
    written = greedy(model, source, LENGTH + 1)
    print(f"  {letters(source[0])} -> {letters(written[0])}")
    exact = (written == target).all(dim=1).double().mean().item()
    expect("exact", "of unseen sequences {} are sorted without an error", exact, at_least=0.99)

    p = model(source, teacher_inputs(target)).softmax(dim=2)
    sure = p.gather(2, target[..., None]).mean().item()
    text = "smoothing 0.1: the right symbol's target is 0.904, its mean probability {}"
    expect("sure", text, sure, above=0.87, below=0.92)

    baseline = {"baseline_symbols": symbols, "baseline_exact": sequences}
    return {"exact": exact, "sure": sure} | baseline, model


# Pictures and helpers: skip on a first reading


def make_model(cfg: Config) -> Transformer:
    torch.manual_seed(cfg.seed)
    sizes = (cfg.dim, 4, 4 * cfg.dim, 2)  # 4 heads, 2 layers in each stack
    return Transformer(SYMBOLS, SYMBOLS, *sizes, dropout=0.0, shared=True).to(cfg.torch_device())


def load_torch(ours: Transformer, theirs: nn.Module) -> None:
    """Copy the weights of nn.Transformer, which has no embeddings."""
    stacks = (
        (encoder_lesson, ours.encoder, theirs.encoder),
        (decoder_lesson, ours.decoder, theirs.decoder),
    )
    for lesson, our_stack, their_stack in stacks:
        for our_layer, their_layer in zip(our_stack.layers, their_stack.layers):
            lesson.load_torch(our_layer, their_layer)
        our_stack.norm.load_state_dict(their_stack.norm.state_dict())


def loss(model: nn.Module, batch: tuple[Tensor, Tensor], smoothing: float = 0.0) -> Tensor:
    source, target = batch
    return smoothed_loss(model(source, teacher_inputs(target)), target, smoothing)


def train(cfg: Config, model: Transformer) -> Transformer:
    def rate(step: int) -> float:  # torch counts from 0
        # To 0 in the last quarter, against the noise of its steps (the paper averages checkpoints).
        share_left = 1 - step / cfg.steps
        return warmup_rate(step + 1, cfg.dim, cfg.warmup) * min(1.0, 4 * share_left)

    # Its lr multiplies the schedule. The paper has 1, for wider models and many more steps.
    adam = torch.optim.Adam(model.parameters(), lr=0.3, betas=(0.9, 0.98), eps=1e-9)
    scheduler = torch.optim.lr_scheduler.LambdaLR(adam, rate)
    batches = [sortings(cfg, 64, seed=100 + step) for step in range(cfg.steps)]
    fit(model, batches, adam, partial(loss, smoothing=0.1), scheduler=scheduler, quiet=True)
    return model


def by_position(cfg: Config, target: Tensor) -> tuple[float, float]:
    """The commonest symbol of each position in 1,000 training targets: right symbols, sequences."""
    batches = [sortings(cfg, 64, seed=100 + step)[1] for step in range(16)]
    right = target == torch.cat(batches)[:1000].mode(dim=0).values
    return right.double().mean().item(), right.all(dim=1).double().mean().item()


def letters(symbols: Tensor) -> str:
    names = {PAD: "-", END: "."}
    return "".join(names.get(each, chr(ord("a") + each - FIRST)) for each in symbols.tolist())


@torch.no_grad()
def draw_sorting(cfg: Config, model: Transformer) -> None:
    source, target = sortings(cfg, 1, seed=2)
    model(source, teacher_inputs(target))
    weights = model.decoder.layers[-1].cross_attention.weights[0].mean(dim=0).cpu()

    figure, (left, right) = new_figure(1, 2, size=(11, 4.6))
    left.plot([warmup_rate(step, 512, 4000) for step in range(1, 20_000)], color=BLUE)
    left.set(xlabel="step", ylabel="learning rate", xticks=range(0, 20_001, 5000))
    left.set_title("The paper's rate: width 512, warm-up of 4,000")

    image = right.imshow(weights, vmin=0, cmap="Blues")
    figure.colorbar(image, label="weight, mean of 4 heads")
    right.set_xticks(range(LENGTH), list(letters(source[0])))
    right.set_yticks(range(LENGTH + 1), list(letters(target[0])))
    right.grid(False)
    right.set(xlabel="source", ylabel="next symbol (. is END)", title="Cross-attention, last layer")
    save_figure(figure, cfg.out / "sorting")


def run(cfg: Config) -> dict[str, float]:
    show_model(cfg)
    show_torch(cfg)
    show_rate(cfg)
    show_smoothing(cfg)
    scores, model = show_sorting(cfg)
    draw_sorting(cfg, model)
    return scores


if __name__ == "__main__":
    main(run, Config, __doc__)
