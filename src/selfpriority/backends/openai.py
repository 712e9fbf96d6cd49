"""A server that speaks the protocol of OpenAI's chat completions: answers Generate and Choose.

Knows requests and replies; how a reply comes about (connection, tries) is in `http.py`. The only file that reads a
key, from the environment. Weights behind an address may change without notice: the fingerprint holds address and
name, no content.
"""

from __future__ import annotations

import json
import os
import queue
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from selfpriority.backends.http import Endpoint, key_variable
from selfpriority.backends.replies import Position, positions, texts_of
from selfpriority.errors import InputError, SelfPriorityError
from selfpriority.language_model import Answer, Choice, Choose, Completion, Failure, Generate, Request, Text
from selfpriority.recipe import OpenaiBackend
from selfpriority.records import Message

TOP_LOGPROBS = 20
"""The most that the protocol gives: a choice outside the 20 most probable tokens counts as 0."""

SPACE_FIRST = 0.5
"""Where bare spaces hold more of the probability, the choice stands behind them."""
STOPPED = Failure("cut", "the work was stopped")

Json = dict[str, Any]


class _Stopped(Exception):
    """The work ends here; some of a request's draws or contexts came before."""

    def __init__(self, error: SelfPriorityError, came: Answer) -> None:
        super().__init__(str(error))
        self.error, self.came = error, came


class OpenaiModel:
    """A chat model behind an address.

    Args:
        name: what the model is called, unless the settings name it.
        settings: address, key's variable, concurrency, tries.

    Raises (while answering):
        InputError: wrong key, unknown model or address, nobody there, or no token probabilities for a `Choose`.
        WorkFailed: the server stopped answering; what was answered has been yielded.
    """

    def __init__(self, name: str, settings: OpenaiBackend) -> None:
        self._settings = settings
        self._name = settings.model or name
        self._endpoint = Endpoint(settings, self._name, _key(key_variable(settings)))
        self._takes_many = True  # until the server refuses n > 1
        self._gave_probabilities = False

    @property
    def fingerprint(self) -> str:
        """Address and name."""
        return openai_fingerprint(self._name, self._settings)

    def plan(self, requests: Sequence[Request]) -> list[list[int]]:
        """Every request alone, so that each answer is kept as soon as it is there."""
        return [[i] for i in range(len(requests))]

    def answer(self, batches: Sequence[Sequence[Request]]) -> Iterator[tuple[int, list[Answer]]]:
        """Batches as they finish, `concurrency` at once; after an error those under way are still yielded."""
        waiting = deque(enumerate(batches))
        finished: queue.SimpleQueue[tuple[int, list[Answer] | Exception]] = queue.SimpleQueue()

        def work() -> None:
            while waiting:
                try:
                    number, batch = waiting.popleft()
                except IndexError:  # another thread was faster
                    return
                try:
                    finished.put((number, [self._answer(request) for request in batch]))
                except _Stopped as stopped:
                    waiting.clear()
                    if len(batch) == 1:
                        finished.put((number, [stopped.came]))
                    finished.put((number, stopped.error))
                except Exception as error:  # raised again in the caller's thread
                    waiting.clear()
                    finished.put((number, error))

        # daemons: an interrupt must not wait for a server's silence
        threads = [
            threading.Thread(target=work, daemon=True) for _ in range(min(self._settings.concurrency, len(batches)))
        ]
        for thread in threads:
            thread.start()
        try:
            yield from _collected(finished, threads)
        finally:
            waiting.clear()

    def _answer(self, request: Request) -> Answer:
        match request:
            case Generate():
                return self._generate(request)
            case Choose():
                return self._choose(request)
            case _:
                return Failure("unsupported", "an endpoint shows no hidden states and classifies nothing")

    def _generate(self, request: Generate) -> Answer:
        if request.max_new_tokens < 1 or not request.messages:
            return Failure("empty", "nothing to answer")
        given: list[Text | Failure] = []
        while len(given) < request.n:
            missing = request.n - len(given)
            try:
                reply = self._endpoint.post(self._draws(request, len(given)), texts_of)
            except SelfPriorityError as error:
                raise _Stopped(error, _completion([*given, *[STOPPED] * missing])) from error
            if isinstance(reply, Failure) and reply.reason == "rejected" and self._takes_many and missing > 1:
                self._takes_many = False
            elif isinstance(reply, Failure):  # of the request: another draw would fare no better
                given += [reply] * missing
            else:
                given += reply[:missing]
        return _completion(given)

    def _draws(self, request: Generate, n_given: int) -> Json:
        """The body that asks for those draws of a request that are not there yet."""
        return self._body(
            request.messages,
            request.max_new_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            n=request.n - n_given if self._takes_many else 1,
            seed=request.seed + n_given,
        )

    def _choose(self, request: Choose) -> Answer:
        rows: list[tuple[float, ...]] = []
        for context in request.contexts:
            n_missing = len(request.contexts) - len(rows)
            try:
                reply = self._first_words(context)
            except SelfPriorityError as error:
                raise _Stopped(error, Choice(tuple(rows), (STOPPED,) * n_missing) if rows else STOPPED) from error
            if reply is None or (isinstance(reply, Failure) and reply.reason == "rejected"):
                return self._without_probabilities()
            if isinstance(reply, Failure):
                return Choice(tuple(rows), (reply,) * n_missing) if rows else reply
            rows.append(tuple(min(1.0, sum(p for word, p in reply if word == choice)) for choice in request.choices))
        return Choice(tuple(rows))

    def _first_words(self, context: Sequence[Message]) -> list[tuple[str, float]] | Failure | None:
        """(token without the space before it, probability) of what an answer may begin with; None: not given.

        Where the model begins with a bare space, as SentencePiece has it before a digit, the token behind it counts
        too, as probable as both together; only then is the server asked for two tokens.
        """
        reply = self._positions(context, 1)
        if reply is None or isinstance(reply, Failure):
            return reply
        self._gave_probabilities = True
        if sum(p for word, p in reply[0].words if not word) <= SPACE_FIRST:
            return reply[0].words
        longer = self._positions(context, 2)
        if longer is None or isinstance(longer, Failure):
            return longer
        if len(longer) < 2 or not longer[0].is_space:
            return reply[0].words
        p_space = longer[0].probability(longer[0].token)
        return [*longer[0].words, *((word, p_space * p) for word, p in longer[1].words)]

    def _positions(self, context: Sequence[Message], n: int) -> list[Position] | Failure | None:
        body = self._body(context, n, temperature=0.0, logprobs=True, top_logprobs=TOP_LOGPROBS)
        return self._endpoint.post(body, positions)

    def _without_probabilities(self) -> Failure:
        """Never an answer of another kind in its place: a written rating is another measure."""
        if self._gave_probabilities:
            return Failure("unsupported", "this reply came without token probabilities")
        raise InputError(
            f"backend: {self._name} at {self._settings.base_url} gives no token probabilities, which expected ratings "
            f"are read from; set method: verbal, and the judge is asked to write its rating"
        )

    def _body(self, messages: Sequence[Message], max_new_tokens: int, **parameters: object) -> Json:
        turns = [{"role": message.role, "content": message.content} for message in messages]
        limit: Json = {self._settings.limit_field: max_new_tokens}
        sent = {name: value for name, value in parameters.items() if name not in self._settings.leave_out}
        return {"model": self._name, "messages": turns, **limit, **sent}


