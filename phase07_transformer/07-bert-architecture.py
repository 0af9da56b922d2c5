"""7.7 BERT: pre-training on text without labels
BERT：用无标注的文本做预训练

You will be able to answer
    1. What does BERT add to an encoder?  show_inputs    by-hand
    2. Is it the published network?       show_parity    size, same
    3. What is it trained to predict?     show_tasks     restored, special, asked, kinds, loss
    4. What does it learn from this?      show_training  overfits, depends, context, order
Predict   right: asked for words that it does not see, how often is the small BERT right?
Run       python phase07_transformer/07-bert-architecture.py               about half a minute
Needs     phase07_transformer/03-positional-encoding, phase07_transformer/04-transformer-encoder
Reference transformers.BertModel, transformers.BertForPreTraining
Notation  B batch  T tokens of a text  V tokens of the vocabulary  D width
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.data.words import CLS, FIRST, MASK, PAD, in_another_order, load_words, pairs
from common.figures import BLUE, GREY, ORANGE, new_figure, save_figure
from common.lessons import load_lesson
from common.training import fit, to_device

LearnedPositions = load_lesson("phase07_transformer/03-positional-encoding").LearnedPositions
encoders = load_lesson("phase07_transformer/04-transformer-encoder")

NOT_ASKED = -100  # F.cross_entropy leaves such positions out
RATE = 5e-3  # learning rate


@dataclass
class Config(LessonConfig):
    threads = 1
    data: str = param("python", "text to learn", choices=("python", "shakespeare"))
    vocabulary: int = param(1000, "tokens V of the vocabulary", tiny=200, low=50)
    dim: int = param(64, "width D, a multiple of 4", tiny=32)
    layers: int = param(1, "layers")
    length: int = param(8, "words of each of the two texts of a pair")
    steps: int = param(1000, "training steps, each of 96 pairs", tiny=4)
    tests: int = param(1000, "pairs of unseen text", tiny=50)


class BERT(nn.Module):
    """BERT (Devlin et al. 2018): tokens (B, T) -> a vector for each (B, T, D), for the text (B, D).

    segments (B, T): 0 in the first text, 1 in the second; without them, all 0.
    """

    def __init__(
        self, vocab: int, length: int, dim: int, n_layers: int, n_heads: int, dropout: float = 0.1
    ):
        super().__init__()
        self.tokens = nn.Embedding(vocab, dim)
        self.positions = LearnedPositions(length, dim)
        self.segments = nn.Embedding(2, dim)
        self.norm = nn.LayerNorm(dim, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

        kind = {"norm_first": False, "activation": "gelu", "eps": 1e-12}
        self.encoder = encoders.Encoder(n_layers, dim, n_heads, 4 * dim, dropout, **kind)
        for layer in self.encoder.layers:
            layer.feed_forward.dropout = nn.Identity()  # BERT has none between its two layers

        self.pooler = nn.Linear(dim, dim)
        initialise(self, dim)

    def embed(self, tokens: Tensor, segments: Tensor | None = None) -> Tensor:
        """(B, T) -> (B, T, D): which token it is, at which position, in which text."""
        # practice: Three embeddings
        if segments is None:
            segments = torch.zeros_like(tokens)
        x = self.tokens(tokens) + self.segments(segments)
        return self.dropout(self.norm(self.positions(x)))
        # end practice

    def forward(self, tokens: Tensor, segments: Tensor | None = None) -> tuple[Tensor, Tensor]:
        # practice: BERT
        # No causal mask: each token attends to all the others, in both directions.
        x = self.encoder(self.embed(tokens, segments), encoders.padding_mask(tokens, PAD))
        # [CLS], the first token, is no word, so that its vector can stand for the text.
        return x, torch.tanh(self.pooler(x[:, 0]))
        # end practice


def initialise(model: nn.Module, dim: int) -> None:
    """Biases 0; deviation 0.02 at D = 768 (BERT's), more at a smaller D: sums of D stay equal."""
    std = 0.02 * math.sqrt(768 / dim)
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=std)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


