"""3.4 nn.Module: how a model finds its own parameters
nn.Module：模型如何找到自己的参数

You will be able to answer
    1. How does self.x = … make x known?        show_registry  names, replaced
    2. Do our parts train like those of torch?  show_layers    same-step
    3. What is in a state_dict, and why?        show_state     state-names, exchange, held, refused
    4. How do you look into a running model?    show_hooks     hook, faded
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

    # So that weight * 2 is no Parameter: self.twice = weight * 2 would register it.
    __torch_function__ = torch._C._disabled_torch_function_impl

    def __new__(cls, values: Tensor) -> "Parameter":
        # detach: training must not reach back to what the values were computed from.
        return values.detach().as_subclass(cls).requires_grad_()


class Module:
    """A node of a tree. It holds parameters, buffers and other modules, each under a name."""

    def __init__(self) -> None:
        # Past our own __setattr__ below: it looks into these, so they have to be there first.
        for name in ["own_parameters", "own_buffers", "own_modules"]:
            object.__setattr__(self, name, {})
        self.hooks = []

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
        # The name is now that of a buffer, so __setattr__ keeps it one, whatever it was before.
        setattr(self, name, values)

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
        for hook in self.hooks:
            hook(self, inputs, output)
        return output


class Linear(Module):
    """y = x Wᵀ + b. (B, I) -> (B, O)"""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        # torch's rule, and in torch's order: so the same seed gives both the same numbers.
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


def show_registry(cfg: Config) -> None:
    print("\n[1] To assign is to register: the module sees every self.x = …")
    model = Module()
    model.body = Sequential(Linear(2, 4), ReLU())
    model.head = Linear(4, 3)
    model.scale = Parameter(torch.zeros(1))
    # A list is neither a parameter nor a module. torch does not look into it either.
    model.layers = [Linear(2, 2)]
    names = [name for name, _ in model.named_parameters()]
    wanted = ["scale", "body.0.weight", "body.0.bias", "head.weight", "head.bias"]
    text = f"{', '.join(names)}: all but the list, each under the path to it"
    check("names", text, names == wanted)

    model.head = Parameter(torch.zeros(5))  # was a module
    model.scale = ReLU()  # was a parameter; torch would refuse this
    model.body = torch.zeros(6)  # was a module; torch would refuse this too
    names = [name for name, _ in model.named_parameters()]
    text = f"three replacements, and nothing old is left among the parameters: {', '.join(names)}"
    check("replaced", text, names == ["head"])


def show_layers(cfg: Config) -> int:
    print("\n[2] One network from our parts and from torch's: the same seed, the same numbers")
    ours, theirs = make_model(cfg), make_model(cfg, nn)
    count = sum(parameter.numel() for parameter in ours.parameters())
    print(f"  {count:,} parameters")
    x = torch.randn(20, 2)
    numbers = []
    for model in [ours, theirs]:
        # torch's optimizer trains our parameters: it asks for tensors with a gradient, no more.
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        output = model(x)
        output.square().mean().backward()
        optimizer.step()
        parts = [output, *model.parameters(), *(p.grad for p in model.parameters())]
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
            raise ValueError(f"{name}: {tuple(state[name].shape)}, wanted {tuple(values.shape)}")

    # By now nothing can go wrong any more. In place, for an optimizer may hold these tensors.
    for name, values in ours.items():
        values.copy_(state[name])
    # end practice


def show_state(cfg: Config) -> None:
    print("\n[3] A state_dict is the model without its code: names and numbers")
    ours, theirs = make_model(cfg), make_model(cfg, nn)
    ours.loose = torch.zeros(2)  # a plain tensor: not saved
    ours.centre = torch.zeros(2)  # a new value for a buffer: saved
    text = "it has the names that torch's has: 6 parameters, and the buffer “centre”"
    check("state-names", text, list(state_dict(ours)) == list(theirs.state_dict()))

    held = ours.parameters()
    trained = {name: v + torch.randn_like(v) for name, v in state_dict(ours).items()}
    load_state_dict(ours, trained)
    theirs.load_state_dict(trained)
    # Whoever kept a reference instead of copying would see this.
    for values in trained.values():
        values += 1
    x = torch.randn(20, 2)
    text = "one state, loaded into both and then changed: both models have the same outputs"
    check_close("exchange", text, ours(x), theirs(x))
    same = all(new is old for new, old in zip(ours.parameters(), held))
    check("held", "an optimizer made before still holds the parameters of the model", same)

    misfits = {
        "one name too many": trained | {"extra": x},
        "one name too few": {n: values for n, values in trained.items() if n != "head.bias"},
        "a transposed weight": trained | {"head.weight": trained["head.weight"].T},
        "a bias of length 1": trained | {"head.bias": torch.zeros(1)},
    }
    before = ours(x)
    loaded = []
    for what, state in misfits.items():
        try:
            load_state_dict(ours, state)
            loaded.append(what)
        except (KeyError, ValueError, RuntimeError) as error:
            print(f"  {what:<20}{error!r}")
    text = f"misfits are refused, and none of their numbers copied; loaded: {loaded or 'none'}"
    check("refused", text, not loaded and torch.equal(ours(x), before))


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


def show_hooks(cfg: Config) -> list[float]:
    print("\n[4] A hook sees what leaves a layer, and the model is not changed for it")
    layers = []
    for _ in range(10):
        layers += [Linear(cfg.hidden, cfg.hidden), ReLU()]
    model = Sequential(*layers)
    x = torch.randn(256, cfg.hidden)
    spreads = spread_by_layer(model, x)
    last = model(x).std(dim=0).mean()
    check_close("hook", "the tenth hook saw what the model returns", spreads[9], last)

    # From the note: a layer leaves 1/√6 if samples are nearly alike, √(0.341/3) if not at all.
    text = "differences between samples become {} times smaller in nine layers"
    check("faded", text, spreads[0] / spreads[-1], at_least=6**4.5, at_most=(3 / 0.341) ** 4.5)
    return spreads


# Pictures and helpers: skip on a first reading


def draw_hooks(cfg: Config, spreads: list[float]) -> None:
    curves = {
        "measured": spreads,
        "if alike": [spreads[0] * 6 ** (-layer / 2) for layer in range(10)],
        "if unlike": [spreads[0] * (0.341 / 3) ** (layer / 2) for layer in range(10)],
    }
    figure, axis = new_figure(size=(9, 4.8))
    plot_curves(axis, curves, "layer", "standard deviation over samples", log=True)
    axis.set(xticks=range(1, 11), title="Layer after layer, samples become more alike")
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
    spreads = show_hooks(cfg)
    draw_hooks(cfg, spreads)
    return {"parameters": count, "faded": spreads[0] / spreads[-1]}


if __name__ == "__main__":
    main(run, Config, __doc__)
