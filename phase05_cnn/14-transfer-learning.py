"""5.14 Transfer learning: what ten pictures a class can do
迁移学习：每类只有十张图时

You will be able to answer
    1. What is old, and what is new?           show_parts   depends, relabelled
    2. How does a frozen network stay frozen?  show_frozen  once, drift
    3. How do early layers learn more slowly?  show_groups  rates, every
    4. Which is best?  show_ways  kept, overfits, frozen, fine-tuned, no-gain, by-depth, order, best
Predict   scratch: four shapes, ten pictures of each: what accuracy has a new network? Chance: 0.25
Run       python phase05_cnn/14-transfer-learning.py                       about 40 s
          … --weights imagenet       one more row: ResNet-18 of torchvision, downloaded (47 MB)
Needs     phase03_pytorch/09-training-loop, phase05_cnn/11-feature-visualization
Reference -
Notation  B batch  C channels  H W picture
"""

import copy
import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.data.batches import Batches
from common.data.images import load_images
from common.data.shapes import KINDS
from common.data.sources import Part, Source, find
from common.data.tensors import to_tensors
from common.errors import LessonError
from common.figures import BLUE, GREY, new_figure, save_figure
from common.lessons import load_lesson
from common.training import evaluate, fit

lesson_3_9 = load_lesson("phase03_pytorch/09-training-loop")
lesson_5_11 = load_lesson("phase05_cnn/11-feature-visualization")
cross_entropy = lesson_3_9.cross_entropy
Set = tuple[Tensor, Tensor]  # pictures or features (n, …), and their classes (n,)

OLD = (0, 1, 2, 3, 4, 5)  # circle, square, triangle, star, ring, cross: many pictures
NEW = (6, 7, 8, 9)  # heart, moon, arrow, hourglass: ten pictures of each
RATES = (0.0005, 0.002, 0.008, 0.032)  # tried for every way, and chosen on validation pictures
RESNET18 = "resnet18-f37072fd.pth"
RESNET18_DIGEST = "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec"


@dataclass
class Config(LessonConfig):
    threads = 1
    data: str = param("shapes", "data set", choices=("shapes",))
    weights: str = param("none", "weights from elsewhere", choices=("none", "imagenet"))
    pictures: int = param(3000, "pictures of the old kinds", tiny=150)
    epochs: int = param(8, "passes over them")
    per_class: int = param(10, "pictures of each new kind", tiny=4)
    draws: int = param(3, "times that these are drawn anew", tiny=1)
    rounds: int = param(3, "rounds of 20 passes over the new pictures", tiny=1)


def only_kinds(x: Tensor, y: Tensor, kinds: Sequence[int]) -> Set:
    """The pictures of these kinds, which are numbered anew: 0 for the first one named."""
    # practice: Some kinds, numbered anew
    numbers = torch.full((len(KINDS),), -1)
    numbers[list(kinds)] = torch.arange(len(kinds))
    renumbered = numbers[y]
    keep = renumbered >= 0
    return x[keep], renumbered[keep]
    # end practice


def with_new_head(model: nn.Module, classes: int, seed: int) -> nn.Module:
    """A network with the blocks of `model`, and a linear layer that knows nothing yet."""
    new = lesson_5_11.make_net(seed, classes)
    # A copy, with the means and variances of the batch norms: the old network stays as it is.
    new.blocks.load_state_dict(model.blocks.state_dict())
    return new


def show_parts(cfg: Config, old: nn.Module, labelled: Set) -> None:
    print("\n[1] The blocks are taken over; the head belongs to classes that are no longer there")
    x, y = labelled
    text = "the old network names the pictures of old kinds that it learned from: accuracy {}"
    depends_on_input("depends", text, old(x[:500]).argmax(dim=1), y[:500])

    y = torch.tensor([7, 0, 9, 6, 7, 3])
    x = torch.arange(6.0)
    kept, numbers = only_kinds(x, y, [9, 7])
    text = "of kinds 7 0 9 6 7 3 keep 9 and 7: places 0 2 4, numbered 1 0 1"
    check_close("relabelled", text, torch.stack([kept, numbers]), [[0, 2, 4], [1, 0, 1]])


