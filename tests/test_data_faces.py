"""Faces: the recipe is kept, labels are true, and real pictures are read from anywhere."""

import io
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier

from common import record
from common.config import LessonConfig
from common.data import faces, sources
from common.data.sources import Part, Source
from common.errors import LessonError

DRAWN = faces.draw(1200, 7)
N = len(DRAWN)


@pytest.fixture(autouse=True)
def empty_machine(no_data):
    record.start(tiny=False)


def one(n: int = 6, **changes) -> tuple[np.ndarray, np.ndarray]:
    """The same n faces twice, the second time with some parameters changed; as pictures."""
    found = []
    for change in ({}, changes):
        rng = np.random.default_rng(5)
        person, shot = faces._person(n, rng), faces._shot(n, rng)
        for name, value in change.items():
            part = person if name in person else shot
            part[name] = np.full_like(part[name], value)
        found.append(faces._picture(person, shot, np.random.default_rng(1)).x.astype(int))
    return found[0], found[1]


# ---- the recipe


def test_shapes_types_and_values() -> None:
    assert DRAWN.x.shape == (N, 32, 32, 3) and DRAWN.x.dtype == np.uint8
    assert DRAWN.labels.shape == (N, 4) and DRAWN.labels.dtype == np.int64
    pictures = DRAWN.pictures()
    assert pictures.shape == (N, 3, 32, 32)
    assert -1 <= pictures.min() < -0.8 and 0.9 < pictures.max() <= 1
    assert pictures[3, 2, 4, 5] == DRAWN.x[3, 4, 5, 2] / 127.5 - 1


def test_more_faces_begin_with_the_same_and_another_seed_draws_others() -> None:
    fewer = faces.draw(130, 7)
    assert np.array_equal(fewer.x, DRAWN.x[:130])
    assert np.array_equal(fewer.labels, DRAWN.labels[:130])
    assert not np.array_equal(faces.draw(10, 8).x, DRAWN.x[:10])
    assert len(np.unique(DRAWN.x.reshape(N, -1), axis=0)) == N


def test_labels_are_equally_frequent_and_say_nothing_of_each_other() -> None:
    for column, names in zip(DRAWN.labels.T, faces.LABELS.values()):
        counts = np.bincount(column, minlength=len(names))
        assert len(counts) == len(names) and counts.min() > 0.8 * N / len(names)
    correlations = np.corrcoef(DRAWN.labels.T) - np.eye(4)
    assert np.abs(correlations).max() < 4 / N**0.5
    modes = np.bincount(faces.mode_of(DRAWN.labels), minlength=faces.MODES)
    assert len(modes) == faces.MODES and modes.min() > 10


@pytest.mark.parametrize(
    "off, on, rows",
    [
        ({"glasses": 0}, {"glasses": 1}, slice(10, 20)),
        ({"smile": 0, "bend": -0.005}, {"smile": 1, "bend": 0.115}, slice(18, 26)),
    ],
)
def test_a_label_shows_where_it_should_and_nowhere_else(off, on, rows) -> None:
    without, worn = (one(**changes)[1] for changes in (off, on))
    changed = np.abs(worn - without).max(axis=3)  # (n, 32, 32)
    assert (changed[:, rows].max(axis=(1, 2)) > 40).all()
    outside = np.delete(changed, np.r_[rows.start - 2 : rows.stop + 2], axis=1)
    assert outside.max() <= 1


def test_long_hair_covers_more_and_has_its_colour() -> None:
    short, long = (one(hair=value)[1] for value in (0, 1))
    beside = np.abs(long - short).max(axis=3)[:, 18:24]
    assert (beside[:, :, :8].max(axis=(1, 2)) > 40).all()
    crown = DRAWN.x[:, 2:6, 13:19].mean(axis=(1, 2))
    for number, colour in enumerate(faces.HAIR):
        seen = np.median(crown[DRAWN.labels[:, 3] == number], axis=0)
        distances = np.linalg.norm(seen - faces.HAIR, axis=1)
        assert distances.argmin() == number, (colour, seen)


def test_the_head_lies_in_the_picture_and_outlines_are_smooth() -> None:
    without_noise, _ = one(40)
    border = without_noise[:, :6, [0, 1, 30, 31]]
    assert border.std(axis=(1, 2)).max() < 25  # ground, no hair
    # a step between two neighbours is seldom that of a hard edge
    steps = np.abs(np.diff(without_noise, axis=2)).max(axis=3)
    assert (steps > 150).mean() < 0.03


