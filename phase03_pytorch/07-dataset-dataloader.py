"""3.7 Dataset and DataLoader: from single items to batches, in an order you choose
Dataset 与 DataLoader：从单个样本到批次，次序由你决定

You will be able to answer
    1. How do single items become batches?   show_batches  by-hand, padded, mean, same-batches
    2. Who decides which item comes next?    show_order    once, same-seed
    3. How is less space wasted on padding?  show_buckets  complete, mixed, new, same, padding
    4. What may worker processes get wrong?  show_workers  streamed, repeated, trap, cured, alone
    5. What does a call for each item cost?  show_rates    rate
Predict   arrived: two workers read a file of 1,257 lines as a stream; how many items arrive?
Run       python phase03_pytorch/07-dataset-dataloader.py                  about 10 s
Needs     -
Reference pad_sequence
Notation  B batch  T points of the longest item  D numbers of a point (row, column, ink)
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from common.checks import check, check_close, timed
from common.config import LessonConfig, main, param
from common.data.batches import Batches
from common.data.images import load_images
from common.figures import BLUE, ORANGE, new_figure, save_figure


@dataclass
class Config(LessonConfig):
    threads = 1  # the tensors are small, and the workers need the cores
    data: str = param("digits", "data set", choices=("digits",))
    batch_size: int = param(32, "items in a batch", low=2)
    workers: int = param(2, "worker processes; 0: copies play their part", tiny=0, low=0)


class InkPoints(Dataset):
    """Map-style. Item i: the inked pixels of digit i, as points (n_i, D) from 0 to 1; its class."""

    def __init__(self, pictures: Tensor, classes: Tensor):
        self.pictures = pictures  # (n, 8, 8), ink from 0 to 16
        self.classes = classes

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        picture = self.pictures[index]
        places = picture.nonzero() / 7  # (n_i, 2)
        ink = picture[picture > 0] / 16  # (n_i,)
        return torch.cat([places, ink[:, None]], dim=1), self.classes[index]


def pad(items: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """Collate function. Points (B, T, D), 0 past an item's end; which are real, (B, T); classes."""
    # practice: One box for items of different length
    longest = max(len(points) for points, _ in items)
    padded = torch.zeros(len(items), longest, items[0][0].shape[1])
    real = torch.zeros(len(items), longest, dtype=torch.bool)
    for row, (points, _) in enumerate(items):
        padded[row, : len(points)] = points
        # A zero may be a point too, so the mask has to remember where an item ends.
        real[row, : len(points)] = True

    classes = torch.stack([label for _, label in items])
    return padded, real, classes
    # end practice


def load(dataset: Dataset, order: Iterable[int], batch_size: int, collate: Callable) -> Iterator:
    """What a loader does in an epoch: ask for the items in this order, and collate batches."""
    # practice: One epoch of a loader
    items = []
    for index in order:
        items.append(dataset[index])
        if len(items) == batch_size:
            yield collate(items)
            items = []

    # The last batch may be shorter, but an empty one is none.
    if items:
        yield collate(items)
    # end practice


def padding_share(batches: Iterable) -> float:
    """The share of all places that hold no point, of batches that `pad` made."""
    real = torch.cat([mask.flatten() for _, mask, _ in batches])
    return 1 - real.double().mean().item()


