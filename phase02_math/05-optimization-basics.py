"""2.5 Optimization basics: how far to step, and why the shape of the valley decides
优化基础：一步走多远，取决于山谷的形状

You will be able to answer
    1. How long may a step be?              show_limit     by-hand, limit
    2. How fast is the best step?           show_rate      rates
    3. What does momentum change?           show_momentum  memory, momentum, root
    4. What does Newton know, and miss?     show_newton    one-step, cubes, armijo, searched
    5. Why does descent stall at a saddle?  show_saddle    plateau, saddle, noise, uphill
Predict   momentum_steps: at κ = 50 plain descent needs 326 steps; how many does momentum need?
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
from common.errors import LessonError
from common.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, new_figure, save_figure

KAPPA = 50


@dataclass
class Config(LessonConfig):
    walks: int = param(12, "noisy walks that leave a ridge")


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
    curvatures = np.geomspace(1, KAPPA, 10)
    start = axes.sum(axis=1)  # 1 along each axis
    along = []
    factors = []
    for share in [0.99, 1.0, 1.01]:
        eta = share * 2 / KAPPA
        path = descend(lambda x: a @ x, start, eta, 400)
        distances = np.linalg.norm(path[::200], axis=1)
        print(f"  η = {share:.2f} · 2/L " + "".join(f"{d:12.4g}" for d in distances))
        along.append(path @ axes)  # (401, 10): the place along each axis
        factors.append(1 - eta * curvatures)
    text = "after k steps (1 - ηλ)ᵏ is left along each axis: below 2/L all shrink, above it not"
    k = np.arange(401)[:, None]
    check_close("limit", text, along, [factor**k for factor in factors])


def show_rate(cfg: Config, a: np.ndarray, axes: np.ndarray) -> dict[str, float]:
    print("\n[2] The slowest axis sets the pace: a step leaves the largest |1 - ηλ|")
    left = []
    for eta in [2 / (KAPPA + 1), 1 / KAPPA]:
        # After 1,200 steps only the slowest axes are left to be seen.
        path = descend(lambda x: a @ x, axes.sum(axis=1), eta, 1200)
        before, after = np.linalg.norm(path[-2:], axis=1)
        left.append(after / before)
    best, safe = left
    print(f"  a step leaves {best:.4f} of the distance at η = 2/(L+μ), {safe:.4f} at η = 1/L")
    text = "that is (κ-1)/(κ+1) and 1 - 1/κ"
    check_close("rates", text, left, [(KAPPA - 1) / (KAPPA + 1), 1 - 1 / KAPPA], rtol=1e-5)
    return {"rate_best": best, "rate_safe": safe}


def show_momentum(cfg: Config) -> dict[str, float]:
    print("\n[3] Momentum repeats a share of the last move; its pace depends on √κ instead of κ")
    path = descend(lambda x: x, [1.0], 0.5, 2, 0.5)
    text = "x²/2, η = β = ½: the first move is -½, the second half of it and another -¼"
    check_close("memory", text, path[:, 0], [1, 0.5, 0])

    steps = []
    for kappa in [KAPPA, 16 * KAPPA]:
        curvatures = np.geomspace(1, kappa, 10)
        root = np.sqrt(kappa)
        # The best step of plain descent, and Polyak's best pair, for μ = 1 and L = κ.
        plain = (2 / (kappa + 1), 0)
        polyak = (4 / (root + 1) ** 2, ((root - 1) / (root + 1)) ** 2)
        for step, momentum in [plain, polyak]:
            path = descend(lambda x, c=curvatures: c * x, np.ones(10), step, 8000, momentum)
            distance = np.linalg.norm(path, axis=1)
            steps.append(np.flatnonzero(distance > distance[0] / 1e6)[-1] + 1)
    plain, heavy, plain_wide, heavy_wide = steps
    text = f"to a millionth of the distance: {plain} steps, {heavy} with momentum, {{}} times fewer"
    check("momentum", text, plain / heavy, above=4)
    times = {"plain_ratio": plain_wide / plain, "momentum_ratio": heavy_wide / heavy}
    text = (
        f"16 times the κ: {plain_wide / plain:.1f} times the steps, with momentum {{}}: about √16"
    )
    check("root", text, times["momentum_ratio"], above=3, below=5)
    return {"plain_steps": int(plain), "momentum_steps": int(heavy), **times}


def backtrack(
    f: Callable, x: np.ndarray, g: np.ndarray, direction: np.ndarray, share: float = 0.1
) -> float:
    """Armijo's rule: the first of the steps 1, ½, ¼ … that keeps `share` of its promise.

    The gradient g at x promises that a step changes f by step · g·direction: downhill, if that is
    negative. If it is positive, halving goes on until the move is lost in rounding.
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

    f: with it, each jump is shortened by line search.
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


