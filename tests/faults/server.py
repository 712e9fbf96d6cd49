"""A chat-completions server on loopback whose answers are a function of the request, behind every fault of the field.

What a request is answered, or whether it is refused, depends on its body alone; a fault only comes before. So a run
against a faulty server has to end as one against a good one.
"""

from __future__ import annotations

import hashlib
import json
import socket
import struct
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from selfpriority.backends.http import GREETING

KINDS = ("429 with seconds or a date", "5xx", "time-out", "half a body", "garbage", "nothing said")
"""Each befalls a tenth of the requests, the first one or two times that they are sent."""
REFUSED = 0.1
WORDS = "a careful answer says what is safe and why it helps you now so take time to read it all".split()  # noqa: SIM905


@dataclass(frozen=True)
class Break:
    """After how many answers the whole service breaks, until somebody mends it."""

    answered: int
    kind: str
    """`402`, or `killed`: nobody listens any more."""


@dataclass
class Service:
    """The server, and all that must outlive it.

    Args:
        faults: whether requests meet faults.
        breaks: what stops the service, in order.
        timeout: seconds after which whoever asks gives up.
    """

    faults: bool
    breaks: list[Break] = field(default_factory=list)
    timeout: float = 1.5
    n_requests: int = 0
    greetings: int = 0
    met: Counter[str] = field(default_factory=Counter)
    """Fault -> how often it was dealt."""
    settled: Counter[str] = field(default_factory=Counter)
    """Body -> how often it was answered or refused for good."""
    broken: str = ""
    _port: int = 0
    _sent: Counter[str] = field(default_factory=Counter)
    _http: ThreadingHTTPServer | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    def start(self) -> None:
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                service.handle(self)

            def log_message(self, *_: Any) -> None:
                pass

        class Listening(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_: Any) -> None:
                """Who asked has given up, as it should."""

        self._http = Listening(("127.0.0.1", self._port), Handler)
        self._port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http = None

    def mend(self) -> None:
        """The account is paid, or the server started again, at its old address."""
        if self.broken == "killed":
            self.start()
        self.broken = ""

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        raw = handler.rfile.read(int(handler.headers["Content-Length"]))
        body = json.loads(raw)
        if body["messages"] == GREETING:
            self.greetings += 1
            if not self.broken:
                reply(handler, {"choices": [choice("Hello!", "stop")]})
                return
        with self._lock:
            self.n_requests += 1
            fault = self._fault(raw.decode())
            (self.met if fault else self.settled)[fault or raw.decode()] += 1
        FAULTS[fault](handler, self) if fault else answer(handler, body)

    def _fault(self, body: str) -> str:
        """What befalls this sending of a body; empty where it is answered."""
        if self.breaks and self.settled.total() >= self.breaks[0].answered:
            self.broken = self.breaks.pop(0).kind
            if self.broken == "killed":
                threading.Thread(target=self.stop, daemon=True).start()
        if self.broken or not self.faults:
            return self.broken
        self._sent[body] += 1
        number = int(share("fault", body) * 10)
        is_due = number < len(KINDS) and self._sent[body] <= 1 + (share("twice", body) < 0.3)
        return KINDS[number] if is_due else ""


def share(*content: object) -> float:
    """A number in [0, 1), uniform over contents."""
    return int.from_bytes(hashlib.sha256(repr(content).encode()).digest()[:6], "big") / 2**48


def choice(text: str | None, finish: str) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": text}, "finish_reason": finish}


def answer(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    """The answers to a body, one of them where another server would give all, or its refusal in one of three forms."""
    messages = json.dumps(body["messages"])
    refusal = share("refused", messages) / REFUSED
    if refusal < 1 / 3:
        reply(handler, {"error": {"message": "Your input was flagged by moderation"}}, 403)
    elif refusal < 2 / 3:
        reply(handler, {"error": {"code": "content_filter", "message": "content management policy"}}, 400)
    elif refusal < 1:
        reply(handler, {"choices": [choice(None, "content_filter")] * body.get("n", 1)})
    elif "logprobs" in body:
        top = [{"token": str(digit), "logprob": -5 * share("digit", messages, digit) - 1.5} for digit in range(10)]
        logprobs = {"content": [{"token": "7", "logprob": -1.0, "top_logprobs": top}]}
        reply(handler, {"choices": [{**choice("7", "length"), "logprobs": logprobs}]})
    else:
        n = 1 if share("one a reply", messages) < 0.5 else body["n"]
        choices = [written(messages, body["seed"], number) for number in range(n)]
        reply(handler, {"choices": choices, "usage": {"completion_tokens": 9 * n}})


def written(messages: str, seed: int, number: int) -> dict[str, Any]:
    if "Rating: <number>" in messages:
        return choice(f"It says so.\nRating: {1 + int(share('rating', messages) * 10)}", "stop")
    words = [WORDS[int(share(messages, seed, number, i) * len(WORDS))] for i in range(8)]
    return choice(" ".join(words), "length" if share(messages, seed, number) < 0.1 else "stop")


def reply(handler: BaseHTTPRequestHandler, body: Any, status: int = 200, **headers: str) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(data)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(data)


def limited(handler: BaseHTTPRequestHandler, service: Service) -> None:
    after = "0.2" if service.n_requests % 2 else formatdate(time.time() + 1, usegmt=True)
    reply(handler, {"error": {"message": "Rate limit reached"}}, 429, Retry_After=after)


def failing(handler: BaseHTTPRequestHandler, service: Service) -> None:
    reply(handler, b"upstream is gone", (500, 502, 503, 529)[service.n_requests % 4])


def silent(handler: BaseHTTPRequestHandler, service: Service) -> None:
    time.sleep(service.timeout + 0.2)


def half(handler: BaseHTTPRequestHandler, service: Service) -> None:
    reply(handler, b'{"choices": [{"mess', Content_Length="5000")
    hang_up(handler, service)


def garbled(handler: BaseHTTPRequestHandler, service: Service) -> None:
    reply(handler, (b"<html>a proxy's page</html>", b'{"choices": 7}', b"[" * 50_000)[service.n_requests % 3])


def empty(handler: BaseHTTPRequestHandler, service: Service) -> None:
    reply(handler, (b"", {"choices": []}, {"choices": [choice(None, "stop")]})[service.n_requests % 3])


def unpaid(handler: BaseHTTPRequestHandler, service: Service) -> None:
    reply(handler, {"error": {"message": "Insufficient Balance"}}, 402)


def hang_up(handler: BaseHTTPRequestHandler, service: Service) -> None:
    handler.wfile.flush()
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
    handler.connection.close()


FAULTS = {
    **dict(zip(KINDS, (limited, failing, silent, half, garbled, empty), strict=True)),
    "402": unpaid,
    "killed": hang_up,
}
