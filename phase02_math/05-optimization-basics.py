"""2.5 Optimization basics: how far to step, and why the shape of the valley decides
优化基础：一步走多远，由山谷的形状决定

You will be able to answer
    1. How long may a step be before descent turns into an explosion?    show_limit       below, at-limit, above
    2. How fast is gradient descent, and what is its best step?          show_rate        best-step, safe-step, v-curve
    3. What does momentum change?                                        show_momentum    momentum, root
    4. What does Newton know that the gradient does not?                 show_newton      one-step, digits
    5. How do you step when nobody knows L?                              show_search      armijo, downhill, bend
    6. Why does descent stall at a saddle, and what gets it off?         show_saddle      ridge, leave, noise, misled
Run       python phase02_math/05-optimization-basics.py                    about 4 s
Needs     phase02_math/03-derivatives-gradients
Notation  L, μ largest and smallest curvature (eigenvalue of the Hessian)  κ = L/μ  η step size  n coordinates
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from common.checks import check, check_close
from common.config import LessonConfig, main, param
from common.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, new_figure, save_figure
from common.lessons import load_lesson

derivatives = load_lesson("phase02_math/03-derivatives-gradients")
KAPPA = 50  # of the quadratic in 10 dimensions; its μ is 1, its L is 50
VALLEY = (5.5, 4.5), (4.5, 5.5)  # in the pictures: curvatures 10 and 1, on the diagonals
rosenbrock = lambda x: (
    (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2
)  # a bent valley, lowest at (1, 1)
double_well = lambda x: (
    x[0] ** 2 / 2 + x[1] ** 4 / 4 - x[1] ** 2 / 2
)  # two minima, and a saddle at (0, 0) between
FIRST, GOAL = (-1.0, 1.2), (1.0, 1.0)  # where Rosenbrock's valley is entered, and where it ends


@dataclass
class Config(LessonConfig):
    steps: int = param(6000, "steps of plain descent in Rosenbrock's valley", tiny=2600, low=2600)


def descend(
    slope: Callable, x: np.ndarray, step: float, steps: int, keep: float = 0.0
) -> np.ndarray:
    """Gradient descent. keep: the share of the last move that is made again (momentum). -> the path (steps + 1, n)"""
    path, move = [x], np.zeros(len(x))
    for _ in range(steps):
        # practice: one step downhill, with a memory
        # hint: against the gradient, and a share of the last move on top
        # hint: move = keep * move - …, and that is what x goes on by
        move = keep * move - step * slope(x)
        x = x + move
        path.append(x)
        # end practice
    return np.array(path)


def newton(
    slope: Callable, curvature: Callable, x: np.ndarray, steps: int, f: Callable | None = None
) -> np.ndarray:
    """Jump to where the parabola through here is level; with f given, only as far as a line search along that way
    allows. Raises LinAlgError where it is level nowhere. -> the path (steps + 1, n)"""
    path = [x]
    for _ in range(steps):
        # practice: jump to the bottom of the parabola
        # hint: a move d away the gradient is about g + H d, and it is to be 0: a system of equations for d
        # hint: g = slope(x), then np.linalg.solve; with f given, the move is shortened by backtrack(f, x, g, move)
        g = slope(x)
        move = np.linalg.solve(curvature(x), -g)
        if f is not None:
            move = backtrack(f, x, g, move) * move
        x = x + move
        path.append(x)
        # end practice
    return np.array(path)


def backtrack(
    f: Callable, x: np.ndarray, g: np.ndarray, way: np.ndarray, share: float = 0.1
) -> float:
    """Armijo's rule: the first of the steps 1, 1/2, 1/4 … that brings `share` of what the slope promises, or more."""
    # practice: halve until the promise is kept
    # hint: the slope along `way` is g·way, below zero: a step promises a change of step times it
    # hint: step, promised = 1.0, g @ way
    step, promised = 1.0, g @ way
    while f(x + step * way) > f(x) + share * step * promised:
        step = step / 2
    # end practice
    return step


def rate(path: np.ndarray) -> float:
    """By which factor the last step of a long path shortened the distance to 0: the quick axes are done by then."""
    return np.linalg.norm(path[-1]) / np.linalg.norm(path[-2])


def steps_to(distance: float, path: np.ndarray, goal: np.ndarray | float = 0.0) -> int:
    """How many steps a path spends farther from its goal than this."""
    return int((np.linalg.norm(path - goal, axis=1) > distance).sum())


