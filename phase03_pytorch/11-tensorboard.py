"""3.11 TensorBoard: what a run writes down, to the last byte
TensorBoard：训练写下了什么，逐字节看清楚

You will be able to answer
    1. How does a training write its curves, and how exactly?  show_training    overfits, input-matters, values
    2. What is a record made of, and why is its sum masked?    show_records     known, masked, records, by-hand
    3. What is left of the log of a run that was killed?       show_damage      cut, flips
    4. What does a histogram keep of a million numbers?        show_histograms  buckets, edges, ten-percent
    5. How are pictures, the graph and the settings kept?      show_others      pixels, graph, settings
    6. Why does every run need a folder of its own?            show_folders     zigzag, apart
Run       python phase03_pytorch/11-tensorboard.py               about 8 s
Needs     -
Reference RawEventFileLoader, np.histogram
"""

import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.checks import check, check_close, depends_on_input, overfits
from common.config import LessonConfig, main, param
from common.data.images import load_images
from common.figures import BLUE, GREY, ORANGE, SKY, new_figure, save_figure

RATES = {"slow": 0.1, "fast": 0.5}  # run: its learning rate


@dataclass
class Config(LessonConfig):
    epochs: int = param(16, "passes over the data, in each of two runs", tiny=4)


class LoggedRun:
    """A training that writes into a folder as it goes, and remembers what it wrote. x: (n, 8, 8)"""

    def __init__(self, cfg: Config, rate: float, folder: Path, x: Tensor, y: Tensor):
        from torch.utils.tensorboard import SummaryWriter

        torch.manual_seed(cfg.seed)
        self.model = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
        ).to(x.device)
        self.folder, self.writer, self.losses, self.weights = (
            folder,
            SummaryWriter(str(folder)),
            [],
            [],
        )
        optimizer = torch.optim.SGD(self.model.parameters(), rate)
        for epoch in range(cfg.epochs):
            for pick in torch.randperm(len(x)).to(x.device).split(64):
                loss = F.cross_entropy(self.model(x[pick]), y[pick])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                self.writer.add_scalar(
                    "loss/train", loss.item(), len(self.losses)
                )  # name, value, step
                self.losses.append(loss.item())
            self.weights.append(
                self.model[1].weight.detach().cpu().numpy().copy()
            )  # the next step would change it
            self.writer.add_histogram("weight", self.weights[-1], epoch)
        self.writer.flush()  # a queue and a thread stand between us and the file
        self.path = next(folder.glob("events.out.tfevents.*"))


def crc32c(data: bytes) -> int:
    """The rest of a division: data, taken as one long polynomial over 0 and 1, by a fixed one of degree 32."""
    # practice: a checksum by shifting
    # hint: start with 32 ones; put each byte into the lowest 8 bits by ^, then take 8 steps; at the end flip all bits
    # hint: a step: shift right by one; if the bit that fell out was 1, also ^ with 0x82F63B78
    rest = 0xFFFFFFFF
    for byte in data:
        rest ^= byte
        for _ in range(8):
            rest = rest >> 1 ^ 0x82F63B78 * (rest & 1)  # the polynomial, or 0
    # end practice
    return rest ^ 0xFFFFFFFF


