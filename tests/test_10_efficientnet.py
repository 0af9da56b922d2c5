"""Lesson 5.10 and its note: what the exercises and the answers say."""

import math

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models._utils import _make_divisible

from common.lessons import load_lesson

lesson = load_lesson("phase05_cnn/10-efficientnet")


def random(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def test_channels_are_rounded_as_torchvision_does() -> None:
    for tenths in range(1, 6000):
        assert lesson.divisible(tenths / 10) == _make_divisible(tenths / 10, 8)


@pytest.mark.parametrize("name", ["B1", "B4"])
def test_shapes_of_the_larger_ones_are_torchvisions(name: str) -> None:
    width, depth, *_ = lesson.FAMILY[name]
    with torch.device("meta"):
        ours = lesson.make_efficientnet(width, depth)
        theirs = getattr(models, f"efficientnet_{name.lower()}")(weights=None)
    shapes = [value.shape for value in ours.state_dict().values()]
    assert shapes == [value.shape for value in theirs.state_dict().values()]


def test_rates_of_stochastic_depth_are_torchvisions() -> None:
    with torch.device("meta"):
        ours = lesson.make_efficientnet(1.0, 1.1)
        theirs = models.efficientnet_b1(weights=None)
    rates = [layer.rate for layer in ours if isinstance(layer, lesson.MBConv)]
    layers = [layer for layer in theirs.modules() if type(layer).__name__ == "StochasticDepth"]
    assert rates == pytest.approx([layer.p for layer in layers])
    assert rates[0] == 0 and 0.19 < rates[-1] < 0.2


def test_a_table_of_ones_own() -> None:
    model = lesson.make_efficientnet(1.5, 1.5, [(1, 3, 1, 16, 1), (4, 5, 2, 24, 3)], 8, 7)
    blocks = [layer for layer in model if isinstance(layer, lesson.MBConv)]
    assert len(blocks) == 2 + 5
    assert [block.is_residual for block in blocks] == [False, True, False, True, True, True, True]
    assert model(torch.randn(2, 3, 24, 40)).shape == (2, 7)


def test_gradients_of_a_block_are_torchvisions() -> None:
    """In training mode, where batch norm uses the batch's own mean and variance."""
    setting = models.efficientnet.MBConvConfig(6, 5, 1, 16, 16, 1)
    theirs = models.efficientnet.MBConv(setting, 0.0, nn.BatchNorm2d).double()
    lesson.mobilenet.randomise(theirs)
    ours = lesson.MBConv(16, 16, 5, 1, 6, 0.0).double()
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    x = random(3, 16, 5, 7).requires_grad_()
    found = []
    for block in (ours, theirs):
        output = block(x)
        gradients = torch.autograd.grad(output.square().sum(), [x, *block.parameters()])
        found.append(torch.cat([output.flatten(), *(each.flatten() for each in gradients)]))
    torch.testing.assert_close(*found)


def test_a_block_that_is_left_out_leaves_its_input() -> None:
    torch.manual_seed(0)
    block = lesson.MBConv(8, 8, 3, 1, 6, 0.5).train()
    x = torch.randn(64, 8, 5, 7)
    changed = (block(x) != x).flatten(1)
    assert torch.equal(changed.any(dim=1), changed.all(dim=1))
    assert 16 < changed.all(dim=1).sum() < 48


def test_a_block_that_changes_the_shape_is_never_left_out() -> None:
    block = lesson.MBConv(8, 16, 3, 2, 6, 0.9).train()
    output = block(torch.randn(64, 8, 6, 6))
    assert (output.flatten(1).std(dim=1) > 0).all()


def test_the_worked_example_of_the_note() -> None:
    alpha, beta, gamma = 1.2, 1.1, 1.15
    assert alpha * beta**2 * gamma**2 == pytest.approx(1.92, abs=0.005)
    assert lesson.divisible(1.1 * 40) == 48 and math.ceil(1.2 * 2) == 3
    assert lesson.divisible(1.1 * 24) == 24
    assert lesson.divisible(10.4) == 16  # 8 would be more than a tenth less


def test_smaller_pictures_are_means() -> None:
    x = torch.randn(2, 3, 32, 32)
    small = lesson.shrink(x, 16)
    torch.testing.assert_close(small, x.unflatten(3, (16, 2)).unflatten(2, (16, 2)).mean((3, 5)))
    assert torch.equal(lesson.shrink(x, 32), x)
    assert lesson.shrink(x, 20).shape == (2, 3, 20, 20)
    small = lesson.shrink(x, 16)
    assert torch.equal(lesson.shrink(small, 32)[:, :, ::2, 1::2], small)


def test_the_exercises() -> None:
    assert [round(base**3, 2) for base in (1.2, 1.1, 1.15)] == [1.73, 1.33, 1.52]
    assert round(1.92**3) == 7
    assert [round(lesson.FAMILY[name][2] / 224, 2) for name in ("B3", "B4")] == [1.34, 1.70]
    _, whole = lesson.count(1.0, 1.0, 224)
    _, small = lesson.count(1.0, 1.0, 160)
    assert small / whole == pytest.approx(0.51, abs=0.005)
