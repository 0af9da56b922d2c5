"""5.5 AlexNet: the year 2012, layer by layer
AlexNet：一层一层重走 2012 年

You will be able to answer
    1. What does normalization do?     show_lrn          by-hand, rivals, lrn, constant
    2. Where are weights and work?     show_2012         order, in-net, totals, removed, dense, work
    3. Is it torchvision's AlexNet?    show_torchvision  logits
    4. What do moved pictures bring?   show_jitter       places, overfits, depends, small, gain
Predict   dense_share: 3 of its 8 layers with weights are dense. What share of the weights is there?
Run       python phase05_cnn/05-alexnet.py                                 about 50 s
Needs     phase03_pytorch/09-training-loop, phase04_mlp/09-weight-init
Reference F.local_response_norm, torchvision.models.alexnet
Notation  B batch  C channels  H W picture
"""

import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.data.batches import Batches
from common.data.images import load_images
from common.data.tensors import to_tensors
from common.figures import BLUE, GREY, ORANGE, new_figure, plot_curves, save_figure
from common.lessons import load_lesson
from common.training import evaluate, fit

training = load_lesson("phase03_pytorch/09-training-loop")
initial = load_lesson("phase04_mlp/09-weight-init")


@dataclass
class Config(LessonConfig):
    threads = 1
    data: str = param("shapes", "data set of [4]", choices=("shapes", "shapes-hard", "cifar10"))
    pictures: int = param(1000, "training pictures of [4]", tiny=300)
    epochs: int = param(60, "passes over them", tiny=6)
    runs: int = param(2, "networks trained on each kind of pictures", tiny=1)


