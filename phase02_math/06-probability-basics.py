"""2.6 Probability basics: from uniform random numbers to any distribution, and back from data
概率基础：从均匀随机数得到任意分布，再由数据反推参数

You will be able to answer
    1. How far off is an estimated area?        show_integrals   by-hand, order, root-n, error-bar
    2. How are samples drawn, pairs described?  show_sampling    flat, ks, covariance, turned, blind
    3. What does an average's error look like?  show_averages    lln, clt, skewed, cauchy
    4. The test is positive: am I ill?          show_bayes       table, twice
    5. Which parameters fit the data best?      show_likelihood  gradient, mle
Predict   ill_if_positive: the test is positive; how probable is illness, from 0 to 1?
          (1 in 1,000 is ill; the test finds 99 % of the ill and alarms 5 % of the healthy)
Run       python phase02_math/06-probability-basics.py                     about 4 s
Needs     phase02_math/05-optimization-basics
Reference np.cov
Notation  n samples  SE standard error, the typical error of an estimate
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import kstest, norm

from common.checks import check, check_close
from common.config import LessonConfig, main, param
from common.figures import BLUE, GREEN, ORANGE, SKY, new_figure, save_figure
from common.lessons import load_lesson

descend = load_lesson("phase02_math/05-optimization-basics").descend


@dataclass
class Config(LessonConfig):
    samples: int = param(100_000, "random numbers in each test", tiny=20_000, low=20_000)


def normal_density(x: np.ndarray, mean: float = 0.0, sd: float = 1.0) -> np.ndarray:
    z = (x - mean) / sd
    return np.exp(-(z**2) / 2) / (sd * np.sqrt(2 * np.pi))


def trapezoid(f: Callable, a: float, b: float, n: int) -> float:
    """The integral of f from a to b by n strips of equal width. f takes and returns an array."""
    heights = f(np.linspace(a, b, n + 1))

    # A strip's area is its width times the mean of its two heights, so each inner height counts
    # twice by a half, and the two outer ones once.
    width = (b - a) / n
    return width * (heights.sum() - (heights[0] + heights[-1]) / 2)


def monte_carlo(
    f: Callable, a: float, b: float, n: int, rng: np.random.Generator
) -> tuple[float, float]:
    """The same integral from n random points: the estimate, and its standard error."""
    # practice: An integral is an average
    points = rng.uniform(a, b, n)
    values = (b - a) * f(points)

    # The spread of one value, divided by √n, is the spread of the mean of n values.
    return values.mean(), values.std() / np.sqrt(n)
    # end practice


def show_integrals(cfg: Config) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    print("\n[1] Probability is area: how much of a normal density lies between -0.5 and 2?")
    area = trapezoid(np.square, 1, 3, 4)
    check_close("by-hand", "x² from 1 to 3 in four strips is 8.75", area, 8.75)

    exact = norm.cdf(2) - norm.cdf(-0.5)
    sizes = 4 ** np.arange(2, 8)
    errors = [abs(trapezoid(normal_density, -0.5, 2, n) - exact) for n in sizes]
    order = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    text = "the error of the trapezoids falls with the power {} of n"
    check("order", text, order, above=-2.02, below=-1.98)

    rng = cfg.rng()
    misses = []
    in_errors = []
    for n in sizes:
        results = [monte_carlo(normal_density, -0.5, 2, n, rng) for _ in range(400)]
        estimates, standard_errors = np.transpose(results)
        misses.append(estimates - exact)
        in_errors.append((estimates - exact) / standard_errors)
    print(f"  exact {exact:.4f}, 400 estimates from {n:,} points on average {estimates.mean():.4f}")
    typical = np.sqrt(np.square(misses).mean(axis=1))
    power = np.polyfit(np.log(sizes), np.log(typical), 1)[0]
    text = "that of random points with the power {}, about -1/2"
    check("root-n", text, power, above=-0.525, below=-0.475)

    # With few points the standard error is itself a rough estimate: leave the first sizes out.
    text = "(miss / standard error)² is {} on average: the standard error is the typical miss"
    check("error-bar", text, np.square(in_errors[2:]).mean(), above=0.85, below=1.15)
    curves = {"sizes": sizes, "trapezoid": errors, "misses": np.abs(misses), "typical": typical}
    return {"trapezoid_power": order, "monte_carlo_power": power}, curves


def inverse_cdf(u: np.ndarray, x: np.ndarray, density: np.ndarray) -> np.ndarray:
    """Samples of a density that is known, up to a factor, at the points x.

    u: uniform numbers in [0, 1), (n,). x, density: (m,), x in rising order. Returns (n,).
    """
    # practice: Read the distribution function backwards
    areas = np.diff(x) * (density[1:] + density[:-1]) / 2
    cdf = np.concatenate([[0], np.cumsum(areas)])
    cdf = cdf / cdf[-1]

    # np.interp reads a curve from x to y; with the axes exchanged it reads from y to x.
    return np.interp(u, cdf, x)
    # end practice


def waiting_time(u: np.ndarray) -> np.ndarray:
    """Exponential with mean 1. F(x) = 1 - exp(-x), solved for x."""
    return -np.log(1 - u)


def box_muller(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two independent standard normal numbers from two uniform ones. All (n,)."""
    # Half the squared distance from the centre is exponential, the direction uniform.
    radius = np.sqrt(2 * waiting_time(u))
    angle = 2 * np.pi * v
    return radius * np.cos(angle), radius * np.sin(angle)


