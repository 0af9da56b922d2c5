"""The report as its user meets it: tables of every shape, hostile cells, files that are no table, and no leak."""

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from common.config import execute
from common.lessons import load_lesson

project = load_lesson("phase01_data_science/project-eda")
REAL = os.environ.get("COURSE_DATA")
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=http://evil.example/x onerror=alert(1)>',
    "=cmd|' /C calc'!A0",
    "{{ 7 * 7 }}",
    "</td></table><h1>mine</h1>",
    "javascript:alert(1)",
    'src="http://evil.example" url(http://e)',
)


def run(out: Path, *argv: object) -> int:
    return execute(
        project.run, project.Config, project.__doc__, ["--tiny", "--out", str(out), *map(str, argv)]
    )


def report(out: Path) -> str:
    return next(out.glob("report-*.html")).read_text(encoding="utf-8")


def sentence(capsys: pytest.CaptureFixture) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and lines[0].endswith("."), lines
    return lines[0]


def save(path: Path, frame: pd.DataFrame | dict, **options) -> Path:
    pd.DataFrame(frame).to_csv(path, index=False, **options)
    return path


def shape(rows: int = 120) -> dict:
    """Dates, text, holes, names in Chinese, words among numbers, formulas, tags."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=rows)
    days = pd.date_range("2024-01-01", periods=rows)
    return {
        "日期": days.strftime("%Y-%m-%d"),
        "us": days.strftime("%m/%d/%Y"),
        "far": ["9999-12-31", "1700-01-02"] * (rows // 2),
        "$x^$": x.round(3),
        "holes": np.where(rng.random(rows) < 0.3, None, x.round(2)),
        "y": (3 * x + 5).round(3),
        "city": rng.choice(["北京", "上海", *HOSTILE[:2]], rows),
        **{cell: [f"{cell} {i}" for i in range(rows)] for cell in HOSTILE},
        "odd": ["n/v" if i % 40 == 0 else i * 1.5 for i in range(rows)],
        "mixed": [i if i % 2 else f"w{i}" for i in range(rows)],
        "phone": [f"0{13900000 + i}" for i in range(rows)],
        "none": [None] * rows,
        "same": ["a"] * rows,
    }


class Page(HTMLParser):
    """Tags, their attributes, and the visible text, as a browser has them; knows which tags are open."""

    VOID = ("meta", "link", "img", "rect", "line", "circle")

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another tag"

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def examine(text: str) -> Page:
    """The page parses, asks for nothing from outside, runs nothing, and says in words what its pictures show."""
    page = Page(text)
    assert page.open == [] and text.startswith("<!doctype html>")
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "iframe", "object", "embed", "base", "form", "h4"}, names
    for tag, attrs in page.tags:
        assert not [name for name in attrs if name.startswith("on")], (tag, attrs)
        for name in ("src", "href", "srcset", "action"):
            assert attrs.get(name, "#").startswith(("#", "data:")), (tag, attrs)
        if tag == "img":
            assert len(attrs["alt"]) > 20 and attrs["src"].startswith("data:image/png;base64,")
        if tag == "svg":
            assert attrs["role"] == "img" and attrs["aria-label"]
    style = re.search("<style>(.*?)</style>", text, re.DOTALL)[1]
    assert "url(" not in style and "@import" not in style
    links = {attrs["href"][1:] for tag, attrs in page.tags if tag == "a"}
    assert links == {attrs["id"] for _, attrs in page.tags if "id" in attrs} and len(links) == 7
    assert ("html", {"lang": "en"}) in page.tags
    assert any("default-src 'none'" in a.get("content", "") for _, a in page.tags)
    return page


@pytest.fixture(scope="module")
def shaped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run on a table of another shape, without a target."""
    folder = tmp_path_factory.mktemp("shape")
    assert run(folder, "--csv", save(folder / "my <table>.csv", shape())) == 0
    return folder


