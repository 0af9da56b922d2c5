"""3.4 nn.Module: how a model finds its own parameters
nn.Module：模型如何找到自己的参数

You will be able to answer
    1. How does self.x = … make a parameter known?                 show_registry   names, count, lost
    2. What does Linear hold, how does it start and train?         show_layers     same-start, same-output, same-step
    3. What is in a state_dict, and why do buffers belong in it?   show_state      state-names, exchange, refused, moved
    4. How do you look into a model while it runs?                 show_hooks      hook
Run       python phase03_pytorch/04-nn-module.py                       about 5 s
Needs     -
Reference nn.Module, nn.Linear, nn.ReLU, nn.Sequential, nn.Parameter
Learns    no model is trained here, but for one step
Notation  B batch  I inputs  O outputs
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from common.checks import check, check_close
from common.config import LessonConfig, main, param
from common.figures import new_figure, plot_curves, save_figure


@dataclass
class Config(LessonConfig):
    hidden: int = param(128, "width of the hidden layers", tiny=16)


class Parameter(Tensor):
    """A tensor that says of itself: train me."""

    def __new__(cls, values: Tensor) -> "Parameter":
        return Tensor._make_subclass(cls, values, True)  # True: requires_grad


class Module:
    """A node of a tree: it holds parameters, buffers and other modules, by name."""

    def __init__(self) -> None:
        self.__dict__.update(parameters_here={}, buffers_here={}, children_here={}, hooks=[])

    def __setattr__(self, name: str, value: Any) -> None:
        # practice: notice what is assigned
        # hint: a Parameter goes into self.parameters_here, a Module into self.children_here; what was there is gone
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
        # hint: yield prefix, self; then yield from, with our prefix, the child's name and a dot
        yield prefix, self
        for name, child in self.children_here.items():
            yield from child.modules(prefix + name + ".")
        # end practice

    def named_parameters(self) -> list[tuple[str, Parameter]]:
        return [
            (prefix + name, p)
            for prefix, module in self.modules()
            for name, p in module.parameters_here.items()
        ]

    def parameters(self) -> list[Parameter]:
        return [parameter for _, parameter in self.named_parameters()]

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that must be saved, by name: parameters and buffers. It shares the model's memory."""
        return {
            prefix + name: values.detach()
            for prefix, module in self.modules()
            for name, values in (module.parameters_here | module.buffers_here).items()
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Copy values in. Raises KeyError when names differ, ValueError when a shape does; then nothing is changed."""
        # practice: all or nothing
        # hint: compare all names and shapes before the first copy_ into our own state_dict(), which shares the memory
        # hint: ours = self.state_dict(); the difference of two sets of keys is ours.keys() ^ state.keys()
        ours = self.state_dict()
        if different := ours.keys() ^ state.keys():
            raise KeyError(f"only on one side: {sorted(different)}")
        for name, values in ours.items():
            if values.shape != state[name].shape:
                raise ValueError(
                    f"{name}: the model has {tuple(values.shape)}, the file {tuple(state[name].shape)}"
                )
        for name, values in ours.items():
            values.copy_(state[name])
        # end practice

    def double(self) -> "Module":
        for _, module in self.modules():
            for values in (module.parameters_here | module.buffers_here).values():
                values.data = values.data.double()  # still the object that an optimizer may hold
        return self

    def register_forward_hook(self, hook: Callable) -> Callable[[], None]:
        """hook(module, inputs, output) runs after each forward. Returns a function that takes it off."""
        self.hooks.append(hook)
        return lambda: self.hooks.remove(hook)

    def __call__(self, *inputs: Any) -> Any:
        output = self.forward(*inputs)
        for hook in self.hooks:
            hook(self, inputs, output)
        return output


class Linear(Module):
    """y = x Wᵀ + b. (B, I) -> (B, O)"""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        # practice: what is trained, and where it starts
        # hint: weights (O, I), then biases (O,), uniform between -1/√I and 1/√I
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


class Sequential(Module):
    def __init__(self, *modules: Module):
        super().__init__()
        for number, module in enumerate(modules):
            setattr(self, str(number), module)

    def forward(self, x: Tensor) -> Tensor:
        for module in self.children_here.values():
            x = module(x)
        return x


class Ours:  # the names that torch.nn has
    Module, Linear, ReLU, Sequential = Module, Linear, ReLU, Sequential


def make_net(kit: Any, cfg: Config) -> Any:
    """The same lines build a model from our parts (kit=Ours) or torch's (kit=nn). (B, 2) -> (B, 3)"""

    class Net(kit.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = kit.Sequential(
                kit.Linear(2, cfg.hidden),
                kit.ReLU(),
                kit.Linear(cfg.hidden, cfg.hidden),
                kit.ReLU(),
            )
            self.head = kit.Linear(cfg.hidden, 3)
            self.register_buffer("centre", torch.tensor([0.5, -0.5]))

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x - self.centre))

    torch.manual_seed(cfg.seed)  # the same seed, the same weights
    return Net().double()


