"""`course sync`: bring what the READMEs and notes quote up to date with the curriculum, the docstrings and the results.

Ticks stay, and so does every text that is not generated. On a checklist line the generated part reaches from the
script's name to the last word written here, so a remark in front of it or after it survives; so do lines of the
learner's own. Lines, rows and markers that are missing are put back.
"""
import argparse
import json
import re
from pathlib import Path

from common.course import curriculum as plan
from common.course.curriculum import Curriculum, Entry, Phase
from common.course.readme import (DONE, TO_DO, UNDER_WAY, Readme, phase_of_row, progress, read_both, region_of, script_in,
                                  ticked_in, write_all)
from common.errors import LessonError
from common.files import write_text
from common.lessons import ROOT

WORDS = {
    "en": {"minutes": "min", "elective": "elective", "unwritten": "*not yet written*", "note": "note", "ending": ".md",
           "columns": ("Week", "Phase", "Files", "Project", "State"), "last": "Portfolio and interviews"},
    "zh": {"minutes": "分钟", "elective": "选修", "unwritten": "*尚未写出*", "note": "笔记", "ending": ".zh.md",
           "columns": ("周", "阶段", "文件", "项目", "状态"), "last": "作品集与面试"},
}
LAST_WEEKS = "23–24"
_LINK = re.compile(r"\[[\w.-]+\]\([^)]*\)|[\w.-]+")
_WRITTEN = re.compile(r"\[?[\w.-]+\.py.*? · \d+ (?:min|分钟)(?: · (?:elective|选修|\*not yet written\*|\*尚未写出\*"
                      r"|\[(?:note|笔记)\]\(docs/phase[^)\s]*\)))*")
_QUOTE = re.compile(r"(<!-- result:([\w/.-]+):([\w.-]+) -->)((?:(?!<!--).)*)(?=<!-- /result -->)", re.DOTALL)


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 if something would change")


def run(arguments: argparse.Namespace) -> int:
    return sync(check=arguments.check)


def sync(check: bool = False, root: Path = ROOT) -> int:
    """Exit code 1 if `check` finds something to change. Raises LessonError for a file that cannot be read or written."""
    curriculum = plan.load(root)
    readmes = read_both(root)
    ticked = ticked_in(readmes)
    for readme in readmes:
        sync_readme(readme, curriculum, ticked, root)
    notes = quoted_results(root)
    changed = [readme.path for readme in readmes if readme.text != readme.original] + list(notes)
    if not check:
        write_all(readmes)
        for path, text in notes.items():
            write_text(path, text)
    for path in changed:
        print(f"{'out of date' if check else 'brought up to date'}: {_shown(path, root)}")
    if not changed:
        print("everything generated is up to date")
    elif check:
        print("Run `course sync` to bring it up to date.")
    return 1 if check and changed else 0


def sync_readme(readme: Readme, curriculum: Curriculum, ticked: set[str], root: Path = ROOT) -> None:
    """Regenerate the regions in place; the caller writes."""
    names = ["progress", *(region_of(phase) for phase in curriculum.phases)]
    _mend_markers(readme, names, 0, [line for line, text in enumerate(readme.lines) if phase_of_row(text)], "|")
    for number, phase in enumerate(curriculum.phases, 1):
        boxes = readme.boxes()
        mine = sorted(line for entry in phase.entries for line in boxes.get(entry.file, ()))
        _mend_markers(readme, names, number, mine, None)
        for entry in phase.entries:
            _sync_line(readme, entry, phase, ticked, root)
    _sync_table(readme, curriculum, ticked)


def checklist_line(entry: Entry, language: str, root: Path = ROOT) -> str:
    """What stands behind the box: name, title, minutes, whether elective, the note where there is one."""
    words, key = WORDS[language], entry.lesson.key
    parts = [f"[{entry.file}]({key}.py)" if entry.is_written else entry.file, entry.title(language),
             f"{entry.minutes} {words['minutes']}"]
    if not entry.is_core:
        parts.append(words["elective"])
    if not entry.is_written:
        parts.append(words["unwritten"])
    elif (root / "docs" / f"{key}{words['ending']}").exists():
        parts.append(f"[{words['note']}](docs/{key}{words['ending']})")
    return " · ".join(parts)


