"""Reviews of films, good or bad: generated, with negation, or those of SST-2.

The generated ones are made so that counting words does not help. Half of the adjectives and half of
the templates occur in no labelled review, and a quarter of all opinions is negated, by others in
the new templates than in the known ones. What the new words mean can be found out only from the
unlabelled reviews. There they stand beside adjectives of the same mood, as in "moving and witty"
(people join by "and" what they judge alike: Hatzivassiloglou and McKeown 1997), and two reviews of
three end with a verdict such as "loved it", which labelled reviews and tests never have.
"""

import functools
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.config import LessonConfig
from common.data.sources import Part, Source, damaged, find
from common.data.words import CLS, PAD, SEP, Words, learn_words, split_words
from common.record import current

if TYPE_CHECKING:
    import torch
    from sklearn.pipeline import Pipeline
    from torch import Tensor

# Of each kind the bad ones (label 0), then the good ones (label 1).
ADJECTIVES = {
    "known": (
        "bad awful boring weak silly tedious clumsy dreadful",
        "good great clever lovely strong superb graceful funny",
    ),
    "new": (
        "terrible dull poor shallow pointless lifeless dismal stale",
        "brilliant moving fine wonderful witty charming gripping elegant",
    ),
}
NOUNS = ("plot", "acting", "music", "ending", "dialogue", "script")
VERDICTS = (("hated it", "regretted it"), ("loved it", "enjoyed it"))

# {n} a noun, {a} an adjective, or two; of each kind the plain ones, then those that negate.
TEMPLATES = {
    "known": (("{a} {n}", "{n} is {a}"), ("no {a} {n}", "{n} is not {a}")),
    "new": (("what {a} {n}", "{n} seems {a}"), ("hardly {a} {n}", "{n} seems anything but {a}")),
}
NEGATED = 1 / 4  # of all opinions
JOINED = 1 / 4  # of all opinions have two adjectives, with "and" between them
JUDGED = 2 / 3  # of unlabelled reviews end with a verdict
SIZES = {"unlabelled": 12_000, "train": 1000, "val": 300, "known": 1000, "new": 1000}
TINY = {"unlabelled": 200, "train": 100, "val": 40, "known": 60, "new": 60}

LONGEST = 24  # words of a half; the rest is cut off
LENGTH = 2 * LONGEST + 3  # positions that a model needs
COMMIT = "457ffd83de90a9d6d472d8ffc31bbffe40a8b236"
FOLDER = "clairett/pytorch-sentiment-classification"


def _copy(parts: Sequence[Path], target: Path) -> None:
    shutil.copyfile(parts[0], target)


def _sst2(name: str, rows: int, size: int, digest: str) -> tuple[Source, int]:
    """Where a part of SST-2 comes from, and how many sentences it has."""
    urls = (
        f"https://raw.githubusercontent.com/{FOLDER}/{COMMIT}/data/SST2/{name}.tsv",
        f"https://cdn.jsdelivr.net/gh/{FOLDER}@{COMMIT}/data/SST2/{name}.tsv",
    )
    part = Part(f"{name}.tsv", f"sha256:{digest}", size, urls)
    about = f"{rows:,} sentences of film reviews, good or bad"
    return Source(f"sst2-{name}", f"sentiment/sst2_{name}.tsv", (part,), _copy, about), rows


SST2 = {
    "train": _sst2(
        "train", 6920, 720259, "ec192f833a64da08f475488a77b0d0b47db47acd0f458bd18433fc793b569920"
    ),
    "dev": _sst2(
        "dev", 872, 92057, "eddea6b39e601dd4e7a672b53cc40fdf6019fa80522f351206c24340ca5d9359"
    ),
    "test": _sst2(
        "test", 1821, 188749, "831169c7e2e429d6026e1bdbb542f33b636e3e596caad9602ebc953c205928b7"
    ),
}


@dataclass(frozen=True)
class Reviews:
    """texts: n reviews. labels (n,): 0 bad, 1 good. negated (n,): how many opinions are negated.

    What SST-2 negates nobody has counted: there `negated` is 0.
    """

    texts: list[str]
    labels: np.ndarray
    negated: np.ndarray

    def __len__(self) -> int:
        return len(self.texts)

    def some(self, count: int, seed: int) -> "Reviews":
        """So many of them, drawn at random."""
        chosen = np.random.default_rng(seed).permutation(len(self))[:count]
        texts = [self.texts[number] for number in chosen]
        return Reviews(texts, self.labels[chosen], self.negated[chosen])


