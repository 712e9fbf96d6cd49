"""One POST to a chat-completions server until it is answered: connection, tries, and what follows from an error.

What an error means is in `server_errors.py`. The key goes into one header and nowhere else, and a server's error texts
are never passed on.
"""

from __future__ import annotations

import http.client
import io
import json
import random
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable
from typing import Any, TypeVar

from selfpriority.backends.proxies import proxy_handler, proxy_variable
from selfpriority.backends.server_errors import ServerError, error_inside, server_error
from selfpriority.errors import InputError, SelfPriorityError, WorkFailed
from selfpriority.language_model import Failure
from selfpriority.recipe import OpenaiBackend

T = TypeVar("T")

LONGEST_PAUSE = 60.0  # seconds
MOST_LOST = 3
"""Requests in a row that were given up, after which the server counts as gone."""
MOST_ODD = 10
"""Replies in a row that were refused, rejected or no chat completion, after which the server is doubted."""
MOST_GREETINGS = 3
GREETING = [{"role": "user", "content": "Say hello."}]
"""What a server that is doubted is asked: if it answers this, then its failures are those of the requests."""
MOST_BYTES = 64_000_000
"""Of one reply, unpacked."""
REMEDIES = {
    "max_tokens": "set backend.limit_field=max_completion_tokens",
    "max_completion_tokens": "set backend.limit_field=max_tokens",
    "seed": "set backend.leave_out=[seed]",
    "temperature": "set backend.leave_out=[temperature,top_p]: the server then samples as it likes",
    "top_p": "set backend.leave_out=[top_p]",
}
"""Refused parameter -> the field of the recipe that changes it."""


def key_variable(settings: OpenaiBackend) -> str | None:
    """The environment variable whose key is sent; a key meant for OpenAI goes to no other server unless told to."""
    at_home = urllib.parse.urlsplit(settings.base_url)[:2] == ("https", "api.openai.com")
    return settings.api_key_env or ("OPENAI_API_KEY" if at_home else None)


class Refusal(Exception):
    """The server answered that it does not answer this."""


class _Again(Exception):
    """This try failed; another may not."""

    def __init__(self, reason: str, detail: str, after: float = 0.0) -> None:
        super().__init__(detail)
        self.reason, self.detail, self.after = reason, detail, after


