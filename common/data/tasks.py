"""Four tasks on texts, generated: the first word names the task, letters follow, a text answers.

    sort: d a c     -> a c d
    reverse: d a c  -> c a d
    last: d a c     -> c
    has-a: d a c    -> yes

Texts have 3 to 6 letters out of 10, none of them twice. The same letters have another answer in
each task, so that who does not read the first word can be right in one of them (but for the few
texts where two answers agree). In `has-a:` the answer "yes" is right for 45 of 100 texts.
"""

import torch
from torch import Tensor

from common.config import LessonConfig
from common.data.sequences import END, FIRST, PAD

TASKS = ("sort:", "reverse:", "last:", "has-a:")
LETTERS = 10
SHORTEST, LONGEST = 3, 6
WORDS = ("<pad>", "<start>", "<end>", *TASKS, *"abcdefghij", "yes", "no")
A = FIRST + len(TASKS)
YES, NO = len(WORDS) - 2, len(WORDS) - 1


def four_tasks(cfg: LessonConfig, n: int, seed: int, named: bool = True) -> tuple[Tensor, Tensor]:
    """source (n, 7) and target (n, 7), END behind it, then PAD; the tasks take turns, row by row.

    named: else the first word is always "sort:", whatever the answer. The rows follow from
    cfg.seed and `seed`: give every batch and every test another one.
    """
    generator = torch.Generator().manual_seed(10**6 * cfg.seed + seed)
    task = torch.arange(n) % len(TASKS)
    length = torch.randint(SHORTEST, LONGEST + 1, (n, 1), generator=generator)
    letters = A + torch.rand(n, LETTERS, generator=generator).argsort(dim=1)[:, :LONGEST]

    place = torch.arange(LONGEST)
    inside = place < length  # (n, 6)
    first_word = FIRST + task[:, None] * named
    source = torch.cat([first_word, letters.where(inside, PAD)], dim=1)

    in_order = letters.where(inside, len(WORDS)).sort(dim=1).values
    backwards = letters.gather(1, (length - 1 - place).clamp(min=0))
    has_a = ((letters == A) & inside).any(dim=1, keepdim=True)
    has_a = torch.where(has_a, YES, NO).expand(-1, LONGEST)
    answers = torch.stack([in_order, backwards, backwards, has_a])  # the last comes first backwards
    answer = answers[task, torch.arange(n)]  # (n, 6)
    words = torch.where(task[:, None] < 2, length, 1)

    place = torch.arange(LONGEST + 1)
    room = torch.full((n, 1), END)
    target = torch.cat([answer, room], dim=1).where(place < words, PAD).where(place != words, END)
    device = cfg.torch_device()
    return source.to(device), target.to(device)


def to_text(row: Tensor) -> str:
    """The words of a row (T,), without padding and END."""
    return " ".join(WORDS[symbol] for symbol in row.tolist() if symbol not in (PAD, END))


def commonest(target: Tensor) -> Tensor:
    """How often the commonest answer of each task is right, for answers in turn: (n, T) -> (4,)"""
    shares = []
    for number in range(len(TASKS)):
        answers = target[number :: len(TASKS)].cpu()
        _, counts = answers.unique(dim=0, return_counts=True)
        shares.append(counts.max() / len(answers))
    return torch.stack(shares)


def random_parts(total: int, parts: int, generator: torch.Generator) -> Tensor:
    """total as a sum of whole numbers of 1 or more, each way equally likely. (parts,)"""
    cuts = 1 + torch.randperm(total - 1, generator=generator)[: parts - 1].sort().values
    edges = torch.cat([torch.tensor([0]), cuts, torch.tensor([total])])
    return edges.diff()
