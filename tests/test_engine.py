"""The engine is tested by scripts that misbehave: each must be caught. One that behaves passes."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import landlock
import pytest
from engine import HERE, Engine, Job
from test_determinism import differences, other_figures, other_words
from test_lessons_run import faults

from common.lessons import ROOT

LESSON = '''"""1.99 Made by hand: a lesson for testing the tests
手工课

You will be able to answer
    1. Does one equal one?        show_it       holds
Run       python phase01_data_science/99-made-by-hand.py
Needs     -
"""
import os
import socket
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

from common.checks import check, check_close, expect
from common.config import LessonConfig, main, param
from common.errors import ClaimFailed
from common.record import current


@dataclass
class Config(LessonConfig):
    pass


def show_it(cfg):
    outside = cfg.out.parent / "outside.txt"
    %s
    check("holds", "one is one", 1 == 1)


def run(cfg):
    show_it(cfg)
    return {"one": 1}


if __name__ == "__main__":
    main(run, Config, __doc__)
'''
SWALLOWED = "try:\n        {}\n    except OSError:\n        pass"
LIBRARY = """library = {}
    code = "import warnings\\ndef old(): warnings.warn('old', FutureWarning, 2)"
    exec(compile(code, "site-packages/x.py", "exec"), library)
    """
TRAINS = """import torch
    weight = torch.zeros(1, requires_grad=True)
    torch.optim.SGD([weight], lr=0.1)"""
TWICE = """try:
        check("holds", "two is one", 2 == 1)
    except ClaimFailed:
        pass"""
# ends its own parent, so that nobody waits for it, and is in a session of its own
DAEMON = "subprocess.run(['sh', '-c', 'setsid sleep 61 & exit'])"
READS = """import numpy as np
    for _ in range(2):
        current().read_test(np.arange(3), np.arange(2))"""
ELSEWHERE = "warnings.warn_explicit('old', DeprecationWarning, 'site-packages/other.py', 1)"
SPLITS = """import numpy as np
    current().read_test(np.arange(3))
    current().read_test(np.arange(4))"""
SHOWS = """import common.figures as f
    figure, axis = f.new_figure()
    axis.plot({})
    f.save_figure(figure, cfg.out / 'x')"""
ON_CPU = """import torch
    class Stays(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x) + torch.ones(2)
    Stays(2, 2)(torch.ones(1, 2))"""
MOVES = ON_CPU.replace("torch.ones(2)\n", "torch.ones(2, device=x.device)\n")

# what is wrong -> (the line, what the engine says about it)
CAUGHT = {
    "a failing claim": ('check("holds", "two is one", 2 == 1)', "exit code 1"),
    "a claim of NaN": ('check("holds", "nan", float("nan"), below=1)', "exit code 1"),
    "an undeclared claim": (
        'check("other", "two is two", True)',
        "the docstring does not declare it",
    ),
    "a claim that is not judged": ("return", "did not judge it"),
    "a claim judged twice": (TWICE, "exit code 1"),
    "a mark without a judge": ("print('  ✓ two is one')", "without a judge"),
    "a heavier mark": ("print('✔ two is one')", "without a judge"),
    "a test set read twice": (READS, "read 2 times"),
    "an unknown error": ("[][1]", "exit code 1"),
    "a crash of the interpreter": ("os.kill(os.getpid(), 11)", "exit code -11"),
    "an early exit": ("os._exit(0)", "no result.json"),
    "an endless loop": ("while True: time.sleep(0.1)", "so it was killed"),
    "a file outside": (SWALLOWED.format("outside.write_text('x')"), "wrote outside --out: open"),
    "a folder outside": (SWALLOWED.format("outside.mkdir()"), "wrote outside --out: os.mkdir"),
    "a file removed": (
        SWALLOWED.format("outside.with_name('output.txt').unlink()"),
        "wrote outside --out: os.remove",
    ),
    "a file moved outside": (
        SWALLOWED.format("cfg.out.rename(outside)"),
        "wrote outside --out: os.rename",
    ),
    "a link outside": (
        SWALLOWED.format("outside.symlink_to(cfg.out)"),
        "wrote outside --out: os.symlink",
    ),
    "a file in the current folder": (
        SWALLOWED.format("Path('loss.pdf').touch()"),
        "wrote outside --out: open",
    ),
    "a subprocess that litters": ("subprocess.run(['touch', 'x.txt'])", "current folder: x.txt"),
    "a connection": (
        SWALLOWED.format("socket.create_connection(('192.0.2.1', 80), 1)"),
        "reached for the network",
    ),
    "a name looked up": (
        SWALLOWED.format("socket.getaddrinfo('example.org', 80)"),
        "reached for the network",
    ),
    "a server open to all": (
        SWALLOWED.format("socket.socket().bind(('', 0))"),
        "reached for the network: socket.bind",
    ),
    "a file in the home folder": (
        "subprocess.run('echo x > ~/x.txt', shell=True)",
        "home folder: x.txt",
    ),
    "an ageing API": (
        "warnings.warn('old', DeprecationWarning)",
        "DeprecationWarning at 99-made-by-hand.py",
    ),
    "a warning": ("warnings.warn('odd')", "on the learner's screen: UserWarning"),
    "an ageing API called": (LIBRARY + "library['old']()", "FutureWarning at 99-made-by-hand.py"),
    "training without proof of learning": (TRAINS, "never calls overfits()"),
    "a tensor left on the CPU": (ON_CPU, "on a GPU: Stays"),
}
# writes that only the kernel sees: by C++, by Rust, by another program
OUTSIDE = "str(outside)"
UNSEEN = {
    "torch": f"import torch; torch.save({{}}, {OUTSIDE})",
    "safetensors": "import torch; from safetensors.torch import save_file\n"
    f"    save_file({{'x': torch.ones(1)}}, {OUTSIDE})",
    "sqlite3": f"import sqlite3; sqlite3.connect({OUTSIDE})",
    "another program": f"subprocess.run(['touch', {OUTSIDE}], check=True)",
}
FINE = {
    "nothing special": "pass",
    "two test sets": SPLITS,
    "a warning that is caught": "with warnings.catch_warnings(record=True):\n"
    "        warnings.warn('odd')",
    "writing where it may": "import tempfile; (cfg.out / 'a').mkdir(); (cfg.out / 'a').rmdir()\n"
    "    with tempfile.TemporaryDirectory() as folder:\n        (Path(folder) / 'x').touch()",
    "talking to itself": "server = socket.create_server(('127.0.0.1', 0))\n"
    "    socket.create_connection(('localhost', server.getsockname()[1])).close()",
    "an ageing API elsewhere": ELSEWHERE,
    "many threads' work": "import torch; torch.set_num_threads(2)\n"
    "    torch.ones(500, 500) @ torch.ones(500, 500)",
    "a model that goes where its input is": MOVES,
}


def by_hand(line: str, **options) -> Job:
    return Job(
        ROOT / "phase01_data_science" / "99-made-by-hand.py",
        text=LESSON % line,
        fake_cuda=True,
        **options,
    )


def limited(name: str, seconds: float) -> dict[str, float]:
    return {"limit": seconds} if name == "an endless loop" else {}


@pytest.mark.parametrize(
    "job, message",
    [
        pytest.param(by_hand(line, **limited(name, 3)), message, id=name)
        for name, (line, message) in CAUGHT.items()
    ],
)
def test_misbehaviour_is_caught(engine: Engine, job: Job, message: str) -> None:
    outcome = engine.result(job)
    assert any(message in fault for fault in faults(outcome)), f"{faults(outcome)}{outcome}"


@pytest.mark.parametrize("job", [by_hand(line) for line in FINE.values()], ids=FINE)
def test_behaving_passes(engine: Engine, job: Job) -> None:
    outcome = engine.result(job)
    assert not faults(outcome), f"{faults(outcome)}{outcome}"


@pytest.mark.parametrize(
    "name",
    ["a failing claim", "a file outside", "a connection", "an ageing API", "an endless loop"],
)
@pytest.mark.full
def test_spawned_scripts_are_watched_alike(engine: Engine, name: str) -> None:
    line, message = CAUGHT[name]
    outcome = engine.run(by_hand(line, how="spawn", **limited(name, 8)))
    assert any(message in fault for fault in faults(outcome)), f"{faults(outcome)}{outcome}"


def test_files_outside_stay_as_they_were(engine: Engine) -> None:
    """A violation is not only written down: it does not happen."""
    outcome = engine.run(by_hand("outside.write_text('x')"))
    assert outcome.code == 1, str(outcome)
    assert not (outcome.out.parent / "outside.txt").exists(), str(outcome)


@pytest.mark.skipif(landlock.version() == 0, reason="this system has no Landlock")
@pytest.mark.parametrize("job", [by_hand(line) for line in UNSEEN.values()], ids=UNSEEN)
def test_files_outside_by_others(engine: Engine, job: Job) -> None:
    """Written by what is not Python: the write fails, and so does the run."""
    outcome = engine.result(job)
    assert outcome.code == 1, str(outcome)
    assert not (outcome.out.parent / "outside.txt").exists(), str(outcome)


@pytest.mark.skipif(landlock.version() == 0, reason="this system has no Landlock")
def test_files_inside_by_others(engine: Engine) -> None:
    """What is not Python may write where the script may."""
    inside = [
        line.replace(OUTSIDE, f"str(cfg.out / '{n}')") for n, line in enumerate(UNSEEN.values())
    ]
    outcome = engine.run(by_hand("\n    ".join(inside)))
    assert not faults(outcome), f"{faults(outcome)}{outcome}"


def test_all_output_is_kept(engine: Engine) -> None:
    """Of Python, of the operating system's streams, of a subprocess; in order."""
    lines = [
        "print('one', flush=True)",
        "os.write(2, b'two\\n')",
        "subprocess.run(['echo', 'three'])",
    ]
    outcome = engine.run(by_hand("\n    ".join(lines)))
    assert "one\ntwo\nthree\n" in outcome.output