def covariance(x: np.ndarray) -> np.ndarray:
    """(n, d), a row for each sample -> (d, d), with the variances on the diagonal."""
    centred = x - x.mean(axis=0)
    return centred.T @ centred / (len(x) - 1)


def two_humps(x: np.ndarray) -> np.ndarray:
    return 0.65 * normal_density(x, -1.2, 0.5) + 0.35 * normal_density(x, 1.5, 0.9)


def two_humps_cdf(x: np.ndarray) -> np.ndarray:
    return 0.65 * norm.cdf(x, -1.2, 0.5) + 0.35 * norm.cdf(x, 1.5, 0.9)


def show_sampling(cfg: Config) -> np.ndarray:
    print("\n[2] From uniform numbers to others; a Kolmogorov-Smirnov (KS) test asks how far the")
    print("    share of samples below x is from the distribution function F(x), at most")
    u, v = cfg.rng().random((2, cfg.samples))

    text = "a flat density from 0 to 4, given at uneven points, stretches u to 4 u"
    check_close("flat", text, inverse_cdf(u, np.array([0.0, 1, 4]), np.full(3, 2.0)), 4 * u)

    # Closer points where the density is steep.
    x = np.concatenate([np.linspace(-5, 0, 51), np.linspace(0, 7, 36)[1:]])
    humps = inverse_cdf(u, x, 10 * two_humps(x))
    first, second = box_muller(u, v)
    p_values = []
    for name, samples, cdf in [
        ("two humps", humps, two_humps_cdf),
        ("waiting time", waiting_time(u), "expon"),
        ("Box-Muller, first", first, "norm"),
        ("Box-Muller, second", second, "norm"),
        ("(first + second) / √2", (first + second) / np.sqrt(2), "norm"),
    ]:
        gap, p_value = kstest(samples, cdf)
        print(f"  {name:<22} largest gap {gap:.5f}   p-value {p_value:.3f}")
        p_values.append(p_value)
    text = "the lowest p-value is {}; a right sampler is below 1e-4 once in 10,000 tests"
    check("ks", text, min(p_values), above=1e-4)

    z = np.stack([first, second], axis=1)  # (n, 2)
    a = np.array([[2.0, 0.0], [1.5, 0.5]])
    moved = z @ a.T
    check_close("covariance", "ours is np.cov's", covariance(moved), np.cov(moved, rowvar=False))
    text = "A, applied to each sample, turns the covariance C into A C Aᵀ"
    check_close("turned", text, covariance(moved), a @ covariance(z) @ a.T)

    c = covariance(np.stack([first, first**2], axis=1))
    correlation = c[0, 1] / np.sqrt(c[0, 0] * c[1, 1])
    text = "x decides x², and yet their correlation is {}: it sees straight lines only"
    check("blind", text, correlation, above=-0.1, below=0.1)
    return humps


SOURCES = {  # name: mean, standard deviation
    "uniform": (1 / 2, np.sqrt(1 / 12)),
    "waiting time": (1, 1),
    "cosine of an angle": (0, np.sqrt(1 / 2)),
}


