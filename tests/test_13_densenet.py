"""Lesson 5.13 and its note: what the exercises and the answers say."""

import math

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.densenet import _DenseLayer

from common.lessons import load_lesson

lesson = load_lesson("phase05_cnn/13-densenet")
variants = load_lesson("phase05_cnn/08-resnet-variants")
resnet = load_lesson("phase05_cnn/07-resnet")


def random(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return lesson.DenseNet(*lesson.DESIGNS[name])


@pytest.mark.parametrize("name", lesson.DESIGNS)
def test_names_and_shapes_are_torchvisions(name: str) -> None:
    with torch.device("meta"):
        theirs = torchvision.models.get_model(name).state_dict()
    ours = on_meta(name).state_dict()
    assert {key: value.shape for key, value in ours.items()} == {
        key: value.shape for key, value in theirs.items()
    }


@pytest.mark.parametrize("name", lesson.DESIGNS)
def test_the_depth_is_in_the_name(name: str) -> None:
    """Convolutions, and the linear layer."""
    convs = [module for module in on_meta(name).modules() if isinstance(module, nn.Conv2d)]
    assert name == f"densenet{len(convs) + 1}"


@pytest.mark.parametrize("recompute", [False, True])
def test_a_layer_is_torchvisions(recompute: bool) -> None:
    """In training mode: outputs, gradients, running statistics."""
    torch.manual_seed(0)
    theirs = _DenseLayer(11, 4, 4, 0.0, memory_efficient=recompute).double()
    resnet.randomize(theirs)
    ours = lesson.DenseLayer(11, 4, recompute).double()
    ours.load_state_dict(theirs.state_dict())
    features = [random(3, channels, 5, 7).requires_grad_() for channels in (5, 4, 2)]
    found = []
    for layer in (ours, theirs):
        y = layer(features)
        slopes = torch.autograd.grad(y.square().sum(), [*features, *layer.parameters()])
        buffers = [each.double() for each in layer.buffers()]
        found.append(resnet.flat([y, *slopes, *buffers]))
    torch.testing.assert_close(*found)


def test_torchvisions_memory_efficient_net_moves_its_statistics_twice_too() -> None:
    """The note: at momentum 0.1, 19 % of the way to the batch's mean instead of 10 %."""
    x = random(3, 6, 5, 7)
    moved = []
    for efficient in (False, True):
        torch.manual_seed(0)
        layer = _DenseLayer(6, 4, 4, 0.0, memory_efficient=efficient).double()
        layer([x.clone().requires_grad_()]).sum().backward()
        moved.append(layer.norm1.running_mean)
    torch.testing.assert_close(moved[0], 0.1 * x.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(moved[1], 0.19 * x.mean(dim=(0, 2, 3)))


def test_a_smaller_momentum_makes_up_for_the_second_pass() -> None:
    """The second exercise: the first batch norm's; the second runs once and keeps 0.1."""
    states = []
    for recompute in (False, True):
        torch.manual_seed(0)
        layer = lesson.DenseLayer(6, 4, recompute).double()
        layer.norm1.running_mean += random(6)
        if recompute:
            layer.norm1.momentum = 1 - math.sqrt(0.9)
        layer([random(3, 6, 5, 7).requires_grad_()]).sum().backward()
        norms = (layer.norm1, layer.norm2)
        states.append([each for norm in norms for each in (norm.running_mean, norm.running_var)])
    torch.testing.assert_close(*states)
    assert 1 - math.sqrt(0.9) == pytest.approx(0.0513, abs=5e-5)


def test_what_is_computed_again_is_a_seventh_of_a_step() -> None:
    """The note: 41 % of DenseNet-121's products, in a step of three forward passes."""
    again = whole = 0

    def count(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        nonlocal again, whole
        work = module.weight.numel() * (output[0, 0].numel() if output.ndim == 4 else 1)
        whole += work
        again += work if module in first else 0

    with torch.device("meta"):
        net = on_meta("densenet121")
        first = {each.conv1 for each in net.modules() if isinstance(each, lesson.DenseLayer)}
        for module in net.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.register_forward_hook(count)
        net(torch.empty(1, 3, 224, 224))
    assert whole / 1e9 == pytest.approx(variants.published("densenet121")["_ops"], abs=6e-4)
    assert again / whole == pytest.approx(0.41, abs=0.005)
    assert again / (3 * whole) == pytest.approx(0.14, abs=0.005)


def test_without_gradients_nothing_is_computed_again() -> None:
    layer = lesson.DenseLayer(6, 4, recompute=True)
    with torch.no_grad():
        layer([torch.randn(3, 6, 5, 7)])
    assert layer.norm1.num_batches_tracked == 1


def test_channels_of_densenet_121() -> None:
    """By hand in the note: in front of and behind each block."""
    net = on_meta("densenet121")
    channels = 64
    found = []
    for part in net.features:
        if isinstance(part, lesson.DenseBlock):
            layers = list(part.values())
            assert [layer.norm1.num_features for layer in layers] == [
                channels + 32 * number for number in range(len(layers))
            ]
            channels += 32 * len(layers)
            found.append(channels)
        elif hasattr(part, "pool"):
            assert (part.conv.in_channels, part.conv.out_channels) == (channels, channels // 2)
            channels //= 2
    assert found == [256, 512, 1024, 1024] and net.classifier.in_features == 1024
    assert 64 + 6 * 32 == 256 and 128 + 12 * 32 == 512
    assert 256 + 24 * 32 == 512 + 16 * 32 == 1024


def conv_weights(module: nn.Module) -> int:
    convs = [each for each in module.modules() if isinstance(each, nn.Conv2d)]
    return sum(conv.weight.numel() for conv in convs)


def test_weights_of_a_layer_by_hand() -> None:
    layer = on_meta("densenet121").features.denseblock3["denselayer24"]
    assert layer.norm1.num_features == 256 + 23 * 32 == 992
    assert conv_weights(layer) == 992 * 128 + 9 * 128 * 32 == 163_840
    with torch.device("meta"):
        bottleneck = variants.Bottleneck(1024, 256, 1024)
    assert conv_weights(bottleneck) == 2 * 1024 * 256 + 9 * 256**2 == 1_114_112
    assert 1_114_112 / 163_840 == 6.8
    wide, narrow = 9 * 256 * 256, 9 * 128 * 32
    assert (wide, narrow) == (bottleneck.conv2.weight.numel(), layer.conv2.weight.numel())
    assert (wide, narrow) == (589_824, 36_864)
    assert wide - narrow > (1_114_112 - 163_840) / 2


@pytest.mark.parametrize("channels, pays", [(64, False), (230, False), (231, True), (992, True)])
def test_from_where_a_bottleneck_pays(channels: int, pays: bool) -> None:
    """The first exercise: more than 7.2 k channels."""
    with torch.device("meta"):
        through = conv_weights(lesson.DenseLayer(channels, 32, False))
    assert (through < 9 * channels * 32) is pays is (channels > 7.2 * 32)


def test_without_bottlenecks_densenet_121_has_half_more_weights_in_its_layers() -> None:
    layers = [
        each for each in on_meta("densenet121").modules() if isinstance(each, lesson.DenseLayer)
    ]
    through = sum(conv_weights(layer) for layer in layers)
    direct = sum(9 * 32 * layer.norm1.num_features for layer in layers)
    assert (len(layers), through, direct) == (58, 6_172_672, 9_077_760)


@pytest.mark.parametrize("inputs, growth, layers", [(4, 4, 12), (64, 32, 6), (7, 3, 5), (5, 2, 1)])
def test_what_a_block_keeps_for_each_pixel(inputs: int, growth: int, layers: int) -> None:
    """The derivation, before as many channels in front as k are put in."""
    x = torch.randn(2, inputs, 3, 5)
    plain = lesson.numbers_kept(lesson.DenseBlock(inputs, growth, layers), x) / 15
    again = lesson.numbers_kept(lesson.DenseBlock(inputs, growth, layers, True), x) / 15
    read = [inputs + number * growth for number in range(layers)]
    assert plain == sum(2 * channels + 8 * growth for channels in read)
    assert again == read[-1] + 8 * growth * layers
    if inputs == growth:
        assert plain == layers * (layers + 9) * growth
        assert again == 9 * layers * growth


def test_one_tensor_that_grows_would_keep_the_square() -> None:
    """The note: why each layer gets a list."""

    class Growing(lesson.DenseBlock):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.values():
                x = torch.cat([x, layer([x])], dim=1)
            return x

    x = torch.randn(2, 4, 3, 5)
    read = sum(4 * number for number in range(1, 13))
    assert lesson.numbers_kept(Growing(4, 4, 12, True), x) / 15 == read + 8 * 4 * 12 == 696
    assert lesson.numbers_kept(lesson.DenseBlock(4, 4, 12, True), x) / 15 == 432


def test_kept_numbers_do_not_depend_on_the_batch_and_grow_with_the_picture() -> None:
    block = lesson.DenseBlock(4, 4, 3)
    one, more = torch.randn(1, 4, 6, 10), torch.randn(5, 4, 6, 10)
    assert lesson.numbers_kept(block, one) == lesson.numbers_kept(block, more)
    quarter = lesson.numbers_kept(block, torch.randn(2, 4, 3, 5))
    assert lesson.numbers_kept(block, one) == 4 * quarter


def test_a_tensor_that_two_operations_keep_counts_once_and_weights_not_at_all() -> None:
    x = torch.randn(2, 3, 4, 5)
    net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 2, 1))
    assert lesson.numbers_kept(net, x) == 3 * 20 + 6 * 20


def test_a_view_of_a_tensor_counts_once_too() -> None:
    class Viewing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x.requires_grad_().relu()
            return self.conv(y) + self.conv(y.view_as(y))

    assert lesson.numbers_kept(Viewing(), torch.randn(2, 3, 4, 5)) == 3 * 20


FACTS = {  # million weights, billion multiply–adds, million numbers kept, accuracy: the table
    "resnet34": (21.8, 3.66, 7.9, 73.3),
    "densenet121": (8.0, 2.83, 32.4, 74.4),
    "resnet50": (25.6, 4.09, 21.3, 76.1),
    "densenet201": (20.0, 4.29, 50.5, 76.9),
}


@pytest.mark.parametrize("name", FACTS)
def test_the_table_of_the_note(name: str) -> None:
    if name in lesson.DESIGNS:
        net = lesson.DenseNet(*lesson.DESIGNS[name])
    else:
        net = variants.ResNet(*variants.DESIGNS[name])
    facts = variants.published(name)
    kept = 49 * lesson.numbers_kept(net, torch.randn(2, 3, 32, 32))
    weights, work, memory, accuracy = FACTS[name]
    assert round(facts["num_params"] / 1e6, 1) == weights
    assert round(facts["_ops"], 2) == work
    assert round(kept / 1e6, 1) == memory
    assert facts["_metrics"]["ImageNet-1K"]["acc@1"] == pytest.approx(accuracy, abs=0.05)


def test_a_picture_of_224_keeps_49_times_what_one_of_32_does() -> None:
    net = lesson.DenseNet(8, 4, (1, 2, 1, 1), 10)
    large = lesson.numbers_kept(net, torch.randn(1, 3, 224, 224))
    small = lesson.numbers_kept(net, torch.randn(2, 3, 32, 32))
    assert large == 49 * small


def test_torchvisions_net_keeps_as_many() -> None:
    net = torchvision.models.densenet121()
    x = torch.randn(2, 3, 32, 32)
    ours = lesson.DenseNet(*lesson.DESIGNS["densenet121"])
    assert lesson.numbers_kept(net, x) == lesson.numbers_kept(ours, x)


def test_pooling_first_gives_the_same_for_a_quarter_of_the_products() -> None:
    """The third exercise: the transition's convolution and its average pooling commute."""
    torch.manual_seed(0)
    layers = lesson.transition(6, 3).double().eval()
    resnet.randomize(layers)
    x = random(2, 6, 8, 10)
    pooled_first = layers.conv(layers.pool(layers.relu(layers.norm(x))))
    torch.testing.assert_close(layers(x), pooled_first)

    with torch.device("meta"):
        net = on_meta("densenet121")
        work = variants.count_work(net, torch.empty(1, 3, 224, 224))
    whole = sum(work.values())
    transitions = 256 * 128 * 56**2 + 512 * 256 * 28**2 + 1024 * 512 * 14**2
    assert transitions == 3 * 102_760_448
    assert whole / 1e9 == pytest.approx(variants.published("densenet121")["_ops"], abs=6e-4)
    assert 0.75 * transitions / whole == pytest.approx(0.082, abs=5e-4)


def test_pooling_before_the_relu_gives_something_else() -> None:
    torch.manual_seed(0)
    layers = lesson.transition(6, 3).double().eval()
    x = random(2, 6, 8, 10)
    wrong = layers.conv(layers.relu(layers.pool(layers.norm(x))))
    assert (layers(x) - wrong).abs().max() > 0.01


def test_logits_tell_pictures_apart_and_notice_another_order() -> None:
    """The comparison with torchvision's is not one of constants."""
    torch.manual_seed(0)
    net = lesson.DenseNet(16, 8, (3, 2), 7).double().eval()
    resnet.randomize(net)
    x = random(2, 3, 40, 56)
    logits = net(x)
    assert (logits[0] - logits[1]).abs().max() > 0.01
    layer = net.features.denseblock1["denselayer3"]
    features = [random(2, channels, 10, 14) for channels in (16, 8, 8)]
    assert not torch.allclose(layer(features), layer(features[::-1]))


def test_the_first_weights_of_layers_that_read_more_are_smaller() -> None:
    """The note: 1x1 filters start within 1/√C, so a map of mean weights is uneven untrained."""
    torch.manual_seed(0)
    for channels in (16, 64, 256):
        weights = lesson.DenseLayer(channels, 32, False).conv1.weight
        assert weights.abs().max() <= 1 / math.sqrt(channels)
        assert weights.abs().mean().item() == pytest.approx(0.5 / math.sqrt(channels), rel=0.05)


def test_the_links_of_the_small_net() -> None:
    net = lesson.small_net()
    blocks = [part for part in net.features if isinstance(part, lesson.DenseBlock)]
    assert [len(block) for block in blocks] == [6, 6]
    assert 2 * sum(range(1, 7)) == 42
    read = [layer.conv1.in_channels for block in blocks for layer in list(block.values())[1:]]
    assert sum(read) == 480 and 5 * (16 + 32) == 240
    old = [(r, s) for r in range(1, 7) for s in range(r) if 0 < s < r - 1]
    assert 2 * len(old) == 20
    sizes = {}
    for name, part in net.features.named_children():
        part.register_forward_hook(
            lambda module, inputs, output, name=name: sizes.update({name: output.shape[1:]})
        )
    net(torch.zeros(2, 3, 32, 32))
    assert [tuple(sizes[name]) for name in ("denseblock1", "denseblock2")] == [
        (64, 8, 8),
        (80, 4, 4),
    ]


@pytest.mark.parametrize("block, reader, source", [(0, 1, 0), (0, 3, 2), (1, 4, 0), (1, 6, 3)])
def test_a_cut_link_is_zero_and_nothing_else_changes(block: int, reader: int, source: int) -> None:
    torch.manual_seed(0)
    net = lesson.small_net()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    after = lesson.without(net, [(block, reader, source)]).state_dict()
    inputs = (16, 32)[block]
    start = 0 if source == 0 else inputs + 8 * (source - 1)
    stop = inputs if source == 0 else start + 8
    name = f"features.denseblock{block + 1}.denselayer{reader}.conv1.weight"
    for key, value in before.items():
        wanted = value.clone()
        if key == name:
            wanted[:, start:stop] = 0
        assert torch.equal(after[key], wanted), key
        assert torch.equal(net.state_dict()[key], value), key


def test_padding_of_the_3x3_layer_keeps_the_places() -> None:
    layer = lesson.DenseLayer(5, 3, False).eval()
    assert layer([torch.zeros(2, 5, 6, 9)]).shape == (2, 3, 6, 9)
    x = torch.zeros(1, 5, 6, 9)
    x[0, :, 2, 4] = 1
    change = layer([x]) - layer([torch.zeros_like(x)])
    rows, columns = change.abs().sum(dim=(0, 1)).nonzero().T
    assert set(rows.tolist()) == {1, 2, 3} and set(columns.tolist()) == {3, 4, 5}


def test_doubling_tends_to_four_times() -> None:
    """Predict: 3.14 times from 12 to 24 layers; under 4 for any number."""
    kept = [layers * (layers + 9) for layers in (12, 24, 48, 5000, 10000)]
    assert round(kept[1] / kept[0], 2) == 3.14
    assert kept[1] / kept[0] < kept[2] / kept[1] < kept[4] / kept[3] < 4
    assert 4 - kept[4] / kept[3] < 0.01
