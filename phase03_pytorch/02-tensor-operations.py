"""3.2 Tensor operations: view, gather, einsum, and three ways to write into the wrong place
张量运算：视图、收集与爱因斯坦求和，以及写错地方的三种方式

You will be able to answer
    1. When can .view work, and why not after a permute?                show_view       view-rule, view-fails, reshape
    2. Is permute the same as reshape to the same shape?                show_permute    permute
    3. How do you pick one number from each row, or put one there?      show_gather     gather, scatter, one-hot, pick
    4. What does an einsum equation say, and what does it cost?         show_einsum     einsum, batched-matmul, cost
    5. How do you average what is real and leave the padding out?       show_masks      masked-mean, nan
    6. Where does x[i] += 1 lose counts, and who else sees a write?     show_in_place   shared-write, lost-counts, refused
Run       python phase03_pytorch/02-tensor-operations.py                about 4 s
Needs     phase03_pytorch/01-tensor-basics
Notation  B batch  T time steps  D feature width  C classes
"""
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from common.checks import check, check_close, timed
from common.config import LessonConfig, main, param
from common.figures import BLUE, GREY, ORANGE, new_figure, plot_images, save_figure


@dataclass
class Config(LessonConfig):
    width: int = param(96, "side of the matrices in the speed test", tiny=8)


def merge_axes(shape: Sequence[int], strides: Sequence[int]) -> list[tuple[int, int]]:
    """Neighbouring axes that walk through memory as one: (length, stride) of each run, axes of length 1 left out."""
    runs: list[tuple[int, int]] = []
    # practice: which axes are one long axis in memory?
    # hint: after the last element of an axis, does the axis to its left step to just behind it?
    # hint: then the left stride is length times stride of the right one, and the two are one run
    # hint: for length, stride in zip(shape, strides): look at runs[-1]
    for length, stride in zip(shape, strides):
        if length == 1:
            continue
        if runs and runs[-1][1] == length * stride:
            runs[-1] = (runs[-1][0] * length, stride)
        else:
            runs.append((length, stride))
    # end practice
    return runs


def view_strides(shape: Sequence[int], strides: Sequence[int], new_shape: Sequence[int]) -> tuple[int, ...] | None:
    """Strides that read the same memory in the new shape; None where there are none and only a copy helps.

    Both shapes must hold the same number of elements, not 0.
    """
    runs, new = merge_axes(shape, strides), []
    room = step = 1
    # practice: cut the runs into the new axes, from the right
    # hint: a new axis must fit into one run: it may be cut, but no axis can span two
    # hint: room is how much of the current run is left; at 1 it is used up, and the next run from the right begins
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
    # hint: one's own position along an axis is arange(length), shaped to lie along that axis
    # hint: shape = [1] * index.ndim, then shape[axis] = length
    places = []
    for axis, length in enumerate(index.shape):
        shape = [1] * index.ndim
        shape[axis] = length
        places.append(index if axis == dim else torch.arange(length).view(shape))
    # end practice
    return tuple(places)


def gather(x: Tensor, dim: int, index: Tensor) -> Tensor:
    """Read one number for each place of `index`. Same number of axes; the result has the shape of `index`."""
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
    # hint: give every letter an axis: first those of the output, then those that are summed away
    # hint: an operand without a letter gets an axis of length 1 there, and broadcasting does the rest
    # hint: letters = output + …; for each operand permute into that order, then index with slice(None) or None
    letters = output + "".join(sorted(set(inputs) - set(output) - {","}))
    product = torch.ones((), dtype=operands[0].dtype)
    for term, operand in zip(inputs.split(","), operands):
        order = [term.index(letter) for letter in letters if letter in term]
        lined_up = operand.permute(order)[tuple(slice(None) if letter in term else None for letter in letters)]
        product = product * lined_up
    for _ in range(len(letters) - len(output)):
        product = product.sum(dim=-1)
    # end practice
    return product


