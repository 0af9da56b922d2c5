"""Finding lessons by any name a learner may type, reading their headers, and loading them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from common import lessons
from common.errors import LessonError
from common.lessons import (
    ROOT,
    Lesson,
    Predict,
    all_lessons,
    find_lesson,
    fingerprint,
    load_lesson,
    passed_practice,
    shown,
)

HEADER = '''"""98.1 A title: with more behind it
中文标题

You will be able to answer
    1. Is it short?                        show_short       one, two-words
    2. A question with  two blanks, show_x?  show_gaps   three
    not a question                          show_no
Predict   speed-up: how many times faster is the array,
          with a million numbers?
Run       python phase98_test/01-first-step.py                        about 2 s
Needs     phase01_data_science/01-numpy-basics (windows),
          phase03_pytorch/09-training-loop
Notation  B batch size
"""
WORD = "taught"
'''


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course of its own, which load_lesson takes for the repository."""
    for name in (
        "phase98_test/01-first-step",
        "phase98_test/02-second-step",
        "phase98_test/project-shop",
        "phase99_more/01-first-step",
        "phase99_more/project-one",
        "phase99_more/project-two",
        "phase99_more/helper",
        "notes/01-no-lesson",
    ):
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(HEADER, encoding="utf-8")
    monkeypatch.setattr(lessons, "ROOT", tmp_path)
    monkeypatch.setattr(lessons, "PRACTICE", tmp_path / "practice")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [
        name for name in sys.modules if name.startswith(("phase98", "phase99", "practice"))
    ]:
        del sys.modules[name]


def test_order_and_what_counts_as_a_lesson(course):
    assert [lesson.number for lesson in all_lessons(course)] == [
        "98/01",
        "98/02",
        "98/project-shop",
        "99/01",
        "99/project-one",
        "99/project-two",
    ]


@pytest.mark.parametrize(
    "name",
    [
        "98/02",
        " 98/2 ",
        "98.2",
        "phase98_test/02-second-step",
        "phase98_test/02-second-step.py",
        "02-second-step",
        "./phase98_test/02-second-step.py",
        "phase98_test\\02-second-step.py",
        "98/02-second-step",
    ],
)
def test_names_of_a_lesson(course, name):
    assert find_lesson(name, course).key == "phase98_test/02-second-step"


@pytest.mark.parametrize(
    "name",
    [
        "shop",
        "project-shop",
        "98/shop",
        "98/project-shop",
        "98/project",
        "phase98_test/project-shop.py",
    ],
)
def test_names_of_a_project(course, name):
    assert find_lesson(name, course).key == "phase98_test/project-shop"


def test_paths_from_anywhere(course, monkeypatch):
    path = course / "phase98_test" / "02-second-step.py"
    monkeypatch.chdir(course / "notes")
    for name in (str(path), str(path.with_suffix("")), "../phase98_test/02-second-step.py"):
        assert find_lesson(name, course).path == path


@pytest.mark.parametrize(
    "name", ["1/1", "01/01", "1.1", "phase01_data_science/01-numpy-basics", "01-numpy-basics"]
)
def test_names_in_this_course(name):
    assert find_lesson(name).key == "phase01_data_science/01-numpy-basics"
    assert find_lesson("mnist").key == "phase03_pytorch/project-mnist"


@pytest.mark.parametrize(
    "name, words",
    [
        ("01-first-step", "“01-first-step” could be 98/01 or 99/01: say which."),
        ("99/project", "could be 99/project-one or 99/project-two"),
        ("98/22", "there is no lesson “98/22”; did you mean 98/02? `course list` shows them all."),
        ("02-secnd-step", "did you mean 02-second-step?"),
        ("shopp", "did you mean shop?"),
        ("pottery", "there is no lesson “pottery”. `course list` shows them all."),
        ("", "there is no lesson “”"),
        ("helper", "there is no lesson “helper”"),
        ("98/" + "9" * 5000, "there is no lesson"),
    ],
)
def test_unknown_and_ambiguous_names(course, name, words):
    with pytest.raises(LessonError, match=r"^[^\n]*$") as caught:
        find_lesson(name, course)
    assert words in str(caught.value)


# ---- headers


