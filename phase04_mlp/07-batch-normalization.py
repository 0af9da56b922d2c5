"""4.7 Batch normalisation: why deep nets tolerate ten times the learning rate
批量归一化：为什么学习率能大十倍

You will be able to answer
    1. What does batch norm compute, what comes back?  show_batch   by-hand, scale
    2. What does it do in evaluation, with no batch?   show_modes   running, single
    3. How do layer, group and RMS norm differ?        show_others  groups, alone, companions
    4. What does a deep net gain from it?  show_rates  overfits, plain, diverges, fast, depends
    5. What if a batch has only three samples?         show_small   threes, short
Predict   short: what accuracy is left of 0.96 after one step from 3 samples that the net knows?
Run       python phase04_mlp/07-batch-normalization.py                     about 30 s
Needs     phase03_pytorch/09-training-loop
Reference nn.BatchNorm1d, F.layer_norm, F.group_norm, F.rms_norm
Notation  N samples  C channels  H height  W width  D features
"""

import copy
import statistics
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.data.batches import Batches
from common.data.images import load_images
from common.errors import LessonError
from common.figures import BLUE, ORANGE, new_figure, save_figure
from common.lessons import load_lesson

training = load_lesson("phase03_pytorch/09-training-loop")
RATES = (0.1, 0.3, 1.0)
SIZES = (3, 8, 32, 64)  # of a batch


@dataclass
class Config(LessonConfig):
    threads = 1
    depth: int = param(8, "hidden layers")
    width: int = param(128, "units of a hidden layer", tiny=32)
    epochs: int = param(8, "passes over the data", tiny=2)
    draws: int = param(3, "nets to train at each rate, each with other initial weights", tiny=1)


def standardize(x: Tensor, axis: int, eps: float) -> tuple[Tensor, Tensor]:
    """x minus its mean, divided by its standard deviation, along one axis; and that deviation."""
    mean = x.mean(axis, keepdim=True)
    variance = (x - mean).square().mean(axis, keepdim=True)

    # Without eps a feature that never changes would become 0 / 0.
    std = (variance + eps).sqrt()
    return (x - mean) / std, std


