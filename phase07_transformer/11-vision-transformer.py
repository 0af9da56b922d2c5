"""7.11 Vision transformer: a picture as a sequence of patches
视觉 Transformer：把图像当作图块的序列

You will be able to answer
    1. How does a picture become a sequence?  show_patches    by-hand, convolution
    2. Is it the published network?           show_parity     parameters, same, logits
    3. What says where a patch is?            show_positions  order, bag
    4. What does it learn?                    show_learning   overfits, depends, linear, few, seen
    5. Which patches does it use?             show_rollout    two-layers, rows, object, most, least
Predict   resnet: 8,000 pictures give a ViT the accuracy 0.6. What do 1,000 give a ResNet?
Run       python phase07_transformer/11-vision-transformer.py                  about 80 s
Needs     phase03_pytorch/09-training-loop, phase05_cnn/07-resnet,
          phase07_transformer/01-self-attention, phase07_transformer/02-multi-head-attention,
          phase07_transformer/04-transformer-encoder
Reference torchvision.models.VisionTransformer
Notation  B batch  C channels  H W picture  P patch size  T patches  N heads  D width
"""

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from common.checks import check_close, depends_on_input, expect, overfits
from common.config import LessonConfig, main, param
from common.data.batches import Batches
from common.data.shapes import Scenes, load_shapes
from common.data.tensors import to_tensors
from common.figures import BLUE, GREEN, GREY, ORANGE, new_figure, plot_images, save_figure
from common.lessons import load_lesson
from common.training import fit

cross_entropy = load_lesson("phase03_pytorch/09-training-loop").cross_entropy
SmallResNet = load_lesson("phase05_cnn/07-resnet").SmallResNet
with_gradients = load_lesson("phase07_transformer/01-self-attention").with_gradients
load_attention = load_lesson("phase07_transformer/02-multi-head-attention").load_torch
Encoder = load_lesson("phase07_transformer/04-transformer-encoder").Encoder
IMAGE_SIZE = 32  # pixels on each side of the shapes
PATCH_SIZE = 8  # of the small ViTs, which read 4 x 4 = 16 patches
LEFT_OUT = (0, 2, 4, 6, 8, 12)  # patches
Pictures = tuple[Tensor, Tensor]  # x (n, 3, 32, 32), y (n,)


@dataclass
class Config(LessonConfig):
    threads = 1
    steps: int = param(1000, "training steps, each with 64 pictures", tiny=8, low=4)


def patches(x: Tensor, patch_size: int) -> Tensor:
    """Squares of P x P pixels, row by row: (B, C, H, W) -> (B, T, C · P · P)"""
    # practice: Cut into patches
    x = x.unflatten(2, (-1, patch_size))  # (B, C, rows, P, W)
    x = x.unflatten(4, (-1, patch_size))  # (B, C, rows, P, columns, P)

    # First where a patch is, then what is inside it.
    x = x.permute(0, 2, 4, 1, 3, 5)  # (B, rows, columns, C, P, P)
    return x.flatten(start_dim=3).flatten(start_dim=1, end_dim=2)
    # end practice


