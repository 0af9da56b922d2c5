"""Lesson 8.6: what its claims cannot see in a short run, and what later lessons rely on."""

import math

import pytest
import torch

from common.data.mixtures import SD
from common.errors import ClaimFailed
from common.lessons import load_lesson

lesson = load_lesson("phase08_generative/06-diffusion-theory")


@pytest.mark.parametrize("schedule", [lesson.linear_schedule, lesson.cosine_schedule])
@pytest.mark.parametrize("steps", [4, 5, 20, 100, 1000])
def test_a_schedule_falls_from_one_to_nearly_nothing(schedule, steps):
    alpha_bar = schedule(steps)
    assert alpha_bar.shape == (steps + 1,) and alpha_bar.dtype == torch.float64
    assert alpha_bar[0] == 1 and 0 < alpha_bar[-1] < 1e-3
    assert (alpha_bar.diff() < 0).all()


def test_the_cosine_schedule_is_the_papers():
    def f(t: float) -> float:
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    wanted = [f(t / 10) / f(0) for t in range(10)]
    torch.testing.assert_close(lesson.cosine_schedule(10)[:-1], torch.tensor(wanted).double())


def test_steps_of_a_batch_get_their_own_amounts():
    """8.7 trains on pictures, each at a step of its own."""
    alpha_bar = lesson.linear_schedule(10)
    t = torch.tensor([1, 4, 10])[:, None, None]
    x, noise = torch.randn(2, 3, 2, 5).double()
    found = lesson.diffuse(x, t, alpha_bar, noise)
    for row, step in enumerate((1, 4, 10)):
        torch.testing.assert_close(found[row], lesson.diffuse(x[row], step, alpha_bar, noise[row]))


def test_pictures_in_float32_stay_so():
    alpha_bar = lesson.linear_schedule(5)

    def denoise(x, a, b):
        return x * 0

    path = lesson.reverse_chain(torch.randn(2, 1, 8, 8), denoise, alpha_bar)
    assert len(path) == 6 and all(x.dtype == torch.float32 for x in path)
    assert (path[-1] == 0).all()


def test_the_last_step_back_adds_no_noise():
    mean, variance = lesson.posterior(torch.ones(3), torch.zeros(3), 1, lesson.linear_schedule(9))
    assert variance == 0 and (mean == 0).all()


def test_the_variance_back_is_less_than_that_forward():
    alpha_bar = lesson.cosine_schedule(50)
    for t in range(2, 51):
        _, variance = lesson.posterior(torch.ones(1), torch.ones(1), t, alpha_bar)
        assert 0 < variance < 1 - alpha_bar[t] / alpha_bar[t - 1]


def test_a_step_back_goes_up_the_score():
    """The note: m = (x + β score) / √(1 - β)."""
    data = lesson.make_data()
    alpha_bar = lesson.linear_schedule(100)
    x = torch.randn(50, 2).double()
    for t in (1, 50, 100):
        a, b = lesson.amounts(t, alpha_bar)
        guess = data.denoise(x, a, b)
        mean, _ = lesson.posterior(x, guess, t, alpha_bar)
        beta = 1 - alpha_bar[t] / alpha_bar[t - 1]
        uphill = (x + beta * lesson.score(x, guess, a, b)) / (1 - beta).sqrt()
        torch.testing.assert_close(mean, uphill)


def test_the_mean_of_what_fits_is_that_of_many_draws():
    """x_0 and ε drawn; those that end near x are kept."""
    torch.manual_seed(0)
    data = lesson.Mixture(torch.tensor([1.0, 3.0]), torch.tensor([[-1.0], [1.0]]), sd=0.4)
    x_0 = data.draw(2_000_000)
    x = 0.6 * x_0 + 0.8 * torch.randn_like(x_0)
    near = x_0[(x - 0.1).abs() < 0.01]
    found = data.denoise(torch.tensor([[0.1]]), 0.6, 0.8)
    error = near.std() / len(near) ** 0.5
    assert abs(found.item() - near.mean().item()) < 4 * error


