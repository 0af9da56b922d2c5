"""Lesson 7.5: what its claims cannot see in a short run, and what later lessons rely on."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformer_layers import FUNCTIONS, both_orders, check_last_norm, pair_of_layers, randn

from common.data import sequences
from common.data.sequences import END, FIRST, PAD, START
from common.lessons import load_lesson

lesson = load_lesson("phase07_transformer/05-transformer-decoder")
encoder = load_lesson("phase07_transformer/04-transformer-encoder")
causal_mask = load_lesson("phase07_transformer/01-self-attention").causal_mask
CONFIG = lesson.Config(tiny=True, device="cpu", steps=2)


@both_orders
@pytest.mark.parametrize("activation", FUNCTIONS)
@pytest.mark.parametrize("eps", [1e-5, 0.1])
def test_a_layer_is_torchs(norm_first, activation, eps):
    kinds = (lesson.DecoderLayer, nn.TransformerDecoderLayer)
    ours, theirs = pair_of_layers(*kinds, lesson.load_torch, norm_first, activation, eps)
    x, memory = randn(2, 5, 12), randn(2, 4, 12)
    torch.testing.assert_close(ours(x, memory), theirs(x, memory))
    mask = causal_mask(5)
    torch.testing.assert_close(ours(x, memory, mask), theirs(x, memory, tgt_mask=~mask))
    seen = torch.rand(5, 4) < 0.6
    seen[:, 1] = True
    wanted = theirs(x, memory, tgt_mask=~mask, memory_mask=~seen)
    torch.testing.assert_close(ours(x, memory, mask, seen), wanted)


def test_the_defaults_are_the_papers():
    layer = lesson.DecoderLayer(12, 3, 20)
    assert not layer.norm_first and layer.dropout.p == 0.1 and layer.feed_forward.dropout.p == 0.1
    assert layer.self_attention.dropout.p == layer.cross_attention.dropout.p == 0.1
    assert isinstance(layer.feed_forward.activation, nn.ReLU)
    for norm in (layer.self_attention_norm, layer.cross_attention_norm, layer.feed_forward_norm):
        assert norm.eps == 1e-5


def test_parameters_of_the_base_model():
    """The paper's decoder layer, counted in docs/ATTENTION_IS_ALL_YOU_NEED.md."""
    layer = lesson.DecoderLayer(512, 8, 2048)
    assert sum(weight.numel() for weight in layer.parameters()) == 4_204_032


def test_the_last_norm():
    check_last_norm(lesson.Decoder)


@both_orders
def test_a_stack_is_its_layers_and_all_read_the_same_memory(norm_first):
    decoder = lesson.Decoder(3, 12, 3, 20, 0.2, norm_first, "gelu", 0.01).double().eval()
    encoder.randomize(decoder)
    x, memory = randn(2, 5, 12), randn(2, 4, 12)
    memory_mask = encoder.padding_mask(torch.tensor([[1, 2, 0, 0], [1, 2, 3, 4]]))
    for mask in (None, torch.ones(5, 5, dtype=torch.bool)):
        wanted = x
        for layer in decoder.layers:
            assert layer.norm_first == norm_first and layer.dropout.p == 0.2
            assert layer.feed_forward_norm.eps == 0.01
            used = causal_mask(5) if mask is None else mask
            wanted = layer(wanted, memory, used, memory_mask)
        outputs = decoder(x, memory, memory_mask, mask)
        torch.testing.assert_close(outputs, decoder.norm(wanted))


@both_orders
def test_a_stack_in_evaluation_is_torchs(norm_first):
    """The claims `post` and `pre` compare in training, and one sequence."""
    options = {"norm_first": norm_first, "activation": "gelu"}
    layer = nn.TransformerDecoderLayer(12, 3, 20, batch_first=True, **options)
    theirs = nn.TransformerDecoder(layer, 2, nn.LayerNorm(12)).double().eval()
    encoder.randomize(theirs)
    ours = lesson.Decoder(2, 12, 3, 20, **options, final_norm=True).double().eval()
    for our_layer, their_layer in zip(ours.layers, theirs.layers):
        lesson.load_torch(our_layer, their_layer)
    ours.norm.load_state_dict(theirs.norm.state_dict())

    x, memory = randn(2, 5, 12).requires_grad_(), randn(2, 4, 12).requires_grad_()
    source = torch.tensor([[7, 5, PAD, PAD], [4, 6, 9, 8]])
    outputs = ours(x, memory, encoder.padding_mask(source))
    masks = {"tgt_mask": ~causal_mask(5), "memory_key_padding_mask": source == PAD}
    wanted = theirs(x, memory, **masks)
    torch.testing.assert_close(outputs, wanted)
    found = torch.autograd.grad(outputs.square().sum(), (x, memory))
    torch.testing.assert_close(found, torch.autograd.grad(wanted.square().sum(), (x, memory)))


