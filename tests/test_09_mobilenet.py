"""Lesson 5.9 and its note: what the exercises and the answers say."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision import models, ops

from common.lessons import load_lesson

lesson = load_lesson("phase05_cnn/09-mobilenet")
PICTURE = torch.empty(1, 3, 224, 224, device="meta")


def random(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def on_meta(make, *args) -> nn.Module:
    with torch.device("meta"):
        return make(*args)


def numbers(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("kernel, stride, padding", [(3, 1, 1), (5, 2, 2), (3, 3, 0), (1, 1, 0)])
def test_two_steps_are_torchs_two_layers(kernel: int, stride: int, padding: int) -> None:
    x, filters, mixing = random(2, 5, 9, 12), random(5, kernel, kernel), random(7, 5)
    inputs = [each.requires_grad_() for each in (x, filters, mixing)]
    ours = lesson.separable_conv(x, filters, mixing, stride, padding)
    filtered = F.conv2d(x, filters[:, None], None, stride, padding, groups=5)
    theirs = F.conv2d(filtered, mixing[:, :, None, None])
    torch.testing.assert_close(ours, theirs)
    grad = torch.randn_like(ours)
    for mine, other in zip(
        torch.autograd.grad(ours, inputs, grad), torch.autograd.grad(theirs, inputs, grad)
    ):
        torch.testing.assert_close(mine, other)


def test_without_more_said_there_is_a_place_for_each_place_of_the_filter() -> None:
    """The defaults are those of F.conv2d: stride 1, no padding."""
    x, filters, mixing = random(2, 5, 9, 12), random(5, 3, 3), random(7, 5)
    theirs = F.conv2d(F.conv2d(x, filters[:, None], groups=5), mixing[:, :, None, None])
    torch.testing.assert_close(lesson.separable_conv(x, filters, mixing), theirs)


def test_the_layers_of_a_separable_block_are_the_two_steps() -> None:
    block = lesson.separable(5, 7, 2).double().eval()
    filtering, mixing = block
    x = random(2, 5, 9, 12)
    filtered = filtering[2](filtering[1](filtering[0](x)))
    weights = filtering[0].weight[:, 0], torch.eye(5, dtype=torch.float64)
    torch.testing.assert_close(filtering[0](x), lesson.separable_conv(x, *weights, 2, 1))
    assert filtered.min() >= 0
    assert filtering[0].weight.shape == (5, 1, 3, 3) and filtering[0].bias is None
    assert mixing[0].weight.shape == (7, 5, 1, 1) and block(x).shape == (2, 7, 5, 6)


def test_an_ordinary_filter_for_each_pair_of_channels_cannot_be_separated() -> None:
    """Filters of one channel as rows of a matrix (O, k²): its rank is 1 in a separable layer."""
    products = random(7, 5)[:, :, None, None] * random(5, 3, 3)
    for channel in range(5):
        rows = products[:, channel].flatten(1)
        assert torch.linalg.matrix_rank(rows) == 1
    assert torch.linalg.matrix_rank(random(7, 5, 3, 3)[:, 0].flatten(1)) == 7


@pytest.mark.parametrize("outputs, kernel, factor", [(32, 3, 7.0), (32, 5, 14.0), (8, 3, 4.2)])
def test_the_savings_of_the_first_exercise(outputs: int, kernel: int, factor: float) -> None:
    assert 1 / (1 / outputs + 1 / kernel**2) == pytest.approx(factor, abs=0.05)


def test_most_products_of_v1_are_in_its_mixing_layers() -> None:
    model = on_meta(lesson.make_v1, lesson.separable, lesson.V1)
    everything = lesson.multiply_adds(model, PICTURE)
    mixing, filtering = 0, 0

    def note(layer: nn.Conv2d, inputs: tuple, output: torch.Tensor) -> None:
        nonlocal mixing, filtering
        products = output.numel() * layer.weight[0].numel()
        mixing += products * (layer.kernel_size == (1, 1))
        filtering += products * (layer.groups > 1)

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(note)
    model(PICTURE)
    assert mixing / everything == pytest.approx(0.949, abs=0.001)
    assert filtering / everything == pytest.approx(0.031, abs=0.001)


def test_published_numbers_of_parameters_and_products() -> None:
    assert numbers(on_meta(lesson.make_v1, lesson.separable, lesson.V1)) == 4231976
    for name, parameters, millions in [("V2", 3504872, 301), ("V3", 5483032, 217)]:
        model = on_meta(lesson.make_mobilenet, name)
        assert numbers(model) == parameters
        assert round(lesson.multiply_adds(model, PICTURE) / 1e6) == millions


def test_v2_half_as_wide_inside_of_the_second_exercise(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = lesson.BLOCKS["V2"]
    first, *hidden = columns["hidden"]
    monkeypatch.setitem(columns, "hidden", [first, *(channels // 2 for channels in hidden)])
    model = on_meta(lesson.make_mobilenet, "V2")
    assert numbers(model) == 2601416
    assert round(lesson.multiply_adds(model, PICTURE) / 1e6) == 171


def test_squeeze_and_excite_costs_parameters_not_products() -> None:
    model = on_meta(lesson.make_mobilenet, "V3")
    excites = [each for each in model.modules() if isinstance(each, lesson.SqueezeExcite)]
    parameters = sum(numbers(each) for each in excites)
    assert len(excites) == 8
    assert parameters / numbers(model) == pytest.approx(0.276, abs=0.001)
    layers = [layer for each in excites for layer in each.modules()]
    products = sum(layer.weight.numel() for layer in layers if isinstance(layer, nn.Conv2d))
    assert products / lesson.multiply_adds(model, PICTURE) == pytest.approx(0.007, abs=0.001)


@pytest.mark.parametrize("name, blocks", [("V2", 17), ("V3", 15)])
def test_all_columns_of_a_table_have_an_entry_for_each_block(name: str, blocks: int) -> None:
    assert {len(column) for column in lesson.BLOCKS[name].values()} == {blocks}


def test_the_two_inverted_networks_differ_in_the_relu_behind_the_narrowing_only() -> None:
    plain, other = lesson.inverted(6, 8, 1).eval(), lesson.inverted(6, 8, 1, nn.ReLU).eval()
    lesson.randomise(plain)
    other.load_state_dict(plain.state_dict())
    x = random(3, 6, 5, 7).float()
    assert plain(x).min() < 0
    torch.testing.assert_close(other(x), plain(x).clamp(min=0))


def test_layers_of_the_third_exercise_have_as_many_products() -> None:
    x = torch.empty(1, 128, 28, 28, device="meta")
    depthwise = on_meta(lambda: nn.Conv2d(128, 128, 3, padding=1, groups=128, bias=False))
    pointwise = on_meta(lambda: nn.Conv2d(128, 9, 1, bias=False))
    counts = {lesson.multiply_adds(layer, x) for layer in (depthwise, pointwise)}
    assert counts == {9 * 128 * 28 * 28}


def test_products_are_counted_for_each_picture() -> None:
    layer = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1, groups=2), nn.Flatten(), nn.Linear(210, 3))
    one = 6 * 35 * 2 * 9 + 210 * 3
    assert lesson.multiply_adds(layer, torch.zeros(1, 4, 5, 7)) == one
    assert lesson.multiply_adds(layer, torch.zeros(3, 4, 5, 7)) == 3 * one


@pytest.mark.parametrize("activation, gate", [(nn.ReLU, nn.Hardsigmoid), (nn.SiLU, nn.Sigmoid)])
def test_squeeze_and_excite_is_torchvisions(activation: type, gate: type) -> None:
    ours = lesson.SqueezeExcite(12, 4, activation, gate).double()
    theirs = ops.SqueezeExcitation(12, 4, activation, gate).double()
    lesson.randomise(theirs)
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    x = random(3, 12, 5, 7)
    torch.testing.assert_close(ours(x), theirs(x))
    weights = ours(x) / x
    assert weights.min() >= 0 and weights.max() <= 1
    # the same at all places of a map, another one for each picture
    assert weights.std(dim=(2, 3)).max() < 1e-12
    assert weights[:, :, 0, 0].std(dim=0).max() > 0.01


def test_hard_swish_by_hand() -> None:
    x = torch.tensor([-4.0, -1.0, 1.0, 4.0])
    torch.testing.assert_close(nn.Hardswish()(x), torch.tensor([0, -1 / 3, 2 / 3, 4]))


def test_gradients_of_a_block_are_torchvisions() -> None:
    """In training mode, where batch norm uses the batch's own mean and variance."""
    theirs = models.mobilenetv2.InvertedResidual(6, 6, 1, 4).double()
    lesson.randomise(theirs)
    ours = lesson.InvertedResidual(6, 24, 6, 3, 1, nn.ReLU6, nn.Identity()).double()
    names = zip(ours.state_dict(), theirs.state_dict().values(), strict=True)
    ours.load_state_dict(dict(names))
    x = random(3, 6, 5, 7).requires_grad_()
    found = []
    for block in (ours, theirs):
        output = block(x)
        gradients = torch.autograd.grad(output.square().sum(), [x, *block.parameters()])
        found.append(torch.cat([output.flatten(), *(each.flatten() for each in gradients)]))
    torch.testing.assert_close(*found)


