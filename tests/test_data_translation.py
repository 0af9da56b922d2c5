"""Generated German that holds, held-out combinations, Multi30k and English-Chinese in small."""

import gzip
import hashlib
import os
from pathlib import Path

import pytest
import torch

from common import record
from common.config import LessonConfig
from common.data import sentences, sources, translation
from common.data.sequences import END, PAD
from common.data.sources import Part, Source
from common.data.translation import Clause, PairSet, Phrase
from common.errors import LessonError

REAL = os.environ.get("COURSE_DATA")
NOUNS = [line[0] for line in translation.NOUNS]
VERBS = [" ".join(line[0:1] + line[3:4]).strip() for line in translation.VERBS]
ADJECTIVES = [english for english, _ in translation.ADJECTIVES]


def phrase(text: str, several: bool = False) -> Phrase:
    """ "the old dog", "a dog", "old dog" without a determiner"""
    words = text.split()
    noun = NOUNS.index(words.pop())
    adjective = ADJECTIVES.index(words.pop()) if words and words[-1] in ADJECTIVES else None
    return Phrase(words[0] if words else "", adjective, noun, several)


def clause(subject: str, verb: str, object: str, tense: str = "present", **options) -> Clause:
    settings = {"negated": False, "place": None, "adverb": None, "turned": False, "several": False}
    settings |= options
    who = phrase(subject, settings.pop("several"))
    return Clause(who, VERBS.index(verb), phrase(object), tense, **settings)


NOW = ("now", "jetzt")
BEHIND = (("behind", "hinter"), phrase("these house", several=True))
CASES = [
    (("the dog", "see", "a cat"), {}, "the dog sees a cat", "der Hund sieht eine Katze"),
    (("a old man", "see", "the old man"), {}, "an old man sees the old man",
     "ein alter Mann sieht den alten Mann"),
    (("every small child", "buy", "my red house"), {"tense": "past"},
     "every small child bought my red house", "jedes kleine Kind hat mein rotes Haus gekauft"),
    (("the cat", "look at", "this bird"), {"negated": True}, "the cat does not look at this bird",
     "die Katze sieht diesen Vogel nicht an"),
    (("the cat", "look at", "a bird"), {"negated": True, "tense": "past"},
     "the cat did not look at a bird", "die Katze hat keinen Vogel angesehen"),
    (("my white mouse", "pick up", "the table"), {"tense": "will", "several": True},
     "my white mice will pick up the table", "meine weißen Mäuse werden den Tisch abholen"),
    (("the woman", "carry", "this flower"), {"adverb": NOW, "turned": True},
     "now the woman carries this flower", "jetzt trägt die Frau diese Blume"),
    (("the woman", "carry", "this flower"), {"adverb": NOW, "tense": "can"},
     "the woman can carry this flower now", "die Frau kann jetzt diese Blume tragen"),
    (("the girl", "paint", "the picture"), {"place": BEHIND, "turned": True},
     "behind these houses the girl paints the picture",
     "hinter diesen Häusern malt das Mädchen das Bild"),
    (("beautiful horse", "need", "the apple"), {"several": True, "place": BEHIND},
     "beautiful horses need the apple behind these houses",
     "schöne Pferde brauchen den Apfel hinter diesen Häusern"),
]  # fmt: skip


@pytest.mark.parametrize("words, options, english, german", CASES)
def test_a_clause_in_both_languages(words, options, english, german):
    found = clause(*words, **options)
    assert (found.english(), found.german()) == (english, german)


def test_in_a_clause_with_weil_the_verb_stands_last():
    found = clause("the cat", "look at", "this bird", negated=True, adverb=NOW)
    assert found.german(last=True) == "die Katze jetzt diesen Vogel nicht ansieht"
    found = clause("the cat", "look at", "this bird", tense="will")
    assert found.german(last=True) == "die Katze diesen Vogel ansehen wird"


