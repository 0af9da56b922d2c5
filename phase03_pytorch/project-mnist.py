"""Project 3 MNIST: a digit reader from the data to a page you can draw on
手写数字识别：从数据一直做到一个可以动笔的网页

You will be able to answer
    1. Are the three parts of the data really apart?          show_data       apart
    2. Can this network learn at all?                         show_learns     first-loss, overfits
    3. How good is it on new digits, beside simple methods?   show_results    accuracy, beats-linear, input-matters
    4. Does the saved file hold the same model?               show_saved      saved
    5. Does it read a PNG of any size, place and polarity?    show_png        placement, from-png
    6. What does it say to something that is not a digit?     show_refusals   blank, noise, photo
Run       python phase03_pytorch/project-mnist.py                          about a minute; --help shows the rest
          … --predict FILE.png     read one picture with the trained model; --serve: draw digits in the browser
          … --data mnist           all 70,000 digits; with --preset quick 0.99 in a few seconds
Needs     phase03_pytorch/09-training-loop
Notation  B batch size  H, W height and width (28)  C classes (10)
"""

import io
import json
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from common import checkpoint
from common.checks import check, check_close, depends_on_input, expect, no_leak, overfits
from common.config import LessonConfig, main, param
from common.data.batches import Batches
from common.data.images import ImageSet, load_images
from common.errors import LessonError
from common.figures import new_figure, plot_confusion, plot_curves, plot_images, save_figure
from common.lessons import ROOT, load_lesson
from common.training import evaluate, fit

accuracy = load_lesson("phase03_pytorch/09-training-loop").accuracy
WANTED = {
    "mnist-5k": 0.98,
    "mnist": 0.995,
    "fashion-mnist": 0.88,
}  # held-out accuracy; the last is from reports
MAX_SIDE, MAX_UPLOAD = 4096, 1_000_000  # pixels of a picture, bytes of a request


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
    augment: bool = param(
        True, "turn, shift, slant and scale the training pictures a little", quick=False
    )
    simple: int = param(
        5000, "training pictures for the simple methods beside it", tiny=100, low=100
    )
    drawings: int = param(200, "validation digits read back as drawings", tiny=10, low=10)
    predict: Path | None = param(None, "read this PNG with the trained model, and do nothing else")
    serve: bool = param(False, "open a page to draw on, with the trained model")
    port: int = param(8000, "port of that page on this machine; 0 takes any free one", low=0)


class DigitNet(nn.Module):
    """Three convolutions and one linear layer. (B, 1, 28, 28) -> (B, 10) logits."""

    def __init__(self, width: int):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, width, 5, stride=2, bias=False),  # (B, width, 12, 12)
            nn.MaxPool2d(2),  # (B, width, 6, 6) early: the rest is cheap
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


def to_tensors(x: np.ndarray, y: np.ndarray) -> tuple[Tensor, Tensor]:
    """uint8 (n, 28, 28) -> (n, 1, 28, 28) in 0…1, and labels (n,)."""
    return torch.from_numpy(x).float().div(255).unsqueeze(1), torch.from_numpy(y)


def jitter(x: Tensor) -> Tensor:
    """Each picture of the batch a little turned (±10°), scaled (±10 %), slanted and shifted (±2 pixels)."""
    draw = torch.rand(5, len(x), device=x.device) * 2 - 1  # five numbers in -1…1 for each picture
    angle, scale, slant, right, down = (
        (10 * draw[0]).deg2rad(),
        1 + draw[1] / 10,
        draw[2] * 0.15,
        *(draw[3:] / 7),
    )
    rows = [
        torch.stack([angle.cos() / scale, slant - angle.sin() / scale, right], dim=1),
        torch.stack([angle.sin() / scale, angle.cos() / scale, down], dim=1),
    ]
    grid = F.affine_grid(
        torch.stack(rows, dim=1), list(x.shape), align_corners=False
    )  # (B, 28, 28, 2)
    return F.grid_sample(x, grid, align_corners=False)


