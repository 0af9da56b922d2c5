"""Lesson 5.12: its maps against autograd and against loops; what its note says of them."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import Tensor, nn

from common.data.shapes import RECIPES, draw
from common.lessons import load_lesson

lesson = load_lesson("phase05_cnn/12-grad-cam")


def random(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def network() -> nn.Module:
    """Statistics of noise pictures, and batch norms that scale and shift: about half is off."""
    model = lesson.make_net(0).double()
    generator = torch.Generator().manual_seed(1)
    for name, values in model.named_parameters():
        if name.endswith(".1.weight"):
            nn.init.uniform_(values, 0.5, 1.5, generator=generator)
        elif name.endswith(".1.bias"):
            nn.init.uniform_(values, -0.5, 0.5, generator=generator)
    for _ in range(40):
        model(torch.randn(20, 3, 20, 28, generator=generator, dtype=torch.float64))
    return model.eval()


MODEL = network()
X = random(6, 3, 20, 28)
CLASSES = torch.tensor([3, 1, 1, 0, 9, 3])


@pytest.mark.parametrize("block", [0, 1, 3])
def test_a_weight_is_what_the_score_gains_if_the_whole_map_rises(block: int) -> None:
    maps, gradient = lesson.maps_and_gradient(MODEL, MODEL.blocks[block], X, CLASSES)
    assert not maps.requires_grad and gradient.shape == maps.shape
    places = maps[0, 0].numel()
    rows = torch.arange(len(X))
    before = MODEL(X)[rows, CLASSES]
    for channel in (0, 5, 13):

        def raised(layer: nn.Module, inputs: tuple, output: Tensor, channel: int = channel):
            return output + 1e-6 * F.one_hot(torch.tensor(channel), maps.shape[1])[:, None, None]

        handle = MODEL.blocks[block].register_forward_hook(raised)
        gain = (MODEL(X)[rows, CLASSES] - before) / 1e-6
        handle.remove()
        weight = gradient[:, channel].mean(dim=(1, 2))
        torch.testing.assert_close(weight * places, gain, rtol=1e-4, atol=1e-6)


def test_no_hook_stays() -> None:
    lesson.heat_of(MODEL, "Grad-CAM", X, CLASSES)
    lesson.class_activation_map(MODEL, X, CLASSES)
    assert not any(layer._forward_hooks for layer in MODEL.modules())


def test_cam_by_loops() -> None:
    found = lesson.class_activation_map(MODEL, X, CLASSES)
    maps = X
    for block in MODEL.blocks:
        maps = block(maps)
    for n, label in enumerate(CLASSES):
        wanted = sum(MODEL.head.weight[label, k] * maps[n, k] for k in range(32))
        torch.testing.assert_close(found[n], wanted)


def test_an_empty_map_means_a_score_of_the_bias_at_most() -> None:
    """The note; and the reverse does not hold."""
    x = X[:, :, :4, :8].repeat_interleave(10, dim=0)  # maps of 1x2: often both are negative
    classes = torch.arange(10).repeat(len(X))
    heat = lesson.heat_of(MODEL, "Grad-CAM", x, classes)
    empty = heat.flatten(1).amax(dim=1) == 0
    rest = MODEL(x)[torch.arange(len(x)), classes] - MODEL.head.bias[classes]
    assert empty.any() and not empty.all()
    assert (rest[empty] <= 0).all()
    assert (rest[~empty] < 0).any()


def test_without_a_place_the_score_falls_by_its_heat() -> None:
    """The note, of the last block: set the place to 0 in all maps."""
    maps, gradient = lesson.maps_and_gradient(MODEL, MODEL.blocks[3], X, CLASSES)
    heat = lesson.grad_cam(maps, gradient)
    rows = torch.arange(len(X))
    for row, column in np.ndindex(*heat.shape[1:]):
        without = maps.clone()
        without[:, :, row, column] = 0
        fall = (MODEL(X) - MODEL.head(without.mean(dim=(2, 3))))[rows, CLASSES]
        torch.testing.assert_close(fall.relu(), heat[:, row, column])


def test_behind_the_last_block_all_places_have_the_same_gradient() -> None:
    """The derivation: weight / (h w); with Grad-CAM++, ReLU(weight) / (2 + what the map adds)."""
    maps, gradient = lesson.maps_and_gradient(MODEL, MODEL.blocks[3], X, CLASSES)
    weights = MODEL.head.weight[CLASSES]
    wanted = (weights / maps[0, 0].numel())[:, :, None, None].expand_as(gradient)
    torch.testing.assert_close(gradient, wanted.detach())
    added = weights * maps.mean(dim=(2, 3))
    plus = lesson.weighted_sum(maps, weights.relu() / (2 + added.relu()))
    torch.testing.assert_close(lesson.grad_cam_plus(maps, gradient), plus.detach())


def test_the_ratio_of_grad_cam_plus_is_one_of_derivatives_of_exp() -> None:
    """Where the score is linear in the maps: second and third derivative of exp(score)."""
    maps = random(1, 2, 2, 3).abs()
    gradient = random(1, 2, 2, 3).roll(1, 3)
    alphas = torch.zeros_like(maps)
    for place in np.ndindex(*maps.shape):
        at = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        one = torch.zeros_like(maps)
        one[place] = 1
        y = ((maps + at * one) * gradient).sum().exp()
        first = torch.autograd.grad(y, at, create_graph=True)[0]
        second = torch.autograd.grad(first, at, create_graph=True)[0]
        third = torch.autograd.grad(second, at)[0]
        alphas[place] = second / (2 * second + maps[0, place[1]].sum() * third)
    weights = (alphas * gradient.relu()).sum(dim=(2, 3))
    wanted = lesson.weighted_sum(maps, weights)
    torch.testing.assert_close(lesson.grad_cam_plus(maps, gradient), wanted.detach())


def test_the_example_of_the_note() -> None:
    maps = torch.tensor([[[[4.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [2.0, 2.0]]]])
    weights = torch.tensor([[2.0, -1.0]])
    assert weights @ maps[0].mean(dim=(1, 2)) == 1
    gradient = (weights / 4)[:, :, None, None].expand_as(maps)
    assert lesson.grad_cam(maps, gradient).tolist() == [[[2, 0], [0, 0]]]
    assert lesson.grad_cam_plus(maps, gradient).tolist() == [[[2, 0], [0, 0]]]
    other = torch.tensor([[-1.0, 0.0]])
    gradient = (other / 4)[:, :, None, None].expand_as(maps)
    assert not lesson.grad_cam(maps, gradient).any()


def test_gradient_times_map_at_each_place_is_grad_cam_in_the_last_block_only() -> None:
    """The second exercise."""
    for block, same in [(3, True), (1, False)]:
        maps, gradient = lesson.maps_and_gradient(MODEL, MODEL.blocks[block], X, CLASSES)
        by_place = (gradient * maps).sum(dim=1).relu()
        assert torch.allclose(by_place, lesson.grad_cam(maps, gradient)) is same


def test_a_probability_has_other_weights_than_a_score() -> None:
    """The failure: p of c adds the other classes' weights with the opposite sign."""
    (maps,), scores = lesson.lesson_5_11.record(MODEL, [MODEL.blocks[3]], X)
    p = scores.softmax(dim=1)
    asked = p[torch.arange(len(X)), CLASSES]
    (found,) = torch.autograd.grad(asked.sum(), maps)
    mixture = torch.einsum("bc,ck->bk", p, MODEL.head.weight)
    wanted = asked[:, None] * (MODEL.head.weight[CLASSES] - mixture) / maps[0, 0].numel()
    torch.testing.assert_close(found[:, :, 2, 3], wanted)