def masked_mean(x: Tensor, lengths: Tensor) -> Tensor:
    """Mean over the first lengths[b] of T steps. x: (B, T, D), lengths: (B,) of 1 or more -> (B, D)."""
    # practice: leave the padding out
    # hint: a mask says which steps are real: position < length, (B, T)
    # hint: choose with torch.where, for 0 times NaN is NaN; divide by what was counted, not by T
    # hint: positions = torch.arange(x.shape[1])
    positions = torch.arange(x.shape[1])
    real = positions < lengths[:, None]                                 # (B, T)
    total = torch.where(real[..., None], x, 0.0).sum(dim=1)             # (B, D)
    mean = total / lengths[:, None]
    # end practice
    return mean


def show_view(cfg: Config) -> None:
    print("\n[1] .view finds new strides for the same memory, or refuses")
    x = torch.arange(24).view(2, 3, 4)
    turned = x.permute(1, 0, 2)
    for name, t, shape in (("x (2, 3, 4)", x, (6, 4)), ("x (2, 3, 4)", x, (2, 2, 6)), ("permuted (3, 2, 4)", turned, (6, 4)),
                           ("permuted (3, 2, 4)", turned, (3, 2, 2, 2))):
        print(f"  {name:<20}strides {t.stride()!s:<13}.view{shape!s:<15}{view_strides(t.shape, t.stride(), shape) or 'impossible'}")
    generator, agree, fails = torch.Generator().manual_seed(cfg.seed), [], 0
    shapes = [(24,), (4, 6), (2, 12), (2, 3, 4), (4, 3, 2), (1, 24), (2, 1, 12), (2, 2, 2, 3), (3, 8, 1), (6, 2, 2)]
    for _ in range(400):
        start, target = (shapes[i] for i in torch.randint(len(shapes), (2,), generator=generator).tolist())
        t = torch.zeros(*start, 2).select(-1, 0) if len(agree) % 3 == 0 else torch.zeros(start)     # gaps, every third time
        t = t.permute(torch.randperm(len(start), generator=generator).tolist())
        ours, theirs = view_strides(t.shape, t.stride(), target), strides_or_none(lambda: t.view(target))
        fails += theirs is None
        agree.append((ours is None) == (theirs is None) and (ours is None or all(
            a == b for length, a, b in zip(target, ours, theirs) if length > 1)))
    check("view-rule", f"our strides are torch's in 400 random views, and in the {fails} where it refuses we have none",
          all(agree) and 50 < fails < 350)
    check("view-fails", "a permuted tensor cannot be viewed flat, as predicted",
          view_strides(turned.shape, turned.stride(), (24,)) is None and strides_or_none(lambda: turned.view(24)) is None)
    check("reshape", "reshape does what view can, and copies where view refuses",
          x.reshape(6, 4).data_ptr() == x.data_ptr() and turned.reshape(24).data_ptr() != x.data_ptr())


def strides_or_none(make: Callable[[], Tensor]) -> tuple[int, ...] | None:
    try:
        return make().stride()
    except RuntimeError:
        return None


def show_permute(cfg: Config) -> None:
    print("\n[2] permute renames the axes; reshape keeps the order of the numbers")
    import matplotlib.cbook
    import matplotlib.pyplot as plt

    photo = torch.from_numpy(plt.imread(matplotlib.cbook.get_sample_data("grace_hopper.jpg")).copy())   # (H, W, 3)
    right, wrong = photo.permute(2, 0, 1), photo.reshape(3, *photo.shape[:2])
    print(f"  photograph {tuple(photo.shape)}; both results {tuple(right.shape)}, so no shape check will tell them apart")
    check("permute", "after permute(2, 0, 1) [c, y, x] is what [y, x, c] was; after reshape it is not",
          torch.equal(right[1, 100:200, 300], photo[100:200, 300, 1]) and not torch.equal(right, wrong))
    figure, axes = new_figure(2, 4, size=(11.5, 6.6))
    pictures = [photo, *right, photo, *wrong]
    plot_images(axes, [255 - p.numpy() if p.ndim == 2 else p.numpy() for p in pictures],
                ["photo (H, W, 3)", *(f"permute(2, 0, 1)[{c}]" for c in range(3)),
                 "the same photo", *(f"reshape(3, H, W)[{c}]" for c in range(3))])
    figure.suptitle("Same shape, same numbers: permute keeps the picture, reshape does not", fontweight="bold")
    save_figure(figure, cfg.out / "permute")