def test_a_block_is_residual_only_where_shapes_agree() -> None:
    x = torch.randn(2, 6, 8, 8)
    for outputs, stride, residual in [(6, 1, True), (6, 2, False), (8, 1, False)]:
        block = lesson.InvertedResidual(6, 24, outputs, 3, stride, nn.ReLU, nn.Identity()).eval()
        assert block.is_residual is residual
        change = block.block(x)
        torch.testing.assert_close(block(x), x + change if residual else change)


@pytest.mark.parametrize("outputs", [2, 5, 8, 16, 24])
def test_how_often_too_few_outputs_are_on(outputs: int) -> None:
    """Each output of a random layer is on in half of all cases: the binomial distribution."""
    inputs, draws = min(outputs, 8), 4000
    torch.manual_seed(0)
    weight = torch.randn(draws, outputs, inputs)
    is_on = torch.einsum("noi,ni->no", weight, torch.randn(draws, inputs)) > 0
    # Near an input the layer is linear: the rows that are on, and rows of zeros.
    rank = torch.linalg.matrix_rank(weight * is_on[:, :, None])
    assert torch.equal(rank < inputs, is_on.sum(dim=1) < inputs)
    share = sum(math.comb(outputs, on) for on in range(inputs)) / 2**outputs
    deviation = math.sqrt(share * (1 - share) / draws)
    assert (rank < inputs).double().mean().item() == pytest.approx(share, abs=4 * deviation)