@dataclass(frozen=True)
class ReviewSet:
    """words: those of the unlabelled reviews. train, val: with known words and templates only."""

    words: Words
    unlabelled: list[str]
    train: Reviews
    val: Reviews
    _tests: dict[str, Reviews] = field(repr=False)

    def test(self) -> dict[str, Reviews]:
        """ "known": other reviews of train's kind. "new": with new adjectives in new templates.

        SST-2 has only "new". Read it once, at the end.
        """
        for part in self._tests.values():
            current().read_test(np.array(part.texts), part.labels)
        return self._tests

    def fingerprints(self) -> list[np.ndarray]:
        """The texts of each part, for `no_leak`; the tests count as unread.

        The unlabelled ones of SST-2 are those of train, which are not counted twice.
        """
        parts = [part.texts for part in (self.train, self.val, *self._tests.values())]
        if self.unlabelled is not self.train.texts:
            parts.append(self.unlabelled)
        return [np.array(texts) for texts in parts]

    @functools.cached_property
    def halves(self) -> "tuple[Tensor, Tensor]":
        """Of the unlabelled reviews: (n, A) and (n, B), as `encode_halves` gives them."""
        return encode_halves(self.words, self.unlabelled)

    def encode(self, part: Reviews) -> "tuple[Tensor, Tensor, Tensor]":
        """tokens (n, T), segments (n, T), labels (n,)"""
        import torch

        tokens, segments = encode_reviews(self.words, part.texts)
        return tokens, segments, torch.from_numpy(part.labels)

    def pairs(self, n: int, generator: "torch.Generator") -> "tuple[Tensor, Tensor, Tensor]":
        """As `words.pairs`, of unlabelled reviews: tokens, segments (n, T), elsewhere (n,).

        The second half is from the same review (0) or, in half of the pairs, from any (1).
        """
        import torch

        first, second = self.halves
        rows = torch.randint(len(first), (n,), generator=generator)
        others = torch.randint(len(first), (n,), generator=generator)
        elsewhere = torch.randint(2, (n,), generator=generator)
        return *join(first[rows], second[torch.where(elsewhere == 1, others, rows)]), elsewhere


def load_reviews(cfg: LessonConfig, most: int = 5000) -> ReviewSet:
    """The reviews that cfg.data names, "generated" or "sst2", with at most so many words.

    Generated: 12,000 without labels of all kinds, 1,000 and 300 with known words to train and
    validate, 1,000 of each kind to test, drawn with cfg.seed; no review occurs twice. The majority
    has 0.5. TF-IDF and logistic regression (`bag_of_words`) can only guess on new words; a test
    holds both of their results.

    SST-2: 6,920 sentences, also as unlabelled ones, 872 to validate, 1,821 to test.
    """
    if cfg.data == "sst2":
        parts = {name: _read(cfg, name) for name in SST2}
        held_out = {*parts["dev"].texts, *parts["test"].texts}
        # four sentences of train stand in another part, too
        train = _without(parts["train"], held_out)
        if cfg.tiny:
            train = train.some(TINY["unlabelled"], seed=0)
            parts = {name: part.some(TINY["new"], seed=0) for name, part in parts.items()}
        words = learn_words("\n".join(train.texts), most)
        return ReviewSet(words, train.texts, train, parts["dev"], {"new": parts["test"]})

    sizes = TINY if cfg.tiny else SIZES
    rng = cfg.rng()
    seen: set[str] = set()
    parts = {}
    for name in ("new", "known", "val", "train", "unlabelled"):
        kinds = {"new": ["new"], "unlabelled": ["known", "new"]}.get(name, ["known"])
        judged = JUDGED if name == "unlabelled" else 0.0
        parts[name] = generate(sizes[name], kinds, rng, seen, judged)
    unlabelled = parts.pop("unlabelled").texts
    words = learn_words("\n".join(unlabelled), most)
    current().use_data("generated", f"{sum(sizes.values()):,} reviews, seed {cfg.seed}")
    tests = {name: parts[name] for name in ("known", "new")}
    return ReviewSet(words, unlabelled, parts["train"], parts["val"], tests)


def generate(
    count: int,
    kinds: Sequence[str],
    rng: np.random.Generator,
    seen: set[str] | None = None,
    judged: float = 0.0,
) -> Reviews:
    """Reviews of two opinions that agree, with adjectives and templates of these kinds.

    What is in `seen` is not made again; what is made comes into it. A share `judged` of them ends
    with a verdict.
    """
    seen = set() if seen is None else seen
    texts: list[str] = []
    labels, negated = [], []
    while len(texts) < count:
        label = int(rng.integers(2))
        opinions = [_opinion(label, kinds, rng) for _ in range(2)]
        text = " . ".join(opinion for opinion, _ in opinions)
        if text not in seen:
            seen.add(text)
            if rng.random() < judged:
                text += " . " + VERDICTS[label][rng.integers(2)]
            texts.append(text)
            labels.append(label)
            negated.append(sum(is_negated for _, is_negated in opinions))
    return Reviews(texts, np.array(labels), np.array(negated))


