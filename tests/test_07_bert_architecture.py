"""Lesson 7.7: what its claims cannot see in a short run, and what later lessons rely on."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from common.data.words import CLS, FIRST, MASK, PAD, SEP, UNK
from common.lessons import load_lesson

lesson = load_lesson("phase07_transformer/07-bert-architecture")
NOT_ASKED = lesson.NOT_ASKED


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_bert(dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    bert = lesson.BERT(40, 16, 24, 2, 4, dropout).double()
    for weight in bert.parameters():
        nn.init.normal_(weight, std=0.3)
    return bert


def test_shapes():
    bert = make_bert().eval()
    tokens = torch.randint(FIRST, 40, (3, 11))
    x, text = bert(tokens)
    assert x.shape == (3, 11, 24) and text.shape == (3, 24)
    assert text.abs().max() < 1
    assert lesson.PreTraining(bert).double().words(x).shape == (3, 11, 40)


def test_a_text_longer_than_the_table_is_refused():
    with pytest.raises(IndexError):
        make_bert()(torch.randint(FIRST, 40, (1, 17)))


def test_without_segments_all_tokens_are_in_the_first_text():
    """And its vector is added: the row of segment 0 counts even where nobody names segments."""
    bert = make_bert().eval()
    tokens = torch.randint(FIRST, 40, (2, 9))
    zeros = torch.zeros_like(tokens)
    torch.testing.assert_close(bert(tokens)[0], bert(tokens, zeros)[0])
    assert not torch.allclose(bert(tokens)[0], bert(tokens, zeros + 1)[0])
    x = bert.tokens(tokens) + bert.positions.table.weight[:9] + bert.segments.weight[0]
    torch.testing.assert_close(bert.embed(tokens), bert.norm(x))


def test_the_vector_of_the_text_is_made_from_the_first_token():
    bert = make_bert().eval()
    x, text = bert(torch.randint(FIRST, 40, (2, 9)))
    wanted = torch.tanh(x[:, 0] @ bert.pooler.weight.T + bert.pooler.bias)
    torch.testing.assert_close(text, wanted)


def test_padding_changes_nothing():
    bert = make_bert().eval()
    tokens = torch.randint(FIRST, 40, (1, 6))
    longer = F.pad(tokens, (0, 5), value=PAD)
    torch.testing.assert_close(bert(longer)[0][:, :6], bert(tokens)[0])
    torch.testing.assert_close(bert(longer)[1], bert(tokens)[1])


def test_dropout_stands_where_berts_does():
    """After the embeddings' norm, in attention and behind both parts; not inside the network."""
    bert = make_bert(dropout=0.5)
    tokens = torch.randint(FIRST, 40, (2, 9))
    assert not torch.allclose(bert(tokens)[0], bert(tokens)[0])
    assert ((bert.embed(tokens) == 0).double().mean() - 0.5).abs() < 0.1
    for layer in bert.encoder.layers:
        assert isinstance(layer.feed_forward.dropout, nn.Identity)
        assert layer.dropout.p == layer.attention.dropout.p == 0.5


def test_first_weights():
    """At width 192 twice as large as at BERT's 768, whose weights begin at 0.02."""
    torch.manual_seed(0)
    model = lesson.PreTraining(lesson.BERT(500, 16, 192, 2, 4))
    for name, weight in model.named_parameters():
        if "norm" in name:
            assert torch.equal(weight, torch.full_like(weight, name.endswith("weight")))
        elif name.endswith("bias"):
            assert (weight == 0).all(), name
        else:
            assert abs(weight.std().item() - 0.04) < 0.004, name


def test_pre_training_leaves_the_weights_that_it_is_given():
    bert = make_bert()
    before = {name: weight.clone() for name, weight in bert.state_dict().items()}
    after = lesson.PreTraining(bert).bert.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


