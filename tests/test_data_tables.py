"""Iris from its package; Titanic, California and houses in small; CSVs of every kind."""

import hashlib
import os
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from common import record
from common.config import LessonConfig
from common.data import sources, tables
from common.data.anycsv import read_any_csv
from common.data.cells import to_dates, to_numbers
from common.data.houses import HOUSES_COLUMNS, NOISE, generate_houses, load_houses
from common.data.sources import Part, Source
from common.data.tables import (
    CALIFORNIA_COLUMNS,
    CALIFORNIA_SOURCE,
    IRIS_COLUMNS,
    TITANIC_COLUMNS,
    TITANIC_SOURCE,
    load_california,
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


SHORES = ("NEAR BAY", "INLAND", "<1H OCEAN")
DISTRICTS = [
    f"-122.{n % 90},37.{n % 70},{n % 52 + 1}.0,{n + 2}.0,{f'{n // 5 + 1}.0' if n % 100 else ''},"
    f"{n + 3}.0,{n // 4 + 1}.0,{n % 15}.5,{15000 + n}.0,{SHORES[n % 3]}"
    for n in range(20_640)
]


def published(tmp_path, monkeypatch, content: bytes, source: Source, name: str) -> Path:
    """The file is there to be downloaded; gives the place it will have in the cache."""
    monkeypatch.delenv("COURSE_DATA", raising=False)
    monkeypatch.delenv("COURSE_MIRROR", raising=False)
    monkeypatch.setattr(sources, "cache_dir", lambda: tmp_path / "cache")
    file = tmp_path / source.parts[0].file
    file.write_bytes(content)
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    part = Part(file.name, digest, len(content), (file.as_uri(),))
    small = Source(source.name, source.file, (part,), source.convert, "")
    monkeypatch.setattr(tables, name, small)
    record.start(tiny=False)
    return tmp_path / "cache" / source.file


@pytest.fixture
def cached(tmp_path, monkeypatch) -> Path:
    return published(tmp_path, monkeypatch, csv(), TITANIC_SOURCE, "TITANIC_SOURCE")


@pytest.fixture
def districts(tmp_path, monkeypatch) -> Path:
    content = csv(CALIFORNIA_COLUMNS, DISTRICTS)
    return published(tmp_path, monkeypatch, content, CALIFORNIA_SOURCE, "CALIFORNIA_SOURCE")


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
        (csv(rows=[*ROWS[1:], '891,"1']), ""),
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


def test_california_is_downloaded_kept_and_read(districts, capsys) -> None:
    frame = load_california(LessonConfig())
    assert frame.shape == (20_640, 10) and tuple(frame.columns) == CALIFORNIA_COLUMNS
    assert districts.read_bytes() == csv(CALIFORNIA_COLUMNS, DISTRICTS)
    assert frame["total_bedrooms"].isna().sum() == 207
    assert f"data: california ({districts})" in capsys.readouterr().out
    assert len(load_california(LessonConfig(tiny=True))) == 688


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "No columns"),
        (csv(CALIFORNIA_COLUMNS, DISTRICTS[1:]), "20639 rows"),
        (csv(CALIFORNIA_COLUMNS[:9], [row.rpartition(",")[0] for row in DISTRICTS]), "20640 rows"),
        (csv(CALIFORNIA_COLUMNS, DISTRICTS)[:900_000], "rows of longitude"),
        (csv(CALIFORNIA_COLUMNS, [DISTRICTS[0].replace("37.", "x"), *DISTRICTS[1:]]), "numbers"),
        (
            csv(CALIFORNIA_COLUMNS, [DISTRICTS[0].replace("15000.0", ""), *DISTRICTS[1:]]),
            "median_house_value should have no empty cells",
        ),
        (b"\xff\xfe\x00" * 99, ""),
    ],
)
def test_a_damaged_california(districts, content, words) -> None:
    load_california(LessonConfig())
    districts.write_bytes(content)
    record.start(tiny=False)
    with pytest.raises(LessonError) as caught:
        load_california(LessonConfig())
    text = str(caught.value)
    assert words in text and "course data california --again" in text and "\n" not in text, text
    assert record.current().data == []


