"""The stock forecast as its user meets it: prices of his own; leaks and idle models are caught."""

from pathlib import Path

import numpy as np
import pytest

from common.config import execute
from common.lessons import load_lesson

project = load_lesson("phase06_rnn/project-stock-forecast")
lesson = load_lesson("phase06_rnn/09-time-series")


def run(out: Path, *argv: str) -> int:
    argv = ["--device", "cpu", "--tiny", "--out", str(out), *argv]
    return execute(project.run, project.Config, project.__doc__, argv)


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


def test_a_constant_model_is_no_forecast() -> None:
    from common.checks import depends_on_input
    from common.errors import ClaimFailed

    signs = np.random.default_rng(0).random(100) > 0.4
    with pytest.raises(ClaimFailed):
        depends_on_input("depends", "", np.ones(100, dtype=bool), signs)
