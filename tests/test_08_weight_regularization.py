"""Lesson 4.8: its solutions are scikit-learn's, its decay is torch's, as the note says."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Lasso, Ridge
from torch import Tensor

from common.lessons import load_lesson

lesson = load_lesson("phase04_mlp/08-weight-regularization")
optimizers = lesson.optimizers
columns, disease = load_diabetes(return_X_y=True)
X = lesson.standardised(columns, np.arange(len(disease)))
Y = lesson.standardised(disease, np.arange(len(disease)))


@pytest.mark.parametrize("strength", [0.01, 0.1, 10])
def test_ridge_is_that_of_scikit_learn(strength: float) -> None:
    theirs = Ridge(alpha=len(Y) * strength, fit_intercept=False).fit(X, Y).coef_
    np.testing.assert_allclose(lesson.ridge(X, Y, strength), theirs, rtol=1e-7)


@pytest.mark.parametrize("strength", [0.01, 0.3])
def test_lasso_is_that_of_scikit_learn_with_the_same_zeros(strength: float) -> None:
    settings = {"fit_intercept": False, "tol": 1e-14, "max_iter": 100_000}
    theirs = Lasso(alpha=strength, **settings).fit(X, Y).coef_
    ours = lesson.proximal_gradient(X, Y, strength)
    np.testing.assert_allclose(ours, theirs, atol=1e-8)
    assert ((ours == 0) == (theirs == 0)).all()


def test_so_many_steps_are_enough_where_fewer_are_taken() -> None:
    """In the figure, and in the 20 splits."""
    for strength in [0.01, 0.1]:
        few = lesson.proximal_gradient(X, Y, strength, steps=500)
        np.testing.assert_allclose(few, lesson.proximal_gradient(X, Y, strength), atol=1e-3)


def by_torch(optimizer: torch.optim.Optimizer, w: Tensor, batches: list[Tensor]) -> Tensor:
    x = torch.tensor(X)
    y = torch.tensor(Y)
    for rows in batches:
        optimizer.zero_grad()
        ((x[rows] @ w - y[rows]) ** 2).mean().div(2).backward()
        optimizer.step()
    return w.detach()


def test_weight_decay_of_torch_is_the_penalty_but_for_adamw() -> None:
    """Of the note. AdamW is the rule with decay beside the step."""
    torch.manual_seed(0)
    batches = list(torch.randint(len(Y), (50, 32)))
    cases = [
        (torch.optim.Adam, optimizers.Adam, {"l2": 0.5, "decay": 0.0}),
        (torch.optim.AdamW, optimizers.Adam, {"l2": 0.0, "decay": 0.5}),
        (torch.optim.SGD, optimizers.SGD, {"l2": 0.5, "decay": 0.0}),
    ]
    for theirs, rule, settings in cases:
        w = torch.zeros(10, dtype=torch.float64, requires_grad=True)
        wanted = by_torch(theirs([w], lr=0.01, weight_decay=0.5), w, batches)
        found = lesson.descend(rule, torch.tensor(X), torch.tensor(Y), batches, 0.01, **settings)
        torch.testing.assert_close(found, wanted)


def test_weights_in_the_box_may_change_their_sign() -> None:
    """The note says so of s1 and s2, against least squares."""
    names = load_diabetes().feature_names
    box = lesson.lsq_linear(X, Y, bounds=(-0.1, 0.1)).x
    free = lesson.ridge(X, Y, 0.0)
    for name in ["s1", "s2"]:
        assert box[names.index(name)] * free[names.index(name)] < 0
