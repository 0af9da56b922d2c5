"""Runs scripts for the tests: many at a time, each in a process of its own, each watched.

    outcome = engine.run(Job(path))         or, to start early:  engine.submit(job)  …  engine.result(job)

On Linux the process is a child forked from a server that has only imported (forkserver.py); elsewhere, or with
--runner=spawn, it is a fresh interpreter. Both are guarded (child.py). `how="plain"` is what a learner types:
`python path …`, without guards.
"""

import concurrent.futures
import contextlib
import functools
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.lessons import ROOT

HERE = Path(__file__).resolve().parent
TINY = ("--tiny", "--device", "cpu")
# one thread each: two scripts at a time on two cores, and sums that are added in the same order everywhere
SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "MPLBACKEND": "Agg",
}


@dataclass(frozen=True)
class Job:
    """One run of one script. Equal jobs are run once, however many tests ask."""

    script: Path
    argv: tuple[str, ...] = TINY  # --out is added
    text: str | None = None  # run this under the script's name, instead of what is in the file
    how: str | None = None  # "fork", "spawn", "plain", or what pytest was started with
    limit: float = 120.0  # seconds
    draw: bool | None = None  # render the figures that it makes? None: as the engine was told
    fake_cuda: bool = False  # afterwards, run its models' forwards on a fake GPU

    @property
    def key(self) -> str:
        return f"{self.script.parent.name}/{self.script.stem}"


@dataclass
class Outcome:
    """What became of a job. A negative code is the signal that ended it."""

    job: Job
    script: Path  # the file that was run: the job's, or its text in a scratch folder
    code: int
    output: str  # stdout and stderr as the terminal would show them
    result: dict[str, Any] | None  # result.json, where the script wrote one that can be read
    violations: list[str]  # network, files outside --out, ageing APIs, time
    seconds: float
    cpu_seconds: float
    out: Path
    cuda: list[str] = field(default_factory=list)
    late_imports: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """For the message of a failed assert: what a reader needs first."""
        tail = "\n".join(self.output.splitlines()[-30:])
        return f"\n{self.job.key} exited {self.code} after {self.seconds:.1f} s; violations: {self.violations}\n{tail}"


class Engine:
    """A pool of as many workers as there are cores. `base`: an empty folder for everything the scripts write.

    draw: without it, figures are made but not rendered (a grey pixel is saved). Rendering is half of a small run.
    """

    def __init__(
        self, base: Path, runner: str = "fork", draw: bool = True, workers: int | None = None
    ):
        self.base, self.runner, self.draw = base, runner, draw
        self.pool = concurrent.futures.ThreadPoolExecutor(workers or os.cpu_count() or 1)
        self.futures: dict[Job, concurrent.futures.Future[Outcome]] = {}
        self.numbers, self.lock, self._server = itertools.count(1), threading.Lock(), None

    def submit(self, job: Job) -> None:
        """Queue a job; returns at once."""
        if job not in self.futures:
            self.futures[job] = self.pool.submit(self._run, job)

    def result(self, job: Job) -> Outcome:
        self.submit(job)
        return self.futures[job].result()

    run = result

    def server(self) -> "ForkServer":
        with self.lock:
            if self._server is None:
                self._server = ForkServer(self.base)
            return self._server

    def close(self) -> None:
        """Drop what is queued and end what runs."""
        self.pool.shutdown(wait=False, cancel_futures=True)
        if self._server:
            self._server.close()
        self.pool.shutdown()

    def _run(self, job: Job) -> Outcome:
        scratch = self.base / f"{next(self.numbers):04d}-{job.script.stem}"
        for folder in ("cwd", "tmp", "cache", "out"):
            (scratch / folder).mkdir(parents=True)
        script = job.script
        if job.text is not None:
            script = scratch / job.script.parent.name / job.script.name
            script.parent.mkdir()
            script.write_text(job.text, encoding="utf-8")
        how = job.how or self.runner
        order = {
            "script": str(script),
            "argv": [*job.argv, "--out", str(scratch / "out")],
            "scratch": str(scratch),
            "env": environment(scratch),
            "limit": job.limit,
            "draw": self.draw if job.draw is None else job.draw,
            "fake_cuda": job.fake_cuda,
        }
        start = time.perf_counter()
        answer = (
            self.server().call(order) if how == "fork" else run_fresh(order, plain=how == "plain")
        )
        return outcome(job, script, scratch, answer, time.perf_counter() - start)


