"""The fast CNN and its note: bad input, a kill, two processes, and what the note says."""

import itertools
import math
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import start_engine
from test_lessons_run import JOBS

from common import checkpoint
from common.config import execute
from common.lessons import ROOT, load_lesson

project = load_lesson("phase05_cnn/project-cifar10")
SCRIPT = ROOT / "phase05_cnn" / "project-cifar10.py"
# Trains networks on 32 pictures, in one process or under torchrun, and saves their weights.
WORKER = """
import sys
import torch
from common import processes
from common.lessons import load_lesson

project = load_lesson("phase05_cnn/project-cifar10")
number = processes.start()
found = {}
for kind, schedule in (("float64", "24:1"), ("float64", "24:5,32:5"), ("float32", "24:1")):
    dtype = getattr(torch, kind)
    torch.set_default_dtype(dtype)
    project.to_numbers = lambda x: x.to(dtype) / 127.5 - 1
    cfg = project.Config(device="cpu", precision="float32", batch_size=32)
    cfg.widths = "8,16,16"
    cfg.schedule = schedule
    torch.manual_seed(0)
    x = torch.randint(0, 256, (32, 3, 32, 32), dtype=torch.uint8)
    model, _ = project.train(cfg, (x, torch.arange(32) % 10), seed=0)
    found[f"{kind} {schedule}"] = model.state_dict()
if number == 0:
    torch.save(found, sys.argv[1])
"""


def run(out: Path, *argv: str) -> int:
    flags = ["--tiny", "--ladder", "0", "--device", "cpu", "--out", str(out)]
    return execute(project.run, project.Config, project.__doc__, [*flags, *argv])


def sentence(capsys: pytest.CaptureFixture) -> str:
    """What stands on stderr: one sentence and no trace."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and lines[0].endswith("."), lines
    return lines[0]


def randn(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def config(**settings) -> project.Config:
    given = {"widths": "8,16,16", "schedule": "24:2,32:3", "batch_size": 32} | settings
    return project.Config(device="cpu", precision="float32", **given)


# ---- bad input


def test_a_class_that_does_not_exist(tmp_path: Path, capsys) -> None:
    assert run(tmp_path, "--classes", "circle,dragon") == 1
    assert "--classes takes two or more of: " in sentence(capsys)


@pytest.mark.parametrize("classes", ["circle", "circle,circle", ","])
def test_one_class_is_too_few(classes: str) -> None:
    with pytest.raises(project.LessonError, match="two or more of: circle, square"):
        project.settle(config(classes=classes), ("circle", "square", "star"))


def test_classes_come_in_the_order_in_which_they_are_named() -> None:
    names = project.settle(config(classes="star, circle"), ("circle", "square", "star"))
    assert names == ["star", "circle"]
    pictures = np.arange(4 * 2 * 3 * 3, dtype=np.uint8).reshape(4, 2, 3, 3)
    part = (pictures, np.array([0, 1, 2, 0]))
    x, y = project.choose(part, names, ("circle", "square", "star"))
    assert y.tolist() == [1, 0, 1]
    np.testing.assert_array_equal(x.permute(0, 2, 3, 1), pictures[[0, 2, 3]])


@pytest.mark.parametrize("wrong", [{"widths": "8,16"}, {"schedule": "24"}, {"schedule": "32:0"}])
def test_a_wrong_recipe(wrong: dict) -> None:
    with pytest.raises(project.LessonError, match="Write --widths as in"):
        project.settle(config(**wrong), ("circle", "square"))


@pytest.mark.parametrize(
    "bfloat16, chosen", [(0.8, "bfloat16"), (0.95, "float32"), (30, "float32")]
)
def test_the_faster_precision_is_chosen(monkeypatch, bfloat16: float, chosen: str) -> None:
    seconds = {torch.float32: 1.0, torch.bfloat16: bfloat16}
    monkeypatch.setattr(project, "matmul_seconds", lambda cfg, dtype: seconds[dtype])
    cfg = config()
    cfg.precision = "auto"
    project.settle(cfg, ("circle", "square"))
    assert cfg.precision == chosen


def test_the_choice_is_made_in_seconds_by_any_cpu() -> None:
    """A CPU without bfloat16 took five minutes, when the matrices had 2048 rows."""
    start = time.perf_counter()
    assert 0 < project.matmul_seconds(config(), torch.bfloat16) < 10
    assert time.perf_counter() - start < 30


def test_a_cifar10_file_that_was_cut_short(tmp_path: Path, capsys) -> None:
    whole = tmp_path / "whole.npz"
    np.savez(whole, x_train=np.zeros((9, 32, 32, 3), np.uint8), y_train=np.zeros(9, np.int64))
    (tmp_path / "cifar10.npz").write_bytes(whole.read_bytes()[:5000])
    assert run(tmp_path / "out", "--data", "cifar10", "--data-dir", str(tmp_path)) == 1
    assert "cifar10.npz" in sentence(capsys)


@pytest.fixture(scope="module")
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the tiny run left that test_lessons_run judges: nothing is trained twice."""
    outcome = start_engine(request.config).result(JOBS["05/project-cifar10"])
    assert outcome.code == 0, outcome
    return Path(shutil.copytree(outcome.out, tmp_path_factory.mktemp("trained") / "out"))


