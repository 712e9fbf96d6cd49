"""One POST to a chat-completions server until it is answered: tries, and what follows from an error.

What an error means is in `server_errors.py`, how bytes come and go in `transport.py`. A server's error texts are never
passed on.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
import urllib.parse
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from selfpriority.backends.ending import Ending
from selfpriority.backends.pace import Pace
from selfpriority.backends.server_errors import ServerError, error_inside, pause_wanted, server_error
from selfpriority.backends.transport import Reply, Transport, Unanswered
from selfpriority.backends.usage import Usage
from selfpriority.errors import InputError, SelfPriorityError, WorkFailed
from selfpriority.language_model import Failure
from selfpriority.recipe import OpenaiBackend
from selfpriority.records import Message

T = TypeVar("T")
Json = dict[str, Any]

LONGEST_PAUSE = 60.0
"""Seconds; a longer one only where the server asks for it and the time for all tries allows it."""
USUAL_IN_ALL = 1800.0
"""Seconds for all tries of a request, at least, where the recipe does not say."""
MOST_LOST = 3
"""Requests in a row that were given up, after which the server counts as gone."""
MOST_ODD = 10
"""Replies in a row that were refused, rejected or no chat completion, after which the server is doubted."""
MOST_GREETINGS = 3
GREETING = [{"role": "user", "content": "Say hello."}]
"""What a server that is doubted is asked: if it answers this, then its failures are those of the requests."""
OVERLOADED = frozenset({429, 503, 529})
"""Statuses that say that fewer requests should be under way."""
PASSING = frozenset({408, 409, 425, 429})
"""Statuses below 500 of the moment; 501 is none, for it says that there is no such thing here."""
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


def time_in_all(settings: OpenaiBackend) -> float:
    """Seconds for all tries of a request; unless the recipe says, each of them has its whole time."""
    tries = settings.timeout * (settings.retries + 1) + LONGEST_PAUSE * settings.retries
    return max(USUAL_IN_ALL, tries) if settings.timeout_in_all is None else settings.timeout_in_all


class Refusal(Exception):
    """The server answered that it does not answer this."""


@dataclass(frozen=True)
class Address:
    """Who is asked."""

    settings: OpenaiBackend
    model: str
    key: str

    @property
    def url(self) -> str:
        """What requests are posted to."""
        return f"{self.settings.base_url.rstrip('/')}/chat/completions"


def chat_body(address: Address, messages: Sequence[Message], max_new_tokens: int, **parameters: object) -> Json:
    """What is posted, without the parameters that the recipe leaves out."""
    settings = address.settings
    turns = [{"role": message.role, "content": message.content} for message in messages]
    sent = {name: value for name, value in parameters.items() if name not in settings.leave_out}
    return {"model": address.model, "messages": turns, settings.limit_field: max_new_tokens, **sent}


@dataclass
class Standing:
    """What is known of a server over all calls."""

    pace: Pace
    usage: Usage
    answered: int = 0
    lost: int = 0
    """Requests given up since the last answer."""
    odd: int = 0
    """Replies in a row of which nothing came."""
    is_gone: bool = False


@dataclass(frozen=True)
class _Again:
    """This try failed; another may not."""

    reason: str
    detail: str
    after: float = 0.0
    """Seconds that the server asks to wait."""
    is_overload: bool = False
    n_tries: int = 1


class Endpoint:
    """An address that requests are posted to, several at once, in one event loop.

    Args:
        address: who is asked.
        transport: open connections to it.
        standing: what is known of it; changed here.
        ending: once it is over, no request is posted again.
    """

    def __init__(self, address: Address, transport: Transport, standing: Standing, ending: Ending) -> None:
        self._settings, self._model, self._key = address.settings, address.model, address.key
        self._transport, self._standing, self.ending = transport, standing, ending
        self._greeting = asyncio.Lock()

    @property
    def place(self) -> Pace:
        """What every post is made within: `async with endpoint.place`."""
        return self._standing.pace

    async def post(self, body: Json, read: Callable[[Any], T]) -> T | Failure:
        """What `read` makes of the reply to `body`, or why there is none.

        `read` raises KeyError, TypeError, IndexError or ValueError when the reply is not what it should be, and
        Refusal when the server declines. Rate limits, server errors, cut connections, silence and garbage are
        tried again; a request given up is a failure. Several of them in a row, or a refusal before any answer, are
        the server's own unless it still answers a greeting.

        Raises:
            InputError: wrong key, unknown model, wrong address, or nobody ever answered there.
            WorkFailed: the server has stopped answering.
        """
        outcome = await self._posted(body, read, self._settings.retries)
        if isinstance(outcome, _Again) and self.ending.is_over:  # it was not tried to the end
            return Failure(outcome.reason, outcome.detail)
        doubt = self._given_up(outcome) if isinstance(outcome, _Again) else self._counted(outcome)
        if doubt is not None:
            await self._greet(doubt, body, read)
        return Failure(outcome.reason, outcome.detail) if isinstance(outcome, _Again) else outcome

    async def once(self, body: Json, read: Callable[[Reply, Any], T]) -> T | Failure:
        """One try of what the work does not wait for: whatever goes wrong is a failure, and counts for nothing."""
        try:
            reply = await self._transport.post(json.dumps(body).encode(), self._settings.timeout)
            outcome = self._read(reply, lambda said: read(reply, said))
        except (Unanswered, SelfPriorityError) as error:
            return Failure("unsupported", str(error))
        return Failure(outcome.reason, outcome.detail) if isinstance(outcome, _Again) else outcome

    async def beside(self, method: str, url: str, body: Json | None, seconds: float) -> Json | None:
        """The object that the server answers at another of its addresses; None where it says that it answers none.

        What may pass is tried again as a post is: what is read from here decides how all else is asked.

        Raises:
            InputError: nobody ever answered there.
            WorkFailed: it does not say.
        """
        raw = None if body is None else json.dumps(body).encode()
        found = await self._tried(
            lambda left: self._transport.ask(method, url, raw, min(seconds, left)), _object, self._settings.retries
        )
        if not isinstance(found, _Again):
            return found
        if not self._standing.answered and found.reason == "cut":
            raise self._nobody(found)
        raise WorkFailed(
            f"backend: {url} does not answer: {found.detail} ({found.n_tries} tries), and how ratings are asked for "
            f"depends on it; all answers so far are kept and the same command continues"
        )

    async def _posted(self, body: Json, read: Callable[[Any], T], retries: int) -> T | Failure | _Again:
        """The outcome of the last try of a post."""
        raw, seconds = json.dumps(body).encode(), self._settings.timeout
        return await self._tried(
            lambda left: self._transport.post(raw, min(seconds, left)), lambda reply: self._read(reply, read), retries
        )

    async def _tried(
        self, send: Callable[[float], Awaitable[Reply]], read: Callable[[Reply], T | _Again], retries: int
    ) -> T | _Again:
        """The outcome of the last try, within the time for all of them; `send` is told what is left of it."""
        until = time.monotonic() + time_in_all(self._settings)
        again = _Again("server_error", "not tried")
        for attempt in range(retries + 1):
            if attempt:
                pause = self._pause(attempt, again.after, until - time.monotonic())
                if time.monotonic() + pause >= until:
                    break
                await self.ending.sleep(pause)
            sent = time.monotonic()
            if attempt and (self.ending.is_over or sent >= until):  # a sleep may last longer than it should
                break
            outcome = await self._try(send(until - sent), read, attempt + 1)
            if not isinstance(outcome, _Again):
                return outcome
            again = outcome
            if again.is_overload:
                self._standing.pace.refused(sent)
        return again

    def _counted(self, answer: object) -> SelfPriorityError | None:
        """Counts an answer, which ends a row of failures, or a failure of a request; returns what it gives to fear."""
        standing = self._standing
        standing.lost = 0
        standing.pace.answered()
        if not isinstance(answer, Failure):
            standing.answered, standing.odd = standing.answered + 1, 0
        elif answer.reason == "refused" and not standing.answered:
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
        tries, standing = again.n_tries, self._standing
        if again.reason == "garbage":
            return self._odd_reply(again.detail)
        standing.lost += 1
        if standing.answered == 0 and again.reason == "cut":
            return self._nobody(again)
        if standing.lost < MOST_LOST:
            return None
        return WorkFailed(
            f"{where} does not answer: {again.detail} ({tries} tries); all answers so far are kept and the same "
            f"command continues"
        )

    def _nobody(self, again: _Again) -> InputError:
        return InputError(
            f"backend: {self._settings.base_url} {again.detail} ({again.n_tries} tries); is the server running, is "
            f"base_url right?"
        )

    def _odd_reply(self, detail: str) -> WorkFailed | None:
        self._standing.odd += 1
        if self._standing.odd < MOST_ODD:
            return None
        return WorkFailed(
            f"backend: {self._settings.base_url} took none of the last {self._standing.odd} requests ({detail}): that "
            f"is the server or the recipe, no single request; all answers so far are kept and the "
            f"same command continues"
        )

    async def _greet(self, doubt: SelfPriorityError, body: Json, read: Callable[[Any], T]) -> None:
        """Raises the doubt unless the server answers a greeting that is asked for in the same form as `body`."""
        standing = self._standing
        answered = standing.answered
        async with self._greeting:
            if standing.answered > answered:  # meanwhile another request had an answer
                return
            one = {name: 1 if name == "n" else value for name, value in body.items()}
            greeting = {**one, "messages": GREETING}
            said = None if standing.is_gone else await self._posted(greeting, read, MOST_GREETINGS - 1)
            if isinstance(said, _Again) and self.ending.is_over:  # it had no time to answer
                return
            if standing.is_gone or isinstance(said, Failure | _Again):
                standing.is_gone = True
                raise doubt
            standing.answered, standing.lost, standing.odd = standing.answered + 1, 0, 0

    async def _try(self, sent: Awaitable[Reply], read: Callable[[Reply], T | _Again], number: int) -> T | _Again:
        try:
            outcome = read(await sent)
        except Unanswered as error:
            # a server that queues never says no: it falls silent
            outcome = _Again(error.reason, error.detail, is_overload=error.reason == "timeout")
        return replace(outcome, n_tries=number) if isinstance(outcome, _Again) else outcome

    def _read(self, reply: Reply, read: Callable[[Any], T]) -> T | Failure | _Again:
        """What a reply says: an answer, a failure of the request, or that another try may help."""
        if reply.status >= 300:
            return self._refused(server_error(reply.status, reply.data.decode("utf-8", "replace"), reply.headers))
        try:
            said = json.loads(reply.data)
            if (inside := error_inside(said)) is not None:
                return self._refused(inside)
            self._standing.usage.add(said)
            return read(said)
        except Refusal as refusal:
            return Failure("refused", str(refusal))
        except (KeyError, TypeError, IndexError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            return _Again("garbage", f"the reply is not a chat completion ({type(error).__name__})")

    def _refused(self, error: ServerError) -> Failure | _Again:
        """What follows from an error: a failure of this request, another try, or the end."""
        if error.kind == "again":
            limited = error.status == 429
            reason, detail = ("rate_limited", "too many requests (HTTP 429)") if limited else ("server_error", "")
            pause = error.pause if error.is_asked else min(error.pause, LONGEST_PAUSE)
            return _Again(reason, detail or f"HTTP {error.status}", pause, error.status in OVERLOADED)
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
        if remedy is not None and not self._standing.answered:
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

    def _pause(self, attempt: int, wanted: float, left: float) -> float:
        """Seconds before a further try; spread, so that requests do not come back all at once."""
        doubled = self._settings.backoff * 2.0 ** (attempt - 1)
        named = wanted if wanted < left else min(wanted, LONGEST_PAUSE)
        return max(min(doubled * random.uniform(0.75, 1.25), LONGEST_PAUSE), named)


def _object(reply: Reply) -> Json | _Again | None:
    """The object in a reply beside the protocol; None where the server says that it has none."""
    if reply.status in PASSING or (reply.status >= 500 and reply.status != 501):
        return _Again("server_error", f"HTTP {reply.status}", min(pause_wanted(reply.headers), LONGEST_PAUSE))
    try:
        found = json.loads(reply.data) if reply.status < 300 else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
