"""The digit reader as its user meets it: what is no digit, a page in the browser, a kill.

One tiny training serves all tests but the last, and is the one that test_lessons_run judges.
"""

import asyncio
import dataclasses
import functools
import io
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import start_engine
from PIL import Image
from test_lessons_run import JOBS
from test_web import all_at_once, ask
from torch._subclasses.fake_tensor import FakeTensorMode

from common import checkpoint, web
from common.config import execute
from common.data.images import ImageSet, load_images
from common.lessons import ROOT, load_lesson

project = load_lesson("phase03_pytorch/project-mnist")
CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1000,800",
)


def run(out: Path, *argv: str) -> int:
    return execute(
        project.run, project.Config, project.__doc__, ["--device", "cpu", "--out", str(out), *argv]
    )


@pytest.fixture(scope="module")
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the tiny run left that test_lessons_run judges: nothing is trained twice."""
    outcome = start_engine(request.config).result(JOBS["03/project-mnist"])
    assert outcome.code == 0, outcome
    return Path(shutil.copytree(outcome.out, tmp_path_factory.mktemp("trained") / "out"))


def grey(value: int, width: int, height: int) -> bytes:
    return png(Image.new("L", (width, height), value))


def png(picture: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


def huge_png() -> bytes:
    """Sixty bytes that claim 100,000 pixels a side: 30 GB once decoded."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9)))


def flower() -> bytes:
    from sklearn.datasets import load_sample_image

    return png(Image.fromarray(load_sample_image("flower.jpg")))


def scribble() -> Image.Image:
    """White paper with a black bar on it."""
    paper = np.full((100, 100), 255, dtype=np.uint8)
    paper[20:80, 45:55] = 0
    return Image.fromarray(paper)


def sentence(capsys: pytest.CaptureFixture) -> str:
    """What stands on stderr: one sentence and no trace."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and lines[0].endswith("."), lines
    return lines[0]


REFUSED = {
    "a text file": (lambda: b"seven", "not a readable PNG"),
    "an empty file": (lambda: b"", "not a readable PNG"),
    "a JPEG under another name": (lambda: png(scribble(), "JPEG"), "not a readable PNG"),
    "half a PNG": (lambda: png(scribble())[:90], "not a readable PNG"),
    "100,000 pixels a side": (huge_png, "too large. Make it 4,000,000 pixels or fewer"),
    "4,096 by 4,096 pixels": (lambda: grey(255, 4096, 4096), "too large"),
    "an empty page": (lambda: grey(255, 300, 300), "nothing drawn"),
    "one pixel": (lambda: grey(0, 1, 1), "nothing drawn"),
    "a photograph": (flower, "looks unlike all that this model learned"),
    "no file": (None, "is not there. Give the path of a PNG"),
}


def test_a_gpu_gets_its_tensors() -> None:
    """As far as it can be known without one: on tensors that have a device, but no memory."""
    with FakeTensorMode():
        x = torch.rand(3, 1, 28, 28)
        linear = torch.nn.Linear(28 * 28, 10, device="cuda")
        model = torch.nn.Sequential(torch.nn.Flatten(), linear)
        assert project.jitter(x.to("cuda")).device.type == "cuda"
        assert project.probabilities(model, x).device.type == "cpu"


@pytest.mark.parametrize("content, expected", REFUSED.values(), ids=REFUSED)
def test_what_is_no_digit_gets_one_sentence(
    trained: Path, tmp_path: Path, capsys, content, expected: str
) -> None:
    before = {path.name: path.read_bytes() for path in trained.iterdir()}
    if content:
        (tmp_path / "it.png").write_bytes(content())
    assert run(trained, "--predict", str(tmp_path / "it.png")) == 1
    assert expected in sentence(capsys)
    assert {path.name: path.read_bytes() for path in trained.iterdir()} == before


def test_the_sample_is_read(trained: Path, capsys) -> None:
    code = run(trained, "--predict", str(trained / "sample.png"))
    best = capsys.readouterr().out.splitlines()[2]  # below the title and the mode
    assert code == 0 and best.split()[0] == "5"


@pytest.mark.parametrize("argv", [("--serve", "--port", "0"), ("--predict", "it.png")])
def test_before_training(tmp_path: Path, capsys, argv: tuple[str, ...]) -> None:
    assert run(tmp_path, *argv) == 1
    assert "holds no model yet. Train it first" in sentence(capsys)


@pytest.fixture
def server(trained: Path) -> Iterator[int]:
    """The page's port, as long as the test lasts."""
    reader = project.Reader(trained / "model.pt")
    functions = {"/predict": functools.partial(project.answer, reader)}
    with web.serving(project.PAGE, functions) as port:
        yield port


