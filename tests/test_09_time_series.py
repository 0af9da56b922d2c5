"""What the claims of 6.9 leave open: which part of a window is read, and measured from where."""

from functools import partial

import numpy as np
import pytest
import torch

from common.data.batches import Batches
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


def test_mase_divides_by_changes_over_a_season_also_where_it_is_longer_than_the_horizon() -> None:
    """Two ahead, a season of 5: the first window ends at 4, so the first target is number 6."""
    y = np.random.default_rng(0).normal(size=40).cumsum()
    error = np.array([1.0, -2, 4, 0])
    changes = [abs(y[t] - y[t - 5]) for t in range(6, 40)]
    found = lesson.mase(error, y, horizon=2, season=5)
    assert found == pytest.approx(7 / 4 / np.mean(changes))


def test_no_year_rose_more_than_1998() -> None:
    """The note: 2.9 ppm over the year before, on average; it is why all three are too low there."""
    co2 = lesson.load_co2()
    values = co2.test()
    years = co2.times[52:].astype("datetime64[Y]").astype(int) + 1970
    rises = {year: (values[52:] - values[:-52])[years == year].mean() for year in set(years)}
    assert max(rises, key=rises.get) == 1998 and rises[1998] == pytest.approx(2.85, abs=0.01)


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


def test_training_is_one_cycle_on_shuffled_changes(capsys) -> None:
    """98 values make 34 windows with targets two ahead; batches of 16, so three an epoch."""
    cfg = lesson.Config(seed=3, width=4, steps=5, batch_size=16)
    known = np.random.default_rng(0).normal(size=98).cumsum()
    forecast = lesson.fit_network(cfg, lesson.TCN, 2, known)
    assert capsys.readouterr().out == ""

    x, y = lesson.windows(known, lesson.LENGTH, horizon=2)
    assert len(x) == 34
    spread = (y - x[:, -1]).std()
    inputs = torch.from_numpy((x - x[:, -1:]) / spread).float()
    targets = torch.from_numpy((y - x[:, -1]) / spread).float()
    torch.manual_seed(3)
    model = lesson.TCN(4)
    adamw = torch.optim.AdamW(model.parameters(), weight_decay=0.1)
    cycle = torch.optim.lr_scheduler.OneCycleLR(adamw, 0.01, 6)
    batches = Batches(inputs, targets, batch_size=16, shuffle=True, seed=3)
    for _ in range(2):
        for rows, wanted in batches:
            adamw.zero_grad()
            (model(rows) - wanted).square().mean().backward()
            adamw.step()
            cycle.step()

    found = forecast(x)
    assert found.dtype == np.float64
    theirs = x[:, -1] + spread * model(inputs).detach().double().numpy()
    np.testing.assert_allclose(found, theirs, rtol=1e-6)
