"""Reading the practice section of a note: the hints of every region.

The section is called `## Practice` or `## 动手写`. Each region has a block in it:

    ### 1. How far is the next row?

    <details>
    <summary>Hints</summary>

    1. The idea, in words.
    2. Nearer to the code.

    </details>
"""

import re
from dataclasses import dataclass
from pathlib import Path

from common import lessons
from common.errors import LessonError
from common.lessons import Lesson, shown

SECTIONS = ("## Practice", "## 动手写")
_BLOCK = re.compile(r"### +(\d+)[.、] *(.+?)\s*$")
_HINT = re.compile(r"\d+\. +(.+?)\s*$")


@dataclass
class Block:
    """A region's block: its title, its hints, and the line of its heading (from 1)."""

    number: int
    title: str
    hints: list[str]
    line: int


def note_of(lesson: Lesson, language: str) -> Path:
    ending = ".zh.md" if language == "zh" else ".md"
    return lessons.ROOT / "docs" / f"{lesson.key}{ending}"


def practice_blocks(note: Path) -> list[Block]:
    """All blocks of the practice section. Raises LessonError where the note has none."""
    try:
        lines = note.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise LessonError(f"{shown(note)} cannot be read, so there are no hints in it.") from None
    start = next((n for n, line in enumerate(lines) if line.strip() in SECTIONS), None)
    if start is None:
        names = " or ".join(f"“{name}”" for name in SECTIONS)
        raise LessonError(f"{shown(note)}, line {len(lines)}: no section {names} up to the end.")

    blocks: list[Block] = []
    for number, line in enumerate(lines[start + 1 :], start + 2):
        if line.startswith("## "):
            break
        if heading := _BLOCK.match(line):
            blocks.append(Block(int(heading[1]), heading[2], [], number))
        elif blocks:
            _add_hint(blocks[-1].hints, line)
    return blocks


def _add_hint(hints: list[str], line: str) -> None:
    """A line that begins with a number opens a hint; an indented one goes on with it."""
    if hint := _HINT.match(line):
        hints.append(hint[1])
    elif hints and line.startswith("  ") and line.strip():
        hints[-1] += "\n" + line.strip()


def hints_of(note: Path, number: int, title: str | None = None) -> list[str]:
    """The hints of region `number` (from 1). Raises LessonError, with file and line, without them.

    title: what the block's heading must say; None where it is in another language.
    """
    blocks = practice_blocks(note)
    for block in blocks:
        if block.number != number:
            continue
        place = f"{shown(note)}, line {block.line}"
        if title is not None and block.title.casefold() != title.casefold():
            raise LessonError(f"{place}: region {number} is called “{title}”, not “{block.title}”.")
        if not block.hints:
            raise LessonError(f"{place}: region {number} has no hints.")
        return block.hints
    last = blocks[-1].line if blocks else 1
    raise LessonError(
        f"{shown(note)}, line {last}: no block “### {number}. …” in the practice section."
    )
