"""3.1 Tensor basics: an array with a device, and types that mix by a rule
张量基础：带设备的数组，以及混合类型的规则

You will be able to answer
    1. Which dtype does a tensor get, whose memory?   show_making      defaults, shared, written
    2. What is contiguous, and what makes it so?      show_contiguous  rule, only-contiguous
    3. Which dtype results when two of them meet?     show_promotion   table, against-numpy, matmul
    4. Why does + 2.5 widen int8, and + 1000 not?     show_priority    priority, wraps
    5. Where does a tensor live, and what may meet?   show_devices     mixed, single
Predict   wrapped: which number is torch.tensor([100], dtype=torch.int8) + 1000?
Run       python phase03_pytorch/01-tensor-basics.py                       about 3 s
Needs     phase01_data_science/01-numpy-basics
Reference torch.promote_types, torch.result_type
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from common.checks import check
from common.config import LessonConfig, main
from common.figures import BLUE, GREY, ORANGE, new_figure, save_figure
from common.lessons import load_lesson

strides_of = load_lesson("phase01_data_science/01-numpy-basics").strides_of

Operand = Tensor | bool | int | float

# An arrow leads to the next dtype that can take its place. Narrow dtypes stand first.
# Complex numbers are left out.
WIDENS_TO = {
    torch.bool: (torch.uint8, torch.int8),
    torch.uint8: (torch.int16,),
    torch.int8: (torch.int16,),
    torch.int16: (torch.int32,),
    torch.int32: (torch.int64,),
    torch.int64: (torch.float16, torch.bfloat16),
    torch.float16: (torch.float32,),
    torch.bfloat16: (torch.float32,),
    torch.float32: (torch.float64,),
    torch.float64: (),
}


@dataclass
class Config(LessonConfig):
    """The settings that all lessons share: nothing here is trained or drawn at random."""


def show_making(cfg: Config) -> None:
    print("\n[1] A tensor made from Python numbers or an array: its dtype, its memory")
    made = {
        "torch.tensor([1, 2])": torch.tensor([1, 2]),
        "torch.tensor([1, 2.5])": torch.tensor([1, 2.5]),
        "torch.tensor(np.zeros(3))": torch.tensor(np.zeros(3)),
    }
    for code, tensor in made.items():
        print(f"  {code:<40}{short(tensor.dtype)}")
    dtypes = [short(tensor.dtype) for tensor in made.values()]
    text = "Python's fractions become float32; a NumPy array keeps its float64"
    check("defaults", text, dtypes == ["int64", "float32", "float64"])

    a = np.arange(12.0).reshape(3, 4)
    tensors = {
        "torch.from_numpy(a)": torch.from_numpy(a),
        "torch.as_tensor(a)": torch.as_tensor(a),
        "torch.from_numpy(a[:, ::2])": torch.from_numpy(a[:, ::2]),
        "torch.tensor(a)": torch.tensor(a),
        "torch.as_tensor(a, dtype=torch.float32)": torch.as_tensor(a, dtype=torch.float32),
        "torch.from_numpy(a).clone()": torch.from_numpy(a).clone(),
    }
    shares = [np.shares_memory(a, tensor.numpy()) for tensor in tensors.values()]
    for (code, tensor), shared in zip(tensors.items(), shares):
        print(f"  {code:<40}strides {tensor.stride()}   shares a's memory: {shared}")
    text = "the first three share the array's memory, the others have their own"
    check("shared", text, shares == [True] * 3 + [False] * 3)

    torch.from_numpy(a)[1, 2] = 100
    check(
        "written",
        "100 written into the tensor stands in the array: {}",
        a[1, 2],
        at_least=100,
        at_most=100,
    )


def is_contiguous(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether the elements, read in order, lie side by side. One element or more.

    strides: counted in elements, as torch counts them; NumPy counts bytes.
    """
    # practice: Where would a new tensor have them?
    wanted = strides_of(shape, itemsize=1)
    for length, stride, wanted_stride in zip(shape, strides, wanted):
        # Along an axis of length 1 there is no step, so its stride may be anything.
        if length != 1 and stride != wanted_stride:
            return False
    return True
    # end practice


def show_contiguous(cfg: Config) -> None:
    print("\n[2] Contiguous: read in order, the elements lie side by side")
    x = torch.arange(12.0).reshape(3, 4)
    results = {
        "x": x,
        "x.T": x.T,
        "x.T.clone()": x.T.clone(),
        "x.T + 0": x.T + 0,
        "x.T.contiguous()": x.T.contiguous(),
    }
    for code, tensor in results.items():
        verdict = "contiguous" if tensor.is_contiguous() else "not contiguous"
        print(f"  {code:<20}shape {tuple(tensor.shape)}   strides {tensor.stride()}   {verdict}")

    # Axes exchanged, cut short and stepped through; some have length 1.
    views = []
    for shape in [(6,), (2, 3, 4), (1, 3, 4), (3, 1, 4), (3, 4, 1)]:
        for order in itertools.permutations(range(len(shape))):
            turned = torch.empty(shape).permute(order)
            views += [turned, turned[:1], turned[..., ::2]]
    wrong = [v for v in views if is_contiguous(v.shape, v.stride()) != v.is_contiguous()]
    for view in wrong[:1]:
        print(f"  wrong for shape {tuple(view.shape)} with strides {view.stride()}")
    count = sum(view.is_contiguous() for view in views)
    text = f"of {len(views)} views {count} are contiguous, and our rule finds which"
    check("rule", text, not wrong)

    contiguous = [code for code, tensor in results.items() if tensor.is_contiguous()]
    text = "only x and x.T.contiguous() are contiguous here: .clone() and + 0 keep the order of x.T"
    check("only-contiguous", text, contiguous == ["x", "x.T.contiguous()"])


