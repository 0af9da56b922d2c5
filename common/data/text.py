"""Text to learn from: Python's own documentation, tiny Shakespeare, any file by --text."""

import functools
import hashlib
import importlib
import platform
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from common.config import LessonConfig
from common.data.sources import Part, Source, damaged, find
from common.errors import LessonError
from common.record import current

SHORTEST = 5_000  # characters, below which there is nothing to learn
TINY = 20_000  # characters of a tiny run
LONG = 100  # characters of a paragraph that two parts may not share
UNKNOWN = "\ufffd"  # stands for every character outside a vocabulary; printed as �
RARE = 3  # a character that training has less often counts as unknown

COMMIT = "6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e"
FILE = "data/tinyshakespeare/input.txt"


def _keep(parts: Sequence[Path], target: Path) -> None:
    shutil.copyfile(parts[0], target)


SHAKESPEARE_SOURCE = Source(
    "shakespeare",
    "text/tinyshakespeare.txt",
    (
        Part(
            "input.txt",
            "sha256:86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
            1115394,
            (
                f"https://raw.githubusercontent.com/karpathy/char-rnn/{COMMIT}/{FILE}",
                f"https://cdn.jsdelivr.net/gh/karpathy/char-rnn@{COMMIT}/{FILE}",
            ),
        ),
    ),
    _keep,
    "1.1 million characters of Shakespeare's plays",
)


class Vocabulary:
    """The characters that a model knows. Number 0, UNKNOWN, stands for all others."""

    def __init__(self, characters: str):
        self.characters = characters
        self.numbers = {character: number for number, character in enumerate(characters)}

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> np.ndarray:
        """(n,) int64"""
        return np.array([self.numbers.get(character, 0) for character in text], dtype=np.int64)

    def decode(self, numbers: Sequence[int] | np.ndarray) -> str:
        return "".join(self.characters[number] for number in numbers)

    def seen(self, text: str) -> str:
        """The text as a model sees it: what is unknown has become UNKNOWN."""
        return "".join(c if c in self.numbers else UNKNOWN for c in text)


def learn_vocabulary(train: str) -> Vocabulary:
    """UNKNOWN, then in order what the training part has RARE times or more.

    Rarer characters count as unknown: so training shows where unknown ones are to be expected.
    """
    counts = Counter(train)
    known = sorted(c for c, count in counts.items() if count >= RARE and c != UNKNOWN)
    return Vocabulary(UNKNOWN + "".join(known))


@dataclass(frozen=True)
class Corpus:
    """A text in three parts, one after the other; cut between paragraphs if there are any."""

    name: str
    train: str
    val: str
    _test: str = field(repr=False)

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        """Of the training part alone."""
        return learn_vocabulary(self.train)

    def test(self) -> str:
        """Read it once, at the end: it measures nothing more once something was chosen by it."""
        current().read_test(np.frombuffer(self._test.encode(), dtype=np.uint8))
        return self._test

    def fingerprints(self) -> list[np.ndarray]:
        """Long paragraphs, part by part, for `no_leak`; the test part counts as unread."""
        found = []
        for part in (self.train, self.val, self._test):
            paragraphs = [_in_one_line(paragraph) for paragraph in part.split("\n\n")]
            found.append(np.array([each for each in paragraphs if len(each) >= LONG], dtype=str))
        return found


