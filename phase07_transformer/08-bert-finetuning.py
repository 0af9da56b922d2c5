"""7.8 Fine-tuning BERT: what two hundred labels can do
微调 BERT：两百个标签能做什么

You will be able to answer
    1. What does BERT need to classify?  show_head       by-hand, same
    2. How is a layer frozen?            show_frozen     kept
    3. How fast does each weight learn?  show_rates      rates, decayed, schedule
    4. Do published weights fit?         show_published  hidden
    5. What are 200 labels worth?        show_ways       leak, overfits, depends, new, adapts, keeps
Predict   new_tuned: what accuracy has BERT, tuned, on adjectives that are in no labelled review?
Run       python phase07_transformer/08-bert-finetuning.py                 about a minute
          … --data sst2          real film reviews; --model NAME: a BERT of the hub
Needs     phase07_transformer/07-bert-architecture
Reference transformers.BertForSequenceClassification
Notation  B batch  T tokens of a text  D width
"""

import copy
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.pipeline import Pipeline
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector as flat

from common.checks import check_close, depends_on_input, expect, no_leak, overfits
from common.config import LessonConfig, main, param
from common.data.batches import Batches
from common.data.published import load_any, random_model, shape_of
from common.data.reviews import LENGTH, Reviews, ReviewSet, bag_of_words, load_reviews, lsa
from common.data.words import FIRST, PAD
from common.figures import BLUE, GREY, new_figure, save_figure
from common.lessons import load_lesson
from common.training import fit, to_device

lesson_7_7 = load_lesson("phase07_transformer/07-bert-architecture")
BERT = lesson_7_7.BERT
# Rate of pooler and head, its factor for each part below, number of frozen parts (-1: all below).
WAYS = {
    "random": (3e-3, 1.0, 0),  # without pre-training
    "frozen": (1e-2, 1.0, -1),  # only pooler and head learn
    "tuned": (2e-3, 0.3, 1),  # frozen embeddings, lower rates for lower layers
    "uniform": (2e-3, 1.0, 0),  # one rate for all parts
    "same_rate": (2e-3, 1.0, 1),  # one rate, frozen embeddings
}
Batch = tuple[Tensor, ...]  # tokens (B, T), segments (B, T) if there are any, labels (B,)


@dataclass
class Config(LessonConfig):
    threads = 1
    data: str = param("generated", "reviews", choices=("generated", "sst2"))
    dim: int = param(32, "width D", tiny=16, choices=(16, 32, 64, 128))
    layers: int = param(2, "layers of the small BERT")
    steps: int = param(700, "steps of pre-training, each of 64 reviews", tiny=2, low=11)
    labels: int = param(200, "labelled reviews to train on", tiny=40, low=20)
    epochs: int = param(20, "passes over them", tiny=1)
    draws: int = param(3, "times that the labelled reviews are drawn anew", tiny=1)
    model: str | None = param(None, "a published BERT to load: minilm, or a name of the hub")


class Classifier(nn.Module):
    """A linear layer on BERT's vector of the text: tokens (B, T) -> logits (B, classes)."""

    def __init__(self, bert: BERT, classes: int = 2, dropout: float = 0.1):
        super().__init__()
        self.bert = bert
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(bert.pooler.out_features, classes)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: Tensor, segments: Tensor | None = None) -> Tensor:
        # practice: The head
        # One vector stands for the text; those of its tokens are not needed here.
        _, text = self.bert(tokens, segments)  # (B, D)
        return self.head(self.dropout(text))
        # end practice


def cross_entropy(model: Classifier, batch: Batch) -> Tensor:
    *inputs, labels = batch
    return F.cross_entropy(model(*inputs), labels)


