"""3.10 Saving and loading: what must be kept, and what must not be trusted
保存与加载：哪些必须留下，哪些不能轻信

You will be able to answer
    1. What has to be saved of a model that has learned?       show_model        overfits, input-matters, back, alias
    2. What must be restored to go on as if uninterrupted?     show_resume       resumed, every-part, same-as-course
    3. How do you load a part, and know which part it was?     show_partial      body, shapes, prefix
    4. What lies in a file that cannot run code?               show_safetensors  tensors, by-hand
    5. How does a model run without its Python class?          show_export       exported, one-size
    6. Which files must be refused, and what would they do?    show_refusals     hostile, would-run, broken, whole-file
Run       python phase03_pytorch/10-model-save-load.py              about 10 s
Needs     -
"""

import copy
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector as flat

from common import checkpoint
from common.checks import check, check_close, depends_on_input, overfits
from common.config import LessonConfig, main, param
from common.data.images import load_images
from common.errors import LessonError
from common.figures import BLUE, GREY, ORANGE, new_figure, save_figure

PARTS = ("model", "optimizer", "schedule", "order", "dropout")


@dataclass
class Config(LessonConfig):
    epochs: int = param(12, "passes over the data, half of them before the stop", low=2)
    hidden_dim: int = param(64, "width of the hidden layer")


class Net(nn.Module):
    """A body that finds features, and a head that names them. (B, 64) -> (B, classes)"""

    def __init__(self, hidden: int, classes: int = 10):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Dropout(0.2))
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class Run:
    """Everything that decides how a training goes on. x: (n, 64), y: (n,)"""

    def __init__(self, cfg: Config, x: Tensor, y: Tensor):
        torch.manual_seed(cfg.seed)
        self.x, self.y, self.losses, self.model = x, y, [], Net(cfg.hidden_dim)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda epoch: 0.9**epoch)
        self.order = torch.Generator().manual_seed(cfg.seed)  # draws the order of the samples
        self.dropout = torch.default_generator  # the global one, which everybody draws from

    def train(self, epochs: int) -> nn.Module:
        self.model.train()
        for _ in range(epochs):
            for pick in torch.randperm(len(self.x), generator=self.order).split(64):
                loss = F.cross_entropy(self.model(self.x[pick]), self.y[pick])
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                self.losses.append(loss.item())
            self.schedule.step()
        return self.model

    def state_dict(self) -> dict[str, Any]:
        # practice: all that the next step depends on
        # hint: three parts have a state_dict(), the two generators a get_state()
        # hint: a state_dict shares memory with its part, and training goes on in there: give a deepcopy away
        state = {
            name: getattr(self, name).state_dict() for name in ("model", "optimizer", "schedule")
        }
        state["order"] = self.order.get_state()
        state["dropout"] = self.dropout.get_state()
        return copy.deepcopy(state)
        # end practice

    def load_state_dict(self, state: dict[str, Any], parts: tuple[str, ...] = PARTS) -> None:
        # practice: put the parts back
        # hint: the reverse, part by part: load_state_dict for three of them, set_state for a torch.Generator
        # hint: for name in parts: part = getattr(self, name)
        for name in parts:
            part = getattr(self, name)
            put_back = part.set_state if isinstance(part, torch.Generator) else part.load_state_dict
            put_back(state[name])
        # end practice


def load_matching(model: nn.Module, state: dict[str, Tensor]) -> dict[str, list[str]]:
    """Load what fits by name and shape, and report: what was loaded, what the model misses, what was left over."""
    # practice: a partial load that hides nothing
    # hint: an entry fits if the model has its name, with the same shape; what does not fit is left over
    # hint: load_state_dict(fits, strict=False) returns .missing_keys
    ours = model.state_dict()
    fits = {
        name: values
        for name, values in state.items()
        if name in ours and ours[name].shape == values.shape
    }
    missing = model.load_state_dict(fits, strict=False).missing_keys
    left = [name for name in state if name not in fits]
    # end practice
    return {"loaded": list(fits), "missing": missing, "left over": left}


@dataclass
class Payload:
    """A pickle is a program: it may call any function with any arguments. This one only makes an empty file."""

    marker: Path

    def __reduce__(self) -> tuple:
        return open, (str(self.marker), "w")


def error_of(function: Any, *args: Any) -> str:
    try:
        function(*args)
    except (LessonError, RuntimeError, AssertionError, TypeError) as error:
        return str(error).splitlines()[0]
    return ""


