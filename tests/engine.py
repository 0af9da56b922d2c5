"""Runs scripts for the tests: many at a time, each in a process of its own, each watched.

    outcome = engine.run(Job(path))
    engine.submit(job)  …  engine.result(job)       to start early

On Linux the process is a child forked from a server that has only imported (forkserver.py);
elsewhere, or with --runner=spawn, it is a fresh interpreter. Both are guarded (child.py).
`how="plain"` is what a learner types: `python path …`, without guards.
"""

import concurrent.futures
import contextlib
import functools
import itertools
import json
import os
import shutil
import signal
import site
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TINY = ("--tiny", "--device", "cpu")
# one thread each: two scripts at a time on two cores, and sums that are added in the same order
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
        head = f"{self.job.key} exited {self.code} after {self.seconds:.1f} s"
        tail = "\n".join(self.output.splitlines()[-30:])
        return f"\n{head}; violations: {self.violations}\n{tail}"


class Engine:
    """A pool of as many workers as there are cores.

    base: an empty folder for all that they write. draw: without it, figures are made but not
    rendered (a grey pixel is saved). Rendering is half of a small run.
    """

    def __init__(
        self, base: Path, runner: str = "fork", draw: bool = True, workers: int | None = None
    ):
        self.base = base
        self.runner = runner
        self.draw = draw
        self.pool = concurrent.futures.ThreadPoolExecutor(workers or os.cpu_count() or 1)
        self.futures: dict[Job, concurrent.futures.Future[Outcome]] = {}
        self.numbers = itertools.count(1)
        self.lock = threading.Lock()
        self._server: ForkServer | None = None

    def submit(self, job: Job) -> None:
        """Queue a job; returns at once."""
        if job not in self.futures:
            self.futures[job] = self.pool.submit(self._run, job)

    def result(self, job: Job) -> Outcome:
        self.submit(job)
        return self.futures[job].result()

    run = result

    def forget(self, job: Job) -> None:
        """Drop a finished job and its files: thousands of mutants would fill the disk."""
        outcome = self.futures.pop(job).result()
        shutil.rmtree(outcome.out.parent, ignore_errors=True)

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
        for folder in ("cwd", "home", "tmp", "cache", "out"):
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
        if how == "fork":
            answer = self.server().call(order)
        else:
            answer = run_fresh(order, plain=how == "plain")
        return outcome(job, script, scratch, answer, time.perf_counter() - start)


def outcome(job: Job, script: Path, scratch: Path, answer: dict, seconds: float) -> Outcome:
    """Everything about a finished run, read from its scratch folder."""
    violations = _read(scratch / "violations.txt").splitlines()
    if answer["late"]:
        violations.append(f"still running after {job.limit:.0f} s, so it was killed")
    for name in answer.get("left", []):
        violations.append(f"left a process running: {name}")
    for folder, called in (("cwd", "current"), ("home", "home")):
        litter = sorted(path.name for path in (scratch / folder).iterdir())
        if litter:
            violations.append(f"wrote into the {called} folder: {', '.join(litter)}")

    report = _json(scratch / "tmp" / "child.json") or {}
    return Outcome(
        job=job,
        script=script,
        code=answer["code"],
        output=_read(scratch / "output.txt"),
        result=_json(scratch / "out" / "result.json"),
        violations=violations,
        seconds=seconds,
        cpu_seconds=answer.get("cpu", report.get("cpu", 0.0)),
        out=scratch / "out",
        cuda=report.get("cuda", []),
        late_imports=report.get("late_imports", []),
    )


class ForkServer:
    """The other end of forkserver.py's pipes; may be called from many threads."""

    def __init__(self, base: Path):
        self.base = base
        self.numbers = itertools.count()
        self.lock = threading.Lock()
        self.waiting: dict[int, concurrent.futures.Future[dict]] = {}
        with open(base / "forkserver.txt", "wb") as log:
            # in a session of its own: Ctrl-C is for pytest, which then closes it
            self.process = subprocess.Popen(
                [sys.executable, HERE / "forkserver.py"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=os.environ | SETTINGS | fonts(),
                start_new_session=True,
            )
        first = self.process.stdout.readline()
        if not first:
            raise RuntimeError(f"the fork server did not start:\n{self._log()}")
        # what it could not import, its threads, its CPU seconds
        self.ready: dict[str, Any] = json.loads(first)
        threading.Thread(target=self._listen, daemon=True).start()

    def call(self, order: dict) -> dict:
        number = next(self.numbers)
        future: concurrent.futures.Future[dict] = concurrent.futures.Future()
        with self.lock:
            self.waiting[number] = future
            self.process.stdin.write(json.dumps(order | {"id": number}).encode() + b"\n")
            self.process.stdin.flush()
        # an error, should the server itself hang
        return future.result(order["limit"] + 60)

    def close(self) -> None:
        with self.lock:
            self.process.stdin.close()
        self.process.wait()

    def _listen(self) -> None:
        for line in self.process.stdout:
            answer = json.loads(line)
            self.waiting.pop(answer["id"]).set_result(answer)
        for future in self.waiting.values():
            future.set_exception(RuntimeError(f"the fork server ended:\n{self._log()}"))

    def _log(self) -> str:
        return _read(self.base / "forkserver.txt")


def run_fresh(order: dict, plain: bool = False) -> dict:
    """A new interpreter for one script: guarded, or as a learner starts it from another folder."""
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
    """The learner's, without what could change a result; what is written stays in `scratch`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("COURSE_", "PYTEST_", "XDG_"))
    }
    places = {
        "HOME": "home",
        "TMPDIR": "tmp",
        "TEMP": "tmp",
        "TMP": "tmp",
        "XDG_CACHE_HOME": "cache",
        "XDG_DATA_HOME": "cache",
        "XDG_CONFIG_HOME": "cache",
    }
    moved = {name: str(scratch / place) for name, place in places.items()}
    # packages that were installed with --user lie below the real home
    packages = {"PYTHONUSERBASE": site.getuserbase()}
    return kept | SETTINGS | fonts() | packages | moved


@functools.cache
def fonts() -> dict[str, str]:
    """Where matplotlib keeps its list of fonts: making it anew takes seconds for every script."""
    import matplotlib

    return {"MPLCONFIGDIR": matplotlib.get_cachedir()}


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _json(path: Path) -> dict | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