class _Unmoved(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: it would carry the key to whoever is named."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """None makes the redirect an error."""


class _Timed(io.RawIOBase):
    """What a socket receives, within its time-out in all: each single byte would begin a socket's own anew."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket, self._raw = sock, sock.makefile("rb", buffering=0)
        self._deadline = time.monotonic() + (sock.gettimeout() or 0.0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Reply(http.client.HTTPResponse):
    """A reply that is there in time, its status, its interim replies and its headers too."""

    def __init__(self, sock: socket.socket, *arguments: Any, **named: Any) -> None:
        super().__init__(sock, *arguments, **named)
        self.fp.close()
        self.fp = io.BufferedReader(_Timed(sock))


class _Connection(http.client.HTTPConnection):
    response_class = _Reply


class _SecureConnection(http.client.HTTPSConnection):
    response_class = _Reply


class _Http(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Connection, req)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_SecureConnection, req)


class Endpoint:
    """An address that requests are posted to, from several threads.

    Args:
        settings: address, key's variable, tries.
        model: for messages only.
        key: sent as a bearer token unless empty.
    """

    def __init__(self, settings: OpenaiBackend, model: str, key: str) -> None:
        self._settings, self._model, self._key = settings, model, key
        self._url = f"{settings.base_url.rstrip('/')}/chat/completions"
        self._opener = urllib.request.build_opener(_Unmoved, _Http, _Https, proxy_handler(self._url))
        self._lock, self._greeting = threading.Lock(), threading.Lock()
        self._answered = self._lost = self._odd = 0
        self._is_gone = False

    def post(self, body: dict[str, Any], read: Callable[[Any], T]) -> T | Failure:
        """What `read` makes of the reply to `body`, or why there is none.

        `read` raises KeyError, TypeError, IndexError or ValueError when the reply is not what it should be, and
        Refusal when the server declines. Rate limits, server errors, cut connections, silence and garbage are
        tried again; a request given up is a failure. Several of them in a row, or a refusal before any answer, are
        the server's own unless it still answers a greeting.

        Raises:
            InputError: wrong key, unknown model, wrong address, or nobody ever answered there.
            WorkFailed: the server has stopped answering.
        """
        outcome = self._tried(body, read, self._settings.retries)
        doubt = self._given_up(outcome) if isinstance(outcome, _Again) else self._counted(outcome)
        if doubt is not None:
            self._greet(doubt, body, read)
        return Failure(outcome.reason, outcome.detail) if isinstance(outcome, _Again) else outcome

    def _tried(self, body: dict[str, Any], read: Callable[[Any], T], retries: int) -> T | Failure | _Again:
        again = _Again("server_error", "not tried")
        for attempt in range(retries + 1):
            if attempt:
                time.sleep(self._pause(attempt, again.after))
            try:
                return self._try(body, read)
            except _Again as error:
                again = error
        return again

    def _counted(self, answer: object) -> SelfPriorityError | None:
        """Counts an answer, which ends a row of failures, or a failure of a request; returns what it gives to fear."""
        with self._lock:
            self._lost = 0
            if not isinstance(answer, Failure):
                self._answered, self._odd = self._answered + 1, 0
            elif answer.reason == "refused" and not self._answered:
                return InputError(
                    f"backend: {self._settings.base_url} refuses even a greeting ({answer.detail}); check the key, "
                    f"the account and backend.model"
                )
            elif answer.reason in ("refused", "rejected"):
                return self._odd_reply(answer.detail)
        return None

    def _given_up(self, again: _Again) -> SelfPriorityError | None:
        """Counts a request that no try brought through; returns what it gives to fear of the server."""
        where = f"backend: {self._settings.base_url}"
        tries = self._settings.retries + 1
        with self._lock:
            if again.reason == "garbage":
                return self._odd_reply(again.detail)
            self._lost += 1
            if self._answered == 0 and again.reason == "cut":
                return InputError(f"{where} {again.detail} ({tries} tries); is the server running, is base_url right?")
            if self._lost < MOST_LOST:
                return None
        return WorkFailed(
            f"{where} does not answer: {again.detail} ({tries} tries); all answers so far are kept and the same "
            f"command continues"
        )

    def _odd_reply(self, detail: str) -> WorkFailed | None:
        self._odd += 1
        if self._odd < MOST_ODD:
            return None
        return WorkFailed(
            f"backend: {self._settings.base_url} took none of the last {self._odd} requests ({detail}): that is "
            f"the server or the recipe, no single request; all answers so far are kept and the "
            f"same command continues"
        )

    def _greet(self, doubt: SelfPriorityError, body: dict[str, Any], read: Callable[[Any], T]) -> None:
        """Raises the doubt unless the server answers a greeting that is asked for in the same form as `body`."""
        answered = self._answered
        with self._greeting:
            if self._answered > answered:  # meanwhile another thread had an answer
                return
            one = {name: 1 if name == "n" else value for name, value in body.items()}
            said = None if self._is_gone else self._tried({**one, "messages": GREETING}, read, MOST_GREETINGS - 1)
            if self._is_gone or isinstance(said, Failure | _Again):
                self._is_gone = True
                raise doubt
            with self._lock:
                self._answered, self._lost, self._odd = self._answered + 1, 0, 0

    def _try(self, body: dict[str, Any], read: Callable[[Any], T]) -> T | Failure:
        try:
            raw = self._send(body)
        except urllib.error.HTTPError as error:
            with error:
                return self._refused(server_error(error.code, _words(error), dict(error.headers)))
        except TimeoutError:
            raise _Again("timeout", f"no reply within {self._settings.timeout:g} s") from None
        except urllib.error.URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise _Again("timeout", f"no reply within {self._settings.timeout:g} s") from None
            variable = proxy_variable(self._url)
            by = f" through the proxy that {variable} names (NO_PROXY leaves a host out)" if variable else ""
            raise _Again("cut", f"cannot be reached{by}: {error.reason}") from None
        except (http.client.HTTPException, ConnectionError, OSError) as error:
            raise _Again("cut", f"the connection was cut ({type(error).__name__})") from None
        try:
            reply = json.loads(raw)
            if (inside := error_inside(reply)) is not None:
                return self._refused(inside)
            return read(reply)
        except Refusal as refusal:
            return Failure("refused", str(refusal))
        except (KeyError, TypeError, IndexError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            raise _Again("garbage", f"the reply is not a chat completion ({type(error).__name__})") from None

    def _send(self, body: dict[str, Any]) -> bytes:
        headers = {"Content-Type": "application/json", "User-Agent": "selfpriority"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self._url, json.dumps(body).encode(), headers, method="POST")
        with self._opener.open(request, timeout=self._settings.timeout) as reply:
            data = _whole(reply)
            return _unpacked(data) if reply.headers.get("Content-Encoding", "").lower() == "gzip" else data

    def _refused(self, error: ServerError) -> Failure:
        """What follows from an error: a failure of this request, another try, or the end."""
        if error.kind == "again":
            limited = error.status == 429
            reason, detail = ("rate_limited", "too many requests (HTTP 429)") if limited else ("server_error", "")
            raise _Again(reason, detail or f"HTTP {error.status}", error.pause)
        if error.kind == "refused":
            return Failure("refused", f"the server's content filter (HTTP {error.status})")
        if error.kind == "too_long":
            return Failure("too_long", f"longer than the model's context (HTTP {error.status})")
        if error.kind == "rejected":
            return Failure("rejected", f"HTTP {error.status}")
        if error.kind == "form":
            return self._form_refused(error)
        raise self._end(error)

    def _form_refused(self, error: ServerError) -> Failure:
        """A parameter that no request could have brought through before, or else a rejection of this one."""
        remedy = REMEDIES.get(error.parameter)
        if remedy is not None and not self._answered:
            raise InputError(
                f"backend: {self._settings.base_url} does not take {error.parameter} as it is sent "
                f"(HTTP {error.status}); {remedy}"
            )
        return Failure("rejected", f"HTTP {error.status}: {error.parameter}")

    def _end(self, error: ServerError) -> InputError | WorkFailed:
        """The error that stops all work: of the account, the key, the model or the address."""
        status, url = error.status, self._settings.base_url
        if error.kind == "account":
            return WorkFailed(
                f"backend: {url} says that the account's money or quota is used up (HTTP {status}); all answers so far "
                f"are kept, and once that is mended the same command continues"
            )
        if error.kind == "model":
            return InputError(
                f"backend: {url} knows no model {self._model!r} (HTTP 404); check backend.model and base_url"
            )
        if error.kind == "moved":
            return InputError(f"backend: {url} points elsewhere (HTTP {status}); give the final address as base_url")
        variable = key_variable(self._settings)
        if variable is None:
            return InputError(
                f"backend: {url} wants a key (HTTP {status}); name the environment variable that holds it in "
                f"api_key_env, on the command line --api-key-env"
            )
        held = "is wrong or may not use this model" if self._key else "is not set"
        return InputError(f"backend: {url} refuses the key (HTTP {status}): ${variable} {held}")

    def _pause(self, attempt: int, wanted: float) -> float:
        """Seconds before a further try; spread, so that threads do not come back all at once."""
        doubled = self._settings.backoff * 2.0 ** (attempt - 1)
        return min(max(doubled * random.uniform(0.75, 1.25), wanted), LONGEST_PAUSE)


def _words(error: urllib.error.HTTPError) -> str:
    """The server's error as text, to look for known signs in; never shown."""
    try:
        raw = error.read(20_000)
        packed = error.headers.get("Content-Encoding", "").lower() == "gzip"
        return (_unpacked(raw) if packed else raw).decode("utf-8", "replace")
    except (http.client.HTTPException, OSError, _Again):
        return ""


def _whole(reply: http.client.HTTPResponse) -> bytes:
    """The body, within `MOST_BYTES`."""
    parts, size = [], 0
    while part := reply.read1(65_536):
        parts.append(part)
        size += len(part)
        if size > MOST_BYTES:
            raise _Again("garbage", f"the reply is longer than {MOST_BYTES:,} bytes")
    if reply.length:  # what was promised and did not come
        raise http.client.IncompleteRead(b"".join(parts), reply.length)
    return b"".join(parts)


def _unpacked(data: bytes) -> bytes:
    """The body out of its gzip, where it holds no more than `MOST_BYTES`."""
    stream = zlib.decompressobj(wbits=31)
    try:
        found = stream.decompress(data, MOST_BYTES)
    except zlib.error as error:
        raise _Again("garbage", "the reply is not the gzip it says it is") from error
    if stream.unconsumed_tail:
        raise _Again("garbage", f"the reply is longer than {MOST_BYTES:,} bytes")
    return found