def predict(port: int, body: bytes) -> tuple[int, dict]:
    status, answer = ask(port, "POST", "/predict", body)
    return status, json.loads(answer)


def test_the_server_answers(server: int, trained: Path) -> None:
    status, page = ask(server, "GET", "/")
    assert status == 200 and b"<canvas" in page
    status, answer = predict(server, (trained / "sample.png").read_bytes())
    assert status == 200 and answer["classes"] == list("0123456789")
    assert sum(answer["chances"]) == pytest.approx(1) and np.argmax(answer["chances"]) == 5


def test_the_server_refuses(server: int) -> None:
    picture = png(scribble())
    refusals = {
        "nothing": (400, b""),
        "no PNG": (400, b"seven"),
        "half a PNG": (400, picture[:90]),
        "100,000 pixels a side": (400, huge_png()),
        "4,096 pixels a side": (400, grey(255, 4096, 4096)),
        "an empty page": (400, grey(255, 280, 280)),
        "too many bytes": (413, bytes(300_000)),
    }
    for what, (expected, body) in refusals.items():
        status, answer = predict(server, body)
        assert status == expected and answer.keys() == {"error"}, (what, status, answer)
        assert "0x" not in answer["error"], answer
    assert predict(server, picture)[0] == 200  # and it is still there


def test_two_hundred_drawings_at_once(trained: Path) -> None:
    """Every client gets the answer to its own drawing."""
    digits = load_images(project.Config(tiny=True), "mnist-5k").x_train[:40]
    drawings = [png(Image.fromarray(project.on_a_sheet(digit))) for digit in digits] * 5
    reader = project.Reader(trained / "model.pt")
    expected = [project.answer(reader, drawing) for drawing in drawings[:40]] * 5
    functions = {"/ask": functools.partial(project.answer, reader)}
    with web.serving(project.PAGE, functions) as port:
        answers = asyncio.run(all_at_once(port, drawings))
    assert len({tuple(answer["chances"]) for answer in expected}) == 40
    for (status, answer), wanted in zip(answers, expected, strict=True):
        assert status == 200 and answer["familiar"] == wanted["familiar"]
        np.testing.assert_allclose(answer["chances"], wanted["chances"], atol=1e-6)


def test_a_port_in_use(trained: Path, capsys) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert run(trained, "--serve", "--port", str(other.getsockname()[1])) == 1
    assert "Try --port 0" in sentence(capsys)
    assert run(trained, "--serve", "--port", "70000") == 1
    assert "Try --port 0" in sentence(capsys)


# ---- the taught functions, one property each


def angle_of(picture: np.ndarray) -> float:
    """Degrees by which the long axis of a picture's ink leans from the vertical."""
    y, x = np.mgrid[:28, :28]
    weight = picture / picture.sum()
    y, x = y - (y * weight).sum(), x - (x * weight).sum()
    covariance = np.array([[(a * b * weight).sum() for b in (x, y)] for a in (x, y)])
    long = np.linalg.eigh(covariance)[1][:, -1]
    return np.degrees(np.arctan(long[0] / long[1]))


@pytest.fixture(scope="module")
def jittered() -> np.ndarray:
    """2,000 jittered copies of an upright bar in the middle, (2000, 28, 28)."""
    bar = torch.zeros(2000, 1, 28, 28)
    bar[:, :, 6:22, 12:16] = 1
    torch.manual_seed(0)
    return project.jitter(bar)[:, 0].numpy()