def show_head(cfg: Config) -> None:
    print("\n[1] BERT gives a vector of the text; a new linear layer turns it into logits")
    model = Classifier(BERT(10, 8, 4, 2, 1)).double().eval()
    with torch.no_grad():
        model.bert.pooler.weight.zero_()
        model.bert.pooler.bias[:] = torch.atanh(torch.tensor([0.5, -0.5, 0.0, 0.0]))
        model.head.weight[:] = torch.tensor([[1, 1, 3, 3], [1, -1, 3, 3]])
    batch = (torch.tensor([[2, 7, 3]]), None, torch.tensor([1]))

    found = torch.stack([*model(batch[0])[0], cross_entropy(model, batch)])
    text = "text (0.5, -0.5, 0, 0), rows (1, 1, 3, 3), (1, -1, 3, 3): logits 0 and 1, loss 0.3133"
    check_close("by-hand", text, found, [0, 1, 0.313262], atol=1e-6)

    theirs = random_model("BertForSequenceClassification", vocab_size=50, num_labels=3).double()
    ours = Classifier(BERT(50, 24, 24, 2, 2), classes=3).double().eval()
    load_published(ours.bert, theirs.state_dict())
    ours.head.load_state_dict(theirs.classifier.state_dict())

    tokens = torch.randint(FIRST, 50, (4, 13))
    tokens[0, 9:] = PAD
    segments = torch.randint(2, (4, 13))
    labels = torch.tensor([0, 2, 1, 2])

    cross_entropy(ours, (tokens, segments, labels)).backward()
    output = theirs(tokens, tokens != PAD, segments, labels=labels)
    output.loss.backward()
    wanted = [output.logits, theirs.classifier.weight.grad, theirs.bert.pooler.dense.weight.grad]
    found = [ours(tokens, segments), ours.head.weight.grad, ours.bert.pooler.weight.grad]
    text = "Hugging Face's classifier with the same weights: the same logits and gradients"
    check_close("same", text, flat(found), flat(wanted))


def depths(model: Classifier) -> list[nn.Module]:
    """The parts, lowest first: embeddings, each layer, then pooler and head together."""
    bert = model.bert
    embeddings = nn.ModuleList([bert.tokens, bert.positions, bert.segments, bert.norm])
    return [embeddings, *bert.encoder.layers, nn.ModuleList([bert.pooler, model.head])]


def freeze(model: Classifier, count: int) -> None:
    """The lowest `count` parts learn nothing any more; all others do."""
    # practice: Freeze
    for number, part in enumerate(depths(model)):
        # A weight whose gradient is None (not 0) is skipped by the optimizer.
        part.requires_grad_(number >= count)
    # end practice


def show_frozen(cfg: Config) -> None:
    print("\n[2] Embeddings and layer 1 are frozen; then five steps of AdamW with weight decay")
    batch = (torch.randint(FIRST, 30, (6, 9)), None, torch.arange(6) % 2)
    model = Classifier(BERT(30, 16, 8, 2, 2))
    before = copy.deepcopy(model)
    freeze(model, 4)
    freeze(model, 2)  # layer 2 and what is above it learn again

    adam = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(5):
        adam.zero_grad()
        cross_entropy(model, batch).backward()
        adam.step()

    pairs = zip(depths(before), depths(model))
    equal = [torch.equal(flat(a.parameters()), flat(b.parameters())) for a, b in pairs]
    text = "embeddings and layer 1 stay equal bit for bit; layer 2, pooler and head learn"
    check_close("kept", text, equal, [True, True, False, False])


def parameter_groups(model: Classifier, lr: float, factor: float, decay: float) -> list[dict]:
    """For AdamW: lr for pooler and head, times `factor` for each part below; matrices decay.

    Two groups a part, the lowest part first: matrices and tables, then biases and norms.
    """
    # practice: Rates by depth
    groups = []
    parts = depths(model)
    for number, part in enumerate(parts):
        rate = lr * factor ** (len(parts) - 1 - number)
        matrices = [weight for weight in part.parameters() if weight.ndim > 1]
        groups.append({"params": matrices, "lr": rate, "weight_decay": decay})

        # Decay would pull a norm's scales from 1 to 0, and a bias hardly overfits.
        vectors = [weight for weight in part.parameters() if weight.ndim == 1]
        groups.append({"params": vectors, "lr": rate, "weight_decay": 0.0})
    return groups
    # end practice


def warm_up(step: int, warmup: int, steps: int) -> float:
    """The factor of all rates at step 0, 1, …: up from 0 to 1, then down to 0."""
    # practice: Warm-up
    if step < warmup:
        return step / warmup
    return max(0.0, (steps - step) / (steps - warmup))
    # end practice