@pytest.mark.parametrize("command", ["['sleep', '60']", "['sh', '-c', 'setsid sleep 60 & wait']"])
def test_what_a_script_starts_ends_with_it(engine: Engine, command: str) -> None:
    outcome = engine.run(by_hand(f"child = subprocess.Popen({command}); print('pid', child.pid)"))
    pid = int(outcome.output.split("pid ")[1].split()[0])
    state = Path(f"/proc/{pid}/stat")
    deadline = time.monotonic() + 10
    # Z: dead, and waiting for init to notice
    while state.exists() and ") Z " not in state.read_text():
        assert time.monotonic() < deadline, f"process {pid} outlived the script that started it"
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="the fork server is for Linux")
def test_what_is_left_in_another_session_is_noticed(engine: Engine) -> None:
    outcome = engine.run(by_hand(DAEMON, how="fork"))
    assert "left a process running: sleep" in faults(outcome), f"{faults(outcome)}{outcome}"


RUN_TO_RUN = "random.SystemRandom().random()"


@pytest.mark.parametrize(
    "compare, line",
    [
        (differences, f"check('holds', 'a draw', {RUN_TO_RUN}, below=1)"),
        (other_words, f"print('a draw:', {RUN_TO_RUN})"),
        (other_words, f"print(*range(1 + int(99 * {RUN_TO_RUN})), sep='\\n')"),
        (other_figures, SHOWS.format(f"[{RUN_TO_RUN}, {RUN_TO_RUN}, 0]")),
    ],
    ids=["a number", "a word", "a line", "a figure"],
)
def test_random_numbers_without_a_seed_are_noticed(engine: Engine, compare, line: str) -> None:
    line = f"import random\n    {line}"
    one = engine.run(by_hand(line, draw=True))
    two = engine.run(by_hand(line, draw=True, limit=119))
    assert compare(one, two), f"{one}{two}"


