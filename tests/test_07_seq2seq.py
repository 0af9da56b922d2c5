"""Lesson 6.7: what its claims cannot see in a short run."""

import torch

from common.data.dates import END, PAD, START
from common.lessons import load_lesson

lesson = load_lesson("phase06_rnn/07-seq2seq")


def small(symbols: int = 7) -> torch.nn.Module:
    torch.manual_seed(0)
    return lesson.Seq2Seq(symbols, 4, 6).double()


def test_an_embedding_starts_with_normal_numbers():
    weight = lesson.Embedding(100, 50).weight
    assert weight.shape == (100, 50) and weight.requires_grad
    assert abs(weight.std() - 1) < 0.05 and abs(weight.mean()) < 0.05


def test_the_gradient_of_a_lookup_is_that_of_torch():
    numbers = torch.tensor([3, 1, 3, 0])
    ours = lesson.Embedding(5, 2)
    gradients = []
    for vectors in (ours(numbers), torch.nn.functional.embedding(numbers, ours.weight)):
        gradients += torch.autograd.grad(vectors.square().sum(), ours.weight)
    assert torch.equal(*gradients)
    assert (gradients[0][[2, 4]] == 0).all() and (gradients[0][[0, 1, 3]] != 0).all()


def test_an_untrained_model_guesses():
    """ln 71 = 4.26: that many symbols there are."""
    data = lesson.dates.load_dates(lesson.Config(tiny=True))
    model = lesson.make_model(lesson.Config())
    loss = lesson.teacher_forced_loss(model, (data.x_train[:16], data.y_train[:16]))
    assert 4.0 < loss < 4.6


def test_every_step_sees_the_vector_of_the_text_and_none_changes_it():
    model = small()
    state = model.start(torch.tensor([[3, 4, 5], [6, 3, PAD]]))
    text, hidden = state.chunk(2, dim=1)
    assert torch.equal(text, hidden)
    inputs = torch.tensor([[START, 3, 4], [START, 4, 5]])
    logits, last = model.decoder(inputs, state)
    assert logits.shape == (2, 3, 7) and torch.equal(last[:, :6], text)
    assert not torch.allclose(last[:, 6:], text)

    # The GRU's own state is left as it was: only what each step sees is another.
    other = torch.cat([text + 1, hidden], dim=1)
    moved = (model.decoder(inputs, other)[0] - logits).abs().amax(dim=2)
    assert (moved > 1e-6).all()


def test_one_call_and_single_steps_agree_in_logits_and_state():
    model = small()
    state = model.start(torch.tensor([[3, 4, 5], [6, 3, PAD]]))
    inputs = torch.tensor([[START, 3, 4], [START, 4, 5]])
    logits, last = model.decoder(inputs, state)
    assert torch.equal(model(torch.tensor([[3, 4, 5], [6, 3, PAD]]), inputs), logits)
    for place in range(3):
        log_p, state = model.decoder.step(inputs[:, place], state)
        torch.testing.assert_close(log_p, logits[:, place].log_softmax(dim=1))
    torch.testing.assert_close(state, last)


def test_no_place_sees_what_it_is_asked_for():
    model = small()
    source = torch.tensor([[3, 4, 5]])
    target = torch.tensor([[3, 4, 5, END]])
    before = model(source, lesson.teacher_inputs(target))
    for place in range(4):
        changed = target.clone()
        changed[0, place] = 6
        after = model(source, lesson.teacher_inputs(changed))
        assert torch.equal(after[:, : place + 1], before[:, : place + 1])
        if place < 3:
            assert not torch.allclose(after[:, place + 1], before[:, place + 1])


def test_the_loss_is_the_mean_over_all_places():
    model = small()
    source, target = torch.tensor([[3, 4], [5, PAD]]), torch.tensor([[4, 3, END], [5, 5, END]])
    log_p = model(source, lesson.teacher_inputs(target)).log_softmax(dim=2)
    wanted = -log_p.gather(2, target[:, :, None]).mean()
    torch.testing.assert_close(lesson.teacher_forced_loss(model, (source, target)), wanted)


