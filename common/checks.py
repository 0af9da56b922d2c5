"""Claims: what a lesson says about itself, checked while it runs.

Each prints ✓, ✗ or –, and a sentence with the measured figure in it. A script with a ✗ exits 1.

    check         exact: mathematics and facts, judged in every mode
    check_close   exact: two arrays agree; says where and by how much they differ
    expect        learned: an accuracy, a comparison; only reported in a tiny run
    timed         timed: a ratio of times; only reported in a tiny run
    overfits, depends_on_input, no_leak      what every model must show, tiny or not

The first argument is the claim's id, as listed in the lesson's docstring. `{}` in the text stands
for the measured value: check("sum", "the weights add up to {}", total, above=0.99, below=1.01).

An exact ✗ stops the run. A learned or timed one is judged when the run has ended, so that its
figures, curves and model are kept.
"""

import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from common.errors import ClaimFailed
from common.record import Claim, current

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

MARKS = {"passed": "✓", "failed": "✗", "not judged": "–"}


def check(id: str, text: str, value: Any, **bounds: float) -> None:
    """An exact claim. Without a bound `value` is the verdict, True or False; else a number.

    bounds: any of above, at_least, below, at_most.
    """
    _judge_value(id, text, "exact", value, bounds)


def expect(id: str, text: str, value: Any, **bounds: float) -> None:
    """A learned claim: as `check`, but a tiny run only reports it: tiny data proves nothing."""
    _judge_value(id, text, "learned", value, bounds)


def timed(
    id: str,
    text: str,
    slow: Callable[[], Any],
    fast: Callable[[], Any],
    *,
    at_least: float,
    repeats: int = 5,
) -> float:
    """How many times faster `fast` is than `slow`: the ratio of median times, which is returned.

    Both are warmed, then run in turn, so that a change in the machine's speed meets both alike. A
    short function is called until 5 ms have passed, for one call would measure the clock.
    """
    slow()
    fast()
    slow_calls = _calls_for_5_ms(slow)
    fast_calls = _calls_for_5_ms(fast)

    slow_times = []
    fast_times = []
    for _ in range(repeats):
        slow_times.append(_seconds(slow, slow_calls) / slow_calls)
        fast_times.append(_seconds(fast, fast_calls) / fast_calls)

    ratio = statistics.median(slow_times) / statistics.median(fast_times)
    _judge_value(id, text, "timed", ratio, {"at_least": at_least})
    return ratio


def _calls_for_5_ms(function: Callable[[], Any]) -> int:
    calls = round(0.005 / _seconds(function, 1))
    return min(max(1, calls), 10_000)


