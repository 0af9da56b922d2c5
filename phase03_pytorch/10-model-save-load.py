"""3.10 Saving and loading: what must be kept, and what must not be trusted
保存与加载：哪些必须保存，哪些不可信任

You will be able to answer
    1. What does a state_dict hold, what not?   show_model    overfits, depends, back
    2. What must be kept to go on training?     show_resume   snapshot, same-run, every-part
    3. How do you load a part, and know which?  show_partial  body, prefix
    4. Which files can run code, which not?     show_formats  refused, would-run, by-hand
    5. How does a model run without its class?  show_export   exported
Predict   moved: a run resumes with its weights only; what share of them (0 to 1) ends elsewhere?
Run       python phase03_pytorch/10-model-save-load.py              about 10 s
Needs     phase03_pytorch/09-training-loop
Reference -
"""

import copy
import json
import pickle
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.checks import check, check_close, depends_on_input, overfits
from common.config import LessonConfig, main, param
from common.data.images import load_images
from common.figures import ORANGE, new_figure, save_figure
from common.lessons import load_lesson

loop = load_lesson("phase03_pytorch/09-training-loop")
PARTS = ("model", "optimizer", "schedule", "order", "dropout")
DTYPES = {"F32": torch.float32, "I64": torch.int64}


@dataclass
class Config(LessonConfig):
    epochs: int = param(12, "passes over the data, half of them before the stop", low=4)
    batch_size: int = param(64, "samples in one step")
    hidden_dim: int = param(80, "width of the hidden layer")
    dropout: float = param(0.2, "share of the hidden values that is dropped")
    lr: float = param(0.05, "learning rate of the first epoch")


