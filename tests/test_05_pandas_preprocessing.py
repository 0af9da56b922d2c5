"""Lesson 1.5: what its functions promise beyond what the lesson itself claims."""

import numpy as np
import pandas as pd
import pytest

from common.lessons import load_lesson

preprocessing = load_lesson("phase01_data_science/05-pandas-preprocessing")


@pytest.mark.parametrize("value", [0.1, 0.7, 3.3, 0.0])
@pytest.mark.parametrize("rows", [3, 75, 150])
def test_a_constant_column_keeps_its_size(value: float, rows: int) -> None:
    """np.std of equal numbers is often 1e-16 instead of 0."""
    scaler = preprocessing.Scaler().fit(np.full((rows, 2), value))
    assert abs(scaler.transform(np.full((1, 2), value))).max() < 1e-9
    assert abs(scaler.transform(np.full((1, 2), value + 1))).max() == pytest.approx(1)


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


def test_with_a_fold_for_each_row_the_code_gives_its_label_away() -> None:
    """The note's warning: in one category the ones have the lower code."""
    y = np.random.default_rng(0).integers(2, size=60)
    codes = preprocessing.out_of_fold(np.zeros(60, int), y, np.arange(60))
    assert codes[y == 1].max() < codes[y == 0].min()


@pytest.mark.parametrize("seed", range(5))
def test_a_mean_of_all_rows_fills_gaps_as_well_as_one_of_training_rows(seed: int) -> None:
    """The note: imputing before the split is the same mistake, but too small to see here."""
    differences = []
    for _, feature, y, train in preprocessing.coin_tosses(preprocessing.Config(seed=seed)):
        gaps = np.arange(len(y)) % 5 == 0
        scores = []
        for learnt_from in (~gaps, ~gaps & train):
            filled = np.where(gaps, feature[learnt_from].mean(), feature)
            scores.append(preprocessing.accuracies(np.c_[filled], y, train)[1])
        differences.append(scores[0] - scores[1])
    assert abs(np.mean(differences)) < 0.02


def test_the_pipeline_learns_nothing_when_it_transforms() -> None:
    numbers = [1.0, 2, np.nan, 4]
    frame = pd.DataFrame({"x": numbers, "place": ["hill", "lake", None, "hill"]})
    pipeline = preprocessing.Pipeline(["x"], ["place"]).fit(frame)
    before = pipeline.transform(frame)
    pipeline.transform(frame.assign(x=1000.0, place="moon"))
    assert np.array_equal(pipeline.transform(frame), before)