@pytest.mark.parametrize("size, box", [((20, 28), (3, 2, 11, 19)), ((12, 9), (0, 5, 9, 7))])
def test_shares_by_loops(size: tuple[int, int], box: tuple[int, int, int, int]) -> None:
    heat = random(1, 5, 7).abs()
    pixels = F.interpolate(heat[None], size, mode="bilinear", align_corners=False)[0, 0]
    left, top, right, bottom = box
    inside = sum(pixels[r, c] for r in range(top, bottom) for c in range(left, right))
    share, area = lesson.share_inside(heat, torch.tensor([box]), size)
    torch.testing.assert_close(share, (inside / pixels.sum())[None])
    assert area.item() == pytest.approx((right - left) * (bottom - top) / (size[0] * size[1]))


def test_times_area_leaves_empty_maps_out_and_counts_them() -> None:
    heat = torch.zeros(3, 8, 8)
    heat[0] = 1
    heat[1, :, :4] = 1
    boxes = torch.tensor([[0, 0, 32, 16], [0, 0, 16, 32], [0, 0, 9, 9]])
    times, empty = lesson.times_area(heat, boxes)
    share, _ = lesson.share_inside(heat[1:2], boxes[1:2], (32, 32))
    assert times == pytest.approx((1 + 2 * share.item()) / 2) and empty == 1
    assert isinstance(times, float) and isinstance(empty, int), "they go into result.json"


