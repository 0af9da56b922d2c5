"""3.1 Tensor basics: an array with a device, and types that mix by a rule
张量基础：带设备的数组，以及混合类型的规则

You will be able to answer
    1. How is a tensor made, and which dtype does it get?           show_creation     defaults
    2. When do a tensor and an array share memory?                  show_sharing      shared, write-through, speed
    3. What is a contiguous tensor, and what makes one?             show_contiguous   strides, rule, only-contiguous
    4. Which dtype comes out when two of them meet?                 show_promotion    table, against-numpy
    5. Why does + 1000 not widen an int8 tensor, and + 2.5 does?    show_ranks        ranks, wraps
    6. Where does a tensor live, and what may meet?                 show_devices      same-place, moved, mixed
Run       python phase03_pytorch/01-tensor-basics.py                about 3 s
Needs     phase01_data_science/01-numpy-basics
Reference torch.promote_types, torch.result_type
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from common.checks import check, check_close, timed
from common.config import LessonConfig, main, param
from common.figures import BLUE, GREEN, GREY, ORANGE, new_figure, save_figure
from common.lessons import load_lesson

strides_of = load_lesson("phase01_data_science/01-numpy-basics").strides_of

WIDENS_TO = {  # an arrow leads to the next dtype that can take its place
    torch.bool: (torch.uint8, torch.int8),
    torch.uint8: (torch.int16,),
    torch.int8: (torch.int16,),
    torch.int16: (torch.int32,),
    torch.int32: (torch.int64,),
    torch.int64: (torch.float16, torch.bfloat16),
    torch.float16: (torch.float32,),
    torch.bfloat16: (torch.float32,),
    torch.float32: (torch.float64, torch.complex64),
    torch.float64: (torch.complex128,),
    torch.complex64: (torch.complex128,),
    torch.complex128: (),
}
KIND_COLOURS = (
    GREY,
    BLUE,
    ORANGE,
    GREEN,
)  # truth values, whole numbers, fractions, complex numbers


@dataclass
class Config(LessonConfig):
    numbers: int = param(
        1_000_000, "how many numbers are copied or shared in the speed test", tiny=2_000, low=10
    )


def is_contiguous(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Do the elements, read in order, lie one behind the other? Strides count elements, as torch's do."""
    # practice: what a freshly made tensor would say
    # hint: one step along an axis jumps over all that the axes to its right hold; the last one steps by 1
    # hint: nobody ever steps along an axis of length 1, so its stride may be anything
    # hint: step, agree = 1, True, then walk over zip(reversed(shape), reversed(strides))
    step, agree = 1, True
    for length, stride in zip(reversed(shape), reversed(strides)):
        if length != 1 and stride != step:
            agree = False
        step *= length
    # end practice
    return agree


def name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def reachable(dtype: torch.dtype) -> set[torch.dtype]:
    """The dtype itself and all that the arrows of WIDENS_TO lead to from it."""
    return {dtype}.union(*map(reachable, WIDENS_TO[dtype]))


def promote(a: torch.dtype, b: torch.dtype) -> torch.dtype:
    """The dtype of a mixture: the first one that the arrows lead to from both."""
    # practice: where do two paths through the arrows meet first?
    # hint: of all that both can reach, the first is the one that can itself reach the most others
    # hint: from_a, from_b = a set for each; then max(…, key=…) over what they share
    from_a = reachable(a)
    from_b = reachable(b)
    first = max(from_a & from_b, key=lambda dtype: len(reachable(dtype)))
    # end practice
    return first


def kind(dtype: torch.dtype) -> int:
    """0 truth values, 1 whole numbers, 2 fractions, 3 complex numbers."""
    return (
        3 if dtype.is_complex else 2 if dtype.is_floating_point else 0 if dtype == torch.bool else 1
    )


