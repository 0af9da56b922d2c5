"""`course doctor`: is this machine ready, and what mends what is not. Works as long as Python starts."""

import argparse
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common import lessons
from common.course.curriculum import language
from common.course.screen import shown

OLDEST, NEWEST = (3, 11), (3, 13)
INSTALL = 'python -m pip install -c constraints.txt -e "{}"'
ROOM = 2 * 10**9  # bytes: real data sets and checkpoints; the lessons' own results need little
ASK_TORCH = """import json, torch
devices = ["cpu"] + [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
devices += ["mps"] if torch.backends.mps.is_available() else []
torch.ones(8, 8) @ torch.ones(8, 8)
print(json.dumps({"devices": devices, "threads": torch.get_num_threads()}))"""


@dataclass(frozen=True)
class Row:
    """ok: True is fine, False stops lessons, None is good to know."""

    ok: bool | None
    name: str
    found: str
    mend: str = ""


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """No flags."""


def run(arguments: argparse.Namespace) -> int:
    broken = 0
    for row in examine(lessons.ROOT):
        print(
            f"{ {True: '✓', False: '✗', None: '–'}[row.ok] } {row.name:<10} {row.found}", flush=True
        )
        if row.mend:
            print(f"             → {row.mend}")
        broken += row.ok is False
    print(
        f"\n{broken} thing{'s' * (broken > 1)} to mend before the lessons run: see → above"
        if broken
        else "\nready: python phase01_data_science/01-numpy-basics.py --tiny"
    )
    return 1 if broken else 0


def examine(root: Path) -> Iterator[Row]:
    """All rows, each as soon as it is known."""
    yield python_row(sys.version_info[:2])
    yield from package_rows(root)
    yield device_row()
    yield threads_row()
    yield cache_row()
    yield writable_row(
        "outputs",
        root / "outputs",
        broken=True,
        mend=f"make {root} a folder of yours, or run each lesson with --out FOLDER",
    )
    yield disk_row(shutil.disk_usage(root).free)
    yield language_row()
    yield data_row()


def python_row(version: tuple[int, int]) -> Row:
    good = OLDEST <= version <= NEWEST
    return Row(
        good,
        "Python",
        f"{sys.version.split()[0]} in {sys.prefix}",
        ""
        if good
        else "the course is made for Python 3.11 to 3.13: make the environment again with one",
    )


def package_rows(root: Path) -> Iterator[Row]:
    """What pyproject.toml asks for: the installed packages in one row each, those to install in rows of their own."""
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    except (OSError, ValueError, KeyError) as error:
        yield Row(
            False,
            "packages",
            f"pyproject.toml cannot be read ({error})",
            "git checkout pyproject.toml",
        )
        return
    own, extras = project["name"], project.get("optional-dependencies", {})
    groups = {
        "packages": (project["dependencies"], False, "."),
        "extras": (_flat(extras, "all", own), None, ".[all]"),
    }
    for title, (wanted, severity, what) in groups.items():
        found = {text: _installed(text) for text in wanted}
        good = [answer for answer, ok in found.values() if ok]
        if good:
            yield Row(True, title, ", ".join(good))
        for text, (answer, ok) in found.items():
            if not ok:
                yield Row(severity, title, f"{answer}, wanted {text}", INSTALL.format(what))


def _flat(extras: dict[str, list[str]], name: str, own: str) -> list[str]:
    """The packages of an extra; one that names another extra of this project ("own[test]") brings that one's."""
    packages = []
    for text in extras.get(name, ()):
        inner = re.match(rf"{re.escape(own)}\[([\w,-]+)\]", text)
        packages += (
            [p for other in inner[1].split(",") for p in _flat(extras, other, own)]
            if inner
            else [text]
        )
    return packages


def _installed(requirement: str) -> tuple[str, bool]:
    """("numpy 2.1", True), or what is wrong and False. Reads the metadata: importing torch would take seconds."""
    name = re.match(r"[\w.-]+", requirement)[0]
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return f"{name} is not installed", False
    try:
        from packaging.requirements import Requirement  # comes with matplotlib
    except ImportError:
        return f"{name} {version}", True
    return f"{name} {version}", Requirement(requirement).specifier.contains(
        version, prereleases=True
    )


