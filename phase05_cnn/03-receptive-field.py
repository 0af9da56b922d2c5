"""5.3 The receptive field: how far can a unit see
感受野：一个单元能看到多大范围

You will be able to answer
    1. How large is the field of a stack of layers?    show_recurrence  by-hand
    2. Do the gradients say the same?                  show_measured    ten, vgg, blind
    3. What makes it grow faster than the depth?       show_growth      holes
    4. How much does each pixel of it count?           show_effective   paths, bell, narrow, root
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
    """(size, step, start): unit u of the last layer sees `size` pixels from start + u · step on.

    The step is also called jump, or effective stride.
    """
    # practice: The recurrence
    size = 1  # a pixel sees itself
    step = 1  # the field of the next unit begins so many pixels further on
    start = 0  # the first pixel that unit 0 sees; below 0 it lies in the padding
    for layer in layers:
        # The filter reads units of the layer in front, whose fields begin `step` pixels apart.
        size += layer.dilation * (layer.kernel - 1) * step
        start -= layer.padding * step
        step *= layer.stride
    return size, step, start
    # end practice


def show_recurrence(cfg: Config) -> dict[str, float]:
    print("\n[1] Each layer adds its reach, counted in the steps of the layer in front")
    small = [Layer(3, padding=1), Layer(3, stride=2, padding=1), Layer(3, padding=1)]
    print("  a 3x3 convolution: 1 + 2 · 1 = 3;  one with stride 2: 3 + 2 · 1 = 5, then steps of 2")
    text = "a third 3x3: 5 + 2 · 2 = 9 pixels; with padding 1 in each the first is -1 - 1 - 2 = -4"
    check_close("by-hand", text, receptive_field(small), [9, 2, -4])

    size, _, _ = receptive_field([Layer(3)] * 3)
    print(f"  three layers of 3x3 see {size} pixels, as one of 7x7, with 27 weights instead of 49")

    size, step, start = receptive_field(vgg16())
    inside = []
    for unit in range(7):
        first = start + unit * step
        inside.append(min(first + size, 224) - max(first, 0))
    print(f"  VGG-16, behind its last pooling: fields of {size} pixels, in steps of {step};")
    print(f"  of the 224 pixels of a side its seven units see {', '.join(map(str, inside))}")
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
    print("\n[2] The pixels that a unit sees, by the formula and by the gradients")
    formula = []
    measured = []
    for name, layers in ten_stacks().items():
        size, step, start = receptive_field(layers)
        unit = math.ceil(-start / step)  # the first whose field lies within the picture
        first = start + unit * step
        formula.append([first, first + size - 1, step])

        model = build(layers)
        side = first + size + 2 * step
        x = torch.randn(cfg.pictures, 1, side, side)
        begin, end = ends(seen_pixels(model, x, unit))
        next_begin, _ = ends(seen_pixels(model, x, unit + 1))
        measured.append([begin, end, next_begin - begin])
        by_formula = "{:2} to {:2}, step {}".format(*formula[-1])
        by_gradient = "{:2} to {:2}, step {}".format(*measured[-1])
        print(f"  {name:<28}  {by_formula}   |  {by_gradient}")
    text = "ten stacks: first pixel, last pixel and step are the same"
    check_close("ten", text, measured, formula)

    # In a network so deep and narrow random weights may switch off all ReLUs; ones do not.
    model = build(vgg16(), channels=1)
    for weight in model.parameters():
        nn.init.ones_(weight)
    seen = ends(seen_pixels(model, torch.rand(cfg.pictures, 1, 224, 224), 3))
    size, step, start = receptive_field(vgg16())
    text = f"VGG-16: its unit 3 sees the {size} pixels from {start + 3 * step} on"
    check_close("vgg", text, seen, (start + 3 * step, start + 3 * step + size - 1))

    layers = [Layer(3), Layer(3, stride=2), Layer(3, dilation=2), Layer(3)]
    size, step, start = receptive_field(layers)
    model = build(layers).double()
    x = torch.randn(8, 1, 60, 60).double()
    other = torch.randn(8, 1, 60, 60).double()
    unit = 8
    inside = slice(start + unit * step, start + unit * step + size)
    other[:, :, inside, inside] = x[:, :, inside, inside]
    text = f"replace all pixels outside of a {size}x{size} field: the unit's output changes by {{}}"
    outputs = [model(picture)[:, :, unit, unit] for picture in (other, x)]
    check_close("blind", text, *outputs)


def show_growth(cfg: Config) -> None:
    print("\n[3] Layers of 3x3: one after the other, with stride 2, with doubled dilation")
    print("  layers   plain   stride 2   dilation 1, 2, 4, …")
    for depth in range(1, 7):
        plain = receptive_field([Layer(3)] * depth)[0]
        strided = receptive_field([Layer(3, stride=2)] * depth)[0]
        dilated = receptive_field(doubling(depth))[0]
        print(f"  {depth:6}   {plain:5}   {strided:8}   {dilated:19}")

    shares = []
    for dilations in ([1, 2, 4], [2, 2, 2]):
        layers = [Layer(3, dilation=dilation) for dilation in dilations]
        size = receptive_field(layers)[0]
        seen = seen_pixels(build(layers), torch.randn(cfg.pictures, 1, size, size), 0)
        shares.append(seen.double().mean().item())
    text = "dilations 1, 2, 4 see their whole field; 2, 2, 2 see 7x7 of 13x13 pixels (gridding)"
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

    energy = energy_maps(20, cfg.draws).mean(dim=0)  # (41, 41), of networks with random weights
    shares = energy.sum(dim=0)  # of each column
    deviation = spread(shares)
    predicted = math.sqrt(20 * (3**2 - 1) / 12)
    print(f"  20 layers of 3x3 with ReLU, the mean of {cfg.draws} random networks:")
    print(f"  deviation of the squared gradient {deviation:.2f} pixels, of paths {predicted:.2f}")

    # 16 networks still lean a little to one side; paths do not.
    both_sides = (shares + shares.flip(0)) / 2
    gap = (both_sides - path_shares(20)).cumsum(dim=0).abs().max()
    text = "left of any pixel the share of gradient is that of paths, up to {} (sides averaged)"
    check("bell", text, gap, at_most=0.02)

    inner = energy[13:28, 13:28].sum().item()
    text = "the 15x15 pixels in the middle, 13% of the field, hold {} of the squared gradient"
    check("narrow", text, inner, at_least=0.88)

    growth = deviation / spread(energy_maps(5, cfg.draws).mean(dim=0).sum(dim=0))
    text = "from 5 to 20 layers the field grows 3.7 times, the deviation {} times"
    check("root", text, growth, at_least=1.75, at_most=2.25)
    return {"deviation": deviation, "narrow": inner, "growth": growth}, energy


# Pictures and helpers: skip on a first reading


def build(layers: Sequence[Layer], channels: int = 4) -> nn.Sequential:
    """Convolutions with random weights and a ReLU between them, and the poolings; no biases."""
    modules = []
    inputs = 1
    for layer in layers:
        if layer.pool:
            modules.append(nn.MaxPool2d(layer.kernel, layer.stride, layer.padding))
            continue
        if modules:
            modules.append(nn.ReLU())
        shape = (layer.kernel, layer.stride, layer.padding, layer.dilation)
        conv = nn.Conv2d(inputs, channels, *shape, bias=False)
        nn.init.kaiming_normal_(conv.weight)
        modules.append(conv)
        inputs = channels
    return nn.Sequential(*modules)


def energy_maps(depth: int, draws: int) -> Tensor:
    """Squared gradients of the unit in the middle, as shares of their sum. (draws, H, W)

    Of each network, the mean over 4 pictures, each with a random mix of the 16 output channels.
    """
    size, _, _ = receptive_field([Layer(3)] * depth)
    maps = []
    for _ in range(draws):
        model = build([Layer(3)] * depth, channels=16)
        x = torch.randn(4, 1, size, size).requires_grad_()
        output = model(x)  # (4, 16, 1, 1)
        # A random mix of the channels: its squared gradient is, on average, the sum of theirs.
        (grad,) = torch.autograd.grad(output, x, torch.randn_like(output))
        energy = grad.double().square().sum(dim=(0, 1))  # (H, W)
        maps.append(energy / energy.sum())
    return torch.stack(maps)


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
    layers = [Layer(3, padding=1), Layer(3, stride=2, padding=1), Layer(3, padding=1)]
    names = ["12 pixels", "3x3", "3x3 with stride 2", "3x3"]
    figure, axis = new_figure(size=(9, 4.2))
    seen = {2}
    for level in reversed(range(4)):
        middles = middle_pixels(layers[:level])
        axis.scatter(middles, [level] * len(middles), s=90, color=GREY, zorder=2)
        axis.scatter([middles[u] for u in seen], [level] * len(seen), s=90, color=BLUE, zorder=3)
        axis.text(12, level, names[level], va="center")
        if level == 0:
            break
        layer = layers[level - 1]
        below = middle_pixels(layers[: level - 1])
        sources = set()
        for unit in seen:
            for k in range(layer.kernel):
                source = unit * layer.stride + k - layer.padding
                axis.plot([middles[unit], below[source]], [level, level - 1], color=BLUE, lw=1)
                sources.add(source)
        seen = sources
    axis.set(xlim=(-0.5, 15.5), xticks=range(12), yticks=(), xlabel="pixel")
    axis.grid(False)
    axis.set_title("Unit 2 of the third layer sees nine pixels")
    save_figure(figure, cfg.out / "pyramid")


def middle_pixels(layers: Sequence[Layer]) -> list[float]:
    """Of 12 pixels: where the field of each unit of the last layer has its middle."""
    size, step, start = receptive_field(layers)
    return [start + unit * step + (size - 1) / 2 for unit in range(12 // step)]


def draw_effective(cfg: Config, energy: Tensor, inner: float) -> None:
    """energy (41, 41): the share of each pixel; inner: the share of the 15x15 in the middle."""
    figure, (left, right) = new_figure(1, 2, size=(13, 4.8), width_ratios=(1, 1.2))
    image = left.imshow(100 * energy, cmap="magma", extent=(-20.5, 20.5, 20.5, -20.5))
    figure.colorbar(image, ax=left, label="squared gradient: share of each pixel in %")
    edge = torch.tensor([-7.5, 7.5, 7.5, -7.5, -7.5])
    left.plot(edge, edge.roll(1), color="white")
    left.grid(False)
    left.set(xlabel="pixels from the middle", title=f"15x15 of 41x41 pixels hold {inner:.0%}")

    pixels = torch.arange(41) - 20
    right.bar(pixels, 100 * energy.sum(dim=0), color=BLUE, label="squared gradient")
    right.plot(pixels, 100 * path_shares(20), color=ORANGE, label="paths")
    right.axhline(100 / 41, color=GREY, linestyle="--", label="all columns alike")
    right.set(xlabel="pixels from the middle", ylabel="share of each column in %")
    right.set_title("The columns follow the paths")
    right.legend(loc="upper left")
    save_figure(figure, cfg.out / "effective")


def run(cfg: Config) -> dict[str, float]:
    sizes = show_recurrence(cfg)
    show_measured(cfg)
    show_growth(cfg)
    effective, energy = show_effective(cfg)
    draw_pyramid(cfg)
    draw_effective(cfg, energy, effective["narrow"])
    return {**sizes, **effective}


if __name__ == "__main__":
    main(run, Config, __doc__)
