"""`course doctor`: is this machine ready, and what mends it. Works as long as Python starts."""

import argparse
import contextlib
import errno
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
from common.errors import LessonError

OLDEST, NEWEST = (3, 11), (3, 13)
INSTALL = 'python -m pip install -c constraints.txt -e "{}"'
ROOM = 2 * 10**9  # bytes: real data sets and checkpoints; the lessons' own results need little
ASK_TORCH = """import json, torch
devices = ["cpu"]
for number in range(torch.cuda.device_count()):
    devices.append(f"cuda:{number} ({torch.cuda.get_device_name(number)})")
if torch.backends.mps.is_available():
    devices.append("mps")
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
    marks = {True: "✓", False: "✗", None: "–"}
    broken = 0
    for row in examine(lessons.ROOT):
        print(f"{marks[row.ok]} {row.name:<10} {row.found}", flush=True)
        if row.mend:
            print(f"             → {row.mend}")
        if row.ok is False:
            broken += 1
    if broken:
        things = "1 thing" if broken == 1 else f"{broken} things"
        print(f"\n{things} to mend before the lessons run: see → above")
        return 1
    print("\nready: python phase01_data_science/01-numpy-basics.py --tiny")
    return 0


def examine(root: Path) -> Iterator[Row]:
    """All rows, each as soon as it is known."""
    yield python_row(sys.version_info[:2])
    yield from package_rows(root)
    yield device_row()
    yield threads_row()
    yield cache_row()
    yield ticks_row()
    advice = f"make {root} a folder of yours, or run each lesson with --out FOLDER"
    yield writable_row("outputs", root / "outputs", broken=True, mend=advice)
    yield disk_row(shutil.disk_usage(root).free)
    yield language_row()
    yield data_row()


def python_row(version: tuple[int, int]) -> Row:
    found = f"{sys.version.split()[0]} in {sys.prefix}"
    if OLDEST <= version <= NEWEST:
        return Row(True, "Python", found)
    advice = "the course is made for Python 3.11 to 3.13: make the environment again with one"
    return Row(False, "Python", found, advice)


def package_rows(root: Path) -> Iterator[Row]:
    """What pyproject.toml asks for: one row for what is installed, one for each that is not."""
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    except (OSError, ValueError, KeyError) as error:
        found = f"pyproject.toml cannot be read ({error})"
        yield Row(False, "packages", found, "git checkout pyproject.toml")
        return
    extras = project.get("optional-dependencies", {})
    every = _flat(extras, "all", project["name"])
    yield from _rows_of("packages", project["dependencies"], False, ".")
    yield from _rows_of("extras", every, None, ".[all]")


def _rows_of(title: str, wanted: list[str], severity: bool | None, what: str) -> Iterator[Row]:
    found = {text: _installed(text) for text in wanted}
    good = [answer for answer, ok in found.values() if ok]
    if good:
        yield Row(True, title, ", ".join(good))
    for text, (answer, ok) in found.items():
        if not ok:
            yield Row(severity, title, f"{answer}, wanted {text}", INSTALL.format(what))


def _flat(extras: dict[str, list[str]], name: str, own: str) -> list[str]:
    """The packages of an extra, with those of other extras that it names ("own[test]")."""
    packages = []
    for text in extras.get(name, ()):
        inner = re.match(rf"{re.escape(own)}\[([\w,-]+)\]", text)
        if not inner:
            packages.append(text)
            continue
        for other in inner[1].split(","):
            packages += _flat(extras, other, own)
    return packages


def _installed(requirement: str) -> tuple[str, bool]:
    """("numpy 2.1", True), or what is wrong and False. From the metadata: an import takes long."""
    name = re.match(r"[\w.-]+", requirement)[0]
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return f"{name} is not installed", False
    try:
        # comes with matplotlib
        from packaging.requirements import Requirement
    except ImportError:
        return f"{name} {version}", True
    wanted = Requirement(requirement).specifier
    return f"{name} {version}", wanted.contains(version, prereleases=True)


def device_row() -> Row:
    """What torch can compute on. In a process of its own, which a broken build may take along."""
    reinstall = "install torch again: python -m pip install --force-reinstall torch torchvision"
    command = [sys.executable, "-c", ASK_TORCH]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        found = json.loads(answer.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return Row(False, "device", "torch did not start within two minutes", reinstall)
    except (ValueError, IndexError):
        why = (answer.stderr.strip().splitlines() or [f"exit code {answer.returncode}"])[-1]
        return Row(False, "device", f"torch does not start: {why}", reinstall)
    return Row(True, "device", f"{', '.join(found['devices'])} (torch was started to ask)")


def threads_row() -> Row:
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    advice = "unset OMP_NUM_THREADS"
    if not wanted:
        return Row(True, "threads", f"{cores} cores, OMP_NUM_THREADS is not set: torch chooses")
    if not wanted.isdigit() or int(wanted) == 0:
        return Row(None, "threads", f"OMP_NUM_THREADS={wanted} is no count", advice)
    if int(wanted) > cores:
        found = f"OMP_NUM_THREADS={wanted} on {cores} cores: they will wait for each other"
        return Row(None, "threads", found, advice)
    return Row(True, "threads", f"OMP_NUM_THREADS={wanted} of {cores} cores")


def cache_row() -> Row:
    """The cache holds downloads, and no lesson needs one: what is wrong here stops nothing."""
    try:
        from common.data.sources import cache_dir

        folder = cache_dir()
    except ImportError:
        return Row(None, "cache", "unknown without the package platformdirs", INSTALL.format("."))
    except LessonError as error:
        return Row(None, "cache", str(error))
    advice = (
        "point XDG_CACHE_HOME to a folder of yours (Linux), or bring data sets by hand and name "
        "their folder in COURSE_DATA"
    )
    note = f", {_megabytes(folder):.0f} MB of downloads"
    return writable_row("cache", folder, broken=False, note=note, mend=advice)


def _megabytes(folder: Path) -> float:
    size = 0
    for place, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                size += os.lstat(os.path.join(place, name)).st_size
    return size / 1e6


def ticks_row() -> Row:
    """Where ticks are mirrored. Without it `course done` works, but a pull can cost them."""
    try:
        from common.course.mirror import mirror_path

        folder = mirror_path().parent
    except ImportError as error:
        return Row(None, "ticks", f"unknown without the package {error.name}", INSTALL.format("."))
    except LessonError as error:
        return Row(None, "ticks", str(error))
    advice = "point XDG_DATA_HOME to a folder of yours, or ticks stand in the READMEs only"
    return writable_row("ticks", folder, broken=False, note=", their mirror", mend=advice)


def writable_row(name: str, folder: Path, *, broken: bool, mend: str, note: str = "") -> Row:
    """Tried by writing, for permissions are not the only reason; a missing folder is not made."""
    severity = False if broken else None
    try:
        there = _nearest(folder)
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        return Row(severity, name, f"{folder} cannot be written: {error.strerror}", mend)
    made = "" if there == folder else " (not made yet)"
    return Row(True, name, f"{shown(folder)}{note}{made}")


def _nearest(folder: Path) -> Path:
    """The folder itself, or the first above it that is there. Raises OSError for an odd path."""
    for path in (folder, *folder.parents):
        try:
            os.stat(path)
            return path
        except FileNotFoundError:
            if os.path.islink(path):
                raise
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def disk_row(free: int) -> Row:
    text = f"{free / 1e9:.1f} GB free"
    if free >= ROOM:
        return Row(True, "disk", text)
    severity = False if free < ROOM / 20 else None
    advice = (
        "free some space: outputs/ can always be made anew, and so can what `course data` lists"
    )
    return Row(severity, "disk", text, advice)


def language_row() -> Row:
    chosen = os.environ.get("COURSE_LANG")
    why = f"COURSE_LANG={chosen}"
    if not chosen:
        why = "from the locale; COURSE_LANG=en or COURSE_LANG=zh chooses"
    name = "Chinese" if language() == "zh" else "English"
    return Row(True, "language", f"titles in {name} ({why})")


def data_row() -> Row:
    """Real sets are optional: every lesson has a default that needs no download."""
    try:
        from common.course.fetching import sets
        from common.data.sources import local_path

        here = {
            name: all(local_path(source) is not None for source in sources)
            for name, (sources, _) in sets().items()
        }
    except ImportError as error:
        return Row(None, "data", f"unknown without the package {error.name}", INSTALL.format("."))
    except LessonError as error:
        return Row(None, "data", str(error), "unset COURSE_DATA, or let it name that folder")
    present = [name for name, found in here.items() if found]
    absent = [name for name, found in here.items() if not found]
    text = f"{', '.join(present) or 'no real data set'} here, and the lessons run without"
    if absent:
        text += f"; to bring: course data {' | '.join(absent)}"
    return Row(True if present else None, "data", text)
