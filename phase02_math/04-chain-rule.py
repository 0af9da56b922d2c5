"""2.4 The chain rule: sixty lines that differentiate anything, and train a network
链式法则：六十行代码就能对一切求导，并训练出一个网络

You will be able to answer
    1. How does one change travel through several steps?              show_chain      by-hand, differences
    2. Why backwards, why in this order, and why += ?                 show_graph      shared, once
    3. Is this really what PyTorch's autograd computes?               show_parity     values, gradients
    4. Does a network made of such numbers agree with torch's?        show_twin       twin-loss, twin-gradient
    5. Can it learn two moons, which no straight line separates?      show_moons      overfits, input-matters, accuracy, line
Run       python phase02_math/04-chain-rule.py                             about 15 s
Needs     phase02_math/03-derivatives-gradients
Reference torch.autograd, torch.nn
"""
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.figures import BLUE, GREY, ORANGE, RED, new_figure, plot_curves, save_figure
from common.lessons import load_lesson

gradient = load_lesson("phase02_math/03-derivatives-gradients").gradient


@dataclass
class Config(LessonConfig):
    expressions: int = param(100, "random expressions compared with torch", tiny=20)
    samples: int = param(200, "points of the two moons to train on, and twice as many to test", tiny=40)
    hidden_dim: int = param(12, "units in the hidden layer", tiny=6)
    steps: int = param(200, "steps of gradient descent over all samples", tiny=25)
    lr: float = param(0.5, "learning rate")


class Value:
    """A number that remembers what it was made from: (parent, local derivative) for each input of the operation."""

    def __init__(self, data: float, parents: tuple[tuple["Value", float], ...] = (), name: str = ""):
        self.data, self.parents, self.name, self.grad = float(data), parents, name, 0.0

    def __add__(self, other: "Value | float") -> "Value":
        other = as_value(other)
        return Value(self.data + other.data, ((self, 1.0), (other, 1.0)), "+")

    def __mul__(self, other: "Value | float") -> "Value":
        other = as_value(other)
        # practice: the product rule
        # hint: with b held still, a·b changes b times as fast as a: the local derivative with respect to each factor is the other factor
        # hint: product = self.data * other.data
        product = self.data * other.data
        local = ((self, other.data), (other, self.data))
        result = Value(product, local, "×")
        # end practice
        return result

    def __pow__(self, n: float) -> "Value":
        return Value(self.data ** n, ((self, n * self.data ** (n - 1)),), f"^{n}")

    def exp(self) -> "Value":
        return Value(math.exp(self.data), ((self, math.exp(self.data)),), "exp")

    def log(self) -> "Value":
        return Value(math.log(self.data), ((self, 1 / self.data),), "log")

    def tanh(self) -> "Value":
        # practice: a derivative that needs only the result
        # hint: tanh' = 1 - tanh², and the value of tanh is already known when its derivative is wanted
        # hint: t = math.tanh(self.data)
        t = math.tanh(self.data)
        slope = 1 - t * t
        result = Value(t, ((self, slope),), "tanh")
        # end practice
        return result

    def relu(self) -> "Value":
        return Value(max(self.data, 0.0), ((self, float(self.data > 0)),), "relu")

    def __neg__(self) -> "Value":
        return self * -1.0

    def __sub__(self, other: "Value | float") -> "Value":
        return self + -as_value(other)

    def __truediv__(self, other: "Value | float") -> "Value":
        return self * as_value(other) ** -1

    __radd__, __rmul__ = __add__, __mul__                   # 2 + value, 2 * value; sum() begins with 0 + value

    def ancestors(self) -> list["Value"]:
        """Everything this was made from, each once, and every value after all of its parents."""
        order, seen, waiting = [], set(), [(self, False)]
        while waiting:                                      # with recursion a long sum would end in RecursionError
            value, parents_done = waiting.pop()
            # practice: parents first
            # hint: a value is met twice: first put it back to wait, marked as done, with its parents on top of it
            # hint: if parents_done: order.append(value)
            if parents_done:
                order.append(value)
            elif value not in seen:
                seen.add(value)
                waiting.append((value, True))
                waiting.extend((parent, False) for parent, _ in value.parents)
            # end practice
        return order

    def backward(self) -> None:
        """Add d(self)/d(value) to the .grad of every value that this was made from."""
        # practice: the chain rule, backwards
        # hint: the result changes with itself one to one; then go from the result to the inputs
        # hint: each parent gets the value's own gradient times the local derivative; the shares of several children add up
        # hint: self.grad = 1.0, then walk over reversed(self.ancestors())
        self.grad = 1.0
        for value in reversed(self.ancestors()):
            for parent, local in value.parents:
                parent.grad += local * value.grad
        # end practice

    def detach(self) -> torch.Tensor:                       # this and Network.train are what checks.overfits asks for
        return torch.tensor(self.data)


