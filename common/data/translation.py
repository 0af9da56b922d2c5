"""Sentences with their translations: generated English and German, Multi30k, English and Chinese.

The generated German is real German, of few words and forms: articles and adjectives agree with
their noun, the verb stands second, in a clause with “weil” last, and some verbs fall into two.
"""

import gzip
import hashlib
import random
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from common.config import LessonConfig
from common.data.sources import Part, Source, find
from common.errors import LessonError
from common.record import current

Pair = tuple[str, str]  # a sentence and its translation

ROWS = {False: (16_000, 300, 500), True: (240, 20, 20)}  # training, validation, test; by tiny
HELD_OUT = 1 / 8  # share of the pairs of adjective and noun that only one part has


@dataclass(frozen=True)
class PairSet:
    """Sentences of two languages, in three parts."""

    name: str
    languages: tuple[str, str]
    train: list[Pair]
    val: list[Pair]
    _test: list[Pair] = field(repr=False)

    def test(self) -> list[Pair]:
        """Read it once, at the end: it measures nothing more once something was chosen by it."""
        content = "\n".join("\t".join(pair) for pair in self._test).encode()
        current().read_test(np.frombuffer(content, dtype=np.uint8))
        return self._test

    def reversed(self) -> "PairSet":
        """From the second language into the first, without what would then stand in two parts."""
        parts = ([pair[::-1] for pair in part] for part in (self.train, self.val, self._test))
        train, val, test = parts
        val = _without(val, test)
        return PairSet(self.name, self.languages[::-1], _without(train, val + test), val, test)

    def fingerprints(self) -> list[np.ndarray]:
        """The sentences to translate, part by part, for `no_leak`; reads no test."""
        parts = (self.train, self.val, self._test)
        return [np.array([source for source, _ in part], dtype=str) for part in parts]


def load_pairs(cfg: LessonConfig, reverse: bool = False) -> PairSet:
    """What cfg.data names: generated, multi30k (English, German) or enzh (English, Chinese).

    reverse: into English instead.
    """
    loaders = {"generated": generated, "multi30k": load_multi30k, "enzh": load_enzh}
    pairs = loaders[cfg.data](cfg)
    return pairs.reversed() if reverse else pairs


# Generated sentences

# English: one, several. German: one, several, gender
NOUNS = [
    line.split()
    for line in """
man men Mann Männer m
woman women Frau Frauen f
child children Kind Kinder n
dog dogs Hund Hunde m
cat cats Katze Katzen f
horse horses Pferd Pferde n
teacher teachers Lehrer Lehrer m
aunt aunts Tante Tanten f
girl girls Mädchen Mädchen n
bird birds Vogel Vögel m
mouse mice Maus Mäuse f
pig pigs Schwein Schweine n
table tables Tisch Tische m
bottle bottles Flasche Flaschen f
house houses Haus Häuser n
apple apples Apfel Äpfel m
flower flowers Blume Blumen f
picture pictures Bild Bilder n
""".strip().splitlines()
]
ADJECTIVES = [
    line.split()
    for line in """
old alt
young jung
small klein
big groß
red rot
black schwarz
white weiß
new neu
sad traurig
strong stark
beautiful schön
green grün
rich reich
tired müd
""".strip().splitlines()
]
# English: plain, he, past, particle. German: they, he, participle, the part that stands apart
VERBS = [
    [word.strip("-") for word in line.split()]
    for line in """
see sees saw - sehen sieht gesehen -
buy buys bought - kaufen kauft gekauft -
find finds found - finden findet gefunden -
paint paints painted - malen malt gemalt -
carry carries carried - tragen trägt getragen -
wash washes washed - waschen wäscht gewaschen -
forget forgets forgot - vergessen vergisst vergessen -
love loves loved - lieben liebt geliebt -
need needs needed - brauchen braucht gebraucht -
look looks looked at sehen sieht angesehen an
pick picks picked up holen holt abgeholt ab
bring brings brought along bringen bringt mitgebracht mit
""".strip().splitlines()
]
ADVERBS = [("today", "heute"), ("now", "jetzt"), ("often", "oft"), ("always", "immer")]
PLACES = [("behind", "hinter"), ("beside", "neben"), ("in front of", "vor")]
CLAUSES = [("because", "weil"), ("while", "während"), ("although", "obwohl")]
# for one and for several: English, German
HELPERS = {
    "past": ("did", "did", "hat", "haben"),
    "will": ("will", "will", "wird", "werden"),
    "can": ("can", "can", "kann", "können"),
}
DETERMINERS = (("the", "a", "this", "my", "every"), ("the", "", "these", "my"))  # one; several

