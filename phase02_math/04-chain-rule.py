"""2.4 The chain rule: an engine that computes gradients, and trains a network
链式法则：写一个自动求导引擎，并用它训练网络

You will be able to answer
    1. How does a change travel through the steps?    show_chain   by-hand
    2. Why backwards, in this order, and with +=?     show_graph   shared, once
    3. Is this what torch.autograd computes?          show_parity  parity
    4. Can it learn what no straight line separates?  show_moons   loss, overfits, depends, accuracy
    5. Why does a network need a nonlinearity?        show_moons   straight, gain
Predict   without_tanh: what share of two moons can a network without tanh get right?
Run       python phase02_math/04-chain-rule.py                             about 20 s
Needs     -
Reference torch.autograd, torch.nn
"""

import math
import operator
from dataclasses import dataclass

import numpy as np
import torch

from common.checks import check, check_close, depends_on_input, expect
from common.config import LessonConfig, main, param
from common.figures import BLUE, GREY, ORANGE, RED, new_figure, save_figure


@dataclass
class Config(LessonConfig):
    samples: int = param(120, "points of the two moons to train on", tiny=20, low=20)
    steps: int = param(200, "steps of gradient descent, each over all points", tiny=25)
    hidden_dim: int = param(8, "neurons in the hidden layer")
    lr: float = param(2.5, "learning rate: how far a step goes")


class Value:
    """A number that remembers what it was made from.

    parents: one pair (value, local derivative) for each input of the operation that made it.
    """

    made = 0  # how many values there are so far

    def __init__(self, data: float, parents: tuple = ()):
        self.data = float(data)
        self.grad = 0.0
        self.parents = parents

        # A value is made after its parents, so these numbers are an order to go through the graph.
        Value.made += 1
        self.number = Value.made

    def __add__(self, other: "Value | float") -> "Value":
        other = as_value(other)
        return Value(self.data + other.data, ((self, 1.0), (other, 1.0)))

    def __mul__(self, other: "Value | float") -> "Value":
        """With b held still, a·b changes b times as fast as a; with a held still, a times."""
        # practice: The product rule
        other = as_value(other)
        parents = ((self, other.data), (other, self.data))
        return Value(self.data * other.data, parents)
        # end practice

    def __pow__(self, n: float) -> "Value":
        # (aⁿ)' = n·aⁿ⁻¹
        slope = n * self.data ** (n - 1)
        return Value(self.data**n, ((self, slope),))

    def exp(self) -> "Value":
        # (eᵃ)' = eᵃ
        result = math.exp(self.data)
        return Value(result, ((self, result),))

    def log(self) -> "Value":
        # (ln a)' = 1/a
        return Value(math.log(self.data), ((self, 1 / self.data),))

    def tanh(self) -> "Value":
        # (tanh a)' = 1 − tanh² a
        result = math.tanh(self.data)
        return Value(result, ((self, 1 - result**2),))

    # Python asks the right operand when the left one is a plain number: 2 + value, 2 * value.
    __radd__ = __add__
    __rmul__ = __mul__

    def ancestors(self) -> list["Value"]:
        """This value and everything it was made from, each once, the newest first."""
        # practice: Everything that took part, each once
        found = {self}
        waiting = [self]
        while waiting:
            value = waiting.pop()
            for parent, _ in value.parents:
                if parent not in found:
                    found.add(parent)
                    waiting.append(parent)

        return sorted(found, key=operator.attrgetter("number"), reverse=True)
        # end practice

    def backward(self) -> None:
        """Add d(self)/d(value) to the .grad of every value that this one was made from."""
        # practice: The chain rule, backwards
        self.grad = 1.0
        for value in self.ancestors():
            for parent, local in value.parents:
                # Adding, because a parent that is used twice gets a share from each use.
                parent.grad += local * value.grad
        # end practice


def as_value(x: "Value | float") -> Value:
    return x if isinstance(x, Value) else Value(x)


def show_chain(cfg: Config) -> None:
    print("\n[1] f = (a·b + c)²: the chain rule multiplies the derivatives of single steps")
    a = Value(2)
    b = Value(-3)
    c = Value(10)
    f = (a * b + c) ** 2
    f.backward()

    print("  a = 2, b = -3, c = 10: the square contributes 2·4 = 8, the product 8·b and 8·a")
    text = "the derivatives found on paper are -24, 16 and 8"
    check_close("by-hand", text, [a.grad, b.grad, c.grad], [-24, 16, 8])


def show_graph(cfg: Config) -> None:
    print("\n[2] Newest first: a value hands its gradient on when all its shares have arrived")
    x = Value(3)
    (2 * x).backward()
    (x * x + x).backward()
    text = "x·x + x uses x three times, 2·x before it once: at 3 the shares are 2 + 3 + 3 + 1"
    check_close("shared", text, x.grad, 9)

    start = Value(1)
    end = start
    for _ in range(16):
        end = end + end
    end.backward()
    made_of = len(end.ancestors())
    print(f"  16 doublings: {2**16:,} paths lead back, and d(end)/d(start) is {start.grad:,.0f}")
    check("once", "but {} values took part, each found once", made_of, at_least=17, at_most=17)


