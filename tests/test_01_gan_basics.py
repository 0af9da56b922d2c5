"""Lesson 8.1: what its claims cannot see in a short run, and what later lessons rely on."""

import copy
import math

import pytest
import scipy.linalg
import torch
import torch.nn.functional as F
from torch import nn

from common.data.mixtures import SD, covered, grid, points_around, ring
from common.lessons import load_lesson

lesson = load_lesson("phase08_generative/01-gan-basics")
lenet = load_lesson("phase05_cnn/04-lenet")


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64)


def covariance(size: int) -> torch.Tensor:
    root = randn(size, size)
    return root @ root.T


@pytest.mark.parametrize("shape", [(7,), (7, 1), (3, 1, 2, 2)])
def test_the_losses_are_cross_entropies(shape):
    real, fake = 5 * randn(*shape), (5 * randn(*shape)).requires_grad_()
    ones, zeros = torch.ones_like(real), torch.zeros_like(real)
    bce = F.binary_cross_entropy_with_logits
    pairs = [
        (lesson.discriminator_loss(real, fake), bce(real, ones) + bce(fake, zeros)),
        (lesson.generator_loss(fake), bce(fake, ones)),
        (lesson.generator_loss(fake, saturating=True), -bce(fake, zeros)),
    ]
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs)
        slopes = [torch.autograd.grad(each, fake)[0] for each in (ours, theirs)]
        torch.testing.assert_close(*slopes)


def test_a_batch_may_be_larger_than_the_other():
    real, fake = randn(10, 1), randn(3, 1)
    wanted = F.softplus(-real).mean() + F.softplus(fake).mean()
    torch.testing.assert_close(lesson.discriminator_loss(real, fake), wanted)


def test_the_losses_are_finite_for_any_logit():
    far = torch.tensor([-1e4, 1e4])
    losses = [lesson.discriminator_loss(far, far), lesson.generator_loss(far)]
    assert all(loss.isfinite() for loss in losses)


def test_the_best_d_gives_ln_4_minus_twice_the_divergence():
    """The note, for two discrete distributions; any other D has a larger loss."""
    p, q = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.3, 0.6]]).double()

    def loss(d: torch.Tensor) -> torch.Tensor:
        return -(p * d.log() + q * (1 - d).log()).sum()

    best = p / (p + q)
    middle = (p + q) / 2
    divergence = ((p * (p / middle).log()).sum() + (q * (q / middle).log()).sum()) / 2
    torch.testing.assert_close(loss(best), math.log(4) - 2 * divergence)
    for shift in (randn(100, 3) / 10).unbind():
        assert loss((best.logit() + shift).sigmoid()) > loss(best)


def make_players(seed: int = 0):
    torch.manual_seed(seed)
    generator = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    discriminator = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    return generator, discriminator


def test_gan_step_is_a_step_of_each():
    """Written out with functional gradients, over three steps: so old gradients must be cleared."""
    generator, discriminator = make_players()
    other_g, other_d = copy.deepcopy(generator), copy.deepcopy(discriminator)
    g_sgd = torch.optim.SGD(generator.parameters(), lr=0.3)
    d_sgd = torch.optim.SGD(discriminator.parameters(), lr=0.2)
    for _ in range(3):
        real, noise = randn(8, 2), randn(8, 3)
        found = lesson.gan_step(generator, discriminator, real, noise, g_sgd, d_sgd)

        d_loss = lesson.discriminator_loss(other_d(real), other_d(other_g(noise)))
        slopes = torch.autograd.grad(d_loss, list(other_d.parameters()))
        with torch.no_grad():
            for weight, slope in zip(other_d.parameters(), slopes):
                weight -= 0.2 * slope
        g_loss = lesson.generator_loss(other_d(other_g(noise)))
        slopes = torch.autograd.grad(g_loss, list(other_g.parameters()))
        with torch.no_grad():
            for weight, slope in zip(other_g.parameters(), slopes):
                weight -= 0.3 * slope
        torch.testing.assert_close(torch.stack(found), torch.stack([d_loss, g_loss]).detach())
        assert not any(loss.requires_grad for loss in found)
    for ours, theirs in ((generator, other_g), (discriminator, other_d)):
        for weight, wanted in zip(ours.parameters(), theirs.parameters()):
            torch.testing.assert_close(weight, wanted)


def test_without_detach_the_second_backward_finds_no_graph():
    """The note's failure."""
    generator, discriminator = make_players()
    fake = generator(randn(8, 3))
    lesson.discriminator_loss(discriminator(randn(8, 2)), discriminator(fake)).backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        lesson.generator_loss(discriminator(fake)).backward()


def test_gradients_that_are_cleared_early_let_g_help_d():
    """The note: cleared before D's backward pass, G's gradients hold D's loss too."""
    generator, discriminator = make_players()
    fake = generator(randn(8, 3))
    d_loss = lesson.discriminator_loss(discriminator(randn(8, 2)), discriminator(fake))
    g_loss = lesson.generator_loss(discriminator(fake))
    weights = list(generator.parameters())
    parts = [torch.autograd.grad(loss, weights, retain_graph=True) for loss in (d_loss, g_loss)]
    d_loss.backward(retain_graph=True)
    g_loss.backward()
    for weight, of_d, of_g in zip(weights, *parts):
        assert of_d.abs().max() > 1e-6
        torch.testing.assert_close(weight.grad, of_d + of_g)