def test_the_state_of_another_architecture(trained: Path, tmp_path: Path, capsys) -> None:
    """A ResNet's weights in the place of ours: the sentence names keys that are missing."""
    import torchvision

    state = checkpoint.load(trained / "training-0.pt")
    state["members"]["model"] = torchvision.models.resnet18().state_dict()
    checkpoint.save(tmp_path / "training-0.pt", state)
    assert run(tmp_path, "--resume") == 1
    assert '"first.weight"' in sentence(capsys)


def test_resuming_with_other_settings(trained: Path, tmp_path: Path, capsys) -> None:
    shutil.copy(trained / "training-0.pt", tmp_path)
    assert run(tmp_path, "--resume", "--shift", "1") == 1
    assert "another --shift" in sentence(capsys)


# ---- a kill, and two processes


def start(place: Path, *command: str | Path) -> subprocess.Popen:
    """A command in the repository, on one thread, whose caches lie in `place`."""
    places = {name: str(place) for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME", "TMPDIR")}
    return subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        encoding="utf-8",
        env=os.environ | places | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.full
def test_kill_and_resume_gives_the_same_weights(tmp_path: Path) -> None:
    """kill -9 in the middle of training, then the same command with --resume."""

    def train(out: str, *argv: str) -> subprocess.Popen:
        flags = ["--tiny", "--ladder", "0", "--device", "cpu", "--schedule", "24:6,32:6"]
        return start(tmp_path, SCRIPT, *flags, "--out", tmp_path / out, *argv)

    assert train("whole").communicate()[0] and (tmp_path / "whole" / "result.json").exists()
    with train("killed") as process:
        for line in process.stdout:
            if line.startswith("  epoch 5"):
                process.kill()
    assert not (tmp_path / "killed" / "result.json").exists()
    with train("killed", "--resume") as process:
        output = process.stdout.read()
    assert process.returncode == 0 and "resumed after epoch " in output, output
    assert "resumed after epoch 12" not in output

    whole, resumed = (
        checkpoint.load(tmp_path / out / "training-0.pt") for out in ("whole", "killed")
    )
    assert whole["history"] == resumed["history"] and len(whole["history"]) == 12
    for name in ("model", "slow", "batches"):
        torch.testing.assert_close(resumed["members"][name], whole["members"][name], rtol=0, atol=0)
    for one, two in zip(
        *(each["members"]["optimizer"]["state"].values() for each in (whole, resumed))
    ):
        torch.testing.assert_close(two, one, rtol=0, atol=0)


def test_a_step_takes_the_mean_gradient_of_all_processes(monkeypatch) -> None:
    """As if there were two, both with the same gradient."""
    monkeypatch.setattr(project.processes, "count", lambda: 2)
    monkeypatch.setattr(project.processes.Total, "apply", staticmethod(lambda x: 2 * x))
    weights = torch.nn.Parameter(torch.zeros(3))
    weights.grad = torch.tensor([1.0, 2.0, 3.0])
    project.Muon([{"params": [weights], "lr": 0.5, "momentum": 0.0}]).step()
    torch.testing.assert_close(weights.data, torch.tensor([-0.5, -1.0, -1.5]))


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


@pytest.mark.full
def test_two_processes_run_the_script_as_one(tmp_path: Path) -> None:
    flags = ("--tiny", "--ladder", "0", "--device", "cpu", "--out", tmp_path / "out")
    with start(tmp_path, *TORCHRUN, SCRIPT, *flags) as process:
        output = process.stdout.read()
    assert process.returncode == 0, output
    assert output.count("[5] ") == 1 and output.count("result.json") == 1


@pytest.mark.full
def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    """A batch of 32 is a pass, so passes are steps here."""
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER, encoding="utf-8")
    found = []
    for name, launcher in (("one", ()), ("two", TORCHRUN)):
        target = tmp_path / f"{name}.pt"
        with start(tmp_path, *launcher, worker, target) as process:
            process.stdout.read()
        assert process.returncode == 0
        found.append(torch.load(target))
    furthest = {}
    for case in found[0]:
        one, two = (states[case] for states in found)
        floats = [key for key, value in one.items() if value.is_floating_point()]
        furthest[case] = max((one[key] - two[key]).abs().max().item() for key in floats)
    print(furthest)
    within = {"float64 24:1": 1e-13, "float64 24:5,32:5": 1e-11, "float32 24:1": 1e-5}
    assert all(furthest[case] < bound for case, bound in within.items()), furthest


