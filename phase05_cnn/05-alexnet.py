"""5.5 AlexNet: the year 2012, layer by layer
AlexNet：一层一层重走 2012 年

You will be able to answer
    1. What does local response normalization do?     show_lrn     by-hand, lrn, constant
    2. Where are the weights, and where is the work?  show_2012    order, parameters, dense, work
    3. Is it the AlexNet that libraries have?         show_2014    logits
    4. What do moved and mirrored pictures bring?     show_jitter  overfits, depends, small, gain
Predict   dense_share: 3 of its 8 layers with weights are dense. What share of the weights is there?
Run       python phase05_cnn/05-alexnet.py                                 about 40 s
Needs     phase03_pytorch/09-training-loop, phase04_mlp/09-weight-init
Reference F.local_response_norm, torchvision.models.alexnet
Notation  B batch  C channels  H W picture
"""

import functools
from collections.abc import Iterable
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
from common.figures import BLUE, ORANGE, new_figure, plot_curves, save_figure
from common.lessons import load_lesson
from common.training import evaluate, fit

training = load_lesson("phase03_pytorch/09-training-loop")
initial = load_lesson("phase04_mlp/09-weight-init")


@dataclass
class Config(LessonConfig):
    threads = 1
    data: str = param("shapes", "data set of [4]", choices=("shapes", "shapes-hard", "cifar10"))
    pictures: int = param(1000, "training pictures of [4]", tiny=300)
    epochs: int = param(38, "passes over them", tiny=6)
    runs: int = param(2, "networks with and without augmentation", tiny=1)