@torch.no_grad()
def show_inputs(cfg: Config) -> None:
    print("\n[1] Three embeddings are added and normalised; then the encoder of lesson 7.4")
    model = BERT(10, 8, 4, 2, 1).double()
    model.tokens.weight[7] = torch.tensor([2, 0, 4, 2])
    model.positions.table.weight[0] = torch.tensor([0, 1, 1, 3])
    model.segments.weight[0] = torch.tensor([0, 1, 1, 1])

    torch.manual_seed(cfg.seed)
    found = model.embed(torch.tensor([[7]]))[0, 0]
    torch.manual_seed(cfg.seed)
    wanted = F.dropout(torch.tensor([-1.0, -1, 1, 1], dtype=torch.float64), 0.1)
    text = "(2, 0, 4, 2) + (0, 1, 1, 3) + (0, 1, 1, 1), normalised (-1, -1, 1, 1), then dropout"
    check_close("by-hand", text, found, wanted)


def show_parity(cfg: Config) -> None:
    print("\n[2] Hugging Face's BERT with random weights, copied")
    import transformers

    with torch.device("meta"):  # weights have a shape there, and take no memory
        model = BERT(vocab=30_522, length=512, dim=768, n_layers=12, n_heads=12)
    built = sum(weight.numel() for weight in model.parameters())
    check("size", "BERT-base has {} parameters", built, at_least=109_482_240, at_most=109_482_240)

    size = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4}
    size |= {"vocab_size": 50, "max_position_embeddings": 16, "intermediate_size": 96}
    theirs = transformers.BertModel(transformers.BertConfig(**size)).double().eval()
    for weight in theirs.parameters():
        nn.init.normal_(weight, std=0.3)  # biases and norms too: 0 and 1 would hide mistakes
    ours = BERT(50, 16, 24, 3, 4).double().eval()
    load_bert(ours, theirs.state_dict())

    tokens = torch.randint(FIRST, 50, (3, 13))
    tokens[0, 9:] = PAD
    segments = torch.randint(2, (3, 13))

    output = theirs(tokens, token_type_ids=segments, attention_mask=tokens != PAD)
    wanted = torch.cat([output.last_hidden_state, output.pooler_output[:, None]], dim=1)
    x, text = ours(tokens, segments)
    found = torch.cat([x, text[:, None]], dim=1)
    check_close("same", "the same vectors of the tokens and of the texts", found, wanted)


def ask(
    tokens: Tensor, vocab: int, generator: torch.Generator, share: float = 0.15
) -> tuple[Tensor, Tensor]:
    """tokens (B, T) -> what the model gets to see, and labels: the word, or NOT_ASKED.

    Of all words a share is asked for. 80 % of these become [MASK], 10 % any word, 10 % stay.
    """
    chance = torch.rand(tokens.shape, generator=generator)
    kind = torch.rand(tokens.shape, generator=generator)
    any_word = torch.randint(FIRST, vocab, tokens.shape, generator=generator)
    # practice: Ask for words
    asked = (chance < share) & (tokens >= FIRST)  # never for special tokens
    labels = torch.where(asked, tokens, NOT_ASKED)
    # A word that is not masked may be wrong, too: each has to be compared with its context.
    inputs = torch.where(asked & (kind < 0.8), MASK, tokens)
    inputs = torch.where(asked & (kind >= 0.9), any_word, inputs)
    return inputs, labels
    # end practice


class PreTraining(nn.Module):
    """BERT and the small layers of its two tasks, which are not used afterwards."""

    def __init__(self, bert: BERT):
        super().__init__()
        self.bert = bert
        vocab, dim = bert.tokens.weight.shape
        self.inner = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim, eps=1e-12)
        self.bias = nn.Parameter(torch.zeros(vocab))
        self.pair = nn.Linear(dim, 2)

        initialise(self.inner, dim)
        initialise(self.pair, dim)

    def words(self, x: Tensor) -> Tensor:
        """Which token belongs there? (..., D) -> logits (..., V)"""
        x = self.norm(F.gelu(self.inner(x)))
        # The table of embeddings once more: a product of x with each token's row.
        return x @ self.bert.tokens.weight.T + self.bias