class Classifier(nn.Module):
    """A body that finds features, and a head that names them. (B, 64) -> (B, classes)"""

    def __init__(self, cfg: Config, classes: int):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, cfg.hidden_dim), nn.ReLU(), nn.Dropout(cfg.dropout))
        self.head = nn.Linear(cfg.hidden_dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class Training:
    """A training with all that decides how it goes on. x: (n, 64), y: (n,)"""

    def __init__(self, cfg: Config, x: Tensor, y: Tensor):
        torch.manual_seed(cfg.seed)
        self.x = x
        self.y = y
        self.batch_size = cfg.batch_size
        self.losses = []
        self.model = Classifier(cfg, classes=10)
        self.optimizer = torch.optim.SGD(self.model.parameters(), cfg.lr, momentum=0.9)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda epoch: 0.9**epoch)
        self.order = torch.Generator().manual_seed(cfg.seed)

    def train(self, epochs: int) -> None:
        self.model.train()
        for _ in range(epochs):
            order = torch.randperm(len(self.x), generator=self.order)
            for chosen in order.split(self.batch_size):
                batch = (self.x[chosen], self.y[chosen])
                loss = loop.step(self.model, batch, loop.cross_entropy, self.optimizer)
                self.losses.append(loss.item())
            self.schedule.step()

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on, one entry for each of PARTS, in memory of its own."""
        # practice: Collect the state of a training
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "order": self.order.get_state(),
            # Dropout draws from the global generator, as everybody does who names no other.
            "dropout": torch.get_rng_state(),
        }
        # The tensors in there are the model's and the optimizer's own; training goes on in them.
        return copy.deepcopy(state)
        # end practice

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.order.set_state(state["order"])
        torch.set_rng_state(state["dropout"])


def show_model(cfg: Config, whole: Training, val: tuple[Tensor, Tensor], folder: Path) -> None:
    print("\n[1] A state_dict is names and numbers; the class stays in your code")
    x, y = val
    model = whole.model.eval()
    print(f"  {', '.join(model.state_dict())}")
    new = Classifier(cfg, classes=10)
    batch = (whole.x[:32], whole.y[:32])
    adam = torch.optim.Adam(new.parameters(), lr=0.03)
    overfits("overfits", "a new model learns 32 samples: {}", new, batch, loop.cross_entropy, adam)
    text = "the trained one reads a share of {} of the validation digits rightly"
    depends_on_input("depends", text, model(x).argmax(dim=1), y)

    torch.save(model.state_dict(), folder / "model.pt")
    new.load_state_dict(torch.load(folder / "model.pt", weights_only=True))
    text = "through a file into the new model: the same outputs, bit for bit"
    check("back", text, torch.equal(new.eval()(x), model(x)))


def show_resume(cfg: Config, whole: Training, folder: Path) -> tuple[dict, dict]:
    print("\n[2] Stop half-way and go on in a new process, as if nothing had happened")
    stop = cfg.epochs // 2
    half = Training(cfg, whole.x, whole.y)
    half.model.eval()  # as after a look at the validation data
    half.train(stop)
    print(f"  stopped after {stop} epochs, at a loss of {half.losses[-1]:.3f}")
    kept = half.state_dict()
    torch.save(kept, folder / "last.pt")

    # The file cannot change any more, so it says what the state was.
    half.train(1)
    saved = torch.load(folder / "last.pt", weights_only=True)
    wrong = [part for part in PARTS if part not in kept or not same(kept[part], saved[part])]
    text = "of the five parts, left out or changed by one more epoch of training: "
    check("snapshot", text + (", ".join(wrong) or "none"), not wrong)

    restored = {"all five": PARTS, "weights only": ("model",)}
    for lost in PARTS:
        restored[f"no {lost}"] = tuple(part for part in PARTS if part != lost)
    resumed = {}
    off = {}  # of each weight, how far it ends from where the uninterrupted run ends
    for name, parts in restored.items():
        again = Training(cfg, whole.x, whole.y)
        torch.manual_seed(cfg.seed + 1)  # a new process draws other numbers
        state = again.state_dict()
        saved = torch.load(folder / "last.pt", weights_only=True)
        again.load_state_dict(state | {part: saved[part] for part in parts})
        again.train(cfg.epochs - stop)
        resumed[name] = again
        off[name] = (loop.flat(again.model) - loop.flat(whole.model)).abs()

    ours = [*resumed["all five"].losses, off["all five"].max()]
    wanted = [*whole.losses[-len(ours) + 1 :], 0]
    text = "all five parts restored: the losses and weights of the uninterrupted run, bit for bit"
    check_close("same-run", text, ours, wanted, rtol=0, atol=0)
    ends = {name: each.max().item() for name, each in off.items()}
    least = min([name for name in ends if name != "all five"], key=ends.get)
    text = f"each part matters: in the nearest case, “{least}”, some weight ends {{}} away"
    check("every-part", text, ends[least], above=1e-3)
    moved = (off["weights only"] > 0).float().mean().item()
    print(f"  with the weights only, a share of {moved:.3f} of the weights ends elsewhere")
    return {"moved": moved, "largest": ends["weights only"]}, ends


def load_matching(model: nn.Module, state: dict[str, Tensor]) -> dict[str, list[str]]:
    """Load what fits the model by name and shape, and say what became of each name.

    Returns {"loaded": …, "missing": …, "left over": …}: names of both, of the model, of the state.
    """
    # practice: A partial load that hides nothing
    ours = model.state_dict()
    fits = {}
    left_over = []
    for name, values in state.items():
        if name in ours and ours[name].shape == values.shape:
            fits[name] = values
        else:
            left_over.append(name)

    missing = [name for name in ours if name not in fits]
    model.load_state_dict(fits, strict=False)
    return {"loaded": list(fits), "missing": missing, "left over": left_over}
    # end practice


def show_partial(cfg: Config, whole: Training) -> None:
    print("\n[3] A part of a model: strict=False raises nothing, so read what became of each name")
    trained = whole.model.state_dict()
    two = Classifier(cfg, classes=2)
    head = copy.deepcopy(two.head.state_dict())
    report = load_matching(two, trained)
    for what, names in report.items():
        print(f"  {what:<10} {', '.join(names)}")
    told = {what: set(names) for what, names in report.items()}
    heads = {"head.weight", "head.bias"}
    expected = {"loaded": {"body.0.weight", "body.0.bias"}, "missing": heads, "left over": heads}
    body = same(two.body.state_dict(), whole.model.body.state_dict())
    text = "a head of 2 classes gets the trained body, keeps its own weights, and is told so"
    check("body", text, told == expected and body and same(head, two.head.state_dict()))

    # As DataParallel names them.
    wrapped = {f"module.{name}": values for name, values in trained.items()}
    returned = two.load_state_dict(wrapped, strict=False)
    report = load_matching(two, wrapped)
    counts = [len(report[what]) for what in ("loaded", "missing", "left over")]
    text = f"a prefix on all names: no error, though {len(returned.missing_keys)} are missing; we "
    text += "count {} loaded, {} missing, {} left over".format(*counts)
    check("prefix", text, counts == [0, 4, 4])


@dataclass
class Payload:
    """A pickle may name any function to be called when it is loaded. This one makes a file."""

    marker: Path

    def __reduce__(self) -> tuple[Callable, tuple[str, str]]:
        return open, (str(self.marker), "w")


def read_safetensors(content: bytes) -> dict[str, Tensor]:
    """The tensors in the bytes of a safetensors file. There is nothing in it that could be run.

    The first 8 bytes say how long the header is, little-endian. The header is JSON: for each name
    dtype (see DTYPES), shape, and data_offsets, which count from the header's end. The name
    __metadata__ is no tensor: it holds remarks of whoever wrote the file.
    """
    # practice: Read a safetensors file
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    numbers = content[8 + length :]

    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        memory = bytearray(numbers[begin:end])  # a copy, for bytes cannot be written to
        values = torch.frombuffer(memory, dtype=DTYPES[entry["dtype"]])
        tensors[name] = values.reshape(entry["shape"])
    return tensors
    # end practice


def show_formats(cfg: Config, whole: Training, folder: Path) -> None:
    print("\n[4] A .pt file is a program unless it is refused; safetensors holds numbers only")
    path = folder / "hostile.pt"
    marker = folder / "marker"
    torch.save({"head.bias": torch.zeros(10), "head.weight": Payload(marker)}, path)
    print(f"  it would call {torch.serialization.get_unsafe_globals_in_checkpoint(path)}")
    refused = False
    try:
        torch.load(path, weights_only=True)
    except pickle.UnpicklingError:
        refused = True
    text = "weights_only=True refuses it, and runs nothing"
    check("refused", text, refused and not marker.exists())
    torch.load(path, weights_only=False)["head.weight"].close()
    check("would-run", "weights_only=False runs it: a file nobody asked for", marker.exists())

    header = b"""{"__metadata__": {"format": "pt"},
        "count": {"dtype": "I64", "shape": [], "data_offsets": [24, 32]},
        "w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}"""
    content = struct.pack("<Q", len(header)) + header + struct.pack("<6fq", 1, 2, 3, 4, 5, 6, -7)
    ours = {name: values.tolist() for name, values in read_safetensors(content).items()}
    text = f"{len(content)} bytes made by hand are read as {ours}"
    check("by-hand", text, ours == {"count": -7, "w": [[1, 2, 3], [4, 5, 6]]})


def show_export(cfg: Config, whole: Training, folder: Path) -> None:
    print("\n[5] torch.export: the graph and its weights in one file, to be run without the class")
    model = whole.model.eval()
    any_size = {0: torch.export.Dim.DYNAMIC}  # axis 0 of the input
    program = torch.export.export(model, (whole.x[:2],), dynamic_shapes=(any_size,))
    torch.export.save(program, folder / "model.pt2")
    loaded = torch.export.load(folder / "model.pt2").module()
    calls = [node.name for node in loaded.graph.nodes if node.op == "call_function"]
    print(f"  loaded is no Classifier but a graph that begins with {' and '.join(calls[:2])}")
    ours = torch.cat([loaded(whole.x[:size]) for size in (1, 2, 7, 200)])
    eager = torch.cat([model(whole.x[:size]) for size in (1, 2, 7, 200)])
    check_close("exported", "loaded, it gives the model's outputs at 4 batch sizes", ours, eager)


# Pictures and helpers: skip on a first reading


def draw_resume(cfg: Config, ends: dict[str, float]) -> None:
    figure, axis = new_figure(size=(9, 4.4))
    names = list(ends)[::-1]
    bars = axis.barh(names, [ends[name] for name in names], color=ORANGE)
    axis.bar_label(bars, fmt="%.2g", padding=4)
    axis.margins(x=0.12)
    axis.set(xlabel="largest difference of a weight, at the end", ylabel="restored")
    axis.set_title("How far from the run that never stopped")
    save_figure(figure, cfg.out / "resume")


def same(a: Any, b: Any) -> bool:
    """Whether two states hold the same names, numbers and tensors, bit for bit."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(same(*pair) for pair in zip(a, b))
    return type(a) is type(b) and a == b


def run(cfg: Config) -> dict[str, float]:
    data = load_images(cfg, "digits")
    val = loop.to_tensors(data, data.x_val, data.y_val)
    whole = Training(cfg, *loop.to_tensors(data, data.x_train, data.y_train))
    whole.train(cfg.epochs)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        show_model(cfg, whole, val, folder)
        numbers, ends = show_resume(cfg, whole, folder)
        show_partial(cfg, whole)
        show_formats(cfg, whole, folder)
        show_export(cfg, whole, folder)
    draw_resume(cfg, ends)
    return numbers


if __name__ == "__main__":
    main(run, Config, __doc__)
