"""5.9 MobileNet: a ninth of the products
MobileNet：九分之一的乘法次数

You will be able to answer
    1. What does a separable convolution compute?          show_separable  by-hand, product
    2. How many products does it save, and how much time?  show_cost       ratio, v1, pair
    3. When does an inverted residual add its input?       show_block      joined
    4. How fast are the published networks?  show_published  v2, v3, v2-faster, v3-faster
    5. Which block learns more in less time?  show_training  overfits, depends, slower, more
Predict   v2_faster: V2 multiplies a sixth as often as ResNet-18. How many times faster is it?
Run       python phase05_cnn/09-mobilenet.py                           about a minute
Needs     phase03_pytorch/09-training-loop, phase05_cnn/01-convolution-basics
Reference F.conv2d, models.mobilenet_v2, models.mobilenet_v3_large
Notation  B batch  C input channels  O output channels  H W picture  k side of a filter
"""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models

from common.checks import check, check_close, depends_on_input, expect, overfits, timed
from common.config import LessonConfig, main, param
from common.data.batches import Batches
from common.data.images import load_images
from common.data.tensors import to_tensors
from common.figures import BLUE, ORANGE, new_figure, save_figure
from common.lessons import load_lesson
from common.training import fit

convolution = load_lesson("phase05_cnn/01-convolution-basics")
training_loop = load_lesson("phase03_pytorch/09-training-loop")
cross_entropy = training_loop.cross_entropy


@dataclass
class Config(LessonConfig):
    threads = 1
    data: str = param("shapes-hard", "data set", choices=("shapes-hard", "shapes"), tiny="shapes")
    side: int = param(224, "rows and columns of the picture that is timed", tiny=32, low=32)
    epochs: int = param(4, "passes over 3,000 pictures", tiny=6)
    runs: int = param(2, "times that each network is trained", tiny=1)


def separable_conv(x: Tensor, filters: Tensor, mixing: Tensor, stride=1, padding=0) -> Tensor:
    """x (B, C, H, W), filters (C, k, k), mixing (O, C) -> (B, O, rows, columns)"""
    # practice: Filter, then mix
    x = F.pad(x, [padding] * 4)
    patches = convolution.windows(x, filters.shape[1:], stride, 1)  # (B, C, k, k, rows, columns)

    # Depthwise: each channel has a filter of its own, and there is no sum over the channels.
    filtered = torch.einsum("bcijrs,cij->bcrs", patches, filters)

    # Pointwise: at each position O weighted sums of the channels.
    return torch.einsum("bcrs,oc->bors", filtered, mixing)
    # end practice


def show_separable(cfg: Config) -> None:
    print("\n[1] Filter each channel by itself (depthwise), then mix the channels (pointwise)")
    x = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [1.0, 0.0]]])[None]
    filters = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]]])
    mixing = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
    print("  channels [1 2; 3 4] and [0 1; 1 0], filters [1 0; 0 1] and [1 1; 1 1]: 5 and 2")
    text = "mixed: 1 · 5 + 2 · 2 = 9 and 3 · 5 - 1 · 2 = 13, as on paper"
    check_close("by-hand", text, separable_conv(x, filters, mixing).flatten(), [9.0, 13.0])

    x = torch.randn(2, 5, 9, 12).double()
    filters = torch.randn(5, 3, 3).double()
    mixing = torch.randn(7, 5).double()
    products = mixing[:, :, None, None] * filters  # (7, 5, 3, 3)
    theirs = F.conv2d(x, products, stride=4, padding=1)
    text = "as one ordinary convolution in which all filters for a channel are multiples of one"
    check_close("product", text, separable_conv(x, filters, mixing, 4, 1), theirs)


def conv_norm(inputs, outputs, stride=1, kernel=3, groups=1, activation=nn.ReLU) -> nn.Sequential:
    """Convolution, batch norm, activation. (B, inputs, H, W) -> (B, outputs, H / stride, …)"""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), activation())


def separable(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """What `conv_norm` does, in two steps."""
    filtering = conv_norm(inputs, inputs, stride, groups=inputs)
    mixing = conv_norm(inputs, outputs, kernel=1)
    return nn.Sequential(filtering, mixing)


# V1 (Howard et al. 2017): output channels and stride of each block.
V1 = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *5 * [(512, 1)], (1024, 2)]
V1 = [*V1, (1024, 1)]