def test_adjectives_agree_in_all_three_cases():
    wanted = {
        ("the", False): ("der alte Hund", "den alten Hund", "dem alten Hund"),
        ("my", False): ("mein alter Hund", "meinen alten Hund", "meinem alten Hund"),
        ("these", True): ("diese alten Hunde", "diese alten Hunde", "diesen alten Hunden"),
        ("", True): ("alte Hunde", "alte Hunde", "alten Hunden"),
    }
    for (determiner, several), forms in wanted.items():
        noun = Phrase(determiner, ADJECTIVES.index("old"), NOUNS.index("dog"), several)
        assert tuple(noun.german(case) for case in ("subject", "object", "place")) == forms


@pytest.fixture(scope="module")
def small() -> PairSet:
    record.start(tiny=True)
    return translation.generated(LessonConfig(tiny=True))


def test_three_parts_of_which_two_have_combinations_of_their_own(small):
    parts = [{source for source, _ in part} for part in (small.train, small.val, small._test)]
    assert [len(part) for part in parts] == list(translation.ROWS[True])
    assert len(set.union(*parts)) == sum(translation.ROWS[True])
    combined = [set.union(*(translation.combinations(s) for s in part)) for part in parts]
    assert translation.share_with_new(small) == 1.0
    known = {(a, n) for a in ADJECTIVES for row in translation.NOUNS for n in row[:2]}
    assert set.union(*combined) <= known
    for part, train in ((1, combined[0]), (2, combined[0])):
        for source in parts[part]:
            assert not translation.combinations(source) <= train


def test_the_test_part_counts_its_readers(small):
    record.start(tiny=True)
    small.fingerprints()
    assert record.current().test_reads == 0
    assert len(small.test()) == translation.ROWS[True][2] and record.current().test_reads == 1


def test_the_same_seed_gives_the_same_sentences(small):
    again = translation.generated(LessonConfig(tiny=True))
    other = translation.generated(LessonConfig(tiny=True, seed=1))
    assert again.train == small.train and again._test == small._test
    assert {s for s, _ in other.train} != {s for s, _ in small.train}


def test_simple_methods_stay_far_below_the_target(monkeypatch):
    """Three quarters of 0.95; also a word's neighbour in training has other endings."""
    monkeypatch.setitem(translation.ROWS, False, (2000, 10, 100))
    pairs = translation.generated(LessonConfig())
    by_words = translation.word_by_word(pairs.train)
    right = [sentences.same_words(by_words(source), target) for source, target in pairs._test]
    copied = [sentences.same_words(source, target) for source, target in pairs._test]
    assert sum(right) / len(right) < 0.1 and not any(copied)


def test_word_by_word_finds_who_goes_with_whom():
    train = [("the dog", "der Hund"), ("the man", "der Mann"), ("a dog", "ein Hund"),
             ("a man", "ein Mann")]  # fmt: skip
    by_words = translation.word_by_word(train)
    assert by_words("the man a dog, Tom") == "der Mann ein Hund , Tom"
    assert translation.split_words("A-b 我们3天。") == ["A", "-", "b", "我", "们", "3", "天", "。"]


# ---- real sentences


