"""5.8 ResNet's relatives: bottleneck, ResNeXt, wide
ResNet 变体：瓶颈结构、ResNeXt 与加宽

You will be able to answer
    1. What does a bottleneck save?              show_bottleneck  by-hand
    2. Are these the nets that others use?       show_parity      parameters, logits
    3. How much work is each of them?            show_work        published, stages, twice, removed
    4. What does a ReLU behind the sum cut?      show_preact      lost, first, identity
Predict   saved: how many times fewer weights has a bottleneck 256→64→256 than two 3x3 of 256?
Run       python phase05_cnn/08-resnet-variants.py                         about 10 s
Needs     phase05_cnn/07-resnet
Reference torchvision.models.get_model
Notation  B batch  C channels  H W picture
"""

from dataclasses import dataclass

import torch
import torchvision
from torch import Tensor, nn

from common.checks import check, check_close
from common.config import LessonConfig, main, param
from common.figures import BLUE, GREY, ORANGE, new_figure, save_figure
from common.lessons import load_lesson

resnet = load_lesson("phase05_cnn/07-resnet")


@dataclass
class Config(LessonConfig):
    side: int = param(64, "pixels of the pictures on which logits are compared", low=33)


# A row is a net. The width is that of one group's 3x3 filters in the first stage.
DESIGNS = {
    # name: (blocks in each of four stages, bottleneck?, groups, width of a group)
    "resnet18": ((2, 2, 2, 2), False, 1, 64),
    "resnet34": ((3, 4, 6, 3), False, 1, 64),
    "resnet50": ((3, 4, 6, 3), True, 1, 64),
    "resnet101": ((3, 4, 23, 3), True, 1, 64),
    "resnext50_32x4d": ((3, 4, 6, 3), True, 32, 4),
    "wide_resnet50_2": ((3, 4, 6, 3), True, 1, 128),
}


KINDS = ("7x7", "3x3", "1x1", "linear")


class Bottleneck(nn.Module):
    """1x1 to fewer channels, 3x3 there, 1x1 back. (B, C, H, W) -> (B, outputs, H / stride, …)"""

    def __init__(self, inputs: int, inner: int, outputs: int, stride=1, downsample=None, groups=1):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        # Each channel of the 3x3 layer reads those of its own group only.
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        # practice: Narrow, 3x3, wide
        branch = self.bn1(self.conv1(x)).relu()
        branch = self.bn2(self.conv2(branch)).relu()
        branch = self.bn3(self.conv3(branch))

        shortcut = x
        if self.downsample is not None:
            shortcut = self.downsample(x)
        return (branch + shortcut).relu()
        # end practice


def show_bottleneck(cfg: Config) -> dict[str, float]:
    print("\n[1] A block for 256 channels: two 3x3 layers, or 1x1 to 64, 3x3, 1x1 back to 256")
    weights = []
    for block in (resnet.BasicBlock(256, 256), Bottleneck(256, 64, 256)):
        convs = [layer for layer in block.modules() if isinstance(layer, nn.Conv2d)]
        weights.append(sum(conv.weight.numel() for conv in convs))
    text = "2 · 9 · 256² = 1,179,648 weights, or 256 · 64 + 9 · 64² + 64 · 256 = 69,632"
    check_close("by-hand", text, weights, [1_179_648, 69_632])
    return {"saved": weights[0] / weights[1]}


def stage_widths(stage: int, bottleneck: bool, groups: int, width: int) -> tuple[int, int]:
    """Channels of the 3x3 layers, and behind each block, in stage 0 to 3."""
    channels = 64 * 2**stage
    if not bottleneck:
        return channels, channels
    return width * groups * 2**stage, 4 * channels


class ResNet(nn.Module):
    """The nets for ImageNet. (B, 3, H, W) -> (B, classes). Names are torchvision's."""

    def __init__(self, blocks: tuple, bottleneck: bool, groups: int, width: int, classes=1000):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        inputs = 64
        for stage, count in enumerate(blocks):
            inner, outputs = stage_widths(stage, bottleneck, groups, width)
            layer = nn.Sequential()
            for number in range(count):
                stride = 2 if stage > 0 and number == 0 else 1
                downsample = None
                if inputs != outputs:
                    downsample = resnet.projection(inputs, outputs, stride)
                if bottleneck:
                    block = Bottleneck(inputs, inner, outputs, stride, downsample, groups)
                else:
                    block = resnet.BasicBlock(inputs, outputs, stride, downsample)
                layer.append(block)
                inputs = outputs
            self.add_module(f"layer{stage + 1}", layer)
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        # practice: From picture to logits
        x = self.bn1(self.conv1(x)).relu()  # (B, 64, H / 2, W / 2)
        x = self.maxpool(x)  # (B, 64, H / 4, W / 4)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)  # at last (B, C, H / 32, W / 32)

        # Global average pooling: pictures of any size give C numbers.
        return self.fc(x.mean(dim=(2, 3)))
        # end practice


