"""Lesson 7.4: what its claims cannot see in a short run, and what later lessons rely on."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformer_layers import FUNCTIONS, both_orders, check_last_norm, pair_of_layers, randn

from common.lessons import load_lesson

lesson = load_lesson("phase07_transformer/04-transformer-encoder")
causal_mask = load_lesson("phase07_transformer/01-self-attention").causal_mask
CONFIG = lesson.Config(tiny=True, device="cpu", names=8, steps=2, deep_steps=2)


@both_orders
@pytest.mark.parametrize("activation", FUNCTIONS)
@pytest.mark.parametrize("eps", [1e-5, 0.1])
def test_a_layer_is_torchs(norm_first, activation, eps):
    kinds = (lesson.EncoderLayer, nn.TransformerEncoderLayer)
    ours, theirs = pair_of_layers(*kinds, lesson.load_torch, norm_first, activation, eps)
    x = randn(2, 5, 12)
    torch.testing.assert_close(ours(x), theirs(x))
    mask = causal_mask(5)
    torch.testing.assert_close(ours(x, mask), theirs(x, src_mask=~mask))


def test_activations():
    x = randn(3, 4, 12)
    for name, function in FUNCTIONS.items():
        network = lesson.FeedForward(12, 20, activation=name).double()
        torch.testing.assert_close(network(x), network.outer(function(network.inner(x))))
    assert lesson.FeedForward(12, 20).dropout.p == 0
    with pytest.raises(ValueError, match="no activation “swish”, only relu, gelu, gelu_tanh"):
        lesson.FeedForward(12, 20, activation="swish")


def test_dropout_in_the_network_is_behind_the_activation():
    network = lesson.FeedForward(4, 2000, dropout=0.5).double()
    with torch.no_grad():
        network.inner.weight.zero_()
        network.inner.bias.fill_(1.0)
        network.outer.weight.fill_(1.0)
        network.outer.bias.zero_()
    kept = network(randn(1, 1, 4))[0, 0, 0] / 2  # each unit that is kept gives 2
    assert kept == kept.round() and 850 < kept < 1150


def test_the_defaults_are_the_papers():
    layer = lesson.EncoderLayer(12, 3, 20)
    assert not layer.norm_first and layer.dropout.p == 0.1 and layer.feed_forward.dropout.p == 0.1
    assert layer.attention.dropout.p == 0.1 and isinstance(layer.feed_forward.activation, nn.ReLU)
    assert layer.attention_norm.eps == layer.feed_forward_norm.eps == 1e-5
    assert not lesson.Encoder(1, 12, 3, 20).layers[0].norm_first


def test_recall_is_one_postnorm_layer_with_64_hidden_units():
    (layer,) = lesson.Recall(CONFIG).encoder.layers
    assert not layer.norm_first and layer.feed_forward.inner.out_features == 64


def test_the_last_norm():
    check_last_norm(lesson.Encoder)


@both_orders
def test_a_stack_is_its_layers_one_after_the_other(norm_first):
    encoder = lesson.Encoder(3, 12, 3, 20, 0.2, norm_first, "gelu", 0.01).double().eval()
    lesson.randomize(encoder)
    x = randn(2, 5, 12)
    mask = causal_mask(5)
    wanted = x
    for layer in encoder.layers:
        assert layer.norm_first == norm_first and layer.attention.dropout.p == 0.2
        assert layer.feed_forward_norm.eps == 0.01
        wanted = layer(wanted, mask)
    torch.testing.assert_close(encoder(x, mask), encoder.norm(wanted))
    assert len({weight.data_ptr() for weight in encoder.parameters()}) == len(
        list(encoder.parameters())
    )


def test_the_network_sees_one_position_and_attention_all():
    layer = lesson.EncoderLayer(8, 2, 16).double().eval()
    x = randn(1, 6, 8)
    changed = x.clone()
    changed[:, 3] = randn(8)
    for part, wanted in ((layer.feed_forward, [n == 3 for n in range(6)]), (layer, [True] * 6)):
        moved = (part(changed) - part(x)).abs().amax(dim=2)[0] > 1e-12
        assert moved.tolist() == wanted


def test_parameters_of_the_base_model():
    """The paper's encoder layer, counted in docs/ATTENTION_IS_ALL_YOU_NEED.md."""
    layer = lesson.EncoderLayer(512, 8, 2048)
    assert sum(weight.numel() for weight in layer.parameters()) == 3_152_384
    network = sum(weight.numel() for weight in layer.feed_forward.parameters())
    assert network == 2_099_712


