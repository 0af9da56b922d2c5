"""Lesson 6.6 and its note: what a caller may hand in, and what must not matter."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common.lessons import ROOT, load_lesson

lesson = load_lesson("phase06_rnn/06-bidirectional")


def test_an_empty_text_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(ROOT / "phase06_rnn/06-bidirectional.py"),
        "--tiny",
        "--text",
        "",
    ]
    answer = subprocess.run(
        [*command, "--out", str(tmp_path / "out")], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 1
    assert "--text is empty" in answer.stderr and "Traceback" not in answer.stderr
    assert not list(tmp_path.rglob("*.png"))


@pytest.mark.parametrize(
    "text, tags",
    [
        ("a<b>c", "01110"),
        ("a<b<c>", "000111"),
        ("<<>>", "0110"),
        ("a>b<c", "00000"),
        ("é中<\n>", "00111"),
    ],
)
def test_tags(text: str, tags: str) -> None:
    x, lengths, labels = lesson.to_batch([text, "abcabc"])
    assert "".join(map(str, labels[0, : lengths[0]].tolist())) == tags
    assert x.shape == (2, 6, 3)


def test_order_of_the_batch_does_not_matter() -> None:
    torch.manual_seed(0)
    model = lesson.BiLSTM(2, 3, n_layers=2).double()
    x = torch.randn(5, 6, 2, dtype=torch.float64)
    lengths = torch.tensor([2, 6, 6, 1, 4])
    order = torch.tensor([3, 1, 4, 0, 2])
    outputs, last = model(x, lengths)
    other_outputs, other_last = model(x[order], lengths[order])
    torch.testing.assert_close(other_outputs, outputs[order])
    torch.testing.assert_close(other_last, last[:, order])


def test_turning_twice_changes_nothing() -> None:
    x = torch.randn(3, 5, 2)
    lengths = torch.tensor([5, 1, 3])
    torch.testing.assert_close(lesson.turn(lesson.turn(x, lengths), lengths), x)


def test_one_way_networks_of_two_layers_are_something_else() -> None:
    """Exercise 3: an early step of the second layer's forward part knows of later inputs."""
    torch.manual_seed(0)
    model = lesson.BiLSTM(2, 3, n_layers=2).double()
    x = torch.randn(1, 6, 2, dtype=torch.float64)
    changed = x.clone()
    changed[0, -1] += 1
    lengths = torch.tensor([6])
    moved = model(changed, lengths)[0] - model(x, lengths)[0]
    assert moved[0, 0, :3].abs().max() > 0


def test_one_reader_has_no_fewer_weights_than_two() -> None:
    """The note says that it is as wide as both together: what it lacks is no size."""
    cfg = lesson.Config()
    one, two = (
        sum(parameter.numel() for parameter in lesson.Tagger(reads, cfg).parameters())
        for reads in ("left", "both")
    )
    assert one >= two
