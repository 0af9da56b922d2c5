"""1.1 NumPy basics: an array is one block of memory and a rule for reading it
NumPy 基础：数组是一块内存，加上一条读取规则

You will be able to answer
    1. How does NumPy find a[i, j] among bytes?     show_memory   strides, plain, address
    2. Which results are views, which are copies?   show_views    views, write-through, lost-write
    3. What happens when a dtype is too small?      show_dtypes   wraps, precision
    4. Why is one array call faster than a loop?    show_speed    same-sum, speed, small, layout
    5. How are random numbers made repeatable?      show_seeds    same-seed, one-stream, own-stream
Predict   speedup: how many times faster is one array call than a loop over a list of 10,000?
Run       python phase01_data_science/01-numpy-basics.py                   about 3 s
Needs     -
Reference np.ndarray.strides
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
    side: int = param(4_000, "rows and columns of the table that is added up", tiny=200, low=100)


def strides_of(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Bytes from one element to the next along each axis of a new array.

    The last axis is the fastest one (C order): its elements lie side by side, `itemsize` apart.
    """
    # practice: How far is the next row, and how far the next column?
    strides = []
    step = itemsize
    for length in reversed(shape):
        strides.append(step)

        # One step along an axis jumps over everything that the axes to its right hold.
        step = step * length

    strides.reverse()
    return tuple(strides)
    # end practice


def read_at(
    memory: bytes,
    dtype: np.dtype,
    strides: tuple[int, ...],
    index: tuple[int, ...],
    start: int,
) -> float:
    """The element at `index`, read from the raw bytes as NumPy reads it.

    start: the address of element (0, 0, …), which is not 0 where an axis is reversed.
    """
    # practice: From an index to an address
    address = start
    for position, stride in zip(index, strides):
        address = address + position * stride

    element = memory[address : address + dtype.itemsize]
    return np.frombuffer(element, dtype)[0]
    # end practice


def show_memory(cfg: Config) -> None:
    print("\n[1] Shape and strides turn a row of bytes into a table")
    table = np.arange(12, dtype=np.int32).reshape(3, 4)
    print(f"  shape {table.shape}, dtype {table.dtype}: {table.itemsize} bytes a number")
    row_step, column_step = table.strides
    print(f"  strides: {row_step} bytes to the next row, {column_step} to the next column")

    ours = []
    numpys = []
    for shape in [(7,), (3, 4), (2, 3, 5), (4, 1, 2, 3)]:
        for dtype in ["int8", "float32", "complex128"]:
            array = np.empty(shape, dtype)
            ours.extend(strides_of(shape, array.itemsize))
            numpys.extend(array.strides)
    check_close("strides", "our strides are NumPy's, for 12 shapes and dtypes", ours, numpys)

    # In a float every byte counts; of a small whole number only the first byte is not 0.
    cube = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    memory = cube.tobytes()
    last = read_at(memory, cube.dtype, cube.strides, index=(1, 2, 3), start=0)
    check("plain", "the number at [1, 2, 3] of 0 … 23 is the last one, 23", last == 23)

    # The same bytes under another rule: the axes change places, and one is read backwards.
    turned = cube[:, ::-1].transpose(2, 0, 1)

    # A reversed axis begins at its last element, here number 3 - 1.
    start = (3 - 1) * cube.strides[1]
    elements = [
        read_at(memory, turned.dtype, turned.strides, index, start)
        for index in np.ndindex(turned.shape)
    ]
    check_close(
        "address",
        "reading bytes finds all of a reversed, transposed view",
        elements,
        turned.ravel(),
    )


