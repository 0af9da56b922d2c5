"""Would the models run on a GPU? No machine of ours has one, so their forward passes run once more on tensors that
have a device and a shape but no memory (FakeTensorMode). A tensor that a model makes or keeps on the CPU meets one on
"cuda" there, as it would on a real one, and torch refuses.
"""

from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorDeviceMismatchError, FakeTensorMode
from torch.func import functional_call
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._pytree import tree_map_only

MOST = 20  # models of one script that are remembered


def watch() -> Callable[[], list[str]]:
    """Remember the outermost modules that are called from now on. Returns what judges them: a list of faults."""
    calls: dict[int, tuple[nn.Module, tuple, dict]] = {}
    depth = 0

    def enter(*_: Any) -> None:
        nonlocal depth
        depth += 1

    def leave(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        nonlocal depth
        depth -= 1
        if depth == 0 and len(calls) < MOST and id(module) not in calls:
            calls[id(module)] = module, *tree_map_only(torch.Tensor, _shape, (args, kwargs))

    handles = (
        register_module_forward_pre_hook(enter),
        register_module_forward_hook(leave, with_kwargs=True, always_call=True),
    )

    def judge() -> list[str]:
        for handle in handles:
            handle.remove()
        return [fault for call in calls.values() if (fault := on_cuda(*call))]

    return judge


def on_cuda(module: nn.Module, args: tuple, kwargs: dict) -> str | None:
    """None, or what is wrong. What a fake tensor cannot do (.item(), .numpy()) is not held against the model."""
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        torch.no_grad(),
        mock.patch.object(nn.RNNBase, "flatten_parameters"),
    ):  # asks the driver, which is not here
        weights = {
            name: _fake(t) for name, t in [*module.named_parameters(), *module.named_buffers()]
        }
        args, kwargs = tree_map_only(torch.Tensor, _fake, (args, kwargs))
        try:
            functional_call(module, weights, args, kwargs)
        except FakeTensorDeviceMismatchError as error:
            return f"{type(module).__name__}: {error}"
        except Exception:
            return None
    return None


def _shape(tensor: torch.Tensor) -> torch.Tensor:
    """The shape and dtype without the memory: the script may want that back."""
    return torch.empty_like(tensor, device="meta")


def _fake(tensor: torch.Tensor) -> Any:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")
