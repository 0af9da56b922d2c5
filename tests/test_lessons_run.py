"""Every script really runs, tiny, and proves what its docstring says: the test that keeps the course alive."""

import ast
import re

import pytest
from engine import Engine, Job, Outcome

from common.lessons import Lesson, all_lessons

JOBS = {lesson.number: Job(lesson.path, fake_cuda=True) for lesson in all_lessons()}


def faults(outcome: Outcome) -> list[str]:
    """Everything that is wrong with a tiny run; empty when it is as it should be."""
    if outcome.code != 0:
        return [f"exit code {outcome.code}", *outcome.violations]
    if outcome.result is None:
        return ["no result.json in --out", *outcome.violations]
    lesson, result = Lesson(outcome.script), outcome.result
    declared = {claim for question in lesson.questions for claim in question.claims}
    judged = {claim["id"]: claim for claim in result["claims"]}
    found = list(outcome.violations)
    found += [
        f"the docstring declares “{id}”, the run did not judge it"
        for id in sorted(declared - judged.keys())
    ]
    found += [
        f"the run judged “{id}”, the docstring does not declare it"
        for id in judged
        if id not in declared
    ]
    found += [
        f"“{id}” failed, and the run exited 0"
        for id, claim in judged.items()
        if claim["status"] == "failed"
    ]
    found += [
        f"“{id}” is exact and was not judged"
        for id, claim in judged.items()
        if claim["status"] == "not judged" and claim["kind"] == "exact"
    ]
    found += (
        [] if result["test_reads"] <= 1 else [f"the test set was read {result['test_reads']} times"]
    )
    found += (
        []
        if "passed" in {claim["status"] for claim in judged.values()}
        else ["not one claim was shown to hold"]
    )
    found += [f"on a GPU: {fault}" for fault in outcome.cuda]
    return found + learning_faults(
        lesson, {id for id, claim in judged.items() if claim["status"] == "passed"}
    )


def learning_faults(lesson: Lesson, passed: set[str]) -> list[str]:
    """A script that trains shows that its model can learn (`overfits`) and looks at its input (`depends_on_input`).

    Where those two do not fit (a GAN, reinforcement learning), the docstring has a line that names the claims that do
    it instead, "Learns    d-separates, g-fools", or says "Learns    no model is trained here".
    """
    text = lesson.path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    imports = {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "common.training"
        for name in (alias.name for alias in node.names)
    }
    if "fit" not in imports and not re.search(r"\btorch\.optim\b", text):
        return []
    if line := re.search(r"^Learns +(.+)", lesson.doc, re.MULTILINE):
        named = set(re.split(r"[,\s]+", line[1])) & passed
        return (
            []
            if named or line[1].startswith("no model is trained")
            else [
                "its line “Learns” names no claim that was judged, and does not say “no model is trained here”"
            ]
        )
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    found = []
    for name in ("overfits", "depends_on_input"):
        ids = [
            call.args[0].value
            for call in calls
            if call.func.id == name and call.args and isinstance(call.args[0], ast.Constant)
        ]
        if name not in {call.func.id for call in calls}:
            found.append(f"it trains a model and never calls {name}()")
        elif ids and not passed & set(ids):
            found.append(f"{name}(“{ids[0]}”) stands in the code, but the run did not get there")
    return found


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_lesson_runs_tiny(engine: Engine, job: Job) -> None:
    outcome = engine.result(job)
    assert not faults(outcome), f"{faults(outcome)}{outcome}"


def test_scripts_are_found() -> None:
    """An empty discovery would make every test here pass."""
    assert {"01/01", "03/09", "03/project-mnist"} <= JOBS.keys()
