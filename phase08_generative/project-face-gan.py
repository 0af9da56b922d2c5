"""Project 8 Face GAN: faces of nobody, checked for copies
人脸 GAN：不存在的人，并查证没有抄袭

You will be able to answer
    1. How do few faces become many?       show_augment  colours, moved, cut, slope, both
    2. Why average the weights of G?       show_average  closed-form
    3. What lies between two faces?        show_between  by-hand, short
    4. What gives a copy away?             show_copies   apart, judge, as-sklearn, planted, tenth
    5. How good is it?  show_results  told, fools, fell, pixels, features, modes, known, closer
Predict   plain_closer: copies have 1, new faces 0.5. What has G, trained without augmentation?
Run       python phase08_generative/project-face-gan.py        about three minutes
          … --data olivetti    40 people, grey; celeba: photographs; or any folder of pictures
Needs     phase08_generative/01-gan-basics, phase08_generative/02-dcgan,
          phase08_generative/07-diffusion-implementation
Reference sklearn.neighbors.NearestNeighbors
Learns    told, fools
Notation  B batch  C channels  H W picture  z noise  t share of the way
"""

import copy
from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.optim.lr_scheduler import LinearLR

from common import checkpoint
from common.checks import check, check_close, expect, no_leak
from common.config import LessonConfig, main, param
from common.data.batches import Batches
from common.data.faces import MODES, SIDE, FaceSet, draw, load_faces, mode_of, tiled
from common.figures import BLUE, ORANGE, new_figure, plot_images, save_figure
from common.files import atomic_path
from common.lessons import load_lesson, shown
from common.training import fit

gan = load_lesson("phase08_generative/01-gan-basics")
dcgan = load_lesson("phase08_generative/02-dcgan")
diffusion = load_lesson("phase08_generative/07-diffusion-implementation")

ANSWERS = [2, 2, 2, 4]  # glasses, smile, hair, colour: how many there are to choose from
KINDS = ("augmented", "plain")
# Of a set of faces: two feature distances, combinations of labels, copy_ratio twice, 8.2's closer.
MEASURES = ("train", "test", "modes", "pixels", "features", "closer")
Parts = tuple[Tensor, Tensor, Tensor]  # training faces, unseen ones, z from which G is judged
# Training faces at most, and faces held out, where no flag says so.
SIZES = {"generated": (100, 300), "olivetti": (360, 20), "celeba": (20_000, 500)}
# What may differ when a run is resumed.
FREE = ("preset", "device", "data_dir", "out", "resume", "debug", "plain", "samples")


@dataclass
class Config(LessonConfig):
    threads = 1
    data: str = param("generated", "generated, olivetti, celeba, or a folder of pictures")
    faces: int | None = param(None, "training faces at most", low=24)
    held_out: int | None = param(None, "faces for validation, and as many for testing", low=16)
    width: int = param(24, "channels of G and D at half the size", tiny=4, long=48)
    latent_dim: int = param(64, "numbers z from which G makes a face", tiny=8, low=2)
    batch_size: int = param(32, "faces in one step", tiny=8)
    looks: int = param(8, "times that G is judged in training", tiny=2, long=20)
    steps: int = param(150, "steps from one look to the next", tiny=2, long=1000)
    g_rate: float = param(1e-3, "first learning rate of G", long=3e-4)
    d_rate: float = param(1e-3, "first learning rate of D", long=3e-4)
    keep: float = param(0.99, "share of the average's weights that stays in a step", long=0.999)
    plain: bool = param(True, "train without augmentation beside it")
    samples: int = param(500, "faces that G makes for a measurement", tiny=40, low=40)
    judge_faces: int = param(4000, "drawn faces that train the judge", tiny=100)
    judge_epochs: int = param(6, "passes of the judge over them", tiny=1)


# 1. Augmentation


def recolour(x: Tensor, brightness: Tensor, saturation: Tensor, contrast: Tensor) -> Tensor:
    """Pictures (B, 3, H, W), recoloured by a number each: three of (B,).

    First `brightness` is added. Then the distance of each channel from the grey of its pixel (the
    mean of the channels) is multiplied by `saturation`; at last the distance of all from the mean
    of the picture by `contrast`.
    """
    # practice: New colours
    x = x + brightness[:, None, None, None]

    grey = x.mean(dim=1, keepdim=True)
    x = grey + saturation[:, None, None, None] * (x - grey)

    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return mean + contrast[:, None, None, None] * (x - mean)
    # end practice


