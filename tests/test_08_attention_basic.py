"""Lesson 6.8: what its claims cannot see in a short run."""

import pytest
import torch
import torch.nn.functional as F

from common.data.dates import PAD, START
from common.lessons import load_lesson

lesson = load_lesson("phase06_rnn/08-attention-basic")
DECODERS = (lesson.LuongDecoder, lesson.BahdanauDecoder)
SOURCE = torch.tensor([[3, 4, 5, 6], [6, 3, PAD, PAD]])
INPUTS = torch.tensor([[START, 6, 5], [START, 3, 6]])


def model_with(decoder: type) -> torch.nn.Module:
    torch.manual_seed(0)
    return lesson.Attention(lesson.BiEncoder(7, 4, 8), decoder(7, 4, 8)).double()


def test_the_encoder_reads_a_text_in_a_batch_as_it_reads_it_alone():
    encoder = model_with(lesson.LuongDecoder).encoder
    states, last = encoder(SOURCE)
    assert states.shape == (2, 4, 8) and last.shape == (2, 8)
    for row, length in ((0, 4), (1, 2)):
        alone, alone_last = encoder(SOURCE[row : row + 1, :length])
        torch.testing.assert_close(states[row, :length], alone[0])
        torch.testing.assert_close(last[row], alone_last[0])
    assert (states[1, 2:] == 0).all()


def test_a_short_text_may_stand_before_a_long_one():
    encoder = model_with(lesson.LuongDecoder).encoder
    states, last = encoder(SOURCE)
    other_states, other_last = encoder(SOURCE.flip(0))
    torch.testing.assert_close(other_states, states.flip(0))
    torch.testing.assert_close(other_last, last.flip(0))


def test_the_last_state_is_that_of_the_left_reader_then_that_of_the_right_one():
    states, last = model_with(lesson.LuongDecoder).encoder(SOURCE)
    torch.testing.assert_close(last[0], torch.cat([states[0, 3, :4], states[0, 0, 4:]]))
    torch.testing.assert_close(last[1], torch.cat([states[1, 1, :4], states[1, 0, 4:]]))


@pytest.mark.parametrize("decoder", DECODERS)
def test_every_look_stays_within_the_text(decoder):
    logits, state, weights = model_with(decoder).decode(SOURCE, INPUTS)
    assert logits.shape == (2, 3, 7) and state.shape == (2, 8) and weights.shape == (2, 3, 4)
    torch.testing.assert_close(weights.sum(dim=2), torch.ones(2, 3, dtype=torch.float64))
    assert (weights[1, :, 2:] == 0).all() and (weights[0] > 0).all()


@pytest.mark.parametrize("decoder", DECODERS)
def test_more_padding_changes_nothing(decoder):
    model = model_with(decoder)
    longer = torch.cat([SOURCE, torch.full((2, 3), PAD)], dim=1)
    torch.testing.assert_close(model(longer, INPUTS), model(SOURCE, INPUTS))


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_decoder_goes_on_where_it_stopped(decoder):
    model = model_with(decoder)
    memory, state = model.encoder(SOURCE)
    whole, last, _ = model.decoder(INPUTS, state, memory, SOURCE != PAD)
    first, state, _ = model.decoder(INPUTS[:, :2], state, memory, SOURCE != PAD)
    rest, state, _ = model.decoder(INPUTS[:, 2:], state, memory, SOURCE != PAD)
    torch.testing.assert_close(torch.cat([first, rest], dim=1), whole)
    torch.testing.assert_close(state, last)


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_future_is_not_seen(decoder):
    model = model_with(decoder)
    changed = INPUTS.clone()
    changed[:, 2] = 4
    torch.testing.assert_close(model(SOURCE, changed)[:, :2], model(SOURCE, INPUTS)[:, :2])


def test_only_bahdanau_puts_what_it_saw_into_the_next_state():
    memory = torch.randn(2, 4, 8, dtype=torch.float64)
    state = torch.randn(2, 8, dtype=torch.float64)
    mask = torch.ones(2, 4, dtype=torch.bool)
    for decoder, moves in zip(DECODERS, (False, True)):
        model = model_with(decoder).decoder
        before = model(INPUTS, state, memory, mask)[1]
        after = model(INPUTS, state, memory + 1, mask)[1]
        assert torch.equal(before, after) != moves


