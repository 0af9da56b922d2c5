"""`course practice`, `hint`, `solution`, `watch`: on hand-made lessons and on the real ones."""

import ast
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from common import lessons
from common.course import cli, practice, trial
from common.errors import LessonError
from common.lessons import Lesson, has_passed

SMALL = '''"""1.1 Small: a sum and a product
小课：和与积

You will be able to answer
    1. What is a sum?             show_sum        total
    2. And what is a product?     show_product    product, learned
Run       python phase01_demo/01-small.py         at once
Needs     -
"""
from dataclasses import dataclass

from common.checks import check, expect
from common.config import LessonConfig, main


@dataclass
class Config(LessonConfig):
    pass


def add(numbers: list[int]) -> int:
    """The sum of the numbers."""
    # practice: one after the other
    # nothing so far
    total = 0
    for number in numbers:
        total += number
    return total
    # end practice


def multiply(numbers: list[int]) -> int:
    result = 1
    for number in numbers:
        # practice: does the "order" matter?
        result *= number
        # end practice
    return result


def show_sum(cfg: Config) -> None:
    print("\\n[1] A sum")
    check("total", "1 + 2 + 3 = 6", add([1, 2, 3]) == 6)


def show_product(cfg: Config) -> None:
    print("\\n[2] A product")
    check("product", "2 times 3 times 4 = 24", multiply([2, 3, 4]), at_least=24, at_most=24)
    expect("learned", "only judged in a normal run", 0.9, at_least=0.8)


def run(cfg: Config) -> dict:
    show_sum(cfg)
    show_product(cfg)
    return {"accuracy": 0.9}


if __name__ == "__main__":
    main(run, Config, __doc__)
'''


# a project of two functions that the learner writes from their docstrings
STARTER = (
    SMALL.replace("1.1 Small: a sum and a product", "Project 1 Shop: a starter")
    .replace("    result = 1\n    for number in numbers:\n        # practice", "    # practice")
    .replace("        result *= number\n        # end practice\n    return result\n", "ZZ")
    .replace(
        "ZZ",
        "    result = 1\n    for number in numbers:\n        result *= number\n"
        "    return result\n    # end practice\n",
    )
)

NOTE = """# Small

## Practice

### 1. One after the other

<details>
<summary>Hints</summary>

1. begin with nothing
2. add them up,
   as $`\\sum_i x_i`$ says

</details>

### 2. Does the "order" matter?

<details>
<summary>Hints</summary>

1. times, not plus

</details>

## Exercises

1. no hint
"""

NOTE_ZH = """# 小课

## 动手写

### 1. 一个接一个

<details>
<summary>提示</summary>

1. 从零开始

</details>

## 练习
"""


@pytest.fixture
def lesson(tmp_path, monkeypatch) -> Lesson:
    """A course in a temporary folder: a lesson of two regions, a starter, and a project without."""
    root = tmp_path / "course"
    monkeypatch.setattr(lessons, "ROOT", root)
    monkeypatch.setattr(lessons, "PRACTICE", root / "practice")
    monkeypatch.setenv("COURSE_LANG", "en")
    files = {
        "phase01_demo/01-small.py": SMALL,
        "phase01_demo/project-shop.py": STARTER,
        "phase01_demo/project-none.py": '"""Project 1 None: nothing cut out\n"""\n',
        "docs/phase01_demo/01-small.md": NOTE,
        "docs/phase01_demo/01-small.zh.md": NOTE_ZH,
    }
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content, encoding="utf-8")
    return Lesson(root / "phase01_demo" / "01-small.py")


@pytest.fixture
def copy(lesson, capsys) -> Path:
    """The lesson's fresh practice copy."""
    assert cli.main(["practice", "01/01"]) == 0
    return lessons.PRACTICE / "phase01_demo" / "01-small.py"


def fill(copy: Path, *regions: int) -> None:
    """Write the taught code back into these regions only."""
    rest = set(range(len(practice.find_regions(SMALL)))) - set(regions)
    copy.write_text(practice.stub(SMALL, rest), encoding="utf-8")