def test_header(course):
    lesson = find_lesson("98/1", course)
    assert (lesson.title, lesson.title_zh) == ("A title: with more behind it", "中文标题")
    assert [(q.number, q.text, q.function, q.claims) for q in lesson.questions] == [
        (1, "Is it short?", "show_short", ("one", "two-words")),
        (2, "A question with  two blanks, show_x?", "show_gaps", ("three",)),
    ]
    assert lesson.needs == [
        "phase01_data_science/01-numpy-basics",
        "phase03_pytorch/09-training-loop",
    ]
    assert not lesson.is_project
    question = "how many times faster is the array, with a million numbers?"
    assert lesson.predict == Predict("speed-up", question, 8)


def test_header_of_a_file_without_one(tmp_path):
    path = tmp_path / "phase98_test" / "project-x.py"
    path.parent.mkdir()
    path.write_text("x = 1\n")
    lesson = Lesson(path)
    assert (lesson.doc, lesson.title, lesson.title_zh, lesson.questions, lesson.needs) == (
        "",
        "",
        "",
        [],
        [],
    )
    assert lesson.is_project and lesson.number == "98/project-x" and lesson.predict is None


def test_predict_is_read_without_importing(tmp_path):
    path = tmp_path / "phase98_test" / "01-broken.py"
    path.parent.mkdir()
    path.write_text('"""98.1 A\nPredict   x: how many?\n"""\nraise SystemExit\n')
    assert Lesson(path).predict == Predict("x", "how many?", 2)


@pytest.mark.parametrize("lesson", all_lessons(), ids=lambda lesson: lesson.key)
def test_every_line_predict_can_be_read(lesson):
    """“Predict   how many?” without a key would be passed over in silence."""
    assert len(re.findall(r"^Predict\b", lesson.doc, re.MULTILINE)) == bool(lesson.predict)


def test_a_path_to_paste(course, monkeypatch):
    assert shown(course / "practice" / "a.py") == str(Path("practice", "a.py"))
    assert shown(course / "a folder" / "a.py") == f'"{Path("a folder", "a.py")}"'
    assert shown(Path("/else where/a.py")) == f'"{Path("/else where/a.py")}"'


def test_where_results_go(course):
    assert (
        find_lesson("98/1", course).out() == course / "outputs" / "phase98_test" / "01-first-step"
    )
    assert find_lesson("98/1", course).out(tiny=True).name == "tiny"
    mine = Lesson(course / "practice" / "phase98_test" / "01-first-step.py")
    assert mine.out() == course / "practice" / "outputs" / "phase98_test" / "01-first-step"


# ---- loading


def test_load_lesson_takes_digits_and_hyphens_from_any_folder(tmp_path):
    code = (
        "import sys\nfrom common.lessons import load_lesson\n"
        "lesson = load_lesson('phase01_data_science/01-numpy-basics')\n"
        "assert lesson is load_lesson('phase01_data_science/01-numpy-basics')\n"
        "print(lesson.strides_of((2, 3), 8), 'torch' in sys.modules)"
    )
    # a folder of the same name where the learner stands
    (tmp_path / "phase01_data_science").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[0] = {str(ROOT)!r}\n{code}"],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "(24, 8) False\n", done.stderr


def practise(course: Path, passed: bool) -> Path:
    copy = course / "practice" / "phase98_test" / "01-first-step.py"
    copy.parent.mkdir(parents=True)
    copy.write_text(HEADER.replace("taught", "mine"), encoding="utf-8")
    if passed:
        (course / "practice" / "passed.json").write_text(
            json.dumps({"phase98_test/01-first-step": fingerprint(copy)})
        )
    return copy


@pytest.mark.parametrize(
    "asked, passed, edited, word",
    [
        ("1", True, False, "mine"),
        ("0", True, False, "taught"),
        ("1", False, False, "taught"),
        ("1", True, True, "taught"),
    ],
)
def test_only_a_copy_that_passed_is_used_and_only_when_asked(
    course, monkeypatch, capsys, asked, passed, edited, word
):
    copy = practise(course, passed)
    if edited:
        copy.write_text(copy.read_text(encoding="utf-8") + "# changed since\n", encoding="utf-8")
    monkeypatch.setenv("COURSE_MINE", asked)
    loaded = load_lesson("phase98_test/01-first-step")
    assert word == loaded.WORD
    assert ("yours: practice" in capsys.readouterr().out) == (word == "mine")
    assert load_lesson("phase98_test/02-second-step").WORD == "taught"  # no copy of that one


@pytest.mark.parametrize("content", ["", "not json", "[]", "\x00\xff"])
def test_a_damaged_list_of_passed_copies_counts_as_empty(course, content):
    practise(course, passed=False)
    (course / "practice" / "passed.json").write_text(content, encoding="latin-1")
    assert passed_practice() == {}
