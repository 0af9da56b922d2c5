"""5.13 DenseNet: every layer reads all earlier ones of its block
DenseNet：每一层都读取块内前面所有层的输出

You will be able to answer
    1. What does a layer read, what does it change?  show_block   by-hand
    2. Are these the published networks?             show_parity  parameters, logits
    3. What does reading everything cost?            show_memory  kept, gradients, twice, whole
    4. Does a small one learn?                       show_small   overfits, depends
    5. Which earlier layers does it use then?        show_links   idle, together, input, old, stale
Predict   doubled: a block gets twice as many layers. How many times as much must it keep?
Run       python phase05_cnn/13-densenet.py                                about 30 s
Needs     phase03_pytorch/09-training-loop, phase05_cnn/08-resnet-variants,
          phase05_cnn/09-mobilenet
Reference torchvision.models.get_model
Notation  B batch  C channels  H W picture  k growth rate  L layers of a block
"""

import copy
from collections import OrderedDict
from dataclasses import dataclass

import torch
import torchvision
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from common.checks import check, check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.data.images import load_images
from common.data.tensors import to_tensors
from common.figures import new_figure, save_figure
from common.lessons import load_lesson

training_loop = load_lesson("phase03_pytorch/09-training-loop")
variants = load_lesson("phase05_cnn/08-resnet-variants")
mobilenet = load_lesson("phase05_cnn/09-mobilenet")
cross_entropy = training_loop.cross_entropy
Link = tuple[int, int, int]  # block, layer that reads, layer that is read (0: the block's input)


@dataclass
class Config(LessonConfig):
    threads = 1
    data: str = param("shapes", "data set", choices=("shapes",))
    pictures: int = param(3000, "training pictures", tiny=64)
    epochs: int = param(4, "passes over the pictures", tiny=1)


class DenseLayer(nn.Module):
    """Reads all channels there are and makes `growth` new ones, at the same positions.

    A list of tensors (B, …, H, W), together `inputs` channels -> (B, growth, H, W)
    """

    def __init__(self, inputs: int, growth: int, recompute: bool):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, 4 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)
        self.recompute = recompute

    def narrow(self, *features: Tensor) -> Tensor:
        everything = torch.cat(features, dim=1)
        return self.conv1(self.norm1(everything).relu())

    def forward(self, features: list[Tensor]) -> Tensor:
        # practice: Read all, write little
        if self.recompute:
            # Keeps only `features`; `narrow` is called again when gradients are computed (9.6).
            hidden = checkpoint(self.narrow, *features, use_reentrant=False)
        else:
            hidden = self.narrow(*features)

        # As in 5.8's pre-activation: batch norm, ReLU, convolution.
        return self.conv2(self.norm2(hidden).relu())
        # end practice


class DenseBlock(nn.ModuleDict):
    """Layers that append to a list. (B, C, H, W) -> (B, C + layers · growth, H, W)"""

    def __init__(self, inputs: int, growth: int, layers: int, recompute: bool = False):
        super().__init__()
        for number in range(layers):
            self[f"denselayer{number + 1}"] = DenseLayer(
                inputs + number * growth, growth, recompute
            )

    def forward(self, x: Tensor) -> Tensor:
        # practice: Append
        features = [x]
        for layer in self.values():
            features.append(layer(features))

        # The oldest first: the weights of later layers know their channels by number.
        return torch.cat(features, dim=1)
        # end practice


def show_block(cfg: Config) -> None:
    print("\n[1] A log: each layer reads all of it, and appends k channels")
    block = DenseBlock(1, 1, 2).eval()  # new batch norm: it changes nothing
    first, second = block.values()
    with torch.no_grad():
        first.conv1.weight[:] = 1.0
        first.conv2.weight[:] = 0.5
        second.conv1.weight[:] = torch.tensor([-1.0, 1.0])[:, None, None]
        second.conv2.weight[:] = -0.25
    print("  one pixel x = 3; layer 1: 4 · 0.5 · 3 = 6; layer 2: 4 · (-0.25) · (6 - 3) = -3")
    found = block(torch.tensor([[[[3.0]]]])).flatten()
    text = "the block gives 3, unchanged, then 6 and -3"
    check_close("by-hand", text, found, [3.0, 6.0, -3.0], atol=1e-3)


