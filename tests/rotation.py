"""Tests that try one of many take another one every day.

COURSE_TEST_DAY repeats a day that failed.
"""

import datetime
import os


def today() -> int:
    return int(os.environ.get("COURSE_TEST_DAY") or datetime.date.today().toordinal())