def show_limit(cfg: Config, a: np.ndarray, axes: np.ndarray) -> None:
    print(
        "\n[1] A quadratic ½ x·Ax in 10 dimensions: along each axis a step multiplies by 1 - ηλ; the steepest breaks"
    )
    for id, share, text in (
        ("below", 0.99, "1 % below 2/L it overshoots to 0.98 of its distance: converges"),
        ("at-limit", 1.00, "at 2/L it jumps from side to side for ever"),
        ("above", 1.01, "1 % above it overshoots to 1.02 of its distance: diverges"),
    ):
        path = descend(
            lambda x: a @ x, axes.sum(axis=1), share * 2 / KAPPA, 400
        )  # 1 along each of the axes
        print(f"  distance after 0, 200, 400 steps: {np.linalg.norm(path[::200], axis=1).round(3)}")
        check_close(id, text, path @ axes[:, -1], (1 - 2 * share) ** np.arange(401))


def show_rate(cfg: Config, a: np.ndarray, axes: np.ndarray) -> dict[str, float]:
    print(
        "\n[2] The slowest axis sets the pace: what a step leaves of the distance is the largest |1 - ηλ|"
    )
    best, safe = (
        rate(descend(lambda x: a @ x, axes.sum(axis=1), eta, 1200))
        for eta in (2 / (KAPPA + 1), 1 / KAPPA)
    )
    print(
        f"  steps for a tenth of the distance: {np.log(0.1) / np.log(best):.0f} and {np.log(0.1) / np.log(safe):.0f}"
    )
    check_close(
        "best-step", "η = 2/(L+μ) leaves (κ-1)/(κ+1)", best, (KAPPA - 1) / (KAPPA + 1), rtol=1e-5
    )
    check_close("safe-step", "η = 1/L leaves 1 - 1/κ", safe, 1 - 1 / KAPPA, rtol=1e-5)
    etas = np.linspace(0.005, 0.21, 42)
    measured = np.array(
        [rate(descend(lambda x: VALLEY @ x, np.array([2.0, 0.5]), eta, 400)) for eta in etas]
    )
    check_close(
        "v-curve",
        "curvatures 10 and 1, 42 steps: each leaves the larger of |1 - η| and |1 - 10η|",
        measured,
        np.maximum(abs(1 - etas), abs(1 - 10 * etas)),
        rtol=1e-4,
    )
    draw_steps(cfg, etas, measured)
    return {"rate_best": best, "rate_safe": safe}


def show_momentum(cfg: Config, a: np.ndarray, axes: np.ndarray) -> dict[str, float]:
    print("\n[3] Momentum: moves that agree add up, moves back and forth cancel")
    needed = [steps_to(1e-6, descend(lambda x: a @ x, axes.sum(axis=1), 2 / (KAPPA + 1), 1200))]
    for kappa in (KAPPA, 16 * KAPPA):
        curvatures, root = np.geomspace(1, kappa, 10), np.sqrt(kappa)
        step, keep = (
            4 / (root + 1) ** 2,
            ((root - 1) / (root + 1)) ** 2,
        )  # Polyak's best pair, where μ = 1
        needed.append(
            steps_to(1e-6, descend(lambda x: curvatures * x, np.ones(10), step, 1200, keep))
        )
    plain, heavy, wider = needed
    check(
        "momentum",
        f"to 1e-6: {plain} steps without it, {heavy} with it; the factor",
        plain / heavy,
        above=3,
    )
    check(
        "root",
        f"16 times the κ: {wider}, about √16 times as many; the factor",
        wider / heavy,
        above=3,
        below=6,
    )
    return {"plain_steps": plain, "momentum_steps": heavy}


def show_newton(cfg: Config, a: np.ndarray, axes: np.ndarray) -> np.ndarray:
    print("\n[4] Newton knows the curvature too, and the condition number stops to matter")
    path = newton(lambda x: a @ x - a[0], lambda x: a, axes.sum(axis=1), 1)
    check_close("one-step", "on a quadratic one step ends at the minimum", path[-1], np.eye(10)[0])
    path = newton(
        lambda x: derivatives.gradient(rosenbrock, x),
        lambda x: derivatives.hessian(rosenbrock, x),
        FIRST,
        6,
    )
    print(
        "  Rosenbrock, f after 0, 1, 2 … steps: " + "  ".join(f"{rosenbrock(x):.2g}" for x in path)
    )
    before, after = np.linalg.norm(path[4:6] - GOAL, axis=1)
    check(
        "digits",
        f"near the goal digits double: error {before:.1g}, then {after:.1g}",
        after,
        at_most=before**2,
    )
    return path


