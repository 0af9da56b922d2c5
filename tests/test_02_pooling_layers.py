"""Lesson 5.2 and its note: what the exercises and the answers say."""

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
    _, places = lesson.max_pool2d(x, 2, 2)
    assert places.flatten().tolist() == [4, 2, 12, 15]
    back = lesson.send_back(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), places, (4, 4))
    assert back[0, 0].tolist() == [[0, 0, 2, 0], [1, 0, 0, 0], [0, 0, 0, 0], [3, 0, 0, 4]]


@pytest.mark.parametrize("size, stride, padding", lesson.SETTINGS)
def test_places_are_torchs_in_windows_with_ties_too(size: int, stride: int, padding: int) -> None:
    """Behind a ReLU many windows hold nothing but zeros: the first of them is taken."""
    x = random(2, 3, 9, 11).relu().round()
    values, places = lesson.max_pool2d(x, size, stride, padding)
    theirs = F.max_pool2d(x, size, stride, padding, return_indices=True)
    torch.testing.assert_close(values, theirs[0])
    assert torch.equal(places, theirs[1])


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
    for pool, read in ((1, 196), (2, 49), (7, 4), (14, 1)):
        model = lesson.DigitNet(4, pool)
        assert model.head.in_features == 4 * read
        assert model(x).shape == (2, 10)


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
