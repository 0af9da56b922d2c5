"""Project 3 MNIST: a digit reader from the data to a page you can draw on
手写数字识别：从数据一直做到一个可以动笔的网页

You will be able to answer
    1. Are the three parts apart?     show_data      apart
    2. What does it see?              show_batches   unaltered, plain, shuffled, shift, lean, size
    3. How good, beside others?       show_results   overfits, input-matters, accuracy
    4. Does a drawing arrive whole?   show_drawings  saved, placement, from-png, others
    5. What does it say to no digit?  show_refusals  softmax, textures, letters
Predict   shrunk: digits stand off the middle of a sheet, shrunk to 28x28. What share is read right?
Run       python phase03_pytorch/project-mnist.py             about a minute; --help shows the rest
          … --predict FILE.png     read one picture with the trained model
          … --serve                draw digits in the browser
          … --data mnist           all 70,000 digits; --preset quick takes seconds, for 0.99
Needs     phase03_pytorch/09-training-loop
Reference -
Notation  B batch size  H, W height and width (28)  C classes (10)
"""

import functools
import io
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from common import checkpoint, web
from common.checks import check, check_close, depends_on_input, expect, no_leak, overfits
from common.config import LessonConfig, main, param
from common.data.batches import Batches
from common.data.images import ImageSet, load_images, open_picture
from common.errors import LessonError
from common.figures import new_figure, plot_confusion, plot_curves, plot_images, save_figure
from common.lessons import ROOT, load_lesson
from common.training import evaluate, fit

accuracy = load_lesson("phase03_pytorch/09-training-loop").accuracy

PAGE = ROOT / "phase03_pytorch" / "project-mnist.html"
TRAIN_IT = "Train it first: leave out --predict and --serve."
SMOOTHING = 0.05  # share of the label that all ten classes divide among them
# Held-out accuracy that a run must reach; the third is from the reports of others.
WANTED = {"mnist-5k": 0.98, "mnist": 0.995, "fashion-mnist": 0.88}


@dataclass
class Config(LessonConfig):
    data: str = param("mnist-5k", "data set", choices=("mnist-5k", "mnist", "fashion-mnist"))
    splits: int = param(3, "how many random splits to train on; the mean counts", tiny=1, quick=1)
    epochs: int = param(0, "passes; 0: 30 for mnist-5k, else 12", tiny=3, quick=1, low=0)
    width: int = param(24, "channels of the first convolution", tiny=8, quick=16)
    batch_size: int = param(128, "pictures in one step", tiny=32, quick=192)
    lr: float = param(0.01, "highest learning rate of the one-cycle schedule", quick=0.03)
    augment: bool = param(True, "move and bend the training pictures a little", quick=False)
    simple: int = param(5000, "pictures that the simpler methods train on", tiny=100, low=100)
    drawings: int = param(200, "validation digits read back as drawings", tiny=10, low=10)
    predict: Path | None = param(None, "read this PNG with the trained model")
    serve: bool = param(False, "open a page to draw on, with the trained model")
    port: int = param(8000, "port of that page on this machine; 0 takes any free one", low=0)


# 1. The data


def show_data(cfg: Config) -> list[ImageSet]:
    print("\n[1] One part to learn from, one to choose by, one to report")
    sets = [load_images(cfg, split_seed=cfg.seed + split) for split in range(cfg.splits)]
    # Fingerprints of the pictures: the test set itself stays unread until the end.
    train, validation, test = sets[0].fingerprints()
    no_leak("apart", "no picture stands in two parts", train, validation, test)
    return sets


# 2. What the network gets to see


def to_tensors(x: np.ndarray, y: np.ndarray) -> tuple[Tensor, Tensor]:
    """Pictures and labels as the network takes them.

    x: (n, 28, 28) bytes, y: (n,) class numbers. Returns float32 (n, 1, 28, 28) from 0 to 1, whose
    second axis is the channel, and y as int64.
    """
    # practice: bytes become numbers from 0 to 1
    pictures = torch.from_numpy(x).float() / 255
    return pictures.unsqueeze(1), torch.from_numpy(y).long()
    # end practice


