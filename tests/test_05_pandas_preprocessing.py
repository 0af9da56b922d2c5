"""Lesson 1.5: what its functions promise beyond what the lesson itself claims."""

import numpy as np
import pandas as pd
import pytest

from common.lessons import load_lesson

preprocessing = load_lesson("phase01_data_science/05-pandas-preprocessing")


def test_ten_spreads_are_not_yet_too_far() -> None:
    x = np.array([[1.0], [2], [3], [4], [5]])  # middle 3, spread 1
    cleaner = preprocessing.Cleaner().fit(x)
    blanked = cleaner.blank(np.array([[13.0], [13.1], [-7], [-7.1]]))
    assert np.isnan(blanked).ravel().tolist() == [False, True, False, True]


def test_nothing_is_blanked_in_a_column_that_is_mostly_equal() -> None:
    x = np.array([[0.0], [0], [0], [5]])
    assert not np.isnan(preprocessing.Cleaner().fit(x).blank(x)).any()


@pytest.mark.parametrize("value", [0.1, 0.7, 3.3, 0.0])
@pytest.mark.parametrize("rows", [3, 75, 150])
def test_a_constant_column_keeps_its_size(value: float, rows: int) -> None:
    """np.std of equal numbers is often 1e-16 instead of 0."""
    scaler = preprocessing.Scaler().fit(np.full((rows, 2), value))
    assert abs(scaler.transform(np.full((1, 2), value))).max() < 1e-9
    assert abs(scaler.transform(np.full((1, 2), value + 1))).max() == pytest.approx(1)


def test_a_category_that_is_missing_or_new_gets_zeros() -> None:
    encoder = preprocessing.OneHot().fit(pd.Series(["lake", "hill", None, "lake"]))
    codes = encoder.transform(pd.Series(["lake", "moon", None, "hill"]))
    assert codes.tolist() == [[0, 1], [0, 0], [0, 0], [1, 0]]


def test_months_are_equally_far_apart() -> None:
    places = preprocessing.on_circle(np.arange(1, 13))
    steps = np.linalg.norm(places - np.roll(places, 1, axis=0), axis=1)
    assert np.allclose(steps, 2 * np.sin(np.pi / 12))


def test_a_code_out_of_fold_does_not_know_its_own_label() -> None:
    rng = np.random.default_rng(0)
    category = rng.integers(10, size=60)
    y = rng.integers(2, size=60)
    fold = np.arange(60) % 5
    codes = preprocessing.out_of_fold(category, y, fold)
    for row in range(60):
        changed = y.copy()
        changed[row] = 1 - y[row]
        assert preprocessing.out_of_fold(category, changed, fold)[row] == codes[row]


def test_the_pipeline_learns_nothing_when_it_transforms() -> None:
    numbers = [1.0, 2, np.nan, 4]
    frame = pd.DataFrame({"x": numbers, "place": ["hill", "lake", None, "hill"]})
    pipeline = preprocessing.Pipeline(["x"], ["place"]).fit(frame)
    before = pipeline.transform(frame)
    pipeline.transform(frame.assign(x=1000.0, place="moon"))
    assert np.array_equal(pipeline.transform(frame), before)