@both_orders
def test_changing_the_future_changes_no_past_output(norm_first):
    decoder = lesson.Decoder(3, 12, 3, 20, norm_first=norm_first).double().eval()
    x, memory = randn(2, 6, 12), randn(2, 4, 12)
    for position in range(6):
        changed = x.clone()
        changed[:, position:] = randn(2, 6 - position, 12)
        outputs, others = decoder(x, memory), decoder(changed, memory)
        assert torch.equal(outputs[:, :position], others[:, :position])
        assert (outputs - others)[:, position:].abs().amax(dim=(0, 2)).min() > 1e-6


def test_padding_in_the_memory_is_not_read():
    decoder = lesson.Decoder(2, 12, 3, 20).double().eval()
    x, memory = randn(1, 5, 12), randn(1, 3, 12)
    mask = encoder.padding_mask(torch.tensor([[1, 2, 3, 0, 0]]))
    longer = torch.cat([memory, randn(1, 2, 12)], dim=1)
    torch.testing.assert_close(decoder(x, longer, mask), decoder(x, memory))


def test_the_numbers_of_the_pairs_are_read():
    source, target = sequences.expansions(CONFIG, 3, seed=0)
    inputs = lesson.teacher_inputs(target)
    model = lesson.make_model(CONFIG).double()
    other = source.clone()
    other[:, 0, 1] = other[:, 0, 1] % sequences.MOST_TIMES + 1
    moved = lesson.moved(model(other, inputs), model(source, inputs))
    assert moved.tolist() == [True] * lesson.LENGTH


@pytest.mark.parametrize("peek", [False, True])
def test_positions_are_added_to_the_memory_and_only_by_peeking_to_the_text(peek):
    model = lesson.make_model(CONFIG, peek).double()
    source, target = sequences.expansions(CONFIG, 3, seed=0)
    inputs = lesson.teacher_inputs(target)
    table = lesson.sinusoidal(lesson.LENGTH, CONFIG.dim).to(model.table)
    letters, numbers = source.unbind(dim=2)
    memory = model.symbol.weight[letters] + model.number.weight[numbers] + table[:4]
    x = model.symbol.weight[inputs]
    mask = causal_mask(lesson.LENGTH)
    if peek:
        x = x + table
        mask = torch.ones_like(mask)
    for layer in model.decoder.layers:
        x = layer(x, memory, mask, encoder.padding_mask(letters))
    torch.testing.assert_close(model(source, inputs), model.head(x))


def test_the_expanders_sizes():
    model = lesson.Expander(CONFIG)
    assert not model.peek and len(model.decoder.layers) == 2
    assert model.number.num_embeddings == sequences.MOST_TIMES + 1
    for layer in model.decoder.layers:
        assert layer.feed_forward.inner.out_features == 4 * CONFIG.dim


def test_without_self_attention_nothing_is_counted():
    """The note's sentence: after each c, the logits are the same."""
    source, _ = sequences.expansions(CONFIG, 1, seed=0)
    inputs = torch.tensor([[START, FIRST, FIRST, FIRST + 1, FIRST]])
    model = lesson.make_model(CONFIG).double()
    with_attention = model(source, inputs)[0]
    for layer in model.decoder.layers:
        encoder.switch_off(layer.self_attention.out)
    logits = model(source, inputs)[0]
    torch.testing.assert_close(logits[[2, 4]], logits[[1, 1]])
    assert (logits[3] - logits[1]).abs().max() > 1e-6
    assert (with_attention[[2, 4]] - with_attention[[1, 1]]).abs().amax(dim=1).min() > 1e-6


