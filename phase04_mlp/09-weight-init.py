"""4.9 Weight initialisation: keep the size of the signal over 30 layers
权重初始化：让信号传过三十层

You will be able to answer
    1. How large should initial weights be?     show_signal    by-hand, kept, halved, default
    2. What do orthogonal weights keep?         show_lengths   columns, length, spread
    3. What if no formula fits the activation?  show_lsuv      unit, apart, alike
    4. Does it train with weights too small?    show_depth     shallow, naive, gradient
    5. Which initialisation lets it train?      show_training  overfits, depends, library, careful
Predict   naive: weights of size 0.01 give 0.91 of the digits with 3 layers. And with 30 layers?
Run       python phase04_mlp/09-weight-init.py                             about 30 s
Needs     phase03_pytorch/09-training-loop
Reference nn.init
Notation  N samples  I inputs  O outputs of a layer
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean

import torch
from torch import Tensor, nn

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.data.batches import Batches
from common.data.images import load_images
from common.figures import BLUE, GREY, ORANGE, RED, new_figure, save_figure
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
    """Glorot and Bengio 2010: variance between 1 / inputs (forward) and 1 / outputs (backward)."""
    inputs, outputs = fans(weight)
    return (2 / (inputs + outputs)) ** 0.5


def he_std(weight: Tensor) -> float:
    """He et al. 2015: a ReLU behind the layer halves the mean square: a variance of 2 / inputs."""
    inputs, _ = fans(weight)
    return (2 / inputs) ** 0.5


@torch.no_grad()
def fill_normal(weight: Tensor, std: float) -> None:
    weight.copy_(std * torch.randn_like(weight))


def mean_squares(std: float, cfg: Config) -> Tensor:
    """The mean square behind each ReLU of new nets with that standard deviation: (draws, layers).

    The signal is a vector of ones; there are no biases.
    """
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
    linear = torch.empty(2, 6)
    kernel = torch.empty(4, 2, 2, 2)
    found = [xavier_std(linear), he_std(linear), xavier_std(kernel), he_std(kernel)]
    text = "6 inputs and 2 outputs, and a 2x2 convolution from 2 to 4: as found on paper"
    check_close("by-hand", text, found, [0.5, (1 / 3) ** 0.5, (1 / 12) ** 0.5, 0.5])

    square = nn.Linear(cfg.width, cfg.width).weight.detach()
    signals = {
        "He": mean_squares(he_std(square), cfg),
        "Xavier": mean_squares(xavier_std(square), cfg),
        "nn.Linear": mean_squares(square.std().item(), cfg),
    }
    factors = {}
    for name, rows in signals.items():
        last = rows[:, -1].mean().item()
        # All layers together multiply by the factor of one, to the power of the depth.
        factors[name] = last ** (1 / cfg.layers)
        print(f"  {name:<9} mean of {cfg.draws} nets behind the last layer: {last:.2g}")
    text = "He: a layer multiplies the mean square by {}, so it keeps it"
    check("kept", text, factors["He"], above=0.95, below=1.05)
    text = "Xavier: by {}, a half"
    check("halved", text, factors["Xavier"], above=0.475, below=0.525)
    text = "weights as nn.Linear comes with them: by {}, a sixth"
    check("default", text, factors["nn.Linear"], above=0.155, below=0.178)
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


def show_lengths(cfg: Config, signals: dict[str, Tensor]) -> float:
    print("\n[2] Orthogonal weights without activation keep a length in every net")
    tall = torch.empty(6, 4)
    wide = torch.empty(4, 6)
    fill_orthogonal(tall, gain=2.0)
    fill_orthogonal(wide, gain=2.0)
    products = torch.stack([tall.T @ tall, wide @ wide.T])
    text = "gain 2: columns of a tall matrix, rows of a wide one are orthogonal, of length 2"
    check_close("columns", text, products, 4 * torch.eye(4).expand(2, 4, 4))

    h = torch.ones(64, dtype=torch.float64) / 8
    for _ in range(cfg.layers):
        weight = torch.empty(64, 64, dtype=torch.float64)
        fill_orthogonal(weight)
        h = weight @ h
    text = f"behind {cfg.layers} layers a length of 1 is {{}} away from 1"
    check_close("length", text, h.norm(), 1)

    last = signals["He"][:, -1]
    spread = (last.max() / last.min()).item()
    text = "He keeps it on average only: of the nets of [1] the largest has {} times the smallest"
    check("spread", text, spread, above=2)
    return spread


@torch.no_grad()
def lsuv(model: nn.Sequential, x: Tensor) -> None:
    """Layer-sequential unit variance (Mishkin and Matas 2016), measured with a batch x.

    Each linear layer in turn gets orthogonal weights, scaled so that the standard deviation of
    its outputs, over all samples and units, is 1.
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
    print("\n[3] LSUV: measure the signal with a batch, and divide it out")
    x = sets[0][0][:256]
    found = {}
    for activation in [nn.ReLU, nn.Sigmoid]:
        model = deep_net(cfg, activation)
        lsuv(model, x)
        found[activation] = deviations(model, x)
        print(f"  {activation.__name__}: standard deviation of all outputs, and between digits")
        for layer in [1, 5, cfg.layers - 1]:
            everything, between = found[activation][layer - 1]
            print(f"    behind layer {layer:>2}  {everything:.3f}  {between:.1g}")

    everything = torch.cat([found[nn.ReLU], found[nn.Sigmoid]])[:, 0]
    text = "ReLU and sigmoid: the standard deviation of all outputs is 1 behind every layer"
    check_close("unit", text, everything, torch.ones(len(everything)), atol=1e-3)
    text = "ReLU: behind the last layer digits still differ, by {}"
    check("apart", text, found[nn.ReLU][-1, 1].item(), above=0.05)
    text = "sigmoid: by {}, so it says the same about every digit"
    check("alike", text, found[nn.Sigmoid][-1, 1].item(), below=1e-3)


