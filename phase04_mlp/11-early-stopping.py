"""4.11 Early stopping: the best weights are not the last
早停：最好的权重不是最后的权重

You will be able to answer
    1. When do you stop?                           show_rule      by-hand, not-a-number
    2. Which epoch's weights do you get back?      show_restore   copy
    3. What does it gain, and what does it not?    show_gain      overfits, depends, rises, lower
    4. What is lost by training on?                show_sure      class, sure
    5. How much patience is enough?                show_patience  impatient
Predict   ratio: how many times the test loss of the best epoch is that after all 200 epochs?
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

from common.checks import check, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.data.batches import Batches
from common.data.images import load_images
from common.figures import BLUE, GREY, ORANGE, new_figure, save_figure
from common.lessons import load_lesson

training = load_lesson("phase03_pytorch/09-training-loop")
Split = tuple[Tensor, Tensor]  # pixels (n, 64), labels (n,)


@dataclass
class Config(LessonConfig):
    threads = 1
    data: str = param("digits", "data set", choices=("digits",))
    samples: int = param(200, "digits to train on", tiny=60)
    epochs: int = param(200, "passes over them, if nothing stops earlier", tiny=6)
    seeds: int = param(5, "initialisations and sets of training digits to try", tiny=1)


class EarlyStopping:
    """Remembers the best weights, and says when to stop (Prechelt 1998).

    A loss is better if it is below the best one so far. After `patience` epochs in a row that are
    not better it is time to stop. NaN is never better.
    """

    def __init__(self, patience: int):
        self.patience = patience
        self.best_loss = math.inf
        self.best_state: dict | None = None
        self.waited = 0

    def should_stop(self, loss: float, model: nn.Module) -> bool:
        """To be asked after each epoch, with its validation loss."""
        # practice: Better, or one more epoch waited
        # Written like this, NaN is not better: a comparison with it is False.
        if loss < self.best_loss:
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
    print("  validation losses: " + "  ".join(str(loss) for loss in losses))
    stops = [stops_after(losses, patience) for patience in [1, 2, 3]]
    text = "patience 1 stops after epoch 3, patience 2 after 6, patience 3 not at all"
    check("by-hand", text, stops == [3, 6, None])
    losses = [0.9, math.nan, 0.8, math.nan, math.nan]
    text = "losses 0.9 nan 0.8 nan nan: NaN is never the best, so patience 2 stops after epoch {}"
    check("not-a-number", text, stops_after(losses, 2) or 0, at_least=5, at_most=5)


def show_restore(cfg: Config) -> None:
    print("\n[2] The weights of the best epoch come back, not those of the stop")
    # A model of one weight, which is the number of the epoch.
    model = nn.Linear(1, 1, bias=False)
    stopping = EarlyStopping(patience=2)
    for epoch, loss in enumerate([0.9, 0.5, 0.7, 0.8], start=1):
        nn.init.constant_(model.weight, epoch)
        stopping.should_stop(loss, model)
    stopping.restore(model)
    text = "losses 0.9 0.5 0.7 0.8: back come the weights of epoch {}"
    check("copy", text, model.weight.item(), at_least=2, at_most=2)


def train(
    model: nn.Module, batches: Batches, val: Split, stopping: EarlyStopping, epochs: int
) -> tuple[list[float], list[float]]:
    """Train until it is time to stop; the model keeps the last weights.

    Returns the training and the validation loss of each epoch.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    losses = []
    val_losses = []
    for _ in range(epochs):
        losses.append(training.train_epoch(model, batches, training.cross_entropy, optimizer))

        model.eval()
        with torch.no_grad():
            val_losses.append(training.cross_entropy(model, val).item())
        if stopping.should_stop(val_losses[-1], model):
            break
    return losses, val_losses


@dataclass
class Run:
    """One set of training digits and one initialisation, with early stopping and without."""

    losses: list[float]  # of all epochs
    val_losses: list[float]
    stopped: int  # the epoch after which early stopping ended
    kept: Tensor  # logits of the test digits with the restored weights, (n, 10)
    last: Tensor  # and with those of the last epoch


