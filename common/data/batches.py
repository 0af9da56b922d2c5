"""Batches of tensors that are already in memory: one indexing per batch instead of one call per sample."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from common.errors import LessonError


class Batches:
    """Iterate over (x, y, …) in batches. Many times faster than a DataLoader where the data fits into memory.

    tensors: all with the same first dimension. `shuffle` draws a new order every epoch from a generator of its own,
    so that other random numbers do not disturb it. `transform(x)` changes a whole batch at once (augmentation).
    state_dict holds the generator: a resumed run sees the same order as an uninterrupted one.
    """

    def __init__(
        self,
        *tensors: Tensor,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        transform: Callable[[Tensor], Tensor] | None = None,
    ):
        if len({len(t) for t in tensors}) != 1:
            raise ValueError(f"tensors of different lengths: {[len(t) for t in tensors]}")
        self.tensors, self.batch_size, self.shuffle, self.drop_last = (
            tensors,
            batch_size,
            shuffle,
            drop_last,
        )
        self.transform, self.generator = transform, torch.Generator().manual_seed(seed)
        if len(self) == 0:
            raise LessonError(
                f"{len(tensors[0])} samples do not fill one batch of {batch_size}. "
                "Give a smaller --batch-size."
            )

    def __len__(self) -> int:
        samples = len(self.tensors[0])
        return samples // self.batch_size if self.drop_last else -(-samples // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        samples, device = len(self.tensors[0]), self.tensors[0].device
        order = (
            torch.randperm(samples, generator=self.generator).to(device) if self.shuffle else None
        )
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            stop = min(start + self.batch_size, samples)
            pick = order[start:stop] if self.shuffle else slice(start, stop)
            first, *rest = (t[pick] for t in self.tensors)
            yield (self.transform(first) if self.transform else first, *rest)

    def state_dict(self) -> dict[str, Tensor]:
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.generator.set_state(state["generator"])
