"""Lesson 5.6 and its note: what the exercises and the answers say."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from common.lessons import load_lesson

lesson = load_lesson("phase05_cnn/06-vggnet")
field = load_lesson("phase05_cnn/03-receptive-field")
alexnet = load_lesson("phase05_cnn/05-alexnet")
initial = load_lesson("phase04_mlp/09-weight-init")
Layer = field.Layer
NAMES = list(lesson.TABLE)
SIDES = (112, 56, 28, 14, 7)  # behind each pooling, for 224x224


def random(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", NAMES)
def test_names_and_shapes_are_torchvisions_in_order(name: str) -> None:
    import torchvision

    with torch.device("meta"):
        ours = lesson.VGG(lesson.TABLE[name])
        theirs = torchvision.models.get_model(name)
    assert list(lesson.shapes(ours).items()) == list(lesson.shapes(theirs).items())
    for part in ("features", "classifier"):
        kinds = [[type(each) for each in getattr(net, part)] for net in (ours, theirs)]
        assert kinds[0] == kinds[1]
    assert [ours.classifier[place].p for place in (2, 5)] == [0.5, 0.5]
    assert theirs.classifier[2].p == theirs.classifier[5].p == 0.5


@pytest.mark.parametrize("name", NAMES)
def test_the_number_in_the_name_counts_layers_with_weights(name: str) -> None:
    layers = [entry for entry in lesson.TABLE[name] if entry != "M"]
    assert name == f"vgg{len(layers) + 3}"
    assert lesson.TABLE[name].count("M") == 5


@pytest.mark.parametrize("name", NAMES)
def test_products_are_those_that_torchvision_publishes(name: str) -> None:
    import torchvision

    with torch.device("meta"):
        found = alexnet.costs(lesson.VGG(lesson.TABLE[name]), torch.empty(1, 3, 224, 224))
    stated = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"].meta
    parameters = sum(row[0] for row in found.values())
    work = sum(row[1] for row in found.values())
    assert parameters == stated["num_params"]
    assert work / 1e9 == pytest.approx(stated["_ops"], abs=6e-4)


def test_a_small_net_gives_torchvisions_logits_and_gradients() -> None:
    from torchvision.models.vgg import make_layers

    torch.manual_seed(0)
    plan = [4, "M", 6, 5, "M"]
    ours = lesson.VGG(plan, hidden_dim=9, classes=3).double().eval()
    dense = [nn.Linear(5 * 49, 9), nn.ReLU(), nn.Linear(9, 9), nn.ReLU(), nn.Linear(9, 3)]
    theirs = nn.Sequential(make_layers(plan), nn.AdaptiveAvgPool2d(7), nn.Flatten(), *dense)
    values = theirs.double().state_dict().values()
    ours.load_state_dict(dict(zip(ours.state_dict(), values, strict=True)))
    x = random(3, 3, 22, 30)
    torch.testing.assert_close(ours(x), theirs(x))
    found = torch.autograd.grad(ours(x).square().sum(), ours.parameters())
    wanted = torch.autograd.grad(theirs(x).square().sum(), theirs.parameters())
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(("k", "n"), [(3, 3), (5, 3), (1, 4), (2, 1)])
def test_two_layers_are_one(k: int, n: int) -> None:
    first = random(4, 2, k, k)
    second = random(3, 4, n, n)
    x = random(2, 2, 9, 11)
    whole = lesson.compose(first, second)
    assert whole.shape == (3, 2, k + n - 1, k + n - 1)
    torch.testing.assert_close(F.conv2d(x, whole), F.conv2d(F.conv2d(x, first), second))


def three_layers(x: torch.Tensor, filters: list, padding: int, relu: bool) -> torch.Tensor:
    for number, weight in enumerate(filters):
        x = F.conv2d(x, weight, padding=padding)
        if relu and number < 2:
            x = x.relu()
    return x


def test_with_padding_they_differ_at_the_border_only() -> None:
    """The note: two pixels wide, for there a path may leave the picture and come back."""
    filters = [random(4, 2, 3, 3), random(5, 4, 3, 3), random(3, 5, 3, 3)]
    x = random(2, 2, 12, 15)
    whole = lesson.compose(lesson.compose(filters[0], filters[1]), filters[2])
    differ = three_layers(x, filters, 1, False) - F.conv2d(x, whole, padding=3)
    differ = (differ.abs() > 1e-9).any(dim=0).any(dim=0)
    inside = torch.zeros(12, 15, dtype=torch.bool)
    inside[2:-2, 2:-2] = True
    assert torch.equal(differ, ~inside)


def test_with_relus_between_no_filter_does_the_same() -> None:
    """The note: what one filter gives for -x is minus what it gives for x."""
    filters = [random(4, 2, 3, 3), random(5, 4, 3, 3), random(3, 5, 3, 3)]
    x = random(2, 2, 12, 15)
    y = three_layers(x, filters, 0, True)
    assert (three_layers(-x, filters, 0, True) + y).norm() > 0.5 * y.norm()
    torch.testing.assert_close(
        three_layers(-x, filters, 0, False), -three_layers(x, filters, 0, False)
    )


def test_some_weights_undo_the_relus() -> None:
    """The note says "in general": pairs w, -w that are subtracted give back what entered."""
    weight = random(3, 2, 3, 3)
    x = random(2, 2, 9, 11)
    h = F.conv2d(x, weight)
    pairs = F.conv2d(x, torch.cat([weight, -weight])).relu()
    minus = torch.cat([torch.eye(3), -torch.eye(3)], dim=1).double()
    torch.testing.assert_close(F.conv2d(pairs, minus[:, :, None, None]), h)


def test_three_filters_of_one_channel_reach_25_dimensions_of_49() -> None:
    """The exercise: 27 numbers, two of which only move a factor from one filter to another."""
    filters = [random(1, 1, 3, 3), random(1, 1, 3, 3).flip(3), random(1, 1, 3, 3).square()]

    def whole(*filters: torch.Tensor) -> torch.Tensor:
        return lesson.compose(lesson.compose(filters[0], filters[1]), filters[2])

    parts = torch.autograd.functional.jacobian(whole, tuple(filters))
    columns = torch.cat([part.reshape(49, 9) for part in parts], dim=1)
    assert torch.linalg.matrix_rank(columns) == 25


def test_products_by_hooks() -> None:
    layers = [Layer(3, 2, padding=1), Layer(5, padding=1), Layer(2, 3), Layer(1, 2, padding=2)]
    channels = [2, 3, 4, 5, 6]
    with torch.device("meta"):
        model = nn.Sequential()
        for layer, inputs, outputs in zip(layers, channels, channels[1:]):
            model.append(nn.Conv2d(inputs, outputs, layer.kernel, layer.stride, layer.padding))
        found = alexnet.costs(model, torch.empty(1, 2, 17, 30))
    wanted = sum(row[1] for row in found.values())
    assert lesson.count_products(layers, channels, 17, 30) == wanted


@pytest.mark.parametrize("channels", [1, 8, 512])
def test_the_saving_does_not_depend_on_the_number_of_channels(channels: int) -> None:
    three = [Layer(3, padding=1)] * 3
    found = lesson.share(three, [Layer(7, padding=3)], [channels] * 4)
    assert found == pytest.approx(27 / 49)


def test_stride_and_stem_by_hand() -> None:
    """The note: 20.25 against 12.25 C², and 75,456 against 9,408 products a place."""
    assert 9 * (1 + 1 + 1 / 4) == 20.25 and 49 / 4 == 12.25
    assert 9 * (3 * 64 + 2 * 64**2) == 75_456 and 49 * 3 * 64 == 9_408
    padded = Layer(3, padding=1)
    halving = Layer(3, stride=2, padding=1)
    one = [Layer(7, stride=2, padding=3)]
    assert lesson.share([padded, padded, halving], one, [9] * 4) == pytest.approx(20.25 / 12.25)
    assert lesson.share([padded] * 3, [Layer(7, padding=3)], [3, 64, 64, 64]) == pytest.approx(
        75_456 / 9_408
    )
    # where both hold
    assert 9 * (3 * 64 + 64**2 + 64**2 / 4) == 47_808 and 49 * 3 * 64 / 4 == 2_352
    found = lesson.share([padded, padded, halving], one, [3, 64, 64, 64])
    assert found == pytest.approx(47_808 / 2_352) and round(found, 1) == 20.3
    # it is not the product of the two
    factors = (20.25 / 12.25, 75_456 / 9_408)
    assert math.prod(factors) == pytest.approx(13.3, abs=0.05)


def test_an_earlier_stride_is_cheaper_and_sees_more() -> None:
    """The exercise."""
    padded = Layer(3, padding=1)
    halving = Layer(3, stride=2, padding=1)
    one = [Layer(7, stride=2, padding=3)]
    first = [halving, padded, padded]
    second = [padded, halving, padded]
    assert field.receptive_field(first)[0] == 11
    assert field.receptive_field(second)[0] == 9
    assert lesson.share(first, one, [9] * 4) == pytest.approx(6.75 / 12.25)
    assert lesson.share(second, one, [9] * 4) == pytest.approx(13.5 / 12.25)


def test_numbers_of_the_note() -> None:
    with torch.device("meta"):
        model = lesson.VGG(lesson.TABLE["vgg16"])
        found = alexnet.costs(model, torch.empty(1, 3, 224, 224))
    assert found["classifier.0"][0] == 512 * 7 * 7 * 4096 + 4096 == 102_764_544
    parameters = sum(row[0] for row in found.values())
    work = sum(row[1] for row in found.values())
    outputs = 0
    for name, row in found.items():
        outputs += row[1] // model.get_submodule(name).weight[0].numel()
    convs = [row for name, row in found.items() if name.startswith("features")]
    weights = sum(row[0] for row in convs)
    assert parameters == 138_357_544
    assert weights == 14_714_688
    assert sum(row[1] for row in convs) / work > 0.99
    assert round(outputs * 4 / 1e6) == 54
    # each pooling gives a quarter of the convolution before it, and keeps an int64 for each number
    pooled = sum(maps * side**2 for maps, side in zip((64, 128, 256, 512, 512), SIDES))
    assert round(pooled * (4 + 8) / 1e6) == 18
    # global average pooling and one dense layer instead of three
    assert weights + 512 * 1000 + 1000 == 15_227_688
    # a layer costs the same in blocks 2, 3 and 4: twice the channels, half the sides
    assert found["features.7"][1] == found["features.12"][1] == found["features.19"][1]
    assert found["features.2"][1] == found["features.7"][1] == 9 * 64**2 * 224**2
    assert found["features.24"][1] * 4 == found["features.19"][1]


def test_a_layer_with_4608_inputs_halves_the_signal() -> None:
    with torch.device("meta"):
        wide = nn.Conv2d(512, 512, 3)
    assert lesson.shrink_factor(wide, 0.01) == pytest.approx(0.48)
    assert initial.he_std(torch.empty(512, 512, 3, 3)) == pytest.approx(0.0208, abs=1e-4)
    narrow = torch.empty(64, 64, 3, 3)
    assert 0.01 * 8**0.5 / initial.he_std(narrow) == pytest.approx(0.48)


def test_each_further_layer_shrinks() -> None:
    with torch.device("meta"):
        models = {name: lesson.VGG(plan) for name, plan in lesson.TABLE.items()}
    factors = [lesson.shrink_factor(model, 0.01) for model in models.values()]
    assert factors == sorted(factors, reverse=True)
    assert factors[0] == pytest.approx(4.4e-6, rel=0.02)
    assert factors[2] == pytest.approx(1.4e-8, rel=0.03)
    small = lesson.narrow("vgg16", 0)
    assert lesson.shrink_factor(small, 0.01 * 8**0.5) == pytest.approx(5.6e-9, rel=0.01)
    assert lesson.shrink_factor(models["vgg16"], 0.02) == pytest.approx(2**16 * factors[2])


def test_all_gradients_of_weights_shrink_too() -> None:
    """The note: each is multiplied by the factors of all other layers."""
    x = random(4, 3, 32, 32)
    y = torch.tensor([0, 1, 2, 3])
    std = 0.01 * 8**0.5
    norms = []
    for start in (None, std):
        model = lesson.narrow("vgg16", 0, start).double()
        loss = F.cross_entropy(model(x), y)
        weights = [each for each in model.parameters() if each.ndim > 1]
        norms.append([each.norm() for each in torch.autograd.grad(loss, weights)])
    ratios = [(small / he).item() for he, small in zip(*norms)]
    assert max(ratios) < 1e-6


def learn(optimizer: type, steps: int, **settings: float) -> tuple[float, float]:
    """The last loss of the small start, and how far the logits of the pictures are apart.

    The pictures are noise, brighter with each class.
    """
    model = lesson.narrow("vgg11", 0, 0.01 * 8**0.5)
    y = torch.arange(16) % 4
    x = random(16, 3, 32, 32).float() + y[:, None, None, None]
    chosen = optimizer(model.parameters(), **settings)
    for _ in range(steps):
        loss = F.cross_entropy(model(x), y)
        chosen.zero_grad()
        loss.backward()
        chosen.step()
    return loss.item(), model(x).std(dim=0).max().item()


def test_sgd_learns_nothing_but_the_biases() -> None:
    """The exercise: by SGD all pictures keep the same logits."""
    loss, apart = learn(torch.optim.SGD, 40, lr=0.01, momentum=0.9)
    assert apart < 1e-4 and loss > 1.38


def test_adam_leaves_the_plateau() -> None:
    """The same exercise: it divides by the size of the gradient."""
    loss, apart = learn(torch.optim.Adam, 50, lr=5e-4)
    assert apart > 1 and loss < 1.35


def test_biases_start_at_0() -> None:
    model = lesson.narrow("vgg11", 3)
    assert all(not each.any() for each in model.parameters() if each.ndim == 1)
    other = lesson.narrow("vgg11", 3)
    assert torch.equal(model.features[0].weight, other.features[0].weight)


def test_loading_into_nothing_fails_at_the_first_dense_layer() -> None:
    """The failure that the note shows: convolutions let it pass in torch 2.14."""
    plan = [4, "M"]
    weights = lesson.VGG(plan, side=2, hidden_dim=5, classes=3).state_dict()
    with torch.device("meta"):
        model = lesson.VGG(plan, side=2, hidden_dim=5, classes=3).eval()
    with pytest.warns(UserWarning, match="copying from a non-meta parameter"):
        model.load_state_dict(weights)
    if torch.__version__.startswith("2.14"):
        assert model.features(torch.zeros(1, 3, 8, 6)).device.type == "cpu"
    with pytest.raises(RuntimeError, match="Tensor on device meta is not on the expected device"):
        model.classifier(torch.zeros(1, 16))

    model.load_state_dict(weights, assign=True)
    assert model(torch.zeros(1, 3, 8, 6)).shape == (1, 3)
