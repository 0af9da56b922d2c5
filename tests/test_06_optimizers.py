"""Lesson 3.6 and its note: seven rules, fifty steps, parameter by parameter as torch.optim."""

import inspect
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from common.lessons import load_lesson

lesson = load_lesson("phase03_pytorch/06-optimizers")


class Nesterov(lesson.Momentum):
    """As the note writes it."""

    def update(self, p: Tensor, gradient: Tensor, state: dict) -> None:
        state["velocity"] = self.momentum * state.get("velocity", 0) + gradient
        p -= self.lr * (gradient + self.momentum * state["velocity"])


class Adagrad(lesson.Optimizer):
    """As the note writes it."""

    def update(self, p: Tensor, gradient: Tensor, state: dict) -> None:
        state["squares"] = state.get("squares", 0) + gradient**2
        p -= self.lr * gradient / (state["squares"].sqrt() + 1e-10)


RULES = {
    "SGD": (lesson.SGD, torch.optim.SGD),
    "momentum": (partial(lesson.Momentum, momentum=0.9), partial(torch.optim.SGD, momentum=0.9)),
    "Nesterov": (Nesterov, partial(torch.optim.SGD, momentum=0.9, nesterov=True)),
    "Adagrad": (Adagrad, torch.optim.Adagrad),
    "RMSProp": (lesson.RMSProp, torch.optim.RMSprop),
    "Adam": (lesson.Adam, torch.optim.Adam),
    "AdamW": (lesson.AdamW, torch.optim.AdamW),
}


@pytest.mark.parametrize("ours, reference", RULES.values(), ids=RULES)
def test_fifty_steps_are_torchs(ours: Callable, reference: Callable) -> None:
    expected = lesson.noisy_walk(reference, {}, seed=3)
    torch.testing.assert_close(lesson.noisy_walk(ours, {}, seed=3), expected, rtol=0, atol=1e-6)
    assert (expected[1:] != expected[:-1]).any(dim=1).all(), "nothing moved"


def test_a_typing_error_in_a_setting_is_an_error() -> None:
    with pytest.raises(TypeError):
        lesson.Momentum([torch.zeros(1)], lr=0.1, momentun=0.9)


def test_lengths_of_momentums_steps() -> None:
    """Of the note: gradients that agree grow tenfold, those that alternate cancel to half."""
    p = torch.zeros(2)
    momentum = lesson.Momentum([p], lr=1.0)
    for step in range(200):
        before = p.clone()
        p.grad = torch.tensor([1.0, (-1.0) ** step])
        momentum.step()
    assert torch.allclose((p - before).abs(), torch.tensor([1 / 0.1, 1 / 1.9]), rtol=1e-4)


def test_the_valleys_rate_is_sgds_best_and_0_02_its_limit() -> None:
    losses = {}
    for thousandths in range(1, 31):
        p = torch.tensor([10.0, 1.0])
        sgd = lesson.SGD([p], lr=thousandths / 1000)
        for _ in range(100):
            p.grad = lesson.valley_gradient(p)
            sgd.step()
        losses[thousandths] = lesson.valley_loss(p).item()
    assert min(losses, key=losses.get) == 19
    assert losses[21] > 100


def test_first_steps_of_rmsprop_are_ten_rates_long() -> None:
    p = torch.zeros(1)
    p.grad = torch.tensor([7.0])
    lesson.RMSProp([p], lr=0.1).step()
    assert torch.allclose(p, torch.tensor([-1.0]))


@pytest.mark.parametrize("name", ["RMSProp", "Adam", "AdamW"])
def test_settings_have_the_defaults_of_torch(name: str) -> None:
    ours, theirs = (inspect.signature(rule).parameters for rule in RULES[name])
    shared = [key for key in ours if key in theirs and ours[key].default is not inspect._empty]
    assert shared
    assert {key: ours[key].default for key in shared} == {
        key: theirs[key].default for key in shared
    }
