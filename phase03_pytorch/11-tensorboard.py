"""3.11 TensorBoard: what a run writes down, to the last byte
TensorBoard：训练写下了什么，逐字节看清楚

You will be able to answer
    1. How does a training write its curves?       show_training  values, same, overfits, depends
    2. What is a record, what survives damage?     show_records   known, records, by-hand, damage
    3. What does a histogram keep of its numbers?  show_buckets   buckets, edges
    4. What becomes of a picture?                  show_picture   pixels
    5. Why does a run need a folder of its own?    show_folders   zigzag
Predict   bytes_loss: how many bytes of the file does one logged loss take?
Run       python phase03_pytorch/11-tensorboard.py                         about 8 s
Needs     phase03_pytorch/09-training-loop
Reference RawEventFileLoader, np.histogram
"""

import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from common.checks import check, check_close, depends_on_input, overfits
from common.config import LessonConfig, main, param
from common.data.images import load_images
from common.figures import BLUE, GREY, ORANGE, SKY, new_figure, save_figure
from common.lessons import load_lesson, shown
from common.training import fit, to_device

loop = load_lesson("phase03_pytorch/09-training-loop")
RATES = {"slow": 0.1, "fast": 0.5}  # run: its learning rate


@dataclass
class Config(LessonConfig):
    epochs: int = param(16, "passes over the data, in each of two runs", tiny=4)
    threads = 1


@dataclass
class LoggedRun:
    """What was written into a folder, kept in order to compare it with what is read there."""

    folder: Path
    model: nn.Module
    losses: list[float] = field(default_factory=list)
    weights: list[np.ndarray] = field(default_factory=list)  # (64, 64) after each epoch


def train_and_log(cfg: Config, rate: float, folder: Path, batches: list) -> LoggedRun:
    from torch.utils.tensorboard import SummaryWriter

    model = make_model(cfg)
    run = LoggedRun(folder, model)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)

    # Between us and the file stand a queue and a thread; leaving the block empties the queue.
    with SummaryWriter(folder) as writer:
        for epoch in range(cfg.epochs):
            for batch in batches:
                loss = loop.step(model, batch, loop.cross_entropy, optimizer)
                writer.add_scalar("loss/train", loss.item(), len(run.losses))  # name, value, step
                run.losses.append(loss.item())

            # A copy, for the next step changes the weights where they are.
            weights = model[0].weight.detach().cpu().numpy().copy()
            writer.add_histogram("weight", weights, epoch)
            run.weights.append(weights)
    return run


def show_training(cfg: Config, logs: Path, train: tuple, val: tuple) -> dict[str, LoggedRun]:
    print("\n[1] Two runs, a folder each: a value goes in with a name and a step")
    x, y = train
    batches = list(zip(x.split(64), y.split(64)))
    runs = {}
    for name, rate in RATES.items():
        runs[name] = train_and_log(cfg, rate, logs / name, batches)
        print(f"  {name}: {len(runs[name].losses)} losses, the last {runs[name].losses[-1]:.2f}")

    read = []
    written = []
    for run in runs.values():
        read += [(event.step, event.value) for event in reader(run.folder).Scalars("loss/train")]
        written += enumerate(np.float32(run.losses))
    text = "TensorBoard's reader finds each step and loss as it was written, in float32"
    check("values", text, read == written)

    model = runs["slow"].model
    twin = make_model(cfg)
    optimizer = torch.optim.SGD(twin.parameters(), lr=RATES["slow"])
    fit(twin, batches, optimizer, loop.cross_entropy, epochs=cfg.epochs, quiet=True)
    text = "the shared fit(), which writes nothing, ends with the same weights"
    check_close("same", text, model[0].weight, twin[0].weight)
    x_val, y_val = val
    text = "of the unseen digits a share of {} is read rightly"
    depends_on_input("depends", text, model(x_val).argmax(dim=1), y_val)
    adam = torch.optim.Adam(twin.parameters(), lr=0.01)
    batch = (x[:32], y[:32])
    text = "32 samples are learned by heart: {}"
    overfits("overfits", text, twin, batch, loop.cross_entropy, adam)
    return runs


def crc32c(data: bytes) -> int:
    """The checksum CRC-32C: a remainder, the bits of the data being those of a polynomial."""
    # practice: A checksum by shifting
    remainder = 0xFFFFFFFF
    for byte in data:
        remainder = remainder ^ byte
        for _ in range(8):
            lowest_bit = remainder & 1
            remainder = remainder >> 1
            if lowest_bit:
                remainder = remainder ^ 0x82F63B78  # the divisor, its lowest bit in front
    return remainder ^ 0xFFFFFFFF
    # end practice