def test_jitter_moves_by_two_pixels_at_most(jittered: np.ndarray) -> None:
    mass = jittered.sum(axis=(1, 2))
    for axis in (1, 2):
        along = np.moveaxis(jittered, axis, 1).sum(axis=2)
        shift = (along * np.arange(28)).sum(axis=1) / mass - 13.5
        # 2 pixels of the old picture, which the scale and the slant stretch a little
        assert 1.9 < np.abs(shift).max() < 2.6 and abs(shift.mean()) < 0.1
        assert shift.std() == pytest.approx(2 / 3**0.5, rel=0.08)  # even, not in the middle


def test_jitter_turns_slants_and_scales(jittered: np.ndarray) -> None:
    lean = np.array([angle_of(picture) for picture in jittered])
    # ±10° and a slant of ±0.15, which is ±8.5°: even each, so the variances add
    assert lean.std() == pytest.approx((10**2 / 3 + 8.5**2 / 3) ** 0.5, rel=0.08)
    assert 14 < np.abs(lean).max() < 19.5 and abs(lean.mean()) < 0.8
    size = jittered.sum(axis=(1, 2)) / 64
    # areas of 0.9² to 1.1²
    assert size.min() == pytest.approx(0.81, abs=0.03) and size.max() == pytest.approx(
        1.21, abs=0.05
    )


def test_jitter_is_the_map_of_the_note(monkeypatch) -> None:
    """p = R q / s + (k q_y, 0) + t, from the five numbers that were drawn for each picture."""
    draws = 2 * torch.rand(5, 40, generator=torch.Generator().manual_seed(0)) - 1
    maps = []
    affine_grid = torch.nn.functional.affine_grid

    def keep(theta: torch.Tensor, *rest, **options) -> torch.Tensor:
        maps.append(theta)
        return affine_grid(theta, *rest, **options)

    monkeypatch.setattr(torch, "rand", lambda *shape, **rest: (draws + 1) / 2)
    monkeypatch.setattr(torch.nn.functional, "affine_grid", keep)
    project.jitter(torch.zeros(40, 1, 28, 28))
    for number, (turn, size, slant, right, down) in enumerate(draws.double().T.numpy()):
        c, s = np.cos(np.radians(10 * turn)), np.sin(np.radians(10 * turn))
        wanted = np.array([[c, -s], [s, c]]) / (1 + 0.1 * size)
        wanted[0, 1] += 0.15 * slant
        wanted = np.c_[wanted, [2 * right / 14, 2 * down / 14]]
        np.testing.assert_allclose(maps[0][number].numpy(), wanted, atol=1e-6)


def test_moves_are_measured_from_where_pixels_were_looked_up() -> None:
    """Each of the five alone, then all at once, by the map of the note."""
    turns = torch.tensor([0.0, 8, 0, 0, 0, 0, 5])
    scales = torch.tensor([1.0, 1, 1.1, 1, 1, 1, 0.9])
    slants = torch.tensor([0.0, 0, 0, 0.15, 0, 0, 0])
    right = torch.tensor([0.0, 0, 0, 0, 2, 0, -1])
    down = torch.tensor([0.0, 0, 0, 0, 0, 2, 0.5])
    angle = torch.deg2rad(turns)
    first = torch.stack([angle.cos() / scales, slants - angle.sin() / scales, right + 13.5], dim=1)
    second = torch.stack([angle.sin() / scales, angle.cos() / scales, down + 13.5], dim=1)
    maps = torch.stack([first, second], dim=1)  # (7, 2, 3)
    y, x = torch.meshgrid(torch.arange(28) - 13.5, torch.arange(28) - 13.5, indexing="ij")
    places = torch.einsum("nij,jhw->nihw", maps, torch.stack([x, y, torch.ones(28, 28)]))
    wanted = torch.stack([turns, scales, slants, right, down], dim=1)
    torch.testing.assert_close(project.measure_moves(places), wanted, atol=1e-4, rtol=1e-4)


@pytest.fixture
def judge(tmp_path: Path):
    """A function that says whether section 2 of the lesson finds a fault."""

    def show(cfg: project.Config) -> None:
        project.show_batches(cfg, load_images(cfg, "mnist-5k"))

    return lambda: execute(
        show, project.Config, project.__doc__, ["--tiny", "--out", str(tmp_path)]
    )


