"""8.2 DCGAN: the rules that made GANs train
DCGAN：让 GAN 训得动的几条规则

You will be able to answer
    1. How do pictures grow?  show_growing  by-hand, same, size, adjoint, uneven, even
    2. What are the rules?    show_rules    written-out, mirror, weights, parameters, grey, fades
    3. What does BN hide?     show_batches  blind, bias, company, alone
    4. Do the rules help?     show_digits   told, fools, judge, fell, nearer, modes, copies, caught
Predict   mlp_times: how many times as far from the data as DCGAN's digits are those of 8.1's GAN?
Run       python phase08_generative/02-dcgan.py                          about a minute
Needs     phase05_cnn/01-convolution-basics, phase08_generative/01-gan-basics
Reference F.conv_transpose2d
Learns    told, fools
Notation  B batch  C, O channels  H W picture  K kernel  S stride  P padding  z noise
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import MultivariateNormal
from torch.optim.lr_scheduler import LinearLR

from common.checks import check, check_close, expect
from common.config import LessonConfig, main, param
from common.data.images import load_images
from common.data.tensors import to_tensors
from common.figures import new_figure, plot_images, save_figure
from common.lessons import load_lesson

convolution = load_lesson("phase05_cnn/01-convolution-basics")
gan = load_lesson("phase08_generative/01-gan-basics")

BATCH = 64
LOOKS = 5  # how often the generated digits are judged in training, not counting the start


@dataclass
class Config(LessonConfig):
    threads = 1
    data: str = param(
        "mnist-5k", "data set", choices=("mnist-5k", "mnist", "digits"), tiny="digits"
    )
    width: int = param(32, "channels at half the size", tiny=8, low=2)
    latent_dim: int = param(64, "numbers z from which G makes a picture", tiny=16)
    steps: int = param(400, "training steps of DCGAN", tiny=5)
    mlp_steps: int = param(1200, "training steps of the networks of 8.1", tiny=5)
    judge_epochs: int = param(10, "passes of the judge over the pictures", tiny=1)


def transposed(x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Transposed convolution. x (B, C, H, W), weight (C, O, K, K) -> (B, O, H', W')"""
    # practice: The transposed convolution
    # S - 1 zeros between neighbours: a window that moves by 1 now moves by 1/S of an input pixel.
    height, width = ((size - 1) * stride + 1 for size in x.shape[2:])
    spread = x.new_zeros(*x.shape[:2], height, width)
    spread[:, :, ::stride, ::stride] = x

    # An input pixel sends weight[i, j] down by i and right by j. The output pixel that receives
    # it looks for it up by i and left by j: the kernel is turned by 180 degrees.
    kernel = weight.flip(dims=(2, 3)).transpose(0, 1)  # (O, C, K, K)
    return F.conv2d(spread, kernel, padding=weight.shape[2] - 1 - padding)
    # end practice


def show_growing(cfg: Config) -> None:
    print("\n[1] A transposed convolution: each input pixel adds a kernel to the output")
    kernel = torch.arange(1.0, 10).double().reshape(1, 1, 3, 3)
    found = transposed(torch.tensor([[[[1.0, 10.0]]]]).double(), kernel, stride=2, padding=0)
    wanted = [[1.0, 2, 13, 20, 30], [4, 5, 46, 50, 60], [7, 8, 79, 80, 90]]
    text = "pixels 1 and 10, kernel 1 to 9, stride 2: where both meet, 3 + 10, 6 + 40 and 9 + 70"
    check_close("by-hand", text, found[0, 0], wanted)

    results = []
    for kernel, stride, padding in [(3, 1, 1), (4, 2, 1), (5, 3, 0), (2, 2, 0), (5, 2, 2)]:
        y = torch.randn(2, 3, 4, 6).double()
        weight = torch.randn(3, 5, kernel, kernel).double()
        ours = transposed(y, weight, stride, padding)
        theirs = F.conv_transpose2d(y, weight, stride=stride, padding=padding)
        size = [(side - 1) * stride + kernel - 2 * padding for side in (4, 6)]

        # The same tensor as the weight of a convolution: 5 channels in, 3 out.
        x = torch.randn_like(ours)
        forward = F.conv2d(x, weight, stride=stride, padding=padding)
        results.append((ours, theirs, size, (forward * y).sum(), (x * ours).sum()))
    ours, theirs, sizes, left, right = zip(*results)
    pair = convolution.flat(ours), convolution.flat(theirs)
    check_close("same", "in 5 settings of K, S and P it equals F.conv_transpose2d", *pair)
    shapes = [list(each.shape[2:]) for each in theirs]
    check_close("size", "n pixels on a side become (n - 1) S + K - 2P", sizes, shapes)
    check_close("adjoint", "conv(x) · y = x · transposed(y): the matrices A and Aᵀ", left, right)

    # Ones count the input pixels that reach an output pixel. At the border some are missing.
    ones = torch.ones(1, 1, 4, 4)
    count = transposed(ones, ones[..., 1:, 1:], stride=2, padding=0)[0, 0, 2:6, 2:6]
    text = "K = 3, S = 2: 4, 2, 4, 2 input pixels reach an output pixel; in the next row 2, 1, 2, 1"
    check_close("uneven", text, count, [[4.0, 2, 4, 2], [2, 1, 2, 1]] * 2)
    count = transposed(ones, ones, stride=2, padding=0)[0, 0, 2:8, 2:8]
    check_close("even", "K = 4, S = 2: 4 reach each, the border aside", count, [[4.0] * 6] * 6)


