"""5.7 ResNet: the connection that made depth work
ResNet：残差连接让深层网络训得动

You will be able to answer
    1. What does a residual block compute?       show_block      by-hand, same, padded
    2. How can a deeper net be a shallower one?  show_contained  contained, all-weights
    3. How does depth change the gradients?      show_gradients  cleared, explodes, moderate
    4. Do deep nets learn in 150 steps?  show_training   overfits, depends, degraded, deep, best
    5. And a plain net that starts as copies?    show_copies     copied, helps
Predict   degraded: how many times the training loss of 8 plain layers do 44 plain layers have?
Run       python phase05_cnn/07-resnet.py                                  about 50 s
Needs     phase03_pytorch/09-training-loop
Reference torchvision.models.resnet.BasicBlock
Notation  B batch  C channels  O output channels  H W picture
"""

from dataclasses import dataclass
from statistics import geometric_mean, mean

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.data.batches import Batches
from common.data.images import load_images
from common.data.tensors import to_tensors
from common.figures import BLUE, GREEN, ORANGE, SKY, new_figure, save_figure
from common.lessons import load_lesson
from common.training import fit

training = load_lesson("phase03_pytorch/09-training-loop")
DEPTHS = (8, 20, 44)  # layers with weights
BATCH = 32  # pictures in a step


@dataclass
class Config(LessonConfig):
    threads = 1
    data: str = param("digits", "data set", choices=("digits", "cifar10"))
    pictures: int = param(480, "training pictures", tiny=32)
    epochs: int = param(10, "passes over the pictures", tiny=1)
    lr: float = param(0.02, "learning rate, momentum 0.9")
    nets: int = param(2, "nets of each kind, each with other first weights", tiny=1)


class BasicBlock(nn.Module):
    """Two convolutions of 3x3, and a shortcut around both. (B, C, H, W) -> (B, O, H / stride, …)

    downsample: the module that brings the input to the output's shape, where that differs.
    residual=False leaves the shortcut out: a plain block.
    """

    def __init__(self, inputs: int, outputs: int, stride=1, downsample=None, residual=True):
        super().__init__()
        # No biases: batch norm takes the mean off, and a bias with it.
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = downsample
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        # practice: The residual block
        branch = self.bn1(self.conv1(x)).relu()
        branch = self.bn2(self.conv2(branch))
        if not self.residual:
            return branch.relu()

        shortcut = x
        if self.downsample is not None:
            shortcut = self.downsample(x)

        # Before the last ReLU: behind it the branch could only add, never subtract.
        return (branch + shortcut).relu()
        # end practice


