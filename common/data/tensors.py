"""Pictures as the networks of phases 5, 7, 8 and 10 take them."""

import numpy as np
import torch
from torch import Tensor


def to_tensors(x: np.ndarray, y: np.ndarray, brightest: int = 255) -> tuple[Tensor, Tensor]:
    """Pictures (n, H, W) or (n, H, W, 3) from 0 to `brightest` -> (n, C, H, W) float32 from -1 to
    1, and the labels (n,) int64."""
    pictures = torch.from_numpy(x)
    if pictures.ndim == 3:
        pictures = pictures.unsqueeze(3)
    pictures = pictures.movedim(3, 1).contiguous()  # (n, C, H, W)
    return pictures.float() / brightest * 2 - 1, torch.from_numpy(y).long()
