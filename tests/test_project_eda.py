"""The report as its user meets it: tables of every shape, hostile cells, bad files, no leak."""

import inspect
import json
import os
import re
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from common import record
from common.config import execute
from common.data import reporting
from common.data.tables import load_frame
from common.errors import ClaimFailed
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


@pytest.fixture(autouse=True)
def fresh_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests that call a function of the project twice judge its claims twice."""
    monkeypatch.setattr(record, "_current", record.Record())


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
    """Tags, their attributes, and the visible text, as a browser has them."""

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
        # cells stand apart
        self.text += " " if tag in ("td", "th") else ""

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def examine(text: str) -> Page:
    """The page parses, asks for nothing from outside, runs nothing, and names its pictures."""
    page = Page(text)
    assert page.open == [] and text.startswith("<!doctype html>")
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "iframe", "object", "embed", "base", "form", "h4"}, names
    for tag, attrs in page.tags:
        assert not [name for name in attrs if name.startswith("on")], (tag, attrs)
        for name in ("src", "href", "srcset", "action"):
            assert attrs.get(name, "#").startswith(("#", "data:")), (tag, attrs)
        assert tag != "img", "the charts are drawn by the page"
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
        "1700-01-02",
        "9999-12-31",
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
        # nine in ten, and half
        ([*[f"{i % 28 + 1:02d}.05.2024" for i in range(36)], *"abcd"], "date"),
        ([*[f"{i % 20 + 1:02d}.05.2024" for i in range(20)], *"abcdefghijklmnopqrst"], "text"),
        ([*(np.arange(36) / 7).astype(str), *"abcd"], "number"),
        (["0.5", "1.5"] * 18 + [*"abcd"], "number"),
        (["0.5", "1.5", "2.5"] * 10, "number"),
        # ten rows that count up, nine, and one that is no plain digits
        (range(10), "id"),
        (range(9), "number"),
        (["0.0", *range(1, 20)], "number"),
        # five whole numbers in twenty rows or nineteen, six
        ([*range(5)] * 4, "category"),
        ([*range(5)] * 3 + [*range(4)], "number"),
        ([*range(6)] * 8, "number"),
        # twenty words twice, 21
        ([f"word {i}" for i in range(20)] * 2, "category"),
        ([f"word {i}" for i in range(20)] + [f"word {i}" for i in range(19)], "text"),
        ([f"word {i}" for i in range(21)] * 3, "text"),
    ],
)
def test_kinds_on_the_border(cells, kind: str) -> None:
    assert project.read_column("x", pd.Series(cells)).kind == kind


def test_statistics_against_scipy() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        k, m, n = *rng.integers(2, 5, 2).tolist(), int(rng.integers(40, 200))
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
        luck = project.permutation_p(project.eta_squared, groups, x, 999, rng)
        p = stats.f_oneway(*(x[groups == g] for g in range(3))).pvalue
        # either all shuffles were made, or it stopped at ENOUGH
        error = max(np.sqrt(p * (1 - p) / 999), p / np.sqrt(project.ENOUGH))
        assert abs(luck - p) < 4 * error + 0.002


def test_adjusted_as_scipy_does() -> None:
    rng = np.random.default_rng(3)
    for k in (0, 1, 2, 50):
        p = np.r_[rng.random(k // 2), rng.random(k - k // 2) / 100]
        wanted = stats.false_discovery_control(p) if k else p
        assert project.adjust(p) == pytest.approx(wanted)


def test_gaps_that_go_along_with_the_target_are_noticed() -> None:
    rng = np.random.default_rng(0)
    y = rng.choice(["no", "yes"], 300)
    holes = {"planted": np.where(y == "yes", 0.4, 0.1), "accident": np.full(300, 0.25)}
    columns = {
        name: np.where(rng.random(300) < s, np.nan, rng.normal(size=300))
        for name, s in holes.items()
    }
    table = make_table(pd.DataFrame({"y": y} | columns), "y")
    gaps = project.show_effects(project.Config(shuffles=199), table)["gaps"]
    found = {result["groups"]: result for result in gaps}
    assert found["planted"]["q"] <= 0.01
    assert found["planted"]["effect"] > 2 * found["accident"]["effect"]


def make_table(frame: pd.DataFrame, target: str | None = None) -> reporting.Table:
    return reporting.Table("t", frame, target, [], project.read_column)


def test_noise_cannot_be_predicted() -> None:
    """A category of 20 levels that means nothing, holes, many columns: no better than a coin."""
    from sklearn.model_selection import StratifiedKFold

    rng = np.random.default_rng(3)
    inputs = pd.DataFrame(
        np.where(rng.random((400, 10)) < 0.2, np.nan, rng.normal(size=(400, 10)))
    ).add_prefix("x")
    inputs["c"] = rng.choice([*"abcdefghijklmnopqrst"], 400)
    y = rng.choice(["n", "y"], 400)
    folds = list(StratifiedKFold(5).split(inputs, y))
    prepare = reporting.make_preparation(inputs)
    scores, _ = project.cross_validate(prepare, project.make_models(False, 0), inputs, y, folds)
    assert all(0.4 < np.mean(values) < 0.6 for values in scores.values())


def rule(inputs: pd.DataFrame, y: np.ndarray) -> str:
    table = make_table(inputs.assign(target=y), "target")
    values = table.values[list(inputs)]
    target = table.values["target"].to_numpy()
    prepare = reporting.make_preparation(values)
    stump = project.make_models(table.is_regression, 0)["one_rule_baseline"]
    stump.fit(prepare.fit_transform(values), target)
    return reporting.rule_in_words(prepare, stump, values, table)


def test_one_rule_in_words() -> None:
    inputs = pd.DataFrame({"n": np.arange(40) * 1.5, "c": ["a", "b"] * 20})
    assert rule(inputs, np.where(inputs["n"] > 37, "big", "small")) == (
        "if n is above 36.8, say big, else small"
    )
    assert "if c is" in rule(inputs, np.where(inputs["c"] == "a", "yes", "no"))
    alone = pd.DataFrame({"c": ["a"] * 40})
    assert "no single question" in rule(alone, np.array(["p", "q"] * 20))


def test_a_rule_keeps_the_digits_that_divide() -> None:
    """Issue 8, row 6: “above 2e+03” says nothing about years, nor “above 1.88e+04” about a day."""
    built = pd.DataFrame({"built": np.r_[1990:2024, 1990:2024]})
    assert rule(built, np.where(built["built"] > 2003, "new", "old")) == (
        "if built is above 2003.5, say new, else old"
    )
    days = pd.date_range("2021-01-01", periods=400).strftime("%Y-%m-%d")
    sold = pd.DataFrame({"sold": days})
    late = np.where(np.arange(400) > 200, "late", "early")
    assert rule(sold, late) == "if sold is above 2021-07-20, say late, else early"
    price = pd.DataFrame({"price": 200_000 + np.arange(40.0) * 10})
    assert rule(price, np.arange(40) // 20 * 1e6 + np.arange(40)) == (
        "if price is above 200195, say 1,000,030, else 9.5"
    )
    gap = pd.DataFrame({"a": np.where(np.arange(40) < 20, np.nan, np.arange(40) % 7 / 2)})
    assert "a is missing" in rule(gap, np.repeat(["gap", "known"], 20))


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


@pytest.mark.full
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


# Issue 8, section A: what the report said, and what is right


def words(out: Path) -> str:
    """The visible text of the report, one blank between words."""
    return " ".join(examine(report(out)).text.split())


def outcome(monkeypatch, out: Path, *argv: object) -> tuple[reporting.Table, dict]:
    """One run: the table as it was understood, and what was found in it."""
    kept = []
    shown = project.show_report

    def keep(cfg, table, parts):
        kept.append((table, parts))
        shown(cfg, table, parts)

    monkeypatch.setattr(project, "show_report", keep)
    assert run(out, *argv) == 0
    return kept[0]


def test_groups_beyond_the_first_rows_are_compared(tmp_path: Path, monkeypatch) -> None:
    """Row 1: sorted by group, the first 5,000 rows hold one group only."""
    x = np.r_[np.arange(6000) % 7, np.arange(6000) % 7 + 50] + 0.5
    frame = {"g": np.repeat(["A", "B"], 6000), "x": x}
    _, parts = outcome(monkeypatch, tmp_path, "--csv", save(tmp_path / "t.csv", frame))
    (effect,) = parts["effects"]
    a, b = x[:6000], x[6000:]
    f = stats.f_oneway(a, b).statistic
    assert effect["effect"] == pytest.approx(f / (f + 12_000 - 2))
    assert effect["rows"] == 12_000 and effect["shuffled"] == project.LUCK_ROWS
    assert "were made with 1,000 rows drawn at random" in words(tmp_path)


def test_no_value_is_blanked_as_wild(tmp_path: Path, monkeypatch) -> None:
    """Row 2: a long tail is no error, and a linear model finds a line in it."""
    income = np.random.default_rng(0).lognormal(0, 2, 400)
    frame = {"income": income, "price": 3 * income}
    argv = ("--csv", save(tmp_path / "t.csv", frame), "--target", "price")
    _, parts = outcome(monkeypatch, tmp_path, *argv)
    assert parts["baseline"]["mean"]["linear"] > 0.98
    assert "missing" not in parts["baseline"]["rule"]
    assert "noneof the cells missing" in words(tmp_path)


def test_the_report_shows_the_mean(tmp_path: Path) -> None:
    frame = {"x": [1.5, 2.5, 206_855.25] * 5, "g": ["a", "b", "c"] * 5}
    assert run(tmp_path, "--csv", save(tmp_path / "t.csv", frame)) == 0
    column = pd.Series(frame["x"])
    assert f"{column.mean():,.0f} {column.std():,.0f} 1.5 2.5 206,855" in words(tmp_path)


def test_missing_words_are_said_and_can_be_kept(tmp_path: Path, monkeypatch) -> None:
    """Row 5: NA is North America."""
    rng = np.random.default_rng(0)
    region = rng.choice(["NA", "EU", "APAC", "NA "], 300)
    x = np.where(np.char.startswith(region, "NA"), 10, 0) + rng.normal(size=300)
    path = save(tmp_path / "t.csv", {"region": region, "x": x})
    assert run(tmp_path, "--csv", path) == 0
    count = np.char.startswith(region, "NA").sum()
    assert f"Counted as missing: “NA” {count} times." in words(tmp_path)
    _, parts = outcome(monkeypatch, tmp_path, "--csv", path, "--keep-words", "NA")
    assert parts["effects"][0]["effect"] > 0.9
    assert "Counted as missing" not in words(tmp_path)


def test_a_correlation_needs_rows_and_spread() -> None:
    """Row 7: “Pearson nan” first, and 1.00 from two common rows."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=60)
    few = np.where(np.arange(60) < 9, x, np.nan)
    flat = np.where(np.arange(60) < 30, 1.0, x)
    half = np.where(np.arange(60) < 30, x, np.nan)
    found = project.correlate(pd.DataFrame({"x": x, "few": few, "flat": flat, "half": half}))
    names = {(pair["a"], pair["b"]) for pair in found["pairs"]}
    # few with all others; flat is constant where half is known
    assert names == {("x", "flat"), ("x", "half")} and found["left_out"] == 4
    for measure in ("pearson", "spearman"):
        assert np.isnan(found[measure].at["x", "few"])
        nine = project.correlate(pd.DataFrame({"a": x[:9], "b": x[9:18]}))
        assert nine[measure].isna().all(axis=None) and nine["left_out"] == 1


