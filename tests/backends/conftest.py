"""A chat-completions server on this machine that behaves as it is told, reply by reply."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from selfpriority.recipe import OpenaiBackend


@dataclass
class Reply:
    """What the server does with one request: an HTTP reply, or something worse."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut: bool = False
    """Promise a long body, send half a line and hang up."""
    drip: float = 0.0
    """Seconds between two bytes of the body."""


@dataclass
class Server:
    """Where it is, and what it was sent."""

    base_url: str
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)

    def settings(self, **changes: Any) -> OpenaiBackend:
        given = {"kind": "openai", "base_url": self.base_url, "backoff": 0.01, "timeout": 5, **changes}
        return OpenaiBackend.model_validate(given)


def chat(*texts: str, finish: str = "stop", **more: Any) -> Reply:
    """A good reply with one choice a text."""
    choices = [
        {"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": finish, **more}
        for i, text in enumerate(texts)
    ]
    return Reply({"choices": choices, "usage": {"completion_tokens": 7 * len(texts)}})


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    """`serving(respond)`: starts a server whose reply to the n-th request is `respond(body, n)`."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    running: list[ThreadingHTTPServer] = []

    def start(respond: Callable[[dict[str, Any], int], Reply]) -> Server:
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    server.bodies.append({"path": self.path, **body})
                    server.keys.append(self.headers.get("Authorization"))
                    number = len(server.bodies)
                send(self, respond(body, number))

            def log_message(self, *_: Any) -> None:
                pass

        http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        http.handle_error = lambda *_: None  # type: ignore[method-assign] # a client that gave up is part of the test
        running.append(http)
        server = Server(f"http://127.0.0.1:{http.server_address[1]}/v1")
        threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return server

    yield start
    for http in running:
        http.shutdown()
        http.server_close()


def send(handler: BaseHTTPRequestHandler, reply: Reply) -> None:
    time.sleep(reply.delay)
    body = reply.body if isinstance(reply.body, str | bytes) else json.dumps(reply.body)
    data = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
    handler.send_response(reply.status)
    for name, value in reply.headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(data) + 1000 * reply.cut))
    handler.end_headers()
    for byte in data if reply.drip else ():
        handler.wfile.write(bytes([byte]))
        time.sleep(reply.drip)
    handler.wfile.write(b"" if reply.drip else data)
    if reply.cut:
        handler.wfile.flush()
        linger = struct.pack("ii", 1, 0)  # a reset, as when a machine in between goes away
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        handler.connection.close()