def show_depth(cfg: Config, sets: list) -> dict[str, float]:
    print("\n[4] Weights with the standard deviation 0.01, in 3 layers and in many")
    shallow = dataclasses.replace(cfg, layers=3)
    scores = {}
    scores["shallow"], _ = train_nets(shallow, sets, small_std)
    scores["naive"], _ = train_nets(cfg, sets, small_std)
    expect("shallow", "3 layers: accuracy {}", scores["shallow"], at_least=0.8)
    text = f"{cfg.layers} layers: accuracy {{}}, as if it always named one digit"
    expect("naive", text, scores["naive"], at_most=0.15)

    # The way back, before any training: what arrives at the first layer?
    (x, y), _ = sets
    largest = {}
    for std_of in [small_std, he_std]:
        model = deep_net(cfg, nn.ReLU, std_of)
        training.cross_entropy(model, (x[:64], y[:64])).backward()
        largest[std_of] = model[0].weight.grad.abs().max().item()
    print(f"  largest gradient in the first layer with He: {largest[he_std]:.2g}")
    expect("gradient", "with 0.01 it is {}: nothing comes back", largest[small_std], below=1e-20)
    return scores


def show_training(cfg: Config, sets: list) -> dict[str, float]:
    print(f"\n[5] {cfg.layers} layers on digits: the same net from four kinds of initial weights")
    (x, y), test = sets
    model = deep_net(cfg, nn.ReLU, he_std)
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)
    text = "He: 32 digits are learned by heart: the loss falls to {}"
    batch = (x[:32], y[:32])
    overfits("overfits", text, model, batch, training.cross_entropy, adam, steps=200)

    scores = {}
    scores["default"], _ = train_nets(cfg, sets, None)
    scores["xavier"], _ = train_nets(cfg, sets, xavier_std)
    scores["he"], _ = train_nets(cfg, sets, he_std)
    scores["lsuv"], model = train_nets(cfg, sets, None, measured=True)
    predicted = model(test[0]).argmax(dim=1)
    depends_on_input("depends", "LSUV: the answer depends on the digit", predicted, test[1])
    expect("library", "weights as nn.Linear comes with them: {}", scores["default"], at_most=0.3)
    print(f"  Xavier: {scores['xavier']:.3f}, He: {scores['he']:.3f}, LSUV: {scores['lsuv']:.3f}")
    text = "He and LSUV learn: the lower accuracy of the two is {}"
    expect("careful", text, min(scores["he"], scores["lsuv"]), at_least=0.8)
    return scores


