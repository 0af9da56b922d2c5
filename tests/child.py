"""What happens inside the process that becomes one script: guards go up, then the script's own `run` is called.

A forked child enters through `become`; under --runner=spawn a fresh interpreter runs this file with the job on stdin.
What is forbidden both fails (the script gets an OSError) and is written down, for a script may swallow the error.
"""

import errno
import importlib
import ipaddress
import json
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NoReturn

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
OURS = r"(phase\d\d_\w+|common|practice)(\.|$)"
AGEING = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)
# audit event -> which of its arguments are paths that it changes, and which is the handle of their folder
CHANGES = {
    "os.mkdir": ([0], 2),
    "os.remove": ([0], 1),
    "os.rmdir": ([0], 1),
    "os.rename": ([0, 1], 2),
    "os.link": ([1], 3),
    "os.symlink": ([1], 2),
    "os.truncate": ([0], None),
    "os.chmod": ([0], 2),
    "os.utime": ([0], 3),
}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def become(job: dict) -> NoReturn:
    """Turn this process into the script that `job` names (see engine.Job), run it and leave.

    Writes output.txt (both streams) and child.json (violations, CPU seconds, …) into the job's scratch folder.
    """
    scratch = Path(job["scratch"])
    capture(scratch / "output.txt")
    os.environ.clear()
    os.environ.update(job["env"])
    os.chdir(scratch / "cwd")
    tempfile.tempdir = None  # forget the server's
    sys.argv = [job["script"], *job["argv"]]
    script = Path(job["script"])
    sys.path[:0] = [str(script.parent.parent), str(ROOT)]
    importlib.invalidate_caches()
    loaded, code, cuda, report = set(sys.modules), 1, [], None
    log = os.open(
        scratch / "violations.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND
    )  # shared with its own children
    allowed = [
        scratch / "out",
        scratch / "tmp",
        scratch / "cache",
        Path(job["env"]["MPLCONFIGDIR"]),
    ]
    guard(allowed, lambda text: os.write(log, (text.replace("\n", " ") + "\n").encode()))
    try:
        if not job["draw"]:
            draw_nothing()
        module = load(script)
        if job["fake_cuda"] and "torch" in sys.modules:
            import fake_cuda

            report = fake_cuda.watch()
        code = execute(module, job["argv"])
        if report and code == 0:
            cuda = report()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # a fault of the script: the test shows the trace
        traceback.print_exc()
    used = os.times()
    late = sorted(
        {
            name
            for name in set(sys.modules) - loaded
            if "." not in name and not name.startswith("phase")
        }
    )
    (scratch / "tmp" / "child.json").write_text(
        json.dumps({"cpu": sum(used[:4]), "cuda": cuda, "late_imports": late}), encoding="utf-8"
    )
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def load(script: Path) -> ModuleType:
    """The script as a module, as `load_lesson` imports it."""
    module = importlib.import_module(f"{script.parent.name}.{script.stem}")
    assert Path(module.__file__).samefile(script), (
        f"{module.__file__} was imported instead of {script}"
    )
    return module


def execute(module: ModuleType, argv: list[str]) -> int:
    """What the script's last line does, without leaving the process. Returns the exit code."""
    from common import config

    return config.execute(module.run, module.Config, module.__doc__, argv)


def draw_nothing() -> None:
    """Let `save_figure` write one grey pixel: for runs whose pictures nobody tests."""
    import numpy as np
    from matplotlib.image import imsave

    from common import figures

    figures.render = lambda figure, path: imsave(path, np.full((1, 1, 3), 128, np.uint8))


def capture(path: Path) -> None:
    """Both streams into one file, at the level of the operating system: C++ and subprocesses print there too."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, encoding="utf-8", errors="replace")


def guard(allowed: list[Path], violated: Callable[[str], object]) -> None:
    """From now on: no network but loopback, no change of files outside `allowed`, no ageing API in our files."""
    folders = tuple(os.path.realpath(folder) for folder in allowed)

    def hook(event: str, args: tuple) -> None:
        if event == "open":
            if not isinstance(args[0], int) and args[2] & WRITING:
                forbid_outside(event, args[0], None)
        elif event in CHANGES:
            positions, handle = CHANGES[event]
            for path in (args[position] for position in positions):
                if not isinstance(path, int):  # a handle of a file that "open" has let through
                    forbid_outside(event, path, None if handle is None else args[handle])
        elif event in ("socket.connect", "socket.bind", "socket.sendto"):
            forbid_remote(event, args[1])
        elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
            forbid_remote(event, args)

    def forbid_outside(event: str, path, handle: int | None) -> None:
        place = changed_path(path, handle)
        inside = any(place == folder or place.startswith(folder + os.sep) for folder in folders)
        if inside or place.startswith("/dev/") or f"{os.sep}__pycache__" in place:
            return
        if event == "os.mkdir" and os.path.isdir(
            place
        ):  # mkdir(exist_ok=True) asks first and then looks
            return
        violated(f"wrote outside --out: {event} {place}")
        raise PermissionError(errno.EACCES, "tests: nothing may be written outside --out", place)

    def forbid_remote(event: str, address) -> None:
        host = (
            address[0] if isinstance(address, tuple) else None
        )  # a Unix socket's address is a path
        if host is None or is_loopback(host):
            return
        violated(f"reached for the network: {event} {host}")
        raise ConnectionRefusedError(errno.ECONNREFUSED, "tests: no network but loopback")

    shown = warnings.showwarning

    def show(message, category, filename, lineno, file=None, line=None) -> None:
        shown(message, category, filename, lineno, file, line)
        if issubclass(category, AGEING) and is_ours(filename):
            violated(f"{category.__name__} at {Path(filename).name}:{lineno}: {message}")

    for category in AGEING:
        warnings.filterwarnings("always", category=category, module=OURS)
    warnings.showwarning = show
    sys.addaudithook(hook)


def changed_path(path, handle: int | None) -> str:
    """The absolute path of a directory entry; a symbolic link counts where it lies, not where it points.

    handle: of the folder to which `path` is relative; -1 or None is the current one.
    """
    path = os.fsdecode(path)
    if handle is not None and handle >= 0 and not os.path.isabs(path):
        names = f"/proc/self/fd/{handle}"
        if not os.path.exists(names):
            return (
                os.devnull
            )  # only Linux tells where a handle points; elsewhere this is let through
        path = os.path.join(os.readlink(names), path)
    folder, name = os.path.split(os.path.abspath(path))
    return os.path.join(os.path.realpath(folder), name)


def is_loopback(host) -> bool:
    """Not "" or 0.0.0.0 when binding either: a lesson's server must not be open to the neighbours."""
    host = host.decode() if isinstance(host, bytes) else str(host)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_ours(file: str) -> bool:
    folders = Path(file).parts[:-1]
    ours = any(folder.startswith("phase") or folder == "common" for folder in folders)
    return ours and "site-packages" not in folders


if __name__ == "__main__":
    begin = time.perf_counter()
    become(json.load(sys.stdin))