def show_search(cfg: Config, jumps: np.ndarray) -> dict[str, float]:
    print("\n[5] Nobody knows L: halve the step until it brings a share of what the slope promises")
    slope, curvature = (
        lambda x, of=of: of(rosenbrock, x) for of in (derivatives.gradient, derivatives.hessian)
    )
    g, one = slope(FIRST), np.ones(2)
    step = backtrack(rosenbrock, FIRST, g, -g)
    kept = [(rosenbrock(FIRST) - rosenbrock(FIRST - s * g)) / (s * g @ g) for s in (step, 2 * step)]
    check(
        "armijo",
        f"step {step:g} keeps {kept[0]:.2f} of the promise, twice that step {kept[1]:.2f}; wanted 0.1",
        kept[0] >= 0.1 > kept[1]
        and backtrack(sum, g, one, -one) == 1
        and backtrack(lambda x: x @ x, one, 2 * one, -1.9 * one) == 0.5,
    )  # all of 1.9 brings too little
    paths = {
        "gradient descent": descend(slope, FIRST, 1e-3, cfg.steps),
        "momentum": descend(slope, FIRST, 1e-3, cfg.steps, 0.9),
        "line search": newton(
            slope, lambda x: np.eye(2), FIRST, cfg.steps // 2, rosenbrock
        ),  # H = I: along -g
        "Newton": jumps,
        "Newton + line search": newton(slope, curvature, FIRST, 25, rosenbrock),
    }
    plain, heavy, searched, _, both = (steps_to(0.1, path, GOAL) for path in paths.values())
    print(
        f"  steps to within 0.1: plain {plain}, momentum {heavy}, line search {searched}, Newton with it {both}"
    )
    rises = [
        np.diff(rosenbrock(paths[name].T)).max() for name in ("line search", "Newton + line search")
    ]
    check(
        "downhill",
        "with line search f never rises, Newton included; largest change",
        max(rises),
        at_most=0,
    )
    check(
        "bend",
        "round the bend momentum beats plain descent, and Newton momentum, each by the factor",
        min(plain / heavy, heavy / both),
        at_least=4,
    )
    draw_rosenbrock(cfg, paths)
    return {"rosenbrock_plain": plain, "rosenbrock_momentum": heavy, "rosenbrock_newton": both}


def show_saddle(cfg: Config) -> None:
    print("\n[6] A saddle: the gradient is zero there, and yet it is no place to stay")
    slope, rng, ridge = (
        lambda x: derivatives.gradient(double_well, x),
        cfg.rng(),
        np.array([1.2, 0.0]),
    )
    stuck = descend(slope, ridge, 0.1, 300)
    check_close(
        "ridge", "from the ridge, descent walks into the saddle and stays", stuck[-1], [0, 0]
    )
    left = {y: descend(slope, np.array([1.2, y]), 0.1, 250) for y in (1e-1, 1e-3, 1e-5, 1e-7)}
    print(
        "  steps to leave, from y = "
        + ", ".join(f"{y:g}: {np.argmax(p[:, 1] > 0.5)}" for y, p in left.items())
    )
    check_close(
        "leave",
        "beside it y grows by 1 - η·(-1) = 1.1 a step",
        left[1e-5][1:50, 1] / left[1e-5][:49, 1],
        np.full(49, 1.1),
        rtol=1e-4,
    )
    noisy = np.array(
        [descend(lambda x: slope(x) + rng.normal(0, 0.05, 2), ridge, 0.1, 250) for _ in range(12)]
    )
    check(
        "noise",
        "with noisy slopes all of 12 walks end by a minimum; the farthest",
        np.hypot(noisy[:, -1, 0], abs(noisy[:, -1, 1]) - 1).max(),
        below=0.2,
    )
    misled = newton(slope, lambda x: derivatives.hessian(double_well, x), np.array([1.2, 0.4]), 8)
    check_close(
        "misled",
        "Newton seeks level ground of any kind: from (1.2, 0.4) to the saddle",
        misled[-1],
        [0, 0],
    )
    draw_saddle(cfg, noisy, misled, stuck, left)


def picture(
    cfg: Config, f: Callable, x: tuple, y: tuple, levels: np.ndarray, goals: tuple, title: str
) -> tuple:
    """The landscape as a map, darker where it is higher, and an empty axis beside it. -> figure, left, right"""
    figure, (left, right) = new_figure(1, 2, size=(13.0, 5.6))
    across, up = (np.linspace(*side, 40 if cfg.tiny else 200) for side in (x, y))
    height = f(np.stack(np.meshgrid(across, up)))
    left.contourf(across, up, height, levels=levels, cmap="Greys", alpha=0.5, extend="both")
    left.contour(across, up, height, levels=levels, colors=GREY, linestyles="solid", linewidths=0.6)
    left.plot(*goals, "k*", markersize=14, zorder=6)
    left.set(xlim=x, ylim=y, xlabel="$x_0$", ylabel="$x_1$", title=title)
    left.grid(False)
    return figure, left, right