def show_batches(cfg: Config, dataset: InkPoints) -> None:
    print("\n[1] A dataset answers len() and [i], a collate function makes a batch of the answers")
    # A list answers both too, so it is a dataset.
    items = [(torch.ones(length, 3), torch.tensor(0)) for length in [2, 8, 3, 7]]
    shares = [padding_share(load(items, order, 2, pad)) for order in ([0, 1, 2, 3], [0, 2, 1, 3])]
    text = "of lengths 2, 8, 3, 7 in two batches, 10 of 30 places are padding; sorted, 2 of 22"
    check_close("by-hand", text, shares, [10 / 30, 2 / 22])

    # The shortest comes first, and its points are zeros: real ones, which the mask must keep.
    items = [(torch.zeros(2, 3), torch.tensor(0))]
    items += [dataset[index] for index in range(cfg.batch_size)]
    padded, real, _ = pad(items)
    text = f"padded to {tuple(padded.shape)}, the items are what pad_sequence makes of them"
    check_close("padded", text, padded, pad_sequence([p for p, _ in items], batch_first=True))

    alone = torch.stack([points.double().mean(dim=0) for points, _ in items])  # (B, D)
    total = (padded.double() * real[..., None]).sum(dim=1)  # (B, D)
    text = "with the mask, the mean over a padded item is the mean of the item alone"
    check_close("mean", text, total / real.sum(dim=1, keepdim=True), alone)

    order = torch.randperm(2 * cfg.batch_size + 6).tolist()
    ours = []
    theirs = []
    for chosen in [order, order[6:]]:
        ours += [classes for _, _, classes in load(dataset, chosen, cfg.batch_size, pad)]
        theirs += DataLoader(dataset.classes, cfg.batch_size, sampler=chosen)
    # One row for each batch; a shorter one ends in -1.
    ours = pad_sequence(ours, batch_first=True, padding_value=-1)
    theirs = pad_sequence(theirs, batch_first=True, padding_value=-1)
    text = "our batches are those of a DataLoader, the last one too"
    check_close("same-batches", text, ours, theirs)


def shuffled(count: int, generator: Generator) -> list[int]:
    """An order for one epoch: every index once. The generator is the only source of chance."""
    return torch.randperm(count, generator=generator).tolist()


def show_order(cfg: Config, dataset: InkPoints) -> None:
    print("\n[2] A sampler is nothing but a stream of indices")
    order = Generator().manual_seed(cfg.seed)
    epochs = [shuffled(len(dataset), order) for _ in range(2)]
    text = "in each of two epochs, each item comes once"
    check_close("once", text, np.sort(epochs), 2 * [range(len(dataset))])

    again = Generator().manual_seed(cfg.seed)
    same = epochs == [shuffled(len(dataset), again) for _ in range(2)]
    text = "the same seed gives the same two orders, which differ from each other"
    check("same-seed", text, same and epochs[0] != epochs[1])


def buckets(lengths: list[int], batch_size: int, generator: Generator, pool: int = 8) -> list:
    """Lists of indices of items of similar length, in random order; other ones in every epoch.

    Shuffled first, then sorted within pools of `pool` batches: sorting all would repeat batches.
    """
    # practice: Batches of similar length
    order = torch.randperm(len(lengths), generator=generator).tolist()
    batches = []
    for start in range(0, len(order), pool * batch_size):
        chosen = order[start : start + pool * batch_size]
        chosen.sort(key=lambda index: lengths[index])
        batches += [chosen[i : i + batch_size] for i in range(0, len(chosen), batch_size)]

    # Left as they are, the batches of a pool would go from short items to long ones.
    turns = torch.randperm(len(batches), generator=generator).tolist()
    return [batches[turn] for turn in turns]
    # end practice


