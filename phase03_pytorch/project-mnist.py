"""Project 3 MNIST: a digit reader from the data to a page you can draw on
手写数字识别：从数据一直做到一个可以动笔的网页

You will be able to answer
    1. Are the three parts of the data apart?     show_data      apart
    2. What does the network see of a picture?    show_batches   unaltered, jitter
    3. How good is it, beside simpler methods?    show_results   overfits, input-matters, accuracy
    4. Does a drawing arrive like its training?   show_drawings  saved, placement, from-png
    5. What does it say to what is no digit?      show_refusals  strangers
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
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
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
# Held-out accuracy that a run must reach; the third is from the reports of others.
WANTED = {"mnist-5k": 0.98, "mnist": 0.995, "fashion-mnist": 0.88}


@dataclass
class Config(LessonConfig):
    data: str = param("mnist-5k", "data set", choices=("mnist-5k", "mnist", "fashion-mnist"))
    splits: int = param(3, "how many random splits to train on; the mean counts", tiny=1, quick=1)
    epochs: int = param(
        0, "passes over the data; 0: 30 for mnist-5k, 12 for larger sets", tiny=3, quick=1, low=0
    )
    width: int = param(24, "channels of the first convolution", tiny=8, quick=16)
    batch_size: int = param(128, "pictures in one step", tiny=32, quick=192)
    lr: float = param(0.01, "highest learning rate of the one-cycle schedule", quick=0.03)
    augment: bool = param(True, "move and bend the training pictures a little", quick=False)
    simple: int = param(5000, "pictures that the simpler methods train on", tiny=100, low=100)
    drawings: int = param(200, "validation digits read back as drawings", tiny=10, low=10)
    # the rule takes what `param` returns for a value that all objects share; it is a field
    predict: Path | None = param(None, "read this PNG with the trained model")  # noqa: RUF009
    serve: bool = param(False, "open a page to draw on, with the trained model")
    port: int = param(8000, "port of that page on this machine; 0 takes any free one", low=0)


# 1. The data


def show_data(cfg: Config) -> list[ImageSet]:
    print("\n[1] One part to learn from, one to choose by, one to report")
    sets = [load_images(cfg, split_seed=cfg.seed + split) for split in range(cfg.splits)]
    data = sets[0]
    print(f"  the classes are {' '.join(data.classes)}")

    # Fingerprints of the pictures: the test set itself stays unread until the end.
    train, validation, test = data.fingerprints()
    no_leak("apart", "no picture stands in two parts", train, validation, test)
    return sets


# 2. What the network gets to see


def to_tensors(x: np.ndarray, y: np.ndarray) -> tuple[Tensor, Tensor]:
    """Pictures and labels as the network takes them.

    x: (n, 28, 28) bytes, y: (n,) class numbers. Returns float32 (n, 1, 28, 28) from 0 to 1, for a
    convolution wants an axis of channels, and y as a tensor of int64.
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

    # The same seed gives the same order: 2,000 pictures one by one, with and without.
    few = replace(data, x_train=data.x_train[:2000], y_train=data.y_train[:2000])
    moved, _ = make_batches(replace(cfg, augment=True), few, cfg.seed)
    plain, _ = make_batches(replace(cfg, augment=False), few, cfg.seed)
    check(
        "jitter",
        "a moved training picture correlates with its original by {} on average",
        correlation(torch.cat([x for x, _ in moved]), torch.cat([x for x, _ in plain])),
        above=0.59,
        below=0.66,
    )


def correlation(a: Tensor, b: Tensor) -> float:
    """Mean over the pictures of how far two of them agree: 1 is the same, 0 is unrelated."""
    a = a.flatten(1) - a.flatten(1).mean(dim=1, keepdim=True)
    b = b.flatten(1) - b.flatten(1).mean(dim=1, keepdim=True)
    return F.cosine_similarity(a, b).mean().item()


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


def cross_entropy(
    model: nn.Module, batch: tuple[Tensor, Tensor], smoothing: float = 0.05
) -> Tensor:
    """Label smoothing: a model that is sure enough is left alone (lesson 3.5 derives it)."""
    x, y = batch
    return F.cross_entropy(model(x), y, label_smoothing=smoothing)


