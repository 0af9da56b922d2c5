"""`course sync`: bring up to date what READMEs and notes quote: plan, docstrings, code, results.

Ticks stay, and so does every text that is not generated. On a checklist line the generated part
reaches from the script's name to the last word written here, so a remark in front of it or after it
survives; so do lines of the learner's own. Lines, rows and markers that are missing are put back.
An excerpt that cannot be filled is left as it is, named in one sentence, and the exit code is 1.
"""

import argparse
import contextlib
import json
import re
from pathlib import Path

from common import lessons
from common.course import curriculum as plan
from common.course.curriculum import Curriculum, Entry
from common.course.excerpts import fill
from common.course.readme import (
    LAST_WEEKS,
    NAMES,
    TO_DO,
    Readme,
    phase_of_row,
    progress,
    read_both,
    region_of,
    ticked_in,
    write_all,
    written_in,
)
from common.course.verify import tables
from common.errors import LessonError
from common.files import locked, write_text
from common.lessons import ROOT

WORDS = {
    "en": {
        "minutes": "min",
        "elective": "elective",
        "unwritten": "*not yet written*",
        "note": "note",
        "ending": ".md",
        "columns": ("Week", "Phase", "Files", "Project", "State"),
        "last": "Portfolio and interviews",
    },
    "zh": {
        "minutes": "分钟",
        "elective": "选修",
        "unwritten": "*尚未写出*",
        "note": "笔记",
        "ending": ".zh.md",
        "columns": ("周", "阶段", "文件", "项目", "状态"),
        "last": "作品集与面试",
    },
}
_QUOTE = re.compile(
    r"(<!-- result:([\w/.@-]+):([\w.-]+) -->)((?:(?!<!--).)*)(?=<!-- /result -->)", re.DOTALL
)


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit code 1 if something would change"
    )


def run(arguments: argparse.Namespace) -> int:
    return sync(arguments.check, lessons.ROOT)


def sync(check: bool = False, root: Path = ROOT) -> int:
    """Exit code 1 if `check` finds something to change, or if an excerpt cannot be filled.

    Raises LessonError for files that it cannot read or write.
    """
    # between reading and writing no other command may tick
    guard = contextlib.nullcontext() if check else locked(root / NAMES["en"])
    with guard:
        return _sync(check, root)


def _sync(check: bool, root: Path) -> int:
    curriculum = plan.load(root)
    readmes = read_both(root)
    ticked = ticked_in(readmes)
    for readme in readmes:
        sync_readme(readme, curriculum, ticked, root)
    notes, faults = sync_notes(root)
    notes |= tables(root)
    changed = [readme.path for readme in readmes if readme.text != readme.original] + list(notes)
    if not check:
        write_all(readmes)
        for path, text in notes.items():
            write_text(path, text)
    for path in changed:
        print(f"{'out of date' if check else 'brought up to date'}: {_shown(path, root)}")
    for fault in faults:
        print(fault)
    if not changed and not faults:
        print("everything generated is up to date")
    elif check and changed:
        print("Run `course sync` to bring it up to date.")
    return 1 if faults or (check and changed) else 0


def sync_readme(
    readme: Readme, curriculum: Curriculum, ticked: set[str], root: Path = ROOT
) -> None:
    """Regenerate the regions in place; the caller writes."""
    readme.add_boxes(ticked)
    _mend_regions(readme, curriculum)
    boxes = readme.boxes()
    missing: dict[int, list[str]] = {}  # in front of which line what has to come
    for phase in curriculum.phases:
        region = readme.region(region_of(phase))
        place = region.start
        for entry in phase.entries:
            wanted = checklist_line(entry, readme.language, root)
            for line in boxes.get(entry.file, ()):
                readme.lines[line] = _rewritten(readme.lines[line], wanted)
                place = max(place, line + 1) if line in region else place
            if entry.file not in boxes:
                missing.setdefault(place, []).append(
                    f"- [{'x' if entry.file in ticked else ' '}] {wanted}"
                )
    for place in sorted(
        missing, reverse=True
    ):  # from the end, so that the places before stay right
        readme.insert(place, missing[place])
    _sync_table(readme, curriculum, ticked)


def checklist_line(entry: Entry, language: str, root: Path = ROOT) -> str:
    """What stands behind the box: name, title, minutes, elective or not, the note if any."""
    words, key = WORDS[language], entry.lesson.key
    parts = [
        f"[{entry.file}]({key}.py)" if entry.is_written else entry.file,
        entry.title(language),
        f"{entry.minutes} {words['minutes']}",
    ]
    if not entry.is_core:
        parts.append(words["elective"])
    if not entry.is_written:
        parts.append(words["unwritten"])
    elif (root / "docs" / f"{key}{words['ending']}").exists():
        parts.append(f"[{words['note']}](docs/{key}{words['ending']})")
    return " · ".join(parts)


def table_rows(
    curriculum: Curriculum, language: str, ticked: set[str], last_state: str = TO_DO
) -> list[str]:
    """The progress table. Its last row has no scripts: its state is the learner's own to change."""
    rows = [WORDS[language]["columns"], ("---",) * 5]
    for phase in curriculum.phases:
        files, state = progress(phase, ticked)
        rows.append(
            (
                phase.weeks,
                f"{phase.number} · {phase.titles[language]}",
                files,
                phase.projects[language],
                state,
            )
        )
    rows.append((LAST_WEEKS, WORDS[language]["last"], "–", "–", last_state))
    return [f"| {' | '.join(row)} |" for row in rows]


