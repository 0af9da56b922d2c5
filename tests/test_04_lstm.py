"""Lesson 6.4 and its note: what is torch's besides the outputs, and the numbers of the note."""

import math

import pytest
import torch
from torch import nn

from common.lessons import load_lesson

lesson = load_lesson("phase06_rnn/04-lstm")


def flat(tensors) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def test_a_seed_gives_the_same_first_weights() -> None:
    starts = []
    for network in (lesson.LSTM, nn.LSTM):
        torch.manual_seed(0)
        starts.append(flat(network(3, 5).parameters()))
    torch.testing.assert_close(*starts, rtol=0, atol=0)


def test_a_cell_is_torchs_gradients_too() -> None:
    torch.manual_seed(0)
    reference = nn.LSTMCell(3, 5, dtype=torch.float64)
    cell = lesson.LSTMCell(3, 5).double()
    cell.load_state_dict(reference.state_dict())
    x, h, c = (
        torch.randn(7, width, dtype=torch.float64, requires_grad=True) for width in (3, 5, 5)
    )
    found = []
    for one in (cell, reference):
        new_h, new_c = one(x, (h, c))
        loss = (new_h * new_c.cos()).sum()
        gradients = torch.autograd.grad(loss, [x, h, c, *one.parameters()])
        found.append(flat([new_h, new_c, *gradients]))
    torch.testing.assert_close(*found)


def test_gradients_through_layers_and_time_are_torchs() -> None:
    torch.manual_seed(0)
    reference = nn.LSTM(3, 5, num_layers=3, batch_first=True, dtype=torch.float64)
    model = lesson.LSTM(3, 5, n_layers=3).double()
    for theirs, ours in zip(reference.parameters(), model.parameters(), strict=True):
        ours.data.copy_(theirs)
    x = torch.randn(4, 9, 3, dtype=torch.float64)
    found = []
    for one in (model, reference):
        outputs, (h, c) = one(x)
        loss = (outputs * outputs.cos()).sum() + (h * c).sum()
        found.append(flat(torch.autograd.grad(loss, list(one.parameters()))))
    torch.testing.assert_close(*found)


def test_time_scales_reach_from_1_to_the_length_and_gates_balance() -> None:
    torch.manual_seed(0)
    model = lesson.LSTM(2, 5000, n_layers=2)
    lesson.set_time_scales(model, 100)
    for cell in model.cells:
        write, keep, _, _ = (cell.bias_ih + cell.bias_hh).detach().sigmoid().chunk(4)
        half_lives = -math.log(2) / keep.log()
        assert half_lives.min() == pytest.approx(1, abs=0.1)
        assert half_lives.max() == pytest.approx(100, abs=0.2)
        assert half_lives.mean() == pytest.approx(50.5, abs=2)
        torch.testing.assert_close(write + keep, torch.ones(5000))


def test_numbers_of_the_note() -> None:
    bias = lesson.forget_bias(torch.tensor(100.0, dtype=torch.float64))
    assert round(bias.sigmoid().item(), 4) == 0.9931
    assert round(bias.item(), 2) == 4.97
    assert round(1 / (1 + math.exp(-1)), 2) == 0.73
    assert sum(p.numel() for p in lesson.LSTM(64, 128).parameters()) == 99328


def test_without_the_markers_there_is_almost_nothing_to_gain() -> None:
    """The note: the best answer takes 0.02 of each number; the error is 0.163 instead of 0.167."""
    generator = torch.Generator().manual_seed(0)
    x, y = lesson.lesson_6_3.adding_problem(100_000, 100, generator)
    numbers = x[:, :, 0] - 0.5
    weights = torch.linalg.lstsq(numbers, y[:, None] - 1).solution[:, 0]
    assert weights.mean().item() == pytest.approx(0.02, abs=5e-4)
    assert weights.std() < 0.006
    best = 1 + numbers @ torch.full((100,), 0.02)
    assert (best - y).square().mean().item() == pytest.approx(0.163, abs=2e-3)
    gained = (1 - y).square() - (best - y).square()
    assert gained.mean().item() == pytest.approx(0.02**2 * 100 / 12, abs=5e-4)


def test_with_seed_0_the_paths_through_h_hold_the_effect_up() -> None:
    x, _ = lesson.lesson_6_3.adding_problem(64, 100, torch.Generator().manual_seed(0))
    model = lesson.make_adder(lesson.Config(), "LSTM, time scales", 100)
    curve = lesson.lesson_6_3.reach(model, x)
    assert 0.9 < curve[99] / curve[50] < 1.2
    for name, parameter in model.named_parameters():
        if name.endswith("weight_hh"):
            parameter.data.zero_()
    curve = lesson.lesson_6_3.reach(model, x)
    assert 0.4 < curve[99] / curve[50] < 0.6


def test_the_order_of_the_gates_matters() -> None:
    """The failure: i, o, f, g loads without a complaint and answers something else."""
    torch.manual_seed(0)
    cell = lesson.LSTMCell(4, 5).double()
    x, h, c = (torch.randn(3, width, dtype=torch.float64) for width in (4, 5, 5))
    before, _ = cell(x, (h, c))
    with torch.no_grad():
        for parameter in cell.parameters():
            i, f, g, o = parameter.chunk(4)
            parameter.copy_(torch.cat([i, o, f, g]))
    assert not torch.allclose(cell(x, (h, c))[0], before)


def test_slopes_of_an_answer_are_those_by_its_own_numbers() -> None:
    class Sum(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x[:, :, 0] * x[:, :, 1]).sum(dim=1)

    x, _ = lesson.lesson_6_3.adding_problem(20, 8, torch.Generator().manual_seed(0))
    torch.testing.assert_close(lesson.answer_slopes(Sum(), x), x[:, :, 1])
    assert not x.requires_grad