# ---- what the note says


def test_a_rung_changes_one_thing_more() -> None:
    cfg = config(ladder=3)
    ladder = list(project.make_ladder(cfg).items())
    assert len(ladder) == 11 and ladder[0][0] == "plain"
    # float32 stands on every rung of this one, as this configuration asks for it
    for (_, before), (name, after) in itertools.pairwise(ladder[1:]):
        assert after == replace(before, **{name: getattr(after, name)}) and after != before
    assert ladder[-1][1] == replace(cfg, schedule="24:1,32:2")
    plain = {"whiten": False, "smoothing": 0.0, "flip": False, "shift": 0, "rates": False}
    plain |= {"muon": False, "schedule": "32:3", "average": False, "views": False}
    assert ladder[0][1] == replace(cfg, **plain)


def test_passes_and_sides() -> None:
    assert project.sides(config(schedule="20:2,24:1,32:3")) == [20, 20, 24, 32, 32, 32]


def test_without_whitening_the_first_layer_is_learned() -> None:
    x = (randn(20, 3, 32, 32) * 50 + 100).clamp(0, 255).byte()
    learned = project.make_net(config(whiten=False), x, 10, seed=0).first
    torch.manual_seed(0)
    fresh = project.Net([8, 16, 16], 10).first
    assert learned.weight.requires_grad and learned.bias.requires_grad
    assert torch.equal(learned.weight, fresh.weight) and torch.equal(learned.bias, fresh.bias)
    assert not project.make_net(config(), x, 10, seed=0).first.weight.requires_grad


@pytest.mark.parametrize("whiten", [True, False])
@pytest.mark.parametrize("rates, muon", [(True, True), (True, False), (False, False)])
def test_every_weight_learns_once_and_at_its_rate(whiten: bool, rates: bool, muon: bool) -> None:
    cfg = config(whiten=whiten, rates=rates, muon=muon)
    x = (randn(20, 3, 32, 32) * 50 + 100).clamp(0, 255).byte()
    model = project.make_net(cfg, x, 10, seed=0)
    optimizer = project.Muon(project.make_groups(cfg, model))
    learned = {
        weights: (group["lr"], group["momentum"], group["orthogonal"])
        for group in optimizer.param_groups
        for weights in group["params"]
    }
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(learned)
    assert set(learned) == {weights for weights in model.parameters() if weights.requires_grad}
    for name, weights in model.named_parameters():
        alike = (0.07, 0.85, False)
        if not weights.requires_grad:
            continue
        if name.startswith("first") or not rates:
            assert learned[weights] == alike
        elif name == "head.weight":
            assert learned[weights] == (1.8 / 16, 0.85, False)
        elif weights.ndim == 4:
            assert learned[weights] == (0.15 if muon else 1.7, 0.6, muon)
        else:
            assert learned[weights] == (27.0, 0.85, False)
    assert len(learned) == 13 + 2 * (not whiten)