def test_mlp_has_three_layers():
    model = lesson.mlp(2, 1)
    assert sum(weight.numel() for weight in model.parameters()) == 3 * 128 + 129 * 128 + 129
    assert lesson.mlp(2, 3, width=7)(torch.zeros(5, 2)).shape == (5, 3)


def test_the_distance_is_scipys():
    for size in (1, 2, 7):
        means, covs = randn(2, size), [covariance(size), covariance(size)]
        root = torch.as_tensor(scipy.linalg.sqrtm((covs[0] @ covs[1]).numpy())).real
        wanted = (means[0] - means[1]).square().sum() + (covs[0] + covs[1] - 2 * root).trace()
        found = lesson.gaussian_distance(means[0], covs[0], means[1], covs[1])
        assert found == pytest.approx(wanted.item(), rel=1e-6)
        swapped = lesson.gaussian_distance(means[1], covs[1], means[0], covs[0])
        assert swapped == pytest.approx(found, rel=1e-6)


def test_the_distance_of_two_gaussians_on_a_line():
    """The note: of N(0, 1²) and N(3, 2²) it is (0 - 3)² + (1 - 2)² = 10."""
    one = torch.ones(1, 1).double()
    found = lesson.gaussian_distance(0 * one[0], one, 3 * one[0], 4 * one)
    assert found == pytest.approx(10)


def test_the_distance_of_independent_features_is_a_sum_of_those_of_each():
    means, sds = randn(2, 4), randn(2, 4).abs()
    wanted = (means[0] - means[1]).square().sum() + (sds[0] - sds[1]).square().sum()
    found = lesson.gaussian_distance(means[0], sds[0].square().diag(), means[1], sds[1].diag() ** 2)
    assert found == pytest.approx(wanted.item())


def test_the_distance_survives_features_that_never_change():
    """Fewer pictures than features: eigenvalues of 0, which rounding may make negative."""
    x = randn(5, 30)
    assert lesson.frechet_distance(x, x) == pytest.approx(0, abs=1e-5)
    assert lesson.frechet_distance(x, x + 2) == pytest.approx(4 * 30, rel=1e-6)
    flat = torch.zeros(9, 3)
    assert lesson.frechet_distance(flat, flat + 1) == pytest.approx(3)


def test_the_distance_is_that_of_the_best_matching_on_a_line():
    """Wasserstein: sorted samples of two Gaussians, matched in order."""
    z = torch.distributions.Normal(0.0, 1.0).icdf((torch.arange(20000).double() + 0.5) / 20000)
    still = torch.zeros_like(z)  # a second feature that never changes
    x, y = torch.stack([z, still], dim=1), torch.stack([3 + 2 * z, still], dim=1)
    matched = (x - y).square().sum(dim=1).mean().item()
    assert lesson.frechet_distance(x, y) == pytest.approx(matched, rel=1e-3)
    assert matched == pytest.approx(10, rel=1e-3)


def test_fewer_samples_seem_farther():
    """The exercise: both sets are drawn from the same Gaussian."""
    torch.manual_seed(0)
    reference = randn(4000, 20)
    distances = [lesson.frechet_distance(randn(n, 20), reference) for n in (50, 200, 2000)]
    assert distances[0] > 2 * distances[1] > 4 * distances[2] > 0


@pytest.mark.parametrize("name, size", [("digits", 8), ("mnist-5k", 28)])
def test_the_judge_reads_what_lenet_read(name: str, size: int) -> None:
    """Digits just as in 5.4; other sizes are resized, not padded."""
    pictures = torch.rand(3, 1, size, size) * 2 - 1
    seen = lesson.for_judge(pictures)
    assert seen.shape == (3, 1, 32, 32)
    assert seen.min() >= -0.1 - 1e-6 and seen.max() <= 1.175 + 1e-6
    if name == "digits":
        cfg = lenet.Config(tiny=True, device="cpu")
        data = lesson.load_images(cfg, name, 0)
        x, _ = lesson.to_tensors(data.x_train, data.y_train, data.brightest)
        torch.testing.assert_close(lesson.for_judge(x), lenet.make_sets(cfg, name, 0)[0][0])


def test_features_leave_the_judge_whole():
    torch.manual_seed(0)
    judge = lenet.LeNet5()
    pictures = torch.rand(6, 1, 8, 8) * 2 - 1
    before = judge(lesson.for_judge(pictures))
    read = lesson.features(judge, pictures)
    assert read.shape == (6, 84) and not read.requires_grad
    assert read.abs().max() <= 1  # behind F6's tanh
    torch.testing.assert_close(judge(lesson.for_judge(pictures)), before)
    last = judge.output.weight[:, :, 0, 0]
    torch.testing.assert_close(read @ last.T + judge.output.bias, before)