def jitter(x: Tensor) -> Tensor:
    """Every picture of a batch moved and bent a little, each in its own way. (B, 1, H, W)

    Drawn evenly for each picture: a turn within ±10°, a scale within ±10 %, a slant within ±0.15,
    a shift within ±2 pixels of the old picture on each axis.
    """
    # practice: every picture a little different, every time
    draw = 2 * torch.rand(5, len(x), device=x.device) - 1  # five numbers from -1 to 1 a picture
    angle = torch.deg2rad(10 * draw[0])
    scale = 1 + 0.1 * draw[1]
    slant = 0.15 * draw[2]
    # The grid runs from -1 to 1, so that one of 28 pixels is 2/28 of it.
    right = 2 * draw[3] * 2 / 28
    down = 2 * draw[4] * 2 / 28

    # Two rows of an affine map: where in the old picture each point of the new one is looked up.
    first = torch.stack([angle.cos() / scale, slant - angle.sin() / scale, right], dim=1)
    second = torch.stack([angle.sin() / scale, angle.cos() / scale, down], dim=1)
    maps = torch.stack([first, second], dim=1)  # (B, 2, 3)

    grid = F.affine_grid(maps, list(x.shape), align_corners=False)  # (B, H, W, 2)
    return F.grid_sample(x, grid, align_corners=False)
    # end practice


def make_batches(cfg: Config, data: ImageSet, seed: int) -> tuple[Batches, Batches]:
    """The batches to train on and those to validate by, both of (x, y) as to_tensors gives them.

    Training: cfg.batch_size, shuffled with `seed`, the last incomplete batch left out, and with
    `jitter` as its transform if cfg.augment. Validation: 1,000 at a time, in order, as they are.
    """
    # practice: only what is trained on is altered
    training = Batches(
        *to_tensors(data.x_train, data.y_train),
        batch_size=cfg.batch_size,
        shuffle=True,
        seed=seed,
        drop_last=True,
        transform=jitter if cfg.augment else None,
    )
    validation = Batches(*to_tensors(data.x_val, data.y_val), batch_size=1000)
    return training, validation
    # end practice


def show_batches(cfg: Config, data: ImageSet) -> None:
    print("\n[2] Training pictures are moved and bent, the others reach the network as they are")
    seen = torch.cat([x for x, _ in make_batches(cfg, data, cfg.seed)[1]])
    wanted = data.x_val[:, None].astype(np.float32) / 255
    check_close("unaltered", "validation pictures arrive as they are, from 0 to 1", seen, wanted)

    # Numbers in place of labels tell which of 250 pictures stands where.
    numbered = replace(data, x_train=data.x_train[:250], y_train=np.arange(250))
    still = replace(cfg, augment=False, batch_size=100)
    batches = list(make_batches(still, numbered, cfg.seed)[0])
    number = torch.cat([y for _, y in batches])
    mixed = len(number.unique()) == len(number) == 200 and bool((number.diff() < 0).any())
    check("shuffled", "250 pictures make two batches of 100, shuffled, and no picture twice", mixed)
    text = "with --no-augment training pictures too arrive as they are"
    wanted = numbered.x_train[number, None].astype(np.float32) / 255
    check_close("plain", text, torch.cat([x for x, _ in batches]), wanted)

    # One bar a thousand times in a single batch: what tells them apart is jitter's doing.
    bar = np.zeros((1000, 28, 28), dtype=np.uint8)
    bar[:, 6:22, 13:15] = 255
    bars = replace(data, x_train=bar, y_train=np.zeros(1000, dtype=np.int64))
    moved, _ = make_batches(replace(cfg, augment=True, batch_size=1000), bars, cfg.seed)
    x, _ = next(iter(moved))
    # What is even within ±a has a standard deviation of a/√3.
    size, right, down, lean = measure_bars(x).std(dim=0)
    text = "in one batch the same bar moves: standard deviation {} pixels (2/√3 = 1.15)"
    check("shift", text, (right + down) / 2, above=1.06, below=1.26)
    text = "it leans by its turn and its slant: standard deviation {}° (√(10² + 8.5²)/√3 = 7.6)"
    check("lean", text, lean, above=6.9, below=8.3)
    text = "its size differs: standard deviation {} of its own (0.1/√3 = 0.058)"
    check("size", text, size / 32**0.5, above=0.05, below=0.067)


