"""Lesson 5.5 and its note: the layers beside torch's, what the exercises and the answers say."""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms import RandomCrop

from common.lessons import ROOT, load_lesson

lesson = load_lesson("phase05_cnn/05-alexnet")


@pytest.mark.parametrize("size", [1, 3, 5, 7, 9])
def test_any_odd_size_of_neighbourhood(size: int) -> None:
    x = torch.randn(2, 6, 3, 4).double()
    ours = lesson.local_response_norm(x, size, alpha=0.3, beta=0.6, k=1.5)
    theirs = F.local_response_norm(x, size, size * 0.3, beta=0.6, k=1.5)
    torch.testing.assert_close(ours, theirs)


def test_the_defaults_are_those_of_the_paper() -> None:
    x = 100 * torch.randn(2, 7, 3, 4).double()
    theirs = F.local_response_norm(x, 5, 5e-4, beta=0.75, k=2.0)
    torch.testing.assert_close(lesson.local_response_norm(x), theirs)
    torch.testing.assert_close(lesson.LocalResponseNorm()(x), theirs)


def kinds(model: nn.Module) -> list[str]:
    return [type(layer).__name__ for layer in model]


def test_layers_of_2012() -> None:
    with torch.device("meta"):
        model = lesson.AlexNet(lesson.PLAN_2012)
        x = torch.empty(2, 3, 224, 224)
    start = ["Conv2d", "ReLU", "LocalResponseNorm", "MaxPool2d"]
    middle = ["Conv2d", "ReLU"] * 3
    assert kinds(model.features) == [*start, *start, *middle, "MaxPool2d"]
    sides = []
    for layer in model.features:
        x = layer(x)
        if not isinstance(layer, nn.ReLU):
            sides.append(x.shape[2])
    assert sides == [55, 55, 27, 27, 27, 13, 13, 13, 13, 6]
    assert [layer.groups for layer in model.features if isinstance(layer, nn.Conv2d)] == [
        1,
        2,
        1,
        2,
        2,
    ]


def test_the_dense_layers_and_their_dropout() -> None:
    model = lesson.AlexNet(lesson.PLAN_SMALL, side=3, hidden_dim=20, classes=7, dropout=0.25)
    assert kinds(model.classifier) == ["Dropout", "Linear", "ReLU"] * 2 + ["Linear"]
    assert [layer.p for layer in model.classifier if isinstance(layer, nn.Dropout)] == [0.25] * 2
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    model = lesson.AlexNet(lesson.PLAN_SMALL, side=3, hidden_dim=20)
    assert model.classifier[6].out_features == 1000
    assert model.classifier[0].p == 0.5


def test_without_two_gpus() -> None:
    """The exercise: what the groups save."""
    plan = [(*row[:4], 1, row[5]) for row in lesson.PLAN_2012]
    with torch.device("meta"):
        whole = lesson.count(lesson.AlexNet(plan))
        halves = lesson.count(lesson.AlexNet(lesson.PLAN_2012))
    assert (whole, halves) == (62_378_344, 60_965_224)


def test_the_halves_meet_in_the_third_convolution() -> None:
    torch.manual_seed(0)
    plan = [(8, 3, 1, 1, 1, ""), (8, 3, 1, 1, 2, ""), (8, 3, 1, 1, 1, "")]
    layers = lesson.AlexNet(plan, side=1, hidden_dim=4).features
    x = torch.randn(1, 3, 6, 6)
    first = layers[:2](x)
    changed = first.clone()
    changed[:, 4:] += 1
    second, other = layers[2:4](first), layers[2:4](changed)
    assert torch.equal(second[:, :4], other[:, :4])
    assert not torch.equal(second[:, 4:], other[:, 4:])
    assert (layers[4](second) != layers[4](other)).any(dim=(0, 2, 3)).all()


def test_our_normalization_reads_two_channels_over_the_border() -> None:
    """Two GPUs would normalise each half by itself."""
    torch.manual_seed(0)
    x = 100 * torch.randn(2, 96, 5, 5)
    halves = [lesson.local_response_norm(half) for half in x.chunk(2, dim=1)]
    differs = (lesson.local_response_norm(x) != torch.cat(halves, dim=1)).any(dim=(0, 2, 3))
    # two on each side of it: 46 to 49
    assert differs.nonzero().flatten().tolist() == [46, 47, 48, 49]


