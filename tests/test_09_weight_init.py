"""Lesson 4.9: its distributions are PyTorch's; what the note says of orthogonal weights."""

import torch
from scipy.stats import ks_2samp
from torch import nn

from common.lessons import load_lesson

lesson = load_lesson("phase04_mlp/09-weight-init")


def test_the_distributions_are_those_of_torch() -> None:
    """The largest distance between two distribution functions (Kolmogorov–Smirnov, 2.6)."""
    torch.manual_seed(0)
    pairs = [
        (lambda w: lesson.fill_normal(w, lesson.he_std(w)), nn.init.kaiming_normal_),
        (lambda w: lesson.fill_normal(w, lesson.xavier_std(w)), nn.init.xavier_normal_),
        (lesson.fill_orthogonal, nn.init.orthogonal_),
    ]
    for ours, theirs in pairs:
        weights = torch.empty(128, 256), torch.empty(128, 256)
        ours(weights[0])
        theirs(weights[1])
        distance = ks_2samp(*[weight.flatten() for weight in weights]).statistic
        assert distance < 0.0193, f"{theirs.__name__}: {distance:.4f}"


def test_no_direction_is_preferred_by_orthogonal_weights() -> None:
    torch.manual_seed(0)
    weights = torch.empty(400, 3, 3)
    for weight in weights:
        lesson.fill_orthogonal(weight)
    share = (weights[:, 0, 0] > 0).float().mean()
    assert 0.4 < share < 0.6


def test_lsuv_starts_from_orthogonal_weights_and_no_biases() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 5))
    lesson.lsuv(model, torch.randn(50, 8))
    columns = model[0].weight.T @ model[0].weight
    torch.testing.assert_close(columns / columns[0, 0], torch.eye(8), atol=1e-5, rtol=0)
    rows = model[2].weight @ model[2].weight.T
    torch.testing.assert_close(rows / rows[0, 0], torch.eye(5), atol=1e-5, rtol=0)
    assert not model[0].bias.any() and not model[2].bias.any()


def test_orthogonal_weights_make_relu_nets_vary_less() -> None:
    """The second exercise: 3 / n instead of 5 / n, here for one layer of 32 units."""
    torch.manual_seed(0)
    n = 32
    signal = torch.ones(n, dtype=torch.float64)
    weight = torch.empty(n, n, dtype=torch.float64)
    found = torch.empty(2, 3000)
    for draw in range(3000):
        lesson.fill_normal(weight, lesson.he_std(weight))
        found[0, draw] = (weight @ signal).clamp(min=0).square().mean()
        lesson.fill_orthogonal(weight, gain=2**0.5)
        found[1, draw] = (weight @ signal).clamp(min=0).square().mean()
    assert ((found.mean(dim=1) - 1).abs() < 0.05).all()
    relative = found.var(dim=1) * n
    assert 4.4 < relative[0] < 5.6 and 2.5 < relative[1] < 3.4, relative


def test_the_weights_of_nn_linear() -> None:
    """The note: a variance of 1 / (3 n)."""
    torch.manual_seed(0)
    weight = nn.Linear(300, 300).weight
    assert abs(weight.var().item() * 900 - 1) < 0.02


def test_the_weights_of_a_layer_can_be_filled_in_place() -> None:
    """autograd refuses to change a parameter in place, unless it is told not to look."""
    layer = nn.Linear(4, 4)
    lesson.fill_orthogonal(layer.weight)
    torch.testing.assert_close(layer.weight @ layer.weight.T, torch.eye(4))
    lesson.fill_normal(layer.weight, 0.1)
    assert layer.weight.is_leaf and layer.weight.requires_grad
