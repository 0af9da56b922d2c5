"""Finding lessons, reading their headers without importing them, and the only door between lessons: `load_lesson`."""

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


@dataclass(frozen=True)
class Question:
    """One line of "You will be able to answer": the question, the function that shows it, the claims it makes."""

    number: int
    text: str
    function: str
    claims: tuple[str, ...]


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
        """ "05/01" for a numbered lesson, "05/project-cifar10" for a project."""
        head = self.path.stem.split("-")[0]
        return f"{self.phase[5:7]}/{head if head.isdigit() else self.path.stem}"

    @property
    def is_project(self) -> bool:
        return self.path.stem.startswith("project-")

    @functools.cached_property
    def doc(self) -> str:
        """The docstring, read from the text: importing a lesson may cost seconds, reading it costs nothing."""
        match = re.match(r'\s*"""(.*?)"""', self.path.read_text(encoding="utf-8"), re.DOTALL)
        return match.group(1) if match else ""

    @property
    def title(self) -> str:
        """ "NumPy basics: an array is …", without the number in front."""
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
    def needs(self) -> list[str]:
        match = re.search(r"^Needs +(.+(?:\n {6,}.+)*)", self.doc, re.MULTILINE)
        return re.findall(r"phase\d\d_\w+/[\w-]+", match.group(1)) if match else []

    def out(self, tiny: bool = False) -> Path:
        """Where its results go. A tiny run never overwrites those of a normal one."""
        base = PRACTICE / "outputs" if PRACTICE in self.path.parents else ROOT / "outputs"
        return base / self.key / "tiny" if tiny else base / self.key


def all_lessons(root: Path = ROOT) -> list[Lesson]:
    """Every script of every phase, in the order in which they are taught: numbered ones, then the projects."""
    return [
        Lesson(path)
        for folder in sorted(root.glob("phase[0-9][0-9]_*"))
        for path in sorted(folder.glob("*.py"))
        if re.match(r"\d\d-|project-", path.name)
    ]


def find_lesson(name: str, root: Path = ROOT, lessons: list[Lesson] | None = None) -> Lesson:
    """The lesson meant by "05/01", "5/1", "phase05_cnn/01-convolution-basics", a path, or "project-mnist".

    Looked for among `lessons`, by default the scripts that exist under `root`.
    """
    lessons = all_lessons(root) if lessons is None else lessons
    wanted = name.strip().removesuffix(".py").replace("\\", "/").removeprefix("./")
    short = re.fullmatch(r"(\d{1,2})[/.](\d{1,2})", wanted)
    if short:
        wanted = f"{int(short[1]):02d}/{int(short[2]):02d}"
    elif match := re.fullmatch(r"(\d{1,2})/(.+)", wanted):
        wanted = f"{int(match[1]):02d}/{match[2]}"
    as_path = Path(name).resolve()
    found = [
        lesson
        for lesson in lessons
        if wanted
        in (
            lesson.number,
            lesson.key,
            lesson.path.stem,
            lesson.path.stem.removeprefix("project-"),
            f"{lesson.phase[5:7]}/{lesson.path.stem.removeprefix('project-')}",
            str(lesson.path.with_suffix("")),
            *([f"{lesson.phase[5:7]}/project"] if lesson.is_project else []),
        )
        or lesson.path == as_path
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise LessonError(
            f"“{name}” could be {' or '.join(lesson.number for lesson in found)}: say which."
        )
    stems = [lesson.path.stem for lesson in lessons]
    names = (
        [lesson.number for lesson in lessons]
        + stems
        + [stem.removeprefix("project-") for stem in stems]
    )
    close = difflib.get_close_matches(wanted, names, 1)
    raise LessonError(
        f"there is no lesson “{name}”"
        + (f"; did you mean {close[0]}?" if close else ".")
        + " `course list` shows them all."
    )


def lesson_of(file: str | Path) -> Lesson:
    return Lesson(Path(file).resolve())


def load_lesson(key: str) -> ModuleType:
    """Import an earlier lesson by its path, e.g. load_lesson("phase07_transformer/02-multi-head-attention").

    Under `course run --mine` it is the learner's own practice copy where that copy has passed its check.
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
