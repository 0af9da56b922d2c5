"""The same seed gives the same numbers, the same words on the screen and the same figures."""

import hashlib
import json
import re

import pytest
from engine import Engine, Job, Outcome
from test_lessons_run import JOBS

# metrics that measure the machine; claims of kind "timed" are left out as well
MEASURED = re.compile(
    r"(^|_)(seconds?|minutes?|ms|us|ns|speedup|faster|mib|throughput|as_long)($|_)"
)
# what a sentence says of the machine: 1.3 s, 35.2 times, 210 MiB, 4,100 pictures/s
TIMING = re.compile(
    r"\s*\d[\d.,]*(e[+-]?\d+)? ?"
    r"(s|ms|µs|us|ns|seconds?|minutes?|times|[KMG]i?B|[\w ]*/ ?s|[\w ]+ (a|per) second)\b"
)
# what a sentence says of the moment: TensorBoard's file names, the time in its records, and a
# row of measurements whose column says "seconds"
MOMENT = re.compile(r"events\.out\.tfevents\.\S+|\b09( [0-9a-f]{2}){8}|\bseconds +[\d.]+ *")

# figures that draw times
TIMED_FIGURES = {
    "01-numpy-basics": {"speed.png"},
    "09-mobilenet": {"cost.png"},
    "project-cifar10": {"ladder.png"},
    "project-translation": {"bleu.png"},
}


def comparable(outcome: Outcome) -> dict:
    """What must come back: metrics, curves, what the claims measured."""
    result = outcome.result or {}
    found = {
        "exit code": outcome.code,
        "test_reads": result.get("test_reads"),
        "data": [line.replace(str(outcome.out.parent), "…") for line in result.get("data") or []],
        "figures": result.get("figures"),
    }
    for part in ("metrics", "curves"):
        for name, value in result.get(part, {}).items():
            if not MEASURED.search(name):
                found[f"{part}.{name}"] = value
    for number, claim in enumerate(result.get("claims", [])):
        if claim["kind"] != "timed":
            found[f"claim {number} {claim['id']}"] = (claim["status"], claim["measured"])
    return found


def differences(one: Outcome, two: Outcome) -> list[str]:
    """Compared as JSON, because nan is not equal to itself."""
    a = comparable(one)
    b = comparable(two)
    return [
        f"{key}: {a.get(key)} and {b.get(key)}"
        for key in a | b
        if json.dumps(a.get(key)) != json.dumps(b.get(key))
    ]


def words(outcome: Outcome) -> list[str]:
    """The lines on the screen, without times and without the name of our folder."""
    claims = (outcome.result or {}).get("claims", [])
    timed = [claim for claim in claims if claim["kind"] == "timed"]
    lines = []
    for line in outcome.output.replace(str(outcome.out.parent), "…").splitlines():
        if not any(claim["text"] in line for claim in timed):
            lines.append(MOMENT.sub("…", TIMING.sub("…", line)))
    return lines


def other_words(one: Outcome, two: Outcome) -> list[str]:
    a = words(one)
    b = words(two)
    if len(a) != len(b):
        return [f"{len(a)} and {len(b)} lines on the screen"]
    return [f"“{first}” and “{second}”" for first, second in zip(a, b) if first != second]


def other_figures(one: Outcome, two: Outcome) -> list[str]:
    """Figures that are not the same, byte for byte."""

    def fingerprints(outcome: Outcome) -> dict[str, str]:
        found = {}
        for path in outcome.out.rglob("*.png"):
            name = str(path.relative_to(outcome.out))
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found

    a = fingerprints(one)
    b = fingerprints(two)
    timed = TIMED_FIGURES.get(one.script.stem, set())
    return sorted(name for name in (a | b).keys() - timed if a.get(name) != b.get(name))


@pytest.mark.parametrize("jobs", [(job, Job(job.script)) for job in JOBS.values()], ids=JOBS)
def test_same_seed_same_run(engine: Engine, jobs: tuple[Job, Job]) -> None:
    one, two = map(engine.result, jobs)
    found = differences(one, two) + other_words(one, two) + other_figures(one, two)
    assert not found, f"{found}{two}"
