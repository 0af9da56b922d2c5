"""Lesson 3.9: what its claims cannot see in a short run."""

import torch
from torch import nn

from common.lessons import load_lesson

lesson = load_lesson("phase03_pytorch/09-training-loop")


def test_the_model_has_a_hidden_layer_and_ten_outputs():
    model = lesson.make_model(5, lesson.Config(hidden_dim=7))
    assert [type(layer) for layer in model] == [nn.Linear, nn.ReLU, nn.Linear]
    assert model[0].weight.shape == (7, 5)
    assert model(torch.zeros(3, 5)).shape == (3, 10)


def test_the_same_seed_gives_the_same_first_weights():
    cfg = lesson.Config(hidden_dim=7)
    first, second = (lesson.flat(lesson.make_model(5, cfg)) for _ in range(2))
    assert torch.equal(first, second)