def test_hostile_cells_are_shown_as_text(shaped: Path) -> None:
    page = examine(report(shaped))
    for cell in HOSTILE:
        assert cell in page.text and f"{cell} 0"[:30] in page.text, cell
    assert "begin like a formula" in page.text
    assert [tag for tag, _ in page.tags].count("h1") == 1


def test_what_the_report_says_of_another_shape(shaped: Path) -> None:
    text = " ".join(examine(report(shaped)).text.split())
    for words in (
        "日期",
        "odd: 3 of its cells are no number and count as missing, such as “n/v”",
        "same: It is constant",
        "mixed: Look at it: 50% of the cells are numbers",
        "none: It is empty",
        "holes: It is missing in",
        "1700-01-02 to 9999-12-31",
        "There is none: that takes a target",
    ):
        assert words in text, words
    assert "accuracy" not in json.loads((shaped / "result.json").read_text())["metrics"]


KINDS = {
    "number": np.arange(40) / 7,
    "category": np.arange(40) % 3,
    "date": [f"{i % 28 + 1:02d}.05.2024" for i in range(40)],
    "id": np.arange(40) + 1001,
    "text": [f"row {i}" for i in range(40)],
    "constant": [0] * 40,
    "empty": [None] * 40,
}


@pytest.mark.parametrize("kind, cells", KINDS.items(), ids=KINDS)
def test_kinds(kind: str, cells) -> None:
    assert project.read_column(kind, pd.Series(cells)).kind == kind


@pytest.mark.parametrize(
    "cells, kind",
    [
        ([f"{i:05d}" for i in range(40)], "text"),
        ([f"44030619900101{i:04d}" for i in range(40)], "text"),
        ([*"abcd" * 10], "category"),
        ([True, False] * 20, "category"),
        (["1e400", "inf", "nan", "-inf"] * 10, "category"),
        ([f"{i * 31 % 97}" for i in range(40)], "number"),
        (["2024-01-01T10:00:00Z", "2024-01-02T10:00:00+08:00"] * 20, "date"),
    ],
)
def test_kinds_on_the_border(cells, kind: str) -> None:
    assert project.read_column("x", pd.Series(cells)).kind == kind


def test_a_day_or_a_month(tmp_path: Path) -> None:
    assert (
        "would fit as well"
        in project.read_column("x", pd.Series(["01/02/2024", "03/04/2024"] * 9)).remark
    )
    assert not project.read_column("x", pd.Series(["01/02/2024", "23/04/2024"] * 9)).remark


def test_statistics_against_scipy() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        k, m, n = rng.integers(2, 5, 2).tolist() + [int(rng.integers(40, 200))]
        groups, labels = (np.r_[np.arange(c), rng.integers(0, c, n - c)] for c in (k, m))
        x = rng.normal(size=n) + 0.3 * groups
        f = stats.f_oneway(*(x[groups == g] for g in range(k))).statistic
        assert project.eta_squared(groups, x) == pytest.approx(f * (k - 1) / (f * (k - 1) + n - k))
        table = pd.crosstab(groups, labels).to_numpy()
        assert project.cramers_v(groups, labels) == pytest.approx(
            stats.contingency.association(table)
        )


def test_permutation_agrees_with_the_f_distribution() -> None:
    rng = np.random.default_rng(2)
    for shift in (0, 0.2, 0.5):
        groups = rng.integers(0, 3, 120)
        x = rng.normal(size=120) + shift * groups
        luck = project.permutation_p(project.eta_squared, groups, x, 999, rng)[1]
        p = stats.f_oneway(*(x[groups == g] for g in range(3))).pvalue
        assert abs(luck - p) < 4 * np.sqrt(p * (1 - p) / 999) + 0.002


