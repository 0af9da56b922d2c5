"""Project 5 CIFAR-10: 90 % on two CPU cores
CIFAR-10：两个 CPU 核上的 90%

You will be able to answer
    1. What does the network get to see?     show_pictures   apart, both-ways, moved
    2. What does whitening do to pictures?   show_whitening  by-hand, eps, identity
    3. What happens in one step?             show_step       as-svd, rounds, muon, pulled, overfits
    4. What does each idea change?           show_ladder     views, climbed
    5. How good is it, beside what?          show_results    input-matters, beside, accuracy
Predict   linear: ten shapes, rotated by any angle: what share does a linear model get right?
Run       python phase05_cnn/project-cifar10.py       about three minutes; --help shows the rest
          … --data cifar10      60,000 photographs; --preset long: 30 passes; --classes cat,dog
          torchrun --nproc-per-node=2 phase05_cnn/project-cifar10.py      half of each batch each
Needs     phase05_cnn/14-transfer-learning
Reference torch.linalg.svd, torch.optim.SGD
Notation  B batch  C channels  H W picture  K classes
"""

import copy
import functools
import re
import time
import timeit
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from common import processes
from common.checkpoint import Checkpoint
from common.checks import check_close, depends_on_input, expect, no_leak, overfits
from common.config import LessonConfig, main, param
from common.data.batches import Batches
from common.data.images import ImageSet, load_images
from common.errors import LessonError
from common.figures import BLUE, SKY, new_figure, plot_images, save_figure
from common.lessons import load_lesson
from common.training import fit

only_kinds = load_lesson("phase05_cnn/14-transfer-learning").only_kinds
Set = tuple[Tensor, Tensor]  # pictures as bytes (n, 3, 32, 32), and their classes (n,)

# What may differ when a run is resumed.
FREE = ("preset", "device", "data_dir", "out", "resume", "debug", "views", "ladder", "baseline")
PRECISIONS = ("auto", "float32", "bfloat16")
RECIPES = {  # channels of the three blocks; side of the pictures:passes; batch size; pictures
    "shapes-hard": ("16,32,32", "24:1,32:1", 64, 4000),
    "cifar10": ("48,192,192", "20:2,24:7,32:6", 512, 50_000),
}


@dataclass
class Config(LessonConfig):
    data: str = param("shapes-hard", "data set", choices=tuple(RECIPES), long="cifar10")
    classes: str = param("", "only these, as in cat,dog")
    runs: int = param(3, "networks that are trained; the mean counts", tiny=1, long=1)
    widths: str = param("", "channels of the three blocks", tiny="16,32,32", long="64,256,256")
    schedule: str = param("", "side:passes, in turn", tiny="24:2,32:4", long="24:8,32:22")
    batch_size: int = param(0, "pictures in one step", tiny=32, low=0)
    pictures: int = param(0, "training pictures at most", low=0)
    precision: str = param("auto", "auto: the faster", choices=PRECISIONS, tiny="float32")
    whiten: bool = param(True, "compute the first layer instead of learning it")
    smoothing: float = param(0.2, "share of a label that is spread over all classes")
    flip: bool = param(True, "mirror every other time")
    shift: int = param(2, "pixels by which a training picture is moved at most", low=0, long=4)
    rates: bool = param(True, "filters, shifts and last layer learn at rates of their own")
    muon: bool = param(True, "make the steps of filters orthogonal; needs rates")
    lr: float = param(0.15, "first rate of the filters by Muon")
    sgd_lr: float = param(1.7, "first rate of the filters by SGD")
    plain_lr: float = param(0.07, "first rate of what has none of its own")
    average: bool = param(True, "pull the weights towards their average")
    views: bool = param(True, "the mean over six views of a test picture")
    ladder: int = param(2, "passes for each rung of the ladder; 0: none", tiny=1, long=0, low=0)
    baseline: int = param(0, "passes of ResNet-18 with Adam, beside it", low=0)


