"""A server that speaks the protocol of OpenAI's chat completions: answers Generate and Choose.

Knows requests and replies; how a reply comes about (connection, tries) is in `http.py`. The only file that reads a
key, from the environment. Weights behind an address may change without notice: the fingerprint holds address and
name, no content.
"""

from __future__ import annotations

import json
import math
import os
import queue
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from selfpriority.backends.http import Endpoint, Refusal, key_variable
from selfpriority.errors import InputError, SelfPriorityError
from selfpriority.language_model import Answer, Choice, Choose, Completion, Failure, Generate, Request, Text
from selfpriority.outside import sound
from selfpriority.recipe import OpenaiBackend
from selfpriority.records import Message, Stop

TOP_LOGPROBS = 20
"""The most that the protocol gives: a choice outside the 20 most probable tokens counts as 0."""

ENDS = frozenset({"stop", "end", "eos", "eos_token", "end_turn", "stop_sequence", "complete", "finished"})
"""What servers call it when the model ended its turn by itself; in lower case."""
FILTERS = frozenset(
    {"content_filter", "safety", "recitation", "prohibited_content", "blocklist", "spii", "refusal", "sensitive"}
)
"""What they call it when a filter did."""
THINKING = ("reasoning_content", "reasoning", "thinking")
"""Fields that hold what a model thought before it answered."""
ROUNDING = 1e-3
"""A log-probability may lie so far above 0 by rounding."""
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
                reply = self._endpoint.post(self._draws(request, len(given)), _texts)
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
            body = self._body(context, 1, temperature=0.0, logprobs=True, top_logprobs=TOP_LOGPROBS)
            n_missing = len(request.contexts) - len(rows)
            try:
                reply = self._endpoint.post(body, _next_tokens)
            except SelfPriorityError as error:
                raise _Stopped(error, Choice(tuple(rows), (STOPPED,) * n_missing) if rows else STOPPED) from error
            if reply is None or (isinstance(reply, Failure) and reply.reason == "rejected"):
                return self._without_probabilities()
            if isinstance(reply, Failure):
                return Choice(tuple(rows), (reply,) * n_missing) if rows else reply
            self._gave_probabilities = True
            rows.append(
                tuple(min(1.0, sum(p for token, p in reply if token.strip() == choice)) for choice in request.choices)
            )
        return Choice(tuple(rows))

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


def _texts(reply: Any) -> list[Text | Failure]:
    """The texts of a reply, a failure for each that a filter kept back; KeyError, TypeError or ValueError if none."""
    texts: list[Text | Failure] = []
    for choice in reply["choices"]:
        try:
            _check_refusal(choice)
        except Refusal as refusal:
            texts.append(Failure("refused", str(refusal)))
            continue
        texts.append(_text(choice, _n_tokens(reply)))
    if not texts:
        raise ValueError("the reply holds no choice")
    return texts


def _text(choice: Any, n_tokens: int) -> Text:
    """What the assistant said, and what it thought: a text, or a list of parts, or thinking in a field of its own.

    Neither a text nor any thinking is no answer: ValueError.
    """
    message = choice["message"]
    content = message.get("content")
    thoughts = [message[name] for name in THINKING if isinstance(message.get(name), str)][:1]
    if isinstance(content, list):
        thoughts += [_joined(part["thinking"]) for part in content if part.get("type") == "thinking"]
        content = _joined(content)
    if content is None and any(thoughts):
        content = ""
    if not isinstance(content, str):
        raise ValueError("the message has no text")
    written, thinking = (sound(text) for text in (content, "\n\n".join(thoughts)))
    return Text.of(written, n_tokens, _stop(choice), thinking=thinking)


def _joined(parts: Any) -> str:
    """A text, or the text parts of a list."""
    return parts if isinstance(parts, str) else "".join(p["text"] for p in parts if p.get("type", "text") == "text")


def _n_tokens(reply: Any) -> int:
    """Tokens of one choice, as far as the server counts; 0 where it does not, or counts what no number is."""
    try:
        counted = int((reply.get("usage") or {}).get("completion_tokens") or 0)
    except (TypeError, ValueError, OverflowError, AttributeError):
        return 0
    return max(0, counted) // max(1, len(reply["choices"]))


def _stop(choice: Any) -> Stop:
    """`end` where the server says that the model ended its turn; anything unknown is no end, or it would be trained."""
    return "end" if str(choice.get("finish_reason")).lower() in ENDS else "length"


def _next_tokens(reply: Any) -> list[tuple[str, float]] | None:
    """(token, probability) of the most probable first tokens; None where the server gives none.

    Raises:
        ValueError: a log-probability that is none (not a number, or above 0), or a reply that says nothing.
    """
    choice = reply["choices"][0]
    _check_refusal(choice)
    given = (choice.get("logprobs") or {}).get("content")
    if not given or not given[0].get("top_logprobs"):
        _text(choice, 0)  # a reply that says nothing at all says nothing of probabilities either
        return None
    return [(_spelled(entry), _probability(entry["logprob"])) for entry in given[0]["top_logprobs"]]


def _spelled(entry: Any) -> str:
    """A token as text; some servers give its bytes, or the tokenizer's own spelling of the space before it."""
    token = entry.get("token")
    if token is None:
        token = bytes(entry["bytes"]).decode("utf-8", "replace")
    return str(token).replace("\u2581", " ").replace("\u0120", " ")


def _probability(logprob: Any) -> float:
    value = float(logprob)
    if math.isnan(value) or value > ROUNDING:
        raise ValueError(f"{value} is no log-probability")
    return min(1.0, math.exp(value))


def _check_refusal(choice: Any) -> None:
    if str(choice.get("finish_reason")).lower() in FILTERS:
        raise Refusal("the server's content filter kept the answer back")
    if choice["message"].get("refusal"):
        raise Refusal("the server declined to answer")
