"""The stock forecast as its user meets it: prices of his own; leaks and idle models are caught."""

from pathlib import Path

import numpy as np
import pytest
import torch
from projects import run_project

from common.lessons import load_lesson

project = load_lesson("phase06_rnn/project-stock-forecast")
lesson = load_lesson("phase06_rnn/09-time-series")


def run(out: Path, *argv: str) -> int:
    return run_project(project, out, "--tiny", *argv)


def write(path: Path, days: int = 400) -> Path:
    rng = np.random.default_rng(0)
    prices = 50 * np.exp(rng.normal(0, 0.02, size=days).cumsum())
    dates = np.busday_offset("2019-01-01", np.arange(days), roll="forward")
    rows = [f"{date},{price:.4f}" for date, price in zip(dates, prices)]
    path.write_text("\n".join(["Date,Close", *rows, ""]))
    return path


def test_a_price_of_ones_own(tmp_path, capsys) -> None:
    path = write(tmp_path / "mine.csv")
    before = path.read_bytes()
    assert run(tmp_path / "out", "--csv", str(path)) == 0 and path.read_bytes() == before
    out = capsys.readouterr().out
    assert "VERDICT" in out and "mine, 200 days" in out and "data: mine.csv" in out
    lines = (tmp_path / "out" / "forecasts.csv").read_text().splitlines()
    assert lines[0] == "date,naive,lstm" and len(lines) == 201


def test_a_wrong_csv_stops_before_anything_is_written(tmp_path, capsys) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("Date,Open\n2020-01-01,3\n")
    assert run(tmp_path / "out", "--csv", str(path)) == 1
    assert "no column Close" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*"))
    assert run(tmp_path / "out", "--csv", str(write(path, 100))) == 1
    assert "holds 100 days" in capsys.readouterr().err


@pytest.mark.parametrize("leak", ["window", "fit", "scale"])
def test_a_leak_moves_forecasts_of_the_past(leak: str, monkeypatch) -> None:
    """What the claims past-only look for, with leaks planted in three places."""
    returns = np.random.default_rng(0).normal(size=300)
    changed = returns.copy()
    changed[-50:] *= -1

    def first_to_move() -> int:
        found = []
        for values in (returns, changed):

            def fit_model(known: np.ndarray, values: np.ndarray = values) -> lesson.Forecast:
                return lesson.fit_ar(1, 1, values if leak == "fit" and planted else known)

            if leak == "scale" and planted:
                values = values / values.std() + values.mean()
            found.append(lesson.walk_forward(values, 200, 40, 1, fit_model))
        return int(np.flatnonzero(found[0] != found[1])[0])

    planted = False
    assert first_to_move() == 51
    planted = True
    if leak == "window":
        honest = lesson.windows

        def shifted(values, length, horizon):
            x, y = honest(values, length, horizon)
            return np.column_stack([x[:, 1:], y]), y  # the target stands in its window

        monkeypatch.setattr(lesson, "windows", shifted)
    assert first_to_move() < 51


def test_blocks_are_joined_on_a_circle() -> None:
    """A block of all values turns them; blocks of 4 make 6 values as 4 + 2."""
    rng = np.random.default_rng(0)
    whole = project.bootstrap_means(np.arange(6.0), 6, 50, rng)
    assert np.ptp(whole) == 0 and whole[0] == 2.5
    ragged = project.bootstrap_means(np.array([0.0, 0, 0, 0, 0, 6]), 4, 500, rng)
    assert set(ragged) == {0.0, 1.0, 2.0}
    single = project.bootstrap_means(np.array([0.0, 0, 0, 6]), 1, 500, rng)
    assert {0.0, 1.5, 3.0, 4.5} <= set(single)


def test_a_drawdown_is_from_the_highest_point_before() -> None:
    """1 0.6 0.96 1.056 0.739: at worst 40 % are lost; gains of mean 0 have Sharpe ratio 0."""
    found = project.performance(np.array([-0.4, 0.6, 0.1, -0.3]))
    assert np.allclose([found["sharpe"], found["drawdown"]], [0, 0.4])


def test_the_verdict_says_nothing_where_0_is_inside() -> None:
    ends = [(0.1, 0.2), (-0.2, -0.1), (-0.1, 0.1), (0.0, 0.1), (-0.1, 0.0)]
    undecided = [project.UNDECIDED] * 3
    assert [project.verdict(*pair) for pair in ends] == [project.BETTER, project.WORSE, *undecided]