def test_people_keep_what_is_theirs() -> None:
    shots, who = faces.people(12, 5, 3)
    assert who.tolist() == [number for number in range(12) for _ in range(5)]
    assert len(np.unique(shots.x.reshape(60, -1), axis=0)) == 60
    by_person = shots.labels.reshape(12, 5, 4)
    assert (by_person[:, :, 2:] == by_person[:, :1, 2:]).all()
    assert (by_person[:, :, :2] != by_person[:, :1, :2]).any()


def test_the_labels_are_no_gift() -> None:
    new = faces.draw(300, 8)
    rows, new_rows = (part.x.reshape(len(part), -1).astype(np.float32) for part in (DRAWN, new))
    modes, wanted = faces.mode_of(DRAWN.labels), faces.mode_of(new.labels)
    majority = (wanted == np.bincount(modes).argmax()).mean()
    nearest = KNeighborsClassifier(1).fit(rows, modes).score(new_rows, wanted)
    assert majority < 0.08 and 0.15 < nearest < 0.5

    mean = rows.mean(axis=0)
    answers = np.concatenate(
        [np.eye(len(n))[column] for column, n in zip(DRAWN.labels.T, faces.LABELS.values())], axis=1
    )
    gram = (rows - mean) @ (rows - mean).T + 5e6 * np.eye(N)
    weights = np.linalg.solve(gram, answers - answers.mean(axis=0))
    said = (new_rows - mean) @ (rows - mean).T @ weights + answers.mean(axis=0)
    bounds = np.cumsum([len(names) for names in faces.LABELS.values()])[:-1]
    read = np.stack([part.argmax(axis=1) for part in np.split(said, bounds, axis=1)], axis=1)
    assert 0.5 < (read == new.labels).all(axis=1).mean() < 0.9


# ---- sets


def test_the_drawn_set_has_three_parts_and_counts_readings(capsys) -> None:
    found = faces.load_faces(LessonConfig(), "generated", 30, 20, seed=2)
    assert [len(found.train), len(found.val), len(found.test())] == [30, 20, 20]
    assert record.current().test_reads == 1
    rows = np.concatenate(found.fingerprints())
    assert rows.shape == (70, 3072) and len(np.unique(rows, axis=0)) == 70
    assert "70 faces drawn with seed 2" in capsys.readouterr().out
    tiny = faces.load_faces(LessonConfig(tiny=True), "generated", 3000, 500)
    assert (len(tiny.train), len(tiny.val)) == faces.TINY


def write(folder: Path, n: int, side: int = 40) -> np.ndarray:
    folder.mkdir(exist_ok=True)
    drawn = faces.draw(n, 11).x
    for number, picture in enumerate(drawn):
        Image.fromarray(picture).resize((side, side)).save(folder / f"{number:03}.png")
    return drawn


def test_a_folder_is_split_without_doubles(tmp_path, capsys) -> None:
    write(tmp_path / "a", 50)
    write(tmp_path / "a" / "again", 5)
    found = faces.load_faces(LessonConfig(), str(tmp_path / "a"), 100, 12)
    parts = [*found.fingerprints()]
    assert [len(part) for part in parts] == [26, 12, 12] and found.train.labels is None
    assert len(np.unique(np.concatenate(parts), axis=0)) == 50
    said = capsys.readouterr().out
    assert "left out: 5 pictures that are there twice" in said and "55 pictures of" in said


@pytest.mark.parametrize(
    "name, words",
    [("nowhere", "no data set and no folder"), ("few", "takes 80 or more"), ("none", "holds no")],
)
def test_names_and_folders_that_will_not_do(tmp_path, name, words) -> None:
    write(tmp_path / "few", 30)
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "notes.txt").write_text("no picture")
    with pytest.raises(LessonError, match=words) as caught:
        faces.load_faces(LessonConfig(), str(tmp_path / name), 100, 20)
    assert "\n" not in str(caught.value)


def test_broken_files_are_counted_and_the_first_is_named(tmp_path, capsys) -> None:
    write(tmp_path / "a", 3)
    whole = (tmp_path / "a" / "001.png").read_bytes()
    for name, content in {"b.jpg": b"", "a.png": whole[:200], "c.gif": b"GIF89a"}.items():
        (tmp_path / "a" / name).write_bytes(content)
    assert faces.read_folder(tmp_path / "a").shape == (3, 32, 32, 3)
    said = capsys.readouterr().out
    assert "left out: 3 of 6 files, first: " in said and "a.png is not a readable" in said


