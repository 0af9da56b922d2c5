"""Practice: a lesson with its heart cut out, graded by the lesson's own claims; hints, the solution, and a watcher.

The learner's copies lie in practice/<phase>/, their results in practice/outputs/. Beside them: passed.json (which copy
has passed, for `course run --mine`), hints.json (how many hints were shown) and copies.json (of which version of the
lesson a copy was made).
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from common import lessons
from common.course.screen import shown
from common.errors import LessonError
from common.files import write_json, write_text
from common.lessons import Lesson, find_lesson, fingerprint, passed_practice

LIMIT = 600  # seconds after which a check is given up: a tiny run takes a few
_START = re.compile(r"^(\s*)# practice: *(.+?)\s*$")
_HINT = re.compile(r"^\s*# hint: *(.+?)\s*$")
_END = re.compile(r"^\s*# end practice\s*$")


@dataclass(frozen=True)
class Region:
    """A part of a lesson that the learner writes. start, end: numbers (from 0) of the lines that mark it."""

    title: str
    hints: tuple[str, ...]
    code: str
    indent: str
    start: int
    end: int

    @property
    def prompt(self) -> str:
        """What an unwritten region says first; by it a copy is recognised as unfinished."""
        return f"your turn: {self.title}" + ("" if self.title[-1] in ".?!" else ".")


def find_regions(text: str) -> list[Region]:
    """The practice regions of a lesson's text, in order. Raises LessonError where a mark has no partner."""
    found, start = [], None
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if _START.match(line) or _END.match(line):
            if bool(_START.match(line)) != (start is None):
                raise LessonError(
                    f"line {number + 1}: “# practice: …” and “# end practice” must take turns."
                )
            if start is None:
                start = number
                continue
            inside = lines[start + 1 : number]
            hints = tuple(m[1] for m in map(_HINT.match, inside) if m)
            code = textwrap.dedent("\n".join(row for row in inside if not _HINT.match(row)))
            indent, title = _START.match(lines[start]).groups()
            found.append(Region(title, hints, code, indent, start, number))
            start = None
    if start is not None:
        raise LessonError(f"line {start + 1}: “# practice: …” has no “# end practice”.")
    return found


def stub(text: str, regions: Collection[int] | None = None) -> str:
    """The lesson with the taught code of its regions taken out. regions: which ones, from 0; None is all of them."""
    number = re.match(r'\s*"""(\d+)\.(\d+)\b', text)
    help_text = "course hint" + (f" {int(number[1]):02d}/{int(number[2]):02d}" if number else "")
    lines = text.splitlines(keepends=True)
    for index, region in reversed(list(enumerate(find_regions(text)))):
        if regions is None or index in regions:
            message = json.dumps(
                f"{region.prompt} Ask for help with: {help_text}", ensure_ascii=False
            )
            lines[region.start + 1 : region.end] = [
                f"{region.indent}raise NotImplementedError({message})\n"
            ]
    return "".join(lines)


def unfinished(copy: str, regions: list[Region]) -> list[int]:
    """Which regions of the lesson still raise in the learner's text, which may not even parse at the moment."""

    def waits(region: Region) -> re.Match | None:
        opening = json.dumps(region.prompt, ensure_ascii=False)[:-1]
        return re.search(
            r"^[^#\n]*raise NotImplementedError\(" + re.escape(opening), copy, re.MULTILINE
        )

    return [index for index, region in enumerate(regions) if waits(region)]


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument("lesson", help="such as 05/01")
    if name == "practice":
        what = parser.add_mutually_exclusive_group()
        what.add_argument(
            "--check", action="store_true", help="run your copy tiny: the lesson's claims grade it"
        )
        what.add_argument(
            "--reset", action="store_true", help="begin again; your copy is kept beside the new one"
        )
    if name == "hint":
        parser.add_argument(
            "--region",
            type=int,
            metavar="N",
            help="which region (default: the first unfinished one)",
        )


def run(arguments: argparse.Namespace) -> int:
    name = arguments.lesson.replace("\\", "/").removeprefix("./").removeprefix("practice/")
    lesson = find_lesson(name, lessons.ROOT)
    if not find_regions(_text(lesson)):
        raise LessonError(
            f"{lesson.number} has nothing cut out to practise: it is there to be run and changed. "
            f"See: course run {lesson.number} --help"
        )
    if arguments.command == "hint":
        return hint(lesson, arguments.region)
    if arguments.command == "solution":
        return solution(lesson)
    if arguments.command == "watch":
        return watch(lesson)
    return (0 if check(lesson) else 1) if arguments.check else open_copy(lesson, arguments.reset)


