"""Lesson 7.2: what its claims cannot see in a short run, and what later lessons rely on."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from common.lessons import load_lesson

lesson = load_lesson("phase07_transformer/02-multi-head-attention")
CONFIG = lesson.Config(tiny=True, device="cpu")


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64)


def pair_of_layers(dim: int, n_heads: int, dropout: float = 0.0, bias: bool = True):
    ours = lesson.MultiHeadAttention(dim, n_heads, dropout, bias).double()
    theirs = nn.MultiheadAttention(dim, n_heads, dropout, bias, batch_first=True).double()
    for weight in theirs.parameters():
        nn.init.normal_(weight)
    lesson.load_torch(ours, theirs)
    return ours, theirs


@pytest.mark.parametrize("n_heads", [1, 2, 3, 12])
@pytest.mark.parametrize("bias", [True, False])
def test_without_a_memory_x_answers_itself(n_heads, bias):
    ours, theirs = pair_of_layers(12, n_heads, bias=bias)
    assert ours.weights.numel() == 0
    x = randn(2, 4, 12)
    outputs, weights = theirs(x, x, x, average_attn_weights=False)
    torch.testing.assert_close(ours(x), outputs)
    torch.testing.assert_close(ours.weights, weights.detach())
    assert ours.weights.shape == (2, n_heads, 4, 4) and not ours.weights.requires_grad
    torch.testing.assert_close(ours(x, x), outputs)


@pytest.mark.parametrize("shape", [(5,), (4, 5), (2, 1, 1, 5), (3, 1, 5), (2, 3, 4, 5)])
def test_a_mask_is_broadcast(shape):
    ours, theirs = pair_of_layers(12, 3)
    x, memory = randn(2, 4, 12), randn(2, 5, 12)
    mask = torch.rand(shape) < 0.6
    mask[..., 1] = True
    whole = mask.expand(2, 3, 4, 5)
    outputs, _ = theirs(x, memory, memory, attn_mask=~whole.flatten(0, 1))
    torch.testing.assert_close(ours(x, memory, mask), outputs)
    assert (ours.weights[~whole] == 0).all()


def test_a_memory_of_nothing_but_padding_gives_the_bias_of_the_last_layer():
    """torch agrees, unless it is asked for the weights: then it gives nan."""
    ours, theirs = pair_of_layers(12, 3)
    x, memory = randn(2, 4, 12), randn(2, 5, 12)
    mask = torch.ones(2, 1, 1, 5, dtype=torch.bool)
    mask[1] = False
    outputs = ours(x, memory, mask)
    torch.testing.assert_close(outputs[1], ours.out.bias.expand(4, 12))
    options = {"key_padding_mask": ~mask[:, 0, 0]}
    found, _ = theirs(x, memory, memory, need_weights=False, **options)
    torch.testing.assert_close(outputs, found)
    found, _ = theirs(x, memory, memory, **options)
    assert found[1].isnan().all()


def test_a_width_must_be_a_multiple_of_the_heads():
    with pytest.raises(ValueError, match="12 cannot be divided among 5 heads"):
        lesson.MultiHeadAttention(12, 5)


def test_split_and_join_undo_each_other():
    layer = lesson.MultiHeadAttention(12, 3)
    x = torch.arange(2 * 4 * 12).reshape(2, 4, 12)
    heads = layer.split(x)
    assert heads.shape == (2, 3, 4, 4)
    assert torch.equal(heads[1, 2, 3], x[1, 3, 8:12])
    assert torch.equal(layer.join(heads), x)


def test_without_the_transpose_the_future_leaks(monkeypatch):
    """The note's failure: position 0 depends on position 4. As it should be, it does not."""
    layer = lesson.MultiHeadAttention(12, 3).double()
    mask = torch.ones(6, 6).tril().bool()
    x = randn(1, 6, 12)
    changed = x.clone()
    changed[:, 4] += 1
    assert torch.equal(layer(x, mask=mask)[:, :4], layer(changed, mask=mask)[:, :4])
    monkeypatch.setattr(layer, "split", lambda x: x.reshape(1, 3, 6, 4))
    assert (layer(x, mask=mask) - layer(changed, mask=mask))[:, 0].abs().max() > 1e-3


def test_dropout_acts_in_training_only_and_on_the_weights():
    layer = lesson.MultiHeadAttention(12, 3, dropout=0.5).double()
    x = randn(2, 6, 12)
    assert not torch.allclose(layer(x), layer(x))
    torch.testing.assert_close(layer.weights.sum(dim=-1), torch.ones(2, 3, 6).double())
    mean = torch.stack([layer(x) for _ in range(4000)]).mean(dim=0)
    layer.eval()
    torch.testing.assert_close(layer(x), layer(x))
    torch.testing.assert_close(mean, layer(x), atol=0.05, rtol=0)