def written(path: Path, content: bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def mirror(tmp_path, monkeypatch) -> Path:
    """Both sets in small, to be downloaded from files; gives the cache."""
    for name in ("COURSE_DATA", "COURSE_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sources, "cache_dir", lambda: tmp_path / "cache")
    digests, found = {}, {}
    for file, source in translation.MULTI30K_SOURCES.items():
        part, language = file.split(".")
        lines = [f"{language} {part}  {n}" for n in range(9)]  # two blanks become one
        lines.append("a dog" if language == "en" and part != "val" else f"{part} Hund")
        text = "".join(f"{line}\n" for line in lines).encode()
        packed = gzip.compress(text)
        digest = written(tmp_path / "owner" / f"{file}.gz", packed)
        url = (tmp_path / "owner" / f"{file}.gz").as_uri()
        parts = (Part(f"{file}.gz", f"sha256:{digest}", len(packed), (url,)),)
        found[file] = Source(source.name, source.file, parts, source.convert, "")
        digests[file] = (digest, len(packed), hashlib.sha256(text).hexdigest())
    monkeypatch.setattr(translation, "MULTI30K_SOURCES", found)
    monkeypatch.setattr(translation, "MULTI30K_FILES", digests)

    text = "\ufeff" + "".join(f"No. {n // 2}.\t{n} 号。\tCC-BY\n" for n in range(400))
    digest = written(tmp_path / "owner" / "cmn.txt", text.encode())
    url = (tmp_path / "owner" / "cmn.txt").as_uri()
    part = Part("cmn.txt", f"sha256:{digest}", len(text.encode()), (url,))
    monkeypatch.setattr(translation, "ENZH_DIGEST", digest)
    source = translation.ENZH_SOURCE
    small = Source(source.name, source.file, (part,), source.convert, "")
    monkeypatch.setattr(translation, "ENZH_SOURCE", small)
    record.start(tiny=False)
    return tmp_path / "cache" / "text"


def test_multi30k_is_downloaded_and_read(mirror, capsys):
    pairs = translation.load_pairs(LessonConfig(data="multi30k"))
    # the caption that training shares with the test part is left out of training
    assert [len(part) for part in (pairs.train, pairs.val, pairs._test)] == [9, 10, 10]
    assert pairs.train[3] == ("en train 3", "de train 3")
    assert pairs.languages == ("English", "German")
    assert "data: multi30k" in capsys.readouterr().out
    assert (mirror / "multi30k" / "train.en").read_text().startswith("en train  0\n")


def test_english_and_chinese_are_split_by_the_english_sentence(mirror):
    pairs = translation.load_pairs(LessonConfig(data="enzh"))
    train, val, test = pairs.fingerprints()
    assert not set(train) & {*val, *test} and not set(val) & set(test)
    assert len(train) > 300 and len(set(val)) == len(val) > 0 and len(set(test)) == len(test) > 0
    assert ("No. 0.", "0 号。") in pairs.train + pairs.val + pairs._test
    tiny = translation.load_pairs(LessonConfig(data="enzh", tiny=True))
    assert tiny.train == pairs.train[: translation.ROWS[True][0]]


def test_the_other_way_no_sentence_stands_in_two_parts():
    train = [("Hi.", "嗨。"), ("Hello.", "你好。"), ("Good day.", "你好。"), ("Run!", "快跑！")]
    val = [("Hurry!", "快跑！"), ("Hey.", "嘿。")]
    pairs = translation.PairSet("enzh", ("English", "Chinese"), train, val, [("Yo.", "嘿。")])
    turned = pairs.reversed()
    assert turned.languages == ("Chinese", "English")
    assert turned.train == [("嗨。", "Hi."), ("你好。", "Hello."), ("你好。", "Good day.")]
    assert turned.val == [("快跑！", "Hurry!")] and turned._test == [("嘿。", "Yo.")]

    cfg = LessonConfig(data="generated", tiny=True)
    there, back = translation.load_pairs(cfg), translation.load_pairs(cfg, reverse=True)
    assert back.val == [pair[::-1] for pair in there.val]
    assert translation.share_with_new(back) == translation.share_with_new(there) == 1


@pytest.mark.parametrize("data, file", [("multi30k", "multi30k/val.de"), ("enzh", "cmn-eng.txt")])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"<html>log in</html>"])
def test_a_damaged_file_is_one_sentence(mirror, data, file, content):
    cfg = LessonConfig(data=data)
    translation.load_pairs(cfg)
    (mirror / file).write_bytes(content)
    record.start(tiny=False)
    with pytest.raises(LessonError, match=r"Delete it: where it is missing") as caught:
        translation.load_pairs(cfg)
    assert "\n" not in str(caught.value) and record.current().data == []


def test_what_the_sources_promise():
    for source in (*translation.MULTI30K_SOURCES.values(), translation.ENZH_SOURCE):
        (part,) = source.parts
        assert len(part.urls) == 2 and all(url.endswith(f"/{part.file}") for url in part.urls)
        assert len(part.digest) == len("sha256:") + 64 and part.size > 1000


