"""5.1 Convolution: one small filter, used everywhere
卷积基础：一个小滤波器，用在每个位置

You will be able to answer
    1. What does a convolution compute?        show_loops     by-hand, loops
    2. How does a filter find edges?           show_edges     edge, other
    3. How does it become one matrix product?  show_im2col    grid, faster
    4. How does a gradient find its way back?  show_backward  nine, matrix, by-x, by-weight, by-bias
    5. What follows from using it everywhere?  show_shift     circular, inside, border
Predict   zeros: a 3x3 convolution written as a matrix, 12x15 pixels in: what share of it is 0?
Run       python phase05_cnn/01-convolution-basics.py                      about 5 s
Needs     -
Reference F.conv2d, F.conv_transpose2d, F.unfold, F.fold
Notation  B batch  C input channels  O output channels  H W picture  KH KW filter  G groups
"""

import functools
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from sklearn.datasets import load_sample_image
from torch import Tensor

from common.checks import check, check_close, timed
from common.config import LessonConfig, main, param
from common.figures import new_figure, plot_images, pyplot, save_figure
from common.record import current


@dataclass
class Config(LessonConfig):
    threads = 1
    data: str = param("photograph", "data set", choices=("photograph",))
    every: int = param(2, "keep every n-th pixel of the photograph", tiny=6)
    side: int = param(32, "rows of the picture on which the loops are timed", tiny=8, low=8)


def output_size(size: int, kernel: int, stride: int, padding=0, dilation=1) -> int:
    """At how many places a filter can lie along one side of a picture."""
    reach = dilation * (kernel - 1) + 1  # from its first to its last pixel
    room = size + 2 * padding - reach
    return room // stride + 1


def conv2d_loops(x: Tensor, weight: Tensor, stride=1, padding=0) -> Tensor:
    """x (B, C, H, W), weight (O, C, KH, KW) -> (B, O, places down, places across)."""
    # practice: The definition
    x = F.pad(x, [padding] * 4)  # a frame of zeros
    height, width = weight.shape[2:]
    down = output_size(x.shape[2], height, stride)
    across = output_size(x.shape[3], width, stride)

    output = x.new_zeros(len(x), len(weight), down, across)
    for row in range(down):
        for column in range(across):
            top = row * stride
            left = column * stride
            window = x[:, :, top : top + height, left : left + width]  # (B, C, KH, KW)
            for channel, kernel in enumerate(weight):
                # The same weights at every place: nothing here depends on row and column.
                output[:, channel, row, column] = (window * kernel).sum(dim=(1, 2, 3))
    return output
    # end practice


def show_loops(cfg: Config) -> None:
    print("\n[1] Lay the filter on the picture, multiply, add up, move on")
    picture = torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 3.0]])
    kernel = torch.tensor([[1.0, 0.0], [2.0, -1.0]])
    ours = conv2d_loops(picture[None, None], kernel[None, None])
    text = "picture [1 2 0; 0 1 3], filter [1 0; 2 -1]: the outputs are 0 and 1, as on paper"
    check_close("by-hand", text, ours, [[[[0.0, 1.0]]]])

    x = torch.randn(2, 3, 9, 12).double()
    weight = torch.randn(4, 3, 3, 2).double()
    settings = list(itertools.product([1, 2, 3], [0, 1, 2]))
    loops = [conv2d_loops(x, weight, stride, padding) for stride, padding in settings]
    theirs = [F.conv2d(x, weight, None, stride, padding) for stride, padding in settings]
    text = f"conv2d_loops equals F.conv2d for {len(settings)} pairs of stride and padding"
    check_close("loops", text, flat(loops), flat(theirs))


def sobel() -> tuple[Tensor, Tensor]:
    """Right minus left, and bottom minus top; the middle counts twice. Both (1, 1, 3, 3)."""
    across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]).double()
    return across[None, None], across.T[None, None]


