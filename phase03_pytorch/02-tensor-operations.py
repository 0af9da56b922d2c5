"""3.2 Tensor operations: view, gather, einsum, and three ways to write into the wrong place
张量运算：view、gather、einsum，以及写错位置的三种方式

You will be able to answer
    1. When can .view work; what does permute do?  show_view      by-hand, rule, permute, reshape
    2. How do you read or write one number a row?  show_gather    gather, scatter, one-hot, pick
    3. What does an einsum equation say?           show_einsum    einsum, matmul
    4. How do you average without the padding?     show_masks     masked-mean, nan
    5. What goes wrong when you write in place?    show_in_place  shared-write, lost-counts, refused
Predict   counted: words is [0, 0, 2, 0]; after counts[words] += 1 on zeros, what is counts[0]?
Run       python phase03_pytorch/02-tensor-operations.py                   about 4 s
Needs     -
Reference torch.gather, torch.scatter, torch.einsum, torch.bmm, F.one_hot
Notation  B batch  T time steps  D feature width  C classes
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from common.checks import check, check_close
from common.config import LessonConfig, main
from common.figures import new_figure, plot_images, pyplot, save_figure


@dataclass
class Config(LessonConfig):
    """The settings that all lessons share: nothing here is trained or timed."""


def merge_axes(shape: tuple, strides: tuple) -> list[tuple[int, int]]:
    """(length, stride) of each run: neighbouring axes that are one long axis in memory.

    In the order of the axes. Those of length 1 are left out, because nobody steps along them.
    """
    # practice: Which axes are one long axis in memory?
    runs = []
    for length, stride in zip(shape, strides):
        if length == 1:
            continue

        # Behind the end of this axis, does the axis to its left go on?
        if runs and runs[-1][1] == length * stride:
            left_length, _ = runs.pop()
            length = left_length * length
        runs.append((length, stride))
    return runs
    # end practice


def view_strides(shape: tuple, strides: tuple, new_shape: tuple) -> tuple[int, ...] | None:
    """Strides that read the same memory in a new shape of the same size; None if there are none."""
    runs = merge_axes(shape, strides)
    room = 1  # what the current run has left
    step = 1
    new_strides = []
    for length in reversed(new_shape):
        if room == 1 and length > 1:
            room, step = runs.pop()

        # An axis must lie within one run: from one run to the next the step changes.
        if room % length != 0:
            return None
        new_strides.append(step)
        step = step * length
        room = room // length

    new_strides.reverse()
    return tuple(new_strides)


def show_view(cfg: Config) -> float:
    print("\n[1] .view finds new strides for the same memory, or refuses")
    x = torch.arange(24).reshape(2, 3, 4)
    turned = x.permute(1, 0, 2)
    print(f"  permuted: shape {tuple(turned.shape)}, strides {turned.stride()}")
    possible = view_strides(turned.shape, turned.stride(), (3, 2, 2, 2))
    impossible = view_strides(turned.shape, turned.stride(), (6, 4))
    print(f"  viewed as (3, 2, 2, 2): strides {possible};  as (6, 4): {impossible}")
    print(f"  torch on (6, 4): {error_of(lambda: turned.view(6, 4))}")
    text = "both as on paper: the first has strides (4, 12, 2, 1), the second has none"
    check("by-hand", text, possible == (4, 12, 2, 1) and impossible is None)

    # Tensors of 24 elements, permuted in all ways, with gaps in memory and without.
    shapes = [(24,), (4, 6), (2, 3, 4), (4, 3, 2), (1, 24), (2, 1, 12), (2, 2, 2, 3)]
    views = []
    for shape in shapes:
        for order in itertools.permutations(range(len(shape))):
            views.append(torch.zeros(shape).permute(order))
            views.append(torch.zeros(*shape, 2)[..., 0].permute(order))
    refused = 0
    for view, shape in itertools.product(views, shapes):
        ours = view_strides(view.shape, view.stride(), shape)
        wanted = torchs_strides(view, shape)
        refused += wanted is None
        if ours != wanted:
            print(f"  {tuple(view.shape)} {view.stride()} as {shape}: {ours}, wanted {wanted}")
            break
    text = f"of {len(views) * len(shapes)} views we refuse those {refused} that torch refuses"
    check("rule", f"{text}; the others have torch's strides", ours == wanted)

    photo = load_photo()  # (H, W, 3)
    right = photo.permute(2, 0, 1)  # (3, H, W)
    wrong_order = photo.reshape(right.shape)  # (3, H, W)
    text = "permute renames the axes: each channel of the result is that of the photo"
    check("permute", text, all(right[c].equal(photo[:, :, c]) for c in range(3)))
    share = (wrong_order == right).float().mean().item()
    text = "after reshape to this shape a share of {} of the places hold the right number"
    check("reshape", text, share, below=0.1)
    return share


def torchs_strides(x: Tensor, shape: tuple) -> tuple[int, ...] | None:
    try:
        return x.view(shape).stride()
    except RuntimeError:
        return None


def coordinates(index: Tensor, dim: int) -> tuple[Tensor, ...]:
    """Where gather reads: along `dim` at `index`, along every other axis at one's own position.

    dim ≥ 0. Returns one tensor of positions for each axis; they broadcast to index's shape.
    """
    # practice: Where does gather read?
    places = []
    for axis, length in enumerate(index.shape):
        if axis == dim:
            places.append(index)
        else:
            # 0, 1, 2 … along this axis, the same along all others.
            shape = [1] * index.ndim
            shape[axis] = length
            places.append(torch.arange(length).reshape(shape))
    return tuple(places)
    # end practice


def gather(x: Tensor, dim: int, index: Tensor) -> Tensor:
    """One number of x for each place of `index`, which has as many axes as x."""
    return x[coordinates(index, dim)]


def scatter(x: Tensor, dim: int, index: Tensor, source: Tensor | float) -> Tensor:
    """A copy of x with `source` written where gather would read."""
    result = x.clone()
    result[coordinates(index, dim)] = source
    return result


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Class numbers (B,) -> (B, C), a single 1 in each row."""
    return scatter(torch.zeros(len(labels), classes), 1, labels[:, None], 1.0)


