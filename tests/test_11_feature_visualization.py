"""Lesson 5.11: hooks, probe, gradient ascent and occlusion, each against a case that is known."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LinearRegression
from torch import nn

from common.lessons import load_lesson

lesson = load_lesson("phase05_cnn/11-feature-visualization")


def test_the_network_is_four_convolutions_and_a_mean() -> None:
    torch.manual_seed(0)
    model = lesson.ShapeNet(7)
    reference = []
    for number, (inputs, outputs, stride) in enumerate(
        [(3, 16, 2), (16, 32, 2), (32, 32, 1), (32, 32, 1)]
    ):
        conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        reference += [conv, nn.BatchNorm2d(outputs), nn.ReLU()]
        conv.load_state_dict(model.blocks[number][0].state_dict())
    reference = nn.Sequential(*reference, nn.AdaptiveAvgPool2d(1), nn.Flatten(), model.head)
    x = torch.randn(5, 3, 20, 28)
    assert model(x).shape == (5, 7)
    torch.testing.assert_close(model(x), reference(x))
    assert sum(each.numel() for each in model.parameters()) == 23_927


def test_record_takes_its_hooks_off_and_leaves_others() -> None:
    model = lesson.make_net(0)
    calls = []
    model.blocks[2].register_forward_hook(lambda *_: calls.append(1))
    (third, first), answer = lesson.record(
        model, [model.blocks[2], model.blocks[0]], torch.randn(2, 3, 8, 8)
    )
    assert third.shape == (2, 32, 2, 2) and first.shape == (2, 16, 4, 4)
    assert answer.shape == (2, 10)
    assert len(calls) == 1
    assert sum(len(each._forward_hooks) for each in model.modules()) == 1


def test_gradients_pass_through_what_was_recorded() -> None:
    model = lesson.make_net(0)
    x = torch.randn(2, 3, 8, 8)
    (maps,), answer = lesson.record(model, [model.blocks[3]], x)
    (gradient,) = torch.autograd.grad(answer[:, 3].sum(), maps)
    wanted = model.head.weight[3][None, :, None, None].expand_as(maps) / 4
    torch.testing.assert_close(gradient, wanted)


def test_the_probe_is_a_linear_regression_with_a_bias() -> None:
    rng = np.random.default_rng(0)
    train = rng.normal(size=(60, 5)) + 3
    y = rng.integers(4, size=60)
    test = rng.normal(size=(40, 5)) + 3
    sklearn = LinearRegression().fit(train, np.eye(4)[y]).predict(test).argmax(axis=1)
    ours = lesson.probe(*(torch.tensor(each) for each in (train, y, test)))
    assert ours.tolist() == sklearn.tolist()


def test_a_channel_that_is_always_0_does_the_probe_no_harm() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 3, generator=generator)
    x[:, 1] = 0
    y = (x[:, 0] > 0).long()
    assert (lesson.probe(x, y, x) == y).float().mean() > 0.9


def test_ascent_finds_the_highest_point() -> None:
    """-(x - 0.3)² is highest at 0.3 everywhere; -(x - 2)² as near to 2 as the bounds allow."""

    def value(x: torch.Tensor) -> torch.Tensor:
        return -(x[:, 0] - 0.3).square().sum(dim=(1, 2)) - (x[:, 1] - 2).square().sum(dim=(1, 2))

    x = lesson.maximise(value, 2, 200, False, 0)
    assert x.shape == (2, 3, 32, 32) and not x.requires_grad
    torch.testing.assert_close(x[:, 0], torch.full((2, 32, 32), 0.3), atol=0.01, rtol=0)
    assert (x[:, 1] == 1).all()
    assert 0.08 < x[:, 2].std() < 0.12, "noise stays where nothing is asked for"
    assert torch.equal(x, lesson.maximise(value, 2, 200, False, 0))
    assert not torch.equal(x, lesson.maximise(value, 2, 200, False, 1))


def test_smooth_ascent_shifts_by_two_pixels_at_most() -> None:
    """The value asks for one pixel: plain ascent sets it, smooth ascent 5x5 around it."""

    def value(x: torch.Tensor) -> torch.Tensor:
        return x[:, 0, 16, 10]

    plain = lesson.maximise(value, 1, 120, False, 0)[0, 0]
    smooth = lesson.maximise(value, 1, 120, True, 0)[0, 0]
    assert plain[16, 10] == 1
    assert (plain - plain[16, 9]).abs()[16, 9] == 0 and plain[16, 9].abs() < 0.5
    rows, columns = (smooth > 0.3).nonzero().unbind(dim=1)
    assert rows.min() >= 13 and rows.max() <= 19
    assert columns.min() >= 7 and columns.max() <= 13
    assert len(rows) >= 20


def test_neighbouring_pixels_are_mixed_at_every_fourth_step() -> None:
    """Without a gradient only the mixing is left: four steps mix once, three do not."""

    def value(x: torch.Tensor) -> torch.Tensor:
        return 0 * x.sum(dim=(1, 2, 3))

    start = lesson.maximise(value, 1, 3, True, 0)
    torch.testing.assert_close(start, lesson.maximise(value, 1, 0, False, 0))
    mixed = lesson.maximise(value, 1, 4, True, 0)
    padded = F.pad(torch.ones_like(start), [1] * 4)
    means = F.avg_pool2d(F.pad(start, [1] * 4), 3, 1) / F.avg_pool2d(padded, 3, 1)
    torch.testing.assert_close(mixed, (start + means) / 2)

    twice = lesson.maximise(value, 1, 8, True, 0)
    means = F.avg_pool2d(F.pad(mixed, [1] * 4), 3, 1) / F.avg_pool2d(padded, 3, 1)
    torch.testing.assert_close(twice, (mixed + means) / 2)


def test_each_step_of_smooth_ascent_draws_a_shift_of_its_own(monkeypatch) -> None:
    """From -2 to 2 pixels, down and across; the seed decides, not what was drawn before."""
    shifts = []
    roll = torch.Tensor.roll

    def spy(x: torch.Tensor, shift: list[int], dims: tuple[int, int]) -> torch.Tensor:
        shifts.append(tuple(shift))
        return roll(x, shift, dims)

    monkeypatch.setattr(torch.Tensor, "roll", spy)
    for before in (1, 2):
        torch.manual_seed(before)
        lesson.maximise(lambda x: x.sum(dim=(1, 2, 3)), 1, 200, True, 0)
    assert shifts[:200] == shifts[200:]
    assert {row for row, _ in shifts} == {column for _, column in shifts} == {-2, -1, 0, 1, 2}
    shifts.clear()
    lesson.maximise(lambda x: x.sum(dim=(1, 2, 3)), 1, 20, False, 0)
    assert set(shifts) == {(0, 0)}


@pytest.mark.parametrize("size, step", [(8, 4), (5, 3)])
def test_occlusion_of_a_linear_network(size: int, step: int) -> None:
    """The score falls by what the covered pixels had added to it."""
    torch.manual_seed(0)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 17, 4)).double()
    x = torch.randn(4, 3, 12, 17).double()
    classes = torch.tensor([3, 1, 1, 0])
    added = (linear[1].weight.reshape(4, 3, 12, 17)[classes] * x).sum(dim=1)
    wanted = added.unfold(1, size, step).unfold(2, size, step).sum(dim=(3, 4))
    falls = lesson.occlusion(linear, x, classes, size, step)
    torch.testing.assert_close(falls, wanted)
    if size == 8:
        torch.testing.assert_close(lesson.occlusion(linear, x, classes), wanted)


def test_pictures_come_back_as_they_were() -> None:
    picture = torch.rand(3, 4, 5) * 2 - 1
    (shown,) = lesson.as_pictures([picture])
    assert shown.shape == (4, 5, 3)
    np.testing.assert_allclose(shown * 2 - 1, picture.movedim(0, 2), atol=1e-6)


def test_a_unit_of_block_4_sees_23_by_23_pixels() -> None:
    model = lesson.make_net(0).double().eval()
    for block in model.blocks:
        torch.nn.init.ones_(block[0].weight)
    x = torch.ones(1, 3, 64, 64, dtype=torch.float64, requires_grad=True)
    (maps,), _ = lesson.record(model, [model.blocks[3][1]], x)
    (gradient,) = torch.autograd.grad(maps[0, 5, 7, 8], x)
    _, rows, columns = gradient[0].nonzero().unbind(dim=1)
    assert rows.max() - rows.min() + 1 == columns.max() - columns.min() + 1 == 23
    assert (gradient != 0).sum() == 3 * 23 * 23 == 1587


def test_an_off_relu_gives_the_picture_no_direction() -> None:
    """The failure that the note shows."""

    def value(x: torch.Tensor) -> torch.Tensor:
        return (x[:, 0] - 5).relu().amax(dim=(1, 2))

    start = lesson.maximise(value, 2, 0, False, 0)
    assert torch.equal(lesson.maximise(value, 2, 20, False, 0), start)


def test_a_relu_in_place_overwrites_what_a_hook_kept() -> None:
    """The note says so, and what helps."""
    model = nn.Sequential(nn.BatchNorm1d(4), nn.ReLU(inplace=True)).eval()
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    (kept,), _ = lesson.record(model, [model[0]], x)
    assert x.min() < 0 and kept.min() == 0

    copies = []
    model[0].register_forward_hook(lambda layer, inputs, output: copies.append(output.clone()))
    model(x)
    assert copies[0].min() < 0


def test_far_out_twice_the_picture_gives_twice_the_scores() -> None:
    """The exercise: without bounds a unit rises for as long as one climbs."""
    model = lesson.make_net(0).double()
    x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)).double()
    model(x)
    model.eval()
    with torch.no_grad():
        far = model(1e6 * x)
        assert (model(2e6 * x) - 2 * far).norm() < 1e-4 * far.norm()
        near = model(x)
        assert (model(2 * x) - 2 * near).norm() > 0.05 * near.norm()