def show_parity(cfg: Config) -> None:
    print("\n[2] Six nets under the names that torchvision gives them")
    counts = []
    wanted = []
    with torch.device("meta"):  # shapes without memory
        for name, design in DESIGNS.items():
            parameters = ResNet(*design).parameters()
            counts.append(sum(parameter.numel() for parameter in parameters))
            wanted.append(published(name)["num_params"])
            print(f"  {name:<16} {counts[-1]:>10,} parameters")
    text = "all six have as many parameters as torchvision publishes"
    check_close("parameters", text, counts, wanted)

    names = ["resnet50"] if cfg.tiny else list(DESIGNS)
    x = torch.randn(2, 3, cfg.side, cfg.side - 9)
    ours = []
    theirs = []
    for name in names:  # one at a time in memory
        reference = torchvision.models.get_model(name).eval()
        resnet.randomize(reference)
        with torch.device("meta"):
            model = ResNet(*DESIGNS[name]).eval()
        # assign: take the reference's tensors themselves; a meta tensor has no memory to fill.
        model.load_state_dict(reference.state_dict(), assign=True)
        with torch.no_grad():
            ours.append(model(x))
            theirs.append(reference(x))
    text = f"with the same random weights, torchvision's logits: {', '.join(names)}"
    check_close("logits", text, torch.stack(ours), torch.stack(theirs), rtol=1e-4, atol=1e-5)


def count_work(model: nn.Module, x: Tensor) -> dict[str, int]:
    """Multiply–adds of each kind of layer ("1x1", "3x3", "linear" …) for x, counted by hooks."""
    # practice: Count with hooks
    work: dict[str, int] = {}

    def add(layer: nn.Module, inputs: tuple, output: Tensor) -> None:
        is_conv = isinstance(layer, nn.Conv2d)
        kind = "{}x{}".format(*layer.kernel_size) if is_conv else "linear"
        # Each number of the output is a sum over one filter: C / groups channels of k x k.
        products = layer.weight[0].numel()
        work[kind] = work.get(kind, 0) + output.numel() * products

    layers = [each for each in model.modules() if isinstance(each, (nn.Conv2d, nn.Linear))]
    handles = [layer.register_forward_hook(add) for layer in layers]
    model(x)
    for handle in handles:
        handle.remove()
    return work
    # end practice


def show_work(cfg: Config) -> tuple[dict[str, dict[str, int]], dict[str, float]]:
    print("\n[3] How many multiply–adds? For a picture of 224x224, in billions")
    print(f"  {'':<16} {'all':>7}" + "".join(f"{kind:>8}" for kind in KINDS))
    work = {}
    billions = {}
    with torch.device("meta"):  # only the shapes are computed
        for name, design in DESIGNS.items():
            work[name] = count_work(ResNet(*design), torch.empty(1, 3, 224, 224))
            billions[name] = sum(work[name].values()) / 1e9
            row = "".join(f"{work[name][kind] / 1e9:8.3f}" for kind in KINDS)
            print(f"  {name:<16} {billions[name]:7.3f}{row}")
    text = "the sums are those that torchvision publishes, up to {} billion"
    wanted = [published(name)["_ops"] for name in DESIGNS]
    check_close("published", text, list(billions.values()), wanted, atol=6e-4)

    found = []
    with torch.device("meta"):
        for channels, side in [(64, 56), (128, 28), (256, 14), (512, 7)]:
            conv = nn.Conv2d(channels, channels, 3, padding=1)
            found += count_work(conv, torch.empty(1, channels, side, side)).values()
    text = "half the side, twice the channels: a 3x3 layer costs 115,605,504 in each stage"
    check_close("stages", text, found, [9 * 64**2 * 56**2] * 4)

    ratios = [work[name]["3x3"] / work["resnet50"]["3x3"] for name in list(DESIGNS)[4:]]
    text = "3x3 layers with twice ResNet-50's channels: 4 times the work, 4/32 of it in 32 groups"
    check_close("twice", text, ratios, [4 / 32, 4])
    check("removed", "counting leaves no hook behind", not conv._forward_hooks)
    return work, billions