def show_edges(cfg: Config) -> None:
    print("\n[2] Sobel's filters: right minus left, and bottom minus top")
    across, down = sobel()
    row = torch.tensor([0, 0, 0, 3, 3, 3, 3, 0, 0, 0]).double()
    stripe = row.expand(5, 10)[None, None]  # bright, from top to bottom
    output = conv2d_loops(stripe, across)  # (1, 1, 3, 8)
    print("  each row of the picture " + "".join(f"{pixel:4.0f}" for pixel in row.tolist()))
    print("  right minus left            " + "".join(f"{n:4.0f}" for n in output[0, 0, 0].tolist()))
    wanted = torch.tensor([0, 12, 12, 0, 0, -12, -12, 0]).double().expand(1, 1, 3, 8)
    text = "(1 + 2 + 1) · 3 = 12 where the stripe begins, -12 where it ends, 0 where all is even"
    check_close("edge", text, output, wanted)
    text = "bottom minus top does not see these edges: 0 everywhere"
    check_close("other", text, conv2d_loops(stripe, down), torch.zeros(1, 1, 3, 8).double())


def positions(size: int, kernel: int, stride: int, dilation: int) -> Tensor:
    """Along one side: where each pixel of the filter lies, at each place. (kernel, places)"""
    places = stride * torch.arange(output_size(size, kernel, stride, 0, dilation))
    return dilation * torch.arange(kernel)[:, None] + places


def windows(x: Tensor, kernel: torch.Size, stride: int, dilation: int) -> Tensor:
    """All that the filter ever lies on. (B, C, H, W) -> (B, C, KH, KW, places down, across)."""
    row_of = positions(x.shape[2], kernel[0], stride, dilation)  # (KH, places down)
    column_of = positions(x.shape[3], kernel[1], stride, dilation)  # (KW, places across)

    # (KH, 1, down, 1) and (1, KW, 1, across) broadcast to (KH, KW, down, across):
    # for each weight of the filter, the pixel that lies under it at each place.
    return x[:, :, row_of[:, None, :, None], column_of[None, :, None, :]]