def smooth_cross_entropy(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Label smoothing keeps it from growing ever more certain of training pictures (phase03/05 derives it)."""
    return F.cross_entropy(model(batch[0]), batch[1], label_smoothing=0.05)


@torch.no_grad()
def probabilities(model: nn.Module, x: Tensor) -> Tensor:
    """(n, 1, 28, 28) -> (n, 10) on the CPU, in pieces that fit into any memory."""
    model.eval()
    device = next(model.parameters()).device
    return torch.cat([model(part.to(device)).softmax(dim=1).cpu() for part in x.split(1000)])


def train_one(cfg: Config, data: ImageSet, split: int) -> tuple[DigitNet, list[dict], float]:
    """Train on one split, saving after every epoch. Returns the model, its history, and the seconds of training."""
    torch.manual_seed(cfg.seed + split)
    model = DigitNet(cfg.width).to(cfg.torch_device(), memory_format=torch.channels_last)
    epochs = cfg.epochs or (30 if cfg.data == "mnist-5k" else 12)
    batches = Batches(
        *to_tensors(data.x_train, data.y_train),
        batch_size=cfg.batch_size,
        shuffle=True,
        seed=cfg.seed + split,
        drop_last=True,
        transform=jitter if cfg.augment else None,
    )
    validation = Batches(*to_tensors(data.x_val, data.y_val), batch_size=1000)
    optimizer = torch.optim.AdamW(model.parameters(), lr=cfg.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, cfg.lr, total_steps=epochs * len(batches), pct_start=0.2
    )
    same = {
        name: getattr(cfg, name)
        for name in ("tiny", "data", "seed", "width", "batch_size", "lr", "augment")
    }
    saved = checkpoint.Checkpoint(
        cfg.out / f"training-{split}.pt",
        resume=cfg.resume,
        model=model,
        optimizer=optimizer,
        schedule=schedule,
        batches=batches,
        settings=same | {"epochs": epochs},
    )
    start = time.perf_counter()
    history = fit(
        model,
        batches,
        optimizer,
        smooth_cross_entropy,
        epochs=epochs,
        scheduler=schedule,
        checkpoint=saved,
        evaluate_fn=lambda m: {f"val_{k}": v for k, v in evaluate(m, validation, accuracy).items()},
    )
    return model, history, time.perf_counter() - start


def baselines(
    cfg: Config, data: ImageSet, x_test: np.ndarray, y_test: np.ndarray
) -> dict[str, float]:
    """What simpler methods reach on the same split (the two slower ones learn from a part of it)."""
    from sklearn.linear_model import LogisticRegression

    y = data.y_train[: cfg.simple]
    x, test = (
        to_tensors(pictures, y)[0].flatten(1) for pictures in (data.x_train[: cfg.simple], x_test)
    )  # (n, 784)
    return {
        "guessing": 0.1,
        "majority": np.bincount(y_test).max() / len(y_test),
        "linear": LogisticRegression(C=0.1, max_iter=60, tol=1e-2)
        .fit(x.numpy(), y)
        .score(test.numpy(), y_test),
        "nearest neighbour": (y[torch.cdist(test, x).argmin(dim=1).numpy()] == y_test).mean(),
    }


def read_picture(source: Path | io.BytesIO, name: str) -> np.ndarray:
    """A PNG from anywhere, as grey values (H, W) 0…255. Raises LessonError for what is no PNG, or too large."""
    too_large = LessonError(f"{name} is too large. Make it {MAX_SIDE} pixels a side or less.")
    try:
        with Image.open(source, formats=("PNG",)) as picture:
            if max(picture.size) > MAX_SIDE:  # known from the header, before a pixel is decoded
                raise too_large
            white = Image.new("RGBA", picture.size, "white")  # transparent means paper
            return np.asarray(Image.alpha_composite(white, picture.convert("RGBA")).convert("L"))
    except FileNotFoundError:
        raise LessonError(
            f"{name} is not there. Give the path of a PNG, such as a run's sample.png."
        ) from None
    except Image.DecompressionBombError:
        raise too_large from None
    except (OSError, SyntaxError, ValueError) as error:
        raise LessonError(
            f"{name} is not a readable PNG ({error}). Save the picture as PNG and try again."
        ) from None


def like_mnist(grey: np.ndarray) -> np.ndarray:
    """Any drawing -> (28, 28) as MNIST's makers did: light on dark, in a 20x20 box, centre of mass in the middle."""
    paper = np.median(np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]]))
    ink = np.abs(grey.astype(np.float32) - paper)
    if ink.max() < 40:
        raise LessonError(
            "there is nothing drawn on this picture. Draw a digit, dark on light or light on dark."
        )
    ink[ink < ink.max() / 5] = 0
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] * (255 / ink.max())
    height, width = (max(1, round(20 * side / max(ink.shape))) for side in ink.shape)
    small = np.asarray(Image.fromarray(ink).resize((width, height), Image.Resampling.BOX))
    y, x = (float((np.indices(small.shape)[axis] * small).sum() / small.sum()) for axis in (0, 1))
    canvas = np.zeros((28, 28), dtype=np.uint8)
    top, left = (
        int(np.clip(round(13.5 - at), 0, 28 - side)) for at, side in zip((y, x), small.shape)
    )
    canvas[top : top + height, left : left + width] = small.clip(0, 255)
    return canvas


