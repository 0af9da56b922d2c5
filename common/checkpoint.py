"""Saving a model and a training state: after a kill, the old or the new file is there, whole."""

import pickle
import textwrap
import zipfile
from pathlib import Path
from typing import Any

import torch

from common.device import rng_state, set_rng_state
from common.errors import LessonError
from common.files import atomic_path


def save(path: Path | str, state: Any) -> None:
    """Write tensors, state_dicts and plain values. Raises LessonError, as for a full disk."""
    with atomic_path(path) as temporary:
        try:
            with open(temporary, "wb") as file:
                torch.save(state, file)
        except RuntimeError as error:
            # a full disk, under torch's own words
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def load(path: Path | str) -> Any:
    """Read what `save` wrote, on the CPU.

    Raises LessonError for a file that is missing or damaged, or that could run code.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            # torch.load itself does not compare the checksums
            damaged = archive.testzip()
        if damaged:
            raise zipfile.BadZipFile(damaged)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        sentence = f"{path} is not there. Run the lesson without --resume to make it."
        raise LessonError(sentence) from None
    except pickle.UnpicklingError as error:
        raise LessonError(
            f"{path} holds Python objects that could run code when loaded, so it was refused. "
            "Delete it and train again; load only files of tensors and plain values."
        ) from error
    # a damaged archive fails in a dozen ways
    except Exception as error:
        raise LessonError(
            f"{path} is damaged or is no checkpoint ({type(error).__name__}). "
            "Delete it and train again, or point --out at another folder."
        ) from error


class Checkpoint:
    """The state of a training run in one file, saved once an epoch by `fit`.

    checkpoint = Checkpoint(cfg.out / "last.pt", resume=cfg.resume, model=model, optimizer=…)

    Every member needs state_dict and load_state_dict (models, optimizers, schedulers, `Batches`).
    `settings` must be equal when a run is resumed: other settings would give neither the old result
    nor a new one.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        resume: bool = False,
        settings: dict[str, Any] | None = None,
        **members: Any,
    ):
        self.path = Path(path)
        self.resume = resume
        self.settings = settings or {}
        self.members = members

    def save(self, history: list[dict[str, float]]) -> None:
        members = {name: member.state_dict() for name, member in self.members.items()}
        state = {"history": history, "settings": self.settings, "rng": rng_state()}
        save(self.path, state | {"members": members})

    def restore(self) -> list[dict[str, float]]:
        """Put every member back; returns the history so far, empty when there is none to resume."""
        if not self.resume:
            return []
        if not self.path.exists():
            print(f"  nothing to resume in {self.path}: starting from the beginning")
            return []
        try:
            state = dict(load(self.path))
            epochs = len(state["history"])
            self._compare(state["settings"])
            for name, member in self.members.items():
                member.load_state_dict(state["members"][name])
            set_rng_state(state["rng"])
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            reason = textwrap.shorten(f"{type(error).__name__}: {error}", 200)
            raise LessonError(
                f"{self.path} belongs to another model or lesson ({reason}). "
                "Drop --resume to start anew."
            ) from error
        print(f"  resumed after epoch {epochs}")
        return state["history"]

    def _compare(self, settings: dict[str, Any]) -> None:
        """Raises LessonError where the saved settings are not those of this run."""
        names = sorted(settings.keys() | self.settings.keys())
        changed = [name for name in names if settings.get(name) != self.settings.get(name)]
        if settings != self.settings:
            flags = ", ".join("--" + name.replace("_", "-") for name in changed)
            raise LessonError(
                f"{self.path} was made with another {flags}. "
                "Give the same settings as then, or drop --resume to start anew."
            )