def openai_fingerprint(name: str, settings: OpenaiBackend) -> str:
    """What stands for the content of a model behind an address, and for how it is asked where that is not the usual."""
    known = [settings.base_url.rstrip("/"), settings.model or name, *sorted(settings.leave_out)]
    return f"openai-1 {json.dumps(known)}"


def _key(variable: str | None) -> str:
    """The key in an environment variable; empty if it is not set."""
    key = os.environ.get(variable, "").strip() if variable else ""
    if not (key.isascii() and key.isprintable()):  # the error of whoever sends it would quote it
        raise InputError(f"backend: ${variable} holds characters that no key has")
    return key


def _collected(
    finished: queue.SimpleQueue[tuple[int, list[Answer] | Exception]], threads: Sequence[threading.Thread]
) -> Iterator[tuple[int, list[Answer]]]:
    """What the threads finish until all have ended; then the first error, if there was one."""
    failed: Exception | None = None
    while True:
        running = any(thread.is_alive() for thread in threads)  # asked first: what ends later is still in the queue
        try:
            number, outcome = finished.get(timeout=0.1 if running else 0.0)
        except queue.Empty:
            if not running:
                break
            continue
        if isinstance(outcome, Exception):
            failed = failed or outcome
        else:
            yield number, outcome
    if failed is not None:
        raise failed


def _completion(given: Sequence[Text | Failure]) -> Completion | Failure:
    """What was paid for is kept."""
    texts = tuple(text for text in given if isinstance(text, Text))
    failures = tuple(failure for failure in given if isinstance(failure, Failure))
    return Completion(texts, failures) if texts else failures[0]
