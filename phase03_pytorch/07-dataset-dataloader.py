"""3.7 Dataset and DataLoader: from single items to batches, in an order you choose
Dataset 与 DataLoader：从单个样本到批，顺序由你定

You will be able to answer
    1. What must a dataset offer, and what does the loader do with it?   show_items     item, same-batches
    2. Who decides which item comes next?                                show_order     once, same-seed, weighted
    3. How do items of different length become one tensor?               show_ragged    padded, mean, buckets, padding
    4. What if the data only comes as a stream?                          show_stream    streamed, repeated
    5. Why may random numbers repeat when workers load the data?         show_seeds     trap, cured
    6. What does an item cost, and do workers help?                      show_rates     same-epoch, ended, rate
Run       python phase03_pytorch/07-dataset-dataloader.py                  about 10 s
Needs     -
Reference RandomSampler, WeightedRandomSampler, pad_sequence, DataLoader
Notation  B batch  T points of the longest item  D numbers a point (row, column, ink)  W workers
"""

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor, multiprocessing
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    TensorDataset,
    default_collate,
    get_worker_info,
)

from common.checks import check, check_close, timed
from common.config import LessonConfig, main, param
from common.data.batches import Batches
from common.data.images import load_images
from common.figures import new_figure, save_figure


@dataclass
class Config(LessonConfig):
    data: str = param("digits", "data set", choices=("digits",))
    batch_size: int = param(32, "items in a batch", low=2)
    workers: int = param(2, "real worker processes, 0 for none", tiny=0, low=0)
    repeats: int = param(5, "how often the rates are measured", tiny=1)


class InkPoints(Dataset):
    """Map-style: a length, and an item for every index. Item i: the inked pixels of digit i, (n_i, D) in 0…1, and
    its class. Digits differ in n_i. With an `rng` each is shifted at random when it is asked for."""

    def __init__(self, pictures: Tensor, classes: Tensor, rng: np.random.Generator | None = None):
        self.pictures, self.classes, self.rng = pictures, classes, rng

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        picture = self.pictures[index]
        points = torch.cat([picture.nonzero() / 7, picture[picture > 0, None] / 16], dim=1)
        if self.rng:
            points[:, :2] += torch.tensor(self.rng.normal(0, 0.1, 2))
        return points, self.classes[index]


class Lines(IterableDataset):
    """Iterable: no length, no index, only “next”. A file read line by line; item: line number, its numbers."""

    def __init__(self, path: str, shared_out: bool = True):
        self.path, self.shared_out = path, shared_out

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        info = get_worker_info()  # None in the main process
        return self.share(info.id, info.num_workers) if info else self.share(0, 1)

    def share(self, worker: int, workers: int) -> Iterator[tuple[int, Tensor]]:
        """What worker number `worker` of `workers` reads: its own lines, or all of them if nothing is shared out."""
        with open(self.path, encoding="ascii") as file:
            # practice: every line to exactly one worker
            # hint: deal the lines out like cards; skip those of others before parsing, which is what costs
            # hint: for number, line in enumerate(file): if number % workers == worker or not self.shared_out: …
            for number, line in enumerate(file):
                if number % workers == worker or not self.shared_out:
                    yield number, torch.tensor([int(text) for text in line.split(",")])
            # end practice


