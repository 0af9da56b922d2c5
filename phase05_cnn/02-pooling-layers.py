"""5.2 Pooling: what is lost, what is gained
池化：丢了什么，得到什么

You will be able to answer
    1. What does a pooling layer compute?       show_pools     by-hand, pools, power
    2. How does any picture come to one size?   show_adaptive  adaptive
    3. Which pixels get the gradient?           show_backward  gradients, unpooled
    4. What is lost?                            show_place     place, apart
    5. What is gained?   show_shifts   overfits, depends, flat, pooled, global, price
Predict   flat_2: without pooling 96% of centred digits are read; what share, moved by 2 pixels?
Run       python phase05_cnn/02-pooling-layers.py                          about 30 s
Needs     phase05_cnn/01-convolution-basics
Reference F.max_pool2d, F.avg_pool2d, F.lp_pool2d, F.adaptive_avg_pool2d, F.max_unpool2d
Notation  B batch  C channels  H W picture
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.data.batches import Batches
from common.data.images import ImageSet, load_images
from common.figures import new_figure, plot_curves, plot_images, save_figure
from common.lessons import load_lesson
from common.training import fit

convolution = load_lesson("phase05_cnn/01-convolution-basics")
SIDE = 14  # of the frame in which a digit of 8x8 is moved
POOLS = {"no pooling": 1, "maxima of 2x2": 2, "of 7x7": 7, "of the whole map": SIDE}
SHIFTS = range(4)  # pixels that a digit is moved by
SETTINGS = [(2, 2, 0), (3, 2, 1), (3, 1, 1), (4, 3, 2), (2, 3, 0)]  # size, stride, padding


@dataclass
class Config(LessonConfig):
    threads = 1
    data: str = param("digits", "data set", choices=("digits",))
    channels: int = param(16, "channels of the networks", tiny=8)
    epochs: int = param(12, "passes over the digits", tiny=4)
    runs: int = param(3, "splits of the digits, each with networks of its own", tiny=1)


def max_pool2d(x: Tensor, size: int, stride: int, padding: int = 0) -> tuple[Tensor, Tensor]:
    """The largest of each window, and where it stood: row · W + column. Both (B, C, …)."""
    # practice: The largest, and its place
    width = x.shape[3]
    padded = F.pad(x, [padding] * 4, value=-torch.inf)  # a zero might be the largest
    windows = convolution.windows(padded, (size, size), stride, 1)  # (B, C, size, size, rows, cols)
    values, winner = windows.flatten(2, 3).max(dim=2)  # (B, C, rows, cols)

    # From a place within the window to one in the picture, which begins behind the padding.
    tops = stride * torch.arange(values.shape[2], device=x.device)[:, None] - padding
    lefts = stride * torch.arange(values.shape[3], device=x.device) - padding
    return values, (tops + winner // size) * width + lefts + winner % size
    # end practice


def average_pool2d(x: Tensor, size: int, stride: int, padding: int = 0) -> Tensor:
    """The mean of each window; the zeros around the picture count too."""
    padded = F.pad(x, [padding] * 4)
    return convolution.windows(padded, (size, size), stride, 1).mean(dim=(2, 3))


def lp_pool2d(x: Tensor, power: float, size: int, stride: int) -> Tensor:
    """(a^p + b^p + …)^(1/p) of each window, for pictures without negative numbers."""
    windows = convolution.windows(x, (size, size), stride, 1)
    return windows.pow(power).sum(dim=(2, 3)).pow(1 / power)


def show_pools(cfg: Config) -> None:
    print("\n[1] The largest, the mean, or something between")
    picture = [
        [1.0, 3.0, 2.0, 0.0],
        [4.0, 2.0, 1.0, 1.0],
        [0.0, 1.0, 5.0, 2.0],
        [2.0, 0.0, 3.0, 6.0],
    ]
    x = torch.tensor(picture)[None, None]
    ours = torch.cat([max_pool2d(x, 2, 2)[0], average_pool2d(x, 2, 2)])
    text = "1 3 4 2 | 2 0 1 1 | 0 1 2 0 | 5 2 3 6: the largest 4 2 2 6, the means 2.5 1 0.75 4"
    check_close("by-hand", text, ours.flatten(), [4, 2, 2, 6, 2.5, 1, 0.75, 4])

    x = torch.rand(2, 3, 9, 11).double()
    ours = []
    theirs = []
    for size, stride, padding in SETTINGS:
        # Below zero, so that a zero of the padding would win.
        ours.append(max_pool2d(x - 2, size, stride, padding)[0])
        theirs.append(F.max_pool2d(x - 2, size, stride, padding))
        ours.append(average_pool2d(x, size, stride, padding))
        theirs.append(F.avg_pool2d(x, size, stride, padding))
        ours.append(lp_pool2d(x, 3, size, stride))
        theirs.append(F.lp_pool2d(x, 3, size, stride))
    text = f"torch's largest, mean and power pooling, with {len(SETTINGS)} sizes and strides"
    check_close("pools", text, flat(ours), flat(theirs))

    # The power mean: divided by the number of pixels under the root, p = 1 is the mean.
    power_mean = lp_pool2d(x, 64, 3, 2) / 9 ** (1 / 64)
    largest, _ = max_pool2d(x, 3, 2)
    gap = (1 - power_mean / largest).max()
    text = "the power mean with p = 64 misses the largest of 9 by a share of {} or less"
    check("power", text, gap, at_most=0.034)


def bounds(size: int, parts: int) -> list[tuple[int, int]]:
    """Where each of so many parts of a side begins and ends; they overlap if need be."""
    # practice: Parts of any side
    found = []
    for part in range(parts):
        start = part * size // parts
        end = -((part + 1) * size // -parts)  # rounded up
        found.append((start, end))
    return found
    # end practice


def adaptive_pool2d(x: Tensor, size: tuple[int, int], reduce: Callable) -> Tensor:
    """(B, C, H, W) -> (B, C, *size), whatever H and W are. reduce: torch.mean or torch.amax."""
    output = x.new_zeros(*x.shape[:2], *size)
    for row, (top, bottom) in enumerate(bounds(x.shape[2], size[0])):
        for column, (left, right) in enumerate(bounds(x.shape[3], size[1])):
            part = x[:, :, top:bottom, left:right]
            output[:, :, row, column] = reduce(part, dim=(2, 3))
    return output


def show_adaptive(cfg: Config) -> None:
    print("\n[2] Say the size of the output, and the windows follow")
    print(f"  7 pixels in 3 parts: {bounds(7, 3)}")
    x = torch.randn(2, 3, 7, 10).double()
    ours = []
    theirs = []
    for size in [(1, 1), (3, 4), (5, 2), (7, 10)]:
        ours.append(adaptive_pool2d(x, size, torch.mean))
        theirs.append(F.adaptive_avg_pool2d(x, size))
        ours.append(adaptive_pool2d(x, size, torch.amax))
        theirs.append(F.adaptive_max_pool2d(x, size))
    text = "7x10 pixels to 1x1 (global), 3x4, 5x2 and 7x10, as torch does it"
    check_close("adaptive", text, flat(ours), flat(theirs))


def send_back(values: Tensor, places: Tensor, size: tuple[int, int]) -> Tensor:
    """Each value to the place where the largest stood. (B, C, …) -> (B, C, *size)

    With gradients it is max pooling's way back, with the largest values it is unpooling.
    """
    # practice: Back to the winners
    height, width = size
    x = values.new_zeros(*values.shape[:2], height * width)

    # Added: a pixel may have been the largest in several windows.
    x.scatter_add_(2, places.flatten(2), values.flatten(2))
    return x.reshape(*values.shape[:2], height, width)
    # end practice


def average_backward(
    grad: Tensor, size: int, stride: int, padding: int, shape: torch.Size
) -> Tensor:
    """A mean is a convolution with equal weights, each channel by itself; 5.1 has its way back."""
    channels = grad.shape[1]
    weight = grad.new_full((channels, 1, size, size), 1 / size**2)
    return convolution.conv2d_transposed(grad, weight, shape, stride, padding, groups=channels)


def show_backward(cfg: Config) -> None:
    print("\n[3] The largest takes the whole gradient, a mean shares it out")
    x = torch.randn(2, 3, 9, 11).double().requires_grad_()
    ours = []
    theirs = []
    for size, stride, padding in SETTINGS:
        output = F.max_pool2d(x, size, stride, padding)
        grad = torch.randn_like(output)
        _, places = max_pool2d(x, size, stride, padding)
        ours.append(send_back(grad, places, x.shape[2:]))
        theirs += torch.autograd.grad(output, x, grad)

        output = F.avg_pool2d(x, size, stride, padding)
        grad = torch.randn_like(output)
        ours.append(average_backward(grad, size, stride, padding, x.shape[2:]))
        theirs += torch.autograd.grad(output, x, grad)
    check_close("gradients", "the gradients of both are autograd's", flat(ours), flat(theirs))

    values, places = max_pool2d(x.detach(), 2, 2)
    text = "unpooling puts every largest value back to its place, as torch's does"
    theirs = F.max_unpool2d(values, places, 2, 2, output_size=x.shape[2:])
    check_close("unpooled", text, send_back(values, places, x.shape[2:]), theirs)


class DigitNet(nn.Module):
    """Two convolutions, maxima of `pool` x `pool`, a linear layer. (B, 1, 14, 14) -> (B, 10)"""

    def __init__(self, channels: int, pool: int):
        super().__init__()
        self.pool = pool
        self.first = nn.Conv2d(1, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.head = nn.Linear(channels * (SIDE // pool) ** 2, 10)

    def maps(self, x: Tensor) -> Tensor:
        """(B, 1, H, W) -> (B, channels, H, W)"""
        x = self.first(x).relu()
        return self.second(x).relu()

    def forward(self, x: Tensor) -> Tensor:
        values, _ = max_pool2d(self.maps(x), self.pool, self.pool)
        return self.head(values.flatten(start_dim=1))


def show_place(cfg: Config, data: ImageSet) -> None:
    print("\n[4] The same digit in two places of a large frame")
    here = F.pad(framed(data.x_train[:1]), [6] * 4)  # (1, 1, 26, 26)
    there = here.roll((4, -5), dims=(2, 3))
    model = DigitNet(cfg.channels, 1)
    before = model.maps(here)
    after = model.maps(there)
    same = [adaptive_pool2d(maps, (1, 1), torch.amax) for maps in (after, before)]
    text = "the largest of a whole map does not say where: equal in both places, up to {}"
    check_close("place", text, *same)
    change = (after - before).norm() / before.norm()
    text = "the maps themselves differ by {} times their length"
    check("apart", text, change.item(), above=0.05)


def show_shifts(cfg: Config, sets: list[ImageSet]) -> dict[str, list[float]]:
    print(f"\n[5] Trained on digits in the middle, tested on moved ones; mean of {cfg.runs} splits")
    x = framed(sets[0].x_train[-32:])
    y = torch.tensor(sets[0].y_train[-32:])
    fresh = make_net(cfg, SIDE, 0)
    adam = torch.optim.Adam(fresh.parameters(), lr=0.02)
    text = "32 digits are learned by heart: the loss falls to {}"
    overfits("overfits", text, fresh, (x, y), cross_entropy, adam, steps=150)

    scores = {name: [] for name in POOLS}
    for run_number, data in enumerate(sets):
        x_test, y_test = data.test()
        for name, pool in POOLS.items():
            model = make_net(cfg, pool, run_number)
            train(model, data, cfg)
            scores[name].append([accuracy_moved(model, x_test, y_test, far) for far in SHIFTS])
            if pool == 2:
                predicted = model(framed(x_test)).argmax(dim=1)
    text = "with maxima of 2x2 the answer follows the digit: {}"
    depends_on_input("depends", text, predicted, y_test)

    means = {name: np.mean(rows, axis=0).tolist() for name, rows in scores.items()}
    print("  moved by            " + "".join(f"{far:8}" for far in SHIFTS))
    for name, row in means.items():
        print(f"  {name:<20}" + "".join(f"{score:8.3f}" for score in row))
    none, small, _, whole = means.values()
    text = "moved by 2 pixels, a share of {} is read without pooling; guessing gives 0.1"
    expect("flat", text, none[2], at_most=0.35)
    text = "moved by 1 pixel, maxima of 2x2 read {} more than no pooling"
    expect("pooled", text, small[1] - none[1], at_least=0.02)
    text = "moved by 2 pixels, the maximum of the whole map still reads {}"
    expect("global", text, whole[2], at_least=0.75)
    text = "its price: of the digits in the middle it reads {} less than maxima of 2x2 do"
    expect("price", text, small[0] - whole[0], above=0)
    return means


# Pictures and helpers: skip on a first reading


def flat(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def framed(x: np.ndarray, down: int = 0, right: int = 0) -> Tensor:
    """Digits (n, 8, 8) from 0 to 16, moved from the middle of a frame. (n, 1, 14, 14), 0 to 1"""
    return F.pad(torch.tensor(x)[:, None] / 16, [3 + right, 3 - right, 3 + down, 3 - down])


def accuracy_moved(model: nn.Module, x: np.ndarray, y: np.ndarray, far: int) -> float:
    """Mean over moves by so many pixels to the left, right, up and down."""
    shares = []
    with torch.no_grad():
        for down, right in [(far, 0), (-far, 0), (0, far), (0, -far)]:
            predicted = model(framed(x, down, right)).argmax(dim=1)
            shares.append((predicted.numpy() == y).mean())
    return float(np.mean(shares))


def make_net(cfg: Config, pool: int, run_number: int) -> DigitNet:
    torch.manual_seed(10 * cfg.seed + run_number)
    return DigitNet(cfg.channels, pool)


def cross_entropy(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    x, y = batch
    return F.cross_entropy(model(x), y)


def train(model: nn.Module, data: ImageSet, cfg: Config) -> None:
    y = torch.tensor(data.y_train)
    batches = Batches(framed(data.x_train), y, batch_size=64, shuffle=True, seed=cfg.seed)
    adam = torch.optim.Adam(model.parameters(), lr=0.005)
    fit(model, batches, adam, cross_entropy, epochs=cfg.epochs, quiet=True)


def draw_pools(cfg: Config, data: ImageSet) -> None:
    x = torch.tensor(data.x_train[2:3])[None].double()  # (1, 1, 8, 8)
    values, places = max_pool2d(x, 2, 2)
    pictures = [x, values, average_pool2d(x, 2, 2), send_back(values, places, (8, 8))]
    titles = ["a digit", "largest of 2x2", "mean of 2x2", "largest, unpooled"]
    figure, axes = new_figure(1, 4, size=(12, 3.4))
    plot_images(axes, [picture[0, 0].numpy() for picture in pictures], titles)
    figure.suptitle(
        "Max pooling keeps one number of four; unpooling restores no other", fontweight="bold"
    )
    save_figure(figure, cfg.out / "pools")


def draw_shifts(cfg: Config, means: dict[str, list[float]]) -> None:
    figure, axis = new_figure(size=(8, 4.6))
    plot_curves(axis, means, xlabel="digit moved by so many pixels", ylabel="accuracy", start=0)
    axis.set_title("The larger the window, the less a move matters")
    save_figure(figure, cfg.out / "shifts")


def run(cfg: Config) -> dict[str, float]:
    sets = [load_images(cfg, split_seed=10 * cfg.seed + number) for number in range(cfg.runs)]
    show_pools(cfg)
    show_adaptive(cfg)
    show_backward(cfg)
    show_place(cfg, sets[0])
    means = show_shifts(cfg, sets)
    draw_pools(cfg, sets[0])
    draw_shifts(cfg, means)
    names = dict(zip(POOLS, ["flat", "max2", "max7", "global"]))
    return {f"{names[name]}_{far}": row[far] for name, row in means.items() for far in SHIFTS}


if __name__ == "__main__":
    main(run, Config, __doc__)