def show_gather(cfg: Config) -> None:
    print("\n[2] gather reads one place for each index, scatter writes there")
    x = torch.randn(4, 5, 6)
    untouched = x.clone()
    read = []
    written = []
    wanted = []
    wanted_writes = []
    for dim in range(3):
        # Sorting gives every place along dim once, so that none is written twice.
        index = torch.rand(x.shape).argsort(dim)[:2, :4, :3]
        source = torch.randn(index.shape)
        read.append(gather(x, dim, index))
        written.append(scatter(x, dim, index, source))
        wanted.append(torch.gather(untouched, dim, index))
        wanted_writes.append(torch.scatter(untouched, dim, index, source))
    text = "ours reads what torch.gather reads, along each of three axes"
    check_close("gather", text, torch.stack(read), torch.stack(wanted))
    text = "ours writes what torch.scatter writes, and leaves its input as it was"
    ours = torch.stack([*written, x])
    check_close("scatter", text, ours, torch.stack([*wanted_writes, untouched]))

    labels = torch.tensor([2, 0, 4, 2])
    text = "one-hot rows by scatter are those of F.one_hot"
    check_close("one-hot", text, one_hot(labels, 6), F.one_hot(labels, 6))

    # Cross-entropy (2.7): minus the log-probability of the right class, averaged.
    scores = torch.randn(4, 6, dtype=torch.float64)
    picked = gather(scores.log_softmax(dim=1), 1, labels[:, None])  # (B, 1)
    text = "the picked log-probabilities give F.cross_entropy"
    check_close("pick", text, -picked.mean(), F.cross_entropy(scores, labels))


def einsum(equation: str, *operands: Tensor) -> Tensor:
    """Multiply, and add up over every letter that does not stand behind the arrow.

    equation: one letter for each axis, as in "bik,bkj->bij"; no letter twice in one operand.
    """
    inputs, output = equation.split("->")
    summed = set(inputs.replace(",", "")) - set(output)
    letters = [*output, *summed]

    product = 1
    for term, operand in zip(inputs.split(","), operands):
        product = product * lined_up(operand, term, letters)

    # The letters to be summed stand last.
    for _ in summed:
        product = product.sum(dim=-1)
    return product


def lined_up(operand: Tensor, term: str, letters: list[str]) -> Tensor:
    """The operand with one axis for each letter, in this order; length 1 where it has none."""
    order = [term.index(letter) for letter in letters if letter in term]
    operand = operand.permute(order)
    for place, letter in enumerate(letters):
        if letter not in term:
            operand = operand.unsqueeze(place)
    return operand


def show_einsum(cfg: Config) -> None:
    print("\n[3] einsum: name the axes; a letter that is missing behind the arrow is summed")
    a = torch.randn(3, 4, 5, dtype=torch.float64)
    b = torch.randn(3, 5, 2, dtype=torch.float64)
    c = torch.randn(5, dtype=torch.float64)
    examples = {
        "bik,bkj->bij": (a, b),  # a product of matrices for each b
        "bij->bji": (a,),  # transposed
        "i,j->ij": (c, c),  # every product of two
        "i,i->": (c, c),  # dot product
        "bqd,bkd->bqk": (a, a),  # every row with every row
        "bik,bkj,k->jb": (a, b, c),
    }
    ours = []
    torchs = []
    for equation, operands in examples.items():
        result = einsum(equation, *operands)
        shapes = " ".join(str(tuple(operand.shape)) for operand in operands)
        print(f"  {equation:<16}{shapes} -> {tuple(result.shape)}")
        ours.append(result.flatten())
        torchs.append(torch.einsum(equation, *operands).flatten())
    text = f"ours is torch.einsum for these {len(examples)} equations"
    check_close("einsum", text, torch.cat(ours), torch.cat(torchs))
    text = "bik,bkj->bij is torch.bmm, the product of matrices in a batch"
    check_close("matmul", text, einsum("bik,bkj->bij", a, b), torch.bmm(a, b))


