"""Writing files so that a reader, a crash or a full disk never meets half of one."""

import contextlib
import errno
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from common.errors import LessonError


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes the place of `path` only if the block ends well.

    Raises LessonError when the folder cannot be written or the disk is full; the old file then stays as it was.
    """
    path = Path(os.path.realpath(path))  # a link stays a link; what it points to is replaced
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix
        )
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())  # the content must be on disk before the name points to it
        if path.exists():
            os.chmod(temporary, path.stat().st_mode & 0o777)
        else:
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(
                temporary, 0o666 & ~umask
            )  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
    except OSError as error:
        raise readable(error, path) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path | str, content: bytes) -> None:
    """Replace the file at once, or leave it as it was."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path | str, content: str) -> None:
    """As `write_bytes`, in UTF-8 and with the line endings of `content` as they are."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path | str, content: object) -> None:
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def readable(error: OSError, path: Path | str) -> OSError | LessonError:
    """The usual reasons why a file cannot be written, each as a sentence with a next step; others stay as they are."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return LessonError(
            f"the disk is full, so {path} was not written (what was there is unharmed). "
            "Free some space and run it again, or choose another disk (for results: --out FOLDER)."
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return LessonError(
            f"{path} cannot be written: no permission. Give yourself the right to write there, or "
            "choose a folder of yours (for results: --out FOLDER)."
        )
    if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        return LessonError(
            f"{path} cannot be written: a part of that path is a file where a folder should be, or the "
            "other way round. Move that aside, or choose another place (for results: --out FOLDER)."
        )
    return error
