"""4.2 The multilayer perceptron: why one hidden layer is enough to bend
多层感知机：有了隐藏层，边界才会弯

You will be able to answer
    1. What does a hidden layer add to a perceptron?  show_xor      xor, collapse
    2. Which curves can a hidden layer draw?          show_knots    through, quartered
    3. Does training find such weights by itself?     show_sine     wide
    4. Can it wind a boundary between two spirals?    show_spirals  overfits, spirals, straight
    5. What does it gain on digits?  show_digits   first-loss, depends, digits, gain, writers
Predict   linear_spirals: two spirals of 300 points: what share does a straight line get right?
Run       python phase04_mlp/02-mlp-basic.py                               about 40 s
Needs     -
Reference np.interp
Notation  N samples  D inputs  H hidden units
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.data.batches import Batches
from common.data.images import load_images
from common.figures import BLUE, GREY, ORANGE, new_figure, save_figure
from common.training import fit


@dataclass
class Config(LessonConfig):
    threads = 1
    data: str = param("digits", "data set", choices=("digits",))
    hidden_dim: int = param(1024, "hidden units for the digits", tiny=64)
    steps: int = param(1000, "steps on the sine and on the spirals", tiny=20)
    epochs: int = param(30, "passes over the digits", tiny=3)
    splits: int = param(5, "random splits of the digits", tiny=1)


def mlp(params: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """One hidden layer with a ReLU. x (N, D) -> (N,). w1 (D, H), b1 (H,), w2 (H,), b2 ()."""
    # practice: One hidden layer
    hidden = x @ params["w1"] + params["b1"]  # (N, H)

    # Without this line the two products are one: a perceptron again.
    hidden = np.maximum(hidden, 0)
    return hidden @ params["w2"] + params["b2"]
    # end practice


def show_xor(cfg: Config) -> None:
    print("\n[1] XOR by two hidden units: how many ones there are, and how many more than one")
    x = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    params = {
        "w1": np.array([[1.0, 1.0], [1.0, 1.0]]),
        "b1": np.array([0.0, -1.0]),
        "w2": np.array([1.0, -2.0]),
        "b2": np.array(0.0),
    }
    check_close("xor", "ones minus twice the surplus is XOR", mlp(params, x), [0.0, 1.0, 1.0, 0.0])

    # With a large bias every unit is on, so that the ReLU does nothing.
    rng = cfg.rng()
    x = rng.normal(size=(50, 3))
    params = {"w1": rng.normal(size=(3, 8)), "b1": np.full(8, 100.0), "w2": rng.normal(size=8)}
    params["b2"] = np.array(0.5)
    one_layer = x @ (params["w1"] @ params["w2"]) + params["b1"] @ params["w2"] + params["b2"]
    text = "where no unit is off, both layers are one weighted sum, up to {}"
    check_close("collapse", text, mlp(params, x), one_layer)


def through_points(x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """A network whose curve passes through all points, in straight pieces between them.

    x (N,), increasing; y (N,). One hidden unit for each piece: it is on from the piece's start.
    """
    # practice: A curve through all points
    slopes = np.diff(y) / np.diff(x)  # of each piece (N - 1,)

    # max(x - start, 0) adds its weight to the slope from there on: the change at each start.
    changes = np.diff(slopes, prepend=0.0)
    return {
        "w1": np.ones((1, len(slopes))),
        "b1": -x[:-1],
        "w2": changes,
        "b2": np.array(y[0]),
    }
    # end practice


def show_knots(cfg: Config) -> None:
    print("\n[2] Each hidden unit is one bend; enough of them follow any curve")
    rng = cfg.rng()
    x = np.sort(rng.uniform(-3, 3, size=12))
    y = rng.normal(size=12)
    between = np.linspace(x[0], x[-1], 500)
    ours = mlp(through_points(x, y), between[:, None])
    text = "12 random points: the network is the line from point to point, up to {}"
    check_close("through", text, ours, np.interp(between, x, y))

    errors = []
    grid = np.linspace(-np.pi, np.pi, 4001)
    for width in [8, 16, 32, 64]:
        knots = np.linspace(-np.pi, np.pi, width + 1)
        curve = mlp(through_points(knots, np.sin(knots)), grid[:, None])
        errors.append(np.abs(curve - np.sin(grid)).max())
        print(f"  {width:3} units: sin x is met up to {errors[-1]:.5f}")
    ratio = errors[-2] / errors[-1]
    text = "twice as many units make the error {} times smaller"
    check("quartered", text, ratio, above=3.9, below=4.1)


def show_sine(cfg: Config) -> dict[str, float]:
    print("\n[3] The same by training: sin x on 200 points, five first weights for each width")
    x = torch.linspace(-torch.pi, torch.pi, 200)[:, None]
    medians = {}
    for width in [2, 16]:
        errors = []
        for seed in range(5):
            model = make_mlp(1, width, 1, seed + 5 * cfg.seed)
            batches = Batches(x, x.sin(), batch_size=len(x))
            errors.append(train(model, batches, squared_error, cfg.steps, lr=0.02))
        medians[width] = float(np.median(errors))
        shown = "  ".join(f"{error:.4f}" for error in sorted(errors))
        print(f"  {width:2} units: mean squared errors {shown}")
    ratio = medians[2] / medians[16]
    expect("wide", "the median error of 2 units is {} times that of 16", ratio, at_least=100)
    return {"sine_2": medians[2], "sine_16": medians[16]}


def show_spirals(cfg: Config) -> tuple[nn.Module, Tensor, Tensor, dict[str, float]]:
    print("\n[4] Two spirals: the boundary has to wind")
    rng = cfg.rng()
    x, y = spirals(300, rng)
    x_test, y_test = spirals(2000, rng)
    model = make_mlp(2, 64, 2, cfg.seed)
    adam = torch.optim.Adam(model.parameters(), lr=0.02)
    text = "16 points are learned by heart: the loss falls to {}"
    overfits("overfits", text, model, (x[:16], y[:16]), cross_entropy, adam, steps=300)

    model = make_mlp(2, 64, 2, cfg.seed)
    train(model, Batches(x, y, batch_size=len(x)), cross_entropy, cfg.steps, lr=0.02)
    predicted = model(x_test).argmax(dim=1)
    score = (predicted == y_test).float().mean().item()
    linear = LogisticRegression().fit(x, y).score(x_test, y_test)
    print(f"  share of 2,000 new points that is right: straight line {linear:.3f}, MLP {score:.3f}")
    expect("spirals", "64 hidden units get a share of {} right", score, at_least=0.97)
    expect("straight", "a straight line gets {}", linear, at_most=0.75)
    return model, x, y, {"spirals": score, "linear_spirals": linear}


def show_digits(cfg: Config) -> dict[str, float]:
    print("\n[5] Digits, random splits; beside it logistic regression, which has no bend")
    scores = {"mlp": [], "linear": [], "writers": []}
    for number in range(cfg.splits):
        data = load_images(cfg, split_seed=cfg.seed + number)
        train_set = to_tensors(data.x_train, data.y_train)
        val_set = to_tensors(data.x_val, data.y_val)
        x_test, y_test = to_tensors(*data.test())
        model = make_mlp(64, cfg.hidden_dim, 10, cfg.seed + number)
        first = cross_entropy(model, train_set).item()
        scores["mlp"].append(learn_digits(cfg, model, train_set, (x_test, y_test)))

        rivals = [LogisticRegression(C=c, max_iter=2000).fit(*train_set) for c in [0.3, 1, 3]]
        best = max(rivals, key=lambda rival: rival.score(*val_set))
        scores["linear"].append(best.score(x_test, y_test))
        mlp_score = scores["mlp"][-1]
        print(f"  split {number + 1}: MLP {mlp_score:.3f}, linear {scores['linear'][-1]:.3f}")
    text = "the first loss is {}, near ln 10 = 2.30: no class is preferred yet"
    check("first-loss", text, first, above=2.2, below=2.4)
    predicted = model(x_test).argmax(dim=1)
    depends_on_input("depends", "the answer depends on the digit: {}", predicted, y_test)
    mean = float(np.mean(scores["mlp"]))
    expect("digits", "mean of the splits: the MLP reads a share of {}", mean, at_least=0.965)
    gain = mean - np.mean(scores["linear"])
    expect("gain", "logistic regression, tuned on validation, reads {} less", gain, above=0)

    # The file holds one filled-in form of about 130 digits after the other. Cut between forms:
    # then nearly every digit of the test is by somebody whose hand was not in training.
    x, y = to_tensors(*load_digits(return_X_y=True))
    for held_out in np.split(np.arange(len(y)), [386, 776, 1157, 1543])[: cfg.splits]:
        rest = np.setdiff1d(np.arange(len(y)), held_out)
        model = make_mlp(64, cfg.hidden_dim, 10, cfg.seed)
        score = learn_digits(cfg, model, (x[rest], y[rest]), (x[held_out], y[held_out]))
        scores["writers"].append(score)
    print("  test by other writers: " + "  ".join(f"{score:.3f}" for score in scores["writers"]))
    means = {name: float(np.mean(values)) for name, values in scores.items()}
    text = (
        f"each part of the file held out once, by other writers: {means['writers']:.3f}, {{}} less"
    )
    expect("writers", text, mean - means["writers"], at_least=0.015)
    return means


# Pictures and helpers: skip on a first reading


def make_mlp(inputs: int, hidden_dim: int, outputs: int, seed: int) -> nn.Sequential:
    """(N, D) -> (N, outputs), the same first weights for the same seed."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(inputs, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, outputs))


