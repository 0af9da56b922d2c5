"""Lesson 7.1: what its claims cannot see in a short run, and what later lessons rely on."""

import math

import pytest
import torch
import torch.nn.functional as F

from common.lessons import load_lesson

lesson = load_lesson("phase07_transformer/01-self-attention")
CONFIG = lesson.Config(tiny=True, device="cpu")


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_axes_in_front_are_kept(batch):
    query, key, value = randn(*batch, 4, 8), randn(*batch, 5, 8), randn(*batch, 5, 7)
    outputs, weights = lesson.attention(query, key, value)
    assert outputs.shape == (*batch, 4, 7) and weights.shape == (*batch, 4, 5)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(*batch, 4, dtype=torch.float64))
    torch.testing.assert_close(outputs, F.scaled_dot_product_attention(query, key, value))


@pytest.mark.parametrize("shape", [(5,), (4, 5), (2, 1, 1, 5), (2, 1, 4, 5), (1, 3, 4, 1)])
def test_a_mask_is_broadcast(shape):
    query, key, value = randn(2, 3, 4, 8), randn(2, 3, 5, 8), randn(2, 3, 5, 7)
    mask = torch.rand(shape) < 0.6
    outputs, weights = lesson.attention(query, key, value, mask)
    whole = mask.expand(2, 3, 4, 5)
    assert (weights[~whole] == 0).all() and (weights[whole] > 0).all()
    torch.testing.assert_close(outputs, F.scaled_dot_product_attention(query, key, value, whole))


def test_a_row_that_may_look_nowhere_leaves_the_other_rows_alone():
    """Outputs and gradients are torch's, and no nan arises on the way."""
    query, key, value = randn(2, 4, 8), randn(2, 5, 8), randn(2, 5, 7)
    mask = torch.rand(2, 4, 5) < 0.6
    mask[..., 1] = True
    mask[1, 2] = False
    ours, _ = lesson.attention(query, key, value, mask)
    theirs = F.scaled_dot_product_attention(query, key, value, mask)
    torch.testing.assert_close(ours, theirs)
    for found, wanted in zip(
        torch.autograd.grad(ours.square().sum(), (query, key, value)),
        torch.autograd.grad(theirs.square().sum(), (query, key, value)),
    ):
        assert found.isfinite().all()
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_it_stays_in_the_dtype_of_its_inputs(dtype):
    query = torch.randn(2, 4, 8).to(dtype)
    mask = lesson.causal_mask(4)
    mask[0] = False
    outputs, weights = lesson.attention(query, query, query, mask)
    assert outputs.dtype == weights.dtype == dtype
    assert outputs.isfinite().all() and (outputs[:, 0] == 0).all()


def test_large_scores_do_not_overflow():
    query = 1e4 * torch.eye(3, dtype=torch.float64)
    _, weights = lesson.attention(query, query, query)
    torch.testing.assert_close(weights, torch.eye(3, dtype=torch.float64))


def test_the_causal_mask():
    wanted = [[True, False, False], [True, True, False], [True, True, True]]
    assert lesson.causal_mask(3).tolist() == wanted
    assert lesson.causal_mask(1).dtype == torch.bool


def test_a_layer_keeps_its_weights_without_their_graph():
    layer = lesson.SelfAttention(8)
    assert layer.weights.numel() == 0
    layer(torch.randn(2, 5, 8), lesson.causal_mask(5))
    assert layer.weights.shape == (2, 5, 5) and not layer.weights.requires_grad
    assert (layer.weights.triu(1) == 0).all()
    assert {name for name, _ in layer.named_parameters()} == {
        "query.weight",
        "key.weight",
        "value.weight",
    }


def test_a_layer_tells_query_key_and_value_apart():
    layer = lesson.SelfAttention(8).double()
    x = randn(2, 5, 8)
    mask = torch.rand(2, 5, 5) < 0.6
    heads = [x @ part.weight.T for part in (layer.query, layer.key, layer.value)]
    torch.testing.assert_close(layer(x, mask), F.scaled_dot_product_attention(*heads, mask))


def test_the_bias_of_a_key_changes_nothing():
    """The note's exercise: it adds the same to all scores of a row."""
    query, key, value = randn(2, 4, 8), randn(2, 5, 8), randn(2, 5, 7)
    before, _ = lesson.attention(query, key, value)
    after, _ = lesson.attention(query, key + torch.randn(8, dtype=torch.float64), value)
    torch.testing.assert_close(after, before)


