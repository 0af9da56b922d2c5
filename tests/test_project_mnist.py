"""The digit reader as its user meets it: files that are not digits, a page in the browser, a kill in mid-training.

One tiny training serves all tests but the last, and is the one that test_lessons_run judges.
"""

import contextlib
import http.client
import io
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import start_engine
from PIL import Image
from test_lessons_run import JOBS

from common import checkpoint
from common.config import execute
from common.lessons import ROOT, load_lesson

project = load_lesson("phase03_pytorch/project-mnist")
CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1000,800",
)


def run(out: Path, *argv: str) -> int:
    return execute(
        project.run, project.Config, project.__doc__, ["--device", "cpu", "--out", str(out), *argv]
    )


@pytest.fixture(scope="module")
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the tiny run left that test_lessons_run judges: nothing is trained twice."""
    outcome = start_engine(request.config).result(JOBS["03/project-mnist"])
    assert outcome.code == 0, outcome
    return Path(shutil.copytree(outcome.out, tmp_path_factory.mktemp("trained") / "out"))


def grey(value: int, width: int, height: int) -> bytes:
    return png(Image.new("L", (width, height), value))


def png(picture: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


def huge_png() -> bytes:
    """Sixty bytes that claim 100,000 pixels a side: 30 GB once decoded."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9)))


def flower() -> bytes:
    from sklearn.datasets import load_sample_image

    return png(Image.fromarray(load_sample_image("flower.jpg")))


def scribble() -> Image.Image:
    """White paper with a black bar on it."""
    paper = np.full((100, 100), 255, dtype=np.uint8)
    paper[20:80, 45:55] = 0
    return Image.fromarray(paper)


