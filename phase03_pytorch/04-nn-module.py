"""3.4 nn.Module: how a model finds its own parameters
nn.Module：模型如何找到自己的参数

You will be able to answer
    1. How does self.x = … make x known?      show_registry  names, lost, replaced
    2. What does a linear layer start with?   show_layers    count, same-step
    3. What is in a state_dict, and why?      show_state     state-names, exchange, held, refused
    4. How do you look into a running model?  show_hooks     hook, faded, kept
Predict   faded: how many times smaller do nine new layers make the differences between inputs?
Run       python phase03_pytorch/04-nn-module.py                       about 5 s
Needs     -
Reference nn.Module, nn.Parameter, nn.Linear, nn.ReLU, nn.Sequential
Learns    no model is trained here, but for one step
Notation  B batch  I inputs  O outputs  H width of the hidden layers
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from common.checks import check, check_close
from common.config import LessonConfig, main, param
from common.figures import new_figure, plot_curves, save_figure


@dataclass
class Config(LessonConfig):
    hidden: int = param(128, "width of the hidden layers", tiny=32)
    threads: ClassVar[int] = 1


class Parameter(Tensor):
    """A tensor that says of itself: train me."""

    # What is computed from a parameter is an ordinary tensor, and no parameter.
    __torch_function__ = torch._C._disabled_torch_function_impl

    def __new__(cls, values: Tensor) -> "Parameter":
        return values.detach().as_subclass(cls).requires_grad_()


class Module:
    """A node of a tree. It holds parameters, buffers and other modules, each under a name."""

    def __init__(self) -> None:
        # Past our own __setattr__, which needs these to be there.
        for name in ["own_parameters", "own_buffers", "own_modules"]:
            object.__setattr__(self, name, {})
        object.__setattr__(self, "hooks", [])

    def __setattr__(self, name: str, value: Any) -> None:
        """Python calls this for every self.name = value. The name's old entry is forgotten."""
        # practice: Notice what is assigned
        was_buffer = name in self.own_buffers
        for registry in [self.own_parameters, self.own_buffers, self.own_modules]:
            registry.pop(name, None)

        if isinstance(value, Parameter):
            self.own_parameters[name] = value
        elif isinstance(value, Module):
            self.own_modules[name] = value
        elif was_buffer and isinstance(value, Tensor):
            self.own_buffers[name] = value
        object.__setattr__(self, name, value)
        # end practice

    def register_buffer(self, name: str, values: Tensor) -> None:
        """A tensor that is saved and moved with the model, but not trained."""
        self.own_buffers[name] = values
        object.__setattr__(self, name, values)

    def modules(self, prefix: str = "") -> Iterator[tuple[str, "Module"]]:
        """This module and all below it, each with what its names begin with: "" or "body.0."."""
        # practice: Walk the tree
        yield prefix, self
        for name, child in self.own_modules.items():
            yield from child.modules(prefix + name + ".")
        # end practice

    def named_parameters(self) -> list[tuple[str, Parameter]]:
        found = []
        for prefix, module in self.modules():
            for name, parameter in module.own_parameters.items():
                found.append((prefix + name, parameter))
        return found

    def parameters(self) -> list[Parameter]:
        return [parameter for _, parameter in self.named_parameters()]

    def register_forward_hook(self, hook: Callable) -> Callable[[], None]:
        """hook(module, inputs, output) runs after each forward. Returns what takes it off again."""
        self.hooks.append(hook)
        return partial(self.hooks.remove, hook)

    def __call__(self, *inputs: Any) -> Any:
        output = self.forward(*inputs)

        # Over a copy, because a hook may take itself off.
        for hook in list(self.hooks):
            hook(self, inputs, output)
        return output