def measure_bars(x: Tensor) -> Tensor:
    """Size, place to the right, place down, lean in degrees. (B, 1, 28, 28) -> (B, 4)"""
    ink = x[:, 0]
    mass = ink.sum(dim=(1, 2))
    place = torch.arange(28.0)
    right = ink.sum(dim=1) @ place / mass
    down = ink.sum(dim=2) @ place / mass
    # However it was moved, the bar crosses rows 9 and 17: how many columns apart?
    crossed = ink[:, [9, 17]]
    columns = crossed @ place / crossed.sum(dim=2)  # (B, 2)
    lean = torch.rad2deg((columns.diff()[:, 0] / 8).atan())
    return torch.stack([mass.sqrt(), right, down, lean], dim=1)


# 3. The network, and how good it is


class DigitNet(nn.Module):
    """Three convolutions and one linear layer. (B, 1, 28, 28) -> (B, 10) logits."""

    def __init__(self, width: int):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, width, 5, stride=2, bias=False),  # (B, width, 12, 12)
            nn.MaxPool2d(2),  # (B, width, 6, 6): early, so that the rest is cheap
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, padding=1, bias=False),  # (B, 2·width, 6, 6)
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.Conv2d(2 * width, 4 * width, 3, bias=False),  # (B, 4·width, 4, 4)
            nn.BatchNorm2d(4 * width),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.head = nn.Linear(4 * width * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


def cross_entropy(model: nn.Module, batch: tuple, smoothing: float = SMOOTHING) -> Tensor:
    """Label smoothing: a model that is sure enough is left alone (lesson 3.5 derives it)."""
    x, y = batch
    return F.cross_entropy(model(x), y, label_smoothing=smoothing)


def train_one(cfg: Config, data: ImageSet, split: int) -> tuple[DigitNet, list[dict]]:
    """Train on one split; returns the model, and one line of numbers an epoch."""
    torch.manual_seed(cfg.seed + split)
    model = DigitNet(cfg.width).to(cfg.torch_device(), memory_format=torch.channels_last)
    training, validation = make_batches(cfg, data, cfg.seed + split)
    epochs = cfg.epochs or (30 if cfg.data == "mnist-5k" else 12)

    # One cycle: the rate rises to cfg.lr over a fifth of all steps, then falls to nothing.
    optimizer = torch.optim.AdamW(model.parameters(), lr=cfg.lr)
    steps = epochs * len(training)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, cfg.lr, steps, pct_start=0.2)

    # After a kill, --resume goes on from here, if these settings are the same.
    names = ("tiny", "data", "seed", "width", "batch_size", "lr", "augment")
    settings = {name: getattr(cfg, name) for name in names} | {"epochs": epochs}
    path = cfg.out / f"training-{split}.pt"
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule, "batches": training}
    saved = checkpoint.Checkpoint(path, resume=cfg.resume, settings=settings, **parts)

    def validate(model: nn.Module) -> dict[str, float]:
        return {"val_accuracy": evaluate(model, validation, accuracy)["accuracy"]}

    settled = {"scheduler": schedule, "checkpoint": saved, "evaluate_fn": validate}
    history = fit(model, training, optimizer, cross_entropy, epochs=epochs, **settled)
    return model, history


@torch.no_grad()
def probabilities(model: nn.Module, x: Tensor) -> Tensor:
    """What the model says to pictures it is not trained on. (n, 1, 28, 28) -> (n, 10) on the CPU

    Rows sum to 1; none depends on the pictures beside it. The model's own device gets 1,000 at a
    time, so that any number of them fits into memory.
    """
    # practice: ask without training
    model.eval()
    device = next(model.parameters()).device
    parts = [model(part.to(device)).softmax(dim=1).cpu() for part in x.split(1000)]
    return torch.cat(parts)
    # end practice


def simpler_methods(cfg: Config, data: ImageSet, x_test: Tensor, y_test: Tensor) -> dict:
    """The accuracy of what needs no network, on the same split."""
    from sklearn.linear_model import LogisticRegression

    x, y = to_tensors(data.x_train[: cfg.simple], data.y_train[: cfg.simple])
    x = x.flatten(1)  # (n, 784)
    x_test = x_test.flatten(1)
    linear = LogisticRegression(C=0.1, max_iter=500).fit(x.numpy(), y.numpy())
    nearest = torch.cdist(x_test, x).argmin(dim=1)  # (n,) the closest training picture
    right = share(y[nearest] == y_test)
    return {"linear": linear.score(x_test.numpy(), y_test.numpy()), "nearest_neighbour": right}


