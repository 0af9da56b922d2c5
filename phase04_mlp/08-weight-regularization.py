"""4.8 Weight regularisation: L1, L2, and decoupled decay
权重正则化：L1、L2 与解耦的权重衰减

You will be able to answer
    1. What does an L2 penalty do to weights?  show_ridge    directions
    2. How does L1 make weights exactly 0?     show_lasso    by-hand, lasso, zeros, by-sign
    3. Does it help against useless columns?   show_help     helps, dropped
    4. Is decay the same as an L2 penalty?     show_decay    torch, sgd, momentum
    5. If it is not, what is it instead?       show_instead  l2, tenth, box
Predict   zeros: how many of ten weights does the soft threshold make exactly 0, how many sign(w)?
Run       python phase04_mlp/08-weight-regularization.py                   about 10 s
Needs     phase03_pytorch/06-optimizers
Learns    no model is trained here, but for linear ones with a known solution
Reference Ridge, Lasso, torch.optim.SGD, torch.optim.AdamW
Notation  n samples  D inputs  λ strength of a penalty  μ momentum
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import lsq_linear
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Lasso
from torch import Tensor

from common.checks import check, check_close, expect
from common.config import LessonConfig, main, param
from common.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, new_figure, save_figure
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
    # In the directions of the eigenvectors of xᵀx / n each weight has a factor of its own.
    eigenvalues, vectors = np.linalg.eigh(x.T @ x / len(y))
    free = vectors.T @ np.linalg.lstsq(x, y)[0]
    shrunk = vectors.T @ ridge(x, y, 0.1)
    print(f"  variance along the directions  {eigenvalues.round(2)}")
    print(f"  what an L2 of 0.1 leaves       {(shrunk / free).round(2)}")
    text = (
        "a direction with the variance s keeps a share of s / (s + λ) of its least-squares weight"
    )
    check_close("directions", text, shrunk, free * eigenvalues / (eigenvalues + 0.1))


def soft_threshold(w: np.ndarray, t: float) -> np.ndarray:
    """Each number moves towards 0 by t, and not beyond."""
    # practice: The soft threshold
    size = np.maximum(np.abs(w) - t, 0)
    return np.sign(w) * size
    # end practice


def proximal_gradient(x: np.ndarray, y: np.ndarray, l1: float, steps: int = 3000) -> np.ndarray:
    """The weights (D,) with the smallest mean((x w - y)²) / 2 + l1 · Σ|w|, also called lasso."""
    # practice: Proximal gradient descent
    samples, inputs = x.shape
    w = np.zeros(inputs)

    # The largest curvature of the smooth part decides how long a step may be (lesson 2.5).
    lr = 1 / np.linalg.eigvalsh(x.T @ x / samples).max()
    for _ in range(steps):
        gradient = x.T @ (x @ w - y) / samples

        # |w| has no derivative at 0: it gets a step of its own, which can end there.
        w = soft_threshold(w - lr * gradient, lr * l1)
    return w
    # end practice


def show_lasso(cfg: Config, x: np.ndarray, y: np.ndarray) -> int:
    print("\n[2] L1: a gradient step, then every weight moves towards 0 and may stay there")
    text = "(3, -2, 0.5, -1) with a threshold of 1 becomes (2, -1, 0, 0), as on paper"
    by_hand = soft_threshold(np.array([3.0, -2.0, 0.5, -1.0]), 1.0)
    check_close("by-hand", text, by_hand, np.array([2.0, -1.0, 0.0, 0.0]))

    lasso = proximal_gradient(x, y, l1=0.1)
    # + 0.0 turns a printed -0. into 0.
    print(f"  least squares  {ridge(x, y, 0.0).round(2) + 0.0}")
    print(f"  L1 of 0.1      {lasso.round(2) + 0.0}")
    theirs = Lasso(alpha=0.1, fit_intercept=False, tol=1e-14, max_iter=100_000).fit(x, y)
    check_close("lasso", "these are scikit-learn's weights", lasso, theirs.coef_)
    zeros = lasso == 0
    check("zeros", "{} of the ten weights are exactly 0", zeros.sum(), at_least=3)

    by_sign = np.abs(subgradient_descent(x, y, l1=0.1, steps=3000)[zeros])
    print(f"  with sign(w) as a gradient the same weights reach {by_sign.max():.1e} at most")
    text = "but none of them is 0: the smallest is {}"
    check("by-sign", text, by_sign.min(), above=1e-12, below=0.01)
    return int(zeros.sum())


def show_help(cfg: Config, columns: np.ndarray, disease: np.ndarray) -> dict[str, float]:
    print("\n[3] 60 patients for training, 40 columns of noise beside the ten: which method copes?")
    # To be tried on validation patients. A λ means another thing to each penalty: an L1 of 1 sets
    # all weights to 0, an L2 of 1 is weak. So ridge is tried with strengths up to 10.
    strengths = np.geomspace(0.01, 1, 9)
    errors = {"mean": [], "least_squares": [], "ridge": [], "lasso": []}
    zeros = []
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
        # the last was the lasso
        zeros.append(best == 0)

    means = {name: float(np.mean(values)) for name, values in errors.items()}
    for name, error in means.items():
        print(f"  {name:<14} squared error on the other patients {error:.3f}")
    ratio = means["lasso"] / min(means["mean"], means["least_squares"])
    text = "the lasso's error is {} times the better one of mean and least squares"
    expect("helps", text, ratio, below=0.85)

    share = np.mean(zeros, axis=0)
    real = float(share[:10].mean())
    noise = float(share[10:].mean())
    print(f"  the lasso drops a share of {noise:.2f} of the noise columns, {real:.2f} of the ten")
    expect("dropped", "it drops more of the noise, by a share of {}", noise - real, at_least=0.1)
    return means | {"dropped_noise": noise, "dropped_real": real}


# Learning rates for the rules of lesson 3.6
RATES = {optimizers.SGD: 0.05, optimizers.Momentum: 0.05, optimizers.Adam: 0.01}


def descend(
    rule: type, x: Tensor, y: Tensor, batches: list[Tensor], lr: float, l2: float, decay: float
) -> Tensor:
    """Linear regression by a rule of lesson 3.6, from weights 0. x (n, D), y (n,) -> (D,).

    batches: the row numbers of each step. l2: a penalty, whose gradient l2 · w joins that of the
    loss. decay: just before each step the weights are multiplied by 1 - lr · decay, which the
    rule does not see.
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
    print("\n[4] The same strength 0.5 as a penalty, and as decay; 500 batches of 32")
    batches = list(torch.randint(len(y), (500, 32)))
    penalty = {}
    decay = {}
    for rule, lr in RATES.items():
        penalty[rule] = descend(rule, x, y, batches, lr, l2=0.5, decay=0.0)
        decay[rule] = descend(rule, x, y, batches, lr, l2=0.0, decay=0.5)
        lengths = (
            f"{penalty[rule].norm():.3f} with the penalty, {decay[rule].norm():.3f} with decay"
        )
        print(f"  {rule.__name__:<9} length of the weights: {lengths}")

    w = torch.zeros(x.shape[1], dtype=x.dtype, requires_grad=True)
    theirs = torch.optim.SGD([w], lr=RATES[optimizers.Momentum], momentum=0.9, weight_decay=0.5)
    for rows in batches:
        theirs.zero_grad()
        ((x[rows] @ w - y[rows]) ** 2).mean().div(2).backward()
        theirs.step()
    text = "weight_decay of torch.optim.SGD, here with momentum, is the penalty"
    check_close("torch", text, penalty[optimizers.Momentum], w)

    text = "plain SGD: penalty and decay are the same"
    check_close("sgd", text, decay[optimizers.SGD], penalty[optimizers.SGD])
    difference = (penalty[optimizers.Momentum] - decay[optimizers.Momentum]).abs().max()
    check("momentum", "with momentum they differ by up to {}", difference, above=0.04)