def test_the_exact_predictor_of_the_noise():
    """The interview question: an error of 0.50 where ᾱ = 0.90; the best linear one has more."""
    torch.manual_seed(0)
    data = lesson.make_data()
    alpha_bar = lesson.linear_schedule(100)
    assert alpha_bar[10].item() == pytest.approx(0.90, abs=0.005)
    a, b = lesson.amounts(10, alpha_bar)
    x_0 = data.draw(200_000)
    noise = torch.randn_like(x_0)
    x = lesson.diffuse(x_0, 10, alpha_bar, noise)
    exact = -b * lesson.score(x, data.denoise(x, a, b), a, b)
    assert (noise - exact).square().mean().item() == pytest.approx(0.50, abs=0.01)
    # What is left over has nothing to do with the prediction.
    product = (noise - exact) * exact
    assert product.mean().abs() < 4 * product.std() / product.numel() ** 0.5
    centred = x - x.mean(dim=0)
    linear = centred @ torch.linalg.lstsq(centred, noise).solution
    assert (noise - linear).square().mean() > 0.75


def test_a_model_of_one_kind_serves_the_other_sampler():
    """The interview question: x is scaled so that a + b = 1 instead of a² + b² = 1."""
    data = lesson.make_data()
    a, b = lesson.amounts(30, lesson.linear_schedule(100))
    x = torch.randn(20, 2).double()
    other = data.denoise(x / (a + b), a / (a + b), b / (a + b))
    torch.testing.assert_close(data.denoise(x, a, b), other)


def test_the_flow_stays_finite_where_no_signal_is_left():
    data = lesson.make_data()
    x = torch.randn(20, 2).double()
    guess = data.denoise(x, 0.0, 1.0)
    torch.testing.assert_close(guess[0], data.weights @ data.centres)
    torch.testing.assert_close(lesson.velocity(x, guess, 1.0), x - guess)


def test_draws_have_the_shares_and_the_spread_of_the_mixture():
    torch.manual_seed(0)
    data = lesson.make_data()
    points = data.draw(36_000)
    distance, nearest = torch.cdist(points, data.centres).min(dim=1)
    shares = nearest.bincount().double() / 1000
    assert (shares - torch.arange(1, 9)).abs().max() < 0.4
    assert distance.square().mean().sqrt().item() == pytest.approx(SD * 2**0.5, rel=0.02)


def test_the_distance_along_lines():
    """Moved by 1, points move by |cos| along a line, in the mean 2/π; the order is no matter."""
    x = torch.randn(500, 2).double()
    moved = x[torch.randperm(500)] + torch.tensor([0.6, -0.8])
    assert lesson.sliced_distance(x, moved) == pytest.approx(2 / math.pi, rel=1e-3)
    assert isinstance(lesson.sliced_distance(x, moved), float)
    assert lesson.sliced_distance(x, x) == 0


def test_the_exercises():
    alpha_bar = torch.tensor([1, 0.64, 0.16], dtype=torch.float64)
    mean, _ = lesson.posterior(torch.tensor(0.4), torch.tensor(1.0), 2, alpha_bar)
    assert mean.item() == pytest.approx(0.8)
    a, b = lesson.amounts(100, lesson.linear_schedule(100))
    assert (0.01 * b / a).item() == pytest.approx(2.2, abs=0.02)


def sd_at_the_end(alpha_bar: torch.Tensor, sd: float, with_beta: bool) -> float:
    """Of one Gaussian around 0: denoise and posterior are linear, so the variance is exact."""
    data = lesson.Mixture(torch.ones(1), torch.zeros(1, 1), sd)
    one = torch.ones(1, 1).double()
    found = 1.0
    for t in range(len(alpha_bar) - 1, 0, -1):
        guess = data.denoise(one, *lesson.amounts(t, alpha_bar))
        slope, variance = lesson.posterior(one, guess, t, alpha_bar)
        if with_beta and t > 1:
            variance = 1 - alpha_bar[t] / alpha_bar[t - 1]
        found = slope.item() ** 2 * found + variance.item()
    return found**0.5