def conv2d(
    x: Tensor, weight: Tensor, bias: Tensor, stride=1, padding=0, dilation=1, groups=1
) -> Tensor:
    """x (B, C, H, W), weight (O, C / groups, KH, KW), bias (O,) -> (B, O, places down, across)."""
    # practice: One matrix product
    x = F.pad(x, [padding] * 4)
    patches = windows(x, weight.shape[2:], stride, dilation)
    size = patches.shape[4:]

    # Each place becomes a column. A group of filters reads its own share of the channels.
    columns = patches.reshape(len(x), groups, -1, size.numel())  # (B, G, C/G · KH · KW, places)
    filters = weight.reshape(groups, len(weight) // groups, -1)  # (G, O/G, C/G · KH · KW)
    output = filters @ columns  # (B, G, O/G, places)
    return output.reshape(len(x), len(weight), *size) + bias[:, None, None]
    # end practice


def show_im2col(cfg: Config) -> float:
    print("\n[3] Copy every window into a column, and the filters become one matrix")
    print("  a 3x3 picture of 1 to 9 under a 2x2 filter, four places, four columns:")
    picture = torch.arange(1, 10).reshape(1, 1, 3, 3)
    for row in windows(picture, torch.Size([2, 2]), 1, 1).reshape(4, 4).tolist():
        print("    " + "  ".join(str(pixel) for pixel in row))

    ours = []
    theirs = []
    for x, weight, bias, options in cases():
        ours.append(conv2d(x, weight, bias, **options))
        theirs.append(F.conv2d(x, weight, bias, **options))
    text = f"conv2d equals F.conv2d in {len(ours)} settings of stride, padding, dilation and groups"
    check_close("grid", text, flat(ours), flat(theirs))

    x = torch.randn(4, 3, cfg.side, cfg.side + 8)
    weight = torch.randn(8, 3, 3, 3)
    bias = torch.zeros(8)
    size = f"{cfg.side}x{cfg.side + 8}"
    text = f"on 4 pictures of {size} the product is {{}} times faster than the loops"
    slow = functools.partial(conv2d_loops, x, weight)
    fast = functools.partial(conv2d, x, weight, bias)
    return timed("faster", text, slow, fast, at_least=30, repeats=3)


def conv2d_transposed(
    y: Tensor, weight: Tensor, size: torch.Size, stride=1, padding=0, dilation=1, groups=1
) -> Tensor:
    """The way back: y (B, O, places down, across) -> (B, C, *size), the weights as in conv2d.

    Each number of y goes to the pixels under its window, to each by the weight that lay on it.
    In conv2d_backward, y is the gradient of the output.
    """
    # practice: The way back
    channels, *kernel = weight.shape[1:]
    filters = weight.reshape(groups, len(weight) // groups, -1)
    columns = filters.mT @ y.reshape(len(y), groups, -1, y.shape[2:].numel())
    patches = columns.reshape(len(y), groups * channels, *kernel, *y.shape[2:])

    height, width = size
    x = y.new_zeros(len(y), groups * channels, height + 2 * padding, width + 2 * padding)
    row_of = positions(x.shape[2], kernel[0], stride, dilation)  # (KH, places down)
    column_of = positions(x.shape[3], kernel[1], stride, dilation)  # (KW, places across)
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            # Added: a pixel that lay in several windows gets a share from each.
            x[:, :, row_of[i][:, None], column_of[j]] += patches[:, :, i, j]
    return x[:, :, padding : padding + height, padding : padding + width]
    # end practice


def conv2d_backward(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int, groups: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss differentiated by the output, grad (B, O, …) -> by x, by weight, by bias."""
    # practice: Gradients
    grad_x = conv2d_transposed(grad, weight, x.shape[2:], stride, padding, dilation, groups)

    # A weight meets another pixel at every place: its gradient is a sum over places and batch.
    patches = windows(F.pad(x, [padding] * 4), weight.shape[2:], stride, dilation)
    places = patches.shape[4:].numel()
    columns = patches.reshape(len(x), groups, -1, places)  # (B, G, C/G · KH · KW, places)
    grads = grad.reshape(len(x), groups, -1, places)  # (B, G, O/G, places)
    grad_weight = (grads @ columns.mT).sum(dim=0).reshape(weight.shape)

    grad_bias = grad.sum(dim=(0, 2, 3))
    return grad_x, grad_weight, grad_bias
    # end practice


def show_backward(cfg: Config) -> dict[str, float]:
    print("\n[4] A convolution is a product with a large matrix; the way back uses its transpose")
    weight = torch.arange(1.0, 10.0).double().reshape(1, 1, 3, 3)
    matrix = as_matrix(weight, 12, 15)  # (places, pixels)
    zeros = (matrix == 0).double().mean().item()
    print(f"  from 12x15 pixels to 10x13 places: {matrix.numel():,} numbers, {zeros:.1%} are 0")
    in_order = matrix.sort(dim=1).values  # in each row the zeros first
    wanted = F.pad(weight.flatten(), [171, 0]).expand(130, 180)
    text = "each row, which is one place, holds 171 zeros and the nine weights once"
    check_close("nine", text, in_order, wanted)

    y = torch.randn(1, 1, 10, 13).double()
    x = conv2d_transposed(y, weight, torch.Size([12, 15]))
    text = "conv2d_transposed equals the transposed matrix times y"
    check_close("matrix", text, x.flatten(), matrix.T @ y.flatten())

    ours = []
    theirs = []
    for x, weight, bias, options in cases():
        inputs = [each.requires_grad_() for each in (x, weight, bias)]
        output = F.conv2d(x, weight, bias, **options)
        grad = torch.randn_like(output)
        ours.append(conv2d_backward(grad, x, weight, **options))
        theirs.append(torch.autograd.grad(output, inputs, grad))
    by_x, by_weight, by_bias = zip(*ours)
    wanted_x, wanted_weight, wanted_bias = zip(*theirs)
    print(f"  conv2d_backward equals autograd in the {len(ours)} settings of [3]:")
    check_close("by-x", "the gradient of the input", flat(by_x), flat(wanted_x))
    check_close("by-weight", "the gradient of the weights", flat(by_weight), flat(wanted_weight))
    check_close("by-bias", "the gradient of the bias", flat(by_bias), flat(wanted_bias))
    return {"zeros": zeros}


def show_shift(cfg: Config, photo: Tensor) -> dict[str, float]:
    print("\n[5] Translation equivariance: shift the picture, and the output shifts along")
    weight = torch.randn(16, 1, 3, 3).double()
    bias = torch.zeros(16).double()

    # Circular padding has no border: what leaves on the right comes in on the left.
    shifted = photo.roll((5, -7), dims=(2, 3))
    before = conv2d(F.pad(photo, [1] * 4, mode="circular"), weight, bias)
    after = conv2d(F.pad(shifted, [1] * 4, mode="circular"), weight, bias)
    text = "circular padding: a shifted photograph gives the same output, shifted"
    check_close("circular", text, after, before.roll((5, -7), dims=(2, 3)))

    # Padding with zeros, as networks do it, changes the outermost pixels only.
    padded = conv2d(photo, weight, bias, padding=1)
    text = "zero padding gives the outputs of circular padding, but for a border of one pixel"
    check_close("inside", text, padded[:, :, 1:-1, 1:-1], before[:, :, 1:-1, 1:-1])

    _, down = sobel()
    output = conv2d(photo, down, torch.zeros(1).double(), padding=1)[0, 0].abs()
    top = output[0].median()  # the sky, with a row of zeros above it
    inside = output[1:-1, 1:-1].max()
    text = "Sobel takes the zeros for an edge, {} times as strong as the strongest inside"
    check("border", text, top / inside, above=1)
    return {"border": (top / inside).item()}


# Pictures and helpers: skip on a first reading


def cases() -> Iterator[tuple[Tensor, Tensor, Tensor, dict[str, int]]]:
    """Input, weights, bias and options: every combination of a few settings, in float64."""
    settings = itertools.product([1, 2, 3], [0, 1, 2], [1, 2], [1, 2])
    for stride, padding, dilation, groups in settings:
        x = torch.randn(3, 4, 9, 11).double()
        weight = torch.randn(6, 4 // groups, 3, 2).double()
        bias = torch.randn(6).double()
        options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        yield x, weight, bias, options


def flat(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def as_matrix(weight: Tensor, height: int, width: int) -> Tensor:
    """The matrix that does the same to a flattened picture. (places, pixels)"""
    unit_pictures = torch.eye(height * width).double().reshape(-1, 1, height, width)
    output = conv2d(unit_pictures, weight, torch.zeros(1).double())
    return output.flatten(start_dim=1).T


def load_photo(cfg: Config) -> Tensor:
    """A photograph in grey, from 0 to 1. (1, 1, H, W)"""
    current().use_data("photograph", "china.jpg from the package scikit-learn")
    picture = torch.tensor(load_sample_image("china.jpg"))[:: cfg.every, :: cfg.every]
    return picture.double().mean(dim=2)[None, None] / 255


def draw_edges(cfg: Config, photo: Tensor) -> None:
    across, down = (conv2d(photo, kernel, torch.zeros(1).double()) for kernel in sobel())
    figure, axes = new_figure(1, 3, size=(15, 3.9))
    pictures = [1 - photo[0, 0], across[0, 0].abs(), down[0, 0].abs()]
    titles = [
        "the photograph",
        "right minus left: vertical edges",
        "bottom minus top: horizontal edges",
    ]
    for axis, picture, title in zip(axes, pictures, titles):
        plot_images(axis, [picture.numpy()], [title])
    figure.suptitle(
        "Each filter finds the edges of one direction (dark: a large output, of either sign)",
        fontweight="bold",
    )
    save_figure(figure, cfg.out / "edges")


def draw_matrix(cfg: Config) -> None:
    weight = torch.arange(1.0, 10.0).double().reshape(1, 1, 3, 3)
    matrix = as_matrix(weight, 5, 7)
    figure, axis = new_figure(size=(8.5, 4.4))
    colours = pyplot().get_cmap("viridis", 9)  # one for each weight
    image = axis.imshow(matrix.masked_fill(matrix == 0, torch.nan), colours, vmin=0.5, vmax=9.5)
    figure.colorbar(image, label="number of the weight", ticks=range(1, 10))
    axis.grid(False)
    axis.set(xlabel="pixel of a 5x7 picture, row by row", ylabel="place of the filter")
    axis.set_title("As a matrix: nine numbers in each row, the rest is 0")
    save_figure(figure, cfg.out / "matrix")


def run(cfg: Config) -> dict[str, float]:
    photo = load_photo(cfg)
    show_loops(cfg)
    show_edges(cfg)
    speedup = show_im2col(cfg)
    share = show_backward(cfg)
    border = show_shift(cfg, photo)
    draw_edges(cfg, photo)
    draw_matrix(cfg)
    return {"speedup": speedup, **share, **border}


if __name__ == "__main__":
    main(run, Config, __doc__)