def test_the_improvement_is_r2_against_0() -> None:
    """A block longer than the series only turns it, so the interval is the number itself."""
    returns, predicted = np.array([1.0, -2, 3, -4]), np.array([1.0, 0, 0, -4])
    found = project.improvement(returns, predicted, project.Config(draws=50))
    assert np.allclose(found, 17 / 30)
    _, low, high = project.improvement(returns, predicted, project.Config(draws=50), block=1)
    assert low < 17 / 30 < high


def brief_config(**changes) -> "project.Config":
    settings = {"steps": 10, "networks": 2, "length": 5, "width": 8, "retrain_every": 300}
    return project.Config(device="cpu", **settings | changes)


def planted_returns() -> np.ndarray:
    return 0.02 * project.autoregressive(-0.5, 400, np.random.default_rng(0))


def test_the_unit_of_returns_is_that_of_forecasts() -> None:
    returns = planted_returns()
    window = returns[None, 200:300]
    forecast = project.fit_lstm(brief_config(), returns[:200])
    in_percent = project.fit_lstm(brief_config(), 100 * returns[:200])
    assert np.allclose(in_percent(100 * window), 100 * forecast(window), rtol=1e-3, atol=0)


def test_networks_are_averaged() -> None:
    returns = planted_returns()
    window = returns[None, 200:300]
    together = project.fit_lstm(brief_config(), returns[:200])(window)
    alone = []
    x, y = lesson.windows(returns[:200], lesson.LENGTH, 1)
    spread = returns[:200].std()
    for seed in (0, 1):
        cfg = brief_config()
        targets = torch.from_numpy(y / spread).float()
        model = project.train(cfg, project.to_inputs(cfg, x, spread), targets, seed)
        alone.append(spread * model(project.to_inputs(cfg, window, spread)).numpy())
    assert np.allclose(together, np.mean(alone, axis=0)) and not np.allclose(*alone)


def test_an_untrained_network_forecasts_0() -> None:
    torch.manual_seed(0)
    assert not lesson.LSTMForecaster(8)(torch.randn(3, 5)).any()


def test_baselines_are_0_and_a_line_through_pairs_of_days() -> None:
    returns = planted_returns()
    found = project.forecasts(brief_config(networks=1), returns, 300)
    assert list(found) == ["naive", "AR(1)", "LSTM"]
    slope, constant = np.polyfit(returns[:299], returns[1:300], 1)
    assert not found["naive"].any()
    assert np.isclose(found["AR(1)"][0], constant + slope * returns[299])


def test_numbers_of_the_note() -> None:
    """What an R² of 0.5 % is worth a year at 2 % volatility a day, without costs and with them."""
    rng = np.random.default_rng(0)
    known = 0.005**0.5 * rng.normal(size=400_000)
    returns = 0.02 * (known + 0.995**0.5 * rng.normal(size=len(known)))
    yearly = []
    for cost in (0.0, 0.001):
        gains = project.trade(np.sign(known), returns, cost)
        yearly.append(project.DAYS * gains.mean())
    assert 0.25 < yearly[0] < 0.35 and yearly[1] < 0.06


def test_groups_of_wild_days_alone_leave_single_days_right() -> None:
    """Values without correlation, whose size hangs together: both intervals hold the true mean."""
    rng = np.random.default_rng(0)
    covered = {1: 0, project.BLOCK: 0}
    for _ in range(200):
        size = np.exp(0.5 * project.autoregressive(0.9, 300, rng) / 2)
        values = size * rng.normal(size=300)
        for block in covered:
            means = project.bootstrap_means(values, block, 200, rng)
            low, high = np.quantile(means, [0.025, 0.975])
            covered[block] += low <= 0 <= high
    assert all(0.85 < count / 200 < 0.99 for count in covered.values())


def test_a_constant_model_is_no_forecast() -> None:
    from common.checks import depends_on_input
    from common.errors import ClaimFailed

    signs = np.random.default_rng(0).random(100) > 0.4
    with pytest.raises(ClaimFailed):
        depends_on_input("depends", "", np.ones(100, dtype=bool), signs)
