"""5.6 VGG: three small filters in place of one large
VGG：用三个小卷积核代替一个大的

You will be able to answer
    1. What do three 3x3 layers compute?    show_composed  by-hand, composed
    2. When do they cost less than a 7x7?   show_savings   counted, field, saved
    3. Are these the nets that others use?  show_parity    names, logits
    4. Where are weights, work and maps?    show_costs     largest, front
    5. Which start does depth need?         show_start     shrinks, overfits, depends, stuck
Predict   largest: what share of VGG-16's parameters is in the largest of its 16 layers?
Run       python phase05_cnn/06-vggnet.py                                  about 10 s
Needs     phase03_pytorch/09-training-loop, phase04_mlp/09-weight-init,
          phase05_cnn/03-receptive-field, phase05_cnn/05-alexnet
Reference torchvision.models.get_model
Notation  B batch  C channels  H W picture
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.data.images import load_images
from common.data.tensors import to_tensors
from common.figures import BLUE, ORANGE, new_figure, save_figure
from common.lessons import load_lesson
from common.training import fit

training = load_lesson("phase03_pytorch/09-training-loop")
initial = load_lesson("phase04_mlp/09-weight-init")
field = load_lesson("phase05_cnn/03-receptive-field")
alexnet = load_lesson("phase05_cnn/05-alexnet")
Layer = field.Layer

# A row is a net: the maps of each 3x3 convolution; at an M, max pooling halves both sides.
TABLE = {
    "vgg11": [64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"],
    "vgg13": [64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"],
    "vgg16": [64, 64, "M", 128, 128, "M", *3 * [256], "M", *3 * [512], "M", *3 * [512], "M"],
    "vgg19": [64, 64, "M", 128, 128, "M", *4 * [256], "M", *4 * [512], "M", *4 * [512], "M"],
}


@dataclass
class Config(LessonConfig):
    threads = 1
    data: str = param("shapes", "pictures of [5]", choices=("shapes", "shapes-hard", "cifar10"))
    steps: int = param(50, "steps of training", tiny=40, low=40)


def compose(first: Tensor, second: Tensor) -> Tensor:
    """The filters of one layer that does what two in a row do, without ReLU and padding.

    first (M, C, k, k), second (O, M, n, n) -> (O, C, k + n - 1, k + n - 1)
    """
    # practice: Two layers in one
    k = first.shape[2]
    n = second.shape[2]
    whole = first.new_zeros(len(second), first.shape[1], k + n - 1, k + n - 1)
    for i in range(n):
        for j in range(n):
            # The weight at i, j reads the first layer's output i rows down and j columns to the
            # right, so there the first filter lies moved by as much.
            moved = torch.einsum("om,mcrs->ocrs", second[:, :, i, j], first)
            whole[:, :, i : i + k, j : j + k] += moved
    return whole
    # end practice


def show_composed(cfg: Config) -> None:
    print("\n[1] Two layers of 3x3 in a row, then three, without ReLUs in between")
    ones = torch.ones(1, 1, 3, 3)
    two = compose(ones, ones)
    three = compose(two, ones)
    print("  filters full of ones; along a side: 1 1 1, then 1 2 3 2 1, then 1 3 6 7 6 3 1")
    rows = [*two[0, 0, 2], *three[0, 0, 3]]
    text = "the middle row of two is 3 6 9 6 3, that of three 7 21 42 49 42 21 7"
    check_close("by-hand", text, rows, [3, 6, 9, 6, 3, 7, 21, 42, 49, 42, 21, 7])

    x = torch.randn(2, 4, 9, 12).double()
    filters = [torch.randn(*shape, 3, 3).double() for shape in ((5, 4), (6, 5), (3, 6))]
    y = x
    for each in filters:
        y = F.conv2d(y, each)
    first, second, third = filters
    whole = compose(compose(first, second), third)  # (3, 4, 7, 7)
    text = "random filters, 4 to 5 to 6 to 3 channels: one layer of 7x7 gives the same"
    check_close("composed", text, F.conv2d(x, whole), y)


def count_products(layers: Sequence, channels: Sequence, height: int, width: int) -> int:
    """How many products (MACs, multiply-accumulates) the convolutions add up for one picture.

    channels: what the first layer reads, then what each gives. height, width: of the picture.
    """
    # practice: Count the products
    total = 0
    for layer, inputs, outputs in zip(layers, channels, channels[1:]):
        height = (height + 2 * layer.padding - layer.kernel) // layer.stride + 1
        width = (width + 2 * layer.padding - layer.kernel) // layer.stride + 1

        # Each number of the output is the sum over one filter.
        total += outputs * height * width * inputs * layer.kernel**2
    return total
    # end practice


def show_savings(cfg: Config) -> None:
    print("\n[2] Three of 3x3, or one of 7x7? How many times the products do the three need?")
    halving = Layer(3, stride=2, padding=1)
    found = count_products([halving, Layer(2)], [2, 3, 4], 5, 8)
    print("  (2, 5, 8) by 3x3, stride 2, padding 1: (3, 3, 4); by 2x2 without padding: (4, 2, 3)")
    check_close("counted", "36 sums of 2 · 9, and 24 of 3 · 4: in all 936 products", found, 936)

    three = [Layer(3, padding=1)] * 3
    three_strided = [*three[:2], halving]
    one = [Layer(7, padding=3)]
    one_strided = [Layer(7, stride=2, padding=3)]
    fields = [field.receptive_field(layers) for layers in (three, three_strided)]
    wanted = [field.receptive_field(layers) for layers in (one, one_strided)]
    check_close("field", "they see the same 7 pixels; with stride 2 as well", fields, wanted)

    saved = share(three, one, (64, 64, 64, 64))
    text = "from 64 channels to 64 they need {} of its products: 27 C² instead of 49 C²"
    check("saved", text, saved, above=0.55, below=0.552)


def make_features(plan: Sequence[int | str]) -> nn.Sequential:
    """The convolutions of a row of the table. (B, 3, H, W) -> (B, C, H / 32, W / 32)"""
    # practice: From the row to layers
    layers = nn.Sequential()
    channels = 3
    for entry in plan:
        if entry == "M":
            layers.append(nn.MaxPool2d(2, stride=2))
        else:
            # With padding 1 a map keeps its size: only pooling makes it smaller.
            layers.append(nn.Conv2d(channels, entry, 3, padding=1))
            layers.append(nn.ReLU())
            channels = entry
    return layers
    # end practice


class VGG(nn.Module):
    """(B, 3, H, W) -> logits (B, classes). side: rows and columns that the dense layers read."""

    def __init__(self, plan: Sequence, side=7, hidden_dim=4096, classes=1000, dropout=0.5):
        super().__init__()
        self.features = make_features(plan)
        self.avgpool = nn.AdaptiveAvgPool2d(side)
        self.classifier = nn.Sequential(
            nn.Linear(plan[-2] * side * side, hidden_dim),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_dim, hidden_dim),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_dim, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.avgpool(self.features(x))  # (B, C, side, side)
        return self.classifier(x.flatten(start_dim=1))


def show_parity(cfg: Config) -> None:
    print("\n[3] Four nets from one table, under the names that torchvision gives their weights")
    different = set()
    models = {}
    with torch.device("meta"):  # shapes without memory
        for name, plan in TABLE.items():
            model = VGG(plan).eval()
            reference = torchvision.models.get_model(name).eval()
            models[name] = (model, reference)
            different |= shapes(model).items() ^ shapes(reference).items()
            print(f"  {name}: {alexnet.count(model):,} parameters")
    if different:
        print("  for example", *min(different))
    text = "all four nets: {} names or shapes differ from torchvision's"
    check("names", text, len(different), at_most=0)

    names = ["vgg11"] if cfg.tiny else list(TABLE)
    x = torch.randn(2, 3, 64, 96)
    pairs = [logits_of_both(*models.pop(name), x) for name in names]  # one at a time in memory
    ours, theirs = zip(*pairs)
    text = f"with the same random weights, torchvision's logits: {', '.join(names)}"
    check_close("logits", text, torch.stack(ours), torch.stack(theirs), rtol=1e-4, atol=1e-5)


def show_costs(cfg: Config) -> tuple[dict[str, float], Tensor]:
    print("\n[4] VGG-16 for a picture of 224x224, block by block")
    with torch.device("meta"):
        model = VGG(TABLE["vgg16"])
        costs = alexnet.costs(model, torch.empty(1, 3, 224, 224))
    rows = []
    for name, row in costs.items():
        parameters, work = row[:2]
        # Each output is the sum over one filter.
        outputs = work // model.get_submodule(name).weight[0].numel()
        rows.append((parameters, work, outputs))
    table = torch.tensor(rows)  # (16, 3)
    print(f"  {'':<8} {'parameters':>11} {'products':>14} {'outputs':>10}")
    names = [f"block {number}" for number in range(1, 6)] + ["dense"]
    for name, block in zip(names, table.split([2, 2, 3, 3, 3, 3])):
        parameters, work, outputs = block.sum(dim=0).tolist()
        print(f"  {name:<8} {parameters:11,} {work:14,} {outputs:10,}")

    shares = table / table.sum(dim=0)
    largest = shares[:, 0].max().item()
    text = "one layer, the first dense one, holds a share of {} of the parameters"
    check("largest", text, largest, above=0.742, below=0.743)
    front = shares[:2, 2].sum().item()
    text = "the first two of 16 layers give {} of all outputs: large maps"
    check("front", text, front, above=0.47, below=0.48)
    return {"largest": largest, "front": front}, shares


def shrink_factor(model: nn.Module, std: float) -> float:
    """How many times as large the logits are with this deviation as with He's, same random numbers.

    Without biases c times the weights of a layer are c times its output, also behind a ReLU or
    a maximum: what the layers do is multiplied.
    """
    # practice: What all layers make of it
    factor = 1.0
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            factor *= std / initial.he_std(layer.weight)
    return factor
    # end practice


def show_start(cfg: Config) -> tuple[dict[str, float], dict[str, list[float]]]:
    print("\n[5] The first weights: normal with the deviation 0.01 in all layers, or He's")
    for name, plan in TABLE.items():
        with torch.device("meta"):
            factor = shrink_factor(VGG(plan), 0.01)
        print(f"  {name}: with 0.01 the logits are {factor:.1e} times as large as with He's")

    # An eighth as wide: with 0.01 · √8 the inner layers shrink as with 0.01 in full width. Not so
    # the first convolution, which reads 3 channels in both, and the first dense layer.
    small_std = 0.01 * 8**0.5
    careful = narrow("vgg16", cfg.seed)
    small = narrow("vgg16", cfg.seed, small_std)
    factor = shrink_factor(small, small_std)
    data = load_images(cfg)
    x, y = to_tensors(data.x_train[:32], data.y_train[:32])
    found = small(x).detach() / factor
    text = f"an eighth as wide: the logits are He's times the product, {factor:.1e}, up to {{}}"
    check_close("shrinks", text, found, careful(x).detach(), rtol=1e-3, atol=1e-3)

    adam = torch.optim.Adam(careful.parameters(), lr=5e-4)
    text = "vgg16, He's start: 32 pictures are learned by heart: the loss falls to {}"
    loss_fn = training.cross_entropy
    he = overfits("overfits", text, careful, (x, y), loss_fn, adam, steps=cfg.steps)
    predicted = careful(x).argmax(dim=1)
    depends_on_input("depends", "a share of {} of the 32 is then named rightly", predicted, y)

    # The other start sees the same pictures as often, at the same rate.
    adam = torch.optim.Adam(small.parameters(), lr=5e-4)
    rows = fit(small, [(x, y)], adam, loss_fn, epochs=cfg.steps, quiet=True)
    losses = [row["train_loss"] for row in rows]
    guessing = torch.special.entr(y.bincount() / len(y)).sum().item()
    text = f"too small a start: {{}}; knowing how frequent each class is gives {guessing:.3f}"
    expect("stuck", text, losses[-1], above=guessing - 0.15, below=guessing + 0.15)
    return {"small": losses[-1], "guessing": guessing}, {"He's": he, "too small": losses}


# Pictures and helpers: skip on a first reading


def share(three: Sequence[Layer], one: Sequence[Layer], channels: Sequence[int]) -> float:
    """Products of the first stack, in those of the second, on maps of 56x56."""
    products = count_products(three, channels, 56, 56)
    return products / count_products(one, (channels[0], channels[-1]), 56, 56)


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: values.shape for name, values in model.state_dict().items()}


def narrow(name: str, seed: int, std: float | None = None) -> VGG:
    """An eighth as wide, for pictures of 32x32 and 10 classes. Normal weights; std None: He's."""
    torch.manual_seed(seed)
    plan = [entry if entry == "M" else entry // 8 for entry in TABLE[name]]
    model = VGG(plan, side=1, hidden_dim=512, classes=10, dropout=0.0)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            initial.fill_normal(layer.weight, std or initial.he_std(layer.weight))
            nn.init.zeros_(layer.bias)
    return model


def logits_of_both(model: nn.Module, reference: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Both get the same random weights, and share them in memory."""
    weights = {}
    for name, shape in shapes(reference).items():
        # He's deviation, drawn evenly. shape[1:] of a bias is empty: up to √6, so that it counts.
        bound = (6 / shape[1:].numel()) ** 0.5
        weights[name] = torch.empty(shape).uniform_(-bound, bound)
    model.load_state_dict(weights, assign=True)
    reference.load_state_dict(weights, assign=True)
    with torch.no_grad():
        return model(x), reference(x)


def draw_costs(cfg: Config, shares: Tensor) -> None:
    names = [f"conv {number}" for number in range(1, 14)] + [f"dense {n}" for n in range(1, 4)]
    figure, axes = new_figure(1, 3, size=(12, 5), sharey=True)
    for column, (axis, title) in enumerate(zip(axes, ("parameters", "products", "outputs"))):
        percent = (100 * shares[:, column]).tolist()
        axis.barh(names, percent, color=[BLUE] * 13 + [ORANGE] * 3)
        labels = [f"{share:.0f}" if share >= 1 else "" for share in percent]
        axis.bar_label(axis.containers[0], labels, fontsize=9, padding=2)
        axis.set(title=title, xlabel="share in %, own scale")
    axes[0].invert_yaxis()
    title = "Weights in the dense layers, work in the convolutions, the largest maps in front"
    figure.suptitle(title, fontweight="bold")
    save_figure(figure, cfg.out / "costs")


def draw_losses(cfg: Config, curves: dict[str, list[float]], guessing: float) -> None:
    figure, axis = new_figure(size=(8, 4.6))
    for (name, losses), colour in zip(curves.items(), (BLUE, ORANGE)):
        axis.plot(losses, color=colour, label=f"first weights: {name}")
    axis.axhline(guessing, color="black", linestyle=":", label="guessing by frequency")
    axis.set(xlabel="step", ylabel="loss", title="From a small start the loss stays at guessing")
    axis.legend()
    save_figure(figure, cfg.out / "losses")


def run(cfg: Config) -> dict[str, float]:
    show_composed(cfg)
    show_savings(cfg)
    show_parity(cfg)
    numbers, shares = show_costs(cfg)
    losses, curves = show_start(cfg)
    draw_costs(cfg, shares)
    draw_losses(cfg, curves, losses["guessing"])
    return {**numbers, **losses}


if __name__ == "__main__":
    main(run, Config, __doc__)