@pytest.mark.parametrize("steps, narrow, wide", [(100, 0.035, 0.055), (1000, 0.046, 0.050)])
def test_the_third_exercise(steps, narrow, wide):
    alpha_bar = lesson.linear_schedule(steps)
    found = [sd_at_the_end(alpha_bar, 0.05, with_beta) for with_beta in (False, True)]
    assert found == pytest.approx([narrow, wide], abs=6e-4)


def test_too_small_betas_give_wrong_shares():
    """The note's failure: all centres are reached, so a picture looks right."""
    torch.manual_seed(0)
    beta = torch.linspace(0.0001, 0.02, 100, dtype=torch.float64)
    short = lesson.signal_left(beta)
    assert short[-1].item() == pytest.approx(0.3636, abs=1e-4)
    data = lesson.make_data()
    real = data.draw(20_000)
    noise = torch.randn_like(real)
    found = {}
    for name, alpha_bar in (("short", short), ("right", lesson.linear_schedule(100))):
        points = lesson.reverse_chain(noise, data.denoise, alpha_bar)[-1]
        nearest = torch.cdist(points, data.centres).argmin(dim=1)
        shares = nearest.bincount() * 36 / 20_000
        found[name] = (lesson.sliced_distance(points, real), *shares[:2].tolist())
    assert found["short"] == pytest.approx((0.050, 1.17, 2.44), rel=0.1)
    assert found["right"] == pytest.approx((0.016, 1, 2), rel=0.2)


def test_the_chain_by_hand():
    """The claim: one Gaussian, two steps; mean and sd as fractions of what is put in."""
    alpha_bar = torch.tensor([1, 0.64, 0.16], dtype=torch.float64)
    one = lesson.Mixture(torch.ones(1), torch.ones(1, 1), sd=0.5)
    mean = torch.zeros(1, 1).double()
    for t, wanted in ((2, 15 / 22), (1, 21 / 22)):
        guess = one.denoise(mean, *lesson.amounts(t, alpha_bar))
        mean, _ = lesson.posterior(mean, guess, t, alpha_bar)
        assert mean.item() == pytest.approx(wanted)
    assert sd_at_the_end(alpha_bar, 0.5, with_beta=False) == pytest.approx(0.2459, abs=5e-5)
    half = ((13 / 44) ** 2 + 9 / 28) ** 0.5
    assert half == pytest.approx(0.6393, abs=5e-5)


def test_an_index_off_by_one_is_noticed(monkeypatch):
    """In the denoiser only; with all data in one point nobody would see it."""
    right = lesson.amounts
    monkeypatch.setattr(lesson, "amounts", lambda t, alpha_bar: right(t - 1, alpha_bar))
    torch.manual_seed(0)
    with pytest.raises(ClaimFailed, match="chain-by-hand"):
        lesson.show_ways(lesson.Config(tiny=True))


def test_without_noise_one_gaussian_keeps_its_shape():
    """DDIM is deterministic: the noise that is found in x is the noise that is put back."""
    one = lesson.Mixture(torch.ones(1), torch.tensor([[2.0, -1.0]]), sd=0.0)
    x = torch.randn(20, 2).double()
    found = lesson.without_noise(x, one.denoise, lesson.cosine_schedule(7))
    torch.testing.assert_close(found, one.draw(20))
    ends = []
    for steps in (10, 1000):
        wide = lesson.Mixture(torch.ones(1), torch.zeros(1, 2), sd=0.5)
        ends.append(lesson.without_noise(x, wide.denoise, lesson.cosine_schedule(steps)) / x)
    # Exact in the limit: noise of sd 1 becomes data of sd 0.5.
    assert abs(ends[1].mean().item() - 0.5) < 0.01 < abs(ends[0].mean().item() - 0.5)
