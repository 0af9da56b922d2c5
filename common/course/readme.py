"""The two READMEs as the learner's record: boxes, remarks, and regions between `course:` markers.

Both files may be edited by hand in any way. So nothing is parsed and written anew: a README is its
lines, as they are, and a change touches one box or one cell of the progress table.
"""

import contextlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.course.curriculum import Curriculum, Phase
from common.errors import LessonError
from common.files import locked, write_text
from common.lessons import ROOT

NAMES = {"en": "README.md", "zh": "README.zh.md"}
TO_DO, UNDER_WAY, DONE = "⏳", "🔄", "✅"
# the last row of the progress table, which has no scripts
LAST_WEEKS = "23–24"

# str.splitlines would also cut at a form feed
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_SCRIPT = r"(?<![\w.-])(?:\d\d|project)-[\w-]+\.py(?!\w)"
_LINKED = re.compile(rf"(?<=\[){_SCRIPT}(?=\])")
_NAMED = re.compile(_SCRIPT)
_MARKER = re.compile(r"<!--\s*(/?)course:(\w+)\s*-->")

_BULLET = r"\ufeff?[\s>]*(?:[-*+•]|\d+[.)])"
_BOX = re.compile(rf"({_BULLET}\s+)(\[[ \txX]\])(.*)", re.DOTALL)
# as people type them: brackets with something short in them, but no link, or a sign alone
_ODD_BOX = re.compile(
    rf"({_BULLET}\s*)"
    r"([\[［【][^\[\]［］【】\r\n]{0,4}[\]］】](?!\()|[✅☑✔✓√☐⬜]\ufe0f?)"
    r"(.*)",
    re.DOTALL,
)
_NO_BOX = re.compile(rf"({_BULLET}\s+)()(.*)", re.DOTALL)
_TICKS, _BLANKS = set("xXｘＸvV✓✔√✅☑"), set("☐⬜")

# behind the box: what `course sync` has written, and the least that is left of it
_WRITTEN = re.compile(
    r"\[?[\w.-]+\.py.*? · \d+ (?:min|分钟)(?: · (?:elective|选修|\*not yet written\*|\*尚未写出\*"
    r"|\[(?:note|笔记)\]\(docs/phase[^)\s]*\)))*"
)
_LINK = re.compile(r"\[?[\w.-]+(?:\](?:\([^)\r\n]*\))?)?")

# | week | 1 · phase | 0/7 (+0) | project | state |
_ROW = re.compile(
    r"(\s*\|[^|]*\|\s*(\d{1,2}) · [^|]*\|[^|\d]*)(\d+/\d+(?: \(\+\d+\))?)"
    rf"([^|]*\|[^|]*\|[^|]*?)({TO_DO}|{UNDER_WAY}|{DONE})([^|]*\|.*)",
    re.DOTALL,
)


@dataclass(frozen=True)
class Box:
    """One checklist line, cut into what stands before the box, the box, and the rest."""

    head: str
    box: str
    tail: str
    script: str
    # whether the script's name follows the box at once
    direct: bool

    @property
    def ticked(self) -> bool | None:
        """None where there is no box, or one that could mean either."""
        if not self.box:
            return None
        inside = self.box.strip("[]［］【】").replace("\ufe0f", "").strip()
        if set(inside) <= _BLANKS:
            return False
        return True if set(inside) <= _TICKS else None

    def line(self, ticked: bool) -> str:
        """The line with this box set or cleared; one that says so already stays as it is typed."""
        if self.ticked is ticked:
            return self.head + self.box + self.tail
        # what stood close to brackets may go on doing so
        close = self.box.startswith("[") or self.tail.startswith((" ", "\t"))
        gap = "" if close else " "
        return f"{self.head}[{'x' if ticked else ' '}]{gap}{self.tail}"


def box_of(line: str) -> Box | None:
    """The box of a checklist line that is about a script, as whoever typed it has typed it."""
    if ".py" not in line:
        return None
    for pattern in (_BOX, _ODD_BOX, _NO_BOX):
        found = pattern.fullmatch(line)
        name = script_in(found[3]) if found else None
        if not name:
            continue
        direct = bool(re.fullmatch(r"\s*\[?", found[3][: name.start()]))
        box = Box(found[1], found[2], found[3], name[0], direct)
        # an odd box counts beside the name only, a missing one only before what sync has written
        if pattern is _BOX or (pattern is _ODD_BOX and direct):
            return box
        if pattern is _NO_BOX and direct and _WRITTEN.match(found[3].lstrip()):
            return box
    return None


