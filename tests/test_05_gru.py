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


def test_exchanged_blocks_are_the_same_cell_under_other_names() -> None:
    """What the failure section says: z, r, n learns as well, but another library's weights fail."""
    torch.manual_seed(0)
    cell = lesson.GRUCell(4, 5).double()
    x = torch.randn(3, 4, dtype=torch.float64)
    h = torch.randn(3, 5, dtype=torch.float64)
    before = cell(x, h)
    with torch.no_grad():
        for parameter in cell.parameters():
            r, z, n = parameter.chunk(3)
            parameter.copy_(torch.cat([z, r, n]))
    assert not torch.allclose(cell(x, h), before)


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