def _seconds(function: Callable[[], Any], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        function()
    # a coarse clock may say 0
    return max(time.perf_counter() - start, 1e-9)


def check_close(
    id: str,
    text: str,
    ours: Any,
    reference: Any,
    *,
    rtol: float | None = None,
    atol: float | None = None,
    equal_nan: bool = False,
) -> None:
    """Two arrays or tensors agree in shape and value; `{}` stands for the largest difference.

    Default tolerances, relative and absolute: 1e-7 and 1e-10 in float64, 1e-5 and 1e-5 in less,
    none for whole numbers and truth values. Unless `equal_nan`, two that diverged do not agree.
    """
    ours = _to_numpy(ours)
    reference = _to_numpy(reference)
    _judge_shape(id, text, ours, reference)

    default_rtol, default_atol = _tolerances(ours.dtype, reference.dtype)
    same = np.isclose(
        ours,
        reference,
        rtol=default_rtol if rtol is None else rtol,
        atol=default_atol if atol is None else atol,
        equal_nan=equal_nan,
    )
    difference = _difference(ours, reference)
    largest = f"{difference.max():.1e}" if difference.max() else "0"
    if same.all():
        if "{}" not in text:
            largest = f"largest difference {largest}"
        _judge(id, text, "exact", True, largest)
        return

    worst = np.unravel_index(np.argmax(np.where(same, -1, difference)), ours.shape)
    place = f" at {list(map(int, worst))}" if ours.ndim else ""
    if np.isnan(ours[worst]) and np.isnan(reference[worst]):
        _judge(id, text.replace("{}", "nan"), "exact", False, f"nan on both sides{place}")
    detail = (
        f"{(~same).sum()} of {same.size} values differ, most{place}: "
        f"got {ours[worst].item():.6g}, wanted {reference[worst].item():.6g}"
    )
    _judge(id, text.replace("{}", largest), "exact", False, detail)


def _tolerances(*dtypes: np.dtype) -> tuple[float, float]:
    """rtol and atol for the coarsest of the dtypes."""
    if any(dtype in (np.float16, np.float32, np.complex64) for dtype in dtypes):
        return 1e-5, 1e-5
    if any(dtype.kind in "fc" for dtype in dtypes):
        return 1e-7, 1e-10
    return 0.0, 0.0


def overfits(
    id: str,
    text: str,
    model: "nn.Module",
    batch: Any,
    loss_fn: Callable[["nn.Module", Any], "Tensor"],
    optimizer: "Optimizer",
    *,
    steps: int = 100,
    below: float = 0.05,
) -> list[float]:
    """A model that can learn at all drives the loss on one fixed batch to nearly 0.

    Trains it for `steps`; returns the losses. `{}` stands for the last one.
    loss_fn(model, batch) gives a scalar, as in `common.training.fit`.
    """
    model.train()
    losses = []
    for _ in range(steps):
        loss = loss_fn(model, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    losses = [loss.item() for loss in losses]

    # a loss that was small from the start shows nothing
    learned = losses[-1] < min(below, losses[0])
    wanted = f"under {below:g}; it was {losses[0]:.3g} before {steps} steps"
    _judge(id, text, "exact", learned, f"{losses[-1]:.2g}", wanted)
    return losses


def depends_on_input(id: str, text: str, predicted: Any, labels: Any) -> None:
    """The trained model answers differently to different inputs; `{}` stands for its accuracy.

    predicted, labels: (n,) class numbers. At least half the classes are predicted, more often
    rightly than by always naming the majority: a model that always says the same does neither.
    """
    predicted = _to_numpy(predicted)
    labels = _to_numpy(labels)
    _judge_shape(id, text, predicted, labels)

    classes, counts = np.unique(labels, return_counts=True)
    used = len(np.unique(predicted))
    accuracy = float((predicted == labels).mean())
    majority = counts.max() / counts.sum()
    holds = used * 2 >= len(classes) and accuracy > majority
    measured = f"{used} of {len(classes)} classes predicted, accuracy {accuracy:.2f}"
    wanted = f"over the majority's {majority:.2f}"
    if "{}" in text:
        measured = f"{accuracy:.2f}"
        wanted += f", {used} of {len(classes)} classes predicted"
    _judge(id, text, "exact", holds, measured, wanted)


def no_leak(id: str, text: str, *parts: Any) -> None:
    """No sample stands in two of the parts (train, validation, test): compared byte by byte."""
    arrays = [_to_numpy(part) for part in parts]
    # an object array holds addresses, not texts
    arrays = [array.astype(str) if array.dtype == object else array for array in arrays]
    kind = np.result_type(*arrays)

    seen: dict[bytes, int] = {}
    shared = 0
    for number, array in enumerate(arrays):
        for row in array.astype(kind, copy=False):
            shared += seen.setdefault(row.tobytes(), number) != number

    sizes = " + ".join(str(len(part)) for part in parts)
    _judge(id, text, "exact", shared == 0, f"{shared} shared among {sizes}")


def _judge_value(id: str, text: str, kind: str, value: Any, bounds: dict[str, float]) -> None:
    """Judge a number by its bounds, or a truth value as it is."""
    if bounds:
        number = float(value)
        wanted = _wanted(**bounds)
        _judge(id, text, kind, _within(number, bounds), _number(number), wanted)
        return

    # True or False, also of NumPy and torch; a bare number would pass whatever it is.
    if "bool" not in str(getattr(value, "dtype", type(value).__name__)):
        raise TypeError(f"claim “{id}”: {value!r} is not True or False, so it needs a bound.")
    _judge(id, text, kind, bool(value))


def _within(value: float, bounds: dict[str, float]) -> bool:
    """Whether a number keeps all its bounds; NaN keeps none."""
    keeps = {
        "above": float.__gt__,
        "at_least": float.__ge__,
        "below": float.__lt__,
        "at_most": float.__le__,
    }
    return all(keeps[name](value, float(bound)) for name, bound in bounds.items())


def _wanted(
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
) -> str:
    """The bounds in words: "0.9 to 1.1", "at least 0.95", "under 0.05"."""
    low = at_least if above is None else above
    high = at_most if below is None else below
    if low is None:
        return f"{'at most' if below is None else 'under'} {_number(high)}"
    if high is None:
        return f"{'at least' if above is None else 'over'} {_number(low)}"
    if low == high:
        return _number(low)
    return f"{_number(low)} to {_number(high)}"


def _number(value: Any) -> str:
    """Four significant digits; whole numbers stay whole, and large ones get commas."""
    value = float(value)
    if value.is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"


def _judge_shape(id: str, text: str, ours: np.ndarray, reference: np.ndarray) -> None:
    text = text.replace("{}", "…")
    if ours.shape != reference.shape:
        _judge(id, text, "exact", False, f"shape {ours.shape}, wanted {reference.shape}")
    if ours.size == 0:
        _judge(id, text, "exact", False, f"shape {ours.shape}: there is nothing to compare")


def _judge(
    id: str, text: str, kind: str, holds: bool, measured: str = "", wanted: str = ""
) -> None:
    """Write the claim down, print it, and raise ClaimFailed where it stops the run."""
    record = current()
    if record.running and any(claim.id == id for claim in record.claims):
        raise ClaimFailed(f"the claim “{id}” was judged before: give every claim an id of its own.")

    status = "passed" if holds else "failed"
    if record.tiny and kind != "exact":
        status = "not judged"
    sentence = _sentence(text, measured, wanted)
    record.claims.append(Claim(id, sentence, kind, status, measured))
    print(
        f"  {MARKS[status]} {sentence}" + (" – not judged" if status == "not judged" else ""),
        flush=True,
    )
    if status == "failed" and (kind == "exact" or not record.running):
        raise ClaimFailed(f"the claim “{id}” does not hold: {sentence}.")


def _sentence(text: str, measured: str, wanted: str) -> str:
    """“… has variance {}” with 264.8 in it, and what was wanted behind it."""
    if "{}" in text:
        sentence = text.replace("{}", measured)
        return f"{sentence} (wanted {wanted})" if wanted else sentence
    details = [measured, f"wanted {wanted}" if wanted else ""]
    detail = ", ".join(part for part in details if part)
    return f"{text} ({detail})" if detail else text


def _to_numpy(value: Any) -> np.ndarray:
    # a tensor, without importing torch to ask
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    return np.asarray(value)


def _difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|a - b|: 0 where both are the same infinity or both NaN, infinite where only one is NaN."""
    kind = np.result_type(a, b, np.float64)
    # inf - inf
    with np.errstate(invalid="ignore"):
        difference = np.abs(a.astype(kind) - b.astype(kind))
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    return np.where(same, 0, np.nan_to_num(difference, nan=np.inf, posinf=np.inf))
