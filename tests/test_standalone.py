"""Scripts as a learner starts them: `python path/to/script.py`, from another folder.

The forked children of the other tests have everything imported and one random hash seed between
them. What only works there, or only there gives this number, is found here.
"""

from collections.abc import Sequence

import pytest
from engine import Engine, Job
from rotation import today
from test_determinism import differences
from test_lessons_run import JOBS, faults

from common.lessons import Lesson, all_lessons


def one_per_phase() -> list[Lesson]:
    """Another one every day."""
    phases: dict[str, list[Lesson]] = {}
    for lesson in all_lessons():
        phases.setdefault(lesson.phase, []).append(lesson)
    return [lessons[today() % len(lessons)] for lessons in phases.values()]


def one_phase() -> Sequence[Lesson]:
    phases = sorted({lesson.phase for lesson in all_lessons()})
    return [lesson for lesson in all_lessons() if lesson.phase == phases[today() % len(phases)]]


def pairs(lessons: Sequence[Lesson], how: str) -> dict[str, tuple[Job, Job]]:
    return {lesson.number: (JOBS[lesson.number], Job(lesson.path, how=how)) for lesson in lessons}


PLAIN = pairs(one_per_phase(), "plain")
SPAWNED = pairs(one_phase(), "spawn")


@pytest.mark.parametrize("jobs", PLAIN.values(), ids=PLAIN)
def test_plain_run(engine: Engine, jobs: tuple[Job, Job]) -> None:
    forked, plain = map(engine.result, jobs)
    assert not faults(plain), f"{faults(plain)}{plain}"
    assert not differences(forked, plain), str(plain)


@pytest.mark.full
@pytest.mark.parametrize("jobs", SPAWNED.values(), ids=SPAWNED)
def test_spawned_run(engine: Engine, jobs: tuple[Job, Job]) -> None:
    """One phase under --runner=spawn, which is all that other systems have."""
    forked, spawned = map(engine.result, jobs)
    assert not faults(spawned), f"{faults(spawned)}{spawned}"
    assert not differences(forked, spawned), str(spawned)


def test_help_from_elsewhere(engine: Engine) -> None:
    """--help works from any folder, prints the docstring, and writes nothing."""
    lesson = all_lessons()[0]
    outcome = engine.run(Job(lesson.path, argv=("--help",), how="plain"))
    assert outcome.code == 0, str(outcome)
    assert lesson.title in outcome.output
    assert not any(outcome.out.iterdir())