def said(capsys, *command: str) -> tuple[int, str]:
    """Exit code and all words of a command."""
    capsys.readouterr()
    code = cli.main(list(command))
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_stub_leaves_title_prompt_and_end_mark():
    lines = practice.stub(SMALL, number="01/01").splitlines()
    start = lines.index("    # practice: one after the other")
    # signature and docstring stay, the whole body goes
    assert lines[start - 2 : start + 3] == [
        "def add(numbers: list[int]) -> int:",
        '    """The sum of the numbers."""',
        "    # practice: one after the other",
        '    raise NotImplementedError("your turn: one after the other. '
        'Ask for help with: course hint 01/01")',
        "    # end practice",
    ]
    nested = lines.index('        # practice: does the "order" matter?')
    raised = ast.parse(lines[nested + 1].strip()).body[0].exc.args[0].value
    assert raised == 'your turn: does the "order" matter? Ask for help with: course hint 01/01'
    assert lines[nested + 1].startswith("        raise")
    assert lines[nested + 2] == "        # end practice"


def test_stub_changes_nothing_outside_the_regions():
    whole = SMALL.splitlines()
    cut = practice.stub(SMALL).splitlines()
    inside = {n for r in practice.find_regions(SMALL) for n in range(r.start + 1, r.end)}
    assert [line for line in cut if "raise NotImplementedError" not in line] == [
        line for number, line in enumerate(whole) if number not in inside
    ]


def test_hints_of_the_first_edition_are_no_code():
    old = SMALL.replace("    # nothing so far\n", "    # hint: begin with nothing\n")
    assert "hint: begin" not in practice.stub(old)
    assert practice.find_regions(old)[0].code.startswith("total = 0\n")


@pytest.mark.parametrize(
    "text",
    [
        "# practice: a\nx = 1\n",
        "x = 1\n# end practice\n",
        "# practice: a\n# practice: b\n# end practice\n",
    ],
)
def test_marks_without_partner_are_refused(text):
    with pytest.raises(LessonError, match=r"line [12]"):
        practice.find_regions(text)


@pytest.mark.parametrize("command", ["practice", "hint", "solution", "watch"])
def test_a_region_without_an_end_gets_file_and_line(lesson, capsys, command):
    lesson.path.write_text(SMALL.replace("    # end practice\n", "", 1), encoding="utf-8")
    code, words = said(capsys, command, "01/01")
    line = 1 + SMALL.replace("    # end practice\n", "", 1).splitlines().index(
        '        # practice: does the "order" matter?'
    )
    assert code == 1 and words.count("\n") == 1
    assert words.startswith(f"error: phase01_demo/01-small.py, line {line}: “# practice: …” and")
    lesson.path.write_text('"""1.1 x\n"""\n# practice: a\nx = 1\n', encoding="utf-8")
    words = said(capsys, command, "01/01")[1]
    wanted = "01-small.py, line 3: “# practice: a” has no “# end practice”."
    assert wanted in words and words.count("\n") == 1


def test_practice_never_overwrites(copy, capsys):
    copy.write_text("my work", encoding="utf-8")
    code, words = said(capsys, "practice", "01/01")
    assert code == 0 and copy.read_text() == "my work" and "stays as it is" in words


def test_reset_keeps_the_old_copies(copy, capsys):
    for number in (1, 2):
        copy.write_text(f"work {number}", encoding="utf-8")
        code, words = said(capsys, "practice", "01/01", "--reset")
        assert code == 0 and f"01-small.py.bak-{number}" in words
        assert copy.with_name(f"01-small.py.bak-{number}").read_text() == f"work {number}"
        assert copy.read_text(encoding="utf-8") == practice.stub(SMALL, number="01/01")


def test_practice_says_where_and_what_next(lesson, capsys):
    code, words = said(capsys, "practice", "1/1")
    line = practice.stub(SMALL).splitlines().index("    # practice: one after the other") + 1
    assert code == 0 and f"1. one after the other (line {line})" in words
    assert "course practice 01/01 --check" in words and "course hint 01/01" in words


@pytest.mark.parametrize("command", ["practice", "hint", "solution", "watch"])
def test_projects_have_nothing_to_practise(lesson, capsys, command):
    code, words = said(capsys, command, "01/project-none")
    assert code == 1 and words.count("\n") == 1 and "course run 01/project-none" in words


@pytest.mark.parametrize(
    "command", [("practice", "01/01", "--check"), ("hint", "01/01"), ("watch", "01/01")]
)
def test_without_a_copy_the_next_step_is_named(lesson, capsys, command):
    code, words = said(capsys, *command)
    assert code == 1 and "course practice 01/01 makes one" in words


