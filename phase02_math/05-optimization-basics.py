"""2.5 Optimization basics: how far to step, and why the shape of the valley decides
优化基础：一步走多远，取决于山谷的形状

You will be able to answer
    1. How long may a step be?          show_limit     by-hand, limit
    2. How fast is the best step?       show_rate      rates, steps
    3. What does momentum change?       show_momentum  momentum, root
    4. What does Newton know?           show_newton    slope, one-step, digits, armijo, falls, bend
    5. Why does it stall at a saddle?   show_saddle    stuck, plateau, noise, misled
Predict   momentum_steps: plain descent needs over 300 steps; how many does momentum need?
Run       python phase02_math/05-optimization-basics.py                    about 3 s
Needs     -
Reference -
Notation  L, μ largest and smallest curvature (eigenvalue of the Hessian)  κ = L/μ  η step size
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from common.checks import check, check_close
from common.config import LessonConfig, main, param
from common.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, new_figure, save_figure

KAPPA = 50
START = (-1.0, 1.2)  # where Rosenbrock's valley is entered
GOAL = (1.0, 1.0)  # where it ends


@dataclass
class Config(LessonConfig):
    steps: int = param(6000, "steps of descent in Rosenbrock's valley", low=6000)


def descend(
    gradient: Callable, start: np.ndarray, step: float, steps: int, momentum: float = 0.0
) -> np.ndarray:
    """Gradient descent; returns the path (steps + 1, n), which begins at start (n,).

    momentum: the share of the last move that is made again.
    """
    # practice: Downhill, with a memory
    x = np.array(start, dtype=float)
    move = np.zeros(len(x))
    path = [x]
    for _ in range(steps):
        move = momentum * move - step * gradient(x)

        # A new array: x += move would also change the one that the path already holds.
        x = x + move
        path.append(x)
    return np.array(path)
    # end practice


def show_limit(cfg: Config, a: np.ndarray, axes: np.ndarray) -> None:
    print("\n[1] On ½ x·Ax a step multiplies the distance along each axis by 1 - ηλ")
    path = descend(lambda x: np.array([10, 1]) * x, (1, 1), 2 / 11, 2)
    text = "curvatures 10 and 1, η = 2/11: a step multiplies by -9/11 and by 9/11"
    check_close("by-hand", text, path, [[1, 1], [-9 / 11, 9 / 11], [81 / 121, 81 / 121]])

    print("  ten curvatures from μ = 1 to L = 50; distance after 0, 200, 400 steps:")
    steepest = []
    for share in [0.99, 1.0, 1.01]:
        path = descend(lambda x: a @ x, axes.sum(axis=1), share * 2 / KAPPA, 400)
        start, middle, end = np.linalg.norm(path[::200], axis=1)
        print(f"  η = {share:.2f} · 2/L   {start:9.3f}  {middle:9.3f}  {end:9.3f}")
        steepest.append(path @ axes[:, -1])  # the start has 1 along each axis
    text = "below 2/L descent converges, at 2/L it jumps to and fro, above it diverges"
    check_close("limit", text, steepest, np.array([[-0.98], [-1], [-1.02]]) ** np.arange(401))


def rate(path: np.ndarray) -> float:
    """The factor by which the last step shortened the distance to 0."""
    return np.linalg.norm(path[-1]) / np.linalg.norm(path[-2])


def steps_until(path: np.ndarray, goal: np.ndarray, distance: float) -> int:
    """After how many steps the path stays within this distance of its goal."""
    far = np.linalg.norm(path - goal, axis=1) > distance
    return int(np.flatnonzero(far)[-1]) + 1


def show_rate(cfg: Config, a: np.ndarray, axes: np.ndarray) -> dict[str, float]:
    print("\n[2] The slowest axis sets the pace: a step leaves the largest |1 - ηλ|")
    # After 1,200 steps only the slowest axes are left to be seen.
    best = rate(descend(lambda x: a @ x, axes.sum(axis=1), 2 / (KAPPA + 1), 1200))
    safe = rate(descend(lambda x: a @ x, axes.sum(axis=1), 1 / KAPPA, 1200))
    print(f"  a step leaves {best:.4f} of the distance at η = 2/(L+μ), {safe:.4f} at η = 1/L")
    text = "they are (κ-1)/(κ+1) and 1 - 1/κ"
    check_close("rates", text, [best, safe], [(KAPPA - 1) / (KAPPA + 1), 1 - 1 / KAPPA], rtol=1e-5)
    path = descend(lambda x: a @ x, axes[:, 0], 2 / (KAPPA + 1), 100)
    text = "so a tenth of the distance along the flattest axis takes {} steps, ln 0.1 / ln 0.9608"
    check("steps", text, steps_until(path, np.zeros(10), 0.1), at_least=58, at_most=58)
    return {"rate_best": best, "rate_safe": safe}


def show_momentum(cfg: Config, a: np.ndarray, axes: np.ndarray) -> dict[str, float]:
    print("\n[3] Momentum: moves along the valley add up, moves across it cancel")
    start = axes.sum(axis=1)
    millionth = np.linalg.norm(start) / 1e6
    path = descend(lambda x: a @ x, start, 2 / (KAPPA + 1), 1200)
    plain = steps_until(path, np.zeros(10), millionth)

    with_momentum = []
    for kappa in [KAPPA, 16 * KAPPA]:
        curvatures = np.geomspace(1, kappa, 10)
        root = np.sqrt(kappa)
        # Polyak's best pair for μ = 1 and L = κ.
        step = 4 / (root + 1) ** 2
        momentum = ((root - 1) / (root + 1)) ** 2
        path = descend(lambda x, c=curvatures: c * x, np.ones(10), step, 1200, momentum)
        with_momentum.append(steps_until(path, np.zeros(10), millionth))

    heavy, wider = with_momentum
    text = f"to a millionth of the distance: {plain} steps, {heavy} with momentum, {{}} times fewer"
    check("momentum", text, plain / heavy, above=4)
    text = f"16 times the κ takes {wider} steps, {{}} times as many: about √16"
    check("root", text, wider / heavy, above=3, below=5)
    return {"plain_steps": plain, "momentum_steps": heavy}


def backtrack(
    f: Callable, x: np.ndarray, g: np.ndarray, direction: np.ndarray, share: float = 0.1
) -> float:
    """Armijo's rule: the first of the steps 1, ½, ¼ … that keeps `share` of its promise.

    Along `direction` the gradient g promises that a step changes f by step · g·direction.
    """
    # practice: Halve until the promise is kept
    step = 1.0
    promised = g @ direction
    while f(x + step * direction) > f(x) + share * step * promised:
        step = step / 2
    return step
    # end practice


def newton(
    gradient: Callable, hessian: Callable, start: np.ndarray, steps: int, f: Callable | None = None
) -> np.ndarray:
    """Jump to where the parabola through here is level; returns the path (steps + 1, n).

    f: with it, each jump is shortened by line search. A Hessian without an inverse raises
    LinAlgError: such a parabola is level at no single point.
    """
    # practice: Jump to where the parabola is level
    x = np.array(start, dtype=float)
    path = [x]
    for _ in range(steps):
        g = gradient(x)

        # A move d changes the gradient by about H d, and afterwards it should be 0.
        move = np.linalg.solve(hessian(x), -g)
        if f is not None:
            move = backtrack(f, x, g, move) * move

        x = x + move
        path.append(x)
    return np.array(path)
    # end practice


def rosenbrock(x: np.ndarray) -> float:
    """A bent valley with its lowest point at (1, 1). x: (2,)"""
    return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2


def show_newton(cfg: Config, a: np.ndarray, axes: np.ndarray) -> tuple[dict, dict]:
    print("\n[4] Newton knows the curvature, so κ no longer matters; line search keeps it safe")
    path = newton(lambda x: a @ x - a[0], lambda x: a, axes.sum(axis=1), 1)
    check_close("one-step", "on a quadratic, one step ends at the minimum", path[-1], np.eye(10)[0])

    def gradient(x: np.ndarray) -> np.ndarray:
        off = x[1] - x[0] ** 2
        return np.array([2 * (x[0] - 1) - 400 * x[0] * off, 200 * off])

    def hessian(x: np.ndarray) -> np.ndarray:
        return np.array([[2 + 1200 * x[0] ** 2 - 400 * x[1], -400 * x[0]], [-400 * x[0], 200]])

    h = 1e-5 * np.eye(2)
    slopes = [(rosenbrock(START + s) - rosenbrock(START - s)) / 2e-5 for s in h]
    text = "Rosenbrock's valley: our gradient is the measured slope (2.3), up to {}"
    check_close("slope", text, gradient(START), slopes, rtol=1e-6)
    jumps = newton(gradient, hessian, START, 6)
    errors = np.linalg.norm(jumps - GOAL, axis=1)
    print("  Rosenbrock, distance to the minimum: " + "  ".join(f"{e:.1e}" for e in errors))
    text = f"near it the digits about double: from a distance of {errors[5]:.1e} to {{}}"
    check("digits", text, errors[6], at_most=errors[5] ** 2)

    # f = x²: a move of -1.9 keeps 5 % of its promise, one of -3.4 goes up, half of it keeps 15 %.
    one = np.ones(1)
    steps = [backtrack(lambda x: x @ x, one, 2 * one, d * one) for d in (-1.9, -3.4, 0)]
    steps.append(backtrack(lambda x: 3 * x[0], one, 3 * one, -one))
    text = "halved: moves that keep 5 % of the promise, or go up; not a move of 0 or on a line"
    check_close("armijo", text, steps, [0.5, 0.5, 1.0, 1.0])

    searched = newton(gradient, hessian, START, 21, rosenbrock)
    text = f"a jump led up to {rosenbrock(jumps[2]):.0f}; with line search f falls, by {{}} or more"
    check("falls", text, -np.diff(rosenbrock(searched.T)).max(), above=0)

    paths = {
        "plain": descend(gradient, START, 1e-3, cfg.steps),
        "momentum": descend(gradient, START, 1e-3, cfg.steps, 0.9),
        "newton": jumps,
        "newton_search": searched,
    }
    steps = {f"rosenbrock_{name}": steps_until(path, GOAL, 0.1) for name, path in paths.items()}
    print("  steps to within 0.1: plain, momentum, Newton, with search:", *steps.values())
    text = "along the bend momentum needs {} times fewer steps than plain descent"
    check("bend", text, steps["rosenbrock_plain"] / steps["rosenbrock_momentum"], above=8, below=14)
    return paths, steps


def show_saddle(cfg: Config) -> dict[str, np.ndarray]:
    print("\n[5] x²/2 + y⁴/4 - y²/2 has two minima, and between them a saddle with gradient zero")

    def gradient(x: np.ndarray) -> np.ndarray:
        return np.array([x[0], x[1] ** 3 - x[1]])

    stuck = descend(gradient, (1.2, 0), 0.1, 300)
    check_close("stuck", "from the ridge, descent ends in the saddle", stuck[-1], [0, 0])

    near = descend(gradient, (1.2, 1e-3), 0.1, 250)
    nearer = descend(gradient, (1.2, 1e-5), 0.1, 250)
    longer = np.argmax(nearer[:, 1] > 0.5) - np.argmax(near[:, 1] > 0.5)
    text = "y grows by 1.1 a step: 100 times nearer to the ridge costs {} steps more"
    check("plateau", text, longer, at_least=48, at_most=49)

    rng = cfg.rng()

    def noisy_gradient(x: np.ndarray) -> np.ndarray:
        return gradient(x) + rng.normal(0, 0.05, 2)

    walks = np.array([descend(noisy_gradient, (1.2, 0), 0.1, 250) for _ in range(12)])
    text = "with noise all of 12 walks leave the ridge and end near a minimum, {} away at most"
    check("noise", text, np.hypot(walks[:, -1, 0], abs(walks[:, -1, 1]) - 1).max(), below=0.2)

    misled = newton(gradient, lambda x: np.diag([1, 3 * x[1] ** 2 - 1]), (1.2, 0.4), 8)
    check_close("misled", "from (1.2, 0.4) Newton jumps into the saddle", misled[-1], [0, 0])
    return {
        "0.001 off the ridge": near,
        "0.00001 off the ridge": nearer,
        "from the ridge": stuck,
        "with noise": walks[0],
        "Newton": misled,
    }


# Pictures: skip on a first reading


def draw_landscape(axis, f: Callable, x: tuple, y: tuple, levels: np.ndarray, title: str) -> None:
    """f as a map: the higher, the darker."""
    across = np.linspace(*x, 200)
    up = np.linspace(*y, 200)
    height = f(np.stack(np.meshgrid(across, up)))
    axis.contourf(across, up, height, levels=levels, cmap="Greys", alpha=0.5, extend="both")
    axis.contour(across, up, height, levels=levels, colors=GREY, linewidths=0.6)
    axis.set(xlim=x, ylim=y, xlabel="$x_0$", ylabel="$x_1$", title=title)
    axis.grid(False)


def draw_steps(cfg: Config) -> None:
    # Curvature 10 across the diagonal and 1 along it.
    valley = np.array([[5.5, 4.5], [4.5, 5.5]])

    def height(x: np.ndarray) -> np.ndarray:
        return 2.75 * (x**2).sum(axis=0) + 4.5 * x.prod(axis=0)

    figure, (left, right) = new_figure(1, 2, size=(13.0, 5.6))
    title = "25 steps in a valley of curvatures 10 and 1"
    draw_landscape(left, height, (-3, 3), (-2.5, 2.5), np.arange(12) ** 2 / 3, title)
    etas = {"too long": 0.202, "best": 2 / 11, "short": 0.03}
    for (name, eta), colour in zip(etas.items(), [RED, BLUE, GREEN]):
        path = descend(lambda x: valley @ x, (2.3, -0.9), eta, 25)
        left.plot(*path.T, "o-", color=colour, markersize=4, label=f"η = {eta:.3f}, {name}")
        right.plot(
            eta, max(abs(1 - eta), abs(1 - 10 * eta)), "o", color=colour, markersize=12, zorder=5
        )
    left.legend(loc="lower left", frameon=True)

    eta = np.linspace(0.005, 0.21, 200)
    right.plot(eta, abs(1 - eta), color=SKY, label="flattest axis, |1 - ημ|")
    right.plot(eta, abs(1 - 10 * eta), color=ORANGE, label="steepest axis, |1 - ηL|")
    right.axhspan(1, 1.2, color=RED, alpha=0.12, label="diverges")
    right.text(0.096, 0.93, "1/L")
    right.text(0.185, 0.72, "2/(L+μ)")
    right.text(0.186, 1.05, "2/L")
    right.set(xlabel="step size η", ylim=(0, 1.2), title="What a step leaves of the distance")
    right.legend(loc="lower right", fontsize=11)
    save_figure(figure, cfg.out / "steps")


def draw_rosenbrock(cfg: Config, paths: dict[str, np.ndarray]) -> None:
    def height(x: np.ndarray) -> np.ndarray:
        return np.log10(rosenbrock(x) + 1e-3)

    figure, (left, right) = new_figure(1, 2, size=(13.0, 5.6))
    title = "Down into the valley, then along its bend"
    draw_landscape(left, height, (-1.6, 1.5), (-0.5, 1.7), np.linspace(-2.5, 2.8, 18), title)
    for (name, path), colour in zip(paths.items(), [ORANGE, BLUE, PURPLE, RED]):
        left.plot(*path.T, ".-", color=colour, markersize=5)
        name = name.replace("_", " with ")
        right.loglog(1 + np.arange(len(path)), rosenbrock(path.T), color=colour, label=name)
    left.plot(*GOAL, "k*", markersize=14, zorder=6)
    right.set(xlabel="step + 1", ylabel="f", ylim=(1e-14, 1e5), title="Four ways to choose a step")
    right.legend(loc="lower left", bbox_to_anchor=(0.4, 0.02))
    save_figure(figure, cfg.out / "rosenbrock")


def double_well(x: np.ndarray) -> float:
    """Two minima, at (0, 1) and (0, -1), and a saddle between them at (0, 0). x: (2,)"""
    return x[0] ** 2 / 2 + x[1] ** 4 / 4 - x[1] ** 2 / 2


def draw_saddle(cfg: Config, paths: dict[str, np.ndarray]) -> None:
    figure, (left, right) = new_figure(1, 2, size=(13.0, 5.6))
    title = "A saddle between two minima"
    draw_landscape(left, double_well, (-0.6, 1.45), (-1.4, 1.4), np.linspace(-0.25, 1, 20), title)
    left.plot([0, 0], [-1, 1], "k*", markersize=14, zorder=6)
    for (name, path), colour in zip(list(paths.items())[2:], [RED, BLUE, PURPLE]):
        left.plot(*path.T, color=colour, label=name)
    left.legend(loc="lower right", frameon=True)

    for (name, path), colour in zip(list(paths.items())[:4], [GREEN, ORANGE, RED, BLUE]):
        right.plot(double_well(path[:251].T), color=colour, label=name)
    right.set(xlabel="step", ylabel="f", title="A plateau may be a saddle that is being left")
    right.legend()
    save_figure(figure, cfg.out / "saddle")


def run(cfg: Config) -> dict:
    # The directions of the axes are random, the curvatures along them are not.
    axes = np.linalg.qr(cfg.rng().normal(size=(10, 10)))[0]
    a = axes * np.geomspace(1, KAPPA, 10) @ axes.T
    show_limit(cfg, a, axes)
    rates = show_rate(cfg, a, axes)
    steps = show_momentum(cfg, a, axes)
    paths, valley = show_newton(cfg, a, axes)
    saddle = show_saddle(cfg)
    draw_steps(cfg)
    draw_rosenbrock(cfg, paths)
    draw_saddle(cfg, saddle)
    return {**rates, **steps, **valley}


if __name__ == "__main__":
    main(run, Config, __doc__)
