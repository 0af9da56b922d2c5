"""Series from packages as their packages give them; prices from CSVs, whole, wrong or damaged."""

from pathlib import Path

import numpy as np
import pytest

from common import record
from common.data import sources
from common.data.series import (
    carry_forward,
    load_co2,
    load_goog,
    load_sunspots,
    read_prices,
)
from common.errors import LessonError

DAYS = np.arange("2020-01-01", "2021-06-01", dtype="datetime64[D]")
DAYS = DAYS[np.is_busday(DAYS)]  # 369
PRICES = 100 + np.sin(np.arange(len(DAYS)))


def table(names: str = "Date,Open,Close", rows: list[str] | None = None) -> list[str]:
    rows = rows or [f"{day},99.5,{price:.3f}" for day, price in zip(DAYS, PRICES)]
    return [names, *rows]


def read(tmp_path: Path, lines: list[str], column: str | None = None):
    path = tmp_path / "mine.csv"
    path.write_text("\n".join([*lines, ""]))
    return read_prices(path, column)


def test_the_series_are_those_of_statsmodels() -> None:
    from statsmodels.datasets import co2, sunspots

    ours = load_sunspots()
    theirs = sunspots.load_pandas().data
    assert (ours.times == theirs["YEAR"]).all() and ours.times[ours.first_test] == 1920
    assert (ours.test() == theirs["SUNACTIVITY"]).all()

    ours = load_co2()
    theirs = co2.load_pandas().data["co2"]
    assert (ours.times == theirs.index.to_numpy()).all()
    assert np.array_equal(ours.test(), theirs.ffill().to_numpy())
    assert theirs.isna().sum() == 59 and theirs.iloc[ours.first_test :].notna().all()


def test_goog_and_the_test_part_is_counted() -> None:
    record.start(tiny=False)
    series = load_goog()
    assert series.history[0] == 100.34 and len(series.times) == 1047
    assert len(series.history) == series.first_test == 523
    assert str(series.times[-1]) == "2008-10-14" and record.current().test_reads == 0
    assert np.array_equal(series.test()[:523], series.history)
    load_goog().test()
    assert record.current().test_reads == 2


def test_a_gap_is_filled_from_the_past_alone() -> None:
    values = np.array([1.0, np.nan, np.nan, 7, np.nan])
    assert carry_forward(values).tolist() == [1, 1, 1, 7, 7] and np.isnan(values[1])


@pytest.mark.parametrize("content", ["", "YEAR,SUN\n1700,5\n", "YEAR,SUN\n" + "1,x\n" * 309, None])
@pytest.mark.parametrize("load", [load_sunspots, load_co2, load_goog])
def test_a_damaged_package_says_how_to_mend_it(load, content, tmp_path, monkeypatch) -> None:
    for file in ("sunspots/sunspots.csv", "co2/co2.csv"):
        path = tmp_path / "datasets" / file
        path.parent.mkdir(parents=True)
        if content is not None:
            path.write_text(content)
    path = tmp_path / "mpl-data" / "sample_data" / "goog.npz"
    path.parent.mkdir(parents=True)
    if content is not None:
        path.write_text(content)
    package = type("Spec", (), {"origin": str(tmp_path / "__init__.py")})
    monkeypatch.setattr(sources, "find_spec", lambda name: package)
    with pytest.raises(LessonError, match=r"is damaged .* Install it again"):
        load()


def test_without_statsmodels_it_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr(sources, "find_spec", lambda name: None)
    with pytest.raises(LessonError, match="statsmodels"):
        load_sunspots()


def test_prices_in_any_order_and_under_many_names(tmp_path) -> None:
    wanted = read(tmp_path, table())
    assert len(wanted.times) == len(DAYS) and wanted.first_test == len(DAYS) // 2
    assert np.allclose(wanted.test(), PRICES, atol=1e-3)
    newest_first = read(tmp_path, ["Date,Open,Close", *table()[:0:-1]])
    assert np.array_equal(newest_first.test(), wanted.test())
    for names in ("timestamp,open,CLOSE", "Date,AAPL.Open,AAPL.Adjusted", "date,o,Adj Close"):
        assert np.array_equal(read(tmp_path, table(names)).test(), wanted.test()), names
    # An adjusted price goes before the close itself, and --column before both.
    assert np.array_equal(read(tmp_path, table("Date,Close,Adj Close")).test(), wanted.test())
    assert (read(tmp_path, table("Date,Close,Adj Close"), "Close").test() == 99.5).all()
    words = [f"{day.item():%d-%b-%y},1,{p:.3f}" for day, p in zip(DAYS, PRICES)]
    assert np.array_equal(read(tmp_path, table(rows=words)).times, DAYS)


def changed(number: int, row: str) -> list[str]:
    lines = table()
    lines[number] = row
    return lines


FAULTS = {
    "no price": (table("Date,Open,Volume"), "no column Close"),
    "two prices": (table("Date,A.Close,B.Close"), "Name one with --column"),
    "no dates": (table("number,Open,Close"), "no column Date"),
    "empty cell": (changed(17, f"{DAYS[16]},99.5,"), "row 17 of"),
    "a word": (changed(17, f"{DAYS[16]},99.5,closed"), "Close is “closed”"),
    "nothing": (changed(17, f"{DAYS[16]},99.5,0"), "must be a price above 0"),
    "negative": (changed(17, f"{DAYS[16]},99.5,-3"), "must be a price above 0"),
    "infinite": (changed(17, f"{DAYS[16]},99.5,inf"), "must be a price above 0"),
    "no date": (changed(17, "soon,99.5,100"), "must be a date"),
    "a day twice": (changed(17, f"{DAYS[17]},99.5,100"), "twice"),
    "a gap": (table()[:40] + table()[80:], "has a gap"),
    "too short": (table()[:200], "holds 199 days"),
    "one line": (table()[:1], "no rows"),
    "empty": ([], "is empty"),
}


@pytest.mark.parametrize("lines, words", FAULTS.values(), ids=FAULTS)
def test_a_wrong_csv_gets_one_sentence(lines, words, tmp_path) -> None:
    with pytest.raises(LessonError) as caught:
        read(tmp_path, lines)
    assert words in str(caught.value) and "\n" not in str(caught.value), caught.value


def test_a_column_that_is_not_there(tmp_path) -> None:
    with pytest.raises(LessonError, match=r"no column Price\. It has Date, Open, Close"):
        read(tmp_path, table(), "Price")
    with pytest.raises(LessonError, match="cannot be read"):
        read_prices(tmp_path / "nothing.csv")