def test_the_real_sets_where_COURSE_DATA_holds_them():
    if not REAL or not (Path(REAL) / translation.ENZH_SOURCE.file).exists():
        return
    cfg = LessonConfig(data="multi30k", data_dir=Path(REAL))
    pairs = translation.load_pairs(cfg)
    assert [len(part) for part in (pairs.train, pairs.val, pairs._test)] == [28_999, 1014, 1000]
    pairs = translation.load_enzh(LessonConfig(data_dir=Path(REAL)))
    assert len(pairs.train) > 26_000 and len(pairs.val) > 800 and len(pairs._test) > 800


# ---- sentences as tensors


def test_texts_are_split_without_loss():
    for text in ("A man, 3.5 m tall (Tom's).", "我们 3 天。a_b", "x", "…"):
        assert "".join(sentences.split_text(text)) == sentences.BLANK + text.replace(" ", "▁")
    assert sentences.split_text("") == [] or sentences.split_text("") == ["▁"]
    assert sentences.split_text("  a \n b ") == ["▁a", "▁b"]


def test_subwords_there_and_back():
    words, characters = sentences.count_words([("a cab", "ab.")])
    assert words == {"▁a": 1, "▁cab": 1, "▁ab": 1, ".": 1} and characters == [*".abc▁"]
    tokenizer = sentences.Subwords(characters, [("a", "b")], lambda word, merges: list(word))
    assert len(tokenizer) == 4 + 5 + 1 and tokenizer.names[-1] == "ab"
    numbers = tokenizer.encode("cab a")
    assert tokenizer.decode([*numbers, END, *numbers]) == "cab a"
    assert tokenizer.encode("x")[-1] == sentences.UNKNOWN and tokenizer.strange("xay") == ["x", "y"]
    for text, words in (
        ("", "nothing to translate"),
        ("zebra", "never had: e r z"),
        ("a" * 9, "has 10 tokens"),
    ):
        with pytest.raises(LessonError, match=words):
            tokenizer.encode_one(text, longest=4)
    assert tokenizer.encode_one("ab", 4) == tokenizer.encode("ab")


def test_pairs_that_are_too_long_or_empty_are_left_out():
    tokenizer = sentences.Subwords("▁abc", [], lambda word, merges: list(word))
    pairs = [("a", "b")] * 8 + [("abcabc", "a"), ("a", "abcabc"), ("", "a")]
    rows = sentences.encode_pairs(tokenizer, pairs, longest=5)
    assert len(rows) == 8 and rows[0][1].tolist() == [*tokenizer.encode("b"), END]
    with pytest.raises(LessonError, match="only 0 pairs"):
        sentences.encode_pairs(tokenizer, pairs, longest=1)


def test_of_a_sentence_with_two_translations_the_first_stays():
    rows = [(torch.tensor([5, 6]), 1), (torch.tensor([5]), 2), (torch.tensor([5, 6]), 3)]
    assert [target for _, target in sentences.one_of_each(rows)] == [1, 2]


def test_padding_is_counted_on_both_sides():
    texts = [([5], [5, 6, END]), ([5, 6], [END])]
    rows = [(torch.tensor(source), torch.tensor(target)) for source, target in texts]
    source, target = sentences.pad(rows)
    assert source.tolist() == [[5, PAD], [5, 6]]
    assert target.tolist() == [[5, 6, END], [END, PAD, PAD]]
    assert sentences.share_of_padding([(source, target)]) == 3 / 10


def test_every_text_up_to_its_end():
    texts, counted = sentences.every_text(symbols=4, length=2)
    assert texts.shape == (16, 2) and len({tuple(row) for row in texts.tolist()}) == 16
    for text, count in zip(texts, counted.sum(dim=1).tolist()):
        assert count == len(sentences.until_end(text))
    assert sentences.until_end(torch.tensor([5, END, 6, END])) == [5, END]
