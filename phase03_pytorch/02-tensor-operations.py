"""3.2 Tensor operations: view, gather, einsum, and three ways to write into the wrong place
张量运算：视图、收集与爱因斯坦求和，以及写错地方的三种方式

You will be able to answer
    1. When can .view work, and why not after a permute?            show_view       view-rule, view-fails, reshape
    2. Is permute the same as reshape to the same shape?            show_permute    permute
    3. How do you pick one number a row, or put one there?          show_gather     gather, scatter, one-hot, pick
    4. What does an einsum equation say, and what does it cost?     show_einsum     einsum, batched-matmul, cost
    5. How do you average what is real and leave the padding out?   show_masks      masked-mean, nan
    6. Where does x[i] += 1 lose counts, and who sees a write?      show_in_place   shared-write, lost-counts, refused
Run       python phase03_pytorch/02-tensor-operations.py                about 4 s
Needs     -
Reference torch.gather, torch.scatter, torch.einsum, torch.bmm, F.one_hot
Notation  B batch  T time steps  D feature width  C classes
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from common.checks import check, check_close, timed
from common.config import LessonConfig, main, param
from common.figures import new_figure, plot_images, save_figure


@dataclass
class Config(LessonConfig):
    width: int = param(96, "side of the matrices in the speed test", tiny=8)


def merge_axes(shape: Sequence[int], strides: Sequence[int]) -> list[tuple[int, int]]:
    """Neighbouring axes that walk through memory as one: (length, stride) of each run, axes of length 1 left out."""
    runs: list[tuple[int, int]] = []
    # practice: which axes are one long axis in memory?
    # hint: two axes are one run if a step along the left one leads to just behind the end of the right one
    # hint: for length, stride in zip(shape, strides): look at runs[-1]
    for length, stride in zip(shape, strides):
        if runs and runs[-1][1] == length * stride:
            runs[-1] = (runs[-1][0] * length, stride)
        elif length != 1:
            runs.append((length, stride))
    # end practice
    return runs


def view_strides(
    shape: Sequence[int], strides: Sequence[int], new_shape: Sequence[int]
) -> tuple[int, ...] | None:
    """Strides that read the same memory in a new shape of as many elements; None where only a copy helps."""
    runs, new = merge_axes(shape, strides), []
    room = step = 1
    # practice: cut the runs into the new axes, from the right
    # hint: a new axis must fit into one run; room is how much of that run is left, and at 1 it is used up
    # hint: for length in reversed(new_shape): take a run with runs.pop() when room is 1 and length is more
    for length in reversed(new_shape):
        if room == 1 and length != 1:
            room, step = runs.pop()
        if room % length:
            return None
        new.append(step)
        step *= length
        room = room // length
    # end practice
    return tuple(reversed(new))


def coordinates(index: Tensor, dim: int) -> tuple[Tensor, ...]:
    """One index tensor for each axis: along `dim` what `index` says, along the others where one stands oneself."""
    # practice: where does gather read?
    # hint: out[i, j] = x[i, index[i, j]] for dim 1: along the other axes the position is one's own
    # hint: one's own position is arange(length) along that axis: shape = [1] * index.ndim, then shape[axis] = length
    places = []
    for axis, length in enumerate(index.shape):
        shape = [1] * index.ndim
        shape[axis] = length
        places.append(index if axis == dim else torch.arange(length).view(shape))
    # end practice
    return tuple(places)


def gather(x: Tensor, dim: int, index: Tensor) -> Tensor:
    """Read one number for each place of `index`, which has as many axes as x. Result: the shape of `index`."""
    return x[coordinates(index, dim)]


def scatter(x: Tensor, dim: int, index: Tensor, source: Tensor | float) -> Tensor:
    """The way back: a copy of x into which `source` is written where gather would have read."""
    result = x.clone()
    result[coordinates(index, dim)] = source
    return result


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """(B,) class numbers -> (B, C), a single 1 in each row."""
    return scatter(torch.zeros(len(labels), classes, dtype=torch.int64), 1, labels[:, None], 1)


def einsum(equation: str, *operands: Tensor) -> Tensor:
    """Line the axes up by their letters, multiply, and add up every letter that stands not behind the arrow."""
    inputs, output = equation.split("->")
    # practice: from letters to axes
    # hint: every letter gets an axis, first those of the output; where an operand lacks one, it has length 1
    # hint: letters = output + …; for each operand permute into that order, then index with slice(None) or None
    letters = output + "".join(sorted(set(inputs) - set(output) - {","}))
    product = torch.ones((), dtype=operands[0].dtype)
    for term, operand in zip(inputs.split(","), operands):
        order = [term.index(letter) for letter in letters if letter in term]
        lined_up = operand.permute(order)[
            tuple(slice(None) if letter in term else None for letter in letters)
        ]
        product = product * lined_up
    for _ in range(len(letters) - len(output)):
        product = product.sum(dim=-1)
    # end practice
    return product


def masked_mean(x: Tensor, lengths: Tensor) -> Tensor:
    """Mean over the first lengths[b] of T steps. x: (B, T, D), lengths: (B,) of 1 or more -> (B, D)."""
    # practice: leave the padding out
    # hint: a mask says which steps are real; choose by it with torch.where, for 0 times NaN is NaN
    # hint: positions = torch.arange(x.shape[1]), to compare with the lengths
    positions = torch.arange(x.shape[1])
    real = positions < lengths[:, None]  # (B, T)
    total = torch.where(real[..., None], x, 0.0).sum(dim=1)  # (B, D)
    mean = total / lengths[:, None]
    # end practice
    return mean


def show_view(cfg: Config) -> None:
    print("\n[1] .view finds new strides for the same memory, or refuses")
    x = torch.arange(24).view(2, 3, 4)
    turned = x.permute(1, 0, 2)
    for t, shape in ((x, (2, 2, 6)), (turned, (6, 4)), (turned, (3, 2, 2, 2))):
        print(
            " ",
            tuple(t.shape),
            "strides",
            t.stride(),
            "view",
            shape,
            "->",
            view_strides(t.shape, t.stride(), shape),
        )
    shapes = [(24,), (4, 6), (2, 3, 4), (4, 3, 2), (1, 24), (2, 1, 12), (2, 2, 2, 3), (3, 8, 1)]
    views = [
        t.permute(order)
        for shape in shapes
        for order in itertools.permutations(range(len(shape)))
        for t in (torch.zeros(shape), torch.zeros(*shape, 2)[..., 0])
    ]  # the second has gaps
    cases = [
        (view_strides(t.shape, t.stride(), shape), strides_or_none(lambda: t.view(shape)), shape)
        for t in views
        for shape in shapes
    ]
    refused = sum(theirs is None for _, theirs, _ in cases)
    check(
        "view-rule",
        f"torch's strides in {len(cases)} views, and none in the {refused} that torch refuses",
        0 < refused < len(cases)
        and all((ours is None) == (theirs is None) for ours, theirs, _ in cases)
        and all(
            a == b
            for ours, theirs, shape in cases
            if ours
            for a, b, n in zip(ours, theirs, shape)
            if n > 1
        ),
    )
    check(
        "view-fails",
        "a permuted tensor cannot be viewed flat, as predicted",
        view_strides(turned.shape, turned.stride(), (24,))
        is strides_or_none(lambda: turned.view(24))
        is None,
    )
    check(
        "reshape",
        "reshape does what view can, and copies where view refuses",
        x.reshape(6, 4).data_ptr() == x.data_ptr()
        and turned.reshape(24).data_ptr() != x.data_ptr(),
    )


def strides_or_none(make: Callable[[], Tensor]) -> tuple[int, ...] | None:
    try:
        return make().stride()
    except RuntimeError:
        return None


def show_permute(cfg: Config) -> None:
    print("\n[2] permute renames the axes; reshape keeps the order of the numbers")
    import matplotlib.cbook
    import matplotlib.pyplot as plt

    photo = torch.from_numpy(
        plt.imread(matplotlib.cbook.get_sample_data("grace_hopper.jpg"))[::2, ::2].copy()
    )
    right, wrong = photo.permute(2, 0, 1), photo.reshape(3, *photo.shape[:2])
    check(
        "permute",
        f"both {tuple(right.shape)}; but only after permute is [c, y, x] what [y, x, c] was",
        all(
            torch.equal(right[c], photo[..., c]) and not torch.equal(wrong[c], photo[..., c])
            for c in range(3)
        ),
    )
    figure, axes = new_figure(2, 4, size=(11.5, 6.6))
    grey = [
        255 - channel.numpy() for channel in (*right, *wrong)
    ]  # shown in house style: 0 is white
    plot_images(
        axes,
        [photo, *grey[:3], photo, *grey[3:]],
        [
            "photo (H, W, 3)",
            *(f"permute(2, 0, 1)[{c}]" for c in range(3)),
            "the same photo",
            *(f"reshape(3, H, W)[{c}]" for c in range(3)),
        ],
    )
    figure.suptitle(
        "Same shape, same numbers: permute keeps the picture, reshape does not", fontweight="bold"
    )
    save_figure(figure, cfg.out / "permute")


def show_gather(cfg: Config) -> None:
    print("\n[3] gather reads one place for each index, scatter writes there")
    x = torch.randn(4, 5, 6)
    places = [
        torch.stack([torch.randperm(n)[:3] for _ in range(8)]).view(2, 4, 3).movedim(-1, dim)
        for dim, n in enumerate(x.shape)
    ]  # permutations: no place is written twice
    check(
        "gather",
        "ours equals torch.gather along each of 3 axes",
        all(
            torch.equal(gather(x, dim, index), torch.gather(x, dim, index))
            for dim, index in enumerate(places)
        ),
    )
    writes = [(dim, index, -torch.gather(x, dim, index)) for dim, index in enumerate(places)]
    check(
        "scatter",
        "ours equals torch.scatter along each of 3 axes",
        all(torch.equal(scatter(x, *write), torch.scatter(x, *write)) for write in writes),
    )
    labels = torch.tensor([2, 0, 4, 2])
    check_close(
        "one-hot",
        "one-hot rows by scatter equal F.one_hot",
        one_hot(labels, 5),
        F.one_hot(labels, 5),
    )
    log_p = torch.randn(4, 5, dtype=torch.float64).log_softmax(dim=1)
    picked = gather(log_p, 1, labels[:, None])  # (B, 1) what the right class got
    check_close(
        "pick",
        "minus its mean is the loss of lesson 3.5",
        -picked.mean(),
        F.nll_loss(log_p, labels),
    )


def show_einsum(cfg: Config) -> float:
    print("\n[4] einsum: name the axes; what is not named behind the arrow is summed")
    a, b, c = torch.randn(3, 4, 5).double(), torch.randn(3, 5, 2).double(), torch.randn(5).double()
    examples = {
        "bik,bkj->bij": (a, b),
        "bij->bji": (a,),
        "bij->i": (a,),
        "i,j->ij": (c, c),
        "i,i->": (c, c),
        "bqd,bkd->bqk": (a, a),
        "bik,bkj,k->jb": (a, b, c),
    }
    for equation, operands in examples.items():
        print(
            f"  {equation:<16}",
            *(tuple(t.shape) for t in operands),
            "->",
            tuple(einsum(equation, *operands).shape),
        )
    check_close(
        "einsum",
        f"ours equals torch.einsum for these {len(examples)} equations",
        torch.cat([einsum(e, *t).flatten() for e, t in examples.items()]),
        torch.cat([torch.einsum(e, *t).flatten() for e, t in examples.items()]),
    )
    check_close(
        "batched-matmul",
        "bik,bkj->bij is torch.bmm, and the @ of lesson 1.2",
        torch.stack([einsum("bik,bkj->bij", a, b), a @ b]),
        torch.bmm(a, b).expand(2, -1, -1, -1),
    )
    x = torch.randn(4, cfg.width, cfg.width)
    return timed(
        "cost",
        f"torch.bmm, which never stores the {4 * cfg.width**3:,} products, is faster",
        lambda: einsum("bik,bkj->bij", x, x),
        lambda: torch.bmm(x, x),
        at_least=3,
    )


def show_masks(cfg: Config) -> None:
    print("\n[5] A mask chooses; a product with 0 does not")
    lengths = torch.tensor([3, 5, 1])
    x = torch.randn(3, 5, 2, dtype=torch.float64)  # (B, T, D), what lies behind the end is padding
    by_hand = torch.stack([row[:n].mean(dim=0) for row, n in zip(x, lengths.tolist())])
    check_close(
        "masked-mean", "ours equals the mean of each cut sequence", masked_mean(x, lengths), by_hand
    )
    x[2, 1:] = float("nan")  # padding may hold anything
    real = torch.arange(5)[:, None] < lengths[:, None, None]
    check(
        "nan",
        "NaN in the padding gets through a product with 0, not through torch.where",
        (x * real).sum(dim=1).isnan().any().item()
        and masked_mean(x, lengths).isfinite().all().item(),
    )


def show_in_place(cfg: Config) -> None:
    print("\n[6] Writing in place: who else sees it, what is lost, what is refused")
    x = torch.zeros(2, 3)
    row, copy = x[0], x[0].clone()
    x.add_(1)  # the underscore says: in place
    check_close(
        "shared-write",
        "a row taken before the write sees it, a clone does not",
        torch.stack([row, copy]),
        [[1, 1, 1], [0, 0, 0]],
    )
    words, lost, counts = torch.tensor([0, 0, 2, 0]), torch.zeros(3), torch.zeros(3)
    lost[words] += 1  # reads all, adds, writes all: the last one wins
    counts.index_add_(0, words, torch.ones(4))
    check_close(
        "lost-counts",
        "of [0, 0, 2, 0] += 1 counts [1, 0, 1]; index_add_ counts [3, 0, 1]",
        torch.stack([lost, counts]),
        [[1, 0, 1], [3, 0, 1]],
    )
    writes = (
        lambda: copy[1:].copy_(copy[:-1]),
        lambda: copy[:1].expand(3).add_(1),
        lambda: words.div_(2),
    )
    check(
        "refused",
        "shifting onto itself, writing through expand, fractions into int64: torch refuses all three",
        [strides_or_none(write) for write in writes] == [None] * 3,
    )


def run(cfg: Config) -> dict:
    show_view(cfg)
    show_permute(cfg)
    show_gather(cfg)
    results = {
        "bmm_speedup": show_einsum(cfg),
        "products": 4 * cfg.width**3,
        "results": 4 * cfg.width**2,
    }
    show_masks(cfg)
    show_in_place(cfg)
    return results


if __name__ == "__main__":
    main(run, Config, __doc__)
