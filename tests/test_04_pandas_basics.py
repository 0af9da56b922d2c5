"""Lesson 1.4: what its functions promise beyond what the lesson itself claims."""

from datetime import date

import numpy as np
import pandas as pd
import pytest

from common.lessons import load_lesson

basics = load_lesson("phase01_data_science/04-pandas-basics")


def test_two_values_for_a_cell_are_refused() -> None:
    with pytest.raises(ValueError, match="two values for row ana, column age"):
        basics.pivot([("ana", "age", 1), ("bo", "age", 2), ("ana", "age", 3)])


def test_every_missing_key_is_left_out() -> None:
    keys = ["a", None, np.nan, pd.NaT, "a"]
    assert basics.group_by(keys, [1.0, 2, 3, 4, np.nan], sum) == {"a": 1}


def test_one_day_makes_one_week() -> None:
    sunday = date(2024, 3, 10)
    assert basics.week_sums([sunday], [3.0]) == {sunday: 3}
    assert basics.week_sums([date(2024, 3, 4)], [3.0]) == {sunday: 3}


def test_weeks_come_in_order_also_when_the_days_do_not() -> None:
    days = [date(2024, 3, 20), date(2024, 3, 1)]
    sums = basics.week_sums(days, [2.0, 1.0])
    sundays = [date(2024, 3, 3), date(2024, 3, 10), date(2024, 3, 17), date(2024, 3, 24)]
    assert list(sums.items()) == list(zip(sundays, [1, 0, 0, 2]))


def test_a_group_without_a_known_value() -> None:
    """What the function makes of an empty list is the result."""
    frame = pd.DataFrame({"key": ["a", "b"], "value": [np.nan, 2.0]})
    ours, pandas_ = basics.both_groupbys(frame, "key", ["value"])
    assert np.allclose(ours, pandas_, equal_nan=True)
    assert np.isnan(basics.mean([])) and np.isnan(basics.largest([]))


def test_equal_indexes_do_not_multiply_different_ones_do() -> None:
    """As the note says of labels that stand twice."""
    twice = pd.Series([1, 2], index=["bo", "bo"])
    assert len(twice + twice) == 2
    assert len(twice + pd.Series([1, 2, 3], index=["bo", "bo", "dee"])) == 5
