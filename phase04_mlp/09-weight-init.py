"""4.9 Weight initialisation: keep the signal alive for 30 layers
权重初始化：让信号传过三十层

You will be able to answer
    1. How large should first weights be?         show_signal    by-hand, kept, halved, spread
    2. Are these the initialisations of PyTorch?  show_same      ks, columns, signs
    3. What do orthogonal weights do better?      show_lengths   length, gaussian
    4. What if no formula fits the activation?    show_lsuv      unit, angles, unseen
    5. Does it train without?  show_training  first-loss, overfits, depends, naive, careful
Predict   naive: weights of deviation 0.01, 30 layers: what share of digits is read rightly?
Run       python phase04_mlp/09-weight-init.py                             about 30 s
Needs     phase03_pytorch/09-training-loop
Reference nn.init
Notation  N samples  I inputs  O outputs of a layer
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean

import numpy as np
import torch
from scipy.stats import ks_2samp
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
    layers: int = param(30, "layers", tiny=10)
    width: int = param(256, "units of a layer whose signal is measured", low=64)
    draws: int = param(50, "nets to draw for a mean", tiny=20, low=2)
    hidden_dim: int = param(128, "units of a layer that is trained", tiny=64)
    epochs: int = param(8, "passes over the data", tiny=2)
    nets: int = param(2, "nets to train of each kind", tiny=1)
    lr: float = param(5e-4, "learning rate of Adam")


def fans(weight: Tensor) -> tuple[int, int]:
    """How many inputs an output of the layer has, and how many outputs an input reaches.

    weight: (O, I) of a linear layer, (O, I, height, width) of a convolution.
    """
    places = weight[0, 0].numel()  # 1, or height · width
    return weight.shape[1] * places, weight.shape[0] * places


def xavier_std(weight: Tensor) -> float:
    """Glorot and Bengio 2010: between 1 / inputs (forward) and 1 / outputs (backward)."""
    inputs, outputs = fans(weight)
    return (2 / (inputs + outputs)) ** 0.5


def he_std(weight: Tensor) -> float:
    """He et al. 2015: a ReLU behind the layer halves the mean square, so twice 1 / inputs."""
    inputs, _ = fans(weight)
    return (2 / inputs) ** 0.5


@torch.no_grad()
def fill_normal(weight: Tensor, std: float) -> None:
    weight.copy_(std * torch.randn_like(weight))


@torch.no_grad()
def fill_uniform(weight: Tensor, std: float) -> None:
    """Between ±bound, which has the variance bound² / 3."""
    bound = 3**0.5 * std
    weight.copy_(bound * (2 * torch.rand_like(weight) - 1))


def mean_squares(std: float, cfg: Config) -> Tensor:
    """The mean square behind each ReLU of new nets with that deviation: (draws, layers)."""
    # practice: Send a signal through new layers
    found = torch.empty(cfg.draws, cfg.layers)
    for draw in range(cfg.draws):
        h = torch.ones(cfg.width, dtype=torch.float64)
        for layer in range(cfg.layers):
            weight = torch.empty(cfg.width, cfg.width, dtype=torch.float64)
            fill_normal(weight, std)
            h = (weight @ h).clamp(min=0)
            found[draw, layer] = h.square().mean()
    return found
    # end practice


def show_signal(cfg: Config) -> dict[str, Tensor]:
    print(f"\n[1] {cfg.layers} layers with ReLU: what becomes of a signal of mean square 1?")
    linear, kernel = torch.empty(2, 6), torch.empty(4, 2, 2, 2)
    found = [xavier_std(linear), he_std(linear), xavier_std(kernel), he_std(kernel)]
    text = "6 inputs and 2 outputs, and a 2x2 convolution from 2 to 4: as found on paper"
    check_close("by-hand", text, found, [0.5, (1 / 3) ** 0.5, (1 / 12) ** 0.5, 0.5])

    square = torch.empty(cfg.width, cfg.width)
    signals = {"He": mean_squares(he_std(square), cfg)}
    signals["Xavier"] = mean_squares(xavier_std(square), cfg)
    # The relative variance of one draw, from the note: 1 + 5 / width for each layer, multiplied.
    depths = torch.arange(1, cfg.layers + 1)
    errors = (((1 + 5 / cfg.width) ** depths - 1) / cfg.draws) ** 0.5
    off = {}
    for name, factor in [("He", 1.0), ("Xavier", 0.5)]:
        ratios = signals[name].mean(dim=0) / factor**depths
        off[name] = ((ratios - 1).abs() / errors).max().item()
        print(f"  {name:<7} mean of {cfg.draws} nets, divided by the prediction: {ratios[-1]:.3f}")
    text = "He keeps it: behind no layer is the mean more than {} standard errors from 1"
    check("kept", text, off["He"], at_most=4)
    text = "Xavier loses half in each layer: at most {} standard errors from that"
    check("halved", text, off["Xavier"], at_most=4)
    last = signals["He"][:, -1]
    text = "a single net may be far off: the largest of them is {} times the smallest"
    check("spread", text, (last.max() / last.min()).item(), above=2)
    return signals


@torch.no_grad()
def fill_orthogonal(weight: Tensor, gain: float = 1.0) -> None:
    """gain times a random matrix (O, I) with orthonormal columns, or rows if there are fewer."""
    # practice: Orthogonal weights
    outputs, inputs = weight.shape
    gaussian = torch.randn(max(outputs, inputs), min(outputs, inputs), dtype=weight.dtype)
    q, r = torch.linalg.qr(gaussian)

    # QR leaves the sign of each column open. Fixed by r, all directions are equally likely.
    q = q * r.diagonal().sign()
    if outputs < inputs:
        q = q.T
    weight.copy_(gain * q)
    # end practice


def show_same(cfg: Config) -> None:
    print("\n[2] The same distributions as PyTorch's: the Kolmogorov–Smirnov distance")
    pairs = [
        (lambda w: fill_normal(w, he_std(w)), nn.init.kaiming_normal_),
        (lambda w: fill_uniform(w, he_std(w)), nn.init.kaiming_uniform_),
        (lambda w: fill_normal(w, xavier_std(w)), nn.init.xavier_normal_),
        (lambda w: fill_uniform(w, xavier_std(w)), nn.init.xavier_uniform_),
        (fill_orthogonal, nn.init.orthogonal_),
    ]
    distances = []
    for ours, theirs in pairs:
        layers = nn.Linear(256, 128), nn.Linear(256, 128)
        ours(layers[0].weight)
        theirs(layers[1].weight)
        samples = [layer.weight.detach().flatten() for layer in layers]
        distances.append(ks_2samp(*samples).statistic)
        print(f"  {theirs.__name__:<17} {distances[-1]:.4f}")
    # Two samples of 32,768 from one distribution come further apart once in 100,000 times.
    check("ks", "the largest distance of the five is {}", max(distances), at_most=0.0193)

    tall, wide = torch.empty(6, 4), torch.empty(4, 6)
    fill_orthogonal(tall, gain=2.0)
    fill_orthogonal(wide, gain=2.0)
    products = torch.stack([tall.T @ tall, wide @ wide.T])
    text = (
        "orthogonal, gain 2: the columns of a tall matrix, the rows of a wide one, as they should"
    )
    check_close("columns", text, products, 4 * torch.eye(4).expand(2, 4, 4))
    small = torch.empty(200, 3, 3)
    for weight in small:
        fill_orthogonal(weight)
    share = (small[:, 0, 0] > 0).float().mean().item()
    text = "no direction is preferred: in 200 draws the first entry is positive in a share of {}"
    check("signs", text, share, above=0.35, below=0.65)


def show_lengths(cfg: Config) -> None:
    print(f"\n[3] {cfg.layers} layers without activation: what becomes of a length?")
    lengths = {"orthogonal": [], "Gaussian": []}
    for name, row in lengths.items():
        for _ in range(5):
            h = torch.ones(64, dtype=torch.float64) / 8
            for _ in range(cfg.layers):
                weight = torch.empty(64, 64, dtype=torch.float64)
                if name == "orthogonal":
                    fill_orthogonal(weight)
                else:
                    fill_normal(weight, xavier_std(weight))
                h = weight @ h
            row.append(h.norm().item())
        print(f"  {name:<10} " + "  ".join(f"{length:.3f}" for length in row))
    text = "orthogonal weights keep it at 1 in every draw"
    check_close("length", text, lengths["orthogonal"], np.ones(5), rtol=1e-12)
    text = "Gaussian ones of the same mean square do not: the draws differ by a factor of {}"
    ratio = max(lengths["Gaussian"]) / min(lengths["Gaussian"])
    check("gaussian", text, ratio, above=1.1)


@torch.no_grad()
def lsuv(model: nn.Sequential, x: Tensor) -> None:
    """Layer-sequential unit variance (Mishkin and Matas 2016), measured with a batch x.

    Each linear layer in turn gets orthogonal weights, scaled so that its outputs deviate by 1.
    """
    # practice: Measure, and divide
    for layer in model:
        if isinstance(layer, nn.Linear):
            fill_orthogonal(layer.weight)
            layer.bias.zero_()

            # The layers in front are final by now, so x is what this layer will see.
            layer.weight /= layer(x).std()
        x = layer(x)
    # end practice


def show_lsuv(cfg: Config, sets: list) -> None:
    print("\n[4] LSUV: measure the signal with a batch, and divide it out")
    x = sets[0][0]
    deviations = []
    for activation in [nn.ReLU, nn.Sigmoid]:
        model = deep_net(cfg, activation)
        lsuv(model, x[:256])
        for batch in [x[:256], x[256:]]:
            deviations.append([])
            for layer in model:
                batch = layer(batch)
                if isinstance(layer, nn.Linear):
                    deviations[-1].append(batch.std().item())
    seen = np.array(deviations[::2])
    text = "ReLU and sigmoid: behind every layer the outputs deviate by 1"
    check_close("unit", text, seen, np.ones_like(seen), atol=1e-3)
    gram = model[0].weight.T @ model[0].weight
    text = "the columns of the first weights are at right angles and equally long"
    check_close("angles", text, gram / gram[0, 0], torch.eye(len(gram)))
    worst = np.abs(np.array(deviations[1::2]) - 1).max()
    check("unseen", "on digits not measured, at most {} away from 1", worst, below=0.3)


def show_training(cfg: Config, sets: list) -> dict[str, float]:
    print(f"\n[5] {cfg.layers} layers on digits: the same net from four kinds of first weights")
    (x, y), test = sets
    rules = {
        "naive": lambda w: fill_normal(w, 0.01),
        "he": lambda w: fill_normal(w, he_std(w)),
        "orthogonal": lambda w: fill_orthogonal(w, gain=2**0.5),
        "lsuv": None,
    }
    model = deep_net(cfg, nn.ReLU, rules["he"])
    batch = (x[:32], y[:32])
    first = training.cross_entropy(model, batch).item()
    text = "He: the first loss is {}, near ln 10 = 2.30: no class is preferred yet"
    check("first-loss", text, first, above=1.9, below=3.2)
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)
    text = "32 digits are learned by heart: the loss falls to {}"
    overfits("overfits", text, model, batch, training.cross_entropy, adam)

    scores = {name: [] for name in rules}
    for net in range(cfg.nets):
        for name, rule in rules.items():
            torch.manual_seed(1000 * cfg.seed + net)
            model = deep_net(cfg, nn.ReLU, rule)
            if name == "lsuv":
                lsuv(model, x[:256])
            train(model, x, y, cfg, net)
            scores[name].append(training.evaluate_accuracy(model, [test]))
    for name, row in scores.items():
        print(f"  {name:<11} test accuracy " + "  ".join(f"{score:.3f}" for score in row))
    predicted = model(test[0]).argmax(dim=1)
    depends_on_input("depends", "LSUV: the answer depends on the digit", predicted, test[1])

    means = {name: mean(row) for name, row in scores.items()}
    text = "weights of deviation 0.01: accuracy {}, which is guessing"
    expect("naive", text, means["naive"], at_most=0.15)
    worst = min(means["he"], means["orthogonal"], means["lsuv"])
    text = "He, orthogonal and LSUV learn: the lowest mean accuracy of the three is {}"
    expect("careful", text, worst, at_least=0.8)
    return means


# Pictures and helpers: skip on a first reading


def deep_net(
    cfg: Config, activation: type, rule: Callable[[Tensor], None] | None = None
) -> nn.Sequential:
    """Hidden layers, all but one of `layers`, and ten logits. The rule fills the hidden weights."""
    sizes = [64] + [cfg.hidden_dim] * (cfg.layers - 1)
    modules = []
    for inputs, outputs in pairwise(sizes):
        linear = nn.Linear(inputs, outputs)
        if rule is not None:
            rule(linear.weight)
            linear.bias.data.zero_()
        modules += [linear, activation()]
    return nn.Sequential(*modules, nn.Linear(sizes[-1], 10))


def train(model: nn.Module, x: Tensor, y: Tensor, cfg: Config, seed: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=cfg.lr)
    batches = Batches(x, y, batch_size=64, shuffle=True, seed=seed)
    for _ in range(cfg.epochs):
        training.train_epoch(model, batches, training.cross_entropy, optimizer)


def make_sets(cfg: Config) -> list[tuple[Tensor, Tensor]]:
    """Training and test data: pixels (n, 64), standardized by the training data."""
    data = load_images(cfg, "digits")
    pixels = data.x_train
    sets = []
    for x, y in [(pixels, data.y_train), data.test()]:
        x = torch.from_numpy((x - pixels.mean()) / pixels.std())
        sets.append((x.flatten(1).float(), torch.from_numpy(y)))
    return sets


def draw_signal(cfg: Config, signals: dict[str, Tensor]) -> None:
    figure, axis = new_figure(size=(8, 4.8))
    layers = range(1, cfg.layers + 1)
    for (name, rows), colour in zip(signals.items(), [BLUE, ORANGE]):
        axis.semilogy(layers, rows.T, color=colour, alpha=0.15, linewidth=1)
        axis.semilogy(layers, rows.mean(dim=0), color=colour, label=f"{name}, mean of the nets")
    axis.semilogy(layers, [0.5**n for n in layers], "--", color=GREY, label="half in each layer")
    axis.set(xlabel="layer", ylabel="mean square behind the ReLU")
    axis.set_title("He keeps the signal on average, single nets vary")
    axis.legend(loc="lower left")
    save_figure(figure, cfg.out / "signal")


def run(cfg: Config) -> dict:
    signals = show_signal(cfg)
    show_same(cfg)
    show_lengths(cfg)
    sets = make_sets(cfg)
    show_lsuv(cfg, sets)
    means = show_training(cfg, sets)
    draw_signal(cfg, signals)
    return means


if __name__ == "__main__":
    main(run, Config, __doc__)
