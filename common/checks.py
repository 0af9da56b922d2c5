"""Claims: what a lesson says about itself, checked while it runs.

Each prints ✓, ✗ or – with the measured figure. A ✗ raises, and the script exits 1.

    check         exact: mathematics and facts, judged in every mode
    check_close   exact: two arrays agree; says where and by how much they differ
    expect        learned: an accuracy, a comparison; judged in the normal run, only reported in a tiny one
    timed         timed: a ratio of times; judged in the normal run, only reported in a tiny one
    overfits, depends_on_input, no_leak      what every model must show, tiny or not

The first argument is the claim's id, as listed in the lesson's docstring.
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


def check(
    id: str,
    text: str,
    value: Any,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
) -> None:
    """An exact claim. Without a bound `value` is the verdict itself; with bounds, a number that must lie in them."""
    holds, measured = _compare(value, above, at_least, below, at_most)
    _judge(id, text, "exact", holds, measured)


def expect(
    id: str,
    text: str,
    value: Any,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
) -> None:
    """A learned claim: as `check`, but a tiny run only reports it, for tiny data proves nothing about learning."""
    holds, measured = _compare(value, above, at_least, below, at_most)
    _judge(id, text, "learned", None if current().tiny else holds, measured)


def timed(
    id: str,
    text: str,
    slow: Callable[[], Any],
    fast: Callable[[], Any],
    *,
    at_least: float,
    repeats: int = 5,
) -> float:
    """How many times faster `fast` is than `slow`; judged in the normal run. Returns the ratio of median times.

    Both are warmed, then run in turn, so that a change in the machine's speed meets both alike. A short function is
    called until 5 ms have passed, for one call of it would measure the clock and the scheduler.
    """
    slow(), fast()
    calls = {
        function: min(max(1, round(0.005 / _seconds(function, 1))), 10_000)
        for function in (slow, fast)
    }
    times: dict[Callable, list[float]] = {slow: [], fast: []}
    for _ in range(repeats):
        for function in (slow, fast):
            times[function].append(_seconds(function, calls[function]) / calls[function])
    ratio = statistics.median(times[slow]) / statistics.median(times[fast])
    holds, measured = _compare(ratio, None, at_least, None, None)
    _judge(id, text, "timed", None if current().tiny else holds, f"{measured} times")
    return ratio


def _seconds(function: Callable[[], Any], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        function()
    return max(time.perf_counter() - start, 1e-9)  # a coarse clock may say 0


def check_close(
    id: str,
    text: str,
    ours: Any,
    reference: Any,
    *,
    rtol: float | None = None,
    atol: float | None = None,
) -> None:
    """Two arrays or tensors agree in shape and value. Default tolerances, relative and absolute: 1e-7 and 1e-10 in
    float64, 1e-5 and 1e-5 in less, none for whole numbers and truth values."""
    ours, reference = _to_numpy(ours), _to_numpy(reference)
    _judge_shape(id, text, ours, reference)
    coarse = {np.dtype(d) for d in (np.float16, np.float32, np.complex64)} & {
        ours.dtype,
        reference.dtype,
    }
    fractions = {ours.dtype.kind, reference.dtype.kind} & set("fc")
    default_rtol, default_atol = (1e-5, 1e-5) if coarse else (1e-7, 1e-10) if fractions else (0, 0)
    same = np.isclose(
        ours,
        reference,
        rtol=default_rtol if rtol is None else rtol,
        atol=default_atol if atol is None else atol,
        equal_nan=True,
    )
    difference = _difference(ours, reference)
    if same.all():
        _judge(id, text, "exact", True, f"largest difference {difference.max():.1e}")
        return
    worst = np.unravel_index(np.argmax(np.where(same, -1, difference)), ours.shape)
    place = f" at {list(map(int, worst))}" if ours.ndim else ""
    _judge(
        id,
        text,
        "exact",
        False,
        f"{(~same).sum()} of {same.size} values differ, most{place}: "
        f"got {ours[worst].item():.6g}, wanted {reference[worst].item():.6g}",
    )


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
    """A model that can learn at all drives the loss on one fixed batch to nearly 0. Trains it; returns the losses.

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
    learned = losses[-1] < min(
        below, losses[0]
    )  # a loss that was small from the start shows nothing
    _judge(
        id,
        text,
        "exact",
        learned,
        f"loss {losses[0]:.3g} → {losses[-1]:.2g} in {steps} steps, wanted below {below:g}",
    )
    return losses


