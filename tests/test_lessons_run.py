"""Every script really runs, tiny, and proves what its docstring says."""

import ast
import re

import pytest
from engine import Engine, Job, Outcome

from common.checks import MARKS
from common.lessons import Lesson, all_lessons

JOBS = {lesson.number: Job(lesson.path, fake_cuda=True) for lesson in all_lessons()}


def faults(outcome: Outcome) -> list[str]:
    """Everything that is wrong with a tiny run; empty when it is as it should be."""
    if outcome.code != 0:
        return [f"exit code {outcome.code}", *outcome.violations]
    if outcome.result is None:
        return ["no result.json in --out", *outcome.violations]

    lesson = Lesson(outcome.script)
    claims = outcome.result["claims"]
    reads = outcome.result["test_reads"]
    passed = {claim["id"] for claim in claims if claim["status"] == "passed"}
    found = [*outcome.violations, *claim_faults(lesson, claims), *mark_faults(outcome)]
    if reads > 1:
        found.append(f"the test set was read {reads} times")
    predict = lesson.predict
    if predict and not isinstance(outcome.result["metrics"].get(predict.key), (int, float)):
        found.append(f"line {predict.line}: Predict names “{predict.key}”, no number of the result")
    found += [f"on a GPU: {fault}" for fault in outcome.cuda]
    return found + learning_faults(lesson, passed)


def claim_faults(lesson: Lesson, claims: list[dict]) -> list[str]:
    """What the docstring declares against what the run judged."""
    declared = {claim for question in lesson.questions for claim in question.claims}
    judged = [claim["id"] for claim in claims]
    found = []
    for id in sorted(declared - set(judged)):
        found.append(f"the docstring declares “{id}”, the run did not judge it")
    for id in sorted(set(judged) - declared):
        found.append(f"the run judged “{id}”, the docstring does not declare it")
    for id in sorted({id for id in judged if judged.count(id) > 1}):
        found.append(f"“{id}” was judged {judged.count(id)} times")
    for claim in claims:
        if claim["status"] == "failed":
            found.append(f"“{claim['id']}” failed, and the run exited 0")
        if claim["status"] == "not judged" and claim["kind"] == "exact":
            found.append(f"“{claim['id']}” is exact and was not judged")
    if "passed" not in {claim["status"] for claim in claims}:
        found.append("not one claim was shown to hold")
    return found


def mark_faults(outcome: Outcome) -> list[str]:
    """A ✓ or ✗ on the screen stands for a claim that was judged, once each and in that order."""
    shown = [line.strip() for line in outcome.output.splitlines() if re.search("[✓✔✗✘]", line)]
    judged = [
        f"{MARKS[claim['status']]} {claim['text']}"
        for claim in outcome.result["claims"]
        if claim["status"] != "not judged"
    ]
    # a sentence of several lines has its mark in the first
    judged = [sentence.splitlines()[0].strip() for sentence in judged]
    if shown == judged:
        return []
    extra = [line for line in shown if line not in judged]
    return [f"marks on the screen without a judge: {extra or shown}"]


def learning_faults(lesson: Lesson, passed: set[str]) -> list[str]:
    """A script that trains shows that its model can learn, and that it looks at its input.

    It calls `overfits` and `depends_on_input`. Where those do not fit (a GAN, reinforcement
    learning), the docstring has a line that names the claims that do it instead,
    "Learns    d-separates, g-fools", or says "Learns    no model is trained here".
    """
    text = lesson.path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    if not trains(tree, text):
        return []
    if line := re.search(r"^Learns +(.+)", lesson.doc, re.MULTILINE):
        named = set(re.split(r"[,\s]+", line[1])) & passed
        if named or line[1].startswith("no model is trained"):
            return []
        return ["its line “Learns” names no judged claim, nor says “no model is trained here”"]

    calls = [call for call in ast.walk(tree) if isinstance(call, ast.Call)]
    calls = [call for call in calls if isinstance(call.func, ast.Name)]
    found = []
    for name in ("overfits", "depends_on_input"):
        mine = [call for call in calls if call.func.id == name]
        first = [call.args[0] for call in mine if call.args]
        ids = [argument.value for argument in first if isinstance(argument, ast.Constant)]
        if not mine:
            found.append(f"it trains a model and never calls {name}()")
        elif ids and not passed & set(ids):
            found.append(f"{name}(“{ids[0]}”) stands in the code, but the run did not get there")
    return found


def trains(tree: ast.Module, text: str) -> bool:
    """It uses the course's `fit`, or one of torch's optimizers."""
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    ours = [node for node in imports if node.module == "common.training"]
    uses_fit = any(alias.name == "fit" for node in ours for alias in node.names)
    return uses_fit or bool(re.search(r"\btorch\.optim\b", text))


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_lesson_runs_tiny(engine: Engine, job: Job) -> None:
    outcome = engine.result(job)
    assert not faults(outcome), f"{faults(outcome)}{outcome}"


def test_scripts_are_found() -> None:
    """An empty discovery would make every test here pass."""
    assert {"01/01", "03/09", "03/project-mnist"} <= JOBS.keys()