def show_patches(cfg: Config) -> None:
    print("\n[1] Squares of pixels become rows, and a linear layer makes vectors of them")
    wanted = [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    text = "4 x 4 pixels with the numbers 0 to 15, patches of 2 x 2: the second has 2, 3, 6, 7"
    check_close("by-hand", text, patches(torch.arange(16).reshape(1, 1, 4, 4), 2)[0], wanted)

    x = torch.randn(2, 3, 12, 20, dtype=torch.float64)
    layer = nn.Linear(3 * 4 * 4, 7).double()
    filters = layer.weight.unflatten(1, (3, 4, 4))
    convolved = F.conv2d(x, filters, layer.bias, stride=4)  # (2, 7, 3, 5)
    text = "patches through a linear layer: a convolution of 4 x 4 with stride 4"
    check_close("convolution", text, layer(patches(x, 4)), convolved.flatten(start_dim=2).mT)


class VisionTransformer(nn.Module):
    """ViT (Dosovitskiy et al. 2020): a class token and the patches through an encoder.

    x (B, 3, H, W) -> logits (B, n_classes). keep (B, M): the numbers of the patches to read.
    """

    def __init__(
        self,
        image_size: int,
        patch_size: int,
        n_layers: int,
        n_heads: int,
        dim: int,
        hidden_dim: int,
        n_classes: int = 1000,
    ):
        super().__init__()
        self.patch_size = patch_size
        self.embed = nn.Linear(3 * patch_size**2, dim)
        self.class_token = nn.Parameter(torch.zeros(1, 1, dim))
        n_positions = 1 + (image_size // patch_size) ** 2  # position 0 is the class token's
        self.positions = nn.Parameter(0.02 * torch.randn(1, n_positions, dim))
        options = {"dropout": 0.0, "norm_first": True, "activation": "gelu", "eps": 1e-6}
        self.encoder = Encoder(n_layers, dim, n_heads, hidden_dim, **options)
        self.head = nn.Linear(dim, n_classes)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        # practice: The vision transformer
        tokens = self.embed(patches(x, self.patch_size)) + self.positions[:, 1:]  # (B, T, D)
        if keep is not None:
            # Each patch holds its position by now, so that others can be left out.
            tokens = tokens.gather(1, keep[:, :, None].expand(-1, -1, tokens.shape[2]))

        # Belongs to no patch: it collects from all of them, layer by layer.
        first = self.class_token + self.positions[:, :1]  # (1, 1, D)
        tokens = torch.cat([first.expand(len(x), -1, -1), tokens], dim=1)  # (B, 1 + T, D)
        return self.head(self.encoder(tokens)[:, 0])
        # end practice


def show_parity(cfg: Config) -> None:
    print("\n[2] torchvision's network")
    with torch.device("meta"):  # shapes without memory
        model = VisionTransformer(224, 16, 12, 12, 768, 3072)
    count = sum(weight.numel() for weight in model.parameters())
    published = torchvision.models.ViT_B_16_Weights.DEFAULT.meta["num_params"]
    check_close("parameters", "ViT-B/16: 86,567,656 parameters, as published", count, published)

    theirs = torchvision.models.VisionTransformer(24, 8, 2, 3, 12, 20)
    ours = twin(theirs, 24, 8, 2, 3, 12, 20).double()
    x = torch.randn(2, 3, 24, 24, dtype=torch.float64, requires_grad=True)
    text = "a small one with torchvision's weights: the same logits and gradients"
    check_close("same", text, with_gradients(ours(x), x), with_gradients(theirs.double()(x), x))

    design = (224, 16, 1 if cfg.tiny else 12, 12, 768, 3072)
    theirs = torchvision.models.VisionTransformer(*design)
    ours = twin(theirs, *design)
    x = torch.randn(1, 3, 224, 224)
    text = f"ViT-B/16, {design[2]} of its 12 layers, random weights: torchvision's logits"
    with torch.no_grad():
        check_close("logits", text, ours(x), theirs(x), rtol=1e-4, atol=1e-4)


def show_positions(cfg: Config) -> None:
    print("\n[3] Learned positions, a row of weights for each, as in lesson 7.3")
    model = make(cfg, "vit").double()
    x = torch.randn(2, 3, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.float64)
    text = "16 patches in another order, each with its position: the same logits"
    check_close("order", text, model(x, torch.rand(2, 16).argsort(dim=1)), model(x))

    nn.init.zeros_(model.positions)
    moved = x.roll((PATCH_SIZE, -PATCH_SIZE), dims=(2, 3))  # out on one side, in on the other
    text = "without positions, all patches moved, down and to the left: the same logits"
    check_close("bag", text, model(moved), model(x))


def show_learning(cfg: Config, train: Pictures, test: Pictures) -> tuple[nn.Module, dict]:
    print("\n[4] Ten kinds of shapes: the accuracy on test pictures")
    model = make(cfg, "vit")
    batch = tuple(part[:16] for part in train)
    adam = torch.optim.Adam(model.parameters(), lr=3e-3, fused=True)
    overfits("overfits", "16 pictures: loss {}", model, batch, cross_entropy, adam, steps=60)
    text = "and different answers for different pictures: accuracy {}"
    depends_on_input("depends", text, model(batch[0]).argmax(dim=1), batch[1])

    scores = {}
    for name, n, steps in (
        ("linear", 8000, cfg.steps),
        ("resnet", 1000, cfg.steps // 4),
        ("vit_few", 1000, cfg.steps),
        ("vit_many", 8000, cfg.steps),
    ):
        model = learn(cfg, make(cfg, name), train, n, steps)
        scores[name] = accuracy(model, test)
        # The first 1,000 training pictures: all four have seen these.
        scores[f"{name}_seen"] = seen = accuracy(model, tuple(part[:1000] for part in train))
        size = sum(weight.numel() for weight in model.parameters())
        text = f"  {name:8} {size:6,} weights, {n:,} pictures, {steps:,} steps"
        print(f"{text}: {scores[name]:.3f} (on 1,000 pictures that it has seen: {seen:.3f})")
    gap = scores["vit_many"] - scores["linear"]
    expect("linear", "the ViT is ahead of a linear model by {}", gap, at_least=0.3)
    text = "with 1,000 pictures a ResNet is ahead of the ViT by {}, after a quarter of the steps"
    expect("few", text, scores["resnet"] - scores["vit_few"], at_least=0.2)
    text = "the steps suffice: on its 1,000 pictures the accuracy is {} higher than on new ones"
    expect("seen", text, scores["vit_few_seen"] - scores["vit_few"], at_least=0.2)
    return model, scores


def rollout(weights: list[Tensor]) -> Tensor:
    """How much of each input is in each output, if only attention mixes (Abnar, Zuidema 2020).

    weights: (B, N, T, T) of each layer, the first layer's first -> (B, T, T)
    """
    # practice: Attention rollout
    identity = torch.eye(weights[0].shape[-1]).to(weights[0])
    flow = identity
    for layer in weights:
        # Half of a token comes by the residual connection: from the token itself.
        mixture = (layer.mean(dim=1) + identity) / 2  # (B, T, T)

        # A layer mixes what the layers before it have mixed.
        flow = mixture @ flow
    return flow
    # end practice


@torch.no_grad()
def show_rollout(cfg: Config, model: VisionTransformer, test: Pictures, inside: Tensor) -> tuple:
    print("\n[5] Attention rollout: the weights of all layers, multiplied")
    first = torch.tensor([[[[0.5, 0.5], [0, 1]]]], dtype=torch.float64)  # (B, N, T, T)
    second = torch.tensor([[[[0, 1], [0.5, 0.5]]]], dtype=torch.float64)
    text = "two tokens, two layers: the rows 6/16, 10/16 and 3/16, 13/16"
    wanted = torch.tensor([[6, 10], [3, 13]], dtype=torch.float64) / 16
    check_close("two-layers", text, rollout([first, second])[0], wanted)

    x, _ = test
    model(x)
    flow = rollout([layer.attention.weights for layer in model.encoder.layers])
    text = "in the trained ViT all rows sum to 1"
    check_close("rows", text, flow.sum(dim=2), torch.ones(flow.shape[:2]))

    shares = flow[:, 0, 1:]  # of each patch in the class token: (n, 16)
    on_object = ((shares * inside).sum(dim=1) / shares.sum(dim=1)).mean().item()
    area = inside.mean().item()
    text = f"the object covers {area:.3f} of a picture and gets {{}} of the class token's rollout"
    expect("object", text, on_object, at_least=1.5 * area)

    curves = {}
    for name, values in (
        ("largest rollout first", shares),
        ("largest contrast first", patches(x, PATCH_SIZE).std(dim=2)),
        ("at random", torch.rand(shares.shape)),
        ("smallest rollout first", -shares),
    ):
        ranked = values.argsort(dim=1, descending=True)
        curves[name] = [accuracy(model, test, ranked[:, n:]) for n in LEFT_OUT]
    most, contrast, random, least = curves.values()
    text = "without the 2 patches with most rollout: {} of the accuracy with all 16"
    expect("most", text, most[1] / most[0], at_most=0.6)
    text = "without the 8 patches with least rollout: {} of it"
    expect("least", text, least[4] / least[0], at_least=0.75)
    found = {"on_object": on_object, "area": area, "without_most": most[1], "random": random[1]}
    return found | {"contrast": contrast[1], "without_least": least[4]}, curves, shares


# Pictures and helpers: skip on a first reading


@torch.no_grad()
def load_torchvision(ours: VisionTransformer, theirs: nn.Module) -> None:
    """Copy the weights of torchvision's VisionTransformer."""
    ours.embed.weight.copy_(theirs.conv_proj.weight.flatten(start_dim=1))
    ours.embed.bias.copy_(theirs.conv_proj.bias)
    ours.class_token.copy_(theirs.class_token)
    ours.positions.copy_(theirs.encoder.pos_embedding)
    for layer, block in zip(ours.encoder.layers, theirs.encoder.layers):
        load_attention(layer.attention, block.self_attention)
        layer.attention_norm.load_state_dict(block.ln_1.state_dict())
        layer.feed_forward_norm.load_state_dict(block.ln_2.state_dict())
        layer.feed_forward.inner.load_state_dict(block.mlp[0].state_dict())
        layer.feed_forward.outer.load_state_dict(block.mlp[3].state_dict())
    ours.encoder.norm.load_state_dict(theirs.encoder.ln.state_dict())
    ours.head.load_state_dict(theirs.heads.head.state_dict())


@torch.no_grad()
def twin(theirs: nn.Module, *design: int) -> VisionTransformer:
    """Ours, after torchvision's has got random weights: both have the same."""
    for weight in theirs.parameters():
        # Its class token and its last layer begin with 0, which would hide mistakes.
        weight += 0.02 * torch.randn_like(weight)
    ours = VisionTransformer(*design)
    load_torchvision(ours, theirs)
    return ours


def make(cfg: Config, name: str) -> nn.Module:
    """resnet (lesson 5.7), linear, or a ViT."""
    torch.manual_seed(cfg.seed)
    if name == "linear":
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * IMAGE_SIZE**2, 10))
    if name == "resnet":
        return SmallResNet(8, 8, 3)
    return VisionTransformer(IMAGE_SIZE, PATCH_SIZE, 3, 4, 64, 128, n_classes=10)


def learn(cfg: Config, model: nn.Module, train: Pictures, n: int, steps: int) -> nn.Module:
    """Adam on the first n pictures, with a learning rate that rises to 0.003 and falls."""
    batches = Batches(*(part[:n] for part in train), batch_size=64, shuffle=True, seed=cfg.seed)
    endless = itertools.chain.from_iterable(itertools.repeat(batches))
    adam = torch.optim.Adam(model.parameters(), fused=True)  # all weights in one call: faster
    rate = torch.optim.lr_scheduler.OneCycleLR(adam, 3e-3, steps, pct_start=0.15)
    fit(model, itertools.islice(endless, steps), adam, cross_entropy, scheduler=rate, quiet=True)
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, pictures: Pictures, *keep: Tensor) -> float:
    x, y = pictures
    return (model(x, *keep).argmax(dim=1) == y).double().mean().item()


