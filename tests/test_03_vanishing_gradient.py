"""What 6.3 hands on to 6.4: the adding problem, the shared training, and the measured reach."""

import pytest
import torch

from common.lessons import load_lesson

lesson = load_lesson("phase06_rnn/03-vanishing-gradient")


def sequences(seed: int, length: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    return lesson.adding_problem(200, length, torch.Generator().manual_seed(seed))


def test_a_seed_gives_the_same_sequences_whatever_else_was_drawn() -> None:
    first = sequences(3)
    torch.rand(5)
    again = sequences(3)
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert not torch.equal(first[0], sequences(4)[0])


@pytest.mark.parametrize("length", [2, 5, 10])
def test_one_marker_in_each_half(length: int) -> None:
    x, y = sequences(0, length)
    markers = x[:, :, 1]
    assert (markers[:, : length // 2].sum(dim=1) == 1).all()
    assert (markers[:, length // 2 :].sum(dim=1) == 1).all()
    assert (markers.sum(dim=0) > 0).all()
    torch.testing.assert_close(y, x.prod(dim=2).sum(dim=1))


def test_reach_leaves_the_inputs_alone() -> None:
    x, _ = sequences(0)
    model = lesson.make_rnn(lesson.Config())
    first = lesson.reach(model, x)
    assert not x.requires_grad
    assert x.grad is None
    torch.testing.assert_close(lesson.reach(model, x), first)


def test_clipping_accepts_a_generator_and_zero_gradients() -> None:
    parameters = [torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2))]
    for p in parameters:
        p.grad = torch.zeros_like(p)
    assert lesson.clip_gradients((p for p in parameters), 1.0) == 0
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in parameters)


def test_training_is_the_same_twice() -> None:
    cfg = lesson.Config(steps=3, hidden_dim=4)
    losses = [lesson.train(lesson.make_rnn(cfg), 6, cfg) for _ in range(2)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 3


def test_norms_are_autograds() -> None:
    weight = lesson.random_weight(8, 1.2)
    inputs = torch.randn(30, 8, dtype=torch.float64)
    start = torch.randn(8, dtype=torch.float64)
    h = torch.zeros(8, dtype=torch.float64, requires_grad=True)
    states = [h]
    for x in inputs:
        states.append(torch.tanh(weight @ states[-1] + x))
    gradients = torch.autograd.grad(states[-1] @ start, states)
    wanted = torch.stack([gradient.norm() for gradient in reversed(gradients)])
    slopes = lesson.tanh_slopes(weight, inputs)
    torch.testing.assert_close(lesson.gradient_norms(weight, slopes, start), wanted)


@pytest.mark.parametrize("max_norm", [100.0, 1.0])
def test_clipping_is_torchs(max_norm: float) -> None:
    values = torch.randn(8, dtype=torch.float64)
    found = []
    for clip in [lesson.clip_gradients, torch.nn.utils.clip_grad_norm_]:
        parameters = [
            torch.nn.Parameter(torch.zeros_like(part)) for part in values.split([3, 4, 1])
        ]
        parameters[0].grad = values[:3].clone()
        parameters[1].grad = values[3:7].clone()  # the third has none
        before = clip(parameters, max_norm)
        found.append(torch.stack([before, *parameters[0].grad, *parameters[1].grad]))
    torch.testing.assert_close(found[0], found[1])


def test_reach_of_a_model_that_halves_at_every_step() -> None:
    x, _ = sequences(0, 30)
    fading = 0.5 ** torch.arange(29, -1, -1)
    found = lesson.reach(lambda x: (x.sum(dim=2) * fading).sum(dim=1), x)
    torch.testing.assert_close(found, fading.flip(0))


def test_every_step_is_marked_in_turn() -> None:
    x, _ = lesson.adding_problem(2000, 10, torch.Generator().manual_seed(0))
    shares = 5 * x[:, :, 1].mean(dim=0)
    assert shares.min() > 0.7


def test_both_markers_near_the_end() -> None:
    x, y = lesson.near_the_end(200, 30, torch.Generator().manual_seed(0))
    assert x.shape == (200, 30, 2)
    assert (x[:, : -lesson.SHORT, 1] == 0).all()
    assert (x[:, -lesson.SHORT :, 1].sum(dim=1) == 2).all()
    before = x[:, : -lesson.SHORT, 0]
    assert 0.48 < before.mean() < 0.52 and 0.27 < before.std() < 0.31  # uniform from 0 to 1
    assert torch.equal(lesson.near_the_end(200, 30, torch.Generator().manual_seed(0))[0], x)
    torch.testing.assert_close(y, x.prod(dim=2).sum(dim=1))


def test_the_first_error_is_that_of_saying_nothing() -> None:
    """Saying 0 has the error 7/6 on average: the square of the mean and the variance."""
    batch = sequences(0)
    assert 0.5 < lesson.squared_error(lesson.make_rnn(lesson.Config()), batch).item() < 1.9


def test_the_error_of_an_answer_for_each_sequence() -> None:
    batch = sequences(0)
    assert lesson.make_rnn(lesson.Config())(batch[0]).shape == batch[1].shape
    assert lesson.squared_error(lambda x: batch[1] + 2, batch) == pytest.approx(4)