def open_copy(lesson: Lesson, reset: bool = False) -> int:
    """Write the practice copy, unless there is one; say what to do with it."""
    copy = _copy(lesson)
    regions = find_regions(_text(lesson))
    if copy.exists() and not reset:
        todo = unfinished(copy.read_text(encoding="utf-8"), regions)
        print(
            f"{shown(copy)} is there already and stays as it is: "
            + (
                f"{len(todo)} of {len(regions)} regions are still to write"
                if todo
                else "every region is written"
            )
        )
        _mention_new_version(lesson)
    else:
        if copy.exists():
            print(f"your old copy is now {shown(_keep(copy))}")
        write_text(copy, stub(_text(lesson)))
        _remember("copies.json", lesson, fingerprint(lesson.path))
        _remember("hints.json", lesson, {})
        todo = list(range(len(regions)))
        print(f"{shown(copy)} is yours: {len(regions)} regions to write")
    lines = copy.read_text(encoding="utf-8").splitlines()
    for index in todo:
        title = regions[index].title
        place = next(
            (n for n, line in enumerate(lines, 1) if (m := _START.match(line)) and m[2] == title),
            None,
        )
        print(f"  {index + 1}. {title}" + (f" (line {place})" if place else ""))
    print(
        f"check it:  course practice {lesson.number} --check\n"
        f"           course watch {lesson.number}              checks at every save\n"
        f"stuck:     course hint {lesson.number}"
    )
    return 0


def check(lesson: Lesson) -> bool:
    """Run the copy tiny, show its claims, remember a pass. Whole means: no region open, every declared claim judged."""
    copy = _existing_copy(lesson)
    regions, text = find_regions(_text(lesson)), copy.read_text(encoding="utf-8")
    mark = fingerprint(copy)  # of what is about to run: it may be saved again meanwhile
    _mention_new_version(lesson)
    out = lessons.PRACTICE / "outputs" / lesson.key / "tiny"
    (out / "result.json").unlink(missing_ok=True)  # what is read below must come from this run
    code, errors = _run_tiny(copy, out)
    judged = {
        claim["id"]: claim["status"] for claim in _read_json(out / "result.json").get("claims", [])
    }
    missing = [
        claim for question in lesson.questions for claim in question.claims if claim not in judged
    ]
    todo = unfinished(text, regions)

    if code:
        print(f"\n✗ {_explain(errors, copy)}")
    elif todo:
        print("\n✗ the claims hold, but not all of it is written")
    elif missing or not judged or "failed" in judged.values():
        print(
            f"\n✗ the copy no longer makes every claim of the lesson (missing: {', '.join(missing) or 'all'}). "
            f"Put the show_ functions back as they were; {shown(lesson.path)} has them."
        )
    else:
        _remember("passed.json", lesson, mark)
        held = sum(status == "passed" for status in judged.values())
        print(
            f"\n✓ passed: {len(regions)} regions written by you, {held} claims hold\n"
            f"tick it:              course done {lesson.number}\n"
            f"compare with ours:    course solution {lesson.number}\n"
            "use it in later lessons:  course run LESSON --mine"
        )
        return True
    for index in todo:
        print(f"  still to write: {index + 1}. {regions[index].title}")
    print(f"stuck: course hint {lesson.number}")
    return False


def hint(lesson: Lesson, number: int | None = None) -> int:
    """Show one hint more of a region, from the idea to the first line."""
    copy = _existing_copy(lesson)
    regions = find_regions(_text(lesson))
    if number is not None and not 1 <= number <= len(regions):
        raise LessonError(
            f"{lesson.number} has {len(regions)} regions: give --region 1 to --region {len(regions)}."
        )
    todo = unfinished(copy.read_text(encoding="utf-8"), regions)
    if number is None and not todo:
        print(
            f"every region is written: course practice {lesson.number} --check grades it. "
            "For a hint all the same, say --region N."
        )
        return 0
    index = todo[0] if number is None else number - 1
    region, shown_so_far = regions[index], _hints_shown(lesson)
    seen = shown_so_far.get(str(index), 0)
    count = min(seen + 1, len(region.hints))
    print(f"{index + 1}. {region.title}")
    for position, text in enumerate(region.hints[:count], 1):
        print(f"  hint {position} of {len(region.hints)}: {text}")
    if seen >= len(region.hints):
        print(
            f"There are no more. Read the lesson's note, or the lesson itself ({shown(lesson.path)}), close it, "
            "and write it from memory."
        )
    _remember("hints.json", lesson, shown_so_far | {str(index): count})
    return 0


def solution(lesson: Lesson) -> int:
    """Print the taught code; it opens with the first pass and stays open."""
    if lesson.key not in passed_practice():
        raise LessonError(
            f"the solution of {lesson.number} opens when your copy has passed: "
            f"course practice {lesson.number} --check. Stuck? course hint {lesson.number}"
        )
    for number, region in enumerate(find_regions(_text(lesson)), 1):
        print(f"{number}. {region.title}   {shown(lesson.path)}:{region.start + 1}\n")
        code = textwrap.indent(region.code, "    ")
        if sys.stdout.isatty():
            from rich.console import Console
            from rich.syntax import Syntax

            Console().print(
                Syntax(
                    code, "python", theme="ansi_dark", background_color="default", word_wrap=True
                )
            )
        else:
            print(code)
        print()
    return 0