@pytest.mark.parametrize("missing", [0, 15])
def test_correlations_are_scipys_on_the_rows_in_common(missing: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.exponential(size=(2, 60))
    x[1] += x[0]
    x[0, :missing] = np.nan
    (pair,) = project.correlate(pd.DataFrame({"a": x[0], "b": x[1]}))["pairs"]
    wanted = stats.spearmanr(*x[:, missing:]).statistic
    assert pair["spearman"] == pytest.approx(wanted, abs=1e-12)
    wanted = stats.pearsonr(*x[:, missing:]).statistic
    assert pair["pearson"] == pytest.approx(wanted, abs=1e-12)
    assert pair["rows"] == 60 - missing


def test_the_strongest_pair_comes_first_whatever_its_sign() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 60))
    frame = pd.DataFrame({"a": x[0], "b": x[1], "c": x[1] + x[2], "d": -3 * x[0] + x[2]})
    pairs = project.correlate(frame)["pairs"]
    assert (pairs[0]["a"], pairs[0]["b"]) == ("a", "d") and pairs[0]["spearman"] < -0.8
    sizes = [abs(pair["spearman"]) for pair in pairs]
    assert sizes == sorted(sizes, reverse=True)


def test_a_table_whose_last_cell_is_empty() -> None:
    groups, labels = np.array([0, 0, 0, 1, 1]), np.array([0, 1, 1, 0, 0])
    wanted = stats.contingency.association(np.array([[1, 2], [2, 0]]))
    assert project.cramers_v(groups, labels) == pytest.approx(wanted)


