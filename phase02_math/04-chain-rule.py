"""2.4 The chain rule: forty lines that differentiate anything, and train a network
链式法则：四十行代码就能对一切求导，并训练出一个网络

You will be able to answer
    1. How does one change travel through several steps?           show_chain      by-hand, measured
    2. Why backwards, why in this order, and why += ?              show_graph      shared, once
    3. Is this really what PyTorch's autograd computes?            show_parity     values, gradients
    4. Can it learn two moons, which no straight line separates?   show_moons      overfits, depends, accuracy, better
Run       python phase02_math/04-chain-rule.py                             about 10 s
Needs     phase02_math/03-derivatives-gradients
Reference torch.autograd, torch.nn
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.figures import BLUE, GREY, ORANGE, RED, new_figure, save_figure
from common.lessons import load_lesson

gradient = load_lesson("phase02_math/03-derivatives-gradients").gradient


@dataclass
class Config(LessonConfig):
    samples: int = param(80, "points of the two moons to train on", tiny=20, low=20)
    steps: int = param(120, "steps of gradient descent over all samples", tiny=25)
    lr: float = param(0.5, "learning rate")


class Value:
    """A number that remembers what it was made from: (parent, local derivative) for each input of the operation."""

    def __init__(
        self, data: float, parents: tuple[tuple["Value", float], ...] = (), name: str = ""
    ):
        self.data, self.parents, self.name, self.grad = float(data), parents, name, 0.0

    def __add__(self, other: "Value | float") -> "Value":
        other = other if isinstance(other, Value) else Value(other)
        return Value(self.data + other.data, ((self, 1.0), (other, 1.0)), "+")

    def __mul__(self, other: "Value | float") -> "Value":
        other = other if isinstance(other, Value) else Value(other)
        # practice: the product rule
        # hint: with b held still, a·b changes b times as fast as a, and the other way round
        # hint: product = self.data * other.data
        product = self.data * other.data
        parents = ((self, other.data), (other, self.data))
        result = Value(product, parents, "×")
        # end practice
        return result

    __radd__, __rmul__ = __add__, __mul__  # 2 + value, 2 * value; sum() adds like this
    __rsub__ = lambda self, other: self * -1.0 + other
    __sub__ = lambda self, other: self + other * -1.0
    __truediv__ = lambda self, other: self * other**-1
    __pow__ = lambda self, n: Value(self.data**n, ((self, n * self.data ** (n - 1)),), f"^{n}")
    exp = lambda self: Value(e := math.exp(self.data), ((self, e),), "exp")
    tanh = lambda self: Value(t := math.tanh(self.data), ((self, 1 - t * t),), "tanh")
    log = lambda self: Value(math.log(self.data), ((self, 1 / self.data),), "log")
    relu = lambda self: Value(max(self.data, 0.0), ((self, float(self.data > 0)),), "relu")

    def ancestors(self) -> list["Value"]:
        """Everything this was made from, each once, and every value after all of its parents."""
        order, seen, waiting = [], set(), [(self, False)]
        while waiting:  # with recursion a long sum would end in RecursionError
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
        # hint: a parent gets the value's own gradient times the local derivative; what several children owe it adds up
        # hint: self.grad = 1.0, then walk over reversed(self.ancestors())
        self.grad = 1.0
        for value in reversed(self.ancestors()):
            for parent, local in value.parents:
                parent.grad += local * value.grad
        # end practice

    detach, item = (
        lambda self: self,
        lambda self: self.data,
    )  # names that checks.overfits knows from torch


class Network:
    """Layers of units, each adding up its weighted inputs and a bias; tanh between the layers. sizes: (2, 8, 1)"""

    def __init__(self, sizes: tuple[int, ...], rng: np.random.Generator):
        self.layers = [
            [[Value(w) for w in (*rng.normal(size=n_in) / n_in**0.5, 0.0)] for _ in range(n_out)]
            for n_in, n_out in zip(sizes, sizes[1:])
        ]
        self.parameters = [weight for layer in self.layers for unit in layer for weight in unit]
        self.train = lambda: None  # overfits calls it; nothing here has a mode

    def __call__(self, x: np.ndarray) -> Value:
        for depth, layer in enumerate(self.layers):
            inputs = [value.tanh() for value in values] if depth else x
            values = [
                sum((w * v for w, v in zip(unit, inputs)), unit[-1]) for unit in layer
            ]  # the last is the bias
        return values[0]


class GradientDescent:
    def __init__(self, parameters: list[Value], lr: float):
        self.parameters, self.lr, self.speed = parameters, lr, [0.0] * len(parameters)

    def zero_grad(self) -> None:
        for p in self.parameters:
            p.grad = 0.0

    def step(self) -> None:
        for i, p in enumerate(self.parameters):
            self.speed[i] = (
                0.9 * self.speed[i] - self.lr * p.grad
            )  # momentum: lesson 2.5 shows what it is for
            p.data += self.speed[i]


def logistic_loss(model: Network, batch: tuple[np.ndarray, np.ndarray]) -> Value:
    """Mean of log(1 + exp(-score)) for class 1, log(1 + exp(score)) for class 0. batch: points (n, 2), labels (n,)"""
    return sum((1 + (model(x) * (1.0 - 2.0 * y)).exp()).log() for x, y in zip(*batch)) * (
        1 / len(batch[0])
    )


def moons(n: int, rng: np.random.Generator, noise: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Two half circles that reach into each other. -> points (n, 2), labels (n,) 0 or 1"""
    labels, t = np.arange(n) % 2, rng.uniform(0, np.pi, n)
    points = np.where(labels == 0, [np.cos(t), np.sin(t)], [1 - np.cos(t), 0.5 - np.sin(t)]).T
    return points + rng.normal(scale=noise, size=(n, 2)), labels


