"""8.10 StyleGAN: one style for each layer
StyleGAN：每一层都有自己的风格

You will be able to answer
    1. How does a style enter a layer?    show_conv      by-hand, per-sample, shared
    2. What does one style change?        show_styles    untouched
    3. Can both players learn?            show_training  told, fools
    4. Are these digits?                  show_digits    spread, covers, copies, strokes
    5. Which layers decide the digit?     show_mixing    majority, third
Predict   first_2: two of three layers take their style from A. In which share is A's digit seen?
Run       python phase08_generative/10-stylegan.py                          about a minute
Needs     phase08_generative/01-gan-basics, phase08_generative/02-dcgan, phase08_generative/03-wgan,
          phase08_generative/07-diffusion-implementation,
          phase08_generative/09-fid-inception-score, phase07_transformer/01-self-attention
Reference -
Learns    told, fools
Notation  B batch  C channels  H W picture  D width  L layers  z noise  w style  ψ truncation
"""

from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization
from torch.optim.lr_scheduler import LinearLR

from common.checks import check, check_close, expect
from common.config import LessonConfig, main, param
from common.data.images import load_images
from common.data.tensors import to_tensors
from common.figures import new_figure, plot_images, save_figure
from common.lessons import load_lesson

with_gradients = load_lesson("phase07_transformer/01-self-attention").with_gradients
gan = load_lesson("phase08_generative/01-gan-basics")
wgan = load_lesson("phase08_generative/03-wgan")
closer_to_training = load_lesson("phase08_generative/02-dcgan").closer_to_training
follow = load_lesson("phase08_generative/07-diffusion-implementation").follow
inside = load_lesson("phase08_generative/09-fid-inception-score").inside

LAYERS = 3  # for maps of 4, 8 and 16 pixels on each side
STYLE = 32  # D, numbers in z and in w


@dataclass
class Config(LessonConfig):
    threads = 1
    data: str = param("mnist-5k", "data set", tiny="digits", choices=("mnist-5k", "digits"))
    width: int = param(32, "channels of the first two layers", tiny=16, low=2)
    steps: int = param(1600, "training steps of 32 pictures", tiny=2)
    judge_epochs: int = param(6, "passes of the judge over the pictures", tiny=1)