def test_real_california_where_COURSE_DATA_holds_it() -> None:
    if REAL and (Path(REAL) / CALIFORNIA_SOURCE.file).exists():
        path = Path(REAL) / CALIFORNIA_SOURCE.file
        part = CALIFORNIA_SOURCE.parts[0]
        assert f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}" == part.digest
        assert path.stat().st_size == part.size
        frame = load_california(LessonConfig(data_dir=Path(REAL)))
        assert frame["median_house_value"].max() == 500_001
        assert frame["ocean_proximity"].nunique() == 5


def test_houses_follow_their_recipe_down_to_the_noise() -> None:
    frame, expected = generate_houses(20_000, np.random.default_rng(0))
    assert tuple(frame.columns) == HOUSES_COLUMNS and (frame["price"] > 10_000).all()
    noise = np.log(frame["price"]) - expected
    assert abs(noise.std() / NOISE - 1) < 0.02 and abs(noise.mean()) < 0.003
    assert (frame["garden"].isna() == (frame["kind"] == "flat")).all()
    assert frame.drop(columns="garden").notna().all(axis=None)
    numbers = frame.drop(columns=["kind", "price"]).fillna(0)
    assert (numbers.corrwith(noise).abs() < 0.03).all()

    # one house by hand, in the middle: no term but area, rooms, age, centre, river, station, flat
    flats = frame[(frame["kind"] == "flat") & (frame["rooms"] == 3)].index[0]
    row = frame.loc[flats]
    place = np.array([row["east"], row["north"]])
    by_hand = 8.9 + 0.85 * np.log(row["area"]) - 0.15 * np.log(row["area"] / 66) ** 2
    by_hand += 0.3 * (row["age"] / 60 - 1) ** 2 - 0.15 * row["age"] / 60 + 0.1
    by_hand += 0.5 * np.exp(-(place**2).sum() / 32)
    by_hand += 0.4 * np.exp(-((row["north"] - 3 * np.sin(row["east"] / 4)) ** 2) / 4.5)
    by_hand -= 0.4 * np.exp(-((place - [4, -4]) ** 2).sum() / 4.5)
    assert expected[flats] == pytest.approx(by_hand)


def test_houses_come_in_three_parts_and_the_test_set_is_counted() -> None:
    record.start(tiny=False)
    one = load_houses(LessonConfig(), split_seed=1)
    again = load_houses(LessonConfig(), split_seed=1)
    other = load_houses(LessonConfig(), split_seed=2)
    assert [len(one.train), len(one.val), len(one.fingerprints()[2])] == [4800, 1600, 1600]
    assert one.train.equals(again.train) and not one.train.equals(other.train)
    assert record.current().test_reads == 0
    test = one.test()
    rows = pd.concat([one.train, one.val, test]).index
    assert sorted(rows) == list(range(8000)) and record.current().test_reads == 1
    again.test()
    assert record.current().test_reads == 2


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
    with pytest.raises(LessonError, match=r"is damaged .* Install it again"):
        load_iris()


def test_without_scikit_learn_iris_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr(sources, "find_spec", lambda name: None)
    with pytest.raises(LessonError, match="scikit-learn"):
        load_iris()


def read(tmp_path: Path, content: bytes, **settings):
    """The names, the rows and the remarks."""
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    frame, notes = read_any_csv(path, **settings)
    return list(frame), frame.to_numpy().tolist(), " ".join(notes)


