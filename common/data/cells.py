"""What is written in the cells of a column: numbers and dates, in the forms people use."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pandas import Series

MOSTLY = 0.9  # the share of cells that must fit before a form is believed
SIGNS = "$€£¥₹%"
ENGLISH = r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"  # 1,200.50
CONTINENTAL = r"[-+]?(?:\d{1,3}(?:\.\d{3})+|\d+)(?:,\d+)?"  # 1.200,50
DATES = {
    "ISO8601": "year-month-day",
    "%Y/%m/%d": "year/month/day",
    "%d.%m.%Y": "day.month.year",
    "%d.%m.%y": "day.month.year",
    "%m/%d/%Y": "month/day/year",
    "%d/%m/%Y": "day/month/year",
    "%m/%d/%y": "month/day/year",
    "%d/%m/%y": "day/month/year",
    "%b %d, %Y": "month day, year",
    "%B %d, %Y": "month day, year",
    "%d %b %Y": "day month year",
    "%d %B %Y": "day month year",
    "%d-%b-%Y": "day-month-year",
    "%Y年%m月%d日": "年月日",
}
# Forms that many cells fit alike, with another meaning.
SWAPPED = {
    "%m/%d/%Y": "%d/%m/%Y",
    "%d/%m/%Y": "%m/%d/%Y",
    "%m/%d/%y": "%d/%m/%y",
    "%d/%m/%y": "%m/%d/%y",
}
TIME = r"[ T]+(\d{1,2}):(\d{2})(?::(\d{2}(?:\.\d+)?))? *([AaPp][Mm])?$"


def to_numbers(cells: "Series") -> "tuple[Series, str]":
    """Strings (n,) as floats, NaN where a cell is no number; and a remark on the reading.

    Codes are no numbers: where one cell of a column of whole numbers has a leading zero (a ZIP
    code) or sixteen digits (a card), all of it is NaN. Nor is anything beyond 1e100, which would
    make every mean useless.
    """
    import pandas as pd

    plain = pd.to_numeric(cells, errors="coerce").astype(float)
    plain = plain.where(plain.abs() < 1e100)
    if is_whole(plain.dropna()):
        if cells.str.match(r"[-+]?0\d+$").any():
            return plain * float(
                "nan"
            ), "it has leading zeros, so it is read as codes, not as amounts"
        if cells.str.match(r"\d{16,}$").any():
            return plain * float("nan"), "it has 16 digits or more, so it is read as codes"
    if plain.notna().all() or not _has_digits(cells):
        return plain, ""
    return _with_signs(cells, plain)


def _some(cells: "Series") -> "Series":
    return cells.sample(min(len(cells), 300), random_state=0)


def _has_digits(cells: "Series") -> bool:
    return bool(_some(cells).str.contains(r"\d").any())


def _with_signs(cells: "Series", plain: "Series") -> "tuple[Series, str]":
    """Numbers with currency signs, percent, grouped thousands, a decimal comma, or in brackets."""
    import pandas as pd

    bare = cells.str.replace(rf"[{SIGNS}\s]", "", regex=True).str.replace("−", "-")
    # an accountant's (1,200) is -1200
    bare = bare.str.replace(r"^\((.+)\)$", r"-\1", regex=True)

    english = bare.where(bare.str.fullmatch(ENGLISH)).str.replace(",", "")
    english = plain.fillna(pd.to_numeric(english, errors="coerce"))
    comma = bare.where(bare.str.fullmatch(CONTINENTAL))
    comma = comma.str.replace(".", "", regex=False).str.replace(",", ".", regex=False)
    comma = pd.to_numeric(comma, errors="coerce").astype(float)

    remarks = []
    if comma.count() > english.count():
        numbers = comma
        remarks.append("its commas are read as decimal points")
    else:
        numbers = english
        both = numbers.notna() & comma.notna() & (numbers != comma)
        if both.any() and comma.count() == numbers.count():
            first = both.idxmax()
            remarks.append(
                f"{cells[first]} is read as {numbers[first]:g}; {comma[first]:g} would fit as well"
            )
    read = cells[numbers.notna()]
    signs = [sign for sign in SIGNS if read.str.contains(sign, regex=False).any()]
    if signs:
        remarks.append(f"read without its signs {' '.join(signs)}")
    if "%" in signs:
        remarks.append("45% as 45")
    return numbers, ", ".join(remarks)


def is_whole(numbers: "Series") -> bool:
    """Whether there are numbers, and none has a fraction."""
    return len(numbers) > 0 and bool((numbers % 1 == 0).all())


def are_days(numbers: "Series") -> bool:
    """Whether all of them could be days written as eight digits, such as 20240105."""
    return is_whole(numbers) and bool(numbers.between(1900_01_01, 2099_12_31).all())


def to_dates(cells: "Series") -> "tuple[Series, str]":
    """Strings (n,) as days since 1970, NaN where a cell is no date; and a remark on the reading.

    The form that fits most cells is taken, then one more for the rest, but never month/day and
    day/month in one column.
    """
    import pandas as pd

    if not _has_digits(cells):
        return pd.Series(float("nan"), cells.index), ""
    some = _without_time(_some(cells))
    every = None
    fits = {}
    for form in DATES:
        # a form that fits none of these is none of this column's
        if _days(*some, form).notna().any():
            every = every or _without_time(cells)
            fits[form] = _days(*every, form)
    if not fits:
        return pd.Series(float("nan"), cells.index), ""

    order = sorted(fits, key=lambda form: -fits[form].count())
    best = order[0]
    days = fits[best]
    remarks = []
    if _fits_as_well(fits, best, days):
        remarks.append(f"read as {DATES[best]}; {DATES[SWAPPED[best]]} would fit as well")

    for form in order[1:]:
        late = fits[form][days.isna()].dropna()
        if len(late) == 0 or form == SWAPPED.get(best):
            continue
        remark = f"{len(late)} of its dates are written differently, such as "
        remark += f"“{cells[late.index[0]]}”, read as {DATES[form]}"
        if _fits_as_well(fits, form, late):
            remark += f"; {DATES[SWAPPED[form]]} would fit as well"
        remarks.append(remark)
        days = days.fillna(late)
        break
    return days, "; ".join(remarks)


def _fits_as_well(fits: "dict[str, Series]", form: str, days: "Series") -> bool:
    """Whether every cell that was read in this form can be read with day and month swapped."""
    swapped = fits.get(SWAPPED.get(form, ""))
    return swapped is not None and bool(swapped[days.dropna().index].notna().all())


def _without_time(cells: "Series") -> "tuple[Series, Series, Series]":
    """The cells (n,), the same without a time of the day behind them, and that as part of a day."""
    import pandas as pd

    time = cells.str.extract(TIME)
    hours = pd.to_numeric(time[0])
    afternoon = time[3].str.lower().map({"am": 0, "pm": 12})
    hours = hours.where(afternoon.isna(), hours % 12 + afternoon)
    clock = hours / 24 + pd.to_numeric(time[1]) / 1440 + pd.to_numeric(time[2]).fillna(0) / 86400
    return cells, cells.str.replace(TIME, "", regex=True), clock.fillna(0)


def _days(cells: "Series", dates: "Series", clock: "Series", form: str) -> "Series":
    """Days since 1970, of what _without_time gives; NaN where this form does not fit."""
    import pandas as pd

    if form == "ISO8601":
        parsed = pd.to_datetime(cells, format=form, errors="coerce", utc=True).dt.tz_localize(None)
        return _since_1970(parsed)
    return _since_1970(pd.to_datetime(dates, format=form, errors="coerce")) + clock


def _since_1970(times: "Series") -> "Series":
    import pandas as pd

    # in seconds, for nanoseconds end in the year 2262
    passed = times.dt.as_unit("s") - pd.Timestamp(0).as_unit("s")
    return passed / pd.Timedelta(days=1)
