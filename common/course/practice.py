"""Practice: a lesson with its heart cut out, graded by the lesson's own claims.

The learner's copies lie in practice/<phase>/, their results in practice/outputs/. Beside them:
passed.json (which copy has passed, for `course run --mine`), hints.json (how many hints were shown)
and copies.json (of which version of the lesson a copy was made).
"""

import argparse
import ast
import json
import re
import sys
import textwrap
import time
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from common import lessons
from common.config import number as number_type
from common.course.curriculum import language
from common.course.notes import hints_of, note_of
from common.course.trial import explain, run_tiny, trimmed
from common.errors import LessonError
from common.files import locked, write_json, write_text
from common.lessons import Lesson, find_lesson, fingerprint, passed_practice, shown

# seconds after which a check is ended: a tiny run takes a few
LIMIT = 60
_START = re.compile(r"^(\s*)# practice: *(.+?)\s*$")
_END = re.compile(r"^\s*# end practice\s*$")
# lessons of the first edition have their hints in the code
_HINT = re.compile(r"^\s*# hint: ")


@dataclass(frozen=True)
class Region:
    """A part of a lesson that the learner writes. start, end: lines (from 0) of its marks."""

    title: str
    code: str
    indent: str
    start: int
    end: int

    @property
    def prompt(self) -> str:
        """What an unwritten region says first; by it a copy is recognised as unfinished."""
        return f"your turn: {self.title}" + ("" if self.title[-1] in ".?!" else ".")


def find_regions(text: str, file: str = "the lesson") -> list[Region]:
    """The practice regions of a text, in order. Raises LessonError where a mark has no partner."""
    found = []
    opened = None
    lines = text.splitlines()
    for position, line in enumerate(lines):
        begins = _START.match(line)
        if not begins and not _END.match(line):
            continue
        if bool(begins) != (opened is None):
            place = f"{file}, line {position + 1}"
            raise LessonError(f"{place}: “# practice: …” and “# end practice” must take turns.")
        if begins:
            opened = position
            continue
        inside = [row for row in lines[opened + 1 : position] if not _HINT.match(row)]
        indent, title = _START.match(lines[opened]).groups()
        code = textwrap.dedent("\n".join(inside))
        found.append(Region(title, code, indent, opened, position))
        opened = None
    if opened is not None:
        place = f"{file}, line {opened + 1}"
        raise LessonError(f"{place}: “{lines[opened].strip()}” has no “# end practice”.")
    return found


def regions_of(lesson: Lesson) -> list[Region]:
    return find_regions(_text(lesson), shown(lesson.path))


def stub(text: str, regions: Collection[int] | None = None, number: str = "") -> str:
    """The text with the code of its regions taken out.

    regions: which ones, from 0; None is all of them. number: the lesson's, for `course hint`.
    """
    lines = text.splitlines(keepends=True)
    found = list(enumerate(find_regions(text)))
    # from behind, so that the positions of those before stay right
    for index, region in reversed(found):
        if regions is not None and index not in regions:
            continue
        message = f"{region.prompt} Ask for help with: course hint {number}".rstrip()
        quoted = json.dumps(message, ensure_ascii=False)
        body = f"{region.indent}raise NotImplementedError({quoted})\n"
        lines[region.start + 1 : region.end] = [body]
    return "".join(lines)


def unfinished(copy: str, regions: list[Region]) -> list[int]:
    """Which regions still raise in the learner's text, which may not even parse at the moment."""
    todo = []
    for index, region in enumerate(regions):
        # without the closing quote: the prompt goes on
        opening = json.dumps(region.prompt, ensure_ascii=False)[:-1]
        waiting = r"^[^#\n]*raise NotImplementedError\(" + re.escape(opening)
        if re.search(waiting, copy, re.MULTILINE):
            todo.append(index)
    return todo


def first_statement(code: str) -> str:
    """How the code begins: its first statement, of a loop or a condition only the head."""
    lines = code.splitlines()
    try:
        first = ast.parse(code).body[0]
    except (SyntaxError, IndexError):
        return next((line for line in lines if line.strip() and line.strip()[0] != "#"), "")
    end = first.end_lineno
    if hasattr(first, "body"):
        end = max(first.lineno, first.body[0].lineno - 1)
    rows = lines[first.lineno - 1 : end]
    return "\n".join(row for row in rows if row.strip() and not row.strip().startswith("#"))


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument("lesson", help="such as 05/01, or the path of the lesson or your copy")
    if name == "practice":
        what = parser.add_mutually_exclusive_group()
        check_help = "run your copy tiny: the lesson's claims grade it"
        what.add_argument("--check", action="store_true", help=check_help)
        reset_help = "begin again; your copy is kept beside the new one"
        what.add_argument("--reset", action="store_true", help=reset_help)
    if name in ("practice", "watch"):
        limit_help = f"end a check after so many seconds (default {LIMIT})"
        parser.add_argument("--limit", type=number_type(int), metavar="SECONDS", help=limit_help)
    if name == "hint":
        region_help = "which region (default: the first unfinished one)"
        parser.add_argument("--region", type=int, metavar="N", help=region_help)