def test_check_names_the_region_that_is_missing(copy, capsys):
    code, words = said(capsys, "practice", "01/01", "--check")
    assert code == 1 and "✗ your turn: one after the other." in words
    assert "still to write: 1." in words and "still to write: 2." in words
    fill(copy, 0)
    code, words = said(capsys, "practice", "01/01", "--check")
    assert (
        code == 1
        and "✓ 1 + 2 + 3 = 6" in words
        and '✗ your turn: does the "order" matter?' in words
    )
    assert "still to write: 1." not in words and "still to write: 2." in words
    assert not has_passed(copy)


def test_check_passes_a_whole_copy_and_remembers_it(copy, capsys):
    fill(copy, 0, 1)
    code, words = said(capsys, "practice", "01/01", "--check")
    assert code == 0 and "✓ passed: 2 regions written by you, 2 claims hold" in words
    assert "– only judged in a normal run" in words
    assert "course done 01/01" in words and "course solution 01/01" in words
    assert has_passed(copy)
    copy.write_text(copy.read_text(encoding="utf-8") + "# edited\n", encoding="utf-8")
    assert not has_passed(copy)


def line_of(text: str, part: str) -> int:
    return next(n for n, line in enumerate(text.splitlines(), 1) if part in line)


def test_check_says_what_is_wrong(copy, capsys):
    wrong = SMALL.replace("total += number", "total -= number")
    copy.write_text(wrong, encoding="utf-8")
    code, words = said(capsys, "practice", "01/01", "--check")
    assert code == 1 and not has_passed(copy)
    assert "  ✗ 1 + 2 + 3 = 6" in words and "✗ the claim “total” does not hold" in words
    assert "Traceback" not in words


def test_a_traceback_shows_the_learners_own_frames(copy, capsys):
    wrong = SMALL.replace("total += number", "total += numbr")
    copy.write_text(wrong, encoding="utf-8")
    code, words = said(capsys, "practice", "01/01", "--check")
    line = line_of(wrong, "numbr")
    assert code == 1 and "Traceback (most recent call last):" in words
    assert f'File "{copy}", line {line}, in add' in words
    assert f"✗ line {line}: total += numbr\n  NameError: name 'numbr' is not defined" in words
    assert "config.py" not in words and "runpy" not in words


def test_a_learners_own_prints_reach_the_screen(copy, capsys):
    line = "    print('so far', numbers)\n    print('aside', file=__import__('sys').stderr)\n"
    text = SMALL.replace("    # nothing so far\n", line)
    copy.write_text(text, encoding="utf-8")
    code, words = said(capsys, "practice", "01/01", "--check")
    assert code == 0 and "so far [1, 2, 3]\n" in words and "aside\n" in words
    assert words.index("so far") < words.index("✓ 1 + 2 + 3 = 6")


def test_check_ends_a_loop_without_end_and_shows_what_it_printed(copy, capsys):
    loop = "    print('half a line', end='')\n    while True: pass\n"
    copy.write_text(SMALL.replace("    # nothing so far\n", loop), encoding="utf-8")
    code, words = said(capsys, "practice", "01/01", "--check", "--limit", "3")
    assert code == 1 and "✗ no end after 3 s" in words and "half a line" in words
    assert "still running" not in words and not has_passed(copy)


def test_a_long_check_says_so(copy, capsys, monkeypatch):
    monkeypatch.setattr(trial, "PATIENCE", 1)
    monkeypatch.setattr(practice, "LIMIT", 3)
    loop = "    while True: pass\n"
    copy.write_text(SMALL.replace("    # nothing so far\n", loop), encoding="utf-8")
    words = said(capsys, "practice", "01/01", "--check")[1]
    note = "still running after 1 s: it is stopped after 3 s, --limit N gives it longer"
    assert words.index(note) < words.index("✗ no end after 3 s")


def test_the_limits_as_they_are():
    assert (trial.PATIENCE, practice.LIMIT) == (10, 60)


@pytest.mark.parametrize("value", ["0", "-1", "soon", "1.5"])
def test_a_limit_that_is_none(copy, capsys, value):
    with pytest.raises(SystemExit) as caught:
        cli.main(["practice", "01/01", "--check", "--limit", value])
    words = capsys.readouterr().err
    assert caught.value.code == 2 and words.count("\n") == 1 and "--limit" in words


