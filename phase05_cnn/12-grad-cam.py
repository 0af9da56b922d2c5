"""5.12 Grad-CAM: which places speak for a class
Grad-CAM：图中哪些位置支持一个类别

You will be able to answer
    1. What does a class activation map add up?     show_cam       by-hand, adds-up
    2. What do gradients put in place of weights?   show_grad_cam  means, same, plus
    3. Is the heat on the object?  show_box  overfits, depends, share, inside, ratio, rank
    4. Does the map depend on the class asked for?  show_asked     asked, early, plus-less
    5. Can heat reveal a wrong reason?              show_mark      blind, circle, mark
Predict   unmarked: if all circles in training have a mark, what share without one is recognised?
Run       python phase05_cnn/12-grad-cam.py                                about 20 s
Needs     phase03_pytorch/09-training-loop, phase05_cnn/11-feature-visualization
Reference -
Notation  B batch  K maps of a layer  h w a map's rows and columns  H W picture
"""

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from scipy.stats import rankdata
from torch import Tensor, nn

from common.checks import check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.data.shapes import Scenes, load_shapes
from common.data.tensors import to_tensors
from common.figures import new_figure, plot_images, save_figure
from common.lessons import load_lesson

lesson_3_9 = load_lesson("phase03_pytorch/09-training-loop")
lesson_5_11 = load_lesson("phase05_cnn/11-feature-visualization")
make_net = lesson_5_11.make_net
Set = tuple[Tensor, Tensor, Tensor]  # pictures (n, 3, 32, 32), classes (n,), boxes (n, 4)


@dataclass
class Config(LessonConfig):
    threads = 1
    data: str = param("shapes", "data set", choices=("shapes",))
    pictures: int = param(3000, "pictures to train on, 300 in a tiny run")
    epochs: int = param(8, "passes over them")
    draws: int = param(3, "networks with random weights", tiny=1)


def weighted_sum(maps: Tensor, weights: Tensor) -> Tensor:
    """The maps, each times its weight, added up. (B, K, h, w), (B, K) -> (B, h, w)"""
    return torch.einsum("bkhw,bk->bhw", maps, weights)


def class_activation_map(model: nn.Module, x: Tensor, classes: Tensor) -> Tensor:
    """CAM (Zhou et al. 2016), for a network that ends in pooling and a linear layer. (B, h, w)"""
    (maps,), _ = lesson_5_11.record(model, [model.blocks[-1]], x)  # (B, K, h, w)
    return weighted_sum(maps, model.head.weight[classes])


