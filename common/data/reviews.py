"""Reviews of films, good or bad: generated, with negation, or those of SST-2 and IMDB.

The generated ones are made so that counting words does not help. Half of the adjectives and half of
the templates occur in no labelled review, and a quarter of all opinions in labelled ones is
negated. What the new words mean can be found out only from the unlabelled reviews. There each
stands in reviews of one mood, as in "moving and witty" (people join by "and" what they judge alike:
Hatzivassiloglou and McKeown 1997), and four of five begin with a verdict such as "loved it", which
labelled reviews and tests never have.
"""

import functools
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.config import LessonConfig
from common.data.sources import Part, Source, damaged, find
from common.data.words import CLS, FIRST, PAD, SEP, Words, learn_words, split_words
from common.record import current

if TYPE_CHECKING:
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
VERDICTS = (("hated it", "avoid it"), ("loved it", "watch it"))

# {n} a noun, {a} an adjective, or two; of each kind the plain ones, then those that negate.
TEMPLATES = {
    "known": (("{a} {n}", "{n} is {a}"), ("no {a} {n}", "{n} is not {a}")),
    "new": (("what {a} {n}", "{n} seems {a}"), ("not one {a} {n}", "{n} does not seem {a}")),
}


@dataclass(frozen=True)
class Style:
    """How reviews are made. Each number but the first is a share, from 0 to 1."""

    opinions: int = 2
    negated: float = 0.25  # of all opinions
    joined: float = 0.25  # of all opinions have two adjectives, with "and" between them
    judged: float = 0.0  # of reviews begin with a verdict
    contrast: float = 0.0  # of reviews begin with an opinion of the other mood, and then "but"


LABELLED = Style()
UNLABELLED = Style(opinions=3, negated=0.1, judged=0.8)
# of phase 7's project: more that counting words cannot see
HARDER = Style(negated=0.3, contrast=0.25)
HARDER_UNLABELLED = Style(opinions=3, negated=0.2, judged=0.8, contrast=0.1)
SIZES = {"unlabelled": 12_000, "train": 1000, "val": 300, "known": 1000, "new": 1000}
TINY = {"unlabelled": 200, "train": 100, "val": 40, "known": 60, "new": 60}

LONGEST = 48  # words of a text; the rest is cut off
LENGTH = LONGEST + 2  # positions that a model needs
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


def _unpack_imdb(parts: Sequence[Path], target: Path) -> None:
    """The archive's labelled reviews, in the order of their names: part, label, text; tabs between.

    A text's lines become one; the <br /> between its paragraphs go.
    """
    import tarfile

    rows = {}
    with tarfile.open(parts[0]) as archive:
        for member in archive:
            # aclImdb/train/pos/123_8.txt
            place = member.name.split("/")
            if member.isfile() and len(place) == 4 and place[2] in ("neg", "pos"):
                content = archive.extractfile(member).read().decode("utf-8")
                text = " ".join(content.replace("<br />", " ").split())
                rows[member.name] = f"{place[1]}\t{int(place[2] == 'pos')}\t{text}\n"
    target.write_text("".join(rows[name] for name in sorted(rows)), encoding="utf-8", newline="\n")


IMDB_ROWS = 25_000  # of training, and as many of the test
IMDB = Source(
    "imdb",
    "sentiment/imdb.tsv",
    (
        Part(
            "aclImdb_v1.tar.gz",
            "md5:7c2ac02c03563afcf9b574c7e56c153a",
            84_125_825,
            (
                "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
                "https://bj.bcebos.com/dataset/imdb%2FaclImdb_v1.tar.gz",
            ),
        ),
    ),
    _unpack_imdb,
    "50,000 whole film reviews, good or bad",
)


