"""4.11 Early stopping: the best weights are not the last
早停：最好的权重不是最后的权重

You will be able to answer
    1. When do you stop?                           show_rule      by-hand, small-steps, not-a-number
    2. Whose weights do you get back?              show_restore   best, copy, none
    3. What does it gain, and what does it not?    show_gain      first-loss, depends, lower, even
    4. How much patience is enough?                show_patience  overfits, impatient
Predict   ratio: trained to the end, how many times the test loss that it had when best?
Run       python phase04_mlp/11-early-stopping.py                          about 15 s
Needs     phase03_pytorch/09-training-loop
Reference -
"""

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.data.batches import Batches
from common.data.images import load_images
from common.figures import BLUE, GREY, ORANGE, new_figure, save_figure
from common.lessons import load_lesson

training = load_lesson("phase03_pytorch/09-training-loop")


@dataclass
class Config(LessonConfig):
    threads = 1
    data: str = param("digits", "data set", choices=("digits",))
    samples: int = param(200, "digits to train on", tiny=60)
    epochs: int = param(200, "passes over them, if nothing stops earlier", tiny=6)
    seeds: int = param(5, "first weights and training digits to try", tiny=1)


class EarlyStopping:
    """Remembers the best weights, and says when to stop (Prechelt 1998).

    A loss counts as better if it is below the best one by more than `min_delta`. After `patience`
    epochs in a row that are not better it is time to stop. NaN is never better.
    """

    def __init__(self, patience: int, min_delta: float = 0.0):
        self.patience = patience
        self.min_delta = min_delta
        self.best_loss = math.inf
        self.best_state: dict | None = None
        self.waited = 0

    def should_stop(self, loss: float, model: nn.Module) -> bool:
        """To be asked after each epoch, with its validation loss."""
        # practice: Better, or one more epoch waited
        # Written like this, NaN is not better: a comparison with it is False.
        if loss < self.best_loss - self.min_delta:
            self.best_loss = loss
            self.waited = 0

            # state_dict() holds the weights themselves, which the next step will change.
            self.best_state = copy.deepcopy(model.state_dict())
            return False

        self.waited += 1
        return self.waited >= self.patience
        # end practice

    def restore(self, model: nn.Module) -> None:
        """Give the model the best weights back. If no loss was ever a number, it keeps its own."""
        # practice: The best weights back
        if self.best_state is not None:
            model.load_state_dict(self.best_state)
        # end practice


def show_rule(cfg: Config) -> None:
    print("\n[1] Stop after so many epochs in a row without a new best")
    losses = [0.9, 0.7, 0.8, 0.6, 0.65, 0.6, 0.5]
    text = "0.9 0.7 0.8 0.6 0.65 0.6 0.5: patience 1 stops after epoch 3, 2 after 6, 3 never"
    # 0 stands for never.
    found = [stops_after(losses, patience) or 0 for patience in [1, 2, 3]]
    check_close("by-hand", text, found, [3, 6, 0])
    losses = [0.9, 0.89, 0.88, 0.80, 0.79]
    text = "steps of 0.01 do not count if 0.05 is asked for, until they add up"
    found = [stops_after(losses, patience, min_delta=0.05) or 0 for patience in [3, 2]]
    check_close("small-steps", text, found, [0, 3])
    text = "a loss that is not a number is waited for, and never kept"
    found = [stops_after([0.9, math.nan, math.nan], 2), stops_after([math.nan, math.nan], 2)]
    check_close("not-a-number", text, [epoch or 0 for epoch in found], [3, 2])