def masked_mean(x: Tensor, lengths: Tensor) -> Tensor:
    """Mean over the real steps of padded sequences. x: (B, T, D), lengths: (B,) ≥ 1 -> (B, D)."""
    # practice: Leave the padding out
    positions = torch.arange(x.shape[1])
    real = positions < lengths[:, None]  # (B, T)

    # Not x * real: the padding may hold NaN, and 0 times NaN is NaN.
    kept = torch.where(real[:, :, None], x, 0.0)  # (B, T, D)
    return kept.sum(dim=1) / lengths[:, None]
    # end practice


def show_masks(cfg: Config) -> None:
    print("\n[4] Sequences of 3, 5 and 1 steps in one tensor: a mask says which steps are real")
    lengths = torch.tensor([3, 5, 1])
    x = torch.randn(3, 5, 2, dtype=torch.float64)  # (B, T, D)
    wanted = [row[:length].mean(dim=0) for row, length in zip(x, lengths.tolist())]
    wanted_and_x = torch.stack([*wanted, *x[0]])
    text = "ours is the mean of each sequence cut to its length"
    check_close("masked-mean", text, masked_mean(x, lengths), torch.stack(wanted))

    x[2, 1:] = float("nan")
    by_product = (x[2] * (torch.arange(5) < 1)[:, None]).sum(dim=0)  # only one step is real
    print(f"  padding full of NaN, third mean: by a product {by_product.tolist()}")
    text = "NaN in the padding does not reach the means, and x stays as it was"
    check_close("nan", text, torch.cat([masked_mean(x, lengths), x[0]]), wanted_and_x)


def show_in_place(cfg: Config) -> int:
    print("\n[5] Writing in place: who else sees it, what is lost, what is refused")
    x = torch.zeros(2, 3)
    row = x[0]
    copy = x[0].clone()
    x.add_(1)  # the underscore says: in place
    text = "a row taken before the write sees it, a clone does not"
    check_close("shared-write", text, torch.stack([row, copy]), [[1, 1, 1], [0, 0, 0]])

    words = torch.tensor([0, 0, 2, 0])
    counts = torch.zeros(3)
    counts[words] += 1  # reads four places, adds 1 to each, writes four places
    added = torch.zeros(3).index_add_(0, words, torch.ones(4))
    print(f"  word 0 three times, word 2 once: += counts {counts.tolist()}")
    text = "+= counts a repeated word once, index_add_ counts every time"
    check_close("lost-counts", text, torch.stack([counts, added]), [[1, 0, 1], [3, 0, 1]])

    refused = error_of(lambda: row[1:].copy_(row[:-1]))
    table = torch.arange(6.0).repeat(2, 1)
    table[:, 1:].copy_(table[:, :-1])  # each row should become 0, 0, 1, 2, 3, 4
    print(f"  one row shifted onto itself: {refused}\n  two rows: {table.tolist()}")
    text = "torch refuses to shift one row onto itself; for two it accepts, with a wrong result"
    check("refused", text, "memory location" in refused and table[0, 2].item() != 1)
    return int(counts[0])


def error_of(function: Callable[[], object]) -> str:
    """The first sentence of the error that the call ends in, or nothing."""
    try:
        function()
    except RuntimeError as error:
        return str(error).split(". ")[0]
    return ""


def load_photo() -> Tensor:
    """A portrait that matplotlib brings along: (H, W, 3) uint8."""
    from matplotlib.cbook import get_sample_data

    return torch.tensor(pyplot().imread(get_sample_data("grace_hopper.jpg")))


# Pictures: skip on a first reading


def draw_permute(cfg: Config) -> None:
    photo = load_photo()
    right = photo.permute(2, 0, 1)
    wrong = photo.reshape(right.shape)
    pictures = []
    titles = []
    for code, channels in [("permute(2, 0, 1)", right), ("reshape(3, H, W)", wrong)]:
        # In the house style 0 is white.
        pictures += [photo.numpy(), *(255 - channels.numpy())]
        titles += ["photo (H, W, 3)", f"{code}[0]", f"{code}[1]", f"{code}[2]"]

    figure, axes = new_figure(2, 4, size=(11.5, 6.6))
    plot_images(axes, pictures, titles)
    figure.suptitle("Same shape, same numbers; only permute keeps the picture", weight="bold")
    save_figure(figure, cfg.out / "permute")


def run(cfg: Config) -> dict[str, float]:
    share = show_view(cfg)
    show_gather(cfg)
    show_einsum(cfg)
    show_masks(cfg)
    counted = show_in_place(cfg)
    draw_permute(cfg)
    return {"share_in_place": share, "counted": counted}


if __name__ == "__main__":
    main(run, Config, __doc__)
