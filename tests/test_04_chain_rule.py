"""Lesson 2.4: what its claims cannot see in a short run."""

import numpy as np
import pytest

from common.lessons import load_lesson

lesson = load_lesson("phase02_math/04-chain-rule")


class Counted(tuple):
    """The parents of a value, which count how often somebody goes through them."""

    times = 0

    def __iter__(self):
        Counted.times += 1
        return super().__iter__()


def test_each_value_is_looked_into_once():
    Counted.times = 0
    end = start = lesson.Value(1)
    for _ in range(10):
        end = end + end
        end.parents = Counted(end.parents)
    assert len(end.ancestors()) == 11
    assert Counted.times == 10
    assert start in end.ancestors()


def test_the_more_inputs_the_smaller_each_weight():
    neuron = lesson.Neuron(400, np.random.default_rng(0), nonlinear=True)
    weights = np.array([weight.data for weight in neuron.weights])
    assert weights.std() == pytest.approx(1 / 20, rel=0.15)
    assert neuron.bias.data == 0


def test_a_network_has_three_parameters_for_each_hidden_neuron_and_its_output():
    network = lesson.Network(8, np.random.default_rng(0))
    assert len(network.parameters()) == 8 * 3 + 8 + 1
