"""Series in time: sunspots, CO₂ and Google's price from packages; daily prices from any CSV."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.data.anycsv import read_any_csv
from common.data.cells import to_dates, to_numbers
from common.data.sources import shipped
from common.errors import LessonError
from common.record import current

if TYPE_CHECKING:
    import pandas as pd

SUNSPOTS_TEST = 1920  # from this year on
CO2_TEST = np.datetime64("1991-01-05")
LEAST_DAYS = 300  # of a file of prices
ADJUSTED = re.compile(r"adj(usted)?([ ._-]*close)?$|adj(usted)?[ ._-]*close", re.IGNORECASE)
CLOSE = re.compile(r"(^|[ ._-])close(/last)?$", re.IGNORECASE)
DATE = re.compile(r"(^|[ ._-])(date|day|time|datetime|timestamp)$", re.IGNORECASE)


@dataclass(frozen=True)
class Series:
    """Values in the order of time. The test part is all from number first_test on.

    times: (n,), years or datetime64[D]. There are no gaps: where nothing was measured, a loader
    puts the last value before it. A line between two measurements would know the later one early.
    """

    name: str
    times: np.ndarray
    first_test: int
    _values: np.ndarray = field(repr=False)

    @property
    def history(self) -> np.ndarray:
        """All values before the test part. (first_test,)"""
        return self._values[: self.first_test]

    def test(self) -> np.ndarray:
        """All values, history and test part (n,). Read it once: what chooses by it knows it."""
        current().read_test(self._values[self.first_test :])
        return self._values


def carry_forward(values: np.ndarray) -> np.ndarray:
    """Fill each gap (NaN) with the last value before it, all that was known then. (n,) -> (n,)"""
    filled = values.copy()
    for t in range(1, len(filled)):
        if np.isnan(filled[t]):
            filled[t] = filled[t - 1]
    return filled


def load_sunspots() -> Series:
    """The mean sunspot number of each year, 1700 to 2008 (309 values); the test part is from 1920.

    Read from statsmodels' own file, for importing statsmodels takes longer than the lesson.
    """
    rows = _shipped_rows("sunspots", 309)
    years = np.array([int(year) for year, _ in rows])
    values = np.array([float(value) for _, value in rows])
    current().use_data("sunspots", "from the package statsmodels")
    return Series("sunspots", years, int(np.searchsorted(years, SUNSPOTS_TEST)), values)


def load_co2() -> Series:
    """CO₂ in the air on Mauna Loa, ppm, every Saturday from 1958 to 2001 (2,284 weeks).

    59 weeks, none of them in the test part from 1991 on, were not measured.
    """
    rows = _shipped_rows("co2", 2284)
    days = np.array([f"{day[:4]}-{day[4:6]}-{day[6:]}" for day, _ in rows], dtype="datetime64[D]")
    values = np.array([float(value) if value else np.nan for _, value in rows])
    current().use_data("co2", "from the package statsmodels")
    return Series("co2", days, int(np.searchsorted(days, CO2_TEST)), carry_forward(values))


def _shipped_rows(name: str, wanted: int) -> list[list[str]]:
    """The rows of one of statsmodels' files of two columns, without the names above them."""
    path = shipped("statsmodels", "statsmodels", name, "datasets", name, f"{name}.csv")
    try:
        lines = path.read_text(encoding="ascii").split()[1:]
        rows = [line.split(",") for line in lines]
        if len(rows) != wanted or any(len(row) != 2 for row in rows):
            raise ValueError(f"{len(rows)} rows where {wanted} of two cells should be")
        for time, value in rows:
            int(time)
            float(value or 0)
    except (OSError, ValueError) as error:
        raise _damaged(path, error, "statsmodels") from None
    return rows