def test_as_many_shuffles_as_were_asked_for() -> None:
    calls = []
    rng = np.random.default_rng(0)
    groups = np.arange(6)

    def only_as_met(shuffled: np.ndarray, x: np.ndarray) -> float:
        calls.append(shuffled)
        return -float(len(calls))

    assert project.permutation_p(only_as_met, groups, groups, 99, rng) == 1 / 100
    assert len(calls) == 1 + 99 and (calls[0] == np.arange(6)).all()
    # 1, then 0 but for every fifth, which is 1 up to rounding
    values = iter([1.0] + [1 - 5e-13 if i % 5 == 0 else 0.0 for i in range(1, 100)])
    assert project.permutation_p(lambda groups, x: next(values), groups, groups, 99, rng) == 0.2
    always = project.permutation_p(lambda groups, x: 0.0, groups, groups, 99, rng)
    assert always == 1 and (groups == np.arange(6)).all()
    assert project.permutation_p(lambda groups, x: 0.0, groups, groups, 49, rng) == 1


def test_left_out_pairs_are_counted_in_the_report(tmp_path: Path) -> None:
    x = np.arange(40) * 1.5
    frame = {"x": x, "few": np.where(x < 12, x, np.nan), "y": x[::-1]}
    assert run(tmp_path, "--csv", save(tmp_path / "t.csv", frame)) == 0
    assert "2 pairs are left out" in words(tmp_path) and "nan" not in words(tmp_path)


FORMS = {
    "decimal comma": ([f"{i},5" for i in range(40)], "number", 0.5),
    "currency": ([f"${1000 + i:,}.25" for i in range(40)], "number", 1000.25),
    "percent": ([f"{i + 1}%" for i in range(40)], "number", 1),
    "brackets": ([f"({i + 2:,})" for i in range(40)], "number", -2),
    "day and time": ([f"1/{i % 28 + 1}/2024 12:00" for i in range(40)], "date", 19723.5),
    "month's name": ([f"Jan {i % 28 + 1}, 2024" for i in range(40)], "date", 19723),
    "eight digits": ([f"202401{i % 28 + 1:02d}" for i in range(40)], "date", 19723),
    "年月日": ([f"2024年1月{i % 28 + 1}日" for i in range(40)], "date", 19723),
}


@pytest.mark.parametrize("cells, kind, first", FORMS.values(), ids=FORMS)
def test_forms_are_read_as_what_they_are(cells: list[str], kind: str, first: float) -> None:
    """Row 9."""
    column = project.read_column("x", pd.Series(cells))
    assert (column.kind, column.odd) == (kind, []) and column.values[0] == pytest.approx(first)


