"""6.9 Time series: beat the naive forecast first
时间序列：先胜过朴素预测

You will be able to answer
    1. How do windows keep the future out?      show_windows   random-split
    2. How do you measure without a unit?       show_naive     mase, drift
    3. How do you test as time goes by?         show_walk      same-fit, knows
    4. How can a convolution look back?         show_tcn       field, levels, tcn-fits
    5. Do networks beat what is cheap to fit?   show_networks  depends, luck, co2
Predict   random_split: with windows split at random, how many times smaller does an error look?
Run       python phase06_rnn/09-time-series.py                                    about 15 s
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
from common.figures import BLUE, GREEN, GREY, ORANGE, new_figure, save_figure
from common.lessons import load_lesson
from common.training import fit

LSTM = load_lesson("phase06_rnn/04-lstm").LSTM

Forecast = Callable[[np.ndarray], np.ndarray]  # windows (B, T) -> a number for each (B,)
CYCLE, YEAR = 11, 52  # the season of sunspots in years, of CO₂ in weeks
TAPS, LEVELS, LENGTH = 3, 5, 63  # a TCN of five levels sees 63 steps
CHEAP = ("naive", "seasonal", "drift", "AR9")  # fitted in a millisecond


@dataclass
class Config(LessonConfig):
    threads = 1
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
    x, y = windows(co2, length=YEAR, horizon=YEAR)
    order = np.arange(len(x))
    cut = 3 * len(x) // 4
    shuffled = cfg.rng().permutation(order)
    at_random = nearest_errors(x, y, shuffled[:cut], shuffled[cut:]).mean()

    # In use a window is known once its target is: not those that ended within the last year.
    weekly = []
    for new in order[cut:]:
        known_in_time = order[: new - YEAR + 1]
        weekly.append(nearest_errors(x, y, known_in_time, [new]))
    print(f"  ppm: {at_random:.2f} at random, {np.mean(weekly):.2f} as time goes by")
    ratio = float(np.mean(weekly) / at_random)
    text = "split at random, the error looks {} times smaller than walking forward week by week"
    check("random-split", text, ratio, at_least=3)
    return ratio


def fit_naive(horizon: int, season: int, drift: bool, known: np.ndarray) -> Forecast:
    """Go back from the target by whole seasons until a value of the window is reached: that value.

    With a season of 1 it is the window's last. With drift the mean rise from there to the target is
    added, taken from `known`.
    """
    # practice: The naive forecast
    ahead = math.ceil(horizon / season) * season  # whole seasons from that value to the target
    place = ahead - horizon + 1  # counted from the end of the window
    x, y = windows(known, place, horizon)
    rise = (y - x[:, 0]).mean() if drift else 0.0
    return lambda x: x[:, -place] + rise
    # end practice


def mase(error: np.ndarray, history: np.ndarray, horizon: int, season: int) -> float:
    """Mean absolute error, divided by that of the seasonal naive forecast on the history."""
    x, y = windows(history, season, horizon)
    in_training = y - fit_naive(horizon, season, False, history)(x)
    return np.abs(error).mean() / np.abs(in_training).mean()


def show_naive() -> None:
    print("\n[2] An error in units of what the last season would have given")
    history = np.array([0.0, 4, 10, 3, 8, 7, 11])  # rises over a season of 3: 3, 4, -3, 8
    found = mase(np.array([3.0, -2]), history, horizon=2, season=3)
    check_close("mase", "errors 3, -2, where naive ones were 4, -3, 8: MASE 2.5/5", found, 0.5)

    forecast = fit_naive(2, 3, True, history)
    found = forecast(np.array([[6.0, 1, 7, 9], [2, 8, 5, 4]]))
    text = "two ahead: the last value but one, 7 or 5, and a mean rise of (3 + 4 - 3 + 8)/4"
    check_close("drift", text, found, [10, 8])


def fit_ar(order: int, horizon: int, known: np.ndarray) -> Forecast:
    """Autoregression by least squares: value ≈ c + a weight for each of `order` lags, oldest first.

    The newest of them stands `horizon` steps before the value.
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
        """h + relu(layer(h)) for each layer; the first h has one channel, which is added to all."""
        # practice: Look back only
        h = x[:, None]  # (B, 1, T)
        for layer in self.layers:
            # The taps stand `dilation` steps apart, the last one on the step itself.
            past = (TAPS - 1) * layer.dilation[0]
            h = h + torch.relu(layer(F.pad(h, (past, 0))))  # (B, C, T)
        return self.head(h[:, :, -1])[:, 0]
        # end practice