def test_padding_mask():
    tokens = torch.tensor([[5, 0, 3], [0, 0, 7]])
    mask = lesson.padding_mask(tokens)
    assert mask.shape == (2, 1, 1, 3) and mask.dtype == torch.bool
    assert mask[:, 0, 0].tolist() == [[True, False, True], [False, False, True]]
    assert lesson.padding_mask(tokens, pad=3)[0, 0, 0].tolist() == [True, True, False]


@both_orders
def test_padding_changes_nothing_wherever_it_stands(norm_first):
    encoder = lesson.Encoder(2, 12, 3, 20, norm_first=norm_first).double().eval()
    x = randn(1, 4, 12)
    padded = torch.cat([randn(1, 1, 12), x[:, :2], randn(1, 2, 12), x[:, 2:]], dim=1)
    mask = lesson.padding_mask(torch.tensor([[0, 1, 2, 0, 0, 3, 4]]))
    torch.testing.assert_close(encoder(padded, mask)[:, [1, 2, 5, 6]], encoder(x))


def test_a_mean_over_all_positions_counts_the_padding():
    """The note's failure: the mask hides padding from attention, not from what comes after."""
    encoder = lesson.Encoder(2, 12, 3, 20).double().eval()
    x = randn(1, 3, 12)
    mask = lesson.padding_mask(torch.tensor([[1, 2, 3, 0, 0]]))
    outputs = encoder(torch.cat([x, randn(1, 2, 12)], dim=1), mask)
    alone = encoder(x).mean(dim=1)
    torch.testing.assert_close(outputs[:, :3].mean(dim=1), alone)
    assert (outputs.mean(dim=1) - alone).abs().max() > 0.01


def test_the_gradient_passes_a_prenorm_layer_unchanged():
    """With both parts off a pre-norm layer is the identity, a post-norm layer a normalisation."""
    x = randn(2, 5, 12)
    for norm_first in (True, False):
        layer = lesson.EncoderLayer(12, 3, 20, norm_first=norm_first, eps=0.0).double().eval()
        lesson.switch_off(layer.attention.out)
        lesson.switch_off(layer.feed_forward.outer)
        wanted = x if norm_first else F.layer_norm(x, (12,), eps=0.0)
        torch.testing.assert_close(layer(x), wanted)


def test_the_first_gradients_of_postnorm_are_larger_near_the_output():
    """The note's interview answer: twelve layers with Xavier's weights, the last four of them."""
    x, y = lesson.facts(CONFIG, 48)
    size = {}
    for norm_first in (False, True):
        config = lesson.Config(device="cpu")
        model = lesson.make_model(config, n_layers=12, norm_first=norm_first)
        lesson.xavier(model)
        lesson.cross_entropy(model, (x[::5][:128], y[::5][:128])).backward()
        last = model.encoder.layers[8:]
        size[norm_first] = sum(layer.feed_forward.inner.weight.grad.norm() for layer in last)
    assert size[False] > 2 * size[True]


def test_switched_off_stays_off():
    model = lesson.make_model(CONFIG)
    layer = model.encoder.layers[0]
    lesson.switch_off(layer.attention.out)
    before = layer.feed_forward.outer.weight.clone()
    losses = lesson.train(model, lesson.facts(CONFIG, 8), steps=3, lr=0.01)
    assert (layer.attention.out.weight == 0).all() and (layer.attention.out.bias == 0).all()
    assert not torch.equal(layer.feed_forward.outer.weight, before)
    assert len(losses) == 3 and losses[2] < losses[0]


def test_the_object_is_read_at_the_relations_position():
    model = lesson.make_model(CONFIG, n_layers=2, norm_first=True).double()
    x = torch.tensor([[3, 5], [1, 3]])
    vectors = torch.stack([model.subject.weight[x[:, 0]], model.relation.weight[x[:, 1]]], dim=1)
    torch.testing.assert_close(model(x), model.head(model.encoder(vectors)[:, 1]))
    assert model(x).shape == (2, 8) and len(model.encoder.layers) == 2
    assert model.encoder.layers[0].norm_first


def test_without_attention_the_subject_is_unknown():
    model = lesson.make_model(CONFIG).double()
    lesson.switch_off(model.encoder.layers[0].attention.out)
    logits = model(torch.tensor([[0, 5], [7, 5], [0, 6]]))
    assert torch.equal(logits[0], logits[1]) and not torch.allclose(logits[0], logits[2])


def test_facts_are_all_pairs_with_random_objects():
    x, y = lesson.facts(CONFIG, 8)
    assert x.shape == (64, 2) and y.shape == (64,)
    assert len({tuple(row) for row in x.tolist()}) == 64
    assert x.min() == y.min() == 0 and x.max() == y.max() == 7
    assert torch.equal(lesson.facts(CONFIG, 8)[1], y)
    other = lesson.Config(tiny=True, device="cpu", seed=1)
    assert not torch.equal(lesson.facts(other, 8)[1], y)
