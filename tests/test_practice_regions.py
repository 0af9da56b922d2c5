"""Practice regions: enough of them, of a size to type, with hints; without one, the lesson says so.

That whole copies pass is the normal run. `pytest` takes one region of each script, another one
every day; --all takes all of them.
"""

import ast

import pytest
from engine import Engine, Job
from rotation import today

from common.course.notes import hints_of, note_of, practice_blocks
from common.course.practice import Region, first_statement, regions_of, stub
from common.lessons import Lesson, all_lessons

LESSONS = {lesson.number: lesson for lesson in all_lessons()}


def cases() -> list:
    """A job for every region taken out alone; only today's without the mark `full`."""
    found = []
    for number, lesson in LESSONS.items():
        text = lesson.path.read_text(encoding="utf-8")
        regions = regions_of(lesson)
        for index, region in enumerate(regions):
            job = Job(lesson.path, text=stub(text, [index]), draw=False)
            marks = [] if index == today() % len(regions) else [pytest.mark.full]
            found.append(pytest.param(job, region, id=f"{number}-{index + 1}", marks=marks))
    return found


def statements(region: Region) -> int:
    """How many statements the learner writes; those inside a loop count too."""
    nodes = ast.walk(ast.parse(region.code))
    return sum(isinstance(node, ast.stmt) for node in nodes)


def is_whole_function(region: Region, tree: ast.Module) -> bool:
    """Whether the region holds everything that stands behind a function's docstring."""
    first, last = region.start + 1, region.end + 1
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef):
            continue
        body = node.body[1:] if ast.get_docstring(node) is not None else node.body
        if body and node.lineno < first < body[0].lineno and body[-1].end_lineno < last:
            return True
    return False


@pytest.mark.parametrize("job, region", cases())
def test_missing_region_is_named(engine: Engine, job: Job, region: Region) -> None:
    outcome = engine.result(job)
    assert outcome.code == 1 and not outcome.violations, f"with “{region.title}” taken out{outcome}"
    assert "error: your turn: " + region.title in outcome.output, str(outcome)
    assert "Traceback" not in outcome.output, str(outcome)


@pytest.mark.parametrize("lesson", LESSONS.values(), ids=LESSONS)
def test_regions_are_fit_to_practise(lesson: Lesson) -> None:
    regions = regions_of(lesson)
    titles = [region.title for region in regions]
    tree = ast.parse(lesson.path.read_text(encoding="utf-8"))
    whole = [region.title for region in regions if is_whole_function(region, tree)]
    assert len(set(titles)) == len(titles), "two regions of the same title"
    if lesson.is_project:
        assert 3 <= len(regions) <= 6, f"{len(regions)} regions, a project has 3 to 6"
        assert whole == titles, f"no whole function bodies: {sorted(set(titles) - set(whole))}"
    else:
        assert len(regions) >= 2, f"{len(regions)} regions, a lesson has 2 or more"
        assert whole, "not one region is a whole function body"
    for region in regions:
        count = statements(region)
        assert 2 <= count <= 25, f"“{region.title}” has {count} statements, wanted 2 to 25"
        assert first_statement(region.code), f"“{region.title}” has no first statement to show"


@pytest.mark.parametrize("lesson", LESSONS.values(), ids=LESSONS)
def test_the_notes_have_hints_for_every_region(lesson: Lesson) -> None:
    regions = regions_of(lesson)
    for number, region in enumerate(regions, 1):
        english = hints_of(note_of(lesson, "en"), number, region.title)
        chinese = hints_of(note_of(lesson, "zh"), number)
        assert 1 <= len(english) <= 3, f"“{region.title}” has {len(english)} hints, wanted 1 to 3"
        assert len(chinese) == len(english), f"“{region.title}”: other hints in Chinese"
    for language in ("en", "zh"):
        blocks = practice_blocks(note_of(lesson, language))
        assert len(blocks) == len(regions), f"{len(blocks)} blocks for {len(regions)} regions"
    assert "# hint:" not in lesson.path.read_text(encoding="utf-8"), "hints stand in the note"


EXAMPLE = '''
def whole(x):
    """What it does."""
    # practice: a
    y = x
    return y
    # end practice


def half(x):
    # practice: b
    y = x
    # end practice
    return y


def late(x):
    y = x
    # practice: c
    return y
    # end practice
'''


def test_a_whole_function_is_told_from_half_of_one(tmp_path) -> None:
    path = tmp_path / "phase01_demo" / "01-a.py"
    path.parent.mkdir()
    path.write_text(EXAMPLE, encoding="utf-8")
    regions = regions_of(Lesson(path))
    found = [is_whole_function(region, ast.parse(EXAMPLE)) for region in regions]
    assert found == [True, False, False]