@pytest.mark.parametrize("part", ["turn", "scale", "slant", "right", "down", "all alike", None])
def test_section_2_finds_what_jitter_leaves_out(monkeypatch, judge, part: str | None) -> None:
    names = ["turn", "scale", "slant", "right", "down"]
    random = torch.rand

    def rand(*shape: int, **rest) -> torch.Tensor:
        draw = random(*shape, **rest)
        if part in names:
            draw[names.index(part)] = 0.5
        return draw[:, :1].expand(shape) if part == "all alike" else draw

    monkeypatch.setattr(torch, "rand", rand)
    assert judge() == (part is not None)


def shear(maps: torch.Tensor) -> torch.Tensor:
    """As if the sine had the other sign in the first row: nothing is turned, all is squeezed."""
    maps[:, 0, 1] += 2 * maps[:, 1, 0]
    return maps


def same_both_ways(maps: torch.Tensor) -> torch.Tensor:
    maps[:, 1, 2] = maps[:, 0, 2]
    return maps


def only_right(maps: torch.Tensor) -> torch.Tensor:
    """Twice as far to the right, and never down: the same on the mean."""
    maps[:, :, 2] *= torch.tensor([2.0, 0.0])
    return maps


def one_way_scale(maps: torch.Tensor) -> torch.Tensor:
    """The first row is not divided by the scale."""
    maps[:, 0, :2] *= (maps[:, 1, 0] ** 2 + maps[:, 1, 1] ** 2).rsqrt()[:, None]
    return maps


WRONG_MAPS = [shear, same_both_ways, only_right, one_way_scale]


@pytest.mark.parametrize("wrong", WRONG_MAPS, ids=[wrong.__name__ for wrong in WRONG_MAPS])
def test_section_2_finds_a_wrong_map(monkeypatch, judge, wrong) -> None:
    affine_grid = torch.nn.functional.affine_grid

    def changed(maps: torch.Tensor, *rest, **options) -> torch.Tensor:
        return affine_grid(wrong(maps.clone()), *rest, **options)

    monkeypatch.setattr(torch.nn.functional, "affine_grid", changed)
    assert judge() == 1


def test_section_2_finds_altered_validation_pictures(monkeypatch, judge) -> None:
    batches = project.Batches
    monkeypatch.setattr(
        project, "Batches", lambda *x, **given: batches(*x, **given | {"transform": project.jitter})
    )
    assert judge() == 1


def test_what_is_strange() -> None:
    pictures = torch.zeros(3, 1, 28, 28)
    pictures[0, 0, 4:24, 12:16] = 1
    pictures[1, 0, 4:24, 12:16] = 0.5
    pictures[2, 0, 4:24, 12:14] = 0.5
    pictures[2, 0, 4:24, 14:16] = 0.9
    known = torch.nn.functional.avg_pool2d(pictures[:2], 2).flatten(1)
    chances = torch.tensor([[1.0, 0, 0], [0.5, 0.25, 0.25], [0.3, 0.3, 0.4]])
    found = project.strangeness(pictures, chances, known)
    # 20 squares at half size: half of them differ from the first by a half, half by a tenth
    wanted = torch.tensor([[0, 0, 0], [0, 1, 0.5], [(10 * 0.4**2) ** 0.5, 0.5, 0.6]])
    torch.testing.assert_close(found, wanted, atol=1e-3, rtol=0)


