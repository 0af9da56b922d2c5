"""Lesson 3.5: what its functions promise beyond what the lesson itself claims."""

from functools import partial

import torch
import torch.nn.functional as F

from common.lessons import load_lesson

lesson = load_lesson("phase03_pytorch/05-loss-functions")


def test_smooth_l1_is_huber_divided_by_delta() -> None:
    guess, y = torch.randn(2, 20, dtype=torch.float64)
    ours = lesson.huber(guess, y, delta=0.4) / 0.4
    assert torch.allclose(ours, F.smooth_l1_loss(guess, y, beta=0.4, reduction="none"))


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
