"""2.3 Derivatives and gradients: what a small change does, and which small change does most
导数与梯度：一点点改变会带来什么，哪一种改变最有效

You will be able to answer
    1. How small must a step be to measure a slope?               show_steps       forward, central, too-small
    2. How do you measure the slope with a million knobs?         show_gradient    gradient, cost
    3. Which direction climbs fastest, and which stays level?     show_direction   directional, steepest, bound, level
    4. What is the slope when the answer is a vector?             show_jacobian    jacobian, linear, local-area
    5. What do second derivatives say?                            show_hessian     hessian, symmetric, taylor, kinds
Run       python phase02_math/03-derivatives-gradients.py                  about 5 s
Needs     -
Reference torch.autograd.grad, torch.autograd.functional.jacobian, torch.autograd.functional.hessian
Notation  x point (n,)  h step  g gradient (n,)  J Jacobian (m, n)  H Hessian (n, n)
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from common.checks import check, check_close
from common.config import LessonConfig, main, param
from common.figures import BLUE, GREEN, GREY, ORANGE, RED, new_figure, save_figure

BEST_STEP = 6e-6  # about the cube root of float64's rounding error 2e-16: step 1 shows why
BEST_STEP_TWICE = 1e-4  # its fourth root, where the difference is divided by h twice


@dataclass
class Config(LessonConfig):
    points: int = param(20, "random points at which derivatives are compared", tiny=3)
    directions: int = param(3600, "directions around a point", tiny=360, low=100)


def forward_difference(f: Callable, x: float, h: float) -> float:
    return (f(x + h) - f(x)) / h


def central_difference(f: Callable, x: float, h: float) -> float:
    """The slope between a step back and a step ahead: what bends the curve acts on both alike and cancels."""
    # practice: a slope from two values
    # hint: rise over run, and the run is from x - h to x + h
    # hint: ahead = f(x + h)
    ahead = f(x + h)
    back = f(x - h)
    slope = (ahead - back) / (2 * h)
    # end practice
    return slope


def gradient(f: Callable, x: np.ndarray, h: float = BEST_STEP) -> np.ndarray:
    """All partial derivatives: turn one knob at a time. f: (n,) -> number; x: (n,) -> (n,). Calls f 2n times."""
    g = np.zeros(len(x))
    # practice: one knob at a time
    # hint: a partial derivative is an ordinary one: every other coordinate stands still
    # hint: the step goes along one axis: h in place i, zeros elsewhere
    # hint: for i, axis in enumerate(np.eye(len(x))): …
    for i, axis in enumerate(np.eye(len(x))):
        ahead, back = f(x + h * axis), f(x - h * axis)
        g[i] = (ahead - back) / (2 * h)
    # end practice
    return g


def jacobian(f: Callable, x: np.ndarray, h: float = BEST_STEP) -> np.ndarray:
    """Row i is the gradient of output i; column j says how all outputs answer to input j. f: (n,) -> (m,); (m, n)"""
    # practice: a column for each input
    # hint: one input moves, all outputs are watched at once; collect the columns, then np.column_stack
    # hint: for axis in np.eye(len(x)): …
    columns = []
    for axis in np.eye(len(x)):
        columns.append((f(x + h * axis) - f(x - h * axis)) / (2 * h))
    matrix = np.column_stack(columns)
    # end practice
    return matrix


def hessian(f: Callable, x: np.ndarray, h: float = BEST_STEP_TWICE) -> np.ndarray:
    """How the slope along one axis changes along another. f: (n,) -> number; x: (n,) -> (n, n)"""

    # practice: the derivative of the derivative
    # hint: the gradient is a function from n numbers to n numbers, and you can take the Jacobian of such a function
    # hint: define slopes(point), which returns the gradient of f at a point; both differences want the larger step h
    def slopes(point: np.ndarray) -> np.ndarray:
        return gradient(f, point, h)

    matrix = jacobian(slopes, x, h)
    # end practice
    return matrix


def hills(x, m=np):
    """A landscape over n coordinates, for NumPy (m=np) and torch (m=torch). x: (n,) -> number"""
    return m.sin(1.5 * x).sum() + 0.4 * (x[1:] * x[:-1] ** 2).sum() + m.exp(-(x**2).sum())


def from_polar(p, m=np):
    """(radius, angle) -> (x, y)"""
    return m.stack([p[0] * m.cos(p[1]), p[0] * m.sin(p[1])])


def mixture(x, m=np):
    """Three numbers to four, each depending on all: nothing that a formula would make easy."""
    return m.stack([x.prod(), m.sin(x).sum(), m.exp(x[0] - x[2]) * x[1], (x**2).sum() ** 0.5])


def show_steps(cfg: Config) -> dict[str, float]:
    print("\n[1] The slope of exp(sin x) at x = 1, from two values a step h apart")
    f, truth = lambda x: np.exp(np.sin(x)), np.exp(np.sin(1.0)) * np.cos(1.0)
    steps = np.logspace(0, -15, 61)
    errors = {
        name: np.array([abs(rule(f, 1.0, h) - truth) for h in steps])
        for name, rule in (("forward", forward_difference), ("central", central_difference))
    }
    print(f"  {'h':>8}{'forward':>12}{'central':>12}      true slope {truth:.12f}")
    for i in range(4, 60, 8):
        print(f"  {steps[i]:>8.0e}{errors['forward'][i]:>12.1e}{errors['central'][i]:>12.1e}")
    order = {}
    for name, (first, last), text, power in (
        ("forward", (8, 24), "h", 1),
        ("central", (8, 16), "h²", 2),
    ):
        order[name] = np.polyfit(np.log(steps[first:last]), np.log(errors[name][first:last]), 1)[0]
        check(
            name,
            f"the {name} difference errs by a multiple of {text}: slope in the log-log picture",
            order[name],
            above=power - 0.05,
            below=power + 0.05,
        )
    best = errors["central"].min()
    print(
        f"  the best step of the central difference is {steps[errors['central'].argmin()]:.0e}, its error {best:.0e}"
    )
    check(
        "too-small",
        "at h = 1e-12 its error is more than 1,000 times as large: digits cancel",
        np.median(errors["central"][46:51]) / best,
        above=1000,
    )
    draw_steps(cfg, steps, errors)
    return {"central_order": order["central"], "best_error": best}


def show_gradient(cfg: Config) -> None:
    print("\n[2] The gradient: one partial derivative for each knob")
    points = cfg.rng().normal(size=(cfg.points, 6))
    x = torch.tensor(points, requires_grad=True)
    by_torch = torch.autograd.grad(sum(hills(row, torch) for row in x), x)[0]
    check_close(
        "gradient",
        f"6 partial derivatives at {cfg.points} points equal autograd's",
        np.array([gradient(hills, point) for point in points]),
        by_torch,
        atol=1e-8,
    )
    calls = []
    gradient(lambda x: calls.append(x) or hills(x), points[0])
    check(
        "cost",
        f"this takes {len(calls)} evaluations for 6 knobs, and a network has millions",
        len(calls) == 12,
    )


def show_direction(cfg: Config) -> dict[str, float]:
    print("\n[3] Walk in every direction from (0.4, -0.3): the gradient's is the steepest")
    x = np.array([0.4, -0.3])
    g = gradient(hills, x)
    angles = np.linspace(-np.pi, np.pi, cfg.directions, endpoint=False)
    ways = np.stack([np.cos(angles), np.sin(angles)], axis=1)  # (directions, 2) of length 1
    slopes = np.array(
        [central_difference(lambda t: hills(x + t * way), 0.0, BEST_STEP) for way in ways]
    )
    check_close(
        "directional",
        "the slope along a direction v is g·v, for all of them",
        slopes,
        ways @ g,
        atol=1e-8,
    )
    off = np.degrees(abs(angles[slopes.argmax()] - np.arctan2(g[1], g[0])))
    print(
        f"  g = {g.round(4)}, length {np.linalg.norm(g):.4f}; the steepest measured slope is {slopes.max():.4f}"
    )
    check(
        "steepest",
        "the steepest measured direction is the gradient's; degrees between them",
        off,
        at_most=360 / cfg.directions,
    )
    far, tries = cfg.rng().normal(size=10), cfg.rng().normal(size=(1000, 10))
    unit = (tries / np.linalg.norm(tries, axis=1, keepdims=True)).T
    share = max(gradient(lambda t: hills(far + unit @ t), np.zeros(1000))) / np.linalg.norm(
        gradient(hills, far)
    )
    check(
        "bound",
        "in 10 dimensions none of 1,000 random ways is steeper; the best one's share of |g|",
        share,
        below=1,
    )
    level = np.array([-g[1], g[0]]) / np.linalg.norm(g)
    check_close(
        "level",
        "at a right angle to g the slope is 0: that way runs the contour line",
        central_difference(lambda t: hills(x + t * level), 0.0, BEST_STEP),
        0.0,
        atol=1e-8,
    )
    draw_direction(cfg, x, g, angles, slopes)
    return {"steepest": slopes.max(), "gradient_length": np.linalg.norm(g), "random_share": share}


def show_jacobian(cfg: Config) -> None:
    print(
        "\n[4] Several outputs: a matrix of slopes, the linear map that the function looks like from nearby"
    )
    points = cfg.rng().uniform(0.3, 1.5, size=(cfg.points, 3))
    check_close(
        "jacobian",
        f"3 inputs, 4 outputs: equal to autograd's at {cfg.points} points",
        [jacobian(mixture, x) for x in points],
        [
            torch.autograd.functional.jacobian(lambda t: mixture(t, torch), torch.tensor(x))
            for x in points
        ],
        atol=1e-8,
    )
    x, d = np.array([0.5, 1.0, 1.5]), np.array([0.3, -0.5, 0.2])
    misses = [
        np.abs(mixture(x + t * d) - mixture(x) - jacobian(mixture, x) @ (t * d)).max()
        for t in (1e-2, 1e-3)
    ]
    check(
        "linear",
        "f(x + d) = f(x) + J d, but for a rest that falls 100-fold when d falls 10-fold",
        misses[0] / misses[1],
        above=95,
        below=105,
    )
    p = np.array([2.5, 0.7])
    check_close(
        "local-area",
        "polar coordinates: det J is the radius, by which small areas grow (2.1)",
        np.linalg.det(jacobian(from_polar, p)),
        p[0],
        atol=1e-8,
    )


def show_hessian(cfg: Config) -> None:
    print("\n[5] The Hessian: how the ground bends, and hence what kind of place this is")
    points = cfg.rng().normal(size=(cfg.points, 4))
    ours = np.array([hessian(hills, x) for x in points])
    by_torch = [
        torch.autograd.functional.hessian(lambda t: hills(t, torch), torch.tensor(x))
        for x in points
    ]
    check_close(
        "hessian",
        f"4x4 second derivatives at {cfg.points} points equal autograd's",
        ours,
        by_torch,
        atol=1e-6,
    )
    x, d = np.array([0.3, -0.6, 0.2, 0.5]), np.array([0.5, -0.5, 0.5, 0.5])
    slopes = lambda point: torch.autograd.functional.jacobian(
        lambda t: hills(t, torch), torch.tensor(point)
    ).numpy()
    bends = jacobian(slopes, x)  # of exact slopes: nothing is symmetric by construction
    check_close(
        "symmetric",
        "the order of differentiation does not matter: H = Hᵀ",
        bends,
        bends.T,
        atol=1e-8,
    )
    rests = [
        abs(hills(x + e) - hills(x) - gradient(hills, x) @ e - e @ hessian(hills, x) @ e / 2)
        for e in (0.1 * d, 0.01 * d)
    ]
    check(
        "taylor",
        "f + g·d + ½ d·H d leaves a rest that falls 1,000-fold when d falls 10-fold",
        rests[0] / rests[1],
        above=700,
        below=1400,
    )
    places = {
        "valley": lambda x: x[0] ** 2 + x[0] * x[1] + 2 * x[1] ** 2,
        "summit": lambda x: -np.cosh(x).sum(),
        "saddle": lambda x: x[0] ** 2 - 3 * x[1] ** 2,
    }
    found = {}
    for name, f in places.items():
        values = np.linalg.eigvalsh(hessian(f, np.zeros(2)))
        found[name] = (
            "valley" if (values > 0).all() else "summit" if (values < 0).all() else "saddle"
        )
        print(f"  eigenvalues {values.round(3)}: {found[name]}")
    check(
        "kinds",
        "the signs of its eigenvalues tell valley, summit and saddle",
        list(found) == list(found.values()),
    )


def draw_steps(cfg: Config, steps: np.ndarray, errors: dict[str, np.ndarray]) -> None:
    figure, axis = new_figure(size=(8.6, 5.2))
    for name, colour, place in (("forward", ORANGE, (4e-8, 2e-4)), ("central", BLUE, (3e-3, 2e-7))):
        axis.loglog(steps, errors[name] + 1e-17, ".-", color=colour, linewidth=1.4)
        axis.annotate(f"{name} difference", place, color=colour, fontweight="bold")
    axis.loglog(steps[16:], 1e-16 / steps[16:], "--", color=GREY)
    axis.annotate("rounding: 1e-16 / h", (3e-15, 3e-8), color=GREY)
    axis.set(
        xlabel="step h",
        ylabel="error of the slope",
        title="Too far sees the bend, too near sees only rounding",
        xlim=(1e-15, 12),
        ylim=(1e-13, 10),
    )
    save_figure(figure, cfg.out / "steps")


def draw_direction(
    cfg: Config, x: np.ndarray, g: np.ndarray, angles: np.ndarray, slopes: np.ndarray
) -> None:
    figure, (left, right) = new_figure(1, 2, size=(12.0, 5.2))
    side = np.linspace(-1.6, 1.6, 81)
    height = np.array([[hills(np.array([a, b])) for a in side] for b in side])
    left.contourf(side, side, height, levels=24, cmap="Greys", alpha=0.55)
    left.contour(side, side, height, levels=24, colors=GREY, linewidths=0.6)
    for place in np.stack(np.meshgrid(side[4::12], side[4::12]), axis=-1).reshape(-1, 2):
        left.quiver(
            *place,
            *gradient(hills, place),
            color=BLUE,
            angles="xy",
            scale_units="xy",
            scale=8,
            width=0.005,
        )
    level = np.array([-g[1], g[0]])
    for way, colour in ((g, RED), (level, GREEN), (-level, GREEN)):
        left.quiver(
            *x,
            *(way / np.linalg.norm(g)),
            color=colour,
            angles="xy",
            scale_units="xy",
            scale=1.6,
            width=0.013,
        )
    left.set(
        aspect="equal",
        title="Gradients cross contour lines at right angles",
        xlabel="$x_0$",
        ylabel="$x_1$",
    )
    left.grid(False)
    degrees, steepest = np.degrees(angles), np.degrees(np.arctan2(g[1], g[0]))
    right.plot(degrees, slopes, color=BLUE)
    right.plot(steepest, np.linalg.norm(g), "o", color=RED, markersize=10)
    right.annotate(
        "along the gradient: |g|",
        (steepest, slopes.max()),
        xytext=(0, 10),
        textcoords="offset points",
        color=RED,
        ha="center",
        fontweight="bold",
    )
    right.plot([steepest - 90, steepest + 90], [0, 0], "o", color=GREEN, markersize=10)
    right.annotate(
        "level", (steepest - 90, 0), xytext=(12, -16), textcoords="offset points", color=GREEN
    )
    right.set(
        xlabel="direction in degrees",
        ylabel="measured slope",
        title="One turn around the marked point",
        ylim=(-1.25 * slopes.max(), 1.25 * slopes.max()),
        xticks=range(-180, 181, 90),
    )
    save_figure(figure, cfg.out / "steepest")


def run(cfg: Config) -> dict:
    results = show_steps(cfg)
    show_gradient(cfg)
    results |= show_direction(cfg)
    show_jacobian(cfg)
    show_hessian(cfg)
    return results


if __name__ == "__main__":
    main(run, Config, __doc__)
