"""Files are whole or untouched, whatever happens while they are written."""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from common import files
from common.errors import LessonError
from common.files import (
    atomic_path,
    checked_folder,
    locked,
    readable,
    write_bytes,
    write_json,
    write_text,
)
from common.lessons import ROOT

posix = pytest.mark.skipif(os.name == "nt", reason="signals, modes and links are POSIX")


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def test_writes_text_as_it_is_and_makes_folders(tmp_path):
    target = tmp_path / "new" / "folder" / "名.txt"
    write_text(target, "a\r\nb\né")
    assert target.read_bytes() == "a\r\nb\né".encode()
    write_json(tmp_path / "x.json", {"名": 1})
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == {"名": 1}
    assert left(tmp_path) == ["new", "x.json"]


@pytest.mark.parametrize(
    "error", [RuntimeError("bug"), KeyboardInterrupt(), OSError(errno.EIO, "broken disk")]
)
def test_an_error_inside_leaves_the_old_file_and_nothing_else(tmp_path, error):
    target = tmp_path / "model.pt"
    target.write_text("old")
    with pytest.raises(type(error)), atomic_path(target) as temporary:
        temporary.write_text("half of the n")
        raise error
    assert target.read_text() == "old" and left(tmp_path) == ["model.pt"]


@pytest.mark.parametrize(
    "number, words",
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk is full"),
        (errno.EROFS, "no permission"),
        (errno.EACCES, "no permission"),
        (errno.EISDIR, "a file where a folder should be"),
        (errno.ENAMETOOLONG, "the name is too long"),
        (errno.ELOOP, "a link to itself"),
    ],
)
def test_known_reasons_become_one_sentence_with_a_next_step(tmp_path, monkeypatch, number, words):
    (tmp_path / "result.json").write_text("old")

    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)  # the first moment at which a full disk may show
    with pytest.raises(LessonError, match=words) as caught:
        write_bytes(tmp_path / "result.json", b"new")
    assert (
        "result.json" in str(caught.value)
        and "--out" in str(caught.value)
        and "\n" not in str(caught.value)
    )
    assert (tmp_path / "result.json").read_text() == "old" and left(tmp_path) == ["result.json"]


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(LessonError, match="a file where a folder should be"):
        write_text(tmp_path / "file" / "result.json", "x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(LessonError, match="the other way round"):
        write_text(tmp_path / "folder", "x")
    assert left(tmp_path) == ["file", "folder"] and (tmp_path / "file").read_text() == "mine"


def test_unknown_reasons_stay_what_they_are():
    error = OSError(errno.EIO, "broken disk")
    assert readable(error, "x") is error


@posix
def test_modes_and_links_are_kept(tmp_path):
    old = tmp_path / "old.sh"
    old.write_text("x")
    old.chmod(0o750)
    (tmp_path / "link").symlink_to(old)
    write_text(tmp_path / "link", "new")
    assert (
        (tmp_path / "link").is_symlink()
        and old.read_text() == "new"
        and old.stat().st_mode & 0o777 == 0o750
    )
    umask = os.umask(0o027)
    try:
        write_text(tmp_path / "fresh", "x")
    finally:
        os.umask(umask)
    assert (tmp_path / "fresh").stat().st_mode & 0o777 == 0o640


# ------------------------------------------------------------------ what a killed process leaves


def run(program: str, *arguments: object, **options: object) -> subprocess.Popen:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, **options)


HALF_WRITTEN = """
import sys, time
from common.files import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    temporary.write_text("half of the n")
    print(temporary.name, flush=True)
    time.sleep(60)
"""