def reachable(dtype: torch.dtype) -> set[torch.dtype]:
    """The dtype itself and all that the arrows of WIDENS_TO lead to from it."""
    found = {dtype}
    for wider in WIDENS_TO[dtype]:
        found |= reachable(wider)
    return found


def promote(a: torch.dtype, b: torch.dtype) -> torch.dtype:
    """The dtype of a mixture: the narrowest one that the arrows lead to from both."""
    # practice: Where do two paths meet first?
    common = reachable(a) & reachable(b)

    # WIDENS_TO names narrow dtypes first, so the first common one is the narrowest.
    return next(dtype for dtype in WIDENS_TO if dtype in common)
    # end practice


def show_promotion(cfg: Config) -> list[tuple[torch.dtype, torch.dtype]]:
    print("\n[3] Two dtypes meet: follow the arrows to the first that both can reach")
    pairs = list(itertools.product(WIDENS_TO, WIDENS_TO))
    wrong = [(a, b) for a, b in pairs if promote(a, b) != torch.promote_types(a, b)]
    for a, b in wrong[:1]:
        print(f"  {a} + {b}: got {promote(a, b)}, wanted {torch.promote_types(a, b)}")
    check("table", f"our rule gives torch's answer for all {len(pairs)} pairs", not wrong)

    # NumPy has no bfloat16.
    known = [pair for pair in pairs if torch.bfloat16 not in pair]
    differing = []
    wider = 0
    for a, b in known:
        numpys = np.result_type(short(a), short(b))
        if numpys.name != short(promote(a, b)):
            differing.append((a, b))
            wider += numpys.itemsize > promote(a, b).itemsize
    ours = short(promote(torch.int64, torch.float32))
    print(f"  int64 + float32: torch {ours}, NumPy {np.result_type('int64', 'float32')}")
    text = f"in {{}} of {len(known)} pairs NumPy chooses another dtype, always a wider one"
    check("against-numpy", text, wider, at_least=len(differing))

    features = torch.zeros(2, 3, dtype=torch.float64)  # as they come from NumPy
    weights = torch.zeros(3, 1)
    error = error_of(lambda: features @ weights)
    print(f"  {error}")
    text = "float64 + float32 is promoted, float64 @ float32 is refused"
    promoted = (features[0] + weights[0]).dtype == torch.float64
    check("matmul", text, promoted and "same dtype" in error)
    return differing


def category(dtype: torch.dtype) -> int:
    """0 truth values, 1 whole numbers, 2 fractions."""
    if dtype == torch.bool:
        return 0
    return 2 if dtype.is_floating_point else 1


def priority(x: Operand) -> int:
    """2 for a tensor with axes, 1 for a tensor of a single number without axes, 0 for Python's."""
    if not isinstance(x, Tensor):
        return 0
    return 2 if x.ndim > 0 else 1


def mixed_dtype(a: Operand, b: Operand) -> torch.dtype:
    """The dtype of a + b: that of the higher priority, unless the other's category is higher."""
    # practice: Which of the two decides?
    if priority(a) < priority(b):
        a, b = b, a
    dtype_a = torch.as_tensor(a).dtype
    dtype_b = torch.as_tensor(b).dtype

    # A single number may raise the category; within a category it may not widen anything.
    if priority(a) > priority(b) and category(dtype_b) <= category(dtype_a):
        return dtype_a
    return promote(dtype_a, dtype_b)
    # end practice


def show_priority(cfg: Config) -> int:
    print("\n[4] A tensor outweighs a single number, unless that is of a higher category")
    int8 = torch.tensor([100], dtype=torch.int8)
    for number in [1000, 2.5]:
        print(f"  int8 tensor + {number}: {short(mixed_dtype(int8, number))}")

    values = [True, 2, 2.5]
    for dtype in WIDENS_TO:
        values += [torch.ones(2, dtype=dtype), torch.ones((), dtype=dtype)]
    pairs = itertools.product(values, values)
    mixtures = [(a, b) for a, b in pairs if isinstance(a, Tensor) or isinstance(b, Tensor)]
    wrong = [(a, b) for a, b in mixtures if mixed_dtype(a, b) != torch.result_type(a, b)]
    for a, b in wrong[:1]:
        print(f"  {a} + {b}: got {mixed_dtype(a, b)}, wanted {torch.result_type(a, b)}")
    check("priority", f"our rule gives torch's dtype for {len(mixtures)} mixtures", not wrong)

    wrapped = (int8 + 1000).item()
    text = "so int8 100 + 1000 is {}, and no warning says that 1100 did not fit"
    check("wraps", text, wrapped, at_least=1100 - 4 * 256, at_most=1100 - 4 * 256)
    return wrapped