def test_a_limit_without_a_check(copy, capsys):
    code, words = said(capsys, "practice", "01/01", "--limit", "3")
    assert code == 1 and "--limit goes with --check" in words


# what may lie where the copy should be, and the words for it
SPOILT = {
    "not UTF-8": (SMALL.encode("gb18030"), "line 2: this is not UTF-8. Save it as UTF-8"),
    "cut in a character": (
        SMALL.encode().partition("课".encode()[1:])[0],
        "line 2: the file ends in the middle of a",
    ),
    "empty": (b"", "is empty"),
    "blank": (b"\n \n", "is empty"),
    "half-saved": (SMALL[: SMALL.index("add([1")].encode(), "SyntaxError: "),
    "unclosed": (
        SMALL.replace("total += number", "total += (number").encode(),
        "SyntaxError: '(' was never closed in “total += (number”",
    ),
    "a NUL": (SMALL.encode() + b"x = '\0'\n", "null bytes"),
    "a folder": (None, "is a folder, not a file"),
    "leaves early": (
        SMALL.replace("from dataclasses", "import sys\nsys.exit(0)\nfrom dataclasses").encode(),
        "✗ it ended before a claim was written down (missing: total, product, learned)",
    ),
    "crashes": (
        b"import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n",
        "✗ it ended by SIGKILL, without a word",
    ),
}


def spoil(copy: Path, kind: str) -> str:
    content, words = SPOILT[kind]
    copy.unlink()
    if content is None:
        copy.mkdir()
    else:
        copy.write_bytes(content)
    return words


@pytest.mark.parametrize("kind", SPOILT)
def test_a_spoilt_copy_gets_one_sentence(copy, capsys, kind):
    wanted = spoil(copy, kind)
    code, words = said(capsys, "practice", "01/01", "--check")
    assert code == 1 and wanted in words and "Traceback" not in words
    assert "every region is written" not in words and "the claims hold" not in words
    if "✗" not in wanted:
        assert words.startswith("error: ") and words.count("\n") == 1
        assert "practice/phase01_demo/01-small.py" in words


@pytest.mark.parametrize("kind", ["not UTF-8", "cut in a character", "empty", "a folder"])
@pytest.mark.parametrize("command", ["practice", "hint"])
def test_no_other_command_is_taken_in_by_a_spoilt_copy(copy, capsys, command, kind):
    wanted = spoil(copy, kind)
    code, words = said(capsys, command, "01/01")
    assert code == 1 and wanted in words and words.count("\n") == 1
    assert "--reset begins again" in words


def test_reset_sets_a_spoilt_copy_aside(copy, capsys):
    for kind in ("a folder", "not UTF-8"):
        spoil(copy, kind)
        assert said(capsys, "practice", "01/01", "--reset")[0] == 0
        assert copy.read_text(encoding="utf-8").startswith('"""1.1 Small')


@pytest.mark.parametrize("kind", SPOILT)
def test_watch_goes_on_after_a_spoilt_copy(copy, capsys, monkeypatch, kind):
    wanted = spoil(copy, kind)

    def mend(path, before):
        if path.is_dir():
            path.rmdir()
        elif path.read_text(encoding="utf-8", errors="replace") == SMALL:
            raise KeyboardInterrupt
        path.write_text(SMALL, encoding="utf-8")

    monkeypatch.setattr(practice, "wait_for_save", mend)
    code, words = said(capsys, "watch", "01/01")
    assert code == 0 and words.index(wanted) < words.index("✓ passed")


def test_watch_survives_a_deleted_copy(copy, capsys, monkeypatch):
    def delete(path, before):
        if not path.exists():
            raise KeyboardInterrupt
        path.unlink()

    monkeypatch.setattr(practice, "wait_for_save", delete)
    code, words = said(capsys, "watch", "01/01")
    assert code == 0 and "✗ there is no practice copy of 01/01" in words


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("busy", ["time.sleep(100)", "[pow(3, 10**8) for _ in range(9)]"])
def test_no_lesson_outlives_a_killed_check(copy, busy):
    """Also one that holds the interpreter's lock, so that no thread of its own could end it."""
    number = lessons.ROOT / "number"
    text = f"import os, time\nopen({str(number)!r}, 'w').write(str(os.getpid()))\n{busy}\n"
    copy.write_text(text, encoding="utf-8")
    command = [sys.executable, "-c", in_this_course("practice", "01/01", "--check")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: number.exists() and number.read_text())
        process.kill()
    child = int(number.read_text())
    wait_until(lambda: not is_alive(child))
    left = [path.name for path in lessons.ROOT.rglob("*") if path.name.startswith((".", "tmp"))]
    assert all(path.startswith(".lock-") for path in left)


