"""A Gaussian fitted to the rows of a matrix: the baseline without a network."""

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal


def gaussian_of(rows: Tensor, least: float = 1e-4) -> MultivariateNormal:
    """Mean and covariance of the rows, with at least this variance in each direction."""
    values, vectors = torch.linalg.eigh(rows.T.cov())
    cov = (vectors * values.clamp(min=least)) @ vectors.T
    return MultivariateNormal(rows.mean(dim=0), cov)


def gaussian_like(rows: Tensor, n: int) -> Tensor:
    return gaussian_of(rows).sample((n,))
