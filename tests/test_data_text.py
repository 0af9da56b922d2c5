"""Texts: Python's documentation, tiny Shakespeare in small, files of every kind."""

import dataclasses
import hashlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from common import record
from common.config import LessonConfig
from common.data import sources, text
from common.data.sources import Part, Source
from common.data.text import (
    SHAKESPEARE_SOURCE,
    UNKNOWN,
    Vocabulary,
    learn_vocabulary,
    load_shakespeare,
    load_text,
    python_docs,
    share_of_known_words,
    without_repeats,
)
from common.errors import LessonError

REAL = os.environ.get("COURSE_DATA")
SPEECHES = "".join(
    f"SPEAKER {n}:\nWhat say you to the number {n}, which is {n * n} when squared, my lord of "
    f"York, and {n**3} when cubed, as all men know?\n\n"
    for n in range(100)
)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "mine.txt"
    path.write_bytes(SPEECHES.encode())
    return path


@pytest.fixture
def cached(tmp_path, monkeypatch) -> Path:
    """Shakespeare, in small, is there to be downloaded; gives its place in the cache."""
    monkeypatch.delenv("COURSE_DATA", raising=False)
    monkeypatch.delenv("COURSE_MIRROR", raising=False)
    monkeypatch.setattr(sources, "cache_dir", lambda: tmp_path / "cache")
    file = tmp_path / "input.txt"
    file.write_bytes(SPEECHES.encode())
    digest = f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    part = Part(file.name, digest, len(SPEECHES), (file.as_uri(),))
    source = SHAKESPEARE_SOURCE
    small = Source(source.name, source.file, (part,), source.convert, "")
    monkeypatch.setattr(text, "SHAKESPEARE_SOURCE", small)
    record.start(tiny=False)
    return tmp_path / "cache" / source.file


def test_three_parts_are_the_text_and_the_test_part_is_counted(own: Path) -> None:
    record.start(tiny=False)
    corpus = load_text(LessonConfig(), own)
    sizes = [len(corpus.train), len(corpus.val)]
    assert record.current().test_reads == 0
    test = corpus.test()
    assert corpus.train + corpus.val + test == SPEECHES and record.current().test_reads == 1
    shares = np.array([*sizes, len(test)]) / len(SPEECHES)
    assert np.abs(shares - [0.8, 0.1, 0.1]).max() < 0.02
    assert corpus.val.startswith("SPEAKER") and test.startswith("SPEAKER")
    load_text(LessonConfig(), own).test()
    assert record.current().test_reads == 2


@pytest.mark.parametrize("place", [100, 4000, 4990])
def test_no_part_is_empty_where_a_text_has_hardly_a_paragraph(own: Path, place: int) -> None:
    characters = np.random.default_rng(0).choice(list("abc de\n"), size=6000)
    whole = "".join(characters).replace("\n\n", "\na")
    own.write_text(whole[:place] + "\n\n" + whole[place:])
    corpus = load_text(LessonConfig(), own)
    assert len(corpus.train) > 4600 and min(len(corpus.val), len(corpus._test)) > 440


def test_fingerprints_are_the_long_paragraphs_of_each_part(own: Path) -> None:
    corpus = load_text(LessonConfig(), own)
    train, val, test = corpus.fingerprints()
    assert len(train) + len(val) + len(test) == 100 and not set(train) & {*val, *test}
    assert all(len(paragraph) >= 100 and "\n" not in paragraph for paragraph in train)


def test_pythons_documentation_comes_once_and_says_its_version(capsys) -> None:
    record.start(tiny=False)
    corpus = load_text(LessonConfig())
    whole = corpus.train + corpus.val + corpus._test
    assert 300_000 < len(whole) < 600_000 and len(whole) < 0.9 * len(python_docs())
    paragraphs = [" ".join(paragraph.split()) for paragraph in whole.split("\n\n")]
    assert len(set(paragraphs)) == len(paragraphs)
    said = capsys.readouterr().out
    assert f"documentation of {sys.version.split()[0]}" in said and "sha256" in said
    tiny = load_text(LessonConfig(tiny=True))
    assert whole.startswith(tiny.train) and len(tiny.train + tiny.val + tiny._test) == 20_000


