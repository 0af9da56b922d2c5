"""Reviews: what is held out, what is negated, what pre-training asks for; SST-2 in small."""

import dataclasses
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from common import record
from common.config import LessonConfig
from common.data import reviews
from common.data.reviews import (
    ADJECTIVES,
    LABELLED,
    LENGTH,
    LONGEST,
    VERDICTS,
    bag_of_words,
    encode,
    generate,
    load_reviews,
)
from common.data.words import CLS, FIRST, PAD, SEP, UNK, Words, split_words
from common.errors import LessonError
from common.lessons import load_lesson

REAL = os.environ.get("COURSE_DATA")
TINY = LessonConfig(tiny=True)


def words_of(kind: str) -> set[str]:
    return set(" ".join(ADJECTIVES[kind]).split())


def test_no_adjective_is_of_two_kinds():
    lists = [each.split() for pair in ADJECTIVES.values() for each in pair]
    assert len({word for each in lists for word in each}) == sum(map(len, lists))
    assert len(set(map(len, lists))) == 1


@pytest.mark.parametrize("kind, other", [("known", "new"), ("new", "known")])
def test_what_is_held_out(kind, other):
    found = generate(400, [kind], np.random.default_rng(0))
    used = set(split_words(" ".join(found.texts)))
    assert words_of(kind) <= used and not words_of(other) & used


def test_unlabelled_reviews_have_all_words_and_templates():
    data = load_reviews(LessonConfig())
    used = set(data.words.names)
    assert words_of("known") | words_of("new") <= used
    assert {"one", "what", "seems", "does", "not", "no", "loved", "hated"} <= used
    labelled = set(split_words(" ".join(data.train.texts + data.val.texts)))
    assert not words_of("new") & labelled
    assert not {"one", "what", "seems", "does", "loved", "hated"} & labelled


def mood(text: str) -> int:
    """What a reader would say of one opinion."""
    adjectives = {a: m for pair in ADJECTIVES.values() for m in (0, 1) for a in pair[m].split()}
    moods = {adjectives[word] for word in text.split() if word in adjectives}
    assert len(moods) == 1
    negators = {"not", "no"}
    is_negated = bool(negators & set(text.split()))
    return moods.pop() ^ is_negated


def test_labels_follow_from_the_text():
    found = generate(500, ["known", "new"], np.random.default_rng(1))
    for text, label, negated in zip(found.texts, found.labels, found.negated):
        opinions = text.split(" . ")
        assert len(opinions) == 2 and {mood(each) for each in opinions} == {label}, text
        assert 0 <= negated <= 2
    assert abs(found.labels.mean() - 0.5) < 0.1
    assert 0.2 < (found.negated > 0).mean() < 0.7


def test_no_review_twice_and_the_same_for_a_seed():
    data, again = load_reviews(LessonConfig()), load_reviews(LessonConfig())
    texts = np.concatenate(data.fingerprints())
    assert len(set(texts)) == len(texts) == sum(reviews.SIZES.values())
    assert data.unlabelled == again.unlabelled and data.train.texts == again.train.texts
    assert data.train.texts != load_reviews(LessonConfig(seed=1)).train.texts


def test_some_of_them():
    train = load_reviews(TINY).train
    few = train.some(20, seed=3)
    assert len(few) == len(few.labels) == len(few.negated) == len(set(few.texts)) == 20
    assert few.texts == train.some(20, seed=3).texts != train.some(20, seed=4).texts
    labels = dict(zip(train.texts, train.labels))
    assert all(labels[text] == label for text, label in zip(few.texts, few.labels))


def test_the_tests_are_read_once():
    record.start(tiny=True)
    data = load_reviews(TINY)
    data.fingerprints()
    assert record.current().test_reads == 0
    assert list(data.test()) == ["known", "new"]
    assert record.current().test_reads == 1


def test_contrast_is_decided_by_the_last_opinion():
    style = dataclasses.replace(LABELLED, contrast=0.5, negated=0.0)
    found = generate(300, ["known"], np.random.default_rng(0), style)
    assert 0.4 < found.contrast.mean() < 0.6
    for text, label, is_contrast in zip(found.texts, found.labels, found.contrast):
        first, last = re.split(" but | \\. ", text)
        assert ("but" in text) == is_contrast
        assert mood(last) == label and (mood(first) == label) != is_contrast