class Reader:
    """A trained model with a sense of what it was trained on, for alone it would name a digit in any picture.

    A picture is familiar when its nearest training picture is near and its ink is mostly full, as a pen's is: both
    limits are what all but 1 in 200 validation pictures stay under.
    """

    def __init__(self, state: dict):
        self.model = DigitNet(state["width"])
        self.model.load_state_dict(state["model"])
        self.model.eval()
        self.state, self.classes, self.limits = state, state["classes"], state["limits"]

    @classmethod
    def of(cls, cfg: Config, model: DigitNet, data: ImageSet) -> "Reader":
        known = F.avg_pool2d(to_tensors(data.x_train[:5000], data.y_train[:5000])[0], 2).flatten(
            1
        )  # (n, 196)
        reader = cls(
            {
                "model": {k: v.cpu() for k, v in model.state_dict().items()},
                "width": cfg.width,
                "known": known,
                "limits": torch.ones(2),
                "classes": list(data.classes),
                "data": cfg.data,
            }
        )
        strange = reader.strangeness(to_tensors(data.x_val[:1000], data.y_val[:1000])[0])
        reader.limits = reader.state["limits"] = strange.quantile(0.995, dim=0) * 1.05
        return reader

    @classmethod
    def load(cls, path: Path) -> "Reader":
        if not path.exists():
            raise LessonError(
                f"{path.parent} holds no model yet. Train it first: leave out --predict and --serve."
            )
        try:
            return cls(checkpoint.load(path))
        except (KeyError, TypeError, RuntimeError):
            raise LessonError(
                f"{path} holds another model. Train again: leave out --predict and --serve."
            ) from None

    def strangeness(self, x: Tensor) -> Tensor:
        """(n, 1, 28, 28) -> (n, 2): distance to the nearest training picture at half size, share of half-grey ink."""
        nearest = torch.cdist(F.avg_pool2d(x, 2).flatten(1), self.state["known"]).amin(dim=1)
        ink, full = ((x > level).flatten(1).sum(dim=1) for level in (0.05, 0.8))
        return torch.stack([nearest, 1 - full / ink.clamp_min(1)], dim=1)

    def read(self, grey: np.ndarray) -> tuple[Tensor, bool]:
        """Grey picture of any size -> probabilities (10,), and whether it looks like the training pictures at all."""
        x, _ = to_tensors(like_mnist(grey)[None], np.zeros(1))
        return probabilities(self.model, x)[0], bool((self.strangeness(x) <= self.limits).all())


