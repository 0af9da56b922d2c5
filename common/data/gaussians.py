"""A Gaussian fitted to the rows of a matrix: the baseline without a network."""

import math

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal


def gaussian_of(rows: Tensor, least: float = 1e-4) -> MultivariateNormal:
    """Mean and covariance of the rows, with at least this variance in each direction."""
    values, vectors = torch.linalg.eigh(rows.T.cov())
    cov = (vectors * values.clamp(min=least)) @ vectors.T
    return MultivariateNormal(rows.mean(dim=0), cov)


def gaussian_like(rows: Tensor, n: int) -> Tensor:
    """n new rows, drawn from the Gaussian of these: (n, D)"""
    return gaussian_of(rows).sample((n,))


def gaussian_by_class(rows: Tensor, labels: Tensor, n: int) -> Tensor:
    """n rows, drawn from a Gaussian for each of ten classes, the classes in turn: (n, D)"""
    each = [gaussian_like(rows[labels == k], math.ceil(n / 10)) for k in range(10)]
    return torch.stack(each, dim=1).flatten(0, 1)[:n]