def test_codes_with_leading_zeros_are_no_amounts() -> None:
    """Row 10: 8 % of the ZIP codes begin with 0."""
    zips = [f"{i * 2500 % 99_999:05d}" for i in range(1, 41)]
    column = project.read_column("zip", pd.Series(zips))
    assert (
        column.kind == "text" and column.values.notna().all() and "leading zeros" in column.remark
    )
    few = project.read_column("zip", pd.Series(["02139", "10001", "94103"] * 20))
    assert few.kind == "category" and set(few.values) == {"02139", "10001", "94103"}


@pytest.mark.parametrize(
    "name, cells, kind",
    [
        ("year", range(1990, 2024), "number"),
        ("x", range(40, 0, -1), "id"),
        ("x", range(0, 80, 2), "number"),
        ("customer_id", range(5000, 9000, 100), "id"),
        ("customerID", range(5000, 9000, 100), "id"),
        ("PassengerId", range(5000, 9000, 100), "id"),
        ("paid", range(5000, 9000, 100), "number"),
        ("humid", range(5000, 9000, 100), "number"),
    ],
)
def test_a_year_is_no_id(name: str, cells: range, kind: str) -> None:
    """Row 11."""
    assert project.read_column(name, pd.Series(cells)).kind == kind


def test_the_commonest_levels_are_drawn() -> None:
    """Row 12: the commonest of ten is the last of the alphabet."""
    cells = [*"abcdefghi"] * 5 + ["z"] * 55
    table = make_table(pd.DataFrame({"c": cells, "x": np.arange(100) / 7}))
    (drawn, _) = reporting.make_charts(table)
    assert drawn["labels"][0] == "z" and drawn["counts"][0] == [55]
    assert "2 others (10%)" in drawn["labels"]
    assert sum(map(sum, drawn["counts"])) == 100


def test_rare_classes_keep_a_colour() -> None:
    """Row 12's kind: of more than six classes the rest was not drawn at all."""
    y = np.repeat([*"abcdefghij"], [30, 20, 10, 10, 10, 5, 5, 5, 3, 2])
    table = make_table(pd.DataFrame({"y": y, "x": np.arange(100) / 7}), "y")
    (drawn,) = reporting.make_charts(table)
    assert len(drawn["levels"]) == 6 and "5 others (20%)" in drawn["levels"]
    assert sum(map(sum, drawn["counts"])) == 100


def test_every_known_value_stands_in_one_bar() -> None:
    table = make_table(pd.DataFrame(shape()))
    for name in table.of(*reporting.USED):
        assert sum(reporting.describe(table, name)["bars"]) == table.values[name].count()


def test_the_counts_of_a_chart_are_those_of_numpy() -> None:
    rng = np.random.default_rng(0)
    groups = rng.choice(["a", "b", "c"], 300)
    for x in (rng.normal(size=300), rng.integers(0, 7, 300) * 1.5):
        x = np.where(rng.random(300) < 0.2, np.nan, x)
        table = make_table(pd.DataFrame({"x": x, "g": groups}), "g")
        (drawn,) = reporting.make_charts(table)
        x = table.values["x"].to_numpy()
        edges = np.linspace(np.nanmin(x), np.nanmax(x), len(drawn["counts"]) + 1)
        wanted = [np.histogram(x[groups == group], edges)[0] for group in "abc"]
        assert drawn["counts"] == np.transpose(wanted).tolist()


def test_a_dollar_begins_no_formula(tmp_path: Path) -> None:
    """Row 14, in the page and in the picture that Matplotlib draws."""
    cells = ["$", "$$", "$5%-$9%", "a_b^{c", r"\frac"] * 8
    frame = pd.DataFrame({"$x^": cells, "y_{": np.arange(40) / 7, "t$": ["$a_", "$$"] * 20})
    argv = ("--csv", save(tmp_path / "t.csv", frame), "--target", "t$")
    assert run(tmp_path, *argv) == 0
    text = words(tmp_path)
    assert all(cell in text for cell in (*cells[:5], *frame.columns, "$a_"))
    record.start(tiny=True)
    charts = reporting.make_charts(make_table(frame, "t$"))
    assert reporting.draw_charts(charts, "t$_{", tmp_path / "drawn").exists()