def make_v1(block, table, stem=32, classes=1000) -> nn.Sequential:
    """(B, 3, H, W) -> (B, classes). block: `separable`, or `conv_norm` for comparison."""
    layers = [conv_norm(3, stem, stride=2)]
    channels = stem
    for outputs, stride in table:
        layers.append(block(channels, outputs, stride))
        channels = outputs
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]
    return nn.Sequential(*layers, *head)


def multiply_adds(model: nn.Module, x: Tensor) -> int:
    """How many products convolutions and linear layers add up for x; in 5.8 hooks counted them."""
    with FlopCounterMode(display=False) as counter:
        model.eval()(x)
    return counter.get_total_flops() // 2  # torch counts the sums too


def show_cost(cfg: Config) -> dict[str, float]:
    print("\n[2] For each place and input channel, O · 9 products become 9 + O")
    x = torch.randn(1, 12, 7, 10)
    shares = []
    for outputs in (3, 12, 64, 512):
        pair, full = (multiply_adds(block(12, outputs, 1), x) for block in (separable, conv_norm))
        print(f"  12 to {outputs:3} channels, 7x10 places: {full:9,} products become {pair:7,}")
        shares.append(pair / full)
    text = "with O output channels that is 1/O + 1/9 of them, up to {}"
    check_close("ratio", text, shares, [1 / outputs + 1 / 9 for outputs in (3, 12, 64, 512)])

    with torch.device("meta"):  # shapes without numbers
        networks = [make_v1(block, V1) for block in (separable, conv_norm)]
        counts = [multiply_adds(model, torch.empty(1, 3, 224, 224)) for model in networks]
    text = "all of V1: the paper's 569 million, with ordinary convolutions its 4,866, up to {}"
    check_close("v1", text, [count / 1e6 for count in counts], [569, 4866], atol=1.5)

    x = torch.randn(1, 128, 28, 28)
    pair, full = (partial(block(128, 128, 1).eval(), x) for block in (separable, conv_norm))
    text = "a block of V1, 128 channels of 28x28: 8.4 times fewer products, {} times as fast"
    with torch.inference_mode():
        faster = timed("pair", text, full, pair, at_least=1.5, repeats=9)
    return {"v1_fewer": counts[1] / counts[0], "pair_faster": faster}


class InvertedResidual(nn.Module):
    """Widen, filter each channel, excite (V3 only), narrow. (B, C, H, W) -> (B, O, …)"""

    def __init__(self, inputs, hidden, outputs, kernel, stride, activation, excite):
        super().__init__()
        # practice: Widen, filter, narrow
        layers = []
        if hidden != inputs:
            layers.append(conv_norm(inputs, hidden, kernel=1, activation=activation))
        layers += [conv_norm(hidden, hidden, stride, kernel, hidden, activation), excite]

        # No activation behind the narrowing: of the few numbers there a ReLU would set half to 0.
        layers.append(conv_norm(hidden, outputs, kernel=1, activation=nn.Identity))
        self.block = nn.Sequential(*layers)
        self.is_residual = stride == 1 and inputs == outputs
        # end practice

    def forward(self, x: Tensor) -> Tensor:
        change = self.block(x)
        return x + change if self.is_residual else change


def show_block(cfg: Config) -> None:
    print("\n[3] Widen, filter, narrow; the input is added where the output has its shape")
    blocks = [inverted(4, 4, 1), inverted(4, 4, 2), inverted(4, 6, 1)]
    text = "it is added for 4 to 4 channels, but not with stride 2, nor for 4 to 6"
    check("joined", text, [block.is_residual for block in blocks] == [True, False, False])


class SqueezeExcite(nn.Module):
    """Multiply each channel by a number that depends on the whole picture (Hu et al. 2018)."""

    def __init__(self, channels, squeezed, activation=nn.ReLU, gate=nn.Hardsigmoid):
        super().__init__()
        squeeze = [nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, squeezed, 1), activation()]
        excite = [nn.Conv2d(squeezed, channels, 1), gate()]  # from 0 to 1
        self.weights = nn.Sequential(*squeeze, *excite)  # (B, C, H, W) -> (B, C, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weights(x)


