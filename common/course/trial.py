"""Running a practice copy tiny: its output live, its end within a limit, its traceback cut short.

A supervisor process (supervise.py) stands between: it kills the run when this process ends.
"""

import codecs
import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

SUPERVISOR = Path(__file__).with_name("supervise.py")
# seconds after which a check that still runs says so
PATIENCE = 10
_FRAME = re.compile(r'\s*(?:\| +)?File "(.+)", line (\d+)')
_ERROR = re.compile(r"[A-Za-z_][\w.]*(: |$)")


@dataclass(frozen=True)
class Trial:
    """How the run ended. errors: what it wrote to stderr from the first traceback or error on."""

    code: int
    errors: str
    in_time: bool


def run_tiny(copy: Path, out: Path, limit: float) -> Trial:
    """Run the copy and show its output while it comes; end it after `limit` seconds."""
    lesson = [sys.executable, str(copy), "--tiny", "--device", "cpu", "--out", str(out)]
    settings = {"PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1", "PYTHON_COLORS": "0"}
    environment = os.environ | settings
    environment.pop("COURSE_GUESS", None)
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(SUPERVISOR), *lesson],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    errors: list[str] = []
    readers = [
        threading.Thread(target=_show, args=(process.stdout,), daemon=True),
        threading.Thread(target=_show_or_keep, args=(process.stderr, errors), daemon=True),
    ]
    with process:
        for reader in readers:
            reader.start()
        try:
            in_time = _ends_in_time(process, limit)
        finally:
            _end(process)
            for reader in readers:
                reader.join(timeout=5)
    return Trial(process.returncode, "".join(errors), in_time)


def _show(pipe: BinaryIO) -> None:
    """Forward what arrives at once, half lines too."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    while chunk := pipe.read1():
        sys.stdout.write(decoder.decode(chunk).replace("\r\n", "\n"))
        sys.stdout.flush()


def _show_or_keep(pipe: BinaryIO, kept: list[str]) -> None:
    """Forward warnings and the like; keep everything from the first traceback or error on."""
    # newline="": a progress bar's \r stays what it is
    for line in io.TextIOWrapper(pipe, encoding="utf-8", errors="replace", newline=""):
        if kept or line.startswith(("Traceback (most", "  + Exception Group", "error: ")):
            kept.append(line)
        elif line.strip():
            print(line, end="", flush=True)


def _ends_in_time(process: subprocess.Popen, limit: float) -> bool:
    if _ends_within(process, min(PATIENCE, limit)):
        return True
    if limit <= PATIENCE:
        return False
    note = f"still running after {PATIENCE} s: it is stopped after {limit:g} s"
    print(f"{note}, --limit N gives it longer", flush=True)
    return _ends_within(process, limit - PATIENCE)


def _ends_within(process: subprocess.Popen, seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _end(process: subprocess.Popen) -> None:
    """Let the supervisor kill the run, if there still is one, and then what the run left behind."""
    process.stdin.close()
    process.wait()
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def trimmed(errors: str, copy: Path) -> str:
    """Tracebacks with the copy's own frames only; the lesson's “error: …” sentence is left out."""
    lines = []
    skipping = False
    for line in errors.splitlines():
        if frame := _FRAME.match(line):
            skipping = frame[1] != str(copy)
        elif not line.startswith("  "):
            skipping = False
        if line.strip() and not skipping and not line.startswith("error: "):
            lines.append(line)
    return "\n".join(lines)


def explain(trial: Trial, copy: Path, limit: float) -> str:
    """Why the run failed: the lesson's own sentence, or the learner's line and the error."""
    if not trial.in_time:
        return (
            f"no end after {limit:g} s. Is there a loop without an end? --limit N gives it longer."
        )
    if sentences := re.findall(r"^error: (.+)", trial.errors, re.MULTILINE):
        return sentences[-1].rstrip()

    lines = trimmed(trial.errors, copy).splitlines()
    messages = [line for line in lines if _ERROR.match(line)]
    frames = [number for number, line in enumerate(lines) if _FRAME.match(line)]
    if not messages:
        return f"it ended {_how(trial.code)}, without a word."
    if not frames:
        return messages[-1]
    # below a frame stands its line of code
    number = _FRAME.match(lines[frames[-1]])[2]
    source = lines[frames[-1] + 1].strip()
    return f"line {number}: {source}\n  {messages[-1]}"


def _how(code: int) -> str:
    names = {128 + one.value: one.name for one in signal.Signals}
    return f"by {names[code]}" if code in names else f"with exit code {code}"
