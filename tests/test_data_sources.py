"""Real data: looked up, downloaded, checked. Only a whole file takes the place of an old one."""

import contextlib
import errno
import hashlib
import http.server
import io
import os
import re
import socket
import tarfile
import threading
import time
from pathlib import Path

import pytest

from common.data import images, sources
from common.data.sources import (
    Part,
    Source,
    cache_dir,
    damaged,
    fetch,
    find,
    local_path,
)
from common.errors import LessonError

CONTENT = {"a.bin": os.urandom(150_000), "b.bin": b"the second part"}


class Mirror(http.server.BaseHTTPRequestHandler):
    """/HOW/FILE answers in the way that HOW says. `asked` lists the requests."""

    asked: list[str] = []
    released = threading.Event()  # hanging answers end with the test

    def do_GET(self):
        how, name = self.path.strip("/").split("/")[0], self.path.rsplit("/", 1)[-1]
        self.asked.append(self.path)
        content = CONTENT.get(name, b"")
        altered = content[:-1] + bytes([content[-1] ^ 1]) if content else b""
        if how in ("403", "404", "500"):
            return self.send_error(int(how))
        if how in ("moved", "circle"):
            return self.answer(
                b"", 302, Location=f"/{'good' if how == 'moved' else 'circle'}/{name}"
            )
        if how == "hang":
            return self.released.wait(20)
        if how == "nonsense":
            return self.wfile.write(b"hello, this is not HTTP\r\n\r\n")
        if how == "hang-later":
            self.answer(content[:1000], length=len(content))
            return self.released.wait(20)
        if how == "slow":
            self.answer(content[:10], length=len(content))
            for start in range(10, len(content), 60_000):
                time.sleep(0.15)
                self.wfile.write(content[start : start + 60_000])
            return None
        body = {
            "altered": altered,
            "truncated": content[:1000],
            "cut": content[:1000],
            "long": content + b"more",
            "endless": content * 50,
            "empty": b"",
            "page": b"<html>please log in</html>",
        }.get(how, content)
        return self.answer(
            body,
            length={"truncated": len(content), "cut": None, "endless": None}.get(how, len(body)),
        )

    def answer(self, body: bytes, code: int = 200, length: int | None = 0, **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # the other side may have had enough
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        Mirror.released.set()
        server.shutdown()


@pytest.fixture(autouse=True)
def empty_machine(no_data, monkeypatch):
    """No data anywhere, a cache in the test's folder, no proxy."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(sources, "TIMEOUT", 0.4)
    Mirror.asked.clear()


def digest(content: bytes, kind: str = "sha256") -> str:
    return f"{kind}:{hashlib.new(kind, content).hexdigest()}"


def join(parts, target):
    target.write_bytes(b"".join(part.read_bytes() for part in parts))


def source(*urls: str, files=("a.bin",), kind: str = "sha256", convert=join) -> Source:
    """A set whose parts lie at each of the urls, e.g. "http://…/good"."""
    parts = [
        Part(f, digest(CONTENT[f], kind), len(CONTENT[f]), tuple(f"{url}/{f}" for url in urls))
        for f in files
    ]
    return Source("birds", "sets/birds.bin", tuple(parts), convert, "birds")


def files_in(folder: Path) -> list[str]:
    """All but locks, which stay."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(str(path.relative_to(folder)) for path in found if ".lock-" not in path.name)


def cached(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "cache" / "sets" / "birds.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def fails(wanted: Source, *words: str) -> str:
    """Downloading must end with one sentence that says why and what to do."""
    with pytest.raises(LessonError) as caught:
        fetch(wanted)
    text = str(caught.value)
    assert "\n" not in text and all(word in text for word in words), text
    return text


# ---- downloads


@pytest.mark.parametrize("kind", ["md5", "sha256"])
@pytest.mark.parametrize("how", ["good", "moved", "slow"])
def test_a_good_answer(server, tmp_path, capsys, how, kind):
    left = tmp_path / "cache" / "parts" / "birds" / ".a.bin.x7.bin"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    path = fetch(source(f"{server}/{how}", files=("a.bin", "b.bin"), kind=kind))
    assert path.read_bytes() == CONTENT["a.bin"] + CONTENT["b.bin"]
    assert files_in(tmp_path) == [
        "cache/sets/birds.bin"
    ]  # the parts are gone, and what a kill had left beside them
    assert "downloading birds: 0.2 MB into" in capsys.readouterr().out


BAD = {
    "403": "Forbidden",
    "404": "Not Found",
    "500": "Internal Server Error",
    "circle": "redirect",
    "truncated": "broke off after 1000 of 150000 bytes",
    "cut": "broke off after 1000 of 150000 bytes",
    "empty": "broke off after 0",
    "page": "broke off after 26",
    "altered": "sent a file with another checksum",
    "long": "sent more than the 150000 bytes",
    "endless": "sent more than",
    "nonsense": "hello, this is not HTTP",
    "hang": "timed out",
    "hang-later": "timed out",
}


@pytest.mark.parametrize("how", BAD)
def test_a_bad_answer_is_one_sentence_and_leaves_the_old_file(server, tmp_path, how):
    old = cached(tmp_path, b"old")
    start = time.monotonic()
    fails(
        source(f"{server}/{how}"),
        "birds could not be downloaded (127.0.0.1:",
        BAD[how],
        "leave --data out",
    )
    assert old.read_bytes() == b"old" and files_in(tmp_path) == ["cache/sets/birds.bin"]
    assert time.monotonic() - start < 5


def test_no_network_at_all(tmp_path, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    fails(source(url, url), "Connection refused")

    def unknown(*_args, **_more):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    fails(source("http://birds.invalid/x"), "birds.invalid: ", "Name or service not known")
    assert files_in(tmp_path) == []


def test_mirrors_are_asked_in_order_until_one_answers_rightly(server, tmp_path):
    path = fetch(
        source(*(f"{server}/{how}" for how in ("403", "altered", "truncated", "good", "404")))
    )
    assert path.read_bytes() == CONTENT["a.bin"]
    assert Mirror.asked == ["/403/a.bin", "/altered/a.bin", "/truncated/a.bin", "/good/a.bin"]


def test_every_mirror_is_named_when_all_fail(server):
    text = fails(source(f"{server}/403", f"{server}/altered"), "Forbidden", "another checksum")
    assert len(re.findall(r"127\.0\.0\.1:\d+: ", text)) == 2


@pytest.mark.parametrize(
    "own, asked",
    [
        ("good", ["/good/birds/a.bin"]),
        ("good/", ["/good/birds/a.bin"]),
        ("404", ["/404/birds/a.bin", "/good/a.bin"]),
    ],
)
def test_the_learners_own_mirror_comes_first(server, monkeypatch, own, asked):
    monkeypatch.setenv("COURSE_MIRROR", f"{server}/{own}")
    assert (
        fetch(source(f"{server}/good")).read_bytes() == CONTENT["a.bin"] and Mirror.asked == asked
    )


@pytest.mark.parametrize(
    "mirror", ["no-scheme", "//", "http://[", "x://y", "http://127.0.0.1:99999", "http://a b"]
)
def test_a_nonsensical_mirror_is_passed_over(server, monkeypatch, mirror):
    monkeypatch.setenv("COURSE_MIRROR", mirror)
    assert fetch(source(f"{server}/good")).read_bytes() == CONTENT["a.bin"]


def test_a_second_attempt_keeps_the_parts_that_were_whole(server, tmp_path):
    wanted = source(f"{server}/good", files=("a.bin", "b.bin"))
    first, second = wanted.parts
    lost = Part(second.file, second.digest, second.size, (f"{server}/404/b.bin",))
    fails(Source("birds", wanted.file, (first, lost), join, ""), "Not Found")
    assert files_in(tmp_path) == ["cache/parts/birds/a.bin"]
    Mirror.asked.clear()
    assert fetch(wanted).exists() and Mirror.asked == ["/good/b.bin"]


def test_a_part_that_was_damaged_since_is_downloaded_again(server, tmp_path):
    part = tmp_path / "cache" / "parts" / "birds" / "a.bin"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT["a.bin"][:-1] + b"?")
    assert fetch(source(f"{server}/good")).read_bytes() == CONTENT["a.bin"] and Mirror.asked == [
        "/good/a.bin"
    ]


@pytest.mark.parametrize("when", ["downloading", "converting"])
@pytest.mark.parametrize(
    "error, raised, words",
    [
        (OSError(errno.ENOSPC, "No space left on device"), LessonError, "the disk is full"),
        (OSError(errno.EACCES, "Permission denied"), LessonError, "no permission"),
        (KeyboardInterrupt("you"), KeyboardInterrupt, "you"),
    ],
)
def test_a_full_disk_or_ctrl_c_leaves_no_half_file(
    server, tmp_path, monkeypatch, when, error, raised, words
):
    class Failing(io.FileIO):
        def write(self, content):
            super().write(content[:10])
            raise error

    def convert(parts, target):
        with Failing(target, "wb") as file:
            file.write(b"half of it")

    old = cached(tmp_path, b"old")
    if when == "downloading":
        monkeypatch.setattr(sources, "open", Failing, raising=False)
    with pytest.raises(raised, match=words):
        fetch(source(f"{server}/good", convert=convert))
    # whole, so the next attempt takes it
    kept = ["cache/parts/birds/a.bin"] if when == "converting" else []
    assert old.read_bytes() == b"old"
    assert files_in(tmp_path) == [*kept, "cache/sets/birds.bin"]
    assert len(Mirror.asked) == 1  # no other mirror helps against a full disk


def test_a_file_where_the_cache_should_be(server, tmp_path):
    (tmp_path / "cache").write_text("mine")
    fails(source(f"{server}/good"), "a file where a folder should be")
    assert (tmp_path / "cache").read_text() == "mine" and not Mirror.asked


# ---- where it is looked for


def test_data_dir_then_course_data_then_cache_then_download(server, tmp_path, monkeypatch):
    wanted = source(f"{server}/good")
    folders = [tmp_path / name for name in ("given", "environment", "cache")]
    for folder in folders:
        (folder / "sets").mkdir(parents=True)
        (folder / "sets" / "birds.bin").write_bytes(b"here")
    monkeypatch.setenv("COURSE_DATA", str(folders[1]))
    for folder in folders:
        assert find(wanted, folders[0]) == folder / "sets" / "birds.bin"
        (folder / "sets" / "birds.bin").unlink()
    assert find(wanted, folders[0]).read_bytes() == CONTENT["a.bin"] and Mirror.asked == [
        "/good/a.bin"
    ]
    monkeypatch.setenv("COURSE_DATA", "")
    assert (
        find(wanted, None) == tmp_path / "cache" / "sets" / "birds.bin" and len(Mirror.asked) == 1
    )


def test_a_data_dir_that_is_no_folder(tmp_path):
    with pytest.raises(
        LessonError,
        match=r"--data-dir “.*nowhere” is not a folder .*Give the one that holds the data",
    ):
        find(source(), tmp_path / "nowhere")


def test_the_sentence_for_a_damaged_file_depends_on_whose_it_is(tmp_path):
    places = tmp_path / "cache" / "x", tmp_path / "x"
    in_the_cache, elsewhere = (str(damaged(source(), path, "cut\noff")) for path in places)
    assert (
        "(cut off)" in in_the_cache
        and "Download it again: course data birds --again" in in_the_cache
    )
    assert (
        "(cut off)" in elsewhere
        and "Replace that file, or leave --data-dir and COURSE_DATA out" in elsewhere
    )


# ---- hostile archives


def hostile_archive(kind: str, victim: Path) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for number in range(1, 7):
            batch = "test_batch" if number == 6 else f"data_batch_{number}"
            name = f"cifar-10-batches-bin/{batch}.bin"
            names = {"climbing": f"../../../../../../{victim}", "absolute": str(victim)}
            member = tarfile.TarInfo(names.get(kind, name))
            if kind == "link":
                member.type, member.linkname = tarfile.SYMTYPE, str(victim)
                archive.addfile(member)
            elif kind == "device":
                member.type = tarfile.FIFOTYPE
                archive.addfile(member)
            else:
                member.size = 3073
                archive.addfile(member, io.BytesIO(bytes(3073)))
    return content.getvalue()


@pytest.mark.parametrize("kind", ["climbing", "absolute", "link", "device"])
def test_an_archive_cannot_write_outside_nor_read_what_it_links_to(
    server, tmp_path, monkeypatch, kind
):
    victim = tmp_path / "victim"
    if kind == "link":
        victim.write_bytes(bytes(3073))
    content = hostile_archive(kind, victim)
    monkeypatch.setitem(CONTENT, "cifar.tar.gz", content)
    part = Part("cifar.tar.gz", digest(content), len(content), (f"{server}/good/cifar.tar.gz",))
    with pytest.raises((LessonError, KeyError, ValueError)):
        fetch(Source("cifar10", "cifar10.npz", (part,), images.CIFAR10_SOURCE.convert, ""))
    assert files_in(tmp_path) == ["cache/parts/cifar10/cifar.tar.gz"] + ["victim"] * (
        kind == "link"
    )


def test_what_the_sources_promise():
    """Digests and sizes of what is published, from two places at least."""
    for wanted in [source for source, *_ in images.SETS.values()]:
        assert len({part.file for part in wanted.parts}) == len(wanted.parts)
        for part in wanted.parts:
            assert (
                re.fullmatch(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", part.digest)
                and part.size > 1000
            )
            assert len(part.urls) >= 2 and all(url.endswith(part.file) for url in part.urls)


def test_the_cache_is_the_users_cache(monkeypatch, tmp_path):
    import platformdirs

    monkeypatch.undo()
    assert cache_dir() == Path(platformdirs.user_cache_dir()) / "deep-learning-course" / "data"


# ---- paths from settings


@pytest.mark.parametrize("setting", ["--data-dir", "COURSE_DATA"])
@pytest.mark.parametrize(
    "text", ["~nosuchuser", "n" * 300, "file", "file/x", "loop", "/proc/x", "nowhere"]
)
def test_an_odd_setting_is_one_sentence_and_downloads_nothing(
    server, tmp_path, monkeypatch, setting, text
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop").symlink_to("loop")
    data_dir = Path(text) if setting == "--data-dir" else None
    if setting == "COURSE_DATA":
        monkeypatch.setenv("COURSE_DATA", text)
    for look in (find, local_path):
        with pytest.raises(LessonError, match=rf"^{setting} “.*is not a folder") as caught:
            look(source(f"{server}/good"), data_dir)
        assert "\n" not in str(caught.value)
    assert not Mirror.asked and files_in(tmp_path) == ["file"]


@pytest.mark.parametrize("kind", ["cache", "data"])
def test_a_user_without_a_home(monkeypatch, kind):
    """What platformdirs says where the system knows none: the sign for it, as it stands."""
    import platformdirs

    monkeypatch.setattr(platformdirs, f"user_{kind}_dir", lambda *_, **__: f"~/.{kind}/course")
    with pytest.raises(LessonError, match=f"no home folder.*XDG_{kind.upper()}_HOME"):
        sources.own_folder(kind)


def test_two_downloads_at_once_are_one(server, tmp_path):
    wanted = source(f"{server}/slow")
    found = []
    threads = [threading.Thread(target=lambda: found.append(find(wanted))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.read_bytes() for path in found] == [CONTENT["a.bin"]] * 4
    assert Mirror.asked == ["/slow/a.bin"]
