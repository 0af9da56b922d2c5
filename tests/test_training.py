"""`fit` is the loop of phase03/09 and nothing more; `evaluate` is a mean over samples."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from common.data.batches import Batches
from common.training import batch_size, evaluate, fit, to_device


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 16), nn.BatchNorm1d(16), nn.Dropout(0.2), nn.Linear(16, 3))


def make_batches(shuffle: bool = True) -> Batches:
    x = torch.randn(50, 5, generator=torch.Generator().manual_seed(1))
    return Batches(x, torch.arange(50) % 3, batch_size=16, shuffle=shuffle, seed=2)


def loss_fn(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def written_out(model, batches, optimizer, epochs, scheduler=None, grad_clip=None):
    """The loop as a lesson would write it.

    Returns the mean loss of each epoch and the learning rate of every step.
    """
    losses, rates = [], []
    for _ in range(epochs):
        model.train()
        total = 0.0
        for x, y in batches:
            loss = loss_fn(model, (x, y))
            optimizer.zero_grad()
            loss.backward()
            if grad_clip:
                norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
                for p in model.parameters():
                    p.grad *= min(1.0, grad_clip / (norm + 1e-6))
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if scheduler:
                scheduler.step()
            total += loss.item() * len(x)
        losses.append(total / 50)
    return losses, rates


def cosine(optimizer):
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=12)


@pytest.mark.parametrize(
    "schedule, grad_clip", [(None, None), (cosine, None), (None, 0.01), (cosine, 0.01)]
)
def test_fit_equals_the_loop_written_out(schedule, grad_clip):
    results = []
    for trainer in (fit, written_out):
        model, batches = make_model(), make_batches()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        options = {
            "epochs": 3,
            "scheduler": schedule and schedule(optimizer),
            "grad_clip": grad_clip,
        }
        torch.manual_seed(3)  # the same dropout masks for both
        if trainer is fit:
            losses = [
                row["train_loss"]
                for row in fit(model, batches, optimizer, loss_fn, quiet=True, **options)
            ]
        else:
            losses, rates = written_out(model, batches, optimizer, **options)
            assert len(set(rates)) == (12 if schedule else 1)  # the rate changes with every batch
        weights = nn.utils.parameters_to_vector(model.parameters()).detach()
        results.append((losses, weights, optimizer.param_groups[0]["lr"]))
    (losses, weights, rate), (losses_2, weights_2, rate_2) = results
    assert losses == pytest.approx(losses_2, rel=1e-6) and rate == rate_2
    assert (
        torch.equal(weights, weights_2)
        if grad_clip is None
        else torch.allclose(weights, weights_2, atol=1e-6)
    )


def test_clipping_changes_something():
    weights = []
    for grad_clip in (None, 0.01):
        model = make_model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        fit(model, make_batches(), optimizer, loss_fn, grad_clip=grad_clip, quiet=True)
        weights.append(nn.utils.parameters_to_vector(model.parameters()))
    assert not torch.allclose(*weights)


@pytest.mark.parametrize(
    "form",
    [
        lambda x, y: (x, y),
        lambda x, y: [x, y],
        lambda x, y: {"x": x, "y": y},
        lambda x, y: ([*x], {"y": y}),
    ],
)
def test_fit_takes_batches_of_any_form(form):
    def loss_of(model, batch):
        x, y = batch.values() if isinstance(batch, dict) else batch
        return loss_fn(
            model,
            (torch.stack(x) if isinstance(x, list) else x, y["y"] if isinstance(y, dict) else y),
        )

    rows = []
    for loader, loss in (
        (make_batches(False), loss_fn),
        ([form(x, y) for x, y in make_batches(False)], loss_of),
    ):
        model = make_model()
        rows.append(
            fit(
                model,
                loader,
                torch.optim.SGD(model.parameters(), lr=0.1),
                loss,
                epochs=2,
                quiet=True,
            )
        )
    assert rows[0] == rows[1]


def test_history_holds_plain_numbers_and_about_ten_lines_are_printed(capsys):
    model = make_model()
    history = fit(
        model,
        make_batches(),
        torch.optim.SGD(model.parameters(), lr=0.1),
        loss_fn,
        epochs=25,
        evaluate_fn=lambda m: {"val": torch.tensor(0.25), "f1": np.float64(0.5)},
    )
    assert [row["epoch"] for row in history] == list(range(1, 26))
    assert {type(value) for row in history for value in row.values()} == {int, float} and history[
        -1
    ]["val"] == 0.25
    assert 10 <= capsys.readouterr().out.count("train_loss") <= 14


def test_training_goes_on_in_train_mode_after_an_evaluation():
    modes = []

    def loss_and_mode(model, batch):
        modes.append(model.training)
        return loss_fn(model, batch)

    model = make_model()
    fit(
        model,
        make_batches(),
        torch.optim.SGD(model.parameters(), lr=0.1),
        loss_and_mode,
        epochs=2,
        quiet=True,
        evaluate_fn=lambda m: m.eval() and {},
    )
    assert all(modes) and len(modes) == 8


def test_evaluate_weights_by_samples_and_leaves_the_model_as_it_was():
    model, seen = make_model(), []

    def score(model, batch):
        assert not model.training and not torch.is_grad_enabled()
        seen.append(len(batch[0]))
        return {
            "loss": loss_fn(model, batch),
            "right": (model(batch[0]).argmax(1) == batch[1]).float().mean(),
        }

    before = copy.deepcopy(model.state_dict())
    for training in (True, False):
        model.train(training)
        scores = evaluate(model, make_batches(), score)
        assert model.training is training
    assert seen[:4] == [16, 16, 16, 2]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    x, y = make_batches().tensors
    with torch.no_grad():
        assert scores["loss"] == pytest.approx(loss_fn(model, (x, y)).item(), rel=1e-5)
        assert scores["right"] == pytest.approx((model(x).argmax(1) == y).float().mean().item())


def test_to_device_goes_into_everything():
    batch = {
        "x": torch.zeros(2),
        "boxes": [torch.zeros(1), torch.zeros(3)],
        "names": ("a", torch.zeros(1)),
        "n": 3,
    }
    moved = to_device(batch, torch.device("meta"))
    assert (
        moved["x"].is_meta and all(b.is_meta for b in moved["boxes"]) and moved["names"][1].is_meta
    )
    assert type(moved["boxes"]) is list and type(moved["names"]) is tuple
    assert moved["names"][0] == "a" and moved["n"] == 3


def test_batch_size():
    x = torch.zeros(4, 3)
    assert [
        batch_size(b) for b in (x, (x, x), [x], {"input_ids": x}, ([x[0], x[1]], "targets"))
    ] == [4, 4, 4, 4, 2]
