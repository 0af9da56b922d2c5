"""What the claims of 6.9 leave open: which part of a window is read, and measured from where."""

from functools import partial

import numpy as np
import pytest
import torch

from common.lessons import load_lesson

lesson = load_lesson("phase06_rnn/09-time-series")


def test_the_lstm_reads_a_window_from_end_to_end() -> None:
    torch.manual_seed(0)
    model = lesson.LSTMForecaster(8)
    torch.nn.init.ones_(model.head.weight)
    x = torch.randn(1, lesson.LENGTH, requires_grad=True)
    gradient = torch.autograd.grad(model(x).sum(), x)[0][0]
    assert torch.nonzero(gradient)[:, 0].tolist() == list(range(lesson.LENGTH))
    assert model(torch.randn(5, lesson.LENGTH)).shape == (5,)


def test_windows_are_measured_from_their_last_value() -> None:
    found = lesson.from_last(np.array([[1.0, 3, 5], [400, 410, 396]]), 2.0)
    assert found.dtype == torch.float32 and found.tolist() == [[-2, -1, 0], [2, 7, 0]]


def test_windows_and_targets_are_those_found_on_paper() -> None:
    x, y = lesson.windows(np.array([10.0, 11, 12, 13, 14, 15]), length=3, horizon=2)
    assert x.tolist() == [[10, 11, 12], [11, 12, 13]] and y.tolist() == [14, 15]


@pytest.mark.parametrize(
    "horizon, season, drift, wanted",
    [(1, 1, False, 15**2), (2, 1, False, 15**2), (3, 4, False, 14**2), (5, 4, True, 12**2 + 120)],
)
def test_the_naive_forecast_goes_back_by_whole_seasons(horizon, season, drift, wanted) -> None:
    """The window is the whole series: a target `horizon` steps ahead is number 15 + horizon."""
    values = np.arange(16.0) ** 2
    found = lesson.fit_naive(horizon, season, drift, values)(values[None])
    assert found.tolist() == [wanted]


def three_ahead(values: np.ndarray) -> np.ndarray:
    fit = partial(lesson.fit_ar, 2, 3)
    return lesson.walk_forward(values, len(values) - 60, 21, 3, fit)


def test_the_future_moves_no_forecast_and_a_smoothed_series_is_caught() -> None:
    """Forecast 40 + 3 is the first whose window may hold value 40 of the last 60.

    Blocks of 21: the third starts at 42. It may be fitted on values up to 39, before the change.
    """
    values = lesson.load_sunspots().history
    changed = values.copy()
    changed[-20:] += 1000
    assert (three_ahead(changed) != three_ahead(values)).argmax() == 43
    smooth = partial(np.convolve, [1 / 3, 1 / 3, 1 / 3], mode="same")
    assert (three_ahead(smooth(changed)) != three_ahead(smooth(values))).argmax() == 42


def test_a_tcn_of_ones() -> None:
    """A level makes 4h + 1 of 1s: five of them 1365. And -1s stay -1."""
    model = lesson.TCN(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1)
    inputs = torch.tensor([[1.0], [-1.0]]).expand(2, lesson.LENGTH)
    assert model(inputs).tolist() == [1365, -1]


@pytest.mark.parametrize("network", [lesson.LSTMForecaster, lesson.TCN])
def test_an_untrained_network_is_the_naive_forecast(network) -> None:
    assert (network(8)(torch.randn(5, lesson.LENGTH)) == 0).all()


def test_the_lstm_learns_8_windows_by_heart() -> None:
    torch.manual_seed(0)
    x, y = lesson.windows(lesson.load_sunspots().history, lesson.LENGTH, horizon=1)
    targets = torch.from_numpy(y - x[:, -1]).float()[::20] / 20
    batch = (lesson.from_last(x, 20)[::20, -20:], targets)
    model = lesson.LSTMForecaster(16)
    adam = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(80):
        adam.zero_grad()
        loss = lesson.squared_error(model, batch)
        loss.backward()
        adam.step()
    assert loss < 0.05
