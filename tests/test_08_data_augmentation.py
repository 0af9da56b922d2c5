"""Lesson 3.8: what its functions promise beyond what the lesson itself claims."""

import math

import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as vf

from common.lessons import load_lesson

lesson = load_lesson("phase03_pytorch/08-data-augmentation")

HEIGHT, WIDTH = 60, 80
BOXES = torch.tensor([[18.0, 12.0, 50.0, 31.0], [2.0, 40.0, 79.0, 58.0]])
THEIRS = tv_tensors.BoundingBoxes(BOXES, format="XYXY", canvas_size=(HEIGHT, WIDTH))


def test_flipped_and_cropped_boxes_are_those_of_v2() -> None:
    assert torch.equal(
        lesson.flip_boxes(BOXES, WIDTH), vf.horizontal_flip(THEIRS).as_subclass(torch.Tensor)
    )
    ours = lesson.crop_boxes(BOXES, 20, 10, 30, 45)
    assert torch.equal(ours, vf.crop(THEIRS, 20, 10, 30, 45).as_subclass(torch.Tensor))


@pytest.mark.parametrize("angle", [25.0, -70.0, 90.0, 140.0, 359.0])
def test_turned_boxes_are_those_of_v2(angle: float) -> None:
    ours = lesson.rotate_boxes(BOXES, angle, HEIGHT, WIDTH)
    theirs = vf.rotate(THEIRS, angle).as_subclass(torch.Tensor)
    assert torch.allclose(ours, theirs, atol=1e-3)


def test_turned_there_and_back_a_box_of_32_by_19_has_3_72_times_its_area() -> None:
    """The first exercise of the note. Reference: its formula, w|cos| + h|sin|, twice."""
    box = torch.tensor([[84.0, 90.0, 116.0, 109.0]])
    back = lesson.rotate_boxes(lesson.rotate_boxes(box, 30, 200, 200), -30, 200, 200)
    cos, sin = math.cos(math.pi / 6), math.sin(math.pi / 6)
    width, height = 32 * cos + 19 * sin, 32 * sin + 19 * cos
    wanted = [width * cos + height * sin, width * sin + height * cos]
    assert (back[0, 2:] - back[0, :2]).tolist() == pytest.approx(wanted, abs=1e-3)
    assert wanted == pytest.approx([48.45, 46.71], abs=0.01)
    assert math.prod(wanted) / (32 * 19) == pytest.approx(3.7228, abs=1e-3)


def test_turned_by_a_right_angle_a_square_picture_is_torch_rot90() -> None:
    pictures = torch.rand(2, 3, 7, 7, dtype=torch.float64)
    zero = torch.zeros(2, dtype=torch.float64)
    assert torch.allclose(lesson.rotate(pictures, zero + 90, zero, zero), pictures.rot90(1, (2, 3)))


def test_whole_moves_shift_the_rows_and_columns() -> None:
    pictures = torch.rand(1, 1, 5, 6, dtype=torch.float64)
    zero = torch.zeros(1, dtype=torch.float64)
    moved = lesson.rotate(pictures, zero, zero + 2, zero - 1)
    assert torch.allclose(moved[..., :4, 2:], pictures[..., 1:, :4])
    assert not moved[..., :2].any() and not moved[..., 4, :].any()


def test_cutmix_counts_what_an_edge_cuts_off() -> None:
    pictures = torch.stack([torch.zeros(1, 10, 20), torch.ones(1, 10, 20)])
    mixed, targets = lesson.cutmix(pictures, torch.eye(2), 0.75, x=0, y=5)
    # half of √0.25 of 10 and of 20: two rows each way, five columns to the right
    assert mixed[0].sum() == 4 * 5 and mixed[1].sum() == 200 - 20
    assert targets[0].tolist() == pytest.approx([0.9, 0.1])


def test_turn_and_shift_stays_within_its_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(lesson, "rotate", lambda pictures, *moves: asked.append(moves))
    lesson.turn_and_shift(torch.zeros(2000, 1, 8, 8))
    for values, limit in zip(asked[0], [15, 0.7, 0.7], strict=True):
        assert values.abs().max() <= limit
        assert values.min() < -0.98 * limit and values.max() > 0.98 * limit
        assert abs(values.mean()) < 0.1 * limit


def test_cutmix_of_one_picture_is_that_picture() -> None:
    picture = torch.rand(1, 1, 10, 20)
    mixed, targets = lesson.cutmix(picture, torch.ones(1, 1), 0.5, x=9, y=3)
    assert torch.equal(mixed, picture) and targets.item() == 1


def test_losses_and_accuracies_are_measured_on_their_own_digits() -> None:
    model = torch.nn.Flatten()  # two pixels are the two logits
    right = (torch.tensor([[[[5.0, 0.0]]]]), torch.tensor([0]))
    wrong = (torch.tensor([[[[0.0, 5.0]]]]), torch.tensor([0]))
    half = (torch.cat([right[0], wrong[0]]), torch.tensor([0, 0]))
    train_loss, test_loss, accuracy, tilted = lesson.measure(model, right, wrong, half)
    assert test_loss - train_loss == pytest.approx(5)
    assert (accuracy, tilted) == (0, 0.5)
