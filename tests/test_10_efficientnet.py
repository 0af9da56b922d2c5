"""Lesson 5.10 and its note: what the exercises and the answers say."""

import math

import pytest
import torch
from torch import nn
from torchvision import models, ops
from torchvision.models._utils import _make_divisible

from common.errors import LessonError
from common.lessons import load_lesson

lesson = load_lesson("phase05_cnn/10-efficientnet")


def random(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def test_channels_are_rounded_as_torchvision_does() -> None:
    for tenths in range(1, 6000):
        assert lesson.divisible(tenths / 10) == _make_divisible(tenths / 10, 8)
    # exactly nine tenths of the wish are enough
    assert 0.9 * (8 / 0.9) == 8
    assert lesson.divisible(8 / 0.9) == _make_divisible(8 / 0.9, 8) == 8


@pytest.mark.parametrize("name", ["B1", "B2", "B4"])
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


def test_how_the_published_ones_differ_from_ours() -> None:
    """B1 as B0 has a dropout of 0.2; the others more, and from B5 on another eps."""
    found = []
    for number in range(8):
        with torch.device("meta"):
            theirs = models.get_model(f"efficientnet_b{number}", weights=None)
        dropout = next(layer.p for layer in theirs.modules() if isinstance(layer, nn.Dropout))
        eps = {layer.eps for layer in theirs.modules() if isinstance(layer, nn.BatchNorm2d)}
        found.append((dropout, *eps))
        blocks = [layer for layer in theirs.modules() if isinstance(layer, ops.StochasticDepth)]
        assert {layer.mode for layer in blocks} == {"row"}
    ours = nn.BatchNorm2d(1).eps
    assert [dropout for dropout, _ in found] == [0.2, 0.2, 0.3, 0.3, 0.4, 0.4, 0.5, 0.5]
    assert [eps for _, eps in found] == [ours] * 5 + [1e-3] * 3


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


def test_a_throw_that_is_the_rate_itself_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.rand can give 0, and at a rate of 0 nothing is left out."""
    monkeypatch.setattr(torch, "rand", lambda *shape, device: torch.zeros(shape, device=device))
    change = 1 + random(3, 2, 4, 4).square()
    torch.testing.assert_close(lesson.stochastic_depth(change, 0.0, training=True), change)
    assert (lesson.stochastic_depth(change, 0.1, training=True) == 0).all()


def test_a_block_that_changes_the_shape_is_never_left_out() -> None:
    block = lesson.MBConv(8, 16, 3, 2, 6, 0.9).train()
    output = block(torch.randn(64, 8, 6, 6))
    assert (output.flatten(1).std(dim=1) > 0).all()


def test_costs_are_counted_without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    make = lesson.make_efficientnet

    def noted(*sizes: float) -> nn.Module:
        made.append(make(*sizes))
        return made[-1]

    monkeypatch.setattr(lesson, "make_efficientnet", noted)
    lesson.count(1.0, 1.0, 64)
    assert all(weight.is_meta for weight in made[0].parameters())


def test_the_worked_example_of_the_note() -> None:
    alpha, beta, gamma = 1.2, 1.1, 1.15
    assert alpha * beta**2 * gamma**2 == pytest.approx(1.92, abs=0.005)
    assert (beta, alpha, gamma) == lesson.STEP
    assert lesson.B0[4][3] == 112 and lesson.B0[0][3] == 16
    assert lesson.divisible(1.1 * 112) == 120 and math.ceil(1.2 * 2) == 3
    assert lesson.divisible(1.2 * 16) == 24  # 16 would be more than a tenth less


def steps_of(name: str) -> list[float]:
    """φ of a member by its width, its depth and its side."""
    width, depth, side, _ = lesson.FAMILY[name]
    factors = zip((width, depth, side / 224), lesson.STEP, strict=True)
    return [round(math.log(factor, base), 1) for factor, base in factors]


def test_published_factors_are_near_the_rule() -> None:
    assert steps_of("B2") == [1.0, 1.0, 1.1]
    assert steps_of("B3") == [1.9, 1.8, 2.1]
    assert steps_of("B7") == [7.3, 6.2, 7.0]


def test_b7_has_more_blocks_than_the_rule_says() -> None:
    with torch.device("meta"):
        model = lesson.make_efficientnet(2.0, 3.1)
    assert sum(isinstance(layer, lesson.MBConv) for layer in model) == 55
    assert 3.1 * sum(blocks for *_, blocks in lesson.B0) == pytest.approx(49.6)
    assert round(3.1 * 2.0**2 * (600 / 224) ** 2) == 89


def test_weights_that_do_not_fit_are_named() -> None:
    theirs = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5))
    with pytest.raises(
        LessonError, match=r"1\.weight has the shape \(6, 4\).*1\.weight has \(5, 4\)"
    ):
        lesson.copy_weights(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 6)), theirs)
    with pytest.raises(LessonError, match=r"2 tensors .* has 4"):
        lesson.copy_weights(nn.Sequential(nn.Linear(3, 4)), theirs)
    ours = nn.ModuleDict({"a": nn.Linear(3, 4), "b": nn.Linear(4, 5)})
    lesson.copy_weights(ours, theirs)
    assert torch.equal(ours["a"].bias, theirs[0].bias)
    assert torch.equal(ours["b"].weight, theirs[1].weight)


def test_the_ways_differ_in_what_their_names_say() -> None:
    ways = lesson.WAYS
    assert ways["side_20"] == (*ways["base"][:2], ways["together"][2], 1)
    assert ways["longer"] == (*ways["base"][:3], 3)
    assert ways["width"] == (2.0, 1.0, *ways["base"][2:])
    products = {}
    for name in ("base", "together", "side_20"):
        width, depth, side, times = ways[name]
        model = lesson.make_efficientnet(width, depth, lesson.SMALL, stem=16, classes=10)
        x = torch.zeros(1, 3, side, side)
        products[name] = times * lesson.mobilenet.multiply_adds(model, x)
    assert 3 * products["base"] < products["together"]
    assert ways["fine"] == ways["base"]
    assert [row[2] for row in lesson.SMALL] == [2]
    assert [(*row[:2], 1, *row[3:]) for row in lesson.SMALL] == lesson.FINE
    assert 2 * products["side_20"] < products["together"]


def test_smaller_pictures_are_means_and_larger_ones_repeat() -> None:
    x = torch.randn(2, 3, 32, 32)
    small = lesson.resize(x, 16)
    torch.testing.assert_close(small, x.unflatten(3, (16, 2)).unflatten(2, (16, 2)).mean((3, 5)))
    assert torch.equal(lesson.resize(x, 32), x)
    assert lesson.resize(x, 20).shape == (2, 3, 20, 20)
    small = lesson.resize(x, 16)
    assert torch.equal(lesson.resize(small, 32)[:, :, ::2, 1::2], small)


def test_the_exercises() -> None:
    deep = lesson.make_efficientnet(1.0, 3.0, lesson.SMALL, stem=16, classes=10)
    products = lesson.mobilenet.multiply_adds(deep, torch.zeros(1, 3, 16, 16))
    assert 4 * products / 1e6 == pytest.approx(4.3, abs=0.05)
    assert [round(lesson.FAMILY[name][2] / 224, 2) for name in ("B3", "B4")] == [1.34, 1.70]
    _, whole = lesson.count(1.0, 1.0, 224)
    _, small = lesson.count(1.0, 1.0, 160)
    assert small / whole == pytest.approx(0.51, abs=0.005)
