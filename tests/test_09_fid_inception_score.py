"""Lesson 8.9's scores against libraries and slow ways, and what a learner may meet."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.spatial.distance import cdist
from torch import nn

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


def test_probabilities_are_a_softmax_of_what_the_judge_answers() -> None:
    torch.manual_seed(0)
    judge = nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, 10))
    pictures = 2 * torch.rand(4, 1, 8, 8) - 1
    found = lesson.probabilities(judge, pictures)
    powers = judge(lesson.gan.for_judge(pictures)).detach().exp()
    torch.testing.assert_close(found, (powers / powers.sum(dim=1, keepdim=True)).double())
    assert found.dtype == torch.float64 and not found.requires_grad


def test_measures_of_single_sets_are_plain_numbers() -> None:
    """A report prints them and writes them down: neither a tensor nor a NumPy number."""
    x, y = torch.randn(2, 12, 3).double()
    found = [lesson.inside(x, y, 3), lesson.coverage(x, y, 3), lesson.at_infinity(x, y, (4, 8, 12))]
    assert [type(each) for each in found] == [float, float, float]


def test_a_point_on_the_surface_is_in_the_ball() -> None:
    """The balls are closed, as in both papers: -1 is as far from 0 as its neighbour 1."""
    real = torch.tensor([[0.0], [1], [3]]).double()
    generated = torch.tensor([[-1.0]]).double()
    assert lesson.inside(generated, real, 1) == 1
    assert lesson.coverage(real, generated, 1) == pytest.approx(1 / 3)


def test_a_copied_picture_is_in_the_ball_of_its_copies() -> None:
    """Four copies have three neighbours at distance 0, so the radius is 0."""
    real = torch.tensor([[0.0], [1], [3]]).double()
    copies = real[:1].repeat(4, 1)
    assert lesson.radii(copies, 3).tolist() == [0, 0, 0, 0]
    assert lesson.inside(real, copies, 3) == pytest.approx(1 / 3)


def test_all_measures_of_the_balls_by_hand(monkeypatch) -> None:
    """The sets of [3]: precision and recall must not change places."""
    real = torch.tensor([[0.0], [1], [2], [8], [9]]).double()
    generated = torch.tensor([[0.5], [1.5], [20]]).double()
    # a second feature that never changes: one alone has no covariance matrix
    real, generated = F.pad(real, (0, 1)), F.pad(generated, (0, 1))
    answers = torch.eye(2).double()[[0, 0, 1, 1]]
    monkeypatch.setattr(lesson.gan, "features", lambda judge, pictures: generated)
    monkeypatch.setattr(lesson, "probabilities", lambda judge, pictures: answers)
    found = lesson.measure(lesson.Config(k=1, device="cpu"), None, None, real)

    # means 22/3 and 4, variances 120.583 and 17.5
    fid = (22 / 3 - 4) ** 2 + (generated[:, 0].std() - real[:, 0].std()).item() ** 2
    wanted = {"FID": fid, "IS": 2, "precision": 2 / 3, "recall": 1, "coverage": 3 / 5}
    assert found == pytest.approx(wanted)
    assert tuple(found) == lesson.MEASURES
    assert all(isinstance(score, float) for score in found.values())


def test_the_other_judge_keeps_the_size_of_a_picture_in_each_convolution() -> None:
    model = lesson.rectified()
    shapes = []
    x = torch.zeros(2, 1, 32, 32)
    for layer in model:
        x = layer(x)
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            shapes.append(tuple(x.shape[1:]))
    assert shapes == [(16, 8, 8), (32, 4, 4), (64,), (10,)]
    features = lesson.gan.features(model, torch.zeros(2, 1, 8, 8))
    assert features.shape == (2, 64)