def train_one(cfg: Config, data: ImageSet, split: int) -> tuple[DigitNet, list[dict], float]:
    """Train on one split; returns the model, one line of numbers an epoch, and the seconds."""
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
    saved = checkpoint.Checkpoint(
        cfg.out / f"training-{split}.pt",
        resume=cfg.resume,
        settings=settings,
        model=model,
        optimizer=optimizer,
        schedule=schedule,
        batches=training,
    )

    def validate(model: nn.Module) -> dict[str, float]:
        return {"val_accuracy": evaluate(model, validation, accuracy)["accuracy"]}

    start = time.perf_counter()
    history = fit(
        model,
        training,
        optimizer,
        cross_entropy,
        epochs=epochs,
        scheduler=schedule,
        checkpoint=saved,
        evaluate_fn=validate,
    )
    return model, history, time.perf_counter() - start


@torch.no_grad()
def probabilities(model: nn.Module, x: Tensor) -> Tensor:
    """What the model says to pictures it is not trained on. (n, 1, 28, 28) -> (n, 10) on the CPU

    Rows sum to 1. A picture's row does not depend on the pictures beside it. The pictures go to the
    model's own device in parts of 1,000, so that any number of them fits into memory.
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
    linear = LogisticRegression(C=0.1, max_iter=60, tol=1e-2).fit(x.numpy(), y.numpy())
    nearest = torch.cdist(x_test, x).argmin(dim=1)  # (n,) the closest training picture
    return {
        "guessing": 1 / len(data.classes),
        "majority": y_test.bincount().max().item() / len(y_test),
        "linear": linear.score(x_test.numpy(), y_test.numpy()),
        "nearest_neighbour": (y[nearest] == y_test).double().mean().item(),
    }


@dataclass
class Run:
    """What training on one split gave; error is the validation error, epoch by epoch."""

    model: DigitNet
    seconds: float
    error: list[float]
    truth: Tensor
    answers: Tensor


def show_results(cfg: Config, sets: list[ImageSet]) -> tuple[DigitNet, dict]:
    print(f"\n[3] Train on {cfg.splits} split(s), then look at each test set once")
    show_one_batch(cfg, sets[0])
    runs = []
    for split, data in enumerate(sets):
        print(f"  split {split + 1}")
        model, history, seconds = train_one(cfg, data, split)
        if split == 0:
            # Before anything is judged: a run that misses its target keeps its model.
            checkpoint.save(cfg.out / "model.pt", to_state(cfg, model, data))

        x, y = to_tensors(*data.test())
        chances = probabilities(model, x)
        if split == 0:
            simple = simpler_methods(cfg, data, x, y)
            draw_hardest(cfg, data, x, y, chances)
        error = [max(1 - row["val_accuracy"], 1e-4) for row in history]
        runs.append(Run(model, seconds, error, y, chances.argmax(dim=1)))

    first = runs[0]
    text = "the first model reads {} of its test set right"
    depends_on_input("input-matters", text, first.answers, first.truth)
    scores = [(run.answers == run.truth).double().mean().item() for run in runs]
    beside = "  ".join(f"{name.replace('_', ' ')} {score:.3f}" for name, score in simple.items())
    print(f"  on the same pictures: {beside}")
    print(f"  this network, split by split: {' '.join(f'{score:.4f}' for score in scores)}")
    wanted = 0.99 if (cfg.data, cfg.preset) == ("mnist", "quick") else WANTED[cfg.data]
    mean = float(np.mean(scores))
    expect("accuracy", "the mean accuracy on held-out pictures is {}", mean, at_least=wanted)
    draw_summary(cfg, runs, data.classes)
    return first.model, simple | {
        "accuracy": mean,
        "train_seconds": float(np.mean([run.seconds for run in runs])),
        "val_error": {f"split {i + 1}": run.error for i, run in enumerate(runs)},
    }


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
        raise LessonError(
            "there is nothing drawn on this picture. Draw a digit, dark on light or light on dark."
        )

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


def strangeness(x: Tensor, known: Tensor) -> Tensor:
    """How unlike the training pictures each picture is, in two ways. (n, 1, 28, 28) -> (n, 2)

    The distance to the nearest of `known`, (m, 196), training pictures at half size; and the share
    of its ink that is only half dark, where a pen would have left it full.
    """
    nearest = torch.cdist(F.avg_pool2d(x, 2).flatten(1), known).amin(dim=1)
    ink = (x > 0.05).flatten(1).sum(dim=1)
    full = (x > 0.8).flatten(1).sum(dim=1)
    return torch.stack([nearest, 1 - full / ink.clamp_min(1)], dim=1)


def to_state(cfg: Config, model: DigitNet, data: ImageSet) -> dict:
    """All that reading a picture takes, as tensors and plain values for the file."""
    train, _ = to_tensors(data.x_train[:5000], data.y_train[:5000])
    known = F.avg_pool2d(train, 2).flatten(1)

    # The limits: all but one in 200 validation pictures stay under each.
    validation, _ = to_tensors(data.x_val[:1000], data.y_val[:1000])
    limits = 1.05 * strangeness(validation, known).quantile(0.995, dim=0)
    return {
        "model": {name: value.cpu() for name, value in model.state_dict().items()},
        "width": cfg.width,
        "known": known,
        "limits": limits,
        "classes": list(data.classes),
        "data": cfg.data,
    }


class Reader:
    """A trained model from its file, with a sense of what it was trained on."""

    def __init__(self, path: Path):
        if not path.exists():
            raise LessonError(
                f"{path.parent} holds no model yet. "
                "Train it first: leave out --predict and --serve."
            )
        state = checkpoint.load(path)
        try:
            self.model = DigitNet(state["width"])
            self.model.load_state_dict(state["model"])
            self.known = state["known"]
            self.limits = state["limits"]
            self.classes = state["classes"]
            self.data = state["data"]
        except (KeyError, TypeError, RuntimeError):
            raise LessonError(
                f"{path} holds another model. Train again: leave out --predict and --serve."
            ) from None

    def read(self, grey: np.ndarray) -> tuple[Tensor, bool]:
        """A grey drawing of any size -> probabilities (10,), and whether it looks familiar."""
        x, _ = to_tensors(like_mnist(grey)[None], np.zeros(1))  # (1, 1, 28, 28)
        familiar = bool((strangeness(x, self.known) <= self.limits).all())
        return probabilities(self.model, x)[0], familiar


def on_a_sheet(digit: np.ndarray) -> np.ndarray:
    """A digit six times as large, off the middle of a sheet. (28, 28) -> (400, 340)

    The sheet is white on its left side and a little in the shade on its right.
    """
    ink = np.zeros((400, 340))
    ink[200:368, 30:198] = np.kron(digit / 255, np.ones((6, 6)))
    sheet = np.linspace(255, 235, 340) * (1 - ink)
    return sheet.astype(np.uint8)


def show_drawings(cfg: Config, model: DigitNet, data: ImageSet) -> tuple[Reader, float]:
    print("\n[4] The model from its file reads a drawing: any size, any place, any polarity")
    reader = Reader(cfg.out / "model.pt")
    x, y = to_tensors(data.x_val[: cfg.drawings], data.y_val[: cfg.drawings])
    with torch.no_grad():
        at_once = model.cpu().eval()(x[:50]).softmax(dim=1)
    check_close(
        "saved",
        "from the file, one picture at a time, it gives the same probabilities as in memory",
        torch.cat([probabilities(reader.model, picture[None]) for picture in x[:50]]),
        at_once,
    )

    sheets = [on_a_sheet(digit) for digit in data.x_val[: cfg.drawings]]
    # Every second one light on dark, as on a blackboard.
    boards = [sheet if i % 2 else 255 - sheet for i, sheet in enumerate(sheets)]
    back = np.stack([like_mnist(board) for board in boards])
    check(
        "placement",
        "an enlarged and moved digit comes back; a pixel differs by {} of 255 grey levels",
        np.abs(back - data.x_val[: cfg.drawings].astype(float)).mean(),
        below=6,
    )

    answers = [reader.read(sheet) for sheet in sheets]
    right = [familiar and chances.argmax() == k for (chances, familiar), k in zip(answers, y)]
    text = f"the share of {len(sheets)} drawn digits that are found familiar and read right is {{}}"
    expect("from-png", text, np.mean(right), at_least=0.95)

    small = [Image.fromarray(255 - sheet).resize((28, 28)) for sheet in sheets]
    small, _ = to_tensors(np.stack([np.asarray(picture) for picture in small]), y.numpy())
    shrunk = (probabilities(reader.model, small).argmax(dim=1) == y).double().mean().item()
    print(f"  if the sheets are only shrunk to 28x28, it reads {shrunk:.3f} of the same digits")

    Image.fromarray(sheets[0]).save(cfg.out / "sample.png")
    chances, _ = reader.read(on_paper(open_picture(cfg.out / "sample.png", "sample.png")))
    said = reader.classes[chances.argmax()]
    print(f"  sample.png is a {data.classes[y[0]]}; it says {said} at {chances.max():.0%}")
    return reader, shrunk


# 5. What is no digit


def show_refusals(cfg: Config, reader: Reader) -> None:
    print("\n[5] A classifier names a digit in anything; the reader first asks if it is familiar")
    from sklearn.datasets import load_sample_images

    photographs = [image.mean(axis=2).astype(np.uint8) for image in load_sample_images().images]
    noise = list(cfg.rng().integers(0, 256, (cfg.drawings // 10, 64, 64), dtype=np.uint8))
    for picture in photographs:
        chances, _ = reader.read(picture)
        said = reader.classes[chances.argmax()]
        print(f"  in a photograph the network sees the digit {said}, at {chances.max():.0%}")
    strangers = photographs + noise
    refused = [not reader.read(picture)[1] for picture in strangers]
    text = f"the share of {len(strangers)} photographs and noises that the reader refuses is {{}}"
    expect("strangers", text, np.mean(refused), at_least=0.95)


def predict(cfg: Config) -> None:
    """Read one PNG. Raises LessonError when nothing on it looks like a digit."""
    reader = Reader(cfg.out / "model.pt")
    chances, familiar = reader.read(on_paper(open_picture(cfg.predict, str(cfg.predict))))
    best = chances.topk(3)
    for chance, index in zip(best.values.tolist(), best.indices.tolist()):
        print(f"  {reader.classes[index]}  {chance:6.1%}  {'█' * round(chance * 30)}")
    if not familiar:
        raise LessonError(
            f"{cfg.predict} does not look like the {reader.data} pictures this model knows: do not "
            "trust the numbers above. Draw one digit, thick, alone on plain paper."
        )


def answer(reader: Reader, png: bytes) -> dict:
    """What the page is told about a drawing; `common.web` stands between this and the browser."""
    chances, familiar = reader.read(on_paper(open_picture(io.BytesIO(png), "the drawing")))
    return {"chances": chances.tolist(), "familiar": familiar, "classes": reader.classes}


def serve(cfg: Config) -> None:
    reader = Reader(cfg.out / "model.pt")
    web.serve(PAGE, {"/predict": functools.partial(answer, reader)}, port=cfg.port)


# Pictures: skip on a first reading


def draw_hardest(cfg: Config, data: ImageSet, x: Tensor, y: Tensor, chances: Tensor) -> None:
    """Where the right answer got the least probability: the mistakes, then the narrow escapes."""
    right = chances[torch.arange(len(y)), y]
    said = chances.argmax(dim=1)
    rows, columns = (1, 2) if cfg.tiny else (3, 6)
    hardest = right.argsort()[: rows * columns].tolist()

    titles = []
    for i in hardest:
        verdict = "right" if said[i] == y[i] else f"read as {data.classes[said[i]]}"
        titles.append(f"{data.classes[y[i]]} {verdict}, {chances[i].max():.0%}")
    figure, axes = new_figure(rows, columns, size=(9.6, 1.8 * rows + 0.3))
    plot_images(axes, x[hardest, 0].numpy(), titles)
    wrong = (said != y).sum()
    figure.suptitle(f"The hardest of {len(y)} held-out pictures ({wrong} wrong)", fontweight="bold")
    save_figure(figure, cfg.out / "gallery")


def draw_summary(cfg: Config, runs: list[Run], classes: tuple[str, ...]) -> None:
    figure, (left, right) = new_figure(1, 2, size=(13, 5.6))
    left.set_title("Validation error by epoch")
    curves = {f"split {i + 1}": run.error for i, run in enumerate(runs)}
    plot_curves(left, curves, ylabel="validation error (log scale)", log=True)
    truth = torch.cat([run.truth for run in runs])
    answers = torch.cat([run.answers for run in runs])
    plot_confusion(right, truth, answers, classes)
    right.set_title(f"Confusions on {len(truth)} held-out pictures")
    save_figure(figure, cfg.out / "summary")


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
        reader, metrics["shrunk"] = show_drawings(cfg, model, sets[0])
        show_refusals(cfg, reader)
    return metrics


if __name__ == "__main__":
    main(run, Config, __doc__)