def show_restore(cfg: Config, runs: list[dict]) -> None:
    print("\n[2] The weights of the best epoch come back, not those of the stop")
    run = runs[0]
    # What came after the stop, a real run would never have seen.
    best = int(np.argmin(run["losses"][: run["stopped"]]))
    print(f"  first run: best validation loss in epoch {best + 1}, stopped after {run['stopped']}")
    text = f"restored are the weights of epoch {best + 1}, bit for bit"
    check("best", text, torch.equal(run["restored"], run["weights"][best]))

    # A model of one weight, which is the number of the epoch.
    model = nn.Linear(1, 1, bias=False)
    stopping = EarlyStopping(patience=2)
    for epoch, loss in enumerate([0.9, 0.5, 0.7, 0.8], start=1):
        nn.init.constant_(model.weight, epoch)
        stopping.should_stop(loss, model)
    stopping.restore(model)
    text = (
        "losses 0.9 0.5 0.7 0.8: back comes a copy of epoch {}, which later epochs did not change"
    )
    check("copy", text, model.weight.item(), at_least=2, at_most=2)
    EarlyStopping(patience=2).restore(model)
    check(
        "none", "without any loss the model keeps its weights: {}", model.weight.item(), at_least=2
    )


def show_gain(cfg: Config, runs: list[dict]) -> dict[str, float]:
    print("\n[3] Test data: the loss gains, the share of right answers hardly moves")
    print("  stopped after   loss, restored   loss, last   accuracy, restored   last")
    for run in runs:
        print(
            f"  {run['stopped']:13}   {run['loss']:14.3f}   {run['last_loss']:10.3f}"
            f"   {run['accuracy']:18.3f}   {run['last_accuracy']:.3f}"
        )
    means = {}
    for name in ["loss", "last_loss", "accuracy", "last_accuracy"]:
        means[name] = float(np.mean([run[name] for run in runs]))
    text = "the first loss is {}, near ln 10 = 2.30: all classes equally likely"
    check("first-loss", text, runs[0]["first_loss"], above=2.1, below=2.5)
    text = "restored, the answer depends on the digit: {} right"
    depends_on_input("depends", text, runs[0]["predicted"], runs[0]["labels"])
    ratio = means["last_loss"] / means["loss"]
    expect(
        "lower", "mean of all runs: the last loss is {} times the restored one", ratio, above=1.1
    )

    # The largest logit is still that of the same class; only its probability has changed.
    change = means["accuracy"] - means["last_accuracy"]
    expect("even", "the accuracy changes by {}", change, above=-0.015, below=0.015)
    return {"ratio": ratio, **means}


def show_patience(cfg: Config, runs: list[dict]) -> dict[int, tuple[float, float]]:
    print("\n[4] A validation loss trembles: too little patience stops at the first tremor")
    rows = {}
    for patience in [1, 3, 10, 30]:
        excess = []
        epochs = []
        for run in runs:
            stop = stops_after(run["losses"], patience) or cfg.epochs
            excess.append(min(run["losses"][:stop]) / min(run["losses"]))
            epochs.append(stop)
        rows[patience] = (float(np.mean(excess)), float(np.mean(epochs)))
        print(f"  patience {patience:2}: {np.mean(epochs):5.1f} epochs, best loss", end="")
        print(f" {np.mean(excess):.3f} times what all {cfg.epochs} epochs reach")
    text = "with patience 1 the best validation loss is {} times that of patience 30"
    expect("impatient", text, rows[1][0] / rows[30][0], above=1.1)

    x, y = runs[0]["train"]
    model = make_model(64, cfg.seed)
    adam = torch.optim.Adam(model.parameters(), lr=0.003)
    text = "32 digits are learned by heart, the loss falls to {}: nothing to stop for here"
    overfits("overfits", text, model, (x[:32], y[:32]), training.cross_entropy, adam)
    return rows


# Pictures and helpers: skip on a first reading


def stops_after(losses: list[float], patience: int, min_delta: float = 0.0) -> int | None:
    """The epoch, counted from 1, after which training would stop."""
    stopping = EarlyStopping(patience, min_delta)
    model = nn.Linear(1, 1)
    for epoch, loss in enumerate(losses, start=1):
        if stopping.should_stop(loss, model):
            return epoch
    return None


def make_model(inputs: int, seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(inputs, 256), nn.ReLU(), nn.Linear(256, 10))


