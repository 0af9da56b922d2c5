"""A page on this machine for a demo: a lesson gives the page and functions, this gives the door.

    web.serve(page, {"/predict": function}, port=8000)

GET / is answered with the page. POST /predict hands the body, as bytes, to the function, and is
answered with the dict that it returns, as JSON. Whatever goes wrong is answered with
{"error": "a sentence"}; a LessonError that the function raises becomes such an answer, status 400.

Only this machine is let in, and only the page itself. Bodies, time and numbers are bounded; for
pictures `common.data.images.open_picture` reads the size first. FastAPI and uvicorn are imported
inside functions: who serves nothing does not pay.
"""

import asyncio
import contextlib
import json
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import LessonError

if TYPE_CHECKING:
    from fastapi import FastAPI
    from uvicorn import Server

Functions = Mapping[str, Callable[[bytes], dict]]

# Requests that wait or are answered at the same time; one more is told to come back (503).
AT_ONCE = 256
# Bytes that all bodies together may hold: large bodies lower AT_ONCE.
ALL_BODIES = 64_000_000
# Open connections, also those that have not asked anything yet; one more is cut.
CONNECTIONS = 1024
# Seconds a client has for its headers, and again for its body.
ARRIVAL = 10.0
# Seconds a request waits for its turn.
PATIENCE = 30.0
# Seconds after which a connection is cut, whatever it is doing.
LIFE = 120.0

NAMES = ("127.0.0.1", "localhost")
HEADERS = (
    (b"connection", b"close"),  # one question a connection, so that its time can be bounded
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)


