"""`course list`, `course help`, `course next`: read from files, with nothing imported, so that they answer at once."""

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
from common.lessons import ROOT


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    if name == "list":
        parser.add_argument(
            "phase", nargs="?", metavar="PHASE", help="only this phase: 5, 05 or phase05_cnn"
        )
    elif name == "help":
        parser.add_argument("lesson", metavar="LESSON", help="05/01, project-mnist, or a path")


def run(arguments: argparse.Namespace) -> int:
    root = lessons.ROOT
    if arguments.command == "list":
        return show_list(arguments.phase, root)
    return show_help(arguments.lesson, root) if arguments.command == "help" else show_next(root)


def show_list(wanted: str | None = None, root: Path = ROOT) -> int:
    """All lessons, or those of one phase: a table on a terminal, plain lines where the output is piped."""
    curriculum = plan.load(root)
    phases = [_phase(wanted, curriculum)] if wanted else curriculum.phases
    ticked = ticked_in(read_both(root))
    language = plan.language()
    (_rich_list if sys.stdout.isatty() else _plain_list)(phases, ticked, language)
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
    except SystemExit as leaving:  # argparse leaves after printing
        return int(leaving.code or 0)
    return 0


def show_next(root: Path = ROOT) -> int:
    curriculum = plan.load(root)
    ticked = ticked_in(read_both(root))
    entry = curriculum.next(ticked)
    if entry is None:
        planned = next(
            (e.number for e in curriculum.entries if e.is_core and e.file not in ticked), None
        )
        print(
            "Every lesson that is written is ticked."
            + (f" {planned} comes next, and is not yet written." if planned else "")
        )
        return 0
    print(
        f"{entry.number} {entry.title(plan.language())} · about {entry.minutes} min\n"
        f"  run       python {entry.lesson.key}.py"
    )
    if not entry.lesson.is_project:
        print(f"  practise  course practice {entry.number}")
    print(f"  tick      course done {entry.number}")
    return 0


def config_of(path: Path) -> type:
    """The lesson's Config, made anew from the text of its fields. Raises LessonError if the file is no Python."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError) as error:
        raise LessonError(
            f"{path} cannot be read as Python ({error}). Run it to see the place, and mend it."
        ) from None
    constants = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    config = next(
        (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Config"),
        None,
    )
    fields = [
        (
            node.target.id,
            bool if ast.unparse(node.annotation) == "bool" else str,
            _param(node.value, constants),
        )
        for node in (config.body if config else ())
        if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Call)
    ]
    return dataclasses.make_dataclass("Config", fields, bases=(LessonConfig,))


def _param(call: ast.Call, constants: dict[str, ast.expr]) -> Any:
    arguments = {word.arg: _value(word.value, constants) for word in call.keywords}
    if isinstance(arguments.get("choices"), str):
        arguments["choices"] = (
            arguments["choices"],
        )  # computed by the lesson: shown as it is written there
    return param(*(_value(node, constants) for node in call.args), **arguments)


def _value(node: ast.expr, constants: dict[str, ast.expr]) -> Any:
    """What the expression says, or, where that would need the lesson's imports, the expression itself."""
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
    return (
        entry.title(language)
        + (" · elective" if not entry.is_core else "")
        + (" · not yet written" if not entry.is_written else "")
    )


def _plain_list(phases: list[Phase], ticked: set[str], language: str) -> None:
    for phase in phases:
        print(_heading(phase, ticked, language))
        for entry in phase.entries:
            print(
                f"  [{'x' if entry.file in ticked else ' '}] {entry.number:<27} {entry.minutes:>3} min  "
                f"{_about(entry, language)}"
            )


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
            table.add_row(
                mark,
                entry.number,
                f"{entry.minutes} min",
                Text(_about(entry, language)),
                style=None if entry.is_written else "dim",
            )
        table.add_section()
    Console().print(table)