def show_views(cfg: Config) -> None:
    print("\n[2] A view is another rule for the same memory; a copy has memory of its own")
    a = np.arange(12, dtype=np.int32).reshape(3, 4)
    views = {
        "a[1]": a[1],
        "a[:, ::2]": a[:, ::2],
        "a.T": a.T,
        "a.reshape(2, 6)": a.reshape(2, 6),
    }
    copies = {
        "a.T.reshape(12)": a.T.reshape(12),  # no single stride visits them in this order
        "a[[0, 2]]": a[[0, 2]],  # a list or a mask always copies
        "a[a > 5]": a[a > 5],
        "a.astype(float)": a.astype(float),
    }
    for name, result in (views | copies).items():
        kind = "view" if np.shares_memory(a, result) else "copy"
        print(f"  {name:<18}{kind}   strides {result.strides}")

    as_said = [np.shares_memory(a, result) for result in views.values()]
    as_said += [not np.shares_memory(a, result) for result in copies.values()]
    check("views", "the first four share the array's memory, the other four do not", all(as_said))

    every_other_column = a[:, ::2]
    every_other_column[1, 1] = 100
    check("write-through", "100 written into a[:, ::2] arrives in a[1, 2]", a[1, 2] == 100)

    # The mask makes a copy; the 0 goes into it, and it is thrown away.
    a[a > 50][0] = 0
    check("lost-write", "a[a > 50][0] = 0 changes nothing: a[1, 2] stays 100", a[1, 2] == 100)


def show_dtypes(cfg: Config) -> None:
    print("\n[3] A dtype has limits, and an array of whole numbers passes them without a word")
    pixel = np.array([200], dtype=np.uint8)
    brighter = pixel + np.uint8(100)
    check("wraps", f"in uint8, 200 + 100 is {brighter[0]}: 300 minus 256", brighter[0] == 300 - 256)

    tenths = np.full(10_000, 0.1, dtype=np.float32)
    in_a_row = tenths.cumsum()[-1]  # adds one after the other, always in float32
    in_pairs = tenths.sum()  # adds up halves of the array, and halves of these
    print(f"  0.1 added 10,000 times: {in_a_row:.4f} in a row, {in_pairs:.4f} in pairs")
    row_error = abs(float(in_a_row) - 1000)
    check(
        "precision",
        f"off by {row_error:.3f} in a row, by {{}} in pairs, which is a tenth of it or less",
        abs(float(in_pairs) - 1000),
        at_most=row_error / 10,
    )


def loop_sum(numbers: list[float]) -> float:
    """Sum of squares, one Python step after the other."""
    total = 0.0
    for x in numbers:
        total += x * x
    return total


def sum_by_one_call(array: np.ndarray) -> float:
    return array @ array


def show_speed(cfg: Config) -> float:
    print("\n[4] One call into compiled code, on numbers that lie side by side")
    array = cfg.rng().random(cfg.numbers)
    numbers = array.tolist()

    def loop() -> float:
        return loop_sum(numbers)

    def one_call() -> float:
        return sum_by_one_call(array)

    check_close("same-sum", "loop and call give the same sum of squares", loop(), one_call())
    speedup = timed("speed", "the array call is {} times faster", loop, one_call, at_least=20)

    # Every call has a fixed price, whatever it adds up.
    tens = array.reshape(-1, 10)

    def calls_on_tens() -> float:
        return sum(sum_by_one_call(ten) for ten in tens)

    text = "one call on all is {} times faster than a call on every ten"
    timed("small", text, calls_on_tens, one_call, at_least=20)

    # 4 bytes a number: a column's neighbours lie 16,000 bytes apart, each in another cache line.
    table = np.ones((cfg.side, cfg.side), dtype=np.float32)

    def by_columns() -> list[float]:
        return [column.sum() for column in table.T]

    def by_rows() -> list[float]:
        return [row.sum() for row in table]

    text = "adding up a table row by row is {} times faster than column by column"
    timed("layout", text, by_columns, by_rows, at_least=2)
    return speedup


def show_seeds(cfg: Config) -> None:
    print("\n[5] The same seed gives the same numbers; a stream of its own keeps them apart")
    first = np.random.default_rng(seed=7).random(1000)
    again = np.random.default_rng(seed=7).random(1000)
    check(
        "same-seed", "two generators with seed 7 agree in all 1,000", np.array_equal(first, again)
    )

    # Months later somebody adds a plot that draws noise before the data is shuffled.
    rng = np.random.default_rng(seed=7)
    order = rng.permutation(100)
    rng = np.random.default_rng(seed=7)
    rng.random(12_345)
    order_later = rng.permutation(100)
    check(
        "one-stream",
        "with one generator for both, the extra noise changes the shuffle",
        not np.array_equal(order, order_later),
    )

    shuffle_rng, noise_rng = np.random.default_rng(seed=7).spawn(2)
    order = shuffle_rng.permutation(100)
    shuffle_rng, noise_rng = np.random.default_rng(seed=7).spawn(2)
    noise_rng.random(12_345)
    order_later = shuffle_rng.permutation(100)
    check(
        "own-stream",
        "with a stream for each purpose, the shuffle stays as it was",
        np.array_equal(order, order_later),
    )