def augment(x: Tensor, mirrored: Tensor, moves: Tensor) -> Tensor:
    """Pictures (B, C, H, W), some mirrored left to right, then each moved in its own way.

    mirrored: (B,) truth values. moves: (B, 2) whole numbers; after a move of 1, 2 there is at row
    0, column 0 what was at row 1, column 2. Beyond its edge a picture goes on by reflection.
    """
    # practice: mirrored and moved, a whole batch at once
    x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
    most = int(moves.abs().max())
    # All windows of the old size, as a view: no pixel is copied yet.
    height, width = x.shape[2:]
    padded = F.pad(x, [most, most, most, most], mode="reflect")
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (B, C, 2·most+1, 2·most+1, H, W)
    rows, columns = (moves + most).T
    return windows[torch.arange(len(x)), :, rows, columns]  # (B, C, H, W)
    # end practice


def prepare(cfg: Config, batch: tuple, number: int) -> Set:
    """A batch of bytes, classes and coins, as the network sees it in pass `number` (from 0)."""
    x, y, coins = batch
    # One coin a picture for the whole training, turned over from pass to pass.
    mirrored = (coins if number % 2 == 0 else ~coins) & cfg.flip
    moves = torch.randint(-cfg.shift, cfg.shift + 1, (len(x), 2), device=x.device)
    x = augment(to_numbers(x), mirrored, moves)
    side = sides(cfg)[number]
    if side != x.shape[3]:
        x = F.interpolate(x, size=(side, side), mode="bilinear", antialias=True)
    return x, y


def show_pictures(cfg: Config, data: ImageSet, train_set: Set) -> None:
    print("\n[1] A whole batch is mirrored and moved at once")
    no_leak("apart", "no picture stands in two parts", *data.fingerprints())

    still = replace(cfg, flip=True, shift=0, schedule="32:4")
    batch = [part[:32] for part in (*train_set, torch.rand(32) < 0.5)]
    passes = [prepare(still, batch, number)[0] for number in range(4)]
    text = "in any two passes in a row each picture is seen as it is and mirrored"
    check_close("both-ways", text, torch.stack(passes[1:]), torch.stack(passes[:-1]).flip(4))

    x = passes[0][:, :, :24]
    mirrored = torch.arange(32) % 3 == 0
    moves = torch.randint(-3, 4, (32, 2))
    wanted = []
    for picture, flipped, (down, right) in zip(x, mirrored, moves.tolist()):
        picture = picture.flip(2) if flipped else picture
        padded = np.pad(picture, [(0, 0), (3, 3), (3, 3)], mode="reflect")
        wanted.append(padded[:, 3 + down : 27 + down, 3 + right : 35 + right])
    text = "32 pictures at once are the same as mirrored, reflected and cut out one by one"
    check_close("moved", text, augment(x, mirrored, moves), np.stack(wanted))


def whitening_filters(x: Tensor, size: int = 2, eps: float = 1e-4) -> Tensor:
    """Filters whose answers to the patches of x do not vary together, each with variance 1.

    x: (B, C, H, W). Returns (2·C·size², C, size, size); the second half is the first one negated,
    since a GELU keeps but one side. eps, added to the variances, keeps what hardly varies small.
    """
    # practice: directions that do not vary together
    patches = F.unfold(x, size).transpose(1, 2).flatten(0, 1)  # (n, C·size²)
    variances, directions = torch.linalg.eigh(torch.cov(patches.T))

    # Directions are columns; each is divided by the standard deviation along it.
    filters = (directions / (variances + eps).sqrt()).T.reshape(-1, x.shape[1], size, size)
    return torch.cat([filters, -filters])
    # end practice


