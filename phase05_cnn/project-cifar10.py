"""Project 5 CIFAR-10: 90 % on two CPU cores
CIFAR-10：两个 CPU 核上的 90%

You will be able to answer
    1. What does the network get to see?     show_pictures   apart, both-ways, moved
    2. What does whitening do to pictures?   show_whitening  by-hand, identity
    3. What happens in one step?             show_step       as-svd, muon, pulled, overfits
    4. What does each idea bring?            show_ladder     views, climbed
    5. How good and how fast, beside what?   show_results    input-matters, beside, accuracy
Predict   linear: pictures of ten shapes, turned at will: what share does a linear model get right?
Run       python phase05_cnn/project-cifar10.py       about two minutes; --help shows the rest
          … --data cifar10      60,000 photographs; --preset long: for 0.93; --classes cat,dog
          torchrun --nproc-per-node=2 phase05_cnn/project-cifar10.py      half of each batch each
Needs     phase05_cnn/14-transfer-learning
Reference torch.linalg.svd, torch.optim.Muon
Notation  B batch  C channels  H W picture  K classes
"""

import copy
import functools
import re
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from common import processes
from common.checkpoint import Checkpoint
from common.checks import check_close, depends_on_input, expect, no_leak, overfits
from common.config import LessonConfig, main, param
from common.data.batches import Batches
from common.data.images import ImageSet, load_images
from common.errors import LessonError
from common.figures import BLUE, new_figure, plot_images, save_figure
from common.lessons import load_lesson
from common.training import fit

only_kinds = load_lesson("phase05_cnn/14-transfer-learning").only_kinds
Set = tuple[Tensor, Tensor]  # pictures as bytes (n, 3, 32, 32), and their classes (n,)

# What may differ when a run is resumed.
FREE = ("preset", "device", "data_dir", "out", "resume", "debug", "views", "ladder", "baseline")
RECIPES = {  # channels of the three blocks; side of the training pictures:passes; batch size
    "shapes-hard": ("16,32,32", "24:2,32:2", 256),
    "cifar10": ("48,192,192", "20:2,24:7,32:6", 512),
}


@dataclass
class Config(LessonConfig):
    data: str = param("shapes-hard", "data set", choices=tuple(RECIPES), long="cifar10")
    classes: str = param("", "only these, as in cat,dog")
    runs: int = param(3, "networks that are trained; the mean counts", tiny=1, long=1)
    widths: str = param("", "channels of the three blocks", tiny="16,32,32", long="64,256,256")
    schedule: str = param("", "side:passes, in turn", tiny="24:2,32:4", long="24:10,32:30")
    batch_size: int = param(0, "pictures in one step", tiny=32, low=0)
    precision: str = param(
        "auto", "auto: the faster", choices=("auto", "float32", "bfloat16"), tiny="float32"
    )
    whiten: bool = param(True, "compute the first layer instead of learning it")
    smoothing: float = param(0.2, "share of a label that is spread over all classes")
    flip: bool = param(True, "mirror every other time")
    shift: int = param(2, "pixels by which a training picture is moved at most", low=0)
    muon: bool = param(True, "make the steps of filters orthogonal")
    lr: float = param(0.15, "first rate of Muon")
    sgd_lr: float = param(0.1, "first rate of everything without Muon")
    average: bool = param(True, "pull the weights towards their average")
    views: bool = param(True, "the mean over six views of a test picture")
    ladder: int = param(2, "passes for each rung of the ladder; 0: none", tiny=1, long=0, low=0)
    baseline: int = param(0, "passes of ResNet-18 with Adam and a DataLoader", low=0)


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
    mirrored = (coins ^ (number % 2 == 1)) & cfg.flip
    moves = torch.randint(-cfg.shift, cfg.shift + 1, (len(x), 2), device=x.device)
    x = augment(to_numbers(x), mirrored, moves)
    side = sides(cfg)[number]
    if side != x.shape[3]:
        x = F.interpolate(x, size=(side, side), mode="bilinear", antialias=True)
    return x, y


