"""Project 3 MNIST: a digit reader from the data to a page you can draw on
手写数字识别：从数据一直做到一个可以动笔的网页

You will be able to answer
    1. Are the three parts apart?    show_data      apart
    2. What does it see?             show_batches   unaltered, moves
    3. How good, beside others?      show_results   overfits, input-matters, beside, accuracy
    4. Does a drawing arrive whole?  show_drawings  saved, placement, polarity, from-png, others
    5. When does a reader fail?      show_failures  causes, softmax, together
Predict   shrunk: digits stand off the middle of a sheet, shrunk to 28x28. What share is read right?
Run       python phase03_pytorch/project-mnist.py     one to two minutes; --help shows the rest
          … --predict FILE.png              read one picture with the trained model
          … --serve                         draw digits in the browser
          … --data mnist                    all 70,000 digits; --preset quick: once, for 0.99
Needs     phase03_pytorch/09-training-loop
Reference -
Notation  B batch size  H, W height and width (28)  C classes (10)
"""

import functools
import io
from dataclasses import dataclass
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
from common.figures import new_figure, plot_images, save_figure
from common.lessons import ROOT, load_lesson
from common.training import evaluate, fit

accuracy = load_lesson("phase03_pytorch/09-training-loop").accuracy

PAGE = ROOT / "phase03_pytorch" / "project-mnist.html"
TRAIN_IT = "Train it first: leave out --predict and --serve."
WANTED = {"mnist-5k": 0.98, "mnist": 0.995}  # held-out accuracy that a run must reach
LETTERS = "ABCDEFGHJKLMNPQRTUVWXY+?&#@"  # none that could be a digit: neither I, O, S nor Z
# Of a sheet: its height and width, the digit's top and left, how much darker its right side is.
# only_…: this alone is wrong; no_…: all but this. The digit is 168 high; it lies in the middle or,
# where its place is wrong, 4 of the 28 pixels down and left of it.
SHEETS = {
    "shrunk_full": (168, 168, 0, 0, 0),
    "shrunk_only_size": (368, 368, 100, 100, 0),
    "shrunk_only_proportion": (183, 155, 7, -6, 0),
    "shrunk_only_place": (168, 168, 24, -24, 0),
    "shrunk_only_shade": (168, 168, 0, 0, 20),
    "shrunk": (400, 340, 173, 37, 20),
    "shrunk_no_shade": (400, 340, 173, 37, 0),
    "shrunk_no_place": (400, 340, 116, 86, 20),
    "shrunk_no_size": (183, 155, 34, -28, 20),
}
ALONE = ("shrunk_only_size", "shrunk_only_proportion", "shrunk_only_place", "shrunk_only_shade")


@dataclass
class Config(LessonConfig):
    data: str = param("mnist-5k", "data set", choices=("mnist-5k", "mnist"), quick="mnist")
    splits: int = param(3, "how many random splits to train on; the mean counts", tiny=1, quick=1)
    epochs: int = param(0, "passes; 0: 30 for mnist-5k, else 12", tiny=3, quick=1, low=0)
    width: int = param(24, "channels of the first convolution", tiny=8, quick=16)
    batch_size: int = param(128, "pictures in one step", tiny=32, quick=192)
    lr: float = param(0.01, "highest learning rate of the one-cycle schedule", quick=0.03)
    augment: bool = param(True, "move and bend the training pictures a little", quick=False)
    simple: int = param(5000, "pictures that the simpler methods train on", tiny=100, low=100)
    drawings: int = param(200, "test digits read back as drawings", tiny=10, low=10)
    predict: Path | None = param(None, "read this PNG with the trained model")
    serve: bool = param(False, "open a page to draw on, with the trained model")
    port: int = param(8000, "port of that page on this machine; 0 takes any free one", low=0)


# 1. The data