def test_the_table_of_embeddings_is_the_last_layer():
    model = lesson.PreTraining(make_bert()).double()
    names = dict(model.named_parameters())
    assert sum(weight.shape[0] == 40 for weight in names.values()) == 2  # the table, and the bias
    x = torch.randn(5, 24).double()
    hidden = F.layer_norm(F.gelu(model.inner(x)), (24,), eps=1e-12)
    with torch.no_grad():
        model.bias.normal_()
    torch.testing.assert_close(model.words(x), hidden @ model.bert.tokens.weight.T + model.bias)


def test_pre_training_has_the_published_number_of_parameters():
    with torch.device("meta"):
        model = lesson.PreTraining(lesson.BERT(30522, 512, 768, 12, 12))
        large = lesson.BERT(30522, 512, 1024, 24, 16)
    assert sum(weight.numel() for weight in large.parameters()) == 335_141_888
    assert sum(weight.numel() for weight in model.parameters()) == 110_106_428


@pytest.mark.parametrize("special", [PAD, UNK, CLS, SEP, MASK])
def test_special_tokens_are_not_asked_for(special):
    tokens = torch.full((4, 50), special)
    inputs, labels = lesson.ask(tokens, 40, generator(), share=1.0)
    assert torch.equal(inputs, tokens) and (labels == NOT_ASKED).all()


def test_the_first_word_and_the_last_are_asked_for_and_may_stand_in():
    tokens = torch.full((4, 500), FIRST)
    inputs, labels = lesson.ask(tokens, FIRST + 3, generator(), share=1.0)
    assert (labels == FIRST).all()
    assert set(inputs.unique().tolist()) == {MASK, FIRST, FIRST + 1, FIRST + 2}
    assert ((inputs == MASK).double().mean() - 0.8).abs() < 0.04


def test_what_is_not_asked_for_stays():
    tokens = torch.randint(FIRST, 40, (50, 20))
    inputs, labels = lesson.ask(tokens, 40, generator(), share=0.3)
    asked = labels != NOT_ASKED
    assert torch.equal(inputs[~asked], tokens[~asked]) and torch.equal(labels[asked], tokens[asked])
    assert (asked.double().mean() - 0.3).abs() < 0.06


def hugging_faces(name: str, n_layers: int, vocab: int) -> nn.Module:
    """A small model of transformers with large random weights."""
    transformers = pytest.importorskip("transformers")
    size = {"hidden_size": 24, "num_hidden_layers": n_layers, "num_attention_heads": 4}
    size |= {"vocab_size": vocab, "max_position_embeddings": 16, "intermediate_size": 96}
    model = getattr(transformers, name)(transformers.BertConfig(**size)).double().eval()
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.3)
    return model


def test_both_exercises_are_hugging_faces():
    theirs = hugging_faces("BertForPreTraining", n_layers=2, vocab=40)
    ours = lesson.PreTraining(make_bert()).double().eval()
    lesson.load_bert(ours.bert, theirs.bert.state_dict())
    ours.inner.load_state_dict(theirs.cls.predictions.transform.dense.state_dict())
    ours.norm.load_state_dict(theirs.cls.predictions.transform.LayerNorm.state_dict())
    ours.pair.load_state_dict(theirs.cls.seq_relationship.state_dict())
    ours.bias.data.copy_(theirs.cls.predictions.bias)

    tokens = torch.randint(FIRST, 40, (3, 9))
    segments = torch.randint(2, (3, 9))
    labels = torch.where(torch.rand(3, 9) < 0.5, tokens, NOT_ASKED)
    elsewhere = torch.tensor([0, 1, 1])
    options = {"labels": labels, "next_sentence_label": elsewhere}
    wanted = theirs(tokens, token_type_ids=segments, **options)
    found = lesson.pretraining_loss(ours, (tokens, segments, labels, elsewhere))
    torch.testing.assert_close(found, wanted.loss)
    torch.testing.assert_close(ours.words(ours.bert(tokens, segments)[0]), wanted.prediction_logits)