def local_response_norm(
    x: Tensor, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0
) -> Tensor:
    """Section 3.3 of the paper: x / (k + alpha · sum of squares) ** beta. (B, C, H, W), same shape.

    The sum runs over `size` channels at one position, `size` odd: the number's own in the middle.
    """
    # practice: Divide by the neighbours
    # Zeros as channels in front of the first and behind the last; rows and columns stay.
    squares = F.pad(x.square(), [0, 0, 0, 0, size // 2, size // 2])
    total = squares.unfold(1, size, 1).sum(dim=-1)  # (B, C, H, W)
    return x / (k + alpha * total) ** beta
    # end practice


def show_lrn(cfg: Config) -> None:
    print("\n[1] Local response normalization: strong neighbours in other channels weaken a number")
    x = torch.tensor([1.0, 2.0, 0.0, 3.0]).reshape(1, 4, 1, 1).requires_grad_()
    found = local_response_norm(x, size=3, alpha=1.0, beta=1.0, k=1.0)
    print("  channels 1 2 0 3, size 3, alpha = beta = k = 1:  1/(1+1+4), 2/(1+1+4+0), 0, 3/(1+0+9)")
    text = "so the four numbers become 1/6, 1/3, 0 and 3/10"
    check_close("by-hand", text, found.flatten(), torch.tensor([1 / 6, 1 / 3, 0, 0.3]))
    grad = torch.autograd.grad(found[0, 0, 0, 0], x)[0]
    text = "the first grows with itself, and shrinks as its neighbour grows: 1/9, -1/9, 0, 0"
    check_close("rivals", text, grad.flatten(), torch.tensor([1 / 9, -1 / 9, 0, 0]))

    x = 100 * torch.randn(2, 7, 4, 5)
    # torch divides alpha by the size: it takes the mean where the paper takes the sum.
    theirs = F.local_response_norm(x, size=5, alpha=5 * 1e-4, beta=0.75, k=2.0)
    text = "with the paper's constants it is torch's, which wants size · alpha"
    check_close("lrn", text, local_response_norm(x), theirs)

    x = torch.randn(2, 96, 13, 13).relu()
    for scale in (100, 1):
        factor = (local_response_norm(scale * x) / (scale * x))[x > 0]
        print(f"  numbers of about {scale}: factors from {factor.min():.4f} to {factor.max():.4f}")
    text = "for numbers of about 1 the factor is 2 ** -0.75 = 0.5946, up to a share of {}"
    check("constant", text, (1 - factor.min() / 2**-0.75).item(), at_most=0.002)


class LocalResponseNorm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return local_response_norm(x)


# A row for each convolution: maps, filter, stride, padding, groups, and what follows its ReLU:
# N local response normalization, P max pooling.
PLAN_2012 = [
    (96, 11, 4, 2, 1, "NP"),
    (256, 5, 1, 2, 2, "NP"),
    (384, 3, 1, 1, 1, ""),
    (384, 3, 1, 1, 2, ""),
    (256, 3, 1, 1, 2, "P"),
]
PLAN_TORCHVISION = [
    (64, 11, 4, 2, 1, "P"),
    (192, 5, 1, 2, 1, "P"),
    (384, 3, 1, 1, 1, ""),
    (256, 3, 1, 1, 1, ""),
    (256, 3, 1, 1, 1, "P"),
]
LAYERS = ("conv 1", "conv 2", "conv 3", "conv 4", "conv 5", "dense 1", "dense 2", "dense 3")


class AlexNet(nn.Module):
    """(B, 3, H, W) -> logits (B, classes). side: rows and columns that the dense layers read."""

    def __init__(self, plan: list, side=6, hidden_dim=4096, classes=1000, dropout=0.5):
        super().__init__()
        # practice: From the plan to layers
        layers = []
        inputs = 3
        for outputs, kernel, stride, padding, groups, following in plan:
            layers.append(nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups))
            layers.append(nn.ReLU())
            if "N" in following:
                layers.append(LocalResponseNorm())
            if "P" in following:
                # Windows of 3 in steps of 2: they overlap by a pixel.
                layers.append(nn.MaxPool2d(3, stride=2))
            inputs = outputs
        # end practice
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(side)
        # The paper drops outputs of the first two dense layers; torchvision, so also we, inputs.
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(inputs * side * side, hidden_dim),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_dim, hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.avgpool(self.features(x))
        return self.classifier(x.flatten(start_dim=1))


def costs(model: nn.Module, x: Tensor) -> dict[str, tuple[int, int]]:
    """For each layer with weights: parameters, and multiplications for one picture."""
    # practice: Count by hooks
    found = {}

    def note(name: str, layer: nn.Module, inputs: tuple, output: Tensor) -> None:
        places = output[0, 0].numel()  # rows times columns, or 1 behind a dense layer
        # At each position every weight is used once.
        found[name] = (count(layer), layer.weight.numel() * places)

    hooks = []
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            hooks.append(layer.register_forward_hook(functools.partial(note, name)))
    model(x)
    for hook in hooks:
        hook.remove()
    return found
    # end practice


def show_2012(cfg: Config) -> tuple[dict[str, float], list[tuple[int, int]]]:
    print("\n[2] The net of 2012, built on the device meta: shapes, and no memory")
    x = 100 * torch.randn(1, 96, 3, 3).relu()
    with torch.device("meta"):
        model = AlexNet(PLAN_2012)
        found = list(costs(model, torch.empty(2, 3, 224, 224)).values())
    order = "".join(type(layer).__name__[0] for layer in model.features)
    text = f"Conv, ReLU, LRN, MaxPool: in the paper CRLM CRLM CR CR CRM, here {order}"
    check("order", text, order == "CRLMCRLMCRCRCRM")
    text = "and its LRN has the constants of the paper"
    check_close("in-net", text, model.features[2](x), local_response_norm(x))

    for name, (parameters, work) in zip(LAYERS, found):
        print(f"  {name}  {parameters:11,} parameters {work:12,} multiplications")
    parameters, work = (sum(column) for column in zip(*found))
    found_totals = torch.tensor([parameters, work])
    text = f"in all {parameters:,} parameters, the paper's 60 million, and {work:,} multiplications"
    check_close("totals", text, found_totals, torch.tensor([60_965_224, 724_406_816]))
    left = any(layer._forward_hooks for layer in model.modules())
    check("removed", "no hook is left in the model", not left)

    dense_parameters, dense_work = (sum(column) for column in zip(*found[5:]))
    dense_share = dense_parameters / parameters
    check("dense", "the dense layers hold {} of the parameters", dense_share, at_least=0.95)
    work_share = 1 - dense_work / work
    check("work", "the convolutions do {} of the multiplications", work_share, at_least=0.9)
    return {"dense_share": dense_share, "work_share": work_share}, found


def show_torchvision(cfg: Config) -> None:
    print("\n[3] torchvision's AlexNet: the variant of 2014 for one GPU, without its LRN")
    with torch.device("meta"):
        model = AlexNet(PLAN_TORCHVISION).eval()
    # The two share the memory of the weights.
    reference = torchvision.models.alexnet().eval()
    model.load_state_dict(reference.state_dict(), assign=True)

    x = 100 * torch.randn(2, 3, 95, 159)
    with torch.no_grad():
        ours = model(x)
        theirs = reference(x)
    text = f"its {count(model):,} parameters fit ours by name, and the logits are the same"
    check_close("logits", text, ours, theirs, rtol=1e-4, atol=1e-5)


PLAN_SMALL = [  # for 32x32: smaller filters, smaller stride, fewer maps
    (16, 5, 2, 2, 1, "P"),
    (32, 3, 1, 1, 1, "P"),
    (48, 3, 1, 1, 1, ""),
    (48, 3, 1, 1, 1, ""),
    (32, 3, 1, 1, 1, ""),
]


def jitter(x: Tensor) -> Tensor:
    """Each picture moved for itself, by up to 4 pixels each way. (B, C, H, W), same shape.

    What comes in at an edge repeats the pixels of that edge. To one picture, torchvision's
    RandomCrop(side, padding=4, padding_mode="edge") does the same.
    """
    # practice: Move each picture
    rows, columns = x.shape[2:]
    padded = F.pad(x, [4] * 4, mode="replicate")
    moved = []
    for picture in padded:
        top, left = torch.randint(9, size=(2,)).tolist()
        moved.append(picture[:, top : top + rows, left : left + columns])
    return torch.stack(moved)
    # end practice


def show_jitter(cfg: Config) -> tuple[dict[str, float], dict, dict[str, list[float]]]:
    print(f"\n[4] A small AlexNet, and {cfg.pictures} pictures of {cfg.data}")
    x = torch.arange(126.0).reshape(1, 3, 6, 7)
    found = jitter(x.repeat(2000, 1, 1, 1)).flatten(1).unique(dim=0)
    text = "a picture can be moved to 9 · 9 places: all of them occur, and nothing else"
    check_close("places", text, found, all_places(x).flatten(1).unique(dim=0))

    data = load_images(cfg, split_seed=cfg.seed)
    x, y = to_tensors(data.x_train[: cfg.pictures], data.y_train[: cfg.pictures])
    test_set = Batches(*to_tensors(*data.test()), batch_size=500)
    scores = {}
    losses = {}
    for kind, transform in (("same pictures", None), ("moved pictures", jitter)):
        scores[kind] = []
        for seed in range(10 * cfg.seed, 10 * cfg.seed + cfg.runs):
            model = make_net(seed)
            rows = learn(cfg, model, x, y, seed, transform)
            losses.setdefault(kind, rows)  # those of the first network are drawn
            scores[kind].append(evaluate(model, test_set, training.accuracy)["accuracy"])
        listed = "  ".join(f"{score:.3f}" for score in scores[kind])
        print(f"  {kind:<14}  last training loss {rows[-1]:.3f}, test accuracy {listed}")

    fresh = make_net(cfg.seed)
    x, y = x[:32], y[:32]
    adam = torch.optim.Adam(fresh.parameters(), lr=0.002)
    text = "32 pictures are memorised: the loss falls to {}"
    overfits("overfits", text, fresh, (x, y), training.cross_entropy, adam, steps=100)
    text = "of these a share of {} is then recognised"
    depends_on_input("depends", text, fresh(x).argmax(dim=1), y)

    still, moved = (sum(each) / len(each) for each in scores.values())
    text = "moved pictures lead to an accuracy of {} on average; guessing gives 0.1"
    expect("small", text, moved, at_least=0.55)
    text = "that is {} more than the same pictures again and again"
    expect("gain", text, moved - still, at_least=0.1)
    return {"still": still, "moved": moved}, losses, scores


# Pictures and helpers: skip on a first reading


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def all_places(x: Tensor) -> Tensor:
    """(81, C, H, W): all that jitter may make of one picture."""
    padded = F.pad(x, [4] * 4, mode="replicate")
    windows = padded.unfold(2, x.shape[2], 1).unfold(3, x.shape[3], 1)[0]  # (C, 9, 9, H, W)
    return windows.movedim(0, 2).flatten(0, 1)


def make_net(seed: int) -> nn.Module:
    """A small AlexNet; weights by He (4.9). No dropout, so that augmentation works alone."""
    torch.manual_seed(seed)
    model = AlexNet(PLAN_SMALL, side=3, hidden_dim=128, classes=10, dropout=0.0)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            initial.fill_normal(layer.weight, initial.he_std(layer.weight))
            nn.init.zeros_(layer.bias)
    return model.to(memory_format=torch.channels_last)  # the same numbers, in less time


def learn(cfg: Config, model: nn.Module, x, y, seed: int, transform=None) -> list[float]:
    """Train by Adam at a rate that falls to 0; the loss of each pass."""
    batches = Batches(x, y, batch_size=64, shuffle=True, seed=seed, transform=transform)
    adam = torch.optim.Adam(model.parameters(), lr=0.004, fused=True)
    steps = cfg.epochs * len(batches)
    falling = torch.optim.lr_scheduler.LinearLR(adam, 1, 0, total_iters=steps)
    loss_fn = training.cross_entropy
    rows = fit(model, batches, adam, loss_fn, epochs=cfg.epochs, scheduler=falling, quiet=True)
    return [row["train_loss"] for row in rows]


def draw_costs(cfg: Config, found: list[tuple[int, int]]) -> None:
    figure, axes = new_figure(1, 2, size=(11, 4), sharey=True)
    for column, (axis, title) in enumerate(zip(axes, ("parameters", "multiplications"))):
        values = [row[column] for row in found]
        shares = [100 * value / sum(values) for value in values]
        axis.barh(LAYERS, shares, color=[BLUE] * 5 + [ORANGE] * 3)
        axis.set(title=title, xlabel="share in %")
    axes[0].invert_yaxis()
    figure.suptitle("Dense layers hold the weights, convolutions do the work", fontweight="bold")
    save_figure(figure, cfg.out / "costs")


def draw_jitter(cfg: Config, losses: dict, scores: dict[str, list[float]]) -> None:
    figure, (left, right) = new_figure(1, 2, size=(11, 4.4), width_ratios=(3, 2))
    plot_curves(left, losses, ylabel="training loss of the first network")
    means = [sum(each) / len(each) for each in scores.values()]
    bars = right.bar(list(scores), means, color=[BLUE, ORANGE], width=0.5)
    right.bar_label(bars, fmt="%.2f", label_type="center", color="white", fontweight="bold")
    for place, each in enumerate(scores.values()):
        right.plot([place] * len(each), each, "o", color="black", markersize=5)
    right.axhline(0.1, color=GREY, linestyle="--", linewidth=1)
    right.text(0.5, 0.12, "guessing", color=GREY, ha="center")
    right.set(ylabel="accuracy on new pictures", xlabel="dots: single networks", ylim=(0, 1))
    figure.suptitle("Harder to memorise, better on new pictures", fontweight="bold")
    save_figure(figure, cfg.out / "jitter")


def run(cfg: Config) -> dict[str, float]:
    show_lrn(cfg)
    shares, found = show_2012(cfg)
    show_torchvision(cfg)
    means, losses, scores = show_jitter(cfg)
    draw_costs(cfg, found)
    draw_jitter(cfg, losses, scores)
    return shares | means


if __name__ == "__main__":
    main(run, Config, __doc__)