def watch(lesson: Lesson) -> int:
    """Check now and at every save, until Ctrl-C."""
    copy = _existing_copy(lesson)
    try:
        while True:
            before = saved_at(copy)  # taken first: a save during the check is then not missed
            check(lesson)
            print(f"\nwaiting for the next save of {shown(copy)} (Ctrl-C ends)", flush=True)
            wait_for_save(copy, before)
            print("\n" + "─" * 60)
    except KeyboardInterrupt:
        print("\nno longer watching")
        return 0


def saved_at(path: Path) -> tuple[int, int] | None:
    """What changes with a save; None in the moment in which an editor has the file away to replace it."""
    try:
        state = path.stat()
    except FileNotFoundError:
        return None
    return state.st_mtime_ns, state.st_size


def wait_for_save(path: Path, before: tuple[int, int] | None, pause: float = 0.3) -> None:
    while saved_at(path) in (before, None):
        time.sleep(pause)


def _text(lesson: Lesson) -> str:
    return lesson.path.read_text(encoding="utf-8")


def _copy(lesson: Lesson) -> Path:
    return lessons.PRACTICE / f"{lesson.key}.py"


def _existing_copy(lesson: Lesson) -> Path:
    if not _copy(lesson).exists():
        raise LessonError(
            f"there is no practice copy of {lesson.number} yet: course practice {lesson.number} makes "
            "one."
        )
    return _copy(lesson)


def _keep(copy: Path) -> Path:
    """Move the learner's work aside under the first free name."""
    number = 1
    while (kept := copy.with_name(f"{copy.name}.bak-{number}")).exists():
        number += 1
    return copy.rename(kept)


def _mention_new_version(lesson: Lesson) -> None:
    made_of = _read_json(lessons.PRACTICE / "copies.json").get(lesson.key)
    if made_of and made_of != fingerprint(lesson.path):
        print(
            f"note: {lesson.number} was changed after your copy was made. The copy is graded as it is; "
            f"--reset makes a new one and keeps yours beside it."
        )


def _run_tiny(copy: Path, out: Path) -> tuple[int, str]:
    """Run the copy and print its claims while they come. Returns the exit code and what it wrote to stderr."""
    command = [sys.executable, str(copy), "--tiny", "--device", "cpu", "--out", str(out)]
    environment = os.environ | {"PYTHONIOENCODING": "utf-8"}
    with tempfile.TemporaryFile() as errors:  # a file, for a full pipe would stop the run
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            encoding="utf-8",
            errors="replace",
        ) as process:
            stop = threading.Timer(LIMIT, process.kill)
            stop.daemon = True  # Ctrl-C must not wait for it
            stop.start()
            for line in process.stdout:
                if re.match(r"\[\d+\]|\s*[✓✗–] ", line):
                    print(line, end="", flush=True)
            process.wait()
            in_time = stop.is_alive()
            stop.cancel()
        errors.seek(0)
        text = errors.read().decode("utf-8", errors="replace")
    if process.returncode == 130:  # Ctrl-C reached the lesson: it is meant for us as well
        raise KeyboardInterrupt
    return (
        process.returncode,
        text if in_time else f"error: no end after {LIMIT} s. Is there a loop without an end?",
    )


def _explain(errors: str, copy: Path) -> str:
    """From what a failed run wrote to stderr: the lesson's own sentence, or the learner's line and the exception."""
    if sentences := re.findall(r"^error: (.+)", errors, re.MULTILINE):
        return sentences[-1]
    frames = re.findall(rf'File "{re.escape(str(copy))}", line (\d+)(?:, in \S+)?\n +(.+)', errors)
    last = next(
        (line for line in reversed(errors.splitlines()) if line.strip()),
        "the run ended without a word",
    )
    return (f"line {frames[-1][0]}: {frames[-1][1]}\n  " if frames else "") + last


def _hints_shown(lesson: Lesson) -> dict[str, int]:
    """{region's index as text, for it was JSON: how many of its hints were shown}"""
    counts = _read_json(lessons.PRACTICE / "hints.json").get(lesson.key)
    return counts if isinstance(counts, dict) else {}


def _read_json(path: Path) -> dict:
    """A missing or damaged file counts as empty: it holds comfort, never the learner's work."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _remember(file: str, lesson: Lesson, value: object) -> None:
    path = lessons.PRACTICE / file
    write_json(path, _read_json(path) | {lesson.key: value})
