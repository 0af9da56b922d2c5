"""Lesson 3.4: what its claims leave to a test."""

import torch

from common.lessons import load_lesson

lesson = load_lesson("phase03_pytorch/04-nn-module")


def test_what_is_computed_from_a_parameter_is_none() -> None:
    layer = lesson.Linear(3, 2)
    layer.last = layer(torch.ones(1, 3))
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]


def test_a_parameter_does_not_ask_its_source_for_gradients() -> None:
    source = torch.zeros(2, requires_grad=True)
    parameter = lesson.Parameter(source)
    assert parameter.requires_grad
    assert parameter.is_leaf


def test_a_buffer_that_becomes_a_text_is_no_buffer() -> None:
    module = lesson.Module()
    module.register_buffer("centre", torch.zeros(2))
    module.centre = "none"
    assert lesson.state_dict(module) == {}


def test_a_hook_may_take_itself_off() -> None:
    layer = lesson.ReLU()
    calls = []
    removers = []

    def once(*_) -> None:
        calls.append("once")
        removers[0]()

    def always(*_) -> None:
        calls.append("always")

    removers.append(layer.register_forward_hook(once))
    layer.register_forward_hook(always)
    layer(torch.ones(1))
    layer(torch.ones(1))
    assert calls == ["once", "always", "always"]


def test_a_hook_sees_inputs_and_output() -> None:
    layer = lesson.ReLU()
    seen = []

    def note(*arguments) -> None:
        seen.extend(arguments)

    layer.register_forward_hook(note)
    x = torch.tensor([-1.0, 2.0])
    output = layer(x)
    assert seen[0] is layer
    assert seen[1][0] is x
    assert seen[2] is output