def seal(data: bytes) -> bytes:
    """The checksum as it stands in the file: turned by 15 bits, plus a constant, in 4 bytes."""
    crc = crc32c(data)
    turned = crc >> 15 | crc << 17
    masked = (turned + 0xA282EAD8) & 0xFFFFFFFF
    return masked.to_bytes(4, "little")


def read_records(content: bytes) -> tuple[list[bytes], int]:
    """The payloads of the whole records, and the place of the first byte that belongs to none.

    A record: 8 bytes length, 4 its seal, the payload, 4 the payload's seal. Where one is cut short
    or altered, reading ends.
    """
    payloads = []
    place = 0
    # No record takes less than 16 bytes, so there are no more than this.
    for _ in range(len(content) // 16):
        # practice: Read one record
        length = content[place : place + 8]
        start = place + 12
        end = start + int.from_bytes(length, "little")
        payload = content[start:end]

        # A slice beyond the end is only shorter, and its seal another one.
        if content[place + 8 : start] != seal(length) or content[end : end + 4] != seal(payload):
            break
        payloads.append(payload)
        place = end + 4
        # end practice
    return payloads, place


def show_records(run: LoggedRun) -> dict[str, int]:
    print("\n[2] The file: one record after the other; what is whole is read, whatever follows")
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader

    crc = crc32c(b"123456789")
    check(
        "known", f"the checksum of 123456789 is {crc:#X}, published: 0XE3069283", crc == 0xE3069283
    )
    [path] = run.folder.glob("events.out.tfevents.*")
    content = path.read_bytes()
    payloads, place = read_records(content)
    theirs = list(RawEventFileLoader(str(path)).Load())
    text = (
        f"the same records byte for byte: {len(payloads)} found by us, {len(theirs)} by TensorBoard"
    )
    check("records", text, payloads == theirs and place == len(content))

    loss = payloads[2]  # behind the version of the format and the loss of step 0
    print(f"  {loss.hex(' ')}")
    wanted = (1, b"loss/train", np.float32(run.losses[1]).tobytes())
    text = f"byte 10 is the step, from 17 stands the name, from 28 the loss {run.losses[1]:.6f}"
    check("by-hand", text, (loss[10], loss[17:27], loss[28:]) == wanted)

    sizes = [len(payload) + 16 for payload in payloads[:4]]
    ends = [0, *np.cumsum(sizes).tolist()]
    wrong = []
    for byte in range(ends[-1]):
        whole = max(number for number, end in enumerate(ends) if end <= byte)
        altered = bytearray(content[: ends[-1]])
        altered[byte] ^= 1
        expected = (payloads[:whole], ends[whole])
        if read_records(content[:byte]) != expected:
            wrong.append(f"cut at {byte}")
        if read_records(bytes(altered)) != expected:
            wrong.append(f"altered at {byte}")
    text = f"cut or altered at each of {ends[-1]} bytes, the records before it are found, except: "
    check("damage", text + (", ".join(wrong[:3]) or "none"), not wrong)
    return {"bytes_loss": len(loss) + 16, "bytes_histogram": max(map(len, payloads)) + 16}


def bucket_edges() -> np.ndarray:
    """The edges of all histograms, ascending: 0 and ±1e-12 · 1.1^k below 1e20."""
    grown = np.cumprod([1e-12] + [1.1] * 773)
    return np.concatenate([-grown[::-1], [0], grown])


def bucket_counts(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Right limit and count of each bucket, as in the file. values: (n,), within ±9e19

    A bucket holds its left edge. Listed are an empty bucket, then those from the first to the last
    that holds a value.
    """
    # practice: Count into buckets
    edges = bucket_edges()
    bucket = np.searchsorted(edges, values, side="right") - 1  # (n,): the edge on its left
    first = bucket.min()

    # The left edge of the first bucket is the right limit of the empty one.
    limits = edges[first : bucket.max() + 2]
    counts = np.bincount(bucket - first)
    return limits, np.concatenate([[0], counts])
    # end practice


def show_buckets(cfg: Config, runs: dict[str, LoggedRun]) -> None:
    print("\n[3] A histogram: counts in buckets whose limits grow by a tenth from one to the next")
    ours = []
    theirs = []
    for run in runs.values():
        events = reader(run.folder).Histograms("weight")
        for event, weights in zip(events, run.weights, strict=True):
            limits, counts = bucket_counts(weights.ravel())
            ours += [*limits, *counts]
            theirs += [*event.histogram_value.bucket_limit, *event.histogram_value.bucket]
    text = f"{len(theirs):,} limits and counts of both runs' weights are those in the files"
    check_close("buckets", text, ours, theirs)

    limits, _ = bucket_counts(np.array([-9e19, 9e19]))
    values = np.concatenate([limits[:-1], np.zeros(5), cfg.rng().normal(size=500)])
    _, counts = bucket_counts(values)
    expected, _ = np.histogram(values, limits)
    check_close("edges", "a value on an edge counts to the right of it", counts[1:], expected)


def show_picture(logs: Path, x: Tensor) -> None:
    print("\n[4] A picture is kept as a PNG, and what lies outside of 0 to 1 is lost")
    from PIL import Image
    from torch.utils.tensorboard import SummaryWriter

    # Below 0 and above 1, as pixels are after standardising.
    sheet = x[:8].reshape(64, 8).cpu().numpy() * 1.5 - 0.25  # (64, 8)
    with SummaryWriter(logs) as writer:
        writer.add_image("sheet", sheet, dataformats="HW")

    png = Image.open(io.BytesIO(reader(logs).Images("sheet")[0].encoded_image_string))
    pixels = np.floor(sheet * 255).clip(0, 255).astype(np.uint8)
    text = f"0 to 1 becomes 0 to 255; what lies below 0, {np.mean(sheet < 0):.0%}, is black"
    check_close("pixels", text, np.array(png.getchannel(0)), pixels)


def show_folders(cfg: Config, runs: dict[str, LoggedRun], logs: Path) -> None:
    print("\n[5] Two runs in one folder, as when a script with a fixed folder is started twice")
    from torch.utils.tensorboard import SummaryWriter

    for run in runs.values():
        with SummaryWriter(logs / "one-folder") as writer:
            for step, loss in enumerate(run.losses):
                writer.add_scalar("loss/train", loss, step)

    curves = {}
    for name in (*RATES, "one-folder"):
        events = reader(logs / name).Scalars("loss/train")
        curves[name] = np.array([(event.step, event.value) for event in events])  # (steps, 2)
    back = int((np.diff(curves["one-folder"][:, 0]) < 0).sum())
    text = f"in one folder the runs become one curve, whose step jumps back {back} time"
    check("zigzag", text, back == 1)
    draw_runs(cfg, curves, reader(logs / "fast").Histograms("weight"))
    print(f"  look around in it yourself:  tensorboard --logdir {shown(logs)}")


# Pictures and helpers: skip on a first reading


def draw_runs(cfg: Config, curves: dict[str, np.ndarray], histograms: list) -> None:
    figure, (left, middle, right) = new_figure(1, 3, size=(16, 5.4))
    colours = {"slow": ORANGE, "fast": BLUE, "one-folder": GREY}
    for (name, colour), axis in zip(colours.items(), [left, left, middle]):
        axis.plot(*curves[name].T, color=colour, linewidth=1.5, label=f"logs/{name}")
        axis.set(xlabel="step", ylabel="loss, as read from the log", ylim=(0, 2.5))
        axis.legend(loc="upper right")
    left.set_title("A folder each")
    middle.set_title("Both runs in one folder")

    edges = np.linspace(-0.6, 0.6, 61)  # like the viewer, spread the counts within their buckets
    for event in histograms:
        counted = np.cumsum(event.histogram_value.bucket)
        below = np.interp(edges, event.histogram_value.bucket_limit, counted)
        top = event.step - np.diff(below) / 150
        right.fill_between(edges[1:] - 0.01, event.step, top, color=SKY, ec="white")
    right.set(title="Weights, epoch by epoch", xlabel="weight", ylabel="epoch")
    right.set(ylim=(cfg.epochs, -3), yticks=range(0, cfg.epochs, 5))
    save_figure(figure, cfg.out / "runs")


def reader(folder: Path):
    """TensorBoard's own reader, told to keep all it finds (0), not a sample."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    keep_all = dict.fromkeys(("scalars", "histograms", "images"), 0)
    return EventAccumulator(str(folder), keep_all).Reload()


def make_model(cfg: Config) -> nn.Sequential:
    """(B, 64) -> (B, 10). The same seed gives the same first weights."""
    torch.manual_seed(cfg.seed)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    return model.to(cfg.torch_device())


def run(cfg: Config) -> dict[str, int]:
    data = load_images(cfg, "digits")
    logs = cfg.out / "logs"
    # Otherwise a second run of this script would add to the files of the first.
    for old in logs.rglob("events.out.tfevents.*"):
        old.unlink()

    train = loop.to_tensors(data, data.x_train, data.y_train)
    val = loop.to_tensors(data, data.x_val, data.y_val)
    train, val = to_device((train, val), cfg.torch_device())
    runs = show_training(cfg, logs, train, val)
    sizes = show_records(runs["fast"])
    show_buckets(cfg, runs)
    show_picture(logs / "others", train[0])
    show_folders(cfg, runs, logs)
    return sizes


if __name__ == "__main__":
    main(run, Config, __doc__)
