"""The course as planned: every script, written or not, and the milestones; from curriculum.toml."""

import locale
import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from common.lessons import ROOT, Lesson, find_lesson

LANGUAGES = ("en", "zh")


@dataclass(frozen=True)
class Entry:
    """One script of the plan. `lesson.path` need not exist yet."""

    lesson: Lesson
    kind: str  # named, elective or project
    minutes: int  # reading the note, running, practising
    titles: dict[str, str] = field(hash=False)

    @property
    def file(self) -> str:
        """Unique in the whole course: the READMEs' lines are found by it."""
        return self.lesson.path.name

    @property
    def number(self) -> str:
        return self.lesson.number

    @property
    def is_core(self) -> bool:
        return self.kind != "elective"

    @property
    def is_written(self) -> bool:
        return self.lesson.path.exists()

    def title(self, language: str = "en") -> str:
        """From the docstring where the script exists, else as planned."""
        written = self.is_written and (
            self.lesson.title_zh if language == "zh" else self.lesson.title
        )
        return written or self.titles[language]


@dataclass(frozen=True)
class Phase:
    number: int
    folder: str
    weeks: str
    titles: dict[str, str]
    projects: dict[str, str]  # what stands in the progress table
    entries: tuple[Entry, ...]

    def of_kind(self, kind: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.kind == kind]


@dataclass(frozen=True)
class Milestone:
    week: int
    phases: tuple[int, ...]
    core: tuple[Entry, ...]  # what has to be ticked
    items: dict[str, list[str]]
    notes: dict[str, str]


@dataclass(frozen=True)
class Curriculum:
    phases: tuple[Phase, ...]
    milestones: tuple[Milestone, ...]

    @property
    def entries(self) -> list[Entry]:
        return [entry for phase in self.phases for entry in phase.entries]

    def next(self, ticked: set[str]) -> Entry | None:
        """The first script of the core path that is written and not ticked."""
        return next(
            (e for e in self.entries if e.is_core and e.is_written and e.file not in ticked), None
        )

    def find(self, name: str) -> Entry:
        """The script meant by a name, as `find_lesson` knows it, but written or not.

        Raises LessonError.
        """
        entries = {entry.lesson: entry for entry in self.entries}
        return entries[find_lesson(name, lessons=list(entries))]


def load(root: Path = ROOT) -> Curriculum:
    """The plan, with its scripts looked for under `root`."""
    with open(Path(__file__).with_name("curriculum.toml"), "rb") as file:
        plan = tomllib.load(file)
    phases = tuple(_phase(number, row, root) for number, row in enumerate(plan["phase"], 1))
    return Curriculum(phases, tuple(_milestone(row, phases) for row in plan["milestone"]))


def _phase(number: int, row: dict, root: Path) -> Phase:
    entries = tuple(
        Entry(
            Lesson(root / row["folder"] / f"{stem}.py"),
            kind,
            minutes,
            {"en": title, "zh": title_zh},
        )
        for kind, group in (("named", "named"), ("elective", "electives"), ("project", "projects"))
        for stem, minutes, title, title_zh in row.get(group, ())
    )
    return Phase(
        number, row["folder"], row["weeks"], _both(row, "title"), _both(row, "project"), entries
    )


def _milestone(row: dict, phases: tuple[Phase, ...]) -> Milestone:
    also = row.get("also", ())
    core = tuple(
        entry
        for phase in phases
        for entry in phase.entries
        if (phase.number in row["phases"] and entry.is_core) or entry.lesson.key in also
    )
    return Milestone(
        row["week"], tuple(row["phases"]), core, _both(row, "items"), _both(row, "note")
    )


def _both(row: dict, name: str) -> dict:
    return {"en": row.get(name, ""), "zh": row.get(f"{name}_zh", "")}


def language() -> str:
    """ "zh" where COURSE_LANG, or without it the locale, is Chinese; else "en"."""
    names = ("COURSE_LANG", "LC_ALL", "LC_MESSAGES", "LANG")
    wanted = next(
        (os.environ[name] for name in names if os.environ.get(name)), locale.getlocale()[0] or ""
    )
    return "zh" if wanted.lower().startswith(("zh", "chinese")) else "en"
