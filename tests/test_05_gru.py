"""Lesson 6.5 and its note: the claims that its exercises and its failure make."""

import math

import pytest
import torch
from torch import nn

from common.lessons import load_lesson

lesson = load_lesson("phase06_rnn/05-gru")
lstm_lesson = load_lesson("phase06_rnn/04-lstm")


def numbers(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_as_many_weights_as_an_lstm_of_256() -> None:
    assert numbers(lstm_lesson.LSTM(64, 256)) == 329728
    assert numbers(lesson.GRU(64, 300)) == pytest.approx(329728, rel=0.005)


def test_half_life_of_a_bias_of_4() -> None:
    z = 1 / (1 + math.exp(-4))
    assert round(z, 3) == 0.982
    assert round(math.log(2) / -math.log(z)) == 38


def test_a_second_bias_is_superfluous_in_an_lstm_only() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 4, dtype=torch.float64)
    h = torch.randn(3, 5, dtype=torch.float64)
    lstm = lstm_lesson.LSTMCell(4, 5).double()
    gru = lesson.GRUCell(4, 5).double()
    before = lstm(x, (h, h))[0], gru(x, h)
    with torch.no_grad():
        for cell in (lstm, gru):
            cell.bias_ih += 1
            cell.bias_hh -= 1
    torch.testing.assert_close(lstm(x, (h, h))[0], before[0])
    assert not torch.allclose(gru(x, h), before[1])


def test_reset_before_the_matrix_is_the_same_with_one_unit_only() -> None:
    """The failure: numbers commute, so an example with one unit does not tell."""

    def paper(cell: nn.Module, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        from_input = (x @ cell.weight_ih.T + cell.bias_ih).chunk(3, dim=1)
        weights, biases = cell.weight_hh.chunk(3), cell.bias_hh.chunk(3)
        r, z = (torch.sigmoid(from_input[k] + h @ weights[k].T + biases[k]) for k in range(2))
        n = torch.tanh(from_input[2] + (r * h) @ weights[2].T + biases[2])
        return z * h + (1 - z) * n

    torch.manual_seed(0)
    for width, same in [(1, True), (2, False)]:
        cell = lesson.GRUCell(4, width).double()
        cell.bias_hh.data.zero_()
        x = torch.randn(3, 4, dtype=torch.float64)
        h = torch.randn(3, width, dtype=torch.float64)
        assert torch.allclose(paper(cell, x, h), cell(x, h)) == same


def test_an_open_update_gate_keeps_a_state_for_a_thousand_steps() -> None:
    torch.manual_seed(0)
    cell = lesson.GRUCell(5, 5).double()
    cell.bias_ih.data[5:10] = 50.0  # z = 1
    h = later = torch.randn(4, 5, dtype=torch.float64)
    for _ in range(1000):
        later = cell(torch.randn(4, 5, dtype=torch.float64), later)
    torch.testing.assert_close(later, h)


def test_gradients_are_torchs() -> None:
    torch.manual_seed(0)
    model = lesson.GRU(3, 5, n_layers=3).double()
    reference = nn.GRU(3, 5, num_layers=3, batch_first=True).double()
    for theirs, ours in zip(reference.parameters(), model.parameters(), strict=True):
        theirs.data.copy_(ours)
    x = torch.randn(4, 12, 3, dtype=torch.float64, requires_grad=True)
    h0 = torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True)
    found = []
    for one in (model, reference):
        outputs, last = one(x, h0)
        loss = outputs.square().sum() + last.sum()
        gradients = torch.autograd.grad(loss, [x, h0, *one.parameters()])
        found.append(torch.cat([gradient.flatten() for gradient in gradients]))
    torch.testing.assert_close(*found)


def test_a_held_gate_has_its_value_at_every_step() -> None:
    cfg = lesson.Config(hidden_dim=4)
    model = lesson.make_adder("GRU", cfg)
    x, _ = lesson.lesson_6_3.adding_problem(6, 8, torch.Generator().manual_seed(0))
    before = model(x)
    values = torch.tensor([0.1, 0.5, 0.8, 0.9])
    for block in (0, 1):
        gates = lesson.read_gates(lesson.hold_gate(model, block, values), x)
        torch.testing.assert_close(gates[block], values.expand(6, 8, 4))
        assert gates[1 - block].std() > 0.01
    torch.testing.assert_close(model(x), before)


def test_gates_that_are_read_are_those_of_the_step() -> None:
    """The states that follow from them are the network's."""
    torch.manual_seed(0)
    model = lesson.make_adder("GRU", lesson.Config(hidden_dim=4))
    x = torch.randn(6, 8, 2)
    r, z = lesson.read_gates(model, x)
    cell = model.recurrent.cells[0]
    h = torch.zeros(6, 4)
    for t in range(8):
        n_input = (x[:, t] @ cell.weight_ih.T + cell.bias_ih).chunk(3, dim=1)[2]
        n_state = (h @ cell.weight_hh.T + cell.bias_hh).chunk(3, dim=1)[2]
        h = z[:, t] * h + (1 - z[:, t]) * torch.tanh(n_input + r[:, t] * n_state)
        torch.testing.assert_close(h, model.recurrent(x)[0][:, t])


def test_the_state_stays_between_minus_one_and_one() -> None:
    torch.manual_seed(0)
    model = lesson.GRU(4, 5, n_layers=2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 20
    outputs, _ = model(100 * torch.randn(8, 50, 4))
    assert outputs.abs().max() <= 1


def test_first_values_are_torchs() -> None:
    """Uniform from -1/√H to 1/√H."""
    torch.manual_seed(0)
    ours = torch.cat([p.flatten() for p in lesson.GRU(64, 256).parameters()])
    theirs = torch.cat([p.flatten() for p in nn.GRU(64, 256).parameters()])
    for value in (ours, theirs):
        assert value.abs().max().item() == pytest.approx(1 / 16, rel=1e-3)
        assert value.std().item() == pytest.approx(1 / 16 / math.sqrt(3), rel=0.01)
