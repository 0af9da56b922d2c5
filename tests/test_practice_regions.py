"""Practice regions: there are enough of them, of a size to type, with hints; without one of them, the lesson says so.

That whole copies pass is the normal run. `pytest` takes one region of each lesson, another one every day; --all takes
all of them.
"""

import ast
import textwrap

import pytest
from engine import Engine, Job
from rotation import today

from common.course.practice import Region, find_regions, stub
from common.lessons import Lesson, all_lessons

LESSONS = {lesson.number: lesson for lesson in all_lessons()}
NUMBERED = {number: lesson for number, lesson in LESSONS.items() if not lesson.is_project}


def cases() -> list:
    """A job for every region taken out alone; only today's without the mark `full`."""
    found = []
    for number, lesson in NUMBERED.items():
        text = lesson.path.read_text(encoding="utf-8")
        regions = find_regions(text)
        for index, region in enumerate(regions):
            marks = [] if index == today() % len(regions) else [pytest.mark.full]
            found.append(
                pytest.param(
                    Job(lesson.path, text=stub(text, [index]), draw=False),
                    region,
                    id=f"{number}-{index + 1}",
                    marks=marks,
                )
            )
    return found


def statements(region: Region) -> int:
    """How many statements the learner writes; those inside a loop count too."""
    return sum(
        isinstance(node, ast.stmt) for node in ast.walk(ast.parse(textwrap.dedent(region.code)))
    )


@pytest.mark.parametrize("job, region", cases())
def test_missing_region_is_named(engine: Engine, job: Job, region: Region) -> None:
    outcome = engine.result(job)
    assert outcome.code == 1 and not outcome.violations, f"with “{region.title}” taken out{outcome}"
    assert "error: your turn: " + region.title in outcome.output, str(outcome)
    assert "Traceback" not in outcome.output, str(outcome)


@pytest.mark.parametrize("lesson", NUMBERED.values(), ids=NUMBERED)
def test_regions_are_fit_to_practise(lesson: Lesson) -> None:
    regions = find_regions(lesson.path.read_text(encoding="utf-8"))
    assert len(regions) >= 2, (
        f"{lesson.key} has {len(regions)} practice regions, two or more are wanted"
    )
    assert len({region.title for region in regions}) == len(regions), (
        "two regions of the same title"
    )
    for region in regions:
        count = statements(region)
        assert 3 <= count <= 15, f"“{region.title}” has {count} statements, wanted 3 to 15"
        assert region.hints, f"“{region.title}” has no hint"


@pytest.mark.parametrize(
    "lesson", [lesson for lesson in LESSONS.values() if lesson.is_project], ids=lambda x: x.number
)
def test_projects_have_none(lesson: Lesson) -> None:
    assert not find_regions(lesson.path.read_text(encoding="utf-8"))