def show_newton(cfg: Config, a: np.ndarray, axes: np.ndarray) -> None:
    print("\n[4] Newton's jump knows the curvature, so κ no longer matters; it may lead too far")
    minimum = np.eye(10)[0]
    path = newton(lambda x: a @ (x - minimum), lambda x: a, axes.sum(axis=1), 1)
    check_close("one-step", "on a quadratic, one jump ends at the minimum", path[-1], minimum)

    # The slope of √(1+x²) is x / √(1+x²), its curvature 1 / √(1+x²)³: positive everywhere.
    def root(x: np.ndarray) -> float:
        return np.sqrt(1 + x @ x)

    def slope(x: np.ndarray) -> np.ndarray:
        return x / root(x)

    def curvature(x: np.ndarray) -> np.ndarray:
        return np.array([[root(x) ** -3]])

    near = newton(slope, curvature, [0.5], 3)[:, 0]
    far = newton(slope, curvature, [2.0], 3)[:, 0]
    cubes = [[0.5, -(0.5**3), 0.5**9, -(0.5**27)], [2, -8, 512, -134_217_728]]
    text = "on √(1+x²) a jump leads from x to -x³: from ½ close to 0, from 2 to -8, 512 and away"
    check_close("cubes", text, [near, far], cubes)

    # On x², from 1: a move of -1.9 keeps 5 % of its promise. One of -3.4 leads up, but half of it
    # keeps 15 %.
    square = limited(lambda x: x @ x)
    steps = [backtrack(square, np.ones(1), 2 * np.ones(1), np.array([d])) for d in [-1.9, -3.4]]
    text = "line search halves a move that keeps 5 % of its promise, and one that leads up"
    check_close("armijo", text, steps, [0.5, 0.5])
    searched = newton(slope, curvature, [2.0], 6, limited(root))[:, 0]
    text = "with it, the way from 2 ends at the minimum"
    check_close("searched", text, searched[-1], 0, atol=1e-6)


def show_saddle(cfg: Config) -> tuple[dict[str, np.ndarray], float]:
    print("\n[5] x₀²/2 + x₁⁴/4 - x₁²/2: two minima, a saddle at (0, 0), a ridge along x₁ = 0")

    def gradient(x: np.ndarray) -> np.ndarray:
        return np.array([x[0], x[1] ** 3 - x[1]])

    def hessian(x: np.ndarray) -> np.ndarray:
        return np.diag([1, 3 * x[1] ** 2 - 1])

    near = descend(gradient, (1.2, 1e-3), 0.1, 250)
    nearer = descend(gradient, (1.2, 1e-5), 0.1, 250)
    longer = np.argmax(nearer[:, 1] > 0.5) - np.argmax(near[:, 1] > 0.5)
    text = "λ = -1 makes x₁ grow by 1.1 a step: 100 times nearer to the ridge costs {} steps more"
    check("plateau", text, longer, at_least=48, at_most=49)

    stuck = descend(gradient, (1.2, 0), 0.1, 300)
    misled = newton(gradient, hessian, (1.2, 0.4), 8)
    text = "descent from the ridge and Newton's method from (1.2, 0.4) end in the saddle itself"
    check_close("saddle", text, [stuck[-1], misled[-1]], np.zeros((2, 2)))

    rng = cfg.rng()

    def noisy_gradient(x: np.ndarray) -> np.ndarray:
        return gradient(x) + rng.normal(0, 0.05, 2)

    walks = np.array([descend(noisy_gradient, (1.2, 0), 0.1, 250) for _ in range(cfg.walks)])
    text = f"with noise all {cfg.walks} walks leave the ridge and end within {{}} of a minimum"
    check("noise", text, np.hypot(walks[:, -1, 0], abs(walks[:, -1, 1]) - 1).max(), below=0.2)

    halted = newton(gradient, hessian, (1.2, 0.4), 8, double_well)[-1]
    text = "with line search Newton's method halts on a slope of {}, as the next jump leads uphill"
    slope = np.linalg.norm(gradient(halted))
    check("uphill", text, slope, above=0.2)
    off = {"0.001 off the ridge": near, "0.00001 off the ridge": nearer}
    return {**off, "from the ridge": stuck, "with noise": walks[0], "Newton": misled}, slope


