"""`course list`, `course help`, `course next`: read from files, so that they answer at once."""

import argparse
import ast
import dataclasses
import re
import sys
from pathlib import Path
from typing import Any

from common import lessons
from common.config import LessonConfig, param, parse
from common.course import curriculum as plan
from common.course.curriculum import Curriculum, Entry, Phase
from common.course.readme import progress, read_both, ticked_in
from common.errors import LessonError
from common.lessons import ROOT, find_lesson


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    if name == "list":
        help_text = "only this phase: 5, 05 or phase05_cnn"
        parser.add_argument("phase", nargs="?", metavar="PHASE", help=help_text)
    elif name == "help":
        parser.add_argument("lesson", metavar="LESSON", help="05/01, project-mnist, or a path")


def run(arguments: argparse.Namespace) -> int:
    root = lessons.ROOT
    if arguments.command == "list":
        return show_list(arguments.phase, root)
    if arguments.command == "help":
        return show_help(arguments.lesson, root)
    return show_next(root)


def show_list(wanted: str | None = None, root: Path = ROOT) -> int:
    """All lessons, or those of one phase: a table on a terminal, plain lines elsewhere."""
    curriculum = plan.load(root)
    phases = [_phase(wanted, curriculum)] if wanted else curriculum.phases
    ticked = ticked_in(read_both(root))
    show = _rich_list if sys.stdout.isatty() else _plain_list
    show(phases, ticked, plan.language())
    return 0


def show_help(name: str, root: Path = ROOT) -> int:
    """What `python lesson.py --help` prints, without importing the lesson and what it imports."""
    entry = plan.load(root).find(name)
    if not entry.is_written:
        raise LessonError(
            f"{entry.number} “{entry.title(plan.language())}” is planned but not yet written. "
            "`course list` shows which lessons are there."
        )
    try:
        parse(config_of(entry.lesson.path), entry.lesson.doc, ["--help"], prog=entry.file)
    # argparse leaves after printing
    except SystemExit as leaving:
        return int(leaving.code or 0)
    return 0


def show_next(root: Path = ROOT) -> int:
    curriculum = plan.load(root)
    ticked = ticked_in(read_both(root))
    entry = curriculum.next(ticked)
    if entry is None:
        print("Every lesson that is written is ticked." + _planned(curriculum, ticked))
        return 0
    print(f"{entry.number} {entry.title(plan.language())} · about {entry.minutes} min")
    print(f"  run       python {entry.lesson.key}.py")
    if not entry.lesson.is_project:
        print(f"  practise  course practice {entry.number}")
    print(f"  tick      course done {entry.number}")
    return 0


def _planned(curriculum: Curriculum, ticked: set[str]) -> str:
    """A sentence on the next lesson that is to be written, if any."""
    for entry in curriculum.entries:
        if entry.is_core and entry.file not in ticked:
            return f" {entry.number} comes next, and is not yet written."
    return ""


def config_of(path: Path) -> type:
    """The lesson's Config, made anew from the text of its fields. Raises LessonError."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError) as error:
        raise LessonError(
            f"{path} cannot be read as Python ({error}). Run it to see the place, and mend it."
        ) from None
    constants = {}
    body = []
    base = LessonConfig
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            constants[node.targets[0].id] = node.value
        if isinstance(node, ast.ClassDef) and node.name == "Config":
            body = node.body
            if node.bases:
                base = _inherited(node.bases[0], constants)

    fields = []
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Call):
            kind = bool if ast.unparse(node.annotation) == "bool" else str
            fields.append((node.target.id, kind, _param(node.value, constants)))
    return dataclasses.make_dataclass("Config", fields, bases=(base,))


def _inherited(base: ast.expr, constants: dict[str, ast.expr]) -> type:
    """The Config of an earlier lesson, for `class Config(gpt.Config)`; else the common one."""
    lesson = constants.get(base.value.id) if isinstance(base, ast.Attribute) else None
    if isinstance(lesson, ast.Call) and ast.unparse(lesson.func) == "load_lesson":
        return config_of(find_lesson(ast.literal_eval(lesson.args[0])).path)
    return LessonConfig


def _param(call: ast.Call, constants: dict[str, ast.expr]) -> Any:
    arguments = {word.arg: _value(word.value, constants) for word in call.keywords}
    # computed by the lesson: shown as it is written there
    if isinstance(arguments.get("choices"), str):
        arguments["choices"] = (arguments["choices"],)
    return param(*(_value(node, constants) for node in call.args), **arguments)


def _value(node: ast.expr, constants: dict[str, ast.expr]) -> Any:
    """What the expression says; where that would need imports, the expression itself."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "tuple":
        table = constants.get(ast.unparse(node.args[0]))
        if isinstance(table, ast.Dict):
            return tuple(_value(key, constants) for key in table.keys)
    if isinstance(node, ast.Name):
        node = constants.get(node.id, node)
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)


def _phase(wanted: str, curriculum: Curriculum) -> Phase:
    number = re.fullmatch(r"(?:phase *)?0*(\d+)(?:_\w+)?/?", wanted.strip())
    if number and 1 <= int(number[1]) <= len(curriculum.phases):
        return curriculum.phases[int(number[1]) - 1]
    raise LessonError(
        f"there is no phase “{wanted}”. Give a number from 1 to {len(curriculum.phases)}."
    )


def _heading(phase: Phase, ticked: set[str], language: str) -> str:
    files, state = progress(phase, ticked)
    return f"{phase.number} · {phase.titles[language]} · week {phase.weeks} · {files} {state}"


def _about(entry: Entry, language: str) -> str:
    parts = [entry.title(language)]
    if not entry.is_core:
        parts.append("elective")
    if not entry.is_written:
        parts.append("not yet written")
    return " · ".join(parts)


def _plain_list(phases: list[Phase], ticked: set[str], language: str) -> None:
    for phase in phases:
        print(_heading(phase, ticked, language))
        for entry in phase.entries:
            mark = "x" if entry.file in ticked else " "
            minutes = f"{entry.minutes:>3} min"
            print(f"  [{mark}] {entry.number:<27} {minutes}  {_about(entry, language)}")


def _rich_list(phases: list[Phase], ticked: set[str], language: str) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE, show_header=False, pad_edge=False)
    for justify in ("left", "left", "right", "left"):
        table.add_column(justify=justify)
    for phase in phases:
        table.add_row("", "", "", Text(_heading(phase, ticked, language), style="bold"))
        for entry in phase.entries:
            mark = Text("✓" if entry.file in ticked else "", style="green")
            about = Text(_about(entry, language))
            style = None if entry.is_written else "dim"
            table.add_row(mark, entry.number, f"{entry.minutes} min", about, style=style)
        table.add_section()
    Console().print(table)