def test_what_no_flag_says_comes_from_the_recipe() -> None:
    classes = ("circle", "square")
    for data, recipe in project.RECIPES.items():
        cfg = project.Config(device="cpu", precision="float32", data=data)
        project.settle(cfg, classes)
        assert (cfg.widths, cfg.schedule, cfg.batch_size, cfg.pictures) == recipe
    given = {"batch_size": 32, "pictures": 100, "schedule": "24:1"}
    cfg = config(**given)
    project.settle(cfg, classes)
    assert {name: getattr(cfg, name) for name in given} == given


@pytest.mark.parametrize("average", [True, False])
def test_every_fifth_step_pulls_and_each_time_less(monkeypatch, average: bool) -> None:
    pulls = []
    monkeypatch.setattr(project, "pull", lambda slow, model, keep: pulls.append(keep))
    x = (randn(128, 3, 32, 32) * 50 + 100).clamp(0, 255).byte()
    cfg = config(schedule="24:2,32:1", average=average)
    project.train(cfg, (x, torch.arange(128) % 10), seed=0)
    # three passes of four steps
    wanted = [0.95**5 * (step / 12) ** 3 for step in (0, 5, 10)]
    assert pulls == (pytest.approx(wanted) if average else [])


def test_a_new_coin_for_every_pass_shows_half_in_both_ways() -> None:
    """The alternating coin shows all of them in both ways; both begin evenly."""
    x = torch.arange(32.0).repeat(400, 3, 32, 1)
    cfg = config(shift=0, schedule="32:2")
    coins = torch.rand(400, generator=torch.Generator().manual_seed(0)) < 0.5
    first, second = (
        project.prepare(cfg, (x, torch.zeros(400), coins), number)[0] for number in (0, 1)
    )
    assert torch.equal(first, second.flip(3))
    mirrored = first[:, 0, 0, 0] > first[:, 0, 0, -1]
    assert mirrored.float().mean().item() == pytest.approx(0.5, abs=0.08)
    again = torch.rand(400, generator=torch.Generator().manual_seed(1)) < 0.5
    assert (coins ^ again).float().mean().item() == pytest.approx(0.5, abs=0.08)


def test_each_picture_is_moved_in_its_own_way_and_none_farther_than_asked() -> None:
    x = torch.zeros(500, 3, 32, 32, dtype=torch.uint8)
    x[:, :, 16, 10] = 255
    cfg = config(flip=False, schedule="32:1")
    seen = project.prepare(cfg, (x, torch.zeros(500), torch.ones(500, dtype=bool)), 0)[0]
    places = {tuple(place[1:].tolist()) for place in (seen[:, 0] > 0).nonzero()}
    assert places == {(row, column) for row in range(14, 19) for column in range(8, 13)}


def test_the_polynomial_by_hand() -> None:
    """3 and 4 on the diagonal: 0.6 and 0.8 become 1.193 and 0.976."""
    found = project.orthogonal(torch.diag(torch.tensor([3.0, 4.0], dtype=torch.float64)), steps=1)
    assert found.diagonal().tolist() == pytest.approx([1.193, 0.976], abs=5e-4)


def test_three_rounds_by_hand() -> None:
    """3 and 0.03 on the diagonal: nearly 1 and 0.01 become 0.721 and 0.400."""
    found = project.orthogonal(torch.diag(torch.tensor([3.0, 0.03], dtype=torch.float64)))
    assert found.diagonal().tolist() == pytest.approx([0.721, 0.400], abs=5e-4)
    # 0.001 becomes only 0.041
    found = project.orthogonal(torch.diag(torch.tensor([1.0, 0.001], dtype=torch.float64)))
    assert found[1, 1].item() == pytest.approx(0.041, abs=5e-4)


