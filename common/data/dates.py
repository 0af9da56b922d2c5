"""Dates as people write them, each with its ISO form: generated, so that nothing is ambiguous."""

import string
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import torch
from torch import Tensor

from common.config import LessonConfig
from common.errors import LessonError
from common.record import current

FIRST, LAST = date(1950, 1, 1), date(2049, 12, 31)
MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
FORMS = (
    "{day} {month} {year}",
    "{month} {day}, {year}",
    "{day}{th} of {month} {year}",
    "{weekday} {day} {mon} {year}",
    "{number:02d}/{day:02d}/{year}",  # with strokes the month stands first
    "{day}.{number}.{year}",  # with points the day does
    "day after {day} {mon} {year}",
    "day after {mon} {day}, {year}",
    "day after {day}.{number}.{year}",
    "eve of {day} {mon} {year}",  # the day before
    "eve of {mon} {day}, {year}",
    "eve of {number:02d}/{day:02d}/{year}",
)
OTHER_FORM = "{year}, {month} {day}"  # no row of the three parts is written like this

# The symbols of both sides, by number: what fills up a row, what starts and ends an answer, signs.
PAD, START, END = 0, 1, 2
ALPHABET = string.digits + string.ascii_letters + " ,.-/'"
SYMBOLS = 3 + len(ALPHABET)
WRITTEN_LENGTH, ISO_LENGTH = 22, 11  # day after Sep 30, 1998; 1998-10-01 and END

TRAIN_ROWS, VAL_ROWS, TEST_ROWS = 16_000, 1000, 1000
TINY_ROWS = (400, 60, 60)


@dataclass(frozen=True)
class DateSet:
    """x: (n, 22) what is written, filled up with PAD. y: (n, 11) the ISO form, then END. int64."""

    x_train: Tensor
    y_train: Tensor
    x_val: Tensor
    y_val: Tensor
    _test: tuple[Tensor, Tensor]

    def test(self) -> tuple[Tensor, Tensor]:
        """Read it once, at the end: it measures nothing more once something was chosen by it."""
        current().read_test(*(part.cpu().numpy() for part in self._test))
        return self._test

    def fingerprints(self) -> tuple[Tensor, Tensor, Tensor]:
        """The ISO forms of each part, for `no_leak`: no date may stand in two of them."""
        return self.y_train, self.y_val, self._test[1]


def load_dates(cfg: LessonConfig) -> DateSet:
    """Rows in a random one of the twelve forms, of dates from 1950 to 2049, drawn with cfg.seed.

    All on the device that cfg names.

    The days, not only the rows, are split: 60 % of them may be the answer in training, 20 % in
    validation, 20 % in the test part, and none in two. Half of the forms name the day before or
    after: then characters of the answer may stand nowhere in the text.

    Copying the answer of the most similar training row is never right, since that day is not among
    them (0.84 of its characters are). A linear model on pairs of neighbouring characters,
    `linear_answers`, gets about half of the days.
    """
    rng = cfg.rng()
    days = rng.permutation((LAST - FIRST).days + 1)
    first, second = 6 * len(days) // 10, 8 * len(days) // 10
    sizes = TINY_ROWS if cfg.tiny else (TRAIN_ROWS, VAL_ROWS, TEST_ROWS)
    parts = []
    for pool, rows in zip((days[:first], days[first:second], days[second:]), sizes):
        chosen = [FIRST + timedelta(days=int(number)) for number in pool[:rows]]
        forms = [FORMS[number] for number in rng.integers(len(FORMS), size=rows)]
        x, y = _encode_rows(chosen, forms)
        parts.append((x.to(cfg.torch_device()), y.to(cfg.torch_device())))
    current().use_data("generated", f"{sum(sizes)} dates, seed {cfg.seed}")
    (x_train, y_train), (x_val, y_val), test = parts
    return DateSet(x_train, y_train, x_val, y_val, test)