def test_only_training_batches_are_jittered_shuffled_and_cut() -> None:
    cfg = project.Config(tiny=True, batch_size=32)
    data = load_images(cfg, "mnist-5k")
    first, again = (project.make_batches(cfg, data, seed=3)[0] for _ in range(2))
    assert len(first) == 9 and first.transform is project.jitter
    labels = torch.cat([y for _, y in first])
    assert torch.equal(labels, torch.cat([y for _, y in again]))
    assert not torch.equal(labels, torch.from_numpy(data.y_train[:288]))
    other, validation = project.make_batches(cfg, data, seed=4)
    assert not torch.equal(labels, torch.cat([y for _, y in other]))
    assert validation.batch_size == 1000 and not validation.shuffle
    off = dataclasses.replace(cfg, augment=False)
    plain = project.make_batches(off, data, seed=3)[0]
    assert plain.transform is None

    # every picture at most once, and as it is
    numbered = dataclasses.replace(data, y_train=np.arange(len(data.y_train)))
    batches = list(project.make_batches(off, numbered, seed=3)[0])
    number = torch.cat([y for _, y in batches])
    assert len(number.unique()) == len(number) == 288
    x = torch.cat([x for x, _ in batches])
    np.testing.assert_array_equal(x[:, 0] * 255, data.x_train[number])


def test_the_network_is_the_one_of_the_note() -> None:
    """Filters of 25 weights, 1,536 features; no bias where batch norm would take it away."""
    shapes = {tuple(p.shape) for p in project.DigitNet(24).parameters() if p.ndim > 1}
    assert shapes == {(24, 1, 5, 5), (48, 24, 3, 3), (96, 48, 3, 3), (10, 1536)}
    assert sum(p.numel() for p in project.DigitNet(24).parameters()) == 68_146
    sizes = []
    model = project.DigitNet(24)
    for layer in model.features:
        layer.register_forward_hook(lambda layer, x, y: sizes.append(tuple(y.shape[1:])))
    model(torch.zeros(2, 1, 28, 28))
    assert [size for size, last in zip(sizes, [None, *sizes]) if size != last] == [
        (24, 12, 12),
        (24, 6, 6),
        (48, 6, 6),
        (96, 4, 4),
        (1536,),
    ]
    assert [type(layer).__name__ for layer in model.features] == (
        ["Conv2d", "MaxPool2d", "BatchNorm2d", "ReLU"]
        + 2 * ["Conv2d", "BatchNorm2d", "ReLU"]
        + ["Flatten"]
    )


def test_no_loss_falls_below_the_entropy_of_a_smoothed_label() -> None:
    label = torch.tensor([[0.955] + 9 * [0.005]])
    loss = project.cross_entropy(lambda x: label.log(), (None, torch.tensor([0])))
    assert loss.item() == pytest.approx(0.282, abs=5e-4)
    assert loss.item() == pytest.approx(torch.special.entr(label).sum().item(), abs=1e-5)


def test_labels_of_any_type_become_class_numbers() -> None:
    x, y = project.to_tensors(np.zeros((3, 28, 28), dtype=np.uint8), np.arange(3, dtype=np.uint8))
    assert (x.dtype, x.shape, y.dtype) == (torch.float32, (3, 1, 28, 28), torch.int64)


def test_the_simpler_methods() -> None:
    """The nearest training picture found one by one; a linear model far better than a guess."""
    cfg = project.Config(tiny=True, simple=80)
    data = load_images(cfg, "mnist-5k")
    x, y = project.to_tensors(data.x_val[:50], data.y_val[:50])
    found = project.simpler_methods(cfg, data, x, y)
    pictures = data.x_train[:80].reshape(80, -1) / 255
    right = 0
    for picture, label in zip(data.x_val[:50].reshape(50, -1) / 255, data.y_val[:50]):
        nearest = ((pictures - picture) ** 2).sum(axis=1).argmin()
        right += data.y_train[nearest] == label
    assert found["nearest_neighbour"] == pytest.approx(right / 50)
    assert all(type(score) is float for score in found.values())
    assert 0.4 < found["linear"] < 1 and found.keys() == {"linear", "nearest_neighbour"}


def test_the_first_loss_is_that_of_a_guess() -> None:
    data = load_images(project.Config(tiny=True), "mnist-5k")
    x, y = project.to_tensors(data.x_train[:64], data.y_train[:64])
    losses = []
    for seed in range(3):
        torch.manual_seed(seed)
        losses.append(project.cross_entropy(project.DigitNet(24), (x, y), smoothing=0.0).item())
    assert np.log(10) - 0.3 < np.mean(losses) < np.log(10) + 0.6


