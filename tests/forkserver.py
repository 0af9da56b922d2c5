"""A server that has imported what the scripts import, has run none of it, and forks a child a job.

Importing torch and its friends costs seconds; a fork of a process that has done it, hundredths of
one. It must not *run* anything: a parent that has started OpenMP threads hangs its children at
their first parallel loop. `multiprocessing` has such a server too, but in Python 3.11 it loses
sys.path, hides an import that fails, and imports the caller's main module into every child.

Reads one job (JSON) a line from stdin, answers one line a job on stdout, ends when stdin does.
"""

import ast
import contextlib
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import selectors
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import child

ALWAYS = (
    "torch._dynamo",  # the first optimizer imports it: 1.2 s
    "torch._subclasses.fake_tensor",
    "matplotlib.backends.backend_agg",
    "fake_cuda",
)
NEVER = ("keras",)  # chooses its backend when imported, which is for the lesson to say
ADOPT_ORPHANS = 36  # prctl's PR_SET_CHILD_SUBREAPER


@dataclass
class Running:
    """A child under way. Its pid is also the number of its process group."""

    id: int
    pid: int
    deadline: float
    late: bool = False


def preload() -> list[str]:
    """Import all that the scripts and `common` import. Returns what could not be imported."""
    import common

    wanted = set(ALWAYS)
    for module in pkgutil.walk_packages(common.__path__, "common."):
        if not module.name.startswith("common.course"):
            wanted.add(module.name)
    for pattern in ("phase*/*.py", "common/*.py", "common/data/*.py"):
        for path in child.ROOT.glob(pattern):
            wanted |= imported(path)

    missing = []
    for name in sorted(wanted):
        if name.startswith(NEVER):
            continue
        try:
            importlib.import_module(name)
        except Exception as error:  # an extra that is not installed: its lesson will say so
            missing.append(f"{name}: {error}")
    return missing


def imported(path: Path) -> set[str]:
    """Modules that a file imports, in functions too."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError:  # being written right now; its own test will tell
        return set()
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module)
    return names


def serve() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints on import must not look like an answer
    missing = preload()
    gc.collect()
    gc.freeze()  # or every child's first collection copies all pages it looks at
    adopt_orphans()
    ready = {
        "missing": missing,
        "threads": threads(),
        "cpu": time.process_time(),
        "modules": len(sys.modules),
    }
    print(json.dumps(ready), file=answers)

    os.set_blocking(0, False)
    rest = b""
    running: dict[int, Running] = {}
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select(timeout=0.2):
            if key.fd != 0:
                selector.unregister(key.fd)
                os.close(key.fd)
                print(json.dumps(finish(running.pop(key.fd), running)), file=answers)
                continue
            received = os.read(0, 1 << 20)
            if not received:
                stop(running)
                return
            *lines, rest = (rest + received).split(b"\n")
            for line in lines:
                handle, entry = start(json.loads(line), answers)
                running[handle] = entry
                selector.register(handle, selectors.EVENT_READ)
        for entry in running.values():
            if time.monotonic() > entry.deadline and not entry.late:
                entry.late = True
                kill_group(entry.pid)


def start(job: dict, answers) -> tuple[int, Running]:
    """Fork the child; returns a handle that becomes readable when it ends."""
    pid = os.fork()
    if pid == 0:
        os.setsid()  # a group of its own, to be killed with all that it starts
        adopt_orphans()  # its own are then not taken for those of another job
        answers.close()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        child.become(job)
    return os.pidfd_open(pid), Running(job["id"], pid, time.monotonic() + job["limit"])


def finish(entry: Running, running: dict[int, Running]) -> dict:
    _, status, usage = os.wait4(entry.pid, 0)
    kill_group(entry.pid)
    return {
        "id": entry.id,
        "code": os.waitstatus_to_exitcode(status),
        "late": entry.late,
        "cpu": usage.ru_utime + usage.ru_stime,
        "left": end_orphans(entry.pid, {other.pid for other in running.values()}),
    }


def adopt_orphans() -> None:
    """What a child leaves behind, also in a session of its own, becomes a child of this process."""
    ctypes.CDLL(None).prctl(ADOPT_ORPHANS, 1, 0, 0, 0)


def end_orphans(group: int, running: set[int]) -> list[str]:
    """Kill what a finished child left behind; returns the names of what had left its group."""
    left = []
    # their own children become ours in turn
    while orphans := set(children()) - running:
        for pid in orphans:
            state, name = describe(pid)
            if state != "Z" and os.getpgid(pid) != group:
                left.append(name)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return left


def children() -> list[int]:
    try:
        return [int(pid) for pid in Path("/proc/thread-self/children").read_text().split()]
    except OSError:  # a kernel without this list: what has left its group is then not found
        return []


def describe(pid: int) -> tuple[str, str]:
    """A process's state ("Z": it has ended) and name."""
    before, after = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)
    return after.split()[0], before.split("(", 1)[1]


def stop(running: dict[int, Running]) -> None:
    for entry in running.values():
        kill_group(entry.pid)
    end_orphans(0, set())


def kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


if __name__ == "__main__":
    sys.path.insert(0, str(child.ROOT))
    serve()
