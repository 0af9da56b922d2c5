"""8.7 Diffusion, the code: digits out of noise
扩散模型实现：从噪声中生成数字

You will be able to answer
    1. What predicts ε?  show_unet    first, written-out
    2. Which loss?       show_loss    known, dropped, overfits
    3. How to sample?    show_sample  guided, denoised, same-noise
    4. Are they digits?  show_digits  fell, plain, ddim, ema, asked, better, spread, copies, caught
Predict   ddim_asked: pictures are sampled with a label, no guidance. What share shows the digit?
Run       python phase08_generative/07-diffusion-implementation.py       about a minute
Needs     phase08_generative/01-gan-basics, phase08_generative/05-vae,
          phase08_generative/06-diffusion-theory
Reference -
Learns    overfits
Notation  B batch  C channels  H W picture  T steps  x_0 picture  ε noise  x = a x_0 + b ε
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.checks import check, check_close, expect, overfits
from common.config import LessonConfig, main, param
from common.data.images import load_images
from common.data.tensors import to_tensors
from common.errors import LessonError
from common.lessons import load_lesson

gan = load_lesson("phase08_generative/01-gan-basics")
theory = load_lesson("phase08_generative/06-diffusion-theory")
vae = load_lesson("phase08_generative/05-vae")
NO_LABEL = 10  # stands for "any digit"


@dataclass
class Config(LessonConfig):
    threads = 1
    data: str = param("digits", "data set", choices=("digits",))
    width: int = param(24, "channels at full size, a multiple of 8", tiny=8, low=8)
    noise_steps: int = param(100, "steps T of the chain", tiny=10, low=10)
    ddim_steps: int = param(20, "steps of DDIM, at most noise_steps", tiny=2)
    guidance: float = param(2.0, "strength w of guidance; 1 is none")
    steps: int = param(600, "training steps of 64 pictures", tiny=5)
    judge_epochs: int = param(30, "passes of the judge over the pictures", tiny=1)
    samples: int = param(300, "pictures of each kind that are judged", tiny=20, low=20)


class Block(nn.Module):
    """Two convolutions beside a residual connection. (B, C, H, W) -> (B, outputs, H, W)"""

    def __init__(self, channels: int, outputs: int, context: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(8, channels)  # per picture: no batch statistics (4.7)
        self.conv1 = nn.Conv2d(channels, outputs, 3, padding=1)
        self.shift = nn.Linear(context, outputs)
        self.norm2 = nn.GroupNorm(8, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(channels, outputs, 1)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        # Which digit, how much noise: the same shift at all pixels of a picture.
        y = y + self.shift(context)[:, :, None, None]
        return self.conv2(F.silu(self.norm2(y))) + self.skip(x)


class UNet(nn.Module):
    """Noisy pictures x = a x_0 + b ε (B, 1, H, W), angles, labels (B,) -> the predicted ε.

    a is the cosine of the angle, b its sine: 0 is a clean picture, π/2 pure noise."""

    def __init__(self, width: int):
        super().__init__()
        self.labels = nn.Embedding(NO_LABEL + 1, 4 * width)
        self.angles = nn.Linear(width, 4 * width)
        self.enter = nn.Conv2d(1, width, 3, padding=1)
        self.fine = Block(width, width, 4 * width)
        self.coarse1 = Block(width, 2 * width, 4 * width)
        self.coarse2 = Block(2 * width, 2 * width, 4 * width)
        self.merge = Block(3 * width, width, 4 * width)
        self.norm = nn.GroupNorm(8, width)
        self.exit = nn.Conv2d(width, 1, 3, padding=1, bias=False)
        nn.init.zeros_(self.exit.weight)  # training starts with the prediction 0

    def context(self, angle: Tensor, label: Tensor) -> Tensor:
        """What each block is told about a picture, (B, 4C)."""
        # One number becomes many, at different frequencies (as positions in 7.3).
        frequencies = torch.arange(self.angles.in_features, device=angle.device)
        waves = torch.cos(angle[:, None] * frequencies)  # (B, C)
        return F.silu(self.angles(waves) + self.labels(label))

    def forward(self, x: Tensor, angle: Tensor, label: Tensor) -> Tensor:
        context = self.context(angle, label)
        # practice: Down, across, up
        fine = self.fine(self.enter(x), context)  # (B, C, H, W)

        # At half the size a 3x3 filter sees twice as far.
        y = self.coarse1(F.avg_pool2d(fine, 2), context)  # (B, 2C, H/2, W/2)
        y = self.coarse2(y, context)

        # Up again, beside the maps at full size: the coarse ones have lost the edges.
        y = F.interpolate(y, scale_factor=2)
        y = self.merge(torch.cat([y, fine], dim=1), context)
        # end practice
        return self.exit(F.silu(self.norm(y)))


def show_unet(cfg: Config) -> None:
    print("\n[1] A U-Net: the digit at half the size, its edges at full size")
    model = UNet(cfg.width).double()
    x = torch.randn(5, 1, 8, 8).double()
    angle = torch.linspace(0.1, 1.5, 5).double()
    label = torch.arange(5)
    check_close("first", "untrained it predicts 0", model(x, angle, label), 0 * x)

    nn.init.normal_(model.exit.weight)
    context = model.context(angle, label)
    fine = model.fine(model.enter(x), context)
    small = fine.unflatten(3, (4, 2)).unflatten(2, (4, 2)).mean(dim=(3, 5))
    coarse = model.coarse2(model.coarse1(small, context), context)
    large = coarse.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    y = model.merge(torch.cat([large, fine], dim=1), context)
    wanted = model.exit(F.silu(model.norm(y)))
    check_close("written-out", "2x2 means, up beside the fine maps", model(x, angle, label), wanted)


def diffusion_loss(model: nn.Module, x_0: Tensor, label: Tensor, alpha_bar: Tensor) -> Tensor:
    """Mean squared error of the predicted noise, for steps and noise drawn anew."""
    # practice: The loss
    t = torch.randint(1, len(alpha_bar), (len(x_0), 1, 1, 1))
    a, b = theory.amounts(t, alpha_bar)
    noise = torch.randn_like(x_0)
    x = theory.diffuse(x_0, t, alpha_bar, noise)

    # Sometimes without a label: the same network then also learns to predict for any digit.
    hidden = torch.rand(len(x_0)) < 0.15
    label = torch.where(hidden, NO_LABEL, label)
    predicted = model(x, torch.atan2(b, a).flatten(), label)
    return F.mse_loss(predicted, noise)
    # end practice


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the average's weights a bit towards the model's (exponential moving average, EMA)."""
    for old, new in zip(average.parameters(), model.parameters()):
        old.lerp_(new, 1 - decay)