def show_parity(cfg: Config) -> None:
    print("\n[3] 100 random formulas, each of a dozen building blocks, beside torch.autograd")
    ours = []
    torchs = []
    for seed in range(100):
        numbers = np.random.default_rng(seed).normal(size=4)
        values = [Value(number) for number in numbers]
        result = random_formula(seed, values)
        result.backward()
        ours.append([result.data, *(value.grad for value in values)])

        tensors = [torch.tensor(number, requires_grad=True) for number in numbers]
        result = random_formula(seed, tensors)
        result.backward()
        torchs.append([result.item(), *(tensor.grad.item() for tensor in tensors)])

    text = "values and all four derivatives are torch's, up to {}"
    check_close("parity", text, np.array(ours), np.array(torchs))


class Neuron:
    """Weighted inputs and a bias added up; in the hidden layer tanh bends the sum into (-1, 1)."""

    def __init__(self, n_inputs: int, rng: np.random.Generator, nonlinear: bool):
        # The more inputs, the smaller each weight, so that the sum stays near 1.
        self.weights = [Value(w) for w in rng.normal(size=n_inputs) / math.sqrt(n_inputs)]
        self.bias = Value(0)
        self.nonlinear = nonlinear

    def __call__(self, inputs: list) -> Value:
        total = self.bias
        for weight, x in zip(self.weights, inputs):
            total = total + weight * x
        return total.tanh() if self.nonlinear else total


class Network:
    """Two numbers in, a score out: a layer of hidden neurons, and one neuron that weighs them."""

    def __init__(self, hidden_dim: int, rng: np.random.Generator, nonlinear: bool = True):
        self.hidden = [Neuron(2, rng, nonlinear) for _ in range(hidden_dim)]
        self.output = Neuron(hidden_dim, rng, nonlinear=False)

    def __call__(self, x: np.ndarray) -> Value:
        activations = [neuron(x) for neuron in self.hidden]
        return self.output(activations)

    def parameters(self) -> list[Value]:
        found = []
        for neuron in [*self.hidden, self.output]:
            found += [*neuron.weights, neuron.bias]
        return found


def loss_of(network: Network, x: np.ndarray, y: np.ndarray) -> Value:
    """Mean penalty. x: points (n, 2). y: (n,), 1 for one moon and -1 for the other.

    A score of the right sign costs little, one of the wrong sign about its size:
    log(1 + exp(-target · score)), the logistic loss. Lesson 2.7 derives it.
    """
    total = Value(0)
    for point, target in zip(x, y):
        total = total + (1 + (network(point) * -target).exp()).log()
    return total * (1 / len(x))


def train(network: Network, x: np.ndarray, y: np.ndarray, steps: int, lr: float) -> float:
    """Gradient descent; returns the loss before the last step."""
    for _ in range(steps):
        loss = loss_of(network, x, y)
        for parameter in network.parameters():
            parameter.grad = 0.0
        loss.backward()

        # The gradient points to where the loss grows fastest (2.3), so step the other way.
        for parameter in network.parameters():
            parameter.data -= lr * parameter.grad
    return loss.data


def show_moons(cfg: Config) -> tuple[dict[str, Network], dict[str, float]]:
    print("\n[4] Two moons, learned by nothing but the lines above; then the same without tanh")
    rng = cfg.rng()
    x_train, y_train = moons(cfg.samples, rng)
    x_test, y_test = moons(400, rng)
    small = Network(cfg.hidden_dim, rng)
    scores = torch.tensor([small(x).data for x in x_train[:10]], dtype=torch.float64)
    wanted = torch.nn.functional.soft_margin_loss(scores, torch.tensor(y_train[:10]))
    loss = loss_of(small, x_train[:10], y_train[:10])
    check_close("loss", "the logistic loss of ten points is torch's", loss.data, wanted)
    loss = train(small, x_train[:10], y_train[:10], steps=150, lr=cfg.lr)
    check("overfits", "ten points are learned by heart: the loss falls to {}", loss, below=0.05)

    # Both begin with the same weights.
    networks = {
        "without_tanh": Network(cfg.hidden_dim, cfg.rng(), nonlinear=False),
        "with_tanh": Network(cfg.hidden_dim, cfg.rng()),
    }
    scores = {}
    for name, network in networks.items():
        train(network, x_train, y_train, cfg.steps, cfg.lr)
        predicted = np.array([1 if network(x).data > 0 else -1 for x in x_test])
        scores[name] = float((predicted == y_test).mean())

    print("  share of 400 new points that is right:  guessing 0.500", end="")
    print(f"   without tanh {scores['without_tanh']:.3f}   with tanh {scores['with_tanh']:.3f}")
    depends_on_input("depends", "the answer depends on the point", predicted, y_test)
    expect("accuracy", "with tanh a share of {} is right", scores["with_tanh"], at_least=0.95)
    # A score that is one weighted sum has this property, and its boundary is a straight line.
    score = networks["without_tanh"]
    a, b = x_test[:2]
    halfway = score((a + b) / 2).data
    text = "without tanh, the score halfway between two points is halfway between their scores"
    check_close("straight", text, halfway, (score(a).data + score(b).data) / 2)
    gain = scores["with_tanh"] - scores["without_tanh"]
    expect("gain", "tanh raises the share that is right by {}", gain, at_least=0.04)
    return networks, scores


