"""Project 4 House prices: regression from raw table to residuals
房价预测：从原始表格到残差图的回归

You will be able to answer
    1. How does a table become numbers?  show_features   apart, by-hand, same
    2. Why learn logarithms of prices?   show_target     measures, median, mean
    3. How good?  show_results  overfits, input-matters, goal, own-error, rivals, map
    4. What is left over?  show_residuals  rank, missed, leftover, sums, coverage
    5. Does it price a file of houses?   show_file       saved, flagged
Predict   within_10: for what share of unseen houses is the price off by 10 % at most?
Run       python phase04_mlp/project-house-prices.py      about 75 s
          … --data california         20,640 districts of the census of 1990
          … --predict FILE.csv        prices for your own rows, with the trained model
Needs     -
Reference StandardScaler, OneHotEncoder, SimpleImputer
Notation  n houses  d prepared columns  k centres on the map
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common import checkpoint
from common.checks import check, check_close, depends_on_input, expect, no_leak, overfits
from common.config import LessonConfig, main, param
from common.data.batches import Batches
from common.data.houses import COLUMNS, NOISE, Columns, HouseSplit, load_houses, read_houses
from common.errors import LessonError
from common.figures import BLUE, GREY, ORANGE, new_figure, save_figure
from common.files import write_text
from common.lessons import shown
from common.training import fit

ALPHAS = (1.0, 10.0, 100.0)  # strengths of ridge, chosen on validation
METHODS = ("ridge", "boosting", "network")


@dataclass
class Config(LessonConfig):
    threads = 1
    data: str = param("generated", "data set", choices=("generated", "california"))
    splits: int = param(3, "how many random splits to train on; the mean counts", tiny=1)
    epochs: int = param(40, "passes over the training houses", tiny=10)
    width: int = param(128, "units of each hidden layer", tiny=32)
    centres: int = param(60, "radial basis functions of each width on the map", tiny=10)
    batch_size: int = param(256, "houses in one step", tiny=32)
    lr: float = param(3e-3, "highest learning rate of the one-cycle schedule")
    decay: float = param(0.3, "weight decay of AdamW")
    boosting: int = param(300, "trees of the gradient boosting beside it", tiny=10)
    predict: Path | None = param(None, "price the rows of this CSV with the trained model")


# 1. From a raw table to numbers
def to_numbers(frame: pd.DataFrame, columns: Columns) -> pd.DataFrame:
    """Logarithms of what is skewed, the rest as it is, ratios; an empty cell is NaN. (n, …)"""
    logs = np.log(frame[list(columns.logs)]).add_prefix("log ")
    parts = [logs, frame[list(columns.plain)]]
    for over, under in columns.ratios:
        ratio = logs[f"log {over}"] - logs[f"log {under}"]
        parts.append(ratio.rename(f"log {over} per {under}"))
    return pd.concat(parts, axis=1)


def encode(frame: pd.DataFrame, columns: Columns, learned: dict) -> np.ndarray:
    """One row of numbers for each house, not yet scaled. -> (n, d)

    Side by side: the columns of to_numbers, where learned["medians"] (one a column, in that order)
    fills the empty cells; for each column number in learned["missing"] 1 where its cell was empty,
    else 0; for each of learned["categories"] 1 where columns.category holds it, else 0; and for
    each width of columns.widths k radial basis functions (RBF), exp(-distance² / (2 width²)), the
    distance being that of columns.place to each of learned["centres"] (k, 2).
    """
    # practice: one row of numbers for each house
    numbers = to_numbers(frame, columns).to_numpy()
    empty = np.isnan(numbers)
    filled = np.where(empty, learned["medians"], numbers)
    missing = empty[:, learned["missing"]]

    category = frame[columns.category].to_numpy()
    one_hot = category[:, None] == np.array(learned["categories"])  # (n, categories)

    place = frame[list(columns.place)].to_numpy()
    centres = np.array(learned["centres"]).reshape(-1, 2)
    squared = ((place[:, None] - centres) ** 2).sum(axis=2)  # (n, k)
    rbf = [np.exp(-squared / (2 * width**2)) for width in columns.widths]
    return np.concatenate([filled, missing, one_hot, *rbf], axis=1)
    # end practice


def learn(train: pd.DataFrame, columns: Columns, centres: int, rng: np.random.Generator) -> dict:
    """All that preparing a house takes, learned from the training houses alone.

    medians: of each column of to_numbers, without its empty cells. missing: the numbers of the
    columns that have empty cells. categories: sorted. centres: the places of so many different
    training houses, drawn with rng. mean, std: of each column that encode makes of the training
    houses; a std of 0 is stored as 1. log_mean, log_std: of the logarithm of the price. low, high:
    the lowest and the highest price. All are numbers or lists, so that a file can hold them.
    """
    # practice: learned from the training houses alone
    numbers = to_numbers(train, columns)
    places = train[list(columns.place)].to_numpy()
    chosen = rng.choice(len(train), size=centres, replace=False)
    learned = {
        "medians": numbers.median().tolist(),
        "missing": np.flatnonzero(numbers.isna().any()).tolist(),
        "categories": sorted(train[columns.category].unique()),
        "centres": places[chosen].tolist(),
    }

    x = encode(train, columns, learned)
    std = x.std(axis=0)
    learned["mean"] = x.mean(axis=0).tolist()
    learned["std"] = np.where(std == 0, 1, std).tolist()

    price = train[columns.price]
    logs = np.log(price)
    learned |= {"log_mean": float(logs.mean()), "log_std": float(logs.std(ddof=0))}
    learned |= {"low": float(price.min()), "high": float(price.max())}
    return learned
    # end practice


def prepare(frame: pd.DataFrame, columns: Columns, learned: dict) -> Tensor:
    """What the models take: encoded and scaled as the training houses were. -> (n, d) float32"""
    scaled = (encode(frame, columns, learned) - learned["mean"]) / learned["std"]
    return torch.from_numpy(scaled.astype(np.float32))


def show_features(cfg: Config, data: HouseSplit) -> None:
    print("\n[1] A table has missing values, categories, skewed numbers and places")
    no_leak("apart", "no house stands in two parts", *data.fingerprints())
    columns = data.columns
    learned = learn(data.train, columns, cfg.centres, cfg.rng())
    house = data.train.head(1)
    row = encode(house, columns, learned)[0]
    names = list(to_numbers(house, columns))
    names += [f"{names[number]} missing" for number in learned["missing"]]
    names += learned["categories"]
    print("  the first house: " + ", ".join(str(cell) for cell in house.iloc[0]))
    print(f"  becomes {len(row)} numbers:")
    print(pd.Series(row[: len(names)], names).round(2).to_string())
    print(f"  and {len(row) - len(names)} radial basis functions, how near it is to each centre")

    # Two centres: one narrow width to the north of this house, and the house itself.
    narrow, wide = columns.widths
    place = house[list(columns.place)].to_numpy()
    centres = np.concatenate([place + np.array([0, narrow]), place])
    near = encode(house, columns, learned | {"centres": centres.tolist()})[0, -4:]
    by_hand = [np.exp(-1 / 2), 1, np.exp(-((narrow / wide) ** 2) / 2), 1]
    text = f"{narrow:g} away: exp(-1/2) for the width {narrow:g}, more for {wide:g}; 1 at a centre"
    check_close("by-hand", text, near, by_hand)
    show_parity(data, learned)


def show_parity(data: HouseSplit, learned: dict) -> None:
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    columns = data.columns
    numbers = [to_numbers(part, columns) for part in (data.train, data.val)]
    kinds = [part[[columns.category]] for part in (data.train, data.val)]
    fill = SimpleImputer(strategy="median", add_indicator=True).fit(numbers[0])
    one_hot = OneHotEncoder(sparse_output=False, handle_unknown="ignore").fit(kinds[0])
    both = [np.hstack([fill.transform(n), one_hot.transform(k)]) for n, k in zip(numbers, kinds)]
    wanted = StandardScaler().fit(both[0]).transform(both[1])
    ours = prepare(data.val, columns, learned)[:, : wanted.shape[1]]
    text = "missing values, categories, scales are scikit-learn's, fitted on the training houses"
    check_close("same", text, ours, wanted.astype(np.float32), atol=1e-4)


# 2. The target
def scores(price: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """How good predicted prices (n,) are.

    r2: 1 - (sum of squared errors) / (sum of squared distances of the price from its mean).
    rmse: the root of the mean squared error. mae: the mean absolute error. within_10: the share of
    houses whose predicted price is off by 10 % of the true price at most.
    """
    # practice: four measures of an error
    error = predicted - price
    squares = (error**2).sum()
    total = ((price - price.mean()) ** 2).sum()
    return {
        "r2": 1 - squares / total,
        "rmse": np.sqrt(squares / len(price)),
        "mae": np.abs(error).mean(),
        "within_10": (np.abs(error) <= 0.1 * price).mean(),
    }
    # end practice


def smearing(price: np.ndarray, logs: np.ndarray) -> float:
    """By what factor the mean price exceeds exp(predicted logarithm): Duan's estimate (1983).

    price, logs: (n,), of houses that the model was not trained on. The mean of exp(residual), the
    residual being the true logarithm minus the predicted one.
    """
    # practice: from the median to the mean
    residual = np.log(price) - logs
    return float(np.exp(residual).mean())
    # end practice


def show_target(cfg: Config) -> None:
    print("\n[2] Noise multiplies prices, so the logarithm is learned; exp then gives the median")
    ours = list(scores(np.array([20.0, 40, 60]), np.array([21.0, 38, 48])).values())
    by_hand = [1 - 149 / 800, (149 / 3) ** 0.5, 5, 2 / 3]
    check_close("measures", "three houses: all four are those found on paper", ours, by_hand)

    price = np.exp(cfg.rng().normal(12, 0.5, size=100_000))
    text = "noise of 0.5 in the logarithm: the mean price is {} times exp(mean logarithm)"
    check("median", text, price.mean() / np.exp(12), above=1.11, below=1.16)
    factor = smearing(price, np.full(len(price), 12.0))
    check_close("mean", "smearing finds this factor", factor, price.mean() / np.exp(12))


# 3. The network, and how good it is
def make_model(inputs: int, width: int) -> nn.Sequential:
    """Two hidden layers. (B, inputs) -> (B, 1): the standardised logarithm of the price."""
    return nn.Sequential(
        nn.Linear(inputs, width),
        nn.SiLU(),
        nn.Linear(width, width),
        nn.SiLU(),
        nn.Linear(width, 1),
    )


def squared_error(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    x, z = batch
    return F.mse_loss(model(x)[:, 0], z)


def to_batch(data: HouseSplit, learned: dict) -> tuple[Tensor, Tensor]:
    """All training houses: what the models take (n, d), and what they learn (n,)."""
    logs = np.log(data.prices(data.train))
    z = (logs - learned["log_mean"]) / learned["log_std"]
    return prepare(data.train, data.columns, learned), torch.from_numpy(z).float()


def train_network(cfg: Config, data: HouseSplit, learned: dict, seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    x, z = to_batch(data, learned)
    batches = Batches(x, z, batch_size=cfg.batch_size, shuffle=True, seed=seed, drop_last=True)

    # One cycle: the rate rises to cfg.lr over a fifth of all steps, then falls to nothing. A
    # network trained to such an end needs no early stopping.
    model = make_model(x.shape[1], cfg.width)
    optimizer = torch.optim.AdamW(model.parameters(), lr=cfg.lr, weight_decay=cfg.decay)
    steps = cfg.epochs * len(batches)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, cfg.lr, steps, pct_start=0.2)
    fit(model, batches, optimizer, squared_error, epochs=cfg.epochs, scheduler=schedule, quiet=True)
    return model


@dataclass
class Pricer:
    """A fitted model, and all that it takes to price the rows of a table."""

    columns: Columns
    learned: dict
    model: Callable[[Tensor], Tensor]  # prepared houses (n, d) -> standardised logarithms (n, 1)
    smear: float = 1.0  # from median prices to mean prices
    factor: float = 1.0  # of the interval that should hold nine in ten prices

    @torch.no_grad()
    def logs(self, frame: pd.DataFrame) -> np.ndarray:
        z = self.model(prepare(frame, self.columns, self.learned))[:, 0].double().numpy()
        logs = z * self.learned["log_std"] + self.learned["log_mean"]
        # Beyond the prices of training nothing was learned, and exp makes much of an error.
        return logs.clip(np.log(self.learned["low"]), np.log(self.learned["high"]))

    def unlike_training(self, frame: pd.DataFrame) -> np.ndarray:
        """Where nothing like a house was seen in training: its price is a guess. (n,)"""
        encoded = encode(frame, self.columns, self.learned)
        scaled = (encoded - self.learned["mean"]) / self.learned["std"]
        far_out = np.abs(scaled[:, : len(self.learned["medians"])]).max(axis=1) > 6
        new_category = ~frame[self.columns.category].isin(self.learned["categories"]).to_numpy()
        # The wide radial basis functions stand last; beyond 3.7 widths they are under 0.001.
        nowhere = encoded[:, -len(self.learned["centres"]) :].max(axis=1) < 1e-3
        return far_out | new_category | nowhere


def simpler_methods(cfg: Config, data: HouseSplit, learned: dict) -> dict[str, list[Callable]]:
    """What needs no network; of ridge several strengths, for validation to choose from."""
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import Ridge

    x, z = (part.numpy() for part in to_batch(data, learned))
    ridges = [Ridge(alpha).fit(x, z) for alpha in ALPHAS]
    # Boosting adds small trees, each fitted to the errors that the sum of those before leaves.
    boosting = HistGradientBoostingRegressor(max_iter=cfg.boosting, random_state=cfg.seed)
    boosting.fit(x, z)
    return {"ridge": [on_tensors(ridge) for ridge in ridges], "boosting": [on_tensors(boosting)]}


def choose(candidates: list[Pricer], data: HouseSplit) -> Pricer:
    """The candidate that prices the validation houses best, with its two factors."""
    price = data.prices(data.val)
    r2 = [scores(price, np.exp(pricer.logs(data.val)))["r2"] for pricer in candidates]
    best = candidates[int(np.argmax(r2))]
    logs = best.logs(data.val)
    best.smear = smearing(price, logs)
    best.factor = margin(price, logs, 0.9)
    return best


def fit_all(cfg: Config, data: HouseSplit, number: int) -> dict[str, Pricer]:
    """Three methods, each without the map and with it; settings chosen on validation."""
    seed = cfg.seed + number
    fitted = {}
    for features, centres in (("table", 0), ("map", cfg.centres)):
        learned = learn(data.train, data.columns, centres, np.random.default_rng(seed))
        methods = simpler_methods(cfg, data, learned)
        methods["network"] = [train_network(cfg, data, learned, seed)]
        for name, models in methods.items():
            candidates = [Pricer(data.columns, learned, model) for model in models]
            fitted[f"{name}_{features}"] = choose(candidates, data)
    return fitted


@dataclass
class Outcome:
    """One split, its fitted models, and what they say of its test houses."""

    data: HouseSplit
    fitted: dict[str, Pricer]
    test: pd.DataFrame
    price: np.ndarray
    logs: dict[str, np.ndarray]

    def residual(self, name: str) -> np.ndarray:
        return np.log(self.price) - self.logs[name]

    def scores(self, name: str) -> dict[str, float]:
        row = scores(self.price, np.exp(self.logs[name]))
        row["log_rmse"] = scores(np.log(self.price), self.logs[name])["rmse"]
        if self.data.noise is not None:
            noise = self.data.noise[self.test.index]
            row["noise"] = float(np.sqrt((noise**2).mean()))
            # What would be within 10 % if all but the noise were known.
            row["ceiling"] = scores(self.price, self.price / np.exp(noise))["within_10"]
        return row


def show_results(cfg: Config, splits: list[HouseSplit]) -> tuple[list[Outcome], dict]:
    print(f"\n[3] Six models on {cfg.splits} split(s); each test set is looked at once")
    learned = learn(splits[0].train, splits[0].columns, cfg.centres, cfg.rng())
    x, z = to_batch(splits[0], learned)
    torch.manual_seed(cfg.seed)
    model = make_model(x.shape[1], cfg.width)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    text = "on 32 fixed houses the squared error of the standardised logarithm falls to {}"
    overfits("overfits", text, model, (x[:32], z[:32]), squared_error, optimizer, steps=60)

    outcomes = []
    for number, data in enumerate(splits):
        fitted = fit_all(cfg, data, number)
        # The one look at the test houses.
        test = data.test()
        logs = {name: pricer.logs(test) for name, pricer in fitted.items()}
        outcomes.append(Outcome(data, fitted, test, data.prices(test), logs))

    mean = {}
    print("  on the test houses      R²   within 10 %   error in the logarithm")
    for name in outcomes[0].fitted:
        row = pd.DataFrame([outcome.scores(name) for outcome in outcomes]).mean()
        mean[name] = row
        numbers = f"{row['r2']:6.3f}{row['within_10']:10.3f}{row['log_rmse']:15.4f}"
        print(f"  {name.replace('_', ', '):<22}{numbers}")
    r2 = {name: float(row["r2"]) for name, row in mean.items()}
    first = outcomes[0]
    quarters = np.quantile(first.price, [0.25, 0.5, 0.75])
    said = np.digitize(np.exp(first.logs["network_map"]), quarters)
    text = "the network names the right quarter of the prices for a share of {}"
    depends_on_input("input-matters", text, said, np.digitize(first.price, quarters))

    network = mean["network_map"]
    numbers = r2 | {"r2": r2["network_map"], "within_10": float(network["within_10"])}
    gain = r2["network_map"] - r2["boosting_map"]
    text = "boosting too gets the map: the network's R² minus its is {}"
    if cfg.data == "generated":
        above = float(network["log_rmse"] / network["noise"])
        numbers |= {"above_noise": above, "model_error": 1 - 1 / above**2}
        numbers["ceiling"] = float(network["ceiling"])
        print(f"  who knew all but the noise would have {numbers['ceiling']:.3f} within 10 %")
        goal = f"the network's error is {{}} times the noise of {NOISE} that nobody can predict"
        expect("goal", goal, above, at_most=1.1)
        goal = "so {} of its mean squared error is not noise, and could be learned"
        expect("own-error", goal, numbers["model_error"], above=0.03, below=0.18)
        expect("rivals", text, gain, at_least=0.005)
    else:
        expect("goal", "the network's R² is {}", r2["network_map"], at_least=0.79)
        expect("rivals", text, gain, above=-0.04, below=0.0)
    gain = r2["network_map"] - r2["network_table"]
    expect("map", "the map adds {} to its R²", gain, at_least=0.01)
    return outcomes, numbers


# 4. What is left
def margin(price: np.ndarray, logs: np.ndarray, share: float) -> float:
    """The factor f for which the true price lies in predicted / f to predicted * f in that share.

    price, logs: (n,), of houses that the model was not trained on. exp of the residual, its sign
    left out, that has the rank ceil((n + 1) * share), counted from 1, smallest first: split
    conformal prediction. There must be so many: n is at least share / (1 - share).
    """
    # practice: how far off nine in ten prices are
    sizes = np.sort(np.abs(np.log(price) - logs))
    rank = int(np.ceil((len(sizes) + 1) * share))
    return float(np.exp(sizes[rank - 1]))
    # end practice


def show_residuals(cfg: Config, outcomes: list[Outcome]) -> dict[str, float]:
    print("\n[4] What the network leaves over: hardly more than noise")
    text = "of nine residuals, 2 1/0.9 1.25 and six of 1, the eighth smallest is 1.25"
    logs = np.log([1.8, 2.5, 2, 4, 2, 2, 2, 2, 2])
    check_close("rank", text, margin(np.full(9, 2.0), logs, 0.75), 1.25)

    rows = []
    for outcome in outcomes:
        residual = outcome.residual("network_map")
        factor = outcome.fitted["network_map"].factor
        row = {"factor": factor, "coverage": (np.abs(residual) <= np.log(factor)).mean()}
        row["left_over"] = explained(outcome, "network_map")
        row["left_by_ridge"] = explained(outcome, "ridge_table")
        row["left_by_ridge_map"] = explained(outcome, "ridge_map")
        ridge = np.exp(outcome.logs["ridge_table"]).sum() / outcome.price.sum()
        row["sum_median"] = ridge
        row["sum_mean"] = ridge * outcome.fitted["ridge_table"].smear
        rows.append(row)
    mean = pd.DataFrame(rows).mean().to_dict()
    text = "trees that learn ridge's residuals on the plain table explain {} of their variance"
    expect("missed", text, mean["left_by_ridge"], at_least=0.15)
    print(f"  of ridge's with the map they explain {mean['left_by_ridge_map']:.3f}")
    text = "of the network's residuals they explain {}"
    expect("leftover", text, mean["left_over"], at_most=0.05)
    text = (
        f"ridge's prices sum to {mean['sum_median']:.3f} of the true sum; with its factor to {{}}"
    )
    expect("sums", text, mean["sum_mean"], above=0.97, below=1.03)
    factor = f"{mean['factor']:.2f}"
    text = f"price / {factor} to price * {factor} should hold nine in ten, and holds {{}}"
    expect("coverage", text, mean["coverage"], above=0.87, below=0.93)
    return mean


def explained(outcome: Outcome, name: str) -> float:
    """R² on the test houses of trees that learn a model's residuals on the validation houses."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    data = outcome.data
    plain = outcome.fitted["ridge_table"].learned
    x_val = prepare(data.val, data.columns, plain).numpy()
    x_test = prepare(outcome.test, data.columns, plain).numpy()
    residual = np.log(data.prices(data.val)) - outcome.fitted[name].logs(data.val)
    trees = HistGradientBoostingRegressor(max_iter=50, max_leaf_nodes=8, random_state=0)
    return scores(outcome.residual(name), trees.fit(x_val, residual).predict(x_test))["r2"]