def show_averages(cfg: Config) -> tuple[dict[str, float], dict[str, list[np.ndarray]]]:
    print("\n[3] An average's error shrinks as 1/√n and becomes normal, if the variance is finite")
    rng = cfg.rng()
    averages = {name: [] for name in SOURCES}
    for k in [1, 2, 5, 30]:
        u = rng.random((cfg.samples, k))
        drawn = [u, waiting_time(u), np.cos(2 * np.pi * u)]
        for (name, (mean, sd)), values in zip(SOURCES.items(), drawn):
            averages[name].append((values.mean(axis=1) - mean) / (sd / np.sqrt(k)))

    misses = [abs(z.mean()) * np.sqrt(len(z)) for row in averages.values() for z in row]
    text = "all averages settle at the expectation, the worst is {} standard errors away"
    check("lln", text, max(misses), at_most=4)

    print("  largest gap to the normal distribution, for means of 1, 2, 5, 30:")
    gaps = {}
    for name, row in averages.items():
        gaps[name] = [kstest(z, "norm").statistic for z in row]
        print(f"  {name:<20}" + "".join(f"{gap:8.4f}" for gap in gaps[name]))
    text = "the mean of 30 is nearer to it than one number, in all three at least {} times"
    check("clt", text, min(row[0] / row[-1] for row in gaps.values()), above=3.5)
    flat, skewed, round_trip = (row[-1] for row in gaps.values())
    text = "the skewed waiting times take longest: their gap at 30 is {} times the next largest"
    check("skewed", text, skewed / max(flat, round_trip), above=1.5)

    # The last u, sent through the inverse distribution function of a density without a variance.
    cauchy = np.tan(np.pi * (u - 0.5))  # (samples, 30)
    one = np.diff(np.percentile(cauchy[:, 0], [25, 75]))[0]
    thirty = np.diff(np.percentile(cauchy.mean(axis=1), [25, 75]))[0]
    text = "Cauchy numbers have none: the middle half of means of 30 is {} times as wide as of one"
    check("cauchy", text, thirty / one, above=0.9, below=1.1)
    found = {"gap_1": gaps["waiting time"][0], "gap_30": skewed, "cauchy_width": thirty / one}
    return found, averages


def posterior(prior: np.ndarray, likelihood: np.ndarray) -> np.ndarray:
    """Bayes' rule: P(cause | seen) from P(cause), (k,), and P(seen | cause), (k, m).

    A row for each cause, a column for each thing that can be seen. Returns (k, m).
    """
    # practice: Turn the condition round
    joint = prior[:, None] * likelihood  # P(cause and seen), (k, m)
    seen = joint.sum(axis=0)  # (m,)
    return joint / seen
    # end practice


def show_bayes(cfg: Config) -> dict[str, float]:
    print("\n[4] 1 in 1,000 is ill; the test finds 99 % of the ill and alarms 5 % of the healthy")
    prior = np.array([0.001, 0.999])  # ill, healthy
    test = np.array([[0.99, 0.01], [0.05, 0.95]])  # columns: positive, negative
    people = (100_000 * prior[:, None] * test).round().astype(int)
    print(f"  of 100,000 people: ill {people[0]}, healthy {people[1]} (positive, negative)")
    after = posterior(prior, test)
    print(f"  ill with probability {after[0, 0]:.4f} if positive, {after[0, 1]:.6f} if negative")
    text = "of 5,094 positive people 99 are ill, of 94,906 negative ones 1"
    check_close("table", text, after[0], [99 / 5094, 1 / 94906])

    # Two independent tests: both positive, one of them, none.
    hits = test[:, 0]
    two_tests = np.stack([hits**2, 2 * hits * (1 - hits), (1 - hits) ** 2], axis=1)  # (2, 3)
    at_once = posterior(prior, two_tests)
    in_turn = posterior(after[:, 0], test)
    text = f"two positive tests, in turn or at once: ill with probability {in_turn[0, 0]:.3f}"
    check_close("twice", text, in_turn[0], at_once[0, :2])
    return {"ill_if_positive": after[0, 0], "ill_if_twice": in_turn[0, 0]}


def normal_loss(theta: np.ndarray, x: np.ndarray) -> float:
    """Mean of -ln p(x) under a normal density, without constants. theta: (mean, ln sd)."""
    z = (x - theta[0]) / np.exp(theta[1])
    return theta[1] + (z**2).mean() / 2


def normal_loss_gradient(theta: np.ndarray, x: np.ndarray) -> np.ndarray:
    # practice: Where the likelihood grows
    sd = np.exp(theta[1])
    z = (x - theta[0]) / sd
    return np.array([-z.mean() / sd, 1 - (z**2).mean()])
    # end practice