def as_value(x: "Value | float") -> Value:
    return x if isinstance(x, Value) else Value(x)


class Network:
    """Layers of units: each adds up its weighted inputs and a bias; between the layers tanh. sizes: (2, 12, 1)"""

    def __init__(self, sizes: tuple[int, ...], rng: np.random.Generator):
        self.layers = [[[Value(w) for w in (*rng.normal(size=n_in) / n_in ** 0.5, 0.0)] for _ in range(n_out)]
                       for n_in, n_out in zip(sizes, sizes[1:])]

    def __call__(self, x: np.ndarray) -> Value:
        inputs = [Value(number) for number in x]
        # practice: through the layers
        # hint: a unit's last number is its bias, whose input is always 1; tanh after every layer but the last, or the layers would melt into one linear map
        # hint: for depth, layer in enumerate(self.layers): …
        for depth, layer in enumerate(self.layers):
            inputs = [weighted_sum(unit, inputs + [Value(1.0)]) for unit in layer]
            if depth < len(self.layers) - 1:
                inputs = [unit.tanh() for unit in inputs]
        # end practice
        return inputs[0]

    def parameters(self) -> list[Value]:
        return [weight for layer in self.layers for unit in layer for weight in unit]

    def train(self) -> None:
        """Nothing here behaves otherwise in training."""


def weighted_sum(weights: list[Value], inputs: list[Value]) -> Value:
    """Σ w·x as one node, where single additions would make two dozen: each side's local derivative is the other."""
    pairs = list(zip(weights, inputs))
    local = tuple((w, x.data) for w, x in pairs) + tuple((x, w.data) for w, x in pairs)
    return Value(sum(w.data * x.data for w, x in pairs), local, "Σ")


class GradientDescent:
    def __init__(self, parameters: list[Value], lr: float, momentum: float = 0.9):
        self.parameters, self.lr, self.momentum = parameters, lr, momentum
        self.speed = [0.0] * len(parameters)

    def zero_grad(self) -> None:
        for p in self.parameters:
            p.grad = 0.0

    def step(self) -> None:
        for i, p in enumerate(self.parameters):
            self.speed[i] = self.momentum * self.speed[i] - self.lr * p.grad
            p.data += self.speed[i]


def logistic_loss(model: Network, batch: tuple[np.ndarray, np.ndarray]) -> Value:
    """Mean of log(1 + exp(-score)) for class 1, log(1 + exp(score)) for class 0."""
    scores = [(model(x), 1.0 if label else -1.0) for x, label in zip(*batch)]
    return sum((1 + (score * -side).exp()).log() for score, side in scores) * (1 / len(scores))


def moons(n: int, rng: np.random.Generator, noise: float = 0.15) -> tuple[np.ndarray, np.ndarray]:
    """Two half circles that reach into each other. -> points (n, 2), labels (n,) 0 or 1"""
    labels, t = np.arange(n) % 2, rng.uniform(0, np.pi, n)
    upper, lower = np.stack([np.cos(t), np.sin(t)], axis=1), np.stack([1 - np.cos(t), 0.5 - np.sin(t)], axis=1)
    return np.where(labels[:, None] == 0, upper, lower) + rng.normal(scale=noise, size=(n, 2)), labels


def random_program(rng: np.random.Generator) -> Callable:
    """A formula of 12 random operations on 4 numbers, for our values and torch's tensors alike."""
    operations = (lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b.tanh(), lambda a, b: a / (b * b + 1),
                  lambda a, b: (a * a + 1).log(), lambda a, b: a.tanh().exp(), lambda a, b: (a.tanh() + 2) ** 3,
                  lambda a, b: a.relu() - 2 * b.relu(), lambda a, b: (-a).tanh() + 1)
    steps = [(operations[rng.integers(len(operations))], *rng.integers(-4, 0, 2)) for _ in range(12)]

    def program(*numbers):
        pool = list(numbers)
        for operation, i, j in steps:
            pool.append(operation(pool[i], pool[j]))        # i and j may meet: then one value is used twice
        return pool[-1] * pool[-2] + pool[-3]
    return program