def is_alive(process: int) -> bool:
    """A zombie that nobody has asked about yet is dead."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat")
    return not (state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z")


def wait_until(condition, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def in_this_course(*command: str) -> str:
    """A program that runs `course` on the temporary course of the test."""
    return (
        "import sys; from pathlib import Path; from common import lessons; "
        "from common.course import cli; "
        f"lessons.ROOT = Path({str(lessons.ROOT)!r}); "
        "lessons.PRACTICE = lessons.ROOT / 'practice'; "
        f"sys.exit(cli.main({list(command)!r}))"
    )


def test_a_starter_works_as_a_lesson_does(lesson, capsys):
    code, words = said(capsys, "practice", "01/project-shop")
    copy = lessons.PRACTICE / "phase01_demo" / "project-shop.py"
    assert code == 0 and "practice/phase01_demo/project-shop.py is yours: 2 regions" in words
    text = copy.read_text(encoding="utf-8")
    assert text.count("raise NotImplementedError") == 2 and "result" not in text
    code, words = said(capsys, "practice", "01/project-shop", "--check")
    assert code == 1 and "course hint 01/project-shop" in words
    assert "it begins with\n        total = 0" in said(capsys, "hint", "01/project-shop")[1]
    copy.write_text(STARTER, encoding="utf-8")
    assert said(capsys, "practice", "01/project-shop", "--check")[0] == 0


@pytest.mark.parametrize("typed", ["copy", "lesson", "from the folder", "relative"])
def test_paths_name_a_lesson(lesson, copy, capsys, monkeypatch, typed):
    monkeypatch.chdir(copy.parent)
    names = {
        "copy": str(copy),
        "lesson": str(lesson.path),
        "from the folder": "01-small.py",
        "relative": "../../practice/phase01_demo/01-small.py",
    }
    code, words = said(capsys, "practice", names[typed])
    assert code == 0 and "practice/phase01_demo/01-small.py is there already" in words


def test_a_path_with_a_blank_is_quoted(tmp_path, capsys, monkeypatch, lesson):
    monkeypatch.setattr(lessons, "PRACTICE", tmp_path / "my course" / "practice")
    words = said(capsys, "practice", "01/01")[1]
    place = tmp_path / "my course" / "practice" / "phase01_demo" / "01-small.py"
    assert f'"{place}" is yours' in words


def test_check_without_docstrings(copy, capsys, monkeypatch):
    monkeypatch.setenv("PYTHONOPTIMIZE", "2")
    fill(copy, 0, 1)
    code, words = said(capsys, "practice", "01/01", "--check")
    assert code == 0 and "1.1 Small: a sum and a product" in words


def test_an_empty_region_that_nothing_reaches_is_not_passed(copy, capsys):
    text = practice.stub(SMALL, [1]).replace(
        "        # practice", "        continue\n        # practice"
    )
    copy.write_text(text.replace("    result = 1", "    result = 24"), encoding="utf-8")
    code, words = said(capsys, "practice", "01/01", "--check")
    assert (
        code == 1
        and "not all of it is written" in words
        and "still to write: 2." in words
        and not has_passed(copy)
    )


@pytest.mark.parametrize(
    "text, expected",
    [
        ('print("  ✓ all good")\n', "missing: total, product, learned"),
        (SMALL.replace("    show_sum(cfg)\n", ""), "missing: total"),
    ],
)
def test_a_copy_that_claims_less_is_not_passed(copy, capsys, text, expected):
    fill(copy, 0, 1)
    assert said(capsys, "practice", "01/01", "--check")[0] == 0  # leaves a good result.json behind
    copy.write_text(text, encoding="utf-8")
    code, words = said(capsys, "practice", "01/01", "--check")
    assert code == 1 and expected in words and not has_passed(copy)


def test_a_lesson_that_changed_gets_a_sentence(lesson, copy, capsys):
    assert "was changed" not in said(capsys, "practice", "01/01")[1]
    lesson.path.write_text(SMALL + "# newer\n", encoding="utf-8")
    assert "01/01 was changed after your copy was made" in said(capsys, "practice", "01/01")[1]
    assert (
        "01/01 was changed after your copy was made"
        in said(capsys, "practice", "01/01", "--check")[1]
    )
    assert "was changed" not in said(capsys, "practice", "01/01", "--reset")[1]


def test_hints_come_one_at_a_time_for_the_first_open_region(copy, capsys):
    words = said(capsys, "hint", "01/01")[1]
    assert "hint 1 of 3: begin with nothing" in words and "hint 2" not in words
    words = said(capsys, "hint", "01/01")[1]
    assert "hint 1 of 3" in words and "hint 3" not in words
    assert "hint 2 of 3: add them up,\n    as $`\\sum_i x_i`$ says\n" in words
    words = said(capsys, "hint", "01/01")[1]
    # the comment above it is no statement
    assert "hint 3 of 3: it begins with\n        total = 0\n" in words and "no more" not in words
    assert "There are no more" in said(capsys, "hint", "01/01")[1]
    fill(copy, 0)
    assert "2. does the" in said(capsys, "hint", "01/01")[1]
    assert "1. one after" in said(capsys, "hint", "01/01", "--region", "1")[1]
    fill(copy, 0, 1)
    assert "every region is written" in said(capsys, "hint", "01/01")[1]
    code, words = said(capsys, "hint", "01/01", "--region", "3")
    assert code == 1 and "--region 1 to --region 2" in words


def test_hints_begin_again_after_a_reset_and_survive_a_damaged_file(copy, capsys):
    said(capsys, "hint", "01/01")
    said(capsys, "practice", "01/01", "--reset")
    assert "hint 2" not in said(capsys, "hint", "01/01")[1]
    (lessons.PRACTICE / "hints.json").write_text("{broken")
    assert "hint 1 of 3" in said(capsys, "hint", "01/01")[1]
    assert json.loads((lessons.PRACTICE / "hints.json").read_text()) == {
        "phase01_demo/01-small": {"0": 1}
    }


def test_hints_in_chinese_and_in_english_where_there_are_none(copy, capsys, monkeypatch):
    monkeypatch.setenv("COURSE_LANG", "zh")
    words = said(capsys, "hint", "01/01")[1]
    assert "hint 1 of 2: 从零开始" in words
    words = said(capsys, "hint", "01/01", "--region", "2")[1]
    assert "there is no hint in Chinese, so here is the English one (docs/phase01_demo" in words
    assert "01-small.zh.md, line 5: no block “### 2. …”" in words
    assert "hint 1 of 2: times, not plus" in words


@pytest.mark.parametrize(
    "note, words",
    [
        (None, "docs/phase01_demo/01-small.md cannot be read"),
        ("# Small\n\n## Exercises\n", "01-small.md, line 3: no section “## Practice”"),
        (NOTE.replace("1. begin with nothing\n2. add", "add"), "line 5: region 1 has no hints."),
        (NOTE.replace("### 1.", "### 3."), "line 16: no block “### 1. …”"),
        (
            NOTE.replace("One after the other", "All at once"),
            "line 5: region 1 is called “one after the other”, not “All at once”",
        ),
    ],
)
def test_a_note_without_the_hints_of_a_region(lesson, copy, capsys, note, words):
    file = lessons.ROOT / "docs" / "phase01_demo" / "01-small.md"
    if note is None:
        file.unlink()
    else:
        file.write_text(note, encoding="utf-8")
    code, printed = said(capsys, "hint", "01/01")
    line = printed.splitlines()[1]
    assert code == 0 and line.startswith("the note does not help here: docs/") and words in line
    assert "hint 1 of 1: it begins with\n        total = 0" in printed


@pytest.mark.parametrize(
    "code, first",
    [
        ("# why\n\nx = 1\ny = 2", "x = 1"),
        ("x = f(\n    1,\n)\ny = 2", "x = f(\n    1,\n)"),
        ("for x in y:\n    # why\n    a(x)\n    b(x)", "for x in y:"),
        ("if x: y()\nz()", "if x: y()"),
        ("with a(\n    b\n) as c:\n    d()", "with a(\n    b\n) as c:"),
        ("return x", "return x"),
        ("# half\nelse:\n    x", "else:"),
        ("# nothing", ""),
    ],
)
def test_the_last_hint_is_the_first_statement(code, first):
    assert practice.first_statement(code) == first


def test_a_commented_prompt_counts_as_written(copy):
    regions, text = practice.find_regions(SMALL), copy.read_text(encoding="utf-8")
    assert practice.unfinished(text, regions) == [0, 1]
    assert practice.unfinished(text.replace("    raise NotI", "    # raise NotI", 1), regions) == [
        1
    ]


def test_the_solution_opens_with_a_pass_and_stays_open(copy, capsys):
    code, words = said(capsys, "solution", "01/01")
    assert code == 1 and words.count("\n") == 1 and "--check" in words and "total" not in words
    fill(copy, 0, 1)
    said(capsys, "practice", "01/01", "--check")
    said(capsys, "practice", "01/01", "--reset")
    code, words = said(capsys, "solution", "01/01")
    taught = "    total = 0\n    for number in numbers:\n        total += number\n"
    assert code == 0 and taught in words and "result *= number" in words
    assert f"01-small.py:{line_of(SMALL, 'practice: one after')}" in words


def test_wait_for_save_returns_at_a_change_only(tmp_path):
    file = tmp_path / "a.py"
    file.write_text("1")
    before = practice.saved_at(file)
    waiting = threading.Thread(
        target=practice.wait_for_save, args=(file, before, 0.01), daemon=True
    )
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()
    file.unlink()  # as an editor does that writes beside and renames
    waiting.join(0.1)
    assert waiting.is_alive()
    file.write_text("22")
    waiting.join(5)
    assert not waiting.is_alive()


def test_watch_checks_again_after_a_save(copy, capsys, monkeypatch):
    saves = iter([lambda: fill(copy, 0, 1)])

    def save(path, before):
        assert path == copy and before == practice.saved_at(copy)
        next(saves, _ctrl_c)()

    monkeypatch.setattr(practice, "wait_for_save", save)
    code, words = said(capsys, "watch", "01/01")
    assert code == 0 and words.index("✗ your turn") < words.index("✓ passed") < words.index(
        "no longer watching"
    )


def _ctrl_c():
    raise KeyboardInterrupt


@pytest.mark.skipif(os.name == "nt", reason="SIGINT to a process group")
def test_watch_ends_cleanly_with_ctrl_c(copy):
    with subprocess.Popen(
        [sys.executable, "-c", in_this_course("watch", "01/01")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
    ) as process:
        for line in process.stdout:
            if line.startswith("waiting"):
                break
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0 and "no longer watching" in out and "Traceback" not in err


REAL = [
    lesson
    for lesson in lessons.all_lessons()
    if practice.find_regions(lesson.path.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize(
    "key",
    [
        "phase01_data_science/01-numpy-basics",
        pytest.param("phase03_pytorch/09-training-loop", marks=pytest.mark.full),
    ],
)
def test_a_real_lesson_from_stub_to_solution(key, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(lessons, "PRACTICE", tmp_path / "practice")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    lesson = lessons.find_lesson(key)
    text = lesson.path.read_text(encoding="utf-8")
    regions = practice.find_regions(text)
    copy = lessons.PRACTICE / f"{key}.py"
    assert cli.main(["practice", lesson.number]) == 0
    code, words = said(capsys, "practice", lesson.number, "--check")
    assert code == 1
    assert any(
        f"✗ {region.prompt} Ask for help with: course hint {lesson.number}" in words
        for region in regions
    )
    assert all(
        f"still to write: {n}. {region.title}" in words for n, region in enumerate(regions, 1)
    )
    assert said(capsys, "solution", lesson.number)[0] == 1
    copy.write_text(text, encoding="utf-8")
    code, words = said(capsys, "practice", lesson.number, "--check")
    assert code == 0 and f"✓ passed: {len(regions)} regions" in words and has_passed(copy)
    code, words = said(capsys, "solution", lesson.number)
    assert code == 0 and all(
        line.strip() in words for region in regions for line in region.code.splitlines()
    )


@pytest.mark.parametrize("lesson", REAL, ids=lambda lesson: lesson.key)
def test_every_stub_parses_and_is_seen_as_unfinished(lesson):
    text = lesson.path.read_text(encoding="utf-8")
    regions = practice.find_regions(text)
    ast.parse(practice.stub(text))
    assert practice.unfinished(practice.stub(text), regions) == list(range(len(regions)))
    assert practice.unfinished(text, regions) == []