def test_parameters_do_not_depend_on_the_heads():
    for n_heads in (1, 2, 8):
        layer = lesson.MultiHeadAttention(16, n_heads)
        assert sum(weight.numel() for weight in layer.parameters()) == 4 * 16 * 16 + 4 * 16
        layer = lesson.MultiHeadAttention(16, n_heads, bias=False)
        assert sum(weight.numel() for weight in layer.parameters()) == 4 * 16 * 16


def test_the_cost_is_even_where_the_sequence_is_twice_as_long_as_wide():
    layers, pairs = lesson.products(128, 64)
    assert layers == pairs == 4 * 128 * 64 * 64


def test_the_heads_share_nothing_until_the_last_layer():
    """Another key in rows 4 to 7 moves the second head of three, and no other."""
    layer = lesson.MultiHeadAttention(12, 3).double()
    x, memory = randn(2, 4, 12), randn(2, 5, 12)
    layer(x, memory)
    before = layer.weights
    with torch.no_grad():
        layer.key.weight[4:8] += 1
    layer(x, memory)
    moved = (layer.weights - before).abs().amax(dim=(0, 2, 3)) > 1e-6
    assert moved.tolist() == [False, True, False]


def test_one_row_of_weights_is_all_that_one_head_has():
    """The note's limit: with one head the output for a query lies among the values' mixtures."""
    layer = lesson.MultiHeadAttention(2, 1, bias=False).double()
    for part in (layer.query, layer.key, layer.value, layer.out):
        nn.init.eye_(part.weight)
    outputs = layer(randn(3, 4, 2), torch.eye(2, dtype=torch.float64).expand(3, 2, 2))
    torch.testing.assert_close(outputs.sum(dim=-1), torch.ones(3, 4).double())


def test_lists_ask_for_the_digits_beside_their_letters():
    pairs, asked, digits = lesson.lists(CONFIG, 200, seed=3)
    assert pairs.shape == (200, 8, 2) and asked.shape == digits.shape == (200, 4)
    for pair, letters, wanted in zip(pairs.tolist(), asked.tolist(), digits.tolist()):
        table = dict(pair)
        assert len(table) == 8 and len(set(letters)) == 4
        assert [table[letter] for letter in letters] == wanted
    first = (pairs[:, :, 0] == asked[:, :1]).double().mean(dim=0)
    assert (first > 0.05).all()


def test_lists_follow_from_their_seed():
    same = lesson.lists(CONFIG, 50, seed=1)
    other = lesson.lists(lesson.Config(tiny=True, device="cpu", seed=1), 50, seed=1)
    for first, second, third in zip(same, lesson.lists(CONFIG, 50, seed=1), other):
        assert torch.equal(first, second) and not torch.equal(first, third)


def test_the_model_asks_with_a_table_for_each_place():
    model = lesson.make_model(CONFIG, 4).double()
    pairs, asked, _ = lesson.lists(CONFIG, 20, seed=1)
    tables = model.asked.weight.unflatten(0, (4, 26))
    question = sum(tables[place, asked[:, place]] for place in range(4))[:, None]
    memory = model.letter.weight[pairs[..., 0]] + model.digit.weight[pairs[..., 1]]
    first, _, second = model.head
    hidden = F.gelu((question + model.attention(question, memory)) @ first.weight.T + first.bias)
    wanted = (hidden @ second.weight.T + second.bias).reshape(20, 4, 10)
    torch.testing.assert_close(model(pairs, asked), wanted)
    assert model.digit.num_embeddings == 10 and model.letter.num_embeddings == 26


def test_looked_at_reads_the_weights_of_the_letters_asked(monkeypatch):
    model = lesson.make_model(CONFIG, 2)
    pairs = torch.tensor([[[5, 0], [7, 0], [9, 0], [3, 0], [1, 0], [2, 0], [4, 0], [6, 0]]])
    asked = torch.tensor([[7, 5, 6, 3]])
    weights = torch.tensor([[0.1, 0.2, 0, 0.3, 0, 0, 0, 0.4], [1.0, 0, 0, 0, 0, 0, 0, 0]])
    model.attention.weights = weights[None, :, None]
    monkeypatch.setattr(model, "forward", lambda pairs, asked: None)
    wanted = torch.tensor([[0.2, 0.1, 0.4, 0.3], [0, 1.0, 0, 0]])
    torch.testing.assert_close(lesson.looked_at(model, pairs, asked), wanted)