def show_chain(cfg: Config) -> None:
    print("\n[1] f = (a·b + c)²: each step has a simple slope, and the chain rule multiplies them")
    f = lambda a, b, c: (a * b + c) ** 2
    a, b, c = Value(2), Value(-3), Value(10)
    result = f(a, b, c)
    result.backward()
    print(f"  a = 2, b = -3, c = 10: f = {result.data:g};  the square's slope is 2·4 = 8")
    print(f"  df/dc = 8 = {c.grad:g}   df/da = 8·b = {a.grad:g}   df/db = 8·a = {b.grad:g}")
    check_close("by-hand", "the engine finds what we found on paper: -24, 16, 8", [a.grad, b.grad, c.grad], [-24.0, 16.0, 8.0])
    check_close("differences", "and what measuring finds (2.3)", gradient(lambda x: f(*map(Value, x)).data,
                np.array([2.0, -3.0, 10.0])), [a.grad, b.grad, c.grad], atol=1e-7)


def show_graph(cfg: Config) -> None:
    print("\n[2] The graph: parents before children on the way forward, children before parents on the way back")
    x = Value(3)
    (x * x + x).backward()
    check_close("shared", "x·x + x at 3: three uses of x give three shares, 3 + 3 + 1", x.grad, 7.0)
    x = Value(1)
    y = x
    for _ in range(60):
        y = y + y
    y.backward()
    print(f"  60 doublings: {2 ** 60:,} paths from the end to the start, but only {len(y.ancestors())} values")
    check("once", "each value is visited once, after all who use it, and the slope is 2^60",
          x.grad == 2.0 ** 60 and len(y.ancestors()) == 61)
    draw_graph(cfg)


def show_parity(cfg: Config) -> None:
    print(f"\n[3] {cfg.expressions} random formulas of a dozen operations: the engine beside torch.autograd")
    rng, ours, theirs = cfg.rng(), [], []
    for _ in range(cfg.expressions):
        program, numbers = random_program(rng), rng.normal(size=4)
        values = [Value(x) for x in numbers]
        tensors = torch.tensor(numbers, requires_grad=True)
        mine, reference = program(*values), program(*tensors)
        mine.backward()
        reference.backward()
        ours.append([mine.data] + [v.grad for v in values])
        theirs.append([reference.item(), *tensors.grad.tolist()])
    ours, theirs = np.array(ours), np.array(theirs)
    check_close("values", "the same values", ours[:, 0], theirs[:, 0])
    check_close("gradients", "the same gradients, all four of each", ours[:, 1:], theirs[:, 1:])


def show_twin(cfg: Config) -> None:
    print("\n[4] A network of single numbers, and its twin in torch with the same weights")
    model, (x, y) = Network((2, cfg.hidden_dim, 1), cfg.rng()), moons(20, cfg.rng())
    twin = torch.nn.Sequential(torch.nn.Linear(2, cfg.hidden_dim), torch.nn.Tanh(), torch.nn.Linear(cfg.hidden_dim, 1))
    twin = twin.double()
    for layer, linear in zip(model.layers, (twin[0], twin[2])):
        weights = torch.tensor([[w.data for w in unit] for unit in layer], dtype=torch.float64)
        linear.weight.data, linear.bias.data = weights[:, :-1], weights[:, -1]
    loss = logistic_loss(model, (x, y))
    reference = torch.nn.functional.binary_cross_entropy_with_logits(twin(torch.tensor(x))[:, 0], torch.tensor(y * 1.0))
    loss.backward()
    reference.backward()
    check_close("twin-loss", f"the same loss from {len(model.parameters())} weights", loss.data, reference.item())
    theirs = [torch.cat([linear.weight.grad, linear.bias.grad[:, None]], dim=1).flatten() for linear in (twin[0], twin[2])]
    check_close("twin-gradient", f"the same gradients, through {len(loss.ancestors()):,} values",
                [w.grad for w in model.parameters()], torch.cat(theirs))


