"""Lesson 8.5: what its claims cannot see in a short run."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from common.lessons import load_lesson

lesson = load_lesson("phase08_generative/05-vae")


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def make_model(conditions: int = 3) -> torch.nn.Module:
    torch.manual_seed(0)
    return lesson.VAE(6, latent=2, conditions=conditions).double()


def test_the_log_density_is_torchs():
    torch.manual_seed(0)
    x, mean, log_var = randn(3, 4, 5)
    wanted = Normal(mean, (log_var / 2).exp()).log_prob(x).sum(dim=1)
    torch.testing.assert_close(lesson.log_normal(x, mean, log_var), wanted)
    one = torch.tensor(0.7).double()  # the same spread for all pixels, as the decoder has it
    wanted = Normal(mean, (one / 2).exp()).log_prob(x).sum(dim=1)
    torch.testing.assert_close(lesson.log_normal(x, mean, one), wanted)


def test_the_kl_of_the_exercise_and_of_nothing():
    zero = torch.zeros(1)
    assert lesson.kl_to_standard(zero, zero).item() == 0
    narrow = torch.tensor([math.log(0.01)])
    assert lesson.kl_to_standard(zero, narrow).item() == pytest.approx(1.8076, abs=1e-4)


def test_samples_have_mean_and_spread():
    torch.manual_seed(0)
    mean = torch.tensor([3.0, -1.0]).expand(100_000, 2)
    log_var = torch.tensor([2.0, -4.0]).expand(100_000, 2)
    z = lesson.sample_latent(mean, log_var)
    sd = (log_var[0] / 2).exp()
    assert ((z.mean(dim=0) - mean[0]).abs() < 4 * sd / 100_000**0.5).all()
    torch.testing.assert_close(z.std(dim=0), sd, rtol=0.01, atol=0)


def test_the_posterior_of_the_note():
    """ln p(1) = E ln p(x | z) - KL, with the true posterior; a prior as q loses 0.4034."""
    posterior, prior = Normal(0.5, 0.5**0.5), Normal(0.0, 1.0)
    wanted = Normal(0.0, 2**0.5).log_prob(torch.tensor(1.0)).item()
    z = posterior.icdf((torch.arange(100_000) + 0.5) / 100_000)
    explained = Normal(z, 1.0).log_prob(torch.tensor(1.0)).mean().item()
    assert explained == pytest.approx(-1.2939, abs=1e-3)
    kl = kl_divergence(posterior, prior).item()
    assert kl == pytest.approx(0.2216, abs=1e-4)
    assert explained - kl == pytest.approx(wanted, abs=1e-3)
    assert kl_divergence(prior, posterior).item() == pytest.approx(0.4034, abs=1e-4)


def test_the_loss_weighs_the_kl_by_beta():
    model = make_model()
    batch = (randn(5, 6), randn(5, 3))
    losses = []
    for beta in (0.0, 1.0, 4.0):
        torch.manual_seed(1)
        losses.append(lesson.vae_loss(model, batch, beta))
    kl = lesson.kl_to_standard(*model.encode(*batch)).mean()
    torch.testing.assert_close(losses[1] - losses[0], kl)
    torch.testing.assert_close(losses[2] - losses[0], 4 * kl)


def test_both_halves_read_the_condition():
    model = make_model()
    x, z = randn(4, 6), randn(7, 4, 2)
    conditions = torch.eye(3).double()[[0, 1, 2, 1]]
    others = conditions.roll(1, dims=0)
    changed = (model.encode(x, conditions)[0] - model.encode(x, others)[0]).abs().amax(dim=1)
    assert (changed > 1e-6).all()
    found = model.decode(z, conditions)
    assert found.shape == (7, 4, 6)
    for sample in range(7):
        torch.testing.assert_close(found[sample], model.decode(z[sample], conditions))
    assert not torch.allclose(found, model.decode(z, others))


def test_the_log_weights_are_those_of_single_samples():
    model = make_model()
    x, condition = randn(4, 6), randn(4, 3)
    torch.manual_seed(1)
    found = lesson.log_weights(model, x, condition, samples=9)
    assert found.shape == (9, 4)
    mean, log_var = model.encode(x, condition)
    q = Normal(mean, (log_var / 2).exp())
    torch.manual_seed(1)
    z = q.mean + q.stddev * torch.randn_like(q.mean.expand(9, 4, 2))
    explained = Normal(model.decode(z, condition), lesson.SD).log_prob(x).sum(dim=2)
    prior = Normal(0.0, 1.0).log_prob(z).sum(dim=2)
    torch.testing.assert_close(
        found, prior + explained - q.log_prob(z).sum(dim=2), rtol=1e-5, atol=1e-5
    )


def test_the_bound_is_the_log_of_the_mean_weight():
    log_w = 3 * randn(50, 8) - 900  # weights that are 0 in double precision
    shifted = (log_w + 900).exp().mean(dim=0).log() - 900
    torch.testing.assert_close(lesson.importance_bound(log_w), shifted)
    assert (lesson.importance_bound(log_w) > log_w.mean(dim=0)).all()


def test_a_score_has_the_three_numbers():
    """With a judge that is one linear layer on the first 84 pixels."""
    torch.manual_seed(0)
    x, new = torch.randn(2, 90, 64)

    class Judge(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.output = torch.nn.Linear(84, 10)

        def forward(self, pictures):
            flat = pictures.flatten(start_dim=1)[:, :84]
            return self.output(flat)

    judge = Judge().requires_grad_(False)
    found, named = lesson.score("new", judge, new, x, new)
    assert list(found) == ["new", "new_classes", "new_closer"]
    assert found["new_closer"] == 0
    assert found["new_classes"] == sum(count >= 90 / 40 for count in named.bincount(minlength=10))
    same, _ = lesson.score("same", judge, x, x, new)
    assert abs(same["same"]) < 1e-4 < found["new"]
    assert same["same_closer"] == 1


def test_how_many_parameters_the_vae_has():
    """Two hidden layers of 256 units in each half, the code being 8 means and 8 log variances."""
    model = lesson.VAE(64)
    encoder = 65 * 256 + 257 * 256 + 257 * 16
    decoder = 9 * 256 + 257 * 256 + 257 * 64
    halves = (model.encoder, model.decoder)
    found = [sum(weight.numel() for weight in half.parameters()) for half in halves]
    assert found == [encoder, decoder]


def test_the_loss_without_a_beta_is_minus_the_elbo():
    model = lesson.VAE(6, latent=2, conditions=3).double()
    batch = (torch.randn(5, 6).double(), torch.randn(5, 3).double())
    torch.manual_seed(1)
    plain = lesson.vae_loss(model, batch)
    torch.manual_seed(1)
    torch.testing.assert_close(plain, lesson.vae_loss(model, batch, beta=1.0))


@pytest.mark.parametrize("counts, classes", [([37, 1, 1, 1], 4), ([39, 1, 1, 1], 1)])
def test_a_digit_counts_from_a_quarter_of_its_fair_share(counts, classes, monkeypatch):
    """Of 40 pictures 4 are fair, so that one is enough; of 42 it is not."""
    digits = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    rows = digits[:, None].float().expand(-1, 64)
    monkeypatch.setattr(lesson.gan, "for_judge", lambda pictures: pictures[:, 0, 0, 0].long())
    monkeypatch.setattr(lesson.gan, "features", lambda judge, pictures: pictures.flatten(1)[:, :3])
    found, named = lesson.score("new", torch.eye(10).__getitem__, rows, rows, rows + 1)
    assert found["new_classes"] == classes
    assert torch.equal(named, digits)
    assert [type(each) for each in found.values()] == [float, int, float]


def test_copies_are_looked_for_among_the_generated_rows(monkeypatch):
    """Both are copies of the first training row; the other training rows are nearer to new ones."""
    monkeypatch.setattr(lesson.gan, "for_judge", lambda pictures: torch.zeros(len(pictures)).long())
    monkeypatch.setattr(lesson.gan, "features", lambda judge, pictures: pictures.flatten(1)[:, :3])
    x = torch.tensor([0.0, 10, 20])[:, None].expand(-1, 64)
    new = torch.tensor([11.0, 21])[:, None].expand(-1, 64)
    rows = x[:1].expand(2, -1) + 0.1
    found, _ = lesson.score("copies", torch.eye(10).__getitem__, rows, x, new)
    assert found["copies_closer"] == 1