# German endings for masculine, feminine, neuter and several; then those of adjectives behind them.
ENDINGS = {
    "der": {"subject": "der die das die", "object": "den die das die", "place": "dem der dem den"},
    "dies": {"subject": "er e es e", "object": "en e es e", "place": "em er em en"},
    "ein": {"subject": "- e - e", "object": "en e - e", "place": "em er em en"},
}
ADJECTIVE_ENDINGS = {
    "der": {"subject": "e e e en", "object": "en e e en", "place": "en en en en"},
    "ein": {"subject": "er e es en", "object": "en e es en", "place": "en en en en"},
    "": {"subject": "- - - e", "object": "- - - e", "place": "- - - en"},
}
STEMS = {"this": "dies", "these": "dies", "every": "jed", "a": "ein", "my": "mein", "no": "kein"}


@dataclass(frozen=True)
class Phrase:
    """A determiner, perhaps an adjective, a noun; one or several."""

    determiner: str
    adjective: int | None
    noun: int
    several: bool

    def english(self) -> str:
        words = [self.determiner, NOUNS[self.noun][self.several]]
        if self.adjective is not None:
            words.insert(1, ADJECTIVES[self.adjective][0])
        if words[0] == "a" and words[1][0] in "aeiou":
            words[0] = "an"
        return " ".join(words).strip()

    def german(self, case: str) -> str:
        """case: subject (nominative), object (accusative) or place (dative)."""
        _, _, one, several, gender = NOUNS[self.noun]
        column = 3 if self.several else "mfn".index(gender)
        noun = several if self.several else one
        if case == "place" and self.several and noun[-1] not in "ns":
            noun += "n"

        words = [_determiner(self.determiner, case, column), noun]
        if self.adjective is not None:
            kind = {"the": "der", "this": "der", "these": "der", "every": "der", "": ""}
            endings = ADJECTIVE_ENDINGS[kind.get(self.determiner, "ein")]
            words.insert(1, ADJECTIVES[self.adjective][1] + endings[case].split()[column])
        return " ".join(words).strip()


def _determiner(english: str, case: str, column: int) -> str:
    if english == "the":
        return ENDINGS["der"][case].split()[column]
    if english == "":
        return ""
    stem = STEMS[english]
    endings = ENDINGS["dies" if stem in ("dies", "jed") else "ein"]
    return stem + endings[case].split()[column].strip("-")


@dataclass(frozen=True)
class Clause:
    """Who does what to whom; perhaps where, when, and whether not."""

    subject: Phrase
    verb: int
    object: Phrase
    tense: str  # present, past, will or can
    negated: bool
    place: tuple[tuple[str, str], Phrase] | None
    adverb: tuple[str, str] | None
    turned: bool  # place or adverb stands in front

    def english(self) -> str:
        plain, he, past, particle = VERBS[self.verb][:4]
        several = self.subject.several
        verb = [plain if several else he]
        if self.tense != "present":
            verb = [HELPERS[self.tense][several], plain]
        elif self.negated:
            verb = ["do" if several else "does", plain]
        if self.negated:
            verb.insert(1, "not")
        elif self.tense == "past":
            verb = [past]

        words = [self.subject.english(), *verb, particle, self.object.english()]
        rest = self._rest(0)
        words = [*rest, *words] if self.turned else [*words, *rest]
        return " ".join(word for word in words if word)

    def german(self, last: bool = False) -> str:
        """last: in a clause with “weil” the verb stands at the end."""
        they, he, participle, apart = VERBS[self.verb][4:]
        several = self.subject.several
        verb = they if several else he
        end = apart
        if self.tense != "present":
            verb = HELPERS[self.tense][2 + several]
            end = participle if self.tense == "past" else apart + they

        subject = self.subject.german("subject")
        object = self.object
        without = self.negated and object.determiner in ("a", "")
        if without:
            object = replace(object, determiner="no")
        middle = [object.german("object")]
        if self.negated and not without:
            middle.append("nicht")
        rest = self._rest(1)
        if not self.turned:
            middle = [*middle, *rest] if self.place else [*rest, *middle]

        if last:
            front = rest if self.turned else []
            ending = [end, verb] if self.tense != "present" else [end + verb]
            words = [subject, *front, *middle, *ending]
        elif self.turned:
            words = [*rest, verb, subject, *middle, end]
        else:
            words = [subject, verb, *middle, end]
        return " ".join(word for word in words if word)

    def _rest(self, language: int) -> list[str]:
        if self.place:
            preposition, phrase = self.place
            noun = phrase.german("place") if language else phrase.english()
            return [f"{preposition[language]} {noun}"]
        return [self.adverb[language]] if self.adverb else []

    def phrases(self) -> list[Phrase]:
        return [self.subject, self.object, *([self.place[1]] if self.place else [])]


