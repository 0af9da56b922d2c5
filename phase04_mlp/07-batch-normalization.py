"""4.7 Batch normalisation: why deep nets stand a tenfold rate
批量归一化：为什么学习率能大十倍

You will be able to answer
    1. What does batch norm compute, what comes back?  show_batch   by-hand, train-mode, scale
    2. What does it do in evaluation, with no batch?   show_modes   running, eval-mode
    3. How do layer, group and RMS norm differ?        show_others  others, alone, companions
    4. What does a deep net gain from it?              show_rates   plain, diverges, fast, depends
    5. Can it learn, and does it from three samples?   show_rates   first-loss, overfits, short
Predict   short: what accuracy is left of 0.98 if each epoch ends with a batch of 3 samples?
Run       python phase04_mlp/07-batch-normalization.py                     about 30 s
Needs     phase03_pytorch/09-training-loop
Reference nn.BatchNorm1d, nn.BatchNorm2d, F.layer_norm, F.group_norm, F.rms_norm
Notation  N samples  C channels  H height  W width  D features
"""

from dataclasses import dataclass
from statistics import mean
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.data.batches import Batches
from common.data.images import load_images
from common.errors import LessonError
from common.figures import BLUE, ORANGE, RED, new_figure, save_figure
from common.lessons import load_lesson

training = load_lesson("phase03_pytorch/09-training-loop")
RATES = (0.1, 0.3, 1.0)


@dataclass
class Config(LessonConfig):
    threads = 1
    depth: int = param(8, "hidden layers")
    width: int = param(128, "units of a hidden layer", tiny=32)
    epochs: int = param(8, "passes over the data", tiny=2)
    draws: int = param(3, "first weights to try for each net", tiny=1)


def standardize(x: Tensor, axis: int, eps: float) -> tuple[Tensor, Tensor]:
    """x minus its mean, divided by its standard deviation, along one axis; and that deviation."""
    mean = x.mean(axis, keepdim=True)
    variance = (x - mean).square().mean(axis, keepdim=True)

    # Without eps a feature that never changes would become 0 / 0.
    std = (variance + eps).sqrt()
    return (x - mean) / std, std


