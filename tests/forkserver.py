"""A server that has imported what the scripts import, has run none of it, and forks one child for each job.

Importing torch and its friends costs seconds; a fork of a process that has done it costs hundredths of one. It must
never *run* anything: a parent that has started OpenMP threads hangs its children at their first parallel loop.
`multiprocessing` has such a server too, but in Python 3.11 it loses sys.path, hides an import that fails, and imports
the caller's main module into every child.

Reads one job (JSON) a line from stdin, answers one line a job on stdout, ends when stdin does.
"""

import ast
import gc
import importlib
import json
import os
import pkgutil
import selectors
import signal
import sys
import time
from pathlib import Path

import child

ALWAYS = (
    "torch._dynamo",  # the first optimizer imports it: 1.2 s
    "torch._subclasses.fake_tensor",
    "matplotlib.backends.backend_agg",
    "fake_cuda",
)
NEVER = ("keras",)  # chooses its backend when imported, which is for the lesson to say


def preload() -> list[str]:
    """Import all that the scripts and `common` import, anywhere in them. Returns what could not be imported."""
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
        if not name.startswith(NEVER):
            try:
                importlib.import_module(name)
            except (
                Exception
            ) as error:  # an extra that is not installed: its lesson says so when it runs
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
    ready = {
        "missing": missing,
        "threads": threads(),
        "cpu": time.process_time(),
        "modules": len(sys.modules),
    }
    print(json.dumps(ready), file=answers)
    os.set_blocking(0, False)
    selector, rest, running = selectors.DefaultSelector(), b"", {}
    selector.register(0, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select(timeout=0.2):
            if key.fd == 0:
                received = os.read(0, 1 << 20)
                if not received:
                    return stop(running)
                *lines, rest = (rest + received).split(b"\n")
                for line in lines:
                    handle, entry = start(json.loads(line), answers)
                    running[handle] = entry
                    selector.register(handle, selectors.EVENT_READ)
            else:
                selector.unregister(key.fd)
                os.close(key.fd)
                print(json.dumps(finish(**running.pop(key.fd))), file=answers)
        for entry in running.values():
            if time.monotonic() > entry["deadline"] and not entry["late"]:
                entry["late"] = True
                kill(entry["pid"])


def start(job: dict, answers) -> tuple[int, dict]:
    pid = os.fork()
    if pid == 0:
        os.setsid()  # a group of its own, to be killed with all that it starts
        answers.close()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        child.become(job)
    return os.pidfd_open(pid), {
        "id": job["id"],
        "pid": pid,
        "deadline": time.monotonic() + job["limit"],
        "late": False,
    }


def finish(id: int, pid: int, deadline: float, late: bool) -> dict:
    _, status, usage = os.wait4(pid, 0)
    kill(pid)  # whatever of its group is left
    return {
        "id": id,
        "code": os.waitstatus_to_exitcode(status),
        "late": late,
        "cpu": usage.ru_utime + usage.ru_stime,
    }


def stop(running: dict) -> None:
    for entry in running.values():
        kill(entry["pid"])


def kill(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


if __name__ == "__main__":
    sys.path.insert(0, str(child.ROOT))
    serve()