def generated(cfg: LessonConfig) -> PairSet:
    """English and German, drawn with cfg.seed; no sentence twice.

    Every adjective and every noun stands in training, but an eighth of their combinations, as
    “old dog”, stands only in validation and another eighth only in the test part: each sentence
    there has one at least. To copy the sentence is never right, and to translate word by word,
    hardly ever (`word_by_word`).
    """
    rng = random.Random(cfg.seed)
    everything = [(a, n) for a in range(len(ADJECTIVES)) for n in range(len(NOUNS))]
    rng.shuffle(everything)
    count = round(HELD_OUT * len(everything))
    known = everything[2 * count :]
    parts = []
    used = set()
    for new, rows in zip(([], everything[:count], everything[count : 2 * count]), ROWS[cfg.tiny]):
        part = []
        while len(part) < rows:
            pair, combinations = _sentence(rng, known, new)
            if pair[0] not in used and (not new or not combinations.isdisjoint(new)):
                used.add(pair[0])
                part.append(pair)
        parts.append(part)
    sizes = " + ".join(f"{len(part):,}" for part in parts)
    current().use_data("generated", f"{sizes} English sentences with German ones, seed {cfg.seed}")
    return PairSet("generated", ("English", "German"), *parts)


def _phrase(rng: random.Random, known: list, new: list) -> Phrase:
    """Half of the nouns have an adjective; every third of these pairs is new, if there are new."""
    several = rng.random() < 0.4
    determiner = rng.choice(DETERMINERS[several])
    adjective, noun = rng.choice(new if new and rng.random() < 1 / 3 else known)
    if rng.random() < 0.5:
        adjective = None
        noun = rng.randrange(len(NOUNS))
    return Phrase(determiner, adjective, noun, several)


def _clause(rng: random.Random, known: list, new: list, first: bool) -> Clause:
    negated = rng.random() < 0.25
    place = None
    adverb = None
    kind = rng.random()
    if kind < 0.25 and not negated:
        place = (rng.choice(PLACES), _phrase(rng, known, new))
    elif kind < 0.6:
        adverb = rng.choice(ADVERBS)
    turned = first and rng.random() < 0.5 and (place or adverb) is not None
    tense = rng.choice(("present", "present", "past", "will", "can"))
    subject = _phrase(rng, known, new)
    object = _phrase(rng, known, new)
    verb = rng.randrange(len(VERBS))
    return Clause(subject, verb, object, tense, negated, place, adverb, turned)


def _sentence(rng: random.Random, known: list, new: list) -> tuple[Pair, set]:
    """A sentence in both languages, and its pairs of adjective and noun."""
    clauses = [_clause(rng, known, new, first=True)]
    english = clauses[0].english()
    german = clauses[0].german()
    if rng.random() < 0.25:
        clauses.append(_clause(rng, known, new, first=False))
        word = rng.choice(CLAUSES)
        english += f" {word[0]} {clauses[1].english()}"
        german += f", {word[1]} {clauses[1].german(last=True)}"
    phrases = [each for clause in clauses for each in clause.phrases()]
    combinations = {(each.adjective, each.noun) for each in phrases}
    return (_as_sentence(english), _as_sentence(german)), combinations


def combinations(text: str) -> set[tuple[str, str]]:
    """Adjectives and the nouns behind them, in a generated English sentence."""
    adjectives = {english for english, _ in ADJECTIVES}
    words = split_words(text.lower())
    return {(one, two) for one, two in pairwise(words) if one in adjectives}


def share_with_new(pairs: PairSet) -> float:
    """How many generated test sentences have a combination that training has not."""
    english = pairs.languages.index("English")
    train, test = ([pair[english] for pair in part] for part in (pairs.train, pairs._test))
    known = set().union(*(combinations(text) for text in train))
    return sum(not combinations(text) <= known for text in test) / len(test)


