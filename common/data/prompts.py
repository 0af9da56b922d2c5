"""Pictures of one shape with their captions as tokens, and a judge that says what is in a picture.

24x24 pixels, five shapes and six colours by the recipe of `shapes`, so 30 prompts: "a red star".
Six of these pairs, one of each colour, are kept out of a generator's training (`is_unseen`).
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LinearLR

from common.checkpoint import Checkpoint, load
from common.config import LessonConfig
from common.data.batches import Batches
from common.data.shapes import COLOURS, KINDS, Recipe, draw
from common.data.words import PAD
from common.errors import LessonError
from common.figures import new_figure, plot_images, save_figure
from common.record import current
from common.training import fit

SIDE = 24
RECIPE = Recipe(SIDE, kinds=5, size=(0.7, 0.9), tilt=10.0, noise=4.0)
PAIRS = 30
LENGTH = 5  # tokens of a prompt, the padding included
EMPTY = 10  # no prompt; lesson 8.7 asks with this number for any picture
WORDS = ("", "a", *COLOURS, *KINDS[:2], "", *KINDS[2:5])  # their numbers; 0 is PAD, 10 is EMPTY


@dataclass
class Pictures:
    """x (n, 3, 24, 24) from -1 to 1, tokens (n, S), the numbers of shape and colour (n,)."""

    x: Tensor
    tokens: Tensor
    kinds: Tensor
    colours: Tensor

    def __len__(self) -> int:
        return len(self.kinds)

    def only(self, chosen: Tensor) -> "Pictures":
        return Pictures(*(getattr(self, field.name)[chosen] for field in fields(self)))


def encode(prompt: str) -> list[int]:
    """The numbers of its words, then padding. Raises LessonError for what nobody trained on."""
    words = prompt.lower().split()
    known = [word for word in WORDS if word]
    if not words:
        raise LessonError("The prompt is empty. Write one as “a red circle”.")
    if len(words) > LENGTH:
        raise LessonError(f"The prompt has {len(words)} words; at most {LENGTH} are read.")
    for word in words:
        if word not in known:
            raise LessonError(f"The model never saw “{word}”. Its words: {', '.join(known)}.")
    return [WORDS.index(word) for word in words] + [PAD] * (LENGTH - len(words))


def prompt_of(kind: int, colour: int) -> str:
    return f"a {list(COLOURS)[colour]} {KINDS[kind]}"


def is_unseen(pictures: Pictures) -> Tensor:
    """(n,) True for the six pairs that are kept out of training."""
    return (pictures.kinds + 2 * pictures.colours) % 5 == 0


def all_prompts(each: int) -> Pictures:
    """The 30 prompts in turn, `each` times. There are no pictures yet: x is the prompt's number."""
    number = torch.arange(PAIRS * each) % PAIRS
    kinds = number % 5
    colours = number // 5
    tokens = [encode(prompt_of(k, c)) for k, c in zip(kinds.tolist(), colours.tolist())]
    return Pictures(number, torch.tensor(tokens), kinds, colours)


def load_prompts(cfg: LessonConfig, n: int, tests: int) -> tuple[Pictures, Pictures, Pictures]:
    """To train a generator, n without the unseen pairs; n with all, for the judge; new ones."""
    current().use_data("shapes", f"{2 * n + tests:,} pictures drawn with seed {cfg.seed}")
    real, others, new = (_draw((cfg.seed, part), size) for part, size in enumerate((n, n, tests)))
    return real.only(~is_unseen(real)), others, new


def _draw(seed: tuple[int, int], n: int) -> Pictures:
    scenes = draw(n, RECIPE, seed)
    x = torch.from_numpy(scenes.x).permute(0, 3, 1, 2).contiguous() / 127.5 - 1
    tokens = torch.tensor([encode(caption) for caption in scenes.captions()])
    kinds, colours = (torch.from_numpy(part[:, 0]) for part in (scenes.labels, scenes.colours))
    return Pictures(x, tokens, kinds, colours)