def other_form(cfg: LessonConfig) -> tuple[Tensor, Tensor]:
    """900 dates in a form that no part holds, the year in front: x (900, 22), y (900, 11)."""
    days = [FIRST + timedelta(days=40 * number) for number in range(900)]
    x, y = _encode_rows(days, [OTHER_FORM] * len(days))
    return x.to(cfg.torch_device()), y.to(cfg.torch_device())


def linear_answers(data: DateSet, x: Tensor) -> Tensor:
    """The baseline: answers (n, 11) to x (n, 22) by a linear model on pairs of neighbours.

    Ridge regression from how often each pair stands in the text to each place of the answer.
    """
    train = _pairs(data.x_train)
    used = train.sum(dim=0) > 0
    train = train[:, used]
    wanted = torch.nn.functional.one_hot(data.y_train, SYMBOLS).flatten(1).float()
    ridge = torch.eye(train.shape[1], device=train.device)
    weights = torch.linalg.solve(train.T @ train + ridge, train.T @ wanted)
    scores = _pairs(x)[:, used] @ weights
    return scores.reshape(len(x), ISO_LENGTH, SYMBOLS).argmax(dim=-1)


def _pairs(x: Tensor) -> Tensor:
    """How often each pair of symbols stands in each row: (n, S) -> (n, SYMBOLS²)."""
    numbers = SYMBOLS * x[:, :-1] + x[:, 1:]
    counts = torch.zeros(len(x), SYMBOLS**2, device=x.device)
    return counts.scatter_add(1, numbers, torch.ones(numbers.shape, device=x.device))


def _encode_rows(days: Sequence[date], forms: Sequence[str]) -> tuple[Tensor, Tensor]:
    written = [write(day, form) for day, form in zip(days, forms)]
    iso = encode([day.isoformat() for day in days], ISO_LENGTH, end=True)
    return encode(written, WRITTEN_LENGTH), iso


def write(day: date, form: str) -> str:
    """The day in one of the FORMS: date(1998, 3, 1) is 1st of March 1998, or eve of 2 Mar 1998."""
    if form.startswith("eve of"):
        day += timedelta(days=1)
    if form.startswith("day after"):
        day -= timedelta(days=1)
    month = MONTHS[day.month - 1]
    is_teen = 11 <= day.day <= 13
    th = "th" if is_teen else {1: "st", 2: "nd", 3: "rd"}.get(day.day % 10, "th")
    return form.format(
        day=day.day,
        th=th,
        number=day.month,
        month=month,
        mon=month[:3],
        weekday=WEEKDAYS[day.weekday()],
        year=day.year,
    )


def encode(texts: Sequence[str], length: int, end: bool = False) -> Tensor:
    """Texts -> (n, length) numbers of symbols, filled up with PAD; on request with END behind them.

    Raises LessonError for a text that is empty, too long, or holds a sign that is no symbol.
    """
    numbers = {sign: 3 + place for place, sign in enumerate(ALPHABET)}
    rows = torch.full((len(texts), length), PAD)
    for row, text in zip(rows, texts):
        unknown = [sign for sign in text if sign not in numbers]
        if unknown:
            raise LessonError(
                f"“{text}” holds the sign “{unknown[0]}”, which the model has no symbol for. "
                "It reads English letters, figures, blanks and , . - / '"
            )
        if not text.strip():
            raise LessonError("there is no text to read: give a date such as “3 March 1998”.")
        symbols = [numbers[sign] for sign in text] + [END] * end
        if len(symbols) > length:
            raise LessonError(
                f"“{text}” has {len(text)} characters, and the model reads {length - end} at most."
            )
        row[: len(symbols)] = torch.tensor(symbols)
    return rows


def decode(row: Sequence[int] | Tensor) -> str:
    """Numbers of symbols -> text, up to the first END; PAD and START give nothing."""
    text = ""
    for number in map(int, row):
        if number == END:
            break
        if number > END:
            text += ALPHABET[number - 3]
    return text
