"""5.10 EfficientNet: scaling depth, width and resolution together
EfficientNet：深度、宽度、分辨率一起放大

You will be able to answer
    1. What does MBConv add to MobileNet's block?  show_block  whole, mean, off
    2. Is it the published network?                show_b0  b0, rates, dropout
    3. What does it cost to double one dimension?  show_costs  deeper, wider, larger
    4. How were B1 to B7 made from B0?             show_family  phi, parameters, products
    5. What helps in 4 passes?  show_scaling  overfits, depends, each, alone, finer, stride, longer
Predict   b7_products: how many times the products of B0 does B7 need?
          It is 3.1 times as deep, twice as wide, and takes pictures of 600 pixels instead of 224.
Run       python phase05_cnn/10-efficientnet.py                            about 40 s
Needs     phase03_pytorch/09-training-loop, phase05_cnn/09-mobilenet
Reference models.efficientnet_b0
Notation  B batch  C channels  H W picture  d w r factors of depth, width, resolution
"""

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models, ops

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.data.images import load_images
from common.data.tensors import to_tensors
from common.errors import LessonError
from common.figures import BLUE, GREEN, GREY, ORANGE, new_figure, save_figure
from common.lessons import load_lesson

mobilenet = load_lesson("phase05_cnn/09-mobilenet")
training_loop = load_lesson("phase03_pytorch/09-training-loop")

# B0, found by a search: times wider inside, filter side, stride, output channels, blocks.
B0 = [
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
]
# Width, depth, side of the pictures; billions of products, all as the paper states them.
FAMILY = {
    "B0": (1.0, 1.0, 224, 0.39),
    "B1": (1.0, 1.1, 240, 0.70),
    "B2": (1.1, 1.2, 260, 1.0),
    "B3": (1.2, 1.4, 300, 1.8),
    "B4": (1.4, 1.8, 380, 4.2),
    "B5": (1.6, 2.2, 456, 9.9),
    "B6": (1.8, 2.6, 528, 19),
    "B7": (2.0, 3.1, 600, 37),
}
STEP = (1.1, 1.2, 1.15)  # by what they grow when φ grows by 1: width, depth, side


@dataclass
class Config(LessonConfig):
    threads = 1
    data: str = param("shapes-hard", "data set", choices=("shapes-hard", "shapes"), tiny="shapes")
    epochs: int = param(4, "passes over 2,000 pictures", tiny=6)


def stochastic_depth(change: Tensor, rate: float, training: bool) -> Tensor:
    """Leave out what a block adds, for some pictures of a batch (B, C, H, W), in training only.

    The others get more of it, so that the mean stays. (Huang et al. 2016 drew once for a whole
    batch, and scaled in evaluation.)
    """
    # practice: Stochastic depth
    if not training:
        return change
    # One draw for each picture.
    is_kept = torch.rand(len(change), 1, 1, 1, device=change.device) >= rate
    return change * is_kept / (1 - rate)
    # end practice