def test_probabilities_of_more_than_one_part() -> None:
    model = project.DigitNet(8)
    x = torch.rand(30, 1, 28, 28)
    alone = project.probabilities(model, x)
    many = project.probabilities(model, x.repeat(50, 1, 1, 1))
    assert many.shape == (1500, 10) and not many.requires_grad
    torch.testing.assert_close(many[-30:], alone)
    torch.testing.assert_close(many.sum(dim=1), torch.ones(1500))


def test_a_drawing_comes_back_whatever_its_place_size_and_polarity() -> None:
    digit = load_images(project.Config(tiny=True), "mnist-5k").x_val[0]
    wanted = project.like_mnist(digit)
    assert np.abs(wanted.astype(int) - digit).mean() < 4
    for scale, top, left in ((3, 0, 0), (7, 40, 90), (10, 5, 300)):
        sheet = np.full((400, 700), 250, dtype=np.uint8)
        large = np.kron(digit, np.ones((scale, scale)))
        sheet[top : top + 28 * scale, left : left + 28 * scale] = 250 - large * (250 / 255)
        for drawing in (sheet, 255 - sheet):
            assert np.abs(project.like_mnist(drawing).astype(int) - wanted).mean() < 3


def test_the_centre_is_14_and_not_13_and_a_half() -> None:
    """The note: two grey levels off with 14, fifteen with 13.5 (on 1,000 digits)."""
    digits = load_images(project.Config(tiny=True), "mnist-5k").x_train[:100]
    off = []
    for digit in digits:
        back = project.like_mnist(project.on_a_sheet(digit)).astype(float)
        moved = back
        for axis in (0, 1):
            centre = back.sum(axis=1 - axis) @ np.arange(28) / back.sum()
            # What lies behind 14 would be rounded to the place before.
            moved = np.roll(moved, -int(centre > 14), axis=axis)
        off.append([np.abs(back - digit).mean(), np.abs(moved - digit).mean()])
    exact, half = np.mean(off, axis=0)
    assert exact < 2.5 and 12 < half < 18


def test_a_centre_of_mass_out_of_reach() -> None:
    """A blot with a thin tail: to bring its centre to 14 would push the tail out of the picture."""
    tail = np.zeros((20, 20), dtype=np.uint8)
    tail[:10, :6] = tail[0] = 255
    sheet = np.zeros((40, 40), dtype=np.uint8)
    sheet[10:30, 5:25] = tail
    for turned in (sheet, sheet.T, sheet[:, ::-1], sheet.T[::-1]):
        found = project.like_mnist(turned)
        # all of it is there, against the edge that the blot would cross
        assert found.sum() == turned.sum() and found.dtype == np.uint8
        rows, columns = (np.flatnonzero(found.any(axis=axis)) for axis in (1, 0))
        assert {len(rows), len(columns)} == {10, 20}
        long = rows if len(rows) == 20 else columns
        assert long[0] == 8 or long[-1] == 19


def test_a_fifth_of_the_darkest_ink_counts_and_less_does_not() -> None:
    """255 / 5 = 51: the box of the ink reaches as far as what is that dark, and no farther."""
    paper = np.full((60, 60), 255, dtype=np.uint8)
    paper[20:40, 20:24] = 0
    bar = project.like_mnist(paper)
    assert (bar.any(axis=0).sum(), bar.any(axis=1).sum()) == (4, 20)
    paper[20:40, 24:30] = 255 - 51
    assert project.like_mnist(paper).any(axis=0).sum() == 10
    paper[20:40, 24:30] = 255 - 50
    assert np.array_equal(project.like_mnist(paper), bar)


def test_the_border_says_what_paper_is_on_all_four_sides() -> None:
    """Top and bottom lighter than the corners, left and right darker: the median is a corner."""
    grey = np.full((42, 42), 100, dtype=np.uint8)
    grey[[0, -1]] = 240
    grey[:, [0, -1]] = 200
    grey[np.ix_([0, -1], [0, -1])] = 220
    # the ink is 120 and becomes 255; the sides are 20 off, less than a fifth
    for turned in (grey, grey.T):
        assert project.like_mnist(turned).sum() == 20 * 20 * 255


