"""5.3 The receptive field: how far can a unit see
感受野：一个单元能看到多大范围

You will be able to answer
    1. How large is the field of a stack of layers?   show_recurrence  by-hand, ladder
    2. Do the gradients say the same?                 show_measured    ten, blind
    3. What makes it grow faster than the depth?      show_growth      doubled, holes
    4. Does a unit look at all of it alike?           show_effective   paths, bell, narrow, root
Predict   vgg16: VGG-16 takes pictures of 224x224. How many pixels wide is its last units' field?
Run       python phase05_cnn/03-receptive-field.py                         about 5 s
Needs     -
Reference -
Notation  B batch  C channels  H W picture
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.checks import check, check_close
from common.config import LessonConfig, main, param
from common.figures import BLUE, GREY, ORANGE, new_figure, save_figure


@dataclass
class Config(LessonConfig):
    threads = 1
    draws: int = param(16, "networks with random weights that are averaged", tiny=8, low=4)
    pictures: int = param(16, "random pictures whose gradients are united", tiny=12, low=8)


@dataclass(frozen=True)
class Layer:
    """A convolution, or max pooling: what matters for the field."""

    kernel: int
    stride: int = 1
    dilation: int = 1
    padding: int = 0
    pool: bool = False


def receptive_field(layers: Sequence[Layer]) -> tuple[int, int, int]:
    """(size, step, start): unit u of the last layer sees `size` pixels from start + u · step on."""
    # practice: The recurrence
    size = 1  # a pixel sees itself
    step = 1  # so many pixels further on sees the next unit
    start = 0  # the first pixel that unit 0 sees; below 0 it lies in the padding
    for layer in layers:
        # The filter's pixels are units of the layer in front, which lie `step` pixels apart.
        size += layer.dilation * (layer.kernel - 1) * step
        start -= layer.padding * step
        step *= layer.stride
    return size, step, start
    # end practice


def show_recurrence(cfg: Config) -> dict[str, float]:
    print("\n[1] Each layer adds its reach, counted in the steps of the layer in front")
    small = [Layer(3), Layer(2, stride=2, pool=True), Layer(3, padding=1)]
    print("  a 3x3 convolution: 1 + 2 · 1 = 3;  2x2 pooling: 3 + 1 · 1 = 4, now in steps of 2")
    text = "another 3x3 with padding 1: 4 + 2 · 2 = 8 pixels, step 2, the first at -2"
    check_close("by-hand", text, receptive_field(small), [8, 2, -2])

    ladder = [receptive_field([Layer(3)] * depth)[0] for depth in (1, 2, 3)]
    text = "one, two, three layers of 3x3 see as much as one of 3x3, 5x5, 7x7"
    wanted = [receptive_field([Layer(kernel)])[0] for kernel in (3, 5, 7)]
    check_close("ladder", text, ladder, wanted)

    size, step, _ = receptive_field(vgg16())
    print(f"  VGG-16, behind its last pooling: {size} pixels of 224, in steps of {step}")
    return {"vgg16": size}


def seen_pixels(model: nn.Module, x: Tensor, unit: int) -> Tensor:
    """True for the pixels on which the unit in row and column `unit` of the output depends. (H, W)

    x (B, C, H, W): random pictures. A ReLU or a maximum hides pixels in one of them, not in all.
    """
    # practice: Ask the gradient
    x = x.detach().requires_grad_()
    output = model(x)  # (B, channels, rows, columns)
    (grad,) = torch.autograd.grad(output[:, :, unit, unit].sum(), x)
    return (grad != 0).any(dim=1).any(dim=0)
    # end practice


def show_measured(cfg: Config) -> None:
    print("\n[2] The pixels with a gradient, beside the formula: first one, last one, step")
    found = []
    predicted = []
    for name, layers in ten_stacks().items():
        size, step, start = receptive_field(layers)
        # The first unit whose field lies within the picture, and the next one.
        unit = math.ceil(-start / step) + 1
        first = start + unit * step
        model = build(layers)
        x = torch.randn(cfg.pictures, 1, first + size + 2 * step, first + size + 2 * step)
        places = [ends(seen_pixels(model, x, unit)), ends(seen_pixels(model, x, unit + 1))]
        found.append([*places[0], places[1][0] - places[0][0]])
        predicted.append([first, first + size - 1, step])
        print(f"  {name:<28} {size:4} pixels: {found[-1][0]:4} to {found[-1][1]:3}, step {step}")
    text = "ten stacks: the gradients reach exactly as far as the recurrence says"
    check_close("ten", text, found, predicted)

    # Everything outside is replaced: a unit cannot answer to what it does not see.
    layers = [Layer(3), Layer(3, stride=2), Layer(3, dilation=2), Layer(3)]
    size, step, start = receptive_field(layers)
    model = build(layers).double()
    x = torch.randn(8, 1, 60, 60).double()
    other = torch.randn(8, 1, 60, 60).double()
    unit = 8
    inside = slice(start + unit * step, start + unit * step + size)
    other[:, :, inside, inside] = x[:, :, inside, inside]
    text = f"all pixels outside of {size}x{size} replaced: the unit's answer changes by {{}}"
    answers = [model(picture)[:, :, unit, unit] for picture in (other, x)]
    check_close("blind", text, *answers)


def show_growth(cfg: Config) -> None:
    print("\n[3] Layers of 3x3: one after the other, with stride 2, with doubled dilation")
    print("  layers   plain   stride 2   dilation 1, 2, 4, …")
    for depth in range(1, 7):
        plain = receptive_field([Layer(3)] * depth)[0]
        strided = receptive_field([Layer(3, stride=2)] * depth)[0]
        dilated = receptive_field(doubling(depth))[0]
        print(f"  {depth:6}   {plain:5}   {strided:8}   {dilated:19}")

    x = torch.randn(cfg.pictures, 1, 129, 129)
    first, last = ends(seen_pixels(build(doubling(6)), x, 1))
    text = "six layers, dilation doubled: the gradient spans {} pixels; plain ones span 13"
    check("doubled", text, last - first + 1, at_least=127, at_most=127)

    shares = []
    for dilations in ([1, 2, 4], [2, 2, 2]):
        layers = [Layer(3, dilation=dilation) for dilation in dilations]
        size = receptive_field(layers)[0]
        seen = seen_pixels(build(layers), torch.randn(cfg.pictures, 1, size, size), 0)
        shares.append(seen.double().mean().item())
    text = "dilations 1, 2, 4 see their whole field; 2, 2, 2 see 7x7 of 13x13 pixels: holes"
    check_close("holes", text, shares, [1, 49 / 169])


def path_shares(depth: int, kernel: int = 3) -> Tensor:
    """Of all paths from a row of pixels to one unit, the share that begins at each. (pixels,)"""
    # practice: Count the paths
    ways = torch.ones(1).double()
    for _ in range(depth):
        longer = torch.zeros(len(ways) + kernel - 1).double()
        for offset in range(kernel):
            longer[offset : offset + len(ways)] += ways
        ways = longer
    return ways / ways.sum()
    # end practice


def show_effective(cfg: Config) -> tuple[dict[str, float], Tensor]:
    print("\n[4] Many paths lead from the middle to the unit, a single one from the edge")
    text = "two layers of 3: 1, 2, 3, 2, 1 of nine paths"
    check_close("paths", text, path_shares(2), torch.tensor([1, 2, 3, 2, 1]).double() / 9)

    energy = energy_map(20, cfg.draws)  # (41, 41), mean of networks with random weights
    shares = energy.sum(dim=0)  # of each column
    deviation = spread(shares)
    predicted = math.sqrt(20 * (3**2 - 1) / 12)
    print(f"  20 layers of 3x3, ReLU: field 41 pixels, deviation {deviation:.2f} pixels")
    pixels = torch.arange(41) - 20.0
    normal = torch.special.ndtr((pixels + 0.5) / predicted)
    gap = (shares.cumsum(dim=0) - normal).abs().max()
    text = "their squared gradients are normal with deviation 3.65: the curves are {} apart at most"
    check("bell", text, gap, at_most=0.08)

    middle = [shares[20 - half : 21 + half].sum().item() for half in range(21)]
    half = next(number for number, share in enumerate(middle) if share >= 0.95)
    share = (2 * half + 1) / 41
    text = "95 % of it come from a share of {} of the field's width"
    check("narrow", text, share, at_most=0.5)

    growth = deviation / spread(energy_map(5, cfg.draws).sum(dim=0))
    text = "from 5 to 20 layers the field grows 3.7 times, the deviation {} times"
    check("root", text, growth, at_least=1.7, at_most=2.3)
    return {"deviation": deviation, "narrow": share, "growth": growth}, energy


# Pictures and helpers: skip on a first reading


def build(layers: Sequence[Layer], channels: int = 4) -> nn.Sequential:
    """Convolutions with fresh weights and a ReLU between them, and the poolings. One input channel.

    No biases: where nothing is seen, nothing is answered.
    """
    modules = []
    inputs = 1
    for layer in layers:
        if layer.pool:
            modules.append(nn.MaxPool2d(layer.kernel, layer.stride, layer.padding))
            continue
        if modules:
            modules.append(nn.ReLU())
        conv = nn.Conv2d(
            inputs, channels, layer.kernel, layer.stride, layer.padding, layer.dilation, bias=False
        )
        nn.init.kaiming_normal_(conv.weight)
        modules.append(conv)
        inputs = channels
    return nn.Sequential(*modules)


def energy_map(depth: int, draws: int, kernel: int = 3) -> Tensor:
    """Squared gradients of one unit by pixel, as shares of their sum: mean of random networks."""
    size = receptive_field([Layer(kernel)] * depth)[0]
    maps = []
    for _ in range(draws):
        model = build([Layer(kernel)] * depth, channels=16)
        x = torch.randn(4, 1, size, size).requires_grad_()
        output = model(x)  # (4, 16, 1, 1): the unit in the middle
        (grad,) = torch.autograd.grad(output, x, torch.randn_like(output))
        energy = grad.double().square().sum(dim=(0, 1))  # (H, W)
        maps.append(energy / energy.sum())
    return torch.stack(maps).mean(dim=0)


def doubling(depth: int) -> list[Layer]:
    return [Layer(3, dilation=2**number) for number in range(depth)]


def vgg16() -> list[Layer]:
    """13 convolutions of 3x3 in five blocks, each with a pooling behind it; 5.6 builds it."""
    layers = []
    for convolutions in (2, 2, 3, 3, 3):
        layers += [Layer(3, padding=1)] * convolutions
        layers.append(Layer(2, stride=2, pool=True))
    return layers


def ten_stacks() -> dict[str, list[Layer]]:
    pool = Layer(2, stride=2, pool=True)
    stem = [Layer(7, stride=2, padding=3), Layer(3, stride=2, padding=1, pool=True)]
    return {
        "one 5x5": [Layer(5)],
        "three 3x3, padded": [Layer(3, padding=1)] * 3,
        "even 4x4, then 2x2": [Layer(4), Layer(2, padding=1)],
        "stride first": [Layer(3, stride=2, padding=1), Layer(3), Layer(3)],
        "stride last": [Layer(3), Layer(3), Layer(3, stride=2)],
        "steps of 3 and 2": [Layer(5, stride=3, padding=2), Layer(3, stride=2), Layer(3)],
        "dilations 1, 2, 4": [Layer(3, dilation=2**n, padding=2**n) for n in range(3)],
        "convolution, pooling, twice": [Layer(3, padding=1), pool] * 2,
        "the start of a ResNet": [*stem, Layer(3, padding=1), Layer(3, padding=1)],
        "VGG, first three blocks": vgg16()[:10],
    }


def ends(seen: Tensor) -> tuple[int, int]:
    """The first and last column of what is seen."""
    columns = seen.any(dim=0).nonzero().flatten()
    return columns[0].item(), columns[-1].item()


def spread(shares: Tensor) -> float:
    """Standard deviation of a distribution over pixels."""
    pixels = torch.arange(len(shares)).double()
    mean = (shares * pixels).sum()
    return (shares * (pixels - mean).square()).sum().sqrt().item()


def draw_pyramid(cfg: Config) -> None:
    layers = [Layer(3), Layer(2, stride=2, pool=True), Layer(3)]
    names = ["12 pixels", "convolution of 3", "pooling of 2, stride 2", "convolution of 3"]
    figure, axis = new_figure(size=(9, 4.2))
    seen = {1}
    for level in reversed(range(4)):
        size, step, start = receptive_field(layers[:level])
        units = range((12 - size - start) // step + 1)
        middles = [start + unit * step + (size - 1) / 2 for unit in units]
        axis.scatter(middles, [level] * len(units), s=90, color=GREY, zorder=2)
        axis.scatter([middles[u] for u in seen], [level] * len(seen), s=90, color=BLUE, zorder=3)
        axis.text(12, level, names[level], va="center")
        if level == 0:
            break
        layer = layers[level - 1]
        size, step, start = receptive_field(layers[: level - 1])
        below = set()
        for unit in seen:
            for k in range(layer.kernel):
                source = unit * layer.stride + k
                place = start + source * step + (size - 1) / 2
                axis.plot([middles[unit], place], [level, level - 1], color=BLUE, linewidth=1)
                below.add(source)
        seen = below
    axis.set(xlim=(-0.5, 16), xticks=range(12), yticks=(), xlabel="pixel")
    axis.grid(False)
    axis.set_title("A unit of the third layer sees eight pixels")
    save_figure(figure, cfg.out / "pyramid")


def draw_effective(cfg: Config, energy: Tensor) -> None:
    figure, (left, right) = new_figure(1, 2, size=(11, 4.4))
    left.imshow(energy.sqrt(), cmap="magma")
    left.set(xticks=(), yticks=(), title="One unit's gradient in its field of 41x41")
    left.grid(False)

    pixels = torch.arange(41) - 20
    right.bar(pixels, energy.sum(dim=0), color=BLUE, label="share of the squared gradient")
    right.plot(pixels, path_shares(20), color=ORANGE, label="share of the paths")
    right.axhline(1 / 41, color=GREY, linestyle="--", label="if all pixels counted alike")
    right.set(xlabel="pixels from the middle", title="A bell, far narrower than the field")
    right.legend(loc="upper right", fontsize=9)
    save_figure(figure, cfg.out / "effective")


def run(cfg: Config) -> dict[str, float]:
    sizes = show_recurrence(cfg)
    show_measured(cfg)
    show_growth(cfg)
    effective, energy = show_effective(cfg)
    draw_pyramid(cfg)
    draw_effective(cfg, energy)
    return {**sizes, **effective}


if __name__ == "__main__":
    main(run, Config, __doc__)