def move(x: Tensor, moves: Tensor) -> Tensor:
    """Each picture (B, C, H, W) moved in its own way; what comes in from outside is 0.

    moves: (B, 2) whole numbers; by 1, 2 means: what was at row 0, column 0 is at row 1, column 2.
    """
    # practice: Moved
    most = int(moves.abs().max())
    channels, height, width = x.shape[1:]
    padded = F.pad(x, [most, most, most, most])

    # After a move down by 1, row 0 shows what was one row above the picture.
    first_row, first_column = (most - moves).T
    rows = first_row[:, None] + torch.arange(height, device=x.device)  # (B, H)
    columns = first_column[:, None] + torch.arange(width, device=x.device)  # (B, W)

    # gather wants an index with as many axes as the picture has.
    rows = rows[:, None, :, None].expand(-1, channels, -1, padded.shape[3])
    columns = columns[:, None, None, :].expand(-1, channels, height, -1)
    return padded.gather(2, rows).gather(3, columns)
    # end practice


def cut_out(x: Tensor, corners: Tensor, side: int) -> Tensor:
    """A square of each picture (B, C, H, W) becomes 0; what is outside the picture is not cut.

    corners: (B, 2), row and column of the upper left corner, which may be below 0.
    """
    # practice: Cut out
    inside = []
    for size, first in zip(x.shape[2:], corners.T):
        position = torch.arange(size, device=x.device) - first[:, None]  # (B, size)
        inside.append((position >= 0) & (position < side))

    rows, columns = inside
    hidden = rows[:, None, :, None] & columns[:, None, None, :]  # (B, 1, H, W)
    return x.masked_fill(hidden, 0.0)
    # end practice


