"""5.4 LeNet-5: the network that read cheques
LeNet-5：读支票的网络

You will be able to answer
    1. What are its layers, and what is in them?   show_layers    parameters, sequential
    2. What was different in the net of 1998?      show_1998      by-hand, table, paper
    3. Does it read digits better than an MLP?     show_digits    overfits, depends, digits, far
    4. What does it have that an MLP has not?      show_shuffled  ahead, gone
    5. How does it read a row of digits at once?   show_row       row, crowded, between
Predict   lenet_shuffled: LeNet reads 0.94 of new digits. And with all pixels shuffled alike?
Run       python phase05_cnn/04-lenet.py                                   about 35 s
Needs     phase03_pytorch/09-training-loop
Reference -
Notation  B batch  C channels  H W picture
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.checks import check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.data.batches import Batches
from common.data.images import load_images
from common.data.tensors import to_tensors
from common.figures import BLUE, GREY, ORANGE, new_figure, save_figure
from common.lessons import load_lesson
from common.training import evaluate, fit

training = load_lesson("phase03_pytorch/09-training-loop")


@dataclass
class Config(LessonConfig):
    threads = 1
    data: str = param("digits", "data set of [3]", choices=("digits", "mnist-5k", "mnist"))
    epochs: int = param(30, "passes over the digits", tiny=6)
    passes: int = param(5, "passes over the 3,500 pictures of mnist-5k", tiny=4)
    runs: int = param(3, "splits of the digits, each with networks of its own", tiny=1)


class LeNet5(nn.Module):
    """As it is built today: C convolution, S subsampling, F dense. (B, 1, 32, 32) -> (B, 10)"""

    def __init__(self):
        super().__init__()
        # practice: The layers
        self.c1 = nn.Conv2d(1, 6, 5)
        self.s2 = nn.AvgPool2d(2)
        self.c3 = nn.Conv2d(6, 16, 5)
        self.s4 = nn.AvgPool2d(2)
        self.c5 = nn.Conv2d(16, 120, 5)

        # The same linear layer at each position is a 1x1 convolution. In [5] there are many.
        self.f6 = nn.Conv2d(120, 84, 1)
        self.output = nn.Conv2d(84, 10, 1)
        # end practice

    def score_map(self, x: Tensor) -> Tensor:
        """(B, 1, H, W) -> ten scores for each window of 32x32 pixels, one window every 4 pixels."""
        # practice: From pixels to scores
        x = torch.tanh(self.c1(x))  # (B, 6, 28, 28) where H = W = 32
        x = self.s2(x)  # (B, 6, 14, 14)
        x = torch.tanh(self.c3(x))  # (B, 16, 10, 10)
        x = self.s4(x)  # (B, 16, 5, 5)
        x = torch.tanh(self.c5(x))  # (B, 120, 1, 1)
        x = torch.tanh(self.f6(x))  # (B, 84, 1, 1)
        return self.output(x)  # (B, 10, 1, 1)
        # end practice

    def forward(self, x: Tensor) -> Tensor:
        return self.score_map(x).flatten(start_dim=1)


def show_layers(cfg: Config) -> None:
    print("\n[1] Maps become smaller and more: from 32x32 pixels to ten scores")
    model = LeNet5().double()
    x = torch.randn(1, 1, 32, 32).double()
    for name, layer in model.named_children():
        x = layer(x)
        print(f"  {name:<7} {tuple(x.shape[1:])!s:<12} {count(layer):7,} parameters")
    check_close("parameters", "in all 61,706, most of them in C5", count(model), 61_706)

    # As it is usually written: flattened behind S4, then three dense layers.
    dense = [nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)]
    for linear, conv in zip(dense, [model.c5, model.f6, model.output]):
        linear.weight = nn.Parameter(conv.weight.flatten(start_dim=1))
        linear.bias = conv.bias
    layers = [model.c1, nn.Tanh(), nn.AvgPool2d(2), model.c3, nn.Tanh(), nn.AvgPool2d(2)]
    layers += [nn.Flatten(), dense[0], nn.Tanh(), dense[1], nn.Tanh(), dense[2]]
    x = torch.randn(8, 1, 32, 32).double()
    text = "the usual form, with dense layers of the same weights, gives the same scores"
    check_close("sequential", text, model(x), nn.Sequential(*layers)(x))


class Subsampling(nn.Module):
    """S2 and S4 of 1998. (B, C, H, W) -> (B, C, H / 2, W / 2)"""

    def __init__(self, channels: int):
        super().__init__()
        # A quarter of the sum of four: at first their mean, and then the tanh.
        self.coefficient = nn.Parameter(torch.full((channels, 1, 1), 0.25))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        # practice: Sum, coefficient, bias
        total = 4 * F.avg_pool2d(x, 2)  # the sum of each 2x2
        return torch.tanh(self.coefficient * total + self.bias)
        # end practice


def connections() -> Tensor:
    """Which of the six maps of S2 each of the sixteen maps of C3 reads. (16, 6), bool"""
    # practice: Who reads whom
    # All runs of three and of four neighbours; behind map 5 comes map 0 again.
    groups = []
    for length in (3, 4):
        for first in range(6):
            groups.append([(first + step) % 6 for step in range(length)])

    # Two pairs of neighbours, a map left out on either side; then one that reads everything.
    groups += [[0, 1, 3, 4], [1, 2, 4, 5], [0, 2, 3, 5]]
    groups.append(range(6))

    table = torch.zeros(16, 6, dtype=torch.bool)
    for row, maps in enumerate(groups):
        table[row, maps] = True
    return table
    # end practice


class TableConv(nn.Module):
    """C3 of 1998: a convolution with one filter of 5x5 for each True of a table (O, C)."""

    def __init__(self, table: Tensor):
        super().__init__()
        self.register_buffer("table", table)
        self.filters = nn.Parameter(torch.empty(int(table.sum()), 5, 5).uniform_(-0.1, 0.1))
        self.bias = nn.Parameter(torch.zeros(len(table)))

    def forward(self, x: Tensor) -> Tensor:
        # The full weight, with zeros where nothing is read.
        weight = self.filters.new_zeros(*self.table.shape, 5, 5)
        weight[self.table] = self.filters
        return F.conv2d(x, weight, self.bias)


class LeNet1998(LeNet5):
    """S2, C3 and S4 as in 1998; its output is still ten scores, as in LeNet5."""

    def __init__(self):
        super().__init__()
        # A layer that is replaced keeps its place among the children.
        self.s2 = Subsampling(6)
        self.c3 = TableConv(connections())
        self.s4 = Subsampling(16)


def show_1998(cfg: Config) -> None:
    print("\n[2] In 1998 subsampling was trained, and a map of C3 read only some maps of S2")
    layer = Subsampling(1)
    nn.init.constant_(layer.coefficient, 0.5)
    nn.init.constant_(layer.bias, -3.0)
    x = torch.tensor([[1.0, 3.0, 0.0, 2.0], [2.0, 2.0, 1.0, 1.0]])[None, None]
    print("  1 3 | 2 2 has the sum 8, and 0 2 | 1 1 the sum 4; half of it less 3 is 1 and -1")
    text = "so the layer gives tanh(1) = 0.7616 and tanh(-1)"
    check_close("by-hand", text, layer(x), [[[[0.7616, -0.7616]]]], atol=1e-4)

    table = connections()
    paper = "012 123 234 345 450 501 0123 1234 2345 3450 4501 5012 0134 1245 0235 012345"
    wanted = [str(number) in maps for maps in paper.split() for number in range(6)]
    text = "which maps of S2 each map of C3 reads: table I of the paper"
    check_close("table", text, table, torch.tensor(wanted).reshape(16, 6))

    parts = [count(layer) for layer in list(LeNet1998().children())[:-1]]  # without the output
    check_close("paper", "C1 to F6 have the paper's 60,000 parameters", sum(parts), 60_000)


def show_digits(cfg: Config) -> dict[str, float]:
    print(f"\n[3] {cfg.data} as pictures of 32x32: LeNet-5 and an MLP, means of {cfg.runs} splits")
    found = {"mlp": 0.0, "mlp_far": 0.0, "lenet": 0.0, "lenet_far": 0.0}
    sides = ([4, -4, 0, 0], [-4, 4, 0, 0], [0, 0, 4, -4], [0, 0, -4, 4])
    for number in range(10 * cfg.seed, 10 * cfg.seed + cfg.runs):
        sets = make_sets(cfg, cfg.data, number)
        x, y = sets[1]
        # To each side, twice as far as in training.
        far = torch.cat([F.pad(x, side, value=-0.1) for side in sides])
        held_out = Batches(far, y.repeat(4), batch_size=500)
        for name, kind in (("mlp", make_mlp), ("lenet", LeNet5)):
            # A digit moved by a pixel or two is the same digit: more to learn from.
            model, score = learn(kind, sets, cfg.epochs, number, moved)
            found[name] += score / cfg.runs
            score = evaluate(model, held_out, training.accuracy)["accuracy"]
            found[f"{name}_far"] += score / cfg.runs

    fresh = LeNet5()
    batch = (sets[0][0][:32], sets[0][1][:32])
    adam = torch.optim.Adam(fresh.parameters(), lr=0.005)
    text = "32 digits are memorised: the loss falls to {}"
    overfits("overfits", text, fresh, batch, training.cross_entropy, adam, steps=60)
    depends_on_input("depends", "the output follows the digit: {}", model(x).argmax(dim=1), y)

    print("  " + "  ".join(f"{name} {value:.3f}" for name, value in found.items()))
    at_least = 0.97 if cfg.data == "digits" else 0.93
    expect("digits", "accuracy of LeNet-5 {}", found["lenet"], at_least=at_least)
    ahead = found["lenet_far"] - found["mlp_far"]
    expect("far", "on digits moved by 4 pixels LeNet-5 is {} ahead", ahead, at_least=0.05)
    return found


def show_shuffled(cfg: Config) -> tuple[dict[str, float], nn.Module, tuple[Tensor, Tensor]]:
    print("\n[4] LeNet-5 and an MLP on 3,500 digits of MNIST; then all pixels shuffled alike")
    sets = make_sets(cfg, "mnist-5k", cfg.seed)
    order = torch.randperm(32 * 32)
    shuffled = [(x.flatten(start_dim=1)[:, order].reshape(x.shape), y) for x, y in sets]
    found = {}
    for name, kind in (("mlp", make_mlp), ("lenet", LeNet5)):
        _, found[f"{name}_shuffled"] = learn(kind, shuffled, cfg.passes, cfg.seed)
        model, found[f"{name}_5k"] = learn(kind, sets, cfg.passes, cfg.seed)
        accuracies = f"{found[f'{name}_5k']:.3f}, shuffled {found[f'{name}_shuffled']:.3f}"
        print(f"  {name:<5} {count(model):7,} parameters: accuracy {accuracies}")
    ahead = found["lenet_5k"] - found["mlp_5k"]
    expect("ahead", "the accuracy of LeNet-5 is {} higher", ahead, at_least=0.01)
    behind = found["mlp_shuffled"] - found["lenet_shuffled"]
    expect("gone", "with shuffled pixels it is {} lower", behind, at_least=0.01)
    return found, model, sets[1]


def show_row(cfg: Config, model: nn.Module, test_set: tuple) -> tuple[dict, Tensor, list]:
    print("\n[5] Five digits in a row: the same convolutions, once over the whole picture")
    x, y = test_set
    # 24 pixels wide, side by side: a window of 32 holds 4 pixels of each neighbour.
    fives = x[:, :, 2:-2, 4:-4].split(5)
    rows = torch.stack([torch.cat(list(five), dim=2) for five in fives])  # (rows, 1, 28, 120)
    rows = F.pad(rows, [4, 4, 2, 2], value=-0.1)  # (rows, 1, 32, 128)
    with torch.no_grad():
        scores = model.score_map(rows)[:, :, 0]  # (rows, 10, 25)
        singly = [model(rows[:10, :, :, left : left + 32]) for left in range(0, 97, 4)]
    text = "ten rows, their 250 windows cut out and read singly: the same scores"
    check_close("row", text, scores[:10], torch.stack(singly, dim=2))

    # A digit is 24 pixels wide, which is six windows further on.
    right = scores[:, :, ::6].argmax(dim=1) == y.reshape(-1, 5)  # (rows, 5)
    share = right.float().mean().item()
    text = "with a digit in the middle and neighbours at the edges a share of {} is right"
    expect("crowded", text, share, at_least=0.8)
    sure = (scores.softmax(dim=1).amax(dim=1) > 0.9).float().mean(dim=0)  # (25,)
    elsewhere = torch.arange(25) % 3 != 0  # neither on a digit nor midway
    shares = [part.mean().item() for part in (sure[::6], sure[3::6], sure[elsewhere])]
    text = "midway between two digits it names one with a probability over 0.9 in a share of {}"
    expect("between", text, shares[1], at_least=0.05)

    shown = right.all(dim=1).int().argmax()  # the first row that is all right
    found = {"rows": share, "on_digit": shares[0], "sure": shares[1], "elsewhere": shares[2]}
    return found, rows[shown, 0], shares


# Pictures and helpers: skip on a first reading


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def make_sets(cfg: Config, name: str, split_seed: int) -> list[tuple[Tensor, Tensor]]:
    """Training and test set: pictures (n, 1, 32, 32), ground -0.1 and ink 1.175 as in the paper."""
    data = load_images(cfg, name, split_seed)
    sets = []
    for x, y in ((data.x_train, data.y_train), data.test()):
        x, y = to_tensors(x, y, data.brightest)
        x = (x + 1) / 2 * 1.275 - 0.1
        if x.shape[-1] == 8:
            x = F.interpolate(x, size=(32, 32), mode="bilinear")
        else:
            x = F.pad(x, [2] * 4, value=-0.1)
        sets.append((x, y))
    return sets


def make_mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(1024, 60), nn.Tanh(), nn.Linear(60, 10))


def moved(x: Tensor) -> Tensor:
    """The pictures of a batch, all moved alike, by up to 2 pixels along each axis."""
    down, right = torch.randint(0, 5, size=(2,)).tolist()
    return F.pad(x, [2] * 4, value=-0.1)[:, :, down : down + 32, right : right + 32]


def learn(kind, sets: list, epochs: int, seed: int, move=None) -> tuple[nn.Module, float]:
    """Train a new net at a falling rate; the net, and its accuracy on the test set."""
    torch.manual_seed(seed)
    model = kind()
    batches = Batches(*sets[0], batch_size=64, shuffle=True, seed=seed, transform=move)
    adam = torch.optim.Adam(model.parameters(), lr=0.004)
    falling = torch.optim.lr_scheduler.LinearLR(adam, 1, 0, total_iters=epochs * len(batches))
    loss_fn = training.cross_entropy
    fit(model, batches, adam, loss_fn, epochs=epochs, scheduler=falling, quiet=True)
    held_out = Batches(*sets[1], batch_size=500)
    return model, evaluate(model, held_out, training.accuracy)["accuracy"]


def draw_filters(cfg: Config, model: nn.Module, x: Tensor) -> None:
    """The six filters of C1, and the maps they make of one digit. x (1, 1, 32, 32)"""
    with torch.no_grad():
        maps = torch.tanh(model.c1(x))[0]  # (6, 28, 28)
    filters = model.c1.weight.detach()[:, 0]  # (6, 5, 5)
    largest = filters.abs().max()
    figure, axes = new_figure(2, 6, size=(12, 4.6))
    for column in range(6):
        axes[0, column].imshow(filters[column], cmap="RdBu", vmin=-largest, vmax=largest)
        axes[1, column].imshow(maps[column], cmap="RdBu", vmin=-1, vmax=1)
    axes[0, 0].set_title("blue above 0, red below", fontsize=11)
    for axis in axes.flat:
        axis.axis("off")
    figure.suptitle("Some filters of C1 respond to strokes, some to their edges", fontweight="bold")
    save_figure(figure, cfg.out / "filters")


def draw_row(cfg: Config, picture: Tensor, shares: list[float]) -> None:
    """picture (32, 128); shares of windows on a digit, midway, elsewhere."""
    figure, (top, bottom) = new_figure(2, 1, size=(10, 5.2))
    top.imshow(picture, cmap="gray_r", aspect="auto", extent=(0, 128, 32, 0))
    top.axvspan(48, 80, color=BLUE, alpha=0.25)  # on the third digit
    top.axvspan(84, 116, color=ORANGE, alpha=0.25)  # midway behind the fourth
    top.set_title("Two of the 25 windows of a row: on a digit, and midway")
    top.axis("off")
    places = ["elsewhere", "midway", "on a digit"]
    bars = bottom.barh(places, shares[::-1], color=[GREY, ORANGE, BLUE])
    bottom.bar_label(bars, fmt=" %.2f")
    bottom.set(xlim=(0, 1), xlabel="share of windows with a probability over 0.9, all rows")
    bottom.set_title("Away from the digits the network is often sure as well")
    save_figure(figure, cfg.out / "row")


def run(cfg: Config) -> dict[str, float]:
    show_layers(cfg)
    show_1998(cfg)
    digits = show_digits(cfg)
    shuffled, model, test_set = show_shuffled(cfg)
    rows, *shown = show_row(cfg, model, test_set)
    draw_filters(cfg, model, test_set[0][:1])
    draw_row(cfg, *shown)
    return {**digits, **shuffled, **rows}


if __name__ == "__main__":
    main(run, Config, __doc__)
