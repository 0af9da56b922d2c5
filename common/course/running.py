"""`course run`: a lesson as its own process, flags passed through. `course runs`: what the learner's past runs gave."""

import argparse
import json
import os
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

from common import lessons
from common.course.screen import show_table, shown
from common.errors import LessonError
from common.lessons import Lesson, find_lesson, has_passed

NOT_COMPARED = ("out", "debug", "resume", "data_dir")  # settings that say where and how, not what


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument("lesson", help="such as 05/01")
    if name == "run":
        parser.usage = "course run LESSON [--mine] [the lesson's own flags]"
        parser.add_argument(
            "--mine",
            action="store_true",
            help="your own practice copies, where they have passed, take the place of the lessons",
        )
        parser.add_argument(
            "flags", nargs=argparse.REMAINDER, help="go to the lesson as they are; try --help"
        )
    else:
        parser.add_argument(
            "--last", type=int, default=20, metavar="N", help="only the last N runs (default 20)"
        )


def run(arguments: argparse.Namespace) -> int:
    lesson = find_lesson(arguments.lesson, lessons.ROOT)
    if arguments.command == "runs":
        return show_runs(lesson, arguments.last)
    flags = [flag for flag in arguments.flags if flag not in ("--mine", "--")]
    return run_lesson(lesson, flags, arguments.mine or "--mine" in arguments.flags)


def run_lesson(lesson: Lesson, flags: list[str], mine: bool = False) -> int:
    """Run the script with this interpreter; returns its exit code, as a shell would (128 + n after signal n)."""
    path, environment = lesson.path, dict(os.environ)
    if mine:
        environment["COURSE_MINE"] = "1"  # load_lesson reads it, in worker processes too
        copy = lessons.PRACTICE / f"{lesson.key}.py"
        path = copy if has_passed(copy) else path
        yours = [
            key for key in (lesson.key, *lesson.needs) if has_passed(lessons.PRACTICE / f"{key}.py")
        ]
        print(
            f"yours: {', '.join(yours)}"
            if yours
            else f"none of the lessons behind {lesson.number} is yours yet, so it runs as it is: course practice makes a "
            "copy, --check grades it",
            flush=True,
        )
    before = signal.signal(
        signal.SIGINT, lambda *_: None
    )  # Ctrl-C reaches the lesson as well: let it save and say so
    try:
        code = subprocess.run([sys.executable, str(path), *flags], env=environment).returncode
    finally:
        signal.signal(signal.SIGINT, before)
    return code if code >= 0 else 128 - code


def show_runs(lesson: Lesson, last: int = 20) -> int:
    """A table of past runs, oldest first, and one picture of all their curves."""
    if last < 1:
        raise LessonError(f"--last {last} shows nothing: give 1 or more.")
    runs, damaged = read_runs(lesson)
    if not runs:
        raise LessonError(
            f"no run of {lesson.number} is written down yet: course run {lesson.number} makes one."
        )
    first = max(len(runs) - last, 0)
    numbered = dict(enumerate(runs[first:], first + 1))
    differing = _differing(list(numbered.values()))
    metrics = list(dict.fromkeys(name for one in numbered.values() for name in one["metrics"]))
    show_table(
        ["run", "date", "where", *differing, *metrics, "seconds", "status"],
        [
            [
                str(number),
                _date(one["date"]),
                one["where"],
                *(_cell(one["settings"].get(s)) for s in differing),
                *(_cell(one["metrics"].get(m)) for m in metrics),
                _cell(one["seconds"]),
                one["status"],
            ]
            for number, one in numbered.items()
        ],
    )
    if first:
        print(f"{first} earlier runs are not shown: --last {len(runs)} shows all")
    if damaged:
        print(f"{damaged} damaged line{'s' * (damaged > 1)} skipped in runs.jsonl")
    draw_runs(lesson, numbered)
    return 0


def read_runs(lesson: Lesson) -> tuple[list[dict], int]:
    """Every run that left a line in runs.jsonl, oldest first, and the number of lines that cannot be read.

    Looks into the normal and the tiny folder, of the lesson and of the learner's practice copy.
    """
    copy = Lesson(lessons.PRACTICE / f"{lesson.key}.py")
    folders = {
        "normal": lesson.out(),
        "tiny": lesson.out(tiny=True),
        "practice": copy.out(),
        "practice, tiny": copy.out(tiny=True),
    }
    runs, damaged = [], 0
    for where, folder in folders.items():
        file = folder / "runs.jsonl"
        for line in (
            file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else ()
        ):
            try:
                one = json.loads(line)
                _date(one["date"])
                runs.append(
                    {
                        "where": where,
                        "date": one["date"],
                        "status": str(one["status"]),
                        "settings": dict(one["settings"]),
                        "metrics": dict(one["metrics"]),
                        "seconds": float(one["seconds"]),
                        "curves": dict(one.get("curves") or {}),
                    }
                )
            except (ValueError, KeyError, TypeError, AttributeError):
                damaged += bool(line.strip())
    return sorted(runs, key=lambda one: datetime.fromisoformat(one["date"]).astimezone()), damaged


def draw_runs(lesson: Lesson, runs: dict[int, dict]) -> Path | None:
    """All curves of the numbered runs, one axis for each name, into outputs/<phase>/<lesson>/runs.png."""
    curves: dict[str, dict[int, list[float]]] = {}
    for number, one in runs.items():
        for name, values in one["curves"].items():
            if isinstance(values, list) and values and all(type(v) in (int, float) for v in values):
                curves.setdefault(name, {})[number] = values
    if not curves:
        return None
    from common.figures import COLOURS, new_figure, save_figure

    columns = min(len(curves), 3)
    figure, axes = new_figure(-(-len(curves) // columns), columns, squeeze=False)
    for axis, (name, lines) in zip(axes.flat, curves.items()):
        for number, values in lines.items():
            tiny = "tiny" in runs[number]["where"]
            axis.plot(
                range(1, len(values) + 1),
                values,
                color=COLOURS[number % len(COLOURS)],
                markersize=4,
                marker="o" if len(values) < 20 else None,
                linestyle=":" if tiny else "-",
                label=f"run {number}" + ", tiny" * tiny,
            )
        axis.set(title=name, xlabel="epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
    for axis in axes.flat[len(curves) :]:
        axis.set_visible(False)
    handles = {
        label: handle
        for axis in axes.flat
        for handle, label in zip(*axis.get_legend_handles_labels())
    }
    figure.legend(handles.values(), handles, loc="outside right upper")
    return save_figure(figure, lesson.out() / "runs.png")


def _differing(runs: list[dict]) -> list[str]:
    """The settings that are not the same in all runs; "tiny" stands in another column."""
    names = dict.fromkeys(name for one in runs for name in one["settings"])
    return [
        name
        for name in names
        if name not in (*NOT_COMPARED, "tiny")
        and len({json.dumps(one["settings"].get(name), sort_keys=True) for one in runs}) > 1
    ]


def _date(text: str) -> str:
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M")


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