# A row is a net: channels behind the stem, growth rate, layers in each of the blocks.
DESIGNS = {
    "densenet121": (64, 32, (6, 12, 24, 16)),
    "densenet169": (64, 32, (6, 12, 32, 32)),
    "densenet201": (64, 32, (6, 12, 48, 32)),
    "densenet161": (96, 48, (6, 12, 36, 24)),
}


def transition(inputs: int, outputs: int) -> nn.Sequential:
    """Between two blocks: mix the channels to fewer, halve the sides."""
    norm = nn.BatchNorm2d(inputs)
    conv = nn.Conv2d(inputs, outputs, 1, bias=False)
    return nn.Sequential(OrderedDict(norm=norm, relu=nn.ReLU(), conv=conv, pool=nn.AvgPool2d(2)))


class DenseNet(nn.Module):
    """The nets for ImageNet. (B, 3, H, W) -> (B, classes). Names are torchvision's."""

    def __init__(self, stem: int, growth: int, blocks: tuple, classes: int = 1000):
        super().__init__()
        self.features = nn.Sequential()
        self.features.add_module("conv0", nn.Conv2d(3, stem, 7, stride=2, padding=3, bias=False))
        self.features.add_module("norm0", nn.BatchNorm2d(stem))
        self.features.add_module("relu0", nn.ReLU())
        self.features.add_module("pool0", nn.MaxPool2d(3, stride=2, padding=1))

        # practice: Blocks and transitions
        channels = stem
        for number, layers in enumerate(blocks, 1):
            block = DenseBlock(channels, growth, layers)
            self.features.add_module(f"denseblock{number}", block)
            channels += layers * growth

            # Half of the channels go on; behind the last block all of them.
            if number < len(blocks):
                halving = transition(channels, channels // 2)
                self.features.add_module(f"transition{number}", halving)
                channels //= 2
        # end practice

        self.features.add_module("norm5", nn.BatchNorm2d(channels))
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x).relu()  # with four blocks (B, C, H / 32, W / 32)
        return self.classifier(x.mean(dim=(2, 3)))


def show_parity(cfg: Config) -> None:
    print("\n[2] Four nets under the names that torchvision gives them")
    counts = []
    with torch.device("meta"):  # shapes without memory
        for design in DESIGNS.values():
            counts.append(sum(each.numel() for each in DenseNet(*design).parameters()))
    wanted = [variants.published(name)["num_params"] for name in DESIGNS]
    text = "they have 8, 14, 20 and 29 million parameters, just as many as torchvision publishes"
    check_close("parameters", text, counts, wanted)

    names = ["densenet121"] if cfg.tiny else list(DESIGNS)
    x = torch.randn(2, 3, 64, 55)
    ours, theirs = [], []
    for name in names:  # one at a time in memory
        reference = torchvision.models.get_model(name).eval()
        variants.resnet.randomize(reference)
        with torch.device("meta"):
            model = DenseNet(*DESIGNS[name]).eval()
        model.load_state_dict(reference.state_dict(), assign=True)
        with torch.no_grad():
            ours.append(model(x))
            theirs.append(reference(x))
    text = f"with the same random weights, torchvision's logits: {', '.join(names)}"
    check_close("logits", text, torch.stack(ours), torch.stack(theirs), rtol=1e-4, atol=1e-5)


