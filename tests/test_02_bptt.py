"""6.2's backward pass at the edges of its windows."""

import pytest
import torch
from torch import Tensor

from common.lessons import load_lesson

lesson = load_lesson("phase06_rnn/02-bptt")


def by_autograd(cell: lesson.RNNCell, x: Tensor, h: Tensor, d_outputs: Tensor, window: int) -> dict:
    loss = 0
    for t in range(x.shape[1]):
        if t % window == 0:
            h = h.detach()
        h = cell(x[:, t], h)
        loss = loss + (h * d_outputs[:, t]).sum()
    names = [name for name, _ in cell.named_parameters()]
    found = torch.autograd.grad(loss, [*cell.parameters(), x])
    return dict(zip([*names, "x"], found))


@pytest.mark.parametrize("window", [1, 2, 3, 7, 10, 11, 99])
def test_every_window_is_detach(window: int) -> None:
    cell, x, h0, d_outputs = lesson.random_case(4, 10, seed=1)
    ours = lesson.bptt(cell, x, lesson.unroll(cell, x, h0), d_outputs, window)
    for name, gradient in by_autograd(cell, x, h0, d_outputs, window).items():
        torch.testing.assert_close(ours[name], gradient)
    assert (ours["h0"] == 0).all()


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
