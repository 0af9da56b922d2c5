"""6.2's backward pass at the edges of its windows; what its training carries on and clears."""

import math

import pytest
import torch
from torch import Tensor

from common.lessons import load_lesson

lesson = load_lesson("phase06_rnn/02-bptt")


def by_autograd(
    cell: lesson.RNNCell, x: Tensor, h0: Tensor, d_outputs: Tensor, window: int
) -> dict:
    h = h0
    loss = 0
    for t in range(x.shape[1]):
        if t > 0 and t % window == 0:
            h = h.detach()
        h = cell(x[:, t], h)
        loss = loss + (h * d_outputs[:, t]).sum()
    names = [name for name, _ in cell.named_parameters()]
    found = torch.autograd.grad(loss, [*cell.parameters(), x, h0])
    return dict(zip([*names, "x", "h0"], found, strict=True))


@pytest.mark.parametrize("window", [1, 2, 3, 7, 10, 11, 99])
def test_every_window_is_detach(window: int) -> None:
    cell, x, h0, d_outputs = lesson.random_case(4, 10, seed=1)
    ours = lesson.bptt(cell, x, lesson.unroll(cell, x, h0), d_outputs, window)
    for name, gradient in by_autograd(cell, x, h0, d_outputs, window).items():
        torch.testing.assert_close(ours[name], gradient)


def test_a_single_step() -> None:
    cell, x, h0, d_outputs = lesson.random_case(4, 1, seed=2)
    states = lesson.unroll(cell, x, h0)
    ours = lesson.bptt(cell, x, states, d_outputs)
    wanted = torch.autograd.grad((states[:, 1:] * d_outputs).sum(), [cell.weight_hh, h0])
    torch.testing.assert_close(ours["weight_hh"], wanted[0])
    torch.testing.assert_close(ours["h0"], wanted[1])


def test_nothing_is_handed_back_with_a_graph() -> None:
    cell, x, h0, d_outputs = lesson.random_case(4, 5, seed=3)
    ours = lesson.bptt(cell, x, lesson.unroll(cell, x, h0), d_outputs)
    assert not any(gradient.requires_grad for gradient in ours.values())


@pytest.mark.parametrize("steps, windows", [(9, 0), (10, 1), (40, 4), (49, 4), (50, 5)])
def test_every_whole_window_is_trained_on(steps: int, windows: int) -> None:
    stream = lesson.random_signs(2, lesson.LAG + steps, torch.Generator().manual_seed(0))
    assert len(lesson.train(lesson.Echo(4), stream, window=10, lr=0.01)) == windows


def test_the_state_is_carried_and_gradients_are_cleared() -> None:
    """With a rate of 0 the windows together are one long sequence, read from its beginning."""
    stream = lesson.random_signs(32, lesson.LAG + 49, torch.Generator().manual_seed(0))
    model = lesson.Echo(16)
    losses = lesson.train(model, stream, window=10, lr=0.0)  # four windows, nine steps left over
    logits, _ = model(stream[:, :-9])
    logits = logits[:, lesson.LAG :]
    wanted = stream[:, :40]
    for number, loss in enumerate(losses):
        part = slice(10 * number, 10 * number + 10)
        torch.testing.assert_close(lesson.echo_loss(logits[:, part], wanted[:, part]).item(), loss)

    # What stays behind is the gradient of the last window alone.
    error = logits[:, 30:].sigmoid() - (wanted[:, 30:] > 0).float()
    torch.testing.assert_close(model.head.bias.grad, error.mean().reshape(1))


def test_the_first_loss_is_that_of_guessing() -> None:
    signs = lesson.random_signs(32, 100, torch.Generator().manual_seed(0))
    assert abs(lesson.loss_of(lesson.Echo(32), signs).item() - math.log(2)) < 0.08


def test_no_gradient_goes_into_the_steps_that_are_only_read() -> None:
    stream = lesson.random_signs(4, lesson.LAG + 10, torch.Generator().manual_seed(0))
    model = lesson.Echo(8)
    lesson.train(model, stream, window=10, lr=0.0)
    _, h = model(stream[:, : lesson.LAG])
    logits, _ = model(stream[:, lesson.LAG :], h.detach())
    loss = lesson.echo_loss(logits, stream[:, :10])
    wanted = torch.autograd.grad(loss, list(model.parameters()))
    for parameter, gradient in zip(model.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_every_window_takes_a_step() -> None:
    stream = lesson.random_signs(4, lesson.LAG + 10, torch.Generator().manual_seed(0))
    model = lesson.Echo(8)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    lesson.train(model, stream, window=10, lr=0.01)
    for parameter, old in zip(model.parameters(), before, strict=True):
        assert not torch.equal(parameter, old)