def show_moons(cfg: Config) -> dict:
    print("\n[5] Two moons, learned by nothing but the lines above")
    rng = cfg.rng()
    train, (x_test, y_test) = moons(cfg.samples, rng), moons(2 * cfg.samples, rng)
    few = train[0][:16], train[1][:16]
    model = Network((2, cfg.hidden_dim, 1), rng)
    overfits("overfits", "it can learn 16 points by heart", model, few, logistic_loss,
             GradientDescent(model.parameters(), cfg.lr), steps=120, below=0.1)
    models, curves, scores = {"line": Network((2, 1), rng), "network": Network((2, cfg.hidden_dim, 1), rng)}, {}, {}
    for name, model in models.items():
        optimizer, curves[name] = GradientDescent(model.parameters(), cfg.lr), []
        for _ in range(cfg.steps):
            loss = logistic_loss(model, train)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            curves[name].append(loss.data)
        predicted = np.array([model(x).data > 0 for x in x_test]).astype(int)
        scores[name] = (predicted == y_test).mean()
    print(f"  test accuracy: guessing 0.500   straight line {scores['line']:.3f}   network {scores['network']:.3f}")
    depends_on_input("input-matters", "the answer depends on the point", predicted, y_test)
    expect("accuracy", "the network on unseen points", scores["network"], at_least=0.95)
    expect("line", "a straight line cannot do it", scores["line"], at_most=0.92)
    draw_moons(cfg, models, train, curves)
    return scores | {f"loss_{name}": curve for name, curve in curves.items()}


def draw_graph(cfg: Config) -> None:
    """f = tanh(a·b + c)·a: every value with its gradient, every edge with its local derivative."""
    a, b, c = Value(0.8, name="a"), Value(-1.5, name="b"), Value(2.0, name="c")
    result = (a * b + c).tanh() * a
    result.backward()
    depth: dict[Value, int] = {}
    for value in result.ancestors():
        depth[value] = 1 + max((depth[parent] for parent, _ in value.parents), default=-1)
    places = {value: (2.6 * d, 0.0) for value, d in depth.items()} | {a: (0, 1.5), b: (0, 0), c: (0, -1.5)}
    figure, axis = new_figure(size=(11.4, 4.6))
    for value, (x, y) in places.items():
        for parent, local in value.parents:
            far = parent is a and depth[value] > 1          # the long edge goes over the others
            axis.annotate("", (x, y), places[parent], arrowprops={"arrowstyle": "-|>", "color": GREY, "shrinkA": 34,
                          "shrinkB": 34, "linewidth": 1.8, "connectionstyle": f"arc3,rad={-0.25 if far else 0}"})
            middle = np.mean([places[parent], (x, y)], axis=0) + (0.0, 1.05 if far else 0.16)
            axis.text(*middle, f"{local:.2f}", color=ORANGE, ha="center", fontweight="bold")
        axis.text(x, y, f"{value.name}\n{value.data:.2f}\ngrad {value.grad:.2f}", ha="center", va="center", fontsize=11,
                  bbox={"boxstyle": "round,pad=0.5", "facecolor": "white", "edgecolor": RED if value is result else BLUE})
    axis.set(xlim=(-0.9, 2.6 * depth[result] + 0.9), ylim=(-2.2, 2.6))
    axis.set_title("tanh(a·b + c)·a: local derivatives on the way forward (orange), gradients on the way back")
    axis.axis("off")
    save_figure(figure, cfg.out / "graph")


def draw_moons(cfg: Config, models: dict[str, Network], train: tuple, curves: dict[str, list[float]]) -> None:
    figure, (left, right) = new_figure(1, 2, size=(11.4, 4.6))
    plot_curves(left, curves, xlabel="step", start=1)
    left.set_title("Training loss")
    (points, labels), side = train, 12 if cfg.tiny else 50
    across, up = np.linspace(-1.7, 2.7, side), np.linspace(-1.2, 1.7, side)
    for (name, model), style in zip(models.items(), ("--", "-")):
        scores = np.array([[model(np.array([x, y])).data for x in across] for y in up])
        if name == "network":
            right.contourf(across, up, scores, levels=[-1e9, 0, 1e9], colors=(BLUE, ORANGE), alpha=0.18)
        right.contour(across, up, scores, levels=[0], colors=GREY, linestyles=style, linewidths=2)
    right.scatter(*points.T, c=np.array([BLUE, ORANGE])[labels], s=22, edgecolor="white", linewidth=0.5)
    right.set(title="Where each says “one half”: dashed line, full network", xticks=(), yticks=())
    right.grid(False)
    save_figure(figure, cfg.out / "moons")


def run(cfg: Config) -> dict:
    show_chain(cfg)
    show_graph(cfg)
    show_parity(cfg)
    show_twin(cfg)
    return show_moons(cfg)


if __name__ == "__main__":
    main(run, Config, __doc__)