def freeze(blocks: nn.Module) -> None:
    """No gradient, and no new means and variances: in place."""
    # practice: Freeze
    for parameter in blocks.parameters():
        parameter.requires_grad_(False)

    # In training mode a batch norm learns from each batch, without any gradient.
    blocks.eval()
    # end practice


def features(model: nn.Module, x: Tensor) -> Tensor:
    """What the blocks say about the pictures: (n, C). Leaves the model in evaluation mode."""
    return lesson_5_11.channel_means(model.eval(), x)[-1]


def show_frozen(cfg: Config, old: nn.Module, train: Set) -> None:
    print("\n[2] A frozen part always says the same, so once is enough")
    x, y = train
    whole = with_new_head(old, len(NEW), cfg.seed)
    head = copy.deepcopy(whole.head)
    freeze(whole.blocks)
    before = features(old, x)
    for model, inputs in [(whole, x), (head, before)]:
        sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(5):
            sgd.zero_grad()
            cross_entropy(model, (inputs, y)).backward()
            sgd.step()
    text = "five steps on features computed once are five steps through the network, up to {}"
    check_close("once", text, head.weight, whole.head.weight)

    careless = with_new_head(old, len(NEW), cfg.seed).train()
    careless.blocks.requires_grad_(False)
    for _ in range(20):
        careless(x)
    change = (features(careless, x) - before).norm() / before.norm()
    text = "without gradients, but in training mode: after 20 batches the features differ by {}"
    check("drift", text, change.item(), above=0.01)


def parameter_groups(model: nn.Module, lr: float, factor: float) -> list[dict]:
    """Discriminative rates (Howard and Ruder 2018): lr for the head, times factor a block below.

    As an optimizer takes them: dictionaries with `params` and `lr`, the first block first.
    """
    # practice: A rate for each depth
    groups = []
    parts = [*model.blocks, model.head]
    for number, part in enumerate(parts):
        below_head = len(parts) - 1 - number
        groups.append({"params": list(part.parameters()), "lr": lr * factor**below_head})
    return groups
    # end practice


def show_groups(cfg: Config, old: nn.Module) -> None:
    print("\n[3] A rate for each depth: the head is new, the first blocks are to change least")
    model = with_new_head(old, len(NEW), cfg.seed)
    groups = parameter_groups(model, 0.01, 0.5)
    rates = [group["lr"] for group in groups]
    text = "factor 1/2: blocks 1 to 4 and the head learn at 0.000625 0.00125 0.0025 0.005 0.01"
    check_close("rates", text, rates, [0.000625, 0.00125, 0.0025, 0.005, 0.01])
    sizes = [len(nn.utils.parameters_to_vector(group["params"])) for group in groups]
    text = "they have 464, 4672, 9280, 9280 and 132 parameters: all that there are"
    check_close("every", text, sizes, [464, 4672, 9280, 9280, 132])


def train_best(model: nn.Module, groups: list[dict], train: Set, val: Set, cfg: Config) -> float:
    """Adam; the weights that were best on validation pictures stay (4.11). -> that accuracy"""
    # practice: Keep the best
    batches = Batches(*train, batch_size=20, shuffle=True, seed=cfg.seed)
    adam = torch.optim.Adam(groups, fused=True)  # a step in one piece, which is faster
    best = -1.0
    for _ in range(cfg.rounds):
        fit(model, batches, adam, cross_entropy, epochs=20, quiet=True)
        score = accuracy(model, val)
        if score > best:
            best = score
            state = copy.deepcopy(model.state_dict())
    model.load_state_dict(state)
    return best
    # end practice