class MBConv(mobilenet.InvertedResidual):
    """The block of MobileNet V3 with swish, a smaller squeeze, and stochastic depth."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, wider: int, rate: float
    ):
        # practice: From MobileNet's block
        hidden = wider * inputs
        # A quarter of the channels before widening: in V3 it is a quarter of those after it.
        squeezed = inputs // 4
        excite = mobilenet.SqueezeExcite(hidden, squeezed, nn.SiLU, nn.Sigmoid)
        super().__init__(inputs, hidden, outputs, kernel, stride, nn.SiLU, excite)
        self.rate = rate
        # end practice

    def forward(self, x: Tensor) -> Tensor:
        change = self.block(x)
        if not self.is_residual:
            return change
        return x + stochastic_depth(change, self.rate, self.training)


def divisible(channels: float) -> int:
    """The nearest multiple of 8, which processors like; but never under nine tenths of it."""
    # practice: A multiple of eight
    nearest = int(channels + 4) // 8 * 8
    if nearest < 0.9 * channels:
        nearest += 8
    return nearest
    # end practice


def make_efficientnet(width=1.0, depth=1.0, table=B0, stem=32, classes=1000) -> nn.Sequential:
    """Tan and Le 2019. width and depth multiply the channels and the blocks of each row."""
    # practice: Scale the table
    channels = divisible(width * stem)
    layers = [mobilenet.conv_norm(3, channels, stride=2, activation=nn.SiLU)]
    total = sum(math.ceil(depth * blocks) for *_, blocks in table)
    for wider, kernel, first_stride, outputs, blocks in table:
        outputs = divisible(width * outputs)
        for number in range(math.ceil(depth * blocks)):
            stride = first_stride if number == 0 else 1
            # len(layers) - 1 blocks stand in front of this one; later ones are left out more often.
            rate = 0.2 * (len(layers) - 1) / total
            layers.append(MBConv(channels, outputs, kernel, stride, wider, rate))
            channels = outputs

    layers.append(mobilenet.conv_norm(channels, 4 * channels, kernel=1, activation=nn.SiLU))
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2)]
    return nn.Sequential(*layers, *head, nn.Linear(4 * channels, classes))
    # end practice


def show_block(cfg: Config) -> None:
    print("\n[1] Stochastic depth: in training, a block adds nothing to one picture in four")
    change = 1 + torch.rand(20000, 2, 3, 1).double()
    factors = (stochastic_depth(change, 0.25, training=True) / change).flatten(1)
    shown = "  ".join(f"{factor:.2f}" for factor in factors[:4, 0].tolist())
    print(f"  what is added to the first four pictures is multiplied by {shown}")
    wanted = torch.where(factors[:, :1] > 0, 4 / 3, 0.0).expand(-1, 6)
    check_close("whole", "a whole picture is multiplied by 0, or by 1 / 0.75", factors, wanted)
    check("mean", "the mean factor is {}", factors.mean().item(), above=0.985, below=1.015)

    block = MBConv(8, 8, 3, 1, 6, 0.25).eval()
    x = torch.randn(4, 8, 5, 7)
    text = "in evaluation every picture gets the whole block"
    check_close("off", text, block(x), x + block.block(x))


def show_b0(cfg: Config) -> None:
    print("\n[2] B0 with torchvision's weights, made random first")
    theirs = models.efficientnet_b0(weights=None).double().eval()
    mobilenet.randomise(theirs)
    ours = make_efficientnet().double().eval()
    copy_weights(ours, theirs)
    x = torch.randn(2, 3, 64, 96).double()
    check_close("b0", "B0 gives the logits of torchvision's, up to {}", ours(x), theirs(x))

    # In evaluation nothing is left out: how often it would be is compared by itself.
    rates = [layer.rate for layer in ours.modules() if isinstance(layer, MBConv)]
    wanted = [layer.p for layer in theirs.modules() if isinstance(layer, ops.StochasticDepth)]
    check_close("rates", "its 16 blocks are left out as often as torchvision's", rates, wanted)
    dropouts = [layer.p for layer in ours.modules() if isinstance(layer, nn.Dropout)]
    check_close("dropout", "one dropout stands before the last layer: 0.2", dropouts, [0.2])


def count(width: float, depth: float, side: int) -> tuple[int, int]:
    """Parameters, and products for one picture, of B0 scaled so."""
    with torch.device("meta"):  # shapes without numbers
        model = make_efficientnet(width, depth)
        products = mobilenet.multiply_adds(model, torch.empty(1, 3, side, side))
    return sum(weight.numel() for weight in model.parameters()), products


def show_costs(cfg: Config) -> None:
    print("\n[3] B0, and B0 with one of its dimensions doubled")
    base_size, base_products = count(1, 1, 224)
    factors = {}
    for name, setting in {"depth": (1, 2, 224), "width": (2, 1, 224), "side": (1, 1, 448)}.items():
        size, products = count(*setting)
        factors[name] = products / base_products
        print(f"  {name:<5} · 2: {size / base_size:.2f} times the parameters")
    text = "twice the blocks: {} times the products"
    check("deeper", text, factors["depth"], above=1.9, below=2.1)
    text = "twice the channels: {} times, for most layers have twice the inputs and the outputs"
    check("wider", text, factors["width"], above=3.5, below=4)
    text = "twice the side of the pictures: {} times, for all maps have four times the places"
    check("larger", text, factors["side"], above=3.9, below=4.01)


def show_family(cfg: Config) -> dict[str, float]:
    print("\n[4] B0 to B7: width w, depth d and side r grow together, each by about φ steps")
    w, d, r = STEP
    print(f"  a step of w · {w}, d · {d}, r · {r}: {d * w**2 * r**2:.2f} times the products")
    print("        w    d  side   parameters      products    of B0's   φ by w    d    r")
    found = {}
    for name in ["B0", "B2", "B3", "B7"] if cfg.tiny else FAMILY:
        width, depth, side, published = FAMILY[name]
        size, products = count(width, depth, side)
        # factor = base ** φ, so φ = log(factor) / log(base)
        factors = zip((width, depth, side / 224), STEP, strict=True)
        steps = [math.log(factor) / math.log(base) for factor, base in factors]
        error = abs(products / 1e9 / published - 1)
        found[name] = (size, products, max(steps) - min(steps), error)

        factor = products / found["B0"][1]
        print(f"  {name}  {width:.1f}  {depth:.1f}   {side}  {size:11,}  {products:14,}", end="")
        print(f"  {factor:7.1f}      {steps[0]:4.1f} {steps[1]:4.1f} {steps[2]:4.1f}")
    sizes, _, apart, errors = zip(*found.values(), strict=True)
    text = "of each, width, depth and side tell about one φ: at most {} steps apart"
    check("phi", text, max(apart), at_most=1.2)
    weights = [models.get_model_weights(f"efficientnet_{name.lower()}").DEFAULT for name in found]
    stated = [each.meta["num_params"] for each in weights]
    check_close("parameters", "as many parameters as torchvision's have", sizes, stated)
    text = "as many products as the paper says; at most a share of {} apart"
    check("products", text, max(errors), at_most=0.05)
    return {"b7_products": factor}


# One row of blocks for pictures of 16x16, and ways to spend up to four times as much on it.
SMALL = [(3, 3, 2, 40, 2)]
FINE = [(3, 3, 1, 40, 2)]  # the same row without its stride
WAYS = {  # width, depth, side of the pictures, times as many passes
    "base": (1.0, 1.0, 16, 1),
    "width": (2.0, 1.0, 16, 1),
    "together": (1.2, 1.5, 20, 1),
    "side_20": (1.0, 1.0, 20, 1),  # only the side of `together`
    "longer": (1.0, 1.0, 16, 3),
    "fine": (1.0, 1.0, 16, 1),  # the table FINE: maps of 8x8 to the end, not of 4x4
    "enlarged": (1.0, 1.0, 32, 1),  # 16x16 as before, each pixel written four times
}


def show_scaling(cfg: Config) -> tuple[dict[str, float], dict[str, float]]:
    print("\n[5] A small network on hard shapes of 16x16 pixels, and ways to spend more on it")
    data = load_images(cfg)
    x, y = to_tensors(data.x_train[:2000], data.y_train[:2000])
    x_test, y_test = to_tensors(*data.test())
    model = make_efficientnet(table=SMALL, stem=16, classes=10)
    adam = torch.optim.Adam(model.parameters(), lr=0.01)
    text = "base: 32 shapes are learned by heart: the loss falls to {}"
    batch = (resize(x[:32], 16), y[:32])
    overfits("overfits", text, model, batch, mobilenet.cross_entropy, adam, steps=100)

    scores = dict.fromkeys(WAYS, math.nan)  # a tiny run trains only the last one
    costs = {}
    for name in ["enlarged"] if cfg.tiny else WAYS:
        width, depth, side, times = WAYS[name]
        train, test = (resize(pictures, side) for pictures in (x, x_test))
        if name == "enlarged":
            train, test = (resize(resize(pictures, 16), side) for pictures in (x, x_test))
        torch.manual_seed(cfg.seed)
        table = FINE if name == "fine" else SMALL
        model = make_efficientnet(width, depth, table, stem=16, classes=10)
        model.to(memory_format=torch.channels_last)  # in memory; faster for depthwise layers
        longer = replace(cfg, epochs=times * cfg.epochs)
        mobilenet.learn(model, (train, y), longer)
        scores[name] = training_loop.evaluate_accuracy(model, [(test, y_test)])
        products = mobilenet.multiply_adds(model, test[:1])
        costs[name] = longer.epochs * products / 1e6
        print(f"  {name:<8}  {products:9,} products, {longer.epochs:2} passes:", end="")
        print(f" {costs[name]:.1f} million a picture, accuracy {scores[name]:.3f}")
    with torch.no_grad():
        predicted = model(test).argmax(dim=1)  # of `enlarged`, which was trained last
    depends_on_input("depends", "enlarged: the answer depends on the shape", predicted, y_test)

    text = "a little of each reads {} more than twice the width"
    expect("each", text, scores["together"] - scores["width"], at_least=0.01)
    text = "of what it gains over base, its side of 20 alone brings most: a share of {}"
    share = (scores["side_20"] - scores["base"]) / (scores["together"] - scores["base"])
    expect("alone", text, share, at_least=0.5)
    text = "16x16, each pixel written four times, shows nothing new: {} more than a little of each"
    expect("finer", text, scores["enlarged"] - scores["together"], at_least=0.03)
    text = "16x16 without the blocks' stride: a share of {} of what enlarging gains over base"
    share = (scores["fine"] - scores["base"]) / (scores["enlarged"] - scores["base"])
    expect("stride", text, share, at_least=0.4)
    text = "base, trained three times as long, costs less and reads {} more than a little of each"
    expect("longer", text, scores["longer"] - scores["together"], at_least=-0.06, at_most=0.1)
    return scores, costs


# Pictures and helpers: skip on a first reading


def copy_weights(ours: nn.Module, theirs: nn.Module) -> None:
    """Our names differ from torchvision's, the order of the layers does not."""
    mine = list(ours.state_dict().items())
    wanted = list(theirs.state_dict().items())
    for (name, values), (their_name, their_values) in zip(mine, wanted, strict=False):
        shape, their_shape = tuple(values.shape), tuple(their_values.shape)
        if shape != their_shape:
            message = f"the first weights that do not fit: {name} has the shape {shape}, "
            raise LessonError(message + f"torchvision's {their_name} has {their_shape}.")
    if len(mine) != len(wanted):
        message = f"the network has {len(mine)} tensors of weights and statistics, "
        raise LessonError(message + f"torchvision's has {len(wanted)}.")
    names = [name for name, _ in mine]
    ours.load_state_dict(dict(zip(names, theirs.state_dict().values(), strict=True)))


