"""`course run`: a lesson as its own process, flags passed through. `course runs`: the past runs."""

import argparse
import json
import math
import os
import re
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

from common import lessons
from common.course.screen import show_table
from common.errors import LessonError
from common.lessons import Lesson, Predict, find_lesson, has_passed

# settings that say where and how, not what
NOT_COMPARED = ("out", "debug", "resume", "data_dir")
# flags of `course run` itself: they may stand among the lesson's
OWN_FLAGS = ("--mine", "--no-predict", "--")
# with one of these nobody is asked for a guess
NO_GUESS = ("--tiny", "--no-predict", "--help", "-h")


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument("lesson", help="such as 05/01")
    if name == "run":
        parser.usage = "course run LESSON [--mine] [--no-predict] [the lesson's own flags]"
        parser.add_argument(
            "--mine",
            action="store_true",
            help="your own practice copies, where they have passed, take the place of the lessons",
        )
        parser.add_argument(
            "--no-predict", action="store_true", help="do not ask for a guess before the run"
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
    words = list(arguments.flags)
    words += ["--mine"] * arguments.mine + ["--no-predict"] * arguments.no_predict
    flags = [word for word in words if word not in OWN_FLAGS]
    guess = None
    if lesson.predict and sys.stdin.isatty() and sys.stdout.isatty() and not _in(NO_GUESS, words):
        guess = ask_for_a_guess(lesson.predict)
    return run_lesson(lesson, flags, "--mine" in words, guess)


def _in(wanted: tuple[str, ...], words: list[str]) -> bool:
    return any(word in wanted for word in words)


def ask_for_a_guess(predict: Predict) -> float | None:
    """Ask until the answer is a number. None: the learner skips it."""
    print(f"Predict: {predict.question}")
    while True:
        try:
            answer = input("your guess (Enter skips): ").strip()
        except EOFError:
            print()
            return None
        if not answer:
            return None
        try:
            return read_number(answer)
        except ValueError:
            print(f"“{answer}” is not a number: write it like 20, 0.5, 95%, 3/4, 1,200 or 1e3.")


def read_number(text: str) -> float:
    """A number as people write it: 1e3, 95%, 1,200, 3/4. Raises ValueError where it is none."""
    text = text.strip().replace("−", "-").replace("％", "%")
    if text.endswith("%"):
        return read_number(text[:-1]) / 100
    if re.fullmatch(r"[-+]?\d{1,3}(,\d{3})+(\.\d*)?", text):
        text = text.replace(",", "")
    above, slash, under = text.partition("/")
    value = float(above)
    if slash:
        divisor = float(under)
        value = value / divisor if divisor else math.nan
    if not math.isfinite(value):
        raise ValueError(f"{text} is not finite")
    return value


def run_lesson(
    lesson: Lesson, flags: list[str], mine: bool = False, guess: float | None = None
) -> int:
    """Run the script with this interpreter; returns its exit code (128 + n after signal n)."""
    path = lesson.path
    environment = dict(os.environ)
    if guess is not None:
        environment["COURSE_GUESS"] = repr(guess)
    if mine:
        # load_lesson reads it, in worker processes too
        environment["COURSE_MINE"] = "1"
        copy = lessons.PRACTICE / f"{lesson.key}.py"
        path = copy if has_passed(copy) else path
        keys = (lesson.key, *lesson.needs)
        yours = [key for key in keys if has_passed(lessons.PRACTICE / f"{key}.py")]
        none = (
            f"none of the lessons behind {lesson.number} is yours yet, so it runs as it is: "
            "course practice makes a copy, --check grades it"
        )
        print(f"yours: {', '.join(yours)}" if yours else none, flush=True)

    # Ctrl-C reaches the lesson as well: let it save and say so
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        command = [sys.executable, str(path), *flags]
        code = subprocess.run(command, env=environment, check=False).returncode
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
    guessed = any(one["guess"] is not None for one in numbered.values())
    columns = ["run", "date", "where", *differing, *metrics]
    columns += ["guess"] * guessed + ["seconds", "status"]
    rows = []
    for number, one in numbered.items():
        row = [str(number), _date(one["date"]), one["where"]]
        row += [_cell(one["settings"].get(name)) for name in differing]
        row += [_cell(one["metrics"].get(name)) for name in metrics]
        row += [_cell(one["guess"])] * guessed
        rows.append([*row, _cell(one["seconds"]), one["status"]])
    show_table(columns, rows)
    if first:
        print(f"{first} earlier runs are not shown: --last {len(runs)} shows all")
    if damaged:
        print(f"{damaged} damaged line{'s' * (damaged > 1)} skipped in runs.jsonl")
    draw_runs(lesson, numbered)
    return 0


def read_runs(lesson: Lesson) -> tuple[list[dict], int]:
    """Every run that left a line in runs.jsonl, oldest first, and how many lines are damaged.

    Looks into the normal and the tiny folder, of the lesson and of the learner's practice copy.
    """
    copy = Lesson(lessons.PRACTICE / f"{lesson.key}.py")
    folders = {
        "normal": lesson.out(),
        "tiny": lesson.out(tiny=True),
        "practice": copy.out(),
        "practice, tiny": copy.out(tiny=True),
    }
    runs = []
    damaged = 0
    for where, folder in folders.items():
        file = folder / "runs.jsonl"
        if not file.exists():
            continue
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                runs.append(_read_run(line, where))
            except (ValueError, KeyError, TypeError, AttributeError):
                damaged += bool(line.strip())
    return sorted(runs, key=lambda one: datetime.fromisoformat(one["date"]).astimezone()), damaged


def _read_run(line: str, where: str) -> dict:
    """One line of runs.jsonl. Raises ValueError and its like where it is damaged."""
    one = json.loads(line)
    # a date that cannot be shown is damage too
    _date(one["date"])
    guess = one.get("guess")
    return {
        "where": where,
        "date": one["date"],
        "status": str(one["status"]),
        "settings": dict(one["settings"]),
        "metrics": dict(one["metrics"]),
        "guess": None if guess is None else float(guess),
        "seconds": float(one["seconds"]),
        "curves": dict(one.get("curves") or {}),
    }


def draw_runs(lesson: Lesson, runs: dict[int, dict]) -> Path | None:
    """All curves of the numbered runs, one axis for each name, in one picture: runs.png."""
    curves: dict[str, dict[int, list[float]]] = {}
    for number, one in runs.items():
        for name, values in one["curves"].items():
            if isinstance(values, list) and values and all(map(_is_number, values)):
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
    differing = []
    for name in names:
        values = {json.dumps(one["settings"].get(name), sort_keys=True) for one in runs}
        if len(values) > 1 and name not in (*NOT_COMPARED, "tiny"):
            differing.append(name)
    return differing


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _date(text: str) -> str:
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M")


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