def show_data(cfg: Config) -> list[ImageSet]:
    print("\n[1] One part to learn from, one to choose by, one to report")
    sets = [load_images(cfg, split_seed=cfg.seed + split) for split in range(cfg.splits)]
    # Fingerprints of the pictures: the test set itself stays unread until the end.
    no_leak("apart", "no picture stands in two parts", *sets[0].fingerprints())
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
    """Data augmentation: every picture of a batch moved and bent in its own way. (B, 1, H, W)

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

    # Pictures that hold their own column and row numbers show where each pixel was looked up.
    numbers = torch.arange(28.0)
    places = torch.stack(torch.meshgrid(numbers, numbers, indexing="xy"))  # (2, 28, 28)
    torch.manual_seed(cfg.seed)
    name, off = worst_move(jitter(places.repeat(4000, 1, 1, 1)))
    text = f"turn, scale, slant, shifts are even and independent: {{}} off at most ({name})"
    check("moves", text, off, below=0.1)


# 3. The network, and how good it is


class DigitNet(nn.Module):
    """Three convolutions and one linear layer. (B, 1, 28, 28) -> (B, 10) logits."""

    def __init__(self, width: int):
        super().__init__()
        self.features = nn.Sequential(
            # A bias would be lost: batch norm subtracts the mean, and the bias with it.
            nn.Conv2d(1, width, 5, stride=2, bias=False),  # (B, width, 12, 12)
            # The largest of each 2x2; this early, so that the rest is cheap.
            nn.MaxPool2d(2),  # (B, width, 6, 6)
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


def cross_entropy(model: nn.Module, batch: tuple, smoothing: float = 0.05) -> Tensor:
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

    parts = {"model": model, "optimizer": optimizer, "schedule": schedule, "batches": training}
    saved = resumable(cfg, split, epochs, parts)

    validate = functools.partial(evaluate, loader=validation, score_fn=accuracy)
    options = {"scheduler": schedule, "evaluate_fn": validate, "checkpoint": saved}
    history = fit(model, training, optimizer, cross_entropy, epochs=epochs, **options)
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
    """The accuracy of what needs no network, from cfg.simple pictures of the same split."""
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


def show_results(cfg: Config, sets: list[ImageSet]) -> tuple[DigitNet, tuple, dict]:
    print(f"\n[3] Train on {cfg.splits} split(s), then look at each test set once")
    show_one_batch(cfg, sets[0])
    models: list[DigitNet] = []
    errors: dict[str, list[float]] = {}
    for split, data in enumerate(sets):
        print(f"  split {split + 1}")
        model, history = train_one(cfg, data, split)
        models.append(model)
        errors[f"split {split + 1}"] = [1 - row["accuracy"] for row in history]
    # Before anything is judged: a run that misses its target keeps its model.
    checkpoint.save(cfg.out / "model.pt", to_state(cfg, models[0], sets[0]))

    tests = [data.test() for data in sets]
    scores = []
    for model, (digits, labels) in zip(models, tests):
        x, y = to_tensors(digits, labels)
        scores.append(share(probabilities(model, x).argmax(dim=1) == y))

    x, y = to_tensors(*tests[0])
    chances = probabilities(models[0], x)
    draw_hardest(cfg, x, y, chances)
    text = "the first model reads {} of its test set right"
    depends_on_input("input-matters", text, chances.argmax(dim=1), y)
    simple = simpler_methods(cfg, sets[0], x, y)
    listed = " and ".join(f"{name} {score:.3f}" for name, score in simple.items())
    text = f"{{}} more than the better of {listed}, from {cfg.simple:,} pictures at most"
    expect("beside", text, scores[0] - max(simple.values()), at_least=0.02)

    mean = float(np.mean(scores))
    spread = float(np.std(scores, ddof=1)) if len(scores) > 1 else 0.0
    # By the choice of the test pictures alone; the note derives it.
    error = (mean * (1 - mean) / len(y)) ** 0.5
    print(f"  split by split {np.round(scores, 4)}, ±{spread:.4f}; standard error {error:.4f}")
    wanted = 0.99 if cfg.preset == "quick" else WANTED[cfg.data]
    expect("accuracy", "the mean accuracy on held-out pictures is {}", mean, at_least=wanted)
    metrics = {"accuracy": mean, "spread": spread, "standard_error": error}
    return models[0], tests[0], simple | metrics | {"val_error": errors}


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
    paper. Returns (28, 28) bytes: paper 0, ink up to 255. Of the drawing, the darkest ink counts as
    255, what is fainter than a fifth of that as 0. Then the ink is shrunk by area means (BOX) until
    its longer side is 20 pixels; its centre of mass is at row 14, column 14, as nearly as whole
    pixels allow. Raises LessonError where nothing differs from the paper by 40 or more.
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


def strangeness(x: Tensor, chances: Tensor, known: Tensor) -> Tensor:
    """How far pictures are from the nearest of `known` (m, 196), how grey, how doubtful. (n, 3)"""
    # At half size a stroke that lies one pixel aside counts less.
    distance = torch.cdist(F.avg_pool2d(x, 2).flatten(1), known).amin(dim=1)
    # A pen leaves only edges grey: the share of the ink that is not full.
    ink = (x > 0.05).flatten(1).sum(dim=1)
    full = (x > 0.8).flatten(1).sum(dim=1)
    greyness = 1 - full / ink.clamp_min(1)
    doubt = 1 - chances.amax(dim=1)
    return torch.stack([distance, greyness, doubt], dim=1)


def to_state(cfg: Config, model: DigitNet, data: ImageSet) -> dict:
    """All that reading a picture takes, as tensors and plain values for the file."""
    train, _ = to_tensors(data.x_train[:5000], data.y_train[:5000])
    known = F.avg_pool2d(train, 2).flatten(1)
    # One in 200 validation pictures exceeds such a quantile; 5 % more, for 500 fix it but roughly.
    validation, _ = to_tensors(data.x_val[:1000], data.y_val[:1000])
    strange = strangeness(validation, probabilities(model, validation), known)
    limits = 1.05 * strange.quantile(0.995, dim=0)
    return {
        "model": {name: value.cpu() for name, value in model.state_dict().items()},
        "width": cfg.width,
        "known": known,
        "limits": limits,
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
            self.known, self.limits = state["known"], state["limits"]
        except (KeyError, TypeError, RuntimeError):
            raise LessonError(f"{path} holds another model. {TRAIN_IT}") from None

    def read(self, drawings: list[np.ndarray]) -> tuple[Tensor, Tensor]:
        """n grey drawings of any size -> probabilities (n, 10), which limits they exceed (n, 3)"""
        pictures = np.stack([like_mnist(drawing) for drawing in drawings])
        x, _ = to_tensors(pictures, np.zeros(len(pictures)))
        chances = probabilities(self.model, x)
        return chances, strangeness(x, chances, self.known) > self.limits


def show_drawings(cfg: Config, model: DigitNet, digits: np.ndarray, y: Tensor) -> tuple:
    print("\n[4] The model from its file reads a drawing: any size, any place, any polarity")
    reader = Reader(cfg.out / "model.pt")
    x, _ = to_tensors(digits[:50], y[:50].numpy())
    at_once = model.cpu().eval()(x).softmax(dim=1).detach()
    alone = torch.cat([probabilities(reader.model, picture[None]) for picture in x])
    text = "from the file, one picture at a time, it gives the same probabilities as in memory"
    check_close("saved", text, alone, at_once)

    sheets = [on_a_sheet(digit) for digit in digits]
    Image.fromarray(sheets[0]).save(cfg.out / "sample.png")
    back = np.stack([like_mnist(sheet) for sheet in sheets]).astype(float)
    blank = digits.mean()
    text = f"back from its sheet a digit is {{}} grey levels off; a blank would be {blank:.0f}"
    check("placement", text, np.abs(back - digits).mean(), below=6)
    boards = np.stack([like_mnist(255 - sheet) for sheet in sheets])
    check_close("polarity", "light on dark, as on a blackboard, is the same picture", boards, back)

    chances, strange = reader.read(sheets)
    right = share(~strange.any(dim=1) & (chances.argmax(dim=1) == y))
    text = f"the share of {len(y)} test digits on sheets, accepted and read right, is {{}}"
    expect("from-png", text, right, at_least=0.93)

    # Digits of other people, for whom nothing was ever chosen.
    drawings, labels = other_writers(cfg)
    right = share(reader.read(drawings)[0].argmax(dim=1) == labels)
    text = f"the share read right of {len(labels)} digits from another collection is {{}}"
    expect("others", text, right, at_least=0.85)
    return reader, {"others_right": right}


# 5. What goes wrong


def show_failures(cfg: Config, reader: Reader, digits: np.ndarray, y: Tensor) -> dict:
    print("\n[5] A sheet that is only shrunk differs in four ways from training. Read right:")
    metrics = {}
    for name, layout in SHEETS.items():
        x, _ = to_tensors(np.stack([shrunk(digit, layout) for digit in digits]), y.numpy())
        metrics[name] = share(probabilities(reader.model, x).argmax(dim=1) == y)
        print(f"    {name.replace('_', ' '):<24}{metrics[name]:.3f}")
    product = float(np.prod([metrics[name] for name in ALONE]))
    text = f"if each acted on its own, all four would leave {product:.2f}, {{}} more than they do"
    expect("causes", text, product - metrics["shrunk"], at_least=0.05)
    draw_causes(cfg, digits[0], metrics)

    print("  A classifier names a digit in anything. The share that exceeds a limit:")
    kinds = {
        "photos": photographs(),
        "letters": [draw_letter(name) for name in LETTERS],
        "others": other_writers(cfg)[0],
        "digits": [on_a_sheet(digit) for digit in digits],
    }
    for kind, drawings in kinds.items():
        chances, strange = reader.read(drawings)
        shares = [*strange.double().mean(dim=0).tolist(), share(strange.any(dim=1))]
        found = dict(zip(("distance", "greyness", "doubt", "refused"), shares))
        found["surest"] = chances.max().item()
        print(f"    {kind:<8}" + "".join(f" {name} {value:.2f} " for name, value in found.items()))
        metrics |= {f"{kind}_{name}": value for name, value in found.items()}

    text = "doubt, which is all that softmax says, refuses only {} of the photographs"
    expect("softmax", text, metrics["photos_doubt"], at_most=0.75)
    _, strange = reader.read(kinds["photos"] + kinds["letters"])
    best = strange.double().mean(dim=0).max()
    text = f"of photographs and letters one measure refuses {best:.2f} at most, all three {{}} more"
    expect("together", text, share(strange.any(dim=1)) - best, at_least=0.08)
    return metrics | {"shrunk_product": product}


def predict(cfg: Config) -> None:
    """Read one PNG. Raises LessonError when nothing on it looks like a digit."""
    reader = Reader(cfg.out / "model.pt")
    chances, strange = reader.read([on_paper(open_picture(cfg.predict, str(cfg.predict)))])
    for chance, index in zip(*chances[0].topk(3)):
        print(f"  {index}  {chance:6.1%}  {'█' * int(30 * chance)}")
    if strange.any():
        advice = "Trust no number above; draw one digit, thick, alone on plain paper."
        raise LessonError(f"{cfg.predict} looks unlike all that this model learned. {advice}")


def answer(reader: Reader, png: bytes) -> dict:
    """What the page is told about a drawing; `common.web` stands between this and the browser."""
    chances, strange = reader.read([on_paper(open_picture(io.BytesIO(png), "the drawing"))])
    familiar = not strange.any()
    return {"chances": chances[0].tolist(), "familiar": familiar, "classes": list("0123456789")}


# Pictures and helpers: skip on a first reading


def worst_move(places: Tensor) -> tuple[str, Tensor]:
    """Which move is farthest from even and independent, and by how much; see measure_moves."""
    usual = torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0])
    # What is even within ±a has a variance of a²/3; what is drawn apart does not vary together.
    standard = (measure_moves(places) - usual) / (torch.tensor([10, 0.1, 0.15, 2, 2]) / 3**0.5)
    off = (standard.T @ standard / len(standard) - torch.eye(5)).abs().amax(dim=0)  # (5,)
    return ("turn", "scale", "slant", "right", "down")[int(off.argmax())], off.max()


def measure_moves(places: Tensor) -> Tensor:
    """Where pixels were looked up (n, 2, 28, 28) -> turn in degrees, scale, slant, shifts (n, 5)"""
    # Four pixels around the middle, which is at 13.5, are enough for an affine map.
    four = places[:, :, 10:18:7, 10:18:7]  # (n, 2, 2, 2)
    right, down = (four.mean(dim=(2, 3)) - 13.5).T
    a, c = (four[:, :, :, 1] - four[:, :, :, 0]).mean(dim=2).T / 7  # one column on
    b, d = (four[:, :, 1] - four[:, :, 0]).mean(dim=2).T / 7  # one row on
    turn = torch.rad2deg(torch.atan2(c, a))
    scale = (a * d - b * c).abs().rsqrt()  # an area grows by its square
    return torch.stack([turn, scale, b + c, right, down], dim=1)


def draw_hardest(cfg: Config, x: Tensor, y: Tensor, chances: Tensor) -> None:
    """Where the right answer got the least probability: mistakes, and nearly mistakes."""
    hardest = chances[torch.arange(len(y)), y].argsort()[:18].tolist()
    said = chances.argmax(dim=1)
    titles = [f"{y[i]} read as {said[i]}, {chances[i].max():.0%}" for i in hardest]
    figure, axes = new_figure(3, 6, size=(9.6, 5.7))
    plot_images(axes, x[hardest, 0].numpy(), titles)
    figure.suptitle(f"The hardest of {len(y)} test pictures", fontweight="bold")
    save_figure(figure, cfg.out / "gallery")


def draw_causes(cfg: Config, digit: np.ndarray, shares: dict[str, float]) -> None:
    """One digit on its sheet, as it is, placed, shrunk, and with each cause alone."""
    sheet = on_a_sheet(digit)
    small = [shrunk(digit, SHEETS[name]) for name in ("shrunk", *ALONE)]
    titles = ["its sheet, inverted\n", "the digit\n", "placed by like_mnist\n"]
    titles.append(f"only shrunk: all four\n{shares['shrunk']:.0%} read right")
    for name in ALONE:
        cause = name.replace("shrunk_only_", "only wrong: ")
        titles.append(f"{cause}\n{shares[name]:.0%} read right")
    figure, axes = new_figure(2, 4, size=(10, 5.8))
    plot_images(axes, [255 - sheet, digit, like_mnist(sheet), *small], titles)
    save_figure(figure, cfg.out / "causes")


def draw_letter(name: str) -> np.ndarray:
    """A printed letter or sign, black on white, as grey bytes."""
    paper = Image.new("L", (200, 200), 255)
    ImageDraw.Draw(paper).text((100, 100), name, 0, ImageFont.load_default(120), anchor="mm")
    return np.asarray(paper)


def photographs() -> list[np.ndarray]:
    """Six pieces of each of scikit-learn's two photographs, as grey bytes."""
    from sklearn.datasets import load_sample_images

    greys = [on_paper(Image.fromarray(image)) for image in load_sample_images().images]
    return [p[y : y + 200, x : x + 200] for p in greys for y in (0, 200) for x in (0, 200, 400)]