# Pictures and helpers: skip on a first reading


def deep_net(
    cfg: Config, activation: type, std_of: Callable[[Tensor], float] | None = None
) -> nn.Sequential:
    """Hidden layers, all but one of `layers`, and ten logits.

    std_of: the standard deviation of a hidden weight; without it, as nn.Linear comes.
    """
    sizes = [64] + [cfg.hidden_dim] * (cfg.layers - 1)
    modules = []
    for inputs, outputs in pairwise(sizes):
        linear = nn.Linear(inputs, outputs)
        if std_of is not None:
            fill_normal(linear.weight, std_of(linear.weight))
            linear.bias.data.zero_()
        modules += [linear, activation()]
    return nn.Sequential(*modules, nn.Linear(sizes[-1], 10))


def small_std(weight: Tensor) -> float:
    return 0.01


@torch.no_grad()
def deviations(model: nn.Module, x: Tensor) -> Tensor:
    """The standard deviation behind each linear layer: over everything, and between the samples.

    The second is that of one unit, over the samples; root mean square of all units. (layers, 2)
    """
    found = []
    for layer in model:
        x = layer(x)
        if isinstance(layer, nn.Linear):
            # 0 if all samples give the same, however the units differ
            between = x.var(dim=0).mean().sqrt()
            found.append(torch.stack([x.std(), between]))
    return torch.stack(found)


def train_nets(
    cfg: Config, sets: list, std_of: Callable[[Tensor], float] | None, measured: bool = False
) -> tuple[float, nn.Sequential]:
    """Train nets from these initial weights, or LSUV's: mean test accuracy, and the last net."""
    (x, y), test = sets
    scores = []
    for net in range(cfg.nets):
        torch.manual_seed(1000 * cfg.seed + net)
        model = deep_net(cfg, nn.ReLU, std_of)
        if measured:
            lsuv(model, x[:256])
        optimizer = torch.optim.Adam(model.parameters(), lr=cfg.lr)
        batches = Batches(x, y, batch_size=64, shuffle=True, seed=net)
        for _ in range(cfg.epochs):
            training.train_epoch(model, batches, training.cross_entropy, optimizer)
        scores.append(training.evaluate_accuracy(model, [test]))
    return mean(scores), model


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
    layers = torch.arange(1, cfg.layers + 1)
    colours = [BLUE, ORANGE, RED]
    for (name, rows), colour, factor in zip(signals.items(), colours, [1, 1 / 2, 1 / 6]):
        axis.semilogy(layers, rows.T, color=colour, alpha=0.15, linewidth=1)
        axis.semilogy(layers, rows.mean(dim=0), color=colour, label=f"{name}, mean of the nets")
        axis.semilogy(layers, factor**layers, "--", color=GREY, linewidth=1.5)
    axis.plot([], [], "--", color=GREY, label="1, 1/2, 1/6 in each layer")
    axis.set(xlabel="layer", ylabel="mean square behind the ReLU")
    axis.set_title("He keeps the size of the signal; Xavier and nn.Linear do not")
    axis.legend(loc="lower left")
    save_figure(figure, cfg.out / "signal")


def run(cfg: Config) -> dict:
    signals = show_signal(cfg)
    spread = show_lengths(cfg, signals)
    sets = make_sets(cfg)
    show_lsuv(cfg, sets)
    scores = show_depth(cfg, sets)
    scores |= show_training(cfg, sets)
    draw_signal(cfg, signals)
    return {**scores, "spread": spread}


if __name__ == "__main__":
    main(run, Config, __doc__)