@pytest.mark.parametrize("shape", [(48, 216), (192, 432), (32, 288)])
def test_three_rounds_bring_the_singular_values_of_noise_near_1(shape: tuple[int, int]) -> None:
    found = torch.linalg.svdvals(project.orthogonal(randn(*shape)))
    assert 0.6 < found.min() < found.max() < 1.25


def test_longer_filters_change_nothing_and_their_gradient_is_at_a_right_angle() -> None:
    torch.manual_seed(0)
    model = project.Net([8, 16, 16], 10).double()
    torch.nn.init.normal_(model.head.weight)
    x = randn(16, 3, 24, 24)
    y = torch.arange(16) % 10
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    filters = [weights for weights in model.blocks.parameters() if weights.ndim == 4]
    assert len(filters) == 6
    for weights in filters:
        angle = (weights * weights.grad).sum() / weights.norm() / weights.grad.norm()
        assert abs(angle.item()) < 1e-7
    with torch.no_grad():
        filters[2].mul_(7.0)
    assert F.cross_entropy(model(x), y).item() == pytest.approx(loss.item(), rel=1e-8)


def test_the_smallest_loss_with_smoothed_labels() -> None:
    logits = torch.zeros(1, 10, dtype=torch.float64)
    logits[0, 3] = math.log(0.82 / 0.02)
    batch = (logits, torch.tensor([3]))
    loss = project.loss_of(config(), torch.nn.Identity(), batch)
    assert loss.item() == pytest.approx(0.867, abs=5e-4)
    assert logits[0, 3].item() == pytest.approx(3.71, abs=5e-3)
    for away in (-0.3, 0.3):
        farther = (logits + away * F.one_hot(batch[1], 10), batch[1])
        assert project.loss_of(config(), torch.nn.Identity(), farther) > loss


def test_smaller_pictures_cost_less() -> None:
    """At side 24 the network has 0.54 times the multiplications of side 32."""
    model = project.Net([16, 32, 32], 10).eval()
    counts = []

    def count(layer: torch.nn.Module, _: tuple, y: torch.Tensor) -> None:
        counts[-1] += y.numel() * layer.weight[0].numel()

    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            layer.register_forward_hook(count)
    for side in (24, 32):
        counts.append(0)
        model(torch.zeros(1, 3, side, side))
    assert counts[0] / counts[1] == pytest.approx(0.54, abs=5e-3)


def test_six_views_of_one_picture_and_its_mirror_image_answer_alike() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, (9, 7)), torch.nn.Flatten()).double()
    x = randn(5, 3, 9, 7)
    torch.testing.assert_close(
        project.average_views(model, torch.ones_like(x)), model(torch.ones_like(x))
    )
    # of a picture that moves alike in both directions, the views are the same six
    even = x + x.flip(2) + x.flip(3) + x.flip(2).flip(3)
    torch.testing.assert_close(
        project.average_views(model, even), project.average_views(model, even.flip(3))
    )


def test_the_simpler_methods() -> None:
    """The majority of the training part, and the nearest of its pictures found one by one."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (60, 3, 8, 8), generator=generator, dtype=torch.uint8)
    y = torch.tensor([0] * 30 + [1] * 20 + [2] * 10)
    found = project.simpler_methods((x[::2], y[::2]), (x[1::2], y[1::2]))
    assert found["majority"] == pytest.approx(0.5)
    right = 0
    for picture, label in zip(x[1::2].double(), y[1::2]):
        nearest = ((x[::2].double() - picture) ** 2).sum(dim=(1, 2, 3)).argmin()
        right += (y[::2][nearest] == label).item()
    assert found["nearest_neighbour"] == pytest.approx(right / 30)


def test_the_usual_baseline_trains() -> None:
    x = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8)
    data = (x, torch.arange(64) % 2)
    found = project.usual_baseline(config(baseline=1), data, data)
    assert found.keys() == {"resnet18", "resnet18_seconds"} and 0 <= found["resnet18"] <= 1