def projection(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """A shortcut that is learned: one pixel in, one pixel out, at every `stride`-th position."""
    conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class PadChannels(nn.Module):
    """A shortcut without weights. (B, C, H, W) -> (B, C + extra, H / 2, W / 2)"""

    def __init__(self, extra: int):
        super().__init__()
        self.extra = extra

    def forward(self, x: Tensor) -> Tensor:
        # practice: A shortcut without weights
        every_second = x[:, :, ::2, ::2]
        # F.pad counts from the last axis, two numbers each for W, H and C; new channels are 0.
        return F.pad(every_second, [0, 0, 0, 0, 0, self.extra])
        # end practice


def show_block(cfg: Config) -> None:
    print("\n[1] Two convolutions, and the input is added to what they give")
    found = []
    for residual in (False, True):
        block = BasicBlock(1, 1, residual=residual).eval()  # new batch norm: it changes nothing
        nn.init.constant_(block.conv1.weight, 2.0)
        nn.init.constant_(block.conv2.weight, -0.25)
        x = torch.tensor([[[[3.0]]]], requires_grad=True)  # one pixel: only the middle counts
        y = block(x)
        found += [y.item(), torch.autograd.grad(y.sum(), x)[0].item()]
    print("  one pixel x = 3, weights 2 and -1/4: the branch is -1/4 · max(2 · 3, 0) = -1.5")
    text = "plain max(-1.5, 0) = 0, gradient 0; residual 3 - 1.5 = 1.5, gradient 1 - 0.5"
    check_close("by-hand", text, found, [0, 0, 1.5, 0.5], atol=1e-4)

    x = torch.randn(3, 4, 7, 10, dtype=torch.float64)
    block = BasicBlock(4, 6, 2, projection(4, 6, 2)).double()
    reference = torchvision.models.resnet.BasicBlock(4, 6, 2, projection(4, 6, 2)).double()
    randomize(reference)
    block.load_state_dict(reference.state_dict())

    ours = torch.autograd.grad(block(x).square().sum(), block.parameters())
    theirs = torch.autograd.grad(reference(x).square().sum(), reference.parameters())
    text = "torchvision's block with the same weights: the same gradients for all of them"
    check_close("same", text, flat(ours), flat(theirs))

    x = torch.arange(1.0, 13.0).reshape(1, 1, 3, 4)
    text = "shortcut without weights: every second pixel of 3x4, then a channel of zeros"
    check_close("padded", text, PadChannels(1)(x), [[[[1, 3], [9, 11]], [[0, 0], [0, 0]]]])


class SmallResNet(nn.Module):
    """The net of He et al. 2015 for small pictures, 6n + 2 layers deep. (B, C, H, W) -> (B, 10)

    Three stages of n blocks. From stage to stage the sides are halved, the channels doubled.
    """

    def __init__(self, depth: int, channels: int, inputs: int = 1, residual: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(inputs, channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        self.blocks = nn.Sequential()
        for stage in range(3):
            width = channels * 2**stage
            for number in range((depth - 2) // 6):
                if stage > 0 and number == 0:
                    shortcut = PadChannels(width // 2)
                    self.blocks.append(BasicBlock(width // 2, width, 2, shortcut, residual))
                else:
                    self.blocks.append(BasicBlock(width, width, residual=residual))
        self.head = nn.Linear(4 * channels, 10)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x)).relu()
        x = self.blocks(x)  # (B, 4 · channels, H / 4, W / 4)
        return self.head(x.mean(dim=(2, 3)))


def show_contained(cfg: Config) -> None:
    print("\n[2] A net with more blocks can be the shorter net, if the others do nothing")
    x = torch.rand(2, 8, 6, 6)  # behind a ReLU nothing is negative
    residual = BasicBlock(8, 8).eval()
    nn.init.zeros_(residual.bn2.weight)
    check_close("contained", "residual, last scale 0: the input comes out", residual(x), x)

    plain = BasicBlock(8, 8, residual=False).eval()  # in training a norm would take the mean off
    nn.init.dirac_(plain.conv1.weight)  # 1 in the middle of the filter from a channel to itself
    nn.init.dirac_(plain.conv2.weight)
    text = "plain: it takes all 1,152 weights, 16 of them 1 and the others 0"
    check_close("all-weights", text, plain(x), x, atol=1e-4)


def weight_gradients(model: nn.Module, batch: tuple[Tensor, Tensor]) -> list[float]:
    """The norm of the loss's gradient by the weights of each convolution, first to last."""
    # practice: Ask each layer
    model.zero_grad()
    training.cross_entropy(model, batch).backward()
    norms = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            norms.append(module.weight.grad.norm().item())
    return norms
    # end practice


def show_gradients(cfg: Config, batch: tuple[Tensor, Tensor]) -> tuple[dict, dict[str, float]]:
    print(f"\n[3] New nets of {DEPTHS} layers: the gradient's norm at the first over the last")
    norms = {}
    ratios = {}
    for kind in ("plain", "residual"):
        for depth in DEPTHS:
            models = [make_model(cfg, kind, depth, number) for number in range(cfg.nets)]
            norms[kind, depth] = [weight_gradients(model, batch) for model in models]
            ratios[kind, depth] = geometric_mean(row[0] / row[-1] for row in norms[kind, depth])
        print(f"  {kind:<9}" + "".join(f"{ratios[kind, depth]:8.3g}" for depth in DEPTHS))
    text = "asked again, the last net gives the same norms: no old gradient is left"
    check_close("cleared", text, weight_gradients(models[-1], batch), norms["residual", 44][-1])
    check("explodes", "plain, 44 layers: {} times, it explodes", ratios["plain", 44], above=50)
    check("moderate", "residual, 44 layers: {} times", ratios["residual", 44], below=20)
    return norms, {f"ratio_{kind}_{depth}": ratio for (kind, depth), ratio in ratios.items()}


def show_training(cfg: Config, x: Tensor, y: Tensor) -> tuple[dict, dict[str, float]]:
    print(f"\n[4] Mean training loss in the last of {cfg.epochs} epochs of {len(x) // BATCH} steps")
    model = make_model(cfg, "residual", 8, 0)
    text = "residual, 8 layers: 64 pictures are memorised: the loss falls to {}"
    batch = (x[:64], y[:64])
    optimizer = sgd(model.parameters(), lr=0.05)
    overfits("overfits", text, model, batch, training.cross_entropy, optimizer, steps=60)
    predicted = model.eval()(batch[0]).argmax(dim=1)
    depends_on_input("depends", "in evaluation it names a share of {} rightly", predicted, batch[1])

    curves = {}
    final = {}
    for kind in ("plain", "residual"):
        for depth in DEPTHS:
            curves[kind, depth] = train_nets(cfg, kind, depth, (x, y))
            final[f"{kind}_{depth}"] = mean(losses[-1] for losses in curves[kind, depth])
    digits = cfg.data == "digits"  # on CIFAR-10, 150 steps bring no net far
    ratio = final["plain_44"] / final["plain_8"]
    expect("degraded", "plain, 44 layers: {} times that of 8", ratio, at_least=10 if digits else 1)
    expect("deep", "residual, 44 layers: {}", final["residual_44"], below=0.2 if digits else 2.2)

    # Was it only the learning rate, or SGD, that did not suit the deep plain net?
    losses = [curves["plain", 44][0][-1]]
    adam = torch.optim.Adam
    for method, lr in [(sgd, 0.005), (sgd, 0.1), (adam, 0.003), (adam, 0.01)]:
        losses.append(train(cfg, "plain", 44, 0, (x, y), method, lr)[-1])
        print(f"  the first plain 44-layer net with {method.__name__} at {lr}: {losses[-1]:.4f}")
    expect("best", "even the best of its five settings leaves {}", min(losses), at_least=1)
    return curves, {**final, "degraded": ratio, "best_plain": min(losses)}


@torch.no_grad()
def start_as_copies(model: SmallResNet) -> None:
    """Each convolution of the blocks passes its input on, plus a tenth of its usual output."""
    for block in model.blocks:
        for conv in (block.conv1, block.conv2):
            tenth = 0.1 * conv.weight
            # Where the channels double, two groups: each channel is copied twice.
            nn.init.dirac_(conv.weight, groups=conv.out_channels // conv.in_channels)
            conv.weight += tenth


def show_copies(cfg: Config, x: Tensor, y: Tensor, losses: dict) -> tuple[list, list, dict]:
    print("\n[5] Plain nets of 44 layers again, but the blocks' convolutions start as copies")
    models = [make_model(cfg, "copies", 44, number) for number in range(cfg.nets)]
    norms = [weight_gradients(model, (x[:64], y[:64])) for model in models]
    ratio = geometric_mean(row[0] / row[-1] for row in norms)
    check("copied", "the first layer's gradient has {} times the norm of the last", ratio, below=10)

    curves = train_nets(cfg, "copies", 44, (x, y))
    loss = mean(rows[-1] for rows in curves)
    room = 1.5 if cfg.data == "digits" else 0.9  # CIFAR-10: see show_training
    text = "a start that copies does help, but does not replace the shortcut: {}"
    expect("helps", text, loss, above=room * losses["residual_44"], below=losses["plain_44"] / room)
    return norms, curves, {"ratio_copies": ratio, "copies_44": loss}


# Pictures and helpers: skip on a first reading


def flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


@torch.no_grad()
def randomize(model: nn.Module) -> None:
    """Move every scale, shift, mean and variance: 1 and 0, as they start, would hide faults."""
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.ndim == 1:
            tensor += 0.5 * torch.rand_like(tensor)


def make_model(cfg: Config, kind: str, depth: int, number: int) -> SmallResNet:
    """kind: plain, residual, or copies: plain, and started as copies."""
    torch.manual_seed(100 * cfg.seed + number)
    model = SmallResNet(depth, 8, 3 if cfg.data == "cifar10" else 1, kind == "residual")
    if kind == "copies":
        start_as_copies(model)
    return model


def sgd(parameters, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9)


def train(cfg: Config, kind: str, depth: int, number: int, data, method=sgd, lr=None) -> list:
    """The mean loss of a new net in each epoch of its training."""
    model = make_model(cfg, kind, depth, number)
    optimizer = method(model.parameters(), lr=lr or cfg.lr)
    batches = Batches(*data, batch_size=BATCH, shuffle=True, seed=number)
    rows = fit(model, batches, optimizer, training.cross_entropy, epochs=cfg.epochs, quiet=True)
    return [row["train_loss"] for row in rows]


def train_nets(cfg: Config, kind: str, depth: int, data: tuple) -> list[list[float]]:
    rows = [train(cfg, kind, depth, number, data) for number in range(cfg.nets)]
    print(f"  {kind:<9}{depth:3} layers:" + "".join(f"{losses[-1]:9.4f}" for losses in rows))
    return rows


def draw_training(cfg: Config, curves: dict) -> None:
    figure, axes = new_figure(1, 2, size=(12, 4.6), sharey=True)
    colours = dict(zip(DEPTHS, [SKY, BLUE, ORANGE]))
    for (kind, depth), rows in curves.items():
        rows = torch.tensor(rows).T  # (epochs, nets)
        colour = GREEN if kind == "copies" else colours[depth]
        axis = axes[int(kind == "residual")]
        lines = axis.semilogy(range(1, len(rows) + 1), rows, color=colour, linewidth=1.6)
        lines[0].set_label(f"{depth} layers" + ", started as copies" * (kind == "copies"))
    axes[0].set(xlabel="epoch", ylabel="training loss", title="Plain: the deeper, the worse")
    axes[1].set(xlabel="epoch", title="Residual: 44 layers learn too")
    axes[0].legend(loc="lower left")
    save_figure(figure, cfg.out / "training")


def draw_gradients(cfg: Config, norms: dict) -> None:
    figure, axis = new_figure(size=(8, 4.6))
    for kind, colour in {"plain": ORANGE, "copies": GREEN, "residual": BLUE}.items():
        rows = torch.tensor(norms[kind, 44])
        rows = (rows / rows[:, -1:]).T  # (layers, nets)
        lines = axis.semilogy(range(1, len(rows) + 1), rows, color=colour, alpha=0.7)
        lines[0].set_label("plain, started as copies" if kind == "copies" else kind)
    axis.legend()
    axis.set(xlabel="convolution; stages begin at 16 and 30", ylabel="gradient's norm, last = 1")
    axis.set_title("New nets of 44 layers: the plain gradient explodes on its way back")
    save_figure(figure, cfg.out / "gradients")


def run(cfg: Config) -> dict[str, float]:
    data = load_images(cfg, split_seed=cfg.seed)
    x, y = data.x_train[: cfg.pictures], data.y_train[: cfg.pictures]
    x, y = to_tensors(x, y, data.brightest)  # (n, C, H, W) from -1 to 1, and (n,)
    show_block(cfg)
    show_contained(cfg)
    norms, ratios = show_gradients(cfg, (x[:64], y[:64]))
    curves, losses = show_training(cfg, x, y)
    norms["copies", 44], curves["copies", 44], copied = show_copies(cfg, x, y, losses)
    draw_training(cfg, curves)
    draw_gradients(cfg, norms)
    return {**ratios, **losses, **copied}


if __name__ == "__main__":
    main(run, Config, __doc__)
