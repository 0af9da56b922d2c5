"""Lesson 4.4: what its claims cannot see in a short run."""

import pytest
import torch

from common.lessons import load_lesson

lesson = load_lesson("phase04_mlp/04-activation-functions")
cross_entropy = load_lesson("phase03_pytorch/09-training-loop").cross_entropy


@pytest.mark.parametrize("seed", range(5))
def test_dead_units_are_those_whose_weights_get_no_gradient(seed):
    x, y = lesson.rings(500, centre=5, seed=seed)
    model = lesson.make_model("relu", 32, seed)
    cross_entropy(model, (x, y)).backward()
    silent = torch.cat([(model[i].weight.grad == 0).all(dim=1) for i in [0, 2]])
    assert 0 < lesson.dead_share(model, x) == silent.float().mean() < 1


def test_a_unit_that_is_on_for_one_sample_is_not_dead():
    model = lesson.make_model("relu", 8, seed=0)
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.fill_(-1)
        model[0].weight[0] = torch.tensor([1.0, 0.0])
        model[2].bias.fill_(1)
        model[2].weight.zero_()
    x = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    assert lesson.dead_share(model, x) == 7 / 16


@pytest.mark.parametrize("centre", [0, 5])
def test_the_disc_and_the_ring_do_not_touch(centre):
    x, y = lesson.rings(1000, centre=centre, seed=0)
    radius = (x - centre).norm(dim=1)
    assert radius[y == 0].max() <= 1.0001
    assert radius[y == 1].min() >= 1.4999
    assert radius[y == 1].max() <= 2.2001
    assert 0.4 < y.float().mean() < 0.6