def show_gather(cfg: Config) -> None:
    print("\n[3] gather reads one place for each index, scatter writes there")
    x, gathered, wanted, scattered, expected = torch.randn(4, 5, 6), [], [], [], []
    for dim in range(3):
        index = torch.stack([torch.randperm(x.shape[dim])[:3] for _ in range(8)]).view(2, 4, 3)     # no place twice
        index = index.movedim(-1, dim)
        gathered.append(gather(x, dim, index).flatten())
        wanted.append(torch.gather(x, dim, index).flatten())
        source = torch.randn(index.shape)
        scattered.append(scatter(x, dim, index, source))
        expected.append(torch.scatter(x, dim, index, source))
    check_close("gather", "ours equals torch.gather along each of 3 axes", torch.cat(gathered), torch.cat(wanted))
    check_close("scatter", "ours equals torch.scatter along each of 3 axes", torch.stack(scattered), torch.stack(expected))
    labels = torch.tensor([2, 0, 4, 2])
    check_close("one-hot", "one-hot rows by scatter equal F.one_hot", one_hot(labels, 5), F.one_hot(labels, 5))
    log_p = torch.randn(4, 5, dtype=torch.float64).log_softmax(dim=1)
    picked = gather(log_p, 1, labels[:, None])[:, 0]
    print(f"  log-probability of the right class in 4 rows: {[round(p, 2) for p in picked.tolist()]}")
    check_close("pick", "minus its mean is the cross-entropy loss of lesson 3.5", -picked.mean(), F.nll_loss(log_p, labels))
    draw_gather(cfg, log_p, labels)


def show_einsum(cfg: Config) -> float:
    print("\n[4] einsum: name the axes; what is not named behind the arrow is summed")
    a, b, c = torch.randn(3, 4, 5).double(), torch.randn(3, 5, 2).double(), torch.randn(5).double()
    examples = {"bik,bkj->bij": (a, b), "bij->bji": (a,), "bij->i": (a,), "i,j->ij": (c, c), "i,i->": (c, c),
                "bqd,bkd->bqk": (a, a), "bik,bkj,k->jb": (a, b, c)}
    for equation, operands in examples.items():
        print(f"  {equation:<16}" + " ".join(str(tuple(t.shape)) for t in operands), "->",
              tuple(einsum(equation, *operands).shape))
    check_close("einsum", f"ours equals torch.einsum for these {len(examples)} equations",
                torch.cat([einsum(e, *t).flatten() for e, t in examples.items()]),
                torch.cat([torch.einsum(e, *t).flatten() for e, t in examples.items()]))
    check_close("batched-matmul", "bik,bkj->bij is torch.bmm, and the @ of lesson 1.2",
                torch.stack([einsum("bik,bkj->bij", a, b), a @ b]), torch.bmm(a, b).expand(2, -1, -1, -1))
    x = torch.randn(4, cfg.width, cfg.width)
    print(f"  ours makes {4 * cfg.width ** 3:,} products before it adds them up; torch.bmm keeps no more than the result")
    return timed("cost", "the product that is never stored is faster", lambda: einsum("bik,bkj->bij", x, x),
                 lambda: torch.bmm(x, x), at_least=3)


