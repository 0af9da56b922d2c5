"""1.1 NumPy basics: an array is one block of memory and a rule for reading it
NumPy 基础：数组就是一块内存，加上一条读取规则

You will be able to answer
    1. What is stored besides the numbers, and how is a[i, j] found?   show_memory    strides, address
    2. Which results are views of the same memory, which are copies?   show_views     views, write-through, lost-write
    3. How can a million overlapping windows cost no memory?           show_windows   windows, no-copy
    4. What do you pay for a dtype that is too small?                  show_dtypes    wraps, precision
    5. Why is an array many times faster than a list?                  show_speed     same-sum, speed
    6. How do you make random numbers that come back tomorrow?         show_seeds     same-seed, own-stream
Run       python phase01_data_science/01-numpy-basics.py                   about 2 s
Needs     -
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from common.checks import check, check_close, timed
from common.config import LessonConfig, main, param
from common.figures import BLUE, GREY, ORANGE, new_figure, save_figure


@dataclass
class Config(LessonConfig):
    numbers: int = param(10_000, "how many numbers the speed test adds up", tiny=2_000, low=1_000)


def strides_of(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Bytes to step over to reach the next element along each axis, last axis fastest (C order)."""
    # practice: how far is the next row, how far is the next column?
    # hint: the next element along the last axis lies one item further
    # hint: one step along an axis jumps over everything that the axes to its right hold
    # hint: strides, step = [], itemsize, then walk over reversed(shape)
    strides = []
    step = itemsize
    for length in reversed(shape):
        strides.append(step)
        step = step * length
    strides.reverse()
    # end practice
    return tuple(strides)


def read_at(
    memory: bytes, dtype: np.dtype, strides: tuple[int, ...], index: tuple[int, ...], start: int = 0
) -> float:
    """The element at `index`, taken from the raw bytes as NumPy does: start + sum of index times stride."""
    # practice: from an index to an address
    # hint: each axis moves the address by its index times its stride
    # hint: an element fills dtype.itemsize bytes, beginning at the address
    # hint: address = start, then one += for each pair in zip(index, strides)
    address = start
    for i, stride in zip(index, strides):
        address += i * stride
    raw = memory[address : address + dtype.itemsize]
    # end practice
    return np.frombuffer(raw, dtype)[0]


def windows(x: np.ndarray, size: int) -> np.ndarray:
    """All runs of `size` neighbours. x: (n,) -> (n - size + 1, size), without copying a number.

    Row i must begin at x[i], so the step from row to row is as long as the step from element to element.
    """
    # practice: every window of a series, in the memory that is already there
    # hint: how many windows of length 3 fit into 5 numbers?
    # hint: the next window and the next number in a window lie equally far away: one stride serves both axes
    # hint: step, = x.strides
    count = len(x) - size + 1
    (step,) = x.strides
    view = np.lib.stride_tricks.as_strided(x, (count, size), (step, step), writeable=False)
    # end practice
    return view


def show_memory(cfg: Config) -> None:
    print("\n[1] Shape and strides turn one row of bytes into a table")
    a = np.arange(12, dtype=np.int32).reshape(3, 4)
    print(
        f"  {a.ndim} axes, shape {a.shape}, dtype {a.dtype}: {a.itemsize} bytes a number, {a.nbytes} bytes in all"
    )
    print(
        f"  strides {a.strides}: {a.strides[0]} bytes to the next row, {a.strides[1]} to the next column"
    )
    shapes = [(7,), (3, 4), (2, 3, 5), (4, 1, 2, 3)]
    check(
        "strides",
        f"our strides equal .strides for {len(shapes)} shapes in 3 dtypes",
        all(
            strides_of(shape, np.dtype(d).itemsize) == np.empty(shape, d).strides
            for shape in shapes
            for d in ("int8", "float32", "complex128")
        ),
    )
    cube, raw = np.arange(24.0).reshape(2, 3, 4), np.arange(24.0).tobytes()
    found = [read_at(raw, cube.dtype, cube.strides, index) for index in np.ndindex(cube.shape)]
    turned = cube[:, ::-1].transpose(2, 0, 1)  # the same bytes, read in another order
    start = cube.strides[1] * 2  # a reversed axis begins at its far end
    found += [
        read_at(raw, cube.dtype, turned.strides, index, start) for index in np.ndindex(turned.shape)
    ]
    check_close(
        "address",
        "reading the raw bytes gives a[i, j, k], reversed and transposed too",
        found,
        np.concatenate([cube.ravel(), turned.ravel()]),
    )