def sentence(capsys: pytest.CaptureFixture) -> str:
    """What stands on stderr: one sentence and no trace."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and lines[0].endswith("."), lines
    return lines[0]


REFUSED = {
    "a text file": (lambda: b"seven", "not a readable PNG"),
    "an empty file": (lambda: b"", "not a readable PNG"),
    "a JPEG under another name": (lambda: png(scribble(), "JPEG"), "not a readable PNG"),
    "half a PNG": (lambda: png(scribble())[:90], "not a readable PNG"),
    "100,000 pixels a side": (huge_png, "too large. Make it 4096 pixels a side or less"),
    "5,000 by 10 pixels": (lambda: grey(255, 5000, 10), "too large"),
    "an empty page": (lambda: grey(255, 300, 300), "nothing drawn"),
    "one pixel": (lambda: grey(0, 1, 1), "nothing drawn"),
    "a photograph": (flower, "does not look like the mnist-5k pictures"),
    "no file": (None, "is not there. Give the path of a PNG"),
}


@pytest.mark.parametrize("content, expected", REFUSED.values(), ids=REFUSED)
def test_what_is_no_digit_gets_one_sentence(
    trained: Path, tmp_path: Path, capsys, content, expected: str
) -> None:
    before = {path.name: path.read_bytes() for path in trained.iterdir()}
    if content:
        (tmp_path / "it.png").write_bytes(content())
    assert run(trained, "--predict", str(tmp_path / "it.png")) == 1
    assert expected in sentence(capsys)
    assert {path.name: path.read_bytes() for path in trained.iterdir()} == before


def test_the_sample_is_read(trained: Path, capsys) -> None:
    code = run(trained, "--predict", str(trained / "sample.png"))
    best = capsys.readouterr().out.splitlines()[2]  # below the title and the mode
    assert code == 0 and best.split()[0] == "1"


@pytest.mark.parametrize("argv", [("--serve", "--port", "0"), ("--predict", "it.png")])
def test_before_training(tmp_path: Path, capsys, argv: tuple[str, ...]) -> None:
    assert run(tmp_path, *argv) == 1
    assert "holds no model yet. Train it first" in sentence(capsys)


@pytest.fixture
def server(trained: Path) -> Iterator[int]:
    """The page's port, as long as the test lasts."""
    with project.make_server(project.Config(out=trained, port=0)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def ask(
    port: int, method: str, path: str, body: bytes = b"", **headers: str
) -> tuple[int, dict | bytes]:
    """Status and answer. Headers as given: none is added but Host, and that only where it is not given."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.closing(connection):
        connection.putrequest(method, path, skip_host="Host" in headers, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders(body)
        answer = connection.getresponse()
        content = answer.read()
        return answer.status, json.loads(content) if answer.getheader(
            "Content-Type"
        ) == "application/json" else content


def predict(port: int, body: bytes, **headers: str) -> tuple[int, dict]:
    return ask(port, "POST", "/predict", body, **{"Content_Length": str(len(body))} | headers)


def test_the_server_answers(server: int, trained: Path) -> None:
    status, page = ask(server, "GET", "/")
    assert status == 200 and b"<canvas" in page
    status, answer = predict(server, (trained / "sample.png").read_bytes())
    assert status == 200 and answer["familiar"] and answer["classes"] == list("0123456789")
    assert sum(answer["chances"]) == pytest.approx(1) and np.argmax(answer["chances"]) == 1


def test_the_server_refuses(server: int) -> None:
    picture = png(scribble())
    refusals = {
        "another page": (404, ask(server, "GET", "/etc/passwd")),
        "a post elsewhere": (
            404,
            ask(server, "POST", "/", picture, Content_Length=str(len(picture))),
        ),
        "another site's name for this machine": (
            404,
            predict(server, picture, Host="evil.example"),
        ),
        "no length": (413, ask(server, "POST", "/predict")),
        "length 0": (413, predict(server, b"")),
        "a negative length": (413, predict(server, b"", Content_Length="-5")),
        "too long": (413, predict(server, b"", Content_Length="1000001")),
        "a length of 5,000 digits": (413, predict(server, b"", Content_Length="9" * 5000)),
        "no PNG": (400, predict(server, b"seven")),
        "100,000 pixels a side": (400, predict(server, huge_png())),
        "an empty page": (400, predict(server, grey(255, 280, 280))),
    }
    for what, (expected, (status, answer)) in refusals.items():
        assert status == expected and answer.keys() == {"error"}, (what, status, answer)
    assert predict(server, picture)[0] == 200  # and it is still there


def test_a_silent_client_blocks_nobody(server: int) -> None:
    with socket.create_connection(("127.0.0.1", server)):
        assert (
            predict(server, png(scribble()))[0] == 200
        )  # in less than the ten seconds that the silent one has


def test_a_silent_client_is_shown_out(server: int, monkeypatch) -> None:
    assert 0 < project.Page.timeout <= 30
    monkeypatch.setattr(project.Page, "timeout", 0.2)  # a test has no time for more
    for beginning in (
        b"",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nand no more",
    ):
        with socket.create_connection(("127.0.0.1", server), timeout=5) as silent:
            silent.sendall(beginning)
            assert silent.recv(1) == b""


def test_a_port_in_use(trained: Path, capsys) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert run(trained, "--serve", "--port", str(other.getsockname()[1])) == 1
    assert "Try --port 0" in sentence(capsys)
    assert run(trained, "--serve", "--port", "70000") == 1
    assert "Try --port 0" in sentence(capsys)


@pytest.fixture
def browser(tmp_path: Path, monkeypatch) -> Iterator:
    """Headless Chromium with a profile of its own; skips where there is none."""
    if not (CHROMIUM.exists() and DRIVER.exists()):
        pytest.skip("no Chromium on this machine")
    from selenium import webdriver

    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options, webdriver.ChromeService(str(DRIVER)))
    driver.set_script_timeout(10)
    yield driver
    driver.quit()


def test_drawing_in_the_browser(server: int, browser) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    def shares() -> list[str]:
        return browser.execute_script(
            "return [...document.querySelectorAll('#bars .share')].map(s => s.textContent)"
        )

    def said() -> str:
        return browser.find_element(By.ID, "say").text

    def mouse() -> ActionChains:
        return ActionChains(browser, duration=20)

    wait = WebDriverWait(browser, 10, poll_frequency=0.02).until
    browser.get(f"http://127.0.0.1:{server}/")
    welcome = said()
    assert shares() == [""] * 10
    mouse().move_to_element_with_offset(
        browser.find_element(By.ID, "paper"), -60, -80
    ).click_and_hold().perform()
    for _ in range(6):
        mouse().move_by_offset(20, 0).perform()
    wait(lambda _: any(shares()))
    bar = shares()
    assert said() != welcome  # an answer, and the mouse button is still held down
    for _ in range(8):
        mouse().move_by_offset(-8, 20).perform()
    wait(lambda _: shares() != bar)  # a bar became a seven: the answer moved with it
    mouse().release().perform()
    wait(lambda _: said() == "This looks like 7.")
    browser.find_element(By.ID, "clear").click()
    wait(lambda _: not any(shares()) and said() == welcome)
    blank = "const p = paper; return new Set(p.getContext('2d').getImageData(0, 0, p.width, p.height).data).size"
    assert browser.execute_script(blank) == 1
    assert not [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]


@pytest.mark.full
def test_kill_and_resume_gives_the_same_weights(tmp_path: Path) -> None:
    """kill -9 in the middle of training, then the same command with --resume."""

    def start(out: str, *argv: str) -> subprocess.Popen:
        script = ROOT / "phase03_pytorch" / "project-mnist.py"
        places = {name: str(tmp_path) for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME", "TMPDIR")}
        return subprocess.Popen(
            [
                sys.executable,
                script,
                "--tiny",
                "--epochs",
                "12",
                "--device",
                "cpu",
                "--out",
                tmp_path / out,
                *argv,
            ],
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env=os.environ | places | {"OMP_NUM_THREADS": "1"},
        )

    assert start("whole").communicate()[0] and (tmp_path / "whole" / "result.json").exists()
    with start("killed") as process:
        for line in process.stdout:
            if line.startswith("  epoch 5"):
                process.kill()
    assert not (tmp_path / "killed" / "result.json").exists()
    with start("killed", "--resume") as process:
        output = process.stdout.read()
    assert process.returncode == 0 and (
        "resumed after epoch 4" in output or "resumed after epoch 5" in output
    ), output
    whole, resumed = (
        checkpoint.load(tmp_path / out / "training-0.pt") for out in ("whole", "killed")
    )
    assert whole["history"] == resumed["history"] and len(whole["history"]) == 12
    for state in (whole, resumed):
        state["members"]["moments"] = state["members"]["optimizer"]["state"]
    for name in ("model", "moments", "batches"):
        torch.testing.assert_close(resumed["members"][name], whole["members"][name], rtol=0, atol=0)