def test_chinese_needs_no_font_of_matplotlib(tmp_path: Path, recwarn) -> None:
    """Row 15: boxes in the figure and 19 warnings."""
    frame = {"城市": ["北京", "上海"] * 20, "收入": np.arange(40) / 7}
    assert run(tmp_path, "--csv", save(tmp_path / "t.csv", frame), "--target", "城市") == 0
    assert not list(tmp_path.glob("*.png")) and not [w for w in recwarn if "Glyph" in str(w)]
    assert "fonts-noto-cjk" in words(tmp_path)
    assert run(tmp_path, "--csv", save(tmp_path / "t.csv", GOOD)) == 0
    assert "fonts-noto-cjk" not in words(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    """Row 16."""
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.csv"))
    try:
        save(path, GOOD)
    except OSError:
        pytest.skip("this file system wants UTF-8")
    assert run(tmp_path / "out", "--csv", path) == 0
    examine(report(tmp_path / "out"))


@pytest.mark.full
def test_large_tables_are_quick(tmp_path: Path, monkeypatch, capsys) -> None:
    """20,000 rows by 51 columns took 12 CPU-seconds. The bound is generous: machines differ."""
    rng = np.random.default_rng(0)
    frame = {f"x{i}": rng.normal(size=20_000).round(3) for i in range(41)}
    frame |= {f"c{i}": rng.choice([*"abcde"], 20_000) for i in range(9)}
    frame["y"] = np.where(frame["x1"] + rng.normal(size=20_000) > 0, "yes", "no")
    path = save(tmp_path / "t.csv", frame)
    capsys.readouterr()
    start = time.process_time()
    argv = ["--out", str(tmp_path), "--csv", str(path), "--target", "c0", "--columns", "51"]
    assert execute(project.run, project.Config, project.__doc__, argv) == 0
    assert time.process_time() - start < 10
    said = capsys.readouterr().out.split("where the CPU time went: ")[1].splitlines()[0]
    parts = re.findall(r"([a-z]+) [\d.]+ s", said)
    assert " ".join(parts) == (
        "starting reading libraries columns correlations groups baseline page together"
    )
    # what is sampled stands in the report
    text = words(tmp_path)
    assert "in three-fold cross-validation on 5,000 rows of 20,000, drawn at random" in text
    assert "were made with 1,000 rows drawn at random" in text


# The practice regions: plausible wrong solutions, and which claim notices


def biased_eta(groups, x):
    means = np.array([x[groups == g].mean() for g in range(groups.max() + 1)])
    return means.var() / x.var()


def unrooted_v(groups, labels):
    return right["cramers_v"](groups, labels) ** 2


def v_of_rows(groups, labels):
    counts = pd.crosstab(groups, labels).to_numpy()
    return right["cramers_v"](groups, labels) * np.sqrt(
        (min(counts.shape) - 1) / (counts.shape[1] - 1)
    )


def strict_p(statistic, groups, x, shuffles, rng):
    seen = statistic(groups, x)
    reached = sum(statistic(rng.permutation(groups), x) > seen + 1e-9 for _ in range(shuffles))
    return (reached + 1) / (shuffles + 1)


def p_without_own(statistic, groups, x, shuffles, rng):
    seen = statistic(groups, x)
    reached = sum(statistic(rng.permutation(groups), x) >= seen - 1e-12 for _ in range(shuffles))
    return reached / shuffles


def bonferroni(p):
    return np.minimum(p * len(p), 1)


def not_monotone(p):
    ranks = np.argsort(np.argsort(p)) + 1
    return p * len(p) / ranks


def leaky_preparation(prepare, models, inputs, y, folds):
    x = prepare.fit_transform(inputs)
    return on_matrix(models, x, y, folds, lambda train: train)


def seen_by_the_model(prepare, models, inputs, y, folds):
    x = prepare.fit_transform(inputs)
    return on_matrix(models, x, y, folds, lambda train: np.arange(len(y)))


def on_matrix(models, x, y, folds, rows):
    scores = {name: [] for name in models}
    said = np.empty_like(y)
    for train, test in folds:
        for name, model in models.items():
            model.fit(x[rows(train)], y[rows(train)])
            scores[name].append(model.score(x[test], y[test]))
            said[test] = model.predict(x[test])
    return scores, said


def years_are_ids(name, known, numbers, days):
    whole = numbers.notna().all() and (numbers % 1 == 0).all()
    if whole and known.nunique() == len(known) >= 10:
        return "id"
    return right["kind_of"](name, known, numbers, days)


def classes_are_numbers(name, known, numbers, days):
    kind = right["kind_of"](name, known, numbers, days)
    return "number" if numbers.notna().any() and kind == "category" else kind


right = {
    name: getattr(project, name)
    for name in ("kind_of", "eta_squared", "cramers_v", "permutation_p", "adjust", "cross_validate")
}
WRONG = [
    ("kind_of", years_are_ids, "kinds"),
    ("kind_of", classes_are_numbers, "kinds"),
    ("eta_squared", biased_eta, "eta"),
    ("cramers_v", unrooted_v, "cramer"),
    ("cramers_v", v_of_rows, "cramer"),
    ("permutation_p", strict_p, "luck"),
    ("permutation_p", p_without_own, "own"),
    ("adjust", bonferroni, "step"),
    ("adjust", not_monotone, "step"),
    ("cross_validate", leaky_preparation, "folds"),
    ("cross_validate", seen_by_the_model, "folds"),
]


@pytest.mark.parametrize(
    "name, wrong, claim", WRONG, ids=lambda value: getattr(value, "__name__", value)
)
def test_a_wrong_solution_is_noticed(
    tmp_path: Path, monkeypatch, capsys, name: str, wrong, claim: str
) -> None:
    monkeypatch.setattr(project, name, wrong)
    assert run(tmp_path) == 1
    assert f"the claim “{claim}” does not hold" in capsys.readouterr().err


def mutant(name: str, old: str, new: str):
    """A function of the project with a slip in its source."""
    source = inspect.getsource(right[name])
    assert source.count(old) == 1
    space = dict(vars(project))
    exec(source.replace(old, new), space)
    return space[name]


SLIPS = [
    ("kind_of", "numbers.notna().mean() >= MOSTLY", "numbers.notna().all()", "kinds"),
    ("kind_of", "numbers.notna().mean() >= MOSTLY", "numbers.notna().any()", "kinds"),
    ("kind_of", "days.notna().mean() >= MOSTLY", "days.notna().all()", "kinds"),
    ("kind_of", "min(CODES, n / 4)", "CODES", "kinds"),
    ("kind_of", "min(CODES, n / 4)", "n / 4", "kinds"),
    ("kind_of", "min(LEVELS, n / 2)", "n / 2", "kinds"),
    ("kind_of", "min(LEVELS, n / 2)", "LEVELS", "kinds"),
    ("kind_of", " and numbers.nunique() > 1", "", "kinds"),
    ("kind_of", " and n >= 10", "", "kinds"),
    ("kind_of", " and np.ptp(numbers) == n - 1", "", "kinds"),
    ("cross_validate", "clone(model)", "model", "folds"),
    ("cross_validate", "clone(prepare)", "prepare", "copies"),
    ("cross_validate", "return scores, predicted", "return scores, y", "unseen"),
    ("cross_validate", "predicted[test] = fitted", "predicted[test] = ready and fitted", None),
    ("adjust", "np.minimum.accumulate(scaled[::-1])[::-1]", "scaled", "step"),
    ("adjust", "np.minimum.accumulate(scaled[::-1])[::-1]", "np.minimum(scaled, 1)", "step"),
]


@pytest.mark.parametrize("name, old, new, claim", SLIPS)
def test_a_slip_is_noticed(monkeypatch, name: str, old: str, new: str, claim: str | None) -> None:
    monkeypatch.setattr(project, name, mutant(name, old, new))
    shows = {"kind_of": "show_columns", "cross_validate": "show_folds", "adjust": "show_luck"}
    arguments = [project.Config()]
    if name == "kind_of":
        arguments.append(make_table(pd.DataFrame(GOOD)))
    show = getattr(project, shows[name])
    if claim is None:
        # the same in effect, so that this test cannot pass for any change
        show(*arguments)
        return
    with pytest.raises(ClaimFailed, match=f"“{claim}”"):
        show(*arguments)


def test_one_scale_for_numbers_and_labels() -> None:
    """V² of two groups and two labels is the η² of the labels as 0 and 1."""
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 2, 90)
    labels = np.where(rng.random(90) < 0.3, groups, rng.integers(0, 2, 90))
    share = project.cramers_v(groups, labels) ** 2
    assert share == pytest.approx(project.eta_squared(groups, labels * 1.0))