def show_whitening(cfg: Config, x: Tensor) -> None:
    print("\n[2] A first layer that is computed, not learned")
    pixels = torch.tensor([[3.0, 1], [1, 3], [-3, -1], [-1, -3], [0, 0]])[:, :, None, None]
    filters = whitening_filters(pixels, size=1, eps=0.0)[:, :, 0, 0]
    # Which sign a direction has is left to chance; the second half has the opposite one.
    ours = filters * filters[:2, :1].sign().repeat(2, 1)
    text = "pixels (3, 1), (1, 3), (-3, -1), (-1, -3), (0, 0): (1, -1)/2, (1, 1)/4, their negatives"
    check_close("by-hand", text, ours, [[0.5, -0.5], [0.25, 0.25], [-0.5, 0.5], [-0.25, -0.25]])
    text = "variances 2 and 8 with an eps of 1: filters of the norms 1/√3 and 1/3"
    norms = whitening_filters(pixels, size=1, eps=1.0)[:2].flatten(1).norm(dim=1)
    check_close("eps", text, norms, [3**-0.5, 1 / 3])

    x = to_numbers(x[:500]).double()
    answers = F.conv2d(x, whitening_filters(x, eps=0.0)[:12])
    found = torch.cov(answers.transpose(0, 1).flatten(1))  # (12, 12)
    text = "the covariance of the answers of the first 12 filters is the identity"
    check_close("identity", text, found, torch.eye(12, dtype=torch.float64), atol=1e-6)


class Norm(nn.BatchNorm2d):
    """Batch norm (4.7) with a shift and no scale, over the pictures of all processes."""

    def __init__(self, channels: int):
        super().__init__(channels, eps=1e-12, momentum=0.4)
        self.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or processes.count() == 1:
            return super().forward(x)

        # A mean over the shares of all comes from sums over all; gradients flow through them.
        x = x.to(self.bias.dtype)
        count = x.numel() / x.shape[1] * processes.count()
        mean = processes.Total.apply(x.sum(dim=(0, 2, 3))) / count
        x = x - mean[:, None, None]
        variance = processes.Total.apply(x.square().sum(dim=(0, 2, 3))) / count
        self.running_mean.lerp_(mean.detach(), self.momentum)
        self.running_var.lerp_(variance.detach() * count / (count - 1), self.momentum)
        return x * (variance + self.eps).rsqrt()[:, None, None] + self.bias[:, None, None]


class Net(nn.Module):
    """24 filters, three blocks, each channel's maximum, a linear layer. (B, 3, H, W) -> (B, K)"""

    def __init__(self, widths: list[int], classes: int, precision: str = "float32"):
        super().__init__()
        self.mixed = precision == "bfloat16"
        self.first = nn.Conv2d(3, 24, 2)
        inputs = 24
        layers = []
        for width in widths:
            for following in ([nn.MaxPool2d(2), Norm(width)], [Norm(width)]):
                conv = nn.Conv2d(inputs, width, 3, padding=1, bias=False)
                # The first filters, at most one for each input, begin by passing it on as it is.
                nn.init.dirac_(conv.weight.data[:inputs])
                layers += [conv, *following, nn.GELU()]
                inputs = width
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Linear(inputs, classes, bias=False)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        # Convolutions are faster when the channels of a pixel lie side by side.
        x = x.contiguous(memory_format=torch.channels_last)
        # Mixed precision: what gains by it is computed with half the bits (9.5).
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.mixed):
            x = self.blocks(F.gelu(self.first(x))).amax(dim=(2, 3))
            return self.head(x).to(self.head.weight.dtype)


def make_net(cfg: Config, x: Tensor, classes: int, seed: int) -> Net:
    """A new network; with cfg.whiten its first layer suits pictures like these (bytes)."""
    torch.manual_seed(seed)
    model = Net([int(width) for width in cfg.widths.split(",")], classes, cfg.precision)
    if cfg.whiten:
        x = to_numbers(x[:1000].cpu())
        model.first.weight.data = whitening_filters(x)
        # So that on average it answers 0.
        model.first.bias.data = -F.conv2d(x, model.first.weight).mean(dim=(0, 2, 3))
        model.first.requires_grad_(False)
    return model.to(cfg.torch_device())


