"""Replies without end, in time or in size: each try has a time and a size in all. Raw sockets, no HTTP server."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from selfpriority.backends.openai import OpenaiModel
from selfpriority.language_model import Completion, Failure, Generate, Text, ask
from selfpriority.recipe import OpenaiBackend
from selfpriority.records import Message

GOOD = json.dumps({"choices": [{"message": {"content": "Hi."}, "finish_reason": "stop"}]}).encode()
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
TIMEOUT = 0.6
QUESTION = Generate((Message("user", "Hello?"),), n=1, temperature=0.7, top_p=0.9, max_new_tokens=20, seed=5)


@pytest.fixture
def speaking(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., OpenaiModel]]:
    """`speaking(parts, pause)`: a model behind a server that sends those bytes, a pause after each, to everybody."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    over = threading.Event()
    listeners: list[socket.socket] = []

    def start(parts: Callable[[], Iterator[bytes]], pause: float = 0.0, timeout: float = TIMEOUT) -> OpenaiModel:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def talk(connection: socket.socket) -> None:
            with connection:
                asked = part = b"-"
                while part and not asked.endswith(b"}"):  # what is left unread would be answered by a reset
                    part = connection.recv(65_536)
                    asked += part
                try:
                    for part in parts():
                        connection.sendall(part)
                        if over.wait(pause):
                            return
                except OSError:  # whoever asked has given up, as it should
                    return

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:  # closed
                    return
                threading.Thread(target=talk, args=(connection,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        return OpenaiModel("m", OpenaiBackend(kind="openai", base_url=url, retries=0, backoff=0.01, timeout=timeout))

    yield start
    over.set()
    for listener in listeners:
        listener.close()


def endless(part: bytes) -> Callable[[], Iterator[bytes]]:
    def parts() -> Iterator[bytes]:
        while True:
            yield part

    return parts


def begun(head: bytes, part: bytes) -> Callable[[], Iterator[bytes]]:
    def parts() -> Iterator[bytes]:
        yield head
        yield from endless(part)()

    return parts


@pytest.mark.parametrize(
    ("parts", "pause"),
    [
        (begun(HEAD + b"Content-Length: 100000\r\n\r\n", b"x"), 0.1),
        (begun(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"), 0.1),
        (begun(HEAD + b"\r\n", b" "), 0.1),
        (begun(HEAD + b"X-Slow: ", b"x"), 0.1),
        (begun(b"HTTP/1.1 2", b"0"), 0.1),
        (begun(b"HTTP/1.1 503 Busy\r\nContent-Length: 10000\r\n\r\n", b"x"), 0.1),
        (endless(b"HTTP/1.1 100 Continue\r\n\r\n"), 0.01),
        (endless(b"HTTP/1.1 100 Continue\r\n\r\n"), 0.0),
        (endless(b"HTTP/1.1 100 Continue\r\nX-More: 1\r\n\r\n"), 0.1),
        (lambda: iter([b"", HEAD]), 9.0),
    ],
    ids=[
        "body", "chunks", "body until the end", "header", "status", "body of an error", "100 Continue",
        "100 Continue at full speed", "100 Continue with headers", "silence",
    ],
)  # fmt: skip
def test_each_try_has_a_time_in_all(speaking, parts, pause):
    began = time.monotonic()
    (answer,) = ask(speaking(parts, pause), [QUESTION])
    assert isinstance(answer, Failure)
    assert answer.reason in ("timeout", "server_error")
    assert TIMEOUT / 2 < time.monotonic() - began < 6 * TIMEOUT


def packed(data: bytes) -> bytes:
    return HEAD + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(data)


@pytest.mark.parametrize(
    "parts",
    [
        begun(HEAD + b"Content-Length: 900000000000\r\n\r\n", b" " * 4_000_000),
        begun(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"3D0900\r\n" + b" " * 4_000_000 + b"\r\n"),
        begun(HEAD + b"\r\n", b" " * 4_000_000),
        lambda: iter([packed(b" " * 65_000_000)]),
        lambda: iter([packed(gzip.compress(b" " * 65_000_000))]),
        lambda: iter([HEAD + b"Content-Encoding: gzip\r\n\r\nno gzip at all"]),
    ],
    ids=["a length", "chunks", "until the end", "gzip bomb", "gzip in gzip", "no gzip"],
)
def test_each_reply_has_a_size_in_all(speaking, parts):
    (answer,) = ask(speaking(parts, timeout=60.0), [QUESTION])
    assert isinstance(answer, Failure)
    assert answer.reason == "garbage"


def test_a_slow_reply_that_is_whole_in_time_is_read(speaking):
    def parts() -> Iterator[bytes]:
        yield b"HTTP/1.1 100 Continue\r\n\r\n"
        yield HEAD + b"Content-Length: %d\r\n\r\n" % len(GOOD)
        half = len(GOOD) // 2
        yield from (GOOD[:half], GOOD[half:])

    assert ask(speaking(parts, 0.05, timeout=20.0), [QUESTION]) == [Completion((Text("Hi.", 0, "end"),))]