class Readme:
    """One README. Raises LessonError if it is not there or not UTF-8; any other content will do."""

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
                f"{path} cannot be read ({error.strerror}). `git checkout {path.name}` brings it "
                "back, `course status --restore` your ticks."
            ) from None
        self.lines = _LINE.findall(self.original)

    @property
    def text(self) -> str:
        return "".join(self.lines)

    @property
    def newline(self) -> str:
        endings = (re.search(r"\r\n|\r|\n", line) for line in self.lines)
        return next((ending[0] for ending in endings if ending), "\n")

    def boxes(self) -> dict[str, list[int]]:
        """{script: the lines with its box}. The script's name directly follows the box.

        Only where a script has no such line, one that names it farther on counts: a note like
        "- [ ] try 01-numpy-basics.py with other seeds" is a to-do of the learner's own.
        """
        direct: dict[str, list[int]] = {}
        distant: dict[str, list[int]] = {}
        for number, line in enumerate(self.lines):
            if box := box_of(line):
                found = direct if box.direct else distant
                found.setdefault(box.script, []).append(number)
        return distant | direct

    def ticked(self) -> set[str]:
        """The scripts that are ticked; one tick is enough where a line stands twice."""
        return {
            script
            for script, lines in self.boxes().items()
            if any(box_of(self.lines[line]).ticked for line in lines)
        }

    def tick(self, scripts: Iterable[str], on: bool) -> None:
        """Set or clear their boxes. Raises LessonError, with nothing written, if one is missing."""
        boxes = self.boxes()
        for script in scripts:
            if script not in boxes:
                raise LessonError(
                    f"{self.path.name} has no line with a box for {script}, so nothing was "
                    "changed. `course sync` puts the line back, then run this again."
                )
            for line in boxes[script]:
                self.lines[line] = box_of(self.lines[line]).line(on)

    def add_boxes(self, ticked: set[str]) -> None:
        """Give a box to the lines that have lost theirs."""
        for script, lines in self.boxes().items():
            for line in lines:
                box = box_of(self.lines[line])
                if not box.box:
                    self.lines[line] = box.line(script in ticked)

    def unclear(self) -> dict[str, str]:
        """{script: where its box is and what it looks like}, for boxes that could mean either."""
        found = {}
        for script, lines in self.boxes().items():
            for line in lines:
                box = box_of(self.lines[line])
                if box.box and box.ticked is None:
                    found[script] = f"{self.path.name}, line {line + 1}: {box.box}"
        return found

    def remarks(self) -> dict[str, list[str]]:
        """{script: what the learner wrote before and behind the generated part of its line}."""
        found = {}
        for script, lines in self.boxes().items():
            for line in lines:
                before, _, after = self._parts(line)
                if script not in found and (before.strip() or after.strip()):
                    found[script] = [before, after]
        return found

    def add_remark(self, script: str, before: str, after: str) -> bool:
        """Write a remark onto the script's line, if it has none; returns whether it was written."""
        lines = self.boxes().get(script)
        if not lines or script in self.remarks():
            return False
        line = lines[0]
        box = box_of(self.lines[line])
        _, written, _ = self._parts(line)
        ending = re.search(r"[\r\n]*$", self.lines[line])[0]
        before = before if before.strip() else " "
        self.lines[line] = box.head + box.box + before + written + after + ending
        return True

    def _parts(self, line: int) -> tuple[str, str, str]:
        """What follows the box: a remark, the generated part, another remark."""
        tail = box_of(self.lines[line]).tail.rstrip("\r\n")
        start, end = written_in(tail)
        return tail[:start], tail[start:end], tail[end:]

    @property
    def last_state(self) -> str:
        """The state in the last row of the progress table, which is the learner's to change."""
        line = self._last_row()
        row = self.lines[line] if line is not None else ""
        return next((state for state in (DONE, UNDER_WAY) if state in row), TO_DO)

    def set_last_state(self, state: str) -> None:
        line = self._last_row()
        if line is not None:
            self.lines[line] = self.lines[line].replace(self.last_state, state)

    def _last_row(self) -> int | None:
        region = self.region("progress") or ()
        rows = (line for line in region if self.lines[line].lstrip().startswith("|"))
        return next((line for line in rows if LAST_WEEKS in self.lines[line]), None)

    def region(self, name: str) -> range | None:
        """The lines between <!-- course:name --> and its end marker, if the pair is whole."""
        start = None
        for number, line in enumerate(self.lines):
            for closing, found in _MARKER.findall(line) if "<!--" in line else ():
                if closing and found == name and start is not None and start < number:
                    return range(start + 1, number)
                # no region reaches over another marker
                start = number if found == name and not closing else None
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
        found = {}
        for line in self.region("progress") or ():
            if phase := phase_of_row(self.lines[line]):
                found[phase] = line
        return found

    def fill_table(self, curriculum: Curriculum, ticked: set[str]) -> None:
        """Recompute the table's cells. Raises LessonError, with nothing written, for a lost row."""
        rows = self.rows()
        for phase in curriculum.phases:
            if phase.number not in rows:
                what = f"the row of phase {phase.number} in its progress table"
                if self.region("progress") is None:
                    what = "the markers of its progress table"
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
        found = []
        for name in ["progress", *(region_of(phase) for phase in curriculum.phases)]:
            if self.region(name) is None:
                found.append(f"the markers of course:{name}")
        for phase in curriculum.phases:
            if phase.number not in rows and self.region("progress") is not None:
                found.append(f"the row of phase {phase.number}")
        for entry in curriculum.entries:
            lines = boxes.get(entry.file, ())
            if not lines:
                found.append(f"the line of {entry.number}")
            elif not all(box_of(self.lines[line]).box for line in lines):
                found.append(f"the box of {entry.number}")
        return found