def test_a_faint_pencil_becomes_full_ink() -> None:
    digit = load_images(project.Config(tiny=True), "mnist-5k").x_val[0]
    sheet = np.kron(digit / 255, np.ones((5, 5)))
    wanted = project.like_mnist((255 - 250 * sheet).astype(np.uint8)).astype(int)
    faint = project.like_mnist((255 - 60 * sheet).astype(np.uint8))
    assert faint.max() == 255 and np.abs(faint - wanted).mean() < 3


def test_a_line_one_pixel_wide_stays_one_pixel_wide() -> None:
    """60 pixels become 20, and a third of a pixel is none."""
    sheet = np.zeros((80, 80), dtype=np.uint8)
    sheet[10:70, 40] = 255
    for line, axis in ((sheet, 0), (sheet.T, 1)):
        assert project.like_mnist(line).any(axis=axis).sum() == 1
        assert project.like_mnist(line).any(axis=1 - axis).sum() == 20


def test_a_thin_pen_comes_out_grey() -> None:
    """Darkest ink counts as 255 before the drawing is shrunk: a third of a pixel is 85."""
    sheet = np.zeros((80, 80), dtype=np.uint8)
    sheet[10:70, 40] = sheet[10, 11:70] = 255
    assert project.like_mnist(sheet).max() in range(85, 145)


def test_transparent_means_paper() -> None:
    clear = Image.new("RGBA", (50, 50), (0, 0, 0, 0))
    assert (project.on_paper(clear) == 255).all()
    assert (project.on_paper(Image.new("LA", (5, 5), (0, 255))) == 0).all()


def test_the_sheets_are_those_of_the_table() -> None:
    """The first is the digit as it is; each of the next four has one thing wrong with it."""
    digit = load_images(project.Config(tiny=True), "mnist-5k").x_val[0]
    sheet = project.on_a_sheet(digit)
    assert sheet.shape == (400, 340)
    large = 255 - np.kron(digit, np.ones((6, 6)))
    assert np.abs(sheet[173:341, 37:205] - large).max() <= 20  # the shade
    small = {name: project.shrunk(digit, layout) for name, layout in project.SHEETS.items()}
    off = {name: np.abs(each.astype(int) - digit).mean() for name, each in small.items()}
    assert off["shrunk_full"] == min(off.values()) and off["shrunk_full"] < 5
    rows, columns = (np.arange(28) @ small["shrunk_full"].sum(axis=axis) for axis in (1, 0))
    ink = small["shrunk_full"].sum()
    moved = small["shrunk_only_place"]
    assert (np.arange(28) @ moved.sum(axis=1)) / moved.sum() - rows / ink == pytest.approx(4, abs=1)
    assert (np.arange(28) @ moved.sum(axis=0)) / moved.sum() - columns / ink == pytest.approx(
        -4, abs=1
    )
    assert small["shrunk_only_size"].sum() / ink == pytest.approx((168 / 368) ** 2, rel=0.1)
    # A wrong place is the same in every sheet, so that the shares may be multiplied.
    for name, (height, width, top, left, _) in project.SHEETS.items():
        placed = name in ("shrunk_only_place", "shrunk", "shrunk_no_shade", "shrunk_no_size")
        moved = 28 * (top + 84) / height - 14, 28 * (left + 84) / width - 14
        assert moved == pytest.approx((4, -4) if placed else (0, 0), abs=0.2), name
    assert set(project.ALONE) == {name for name in project.SHEETS if "only" in name}


def test_a_run_that_misses_its_target_keeps_all_it_has(tmp_path: Path, monkeypatch, capsys) -> None:
    """As `--epochs 2` does in a normal run, but on the few pictures of a tiny one."""
    small = load_images(project.Config(tiny=True), "mnist-5k")

    def load(cfg: project.Config, name: str | None = None, split_seed: int = 0) -> ImageSet:
        return load_images(cfg, name) if name else small

    monkeypatch.setattr(project, "load_images", load)
    for name in ("draw_hardest", "draw_causes"):
        monkeypatch.setattr(project, name, lambda *arguments: None)
    argv = ("--epochs", "4", "--splits", "1", "--width", "8", "--batch-size", "32")
    assert run(tmp_path, *argv, "--simple", "100", "--drawings", "10") == 1
    assert "“accuracy”" in sentence(capsys)
    result = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert result["status"] == "failed" and 0 < result["metrics"]["accuracy"] < 0.98
    assert len(result["curves"]["val_error"]["split 1"]) == 4
    assert result["test_reads"] == 1
    assert project.Reader(tmp_path / "model.pt").known.shape == (300, 196)


