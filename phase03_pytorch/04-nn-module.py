"""3.4 nn.Module: how a model finds its own parameters
nn.Module：模型如何找到自己的参数

You will be able to answer
    1. How does self.x = … make a parameter known to the optimizer?    show_registry   names, count, lost, tied
    2. What does a Linear layer hold, and how does it start?           show_layers     same-start, same-output, same-gradient
    3. What is in a state_dict, and why do buffers belong to it?       show_state      state-names, exchange, refused, buffers
    4. How do you look into a model while it runs?                     show_hooks      hook, removed
    5. Is it enough to train with?                                     show_training   same-training, overfits, learns, input
Run       python phase03_pytorch/04-nn-module.py                       about 6 s
Needs     -
Notation  B batch  I inputs  O outputs  H width of the hidden layers
"""
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.figures import BLUE, GREEN, GREY, ORANGE, new_figure, save_figure


@dataclass
class Config(LessonConfig):
    hidden: int = param(32, "width H of the hidden layers", tiny=16)
    points: int = param(300, "points on each of the three arms", tiny=40)
    steps: int = param(300, "training steps, each on all points", tiny=60)


class Parameter(Tensor):
    """A tensor that says of itself: train me."""

    def __new__(cls, values: Tensor) -> "Parameter":
        return Tensor._make_subclass(cls, values, True)             # True: requires_grad


class Module:
    """A node of a tree: it holds parameters, buffers and other modules, by name."""

    def __init__(self) -> None:
        for registry in ("parameters_here", "buffers_here", "children_here"):
            object.__setattr__(self, registry, {})
        self.hooks, self.training = [], True

    def __setattr__(self, name: str, value: Any) -> None:
        # practice: notice what is assigned
        # hint: a Parameter belongs into self.parameters_here, a Module into self.children_here, under its name
        # hint: what stood under this name before is gone: pop it from both
        # hint: all of it is also an ordinary attribute: object.__setattr__(self, name, value)
        for registry, kind in ((self.parameters_here, Parameter), (self.children_here, Module)):
            registry.pop(name, None)
            if isinstance(value, kind):
                registry[name] = value
        object.__setattr__(self, name, value)
        # end practice

    def register_buffer(self, name: str, values: Tensor) -> None:
        """A tensor that belongs to the model, is saved and moved with it, but is not trained."""
        self.buffers_here[name] = values
        object.__setattr__(self, name, values)

    def modules(self, prefix: str = "") -> Iterator[tuple[str, "Module"]]:
        """Itself and all below it, each with the prefix of its names: "" or "body.0."."""
        # practice: walk the tree
        # hint: first oneself, then each child with all that is below it
        # hint: a child's prefix is ours, its name and a dot
        # hint: yield prefix, self; then yield from
        yield prefix, self
        for name, child in self.children_here.items():
            yield from child.modules(prefix + name + ".")
        # end practice

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Every parameter once, under the first name that leads to it."""
        seen = set()
        for prefix, module in self.modules():
            for name, parameter in module.parameters_here.items():
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield prefix + name, parameter

    def parameters(self) -> list[Parameter]:
        return [parameter for _, parameter in self.named_parameters()]

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that must be saved: parameters and buffers by name, a shared one under each of its names."""
        return {prefix + name: values.detach() for prefix, module in self.modules()
                for name, values in (module.parameters_here | module.buffers_here).items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Copy values in. Raises KeyError when names differ, ValueError when a shape does; then nothing is changed."""
        # practice: all or nothing
        # hint: our own state_dict() shares memory with the model, so copying into it is enough
        # hint: compare the names first, then all shapes, and only then copy_
        # hint: ours = self.state_dict(); the difference of two sets of keys is ours.keys() ^ state.keys()
        ours = self.state_dict()
        if different := ours.keys() ^ state.keys():
            raise KeyError(f"only on one side: {sorted(different)}")
        for name, values in ours.items():
            if values.shape != state[name].shape:
                raise ValueError(f"{name}: the model has {tuple(values.shape)}, the file {tuple(state[name].shape)}")
        for name, values in ours.items():
            values.copy_(state[name])
        # end practice

    def double(self) -> "Module":
        for _, module in self.modules():
            for parameter in module.parameters_here.values():
                parameter.data = parameter.data.double()            # the same Parameter: an optimizer still holds it
            for name, values in list(module.buffers_here.items()):
                module.register_buffer(name, values.double() if values.is_floating_point() else values)
        return self

    def train(self, mode: bool = True) -> "Module":
        for _, module in self.modules():
            module.training = mode
        return self

    def register_forward_hook(self, hook: Callable) -> Callable[[], None]:
        """hook(module, inputs, output) runs after forward; what it returns, if anything, replaces the output."""
        self.hooks.append(hook)
        return lambda: self.hooks.remove(hook)

    def __call__(self, *inputs: Any) -> Any:
        output = self.forward(*inputs)
        for hook in list(self.hooks):
            changed = hook(self, inputs, output)
            output = output if changed is None else changed
        return output


class Linear(Module):
    """y = x Wᵀ + b. (B, I) -> (B, O)"""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        # practice: what is trained, and where it starts
        # hint: one row of weights for each output: (O, I); one bias for each
        # hint: uniform between -1/√I and 1/√I, so that outputs stay of the size of inputs, weight first
        # hint: torch.empty(outputs, inputs).uniform_(-bound, bound)
        bound = 1 / math.sqrt(inputs)
        self.weight = Parameter(torch.empty(outputs, inputs).uniform_(-bound, bound))
        self.bias = Parameter(torch.empty(outputs).uniform_(-bound, bound))
        # end practice

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T + self.bias


class ReLU(Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(min=0)


class BatchNorm1d(Module):
    """Each feature to mean 0 and variance 1 (lesson 4.6 explains why); here for its buffers. (B, H) -> (B, H)"""

    def __init__(self, features: int):
        super().__init__()
        self.weight, self.bias = Parameter(torch.ones(features)), Parameter(torch.zeros(features))
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        mean, var = self.running_mean, self.running_var
        if self.training:
            mean, var = x.mean(dim=0), x.var(dim=0, correction=0)
            with torch.no_grad():
                self.running_mean += 0.1 * (mean - self.running_mean)
                self.running_var += 0.1 * (x.var(dim=0) - self.running_var)
                self.num_batches_tracked += 1
        return (x - mean) / (var + 1e-5).sqrt() * self.weight + self.bias


class Sequential(Module):
    def __init__(self, *modules: Module):
        super().__init__()
        for number, module in enumerate(modules):
            setattr(self, str(number), module)

    def forward(self, x: Tensor) -> Tensor:
        for module in self.children_here.values():
            x = module(x)
        return x


OURS = SimpleNamespace(Module=Module, Linear=Linear, ReLU=ReLU, BatchNorm1d=BatchNorm1d, Sequential=Sequential)


def make_net(kit: Any, hidden: int, seed: int = 0) -> Any:
    """The same lines build a model from our parts (kit=OURS) or torch's (kit=nn). (B, 2) -> (B, 3)"""
    class Net(kit.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = kit.Sequential(kit.Linear(2, hidden), kit.BatchNorm1d(hidden), kit.ReLU(),
                                       kit.Linear(hidden, hidden), kit.ReLU())
            self.head = kit.Linear(hidden, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x))

    torch.manual_seed(seed)
    return Net().double()