def depends_on_input(id: str, text: str, predicted: Any, labels: Any) -> None:
    """The trained model answers differently to different inputs: at least half the classes, and above the majority.

    predicted, labels: (n,) class numbers. A model that says the same to everything passes many a smoke test; not this.
    """
    predicted, labels = _to_numpy(predicted), _to_numpy(labels)
    _judge_shape(id, text, predicted, labels)
    classes, counts = np.unique(labels, return_counts=True)
    used, accuracy = len(np.unique(predicted)), float((predicted == labels).mean())
    majority = counts.max() / counts.sum()
    _judge(
        id,
        text,
        "exact",
        used * 2 >= len(classes) and accuracy > majority,
        f"{used} of {len(classes)} classes predicted, accuracy {accuracy:.2f}, majority {majority:.2f}",
    )


def no_leak(id: str, text: str, *parts: Any) -> None:
    """No sample stands in two of the parts (train, validation, test): compared byte by byte, as one dtype."""
    arrays = [_to_numpy(part) for part in parts]
    arrays = [
        a.astype(str) if a.dtype == object else a for a in arrays
    ]  # an object array holds addresses, not texts
    kind = np.result_type(*arrays)
    seen: dict[bytes, int] = {}
    shared = 0
    for number, array in enumerate(arrays):
        for row in array.astype(kind, copy=False):
            shared += seen.setdefault(row.tobytes(), number) != number
    _judge(
        id,
        text,
        "exact",
        shared == 0,
        f"{shared} shared among {' + '.join(str(len(p)) for p in parts)}",
    )


def _compare(value, above, at_least, below, at_most) -> tuple[bool, str]:
    bounds = [
        (above, ">", "above"),
        (at_least, ">=", "at least"),
        (below, "<", "below"),
        (at_most, "<=", "at most"),
    ]
    bounds = [bound for bound in bounds if bound[0] is not None]
    if not bounds:
        return bool(value) and value == value, "" if isinstance(value, (bool, np.bool_)) else str(
            value
        )
    value = float(value)
    test = {">": float.__gt__, ">=": float.__ge__, "<": float.__lt__, "<=": float.__le__}
    holds = all(test[sign](value, float(bound)) for bound, sign, _ in bounds)
    return holds, f"{value:.4g}, wanted " + " and ".join(
        f"{word} {bound:g}" for bound, _, word in bounds
    )


def _judge_shape(id: str, text: str, ours: np.ndarray, reference: np.ndarray) -> None:
    if ours.shape != reference.shape:
        _judge(id, text, "exact", False, f"shape {ours.shape}, wanted {reference.shape}")
    if ours.size == 0:
        _judge(id, text, "exact", False, f"shape {ours.shape}: there is nothing to compare")


def _judge(id: str, text: str, kind: str, holds: bool | None, measured: str) -> None:
    status = {True: "passed", False: "failed", None: "not judged"}[
        None if holds is None else bool(holds)
    ]
    current().claims.append(Claim(id, text, kind, status, measured))
    mark = {"passed": "✓", "failed": "✗", "not judged": "–"}[status]
    detail = f" ({measured})" if measured else ""
    print(f"  {mark} {text}{detail}{' – not judged' if holds is None else ''}", flush=True)
    if status == "failed":
        raise ClaimFailed(f"the claim “{id}” does not hold: {text}{detail}.")


def _to_numpy(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):  # a tensor, without importing torch to ask
        value = value.detach().cpu().numpy()
    return np.asarray(value)


def _difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|a - b|: 0 where both are the same infinity or both are NaN, infinite where only one is NaN."""
    kind = np.result_type(a, b, np.float64)
    with np.errstate(invalid="ignore"):  # inf - inf
        difference = np.abs(a.astype(kind) - b.astype(kind))
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    return np.where(same, 0, np.nan_to_num(difference, nan=np.inf, posinf=np.inf))