class Augment(nn.Module):
    """DiffAugment (Zhao et al. 2020): each picture that D sees is changed in a random way."""

    def forward(self, x: Tensor) -> Tensor:
        draws = torch.rand(7, len(x), device=x.device)
        brightness, saturation, contrast = draws[:3]
        x = recolour(x, brightness - 0.5, 2 * saturation, contrast + 0.5)

        # By an eighth of the picture at most; then a square of half its side is hidden.
        eighth = x.shape[3] // 8
        x = move(x, ((2 * eighth + 1) * draws[3:5].T).long() - eighth)
        half = x.shape[3] // 2
        middles = ((x.shape[3] + 1) * draws[5:].T).long()
        return cut_out(x, middles - half // 2, half)


def make_players(cfg: Config, augment: bool) -> tuple[nn.Module, nn.Module]:
    """G, and D with what stands in front of it: for real faces and G's, in both their steps."""
    shape = {"width": cfg.width, "channels": 3, "size": SIDE}
    generator = dcgan.Generator(cfg.latent_dim, doublings=3, **shape)
    discriminator = dcgan.Discriminator(halvings=3, **shape)
    first = Augment() if augment else nn.Identity()
    players = (generator, nn.Sequential(first, discriminator))
    return tuple(player.to(cfg.torch_device()) for player in players)


def show_augment(cfg: Config, x: Tensor) -> None:
    print("\n[1] What D sees is changed at random, and gradients flow through the change")
    pixels = torch.tensor([[0.6, 0, 0], [0, 0, 0]]).double()  # a red pixel, a black one
    found = recolour(pixels.T[None, :, None], *torch.tensor([[0.1], [2], [0.5]]).double())
    text = "red 0.6 beside black, 0.1 brighter, twice the colour, half the contrast"
    check_close("colours", text, found[0, :, 0].T, [[0.65, 0.05, 0.05], [0.15, 0.15, 0.15]])

    x = x[:24].double()
    moves = torch.randint(-4, 5, (24, 2))
    corners = torch.randint(-8, 25, (24, 2))
    moved = torch.zeros_like(x)
    cut = x.clone()
    for number, picture in enumerate(x):
        down, right = moves[number].tolist()
        kept = picture[:, max(0, -down) : SIDE - max(0, down)]
        kept = kept[:, :, max(0, -right) : SIDE - max(0, right)]
        top, left = max(0, down), max(0, right)
        moved[number, :, top : top + kept.shape[1], left : left + kept.shape[2]] = kept
        top, left = corners[number].tolist()
        cut[number, :, max(0, top) : max(0, top + 16), max(0, left) : max(0, left + 16)] = 0
    check_close("moved", "24 faces at once are moved as one by one", move(x, moves), moved)
    text = "and squares of 16 x 16, partly outside, are cut out as one by one"
    check_close("cut", text, cut_out(x, corners, 16), cut)

    generator, discriminator = make_players(cfg, augment=True)
    seen = []
    discriminator[1].register_forward_pre_hook(lambda model, inputs: seen.append(inputs[0]))
    players = generator.double(), discriminator.double()
    adams = [gan.adam_for(player, 0.0) for player in players]
    x = x.to(cfg.torch_device())
    gan.gan_step(*players, x, torch.randn(24, cfg.latent_dim).to(x), *adams)
    least = min((pictures == 0).double().mean() for pictures in seen)
    text = f"in a step D sees {len(seen)} batches, real and made; a share of {{}} or more is hidden"
    check("both", text, least, at_least=0.1)

    x.requires_grad_()
    weights, direction = torch.randn(2, *x.shape).to(x)

    def loss_at(share: float) -> Tensor:
        torch.manual_seed(cfg.seed)  # the same change each time
        return (weights * discriminator[0](x + share * direction)).square().sum()

    slope = torch.autograd.grad(loss_at(0.0), x)[0]
    measured = (loss_at(1e-3) - loss_at(-1e-3)) / 2e-3
    text = "a loss behind the change: its gradient by the faces is the measured slope"
    check_close("slope", text, (slope * direction).sum(), measured)


# 2. The average


def follow(average: nn.Module, model: nn.Module, keep: float) -> None:
    """average = keep · average + (1 - keep) · model; for batch norms' running numbers too."""
    # practice: The moving average
    diffusion.follow(average, model, keep)
    for ours, theirs in zip(average.buffers(), model.buffers()):
        # A count of batches is no weight.
        if theirs.is_floating_point():
            ours.lerp_(theirs, 1 - keep)
    # end practice


def show_average(cfg: Config) -> None:
    print("\n[2] An average follows G's weights: the last 1 / (1 - keep) steps count most")
    average = nn.BatchNorm1d(3).double()
    model = copy.deepcopy(average)
    wanted = 0.8**5 * torch.cat([average.weight.detach(), average.running_mean])
    for step in range(1, 6):
        nn.init.normal_(model.weight)
        model.running_mean.normal_()
        now = torch.cat([model.weight.detach(), model.running_mean])
        wanted += 0.2 * 0.8 ** (5 - step) * now
        follow(average, model, keep=0.8)
    found = torch.cat([average.weight, average.running_mean])
    text = "after 5 steps: 0.8⁵ · first + 0.2 · Σ 0.8^(5 - k) · k-th, a running mean too"
    check_close("closed-form", text, found, wanted)


# 3. Between two faces


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """From a (…, Z) at t = 0 to b at t = 1: the direction turns evenly, the norm grows evenly.

    t: (…, 1). Between directions with the angle ω it is (sin((1 - t)ω) a + sin(tω) b) / sin ω.
    """
    # practice: The way between
    norm_a = a.norm(dim=-1, keepdim=True)
    norm_b = b.norm(dim=-1, keepdim=True)
    a = a / norm_a
    b = b / norm_b

    angle = (a * b).sum(dim=-1, keepdim=True).clamp(-1, 1).acos()
    direction = (((1 - t) * angle).sin() * a + (t * angle).sin() * b) / angle.sin()
    return direction * torch.lerp(norm_a, norm_b, t)
    # end practice


def show_between(cfg: Config) -> None:
    print("\n[3] From one z to another: on the sphere, not through it")
    ends = torch.tensor([[3.0, 0], [0, 6.0]]).double()
    found = slerp(*ends, torch.tensor([[0.0], [1 / 3], [1.0]]).double())
    text = "from (3, 0) to (0, 6), a third of the way: 30° on, norm 4, that is (3.4641, 2)"
    check_close("by-hand", text, found, [[3, 0], [12**0.5, 2], [0, 6]])

    a, b = torch.randn(2, 2000, 64).double()
    middle = ((a + b) / 2).norm(dim=1).mean() / a.norm(dim=1).mean()
    text = "half-way on the straight line: {} of the norm; as short is 1 of 3,600 random z"
    check("short", text, middle, above=0.69, below=0.73)


# 4. Copies


class Judge(nn.Module):
    """Says glasses, smile, hair and colour of a face. (B, 3, 32, 32) -> (B, 10) logits"""

    def __init__(self):
        super().__init__()
        layers = []
        for inputs, width in ((3, 16), (16, 32), (32, 48)):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        layers += [nn.Flatten(), nn.Linear(48 * (SIDE // 8) ** 2, 64), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.output = nn.Linear(64, sum(ANSWERS))

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.features(x))


def judge_loss(judge: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The sum of four cross entropies."""
    x, labels = batch
    logits = judge(x).split(ANSWERS, dim=1)
    return sum(F.cross_entropy(each, label) for each, label in zip(logits, labels.T))


def train_judge(cfg: Config) -> nn.Module:
    """From faces of its own: those of G's training would look more familiar than held-out ones."""
    faces = draw(cfg.judge_faces, (cfg.seed, 9))
    torch.manual_seed(cfg.seed)
    judge = Judge().to(cfg.torch_device())
    labels = torch.from_numpy(faces.labels)
    batches = Batches(faces.pictures(), labels, batch_size=50, shuffle=True, seed=cfg.seed)
    adam = torch.optim.Adam(judge.parameters(), lr=2e-3)
    fit(judge, batches, adam, judge_loss, epochs=cfg.judge_epochs, quiet=True)
    return judge.eval()


@torch.no_grad()
def read_modes(judge: nn.Module, x: Tensor) -> Tensor:
    """Which of the 32 combinations of labels the judge sees: (n,)"""
    logits = judge(x).split(ANSWERS, dim=1)
    labels = torch.stack([each.argmax(dim=1) for each in logits], dim=1)
    return torch.from_numpy(mode_of(labels.cpu().numpy()))


def nearest_distances(pictures: Tensor, others: Tensor) -> Tensor:
    """How far each row (n, K) is from the nearest of the others (m, K). 500 at a time. (n,)"""
    # practice: The nearest
    found = []
    for part in pictures.split(500):
        distances = torch.cdist(part, others, compute_mode="donot_use_mm_for_euclid_dist")
        found.append(distances.min(dim=1).values)
    return torch.cat(found)
    # end practice


def copy_ratio(made: Tensor, train: Tensor, held_out: Tensor) -> float:
    """5th percentile of the distances to training rows: of the made ones over the held-out ones.

    Far below 1: some of the made ones lie nearer to a training face than real ones do. It finds
    sharp copies, in 1 of 20 or more: noise of 0.2, or a blur in features, hides a copy.
    """
    fifths = [nearest_distances(rows, train).quantile(0.05) for rows in (made, held_out)]
    return (fifths[0] / fifths[1]).item()


@torch.no_grad()
def show_copies(cfg: Config, judge: nn.Module, faces: FaceSet) -> dict[str, float]:
    print("\n[4] The nearest training face of each face, in pixels and in the judge's features")
    no_leak("apart", "no face stands in two parts", *faces.fingerprints())
    drawn = draw(cfg.samples, (cfg.seed, 8))
    read = read_modes(judge, drawn.pictures().to(cfg.torch_device()))
    right = read == torch.from_numpy(mode_of(drawn.labels))
    metrics = {"judge": right.double().mean().item()}
    text = "of new drawn faces the judge reads all four labels rightly: {}"
    expect("judge", text, metrics["judge"], at_least=0.9)

    from sklearn.neighbors import NearestNeighbors

    x, val = (part.pictures().to(cfg.torch_device()) for part in (faces.train, faces.val))
    rows, others = (part[:400].flatten(1).cpu().double() for part in (val, x))
    theirs, _ = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(others).kneighbors(rows)
    text = "distances to the nearest are those of scikit-learn's brute force"
    check_close("as-sklearn", text, nearest_distances(rows, others), theirs[:, 0], rtol=1e-6)

    # A copy is never exact: a little noise on it.
    planted = val.clone()
    planted[7] = x[3] + 0.02 * torch.randn_like(x[3])
    gaps = nearest_distances(planted.flatten(1), x.flatten(1))
    ordered = gaps.sort().values
    ratio = ordered[1] / ordered[0] * (gaps.argmin() == 7)
    text = "a copy is planted: its distance is the least of all, the next one is {} times that"
    check("planted", text, ratio, at_least=1.2)

    tenth = val.clone()
    tenth[::10] = x[torch.arange(0, len(val), 10) % len(x)] + 0.02 * torch.randn_like(tenth[::10])
    for name, see in (("pixels", nn.Flatten()), ("features", judge.features)):
        metrics[f"planted_{name}"] = copy_ratio(see(tenth), see(x), see(val))
    text = "every tenth is a copy: the 5th percentile falls to {} of what it is, or less"
    most = max(metrics["planted_pixels"], metrics["planted_features"])
    check("tenth", text, most, at_most=0.7)
    return metrics


# 5. Training and results


@torch.no_grad()
def measure(cfg: Config, judge: nn.Module, parts: Parts, average, discriminator) -> dict:
    """How far G's faces are from the training faces, and how far D overfits to those."""
    x, val, noise = parts
    pictures = average(noise)
    features = judge.features(pictures)
    now = {"distance": gan.frechet_distance(features, judge.features(x))}
    now["to_val"] = gan.frechet_distance(features, judge.features(val))

    # Of real faces that D has never seen it should say what it says of those that it has.
    discriminator.eval()
    logits = [discriminator[1](each).mean().item() for each in (x[: len(val)], val, pictures)]
    discriminator.train()
    seen, unseen, made = logits
    known = (seen - unseen) / max(seen - made, 0.1)
    return now | {"seen": seen, "unseen": unseen, "made": made, "known": known}


def train(cfg: Config, judge: nn.Module, parts: Parts, name: str) -> tuple[nn.Module, list[dict]]:
    """The average of G's weights, and a row of numbers for each look.

    Each look is saved; after a kill, --resume goes on with the next.
    """
    torch.manual_seed(cfg.seed)
    generator, discriminator = make_players(cfg, augment=name == "augmented")
    average = copy.deepcopy(generator).eval()
    adams = gan.adam_for(generator, cfg.g_rate), gan.adam_for(discriminator, cfg.d_rate)

    kept = {name: value for name, value in asdict(cfg).items() if name not in FREE}
    members = {"generator": generator, "discriminator": discriminator, "average": average}
    # Both rates fall to 0, so that the two settle, as in 8.1.
    falling = [LinearLR(adam, 1, 0, total_iters=cfg.looks * cfg.steps) for adam in adams]
    members |= {"g_adam": adams[0], "d_adam": adams[1], "g_rate": falling[0], "d_rate": falling[1]}
    path = cfg.out / f"training-{name}.pt"
    saved = checkpoint.Checkpoint(path, resume=cfg.resume, settings=kept, **members)
    history = saved.restore()
    if not history:
        history = [{"step": 0} | measure(cfg, judge, parts, average, discriminator)]
    for number in range(len(history), cfg.looks + 1):
        for step in range((number - 1) * cfg.steps, number * cfg.steps):
            batch = parts[0][torch.randint(len(parts[0]), (cfg.batch_size,))]
            noise = torch.randn(cfg.batch_size, cfg.latent_dim, device=batch.device)
            gan.gan_step(generator, discriminator, batch, noise, *adams)
            for schedule in falling:
                schedule.step()
            # At first a short memory: the weights that training begins with are worth nothing.
            follow(average, generator, min(cfg.keep, step / (step + 10)))

        now = measure(cfg, judge, parts, average, discriminator)
        history.append({"step": number * cfg.steps} | now)
        row = "  ".join(f"{key} {value:<7.4g}" for key, value in history[-1].items())
        print(f"    {row}", flush=True)
        saved.save(history)
    return average, history


def show_players(cfg: Config, x: Tensor) -> None:
    players = make_players(cfg, augment=False)
    noise = torch.randn(8, cfg.latent_dim, device=x.device)
    adams = gan.adam_for(players[0], 0.0), gan.adam_for(players[1], 0.005)
    losses = [gan.gan_step(*players, x[:8], noise, *adams) for _ in range(20)]
    check("told", "G frozen, one batch: D's loss falls to {}", losses[-1][0], below=0.05)
    adams = gan.adam_for(players[0], 0.01), gan.adam_for(players[1], 0.0)
    losses = [gan.gan_step(*players, x[:8], noise, *adams) for _ in range(20)]
    check("fools", "D frozen: G's loss falls to {}", losses[-1][1], below=0.05)


def show_results(cfg: Config, judge: nn.Module, faces: FaceSet) -> tuple[dict, dict, dict]:
    print("\n[5] Training; then the test faces, once")
    x, val = (part.pictures().to(cfg.torch_device()) for part in (faces.train, faces.val))
    show_players(cfg, x)
    sets = {"real": val, "gaussian": gaussian_faces(x, cfg.samples)}
    noise = torch.randn(cfg.samples, cfg.latent_dim, device=x.device)
    curves = {}
    for name in KINDS if cfg.plain else KINDS[:1]:
        print(f"  {name}")
        average, curves[name] = train(cfg, judge, (x, val, noise), name)
        sets[name] = gan.sample(average, noise)
        if name == "augmented":
            save(cfg, average)
    metrics = compare(judge, sets, x, faces.test().pictures().to(x.device))

    metrics["untrained"] = curves["augmented"][0]["distance"]
    fell = metrics["augmented_train"] / metrics["untrained"]
    expect("fell", "the feature distance falls to {} of what it was", fell, at_most=0.2)
    least = 0.9 if cfg.data == "generated" else 0.5  # 20 faces make a poor percentile
    text = "5th percentile of distances to training faces: {} of that of unseen real faces"
    expect("pixels", text, metrics["augmented_pixels"], at_least=least)
    expect("features", "and in features {} of it", metrics["augmented_features"], at_least=least)
    if cfg.data == "generated":
        count = metrics["augmented_modes"]
        expect("modes", "{} of 32 combinations of labels appear", count, at_least=8)
    for name, history in curves.items():
        metrics[f"{name}_curve"] = [row["distance"] for row in history]
        metrics[f"{name}_known"] = np.mean([row["known"] for row in history[len(history) // 2 :]])
    if cfg.plain and cfg.data == "generated" and len(x) <= 100:
        more = metrics["plain_known"] - metrics["augmented_known"]
        text = "(seen - unseen) / (seen - made), of D's mean logits: {} more without augmentation"
        expect("known", text, more, at_least=0.1)
        text = "without, G's faces lean towards training faces: {}; up to 0.6 may be chance"
        expect("closer", text, metrics["plain_closer"], at_least=0.62)
    return metrics, sets, curves


# Pictures and helpers: skip on a first reading


def gaussian_faces(x: Tensor, n: int) -> Tensor:
    """n samples of the Gaussian with the mean and all covariances of the pixels."""
    rows = x.flatten(1)
    apart = (rows - rows.mean(dim=0)) / (len(rows) - 1) ** 0.5
    samples = rows.mean(dim=0) + torch.randn(n, len(rows), device=x.device) @ apart
    return samples.clamp(-1, 1).view(n, *x.shape[1:])


@torch.no_grad()
def compare(judge: nn.Module, sets: dict[str, Tensor], x: Tensor, test: Tensor) -> dict:
    """Print and return MEASURES of each set: how far, how varied, how near to training faces."""
    print("    faces     " + "".join(f"{kind:>9}" for kind in MEASURES))
    found = {}
    for name, pictures in sets.items():
        features = judge.features(pictures)
        numbers = [gan.frechet_distance(features, judge.features(each)) for each in (x, test)]
        counts = read_modes(judge, pictures).bincount(minlength=MODES)
        numbers.append((counts >= len(pictures) / MODES / 4).sum().item())
        for see in (nn.Flatten(), judge.features):
            numbers.append(copy_ratio(see(pictures), see(x), see(test)))
        numbers.append(dcgan.closer_to_training(pictures, x, test))
        print(f"    {name:<10}" + "".join(f"{number:9.4g}" for number in numbers))
        found |= {f"{name}_{kind}": number for kind, number in zip(MEASURES, numbers)}
    return found


def save(cfg: Config, average: nn.Module) -> None:
    """The model; a film of six faces on the way through five z and back; a figure of 4 ways."""
    checkpoint.save(cfg.out / "generator.pt", average.state_dict())
    stops = torch.randn(5, 6, cfg.latent_dim, device=cfg.torch_device())
    share = torch.arange(12, device=stops.device)[:, None, None] / 12
    way = torch.cat([slerp(stops[i - 1], stops[i], share) for i in range(5)])  # (60, 6, Z)
    film = gan.sample(average, way.flatten(0, 1)).unflatten(0, (60, 6))

    frames = [Image.fromarray(tiled(faces, columns=6)).resize((768, 128)) for faces in film]
    with atomic_path(cfg.out / "between.gif") as path:
        frames[0].save(path, "GIF", save_all=True, append_images=frames[1:], duration=80, loop=0)
    print(f"  film: {shown(cfg.out / 'between.gif')}")

    figure, axis = new_figure(size=(10, 3))
    # Of the film's 30 ways (30, 13, C, H, W) the 4 with the sharpest ends: a blur shows no change.
    ways = torch.cat([film, film[:1]]).unfold(0, 13, 12).movedim(-1, 2).flatten(0, 1)
    ends = ways[:, [0, -1]]
    down = ends.diff(dim=-2).abs().mean(dim=(2, 3, 4))
    right = ends.diff(dim=-1).abs().mean(dim=(2, 3, 4))
    sharpness = (down + right).amin(dim=1)  # of the less sharp end
    strips = tiled(ways[sharpness.topk(4).indices].flatten(0, 1), columns=13)
    plot_images(axis, [strips], ["From one z to the next: of 30 ways the 4 with the sharpest ends"])
    save_figure(figure, cfg.out / "between")


def draw_faces(cfg: Config, sets: dict[str, Tensor], metrics: dict[str, float]) -> None:
    titles = {"augmented": "G with augmentation", "plain": "G without augmentation"}
    titles |= {"gaussian": "a Gaussian of pixels", "real": "real faces, unseen"}
    named = {title: name for name, title in titles.items() if name in sets}
    figure, axes = new_figure(len(named), 1, size=(10, 1.6 * len(named)))
    grids = [tiled(sets[name][:32], columns=16) for name in named.values()]
    distances = [metrics[f"{name}_train"] for name in named.values()]
    texts = [f"{t}: feature distance from training faces {d:.0f}" for t, d in zip(named, distances)]
    plot_images(axes, grids, texts)
    save_figure(figure, cfg.out / "faces")


def draw_quality(cfg: Config, curves: dict[str, list[dict]]) -> None:
    figure, (left, right) = new_figure(1, 2, size=(11, 4.4))
    for (name, history), colour in zip(curves.items(), (BLUE, ORANGE)):
        kind = "with augmentation" if name == "augmented" else "without"
        steps = [row["step"] for row in history]
        for key, line, what in (("distance", "-", "training"), ("to_val", ":", "unseen")):
            label = f"{kind}, from {what} faces"
            left.plot(steps, [row[key] for row in history], line, color=colour, label=label)
        right.plot(steps, [row["known"] for row in history], "o-", color=colour, label=kind)
    left.set(yscale="log", xlabel="step", ylabel="feature distance", title="Distance of G's faces")
    right.set(xlabel="step", ylabel="0: as training faces, 1: as made faces")
    right.set_title("D's mean logit of unseen real faces")
    left.legend(fontsize=9)
    right.legend()
    save_figure(figure, cfg.out / "quality")


def draw_nearest(cfg: Config, sets: dict[str, Tensor], x: Tensor) -> None:
    """Of each G the faces that look most like a training face, and that face below each."""
    strips = {}
    for name in [kind for kind in KINDS if kind in sets]:
        made = sets[name]
        distances = torch.cdist(made.flatten(1), x.flatten(1)).min(dim=1)
        closest = distances.values.argsort()[:12]
        pairs = torch.cat([made[closest], x[distances.indices[closest]]])
        title = f"G, {name}: its 12 faces of {len(made)} with the nearest training faces (below)"
        strips[title] = tiled(pairs, columns=12)
    figure, axes = new_figure(len(strips), 1, size=(10, 2 * len(strips)))
    plot_images(axes, list(strips.values()), list(strips))
    save_figure(figure, cfg.out / "nearest")


def run(cfg: Config) -> dict:
    most, held_out = SIZES.get(cfg.data, (20_000, 20))  # a folder
    cfg.faces = cfg.faces or most
    cfg.held_out = cfg.held_out or held_out
    faces = load_faces(cfg, cfg.data, cfg.faces, cfg.held_out, cfg.seed)
    show_augment(cfg, faces.train.pictures())
    show_average(cfg)
    show_between(cfg)
    judge = train_judge(cfg)
    planted = show_copies(cfg, judge, faces)
    metrics, sets, curves = show_results(cfg, judge, faces)
    draw_faces(cfg, sets, metrics)
    draw_quality(cfg, curves)
    draw_nearest(cfg, sets, faces.train.pictures().to(cfg.torch_device()))
    return metrics | planted


if __name__ == "__main__":
    main(run, Config, __doc__)