def run(arguments: argparse.Namespace) -> int:
    lesson = find_lesson(_lesson_name(arguments.lesson), lessons.ROOT)
    if not regions_of(lesson):
        raise LessonError(
            f"{lesson.number} has nothing cut out to practise: it is there to be run and changed. "
            f"See: course run {lesson.number} --help"
        )
    if arguments.command == "hint":
        return hint(lesson, arguments.region)
    if arguments.command == "solution":
        return solution(lesson)
    if arguments.command == "watch":
        return watch(lesson, arguments.limit)
    if arguments.check:
        return 0 if check(lesson, arguments.limit) else 1
    if arguments.limit:
        raise LessonError("--limit goes with --check: it ends a check that takes longer.")
    return open_copy(lesson, arguments.reset)


def _lesson_name(text: str) -> str:
    """What the learner typed; the path of a practice copy becomes the name of its lesson."""
    path = Path(text).resolve()
    practice = lessons.PRACTICE.resolve()
    if path.is_relative_to(practice):
        return path.relative_to(practice).as_posix()
    return text.replace("\\", "/").removeprefix("./").removeprefix("practice/")


def open_copy(lesson: Lesson, reset: bool = False) -> int:
    """Write the practice copy, unless there is one; say what to do with it."""
    copy = _copy(lesson)
    regions = regions_of(lesson)
    if copy.exists() and not reset:
        text = _read(copy, lesson)
        todo = unfinished(text, regions)
        state = f"{len(todo)} of {len(regions)} regions are still to write"
        print(
            f"{shown(copy)} is there already and stays as it is: "
            + (state if todo else "every region is written")
        )
        _mention_new_version(lesson)
    else:
        if copy.exists():
            print(f"your old copy is now {shown(_keep(copy))}")
        text = stub(_text(lesson), number=lesson.number)
        todo = range(len(regions))
        write_text(copy, text)
        _remember("copies.json", lesson, fingerprint(lesson.path))
        _remember("hints.json", lesson, {})
        print(f"{shown(copy)} is yours: {len(regions)} regions to write")
    for index in todo:
        print(f"  {index + 1}. {regions[index].title}{_place(regions[index], text)}")
    print(
        f"check it:  course practice {lesson.number} --check\n"
        f"           course watch {lesson.number}              checks at every save\n"
        f"stuck:     course hint {lesson.number}"
    )
    return 0


def _place(region: Region, text: str) -> str:
    for position, line in enumerate(text.splitlines(), 1):
        begins = _START.match(line)
        if begins and begins[2] == region.title:
            return f" (line {position})"
    return ""