def resize(x: Tensor, side: int) -> Tensor:
    """Pictures with another side: adaptive average pooling of 5.2, which also enlarges."""
    return F.adaptive_avg_pool2d(x, side)


def draw_scaling(cfg: Config, scores: dict[str, float], costs: dict[str, float]) -> None:
    figure, (left, right) = new_figure(1, 2, size=(13, 4.4))
    widths, depths, sides, _ = zip(*FAMILY.values(), strict=True)
    left.plot(list(FAMILY), depths, "o-", color=BLUE, label="depth")
    left.plot(list(FAMILY), [side / 224 for side in sides], "o-", color=GREEN, label="side")
    left.plot(list(FAMILY), widths, "o-", color=ORANGE, label="width")
    left.set(ylabel="factor", title="From B0 to B7 all three grow")
    left.legend()

    names = {
        "base": "not scaled",
        "width": "width · 2",
        "together": "a little of each",
        "side_20": "only its side, 20",
        "longer": "not scaled, 3 times the passes",
        "fine": "no stride in the blocks",
        "enlarged": "16x16 enlarged to 32x32",
    }
    labels = [f"{names.get(name, name)} ({cost:.1f})" for name, cost in costs.items()]
    finer = ("together", "side_20", "fine", "enlarged")
    colours = [GREEN if name in finer else GREY for name in costs]
    right.barh(labels, [scores[name] for name in costs], color=colours)
    right.axvline(scores["base"], color=BLUE)
    right.invert_yaxis()
    title = "Finer maps (green) and more passes help"
    xlabel = "accuracy\n(in brackets: million products a picture, in all passes)"
    right.set(xlabel=xlabel, xlim=(0, 1), title=title)
    right.grid(axis="y", visible=False)
    save_figure(figure, cfg.out / "scaling")


def run(cfg: Config) -> dict:
    show_block(cfg)
    show_b0(cfg)
    show_costs(cfg)
    metrics = show_family(cfg)
    scores, costs = show_scaling(cfg)
    draw_scaling(cfg, scores, costs)
    return metrics | scores | {f"{name}_cost": cost for name, cost in costs.items()}


if __name__ == "__main__":
    main(run, Config, __doc__)
