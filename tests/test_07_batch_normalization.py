"""Lesson 4.7: batch norm is PyTorch's, outputs, gradients and memory; the failure of the note."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.errors import LessonError
from common.lessons import load_lesson

lesson = load_lesson("phase04_mlp/07-batch-normalization")
KINDS = [(nn.BatchNorm1d, (7, 3)), (nn.BatchNorm2d, (4, 3, 5, 2))]


def pair(kind: type) -> tuple[nn.Module, nn.Module]:
    """Our layer and torch's, with the same random weight and bias."""
    theirs = kind(3).double()
    ours = lesson.BatchNorm(3).double()
    for mine, other in zip(ours.parameters(), theirs.parameters()):
        nn.init.normal_(other)
        mine.data.copy_(other)
    return ours, theirs


def with_gradients(y: Tensor, *inputs: Tensor) -> list[Tensor]:
    """The output, and the gradients that a loss sends to the inputs."""
    # a sum or a sum of squares would do for a wrong backward pass: both hardly move
    return [y.detach(), *torch.autograd.grad((y**3).sum(), inputs)]


@pytest.mark.parametrize("kind, shape", KINDS)
def test_both_modes_are_those_of_torch(kind: type, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    ours, theirs = pair(kind)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    for factor in [1, 2, 3]:
        batch = 3 + factor * x
        found = with_gradients(ours(batch), batch, *ours.parameters())
        wanted = with_gradients(theirs(batch), batch, *theirs.parameters())
        torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)

    ours.eval()
    theirs.eval()
    found = with_gradients(ours(x), x, *ours.parameters())
    wanted = with_gradients(theirs(x), x, *theirs.parameters())
    torch.testing.assert_close(found, wanted)
    assert not ours.running_mean.requires_grad and set(ours.state_dict()) < set(theirs.state_dict())


def test_the_other_norms_send_back_the_gradients_of_torch() -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 6, 4, 4, dtype=torch.float64, requires_grad=True)
    w, b = torch.randn(2, 6, dtype=torch.float64)
    last = x.movedim(1, -1)
    pairs = [
        (lesson.layer_norm(last, w, b), F.layer_norm(last, (6,), w, b)),
        (lesson.group_norm(x, 3, w, b), F.group_norm(x, 3, w, b)),
        (lesson.rms_norm(last, w), F.rms_norm(last, (6,), w, eps=1e-5)),
    ]
    for ours, theirs in pairs:
        torch.testing.assert_close(with_gradients(ours, x), with_gradients(theirs, x))


def test_one_sample_is_refused_in_training_only() -> None:
    layer = lesson.BatchNorm(2)
    with pytest.raises(LessonError, match="larger batches"):
        layer(torch.randn(1, 2))
    layer.eval()
    assert layer(torch.randn(1, 2)).shape == (1, 2)


def test_weights_in_front_grow_with_every_step() -> None:
    """Of the note: the gradient is at right angles to the weights, so a step lengthens them."""
    torch.manual_seed(0)
    x = torch.randn(20, 6, dtype=torch.float64)
    weights = torch.randn(6, 6, dtype=torch.float64, requires_grad=True)
    y = lesson.BatchNorm(6, eps=0.0).double()(x @ weights)
    (gradient,) = torch.autograd.grad((y**3).sum(), weights)
    assert (weights * gradient).sum().abs() < 1e-9 * gradient.norm()
    longer = (weights - 0.1 * gradient).square().sum()
    torch.testing.assert_close(longer, weights.square().sum() + 0.01 * gradient.square().sum())