def check(lesson: Lesson, limit: float | None = None) -> bool:
    """Run the copy tiny, show what it prints, remember a pass.

    It has passed when no region is open and every declared claim was judged, none of them failed.
    """
    limit = limit or LIMIT
    copy = _existing_copy(lesson)
    regions = regions_of(lesson)
    text = _read(copy, lesson)
    _must_be_python(text, copy)
    # of what is about to run: it may be saved again meanwhile
    mark = fingerprint(copy)
    _mention_new_version(lesson)
    out = lessons.PRACTICE / "outputs" / lesson.key / "tiny"
    # what is read below must come from this run
    (out / "result.json").unlink(missing_ok=True)
    trial = run_tiny(copy, out, limit)
    if trace := trimmed(trial.errors, copy):
        print(f"\n{trace}")

    result = _read_json(out / "result.json")
    judged = {claim["id"]: claim["status"] for claim in result.get("claims", [])}
    declared = [claim for question in lesson.questions for claim in question.claims]
    missing = [claim for claim in declared if claim not in judged]
    todo = unfinished(text, regions)
    if trial.code or not trial.in_time:
        print(f"\n✗ {explain(trial, copy, limit)}")
    elif not judged:
        print(
            "\n✗ it ended before a claim was written down "
            f"(missing: {', '.join(missing) or 'all'}). Is there an exit or a return too early?"
        )
    elif todo:
        print("\n✗ the claims hold, but not all of it is written")
    elif missing or "failed" in judged.values():
        print(
            "\n✗ the copy no longer makes every claim of the lesson "
            f"(missing: {', '.join(missing)}). "
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
    """Show one hint more of a region: those of the note, then how the solution begins."""
    copy = _existing_copy(lesson)
    regions = regions_of(lesson)
    if number is not None and not 1 <= number <= len(regions):
        raise LessonError(
            f"{lesson.number} has {len(regions)} regions: "
            f"give --region 1 to --region {len(regions)}."
        )
    todo = unfinished(_read(copy, lesson), regions)
    if number is None and not todo:
        print(
            f"every region is written: course practice {lesson.number} --check grades it. "
            "For a hint all the same, say --region N."
        )
        return 0

    index = todo[0] if number is None else number - 1
    region = regions[index]
    print(f"{index + 1}. {region.title}")
    hints = _note_hints(lesson, index + 1, region.title)
    hints.append("it begins with\n" + textwrap.indent(first_statement(region.code), "    "))
    shown_so_far = _hints_shown(lesson)
    seen = shown_so_far.get(str(index), 0)
    count = min(seen + 1, len(hints))
    for position, text in enumerate(hints[:count], 1):
        print(f"  hint {position} of {len(hints)}: " + text.replace("\n", "\n    "))
    if seen >= len(hints):
        print(
            "There are no more. Read the lesson's note, or the lesson itself "
            f"({shown(lesson.path)}), close it, and write it from memory."
        )
    _remember("hints.json", lesson, shown_so_far | {str(index): count})
    return 0


def _note_hints(lesson: Lesson, number: int, title: str) -> list[str]:
    """From the note in the learner's language, else from the English one, else none."""
    if language() == "zh":
        try:
            return hints_of(note_of(lesson, "zh"), number)
        except LessonError as error:
            print(f"there is no hint in Chinese, so here is the English one ({error})")
    try:
        return hints_of(note_of(lesson, "en"), number, title)
    except LessonError as error:
        print(f"the note does not help here: {error}")
        return []


def solution(lesson: Lesson) -> int:
    """Print the taught code; it opens with the first pass and stays open."""
    if lesson.key not in passed_practice():
        raise LessonError(
            f"the solution of {lesson.number} opens when your copy has passed: "
            f"course practice {lesson.number} --check. Stuck? course hint {lesson.number}"
        )
    for number, region in enumerate(regions_of(lesson), 1):
        print(f"{number}. {region.title}   {shown(lesson.path)}:{region.start + 1}\n")
        code = textwrap.indent(region.code, "    ")
        if sys.stdout.isatty():
            from rich.console import Console
            from rich.syntax import Syntax

            look = {"theme": "ansi_dark", "background_color": "default", "word_wrap": True}
            Console().print(Syntax(code, "python", **look))
        else:
            print(code)
        print()
    return 0


def watch(lesson: Lesson, limit: float | None = None) -> int:
    """Check now and at every save, until Ctrl-C."""
    copy = _existing_copy(lesson)
    try:
        while True:
            # taken first: a save during the check is then not missed
            before = saved_at(copy)
            try:
                check(lesson, limit)
            except LessonError as error:
                print(f"\n✗ {error}")
            print(f"\nwaiting for the next save of {shown(copy)} (Ctrl-C ends)", flush=True)
            wait_for_save(copy, before)
            print("\n" + "─" * 60)
    except KeyboardInterrupt:
        print("\nno longer watching")
        return 0


def saved_at(path: Path) -> tuple[int, int] | None:
    """What changes with a save; None while an editor has the file away to replace it."""
    try:
        state = path.stat()
    except OSError:
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
            f"there is no practice copy of {lesson.number} yet: "
            f"course practice {lesson.number} makes one."
        )
    return _copy(lesson)


def _read(copy: Path, lesson: Lesson) -> str:
    """The copy's text. Raises LessonError where it is none, with the way out."""
    again = f"course practice {lesson.number} --reset begins again and keeps it"
    if copy.is_dir():
        raise LessonError(f"{shown(copy)} is a folder, not a file: {again} under another name.")
    try:
        content = copy.read_bytes()
    except OSError as error:
        raise LessonError(f"{shown(copy)} cannot be read: {error.strerror}.") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        place = f"{shown(copy)}, line {line}"
        if error.reason == "unexpected end of data":
            raise LessonError(
                f"{place}: the file ends in the middle of a character. Save it again, or {again}."
            ) from None
        raise LessonError(
            f"{place}: this is not UTF-8. Save it as UTF-8 in your editor, or {again}."
        ) from None
    if not text.strip():
        raise LessonError(f"{shown(copy)} is empty: undo it in your editor, or {again}.")
    return text


def _must_be_python(text: str, copy: Path) -> None:
    """Raises LessonError with the line at which Python stops reading."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(text, str(copy), "exec", dont_inherit=True)
    except SyntaxError as error:
        source = f" in “{error.text.strip()}”" if error.text and error.text.strip() else ""
        place = f"{shown(copy)}, line {error.lineno or 1}"
        raise LessonError(f"{place}: {type(error).__name__}: {error.msg}{source}.") from None
    except ValueError as error:
        raise LessonError(f"{shown(copy)} is not Python: {error}.") from None


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
            f"note: {lesson.number} was changed after your copy was made. "
            "The copy is graded as it is; --reset makes a new one and keeps yours beside it."
        )


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
    with locked(path):
        write_json(path, _read_json(path) | {lesson.key: value})
