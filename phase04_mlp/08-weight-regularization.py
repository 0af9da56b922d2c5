"""4.8 Weight regularisation: L1, L2, and decoupled decay
权重正则化：L1、L2 与解耦的权重衰减

You will be able to answer
    1. What does an L2 penalty do to weights?  show_ridge    ridge, directions
    2. How does L1 make weights exactly 0?     show_lasso    by-hand, lasso, elastic, zeros, by-sign
    3. Does it help against useless columns?   show_help     helps, baseline, thrown
    4. Is decay the same as an L2 penalty?     show_decay    sgd, momentum, adam, adamw
    5. If it is not, what is it instead?       show_instead  l2, tenth, box, not-ridge
Predict   zeros: how many of the ten weights does an L1 penalty of 0.1 set to exactly 0?
Run       python phase04_mlp/08-weight-regularization.py                   about 10 s
Needs     phase03_pytorch/06-optimizers
Learns    no model is trained here, but for linear ones with a known solution
Reference Ridge, Lasso, ElasticNet, torch.optim.AdamW
Notation  n samples  D inputs  λ strength of a penalty  μ momentum
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import lsq_linear
from sklearn.datasets import load_diabetes
from sklearn.linear_model import ElasticNet, Lasso, Ridge
from torch import Tensor

from common.checks import check, check_close, expect
from common.config import LessonConfig, main, param
from common.figures import BLUE, COLOURS, GREY, ORANGE, new_figure, save_figure
from common.lessons import load_lesson
from common.record import current

optimizers = load_lesson("phase03_pytorch/06-optimizers")


@dataclass
class Config(LessonConfig):
    threads = 1
    data: str = param("diabetes", "data set", choices=("diabetes",))
    splits: int = param(20, "random splits to measure the error on", tiny=2)


def ridge(x: np.ndarray, y: np.ndarray, l2: float) -> np.ndarray:
    """The weights (D,) with the smallest mean((x w - y)²) / 2 + l2 / 2 · |w|². x (n, D), y (n,)."""
    # practice: Least squares with an L2 penalty
    samples, inputs = x.shape
    # Gradient 0: xᵀ(x w - y) / n + l2 · w = 0
    return np.linalg.solve(x.T @ x / samples + l2 * np.eye(inputs), x.T @ y / samples)
    # end practice


def show_ridge(cfg: Config, x: np.ndarray, y: np.ndarray) -> None:
    print("\n[1] L2: the weights shrink, most in the directions in which the data hardly varies")
    samples = len(y)
    theirs = Ridge(alpha=samples * 0.1, fit_intercept=False).fit(x, y).coef_
    text = "our weights are scikit-learn's, whose alpha is n times our strength"
    check_close("ridge", text, ridge(x, y, 0.1), theirs)

    # In the directions of the eigenvectors of xᵀx / n each weight has a factor of its own.
    eigenvalues, vectors = np.linalg.eigh(x.T @ x / samples)
    free = vectors.T @ ridge(x, y, 0.0)
    shrunk = vectors.T @ ridge(x, y, 0.1)
    factors = shrunk / free
    print(f"  variance along the directions  {eigenvalues.round(2)}")
    print(f"  what an L2 of 0.1 leaves       {factors.round(2)}")
    text = "a direction with the variance s keeps a share of s / (s + λ)"
    check_close("directions", text, factors, eigenvalues / (eigenvalues + 0.1))


def soft_threshold(w: np.ndarray, t: float) -> np.ndarray:
    """Each number moves towards 0 by t, and not beyond."""
    # practice: The soft threshold
    size = np.maximum(np.abs(w) - t, 0)
    return np.sign(w) * size
    # end practice


def proximal_gradient(
    x: np.ndarray, y: np.ndarray, l1: float, l2: float = 0.0, steps: int = 3000
) -> np.ndarray:
    """The weights (D,) with the smallest mean((x w - y)²) / 2 + l1 · Σ|w| + l2 / 2 · |w|².

    Lasso with l2 = 0, ridge with l1 = 0, elastic net with both.
    """
    # practice: Proximal gradient descent
    samples, inputs = x.shape
    w = np.zeros(inputs)

    # The largest curvature of the smooth part decides how long a step may be (lesson 2.5).
    lr = 1 / (np.linalg.eigvalsh(x.T @ x / samples).max() + l2)
    for _ in range(steps):
        gradient = x.T @ (x @ w - y) / samples + l2 * w

        # |w| has no derivative at 0: it gets a step of its own, which can end there.
        w = soft_threshold(w - lr * gradient, lr * l1)
    return w
    # end practice


def show_lasso(cfg: Config, x: np.ndarray, y: np.ndarray) -> int:
    print("\n[2] L1: a gradient step, then every weight moves towards 0 and may stay there")
    text = "(3, -2, 0.5, -1) with a threshold of 1 becomes (2, -1, 0, 0), as on paper"
    by_hand = soft_threshold(np.array([3.0, -2.0, 0.5, -1.0]), 1.0)
    check_close("by-hand", text, by_hand, np.array([2.0, -1.0, 0.0, 0.0]))

    settings = {"fit_intercept": False, "tol": 1e-14, "max_iter": 100_000}
    lasso = proximal_gradient(x, y, l1=0.1)
    exact_lasso = Lasso(alpha=0.1, **settings).fit(x, y).coef_
    print(f"  least squares  {ridge(x, y, 0.0).round(2)}")
    print(f"  L1 of 0.1      {lasso.round(2)}")
    check_close("lasso", "these are scikit-learn's weights", lasso, exact_lasso)

    ours = proximal_gradient(x, y, l1=0.05, l2=0.15)
    theirs = ElasticNet(alpha=0.2, l1_ratio=0.25, **settings).fit(x, y).coef_
    check_close("elastic", "and so are those of an elastic net", ours, theirs)

    zeros = lasso == 0
    text = f"{zeros.sum()} of the ten weights are exactly 0, the same ones as in scikit-learn"
    check("zeros", text, zeros.any() and bool((zeros == (exact_lasso == 0)).all()))

    by_sign = subgradient_descent(x, y, l1=0.1, steps=3000)[zeros]
    smallest = np.abs(by_sign).min()
    print(f"  with sign(w) as a gradient they reach {np.abs(by_sign).max():.1e} at most")
    check("by-sign", "but none of them is 0: the smallest is {}", smallest, above=1e-12, below=0.01)
    return int(zeros.sum())


def show_help(cfg: Config, columns: np.ndarray, disease: np.ndarray) -> dict[str, float]:
    print("\n[3] 60 patients for training, 40 columns of noise beside the ten: who is fooled?")
    # Tried on validation patients; for ridge ten times as strong.
    strengths = np.geomspace(0.01, 1, 9)
    errors = {"mean": [], "least_squares": [], "ridge": [], "lasso": []}
    thrown = []
    for split in range(cfg.splits):
        rng = np.random.default_rng([cfg.seed, split])
        order = rng.permutation(len(disease))
        train, val, test = order[:60], order[60:120], order[120:]
        noise = rng.normal(size=(len(disease), 40))
        x = standardised(np.column_stack([columns, noise]), train)
        y = standardised(disease, train)
        candidates = {
            "mean": [np.zeros(50)],
            "least_squares": [ridge(x[train], y[train], 0.0)],
            "ridge": [ridge(x[train], y[train], 10 * l2) for l2 in strengths],
            "lasso": [proximal_gradient(x[train], y[train], l1, steps=500) for l1 in strengths],
        }
        for name, tried in candidates.items():
            best = min(tried, key=lambda w: squared_error(w, x[val], y[val]))
            errors[name].append(squared_error(best, x[test], y[test]))
        thrown.append((best[10:] == 0).mean())

    means = {name: float(np.mean(values)) for name, values in errors.items()}
    for name, error in means.items():
        print(f"  {name:<14} squared error on the other patients {error:.3f}")
    ratio = means["lasso"] / means["least_squares"]
    text = f"mean of {cfg.splits} splits: the lasso's error is {{}} times that of least squares"
    expect("helps", text, ratio, below=0.5)
    ratio = means["lasso"] / means["mean"]
    expect("baseline", "and {} times that of always guessing the mean", ratio, below=0.85)
    text = "the lasso throws out a share of {} of the noise columns"
    expect("thrown", text, np.mean(thrown), above=0.5)
    return means


def descend(
    rule: type, x: Tensor, y: Tensor, batches: list[Tensor], lr: float, l2: float, decay: float
) -> Tensor:
    """Linear regression by a rule of lesson 3.6, from weights 0. x (n, D), y (n,) -> (D,).

    batches: the row numbers of each step. l2: a penalty, whose gradient l2 · w joins that of the
    loss. decay: the weights shrink beside the step, and the rule does not see it.
    """
    # practice: An L2 penalty, and decay beside the step
    w = torch.zeros(x.shape[1], dtype=x.dtype)
    optimizer = rule([w], lr=lr)
    for rows in batches:
        errors = x[rows] @ w - y[rows]
        w.grad = x[rows].T @ errors / len(rows) + l2 * w

        # In place, for the optimizer holds this tensor.
        w *= 1 - lr * decay
        optimizer.step()
    return w
    # end practice


def show_decay(cfg: Config, x: Tensor, y: Tensor) -> None:
    print(
        "\n[4] The same strength 0.5 as a penalty, and as decay beside the step; 500 batches of 32"
    )
    batches = list(torch.randint(len(y), (500, 32)))
    apart = {}
    for rule, lr in RATES.items():
        penalty = descend(rule, x, y, batches, lr, l2=0.5, decay=0.0)
        beside = descend(rule, x, y, batches, lr, l2=0.0, decay=0.5)
        lengths = f"{penalty.norm():.3f} with the penalty, {beside.norm():.3f} with decay"
        print(f"  {rule.__name__:<9} length of the weights: {lengths}")
        apart[rule.__name__] = penalty, beside

    check_close("sgd", "SGD: the two are the same", *apart["SGD"])
    difference = (apart["Momentum"][0] - apart["Momentum"][1]).abs().max()
    check("momentum", "momentum: they differ by up to {}", difference, above=0.04)
    difference = (apart["Adam"][0] - apart["Adam"][1]).abs().max()
    check("adam", "Adam: they differ by up to {}", difference, above=0.04)

    w = torch.zeros(x.shape[1], dtype=x.dtype, requires_grad=True)
    theirs = torch.optim.AdamW([w], lr=RATES[optimizers.Adam], weight_decay=0.5)
    for rows in batches:
        theirs.zero_grad()
        ((x[rows] @ w - y[rows]) ** 2).mean().div(2).backward()
        theirs.step()
    text = "Adam with decay beside the step is torch.optim.AdamW"
    check_close("adamw", text, apart["Adam"][1], w)


def show_instead(cfg: Config, x: Tensor, y: Tensor) -> dict[str, np.ndarray]:
    print("\n[5] Where do they come to rest? 1,500 or 3,000 steps, each on all rows")
    batches = [torch.arange(len(y))] * 1500
    columns = x.numpy()
    target = y.numpy()
    ends = [descend(rule, x, y, batches, lr, l2=0.5, decay=0.0) for rule, lr in RATES.items()]
    text = "with an L2 penalty SGD, momentum and Adam all end at the ridge solution"
    check_close("l2", text, torch.stack(ends), np.stack([ridge(columns, target, 0.5)] * 3))

    rate = RATES[optimizers.Momentum]
    beside = descend(optimizers.Momentum, x, y, batches, rate, l2=0.0, decay=0.5)
    text = "momentum of 0.9 with decay ends at ridge with a tenth of the strength"
    check_close("tenth", text, beside, ridge(columns, target, 0.05))

    # Full batches: at rest Adam's step is the sign of the gradient, and decay balances it.
    adamw = descend(optimizers.Adam, x, y, 2 * batches, lr=1e-3, l2=0.0, decay=10.0).numpy()
    box = lsq_linear(columns, target, bounds=(-0.1, 0.1)).x
    text = "AdamW with λ = 10 ends within {} of least squares with all weights from -0.1 to 0.1"
    distance = np.abs(adamw - box).max()
    check("box", text, distance, below=0.04)
    ratio = np.abs(adamw - ridge(columns, target, 10.0)).max() / distance
    check("not-ridge", "the ridge solution is {} times as far away", ratio, at_least=2)
    return {
        "least squares": ridge(columns, target, 0.0),
        "ridge": ridge(columns, target, 10.0),
        "AdamW": adamw,
    }


# Pictures and helpers: skip on a first reading

RATES = {optimizers.SGD: 0.05, optimizers.Momentum: 0.05, optimizers.Adam: 0.01}


def subgradient_descent(x: np.ndarray, y: np.ndarray, l1: float, steps: int) -> np.ndarray:
    """The same with sign(w) as the derivative of |w|, as autograd has it, and smaller steps."""
    w = np.zeros(x.shape[1])
    for step in range(steps):
        gradient = x.T @ (x @ w - y) / len(y) + l1 * np.sign(w)
        w -= 0.2 / (1 + step) ** 0.5 * gradient
    return w


def squared_error(w: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    return float(((x @ w - y) ** 2).mean())


def standardised(columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Mean 0 and standard deviation 1 in the given rows, along the first axis."""
    chosen = columns[rows]
    return (columns - chosen.mean(axis=0)) / chosen.std(axis=0)


