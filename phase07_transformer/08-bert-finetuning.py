"""7.8 Fine-tuning BERT: what two hundred labels can do
微调 BERT：两百个标签能做什么

You will be able to answer
    1. What does BERT need to classify?     show_head       by-hand, dropped, same
    2. What keeps a frozen layer as it is?  show_frozen     kept
    3. How fast does each weight learn?     show_rates      rates, decayed, schedule
    4. Do published weights fit?            show_published  hidden
    5. What are 200 labels worth?           show_ways       leak, overfits, depends, new, bag
Predict   new_tuned: on adjectives that no label explains, what is a pre-trained BERT's accuracy?
Run       python phase07_transformer/08-bert-finetuning.py                 about a minute
          … --data sst2          real film reviews; --model NAME: a BERT of the hub
Needs     phase07_transformer/07-bert-architecture
Reference transformers.BertForSequenceClassification
Notation  B batch  T tokens of a text  D width
"""

import copy
from collections import defaultdict
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector as flat

from common.checks import check_close, depends_on_input, expect, no_leak, overfits
from common.config import LessonConfig, main, param
from common.data.batches import Batches
from common.data.published import load_any, random_model, shape_of
from common.data.reviews import LENGTH, ReviewSet, bag_of_words, load_reviews
from common.data.words import FIRST, PAD
from common.figures import BLUE, GREY, new_figure, save_figure
from common.lessons import load_lesson
from common.training import fit, to_device

lesson_7_7 = load_lesson("phase07_transformer/07-bert-architecture")
BERT = lesson_7_7.BERT
RATES = {"random": 3e-3, "frozen": 1e-2, "tuned": 2e-3}  # of the top
Batch = tuple[Tensor, ...]  # tokens (B, T), segments (B, T) if there are any, labels (B,)


@dataclass
class Config(LessonConfig):
    threads = 1
    data: str = param("generated", "reviews", choices=("generated", "sst2"))
    dim: int = param(32, "width D", tiny=16, choices=(16, 32, 64, 128))
    layers: int = param(2, "layers of the small BERT")
    steps: int = param(700, "steps of pre-training, each of 64 reviews", tiny=2)
    labels: int = param(200, "labelled reviews to train on", tiny=40)
    epochs: int = param(20, "passes over them", tiny=1)
    draws: int = param(3, "times that these are drawn anew", tiny=1)
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
    print("\n[1] BERT gives a vector for the text; a new linear layer makes logits of it")
    model = Classifier(BERT(10, 8, 4, 2, 1)).double().eval()
    with torch.no_grad():
        model.bert.pooler.weight.zero_()
        model.bert.pooler.bias[:] = torch.atanh(torch.tensor([0.5, -0.5, 0.0, 0.0]))
        model.head.weight[:] = torch.tensor([[1, 1, 3, 3], [1, -1, 3, 3]])
    batch = (torch.tensor([[2, 7, 3]]), None, torch.tensor([1]))
    found = torch.stack([*model(batch[0])[0], cross_entropy(model, batch)])
    text = "text (0.5, -0.5, 0, 0), rows (1, 1, 3, 3), (1, -1, 3, 3): logits 0 and 1, loss 0.3133"
    check_close("by-hand", text, found, [0, 1, 0.313262], atol=1e-6)

    tokens = torch.randint(FIRST, 10, (30, 8))
    model.dropout.train()
    torch.manual_seed(cfg.seed)
    wanted = model.head(F.dropout(model.bert(tokens)[1], 0.1))
    torch.manual_seed(cfg.seed)
    check_close("dropped", "in training: dropout of 0.1 before the head", model(tokens), wanted)

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
    """The parts from below: embeddings, each layer, and on top pooler and head together."""
    bert = model.bert
    embeddings = nn.ModuleList([bert.tokens, bert.positions, bert.segments, bert.norm])
    return [embeddings, *bert.encoder.layers, nn.ModuleList([bert.pooler, model.head])]


def freeze(model: Classifier, count: int) -> None:
    """The lowest `count` parts learn nothing any more; all others do."""
    # practice: Freeze
    for number, part in enumerate(depths(model)):
        # Without a gradient (None, not 0) an optimizer passes a weight over.
        part.requires_grad_(number >= count)
    # end practice