def show_buckets(cfg: Config, dataset: InkPoints) -> dict[str, DataLoader]:
    print("\n[3] Batches of similar length: order enough to save space, chance enough to learn")
    lengths = 1 + torch.randperm(2005)  # no two of the same length
    order = Generator().manual_seed(cfg.seed)
    first = buckets(lengths.tolist(), 10, order)
    second = buckets(lengths.tolist(), 10, order)
    seen = sorted(index for batch in first for index in batch)
    text = "an epoch has each of 2,005 items once, in 201 batches"
    check_close("complete", text, [*seen, len(first)], [*range(2005), 201])

    longest = [lengths[batch].max() for batch in first]
    rising = (np.diff(longest) > 0).mean()
    text = "the batches come in random order: in a share of {}, the next one has longer items"
    check("mixed", text, rising, above=0.35, below=0.65)

    again = buckets(lengths.tolist(), 10, Generator().manual_seed(cfg.seed))
    repeats = len(set(map(frozenset, first)) & set(map(frozenset, second)))
    check("new", "the next epoch repeats {} of these batches", repeats, at_least=0, at_most=0)
    check("same", "the same seed gives the same batches", again == first)

    lengths = dataset.pictures.flatten(1).count_nonzero(dim=1).tolist()
    at_random = DataLoader(dataset, cfg.batch_size, shuffle=True, generator=order, collate_fn=pad)
    # Given whole batches, a DataLoader needs neither a batch size nor an order.
    batches = buckets(lengths, cfg.batch_size, order)
    by_length = DataLoader(dataset, batch_sampler=batches, collate_fn=pad)
    shares = [padding_share(at_random), padding_share(by_length)]
    text = f"{shares[0]:.1%} of the places are padding in random order; by length, {{}} times that"
    check("padding", text, shares[1] / shares[0], below=0.5)
    return {"random order": at_random, "similar length": by_length}


class Lines(IterableDataset):
    """Iterable: no length and no index, only the next item. A file, read line by line."""

    def __init__(self, path: Path, shared: bool):
        self.path = path
        self.shared = shared

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        info = get_worker_info()  # None in the main process
        if info is None or not self.shared:
            return self.part(0, 1)
        return self.part(info.id, info.num_workers)

    def part(self, worker: int, workers: int) -> Iterator[tuple[int, Tensor]]:
        """What worker number `worker` of `workers` reads: pairs of line number and its numbers."""
        # practice: Every line to exactly one worker
        with open(self.path, encoding="ascii") as file:
            for number, line in enumerate(file):
                # Parsing is what costs, so the lines of the others are skipped before it.
                if number % workers == worker:
                    yield number, torch.tensor([int(text) for text in line.split(",")])
        # end practice


class Moved(InkPoints):
    """The same items, each moved at random when it is asked for.

    With `rng` by that generator, of which every worker gets a copy; without it by a new one, made
    of seed, epoch and index.
    """

    def __init__(self, still: InkPoints, seed: int, rng: np.random.Generator | None = None):
        super().__init__(still.pictures, still.classes)
        self.seed = seed
        self.rng = rng
        self.epoch = 0

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        points, label = super().__getitem__(index)
        rng = self.rng
        if rng is None:
            rng = np.random.default_rng([self.seed, self.epoch, index])
        step = [*rng.normal(0, 0.1, size=2), 0]  # down, right, and the ink as it is
        return points + torch.tensor(step, dtype=points.dtype), label


def show_workers(cfg: Config, dataset: InkPoints) -> int:
    print("\n[4] Each worker is a process with its own copy of the dataset")
    table = torch.column_stack([dataset.pictures.flatten(1), dataset.classes])
    path = cfg.out / "digits.csv"
    np.savetxt(path, table.numpy(), "%d", delimiter=",")
    stream = Lines(path, shared=True)
    lines = read_by_workers(cfg, stream)
    # 7 divides neither the 1,257 lines nor the 300 of a tiny run.
    lines += [pair for worker in range(7) for pair in stream.part(worker, 7)]
    lines = sorted([number, *line.tolist()] for number, line in lines)
    text = f"2 workers, then 7, share {len(table):,} lines out: both times each arrives once"
    wanted = [[number, *line] for number, line in enumerate(table.tolist())]
    check_close("streamed", text, lines, sorted(2 * wanted))
    arrived = len(read_by_workers(cfg, Lines(path, shared=False)))
    text = "not shared out, {} items arrive from the same file"
    check("repeated", text, arrived, at_least=2 * len(table), at_most=2 * len(table))

    few = InkPoints(dataset.pictures[:16], dataset.classes[:16])
    held = Moved(few, cfg.seed, np.random.default_rng(cfg.seed))
    copied = torch.cat([steps_by_workers(cfg, held, few) for _ in range(2)])  # (32, 2)
    text = "two workers copy one generator: 32 items of two epochs get {} different steps"
    check("trap", text, len(copied.unique(dim=0)), at_least=8, at_most=8)

    own = Moved(few, cfg.seed)
    first = steps_by_workers(cfg, own, few)
    alone = [(own[i][0] - few[i][0])[0, :2] for i in range(16)]
    own.epoch = 1
    steps = torch.cat([first, steps_by_workers(cfg, own, few)])
    text = "with a generator for each item, they get {}"
    check("cured", text, len(steps.unique(dim=0)), at_least=32, at_most=32)
    check_close("alone", "one process moves them as two do", torch.stack(alone), first, atol=1e-4)
    return arrived


