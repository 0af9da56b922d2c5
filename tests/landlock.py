"""Linux's Landlock: from now on this process, and all that it starts, may write in a few folders.

It needs no rights, and holds for C++ code and for subprocesses, which no hook of Python sees: what
they open gets EACCES. Kernels before 5.13 and other systems do not have it.
Source: https://docs.kernel.org/userspace-api/landlock.html
"""

import ctypes
import functools
import os
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same on every processor
ASK_VERSION, PATH_BENEATH, NO_NEW_PRIVILEGES = 1, 1, 38
WRITE_FILE = 1 << 1
CHANGE_FOLDER = sum(1 << bit for bit in range(4, 13))  # make and remove files, folders, links …
MOVE_BETWEEN_FOLDERS = 1 << 13  # from version 2
TRUNCATE = 1 << 14  # from version 3


@functools.cache
def version() -> int:
    """0 where the system does not have it."""
    if sys.platform != "linux":
        return 0
    return max(0, _libc().syscall(CREATE_RULESET, None, 0, ASK_VERSION))


def write_only_in(folders: Iterable[Path]) -> None:
    """Raises OSError where the kernel refuses. Does nothing where there is no Landlock."""
    if version() == 0:
        return
    access = WRITE_FILE | CHANGE_FOLDER
    if version() >= 2:
        access |= MOVE_BETWEEN_FOLDERS
    if version() >= 3:
        access |= TRUNCATE

    rules = struct.pack("Q", access)
    ruleset = _call(CREATE_RULESET, rules, len(rules), 0)
    for folder in folders:
        handle = os.open(folder, os.O_PATH)
        _call(ADD_RULE, ruleset, PATH_BENEATH, struct.pack("=Qi", access, handle), 0)
        os.close(handle)

    # the kernel wants the promise that no started program gets more rights than this one
    _libc().prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    _call(RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: int | bytes) -> int:
    answer = _libc().syscall(number, *arguments)
    if answer < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"landlock: {os.strerror(error)}")
    return answer