def test_times_may_differ(engine: Engine) -> None:
    lines = [
        "begin = time.perf_counter_ns()",
        "print(f'it took {time.perf_counter_ns() - begin} ns')",
        SHOWS.format("[1, 2]"),
    ]
    line = "\n    ".join(lines)
    one = engine.run(by_hand(line, draw=True))
    two = engine.run(by_hand(line, draw=True, limit=119))
    found = differences(one, two) + other_words(one, two) + other_figures(one, two)
    assert not found, f"{found}{one}"


@pytest.mark.skipif(sys.platform != "linux", reason="the fork server is for Linux")
def test_server_has_imported_and_run_nothing(engine: Engine) -> None:
    """One thread: OpenMP has not started. An optimizer and a figure find everything imported."""
    if engine.runner != "fork":
        pytest.skip("there is no fork server under --runner=spawn")
    assert engine.server().ready["threads"] == 1
    line = (
        "import torch, common.figures as f; torch.optim.AdamW([torch.zeros(1, requires_grad=True)])"
        "; f.save_figure(f.new_figure()[0], cfg.out / 'x')"
    )
    outcome = engine.run(by_hand(line))
    assert outcome.code == 0 and not outcome.late_imports, f"{outcome.late_imports}{outcome}"


SKIPS = """
import pytest
def test_one(): pytest.skip("no browser")
@pytest.mark.skip(reason="not today")
def test_two(): pass
"""
EXPECTED_FAILURES = {
    "a mark": "import pytest\n@pytest.mark.xfail\ndef test(): assert False",
    "a mark on what passes": "import pytest\n@pytest.mark.xfail\ndef test(): pass",
    "a call": "import pytest\ndef test(): pytest.xfail('known')",
}


def run_pytest(folder: Path, text: str, allowed: str, ci: str) -> subprocess.CompletedProcess:
    shutil.copy(HERE / "conftest.py", folder)
    (folder / "allowed_skips.txt").write_text(allowed)
    (folder / "test_skips.py").write_text(text)
    (folder / "pytest.ini").write_text("[pytest]")
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"],
        cwd=folder,
        capture_output=True,
        text=True,
        env=ours | {"CI": ci, "PYTHONPATH": str(HERE)},
        check=False,
    )


@pytest.mark.parametrize(
    "ci, allowed, code",
    [
        ("", "", 0),
        ("true", "test_skips.py::test_one  why", 1),
        ("true", "# note\n\ntest_skips.py  why", 0),
    ],
)
def test_silent_skips_fail_under_ci(tmp_path: Path, ci: str, allowed: str, code: int) -> None:
    run = run_pytest(tmp_path, SKIPS, allowed, ci)
    assert run.returncode == code, run.stdout + run.stderr


@pytest.mark.parametrize("text", EXPECTED_FAILURES.values(), ids=EXPECTED_FAILURES)
def test_no_failure_is_expected(tmp_path: Path, text: str) -> None:
    run = run_pytest(tmp_path, text, "", "")
    assert run.returncode == 1 and "1 failed" in run.stdout, run.stdout + run.stderr
