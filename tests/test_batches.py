"""In-memory batches: every sample once, in an order that comes back, and fast."""

import time

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from common.data.batches import Batches
from common.errors import LessonError


def order(batches: Batches) -> list[int]:
    return [int(i) for (x,) in batches for i in x]


@pytest.mark.parametrize(
    "n, size, drop_last, lengths",
    [
        (10, 4, False, [4, 4, 2]),
        (10, 4, True, [4, 4]),
        (8, 4, False, [4, 4]),
        (8, 4, True, [4, 4]),
        (3, 9, False, [3]),
    ],
)
def test_lengths(n, size, drop_last, lengths):
    batches = Batches(torch.arange(n), batch_size=size, drop_last=drop_last, shuffle=True)
    assert [len(x) for (x,) in batches] == lengths and len(batches) == len(lengths)


def test_every_sample_once_an_epoch_in_an_order_that_the_seed_gives():
    batches, again, other = (
        Batches(torch.arange(50), batch_size=8, shuffle=True, seed=seed) for seed in (1, 1, 2)
    )
    epochs = [order(batches) for _ in range(3)]
    assert (
        all(sorted(epoch) == list(range(50)) for epoch in epochs)
        and len({tuple(epoch) for epoch in epochs}) == 3
    )
    torch.manual_seed(99)  # other random numbers do not disturb it
    assert [order(again) for _ in range(3)] == epochs and order(other) != epochs[0]
    assert order(Batches(torch.arange(50), batch_size=8)) == list(range(50))


def test_a_resumed_run_sees_the_same_order(tmp_path):
    first = Batches(torch.arange(50), batch_size=8, shuffle=True, seed=1)
    order(first)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    rest = [order(first) for _ in range(2)]
    second = Batches(torch.arange(50), batch_size=8, shuffle=True, seed=7)
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert [order(second) for _ in range(2)] == rest


@pytest.mark.parametrize("shuffle", [True, False])
def test_columns_stay_together_and_only_the_first_is_transformed(shuffle):
    n = torch.arange(30)
    for x, y, z in Batches(
        n, n * 2, n * 3, batch_size=8, shuffle=shuffle, transform=lambda x: x + 100
    ):
        assert torch.equal(y, (x - 100) * 2) and torch.equal(z, (x - 100) * 3)
    assert torch.equal(n, torch.arange(30))


def test_mistakes():
    with pytest.raises(ValueError, match=r"different lengths: \[3, 4\]"):
        Batches(torch.zeros(3), torch.zeros(4), batch_size=2)
    with pytest.raises(
        LessonError, match=r"10 samples do not fill one batch of 64. Give a smaller --batch-size"
    ):
        Batches(torch.zeros(10), batch_size=64, drop_last=True)
    with pytest.raises(LessonError, match="0 samples"):
        Batches(torch.zeros(0), batch_size=64)


class PilPictures(Dataset):
    """What a beginner writes: an array, a PIL picture and transforms for each sample."""

    def __init__(self, x: np.ndarray, y: np.ndarray):
        self.x, self.y = x, y
        self.transform = v2.Compose(
            [
                v2.RandomHorizontalFlip(),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize([0.5] * 3, [0.25] * 3),
            ]
        )

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int):
        return self.transform(Image.fromarray(self.x[index])), self.y[index]


def flip_and_scale(x: torch.Tensor) -> torch.Tensor:
    """The same for a whole batch, (B, 3, 32, 32) uint8."""
    flipped = torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(3), x)
    return flipped.float().mul_(1 / 255 / 0.25).sub_(2.0)


def samples_per_second(loader, n: int) -> float:
    start = time.process_time()  # a busy neighbour takes wall time, not this
    for _ in loader:
        pass
    return n / (time.process_time() - start)


def speed_ratio(n: int) -> float:
    """How many times faster than a DataLoader over PIL pictures, on one core, side by side."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, n)
    slow = DataLoader(PilPictures(x, y), batch_size=128, shuffle=True)
    fast = Batches(
        torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(),
        torch.from_numpy(y),
        batch_size=128,
        shuffle=True,
        transform=flip_and_scale,
    )
    samples_per_second(fast, n)  # warm
    return max(samples_per_second(fast, n) for _ in range(3)) / samples_per_second(slow, n)


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_at_least_15_times_as_fast_as_a_loader_of_pil_pictures(one_thread):
    assert any(speed_ratio(1500) >= 15 for _ in range(3))  # 20 to 30 on a quiet machine