def test_gaps_that_go_along_with_the_target_are_noticed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = rng.choice(["no", "yes"], 300)
    holes = {"planted": np.where(y == "yes", 0.4, 0.1), "accident": np.full(300, 0.25)}
    columns = {
        name: np.where(rng.random(300) < s, np.nan, rng.normal(size=300))
        for name, s in holes.items()
    }
    table = project.Table("t", pd.DataFrame({"y": y} | columns), "y", [])
    found = {
        result["groups"]: result
        for result in project.show_gaps(project.Config(shuffles=199), table)
    }
    assert (
        found["planted"]["q"] <= 0.01
        and found["planted"]["effect"] > 2 * found["accident"]["effect"]
    )


def test_nothing_is_learnt_from_the_held_out_rows(monkeypatch) -> None:
    """The claim “apart” fails as soon as the pipeline is fitted on all rows."""

    def leaky(inputs, train, test):
        return whole(inputs, np.arange(len(inputs)), test)[0], *(
            whole(inputs, np.arange(len(inputs)), part)[2] for part in (train, test)
        )

    whole, cfg = project.matrices, project.Config(tiny=True, repeats=1)
    table = project.load(cfg)
    project.show_baseline(cfg, table)
    monkeypatch.setattr(project, "matrices", leaky)
    with pytest.raises(project.LessonError, match="apart"):
        project.show_baseline(cfg, table)


def test_noise_cannot_be_predicted() -> None:
    """A category of 20 levels that means nothing, holes, many columns: no accuracy above a coin's."""
    rng = np.random.default_rng(3)
    inputs = pd.DataFrame(
        np.where(rng.random((400, 10)) < 0.2, np.nan, rng.normal(size=(400, 10)))
    ).add_prefix("x")
    inputs["c"] = rng.choice([*"abcdefghijklmnopqrst"], 400)
    scores, _ = project.cross_validate(
        project.Config(repeats=1), inputs, rng.choice(["n", "y"], 400), False
    )
    assert all(0.4 < np.mean(values) < 0.6 for values in scores.values())


@pytest.mark.parametrize("target, baseline", [("y", "mean_baseline"), ("city", "majority")])
def test_a_baseline_for_numbers_and_for_classes(tmp_path: Path, target: str, baseline: str) -> None:
    assert run(tmp_path, "--csv", save(tmp_path / "t.csv", shape()), "--target", target) == 0
    metrics = json.loads((tmp_path / "result.json").read_text())["metrics"]
    text = examine(report(tmp_path)).text
    assert {baseline, "one_rule_baseline", "linear"} < metrics.keys() and "The one question" in text
    if target == "y":
        assert (
            metrics["linear"] > 0.9
            and metrics["R2"] > 0.8
            and metrics["one_rule_baseline"] < metrics["R2"]
        )


def test_one_rule_in_words() -> None:
    inputs = pd.DataFrame({"n": np.arange(40.0), "c": ["a", "b"] * 20})
    said = project.one_rule(inputs, np.where(inputs["n"] > 24, "big", "small"), False)
    assert said == "if n is above 24.5, say big, else small"
    assert "if c is" in project.one_rule(inputs, np.where(inputs["c"] == "a", "yes", "no"), False)
    assert "no single question" in project.one_rule(
        inputs[["c"]].assign(c="a"), np.array(["p", "q"] * 20), False
    )


def big_header(columns: int) -> bytes:
    rows = [
        ",".join(f"c{i}" for i in range(columns)),
        *(",".join([str(r * 1.5)] * columns) for r in range(20)),
    ]
    return "\n".join(rows).encode()


