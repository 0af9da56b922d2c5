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


def fails(claim, *args, text: str = "text", **options) -> str:
    """The message of a claim that stops the run; each call gets an id of its own."""
    id = f"wrong-{len(record.current().claims)}"
    with pytest.raises(ClaimFailed) as caught:
        claim(id, text, *args, **options)
    assert record.current().claims[-1].status == "failed"
    assert f"the claim “{id}” does not hold: " in str(caught.value)
    return str(caught.value)


def test_check_prints_records_and_raises(log, capsys):
    check("sum", "one and one are two", 1 + 1 == 2)
    assert "does not hold: text (2, wanted 1 to 1.5)" in fails(check, 2, above=1, below=1.5)
    printed = capsys.readouterr().out
    assert "✓ one and one are two\n" in printed and "✗ text (2, wanted 1 to 1.5)\n" in printed
    assert [(c.id, c.kind, c.status) for c in log.claims] == [
        ("sum", "exact", "passed"),
        ("wrong-1", "exact", "failed"),
    ]


@pytest.mark.parametrize(
    "value, bounds, words",
    [
        (264.81, {"above": 224, "below": 288}, "has variance 264.8 (wanted 224 to 288)"),
        (0.5, {"at_least": 0}, "has variance 0.5 (wanted at least 0)"),
        (0.5, {"above": 0}, "has variance 0.5 (wanted over 0)"),
        (0.00012345, {"below": 0.05}, "has variance 0.0001234 (wanted under 0.05)"),
        (3, {"at_most": 3}, "has variance 3 (wanted at most 3)"),
        (1_234_567.8, {"above": 1e4}, "has variance 1,234,568 (wanted over 10,000)"),
        (24, {"at_least": 24, "at_most": 24}, "has variance 24 (wanted 24)"),
    ],
)
def test_the_measured_value_stands_in_the_sentence(log, capsys, value, bounds, words):
    check("id", "a product has variance {}", value, **bounds)
    assert capsys.readouterr().out == f"  ✓ a product {words}\n"
    assert log.claims[0].text == f"a product {words}"
    assert "{" not in log.claims[0].measured and log.claims[0].measured in words