def share(right: Tensor) -> float:
    return right.double().mean().item()


def show_results(cfg: Config, sets: list[ImageSet]) -> tuple[DigitNet, dict]:
    print(f"\n[3] Train on {cfg.splits} split(s), then look at each test set once")
    show_one_batch(cfg, sets[0])
    label = torch.tensor([1 - 0.9 * SMOOTHING] + 9 * [SMOOTHING / 10])
    floor = torch.special.entr(label).sum()
    print(f"  with smoothed labels train_loss cannot fall below {floor:.3f}")

    errors: dict[str, list[float]] = {}
    truths: list[Tensor] = []
    answers: list[Tensor] = []
    for split, data in enumerate(sets):
        print(f"  split {split + 1}")
        model, history = train_one(cfg, data, split)
        errors[f"split {split + 1}"] = [max(1 - row["val_accuracy"], 1e-4) for row in history]
        x, y = to_tensors(*data.test())
        chances = probabilities(model, x)
        truths.append(y)
        answers.append(chances.argmax(dim=1))
        if split == 0:
            first = model
            # Before anything is judged: a run that misses its target keeps its model.
            checkpoint.save(cfg.out / "model.pt", to_state(cfg, model, data))
            simple = simpler_methods(cfg, data, x, y)
            draw_hardest(cfg, data, x, y, chances)

    text = "the first model reads {} of its test set right"
    depends_on_input("input-matters", text, answers[0], truths[0])
    beside = "  ".join(f"{name.replace('_', ' ')} {score:.3f}" for name, score in simple.items())
    print(f"  on the same pictures: {beside}")
    scores = [share(said == truth) for said, truth in zip(answers, truths)]
    mean = float(np.mean(scores))
    print(f"  this network, split by split: {np.round(scores, 4)}, ±{np.std(scores):.4f}")
    wanted = 0.99 if (cfg.data, cfg.preset) == ("mnist", "quick") else WANTED[cfg.data]
    expect("accuracy", "the mean accuracy on held-out pictures is {}", mean, at_least=wanted)
    draw_summary(cfg, errors, truths, answers, data.classes)
    return first, simple | {"accuracy": mean, "spread": float(np.std(scores)), "val_error": errors}


def show_one_batch(cfg: Config, data: ImageSet) -> None:
    torch.manual_seed(cfg.seed)
    model = DigitNet(cfg.width)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    batch = to_tensors(data.x_train[:32], data.y_train[:32])
    text = f"on 32 fixed pictures the loss falls from near ln 10 = {np.log(10):.2f} to {{}}"
    # Unsmoothed: with label smoothing no loss can come near 0.
    loss = functools.partial(cross_entropy, smoothing=0.0)
    overfits("overfits", text, model, batch, loss, optimizer, steps=25)


# 4. From a drawing to the network


def on_paper(picture: Image.Image) -> np.ndarray:
    """Any picture as grey bytes (H, W); what is transparent is white paper."""
    picture = picture.convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    return np.asarray(Image.alpha_composite(white, picture).convert("L"))


def like_mnist(grey: np.ndarray) -> np.ndarray:
    """Any drawing as the makers of MNIST would have stored it.

    grey: (H, W) bytes, any size, dark on light or light on dark; the median of its border is the
    paper. Returns (28, 28) bytes: paper 0, darkest ink 255, what is fainter than a fifth of that 0.
    The longer side of the ink is 20 pixels; its centre of mass is at row 14, column 14, as nearly
    as whole pixels allow. Raises LessonError where nothing differs from the paper by 40 or more.
    """
    # practice: what the network was trained on, from any drawing
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    ink = np.abs(grey.astype(np.float32) - np.median(border))
    if ink.max() < 40:
        raise LessonError("there is nothing drawn. Draw a digit, dark on light or light on dark.")

    # Paper is never quite even: faint spots must not stretch the box.
    ink *= 255 / ink.max()
    ink[ink < 51] = 0
    rows = np.flatnonzero(ink.any(axis=1))
    columns = np.flatnonzero(ink.any(axis=0))
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]

    scale = 20 / max(ink.shape)
    height = max(1, round(scale * ink.shape[0]))
    width = max(1, round(scale * ink.shape[1]))
    small = np.asarray(Image.fromarray(ink).resize((width, height), Image.Resampling.BOX))

    y = small.sum(axis=1) @ np.arange(height) / small.sum()
    x = small.sum(axis=0) @ np.arange(width) / small.sum()
    top = int(np.clip(round(14 - y), 0, 28 - height))
    left = int(np.clip(round(14 - x), 0, 28 - width))
    canvas = np.zeros((28, 28), dtype=np.uint8)
    canvas[top : top + height, left : left + width] = small
    return canvas
    # end practice