def _opinion(label: int, kinds: Sequence[str], rng: np.random.Generator) -> tuple[str, bool]:
    is_negated = bool(rng.random() < NEGATED)
    templates = TEMPLATES[kinds[rng.integers(len(kinds))]][is_negated]
    # a good film is not bad
    mood = 1 - label if is_negated else label
    adjectives = " ".join(ADJECTIVES[kind][mood] for kind in kinds).split()
    chosen = rng.choice(adjectives, 2, replace=False)
    adjective = " and ".join(chosen) if rng.random() < JOINED else chosen[0]
    template = templates[rng.integers(len(templates))]
    return template.format(n=NOUNS[rng.integers(len(NOUNS))], a=adjective), is_negated


def halves(text: str) -> tuple[list[str], list[str]]:
    """The words of a text in two parts: cut behind the sentence that ends nearest to the middle.

    A text of one sentence is cut in the middle.
    """
    words = split_words(text)
    middle = len(words) / 2
    ends = [place for place, word in enumerate(words[:-1], 1) if word in (".", "!", "?")]
    cut = min(ends, key=lambda place: abs(place - middle)) if ends else int(middle)
    return words[:cut], words[cut:]


def encode_halves(words: Words, texts: Sequence[str]) -> "tuple[Tensor, Tensor]":
    """The halves of n texts as numbers: (n, A) and (n, B), each filled up with PAD."""
    import torch

    parts = []
    for part in zip(*(halves(text) for text in texts)):
        rows = [words.encode(" ".join(half))[:LONGEST] for half in part]
        table = np.full((len(rows), max(map(len, rows))), PAD)
        for place, row in enumerate(rows):
            table[place, : len(row)] = row
        parts.append(torch.from_numpy(table))
    return parts[0], parts[1]


def join(first: "Tensor", second: "Tensor") -> "tuple[Tensor, Tensor]":
    """(n, A) and (n, B), filled up with PAD -> [CLS] first [SEP] second [SEP], then PAD, (n, T).

    And the segments (n, T): 0 up to the first [SEP], 1 up to the second, 0 for padding.
    """
    import torch

    cls = torch.full((len(first), 1), CLS)
    sep = torch.full((len(first), 1), SEP)
    tokens = torch.cat([cls, first, sep, second, sep], dim=1)
    segments = torch.zeros_like(tokens)
    segments[:, first.shape[1] + 2 :] = 1
    segments[tokens == PAD] = 0

    # padding between the words goes to the end, and what is padding in all rows goes
    order = (tokens == PAD).byte().argsort(dim=1, stable=True)
    length = int((tokens != PAD).sum(dim=1).max())
    return tokens.gather(1, order)[:, :length], segments.gather(1, order)[:, :length]


def encode_reviews(words: Words, texts: Sequence[str]) -> "tuple[Tensor, Tensor]":
    """n texts as BERT reads them: tokens and segments (n, T), each text in two halves."""
    return join(*encode_halves(words, texts))


def bag_of_words(train: Reviews) -> "Pipeline":
    """TF-IDF of words and pairs of words, then logistic regression, trained: the baseline."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    table = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\S+")
    return make_pipeline(table, LogisticRegression(C=10, max_iter=1000)).fit(
        train.texts, train.labels
    )


def _without(part: Reviews, others: set[str]) -> Reviews:
    kept = [number for number, text in enumerate(part.texts) if text not in others]
    return Reviews([part.texts[number] for number in kept], part.labels[kept], part.negated[kept])


def _read(cfg: LessonConfig, name: str) -> Reviews:
    """A part of SST-2. Raises LessonError for a file that is something else."""
    source, rows = SST2[name]
    path = find(source, cfg.data_dir)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise damaged(source, path, str(error)) from None
    cells = [line.rsplit("\t", 1) for line in lines]
    if len(cells) != rows or any(len(row) != 2 or row[1] not in ("0", "1") for row in cells):
        why = f"{len(cells):,} lines, wanted {rows:,} of the form text, tab, 0 or 1"
        raise damaged(source, path, why)
    current().use_data(source.name, path)
    labels = np.array([int(label) for _, label in cells])
    return Reviews([text for text, _ in cells], labels, np.zeros(rows, dtype=np.int64))