def show_data(cfg: Config) -> list[ImageSet]:
    print("\n[1] The data: one part to learn from, one to choose by, one to report")
    sets = [load_images(cfg, split_seed=cfg.seed + split) for split in range(cfg.splits)]
    data = sets[0]
    print(
        f"  {len(data.x_train)} training, {len(data.x_val)} validation pictures of {' '.join(data.classes)}"
    )
    no_leak(
        "apart", "no picture stands in both training and validation data", data.x_train, data.x_val
    )
    return sets


def show_learns(cfg: Config, data: ImageSet) -> None:
    print(
        "\n[2] Before training for real: does the loss start at chance, and fall to nothing on one batch?"
    )
    torch.manual_seed(cfg.seed)
    model = DigitNet(cfg.width)
    batch = to_tensors(data.x_train[:32], data.y_train[:32])
    first = F.cross_entropy(model(batch[0]), batch[1]).item()
    check(
        "first-loss",
        f"the first loss is near ln 10 = {np.log(10):.2f}",
        first,
        above=1.7,
        below=3.2,
    )
    overfits(
        "overfits",
        "the loss on 32 fixed pictures falls to almost nothing",
        model,
        batch,
        lambda m, b: F.cross_entropy(m(b[0]), b[1]),
        torch.optim.AdamW(model.parameters(), lr=0.01),
        steps=25,
    )


def show_results(cfg: Config, sets: list[ImageSet]) -> tuple[DigitNet, dict]:
    print(f"\n[3] Train on {cfg.splits} split(s), then look at each test set once")
    truth, said, seconds, curves = [], [], [], {}
    for split, data in enumerate(sets):
        print(f"  split {split + 1}")
        model, history, took = train_one(cfg, data, split)
        x, y = data.test()
        chances = probabilities(model, to_tensors(x, y)[0])
        truth, said, seconds = truth + [y], said + [chances.argmax(dim=1).numpy()], seconds + [took]
        curves[f"split {split + 1}"] = [max(1 - row["val_accuracy"], 1e-4) for row in history]
        if split == 0:
            simple = baselines(cfg, data, x, y)
            draw_errors(cfg, data, x, y, chances)
            kept = model
    scores = [float((guess == y).mean()) for guess, y in zip(said, truth)]
    print(
        "  held-out accuracy:  "
        + "  ".join(f"{name} {score:.3f}" for name, score in simple.items())
        + f"  this network {np.mean(scores):.4f} (splits: {' '.join(f'{s:.4f}' for s in scores)})"
        f"\n  training took {np.mean(seconds):.1f} s a split"
    )
    depends_on_input("input-matters", "the answer depends on the picture", said[0], truth[0])
    wanted = 0.99 if (cfg.data, cfg.preset) == ("mnist", "quick") else WANTED[cfg.data]
    expect("accuracy", f"held-out accuracy, mean of {cfg.splits}", np.mean(scores), at_least=wanted)
    expect(
        "beats-linear",
        "above the linear model on the same split",
        scores[0] - simple["linear"],
        above=0.02,
    )
    draw_summary(cfg, curves, np.concatenate(truth), np.concatenate(said), sets[0].classes)
    return kept, {
        "accuracy": float(np.mean(scores)),
        "train_seconds": float(np.mean(seconds)),
        **{name.replace(" ", "_"): value for name, value in simple.items()},
        "val_error": curves,
    }


def show_saved(cfg: Config, model: DigitNet, data: ImageSet) -> Reader:
    print("\n[4] Saved, read back, compared")
    checkpoint.save(cfg.out / "model.pt", Reader.of(cfg, model, data).state)
    reader, (x, _) = Reader.load(cfg.out / "model.pt"), to_tensors(data.x_val[:50], data.y_val[:50])
    check_close(
        "saved",
        "the model read back from model.pt gives the same probabilities",
        probabilities(reader.model, x),
        probabilities(model.cpu(), x),
    )
    return reader