def load(scenes: Scenes) -> Pictures:
    """Each channel with the mean 0, the picture with the variance 1: all grounds become alike."""
    x, y = to_tensors(scenes.x, scenes.labels[:, 0])
    x = x - x.mean(dim=(2, 3), keepdim=True)
    return x / x.std(dim=(1, 2, 3), keepdim=True), y


def draw_rollout(cfg: Config, pictures: Tensor, shares: Tensor) -> None:
    figure, axes = new_figure(2, 6, size=(12, 4.6))
    pictures[:, [8, 16, 24]] = 255  # white lines between the patches
    pictures[:, :, [8, 16, 24]] = 255
    plot_images(axes[0], pictures)
    ranges = [f"{each.min():.3f} to {each.max():.3f}" for each in shares]
    plot_images(axes[1], shares.unflatten(1, (4, 4)), ranges)
    figure.suptitle("Below: each patch's share of the class token's rollout (darker: more)")
    save_figure(figure, cfg.out / "rollout")


def draw_left_out(cfg: Config, curves: dict[str, list[float]]) -> None:
    figure, axis = new_figure(size=(9, 4.6))
    for (name, shares), colour in zip(curves.items(), (ORANGE, GREEN, GREY, BLUE)):
        style = "--" if "contrast" in name else "-"
        axis.plot(LEFT_OUT, shares, style, marker="o", color=colour, label=name)
    axis.axhline(0.1, color=GREY, linestyle=":", label="guessing")
    axis.set(xlabel="patches left out, of 16", ylabel="accuracy of the ViT", ylim=(0, 0.8))
    axis.set_title("Rollout finds the patches that matter, and so does contrast")
    axis.legend(ncols=2)
    save_figure(figure, cfg.out / "left-out")


def run(cfg: Config) -> dict[str, float]:
    show_patches(cfg)
    show_parity(cfg)
    show_positions(cfg)

    data = load_shapes(cfg)
    scenes = data.test()
    test = load(scenes)
    model, scores = show_learning(cfg, load(data.train), test)
    inside = torch.from_numpy(scenes.owner >= 0).float()[:, None]  # 1 on the object's pixels
    inside = patches(inside, PATCH_SIZE).mean(dim=2)  # (n, 16)
    found, curves, shares = show_rollout(cfg, model, test, inside)
    draw_rollout(cfg, torch.tensor(scenes.x[:6]), shares[:6])
    draw_left_out(cfg, curves)
    return scores | found


if __name__ == "__main__":
    main(run, Config, __doc__)
