"""Picking a device, and random states that come back."""

import random

import numpy as np
import pytest
import torch

from common.device import pick, rng_state, seed_everything, set_rng_state
from common.errors import LessonError


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
    return random.random(), random.gauss(0, 1), np.random.rand(3).tolist(), torch.rand(3).tolist()


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
