"""Tasks on short sequences of symbols, generated: each asks for one thing a Transformer can do.

A batch follows from cfg.seed and from its own `seed`: give every batch and every test another one.
"""

import torch
from torch import Tensor

from common.config import LessonConfig

PAD, START, END = 0, 1, 2
FIRST = 3  # of the symbols that are written

LETTERS = 16
MOST_PAIRS = 4
MOST_TIMES = 3
EXPANDED_LENGTH = MOST_PAIRS * MOST_TIMES + 1  # and END


def _generator(cfg: LessonConfig, seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(10**6 * cfg.seed + seed)


def facts(cfg: LessonConfig, names: int) -> tuple[Tensor, Tensor]:
    """All pairs of subject and relation (names², 2), each with an object drawn at random."""
    numbers = torch.arange(names)
    objects = torch.from_numpy(cfg.rng().integers(names, size=names**2))
    device = cfg.torch_device()
    return torch.cartesian_prod(numbers, numbers).to(device), objects.to(device)


def expansions(cfg: LessonConfig, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """2 to 4 pairs of letter and number, c3 a1, and what they stand for, ccca.

    x (n, 4, 2), padding behind the pairs; y (n, 13), END and padding behind the letters. No letter
    twice in a list; letters are the symbols 3 to 18, numbers 1 to 3.
    """
    generator = _generator(cfg, seed)
    letters = FIRST + torch.rand(n, LETTERS, generator=generator).argsort(dim=1)[:, :MOST_PAIRS]
    numbers = torch.randint(1, MOST_TIMES + 1, (n, MOST_PAIRS), generator=generator)
    used = torch.arange(MOST_PAIRS) < torch.randint(2, MOST_PAIRS + 1, (n, 1), generator=generator)
    letters = letters.where(used, PAD)
    numbers = numbers.where(used, 0)

    ends = numbers.cumsum(dim=1)  # (n, 4): where each pair's letters end
    place = torch.arange(EXPANDED_LENGTH)
    pair = (place[:, None] >= ends[:, None]).sum(dim=2)  # (n, 13): how many pairs are over
    y = letters.gather(1, pair.clamp(max=MOST_PAIRS - 1))
    total = ends[:, -1:]
    y = y.where(place < total, PAD).where(place != total, END)
    device = cfg.torch_device()
    return torch.stack([letters, numbers], dim=2).to(device), y.to(device)


def sortings(
    cfg: LessonConfig, n: int, seed: int, symbols: int = 20, length: int = 10
) -> tuple[Tensor, Tensor]:
    """Random symbols x (n, length), and the same in order, END behind them: y (n, length + 1).

    The symbols are 3, 4, …; one may stand there several times.
    """
    generator = _generator(cfg, seed)
    x = torch.randint(FIRST, FIRST + symbols, (n, length), generator=generator)
    y = torch.cat([x.sort(dim=1).values, torch.full((n, 1), END)], dim=1)
    device = cfg.torch_device()
    return x.to(device), y.to(device)