def outcome(job: Job, script: Path, scratch: Path, answer: dict, seconds: float) -> Outcome:
    violations = _read(scratch / "violations.txt").splitlines()
    if answer["late"]:
        violations.append(f"still running after {job.limit:.0f} s, so it was killed")
    if litter := sorted(path.name for path in (scratch / "cwd").iterdir()):
        violations.append(f"wrote into the current folder: {', '.join(litter)}")
    report = _json(scratch / "tmp" / "child.json") or {}
    return Outcome(
        job,
        script,
        answer["code"],
        _read(scratch / "output.txt"),
        _json(scratch / "out" / "result.json"),
        violations,
        seconds,
        answer.get("cpu", report.get("cpu", 0.0)),
        scratch / "out",
        report.get("cuda", []),
        report.get("late_imports", []),
    )


class ForkServer:
    """The other end of forkserver.py's pipes; may be called from many threads."""

    def __init__(self, base: Path):
        self.base, self.numbers, self.lock = base, itertools.count(), threading.Lock()
        self.waiting: dict[int, concurrent.futures.Future[dict]] = {}
        log = open(base / "forkserver.txt", "wb")
        with log:
            self.process = subprocess.Popen(
                [sys.executable, HERE / "forkserver.py"],
                stdin=subprocess.PIPE,
                stderr=log,
                stdout=subprocess.PIPE,
                env=os.environ | SETTINGS | fonts(),
                start_new_session=True,
            )  # Ctrl-C is for pytest, which then closes it
        first = self.process.stdout.readline()
        if not first:
            raise RuntimeError(f"the fork server did not start:\n{_read(base / 'forkserver.txt')}")
        self.ready: dict[str, Any] = json.loads(
            first
        )  # what it could not import, its threads, its CPU seconds
        threading.Thread(target=self._listen, daemon=True).start()

    def call(self, order: dict) -> dict:
        number, future = next(self.numbers), concurrent.futures.Future()
        with self.lock:
            self.waiting[number] = future
            self.process.stdin.write(json.dumps(order | {"id": number}).encode() + b"\n")
            self.process.stdin.flush()
        return future.result(order["limit"] + 60)  # an error, should the server itself hang

    def close(self) -> None:
        with self.lock:
            self.process.stdin.close()
        self.process.wait()

    def _listen(self) -> None:
        for line in self.process.stdout:
            answer = json.loads(line)
            self.waiting.pop(answer["id"]).set_result(answer)
        for future in self.waiting.values():
            future.set_exception(
                RuntimeError(f"the fork server ended:\n{_read(self.base / 'forkserver.txt')}")
            )


def run_fresh(order: dict, plain: bool = False) -> dict:
    """A new interpreter for one script: guarded, or just as a learner starts it from another folder."""
    scratch = Path(order["scratch"])
    command = [order["script"], *order["argv"]] if plain else [HERE / "child.py"]
    with open(scratch / "output.txt", "ab") as output, open(scratch / "order.json", "w+") as stdin:
        json.dump(order, stdin)
        stdin.seek(0)
        process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.DEVNULL if plain else stdin,
            stdout=output,
            stderr=output,
            cwd=scratch / "cwd",
            env=order["env"],
            start_new_session=True,
        )
    late = False
    try:
        process.wait(order["limit"])
    except subprocess.TimeoutExpired:
        late = True
        process.kill()
    if hasattr(os, "killpg"):  # whatever of its group is left
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return {"code": process.wait(), "late": late}


def environment(scratch: Path) -> dict[str, str]:
    """The learner's, without what could change a result, and with all that is written kept in `scratch`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("COURSE_", "PYTEST_", "XDG_"))
    }
    places = {
        "TMPDIR": "tmp",
        "TEMP": "tmp",
        "TMP": "tmp",
        "XDG_CACHE_HOME": "cache",
        "XDG_DATA_HOME": "cache",
        "XDG_CONFIG_HOME": "cache",
    }
    return (
        kept | SETTINGS | fonts() | {name: str(scratch / place) for name, place in places.items()}
    )


@functools.cache
def fonts() -> dict[str, str]:
    """Where matplotlib keeps its list of fonts: to make it anew for every script would take seconds each time."""
    import matplotlib

    return {"MPLCONFIGDIR": matplotlib.get_cachedir()}


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _json(path: Path) -> dict | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