GOOD = {"a": [f"{i}.5" for i in range(30)], "b": ["x", "y", "z"] * 10}
REFUSED = {
    "empty": (b"", (), "is empty. Give a CSV"),
    "blank": (b" \n\n ", (), "is empty"),
    "header only": (b"a,b\n", (), "has names but no rows"),
    "header and blank lines": (b"a,b\n\n,\n", (), "has names but no rows"),
    "one column": (b"a\n1\n2\n", (), "has only one column, 'a'"),
    "duplicate names": (b"a,b,a\n1,2,3\n", (), "two columns named 'a'"),
    "duplicate after spaces": (b"a, a\n1,2\n", (), "two columns named 'a'"),
    "long row": (b"a,b\n1,2\n1,2,3\n", (), "cannot be read as a table"),
    "all rows long": (b"a,b\n1,2,3\n4,5,6\n", (), "cannot be read as a table"),
    "open quote": (b'a,b\n1,"2\n3,4\n', (), "cannot be read as a table"),
    "latin-1": (
        "name,ort\nJörg,Köln\n".encode("latin-1"),
        (),
        "is not utf-8 text. Say what it is, for example --encoding gb18030",
    ),
    "late latin-1": (
        b"a,b\n" + b"1,2\n" * 50_000 + "ü,1\n".encode("latin-1"),
        (),
        "is not utf-8 text",
    ),
    "wrong --encoding": (
        "名,b\n1,2\n".encode("gb18030"),
        ("--encoding", "ascii"),
        "is not ascii text",
    ),
    "no such encoding": (b"a,b\n1,2\n", ("--encoding", "utf-9"), "there is no encoding utf-9"),
    "half a UTF-16": ("a,b\n1,2\n".encode("utf-16")[:-1], (), "is not utf-16 text"),
    "binary": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" * 9, (), "is not a text file"),
    "a workbook": (b"PK\x03\x04\x14\0\x06\0" * 9, (), "save it as CSV"),
    "long separator": (b"a,b\n1,2\n", ("--separator", "ab"), "cannot be read as a table"),
    "target not there": (None, ("--target", "B"), "there is no column 'B'. Did you mean 'b'?"),
    "target far off": (None, ("--target", "survived"), "The columns are a, b."),
    "target of one class": (b"a,b\n" + b"1.5,x\n" * 30, ("--target", "b"), "one value or none"),
    "target without values": (b"a,b\n" + b"1.5,\n" * 30, ("--target", "b"), "one value or none"),
    "target is an id": (
        b"a,b\n" + b"".join(b"%d,x\n" % i for i in range(30)),
        ("--target", "a"),
        "of the kind id, nearly",
    ),
    "target is text": (
        b"a,b\n" + b"".join(b"u%d,x\n" % i for i in range(30)),
        ("--target", "a"),
        "of the kind text, nearly",
    ),
    "target of too few rows": (
        b"a,b\n1.5,x\n2.5,y\n3.5,x\n1.2,y\n",
        ("--target", "b"),
        "too few rows",
    ),
    "both": (None, ("--data", "iris"), "--csv and --data each name a table"),
    "both, said in full": (None, ("--data", "titanic"), "Leave one of them out"),
}


@pytest.mark.parametrize("content, argv, expected", REFUSED.values(), ids=REFUSED)
def test_bad_input_gets_one_sentence(
    tmp_path: Path, capsys, content, argv: tuple, expected: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "report-t.html").write_text("an earlier report")
    (out / "result.json").write_text("an earlier result")
    (tmp_path / "t.csv").write_bytes(
        save(tmp_path / "good.csv", GOOD).read_bytes() if content is None else content
    )
    assert run(out, "--csv", tmp_path / "t.csv", *argv) == 1
    assert expected in sentence(capsys)
    assert {path.name: path.read_text() for path in out.iterdir()} == {
        "report-t.html": "an earlier report",
        "result.json": "an earlier result",
    }