def train(
    model: nn.Module,
    batches: Batches,
    val: tuple[Tensor, Tensor],
    stopping: EarlyStopping,
    cfg: Config,
) -> tuple[list[float], int, list[Tensor]]:
    """All epochs, to see what would have come after the stop; the model keeps the last weights.

    Returns the validation losses, the epoch of the stop, and the weights (P,) after each epoch.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    losses = []
    weights = []
    stopped = None
    for epoch in range(1, cfg.epochs + 1):
        training.train_epoch(model, batches, training.cross_entropy, optimizer)
        with torch.no_grad():
            losses.append(training.cross_entropy(model, val).item())
        weights.append(training.flat(model))
        if stopped is None and stopping.should_stop(losses[-1], model):
            stopped = epoch
    return losses, stopped or cfg.epochs, weights


def train_all(cfg: Config) -> list[dict]:
    """For each seed: other training digits and first weights; with and without stopping."""
    data = load_images(cfg)
    val = to_tensors(data.x_val, data.y_val)
    x_test, y_test = to_tensors(*data.test())
    runs = []
    for number in range(cfg.seeds):
        seed = cfg.seeds * cfg.seed + number
        rows = np.random.default_rng(seed).permutation(len(data.y_train))[: cfg.samples]
        x, y = to_tensors(data.x_train[rows], data.y_train[rows])
        model = make_model(x.shape[1], seed)
        run = {"train": (x, y), "first_loss": training.cross_entropy(model, (x, y)).item()}

        batches = Batches(x, y, batch_size=20, shuffle=True, seed=seed)
        stopping = EarlyStopping(patience=10)
        run["losses"], run["stopped"], run["weights"] = train(model, batches, val, stopping, cfg)
        for prefix in ["last_", ""]:
            with torch.no_grad():
                logits = model(x_test)
            predicted = logits.argmax(dim=1)
            run[f"{prefix}loss"] = F.cross_entropy(logits, y_test).item()
            run[f"{prefix}accuracy"] = (predicted == y_test).float().mean().item()
            stopping.restore(model)
        run |= {"predicted": predicted, "labels": y_test, "restored": training.flat(model)}
        runs.append(run)
    return runs


def to_tensors(x: np.ndarray, y: np.ndarray) -> tuple[Tensor, Tensor]:
    """Pictures with pixels from 0 to 16 -> numbers from 0 to 1 (n, 64); their labels (n,)."""
    return torch.from_numpy(x).flatten(1).float() / 16, torch.from_numpy(y)


def draw_runs(cfg: Config, runs: list[dict], rows: dict[int, tuple[float, float]]) -> None:
    figure, (left, right) = new_figure(1, 2)
    for number, run in enumerate(runs):
        epochs = range(1, len(run["losses"]) + 1)
        left.plot(epochs, run["losses"], color=BLUE if number == 2 else GREY, linewidth=1.5)
        best = int(np.argmin(run["losses"][: run["stopped"]]))
        left.plot(best + 1, run["losses"][best], "o", color=ORANGE, zorder=3)
    left.set(xlabel="epoch", ylabel="validation loss", ylim=(0, 0.8))
    left.set_title("Five runs; dots: the weights that are kept")

    patiences = [str(patience) for patience in rows]
    right.bar(patiences, [excess - 1 for excess, _ in rows.values()], color=BLUE, width=0.6)
    for place, (excess, epochs) in enumerate(rows.values()):
        right.text(place, excess - 1, f"{epochs:.0f} epochs", ha="center", va="bottom")
    right.set(xlabel="patience", ylabel="share above the best", title="The price of impatience")
    save_figure(figure, cfg.out / "runs")


def run(cfg: Config) -> dict[str, float]:
    show_rule(cfg)
    runs = train_all(cfg)
    show_restore(cfg, runs)
    metrics = show_gain(cfg, runs)
    rows = show_patience(cfg, runs)
    draw_runs(cfg, runs, rows)
    return {**metrics, "excess_1": rows[1][0], "excess_30": rows[30][0]}


if __name__ == "__main__":
    main(run, Config, __doc__)
