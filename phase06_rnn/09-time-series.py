"""6.9 Time series: beat the naive forecast first
时间序列：先胜过朴素预测

You will be able to answer
    1. How do windows keep the future out?  show_windows  by-hand, random-split
    2. What is a forecast for free worth?   show_naive    seasons, mase
    3. How do you test as time goes by?     show_walk     same-fit, knows, past-only, leak-caught
    4. How can a convolution look back?     show_tcn      ones, field
    5. Do networks beat it?  show_networks  lstm-fits, tcn-fits, start, depends, lstm, tcn, co2
Predict   random_split: with windows split at random, how many times smaller does an error look?
Run       python phase06_rnn/09-time-series.py                             about half a minute
Needs     phase06_rnn/04-lstm
Reference AutoReg
Notation  n values  B windows  T values of a window  C channels
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.neighbors import KNeighborsRegressor
from torch import Tensor, nn

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.data.batches import Batches
from common.data.series import Series, load_co2, load_sunspots
from common.figures import BLUE, GREY, ORANGE, new_figure, save_figure
from common.lessons import load_lesson
from common.training import fit

LSTM = load_lesson("phase06_rnn/04-lstm").LSTM

Forecast = Callable[[np.ndarray], np.ndarray]  # windows (B, T) -> a number for each (B,)
CYCLE, YEAR = 11, 52  # the season of sunspots in years, of CO₂ in weeks
TAPS, LEVELS, LENGTH = 3, 5, 63  # a TCN of five levels sees 63 steps


@dataclass
class Config(LessonConfig):
    threads = 1
    seeds: int = param(3, "how often each network is trained; the mean counts", tiny=1)
    width: int = param(16, "hidden units, and channels of a convolution", tiny=8)
    steps: int = param(150, "training steps of a network", tiny=10)
    batch_size: int = param(32, "windows in one step", tiny=256)


def windows(values: np.ndarray, length: int, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """All windows of a series (n,), and the target of each. -> x (B, length), y (B,)

    x[i] holds the `length` values from number i on; y[i] stands `horizon` after the last of them.
    """
    # practice: Windows and their targets
    first_target = length - 1 + horizon
    y = values[first_target:]

    # One row for each target, shifted by one against the row above.
    places = np.arange(len(y))[:, None] + np.arange(length)  # (B, length)
    return values[places], y
    # end practice


def show_windows(cfg: Config, co2: np.ndarray) -> float:
    print("\n[1] A window ends before its target. Split windows at random, and the target leaks")
    x, y = windows(np.array([10.0, 11, 12, 13, 14, 15]), length=3, horizon=2)
    text = "six values, windows of three, two steps ahead: both windows are those found on paper"
    check_close("by-hand", text, np.column_stack([x, y]), [[10, 11, 12, 14], [11, 12, 13, 15.0]])

    # CO₂ a year ahead: what followed the most similar window of those that are known.
    x, y = windows(co2, length=YEAR, horizon=YEAR)
    cut = 3 * len(x) // 4
    order = np.arange(len(x))
    shuffled = cfg.rng().permutation(order)
    errors = []
    # In use a window is known once its target is: no later than the first new window ends.
    for known, new in ((shuffled[:cut], shuffled[cut:]), (order[: cut - YEAR + 1], order[cut:])):
        nearest = KNeighborsRegressor(1).fit(x[known], y[known])
        errors.append(np.abs(nearest.predict(x[new]) - y[new]).mean())
    print(f"  mean error: {errors[0]:.2f} ppm split at random, {errors[1]:.2f} in order of time")
    ratio = float(errors[1] / errors[0])
    text = "split at random, windows overlap, and the error looks {} times smaller than it is"
    check("random-split", text, ratio, at_least=10)
    return ratio


def fit_naive(horizon: int, season: int, drift: bool, known: np.ndarray) -> Forecast:
    """The last value of the target's season that a window holds. A season of 1: its last value.

    With drift, plus the mean of what the targets in `known` exceed that by.
    """
    # practice: The naive forecast
    ahead = math.ceil(horizon / season) * season  # whole seasons from that value to the target
    place = ahead - horizon + 1  # counted from the end of the window
    x, y = windows(known, place, horizon)
    rise = (y - x[:, 0]).mean() if drift else 0.0
    return lambda x: x[:, -place] + rise
    # end practice


def mase(error: np.ndarray, history: np.ndarray, horizon: int, season: int) -> float:
    """Mean absolute error, over that of the seasonal naive forecast for windows of one season."""
    # practice: An error without a unit
    x, y = windows(history, season, horizon)
    in_training = y - fit_naive(horizon, season, False, history)(x)
    return np.abs(error).mean() / np.abs(in_training).mean()
    # end practice


def show_naive() -> None:
    print("\n[2] The last value, the last season: free, and hard to beat")
    values = np.arange(16.0) ** 2
    pairs = [(1, 1, False), (2, 1, False), (3, 4, False), (5, 4, True)]
    # The window is the whole series: a target `horizon` steps ahead is number 15 + horizon.
    found = [fit_naive(*pair, values)(values[None])[0] for pair in pairs]
    text = "1, 2 ahead with a season of 1; 3, 5 with one of 4: numbers 15, 15, 14; 12 and the drift"
    check_close("seasons", text, found, [225, 225, 196, 144 + 120.0])
    found = mase(np.array([3.0, -1]), np.array([0.0, 2, 8, 1, 5]), horizon=1, season=2)
    check_close("mase", "errors 3, -1, where naive ones were 8, -1, -3: MASE 2/4", found, 0.5)


def fit_ar(order: int, horizon: int, known: np.ndarray) -> Forecast:
    """Autoregression by least squares: value ≈ c + a₁ · newest + a₂ · the one before + …

    `order` lags, the newest of them `horizon` steps before the value.
    """
    # practice: Autoregression
    x, y = windows(known, order, horizon)
    design = np.column_stack([np.ones(len(x)), x])
    weights, *_ = np.linalg.lstsq(design, y)  # (order + 1,)
    return lambda x: weights[0] + x[:, -order:] @ weights[1:]
    # end practice


def walk_forward(
    values: np.ndarray, first: int, block: int, horizon: int, fit_model: Callable
) -> np.ndarray:
    """Forecasts of values[first:] from windows of LENGTH, made as time goes by. -> (n - first,)

    Targets come in blocks of `block`. Before each, fit_model(known) gives a Forecast from all that
    is known when the block's first forecast is made: `horizon` steps before its first target.
    """
    # practice: Walk forward
    predicted = []
    for start in range(first, len(values), block):
        now = start - horizon
        forecast = fit_model(values[: now + 1])
        x, _ = windows(values[now + 1 - LENGTH : start + block], LENGTH, horizon)
        predicted.append(forecast(x))
    return np.concatenate(predicted)
    # end practice


def show_walk(cfg: Config, sunspots: np.ndarray) -> None:
    print("\n[3] Fit on the past, forecast a block, move on")
    from statsmodels.tsa.ar_model import AutoReg

    ours = fit_ar(9, 1, sunspots)(windows(sunspots, 12, horizon=1)[0])
    wanted = AutoReg(sunspots, 9).fit().fittedvalues[3:]
    check_close("same-fit", "AR(9) gives the forecasts of statsmodels", ours, wanted)
    found = walk_forward(sunspots[:70], 65, 3, 2, lambda k: lambda x: np.full(len(x), len(k)))
    text = "of 70 values the last five, two ahead, in blocks of three: 64 are known, then 67"
    check_close("knows", text, found, [64, 64, 64, 67, 67])

    def three_ahead(values: np.ndarray) -> np.ndarray:
        return walk_forward(values, len(values) - 60, 21, 3, partial(fit_ar, 2, 3))

    changed = sunspots.copy()
    changed[-20:] += 1000
    first = (three_ahead(changed) != three_ahead(sunspots)).argmax()
    text = "60 forecasts three ahead; targets 40 and later change, the first to move is number {}"
    check("past-only", text, first, at_least=43, at_most=43)
    # The same test must notice a leak, or it proves nothing.
    smooth = partial(np.convolve, [1 / 3, 1 / 3, 1 / 3], mode="same")
    first = (three_ahead(smooth(changed)) != three_ahead(smooth(sunspots))).argmax()
    text = "if each value is first replaced by a mean with both its neighbours, it is number {}"
    check("leak-caught", text, first, at_least=42, at_most=42)


class TCN(nn.Module):
    """Temporal convolutional network, after Bai et al. (2018). (B, T) -> (B,)"""

    def __init__(self, width: int):
        super().__init__()
        inputs = [1] + [width] * (LEVELS - 1)
        self.layers = nn.ModuleList(
            nn.Conv1d(channels, width, TAPS, dilation=2**level)
            for level, channels in enumerate(inputs)
        )
        self.head = nn.Linear(width, 1, bias=False)
        nn.init.zeros_(self.head.weight)  # an untrained network says 0

    def forward(self, x: Tensor) -> Tensor:
        """h + relu(layer(h)) for each layer, with zeros before h; the last step forecasts."""
        # practice: Look back only
        h = x[:, None]  # (B, 1, T)
        for layer in self.layers:
            # The taps stand `dilation` steps apart, the last one on the step itself.
            past = (TAPS - 1) * layer.dilation[0]
            h = h + torch.relu(layer(F.pad(h, (past, 0))))  # (B, C, T)
        return self.head(h[:, :, -1])[:, 0]
        # end practice


def show_tcn() -> None:
    print("\n[4] Taps 1, 2, 4, 8, 16 steps apart: each level doubles what is seen")
    model = TCN(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1)
    text = "all weights and biases 1: a level makes 4h + 1 of 1s, five 1365, and -1s stay -1"
    inputs = torch.tensor([[1.0], [-1.0]]).expand(2, LENGTH)
    check_close("ones", text, model(inputs), [1365.0, -1.0])
    x = torch.rand(1, 100, requires_grad=True)
    gradient = torch.autograd.grad(model(x).sum(), x)[0][0]
    seen = 100 - torch.nonzero(gradient)[0].item()
    text = "the gradient of a forecast reaches back {} steps: 1 + 2 · (1 + 2 + 4 + 8 + 16)"
    check("field", text, seen, at_least=LENGTH, at_most=LENGTH)


class LSTMForecaster(nn.Module):
    """The LSTM of 6.4; its last output makes the forecast. (B, T) -> (B,)"""

    def __init__(self, width: int):
        super().__init__()
        self.lstm = LSTM(1, width)
        self.head = nn.Linear(width, 1, bias=False)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        outputs, _ = self.lstm(x[:, -32:, None])  # half a window: (B, 32, H)
        return self.head(outputs[:, -1])[:, 0]


def from_last(x: np.ndarray, spread: float) -> Tensor:
    """Windows measured from their last value look alike at any level: a series may rise."""
    return torch.from_numpy((x - x[:, -1:]) / spread).float()


def show_networks(cfg: Config, sunspots: Series, co2: Series) -> tuple[dict, dict]:
    print("\n[5] Networks beside what is free: MASE on years that nothing was fitted on")
    x, y = windows(sunspots.history, LENGTH, horizon=1)
    change = torch.from_numpy(y - x[:, -1]).float() / 20
    batch = (from_last(x, 20)[::20, -20:], change[::20])
    started = []
    for name, network in (("lstm", LSTMForecaster), ("tcn", TCN)):
        model = network(cfg.width)
        adam = torch.optim.Adam(model.parameters(), lr=0.02)
        text = f"the {name.upper()} learns 8 windows by heart: {{}}"
        losses = overfits(f"{name}-fits", text, model, batch, squared_error, adam, steps=80)
        started.append(losses[0])
    text = "untrained, both have the error of the last value"
    check_close("start", text, started, [batch[1].square().mean().item()] * 2)

    scores = {}
    made = {}
    for series, horizon, season, block in ((sunspots, 1, CYCLE, 45), (co2, YEAR, YEAR, 1000)):
        whole = series.test()
        true = whole[series.first_test :]
        made[f"{series.name}_true"] = true
        print(f"  {series.name}, {horizon} ahead")
        for name, fits in methods(cfg, horizon, season).items():
            runs = [walk_forward(whole, series.first_test, block, horizon, one) for one in fits]
            errors = [mase(run - true, series.history, horizon, season) for run in runs]
            made[f"{series.name}_{name}"] = runs[0]
            scores[f"{series.name}_{name}"] = float(np.mean(errors))
            print(f"    {name:<12}{np.mean(errors):.3f}")

    quarters = np.quantile(sunspots.history, [0.25, 0.5, 0.75])
    said, right = (np.digitize(made[f"sunspots_{name}"], quarters) for name in ("TCN", "true"))
    depends_on_input("depends", "the TCN names the right quarter in a share of {}", said, right)
    free = min(scores["sunspots_naive"], scores["sunspots_AR2"])
    for name in ("LSTM", "TCN"):
        text = f"sunspots: the {name}'s error is {{}} times the smaller of naive and AR(2)"
        expect(name.lower(), text, scores[f"sunspots_{name}"] / free, at_most=0.95)
    ratio = scores["co2_TCN"] / scores["co2_seasonal"]
    expect("co2", "CO₂ a year ahead: the TCN's is {} times the seasonal naive", ratio, at_most=0.6)
    return scores, made


# Pictures and helpers: skip on a first reading


def fit_network(cfg: Config, network: type, seed: int, horizon: int, known: np.ndarray) -> Forecast:
    """Train a network on how a series changes from the last value of a window to its target."""
    x, y = windows(known, LENGTH, horizon)
    change = y - x[:, -1]
    spread = change.std()  # of the known values, like everything that scales
    targets = torch.from_numpy(change / spread).float()
    inputs = from_last(x, spread)
    batches = Batches(inputs, targets, batch_size=cfg.batch_size, shuffle=True, seed=seed)
    # One cycle: the rate rises to 0.01, then falls to nothing.
    torch.manual_seed(seed)
    model = network(cfg.width)
    epochs = math.ceil(cfg.steps / len(batches))
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, epochs * len(batches))
    fit(model, batches, optimizer, squared_error, epochs=epochs, scheduler=cycle, quiet=True)
    model.requires_grad_(False)
    return lambda x: x[:, -1] + spread * model(from_last(x, spread)).double().numpy()


def squared_error(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.mse_loss(model(batch[0]), batch[1])


def methods(cfg: Config, horizon: int, season: int) -> dict[str, list[Callable]]:
    """Everything that is fitted to known values and gives a Forecast; networks for each seed."""
    seeds = range(100 * cfg.seed, 100 * cfg.seed + cfg.seeds)
    return {
        "naive": [partial(fit_naive, horizon, 1, False)],
        "seasonal": [partial(fit_naive, horizon, season, False)],
        "drift": [partial(fit_naive, horizon, season, True)],
        "AR2": [partial(fit_ar, 2, horizon)],
        "AR9": [partial(fit_ar, 9, horizon)],
        "LSTM": [partial(fit_network, cfg, LSTMForecaster, seed, horizon) for seed in seeds],
        "TCN": [partial(fit_network, cfg, TCN, seed, horizon) for seed in seeds],
    }


def draw_forecasts(cfg: Config, sunspots: Series, co2: Series, made: dict) -> None:
    figure, axes = new_figure(1, 2, size=(12, 4.4))
    axes[0].set(ylabel="sunspots", title="A year ahead: the TCN turns in time")
    for axis, series, count in ((axes[0], sunspots, 45), (axes[1], co2, 180)):
        for name, line, colour in (("naive", ":", GREY), ("true", "-", BLUE), ("TCN", "-", ORANGE)):
            values = made[f"{series.name}_{name}"][-count:]
            axis.plot(series.times[-count:], values, line, color=colour, label=name)
    years = np.arange("1999", "2003", dtype="datetime64[Y]")
    axes[1].set(ylabel="ppm", xticks=years, title="52 weeks ahead: it has learned the rise")
    axes[1].legend(loc="upper left")
    save_figure(figure, cfg.out / "forecasts")


def run(cfg: Config) -> dict:
    sunspots = load_sunspots()
    co2 = load_co2()
    ratio = show_windows(cfg, co2.history)
    show_naive()
    show_walk(cfg, sunspots.history)
    show_tcn()
    scores, made = show_networks(cfg, sunspots, co2)
    draw_forecasts(cfg, sunspots, co2, made)
    return {"random_split": ratio} | scores


if __name__ == "__main__":
    main(run, Config, __doc__)
