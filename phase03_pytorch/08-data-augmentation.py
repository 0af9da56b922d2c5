"""3.8 Data augmentation: new pictures from old ones, and what must move with them
数据增强：用旧图造新图，以及哪些东西要跟着动

You will be able to answer
    1. How is a picture turned, when its new pixels lie between the old?   show_geometry   flip, rotate, move
    2. What happens to the boxes drawn on it?                              show_boxes      boxes, encloses
    3. What are brightness, contrast and saturation, in numbers?           show_colour     colour, cutout
    4. What is the label of half a cat on half a dog?                      show_mixing     mixup, cutmix, sum
    5. Does it help, and when does it harm?                 show_training   input-matters, overfits, narrower, flips
Run       python phase03_pytorch/08-data-augmentation.py                   about 20 s
Needs     -
Reference vf.horizontal_flip, vf.rotate, vf.affine, vf.crop, vf.erase, v2.MixUp, v2.CutMix, F.grid_sample
Notation  B batch  C colours or classes  H height  W width  N boxes, each (left, top, right, bottom) in pixels
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as vf

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.data.batches import Batches
from common.data.images import load_images
from common.figures import ORANGE, new_figure, plot_curves, plot_images, save_figure
from common.training import fit


@dataclass
class Config(LessonConfig):
    every: int = param(2, "keep every n-th pixel of the photograph", tiny=8)
    runs: int = param(5, "seeds of the comparison", tiny=1)
    epochs: int = param(80, "passes over 300 digits", tiny=10)


def sample(pictures: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """(B, C, H, W) read at the places x, y (B, H, W), counted in pixels; between pixels bilinear, 0 outside."""
    height, width = pictures.shape[-2:]
    batch, total = torch.arange(len(pictures))[:, None, None], 0
    # practice: a value between four pixels
    # hint: the pixels at floor(x), floor(y) and their right and lower neighbours; the nearer, the heavier
    # hint: weight (1 - |x - column|)(1 - |y - row|), and 0 if the neighbour lies outside; clamp before indexing
    for dx, dy in ((0, 0), (0, 1), (1, 0), (1, 1)):
        column, row = x.floor().long() + dx, y.floor().long() + dy
        weight = (1 - (x - column).abs()) * (1 - (y - row).abs())
        weight = weight * ((column >= 0) & (column < width) & (row >= 0) & (row < height))
        total += (
            weight[..., None]
            * pictures[batch, :, row.clamp(0, height - 1), column.clamp(0, width - 1)]
        )
    # end practice
    return total.movedim(-1, 1)


def rotate(
    pictures: Tensor, degrees: Tensor, right: Tensor | float = 0.0, down: Tensor | float = 0.0
) -> Tensor:
    """(B, C, H, W), each turned counter-clockwise about its centre by its degrees (B,), then moved, in pixels."""
    (height, width), turn = pictures.shape[-2:], torch.deg2rad(degrees)[:, None, None]
    # practice: ask every new pixel where it came from
    # hint: going forward leaves holes; go back instead: undo the shift, then turn the other way
    # hint: x and y from the centre; rows count downwards, so back is x cos - y sin and x sin + y cos
    x = torch.arange(width) - (width - 1) / 2 - right
    y = torch.arange(height)[:, None] - (height - 1) / 2 - down
    old_x = x * turn.cos() - y * turn.sin() + (width - 1) / 2
    old_y = x * turn.sin() + y * turn.cos() + (height - 1) / 2
    # end practice
    return sample(pictures, old_x, old_y)


def flip_boxes(boxes: Tensor, width: int) -> Tensor:
    """(N, 4) after a flip from left to right. What was the right edge is the left one now."""
    return torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], dim=1)


def crop_boxes(boxes: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    return (boxes - torch.tensor([left, top] * 2)).clamp(
        torch.zeros(4), torch.tensor([width, height] * 2)
    )


def rotate_boxes(boxes: Tensor, degrees: float, height: int, width: int) -> Tensor:
    """(N, 4): the upright box around each turned one, cut off at the edges of the picture."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x = boxes[:, [0, 2, 2, 0]] - width / 2  # four corners, forward this time
    y = boxes[:, [1, 1, 3, 3]] - height / 2
    new_x = (x * cos + y * sin + width / 2).clamp(0, width)
    new_y = (y * cos - x * sin + height / 2).clamp(0, height)
    return torch.stack([new_x.amin(1), new_y.amin(1), new_x.amax(1), new_y.amax(1)], dim=1)