AB = (["a", "b"], [["1", "2"], ["3", "4"]])
READ = {
    "plain": (b"a,b\n1,2\n3,4\n", {}, *AB, ""),
    "no line end": (b"a,b\r\n1,2\r\n3,4", {}, *AB, ""),
    "old line ends": (b"a,b\r1,2\r3,4", {}, *AB, ""),
    "empty row first": (b",,\na,b\n1,2\n3,4\n", {}, *AB, ""),
    "title": (b"Sales of 2024\n\na,b\n1,2\n3,4\n", {}, *AB, "1 line above the names left out"),
    "title of a sheet": (
        b"Title,,\nx,1990,1991\nA,1,2\nB,3,4\n",
        {},
        ["x", "1990", "1991"],
        [["A", "1", "2"], ["B", "3", "4"]],
        "“Title”",
    ),
    "comments": (b"# made, on Monday\n# x\na,b\n1,2\n3,4\n", {}, *AB, "2 lines above the names"),
    "names begin with #": (b"#a,b\n1,2\n", {}, ["#a", "b"], [["1", "2"]], ""),
    "sep=": (b"sep=;\r\na;b\r\n1;2\r\n3;4\r\n", {}, *AB, "names the separator"),
    "quoted sep=": (b'"sep=;"\na;b\n1;2\n3;4\n', {}, *AB, "names the separator"),
    "names with commas": (
        b"Income (EUR, net);Age (y, m);City\n1000;20;A\n2000;30;B\n",
        {},
        ["Income (EUR, net)", "Age (y, m)", "City"],
        [["1000", "20", "A"], ["2000", "30", "B"]],
        "",
    ),
    "decimal commas": (
        b"a;b;c\n1,5;2,5;3,5\n4,5;5,5;6,5\n",
        {},
        ["a", "b", "c"],
        [["1,5", "2,5", "3,5"], ["4,5", "5,5", "6,5"]],
        "",
    ),
    "blanks in quotes": (b'"a", "b"\n"1", 2\n"3" ,"4"\n', {}, *AB, ""),
    "comma in a name": (
        b'age, "score, points", city\n1, 2, x\n',
        {},
        ["age", "score, points", "city"],
        [["1", "2", "x"]],
        "",
    ),
    "aligned": (b"  a    b\n  1    2  \n  3    4\n", {"separator": " "}, *AB, ""),
    "utf-32": ("a,b\n1,2\n3,4\n".encode("utf-32"), {}, *AB, ""),
    "utf-8 with a mark": (b"\xef\xbb\xbfa,b\n1,2\n3,4\n", {"encoding": "utf-8"}, *AB, ""),
    "long rows": (
        b"a,b\n" + b"1,2\n" * 20 + b"1,2,999\n3,4\n",
        {},
        ["a", "b"],
        [["1", "2"]] * 20 + [["3", "4"]],
        "1 row (number 22 of the file) has more cells than there are names, left out.",
    ),
    "short rows": (
        b"a,b\n1,2\n3\n",
        {},
        ["a", "b"],
        [["1", "2"], ["3", None]],
        "1 row (number 3 of the file) has fewer cells than there are names",
    ),
    "empty cells at the end": (b"a,b\n1,2,,\n3,4,,\n", {}, *AB, ""),
    "empty rows": (b"a,b\n1,2\n,\n3,4\n", {}, *AB, "1 row (number 3 of the file) has no content"),
    "numbers for names": (
        b"5.1,3.5\n4.9,3\n",
        {},
        ["5.1", "3.5"],
        [["4.9", "3"]],
        "taken for names",
    ),
    "first rows": (b"a,b\n1,2\n3,4\n5,6\n", {"rows": 2}, *AB, "Only the first 2 rows"),
    "missing words": (
        b"a,b\nNA,1\nNA ,n/a\nx,2\n",
        {},
        ["a", "b"],
        [[None, "1"], [None, None], ["x", "2"]],
        "Counted as missing: “NA” 2 times, “n/a” 1 time.",
    ),
    "kept words": (
        b"a,b\nNA,1\nNA ,n/a\n",
        {"keep_words": ("NA",)},
        ["a", "b"],
        [["NA", "1"], ["NA", None]],
        "“n/a” 1 time.",
    ),
}


@pytest.mark.parametrize("content, settings, names, rows, remark", READ.values(), ids=READ)
def test_any_csv(tmp_path, content, settings, names, rows, remark) -> None:
    """Issue 8, rows 3, 4, 5, 8, 13 and 16."""
    found = read(tmp_path, content, **settings)
    assert found[:2] == (names, rows) and remark in found[2]
    assert remark or not found[2], found[2]


@pytest.mark.parametrize("width", [2, 60])
def test_a_long_row_shifts_nothing_at_any_width(tmp_path, width: int) -> None:
    """Issue 8, row 3: with 60 columns, of which 50 were read, 999 landed in c2."""
    row = ",".join(map(str, range(width)))
    names = ",".join(f"c{i}" for i in range(width))
    content = "\n".join([names, *[row] * 20, "999," * (width + 1) + "999", row]).encode()
    _, rows, remark = read(tmp_path, content)
    assert rows == [[str(i) for i in range(min(width, 50))]] * 21 and "has more cells" in remark


