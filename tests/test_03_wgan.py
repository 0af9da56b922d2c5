"""Lesson 8.3: what its claims cannot see in a short run, and what later lessons rely on."""

import copy
import itertools
import math

import pytest
import scipy.stats
import torch
from torch import nn
from torch.nn.utils import parametrizations

from common.data.mixtures import grid, points_around
from common.lessons import load_lesson

lesson = load_lesson("phase08_generative/03-wgan")
gan = load_lesson("phase08_generative/01-gan-basics")


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64)


def test_the_order_does_not_matter_and_a_shift_is_a_distance():
    x = randn(40)
    assert lesson.distance_1d(x, x[torch.randperm(40)]).item() == 0
    assert lesson.distance_1d(x, x + 3).item() == pytest.approx(3)


def test_the_distance_in_the_plane():
    """No other pairs of four points are nearer; a shift is a distance, whatever the order."""
    x, y = randn(2, 4, 2)
    means = []
    for order in itertools.permutations(range(4)):
        means.append((x - y[list(order)]).norm(dim=1).mean().item())
    assert lesson.distance(x, y) == pytest.approx(min(means))
    x = randn(60, 2)
    shift = torch.tensor([3.0, 4.0])
    assert lesson.distance(x, x[torch.randperm(60)] + shift) == pytest.approx(5)


def test_on_a_line_no_other_pairs_are_nearer():
    x, y = randn(300), 2 * randn(300) + 1
    paired = lesson.distance(x[:, None], y[:, None])
    assert lesson.distance_1d(x, y).item() == pytest.approx(paired)


def test_a_score_knows_copies_and_collapse():
    torch.manual_seed(0)
    data, new, others = points_around(grid(), 3000).split(1000)
    _, modes, _, closer = lesson.score(data, data, new)
    assert (modes, closer) == (25, 1)
    fair = lesson.score(others, data, new)
    assert fair[1] == 25
    assert 0.4 < fair[3] < 0.6
    far, modes, near, _ = lesson.score(points_around(grid()[:1], 1000), data, new)
    assert (modes, near) == (1, pytest.approx(1, abs=0.01))
    assert far > 1 > 0.2 > fair[0]


def test_the_distance_of_two_gaussians():
    """The note: with the same spread it is the distance of the means."""
    torch.manual_seed(0)
    x, y = torch.randn(2, 100_000).double() / 2
    assert lesson.distance_1d(x + 1, y - 1).item() == pytest.approx(2, abs=0.02)


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (1, 4), (6, 1)])
def test_the_spectral_norm_is_the_largest_singular_value(shape):
    matrix = randn(*shape)
    wanted = torch.linalg.matrix_norm(matrix, ord=2)
    torch.testing.assert_close(lesson.spectral_norm(matrix, steps=2000), wanted)


def test_slopes_are_those_of_finite_differences():
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    x = randn(6, 3)
    step = 1e-6
    parts = []
    with torch.no_grad():
        for column in torch.eye(3).double():
            parts.append((critic(x + step * column) - critic(x - step * column))[:, 0] / (2 * step))
    wanted = torch.stack(parts, dim=1).norm(dim=1)
    torch.testing.assert_close(lesson.slopes(critic, x), wanted, rtol=1e-6, atol=1e-8)


def test_slopes_of_pictures_and_their_gradients():
    critic = nn.Sequential(nn.Flatten(), nn.Linear(12, 1)).double()
    found = lesson.slopes(critic, randn(5, 3, 2, 2))
    length = critic[1].weight.norm()
    torch.testing.assert_close(found, length.expand(5))
    (gradient,) = torch.autograd.grad(found.sum(), critic[1].weight)
    torch.testing.assert_close(gradient, 5 * critic[1].weight.detach() / length)


def test_each_pair_of_pictures_has_one_share():
    torch.manual_seed(0)
    seen = []

    class Spy(nn.Module):
        def forward(self, x):
            seen.append(x.detach())
            return x.square().sum(dim=(1, 2, 3))

    real, fake = torch.zeros(7, 1, 2, 2), torch.ones(7, 1, 2, 2)
    lesson.penalty(Spy(), real, fake)
    assert (seen[0].flatten(1).std(dim=1) == 0).all()
    assert len(seen[0][:, 0, 0, 0].unique()) == 7 and seen[0].min() > 0 and seen[0].max() < 1


def test_the_shares_are_even():
    """f = x²/2, real at 2, fake at 4: slopes of 2 to 4, equally often, cost 13/3."""
    torch.manual_seed(0)
    real = torch.full((20_000, 1), 2.0).double()
    mean = lesson.penalty(lambda x: x.square() / 2, real, 2 * real)
    assert mean.item() == pytest.approx(13 / 3, abs=0.06)


@pytest.mark.parametrize("distance", [0.5, 1.0, 3.0])
def test_a_straight_critic_ends_where_the_note_says(distance):
    """w = 1 + d / 2λ from above; two-sided from below -1 + d / 2λ."""
    for two_sided, start, wanted in (
        (False, -0.5, 1 + distance / 20),
        (True, -0.5, -1 + distance / 20),
        (True, 0.5, 1 + distance / 20),
    ):
        line = nn.Linear(1, 1, bias=False).double()
        nn.init.constant_(line.weight, start)
        sgd = torch.optim.SGD(line.parameters(), lr=0.04)
        real = torch.full((4, 1), distance).double()
        for _ in range(300):
            lesson.descend(sgd, lesson.critic_loss(line, real, 0 * real, two_sided))
        assert line.weight.item() == pytest.approx(wanted, abs=1e-6)