def draw_paths(cfg: Config, x: np.ndarray, y: np.ndarray) -> None:
    figure, axes = new_figure(1, 2, sharey=True)
    strengths = np.geomspace(0.003, 1, 25)
    paths = {
        "L2: small together, none is 0": [ridge(x, y, 10 * strength) for strength in strengths],
        "L1: one after the other to 0": [
            proximal_gradient(x, y, l1, steps=500) for l1 in strengths
        ],
    }
    for axis, (title, path), scale in zip(axes, paths.items(), [10, 1]):
        for weights, colour in zip(np.array(path).T, COLOURS * 2):
            axis.semilogx(scale * strengths, weights, color=colour)
        axis.axhline(0, color=GREY, linewidth=1)
        axis.set(xlabel="strength λ", title=title)
    axes[0].set_ylabel("weight")
    save_figure(figure, cfg.out / "paths")


def draw_weights(cfg: Config, weights: dict[str, np.ndarray], names: list[str]) -> None:
    figure, axis = new_figure(size=(9, 4.4))
    places = np.arange(len(names))
    for shift, (label, values), colour in zip(
        [-0.27, 0, 0.27], weights.items(), [GREY, ORANGE, BLUE]
    ):
        axis.bar(places + shift, values, width=0.27, color=colour, label=label)
    axis.axhline(0.1, color=BLUE, linestyle="--", linewidth=1)
    axis.axhline(-0.1, color=BLUE, linestyle="--", linewidth=1)
    axis.set_xticks(places, names)
    axis.set_ylim(-0.55, 0.65)
    axis.set_title("λ = 10: ridge makes weights small, AdamW holds them within ±1/λ")
    axis.legend(loc="upper right", ncols=3)
    save_figure(figure, cfg.out / "weights")


def run(cfg: Config) -> dict:
    columns, disease = load_diabetes(return_X_y=True)
    current().use_data("diabetes", "from the package scikit-learn")
    everything = np.arange(len(disease))
    x = standardised(columns, everything)
    y = standardised(disease, everything)
    show_ridge(cfg, x, y)
    zeros = show_lasso(cfg, x, y)
    means = show_help(cfg, columns, disease)
    show_decay(cfg, torch.tensor(x), torch.tensor(y))
    weights = show_instead(cfg, torch.tensor(x), torch.tensor(y))
    draw_paths(cfg, x, y)
    draw_weights(cfg, weights, load_diabetes().feature_names)
    return {"zeros": zeros, **means}


if __name__ == "__main__":
    main(run, Config, __doc__)