def test_what_shuffled_groups_give_on_average() -> None:
    rng = np.random.default_rng(0)
    groups = np.arange(60) % 12
    x = rng.normal(size=60)
    labels = np.arange(60) // 20
    shuffled = [rng.permutation(groups) for _ in range(1500)]
    assert np.mean([project.eta_squared(g, x) for g in shuffled]) == pytest.approx(
        11 / 59, abs=0.01
    )
    v = np.array([project.cramers_v(g, labels) for g in shuffled])
    assert np.mean(v**2) == pytest.approx(11 / 59, abs=0.01)


def test_many_levels_of_noise_do_not_lead_the_list() -> None:
    rng = np.random.default_rng(0)
    x = pd.Series(rng.normal(size=80), name="x")
    many = pd.Series((np.arange(80) % 20).astype(str), name="many")
    two = pd.Series(np.where(x + rng.normal(size=80) * 2 > 0, "a", "b"), name="two")
    found = project.compare(project.Config(shuffles=99), [(many, x), (two, x)])
    assert [row["groups"] for row in found] == ["two", "many"]
    assert found[1]["by_luck"] == pytest.approx(19 / 79)


def test_luck_counts_the_levels_of_the_longer_list() -> None:
    """Two groups and five labels: shuffled, V² is on average 4 / (n - 1)."""
    rng = np.random.default_rng(0)
    two = pd.Series(rng.choice([*"ab"], 60), name="two")
    five = pd.Series(rng.choice([*"vwxyz"], 60), name="five")
    (found,) = project.compare(project.Config(shuffles=99), [(two, five)])
    assert found["by_luck"] == pytest.approx(4 / 59)

    groups, labels = pd.factorize(two)[0], pd.factorize(five)[0]
    v = [project.cramers_v(rng.permutation(groups), labels) for _ in range(1500)]
    assert np.mean(np.square(v)) == pytest.approx(4 / 59, abs=0.01)


def test_a_comparison_in_full() -> None:
    rng = np.random.default_rng(0)
    groups = pd.Series(rng.choice([*"abc"], 40), name="groups")
    numbers = pd.Series(rng.normal(size=40), name="numbers")
    labels = pd.Series(rng.choice([*"xyz"], 40), name="labels")
    one = pd.Series(["a"] * 40, name="one")
    pairs = [(groups, numbers), (groups, labels)]
    # nothing to compare: one group, or one value
    pairs += [(one, numbers), (one, labels), (groups, one)]
    found = project.compare(project.Config(shuffles=99), pairs)
    rows = {row["x"]: row for row in found}
    assert len(found) == len(rows) == 2

    samples = [numbers[groups == name] for name in "abc"]
    f = stats.f_oneway(*samples).statistic
    effect = 2 * f / (2 * f + 37)
    assert rows["numbers"]["measure"] == "η²"
    assert rows["numbers"]["effect"] == pytest.approx(effect)
    assert rows["numbers"]["share"] == pytest.approx(effect)

    effect = stats.contingency.association(pd.crosstab(groups, labels).to_numpy())
    assert rows["labels"]["measure"] == "V"
    assert rows["labels"]["effect"] == pytest.approx(effect)
    assert rows["labels"]["share"] == pytest.approx(effect**2)
    both = pd.DataFrame({"groups": groups, "x": numbers})
    assert all(type(codes) is np.ndarray for codes in project.as_codes(both))