def test_costs_count_parameters_and_products() -> None:
    model = nn.Sequential(
        nn.Conv2d(4, 6, (3, 2), stride=2, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(48, 5)
    )
    found = lesson.costs(model, torch.zeros(3, 4, 5, 8))
    assert found == {"0": (6 * 2 * 6 + 6, 6 * 2 * 6 * 8), "3": (245, 240)}
    assert not any(layer._forward_hooks for layer in model)


def test_numbers_of_the_note() -> None:
    with torch.device("meta"):
        found = lesson.costs(lesson.AlexNet(lesson.PLAN_2012), torch.empty(1, 3, 224, 224))
    assert found["features.0"] == (34_944, 105_415_200)
    assert found["features.4"] == (307_456, 223_948_800)
    assert found["classifier.1"] == (37_752_832, 37_748_736)


def test_numbers_of_about_70_at_the_start_of_the_paper() -> None:
    """Weights of 0.01, biases of 0, pixels from -128 to 127: of noise, and in large patches."""
    torch.manual_seed(0)
    noise = 255 * torch.rand(2, 3, 224, 224) - 128
    patches = (255 * torch.rand(2, 3, 4, 4) - 128).repeat_interleave(56, 2).repeat_interleave(56, 3)
    weight = 0.01 * torch.randn(96, 3, 11, 11)
    for x in (noise, patches):
        x = F.conv2d(x, weight, stride=4, padding=2).relu()
        assert 55 < x.max() < 85
        factor = (lesson.local_response_norm(x) / x)[x > 0]
        assert factor.median() > 0.58
        assert factor.min() < 0.52


@pytest.mark.parametrize("scale, usual, most", [(1, 1, 1.001), (100, 1.5, 2.7)])
def test_sum_and_mean_differ_for_large_numbers(scale: float, usual: float, most: float) -> None:
    torch.manual_seed(0)
    x = scale * torch.randn(2, 96, 13, 13).relu()
    ratio = lesson.local_response_norm(x, alpha=1e-4 / 5) / lesson.local_response_norm(x)
    ratio = ratio[x > 0]
    assert ratio.median() == pytest.approx(usual, rel=0.02)
    assert ratio.max() == pytest.approx(most, rel=0.03)


def test_each_picture_is_moved_for_itself() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 2, 5, 9).repeat(40, 1, 1, 1)
    changed = lesson.jitter(x)
    assert changed.shape == x.shape
    assert len(changed.flatten(1).unique(dim=0)) > 20


def test_a_random_crop_of_torchvision_gives_the_same_places() -> None:
    """What the docstring of jitter says."""
    torch.manual_seed(0)
    x = torch.arange(60.0).reshape(1, 2, 5, 6)
    crop = RandomCrop((5, 6), padding=4, padding_mode="edge")
    found = torch.cat([crop(x) for _ in range(1500)]).flatten(1).unique(dim=0)
    assert torch.equal(found, lesson.all_places(x).flatten(1).unique(dim=0))


def test_places_of_the_claim() -> None:
    """The first of the 81 has the corner's pixel in four more rows and columns."""
    x = torch.arange(60.0).reshape(1, 2, 5, 6)
    found = lesson.all_places(x)
    assert found.shape == (81, 2, 5, 6)
    assert (found[0, :, :5, :5] == x[0, :, :1, :1]).all()
    assert torch.equal(found[40], x[0])


@pytest.mark.parametrize("ending", ["md", "zh.md"])
def test_jitter_and_mirror_of_the_third_exercise(ending: str) -> None:
    note = (ROOT / "docs/phase05_cnn" / f"05-alexnet.{ending}").read_text(encoding="utf-8")
    code = re.search(r"```python\n(def jitter_and_mirror.+?)```", note, re.DOTALL)[1]
    names = {"torch": torch, "Tensor": Tensor, "jitter": lambda x: x}
    exec(code, names)
    torch.manual_seed(0)
    x = torch.randn(200, 3, 4, 5)
    found = names["jitter_and_mirror"](x)
    same, mirrored = ((found == other).flatten(1).all(dim=1) for other in (x, x.flip(-1)))
    assert (same ^ mirrored).all()
    assert 70 < mirrored.sum() < 130
    names["jitter"] = lesson.jitter
    assert names["jitter_and_mirror"](x).shape == x.shape


def test_dropout_of_the_small_net_is_off() -> None:
    model = lesson.make_net(0)
    assert all(layer.p == 0 for layer in model.modules() if isinstance(layer, nn.Dropout))
