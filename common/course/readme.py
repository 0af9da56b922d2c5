"""The two READMEs as the learner's record: the boxes on their lines, and the regions between `course:` markers.

Both files may be edited by hand in any way. So nothing is parsed and written anew: a README is its lines, as they are,
and a change touches the one character inside [ ] or one cell of the progress table.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from common.course.curriculum import Curriculum, Phase
from common.errors import LessonError
from common.files import write_text
from common.lessons import ROOT

NAMES = {"en": "README.md", "zh": "README.zh.md"}
TO_DO, UNDER_WAY, DONE = "⏳", "🔄", "✅"

_LINE = re.compile(
    r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+"
)  # str.splitlines would also cut at a form feed
_SCRIPT = r"(?<![\w.-])(?:\d\d|project)-[\w-]+\.py(?!\w)"
_LINKED, _NAMED = re.compile(rf"(?<=\[){_SCRIPT}(?=\])"), re.compile(_SCRIPT)
_BOX = re.compile(r"(\ufeff?[\s>]*(?:[-*+]|\d+[.)])\s+\[)([ \txX])(\].*)", re.DOTALL)
_MARKER = re.compile(r"<!--\s*(/?)course:(\w+)\s*-->")
_ROW = re.compile(
    r"(\s*\|[^|]*\|\s*(\d{1,2}) · [^|]*\|[^|\d]*)(\d+/\d+(?: \(\+\d+\))?)"  # | week | 1 · phase | 0/7
    rf"([^|]*\|[^|]*\|[^|]*?)({TO_DO}|{UNDER_WAY}|{DONE})([^|]*\|.*)",
    re.DOTALL,
)  # | project | state |


class Readme:
    """One README. Raises LessonError if it is not there or is not UTF-8; every other content will do."""

    def __init__(self, path: Path, language: str):
        self.path, self.language = path, language
        try:
            self.original = path.read_bytes().decode("utf-8")
        except UnicodeDecodeError as error:
            raise LessonError(
                f"{path} is not UTF-8 text (byte {error.start}), so it was not touched. "
                "Save it as UTF-8 in your editor, then run this again."
            ) from None
        except OSError as error:
            raise LessonError(
                f"{path} cannot be read ({error.strerror}). `git checkout {path.name}` brings it back, "
                "`course status --restore` your ticks."
            ) from None
        self.lines = _LINE.findall(self.original)

    @property
    def text(self) -> str:
        return "".join(self.lines)

    @property
    def newline(self) -> str:
        return next(
            (ending[0] for line in self.lines if (ending := re.search(r"\r\n|\r|\n", line))), "\n"
        )

    def boxes(self) -> dict[str, list[int]]:
        """{script: the lines with its box}. A line belongs to the script whose name directly follows the box.

        Only where a script has no such line, one that names it farther on counts: a note like "- [ ] try
        01-numpy-basics.py with other seeds" is a to-do of the learner's own.
        """
        direct: dict[str, list[int]] = {}
        distant: dict[str, list[int]] = {}
        for number, line in enumerate(self.lines):
            if (box := _BOX.fullmatch(line)) and (name := script_in(box[3])):
                at_once = re.fullmatch(r"\]\s*\[?", box[3][: name.start()])
                (direct if at_once else distant).setdefault(name[0], []).append(number)
        return distant | direct

    def ticked(self) -> set[str]:
        """The scripts that are ticked; one tick is enough where a line stands twice."""
        return {
            script
            for script, lines in self.boxes().items()
            if any(_BOX.fullmatch(self.lines[line])[2] in "xX" for line in lines)
        }

    def tick(self, scripts: Iterable[str], on: bool) -> None:
        """Set or clear their boxes. Raises LessonError, with nothing written, when one has no line."""
        boxes = self.boxes()
        for script in scripts:
            if script not in boxes:
                raise LessonError(
                    f"{self.path.name} has no line with a box for {script}, so nothing was changed. "
                    "`course sync` puts the line back, then run this again."
                )
            for line in boxes[script]:
                head, mark, tail = _BOX.fullmatch(self.lines[line]).groups()
                if (mark in "xX") != on:
                    self.lines[line] = head + ("x" if on else " ") + tail

    def region(self, name: str) -> range | None:
        """The lines between <!-- course:name --> and its end marker; None unless the pair is whole."""
        start = None
        for number, line in enumerate(self.lines):
            for closing, found in _MARKER.findall(line) if "<!--" in line else ():
                if closing and found == name and start is not None and start < number:
                    return range(start + 1, number)
                start = (
                    number if found == name and not closing else None
                )  # no region reaches over another marker
        return None

    def has_marker(self, line: int) -> bool:
        return bool(_MARKER.search(self.lines[line]))

    def insert(self, line: int, texts: Sequence[str]) -> None:
        """New lines in front of `line`, in the line endings of this file."""
        newline = self.newline
        if line and not self.lines[line - 1].endswith(("\n", "\r")):
            self.lines[line - 1] += newline
        self.lines[line:line] = [text + newline for text in texts]

    def drop_markers(self, name: str, keep: range) -> None:
        """Take away markers of this name that stand alone, outside the whole pair around `keep`."""
        marker = re.compile(rf"<!--\s*/?course:{name}\s*-->")
        for line in reversed(range(len(self.lines))):
            if line not in (keep.start - 1, keep.stop) and marker.search(self.lines[line]):
                self.lines[line] = marker.sub("", self.lines[line])
                if not self.lines[line].strip():
                    del self.lines[line]

    def rows(self) -> dict[int, int]:
        """{phase: its line in the progress table}."""
        return {
            phase: line
            for line in self.region("progress") or ()
            if (phase := phase_of_row(self.lines[line]))
        }

    def fill_table(self, curriculum: Curriculum, ticked: set[str]) -> None:
        """Recompute the table's cells. Raises LessonError, with nothing written, when a row or marker is missing."""
        rows = self.rows()
        for phase in curriculum.phases:
            if phase.number not in rows:
                what = (
                    "the markers of its progress table"
                    if self.region("progress") is None
                    else f"the row of phase {phase.number} in its progress table"
                )
                raise LessonError(
                    f"{self.path.name} has lost {what}, so nothing was changed. "
                    "`course sync` puts it back, then run this again."
                )
            row = _ROW.fullmatch(self.lines[rows[phase.number]])
            files, state = progress(phase, ticked)
            self.lines[rows[phase.number]] = row[1] + files + row[4] + state + row[6]

    def faults(self, curriculum: Curriculum) -> list[str]:
        """What `course sync` would have to put back, in words."""
        boxes, rows = self.boxes(), self.rows()
        regions = ["progress", *(region_of(phase) for phase in curriculum.phases)]
        return (
            [f"the markers of course:{name}" for name in regions if self.region(name) is None]
            + [
                f"the row of phase {phase.number}"
                for phase in curriculum.phases
                if phase.number not in rows and self.region("progress") is not None
            ]
            + [
                f"the line of {entry.number}"
                for entry in curriculum.entries
                if entry.file not in boxes
            ]
        )


