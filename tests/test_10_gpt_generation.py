"""Lesson 7.10: what its claims cannot see in a short run, and what later lessons rely on."""

import inspect
import math

import pytest
import torch
from torch import nn

from common.lessons import load_lesson

lesson = load_lesson("phase07_transformer/10-gpt-generation")
CONFIG = lesson.Config(tiny=True, device="cpu", dim=32, context=64)


def model_of(vocab: int = 9, context: int = 24) -> nn.Module:
    torch.manual_seed(0)
    return lesson.random_model(vocab, context).double()


def kept_tokens(logits: list[float], *sampling: float) -> list[int]:
    row = lesson.filtered(torch.tensor([logits]), *sampling)
    return (row[0] > -math.inf).nonzero()[:, 0].tolist()


def test_filtered_keeps_what_its_arguments_say():
    logits = torch.tensor([0.15, 0.5, 0.05, 0.3]).log().tolist()
    assert kept_tokens(logits, 1.0) == [0, 1, 2, 3]
    assert kept_tokens(logits, 1.0, 2) == [1, 3]
    assert kept_tokens(logits, 1.0, 99) == [0, 1, 2, 3]
    assert kept_tokens(logits, 1.0, 0, 0.6) == [1, 3]
    assert kept_tokens(logits, 1.0, 0, 0.4) == [1]
    assert kept_tokens(logits, 1.0, 0, 0.0) == [1]
    assert kept_tokens(logits, 1.0, 3, 0.51) == [1]  # of three, the first has 10 / 19
    assert kept_tokens(logits, 1.0, 1) == [1]


def test_a_token_goes_if_those_before_it_have_just_top_p():
    logits = torch.tensor([0.25, 0.5, 0.25]).log().tolist()
    assert kept_tokens(logits, 1.0, 0, 0.5) == [1]


def test_by_default_nothing_is_left_out():
    for function in (lesson.filtered, lesson.sampler):
        defaults = inspect.signature(function).parameters
        assert defaults["top_k"].default == 0 and defaults["top_p"].default == 1.0
    assert inspect.signature(lesson.sampler).parameters["temperature"].default == 1.0


def test_writing_keeps_no_graph():
    """Logits that need a gradient hold on to all activations of all steps."""
    model = model_of()
    prompt = torch.randint(9, (1, 4))
    seen = []

    def choose(logits):
        seen.append(logits.requires_grad)
        return lesson.greedy(logits)

    lesson.generate(model, prompt, 3, choose)
    lesson.generate_anew(model, prompt, 3, choose)
    _, scores = lesson.beam_search(model, prompt, 2, 3)
    assert seen == [False] * 6 and not scores.requires_grad


def test_filtered_divides_what_it_keeps_by_the_temperature():
    logits = torch.tensor([[1.0, 4.0, 2.0]])
    found = lesson.filtered(logits, 0.5, 2)
    assert found.tolist() == [[-math.inf, 8.0, 4.0]]
    assert logits.tolist() == [[1.0, 4.0, 2.0]]


def test_rows_do_not_touch_each_other():
    logits = torch.randn(5, 9)
    whole = lesson.filtered(logits, 0.8, 4, 0.7)
    rows = [lesson.filtered(row[None], 0.8, 4, 0.7) for row in logits]
    assert torch.equal(whole, torch.cat(rows))


def test_a_remembering_layer_gives_all_so_far():
    linear = nn.Linear(4, 3)
    layer = lesson.Remembering(linear)
    x = torch.randn(2, 6, 4)
    assert layer(x[:, :1]).shape == (2, 1, 3)
    assert layer(x[:, 1:4]).shape == (2, 4, 3)
    torch.testing.assert_close(layer(x[:, 4:]), linear(x))


def test_the_cache_is_taken_out_again_even_after_an_error():
    model = model_of()
    before = dict(model.named_parameters())
    with lesson.kv_cache(model) as kept:
        assert len(kept) == 4
    with pytest.raises(IndexError), lesson.kv_cache(model):
        model(torch.zeros(1, 25, dtype=torch.long))
    assert dict(model.named_parameters()) == before
    tokens = torch.randint(9, (1, 5))
    torch.testing.assert_close(model(tokens), model(tokens))


def test_one_generation_leaves_nothing_for_the_next():
    model = model_of()
    prompt = torch.randint(9, (3, 4))
    first = lesson.generate(model, prompt, 12, lesson.greedy)
    assert first.shape == (3, 16) and torch.equal(first[:, :4], prompt)
    assert torch.equal(lesson.generate(model, prompt, 12, lesson.greedy), first)
    assert torch.equal(lesson.generate_anew(model, prompt, 12, lesson.greedy), first)


def test_what_is_kept_grows_by_one_token_a_step():
    model = model_of()
    with lesson.kv_cache(model) as kept:
        model(torch.randint(9, (2, 5)))
        assert {layer.kept.shape for layer in kept} == {(2, 5, 16)}
        model(torch.randint(9, (2, 1)), start=5)
        assert {layer.kept.shape for layer in kept} == {(2, 6, 16)}