class BatchNormFunction(torch.autograd.Function):
    """weight · x̂ + bias, each channel standardized over the samples. x: (N, C) -> (N, C).

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
    print("\n[1] Each channel gets mean 0 and deviation 1, then a weight and a bias")
    x = torch.tensor([[1.0], [3.0], [5.0], [7.0]], dtype=torch.float64, requires_grad=True)
    y = BatchNorm(1, eps=4.0).double()(x)
    y[3].backward()
    on_paper = [-1, -1 / 3, 1 / 3, 1, 0, -1 / 18, -1 / 9, 1 / 6]
    text = "1, 3, 5, 7 with eps = 4: outputs and gradients as found on paper"
    check_close("by-hand", text, torch.cat([y, x.grad])[:, 0], on_paper)

    results = {"ours": [], "torch": []}
    for x, *layers in pairs(nn.BatchNorm1d, nn.BatchNorm2d):
        for name, layer in zip(results, layers):
            results[name].append(with_gradients(layer(x), x, *layer.parameters()))
    text = "outputs, and the gradients of x, weight and bias, are torch's in 1d and 2d"
    check_close("train-mode", text, *map(torch.cat, results.values()))

    # A linear layer stands in front of batch norm: what if its weights are ten times as large?
    x = torch.randn(20, 6, dtype=torch.float64)
    weights = torch.randn(6, 6, dtype=torch.float64, requires_grad=True)
    tenfold = 10 * weights
    layer = BatchNorm(6, eps=0.0).double()
    small = with_gradients(layer(x @ weights), weights)
    large = with_gradients(layer(x @ tenfold), tenfold)
    large[-weights.numel() :] *= 10  # the gradients
    text = "weights 10 times as large in front of it: the same output, a tenth of the gradient"
    check_close("scale", text, large, small)


def show_modes(cfg: Config) -> None:
    print("\n[2] Training remembers means and variances; evaluation uses what was remembered")
    states = {"ours": [], "torch": []}
    results = {"ours": [], "torch": []}
    for x, *layers in pairs(nn.BatchNorm1d, nn.BatchNorm2d):
        for name, layer in zip(states, layers):
            for factor in [1, 2, 3]:
                layer(factor * x + factor)
            states[name] += [layer.running_mean, layer.running_var]
            y = layer.eval()(x)
            results[name].append(with_gradients(y, x, *layer.parameters()))
    text = "after three batches the running means and variances are torch's"
    check_close("running", text, *map(torch.cat, states.values()))
    text = "in evaluation, too, outputs and gradients are torch's in 1d and 2d"
    check_close("eval-mode", text, *map(torch.cat, results.values()))


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
    x = torch.randn(5, 6, 4, 4, dtype=torch.float64, requires_grad=True)
    w, b = torch.randn(2, 6, dtype=torch.float64)
    last = x.movedim(1, -1)  # (N, H, W, C), for the two that look along the last axis
    ours = [layer_norm(last, w, b), group_norm(x, 3, w, b), rms_norm(last, w)]
    theirs = [
        F.layer_norm(last, (6,), w, b, eps=1e-5),
        F.group_norm(x, 3, w, b, eps=1e-5),
        F.rms_norm(last, (6,), w, eps=1e-5),
    ]
    text = "the outputs of layer, group and RMS norm, and the gradients of x, are torch's"
    found = [with_gradients(y, x) for y in ours]
    wanted = [with_gradients(y, x) for y in theirs]
    check_close("others", text, torch.cat(found), torch.cat(wanted))

    changed = x.detach().clone()
    changed[1:] += 1 + torch.randn_like(changed[1:])  # all but sample 0
    last = changed.movedim(1, -1)
    after = [layer_norm(last, w, b), group_norm(changed, 3, w, b), rms_norm(last, w)]
    same = all(torch.equal(new[0], old[0]) for new, old in zip(after, ours))
    check("alone", "other samples change: these three give a sample the same output", same)
    layer = BatchNorm(6).double()
    change = (layer(changed) - layer(x))[0].abs().max().item()
    check("companions", "under batch norm its output moves by {}", change, above=0.1)


def show_rates(cfg: Config, sets: list) -> dict[str, list[float]]:
    print(f"\n[4] {cfg.depth} hidden layers at several rates, {cfg.draws} first weights each")
    (x, y), test = sets
    batch = (x[:64], y[:64])
    model = make_model(x.shape[1], True, cfg)
    first = training.cross_entropy(model, batch).item()
    text = "the first loss is {}, near ln 10 = 2.30: no class is preferred yet"
    check("first-loss", text, first, above=2.1, below=2.7)
    sgd = torch.optim.SGD(model.parameters(), lr=0.3)
    text = "64 digits are learned by heart: the loss falls to {}"
    overfits("overfits", text, model, batch, training.cross_entropy, sgd)

    scores = {}
    for lr in RATES:
        scores[f"plain_{lr:g}"], _ = trial(cfg, sets, False, lr)
        scores[f"norm_{lr:g}"], model = trial(cfg, sets, True, lr)
    # So far the last batch of an epoch, three samples, was only seen. Now it makes a step too.
    scores["short"], _ = trial(cfg, sets, True, 1.0, least=1)

    for name, row in scores.items():
        print(f"  {name:<9}  test accuracy " + "  ".join(f"{score:.3f}" for score in row))

    predicted = model(test[0]).argmax(dim=1)
    depends_on_input("depends", "the answer depends on the digit", predicted, test[1])
    text = "at rate 0.1 the plain net learns: accuracy {}, mean of the runs"
    expect("plain", text, mean(scores["plain_0.1"]), at_least=0.9)
    text = "at rate 1 it does not: its best run ends at {}"
    expect("diverges", text, max(scores["plain_1"]), at_most=0.3)
    text = "batch norm stands the tenfold rate: accuracy {}, mean of the runs"
    expect("fast", text, mean(scores["norm_1"]), at_least=0.95)
    text = "batch norm, rate 1, and one step an epoch from three samples: accuracy {}"
    expect("short", text, mean(scores["short"]), at_most=0.8)
    return scores


# Pictures and helpers: skip on a first reading


def pairs(*kinds: type) -> list[tuple[Tensor, nn.Module, nn.Module]]:
    """Inputs (N, C) and (N, C, H, W), each with our layer and torch's, of the same weights."""
    found = []
    for shape, kind in zip([(7, 3), (4, 3, 5, 2)], kinds):
        theirs = kind(3).double()
        ours = BatchNorm(3).double()
        for mine, other in zip(ours.parameters(), theirs.parameters()):
            nn.init.normal_(other)
            mine.data.copy_(other)
        x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
        found.append((3 + 2 * x, ours, theirs))
    return found