def start(way: str, old: nn.Module, lr: float, seed: int) -> tuple[nn.Module, list[dict]]:
    """The network with which a way begins, and how fast its parts learn."""
    if way == "scratch":
        model = lesson_5_11.make_net(seed, len(NEW))
    else:
        model = with_new_head(old, len(NEW), seed)
    # Howard and Ruder took 1/2.6; the note says what 1/2 and 1/4 do here.
    factor = 1 / 3 if way in ("discriminative", "reversed") else 1.0
    groups = parameter_groups(model, lr, factor)
    if way == "reversed":
        # For comparison: block 1 learns at the rate of block 4, and so on.
        for group, rate in zip(groups, [group["lr"] for group in groups[3::-1]]):
            group["lr"] = rate
    return model, groups


def show_ways(cfg: Config, old: nn.Module, sets: dict[str, Set]) -> dict[str, Tensor]:
    print(f"\n[4] {cfg.per_class} pictures of each new kind, {cfg.draws} draws; chance is 0.25")
    head = nn.Linear(1, 2, bias=False)
    head.weight.data = torch.tensor([[0.3], [-0.3]])
    x, y = torch.tensor([[-1.0], [1.0]]), torch.tensor([0, 1])
    groups = [{"params": [head.weight], "lr": 0.01}]
    best = train_best(head, groups, (x, y), (x, 1 - y), replace(cfg, rounds=3))
    text = "of three rounds the second spoils it for validation data: the first one's weights stay"
    check_close("kept", text, [best, accuracy(head, (x, 1 - y))], [1.0, 1.0])

    x, y = sets["train"]
    model = lesson_5_11.make_net(cfg.seed, len(NEW))
    adam = torch.optim.Adam(model.parameters(), lr=0.01)
    text = "from scratch, 16 pictures are learned by heart: the loss falls to {}"
    overfits("overfits", text, model, (x[:16], y[:16]), cross_entropy, adam, steps=40)

    ways = ["scratch", "frozen", "fine-tuned", "discriminative", "reversed"]
    if cfg.weights == "imagenet":
        ways.append("imagenet")
    scores = {}
    for way in ways:
        found = []
        for draw in range(cfg.draws):
            seed = 100 * cfg.seed + draw
            few = few_of_each(*sets["train"], cfg.per_class, seed)
            found.append(best_rate(cfg, way, old, [few, sets["val"], sets["test"]], seed))
        scores[way] = torch.tensor([score for score, _ in found])
        rates = " ".join(f"{lr:g}" for _, lr in found)
        shown = " ".join(f"{score:.3f}" for score in scores[way])
        print(f"  {way:<15} mean {scores[way].mean():.3f}   each {shown}   rates {rates}")

    for way in ["frozen", "fine-tuned"]:
        gain = (scores[way] - scores["scratch"]).min()
        text = f"{way}: in the worst draw {{}} better than a network from scratch"
        expect(way, text, gain, at_least=0.1)
    mean = {way: each.mean() for way, each in scores.items()}
    lead = mean["discriminative"]
    text = "on average fine-tuning with one rate for all parts is {} better than frozen blocks"
    expect("no-gain", text, mean["fine-tuned"] - mean["frozen"], at_most=0.02)
    text = "discriminative rates are {} better than one rate for all parts"
    expect("by-depth", text, lead - mean["fine-tuned"], at_least=0.1)
    expect("order", "they are {} better than reversed", lead - mean["reversed"], at_least=0.05)
    expect("best", "they are {} better than frozen blocks", lead - mean["frozen"], at_least=0.03)
    return scores


# Pictures and helpers: skip on a first reading


def best_rate(
    cfg: Config, way: str, old: nn.Module, data: Sequence[Set], seed: int
) -> tuple[float, float]:
    """Train with each rate, choose on validation pictures: its accuracy on the test, the rate."""
    # Convolutions are faster when the channels of a pixel lie side by side.
    data = [(x.contiguous(memory_format=torch.channels_last), y) for x, y in data]
    if way == "frozen":
        data = [(features(old, x), y) for x, y in data]
    if way == "imagenet":
        data = [(imagenet_features(cfg, x), y) for x, y in data]
    train, val, test = data
    best = -1.0
    for lr in RATES:
        if train[0].ndim == 2:  # features: only a head is left to learn
            torch.manual_seed(seed)
            model = nn.Linear(train[0].shape[1], len(NEW))
            groups = [{"params": list(model.parameters()), "lr": lr}]
        else:
            model, groups = start(way, old, lr, seed)
        score = train_best(model, groups, train, val, cfg)
        if score > best:
            best = score
            found = accuracy(model, test), lr
    return found


