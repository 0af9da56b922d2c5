"""Lesson 5.3 and its note: what the exercises and the answers say."""

import math

import numpy as np
import pytest
import torch

from common.lessons import load_lesson

lesson = load_lesson("phase05_cnn/03-receptive-field")
Layer = lesson.Layer


def field(layers: list) -> int:
    return lesson.receptive_field(layers)[0]


def resnet18() -> list:
    """7x7 and pooling, then four stages of two blocks of two 3x3; stages 2 to 4 begin with 2."""
    layers = [Layer(7, 2, padding=3), Layer(3, 2, padding=1, pool=True)]
    for stage in range(4):
        layers.append(Layer(3, 1 if stage == 0 else 2, padding=1))
        layers += [Layer(3, padding=1)] * 3
    return layers


def test_a_field_may_be_larger_than_the_picture() -> None:
    assert field(resnet18()) == 435
    assert field(lesson.vgg16()) == 212


def test_a_stride_counted_too_early_is_far_off_in_a_resnet() -> None:
    """What the note says of its failure: 501 instead of 435."""
    size = step = 1
    for layer in resnet18():
        step *= layer.stride
        size += layer.dilation * (layer.kernel - 1) * step
    assert size == 501


def test_at_the_border_most_of_a_large_field_is_padding() -> None:
    size, step, start = lesson.receptive_field(lesson.vgg16())
    seen = [
        len(set(range(start + u * step, start + u * step + size)) & set(range(224)))
        for u in range(7)
    ]
    assert seen == [122, 154, 186, 212, 186, 154, 122]


def test_doubled_dilations_are_seen_whole() -> None:
    torch.manual_seed(0)
    model = lesson.build(lesson.doubling(6))
    first, last = lesson.ends(lesson.seen_pixels(model, torch.randn(12, 1, 129, 129), 1))
    assert (first, last) == (1, 127)
    assert field([Layer(3)] * 6) == 13


def test_a_stride_at_the_front_widens_all_that_follows() -> None:
    assert field([Layer(3, stride=2), Layer(3), Layer(3)]) == 11
    assert field([Layer(3), Layer(3), Layer(3, stride=2)]) == 7


def test_layers_for_a_field_of_101() -> None:
    def needed(layer_at) -> int:
        return next(n for n in range(1, 99) if field([layer_at(i) for i in range(n)]) >= 101)

    assert needed(lambda i: Layer(3)) == 50
    assert needed(lambda i: Layer(3, stride=2)) == 6
    assert needed(lambda i: Layer(3, dilation=2**i)) == 6
    assert field(lesson.doubling(6)) == 127


@pytest.mark.parametrize("kernel", [2, 3, 5])
def test_paths_are_the_powers_of_a_polynomial(kernel: int) -> None:
    shares = lesson.path_shares(6, kernel)
    ways = np.poly1d([1.0] * kernel) ** 6
    np.testing.assert_allclose(shares, ways.coefficients / kernel**6)
    assert lesson.spread(shares) == pytest.approx(math.sqrt(6 * (kernel**2 - 1) / 12))
    deep = np.poly1d([1.0] * kernel) ** 20
    np.testing.assert_allclose(lesson.path_shares(20, kernel), deep.c / kernel**20, rtol=1e-12)


def test_energy_follows_the_paths_without_relu_as_well() -> None:
    """The note's argument: over random weights the mixed terms of two paths vanish."""
    torch.manual_seed(0)
    total = torch.zeros(9).double()
    for _ in range(60):
        model = lesson.build([Layer(3)] * 4, channels=32).double()
        convolutions = [module for module in model if not isinstance(module, torch.nn.ReLU)]
        x = torch.zeros(1, 1, 9, 9).double().requires_grad_()
        output = torch.nn.Sequential(*convolutions)(x)
        (grad,) = torch.autograd.grad(output, x, torch.randn_like(output))
        total += grad.square().sum(dim=(0, 1, 2))
    assert (total / total.sum() - lesson.path_shares(4)).abs().max() < 0.03


def test_one_picture_hides_pixels_that_others_show() -> None:
    """Why the pixels are united over several pictures: max pooling sees one of four at a time."""
    torch.manual_seed(0)
    model = lesson.build([Layer(3), Layer(2, stride=2, pool=True)], channels=1)
    pictures = torch.randn(32, 1, 4, 4)
    one = lesson.seen_pixels(model, pictures[:1], 0)
    many = lesson.seen_pixels(model, pictures, 0)
    assert one.sum() == 9 and many.all()


def test_a_pixel_is_seen_if_any_of_its_channels_is() -> None:
    model = torch.nn.Conv2d(2, 1, 3, bias=False)
    with torch.no_grad():
        model.weight[:, 1] = 0
    x = torch.randn(2, 2, 4, 5)
    seen = lesson.seen_pixels(model, x, 1)
    assert seen.shape == (4, 5)
    assert seen.nonzero().tolist() == [[row, column] for row in (1, 2, 3) for column in (1, 2, 3)]
    assert not x.requires_grad, "the caller's pictures stay as they were"