def show_registry(cfg: Config) -> int:
    print("\n[1] Assigning is registering: the module sees every self.x = …")
    ours, theirs = make_net(Ours, cfg), make_net(nn, cfg)
    for name, parameter in ours.named_parameters():
        print(f"  {name:<15}{tuple(parameter.shape)!s:<12}{parameter.numel():>7,}")
    wanted = [(name, parameter.shape) for name, parameter in theirs.named_parameters()]
    check(
        "names",
        "names, order and shapes are torch's",
        [(n, p.shape) for n, p in ours.named_parameters()] == wanted,
    )
    count = sum(parameter.numel() for parameter in ours.parameters())
    check(
        "count",
        f"{count:,} parameters, as torch counts and as the formula says",
        count
        == sum(p.numel() for p in theirs.parameters())
        == 3 * cfg.hidden + (cfg.hidden + 1) * (cfg.hidden + 3),
    )
    ours.layers, theirs.layers = (
        [Linear(2, 2)],
        [nn.Linear(2, 2)],
    )  # a list is neither Parameter nor Module
    check(
        "lost",
        "layers in a plain list are lost to the optimizer, in torch too (hence nn.ModuleList)",
        len(ours.parameters()) == len(list(theirs.parameters())) == len(wanted),
    )
    return count


def show_layers(cfg: Config) -> None:
    print("\n[2] The same seed gives the same weights, and these the same numbers")
    ours, theirs = make_net(Ours, cfg), make_net(nn, cfg)
    check(
        "same-start",
        "drawn as nn.Linear draws",
        all(map(torch.equal, ours.parameters(), theirs.parameters())),
    )
    x, results, weights = torch.randn(20, 2, dtype=torch.float64), [], []
    for net in (ours, theirs):
        output = net(x)
        output.square().sum().backward()
        results.append(torch.cat([output.flatten(), *(p.grad.flatten() for p in net.parameters())]))
        torch.optim.SGD(net.parameters(), lr=0.1).step()
        weights.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
    check_close(
        "same-output",
        "outputs and the gradients of all parameters equal those of torch.nn",
        *results,
    )
    check_close(
        "same-step",
        "torch's optimizer takes our parameters: the same weights after a step",
        *weights,
    )


def show_state(cfg: Config) -> None:
    print("\n[3] A state_dict is the model without its code: names and numbers")
    ours, theirs, x = make_net(Ours, cfg), make_net(nn, cfg), torch.randn(20, 2).double()
    check(
        "state-names",
        f"{len(ours.state_dict())} entries as torch has them, the buffer “centre” among them",
        list(ours.state_dict()) == list(theirs.state_dict())
        and len(ours.state_dict()) == len(ours.parameters()) + 1,
    )
    trained = {
        name: values + torch.randn_like(values) for name, values in ours.state_dict().items()
    }
    ours.load_state_dict(trained), theirs.load_state_dict(trained)
    check_close("exchange", "one state_dict loaded into both: the same outputs", ours(x), theirs(x))
    before, errors = ours(x), []
    for state in ({**trained, "extra": x}, {**trained, "head.bias": x}):
        try:
            ours.load_state_dict({name: values * 2 for name, values in state.items()})
        except (KeyError, ValueError) as error:
            errors.append(error.args[0])
    check(
        "refused",
        f"nothing is half loaded: {'; '.join(errors)}",
        len(errors) == 2 and torch.equal(ours(x), before),
    )
    ours.loose = torch.zeros(2)  # neither parameter nor buffer
    check(
        "moved",
        ".double() moves parameters and buffers, and forgets a plain tensor",
        ours.double().centre.dtype == ours.head.bias.dtype == torch.float64
        and ours.loose.dtype == torch.float32,
    )


def show_hooks(cfg: Config) -> dict[str, float]:
    print("\n[4] A hook sees what passes through a layer, without a change to the model")
    x, curves = torch.randn(256, cfg.hidden), {}
    for name, factor in (("as Linear starts", 1.0), ("times √6", math.sqrt(6)), ("times 4", 4.0)):
        layers = [layer for _ in range(10) for layer in (Linear(cfg.hidden, cfg.hidden), ReLU())]
        stack, seen = Sequential(*layers), curves.setdefault(name, [])
        for parameter in stack.parameters():
            parameter.data *= factor
        remove = [
            relu.register_forward_hook(
                lambda m, inputs, out: seen.append(out.std(dim=0).mean().item())
            )
            for relu in layers[1::2]
        ]
        output = stack(x)
        print(f"  weights {name:<17}after layer 1: {seen[0]:<8.3g}after layer 10: {seen[-1]:.3g}")
    for take_off in remove:
        take_off()
    check(
        "hook",
        "ten layers, ten values, the last one the output's; and none more once the hooks are off",
        torch.equal(stack(x), output)
        and len(seen) == 10
        and seen[-1] == output.std(dim=0).mean().item(),
    )
    figure, axis = new_figure(size=(9, 4.8))
    plot_curves(
        axis, curves, xlabel="layer", ylabel="difference between samples (log scale)", log=True
    )
    axis.set_title("What the hooks saw: how much of the input is left after each layer")
    save_figure(figure, cfg.out / "hooks")
    return {"faded": curves["as Linear starts"][0] / curves["as Linear starts"][-1]}


def run(cfg: Config) -> dict:
    count = show_registry(cfg)
    show_layers(cfg)
    show_state(cfg)
    return {"parameters": count, **show_hooks(cfg)}


if __name__ == "__main__":
    main(run, Config, __doc__)