def random_program(rng: np.random.Generator):
    """A formula of 12 random operations on 4 numbers, for our values and torch's tensors alike."""
    operations = (
        lambda a, b: a + b,
        lambda a, b: 1 - a * b.tanh(),
        lambda a, b: a / (b * b + 1),
        lambda a, b: b - a,
        lambda a, b: (a * a + 1).log(),
        lambda a, b: a.tanh().exp(),
        lambda a, b: (a + b).relu() - 2 * b,
        lambda a, b: (a.tanh() + 2) ** 3,
    )
    steps = [
        (operations[rng.integers(len(operations))], rng.integers(-4, 0), rng.integers(0, 4))
        for _ in range(12)
    ]

    def program(*pool):
        for operation, i, j in steps:  # one of the last results, one of the 4 numbers
            pool = *pool, operation(pool[i], pool[j])
        return pool[-1] * pool[-2] + pool[-3]

    return program


def show_chain(cfg: Config) -> None:
    print("\n[1] f = (a·b + c)²: each step has a simple slope, and the chain rule multiplies them")
    a, b, c = Value(2), Value(-3), Value(10)
    ((a * b + c) ** 2).backward()
    print(
        "  a = 2, b = -3, c = 10: the square's slope is 2·4 = 8, and the product hands on 8·b and 8·a"
    )
    check_close(
        "by-hand",
        "what we found on paper: -24, 16, 8",
        [a.grad, b.grad, c.grad],
        [-24.0, 16.0, 8.0],
    )
    measured = gradient(lambda x: (x[0] * x[1] + x[2]) ** 2, np.array([2.0, -3.0, 10.0]))
    check_close(
        "measured", "and what measuring finds (2.3)", [a.grad, b.grad, c.grad], measured, atol=1e-7
    )


def show_graph(cfg: Config) -> None:
    print(
        "\n[2] Parents before children on the way forward, children before parents on the way back"
    )
    x = Value(3)
    (x * x + x).backward()
    check_close("shared", "x·x + x at 3: three uses of x give three shares, 3 + 3 + 1", x.grad, 7.0)
    start = end = Value(1)
    for _ in range(60):
        end = end + end
    end.backward()
    check(
        "once",
        f"60 doublings: {2**60:,} paths back, but 61 values, and each is visited once",
        start.grad == 2**60 and len(end.ancestors()) == 61,
    )
    draw_graph(cfg)


def show_parity(cfg: Config) -> None:
    print("\n[3] 100 random formulas of a dozen operations: the engine beside torch.autograd")
    rng, found = cfg.rng(), []
    for _ in range(100):
        program, numbers = random_program(rng), rng.normal(size=4)
        values, tensors = [Value(x) for x in numbers], torch.tensor(numbers, requires_grad=True)
        ours, reference = program(*values), program(*tensors)
        ours.backward(), reference.backward()
        found.append(
            [[ours.data, *(v.grad for v in values)], [reference.item(), *tensors.grad.tolist()]]
        )
    ours, theirs = np.array(found).transpose(1, 0, 2)  # (expressions, value and 4 gradients) each
    check_close("values", "the same values", ours[:, 0], theirs[:, 0])
    check_close("gradients", "the same gradients, all four of each", ours[:, 1:], theirs[:, 1:])