def show_published(cfg: Config) -> dict[str, float]:
    print("\n[4] V2 and V3: torchvision's weights, the number of products, and the clock")
    x = torch.randn(2, 3, 64, 96).double()
    for name, reference in [("V2", models.mobilenet_v2), ("V3", models.mobilenet_v3_large)]:
        theirs = reference(weights=None).double().eval()
        randomise(theirs)
        ours = make_mobilenet(name).double().eval()
        # Our names differ, the order of the layers does not.
        state = zip(ours.state_dict(), theirs.state_dict().values(), strict=True)
        ours.load_state_dict(dict(state))
        text = f"{name} gives torchvision's logits, up to {{}}"
        check_close(name.lower(), text, ours(x), theirs(x))

    networks = [models.resnet18(), make_mobilenet("V2"), make_mobilenet("V3")]
    x = torch.randn(1, 3, 224, 224)
    counts = [multiply_adds(model, x) for model in networks]
    published = {"ResNet-18": 69.8, "V2": 71.9, "V3": 74.0}  # by torchvision, not measured here
    for name, count in zip(published, counts):
        print(f"  {name:<9}  {count:13,} products, accuracy on ImageNet {published[name]:.1f} %")

    resnet, v2, v3 = (partial(model, x[:, :, : cfg.side, : cfg.side]) for model in networks)
    metrics = {"v2_fewer": counts[0] / counts[1], "v3_fewer": counts[0] / counts[2]}
    with torch.inference_mode():
        text = "one picture at a time, one thread: V2 is {} times as fast as ResNet-18"
        metrics["v2_faster"] = timed("v2-faster", text, resnet, v2, at_least=1.3)
        metrics["v3_faster"] = timed("v3-faster", "V3: {} times as fast", resnet, v3, at_least=1.3)
    return metrics


def show_training(cfg: Config) -> dict[str, float]:
    print("\n[5] Which blocks learn more of hard shapes? And with a ReLU behind the narrowing?")
    data = load_images(cfg)
    train = to_tensors(data.x_train[:3000], data.y_train[:3000])
    test = to_tensors(*data.test())
    narrow = [(20, 2), (20, 1), (32, 2)]
    # Block; channels and stride of each; channels of the first layer; highest rate (the note).
    kinds = {
        "ordinary": (conv_norm, [(48, 2), *2 * [(48, 1)], (72, 2), *2 * [(72, 1)]], 24, 0.003),
        "separable": (separable, [(48, 2), (48, 1), (96, 2), (96, 1)], 16, 0.01),
        "inverted": (inverted, narrow, 12, 0.03),
        "relu": (partial(inverted, behind=nn.ReLU), narrow, 12, 0.03),
    }
    model = make_v1(inverted, narrow, 12, classes=10)
    batch = (train[0][:32], train[1][:32])
    adam = torch.optim.Adam(model.parameters(), lr=0.01)
    text = "inverted residuals: 32 shapes are learned by heart: the loss falls to {}"
    overfits("overfits", text, model, batch, cross_entropy, adam, steps=30)

    scores = {}
    trained = {}
    for name, (block, table, stem, rate) in kinds.items():
        found = []
        for number in range(cfg.runs):
            torch.manual_seed(10 * cfg.seed + number)
            model = make_v1(block, table, stem, classes=10)
            model.to(memory_format=torch.channels_last)  # the same sums, in less time
            learn(model, train, cfg, rate)
            found.append(round(training_loop.evaluate_accuracy(model, [test]), 3))
        print(f"  {name:<9}  {multiply_adds(model, test[0][:1]):9,} products, accuracies {found}")
        scores[name] = sum(found) / cfg.runs
        trained[name] = model.eval()
    predicted = trained["inverted"](test[0]).argmax(dim=1)
    depends_on_input("depends", "inverted: the answer depends on the shape", predicted, test[1])

    pair = [partial(learn, trained[name], batch, cfg) for name in ("ordinary", "inverted")]
    text = "ordinary blocks take {} times as long as inverted residuals to learn from 32 pictures"
    scores["as_long"] = timed("slower", text, *pair, at_least=1, repeats=9)
    text = "yet on average inverted residuals read {} more"
    expect("more", text, scores["inverted"] - scores["ordinary"], at_least=0.02)
    more = scores["inverted"] - scores["relu"]  # no claim: it goes from 0.01 to 0.2 by seed
    print(f"  without a ReLU behind the narrowing they read {more:.2f} more than with one")
    return scores


# Pictures and helpers: skip on a first reading


