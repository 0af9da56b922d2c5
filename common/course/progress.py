"""`course done`, `course status`, `course note`: what has been learned.

The READMEs hold it, and a mirror beside them, so that a pull or a checkout that resets the READMEs
costs nothing: `course status --restore` brings it back. `course status` ends with exit code 1
whenever that is not so, for `&& git checkout …` may follow it.
"""

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from common import lessons
from common.course import curriculum as plan
from common.course import mirror
from common.course.curriculum import Curriculum, Entry
from common.course.mirror import Mirror
from common.course.readme import Readme, editing, progress, read_both, ticked_in
from common.course.screen import show_table, shown
from common.errors import LessonError
from common.files import write_text
from common.lessons import ROOT


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    which = {"metavar": "LESSON", "help": "05/01, project-mnist, or a path"}
    if name == "done":
        parser.add_argument("lessons", nargs="+", **which)
        parser.add_argument("--undo", action="store_true", help="take the tick away")
    elif name == "status":
        help_text = "bring back what a pull has reset: ticks, remarks, the last row's state"
        parser.add_argument("--restore", action="store_true", help=help_text)
    else:
        parser.add_argument("lesson", **which)


def run(arguments: argparse.Namespace) -> int:
    root = lessons.ROOT
    if arguments.command == "done":
        return done(arguments.lessons, arguments.undo, root)
    if arguments.command == "status":
        return status(arguments.restore, root)
    return note(arguments.lesson, root)


def done(names: Sequence[str], undo: bool = False, root: Path = ROOT) -> int:
    """Tick the lessons in both READMEs, or none of them.

    Raises LessonError for a wrong name, a lost line or marker.
    """
    curriculum = plan.load(root)
    entries = list(dict.fromkeys(curriculum.find(name) for name in names))
    unwritten = [entry.number for entry in entries if not entry.is_written]
    if unwritten and not undo:
        raise LessonError(
            f"{', '.join(unwritten)} is planned but not yet written, so there is nothing to tick. "
            "`course next` names a lesson that is there."
        )
    with editing(root) as readmes:
        before = ticked_in(readmes)
        after = _set_ticks(readmes, curriculum, entries, not undo)

    for entry in entries:
        if undo:
            what = "no longer ticked:" if entry.file in before else "was not ticked:"
        else:
            what = "ticked already:" if entry.file in before else "ticked"
        print(f"{what} {entry.number} {entry.title(plan.language())}")
    _update_mirror(curriculum, root, forget=entries if undo else [])
    for phase in curriculum.phases:
        if any(entry in phase.entries for entry in entries):
            print(f"phase {phase.number}: {' '.join(progress(phase, after))}")
    return 0


def status(restore: bool = False, root: Path = ROOT) -> int:
    """Print the record. Exit code 1 whenever something of it would not survive a `git checkout`.

    Raises LessonError as `done` does.
    """
    curriculum = plan.load(root)
    safe = _restore(curriculum, root) if restore else True
    kept = _update_mirror(curriculum, root)
    readmes = read_both(root)
    ticked = ticked_in(readmes)
    _show(curriculum, ticked)
    _show_differences(curriculum, readmes, ticked)
    if kept:
        _show_forgotten(curriculum, kept, ticked)
    whole = [_report_faults(readme, curriculum) for readme in readmes]
    return 0 if safe and kept and all(whole) else 1


def note(name: str, root: Path = ROOT) -> int:
    """Print the path of the learner's own note, made if need be; on a terminal open $EDITOR."""
    entry = plan.load(root).find(name)
    path = root / "docs" / "notes" / f"{entry.lesson.phase[5:7]}-{entry.lesson.path.stem}.md"
    if not path.exists():
        language = plan.language()
        text = _TEMPLATE[language].format(number=entry.number, title=entry.title(language))
        write_text(path, text)
    print(shown(path))

    editor = os.environ.get("EDITOR")
    if not (editor and sys.stdout.isatty()):
        return 0
    try:
        command = [*shlex.split(editor, posix=os.name != "nt"), str(path)]
        return subprocess.run(command, check=False).returncode
    except (OSError, ValueError) as error:
        raise LessonError(
            f"EDITOR={editor} does not start ({error}). Open {path} with another editor."
        ) from None


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
    readmes: Sequence[Readme], curriculum: Curriculum, entries: Sequence[Entry], on: bool
) -> set[str]:
    """Set or clear these boxes and recompute the tables; returns what is ticked then."""
    for readme in readmes:
        readme.tick([entry.file for entry in entries], on)
    ticked = ticked_in(readmes)
    for readme in readmes:
        readme.fill_table(curriculum, ticked)
    return ticked