def show_frozen(cfg: Config) -> None:
    print("\n[2] Embeddings and layer 1 are frozen; then five steps of AdamW with weight decay")
    batch = (torch.randint(FIRST, 30, (6, 9)), None, torch.arange(6) % 2)
    model = Classifier(BERT(30, 16, 8, 2, 2))
    before = copy.deepcopy(model)
    freeze(model, 4)  # everything, which the next line takes back in part
    freeze(model, 2)
    adam = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(5):
        cross_entropy(model, batch).backward()
        adam.step()
    pairs = zip(depths(before), depths(model))
    equal = [torch.equal(flat(a.parameters()), flat(b.parameters())) for a, b in pairs]
    text = "embeddings and layer 1 stay equal bit for bit; layer 2 and the top learn"
    check_close("kept", text, equal, [True, True, False, False])


def parameter_groups(model: Classifier, lr: float, factor: float, decay: float) -> list[dict]:
    """For AdamW: lr on top, times `factor` for each part below; decay for matrices only.

    Two groups a part, the lowest part first: matrices and tables, then biases and norms.
    """
    # practice: Rates by depth
    groups = []
    parts = depths(model)
    for number, part in enumerate(parts):
        rate = lr * factor ** (len(parts) - 1 - number)
        matrices = [weight for weight in part.parameters() if weight.ndim > 1]
        groups.append({"params": matrices, "lr": rate, "weight_decay": decay})

        # A norm pulled towards 0 would switch its column off; a bias does not overfit.
        vectors = [weight for weight in part.parameters() if weight.ndim == 1]
        groups.append({"params": vectors, "lr": rate, "weight_decay": 0.0})
    return groups
    # end practice


def warm_up(step: int, warmup: int, steps: int) -> float:
    """By what the rates are multiplied at step 0, 1, …: up from 0 to 1, then down to 0."""
    # practice: Warm-up
    if step < warmup:
        return step / warmup
    return max(0.0, (steps - step) / (steps - warmup))
    # end practice


def show_rates(cfg: Config) -> None:
    print("\n[3] New weights are to learn fast, old ones slowly, and none at once")
    groups = parameter_groups(Classifier(BERT(30, 16, 8, 2, 2)), 0.01, 0.5, decay=0.1)
    rates = [group["lr"] for group in groups]
    text = "factor 1/2: embeddings, layers 1 and 2, top learn at 0.00125, 0.0025, 0.005 and 0.01"
    check_close("rates", text, rates, np.repeat([0.00125, 0.0025, 0.005, 0.01], 2))
    found = [[len(flat(group["params"])), group["weight_decay"]] for group in groups]
    wanted = [[384, 0.1], [16, 0], [768, 0.1], [104, 0], [768, 0.1], [104, 0], [80, 0.1], [10, 0]]
    text = "matrices (384, 768, 768, 80 numbers) decay; norms and biases (16, 104, 104, 10) do not"
    check_close("decayed", text, found, wanted)
    found = [warm_up(step, 2, 6) for step in range(8)] + [warm_up(0, 0, 4)]
    text = "two steps of warm-up of six: 0, 0.5, 1, 0.75, 0.5, 0.25, 0; without one it begins at 1"
    check_close("schedule", text, found, [0.0, 0.5, 1, 0.75, 0.5, 0.25, 0, 0, 1])


def load_published(model: BERT, weights: dict[str, Tensor]) -> None:
    """Copy what belongs to BERT from a published state_dict, whatever else stands in it."""
    # practice: Published weights
    kept = {}
    for name, weight in weights.items():
        name = name.removeprefix("bert.")  # models with a head call their BERT so
        # Heads of other tasks, and position_ids (0, 1, 2, …), which old files hold.
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
    output = theirs(tokens, tokens != PAD)
    x, text = ours(tokens)
    found = torch.cat([x[tokens != PAD], text])
    wanted = torch.cat([output.last_hidden_state[tokens != PAD], output.pooler_output])
    text = f"{name}: the vectors that transformers gives"
    check_close("hidden", text, found, wanted, rtol=1e-4, atol=1e-4)