def distance(x: Tensor, known: Tensor) -> Tensor:
    """How far the nearest of `known` is: (m, 196), training pictures at half size. -> (n,)"""
    # At half size a stroke that lies one pixel aside counts less.
    return torch.cdist(F.avg_pool2d(x, 2).flatten(1), known).amin(dim=1)


def greyness(x: Tensor) -> Tensor:
    """The share of the ink, above 0.05, that is not full: a pen leaves only edges grey. -> (n,)"""
    ink = (x > 0.05).flatten(1).sum(dim=1)
    full = (x > 0.8).flatten(1).sum(dim=1)
    return 1 - full / ink.clamp_min(1)


def strangeness(x: Tensor, known: Tensor) -> Tensor:
    return torch.stack([distance(x, known), greyness(x)], dim=1)  # (n, 2)


def to_state(cfg: Config, model: DigitNet, data: ImageSet) -> dict:
    """All that reading a picture takes, as tensors and plain values for the file."""
    train, _ = to_tensors(data.x_train[:5000], data.y_train[:5000])
    known = F.avg_pool2d(train, 2).flatten(1)
    # One in 200 validation pictures exceeds such a quantile; 5 % more, for 500 fix it but roughly.
    validation, _ = to_tensors(data.x_val[:1000], data.y_val[:1000])
    limits = 1.05 * strangeness(validation, known).quantile(0.995, dim=0)
    return {
        "model": {name: value.cpu() for name, value in model.state_dict().items()},
        "width": cfg.width,
        "known": known,
        "limits": limits,
        "classes": list(data.classes),
    }


class Reader:
    """A trained model from its file, with a sense of what it was trained on."""

    def __init__(self, path: Path):
        if not path.exists():
            raise LessonError(f"{path.parent} holds no model yet. {TRAIN_IT}")
        state = checkpoint.load(path)
        try:
            self.model = DigitNet(state["width"])
            self.model.load_state_dict(state["model"])
            self.known = state["known"]
            self.limits = state["limits"]
            self.classes = state["classes"]
        except (KeyError, TypeError, RuntimeError):
            raise LessonError(f"{path} holds another model. {TRAIN_IT}") from None

    def read(self, drawings: list[np.ndarray]) -> tuple[Tensor, Tensor]:
        """n grey drawings of any size -> probabilities (n, 10), and which look familiar (n,)."""
        pictures = np.stack([like_mnist(drawing) for drawing in drawings])
        x, _ = to_tensors(pictures, np.zeros(len(pictures)))
        familiar = (strangeness(x, self.known) <= self.limits).all(dim=1)
        return probabilities(self.model, x), familiar


def on_a_sheet(digit: np.ndarray, height=400, width=340, top=200, left=30, shade=20) -> np.ndarray:
    """A digit six times as large on a white sheet, its right side a little in the shade."""
    ink = np.zeros((height, width))
    ink[top : top + 168, left : left + 168] = np.kron(digit / 255, np.ones((6, 6)))
    return (np.linspace(255, 255 - shade, width) * (1 - ink)).astype(np.uint8)


