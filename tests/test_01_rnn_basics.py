"""6.1's cell and network as later lessons use them: any length, any type, torch's names."""

import pytest
import torch
from torch import nn

from common.lessons import load_lesson

basics = load_lesson("phase06_rnn/01-rnn-basics")


@pytest.mark.parametrize("steps", [1, 2, 30])
@pytest.mark.parametrize("layers", [1, 2])
def test_any_length_and_batch(steps: int, layers: int) -> None:
    for batch in (1, 3):
        x = torch.randn(batch, steps, 4)
        states, last = basics.RNN(4, 5, layers)(x)
        assert states.shape == (batch, steps, 5) and last.shape == (layers, batch, 5)
        torch.testing.assert_close(states[:, -1], last[-1])


def test_the_cell_takes_weights_of_torchs_cell() -> None:
    ours = basics.RNNCell(4, 5)
    theirs = nn.RNNCell(4, 5)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(3, 4)
    h = torch.randn(3, 5)
    torch.testing.assert_close(ours(x, h), theirs(x, h))


def test_gradients_reach_the_first_state_and_every_input() -> None:
    x = torch.randn(2, 6, 3, requires_grad=True)
    h0 = torch.randn(2, 2, 4, requires_grad=True)
    states, _ = basics.RNN(3, 4, 2)(x, h0)
    states[:, -1].sum().backward()
    assert (x.grad.abs().sum(dim=(0, 2)) > 0).all()
    assert (h0.grad.abs().sum(dim=(1, 2)) > 0).all()


def test_the_first_state_is_not_changed() -> None:
    h0 = torch.zeros(1, 2, 4)
    basics.RNN(3, 4)(torch.randn(2, 5, 3), h0)
    assert (h0 == 0).all()


def test_paper_model_from_odd() -> None:
    """Exercise 3: another first state, the same weights."""
    model = basics.paper_model()
    bits = torch.randint(2, (20, 50)).float()
    h0 = torch.tensor([1.0, -1.0]).expand(1, 20, 2)
    states, _ = model.rnn(bits.unsqueeze(2), h0)
    odd = (bits.cumsum(dim=1) + 1) % 2 == 1
    assert ((model.head(states).squeeze(2) > 0) == odd).all()