def numbers_kept(model: nn.Module, x: Tensor) -> float:
    """Numbers in feature maps that autograd keeps for the backward pass, for each picture of x."""
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    kept = {}

    def note(tensor: Tensor) -> Tensor:
        # By address: what two operations keep is in memory once.
        if tensor.ndim == 4 and tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    # autograd calls the first function to put a tensor away, the second to get it back.
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model(x)
    return sum(kept.values()) / len(x)


def show_memory(cfg: Config) -> dict[str, float]:
    print("\n[3] What is kept for each pixel by 12 and 24 layers: k = 4, and 4 channels come in")
    kept = []
    for recompute in (False, True):
        for layers in (12, 24):
            block = DenseBlock(4, 4, layers, recompute)
            kept.append(numbers_kept(block, torch.randn(2, 4, 3, 5)) / 15)  # 3 · 5 pixels
    text = "k · L · (L + 9): 1,008 and 3,168 numbers; if computed again, 9 · k · L: 432 and 864"
    check_close("kept", text, kept, [1008, 3168, 432, 864])

    x = torch.randn(3, 5, 6, 9).double()
    block = DenseBlock(5, 3, 4).double()
    variants.resnet.randomize(block)
    means = block["denselayer4"].norm1.running_mean
    gradients, moved = [], []
    for recompute in (False, True):
        twin = DenseBlock(5, 3, 4, recompute).double()
        twin.load_state_dict(block.state_dict())
        found = torch.autograd.grad(twin(x).square().sum(), twin.parameters())
        gradients.append(variants.resnet.flat(found))
        moved.append(twin["denselayer4"].norm1.running_mean - means)
    check_close("gradients", "computed again, the gradients are the same", *gradients)
    text = "but running means move 1.9 times as far: the first batch norm saw the batch twice"
    check_close("twice", text, moved[1], 1.9 * moved[0])

    nets = [DenseNet(*DESIGNS["densenet121"]), variants.ResNet(*variants.DESIGNS["resnet50"])]
    dense, residual = (numbers_kept(net, torch.randn(2, 3, 32, 32)) for net in nets)
    text = "for one picture DenseNet-121 keeps {} times as much as ResNet-50"
    check("whole", text, dense / residual, above=1.5, below=1.55)
    return {"doubled": kept[1] / kept[0], "again": kept[3] / kept[2], "whole": dense / residual}


def show_small(cfg: Config) -> tuple[DenseNet, tuple[Tensor, Tensor]]:
    print("\n[4] Two blocks of six layers learn shapes")
    data = load_images(cfg)
    train = to_tensors(data.x_train[: cfg.pictures], data.y_train[: cfg.pictures])
    x, y = train[0][:16], train[1][:16]
    model = small_net()
    adam = torch.optim.Adam(model.parameters(), lr=0.01)
    text = "16 of them are learned by heart: the loss falls to {}"
    overfits("overfits", text, model, (x, y), cross_entropy, adam, steps=30)
    text = "in evaluation the answer depends on the shape: {}"
    depends_on_input("depends", text, model.eval()(x).argmax(dim=1), y)

    model = small_net()
    mobilenet.learn(model, train, cfg)  # Adam, with a rate that rises to 0.01 and falls
    return model, to_tensors(*data.test())


@torch.no_grad()
def without(model: DenseNet, links: list[Link]) -> DenseNet:
    """A copy of the net in which these links carry nothing."""
    model = copy.deepcopy(model)
    blocks = [part for part in model.features if isinstance(part, DenseBlock)]
    for number, reader, source in links:
        layer = blocks[number][f"denselayer{reader}"]
        growth = layer.conv2.out_channels
        inputs = layer.conv1.in_channels - (reader - 1) * growth

        # The channels that conv1 reads: those of the block's input, then k of each layer.
        sizes = [inputs, *[growth] * (reader - 1)]
        layer.conv1.weight.split(sizes, dim=1)[source].zero_()
    return model


