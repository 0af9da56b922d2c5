"""Project 6 Stock forecast: an honest verdict on a tempting idea
股票预测：诱人的想法要经得起评估

You will be able to answer
    1. What does a high R² of prices prove?  show_level     by-hand, random-walk, of-returns
    2. How sure is a mean of daily numbers?  show_interval  coverage, too-narrow
    3. What do costs leave of a forecast?    show_costs     trades, measures, peek
    4. How large a pattern is found?  show_power  large, small, overfits, depends, past-only, found
    5. Is one found in a real price?         show_verdict   lag, honest
Predict   naive_r2: how much of the variance of tomorrow's price does today's price explain (R²)?
Run       python phase06_rnn/project-stock-forecast.py       about a minute
          … --csv FILE.csv           a price of your own: Date and Close, one row a day
          … --cost 0                 what trading would earn if it were free
Needs     phase06_rnn/09-time-series
Reference -
Notation  n days  L days of a window
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.data.batches import Batches
from common.data.series import Series, load_goog, read_prices
from common.figures import BLUE, GREY, ORANGE, new_figure, save_figure
from common.files import write_text
from common.lessons import load_lesson, shown
from common.training import fit

lesson_6_9 = load_lesson("phase06_rnn/09-time-series")

DAYS = 252  # trading days of a year
BLOCK = 20  # days in a row that a draw of the bootstrap keeps together
BETTER = "better than the naive forecast"
WORSE = "worse than the naive forecast"
UNDECIDED = "not shown to differ from the naive forecast"


@dataclass
class Config(LessonConfig):
    threads = 1
    data: str = param("goog", "data set", choices=("goog",))
    csv: Path | None = param(None, "daily prices of your own instead of Google's")
    column: str | None = param(
        None, "the column of prices in --csv, by default the (adjusted) close"
    )
    cost: float = param(
        10.0, "cost of a trade in basis points: hundredths of a percent of its value"
    )
    retrain_every: int = param(105, "days after which the networks are trained again", tiny=300)
    networks: int = param(3, "networks whose forecasts are averaged", tiny=1)
    length: int = param(20, "days of returns that a forecast looks at", tiny=5)
    width: int = param(16, "hidden units of the LSTM", tiny=8)
    steps: int = param(150, "training steps of a network", tiny=10)
    draws: int = param(2000, "draws of the bootstrap", tiny=200)
    series: int = param(100, "series for each size of a planted pattern", tiny=20, low=1)


# 1. Prices and returns


def log_returns(prices: np.ndarray) -> np.ndarray:
    """The logarithm of each price over the one before it. (n,) -> (n - 1,)"""
    return np.diff(np.log(prices))


def r_squared(true: np.ndarray, predicted: np.ndarray, baseline: np.ndarray | float) -> float:
    """1 - (squared errors of the forecast) / (squared errors of the baseline), both summed.

    With the mean of `true` as baseline it is the usual R². Below 0: worse than the baseline.
    """
    # practice: R² against a baseline
    errors = ((true - predicted) ** 2).sum()
    errors_of_baseline = ((true - baseline) ** 2).sum()
    return 1 - errors / errors_of_baseline
    # end practice


def price_r2(prices: np.ndarray) -> float:
    """The usual R² of the naive forecast: tomorrow's price is today's."""
    return r_squared(prices[1:], prices[:-1], prices[1:].mean())


def show_level(cfg: Config, history: np.ndarray) -> np.ndarray:
    print("\n[1] The R² of prices is high whatever you do: the mean is a hopeless baseline")
    true = np.array([1.0, 2, 3, 6])
    found = [price_r2(np.array([1.0, 1, 2, 3, 6])), r_squared(true, 0 * true, 1.0)]
    text = "1 2 3 6, forecast as 1 1 2 3: R² is 1 - 11/14; as zeros against ones: 1 - 50/30"
    check_close("by-hand", text, found, [1 - 11 / 14, 1 - 50 / 30])

    # Random walks as volatile as the price: by construction, nothing can forecast their steps.
    spread = log_returns(history).std()
    steps = cfg.rng().normal(0, spread, size=(500, 500))
    found = np.array([price_r2(walk) for walk in np.exp(steps.cumsum(axis=1))])
    text = "500 random walks of 500 days: the median R² of the naive forecast is {}"
    check("random-walk", text, np.median(found), at_least=0.95)
    text = "in returns, the same forecast says 0, and its R² is {}"
    check(
        "of-returns",
        text,
        r_squared(steps[0], 0 * steps[0], steps[0].mean()),
        above=-0.02,
        at_most=0,
    )
    return found


# 2. How sure


def bootstrap_means(
    values: np.ndarray, block: int, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Means of resampled series, made of whole blocks: neighbours stay together. (n,) -> (draws,)

    Each draw joins blocks of `block` values in a row, from random places; behind the last value
    comes the first again. It is cut to n values. (The circular block bootstrap.)
    """
    # practice: The block bootstrap
    n = len(values)
    blocks = -(-n // block)  # rounded up
    starts = rng.integers(n, size=(draws, blocks))
    places = (starts[:, :, None] + np.arange(block)) % n  # (draws, blocks, block)
    return values[places.reshape(draws, -1)[:, :n]].mean(axis=1)
    # end practice


def show_interval(cfg: Config) -> None:
    print("\n[2] If a value depends on the one before, a mean is less sure than it looks")
    # Series whose mean is 0, each value half of the one before plus noise.
    rng = cfg.rng()
    covered = {1: 0, BLOCK: 0}
    for _ in range(300):
        values = autoregressive(0.5, 300, rng)
        for block in covered:
            low, high = np.quantile(bootstrap_means(values, block, 200, rng), [0.025, 0.975])
            covered[block] += low <= 0 <= high
    share = {block: count / 300 for block, count in covered.items()}
    text = "300 dependent series: intervals from blocks of 20 hold the true mean in {} of them"
    check("coverage", text, share[BLOCK], at_least=0.82)
    text = "intervals that draw day by day promise 0.95 as well, and hold it in {}"
    check("too-narrow", text, share[1], at_most=0.82)


# 3. Costs


def trade(positions: np.ndarray, returns: np.ndarray, cost: float) -> np.ndarray:
    """What a strategy gains each day, as a share of what it owns. (n,)

    positions[t], from -1 (short) to 1 (all in), is taken before returns[t], a logarithm, is known.
    A change of position costs `cost` times its size on that day; before the first day it is 0.
    """
    # practice: Gains after costs
    gains = positions * np.expm1(returns)  # exp(r) - 1: what the price gains, as a share
    changes = np.abs(np.diff(positions, prepend=0.0))
    return gains - cost * changes
    # end practice


def performance(gains: np.ndarray) -> dict[str, float]:
    """Of daily gains (n,): what they make of 1 in a year, their Sharpe ratio, the worst drawdown.

    yearly: the product of all 1 + gain, as a growth for each 252 days, minus 1.
    sharpe: mean over standard deviation (NumPy's, divided by n), times the root of 252.
    drawdown: the largest share lost since the highest point before, the start (1) among them.
    """
    # practice: Three measures of a strategy
    wealth = np.concatenate([[1.0], np.cumprod(1 + gains)])
    highest = np.maximum.accumulate(wealth)
    return {
        "yearly": wealth[-1] ** (DAYS / len(gains)) - 1,
        "sharpe": gains.mean() / gains.std() * DAYS**0.5,
        "drawdown": (1 - wealth / highest).max(),
    }
    # end practice


def show_costs(cfg: Config, history: np.ndarray) -> None:
    print("\n[3] A forecast earns what is left after each change of position is paid")
    found = trade(np.array([1.0, -1, 0]), np.log([1.1, 0.8, 3]), cost=0.01)
    text = "in, short, out; the price gains 10 %, -20 %, 200 %: 0.10 - 0.01, 0.20 - 0.02, 0 - 0.01"
    check_close("trades", text, found, [0.09, 0.18, -0.01])
    found = performance(np.array([0.04, -0.02]))
    text = "gains of 4 and -2 %: 1.0192 to the power of 126 a year, Sharpe ratio √252 / 3, 2 % lost"
    wanted = {"yearly": 1.0192**126 - 1, "sharpe": DAYS**0.5 / 3, "drawdown": 0.02}
    check_close("measures", text, [found[name] for name in wanted], list(wanted.values()))

    returns = log_returns(history)
    gains = trade(np.sign(returns), returns, cost=0.0)
    text = "a position that knows the day's own close has a Sharpe ratio of {}: distrust such"
    check("peek", text, performance(gains)["sharpe"], at_least=8)


# 4. Forecasts


def fit_lstm(cfg: Config, known: np.ndarray) -> lesson_6_9.Forecast:
    """The mean forecast of cfg.networks LSTMs, trained on the windows of the known returns.

    lesson_6_9.windows gives windows of lesson_6_9.LENGTH days, as the AR(1) has them; a network
    sees the last cfg.length of them. All is divided by the standard deviation of `known`.
    """
    # practice: From known returns to a forecast
    spread = known.std()
    x, y = lesson_6_9.windows(known, lesson_6_9.LENGTH, horizon=1)
    inputs = to_inputs(cfg, x, spread)
    targets = torch.from_numpy(y / spread).float()
    models = [train(cfg, inputs, targets, seed) for seed in range(cfg.networks)]

    def forecast(x: np.ndarray) -> np.ndarray:
        outputs = [model(to_inputs(cfg, x, spread)) for model in models]
        return spread * torch.stack(outputs).mean(dim=0).numpy()

    return forecast
    # end practice


def forecasts(cfg: Config, returns: np.ndarray, first: int) -> dict[str, np.ndarray]:
    """Of returns[first:], each made the evening before. Fitted again after cfg.retrain_every."""
    methods = {"AR(1)": partial(lesson_6_9.fit_ar, 1, 1), "LSTM": partial(fit_lstm, cfg)}
    made = {"naive": np.zeros(len(returns) - first)}
    for name, method in methods.items():
        made[name] = lesson_6_9.walk_forward(returns, first, cfg.retrain_every, 1, method)
    return made


def improvement(
    returns: np.ndarray, predicted: np.ndarray, cfg: Config, block: int = BLOCK
) -> tuple[float, ...]:
    """R² against the naive forecast, and its 95 % interval from blocks of days."""
    gained = returns**2 - (returns - predicted) ** 2
    scale = (returns**2).mean()
    low, high = interval(gained / scale, cfg, block)
    return r_squared(returns, predicted, 0.0), low, high


def verdict(low: float, high: float) -> str:
    """What a 95 % interval of the improvement allows to say: better, worse, no difference found."""
    # practice: The verdict
    if low > 0:
        return BETTER
    if high < 0:
        return WORSE
    return UNDECIDED
    # end practice


def show_power(cfg: Config) -> dict[str, float]:
    print("\n[4] Before a real price: how large must a pattern be to be found in two years?")
    print("  R² of a perfect forecast   found in so many series of 524 days")
    rng = cfg.rng()
    brief = replace(cfg, draws=200)
    found = {}
    for r2 in (0.005, 0.01, 0.02, 0.05, 0.25):
        weight = r2**0.5  # then a share of r2 of the variance is known the day before
        count = 0
        for _ in range(cfg.series):
            values = autoregressive(weight, 525, rng)
            _, low, high = improvement(values[1:], weight * values[:-1], brief)
            count += verdict(low, high) == BETTER
        found[r2] = count / cfg.series
        print(f"  {r2:20.3f} {found[r2]:20.2f}")
    text = "where a quarter of the variance can be forecast, that is found in a share of {}"
    check("large", text, found[0.25], at_least=0.95)
    text = "where it is a hundredth, even a perfect forecast is found only in {}"
    check("small", text, found[0.01], at_most=0.5)
    return {f"found_{100 * r2:.0f}": found[r2] for r2 in (0.01, 0.05, 0.25)}


def show_planted(cfg: Config) -> None:
    # Tomorrow's return is -0.5 times today's, plus noise: a quarter of its variance is known today.
    print("  Can the LSTM find one? Planted: tomorrow's return is -0.5 times today's, plus noise")
    planted = 0.02 * autoregressive(-0.5, 800, cfg.rng())
    x, y = lesson_6_9.windows(planted[:200], lesson_6_9.LENGTH, 1)
    inputs, targets = to_inputs(cfg, x, 0.02)[:16], torch.from_numpy(y / 0.02).float()[:16]
    torch.manual_seed(cfg.seed)
    model = lesson_6_9.LSTMForecaster(32)
    adam = torch.optim.Adam(model.parameters(), lr=0.02)
    text = "16 windows are learned by heart: the loss falls to {}"
    batch = (inputs, targets)
    overfits("overfits", text, model, batch, lesson_6_9.squared_error, adam, steps=150)

    made = forecasts(cfg, planted, 500)
    changed = planted.copy()
    changed[-50:] *= -1
    moved = (forecasts(cfg, changed, 500)["LSTM"] != made["LSTM"]).argmax()
    text = "the signs of returns 250 to 299 are changed: the first forecast to move is number {}"
    check("past-only", text, moved, at_least=251, at_most=251)

    returns = planted[500:]
    text = "the sign of the return is that of the forecast for a share of {}"
    depends_on_input("depends", text, made["LSTM"] > 0, returns > 0)
    for name in ("AR(1)", "LSTM"):
        share, low, high = improvement(returns, made[name], cfg)
        print(f"  {name:<6}R² against naive {share:6.3f}, 95 % interval {low:6.3f} to {high:6.3f}")
    text = "the LSTM's interval begins at {}, above 0: the planted quarter is found"
    expect("found", text, low, above=0)


# 5. A real price


def show_verdict(cfg: Config, prices: Series) -> tuple[dict, dict]:
    print(f"\n[5] {prices.name}, {len(prices.times) - prices.first_test} days, looked at once")
    # returns[t] leads from price t to price t + 1, so its forecast is made at price t.
    whole = prices.test()
    first = prices.first_test - 1
    returns = log_returns(whole)
    made = forecasts(cfg, returns, first)
    returns = returns[first:]
    today = whole[first:-1]
    tomorrow = whole[first + 1 :]

    rows = {}
    print("             R² of prices   R² of returns against naive, 95 % interval; single days")
    for name, predicted in made.items():
        share, low, high = improvement(returns, predicted, cfg)
        price = today * np.exp(predicted)
        rows[name] = {"improvement": share, "low": low, "high": high, "price": price}
        rows[name]["r2"] = r_squared(tomorrow, price, tomorrow.mean())
        _, low_1, high_1 = improvement(returns, predicted, cfg, block=1)
        text = f"{rows[name]['r2']:.5f} {share:14.4f}   {low:7.4f} to {high:6.4f}"
        print(f"    {name:<9}{text};   {low_1:7.4f} to {high_1:6.4f}")

    lstm = rows["LSTM"]
    of_yesterday = r_squared(today, lstm["price"], today.mean())
    if cfg.csv is None:
        # Learned on Google's price; another one has another answer.
        to_tomorrow = np.linalg.norm(tomorrow - lstm["price"])
        nearer = to_tomorrow / np.linalg.norm(today - lstm["price"])
        text = (
            "the LSTM's prices are {} times nearer to the day before than to the day they forecast"
        )
        expect("lag", text, nearer, at_least=3)
        text = "the interval of the LSTM begins at {}: it is not shown to be better than naive"
        expect("honest", text, lstm["low"], at_most=0)

    cost = cfg.cost / 10_000
    positions = {"holding": np.ones(len(returns))}
    positions |= {name: np.sign(made[name]) for name in ("AR(1)", "LSTM")}
    gains = {name: trade(each, returns, cost) for name, each in positions.items()}
    print(
        f"  traded at {cfg.cost:g} basis points   a year   Sharpe ratio   drawdown   long   changes"
    )
    changes = {name: np.count_nonzero(np.diff(each)) for name, each in positions.items()}
    for name, daily in gains.items():
        row = performance(daily)
        text = f"{row['yearly']:21.1%}{row['sharpe']:15.2f}{row['drawdown']:11.0%}"
        print(f"    {name:<10}{text}{(positions[name] > 0).mean():7.0%}{changes[name]:10}")
    numbers = say(cfg, rows, gains)
    numbers |= {
        "naive_r2": rows["naive"]["r2"],
        "lstm_r2": lstm["r2"],
        "of_yesterday": of_yesterday,
        "long": float((positions["LSTM"] > 0).mean()),
        "changes": changes["LSTM"],
    }
    save_table(cfg, prices, rows)
    return numbers, {"rows": rows, "gains": gains, "tomorrow": tomorrow}


# Pictures and helpers: skip on a first reading


def say(cfg: Config, rows: dict, gains: dict) -> dict[str, float]:
    """Print the verdict with its confidence intervals."""
    row = rows["LSTM"]
    share, low, high = row["improvement"], row["low"], row["high"]
    print(f"  VERDICT  The LSTM is {verdict(low, high)}:")
    print(f"  R² against it {share:.4f}, with 95 % confidence {low:.4f} to {high:.4f}.")
    more = DAYS * 100 * (gains["LSTM"] - gains["holding"])
    least, most = interval(more, cfg)
    text = f"{more.mean():+.0f} % a year against holding, {least:+.0f} to {most:+.0f} %"
    print(f"  Traded, it gains {text}.")
    found = {"improvement": share, "low": low, "high": high}
    return found | {"against_holding": more.mean(), "least": least, "most": most}


def save_table(cfg: Config, prices: Series, rows: dict) -> None:
    lines = ["date,naive,lstm"]
    days = prices.times[prices.first_test :]
    for day, naive, lstm in zip(days, rows["naive"]["price"], rows["LSTM"]["price"]):
        lines.append(f"{day},{naive:.4f},{lstm:.4f}")
    write_text(cfg.out / "forecasts.csv", "\n".join([*lines, ""]))
    print(f"  all forecasts: {shown(cfg.out / 'forecasts.csv')}")


def interval(values: np.ndarray, cfg: Config, block: int = BLOCK) -> tuple[float, float]:
    """Where the mean of such a series lies with a confidence of 95 %."""
    means = bootstrap_means(values, block, cfg.draws, np.random.default_rng(cfg.seed))
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def autoregressive(weight: float, n: int, rng: np.random.Generator) -> np.ndarray:
    """Each value is weight times the one before it, plus standard normal noise. -> (n,)"""
    values = rng.normal(size=n)
    for t in range(1, n):
        values[t] += weight * values[t - 1]
    return values


def to_inputs(cfg: Config, x: np.ndarray, spread: float) -> Tensor:
    return torch.from_numpy(x[:, -cfg.length :] / spread).float()


def train(cfg: Config, inputs: Tensor, targets: Tensor, seed: int) -> lesson_6_9.LSTMForecaster:
    torch.manual_seed(1000 * cfg.seed + seed)
    model = lesson_6_9.LSTMForecaster(cfg.width)
    batches = Batches(inputs, targets, batch_size=64, shuffle=True, seed=seed)
    epochs = -(-cfg.steps // len(batches))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    fit(model, batches, optimizer, lesson_6_9.squared_error, epochs=epochs, quiet=True)
    return model.requires_grad_(False)


def draw_level(cfg: Config, walks: np.ndarray, found: dict) -> None:
    figure, (left, right) = new_figure(1, 2, size=(12, 4.4))
    days = np.arange(30)
    left.plot(days, found["tomorrow"][-30:], "o-", color=BLUE, markersize=4, label="price")
    price = found["rows"]["LSTM"]["price"][-30:]
    left.plot(days, price, "o-", color=ORANGE, markersize=4, label="forecast by the LSTM")
    r2 = found["rows"]["LSTM"]["r2"]
    left.set(xlabel="day", ylabel="price", title=f"R² {r2:.3f}: the price of the day before")
    left.legend(loc="lower left")

    right.hist(walks, bins=np.linspace(0.85, 1, 31), color=GREY)
    right.axvline(r2, color=ORANGE, label="the LSTM")
    right.set(xlabel="R² of the naive forecast", ylabel="random walks")
    right.set_title("Random walks score the same")
    right.legend(loc="upper left")
    save_figure(figure, cfg.out / "level")


def draw_verdict(cfg: Config, found: dict) -> None:
    figure, (left, right) = new_figure(1, 2, size=(12, 4.4))
    names = ["AR(1)", "LSTM"]
    for height, name in enumerate(names):
        row = found["rows"][name]
        left.plot([row["low"], row["high"]], [height, height], color=BLUE)
        left.plot(row["improvement"], height, "o", color=BLUE)
    left.axvline(0, color=GREY, linestyle="--")
    left.set_yticks(range(2), names)
    left.set(ylim=(-0.5, 1.5), xlabel="R² against the naive forecast")
    left.locator_params(axis="x", nbins=5)
    left.set_title("95 % intervals: none is above 0" if cfg.csv is None else "95 % intervals")

    for name, colour in (("holding", GREY), ("AR(1)", BLUE), ("LSTM", ORANGE)):
        right.plot(np.cumprod(1 + found["gains"][name]), color=colour, label=name)
    right.set(xlabel="day", ylabel="wealth", title="After costs: what 1 becomes")
    right.legend(loc="upper left")
    save_figure(figure, cfg.out / "verdict")


def run(cfg: Config) -> dict:
    prices = read_prices(cfg.csv, cfg.column) if cfg.csv else load_goog()
    walks = show_level(cfg, prices.history)
    show_interval(cfg)
    show_costs(cfg, prices.history)
    found_shares = show_power(cfg)
    show_planted(cfg)
    numbers, found = show_verdict(cfg, prices)
    draw_level(cfg, walks, found)
    draw_verdict(cfg, found)
    return numbers | found_shares


if __name__ == "__main__":
    main(run, Config, __doc__)