def show_pictures(cfg: Config, data: ImageSet, train_set: Set) -> None:
    print("\n[1] A whole batch is mirrored and moved at once")
    no_leak("apart", "no picture stands in two parts", *data.fingerprints())

    still = replace(cfg, shift=0, schedule="32:4")
    batch = [part[:64] for part in (*train_set, torch.rand(64) < 0.5)]
    passes = [prepare(still, batch, number)[0] for number in range(4)]
    text = "in any two passes in a row each picture is seen as it is and mirrored"
    check_close("both-ways", text, torch.stack(passes[1:]), torch.stack(passes[:-1]).flip(4))

    x = passes[0][:, :, :24]
    mirrored = torch.arange(64) % 3 == 0
    moves = torch.randint(-3, 4, (64, 2))
    wanted = []
    for picture, flipped, (down, right) in zip(x, mirrored, moves.tolist()):
        picture = picture.flip(2) if flipped else picture
        padded = np.pad(picture, [(0, 0), (3, 3), (3, 3)], mode="reflect")
        wanted.append(padded[:, 3 + down : 27 + down, 3 + right : 35 + right])
    text = "64 pictures at once are the same as mirrored, reflected and cut out one by one"
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
    pixels = torch.tensor([[3.0, 1.0], [1.0, 3.0], [-3.0, -1.0], [-1.0, -3.0], [0.0, 0.0]])
    filters = whitening_filters(pixels[:, :, None, None], size=1, eps=0.0)[:, :, 0, 0]
    text = "pixels (3, 1), (1, 3), their negatives, (0, 0): filters ±(1, -1)/2 and ±(1, 1)/4"
    ours = filters * filters[:, :1].sign()
    check_close("by-hand", text, ours, [[0.5, -0.5], [0.25, 0.25]] * 2)

    x = to_numbers(x[:500]).double()
    answers = F.conv2d(x, whitening_filters(x, eps=0.0)[:12])
    found = torch.cov(answers.transpose(0, 1).flatten(1))  # (12, 12)
    text = "the covariance of the answers is the identity"
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
    """24 filters, three blocks, each channel's largest number. (B, 3, H, W) -> (B, K)"""

    def __init__(self, widths: list[int], classes: int, precision: str = "float32"):
        super().__init__()
        self.half = precision == "bfloat16"
        self.first = nn.Conv2d(3, 24, 2)
        inputs = 24
        layers = []
        for width in widths:
            for following in ([nn.MaxPool2d(2), Norm(width)], [Norm(width)]):
                conv = nn.Conv2d(inputs, width, 3, padding=1, bias=False)
                # As many filters as there are inputs begin by passing them on as they are.
                nn.init.dirac_(conv.weight.data[:inputs])
                layers += [conv, *following, nn.GELU()]
                inputs = width
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Linear(inputs, classes, bias=False)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        if self.half:
            x = x.contiguous(memory_format=torch.channels_last)
        # Mixed precision: what gains by it is computed with half the bits (9.5).
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.half):
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
    """Nearly U·Vᵀ, for a gradient U·S·Vᵀ (rows, columns): all singular values come near 1.

    Newton–Schulz: a·x + b·(x·xᵀ)·x + c·(x·xᵀ)²·x takes a singular value s to a·s + b·s³ + c·s⁵ and
    leaves U and V alone; a, b, c = 3.4445, -4.775, 2.0315. It begins with the gradient divided by
    its norm, so that no s is above 1.
    """
    # practice: all directions alike
    x = gradient / (gradient.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x + (-4.775 * gram + 2.0315 * gram @ gram) @ x
    return x
    # end practice


class Muon(torch.optim.Optimizer):
    """SGD with Nesterov's momentum; where a group says so, the step is made orthogonal."""

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
    """Of several processes each draws the whole batch, and takes its share."""
    x, y = map(processes.share, batch)
    return F.cross_entropy(model(x), y, label_smoothing=cfg.smoothing)


def make_groups(cfg: Config, model: Net) -> list[dict]:
    """What learns how fast: the filters of the blocks by Muon, the rest by SGD; or all by SGD."""
    if not cfg.muon:
        learned = [weights for weights in model.parameters() if weights.requires_grad]
        return [{"params": learned, "lr": cfg.sgd_lr}]
    filters = [weights for weights in model.blocks.parameters() if weights.ndim == 4]
    shifts = [layer.bias for layer in model.blocks if isinstance(layer, Norm)]
    return [
        {"params": filters, "lr": cfg.lr, "momentum": 0.6, "orthogonal": True},
        {"params": shifts, "lr": 27.0},
        {"params": [model.head.weight], "lr": 1.8 / model.head.in_features},
    ]


def train(cfg: Config, data: Set, seed: int, path: Path | None = None) -> tuple[Net, float]:
    """A trained network, and the seconds it took. With a path --resume goes on after a kill."""
    x, y = (part.to(cfg.torch_device()) for part in data)
    model = make_net(cfg, x, len(y.unique()), seed)
    slow = copy.deepcopy(model)
    coins = torch.rand(len(y), device=x.device) < 0.5
    options = {"batch_size": cfg.batch_size, "seed": seed, "shuffle": True, "drop_last": True}
    batches = Batches(x, y, coins, **options)

    # The rates fall to 0 in a straight line.
    steps = len(sides(cfg)) * len(batches)
    optimizer = Muon(make_groups(cfg, model))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)

    def loss_fn(model: nn.Module, batch: tuple) -> Tensor:
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
    s = s / s.norm()
    for _ in range(3):
        s = 3.4445 * s - 4.775 * s**3 + 2.0315 * s**5
    text = "Newton–Schulz is the SVD with each singular value sent through the polynomial"
    check_close("as-svd", text, orthogonal(gradient), u * s @ vh, rtol=1e-5)

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

    slow = nn.Linear(1, 1, bias=False)
    nn.init.constant_(slow.weight, 64.0)
    model = copy.deepcopy(slow)
    for value in (0.0, 16.0, -8.0):
        nn.init.constant_(model.weight, value)
        pull(slow, model, keep=0.75)
    text = "a weight of 64 that steps to 0, 16, -8 and is pulled back with 3/4: 64, 48, 40, 28"
    check_close("pulled", text, [slow.weight.item(), model.weight.item()], [28.0, 28.0])

    # Unsmoothed: with label smoothing no loss can come near 0.
    sharp = replace(cfg, smoothing=0.0)
    model = make_net(sharp, train_set[0], 10, cfg.seed)
    optimizer = Muon(make_groups(replace(sharp, muon=False), model))
    batch = (to_numbers(train_set[0][:32]), train_set[1][:32])
    loss_fn = functools.partial(loss_of, sharp)
    overfits("overfits", "on 32 pictures the loss falls to {}", model, batch, loss_fn, optimizer)