@torch.no_grad()
def show_links(cfg: Config, model: DenseNet, test: tuple) -> tuple[dict, dict[str, float]]:
    print("\n[5] Links are cut in the trained net, which is not trained again")
    pairs = [(reader, source) for reader in range(1, 7) for source in range(reader)]
    links = [(block, *pair) for block in (0, 1) for pair in pairs]

    # What batch norm has stored fits the whole net. In training mode it takes this batch's.
    few = tuple(part[:250] for part in test)
    loss = cross_entropy(without(model, []).train(), few).item()
    rises = {}
    for link in links[::7] if cfg.tiny else links:
        rises[link] = cross_entropy(without(model, [link]).train(), few).item() - loss
    idle = [link for link in rises if rises[link] < 0.05]
    text = "cut one at a time, a share of {} raises the loss by less than 0.05"
    expect("idle", text, len(idle) / len(rises), at_least=0.7)

    cuts = {
        "none": [],
        "idle": idle,
        "input": [link for link in links if link[1] > 1 and link[2] == 0],
        "newest": [link for link in links if 0 < link[2] == link[1] - 1],
        "old": [link for link in links if 0 < link[2] < link[1] - 1],
    }
    stored, fresh = {}, {}
    for name, cut in cuts.items():
        net = without(model, cut)
        stored[name] = training_loop.accuracy(net.eval(), test)["accuracy"].item()
        fresh[name] = training_loop.accuracy(net.train(), test)["accuracy"].item()
        print(f"  {len(cut):2} links cut, {name}: accuracy {fresh[name]:.3f}")
    lost = {name: fresh["none"] - value for name, value in fresh.items()}
    expect("together", "idle ones cut at once cost {} of accuracy", lost["idle"], at_least=0.4)
    expect("input", "cuts to the blocks' inputs cost {} of accuracy", lost["input"], at_least=0.25)
    expect("old", "cuts to layers older than the newest cost {}", lost["old"], at_least=0.05)
    text = "with the batch norm statistics stored before, these would seem to cost {}"
    expect("stale", text, stored["none"] - stored["old"], at_least=0.3)

    metrics = {f"cut_{name}": value for name, value in fresh.items()}
    metrics |= {"stored_old": stored["old"], "idle": len(idle) / len(rises), "loss": loss}
    return rises, metrics


# Pictures and helpers: skip on a first reading


def small_net() -> DenseNet:
    """For pictures of 32x32: a smaller stem, then two blocks of six layers, of 8x8 and of 4x4."""
    model = DenseNet(16, 8, (6, 6), classes=10)
    model.features.conv0 = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False)
    model.features.pool0 = nn.Conv2d(16, 16, 3, stride=2, padding=1, bias=False)
    return model


def draw_links(cfg: Config, rises: dict[Link, float], loss: float) -> None:
    figure, axes = new_figure(1, 2, size=(11, 4.8))
    look = {"marker": "s", "cmap": "Oranges", "vmin": 0, "vmax": 1.6}
    for (block, reader, source), rise in rises.items():
        axes[block].scatter(source, reader, 1500, [rise], **look)
        axes[block].text(source, reader, f"{rise:z.2f}", ha="center", va="center")
    for block, axis in enumerate(axes, 1):
        axis.set(title=f"Block {block}: rise of the loss, {loss:.2f} uncut", ylim=(6.5, 0.5))
        axis.set(xlabel="layer read, 0: block's input", ylabel="layer that reads", xlim=(-0.5, 5.5))
        axis.grid(False)
    figure.suptitle("Cut one at a time, hardly any link counts", fontweight="bold")
    save_figure(figure, cfg.out / "links")


def run(cfg: Config) -> dict[str, float]:
    show_block(cfg)
    show_parity(cfg)
    metrics = show_memory(cfg)
    model, test = show_small(cfg)
    rises, found = show_links(cfg, model, test)
    draw_links(cfg, rises, found["loss"])
    return {**metrics, **found}


if __name__ == "__main__":
    main(run, Config, __doc__)
