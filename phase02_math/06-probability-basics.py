"""2.6 Probability basics: from one uniform number to any distribution, and back from data to its parameters
概率基础：从一个均匀随机数造出任何分布，再从数据找回参数

You will be able to answer
    1. How do you add up a density, with and without luck?             show_integrals    area, order, random, root-n
    2. How do you draw from a distribution that no library has?        show_sampling     ks, discrete
    3. The test is positive: how likely am I ill?                      show_bayes        table, twice
    4. What does covariance say, and what does it not see?             show_covariance   covariance, moved, blind
    5. Which parameters make the data least surprising?                show_likelihood   mle
    6. Why do averages settle down, and why is their error a bell?     show_limits       lln, clt
Run       python phase02_math/06-probability-basics.py                     about 5 s
Needs     phase02_math/03-derivatives-gradients, phase02_math/05-optimization-basics
Notation  n samples  SE standard error, the typical error of an estimate: sampled claims may miss by 4 of them
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import erf
from scipy.stats import kstest

from common.checks import check, check_close
from common.config import LessonConfig, main, param
from common.figures import BLUE, GREEN, ORANGE, RED, SKY, new_figure, save_figure
from common.lessons import load_lesson

derivatives = load_lesson("phase02_math/03-derivatives-gradients")
descend = load_lesson("phase02_math/05-optimization-basics").descend
exponential = lambda u: -np.log(1 - u)  # uniform numbers become waiting times of mean 1


@dataclass
class Config(LessonConfig):
    samples: int = param(100_000, "random numbers in each test", tiny=20_000, low=5_000)


def normal_density(x: np.ndarray, mean: float = 0.0, sd: float = 1.0) -> np.ndarray:
    return np.exp(-(((x - mean) / sd) ** 2) / 2) / (sd * np.sqrt(2 * np.pi))


def two_humps(x: np.ndarray) -> np.ndarray:
    return 0.65 * normal_density(x, -1.2, 0.5) + 0.35 * normal_density(x, 1.5, 0.9)


def trapezoid(f: Callable, a: float, b: float, n: int) -> float:
    """The integral of f from a to b: n strips of equal width, each a trapezoid. f takes and returns an array."""
    # practice: the area under a curve
    # hint: a strip's area is its width times the mean of its two heights: inner heights count twice, the ends once
    # hint: heights = f(np.linspace(a, b, n + 1))
    heights = f(np.linspace(a, b, n + 1))
    ends = heights[0] + heights[-1]
    area = (b - a) / n * (heights.sum() - ends / 2)
    # end practice
    return area


def monte_carlo(
    f: Callable, a: float, b: float, n: int, rng: np.random.Generator
) -> tuple[float, float]:
    """The same integral from n random places, and its standard error."""
    # practice: an integral is an average
    # hint: the mean height times the width; the spread of the values, divided by √n, is the spread of their mean
    # hint: values = (b - a) * f(rng.uniform(a, b, n))
    values = (b - a) * f(rng.uniform(a, b, n))
    estimate = values.mean()
    error = values.std() / np.sqrt(n)
    # end practice
    return estimate, error


def inverse_cdf(u: np.ndarray, x: np.ndarray, density: np.ndarray) -> np.ndarray:
    """Uniform numbers in 0…1 become samples of a density known at the points x. u: (n,), x, density: (m,) -> (n,)"""
    # practice: read the cumulative curve backwards
    # hint: the sample is the place up to which a share u of the whole area lies
    # hint: strips = (density[1:] + density[:-1]) * np.diff(x); np.interp reads a curve, and may swap its axes
    strips = (density[1:] + density[:-1]) * np.diff(x)
    cdf = np.append(0, np.cumsum(strips))
    cdf = cdf / cdf[-1]  # also puts right the ½ that the strips left out
    samples = np.interp(u, cdf, x)
    # end practice
    return samples


def discrete(u: np.ndarray, p: np.ndarray) -> np.ndarray:
    return np.searchsorted(
        np.cumsum(p)[:-1], u, side="right"
    )  # the same for a list of probabilities


def box_muller(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two independent normal numbers from two uniform ones: a random direction, and how far to go. (n,) each"""
    # practice: a bell curve from a dart board
    # hint: the direction is uniform; half the squared distance is exponential, -log(1 - u)
    # hint: radius = np.sqrt(…), angle = 2π v, then cosine and sine
    radius = np.sqrt(-2 * np.log(1 - u))  # 1 - u is never 0, u can be
    angle = 2 * np.pi * v
    pair = radius * np.cos(angle), radius * np.sin(angle)
    # end practice
    return pair


