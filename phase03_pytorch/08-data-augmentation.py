"""3.8 Data augmentation: new pictures from old ones, and what must move with them
数据增强：由旧图得到新图，以及哪些东西必须随之改变

You will be able to answer
    1. How is a value read between pixels?   show_geometry  by-hand, turned
    2. What happens to boxes on a picture?   show_boxes     together
    3. What are contrast and saturation?     show_colour    colour
    4. Which label has a mixed picture?      show_mixing    mixup, cutmix, untouched
    5. Does it help, and when does it harm?  show_training  tilted, flips, fitted, depends, overfits
Predict   tilted_plain: 94% of upright test digits are read; what share of them, turned up to 15°?
Run       python phase03_pytorch/08-data-augmentation.py                   about 20 s
Needs     -
Reference vf.rotate, vf.affine, v2.MixUp, v2.CutMix
Notation  B batch  C colours or classes  H height  W width  N boxes, each (left, top, right, bottom)
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from sklearn.datasets import load_sample_images
from torch import Tensor, nn
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as vf

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.data.batches import Batches
from common.data.images import load_images
from common.figures import ORANGE, new_figure, plot_images, save_figure
from common.training import fit

Batch = tuple[Tensor, Tensor]  # pictures, and the classes or the targets


@dataclass
class Config(LessonConfig):
    threads = 1  # 50 digits of 64 pixels a step: a second thread would only wait
    every: int = param(2, "keep every n-th pixel of the photograph", tiny=8)
    runs: int = param(5, "seeds of the comparison", tiny=1)
    epochs: int = param(80, "passes over 300 digits", tiny=10)


def sample(pictures: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """(B, C, H, W) read at x, y in pixels, (B, h, w) -> (B, C, h, w). Bilinear; outside is 0."""
    # practice: A value between four pixels
    height, width = pictures.shape[-2:]
    batch = torch.arange(len(pictures))[:, None, None]
    left = x.floor().long()
    top = y.floor().long()
    result = 0
    for column in [left, left + 1]:
        for row in [top, top + 1]:
            weight = (1 - (x - column).abs()) * (1 - (y - row).abs())
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)

            # A place outside is read at the edge, so that there is something, and counts nothing.
            values = pictures[batch, :, row.clamp(0, height - 1), column.clamp(0, width - 1)]
            result = result + (weight * inside)[..., None] * values  # (B, h, w, C)
    return result.movedim(-1, 1)
    # end practice


def rotate(pictures: Tensor, degrees: Tensor, right: Tensor, down: Tensor) -> Tensor:
    """(B, C, H, W), each turned counter-clockwise by degrees (B,), then moved by pixels (B,)."""
    # practice: Ask every new pixel where it came from
    height, width = pictures.shape[-2:]
    turn = torch.deg2rad(degrees)[:, None, None]  # (B, 1, 1)

    # The new pixels, seen from the centre, and the move undone.
    x = torch.arange(width) - (width - 1) / 2 - right[:, None, None]  # (B, 1, W)
    y = torch.arange(height)[:, None] - (height - 1) / 2 - down[:, None, None]  # (B, H, 1)

    # Turned back, clockwise. Rows count downwards, which changes the sign of the sine.
    old_x = x * turn.cos() - y * turn.sin() + (width - 1) / 2  # (B, H, W)
    old_y = x * turn.sin() + y * turn.cos() + (height - 1) / 2
    return sample(pictures, old_x, old_y)
    # end practice


def show_geometry(cfg: Config, photo: Tensor) -> None:
    print("\n[1] A flip reverses the columns; turning has to read between pixels")
    four = torch.tensor([[[[10.0, 20.0], [30.0, 50.0]]]])  # (1, 1, 2, 2)
    x, y = torch.tensor([[[[0.25, -0.5]]], [[[0.5, 0.0]]]])  # (1, 1, 2)
    text = "at (0.25, 0.5), between 10, 20, 30 and 50, is 23.75; half a pixel outside is half of 10"
    check_close("by-hand", text, sample(four, x, y).flatten(), [23.75, 5])

    moves = [[17.0, 0.0, 0.0], [-33.5, 3.5, -2.0], [211.0, -8.0, 5.25]]  # degrees, right, down
    theirs = [vf.horizontal_flip(photo)]
    for angle, *move in moves:
        theirs.append(vf.affine(photo, -angle, move, 1, [0, 0], v2.InterpolationMode.BILINEAR))
    moves = torch.tensor(moves, dtype=photo.dtype)
    ours = [photo.flip(-1), *rotate(photo.expand(3, -1, -1, -1), *moves.T)]
    text = "a photograph, flipped once and turned and moved three times, is v2's"
    check_close("turned", text, torch.stack(ours), torch.stack(theirs))


def flip_boxes(boxes: Tensor, width: int) -> Tensor:
    """(N, 4) after a flip from left to right."""
    left, top, right, bottom = boxes.unbind(dim=1)
    # What was the right edge is the left one now.
    return torch.stack([width - right, top, width - left, bottom], dim=1)


def crop_boxes(boxes: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    """(N, 4) after a crop, cut off at its edges: a box that lay outside keeps no area."""
    moved = boxes - torch.tensor([left, top, left, top])
    return moved.clamp(torch.zeros(4), torch.tensor([width, height, width, height]))


def rotate_boxes(boxes: Tensor, degrees: float, height: int, width: int) -> Tensor:
    """(N, 4): the upright box around each turned one, cut off at the edges of the picture."""
    cos = math.cos(math.radians(degrees))
    sin = math.sin(math.radians(degrees))
    x = boxes[:, [0, 2, 2, 0]] - width / 2  # (N, 4 corners), from the centre
    y = boxes[:, [1, 1, 3, 3]] - height / 2

    # Corners go forward: the sine has the other sign than in `rotate`.
    new_x = (x * cos + y * sin + width / 2).clamp(0, width)
    new_y = (y * cos - x * sin + height / 2).clamp(0, height)
    edges = [new_x.amin(dim=1), new_y.amin(dim=1), new_x.amax(dim=1), new_y.amax(dim=1)]
    return torch.stack(edges, dim=1)


def show_boxes(cfg: Config) -> None:
    print("\n[2] A box is a statement about pixels: when they move, it must move with them")
    drawn = torch.zeros(1, 1, 60, 80)
    drawn[..., 12:31, 18:50] = 1
    box = torch.tensor([[18.0, 12.0, 50.0, 31.0]])
    pictures = [drawn.flip(-1), drawn[..., 20:50, 10:40]]
    boxes = [flip_boxes(box, 80), crop_boxes(box, 20, 10, 30, 30)]
    for angle in [25.0, -70.0, 140.0]:
        pictures.append(rotate(drawn, *torch.tensor([[angle], [0.0], [0.0]])))
        boxes.append(rotate_boxes(box, angle, 60, 80))
    seen = []
    for picture in pictures:
        rows, columns = (picture[0, 0] > 0.5).nonzero().unbind(dim=1)
        seen.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    farthest = (torch.cat(boxes) - torch.tensor(seen)).abs().max()
    text = "flipped, cropped, turned: the box ends within {} pixels of the drawn rectangle"
    check("together", text, farthest, at_most=1)


def blend(picture: Tensor, other: Tensor | float, factor: float) -> Tensor:
    """factor 1: the picture, 0: the other, above 1: away from the other. Kept within 0 to 1."""
    return (picture * factor + other * (1 - factor)).clamp(0, 1)


def grey(picture: Tensor) -> Tensor:
    """(3, H, W) -> (H, W): as bright as the eye finds each colour."""
    return 0.2989 * picture[0] + 0.587 * picture[1] + 0.114 * picture[2]


def show_colour(cfg: Config, photo: Tensor) -> None:
    print("\n[3] Colour: a blend with black, with the mean grey, with one's own grey")
    others = [0, grey(photo).mean(), grey(photo)]
    adjusts = [vf.adjust_brightness, vf.adjust_contrast, vf.adjust_saturation]
    ours = [blend(photo, other, factor) for factor in [0.4, 1.6] for other in others]
    theirs = [adjust(photo, factor) for factor in [0.4, 1.6] for adjust in adjusts]
    text = "brightness, contrast and saturation of 0.4 and 1.6 are those of v2"
    check_close("colour", text, torch.stack(ours), torch.stack(theirs))


def mixup(pictures: Tensor, targets: Tensor, share: float) -> Batch:
    """Pictures (B, C, H, W) and targets (B, C), each blended with the one before in the batch."""
    mixed = share * pictures + (1 - share) * pictures.roll(1, dims=0)
    return mixed, share * targets + (1 - share) * targets.roll(1, dims=0)


def cutmix(pictures: Tensor, targets: Tensor, share: float, x: int, y: int) -> Batch:
    """A rectangle around column x and row y comes from the picture before in the batch.

    To each side of (x, y) it reaches half of √(1 - share) of the picture's width or height,
    rounded down to whole pixels, and it ends at the edges. The targets (B, C) follow the area.
    """
    # practice: Cut here, paste there, count the pixels
    height, width = pictures.shape[-2:]
    half = math.sqrt(1 - share) / 2
    rows = slice(max(y - int(half * height), 0), y + int(half * height))
    columns = slice(max(x - int(half * width), 0), x + int(half * width))

    # Into a copy: the caller's pictures are not ours to change.
    mixed = pictures.clone()
    mixed[..., rows, columns] = pictures.roll(1, dims=0)[..., rows, columns]

    # At an edge less is pasted than was asked for, so the share is counted.
    kept = 1 - mixed[0, 0, rows, columns].numel() / (height * width)
    return mixed, kept * targets + (1 - kept) * targets.roll(1, dims=0)
    # end practice


def show_mixing(cfg: Config) -> None:
    print("\n[4] Two pictures in one: the label says how much of each")
    pictures = torch.rand(8, 3, 20, 30, dtype=torch.float64)
    targets = torch.eye(8, dtype=torch.float64)
    before = pictures.clone()
    for name, reference in [("mixup", v2.MixUp), ("cutmix", v2.CutMix)]:
        differences = []
        for seed in range(20):
            torch.manual_seed(seed)
            theirs = reference(num_classes=8)(pictures, torch.arange(8))
            # v2 draws the share from Beta(1, 1), and for CutMix a centre after it.
            torch.manual_seed(seed)
            share = torch.distributions.Beta(torch.ones(1), torch.ones(1)).sample().item()
            centre = [torch.randint(size, ()).item() for size in [30, 20]]
            ours = mixup(pictures, targets, share)
            if name == "cutmix":
                ours = cutmix(pictures, targets, share, *centre)
            differences += [(a - b).abs().max() for a, b in zip(ours, theirs)]
        text = f"{name}: pictures and labels of 20 batches are at most {{}} from v2's"
        check(name, text, max(differences), at_most=1e-6)
    changed = (pictures != before).sum()
    text = "mixup and cutmix change {} pixels of the pictures they are given"
    check("untouched", text, changed, at_least=0, at_most=0)


def turn_and_shift(pictures: Tensor) -> Tensor:
    """(B, C, H, W): each turned by up to 15 degrees, and moved by up to 0.7 pixels each way."""
    degrees, right, down = 2 * torch.rand(3, len(pictures)) - 1
    return rotate(pictures, 15 * degrees, 0.7 * right, 0.7 * down)


@torch.no_grad()
def measure(model: nn.Module, few: Batch, test: Batch, tilted: Batch) -> list[float]:
    """Loss on the few digits and on the test digits; accuracy on the test digits and on tilted."""
    losses = [cross_entropy(model, batch).item() for batch in (few, test)]
    hits = [(model(x).argmax(dim=1) == y).float().mean().item() for x, y in (test, tilted)]
    return losses + hits


def show_training(cfg: Config) -> dict[str, float]:
    print("\n[5] A network learns 300 digits, and reads test digits: as they are, and tilted")
    data = load_images(cfg, "digits")
    x, y = to_tensors(data.x_train, data.y_train)
    test = to_tensors(*data.test())
    tilted = (turn_and_shift(test[0]), test[1])
    transforms = {"plain": None, "moved": turn_and_shift, "flipped": v2.RandomHorizontalFlip()}
    names = ["train_loss", "test_loss", "accuracy", "tilted"]
    results = {}
    for kind, transform in transforms.items():
        rows = []
        for seed in range(cfg.seed * cfg.runs, (cfg.seed + 1) * cfg.runs):
            # The same digits and the same first weights for every kind: pairs.
            chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:300]
            few = (x[chosen], y[chosen])
            model = train(cfg, few, transform, seed)
            rows.append(measure(model, few, test, tilted))
        means = dict(zip(names, torch.tensor(rows).mean(dim=0).tolist()))
        print(f"  {kind:<9}" + "  ".join(f"{name} {mean:.3f}" for name, mean in means.items()))
        results |= {f"{name}_{kind}": mean for name, mean in means.items()}

    gained = results["tilted_moved"] - results["tilted_plain"]
    text = "training on moved digits adds {} to the accuracy on tilted ones"
    expect("tilted", text, gained, above=0.05)
    lost = results["accuracy_plain"] - results["accuracy_flipped"]
    text = "training on flipped ones, among which a 3 is no 3, takes {} from that on test digits"
    expect("flips", text, lost, above=0.005)

    risen = results["train_loss_moved"] - results["train_loss_plain"]
    fallen = results["test_loss_plain"] - results["test_loss_moved"]
    text = (
        "moves narrow the gap between both losses; a share of {} of that is a risen training loss"
    )
    expect("fitted", text, risen / (risen + fallen), above=0.5)

    text = "the last network, trained on flipped digits, reads a share of {} of the test digits"
    depends_on_input("depends", text, model(test[0]).argmax(dim=1), test[1])
    adam = torch.optim.Adam(model.parameters(), lr=3e-3)
    text = "and then learns 32 upright digits by heart: {}"
    overfits("overfits", text, model, (x[:32], y[:32]), cross_entropy, adam)
    return results


# Pictures and helpers: skip on a first reading


def draw_augmented(cfg: Config, photo: Tensor, other: Tensor) -> None:
    height, width = photo.shape[-2:]
    boxes = torch.tensor([[62.0, 28.0, 375.0, 410.0], [545.0, 135.0, 640.0, 427.0]]) / cfg.every
    square = (height // 5, width // 3, height // 2, height // 2)
    pair = torch.stack([photo, other])
    still = torch.zeros(2, dtype=photo.dtype)
    pasted, labels = cutmix(pair, torch.eye(2), 0.6, width // 2, height // 8)
    shown = {
        "original": photo,
        "flip": photo.flip(-1),
        "turned by 15°": rotate(pair, still + 15, still, still)[0],
        "crop": vf.crop(photo, *square),
        "contrast 1.8": blend(photo, grey(photo).mean(), 1.8),
        "saturation 2.5": blend(photo, grey(photo), 2.5),
        "mixup: 60% pagoda": mixup(pair, torch.eye(2), 0.6)[0][0],
        f"CutMix: {labels[0, 0]:.0%} pagoda": pasted[0],
    }
    moved = [boxes, flip_boxes(boxes, width), rotate_boxes(boxes, 15, height, width)]
    # The tree lies outside of the crop: its box has no area left, and goes with its label.
    moved.append(crop_boxes(boxes[:1], *square))
    figure, axes = new_figure(2, 4, size=(15, 5.8))
    pictures = [picture.movedim(0, -1).clamp(0, 1).numpy() for picture in shown.values()]
    plot_images(axes, pictures, list(shown))
    for axis, edges in zip(axes.flat, moved):
        # The middle of pixel 0 is drawn at 0, its left edge at -0.5.
        for x0, y0, x1, y1 in (edges - 0.5).tolist():
            axis.plot([x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], color=ORANGE)
    save_figure(figure, cfg.out / "augmented")


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    x, y = batch
    return F.cross_entropy(model(x), y)


def train(cfg: Config, few: Batch, transform: Callable | None, seed: int) -> nn.Module:
    """A small network that learns a few digits by the shared `fit`, which lesson 3.9 derives."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    batches = Batches(*few, batch_size=50, shuffle=True, seed=seed, transform=transform)
    fit(model, batches, optimizer, cross_entropy, epochs=cfg.epochs, quiet=True)
    return model


def to_tensors(x, y) -> Batch:
    """uint8 pictures (n, H, W) -> (n, 1, H, W) from 0 to 1, and their classes (n,)."""
    return torch.from_numpy(x)[:, None].float() / 16, torch.from_numpy(y)


def run(cfg: Config) -> dict:
    photos = torch.stack([torch.tensor(picture) for picture in load_sample_images().images])
    photo, other = photos[:, :: cfg.every, :: cfg.every].movedim(3, 1).double() / 255
    show_geometry(cfg, photo)
    show_boxes(cfg)
    show_colour(cfg, photo)
    show_mixing(cfg)
    draw_augmented(cfg, photo, other)
    return show_training(cfg)


if __name__ == "__main__":
    main(run, Config, __doc__)