def show_gain(cfg: Config, runs: list[Run], data: list[Split]) -> dict[str, float]:
    print("\n[3] On test data: the loss improves, the accuracy hardly moves")
    (x, y), _, (_, labels) = data
    model = make_model(cfg.seed)
    adam = torch.optim.Adam(model.parameters(), lr=0.003)
    text = "32 digits can be memorised: loss {}"
    overfits("overfits", text, model, (x[:32], y[:32]), training.cross_entropy, adam)
    text = "with the restored weights the answer depends on the digit: {} right"
    depends_on_input("depends", text, runs[0].kept.argmax(dim=1), labels)

    print("              test loss          accuracy")
    print("  stopped   kept    last      kept    last")
    rows = []
    for run in runs:
        row = {"loss": F.cross_entropy(run.kept, labels).item()}
        row["last_loss"] = F.cross_entropy(run.last, labels).item()
        row["accuracy"] = accuracy(run.kept, labels)
        row["last_accuracy"] = accuracy(run.last, labels)
        print(f"  {run.stopped:7}" + "".join(f"{value:8.3f}" for value in row.values()))
        rows.append(row)
    means = {}
    for name in rows[0]:
        means[name] = float(np.mean([row[name] for row in rows]))

    rise = float(np.mean([run.val_losses[-1] / min(run.val_losses) for run in runs]))
    fall = float(np.mean([run.losses[-1] for run in runs]))
    text = f"at the end the training loss is {fall:.4f}, the validation loss {{}} times its lowest"
    expect("rises", text, rise, above=1.1)
    ratio = means["last_loss"] / means["loss"]
    expect("lower", "the last test loss is {} times that of the kept weights", ratio, above=1.1)
    return means | {"ratio": ratio, "rise": rise}


def show_sure(cfg: Config, runs: list[Run], labels: Tensor) -> dict[str, float]:
    print("\n[4] By training on, the network does not change its mind, it only becomes surer")
    kept = torch.cat([run.kept for run in runs])
    last = torch.cat([run.last for run in runs])
    labels = labels.repeat(len(runs))
    same = (kept.argmax(dim=1) == last.argmax(dim=1)).float().mean().item()
    expect("class", "the predicted class stays the same for {} of the digits", same, at_least=0.95)

    numbers = {}
    errors = {}
    for name, logits in (("kept", kept), ("last", last)):
        confidence, predicted = logits.softmax(dim=1).max(dim=1)
        wrong = predicted != labels
        sure = confidence >= 0.9
        numbers[name] = int(sure.sum())
        errors[name] = int((sure & wrong).sum())
        print(f"  {name}: {numbers[name]} digits get 90 % or more, {errors[name]} of them wrongly")

    # A higher threshold for the last weights, so that as many digits pass as with the kept ones.
    order = confidence.argsort(descending=True)[: max(1, numbers["kept"])]
    errors["surest"] = int(wrong[order].sum())
    new = confidence[order[-1]].item()
    print(f"  last: {len(order)} get {new:.3f} or more, {errors['surest']} of them wrongly")
    times = errors["last"] / max(1, errors["kept"])
    expect("sure", "at 90 %, {} times as many errors pass with the last weights", times, above=1.3)
    return {
        "same_class": same,
        "wrong_kept": errors["kept"] / max(1, numbers["kept"]),
        "wrong_last": errors["last"] / max(1, numbers["last"]),
        "wrong_surest": errors["surest"] / len(order),
    }


def show_patience(cfg: Config, runs: list[Run]) -> dict[int, tuple[float, float]]:
    print("\n[5] A validation loss is noisy: too little patience stops at the first small rise")
    rows = {}
    for patience in [1, 3, 10, 30]:
        excess = []
        epochs = []
        for run in runs:
            stop = stops_after(run.val_losses, patience) or cfg.epochs
            excess.append(min(run.val_losses[:stop]) / min(run.val_losses))
            epochs.append(stop)
        rows[patience] = (float(np.mean(epochs)), float(np.mean(excess)))
        print(
            f"  patience {patience:2}: {np.mean(epochs):5.1f} epochs, best validation loss", end=""
        )
        print(f" {np.mean(excess):.3f} times the lowest of all {cfg.epochs}")
    text = "with patience 1 the best validation loss is {} times that of patience 30"
    expect("impatient", text, rows[1][1] / rows[30][1], above=1.1)
    return rows