def show_cam(cfg: Config, model: nn.Module, x: Tensor, classes: Tensor) -> None:
    print("\n[1] CAM: a score, taken apart by places")
    maps = torch.tensor([[[4.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [2.0, 2.0]]])  # (2, 2, 2)
    print("  maps [4 0; 0 0] and [0 0; 2 2], weights 2 and -1: [8 0; -2 -2], on average 1")
    heat = weighted_sum(maps[None], torch.tensor([[2.0, -1.0]]))
    check_close("by-hand", "as on paper", heat[0], [[8.0, 0.0], [-2.0, -2.0]])

    heat = class_activation_map(model, x, classes)  # (B, 5, 7)
    scores = model(x)[torch.arange(len(x)), classes]
    text = "the mean of the map, plus the bias, is the score of the class, up to {}"
    check_close("adds-up", text, heat.mean(dim=(1, 2)) + model.head.bias[classes], scores)


def maps_and_gradient(
    model: nn.Module, layer: nn.Module, x: Tensor, classes: Tensor
) -> tuple[Tensor, Tensor]:
    """What the layer puts out, and the gradient of the classes' scores by it. (B, K, h, w) each"""
    # practice: Maps and their gradient
    (maps,), scores = lesson_5_11.record(model, [layer], x)
    asked = scores[torch.arange(len(x)), classes]

    # In evaluation mode a score depends on its own picture alone: one sum serves them all.
    (gradient,) = torch.autograd.grad(asked.sum(), maps)
    return maps.detach(), gradient
    # end practice


def grad_cam(maps: Tensor, gradient: Tensor) -> Tensor:
    """Selvaraju et al. 2017. (B, K, h, w) each -> (B, h, w)"""
    # practice: Grad-CAM
    # One weight for each map: what the score gains if it rises, on average over all places.
    weights = gradient.mean(dim=(2, 3))
    heat = weighted_sum(maps, weights)

    # Places that speak against the class are left out.
    return heat.relu()
    # end practice


def grad_cam_plus(maps: Tensor, gradient: Tensor) -> Tensor:
    """Grad-CAM++ (Chattopadhay et al. 2018), for maps without negative numbers. -> (B, h, w)"""
    # practice: Grad-CAM++
    # Only where a map raises the score; falls are not weighed against it.
    rise = gradient.relu()
    total = maps.sum(dim=(2, 3), keepdim=True)  # (B, K, 1, 1)

    # The paper's g² / (2 g² + g³ · total), shortened by g².
    weights = (rise / (2 + rise * total)).sum(dim=(2, 3))
    return weighted_sum(maps, weights)
    # end practice


def show_grad_cam(cfg: Config, model: nn.Module, x: Tensor, classes: Tensor) -> None:
    print("\n[2] Grad-CAM: the mean of the gradient is the weight, and any layer will do")
    maps = torch.tensor([[[4.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [2.0, 2.0]]])[None]
    gradient = torch.tensor([[[3.0, 1.0], [4.0, 0.0]], [[-1.0, 1.0], [-3.0, -1.0]]])[None]
    print("  the same maps, gradients [3 1; 4 0] and [-1 1; -3 -1]: their means are 2 and -1")
    text = "once more [8 0; -2 -2], and 0 where it is negative"
    check_close("means", text, grad_cam(maps, gradient)[0], [[8.0, 0.0], [0.0, 0.0]])

    maps, gradient = maps_and_gradient(model, model.blocks[3], x, classes)
    heat = grad_cam(maps, gradient) * maps[0, 0].numel()
    wanted = class_activation_map(model, x, classes).relu()
    text = "block 4: Grad-CAM times the number of places is CAM without its negative part, up to {}"
    check_close("same", text, heat, wanted)

    maps, gradient = maps_and_gradient(model, model.blocks[1], x, classes)
    alpha = gradient**2 / (2 * gradient**2 + gradient**3 * maps.sum(dim=(2, 3), keepdim=True))
    wanted = weighted_sum(maps, (alpha * gradient.relu()).nansum(dim=(2, 3)))
    text = "block 2, where gradients differ by place: shortened as the paper's formula, up to {}"
    check_close("plus", text, grad_cam_plus(maps, gradient), wanted)


def share_inside(heat: Tensor, boxes: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The share of the heat inside each box, and of the picture: (n,) each. Empty maps give nan.

    heat (n, h, w); boxes (n, 4) of left, top, right, bottom in a picture of `size` (H, W)
    """
    # practice: Heat inside the box
    heat = F.interpolate(heat[:, None], size, mode="bilinear")[:, 0]  # (n, H, W)
    rows = torch.arange(size[0])[:, None]
    columns = torch.arange(size[1])
    left, top, right, bottom = boxes.T[:, :, None, None]  # (n, 1, 1) each
    is_inside = (left <= columns) & (columns < right) & (top <= rows) & (rows < bottom)

    inside = (heat * is_inside).sum(dim=(1, 2))
    return inside / heat.sum(dim=(1, 2)), is_inside.double().mean(dim=(1, 2))
    # end practice


def times_area(heat: Tensor, boxes: Tensor) -> tuple[float, int]:
    """How many times as much of the heat as of the area is in a box; how many maps are empty."""
    share, area = share_inside(heat, boxes, (32, 32))
    return (share / area).nanmean().item(), share.isnan().sum().item()


def mean_of_maps(maps: Tensor, gradient: Tensor) -> Tensor:
    """For comparison: where the layer is active at all, whatever class is asked for."""
    return maps.mean(dim=1)


# Of each way: the number of the block, and how maps and gradient become heat.
WAYS = {
    "Grad-CAM": (4, grad_cam),
    "Grad-CAM++": (4, grad_cam_plus),
    "mean of maps": (4, mean_of_maps),
    "block 1, Grad-CAM": (1, grad_cam),
}


def heat_of(model: nn.Module, way: str, x: Tensor, classes: Tensor) -> Tensor:
    number, to_heat = WAYS[way]
    return to_heat(*maps_and_gradient(model, model.blocks[number - 1], x, classes))


def show_box(cfg: Config, model: nn.Module, train: Set, test: Set) -> dict[str, dict]:
    print("\n[3] Is the heat on the object? Controls: another picture's box, and random weights")
    x, y, _ = train
    fresh = make_net(cfg.seed + 200)
    adam = torch.optim.Adam(fresh.parameters(), lr=0.01)
    text = "16 pictures are learned by heart: the loss falls to {}"
    overfits("overfits", text, fresh, (x[:16], y[:16]), lesson_3_9.cross_entropy, adam, steps=40)
    text = "the network names the pictures that it learned from: accuracy {}"
    depends_on_input("depends", text, model(x[:500]).argmax(dim=1), y[:500])

    heat = torch.tensor([[[0.0, 1.0]], [[0.0, 1.0]], [[0.0, 0.0]]])
    boxes = torch.tensor([[2, 0, 4, 2], [1, 0, 3, 1], [1, 0, 3, 1]])
    found = torch.stack(share_inside(heat, boxes, (2, 4)))
    text = "[0 1] on 2x4 pixels is [0 ¼ ¾ 1] twice: 7/8 of it in the right half; nan if all is 0"
    wanted = [[0.875, 0.25, torch.nan], [0.5, 0.25, 0.25]]
    check_close("share", text, found, wanted, equal_nan=True)

    x, _, boxes = test
    classes = model(x).argmax(dim=1)
    networks = [make_net(1000 + 10 * cfg.seed + number).eval() for number in range(cfg.draws)]
    print("  the box's share of the heat, divided by its share of the area (empty maps left out):")
    print("                     own box  another's  empty   random weights  empty  rank corr.")
    results = {}
    for way in WAYS:
        heat = heat_of(model, way, x, classes)
        own, empty = times_area(heat, boxes)
        other, _ = times_area(heat, boxes.roll(1, dims=0))
        controls = []
        for network in networks:
            random = heat_of(network, way, x, classes)
            rank = rank_correlation(heat, random).nanmean().item()
            controls.append([*times_area(random, boxes), rank])
        row = [own, other, empty, *torch.tensor(controls).mean(dim=0).tolist()]
        print("  {:<18} {:7.2f} {:10.2f} {:6.0f} {:16.2f} {:6.0f} {:11.2f}".format(way, *row))
        names = ["inside", "other", "empty", "random", "random_empty", "rank"]
        results[way] = dict(zip(names, row))
    found = results["Grad-CAM"]
    expect("inside", "Grad-CAM: a box has {} times its share", found["inside"], at_least=2)
    expect("ratio", "with random weights {} times", found["random"], below=1.6)
    text = "the order of places is not there before training: ranks correlate by {}"
    expect("rank", text, found["rank"], below=0.3)
    return results


def show_asked(cfg: Config, model: nn.Module, test: Set) -> tuple[dict[str, float], Set]:
    print("\n[4] Two shapes side by side: how much of the heat is in the half of the asked one?")
    x, y, _ = test
    differ = torch.ne(*y.chunk(2))
    # Behind pooling nothing depends on the size, so the network takes the wide picture as it is.
    wide = torch.cat(x.chunk(2), dim=3)[differ]  # (n, 3, 32, 64)
    left, right = (each[differ] for each in y.chunk(2))
    half = torch.tensor([[0, 0, 32, 32]])
    shares = {}
    # The mean of maps takes no notice of the class: its share and 1 - share average to 0.5 exactly.
    for way in WAYS:
        for_left, _ = share_inside(heat_of(model, way, wide, left), half, wide.shape[2:])
        for_right, _ = share_inside(heat_of(model, way, wide, right), half, wide.shape[2:])
        shares[way] = torch.cat([for_left, 1 - for_right]).nanmean().item()
        print(f"  {way:<18} {shares[way]:.3f}")
    expect("asked", "Grad-CAM: {} of it; chance is 0.5", shares["Grad-CAM"], at_least=0.75)
    early = shares["block 1, Grad-CAM"]
    expect("early", "Grad-CAM behind block 1: {}, about chance", early, at_least=0.4, at_most=0.6)
    less = shares["Grad-CAM"] - shares["Grad-CAM++"]
    expect("plus-less", "Grad-CAM++ puts {} less there than Grad-CAM", less, at_least=0.05)
    return shares, (wide, left, right)


def with_mark(x: Tensor) -> Tensor:
    """Copies with 4x4 magenta pixels in the upper left corner."""
    x = x.clone()
    x[:, :, 1:5, 1:5] = torch.tensor([1.0, -1.0, 1.0])[:, None, None]
    return x


def show_mark(cfg: Config, model: nn.Module, train: Set, test: Set) -> tuple[dict, list]:
    print("\n[5] A second network learns from pictures in which every circle has a mark")
    x, y, _ = train
    second = make_net(cfg.seed + 7)
    is_circle = (y == 0)[:, None, None, None]
    lesson_5_11.train_net(second, torch.where(is_circle, with_mark(x), x), y, cfg.epochs, cfg.seed)
    x, y, boxes = (each[test[1] == 0] for each in test)  # circles only
    marked = with_mark(x)
    corner = torch.tensor([[0, 0, 8, 8]])  # the mark, and three pixels more
    found = {"unmarked": lesson_5_11.accuracy(second, x, y)}
    pictures = [marked]
    for name, network in [("first", model), ("second", second)]:
        heat = heat_of(network, "Grad-CAM", marked, y)
        circle, _ = times_area(heat, boxes)
        mark, _ = times_area(heat, corner)
        print(f"  {name}: box of the circle {circle:.2f} times its share, mark {mark:.2f} times")
        found |= {f"{name}_circle": circle, f"{name}_mark": mark}
        pictures.append(heat)
    found["marked"] = lesson_5_11.accuracy(second, marked, y)
    print(f"  the second recognises a share of {found['marked']:.3f} of new circles with a mark,")
    expect("blind", "and of {} without one", found["unmarked"], at_most=0.3)
    text = "of its heat for marked circles, the box of the circle has {} times its share"
    expect("circle", text, found["second_circle"], below=2)
    text = "and the corner with the mark, 1/16 of the picture, {} times"
    expect("mark", text, found["second_mark"], at_least=2)
    furthest = boxes[:, :2].sum(dim=1).topk(3).indices  # from the mark: shown in the figure
    return found, [each[furthest] for each in pictures]


# Pictures and helpers: skip on a first reading


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Of each two maps: 1 for the same order of places; an empty one has none: nan. -> (n,)"""
    # Ranks say nothing of how large the differences are.
    ranks = [torch.from_numpy(rankdata(heat.flatten(1), axis=1)) for heat in (a, b)]
    x, y = (rank - rank.mean(dim=1, keepdim=True) for rank in ranks)
    return (x * y).sum(dim=1) / (x.norm(dim=1) * y.norm(dim=1))


def as_set(scenes: Scenes) -> Set:
    x, y = to_tensors(scenes.x, scenes.labels[:, 0])
    return x, y, torch.from_numpy(scenes.boxes[:, 0])


def with_heat(picture: Tensor, heat: Tensor):
    """The picture in grey, and over it red in proportion to the heat, as matplotlib takes it."""
    heat = F.interpolate(heat[None, None], picture.shape[1:], mode="bilinear")[0, 0, :, :, None]
    opacity = heat / heat.max().clamp(min=1e-9)
    grey = ((picture.mean(dim=0) + 1) / 2)[:, :, None]
    return (grey * (1 - opacity) + torch.tensor([0.9, 0.1, 0.0]) * opacity).numpy()


def draw_heat(path: Path, title: str, x: Tensor, names: list[str], columns: dict) -> None:
    """A row for each of three pictures: it, then each column's heat over it."""
    width = (1 + x.shape[3] / x.shape[2]) * (1 + len(columns))
    figure, axes = new_figure(3, 1 + len(columns), size=(width, 5.6))
    for number, line in enumerate(axes):
        overlaid = [with_heat(x[number], heat[number]) for heat in columns.values()]
        pictures = lesson_5_11.as_pictures([x[number]]) + overlaid
        plot_images(line, pictures, [names[number], *(columns if number == 0 else ())])
    figure.suptitle(title, fontweight="bold")
    save_figure(figure, path)


def run(cfg: Config) -> dict[str, float]:
    data = load_shapes(cfg, split_seed=cfg.seed, sizes=(cfg.pictures, 100, 1000))
    train = as_set(data.train)
    test = as_set(data.test())
    model = make_net(cfg.seed)
    lesson_5_11.train_net(model, *train[:2], cfg.epochs, cfg.seed)

    exact = copy.deepcopy(model).double()
    cropped = train[0][:50, :, :20, :28].double()
    classes = torch.arange(50) % 10
    show_cam(cfg, exact, cropped, classes)
    show_grad_cam(cfg, exact, cropped, classes)
    box = show_box(cfg, model, train, test)
    asked, pairs = show_asked(cfg, model, test)
    mark, circles = show_mark(cfg, model, train, test)

    wide, left, right = (each[:3] for each in pairs)
    names = [f"{data.classes[a]} and {data.classes[b]}" for a, b in zip(left, right)]
    columns = {
        "block 4, the left one asked for": heat_of(model, "Grad-CAM", wide, left),
        "block 4, the right one": heat_of(model, "Grad-CAM", wide, right),
        "block 1, the left one": heat_of(model, "block 1, Grad-CAM", wide, left),
        "block 1, the right one": heat_of(model, "block 1, Grad-CAM", wide, right),
    }
    title = "Heat of block 4 is mostly on the shape asked for; block 1 does not tell them apart"
    draw_heat(cfg.out / "asked", title, wide, names, columns)
    columns = {"first network": circles[1], "second network": circles[2]}
    title = "Both say “circle”, for different reasons"
    draw_heat(cfg.out / "mark", title, circles[0], ["marked circle", "", ""], columns)
    metrics = {}
    for way, name in zip(WAYS, ["cam", "plus", "mean", "early"]):
        metrics |= {f"{name}_{key}": value for key, value in box[way].items()}
        metrics[f"{name}_asked"] = asked[way]
    return metrics | mark


if __name__ == "__main__":
    main(run, Config, __doc__)
