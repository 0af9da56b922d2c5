"""6.1's cell and network as later lessons use them: any length, any type, torch's names."""

import math

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


def test_gradients_and_last_states_are_torchs() -> None:
    torch.manual_seed(0)
    ours = basics.RNN(5, 7, n_layers=3).double()
    torch.manual_seed(0)
    theirs = nn.RNN(5, 7, num_layers=3, batch_first=True).double()
    x = torch.randn(4, 6, 5, dtype=torch.float64)
    (our_states, our_last), (states, last) = ours(x), theirs(x)
    torch.testing.assert_close(our_last, last)

    our_loss = our_states.square().sum() + our_last.square().sum()
    loss = states.square().sum() + last.square().sum()
    our_grads = torch.autograd.grad(our_loss, list(ours.parameters()))
    grads = torch.autograd.grad(loss, list(theirs.parameters()))
    for our_grad, grad in zip(our_grads, grads, strict=True):
        torch.testing.assert_close(our_grad, grad)


def test_states_of_the_paper_model() -> None:
    """Yes and no are the tanh of ±5, and the head says odd with +1, even with −1."""
    model = basics.paper_model()
    bits = torch.tensor([[1.0, 0, 1, 1, 0]])
    states, _ = model.rnn(bits.unsqueeze(2))
    yes = math.tanh(5)
    wanted = torch.tensor([[yes, -yes], [yes, -yes], [1, yes], [yes, -yes], [yes, -yes]])
    torch.testing.assert_close(states[0], wanted)
    torch.testing.assert_close(model(bits), torch.tensor([[1.0, 1, -1, 1, 1]]), atol=3e-4, rtol=0)


def test_loss_by_hand() -> None:
    """Odd, odd, odd, even: log(1 + e⁻¹), log(1 + e²), log(1 + e⁻³) and log(1 + e⁻¹)."""
    logits = torch.tensor([[1.0, -2.0, 3.0, -1.0]])
    bits = torch.tensor([[1.0, 0.0, 0.0, 1.0]])
    losses = [math.log(1 + math.exp(power)) for power in (-1, 2, -3, -1)]
    every = basics.odd_even_loss(lambda _: logits, bits)
    end = basics.odd_even_loss(lambda _: logits, bits, only_end=True)
    torch.testing.assert_close(every.item(), sum(losses) / 4, rtol=1e-5, atol=0)
    torch.testing.assert_close(end.item(), losses[3], rtol=1e-5, atol=0)


def test_the_first_loss_is_that_of_guessing() -> None:
    bits = torch.randint(2, (200, 10)).float()
    assert abs(basics.odd_even_loss(basics.OddEven(32), bits).item() - math.log(2)) < 0.08