def show_loss(cfg: Config, pictures: Tensor, labels: Tensor) -> None:
    print("\n[2] The loss: mean squared error of the predicted noise")
    alpha_bar = theory.linear_schedule(100)
    x_0 = torch.randn(64, 1, 8, 8).double()
    loss = diffusion_loss(knowing(x_0), x_0, torch.zeros(64).long(), alpha_bar)
    check_close("known", "a model that knows x_0 has the loss 0", loss, 0 * loss, atol=1e-12)

    loss = diffusion_loss(naming, torch.zeros(40_000, 1, 1, 1), torch.full((40_000,), 3), alpha_bar)
    text = "one that outputs its label: 1 + 0.85 · 3² + 0.15 · 10² = 23.65, by chance {}"
    check("dropped", text, loss, above=22.95, below=24.35)

    def again(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        torch.manual_seed(cfg.seed)  # the same steps and noise each time
        return diffusion_loss(model, *batch, alpha_bar.float())

    model = UNet(8)
    batch = (pictures[:8], labels[:8])
    adam = torch.optim.Adam(model.parameters(), lr=0.01)
    overfits("overfits", "it overfits 8 pictures: loss {}", model, batch, again, adam, steps=25)


def guided_noise(model: nn.Module, x: Tensor, angle: Tensor, label: Tensor, w: float) -> Tensor:
    """Classifier-free guidance: if w > 1, beyond the prediction with the label. (B, 1, H, W)"""
    if not w >= 0:
        raise LessonError(f"the guidance w is {w}; it must be 0 or more. 1 is none, 2 is usual.")
    # practice: Guidance
    asked = model(x, angle, label)
    if w == 1:
        return asked
    anything = model(x, angle, torch.full_like(label, NO_LABEL))
    return anything + w * (asked - anything)
    # end practice


def make_denoiser(model: nn.Module, label: Tensor, w: float) -> Callable:
    """A function denoise(x, a, b) that predicts x_0, as 8.6 wants it."""

    @torch.no_grad()
    def denoise(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        # practice: From the noise to the picture
        angle = torch.atan2(b, a).to(x).expand(len(x))
        noise = guided_noise(model, x, angle, label, w)
        x_0 = (x - b * noise) / a

        # Where a is small, so is every error, magnified; pixels lie between -1 and 1.
        return x_0.clamp(-1, 1)
        # end practice

    return denoise


def ddim(x: Tensor, denoise: Callable, alpha_bar: Tensor, count: int) -> list[Tensor]:
    """DDIM (Song et al. 2021): from noise to picture in `count` steps, with no new noise."""
    last = len(alpha_bar) - 1
    if not 1 <= count <= last:
        raise LessonError(f"DDIM takes 1 to {last} steps through a chain of {last}, not {count}.")
    # practice: Jump back
    path = [x]
    timesteps = torch.linspace(last, 0, count + 1).round().long().tolist()
    for t, earlier in pairwise(timesteps):
        a, b = theory.amounts(t, alpha_bar)
        x_0 = denoise(x, a, b)
        noise = (x - a * x_0) / b

        # The same picture with the same noise, but less of it.
        x = theory.diffuse(x_0, earlier, alpha_bar, noise)
        path.append(x)
    return path
    # end practice


def show_sample(cfg: Config) -> None:
    print("\n[3] Guidance takes the label's difference w times; DDIM keeps x_0 and ε, and jumps")
    three = torch.tensor([3])
    x = torch.zeros(1, 1, 1, 1)
    found = [guided_noise(naming, x, three, three, w).item() for w in (0, 1, 2)]
    check_close("guided", "w = 0, 1, 2: 10, 3, and 10 + 2 · (3 - 10)", found, [10.0, 3.0, -4.0])

    alpha_bar = theory.linear_schedule(100)
    x_0, noise = torch.randn(2, 20, 1, 8, 8).double()
    x = theory.diffuse(x_0, 30, alpha_bar, noise)
    found = make_denoiser(knowing(x_0), torch.zeros(20), 1)(x, *theory.amounts(30, alpha_bar))
    check_close("denoised", "the right noise leads to x_0, clipped", found, x_0.clamp(-1, 1))
    x_0 = x_0.clamp(-1, 1)
    denoise = make_denoiser(knowing(x_0), torch.zeros(20), 1)
    path = ddim(theory.diffuse(x_0, 100, alpha_bar, noise), denoise, alpha_bar, count=20)
    wanted = [theory.diffuse(x_0, t, alpha_bar, noise) for t in range(100, -1, -5)]
    check_close("same-noise", "same x_0 and ε all along", torch.stack(path), torch.stack(wanted))
    ddim(noise, denoise, theory.linear_schedule(cfg.noise_steps), cfg.ddim_steps)  # checks flags


def train(cfg: Config, pictures: Tensor, labels: Tensor) -> tuple[nn.Module, nn.Module]:
    """The network as training leaves it, and the average of its weights."""
    torch.manual_seed(cfg.seed)
    model = UNet(cfg.width)
    average = copy.deepcopy(model)
    alpha_bar = theory.linear_schedule(cfg.noise_steps).float()
    adam = torch.optim.Adam(model.parameters(), lr=3e-3, fused=True)  # faster
    for step in range(cfg.steps):
        chosen = torch.randint(len(pictures), (64,))
        loss = diffusion_loss(model, pictures[chosen], labels[chosen], alpha_bar)
        adam.zero_grad()
        loss.backward()
        adam.step()
        follow(average, model, decay=min(0.99, step / (step + 10)))  # at first, a short memory
    return model, average


def show_digits(cfg: Config, train_set: tuple, test_set: tuple) -> tuple[dict, dict]:
    print("\n[4] Distance to training digits; digits found; share nearer to training than to new")
    model, average = train(cfg, *train_set)
    judge, accuracy = gan.train_judge(train_set, test_set, cfg.judge_epochs, cfg.seed)
    label = torch.arange(cfg.samples) % 10
    start = torch.randn(cfg.samples, 1, 8, 8)
    alpha_bar = theory.linear_schedule(cfg.noise_steps)
    chain = theory.reverse_chain(start, make_denoiser(average, label, 1), alpha_bar)
    paths = {"noise": [start], "ddpm": chain}
    kinds = {"no_average": (model, 1), "ddim": (average, 1)}
    kinds |= {"guided": (average, cfg.guidance), "strong": (average, 2 * cfg.guidance)}
    for name, (network, w) in kinds.items():
        paths[name] = ddim(start, make_denoiser(network, label, w), alpha_bar, cfg.ddim_steps)

    # The baseline with the same labels and no network: a Gaussian of each digit's pixels (8.5).
    rows = vae.gaussian_by_class(train_set[0].flatten(start_dim=1), train_set[1], cfg.samples)
    paths["by_class"] = [rows.reshape(-1, 1, 8, 8)]

    sets = {name: (path[-1], label) for name, path in paths.items()}
    sets["new"] = tuple(part[: cfg.samples] for part in test_set)
    known, known_label = (part[: cfg.samples] for part in train_set)
    sets["copies"] = (known + 0.1 * torch.randn_like(known), known_label)
    found = {"judge": accuracy}
    for name, (pictures, wanted) in sets.items():
        rows = [each.flatten(start_dim=1) for each in (pictures, train_set[0], test_set[0])]
        scores, named = vae.score(name, judge, *rows)
        asked = (named == wanted).double().mean().item()
        means = torch.stack([pictures[wanted == digit].mean(dim=0) for digit in range(10)])
        variance = (pictures - means[wanted]).square().mean().item()
        found |= {**scores, f"{name}_asked": asked, f"{name}_variance": variance}
        print(f"  {'':13}   as asked {asked:.3f}, variance within a digit {variance:.3f}")

    expect("fell", "DDPM's distance is {} of noise's", found["ddpm"] / found["noise"], at_most=0.1)
    expect("plain", "the Gaussians' is {} of DDPM's", found["by_class"] / found["ddpm"], at_most=1)
    expect("ddim", "in fewer steps, DDIM's is {} of it", found["ddim"] / found["ddpm"], at_most=2)
    expect("ema", "unaveraged weights: {} of it", found["no_average"] / found["ddim"], at_least=1)
    share = found["guided_asked"]
    expect("asked", f"with w = {cfg.guidance:g} a share of {{}} is as asked", share, at_least=0.9)
    expect("better", "that is {} more than with w = 1", share - found["ddim_asked"], above=0)
    ratio = found["strong_variance"] / found["ddim_variance"]
    expect("spread", "twice that w leaves {} of the variance of w = 1", ratio, at_most=0.75)
    expect("copies", "nearer to training than to new: {}", found["guided_closer"], at_most=0.75)
    check("caught", "of planted copies it is {}", found["copies_closer"], at_least=0.95)
    return found, paths


# Pictures and helpers: skip on a first reading


def knowing(x_0: Tensor) -> Callable:
    """In place of a network: it knows the pictures, so it knows the noise."""

    def model(x: Tensor, angle: Tensor, label: Tensor) -> Tensor:
        angle = angle[:, None, None, None]
        return (x - angle.cos() * x_0) / angle.sin()

    return model


def naming(x: Tensor, angle: Tensor, label: Tensor) -> Tensor:
    """In place of a network: it outputs the number of its label at all pixels."""
    return label[:, None, None, None].expand_as(x).float()


def draw_digits(cfg: Config, paths: dict[str, list[Tensor]], real: Tensor, label: Tensor) -> None:
    stages = torch.linspace(0, len(paths["ddpm"]) - 1, 10).long()
    rows = [torch.cat([paths["ddpm"][stage][3] for stage in stages])]  # of (10, 8, 8)
    rows += [path[-1][:10, 0] for name, path in paths.items() if name != "noise"]
    rows += [torch.cat([real[label == digit][0] for digit in range(10)])]
    titles = ["DDPM, one run: noise to a 3", "DDPM, asked for 0 to 9", "DDIM, weights not averaged"]
    titles += [f"DDIM, averaged, w = {w:g}" for w in (1, cfg.guidance, 2 * cfg.guidance)]
    vae.draw_rows(cfg, dict(zip([*titles, "No network: Gaussians", "Real"], rows)), "digits")


def run(cfg: Config) -> dict[str, float]:
    data = load_images(cfg, split_seed=cfg.seed)
    train_set = to_tensors(data.x_train, data.y_train, data.brightest)
    test_set = to_tensors(*data.test(), data.brightest)
    show_unet(cfg)
    show_loss(cfg, *train_set)
    show_sample(cfg)
    found, paths = show_digits(cfg, train_set, test_set)
    draw_digits(cfg, paths, *train_set)
    return found


if __name__ == "__main__":
    main(run, Config, __doc__)