def seal(data: bytes) -> bytes:
    """The checksum, masked (turned by 15 bits, shifted by a constant), as the 4 bytes that stand in the file."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8 & 0xFFFFFFFF).to_bytes(4, "little")


def records(content: bytes) -> tuple[list[bytes], str]:
    """The payload of each whole record, and what is wrong with the next one: "" if the file ends there.
    The bytes of a record: 8 length, 4 seal of these 8, the payload, 4 seal of the payload."""
    place, payloads = 0, []
    # practice: walk through a log
    # hint: int.from_bytes(content[a:b], "little"); a slice that reaches beyond the end is only shorter
    # hint: a loop while place < len(content); compare seals as bytes, for three of four are not equal to four
    while place < len(content):
        start, length = place + 12, content[place : place + 8]
        end = start + int.from_bytes(length, "little")
        if (
            seal(length) != content[place + 8 : start]
            or seal(content[start:end]) != content[end : end + 4]
        ):
            return (
                payloads,
                f"the record at byte {place} is cut short or altered; {len(payloads)} before it are whole",
            )
        payloads.append(content[start:end])
        place = end + 4
    # end practice
    return payloads, ""


def bucket_counts(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Right limit and count of each bucket, as in the file: an empty one, then from the first to the last full one.

    The edges of all histograms are 0 and ±1e-12 · 1.1^k up to 1e20; a bucket holds its left edge. values: (n,) inside
    """
    # practice: count into buckets
    # hint: np.cumprod([1e-12] + [1.1] * 773) grows up to 1e20; the edges: that turned round and negated, 0, and that
    # hint: np.searchsorted(edges, values, side="right"): how many edges lie at or below a value; np.bincount counts
    grown = np.cumprod([1e-12] + [1.1] * 773)
    edges = np.concatenate([-grown[::-1], [0], grown])
    place = np.searchsorted(edges, values, side="right") - 1
    limits = edges[
        place.min() : place.max() + 2
    ]  # the left edge of the first full bucket ends the empty one
    counts = np.concatenate([[0], np.bincount(place)[place.min() :]])
    # end practice
    return limits, counts