def test_the_gradients_are_hugging_faces():
    theirs = hugging_faces("BertModel", n_layers=3, vocab=50)
    ours = lesson.BERT(50, 16, 24, 3, 4).double().eval()
    lesson.load_bert(ours, theirs.state_dict())

    tokens = torch.randint(FIRST, 50, (3, 13))
    tokens[0, 9:] = PAD
    segments = torch.randint(2, (3, 13))
    is_token = tokens != PAD
    output = theirs(tokens, token_type_ids=segments, attention_mask=is_token)
    x, text = ours(tokens, segments)
    torch.cat([x[is_token], text]).square().sum().backward()
    wanted = torch.cat([output.last_hidden_state[is_token], output.pooler_output])
    wanted.square().sum().backward()
    found = {name: weight.grad for name, weight in ours.named_parameters()}
    # as if they were weights: so they get our names
    lesson.load_bert(ours, {name: weight.grad for name, weight in theirs.named_parameters()})
    for name, weight in ours.named_parameters():
        torch.testing.assert_close(found[name], weight.detach())


def test_the_embeddings_are_dropped_as_by_torch():
    bert = make_bert(dropout=0.1).eval()
    tokens = torch.randint(FIRST, 40, (30, 8))
    torch.manual_seed(0)
    wanted = F.dropout(bert.embed(tokens), 0.1)
    torch.manual_seed(0)
    torch.testing.assert_close(bert.train().embed(tokens), wanted)
    assert lesson.BERT(10, 8, 4, 2, 1).dropout.p == 0.1


def test_the_loss_by_hand():
    """Words of probability 1/2 and 1/8, a pair of 3/4: weights of 0 leave only the biases."""
    model = lesson.PreTraining(lesson.BERT(8, 4, 4, 1, 1)).double()
    nn.init.zeros_(model.bert.tokens.weight)
    nn.init.zeros_(model.pair.weight)
    model.bias.data = torch.tensor([1, 1, 1, 1, 1, 8, 2, 1]).double().log()
    model.pair.bias.data = torch.tensor([3, 1]).double().log()
    labels = torch.tensor([[5, NOT_ASKED, 6]])
    inputs, segments = torch.tensor([[MASK, 7, 6]]), torch.tensor([[0, 0, 1]])
    loss = lesson.pretraining_loss(model, (inputs, segments, labels, torch.tensor([0])))
    assert loss.item() == pytest.approx(2 * math.log(2) + math.log(4 / 3))


def test_a_tenth_of_what_is_asked_for_is_another_word():
    """60,000 words, all different: the share that the claim `kinds` leaves to be deduced."""
    tokens = torch.arange(FIRST, FIRST + 60_000).reshape(2000, 30)
    inputs, labels = lesson.ask(tokens, FIRST + 60_000, generator())
    seen = inputs[labels != NOT_ASKED]
    other = (seen != MASK) & (seen != labels[labels != NOT_ASKED])
    assert abs(other.double().mean().item() - 0.1) < 0.0126
    assert seen[other].min() >= FIRST


def test_weights_of_another_model_are_refused():
    weights = make_bert().state_dict()
    with pytest.raises(RuntimeError, match="Missing key"):
        lesson.load_bert(make_bert(), {"pooler.dense.bias": weights["pooler.bias"]})


def test_frequencies_are_those_of_training():
    train = torch.tensor([FIRST] * 6 + [FIRST + 1] * 3 + [FIRST + 2] + [UNK] * 7)
    labels = torch.tensor([[NOT_ASKED, FIRST + 1, FIRST], [FIRST + 2, NOT_ASKED, FIRST]])
    loss, right = lesson.by_frequency(train, labels)
    assert math.isclose(loss, -math.log(0.3 * 0.6 * 0.1 * 0.6) / 4) and right == 0.5