@pytest.mark.parametrize("name", ["nowhere.csv", "."])
def test_no_file(tmp_path: Path, capsys, name: str) -> None:
    assert run(tmp_path / "out", "--csv", tmp_path / name) == 1
    assert "cannot be read (" in sentence(capsys) and not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    "encoding, argv",
    [
        ("utf-8", ()),
        ("utf-8-sig", ()),
        ("utf-16", ()),
        ("gb18030", ("--encoding", "gb18030")),
        ("utf-16-le", ("--encoding", "utf-16-le")),
    ],
)
def test_encodings(tmp_path: Path, encoding: str, argv: tuple) -> None:
    frame = {"名字": ["张伟", "李娜", "王芳"] * 10, "身高": np.arange(30) / 7}
    assert run(tmp_path, "--csv", save(tmp_path / "t.csv", frame, encoding=encoding), *argv) == 0
    text = examine(report(tmp_path)).text
    assert "名字" in text and "张伟 (10)" in text and "\ufeff" not in text


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_separators_are_found(tmp_path: Path, separator: str) -> None:
    assert run(tmp_path, "--csv", save(tmp_path / "t.csv", GOOD, sep=separator)) == 0
    assert "x (10), y (10), z (10)" in examine(report(tmp_path)).text


def test_ten_thousand_columns(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(big_header(10_000))
    assert run(tmp_path, "--csv", tmp_path / "t.csv", "--columns", 6, "--target", "c9999") == 0
    text = " ".join(examine(report(tmp_path)).text.split())
    assert (
        "9993 of 10000 columns are left out; --columns NUMBER shows more." in text
        and "c9999 target" in text
    )


def test_rows_left_out_are_named(tmp_path: Path) -> None:
    assert run(tmp_path, "--csv", save(tmp_path / "t.csv", GOOD), "--rows", 20) == 0
    assert "Only the first 20 rows were read" in examine(report(tmp_path)).text
    assert run(tmp_path, "--csv", tmp_path / "t.csv", "--rows", 30) == 0
    assert "Only the first" not in examine(report(tmp_path)).text


def test_a_row_that_is_too_short_has_a_gap(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"a,b\n" + b"1.5,x\n2.5\n3.5,y\n" * 10)
    assert run(tmp_path, "--csv", tmp_path / "t.csv") == 0
    assert "b: It is missing in 33.3%" in " ".join(examine(report(tmp_path)).text.split())


@pytest.mark.parametrize(
    "content", [b"a,b\n1,2\n", b"a,b\n1,\n,2\n", b"a,b\nx,y\nx,z\n", b",b,\n1,2,3\n4,5,6\n"]
)
def test_the_smallest_tables(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    assert run(tmp_path, "--csv", tmp_path / "t.csv") == 0
    examine(report(tmp_path))


def test_reports_of_several_tables_stand_side_by_side(tmp_path: Path) -> None:
    for name in ("one.csv", "two.csv"):
        assert run(tmp_path, "--csv", save(tmp_path / name, GOOD)) == 0
    assert {path.name for path in tmp_path.glob("*.html")} == {"report-one.html", "report-two.html"}


def test_a_target_with_gaps_and_a_rare_class(tmp_path: Path) -> None:
    frame = {
        "a": np.arange(60) / 7,
        "b": [None if i % 10 == 0 else "rare" if i == 7 else "xy"[i % 2] for i in range(60)],
    }
    assert run(tmp_path, "--csv", save(tmp_path / "t.csv", frame), "--target", "b") == 0
    assert "cross-validation on 53 rows" in " ".join(examine(report(tmp_path)).text.split())


@pytest.mark.skipif(not REAL, reason="COURSE_DATA names no folder with the real passengers")
@pytest.mark.full
def test_the_real_titanic(tmp_path: Path) -> None:
    assert (
        execute(
            project.run,
            project.Config,
            project.__doc__,
            ["--data", "titanic", "--out", str(tmp_path)],
        )
        == 0
    )
    metrics = json.loads((tmp_path / "result.json").read_text())["metrics"]
    assert metrics["accuracy"] > 0.8 and metrics["one_rule_baseline"] == pytest.approx(
        0.787, abs=0.003
    )
    assert re.search(
        "if Sex is (female, say 1, else 0|male, say 0, else 1)", report(tmp_path)
    )  # the same rule