# Pictures and helpers: skip on a first reading


def draw_views(cfg: Config) -> None:
    """The memory stays 0 … 11 in every row; beside it stands the table that the view shows."""
    from matplotlib.patches import Rectangle

    memory = np.arange(12, dtype=np.int32)
    a = memory.reshape(3, 4)
    views = {"a": a, "a[1]": a[1], "a[:, ::2]": a[:, ::2], "a.T": a.T, "a[::-1]": a[::-1]}
    figure, axis = new_figure(size=(10.4, 6.2))
    top = 0.0
    for name, view in views.items():
        table = np.atleast_2d(view)
        for cell in memory:
            colour, ink = (BLUE, "white") if cell in view else ("#E4E4E4", GREY)
            axis.add_patch(Rectangle((cell * 0.8, top), 0.74, 0.74, color=colour))
            axis.text(cell * 0.8 + 0.37, top + 0.37, cell, ha="center", va="center", color=ink)
        axis.text(-0.3, top + 0.37, name, ha="right", va="center", family="monospace")
        axis.text(0, top - 0.4, f"strides {view.strides}", color=GREY, va="center", fontsize=11)
        for (row, column), number in np.ndenumerate(table):
            place = (11 + column * 0.7, top + 0.37 - row * 0.5)
            axis.text(*place, number, ha="center", va="center", family="monospace")
        top -= max(1.7, 0.5 * len(table) + 0.5)
    axis.text(0, 1.15, "memory: never rewritten, blue where the view reads", color=GREY)
    axis.text(10.8, 1.15, "what the view shows", color=GREY)
    axis.set(xlim=(-2.6, 14), ylim=(top + 0.9, 1.6), title="One block of memory, five rules")
    axis.axis("off")
    save_figure(figure, cfg.out / "views")


def draw_speed(cfg: Config) -> dict[str, float]:
    """What one number costs, by length. Returns the nanoseconds at the shortest length."""
    sizes = [int(size) for size in np.geomspace(10, cfg.numbers, 7)]
    loop_ns = []
    call_ns = []
    for size in sizes:
        array = cfg.rng().random(size)
        loop_ns.append(nanoseconds(loop_sum, array.tolist()) / size)
        call_ns.append(nanoseconds(sum_by_one_call, array) / size)

    figure, axis = new_figure()
    axis.loglog(sizes, loop_ns, "o-", color=ORANGE)
    axis.loglog(sizes, call_ns, "o-", color=BLUE)
    axis.text(sizes[3], loop_ns[3] * 1.4, "list, loop", color=ORANGE, fontweight="bold")
    axis.text(sizes[3], call_ns[3] * 1.4, "array, one call", color=BLUE, fontweight="bold")
    axis.set(xlabel="how many numbers", ylabel="nanoseconds a number")
    axis.set_title("Sum of squares: what one number costs")
    save_figure(figure, cfg.out / "speed")
    return {"loop_ns_of_ten": loop_ns[0], "call_ns_of_ten": call_ns[0]}


def nanoseconds(function: Callable, numbers: list[float] | np.ndarray) -> float:
    """For one call: the median of nine rounds of many calls."""
    calls = max(1, 20_000 // len(numbers))
    rounds = []
    for _ in range(9):
        start = time.perf_counter()
        for _ in range(calls):
            function(numbers)
        rounds.append((time.perf_counter() - start) / calls)
    return float(np.median(rounds)) * 1e9


def run(cfg: Config) -> dict[str, float]:
    show_memory(cfg)
    show_views(cfg)
    show_dtypes(cfg)
    speedup = show_speed(cfg)
    show_seeds(cfg)
    draw_views(cfg)
    cost = draw_speed(cfg)
    return {"speedup": speedup, **cost}


if __name__ == "__main__":
    main(run, Config, __doc__)