def test_rank_correlation_is_spearmans() -> None:
    a, b = random(2, 5, 4, 6).relu()
    wanted = [spearmanr(x.flatten(), y.flatten()).statistic for x, y in zip(a, b)]
    np.testing.assert_allclose(lesson.rank_correlation(a, b), wanted)
    assert lesson.rank_correlation(a, torch.zeros_like(a)).isnan().all()


@pytest.mark.parametrize("way, block", [("Grad-CAM", 3), ("block 1, Grad-CAM", 0)])
def test_heat_comes_from_the_block_in_the_name(way: str, block: int) -> None:
    maps, gradient = lesson.maps_and_gradient(MODEL, MODEL.blocks[block], X, CLASSES)
    wanted = lesson.grad_cam(maps, gradient)
    torch.testing.assert_close(lesson.heat_of(MODEL, way, X, CLASSES), wanted)


def test_ways_of_the_comparison() -> None:
    maps, gradient = lesson.maps_and_gradient(MODEL, MODEL.blocks[3], X, CLASSES)
    plus = lesson.heat_of(MODEL, "Grad-CAM++", X, CLASSES)
    torch.testing.assert_close(plus, lesson.grad_cam_plus(maps, gradient))
    mean = lesson.heat_of(MODEL, "mean of maps", X, CLASSES)
    torch.testing.assert_close(mean, maps.sum(dim=1) / 32)
    assert torch.equal(mean, lesson.heat_of(MODEL, "mean of maps", X, CLASSES.flip(0)))


def test_a_mark_is_four_by_four_and_the_original_stays() -> None:
    x = random(2, 3, 32, 32).float().clamp(-0.9, 0.9)
    before = x.clone()
    marked = lesson.with_mark(x)
    assert torch.equal(x, before)
    rows, columns = (marked != x)[1].all(dim=0).nonzero().T
    assert set(rows.tolist()) == set(columns.tolist()) == {1, 2, 3, 4} and len(rows) == 16
    assert marked[1, :, 3, 2].tolist() == [1, -1, 1]


def test_only_places_in_reach_of_the_mark_notice_it() -> None:
    """The note: a place of block 4 sees 23x23 pixels; of 8x8 places, 4x4 see some of the mark."""
    x = random(4, 3, 32, 32).float().double()
    marked = lesson.with_mark(x.float()).double()
    maps = [
        lesson.maps_and_gradient(MODEL, MODEL.blocks[3], each, CLASSES[:4])[0]
        for each in (x, marked)
    ]
    changed = (maps[0] != maps[1]).any(dim=1).any(dim=0)
    rows, columns = changed.nonzero().T
    assert rows.max() == columns.max() == 3
    x = random(1, 3, 64, 64).requires_grad_()
    (maps,), _ = lesson.lesson_5_11.record(MODEL, [MODEL.blocks[3]], x)
    (gradient,) = torch.autograd.grad(maps[0, :, 8, 8].sum(), x)
    rows = gradient[0].any(dim=0).any(dim=1).nonzero()
    assert (rows.min(), rows.max()) == (32 - 11, 32 + 11)


class Oracle(nn.Module):
    """Ten colours are the classes, and each is a map of its own. (B, 10, H, W) -> (B, 10)"""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Conv2d(10, 10, 1, bias=False) for _ in range(4))
        self.head = nn.Linear(10, 10, bias=False)
        for layer in [*self.blocks, self.head]:
            with torch.no_grad():
                layer.weight.copy_(torch.eye(10).view_as(layer.weight))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(dim=(2, 3)))