def mixed_dtype(*operands: Tensor | bool | int | float) -> torch.dtype:
    """The dtype of operands combined (complex numbers aside): tensors with axes first, then tensors without, then
    Python numbers; a later rank has a say only when its kind is higher."""
    ranks: list[list[torch.dtype]] = [[], [], []]
    for x in operands:
        rank = 2 if not isinstance(x, Tensor) else 0 if x.ndim else 1
        ranks[rank].append(torch.as_tensor(x).dtype)
    result = None
    # practice: three ranks, and a later one must have a reason to be heard
    # hint: within a rank, promote() one after the other; a later rank counts only if its kind() is higher
    # hint: for dtypes in ranks: for dtype in dtypes: …, but compare with the result of the ranks before
    for dtypes in ranks:
        before = result
        for dtype in dtypes:
            if before is None or kind(dtype) > kind(before):
                result = dtype if result is None else promote(result, dtype)
    # end practice
    return result


def show_creation(cfg: Config) -> None:
    print("\n[1] A tensor is made from data, from a shape, or like another tensor")
    like = torch.tensor(np.zeros((2, 2)))
    made = {
        "torch.tensor([1, 2])": torch.tensor([1, 2]),
        "torch.tensor([1, 2.0])": torch.tensor([1, 2.0]),
        "torch.tensor([True])": torch.tensor([True]),
        "torch.zeros(3)": torch.zeros(3),
        "torch.arange(3)": torch.arange(3),
        "torch.tensor(array)": like,
        "torch.zeros_like(like)": torch.zeros_like(like),
    }
    for code, t in made.items():
        print(f"  {code:<28}shape {tuple(t.shape)!s:<8}{name(t.dtype)}")
    check(
        "defaults",
        "fractions become float32, not NumPy's float64, unless the data comes from NumPy",
        [name(t.dtype) for t in made.values()]
        == "int64 float32 bool float32 int64 float64 float64".split(),
    )


def show_sharing(cfg: Config) -> float:
    print("\n[2] On the CPU a tensor can be a second name for an array's memory")
    a = np.arange(12.0).reshape(3, 4)
    table = [  # what is written, how it is made, does it share?
        ("torch.from_numpy(a)", lambda: torch.from_numpy(a), True),
        (
            "torch.as_tensor(a, dtype=torch.float32)",
            lambda: torch.as_tensor(a, dtype=torch.float32),
            False,
        ),
        ("torch.tensor(a)", lambda: torch.tensor(a), False),
        ("torch.from_numpy(a[:, ::2])", lambda: torch.from_numpy(a[:, ::2]), True),
        ("torch.from_numpy(a).clone()", lambda: torch.from_numpy(a).clone(), False),
    ]
    for code, make, shares in table:
        print(f"  {code:<42}{'shares' if shares else 'copies'}   strides {make().stride()}")
    check(
        "shared",
        f"all {len(table)} share the array's memory, or do not, as said above",
        all(np.shares_memory(a, make().numpy()) == shares for _, make, shares in table),
    )
    torch.from_numpy(a)[1, 2] = 100
    torch.as_tensor(a).numpy()[2, 3] = 200  # there and back is still the same memory
    check_close(
        "write-through",
        "what is written into the tensor stands in the array",
        a[[1, 2], [2, 3]],
        [100, 200],
    )
    big = cfg.rng().random(cfg.numbers)
    return timed(
        "speed",
        f"{cfg.numbers:,} numbers: sharing is faster than copying",
        lambda: torch.tensor(big),
        lambda: torch.from_numpy(big),
        at_least=20,
    )