def show_tcn(cfg: Config) -> None:
    print("\n[4] Taps 1, 2, 4, 8, 16 steps apart: each level doubles what is seen")
    model = TCN(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1)
    x = torch.rand(1, 100, requires_grad=True)
    gradient = torch.autograd.grad(model(x).sum(), x)[0][0]
    seen = 100 - torch.nonzero(gradient)[0].item()
    text = "the gradient of a forecast reaches back {} steps: 1 + 2 · (1 + 2 + 4 + 8 + 16)"
    check("field", text, seen, at_least=LENGTH, at_most=LENGTH)

    found = model(torch.tensor([[1.0], [-1.0]]).expand(2, LENGTH))
    text = "weights 1, two channels: 1 becomes 5, then 7h + 1 four times; at -1 the ReLU adds 0"
    check_close("levels", text, found, [24810, -2])

    batch = (torch.randn(8, LENGTH), torch.randn(8))
    model = TCN(cfg.width)
    adam = torch.optim.Adam(model.parameters(), lr=0.02)
    text = "8 windows of noise are learned by heart: the error falls to {}"
    overfits("tcn-fits", text, model, batch, squared_error, adam)


class LSTMForecaster(nn.Module):
    """The LSTM of 6.4; its last output makes the forecast. (B, T) -> (B,)"""

    def __init__(self, width: int):
        super().__init__()
        self.lstm = LSTM(1, width)
        self.head = nn.Linear(width, 1, bias=False)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        outputs, _ = self.lstm(x[:, :, None])  # (B, T, H)
        return self.head(outputs[:, -1])[:, 0]


def from_last(x: np.ndarray, spread: float) -> Tensor:
    """Windows measured from their last value look alike at any level: a series may rise."""
    return torch.from_numpy((x - x[:, -1:]) / spread).float()


def fit_network(cfg: Config, network: type, horizon: int, known: np.ndarray) -> Forecast:
    """Train a network on how a series changes from the last value of a window to its target."""
    x, y = windows(known, LENGTH, horizon)
    change = y - x[:, -1]
    spread = change.std()  # of the known values, like everything that scales
    targets = torch.from_numpy(change / spread).float()
    inputs = from_last(x, spread)
    batches = Batches(inputs, targets, batch_size=cfg.batch_size, shuffle=True, seed=cfg.seed)
    torch.manual_seed(cfg.seed)
    model = network(cfg.width)
    epochs = math.ceil(cfg.steps / len(batches))
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1)
    # The rate rises to 0.01, then falls to nothing.
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, epochs * len(batches))
    fit(model, batches, optimizer, squared_error, epochs=epochs, scheduler=cycle, quiet=True)
    model.requires_grad_(False)
    return lambda x: x[:, -1] + spread * model(from_last(x, spread)).double().numpy()


def show_networks(cfg: Config, sunspots: Series, co2: Series) -> tuple[dict, dict]:
    print("\n[5] MASE on years later than all that a model was fitted on")
    years, solar = compare(cfg, sunspots, horizon=1, season=CYCLE)
    weeks, gas = compare(cfg, co2, horizon=YEAR, season=YEAR)
    middle = np.median(sunspots.history)
    text = "the TCN tells years above the median from those below in a share of {}"
    depends_on_input("depends", text, solar["TCN"] > middle, solar["true"] > middle)

    in_errors = years["lead"] / years["lead_error"]
    text = "sunspots, TCN against AR(9): a lead of {} standard errors; two, either way, may be luck"
    expect("luck", text, in_errors, at_least=-2, at_most=2)
    in_errors = weeks["lead"] / weeks["lead_error"]
    # By Student's t: from 11 years a standard error is itself known but roughly, hence not 2.
    text = "CO₂, TCN against the best cheap one: a lead of {} standard errors; 2.2 may be luck"
    expect("co2", text, in_errors, at_least=-2.2, at_most=2.2)
    scores = {f"sunspots_{name}": value for name, value in years.items()}
    scores |= {f"co2_{name}": value for name, value in weeks.items()}
    return scores, {"sunspots": solar, "co2": gas}