def test_verdicts_begin_unlabelled_reviews_only():
    data = load_reviews(LessonConfig())
    verdicts = [verdict for pair in VERDICTS for verdict in pair]
    judged = [text.startswith(tuple(verdicts)) for text in data.unlabelled]
    assert 0.78 < np.mean(judged) < 0.82
    assert not {"loved", "hated", "watch", "avoid"} & set(" ".join(data.train.texts).split())


def test_encode():
    words = Words(["so", "on"])
    tokens = encode(words, ["so on so", "on what"])
    assert tokens.tolist() == [[CLS, 5, 6, 5, SEP], [CLS, 6, UNK, SEP, PAD]]
    tokens = encode(words, ["so on " * 100, "so"])
    assert tokens.shape == (2, LENGTH) and LENGTH == LONGEST + 2
    assert (tokens[0, 1:-1] >= FIRST).all() and tokens[0, -1] == SEP


def test_what_pre_training_asks_for():
    data = load_reviews(TINY)
    ask = load_lesson("phase07_transformer/07-bert-architecture").ask
    batches = data.masked(ask, 30, seed=0)
    again = data.masked(ask, 30, seed=0)
    assert all(torch.equal(one, two) for a, b in zip(batches, again) for one, two in zip(a, b))
    inputs, labels = batches[0]
    assert inputs.shape == labels.shape and len(inputs) == 64 and (inputs != PAD).any(dim=0).all()
    asked = torch.cat([labels[labels >= 0] for _, labels in batches])
    stop = (asked == data.words.numbers["."]).double().mean()
    assert 0.02 < stop < 0.12, "a fifth of all words are full stops"
    shares = data.shares[FIRST:]
    assert shares.max() == 0.4 and 0.01 < shares.min() < 0.1


def test_counting_words_does_not_help_with_new_ones():
    data = load_reviews(LessonConfig())
    tests = data.test()
    model = bag_of_words(data.train.some(200, 0))
    known, new = (model.score(part.texts, part.labels) for part in tests.values())
    assert 0.7 < known < 0.95 and 0.42 < new < 0.58


@pytest.fixture
def own(tmp_path, monkeypatch) -> LessonConfig:
    """SST-2's three files, in small."""
    folder = tmp_path / "sentiment"
    folder.mkdir()
    rows = {"train": 30, "dev": 4, "test": 5}
    for name, count in rows.items():
        lines = [f"{name} sentence {n} is fine\t{n % 2}" for n in range(count)]
        if name == "train":
            lines[3] = "test sentence 2 is fine\t0"
        (folder / f"sst2_{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        source, _ = reviews.SST2[name]
        monkeypatch.setitem(reviews.SST2, name, (source, count))
    return LessonConfig(data="sst2", data_dir=tmp_path)


def test_sst2(own):
    data = load_reviews(own)
    assert len(data.train) == 29 and len(data.val) == 4 and list(data.test()) == ["new"]
    assert data.unlabelled is data.train.texts and len(data.fingerprints()) == 3
    assert "test sentence 2 is fine" not in data.train.texts
    assert data.train.labels.tolist() == [n % 2 for n in range(30) if n != 3]
    tokens, labels = data.encode(data.val)
    assert len(tokens) == 4 and labels.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("content", ["a\t1\n", "a b c\n" * 4, "a\t2\n" * 4, "\n" * 4])
def test_another_file_is_refused(own, content):
    (own.data_dir / "sentiment" / "sst2_dev.tsv").write_text(content)
    with pytest.raises(LessonError, match="is not the sst2-dev"):
        load_reviews(own)


def test_the_real_sst2():
    if not (REAL and (Path(REAL) / "sentiment/sst2_train.tsv").exists()):
        return
    data = load_reviews(dataclasses.replace(LessonConfig(), data="sst2"))
    assert (len(data.train), len(data.val), len(data.test()["new"])) == (6917, 872, 1821)
    assert 0.5 < data.train.labels.mean() < 0.53
