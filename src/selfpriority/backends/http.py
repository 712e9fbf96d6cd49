"""One POST to a chat-completions server until it is answered: tries, and what each error means.

The key goes into one header and nowhere else. The server's error texts are never passed on: they may quote the
request, which may be harmful, or the key.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any, TypeVar

from selfpriority.errors import InputError, WorkFailed
from selfpriority.language_model import Failure
from selfpriority.recipe import OpenaiBackend

T = TypeVar("T")

LONGEST_PAUSE = 60.0  # seconds
MOST_LOST = 3
"""Requests in a row that were given up, after which the server counts as gone."""
_FILTER = ("content_filter", "content_policy", "content policy", "responsibleai", "content management policy")
_TOO_LONG = ("context_length", "context length", "too long", "maximum context", "too many tokens")


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
        self._opener = urllib.request.build_opener(_Unmoved)
        self._lock = threading.Lock()
        self._answered = self._lost = 0

    def post(self, body: dict[str, Any], read: Callable[[Any], T]) -> T | Failure:
        """What `read` makes of the reply to `body`, or why there is none.

        `read` raises KeyError, TypeError, IndexError or ValueError when the reply is not what it should be, and
        Refusal when the server declines. Rate limits, server errors, cut connections, silence and garbage are
        tried again; a request given up is a failure, and `MOST_LOST` of them in a row are the server's end.

        Raises:
            InputError: wrong key, unknown model, wrong address, or nobody ever answered there.
            WorkFailed: the server has stopped answering.
        """
        again = _Again("server_error", "not tried")
        for attempt in range(self._settings.retries + 1):
            if attempt:
                time.sleep(self._pause(attempt, again.after))
            try:
                answer = self._try(body, read)
            except _Again as error:
                again = error
                continue
            with self._lock:
                self._answered, self._lost = self._answered + 1, 0
            return answer
        return self._given_up(again)

    def _try(self, body: dict[str, Any], read: Callable[[Any], T]) -> T | Failure:
        try:
            raw = self._send(body)
        except urllib.error.HTTPError as error:
            with error:
                return self._refused(error.code, _told(error), error.headers.get("Retry-After"))
        except TimeoutError:
            raise _Again("timeout", f"no reply within {self._settings.timeout:g} s") from None
        except urllib.error.URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise _Again("timeout", f"no reply within {self._settings.timeout:g} s") from None
            raise _Again("cut", f"cannot be reached: {error.reason}") from None
        except (http.client.HTTPException, ConnectionError, OSError) as error:
            raise _Again("cut", f"the connection was cut ({type(error).__name__})") from None
        try:
            return read(json.loads(raw))
        except Refusal as refusal:
            return Failure("refused", str(refusal))
        except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
            raise _Again("garbage", f"the reply is not a chat completion ({type(error).__name__})") from None

    def _send(self, body: dict[str, Any]) -> bytes:
        headers = {"Content-Type": "application/json", "User-Agent": "selfpriority"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self._url, json.dumps(body).encode(), headers, method="POST")
        with self._opener.open(request, timeout=self._settings.timeout) as reply:
            data: bytes = reply.read()
            return data

    def _refused(self, status: int, told: str, retry_after: str | None) -> Failure:
        """What an HTTP error means: a failure of this request, another try, or the end."""
        name, url = self._model, self._settings.base_url
        known = told.lower()
        if any(sign in known for sign in _FILTER):
            return Failure("refused", f"the server's content filter (HTTP {status})")
        if status in (401, 403):
            variable = key_variable(self._settings)
            if variable is None:
                raise InputError(
                    f"backend: {url} wants a key (HTTP {status}); name the environment variable that holds it in "
                    f"api_key_env, on the command line --api-key-env"
                )
            held = "is wrong or may not use this model" if self._key else "is not set"
            raise InputError(f"backend: {url} refuses the key (HTTP {status}): ${variable} {held}")
        if status == 404:
            raise InputError(f"backend: {url} knows no model {name!r} (HTTP 404); check backend.model and base_url")
        if 300 <= status < 400:
            raise InputError(f"backend: {url} points elsewhere (HTTP {status}); give the final address as base_url")
        if "insufficient_quota" in known:
            raise WorkFailed(f"backend: {url} says that the account's quota is used up; all answers so far are kept")
        if status == 429:
            raise _Again("rate_limited", "too many requests (HTTP 429)", _seconds(retry_after))
        if status in (408, 409, 425) or status >= 500:
            raise _Again("server_error", f"HTTP {status}", _seconds(retry_after))
        if any(sign in known for sign in _TOO_LONG):
            return Failure("too_long", f"longer than the model's context (HTTP {status})")
        return Failure("rejected", f"HTTP {status}")

    def _pause(self, attempt: int, wanted: float) -> float:
        """Seconds before a further try; spread, so that threads do not come back all at once."""
        doubled = self._settings.backoff * 2.0 ** (attempt - 1)
        return min(max(doubled * random.uniform(0.75, 1.25), wanted), LONGEST_PAUSE)

    def _given_up(self, again: _Again) -> Failure:
        with self._lock:
            self._lost += 1
            never, gone = self._answered == 0, self._lost >= MOST_LOST
        where = f"backend: {self._settings.base_url}"
        tries = self._settings.retries + 1
        if never and again.reason == "cut":
            raise InputError(f"{where} {again.detail} ({tries} tries); is the server running, is base_url right?")
        if gone:
            raise WorkFailed(
                f"{where} does not answer: {again.detail} ({tries} tries); all answers so far are kept and the same "
                f"command continues"
            )
        return Failure(again.reason, again.detail)


def _told(error: urllib.error.HTTPError) -> str:
    """The server's error as text, to look for known signs in; never shown."""
    try:
        return error.read(20_000).decode("utf-8", "replace")
    except (http.client.HTTPException, OSError):
        return ""


def _seconds(retry_after: str | None) -> float:
    """Seconds that a server asks to wait; dates and nonsense are 0."""
    try:
        return max(0.0, float(retry_after or 0.0))
    except ValueError:
        return 0.0
