"""A real HTTP server on loopback that speaks chat completions, well or badly, by a script."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

Step = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class ChatServer:
    """What the server is to do, request by request (the last step goes on), and what it was asked."""

    script: list[Step] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def answers(self, text: object, **fields: object) -> Step:
        """A well-formed completion with this content, and further fields of the body."""
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        body = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], **fields}
        return self.sends(json.dumps(body).encode())

    def says_no(self, message: str, *, status: int, code: str | None = None, **headers: str) -> Step:
        """An error as OpenAI words it."""
        error = {"message": message, "type": "error", "param": None, "code": code}
        return self.sends(json.dumps({"error": error}).encode(), status=status, **headers)

    def by_schema(self, structured: Step, plain: Step) -> Step:
        """One step where the request holds a schema, another where it holds none."""

        def step(handler: BaseHTTPRequestHandler) -> None:
            (structured if "response_format" in handler.asked else plain)(handler)  # type: ignore[attr-defined]

        return step

    def sends(self, body: bytes, *, status: int = 200, **headers: str) -> Step:
        """Any body, with any status and headers (underscores as hyphens)."""

        def step(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            handler.send_header("Content-Type", "application/json")
            handler.send_header("Content-Length", str(len(body)))
            for name, value in headers.items():
                handler.send_header(name.replace("_", "-"), value)
            handler.end_headers()
            handler.wfile.write(body)

        return step

    def hangs(self) -> Step:
        """No answer until the test is over."""
        return lambda handler: self.released.wait(20) and None

    def drips(self, *, pause: float) -> Step:
        """A body that never ends, a byte at a time."""

        def step(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.end_headers()
            while not self.released.wait(pause):
                handler.wfile.write(b" ")
                handler.wfile.flush()

        return step

    def drips_headers(self, *, pause: float) -> Step:
        """An answer that never begins, a byte at a time."""

        def step(handler: BaseHTTPRequestHandler) -> None:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while not self.released.wait(pause):
                handler.wfile.write(b"x")
                handler.wfile.flush()

        return step

    def breaks_off(self) -> Step:
        """A body shorter than announced."""

        def step(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.send_header("Content-Length", "1000")
            handler.end_headers()
            handler.wfile.write(b'{"choices": [')

        return step


@pytest.fixture
def chat_server() -> Iterator[ChatServer]:
    """A running server whose ``script`` the test writes."""
    server = ChatServer()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.asked = body
            with lock:
                server.times.append(time.monotonic())
                server.requests.append(body)
                server.headers.append({name.lower(): value for name, value in self.headers.items()})
                step = server.script.pop(0) if len(server.script) > 1 else server.script[0]
            # The client may go away first, as some tests want it to.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                step(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.released.set()
        http.shutdown()
        thread.join()
