"""Iris from its package; Titanic from a small file in its format."""

import hashlib
import os
from pathlib import Path

import pytest

from common import record
from common.config import LessonConfig
from common.data import sources, tables
from common.data.sources import Part, Source
from common.data.tables import (
    IRIS_COLUMNS,
    TITANIC_COLUMNS,
    TITANIC_SOURCE,
    load_iris,
    load_titanic,
)
from common.errors import LessonError

REAL = os.environ.get("COURSE_DATA")
ROWS = [
    f'{n},{n % 2},{n % 3 + 1},"Doe, Mr. {n}",male,{"" if n % 5 else 22},1,0,A/5 {n},7.25,,S'
    for n in range(1, 892)
]


def csv(header=TITANIC_COLUMNS, rows=ROWS) -> bytes:
    return "\n".join([",".join(header), *rows, ""]).encode()


@pytest.fixture
def cached(tmp_path, monkeypatch) -> Path:
    """A published file, not yet downloaded; gives the place it will have in the cache."""
    monkeypatch.delenv("COURSE_DATA", raising=False)
    monkeypatch.delenv("COURSE_MIRROR", raising=False)
    monkeypatch.setattr(sources, "cache_dir", lambda: tmp_path / "cache")
    published = tmp_path / "titanic.csv"
    published.write_bytes(csv())
    part = Part(
        "titanic.csv",
        f"sha256:{hashlib.sha256(csv()).hexdigest()}",
        len(csv()),
        (published.as_uri(),),
    )
    small = Source("titanic", TITANIC_SOURCE.file, (part,), TITANIC_SOURCE.convert, "")
    monkeypatch.setattr(tables, "TITANIC_SOURCE", small)
    record.start(tiny=False)
    return tmp_path / "cache" / "tabular" / "titanic.csv"


def test_downloaded_kept_as_it_is_and_read(cached, capsys):
    frame = load_titanic(LessonConfig())
    assert (
        frame.shape == (891, 12)
        and tuple(frame.columns) == TITANIC_COLUMNS
        and cached.read_bytes() == csv()
    )
    assert frame["Name"][0] == "Doe, Mr. 1" and frame["Age"].isna().sum() == 713
    assert f"data: titanic ({cached})" in capsys.readouterr().out
    assert len(load_titanic(LessonConfig(tiny=True))) == 200


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "No columns"),
        (csv()[:20_000], "rows of PassengerId"),
        (csv(rows=ROWS[1:]), "890 rows"),
        (csv(header=[c.lower() for c in TITANIC_COLUMNS]), "891 rows of passengerid, survived"),
        (b"<html>\n<p>a, b</p>\n", "rows of <html>"),
        (b'"' * 999, ""),
        (b"\xff\xfe\x00" * 99, ""),
        (b"a\n1,2\n1,2,3\n", "saw 3"),
        (csv(rows=ROWS[1:] + ['891,"1']), ""),
    ],
)
def test_a_damaged_file(cached, content, words):
    load_titanic(LessonConfig())
    cached.write_bytes(content)
    record.start(tiny=False)
    with pytest.raises(LessonError) as caught:
        load_titanic(LessonConfig())
    text = str(caught.value)
    assert words in text and "course data titanic --again" in text and "\n" not in text, text
    assert record.current().data == []


def test_real_titanic_where_COURSE_DATA_holds_it():
    if REAL and (Path(REAL) / TITANIC_SOURCE.file).exists():
        frame = load_titanic(LessonConfig(data_dir=Path(REAL)))
        assert frame["Survived"].sum() == 342 and frame["Age"].isna().sum() == 177


def test_iris_is_what_scikit_learn_loads() -> None:
    from sklearn.datasets import load_iris as reference

    (measures, species), iris = load_iris(), reference()
    assert (measures == iris.data).all() and (species == iris.target_names[iris.target]).all()
    assert [name.replace("_", " ") + " (cm)" for name in IRIS_COLUMNS] == iris.feature_names


@pytest.mark.parametrize(
    "content", ["", "150,4,setosa,versicolor,virginica\n5.1,3.5,1.4,0.2,0\n", "a,b\n" * 151, None]
)
def test_a_damaged_iris_says_how_to_mend_it(content: str | None, tmp_path, monkeypatch) -> None:
    (tmp_path / "datasets" / "data").mkdir(parents=True)
    if content is not None:
        (tmp_path / "datasets" / "data" / "iris.csv").write_text(content)
    package = type("Spec", (), {"origin": str(tmp_path / "__init__.py")})
    monkeypatch.setattr(sources, "find_spec", lambda name: package)
    with pytest.raises(LessonError, match="is damaged .* Install it again"):
        load_iris()


def test_without_scikit_learn_iris_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr(sources, "find_spec", lambda name: None)
    with pytest.raises(LessonError, match="scikit-learn"):
        load_iris()