class PreActBlock(nn.Module):
    """He et al. 2016: batch norm and ReLU in front of each convolution. (B, C, H, W), same shape"""

    def __init__(self, channels: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        # practice: Norm and ReLU first
        branch = self.conv1(self.bn1(x).relu())
        branch = self.conv2(self.bn2(branch).relu())

        # No ReLU behind the sum: nothing but additions lies on the way of x.
        return x + branch
        # end practice


def show_preact(cfg: Config) -> dict[str, float]:
    print("\n[4] Twenty blocks: how much of the gradient can pass through the shortcuts alone?")
    x = torch.randn(8, 8, 8, 8).double()
    h = x.relu()  # as behind the first layer of a net
    passes = torch.ones_like(x, dtype=torch.bool)
    for _ in range(20):
        h = resnet.BasicBlock(8, 8).double()(h)
        passes &= h > 0  # where the ReLU behind the sum gives 0, no gradient comes back
    lost = 1 - passes.double().mean().item()
    text = "blocks of 5.7, random weights: for a share of {} of all values a ReLU cuts the way"
    check("lost", text, lost, above=0.75, below=0.9)

    block = PreActBlock(1).eval()  # a new batch norm in evaluation only adds its shift
    nn.init.constant_(block.bn1.bias, 1.0)
    nn.init.constant_(block.conv1.weight, -2.0)
    nn.init.constant_(block.bn2.bias, 5.0)
    nn.init.constant_(block.conv2.weight, 0.5)
    pixels = torch.tensor([-3.0, 1.0, 3.0]).reshape(3, 1, 1, 1)  # three pictures of one pixel
    text = "x + max(5 - 2 · max(x + 1, 0), 0) / 2 of -3, 1 and 3 is -0.5, 1.5 and 3"
    check_close("first", text, block(pixels).flatten(), [-0.5, 1.5, 3], atol=1e-4)

    blocks = [PreActBlock(8).double() for _ in range(20)]
    for block in blocks:
        nn.init.zeros_(block.conv2.weight)  # silent: what is left is the shortcut
    x.requires_grad_()
    y = nn.Sequential(*blocks)(x)
    wanted = torch.randn_like(x)
    text = "silent pre-activation blocks: the gradient at the input is that at the output"
    check_close("identity", text, torch.autograd.grad(y, x, wanted)[0], wanted)
    return {"lost": lost}


# Pictures and helpers: skip on a first reading


def published(name: str) -> dict:
    """torchvision's table of facts about its first weights of a net. Nothing is downloaded."""
    return torchvision.models.get_model_weights(name)["IMAGENET1K_V1"].meta


def draw_cost(cfg: Config, work: dict[str, dict[str, int]], billions: dict) -> None:
    figure, (left, right) = new_figure(1, 2, size=(13, 4.8))
    for name in DESIGNS:
        accuracy = published(name)["_metrics"]["ImageNet-1K"]["acc@1"]
        colour = BLUE if DESIGNS[name][1] else ORANGE
        left.plot(billions[name], accuracy, "o", color=colour, markersize=9)
        to_left = name.startswith("resnext")
        where = billions[name] + (-0.3 if to_left else 0.3)
        left.text(where, accuracy - 0.1, name, ha="right" if to_left else "left", fontsize=10)
    left.plot([], [], "o", color=ORANGE, label="basic blocks")
    left.plot([], [], "o", color=BLUE, label="bottlenecks")
    left.legend(loc="lower right")
    left.set(xlabel="billion multiply–adds", ylabel="published accuracy, %", xlim=(0, 16))
    left.set_title("Three nets near 4 billion: 4 points apart")
    ends = [0.0] * len(work)
    for kind, colour in zip(["7x7", "3x3", "1x1"], [GREY, ORANGE, BLUE]):
        shares = [kinds[kind] / sum(kinds.values()) for kinds in work.values()]
        right.barh(list(work), shares, left=ends, color=colour, label=kind)
        ends = [end + share for end, share in zip(ends, shares)]
    right.invert_yaxis()
    right.set(
        xlabel="share of the multiply–adds", title="A bottleneck moves the work to 1x1 layers"
    )
    right.legend(loc="lower center", ncols=3, bbox_to_anchor=(0.4, -0.32))
    save_figure(figure, cfg.out / "cost")


def run(cfg: Config) -> dict[str, float]:
    saved = show_bottleneck(cfg)
    show_parity(cfg)
    work, billions = show_work(cfg)
    lost = show_preact(cfg)
    draw_cost(cfg, work, billions)
    return {**saved, **billions, **lost}


if __name__ == "__main__":
    main(run, Config, __doc__)