def test_an_exchange_in_its_text_changes_all_logits_of_the_peeking_model():
    source, _ = sequences.expansions(CONFIG, 1, seed=1)
    model = lesson.make_model(CONFIG, peek=True).double()
    inputs = torch.arange(FIRST, FIRST + lesson.LENGTH)[None]
    swapped = inputs[:, [0, 2, 1, *range(3, lesson.LENGTH)]]
    moved = lesson.moved(model(source, swapped), model(source, inputs))
    assert moved.tolist() == [True] * lesson.LENGTH


def test_the_peeking_model_sees_the_whole_text_and_its_order():
    source, target = sequences.expansions(CONFIG, 4, seed=1)
    inputs = lesson.teacher_inputs(target)
    changed = inputs.clone()
    changed[:, 1] = FIRST + (changed[:, 1] - FIRST + 1) % 16
    swapped = inputs[:, [1, 0, *range(2, lesson.LENGTH)]]
    for peek in (False, True):
        model = lesson.make_model(CONFIG, peek).double()
        logits = model(source, inputs)
        moved = (model(source, changed) - logits).abs().amax(dim=(0, 2))
        assert (moved[0] > 1e-9) == peek and (moved[1:] > 1e-9).all()
        moved = (model(source, swapped) - logits).abs().amax(dim=(0, 2))[2:]
        assert (moved > 1e-9).any() or not peek


def test_write_goes_on_from_what_it_wrote(monkeypatch):
    """A model that always names the symbol after the last one."""
    model = lesson.make_model(CONFIG)
    monkeypatch.setattr(
        model, "forward", lambda source, inputs: F.one_hot(inputs + 1, lesson.SYMBOLS).double()
    )
    written = lesson.write(model, torch.zeros(2, 4, 2, dtype=torch.long))
    assert written.tolist() == [list(range(START + 1, START + 1 + lesson.LENGTH))] * 2


def test_shares_leave_out_what_stands_behind_the_end(monkeypatch):
    model = lesson.make_model(CONFIG)
    target = torch.tensor([[5, 5, END] + [PAD] * 10, [6, END] + [PAD] * 11])
    answers = target.clone()
    answers[:, 4:] = 7  # behind the end
    answers[1, 0] = 8

    def forward(source, inputs):
        return F.one_hot(answers[:, : inputs.shape[1]], lesson.SYMBOLS).double()

    monkeypatch.setattr(model, "forward", forward)
    symbols, texts = lesson.shares(model, (torch.zeros(2, 4, 2), target))
    assert symbols == pytest.approx(4 / 5) and texts == 0.5


def test_the_loss_leaves_padding_out():
    model = lesson.make_model(CONFIG).double()
    source, target = sequences.expansions(CONFIG, 8, seed=1)
    logits = model(source, lesson.teacher_inputs(target))
    log_p = logits.log_softmax(dim=2).gather(2, target[..., None])[..., 0]
    known = target != PAD
    wanted = -log_p[known].mean()
    torch.testing.assert_close(lesson.cross_entropy(model, (source, target)), wanted)


def test_expansions_keep_their_recipe():
    x, y = sequences.expansions(CONFIG, 300, seed=4)
    assert x.shape == (300, 4, 2) and y.shape == (300, 13)
    sizes = set()
    for pairs, target in zip(x.tolist(), y.tolist()):
        used = [(letter, number) for letter, number in pairs if letter != PAD]
        assert pairs == [list(pair) for pair in used] + [[PAD, 0]] * (4 - len(used))
        wanted = [letter for letter, number in used for _ in range(number)] + [END]
        assert target == wanted + [PAD] * (13 - len(wanted))
        assert len({letter for letter, _ in used}) == len(used)
        sizes.add(len(used))
    letters, numbers = x.unbind(dim=2)
    assert sizes == {2, 3, 4} and set(numbers.unique().tolist()) == {0, 1, 2, 3}
    assert letters[letters != PAD].min() == FIRST and letters.max() == FIRST + 15


def test_expansions_follow_from_their_seeds():
    first, again = (sequences.expansions(CONFIG, 50, seed=1) for _ in range(2))
    other = sequences.expansions(CONFIG, 50, seed=2)
    elsewhere = sequences.expansions(lesson.Config(device="cpu", seed=1), 50, seed=1)
    for part in range(2):
        assert torch.equal(first[part], again[part])
        assert not torch.equal(first[part], other[part])
        assert not torch.equal(first[part], elsewhere[part])
