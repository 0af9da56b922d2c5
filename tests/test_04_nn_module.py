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


def test_a_buffer_takes_the_place_of_a_parameter() -> None:
    module = lesson.Module()
    module.centre = lesson.Parameter(torch.ones(2))
    module.register_buffer("centre", torch.zeros(2))
    assert module.parameters() == []
    assert list(lesson.state_dict(module)) == ["centre"]
    assert torch.equal(module.centre, torch.zeros(2))


def test_hooks_are_taken_off_again() -> None:
    model = lesson.Sequential(lesson.ReLU(), lesson.ReLU())
    assert len(lesson.spread_by_layer(model, torch.randn(4, 3))) == 2
    assert [module.hooks for _, module in model.modules()] == [[], [], []]


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