def test_all_values_are_made_random() -> None:
    model = lesson.InvertedResidual(4, 8, 4, 3, 1, nn.ReLU, lesson.SqueezeExcite(8, 2))
    lesson.randomise(model)
    for name, values in model.state_dict().items():
        if values.is_floating_point():
            assert values.std() > 0, name
            assert name.endswith("var") is False or values.min() >= 0.5


def test_v3_small_is_torchvisions() -> None:
    re, hs = nn.ReLU, nn.Hardswish
    rows = [
        (3, 16, 16, 8, re, 2),
        (3, 72, 24, 0, re, 2),
        (3, 88, 24, 0, re, 1),
        (5, 96, 40, 24, hs, 2),
        (5, 240, 40, 64, hs, 1),
        (5, 240, 40, 64, hs, 1),
        (5, 120, 48, 32, hs, 1),
        (5, 144, 48, 40, hs, 1),
        (5, 288, 96, 72, hs, 2),
        (5, 576, 96, 144, hs, 1),
        (5, 576, 96, 144, hs, 1),
    ]
    layers, channels = [lesson.conv_norm(3, 16, stride=2, activation=hs)], 16
    for kernel, hidden, outputs, squeezed, inner, stride in rows:
        excite = lesson.SqueezeExcite(hidden, squeezed) if squeezed else nn.Identity()
        block = lesson.InvertedResidual(channels, hidden, outputs, kernel, stride, inner, excite)
        layers.append(block)
        channels = outputs
    layers += [lesson.conv_norm(96, 576, kernel=1, activation=hs), nn.AdaptiveAvgPool2d(1)]
    head = [nn.Flatten(), nn.Linear(576, 1024), hs(), nn.Dropout(0.2), nn.Linear(1024, 1000)]
    ours = nn.Sequential(*layers, *head).double().eval()
    for layer in ours.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps = 1e-3
    assert numbers(ours) == 2542856

    theirs = models.mobilenet_v3_small(weights=None).double().eval()
    lesson.randomise(theirs)
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    x = random(2, 3, 40, 56)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))
        assert (ours(x)[0] - ours(x)[1]).std() > 0.01