def show_model(cfg: Config, run: Run, folder: Path, x_val: Tensor, y_val: Tensor) -> None:
    print("\n[1] A state_dict is names and numbers; the class stays in your code")
    new, model, other = Net(cfg.hidden_dim), run.model.eval(), Run(cfg, run.x, run.y)
    overfits(
        "overfits",
        "a new model learns 32 fixed samples",
        new,
        (run.x[:32], run.y[:32]),
        lambda m, batch: F.cross_entropy(m(batch[0]), batch[1]),
        torch.optim.Adam(new.parameters(), lr=0.03),
        steps=200,
    )
    depends_on_input(
        "input-matters", "the trained one looks at its input", model(x_val).argmax(dim=1), y_val
    )
    torch.save(model.state_dict(), folder / "model.pt")
    new.eval().load_state_dict(torch.load(folder / "model.pt", weights_only=True))
    check(
        "back",
        "by a file into the new one: the same outputs, bit for bit",
        torch.equal(new(x_val), model(x_val)),
    )
    kept, copied = other.model.state_dict(), other.state_dict()["model"]
    other.model.head.bias.data += 1  # training goes on
    check_close(
        "alias",
        "a state_dict that you keep goes on changing with its model, our deepcopy does not",
        kept["head.bias"],
        copied["head.bias"] + 1,
    )