def posterior(prior: np.ndarray, likelihood: np.ndarray) -> np.ndarray:
    """Bayes: P(cause | seen) from P(cause) (k,) and P(seen | cause) (k, m), one row a cause. -> (k, m)"""
    # practice: turn the condition round
    # hint: P(cause and seen) = P(cause) · P(seen | cause); then look only at those among whom it was seen
    # hint: joint = prior[:, None] * likelihood
    joint = prior[:, None] * likelihood
    seen = joint.sum(axis=0)
    answer = joint / seen
    # end practice
    return answer


def covariance(x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(axis=0)  # (n, d), a row for each sample
    return centred.T @ centred / (len(x) - 1)  # (d, d), variances on the diagonal


def show_integrals(cfg: Config) -> dict:
    exact, sizes, rng, repeats = (
        erf(np.sqrt([0.5, 2])).mean(),
        4 ** np.arange(2, 8),
        cfg.rng(),
        cfg.samples // 250,
    )
    print(
        f"\n[1] Probability is area: {exact:.4f} of a bell curve lies between -1 and 2 standard deviations"
    )
    check_close(
        "area",
        "areas 1 and 4.5",
        [trapezoid(two_humps, -6, 8, 999), trapezoid(abs, 0, 3, 2)],
        [1, 4.5],
    )
    errors = [abs(trapezoid(normal_density, -1, 2, n) - exact) for n in sizes]
    found = np.array(
        [[monte_carlo(normal_density, -1, 2, n, rng) for _ in range(repeats)] for n in sizes]
    )
    misses = found[..., 0] - exact  # (sizes, repeats)
    typical = np.sqrt((misses**2).mean(axis=1))
    order, power = (np.polyfit(np.log(sizes), np.log(e), 1)[0] for e in (errors, typical))
    check(
        "order",
        "trapezoids: twice as many, a quarter of the error; the power of n",
        order,
        above=-2.02,
        below=-1.98,
    )
    doubt = 1 / np.sqrt(2 * repeats * len(sizes) * np.log(sizes).var())
    check(
        "root-n",
        f"random places: power {power:.3f}; miss from -1/2 in SE",
        abs(power + 0.5) / doubt,
        at_most=4,
    )
    ratio = (misses / found[..., 1])[2:] ** 2  # with few points the error itself is known badly
    check(
        "random",
        f"their misses are as large as their SE says: mean square {ratio.mean():.3f}; miss from 1 in SE",
        abs(ratio.mean() - 1) / np.sqrt(2 / ratio.size),
        at_most=4,
    )
    draw_errors(cfg, sizes, errors, abs(misses), typical)
    return {"trapezoid_power": order, "monte_carlo_power": power}


def show_sampling(cfg: Config) -> None:
    print(
        "\n[2] Every sampler bends uniform numbers; a KS test finds the largest gap to the curve they should follow"
    )
    (u, v), x = cfg.rng().random((2, cfg.samples)), np.linspace(-5, 7, 121)
    below = [trapezoid(two_humps, -9, end, 500) for end in x]  # the cumulative curve
    humps, (first, second), lowest = inverse_cdf(u, x, two_humps(x)), box_muller(u, v), 1.0
    for name, sample, cdf in (
        ("two humps", humps, lambda t: np.interp(t, x, below)),
        ("waiting times", exponential(u), lambda t: 1 - np.exp(-t)),
        ("Box–Muller, 1st", first, "norm"),
        ("Box–Muller, 2nd", second, "norm"),
        ("(1st + 2nd) / √2", (first + second) / np.sqrt(2), "norm"),
    ):
        gap, p = kstest(sample, cdf)
        print(f"  {name:<18} largest gap {gap:.5f}   p-value {p:.3f}")
        lowest = min(lowest, p)
    check(
        "ks",
        "lowest p-value; a right sampler falls below 1e-4 once in 10,000 tests",
        lowest,
        above=1e-4,
    )
    p = np.array([0.5, 0.2, 0.2, 0.1])
    shares = np.bincount(discrete(u, p), minlength=4) / cfg.samples
    check(
        "discrete",
        f"wanted {p}, drawn {shares.round(3)}; largest miss in SE",
        max(abs(shares - p) / np.sqrt(p * (1 - p) / cfg.samples)),
        at_most=4,
    )
    draw_sampling(cfg, x, below, humps)


def show_bayes(cfg: Config) -> dict[str, float]:
    print(
        "\n[3] One person in 1,000 is ill; the test finds 99 % of the ill, and alarms 5 % of the healthy"
    )
    prior, test = (
        np.array([0.001, 0.999]),
        np.array([[0.99, 0.01], [0.05, 0.95]]),
    )  # rows ill, healthy; columns + -
    print(
        "  of 100,000: ill +, ill -, healthy +, healthy -:",
        *(100_000 * prior[:, None] * test).round().ravel(),
    )
    after = posterior(prior, test)
    check_close(
        "table",
        "P(ill | positive or negative) = 99 of 5,094, 1 of 94,906",
        after[0],
        [99 / 5094, 1 / 94906],
    )
    twice = posterior(after[:, 0], test)[0, 0]
    check_close(
        "twice",
        f"two positives, {twice:.1%}: in turn = at once",
        twice,
        posterior(prior, test**2)[0, 0],
    )
    return {"ill_if_positive": after[0, 0], "ill_if_twice": twice}


def show_covariance(cfg: Config) -> None:
    print("\n[4] Covariance: how things vary together along straight lines, and nothing else")
    z, a = (
        np.stack(box_muller(*cfg.rng().random((2, cfg.samples))), axis=1),
        np.array([[2.0, 0.0], [1.5, 0.5]]),
    )
    check_close("covariance", "ours is np.cov", covariance(z @ a.T), np.cov(a @ z.T))
    check_close(
        "moved", "a matrix A turns C into A C Aᵀ", covariance(z @ a.T), a @ covariance(z) @ a.T
    )
    c = covariance(np.stack([z[:, 0], z[:, 0] ** 2], axis=1))
    r = c[0, 1] / np.sqrt(c[0, 0] * c[1, 1])
    check(
        "blind",
        f"x decides x², yet r = {r:.4f}; miss from 0 in SE",
        abs(r) / np.sqrt(5 / cfg.samples),
        at_most=4,
    )


def show_likelihood(cfg: Config) -> None:
    print("\n[5] Maximum likelihood: the parameters under which the data is least surprising")
    u, v = cfg.rng().random((2, 500))
    bell, wait = 3 + 2 * box_muller(u, v)[0], exponential(u) / 0.7
    surprise = [  # the mean of -log p(x) without constants, as a function of t, which may take any value; closed form
        (
            lambda t: t[1] + (((bell - t[0]) / np.exp(t[1])) ** 2).mean() / 2,
            [bell.mean(), np.log(bell.std())],
        ),
        (lambda t: np.exp(t[0]) * wait.mean() - t[0], [-np.log(wait.mean())]),
        (
            lambda t: np.log1p(np.exp(t[0])) - t[0] * (u < 0.3).mean(),
            [np.log(1 / (1 / (u < 0.3).mean() - 1))],
        ),
    ]
    found = [
        descend(lambda t: derivatives.gradient(f, t), np.ones(len(c)), 0.3, 500)[-1]
        for f, c in surprise
    ]
    print(
        "  normal: mean, log sd; waiting times: log rate; coin: log odds =",
        np.concatenate(found).round(4),
    )
    check_close(
        "mle",
        "descent (2.5) finds the closed forms",
        np.hstack(found),
        np.hstack([c for _, c in surprise]),
    )


def show_limits(cfg: Config) -> dict[str, float]:
    print(
        "\n[6] The error of an average shrinks as 1/√n and takes the shape of a bell, whatever is averaged"
    )
    rng, sizes, sources = (
        cfg.rng(),
        (1, 2, 5, 30),
        {  # how it is drawn, its mean, its standard deviation
            "uniform": (lambda u: u, 1 / 2, np.sqrt(1 / 12)),
            "waiting time": (exponential, 1, 1),
            "swing, cos 2πu": (lambda u: np.cos(2 * np.pi * u), 0, np.sqrt(1 / 2)),
        },
    )
    bells = {
        name: [
            (draw(rng.random((cfg.samples, k))).mean(axis=1) - mean) / (sd / np.sqrt(k))
            for k in sizes
        ]
        for name, (draw, mean, sd) in sources.items()
    }
    check(
        "lln",
        "the mean of many is the expectation, for all three sources; largest miss in SE",
        max(abs(z.mean()) * np.sqrt(len(z)) for row in bells.values() for z in row),
        at_most=4,
    )
    gaps = [kstest(z, "norm").statistic for z in bells["waiting time"]]
    check(
        "clt",
        f"gap to the bell {gaps[0]:.3f}, {gaps[-1]:.3f} for 30 waits; factor",
        gaps[0] / gaps[-1],
        above=3.5,
    )
    draw_bells(cfg, sizes, bells)
    return {"gap_1": gaps[0], "gap_30": gaps[-1]}


def draw_errors(
    cfg: Config, sizes: np.ndarray, errors: list, each: np.ndarray, typical: np.ndarray
) -> None:
    figure, (left, right) = new_figure(1, 2, size=(13.0, 5.2))
    left.loglog(
        np.repeat(sizes, each.shape[1]), each.ravel(), ".", color=SKY, alpha=0.25, markersize=4
    )
    left.loglog(sizes, typical, "o-", color=BLUE, label="random places: $1/\\sqrt{n}$")
    left.loglog(sizes, errors, "o-", color=ORANGE, label="trapezoids: $1/n^2$")
    left.legend(loc="lower left")
    left.set(xlabel="evaluations n", ylim=(1e-10, 1), title="The error of an integral")
    n = np.arange(1, 2001)
    right.plot(
        n,
        cfg.rng().integers(1, 7, (2000, 30)).cumsum(axis=0) / n[:, None],
        color=BLUE,
        alpha=0.3,
        linewidth=1,
    )
    right.plot(n, 3.5 + np.outer(np.sqrt(35 / 12 / n), (-2, 2)), "--", color=RED)
    right.set(
        xscale="log",
        ylim=(1, 6),
        xlabel="throws n",
        title="The mean of n throws, 30 dice; dashed: 2σ/√n",
    )
    save_figure(figure, cfg.out / "errors")


def draw_sampling(cfg: Config, x: np.ndarray, below: list[float], samples: np.ndarray) -> None:
    figure, (top, bottom) = new_figure(2, 1, size=(9.6, 7.0), sharex=True)
    places = inverse_cdf(
        levels := np.linspace(0.01, 0.99, 50), x, two_humps(x)
    )  # dense where the curve is steep
    top.hlines(levels, -4, places, color=SKY, linewidth=0.8)
    top.vlines(places, 0, levels, color=ORANGE, linewidth=0.8)
    top.plot(x, below, color=BLUE)
    top.set(
        ylabel="area to the left = u",
        ylim=(0, 1.02),
        title="Come in at a random height u, leave at a sample x",
    )
    bottom.hist(samples, 120, density=True, color=ORANGE, alpha=0.6)
    bottom.plot(x, two_humps(x), color=BLUE)
    bottom.set(
        xlim=(-4, 5),
        xlabel="x",
        ylabel="density",
        title=f"{len(samples):,} samples, and the density",
    )
    save_figure(figure, cfg.out / "sampling")


def draw_bells(cfg: Config, sizes: tuple[int, ...], bells: dict[str, list[np.ndarray]]) -> None:
    figure, axes = new_figure(len(bells), len(sizes), size=(13.0, 7.6), sharex=True)
    for row, (name, means), colour in zip(axes, bells.items(), (BLUE, GREEN, ORANGE)):
        for axis, z, k in zip(row, means, sizes):
            axis.hist(z, np.arange(-4.1, 4.2, 0.2), density=True, color=colour, alpha=0.6)
            axis.plot(
                curve := np.linspace(-4, 4, 200),
                normal_density(curve),
                color="black",
                linewidth=1.4,
            )
            axis.set(xlim=(-4, 4), yticks=(), title=f"mean of {k}" if k > 1 else name)
    save_figure(figure, cfg.out / "bells")


def run(cfg: Config) -> dict:
    results = show_integrals(cfg)
    show_sampling(cfg)
    results |= show_bayes(cfg)
    show_covariance(cfg)
    show_likelihood(cfg)
    return results | show_limits(cfg)


if __name__ == "__main__":
    main(run, Config, __doc__)