# 5. A file of houses
def save(path: Path, cfg: Config, pricer: Pricer) -> None:
    """All that pricing takes, as tensors and plain values."""
    state = {"data": cfg.data, "width": cfg.width, "learned": pricer.learned}
    state |= {"smear": pricer.smear, "factor": pricer.factor, "model": pricer.model.state_dict()}
    checkpoint.save(path, state)


def load(path: Path) -> Pricer:
    """The saved model. Raises LessonError for another file."""
    if not path.exists():
        raise LessonError(f"{path.parent} holds no model yet. Train it first: leave --predict out.")
    state = checkpoint.load(path)
    try:
        model = make_model(len(state["learned"]["mean"]), state["width"])
        model.load_state_dict(state["model"])
        columns = COLUMNS[state["data"]]
        return Pricer(columns, state["learned"], model.eval(), state["smear"], state["factor"])
    except (KeyError, TypeError, RuntimeError):
        raise LessonError(f"{path} holds another model. Train it: leave --predict out.") from None


def show_file(cfg: Config, outcome: Outcome) -> None:
    print("\n[5] The model from its file prices a CSV")
    in_memory = outcome.fitted["network_map"]
    save(cfg.out / "model.pt", cfg, in_memory)
    sample = outcome.data.val.drop(columns=in_memory.columns.price).head(20)
    write_text(cfg.out / "sample.csv", sample.to_csv(index=False))
    pricer = load(cfg.out / "model.pt")
    logs = pricer.logs(read_houses(cfg.out / "sample.csv", pricer.columns))
    text = "20 houses from the file cost what they cost in memory"
    check_close("saved", text, logs, in_memory.logs(sample), atol=1e-5)

    # One whose kind training never met, and one far out of town.
    strange = sample.head(3).copy()
    strange.iloc[1, strange.columns.get_loc(in_memory.columns.category)] = "castle"
    strange.iloc[2, strange.columns.get_loc(in_memory.columns.place[0])] += 50
    text = "a castle, and a house far away, are flagged as unlike those of training"
    check("flagged", text, pricer.unlike_training(strange).tolist() == [False, True, True])
    print(f"  try --predict {shown(cfg.out / 'sample.csv')}, and change its rows")