def pretraining_loss(model: PreTraining, batch: tuple[Tensor, ...]) -> Tensor:
    """Cross-entropy of the words asked for, plus that of "is the second text from elsewhere?"."""
    # practice: The loss
    inputs, segments, labels, elsewhere = batch
    x, text = model.bert(inputs, segments)
    # The V logits of a token cost most: only where a word is asked for.
    asked = labels != NOT_ASKED  # (B, T)
    words = F.cross_entropy(model.words(x[asked]), labels[asked])
    return words + F.cross_entropy(model.pair(text), elsewhere)
    # end practice


def show_tasks(cfg: Config) -> None:
    print("\n[3] Any text gives its own labels; here one of 60,000 words, all different")
    tokens = torch.arange(FIRST, FIRST + 60_000).reshape(2000, 30)
    tokens[:5] = CLS
    inputs, labels = ask(tokens, FIRST + 60_000, torch.Generator().manual_seed(0))

    asked = labels != NOT_ASKED
    check_close("restored", "labels put in: the text", torch.where(asked, labels, inputs), tokens)
    check("special", "[CLS] is asked for {} times", asked[:5].sum(), at_least=0, at_most=0)
    check("asked", "{} of words asked for", asked[5:].double().mean(), above=0.144, below=0.156)

    seen = inputs[asked]
    kinds = torch.stack([seen == MASK, seen == labels[asked]]).double().mean(dim=1)
    check_close("kinds", "of them 0.8 masked, 0.1 kept, up to {}", kinds, [0.8, 0.1], atol=0.0126)

    model = PreTraining(BERT(8, 4, 4, 1, 1)).double()
    nn.init.zeros_(model.bert.tokens.weight)
    nn.init.zeros_(model.pair.weight)
    labels = torch.tensor([[5, NOT_ASKED, 6]])
    batch = (torch.tensor([[MASK, 7, 6]]), torch.tensor([[0, 0, 1]]), labels, torch.tensor([0]))
    text = "weights of 0, so that 8 words are equally likely, and both answers: ln 8 + ln 2"
    check_close("loss", text, pretraining_loss(model, batch), math.log(8) + math.log(2))


def show_training(cfg: Config) -> tuple[dict[str, float], dict[str, list[float]]]:
    words, train, val = load_words(cfg, cfg.vocabulary)
    print(f"\n[4] {len(train):,} words, V = {len(words):,}; {cfg.steps} steps, then unseen text")

    model = make_model(cfg, len(words))
    batch = make_batch(cfg, train, len(words), n=16, seed=0)
    adam = torch.optim.Adam(model.parameters(), lr=RATE)
    overfits("overfits", "16 pairs: the loss falls to {}", model, batch, pretraining_loss, adam)
    asked = batch[2] != NOT_ASKED
    x, _ = model.bert(*batch[:2])
    predicted = model.words(x[asked]).argmax(dim=1)
    depends_on_input("depends", "answers depend on the text: {} right", predicted, batch[2][asked])

    test = make_batch(cfg, val, len(words), n=cfg.tests, seed=1)
    mixed = in_another_order(test[0], test[2] != NOT_ASKED, seed=2)
    tests = {"words in their order": test, "words in another order": (mixed, *test[1:])}
    model = make_model(cfg, len(words))
    curves = train_model(cfg, model, train, tests)
    scores = evaluate(model, test)

    unigram, commonest = by_frequency(train, test[2])
    print(f"  frequencies alone: loss {unigram:.3f}, right {commonest:.3f}; pairs 0.5")
    print("  BERT: loss {loss:.3f}, right {right:.3f}; pairs {pairs:.3f}".format(**scores))
    expect("context", "BERT's loss on them is {} lower", unigram - scores["loss"], at_least=0.5)
    higher = curves["words in another order"][-1] - scores["loss"]
    expect("order", "with the others in another order it is {} higher", higher, at_least=0.5)
    return scores | {"unigram": unigram, "commonest": commonest, "order": higher}, curves


# Pictures and helpers: skip on a first reading