def test_a_ring_and_a_grid():
    assert ring(4).round(decimals=6).abs().tolist() == [[1, 0], [0, 1], [1, 0], [0, 1]]
    torch.testing.assert_close(ring(8).norm(dim=1), torch.ones(8))
    assert grid(5).shape == (25, 2) and len({tuple(each) for each in grid(5).tolist()}) == 25
    assert grid(3).unique().tolist() == [-1, 0, 1]


def test_points_are_drawn_around_all_centres():
    torch.manual_seed(0)
    centres = grid(3)
    points = points_around(centres, 9000)
    distance, nearest = torch.cdist(points, centres).min(dim=1)
    counts = nearest.bincount(minlength=9)
    assert counts.min() > 850 and counts.max() < 1150
    assert distance.square().mean().sqrt().item() == pytest.approx(SD * 2**0.5, rel=0.03)
    modes, near = covered(points, centres)
    assert modes == 9 and near > 0.99


def test_a_mode_counts_from_an_eighth_of_its_fair_share():
    """80 points: ten for each of eight modes are fair, so two are enough and one is not."""
    centres = ring()
    points = centres[[0] * 40 + [1] * 2 + [2] * 1 + [3] * 37].clone()
    assert covered(points, centres) == (3, 1.0)
    points[:20] += 4.01 * SD  # a diagonal step: too far
    assert covered(points, centres) == (3, 0.75)
    points[:40] += 1
    assert covered(points, centres)[0] == 2


def test_near_is_within_four_standard_deviations():
    centres = torch.zeros(1, 2)
    points = torch.tensor([[3.99 * SD, 0.0], [0.0, 4.01 * SD]])
    assert covered(points, centres) == (1, 0.5)


def test_the_ring_compares_equal_highest_rates_and_shows_the_worst_run(monkeypatch):
    seen = []

    def train_ring(cfg, g_rate, d_rate, seed):
        seen.append((g_rate, d_rate))
        modes = (5, 3, 7)[seed % 10]
        return ring()[:modes].repeat(20, 1)

    monkeypatch.setattr(lesson, "train_ring", train_ring)
    monkeypatch.setattr(lesson, "check", lambda *words, **bounds: None)
    monkeypatch.setattr(lesson, "expect", lambda *words, **bounds: None)
    scores, pictures = lesson.show_ring(lesson.Config(seed=4, device="cpu"))
    assert len(seen) == 9 and {max(rates) for rates in seen} == {2e-3}
    assert sorted({g_rate / d_rate for g_rate, d_rate in seen}) == pytest.approx([0.2, 1, 5])
    for name, points in pictures.items():
        assert covered(points, ring())[0] == 3
        assert (scores[name], scores[f"{name}_best"]) == (5, 7)


def test_a_fifth_of_a_negative_number_passes_each_hidden_layer():
    """The slope of DCGAN's paper; seven later networks are built from this one."""
    torch.manual_seed(0)
    model = lesson.mlp(2, 3, width=7).double()
    first, second, last = [layer for layer in model if isinstance(layer, nn.Linear)]
    x = randn(5, 2)
    hidden = first(x)
    hidden = hidden.clamp(min=0) + 0.2 * hidden.clamp(max=0)
    hidden = second(hidden)
    hidden = hidden.clamp(min=0) + 0.2 * hidden.clamp(max=0)
    torch.testing.assert_close(model(x), last(hidden))


def test_training_on_the_ring_plays_the_game_with_new_points_in_each_step(monkeypatch):
    """Small networks with 64 hidden units, batches of 128, both rates to their own player."""
    calls = []
    monkeypatch.setattr(lesson, "gan_step", lambda *arguments: calls.append(arguments))
    cfg = lesson.Config(ring_steps=7, device="cpu")
    points = lesson.train_ring(cfg, 0.003, 0.002, seed=0)
    assert points.shape == (2000, 2) and not points.requires_grad
    assert len(calls) == 7

    generator, discriminator, real, noise, g_adam, d_adam = calls[0]
    assert widths(generator) == [(64, 2), (64, 64), (2, 64)]
    assert widths(discriminator) == [(64, 2), (64, 64), (1, 64)]
    for adam, player, rate in ((g_adam, generator, 0.003), (d_adam, discriminator, 0.002)):
        (group,) = adam.param_groups
        assert group["lr"] == rate
        assert {id(each) for each in group["params"]} == {id(each) for each in player.parameters()}

    for _, _, real, noise, *_ in calls:
        assert real.shape == noise.shape == (128, 2)
    drawn = torch.cat([real for _, _, real, *_ in calls])
    distance = torch.cdist(drawn, ring()).amin(dim=1)
    assert 0.5 * SD < distance.mean() < 2 * SD
    assert len(drawn.unique(dim=0)) == 7 * 128  # new points in each step


def widths(model: nn.Sequential) -> list[tuple[int, ...]]:
    return [tuple(layer.weight.shape) for layer in model.modules() if isinstance(layer, nn.Linear)]


def test_a_run_on_the_ring_follows_from_its_seed():
    cfg = lesson.Config(ring_steps=2, device="cpu")
    first, again, other = [lesson.train_ring(cfg, 1e-3, 1e-3, seed) for seed in (5, 5, 6)]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