# Pictures and helpers: skip on a first reading


def nearest_errors(x: np.ndarray, y: np.ndarray, known: list, new: list) -> np.ndarray:
    """Forecast each new window by what followed the most similar known one: absolute errors."""
    nearest = KNeighborsRegressor(1).fit(x[known], y[known])
    return np.abs(nearest.predict(x[new]) - y[new])


def compare(cfg: Config, series: Series, horizon: int, season: int) -> tuple:
    """Every method's MASE on the test part, its forecasts (n,). horizon: one year."""
    whole = series.test()
    made = {"true": whole[series.first_test :]}
    scores = {}
    print(f"  {series.name}, {horizon} ahead")
    for name, fit_model in methods(cfg, horizon, season).items():
        # What is cheap is fitted anew every season, as in use; a network once.
        step = season if name in CHEAP else len(whole)
        made[name] = walk_forward(whole, series.first_test, step, horizon, fit_model)
        scores[name] = mase(made[name] - made["true"], series.history, horizon, season)
        print(f"    {name:<12}{scores[name]:.2f}")

    # Is the TCN ahead of the best of what is cheap?
    rival = min(CHEAP, key=scores.get)
    lead = np.abs(made[rival] - made["true"]) - np.abs(made["TCN"] - made["true"])
    lead = lead * mase(np.ones(1), series.history, horizon, season)

    # Weeks of one year are alike: what counts is how the means of whole years vary.
    by_year = lead[: len(lead) // horizon * horizon].reshape(-1, horizon).mean(axis=1)
    scores["lead"] = by_year.mean()
    scores["lead_error"] = by_year.std(ddof=1) / len(by_year) ** 0.5
    print(f"    TCN ahead of {rival} by {scores['lead']:.3f} ± {scores['lead_error']:.3f}")
    return scores, made


def squared_error(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.mse_loss(model(batch[0]), batch[1])


def methods(cfg: Config, horizon: int, season: int) -> dict[str, Callable]:
    """Everything that is fitted to known values and gives a Forecast."""
    return {
        "naive": partial(fit_naive, horizon, 1, False),
        "seasonal": partial(fit_naive, horizon, season, False),
        "drift": partial(fit_naive, horizon, season, True),
        "AR9": partial(fit_ar, 9, horizon),
        "LSTM": partial(fit_network, cfg, LSTMForecaster, horizon),
        "TCN": partial(fit_network, cfg, TCN, horizon),
    }


def draw_forecasts(cfg: Config, sunspots: Series, co2: Series, made: dict) -> None:
    figure, axes = new_figure(1, 2, size=(13, 4.6))
    lines = {"naive": (":", GREY), "true": ("-", BLUE), "TCN": ("-", ORANGE)}
    for axis, series, count, cheap in zip(axes, (sunspots, co2), (45, 180), ("AR9", "drift")):
        for name, (line, colour) in (lines | {cheap: ("--", GREEN)}).items():
            values = made[series.name][name][-count:]
            axis.plot(series.times[-count:], values, line, color=colour, label=name)
        axis.legend(loc="upper left", ncols=4)
    axes[0].set(ylabel="sunspots", ylim=(0, 210), title="A year ahead: AR(9) and TCN are in time")
    years = np.arange("1999", "2003", dtype="datetime64[Y]")
    axes[1].set(xticks=years, xticklabels=years.astype(str), ylim=(359, 377))
    axes[1].set(ylabel="ppm", title="52 weeks ahead: drift and TCN know the rise")
    save_figure(figure, cfg.out / "forecasts")


def run(cfg: Config) -> dict:
    sunspots = load_sunspots()
    co2 = load_co2()
    ratio = show_windows(cfg, co2.history)
    show_naive()
    show_walk(cfg, sunspots.history)
    show_tcn(cfg)
    scores, made = show_networks(cfg, sunspots, co2)
    draw_forecasts(cfg, sunspots, co2, made)
    return {"random_split": ratio} | scores


if __name__ == "__main__":
    main(run, Config, __doc__)
