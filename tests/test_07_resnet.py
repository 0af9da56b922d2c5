"""Lesson 5.7 and its note: what the exercises and the answers say."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from common.lessons import load_lesson

lesson = load_lesson("phase05_cnn/07-resnet")


def random(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator)


def numbers(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def convolutions(model: nn.Module) -> list[nn.Conv2d]:
    return [module for module in model.modules() if isinstance(module, nn.Conv2d)]


@pytest.mark.parametrize("depth", lesson.DEPTHS)
@pytest.mark.parametrize("residual", [False, True])
def test_a_net_has_its_depth_and_halves_its_maps_twice(depth: int, residual: bool) -> None:
    model = lesson.SmallResNet(depth, 8, inputs=3, residual=residual)
    assert len(convolutions(model)) + 1 == depth  # and the linear layer
    assert model.blocks(random(2, 8, 12, 20)).shape == (2, 32, 3, 5)
    assert model(random(2, 3, 9, 14)).shape == (2, 10)


@pytest.mark.parametrize("depth, wanted", [(8, 19_074), (20, 67_906), (44, 165_570)])
def test_a_padded_shortcut_costs_no_parameter(depth: int, wanted: int) -> None:
    for residual in (False, True):
        assert numbers(lesson.SmallResNet(depth, 8, residual=residual)) == wanted


def test_two_projections_cost_736_parameters() -> None:
    assert numbers(lesson.projection(8, 16, 2)) + numbers(lesson.projection(16, 32, 2)) == 736


@pytest.mark.parametrize("height, width", [(6, 8), (7, 5)])
def test_padding_is_a_projection_with_ones_and_zeros(height: int, width: int) -> None:
    x = random(2, 4, height, width)
    conv = nn.Conv2d(4, 7, 1, stride=2, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.eye(7)[:, :4, None, None])
    assert torch.equal(lesson.PadChannels(3)(x), conv(x))


def test_a_plain_block_is_two_layers_one_after_the_other() -> None:
    torch.manual_seed(0)
    block = lesson.BasicBlock(4, 6, stride=2, residual=False)
    layers = [block.conv1, block.bn1, nn.ReLU(), block.conv2, block.bn2, nn.ReLU()]
    x = random(3, 4, 7, 9)
    torch.testing.assert_close(block(x), nn.Sequential(*layers)(x))


def test_a_net_is_a_convolution_blocks_a_mean_and_a_linear_layer() -> None:
    torch.manual_seed(0)
    model = lesson.SmallResNet(8, 4, inputs=2)
    lesson.randomize(model.eval())
    x = random(3, 2, 8, 10)
    norm = model.bn
    h = F.conv2d(x, model.conv.weight, padding=1)
    h = F.batch_norm(h, norm.running_mean, norm.running_var, norm.weight, norm.bias).relu()
    for block in model.blocks:
        h = block(h)
    h = F.adaptive_avg_pool2d(h, 1).flatten(start_dim=1)
    torch.testing.assert_close(model(x), h @ model.head.weight.T + model.head.bias)


def test_the_first_weights_are_hes_by_outputs() -> None:
    torch.manual_seed(0)
    model = lesson.SmallResNet(20, 32)
    for conv in convolutions(model):
        wanted = math.sqrt(2 / (9 * conv.out_channels))
        assert conv.weight.std().item() == pytest.approx(wanted, rel=0.12)


def test_gradients_are_those_of_the_loss_and_do_not_add_up() -> None:
    torch.manual_seed(0)
    model = lesson.SmallResNet(8, 4)
    batch = random(6, 1, 8, 8), torch.arange(6)
    first = lesson.weight_gradients(model, batch)
    weights = [conv.weight for conv in convolutions(model)]
    gradients = torch.autograd.grad(lesson.training.cross_entropy(model, batch), weights)
    assert first == pytest.approx([gradient.norm().item() for gradient in gradients], rel=1e-4)
    assert lesson.weight_gradients(model, batch) == pytest.approx(first)


def test_with_last_scales_of_0_the_branches_get_no_gradient_at_first() -> None:
    """The third exercise."""
    torch.manual_seed(0)
    model = lesson.SmallResNet(20, 4)
    for block in model.blocks:
        nn.init.zeros_(block.bn2.weight)
    lengths = lesson.weight_gradients(model, (random(6, 1, 8, 8), torch.arange(6)))
    assert lengths[0] > 0 and not any(lengths[1:])
    scales = [block.bn2.weight.grad.norm() for block in model.blocks]
    assert all(scale > 0 for scale in scales)


@pytest.mark.parametrize("inputs, outputs, stride", [(6, 6, 1), (4, 6, 2), (4, 6, 1)])
def test_a_block_is_torchvisions(inputs: int, outputs: int, stride: int) -> None:
    """Outputs, gradients and running means; with a projection where the shape changes."""
    torch.manual_seed(0)
    blocks = []
    for kind in (torchvision.models.resnet.BasicBlock, lesson.BasicBlock):
        shortcut = lesson.projection(inputs, outputs, stride) if inputs != outputs else None
        blocks.append(kind(inputs, outputs, stride, shortcut).double())
    lesson.randomize(blocks[0])
    blocks[1].load_state_dict(blocks[0].state_dict())
    x = random(3, inputs, 7, 10).double().requires_grad_()
    found = []
    for block in blocks:
        y = block(x)
        gradients = torch.autograd.grad(y.square().sum(), [x, *block.parameters()])
        found.append(lesson.flat([y, *gradients, *block.buffers()]))
    torch.testing.assert_close(*found)


def test_a_net_with_idle_blocks_is_the_shorter_net() -> None:
    """14 layers around a net of 8, with scale 0 in the three new blocks: the same logits."""
    torch.manual_seed(0)
    short = lesson.SmallResNet(8, 4).double().eval()
    lesson.randomize(short)
    long = copy.deepcopy(short)
    blocks = []
    for block in long.blocks:
        width = block.conv2.out_channels
        idle = lesson.BasicBlock(width, width).double().eval()
        nn.init.zeros_(idle.bn2.weight)
        blocks += [block, idle]
    long.blocks = nn.Sequential(*blocks)
    x = random(3, 1, 8, 8).double()
    torch.testing.assert_close(long(x), short(x))


def test_a_start_as_copies() -> None:
    """Each layer gives its input, or each channel of it twice, and a tenth of what it gave."""
    torch.manual_seed(0)
    usual = lesson.SmallResNet(14, 4, residual=False)
    model = copy.deepcopy(usual)
    lesson.start_as_copies(model)
    assert torch.equal(model.conv.weight, usual.conv.weight)
    for block, before in zip(model.blocks, usual.blocks):
        for name in ("conv1", "conv2"):
            conv = getattr(before, name)
            x = random(2, conv.in_channels, 6, 8)
            copied = x[:, :, :: conv.stride[0], :: conv.stride[0]]
            copied = copied.repeat(1, conv.out_channels // conv.in_channels, 1, 1)
            torch.testing.assert_close(getattr(block, name)(x), copied + 0.1 * conv(x))


def test_factor_of_the_derivation() -> None:
    """In a net that fits the assumptions: 256 channels, pictures of one pixel."""
    torch.manual_seed(0)
    layers = []
    for _ in range(6):
        layers += [nn.Conv2d(256, 256, 1, bias=False), nn.BatchNorm2d(256), nn.ReLU()]
    batch = (torch.randn(256, 256, 1, 1), torch.arange(256))
    norms = lesson.weight_gradients(nn.Sequential(*layers, nn.Flatten()), batch)
    # Squared, over the four layers from 6 back to 2; the first reads no ReLU.
    factor = (norms[1] / norms[5]) ** (2 / 4)
    assert factor == pytest.approx(math.pi / (math.pi - 1), rel=0.05)


def test_growth_of_the_derivation() -> None:
    """A ReLU leaves (π − 1) / 2π of a normal variable's variance, and half of a gradient."""
    h = random(200_000).relu()
    assert h.var().item() == pytest.approx((math.pi - 1) / (2 * math.pi), rel=0.02)
    assert 0.5 / h.var().item() == pytest.approx(1.467, rel=0.02)
    assert pytest.approx(9.8e6, rel=0.01) == 1.467**42
    assert pytest.approx(3100, rel=0.02) == 1.467**21