@torch.no_grad()
def average_views(model: nn.Module, x: Tensor) -> Tensor:
    """The mean of the logits of six views. (B, 3, H, W) -> (B, K)

    As it is, moved by (-1, -1), moved by (1, 1), and each of the three mirrored.
    """
    # practice: look more than once
    shown = [x]
    nobody = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for by in (-1, 1):
        moves = torch.full((len(x), 2), by, device=x.device)
        shown.append(augment(x, nobody, moves))
    shown += [pictures.flip(3) for pictures in shown]
    return torch.stack([model(pictures) for pictures in shown]).mean(dim=0)
    # end practice


@torch.no_grad()
def answer(cfg: Config, model: nn.Module, x: Tensor) -> Tensor:
    """What a trained network says to pictures as bytes, 500 at a time: (n, K) on the CPU."""
    model.eval()
    parts = [to_numbers(part.to(cfg.torch_device())) for part in x.split(500)]
    ask = functools.partial(average_views, model) if cfg.views else model
    return torch.cat([ask(part).cpu() for part in parts])


def accuracy(cfg: Config, model: nn.Module, data: Set) -> float:
    predicted = answer(cfg, model, data[0]).argmax(dim=1)
    return (predicted == data[1]).double().mean().item()


def make_ladder(cfg: Config) -> dict[str, Config]:
    """First a plain network; then every rung adds one idea, as cfg has it, to those above it."""
    rung = {"precision": "float32", "whiten": False, "smoothing": 0.0, "flip": False, "shift": 0}
    rung |= {"muon": False, "schedule": f"32:{cfg.ladder}", "average": False, "views": False}
    small = cfg.ladder // 2
    full = replace(cfg, schedule=f"24:{small},32:{cfg.ladder - small}")
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

    metrics = {}
    for name, rung in make_ladder(cfg).items():
        # The last rung looks at the pictures again, with the network of the rung above.
        if name != "views":
            model, seconds = train(rung, train_set, cfg.seed)
        found = accuracy(rung, model, val)
        print(f"    {name:<14}{found:.3f} in {seconds:.1f} s")
        metrics |= {f"ladder_{name}": found, f"ladder_{name}_seconds": seconds}
    draw_ladder(cfg, metrics)
    text = "with all ideas {} more of the validation pictures are named rightly than with none"
    expect("climbed", text, found - metrics["ladder_plain"], at_least=0.1)
    return metrics


