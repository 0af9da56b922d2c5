"""4.1 The perceptron: the first machine that learned
感知机：第一台会学习的机器

You will be able to answer
    1. What does one neuron compute, and how does it learn?  show_rule     by-hand, before, corrects
    2. Why does the rule stop, and how soon?                 show_bound    bound, tight, narrow
    3. Is this scikit-learn's perceptron?                    show_parity   parity
    4. What can one neuron never learn?                      show_xor      functions, circle, xor
    5. What if no line separates the classes?                show_average  mean, steadier
Predict   mistakes: how many mistakes does it make on 200 points before it has separated them?
Run       python phase04_mlp/01-perceptron.py                              about 5 s
Needs     -
Reference sklearn.linear_model.Perceptron
Notation  N samples  D inputs, a constant 1 among them
"""

import itertools
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import Perceptron

from common.checks import check, check_close, expect
from common.config import LessonConfig, main, param
from common.figures import BLUE, GREY, ORANGE, new_figure, save_figure


@dataclass
class Config(LessonConfig):
    threads = 1
    samples: int = param(200, "points in the plane", tiny=40, low=10)
    margin: float = param(0.1, "half the width of the gap between the classes", low=0.01)
    draws: int = param(20, "sets of points to draw for each margin", tiny=3)
    passes: int = param(30, "passes over classes that overlap", tiny=5)


def predict(weights: np.ndarray, x: np.ndarray) -> np.ndarray:
    """On which side of the line each point lies, 1 or -1. weights: (D,), x: (N, D) -> (N,)."""
    return np.where(x @ weights > 0, 1, -1)


def update(weights: np.ndarray, x: np.ndarray, y: int) -> bool:
    """Rosenblatt's rule for one sample x (D,) of class y, 1 or -1: was it a mistake?

    Only a mistake changes the weights, in place. A point on the line itself counts as one.
    """
    # practice: One correction
    right = y * (x @ weights) > 0
    if right:
        return False

    # y·(w·x) grows by y²·|x|², so this sample is less wrong afterwards.
    weights += y * x
    return True
    # end practice


def train(x: np.ndarray, y: np.ndarray, passes: int) -> tuple[list[np.ndarray], bool]:
    """All weights on the way, from 0: one more after each mistake. x: (N, D), y: (N,).

    Stops after a pass without a mistake, or after so many passes; the second value says which.
    """
    # practice: Passes until nothing is wrong
    weights = np.zeros(x.shape[1])
    path = [weights.copy()]
    for _ in range(passes):
        mistakes_before = len(path)
        for sample, target in zip(x, y):
            if update(weights, sample, target):
                path.append(weights.copy())

        if len(path) == mistakes_before:
            return path, True
    return path, False
    # end practice


def show_rule(cfg: Config) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    print("\n[1] A mistake adds the sample to the weights, or takes it away")
    x = np.array([[2.0, 1.0, 1.0], [1.0, 3.0, 1.0]])  # the last 1 of each belongs to the bias
    path, _ = train(x, np.array([1, -1]), passes=10)
    for weights in path:
        print("  weights " + "  ".join(f"{weight:4.0f}" for weight in weights))
    by_hand = [[0, 0, 0], [2, 1, 1], [1, -2, 0], [3, -1, 1], [2, -4, 0], [4, -3, 1]]
    text = "two points: after five corrections both are right, as found on paper"
    check_close("by-hand", text, np.array(path), np.array(by_hand))

    x, y, _ = separable(cfg.samples, cfg.margin, cfg.rng())
    path, _ = train(x, y, passes=1000)
    print(
        f"  {len(y)} points with a gap of {2 * cfg.margin:g}: {len(path) - 1} mistakes, then none"
    )
    text = "before, weights of 0 say -1 to all: {} points are wrong, those of class 1"
    wrong = int((predict(path[0], x) != y).sum())
    ones = int((y == 1).sum())
    check("before", text, wrong, at_least=ones, at_most=ones)
    wrong = int((predict(path[-1], x) != y).sum())
    check("corrects", "afterwards it is {}", wrong, at_least=0, at_most=0)
    return x, y, path