def _as_sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


# Real sentences

MULTI30K = "multi30k/dataset"
MULTI30K_COMMIT = "a3d2e0d26b56f3846f66a952536ffed4e401d05a"
# file: sha256 and size as it is downloaded, sha256 of the text
MULTI30K_FILES = {
    "train.en": (
        "d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f",
        568929,
        "460a15fbd157e34a7a9957ee388c1ca247fe47af3ef25fb50442af6c274e0fc6",
    ),
    "train.de": (
        "726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6",
        637044,
        "2c2b73fd2b548fbcde3a875e0a78d6ee94d498bfdee6bd3eae3945779e9ddf72",
    ),
    "val.en": (
        "14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28",
        21650,
        "1f2a23d992769b5b3d209b0a10dd0b77c08cceb1f20dfb97ed0aafa49d107227",
    ),
    "val.de": (
        "f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a",
        24681,
        "660e09eb7e1da2f856ea13ee5ad3cf6d36b3d5b0b733c857e94c5747a3dfc660",
    ),
    "test_2016_flickr.en": (
        "611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9",
        21077,
        "399a4382932c1aadd3ceb9bef1008d388a64c76d4ae4e9d4728c6f4301cac182",
    ),
    "test_2016_flickr.de": (
        "9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8",
        22890,
        "4be6b5b3236b79c25475c6bb829800a7ce559e9ba7a1f6c2394fe4d40be46d16",
    ),
}
ENZH = "13luoyu/Transformer-machine-translation"
ENZH_COMMIT = "aa43963320ccfacebd1d3542deae559bbca58d03"
ENZH_DIGEST = "aa264a2447b26ab7c9d413f8321f9e2a779fd134b5118306b6e26a3499b3926e"
ENZH_SIZE = 4151383


def _urls(repository: str, commit: str, file: str) -> tuple[str, str]:
    return (
        f"https://raw.githubusercontent.com/{repository}/{commit}/{file}",
        f"https://cdn.jsdelivr.net/gh/{repository}@{commit}/{file}",
    )


def _unpack(parts: Sequence[Path], target: Path) -> None:
    with gzip.open(parts[0]) as packed, open(target, "wb") as file:
        shutil.copyfileobj(packed, file)


def _keep(parts: Sequence[Path], target: Path) -> None:
    shutil.copyfile(parts[0], target)


def _multi30k_source(file: str) -> Source:
    digest, size, _ = MULTI30K_FILES[file]
    urls = _urls(MULTI30K, MULTI30K_COMMIT, f"data/task1/raw/{file}.gz")
    part = Part(f"{file}.gz", f"sha256:{digest}", size, urls)
    about = "captions of 31,014 pictures in English and German"
    return Source("multi30k", f"text/multi30k/{file}", (part,), _unpack, about)


MULTI30K_SOURCES = {file: _multi30k_source(file) for file in MULTI30K_FILES}
ENZH_SOURCE = Source(
    "enzh",
    "text/cmn-eng.txt",
    (Part("cmn.txt", f"sha256:{ENZH_DIGEST}", ENZH_SIZE, _urls(ENZH, ENZH_COMMIT, "cmn.txt")),),
    _keep,
    "29,155 English sentences with Chinese ones, from tatoeba.org, CC BY 2.0 FR",
)


def load_multi30k(cfg: LessonConfig) -> PairSet:
    """Captions of photographs, English to German; test is that of 2016. Tiny: the first rows.

    What training shares with the other parts is left out of it: one caption.
    """
    lines = {}
    for file, source in MULTI30K_SOURCES.items():
        path = find(source, cfg.data_dir)
        lines[file] = _read(path, source, MULTI30K_FILES[file][2])
    parts = []
    for name in ("train", "val", "test_2016_flickr"):
        pairs = zip(lines[f"{name}.en"], lines[f"{name}.de"])
        parts.append([(_one_line(english), _one_line(german)) for english, german in pairs])
    return _real("multi30k", path.parent, ("English", "German"), parts, cfg.tiny)