def show_masks(cfg: Config) -> None:
    print("\n[5] A mask chooses; a product with 0 does not")
    lengths = torch.tensor([3, 5, 1])
    x = torch.randn(3, 5, 2, dtype=torch.float64)                       # (B, T, D), what lies behind the end is padding
    print(f"  first feature, row of length 1: real mean {x[2, 0, 0]:.3f}, with the padding {x[2, :, 0].mean():.3f}")
    by_hand = torch.stack([row[:n].mean(dim=0) for row, n in zip(x, lengths.tolist())])
    check_close("masked-mean", "ours equals the mean of each cut sequence", masked_mean(x, lengths), by_hand)
    x[2, 1:] = float("nan")                                             # padding may hold anything
    real = (torch.arange(5) < lengths[:, None])[..., None]
    check("nan", "NaN in the padding gets through a product with 0, not through torch.where",
          (x * real).sum(dim=1).isnan().any().item() and masked_mean(x, lengths).isfinite().all().item())


def show_in_place(cfg: Config) -> None:
    print("\n[6] Writing in place: who else sees it, what is lost, what is refused")
    x = torch.zeros(2, 3)
    row, copy = x[0], x[0].clone()
    x.add_(1)                                                           # the underscore says: in place
    check_close("shared-write", "a row taken before the write sees it, a clone does not",
                torch.stack([row, copy]), [[1, 1, 1], [0, 0, 0]])
    words = torch.tensor([0, 0, 2, 0])
    lost, counts = torch.zeros(3), torch.zeros(3)
    lost[words] += 1                                                    # reads all, adds, writes all: the last one wins
    counts.index_add_(0, words, torch.ones(4))
    print(f"  counting [0, 0, 2, 0]: counts[words] += 1 gives {lost.tolist()}, index_add_ {counts.tolist()}")
    check_close("lost-counts", "an index that comes three times is counted once by +=, three times by index_add_",
                torch.stack([lost, counts]), [[1, 0, 1], [3, 0, 1]])
    line = torch.arange(4.0)
    writes = (lambda: line[1:].copy_(line[:-1]), lambda: torch.zeros(1).expand(3).add_(1), lambda: torch.arange(3).div_(2))
    check("refused", "shifting onto itself, writing through expand, fractions into int64: torch refuses all three",
          [strides_or_none(write) for write in writes] == [None] * 3)


def draw_gather(cfg: Config, log_p: Tensor, labels: Tensor) -> None:
    """A table of probabilities, the index column beside it, and what gather reads."""
    rows, classes = log_p.shape
    figure, axis = new_figure(size=(10, 4.2))
    for y in range(rows):
        cells = [(x, f"{log_p[y, x].exp():.2f}", x == labels[y]) for x in range(classes)]
        cells += [(classes + 1.2, str(labels[y].item()), None), (classes + 3.4, f"{log_p[y, labels[y]].exp():.2f}", True)]
        for x, text, read in cells:
            axis.text(x, -y, text, ha="center", va="center", fontsize=15, color="black" if read is False else "white",
                      fontweight="normal" if read is False else "bold", bbox={"boxstyle": "square,pad=0.45",
                      "facecolor": "#EEEEEE" if read is False else GREY if read is None else ORANGE, "edgecolor": "none"})
        axis.annotate("", (classes + 2.9, -y), (classes + 1.7, -y), arrowprops={"arrowstyle": "->", "color": BLUE, "lw": 2})
    for x, text in ((2, "x: a probability for each class"), (classes + 1.2, "index"), (classes + 3.4, "gather(x, 1, index)")):
        axis.text(x, 0.8, text, ha="center", fontweight="bold")
    axis.set(xlim=(-0.7, classes + 5), ylim=(0.5 - rows, 1.3), title="gather: one number from each row, where the index says")
    axis.axis("off")
    save_figure(figure, cfg.out / "gather")


def run(cfg: Config) -> dict:
    show_view(cfg)
    show_permute(cfg)
    show_gather(cfg)
    cost = show_einsum(cfg)
    show_masks(cfg)
    show_in_place(cfg)
    return {"bmm_speedup": cost, "products": 4 * cfg.width ** 3}


if __name__ == "__main__":
    main(run, Config, __doc__)