def serve(page: Path, functions: Functions, *, port: int, max_bytes: int = 250_000) -> None:
    """Serve until Ctrl-C, on the loopback address only. Raises LessonError if the port is taken."""
    listener = _listen(port)
    server = _server(page, functions, listener, max_bytes)
    address = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    print(f"Open {address} in a browser   (Ctrl-C ends it)", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
    print("\nThe page is closed.")


@contextlib.contextmanager
def serving(page: Path, functions: Functions, *, max_bytes: int = 250_000) -> Iterator[int]:
    """The same in a thread, on any free port, as long as the block lasts; yields the port."""
    listener = _listen(0)
    server = _server(page, functions, listener, max_bytes)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


class Refused(Exception):
    """An answer that is given at the door."""

    def __init__(self, status: int, sentence: str):
        super().__init__(sentence)
        self.status = status


class Door:
    """What every request passes before the app sees it (ASGI): who asks, how much, how long."""

    def __init__(self, app: "FastAPI", port: int, max_bytes: int):
        self.app = app
        self.max_bytes = max_bytes
        self.at_once = max(1, min(AT_ONCE, ALL_BODIES // max_bytes))
        self.inside = 0
        self.hosts = {f"{name}:{port}" for name in NAMES}
        if port == 80:
            self.hosts.update(NAMES)

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        self.inside += 1
        send = _with_headers(send)
        try:
            body = await self.admit(dict(scope["headers"]), receive)
            if body is not None:
                await self.app(scope, _again(body, receive), send)
        except Refused as refused:
            await _error(refused.status, str(refused))(scope, receive, send)
        finally:
            self.inside -= 1

    async def admit(self, headers: dict[bytes, bytes], receive: Callable) -> bytes | None:
        """The body; None if the client has left. Raises Refused."""
        refused = self.refusal(headers)
        try:
            async with asyncio.timeout(ARRIVAL):
                body, size = await self.read(receive, keep=refused is None)
        except TimeoutError:
            raise Refused(408, f"the request took longer than {ARRIVAL:g} s to arrive") from None
        if body is not None and refused:
            raise refused
        if size > self.max_bytes:
            raise Refused(413, f"the request is too large: send {self.max_bytes:,} bytes at most")
        return body

    def refusal(self, headers: dict[bytes, bytes]) -> Refused | None:
        # The name: a foreign site can point its own name at this machine (DNS rebinding).
        host = headers.get(b"host", b"").decode("latin-1")
        # The origin: any page in the browser can send requests here; only ours is answered.
        origin = headers.get(b"origin", b"").decode("latin-1")
        if host not in self.hosts or (origin and origin.removeprefix("http://") not in self.hosts):
            return Refused(403, "this page answers only to itself, on this machine")
        if self.inside > self.at_once:
            return Refused(503, "too many questions at once; ask again in a moment")
        return None

    async def read(self, receive: Callable, keep: bool) -> tuple[bytes | None, int]:
        """The body (None: the client has left) and its size.

        What is refused is read on for a while and thrown away: a client that is still sending
        when the connection closes never sees the answer.
        """
        parts = []
        size = 0
        while size <= 20 * self.max_bytes:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None, 0
            size += len(message["body"])
            if keep and size <= self.max_bytes:
                parts.append(message["body"])
            else:
                parts.clear()
            if not message["more_body"]:
                break
        return b"".join(parts), size


def make_app(page: Path, functions: Functions) -> "FastAPI":
    """GET / is the page, POST to a name calls its function; every error has the one shape."""
    from fastapi import FastAPI, Request, Response
    from fastapi.concurrency import run_in_threadpool
    from starlette.exceptions import HTTPException

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    # One function at a time: a model uses every core by itself, and memory stays that of one.
    turn = asyncio.Lock()

    async def show_page() -> Response:
        return Response(page.read_bytes(), media_type="text/html; charset=utf-8")

    app.add_api_route("/", show_page, methods=["GET"], response_class=Response)

    def route(function: Callable[[bytes], dict]) -> Callable:
        async def answer(request: Request) -> Response:
            body = await request.body()
            try:
                await asyncio.wait_for(turn.acquire(), PATIENCE)
            except TimeoutError:
                return _error(503, f"no turn within {PATIENCE:g} s; ask again in a moment")
            try:
                if await request.is_disconnected():
                    return Response(status_code=204)
                result = await run_in_threadpool(function, body)
            finally:
                turn.release()
            return _json(200, result)

        return answer

    for path, function in functions.items():
        app.add_api_route(path, route(function), methods=["POST"], response_class=Response)

    async def by_lesson(request: Request, error: LessonError) -> Response:
        return _error(400, str(error))

    async def by_router(request: Request, error: HTTPException) -> Response:
        return _error(error.status_code, f"{request.method} {request.url.path}: {error.detail}")

    async def by_fault(request: Request, error: Exception) -> Response:
        # The trace is for whoever started the server, not for who asked.
        traceback.print_exception(error, limit=-3, file=sys.stderr)
        return _error(
            500, f"the server's own code failed ({type(error).__name__}); see its terminal"
        )

    app.add_exception_handler(LessonError, by_lesson)
    app.add_exception_handler(HTTPException, by_router)
    app.add_exception_handler(Exception, by_fault)
    return app


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port), backlog=CONNECTIONS)
    except (OSError, OverflowError) as error:
        raise LessonError(
            f"port {port} cannot be used ({error}). Try --port 0: any free one."
        ) from None


def _server(page: Path, functions: Functions, listener: socket.socket, max_bytes: int) -> "Server":
    import uvicorn

    config = uvicorn.Config(
        Door(make_app(page, functions), listener.getsockname()[1], max_bytes),
        http=_connection_class(),
        ws="none",
        lifespan="off",
        # One line per stroke of a pen would drown the terminal.
        log_config=None,
        log_level="critical",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=CONNECTIONS,
        timeout_graceful_shutdown=1,
    )
    return uvicorn.Server(config)


def _connection_class() -> type:
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Connection(H11Protocol):
        """uvicorn's own, but it ends: uvicorn waits for ever for headers that do not come."""

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self.timers = [
                self.loop.call_later(ARRIVAL, self.cut_if_silent),
                self.loop.call_later(LIFE, transport.abort),
            ]
            if len(self.connections) > CONNECTIONS:
                transport.abort()

        def cut_if_silent(self) -> None:
            if self.cycle is None:
                self.transport.abort()

        def connection_lost(self, error: Exception | None) -> None:
            for timer in self.timers:
                timer.cancel()
            super().connection_lost(error)

        def send_400_response(self, message: str) -> None:
            body = json.dumps({"error": "this is not HTTP"}).encode()
            lines = [
                b"HTTP/1.1 400 Bad Request",
                b"content-type: application/json",
                b"content-length: %d" % len(body),
                *(b": ".join(header) for header in HEADERS),
            ]
            self.transport.write(b"\r\n".join(lines) + b"\r\n\r\n" + body)
            self.transport.close()

    return Connection


def _json(status: int, content: dict) -> Any:
    from fastapi.responses import JSONResponse

    return JSONResponse(content, status)


def _error(status: int, sentence: str) -> Any:
    return _json(status, {"error": sentence})


def _with_headers(send: Callable) -> Callable:
    async def send_with_headers(message: dict) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *HEADERS]
        await send(message)

    return send_with_headers


def _again(body: bytes, receive: Callable) -> Callable:
    """An ASGI `receive` that gives the body, which was read already, and then goes on as before."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> dict:
        return waiting.pop() if waiting else await receive()

    return receive_again