def show_drawings(cfg: Config, model: DigitNet, data: ImageSet) -> tuple[Reader, dict]:
    print("\n[4] The model from its file reads a drawing: any size, any place, any polarity")
    reader = Reader(cfg.out / "model.pt")
    digits = data.x_val[: cfg.drawings]
    x, y = to_tensors(digits, data.y_val[: cfg.drawings])
    at_once = model.cpu().eval()(x[:50]).softmax(dim=1).detach()
    alone = torch.cat([probabilities(reader.model, picture[None]) for picture in x[:50]])
    text = "from the file, one picture at a time, it gives the same probabilities as in memory"
    check_close("saved", text, alone, at_once)

    sheets = [on_a_sheet(digit) for digit in digits]
    Image.fromarray(sheets[0]).save(cfg.out / "sample.png")
    # Every second one light on dark, as on a blackboard.
    boards = [sheet if i % 2 else 255 - sheet for i, sheet in enumerate(sheets)]
    back = np.stack([like_mnist(board) for board in boards])
    text = "an enlarged and moved digit comes back; a pixel differs by {} of 255 grey levels"
    check("placement", text, np.abs(back - digits.astype(float)).mean(), below=6)

    chances, familiar = reader.read(sheets)
    right = share(familiar & (chances.argmax(dim=1) == y))
    text = f"the share of {len(y)} validation digits on sheets, familiar and read right, is {{}}"
    expect("from-png", text, right, at_least=0.95)
    return reader, show_shrunk(reader, digits, y) | show_others(cfg, reader)


def show_shrunk(reader: Reader, digits: np.ndarray, y: Tensor) -> dict:
    print("  Sheets that are only shrunk to 28x28, with one cause after the other taken away:")
    layouts = {
        "shrunk": {},
        "shrunk_no_shade": {"shade": 0},
        "shrunk_in_the_middle": {"shade": 0, "top": 116, "left": 86},
        "shrunk_from_a_square": {"shade": 0, "top": 86, "left": 86, "height": 340},
        "shrunk_full": {"shade": 0, "top": 0, "left": 0, "height": 168, "width": 168},
    }
    shares = {}
    for name, layout in layouts.items():
        sheets = [Image.fromarray(255 - on_a_sheet(digit, **layout)) for digit in digits]
        small = np.stack([np.asarray(sheet.resize((28, 28))) for sheet in sheets])
        x, _ = to_tensors(small, y.numpy())
        shares[name] = share(probabilities(reader.model, x).argmax(dim=1) == y)
        print(f"    {name.replace('_', ' '):<24}{shares[name]:.3f} read right")
    return shares


def show_others(cfg: Config, reader: Reader) -> dict:
    """Digits of other writers, stored as 8x8 pixels of 0 to 16, smoothly enlarged."""
    from sklearn.datasets import load_digits

    others = load_digits()
    papers = (255 - others.images[: cfg.drawings] * (255 / 16)).astype(np.uint8)
    large = [np.asarray(Image.fromarray(paper).resize((200, 200))) for paper in papers]
    chances, familiar = reader.read(large)
    right = share(chances.argmax(dim=1) == torch.from_numpy(others.target[: cfg.drawings]))
    text = f"the share read right of {len(large)} digits from another collection is {{}}"
    expect("others", text, right, at_least=0.85)
    refused = 1 - share(familiar)
    print(f"  but {refused:.3f} of them are refused: so far enlarged, their strokes are grey")
    return {"others_right": right, "others_refused": refused}


# 5. What is no digit