def _update_mirror(
    curriculum: Curriculum, root: Path, forget: Sequence[Entry] = ()
) -> Mirror | None:
    """What the mirror holds now; None, with a warning, if it could not be brought up to date."""
    try:
        kept = mirror.update(curriculum, root, forget)
    except LessonError as error:
        print(
            f"warning: what is ticked stands in the READMEs only, so do not reset them: {error}",
            file=sys.stderr,
        )
        return None
    if kept.damage:
        print(f"warning: {kept.damage}", file=sys.stderr)
    return kept


def _restore(curriculum: Curriculum, root: Path) -> bool:
    """Bring back what the mirror holds; False if it was damaged, and so may have held more."""
    kept = mirror.read()
    entries = [entry for entry in curriculum.entries if kept.has(entry)]
    with editing(root) as readmes:
        before = ticked_in(readmes)
        _set_ticks(readmes, curriculum, entries, True)
        others = sum(mirror.restore(kept, readme) for readme in readmes)

    back = [entry.number for entry in entries if entry.file not in before]
    if others:
        back.append(f"{others} remark{'s' * (others > 1)} or states of the table's last row")
    if back:
        print(f"restored {', '.join(back)}\n")
    else:
        print("nothing to restore: the READMEs have all you ever ticked\n")
    if kept.damage:
        print(f"warning: {kept.damage}", file=sys.stderr)
    return not kept.damage


def _show(curriculum: Curriculum, ticked: set[str]) -> None:
    language = plan.language()
    rows = []
    for phase in curriculum.phases:
        title = f"{phase.number} · {phase.titles[language]}"
        rows.append((phase.weeks, title, *progress(phase, ticked), phase.projects[language]))
    show_table(("week", "phase", "files", "state", "project"), rows)

    core = [entry for entry in curriculum.entries if entry.is_core]
    electives = [entry for entry in curriculum.entries if not entry.is_core]
    learned = sum(entry.minutes for entry in core if entry.file in ticked) / 60
    hours = sum(entry.minutes for entry in core) / 60
    print(
        f"\ncore path {_share(core, ticked)} scripts, {learned:.0f}/{hours:.0f} hours · "
        f"electives {_share(electives, ticked)}"
    )

    print("\nmilestones (core scripts done)")
    for milestone in curriculum.milestones:
        state = "✓" if all(entry.file in ticked for entry in milestone.core) else "–"
        share = _share(milestone.core, ticked)
        items = "; ".join(milestone.items[language])
        print(f"  {state} after week {milestone.week:<3} {share:>7}   {items}")

    following = curriculum.next(ticked)
    if following:
        print(f"\nnext: {following.number} {following.title(language)}")
    else:
        print("\nall that is written is ticked")


def _show_differences(curriculum: Curriculum, readmes: Sequence[Readme], ticked: set[str]) -> None:
    for readme in readmes:
        missing = _names(curriculum, ticked - readme.ticked())
        if missing:
            print(
                f"\n{readme.path.name} lacks a tick that the other README has: "
                f"{', '.join(missing)}. `course done {' '.join(missing)}` ticks both, with --undo "
                "neither."
            )


def _show_forgotten(curriculum: Curriculum, kept: Mirror, ticked: set[str]) -> None:
    entries = [entry for entry in curriculum.entries if kept.has(entry)]
    forgotten = [entry.number for entry in entries if entry.file not in ticked]
    if forgotten:
        print(
            f"\nYou once ticked {', '.join(forgotten)}. `course status --restore` brings that "
            f"back; if you cleared it on purpose, `course done --undo {' '.join(forgotten)}`."
        )


def _report_faults(readme: Readme, curriculum: Curriculum) -> bool:
    """Name what the README has lost and the boxes that could mean either; True if there is none."""
    faults = readme.faults(curriculum)
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        print(
            f"error: {readme.path.name} has lost {', '.join(faults[:3])}{more}. "
            "`course sync` puts it back.",
            file=sys.stderr,
        )
    unclear = readme.unclear()
    for script, place in unclear.items():
        entry = curriculum.find(script)
        print(
            f"error: {place} is neither ticked nor clear. `course done {entry.number}` ticks it, "
            "with --undo it is cleared.",
            file=sys.stderr,
        )
    return not (faults or unclear)


def _share(entries: Sequence[Entry], ticked: set[str]) -> str:
    return f"{sum(entry.file in ticked for entry in entries)}/{len(entries)}"


def _names(curriculum: Curriculum, files: set[str]) -> list[str]:
    return [entry.number for entry in curriculum.entries if entry.file in files]