def show_instead(cfg: Config, x: Tensor, y: Tensor) -> dict[str, np.ndarray]:
    print("\n[5] Where do they come to rest? 1,500 or 9,000 steps, each on all rows")
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
    adamw = descend(optimizers.Adam, x, y, 6 * batches, lr=1e-3, l2=0.0, decay=10.0)
    adamw = adamw.detach().numpy()
    box = lsq_linear(columns, target, bounds=(-0.1, 0.1)).x
    to_box = np.abs(adamw - box).max()
    to_ridge = np.abs(adamw - ridge(columns, target, 10.0)).max()
    print(
        f"  AdamW, λ = 10: {to_ridge:.4f} from ridge, {to_box:.4f} from least squares within ±0.1"
    )
    text = "so it ends {} times nearer to the least squares in this box than to ridge"
    check("box", text, to_ridge / to_box, at_least=10)
    return {
        "least squares": ridge(columns, target, 0.0),
        "ridge": ridge(columns, target, 10.0),
        "AdamW": adamw,
        "box": box,
    }


# Pictures and helpers: skip on a first reading


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


def draw_paths(cfg: Config, x: np.ndarray, y: np.ndarray, names: list[str]) -> None:
    figure, (left, right) = new_figure(1, 2, size=(12, 4.8), sharey=True)
    strengths = np.geomspace(0.01, 1, 25)
    l2_path = np.array([ridge(x, y, 10 * l2) for l2 in strengths])
    l1_path = np.array([proximal_gradient(x, y, l1, steps=500) for l1 in strengths])
    named = {"bmi": BLUE, "s5": GREEN, "bp": ORANGE, "s1": PURPLE}
    for axis, path, scale in [(left, l2_path, 10), (right, l1_path, 1)]:
        for name, weights in zip(names, path.T):
            colour = named.get(name, "lightgrey")
            axis.semilogx(scale * strengths, weights, color=colour, zorder=2 + (name in named))
        axis.axhline(0, color=GREY, linewidth=1)
        axis.set_xlabel("strength λ")
    for name, colour in named.items():
        height = l2_path[0, names.index(name)]
        left.text(0.09, height, name, color=colour, ha="right", va="center")
    left.set_xlim(left=0.06)
    left.set(ylabel="weight", title="L2: small together, none is exactly 0")
    right.set_title("L1: one after the other becomes 0")
    save_figure(figure, cfg.out / "paths")


