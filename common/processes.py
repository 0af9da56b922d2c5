"""Processes that train one model together, started by torchrun and connected by gloo.

A script that is started alone may call all of this as well: its share is the whole batch.
"""

import atexit
import io
import os
import sys

import torch
import torch.distributed as dist
from torch import Tensor


def start() -> int:
    """Meet the other processes, if there are any. Returns this one's number; only 0 prints."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return 0
    dist.init_process_group("gloo")
    atexit.register(dist.destroy_process_group)
    if dist.get_rank() > 0:
        sys.stdout = io.StringIO()
    return dist.get_rank()


def count() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def share(part: Tensor) -> Tensor:
    """Of a batch that all have drawn alike, every count()-th sample: this process's."""
    return part[dist.get_rank() :: count()] if count() > 1 else part


class Total(torch.autograd.Function):
    """The sum over all processes. The loss of each depends on it, so gradients are summed too."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        x = x.clone()
        if count() > 1:
            dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return Total.apply(gradient)