def test_one_causal_layer_does_not_know_the_order_of_the_past_but_two_do():
    """The note's exercise."""
    first, second = lesson.SelfAttention(8).double(), lesson.SelfAttention(8).double()
    mask = lesson.causal_mask(5)
    x = torch.randn(1, 5, 8, dtype=torch.float64)
    other = x[:, [2, 0, 3, 1, 4]]  # the last one stays the last
    torch.testing.assert_close(first(other, mask)[:, -1], first(x, mask)[:, -1])
    difference = second(first(other, mask), mask) - second(first(x, mask), mask)
    assert difference[:, -1].abs().max() > 1e-6


def test_the_gradient_of_the_scores():
    """The note's formula, and its example: weights 0.99 and 0.01 let a hundredth through."""
    scores = torch.tensor([math.log(99), 0.0], dtype=torch.float64, requires_grad=True)
    weight = scores.softmax(dim=0)[0]
    (gradient,) = torch.autograd.grad(weight, scores)
    torch.testing.assert_close(gradient[0].item(), 0.99 * 0.01)


def test_lists_ask_for_the_digit_beside_their_letter():
    x, y = lesson.lists(CONFIG, 200, seed=3)
    assert x.shape == (200, lesson.PAIRS + 1, 2) and y.shape == (200,)
    for pairs, digit in zip(x.tolist(), y.tolist()):
        *pairs, (asked, mark) = pairs
        assert mark == lesson.QUESTION
        assert len(dict(pairs)) == lesson.PAIRS and dict(pairs)[asked] == digit
    places = (x[:, :-1, 0] == x[:, -1:, 0]).double().mean(dim=0)
    assert (places > 0.05).all()
    assert len(y.unique()) == lesson.DIGITS


def test_lists_follow_from_their_seed():
    x, _ = lesson.lists(CONFIG, 50, seed=1)
    assert torch.equal(x, lesson.lists(CONFIG, 50, seed=1)[0])
    assert not torch.equal(x, lesson.lists(CONFIG, 50, seed=100)[0])
    other = lesson.Config(tiny=True, device="cpu", seed=1)
    assert not torch.equal(x, lesson.lists(other, 50, seed=1)[0])


def test_the_network_is_what_torch_would_build():
    model = lesson.make_model(CONFIG, "attention").double()
    x, _ = lesson.lists(CONFIG, 20, seed=1)
    vectors = model.letter.weight[x[..., 0]] + model.digit.weight[x[..., 1]]
    heads = [part(vectors) for part in (model.attention.query, model.attention.key)]
    seen = F.scaled_dot_product_attention(*heads, model.attention.value(vectors))
    first, _, second = model.head
    hidden = F.gelu((vectors + seen)[:, -1] @ first.weight.T + first.bias)
    torch.testing.assert_close(model(x), hidden @ second.weight.T + second.bias)
    assert second.out_features == lesson.DIGITS
    assert model.digit.num_embeddings == lesson.QUESTION + 1


def test_the_root_can_be_undone():
    model = lesson.make_model(CONFIG, "no_root")
    layer = lesson.make_model(CONFIG, "attention").attention
    x = torch.randn(2, lesson.PAIRS + 1, CONFIG.dim)
    scores = layer.query(x) @ layer.key(x).mT
    model.attention(x)
    torch.testing.assert_close(model.attention.weights, scores.softmax(dim=-1).detach())


def test_a_small_start_differs_from_the_root_in_the_steps_only():
    """The note's argument: the first queries are the same, a step of Adam moves them further."""
    x = torch.randn(2, lesson.PAIRS + 1, CONFIG.dim)
    first, steps = [], []
    for kind in ("attention", "small_start"):
        layer = lesson.make_model(CONFIG, kind).attention
        layer(x).square().sum().backward()
        first.append(layer.query(x).detach())
        torch.optim.Adam([layer.query.weight], lr=0.01).step()
        steps.append((layer.query(x).detach() - first[-1]).norm().item())
    torch.testing.assert_close(first[1], first[0])
    assert steps[1] / steps[0] == pytest.approx(math.sqrt(CONFIG.dim), rel=0.01)


def test_alone_the_question_sees_no_pair():
    model = lesson.make_model(CONFIG, "alone")
    x, _ = lesson.lists(CONFIG, 20, seed=1)
    other, _ = lesson.lists(CONFIG, 20, seed=2)
    other[:, -1] = x[:, -1]
    torch.testing.assert_close(model(other), model(x))


def test_equal_weights_stay_equal_in_training():
    model = lesson.train(CONFIG, lesson.make_model(CONFIG, "mean"), lr=0.01)
    x, _ = lesson.lists(CONFIG, 20, seed=1)
    model(x)
    wanted = torch.full_like(model.attention.weights, 1 / (lesson.PAIRS + 1))
    torch.testing.assert_close(model.attention.weights, wanted)
