"""Lesson 8.4: what its claims cannot see in a short run."""

import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn

from common.lessons import load_lesson

lesson = load_lesson("phase08_generative/04-autoencoder")


def rows(n: int = 60, pixels: int = 7) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(n, pixels).double() @ torch.randn(pixels, pixels).double() + 3


def test_the_loss_is_a_sum_over_pixels_and_a_mean_over_pictures():
    x = torch.zeros(4, 5)
    loss = lesson.reconstruction_loss(nn.Identity(), (x, x + 2))
    assert loss.item() == 5 * 2**2
    assert lesson.reconstruction_loss(torch.ones_like, (x, x + 3)).item() == 5 * 2**2


@pytest.mark.parametrize("k", [1, 3, 7])
def test_pca_rebuilds_as_sklearn_does(k: int) -> None:
    x = rows()
    theirs = PCA(k, svd_solver="full").fit(x.numpy())
    wanted = theirs.inverse_transform(theirs.transform(x.numpy()))
    ours = lesson.pca_autoencoder(x, k)(x).detach().numpy()
    np.testing.assert_allclose(ours, wanted, atol=1e-9)


def test_no_linear_autoencoder_has_a_smaller_error():
    x = rows()
    model = lesson.pca_autoencoder(x, 2)
    least = lesson.reconstruction_loss(model, (x, x)).item()
    for _ in range(50):
        other = lesson.pca_autoencoder(x, 2)
        with torch.no_grad():
            for weight in other.parameters():
                weight += 0.05 * torch.randn_like(weight)
        assert lesson.reconstruction_loss(other, (x, x)).item() > least


def test_a_mixed_code_rebuilds_the_same():
    """The note: the subspace is found, not a basis of it."""
    x = rows()
    model = lesson.pca_autoencoder(x, 3)
    before = model(x).detach()
    mix = torch.tensor([[1.0, 2, 0], [0, 1, 0], [3, 0, -1]]).double()
    with torch.no_grad():
        model.encoder.weight.copy_(mix @ model.encoder.weight)
        model.encoder.bias.copy_(mix @ model.encoder.bias)
        model.decoder.weight.copy_(model.decoder.weight @ mix.inverse())
    torch.testing.assert_close(model(x), before)


def test_principal_angles_by_hand():
    """A plane turned about one of its own directions by 30 degrees."""
    a = torch.eye(3).double()[:, :2]
    turned = [0, math.cos(math.pi / 6), math.sin(math.pi / 6)]
    b = torch.tensor([[1.0, 0, 0], turned]).double().T
    wanted = torch.tensor([0.0, 30]).double()
    torch.testing.assert_close(lesson.principal_angles(a, b), wanted, atol=1e-5, rtol=0)
    mixed = b @ torch.tensor([[2.0, 1], [1, 3]]).double()  # another basis of the same plane
    torch.testing.assert_close(lesson.principal_angles(a, mixed), wanted, atol=1e-5, rtol=0)


def test_equal_subspaces_have_the_angle_0():
    """Rounding makes some cosines larger than 1, where arccos is not defined."""
    for seed in range(20):
        torch.manual_seed(seed)
        a = torch.randn(9, 4).double()
        angles = lesson.principal_angles(a, a @ torch.randn(4, 4).double())
        torch.testing.assert_close(angles, 0 * angles, atol=1e-4, rtol=0)


def test_the_deep_autoencoder_is_its_own_mirror_image():
    model = lesson.deep_autoencoder(20, 3, width=11)
    sizes = [layer.weight.shape for layer in model.modules() if isinstance(layer, nn.Linear)]
    assert sizes == [(11, 20), (11, 11), (3, 11), (11, 3), (11, 11), (20, 11)]
    code = model.encoder(torch.randn(200, 20))
    assert code.shape == (200, 3) and code.min() < 0 < code.max()


def test_the_deep_autoencoder_has_128_hidden_units_unless_told_otherwise():
    """The size that the results of the note were measured with."""
    model = lesson.deep_autoencoder(64, 4)
    half = 64 * 128 + 128 + 128 * 128 + 128
    to_code, from_code = 128 * 4 + 4, 4 * 128 + 128
    to_pixels = 128 * 64 + 64
    wanted = half + to_code + from_code + 128 * 128 + 128 + to_pixels
    assert sum(weight.numel() for weight in model.parameters()) == wanted


