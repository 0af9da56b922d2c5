"""`course done`, `course status`, `course note`: what has been learned, kept in the READMEs and mirrored beside them.

The mirror in the user's data directory forgets a tick only on `course done --undo`. A pull or a checkout that resets
the READMEs can therefore never cost one: `course status --restore` brings them back.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from common import lessons
from common.course import curriculum as plan
from common.course.curriculum import Curriculum, Entry
from common.course.readme import progress, read_both, ticked_in, write_all
from common.course.screen import show_table, shown
from common.errors import LessonError
from common.files import write_json, write_text
from common.lessons import ROOT


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    if name == "done":
        parser.add_argument(
            "lessons", nargs="+", metavar="LESSON", help="05/01, project-mnist, or a path"
        )
        parser.add_argument("--undo", action="store_true", help="take the tick away")
    elif name == "status":
        parser.add_argument(
            "--restore", action="store_true", help="bring back ticks that a pull has reset"
        )
    else:
        parser.add_argument("lesson", metavar="LESSON", help="05/01, project-mnist, or a path")


def run(arguments: argparse.Namespace) -> int:
    root = lessons.ROOT
    if arguments.command == "done":
        return done(arguments.lessons, arguments.undo, root)
    return (
        status(arguments.restore, root)
        if arguments.command == "status"
        else note(arguments.lesson, root)
    )


def done(names: Sequence[str], undo: bool = False, root: Path = ROOT) -> int:
    """Tick the lessons in both READMEs, or none of them. Raises LessonError for a wrong name, a lost line or marker."""
    curriculum = plan.load(root)
    entries = list(dict.fromkeys(curriculum.find(name) for name in names))
    unwritten = [entry.number for entry in entries if not entry.is_written]
    if unwritten and not undo:
        raise LessonError(
            f"{', '.join(unwritten)} is planned but not yet written, so there is nothing to tick. "
            "`course next` names a lesson that is there."
        )
    before, after = _set_ticks(curriculum, entries, not undo, root)
    for entry in entries:
        what = {
            (False, False): "ticked",
            (False, True): "ticked already:",
            (True, True): "no longer ticked:",
            (True, False): "was not ticked:",
        }[undo, entry.file in before]
        print(f"{what} {entry.number} {entry.title(plan.language())}")
    _mirror(curriculum, after, forget=entries if undo else [])
    for phase in curriculum.phases:
        if any(entry in phase.entries for entry in entries):
            print(f"phase {phase.number}: {' '.join(progress(phase, after))}")
    return 0


def status(restore: bool = False, root: Path = ROOT) -> int:
    """Print the record. Exit code 1 if a README lacks a line or a marker. Raises LessonError as `done` does."""
    curriculum = plan.load(root)
    if restore:
        _restore(curriculum, root)
    readmes = read_both(root)
    ticked = ticked_in(readmes)
    _show(curriculum, ticked)
    differ = {readme.path.name: _names(curriculum, ticked - readme.ticked()) for readme in readmes}
    for name, missing in differ.items():
        if missing:
            print(
                f"\n{name} lacks a tick that the other README has: {', '.join(missing)}. "
                f"`course done {' '.join(missing)}` ticks both, with --undo neither."
            )
    forgotten = [entry.number for entry in _mirror(curriculum, ticked) if entry.file not in ticked]
    if forgotten:
        print(
            f"\nYou once ticked {', '.join(forgotten)}. `course status --restore` brings that back; "
            f"if you cleared it on purpose, `course done --undo {' '.join(forgotten)}`."
        )
    damaged = {
        readme.path.name: faults for readme in readmes if (faults := readme.faults(curriculum))
    }
    for name, faults in damaged.items():
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        print(
            f"error: {name} has lost {', '.join(faults[:3])}{more}. `course sync` puts it back.",
            file=sys.stderr,
        )
    return 1 if damaged else 0


def note(name: str, root: Path = ROOT) -> int:
    """Print the path of the learner's own note, made from a template if it is not there; open $EDITOR on a terminal."""
    entry = plan.load(root).find(name)
    path = root / "docs" / "notes" / f"{entry.lesson.phase[5:7]}-{entry.lesson.path.stem}.md"
    if not path.exists():
        language = plan.language()
        write_text(
            path, _TEMPLATE[language].format(number=entry.number, title=entry.title(language))
        )
    print(shown(path))
    editor = os.environ.get("EDITOR")
    if editor and sys.stdout.isatty():
        try:
            return subprocess.run(
                [*shlex.split(editor, posix=os.name != "nt"), str(path)]
            ).returncode
        except (OSError, ValueError) as error:
            raise LessonError(
                f"EDITOR={editor} does not start ({error}). Open {path} with another editor."
            ) from None
    return 0


