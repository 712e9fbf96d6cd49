"""Serves the review page of one rater: this machine only, a random port, a random token in the address.

A page of another site cannot read or answer it: requests need the token, the Host and Origin of this very server, and
JSON as content type; nothing is ever shared across origins. Knows nothing of files; verdicts go to a `Desk`.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any

from selfpriority.errors import WorkFailed
from selfpriority.review.desk import Desk, Refused

MOST_BYTES = 65_536
"""Of a request's body: a verdict needs a few hundred."""


@dataclass(frozen=True)
class Page:
    """The page and the policy that lets its own style and script run, and nothing else."""

    html: bytes
    policy: str


def _page() -> Page:
    folder = files("selfpriority") / "review"
    style, script, html = ((folder / f"review.{end}").read_text(encoding="utf-8") for end in ("css", "js", "html"))
    hashes = [base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in (style, script)]
    policy = (
        f"default-src 'none'; connect-src 'self'; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )
    return Page(html.replace("/*style*/", style).replace("/*script*/", script).encode(), policy)


class ReviewServer(ThreadingHTTPServer):
    """One rater's desk on the loopback interface."""

    daemon_threads = True

    def __init__(self, desk: Desk) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.desk = desk
        self.page = _page()
        self.token = secrets.token_urlsafe(24)
        self.failure: WorkFailed | None = None
        self._ended = threading.Event()

    @property
    def address(self) -> str:
        """What to open in a browser."""
        return f"http://127.0.0.1:{self.server_port}/{self.token}/"

    def wait(self) -> None:
        """Returns when a verdict could not be stored.

        Raises:
            WorkFailed: why it could not.
        """
        self._ended.wait()
        if self.failure is not None:
            raise self.failure

    def fail(self, error: WorkFailed) -> None:
        """Ends the waiting: without a disk there is nothing to go on with."""
        self.failure = error
        self._ended.set()

    @property
    def hosts(self) -> tuple[str, str]:
        """The only names this server answers to: another one is a site that points its own name here."""
        return f"127.0.0.1:{self.server_port}", f"localhost:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    server: ReviewServer
    server_version = "spa-review"
    sys_version = ""
    timeout = 30

    def do_GET(self) -> None:
        """The page, or a question."""
        place = self._place()
        if place is None:
            return
        if place == "":
            self._send(HTTPStatus.OK, self.server.page.html, "text/html; charset=utf-8")
        elif place == "next":
            self._json(self.server.desk.next())
        elif place.startswith("question/") and place.removeprefix("question/").isdecimal():
            self._answered(lambda: self.server.desk.question(int(place.removeprefix("question/"))))
        else:
            self._refuse(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        """A verdict."""
        place = self._place()
        if place is None:
            return
        length = self.headers.get("Content-Length", "")
        if self.headers.get_content_type() != "application/json":
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        elif not length.isdecimal() or len(length) > len(str(MOST_BYTES)) or int(length) > MOST_BYTES:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE if length.isdecimal() else HTTPStatus.LENGTH_REQUIRED)
        elif place != "verdict":
            self._refuse(HTTPStatus.NOT_FOUND)
        else:
            body = self.rfile.read(int(length))
            self._answered(lambda: self.server.desk.decide(json.loads(body)))

    def _place(self) -> str | None:
        """The path behind the token; None after a refusal."""
        origin, site = self.headers.get("Origin"), self.headers.get("Sec-Fetch-Site", "none")
        trusted = self.headers.get("Host") in self.server.hosts
        trusted = trusted and (origin is None or origin in [f"http://{host}" for host in self.server.hosts])
        token, slash, place = self.path.removeprefix("/").partition("/")
        known = hmac.compare_digest(token.encode(), self.server.token.encode())
        # a reader may follow a link to the page from anywhere, but only the page itself may ask for more
        own = site in ("same-origin", "none") or place == ""
        if trusted and known and slash and own:
            return place
        self._refuse(HTTPStatus.FORBIDDEN)
        return None

    def _answered(self, work: Any) -> None:
        try:
            self._json(work())
        except (Refused, ValueError, RecursionError) as error:  # what is not JSON, or too deep or long a number of it
            self._json({"error": str(error)}, HTTPStatus.BAD_REQUEST)
        except WorkFailed as error:
            self._json({"error": str(error)}, HTTPStatus.INSUFFICIENT_STORAGE)
            self.server.fail(error)

    def _json(self, value: object, status: HTTPStatus = HTTPStatus.OK) -> None:
        body = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
        self._send(status, body, "application/json; charset=utf-8")

    def _refuse(self, status: HTTPStatus) -> None:
        self.close_connection = True  # a body that was not read must not be taken for the next request
        self._send(status, status.phrase.encode(), "text/plain; charset=utf-8")

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("Content-Security-Policy", self.server.page.policy),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "DENY"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Cross-Origin-Opener-Policy", "same-origin"),
        ):
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # the reader has gone
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a log would carry the token."""


@contextlib.contextmanager
def serving(desk: Desk) -> Iterator[ReviewServer]:
    """A server that answers until the block ends."""
    with ReviewServer(desk) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