def show_contiguous(cfg: Config) -> None:
    print("\n[3] Contiguous: read in order, the elements lie one behind the other")
    x = torch.arange(12.0).reshape(3, 4)
    check(
        "strides",
        f"torch counts strides in elements {x.stride()}, NumPy in bytes {x.numpy().strides}",
        x.stride() == strides_of((3, 4), 1)
        and x.numpy().strides == strides_of((3, 4), x.element_size()),
    )
    rng, said = cfg.rng(), []
    for _ in range(200):  # views of all sorts: stepped, cut, turned
        sizes, (step, start) = (
            rng.integers(1, 5, size=3).tolist(),
            rng.integers(0, 2, size=2).tolist(),
        )
        t = torch.empty(sizes)[:, :: step + 1, : sizes[2] - start or 1].permute(
            rng.permutation(3).tolist()
        )
        said.append((is_contiguous(t.shape, t.stride()), t.is_contiguous()))
    check(
        "rule",
        f"our rule agrees with torch on {len(said)} random views, contiguous or not",
        all(ours == theirs for ours, theirs in said) and 20 < said.count((True, True)) < 180,
    )
    after = {
        "x.T": x.T,
        "x.T.clone()": x.T.clone(),
        "x.T + 0": x.T + 0,
        "x.T.contiguous()": x.T.contiguous(),
    }
    for code, t in after.items():
        print(
            f"  {code:<20}strides {t.stride()}   {'' if is_contiguous(t.shape, t.stride()) else 'not '}contiguous"
        )
    check(
        "only-contiguous",
        "of these only .contiguous() makes it so: the others keep the order they were given",
        [code for code, t in after.items() if t.is_contiguous()] == ["x.T.contiguous()"]
        and x.contiguous().data_ptr() == x.data_ptr(),
    )


def show_promotion(cfg: Config) -> int:
    print("\n[4] Two dtypes meet: follow the arrows to the first that both can reach")
    pairs = list(itertools.product(WIDENS_TO, WIDENS_TO))
    check(
        "table",
        f"our rule gives torch's answer for all {len(pairs)} pairs",
        all(promote(a, b) == torch.promote_types(a, b) for a, b in pairs),
    )
    numpys = {
        (a, b): getattr(torch, np.result_type(name(a), name(b)).name)
        for a, b in pairs
        if torch.bfloat16 not in (a, b)
    }  # NumPy has no bfloat16
    other = [pair for pair, theirs in numpys.items() if theirs != promote(*pair)]
    print("  NumPy disagrees:", ", ".join(f"{name(a)}+{name(b)}" for a, b in other if kind(a) == 1))
    check(
        "against-numpy",
        f"in {len(other)} pairs, always whole numbers with others; torch's answer is the smaller",
        len(other) > 0
        and all(
            1 in (kind(a), kind(b))
            and kind(a) != kind(b)
            and promote(a, b).itemsize < numpys[a, b].itemsize
            for a, b in other
        ),
    )
    draw_promotion(cfg, list(WIDENS_TO), other)
    return len(other)


def show_ranks(cfg: Config) -> None:
    print("\n[5] Who has a say: first tensors with axes, then single numbers, then Python's own")
    real = [dtype for dtype in WIDENS_TO if not dtype.is_complex]
    values = [torch.ones(shape, dtype=dtype) for shape in ((2,), ()) for dtype in real] + [
        True,
        2,
        2.5,
    ]
    mixtures = [
        pair
        for pair in itertools.product(values, values)
        if any(isinstance(x, Tensor) for x in pair)
    ]
    int8 = torch.tensor([100], dtype=torch.int8)
    print(
        f"  int8 tensor + 1000: {name(mixed_dtype(int8, 1000))};  int8 tensor + 2.5: {name(mixed_dtype(int8, 2.5))}"
    )
    check(
        "ranks",
        f"our rule gives torch's dtype for {len(mixtures)} mixtures of two",
        all(mixed_dtype(a, b) == torch.result_type(a, b) for a, b in mixtures),
    )
    check(
        "wraps",
        f"so int8 100 + 1000 is {(int8 + 1000).item()}, the rest of 1100 divided by 256, without a warning",
        (int8 + 1000).item() == 1100 % 256,
    )