class BatchNormFunction(torch.autograd.Function):
    """weight · x̂ + bias; x̂ is x standardized, each channel over the samples. (N, C) -> (N, C)

    autograd calls backward with dL/dy and wants the gradient of each argument of forward.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        # practice: Forward through a batch
        x_hat, std = standardize(x, 0, eps)
        ctx.save_for_backward(x_hat, std, weight)
        return weight * x_hat + bias
        # end practice

    @staticmethod
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor | None, ...]:
        # practice: Backward through a batch
        x_hat, std, weight = ctx.saved_tensors
        d_weight = (d_y * x_hat).sum(0)
        d_bias = d_y.sum(0)
        d_x_hat = weight * d_y

        # A sample also moves the mean and the deviation of its channel, and so all other samples.
        through_mean = d_x_hat.mean(0)
        through_std = x_hat * (d_x_hat * x_hat).mean(0)
        d_x = (d_x_hat - through_mean - through_std) / std
        return d_x, d_weight, d_bias, None  # eps is a setting
        # end practice


class BatchNorm(nn.Module):
    """Batch norm for (N, C) and (N, C, H, W). Its state has the names that torch gives it."""

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1):
        super().__init__()
        self.eps = eps
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        # Each pixel of a picture is one more sample of its channels.
        channels_last = x.movedim(1, -1)  # (N, H, W, C)
        rows = channels_last.reshape(-1, x.shape[1])  # (N·H·W, C)
        if self.training:
            self.remember(rows.detach())
            y = BatchNormFunction.apply(rows, self.weight, self.bias, self.eps)
        else:
            std = (self.running_var + self.eps).sqrt()
            y = self.weight * (rows - self.running_mean) / std + self.bias

        # The rows become pictures again, and their channels go back behind N.
        return y.view(channels_last.shape).movedim(-1, 1)

    def remember(self, rows: Tensor) -> None:
        """Move the running statistics towards those of this batch, in place. rows: (N, C)."""
        if len(rows) < 2:
            raise LessonError("a single value has no variance: batch norm needs larger batches.")
        # practice: Running statistics
        batch_mean = rows.mean(0)

        # N - 1: wanted is the variance of all data, and the batch is a sample of it.
        variance = (rows - batch_mean).square().sum(0) / (len(rows) - 1)
        self.running_mean += self.momentum * (batch_mean - self.running_mean)
        self.running_var += self.momentum * (variance - self.running_var)
        # end practice


def show_batch(cfg: Config) -> None:
    print("\n[1] Each channel gets mean 0 and standard deviation 1, then a weight and a bias")
    x = torch.tensor([[1.0], [3.0], [5.0], [7.0]], dtype=torch.float64, requires_grad=True)
    layer = BatchNorm(1, eps=4.0).double()
    nn.init.constant_(layer.weight, 2.0)
    y = layer(x)
    y[2].backward()
    found = [*y[:, 0], *x.grad[:, 0], layer.weight.grad, layer.bias.grad]
    wanted = [-2, -2 / 3, 2 / 3, 2, -1 / 9, -4 / 27, 13 / 27, -2 / 9, 1 / 3, 1]
    text = "1, 3, 5, 7 with eps = 4 and weight 2: outputs and gradients as found on paper"
    check_close("by-hand", text, torch.stack([value.squeeze() for value in found]), wanted)

    # A linear layer stands in front of batch norm: what if its weights are ten times as large?
    x = torch.randn(20, 6, dtype=torch.float64)
    d_y = torch.randn(20, 6, dtype=torch.float64)
    small = torch.randn(6, 6, dtype=torch.float64, requires_grad=True)
    large = (10 * small.detach()).requires_grad_()
    y_small = BatchNorm(6, eps=0.0).double()(x @ small)
    y_large = BatchNorm(6, eps=0.0).double()(x @ large)
    y_small.backward(d_y)
    y_large.backward(d_y)
    text = "weights 10 times as large in front of it: the same output, a tenth of the gradient"
    found = torch.cat([y_large, large.grad])
    check_close("scale", text, found, torch.cat([y_small, small.grad / 10]))


def show_modes(cfg: Config) -> None:
    print("\n[2] Training remembers means and variances; evaluation uses what was remembered")
    layer = BatchNorm(1).double()
    x = torch.tensor([[1.0], [3.0], [5.0], [7.0]], dtype=torch.float64)  # variance 20 / 3
    layer(x)
    layer(x + 2)
    remembered = torch.cat([layer.running_mean, layer.running_var])
    text = "two batches, each moves the memory a tenth of the way: as found on paper"
    check_close("running", text, remembered, [0.9 * 0.4 + 0.6, 0.9**2 + 1.9 * 2 / 3])

    layer.eval()
    same = torch.equal(layer(x)[:1], layer(x[:1]))
    check("single", "evaluation: a sample alone gets the output that it gets in a batch", same)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """(…, D): each vector is standardized over its own features. weight, bias: (D,)."""
    x_hat, _ = standardize(x, -1, eps)
    return weight * x_hat + bias


def group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """(N, C, H, W): each sample by itself, C / groups channels at a time. weight, bias: (C,)."""
    # practice: Group norm
    grouped = x.reshape(len(x), groups, -1)  # (N, groups, C / groups · H · W)
    x_hat, _ = standardize(grouped, -1, eps)

    # A weight and a bias for each channel, as in batch norm, not for each group.
    return weight.view(-1, 1, 1) * x_hat.view(x.shape) + bias.view(-1, 1, 1)
    # end practice


def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-5) -> Tensor:
    """(…, D): divided by the root of the mean square. No mean is taken off, no bias added."""
    mean_square = x.square().mean(-1, keepdim=True)
    return weight * x / (mean_square + eps).sqrt()


def show_others(cfg: Config) -> None:
    print("\n[3] The same formula along other axes: a sample needs no others beside it")
    x = torch.randn(5, 6, 4, 4, dtype=torch.float64)
    w, b = torch.randn(2, 6, dtype=torch.float64)
    last = x.movedim(1, -1)  # (N, H, W, C), for the two that look along the last axis
    ours = [layer_norm(last, w, b), group_norm(x, 3, w, b), rms_norm(last, w)]
    theirs = F.group_norm(x, 3, w, b, eps=1e-5)
    check_close("groups", "group norm gives the output of torch", ours[1], theirs)

    changed = x.clone()
    changed[1:] += 1 + torch.randn_like(changed[1:])  # all but sample 0
    last = changed.movedim(1, -1)
    after = [layer_norm(last, w, b), group_norm(changed, 3, w, b), rms_norm(last, w)]
    same = all(torch.equal(new[0], old[0]) for new, old in zip(after, ours))
    check("alone", "other samples change: these three give a sample the same output", same)
    layer = BatchNorm(6).double()
    change = (layer(changed) - layer(x))[0].abs().max().item()
    check("companions", "under batch norm its output changes by up to {}", change, above=0.1)


def show_rates(cfg: Config, sets: list) -> tuple[dict[str, list[float]], list[nn.Module]]:
    print(f"\n[4] {cfg.depth} hidden layers at several learning rates, {cfg.draws} nets each")
    (x, y), test = sets
    model = make_model(x.shape[1], True, cfg)
    sgd = torch.optim.SGD(model.parameters(), lr=0.3)
    text = "64 digits are learned by heart: the loss falls to {}"
    overfits("overfits", text, model, (x[:64], y[:64]), training.cross_entropy, sgd)

    scores = {}
    for lr in RATES:
        scores[f"plain_{lr:g}"], plain = train_nets(cfg, sets, False, lr)
        scores[f"norm_{lr:g}"], normalized = train_nets(cfg, sets, True, lr)
    for name, row in scores.items():
        print(f"  {name:<9}  test accuracy " + "  ".join(f"{score:.3f}" for score in row))

    predicted = normalized[-1](test[0]).argmax(dim=1)
    depends_on_input("depends", "the answer depends on the digit", predicted, test[1])
    text = "at rate 0.1 the plain net learns: mean accuracy {}"
    expect("plain", text, statistics.mean(scores["plain_0.1"]), at_least=0.8)
    overflowed = [model(test[0]).isnan().any().item() for model in plain]
    text = f"at rate 1 it diverges: the logits are NaN in {{}} of {cfg.draws} nets"
    expect("diverges", text, sum(overflowed), at_least=2)
    text = "with batch norm it learns at rate 1, too: mean accuracy {}"
    expect("fast", text, statistics.mean(scores["norm_1"]), at_least=0.85)
    return scores, normalized


def show_small(cfg: Config, sets: list, models: list[nn.Module]) -> tuple[dict, dict]:
    print("\n[5] The nets with batch norm, trained at rate 1, meet small batches")
    (x, y), test = sets
    known = [training.evaluate_accuracy(model, [(x, y)]) for model in models]
    print(f"  training digits, evaluation mode: accuracy {statistics.mean(known):.3f}")
    seen = {}
    after = {}
    for size in SIZES:
        in_training = [accuracy_in_batches(model, x, y, size) for model in models]
        seen[size] = statistics.mean(in_training)
        after[size] = []
        for model in models:
            twin = copy.deepcopy(model).train()
            sgd = torch.optim.SGD(twin.parameters(), lr=1.0)
            training.step(twin, (x[:size], y[:size]), training.cross_entropy, sgd)
            after[size].append(training.evaluate_accuracy(twin, [test]))
        left = f"{seen[size]:.3f}, test accuracy after one step {statistics.mean(after[size]):.3f}"
        print(f"  {size:>2} at a time: in training mode {left}")
    text = "three at a time in training mode, training digits have an accuracy of {} only"
    expect("threes", text, seen[3], at_most=0.7)
    text = "after one step from three of them, the test accuracy is {}"
    expect("short", text, statistics.mean(after[3]), at_most=0.5)
    return seen, after


# Pictures and helpers: skip on a first reading


def make_model(pixels: int, normalize: bool, cfg: Config, draw: int = 0) -> nn.Sequential:
    """`depth` times linear, batch norm if asked for, ReLU; then ten logits."""
    torch.manual_seed(1000 * cfg.seed + draw)
    layers = []
    for number in range(cfg.depth):
        layers.append(nn.Linear(cfg.width if number else pixels, cfg.width))
        # The scale that suits a plain net with ReLU (lesson 4.9).
        nn.init.kaiming_normal_(layers[-1].weight)
        if normalize:
            layers.append(BatchNorm(cfg.width))
        layers.append(nn.ReLU())
    return nn.Sequential(*layers, nn.Linear(cfg.width, 10))


def train_nets(cfg: Config, sets: list, normalize: bool, lr: float) -> tuple[list, list]:
    """Train by SGD, each net from other initial weights. Their test accuracies, and the nets."""
    (x, y), test = sets
    scores = []
    models = []
    for draw in range(cfg.draws):
        model = make_model(x.shape[1], normalize, cfg, draw)
        optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        seed = 1000 * cfg.seed + draw
        batches = Batches(x, y, batch_size=64, shuffle=True, seed=seed, drop_last=True)
        for _ in range(cfg.epochs):
            training.train_epoch(model, batches, training.cross_entropy, optimizer)
        scores.append(training.evaluate_accuracy(model, [test]))
        models.append(model)
    return scores, models


def accuracy_in_batches(model: nn.Module, x: Tensor, y: Tensor, size: int) -> float:
    """In training mode, so that each batch of `size` is normalized by its own statistics."""
    model = copy.deepcopy(model).train()
    batches = Batches(x, y, batch_size=size, drop_last=True)
    return statistics.mean(training.accuracy(model, b)["accuracy"].item() for b in batches)


def make_sets(cfg: Config) -> list[tuple[Tensor, Tensor]]:
    """Training and test data: pixels (n, D), standardized by the training data."""
    data = load_images(cfg, "digits")
    pixels = data.x_train
    sets = []
    for x, y in [(pixels, data.y_train), data.test()]:
        x = torch.from_numpy((x - pixels.mean()) / pixels.std())
        sets.append((x.flatten(1).float(), torch.from_numpy(y)))
    return sets


def draw_rates(cfg: Config, scores: dict[str, list], after: dict[int, list]) -> None:
    figure, (left, right) = new_figure(1, 2, size=(12, 4.8))
    for net, colour, shift in [("plain", ORANGE, 0.95), ("norm", BLUE, 1.05)]:
        for lr in RATES:
            row = scores[f"{net}_{lr:g}"]
            left.plot([lr * shift] * len(row), row, "o", color=colour)
    left.text(0.1, 0.8, "plain", color=ORANGE, fontweight="bold")
    left.text(0.1, 1.01, "batch norm", color=BLUE, fontweight="bold")
    left.set(xscale="log", xlabel="learning rate", ylabel="test accuracy", ylim=(0, 1.1))
    left.set_xticks(RATES, [f"{lr:g}" for lr in RATES])
    left.minorticks_off()
    left.set_title("At rate 1 only batch norm learns")

    for size, row in after.items():
        right.plot([str(size)] * len(row), row, "o", color=BLUE)
    right.set(xlabel="samples in the step", ylim=(0, 1.1))
    right.set_title("One more step at rate 1: few samples ruin the net")
    save_figure(figure, cfg.out / "rates")


def run(cfg: Config) -> dict:
    show_batch(cfg)
    show_modes(cfg)
    show_others(cfg)
    sets = make_sets(cfg)
    scores, models = show_rates(cfg, sets)
    seen, after = show_small(cfg, sets, models)
    draw_rates(cfg, scores, after)
    scores |= {"short": after[3], "full": after[64]}
    return {"threes": seen[3]} | {name: statistics.mean(row) for name, row in scores.items()}


if __name__ == "__main__":
    main(run, Config, __doc__)
