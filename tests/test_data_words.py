"""Words: how a text is split, numbered, and written again."""

import numpy as np
import pytest
import torch

from common.config import LessonConfig
from common.data.words import (
    CLS,
    FIRST,
    MASK,
    PAD,
    SEP,
    SPECIAL,
    UNK,
    Words,
    in_another_order,
    learn_words,
    load_words,
    pairs,
    split_words,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("The GIL's 3.12 rules", ["the", "gil", "'", "s", "3", ".", "12", "rules"]),
        ("a\n====\nb ... ==>", ["a", "=", "b", ".", "=", ">"]),
        ("__init__(self)", ["_", "init", "_", "(", "self", ")"]),
        ("naïve 深度", ["naïve", "深度"]),
        ("if [MASK] is", ["if", "[mask]", "is"]),
        ("  \n ", []),
    ],
)
def test_split(text, wanted):
    assert split_words(text) == wanted


def test_the_special_ones_come_first():
    assert [SPECIAL[n] for n in (PAD, UNK, CLS, SEP, MASK)] == list(SPECIAL)
    words = Words(["if", "else"])
    assert len(words) == 7 and words.numbers["if"] == FIRST
    assert words.encode("IF x [MASK] else").tolist() == [5, UNK, MASK, 6]
    assert words.encode("").dtype == np.int64
    assert words.decode([CLS, 5, SEP]) == "[CLS] if [SEP]"


def test_the_commonest_are_learned_and_equals_stand_in_order():
    text = "b b b a a c c once [MASK] [MASK]"
    assert learn_words(text, most=20).names == (*SPECIAL, "b", "a", "c")
    assert learn_words(text, most=7).names == (*SPECIAL, "b", "a")


def test_pairs_have_the_published_form():
    words = torch.arange(FIRST, 5000)
    tokens, segments, elsewhere = pairs(words, 300, 4, generator(3))
    assert tokens.shape == segments.shape == (300, 11) and elsewhere.shape == (300,)
    assert (tokens[:, 0] == CLS).all() and (tokens[:, [5, 10]] == SEP).all()
    assert segments.tolist() == [[0] * 6 + [1] * 5] * 300
    assert (tokens[:, 2:5] - tokens[:, 1:4] == 1).all()
    assert (tokens[:, 7:10] - tokens[:, 6:9] == 1).all()
    assert abs(elsewhere.double().mean().item() - 0.5) < 0.12
    same = pairs(words, 300, 4, generator(3))
    other = pairs(words, 300, 4, generator(4))
    assert torch.equal(tokens, same[0]) and not torch.equal(tokens, other[0])


def test_pairs_reach_the_last_word_and_not_beyond():
    words = torch.arange(FIRST, FIRST + 9)
    tokens, _, _ = pairs(words, 500, 4, generator())
    assert {FIRST, FIRST + 8} <= set(tokens.flatten().tolist())


def test_the_second_text_follows_where_it_is_said_to():
    tokens, _, elsewhere = pairs(torch.arange(FIRST, 50_000), 500, 4, generator())
    assert torch.equal(tokens[:, 6] == tokens[:, 4] + 1, elsewhere == 0)


def test_another_order_keeps_special_tokens_and_what_shall_stay():
    tokens = torch.cat([torch.arange(50), torch.arange(50)]).reshape(2, 50)
    stays = torch.zeros(2, 50, dtype=torch.bool)
    stays[0, 10:20] = True
    moved = in_another_order(tokens, stays, seed=0)
    assert torch.equal(moved.sort(dim=1).values, tokens.sort(dim=1).values)
    fixed = stays | (tokens < FIRST)
    assert torch.equal(moved[fixed], tokens[fixed])
    assert (moved[~fixed] == tokens[~fixed]).double().mean() < 0.15
    assert torch.equal(tokens[0], torch.arange(50))
    assert torch.equal(moved, in_another_order(tokens, stays, seed=0))


def test_pythons_documentation_as_words():
    words, train, val = load_words(LessonConfig(tiny=True, data="python"), 300)
    assert 100 < len(words) <= 300
    assert len(train) > 5 * len(val) > 500
    assert train.max() == len(words) - 1
