"""2.3 Derivatives and gradients: what a small change does, and which small change does most
导数与梯度：微小的改变会带来什么，哪种改变作用最大

You will be able to answer
    1. How small must a step be?                   show_steps      forward, central, best, too-small
    2. How do you measure slopes of many inputs?   show_gradient   by-hand, gradient, cost
    3. Which direction climbs fastest?             show_direction  directional, steepest, random
    4. What if the answer is a vector?             show_jacobian   jacobian, linear
    5. What do second derivatives say?             show_hessian    hessian, taylor, kinds
Predict   random_share: in 1,000 dimensions, what share of |g| has the best of 1,000 random slopes?
Run       python phase02_math/03-derivatives-gradients.py                  about 5 s
Needs     -
Reference torch.autograd.grad, torch.autograd.functional
Notation  x point (n,)  h step  g gradient (n,)  J Jacobian (m, n)  H Hessian (n, n)
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import ModuleType

import numpy as np
import torch
from torch.autograd import functional

from common.checks import check, check_close
from common.config import LessonConfig, main, param
from common.figures import BLUE, GREEN, GREY, ORANGE, RED, new_figure, save_figure

# The relative spacing of float64 numbers is ε = 2e-16. Its cube root, for h² + ε / h: see step 1.
BEST_STEP = 6e-6
# Its fourth root, for the Hessian: rounding is divided by h twice, and h² + ε / h² is to be small.
BEST_STEP_TWICE = 1e-4


@dataclass
class Config(LessonConfig):
    points: int = param(20, "random points at which derivatives are compared", tiny=3)
    directions: int = param(3600, "directions around a point", tiny=360, low=100)


def forward_difference(f: Callable, x: float, h: float) -> float:
    return (f(x + h) - f(x)) / h


def central_difference(f: Callable, x: float, h: float) -> float:
    """The slope between a step back and a step ahead. A bend moves both alike and cancels."""
    return (f(x + h) - f(x - h)) / (2 * h)


def exp_sin(x: float) -> float:
    return np.exp(np.sin(x))


def show_steps(cfg: Config) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, float]]:
    print("\n[1] The slope of exp(sin x) at x = 1, from two values a step h apart")
    truth = np.exp(np.sin(1.0)) * np.cos(1.0)
    steps = np.logspace(0, -15, 61)  # four to each power of ten
    forward = np.array([abs(forward_difference(exp_sin, 1.0, h) - truth) for h in steps])
    central = np.array([abs(central_difference(exp_sin, 1.0, h) - truth) for h in steps])
    print(f"  {'h':>8}{'forward errs by':>18}{'central':>12}      true slope {truth:.12f}")
    for i in range(4, 60, 8):
        print(f"  {steps[i]:>8.0e}{forward[i]:>18.1e}{central[i]:>12.1e}")

    # A straight line in the log-log picture is a power of h, and its slope the exponent.
    some = slice(8, 17)  # h from 1e-2 to 1e-4
    first, _ = np.polyfit(np.log(steps[some]), np.log(forward[some]), 1)
    second, _ = np.polyfit(np.log(steps[some]), np.log(central[some]), 1)
    text = "the error of the forward difference falls as h to the power {}"
    check("forward", text, first, above=0.95, below=1.05)
    text = "the error of the central difference falls as h to the power {}"
    check("central", text, second, above=1.95, below=2.05)

    # One error is a matter of luck with rounding; the median over a hundred places is much less so.
    places = np.linspace(0, 1, 101)
    slopes = exp_sin(places) * np.cos(places)
    typical = []
    for h in (10 * BEST_STEP, BEST_STEP, BEST_STEP / 10, 1e-12):
        typical.append(np.median(abs(central_difference(exp_sin, places, h) - slopes)))
    longer, best, shorter, tiny = typical
    print(f"  median over 101 places: {best:.1e} at h = {BEST_STEP}, {tiny:.1e} at h = 1e-12")
    text = "a step ten times longer or ten times shorter errs at least {} times as much"
    check("best", text, min(longer, shorter) / best, above=2)
    lost = np.log10(tiny / best)
    text = "at h = 1e-12 it errs 10 to the power {} times as much: the digits of f cancel"
    check("too-small", text, lost, above=5.5, below=7.5)
    results = {"central_order": second, "error_at_best": best, "powers_lost": lost}
    return steps, {"forward": forward, "central": central}, results


def gradient(f: Callable, x: np.ndarray, h: float = BEST_STEP) -> np.ndarray:
    """All partial derivatives: move one coordinate, and leave the others alone.

    f: (n,) -> number. x: (n,) -> (n,). Evaluates f 2n times.
    """
    # practice: One coordinate at a time
    g = np.zeros(len(x))
    for i, axis in enumerate(np.eye(len(x))):
        ahead = f(x + h * axis)
        back = f(x - h * axis)
        g[i] = (ahead - back) / (2 * h)

    return g
    # end practice


def show_gradient(cfg: Config) -> None:
    print("\n[2] The gradient: one partial derivative for each input")
    ours = gradient(bowl, np.array([1.0, 2.0]))
    check_close("by-hand", "x²/2 + xy + 2y² has the gradient (3, 9) at (1, 2)", ours, [3, 9])

    # Autograd (2.4, 3.3) differentiates each operation by its formula. It takes no step h and has
    # only rounding errors, so it can judge our differences.
    points = cfg.rng().normal(size=(cfg.points, 6))
    ours = []
    judged = []
    for point in points:
        ours.append(gradient(hills, point))
        x = torch.tensor(point, requires_grad=True)
        judged += torch.autograd.grad(hills(x, torch), x)
    text = f"six partial derivatives at {cfg.points} points are autograd's, up to {{}}"
    check_close("gradient", text, ours, torch.stack(judged), atol=1e-8)

    evaluated = []

    def counted_hills(x: np.ndarray) -> float:
        evaluated.append(x)
        return hills(x)

    gradient(counted_hills, points[0])
    text = "for six inputs the function is evaluated {} times, and a network has millions"
    check("cost", text, len(evaluated), at_least=12, at_most=12)


def slope_along(f: Callable, x: np.ndarray, direction: np.ndarray) -> float:
    """The directional derivative, measured. x, direction: (n,), the direction of length 1."""

    def on_the_way(t: float) -> float:
        return f(x + t * direction)

    return central_difference(on_the_way, 0.0, BEST_STEP)


def show_direction(cfg: Config) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    print("\n[3] Measure the slope in every direction from (0.4, -0.3)")
    x = np.array([0.4, -0.3])

    # The two partial derivatives of the hills, found on paper.
    a, b = x
    top = np.exp(-(a**2) - b**2)
    along_a = 1.5 * np.cos(1.5 * a) + 0.8 * a * b - 2 * a * top
    along_b = 1.5 * np.cos(1.5 * b) + 0.4 * a**2 - 2 * b * top
    g = np.array([along_a, along_b])

    angles = np.linspace(-np.pi, np.pi, cfg.directions, endpoint=False)
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)  # (directions, 2)
    slopes = np.array([slope_along(hills, x, direction) for direction in directions])
    text = f"in all of {cfg.directions} directions v the slope is g·v, g found on paper, up to {{}}"
    check_close("directional", text, slopes, directions @ g, atol=1e-8)

    away = np.degrees(abs(angles[slopes.argmax()] - np.arctan2(g[1], g[0])))
    print(f"  the steepest slope is {slopes.max():.4f}, the length of g {np.linalg.norm(g):.4f}")
    text = "the steepest direction found is that of the gradient, up to {} degrees"
    check("steepest", text, away, at_most=360 / cfg.directions)

    # Each try costs two values of f: together as many as the whole gradient by differences.
    rng = cfg.rng()
    far = rng.normal(size=1000)
    tried = rng.normal(size=(1000, 1000))
    tried = tried / np.linalg.norm(tried, axis=1, keepdims=True)
    best = max(slope_along(hills, far, direction) for direction in tried)
    share = best / np.linalg.norm(gradient(hills, far))
    text = "in 1,000 dimensions the best of 1,000 random directions has a share of {} of |g|"
    check("random", text, share, above=0.06, below=0.2)
    length = np.linalg.norm(g)
    found = {"steepest": slopes.max(), "gradient_length": length, "random_share": share}
    return angles, slopes, found


def jacobian(f: Callable, x: np.ndarray, h: float = BEST_STEP) -> np.ndarray:
    """Row i is the gradient of output i; column j says how all outputs react to input j.

    f: (n,) -> (m,). x: (n,) -> (m, n)
    """
    # practice: A column for each input
    columns = []
    for axis in np.eye(len(x)):
        ahead = f(x + h * axis)  # (m,)
        back = f(x - h * axis)
        columns.append((ahead - back) / (2 * h))

    return np.stack(columns, axis=1)
    # end practice


def show_jacobian(cfg: Config) -> None:
    print("\n[4] Several outputs: the slopes form a matrix, the map that f resembles nearby")
    points = cfg.rng().uniform(0.3, 1.5, size=(cfg.points, 3))
    ours = np.array([jacobian(mixture, x) for x in points])
    torch_mixture = partial(mixture, library=torch)
    judged = [functional.jacobian(torch_mixture, torch.tensor(x)) for x in points]
    text = f"3 inputs, 4 outputs: the Jacobians at {cfg.points} points are autograd's, up to {{}}"
    check_close("jacobian", text, ours, torch.stack(judged), atol=1e-8)

    x = np.array([0.5, 1.0, 1.5])
    d = np.array([0.3, -0.5, 0.2])
    misses = []
    for t in (1e-2, 1e-3):
        predicted = mixture(x) + jacobian(mixture, x) @ (t * d)
        misses.append(np.abs(mixture(x + t * d) - predicted).max())
    text = "f(x) + J d misses f(x + d) by {} times less when d is 10 times shorter"
    check("linear", text, misses[0] / misses[1], above=95, below=105)


def hessian(f: Callable, x: np.ndarray, h: float = BEST_STEP_TWICE) -> np.ndarray:
    """How the slope along one axis changes along another. f: (n,) -> number. x: (n,) -> (n, n)"""

    # practice: The derivative of the derivative
    def slopes(point: np.ndarray) -> np.ndarray:
        return gradient(f, point, h)

    return jacobian(slopes, x, h)
    # end practice


def kind_of_critical_point(second: np.ndarray) -> str:
    """What a point with gradient 0 is. second: its Hessian (n, n), without an eigenvalue 0."""
    eigenvalues = np.linalg.eigvalsh(second)
    if (eigenvalues > 0).all():
        return "local minimum"
    if (eigenvalues < 0).all():
        return "local maximum"
    return "saddle"


def show_hessian(cfg: Config) -> None:
    print("\n[5] The Hessian: how the ground bends, and so what kind of critical point this is")
    points = cfg.rng().normal(size=(cfg.points, 4))
    ours = np.array([hessian(hills, x) for x in points])
    torch_hills = partial(hills, library=torch)
    judged = [functional.hessian(torch_hills, torch.tensor(x)) for x in points]
    text = f"4x4 second derivatives at {cfg.points} points are autograd's, up to {{}}"
    check_close("hessian", text, ours, torch.stack(judged), atol=1e-6)

    x = np.array([0.3, -0.6, 0.2, 0.5])
    misses = []
    for t in (0.05, 0.005):
        d = t * np.array([1, -1, 1, 1])
        predicted = hills(x) + gradient(hills, x) @ d + d @ hessian(hills, x) @ d / 2
        misses.append(abs(hills(x + d) - predicted))
    text = "f + g·d + ½ d·H d misses f(x + d) by {} times less when d is 10 times shorter"
    check("taylor", text, misses[0] / misses[1], above=700, below=1400)

    origin = np.zeros(2)
    found = []
    for f in (bowl, dome, saddle):  # the gradient of each is 0 at the origin
        second = hessian(f, origin)
        found.append(kind_of_critical_point(second))
        print(f"  {f.__name__:<8} eigenvalues {np.linalg.eigvalsh(second).round(3)}: {found[-1]}")
    text = "the signs of the eigenvalues tell a minimum, a maximum and a saddle apart"
    check("kinds", text, found == ["local minimum", "local maximum", "saddle"])


# Pictures and helpers: skip on a first reading


def bowl(x: np.ndarray) -> float:
    return x[0] ** 2 / 2 + x[0] * x[1] + 2 * x[1] ** 2


def dome(x: np.ndarray) -> float:
    return -np.cosh(x).sum()


def saddle(x: np.ndarray) -> float:
    return x[0] ** 2 / 4 - 3 * x[1] ** 2


def hills(x: np.ndarray, library: ModuleType = np) -> float:
    """A landscape over n coordinates, for NumPy or torch. x: (n,) -> number"""
    waves = library.sin(1.5 * x).sum()
    coupled = 0.4 * (x[1:] * x[:-1] ** 2).sum()
    return waves + coupled + library.exp(-(x**2).sum())


def mixture(x: np.ndarray, library: ModuleType = np) -> np.ndarray:
    """Four outputs of three inputs, for NumPy or torch. x: (3,) -> (4,)"""
    product = x[0] * x[1] * x[2]
    ratio = library.exp(x[0] - x[2]) * x[1]
    return library.stack([product, library.sin(x).sum(), ratio, (x**2).sum() ** 0.5])


def draw_steps(cfg: Config, steps: np.ndarray, errors: dict[str, np.ndarray]) -> None:
    figure, axis = new_figure(size=(8.6, 5.2))
    for name, colour, place in (("forward", ORANGE, (4e-8, 2e-4)), ("central", BLUE, (3e-3, 2e-7))):
        axis.loglog(steps, errors[name] + 1e-17, ".-", color=colour, linewidth=1.4)
        axis.text(*place, f"{name} difference", color=colour, fontweight="bold")
    axis.loglog(steps[16:], 2e-16 / steps[16:], "--", color=GREY)
    axis.text(3e-15, 3e-8, "rounding: 2e-16 / h", color=GREY)
    axis.set(xlim=(1e-15, 12), ylim=(1e-13, 10), xlabel="step h", ylabel="error of the slope")
    axis.set_title("Forward sees the bend, central only its change, short steps only rounding")
    save_figure(figure, cfg.out / "steps")


def draw_direction(cfg: Config, angles: np.ndarray, slopes: np.ndarray) -> None:
    figure, (left, right) = new_figure(1, 2, size=(12.0, 5.2))
    x = np.array([0.4, -0.3])
    side = np.linspace(-1.6, 1.6, 81)
    height = np.apply_along_axis(hills, 0, np.meshgrid(side, side))  # (81, 81)
    left.contourf(side, side, height, levels=24, cmap="Greys", alpha=0.55)
    left.contour(side, side, height, levels=24, colors=GREY, linewidths=0.6, linestyles="solid")
    scale = {"angles": "xy", "scale_units": "xy", "scale": 7}
    for place in np.stack(np.meshgrid(side[8:73:16], side[8:73:16]), axis=-1).reshape(-1, 2):
        left.quiver(*place, *gradient(hills, place), color=BLUE, width=0.006, **scale)
    g = gradient(hills, x)
    level = 0.35 * np.array([-g[1], g[0]]) / np.linalg.norm(g)
    left.plot(*np.column_stack([x - level, x + level]), color=GREEN, linewidth=4)
    left.quiver(*x, *g, color=RED, width=0.009, zorder=4, **scale)
    left.plot(*x, "o", color="black", markersize=9, zorder=5)
    left.set(aspect="equal", xlabel="$x_0$", ylabel="$x_1$")
    left.set_title("Gradients cross contour lines at right angles")
    left.grid(False)

    steepest = np.degrees(np.arctan2(g[1], g[0]))
    top = slopes.max()
    right.plot(np.degrees(angles), slopes, color=BLUE)
    right.plot(steepest, top, "o", color=RED, markersize=10)
    right.text(steepest, 1.08 * top, "along g: |g|", color=RED, ha="center", fontweight="bold")
    right.plot([steepest - 90, steepest + 90], [0, 0], "o", color=GREEN, markersize=10)
    right.text(steepest - 80, -0.12 * top, "level", color=GREEN, va="top")
    right.set(ylim=(-1.25 * top, 1.25 * top), xticks=range(-180, 181, 90))
    right.set(xlabel="direction in degrees", ylabel="measured slope")
    right.set_title("The slope is a cosine of the direction")
    save_figure(figure, cfg.out / "steepest")


def run(cfg: Config) -> dict[str, float]:
    steps, errors, results = show_steps(cfg)
    show_gradient(cfg)
    angles, slopes, found = show_direction(cfg)
    show_jacobian(cfg)
    show_hessian(cfg)
    draw_steps(cfg, steps, errors)
    draw_direction(cfg, angles, slopes)
    return {**results, **found}


if __name__ == "__main__":
    main(run, Config, __doc__)
