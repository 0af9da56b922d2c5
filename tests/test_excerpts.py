"""`course sync` and the code in the notes: what is quoted, what is left out, what is refused."""

from pathlib import Path

import pytest

from common.course import cli, excerpts, sync
from common.errors import LessonError
from common.lessons import ROOT

SCRIPT = '''"""1.1 A title
中文
"""


@decorated
def step(x):
    """Left out,
    with all its lines.
    """

    # practice: whole
    # why
    y = x + 1

    return y
    # end practice


class Walk:
    """Left out."""

    def forward(self, x):
        # practice: first
        x = step(x)
        # end practice
        """not a docstring"""
        # practice: second
        """This is kept."""
        x = step(x)

        # end practice
        return x


def long(x):
'''
SCRIPT += "    x += 1\n" * 15
QUOTED = {
    "step": "@decorated\ndef step(x):\n    # why\n    y = x + 1\n\n    return y",
    "step/region": "# why\ny = x + 1\n\nreturn y",
    "Walk.forward/region": "x = step(x)",
    "Walk.forward/region2": '"""This is kept."""\nx = step(x)',
    "Walk.forward": (
        'def forward(self, x):\n    x = step(x)\n    """not a docstring"""\n'
        '    """This is kept."""\n    x = step(x)\n\n    return x'
    ),
}


@pytest.mark.parametrize("name", QUOTED)
def test_what_is_quoted(name: str) -> None:
    assert excerpts.excerpt(SCRIPT, name) == QUOTED[name]


def test_a_class_is_quoted_without_any_docstring() -> None:
    found = excerpts.excerpt(SCRIPT, "Walk")
    assert found.startswith("class Walk:\n    def forward") and "Left out" not in found


@pytest.mark.parametrize(
    "name, says",
    [
        ("gone", "`gone` is not a function"),
        ("Walk.gone", "`Walk.gone` is not"),
        ("step.forward", "is not a function"),
        ("long", "16 lines, an excerpt at most 15"),
        ("long/region", "practice regions in it: 0"),
        ("step/region2", "practice regions in it: 1"),
        ("step/regiom", "practice regions in it: 1"),
        ("", "is not a function"),
    ],
)
def test_what_is_refused(name: str, says: str) -> None:
    with pytest.raises(LessonError, match=says):
        excerpts.excerpt(SCRIPT, name)
    with pytest.raises(LessonError, match="cannot be parsed"):
        excerpts.excerpt("def x(", name)


def block(name: str, code: str = "") -> str:
    return f"<!-- code:{name} -->\n```python\n{code}```\n<!-- /code -->\n"


@pytest.fixture
def note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A note beside its script, in a course of its own."""
    (tmp_path / "phase01_data_science").mkdir()
    (tmp_path / "phase01_data_science" / "01-numpy-basics.py").write_text(SCRIPT, encoding="utf-8")
    folder = tmp_path / "docs" / "phase01_data_science"
    folder.mkdir(parents=True)
    for name in ("README.md", "README.zh.md"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    monkeypatch.setattr("common.lessons.ROOT", tmp_path)
    assert cli.main(["sync"]) == 0
    return folder / "01-numpy-basics.md"


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_sync_fills_excerpts_and_notices_drift(
    note: Path, newline: str, capsys: pytest.CaptureFixture
) -> None:
    for path in (note, note.with_suffix(".zh.md")):
        text = f"# 1.1\n\nBefore.\n\n{block('step/region')}\nAfter.\n"
        path.write_bytes(text.replace("\n", newline).encode())
    before = note.read_bytes()
    assert cli.main(["sync", "--check"]) == 1 and note.read_bytes() == before
    assert "out of date: docs/phase01_data_science/01-numpy-basics.zh.md" in capsys.readouterr().out

    assert cli.main(["sync"]) == 0
    whole = block("step/region", QUOTED["step/region"] + "\n")
    filled = f"# 1.1\n\nBefore.\n\n{whole}\nAfter.\n"
    assert note.read_bytes() == filled.replace("\n", newline).encode()
    assert cli.main(["sync", "--check"]) == 0

    script = note.parents[2] / "phase01_data_science" / "01-numpy-basics.py"
    script.write_text(SCRIPT.replace("x + 1", "x + 2"), encoding="utf-8")
    assert cli.main(["sync", "--check"]) == 1
    assert cli.main(["sync"]) == 0 and b"x + 2" in note.read_bytes()


@pytest.mark.parametrize(
    "text, says",
    [
        (block("gone"), "01-numpy-basics.md:3: `gone` is not a function"),
        (block("long"), "01-numpy-basics.md:3: `long` has 16 lines"),
        ("<!-- code:step -->\n", "01-numpy-basics.md:3: `<!-- code:step -->` has no"),
        ("<!-- /code -->\n", "01-numpy-basics.md:3: `<!-- /code -->` without"),
    ],
)
def test_what_cannot_be_filled_is_one_sentence_with_file_and_line(
    note: Path, text: str, says: str, capsys: pytest.CaptureFixture
) -> None:
    note.write_text(f"# 1.1\n\n{text}\n{block('step/region')}", encoding="utf-8")
    for flags in ([], ["--check"]):
        assert cli.main(["sync", *flags]) == 1
        lines = capsys.readouterr().out.splitlines()
        assert any(says in line and line.endswith(".") for line in lines), lines
        assert "Traceback" not in "".join(lines)
    assert text in note.read_text(encoding="utf-8"), "what cannot be filled stays as it is"


def test_the_rest_is_filled_all_the_same(note: Path) -> None:
    note.write_text(f"# 1.1\n\n{block('gone')}\n{block('step/region')}", encoding="utf-8")
    assert cli.main(["sync"]) == 1
    assert QUOTED["step/region"] in note.read_text(encoding="utf-8")


def test_a_note_without_a_script(note: Path) -> None:
    other = note.with_name("99-nothing.md")
    other.write_text(block("step"), encoding="utf-8")
    changed, faults = sync.sync_notes(note.parents[2])
    assert not changed and faults == [
        "docs/phase01_data_science/99-nothing.md quotes code, and "
        "phase01_data_science/99-nothing.py is not there."
    ]