def show_results(cfg: Config, data: ImageSet, names: list[str], train_set: Set, val: Set) -> dict:
    print(f"\n[5] {cfg.runs} network(s), {len(sides(cfg))} passes each; then the test set, once")
    trained = []
    for number in range(cfg.runs):
        path = cfg.out / f"training-{number}.pt"
        trained.append(train(cfg, train_set, cfg.seed * cfg.runs + number, path))
    models, times = zip(*trained)
    metrics = {"val_accuracy": float(np.mean([accuracy(cfg, model, val) for model in models]))}
    metrics["seconds"] = float(np.mean(times))
    metrics["throughput"] = len(train_set[1]) * len(sides(cfg)) / metrics["seconds"]
    print("  validation {val_accuracy:.4f}, {seconds:.1f} s each".format(**metrics))

    test = choose(data.test(), names, data.classes)
    scores = [accuracy(cfg, model, test) for model in models]
    logits = answer(cfg, models[0], test[0])
    text = "the first network names {} of the test pictures rightly"
    depends_on_input("input-matters", text, logits.argmax(dim=1), test[1])
    draw_hardest(cfg, test, logits.softmax(dim=1), names)

    simple = simpler_methods(train_set, test)
    mean = float(np.mean(scores))
    metrics |= simple | {"accuracy": mean, "spread": float(np.std(scores))}
    if cfg.baseline:
        metrics |= usual_baseline(cfg, train_set, test)
    text = "{} more than the best of majority, linear model and nearest neighbour"
    expect("beside", text, mean - max(simple.values()), at_least=0.1 if cfg.classes else 0.3)
    print(f"  network by network {np.round(scores, 4)}")
    wanted = 0.93 if cfg.preset == "long" else 0.9
    wanted = 0.75 if cfg.classes else wanted
    expect("accuracy", "the mean accuracy on test pictures is {}", mean, at_least=wanted)
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
    widths, schedule, batch_size = RECIPES[cfg.data]
    cfg.widths = cfg.widths or widths
    cfg.schedule = cfg.schedule or schedule
    cfg.batch_size = cfg.batch_size or batch_size
    if not re.fullmatch(r"([1-9]\d*,){3}(\d\d:[1-9]\d*,)+", f"{cfg.widths},{cfg.schedule},"):
        raise LessonError("Write --widths as in 48,192,192, and --schedule as in 24:5,32:5.")
    names = [name.strip() for name in cfg.classes.split(",")] if cfg.classes else list(classes)
    if len(set(names) & set(classes)) < max(2, len(names)):
        raise LessonError(f"--classes takes two or more of: {', '.join(classes)}.")
    if cfg.batch_size % processes.count():
        raise LessonError(f"--batch-size {cfg.batch_size} cannot be shared by these processes.")
    if cfg.precision == "auto":
        gain = matmul_rate(cfg, "bfloat16") - 1.1 * matmul_rate(cfg, "float32")
        gain = processes.Total.apply(torch.tensor(gain))  # all processes choose alike
        cfg.precision = "bfloat16" if gain > 0 else "float32"
    return names


