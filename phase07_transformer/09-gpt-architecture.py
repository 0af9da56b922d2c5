"""7.9 GPT-2: predicting the next token, and nothing else
GPT-2：只预测下一个词元，不做别的

You will be able to answer
    1. What is GPT-2 made of?          show_model     by-hand, sizes
    2. Is it the published network?    show_parity    logits, gradients
    3. How is one text many examples?  show_loss      at-once
    4. How does it begin?              show_start     chance, scaled, unscaled
    5. What does it learn first?       show_training  overfits, depends, pairs, behind
Predict   in_layers: what share of GPT-2's 124 million parameters do its 12 layers hold?
Run       python phase07_transformer/09-gpt-architecture.py                about half a minute
Needs     phase06_rnn/project-text-generation, phase07_transformer/01-self-attention,
          phase07_transformer/03-positional-encoding, phase07_transformer/04-transformer-encoder
Reference transformers.GPT2LMHeadModel
Notation  B batch  T tokens of a text  V tokens of the vocabulary  D width  L layers
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.data.text import Corpus, load_text
from common.figures import BLUE, GREY, new_figure, save_figure
from common.lessons import load_lesson
from common.training import fit

counting = load_lesson("phase06_rnn/project-text-generation")
causal_mask = load_lesson("phase07_transformer/01-self-attention").causal_mask
LearnedPositions = load_lesson("phase07_transformer/03-positional-encoding").LearnedPositions
Encoder = load_lesson("phase07_transformer/04-transformer-encoder").Encoder

# V, context, D, L, heads; and the parameters of the published models
PUBLISHED = {
    "GPT-2": ((50257, 1024, 768, 12, 12), 124_439_808),
    "medium": ((50257, 1024, 1024, 24, 16), 354_823_168),
    "large": ((50257, 1024, 1280, 36, 20), 774_030_080),
    "XL": ((50257, 1024, 1600, 48, 25), 1_557_611_200),
}


@dataclass
class Config(LessonConfig):
    threads = 1
    data: str = param("python", "text to train on", choices=("python", "shakespeare"))
    dim: int = param(96, "width D, a multiple of 4", tiny=32)
    layers: int = param(2, "layers L")
    context: int = param(32, "characters that it reads at once", low=8)
    steps: int = param(1200, "training steps, each of 16 windows", tiny=5)


class GPT(nn.Module):
    """GPT-2 (Radford et al. 2019): tokens (B, T) -> logits (B, T, V) of the token after each."""

    def __init__(
        self, vocab: int, context: int, dim: int, n_layers: int, n_heads: int, dropout: float = 0.1
    ):
        super().__init__()
        self.tokens = nn.Embedding(vocab, dim)
        self.positions = LearnedPositions(context, dim)
        self.dropout = nn.Dropout(dropout)
        kind = {"norm_first": True, "activation": "gelu_tanh"}
        self.encoder = Encoder(n_layers, dim, n_heads, 4 * dim, dropout, **kind)
        for layer in self.encoder.layers:
            layer.feed_forward.dropout = nn.Identity()  # GPT-2 has none between its two layers
        initialise(self)

    def forward(self, tokens: Tensor, start: int = 0) -> Tensor:
        """start: the position of the first token, if others came before (lesson 7.10)."""
        # practice: GPT-2
        x = self.positions(self.tokens(tokens), start)  # (B, T, D)
        x = self.dropout(x)

        # Each token may look at itself and at all that came before it.
        end = start + tokens.shape[1]
        mask = causal_mask(end)[start:].to(x.device)  # (T, end)
        x = self.encoder(x, mask)

        # The table of embeddings once more: a product of x with each token's row.
        return x @ self.tokens.weight.T  # (B, T, V)
        # end practice


@torch.no_grad()
def initialise(model: GPT) -> None:
    """All weights from N(0, 0.02²), biases 0; what the residual connections add is made smaller."""
    # practice: The initial weights
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            module.weight.normal_(std=0.02)
        if isinstance(module, nn.Linear):
            module.bias.zero_()

    # 2 L terms are added to the embeddings. Divided by the root, their sum is as large as one.
    root = math.sqrt(2 * len(model.encoder.layers))
    for layer in model.encoder.layers:
        layer.attention.out.weight /= root
        layer.feed_forward.outer.weight /= root
    # end practice


def parameters(vocab: int, context: int, dim: int, n_layers: int) -> tuple[int, int]:
    """The number of parameters: of the two tables, and of the layers with the last norm."""
    # practice: Count the parameters
    tables = (vocab + context) * dim

    # Query, key, value and out; then D -> 4 D -> D; each output has a bias.
    attention = 4 * (dim**2 + dim)
    feed_forward = 2 * 4 * dim**2 + 4 * dim + dim
    norm = 2 * dim
    return tables, n_layers * (attention + feed_forward + 2 * norm) + norm
    # end practice


def show_model(cfg: Config) -> float:
    print("\n[1] Two tables, and the encoder of lesson 7.4 with a causal mask")
    text = "V = 10, context 8, D = 4, one layer: 72 parameters in the tables, 252 in the layer"
    check_close("by-hand", text, parameters(10, 8, 4, 1), [72, 252])

    found = []
    shares = []
    for name, (size, _) in PUBLISHED.items():
        with torch.device("meta"):  # shapes without numbers
            model = GPT(*size)
        built = sum(weight.numel() for weight in model.parameters())
        tables, layers = parameters(*size[:4])
        shares.append(layers / built)
        print(f"  {name:<7}{built:14,} parameters, {shares[-1]:.3f} of them in its layers")
        found.append([built, tables + layers])
    check_close("sizes", "as many as published", found, [[n, n] for _, n in PUBLISHED.values()])
    return shares[0]


@torch.no_grad()
def load_gpt2(model: GPT, weights: dict[str, Tensor]) -> None:
    """Copy the state_dict of Hugging Face's GPT2LMHeadModel, which is how GPT-2 is published."""
    # practice: Take over published weights
    weights = {name.removeprefix("transformer."): each for name, each in weights.items()}
    modules = {"wte": model.tokens, "wpe": model.positions.table, "ln_f": model.encoder.norm}
    for number, layer in enumerate(model.encoder.layers):
        prefix = f"h.{number}."
        modules[prefix + "ln_1"] = layer.attention_norm
        modules[prefix + "attn.c_proj"] = layer.attention.out
        modules[prefix + "ln_2"] = layer.feed_forward_norm
        modules[prefix + "mlp.c_fc"] = layer.feed_forward.inner
        modules[prefix + "mlp.c_proj"] = layer.feed_forward.outer

        # There one matrix computes query, key and value.
        for kind in ("weight", "bias"):
            thirds = weights[f"{prefix}attn.c_attn.{kind}"].chunk(3, dim=-1)
            for name, third in zip(("query", "key", "value"), thirds):
                modules[prefix + name] = getattr(layer.attention, name)
                weights[f"{prefix}{name}.{kind}"] = third

    for name, module in modules.items():
        weight = weights[name + ".weight"]
        # Their layers are (inputs, outputs), nn.Linear is (outputs, inputs).
        module.weight.copy_(weight.T if isinstance(module, nn.Linear) else weight)
        if name + ".bias" in weights:
            module.bias.copy_(weights[name + ".bias"])
    # end practice