def with_gradients(y: Tensor, *inputs: Tensor) -> Tensor:
    """The output, and the gradients that a loss made of it sends to the inputs, in one row."""
    gradients = torch.autograd.grad((y**3).sum(), inputs, retain_graph=True)
    return torch.cat([values.detach().flatten() for values in (y, *gradients)])


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


def trial(cfg: Config, sets: list, normalize: bool, lr: float, least: int = 4) -> tuple:
    """Train by SGD from several first weights. Their test accuracies, and the last model.

    A batch of fewer than `least` samples is only seen: no step is made from it.
    """
    (x, y), test = sets
    scores = []
    for draw in range(cfg.draws):
        model = make_model(x.shape[1], normalize, cfg, draw)
        optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        batches = Batches(x, y, batch_size=64, shuffle=True, seed=1000 * cfg.seed + draw)
        for _ in range(cfg.epochs):
            model.train()
            for batch in batches:
                if len(batch[0]) < least:
                    model(batch[0])
                else:
                    training.step(model, batch, training.cross_entropy, optimizer)
        scores.append(training.evaluate_accuracy(model, [test]))
    return scores, model


def make_sets(cfg: Config) -> list[tuple[Tensor, Tensor]]:
    """Training and test data: pixels (n, D), standardized by the training data."""
    data = load_images(cfg, "digits")
    samples = (len(data.x_train) - 3) // 64 * 64 + 3  # the last batch of 64 has three
    pixels = data.x_train[:samples]
    sets = []
    for x, y in [(pixels, data.y_train[:samples]), data.test()]:
        x = torch.from_numpy((x - pixels.mean()) / pixels.std())
        sets.append((x.flatten(1).float(), torch.from_numpy(y)))
    return sets


def draw_rates(cfg: Config, scores: dict[str, list]) -> None:
    figure, axis = new_figure(size=(8, 4.8))
    for net, label, colour in [("plain", "plain", ORANGE), ("norm", "batch norm", BLUE)]:
        rows = [scores[f"{net}_{lr:g}"] for lr in RATES]
        axis.plot(RATES, [mean(row) for row in rows], "o-", color=colour, label=label)
    axis.plot([1.0] * cfg.draws, scores["short"], "x", color=RED, label="a step from 3 samples")
    axis.set(xscale="log", xlabel="learning rate", ylabel="test accuracy", ylim=(0, 1.05))
    axis.set_xticks(RATES, [f"{lr:g}" for lr in RATES])
    axis.minorticks_off()
    axis.set_title("Batch norm stands rates that stop the plain net")
    axis.legend(loc="lower left")
    save_figure(figure, cfg.out / "rates")


def run(cfg: Config) -> dict:
    show_batch(cfg)
    show_modes(cfg)
    show_others(cfg)
    scores = show_rates(cfg, make_sets(cfg))
    draw_rates(cfg, scores)
    return {name: mean(values) for name, values in scores.items()}


if __name__ == "__main__":
    main(run, Config, __doc__)