def draw_steps(cfg: Config, etas: np.ndarray, measured: np.ndarray) -> None:
    figure, left, right = picture(
        cfg,
        lambda x: 2.75 * (x**2).sum(0) + 4.5 * x.prod(0),
        (-3, 3),
        (-2.5, 2.5),
        np.arange(12) ** 2 / 3,
        (0, 0),
        "25 steps in a valley of curvatures 10 and 1",
    )
    for eta, colour, name in (
        (0.202, RED, "too long"),
        (2 / 11, BLUE, "best"),
        (0.03, GREEN, "short"),
    ):
        path = descend(lambda x: VALLEY @ x, np.array([2.3, -0.9]), eta, 25)
        left.plot(
            *path.T, "o-", color=colour, markersize=4, linewidth=1.4, label=f"η = {eta:.3f}, {name}"
        )
        right.plot(
            eta, max(abs(1 - eta), abs(1 - 10 * eta)), "o", color=colour, markersize=12, zorder=5
        )
    left.legend(loc="lower left", frameon=True, framealpha=0.9)
    right.plot(etas, abs(1 - etas), color=SKY, label="flattest axis, |1 - ημ|")
    right.plot(etas, abs(1 - 10 * etas), color=ORANGE, label="steepest axis, |1 - ηL|")
    right.plot(etas, measured, "o", color="black", markersize=4, label="measured")
    right.axhspan(1, 1.2, color=RED, alpha=0.12)
    for x, y, text in (
        (0.096, 0.93, "1/L"),
        (0.187, 0.72, "2/(L+μ)"),
        (0.19, 1.07, "2/L"),
        (0, 1.07, "diverges"),
    ):
        right.annotate(text, (x, y))
    right.set(xlabel="step size η", ylim=(0, 1.2), title="What one step leaves of the distance")
    right.legend(loc="center", bbox_to_anchor=(0.47, 0.56))
    save_figure(figure, cfg.out / "steps")


def draw_rosenbrock(cfg: Config, paths: dict[str, np.ndarray]) -> None:
    figure, left, right = picture(
        cfg,
        lambda x: np.log10(rosenbrock(x) + 1e-3),
        (-1.6, 1.5),
        (-0.5, 1.7),
        np.linspace(-2.5, 2.8, 18),
        GOAL,
        "Down at once, then round the bend",
    )
    for (name, path), colour in zip(paths.items(), (ORANGE, BLUE, GREEN, PURPLE, RED)):
        left.plot(*path.T, ".-", color=colour, linewidth=1.6, markersize=5)
        right.loglog(1 + np.arange(len(path)), rosenbrock(path.T) + 1e-16, color=colour, label=name)
    right.set(
        xlabel="step + 1",
        ylabel="f",
        ylim=(1e-14, 1e5),
        title="Same valley, five ways to choose a step",
    )
    right.legend(loc="lower left", bbox_to_anchor=(0.38, 0.02), fontsize=11)
    save_figure(figure, cfg.out / "rosenbrock")


def draw_saddle(
    cfg: Config, noisy: np.ndarray, misled: np.ndarray, stuck: np.ndarray, left: dict
) -> None:
    figure, one, two = picture(
        cfg,
        double_well,
        (-0.6, 1.45),
        (-1.4, 1.4),
        np.linspace(-0.25, 1.0, 20),
        ([0, 0], [-1, 1]),
        "A saddle between two minima",
    )
    one.plot(*noisy.transpose(2, 1, 0), color=SKY, linewidth=0.9)
    for path, text, place, colour in (
        (misled, "Newton", (0.72, 0.4), PURPLE),
        (noisy[0], "noise", (0.4, -0.9), BLUE),
        (stuck, "descent from the ridge", (0.42, -0.17), RED),
    ):
        one.plot(*path.T, color=colour)
        one.annotate(text, place, color=colour, fontweight="bold")
    for (y, path), colour in zip(left.items(), (SKY, GREEN, ORANGE, RED)):
        two.plot(double_well(path.T), color=colour, label=f"start at $x_1$ = {y:g}")
    two.legend()
    two.set(xlabel="step", ylabel="f", title="A plateau can be a saddle that is being left")
    save_figure(figure, cfg.out / "saddle")


def run(cfg: Config) -> dict:
    axes = np.linalg.qr(cfg.rng().normal(size=(10, 10)))[0]
    a = (
        axes * np.geomspace(1, KAPPA, 10) @ axes.T
    )  # the curvatures are ours, only their directions are random
    show_limit(cfg, a, axes)
    results = show_rate(cfg, a, axes) | show_momentum(cfg, a, axes)
    jumps = show_newton(cfg, a, axes)
    results |= show_search(cfg, jumps)
    show_saddle(cfg)
    return results


if __name__ == "__main__":
    main(run, Config, __doc__)
