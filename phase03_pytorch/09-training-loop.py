"""3.9 The training loop: five lines that every model in this course is trained by
训练循环：这门课里每个模型都靠这五行学会

You will be able to answer
    1. What do the five lines do, one by one?                show_steps          five-lines, no-zero-grad
    2. Is the mean of batch losses the epoch's loss?         show_ragged_batch   weighted
    3. Is the shared `fit` really nothing but this loop?     show_fit_is_loop    same-losses, same-weights
    4. How do you see in seconds that it can learn?          show_one_batch      first-loss, overfits
    5. What differs between train() and eval()?              show_modes          eval-dropout, eval-norm, eval-others
    6. What does a whole run look like, beside a baseline?   show_run            input-matters, accuracy
Run       python phase03_pytorch/09-training-loop.py                       about 10 s
Needs     -
Notation  B batch size  D input width (8x8 pixels = 64)  C classes (10)
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.data.images import ImageSet, load_images
from common.figures import GREY, ORANGE, new_figure, plot_curves, save_figure
from common.training import evaluate, fit


@dataclass
class Config(LessonConfig):
    data: str = param("digits", "data set", choices=("digits", "mnist"))
    epochs: int = param(20, "passes over the data", tiny=4)
    batch_size: int = param(64, "samples in one step")
    hidden_dim: int = param(128, "width of the hidden layer", tiny=64)
    lr: float = param(0.1, "learning rate")


def make_model(inputs: int, cfg: Config, seed: int | None = None) -> nn.Sequential:
    """A small classifier, (B, D) -> (B, C). The same seed gives the same first weights."""
    torch.manual_seed(cfg.seed if seed is None else seed)
    return nn.Sequential(
        nn.Linear(inputs, cfg.hidden_dim), nn.ReLU(), nn.Linear(cfg.hidden_dim, 10)
    )


def cross_entropy(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """What turns a batch into a loss: the only part of the loop that knows the task."""
    x, y = batch  # (B, D), (B,)
    return F.cross_entropy(model(x), y)


def step(
    model: nn.Module, batch: tuple[Tensor, Tensor], optimizer: torch.optim.Optimizer
) -> Tensor:
    """One update from one batch. Returns the loss before the update, without its graph."""
    # practice: the heart of every training run
    # hint: forward, clear, backward, update
    # hint: .grad is added to, not replaced, so the last step's gradients must go first
    # hint: loss = cross_entropy(model, batch), then optimizer.zero_grad() …
    loss = cross_entropy(model, batch)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    # end practice
    return loss.detach()


def train(
    model: nn.Module, loader: Iterable, optimizer: torch.optim.Optimizer, epochs: int
) -> list[float]:
    """The whole loop; returns one mean training loss an epoch. `common.training.fit` is this and nothing more."""
    losses = []
    for _ in range(epochs):
        # practice: one pass over the data
        # hint: dropout and batch norm must know that this is training
        # hint: the last batch is shorter: add up loss times samples, and divide by samples at the end
        # hint: model.train(); total, seen = 0.0, 0; for batch in loader: …
        model.train()
        total, seen = 0.0, 0
        for batch in loader:
            x, y = batch
            total += step(model, batch, optimizer).item() * len(x)
            seen += len(x)
        losses.append(total / seen)
        # end practice
    return losses


def accuracy(model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    x, y = batch
    return {"accuracy": (model(x).argmax(dim=1) == y).float().mean()}


def to_tensors(data: ImageSet, x, y) -> tuple[Tensor, Tensor]:
    """uint8 pictures (n, H, W) -> numbers in 0…1 (n, H·W), and their labels (n,)."""
    return torch.from_numpy(x).flatten(1).float() / data.brightest, torch.from_numpy(y)


def show_steps(cfg: Config, data: ImageSet) -> dict[str, list[float]]:
    print(
        "\n[1] forward, zero_grad, backward, step: one update by hand, and one with a line left out"
    )
    x, y = to_tensors(data, data.x_train[:32], data.y_train[:32])
    model, by_hand = make_model(x.shape[1], cfg), make_model(x.shape[1], cfg)
    optimizer = torch.optim.SGD(model.parameters(), lr=cfg.lr)
    for _ in range(3):
        step(model, (x, y), optimizer)
        loss = cross_entropy(by_hand, (x, y))
        gradients = torch.autograd.grad(loss, list(by_hand.parameters()))
        with torch.no_grad():
            for p, gradient in zip(by_hand.parameters(), gradients):
                p -= cfg.lr * gradient  # what SGD's step() does
    check_close(
        "five-lines",
        "three of our steps equal weights minus lr times gradient",
        flat(model),
        flat(by_hand),
    )

    curves = {}
    for name, clear in (("with zero_grad", True), ("without", False)):
        model = make_model(x.shape[1], cfg)
        optimizer = torch.optim.SGD(model.parameters(), lr=cfg.lr * 5)
        curves[name] = []
        for _ in range(60):
            loss = cross_entropy(model, (x, y))
            if clear:
                optimizer.zero_grad()
            loss.backward()  # without clearing, this adds to all gradients so far
            optimizer.step()
            curves[name].append(loss.item())
    one, two = make_model(x.shape[1], cfg), make_model(x.shape[1], cfg)
    cross_entropy(one, (x, y)).backward()
    for _ in range(2):
        cross_entropy(two, (x, y)).backward()
    check_close(
        "no-zero-grad",
        "two backward() without zero_grad() leave exactly twice the gradient",
        two[0].weight.grad,
        2 * one[0].weight.grad,
    )
    return curves


def show_ragged_batch(cfg: Config, data: ImageSet) -> None:
    print("\n[2] The last batch is short, so its loss must count for less")
    x, y = to_tensors(data, data.x_train[:70], data.y_train[:70])
    model = make_model(x.shape[1], cfg)
    loader = DataLoader(TensorDataset(x, y), batch_size=32)  # 32 + 32 + 6
    losses = [cross_entropy(model, batch).item() for batch in loader]
    frozen = torch.optim.SGD(
        model.parameters(), lr=0.0
    )  # a rate of 0 leaves the weights as they are
    exact = cross_entropy(model, (x, y)).item()
    print(f"  all 70 at once {exact:.5f}; mean of three batch losses {sum(losses) / 3:.5f}")
    check_close(
        "weighted",
        "our epoch loss equals the loss of all samples at once",
        train(model, loader, frozen, 1),
        [exact],
        atol=1e-6,
    )


def show_fit_is_loop(cfg: Config, data: ImageSet) -> None:
    print("\n[3] common.training.fit is this loop: same losses, same weights")
    x, y = to_tensors(data, data.x_train[:200], data.y_train[:200])
    results = []
    for trainer in (
        lambda *args: train(*args, epochs=3),
        lambda *args: [
            row["train_loss"] for row in fit(*args, cross_entropy, epochs=3, quiet=True)
        ],
    ):
        model = make_model(x.shape[1], cfg)
        order = torch.Generator().manual_seed(1)
        loader = DataLoader(TensorDataset(x, y), batch_size=64, shuffle=True, generator=order)
        losses = trainer(
            model, loader, torch.optim.SGD(model.parameters(), lr=cfg.lr, momentum=0.9)
        )
        results.append((losses, flat(model)))
    check_close(
        "same-losses",
        "three epochs give the same three losses",
        results[0][0],
        results[1][0],
        atol=1e-6,
    )
    check(
        "same-weights",
        "and the same weights, bit for bit",
        torch.equal(results[0][1], results[1][1]),
    )


def show_one_batch(cfg: Config, data: ImageSet) -> list[float]:
    print("\n[4] The two-second test: chance at the start, nearly 0 on one batch at the end")
    x, y = to_tensors(data, data.x_train[:32], data.y_train[:32])
    model = make_model(x.shape[1], cfg)
    first = cross_entropy(model, (x, y)).item()
    check(
        "first-loss",
        f"an untrained model knows nothing: loss near ln 10 = {math.log(10):.3f}",
        first,
        above=math.log(10) - 0.25,
        below=math.log(10) + 0.25,
    )
    return overfits(
        "overfits",
        "the loss on 32 fixed samples falls to almost nothing",
        model,
        (x, y),
        cross_entropy,
        torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9),
    )


def show_modes(cfg: Config) -> None:
    print("\n[5] train() and eval() switch dropout and batch norm, and nothing else")
    x = torch.randn(64, 16) * 3 + 5
    dropout, norm = nn.Dropout(0.5), nn.BatchNorm1d(16)
    in_training, in_eval = dropout.train()(x), dropout.eval()(x)
    zeroed = (in_training == 0).float().mean().item()
    check(
        "eval-dropout",
        f"dropout zeroes {zeroed:.0%} of the values in training, and passes all unchanged in eval",
        zeroed > 0.3 and torch.equal(in_eval, x),
    )
    in_training = norm.train()(x)  # also moves the running statistics a tenth of the way
    in_eval = norm.eval()(x)
    print(
        f"  batch norm, mean of its output: {in_training.mean():.3f} in training, {in_eval.mean():.3f} in eval"
    )
    check_close(
        "eval-norm",
        "batch norm: this batch's statistics in training, the running ones in eval",
        torch.stack([in_training, in_eval]),
        torch.stack(
            [
                (x - x.mean(0)) / (x.var(0, correction=0) + norm.eps).sqrt(),
                (x - norm.running_mean) / (norm.running_var + norm.eps).sqrt(),
            ]
        ),
    )
    others = [
        nn.Linear(16, 16),
        nn.LayerNorm(16),
        nn.ReLU(),
        nn.GELU(),
        nn.Unflatten(1, (1, 16)),
        nn.Softmax(dim=1),
    ]
    check(
        "eval-others",
        f"{len(others)} other kinds of layer give the same in both modes",
        all(torch.equal(layer.train()(x), layer.eval()(x)) for layer in others),
    )


def show_run(cfg: Config, data: ImageSet) -> tuple[list[dict], dict[str, float]]:
    print("\n[6] A whole run: train on one part, choose by the second, report the third")
    device = cfg.torch_device()
    train_set, val_set = (
        TensorDataset(*to_tensors(data, *part))
        for part in ((data.x_train, data.y_train), (data.x_val, data.y_val))
    )
    test_set = TensorDataset(*to_tensors(data, *data.test()))
    inputs = train_set.tensors[0].shape[1]
    models = {"linear": nn.Linear(inputs, 10), "two layers": make_model(inputs, cfg)}
    scores = {
        "guessing": 1 / 10,
        "majority": test_set.tensors[1].bincount().max().item() / len(test_set),
    }
    for name, model in models.items():
        model.to(device)
        loader = DataLoader(
            train_set,
            cfg.batch_size,
            shuffle=True,
            generator=torch.Generator().manual_seed(cfg.seed),
        )
        history = fit(
            model,
            loader,
            torch.optim.SGD(model.parameters(), lr=cfg.lr, momentum=0.9),
            cross_entropy,
            epochs=cfg.epochs,
            quiet=name == "linear",
            evaluate_fn=lambda m: {
                f"val_{k}": v for k, v in evaluate(m, DataLoader(val_set, 512), accuracy).items()
            },
        )
        scores[name] = evaluate(model, DataLoader(test_set, 512), accuracy)["accuracy"]
    print(
        "  held-out accuracy:  "
        + "   ".join(f"{name} {score:.3f}" for name, score in scores.items())
    )
    x, y = test_set.tensors
    with torch.no_grad():
        predicted = models["two layers"](x.to(device)).argmax(dim=1)
    depends_on_input("input-matters", "the answer depends on the picture", predicted, y)
    expect(
        "accuracy", "held-out accuracy of the two-layer net", scores["two layers"], at_least=0.95
    )
    return history, scores


def draw(
    cfg: Config, steps: dict[str, list[float]], history: list[dict], scores: dict[str, float]
) -> None:
    figure, (left, right) = new_figure(1, 2)
    plot_curves(
        left, steps, xlabel="step on one batch", ylabel="loss (log scale)", start=0, log=True
    )
    left.set_title("zero_grad() left out: the steps grow until it explodes")
    right.axhline(scores["majority"], color=GREY, linestyle="--")
    right.axhline(scores["linear"], color=ORANGE, linestyle="--")
    right.annotate("majority, test", (1, scores["majority"] + 0.02), color=GREY)
    right.annotate(
        "linear model, test", (cfg.epochs, scores["linear"] - 0.06), color=ORANGE, ha="right"
    )
    plot_curves(
        right,
        {"two layers": [row["val_accuracy"] for row in history]},
        ylabel="validation accuracy",
    )
    right.set(title="The whole run, beside its baselines", ylim=(0, 1.04))
    save_figure(figure, cfg.out / "loop")


def flat(model: nn.Module) -> Tensor:
    """All weights in one vector, to compare models."""
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def run(cfg: Config) -> dict:
    data = load_images(cfg)
    steps = show_steps(cfg, data)
    show_ragged_batch(cfg, data)
    show_fit_is_loop(cfg, data)
    show_one_batch(cfg, data)
    show_modes(cfg)
    history, scores = show_run(cfg, data)
    draw(cfg, steps, history, scores)
    return {
        "accuracy": scores["two layers"],
        "linear": scores["linear"],
        "majority": scores["majority"],
        **{name: [row[name] for row in history] for name in ("train_loss", "val_accuracy")},
    }


if __name__ == "__main__":
    main(run, Config, __doc__)