def show_png(cfg: Config, reader: Reader, data: ImageSet) -> None:
    print("\n[5] From a PNG: any size, any place, dark on light or light on dark")
    digit = data.x_val[0]
    poster = np.full((400, 300), 255, dtype=np.uint8)
    poster[60:228, 40:208] = 255 - np.kron(digit, np.ones((6, 6), dtype=np.uint8))
    Image.fromarray(poster).save(cfg.out / "sample.png")
    check(
        "placement",
        "moved by 90 and 50 pixels and inverted, the network gets the very same picture",
        np.array_equal(
            like_mnist(poster), like_mnist(255 - np.roll(poster, (90, 50), axis=(0, 1)))
        ),
    )
    drawings = (
        255 - np.kron(x, np.ones((5, 5), dtype=np.uint8)) for x in data.x_val[: cfg.drawings]
    )
    answers = [reader.read(drawing)[0].argmax().item() for drawing in drawings]
    expect(
        "from-png",
        "enlarged validation digits, read as drawings: right",
        np.mean(answers == data.y_val[: cfg.drawings]),
        at_least=0.95,
    )
    chances, _ = reader.read(read_picture(cfg.out / "sample.png", "sample.png"))
    print(
        f"  sample.png is a {data.classes[data.y_val[0]]}; the model says {reader.classes[chances.argmax()]} "
        f"at {chances.max():.0%}. Try your own: --predict FILE.png, or --serve to draw."
    )