def show_views(cfg: Config) -> None:
    print("\n[2] A view is another rule for the same memory; a copy is other memory")
    a = np.arange(12).reshape(3, 4)
    table: list[
        tuple[str, Callable[[], np.ndarray], bool]
    ] = [  # what it is, how it is made, does it share memory?
        ("a[1]                one row", lambda: a[1], True),
        ("a[:, ::2]           every other column", lambda: a[:, ::2], True),
        ("a.T                 transposed", lambda: a.T, True),
        ("a.reshape(2, 6)     other shape", lambda: a.reshape(2, 6), True),
        ("a.T.reshape(12)     needs another order", lambda: a.T.reshape(12), False),
        ("a[[0, 2]]           a list of rows", lambda: a[[0, 2]], False),
        ("a[a > 5]            a mask", lambda: a[a > 5], False),
        ("a.astype(float)     another dtype", lambda: a.astype(float), False),
    ]
    for name, make, shares in table:
        print(f"  {name:<42}{'view' if shares else 'copy'}   strides {make().strides}")
    check(
        "views",
        f"all {len(table)} share memory, or do not, as said above",
        all(np.shares_memory(a, make()) == shares for _, make, shares in table),
    )
    a[:, ::2][1, 1] = 100  # row 1, second of the columns 0, 2
    check("write-through", "writing into a view writes into the array it looks at", a[1, 2] == 100)
    a[a > 50][0] = 0  # writes into a copy, which is then thrown away
    check(
        "lost-write",
        "writing into a[mask][0] changes nothing: the mask made a copy",
        a[1, 2] == 100,
    )
    draw_views(cfg)


def show_windows(cfg: Config) -> None:
    print("\n[3] Strides can overlap: every window of a series, without copying it")
    x = np.arange(10.0)
    ours = windows(x, 4)
    print("  " + str(ours[:3]).replace("\n", "\n  "), "…")
    check_close(
        "windows",
        "equals sliding_window_view, for a series with gaps in memory too",
        np.concatenate([ours, windows(x[::2], 4)]),
        np.concatenate([np.lib.stride_tricks.sliding_window_view(s, 4) for s in (x, x[::2])]),
    )
    big = np.zeros(1_000_000)
    check(
        "no-copy",
        f"windows of 100 hold {windows(big, 100).size:,} numbers in the series' {big.nbytes:,} bytes",
        np.shares_memory(windows(big, 100), big),
    )


def show_dtypes(cfg: Config) -> None:
    print("\n[4] A dtype has an end, and nobody tells you when you pass it")
    pixel = np.array([200], dtype=np.uint8)
    check(
        "wraps",
        f"uint8: 200 + 100 = {(pixel + np.uint8(100))[0]}, the rest of 300 divided by 256",
        (pixel + np.uint8(100))[0] == 300 % 256,
    )
    step, n = np.float32(0.1), 10_000
    running = np.full(n, step).cumsum()[-1]  # adds one after the other in float32
    print(
        f"  0.1 added {n:,} times in float32: {running:.4f}; summed in pairs (np.sum): {np.full(n, step).sum():.4f}"
    )
    check(
        "precision",
        "np.sum, which adds in pairs, is at least 10 times closer to 1000 than adding in a row",
        abs(running - 1000) / max(abs(np.full(n, step).sum() - 1000), 1e-12),
        at_least=10,
    )


def show_speed(cfg: Config) -> dict[str, float]:
    print("\n[5] One call in C against one Python step per number")
    array = cfg.rng().random(cfg.numbers)
    numbers = array.tolist()
    check_close(
        "same-sum",
        f"both ways add up {cfg.numbers:,} squares to the same",
        loop_sum(numbers),
        array @ array,
    )
    ratio = timed(
        "speed",
        "sum of squares: the array is faster than the loop over a list",
        lambda: loop_sum(numbers),
        lambda: array @ array,
        at_least=20,
    )
    cost = draw_speed(cfg)
    return {
        "speedup": ratio,
        "loop_ns": cost["list, loop"][-1],
        "array_ns": cost["array, one call"][-1],
    }


def loop_sum(numbers: list[float]) -> float:
    total = 0.0
    for x in numbers:
        total += x * x
    return total


