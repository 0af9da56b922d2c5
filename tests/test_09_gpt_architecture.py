"""Lesson 7.9: what its claims cannot see in a short run, and what later lessons rely on."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from common.data.text import Corpus
from common.lessons import load_lesson

lesson = load_lesson("phase07_transformer/09-gpt-architecture")
CONFIG = lesson.Config(tiny=True, device="cpu", dim=32, layers=2, context=32)


def small(**options) -> nn.Module:
    """Weights that differ, so that an index that is off by one is seen."""
    torch.manual_seed(0)
    model = lesson.GPT(11, 8, 12, 2, 3, **options).double()
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.5)
    return model


def test_the_model_is_what_its_parts_make():
    model = small().eval()
    tokens = torch.randint(11, (2, 5))
    x = model.tokens.weight[tokens] + model.positions.table.weight[:5]
    mask = torch.ones(5, 5, dtype=torch.bool).tril()
    for layer in model.encoder.layers:
        x = layer(x, mask)
    wanted = model.encoder.norm(x) @ model.tokens.weight.T
    assert wanted.shape == (2, 5, 11)
    torch.testing.assert_close(model(tokens), wanted)


def test_the_future_changes_nothing():
    model = small().eval()
    texts = torch.randint(11, (3, 8))
    changed = texts.clone()
    changed[:, 5] = (texts[:, 5] + 1) % 11
    moved = (model(changed) - model(texts)).abs().amax(dim=(0, 2)) > 1e-9
    assert moved.tolist() == [False] * 5 + [True] * 3


def test_start_moves_the_positions_and_the_mask(monkeypatch):
    model = small().eval()
    seen = {}

    def encoder(x, mask):
        seen.update(x=x, mask=mask)
        return x

    monkeypatch.setattr(model.encoder, "forward", encoder)
    tokens = torch.randint(11, (2, 3))
    model(tokens, start=4)
    wanted = model.tokens.weight[tokens] + model.positions.table.weight[4:7]
    torch.testing.assert_close(seen["x"], wanted)
    assert seen["mask"].tolist() == [[True] * 5 + [False] * 2, [True] * 6 + [False], [True] * 7]


def test_a_text_longer_than_the_context_is_refused():
    with pytest.raises(IndexError):
        small()(torch.zeros(1, 9, dtype=torch.long))


def test_the_table_is_used_twice():
    """A token that is not read gets a gradient too, from the output."""
    model = small().eval()
    assert sum(w.numel() for w in model.parameters()) == sum(lesson.parameters(11, 8, 12, 2))
    lesson.next_token_loss(model, torch.tensor([[1, 2, 3]])).backward()
    assert (model.tokens.weight.grad.abs().amax(dim=1) > 0).all()
    assert (model.positions.table.weight.grad[2:] == 0).all()


def test_dropout_acts_in_training_only_and_where_gpt_2_has_it():
    model = small(dropout=0.5)
    tokens = torch.randint(11, (2, 5))
    assert not torch.allclose(model(tokens), model(tokens))
    layer = model.encoder.layers[0]
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    torch.testing.assert_close(layer.feed_forward(x), layer.feed_forward(x))
    assert model.dropout.p == layer.dropout.p == layer.attention.dropout.p == 0.5
    model.eval()
    torch.testing.assert_close(model(tokens), model(tokens))


def test_the_embeddings_are_dropped_too(monkeypatch):
    model = small(dropout=0.5)
    seen = {}

    def encoder(x, mask):
        seen["x"] = x
        return x

    monkeypatch.setattr(model.encoder, "forward", encoder)
    tokens = torch.randint(11, (2, 8))
    model(tokens)
    vectors = model.tokens.weight[tokens] + model.positions.table.weight
    kept = seen["x"] / vectors
    assert set(kept.round(decimals=9).unique().tolist()) == {0.0, 2.0}


def test_dropout_is_gpt_2s_by_default():
    model = small()
    assert model.dropout.p == model.encoder.layers[0].dropout.p == 0.1


@pytest.mark.parametrize("layers", [1, 8])
def test_the_first_weights(layers):
    model = lesson.GPT(300, 200, 128, layers, 4)
    small_ones = 0.02 / math.sqrt(2 * layers)
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            assert (weight == 0).all(), name
        elif "norm" in name:
            assert (weight == 1).all(), name
        else:
            wanted = small_ones if ".out." in name or ".outer." in name else 0.02
            assert weight.std().item() == pytest.approx(wanted, rel=0.05), name
            assert abs(weight.mean().item()) < 0.05 * wanted, name


def test_published_names_with_and_without_their_prefix():
    import transformers

    size = {"vocab_size": 11, "n_positions": 8, "n_embd": 12, "n_layer": 2, "n_head": 3}
    config = transformers.GPT2Config(**size, bos_token_id=0, eos_token_id=0)
    theirs = transformers.GPT2LMHeadModel(config).double().eval()
    for weight in theirs.parameters():
        nn.init.normal_(weight, std=0.3)
    tokens = torch.randint(11, (2, 8))
    for model in (theirs, theirs.transformer):
        ours = small().eval()
        lesson.load_gpt2(ours, model.state_dict())
        torch.testing.assert_close(ours(tokens), theirs(tokens).logits)


def test_the_loss_is_that_of_the_token_that_follows():
    model = small().eval()
    texts = torch.randint(11, (2, 5))
    p = model(texts).softmax(dim=2)
    given = [p[row, t, texts[row, t + 1]].log() for row in range(2) for t in range(4)]
    torch.testing.assert_close(lesson.next_token_loss(model, texts), -torch.stack(given).mean())


def test_without_the_shift_the_loss_means_nothing():
    """The note's failure: it falls to nearly 0 on tokens drawn at random, where ln 11 is best."""
    texts = torch.randint(11, (200, 9))

    def unshifted(model, batch):
        return F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, :-1].flatten())

    torch.manual_seed(0)
    model = lesson.GPT(11, 8, 32, 2, 4, dropout=0)
    adam = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss = unshifted(model, texts)
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert loss.item() < 0.05
    assert lesson.next_token_loss(model, texts).item() > math.log(11)