def show_refusals(cfg: Config, reader: Reader, data: ImageSet) -> dict:
    print("\n[5] A classifier names a digit in anything; the reader first asks if it is familiar")
    noise = cfg.rng().integers(0, 256, (cfg.drawings // 10, 64, 64), dtype=np.uint8)
    chances, familiar = reader.read(list(noise))
    surest = chances.amax(dim=1)
    print(f"  in noise it sees a digit, {surest.min():.0%} to {surest.max():.0%} sure")

    # A limit by the same rule: one in 200 validation pictures is less sure.
    x, _ = to_tensors(data.x_val[:1000], data.y_val[:1000])
    limit = probabilities(reader.model, x).amax(dim=1).quantile(0.005)
    text = f"the share of noises that a softmax limit of {limit:.2f} refuses is {{}}"
    expect("softmax", text, share(surest < limit), at_most=0.5)
    text = "the share that the reader refuses is {}: noise is grey where a pen is black"
    expect("textures", text, 1 - share(familiar), at_least=0.95)

    # Without those that could be digits: I, O, S, Z.
    names = "ABCDEFGHJKLMNPQRTUVWXY+×?&#@♥☺▲★→"
    _, familiar = reader.read([draw_sign(name) for name in names])
    print(f"  familiar to it are {' '.join(sign for sign, known in zip(names, familiar) if known)}")
    text = f"so the share of {len(names)} printed letters and signs that it refuses is only {{}}"
    expect("letters", text, 1 - share(familiar), at_most=0.6)
    return {"letters_refused": 1 - share(familiar)}


def predict(cfg: Config) -> None:
    """Read one PNG. Raises LessonError when nothing on it looks like a digit."""
    reader = Reader(cfg.out / "model.pt")
    chances, familiar = reader.read([on_paper(open_picture(cfg.predict, str(cfg.predict)))])
    for chance, index in zip(*chances[0].topk(3)):
        print(f"  {reader.classes[index]}  {chance:6.1%}  {'█' * int(30 * chance)}")
    if not familiar:
        advice = "Trust no number above; draw one digit, thick, alone on plain paper."
        raise LessonError(f"{cfg.predict} looks unlike all that this model learned. {advice}")


def answer(reader: Reader, png: bytes) -> dict:
    """What the page is told about a drawing; `common.web` stands between this and the browser."""
    chances, familiar = reader.read([on_paper(open_picture(io.BytesIO(png), "the drawing"))])
    return {"chances": chances[0].tolist(), "familiar": bool(familiar), "classes": reader.classes}


def serve(cfg: Config) -> None:
    reader = Reader(cfg.out / "model.pt")
    web.serve(PAGE, {"/predict": functools.partial(answer, reader)}, port=cfg.port)


# Pictures and helpers: skip on a first reading


def draw_hardest(cfg: Config, data: ImageSet, x: Tensor, y: Tensor, chances: Tensor) -> None:
    """Where the right answer got the least probability: mistakes and narrow escapes."""
    right = chances[torch.arange(len(y)), y]
    said = chances.argmax(dim=1)
    rows, columns = (1, 2) if cfg.tiny else (3, 6)
    hardest = right.argsort()[: rows * columns].tolist()
    names = data.classes
    titles = [f"{names[y[i]]} read as {names[said[i]]}, {chances[i].max():.0%}" for i in hardest]
    figure, axes = new_figure(rows, columns, size=(9.6, 1.8 * rows + 0.3))
    plot_images(axes, x[hardest, 0].numpy(), titles)
    wrong = (said != y).sum()
    figure.suptitle(f"The hardest of {len(y)} held-out pictures ({wrong} wrong)", fontweight="bold")
    save_figure(figure, cfg.out / "gallery")


def draw_summary(cfg: Config, errors: dict, truths: list, answers: list, classes: tuple) -> None:
    figure, (left, right) = new_figure(1, 2, size=(13, 5.6))
    left.set_title("Validation error by epoch")
    plot_curves(left, errors, ylabel="validation error (log scale)", log=True)
    plot_confusion(right, torch.cat(truths), torch.cat(answers), classes)
    sizes = f"{len(truths)} × {len(truths[0]):,} pictures"
    right.set_title(f"Confusions on {sizes}" + (", overlapping" if len(truths) > 1 else ""))
    save_figure(figure, cfg.out / "summary")


def draw_sign(name: str) -> np.ndarray:
    """A letter or sign in Matplotlib's own font, black on white, as grey bytes."""
    from matplotlib import font_manager

    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 120)
    paper = Image.new("L", (200, 200), 255)
    ImageDraw.Draw(paper).text((100, 100), name, fill=0, font=font, anchor="mm")
    return np.asarray(paper)


def run(cfg: Config) -> dict | None:
    if cfg.predict:
        return predict(cfg)
    if cfg.serve:
        return serve(cfg)

    sets = show_data(cfg)
    show_batches(cfg, sets[0])
    model, metrics = show_results(cfg, sets)
    # Clothes are not drawn by hand.
    if cfg.data != "fashion-mnist":
        reader, drawings = show_drawings(cfg, model, sets[0])
        metrics |= drawings | show_refusals(cfg, reader, sets[0])
    return metrics


if __name__ == "__main__":
    main(run, Config, __doc__)
