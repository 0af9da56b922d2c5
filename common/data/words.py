"""Texts as numbered words, for models that read words and not characters.

BERT itself reads pieces of words, which phase 12 makes; whole words do for a small text.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from common.config import LessonConfig
from common.data.text import load_text

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD, UNK, CLS, SEP, MASK = range(5)
FIRST = len(SPECIAL)  # the number of the first word
RARE = 2  # a word that training has less often is unknown

_TOKEN = re.compile(r"\[mask\]|[^\W\d_]+|\d+|([^\s\w]|_)\1*")


def split_words(text: str) -> list[str]:
    """Words in small letters, numbers and signs; a row of one sign, as in "====", counts once."""
    return [match[1] or match[0] for match in _TOKEN.finditer(text.lower())]


class Words:
    """The words that a model knows. 0 to 4 are special, and 1, [UNK], stands for all others."""

    def __init__(self, words: Sequence[str]):
        self.names = (*SPECIAL, *words)
        self.numbers = {name: number for number, name in enumerate(self.names)}
        self.numbers["[mask]"] = MASK

    def __len__(self) -> int:
        return len(self.names)

    def encode(self, text: str) -> np.ndarray:
        """(n,) int64; a [MASK] in the text stands for itself."""
        numbers = [self.numbers.get(word, UNK) for word in split_words(text)]
        return np.array(numbers, dtype=np.int64)

    def decode(self, numbers: Sequence[int] | np.ndarray) -> str:
        return " ".join(self.names[number] for number in numbers)


def learn_words(train: str, most: int) -> Words:
    """The commonest words that `train` has RARE times or more; with the special ones `most`."""
    counts = Counter(split_words(train))
    known = [word for word, count in counts.items() if count >= RARE and word != "[mask]"]
    known.sort(key=lambda word: (-counts[word], word))
    return Words(known[: most - FIRST])


def load_words(cfg: LessonConfig, most: int) -> "tuple[Words, Tensor, Tensor]":
    """The words of `load_text`, at most so many, and the numbers of its training and validation.

    The two parts share no long paragraph; a test holds `load_text` to that.
    """
    import torch

    corpus = load_text(cfg)
    words = learn_words(corpus.train, most)
    train, val = (torch.from_numpy(words.encode(part)) for part in (corpus.train, corpus.val))
    return words, train, val


def pairs(
    words: "Tensor", n: int, length: int, generator: "torch.Generator"
) -> "tuple[Tensor, Tensor, Tensor]":
    """n pairs of stretches of a text (words,), each of `length` words: BERT's "sentences".

    tokens (n, T): [CLS] first [SEP] second [SEP]. segments (n, T): 0 up to the first [SEP], then 1.
    elsewhere (n,): 0 where the second stretch follows the first, 1 where it is from anywhere.
    """
    import torch

    starts = torch.randint(len(words) - 2 * length + 1, (n, 1), generator=generator)
    others = torch.randint(len(words) - length + 1, (n, 1), generator=generator)
    elsewhere = torch.randint(2, (n, 1), generator=generator)
    places = torch.arange(length)
    first = words[starts + places]  # (n, length)
    second = words[torch.where(elsewhere == 1, others, starts + length) + places]

    cls = torch.full((n, 1), CLS)
    sep = torch.full((n, 1), SEP)
    tokens = torch.cat([cls, first, sep, second, sep], dim=1)
    segments = (torch.arange(2 * length + 3) >= length + 2).long().expand(n, -1)
    return tokens, segments, elsewhere[:, 0]


def in_another_order(tokens: "Tensor", stays: "Tensor", seed: int) -> "Tensor":
    """tokens (n, T), of each row the words in another order; special ones stay, and `stays`."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    moved = tokens.clone()
    for row, fixed in zip(moved, stays):
        places = torch.nonzero((row >= FIRST) & ~fixed)[:, 0]
        order = torch.randperm(len(places), generator=generator)
        row[places] = row[places[order.to(places.device)]]
    return moved