def predict(cfg: Config) -> None:
    """Price the rows of one CSV, and write them beside the model."""
    pricer = load(cfg.out / "model.pt")
    frame = read_houses(cfg.predict, pricer.columns)
    table = pd.DataFrame({"price": np.exp(pricer.logs(frame))})  # the median
    table["low"] = table["price"] / pricer.factor
    table["high"] = table["price"] * pricer.factor
    print(f"  expected sum of all prices: {table['price'].sum() * pricer.smear:,.0f}")
    table = table.round(0)
    table["unlike_training"] = pricer.unlike_training(frame)
    print(table.head(20).to_string())
    write_text(cfg.out / "prices.csv", table.to_csv(index=False))
    print(f"  all {len(table)} rows: {shown(cfg.out / 'prices.csv')}")


# Pictures and helpers: skip on a first reading


def on_tensors(fitted: Any) -> Callable[[Tensor], Tensor]:
    """A fitted model of scikit-learn, for a Pricer."""

    def model(x: Tensor) -> Tensor:
        return torch.from_numpy(fitted.predict(x.numpy()))[:, None]

    return model


def draw_results(cfg: Config, outcomes: list[Outcome], numbers: dict) -> None:
    figure, (left, right) = new_figure(1, 2, size=(12, 4.6))
    looks = {"table": (-0.2, GREY, "plain table"), "map": (0.2, BLUE, "with the map")}
    for features, (shift, colour, label) in looks.items():
        heights = [numbers[f"{name}_{features}"] for name in METHODS]
        bars = left.bar(np.arange(3) + shift, heights, width=0.38, color=colour, label=label)
        left.bar_label(bars, fmt="%.2f")
    left.set_xticks(range(3), METHODS)
    left.set(
        ylim=(0, 1.15),
        ylabel="R² on test houses",
        title="The map lifts ridge as another model does",
    )
    left.legend(loc="upper left", ncols=2)

    guess = np.exp(outcomes[0].logs["network_map"]) / 1000
    factor = outcomes[0].fitted["network_map"].factor
    ends = np.array([0, guess.max()])
    right.plot(guess, outcomes[0].price / 1000, ".", color=BLUE, alpha=0.35, markersize=4)
    right.fill_between(ends, ends / factor, ends * factor, color=ORANGE, alpha=0.25)
    right.plot(ends, ends, color=GREY)
    right.set(xlabel="predicted, thousands", ylabel="true, thousands")
    right.set_title("Nine in ten prices lie in the band")
    save_figure(figure, cfg.out / "results")