def table_rows(curriculum: Curriculum, language: str, ticked: set[str], last_state: str = TO_DO) -> list[str]:
    """The progress table. Its last row has no scripts: its state is the learner's own to change."""
    rows = [WORDS[language]["columns"], ("---",) * 5]
    for phase in curriculum.phases:
        files, state = progress(phase, ticked)
        rows.append((phase.weeks, f"{phase.number} · {phase.titles[language]}", files, phase.projects[language], state))
    rows.append((LAST_WEEKS, WORDS[language]["last"], "–", "–", last_state))
    return [f"| {' | '.join(row)} |" for row in rows]


def _sync_line(readme: Readme, entry: Entry, phase: Phase, ticked: set[str], root: Path) -> None:
    wanted = checklist_line(entry, readme.language, root)
    boxes = readme.boxes()
    for number in boxes.get(entry.file, ()):
        line = readme.lines[number]
        start = script_in(line).start()
        start -= line[start - 1] == "["
        written = _WRITTEN.match(line, start) or _LINK.match(line, start)
        readme.lines[number] = line[:start] + wanted + line[written.end():]
    if entry.file not in boxes:
        region = readme.region(region_of(phase))
        earlier = [line for other in phase.entries[:phase.entries.index(entry)] for line in boxes.get(other.file, ())
                   if line in region]
        readme.insert(max(earlier, default=region.start - 1) + 1, [f"- [{'x' if entry.file in ticked else ' '}] {wanted}"])


def _sync_table(readme: Readme, curriculum: Curriculum, ticked: set[str]) -> None:
    region = readme.region("progress")
    old = [line for line in region if readme.lines[line].lstrip().startswith("|")]
    last = next((readme.lines[line] for line in old if LAST_WEEKS in readme.lines[line]), "")
    state = next((state for state in (DONE, UNDER_WAY) if state in last), TO_DO)
    for line in reversed(old):
        del readme.lines[line]
    readme.insert(old[0] if old else region.start, table_rows(curriculum, readme.language, ticked, state))


def _mend_markers(readme: Readme, names: list[str], which: int, lines: list[int], mark: str | None) -> None:
    """Put a region's markers back where the pair is not whole: around the first run of `lines` that belong to it, with
    the lines beside them that begin with `mark`; without any such lines, where the region stood in the order of `names`.
    """
    name = names[which]
    if readme.region(name) is not None:
        return
    closed = {line for other in names if (region := readme.region(other)) is not None
              for line in range(region.start - 1, region.stop + 1)}
    free = [line for line in lines if line not in closed and not readme.has_marker(line)]

    def belongs(line: int) -> bool:
        return 0 <= line < len(readme.lines) and not readme.has_marker(line) and line not in closed and (
            readme.lines[line].lstrip().startswith(mark) if mark else line in free)

    if free:
        first = last = free[0]
        while belongs(first - 1):
            first -= 1
        while belongs(last + 1):
            last += 1
        last += 1
    else:
        before = next((region.stop + 1 for other in reversed(names[:which])
                       if (region := readme.region(other)) is not None), None)
        after = next((region.start - 1 for other in names[which + 1:]
                      if (region := readme.region(other)) is not None), len(readme.lines))
        first = last = after if before is None else before
    readme.insert(last, [f"<!-- /course:{name} -->"])
    readme.insert(first, [f"<!-- course:{name} -->"])
    readme.drop_markers(name, keep=readme.region(name))


def quoted_results(root: Path = ROOT) -> dict[Path, str]:
    """{note: its new text} for every note whose quoted results differ from docs/RESULTS.json."""
    results = _results(root / "docs" / "RESULTS.json")
    changed = {}
    for path in sorted((root / "docs").rglob("*.md")):
        if root / "docs" / "notes" in path.parents:         # the learner's own
            continue
        try:
            text = path.read_bytes().decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise LessonError(f"{path} cannot be read ({type(error).__name__}). "
                              "Save it as UTF-8 text, then run this again.") from None

        def value(quote: re.Match) -> str:
            try:
                return quote[1] + _number(results["lessons"][quote[2]]["metrics"][quote[3]]["mean"])
            except (KeyError, TypeError, ValueError):
                print(f"no result for {quote[2]}:{quote[3]}, left as it is in {_shown(path, root)}")
                return quote[0]

        if (new := _QUOTE.sub(value, text)) != text:
            changed[path] = new
    return changed


def _results(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise LessonError(f"{path} cannot be read ({type(error).__name__}). `course verify` writes it anew.") from error


def _number(value: float) -> str:
    """Four significant digits; counts stay whole."""
    return str(int(value)) if float(value).is_integer() and abs(value) >= 10 else f"{value:.4g}"


def _shown(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
