"""Every kind of claim passes what is right, fails what is wrong, and says by how much."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from common import checks, record
from common.checks import check, check_close, depends_on_input, expect, no_leak, overfits, timed
from common.errors import ClaimFailed


@pytest.fixture
def log():
    return record.start(tiny=False)


@pytest.fixture
def tiny_log():
    return record.start(tiny=True)


def fails(claim, *args, **options) -> str:
    """The message of a claim that must not hold."""
    with pytest.raises(ClaimFailed) as caught:
        claim("id", "text", *args, **options)
    assert record.current().claims[-1].status == "failed"
    return str(caught.value)


def test_check_prints_records_and_raises(log, capsys):
    check("sum", "one and one are two", 1 + 1 == 2)
    assert "the claim “id” does not hold: text" in fails(check, 2, above=1, below=1.5)
    printed = capsys.readouterr().out
    assert (
        "✓ one and one are two" in printed and "✗ text (2, wanted above 1 and below 1.5)" in printed
    )
    assert [(c.id, c.kind, c.status) for c in log.claims] == [
        ("sum", "exact", "passed"),
        ("id", "exact", "failed"),
    ]


@pytest.mark.parametrize(
    "value, bounds, holds",
    [
        (1.0, {"above": 1}, False),
        (1.0, {"at_least": 1}, True),
        (1.0, {"below": 1}, False),
        (1.0, {"at_most": 1}, True),
        (torch.tensor(0.5), {"above": 0, "below": 1}, True),
        (np.float32(2), {"above": 0, "below": 1}, False),
        (math.inf, {"above": 1e300}, True),
        (math.nan, {"above": 0}, False),
        (math.nan, {"at_most": 0}, False),
        (True, {}, True),
        (np.False_, {}, False),
        (torch.tensor(True), {}, True),
        (math.nan, {}, False),
        ([], {}, False),
    ],
)
def test_check_and_its_bounds(log, value, bounds, holds):
    if holds:
        check("id", "text", value, **bounds)
    else:
        fails(check, value, **bounds)


def test_learned_and_timed_claims_are_only_reported_in_a_tiny_run(tiny_log, capsys):
    expect("accuracy", "high accuracy", 0.3, at_least=0.9)
    timed("speed", "faster", lambda: None, lambda: sum(range(1000)), at_least=100, repeats=1)
    assert [(c.kind, c.status) for c in tiny_log.claims] == [
        ("learned", "not judged"),
        ("timed", "not judged"),
    ]
    assert capsys.readouterr().out.count("– not judged") == 2
    fails(check, False)  # mathematics holds at any size


def test_expect_and_timed_in_a_normal_run(log):
    expect("id", "text", 0.95, at_least=0.9)
    assert "0.3, wanted at least 0.9" in fails(expect, 0.3, at_least=0.9)
    ratio = timed("id", "text", lambda: sum(range(20_000)), lambda: None, at_least=10)
    assert ratio > 10
    fails(timed, lambda: None, lambda: sum(range(20_000)), at_least=1)


@pytest.mark.parametrize(
    "ours, reference",
    [
        (1.5, 1.5),
        (np.float64(1), torch.tensor(1.0)),
        ([1, 2], (1, 2)),
        ([math.nan, math.inf, -math.inf], [math.nan, math.inf, -math.inf]),
        (np.array([1 + 2j]), np.array([1 + 2j + 1e-12])),
        (np.array([True, False]), np.array([True, False])),
        (torch.ones(3, requires_grad=True) * (1 + 1e-6), np.ones(3)),
        (np.uint8([0, 255]), np.uint8([0, 255])),
    ],
)
def test_check_close_passes_what_is_equal(log, ours, reference, recwarn):
    check_close("id", "text", ours, reference)
    assert "nan" not in log.claims[-1].measured and not recwarn.list


@pytest.mark.parametrize(
    "ours, reference, words",
    [
        (np.zeros((2, 3)), np.zeros((3, 2)), "shape (2, 3), wanted (3, 2)"),
        (np.zeros(1), np.zeros(()), "shape (1,), wanted ()"),
        ([], [], "nothing to compare"),
        (1.0, 1.1, "1 of 1 values differ, most: got 1, wanted 1.1"),
        (
            [[0.0, 1.0], [2.0, 9.0]],
            [[0.0, 1.5], [2.0, 3.0]],
            "2 of 4 values differ, most at [1, 1]: got 9, wanted 3",
        ),
        (
            [0.0, math.nan, 5.0],
            [0.0, 1.0, 1.0],
            "2 of 3 values differ, most at [1]: got nan, wanted 1",
        ),
        ([math.inf], [-math.inf], "got inf, wanted -inf"),
        ([1e300, math.inf], [1e300, 1e300], "most at [1]: got inf"),
        (np.array([1 + 2j]), np.array([1 - 2j]), "got 1+2j, wanted 1-2j"),
        (np.array([True, False]), np.array([True, True]), "most at [1]: got 0, wanted 1"),
        (np.uint8([0]), np.uint8([255]), "got 0, wanted 255"),
        (
            np.array([10**9]),
            np.array([10**9 + 1]),
            "1 of 1 values differ",
        ),  # whole numbers have no tolerance
        (np.float64([1]), np.float64([1 + 1e-6]), "1 of 1 values differ"),
        (np.float32([1]), np.float32([1 + 1e-3]), "1 of 1 values differ"),
    ],
)
def test_check_close_says_what_differs(log, ours, reference, words):
    assert words in fails(check_close, ours, reference)


def test_check_close_with_its_own_tolerance(log):
    check_close("id", "text", 1.0, 1.01, rtol=0.1)
    fails(check_close, np.float32(1), np.float32(1 + 1e-6), rtol=0, atol=0)


def classifier_batch():
    torch.manual_seed(0)
    return torch.randn(16, 8), torch.arange(16) % 4


def loss_of(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


@pytest.mark.parametrize("lr, learns", [(0.5, True), (0.0, False), (1e30, False)])
def test_overfits_tells_a_model_that_learns_from_one_that_does_not(tiny_log, lr, learns):
    batch, model = classifier_batch(), nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9 if learns else 0)
    if learns:
        losses = overfits("id", "text", model, batch, loss_of, optimizer)
        assert len(losses) == 100 and losses[-1] < 0.05 < losses[0] and model.training
    else:
        assert "in 100 steps, wanted below 0.05" in fails(
            overfits, model, batch, loss_of, optimizer
        )


def test_overfits_is_not_fooled_by_a_loss_that_is_small_from_the_start(log):
    model = nn.Linear(8, 4)
    frozen = torch.optim.SGD(model.parameters(), lr=0)
    fails(overfits, model, classifier_batch(), lambda m, b: loss_of(m, b) * 1e-3, frozen)


def test_depends_on_input(log):
    labels = np.arange(100) % 10
    depends_on_input("id", "text", torch.from_numpy(labels.copy()), labels)
    assert "1 of 10 classes predicted" in fails(depends_on_input, np.zeros(100, int), labels)
    assert "4 of 10" in fails(depends_on_input, np.minimum(labels, 3), labels)
    assert "accuracy 0.00" in fails(depends_on_input, (labels + 1) % 10, labels)
    two = np.array([0] * 70 + [1] * 30)  # half of two classes is one: the majority catches that
    assert "accuracy 0.70, majority 0.70" in fails(depends_on_input, np.zeros(100, int), two)
    assert "shape (100, 1), wanted (100,)" in fails(depends_on_input, labels[:, None], labels)


@pytest.mark.parametrize(
    "first, second",
    [
        (np.arange(12.0).reshape(3, 4), np.arange(8.0, 20).reshape(3, 4)),
        (
            np.uint8([[1, 2], [3, 4]]),
            np.float64([[3, 4], [5, 6]]),
        ),  # the same numbers in another dtype
        (np.arange(12).reshape(3, 4), torch.arange(8, 20).reshape(3, 4)),
        (["a", "bb"], ["bb", "a longer one"]),
        (
            pd.Series(["".join("ab"), "c"], dtype=object),
            np.array(["".join(["a", "b"]), "longer"], dtype=object),
        ),
    ],
)
def test_no_leak_finds_one_shared_sample(log, first, second):
    assert "1 shared among" in fails(no_leak, first, second)
    assert "1 shared among" in fails(no_leak, first[:1], second[1:], second[:1], first[1:])


def test_no_leak_passes_parts_that_are_apart(log):
    twice = np.array([[1, 2], [1, 2]])  # a duplicate within one part leaks nothing
    no_leak("id", "text", twice, np.array([[2, 1]]), np.zeros((0, 2), int))
    assert log.claims[-1].measured == "0 shared among 2 + 1 + 0"


def test_a_zero_on_the_clock_is_not_a_division_by_zero(log, monkeypatch):
    monkeypatch.setattr(checks.time, "perf_counter", lambda: 1.0)
    timed("id", "text", lambda: None, lambda: None, at_least=0)