def draw_weights(cfg: Config, weights: dict[str, np.ndarray], names: list[str]) -> None:
    figure, axis = new_figure(size=(9, 4.4))
    places = np.arange(len(names))
    kinds = [("least squares", -0.27, GREY), ("ridge", 0, ORANGE), ("AdamW", 0.27, BLUE)]
    for label, shift, colour in kinds:
        axis.bar(places + shift, weights[label], width=0.27, color=colour, label=label)
    label = "least squares within ±0.1"
    axis.plot(places + 0.27, weights["box"], "_k", markersize=15, markeredgewidth=2, label=label)
    axis.axhline(0.1, color=BLUE, linestyle="--", linewidth=1)
    axis.axhline(-0.1, color=BLUE, linestyle="--", linewidth=1)
    axis.set_xticks(places, names)
    axis.set_ylim(-0.55, 0.65)
    axis.set_title("λ = 10: ridge makes weights small, AdamW holds them within ±1/λ")
    axis.legend(loc="upper left", ncols=4, fontsize=10)
    save_figure(figure, cfg.out / "weights")


def run(cfg: Config) -> dict:
    columns, disease = load_diabetes(return_X_y=True)
    current().use_data("diabetes", "from the package scikit-learn")
    everything = np.arange(len(disease))
    x = standardised(columns, everything)
    y = standardised(disease, everything)
    show_ridge(cfg, x, y)
    zeros = show_lasso(cfg, x, y)
    errors = show_help(cfg, columns, disease)
    show_decay(cfg, torch.tensor(x), torch.tensor(y))
    weights = show_instead(cfg, torch.tensor(x), torch.tensor(y))
    names = load_diabetes().feature_names
    draw_paths(cfg, x, y, names)
    draw_weights(cfg, weights, names)
    return {"zeros": zeros, **errors}


if __name__ == "__main__":
    main(run, Config, __doc__)