def load_enzh(cfg: LessonConfig) -> PairSet:
    """English to Chinese, short sentences of daily life; Chinese as its authors wrote it, in
    simplified or traditional characters.

    The English sentences are split, by a hash: 1 of 30 for validation, 1 of 30 for the test. Of
    several translations there the first one counts. Tiny: the first rows.
    """
    path = find(ENZH_SOURCE, cfg.data_dir)
    parts = ([], [], [])
    seen = set()
    for line in _read(path, ENZH_SOURCE, ENZH_DIGEST):
        english, chinese, _ = line.split("\t")
        english, chinese = _one_line(english), _one_line(chinese)
        number = hashlib.sha256(english.encode()).digest()[0] * 30 // 256
        part = {0: 1, 1: 2}.get(number, 0)
        if part == 0 or english not in seen:
            parts[part].append((english, chinese))
        seen.add(english)
    return _real("enzh", path, ("English", "Chinese"), list(parts), cfg.tiny)


def _real(
    name: str, where: Path, languages: tuple[str, str], parts: list[list[Pair]], tiny: bool
) -> PairSet:
    train, val, test = parts
    train = _without(train, val + test)
    sizes = " + ".join(f"{len(part):,}" for part in (train, val, test))
    current().use_data(name, f"{where}: {sizes} pairs")
    if tiny:
        train, val, test = (part[:rows] for part, rows in zip((train, val, test), ROWS[True]))
    return PairSet(name, languages, train, val, test)


def _without(pairs: list[Pair], others: list[Pair]) -> list[Pair]:
    """Those whose sentence is not to be translated in the others, too."""
    elsewhere = {source for source, _ in others}
    return [pair for pair in pairs if pair[0] not in elsewhere]


def _read(path: Path, source: Source, digest: str) -> list[str]:
    """The lines of the text, if it is the one that is expected."""
    try:
        content = path.read_bytes()
        why = f"{len(content):,} bytes with another checksum"
    except OSError as error:
        content = b""
        why = error.strerror or str(error)
    if hashlib.sha256(content).hexdigest() != digest:
        raise LessonError(
            f"{path} is not the {Path(source.file).name} that this course expects ({why}). "
            "Delete it: where it is missing, the lesson downloads it."
        )
    return content.decode("utf-8-sig").rstrip("\n").split("\n")


def _one_line(text: str) -> str:
    return " ".join(text.split())


# A baseline


def split_words(text: str) -> list[str]:
    """Words and signs; of Chinese, characters."""
    return re.findall(r"[\u3100-\u9fff]|[^\W\u3100-\u9fff]+|[^\w\s]", text)


def word_by_word(train: list[Pair], rounds: int = 8) -> Callable[[str], str]:
    """The baseline: a translator that puts each word's likeliest translation in its place.

    It learns which word goes with which from whole sentences (IBM model 1, Brown et al. 1993): each
    word of a translation comes from one of the sentence's words; who is likely to have produced it
    is estimated in rounds. A word that training does not have is copied.
    """
    sources = [split_words(source) for source, _ in train]
    targets = [split_words(target) for _, target in train]
    source_numbers = _numbers(sources)
    target_names = list(_numbers(targets))
    target_numbers = {name: number for number, name in enumerate(target_names)}

    asked = []  # for every word of a translation and every word of its sentence
    slots = []
    slot = 0
    for source, target in zip(sources, targets):
        rows = np.array([source_numbers[word] for word in source])
        for word in target:
            asked.append(rows * len(target_names) + target_numbers[word])
            slots.append(np.full(len(rows), slot))
            slot += 1
    cells, where = np.unique(np.concatenate(asked), return_inverse=True)
    slots = np.concatenate(slots)
    source_of = cells // len(target_names)

    p = np.ones(len(cells))  # P(word of the translation | word of the sentence)
    for _ in range(rounds):
        shares = p[where]
        shares = shares / np.bincount(slots, shares)[slots]
        counts = np.bincount(where, shares)
        p = counts / np.bincount(source_of, counts)[source_of]

    # Sorted by probability, the last entry of each word is the one that stays.
    order = np.argsort(p, kind="stable")
    best = dict(zip(source_of[order].tolist(), (cells[order] % len(target_names)).tolist()))

    def translate(text: str) -> str:
        words = []
        for word in split_words(text):
            number = source_numbers.get(word)
            words.append(word if number is None else target_names[best[number]])
        return " ".join(words)

    return translate


def _numbers(sentences: Sequence[Sequence[str]]) -> dict[str, int]:
    names = dict.fromkeys(word for sentence in sentences for word in sentence)
    return {name: number for number, name in enumerate(names)}