# Pictures and helpers: skip on a first reading


def double_well(x: np.ndarray) -> float:
    """Two minima, at (0, 1) and (0, -1), and a saddle between them at (0, 0). x: (2,)"""
    return x[0] ** 2 / 2 + x[1] ** 4 / 4 - x[1] ** 2 / 2


def limited(f: Callable) -> Callable:
    """f, but a line search that goes on for ever ends with a message."""
    calls = iter(range(50_000))

    def counted(x: np.ndarray) -> float:
        if next(calls, None) is None:
            raise LessonError(
                "Endless line search: do step and promise shrink? Is a kept promise enough?"
            )
        return f(x)

    return counted


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
        slowest = max(abs(1 - eta), abs(1 - 10 * eta))
        right.plot(eta, slowest, "o", color=colour, markersize=12, zorder=5)
    left.legend(loc="lower left", frameon=True)

    eta = np.linspace(0.005, 0.21, 200)
    right.plot(eta, abs(1 - eta), color=SKY, label="flattest axis, |1 - ημ|")
    right.plot(eta, abs(1 - 10 * eta), color=ORANGE, label="steepest axis, |1 - ηL|")
    right.axhspan(1, 1.2, color=RED, alpha=0.12, label="diverges")
    for x, y, name in [(0.096, 0.93, "1/L"), (0.185, 0.72, "2/(L+μ)"), (0.186, 1.05, "2/L")]:
        right.text(x, y, name)
    right.set(xlabel="step size η", ylim=(0, 1.2), title="What a step leaves of the distance")
    right.legend(loc="lower right", fontsize=11)
    save_figure(figure, cfg.out / "steps")


def draw_newton(cfg: Config) -> None:
    x = np.linspace(-10, 5, 300)
    parabola = np.sqrt(5) + (x - 2) * 2 / np.sqrt(5) + (x - 2) ** 2 / 2 / np.sqrt(5) ** 3
    figure, axis = new_figure(size=(8.6, 4.8))
    axis.plot(x, np.sqrt(1 + x**2), color=BLUE, label="f(x) = √(1 + x²)")
    axis.plot(x, parabola, "--", color=RED, label="its parabola at x = 2")
    axis.plot(2, np.sqrt(5), "ko", markersize=9)
    axis.plot([-8, -8], [parabola.min(), np.sqrt(65)], "o:", color=GREY, markersize=9)
    axis.set(xlabel="x", title="From 2, Newton jumps to -8, where the parabola is level")
    axis.legend(loc="lower right")
    save_figure(figure, cfg.out / "newton")


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
    # A, with curvatures from 1 to 50 along axes (the columns) whose directions are random.
    axes = np.linalg.qr(cfg.rng().normal(size=(10, 10)))[0]
    a = axes * np.geomspace(1, KAPPA, 10) @ axes.T
    show_limit(cfg, a, axes)
    rates = show_rate(cfg, a, axes)
    steps = show_momentum(cfg)
    show_newton(cfg, a, axes)
    saddle, slope = show_saddle(cfg)
    draw_steps(cfg)
    draw_newton(cfg)
    draw_saddle(cfg, saddle)
    return {**rates, **steps, "halted_slope": slope}


if __name__ == "__main__":
    main(run, Config, __doc__)
