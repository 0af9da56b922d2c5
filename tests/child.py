"""What happens inside the process that becomes one script: guards go up, then its `run` is called.

A forked child enters through `become`; under --runner=spawn a fresh interpreter runs this file,
with the job on stdin. What is forbidden both fails (the script gets an OSError) and is written
down, for a script may swallow the error.
"""

import errno
import importlib
import ipaddress
import json
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import landlock

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
OURS = r"(phase\d\d_\w+|common|practice)(\.|$)"
AGEING = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)
# audit event -> which of its arguments are paths that it changes, which is their folder's handle
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

    Writes output.txt (both streams), violations.txt and tmp/child.json into the scratch folder.
    """
    scratch = Path(job["scratch"])
    script = Path(job["script"])
    capture(scratch / "output.txt")
    os.environ.clear()
    os.environ.update(job["env"])
    os.chdir(scratch / "cwd")
    tempfile.tempdir = None  # forget the server's
    sys.argv = [job["script"], *job["argv"]]
    sys.path[:0] = [str(script.parent.parent), str(ROOT)]
    importlib.invalidate_caches()
    loaded = set(sys.modules)

    # shared with its own children
    log = os.open(scratch / "violations.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def violated(text: str) -> None:
        os.write(log, (text.replace("\n", " ") + "\n").encode())

    allowed = [scratch / name for name in ("out", "tmp", "cache")]
    allowed.append(Path(job["env"]["MPLCONFIGDIR"]))
    Guard(allowed, violated).stand()
    confine([*allowed, scratch / "cwd", scratch / "home"])

    code = 1
    cuda: list[str] = []
    try:
        code, cuda = execute(script, job)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # a fault of the script: the test shows the trace
        traceback.print_exc()

    report = {
        "cpu": sum(os.times()[:4]),
        "cuda": cuda,
        "late_imports": late_imports(loaded),
    }
    (scratch / "tmp" / "child.json").write_text(json.dumps(report), encoding="utf-8")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def execute(script: Path, job: dict) -> tuple[int, list[str]]:
    """What the script's last line does, without leaving the process: exit code, faults on a GPU."""
    from common import config

    if not job["draw"]:
        draw_nothing()
    module = load(script)
    judge = None
    if job["fake_cuda"] and "torch" in sys.modules:
        import fake_cuda

        judge = fake_cuda.watch()
    code = config.execute(module.run, module.Config, module.__doc__, job["argv"])
    return code, judge() if judge and code == 0 else []


def load(script: Path) -> ModuleType:
    """The script as a module, as `load_lesson` imports it."""
    module = importlib.import_module(f"{script.parent.name}.{script.stem}")
    found = Path(module.__file__)
    assert found.samefile(script), f"{found} was imported instead of {script}"
    return module


def late_imports(loaded: set[str]) -> list[str]:
    """What the server had not imported yet, the lessons left out."""
    new = set(sys.modules) - loaded
    return sorted(name for name in new if "." not in name and not name.startswith("phase"))


def draw_nothing() -> None:
    """Let `save_figure` write one grey pixel: for runs whose pictures nobody tests."""
    import numpy as np
    from matplotlib.image import imsave

    from common import figures

    grey = np.full((1, 1, 3), 128, np.uint8)

    def render(figure, path) -> None:
        imsave(path, grey)

    figures.render = render


def capture(path: Path) -> None:
    """Both streams into one file, at the level of the system: C++ and subprocesses print there."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, encoding="utf-8", errors="replace")


def confine(allowed: list[Path]) -> None:
    """The kernel refuses every other write, also of C++ (torch.save) and of subprocesses."""
    caches = ROOT.glob("*/__pycache__")
    landlock.write_only_in([*allowed, *caches, Path("/dev")])


class Guard:
    """No network but loopback, no change of files outside `allowed`, no warning on the screen."""

    def __init__(self, allowed: list[Path], violated: Callable[[str], object]):
        self.folders = tuple(os.path.realpath(folder) for folder in allowed)
        self.violated = violated
        self.shown = warnings.showwarning

    def stand(self) -> None:
        """From now on, for the rest of this process."""
        for category in AGEING:
            warnings.filterwarnings("always", category=category, module=OURS)
        warnings.showwarning = self.show
        sys.addaudithook(self.hook)

    def hook(self, event: str, args: tuple) -> None:
        if event == "open":
            if not isinstance(args[0], int) and args[2] & WRITING:
                self.forbid_outside(event, args[0])
        elif event in CHANGES:
            positions, handle = CHANGES[event]
            for path in (args[position] for position in positions):
                # a number is the handle of a file that "open" has let through
                if not isinstance(path, int):
                    self.forbid_outside(event, path, None if handle is None else args[handle])
        elif event == "sqlite3.connect":
            if os.fsdecode(args[0]) not in ("", ":memory:"):
                self.forbid_outside(event, args[0])
        elif event in ("socket.connect", "socket.bind", "socket.sendto"):
            self.forbid_remote(event, args[1])
        elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
            self.forbid_remote(event, args)

    def forbid_outside(self, event: str, path, handle: int | None = None) -> None:
        place = changed_path(path, handle)
        if any(place == folder or place.startswith(folder + os.sep) for folder in self.folders):
            return
        if place.startswith("/dev/") or f"{os.sep}__pycache__" in place:
            return
        # mkdir(exist_ok=True) asks first and then looks
        if event == "os.mkdir" and os.path.isdir(place):
            return
        self.violated(f"wrote outside --out: {event} {place}")
        raise PermissionError(errno.EACCES, "tests: nothing may be written outside --out", place)

    def forbid_remote(self, event: str, address) -> None:
        # a Unix socket's address is a path
        host = address[0] if isinstance(address, tuple) else None
        if host is None or is_loopback(host):
            return
        self.violated(f"reached for the network: {event} {host}")
        raise ConnectionRefusedError(errno.ECONNREFUSED, "tests: no network but loopback")

    def show(self, message, category, filename, lineno, file=None, line=None) -> None:
        self.shown(message, category, filename, lineno, file, line)
        place = f"{Path(filename).name}:{lineno}"
        self.violated(f"on the learner's screen: {category.__name__} at {place}: {message}")


def changed_path(path, handle: int | None) -> str:
    """The absolute path of a directory entry; a symbolic link counts where it lies.

    handle: of the folder to which `path` is relative; -1 or None is the current one.
    """
    path = os.fsdecode(path)
    if handle is not None and handle >= 0 and not os.path.isabs(path):
        names = f"/proc/self/fd/{handle}"
        if not os.path.exists(names):
            # only Linux tells where a handle points; elsewhere this is let through
            return os.devnull
        path = os.path.join(os.readlink(names), path)
    folder, name = os.path.split(os.path.abspath(path))
    return os.path.join(os.path.realpath(folder), name)


def is_loopback(host) -> bool:
    """Not "" or 0.0.0.0 when binding: a lesson's server must not be open to the neighbours."""
    host = host.decode() if isinstance(host, bytes) else str(host)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


if __name__ == "__main__":
    become(json.load(sys.stdin))