def init_weights(model: nn.Module) -> None:
    """The initial weights of DCGAN, in place."""
    # practice: The initial weights
    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, mean=1.0, std=0.02)
            nn.init.zeros_(layer.bias)
    # end practice


class Generator(nn.Module):
    """z (B, latent_dim) -> (B, channels, size, size) from -1 to 1, by `doublings` doublings."""

    def __init__(self, latent_dim: int, width=32, channels=1, size=28, doublings=2):
        super().__init__()
        # practice: The generator
        # z is one pixel with many channels; the first kernel is as large as the first picture.
        maps = width * 2 ** (doublings - 1)
        layers = [nn.Unflatten(1, (latent_dim, 1, 1))]
        layers += [nn.ConvTranspose2d(latent_dim, maps, size // 2**doublings, bias=False)]
        layers += [nn.BatchNorm2d(maps), nn.ReLU()]

        # Twice as large, half as many channels. Batch norm has a bias of its own.
        for _ in range(doublings - 1):
            layers += [nn.ConvTranspose2d(maps, maps // 2, 4, stride=2, padding=1, bias=False)]
            maps //= 2
            layers += [nn.BatchNorm2d(maps), nn.ReLU()]

        # No batch norm here: brightness and contrast are for G to choose.
        layers += [nn.ConvTranspose2d(maps, channels, 4, stride=2, padding=1), nn.Tanh()]
        # end practice
        self.layers = nn.Sequential(*layers)
        init_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Discriminator(nn.Module):
    """Pictures (B, channels, size, size) -> logits (B, 1). The size is halved `halvings` times."""

    def __init__(self, width=32, channels=1, size=28, halvings=2):
        super().__init__()
        # practice: The discriminator
        # No batch norm here, so that D sees brightness and contrast; therefore with a bias.
        layers = [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for _ in range(halvings - 1):
            layers += [nn.Conv2d(width, 2 * width, 4, stride=2, padding=1, bias=False)]
            width = 2 * width
            layers += [nn.BatchNorm2d(width), nn.LeakyReLU(0.2)]

        # One window over all that is left makes one number. No sigmoid: the loss takes logits.
        layers += [nn.Conv2d(width, 1, size // 2**halvings), nn.Flatten()]
        # end practice
        self.layers = nn.Sequential(*layers)
        init_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def show_rules(cfg: Config) -> None:
    print("\n[2] Strides, no pooling; batch norm; ReLU and LeakyReLU; weights from N(0, 0.02²)")
    generator = Generator(5, width=4, channels=3, size=12).double()
    discriminator = Discriminator(width=4, channels=3, size=12).double()
    weights = [*generator.parameters(), *discriminator.parameters()]
    for each in weights:
        nn.init.normal_(each)  # biases too, so that none can be left out unseen
    normalized = partial(F.batch_norm, running_mean=None, running_var=None, training=True)
    z = torch.randn(6, 5).double()
    y = transposed(z[:, :, None, None], weights[0], 1, 0)
    y = normalized(y, weight=weights[1], bias=weights[2]).relu()
    y = transposed(y, weights[3], 2, 1)
    y = normalized(y, weight=weights[4], bias=weights[5]).relu()
    x = torch.tanh(transposed(y, weights[6], 2, 1) + weights[7][:, None, None])
    check_close("written-out", "G equals its layers, one by one: 3x3, 6x6, 12x12", generator(z), x)

    y = F.leaky_relu(F.conv2d(x, weights[8], weights[9], 2, 1), 0.2)
    y = normalized(F.conv2d(y, weights[10], None, 2, 1), weight=weights[11], bias=weights[12])
    y = F.conv2d(F.leaky_relu(y, 0.2), *weights[13:])[:, :, 0, 0]
    check_close("mirror", "D equals its layers, one by one: 6x6, 3x3, 1", discriminator(x), y)

    init_weights(generator)
    off = []
    for name, each in generator.named_parameters():
        sd = (each - float(each.ndim == 1)).square().mean().sqrt()  # batch norm's: around 1
        error = (sd / 0.02 - 1) * (2 * each.numel()) ** 0.5  # in standard errors
        off.append(1000 * each.abs().max() if "bias" in name else error.abs())  # a bias: 0
    text = "new weights: the biases are 0, the sds 0.02, within {} standard errors"
    check("weights", text, max(off).item(), at_most=4)

    pair = Generator(64, size=32, doublings=3), Discriminator(size=32, halvings=3)
    counts = [len(nn.utils.parameters_to_vector(each.parameters())) for each in pair]
    text = "at 32x32, G has 295,873 parameters and D 166,817"
    check_close("parameters", text, counts, [295_873, 166_817])

    # Half of the mean square 1 is left by a ReLU, so E y² = 4 · width · 0.02² / 2.
    layers = Generator(cfg.latent_dim, cfg.width, channels=32).layers[:-1]
    z = torch.randn(100, cfg.latent_dim)
    size = layers(z)[..., 2:-2, 2:-2].square().mean().sqrt().detach()
    ratio = size / (0.02 * (2 * cfg.width) ** 0.5)
    text = "a new G before tanh: the root mean square is 0.02 · √(2 · width), times {}"
    check("grey", text, ratio, above=0.8, below=1.25)
    plain = nn.Sequential(*(each for each in layers if not isinstance(each, nn.BatchNorm2d)))
    share = plain(z)[..., 2:-2, 2:-2].square().mean().sqrt().detach() / size
    check("fades", "the same weights without batch norm: {} of that is left", share, at_most=0.1)


def show_batches(cfg: Config) -> None:
    print("\n[3] Batch norm in D: the logit of a picture depends on the batch")
    discriminator = Discriminator(cfg.width).double()
    discriminator.layers[3].eps = 1e-15  # it guards against 0 / 0, and would blur the equality
    real = torch.rand(16, 1, 28, 28).double() * 2 - 1
    pair = discriminator(real / 2), discriminator(real)
    check_close("blind", "all biases 0: a batch at half the contrast has the same logits", *pair)
    nn.init.constant_(discriminator.layers[0].bias, 0.5)
    apart = (discriminator(real / 2) - discriminator(real)).abs().mean().detach()
    check("bias", "with a bias in the first layer the logits differ by {}", apart, above=0.01)
    other = torch.cat([real[:1], real[1:] / 4])
    moved = (discriminator(other)[0] - discriminator(real)[0]).abs().item()
    text = "in train mode the other pictures of the batch move a picture's logit by {}"
    check("company", text, moved, above=0.001)
    discriminator.eval()
    pair = discriminator(other)[:1], discriminator(real[:1])
    check_close("alone", "in eval mode it is the same in any batch, even alone", *pair)


def closer_to_training(pictures: Tensor, train: Tensor, held_out: Tensor) -> float:
    """Share of pictures nearer to training than to held-out ones, as if both were equally many."""
    # practice: Copies
    pictures, train, held_out = (each.flatten(start_dim=1) for each in (pictures, train, held_out))
    to_train = torch.cdist(pictures, train).amin(dim=1)
    to_held_out = torch.cdist(pictures, held_out).amin(dim=1)
    share = (to_train < to_held_out).double().mean().item()
    # Without copying, the nearest of N + M pictures is one of the N in a share N / (N + M).
    ours, theirs = share / len(train), (1 - share) / len(held_out)
    return ours / (ours + theirs)
    # end practice


def learn(players, pictures: Tensor, latent_dim: int, steps: int, rates) -> Iterator[int]:
    """Train G and D at rates that fall to 0. Yields the number of steps done, from 0 on."""
    adams = [gan.adam_for(player, rate) for player, rate in zip(players, rates)]
    falling = [LinearLR(adam, 1, 0, total_iters=steps) for adam in adams]
    for step in range(steps):
        yield step
        batch = pictures[torch.randint(len(pictures), (BATCH,))]
        gan.gan_step(*players, batch, torch.randn(BATCH, latent_dim), *adams)
        for schedule in falling:
            schedule.step()
    yield steps


def show_frozen(real: Tensor) -> None:
    players = Generator(16, 8, size=real.shape[3]), Discriminator(8, size=real.shape[3])
    noise = torch.randn(len(real), 16)
    adams = gan.adam_for(players[0], 0.0), gan.adam_for(players[1], 0.02)
    losses = [gan.gan_step(*players, real, noise, *adams) for _ in range(20)]
    check("told", "16 pictures, G frozen: D's loss falls to {}", losses[-1][0], below=0.05)
    adams = gan.adam_for(players[0], 0.02), gan.adam_for(players[1], 0.0)
    losses = [gan.gan_step(*players, real, noise, *adams) for _ in range(20)]
    check("fools", "D frozen: G's loss falls to {}", losses[-1][1], below=0.05)


def show_digits(cfg: Config, train: tuple, test: tuple) -> dict[str, float]:
    print(f"\n[4] Training on {cfg.data}; distances are those of 8.1's judge")
    real, new = train[0], test[0][:1000]
    size = real.shape[3]
    show_frozen(real[:16])
    judge, accuracy = gan.train_judge(train, test, cfg.judge_epochs, cfg.seed)
    expect("judge", "the judge's accuracy on new digits is {}", accuracy, at_least=0.94)
    reference = gan.features(judge, real)

    torch.manual_seed(cfg.seed)
    noise = torch.randn(len(new), cfg.latent_dim)  # the same at each look
    players = Generator(cfg.latent_dim, cfg.width, size=size), Discriminator(cfg.width, size=size)
    epochs = {}  # what G draws, by the epoch
    moments = [cfg.steps * number // LOOKS for number in range(LOOKS + 1)]
    for step in learn(players, real, cfg.latent_dim, cfg.steps, (2e-3, 2e-3)):
        if step in moments:
            players[0].eval()  # so that no picture depends on the others of its batch
            epochs[step * BATCH / len(real)] = gan.sample(players[0], noise)
            players[0].train()

    # The networks of 8.1. With its rates, 3e-4 and 9e-4, one run ended farther away: 75, not 61.
    layers = [gan.mlp(cfg.latent_dim, size**2), nn.Tanh(), nn.Unflatten(1, (1, size, size))]
    players = nn.Sequential(*layers), nn.Sequential(nn.Flatten(), gan.mlp(size**2, 1))
    for _ in learn(players, real, cfg.latent_dim, cfg.mlp_steps, (1e-3, 1e-3)):
        pass

    sets = {"new": new, "copies": real[: len(new)] + 0.1 * torch.randn(new.shape)}
    flat = real.flatten(start_dim=1)
    cov = flat.T.cov() + 1e-4 * torch.eye(flat.shape[1])
    gaussian = MultivariateNormal(flat.mean(dim=0), cov).sample((len(new),))
    sets |= {"gaussian": gaussian.reshape(new.shape), "mlp": gan.sample(players[0], noise)}
    sets |= {"untrained": epochs[0], "dcgan": list(epochs.values())[-1]}
    found = {"judge": accuracy}
    for name, pictures in sets.items():
        found[name] = gan.frechet_distance(gan.features(judge, pictures), reference)
        named = judge(gan.for_judge(pictures)).argmax(dim=1).bincount(minlength=10)
        found[f"{name}_digits"] = (named >= len(new) / 40).sum().item()
        found[f"{name}_closer"] = closer_to_training(pictures, real, new)
        print(f"  {name:<9}{found[name]:8.2f}, {found[f'{name}_digits']} digits")
    draw_digits(cfg, epochs, sets["mlp"], real)

    found["mlp_times"] = found["mlp"] / found["dcgan"]
    share = found["dcgan"] / found["untrained"]
    expect("fell", "DCGAN's distance falls to {} of the untrained one's", share, at_most=0.2)
    text = "the digits of 8.1's networks are {} times as far from the data as DCGAN's"
    expect("nearer", text, found["mlp_times"], at_least=3)
    expect("modes", "{} digits have 1/4 of a fair share", found["dcgan_digits"], at_least=8)
    text = "of its pictures {} are nearer to a training digit than to any new one"
    expect("copies", text, found["dcgan_closer"], at_most=0.65)
    text = "of planted copies, training digits with a little noise, {} are"
    check("caught", text, found["copies_closer"], at_least=0.95)
    return found


# Pictures and helpers: skip on a first reading


def draw_digits(cfg: Config, epochs: dict[float, Tensor], mlp: Tensor, real: Tensor) -> None:
    rows = {f"DCGAN, epoch {epoch:.1f}": pictures for epoch, pictures in epochs.items()}
    rows |= {f"fully connected, after {cfg.mlp_steps:,} steps": mlp, "real digits": real}
    framed = [F.pad(each[:12, 0], [1] * 4, value=-1) for each in rows.values()]
    figure, axes = new_figure(len(rows), 1, size=(9, 1.15 * len(rows)))
    plot_images(axes, [torch.cat(list(each), dim=1) for each in framed], list(rows))
    save_figure(figure, cfg.out / "digits")


def run(cfg: Config) -> dict[str, float]:
    show_growing(cfg)
    show_rules(cfg)
    show_batches(cfg)
    data = load_images(cfg, split_seed=cfg.seed)
    train = to_tensors(data.x_train, data.y_train, data.brightest)
    test = to_tensors(*data.test(), data.brightest)
    return show_digits(cfg, train, test)


if __name__ == "__main__":
    main(run, Config, __doc__)
