"""`course practice`, `hint`, `solution`, `watch`: on hand-made lessons, and on every lesson that has regions."""

import ast
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from common import lessons
from common.course import cli, practice
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
    # practice: one after the other
    # hint: begin with nothing
    # hint: total = 0, then a loop
    total = 0
    for number in numbers:
        total += number
    # end practice
    return total


def multiply(numbers: list[int]) -> int:
    result = 1
    for number in numbers:
        # practice: does the "order" matter?
        # hint: times, not plus
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


@pytest.fixture
def lesson(tmp_path, monkeypatch) -> Lesson:
    """A course in a temporary folder, with one lesson of two regions and one project."""
    root = tmp_path / "course"
    monkeypatch.setattr(lessons, "ROOT", root)
    monkeypatch.setattr(lessons, "PRACTICE", root / "practice")
    (root / "phase01_demo").mkdir(parents=True)
    (root / "phase01_demo" / "01-small.py").write_text(SMALL, encoding="utf-8")
    (root / "phase01_demo" / "project-none.py").write_text(
        '"""Project 1 None: nothing cut out\n"""\n'
    )
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
    lines = practice.stub(SMALL).splitlines()
    start = lines.index("    # practice: one after the other")
    assert lines[start : start + 4] == [
        "    # practice: one after the other",
        '    raise NotImplementedError("your turn: one after the other. Ask for help with: course hint 01/01")',
        "    # end practice",
        "    return total",
    ]
    nested = lines.index('        # practice: does the "order" matter?')
    raised = ast.parse(lines[nested + 1].strip()).body[0].exc.args[0].value
    assert raised == 'your turn: does the "order" matter? Ask for help with: course hint 01/01'
    assert (
        lines[nested + 1].startswith("        raise")
        and lines[nested + 2] == "        # end practice"
    )


def test_stub_takes_only_the_regions_asked_for():
    assert practice.stub(SMALL, []) == SMALL
    one = practice.stub(SMALL, [1])
    assert "total += number" in one and "result *= number" not in one
    assert practice.stub(practice.stub(SMALL, [1]), [0]) == practice.stub(SMALL)
    assert practice.stub(practice.stub(SMALL)) == practice.stub(SMALL)


def test_stub_changes_nothing_outside_the_regions():
    whole, cut = SMALL.splitlines(), practice.stub(SMALL).splitlines()
    inside = {n for r in practice.find_regions(SMALL) for n in range(r.start + 1, r.end)}
    assert [line for line in cut if "raise NotImplementedError" not in line] == [
        line for number, line in enumerate(whole) if number not in inside
    ]


@pytest.mark.parametrize(
    "text",
    [
        "# practice: a\nx = 1\n",
        "x = 1\n# end practice\n",
        "# practice: a\n# practice: b\n# end practice\n",
    ],
)
def test_marks_without_partner_are_refused(text):
    with pytest.raises(LessonError, match="line [12]"):
        practice.find_regions(text)


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
        assert copy.read_text(encoding="utf-8") == practice.stub(SMALL)


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


@pytest.mark.parametrize(
    "wrong, expected",
    [
        ("total -= number", ["  ✗ 1 + 2 + 3 = 6", "✗ the claim “total” does not hold"]),
        ("total += numbr", ["line 27: total += numbr", "NameError: name 'numbr' is not defined"]),
        ("total += (number", ["line 27: total += (number", "SyntaxError: '(' was never closed"]),
    ],
)
def test_check_says_what_is_wrong(copy, capsys, wrong, expected):
    copy.write_text(SMALL.replace("total += number", wrong), encoding="utf-8")
    code, words = said(capsys, "practice", "01/01", "--check")
    assert code == 1 and not has_passed(copy)
    assert all(text in words for text in expected) and "Traceback" not in words


def test_check_ends_a_loop_without_end(copy, capsys, monkeypatch):
    monkeypatch.setattr(practice, "LIMIT", 2)
    copy.write_text(SMALL.replace("    total = 0", "    while True: pass"), encoding="utf-8")
    code, words = said(capsys, "practice", "01/01", "--check")
    assert code == 1 and "no end after 2 s" in words


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
    assert "hint 1 of 2: begin with nothing" in words and "hint 2" not in words
    words = said(capsys, "hint", "01/01")[1]
    assert (
        "hint 1 of 2" in words
        and "hint 2 of 2: total = 0, then a loop" in words
        and "no more" not in words
    )
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
    assert "hint 1 of 2" in said(capsys, "hint", "01/01")[1]
    assert json.loads((lessons.PRACTICE / "hints.json").read_text()) == {
        "phase01_demo/01-small": {"0": 1}
    }


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
    assert (
        code == 0
        and "    total = 0\n    for number in numbers:\n        total += number\n" in words
    )
    assert "result *= number" in words and "01-small.py:22" in words and "#" not in words


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
    program = (
        "import sys; from pathlib import Path; from common import lessons; from common.course import cli; "
        f"lessons.ROOT = Path({str(lessons.ROOT)!r}); lessons.PRACTICE = lessons.ROOT / 'practice'; "
        "sys.exit(cli.main(['watch', '01/01']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
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