def show_devices(cfg: Config) -> None:
    print("\n[6] .to(device) moves; what meets must be in one place")
    x, ghost = (
        torch.randn(1000),
        torch.empty(1000, device="meta"),
    )  # "meta" has shapes and dtypes, but no memory
    check(
        "same-place",
        "moved to where it already is, a tensor is returned as it is, without a copy",
        x.to("cpu") is x,
    )
    there = x.to(cfg.torch_device())
    check(
        "moved",
        f"to {there.device} and back: the same numbers, bit for bit",
        torch.equal(there.cpu(), x),
    )
    errors = [message(mix) for mix in (lambda: x @ ghost, ghost.numpy, ghost.cpu)]
    print(" ", "\n  ".join(errors))
    check(
        "mixed",
        "cpu @ meta, meta to NumPy, meta to cpu: torch never moves data behind your back",
        not any(error.startswith("no error") for error in errors),
    )


def message(function: Callable[[], object]) -> str:
    try:
        return f"no error: {function()}"
    except (RuntimeError, TypeError) as error:  # NotImplementedError is a RuntimeError
        return f"{type(error).__name__}: {str(error).splitlines()[0].split('. ')[0]}"


def draw_promotion(cfg: Config, dtypes: list[torch.dtype], framed: list[tuple]) -> None:
    """Left the arrows, right the table they produce, framed where NumPy would answer otherwise."""
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Rectangle

    figure, (left, right) = new_figure(1, 2, size=(13.5, 7.2), width_ratios=(1, 2.1))
    short = dict(zip(dtypes, "bool u8 i8 i16 i32 i64 f16 bf16 f32 f64 c64 c128".split()))
    places = dict(
        zip(
            dtypes,
            zip((0, -1, 1, 0, 0, 0, -1, 1, 0, -1, 1, 0), (0, 1, 1, 2, 3, 4, 5, 5, 6, 7, 7, 8)),
        )
    )
    for dtype, (x, y) in places.items():
        left.text(
            x,
            y,
            name(dtype),
            ha="center",
            va="center",
            color="white",
            fontweight="bold",
            bbox={
                "boxstyle": "round,pad=0.35",
                "facecolor": KIND_COLOURS[kind(dtype)],
                "edgecolor": "none",
            },
        )
        for wider in WIDENS_TO[dtype]:
            left.annotate(
                "",
                (places[wider][0], places[wider][1] - 0.3),
                (x, y + 0.3),
                arrowprops={"arrowstyle": "->", "color": GREY, "linewidth": 1.8},
            )
    left.set(xlim=(-2, 2), ylim=(-0.5, 8.5), title="Where each dtype may go")
    left.axis("off")
    right.pcolormesh(
        [[kind(promote(a, b)) for b in dtypes] for a in dtypes],
        cmap=ListedColormap(KIND_COLOURS),
        edgecolors="white",
        linewidth=5,
    )
    for (row, a), (column, b) in itertools.product(enumerate(dtypes), enumerate(dtypes)):
        right.text(
            column + 0.5,
            row + 0.52,
            short[promote(a, b)],
            ha="center",
            va="center",
            color="w",
            weight="bold",
        )
        if (a, b) in framed:
            right.add_patch(
                Rectangle((column + 0.05, row + 0.06), 0.9, 0.88, fill=False, linewidth=2.5)
            )
    right.set_title("What comes out; framed: NumPy would choose a larger type")
    right.set_xticks(np.arange(12) + 0.5, short.values())
    right.set_yticks(np.arange(12) + 0.5, map(name, dtypes))
    right.tick_params(length=0)
    right.spines[:].set_visible(False)
    right.invert_yaxis()
    right.grid(False)
    save_figure(figure, cfg.out / "promotion")


def run(cfg: Config) -> dict:
    show_creation(cfg)
    results = {"sharing_speedup": show_sharing(cfg)}
    show_contiguous(cfg)
    results["numpy_disagrees"] = show_promotion(cfg)
    show_ranks(cfg)
    show_devices(cfg)
    return results


if __name__ == "__main__":
    main(run, Config, __doc__)