def show_bound(cfg: Config) -> dict[float, tuple[float, float]]:
    print("\n[2] Novikoff's theorem: at most (R / γ)² mistakes, whatever the order")
    rng = cfg.rng()
    rows = {}
    shares = []
    print("  margin   mistakes: mean   most   allowed, mean")
    for margin in [0.4, 0.2, 0.1, 0.05, 0.025]:
        made = []
        allowed = []
        for _ in range(cfg.draws):
            x, y, separator = separable(cfg.samples, margin, rng)
            gamma = (y * (x @ separator)).min()
            radius = np.linalg.norm(x, axis=1).max()
            allowed.append((radius / gamma) ** 2)
            path, _ = train(x, y, passes=10_000)
            made.append(len(path) - 1)
            shares.append(made[-1] / allowed[-1])
        rows[margin] = (np.mean(made), np.mean(allowed))
        print(f"  {margin:<6g}  {np.mean(made):14.1f}  {max(made):5}   {np.mean(allowed):7.0f}")
    text = f"in {5 * cfg.draws} runs at most a share of {{}} of the allowed mistakes is made"
    check("bound", text, max(shares), above=0, at_most=1)

    # Orthogonal samples teach each other nothing: R = 1, and (1, …, 1)/√9 has the margin 1/3.
    count = len(train(np.eye(9), np.ones(9), passes=10)[0]) - 1
    text = "nine samples at right angles cost {} mistakes, all nine that (R / γ)² allows"
    check("tight", text, count, at_least=9, at_most=9)
    factor = rows[0.025][0] / rows[0.4][0]
    allowed = rows[0.025][1] / rows[0.4][1]
    text = f"a gap 16 times narrower: {{}} times the mistakes, {allowed:.0f} times those allowed"
    expect("narrow", text, factor, at_least=4, below=allowed)
    return rows


def show_parity(cfg: Config) -> None:
    print("\n[3] The same samples in the same order, in scikit-learn: they overlap, so four passes")
    rng = cfg.rng()
    x = rng.normal(size=(cfg.samples, 5))
    y = np.where(x @ rng.normal(size=5) + rng.normal(size=len(x)) > 0.5, 1, -1)
    path, _ = train(with_bias(x), y, passes=4)
    theirs = Perceptron(max_iter=4, tol=None, shuffle=False).fit(x, y)
    theirs = np.append(theirs.coef_, theirs.intercept_)
    check_close("parity", "after four passes the weights are the same", path[-1], theirs)


def show_xor(cfg: Config) -> float:
    print("\n[4] All 16 functions of two bits: which can one neuron learn?")
    x = with_bias(np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]))
    failed = []
    for outputs in itertools.product([-1, 1], repeat=4):
        _, learned = train(x, np.array(outputs), passes=100)
        if not learned:
            failed.append(outputs)
    text = "it fails for two of them: 'exactly one' (XOR), and 'both or none'"
    check("functions", text, failed == [(-1, 1, 1, -1), (1, -1, -1, 1)])

    xor = np.array([-1, 1, 1, -1])
    path, _ = train(x, xor, passes=100)
    repeat = next(i for i in range(1, len(path)) if (path[i] == path[0]).all())
    text = "XOR: after {} corrections, a whole pass, the weights are 0 again, and so on for ever"
    check("circle", text, repeat, at_least=4, at_most=4)

    lines = cfg.rng().normal(size=(3, 20_000))
    signs = predict(lines, x)  # (4, 20,000)
    best = float((signs == xor[:, None]).mean(axis=0).max())
    text = "the best of 20,000 random lines gets a share of {} right"
    check("xor", text, best, at_least=0.75, at_most=0.75)
    return best


