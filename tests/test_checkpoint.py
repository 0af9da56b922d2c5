"""After a kill the old or the new file is there, whole; a resumed run ends as if never stopped."""

import errno
import io
import os
import pickle
import random
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from common import checkpoint
from common.checkpoint import Checkpoint, load, save
from common.data.batches import Batches
from common.errors import LessonError
from common.lessons import ROOT
from common.training import fit

# A process that has imported torch but run nothing; each training is a fork of it, to be killed.
KILLED = '''
import os, random, signal, sys, time
from pathlib import Path
import torch, torch._dynamo
sys.path.insert(0, sys.argv[1])
from test_checkpoint import load, train

def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def half_a_save(state, file):
    file.write(os.urandom(20_000))
    file.flush()
    kill()

def forked(folder, sabotage=None, seconds=None, **options):
    """Train in a child; returns the signal that ended it."""
    child = os.fork()
    if child == 0:
        if sabotage:
            sabotage()
        train(folder, **options)
        os._exit(0)
    if seconds:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.WTERMSIG(os.waitpid(child, 0)[1])

def die_at_batch(number):
    real, seen = torch.Tensor.backward, []
    def backward(self, *args):
        seen.append(real(self, *args))
        len(seen) == number and kill()
    torch.Tensor.backward = backward

folder = Path(sys.argv[2])
print(forked(folder / "whole"), flush=True)
moments = {
    "before the first save": lambda: die_at_batch(2),
    "in mid-epoch": lambda: die_at_batch(10),
    "half of a file": lambda: setattr(torch, "save", half_a_save),
    "before the new name": lambda: setattr(os, "replace", kill),
    "in mid-epoch again": lambda: die_at_batch(7),
}
for name, sabotage in moments.items():
    code = forked(folder / "killed", sabotage, resume=True)
    print(code, name, *sorted(p.name for p in (folder / "killed").glob("last.pt")), flush=True)
print(forked(folder / "killed", resume=True))
for moment in random.Random(0).choices(range(50, 300), k=6):
    forked(folder / "random", seconds=moment / 1000, resume=True)
    if (folder / "random" / "last.pt").exists():
        load(folder / "random" / "last.pt")
print(forked(folder / "random", resume=True))
'''


def make(seed: int = 0, width: int = 8):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, width), nn.Dropout(0.3), nn.ReLU(), nn.Linear(width, 3))


def train(
    folder, epochs: int = 6, resume: bool = False, settings=None, width: int = 8
) -> torch.Tensor:
    """All that a resume must restore: order, dropout, momentum, schedule, both kinds of noise."""
    np.random.seed(0)  # noqa: NPY002 (the global generator is what is tested)
    random.seed(0)
    folder.mkdir(exist_ok=True, parents=True)
    model = make(width=width)
    x = torch.linspace(-1, 1, 160).reshape(40, 4)

    def noisy(batch):
        drawn = float(np.random.randn())  # noqa: NPY002 (the global generator is what is tested)
        return batch + drawn + random.random() + torch.randn_like(batch)

    batches = Batches(x, torch.arange(40) % 3, batch_size=10, shuffle=True, transform=noisy)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=6 * len(batches))
    saved = Checkpoint(
        folder / "last.pt",
        resume=resume,
        settings=settings,
        model=model,
        optimizer=optimizer,
        schedule=schedule,
        batches=batches,
    )
    history = fit(
        model,
        batches,
        optimizer,
        lambda m, b: nn.functional.cross_entropy(m(b[0]), b[1]),
        epochs=epochs,
        scheduler=schedule,
        checkpoint=saved,
        quiet=True,
    )
    assert [row["epoch"] for row in history] == list(range(1, epochs + 1))
    weights = nn.utils.parameters_to_vector(model.parameters()).detach()
    torch.save([weights, torch.tensor([row["train_loss"] for row in history])], folder / "final.pt")
    return weights


def final(folder) -> list[torch.Tensor]:
    return torch.load(folder / "final.pt")