def _rewritten(line: str, wanted: str) -> str:
    start, end = written_in(line)
    return line[:start] + wanted + line[end:]


def _sync_table(readme: Readme, curriculum: Curriculum, ticked: set[str]) -> None:
    region = readme.region("progress")
    old = [line for line in region if readme.lines[line].lstrip().startswith("|")]
    state = readme.last_state
    for line in reversed(old):
        del readme.lines[line]
    readme.insert(
        old[0] if old else region.start, table_rows(curriculum, readme.language, ticked, state)
    )


def _mend_regions(readme: Readme, curriculum: Curriculum) -> None:
    """Put back the markers of every region whose pair is not whole.

    They go around the lines that belong to it, or, without any, where the region stood.
    """
    names = ["progress", *(region_of(phase) for phase in curriculum.phases)]
    for number, name in enumerate(names):
        if readme.region(name) is not None:
            continue
        if name == "progress":
            mine = [line for line, text in enumerate(readme.lines) if phase_of_row(text)]
        else:
            boxes = readme.boxes()
            mine = sorted(
                line
                for entry in curriculum.phases[number - 1].entries
                for line in boxes.get(entry.file, ())
            )
        first, last = _run_of(readme, mine, names) or _gap_for(readme, names, number)
        readme.insert(last, [f"<!-- /course:{name} -->"])
        readme.insert(first, [f"<!-- course:{name} -->"])
        readme.drop_markers(name, keep=readme.region(name))


def _run_of(readme: Readme, mine: list[int], names: list[str]) -> tuple[int, int] | None:
    """The first run of lines of `mine` outside all regions, a table with its head.

    Returns (first, behind the last).
    """
    taken = {
        line
        for name in names
        if (region := readme.region(name)) is not None
        for line in range(region.start - 1, region.stop + 1)
    }
    free = {line for line in mine if line not in taken and not readme.has_marker(line)}
    if not free:
        return None
    if phase_of_row(readme.lines[min(free)]):
        free |= {
            line
            for line, text in enumerate(readme.lines)
            if text.lstrip().startswith("|") and line not in taken and not readme.has_marker(line)
        }
    first = last = min(free & set(mine))
    while first - 1 in free:
        first -= 1
    while last + 1 in free:
        last += 1
    return first, last + 1


def _gap_for(readme: Readme, names: list[str], number: int) -> tuple[int, int]:
    """Behind the region before it, else in front of the next one, else at the file's end."""
    before = [
        region.stop + 1 for name in names[:number] if (region := readme.region(name)) is not None
    ]
    after = [
        region.start - 1
        for name in names[number + 1 :]
        if (region := readme.region(name)) is not None
    ]
    place = max(before) if before else min(after, default=len(readme.lines))
    return place, place


def sync_notes(root: Path = ROOT) -> tuple[dict[Path, str], list[str]]:
    """{note: its new text} where results or excerpts differ, and what could not be filled."""
    results = _results(root / "docs" / "RESULTS.json")
    changed, faults = {}, []
    for path in sorted((root / "docs").rglob("*.md")):
        if root / "docs" / "notes" in path.parents:  # the learner's own
            continue
        text = _read(path)
        new = _with_results(text, results, _shown(path, root))
        if "<!-- code" in text or "<!-- /code" in text:
            new, found = _with_excerpts(new, path, root)
            faults += found
        if new != text:
            changed[path] = new
    return changed, faults


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LessonError(
            f"{path} cannot be read ({type(error).__name__}). "
            "Save it as UTF-8 text, then run this again."
        ) from None


def _with_results(text: str, results: dict, shown: str) -> str:
    def value(quote: re.Match) -> str:
        try:
            return quote[1] + _number(results["lessons"][quote[2]]["metrics"][quote[3]]["mean"])
        except (KeyError, TypeError, ValueError):
            print(f"no result for {quote[2]}:{quote[3]}, left as it is in {shown}")
            return quote[0]

    return _QUOTE.sub(value, text)


def _with_excerpts(text: str, path: Path, root: Path) -> tuple[str, list[str]]:
    """The note's text with its excerpts filled from its script, and one sentence for each fault."""
    shown = _shown(path, root)
    name = path.name.removesuffix(".md").removesuffix(".zh")
    script = root / path.parent.name / f"{name}.py"
    if path.parent.parent != root / "docs" or not script.exists():
        return text, [f"{shown} quotes code, and {_shown(script, root)} is not there."]

    newline = "\r\n" if "\r\n" in text else "\n"
    new, faults = fill(text.replace("\r\n", "\n"), _read(script))
    return new.replace("\n", newline), [f"{shown}:{line}: {why}." for line, why in faults]


def _results(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise LessonError(
            f"{path} cannot be read ({type(error).__name__}). `course verify` writes it anew."
        ) from error


def _number(value: float) -> str:
    """Four significant digits; counts stay whole."""
    return str(int(value)) if float(value).is_integer() and abs(value) >= 10 else f"{value:.4g}"


def _shown(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