def show_moons(cfg: Config) -> dict:
    print("\n[4] Two moons, learned by nothing but the lines above")
    rng = cfg.rng()
    train, (x_test, y_test), model = (
        moons(cfg.samples, rng),
        moons(400, rng),
        Network((2, 8, 1), rng),
    )
    overfits(
        "overfits",
        "it can learn 10 points by heart",
        model,
        (train[0][:10], train[1][:10]),
        logistic_loss,
        GradientDescent(model.parameters, cfg.lr),
        steps=100,
        below=0.1,
    )
    models, scores = {"line": Network((2, 1), rng), "network": Network((2, 8, 1), rng)}, {}
    for name, model in models.items():
        optimizer = GradientDescent(model.parameters, cfg.lr)
        for _ in range(cfg.steps):
            loss = logistic_loss(model, train)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        predicted = np.array([int(model(x).data > 0) for x in x_test])
        scores[name] = (predicted == y_test).mean()
    print(
        f"  test accuracy: guessing 0.500   straight line {scores['line']:.3f}   network {scores['network']:.3f}"
    )
    depends_on_input("depends", "the answer depends on the point", predicted, y_test)
    expect("accuracy", "the network on unseen points", scores["network"], at_least=0.95)
    expect(
        "better",
        "and that is better than the straight line, by",
        scores["network"] - scores["line"],
        at_least=0.04,
    )
    draw_moons(cfg, models, train)
    return scores


def draw_graph(cfg: Config) -> None:
    a, b = Value(0.8, name="a"), Value(-1.5, name="b")
    result = (a * b + a).tanh()
    result.backward()
    places = dict(
        zip(result.ancestors(), ((0, 1.3), (0, -1.3), (2.4, -0.9), (4.8, 0.3), (7.2, 0.3)))
    )
    figure, axis = new_figure(size=(10.4, 4.6))
    for value, (x, y) in places.items():
        for parent, local in value.parents:
            axis.annotate(
                "",
                (x, y),
                places[parent],
                arrowprops={"arrowstyle": "-|>", "shrinkA": 42, "shrinkB": 42},
            )
            axis.text(
                (x + places[parent][0]) / 2,
                (y + places[parent][1]) / 2 + 0.18,
                f"{local:.2f}",
                color=RED,
            )
        axis.text(
            x,
            y,
            f"{value.name}\n{value.data:.2f}\ngrad {value.grad:.2f}",
            ha="center",
            va="center",
            bbox={"boxstyle": "round,pad=0.5", "facecolor": "white", "edgecolor": BLUE},
        )
    axis.set(
        xlim=(-0.8, 8.0),
        ylim=(-2.1, 2.1),
        title="tanh(a·b + a): local derivatives forward, gradients backward",
    )
    axis.axis("off")
    save_figure(figure, cfg.out / "graph")


def draw_moons(
    cfg: Config, models: dict[str, Network], train: tuple[np.ndarray, np.ndarray]
) -> None:
    figure, axis = new_figure(size=(7.6, 4.8))
    across, up = (
        np.linspace(-1.4, 2.4, 8 if cfg.tiny else 40),
        np.linspace(-0.9, 1.4, 8 if cfg.tiny else 40),
    )
    for model, style in zip(models.values(), ("--", "-")):
        scores = np.array([[model((x, y)).data for x in across] for y in up])
        axis.contour(across, up, scores, levels=[0], colors=GREY, linestyles=style, linewidths=2)
    axis.scatter(*train[0].T, c=np.array([BLUE, ORANGE])[train[1]], s=28)
    axis.set(title="Where they change their mind: line dashed, network full", xticks=(), yticks=())
    save_figure(figure, cfg.out / "moons")


def run(cfg: Config) -> dict:
    show_chain(cfg)
    show_graph(cfg)
    show_parity(cfg)
    return show_moons(cfg)


if __name__ == "__main__":
    main(run, Config, __doc__)
