"""5.11 Feature visualisation: what a unit is looking for
特征可视化：每个单元在找什么

You will be able to answer
    1. How do you read what a layer puts out?     show_record  recorded, removed
    2. How do classes separate?  show_probes  halfway, overfits, depends, deeper, untrained
    3. Which picture raises a unit most?          show_raised  signs, raised
    4. Does it show what the network recognises?  show_named   as-good, other, smooth
    5. Which part of a picture is needed?         show_occlusion  by-hand, needed, part
Predict   other_plain: of pictures made for one network, what share does another name as meant?
Run       python phase05_cnn/11-feature-visualization.py                   about half a minute
Needs     phase03_pytorch/09-training-loop, phase05_cnn/01-convolution-basics
Reference -
Notation  B batch  C channels  H W picture
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from sklearn.manifold import TSNE
from torch import Tensor, nn

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.data.batches import Batches
from common.data.images import load_images
from common.data.tensors import to_tensors
from common.figures import COLOURS, new_figure, plot_images, save_figure
from common.lessons import load_lesson
from common.training import fit

cross_entropy = load_lesson("phase03_pytorch/09-training-loop").cross_entropy
flat = load_lesson("phase05_cnn/01-convolution-basics").flat
Set = tuple[Tensor, Tensor]  # pictures (n, 3, 32, 32) from -1 to 1, and their classes (n,)


@dataclass
class Config(LessonConfig):
    threads = 1
    data: str = param("shapes", "data set", choices=("shapes", "cifar10"))
    pictures: int = param(3000, "pictures to train on, 300 in a tiny run")
    epochs: int = param(8, "passes over them")
    steps: int = param(100, "steps of gradient ascent", tiny=20)


class ShapeNet(nn.Module):
    """Four convolutions, the mean of each map, a linear layer. (B, 3, H, W) -> (B, classes)"""

    def __init__(self, classes: int):
        super().__init__()
        self.blocks = nn.ModuleList()
        for inputs, outputs, stride in [(3, 16, 2), (16, 32, 2), (32, 32, 1), (32, 32, 1)]:
            conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
            self.blocks.append(nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU()))
        self.head = nn.Linear(32, classes)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        # A mean has no place for the size of the picture: any size will do.
        return self.head(x.mean(dim=(2, 3)))


def record(model: nn.Module, layers: Sequence[nn.Module], x: Tensor) -> tuple[list[Tensor], Tensor]:
    """What each of the layers puts out while model(x) is computed, and model(x) itself."""
    # practice: Listen to layers
    outputs = {}

    def keep(layer: nn.Module, inputs: tuple, output: Tensor) -> None:
        outputs[layer] = output

    handles = [layer.register_forward_hook(keep) for layer in layers]
    answer = model(x)

    # A hook that stays would run, and keep its tensors, at every later call.
    for handle in handles:
        handle.remove()
    return [outputs[layer] for layer in layers], answer
    # end practice


def show_record(cfg: Config) -> None:
    print("\n[1] Hooks: every layer's output, without a change to the network")
    model = make_net(cfg.seed).double().eval()
    x = torch.randn(2, 3, 20, 28).double()
    recorded, scores = record(model, list(model.blocks), x)
    print("  20x28 pixels become " + ", ".join(str(list(each.shape[1:])) for each in recorded))
    by_hand = [block(before) for block, before in zip(model.blocks, [x, *recorded])]
    by_hand.append(model.head(by_hand[-1].mean(dim=(2, 3))))
    text = "each output is what its layer, called by hand, makes of the one before it, up to {}"
    check_close("recorded", text, flat([*recorded, scores]), flat(by_hand))
    check("removed", "no hook is left", not any(block._forward_hooks for block in model.blocks))


def probe(train: Tensor, y: Tensor, test: Tensor) -> Tensor:
    """A linear classifier by least squares: its classes for `test`. Features (n, D), y (n,)."""
    # practice: A linear probe
    targets = F.one_hot(y).to(train.dtype)  # 1 for the class, 0 for the others: (n, classes)

    # The column of ones makes room for a bias.
    weights = torch.linalg.lstsq(F.pad(train, (0, 1), value=1.0), targets).solution
    return (F.pad(test, (0, 1), value=1.0) @ weights).argmax(dim=1)
    # end practice


def show_probes(cfg: Config, model: nn.Module, train: Set, test: Set) -> dict[str, float]:
    print("\n[2] A linear classifier reads the mean of each channel, behind each block")
    old, new = torch.tensor([[1.0], [2], [5], [6]]), torch.tensor([[3.4], [3.6]])
    text = "1 and 2 are of one class, 5 and 6 of another: the probe parts them between 3.4 and 3.6"
    check_close("halfway", text, probe(old, torch.tensor([0, 0, 1, 1]), new), [0, 1])
    x, y = train
    fresh = make_net(cfg.seed + 100)
    adam = torch.optim.Adam(fresh.parameters(), lr=0.01)
    text = "16 pictures are learned by heart: the loss falls to {}"
    overfits("overfits", text, fresh, (x[:16], y[:16]), cross_entropy, adam, steps=40)
    text = "trained, the network names the pictures that it learned from: accuracy {}"
    depends_on_input("depends", text, model(x[:500]).argmax(dim=1), y[:500])

    untrained = make_net(cfg.seed + 100)
    for part in x.split(len(x) // 20):  # nothing is learned, but batch norms note means
        untrained(part)
    scores = {}
    for name, network in [("trained", model), ("untrained", untrained.eval())]:
        scores[name] = []
        for old, new in zip(channel_means(network, x), channel_means(network, test[0])):
            scores[name].append((probe(old, y, new) == test[1]).double().mean().item())
        print(f"  {name:<10} accuracy " + "   ".join(f"{score:.3f}" for score in scores[name]))
    first, _, third, last = scores["trained"]
    gap = 0.4 if cfg.data == "shapes" else 0.1
    text = "trained: behind block 3 the accuracy is {} higher than behind block 1"
    expect("deeper", text, third - first, at_least=gap)
    best = max(scores["untrained"])
    text = f"than behind the best block of an untrained network ({best:.3f}) it is {{}} higher"
    expect("untrained", text, third - best, at_least=gap)
    return {"block_1": first, "block_3": third, "block_4": last, "untrained": best}


def maximise(value: Callable, n: int, steps: int, smooth: bool, seed: int) -> Tensor:
    """n pictures that raise value(x) -> (n,), found by gradient ascent from noise. (n, 3, 32, 32)

    smooth: the value has to survive small shifts, and neighbouring pixels are mixed.
    """
    generator = torch.Generator().manual_seed(seed)
    x = (0.1 * torch.randn(n, 3, 32, 32, generator=generator)).requires_grad_()
    adam = torch.optim.Adam([x], lr=0.05, maximize=True)
    reach = 2 if smooth else 0
    # practice: Gradient ascent on pictures
    for step in range(steps):
        shift = torch.randint(-reach, reach + 1, (2,), generator=generator).tolist()
        adam.zero_grad()
        # This fills the weights' gradients too; only the picture is stepped.
        value(x.roll(shift, dims=(2, 3))).sum().backward()
        adam.step()

        with torch.no_grad():
            if smooth and step % 4 == 3:
                means = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
                x.copy_((x + means) / 2)
            # Without bounds a unit could be raised as far as one likes.
            x.clamp_(-1, 1)
    return x.detach()
    # end practice


def show_raised(cfg: Config, model: nn.Module, x: Tensor) -> dict[str, float]:
    print("\n[3] Gradient ascent: how far can a unit rise over its mean on real pictures?")
    weights = torch.randn(3, 32, 32)
    made = maximise(lambda x: (x * weights).sum(dim=(1, 2, 3)), 1, 40, False, cfg.seed)
    check_close("signs", "linear: each pixel goes to its weight's sign", made[0], weights.sign())
    channel = torch.arange(32)

    def peaks(x: Tensor) -> Tensor:
        (maps,), _ = record(model, [model.blocks[3][1]], x)  # before the ReLU: if off, no gradient
        return maps.amax(dim=(2, 3))  # of each map the strongest position: (n, 32)

    # Picture i is to raise channel i.
    made = maximise(lambda x: peaks(x)[channel, channel], 32, cfg.steps, False, cfg.seed)
    with torch.no_grad():
        real = peaks(x)
        raised = (peaks(made)[channel, channel] - real.mean(dim=0)) / real.std(dim=0)
        best = (real.amax(dim=0) - real.mean(dim=0)) / real.std(dim=0)
    print(f"  standard deviations, median: real {best.median():.1f}, made {raised.median():.1f}")
    text = "of 32 channels, {} rise higher than for any real picture"
    expect("raised", text, (raised > best).sum(), at_least=30)
    return {"raised": raised.median().item(), "best_real": best.median().item()}


def show_named(cfg: Config, networks: list[nn.Module], test: Set) -> tuple[dict, dict]:
    print("\n[4] Three pictures for each class: does another network name them alike?")
    picture = torch.arange(30)
    classes = picture % 10

    def log_probability(x: Tensor) -> Tensor:
        return networks[0](x).log_softmax(dim=1)[picture, classes]

    sets = {"real": test}
    for way in ["plain", "smooth"]:
        sets[way] = maximise(log_probability, 30, cfg.steps, way == "smooth", cfg.seed), classes
    named = {}
    for way, (x, y) in sets.items():
        own, other = (accuracy(network, x, y) for network in networks)
        print(f"  {way:<6} pictures: named by the network itself {own:.2f}, by another {other:.2f}")
        named |= {f"own_{way}": own, f"other_{way}": other}
    lead = abs(named["own_real"] - named["other_real"])
    expect("as-good", "real: the shares that they name rightly are {} apart", lead, below=0.1)
    text = "plain: the other network names a share as meant that is {} lower"
    expect("other", text, named["own_plain"] - named["other_plain"], at_least=0.3)
    gain = named["other_smooth"] - named["other_plain"]
    expect("smooth", "smooth: it names a share as meant that is {} higher", gain, at_least=0.1)
    return named, sets


def occlusion(model: nn.Module, x: Tensor, classes: Tensor, size: int = 8, step: int = 4) -> Tensor:
    """How much the class's logit falls if a grey square covers the picture there.

    x (B, C, H, W), classes (B,) -> (B, positions down, positions across)
    """
    # practice: Cover, and look again
    picture = torch.arange(len(x))
    before = model(x)[picture, classes]
    tops = range(0, x.shape[2] - size + 1, step)
    lefts = range(0, x.shape[3] - size + 1, step)
    falls = []
    for top in tops:
        for left in lefts:
            covered = x.clone()
            covered[:, :, top : top + size, left : left + size] = 0.0
            falls.append(before - model(covered)[picture, classes])
    return torch.stack(falls, dim=1).unflatten(1, (len(tops), len(lefts)))
    # end practice


def show_occlusion(cfg: Config, networks: list[nn.Module], x: Tensor) -> dict[str, float]:
    print("\n[5] Cover 8x8 pixels with grey, at 49 places: what do two networks need?")
    weights = torch.tensor([[1.0, 2, -1, 1], [0, 0, 0, 0]])
    pixels = torch.tensor([[2.0, -1, 3, 0], [9, 9, 9, 9]])[None, None]  # (1, 1, 2, 4)
    falls = occlusion(lambda x: (x * weights).sum(dim=(2, 3)), pixels, torch.tensor([0]), 2, 1)
    check_close("by-hand", "the note's example: falls of 0, -5 and -3", falls[0], [[0.0, -5, -3]])
    with torch.no_grad():
        classes = networks[0](x).argmax(dim=1)
        own, other = (occlusion(network, x, classes).flatten(1) for network in networks)
    worst = own.argmax(dim=1, keepdim=True)  # (n, 1) of 49 positions
    vivid = (x.amax(dim=1) - x.amin(dim=1) > 0.6).double()  # the object; the ground is nearly grey
    most = F.avg_pool2d(vivid, 8, 4).flatten(1).argmax(dim=1, keepdim=True)
    largest = other.amax(dim=1).mean().item()
    needed = other.gather(1, worst).mean().item() / largest
    covered = other.gather(1, most).mean().item() / largest
    text = "where the first network's logit falls most, the other's falls by {} of its largest fall"
    expect("needed", text, needed, at_least=0.7)
    text = f"and where the square covers most of the vivid object by {covered:.2f}: {{}} less"
    expect("part", text, needed - covered, at_least=0.05)
    return {"needed": needed, "covered": covered}


# Pictures and helpers: skip on a first reading


def make_net(seed: int, classes: int = 10) -> ShapeNet:
    torch.manual_seed(seed)
    return ShapeNet(classes)


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    return (model(x).argmax(dim=1) == y).double().mean().item()


@torch.no_grad()
def channel_means(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Behind each block the mean of every channel: four tensors (n, channels)."""
    return [output.mean(dim=(2, 3)) for output in record(model, list(model.blocks), x)[0]]


