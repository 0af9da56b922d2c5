"""Saving a model and a training state so that a kill at any moment leaves the old file or the new one, whole."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from common.device import rng_state, set_rng_state
from common.errors import LessonError
from common.files import atomic_path


def save(path: Path | str, state: Any) -> None:
    """Write tensors, state_dicts and plain Python values. Raises LessonError when the disk is full or not ours."""
    with atomic_path(path) as temporary:
        try:
            with open(temporary, "wb") as file:
                torch.save(state, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # a full disk, under torch's own words
                raise error.__context__
            raise


def load(path: Path | str) -> Any:
    """Read what `save` wrote, on the CPU. Raises LessonError for a file that is missing, damaged, or could run code."""
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch.load itself does not compare the checksums
        if damaged:
            raise zipfile.BadZipFile(damaged)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise LessonError(
            f"{path} is not there. Run the lesson without --resume to make it."
        ) from None
    except pickle.UnpicklingError as error:
        raise LessonError(
            f"{path} holds Python objects that could run code when loaded, so it was refused. "
            "Delete it and train again; load only files of tensors and plain values."
        ) from error
    except Exception as error:  # a damaged archive fails in a dozen ways
        raise LessonError(
            f"{path} is damaged or is no checkpoint ({type(error).__name__}). "
            "Delete it and train again, or point --out at another folder."
        ) from error


class Checkpoint:
    """The state of a training run in one file, saved once an epoch by `fit`.

    checkpoint = Checkpoint(cfg.out / "last.pt", resume=cfg.resume, model=model, optimizer=optimizer, …)

    Every member needs state_dict and load_state_dict (models, optimizers, schedulers, `Batches`). `settings` must be
    equal when a run is resumed: other settings would give neither the old result nor a new one.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        resume: bool = False,
        settings: dict[str, Any] | None = None,
        **members: Any,
    ):
        self.path, self.resume, self.settings, self.members = (
            Path(path),
            resume,
            settings or {},
            members,
        )

    def save(self, history: list[dict[str, float]]) -> None:
        save(
            self.path,
            {
                "history": history,
                "settings": self.settings,
                "rng": rng_state(),
                "members": {name: member.state_dict() for name, member in self.members.items()},
            },
        )

    def restore(self) -> list[dict[str, float]]:
        """Put every member back and return the history so far; an empty one when there is nothing to resume."""
        if not self.resume:
            return []
        if not self.path.exists():
            print(f"  nothing to resume in {self.path}: starting from the beginning")
            return []
        try:
            state = dict(load(self.path))
            history, epochs = state["history"], len(state["history"])
            if state["settings"] != self.settings:
                changed = sorted(
                    "--" + k.replace("_", "-")
                    for k in state["settings"].keys() | self.settings.keys()
                    if state["settings"].get(k) != self.settings.get(k)
                )
                raise LessonError(
                    f"{self.path} was made with another {', '.join(changed)}. "
                    "Give the same settings as then, or drop --resume to start anew."
                )
            for name, member in self.members.items():
                member.load_state_dict(state["members"][name])
            set_rng_state(state["rng"])
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise LessonError(
                f"{self.path} belongs to another model or lesson ({type(error).__name__}). "
                "Drop --resume to start anew."
            ) from error
        print(f"  resumed after epoch {epochs}")
        return history
