"""A CSV of which nothing is known but its path, or one sentence on why it is no table.

The bytes are read once, so a pipe will do. One parser, Python's csv, reads the names and the cells.
Whatever is left out, filled or taken as missing is counted, and said in a remark.
"""

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import LessonError
from common.record import current

if TYPE_CHECKING:
    from pandas import DataFrame

# How a text file may begin. UTF-32 comes first: its mark begins with that of UTF-16.
MARKS = {
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
SEPARATORS = (",", ";", "\t", "|")
# The words that pandas takes for a missing value.
MISSING = {"NA", "N/A", "n/a", "NaN", "nan", "-NaN", "-nan", "NULL", "null", "None", "<NA>"} | {
    "#N/A",
    "#NA",
    "1.#IND",
    "-1.#IND",
    "1.#QNAN",
    "-1.#QNAN",
}
LARGEST = 1 << 29  # bytes
JUDGED = 50  # rows by which separator, width and header are found
# A row behind the last. If it does not come back as it is, a quotation mark was never closed.
LAST = "\x02END\x03"
LINE_ENDS = "\r\n"
OPEN = "a quotation mark is opened and never closed"


def read_any_csv(
    path: Path,
    *,
    encoding: str | None = None,
    separator: str | None = None,
    columns: int = 50,
    rows: int = 100_000,
    keep: str | None = None,
    keep_words: tuple[str, ...] = (),
) -> "tuple[DataFrame, list[str]]":
    """The first `rows` rows and `columns` columns, and the column `keep`; and remarks.

    Cells are strings without blanks around them, NaN where missing: an empty cell, or one of the
    words in MISSING that is not in `keep_words`. Raises LessonError for what cannot be read, has
    one column, two of one name, no rows, or rows longer than the header in more than one of ten.
    """
    import numpy as np
    import pandas as pd

    path = Path(path).expanduser()
    shown = readable_name(path)
    text = _decode(_read_bytes(path, shown), encoding, shown)
    text, separator, notes = _declared_separator(text, separator)
    separator = separator or _best_separator(text)

    above, names, first_line, body = _split_at_header(text, separator, shown)
    _check_names(names, shown)
    notes += above
    if all(_is_number(name) for name in names):
        notes.append(
            f"The first line is taken for names, though it holds numbers ({', '.join(names)[:50]}"
            "). If it is a row, add a line of names above it."
        )

    cells, ragged = _collect(body, len(names), first_line, rows, shown)
    notes += ragged
    table = np.array(cells, dtype=object).reshape(-1, len(names))

    wanted = [place for place, name in enumerate(names) if place < columns or name == keep]
    if len(wanted) < len(names):
        notes.append(
            f"{len(names) - len(wanted)} of {len(names)} columns are left out; "
            "--columns NUMBER shows more."
        )
    series = {}
    counts: Counter[str] = Counter()
    for place in wanted:
        series[names[place]] = _without_missing(table[:, place], set(keep_words), counts)
    notes += _said_missing(counts)
    frame = pd.DataFrame(series, dtype=object)
    # the search ends at the first cell that is known
    if all(cell is None for column in series.values() for cell in column):
        raise LessonError(f"{shown} has names but no rows. Add the rows, or export the file again.")
    current().use_data(Path(shown).name, shown)
    return frame, notes


def readable_name(path: Path) -> str:
    """A path as text that can be printed and stored, even if the name on disk is not UTF-8."""
    return os.fsencode(path).decode("utf-8", errors="replace")


def _read_bytes(path: Path, shown: str) -> bytes:
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise LessonError(
            f"{shown} cannot be read ({error.strerror}). Give the path of a CSV file."
        ) from None
    if len(content) > LARGEST:
        raise LessonError(
            f"{shown} is larger than {LARGEST >> 20} MiB. Cut a part out of it, for example with "
            "head -n 100000."
        )
    return content


def _decode(content: bytes, encoding: str | None, shown: str) -> str:
    """The text, without a byte order mark, whatever encoding was asked for."""
    if not encoding:
        found = [name for mark, name in MARKS.items() if content.startswith(mark)]
        encoding = found[0] if found else "utf-8"
        if not found and b"\0" in content:
            raise _no_text(shown)
    try:
        text = content.decode(encoding).removeprefix("\ufeff")
    except UnicodeError:
        raise LessonError(
            f"{shown} is not {encoding} text. Say what it is, for example --encoding gb18030 or "
            "--encoding latin-1, or save it as UTF-8."
        ) from None
    except LookupError:
        raise LessonError(
            f"there is no encoding {encoding}. Try utf-8, utf-16, gb18030 or latin-1."
        ) from None
    if not text.strip():
        raise LessonError(f"{shown} is empty. Give a CSV with a line of names and rows below it.")
    if "\0" in text:
        raise _no_text(shown)
    return text


def _no_text(shown: str) -> LessonError:
    return LessonError(
        f"{shown} is not a text file. If it is a workbook, save it as CSV in the program it is "
        "from; if it is text after all, say its --encoding, such as utf-16-le."
    )


def _declared_separator(text: str, separator: str | None) -> tuple[str, str | None, list[str]]:
    """Takes the line `sep=;` away, which some spreadsheet programs write first."""
    first, _, rest = text.partition("\n")
    declared = first.strip('\r" ')
    if declared[:4].lower() != "sep=" or len(declared) > 5:
        return text, separator, []
    note = f"The first line, “{declared}”, names the separator and is no row."
    return rest, separator or declared[4:] or None, [note]


def _parse(text: str, separator: str) -> Iterator[list[str]]:
    """Rows of stripped cells. Raises csv.Error, and TypeError for a separator of two letters."""
    # newline="" also ends lines at a lone \r, and leaves those inside quotation marks alone
    lines = io.StringIO(text, newline="")
    if separator.isspace() and separator != "\t":
        # aligned with blanks: several are one, and those at the ends of a line separate nothing
        lines = (re.sub(r"\s+", separator, line.strip()) for line in lines)
    for row in csv.reader(lines, delimiter=separator, skipinitialspace=not separator.isspace()):
        yield list(map(str.strip, row))


def _sample(text: str, separator: str) -> list[list[str]]:
    """The first rows that hold anything and are no comment."""
    found = []
    try:
        for row in _parse(text, separator):
            if any(row) and not row[0].startswith("#"):
                found.append(row)
            if len(found) == JUDGED:
                break
    except csv.Error:
        # the complaint comes when the whole file is read
        pass
    return found


def _usual_width(rows: list[list[str]]) -> int:
    """The most frequent number of cells; of two equally frequent ones the larger."""
    counts = Counter(len(row) for row in rows)
    return max(counts, key=lambda width: (counts[width], width), default=0)


def _best_separator(text: str) -> str:
    """The one by which the rows have two or more cells and agree in how many.

    First comes whether the first row agrees: a decimal comma cuts all rows but the names. Then how
    many rows agree, in tenths, then the number of cells.
    """
    best, best_score = ",", (False, 0.0, 1)
    for separator in SEPARATORS:
        rows = _sample(text, separator)
        width = _usual_width(rows)
        if width < 2:
            continue
        agreeing = sum(len(row) == width for row in rows) / len(rows)
        score = (len(rows[0]) == width, round(agreeing, 1), width)
        if score > best_score:
            best, best_score = separator, score
    return best


def _split_at_header(
    text: str, separator: str, shown: str
) -> tuple[list[str], list[str], int, Iterator[list[str]]]:
    """Remarks on what stands above the names, the names, and the rows below them."""
    try:
        width = _usual_width(_sample(text, separator))
        rows = _parse(f"{text.rstrip(LINE_ENDS)}\n{LAST}\n", separator)
        skipped: list[str] = []
        row = next(rows)
        following = None
        line = 1
        for following in rows:
            if not any(row):
                line += 1
                row = following
            elif _is_above_header(row, following, width):
                skipped.append(separator.join(row).strip(separator))
                line += 1
                row = following
            else:
                break
    except (csv.Error, TypeError, ValueError) as error:
        raise _unreadable(shown, error) from None

    if following is None:
        raise _unreadable(shown, OPEN)
    if not any(row) or row == [LAST]:
        raise LessonError(f"{shown} has no line of names. Add one above the rows.")
    names = [" ".join(name.split()) or f"column {place}" for place, name in enumerate(row, 1)]
    notes = []
    if skipped:
        lines = "1 line" if len(skipped) == 1 else f"{len(skipped)} lines"
        notes.append(f"{lines} above the names left out: “{skipped[0][:60]}”.")
    return notes, names, line + 1, _with_first(following, rows)


def _with_first(first: list[str], rest: Iterator[list[str]]) -> Iterator[list[str]]:
    yield first
    yield from rest


def _is_above_header(row: list[str], following: list[str], width: int) -> bool:
    """Whether a row is a title or a comment, and not the names."""
    filled = sum(bool(cell) for cell in row)
    if row[0].startswith("#"):
        # "#id,name" is a line of names, "# made on Monday" a remark
        return not (len(row) == width and row[0][1:2].strip())
    if following == [LAST] or width < 2:
        return False
    if len(row) == 1 or (filled == 1 and row[0] and width > 2):
        return True
    short = len(row) < width or filled == 1
    return short and not any(_is_number(cell) for cell in following)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _check_names(names: list[str], shown: str) -> None:
    if len(names) < 2:
        raise LessonError(
            f"{shown} has only one column, {names[0][:60]!r}. A report needs two or more; if the "
            "cells are separated by something unusual, say so with --separator."
        )
    if len(set(names)) < len(names):
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise LessonError(
            f"{shown} has two columns named {twice[:60]!r}. Give each a name of its own in the "
            "first line; if the file has no line of names, add one."
        )


def _collect(
    body: Iterator[list[str]], width: int, first: int, limit: int, shown: str
) -> tuple[list[list[str]], list[str]]:
    """At most `limit` rows, each of `width` cells; and remarks on those that were not so."""
    cells: list[list[str]] = []
    short, long, empty = [], [], []
    ended = full = False
    try:
        for number, row in enumerate(body, first):
            ended = row == [LAST]
            full = len(cells) == limit and not ended
            if ended or full:
                break
            if not any(row):
                empty.append(number)
            elif any(row[width:]):
                long.append(number)
            else:
                if len(row) < width:
                    short.append(number)
                    row = row + [""] * (width - len(row))
                cells.append(row[:width])
    except csv.Error as error:
        raise _unreadable(shown, error) from None

    if not ended and not full:
        raise _unreadable(shown, OPEN)
    if len(long) * 10 > len(cells) + len(long):
        raise _unreadable(shown, f"{len(long)} rows have more cells than there are names")
    remarks = [
        (long, "more cells than there are names, left out"),
        (short, "fewer cells than there are names, filled up as missing"),
        (empty, "no content, left out"),
    ]
    notes = [f"{_rows(numbers)} {what}." for numbers, what in remarks if numbers]
    if full:
        notes.append(f"Only the first {limit} rows were read; --rows NUMBER reads more.")
    return cells, notes


def _rows(numbers: list[int]) -> str:
    places = ", ".join(map(str, numbers[:3]))
    if len(numbers) == 1:
        return f"1 row (number {places} of the file) has"
    more = ", …" if len(numbers) > 3 else ""
    return f"{len(numbers)} rows (number {places}{more} of the file) have"


def _without_missing(column, keep: set[str], counts: Counter[str]) -> list:
    """The cells with None for the missing ones; how often each word stood for one is added up."""
    missing = (MISSING - keep) | {""}
    if missing.isdisjoint(column):
        return list(column)
    counts.update(cell for cell in column if cell and cell in missing)
    return [None if cell in missing else cell for cell in column]


def _said_missing(counts: Counter[str]) -> list[str]:
    if not counts:
        return []
    listed = ", ".join(
        f"“{word}” {number:,} time{'s' * (number > 1)}" for word, number in counts.most_common()
    )
    word = counts.most_common(1)[0][0]
    return [f"Counted as missing: {listed}. Where such a word is a value, say --keep-words {word}."]


def _unreadable(shown: str, error: object) -> LessonError:
    reason = " ".join(str(error).split())[:150]
    return LessonError(
        f"{shown} cannot be read as a table ({reason}). Every row needs as many cells as the "
        "first; if they are not separated by commas, say --separator."
    )