def show_resume(cfg: Config, whole: Run, folder: Path) -> dict[str, float]:
    print("\n[2] Stop half-way, begin a new process, go on: as if nothing had happened")
    half, rest, ends, losses = Run(cfg, whole.x, whole.y), cfg.epochs - cfg.epochs // 2, {}, {}
    half.train(cfg.epochs // 2)
    torch.save(half.state_dict(), folder / "last.pt")
    checkpoint.Checkpoint(folder / "course.pt", run=half).save(
        [{"epoch": n + 1} for n in range(cfg.epochs // 2)]
    )
    lost = {f"no {name}": tuple(part for part in PARTS if part != name) for name in PARTS}
    for name, parts in {"all": PARTS, **lost, "weights only": PARTS[:1]}.items():
        again = Run(cfg, whole.x, whole.y)
        torch.manual_seed(cfg.seed + 1)  # another process has drawn other numbers
        again.load_state_dict(torch.load(folder / "last.pt", weights_only=True), parts)
        ends[name] = (
            (flat(again.train(rest).parameters()) - flat(whole.model.parameters()))
            .abs()
            .max()
            .item()
        )
        losses[name] = again.losses
    check(
        "resumed",
        "all five parts restored: losses and weights of the uninterrupted run, bit for bit",
        ends["all"] == 0 and half.losses + losses["all"] == whole.losses,
    )
    check(
        "every-part",
        "leave any of them out, and a weight ends elsewhere, by",
        min(list(ends.values())[1:]),
        above=0,
    )
    again = Run(cfg, whole.x, whole.y)
    checkpoint.Checkpoint(folder / "course.pt", resume=True, run=again).restore()
    check(
        "same-as-course",
        "common.checkpoint, which `fit` uses, leads to the same weights",
        torch.equal(flat(again.train(rest).parameters()), flat(whole.model.parameters())),
    )
    figure, (left, right) = new_figure(1, 2, size=(13, 4.8))
    losses["uninterrupted"] = whole.losses[len(half.losses) :]
    for name, colour, width in (
        ("uninterrupted", GREY, 8),
        ("weights only", ORANGE, 2.5),
        ("all", BLUE, 2.5),
    ):
        left.plot(losses[name][:30], color=colour, linewidth=width, label=name)
    left.set(
        title="The first 30 steps after the stop", xlabel="step", ylabel="loss", ylim=(0, None)
    )
    left.legend(loc="lower center", ncols=3)
    right.bar_label(
        right.barh(list(ends)[::-1], list(ends.values())[::-1], color=ORANGE), fmt="%.2g", padding=4
    )
    right.set(title="Restored, and how far off at the end", xlabel="largest difference of a weight")
    save_figure(figure, cfg.out / "resume")
    return {"lost_optimizer": ends["no optimizer"], "weights_only": ends["weights only"]}


def show_partial(cfg: Config, run: Run) -> None:
    print("\n[3] A part of a model: strict=False is silent, so ask for a report")
    trained, two = run.model.state_dict(), Net(cfg.hidden_dim, classes=2)
    report = load_matching(two, trained)
    check(
        "body",
        f"a body for a new head: {report}",
        report["left over"] == ["head.weight", "head.bias"] == report["missing"]
        and torch.equal(two.body[0].weight, run.model.body[0].weight),
    )
    check(
        "shapes",
        "strict=False forgives names, not shapes",
        "Error" in error_of(two.load_state_dict, trained, False),
    )
    wrapped = {
        f"module.{name}": values for name, values in trained.items()
    }  # as DataParallel names them
    silent, report = two.load_state_dict(wrapped, strict=False), load_matching(two, wrapped)
    check(
        "prefix",
        f"a prefix on every name: torch says nothing, and loads nothing; the report: {report['loaded']}",
        [report["missing"], report["left over"]]
        == [silent.missing_keys, silent.unexpected_keys]
        != [[], []],
    )


def show_safetensors(run: Run, folder: Path) -> None:
    print("\n[4] safetensors: a header in JSON, then the numbers; there is nothing in it to run")
    try:
        from safetensors.torch import load_file, save_file
    except ImportError:
        return print(
            '  not judged: python -m pip install -c constraints.txt -e ".[all]" installs safetensors'
        )
    path, state = folder / "model.safetensors", run.model.state_dict()
    save_file(state, path)
    check(
        "tensors",
        "every tensor comes back",
        all(torch.equal(state[name], v) for name, v in load_file(path).items()),
    )
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")  # 8 bytes: how long the header is
    entry = json.loads(content[8:start])["head.bias"]
    ours = np.frombuffer(content[start:][slice(*entry["data_offsets"])], np.float32)
    check_close(
        "by-hand", f"head.bias by hand, from {entry}", ours, state["head.bias"], rtol=0, atol=0
    )


def show_export(run: Run, folder: Path) -> None:
    print("\n[5] torch.export: the graph and its weights in one file, to be run without the class")
    model, two, sizes = run.model.eval(), (run.x[:2],), (1, 2, 7, len(run.x))
    any_size = {0: torch.export.Dim.DYNAMIC}  # axis 0 of the input
    torch.export.save(
        torch.export.export(model, two, dynamic_shapes=(any_size,)), folder / "net.pt2"
    )
    program = torch.export.load(folder / "net.pt2").module()
    check_close(
        "exported",
        f"saved and loaded, it gives what the model gives, for {sizes} samples",
        torch.cat([program(run.x[:n]) for n in sizes]),
        torch.cat([model(run.x[:n]) for n in sizes]),
    )
    error = error_of(torch.export.export(model, two).module(), run.x[:7])
    check(
        "one-size", f"without dynamic_shapes it takes only as many as it saw: {error}", "2" in error
    )


def show_refusals(cfg: Config, run: Run, folder: Path) -> None:
    print("\n[6] A checkpoint from elsewhere is a program, unless it is refused")
    path, marker, last = folder / "hostile.pt", folder / "marker", folder / "course.pt"
    torch.save({"head.bias": torch.zeros(10), "head.weight": Payload(marker)}, path)
    names, error = (
        torch.serialization.get_unsafe_globals_in_checkpoint(path),
        error_of(checkpoint.load, path),
    )
    check(
        "hostile",
        f"it calls {names}; it{error.partition('.pt')[2]}",
        "run code" in error and not marker.exists(),
    )
    torch.load(path, weights_only=False)[
        "head.weight"
    ].close()  # harmless, and in a folder of its own
    check(
        "would-run",
        "with weights_only=False it was: here is a file that nobody asked for",
        marker.exists(),
    )
    before = last.read_bytes()
    half, other = folder / "half.pt", Run(Config(hidden_dim=cfg.hidden_dim + 1), run.x, run.y)
    half.write_bytes(before[: len(before) // 2])
    errors = [
        error_of(checkpoint.load, half),
        error_of(checkpoint.Checkpoint(last, resume=True, run=other).restore),
    ]
    print(f"  {errors[0].partition(folder.name)[2]}\n  {errors[1].partition(folder.name)[2]}")
    check(
        "broken",
        "half a file, and one of another model: refused in one sentence each",
        "half.pt is damaged" in errors[0] and "course.pt belongs to another model" in errors[1],
    )
    error = error_of(
        checkpoint.save, last, {"weights": run.model.state_dict(), "x": (x for x in run.x)}
    )
    check(
        "whole-file",
        f"a save that breaks off ({error}) leaves the old file",
        error and last.read_bytes() == before,
    )


def run(cfg: Config) -> dict:
    data = load_images(cfg, "digits")
    x, x_val = (
        torch.from_numpy(part).flatten(1).float() / data.brightest
        for part in (data.x_train, data.x_val)
    )
    whole = Run(cfg, x, torch.from_numpy(data.y_train))
    whole.train(cfg.epochs)
    with tempfile.TemporaryDirectory() as name:
        show_model(cfg, whole, Path(name), x_val, torch.from_numpy(data.y_val))
        results = show_resume(cfg, whole, Path(name))
        show_partial(cfg, whole)
        show_safetensors(whole, Path(name))
        show_export(whole, Path(name))
        show_refusals(cfg, whole, Path(name))
    return results


if __name__ == "__main__":
    main(run, Config, __doc__)
