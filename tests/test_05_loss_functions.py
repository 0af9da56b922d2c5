"""Lesson 3.5: what its functions promise beyond what the lesson itself claims."""

from functools import partial

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torchvision.ops import sigmoid_focal_loss

from common.lessons import load_lesson

lesson = load_lesson("phase03_pytorch/05-loss-functions")


def test_smooth_l1_is_huber_divided_by_delta() -> None:
    guess, y = torch.randn(2, 20, dtype=torch.float64)
    ours = lesson.huber(guess, y, delta=0.4) / 0.4
    assert torch.allclose(ours, F.smooth_l1_loss(guess, y, beta=0.4, reduction="none"))


def test_other_gammas_of_the_focal_loss() -> None:
    z = torch.randn(20, dtype=torch.float64)
    y = torch.rand(20, dtype=torch.float64).round()
    for gamma in [0.0, 1.5]:
        theirs = sigmoid_focal_loss(z, y, alpha=-1, gamma=gamma)
        assert torch.allclose(lesson.focal(z, y, gamma), theirs)


def test_the_example_by_hand() -> None:
    z = torch.tensor([[2.0, 0.0]], requires_grad=True)
    loss = lesson.nll(lesson.log_probabilities(z), torch.tensor([1]), torch.ones(2))
    (gradient,) = torch.autograd.grad(loss, z)
    assert torch.allclose(loss, torch.tensor(2.127), atol=1e-3)
    assert torch.allclose(gradient, torch.tensor([0.881, -0.881]), atol=1e-3)


def test_a_softmax_too_many_makes_a_model_worse() -> None:
    """The failure of the note: a linear model of the digits, 300 steps at the rate 0.5."""
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32) / 16
    y = torch.tensor(labels)
    right = {}
    for twice in [False, True]:
        w = torch.zeros(64, 10, requires_grad=True)
        for _ in range(300):
            z = (x @ w).softmax(dim=1) if twice else x @ w
            loss = lesson.nll(lesson.log_probabilities(z), y, torch.ones(10))
            (slope,) = torch.autograd.grad(loss, w)
            w = (w - 0.5 * slope).detach().requires_grad_()
        right[twice] = ((x @ w).argmax(dim=1) == y).float().mean()
        assert not twice or loss > 1.6
    assert right[False] > right[True] + 0.05, right


def test_one_sample_far_out_does_not_spoil_the_others() -> None:
    z = torch.tensor([[1e4, 0.0], [-1e4, 0.0], [0.0, 1.0]])
    assert torch.allclose(lesson.log_probabilities(z), z.log_softmax(dim=1))


def test_each_sample_has_a_price_of_its_own() -> None:
    z = torch.randn(7, 4, dtype=torch.float64)
    y = torch.randint(4, (7,))
    q = torch.randn(7, 4, dtype=torch.float64).softmax(dim=1)
    points = torch.randn(3, 7, 4, dtype=torch.float64)
    pairs = [
        (lesson.hinge(z, y), partial(F.multi_margin_loss, z, y)),
        (lesson.cross_entropy(z, q), partial(F.cross_entropy, z, q)),
        (lesson.triplet(*points), partial(F.triplet_margin_loss, *points)),
        (lesson.bce_with_logits(z, q), partial(F.binary_cross_entropy_with_logits, z, q)),
    ]
    for ours, theirs in pairs:
        assert torch.allclose(ours, theirs(reduction="none"))