def test_luong_mixes_the_states_of_its_gru_with_what_they_see():
    decoder = model_with(lesson.LuongDecoder).decoder
    memory = torch.randn(2, 4, 8, dtype=torch.float64)
    first = torch.randn(2, 8, dtype=torch.float64)
    states, _ = decoder.gru(decoder.embedding(INPUTS), first[None])
    mask = (SOURCE != PAD)[:, None]
    seen = F.scaled_dot_product_attention(decoder.query(states), memory, memory, mask, scale=1.0)
    wanted = decoder.head(decoder.mix(torch.cat([seen, states], dim=-1)).tanh())
    ours, last, _ = decoder(INPUTS, first, memory, SOURCE != PAD)
    torch.testing.assert_close(ours, wanted)
    torch.testing.assert_close(last, states[:, -1])


def test_bahdanau_looks_at_one_position_after_the_other_in_one_step_after_the_other():
    decoder = model_with(lesson.BahdanauDecoder).decoder
    memory = torch.randn(2, 4, 8, dtype=torch.float64)
    first = torch.randn(2, 8, dtype=torch.float64)
    state = first[1]
    logits = []
    for symbol in INPUTS[1]:
        pairs = [decoder.query(state) + decoder.key(key) for key in memory[1, :2]]
        weights = torch.stack([decoder.v(pair.tanh()) for pair in pairs]).softmax(dim=0)
        context = (weights * memory[1, :2]).sum(dim=0)
        vector = decoder.embedding.weight[symbol]
        state = decoder.cell(torch.cat([vector, context]), state)
        logits.append(decoder.head(torch.cat([state, context])))
    ours, last, _ = decoder(INPUTS, first, memory, SOURCE != PAD)
    torch.testing.assert_close(ours[1], torch.stack(logits))
    torch.testing.assert_close(last[1], state)


def test_a_state_of_the_memory_gets_its_gradient_as_a_value_and_as_a_key():
    """The two terms of the note, with dot products as scores."""
    q, g = torch.randn(2, 8, dtype=torch.float64)
    h = torch.randn(5, 8, dtype=torch.float64, requires_grad=True)
    context, weights = lesson.attend((h @ q)[None, None], h[None], torch.ones(1, 5).bool())
    (found,) = torch.autograd.grad((context[0, 0] * g).sum(), h)
    w, c = weights[0, 0, :, None], context[0, 0]
    torch.testing.assert_close(found, w * g + w * ((h - c) @ g)[:, None] * q)


def test_an_untrained_model_guesses():
    """ln 29 = 3.37: that many symbols there are."""
    model = lesson.make_model(lesson.Config(), lesson.LuongDecoder)
    strings = lesson.reversed_strings(lesson.Config(), 16, 8)
    loss = lesson.seq2seq.teacher_forced_loss(model, strings)
    assert 3.2 < loss < 3.6


def test_the_mirrored_weights_put_the_letter_to_write_on_the_diagonal(monkeypatch):
    cfg = lesson.Config(tiny=True)
    model = lesson.make_model(cfg, lesson.LuongDecoder)
    weights = torch.eye(4).flip(1).expand(cfg.tests, 4, 4)
    monkeypatch.setattr(model, "decode", lambda source, inputs: (None, None, weights))
    assert torch.equal(lesson.mirrored_weights(cfg, model, 4)[0], torch.eye(4))


def test_greedy_answers_are_those_of_lesson_seven():
    torch.manual_seed(0)
    model = lesson.seq2seq.Seq2Seq(7, 4, 8)
    step = model.decoder.step
    wanted, _ = lesson.seq2seq.greedy(step, model.start(SOURCE), 3)
    assert torch.equal(lesson.answer(model, SOURCE, 3), wanted)


def test_scores_have_no_bias():
    """Of the softmax a constant is no part, and the papers have none."""
    for decoder, names in zip(DECODERS, (["query"], ["query", "key", "v"])):
        model = decoder(7, 4, 8)
        for name in names:
            assert getattr(model, name).bias is None