def script_in(text: str) -> re.Match | None:
    """The script that a line is about: the first that is a link's text, else the first that is named."""
    return _LINKED.search(text) or _NAMED.search(text)


def phase_of_row(line: str) -> int | None:
    """The phase whose row of the progress table this line is."""
    row = _ROW.fullmatch(line)
    return int(row[2]) if row else None


def region_of(phase: Phase) -> str:
    return f"phase{phase.number:02d}"


def progress(phase: Phase, ticked: set[str]) -> tuple[str, str]:
    """The cells "files" and "state": ("3/7 (+1)", 🔄). Projects count for the state only: they have their own column."""
    named, electives = phase.of_kind("named"), phase.of_kind("elective")
    files = f"{_count(named, ticked)}/{len(named)}" + (
        f" (+{_count(electives, ticked)})" if electives else ""
    )
    if all(entry.file in ticked for entry in phase.entries if entry.is_core):
        return files, DONE
    return files, UNDER_WAY if _count(phase.entries, ticked) else TO_DO


def _count(entries: Iterable, ticked: set[str]) -> int:
    return sum(entry.file in ticked for entry in entries)


def read_both(root: Path = ROOT) -> list[Readme]:
    return [Readme(root / name, language) for language, name in NAMES.items()]


def ticked_in(readmes: Sequence[Readme]) -> set[str]:
    """The union: what is ticked in any of them, by hand or by command."""
    return set().union(*(readme.ticked() for readme in readmes))


def write_all(readmes: Sequence[Readme]) -> list[Readme]:
    """Write those that changed, all or none; returns them. Raises LessonError when one cannot be written."""
    changed = [readme for readme in readmes if readme.text != readme.original]
    for number, readme in enumerate(changed):
        try:
            write_text(readme.path, readme.text)
        except LessonError as error:
            for earlier in changed[:number]:
                write_text(earlier.path, earlier.original)
            raise LessonError(
                f"{readme.path} cannot be written, so both READMEs stay as they were. Make room on the "
                "disk, or give yourself the right to write there, then run this again."
            ) from error
    return changed