def show_refusals(cfg: Config, reader: Reader) -> None:
    print(
        "\n[6] A classifier names a digit in anything; the reader first asks whether it has seen such a thing"
    )
    from sklearn.datasets import load_sample_image

    try:
        answer = reader.read(np.full((100, 100), 230, dtype=np.uint8))
    except LessonError:
        answer = None
    check("blank", "an empty page gets no answer but an error that says so", answer is None)
    noise = cfg.rng().integers(0, 256, (cfg.drawings // 10, 64, 64), dtype=np.uint8)
    expect(
        "noise",
        f"of {len(noise)} noises, refused",
        1 - np.mean([reader.read(n)[1] for n in noise]),
        at_least=0.95,
    )
    chances, familiar = reader.read(load_sample_image("flower.jpg").mean(axis=2).astype(np.uint8))
    print(
        f"  a photograph of a flower: the network says {reader.classes[chances.argmax()]} at {chances.max():.0%}"
    )
    expect("photo", "the photograph is refused", not familiar)


def draw_errors(cfg: Config, data: ImageSet, x: np.ndarray, y: np.ndarray, chances: Tensor) -> None:
    """The pictures whose right answer got the least probability: first the mistakes, then the narrow escapes."""
    right, said = chances[torch.arange(len(y)), torch.from_numpy(y)], chances.argmax(dim=1).numpy()
    rows, columns = (1, 2) if cfg.tiny else (3, 6)
    hardest = right.argsort()[: rows * columns].numpy()
    titles = [
        f"{data.classes[y[i]]}, right {right[i]:.0%}"
        if said[i] == y[i]
        else f"{data.classes[y[i]]}, said {data.classes[said[i]]} {chances[i].max():.0%}"
        for i in hardest
    ]
    figure, axes = new_figure(rows, columns, size=(9.6, 1.8 * rows + 0.3))
    plot_images(axes, x[hardest], titles)
    figure.suptitle(
        f"The hardest of {len(y)} held-out pictures ({(said != y).sum()} wrong)", fontweight="bold"
    )
    save_figure(figure, cfg.out / "gallery")


def draw_summary(
    cfg: Config, curves: dict, truth: np.ndarray, said: np.ndarray, classes: tuple[str, ...]
) -> None:
    figure, (left, right) = new_figure(1, 2, size=(13, 5.6))
    left.set_title("Validation error by epoch")
    plot_curves(left, curves, ylabel="validation error (log scale)", log=True)
    plot_confusion(right, truth, said, classes)
    right.set_title(f"Confusions on {len(truth)} held-out pictures")
    save_figure(figure, cfg.out / "summary")


def predict(cfg: Config) -> None:
    """Read one PNG. Raises LessonError when it holds nothing that looks like a digit."""
    reader = Reader.load(cfg.out / "model.pt")
    chances, familiar = reader.read(read_picture(cfg.predict, str(cfg.predict)))
    for chance, index in zip(*(part.tolist() for part in chances.topk(3))):
        print(f"  {reader.classes[index]}  {chance:6.1%}  {'█' * round(chance * 30)}")
    if not familiar:
        raise LessonError(
            f"{cfg.predict} does not look like the {reader.state['data']} pictures this model knows: "
            "do not trust the numbers above. Draw one digit, thick, alone on plain paper."
        )


class Page(BaseHTTPRequestHandler):
    """GET / is the page; POST /predict takes a PNG and answers with chances, familiar and classes, or with error."""

    reader: Reader
    timeout = 10  # seconds a silent client may hold a thread

    def do_GET(self) -> None:
        if self.path != "/":
            return self.answer(404, {"error": "there is only / here"})
        self.answer(
            200,
            (ROOT / "phase03_pytorch" / "project-mnist.html").read_bytes(),
            "text/html; charset=utf-8",
        )

    def do_POST(self) -> None:
        length, host = (
            self.headers.get("Content-Length", ""),
            self.headers.get("Host", "").split(":")[0],
        )
        if self.path != "/predict" or host not in ("127.0.0.1", "localhost"):
            return self.answer(404, {"error": "post to /predict, on this machine"})
        if not length.isdecimal() or not 0 < int(length[:20]) <= MAX_UPLOAD:
            return self.answer(
                413, {"error": f"send a PNG of at most {MAX_UPLOAD} bytes, with its Content-Length"}
            )
        try:
            chances, familiar = self.reader.read(
                read_picture(io.BytesIO(self.rfile.read(int(length))), "the drawing")
            )
            self.answer(
                200,
                {"chances": chances.tolist(), "familiar": familiar, "classes": self.reader.classes},
            )
        except LessonError as error:
            self.answer(400, {"error": str(error)})

    def answer(self, code: int, body: dict | bytes, kind: str = "application/json") -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    log_message = lambda *args: None  # one line per stroke would drown the terminal


def make_server(cfg: Config) -> ThreadingHTTPServer:
    """A server on the loopback address only. Raises LessonError when the port is taken."""
    Page.reader = Reader.load(cfg.out / "model.pt")
    try:
        return ThreadingHTTPServer(("127.0.0.1", cfg.port), Page)
    except (OSError, OverflowError) as error:
        raise LessonError(
            f"port {cfg.port} cannot be used ({error}). Try --port 0: any free one."
        ) from None


def serve(cfg: Config) -> None:
    with make_server(cfg) as server:
        print(f"Draw on http://127.0.0.1:{server.server_port}/   (Ctrl-C ends it)", flush=True)
        server.serve_forever()


def run(cfg: Config) -> dict | None:
    if cfg.predict or cfg.serve:
        return (predict if cfg.predict else serve)(cfg)
    sets = show_data(cfg)
    show_learns(cfg, sets[0])
    model, results = show_results(cfg, sets)
    reader = show_saved(cfg, model, sets[0])
    if cfg.data != "fashion-mnist":  # clothes are not drawn by hand
        show_png(cfg, reader, sets[0])
        show_refusals(cfg, reader)
    return results


if __name__ == "__main__":
    main(run, Config, __doc__)