def grouped_conv(x: Tensor, weight: Tensor, style: Tensor) -> Tensor:
    """x (B, C, H, W), weight (outputs, C, k, k), style (B, C) -> (B, outputs, H, W)"""
    # practice: Filters for each picture
    filters = weight * style[:, None, :, None, None]  # (B, outputs, C, k, k): modulated

    # Each filter gets the norm 1, so that large styles make no large maps: demodulated.
    norm = (filters.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).sqrt()
    filters = (filters / norm).flatten(0, 1)  # (B · outputs, C, k, k)

    # One call for all: the batch becomes channels, with a group for each picture.
    stacked = x.flatten(0, 1)[None]  # (1, B · C, H, W)
    y = F.conv2d(stacked, filters, padding=weight.shape[2] // 2, groups=len(x))
    return y.unflatten(1, (len(x), -1))[0]
    # end practice


def modulated_conv(x: Tensor, weight: Tensor, style: Tensor) -> Tensor:
    """The same with one set of filters for all pictures."""
    # practice: One set of filters
    # Instead of what a filter has for channel c, multiply channel c itself.
    y = F.conv2d(x * style[:, :, None, None], weight, padding=weight.shape[2] // 2)

    # The modulated filters' norms, without making them.
    squares = weight.square().sum(dim=(2, 3))  # (outputs, C)
    norm = (style.square() @ squares.T + 1e-8).sqrt()  # (B, outputs)
    return y / norm[:, :, None, None]
    # end practice


def show_conv(cfg: Config) -> None:
    print("\n[1] A style multiplies a filter's channels; then the filter's norm becomes 1")
    weight = torch.tensor([1.0, 2])[None, :, None, None]  # the filter; the pixel is the same
    styles = torch.tensor([[3, 2], [30, 20], [4, 1.5]])
    found = grouped_conv(weight.expand(3, -1, -1, -1), weight, styles)
    check_close("by-hand", "(1, 2), three styles: 2.2, 2.2, 2", found.flatten(), [2.2, 2.2, 2.0])

    shapes = (3, 4, 6, 7), (5, 4, 3, 3), (3, 4)
    x, weight, style = (torch.randn(shape).double().requires_grad_() for shape in shapes)
    wanted = with_gradients(one_by_one(x, weight, style), x, weight, style)
    for id, conv in (("per-sample", grouped_conv), ("shared", modulated_conv)):
        found = with_gradients(conv(x, weight, style), x, weight, style)
        check_close(id, f"{conv.__name__} equals a loop, gradients too", found, wanted)


class StyledLayer(nn.Module):
    """x (B, inputs, H, W) and the layer's style w (B, D) -> (B, outputs, H, W)"""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.style = nn.Linear(STYLE, inputs)
        nn.init.ones_(self.style.bias)  # factors around 1, as in the paper
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.strength = nn.Parameter(torch.zeros(1))
        self.bias = nn.Parameter(torch.zeros(outputs, 1, 1))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        y = modulated_conv(x, self.weight, self.style(w))
        noise = torch.randn(len(y), 1, *y.shape[2:]).to(y)  # for each pixel, all channels alike
        return F.leaky_relu(y + self.strength * noise + self.bias, 0.2)


def mix(ours: Tensor, theirs: Tensor, start: Tensor | int) -> Tensor:
    """A style for each layer: ours before layer `start`, theirs from it on. (B, D) -> (L, B, D)"""
    # practice: Mix two styles
    layer = torch.arange(LAYERS)[:, None]
    swapped = layer >= start  # (L, B), or (L, 1) if all pictures have the same start
    return torch.where(swapped[:, :, None], theirs, ours)
    # end practice


class AtScale(nn.Module):  # a weight passes through it whenever it is read
    def forward(self, weight: Tensor) -> Tensor:
        return weight * (2 / weight[0].numel()) ** 0.5


def equalised(model: nn.Module) -> nn.Module:
    """Weights are stored with the sd 1, and He's scale √(2 / inputs) comes in at each use."""
    for layer in list(model.modules()):
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            nn.init.normal_(layer.weight)
            register_parametrization(layer, "weight", AtScale())
    return model


class Generator(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.mapping = gan.mlp(STYLE, STYLE, width=64)
        self.start = nn.Parameter(torch.randn(1, width, 4, 4))  # all pictures begin alike
        sizes = (width, width, width // 2, width // 2)
        self.layers = nn.ModuleList(StyledLayer(*pair) for pair in pairwise(sizes))
        self.to_picture = nn.Conv2d(sizes[-1], 1, 1)
        equalised(self)

    def styles(self, z: Tensor) -> Tensor:
        return self.mapping(z / z.square().mean(dim=1, keepdim=True).sqrt())

    def synthesis(self, styles: Tensor) -> list[Tensor]:
        """Styles (L, B, D) -> the layers' maps, doubled in between (bilinear), and the pictures."""
        # practice: From the styles to the picture
        x = self.start.expand(styles.shape[1], -1, -1, -1)
        maps = []
        for number, layer in enumerate(self.layers):
            if number > 0:
                x = F.interpolate(x, scale_factor=2, mode="bilinear")
            x = layer(x, styles[number])
            maps.append(x)
        return [*maps, self.to_picture(x).tanh()]
        # end practice

    def truncated(self, w: Tensor, psi: float) -> Tensor:
        mean = self.styles(torch.randn(5000, STYLE)).mean(dim=0)
        return mean + psi * (w - mean)

    def picture(self, w: Tensor) -> Tensor:
        return self.synthesis(w.expand(LAYERS, -1, -1))[-1]

    def forward(self, z: Tensor) -> Tensor:
        w = self.styles(z)
        start = torch.randint(1, 2 * LAYERS, (len(z),))  # from L on: nothing is mixed
        return self.synthesis(mix(w, w.flip(0), start))[-1]


@torch.no_grad()
def show_styles(cfg: Config) -> None:
    print("\n[2] Three layers, and a style for each")
    model = Generator(16).double()
    for each in model.parameters():
        each += 0.3 * torch.randn_like(each)  # some begin with 0, which would hide mistakes
    ours, theirs = model.styles(torch.randn(6, STYLE).double()).chunk(2)
    maps = []
    for start in range(LAYERS + 1):
        torch.manual_seed(cfg.seed)  # the same noise each time
        maps.append(model.synthesis(mix(ours, theirs, start)))
    alone = maps.pop()
    same = [list(map(torch.equal, alone, each)) for each in maps]  # (3, 4): row k, column map
    text = "swapped from layer k on: maps before k stay to the last bit, the others do not"
    check_close("untouched", text, same, torch.ones(3, 4).tril(-1).bool())  # the picture, too


def train(cfg: Config, real: Tensor) -> Generator:
    """The average of G's weights over about the last 100 steps (8.7). The rates fall to 0."""
    torch.manual_seed(cfg.seed)
    players = Generator(cfg.width), make_discriminator(32)
    average = Generator(cfg.width)  # the first step makes it equal
    adams = [adam_for(*pair) for pair in zip(players, (3e-3, 6e-3))]
    falling = [LinearLR(adam, 1, 0, total_iters=cfg.steps) for adam in adams]
    for step in range(cfg.steps):
        batch = real[torch.randint(len(real), (32,))]
        gan.gan_step(*players, batch, torch.randn(32, STYLE), *adams)
        # R1 (Mescheder et al. 2018), for a flat D at real pictures. Every 4th step, so times 4.
        if step % 4 == 0:
            wgan.descend(adams[1], 4.0 * wgan.slopes(players[1], batch).square().mean())
        follow(average, players[0], decay=min(0.99, step / (step + 10)))
        for schedule in falling:
            schedule.step()
    return average


def show_training(cfg: Config, real: Tensor) -> None:
    print("\n[3] Each player by itself, on eight digits")
    noise = torch.randn(8, STYLE)
    for id, who, index, rates in (("told", "D", 0, (0.0, 0.01)), ("fools", "G", 1, (0.02, 0.0))):
        players = Generator(8), make_discriminator(8)
        adams = [adam_for(*pair) for pair in zip(players, rates)]
        losses = [gan.gan_step(*players, real[:8], noise, *adams) for _ in range(30)]
        loss = losses[-1][index]
        check(id, f"the other is frozen: {who}'s loss falls to {{}}", loss, below=0.2)


def score(judge: nn.Module, pictures: Tensor, real: Tensor, new: Tensor) -> dict[str, float]:
    features = gan.features(judge, pictures)
    counts = judge(gan.for_judge(pictures)).argmax(dim=1).bincount(minlength=10)
    return {
        "distance": gan.frechet_distance(features, gan.features(judge, real)),
        "digits": (counts >= len(pictures) / 40).sum().item(),  # a quarter of a fair share
        "precision": inside(pictures.flatten(1), real.flatten(1), k=3),  # of pixels
        "variance": features.var(dim=0).sum().item(),
        "closer": closer_to_training(pictures, real, new),
    }


@torch.no_grad()
def show_digits(cfg: Config, judge, model: Generator, real: Tensor, new: Tensor) -> dict:
    n = len(new)
    print(f"\n[4] {n} of a kind\n{'':11}distance   digits precision variance  nearer to training")
    mean = real.mean(dim=0)
    amounts = torch.randn(n, len(real)) / len(real) ** 0.5  # random sums: the same covariance
    sets = {"new": new, "gaussian": mean + torch.tensordot(amounts, real - mean, dims=1)}
    w = model.styles(torch.randn(n, STYLE))
    near = {psi: model.truncated(w, psi) for psi in (1, 0.7, 0.4)}
    sets |= {f"psi_{psi}": model.picture(each) for psi, each in near.items()}
    spread = near[0.4].std(dim=0) / w.std(dim=0)
    text = "ψ = 0.4: the sd of each number in w is 0.4 of what it was"
    check_close("spread", text, spread, [0.4] * STYLE)

    found = {}
    for name, pictures in sets.items():
        row = score(judge, pictures, real, new)
        print(f"  {name:<9}" + "".join(f"{value:9.2f}" for value in row.values()))
        found |= {f"{what}_{name}": value for what, value in row.items()}

    expect("covers", "{} digits have 1/4 of a fair share", found["digits_psi_1"], at_least=8)
    expect("copies", "nearer to training than to new: {}", found["closer_psi_1"], at_most=0.7)
    ratio = found["precision_psi_1"] / max(found["precision_gaussian"], 0.01)
    expect("strokes", "the precision is {} times that of a Gaussian of pixels", ratio, at_least=2)
    return found


@torch.no_grad()
def show_mixing(cfg: Config, judge: nn.Module, model: Generator, n: int) -> dict[str, float]:
    print("\n[5] A's styles in the first layers, B's in the others: shares with A's, B's digit")
    a, b = model.styles(torch.randn(2 * n, STYLE)).chunk(2)
    starts = LAYERS, 0, *range(LAYERS + 1)  # A's and B's own digits, then all mixtures
    sets = [model.synthesis(mix(a, b, start))[-1] for start in starts]
    judged = torch.stack([judge(gan.for_judge(pictures)).argmax(dim=1) for pictures in sets])
    digit_a, digit_b, *mixed = judged[:, judged[0] != judged[1]]
    found = {}
    for start, digits in enumerate(mixed):
        first = (digits == digit_a).sum().item() / max(1, len(digits))
        second = (digits == digit_b).sum().item() / max(1, len(digits))
        print(f"  {start} of A, {LAYERS - start} of B: A's digit {first:.3f}, B's {second:.3f}")
        found |= {f"first_{start}": first, f"second_{start}": second}
    lead = found["first_2"] - found["second_2"]
    expect("majority", "two styles from A, one from B: A's digit leads by {}", lead, at_least=0.2)
    third = 1 - found["first_1"] - found["second_1"]
    expect("third", "one from A, two from B: a third digit in a share of {}", third, at_least=0.2)
    return found


# Pictures and helpers: skip on a first reading


def adam_for(model: nn.Module, rate: float) -> torch.optim.Optimizer:
    """A tenth of the rate for the mapping network, which feeds all layers; less for the noise."""
    weights = dict(model.named_parameters())
    mapping = [weights.pop(name) for name in [*weights] if "mapping" in name]
    strengths = [weights.pop(name) for name in [*weights] if "strength" in name]
    groups = [{"params": [*weights.values()]}, {"params": mapping, "lr": rate / 10}]
    groups.append({"params": strengths, "lr": rate / 100})
    return torch.optim.Adam(groups, lr=rate, betas=(0.0, 0.99))


def make_discriminator(width: int) -> nn.Module:
    layers = [nn.Conv2d(1, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
    layers += [nn.Conv2d(width, 2 * width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
    return equalised(nn.Sequential(*layers, nn.Flatten(), nn.Linear(2 * width * 16, 1)))


def one_by_one(x: Tensor, weight: Tensor, style: Tensor) -> Tensor:
    rows = []
    for picture, factors in zip(x, style):
        filters = weight * factors[:, None, None]
        norm = (filters.flatten(start_dim=1).square().sum(dim=1) + 1e-8).sqrt()
        rows.append(F.conv2d(picture, filters / norm[:, None, None, None], padding=1))
    return torch.stack(rows)


@torch.no_grad()
def draw_styles(cfg: Config, model: Generator) -> None:
    ours, theirs = model.styles(torch.randn(18, STYLE)).chunk(2)
    mixed = [model.picture(theirs)]
    mixed[0][0] = -1  # the corner
    for w in ours:
        columns = torch.cat([w[None], theirs[1:]])  # first a picture of the row alone
        mixed.append(model.synthesis(mix(w.expand_as(columns), columns, LAYERS - 1))[-1])
    strips = [model.picture(model.truncated(ours, psi)) for psi in (0, 0.25, 0.5, 0.75, 1, 1.25)]
    grids = torch.stack(mixed), torch.stack(strips, dim=1)
    titles = "Left: A. Top: B. Inside: A at 4 and 8, B at 16 pixels", "A, truncated: ψ = 0 to 1.25"
    figure, axes = new_figure(1, 2, size=(11, 7), width_ratios=(9, 6))
    for axis, title, grid in zip(axes, titles, grids):
        sheet = grid[:, :, 0].transpose(1, 2).flatten(2).flatten(0, 1)
        plot_images(axis, [sheet.clamp(-1, 1)], [title])
    save_figure(figure, cfg.out / "styles")


def run(cfg: Config) -> dict[str, float]:
    show_conv(cfg)
    show_styles(cfg)
    data = load_images(cfg, split_seed=cfg.seed)
    train_set = to_tensors(data.x_train, data.y_train, data.brightest)
    test_set = to_tensors(*data.test(), data.brightest)
    small = partial(F.interpolate, size=(16, 16), mode="bilinear", antialias=True)
    train_set, test_set = ((small(x), labels) for x, labels in (train_set, test_set))
    judge, accuracy = gan.train_judge(train_set, test_set, cfg.judge_epochs, cfg.seed)
    show_training(cfg, train_set[0])
    model = train(cfg, train_set[0])
    draw_styles(cfg, model)
    found = show_digits(cfg, judge, model, train_set[0], test_set[0])
    return found | show_mixing(cfg, judge, model, len(test_set[0])) | {"judge": accuracy}


if __name__ == "__main__":
    main(run, Config, __doc__)