class Judge(nn.Module):
    """Pictures (B, 3, 24, 24) -> logits of the shape (B, 5) and of the colour (B, 6)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.PixelUnshuffle(2)]
        for channels, outputs in ((12, 24), (24, 48)):
            layers += [conv(channels, outputs), nn.BatchNorm2d(outputs)]
            layers += [nn.ReLU(), nn.MaxPool2d(2)]
        self.trunk = nn.Sequential(*layers, nn.Flatten(), nn.Linear(48 * 9, 64), nn.ReLU())
        self.head = nn.Linear(64, 5 + len(COLOURS))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        shape, colour = self.head(self.trunk(x)).split([5, len(COLOURS)], dim=1)
        return shape, colour

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        return self.trunk(x)

    @torch.no_grad()
    def agrees(self, x: Tensor, asked: Pictures) -> tuple[Tensor, Tensor, Tensor]:
        """(n,) each: is the shape as asked, the colour, are both?"""
        shape, colour = (logits.argmax(dim=1) for logits in self(x))
        shape, colour = shape == asked.kinds, colour == asked.colours
        return shape, colour, shape & colour

    def shares(self, name: str, x: Tensor, asked: Pictures) -> dict[str, float]:
        """How often each is as asked, printed, and under the names shape_…, colour_…, both_…"""
        found = {}
        for kind, right in zip(("shape", "colour", "both"), self.agrees(x, asked)):
            found[f"{kind}_{name}"] = right.double().mean().item()
        numbers = ", ".join(f"{key.split('_')[0]} {share:.3f}" for key, share in found.items())
        print(f"  {name:<8} {numbers}")
        return found


def _judge_loss(judge: Judge, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    x, kinds, colours = batch
    shape, colour = judge(x)
    return F.cross_entropy(shape, kinds) + F.cross_entropy(colour, colours)


def conv(channels: int, outputs: int, bias: bool = True) -> nn.Conv2d:
    """3x3, and the map keeps its size."""
    return nn.Conv2d(channels, outputs, 3, padding=1, bias=bias)


def train_judge(cfg: LessonConfig, pictures: Pictures, epochs: int) -> Judge:
    torch.manual_seed(cfg.seed)
    judge = Judge()
    parts = (pictures.x, pictures.kinds, pictures.colours)
    return train(cfg, "judge", judge, parts, _judge_loss, epochs)


def train(
    cfg: LessonConfig,
    name: str,
    model: nn.Module,
    tensors: tuple[Tensor, ...],
    loss_fn: Callable,
    epochs: int,
) -> nn.Module:
    """With a falling rate. It is saved after each pass, so that --resume goes on from there."""
    batches = Batches(*tensors, batch_size=32, shuffle=True, seed=cfg.seed)
    adam = torch.optim.Adam(model.parameters(), lr=3e-3, betas=(0.9, 0.99), fused=True)
    falling = LinearLR(adam, 1, 0.02, total_iters=epochs * len(batches))
    size = sum(weight.numel() for weight in model.parameters())
    settings = {"seed": cfg.seed, "pictures": len(tensors[0]), "epochs": epochs, "width": size}
    parts = {"model": model, "adam": adam, "falling": falling, "batches": batches}
    path = cfg.out / f"{name}.pt"
    saved = Checkpoint(path, resume=cfg.resume, settings=settings, **parts)
    options = {"scheduler": falling, "checkpoint": saved, "quiet": cfg.preset != "long"}
    fit(model, batches, adam, loss_fn, epochs=epochs, **options)
    return model.eval()


def draw_rows(path: Path, rows: dict[str, Tensor]) -> None:
    """A figure with a row of pictures (n, 3, 24, 24) for each title."""
    columns = len(next(iter(rows.values())))
    size = (columns + 0.4, 1.35 * len(rows))
    figure, axes = new_figure(len(rows), columns, size=size, squeeze=False)
    images = (torch.cat(list(rows.values())) + 1) / 2
    plot_images(axes, list(images.permute(0, 2, 3, 1).numpy()))
    for row, title in zip(axes, rows):
        for axis in row:
            axis.set_title(" ")  # the layout keeps the room of a line free in all columns alike
        text = row[0].text(0, 1.08, title, transform=row[0].transAxes, fontweight="bold")
        text.set_in_layout(False)  # it may reach over the other columns
    save_figure(figure, path)


def draw_prompts(file: Path, path: list[Tensor], plain: Tensor, real: Pictures) -> None:
    """path: all prompts' pictures at each step of sampling, with guidance; plain: without.

    One picture from noise on, six prompts, then red stars without guidance, and real ones.
    """
    columns = min(8, len(path[0]) // PAIRS)
    stages = torch.linspace(0, len(path) - 1, columns).long()
    first = f"a blue ring: {columns} stages of {len(path) - 1} steps from noise to picture"
    rows = {first: torch.stack([path[stage][24] for stage in stages])}
    asked = all_prompts(1)
    for number in (3, 26, 12, 0, 8, 22):
        title = prompt_of(number % 5, number // 5)
        title += " (never trained on)" if is_unseen(asked)[number] else ""
        rows[title] = path[-1][number::PAIRS][:columns]
    rows["a red star, without guidance"] = plain[3::PAIRS][:columns]
    is_red_star = (real.kinds == 3) & (real.colours == 0)
    rows["a red star: real pictures"] = real.x[is_red_star][:columns]
    draw_rows(file, rows)


def load_weights(path: Path) -> dict[str, Tensor]:
    """Of what `train` saved, after each pass."""
    if not path.exists():
        raise LessonError(f"{path} is not there. Train first: leave --prompt out.")
    return load(path)["members"]["model"]