def test_a_picture_is_cut_in_the_middle_and_transparent_is_white() -> None:
    wide = np.zeros((64, 128, 3), np.uint8)
    wide[:, 32:96] = (10, 200, 30)
    assert (faces.squared(Image.fromarray(wide)) == (10, 200, 30)).all()
    assert (faces.squared(Image.fromarray(wide.swapaxes(0, 1))) == (10, 200, 30)).all()
    clear = Image.new("RGBA", (50, 50), (255, 0, 0, 0))
    assert (faces.squared(clear) == 255).all()
    assert faces.squared(Image.new("L", (9, 9), 77)).tolist() == [[[77] * 3] * 32] * 32


# ---- olivetti and celeba, from small files in their owners' formats


@pytest.mark.parametrize("shape", [(112, 92), (64, 64)])
def test_olivetti_from_a_folder(tmp_path, shape) -> None:
    x = np.random.default_rng(0).integers(0, 256, (400, *shape), np.uint8)
    np.savez(tmp_path / "orl_faces.npz", x=x)
    found = faces.load_faces(LessonConfig(data_dir=tmp_path), "olivetti", 360, 20)
    assert [len(part) for part in found.fingerprints()] == [360, 20, 20]
    assert (found.train.x[..., 0] == found.train.x[..., 2]).all()
    np.savez(tmp_path / "orl_faces.npz", x=x[1:])
    with pytest.raises(LessonError, match="is not the olivetti that this course expects"):
        faces.load_faces(LessonConfig(data_dir=tmp_path), "olivetti", 360, 20)


def test_olivetti_is_brought_by_scikit_learn(tmp_path, monkeypatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (400, 64, 64)) / 255
    bunch = SimpleNamespace(images=images.astype(np.float32), target=np.repeat(np.arange(40), 10))
    monkeypatch.setattr("sklearn.datasets.fetch_olivetti_faces", lambda data_home: bunch)
    found = faces.load_faces(LessonConfig(), "olivetti", 360, 20)
    assert len(found.train) == 360
    with np.load(tmp_path / "cache" / "orl_faces.npz") as file:
        assert np.array_equal(file["x"], (images * 255).round()) and file["person"][399] == 39


def test_olivetti_without_a_network(tmp_path, monkeypatch) -> None:
    def fail(data_home):
        raise OSError("no route to host")

    monkeypatch.setattr("sklearn.datasets.fetch_olivetti_faces", fail)
    with pytest.raises(LessonError, match=r"could not be downloaded \(no route") as caught:
        faces.load_faces(LessonConfig(), "olivetti", 360, 20)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "cache" / "orl_faces.npz").exists()


def celeba(n: int) -> bytes:
    """A zip of n photographs, 178 x 218, with a marked face in the middle."""
    content = io.BytesIO()
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(content, "w") as archive:
        for number in range(n):
            picture = np.zeros((218, 178, 3), np.uint8)
            picture[55:183, 25:153] = rng.integers(60, 250, 3)
            jpeg = io.BytesIO()
            Image.fromarray(picture).save(jpeg, "JPEG", quality=95)
            archive.writestr(f"img_align_celeba/{number:06}.jpg", jpeg.getvalue())
    return content.getvalue()


def test_celeba_from_its_archive_and_from_a_download(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(faces, "CELEBA", 60)
    content = celeba(70)
    (tmp_path / "own").mkdir()
    archive = tmp_path / "own" / "img_align_celeba.zip"
    archive.write_bytes(content)
    found = faces.load_faces(LessonConfig(data_dir=tmp_path / "own"), "celeba", 100, 10)
    assert [len(part) for part in found.fingerprints()] == [40, 10, 10]
    assert found.train.x.min() > 40  # nothing of what is around the face

    digest = "sha256:" + sources.hashlib.sha256(content).hexdigest()
    part = Part(archive.name, digest, len(content), (archive.as_uri(),))
    source = Source("celeba", "celeba.npz", (part,), faces._convert_celeba, "")
    monkeypatch.setattr(faces, "CELEBA_SOURCE", source)
    again = faces.load_faces(LessonConfig(), "celeba", 100, 10)
    assert np.array_equal(again.train.x, found.train.x)
    assert (tmp_path / "cache" / "celeba.npz").exists()


def test_a_damaged_archive(tmp_path) -> None:
    (tmp_path / "img_align_celeba.zip").write_bytes(celeba(3)[:-50])
    with pytest.raises(LessonError, match="is not the celeba") as caught:
        faces.load_faces(LessonConfig(data_dir=tmp_path), "celeba", 100, 10)
    assert "\n" not in str(caught.value)