def test_the_product_of_the_norms_bounds_the_slope():
    torch.manual_seed(0)
    critic = gan.mlp(2, 1).double()
    for part in critic:
        if isinstance(part, nn.Linear):
            part.weight.data /= lesson.spectral_norm(part.weight.detach(), steps=2000)
    assert 0 < lesson.slopes(critic, 3 * randn(5000, 2)).max() <= 1
    layer = parametrizations.spectral_norm(nn.Linear(4, 4).double(), n_power_iterations=500)
    assert torch.linalg.matrix_norm(layer.weight, ord=2).item() == pytest.approx(1)


def test_clipping_touches_what_is_too_large_only():
    layer = nn.Linear(2, 2)
    layer.weight.data.copy_(torch.tensor([[0.5, -0.5], [0.001, -0.02]]))
    lesson.clip(layer, limit=0.02)
    wanted = torch.tensor([[0.02, -0.02], [0.001, -0.02]])
    torch.testing.assert_close(layer.weight.detach(), wanted)
    assert layer.bias.abs().max() <= 0.02


def test_the_generator_goes_uphill_and_the_critic_learns_in_its_turns_only():
    torch.manual_seed(0)
    generator, critic = gan.mlp(2, 2), gan.mlp(2, 1)
    before = copy.deepcopy(critic.state_dict())
    noise = torch.randn(500, 2)
    old = critic(gan.sample(generator, noise)).mean().item()
    g_adam, c_adam = gan.adam_for(generator, 1e-3), gan.adam_for(critic, 1e-3)
    lesson.wgan_step(generator, critic, grid(), g_adam, c_adam, turns=0)
    assert all(torch.equal(before[name], weight) for name, weight in critic.state_dict().items())
    assert critic(gan.sample(generator, noise)).mean().item() > old

    fixed = copy.deepcopy(generator.state_dict())
    g_adam = gan.adam_for(generator, 0.0)
    lesson.wgan_step(generator, critic, grid(), g_adam, c_adam, turns=2)
    assert not any(
        torch.equal(before[n], w) for n, w in critic.state_dict().items() if "weight" in n
    )
    assert all(torch.equal(fixed[name], weight) for name, weight in generator.state_dict().items())


def test_the_generator_raises_the_mean_of_the_critic():
    """Adam hides the size of a gradient; plain steps show it."""
    generator = nn.Linear(2, 1)
    critic = nn.Linear(1, 1)
    nn.init.constant_(critic.weight, 3.0)
    nn.init.zeros_(generator.bias)
    g_sgd, c_sgd = (torch.optim.SGD(part.parameters(), lr=0.1) for part in (generator, critic))
    lesson.wgan_step(generator, critic, grid(), g_sgd, c_sgd, turns=0)
    torch.testing.assert_close(generator.bias.detach(), torch.tensor([0.3]))


def test_slopes_leave_their_points_alone():
    x = torch.randn(3, 1)
    lesson.slopes(nn.Linear(1, 1), x)
    assert not x.requires_grad


def test_the_divergence_of_sets_apart_is_constant():
    """The note: ln 2, however far the two points are."""
    p, q = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    middle = (p + q) / 2
    divergence = (p.xlogy(p / middle).sum() + q.xlogy(q / middle).sum()) / 2
    assert divergence.item() == pytest.approx(math.log(2))
    assert scipy.stats.wasserstein_distance([0.0], [4.0]) == 4


@pytest.mark.parametrize("steps, wanted", [(3, 3), (60, 20), (45, 20)])
def test_looks_are_evenly_spread_and_change_nothing(monkeypatch, steps, wanted):
    data = points_around(grid(), 600)

    def draw(generator, critic, data, *adams):
        torch.randn(7)
        for adam in adams:
            adam.step()  # without gradients it changes nothing

    monkeypatch.setattr(lesson, "wgan_step", draw)
    cfg = lesson.Config(wgan_steps=steps, device="cpu")
    points, looks = lesson.train_grid(cfg, "wgan", 1e-3, data, seed=3)
    assert len(looks) == wanted

    torch.manual_seed(3)
    generator, critic = gan.mlp(2, 2), gan.mlp(2, 1)
    for _ in range(steps):
        torch.randn(7)
    assert torch.equal(points, gan.sample(generator, torch.randn(2000, 2)))

    # With weights that nobody trains each look sees the same; the gap is real minus fake.
    noise = torch.randn(500, 2, generator=torch.Generator().manual_seed(3))
    fake = gan.sample(generator, noise)
    gap = (critic(data).mean() - critic(fake).mean()).item()
    for look in looks:
        assert look == pytest.approx([gap, lesson.distance(fake, data[:500])])
    assert lesson.train_grid(cfg, "equal", 1e-3, data, seed=3)[1] == []
