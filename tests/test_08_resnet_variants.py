"""Lesson 5.8 and its note: what the exercises and the answers say."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from common.lessons import load_lesson

lesson = load_lesson("phase05_cnn/08-resnet-variants")
resnet = load_lesson("phase05_cnn/07-resnet")


def random(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", lesson.DESIGNS)
def test_names_and_shapes_are_torchvisions(name: str) -> None:
    import torchvision

    with torch.device("meta"):
        ours = lesson.ResNet(*lesson.DESIGNS[name]).state_dict()
        theirs = torchvision.models.get_model(name).state_dict()
    assert {key: value.shape for key, value in ours.items()} == {
        key: value.shape for key, value in theirs.items()
    }


@pytest.mark.parametrize("name", lesson.DESIGNS)
def test_the_depth_is_in_the_name(name: str) -> None:
    """Convolutions on the longest way, and the linear layer."""
    with torch.device("meta"):
        model = lesson.ResNet(*lesson.DESIGNS[name])
    convs = [key for key, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    depth = len([key for key in convs if "downsample" not in key]) + 1
    assert str(depth) in name


@pytest.mark.parametrize("name", lesson.DESIGNS)
def test_work_is_half_of_the_operations_that_torch_counts(name: str) -> None:
    with torch.device("meta"):
        model = lesson.ResNet(*lesson.DESIGNS[name])
        x = torch.empty(1, 3, 97, 97)
    counter = FlopCounterMode(display=False)
    with counter:
        model(x)
    ours = sum(lesson.count_work(model, x).values())
    assert counter.get_total_flops() == 2 * ours


def test_counting_leaves_no_hook_behind() -> None:
    conv = nn.Conv2d(2, 3, 3)
    lesson.count_work(conv, torch.zeros(1, 2, 5, 5))
    assert not conv._forward_hooks


def whole_work(name: str, side: int) -> int:
    with torch.device("meta"):
        model = lesson.ResNet(*lesson.DESIGNS[name])
        return sum(lesson.count_work(model, torch.empty(1, 3, side, side)).values())


def test_four_times_the_pixels_are_four_times_the_work_but_for_the_last_layer() -> None:
    """The first exercise."""
    small = whole_work("resnet50", 224) - 2_048_000
    assert whole_work("resnet50", 448) - 2_048_000 == 4 * small


def test_work_of_a_layer_by_hand() -> None:
    """The note: 6 to 8 channels in 2 groups, on 4x3 places, a filter of 3x5."""
    conv = nn.Conv2d(6, 8, (3, 5), stride=2, padding=1, groups=2)
    assert lesson.count_work(conv, torch.zeros(1, 6, 8, 7)) == {"3x5": 8 * 12 * 15 * 3}
    assert 8 * 12 * 15 * 3 == 4_320


def test_stages_of_resnet18_cost_about_the_same() -> None:
    """The derivation: a 3x3 layer of 64 channels at 56x56 is one of 128 channels at 28x28."""
    assert 9 * 64**2 * 56**2 == 9 * 128**2 * 28**2 == 9 * 512**2 * 7**2 == 115_605_504
    stem = 49 * 3 * 64 * 112**2
    projections = 64 * 128 * 28**2 + 128 * 256 * 14**2 + 256 * 512 * 7**2
    whole = stem + 14.5 * 115_605_504 + projections + 512_000
    assert stem == 118_013_952 and whole == whole_work("resnet18", 224)


def test_groups_are_paths() -> None:
    """The second exercise: 32 bottlenecks with 4 channels, added up."""
    block = lesson.Bottleneck(16, 24, 20, 2, resnet.projection(16, 20, 2), groups=6)
    resnet.randomize(block.double().eval())
    x = random(2, 16, 7, 10)
    total = 0
    for number in range(6):
        mine = slice(4 * number, 4 * number + 4)
        norms = []
        for norm in (block.bn1, block.bn2):
            statistics = (norm.running_mean[mine], norm.running_var[mine])
            norms.append((*statistics, norm.weight[mine], norm.bias[mine]))
        h = F.conv2d(x, block.conv1.weight[mine])
        h = F.batch_norm(h, *norms[0]).relu()
        h = F.conv2d(h, block.conv2.weight[mine], stride=2, padding=1)
        h = F.batch_norm(h, *norms[1]).relu()
        total = total + F.conv2d(h, block.conv3.weight[:, mine])
    wanted = (block.bn3(total) + block.downsample(x)).relu()
    torch.testing.assert_close(block(x), wanted)


def test_weights_of_another_net_are_refused_by_name() -> None:
    with torch.device("meta"):
        small = lesson.ResNet(*lesson.DESIGNS["resnet18"])
        large = lesson.ResNet(*lesson.DESIGNS["resnet50"])
    with pytest.raises(RuntimeError, match=r"layer1\.0\.conv3\.weight"):
        small.load_state_dict(large.state_dict())


def test_a_picture_of_any_size_gives_a_row_of_logits() -> None:
    torch.manual_seed(0)
    model = lesson.ResNet((1, 1, 1, 1), True, 1, 64, classes=7).eval()
    assert model(torch.zeros(2, 3, 33, 50)).shape == (2, 7)


@pytest.mark.parametrize(
    ("stride", "groups", "width", "inner"), [(1, 1, 64, 8), (2, 1, 128, 16), (2, 4, 16, 8)]
)
def test_a_bottleneck_is_torchvisions(stride: int, groups: int, width: int, inner: int) -> None:
    """Outputs and gradients: plain, wide, in groups."""
    from torchvision.models.resnet import Bottleneck

    torch.manual_seed(0)
    shortcuts = [resnet.projection(12, 32, stride) for _ in range(2)]
    block = lesson.Bottleneck(12, inner, 32, stride, shortcuts[0], groups).double()
    reference = Bottleneck(12, 8, stride, shortcuts[1], groups, width).double()
    resnet.randomize(reference)
    block.load_state_dict(reference.state_dict())
    x = random(3, 12, 7, 10).requires_grad_()
    ours, theirs = block(x), reference(x)
    torch.testing.assert_close(ours, theirs)
    found = torch.autograd.grad(ours.square().sum(), [x, *block.parameters()])
    wanted = torch.autograd.grad(theirs.square().sum(), [x, *reference.parameters()])
    torch.testing.assert_close(found, wanted)


def test_a_bottleneck_without_projection_adds_its_input() -> None:
    torch.manual_seed(0)
    block = lesson.Bottleneck(8, 2, 8).double()
    nn.init.zeros_(block.bn3.weight)
    x = random(2, 8, 4, 5)
    assert torch.equal(block(x), x.relu())


def test_a_preactivation_stack_is_the_sum_of_its_branches() -> None:
    """The note: the output is the input plus all branches, norm and ReLU first."""
    torch.manual_seed(0)
    x = random(3, 8, 7, 10)
    h = x
    total = x
    for _ in range(3):
        block = lesson.PreActBlock(8).double()
        resnet.randomize(block)
        layers = [block.bn1, nn.ReLU(), block.conv1, block.bn2, nn.ReLU(), block.conv2]
        total = total + nn.Sequential(*layers)(h)
        h = block(h)
    torch.testing.assert_close(h, total)


def test_the_first_relu_cuts_over_a_third_of_the_values() -> None:
    """The third exercise."""
    torch.manual_seed(0)
    y = resnet.BasicBlock(8, 8).double()(random(8, 8, 8, 8).relu())
    assert 1 / 3 < (y == 0).double().mean() < 1 / 2