def on_a_sheet(digit: np.ndarray, layout: tuple = SHEETS["shrunk"]) -> np.ndarray:
    """A digit six times as large, dark on a white sheet."""
    height, width, top, left, shade = layout
    paper = Image.new("L", (width, height))
    paper.paste(Image.fromarray(digit).resize((168, 168), Image.Resampling.NEAREST), (left, top))
    return (np.linspace(255, 255 - shade, width) * (1 - np.asarray(paper) / 255)).astype(np.uint8)


def shrunk(digit: np.ndarray, layout: tuple) -> np.ndarray:
    """What reaches the network if a sheet is only inverted and shrunk. (28, 28) bytes"""
    return np.asarray(Image.fromarray(255 - on_a_sheet(digit, layout)).resize((28, 28)))


def other_writers(cfg: Config) -> tuple[list[np.ndarray], Tensor]:
    """Digits of other people, stored as 8x8 pixels of 0 to 16, smoothly enlarged; their labels."""
    others = load_images(cfg, "digits")
    papers = (255 - others.x_train[: cfg.drawings] * (255 / 16)).astype(np.uint8)
    large = [np.asarray(Image.fromarray(paper).resize((200, 200))) for paper in papers]
    return large, torch.from_numpy(others.y_train[: cfg.drawings])


def resumable(cfg: Config, split: int, epochs: int, parts: dict) -> checkpoint.Checkpoint:
    """The state of a training, saved every epoch: --resume goes on from it with equal settings."""
    names = ("tiny", "data", "seed", "width", "batch_size", "lr", "augment")
    settings = {name: getattr(cfg, name) for name in names} | {"epochs": epochs}
    path = cfg.out / f"training-{split}.pt"
    return checkpoint.Checkpoint(path, resume=cfg.resume, settings=settings, **parts)


def run(cfg: Config) -> dict | None:
    if cfg.predict:
        return predict(cfg)
    if cfg.serve:
        reader = Reader(cfg.out / "model.pt")
        return web.serve(PAGE, {"/predict": functools.partial(answer, reader)}, port=cfg.port)

    sets = show_data(cfg)
    show_batches(cfg, sets[0])
    model, test, metrics = show_results(cfg, sets)
    digits = test[0][: cfg.drawings]
    y = torch.from_numpy(test[1][: cfg.drawings])
    reader, found = show_drawings(cfg, model, digits, y)
    return metrics | found | show_failures(cfg, reader, digits, y)


if __name__ == "__main__":
    main(run, Config, __doc__)
