"""Generated dates: written as people write them, split by day, and texts that are no dates."""

from datetime import date

import pytest
import torch

from common import record
from common.config import LessonConfig
from common.data import dates
from common.data.dates import END, FORMS, ISO_LENGTH, OTHER_FORM, PAD, WRITTEN_LENGTH
from common.errors import LessonError

WRITTEN = [
    (date(1998, 3, 3), "3 March 1998"),
    (date(1998, 3, 4), "March 4, 1998"),
    (date(1998, 3, 3), "3rd of March 1998"),
    (date(2024, 2, 29), "Thu 29 Feb 2024"),
    (date(1998, 3, 14), "03/14/1998"),
    (date(1998, 3, 14), "14.3.1998"),
    (date(1998, 3, 1), "day after 28 Feb 1998"),
    (date(2000, 1, 1), "day after Dec 31, 1999"),
    (date(2024, 3, 1), "day after 29.2.2024"),
    (date(2024, 2, 29), "eve of 1 Mar 2024"),
    (date(1999, 12, 31), "eve of Jan 1, 2000"),
    (date(1998, 3, 13), "eve of 03/14/1998"),
]


@pytest.fixture(scope="module")
def split() -> dates.DateSet:
    record.start(tiny=True)
    return dates.load_dates(LessonConfig(tiny=True, device="cpu"))


@pytest.mark.parametrize("number", range(len(FORMS)))
def test_each_form(number):
    day, text = WRITTEN[number]
    assert dates.write(day, FORMS[number]) == text


@pytest.mark.parametrize("day, ending", [(1, "st"), (2, "nd"), (12, "th"), (21, "st"), (30, "th")])
def test_the_ending_of_a_number(day, ending):
    assert dates.write(date(2000, 1, day), FORMS[2]) == f"{day}{ending} of January 2000"


def test_every_written_date_fits():
    for form in (*FORMS, OTHER_FORM):
        longest = max((dates.write(date(2000, 9, day), form) for day in (29, 30)), key=len)
        assert len(longest) <= WRITTEN_LENGTH, longest


def test_no_two_days_look_alike_in_any_form():
    seen = {}
    for number in range(0, (dates.LAST - dates.FIRST).days, 7):
        day = date.fromordinal(dates.FIRST.toordinal() + number)
        for form in FORMS:
            assert seen.setdefault(dates.write(day, form), day) == day


def test_shapes_and_ends(split):
    assert split.x_train.shape == (400, WRITTEN_LENGTH) and split.y_train.shape == (400, ISO_LENGTH)
    assert (split.y_train[:, -1] == END).all() and not (split.y_train == PAD).any()
    for row in split.y_train[:50]:
        date.fromisoformat(dates.decode(row))


def test_days_are_split_not_only_rows(split):
    parts = [{dates.decode(row) for row in part} for part in split.fingerprints()]
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
    assert [len(part) for part in parts] == [400, 60, 60]


def test_the_same_seed_gives_the_same_rows(split):
    again = dates.load_dates(LessonConfig(tiny=True, device="cpu"))
    other = dates.load_dates(LessonConfig(tiny=True, device="cpu", seed=1))
    assert torch.equal(again.x_train, split.x_train) and torch.equal(again.y_val, split.y_val)
    assert not torch.equal(other.y_train, split.y_train)


def test_reads_of_the_test_part_are_counted():
    record.start(tiny=True)
    split = dates.load_dates(LessonConfig(tiny=True, device="cpu"))
    split.fingerprints()
    assert record.current().test_reads == 0
    split.test()
    split.test()
    assert record.current().test_reads == 2


def test_the_other_form_is_in_no_part(split):
    x, y = dates.other_form(LessonConfig(device="cpu"))
    assert dates.decode(x[0]) == "1950, January 1" and dates.decode(y[0]) == "1950-01-01"
    written = {dates.decode(row) for row in split.x_train}
    assert not written & {dates.decode(row) for row in x}


def test_there_and_back():
    rows = dates.encode(["9.9.2005", "a, b"], 10, end=True)
    assert rows.dtype == torch.int64 and (rows[1, 5:] == PAD).all() and rows[1, 4] == END
    assert [dates.decode(row) for row in rows] == ["9.9.2005", "a, b"]
    assert dates.decode([1, 3, 2, 4]) == "0"


@pytest.mark.parametrize(
    "text, words",
    [
        ("3. März 1998", "the sign “ä”"),
        ("1998年3月3日", "the sign “年”"),
        ("", "no text to read"),
        ("   ", "no text to read"),
        ("the thirtieth of September 1998", "has 31 characters"),
        ("3 March\n1998", "has no symbol for"),
    ],
)
def test_a_text_that_it_cannot_read(text, words):
    with pytest.raises(LessonError) as caught:
        dates.encode([text], WRITTEN_LENGTH)
    assert words in str(caught.value)


def test_copying_the_nearest_row_is_no_answer(split):
    """No day of validation stands in training, so the nearest row has another day's answer."""
    letters = torch.nn.functional.one_hot(split.x_train, dates.SYMBOLS).float().sum(dim=1)
    asked = torch.nn.functional.one_hot(split.x_val, dates.SYMBOLS).float().sum(dim=1)
    nearest = torch.cdist(asked, letters).argmin(dim=1)
    copied = split.y_train[nearest]
    assert not (copied == split.y_val).all(dim=1).any()
    assert 0.4 < (copied == split.y_val).float().mean() < 0.9