def show_registry(cfg: Config) -> None:
    print("\n[1] To assign is to register: the module sees every self.x = …")
    model = Module()
    model.body = Module()
    model.body.first = Module()
    model.body.first.weight = Parameter(torch.zeros(4, 2))
    model.body.shift = Parameter(torch.zeros(4))
    model.scale = Parameter(torch.zeros(1))
    model.head = Module()
    model.head.weight = Parameter(torch.zeros(3, 4))
    names = [name for name, _ in model.named_parameters()]
    wanted = ["scale", "body.shift", "body.first.weight", "head.weight"]
    text = f"a name is the path to it; first what a module holds itself: {', '.join(names)}"
    check("names", text, names == wanted)

    theirs = nn.Module()
    theirs.layers = [nn.Linear(2, 2)]
    model.layers = [Linear(2, 2)]
    found = len(list(theirs.parameters())) + len(model.parameters()) - len(wanted)
    check("lost", "in a plain list of layers torch and we find {} parameters", found, below=1)

    # torch refuses to put anything but a parameter in a parameter's place; we forget the old one.
    model.head = Parameter(torch.zeros(5))
    model.scale = Module()
    model.scale.weight = Parameter(torch.zeros(8))
    model.body.shift = torch.zeros(6)
    model.body.first.weight = Parameter(torch.zeros(7, 2))
    shapes = {name: list(values.shape) for name, values in model.named_parameters()}
    wanted = {"scale.weight": [8], "body.first.weight": [7, 2], "head": [5]}
    check("replaced", f"a new value makes the old one forgotten: {shapes}", shapes == wanted)


