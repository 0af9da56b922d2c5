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