@dataclass(frozen=True)
class Reviews:
    """texts: n reviews. labels (n,): 0 bad, 1 good.

    negated (n,): how many opinions are negated. contrast (n,): does the last one contradict the
    first? What real reviews have of both nobody has counted: there they are 0.
    """

    texts: list[str]
    labels: np.ndarray
    negated: np.ndarray
    contrast: np.ndarray

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, chosen: Sequence[int] | np.ndarray) -> "Reviews":
        """Those with these numbers, in this order."""
        texts = [self.texts[number] for number in chosen]
        return Reviews(texts, self.labels[chosen], self.negated[chosen], self.contrast[chosen])

    def some(self, count: int, seed: int) -> "Reviews":
        """So many of them, drawn at random."""
        return self.take(np.random.default_rng(seed).permutation(len(self))[:count])


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

        Real reviews have only "new". Read it once, at the end.
        """
        texts = [text for part in self._tests.values() for text in part.texts]
        labels = np.concatenate([part.labels for part in self._tests.values()])
        current().read_test(np.array(texts), labels)
        return self._tests

    def fingerprints(self) -> list[np.ndarray]:
        """The texts of each part, for `no_leak`; the tests count as unread.

        The unlabelled ones of SST-2 and IMDB are those of train, which are not counted twice.
        """
        parts = [part.texts for part in (self.train, self.val, *self._tests.values())]
        if self.unlabelled is not self.train.texts:
            parts.append(self.unlabelled)
        return [np.array(texts) for texts in parts]

    @functools.cached_property
    def tokens(self) -> "Tensor":
        """The unlabelled reviews as BERT reads them, (n, T)."""
        return encode(self.words, self.unlabelled)

    @functools.cached_property
    def shares(self) -> "Tensor":
        """How often pre-training should ask for each word, (V,): 0.2 on average, at most 0.4.

        Frequent words say little, so that they are asked for less, as in word2vec (Mikolov et al.
        2013): the share falls with the root of the frequency.
        """
        import torch

        counts = torch.bincount(self.tokens.flatten(), minlength=len(self.words))
        usual = counts[FIRST:].double().mean()
        return (0.2 * (usual / counts.clamp(min=1)).sqrt()).clamp(max=0.4)

    def masked(self, ask: Callable, steps: int, seed: int) -> "list[tuple[Tensor, Tensor]]":
        """For pre-training: of 64 unlabelled reviews, drawn anew for each step, what ask gives.

        ask(tokens, vocab, generator, share) is lesson 7.7's: what the model sees, and labels.
        """
        import torch

        generator = torch.Generator().manual_seed(seed)
        batches = []
        for _ in range(steps):
            tokens = self.tokens[torch.randint(len(self.tokens), (64,), generator=generator)]
            tokens = tokens[:, : int((tokens != PAD).sum(dim=1).max())]
            batches.append(ask(tokens, len(self.words), generator, self.shares[tokens]))
        return batches

    def encode(self, part: Reviews) -> "tuple[Tensor, Tensor]":
        """tokens (n, T), labels (n,)"""
        import torch

        return encode(self.words, part.texts), torch.from_numpy(part.labels)


def load_reviews(
    cfg: LessonConfig, labelled: Style = LABELLED, unlabelled: Style = UNLABELLED, most: int = 5000
) -> ReviewSet:
    """The reviews that cfg.data names, of real ones at most `most` words.

    Generated: 12,000 without labels of all kinds, 1,000 and 300 with known words to train and
    validate, 1,000 of each kind to test, drawn with cfg.seed; no review occurs twice. The majority
    has 0.5. TF-IDF and logistic regression (`bag_of_words`) can only guess on new words; a test
    holds both of their results.

    "sst2": 6,920 sentences, also as unlabelled ones, 872 to validate, 1,821 to test. "imdb": of
    25,000 reviews to train every tenth validates; 25,000 to test.
    """
    if cfg.data != "generated":
        parts = _read_imdb(cfg) if cfg.data == "imdb" else _read_sst2(cfg)
        held_out = {*parts["dev"].texts, *parts["test"].texts}
        # three sentences of SST-2's train stand in another part, too
        train = parts["train"]
        train = train.take([n for n, text in enumerate(train.texts) if text not in held_out])
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
        style = unlabelled if name == "unlabelled" else labelled
        parts[name] = generate(sizes[name], kinds, rng, style, seen)
    texts = parts.pop("unlabelled").texts
    words = learn_words("\n".join(texts), most)
    current().use_data("generated", f"{sum(sizes.values()):,} reviews, seed {cfg.seed}")
    tests = {name: parts[name] for name in ("known", "new")}
    return ReviewSet(words, texts, parts["train"], parts["val"], tests)


def generate(
    count: int,
    kinds: Sequence[str],
    rng: np.random.Generator,
    style: Style = LABELLED,
    seen: set[str] | None = None,
) -> Reviews:
    """Reviews with adjectives and templates of these kinds; all opinions agree but a contrast.

    What is in `seen` is not made again; what is made comes into it.
    """
    seen = set() if seen is None else seen
    texts: list[str] = []
    rows = []
    while len(texts) < count:
        label = int(rng.integers(2))
        is_contrast = bool(rng.random() < style.contrast)
        moods = [label] * style.opinions
        if is_contrast:
            moods[0] = 1 - label
        opinions = [_opinion(mood, kinds, rng, style) for mood in moods]
        clauses = [opinion for opinion, _ in opinions]
        if is_contrast:
            clauses[:2] = [f"{clauses[0]} but {clauses[1]}"]
        if rng.random() < style.judged:
            clauses.insert(0, VERDICTS[label][rng.integers(2)])
        text = " . ".join(clauses)
        if text not in seen:
            seen.add(text)
            texts.append(text)
            rows.append((label, sum(is_negated for _, is_negated in opinions), is_contrast))
    labels, negated, contrast = np.array(rows).T
    return Reviews(texts, labels, negated, contrast)


def _opinion(
    mood: int, kinds: Sequence[str], rng: np.random.Generator, style: Style
) -> tuple[str, bool]:
    is_negated = bool(rng.random() < style.negated)
    templates = TEMPLATES[kinds[rng.integers(len(kinds))]][is_negated]
    # a good film is not bad
    mood = 1 - mood if is_negated else mood
    adjectives = " ".join(ADJECTIVES[kind][mood] for kind in kinds).split()
    first, second = rng.integers(len(adjectives), size=2)
    adjective = adjectives[first]
    if rng.random() < style.joined and first != second:
        adjective += f" and {adjectives[second]}"
    template = templates[rng.integers(len(templates))]
    return template.format(n=NOUNS[rng.integers(len(NOUNS))], a=adjective), is_negated


def encode(words: Words, texts: Sequence[str]) -> "Tensor":
    """n texts as BERT reads them: [CLS] words [SEP], then PAD, (n, T)."""
    import torch

    rows = [[CLS, *words.encode(text)[:LONGEST], SEP] for text in texts]
    table = np.full((len(rows), max(map(len, rows))), PAD)
    for place, row in enumerate(rows):
        table[place, : len(row)] = row
    return torch.from_numpy(table)


def bag_of_words(train: Reviews) -> "Pipeline":
    """TF-IDF of words and pairs of words, then logistic regression, trained: the baseline."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    table = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\S+")
    return make_pipeline(table, LogisticRegression(C=10, max_iter=1000)).fit(
        train.texts, train.labels
    )


