"""Finding lessons, reading their headers without importing them, and the only door between them.

That door is `load_lesson`.
"""

import difflib
import functools
import hashlib
import importlib
import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from common.errors import LessonError

ROOT = Path(__file__).resolve().parent.parent
PRACTICE = ROOT / "practice"
_QUESTION = re.compile(r"^ {2,}(\d+)\. (.+?) {2,}(\w+) {2,}([a-z0-9][\w, -]*)$")
_PREDICT = re.compile(r"^Predict +([\w-]+): *(.+(?:\n {6,}.+)*)", re.MULTILINE)


@dataclass(frozen=True)
class Question:
    """One line of "You will be able to answer": the function that shows it, the claims it makes."""

    number: int
    text: str
    function: str
    claims: tuple[str, ...]


@dataclass(frozen=True)
class Predict:
    """The line "Predict   key: question?"; key is a number in what `run` returns."""

    key: str
    question: str
    # of the file, counted from 1
    line: int


@dataclass(frozen=True)
class Lesson:
    """One script. `key` is its path without the ending, as `load_lesson` takes it."""

    path: Path

    @property
    def phase(self) -> str:
        return self.path.parent.name

    @property
    def key(self) -> str:
        return f"{self.phase}/{self.path.stem}"

    @property
    def number(self) -> str:
        """05/01 for a numbered lesson, 05/project-cifar10 for a project."""
        head = self.path.stem.split("-")[0]
        return f"{self.phase[5:7]}/{head if head.isdigit() else self.path.stem}"

    @property
    def is_project(self) -> bool:
        return self.path.stem.startswith("project-")

    @functools.cached_property
    def doc(self) -> str:
        """The docstring, read from the text: importing a lesson may cost seconds."""
        match = re.match(r'\s*"""(.*?)"""', self.path.read_text(encoding="utf-8"), re.DOTALL)
        return match.group(1) if match else ""

    @property
    def title(self) -> str:
        """The first line without the number in front: NumPy basics: an array is …"""
        return re.sub(r"^(\d+\.\d+|Project \d+)\s+", "", self.doc.split("\n")[0].strip())

    @property
    def title_zh(self) -> str:
        lines = self.doc.split("\n")
        return lines[1].strip() if len(lines) > 1 else ""

    @property
    def questions(self) -> list[Question]:
        found = (_QUESTION.match(line) for line in self.doc.split("\n"))
        return [
            Question(int(m[1]), m[2].strip(), m[3], tuple(c.strip() for c in m[4].split(",")))
            for m in found
            if m
        ]

    @property
    def predict(self) -> Predict | None:
        match = _PREDICT.search(self.doc)
        if match is None:
            return None
        line = self.doc.count("\n", 0, match.start()) + 1
        return Predict(match[1], " ".join(match[2].split()), line)

    @property
    def needs(self) -> list[str]:
        match = re.search(r"^Needs +(.+(?:\n {6,}.+)*)", self.doc, re.MULTILINE)
        return re.findall(r"phase\d\d_\w+/[\w-]+", match.group(1)) if match else []

    def out(self, tiny: bool = False) -> Path:
        """Where its results go. A tiny run never overwrites those of a normal one."""
        base = PRACTICE / "outputs" if PRACTICE in self.path.parents else ROOT / "outputs"
        return base / self.key / "tiny" if tiny else base / self.key


def all_lessons(root: Path = ROOT) -> list[Lesson]:
    """Every script of every phase, in the order of teaching: numbered ones, then the projects."""
    return [
        Lesson(path)
        for folder in sorted(root.glob("phase[0-9][0-9]_*"))
        for path in sorted(folder.glob("*.py"))
        if re.match(r"\d\d-|project-", path.name)
    ]


def find_lesson(name: str, root: Path = ROOT, lessons: list[Lesson] | None = None) -> Lesson:
    """The lesson meant by "05/01", "5/1", "phase05_cnn/01-convolution-basics", "mnist" or a path.

    Looked for among `lessons`, by default the scripts that exist under `root`.
    """
    lessons = all_lessons(root) if lessons is None else lessons
    wanted = name.strip().removesuffix(".py").replace("\\", "/").removeprefix("./")
    if short := re.fullmatch(r"(\d{1,2})[/.](\d{1,2})", wanted):
        wanted = f"{int(short[1]):02d}/{int(short[2]):02d}"
    elif match := re.fullmatch(r"(\d{1,2})/(.+)", wanted):
        wanted = f"{int(match[1]):02d}/{match[2]}"

    as_path = Path(name).resolve()
    found = [lesson for lesson in lessons if lesson.path == as_path or wanted in _names(lesson)]
    if len(found) == 1:
        return found[0]
    if found:
        numbers = " or ".join(lesson.number for lesson in found)
        raise LessonError(f"“{name}” could be {numbers}: say which.")

    known = [lesson.number for lesson in lessons]
    for lesson in lessons:
        known += [lesson.path.stem, lesson.path.stem.removeprefix("project-")]
    close = difflib.get_close_matches(wanted, known, 1)
    hint = f"; did you mean {close[0]}?" if close else "."
    raise LessonError(f"there is no lesson “{name}”{hint} `course list` shows them all.")


def _names(lesson: Lesson) -> set[str]:
    """What a learner may call it."""
    short = lesson.path.stem.removeprefix("project-")
    phase = lesson.phase[5:7]
    names = {lesson.number, lesson.key, lesson.path.stem, short, f"{phase}/{short}"}
    if lesson.is_project:
        names.add(f"{phase}/project")
    return names | {str(lesson.path.with_suffix(""))}


def shown(path: Path) -> str:
    """A path to paste: from the repository's root if it lies in there, quoted if it has a blank."""
    text = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
    return f'"{text}"' if " " in text else text


def lesson_of(file: str | Path) -> Lesson:
    return Lesson(Path(file).resolve())


def load_lesson(key: str) -> ModuleType:
    """Import an earlier lesson by its key, e.g. load_lesson("phase07_transformer/01-attention").

    Under `course run --mine` it is the learner's own practice copy, if that has passed its check.
    """
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    mine = PRACTICE / f"{key}.py"
    if os.environ.get("COURSE_MINE") == "1" and has_passed(mine):
        print(f"yours: {mine.relative_to(ROOT)}")
        return importlib.import_module("practice." + key.replace("/", "."))
    return importlib.import_module(key.replace("/", "."))


def fingerprint(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def passed_practice() -> dict[str, str]:
    """{lesson key: fingerprint of the copy that passed}; a copy edited since has to pass again."""
    try:
        passed = json.loads((PRACTICE / "passed.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return passed if isinstance(passed, dict) else {}


def has_passed(copy: Path) -> bool:
    key = f"{copy.parent.name}/{copy.stem}"
    return copy.exists() and passed_practice().get(key) == fingerprint(copy)
