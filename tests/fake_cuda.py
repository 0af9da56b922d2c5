"""Would the models run on a GPU? No machine of ours has one.

So their forward passes run once more on tensors that have a device and a shape but no memory
(FakeTensorMode). A tensor that a model makes or keeps on the CPU meets one on "cuda" there, as it
would on a real one, and torch refuses.
"""

from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorDeviceMismatchError, FakeTensorMode
from torch.func import functional_call
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.utils.rnn import PackedSequence
from torch.utils._pytree import tree_map_only

MOST = 20  # models of one script that are remembered


def watch() -> Callable[[], list[str]]:
    """Remember the outermost modules that are called from now on.

    Returns what judges them, to be called at the end: it gives a list of faults.
    """
    calls: dict[int, tuple[nn.Module, tuple, dict]] = {}
    depth = 0

    def enter(*_: Any) -> None:
        nonlocal depth
        depth += 1

    def leave(module: nn.Module, args: tuple, kwargs: dict | None, output: Any = None) -> None:
        nonlocal depth
        depth -= 1
        # a packed sequence is checked when it is made, which no tensor without memory passes
        packed = any(isinstance(each, PackedSequence) for each in args)
        # after an error torch leaves the kwargs out, and there is nothing to repeat
        repeatable = kwargs is not None and not packed
        if repeatable and depth == 0 and len(calls) < MOST and id(module) not in calls:
            calls[id(module)] = module, *tree_map_only(torch.Tensor, _shape, (args, kwargs))

    entered = register_module_forward_pre_hook(enter)
    left = register_module_forward_hook(leave, with_kwargs=True, always_call=True)

    def judge() -> list[str]:
        entered.remove()
        left.remove()
        found = [on_cuda(*call) for call in calls.values()]
        return [fault for fault in found if fault is not None]

    return judge


def on_cuda(module: nn.Module, args: tuple, kwargs: dict) -> str | None:
    """None, or what is wrong.

    What a fake tensor cannot do (.item(), .numpy()) is not held against the model.
    """
    # flatten_parameters asks the driver, which is not here
    without_driver = mock.patch.object(nn.RNNBase, "flatten_parameters")
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), without_driver:
        tensors = [*module.named_parameters(), *module.named_buffers()]
        weights = {name: _fake(tensor) for name, tensor in tensors}
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