def pad(items: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """Collate for ragged items: points (B, T, D), True where a point is real (B, T), classes (B,)."""
    # practice: one box for items of different length
    # hint: as long as the longest; zeros where an item has ended, and a mask that remembers where
    # hint: longest = max(len(points) for points, _ in items)
    longest = max(len(points) for points, _ in items)
    padded = torch.zeros(len(items), longest, 3)
    real = torch.zeros(len(items), longest, dtype=torch.bool)
    for row, (points, _) in enumerate(items):
        padded[row, : len(points)] = points
        real[row, : len(points)] = True
    # end practice
    return padded, real, torch.stack([label for _, label in items])


def weighted(weights: Tensor, draws: int, generator: Generator) -> list[int]:
    """Index i with probability w_i / Σw at each draw, with replacement: an item may come twice, or never."""
    # practice: a random point on a ruler whose sections are as long as the weights
    # hint: sections end at the running sums of the weights; torch.searchsorted says in which section a point lies
    # hint: ends = weights.double().cumsum(dim=0); points uniform between 0 and the last of them
    ends = weights.double().cumsum(dim=0)
    points = torch.rand(draws, generator=generator, dtype=torch.float64) * ends[-1]
    picks = torch.searchsorted(ends, points)
    # end practice
    return picks.tolist()


def buckets(
    lengths: Sequence[int], batch_size: int, generator: Generator, pool: int = 8
) -> list[list[int]]:
    """Batches of items of similar length. Sorting all of them would give the same batches every epoch, so: shuffle,
    sort within pools of `pool` batches, cut, and hand out the batches in random order."""
    # practice: order enough to save padding, chance enough to learn
    # hint: sorted(chunk, key=lengths.__getitem__) sorts indices by the length of their item; BatchSampler cuts
    # hint: order, batches = torch.randperm(len(lengths), generator=generator).tolist(), []
    order, batches = torch.randperm(len(lengths), generator=generator).tolist(), []
    for start in range(0, len(order), pool * batch_size):
        chunk = order[start : start + pool * batch_size]
        batches += BatchSampler(sorted(chunk, key=lengths.__getitem__), batch_size, drop_last=False)
    order = torch.randperm(len(batches), generator=generator)
    # end practice
    return [batches[number] for number in order]


def own_rng(worker: int) -> None:
    """worker_init_fn, called in each worker as it starts: torch gives it another seed there, and in every epoch."""
    get_worker_info().dataset.rng = np.random.default_rng(get_worker_info().seed)


def show_items(cfg: Config, dataset: InkPoints) -> None:
    print(
        "\n[1] A dataset answers len() and [i]; a sampler says which i; collate makes a batch of the answers"
    )
    points, label = dataset[0]
    print(
        f"  {len(dataset)} items; item 0 is a {label} of {len(points)} points, the first {points[0].tolist()}"
    )
    check_close(
        "item",
        "an item lists the inked pixels, row by row",
        points,
        torch.tensor(
            [
                [place // 8 / 7, place % 8 / 7, ink / 16]
                for place, ink in enumerate(dataset.pictures[0].flatten())
                if ink
            ]
        ),
    )
    pictures = TensorDataset(dataset.pictures, dataset.classes)
    ours = [
        default_collate([pictures[index] for index in indices])
        for indices in BatchSampler(range(len(dataset)), cfg.batch_size, drop_last=False)
    ]
    theirs = DataLoader(pictures, cfg.batch_size, num_workers=cfg.workers)
    check(
        "same-batches",
        f"{len(ours)} batches are DataLoader's with {cfg.workers} workers, in the same order",
        all(torch.equal(a, b) for two in zip(ours, theirs, strict=True) for a, b in zip(*two)),
    )


def show_order(cfg: Config, dataset: InkPoints) -> None:
    print("\n[2] A sampler is nothing but a stream of indices")
    order, again, theirs = (Generator().manual_seed(cfg.seed) for _ in range(3))
    epochs = [torch.randperm(len(dataset), generator=order).tolist() for _ in range(2)]
    check(
        "once",
        "every item comes once an epoch",
        all(sorted(e) == list(range(len(dataset))) for e in epochs),
    )
    check(
        "same-seed",
        "another order each epoch, the same two from the same seed; the first is RandomSampler's too",
        epochs == [torch.randperm(len(dataset), generator=again).tolist() for _ in range(2)]
        and epochs[1] != epochs[0] == list(RandomSampler(dataset, generator=theirs)),
    )
    classes = torch.cat(
        [dataset.classes[dataset.classes != 8], torch.full((4,), 8)]
    )  # only four eights are left
    picks = weighted(
        1 / classes.bincount()[classes], 10_000, order
    )  # weight: 1 / size of its class
    share = classes[picks].bincount(minlength=10) / 10_000
    print(f"  4 of {len(classes)} items are eights, and {share[8]:.1%} of 10,000 weighted draws")
    check(
        "weighted",
        "all ten classes are equally frequent; the farthest, in standard errors √(p(1-p)/n)",
        (share - 0.1).abs().max() / (0.1 * 0.9 / 10_000) ** 0.5,
        below=4,
    )


def show_ragged(cfg: Config, dataset: InkPoints) -> None:
    print("\n[3] Ragged items: fill up with zeros, and remember where")
    items = [dataset[i] for i in range(cfg.batch_size)]
    padded, real, _ = pad(items)
    check_close(
        "padded",
        f"{tuple(padded.shape)} numbers equal to torch's pad_sequence",
        padded,
        torch.nn.utils.rnn.pad_sequence([points for points, _ in items], batch_first=True),
    )
    alone = torch.stack([points.double().mean(dim=0) for points, _ in items])
    print(
        f"  mean ink of item 0 with its padding counted: {padded[0, :, 2].mean():.3f} instead of {alone[0, 2]:.3f}"
    )
    check_close(
        "mean",
        "a mean over real points only is what each item has alone",
        (padded.double() * real[..., None]).sum(dim=1) / real.sum(dim=1, keepdim=True),
        alone,
    )
    lengths, order = (
        dataset.pictures.flatten(1).count_nonzero(dim=1).tolist(),
        Generator().manual_seed(cfg.seed),
    )
    first, second = (buckets(lengths, cfg.batch_size, order) for _ in range(2))
    check(
        "buckets",
        "by length: every item comes once, and the next epoch has other batches",
        sorted(sum(first, [])) == sorted(sum(second, [])) == list(range(len(lengths)))
        and not {*map(str, first)} & {*map(str, second)},
    )
    orders = {
        "random order": torch.randperm(len(lengths), generator=order).split(cfg.batch_size),
        "buckets": first,
    }
    epochs = {
        name: [[lengths[i] for i in batch] for batch in batches] for name, batches in orders.items()
    }
    shares = [
        1 - sum(map(sum, epoch)) / sum(len(b) * max(b) for b in epoch) for epoch in epochs.values()
    ]
    check(
        "padding",
        f"padding: {shares[0]:.1%} of a random epoch, {shares[1]:.1%} of one by length; the ratio",
        shares[1] / shares[0],
        below=0.5,
    )
    figure, axes = new_figure(1, 2, size=(12, 5))
    for axis, (name, batches), share in zip(axes, epochs.items(), shares):
        rows = [
            [2] * n + [1] * (max(batch) - n) + [0] * (42 - max(batch))
            for batch in batches[:8]
            for n in batch
        ]
        axis.pcolorfast(
            np.array([(255, 255, 255), (230, 159, 0), (0, 114, 178)], np.uint8)[rows], zorder=2
        )
        axis.set(
            title=f"{name}: {share:.0%} is padding",
            xlabel="points (padding orange)",
            ylabel="items of 8 batches",
        )
    save_figure(figure, cfg.out / "batches")


def show_stream(cfg: Config, dataset: InkPoints) -> None:
    print(
        "\n[4] Nobody can tell the workers of a stream who reads what: they must share it out themselves"
    )
    path, workers, counts = str(cfg.out / "digits.csv"), cfg.workers or 3, {}
    np.savetxt(
        path,
        table := torch.column_stack([dataset.pictures.flatten(1), dataset.classes]),
        "%d",
        delimiter=",",
    )
    for shared_out in (True, False):
        stream = Lines(path, shared_out)
        items = [item for worker in range(workers) for item in stream.share(worker, workers)]
        if cfg.workers:  # the same, by real processes
            items = list(DataLoader(stream, None, num_workers=workers, timeout=60))
        print(
            f"  {workers} workers, {'shared out' if shared_out else 'not shared out'}: {len(items)} items arrive"
        )
        counts[shared_out] = np.bincount([number for number, _ in items], minlength=len(table))
        same = all(torch.equal(values, table[number]) for number, values in items)
    check(
        "streamed",
        "shared out: every line once, and it holds its digit",
        same and (counts[True] == 1).all(),
    )
    check(
        "repeated",
        f"else every item comes {workers} times, without a warning",
        (counts[False] == workers).all(),
    )


def show_seeds(cfg: Config, dataset: InkPoints) -> None:
    print(
        "\n[5] Each worker gets a copy of the dataset, and copies of one generator draw the same numbers"
    )
    items, shifts = (
        InkPoints(dataset.pictures[:16], dataset.classes[:16], np.random.default_rng(cfg.seed)),
        [],
    )
    for start, epoch in ((None, 0), (None, 1), (own_rng, 0), (own_rng, 1)):
        copies = [copy.deepcopy(items) for _ in range(2)]  # what two workers hold
        for worker in range(2 if start else 0):
            copies[worker].rng = np.random.default_rng([cfg.seed, epoch, worker])
        batches = [pad([copies[worker][8 * worker + i] for i in range(8)]) for worker in range(2)]
        if cfg.workers:  # the same, by real processes
            batches = DataLoader(
                items, 8, num_workers=2, collate_fn=pad, worker_init_fn=start, timeout=60
            )
        moved = torch.cat(
            [points[:, 0, :2] for points, _, _ in batches]
        )  # the first point of each item
        shifts.append(moved - torch.stack([dataset[i][0][0, :2] for i in range(16)]))
    copied, own = torch.stack(shifts).mul(1e4).round().view(2, 32, 2)
    print(
        f"  worker 0 moves its first item down by {copied[0, 0] / 1e4:.4f}, worker 1 by {copied[8, 0] / 1e4:.4f}"
    )
    check(
        "trap",
        "copied: both workers draw the same 8 shifts, and again in epoch 2",
        len(copied.unique(dim=0)) == 8,
    )
    check(
        "cured",
        "a generator for each worker and epoch: 32 items, 32 shifts",
        len(own.unique(dim=0)) == 32,
    )


def show_rates(cfg: Config, dataset: InkPoints) -> dict[str, float]:
    print("\n[6] What fits into memory is cut there; one call for each item has its price")
    pictures, options = (
        TensorDataset(dataset.pictures, dataset.classes),
        {"batch_size": cfg.batch_size},
    )
    loaders = {
        "in memory": Batches(*pictures.tensors, **options),
        "by item": DataLoader(pictures, **options),
        "by item, ragged": DataLoader(dataset, collate_fn=pad, **options),
        f"ragged, {cfg.workers} workers": DataLoader(
            dataset, collate_fn=pad, num_workers=cfg.workers, **options
        ),
    }
    seconds = {name: [] for name in loaders}
    for name in [*loaders] * (1 + cfg.repeats):  # in turn; the first round warms up
        begin = time.perf_counter()
        list(loaders[name])
        seconds[name].append(time.perf_counter() - begin)
    rates = {name: len(dataset) / np.median(values[1:]) for name, values in seconds.items()}
    print("\n".join(f"  {name:<20}{rate:>11,.0f} items a second" for name, rate in rates.items()))
    memory, items = loaders["in memory"], loaders["by item"]
    check_close(
        "same-epoch",
        "both give the same",
        *(torch.cat([x for x, _ in loader]) for loader in (memory, items)),
    )
    check("ended", "no worker process is left behind", not multiprocessing.active_children())
    speedup = timed(
        "rate", "in memory against by item", lambda: list(items), lambda: list(memory), at_least=5
    )
    return {
        "speedup": speedup,
        "in_memory_throughput": rates["in memory"],
        "by_item_throughput": rates["by item"],
    }


def run(cfg: Config) -> dict:
    data = load_images(cfg)
    dataset = InkPoints(torch.from_numpy(data.x_train), torch.from_numpy(data.y_train))
    show_items(cfg, dataset)
    show_order(cfg, dataset)
    show_ragged(cfg, dataset)
    show_stream(cfg, dataset)
    show_seeds(cfg, dataset)
    return show_rates(cfg, dataset)


if __name__ == "__main__":
    main(run, Config, __doc__)