def as_pictures(pictures: Sequence[Tensor]) -> list:
    """(3, H, W) from -1 to 1 each, as matplotlib takes them."""
    return [((picture + 1) / 2).movedim(0, 2).numpy() for picture in pictures]


def train_net(model: nn.Module, x: Tensor, y: Tensor, epochs: int, seed: int) -> None:
    """Adam, whose rate rises and falls once over the whole training (one-cycle), in place."""
    batches = Batches(x, y, batch_size=64, shuffle=True, seed=seed)
    adam = torch.optim.Adam(model.parameters(), lr=0.01)
    one_cycle = torch.optim.lr_scheduler.OneCycleLR(adam, 0.01, epochs * len(batches))
    fit(model, batches, adam, cross_entropy, epochs=epochs, scheduler=one_cycle, quiet=True)
    model.eval()


def draw_maps(cfg: Config, model: nn.Module, x: Tensor) -> None:
    filters = model.blocks[0][0].weight.detach()  # (16, 3, 3, 3)
    outputs, _ = record(model, list(model.blocks), x[:1])
    figure, axes = new_figure(4, 6, size=(10, 7))
    pictures = as_pictures([x[0], *(filters[:5] / filters.abs().max())])
    plot_images(axes[0], pictures, ["the picture", "filters"])
    for line, number in zip(axes[1:], [1, 2, 4]):
        maps = outputs[number - 1][0].detach()
        strongest = maps.mean(dim=(1, 2)).argsort(descending=True)[:6]
        plot_images(line, maps[strongest].numpy(), [f"block {number}"])
    figure.suptitle("Block 1 draws the shape, block 4 its rough place", fontweight="bold")
    save_figure(figure, cfg.out / "maps")