def show_rates(cfg: Config) -> None:
    print("\n[3] The head is to learn fast, lower layers slowly, and all rates start at 0")
    groups = parameter_groups(Classifier(BERT(30, 16, 8, 2, 2)), 0.01, 0.5, decay=0.1)
    rates = [group["lr"] for group in groups]
    text = "factor 1/2: embeddings, layers 1, 2, pooler and head: 0.00125, 0.0025, 0.005, 0.01"
    check_close("rates", text, rates, np.repeat([0.00125, 0.0025, 0.005, 0.01], 2))

    found = [[len(flat(group["params"])), group["weight_decay"]] for group in groups]
    wanted = [[384, 0.1], [16, 0], [768, 0.1], [104, 0], [768, 0.1], [104, 0], [80, 0.1], [10, 0]]
    text = "matrices (384, 768, 768, 80 numbers) decay; norms and biases (16, 104, 104, 10) do not"
    check_close("decayed", text, found, wanted)

    found = [warm_up(step, 2, 6) for step in range(8)] + [warm_up(0, 0, 4)]
    text = "two steps of warm-up of six: 0, 0.5, 1, 0.75, 0.5, 0.25, 0; without one it begins at 1"
    check_close("schedule", text, found, [0.0, 0.5, 1, 0.75, 0.5, 0.25, 0, 0, 1])


def load_published(model: BERT, weights: dict[str, Tensor]) -> None:
    """Copy BERT's weights from a published state_dict, which may hold others, too."""
    # practice: Published weights
    kept = {}
    for name, weight in weights.items():
        name = name.removeprefix("bert.")  # as in models with a head
        # Left out: heads of other tasks, and the position_ids (0, 1, 2, …) of old files.
        is_ours = name.startswith(("embeddings.", "encoder.", "pooler."))
        if is_ours and not name.endswith("position_ids"):
            kept[name] = weight
    lesson_7_7.load_bert(model, kept)
    # end practice


@torch.no_grad()
def show_published(cfg: Config) -> None:
    name, theirs, weights = load_any(cfg.tiny, cfg.model)
    print(f"\n[4] A file of weights in Hugging Face's form: {name}")
    ours = BERT(*shape_of(theirs)).eval()
    load_published(ours, weights)
    tokens = torch.randint(1000, theirs.config.vocab_size, (3, 20))
    tokens[1, 12:] = PAD
    _, found = ours(tokens)
    wanted = theirs(tokens, tokens != PAD).pooler_output
    check_close("hidden", f"{name}: transformers' vectors", found, wanted, rtol=1e-4, atol=1e-4)


def fine_tune(model: Classifier, groups: list[dict], train: Batch, epochs: int, seed: int) -> None:
    """AdamW on batches of 20. The rates rise for a tenth of the steps, then fall to 0."""
    batches = Batches(*train, batch_size=20, shuffle=True, seed=seed)
    steps = epochs * len(batches)
    adam = torch.optim.AdamW(groups)
    rate = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: warm_up(step, steps // 10, steps))
    fit(model, batches, adam, cross_entropy, epochs=epochs, scheduler=rate, quiet=True)


def show_ways(cfg: Config) -> dict[str, list[float]]:
    data = load_reviews(cfg)
    print(f"\n[5] {len(data.unlabelled):,} reviews without labels, then {cfg.labels} with labels")
    no_leak("leak", "no review is in two of the sets", *data.fingerprints())
    bert = pre_train(cfg, data)

    few = to_device(data.encode(data.train.some(16, cfg.seed)), cfg.torch_device())
    model = Classifier(make_bert(cfg, data, cfg.seed)).to(cfg.torch_device())
    adam = torch.optim.Adam(model.parameters(), lr=5e-3)
    overfits("overfits", "16 reviews are overfitted: loss {}", model, few, cross_entropy, adam)
    predicted = model.eval()(few[0]).argmax(dim=1)
    depends_on_input("depends", "the answers depend on the review: {} right", predicted, few[1])

    tests = data.test()
    scores = {f"{kind}_{name}": [] for kind in tests for name in ("bag", "lsa", *WAYS)}
    for seed in range(100 * cfg.seed, 100 * cfg.seed + cfg.draws):
        train = data.train.some(cfg.labels, seed)
        models = {"bag": bag_of_words(train), "lsa": lsa(cfg, data, train)}
        for way, (rate, factor, frozen) in WAYS.items():
            start = make_bert(cfg, data, seed) if way == "random" else copy.deepcopy(bert)
            models[way] = model = Classifier(start).to(cfg.torch_device())
            freeze(model, frozen if frozen >= 0 else cfg.layers + 1)
            groups = parameter_groups(model, rate, factor, decay=0.01)
            fine_tune(model, groups, data.encode(train), cfg.epochs, seed)

        for kind, part in tests.items():
            for name, model in models.items():
                scores[f"{kind}_{name}"].append(accuracy(model, data, part))

    print("  accuracy on the test reviews, a column for each draw of labels")
    for name, found in scores.items():
        print(f"  {name:<17}" + "  ".join(f"{score:.3f}" for score in found))
    if cfg.data == "generated":
        gain = np.subtract(scores["new_tuned"], scores["new_random"]).mean()
        expect("new", "new words: tuned {} better than from random weights", gain, at_least=0.15)
        gain = np.subtract(scores["known_tuned"], scores["known_frozen"]).mean()
        expect("adapts", "known words: tuned {} better than frozen", gain, at_least=0.04)
        gain = np.subtract(scores["new_tuned"], scores["new_uniform"]).mean()
        expect("keeps", "new words: tuned {} better than uniform", gain, at_least=0.03)
    return scores


# Pictures and helpers: skip on a first reading


def make_bert(cfg: Config, data: ReviewSet, seed: int) -> BERT:
    """Random weights, but each layer begins as a token's vector plus the mean of all vectors."""
    torch.manual_seed(seed)
    bert = BERT(len(data.words), LENGTH, cfg.dim, cfg.layers, n_heads=4, dropout=0.0)
    for layer in bert.encoder.layers:
        nn.init.zeros_(layer.attention.query.weight)  # equal attention to all tokens
        nn.init.eye_(layer.attention.value.weight)
        nn.init.eye_(layer.attention.out.weight)
        nn.init.zeros_(layer.feed_forward.outer.weight)
    return bert.to(cfg.torch_device())


def masked_loss(model: nn.Module, batch: Batch) -> Tensor:
    inputs, labels = batch  # without lesson 7.7's second task, as in RoBERTa
    x, _ = model.bert(inputs)
    asked = labels != lesson_7_7.NOT_ASKED
    return F.cross_entropy(model.words(x[asked]), labels[asked])


def pre_train(cfg: Config, data: ReviewSet) -> BERT:
    model = lesson_7_7.PreTraining(make_bert(cfg, data, cfg.seed)).to(cfg.torch_device())
    nn.init.eye_(model.inner.weight)  # no change at first, like the layers in make_bert
    batches = data.masked(lesson_7_7.ask, cfg.steps, cfg.seed)
    adam = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.99), weight_decay=0.3)
    rate = torch.optim.lr_scheduler.OneCycleLR(adam, 4e-3, cfg.steps, pct_start=0.1)
    fit(model, batches, adam, masked_loss, scheduler=rate, grad_clip=1.0)
    return model.bert