def next_token_loss(model: nn.Module, texts: Tensor) -> Tensor:
    """The mean cross-entropy of every token of the texts (B, T + 1) but the first."""
    # practice: The loss of a text
    logits = model(texts[:, :-1])  # (B, T, V)
    targets = texts[:, 1:]  # the tokens one position later
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())
    # end practice


def show_parity(cfg: Config) -> None:
    print("\n[2] Hugging Face's GPT-2 with random weights, copied")
    import transformers

    transformers.logging.set_verbosity_error()
    size = {"vocab_size": 50, "n_positions": 16, "n_embd": 24, "n_layer": 3, "n_head": 4}
    config = transformers.GPT2Config(**size, bos_token_id=0, eos_token_id=0)
    theirs = transformers.GPT2LMHeadModel(config).double().eval()
    for weight in theirs.parameters():
        nn.init.normal_(weight, std=0.3)  # biases and norms too: 0 and 1 would hide mistakes
    ours = GPT(50, 16, 24, 3, 4).double().eval()
    load_gpt2(ours, theirs.state_dict())

    texts = torch.randint(50, (2, 13))
    logits = ours(texts)
    wanted = theirs(texts).logits
    check_close("logits", "the same logits", logits, wanted)

    logits.square().sum().backward()
    wanted.square().sum().backward()
    gradients = GPT(50, 16, 24, 3, 4).double()  # holds their gradients in the place of weights
    load_gpt2(gradients, {name: each.grad for name, each in theirs.named_parameters()})
    found = torch.cat([weight.grad.flatten() for weight in ours.parameters()])
    wanted = torch.cat([weight.flatten() for weight in gradients.parameters()])
    check_close("gradients", "the same gradients of every parameter", found, wanted)