def show_likelihood(cfg: Config) -> None:
    print("\n[5] Maximum likelihood: the parameters under which the data is most probable")
    u, v = cfg.rng().random((2, 500))
    x = 3 + 2 * box_muller(u, v)[0]
    theta = np.array([0.5, 0.3])
    h = 1e-5 * np.eye(2)
    slopes = [(normal_loss(theta + s, x) - normal_loss(theta - s, x)) / 2e-5 for s in h]
    text = "our gradient is the measured slope of the loss (2.3), up to {}"
    check_close("gradient", text, normal_loss_gradient(theta, x), slopes, rtol=1e-6)

    waits = waiting_time(u) / 0.7
    normal = descend(lambda t: normal_loss_gradient(t, x), np.ones(2), 0.3, 500)[-1]
    # -ln p is rate · x - ln rate. Descend in t = ln rate, so that the rate stays positive.
    rate = descend(lambda t: np.exp(t) * waits.mean() - 1, np.zeros(1), 0.3, 500)[-1]
    print(f"  normal: mean {normal[0]:.3f}, sd {np.exp(normal[1]):.3f}; ", end="")
    print(f"waiting time: rate {np.exp(rate[0]):.3f}")
    closed = [x.mean(), np.log(x.std()), -np.log(waits.mean())]
    text = "descent (2.5) finds the closed forms: sample mean and sd, 1 / mean waiting time"
    check_close("mle", text, np.concatenate([normal, rate]), closed)


# Pictures: skip on a first reading


def draw_errors(cfg: Config, curves: dict[str, np.ndarray]) -> None:
    sizes = curves["sizes"]
    figure, axis = new_figure(size=(8.6, 4.8))
    axis.loglog(sizes, curves["misses"], ".", color=SKY, alpha=0.25, markersize=4)
    axis.loglog(sizes, curves["typical"], "o-", color=BLUE, label="random points: $1/\\sqrt{n}$")
    axis.loglog(sizes, curves["trapezoid"], "o-", color=ORANGE, label="trapezoids: $1/n^2$")
    axis.legend(loc="lower left")
    title = "The error of an integral; light: single estimates"
    axis.set(xlabel="points n", ylim=(1e-10, 1), title=title)
    save_figure(figure, cfg.out / "errors")


def draw_sampling(cfg: Config, samples: np.ndarray) -> None:
    x = np.linspace(-4, 5, 400)
    levels = np.linspace(0.01, 0.99, 50)
    places = inverse_cdf(levels, x, two_humps(x))
    figure, (top, bottom) = new_figure(2, 1, size=(9.6, 7.0), sharex=True)
    top.hlines(levels, -4, places, color=SKY, linewidth=0.8)
    top.vlines(places, 0, levels, color=ORANGE, linewidth=0.8)
    top.plot(x, two_humps_cdf(x), color=BLUE)
    top.set(ylabel="F(x), the area to the left", ylim=(0, 1.02))
    top.set_title("In at a random height u, out at the sample x")

    bottom.hist(samples, 120, range=(-4, 5), density=True, color=ORANGE, alpha=0.6)
    bottom.plot(x, two_humps(x), color=BLUE)
    bottom.set(xlim=(-4, 5), xlabel="x", ylabel="density")
    bottom.set_title(f"{len(samples):,} samples, and the density")
    save_figure(figure, cfg.out / "sampling")


def draw_averages(cfg: Config, averages: dict[str, list[np.ndarray]]) -> None:
    x = np.linspace(-4, 4, 200)
    figure, axes = new_figure(3, 4, size=(13.0, 7.6), sharex=True)
    for row, (name, columns), colour in zip(axes, averages.items(), [BLUE, GREEN, ORANGE]):
        for axis, z, title in zip(row, columns, [name, "mean of 2", "mean of 5", "mean of 30"]):
            axis.hist(z, np.arange(-4.1, 4.2, 0.2), density=True, color=colour, alpha=0.6)
            axis.plot(x, normal_density(x), color="black", linewidth=1.4)
            axis.set(xlim=(-4, 4), yticks=(), title=title)
    save_figure(figure, cfg.out / "averages")


def run(cfg: Config) -> dict[str, float]:
    powers, curves = show_integrals(cfg)
    humps = show_sampling(cfg)
    gaps, averages = show_averages(cfg)
    ill = show_bayes(cfg)
    show_likelihood(cfg)
    draw_errors(cfg, curves)
    draw_sampling(cfg, humps)
    draw_averages(cfg, averages)
    return {**powers, **gaps, **ill}


if __name__ == "__main__":
    main(run, Config, __doc__)