def accumulated(folder: Path):
    """What TensorBoard's own reader finds in the folder: all of it (0), of which its pages draw only a sample."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(
        str(folder), dict.fromkeys(("scalars", "histograms", "images"), 0)
    ).Reload()


def show_training(
    cfg: Config, logs: Path, x: Tensor, y: Tensor, x_val: Tensor, y_val: Tensor
) -> dict[str, LoggedRun]:
    print("\n[1] Two runs, a folder each: a value goes in with a name and a step")
    runs = {name: LoggedRun(cfg, rate, logs / name, x, y) for name, rate in RATES.items()}
    for run in runs.values():
        print(
            f"  {run.path.name}: {len(run.losses)} losses, {run.losses[0]:.2f} → {run.losses[-1]:.2f}"
        )
    check(
        "values",
        "TensorBoard's reader finds every step and its loss, exactly, as float32",
        all(
            [(event.step, event.value) for event in accumulated(run.folder).Scalars("loss/train")]
            == list(enumerate(np.float32(run.losses)))
            for run in runs.values()
        ),
    )
    depends_on_input(
        "input-matters", "the fast one looks at its input", run.model(x_val).argmax(dim=1), y_val
    )
    model = runs["slow"].model
    overfits(
        "overfits",
        "the slow one learns 32 fixed samples by Adam",
        model,
        (x[:32], y[:32]),
        lambda m, batch: F.cross_entropy(m(batch[0]), batch[1]),
        torch.optim.Adam(model.parameters(), lr=0.01),
    )
    return runs


def show_records(run: LoggedRun, rng: np.random.Generator) -> list[bytes]:
    print("\n[2] The file: one record after the other, and nothing else")
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader

    check(
        "known",
        "the checksum of 123456789 is the published one, E3069283",
        crc32c(b"123456789") == 0xE3069283,
    )
    some = [rng.bytes(n) for n in range(40)]
    bare = {crc32c(text + crc32c(text).to_bytes(4, "little")) for text in some}
    check(
        "masked",
        "text + its bare checksum: the checksum is the same whatever the text; text + seal: it is not",
        len(bare) == 1 and len({crc32c(text + seal(text)) for text in some}) == len(some),
    )
    payloads, damage = records(run.path.read_bytes())
    check(
        "records",
        f"ours finds the {len(payloads)} records that TensorBoard's reader finds, byte for byte",
        damage == "" and payloads == list(RawEventFileLoader(str(run.path)).Load()),
    )
    loss = payloads[2]  # after the version of the format, and the first loss
    print(f"  {loss.hex(' ')}")
    check(
        "by-hand",
        f"byte 10 is the step, from 17 stands the name, from 28 the loss: {run.losses[1]:.6f}",
        (loss[10], loss[17:27], loss[28:])
        == (1, b"loss/train", np.float32(run.losses[1]).tobytes()),
    )
    return payloads


def show_damage(run: LoggedRun, payloads: list[bytes]) -> None:
    print("\n[3] Cut and altered logs: what is whole is kept, what is not is noticed")
    ends = [sum(len(payload) + 16 for payload in payloads[:n]) for n in range(4)]
    content = run.path.read_bytes()[: ends[3]]
    results = [records(content[:cut]) for cut in range(ends[3] + 1)]
    check(
        "cut",
        f"cut after 0 to {ends[3]} bytes, whole records are kept and the cut is told: {results[-2][1]}",
        all(
            found == payloads[: sum(end <= cut for end in ends[1:])]
            and (message == "") == (cut in ends)
            for cut, (found, message) in enumerate(results)
        ),
    )
    one = int.from_bytes(content[ends[2] :], "little")  # a record as a number of 384 bits
    check(
        "flips",
        "one bit of a record altered: noticed, whichever of the 384 it is",
        all(records((one ^ 1 << bit).to_bytes(48, "little"))[1] for bit in range(384)),
    )


def show_histograms(runs: dict[str, LoggedRun], rng: np.random.Generator) -> None:
    print(
        "\n[4] A histogram: how many values lie in each of the buckets, whose limits grow by a tenth"
    )
    pairs = [
        (event.histogram_value, weight.ravel())
        for run in runs.values()
        for event, weight in zip(
            accumulated(run.folder).Histograms("weight"), run.weights, strict=True
        )
    ]
    check(
        "buckets",
        f"{len(pairs)} histograms read back: our limits and counts, every one",
        all(
            [part.tolist() for part in bucket_counts(values)] == [h.bucket_limit, h.bucket]
            for h, values in pairs
        ),
    )
    limits, _ = bucket_counts(np.array([-9e19, 9e19]))  # all but the last edges there are
    values = np.concatenate([limits[:-1], np.zeros(5), rng.normal(size=500)])
    check_close(
        "edges",
        "on the edges: as np.histogram",
        bucket_counts(values)[1][1:],
        np.histogram(values, limits)[0],
    )
    sizes = np.sort(np.abs(values[values != 0]))
    limits, counts = bucket_counts(sizes)
    told = limits[
        np.searchsorted(np.cumsum(counts), np.arange(1, len(sizes) + 1))
    ]  # where the k-th smallest lies
    check(
        "ten-percent",
        "a bucket's limit / a value in it: above 1.1 by",
        max(told / sizes) - 1.1,
        below=1e-12,
    )


def show_others(x: Tensor, run: LoggedRun) -> None:
    print(
        "\n[5] Pictures are PNGs, the graph is what one forward pass did, settings are a record too"
    )
    from PIL import Image
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    sheet = (
        x[:8].flatten(0, 1).cpu().numpy() * 1.5 - 0.25
    )  # below 0 and above 1, as after standardising
    pixels = np.floor(sheet * 255).clip(0, 255).astype(np.uint8)
    run.writer.add_image("bytes", pixels, dataformats="HW")
    run.writer.add_image("fractions", sheet, dataformats="HW")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # it uses torch.jit.trace, which is ageing
        run.writer.add_graph(run.model, x[:1])
    run.writer.add_hparams(
        {"lr": RATES["fast"], "optimizer": "SGD"}, {"result": 0.5}, run_name="settings"
    )
    run.writer.close()
    read, settings = accumulated(run.folder), accumulated(run.folder / "settings")
    check_close(
        "pixels",
        f"bytes come back; 0…1 becomes 0…255, what is below ({np.mean(sheet < 0):.0%}) black",
        [
            Image.open(io.BytesIO(read.Images(tag)[0].encoded_image_string)).getchannel(0)
            for tag in ("bytes", "fractions")
        ],
        [pixels, pixels],
    )
    check(
        "graph",
        "every module stands in it: Flatten[0], Linear[1], …",
        all(
            f"{type(module).__name__}[{name}]" in str(read.Graph())
            for name, module in run.model.named_children()
        ),
    )
    record = settings.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    found = HParamsPluginData.FromString(record).session_start_info.hparams
    check(
        "settings",
        "what was tried, and what came out",
        [
            found["lr"].number_value,
            found["optimizer"].string_value,
            settings.Scalars("result")[0].value,
        ]
        == [RATES["fast"], "SGD", 0.5],
    )


def show_folders(cfg: Config, runs: dict[str, LoggedRun], logs: Path) -> None:
    print("\n[6] Two runs in one folder, as when a script is simply started twice")
    from torch.utils.tensorboard import SummaryWriter

    for run in runs.values():
        with SummaryWriter(str(logs / "one-folder")) as writer:
            for step, loss in enumerate(run.losses):
                writer.add_scalar("loss/train", loss, step)
    read = {
        name: np.array(
            [(event.step, event.value) for event in accumulated(logs / name).Scalars("loss/train")]
        ).T
        for name in (*RATES, "one-folder")
    }  # (2, steps): the step, the loss
    back = {name: int((np.diff(steps) < 0).sum()) for name, (steps, _) in read.items()}
    check(
        "zigzag",
        "in one folder they become one curve, and its step jumps back",
        back["one-folder"],
        at_least=1,
    )
    check("apart", "each in its own: step after step", back["slow"] == back["fast"] == 0)
    figure, (left, middle, right) = new_figure(1, 3, size=(16, 5.4))
    for axis, name, colour in (
        (left, "slow", ORANGE),
        (left, "fast", BLUE),
        (middle, "one-folder", GREY),
    ):
        axis.plot(*read[name], color=colour, linewidth=1.5, label=f"logs/{name}")
        axis.set(
            title="Both runs in one folder",
            xlabel="step",
            ylabel="loss, as read from the log",
            ylim=(0, 2.5),
        )
        axis.legend(loc="upper right")
    left.set_title("A folder each")
    edges = np.linspace(-0.6, 0.6, 61)
    for event in accumulated(logs / "fast").Histograms(
        "weight"
    ):  # the file's buckets into even ones, for drawing
        below = np.interp(
            edges, event.histogram_value.bucket_limit, np.cumsum(event.histogram_value.bucket)
        )
        right.fill_between(
            edges[1:] - 0.01, event.step, event.step - np.diff(below) / 150, color=SKY, ec="white"
        )
    right.set(
        title="Weights",
        xlabel="weight",
        ylabel="epoch",
        ylim=(cfg.epochs, -3),
        yticks=range(0, cfg.epochs, 5),
    )
    save_figure(figure, cfg.out / "runs")
    print(f"  look around in it yourself:  tensorboard --logdir {logs}")


def run(cfg: Config) -> dict:
    data, logs = load_images(cfg, "digits"), cfg.out / "logs"
    for old in logs.rglob(
        "events.out.tfevents.*"
    ):  # or the second run of this script would be a zig-zag too
        old.unlink()
    parts = (data.x_train / np.float32(16), data.y_train, data.x_val / np.float32(16), data.y_val)
    x, y, x_val, y_val = (
        torch.from_numpy(part).to(cfg.torch_device()) for part in parts
    )  # x: (n, 8, 8), 0 to 1
    runs = show_training(cfg, logs, x, y, x_val, y_val)
    payloads = show_records(runs["fast"], cfg.rng())
    show_damage(runs["fast"], payloads)
    show_histograms(runs, cfg.rng())
    show_others(x, runs["fast"])
    show_folders(cfg, runs, logs)
    return {"bytes_loss": len(payloads[2]) + 16, "bytes_histogram": max(map(len, payloads)) + 16}


if __name__ == "__main__":
    main(run, Config, __doc__)
