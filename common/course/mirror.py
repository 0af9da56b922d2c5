"""What the READMEs say of the learner, kept a second time in the user's data folder.

`git checkout README.md` takes ticks, remarks and the state of the table's last row away; the mirror
gives them back. It forgets a tick only on `course done --undo`, and keeps of each line the last
remark that it has seen. A damaged mirror is set aside, never overwritten.
"""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from common.course.curriculum import Curriculum, Entry
from common.course.readme import DONE, TO_DO, UNDER_WAY, Readme, read_both, ticked_in
from common.data.sources import own_folder
from common.errors import LessonError
from common.files import locked, readable, write_json


@dataclass
class Mirror:
    """ticked: keys of lessons. remarks: {README: {script: [before, behind]}}. states: {README: …}.

    damage: a sentence, where the file was damaged and this is what could be read of it.
    """

    ticked: list[str] = field(default_factory=list)
    remarks: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    damage: str = ""

    def has(self, entry: Entry) -> bool:
        return entry.lesson.key in self.ticked


def mirror_path() -> Path:
    return own_folder("data") / "progress.json"


def read() -> Mirror:
    """The mirror as it is. A damaged one is moved aside. Raises LessonError if that fails."""
    with locked(mirror_path()):
        return _read(mirror_path())


def update(curriculum: Curriculum, root: Path, forget: Sequence[Entry] = ()) -> Mirror:
    """Add what the READMEs say now, forget what was undone, write, and see that it is written.

    Raises LessonError when the ticks are not safe in the mirror.
    """
    path = mirror_path()
    with locked(path):
        mirror = _read(path)
        before = _content(mirror)
        # read here: what was read before the lock may be old
        readmes = read_both(root)
        _add(mirror, curriculum, readmes, {entry.lesson.key for entry in forget})
        after = _content(mirror)
        if after != before or mirror.damage:
            write_json(path, after)
        if path.exists() and _content(_parse(path.read_bytes())) != after:
            raise LessonError(f"{path} does not hold what was written into it. Is the disk sound?")
    return mirror


def restore(mirror: Mirror, readme: Readme) -> int:
    """Put remarks and the last row's state back where there is none now; returns how many."""
    name = readme.path.name
    remarks = mirror.remarks.get(name, {})
    count = sum(readme.add_remark(script, *parts) for script, parts in remarks.items())
    state = mirror.states.get(name)
    if state and readme.last_state == TO_DO:
        readme.set_last_state(state)
        count += 1
    return count


def _add(
    mirror: Mirror, curriculum: Curriculum, readmes: Sequence[Readme], forget: set[str]
) -> None:
    ticked = ticked_in(readmes)
    keys = [entry.lesson.key for entry in curriculum.entries if entry.file in ticked]
    kept = [key for key in mirror.ticked if key not in forget]
    mirror.ticked = list(dict.fromkeys(kept + keys))
    for readme in readmes:
        name = readme.path.name
        if remarks := readme.remarks():
            mirror.remarks[name] = mirror.remarks.get(name, {}) | remarks
        if readme.last_state != TO_DO:
            mirror.states[name] = readme.last_state


def _content(mirror: Mirror) -> dict:
    content = asdict(mirror)
    del content["damage"]
    return content


def _read(path: Path) -> Mirror:
    """As `read`, by whoever holds the lock."""
    content = b""
    try:
        content = path.read_bytes()
        return _parse(content)
    except FileNotFoundError:
        return Mirror()
    except PermissionError as error:
        raise LessonError(
            f"{path}, the mirror of your ticks, cannot be read: no permission. "
            "Give yourself the right to read it."
        ) from error
    except (OSError, ValueError) as error:
        why = type(error).__name__
    aside = _set_aside(path)
    keys = _rescued(content)
    sentence = (
        f"{path}, the mirror of your ticks, was damaged ({why}). It is now {aside.name}, and a new "
        f"one is made from the READMEs and from the {len(keys)} ticks that could be read in it."
    )
    return Mirror(keys, damage=sentence)


def _parse(content: bytes) -> Mirror:
    """Raises ValueError for anything but a mirror."""
    try:
        found = json.loads(content.decode("utf-8"))
        mirror = Mirror(found["ticked"], found.get("remarks", {}), found.get("states", {}))
        parts = [both for lines in mirror.remarks.values() for both in lines.values()]
        texts = [*mirror.ticked, *(text for before, after in parts for text in (before, after))]
        good = isinstance(mirror.ticked, list) and all(isinstance(text, str) for text in texts)
        good = good and not any(re.search(r"[\r\n]", text) for text in texts)
        good = good and set(mirror.states.values()) <= {TO_DO, UNDER_WAY, DONE}
    except (LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"no mirror: {error}") from None
    if not good:
        raise ValueError("no mirror: not the right kinds of values")
    return mirror


def _rescued(content: bytes) -> list[str]:
    """The keys that still stand in a damaged mirror."""
    listed = re.search(rb'"ticked"\s*:\s*\[([^\]]*)', content)
    keys = re.findall(rb'"(phase\d\d_\w+/[\w-]+)"', listed[1]) if listed else []
    return [key.decode() for key in keys]


def _set_aside(path: Path) -> Path:
    """Move the file, or whatever stands in its place, to the first free name beside it."""
    number = 1
    while os.path.lexists(aside := path.with_name(f"{path.name}.damaged-{number}")):
        number += 1
    try:
        os.rename(path, aside)
    except OSError as error:
        raise readable(error, path) from error
    return aside