def test_every_kind_of_claim_fills_in_its_value(log, capsys):
    expect("expect", "accuracy {}", 0.95, at_least=0.9)
    ratio = timed("timed", "{} times", lambda: sum(range(9999)), lambda: None, at_least=2)
    check_close("close", "they differ by {}", np.float64([1]), np.float64([1 + 1e-9]))
    check_close("same", "they differ by {}", 1, 1)
    labels = np.arange(100) % 10
    depends_on_input("input", "accuracy {}", labels, labels)
    torch.manual_seed(0)
    model = nn.Linear(8, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    losses = overfits("fits", "loss {}", model, classifier_batch(), loss_of, optimizer, below=1)
    printed = capsys.readouterr().out
    assert "✓ accuracy 0.95 (wanted at least 0.9)" in printed
    assert f"✓ {checks._number(ratio)} times (wanted at least 2)" in printed
    assert "✓ they differ by 1.0e-09\n" in printed and "✓ they differ by 0\n" in printed
    wanted = "wanted over the majority's 0.10, 10 of 10 classes predicted"
    assert f"✓ accuracy 1.00 ({wanted})" in printed
    assert f"✓ loss {losses[-1]:.2g} (wanted under 1; it was {losses[0]:.3g} before" in printed
    assert "{" not in printed


def test_a_failed_check_close_says_where_in_its_sentence(log):
    words = fails(check_close, [1.0, 2.0], [1.0, 2.5], text="they differ by {}")
    assert "they differ by 5.0e-01 (1 of 2 values differ, most at [1]: got 2, wanted 2.5)" in words
    assert "they differ by …" in fails(check_close, [1.0], [1.0, 2.0], text="they differ by {}")


@pytest.mark.parametrize("claim", [check, expect])
@pytest.mark.parametrize("value", [1, 0, 0.9, math.nan, "yes", [], [1], None, torch.tensor(1.0)])
def test_a_claim_without_a_bound_needs_true_or_false(log, claim, value):
    with pytest.raises(TypeError, match=r"claim “id”: .* is not True or False"):
        claim("id", "text", value)
    assert not log.claims


def test_one_judgement_per_id(log, tiny_log):
    check("sum", "one and one are two", True)
    for claim in (check, expect):
        with pytest.raises(ClaimFailed, match=r"“sum” was judged before"):
            claim("sum", "one and one are three", True)
    assert len(tiny_log.claims) == 1


def test_a_learned_or_timed_claim_is_judged_at_the_end(log, capsys):
    expect("accuracy", "accuracy {}", 0.3, at_least=0.9)
    timed("speed", "{} times", lambda: None, lambda: sum(range(9999)), at_least=2, repeats=1)
    check("sum", "one and one are two", True)
    assert [claim.status for claim in log.claims] == ["failed", "failed", "passed"]
    printed = capsys.readouterr().out
    assert "✗ accuracy 0.3 (wanted at least 0.9)" in printed and printed.count("✗") == 2
    words = "“accuracy” and “speed” do not hold: accuracy 0.3 (wanted at least 0.9)."
    with pytest.raises(ClaimFailed) as caught:
        log.judge()
    assert str(caught.value).endswith(words)


def test_outside_a_run_every_claim_raises_at_once(monkeypatch):
    """In a test or a notebook nobody would judge later, and the same claim may be made again."""
    monkeypatch.setattr(record, "_current", record.Record())
    for _ in range(2):
        with pytest.raises(ClaimFailed):
            expect("accuracy", "accuracy {}", 0.3, at_least=0.9)
        check("sum", "one and one are two", True)


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
        (np.True_, {}, True),
        (torch.tensor(False), {}, False),
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
    expect("good", "text", 0.95, at_least=0.9)
    expect("right", "text", np.True_)
    ratio = timed("fast", "text", lambda: sum(range(20_000)), lambda: None, at_least=10)
    assert ratio > 10 and log.judge() is None
    expect("bad", "text", 0.3, at_least=0.9)
    timed("slow", "text", lambda: None, lambda: sum(range(20_000)), at_least=1)
    assert [claim.status for claim in log.claims] == ["passed"] * 3 + ["failed"] * 2
    assert log.claims[3].text == "text (0.3, wanted at least 0.9)"


@pytest.mark.parametrize(
    "ours, reference",
    [
        (1.5, 1.5),
        (np.float64(1), torch.tensor(1.0)),
        ([1, 2], (1, 2)),
        ([math.inf, -math.inf], [math.inf, -math.inf]),
        (np.array([1 + 2j]), np.array([1 + 2j + 1e-12])),
        (np.array([True, False]), np.array([True, False])),
        (torch.ones(3, requires_grad=True) * (1 + 1e-6), np.ones(3)),
        (np.uint8([0, 255]), np.uint8([0, 255])),
    ],
)
def test_check_close_passes_what_is_equal(log, ours, reference, recwarn):
    check_close("id", "text", ours, reference)
    assert "nan" not in log.claims[-1].measured and not recwarn.list


def test_two_computations_that_diverged_do_not_agree(log):
    check_close("ok", "text", [math.nan, 1.0], [math.nan, 1.0], equal_nan=True)
    assert "nan" not in log.claims[-1].measured
    with pytest.raises(ClaimFailed, match=r"nan on both sides at \[0\]"):
        check_close("id", "text", [math.nan, 1.0], [math.nan, 1.0])


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
        assert "wanted under 0.05; it was 1." in fails(overfits, model, batch, loss_of, optimizer)


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
    assert "accuracy 0.70, wanted over the majority's 0.70" in fails(
        depends_on_input, np.zeros(100, int), two
    )
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
