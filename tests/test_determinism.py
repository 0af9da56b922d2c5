"""The same seed gives the same numbers: of every script that trains, or draws random numbers at all."""

import json
import re

import pytest
from engine import Engine, Job, Outcome
from test_lessons_run import JOBS

# metrics that measure the machine; claims of kind "timed" are left out as well
MEASURED = re.compile(r"(^|_)(seconds?|minutes?|ms|us|ns|speedup|faster|mib|throughput)($|_)")


def comparable(outcome: Outcome) -> dict:
    """The part of result.json that must come back: metrics, curves and what the claims measured."""
    result = outcome.result or {}
    return (
        {
            "exit code": outcome.code,
            "test_reads": result.get("test_reads"),
            "data": result.get("data"),
        }
        | {
            f"{part}.{name}": value
            for part in ("metrics", "curves")
            for name, value in result.get(part, {}).items()
            if not MEASURED.search(name)
        }
        | {
            f"claim {number} {claim['id']}": (claim["status"], claim["measured"])
            for number, claim in enumerate(result.get("claims", []))
            if claim["kind"] != "timed"
        }
    )


def differences(one: Outcome, two: Outcome) -> list[str]:
    """json.dumps, because nan is not equal to itself."""
    a, b = comparable(one), comparable(two)
    return [
        f"{key}: {a.get(key)} and {b.get(key)}"
        for key in a | b
        if json.dumps(a.get(key)) != json.dumps(b.get(key))
    ]


@pytest.mark.parametrize(
    "jobs", [(job, Job(job.script, draw=False)) for job in JOBS.values()], ids=JOBS
)
def test_same_seed_same_numbers(engine: Engine, jobs: tuple[Job, Job]) -> None:
    one, two = map(engine.result, jobs)
    assert not differences(one, two), f"{differences(one, two)}{two}"