def local_response_norm(
    x: Tensor, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0
) -> Tensor:
    """Section 3.3 of the paper: x / (k + alpha · sum of squares) ** beta. (B, C, H, W), same shape.

    The sum runs over the `size` channels around a number, its own among them, at the same place.
    """
    # practice: Divide by the neighbours
    # Zeros as channels in front of the first and behind the last; rows and columns stay.
    squares = F.pad(x.square(), [0, 0, 0, 0, size // 2, (size - 1) // 2])
    total = squares.unfold(1, size, 1).sum(dim=-1)  # (B, C, H, W)
    return x / (k + alpha * total) ** beta
    # end practice


def show_lrn(cfg: Config) -> None:
    print("\n[1] Local response normalization: strong neighbours in other channels weaken a number")
    x = torch.tensor([1.0, 2.0, 0.0, 3.0]).reshape(1, 4, 1, 1)
    ours = local_response_norm(x, size=3, alpha=1.0, beta=1.0, k=1.0)
    print("  channels 1 2 0 3, size 3, alpha = beta = k = 1:  1/(1+1+4), 2/(1+1+4+0), 0, 3/(1+0+9)")
    text = "so the four numbers become 1/6, 1/3, 0 and 3/10"
    check_close("by-hand", text, ours.flatten(), torch.tensor([1 / 6, 1 / 3, 0, 0.3]))

    x = 30 * torch.randn(2, 7, 4, 5).double()
    x.requires_grad_()
    ours = []
    theirs = []
    for size, alpha in ((5, 1e-4), (3, 0.02), (4, 0.1)):
        # torch divides alpha by the size: it takes the mean where the paper takes the sum.
        found = local_response_norm(x, size, alpha)
        wanted = F.local_response_norm(x, size, size * alpha, beta=0.75, k=2.0)
        grad = torch.randn_like(found)
        ours += [found, *torch.autograd.grad(found, x, grad)]
        theirs += [wanted, *torch.autograd.grad(wanted, x, grad)]
    text = "values and gradients are torch's, which wants size · alpha"
    check_close("lrn", text, torch.stack(ours), torch.stack(theirs))

    x = torch.randn(2, 96, 13, 13).relu()
    for size in (100, 1):
        factor = (local_response_norm(size * x) / (size * x))[x > 0]
        print(f"  numbers of size {size}: factors from {factor.min():.4f} to {factor.max():.4f}")
    text = "for numbers of size 1 the factor is constant, up to a share of {}"
    check("constant", text, (1 - factor.min() / factor.max()).item(), at_most=0.002)


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
PLAN_2014 = [
    (64, 11, 4, 2, 1, "P"),
    (192, 5, 1, 2, 1, "P"),
    (384, 3, 1, 1, 1, ""),
    (256, 3, 1, 1, 1, ""),
    (256, 3, 1, 1, 1, "P"),
]


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


def costs(model: nn.Module, x: Tensor) -> dict[str, tuple[int, int, int]]:
    """For each layer with weights: parameters, and multiplications and outputs for one picture."""
    # practice: Count by hooks
    found = {}

    def note(name: str, layer: nn.Module, inputs: tuple, output: Tensor) -> None:
        places = output[0, 0].numel()  # rows times columns, or 1 behind a dense layer
        # At each place every weight is used once.
        found[name] = (count(layer), layer.weight.numel() * places, output[0].numel())

    hooks = []
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            hooks.append(layer.register_forward_hook(functools.partial(note, name)))
    model(x)
    for hook in hooks:
        hook.remove()
    return found
    # end practice


def show_2012(cfg: Config) -> tuple[dict[str, float], dict[str, tuple[int, int, int]]]:
    print("\n[2] The net of 2012, built without memory on the device meta")
    with torch.device("meta"):
        model = AlexNet(PLAN_2012)
        found = costs(model, torch.empty(1, 3, 224, 224))
    for name, (parameters, work, _) in found.items():
        print(f"  {name:<14} {parameters:11,} parameters {work:12,} multiplications")
    parameters, work, _ = total(found.values())
    order = "".join(type(layer).__name__[0] for layer in model.features)
    text = "Convolution, ReLU, LRN, MaxPool stand as in the paper: CRLM CRLM CR CR CRM"
    check("order", text, order == "CRLMCRLMCRCRCRM")
    text = "in all {} parameters, as many as the layers of the paper have"
    check("parameters", text, parameters, at_least=60_965_224, at_most=60_965_224)

    dense = total(row for name, row in found.items() if name.startswith("classifier"))
    dense_share = dense[0] / parameters
    check("dense", "the dense layers hold {} of the parameters", dense_share, at_least=0.95)
    work_share = 1 - dense[1] / work
    check("work", "the convolutions do {} of the multiplications", work_share, at_least=0.9)
    return {"dense_share": dense_share, "work_share": work_share}, found


def show_2014(cfg: Config) -> None:
    print("\n[3] The variant of 2014, on one GPU and without normalization: torchvision's")
    with torch.device("meta"):
        reference = torchvision.models.alexnet().eval()
        model = AlexNet(PLAN_2014).eval()

    # Both networks share the memory of the weights.
    weights = random_weights(reference, {})
    reference.load_state_dict(weights, assign=True)
    model.load_state_dict(weights, assign=True)

    x = torch.randn(2, 3, 95, 159)
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
    """A batch moved by up to 4 pixels each way, every second time mirrored too. (B, C, H, W)"""
    # practice: Move and mirror
    padded = F.pad(x, [4] * 4, mode="replicate")  # the border goes on outside
    top, left = torch.randint(9, size=(2,)).tolist()
    x = padded[:, :, top : top + x.shape[2], left : left + x.shape[3]]
    if torch.rand(()) < 0.5:
        x = x.flip(dims=[3])
    return x
    # end practice


def show_jitter(cfg: Config) -> tuple[dict[str, float], dict[str, list[float]]]:
    print(
        f"\n[4] A small AlexNet, {cfg.pictures} pictures of {cfg.data}; mean of {cfg.runs} networks"
    )
    scores = {"as they are": [], "moved": []}
    losses = {}
    for number in range(10 * cfg.seed, 10 * cfg.seed + cfg.runs):
        train_set, test_set = make_sets(cfg, number)
        for kind, transform in (("as they are", None), ("moved", jitter)):
            model = make_net(number)
            losses[kind] = learn(model, train_set, cfg.epochs, 0.002, number, transform)
            scores[kind].append(evaluate(model, test_set, training.accuracy)["accuracy"])

    fresh = make_net(cfg.seed)
    x, y = train_set[0][:32], train_set[1][:32]
    adam = torch.optim.Adam(fresh.parameters(), lr=0.002)
    text = "32 pictures are memorised: the loss falls to {}"
    overfits("overfits", text, fresh, (x, y), training.cross_entropy, adam, steps=100)
    text = "of these a share of {} is then recognised"
    depends_on_input("depends", text, fresh(x).argmax(dim=1), y)

    for kind, row in scores.items():
        each = "  ".join(f"{score:.3f}" for score in row)
        print(f"  {kind:<11} last training loss {losses[kind][-1]:.2f}, accuracy {each}")
    still, moved = (sum(row) / len(row) for row in scores.values())
    text = "moved and mirrored pictures lead to an accuracy of {}; guessing gives 0.1"
    expect("small", text, moved, at_least=0.3)
    text = "that is {} more than the same pictures again and again"
    expect("gain", text, moved - still, at_least=0.02)
    return {"still": still, "moved": moved}, losses


# Pictures and helpers: skip on a first reading


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def random_weights(model: nn.Module, known: dict[str, Tensor]) -> dict[str, Tensor]:
    """Numbers of a usual size for every parameter; what is known in that shape is taken over."""
    weights = {}
    for name, parameter in model.state_dict().items():
        weights[name] = known.get(name)
        if weights[name] is None or weights[name].shape != parameter.shape:
            bound = (6 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.5
            weights[name] = torch.empty(parameter.shape).uniform_(-bound, bound)
    return weights


def total(rows: Iterable[tuple[int, int, int]]) -> list[int]:
    """The sum of each column of what costs() gives."""
    return [sum(column) for column in zip(*rows)]


def make_sets(cfg: Config, split_seed: int) -> tuple[tuple[Tensor, Tensor], Batches]:
    """Few training pictures, and batches of all test pictures."""
    data = load_images(cfg, split_seed=split_seed)
    train_set = to_tensors(data.x_train[: cfg.pictures], data.y_train[: cfg.pictures])
    return train_set, Batches(*to_tensors(*data.test()), batch_size=500)


def make_net(seed: int) -> nn.Module:
    """A small AlexNet; weights by He (4.9)."""
    torch.manual_seed(seed)
    model = AlexNet(PLAN_SMALL, side=3, hidden_dim=128, classes=10, dropout=0.0)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            initial.fill_normal(layer.weight, initial.he_std(layer.weight))
            nn.init.zeros_(layer.bias)
    return model


def learn(
    model: nn.Module, train_set: tuple, epochs: int, lr: float, seed: int, transform=None
) -> list[float]:
    """Train by Adam at a rate that falls to 0; the loss of each pass."""
    batches = Batches(*train_set, batch_size=64, shuffle=True, seed=seed, transform=transform)
    adam = torch.optim.Adam(model.parameters(), lr=lr)
    falling = torch.optim.lr_scheduler.LinearLR(adam, 1, 0, total_iters=epochs * len(batches))
    loss_fn = training.cross_entropy
    rows = fit(model, batches, adam, loss_fn, epochs=epochs, scheduler=falling, quiet=True)
    return [row["train_loss"] for row in rows]


def draw_costs(cfg: Config, found: dict[str, tuple[int, int, int]]) -> None:
    names = [f"conv {number}" for number in range(1, 6)] + [f"dense {n}" for n in range(1, 4)]
    figure, axes = new_figure(1, 2, size=(11, 4), sharey=True)
    for column, (axis, title) in enumerate(zip(axes, ("parameters", "multiplications"))):
        values = [row[column] for row in found.values()]
        shares = [100 * value / sum(values) for value in values]
        axis.barh(names, shares, color=[BLUE] * 5 + [ORANGE] * 3)
        axis.set(title=title, xlabel="share in %")
    axes[0].invert_yaxis()
    figure.suptitle("Dense layers hold the weights, convolutions do the work", fontweight="bold")
    save_figure(figure, cfg.out / "costs")


def draw_jitter(cfg: Config, losses: dict[str, list[float]]) -> None:
    figure, axis = new_figure(size=(9, 4.4))
    plot_curves(axis, losses, ylabel="training loss")
    axis.set_title("A net memorises still pictures, and has a harder time with moving ones")
    save_figure(figure, cfg.out / "jitter")


def run(cfg: Config) -> dict[str, float]:
    show_lrn(cfg)
    shares, found = show_2012(cfg)
    show_2014(cfg)
    means, losses = show_jitter(cfg)
    draw_costs(cfg, found)
    draw_jitter(cfg, losses)
    return {**shares, **means}


if __name__ == "__main__":
    main(run, Config, __doc__)