def show_rates(cfg: Config, dataset: InkPoints) -> dict[str, float]:
    print("\n[5] What fits into memory is cut there; a call for each item has its price")
    by_item = DataLoader(dataset.pictures, cfg.batch_size)
    in_memory = Batches(dataset.pictures, batch_size=cfg.batch_size)
    text = "cut from memory, batches come {} times faster"
    speedup = timed("rate", text, lambda: list(by_item), lambda: list(in_memory), at_least=3)
    return {"speedup": speedup}


# Pictures and helpers: skip on a first reading


def draw_batches(cfg: Config, loaders: dict[str, DataLoader]) -> None:
    figure, axes = new_figure(1, 2, size=(12, 5), sharey=True)
    for axis, (name, loader) in zip(axes, loaders.items()):
        masks = [mask for _, mask, _ in islice(loader, 8)]
        points = torch.cat([mask.sum(dim=1) for mask in masks])
        places = torch.cat([torch.full((len(mask),), mask.shape[1]) for mask in masks])
        axis.barh(range(len(places)), places, height=1, color=ORANGE, label="padding")
        axis.barh(range(len(points)), points, height=1, color=BLUE, label="points")
        share = padding_share(loader)
        axis.set(title=f"{name}: {share:.0%} is padding", xlabel="places of an item")
    axes[0].set(ylabel="items of eight batches", ylim=(len(points), 0))
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    save_figure(figure, cfg.out / "batches")


def read_by_workers(cfg: Config, stream: Lines) -> list[tuple[int, Tensor]]:
    """All that two workers deliver. Without processes, as in a tiny run, copies play them."""
    if cfg.workers:
        return list(DataLoader(stream, batch_size=None, num_workers=2, timeout=60))
    if stream.shared:
        return [*stream.part(0, 2), *stream.part(1, 2)]
    return [*stream, *stream]


def steps_by_workers(cfg: Config, moved: Moved, still: InkPoints) -> Tensor:
    """How two workers moved 16 items, the first eight and the others: (16, 2), four decimals."""
    if cfg.workers:
        batches = DataLoader(moved, 8, num_workers=2, collate_fn=pad, timeout=60)
    else:
        batches = list(load(copy.deepcopy(moved), range(8), 8, pad))
        batches += load(copy.deepcopy(moved), range(8, 16), 8, pad)
    after = torch.cat([points[:, 0, :2] for points, _, _ in batches])
    before = torch.stack([still[index][0][0, :2] for index in range(16)])
    return (after - before).round(decimals=4)


def run(cfg: Config) -> dict:
    data = load_images(cfg)
    dataset = InkPoints(torch.from_numpy(data.x_train), torch.from_numpy(data.y_train))
    show_batches(cfg, dataset)
    show_order(cfg, dataset)
    draw_batches(cfg, show_buckets(cfg, dataset))
    return {"arrived": show_workers(cfg, dataset), **show_rates(cfg, dataset)}


if __name__ == "__main__":
    main(run, Config, __doc__)