def lsa(cfg: LessonConfig, data: ReviewSet, train: Reviews) -> "Pipeline":
    """TF-IDF's first singular vectors in the unlabelled texts (latent semantic analysis)."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.pipeline import make_pipeline

    tfidf, classifier = bag_of_words(train).named_steps.values()
    svd = TruncatedSVD(2 if cfg.data == "generated" else 100, random_state=0)
    svd.fit(tfidf.fit_transform(data.unlabelled))
    table = svd.transform(tfidf.transform(train.texts))
    return make_pipeline(tfidf, svd, classifier.fit(table, train.labels))


NEGATORS = {"not", "no", "never", "n't", "nothing", "hardly", "neither", "nor", "without", "t"}


def groups(texts: Sequence[str], train: Sequence[str]) -> dict[str, np.ndarray]:
    """Which texts (n,) have what: a negation, "but", both or neither, a word that train lacks."""
    known = set()
    for text in train:
        known.update(split_words(text))
    rows = [set(split_words(text)) for text in texts]
    negation = np.array([bool(NEGATORS & row) for row in rows])
    contrast = np.array(["but" in row for row in rows])
    return {
        "all": np.full(len(texts), True),
        "neither": ~negation & ~contrast,
        "negation": negation & ~contrast,
        "but": contrast,
        "unseen": np.array([not row <= known for row in rows]),
    }


def count_words(words: Words, text: str) -> tuple[int, list[str]]:
    """How many tokens a text has for BERT, and which of its words have no number."""
    found = split_words(text)
    strange = dict.fromkeys(word for word in found if word not in words.numbers)
    return len(found) + 2, list(strange)


def adjectives_first(texts: Sequence[str], effects: "Sequence[Tensor]") -> float:
    """Of generated texts: how often has an adjective, "not", "no" or "but" the largest effect?"""
    wanted = {"not", "no", "but"}
    for lists in ADJECTIVES.values():
        wanted.update(" ".join(lists).split())
    count = 0
    for text, effect in zip(texts, effects):
        words = split_words(text)
        count += words[int(effect[1:-1].abs().argmax())] in wanted
    return count / len(effects)


def _read_sst2(cfg: LessonConfig) -> dict[str, Reviews]:
    parts = {}
    for name, (source, rows) in SST2.items():
        path = find(source, cfg.data_dir)
        cells = [line.rsplit("\t", 1) for line in _lines(source, path)]
        if len(cells) != rows or any(len(row) != 2 or row[1] not in ("0", "1") for row in cells):
            why = f"{len(cells):,} lines, wanted {rows:,} of the form text, tab, 0 or 1"
            raise damaged(source, path, why)
        current().use_data(source.name, path)
        parts[name] = _as_reviews([text for text, _ in cells], [label for _, label in cells])
    return parts


def _read_imdb(cfg: LessonConfig) -> dict[str, Reviews]:
    path = find(IMDB, cfg.data_dir)
    rows: dict[str, list] = {"train": [], "dev": [], "test": []}
    for number, line in enumerate(_lines(IMDB, path)):
        cells = line.split("\t")
        if len(cells) != 3 or cells[0] not in ("train", "test") or cells[1] not in ("0", "1"):
            raise damaged(IMDB, path, f"line {number + 1} is not part, tab, 0 or 1, tab, text")
        part = "dev" if cells[0] == "train" and number % 10 == 0 else cells[0]
        rows[part].append(cells[1:])
    if [len(rows["train"]) + len(rows["dev"]), len(rows["test"])] != [IMDB_ROWS, IMDB_ROWS]:
        raise damaged(IMDB, path, f"wanted {IMDB_ROWS:,} lines of train and as many of test")
    current().use_data(IMDB.name, path)
    parts = {}
    for name, cells in rows.items():
        parts[name] = _as_reviews([text for _, text in cells], [label for label, _ in cells])
    return parts


def _lines(source: Source, path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise damaged(source, path, str(error)) from None


def _as_reviews(texts: list[str], labels: Sequence[str]) -> Reviews:
    nothing = np.zeros(len(texts), dtype=np.int64)
    return Reviews(texts, np.array([int(label) for label in labels]), nothing, nothing)