def load_goog() -> Series:
    """Google's price at the end of each trading day, August 2004 to October 2008 (1,047 days).

    The test part is the second half. Read from matplotlib's sample data.
    """
    path = shipped("matplotlib", "matplotlib", "goog", "mpl-data", "sample_data", "goog.npz")
    try:
        with np.load(path) as file:
            table = file["price_data"]
        dates = table["date"].astype("datetime64[D]")
        close = table["adj_close"].astype(np.float64)
        if len(close) != 1047:
            raise ValueError(f"{len(close)} days where 1047 should be")
    # a file that is no archive: BadZipFile, UnpicklingError and others
    except Exception as error:
        raise _damaged(path, error, "matplotlib") from None
    current().use_data("goog", "from the package matplotlib")
    return Series("GOOG", dates, len(close) // 2, close)


def _damaged(path: Path, error: Exception, project: str) -> LessonError:
    return LessonError(
        f"{path} is damaged ({' '.join(str(error).split())[:200]}). Install it again: "
        f"python -m pip install --force-reinstall --no-deps {project}"
    )


def read_prices(path: Path, column: str | None = None) -> Series:
    """The daily prices of one CSV in the order of time; the test part is the second half.

    The column of prices is `column`, else the adjusted close, else the close. An adjusted price has
    no jump where shares were split. Raises LessonError, with one sentence, for anything that is no
    series of prices above 0, a single one on each day, without gaps.
    """
    cells, notes = read_any_csv(path, keep=column)
    for note in notes:
        print(f"  note: {note}")
    name = _price_column(list(cells), path, column)
    day_names = [title for title in cells if DATE.search(title)]
    if not day_names:
        raise LessonError(f"{path} has no column Date. It has {_listed(cells)}.")

    days = _days(cells[day_names[0]])
    prices, _ = to_numbers(cells[name])
    wrong = days.isna() | ~np.isfinite(prices) | (prices <= 0)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        title, wanted = (name, "a price above 0")
        if np.isnan(days.iloc[row]):
            title, wanted = (day_names[0], "a date")
        cell = cells[title].iloc[row]
        held = "is empty" if not isinstance(cell, str) else f"is “{cell}”"
        raise LessonError(
            f"row {row + 1} of {path}: {title} {held}, and must be {wanted}. "
            "Leave the row out, or fill the cell from the days before it."
        )
    order = np.argsort(days.to_numpy(), kind="stable")
    dates = days.to_numpy()[order].astype("datetime64[D]")
    _check_days(dates, path)
    print(f"  {len(dates)} days, {dates[0]} to {dates[-1]}, of the column {name}")
    return Series(path.stem, dates, len(dates) // 2, prices.to_numpy(dtype=np.float64)[order])


def _days(cells: "pd.Series") -> "pd.Series":
    """Days since 1970, NaN where a cell is no date. Months may be words, as in 19-Sep-03."""
    import pandas as pd

    days, _ = to_dates(cells)
    if days.notna().any():
        return days
    times = pd.to_datetime(cells, format="%d-%b-%y", errors="coerce")
    return (times - pd.Timestamp(0)) / pd.Timedelta(days=1)


def _price_column(names: list[str], path: Path, column: str | None) -> str:
    if column is not None:
        if column not in names:
            raise LessonError(f"{path} has no column {column}. It has {_listed(names)}.")
        return column
    for pattern in (ADJUSTED, CLOSE):
        found = [name for name in names if pattern.search(name)]
        if len(found) == 1:
            return found[0]
        if found:
            raise LessonError(
                f"{path} has several columns of prices: {_listed(found)}. Name one with --column."
            )
    raise LessonError(
        f"{path} has no column Close. Name the column of prices with --column; "
        f"it has {_listed(names)}."
    )


def _listed(names) -> str:
    return ", ".join(map(str, names))[:200]


def _check_days(dates: np.ndarray, path: Path) -> None:
    if len(dates) < LEAST_DAYS:
        raise LessonError(
            f"{path} holds {len(dates)} days, and {LEAST_DAYS} are needed: half of them to learn "
            "from, half to judge by."
        )
    steps = np.diff(dates).astype(int)
    if (steps == 0).any():
        day = dates[int(np.flatnonzero(steps == 0)[0])]
        raise LessonError(
            f"{path} has the day {day} twice. Keep the rows of one share, and one row a day."
        )
    # Weekends and holidays are no gap: ten times the usual step is.
    longest = int(np.argmax(steps))
    if steps[longest] > 10 * np.median(steps):
        raise LessonError(
            f"{path} has a gap: no price between {dates[longest]} and {dates[longest + 1]}. "
            "Take the rows on one side of it."
        )
