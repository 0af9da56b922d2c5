"""Files that are never half written, one writer at a time, and the door for paths from settings."""

import contextlib
import errno
import json
import os
import platform
import re
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

from common.errors import LessonError

# what stands beside a file for a while; .gitignore knows both
PART, LOCK = ".part-", ".lock-"
_MACHINE = f"{zlib.crc32(platform.node().encode()):08x}"
_DAY = 24 * 60 * 60
# what a file system answers that has no locks
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes the place of `path` if the block ends well.

    Raises LessonError when the folder cannot be written or the disk is full; the old file stays.
    """
    # a link stays a link; what it points to is replaced
    path = Path(os.path.realpath(path))
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent)
        prefix = f"{PART}{_MACHINE}-{os.getpid()}-"
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        # the content must be on disk before the name points to it
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        raise readable(error, path) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    """It can only be read by setting it; mkstemp's own files are for their owner alone."""
    umask = os.umask(0)
    os.umask(umask)
    return umask


def _sweep(folder: Path) -> None:
    """Remove what killed processes have left half written: the name says whose it was."""
    for part in folder.glob(f"{PART}*"):
        owner = re.match(rf"{re.escape(PART)}(\w+)-(\d+)-", part.name)
        with contextlib.suppress(OSError):
            orphan = owner and owner[1] == _MACHINE and not _is_running(int(owner[2]))
            if orphan or time.time() - part.stat().st_mtime > _DAY:
                part.unlink()


def _is_running(process: int) -> bool:
    # on Windows the same call would end the process
    if os.name == "nt":
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def write_bytes(path: Path | str, content: bytes) -> None:
    """Replace the file at once, or leave it as it was."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path | str, content: str) -> None:
    """As `write_bytes`, in UTF-8 and with the line endings of `content` as they are."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path | str, content: object) -> None:
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def locked(path: Path | str, wait: float = 30) -> Iterator[None]:
    """One process at a time, around all that reads `path`, changes what it read and writes it back.

    Not to be nested for the same path. Raises LessonError when another process does not let go for
    `wait` seconds, or when the folder cannot be written.
    """
    from filelock import FileLock, Timeout

    path = Path(os.path.realpath(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(LOCK + path.name))
        lock.acquire(timeout=wait)
    except Timeout:
        raise LessonError(
            f"another process has been using {path} for {wait:.0f} s. "
            "Wait until it has ended, then run this again."
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise readable(error, path) from error
    try:
        yield
    finally:
        lock.release()


def readable(error: OSError, path: Path | str) -> OSError | LessonError:
    """The usual reasons why a file cannot be written, as one sentence; others stay as they are."""
    code = error.errno
    if code in (errno.ENOSPC, errno.EDQUOT):
        why = "the disk is full (what was there is unharmed). Free some space and run it again"
    elif code in (errno.EACCES, errno.EPERM, errno.EROFS):
        why = "no permission. Give yourself the right to write there"
    elif code in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        why = (
            "a part of that path is a file where a folder should be, or the other way round. "
            "Move that aside"
        )
    elif code in (errno.ENAMETOOLONG, errno.ELOOP):
        why = "the name is too long, or it is a link to itself. Choose a shorter name"
    else:
        return error
    place = "or choose another place (for results: --out FOLDER)"
    return LessonError(f"{path} cannot be written: {why}, {place}.")


def checked_folder(value: Path | str, setting: str, make: bool = False) -> Path:
    """The folder that a setting names, as an absolute path: the one door for all of them.

    setting: how it was given, "--out" or "COURSE_DATA". It has to be there, or, with `make`, is
    made. Raises LessonError, with one sentence, for whatever cannot be used as a folder.
    """
    text = str(value)
    try:
        if not text.strip():
            raise ValueError("an empty name")
        folder = Path(os.path.abspath(Path(text).expanduser()))
        if make:
            folder.mkdir(parents=True, exist_ok=True)
        # asked for by listing it, for mkdir is content with any folder that is there
        with os.scandir(folder):
            pass
        if make and not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, "no permission to write there")
    except (OSError, RuntimeError, ValueError) as error:
        why = (getattr(error, "strerror", None) or str(error)).lower()
        if isinstance(error, RuntimeError):
            why = "there is no such user or home folder"
        elif isinstance(error, FileExistsError):
            why = "a file or a link that leads nowhere has that name"
        short = text if len(text) < 100 else f"{text[:60]}…{text[-20:]}"
        advice = "one that you may write to" if make else "the one that holds the data"
        raise LessonError(
            f"{setting} “{short}” is not a folder that can be used ({why}). "
            f"Give {advice}, or leave it out."
        ) from None
    return folder