_TEMPLATE = {
    "en": """# {number} {title}

## In my own words

## What surprised me

## My runs: settings, accuracy, loss curve (`course runs {number}`)

| settings | accuracy | what I changed, and why |
|---|---|---|

## Still open

## For CONCEPTS: terms that are new to me
""",
    "zh": """# {number} {title}

## 用自己的话说一遍

## 没想到的地方

## 我的实验：设置、准确率、损失曲线（`course runs {number}`）

| 设置 | 准确率 | 改了什么，为什么 |
|---|---|---|

## 还没弄懂的

## 要整理进 CONCEPTS 的新概念
""",
}


def _set_ticks(
    curriculum: Curriculum, entries: Sequence[Entry], on: bool, root: Path
) -> tuple[set[str], set[str]]:
    """Write both READMEs with these boxes set or cleared and the tables recomputed; returns what was and is ticked."""
    readmes = read_both(root)
    before = ticked_in(readmes)
    for readme in readmes:
        readme.tick([entry.file for entry in entries], on)
    after = ticked_in(readmes)
    for readme in readmes:
        readme.fill_table(curriculum, after)
    write_all(readmes)
    return before, after


def _show(curriculum: Curriculum, ticked: set[str]) -> None:
    language = plan.language()
    rows = [
        (
            phase.weeks,
            f"{phase.number} · {phase.titles[language]}",
            *progress(phase, ticked),
            phase.projects[language],
        )
        for phase in curriculum.phases
    ]
    show_table(("week", "phase", "files", "state", "project"), rows)
    core = [entry for entry in curriculum.entries if entry.is_core]
    hours = [
        sum(entry.minutes for entry in part) / 60
        for part in ([e for e in core if e.file in ticked], core)
    ]
    electives = [entry for entry in curriculum.entries if not entry.is_core]
    print(
        f"\ncore path {_share(core, ticked)} scripts, {hours[0]:.0f}/{hours[1]:.0f} hours · "
        f"electives {_share(electives, ticked)}\n\nmilestones (core scripts done)"
    )
    for milestone in curriculum.milestones:
        state = "✓" if all(entry.file in ticked for entry in milestone.core) else "–"
        print(
            f"  {state} after week {milestone.week:<3} {_share(milestone.core, ticked):>7}   "
            + "; ".join(milestone.items[language])
        )
    following = curriculum.next(ticked)
    print(
        f"\nnext: {following.number} {following.title(language)}"
        if following
        else "\nall that is written is ticked"
    )


def _share(entries: Sequence[Entry], ticked: set[str]) -> str:
    return f"{sum(entry.file in ticked for entry in entries)}/{len(entries)}"


def _names(curriculum: Curriculum, files: set[str]) -> list[str]:
    return [entry.number for entry in curriculum.entries if entry.file in files]


def mirror_path() -> Path:
    import platformdirs

    from common.data.sources import COURSE

    return Path(platformdirs.user_data_dir(COURSE, appauthor=False)) / "progress.json"


def _mirrored() -> list[str]:
    """Keys of the lessons in the mirror. Raises LessonError if the file is damaged."""
    try:
        keys = json.loads(mirror_path().read_text(encoding="utf-8"))["ticked"]
        return [key for key in keys if isinstance(key, str)]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LessonError(
            f"{mirror_path()}, the mirror of your ticks, cannot be read ({type(error).__name__}). Delete "
            "it: the READMEs have your ticks, and the next `course status` makes it anew."
        ) from error


def _mirror(curriculum: Curriculum, ticked: set[str], forget: Sequence[Entry] = ()) -> list[Entry]:
    """Add what is ticked, forget what was undone; returns what the mirror holds. Its failure costs a warning only."""
    by_key = {entry.lesson.key: entry for entry in curriculum.entries}
    try:
        before = _mirrored()
        keys = dict.fromkeys(before) | dict.fromkeys(
            key for key, entry in by_key.items() if entry.file in ticked
        )
        keys = [key for key in keys if key not in {entry.lesson.key for entry in forget}]
        if keys != before:
            write_json(mirror_path(), {"ticked": keys})
    except LessonError as error:
        print(
            f"warning: the ticks are in the READMEs, but were not mirrored: {error}",
            file=sys.stderr,
        )
        return []
    return [by_key[key] for key in keys if key in by_key]


def _restore(curriculum: Curriculum, root: Path) -> None:
    keys = set(_mirrored())
    entries = [entry for entry in curriculum.entries if entry.lesson.key in keys]
    before, _ = _set_ticks(curriculum, entries, True, root)
    back = [entry.number for entry in entries if entry.file not in before]
    print(
        f"restored {', '.join(back)}\n"
        if back
        else "nothing to restore: the READMEs have all you ever ticked\n"
    )
