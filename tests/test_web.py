"""The door in front of a demo page: who is let in, how much, how long, how many at once."""

import asyncio
import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from common import config, web
from common.errors import LessonError
from common.lessons import ROOT

LIMIT = 50_000


def size_and_sum(body: bytes) -> dict:
    """What the page's function answers in these tests."""
    if body == b"lesson":
        raise LessonError("draw something first.")
    if body == b"fault":
        raise ValueError(f"{object()!r} is wrong")
    if body == b"slow":
        time.sleep(0.3)
    return {"size": len(body), "sum": sum(body)}


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.html"
    path.write_text("<!doctype html><title>你好</title>", encoding="utf-8")
    return path


@pytest.fixture
def port(page: Path) -> Iterator[int]:
    with web.serving(page, {"/ask": size_and_sum}, max_bytes=LIMIT) as port:
        yield port


def ask(port: int, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()


def raw(port: int, content: bytes) -> bytes:
    """Send these bytes; all that comes back before the connection ends."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(content)
        parts = []
        with contextlib.suppress(ConnectionResetError):
            while part := client.recv(65536):
                parts.append(part)
        return b"".join(parts)


def test_the_page_and_its_function(port: int, page: Path) -> None:
    assert ask(port, "GET", "/") == (200, page.read_bytes())
    status, answer = ask(port, "POST", "/ask", b"\x01\x02")
    assert status == 200 and json.loads(answer) == {"size": 2, "sum": 3}
    own = {"Origin": f"http://localhost:{port}", "Host": f"localhost:{port}"}
    assert ask(port, "POST", "/ask", b"x", **own)[0] == 200
    page.write_text("changed", encoding="utf-8")
    assert ask(port, "GET", "/")[1] == b"changed"


def test_one_connection_for_one_question(port: int) -> None:
    answer = raw(port, b"GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % port)
    assert b"connection: close" in answer.lower() and b"nosniff" in answer


REFUSED = {
    "another page": (404, "GET", "/etc/passwd", b"", {}),
    "a post to the page": (405, "POST", "/", b"x", {}),
    "a get of the function": (405, "GET", "/ask", b"", {}),
    "the documentation of the interface": (404, "GET", "/openapi.json", b"", {}),
    "another site's name": (403, "POST", "/ask", b"x", {"Host": "evil.example"}),
    "this machine at another port": (403, "POST", "/ask", b"x", {"Host": "127.0.0.1:1"}),
    "another site's page": (403, "POST", "/ask", b"x", {"Origin": "http://evil.example"}),
    "another port's page": (403, "POST", "/ask", b"x", {"Origin": "http://127.0.0.1:1"}),
    "a page from a file": (403, "POST", "/ask", b"x", {"Origin": "null"}),
    "a page with a foreign name asks for the page": (403, "GET", "/", b"", {"Origin": "null"}),
    "too large": (413, "POST", "/ask", bytes(LIMIT + 1), {}),
    "far too large": (413, "POST", "/ask", bytes(15 * LIMIT), {}),
    "what the lesson refuses": (400, "POST", "/ask", b"lesson", {}),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_refusals_have_one_shape(port: int, case: tuple) -> None:
    expected, method, path, body, headers = case
    status, answer = ask(port, method, path, body, **headers)
    assert status == expected
    assert list(json.loads(answer)) == ["error"]


def test_what_is_not_http_gets_the_same_shape(port: int) -> None:
    host = b"Host: 127.0.0.1:%d\r\n" % port
    for content in (
        b"seven\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST /ask HTTP/1.1\r\n" + host + b"Content-Length: -5\r\n\r\n",
        b"POST /ask HTTP/1.1\r\n" + host + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + host + b"X: " + b"a" * 1_000_000,
    ):
        answer = raw(port, content)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 "), (content[:40], answer)
        assert json.loads(body).keys() == {"error"}
    assert ask(port, "POST", "/ask", b"x")[0] == 200


def test_a_fault_is_told_to_the_terminal_not_to_the_client(port: int, capfd) -> None:
    status, answer = ask(port, "POST", "/ask", b"fault")
    assert status == 500 and json.loads(answer).keys() == {"error"}
    assert b"0x" not in answer and b"ValueError" in answer
    assert "size_and_sum" in capfd.readouterr().err


def test_a_body_of_unknown_length_is_bounded_too(port: int) -> None:
    head = b"POST /ask HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nTransfer-Encoding: chunked\r\n\r\n" % port
    chunk = b"1000\r\n" + bytes(0x1000) + b"\r\n"
    assert b'{"size":8192,"sum":0}' in raw(port, head + 2 * chunk + b"0\r\n\r\n")
    assert b" 413 " in raw(port, head + 20 * chunk + b"0\r\n\r\n")
    # far more than is ever read
    assert raw(port, head + 500 * chunk)[:12] in (b"", b"HTTP/1.1 413")


def test_clients_that_drip_are_cut_and_hold_nobody_up(page: Path, monkeypatch) -> None:
    monkeypatch.setattr(web, "ARRIVAL", 0.4)
    beginnings = {
        "nothing": b"",
        "half a header": b"POST /ask HTTP/1.1\r\nHo",
        "half a body": b"POST /ask HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Length: 99\r\n\r\nab",
    }
    with web.serving(page, {"/ask": size_and_sum}) as port:
        for name, beginning in beginnings.items():
            with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
                start = time.monotonic()
                client.sendall(beginning % port if b"%d" in beginning else beginning)
                answer = b""
                dripping = threading.Thread(target=drip, args=(client,), daemon=True)
                dripping.start()
                assert ask(port, "POST", "/ask", b"x")[0] == 200
                with contextlib.suppress(ConnectionError):
                    answer = client.recv(1000)
                assert time.monotonic() - start < 10, name
                assert b" 408 " in answer if "body" in name else answer == b""


def drip(client: socket.socket) -> None:
    with contextlib.suppress(OSError):
        for _ in range(100):
            client.sendall(b"a")
            time.sleep(0.05)


def test_a_client_that_does_not_read_is_cut(page: Path, monkeypatch) -> None:
    monkeypatch.setattr(web, "LIFE", 0.5)
    with (
        web.serving(page, {"/ask": lambda body: {"much": "x" * 20_000_000}}) as port,
        socket.create_connection(("127.0.0.1", port), timeout=20) as client,
    ):
        client.sendall(b"POST /ask HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % port)
        time.sleep(1.2)
        received = 0
        with contextlib.suppress(ConnectionError):
            while part := client.recv(1 << 20):
                received += len(part)
        assert received < 20_000_000


def test_a_client_that_leaves_prints_nothing(port: int, capfd) -> None:
    host = b"Host: 127.0.0.1:%d\r\n" % port
    for content in (
        b"",
        b"POST /ask HTTP/1.1\r\n",
        b"POST /ask HTTP/1.1\r\n" + host + b"Content-Length: 900\r\n\r\nhalf",
        b"POST /ask HTTP/1.1\r\n" + host + b"Content-Length: 4\r\n\r\nslow",
        b"GET / HTTP/1.1\r\n" + host + b"\r\n",
    ):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(content)
            # leave with a reset, the rudest way
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    assert ask(port, "POST", "/ask", b"x")[0] == 200
    printed = capfd.readouterr()
    assert printed.out == printed.err == ""


def test_beyond_the_limit_is_told_to_come_back(page: Path, monkeypatch) -> None:
    monkeypatch.setattr(web, "AT_ONCE", 4)
    with web.serving(page, {"/ask": size_and_sum}) as port:
        answers = asyncio.run(all_at_once(port, [b"slow"] * 12))
        counts = Counter(status for status, _ in answers)
        assert counts == {200: 4, 503: 8}
        assert all(body.keys() == {"error"} for status, body in answers if status == 503)
        assert ask(port, "POST", "/ask", b"x")[0] == 200


def test_who_waits_too_long_for_a_turn_is_told_so(page: Path, monkeypatch) -> None:
    monkeypatch.setattr(web, "PATIENCE", 0.1)
    with web.serving(page, {"/ask": size_and_sum}) as port:
        answers = asyncio.run(all_at_once(port, [b"slow"] * 4))
        assert Counter(status for status, _ in answers) == {200: 1, 503: 3}


def test_large_bodies_lower_the_number_at_once() -> None:
    assert web.Door(None, 1, 250_000).at_once == web.AT_ONCE
    assert web.Door(None, 1, 16_000_000).at_once == 4
    assert web.Door(None, 1, 10**12).at_once == 1


async def all_at_once(port: int, bodies: list[bytes]) -> list[tuple[int, dict]]:
    """Open every connection, then send on all of them; status and answer of each."""
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in bodies]

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes):
        head = (
            f"POST /ask HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        answer = await asyncio.wait_for(reader.read(), 60)
        writer.close()
        head, _, content = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(content)

    return await asyncio.gather(*(one(*streams, body) for streams, body in zip(opened, bodies)))


def test_two_hundred_clients_at_once(port: int) -> None:
    """None lost, none wrong, and the second and third time take no more memory than the first."""
    bodies = [bytes([number % 256]) * (20_000 + number) for number in range(200)]
    expected = [(200, {"size": len(body), "sum": sum(body)}) for body in bodies]
    assert asyncio.run(all_at_once(port, bodies)) == expected
    # MiB; on Windows, which does not tell, only the answers are judged
    before = config._peak_memory() or 0
    for _ in range(2):
        assert asyncio.run(all_at_once(port, bodies)) == expected
    assert (config._peak_memory() or 0) - before < 20


def test_a_port_in_use_is_one_sentence(page: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        for port in (other.getsockname()[1], 70_000):
            with pytest.raises(LessonError, match="Try --port 0"):
                web.serve(page, {}, port=port)


@pytest.mark.skipif(os.name != "posix", reason="Windows has no SIGINT for one process")
def test_ctrl_c_ends_it_although_a_client_hangs_on(page: Path) -> None:
    script = (
        "from common import web; from pathlib import Path; "
        f"web.serve(Path({str(page)!r}), {{}}, port=0)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        cwd=ROOT,
    )
    line = process.stdout.readline()
    port = int(line.split(":")[2].split("/")[0])
    assert ask(port, "GET", "/")[0] == 200
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Length: 9\r\n\r\n" % port)
        time.sleep(0.1)
        process.send_signal(2)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0 and err == "" and "closed" in out


def test_only_the_loopback_address_listens(port: int) -> None:
    """127.0.0.2 is this machine too, and reaches a server that listens on all addresses."""
    with pytest.raises(OSError), socket.create_connection(("127.0.0.2", port), timeout=1):
        pass


def test_importing_it_costs_no_server() -> None:
    code = "import sys, common.web; print([n for n in ('fastapi', 'uvicorn') if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"