def accuracy(model: nn.Module, data: Set) -> float:
    """In evaluation mode: the batch norms use what they have learned."""
    batches = Batches(*data, batch_size=256)
    return evaluate(model, batches, lesson_3_9.accuracy)["accuracy"]


def few_of_each(x: Tensor, y: Tensor, count: int, seed: int) -> Set:
    """So many pictures of each class, drawn at random."""
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    chosen = torch.cat([order[y[order] == number][:count] for number in y.unique()])
    return x[chosen], y[chosen]


def copy_weights(parts: Sequence[Path], target: Path) -> None:
    shutil.copyfile(parts[0], target)


@torch.no_grad()
def imagenet_features(cfg: Config, x: Tensor) -> Tensor:
    """What a ResNet-18 says that has learned from 1.3 million photographs. (n, 512)

    Its file is looked for in --data-dir, COURSE_DATA and the cache, then downloaded.
    """
    url = f"https://download.pytorch.org/models/{RESNET18}"
    part = Part(RESNET18, f"sha256:{RESNET18_DIGEST}", 46_830_571, (url,))
    path = find(Source("resnet18", RESNET18, (part,), copy_weights, "ResNet-18"), cfg.data_dir)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != RESNET18_DIGEST:
        raise LessonError(
            f"{path} is damaged, or no {RESNET18}: its SHA-256 begins with {digest[:8]}. "
            "Remove it, and the next run downloads it; or leave --weights out."
        )

    model = torchvision.models.resnet18().eval()
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    model.fc = nn.Identity()
    # ImageNet's means and deviations, for pixels from 0 to 1
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    x = F.interpolate(((x + 1) / 2 - mean) / std, scale_factor=2, mode="bilinear")
    return torch.cat([model(batch) for batch in x.split(100)])


def draw_ways(cfg: Config, scores: dict[str, Tensor]) -> None:
    figure, axis = new_figure(size=(8, 4))
    for number, (way, values) in enumerate(scores.items()):
        axis.barh(number, values.mean(), color=GREY if way in ("scratch", "reversed") else BLUE)
        axis.plot(values, [number] * len(values), "o", color="black", markersize=5)
    axis.axvline(1 / len(NEW), color="black", linestyle="--", linewidth=1.2)
    axis.set(yticks=range(len(scores)), yticklabels=scores, xlim=(0, 1))
    axis.set_xlabel(f"accuracy, mean and each of {cfg.draws} draws (dashed: guessing)")
    axis.invert_yaxis()
    axis.set_title("Ten pictures a class: what was learned from other shapes helps")
    save_figure(figure, cfg.out / "ways")


def run(cfg: Config) -> dict[str, float]:
    data = load_images(cfg, split_seed=cfg.seed)
    train = to_tensors(data.x_train, data.y_train)
    many, labels = only_kinds(*train, OLD)
    old = lesson_5_11.make_net(cfg.seed, len(OLD))
    lesson_5_11.train_net(old, many[: cfg.pictures], labels[: cfg.pictures], cfg.epochs, cfg.seed)
    sets = {"train": only_kinds(*train, NEW)}
    sets["val"] = tuple(part[:100] for part in only_kinds(*to_tensors(data.x_val, data.y_val), NEW))
    test = to_tensors(*data.test())
    sets["test"] = only_kinds(*test, NEW)
    print(f"  old kinds: {accuracy(old, only_kinds(*test, OLD)):.3f} of new pictures named rightly")

    show_parts(cfg, old, (many, labels))
    show_frozen(cfg, old, few_of_each(*sets["train"], cfg.per_class, cfg.seed))
    show_groups(cfg, old)
    scores = show_ways(cfg, old, sets)
    draw_ways(cfg, scores)
    return {way.replace("-", "_"): values.mean().item() for way, values in scores.items()}


if __name__ == "__main__":
    main(run, Config, __doc__)