def test_the_sample_of_a_long_table_is_drawn_from_the_seed() -> None:
    rng = np.random.default_rng(0)
    x = pd.Series(rng.normal(size=3000), name="x")
    pairs = [(pd.Series(rng.choice([*"ab"], 3000), name=str(n)), x) for n in range(4)]
    first, again = (project.compare(project.Config(shuffles=99), pairs) for _ in range(2))
    assert [row["p"] for row in first] == [row["p"] for row in again]


@pytest.mark.parametrize("large, rounds, rate", [(False, 60, 0.1), (True, 30, 0.2)])
def test_settings_of_the_models(large: bool, rounds: int, rate: float) -> None:
    """Those that nobody sees in a score; a stump asks one question, trees are drawn from a seed."""
    trees = {"max_iter": rounds, "learning_rate": rate, "max_leaf_nodes": 8, "random_state": 7}
    for regression in (True, False):
        models = project.make_models(regression, 7, large=True)
        if not large:
            models = project.make_models(regression, 7)
        assert models["trees"].get_params().items() >= trees.items()
        stump = models["one_rule_baseline"].get_params()
        assert stump.items() >= {"max_depth": 1, "random_state": 7}.items()
    assert models["linear"][-1].max_iter == 1000


def test_the_irises_with_two_columns_of_chance() -> None:
    """What the note says of them: chance stands last, with p above 0.5."""
    frame = reporting.with_luck(load_frame("iris", project.Config()))
    table = make_table(frame, "species")
    pairs = [(table.values["species"], table.values[name]) for name in frame if name != "species"]
    found = project.compare(project.Config(), pairs)
    assert [row["x"] for row in found[:2]] == ["petal_length", "petal_width"]
    assert {row["x"] for row in found[-2:]} == {"noise", "coin"}
    assert all(row["p"] > 0.5 for row in found[-2:])
    assert all(row["q"] < 0.01 for row in found[:4])


def test_the_commonest_mistake_in_words() -> None:
    y = np.array(["a", "a", "b", "b", "c"], object)
    said = np.array(["b", "b", "b", "a", "c"], object)
    assert reporting.commonest_mistake(y, said) == "a is taken for b, 2 of 2 times"
    assert reporting.commonest_mistake(y, y) == "none"


def test_every_cell_is_read_missing_or_odd() -> None:
    table = make_table(pd.DataFrame(shape()))
    read = table.values.notna().sum().sum()
    odd = sum(len(column.odd) for column in table.columns.values())
    assert read + odd + table.frame.isna().sum().sum() == table.frame.size


# Public tables: every figure computed apart

PACKAGED = {
    "iris": "target",
    "wine": "target",
    "breast_cancer": "target",
    "diabetes": "target",
    "linnerud": "Weight",
    "autompg": "mpg",
    "msft": None,
}
FILES = {
    "titanic": "Survived",
    "penguins": "species",
    "mpg": "mpg",
    "california_housing": "median_house_value",
}


def packaged(name: str, folder: Path) -> Path:
    """A table that a package ships, as a CSV."""
    from matplotlib import cbook
    from mlxtend import data
    from sklearn import datasets

    if name == "msft":
        return Path(cbook.get_sample_data("msft.csv", asfileobj=False))
    if name == "autompg":
        x, y = data.autompg_data()
        columns = ["cylinders", "displacement", "horsepower", "weight", "accel", "year", "origin"]
        frame = pd.DataFrame(x[:, :7], columns=columns).assign(mpg=y)
    else:
        loaded = getattr(datasets, f"load_{name}")(as_frame=True)
        frame = pd.concat([loaded.data, loaded.target], axis=1)
    return save(folder / f"{name}.csv", frame)


@pytest.mark.full
@pytest.mark.parametrize("name, target", PACKAGED.items(), ids=PACKAGED)
def test_figures_of_packaged_tables(tmp_path: Path, monkeypatch, name: str, target) -> None:
    check_figures(tmp_path, monkeypatch, packaged(name, tmp_path), target)


@pytest.mark.skipif(not REAL, reason="COURSE_DATA names no folder with the public tables")
@pytest.mark.full
@pytest.mark.parametrize("name, target", FILES.items(), ids=FILES)
def test_figures_of_public_tables(tmp_path: Path, monkeypatch, name: str, target: str) -> None:
    check_figures(tmp_path, monkeypatch, Path(REAL) / "tabular" / f"{name}.csv", target)


def check_figures(out: Path, monkeypatch, path: Path, target: str | None) -> None:
    """The report on a CSV against pandas, SciPy and scikit-learn on the same file."""
    argv = ["--csv", path, *(["--target", target] if target else [])]
    table, parts = outcome(monkeypatch, out, *argv)
    frame = pd.read_csv(path)
    frame.columns = frame.columns.str.strip()
    assert list(table.frame) == list(frame) and len(table.frame) == len(frame)
    check_columns(table, frame)
    check_pairs(parts["correlations"], table, frame)
    check_groups(parts["effects"], table, frame)
    if target:
        check_groups(parts["gaps"], table, frame, gaps=True)
        check_baseline(parts["baseline"], table, frame)
    text = words(out)
    for row in parts["effects"][:5]:
        assert f"{row['measure']} = {row['effect']:.2f}" in text
    for pair in parts["correlations"]["pairs"][:5]:
        assert f"{pair['pearson']:.2f} {pair['spearman']:.2f} {pair['rows']:,}" in text


