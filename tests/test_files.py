"""Files are whole or untouched, whatever happens while they are written."""

import errno
import json
import os
import sys

import pytest

from common.errors import LessonError
from common.files import atomic_path, readable, write_bytes, write_json, write_text


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


@pytest.mark.skipif(sys.platform == "win32", reason="modes and links are POSIX")
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
