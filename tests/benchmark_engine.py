"""How much the engine saves: copies of the lessons through it, and one interpreter for each.

    python tests/benchmark_engine.py [--copies 40]

CPU seconds are those of all processes: the scripts, the server with its imports, and this one.
`pytest` renders no figures and `pytest --all` does (see engine.Engine), so both are measured; the
fresh interpreters always render them.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from engine import Engine, Job, Outcome

from common.lessons import all_lessons


def measure(how: str, draw: bool, jobs: list[Job]) -> tuple[float, float, list[Outcome]]:
    """(wall seconds, CPU seconds, outcomes)"""
    wall, before = time.perf_counter(), os.times()
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(Path(folder).resolve(), how, draw)
        for job in jobs:
            engine.submit(job)
        outcomes = [engine.result(job) for job in jobs]
        engine.close()  # the server is waited for, so its times and its children's are known
    after = os.times()
    return time.perf_counter() - wall, sum(after[:4]) - sum(before[:4]), outcomes


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--copies", type=int, default=40, help="runs in all (default 40), shared among the lessons"
    )
    parser.add_argument(
        "--lessons", default="01/01,03/09,03/project-mnist", help="which lessons, by number"
    )
    arguments = parser.parse_args()
    lessons = [lesson for lesson in all_lessons() if lesson.number in arguments.lessons.split(",")]
    # another text each, or the engine would run equal jobs once
    jobs = [
        Job(lesson.path, text=lesson.path.read_text(encoding="utf-8") + f"# copy {number}\n")
        for number in range(arguments.copies)
        for lesson in [lessons[number % len(lessons)]]
    ]
    print(
        f"{len(jobs)} copies of {', '.join(lesson.number for lesson in lessons)}; "
        f"{os.cpu_count()} cores, "
        f"load before {os.getloadavg()[0]:.1f}"
    )
    rows = {}
    for name, how, draw in (
        ("engine, as in pytest", "fork", False),
        ("engine, as in pytest --all", "fork", True),
        ("one interpreter each", "plain", True),
    ):
        wall, cpu, outcomes = rows[name] = measure(how, draw, jobs)
        failed = [str(outcome) for outcome in outcomes if outcome.code]
        print(
            f"{name:<28}{wall:8.1f} s wall{cpu:9.1f} s CPU{cpu / len(jobs):8.2f} s CPU a script",
            flush=True,
        )
        if failed:
            print(*failed, sep="\n")
            return 1
        for lesson in lessons:
            mine = [
                outcome.cpu_seconds for outcome in outcomes if outcome.job.script == lesson.path
            ]
            if how == "fork":
                print(f"    {lesson.number:<24}{sum(mine) / len(mine):6.2f} s CPU in the child")
    slow = rows.pop("one interpreter each")
    for name, row in rows.items():
        print(
            f"{name}: {slow[1] / row[1]:.1f} times less CPU, "
            f"{slow[0] / row[0]:.1f} times less wall time"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