def load_text(cfg: LessonConfig, file: Path | None = None) -> Corpus:
    """The text that cfg.data names, or that of `file`, cut into 80 % train, 10 % val, 10 % test.

    A cut lies between two paragraphs wherever there is one near. What stands in a text twice would
    be known before it is asked for, so a long paragraph is kept only where it occurs first; of
    Python's documentation, whose chapters contain each other, any paragraph. A tiny run gets the
    first 20,000 characters. Raises LessonError for what is no text or too short.
    """
    if file is not None:
        name, text, where = file.name, read_text(file), str(file)
        kept = without_repeats(text, LONG)
    elif cfg.data == "shakespeare":
        name, where = "shakespeare", str(find(SHAKESPEARE_SOURCE, cfg.data_dir))
        kept = text = _shakespeare(Path(where))
    else:
        name, text, where = "python", python_docs(), f"documentation of {platform.python_version()}"
        kept = without_repeats(text, shortest=1)
    if len(kept) < SHORTEST:
        lines = kept.count("\n") + 1
        raise LessonError(
            f"{where} has only {len(kept):,} characters in {lines:,} line(s) that differ. "
            f"Give a text of {SHORTEST:,} characters or more."
        )

    digest = hashlib.sha256(kept.encode()).hexdigest()[:12]
    repeated = f", {len(text) - len(kept):,} repeated ones left out" if kept != text else ""
    current().use_data(name, f"{where}: {len(kept):,} characters{repeated}, sha256 {digest}")
    if cfg.tiny:
        kept = kept[:TINY]
    first = _cut(kept, 8 * len(kept) // 10)
    second = _cut(kept, 9 * len(kept) // 10)
    return Corpus(name, kept[:first], kept[first:second], kept[second:])


def load_shakespeare(cfg: LessonConfig) -> Corpus:
    return load_text(replace(cfg, data="shakespeare"))


def python_docs() -> str:
    """Every topic of `help("topics")`, in alphabetical order; CPython ships them."""
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
    except ImportError:
        raise LessonError(
            "this Python has come without its documentation (pydoc_data). "
            "Give a text of your own with --text FILE, or take Python from its makers."
        ) from None
    return "\n\n".join(topics[name].strip() for name in sorted(topics))


def read_text(path: Path) -> str:
    """The text of a file, with line ends as in Unix. Raises LessonError for anything else."""
    try:
        content = path.read_bytes()
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise LessonError(f"{path} cannot be read ({why}). Give the name of a text file.") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LessonError(
            f"{path} is not a text in UTF-8 (byte {error.start:,}). Save it as UTF-8 first."
        ) from None
    if "\0" in text:
        raise LessonError(f"{path} is not a text file. Give one that an editor can show.")
    if not text.strip():
        raise LessonError(f"{path} is empty. Give a text of {SHORTEST:,} characters or more.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def without_repeats(text: str, shortest: int) -> str:
    """The paragraphs in their order, without those of `shortest` characters that came before.

    Paragraphs stand between empty lines; other breaks and other indents make no other paragraph.
    """
    seen = set()
    kept = []
    for paragraph in text.split("\n\n"):
        content = _in_one_line(paragraph)
        if len(content) < shortest or content not in seen:
            kept.append(paragraph)
        seen.add(content)
    return "\n\n".join(kept)


def share_of_known_words(written: str, train: str) -> float:
    """How many words of five letters or more also stand in `train`: shorter ones are easily right.

    0 where none was written.
    """
    found = _long_words(written)
    known = set(_long_words(train))
    return sum(word in known for word in found) / max(len(found), 1)


def _long_words(text: str) -> list[str]:
    letters = "".join(c if c.isalpha() else " " for c in text.lower())
    return [word for word in letters.split() if len(word) >= 5]


def _in_one_line(paragraph: str) -> str:
    return " ".join(paragraph.split())


def _cut(text: str, wanted: int) -> int:
    """The beginning of a paragraph at `wanted` or a little earlier; `wanted` if none is there."""
    reach = min(5_000, len(text) // 40)  # so that no part loses much
    found = text.rfind("\n\n", wanted - reach, wanted)
    return wanted if found < 0 else found + 2


def _shakespeare(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise damaged(SHAKESPEARE_SOURCE, path, error.strerror or str(error)) from None
    digest = SHAKESPEARE_SOURCE.parts[0].digest
    if f"sha256:{hashlib.sha256(content).hexdigest()}" != digest:
        raise damaged(SHAKESPEARE_SOURCE, path, f"{len(content):,} bytes with another checksum")
    return content.decode("ascii")
