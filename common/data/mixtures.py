"""Points in the plane whose density is known: equal Gaussians around given centres."""

import math

import torch
from torch import Tensor

SD = 0.05  # of each Gaussian, along each axis


def ring(modes: int = 8) -> Tensor:
    """Centres on a circle of radius 1. (modes, 2)"""
    angle = 2 * math.pi * torch.arange(modes) / modes
    return torch.stack([angle.cos(), angle.sin()], dim=1)


def grid(side: int = 5) -> Tensor:
    """Centres side by side, from -1 to 1 along each axis. (side², 2)"""
    place = torch.linspace(-1, 1, side)
    return torch.cartesian_prod(place, place)


def points_around(centres: Tensor, n: int) -> Tensor:
    """n points, each around a centre that is drawn first. (n, 2)"""
    chosen = torch.randint(len(centres), (n,))
    return centres[chosen] + SD * torch.randn(n, 2)


def covered(points: Tensor, centres: Tensor) -> tuple[int, float]:
    """How many modes the points (n, 2) reach, and which share of them lies near any mode.

    Near is within four standard deviations; a mode is reached by an eighth of its fair share.
    """
    distance, nearest = torch.cdist(points, centres).min(dim=1)
    near = distance < 4 * SD
    counts = nearest[near].bincount(minlength=len(centres))
    fair = len(points) / len(centres)
    return int((counts >= fair / 8).sum()), near.double().mean().item()