# Pictures and helpers: skip on a first reading


def stops_after(losses: list[float], patience: int) -> int | None:
    """The epoch, counted from 1, after which training would stop."""
    stopping = EarlyStopping(patience)
    model = nn.Linear(1, 1)
    for epoch, loss in enumerate(losses, start=1):
        if stopping.should_stop(loss, model):
            return epoch
    return None


def make_model(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))


def train_both(cfg: Config, data: list[Split], seed: int) -> Run:
    """The same training twice: to the end, and with early stopping."""
    train_set, val, (x_test, _) = data
    rows = np.random.default_rng(seed).permutation(len(train_set[0]))[: cfg.samples]
    x, y = (part[rows] for part in train_set)

    model = make_model(seed)
    batches = Batches(x, y, batch_size=20, shuffle=True, seed=seed)
    never = EarlyStopping(patience=cfg.epochs)
    losses, val_losses = train(model, batches, val, never, cfg.epochs)
    with torch.no_grad():
        last = model(x_test)

    model = make_model(seed)
    batches = Batches(x, y, batch_size=20, shuffle=True, seed=seed)
    stopping = EarlyStopping(patience=10)
    stopped = len(train(model, batches, val, stopping, cfg.epochs)[0])
    stopping.restore(model)
    with torch.no_grad():
        kept = model(x_test)
    return Run(losses, val_losses, stopped, kept, last)


def accuracy(logits: Tensor, labels: Tensor) -> float:
    return (logits.argmax(dim=1) == labels).float().mean().item()


def load(cfg: Config) -> list[Split]:
    """Train, validation and test digits, their pixels from 0 to 1."""
    data = load_images(cfg)
    parts = [(data.x_train, data.y_train), (data.x_val, data.y_val), data.test()]
    found = []
    for x, y in parts:
        found.append((torch.from_numpy(x).flatten(1).float() / 16, torch.from_numpy(y)))
    return found


def draw_runs(cfg: Config, runs: list[Run], rows: dict[int, tuple[float, float]]) -> None:
    figure, (left, right) = new_figure(1, 2)
    for run in runs:
        epochs = range(1, len(run.losses) + 1)
        left.plot(epochs, run.losses, color=GREY, linewidth=1)
        left.plot(epochs, run.val_losses, color=BLUE, linewidth=1.5)
        best = int(np.argmin(run.val_losses[: run.stopped]))
        left.plot(best + 1, run.val_losses[best], "o", color=ORANGE, zorder=3)
    left.text(cfg.epochs, 0.02, "training", color=GREY, ha="right")
    left.text(cfg.epochs, 0.4, "validation", color=BLUE, ha="right")
    left.set(xlabel="epoch", ylabel="loss", ylim=(0, 0.8))
    left.set_title("Validation losses rise again; dots: what is kept")

    spent = [epochs for epochs, _ in rows.values()]
    excess = [times for _, times in rows.values()]
    right.plot(spent, excess, "o-", color=BLUE)
    for patience, x, y in zip(rows, spent, excess):
        right.annotate(f"patience {patience}", (x, y), (10, 2), textcoords="offset points")
    right.set(xlabel="epochs trained", ylabel="best loss / lowest of all epochs")
    right.set(title="Ten epochs of patience nearly find the lowest loss", xlim=(0, 1.3 * spent[-1]))
    save_figure(figure, cfg.out / "runs")


def run(cfg: Config) -> dict[str, float]:
    show_rule(cfg)
    show_restore(cfg)
    data = load(cfg)
    runs = [train_both(cfg, data, cfg.seeds * cfg.seed + number) for number in range(cfg.seeds)]
    metrics = show_gain(cfg, runs, data)
    metrics |= show_sure(cfg, runs, data[2][1])
    rows = show_patience(cfg, runs)
    draw_runs(cfg, runs, rows)
    return {**metrics, "excess_1": rows[1][1], "excess_30": rows[30][1]}


if __name__ == "__main__":
    main(run, Config, __doc__)