@torch.no_grad()
def show_loss(cfg: Config) -> None:
    print("\n[3] A text of 9 tokens is 8 training examples, computed in one pass")
    model = GPT(20, 16, 16, 2, 4).double().eval()
    texts = torch.randint(20, (3, 9))
    losses = []
    for known in range(1, 9):
        logits = model(texts[:, :known])[:, -1]  # the beginning alone
        losses.append(F.cross_entropy(logits, texts[:, known]))
    text = "its loss is the mean over its 8 beginnings, each read without what follows"
    check_close("at-once", text, next_token_loss(model, texts), torch.stack(losses).mean())


@torch.no_grad()
def show_start(cfg: Config) -> None:
    print("\n[4] New models: the variance that their layers add to the embeddings")
    texts = torch.randint(100, (8, 33))
    added = {}
    for layers in (4, 64):
        torch.manual_seed(cfg.seed)
        model = GPT(100, 32, 64, layers, 4).eval()
        loss = next_token_loss(model, texts)
        added[layers] = added_variance(model, texts)

        for layer in model.encoder.layers:  # without the division
            layer.attention.out.weight *= math.sqrt(2 * layers)
            layer.feed_forward.outer.weight *= math.sqrt(2 * layers)
        added[f"{layers} without"] = added_variance(model, texts)
    text = "the first loss is {}; if the 100 tokens were equally likely, ln 100 = 4.605"
    check("chance", text, loss, above=4.55, below=4.75)
    ratio = added[64] / added[4]
    check("scaled", "64 layers add {} times what 4 layers add", ratio, above=0.8, below=1.25)
    ratio = added["64 without"] / added["4 without"]
    check("unscaled", "without the division by the root, {} times", ratio, at_least=20)


def show_training(cfg: Config) -> tuple[dict[str, float], list[float]]:
    corpus = load_text(cfg)
    V = len(corpus.vocabulary)
    print(f"\n[5] The tokens are {V} characters; {cfg.steps} steps, then unseen text")
    texts = encode(cfg, corpus, corpus.train)
    batch = windows(texts, length=24, steps=1, seed=0)[0][:8]
    model = make_model(cfg, V)
    adam = torch.optim.Adam(model.parameters(), lr=3e-3)
    text = "8 short texts are overfitted: the loss falls to {}"
    overfits("overfits", text, model, batch, next_token_loss, adam, below=0.1)
    predicted = model(batch[:, :-1]).argmax(dim=2)
    text = "its predictions depend on its input: {} right"
    depends_on_input("depends", text, predicted.flatten(), batch[:, 1:].flatten())

    model = make_model(cfg, V)
    curve = train(model, windows(texts, cfg.context, cfg.steps, seed=1 + cfg.seed))
    found = bits_needed(model, encode(cfg, corpus, corpus.val))
    counted = counted_bits(corpus, orders=5)
    print("  bits a character, by n-grams with a context of 0, 1, 2, 3, 4 characters:")
    print("  " + ", ".join(f"{each:.3f}" for each in counted) + f"; by GPT {found:.3f}")
    expect("pairs", "{} bits fewer than n-grams with 2", counted[2] - found, at_least=0.1)
    expect("behind", "and {} more than those with 4", found - counted[4], at_least=0.2)
    return {"gpt": found} | {f"counted_{n}": bits for n, bits in enumerate(counted)}, curve