def refused(path, words: str) -> str:
    with pytest.raises(LessonError, match=words) as caught:
        load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.full
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_kill_9_then_resume_gives_the_same_weights_bit_for_bit(tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    done = subprocess.run(
        [sys.executable, str(script), os.path.dirname(__file__), str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        timeout=120,
    )
    assert not done.stderr
    assert [
        line for line in done.stdout.splitlines() if not line.startswith(("  resumed", "  nothing"))
    ] == [
        "0",
        "9 before the first save",
        "9 in mid-epoch last.pt",
        "9 half of a file last.pt",
        "9 before the new name last.pt",
        "9 in mid-epoch again last.pt",
        "0",
        "0",
    ]
    resumed = [line.strip() for line in done.stdout.splitlines() if line.startswith("  resumed")]
    assert resumed[:4] == ["resumed after epoch 2"] * 3 + [
        "resumed after epoch 3"
    ]  # a killed save: the old file
    for folder in ("killed", "random"):
        for ours, whole in zip(final(tmp_path / folder), final(tmp_path / "whole")):
            assert torch.equal(ours, whole), folder


def test_resume_goes_on_and_a_run_without_it_starts_anew(tmp_path, capsys):
    whole = train(tmp_path / "whole")
    train(tmp_path / "parts", epochs=2)
    train(tmp_path / "parts", epochs=4, resume=True)
    assert torch.equal(train(tmp_path / "parts", resume=True), whole)
    assert "resumed after epoch 2" in capsys.readouterr().out
    assert torch.equal(train(tmp_path / "parts"), whole)
    assert torch.equal(train(tmp_path / "empty", resume=True), whole)
    assert "nothing to resume in" in capsys.readouterr().out


def test_other_settings_are_refused_by_the_flag(tmp_path):
    train(tmp_path, epochs=1, settings={"lr": 0.1, "batch_size": 10, "gone": 1})
    with pytest.raises(
        LessonError, match=r"made with another --batch-size, --gone. Give the same settings"
    ):
        train(tmp_path, resume=True, settings={"lr": 0.1, "batch_size": 20})


def test_another_model_is_refused(tmp_path):
    train(tmp_path, epochs=1)
    with pytest.raises(
        LessonError, match=r"last.pt belongs to another model or lesson .*Drop --resume"
    ):
        train(tmp_path, resume=True, width=9)


@pytest.mark.parametrize(
    "state",
    [
        {"a": 1},
        torch.zeros(3),
        [1, 2],
        make().state_dict(),
        None,
        {"settings": {}, "members": [], "rng": {}},
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path, state):
    save(tmp_path / "last.pt", state)
    with pytest.raises(LessonError, match=r"last.pt belongs to another model or lesson"):
        train(tmp_path, resume=True)


# ---- files


def test_load_gives_what_save_was_given(tmp_path):
    state = {
        "x": torch.randn(3, 4),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "names": ["a", (1, 2.5), None],
    }
    save(tmp_path / "new" / "a.pt", state)
    again = load(tmp_path / "new" / "a.pt")
    assert torch.equal(again.pop("x"), state.pop("x")) and torch.equal(
        again.pop("half"), state.pop("half")
    )
    assert again == state


def test_a_file_that_is_not_there(tmp_path):
    refused(tmp_path / "last.pt", "is not there. Run the lesson without --resume")


@pytest.mark.parametrize("content", [b"", b"PK", b"no zip at all", b"\x80\x02."])
def test_not_a_checkpoint(tmp_path, content):
    (tmp_path / "last.pt").write_bytes(content)
    refused(tmp_path / "last.pt", "is damaged or is no checkpoint .*Delete it and train again")


def test_other_archives_and_folders(tmp_path):
    np.savez(tmp_path / "arrays.npz", x=np.zeros(3))
    refused(tmp_path / "arrays.npz", "is damaged or is no checkpoint")
    refused(tmp_path, "is damaged or is no checkpoint")


def test_truncated_and_altered_files_are_refused_or_harmless(tmp_path):
    path = tmp_path / "last.pt"
    state = {"weights": torch.arange(40.0), "epoch": 3}
    save(path, state)
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        refused(path, "is damaged or is no checkpoint")
    rng, unharmed = random.Random(0), 0
    for place in rng.sample(range(len(whole)), 300):
        path.write_bytes(
            whole[:place] + bytes([whole[place] ^ rng.randrange(1, 256)]) + whole[place + 1 :]
        )
        try:
            again = load(path)
        except LessonError:
            continue
        unharmed += 1  # padding, dates, flags nobody reads
        assert torch.equal(again["weights"], state["weights"]) and again["epoch"] == 3
    assert unharmed < 270
    start = whole.index(state["weights"].numpy().tobytes())
    path.write_bytes(whole[:start] + b"\x01" + whole[start + 1 :])  # one weight a little different
    refused(path, "is damaged")


class Hostile:
    def __init__(self, victim):
        self.victim = str(victim)

    def __reduce__(self):
        return os.mkdir, (self.victim,)


@pytest.mark.parametrize("form", ["torch", "old torch", "pickle", "weights"])
def test_a_hostile_pickle_does_not_run(tmp_path, form):
    path, victim = tmp_path / "last.pt", tmp_path / "victim"
    if form == "pickle":
        path.write_bytes(pickle.dumps(Hostile(victim)))
    else:
        state = {"model": {"0.weight": Hostile(victim)}} if form == "weights" else Hostile(victim)
        torch.save(state, path, _use_new_zipfile_serialization=form != "old torch")
    refused(
        path,
        "could run code when loaded, so it was refused"
        if zipfile.is_zipfile(path)
        else "is no checkpoint",
    )
    assert not victim.exists()
    pickle.loads(path.read_bytes()) if form == "pickle" else torch.load(path, weights_only=False)
    assert victim.exists()  # so the file really was hostile


@pytest.mark.parametrize("room", [0, 100, 700, 5_000])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, room):
    class Full(io.FileIO):
        def write(self, content):
            if self.tell() + len(content) > room:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(content)

    save(tmp_path / "last.pt", {"epoch": 1})
    monkeypatch.setattr(checkpoint, "open", Full, raising=False)
    with pytest.raises(
        LessonError,
        match=r"last.pt cannot be written: the disk is full .what was there is unharmed",
    ):
        save(tmp_path / "last.pt", {"weights": torch.zeros(5_000)})
    assert load(tmp_path / "last.pt") == {"epoch": 1} and [p.name for p in tmp_path.iterdir()] == [
        "last.pt"
    ]