def show_seeds(cfg: Config) -> None:
    print("\n[6] Random numbers from a seed are data: the same tomorrow, on any machine")
    first, again = np.random.default_rng(7), np.random.default_rng(7)
    draws = first.random(1000)
    check_close(
        "same-seed",
        "two generators with seed 7 give the same 1,000 numbers",
        draws,
        again.random(1000),
        rtol=0,
        atol=0,
    )
    shuffle, noise = np.random.default_rng(7).spawn(2)  # one stream for each purpose
    alone = shuffle.permutation(100)
    shuffle, noise = np.random.default_rng(7).spawn(2)
    noise.random(12_345)  # someone adds a plot that draws random points …
    check(
        "own-stream",
        "a stream of its own is not moved by what others draw",
        (shuffle.permutation(100) == alone).all(),
    )


def draw_views(cfg: Config) -> None:
    """One row for each view; the number in a memory cell says when the view reads it."""
    a = np.arange(12)
    table = a.reshape(3, 4)
    views = {
        "a": table,
        "a[1]": table[1],
        "a[:, ::2]": table[:, ::2],
        "a.T": table.T,
        "a[::-1, ::-1]": table[::-1, ::-1],
        "windows(a.ravel(), 2)": windows(a, 2),
    }
    figure, axis = new_figure(size=(9.6, 4.6))
    for row, (name, view) in enumerate(views.items()):
        cells: dict[int, list[int]] = {}
        for position, cell in enumerate(view.ravel()):
            cells.setdefault(int(cell), []).append(position)
        for cell in range(12):
            read = cells.get(cell, [])
            colour = (BLUE if (cell // 4) % 2 == 0 else ORANGE) if read else "#F2F2F2"
            axis.add_patch(_box(cell, -row, colour))
            axis.text(
                cell + 0.45,
                -row + 0.36,
                "·".join(map(str, read)),
                ha="center",
                va="center",
                color="white",
                fontsize=12 if len(read) < 2 else 9,
                fontweight="bold",
            )
        strides = ", ".join(str(s // a.itemsize) for s in view.strides)
        axis.text(-0.3, -row + 0.36, name, ha="right", va="center", family="monospace")
        axis.text(
            12.2, -row + 0.36, f"steps ({strides})", va="center", color=GREY, family="monospace"
        )
    axis.set(
        xlim=(-5, 15.6),
        ylim=(-len(views) + 0.8, 1.3),
        title="One block of 12 numbers, six rules for reading it",
    )
    axis.text(
        0,
        1,
        "cell colour: row of the table · number: when the view reads this cell",
        color=GREY,
        fontsize=11,
    )
    axis.axis("off")
    save_figure(figure, cfg.out / "views")


def _box(x: float, y: float, colour: str):
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), 0.9, 0.72, color=colour)


def draw_speed(cfg: Config) -> dict[str, list[float]]:
    """Nanoseconds a number, by length: the price of one call is shared by all the numbers in it."""
    sizes = [int(size) for size in np.geomspace(10, cfg.numbers, 7)]
    cost: dict[str, list[float]] = {"list, loop": [], "array, one call": []}
    for size in sizes:
        array = cfg.rng().random(size)
        numbers = array.tolist()
        for name, function in (
            ("list, loop", lambda: loop_sum(numbers)),
            ("array, one call", lambda: array @ array),
        ):
            repeats = max(3, 20_000 // size)
            start = time.perf_counter()
            for _ in range(repeats):
                function()
            cost[name].append((time.perf_counter() - start) / repeats / size * 1e9)
    figure, axis = new_figure()
    for name, colour in (("list, loop", ORANGE), ("array, one call", BLUE)):
        axis.loglog(sizes, cost[name], "o-", color=colour)
        axis.annotate(
            name,
            (sizes[3], cost[name][3]),
            xytext=(0, 9),
            textcoords="offset points",
            color=colour,
            fontweight="bold",
        )
    axis.set(
        xlabel="how many numbers",
        ylabel="nanoseconds a number",
        title="Sum of squares: what one number costs",
    )
    save_figure(figure, cfg.out / "speed")
    return cost


def run(cfg: Config) -> dict:
    show_memory(cfg)
    show_views(cfg)
    show_windows(cfg)
    show_dtypes(cfg)
    results = show_speed(cfg)
    show_seeds(cfg)
    return results


if __name__ == "__main__":
    main(run, Config, __doc__)
