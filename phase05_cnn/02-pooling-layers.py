"""5.2 Pooling: what is lost, what is gained
池化：丢了什么，得到什么

You will be able to answer
    1. What does a pooling layer compute?  show_pools     by-hand, max, average
    2. How does any size become one size?  show_adaptive  adaptive
    3. Which pixels get the gradient?      show_backward  winners, gradients
    4. What is lost?                       show_order     same, half, order
    5. What is gained?                     show_shifts    overfits, depends, flat, pooled, global
Predict   flat_2: without pooling 96% of centred digits are read; what share, shifted by 2 pixels?
Run       python phase05_cnn/02-pooling-layers.py                          about 30 s
Needs     phase03_pytorch/09-training-loop, phase05_cnn/01-convolution-basics
Reference F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d
Notation  B batch  C channels  H W picture
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.data.batches import Batches
from common.data.images import ImageSet, load_images
from common.figures import COLOURS, GREY, ORANGE, new_figure, plot_curves, plot_images, save_figure
from common.lessons import load_lesson
from common.training import fit

training_loop = load_lesson("phase03_pytorch/09-training-loop")
convolution = load_lesson("phase05_cnn/01-convolution-basics")
flat = convolution.flat  # several tensors as one row of numbers
SIDE = 14  # of the frame in which a digit of 8x8 is shifted
POOLS = {"no pooling": 1, "max 2x2": 2, "max 7x7": 7, "global max": None}
SHIFTS = range(4)  # pixels
EXAMPLE = [[1.0, 3, 2, 0], [4, 2, 1, 1], [0, 1, 5, 2], [2, 0, 3, 6]]
SETTINGS = [(2, 2, 0), (3, 2, 1), (3, 1, 1), (4, 3, 2), (2, 3, 0)]  # size, stride, padding


@dataclass
class Config(LessonConfig):
    threads = 1
    data: str = param("digits", "data set", choices=("digits",))
    channels: int = param(16, "channels of the networks", tiny=8)
    epochs: int = param(12, "passes over the digits", tiny=4)
    runs: int = param(3, "splits of the digits, each with networks of its own", tiny=1)


def max_pool2d(x: Tensor, size: int, stride: int, padding: int = 0) -> tuple[Tensor, Tensor]:
    """The largest of each window, and its index in x: row · W + column. Both (B, C, …)."""
    # practice: The largest, and its index
    width = x.shape[3]
    padded = F.pad(x, [padding] * 4, value=-torch.inf)  # a zero might be the largest
    windows = convolution.windows(padded, (size, size), stride, 1)  # (B, C, size, size, rows, cols)
    values, winner = windows.flatten(2, 3).max(dim=2)  # (B, C, rows, cols)

    # From the position in a window to the one in the picture, which begins behind the padding.
    tops = stride * torch.arange(values.shape[2], device=x.device)[:, None] - padding
    lefts = stride * torch.arange(values.shape[3], device=x.device) - padding
    return values, (tops + winner // size) * width + lefts + winner % size
    # end practice


def average_pool2d(x: Tensor, size: int, stride: int, padding: int = 0) -> Tensor:
    """The mean of each window; the zeros around the picture count too."""
    padded = F.pad(x, [padding] * 4)
    return convolution.windows(padded, (size, size), stride, 1).mean(dim=(2, 3))


def show_pools(cfg: Config) -> None:
    print("\n[1] Of each window, keep the largest number or the mean")
    x = torch.tensor(EXAMPLE)[None, None]
    for row in x[0, 0].int().tolist():
        print("    " + "  ".join(str(pixel) for pixel in row))
    ours = torch.cat([max_pool2d(x, 2, 2)[0], average_pool2d(x, 2, 2)])
    text = "the four windows of 2x2 have the maxima 4 2 2 6 and the means 2.5 1 0.75 4"
    check_close("by-hand", text, ours.flatten(), [4, 2, 2, 6, 2.5, 1, 0.75, 4])

    x = torch.randn(2, 3, 9, 11).double()
    settings = f"{len(SETTINGS)} settings of size, stride and padding"
    ours = [max_pool2d(x, *setting)[0] for setting in SETTINGS]
    theirs = [F.max_pool2d(x, *setting) for setting in SETTINGS]
    check_close("max", f"max_pool2d equals F.max_pool2d in {settings}", flat(ours), flat(theirs))

    ours = [average_pool2d(x, *setting) for setting in SETTINGS]
    theirs = [F.avg_pool2d(x, *setting) for setting in SETTINGS]
    text = f"average_pool2d equals F.avg_pool2d in {settings}"
    check_close("average", text, flat(ours), flat(theirs))


def bounds(size: int, parts: int) -> list[tuple[int, int]]:
    """Where each of so many parts of a side begins and ends (excluded); they may overlap."""
    # practice: Parts of any side
    found = []
    for part in range(parts):
        start = math.floor(part * size / parts)
        end = math.ceil((part + 1) * size / parts)
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
    print(f"  7 pixels in 3 parts, the end excluded: {bounds(7, 3)}")
    x = torch.randn(2, 3, 7, 10).double()
    ours = []
    theirs = []
    for size in [(1, 1), (3, 4), (5, 2), (7, 10)]:
        ours += [adaptive_pool2d(x, size, torch.mean), adaptive_pool2d(x, size, torch.amax)]
        theirs += [F.adaptive_avg_pool2d(x, size), F.adaptive_max_pool2d(x, size)]
    text = "from 7x10 pixels to 1x1 (global), 3x4, 5x2 and 7x10, it equals torch's for mean and max"
    check_close("adaptive", text, flat(ours), flat(theirs))


def send_back(values: Tensor, index: Tensor, size: tuple[int, int]) -> Tensor:
    """Each value to the pixel that was the largest. (B, C, …) -> (B, C, *size)

    With gradients it is max pooling's way back. With the largest values, and windows that do not
    overlap, it is unpooling.
    """
    # practice: Back to the winners
    height, width = size
    x = values.new_zeros(*values.shape[:2], height * width)

    # Added: a pixel may have been the largest in several windows.
    x.scatter_add_(2, index.flatten(2), values.flatten(2))
    return x.reshape(*values.shape[:2], height, width)
    # end practice


def average_back(grad: Tensor, size: int, stride: int, padding: int, shape: torch.Size) -> Tensor:
    """A mean is a convolution with equal weights, each channel by itself; 5.1 has its way back."""
    channels = grad.shape[1]
    weight = grad.new_full((channels, 1, size, size), 1 / size**2)
    return convolution.conv2d_transposed(grad, weight, shape, stride, padding, groups=channels)


def show_backward(cfg: Config) -> None:
    print("\n[3] The largest takes the whole gradient, a mean shares it out")
    _, index = max_pool2d(torch.tensor(EXAMPLE)[None, None], 2, 2)
    back = send_back(torch.tensor([[[[1.0, 2], [3, 4]]]]), index, (4, 4))
    wanted = [[0, 0, 2, 0], [1, 0, 0, 0], [0, 0, 0, 0], [3, 0, 0, 4]]
    text = "in the picture of [1], gradients 1 2 3 4 go to the maxima 4 2 2 6, to the others 0"
    check_close("winners", text, back[0, 0], wanted)

    x = torch.randn(2, 3, 9, 11).double().requires_grad_()
    ours = []
    theirs = []
    for size, stride, padding in SETTINGS:
        output = F.max_pool2d(x, size, stride, padding)
        grad = torch.randn_like(output)
        _, index = max_pool2d(x, size, stride, padding)
        ours.append(send_back(grad, index, x.shape[2:]))
        theirs += torch.autograd.grad(output, x, grad)

        output = F.avg_pool2d(x, size, stride, padding)
        grad = torch.randn_like(output)
        ours.append(average_back(grad, size, stride, padding, x.shape[2:]))
        theirs += torch.autograd.grad(output, x, grad)
    text = f"the gradients of both equal autograd's in {len(SETTINGS)} settings"
    check_close("gradients", text, flat(ours), flat(theirs))


class DigitNet(nn.Module):
    """Two convolutions, max pooling, a linear layer. (B, 1, 14, width) -> (B, 10)

    pool: the side of the windows, None for the whole map.
    """

    def __init__(self, channels: int, pool: int | None, width: int = SIDE):
        super().__init__()
        self.pool = pool
        self.first = nn.Conv2d(1, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        cells = 1 if pool is None else (SIDE // pool) * (width // pool)
        self.head = nn.Linear(channels * cells, 10)

    def features(self, x: Tensor) -> Tensor:
        """What the linear layer gets to see. (B, 1, 14, width) -> (B, channels · cells)"""
        maps = self.second(self.first(x).relu()).relu()  # (B, channels, 14, width)
        if self.pool is None:
            values = adaptive_pool2d(maps, (1, 1), torch.amax)
        else:
            values, _ = max_pool2d(maps, self.pool, self.pool)
        return values.flatten(start_dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


def show_order(cfg: Config, data: ImageSet) -> dict[str, float]:
    print("\n[4] Two digits side by side, a 3 and a 7: which one stands on the left?")
    x_train, left = two_digits(data.x_train, data.y_train)
    model = make_net(cfg, None, 0, 2 * SIDE)
    of_37, of_73 = model.features(x_train).chunk(2)  # first all 37, then the same digits as 73
    text = f"global max: 37 and 73 give the same {cfg.channels} numbers, no layer behind can tell"
    check_close("same", text, of_37, of_73)

    scores = {}
    unseen = two_digits(data.x_val, data.y_val)
    for name in ("global max", "max 2x2"):
        model = make_net(cfg, POOLS[name], 0, 2 * SIDE)
        train(model, x_train, left, cfg, 3 * cfg.epochs)  # few pictures, so more passes
        scores[name] = accuracy(model, *unseen)
    text = "global max, trained for it: right in {} of unseen pictures, as a coin would be"
    check("half", text, scores["global max"], at_most=0.5)
    text = "max 2x2, which keeps 7x14 places apart: right in {}"
    expect("order", text, scores["max 2x2"], at_least=0.9)
    return {"order_global": scores["global max"], "order_max2": scores["max 2x2"]}


def show_shifts(cfg: Config, sets: list[ImageSet]) -> dict[str, np.ndarray]:
    print("\n[5] Trained on digits in the middle, tested on shifted ones")
    # First: can this network learn at all, and from the picture?
    x = framed(sets[0].x_train[-32:])
    y = torch.tensor(sets[0].y_train[-32:])
    fresh = make_net(cfg, None, 0)
    adam = torch.optim.Adam(fresh.parameters(), lr=0.02)
    text = "32 digits are memorised: the loss falls to {}"
    overfits("overfits", text, fresh, (x, y), training_loop.cross_entropy, adam, steps=150)
    text = "and each is then named by what it shows: accuracy {}"
    depends_on_input("depends", text, fresh(x).argmax(dim=1), y)

    scores = {name: [] for name in POOLS}
    for run_number, data in enumerate(sets):
        test = data.test()
        for name, pool in POOLS.items():
            model = make_net(cfg, pool, run_number)
            train(model, framed(data.x_train), torch.tensor(data.y_train), cfg, cfg.epochs)
            scores[name].append([accuracy_shifted(model, *test, far) for far in SHIFTS])
    scores = {name: np.array(rows) for name, rows in scores.items()}  # (runs, shifts)

    print(f"  mean of {cfg.runs} splits, pixels: " + "".join(f"{far:7}" for far in SHIFTS))
    for name, rows in scores.items():
        print(f"  {name:<26}" + "".join(f"{score:7.3f}" for score in rows.mean(axis=0)))
    text = "shifted by 2 pixels, {} are read without pooling; guessing gives 0.1"
    expect("flat", text, scores["no pooling"][:, 2].mean(), at_most=0.2)
    by_one = [rows[:, 1].mean() for rows in scores.values()]
    text = "shifted by 1 pixel, each larger window reads more than the one before, by at least {}"
    expect("pooled", text, min(np.diff(by_one)), at_least=0.02)
    text = "shifted by 2 pixels, global max still reads {}"
    expect("global", text, scores["global max"][:, 2].mean(), at_least=0.8)
    return scores


# Pictures and helpers: skip on a first reading


def framed(x: np.ndarray, down: int = 0, right: int = 0) -> Tensor:
    """Digits (n, 8, 8) from 0 to 16, shifted from the middle of a frame. (n, 1, 14, 14), 0 to 1"""
    return F.pad(torch.tensor(x)[:, None] / 16, [3 + right, 3 - right, 3 + down, 3 - down])


def two_digits(x: np.ndarray, y: np.ndarray) -> tuple[Tensor, Tensor]:
    """Pictures of 37, then the same digits as 73, and the left digit. (n, 1, 14, 28), (n,)

    Six columns lie between the digits, so that no unit of two 3x3 layers reads both.
    """
    threes = framed(x[y == 3])
    sevens = framed(x[y == 7])
    pairs = min(len(threes), len(sevens))
    threes, sevens = threes[:pairs], sevens[:pairs]
    pictures = torch.cat([torch.cat([threes, sevens], dim=3), torch.cat([sevens, threes], dim=3)])
    return pictures, torch.tensor([3] * pairs + [7] * pairs)


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    return training_loop.accuracy(model, (x, y))["accuracy"].item()


def accuracy_shifted(model: nn.Module, x: np.ndarray, y: np.ndarray, far: int) -> float:
    """Mean over shifts by so many pixels to the left, right, up and down."""
    shares = []
    for down, right in [(far, 0), (-far, 0), (0, far), (0, -far)]:
        shares.append(accuracy(model, framed(x, down, right), torch.tensor(y)))
    return float(np.mean(shares))


def make_net(cfg: Config, pool: int | None, run_number: int, width: int = SIDE) -> DigitNet:
    torch.manual_seed(10 * cfg.seed + run_number)
    return DigitNet(cfg.channels, pool, width)


def train(model: nn.Module, x: Tensor, y: Tensor, cfg: Config, epochs: int) -> None:
    batches = Batches(x, y, batch_size=64, shuffle=True, seed=cfg.seed)
    adam = torch.optim.Adam(model.parameters(), lr=0.005)
    fit(model, batches, adam, training_loop.cross_entropy, epochs=epochs, quiet=True)


def draw_pools(cfg: Config, data: ImageSet) -> None:
    x = torch.tensor(data.x_train[2:3])[None].double()  # (1, 1, 8, 8)
    values, index = max_pool2d(x, 2, 2)
    pictures = [x, values, average_pool2d(x, 2, 2), send_back(values, index, (8, 8))]
    titles = ["a digit, in windows of 2x2", "max 2x2", "average 2x2", "maxima, unpooled"]
    figure, axes = new_figure(1, 4, size=(12, 3.4))
    plot_images(axes, [picture[0, 0].numpy() for picture in pictures], titles)
    for axis in (axes[0], axes[3]):
        axis.hlines([1.5, 3.5, 5.5], -0.5, 7.5, color=ORANGE, linewidth=1)
        axis.vlines([1.5, 3.5, 5.5], -0.5, 7.5, color=ORANGE, linewidth=1)
    title = "Max pooling keeps one number of four; unpooling restores no other"
    figure.suptitle(title, fontweight="bold")
    save_figure(figure, cfg.out / "pools")


def draw_shifts(cfg: Config, scores: dict[str, np.ndarray]) -> None:
    figure, axis = new_figure(size=(8, 4.6))
    means = {name: rows.mean(axis=0) for name, rows in scores.items()}
    plot_curves(axis, means, xlabel="digit shifted by so many pixels", ylabel="accuracy", start=0)
    for rows, colour in zip(scores.values(), COLOURS):
        for row in rows:
            axis.plot(SHIFTS, row, ".", color=colour, alpha=0.5)
    axis.axhline(0.1, color=GREY, linestyle="--", linewidth=1)
    axis.text(0, 0.12, "guessing", color=GREY)
    axis.set_title(f"The larger the window, the less a shift matters (dots: {cfg.runs} splits)")
    save_figure(figure, cfg.out / "shifts")


def run(cfg: Config) -> dict[str, float]:
    sets = [load_images(cfg, split_seed=10 * cfg.seed + number) for number in range(cfg.runs)]
    show_pools(cfg)
    show_adaptive(cfg)
    show_backward(cfg)
    order = show_order(cfg, sets[0])
    scores = show_shifts(cfg, sets)
    draw_pools(cfg, sets[0])
    draw_shifts(cfg, scores)
    results = {}
    for name, rows in zip(["flat", "max2", "max7", "global"], scores.values()):
        for far in SHIFTS:
            results[f"{name}_{far}"] = rows[:, far].mean()
    return {**results, **order}


if __name__ == "__main__":
    main(run, Config, __doc__)
