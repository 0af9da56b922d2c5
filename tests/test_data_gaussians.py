"""common.data.gaussians: the baseline without a network."""

import torch

from common.data.gaussians import gaussian_by_class, gaussian_like, gaussian_of


def test_gaussian_like_has_mean_and_covariance():
    torch.manual_seed(0)
    rows = torch.randn(400, 3) @ torch.randn(3, 3) + 2
    drawn = gaussian_like(rows, 50_000)
    torch.testing.assert_close(drawn.mean(dim=0), rows.mean(dim=0), atol=0.05, rtol=0)
    torch.testing.assert_close(drawn.T.cov(), rows.T.cov(), atol=0.15, rtol=0)


def test_no_direction_is_narrower_than_asked():
    torch.manual_seed(0)
    rows = torch.randn(500, 3) * torch.tensor([2.0, 1.0, 0.0])  # the last one is constant
    cov = gaussian_of(rows, 0.25).covariance_matrix
    values = torch.linalg.eigvalsh(cov)
    torch.testing.assert_close(values[0], torch.tensor(0.25))
    torch.testing.assert_close(cov[:2, :2], rows.T.cov()[:2, :2], atol=1e-4, rtol=0)


def test_classes_come_in_turn_each_from_its_own_gaussian():
    torch.manual_seed(0)
    labels = torch.arange(300) % 10
    rows = labels[:, None] + 0.001 * torch.randn(300, 2)
    drawn = gaussian_by_class(rows, labels, 27)
    assert drawn.shape == (27, 2)
    wanted = (torch.arange(27) % 10)[:, None].expand(-1, 2)
    assert torch.equal(drawn.round().long(), wanted)
