"""Lesson 3.11: what its functions promise beyond what the lesson itself claims."""

import numpy as np
import pytest

from common.lessons import load_lesson

lesson = load_lesson("phase03_pytorch/11-tensorboard")


def record(payload: bytes) -> bytes:
    length = len(payload).to_bytes(8, "little")
    return length + lesson.seal(length) + payload + lesson.seal(payload)


def test_a_bare_checksum_behind_its_text_hides_the_text_and_a_seal_does_not() -> None:
    texts = [np.random.default_rng(0).bytes(length) for length in range(40)]
    bare = {lesson.crc32c(text + lesson.crc32c(text).to_bytes(4, "little")) for text in texts}
    sealed = {lesson.crc32c(text + lesson.seal(text)) for text in texts}
    assert (len(bare), len(sealed)) == (1, 40)


def test_every_single_altered_bit_is_noticed() -> None:
    whole = record(b"loss")
    for bit in range(8 * len(whole)):
        altered = int.from_bytes(whole, "little") ^ 1 << bit
        assert lesson.read_records(altered.to_bytes(len(whole), "little")) == ([], 0)


def test_an_empty_payload_is_a_record() -> None:
    content = record(b"") + record(b"x")
    assert lesson.read_records(content) == ([b"", b"x"], 33)
    assert lesson.read_records(b"") == ([], 0)


def test_the_edges_are_those_that_torch_counts_with(tmp_path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path) as writer:
        assert lesson.bucket_edges().tolist() == writer.default_bins


@pytest.mark.parametrize("value", [0.5, -0.5, 1e-13, 0.0])
def test_one_value_makes_an_empty_bucket_and_a_full_one(value: float) -> None:
    limits, counts = lesson.bucket_counts(np.array([value]))
    assert counts.tolist() == [0, 1]
    assert limits[0] <= value < limits[1]


def test_a_bucket_tells_a_size_to_a_tenth() -> None:
    sizes = np.sort(np.abs(np.random.default_rng(0).normal(size=10_000)))
    limits, counts = lesson.bucket_counts(sizes)
    told = limits[np.searchsorted(np.cumsum(counts), np.arange(1, 10_001))]
    assert 1 < (told / sizes).min() < (told / sizes).max() < 1.1 + 1e-9