def show_devices(cfg: Config) -> None:
    print("\n[5] .to(device) moves a tensor; operands with axes must be on one device")
    x = torch.randn(1000)
    there = x.to(cfg.torch_device())
    print(f"  to {there.device} and back, all numbers the same: {torch.equal(there.cpu(), x)}")

    # The device "meta" has shapes and dtypes but no memory, so it exists on every machine.
    elsewhere = torch.empty(1000, device="meta")
    product = error_of(lambda: x @ elsewhere)
    conversion = error_of(elsewhere.numpy)
    print(f"  {product}\n  {conversion}")
    text = "torch refuses a product across devices, and an array of a tensor elsewhere"
    check("mixed", text, product != "" and conversion != "")

    scaled = elsewhere * torch.tensor(2.0)
    text = "a number without axes may come from the CPU: the result is where the other was"
    check("single", text, scaled.device == elsewhere.device)


def error_of(function: Callable[[], object]) -> str:
    """The first sentence of the error that the call ends in, or nothing."""
    try:
        function()
    except (RuntimeError, TypeError) as error:
        return f"{type(error).__name__}: {str(error).split('. ')[0]}"
    return ""


def short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


# Pictures: skip on a first reading

LABEL = {"ha": "center", "va": "center", "color": "white", "fontweight": "bold"}


def draw_promotion(cfg: Config, framed: list[tuple[torch.dtype, torch.dtype]]) -> None:
    figure, (left, right) = new_figure(1, 2, size=(12, 6.2), width_ratios=(1, 2))
    draw_arrows(left)
    draw_table(right, framed)
    save_figure(figure, cfg.out / "promotion")


def draw_arrows(axis) -> None:
    across = [0, -1, 1, 0, 0, 0, -1, 1, 0, 0]
    up = [0, 1, 1, 2, 3, 4, 5, 5, 6, 7]
    places = dict(zip(WIDENS_TO, zip(across, up)))
    for dtype, (x, y) in places.items():
        box = {"boxstyle": "round,pad=0.35", "facecolor": colour_of(dtype), "edgecolor": "none"}
        axis.text(x, y, short(dtype), bbox=box, **LABEL)
        for wider in WIDENS_TO[dtype]:
            x_to, y_to = places[wider]
            arrow = {"arrowstyle": "->", "color": GREY, "linewidth": 1.8}
            axis.annotate("", (x_to, y_to - 0.3), (x, y + 0.3), arrowprops=arrow)
    axis.set(xlim=(-2, 2), ylim=(-0.5, 7.5), title="Where each dtype may go")
    axis.axis("off")


def draw_table(axis, framed: list[tuple[torch.dtype, torch.dtype]]) -> None:
    from matplotlib.patches import Rectangle

    for row, a in enumerate(WIDENS_TO):
        for column, b in enumerate(WIDENS_TO):
            result = promote(a, b)
            edge = "black" if (a, b) in framed else "none"
            cell = Rectangle((column + 0.06, row + 0.06), 0.88, 0.88, linewidth=2.5)
            cell.set(facecolor=colour_of(result), edgecolor=edge)
            axis.add_patch(cell)
            axis.text(column + 0.5, row + 0.52, letter_and_bits(result), **LABEL)

    ticks = np.arange(len(WIDENS_TO)) + 0.5
    axis.set_xticks(ticks, [letter_and_bits(dtype) for dtype in WIDENS_TO])
    axis.set_yticks(ticks, [short(dtype) for dtype in WIDENS_TO])
    axis.set(xlim=(0, len(ticks)), ylim=(len(ticks), 0))
    axis.set_title("What comes out; framed: NumPy would choose a wider dtype")
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.grid(False)


def colour_of(dtype: torch.dtype) -> str:
    return [GREY, BLUE, ORANGE][category(dtype)]


def letter_and_bits(dtype: torch.dtype) -> str:
    """float32 -> f32, to fit into a cell."""
    if dtype == torch.bool:
        return "bool"
    name = short(dtype).replace("bfloat", "bf").replace("float", "f")
    return name.replace("uint", "u").replace("int", "i")


def run(cfg: Config) -> dict[str, float]:
    show_making(cfg)
    show_contiguous(cfg)
    framed = show_promotion(cfg)
    wrapped = show_priority(cfg)
    show_devices(cfg)
    draw_promotion(cfg, framed)
    return {"numpy_differs": len(framed), "wrapped": wrapped}


if __name__ == "__main__":
    main(run, Config, __doc__)