def near(shown: str, value: float) -> bool:
    """A figure as the report writes it: four digits, or whole from 1,000 on."""
    return float(shown.replace(",", "")) == pytest.approx(value, rel=5.1e-4, abs=1e-12)


def check_columns(table: reporting.Table, frame: pd.DataFrame) -> None:
    for name in frame:
        row = reporting.describe(table, name)
        assert row["missing"] == frame[name].isna().sum(), name
        assert row["distinct"] == frame[name].nunique(), name
        if row["column"].kind == "number":
            wanted = frame[name].agg(["mean", "std", "min", "median", "max"])
            shown = [row[key] for key in ("mean", "sd", "low", "median", "high")]
            assert all(map(near, shown, wanted)), (name, shown, wanted.tolist())


def check_pairs(found: dict, table: reporting.Table, frame: pd.DataFrame) -> None:
    for pair in found["pairs"]:
        both = table.values[[pair["a"], pair["b"]]].dropna()
        if both.columns.isin(table.of("number")).all():
            both = frame[[pair["a"], pair["b"]]].dropna()
        a, b = both.to_numpy(dtype=float).T
        assert pair["rows"] == len(both)
        assert pair["pearson"] == pytest.approx(stats.pearsonr(a, b).statistic, abs=1e-9)
        assert pair["spearman"] == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-9)


def check_groups(found: list, table: reporting.Table, frame: pd.DataFrame, gaps=False) -> None:
    for row in found:
        groups = frame[row["groups"]]
        groups = groups.isna() if gaps else groups
        both = pd.DataFrame({"g": groups, "x": frame[row["x"]]}).dropna()
        assert row["rows"] == len(both)
        if row["measure"] == "V":
            counts = pd.crosstab(both["g"], both["x"])
            wanted = stats.contingency.association(counts.to_numpy())
            p = stats.chi2_contingency(counts, correction=False).pvalue
        else:
            x = (
                both["x"]
                if row["x"] in table.of("number")
                else table.values.loc[both.index, row["x"]]
            )
            parts = [x[both["g"] == g] for g in both["g"].unique()]
            between, within = len(parts) - 1, len(both) - len(parts)
            f, p = stats.f_oneway(*parts)
            wanted = f * between / (f * between + within)
        assert row["effect"] == pytest.approx(wanted, abs=1e-9), row
        if len(both) <= project.LUCK_ROWS:
            # the distribution is only near the shuffles'; the smallest p of 99 shuffles is 0.01
            assert abs(row["p"] - p) < 0.1 + 5 * np.sqrt(p * (1 - p) / 99), row
    q = stats.false_discovery_control([row["p"] for row in found]) if found else []
    assert [row["q"] for row in found] == pytest.approx(list(q))


def check_baseline(found: dict, table: reporting.Table, frame: pd.DataFrame) -> None:
    """The same rows, the same folds, and a pipeline written down anew."""
    from sklearn import dummy, linear_model, tree
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.model_selection import RepeatedKFold, RepeatedStratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    known = frame.dropna(subset=[table.target])
    known = known.sample(min(len(known), project.MODEL_ROWS), random_state=0)
    inputs = known[found["inputs"]].copy()
    for name in table.of("date"):
        if name in inputs:
            inputs[name] = table.values.loc[inputs.index, name]
    y = known[table.target].to_numpy()
    levels = [name for name in inputs if name in table.of("category")]
    inputs[levels] = inputs[levels].astype(object).where(inputs[levels].notna(), "none")
    inputs[levels] = inputs[levels].astype(str)
    numbers = [name for name in inputs if name not in levels]
    prepare = make_column_transformer(
        (SimpleImputer(strategy="median", add_indicator=True), numbers),
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), levels),
    )
    regression = table.target in table.of("number")
    assert regression == (found["measure"] == "R2")
    if not regression:
        y = y.astype(str)
    folds = RepeatedKFold if regression else RepeatedStratifiedKFold
    number = 3 if len(y) >= project.LARGE else 5
    assert found["folds"] == number
    folds = list(folds(n_splits=number, n_repeats=1, random_state=0).split(inputs, y))
    logistic = linear_model.LogisticRegression(max_iter=1000)
    if regression:
        models = {
            "mean_baseline": dummy.DummyRegressor(),
            "one_rule_baseline": tree.DecisionTreeRegressor(max_depth=1, random_state=0),
            "linear": make_pipeline(StandardScaler(), linear_model.Ridge()),
        }
    else:
        models = {
            "majority": dummy.DummyClassifier(),
            "one_rule_baseline": tree.DecisionTreeClassifier(max_depth=1, random_state=0),
            "linear": make_pipeline(StandardScaler(), logistic),
        }
    assert found["rows"] == len(y)
    for name, model in models.items():
        wanted = cross_val_score(make_pipeline(prepare, model), inputs, y, cv=folds)
        assert found["scores"][name] == pytest.approx(wanted, abs=2e-3), name


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