NO_TABLE = {
    "separators alone": (b",,,\n,,,\n", {}, "has no line of names"),
    "a mark alone": (b"\xef\xbb\xbf", {}, "is empty"),
    "a mark alone, utf-32": (b"\xff\xfe\0\0", {}, "is empty"),
    "open quote": (b'"a,b\n1,2\n', {}, "never closed"),
    "open quote below": (b'a,b\n1,"2\n3,4\n', {}, "never closed"),
    "mostly long": (b"a,b\n1,2\n1,2,3\n", {}, "1 rows have more cells"),
    "long separator": (b"a,b\n1,2\n", {"separator": "ab"}, "say --separator"),
    "binary": (b"\x89PNG\r\n\0\0", {}, "is not a text file"),
    "not an encoding": (b"a,b\n1,2\n", {"encoding": "hex"}, "there is no encoding hex"),
}


@pytest.mark.parametrize("content, settings, words", NO_TABLE.values(), ids=NO_TABLE)
def test_no_table_gets_one_sentence(tmp_path, content, settings, words) -> None:
    with pytest.raises(LessonError) as caught:
        read(tmp_path, content, **settings)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes in the file system")
def test_a_pipe_is_read_once(tmp_path) -> None:
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"a,b\n1,2\n",))
    writer.start()
    frame, _ = read_any_csv(pipe)
    writer.join()
    assert frame.to_numpy().tolist() == [["1", "2"]]


@pytest.mark.parametrize(
    "cells, numbers, remark",
    [
        (["1", "2.5", "1e3"], [1, 2.5, 1000], ""),
        (["1,5", "2,25", "3"], [1.5, 2.25, 3], "decimal points"),
        (["$1,200.00", "$950"], [1200, 950], "without its signs $"),
        (["45%", "7%"], [45, 7], "%"),
        (["1.200,50 €", "3,1 €"], [1200.5, 3.1], "decimal points"),
        (["(1,200)", "−5", "1 000"], [-1200, -5, 1000], ""),
        (["1,200", "3,400"], [1200, 3400], "1.2 would fit as well"),
        (["$", "$$", "$5%-$9%"], None, ""),
        (["07001", "10001"], None, "leading zeros"),
        (["4403061990010112345", "1"], None, "16 digits"),
    ],
)
def test_numbers_as_people_write_them(cells, numbers, remark) -> None:
    found, said = to_numbers(pd.Series(cells))
    assert found.dropna().tolist() == (numbers or []) and remark in said


@pytest.mark.parametrize(
    "cells, last, remark",
    [
        (["2024-01-05", "2024-01-06T12:00"], "2024-01-06 12:00", ""),
        (["1/2/2024 10:30", "1/3/2024 22:00"], "2024-01-03 22:00", "would fit as well"),
        (["1/2/2024 1:00 PM", "23/2/2024 12:30 am"], "2024-02-23 00:30", ""),
        (["Jan 5, 2024", "Feb 6, 2024"], "2024-02-06", ""),
        (["5 January 2024", "6 May 2024"], "2024-05-06", ""),
        (["20240105", "20240106"], "2024-01-06", ""),
        (
            ["2024-01-05"] * 9 + ["31/01/2024"],
            "2024-01-31",
            "1 of its dates are written differently",
        ),
        (["1/2/24", "2/3/24"], "2024-02-03", "would fit as well"),
    ],
)
def test_dates_as_people_write_them(cells, last, remark) -> None:
    days, said = to_dates(pd.Series(cells))
    wanted = (pd.Timestamp(last) - pd.Timestamp(0)) / pd.Timedelta(days=1)
    assert days.notna().all() and days.iloc[-1] == pytest.approx(wanted)
    assert remark in said and (remark or not said)


def test_day_first_and_month_first_do_not_mix() -> None:
    """One cell of 1,000 decides; a sample would miss it."""
    cells = ["01/02/2024"] * 999 + ["23/02/2024"]
    days, said = to_dates(pd.Series(cells))
    assert days.iloc[0] == 19754 and days.notna().all() and not said