def test_counts_of_neighbours_are_as_good_as_a_small_bert():
    """The note's sentence: how far below the frequencies, with the weights 0.2, 0.4 and 0.4."""
    cfg = lesson.Config(device="cpu")
    words, train, val = lesson.load_words(cfg, cfg.vocabulary)
    vocab = len(words)
    inputs, _, labels, _ = lesson.make_batch(cfg, val, vocab, n=1000, seed=1)
    unigram, _ = lesson.by_frequency(train, labels)
    follows = torch.zeros(vocab, vocab, dtype=torch.float64)
    follows.index_put_((train[:-1], train[1:]), torch.ones(1).double(), accumulate=True)
    frequency = torch.bincount(train, minlength=vocab).double()
    frequency[:FIRST] = 0
    frequency = frequency / frequency.sum()

    row, column = torch.nonzero(labels != NOT_ASKED, as_tuple=True)
    p = 0.2 * frequency.expand(len(row), -1)
    for counts, step in ((follows, -1), (follows.T, 1)):
        neighbour = inputs[row, column + step]
        found = counts[neighbour].clone()
        found[:, :FIRST] = 0
        total = found.sum(dim=1, keepdim=True)
        # beside a special token, or one that training never has there: the frequencies
        known = (neighbour >= FIRST)[:, None] & (total > 0)
        p = p + 0.4 * torch.where(known, found / total.clamp(min=1), frequency)
    loss = -p.gather(1, labels[row, column][:, None]).log().mean().item()
    assert 0.9 < unigram - loss < 1.2


def test_evaluate_asks_only_for_what_is_asked():
    model = lesson.PreTraining(make_bert()).double()
    inputs = torch.randint(FIRST, 40, (4, 9))
    labels = torch.full((4, 9), NOT_ASKED)
    logits = model.eval().words(model.bert(inputs)[0])
    labels[1, 3] = logits[1, 3].argmax()
    labels[2, 5] = logits[2, 5].argmin()
    judged = model.pair(model.bert(inputs)[1]).argmax(dim=1)
    judged[0] = 1 - judged[0]
    model.train()
    found = lesson.evaluate(model, (inputs, torch.zeros_like(inputs), labels, judged))
    assert found["right"] == 0.5 and found["pairs"] == 0.75
    wanted = F.cross_entropy(logits[[1, 2], [3, 5]], labels[[1, 2], [3, 5]])
    assert math.isclose(found["loss"], wanted.item()) and not model.training


def test_a_batch_follows_from_its_seed():
    cfg = lesson.Config(tiny=True, device="cpu", length=4)
    other = lesson.Config(tiny=True, device="cpu", length=4, seed=1)
    words = torch.randint(FIRST, 40, (500,))
    first = lesson.make_batch(cfg, words, 40, 20, seed=3)
    again = lesson.make_batch(cfg, words, 40, 20, seed=3)
    third = lesson.make_batch(other, words, 40, 20, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert not torch.equal(first[0], third[0])
    assert [part.shape for part in first] == [(20, 11), (20, 11), (20, 11), (20,)]


def test_a_loss_over_all_words_is_lowered_by_copying():
    """The note's failure: who repeats what it sees is right in 85 + 1.5 of 100 words."""
    tokens = torch.randint(FIRST, 1000, (200, 50))
    inputs, _ = lesson.ask(tokens, 1000, generator())
    copied = (inputs == tokens).double().mean().item()
    assert math.isclose(copied, 0.865, abs_tol=0.015)


def test_shares_are_exact_at_their_limits(monkeypatch):
    """A random number equal to the share is over it: 0.15 of all, of these 0.8 and 0.1."""
    chance = torch.tensor([[0.15, 0.0, 0.0, 0.0]])
    kind = torch.tensor([[0.0, 0.75, 0.8, 0.9]])
    draws = [chance, kind]
    monkeypatch.setattr(torch, "rand", lambda *shape, generator: draws.pop(0))
    monkeypatch.setattr(torch, "randint", lambda low, high, shape, generator: torch.full(shape, 99))
    tokens = torch.tensor([[20, 21, 22, 23]])
    inputs, labels = lesson.ask(tokens, 100, generator())
    assert inputs.tolist() == [[20, lesson.MASK, 22, 99]]
    assert labels.tolist() == [[lesson.NOT_ASKED, 21, 22, 23]]
