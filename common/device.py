"""One call for the device, one for the seeds: the same script runs on a CPU, on CUDA, on MPS."""

import random

import numpy as np
import torch

from common.errors import LessonError


def pick(name: str = "auto") -> torch.device:
    """What --device means; "auto" is CUDA, else MPS, else the CPU. Raises LessonError."""
    here = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(kind for kind, is_here in here.items() if is_here)
    try:
        device = torch.device(name)
    except RuntimeError:
        sentence = f"--device {name} is no device. Use auto, cpu, cuda, cuda:1 or mps."
        raise LessonError(sentence) from None

    if not here.get(device.type, False):
        raise LessonError(
            f"--device {name} was asked for, but torch finds no {device.type} here. "
            "Leave --device out, or use --device cpu."
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise LessonError(
            f"--device {name} was asked for, but the CUDA devices here are 0 to "
            f"{torch.cuda.device_count() - 1}. Use one of them, or leave --device out."
        )
    return device


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy's global generator and torch on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (libraries still draw from it)
    torch.manual_seed(seed)


def rng_state() -> dict:
    """The state of every generator that training draws from, as plain values for `torch.load`."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002 (as in seed_everything)
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "numpy": [name, torch.from_numpy(keys.copy()), *rest],
        "python": [version, list(internal), gauss],
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_rng_state(state: dict) -> None:
    torch.set_rng_state(state["torch"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy(), *rest))  # noqa: NPY002 (as in seed_everything)
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