def test_the_noise_is_new_in_each_call_and_only_on_the_inputs():
    x = torch.zeros(50, 7)
    losses = {lesson.denoising_loss(nn.Identity(), (x, x)).item() for _ in range(5)}
    assert len(losses) == 5
    assert lesson.denoising_loss(torch.ones_like, (x, x)).item() == 7


@pytest.mark.parametrize("sd", [0.1, 1.0, 30.0])
def test_the_wiener_filter_is_least_squares(sd: float) -> None:
    """On the covariance of pictures and noise that are uncorrelated, as a regression finds it."""
    x = rows()
    layer = lesson.wiener_filter(x, sd)
    centred = x - x.mean(dim=0)
    root = torch.linalg.cholesky(centred.T @ centred)
    inputs = torch.cat([root.T, sd * len(x) ** 0.5 * torch.eye(7).double()])
    targets = torch.cat([root.T, torch.zeros(7, 7).double()])
    weight = torch.linalg.lstsq(inputs, targets).solution.T
    torch.testing.assert_close(layer.weight.detach(), weight)
    torch.testing.assert_close(layer(x.mean(dim=0)).detach(), x.mean(dim=0))


def test_without_noise_the_wiener_filter_copies():
    x = rows()
    torch.testing.assert_close(lesson.wiener_filter(x, 0.0)(x).detach(), x)


def test_the_direction_of_the_exercise():
    """Variance 0.01 under noise of variance 1 is shrunk by 0.0099."""
    x = torch.tensor([[-0.1, 2.0], [0.1, 2.0]]).double()
    weight = lesson.wiener_filter(x, 1.0).weight
    assert weight[0, 0].item() == pytest.approx(0.01 / 1.01) and weight[1].abs().max() == 0


def test_columns_of_the_sparse_decoder_have_length_1():
    torch.manual_seed(0)
    model = lesson.SparseAutoencoder(5, 9).double()
    x = torch.randn(4, 5).double()
    code = model.encoder(x)
    assert code.shape == (4, 9) and (code >= 0).all() and (code == 0).any()
    columns = model.decoder.weight / model.decoder.weight.square().sum(dim=0).sqrt()
    torch.testing.assert_close(model(x), code @ columns.T + model.decoder.bias)
    before = model(x)
    with torch.no_grad():
        model.decoder.weight *= 3
    torch.testing.assert_close(model(x), before)


def test_the_best_code_under_a_penalty():
    """The note: a - λ/2, or exactly 0; a squared penalty only shrinks."""
    h = torch.linspace(0, 1, 100_001).double()
    for a, wanted in ((1.0, 0.85), (0.1, 0.0)):
        assert h[((h - a) ** 2 + 0.3 * h).argmin()].item() == pytest.approx(wanted, abs=1e-5)
    squared = h[((h - 0.1) ** 2 + 0.3 * h**2).argmin()].item()
    assert squared == pytest.approx(0.1 / 1.3, abs=1e-5)


def test_the_sparse_loss_is_error_plus_penalty():
    torch.manual_seed(0)
    model = lesson.SparseAutoencoder(5, 9)
    x, target = torch.randn(2, 4, 5)
    code = (x @ model.encoder[0].weight.T + model.encoder[0].bias).clamp(min=0)
    wanted = lesson.reconstruction_loss(model, (x, target)) + 0.7 * code.sum() / 4
    torch.testing.assert_close(lesson.sparse_loss(model, (x, target), strength=0.7), wanted)


def test_what_is_read_is_the_picture_and_the_noise():
    """The model sees both: far from 0, and nowhere by the same amount."""
    seen = []

    def model(noisy):
        seen.append(noisy)
        return noisy

    lesson.denoising_loss(model, (torch.full((200, 50), 7.0), torch.zeros(200, 50)))
    assert seen[0].mean().item() == pytest.approx(7, abs=0.03)
    assert seen[0].std().item() == pytest.approx(lesson.NOISE, rel=0.05)
