"""docs/RESULTS: one line a result, tables that nobody edits, results that know their lesson."""

import json
import re
from pathlib import Path

import pytest

from common import lessons
from common.course import cli, verify
from common.lessons import ROOT, Lesson

LESSON = '''"""1.1 Title
标题

You will be able to answer
    1. Does it?              show_it        holds
"""

from common.lessons import load_lesson

X = 3


def show_it(cfg):
    """Say so."""
    # practice: a region
    return {"a": X * 2, "b": [1, 2]}
    # end practice
'''
ENTRY = {
    "date": "2026-01-02",
    "seeds": [0, 1],
    "status": "passed",
    "metrics": {"a": {"mean": 6.5, "min": 6.0, "max": 7.0, "values": [6.0, 7.0]}},
    "claims": {"holds": {"kind": "exact", "text": "it | holds", "status": ["passed", "passed"]}},
    "seconds": {"mean": 1.0, "min": 1.0, "max": 1.0, "values": [1.0, 1.0]},
    "peak_memory_mib": 80,
    "versions": {},
    "data": [],
    "test_reads": 0,
    "over_budget": [],
}
MACHINE = {"cpu": "of sand", "cores": 2, "python": "3.11.7", "torch": "2.14.1"}


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """Three lessons, two of them measured as they are now."""
    monkeypatch.setattr(lessons, "ROOT", tmp_path)
    results = {}
    for name in ("01-first", "02-second", "03-third"):
        lesson = Lesson(tmp_path / "phase01_data_science" / f"{name}.py")
        lesson.path.parent.mkdir(exist_ok=True)
        lesson.path.write_text(LESSON, encoding="utf-8")
        if name != "03-third":
            results[lesson.key] = {"lesson": verify.lesson_fingerprint(lesson, tmp_path)} | ENTRY
    (tmp_path / "docs").mkdir()
    text = verify.as_lines({"machine": MACHINE, "lessons": results})
    (tmp_path / "docs" / "RESULTS.json").write_text(text, encoding="utf-8")
    for path, table in verify.tables(tmp_path).items():
        path.write_text(table, encoding="utf-8")
    return tmp_path


def change(root: Path, name: str, old: str, new: str) -> None:
    path = root / "phase01_data_science" / f"{name}.py"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


# ------------------------------------------------------------------------- those of this repository


def test_one_line_a_result() -> None:
    text = (ROOT / "docs" / "RESULTS.json").read_text(encoding="utf-8")
    content = json.loads(text)
    assert verify.as_lines(content) == text, "`course verify` writes it, nobody else"
    assert len(text.splitlines()) == len(content["lessons"]) + 5


@pytest.mark.parametrize("language", verify.TABLES)
def test_the_tables_say_what_was_measured(language: str) -> None:
    content = json.loads((ROOT / "docs" / "RESULTS.json").read_text(encoding="utf-8"))
    shown = (ROOT / "docs" / verify.TABLES[language]).read_text(encoding="utf-8")
    assert shown == verify.render(content, ROOT, language), "`course sync` brings it up to date"


# ------------------------------------------------------------------------------ one line a result


def test_a_new_result_changes_its_line_only(root: Path) -> None:
    path = root / "docs" / "RESULTS.json"
    before = path.read_text(encoding="utf-8").splitlines()
    lesson = Lesson(root / "phase01_data_science" / "02-second.py")
    stamp = {"fingerprint": "f", "lesson": "l", "machine": MACHINE, "data": None}
    out = verify.folder(lesson, 0, root)
    out.mkdir(parents=True)
    (out / "stamp.json").write_text(
        json.dumps({"what": stamp, "code": 1, "seconds": 1, "error": "no"})
    )
    result = {"metrics": {"a": 1.5}, "seconds": 2.0, "status": "failed"}
    (out / "result.json").write_text(json.dumps(result))
    verify.Results(root).update(lesson, stamp)
    after = path.read_text(encoding="utf-8").splitlines()
    differing = [new for old, new in zip(before, after, strict=True) if old != new]
    assert len(differing) == 1 and differing[0].lstrip().startswith('"phase01_data_science/02-sec')


def test_no_results_at_all(root: Path) -> None:
    text = verify.as_lines({"machine": MACHINE, "lessons": {}})
    assert json.loads(text) == {"machine": MACHINE, "lessons": {}}
    (root / "docs" / "RESULTS.json").unlink()
    assert verify.tables(root) == {}