def script_in(text: str) -> re.Match | None:
    """The script that a line is about: the first that is a link's text, else the first named."""
    return _LINKED.search(text) or _NAMED.search(text)


def written_in(text: str) -> tuple[int, int]:
    """Where the part of a checklist line begins and ends that `course sync` writes."""
    start = script_in(text).start()
    if text[start - 1 : start] == "[":
        start -= 1
    written = _WRITTEN.match(text, start) or _LINK.match(text, start)
    return start, written.end()


def phase_of_row(line: str) -> int | None:
    """The phase whose row of the progress table this line is."""
    row = _ROW.fullmatch(line)
    return int(row[2]) if row else None


def region_of(phase: Phase) -> str:
    return f"phase{phase.number:02d}"


def progress(phase: Phase, ticked: set[str]) -> tuple[str, str]:
    """The cells "files" and "state": ("3/7 (+1)", 🔄). Projects count for the state only."""
    named, electives = phase.of_kind("named"), phase.of_kind("elective")
    files = f"{_count(named, ticked)}/{len(named)}"
    if electives:
        files += f" (+{_count(electives, ticked)})"
    if all(entry.file in ticked for entry in phase.entries if entry.is_core):
        return files, DONE
    return files, UNDER_WAY if _count(phase.entries, ticked) else TO_DO


def _count(entries: Iterable, ticked: set[str]) -> int:
    return sum(entry.file in ticked for entry in entries)


def read_both(root: Path = ROOT) -> list[Readme]:
    return [Readme(root / name, language) for language, name in NAMES.items()]


@contextlib.contextmanager
def editing(root: Path = ROOT) -> Iterator[list[Readme]]:
    """Both READMEs, for one writer at a time; they are written when the block ends well.

    Raises LessonError as `Readme`, `locked` and `write_all` do, with nothing written.
    """
    with locked(root / NAMES["en"]):
        readmes = read_both(root)
        yield readmes
        write_all(readmes)


def ticked_in(readmes: Sequence[Readme]) -> set[str]:
    """The union: what is ticked in any of them, by hand or by command."""
    return set().union(*(readme.ticked() for readme in readmes))


def write_all(readmes: Sequence[Readme]) -> list[Readme]:
    """Write those that changed, all or none; returns them. Raises LessonError if one cannot be."""
    changed = [readme for readme in readmes if readme.text != readme.original]
    for number, readme in enumerate(changed):
        try:
            write_text(readme.path, readme.text)
        except LessonError as error:
            for earlier in changed[:number]:
                write_text(earlier.path, earlier.original)
            raise LessonError(
                f"{readme.path} cannot be written, so both READMEs stay as they were. Make room "
                "on the disk, or give yourself the right to write there, then run this again."
            ) from error
    return changed