# The papers' tables, a column for each block. squeezed: channels, 0 without squeeze and excite.
BLOCKS = {
    "V2": {
        "kernel": [3] * 17,
        "hidden": [32, 96, 144, 144, *[192] * 3, *[384] * 4, *[576] * 3, *[960] * 3],
        "outputs": [16, 24, 24, *[32] * 3, *[64] * 4, *[96] * 3, *[160] * 3, 320],
        "squeezed": [0] * 17,
        "stride": [1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1],
        "activation": [nn.ReLU6] * 17,
    },
    "V3": {
        "kernel": [3, 3, 3, 5, 5, 5, 3, 3, 3, 3, 3, 3, 5, 5, 5],
        "hidden": [16, 64, 72, 72, 120, 120, 240, 200, 184, 184, 480, 672, 672, 960, 960],
        "outputs": [16, 24, 24, 40, 40, 40, 80, 80, 80, 80, 112, 112, 160, 160, 160],
        "squeezed": [0, 0, 0, 24, 32, 32, 0, 0, 0, 0, 120, 168, 168, 240, 240],
        "stride": [1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1],
        "activation": [nn.ReLU] * 6 + [nn.Hardswish] * 9,
    },
}


def make_mobilenet(name: str) -> nn.Sequential:
    """V2 (Sandler et al. 2018) or V3, the large one (Howard et al. 2019), for 1,000 classes."""
    stem, width, activation = {"V2": (32, 1280, nn.ReLU6), "V3": (16, 960, nn.Hardswish)}[name]
    layers = [conv_norm(3, stem, stride=2, activation=activation)]
    channels = stem
    for kernel, hidden, outputs, squeezed, stride, inner in zip(*BLOCKS[name].values()):
        excite = SqueezeExcite(hidden, squeezed) if squeezed else nn.Identity()
        layers.append(InvertedResidual(channels, hidden, outputs, kernel, stride, inner, excite))
        channels = outputs
    layers.append(conv_norm(channels, width, kernel=1, activation=activation))
    hidden = [nn.Linear(width, 1280), nn.Hardswish()] if name == "V3" else []
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), *hidden, nn.Dropout(0.2)]
    model = nn.Sequential(*layers, *head, nn.Linear(1280, 1000))
    for layer in model.modules():
        if name == "V3" and isinstance(layer, nn.BatchNorm2d):
            layer.eps = 1e-3
    return model


@torch.no_grad()
def randomise(model: nn.Module) -> None:
    """Other weights and statistics everywhere: fresh ones are 0 and 1, which hides faults."""
    for values in model.state_dict().values():
        if values.ndim > 1:
            values.normal_(std=(2 / values[0].numel()) ** 0.5)
        elif values.is_floating_point():
            values.uniform_(0.5, 1.5)


def inverted(inputs: int, outputs: int, stride: int, behind=nn.Identity) -> InvertedResidual:
    """behind: the activation of the narrowing layer."""
    block = InvertedResidual(inputs, 3 * inputs, outputs, 3, stride, nn.ReLU, nn.Identity())
    block.block[-1][-1] = behind()
    return block


def learn(model: nn.Module, train: tuple[Tensor, Tensor], cfg: Config, highest=0.01) -> None:
    """Adam, with a rate that rises to `highest` and falls again."""
    batches = Batches(*train, batch_size=32, shuffle=True, seed=cfg.seed)
    adam = torch.optim.Adam(model.parameters())
    rate = torch.optim.lr_scheduler.OneCycleLR(adam, highest, cfg.epochs * len(batches))
    fit(model, batches, adam, cross_entropy, epochs=cfg.epochs, scheduler=rate, quiet=True)


def draw_cost(cfg: Config, metrics: dict[str, float]) -> None:
    figure, axis = new_figure(size=(8, 3.6))
    for row, name in enumerate(["v3", "v2"]):
        fewer, faster = metrics[f"{name}_fewer"], metrics[f"{name}_faster"]
        axis.barh(row + 0.2, 1 / fewer, 0.36, color=BLUE)
        axis.barh(row - 0.2, 1 / faster, 0.36, color=ORANGE)
        axis.text(1 / fewer, row + 0.2, f" {fewer:.1f} times fewer products", va="center")
        axis.text(1 / faster, row - 0.2, f" {faster:.1f} times as fast", va="center")
    axis.set_yticks((0, 1), ("V3, 74.0 % right", "V2, 71.9 % right"))
    axis.set(xlim=(0, 1), xlabel="share of what ResNet-18 needs (1: ResNet-18, 69.8 % right)")
    axis.set_title("Time falls less than products")
    save_figure(figure, cfg.out / "cost")


def run(cfg: Config) -> dict[str, float]:
    show_separable(cfg)
    metrics = show_cost(cfg)
    show_block(cfg)
    metrics |= show_published(cfg) | show_training(cfg)
    draw_cost(cfg, metrics)
    return metrics


if __name__ == "__main__":
    main(run, Config, __doc__)