def train_averaged(
    x: np.ndarray, y: np.ndarray, passes: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The weights after each pass, and the mean of all weights so far, after every sample.

    The averaged perceptron (Freund and Schapire 1999). x: (N, D), y: (N,).
    """
    # practice: The average of all weights
    weights = np.zeros(x.shape[1])
    total = np.zeros(x.shape[1])
    last = []
    averages = []
    for number in range(1, passes + 1):
        for sample, target in zip(x, y):
            update(weights, sample, target)

            # Weights that survive many samples count as often as they did.
            total += weights
        last.append(weights.copy())
        averages.append(total / (number * len(x)))
    return last, averages
    # end practice


def show_average(cfg: Config) -> dict[str, np.ndarray]:
    print("\n[5] Two clouds that overlap: the rule never rests, so take the mean of its weights")
    x = np.array([[1.0, 2.0], [1.0, 1.0]])
    last, averages = train_averaged(x, np.array([1, -1]), passes=2)
    text = "two samples, two passes: weights (0, 1) and (-1, 0), averages (0.5, 1.5) and (0, 1)"
    check_close("mean", text, np.array(last + averages), [[0, 1], [-1, 0], [0.5, 1.5], [0, 1]])

    curves = {"last": [], "average": []}
    for seed in range(5):
        rng = np.random.default_rng([cfg.seed, seed])
        x, y = overlapping(cfg.samples, rng)
        x_test, y_test = overlapping(4000, rng)
        last, averages = train_averaged(x, y, cfg.passes)
        curves["last"].append([(predict(w, x_test) == y_test).mean() for w in last])
        curves["average"].append([(predict(w, x_test) == y_test).mean() for w in averages])

    accuracy = {name: np.array(rows) for name, rows in curves.items()}  # (seeds, passes)
    for name, rows in accuracy.items():
        print(f"  {name:<8} accuracy on new points {rows.mean():.3f}, lowest {rows.min():.3f}")
    gain = accuracy["average"].mean() - accuracy["last"].mean()
    expect("steadier", "the average gets {} more right, mean of five seeds", gain, at_least=0.01)
    return accuracy


# Pictures and helpers: skip on a first reading


def separable(
    n: int, margin: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points of the unit disc at least `margin` from a random line: x (n, 3), y (n,), the line.

    The line is a unit vector (3,) like the weights.
    """
    angle = rng.uniform(0, 2 * np.pi)
    line = np.array([np.cos(angle), np.sin(angle), rng.uniform(-0.3, 0.3)])
    points = rng.uniform(-1, 1, size=(100 * n, 2))
    inside = np.linalg.norm(points, axis=1) <= 1
    away = np.abs(with_bias(points) @ line) >= margin
    x = with_bias(points[inside & away][:n])
    return x, predict(line, x), line / np.linalg.norm(line)


def with_bias(x: np.ndarray) -> np.ndarray:
    """(N, D) -> (N, D + 1): the weight of a constant input 1 is the bias."""
    return np.column_stack([x, np.ones(len(x))])


def overlapping(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two round clouds, 2 standard deviations apart: x (n, 3), y (n,). The best line: 0.841."""
    y = rng.choice([-1, 1], size=n)
    return with_bias(rng.normal(size=(n, 2)) + 0.7071 * y[:, None]), y


def draw_line(cfg: Config, x: np.ndarray, y: np.ndarray, path: list[np.ndarray]) -> None:
    """The line after some of the mistakes, from pale to dark; beside it the four points of XOR."""
    figure, (left, right) = new_figure(1, 2)
    across = np.array([-1.2, 1.2])
    chosen = np.unique(np.linspace(2, len(path) - 1, 6).astype(int))
    for shade, number in zip(np.linspace(0.2, 1, len(chosen)), chosen):
        a, b, c = path[number]
        left.plot(across, -(a * across + c) / (b or 1e-9), color=GREY, alpha=shade)
    left.plot(across, -(a * across + c) / (b or 1e-9), color="black", linewidth=3)
    colours = np.where(y == 1, BLUE, ORANGE)
    left.scatter(x[:, 0], x[:, 1], c=colours, s=18, zorder=3)
    left.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), aspect="equal", xticks=(), yticks=())
    left.set_title(f"{len(path) - 1} mistakes, then it rests (black)")

    bits = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    right.scatter(*bits.T, c=[ORANGE, BLUE, BLUE, ORANGE], s=220, zorder=3)
    right.plot([-0.5, 1.5], [1.0, -1.0], color=GREY)
    right.plot([-0.5, 1.5], [2.0, 0.0], color=GREY, linestyle="--")
    right.set(xlim=(-0.5, 1.5), ylim=(-0.5, 1.5), aspect="equal", xticks=(0, 1), yticks=(0, 1))
    right.scatter([1, 0], [1, 0], s=500, facecolors="none", edgecolors="black")
    right.set_title("XOR: each line leaves a point wrong")
    save_figure(figure, cfg.out / "line")


def draw_curves(cfg: Config, rows: dict, accuracy: dict[str, np.ndarray]) -> None:
    figure, (left, right) = new_figure(1, 2)
    margins = list(rows)
    left.loglog(margins, [allowed for _, allowed in rows.values()], "o--", color=GREY)
    left.loglog(margins, [count for count, _ in rows.values()], "o-", color=BLUE)
    left.text(margins[2], 1.6 * rows[margins[2]][1], "allowed: (R / γ)²", color=GREY)
    left.text(margins[2], 0.5 * rows[margins[2]][0], "made", color=BLUE)
    left.set(xlabel="margin", ylabel="mistakes", title="A narrower gap costs more mistakes")
    left.set_xticks(margins, [f"{margin:g}" for margin in margins])
    left.minorticks_off()

    for (name, values), colour in zip(accuracy.items(), [ORANGE, BLUE]):
        passes = range(1, values.shape[1] + 1)
        right.plot(passes, values.T, color=colour, alpha=0.25, linewidth=1)
        right.plot(passes, values.mean(axis=0), "o-", color=colour, label=f"{name}, mean of five")
    right.axhline(0.841, color=GREY, linestyle="--", label="best line")
    right.set(xlabel="pass", ylim=(0.7, 0.86), title="Accuracy on new points")
    right.legend(loc="lower right")
    save_figure(figure, cfg.out / "curves")


def run(cfg: Config) -> dict:
    x, y, path = show_rule(cfg)
    rows = show_bound(cfg)
    show_parity(cfg)
    best = show_xor(cfg)
    accuracy = show_average(cfg)
    draw_line(cfg, x, y, path)
    draw_curves(cfg, rows, accuracy)
    means = {name: float(values.mean()) for name, values in accuracy.items()}
    return {"mistakes": len(path) - 1, "xor": best, **means}


if __name__ == "__main__":
    main(run, Config, __doc__)