def test_windows_are_pieces_of_the_text():
    text = torch.arange(100)
    batches = lesson.windows(text, 7, 30, seed=3)
    assert len(batches) == 30 and batches[0].shape == (16, 8)
    everything = torch.stack(batches)
    assert (everything.diff(dim=-1) == 1).all()
    assert everything.min() == 0 and everything.max() == 99
    assert torch.equal(everything, torch.stack(lesson.windows(text, 7, 30, seed=3)))
    assert not torch.equal(everything, torch.stack(lesson.windows(text, 7, 30, seed=4)))


def test_bits_are_those_of_windows_that_do_not_overlap():
    """A model that knows the rule n -> n + 1 once it has read two numbers."""

    class Rule(nn.Module):
        def __init__(self):
            super().__init__()
            self.positions = lesson.LearnedPositions(4, 1)

        def forward(self, tokens):
            logits = 100.0 * F.one_hot((tokens + 1) % 8, 8).float()
            logits[:, 0] = 0
            return logits

    text = torch.arange(4 * 130 + 1) % 8  # 130 windows: two parts of 64, and one of 2
    assert lesson.bits_needed(Rule(), text) == pytest.approx(3 / 4)


def test_training_reports_bits_and_lowers_them():
    torch.manual_seed(0)
    model = lesson.GPT(8, 12, 16, 1, 2, dropout=0)
    bits = lesson.train(model, lesson.windows(torch.arange(200) % 8, 12, 120, seed=0))
    assert len(bits) == 3
    assert 0.5 < bits[0] < 3 and bits[2] < 0.2


def test_counted_bits_are_those_of_the_text_project():
    text = "the cat sat on the mat. " * 30
    corpus = Corpus("cats", text[:600], text[600:], "")
    found = lesson.counted_bits(corpus, orders=3)
    assert len(found) == 3 and found[0] > found[1] > found[2] > 0
    vocabulary = corpus.vocabulary
    model = lesson.counting.fit_n_grams(corpus.train, 3, len(vocabulary))["kneser_ney"][2]
    val = corpus.val
    p = [model(val[i], val[i - 3 : i]) for i in lesson.counting.places(val)]
    assert found[2] == pytest.approx(-np.log2(p).mean())


def test_the_same_seed_makes_the_same_model():
    first, second = (lesson.make_model(CONFIG, 9) for _ in range(2))
    for one, two in zip(first.parameters(), second.parameters()):
        assert torch.equal(one, two)
    assert first.dropout.p == 0