def draw_named(cfg: Config, sets: dict, named: dict, classes: Sequence[str]) -> None:
    figure, axes = new_figure(2, 6, size=(10, 4.2))
    for line, way in zip(axes, ["plain", "smooth"]):
        plot_images(line, as_pictures(sets[way][0][:6]), [f"{way} “{word}”" for word in classes])
    own, other = named["own_plain"], named["other_plain"]
    title = f"Above: noise to us; the network names {own:.0%} as meant, another {other:.0%}"
    figure.suptitle(title, fontweight="bold")
    save_figure(figure, cfg.out / "named")


def draw_embedding(cfg: Config, model: nn.Module, test: Set, classes: Sequence[str]) -> None:
    """t-SNE (van der Maaten and Hinton 2008): points in a plane that keep their neighbours."""
    x, y = (each[:300] for each in test)
    features = {"Pixels: the classes are mixed": x.flatten(start_dim=1)}
    features["Behind block 4: nearly all are apart"] = channel_means(model, x)[-1]
    figure, axes = new_figure(1, 2, size=(11, 5))
    for axis, (name, each) in zip(axes, features.items()):
        points = TSNE(perplexity=15, max_iter=500, random_state=cfg.seed).fit_transform(each)
        for number, kind in enumerate(classes):
            look = {"color": COLOURS[number % 5], "marker": "o^"[number // 5]}
            axis.scatter(*points[y == number].T, s=16, label=kind, **look)
        axis.set(xticks=(), yticks=(), title=name)
    axes[1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    save_figure(figure, cfg.out / "embedding")


def run(cfg: Config) -> dict[str, float]:
    show_record(cfg)
    data = load_images(cfg, split_seed=cfg.seed)
    train = to_tensors(data.x_train[: cfg.pictures], data.y_train[: cfg.pictures])
    test = to_tensors(*data.test())
    networks = [make_net(cfg.seed), make_net(cfg.seed + 50)]
    for number, network in enumerate(networks):
        train_net(network, *train, cfg.epochs, cfg.seed + number)

    metrics = show_probes(cfg, networks[0], train, test)
    metrics |= show_raised(cfg, networks[0], train[0])
    named, sets = show_named(cfg, networks, test)
    metrics |= show_occlusion(cfg, networks, test[0][:200])
    draw_maps(cfg, networks[0], test[0])
    draw_named(cfg, sets, named, data.classes)
    draw_embedding(cfg, networks[0], test, data.classes)
    return metrics | named


if __name__ == "__main__":
    main(run, Config, __doc__)
