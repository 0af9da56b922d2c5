"""Picking a device, and random states that come back."""

import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from common.device import pick, rng_state, seed_everything, set_rng_state
from common.errors import LessonError
from common.lessons import ROOT


@pytest.fixture
def machine(monkeypatch):
    """Pretend a machine: machine(cuda=2, mps=True)."""

    def pretend(cuda: int = 0, mps: bool = False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return pretend


@pytest.mark.parametrize(
    "cuda, mps, name, wanted",
    [
        (0, False, "auto", "cpu"),
        (0, True, "auto", "mps"),
        (1, True, "auto", "cuda"),
        (1, False, "cpu", "cpu"),
        (2, False, "cuda:1", "cuda:1"),
        (1, False, "cuda", "cuda"),
    ],
)
def test_pick(machine, cuda, mps, name, wanted):
    machine(cuda, mps)
    assert pick(name) == torch.device(wanted)


@pytest.mark.parametrize(
    "name, words",
    [
        ("cuda", "finds no cuda here. Leave --device out"),
        ("cuda:0", "finds no cuda"),
        ("mps", "finds no mps"),
        ("tpu", "is no device. Use auto, cpu, cuda"),
        ("", "is no device"),
        ("0", "is no device"),
        ("cuda:x", "is no device"),
        ("meta", "finds no meta"),
        ("xla", "finds no xla"),
    ],
)
def test_a_device_that_is_not_here(machine, name, words):
    machine()
    with pytest.raises(LessonError, match=words) as caught:
        pick(name)
    assert "\n" not in str(caught.value)


def test_a_graphics_card_too_many(machine):
    machine(cuda=1)
    with pytest.raises(
        LessonError, match="cuda:1 was asked for, but the CUDA devices here are 0 to 0"
    ):
        pick("cuda:1")


def draws():
    numbers = np.random.rand(3).tolist()  # noqa: NPY002 (the global generator is what is tested)
    return random.random(), random.gauss(0, 1), numbers, torch.rand(3).tolist()


def test_the_same_seed_gives_the_same_numbers():
    seed_everything(3)
    first = draws()
    seed_everything(3)
    assert draws() == first
    seed_everything(2**40)  # NumPy's old generator takes 32 bits only
    assert draws() != first


def test_a_state_comes_back_through_a_file(tmp_path):
    draws()
    torch.save(rng_state(), tmp_path / "state.pt")
    wanted = [draws(), draws()]
    set_rng_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert [draws(), draws()] == wanted


@pytest.mark.parametrize("count", [1, 2])
def test_threads_of_all_that_is_loaded(count):
    """In a process of its own, for what it sets stays."""
    code = (
        "import numpy, torch, threadpoolctl; from common.threads import use_threads; "
        f"use_threads({count}); torch.ones(9) @ torch.ones(9); numpy.ones(9) @ numpy.ones(9); "
        "loaded = threadpoolctl.threadpool_info(); "
        "print(torch.get_num_threads(), *(library['num_threads'] for library in loaded))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=True,
    )
    threads = answer.stdout.split()
    assert len(threads) >= 2 and set(threads) == {str(count)}


def test_use_threads_imports_nothing_heavy():
    code = (
        "import sys; from common.threads import use_threads; use_threads(1); "
        "print(*({'torch', 'numpy'} & sys.modules.keys()))"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert not answer.stdout.strip()


LESSON = '''"""1.1 Threads
线程
"""
from dataclasses import dataclass

import numpy as np
from common.config import LessonConfig, main


@dataclass
class Config(LessonConfig):
    {line}


def run(cfg: Config) -> None:
    import threadpoolctl

    np.ones(9) @ np.ones(9)
    print("threads", *{{x["num_threads"] for x in threadpoolctl.threadpool_info()}})


if __name__ == "__main__":
    main(run, Config, __doc__)
'''


@pytest.mark.parametrize(
    "line, flags, wanted",
    [("threads = 1", [], "1"), ("pass", [], "2"), ("pass", ["--tiny"], "1")],
)
def test_a_small_lesson_asks_for_one_thread(tmp_path, line, flags, wanted):
    script = tmp_path / "01-threads.py"
    script.write_text(LESSON.format(line=line), encoding="utf-8")
    answer = subprocess.run(
        [sys.executable, script, "--out", tmp_path / "out", *flags],
        env=os.environ | {"OMP_NUM_THREADS": "2", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"threads {wanted}\n" in answer.stdout, answer.stdout + answer.stderr