def test_repeats_are_found_across_line_breaks_and_short_ones_may_stay() -> None:
    assert without_repeats("a b\n\nc\n\na\n  b\n\nd", shortest=1) == "a b\n\nc\n\nd"
    assert without_repeats("a b\n\nc\n\nc\n\na b", shortest=3) == "a b\n\nc\n\nc"


def test_a_vocabulary_is_learned_from_the_training_part_alone(own: Path) -> None:
    small = learn_vocabulary("aaabbbcc\ufffd\ufffd\ufffd")
    assert small.characters == UNKNOWN + "ab" and len(small) == 3
    assert small.encode("abcab").tolist() == [1, 2, 0, 1, 2]
    assert small.encode("").dtype == np.int64
    assert small.decode([1, 0, 2]) == "a\ufffdb" and small.seen("abc") == "ab\ufffd"
    corpus = dataclasses.replace(load_text(LessonConfig(), own), val="ÄÄÄÄ")
    assert "Ä" not in corpus.vocabulary.characters
    assert Vocabulary(corpus.vocabulary.characters).numbers == corpus.vocabulary.numbers


def test_known_words_are_long_and_of_any_case() -> None:
    assert share_of_known_words("Again, the horse! unhorse", "AGAIN: horse") == 2 / 3
    assert share_of_known_words("to be or", "to be or") == 0


BAD = {
    "empty": (b"", "is empty"),
    "blank": (b" \n\n", "is empty"),
    "one line": (b"To be, or not to be", "only 19 characters in 1 line(s)"),
    "one line, many times": (b"To be, or not to be, that is the question: " * 3 + b"\n\n", None),
    "binary": (b"\x89PNG\r\n\0\0" * 999, "not a text in UTF-8"),
    "zeros": (bytes(9999), "not a text file"),
    "latin-1": ("naïve\n".encode("latin-1") * 2000, "not a text in UTF-8 (byte 2)"),
    "all the same": ((b"x" * 120 + b"\n\n") * 999, "that differ"),
}


@pytest.mark.parametrize("content, words", BAD.values(), ids=BAD)
def test_what_is_no_text_gets_one_sentence(own: Path, content: bytes, words: str | None) -> None:
    own.write_bytes(content * (500 if words is None else 1))
    record.start(tiny=False)
    with pytest.raises(LessonError) as caught:
        load_text(LessonConfig(), own)
    assert (words or "that differ") in str(caught.value) and "\n" not in str(caught.value)
    assert record.current().data == []


@pytest.mark.parametrize("name", ["nowhere.txt", "."])
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(LessonError, match="cannot be read"):
        load_text(LessonConfig(), tmp_path / name)


def test_marks_and_other_line_ends_are_removed(own: Path) -> None:
    own.write_bytes(b"\xef\xbb\xbf" + SPEECHES.replace("\n", "\r\n").encode())
    corpus = load_text(LessonConfig(), own)
    assert corpus.train + corpus.val + corpus._test == SPEECHES


def test_without_its_documentation_python_says_what_to_do(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(LessonError, match="--text FILE"):
        load_text(LessonConfig())


def test_shakespeare_is_downloaded_kept_and_read(cached: Path, capsys) -> None:
    corpus = load_shakespeare(LessonConfig())
    assert corpus.train + corpus.val + corpus._test == SPEECHES
    assert cached.read_bytes() == SPEECHES.encode()
    assert f"data: shakespeare ({cached}" in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", SPEECHES[:999].encode(), b"\xff" * 9999, b"<html>"])
def test_a_damaged_shakespeare(cached: Path, content: bytes) -> None:
    load_text(LessonConfig(data="shakespeare"))
    cached.write_bytes(content)
    record.start(tiny=False)
    with pytest.raises(LessonError) as caught:
        load_text(LessonConfig(data="shakespeare"))
    message = str(caught.value)
    assert "course data shakespeare --again" in message and "\n" not in message
    assert record.current().data == [] and cached.read_bytes() == content


def test_real_shakespeare_where_COURSE_DATA_holds_it() -> None:
    if REAL and (Path(REAL) / SHAKESPEARE_SOURCE.file).exists():
        corpus = load_text(LessonConfig(data="shakespeare", data_dir=Path(REAL)))
        assert corpus.train.startswith("First Citizen:") and len(corpus.vocabulary) == 65
        part = SHAKESPEARE_SOURCE.parts[0]
        assert len(corpus.train) + len(corpus.val) + len(corpus._test) == part.size