def test_two_verifies_at_once_keep_both_results(root: Path) -> None:
    """The second had read the file before the first wrote into it."""
    both = [verify.Results(root), verify.Results(root)]
    for results, name in zip(both, ("01-first", "03-third")):
        lesson = Lesson(root / "phase01_data_science" / f"{name}.py")
        stamp = {"fingerprint": "f", "lesson": f"new {name}", "machine": MACHINE, "data": None}
        out = verify.folder(lesson, 0, root)
        out.mkdir(parents=True)
        (out / "stamp.json").write_text(
            json.dumps({"what": stamp, "code": 0, "seconds": 1, "error": ""})
        )
        (out / "result.json").write_text(json.dumps({"seconds": 1.0, "status": "passed"}))
        results.update(lesson, stamp)
    found = json.loads((root / "docs" / "RESULTS.json").read_text(encoding="utf-8"))["lessons"]
    assert [entry["lesson"][:3] for entry in found.values()] == ["new", found_second(root), "new"]


def found_second(root: Path) -> str:
    lesson = Lesson(root / "phase01_data_science" / "02-second.py")
    return verify.lesson_fingerprint(lesson, root)[:3]


# ---------------------------------------------------------------------------- edited by hand or old


def test_a_table_edited_by_hand_is_noticed_and_made_anew(root: Path) -> None:
    path = root / "docs" / "RESULTS.zh.md"
    whole = path.read_text(encoding="utf-8")
    assert verify.tables(root) == {}
    path.write_text(whole.replace("6.5", "7.5"), encoding="utf-8")
    assert verify.tables(root) == {path: whole}
    path.unlink()
    assert verify.tables(root) == {path: whole}
    assert "| 2/2 |" not in whole and "| 1/1 | 2 | 1.0 | 80 |" in whole


def test_stale_names_what_has_changed_and_runs_nothing(root: Path, capsys) -> None:
    assert cli.main(["verify", "--stale", "01/01", "01/02"]) == 0
    assert "all 2 lessons are as they were" in capsys.readouterr().out

    change(root, "02-second", "X * 2", "X * 3")
    assert cli.main(["verify", "--stale"]) == 1
    words = capsys.readouterr().out
    assert "phase01_data_science/02-second: measured 2026-01-02" in words
    assert "phase01_data_science/03-third: no result" in words and "01-first" not in words
    assert "\ncourse verify 01/02 01/03\n" in words
    assert not (root / "outputs").exists()


CHANGES = {  # what is changed, and whether the result is older then
    "a default": ("X = 3", "X = 4", True),
    "an operator": ("X * 2", "X + 2", True),
    "a key": ('"b"', '"c"', True),
    "a statement more": ("X = 3", "X = 3\nY = 4", True),
    "a comment": ("# practice: a region", "# practice: another title", False),
    "a docstring": ('"""Say so."""', '"""Say it aloud."""', False),
    "the head": ("标题", "另一个标题", False),
    "the layout": (
        '{"a": X * 2, "b": [1, 2]}',
        '{\n        "a": X * 2,\n "b": [1, 2],\n    }',
        False,
    ),
    "the quotes": ('"a"', "'a'", False),
}


@pytest.mark.parametrize("old, new, older", CHANGES.values(), ids=CHANGES)
def test_what_makes_a_result_old(root: Path, old: str, new: str, older: bool) -> None:
    change(root, "01-first", old, new)
    assert cli.main(["verify", "--stale", "01/01"]) == older


def test_a_lesson_that_is_loaded_counts(root: Path) -> None:
    load = 'X = load_lesson("phase01_data_science/02-second").X'
    change(root, "01-first", "X = 3", load)
    lesson = Lesson(root / "phase01_data_science" / "01-first.py")
    before = verify.lesson_fingerprint(lesson, root)
    change(root, "02-second", "X = 3", "X = 4")
    assert verify.lesson_fingerprint(lesson, root) != before


def test_a_result_without_a_fingerprint_is_old(root: Path) -> None:
    path = root / "docs" / "RESULTS.json"
    path.write_text(re.sub(r'"lesson": "\w+", ', "", path.read_text(encoding="utf-8")))
    assert cli.main(["verify", "--stale", "01/01"]) == 1


def test_a_script_that_is_no_python_is_old(root: Path) -> None:
    change(root, "01-first", "def show_it(cfg):", "def show_it(cfg:")
    assert cli.main(["verify", "--stale", "01/01"]) == 1
