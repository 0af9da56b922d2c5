"""What the tests of lessons 7.4 and 7.5 share: torch's layers with the same random weights."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

FUNCTIONS = {"relu": F.relu, "gelu": F.gelu, "gelu_tanh": nn.GELU(approximate="tanh")}
both_orders = pytest.mark.parametrize("norm_first", [False, True])


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def pair_of_layers(
    ours: type[nn.Module],
    theirs: type[nn.Module],
    load_torch: Callable,
    norm_first: bool,
    activation: str,
    eps: float,
) -> tuple[nn.Module, nn.Module]:
    """Ours and torch's in evaluation mode, with the same random weights, norms and biases too."""
    options = {"norm_first": norm_first, "layer_norm_eps": eps, "batch_first": True}
    their_layer = theirs(12, 3, 20, 0.3, FUNCTIONS[activation], **options).double()
    for weight in their_layer.parameters():
        nn.init.normal_(weight)
    our_layer = ours(12, 3, 20, 0.3, norm_first, activation, eps).double()
    load_torch(our_layer, their_layer)
    return our_layer.eval(), their_layer.eval()


def check_last_norm(stack: type[nn.Module]) -> None:
    """With pre-norm there is one, with post-norm not, unless it is asked for."""
    for norm_first in (False, True):
        model = stack(2, 12, 3, 20, norm_first=norm_first, eps=0.01)
        assert isinstance(model.norm, nn.LayerNorm) == norm_first
        for final_norm in (False, True):
            options = {"norm_first": norm_first, "final_norm": final_norm}
            model = stack(2, 12, 3, 20, **options, eps=0.01)
            assert isinstance(model.norm, nn.LayerNorm) == final_norm
            assert not final_norm or model.norm.eps == 0.01