@torch.no_grad()
def accuracy(model: Classifier | Pipeline, data: ReviewSet, part: Reviews) -> float:
    if isinstance(model, Pipeline):
        return model.score(part.texts, part.labels)
    tokens, labels = to_device(data.encode(part), model.head.weight.device)
    return (model.eval()(tokens).argmax(dim=1) == labels).double().mean().item()


def draw_ways(cfg: Config, scores: dict[str, list[float]]) -> None:
    figure, axis = new_figure(size=(8, 5.4))
    about = ("no pre-training", "up to pooler", "rates by depth", "one rate", "embeddings frozen")
    names = ["TF-IDF", "LSA", *(f"{way}\n({what})" for way, what in zip(WAYS, about))]
    for kind, colour, shift in (("known", GREY, -0.2), ("new", BLUE, 0.2)):
        if found := [each for name, each in scores.items() if name.startswith(kind)]:
            rows = np.arange(len(names)) + shift
            axis.barh(rows, np.mean(found, axis=1), 0.38, color=colour, label=f"{kind} words")
            axis.plot(found, rows, "o", color="black", markersize=4)
    axis.axvline(0.5, color="black", linestyle="--", linewidth=1.2)
    axis.set(yticks=range(len(names)), yticklabels=names, xlim=(0, 1))
    axis.set_ylim(len(names) + 0.1, -0.6)  # room for the legend below the bars
    axis.set(xlabel="accuracy: mean, and each draw of labels (dashed: guessing)")
    axis.set(title=f"{cfg.labels} labels: only the unlabelled reviews explain new words")
    axis.legend(ncols=2, loc="lower left", fontsize=10)
    save_figure(figure, cfg.out / "ways")


def run(cfg: Config) -> dict[str, float]:
    show_head(cfg)
    show_frozen(cfg)
    show_rates(cfg)
    show_published(cfg)
    scores = show_ways(cfg)
    draw_ways(cfg, scores)
    return {name: np.mean(found) for name, found in scores.items()}


if __name__ == "__main__":
    main(run, Config, __doc__)