# Pictures and helpers: skip on a first reading


def moons(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two half circles that reach into each other: points (n, 2), targets (n,) 1 or -1."""
    targets = np.where(np.arange(n) % 2 == 0, 1, -1)
    angle = rng.uniform(0, math.pi, n)
    upper = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    lower = np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)], axis=1)
    points = np.where(targets[:, None] == 1, upper, lower)
    return points + rng.normal(scale=0.1, size=(n, 2)), targets


def random_formula(seed: int, numbers: list) -> "Value | torch.Tensor":
    """A dozen building blocks drawn from the seed, on our values or on torch's tensors alike."""
    rng = np.random.default_rng(seed)
    results = list(numbers)
    for _ in range(12):
        a, b = (results[place] for place in rng.integers(len(results), size=2))
        choices = [
            2 + a + -0.5 * b,
            0.5 * a * b.tanh(),
            a * (b * b + 1) ** -1,
            (a.tanh() + 2) ** 3,
            (a.tanh() + b.tanh()).exp(),
            (a * a + 1).log(),
        ]
        results.append(choices[rng.integers(len(choices))])
    return sum(results)


def draw_graph(cfg: Config) -> None:
    """The example done by hand: values in the boxes, gradients on their way back in red."""
    places = {"a = 2": (0, 2), "b = -3": (0, 0), "a·b = -6": (3, 1), "c = 10": (3, -1)}
    places |= {"sum = 4": (6, 0), "square = 16": (9, 0)}
    shares = {
        ("square = 16", "sum = 4"): "1 · 2·4 = 8",
        ("sum = 4", "a·b = -6"): "8 · 1 = 8",
        ("sum = 4", "c = 10"): "8 · 1 = 8",
        ("a·b = -6", "a = 2"): "8 · (-3) = -24",
        ("a·b = -6", "b = -3"): "8 · 2 = 16",
    }
    figure, axis = new_figure(size=(10.4, 4.4))
    arrow = {"arrowstyle": "-|>", "color": RED, "shrinkA": 40, "shrinkB": 40, "linewidth": 2}
    for (child, parent), share in shares.items():
        axis.annotate("", places[parent], places[child], arrowprops=arrow)
        x, y = np.mean([places[child], places[parent]], axis=0)
        axis.text(x, y + 0.25, share, color=RED, ha="center")
    box = {"boxstyle": "round,pad=0.5", "facecolor": "white", "edgecolor": GREY}
    for name, place in places.items():
        axis.text(*place, name, ha="center", va="center", bbox=box)
    axis.set(xlim=(-1, 10), ylim=(-1.6, 2.6), title="(a·b + c)²: gradients on their way back")
    axis.axis("off")
    save_figure(figure, cfg.out / "graph")


def draw_moons(cfg: Config, networks: dict[str, Network]) -> None:
    points, targets = moons(cfg.samples, cfg.rng())
    across = np.linspace(-1.4, 2.4, 8 if cfg.tiny else 40)
    up = np.linspace(-0.9, 1.4, 8 if cfg.tiny else 40)
    figure, axis = new_figure(size=(7.6, 4.8))
    for network, style in zip(networks.values(), ["--", "-"]):
        scores = np.empty((len(up), len(across)))
        for row, y in enumerate(up):
            scores[row] = [network(np.array([x, y])).data for x in across]
        axis.contour(across, up, scores, levels=[0], colors=GREY, linestyles=style, linewidths=2)
    axis.scatter(*points.T, c=np.where(targets == 1, BLUE, ORANGE), s=28)
    axis.set(xticks=(), yticks=(), title="Score 0: without tanh dashed, with tanh solid")
    save_figure(figure, cfg.out / "moons")


def run(cfg: Config) -> dict[str, float]:
    show_chain(cfg)
    show_graph(cfg)
    show_parity(cfg)
    networks, scores = show_moons(cfg)
    draw_graph(cfg)
    draw_moons(cfg, networks)
    return scores


if __name__ == "__main__":
    main(run, Config, __doc__)
