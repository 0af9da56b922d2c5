"""Lesson 4.11: the rule in corner cases, and a training that stops and comes back."""

import math

import pytest
import torch
from torch import nn

from common.data.batches import Batches
from common.lessons import load_lesson

lesson = load_lesson("phase04_mlp/11-early-stopping")


def numbered(losses: list[float], patience: int) -> float:
    """Which epoch's weights come back? The only weight of the model is the epoch's number."""
    model = nn.Linear(1, 1, bias=False)
    stopping = lesson.EarlyStopping(patience)
    for epoch, loss in enumerate(losses, start=1):
        nn.init.constant_(model.weight, epoch)
        stopping.should_stop(loss, model)
    stopping.restore(model)
    return model.weight.item()


@pytest.mark.parametrize(
    "losses, epoch",
    [
        ([0.5, 0.5, 0.5], 1),  # equal is not better: the first of them
        ([math.nan, 0.9, math.nan], 2),
        ([math.nan, math.nan], 2),  # never a number: the model keeps its own
        ([math.inf, math.inf, 3.0], 3),
        ([0.0, -1.0, -0.5], 2),
    ],
)
def test_the_weights_of_the_best_epoch_come_back(losses: list[float], epoch: int) -> None:
    assert numbered(losses, patience=10) == epoch


def test_without_any_loss_the_model_keeps_its_weights() -> None:
    model = nn.Linear(2, 2)
    before = model.weight.clone()
    lesson.EarlyStopping(patience=2).restore(model)
    assert torch.equal(model.weight, before)


def test_a_new_best_begins_the_wait_again() -> None:
    assert lesson.stops_after([5, 6, 4, 5, 3, 4, 4], patience=2) == 7
    assert lesson.stops_after([math.nan, math.nan], patience=2) == 2


def test_training_stops_and_its_best_epoch_is_that_of_the_full_training() -> None:
    """The weights of the shorter training are bit for bit those of that epoch in the longer."""
    torch.manual_seed(0)
    x = torch.randn(40, 64)
    y = torch.randint(10, (40,))
    val = (torch.randn(30, 64), torch.randint(10, (30,)))

    def trained(patience: int, epochs: int) -> tuple:
        model = lesson.make_model(0)
        batches = Batches(x, y, batch_size=10, shuffle=True, seed=0)
        stopping = lesson.EarlyStopping(patience)
        losses, val_losses = lesson.train(model, batches, val, stopping, epochs)
        return model, stopping, losses, val_losses

    model, stopping, losses, val_losses = trained(patience=3, epochs=50)
    assert 3 < len(losses) == len(val_losses) < 50 and model.training is False
    best = val_losses.index(min(val_losses)) + 1
    assert len(losses) == best + 3
    stopping.restore(model)

    again, _, all_losses, all_val_losses = trained(patience=100, epochs=best)
    assert all_losses == losses[:best] and all_val_losses == val_losses[:best]
    for ours, wanted in zip(model.parameters(), again.parameters()):
        assert torch.equal(ours, wanted)


def test_an_epoch_is_adam_with_the_rate_of_the_lesson() -> None:
    torch.manual_seed(0)
    x = torch.randn(40, 64)
    y = torch.randint(10, (40,))
    batches = [(x[:20], y[:20]), (x[20:], y[20:])]
    stopping = lesson.EarlyStopping(patience=5)
    model = lesson.make_model(3)
    losses, val_losses = lesson.train(model, batches, (x, y), stopping, epochs=2)
    assert all(type(loss) is float for loss in losses + val_losses)

    again = lesson.make_model(3)
    adam = torch.optim.Adam(again.parameters(), lr=0.003)
    for batch in batches * 2:
        adam.zero_grad()
        nn.functional.cross_entropy(again(batch[0]), batch[1]).backward()
        adam.step()
    for ours, wanted in zip(model.parameters(), again.parameters()):
        torch.testing.assert_close(ours, wanted)


def test_both_runs_begin_alike_and_end_apart() -> None:
    cfg = lesson.Config(samples=60, epochs=40)
    torch.manual_seed(0)
    data = [(torch.rand(n, 64), torch.randint(10, (n,))) for n in (100, 50, 30)]
    run = lesson.train_both(cfg, data, seed=1)
    best = run.val_losses.index(min(run.val_losses[: run.stopped])) + 1
    assert len(run.losses) == len(run.val_losses) == 40
    assert run.stopped == best + 10 < 40 and not torch.equal(run.kept, run.last)