def fine_tune(model: Classifier, groups: list[dict], train: Batch, epochs: int, seed: int) -> None:
    """AdamW on batches of 20. The rates rise for a tenth of the steps, then fall to 0."""
    batches = Batches(*train, batch_size=20, shuffle=True, seed=seed)
    steps = epochs * len(batches)
    adam = torch.optim.AdamW(groups)
    factor = partial(warm_up, warmup=steps // 10, steps=steps)
    rate = torch.optim.lr_scheduler.LambdaLR(adam, factor)
    fit(model, batches, adam, cross_entropy, epochs=epochs, scheduler=rate, quiet=True)


def train_way(cfg: Config, way: str, bert: BERT, train: Batch, seed: int) -> Classifier:
    """A classifier after training: from random weights, with a frozen BERT, or tuned."""
    model = Classifier(bert).to(cfg.torch_device())
    # Tuned embeddings would move only the words that have labels, away from those that have none.
    freeze(model, {"random": 0, "frozen": cfg.layers + 1, "tuned": 1}[way])
    factor = 1.0 if way == "random" else 0.3  # random layers have nothing to lose
    fine_tune(model, parameter_groups(model, RATES[way], factor, 0.01), train, cfg.epochs, seed)
    return model


def show_ways(cfg: Config) -> dict[str, list[float]]:
    data = load_reviews(cfg)
    print(f"\n[5] {len(data.unlabelled):,} reviews without labels, then {cfg.labels} with labels")
    no_leak("leak", "no review of a part stands in another", *data.fingerprints())
    bert = pre_train(cfg, data)

    few = to_device(data.encode(data.train.some(16, cfg.seed)), cfg.torch_device())
    model = Classifier(make_bert(cfg, data, cfg.seed)).to(cfg.torch_device())
    adam = torch.optim.Adam(model.parameters(), lr=5e-3)
    overfits("overfits", "16 reviews by heart: loss {}", model, few, cross_entropy, adam)
    predicted = model.eval()(few[0]).argmax(dim=1)
    depends_on_input("depends", "the answers depend on the review: {} right", predicted, few[1])

    tests = data.test()
    scores = defaultdict(list)
    for draw in range(cfg.draws):
        seed = 100 * cfg.seed + draw
        train = data.train.some(cfg.labels, seed)
        bag = bag_of_words(train)
        models = {}
        for way in RATES:
            start = make_bert(cfg, data, seed) if way == "random" else copy.deepcopy(bert)
            models[way] = train_way(cfg, way, start, data.encode(train), seed)
        for kind, part in tests.items():
            scores[f"{kind}_bag"].append(bag.score(part.texts, part.labels))
            for way, model in models.items():
                scores[f"{kind}_{way}"].append(accuracy(model, data.encode(part)))

    for name, found in scores.items():
        print(f"  {name:<13}" + "  ".join(f"{score:.3f}" for score in found))
    if cfg.data == "generated":
        gain = np.subtract(scores["new_tuned"], scores["new_random"]).mean()
        expect("new", "new words: {} better than from random weights", gain, at_least=0.15)
        gain = np.subtract(scores["new_tuned"], scores["new_bag"]).mean()
        expect("bag", "there it is {} better than TF-IDF", gain, at_least=0.15)
    return scores


# Pictures and helpers: skip on a first reading


def make_bert(cfg: Config, data: ReviewSet, seed: int) -> BERT:
    """Lesson 7.7's random weights, but each layer begins as a token's vector plus the mean of all.

    So it is learned first which words occur together: that is what tells good from bad.
    """
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
    nn.init.eye_(model.inner.weight)
    batches = data.masked(lesson_7_7.ask, cfg.steps, cfg.seed)
    adam = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.99), weight_decay=0.3)
    rate = torch.optim.lr_scheduler.OneCycleLR(adam, 4e-3, cfg.steps, pct_start=0.1)
    fit(model, batches, adam, masked_loss, scheduler=rate, grad_clip=1.0)
    return model.bert


@torch.no_grad()
def accuracy(model: Classifier, batch: Batch) -> float:
    tokens, labels = to_device(batch, model.head.weight.device)
    predicted = model.eval()(tokens).argmax(dim=1)
    return (predicted == labels).double().mean().item()


def draw_ways(cfg: Config, scores: dict[str, list[float]]) -> None:
    figure, axis = new_figure(size=(8, 4.8))
    for place, (name, found) in enumerate(scores.items()):
        axis.barh(place, np.mean(found), color=BLUE if name.endswith("tuned") else GREY)
        axis.plot(found, [place] * len(found), "o", color="black", markersize=4)
    axis.axvline(0.5, color="black", linestyle="--", linewidth=1.2)
    names = [name.replace("_", " words: ").replace("bag", "TF-IDF") for name in scores]
    axis.set(yticks=range(len(names)), yticklabels=names, xlim=(0, 1), ylim=(len(names), -1))
    axis.set(xlabel="accuracy, mean and each draw of labels (dashed: guessing)")
    axis.set(title=f"{cfg.labels} labels: what pre-training adds on new words")
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