def test_a_text_that_outgrows_the_context_is_an_error():
    model = model_of(context=8)
    prompt = torch.zeros(1, 4, dtype=torch.long)
    assert lesson.generate(model, prompt, 5, lesson.greedy).shape == (1, 9)
    with pytest.raises(IndexError):
        lesson.generate(model, prompt, 6, lesson.greedy)


def test_samplers_with_the_same_seed_draw_the_same():
    model = model_of()
    prompt = torch.randint(9, (2, 3))
    texts = [lesson.generate(model, prompt, 10, lesson.sampler(seed)) for seed in (1, 1, 2)]
    assert torch.equal(texts[0], texts[1]) and not torch.equal(texts[0], texts[2])
    cold = lesson.generate(model, prompt, 10, lesson.sampler(3, temperature=1e-4))
    assert torch.equal(cold, lesson.generate(model, prompt, 10, lesson.greedy))


def log_p(model: nn.Module, text: torch.Tensor, known: int) -> float:
    given = model(text[None, :-1]).log_softmax(dim=2)[0]
    return given.gather(1, text[1:, None])[known - 1 :].sum().item()


@torch.no_grad()
def test_a_beam_wide_enough_finds_the_best_text():
    """5 tokens, 3 places: 125 texts. A beam of 25 keeps every beginning."""
    model = model_of(vocab=5)
    prompt = torch.tensor([[2, 4]])
    texts, scores = lesson.beam_search(model, prompt, 25, 3)
    every = [torch.tensor([2, 4, a, b, c]) for a in range(5) for b in range(5) for c in range(5)]
    p = torch.tensor([log_p(model, text, 2) for text in every])
    assert texts.shape == (25, 5)
    assert torch.equal(texts[0], every[int(p.argmax())])
    torch.testing.assert_close(
        scores, p.sort(descending=True).values[:25].double(), rtol=1e-6, atol=1e-5
    )


@torch.no_grad()
def test_a_beam_of_one_is_greedy_and_scores_are_those_of_the_texts():
    model = model_of()
    prompt = torch.randint(9, (1, 4))
    texts, _ = lesson.beam_search(model, prompt, 1, 10)
    assert torch.equal(texts, lesson.generate(model, prompt, 10, lesson.greedy))
    texts, scores = lesson.beam_search(model, prompt, 3, 10)
    wanted = [log_p(model, text, 4) for text in texts]
    torch.testing.assert_close(scores, torch.tensor(wanted, dtype=torch.float64))
    assert (scores.diff() <= 0).all()


def test_beams_need_the_rows_of_the_cache_in_their_order(monkeypatch):
    """The note's failure: without it, a beam goes on from what another one has read."""
    model = model_of()
    prompt = torch.randint(9, (1, 4))
    right, _ = lesson.beam_search(model, prompt, 3, 10)

    class Stubborn(lesson.Remembering):
        """Does not take the rows of another beam."""

        def __setattr__(self, name, value):
            before = getattr(self, "kept", None) if name == "kept" else None
            if before is None or value.shape != before.shape:
                super().__setattr__(name, value)

    monkeypatch.setattr(lesson, "Remembering", Stubborn)
    wrong, _ = lesson.beam_search(model, prompt, 3, 10)
    assert not torch.equal(right, wrong)


def test_share_new():
    texts = torch.tensor([[1] * 9, list(range(9))])
    assert lesson.share_new(texts) == pytest.approx((1 + 6) / 12)


def test_prompts_follow_one_rule_each():
    prompts = lesson.prompts(CONFIG, 2000, new=False, seed=3)
    assert prompts.shape == (2000, 16)
    letters, pairs = prompts[:, ::2], prompts[:, 1::2]
    assert letters.unique().tolist() == [0, 1, 2, 3]
    assert pairs.unique().tolist() == list(range(4, 20))
    assert torch.equal((pairs - 4) // 4, letters)  # an answer names its letter
    for row, answers in zip(letters.tolist(), pairs.tolist()):
        assert len(set(answers)) == len(set(row))
    assert torch.equal(prompts, lesson.prompts(CONFIG, 2000, new=False, seed=3))
    assert not torch.equal(prompts, lesson.prompts(CONFIG, 2000, new=False, seed=4))


def test_no_rule_of_the_tests_is_known():
    found = []
    for new in (False, True):
        prompts = lesson.prompts(CONFIG, 4000, new, seed=3)
        rules = set()
        for row in prompts.tolist():
            rule = dict(zip(row[::2], row[1::2]))
            if len(rule) == 4:
                rules.add(tuple(rule[letter] for letter in range(4)))
        found.append(rules)
    known, new = found
    assert not known & new
    assert len(known) == 205 and len(new) == 51


def test_answers_are_read_behind_each_letter():
    """A model that adds 3: the digits after 0 to 7 examples."""

    class Adds(nn.Module):
        def forward(self, tokens):
            return nn.functional.one_hot((tokens + 3) % 8, 8).float()

    prompts = lesson.prompts(CONFIG, 5, new=True, seed=0)
    assert torch.equal(lesson.answers(Adds(), prompts), (prompts[:, ::2] + 3) % 8)