def squared_error(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    x, y = batch
    return F.mse_loss(model(x), y)


def cross_entropy(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    x, y = batch
    return F.cross_entropy(model(x), y)


def train(model: nn.Module, batches: Batches, loss_fn, epochs: int, lr: float) -> float:
    """Adam over so many passes; returns the mean loss of the last one."""
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    rows = fit(model, batches, optimizer, loss_fn, epochs=epochs, quiet=True)
    return rows[-1]["train_loss"]


def learn_digits(cfg: Config, model: nn.Module, train_set: tuple, test_set: tuple) -> float:
    """Train on one set (x, y), in place; the share of the other that is then read rightly."""
    batches = Batches(*train_set, batch_size=64, shuffle=True, seed=cfg.seed)
    train(model, batches, cross_entropy, cfg.epochs, lr=0.002)
    x, y = test_set
    return (model(x).argmax(dim=1) == y).float().mean().item()


def spirals(n: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Two arms of one and a quarter turns: points (n, 2), class numbers (n,)."""
    y = rng.integers(2, size=n)
    radius = np.sqrt(rng.uniform(0.02, 1, size=n))
    angle = 2.5 * np.pi * radius + np.pi * y
    points = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    points += rng.normal(scale=0.04, size=(n, 2))
    return torch.tensor(points, dtype=torch.float32), torch.tensor(y)


def to_tensors(x: np.ndarray, y: np.ndarray) -> tuple[Tensor, Tensor]:
    """Pictures with pixels from 0 to 16 -> numbers from 0 to 1 (n, 64); their labels (n,)."""
    return torch.tensor(x, dtype=torch.float32).reshape(len(x), -1) / 16, torch.tensor(y)


def draw_sine(cfg: Config) -> None:
    """The networks with 4 and 8 units whose weights were computed, and their bends."""
    grid = np.linspace(-np.pi, np.pi, 500)
    figure, axis = new_figure(size=(8, 4.2))
    axis.plot(grid, np.sin(grid), color=GREY, linestyle="--", label="sin x")
    for width, colour in [(4, ORANGE), (8, BLUE)]:
        knots = np.linspace(-np.pi, np.pi, width + 1)
        params = through_points(knots, np.sin(knots))
        axis.plot(grid, mlp(params, grid[:, None]), color=colour, label=f"{width} hidden units")
        axis.plot(knots, np.sin(knots), "o", color=colour, markersize=5)
    axis.set(xlabel="x", ylabel="output", title="A hidden unit is a bend")
    axis.legend()
    save_figure(figure, cfg.out / "sine")


def draw_spirals(cfg: Config, model: nn.Module, x: Tensor, y: Tensor) -> None:
    """What the network answers at each place, and where single units switch on."""
    side = torch.linspace(-1.15, 1.15, 40 if cfg.tiny else 300)
    places = torch.cartesian_prod(side, side)
    with torch.no_grad():
        logits = model(places)
        units = model[0](places)  # (places, H)
    answer = (logits[:, 1] - logits[:, 0]).reshape(len(side), -1).T
    figure, axes = new_figure(1, 2, size=(11, 5.2))
    for axis in axes:
        axis.scatter(*x.T, c=np.where(y == 1, BLUE, ORANGE), s=14, zorder=3)
        axis.set(aspect="equal", xticks=(), yticks=(), xlim=(-1.15, 1.15), ylim=(-1.15, 1.15))
    for unit in units.T:
        axes[0].contour(
            side, side, unit.reshape(len(side), -1).T, levels=[0], colors=GREY, alpha=0.5
        )
    axes[0].set_title("Where each of 64 units switches on")
    axes[1].contourf(side, side, answer > 0, levels=[-1, 0.5, 2], colors=[ORANGE, BLUE], alpha=0.3)
    axes[1].set_title("The boundary made of these pieces")
    save_figure(figure, cfg.out / "spirals")


def run(cfg: Config) -> dict[str, float]:
    show_xor(cfg)
    show_knots(cfg)
    metrics = show_sine(cfg)
    model, x, y, scores = show_spirals(cfg)
    metrics |= scores
    metrics |= show_digits(cfg)
    draw_sine(cfg)
    draw_spirals(cfg, model, x, y)
    return metrics


if __name__ == "__main__":
    main(run, Config, __doc__)