def orthogonal(gradient: Tensor, steps: int = 3) -> Tensor:
    """Nearly U·Vᵀ, for a gradient U·S·Vᵀ (rows, columns).

    Newton–Schulz: a·x + b·(x·xᵀ)·x + c·(x·xᵀ)²·x takes a singular value s to a·s + b·s³ + c·s⁵ and
    leaves U and V alone; a, b, c = 3.4445, -4.775, 2.0315. It begins with the gradient divided by
    its norm, so that no s is above 1. Three rounds bring any s from 0.02 on to between 0.68 and
    1.20; 0.001 becomes only 0.041.
    """
    # practice: all directions alike
    x = gradient / (gradient.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T  # (rows, rows): small, for here no matrix has more rows than columns
        x = 3.4445 * x + (-4.775 * gram + 2.0315 * gram @ gram) @ x
    return x
    # end practice


class Muon(torch.optim.Optimizer):
    """SGD with Nesterov's momentum; where a group says so, the step is made orthogonal (9.2)."""

    def __init__(self, groups: list[dict]):
        super().__init__(groups, {"momentum": 0.85, "orthogonal": False})

    @torch.no_grad()
    def step(self) -> None:
        """Orthogonal: for filters (outputs, inputs, height, width). Each set of filters first gets
        the norm √outputs, which the batch norm behind it does not notice."""
        # practice: momentum, then an orthogonal step
        for group in self.param_groups:
            for weights in group["params"]:
                # The mean over processes: each has the mean over its share of the batch.
                gradient = processes.Total.apply(weights.grad) / processes.count()
                momentum = self.state[weights].setdefault("momentum", torch.zeros_like(weights))
                momentum.mul_(group["momentum"]).add_(gradient)
                step = gradient + group["momentum"] * momentum
                if group["orthogonal"]:
                    weights.mul_(len(weights) ** 0.5 / weights.norm())
                    step = orthogonal(step.flatten(1)).view_as(weights)
                weights.sub_(group["lr"] * step)
        # end practice


def pull(slow: nn.Module, model: nn.Module, keep: float) -> None:
    """Lookahead: slow = keep·slow + (1 - keep)·model, then model = slow; batch norms' means too."""
    # practice: back to the average
    for average, weights in zip(slow.state_dict().values(), model.state_dict().values()):
        # A count of batches is no weight.
        if weights.is_floating_point():
            average.lerp_(weights, 1 - keep)
            weights.copy_(average)
    # end practice


def loss_of(cfg: Config, model: nn.Module, batch: Set) -> Tensor:
    """Cross entropy with smoothed labels, of this process's share of the batch."""
    x, y = map(processes.share, batch)
    return F.cross_entropy(model(x), y, label_smoothing=cfg.smoothing)


def make_groups(cfg: Config, model: Net) -> list[dict]:
    """Groups of weights and their rates: one for all, or filters, shifts and last layer apart."""
    filters = [weights for weights in model.blocks.parameters() if weights.ndim == 4]
    shifts = [layer.bias for layer in model.blocks if isinstance(layer, Norm)]
    first = [weights for weights in model.first.parameters() if weights.requires_grad]
    if not cfg.rates:
        return [{"params": [*first, *filters, *shifts, model.head.weight], "lr": cfg.plain_lr}]

    # Jordan's loss is the sum over a batch of 512, ours the mean: 27 is his 0.053 times 512. His
    # logits are divided by the 192 features, ours are not: 1.8 / 192 is his 0.67 times 512 / 192².
    lr = cfg.lr if cfg.muon else cfg.sgd_lr
    return [
        {"params": filters, "lr": lr, "momentum": 0.6, "orthogonal": cfg.muon},
        {"params": shifts, "lr": 27.0},
        {"params": [model.head.weight], "lr": 1.8 / model.head.in_features},
        {"params": first, "lr": cfg.plain_lr},
    ]


def train(cfg: Config, data: Set, seed: int, path: Path | None = None) -> tuple[Net, float]:
    """A trained network, and the seconds it took. With a path --resume goes on after a kill."""
    x, y = (part.to(cfg.torch_device()) for part in data)
    model = make_net(cfg, x, len(y.unique()), seed)
    slow = copy.deepcopy(model)
    coins = torch.rand(len(y), device=x.device) < 0.5
    options = {"batch_size": cfg.batch_size, "seed": seed, "shuffle": True, "drop_last": True}
    batches = Batches(x, y, coins, **options)

    # From the first step on the rates fall to 0 in a straight line (schedules: 9.3).
    steps = len(sides(cfg)) * len(batches)
    optimizer = Muon(make_groups(cfg, model))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)

    def loss_fn(model: nn.Module, batch: tuple) -> Tensor:
        # fit() asks for a loss before each step, and steps the schedule after it.
        step = schedule.last_epoch
        if cfg.average and step % 5 == 0:
            pull(slow, model, keep=0.95**5 * (step / steps) ** 3)
        return loss_of(cfg, model, prepare(cfg, batch, step // len(batches)))

    saved = None
    if path:
        kept = {name: value for name, value in asdict(cfg).items() if name not in FREE}
        parts = {"model": model, "slow": slow, "optimizer": optimizer, "schedule": schedule}
        saved = Checkpoint(path, resume=cfg.resume, settings=kept, batches=batches, **parts)
    start = time.perf_counter()
    options = {"scheduler": schedule, "checkpoint": saved, "quiet": not path}
    fit(model, batches, optimizer, loss_fn, epochs=len(sides(cfg)), **options)
    return model, time.perf_counter() - start


def show_step(cfg: Config, train_set: Set) -> None:
    print("\n[3] An orthogonal step, a pull towards the average")
    gradient = torch.randn(48, 216, dtype=torch.float64)
    u, s, vh = torch.linalg.svd(gradient, full_matrices=False)
    values = torch.cat([s / s.norm(), torch.linspace(0.02, 1, 1000, dtype=torch.float64)])
    for _ in range(3):
        values = 3.4445 * values - 4.775 * values**3 + 2.0315 * values**5
    text = "Newton–Schulz is the SVD with each singular value sent through the polynomial"
    check_close("as-svd", text, orthogonal(gradient), u * values[:48] @ vh, rtol=1e-5)
    text = "three rounds bring singular values from 0.02 to 1 to between 0.68 and 1.20"
    check_close("rounds", text, torch.stack(values[48:].aminmax()), [0.68, 1.20], atol=0.005)

    filters = nn.Parameter(torch.randn(6, 3, 2, 2))
    twin = copy.deepcopy(filters)
    muon = Muon([{"params": [filters], "lr": 0.2, "momentum": 0.6, "orthogonal": True}])
    sgd = torch.optim.SGD([twin], lr=1.0, momentum=0.6, nesterov=True)
    for gradient in torch.randn(3, 6, 3, 2, 2):
        before = [weights.detach().clone() for weights in (filters, twin)]
        for weights, optimizer in ((filters, muon), (twin, sgd)):
            weights.grad = gradient.clone()
            optimizer.step()
    step = orthogonal((before[1] - twin).flatten(1)).view_as(twin)
    text = "Muon's third step: from norm √6, along torch's Nesterov step made orthogonal"
    check_close("muon", text, filters, 6**0.5 * before[0] / before[0].norm() - 0.2 * step)

    slow = nn.BatchNorm1d(1)
    model = copy.deepcopy(slow)
    for value, keep in ((64.0, 0.0), (0.0, 0.75), (16.0, 0.75), (-8.0, 0.75)):
        nn.init.constant_(model.weight, value)
        nn.init.constant_(model.running_mean, value)
        pull(slow, model, keep)
    found = torch.cat([slow.weight, slow.running_mean, model.weight, model.running_mean])
    text = "a batch norm's weight and mean of 64 go to 0, 16, -8, each time pulled: 48, 40, 28"
    check_close("pulled", text, found, [28.0] * 4)

    # With label smoothing no loss comes near 0. A small rate need not fall.
    sharp = replace(cfg, smoothing=0.0, rates=True, muon=True, lr=0.02)
    model = make_net(sharp, train_set[0], 10, cfg.seed)
    muon = Muon(make_groups(sharp, model))
    batch = (to_numbers(train_set[0][:32]), train_set[1][:32])
    loss_fn = functools.partial(loss_of, sharp)
    overfits("overfits", "on 32 pictures Muon brings the loss to {}", model, batch, loss_fn, muon)


def average_views(model: nn.Module, x: Tensor) -> Tensor:
    """The mean of the logits of six views. (B, 3, H, W) -> (B, K)

    As it is, moved by (-1, -1), moved by (1, 1), and each of the three mirrored.
    """
    # practice: look more than once
    shown = [x]
    unmirrored = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for by in (-1, 1):
        shown.append(augment(x, unmirrored, torch.full((len(x), 2), by, device=x.device)))
    shown += [pictures.flip(3) for pictures in shown]
    return torch.stack([model(pictures) for pictures in shown]).mean(dim=0)
    # end practice


@torch.no_grad()
def answer(cfg: Config, model: nn.Module, x: Tensor) -> Tensor:
    """The logits of a trained network for pictures as bytes, 500 at a time: (n, K) on the CPU."""
    model.eval()
    parts = [to_numbers(part.to(cfg.torch_device())) for part in x.split(500)]
    ask = functools.partial(average_views, model) if cfg.views else model
    return torch.cat([ask(part).cpu() for part in parts])


def accuracy(cfg: Config, model: nn.Module, data: Set) -> float:
    predicted = answer(cfg, model, data[0]).argmax(dim=1)
    return (predicted == data[1]).double().mean().item()


def make_ladder(cfg: Config) -> dict[str, Config]:
    """First a plain network; then every rung changes one thing more, to what it is in cfg."""
    rung = {"precision": "float32", "whiten": False, "smoothing": 0.0, "flip": False, "shift": 0}
    rung |= {"rates": False, "muon": False, "schedule": f"32:{cfg.ladder}"}
    rung |= {"average": False, "views": False}
    full = replace(cfg, schedule=f"24:{cfg.ladder // 2},32:{(cfg.ladder + 1) // 2}")
    ladder = {"plain": replace(full, **rung)}
    for idea in tuple(rung):
        rung[idea] = getattr(full, idea)
        ladder[idea] = replace(full, **rung)
    return ladder


def show_ladder(cfg: Config, train_set: Set, val: Set) -> dict[str, float]:
    print(f"\n[4] A ladder of {cfg.ladder} passes a rung; accuracy on validation pictures")
    x = to_numbers(val[0][:50])
    padded = F.pad(x, [1, 1, 1, 1], mode="reflect")
    shown = [x, padded[:, :, :32, :32], padded[:, :, 2:, 2:]]
    shown += [pictures.flip(3) for pictures in shown]
    model = nn.Sequential(nn.Conv2d(3, 10, 32), nn.GELU())
    wanted = torch.stack([model(pictures) for pictures in shown]).mean(dim=0)
    check_close("views", "the mean of the logits of six views", average_views(model, x), wanted)
    if cfg.ladder == 0:
        return {}

    scores = {}
    metrics = {}
    for name, rung in make_ladder(cfg).items():
        # The last rung looks at the pictures again, with the networks of the rung above.
        if name != "views":
            seeds = range(cfg.seed * cfg.runs, (cfg.seed + 1) * cfg.runs)
            models, times = zip(*[train(rung, train_set, seed) for seed in seeds])
        scores[name] = [accuracy(rung, model, val) for model in models]
        found, seconds = np.mean(scores[name]), np.mean(times)
        print(f"    {name:<14}{found:.3f} in {seconds:.1f} s")
        metrics |= {f"ladder_{name}": found, f"ladder_{name}_seconds": seconds}
    draw_ladder(cfg, scores)
    text = "on validation pictures the last rung's accuracy is {} above the first's"
    least = {"shapes-hard": 0.3, "cifar10": 0.1}[cfg.data]
    expect("climbed", text, found - metrics["ladder_plain"], at_least=0.0 if cfg.classes else least)
    return metrics


def show_results(cfg: Config, data: ImageSet, names: list[str], train_set: Set, val: Set) -> dict:
    print(f"\n[5] {cfg.runs} network(s), {len(sides(cfg))} passes each; then the test set, once")
    paths = [cfg.out / f"training-{number}.pt" for number in range(cfg.runs)]
    seeds = range(cfg.seed * cfg.runs, (cfg.seed + 1) * cfg.runs)
    models, times = zip(*[train(cfg, train_set, *each) for each in zip(seeds, paths)])
    on_val = [accuracy(cfg, model, val) for model in models]

    test = choose(data.test(), names, data.classes)
    scores = [accuracy(cfg, model, test) for model in models]
    logits = answer(cfg, models[0], test[0])
    text = "the first network's accuracy on test pictures is {}"
    depends_on_input("input-matters", text, logits.argmax(dim=1), test[1])
    draw_hardest(cfg, test, logits.softmax(dim=1), names)

    simple = simpler_methods(train_set, test)
    mean = float(np.mean(scores))
    metrics = {"accuracy": mean, "spread": np.std(scores), "seconds": np.mean(times)} | simple
    if cfg.baseline:
        metrics |= usual_baseline(cfg, train_set, test)
    text = "the mean accuracy is {} above the best of majority, linear model and 1-NN"
    expect("beside", text, mean - max(simple.values()), at_least=0.1 if cfg.classes else 0.3)
    print(f"  validation {np.round(on_val, 4)}, test {np.round(scores, 4)}, {np.mean(times):.1f} s")
    usual = {"shapes-hard": 0.92, "cifar10": 0.9}[cfg.data]
    least = 0.75 if cfg.classes else usual
    expect("accuracy", "the mean accuracy on test pictures is {}", mean, at_least=least)
    return metrics


# Pictures and helpers: skip on a first reading


def choose(part: tuple, names: list[str], classes: tuple[str, ...]) -> Set:
    """The pictures of these classes; (n, H, W, 3) become (n, 3, H, W) in the same memory."""
    x = torch.from_numpy(part[0]).permute(0, 3, 1, 2)
    return only_kinds(x, torch.from_numpy(part[1]), [classes.index(name) for name in names])


def to_numbers(x: Tensor) -> Tensor:
    return x.float() / 127.5 - 1  # from -1 to 1


def sides(cfg: Config) -> list[int]:
    """24:2,32:1 -> [24, 24, 32]"""
    pairs = re.findall(r"(\d+):(\d+)", cfg.schedule)
    return [int(side) for side, passes in pairs for _ in range(int(passes))]


def settle(cfg: Config, classes: tuple[str, ...]) -> list[str]:
    """Fill in what no flag says, and choose the precision. Returns the names of the classes."""
    for name, value in zip(("widths", "schedule", "batch_size", "pictures"), RECIPES[cfg.data]):
        setattr(cfg, name, getattr(cfg, name) or value)
    if not re.fullmatch(r"([1-9]\d*,){3}(\d\d:[1-9]\d*,)+", f"{cfg.widths},{cfg.schedule},"):
        raise LessonError("Write --widths as in 48,192,192, and --schedule as in 24:5,32:5.")
    names = [name.strip() for name in cfg.classes.split(",")] if cfg.classes else list(classes)
    if len(set(names) & set(classes)) < max(2, len(names)):
        raise LessonError(f"--classes takes two or more of: {', '.join(classes)}.")
    if cfg.batch_size % processes.count():
        raise LessonError(f"--batch-size {cfg.batch_size} cannot be shared by these processes.")
    if cfg.precision == "auto":
        gain = matmul_seconds(cfg, torch.float32) - 1.1 * matmul_seconds(cfg, torch.bfloat16)
        gain = processes.Total.apply(torch.tensor(gain))  # all processes choose alike
        cfg.precision = "bfloat16" if gain > 0 else "float32"
    return names


def matmul_seconds(cfg: Config, dtype: torch.dtype) -> float:
    """What a product of two large matrices takes, at best of five; .item() waits for a GPU."""
    # An older CPU would need minutes for a side of 2048 in bfloat16.
    side = 512 if cfg.torch_device().type == "cpu" else 2048
    a = torch.randn(side, side, device=cfg.torch_device()).to(dtype)
    return min(timeit.repeat("(a @ a)[0, 0].item()", globals={"a": a}, number=1, repeat=5))


def simpler_methods(train_set: Set, test: Set) -> dict[str, float]:
    """The accuracy of what needs no network, from 5,000 pictures at most."""
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import RidgeClassifier
    from sklearn.neighbors import KNeighborsClassifier

    x, new_x = (to_numbers(part[0]).flatten(1).numpy() for part in (train_set, test))
    methods = {"majority": DummyClassifier(), "linear": RidgeClassifier(alpha=1000.0)}
    methods["nearest_neighbour"] = KNeighborsClassifier(1)
    known = (x[:5000], train_set[1][:5000])
    return {name: each.fit(*known).score(new_x, test[1]) for name, each in methods.items()}


def usual_baseline(cfg: Config, train_set: Set, test: Set) -> dict[str, float]:
    """torchvision's ResNet-18 and Adam, on full pictures mirrored by a new coin each time."""
    plain = replace(cfg, schedule="32:1", precision="float32", views=False, smoothing=0.0)
    start = time.perf_counter()
    model = torchvision.models.resnet18(num_classes=len(test[1].unique())).to(cfg.torch_device())
    adam = torch.optim.Adam(model.parameters(), lr=0.001)

    def loss_fn(model: nn.Module, batch: Set) -> Tensor:
        coins = torch.rand(len(batch[1]), device=batch[1].device) < 0.5
        return loss_of(plain, model, prepare(plain, (*batch, coins), 0))

    batches = Batches(*train_set, batch_size=128, shuffle=True, seed=cfg.seed)
    fit(model, batches, adam, loss_fn, epochs=cfg.baseline)
    seconds = time.perf_counter() - start
    return {"resnet18": accuracy(plain, model, test), "resnet18_seconds": seconds}


def draw_ladder(cfg: Config, scores: dict[str, list[float]]) -> None:
    figure, axis = new_figure(size=(9, 5))
    axis.barh(list(scores), [np.mean(each) for each in scores.values()], color=SKY)
    for name, each in scores.items():
        axis.plot(each, [name] * len(each), "o", color=BLUE)
    axis.set(xlim=(0, 1), xlabel="accuracy on validation pictures; bars: means, dots: networks")
    axis.set_title(f"After {cfg.ladder} passes: each bar changes one thing more than the bar above")
    axis.invert_yaxis()
    save_figure(figure, cfg.out / "ladder")


def draw_hardest(cfg: Config, test: Set, chances: Tensor, names: list[str]) -> None:
    """Where the right class got the least probability: some are classified rightly all the same."""
    hardest = chances.gather(1, test[1][:, None]).squeeze(1).argsort()[:12].tolist()
    surest, predicted = chances.max(dim=1)
    titles = [f"is: {names[test[1][i]]}\n→ {names[predicted[i]]}, {surest[i]:.0%}" for i in hardest]
    figure, axes = new_figure(2, 6, size=(10.5, 4.8))
    plot_images(axes, test[0][hardest].permute(0, 2, 3, 1).numpy(), titles)
    figure.suptitle("Lowest probability of the right class; → predicted class, its probability")
    save_figure(figure, cfg.out / "hardest")


def run(cfg: Config) -> dict | None:
    number = processes.start()
    data = load_images(cfg, split_seed=cfg.seed)
    names = settle(cfg, data.classes)
    train_set = choose((data.x_train, data.y_train), names, data.classes)
    train_set = tuple(part[: cfg.pictures] for part in train_set)
    val = choose((data.x_val, data.y_val), names, data.classes)
    show_pictures(cfg, data, train_set)
    show_whitening(cfg, train_set[0])
    show_step(cfg, train_set)
    ladder = show_ladder(cfg, train_set, val)
    metrics = show_results(cfg, data, names, train_set, val) | ladder
    return metrics if number == 0 else None


if __name__ == "__main__":
    main(run, Config, __doc__)