def draw_map(cfg: Config, outcome: Outcome) -> None:
    """The same test houses, coloured by the residual of three models."""
    figure, axes = new_figure(1, 3, size=(15, 4.7))
    columns = COLUMNS[cfg.data]
    titles = {
        "ridge_table": "Ridge, plain table: a shape",
        "ridge_map": "Ridge with the map: less of it",
        "network_map": "Network with the map: none to see",
    }
    for axis, (name, title) in zip(axes, titles.items()):
        residual = outcome.residual(name)
        east, north = (outcome.test[place] for place in columns.place)
        points = axis.scatter(east, north, c=residual, cmap="PuOr", vmin=-0.5, vmax=0.5, s=12)
        axis.set(xlabel=columns.place[0], ylabel=columns.place[1], aspect="equal", title=title)
        axis.set_facecolor("#DDDDDD")
        axis.grid(False)
    figure.colorbar(points, ax=axes, label="residual of log price")
    save_figure(figure, cfg.out / "map")


def run(cfg: Config) -> dict | None:
    if cfg.predict:
        return predict(cfg)

    splits = [load_houses(cfg, cfg.seed + number) for number in range(cfg.splits)]
    show_features(cfg, splits[0])
    show_target(cfg)
    outcomes, numbers = show_results(cfg, splits)
    draw_results(cfg, outcomes, numbers)
    numbers |= show_residuals(cfg, outcomes)
    draw_map(cfg, outcomes[0])
    show_file(cfg, outcomes[0])
    return numbers


if __name__ == "__main__":
    main(run, Config, __doc__)