def matmul_rate(cfg: Config, precision: str) -> float:
    """Products and sums a second when large matrices are multiplied; the median of five times."""
    width = 256 if cfg.tiny else 2048
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
    a = torch.randn(width, width, device=cfg.torch_device()).to(kind)
    times = []
    for _ in range(6):
        start = time.perf_counter()
        # .item() waits until a GPU is done.
        (a @ a)[0, 0].item()
        times.append(time.perf_counter() - start)
    return 2 * width**3 / float(np.median(times[1:]))


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
    """torchvision's ResNet-18, Adam, and a DataLoader that gets each picture through Pillow."""
    ways = [v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip(), v2.ToImage()]
    change = v2.Compose([*ways, v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5], [0.5])])

    def collate(batch: list) -> Set:
        x = [change(Image.fromarray(picture.permute(1, 2, 0).numpy())) for picture, _ in batch]
        return torch.stack(x), torch.stack([y for _, y in batch])

    start = time.perf_counter()
    model = torchvision.models.resnet18(num_classes=len(test[1].unique()))
    adam = torch.optim.Adam(model.to(cfg.torch_device()).parameters(), lr=0.001)
    loader = DataLoader(list(zip(*train_set)), 128, shuffle=True, collate_fn=collate)
    plain = replace(cfg, precision="float32", views=False, smoothing=0.0)
    fit(model, loader, adam, functools.partial(loss_of, plain), epochs=cfg.baseline)
    seconds = {"resnet18_seconds": time.perf_counter() - start}
    return seconds | {"resnet18": accuracy(plain, model, test)}


def draw_ladder(cfg: Config, metrics: dict[str, float]) -> None:
    names = [name for name in metrics if not name.endswith("seconds")]
    figure, axis = new_figure(size=(9, 5))
    bars = axis.barh(range(len(names)), [metrics[name] for name in names], color=BLUE)
    labels = [f"{metrics[name]:.3f} in {metrics[name + '_seconds']:.0f} s" for name in names]
    axis.bar_label(bars, labels, padding=4)
    ideas = [name.removeprefix("ladder_") for name in names]
    title = f"Accuracy on validation pictures after {cfg.ladder} passes; each line adds one idea"
    axis.set(yticks=range(len(names)), yticklabels=ideas, xlim=(0, 1.2), title=title)
    axis.invert_yaxis()
    save_figure(figure, cfg.out / "ladder")


def draw_hardest(cfg: Config, test: Set, chances: Tensor, names: list[str]) -> None:
    """Where the right answer got the least probability: mistakes, and nearly mistakes."""
    hardest = chances.gather(1, test[1][:, None]).squeeze(1).argsort()[:12].tolist()
    surest, said = chances.max(dim=1)
    titles = [f"{names[test[1][i]]}\nsaid: {names[said[i]]} {surest[i]:.0%}" for i in hardest]
    figure, axes = new_figure(2, 6, size=(10.5, 4.8))
    plot_images(axes, test[0][hardest].permute(0, 2, 3, 1).numpy(), titles)
    figure.suptitle("The hardest test pictures: what it is, and what the network says")
    save_figure(figure, cfg.out / "hardest")


def run(cfg: Config) -> dict | None:
    number = processes.start()
    data = load_images(cfg, split_seed=cfg.seed)
    names = settle(cfg, data.classes)
    train_set = choose((data.x_train, data.y_train), names, data.classes)
    val = choose((data.x_val, data.y_val), names, data.classes)
    show_pictures(cfg, data, train_set)
    show_whitening(cfg, train_set[0])
    show_step(cfg, train_set)
    metrics = show_ladder(cfg, train_set, val) | show_results(cfg, data, names, train_set, val)
    return metrics if number == 0 else None


if __name__ == "__main__":
    main(run, Config, __doc__)