RENAMED = {  # a part of a name in Hugging Face's BertModel, and what it is called here
    "embeddings.word_embeddings": "tokens",
    "embeddings.position_embeddings": "positions.table",
    "embeddings.token_type_embeddings": "segments",
    "embeddings.LayerNorm": "norm",
    "encoder.layer.": "encoder.layers.",
    "attention.self": "attention",
    "attention.output.dense": "attention.out",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "feed_forward.inner",
    "output.dense": "feed_forward.outer",
    "output.LayerNorm": "feed_forward_norm",
    "pooler.dense": "pooler",
}


def load_bert(model: BERT, weights: dict[str, Tensor]) -> None:
    """Copy the state_dict of Hugging Face's BertModel."""
    renamed = {}
    for name, weight in weights.items():
        for theirs, ours in RENAMED.items():
            name = name.replace(theirs, ours)
        renamed[name] = weight
    model.load_state_dict(renamed)


def make_model(cfg: Config, vocab: int) -> PreTraining:
    torch.manual_seed(cfg.seed)
    bert = BERT(vocab, 2 * cfg.length + 3, cfg.dim, cfg.layers, n_heads=4, dropout=0)
    return PreTraining(bert).to(cfg.torch_device())


def make_batch(cfg: Config, words: Tensor, vocab: int, n: int, seed: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(10**6 * cfg.seed + seed)
    tokens, segments, elsewhere = pairs(words, n, cfg.length, generator)
    inputs, labels = ask(tokens, vocab, generator)
    return to_device((inputs, segments, labels, elsewhere), cfg.torch_device())


def train_model(cfg: Config, model: PreTraining, words: Tensor, tests: dict) -> dict[str, list]:
    """The loss of each test at twelve times of the training."""
    adam = torch.optim.AdamW(model.parameters(), RATE, betas=(0.9, 0.99), weight_decay=0.01)
    rate = torch.optim.lr_scheduler.OneCycleLR(adam, RATE, cfg.steps, pct_start=0.1)
    curves = {name: [] for name in tests}
    for seeds in torch.arange(cfg.steps).add(100).chunk(12):
        batches = [make_batch(cfg, words, len(model.bias), 96, seed) for seed in seeds.tolist()]
        fit(model, batches, adam, pretraining_loss, scheduler=rate, grad_clip=1.0, quiet=True)
        for name, test in tests.items():
            curves[name].append(evaluate(model, test)["loss"])
    return curves


@torch.no_grad()
def evaluate(model: PreTraining, batch: tuple[Tensor, ...]) -> dict[str, float]:
    model.eval()
    inputs, segments, labels, elsewhere = batch
    x, text = model.bert(inputs, segments)
    asked = labels != NOT_ASKED
    logits = model.words(x[asked])
    return {
        "loss": F.cross_entropy(logits, labels[asked]).item(),
        "right": (logits.argmax(dim=1) == labels[asked]).double().mean().item(),
        "pairs": (model.pair(text).argmax(dim=1) == elsewhere).double().mean().item(),
    }


def by_frequency(train: Tensor, labels: Tensor) -> tuple[float, float]:
    """With each word's share of `train` as its probability: loss, and share of right answers."""
    labels = labels[labels != NOT_ASKED].cpu() - FIRST
    counts = torch.bincount(train)[FIRST:].double()
    loss = F.nll_loss((counts / counts.sum()).log().expand(len(labels), -1), labels)
    return loss.item(), (labels == counts.argmax()).double().mean().item()


def draw_losses(cfg: Config, curves: dict[str, list[float]], unigram: float) -> None:
    figure, axis = new_figure(size=(8, 4.6))
    for name, colour in (("words in another order", ORANGE), ("words in their order", BLUE)):
        steps = torch.linspace(0, cfg.steps, 1 + len(curves[name]))[1:]
        axis.plot(steps, curves[name], "o-", color=colour, label=name)
    axis.axhline(unigram, color=GREY, linestyle=":", label="frequencies alone")
    axis.set(xlabel="step", ylabel="loss", title="Unseen text: BERT uses context and order")
    axis.legend()
    save_figure(figure, cfg.out / "losses")


def run(cfg: Config) -> dict:
    show_inputs(cfg)
    show_parity(cfg)
    show_tasks(cfg)
    scores, curves = show_training(cfg)
    draw_losses(cfg, curves, scores["unigram"])
    return scores


if __name__ == "__main__":
    main(run, Config, __doc__)