def blend(picture: Tensor, other: Tensor | float, factor: float) -> Tensor:
    """factor 1: the picture, 0: the other, above 1: away from the other. Kept within 0…1."""
    return (picture * factor + other * (1 - factor)).clamp(0, 1)


def grey(picture: Tensor) -> Tensor:
    return (
        0.2989 * picture[0] + 0.587 * picture[1] + 0.114 * picture[2]
    )  # as bright as the eye finds each


def cutout(picture: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    hidden = picture.clone()
    hidden[..., top : top + height, left : left + width] = 0.5
    return hidden


def mixup(pictures: Tensor, targets: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Pictures (B, C, H, W) and targets (B, C) blended with those of the one before in the batch."""
    return tuple(share * both + (1 - share) * both.roll(1, 0) for both in (pictures, targets))


def cutmix(pictures: Tensor, targets: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """A rectangle of about 1 - share of the area, at a random place, comes from the picture before in the batch."""
    height, width = pictures.shape[-2:]
    # practice: cut here, paste there, and count the pixels
    # hint: sides of √(1 - share) of the picture's, around a random centre, cut off at the edges
    # hint: the target's share is that of the pixels really kept, which at an edge is more than was asked for
    x, y = int(torch.randint(width, ())), int(torch.randint(height, ()))
    half = math.sqrt(1 - share) / 2
    rows = slice(max(y - int(half * height), 0), y + int(half * height))
    columns = slice(max(x - int(half * width), 0), x + int(half * width))
    mixed = pictures.clone()
    mixed[..., rows, columns] = pictures.roll(1, 0)[..., rows, columns]
    kept = 1 - mixed[0, 0, rows, columns].numel() / (height * width)
    # end practice
    return mixed, kept * targets + (1 - kept) * targets.roll(1, 0)


def turn_and_shift(pictures: Tensor) -> Tensor:
    """(B, C, H, W) -> the same digits, each turned by up to 15 degrees and moved by up to 0.7 pixels."""
    degrees, right, down = (
        (2 * torch.rand(len(pictures), 1, 1) - 1) * limit for limit in (15, 0.7, 0.7)
    )
    return rotate(pictures, degrees.flatten(), right, down)


def show_geometry(cfg: Config, photo: Tensor) -> None:
    print("\n[1] Flip and crop only pick pixels; turning has to read between them")
    check(
        "flip",
        "flipped and cropped by indexing: as v2",
        torch.equal(photo.flip(-1), vf.horizontal_flip(photo))
        and torch.equal(photo[:, 5:25, 9:39], vf.crop(photo, 5, 9, 20, 30)),
    )
    degrees, bilinear = (
        torch.tensor([17.0, -33.5, 90.0, 211.0], dtype=photo.dtype),
        v2.InterpolationMode.BILINEAR,
    )
    check_close(
        "rotate",
        "turned by 17, -33.5, 90 and 211 degrees, as v2 does",
        rotate(photo.expand(4, -1, -1, -1), degrees),
        torch.stack([vf.rotate(photo, angle, bilinear) for angle in degrees.tolist()]),
    )
    check_close(
        "move",
        "turned by 17 degrees, moved 3.5 to the right and 2 up, as v2's affine does",
        rotate(photo[None], degrees[:1], 3.5, -2)[0],
        vf.affine(photo, -17, [3.5, -2], 1, [0, 0], bilinear),
    )


def show_boxes(cfg: Config) -> None:
    print("\n[2] A box is a statement about pixels: when they move, it must move with them")
    height, width, box = 60, 80, torch.tensor([[18.0, 12.0, 50.0, 31.0]])
    drawn = F.pad(torch.ones(1, 1, 19, 32), (18, 30, 12, 29))  # rows 12 to 30, columns 18 to 49
    theirs = tv_tensors.BoundingBoxes(box, format="XYXY", canvas_size=(height, width))
    cases = [
        (drawn.flip(-1), flip_boxes(box, width), vf.horizontal_flip(theirs)),
        (
            drawn[..., 20:50, 10:40],
            crop_boxes(box, 20, 10, 30, 30),
            vf.crop(theirs, 20, 10, 30, 30),
        ),
    ]
    cases += [
        (
            rotate(drawn, torch.tensor([angle])),
            rotate_boxes(box, angle, height, width),
            vf.rotate(theirs, angle),
        )
        for angle in (25.0, -70.0, 140.0)
    ]
    (pictures, ours, theirs), slack = zip(*cases), []
    check_close(
        "boxes",
        "flipped, cropped and turned boxes are those of v2",
        torch.cat(ours),
        torch.cat(theirs),
    )
    for picture, boxes in zip(pictures, ours):
        rows, columns = (picture[0, 0] > 0.5).nonzero().unbind(dim=1)
        seen = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        slack.append(
            (boxes[0] - seen) * torch.tensor([-1, -1, 1, 1])
        )  # above 0: the box's edge lies further out
    check(
        "encloses",
        f"a box encloses its pixels to half a pixel, and is {max(map(max, slack)):.1f} away at most",
        min(map(min, slack)) >= -0.5 and max(map(max, slack)) <= 2,
    )


def show_colour(cfg: Config, photo: Tensor) -> None:
    print(
        "\n[3] Colour: a blend with black, with the mean grey, with one's own grey; cutout: with nothing"
    )
    others, names = (0, grey(photo).mean(), grey(photo)), ("brightness", "contrast", "saturation")
    check_close(
        "colour",
        f"{', '.join(names)} of 0.4 and 1.6, as v2 has them",
        torch.stack([blend(photo, other, factor) for other in others for factor in (0.4, 1.6)]),
        torch.stack(
            [getattr(vf, f"adjust_{name}")(photo, f) for name in names for f in (0.4, 1.6)]
        ),
    )
    check_close(
        "cutout",
        "a rectangle hidden, as by v2's erase",
        cutout(photo, 5, 8, 20, 24),
        vf.erase(photo, 5, 8, 20, 24, torch.tensor(0.5)),
    )


def show_mixing(cfg: Config, photo: Tensor, other: Tensor) -> None:
    print("\n[4] Two pictures in one: the label says how much of each")
    x, one_hot, labels = (
        torch.rand(8, 3, 20, 30, dtype=torch.float64),
        torch.eye(8, dtype=torch.float64),
        [],
    )
    for name, mix, theirs in (("mixup", mixup, v2.MixUp), ("cutmix", cutmix, v2.CutMix)):
        results = []
        for seed in range(20):
            torch.manual_seed(seed)
            wanted = theirs(num_classes=8)(x, torch.arange(8))  # it draws the share from Beta(1, 1)
            torch.manual_seed(seed)
            share = torch.distributions.Beta(torch.ones(1), torch.ones(1)).sample().item()
            results.append(
                [torch.cat([p.flatten(1), t], dim=1) for p, t in (mix(x, one_hot, share), wanted)]
            )
        ours, wanted = map(torch.cat, zip(*results))
        check_close(name, f"{name}: pictures and labels of 20 batches are v2's", ours, wanted)
        labels.append(ours[:, -8:])
    check_close(
        "sum",
        "the labels of a mixed picture sum to one",
        torch.cat(labels).sum(dim=1),
        torch.ones(320),
    )
    height, width = photo.shape[-2:]
    boxes = torch.tensor([[62.0, 28.0, 375.0, 410.0], [545.0, 135.0, 640.0, 427.0]]) / cfg.every
    pair, top, left, half = torch.stack([photo, other]), height // 5, width // 3, height // 2
    shown = {
        "original": (photo, boxes),
        "flip": (photo.flip(-1), flip_boxes(boxes, width)),
        "turned by 15°": (
            rotate(pair, torch.tensor([15.0]))[0],
            rotate_boxes(boxes, 15, height, width),
        ),
        "crop": (
            photo[:, top : top + half, left : left + half],
            crop_boxes(boxes, top, left, half, half),
        ),
    }
    shown |= {
        name: (picture, boxes)
        for name, picture in {
            "brightness 0.5": blend(photo, 0, 0.5),
            "contrast 1.8": blend(photo, grey(photo).mean(), 1.8),
            "saturation 2.5": blend(photo, grey(photo), 2.5),
            "cutout": cutout(photo, top, left, half, half),
            "mixup 0.6": mixup(pair, torch.eye(2), 0.6)[0][0],
            "cutmix 0.6": cutmix(pair, torch.eye(2), 0.6)[0][0],
        }.items()
    }
    figure, axes = new_figure(2, 5, size=(17, 5.6))
    plot_images(
        axes,
        [picture.movedim(0, -1).clamp(0, 1).numpy() for picture, _ in shown.values()],
        list(shown),
    )
    for axis, (_, moved) in zip(axes.flat, shown.values()):
        for left, top, right, bottom in (moved - 0.5).tolist():  # pixel 0 is drawn from -0.5 to 0.5
            axis.plot(
                [left, right, right, left, left], [top, top, bottom, bottom, top], color=ORANGE
            )
    save_figure(figure, cfg.out / "augmented")


def show_training(cfg: Config) -> dict[str, float]:
    print("\n[5] 300 digits, with and without: the gap between test loss and training loss")
    torch.set_num_threads(1)  # 50 digits a step: a second one would wait
    data, loss_fn = (
        load_images(cfg, "digits"),
        lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]),
    )
    (x, y), val, test = (
        (torch.from_numpy(a)[:, None].float() / 16, torch.from_numpy(b))
        for a, b in ((data.x_train, data.y_train), (data.x_val, data.y_val), data.test())
    )
    curves, results = {}, {}
    for kind, transform in {
        "plain": None,
        "moved": turn_and_shift,
        "flipped": v2.RandomHorizontalFlip(),
    }.items():
        curves[kind], gaps, hits = torch.zeros(cfg.epochs), [], []
        for run in range(cfg.seed * cfg.runs, (cfg.seed + 1) * cfg.runs):
            torch.manual_seed(run)
            few = torch.randperm(len(x))[:300]  # the same for every kind: pairs
            model = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
            gap = torch.no_grad()(
                lambda m, part=val: {"gap": loss_fn(m, part) - loss_fn(m, (x[few], y[few]))}
            )
            loader = Batches(
                x[few], y[few], batch_size=50, shuffle=True, seed=run, transform=transform
            )
            optimizer = torch.optim.Adam(model.parameters(), 3e-3)
            history = fit(
                model, loader, optimizer, loss_fn, epochs=cfg.epochs, evaluate_fn=gap, quiet=True
            )
            curves[kind] += torch.tensor([row["gap"] for row in history]) / cfg.runs
            gaps.append(gap(model, test)["gap"].item())
            hits.append((model(test[0]).argmax(dim=1) == test[1]).float().mean().item())
        results |= {f"gap_{kind}": sum(gaps) / cfg.runs, f"accuracy_{kind}": sum(hits) / cfg.runs}
        print(
            f"  {kind:<8}gap {results[f'gap_{kind}']:.3f}, accuracy {results[f'accuracy_{kind}']:.3f} on test"
        )
    depends_on_input(
        "input-matters", "the answer depends on the picture", model(test[0]).argmax(dim=1), test[1]
    )
    overfits("overfits", "32 digits learned by heart", model, (x[:32], y[:32]), loss_fn, optimizer)
    expect(
        "narrower",
        "turned and moved, the gap is",
        results["gap_moved"] / results["gap_plain"],
        below=0.85,
    )
    expect(
        "flips",
        "flipped, after which a 3 is no 3, it is",
        results["gap_flipped"] / results["gap_plain"],
        above=1,
    )
    figure, axis = new_figure(size=(9, 4.8))
    plot_curves(axis, curves, ylabel=f"validation - training loss, mean of {cfg.runs} seeds")
    save_figure(figure, cfg.out / "gap")
    return results


def run(cfg: Config) -> dict:
    from sklearn.datasets import load_sample_images

    photo, other = (
        torch.from_numpy(picture[:: cfg.every, :: cfg.every].copy()).movedim(2, 0).double() / 255
        for picture in load_sample_images().images
    )  # (3, H, W) in 0…1
    show_geometry(cfg, photo)
    show_boxes(cfg)
    show_colour(cfg, photo)
    show_mixing(cfg, photo, other)
    return show_training(cfg)


if __name__ == "__main__":
    main(run, Config, __doc__)