def ends_at_once(symbols, state):
    """After START comes END with 0.6 or 3 with 0.4; after 3 comes 3 with certainty."""
    p = torch.zeros(len(symbols), 4)
    p[:, END], p[:, 3] = 0.6, 0.4
    p[symbols == 3] = torch.tensor([0.0, 0.0, 0.0, 1.0])
    return p.log(), state


def test_behind_the_end_comes_nothing_and_costs_nothing():
    symbols, score = lesson.greedy(ends_at_once, torch.zeros(2, 1), length=3)
    assert symbols.tolist() == [[END] * 3] * 2
    torch.testing.assert_close(score.exp(), torch.tensor([0.6, 0.6]))
    found, scores = lesson.beam_search(ends_at_once, torch.zeros(1, 1), width=2, length=3)
    assert found.tolist() == [[END] * 3, [3] * 3]
    torch.testing.assert_close(scores.exp(), torch.tensor([0.6, 0.4]))


def test_a_beam_that_keeps_everything_lists_all_answers_the_best_one_first():
    torch.manual_seed(0)
    decoder = lesson.Decoder(4, 4, 8).double()
    state = torch.randn(1, 16, dtype=torch.float64)
    found, score = lesson.beam_search(decoder.step, state, width=1000, length=4)

    answers = torch.cartesian_prod(*[torch.arange(4)] * 4)
    inputs = lesson.teacher_inputs(answers)
    logits, _ = decoder(inputs, state.expand(256, -1))
    log_p = lesson.after_end(logits.log_softmax(dim=-1).flatten(0, 1), inputs.flatten())
    log_p = log_p.gather(1, answers.reshape(-1, 1)).reshape(256, 4).sum(dim=1)
    number = (found * torch.tensor([64, 16, 4, 1])).sum(dim=1)
    torch.testing.assert_close(score, log_p.sort(descending=True)[0])
    torch.testing.assert_close(score, log_p[number])


def test_the_made_up_language_is_that_of_the_note():
    p = lesson.trap(torch.arange(10), torch.zeros(10, 1))[0].exp()
    wanted = torch.zeros(10, 10)
    wanted[START, 3:5] = torch.tensor([0.55, 0.45])
    wanted[3, 5:8] = torch.tensor([0.34, 0.33, 0.33])
    wanted[4, 8:10] = wanted[8:10, END] = 0.5
    wanted[5:8, END] = 1
    torch.testing.assert_close(p, wanted)


def test_searches_build_no_graph():
    model = small()
    state = model.start(torch.tensor([[3, 4, 5]]))
    for search in (
        lambda: lesson.greedy(model.decoder.step, state, 3),
        lambda: lesson.beam_search(model.decoder.step, state, 2, 3),
    ):
        assert not search()[1].requires_grad


def test_the_rows_of_a_batch_do_not_meet_in_greedy_decoding():
    model = small()
    state = model.start(torch.tensor([[3, 4, 5], [6, 3, PAD], [4, PAD, PAD]]))
    together = lesson.greedy(model.decoder.step, state, 4)
    for row in range(3):
        alone = lesson.greedy(model.decoder.step, state[row : row + 1], 4)
        assert torch.equal(alone[0][0], together[0][row])
        torch.testing.assert_close(alone[1][0].double(), together[1][row].double())


def test_searches_work_where_the_state_is():
    """On a device of its own: a tensor that is left on the CPU would not meet the others."""

    def step(symbols, state):
        return torch.zeros(len(state), 4, device="meta"), state

    for symbols, score in (
        lesson.greedy(step, torch.zeros(3, 1, device="meta"), 2),
        lesson.beam_search(step, torch.zeros(1, 1, device="meta"), 2, 2),
    ):
        assert symbols.device.type == score.device.type == "meta"