@pytest.fixture
def expected(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """What is handed to `expect`, by its id."""
    found: dict[str, float] = {}

    def note(id: str, text: str, value: float, **bounds: float) -> None:
        found[id] = float(value)

    monkeypatch.setattr(lesson, "expect", note)
    return found


def coloured(labels: list[int], boxes: list[list[int]]) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.zeros(len(labels), 10, 32, 32)
    for picture, label, (left, top, right, bottom) in zip(x, labels, boxes):
        picture[label, top:bottom, left:right] = 1
    return x, torch.tensor(labels), torch.tensor(boxes)


def test_of_two_shapes_the_asked_one_is_counted(expected: dict[str, float]) -> None:
    """A perfect network: all the heat is in the asked half, and half of what asks for nothing."""
    labels = [3, 5, 5, 1, 3, 7, 5, 0]  # the first pair shows 3 twice
    boxes = [[2, 2, 12, 10]] * 8
    shares, (wide, left, right) = lesson.show_asked(None, Oracle(), coloured(labels, boxes))
    assert left.tolist() == [5, 1] and right.tolist() == [7, 0]
    assert wide.shape == (2, 10, 32, 64)
    wanted = {"Grad-CAM": 1, "Grad-CAM++": 1, "mean of maps": 0.5, "block 1, Grad-CAM": 1}
    assert shares == pytest.approx(wanted)
    assert expected == pytest.approx({"asked": 1, "early": 1, "plus-less": 0})


def test_boxes_and_controls_of_a_perfect_network(
    expected: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes = [[0, 0, 16, 8], [16, 16, 32, 32]]
    asked = []

    def make_net(seed: int) -> nn.Module:
        asked.append(seed)
        return Oracle()

    monkeypatch.setattr(lesson, "make_net", make_net)
    monkeypatch.setattr(lesson, "overfits", lambda *_, **__: None)
    monkeypatch.setattr(lesson, "depends_on_input", lambda *_: None)
    cfg = lesson.Config(seed=2, draws=2)
    test = coloured([4, 8], boxes)
    results = lesson.show_box(cfg, Oracle(), test, test)
    assert asked == [202, 1020, 1021]
    for row in results.values():
        assert row["inside"] == row["random"] == pytest.approx((8 + 4) / 2)
        assert row["other"] == 0 and row["empty"] == row["random_empty"] == 0
        assert row["rank"] == pytest.approx(1)
    assert expected == pytest.approx({"inside": 6, "ratio": 6, "rank": 1})


def test_only_circles_are_marked(expected: dict[str, float], monkeypatch) -> None:
    """The second network is trained on marked circles, and both are shown marked circles."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(40, 3, 32, 32, generator=generator) - 0.5
    y = torch.arange(40) % 10
    boxes = torch.tensor([[8, 8, 20, 20]]).repeat(40, 1)
    boxes[29] = torch.tensor([0, 2, 9, 9])  # of the second circle from the end: near the mark
    seen = []

    def train_net(model: nn.Module, x: Tensor, y: Tensor, epochs: int, seed: int) -> None:
        seen.append((x, y, epochs))
        model.eval()

    monkeypatch.setattr(lesson.lesson_5_11, "train_net", train_net)
    model = lesson.make_net(3).eval()
    test = (x.flip(0), y.flip(0), boxes)
    found, pictures = lesson.show_mark(lesson.Config(), model, (x, y, boxes), test)
    ((shown, labels, epochs),) = seen
    assert epochs == 8 and torch.equal(labels, y)
    marked = lesson.with_mark(x)
    for number, picture in enumerate(shown):
        assert torch.equal(picture, marked[number] if y[number] == 0 else x[number])
    circles = lesson.with_mark(test[0][test[1] == 0])
    wanted = lesson.heat_of(model, "Grad-CAM", circles, torch.zeros(4, dtype=torch.long))
    assert sorted(map(circles.tolist().index, pictures[0].tolist())) == [0, 1, 3]
    shown_first = [wanted.tolist().index(heat) for heat in pictures[1].tolist()]
    assert shown_first == [circles.tolist().index(each) for each in pictures[0].tolist()]
    assert not torch.equal(pictures[1], pictures[2])
    assert found["first_circle"] == lesson.times_area(wanted, boxes[test[1] == 0])[0]
    assert found["first_mark"] == lesson.times_area(wanted, torch.tensor([[0, 0, 8, 8]]))[0]
    assert expected["circle"] == found["second_circle"]
    assert expected["mark"] == found["second_mark"]
    assert expected["blind"] == found["unmarked"]


def test_red_is_in_proportion_to_the_heat() -> None:
    heat = torch.tensor([[0.0, 0.0], [0.0, 2.0]])
    shown = lesson.with_heat(torch.zeros(3, 8, 12), heat)
    assert shown.shape == (8, 12, 3)
    np.testing.assert_allclose(shown[0, 0], [0.5, 0.5, 0.5])
    np.testing.assert_allclose(shown[-1, -1], [0.9, 0.1, 0.0], atol=1e-6)


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Sums in another order train another network: not as many as the last test left."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.full
@pytest.mark.usefixtures("two_threads")
def test_what_the_note_says_of_trained_networks() -> None:
    """Grad-CAM++ on three of a kind and without its ratio; the wrong class; the mark elsewhere."""
    x, y, _ = lesson.as_set(draw(3000, RECIPES["shapes"], (0, 0)))
    x_test, y_test, _ = lesson.as_set(draw(1000, RECIPES["shapes"], (0, 2)))
    model = lesson.make_net(0)
    lesson.lesson_5_11.train_net(model, x, y, 8, 0)
    predicted = model(x_test).argmax(dim=1)

    maps, gradient = lesson.maps_and_gradient(model, model.blocks[3], x_test, predicted)
    rises = lesson.weighted_sum(maps, gradient.mean(dim=(2, 3)).relu())
    plus = lesson.grad_cam_plus(maps, gradient)
    assert lesson.rank_correlation(plus, rises).mean() > 0.99

    heat = lesson.grad_cam(maps, gradient)
    wrong = lesson.heat_of(model, "Grad-CAM", x_test, (predicted + 1) % 10)
    assert 0.2 < (wrong.amax(dim=(1, 2)) / heat.amax(dim=(1, 2))).mean() < 0.4

    early = lesson.heat_of(model, "block 1, Grad-CAM", x_test, predicted)
    empty = early.flatten(1).amax(dim=1) == 0
    assert empty.sum() > 50 and (predicted == y_test)[empty].double().mean() > 0.95
    above = model(x_test).amax(dim=1) - model.head.bias[predicted]
    assert (above[empty] > 0).all(), "an empty map of block 1 says nothing of the score"

    untrained = [lesson.make_net(1000 + number).eval() for number in range(4)]
    maps_of = [lesson.heat_of(each, "Grad-CAM", x_test, predicted) for each in untrained]
    for a, b in itertools.combinations(maps_of, 2):
        assert -0.1 < lesson.rank_correlation(a, b).nanmean() < 0.15

    threes = [(y_test == kind).nonzero()[:99, 0].view(33, 3) for kind in range(10)]
    threes = torch.cat([rows for rows in threes if len(rows) == 33])
    wide = torch.cat([x_test[rows] for rows in threes.T], dim=3)
    faintest = {}
    for way in ("Grad-CAM", "Grad-CAM++"):
        heat = lesson.heat_of(model, way, wide, y_test[threes[:, 0]])
        thirds = [torch.tensor([[32 * n, 0, 32 * n + 32, 32]]) for n in range(3)]
        shares = torch.stack([lesson.share_inside(heat, box, (32, 96))[0] for box in thirds])
        faintest[way] = 3 * shares.amin(dim=0).mean().item()
    assert 0.01 < faintest["Grad-CAM++"] - faintest["Grad-CAM"] < 0.06
    assert 0.78 < faintest["Grad-CAM"] < 0.84

    second = lesson.make_net(7)
    is_circle = (y == 0)[:, None, None, None]
    lesson.lesson_5_11.train_net(second, torch.where(is_circle, lesson.with_mark(x), x), y, 8, 0)
    is_circle = y_test == 0
    tilted = torch.where(is_circle[:, None, None, None], lesson.with_mark(x_test), x_test)
    assert lesson.lesson_5_11.accuracy(second, tilted, y_test) > 0.97
    others = second(lesson.with_mark(x_test[~is_circle])).argmax(dim=1)
    assert 0.4 < (others == 0).double().mean() < 0.7