def device_row() -> Row:
    """What torch can compute on. Asked in a process of its own, for a broken build can take its process with it."""
    reinstall = "install torch again: python -m pip install --force-reinstall torch torchvision"
    try:
        answer = subprocess.run(
            [sys.executable, "-c", ASK_TORCH], capture_output=True, text=True, timeout=120
        )
        found = json.loads(answer.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return Row(False, "device", "torch did not start within two minutes", reinstall)
    except (ValueError, IndexError):
        why = (answer.stderr.strip().splitlines() or [f"exit code {answer.returncode}"])[-1]
        return Row(False, "device", f"torch does not start: {why}", reinstall)
    return Row(True, "device", f"{', '.join(found['devices'])} (torch was started to ask)")


def threads_row() -> Row:
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if not wanted:
        return Row(True, "threads", f"{cores} cores, OMP_NUM_THREADS is not set: torch chooses")
    if not wanted.isdigit() or int(wanted) == 0:
        return Row(
            None, "threads", f"OMP_NUM_THREADS={wanted} is no count", "unset OMP_NUM_THREADS"
        )
    if int(wanted) > cores:
        return Row(
            None,
            "threads",
            f"OMP_NUM_THREADS={wanted} on {cores} cores: they will wait for each other",
            "unset OMP_NUM_THREADS",
        )
    return Row(True, "threads", f"OMP_NUM_THREADS={wanted} of {cores} cores")


def cache_row() -> Row:
    """The cache holds only downloads, and the lessons' defaults need none: not writable is good to know, not broken."""
    try:
        from common.data.sources import cache_dir

        folder = cache_dir()
    except ImportError:
        return Row(None, "cache", "unknown without the package platformdirs", INSTALL.format("."))
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
    return writable_row(
        "cache",
        folder,
        broken=False,
        note=f", {size:.0f} MB of downloads",
        mend="point XDG_CACHE_HOME to a folder of yours (Linux), or bring data sets by hand and name "
        "their folder in COURSE_DATA",
    )


def writable_row(name: str, folder: Path, *, broken: bool, mend: str, note: str = "") -> Row:
    """Tried by writing, for permissions are not the only reason; a folder that does not exist yet is not made."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            return Row(
                True,
                name,
                f"{shown(folder)}{note}" + ("" if there == folder else " (not made yet)"),
            )
    except OSError as error:
        return Row(
            False if broken else None, name, f"{folder} cannot be written: {error.strerror}", mend
        )


def disk_row(free: int) -> Row:
    text = f"{free / 1e9:.1f} GB free"
    if free >= ROOM:
        return Row(True, "disk", text)
    return Row(
        False if free < ROOM / 20 else None,
        "disk",
        text,
        "free some space: outputs/ can always be made anew, and so can what `course data` lists",
    )


def language_row() -> Row:
    chosen = os.environ.get("COURSE_LANG")
    why = (
        f"COURSE_LANG={chosen}"
        if chosen
        else "from the locale; COURSE_LANG=en or COURSE_LANG=zh chooses"
    )
    return Row(
        True, "language", f"titles in {'Chinese' if language() == 'zh' else 'English'} ({why})"
    )


def data_row() -> Row:
    """Real sets are optional: every lesson has a default that needs no download."""
    try:
        from common.course.fetching import sets
        from common.data.sources import local_path
    except ImportError as error:
        return Row(None, "data", f"unknown without the package {error.name}", INSTALL.format("."))
    here = {name: local_path(source) is not None for name, (source, _) in sets().items()}
    present, absent = (
        [name for name, found in here.items() if found is wanted] for wanted in (True, False)
    )
    text = f"{', '.join(present) or 'no real data set'} here, and the lessons run without"
    text += f"; to bring: course data {' | '.join(absent)}" if absent else ""
    return Row(True if present else None, "data", text)