# Pictures and helpers: skip on a first reading


def added_variance(model: GPT, texts: Tensor) -> float:
    """Variance of the vectors after the last layer, minus that of the embeddings."""
    x = model.positions(model.tokens(texts[:, :-1]))  # (B, T, D)
    before = x.var()
    for layer in model.encoder.layers:
        x = layer(x, causal_mask(x.shape[1]))
    return (x.var() - before).item()


def encode(cfg: Config, corpus: Corpus, text: str) -> Tensor:
    return torch.from_numpy(corpus.vocabulary.encode(text)).to(cfg.torch_device())


def windows(texts: Tensor, length: int, steps: int, seed: int) -> list[Tensor]:
    """For each step 16 windows (16, length + 1), which begin anywhere in a long text (n,)."""
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(len(texts) - length, (steps, 16, 1), generator=generator)
    positions = starts + torch.arange(length + 1)
    return list(texts[positions.to(texts.device)])


def make_model(cfg: Config, vocab: int) -> GPT:
    torch.manual_seed(cfg.seed)
    return GPT(vocab, cfg.context, cfg.dim, cfg.layers, 4, dropout=0).to(cfg.torch_device())


def train(model: nn.Module, batches: list[Tensor], lr: float = 5e-3) -> list[float]:
    """Bits a token for every 50 steps. Without dropout: hardly any text is read twice."""
    adam = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=0.1)
    rate = torch.optim.lr_scheduler.OneCycleLR(adam, lr, len(batches), pct_start=0.12)
    options = {"scheduler": rate, "grad_clip": 1.0, "quiet": True}
    bits = []
    for start in range(0, len(batches), 50):
        rows = fit(model, batches[start : start + 50], adam, next_token_loss, **options)
        bits.append(rows[0]["train_loss"] / math.log(2))
    return bits


@torch.no_grad()
def bits_needed(model: nn.Module, text: Tensor) -> float:
    """Bits a character for a long text (n,), read in windows that do not overlap."""
    context = model.positions.table.num_embeddings
    parts = text.unfold(0, context + 1, context).split(64)
    losses = [next_token_loss(model, part) * len(part) for part in parts]
    return sum(losses).item() / sum(map(len, parts)) / math.log(2)


def counted_bits(corpus: Corpus, orders: int) -> list[float]:
    """The same for Kneser and Ney's n-grams, which look back at 0, 1, … characters."""
    seen = corpus.vocabulary.seen
    val = seen(corpus.val)
    models = counting.fit_n_grams(seen(corpus.train), orders, len(corpus.vocabulary))
    bits = []
    for model in models["kneser_ney"]:
        p = counting.probabilities_by_counts(val, model, orders, counting.places(val))
        bits.append(float(-np.log2(p).mean()))
    return bits


def draw_training(cfg: Config, scores: dict[str, float], curve: list[float]) -> None:
    figure, axis = new_figure(size=(9, 5))
    axis.plot([50 * n for n in range(1, len(curve) + 1)], curve, color=BLUE)
    for n in (0, 1, 2, 4):
        axis.axhline(scores[f"counted_{n}"], color=GREY, linestyle=":")
        axis.text(cfg.steps, scores[f"counted_{n}"], f"context of {n}", ha="right", va="bottom")
    axis.set(xlabel="training steps", ylabel="bits a character", ylim=(1.5, None))
    axis.set_title("In training GPT passes n-grams of growing context, one after the other")
    save_figure(figure, cfg.out / "training")


def run(cfg: Config) -> dict:
    in_layers = show_model(cfg)
    show_parity(cfg)
    show_loss(cfg)
    show_start(cfg)
    scores, curve = show_training(cfg)
    draw_training(cfg, scores, curve)
    return {"in_layers": in_layers, "curve": curve} | scores


if __name__ == "__main__":
    main(run, Config, __doc__)