class Linear(Module):
    """y = x Wᵀ + b. (B, I) -> (B, O)"""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = Parameter(torch.empty(outputs, inputs).uniform_(-bound, bound))
        self.bias = Parameter(torch.empty(outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T + self.bias


class ReLU(Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(min=0)


class Sequential(Module):
    """One module after the other; their names are "0", "1", …"""

    def __init__(self, *modules: Module) -> None:
        super().__init__()
        for number, module in enumerate(modules):
            setattr(self, str(number), module)

    def forward(self, x: Tensor) -> Tensor:
        for module in self.own_modules.values():
            x = module(x)
        return x


def show_layers(cfg: Config) -> int:
    print("\n[2] One network from our parts and from torch's: the same seed, the same numbers")
    ours, theirs = make_model(cfg), make_model(cfg, nn)
    for name, parameter in ours.named_parameters():
        print(f"  {name:<14}{tuple(parameter.shape)!s:<12}{parameter.numel():>7,}")
    count = sum(parameter.numel() for parameter in ours.parameters())
    wanted = 3 * cfg.hidden + (cfg.hidden + 1) * (cfg.hidden + 3)
    text = f"3H + (H + 1)(H + 3) parameters for H = {cfg.hidden}; we find {{}}"
    check("count", text, count, at_least=wanted, at_most=wanted)

    x = torch.randn(20, 2)
    numbers = []
    for model in [ours, theirs]:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        output = model(x)
        output.square().mean().backward()
        optimizer.step()
        gradients = [parameter.grad for parameter in model.parameters()]
        parts = [output, *gradients, *model.parameters()]
        numbers.append(torch.cat([part.detach().flatten() for part in parts]))
    text = "outputs, gradients, and the weights after a step of torch's SGD are those of torch"
    check_close("same-step", text, *numbers)
    return count


def state_dict(model: Module) -> dict[str, Tensor]:
    """All that has to be saved, by name: parameters and buffers, in the model's own memory."""
    state = {}
    for prefix, module in model.modules():
        for name, values in (module.own_parameters | module.own_buffers).items():
            state[prefix + name] = values.detach()
    return state


def load_state_dict(model: Module, state: dict[str, Tensor]) -> None:
    """Copy the numbers of `state` into the model: all of them, or none.

    Raises KeyError if the names are not the same, ValueError if a shape is another one.
    """
    # practice: All or nothing
    ours = state_dict(model)
    different = ours.keys() ^ state.keys()
    if different:
        raise KeyError(f"only on one side: {', '.join(sorted(different))}")

    for name, values in ours.items():
        if values.shape != state[name].shape:
            shape = tuple(state[name].shape)
            raise ValueError(f"{name} has shape {shape}, wanted {tuple(values.shape)}")

    # By now nothing can go wrong any more.
    for name, values in ours.items():
        values.copy_(state[name])
    # end practice


def show_state(cfg: Config) -> None:
    print("\n[3] A state_dict is the model without its code: names and numbers")
    ours, theirs = make_model(cfg), make_model(cfg, nn)
    ours.loose = torch.zeros(2)
    ours.centre = torch.zeros(2)
    names = list(state_dict(ours))
    text = f"the buffer “centre”, also a new one, and 6 parameters: the {len(names)} names of torch"
    check("state-names", text, names == list(theirs.state_dict()))

    held = ours.parameters()
    trained = {name: v + torch.randn_like(v) for name, v in state_dict(ours).items()}
    load_state_dict(ours, trained)
    theirs.load_state_dict(trained)
    for values in trained.values():
        values += 1
    x = torch.randn(20, 2)
    text = "one state, loaded into both and then changed: both models have the same outputs"
    check_close("exchange", text, ours(x), theirs(x))
    same = all(new is old for new, old in zip(ours.parameters(), held))
    check("held", "an optimizer made before still holds the parameters of the model", same)

    lacking = {name: values for name, values in trained.items() if name != "head.bias"}
    misfits = {
        "one name too many": trained | {"extra": x},
        "one name too few": lacking,
        "a transposed weight": trained | {"head.weight": trained["head.weight"].T},
        "a bias of length 1": trained | {"head.bias": torch.zeros(1)},
    }
    refused = 0
    for what, state in misfits.items():
        before = ours(x)
        try:
            load_state_dict(ours, state)
        except (KeyError, ValueError, RuntimeError) as error:
            print(f"  {what:<20}{type(error).__name__}: {error.args[0]}")
            refused += torch.equal(ours(x), before)
    check("refused", "{} misfits are refused before a number is copied", refused, at_least=4)


def spread_by_layer(model: Module, x: Tensor) -> list[float]:
    """How much samples differ behind each ReLU: the mean standard deviation, seen by hooks."""
    spreads = []

    def note(module: Module, inputs: tuple, output: Tensor) -> None:
        spreads.append(output.std(dim=0).mean().item())  # (B, H) -> (H,) -> a number

    relus = [module for _, module in model.modules() if isinstance(module, ReLU)]
    removers = [relu.register_forward_hook(note) for relu in relus]
    model(x)
    for remove in removers:
        remove()
    return spreads


def show_hooks(cfg: Config) -> dict[str, list[float]]:
    print("\n[4] A hook sees what leaves a layer, and the model is not changed for it")
    x = torch.randn(256, cfg.hidden)
    curves = {}
    for name, factor in [("as Linear starts", 1.0), ("times √6", math.sqrt(6)), ("times 4", 4.0)]:
        layers = []
        for _ in range(10):
            layers += [Linear(cfg.hidden, cfg.hidden), ReLU()]
        model = Sequential(*layers)
        for parameter in model.parameters():
            parameter.data *= factor
        spreads = spread_by_layer(model, x)
        curves[name] = spreads
        print(f"  weights {name:<17}layer 1: {spreads[0]:<8.3g}layer 10: {spreads[-1]:.3g}")
    output = model(x)
    right = len(spreads) == 10 and spreads[-1] == output.std(dim=0).mean().item()
    check("hook", "ten layers, ten values, the last is the output's; then the hooks are off", right)

    faded, kept = curves["as Linear starts"], curves["times √6"]
    text = "as Linear starts, differences between samples become {} times smaller in nine layers"
    check("faded", text, faded[0] / faded[-1], at_least=6**4.5 / 2)
    check("kept", "with weights √6 times as large, {} times smaller", kept[0] / kept[-1], below=6)
    return curves


# Pictures and helpers: skip on a first reading


def draw_hooks(cfg: Config, curves: dict[str, list[float]]) -> None:
    figure, axis = new_figure(size=(9, 4.8))
    plot_curves(axis, curves, xlabel="layer", ylabel="difference (log scale)", log=True)
    axis.set_title("What the hooks saw: how far apart samples are behind each layer")
    save_figure(figure, cfg.out / "hooks")


def make_model(cfg: Config, kit: Any = None) -> Any:
    """(B, 2) -> (B, 3), from the parts of `kit` or from ours. The same seed, the same weights."""
    kit = kit or SimpleNamespace(Module=Module, Linear=Linear, ReLU=ReLU, Sequential=Sequential)
    width = cfg.hidden

    class Model(kit.Module):
        def __init__(self) -> None:
            super().__init__()
            layers = [kit.Linear(2, width), kit.ReLU(), kit.Linear(width, width), kit.ReLU()]
            self.body = kit.Sequential(*layers)
            self.head = kit.Linear(width, 3)
            self.register_buffer("centre", torch.tensor([0.5, -0.5]))

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x - self.centre))

    torch.manual_seed(cfg.seed)
    return Model()


def run(cfg: Config) -> dict[str, float]:
    show_registry(cfg)
    count = show_layers(cfg)
    show_state(cfg)
    curves = show_hooks(cfg)
    draw_hooks(cfg, curves)
    faded = curves["as Linear starts"]
    return {"parameters": count, "faded": faded[0] / faded[-1]}


if __name__ == "__main__":
    main(run, Config, __doc__)