@posix
def test_what_a_killed_process_leaves_is_hidden_from_git_and_gone_after_the_next_run(tmp_path):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / ".gitignore").write_bytes((ROOT / ".gitignore").read_bytes())
    (tmp_path / "README.md").write_text("old")
    living, killed = (run(HALF_WRITTEN, tmp_path / "README.md") for _ in range(2))
    names = [process.stdout.readline().strip() for process in (living, killed)]
    killed.kill()
    killed.wait()
    seen = subprocess.run(
        ["git", "status", "--porcelain"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert seen.stdout.split() == ["??", ".gitignore", "??", "README.md"]

    write_text(tmp_path / "other.txt", "the next run writes another file in that folder")
    assert names[0] in left(tmp_path) and names[1] not in left(tmp_path)
    living.kill()
    living.wait()
    write_text(tmp_path / "README.md", "new")
    assert left(tmp_path) == [".git", ".gitignore", "README.md", "other.txt"]


def test_a_part_of_another_machine_goes_after_a_day(tmp_path):
    part, mine = tmp_path / ".part-00000000-1-abc.png", tmp_path / ".part-of-my-own.txt"
    part.write_text("")
    mine.write_text("")
    write_text(tmp_path / "x", "")
    assert part.exists()
    os.utime(part, (time.time() - 100_000,) * 2)
    write_text(tmp_path / "x", "")
    assert not part.exists() and mine.exists()


# ------------------------------------------------------------------------------- one at a time

ADD_ONE = """
import sys
from pathlib import Path
from common.files import locked, write_text
path = Path(sys.argv[1])
for _ in range(int(sys.argv[2])):
    with locked(path):
        write_text(path, str(int(path.read_text()) + 1))
"""


def test_writers_at_once_lose_nothing(tmp_path):
    (tmp_path / "count").write_text("0")
    processes = [run(ADD_ONE, tmp_path / "count", 40) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    assert (tmp_path / "count").read_text() == "160"


HOLD = """
import sys, time
from common.files import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@posix
def test_a_lock_is_waited_for_and_ends_with_its_process(tmp_path):
    holder = run(HOLD, tmp_path / "file")
    assert holder.stdout.readline() == "held\n"
    with (
        pytest.raises(LessonError, match=r"another process has been using .*file for 0 s"),
        locked(tmp_path / "file", wait=0.2),
    ):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with locked(tmp_path / "file", wait=5):
        pass
    assert left(tmp_path) == [".lock-file"]


def test_a_file_system_without_locks_is_worked_on_as_it_is(tmp_path, monkeypatch):
    import filelock

    def refuse(*_args, **_more):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    with locked(tmp_path / "file"):
        pass
    monkeypatch.setattr(files, "_NO_LOCKS", ())
    with pytest.raises(OSError, match="No locks"), locked(tmp_path / "file"):
        pass


def test_an_error_inside_lets_go_of_the_lock(tmp_path):
    with pytest.raises(OSError, match="mine"), locked(tmp_path / "file"):
        raise OSError(errno.EIO, "mine")
    with locked(tmp_path / "file", wait=0):
        pass
    (tmp_path / "plain").write_text("")
    with (
        pytest.raises(LessonError, match="a file where a folder"),
        locked(tmp_path / "plain" / "x"),
    ):
        pass


# ------------------------------------------------------------------- the door for paths of settings

ODD = ["~nosuchuser", "~nosuchuser/x", "n" * 300, "file", "file/x", "loop", "", "  ", "/proc/x"]


@posix
@pytest.mark.parametrize("make", [False, True])
@pytest.mark.parametrize("text", [*ODD, "nul\0byte"])
def test_odd_paths_get_one_sentence(tmp_path, monkeypatch, text, make):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(LessonError) as caught:
        checked_folder(text, "--out", make)
    sentence = str(caught.value)
    assert "\n" not in sentence and len(sentence) < 300 and "Errno" not in sentence
    assert sentence.startswith("--out “") and "is not a folder that can be used (" in sentence
    assert left(tmp_path) == ["file", "loop"] and (tmp_path / "file").read_text() == "mine"


def test_folders_that_can_be_used(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert checked_folder("~", "--out") == checked_folder(".", "--out") == tmp_path
    assert checked_folder("a b/ü", "--out", make=True) == tmp_path / "a b" / "ü"
    assert checked_folder(tmp_path / "a b", "--data-dir") == tmp_path / "a b"
    with pytest.raises(LessonError, match=r"no such file.*Give the one that holds the data"):
        checked_folder("nowhere", "COURSE_DATA")
    assert left(tmp_path) == ["a b"]


def test_a_folder_that_may_not_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(LessonError, match="no permission to write there"):
        checked_folder(tmp_path, "--out", make=True)
    assert checked_folder(tmp_path, "--data-dir") == tmp_path
