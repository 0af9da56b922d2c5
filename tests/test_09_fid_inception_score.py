"""Lesson 8.9's scores against libraries and slow ways, and what a learner may meet."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from common.config import execute
from common.lessons import load_lesson

lesson = load_lesson("phase08_generative/09-fid-inception-score")


@pytest.mark.parametrize("seed", range(5))
def test_the_score_is_the_exponential_of_a_mean_divergence(seed: int) -> None:
    p = torch.randn(30, 6, generator=torch.Generator().manual_seed(seed)).double().softmax(dim=1)
    classes = torch.distributions.Categorical(probs=p.mean(dim=0))
    answers = torch.distributions.Categorical(probs=p)
    wanted = torch.distributions.kl_divergence(answers, classes).mean().exp()
    torch.testing.assert_close(lesson.inception_score(p), wanted)
    assert 1 <= wanted <= 6


@pytest.mark.parametrize("k", [1, 2, 5])
def test_balls_are_those_of_a_loop(k: int) -> None:
    torch.manual_seed(k)
    x, y = torch.randn(20, 3).double(), torch.randn(12, 3).double() + 0.5
    own = np.sort(cdist(y, y), axis=1)[:, k]
    np.testing.assert_allclose(lesson.radii(y, k), own)
    across = cdist(x, y)
    share = np.mean([any(row <= own) for row in across])
    assert lesson.inside(x, y, k) == pytest.approx(share)
    share = np.mean([any(column <= radius) for column, radius in zip(across.T, own)])
    assert lesson.coverage(y, x, k) == pytest.approx(share)


def test_the_line_ends_where_the_distances_are_one_over_n(monkeypatch) -> None:
    monkeypatch.setattr(lesson.gan, "frechet_distance", lambda x, y: 3 + 40 / len(x))
    found = lesson.at_infinity(torch.zeros(100, 2), torch.zeros(5, 2), (20, 50, 100))
    assert found == pytest.approx(3)


def test_whitened_points_have_the_unit_covariance() -> None:
    x = lesson.whitened(30, 4)
    torch.testing.assert_close(x.T.cov(), torch.eye(4).double())
    torch.testing.assert_close(x.mean(dim=0), torch.zeros(4).double())


def test_one_of_each_has_every_digit_equally_often() -> None:
    labels = torch.arange(40) % 10
    pictures = labels.float().view(-1, 1, 1, 1)
    found = lesson.one_of_each(pictures, labels, times=3)
    assert found.flatten().long().bincount().tolist() == [3] * 10


def test_the_sets_have_one_size_but_the_copies_which_are_ten_times_something() -> None:
    torch.manual_seed(0)
    pictures = torch.randn(95, 1, 8, 8)
    labels = torch.arange(95) % 10
    sets = lesson.faulty((pictures, labels), (pictures, labels))
    sizes = {name: len(each) for name, each in sets.items()}
    assert sizes.pop("copies") == 60 and set(sizes.values()) == {68}
    assert torch.equal(sets["part"], pictures[labels < 7])


def test_the_coverage_that_a_sample_of_the_real_distribution_has_on_average() -> None:
    torch.manual_seed(0)
    found = []
    for _ in range(400):
        x, y = torch.randn(60, 2), torch.randn(30, 2)
        found.append(lesson.coverage(x, y, 3))
    assert np.mean(found) == pytest.approx(1 - (60 / 90) ** 3, abs=0.02)
    assert round(1 - (1257 / 1510) ** 3, 2) == 0.42


def test_the_exercises_of_the_note() -> None:
    p = torch.eye(10).double()[[0, 1, 0, 1]]
    assert lesson.inception_score(p).item() == pytest.approx(2)
    slope, intercept = np.polyfit([1 / 1000, 1 / 2000], [5.0, 4.1], 1)
    assert (slope, intercept) == pytest.approx((1800, 3.2))


def test_a_ball_needs_a_neighbour(tmp_path: Path, capsys) -> None:
    argv = ["--tiny", "--k", "0", "--device", "cpu", "--out", str(tmp_path)]
    with pytest.raises(SystemExit):
        execute(lesson.run, lesson.Config, lesson.__doc__, argv)
    assert "--k: must be 1 or more" in capsys.readouterr().err
