"""A CSV of which nothing is known but its path, or one sentence on why it is no table."""

import csv
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import LessonError

if TYPE_CHECKING:
    from pandas import DataFrame

MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}  # how such a file may begin


def read_any_csv(
    path: Path,
    *,
    encoding: str | None = None,
    separator: str | None = None,
    columns: int = 50,
    rows: int = 100_000,
    keep: str | None = None,
) -> "tuple[DataFrame, list[str]]":
    """The first `rows` rows and `columns` columns, and the column `keep`, as strings; remarks on what was left out.

    Raises LessonError for what cannot be read, has one column, two of one name, rows of unequal length, none.
    """
    import pandas as pd

    path = Path(path).expanduser()
    encoding = encoding or _encoding(path)
    try:
        with open(path, encoding=encoding, newline="") as file, warnings.catch_warnings():
            separator = separator or max(
                ",;\t|", key=next(line for line in file if line.strip()).count
            )
            file.seek(0)
            names = next(row for row in csv.reader(file, delimiter=separator) if any(row))
            names = [name.strip() or f"column {place}" for place, name in enumerate(names, 1)]
            _check_names(path, names)
            wanted = [place for place, name in enumerate(names) if place < columns or name == keep]
            warnings.simplefilter(
                "error", pd.errors.ParserWarning
            )  # rows longer than the names would lose cells
            frame = pd.read_csv(
                path,
                sep=separator,
                encoding=encoding,
                dtype=str,
                skipinitialspace=True,
                index_col=False,
                nrows=rows + 1,
                usecols=wanted if len(wanted) < len(names) else None,
            )
    except OSError as error:
        raise LessonError(
            f"{path} cannot be read ({error.strerror}). Give the path of a CSV file."
        ) from None
    except UnicodeError:
        raise LessonError(
            f"{path} is not {encoding} text. Say what it is, for example --encoding gb18030 or "
            "--encoding latin-1, or save it as UTF-8."
        ) from None
    except LookupError:
        raise LessonError(
            f"there is no encoding {encoding}. Try utf-8, utf-16, gb18030 or latin-1."
        ) from None
    except (TypeError, ValueError, csv.Error, pd.errors.ParserWarning) as error:
        raise LessonError(
            f"{path} cannot be read as a table ({' '.join(str(error).split())[:150]}). Every row needs "
            "as many cells as the first; if they are not separated by commas, say --separator."
        ) from None
    frame.columns = [names[place] for place in wanted]
    notes = []
    if len(wanted) < len(names):
        notes.append(
            f"{len(names) - len(wanted)} of {len(names)} columns are left out; --columns NUMBER shows more."
        )
    if len(frame) > rows:
        notes.append(f"Only the first {rows} rows were read; --rows NUMBER reads more.")
    frame = frame.head(rows).dropna(how="all").reset_index(drop=True)
    if frame.empty:
        raise LessonError(f"{path} has names but no rows. Add the rows, or export the file again.")
    return frame, notes


def _encoding(path: Path) -> str:
    """What the first bytes say, else UTF-8. Raises LessonError for an empty file and for what is not text."""
    try:
        with open(path, "rb") as file:
            head = file.read(1 << 16)
    except OSError as error:
        raise LessonError(
            f"{path} cannot be read ({error.strerror}). Give the path of a CSV file."
        ) from None
    if not head.strip():
        raise LessonError(f"{path} is empty. Give a CSV with a line of names and rows below it.")
    encoding = next((name for mark, name in MARKS.items() if head.startswith(mark)), "utf-8")
    if b"\0" in head and encoding != "utf-16":
        raise LessonError(
            f"{path} is not a text file. If it is a workbook, save it as CSV in the program it is from; "
            "if it is text after all, say its --encoding."
        )
    return encoding


def _check_names(path: Path, names: list[str]) -> None:
    if len(names) < 2:
        raise LessonError(
            f"{path} has only one column, {names[0][:60]!r}. A report needs two or more; if the cells "
            "are separated by something unusual, say so with --separator."
        )
    if len(set(names)) < len(names):
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise LessonError(
            f"{path} has two columns named {twice[:60]!r}. Give each a name of its own in the first "
            "line; if the file has no line of names, add one."
        )
