"""Lesson 5.2 and its note: what the exercises and the answers say."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from common.lessons import load_lesson

lesson = load_lesson("phase05_cnn/02-pooling-layers")


def random(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def largest(x: torch.Tensor, size: int) -> torch.Tensor:
    return lesson.max_pool2d(x, size, size)[0]


def test_gradients_of_the_worked_example() -> None:
    x = torch.tensor(
        [[1.0, 3.0, 2.0, 0.0], [4.0, 2.0, 1.0, 1.0], [0.0, 1.0, 5.0, 2.0], [2.0, 0.0, 3.0, 6.0]]
    )[None, None]
    _, index = lesson.max_pool2d(x, 2, 2)
    assert index.flatten().tolist() == [4, 2, 12, 15]
    back = lesson.send_back(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), index, (4, 4))
    assert back[0, 0].tolist() == [[0, 0, 2, 0], [1, 0, 0, 0], [0, 0, 0, 0], [3, 0, 0, 4]]


@pytest.mark.parametrize("size, stride, padding", lesson.SETTINGS)
def test_indices_are_torchs_in_windows_with_ties_too(size: int, stride: int, padding: int) -> None:
    """Behind a ReLU many windows hold nothing but zeros: the first of them is taken."""
    x = random(2, 3, 9, 11).relu().round()
    values, index = lesson.max_pool2d(x, size, stride, padding)
    theirs = F.max_pool2d(x, size, stride, padding, return_indices=True)
    torch.testing.assert_close(values, theirs[0])
    assert torch.equal(index, theirs[1])


def test_windows_that_do_not_overlap_can_be_unpooled() -> None:
    x = random(2, 3, 9, 11)
    values, index = lesson.max_pool2d(x, 2, 2)
    theirs = F.max_unpool2d(values, index, 2, 2, output_size=x.shape[2:])
    torch.testing.assert_close(lesson.send_back(values, index, x.shape[2:]), theirs)

    # With overlap a winner's shares are added, but its value is written.
    values, index = lesson.max_pool2d(x, 3, 1)
    theirs = F.max_unpool2d(values, index, 3, 1, output_size=x.shape[2:])
    assert not torch.allclose(lesson.send_back(values, index, x.shape[2:]), theirs)


def test_lp_pooling_lies_between_mean_and_maximum_if_divided_first() -> None:
    ones = torch.ones(1, 1, 2, 2)
    assert F.lp_pool2d(ones, 2, 2).item() == 2
    x = random(2, 3, 8, 8).abs()
    largest_of_each = largest(x, 2)
    before = lesson.average_pool2d(x, 2, 2)
    for power in (1, 2, 8, 32):
        mean = F.lp_pool2d(x, power, 2) / 4 ** (1 / power)
        assert (mean >= before - 1e-9).all() and (mean <= largest_of_each).all()
        assert (mean >= largest_of_each * 4 ** (-1 / power) - 1e-9).all()
        before = mean


@pytest.mark.parametrize("margin", [3, 6])
def test_a_shift_changes_a_global_maximum_only_at_the_border(margin: int) -> None:
    """In the lesson's frame the digit comes too near; with three more pixels it does not."""
    torch.manual_seed(0)
    model = lesson.DigitNet(16, None)
    digits = F.pad(torch.rand(20, 1, 8, 8), [margin] * 4)
    still = model.features(digits)
    for far in (1, 2, 3):
        moved = model.features(digits.roll(far, dims=3))
        assert torch.allclose(moved, still, atol=1e-6) == (margin - far >= 3)


def test_the_two_digits_are_far_apart_and_only_exchanged() -> None:
    x = np.arange(4 * 64).reshape(4, 8, 8) + 1.0
    pictures, left = lesson.two_digits(x, np.array([7, 3, 7, 0]))
    assert pictures.shape == (2, 1, 14, 28) and left.tolist() == [3, 7]
    first, second = pictures
    assert torch.equal(first[..., :14], second[..., 14:])
    assert torch.equal(first[..., 14:], second[..., :14])
    assert not first[..., 11:17].any() and first[..., 10].any() and first[..., 17].any()
    assert first[0, 3, 3] == x[1, 0, 0] / 16, "the 3 stands left in the first half"


def test_two_poolings_of_2_are_one_of_4() -> None:
    x = random(2, 3, 8, 12)
    torch.testing.assert_close(largest(largest(x, 2), 2), largest(x, 4))
    twice = lesson.average_pool2d(lesson.average_pool2d(x, 2, 2), 2, 2)
    torch.testing.assert_close(twice, lesson.average_pool2d(x, 4, 4))
    mixed = lesson.average_pool2d(largest(x, 2), 2, 2)
    assert not torch.allclose(mixed, largest(lesson.average_pool2d(x, 2, 2), 2))


def test_a_linear_layer_may_stand_before_or_behind_a_global_mean() -> None:
    x, weight, bias = random(2, 5, 4, 6), random(3, 5), random(3)
    behind = F.linear(x.mean(dim=(2, 3)), weight, bias)
    at_each_place = F.conv2d(x, weight[:, :, None, None], bias)  # (2, 3, 4, 6)
    torch.testing.assert_close(at_each_place.mean(dim=(2, 3)), behind)


def test_zeros_around_a_mean_count_unless_told_otherwise() -> None:
    x = torch.ones(1, 1, 4, 4)
    ours = lesson.average_pool2d(x, 3, 1, 1)
    assert ours[0, 0, 0, 0].item() == pytest.approx(4 / 9)
    without = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    assert torch.equal(without, x)


@pytest.mark.parametrize("size", range(1, 15))
@pytest.mark.parametrize("parts", [1, 2, 3, 5])
def test_parts_cover_a_side_and_are_of_about_one_length(size: int, parts: int) -> None:
    found = lesson.bounds(size, parts)
    assert len(found) == parts
    assert {pixel for start, end in found for pixel in range(start, end)} == set(range(size))
    lengths = [end - start for start, end in found]
    assert max(lengths) - min(lengths) <= 2


def test_a_network_ends_with_the_size_that_its_pooling_leaves() -> None:
    x = torch.zeros(2, 1, 14, 14)
    for pool, read in ((1, 196), (2, 49), (7, 4), (None, 1)):
        model = lesson.DigitNet(4, pool)
        assert model.head.in_features == 4 * read
        assert model(x).shape == (2, 10)
    wide = lesson.DigitNet(4, 2, width=28)
    assert wide(torch.zeros(2, 1, 14, 28)).shape == (2, 10)
    assert wide.features(torch.zeros(2, 1, 14, 28)).shape == (2, 4 * 7 * 14)


def test_the_network_is_two_convolutions_each_with_a_relu() -> None:
    torch.manual_seed(0)
    model = lesson.DigitNet(4, 2)
    reference = torch.nn.Sequential(
        model.first,
        torch.nn.ReLU(),
        model.second,
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        model.head,
    )
    x = torch.randn(3, 1, 14, 14)
    torch.testing.assert_close(model(x), reference(x))
