"""What the claims of 6.9 leave open: which part of a window is read, and measured from where."""

import numpy as np
import torch

from common.lessons import load_lesson

lesson = load_lesson("phase06_rnn/09-time-series")


def test_the_lstm_reads_the_newer_half_of_a_window_to_its_end() -> None:
    model = lesson.LSTMForecaster(8)
    torch.nn.init.ones_(model.head.weight)
    x = torch.randn(1, lesson.LENGTH, requires_grad=True)
    gradient = torch.autograd.grad(model(x).sum(), x)[0][0]
    assert torch.nonzero(gradient)[:, 0].tolist() == list(range(lesson.LENGTH - 32, lesson.LENGTH))
    assert model(torch.randn(5, lesson.LENGTH)).shape == (5,)


def test_windows_are_measured_from_their_last_value() -> None:
    found = lesson.from_last(np.array([[1.0, 3, 5], [400, 410, 396]]), 2.0)
    assert found.dtype == torch.float32 and found.tolist() == [[-2, -1, 0], [2, 7, 0]]
