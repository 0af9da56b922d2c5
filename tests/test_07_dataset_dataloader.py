"""Lesson 3.7: what its functions promise beyond what the lesson itself claims."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from common.lessons import load_lesson

lesson = load_lesson("phase03_pytorch/07-dataset-dataloader")


def digits() -> "lesson.InkPoints":
    """Three pictures of 8 x 8 whose inked pixels, and their number, differ."""
    pictures = torch.zeros(3, 8, 8, dtype=torch.uint8)
    pictures[0, 2, 5] = 16
    pictures[1, 0, 7] = 4
    pictures[1, 7, 1] = 8
    pictures[2, 3, 3:6] = 12
    return lesson.InkPoints(pictures, torch.tensor([4, 7, 9]))


def test_an_item_lists_the_inked_pixels_row_by_row() -> None:
    points, label = digits()[1]
    assert torch.allclose(points, torch.tensor([[0, 1, 0.25], [1, 1 / 7, 0.5]]))
    assert label == 7 and len(digits()) == 3


def test_padding_keeps_the_classes_in_their_order() -> None:
    padded, real, classes = lesson.pad([digits()[i] for i in [2, 0, 1]])
    assert classes.tolist() == [9, 4, 7]
    assert real.sum(dim=1).tolist() == [3, 1, 2]
    assert padded.shape == (3, 3, 3) and not padded[~real].any()


def test_one_item_is_a_batch_too() -> None:
    padded, real, classes = lesson.pad([digits()[2]])
    assert torch.equal(padded[0], digits()[2][0]) and real.all() and classes.tolist() == [9]


def test_lines_are_shared_out_by_real_workers(tmp_path: Path) -> None:
    path = tmp_path / "lines.csv"
    np.savetxt(path, np.arange(33).reshape(11, 3), "%d", delimiter=",")
    for shared, times in [(True, 1), (False, 2)]:
        loader = DataLoader(lesson.Lines(path, shared), batch_size=None, num_workers=2, timeout=60)
        items = sorted(((number, row.tolist()) for number, row in loader), key=str)
        wanted = [(n, [3 * n, 3 * n + 1, 3 * n + 2]) for n in range(11) for _ in range(times)]
        assert items == sorted(wanted, key=str)


@pytest.mark.parametrize("workers", [1, 3, 5])
def test_parts_are_disjoint_and_complete(tmp_path: Path, workers: int) -> None:
    path = tmp_path / "lines.csv"
    np.savetxt(path, np.arange(22).reshape(11, 2), "%d", delimiter=",")
    parts = [list(lesson.Lines(path, True).part(w, workers)) for w in range(workers)]
    numbers = [number for part in parts for number, _ in part]
    assert sorted(numbers) == list(range(11))


def test_one_process_reads_the_whole_stream(tmp_path: Path) -> None:
    path = tmp_path / "lines.csv"
    np.savetxt(path, np.arange(22).reshape(11, 2), "%d", delimiter=",")
    assert len(list(lesson.Lines(path, True))) == 11


def test_a_step_depends_on_seed_epoch_and_item_only() -> None:
    moved = lesson.Moved(digits(), seed=3)
    first = [moved[i][0] for i in range(3)]
    assert torch.equal(moved[1][0], first[1]), "asked for again, it is the same"
    assert first[1].dtype == torch.float32
    assert len(moved) == 3

    moved.epoch = 1
    assert not torch.equal(moved[1][0], first[1])
    assert not torch.equal(lesson.Moved(digits(), seed=4)[1][0], first[1])


@pytest.mark.parametrize("rng", [None, np.random.default_rng(0)])
def test_steps_are_small_and_leave_the_ink(rng: np.random.Generator | None) -> None:
    still = digits()
    moved = lesson.Moved(still, 0, rng)
    steps = []
    for epoch in range(400):
        moved.epoch = epoch
        steps.append((moved[1][0] - still[1][0])[0])
    steps = torch.stack(steps)
    # 400 draws: the mean of N(0, 0.1²) has the standard error 0.005, the deviation about 0.0035
    assert steps[:, :2].mean(dim=0).abs().max() < 0.02
    assert (steps[:, :2].std(dim=0) - 0.1).abs().max() < 0.014
    assert not steps[:, 2].any()


def test_buckets_fill_their_batches() -> None:
    batches = lesson.buckets(list(range(205)), 10, torch.Generator().manual_seed(0))
    assert sorted(map(len, batches)) == [5] + 20 * [10]


def test_the_share_of_padding_is_counted_over_all_batches() -> None:
    """Of batches of different sizes: 2 of 6 places, then 0 of 2; not the mean of both shares."""
    batches = [lesson.pad([digits()[i] for i in chosen]) for chosen in [[2, 0], [1]]]
    share = lesson.padding_share(batches)
    assert isinstance(share, float) and share == pytest.approx(2 / 8)


def test_lines_that_all_workers_read_give_no_warning(tmp_path: Path) -> None:
    path = tmp_path / "lines.csv"
    np.savetxt(path, np.arange(6).reshape(3, 2), "%d", delimiter=",")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loader = DataLoader(lesson.Lines(path, False), batch_size=None, num_workers=2, timeout=60)
        assert len(list(loader)) == 6