@pytest.fixture
def browser(tmp_path: Path, monkeypatch) -> Iterator:
    """Headless Chromium with a profile of its own; skips where there is none."""
    if not (CHROMIUM.exists() and DRIVER.exists()):
        pytest.skip("no Chromium on this machine")
    from selenium import webdriver

    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options, webdriver.ChromeService(str(DRIVER)))
    driver.set_script_timeout(10)
    yield driver
    driver.quit()


def test_drawing_in_the_browser(server: int, browser) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    def shares() -> list[str]:
        return browser.execute_script(
            "return [...document.querySelectorAll('#bars .share')].map(s => s.textContent)"
        )

    def said() -> str:
        return browser.find_element(By.ID, "say").text

    def mouse() -> ActionChains:
        return ActionChains(browser, duration=20)

    wait = WebDriverWait(browser, 10, poll_frequency=0.02).until
    browser.get(f"http://127.0.0.1:{server}/")
    welcome = said()
    assert shares() == [""] * 10
    mouse().move_to_element_with_offset(
        browser.find_element(By.ID, "paper"), -60, -80
    ).click_and_hold().perform()
    for _ in range(6):
        mouse().move_by_offset(20, 0).perform()
    wait(lambda _: any(shares()))
    bar = shares()
    assert said() != welcome  # an answer, and the mouse button is still held down
    for _ in range(8):
        mouse().move_by_offset(-8, 20).perform()
    wait(lambda _: shares() != bar)  # a bar became a seven: the answer moved with it
    mouse().release().perform()
    wait(lambda _: said() == "This looks like 7.")
    browser.find_element(By.ID, "clear").click()
    wait(lambda _: not any(shares()) and said() == welcome)
    bytes_of_paper = "paper.getContext('2d').getImageData(0, 0, paper.width, paper.height).data"
    assert browser.execute_script(f"return new Set({bytes_of_paper}).size") == 1
    assert not [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]


@pytest.mark.full
def test_kill_and_resume_gives_the_same_weights(tmp_path: Path) -> None:
    """kill -9 in the middle of training, then the same command with --resume."""

    def start(out: str, *argv: str) -> subprocess.Popen:
        script = ROOT / "phase03_pytorch" / "project-mnist.py"
        places = {name: str(tmp_path) for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME", "TMPDIR")}
        return subprocess.Popen(
            [
                sys.executable,
                script,
                "--tiny",
                "--epochs",
                "12",
                "--device",
                "cpu",
                "--out",
                tmp_path / out,
                *argv,
            ],
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env=os.environ | places | {"OMP_NUM_THREADS": "1"},
        )

    assert start("whole").communicate()[0] and (tmp_path / "whole" / "result.json").exists()
    with start("killed") as process:
        for line in process.stdout:
            if line.startswith("  epoch 5"):
                process.kill()
    assert not (tmp_path / "killed" / "result.json").exists()
    with start("killed", "--resume") as process:
        output = process.stdout.read()
    assert process.returncode == 0 and (
        "resumed after epoch 4" in output or "resumed after epoch 5" in output
    ), output
    whole, resumed = (
        checkpoint.load(tmp_path / out / "training-0.pt") for out in ("whole", "killed")
    )
    assert whole["history"] == resumed["history"] and len(whole["history"]) == 12
    for state in (whole, resumed):
        state["members"]["moments"] = state["members"]["optimizer"]["state"]
    for name in ("model", "moments", "batches"):
        torch.testing.assert_close(resumed["members"][name], whole["members"][name], rtol=0, atol=0)
