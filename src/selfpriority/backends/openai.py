"""A server that speaks the protocol of OpenAI's chat completions: answers Generate and Choose.

Brings requests to an event loop and answers back; what is sent is in `questions.py`, how a reply comes about in
`http.py`. The only file that reads a key, from the environment. Weights behind an address may change without notice:
the fingerprint holds address and name, no content.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import chain, islice

from selfpriority.backends.abilities import Abilities, Probe
from selfpriority.backends.background import Background
from selfpriority.backends.ending import Ending
from selfpriority.backends.http import Address, Endpoint, Standing, key_variable
from selfpriority.backends.pace import Pace
from selfpriority.backends.questions import Questions, Stopped
from selfpriority.backends.transport import Transport
from selfpriority.backends.usage import Usage
from selfpriority.errors import InputError, SelfPriorityError
from selfpriority.language_model import Answer, Request
from selfpriority.recipe import OpenaiBackend

PROBED_FROM = 32
"""Requests of one call that are worth a greeting, to see what the server can do, and a line of what they cost."""


@dataclass(frozen=True)
class _Answered:
    """A batch, by its number."""

    number: int
    answers: list[Answer]


class OpenaiModel:
    """A chat model behind an address.

    Args:
        name: what the model is called, unless the settings name it.
        settings: address, key's variable, concurrency, tries.
        note: told in one line what the server can do, and what was read and written there.

    Raises (while answering):
        InputError: wrong key, unknown model or address, nobody there, or no token probabilities for a `Choose`.
        WorkFailed: the server stopped answering; what was answered has been yielded.
    """

    def __init__(self, name: str, settings: OpenaiBackend, note: Callable[[str], None] = lambda text: None) -> None:
        self._settings = settings
        self._name = settings.model or name
        self._note = note
        self._address = Address(settings, self._name, _key(key_variable(settings)))
        self._standing = Standing(Pace(settings.concurrency), Usage())
        self._abilities = Abilities()
        self._told_requests = 0

    @property
    def fingerprint(self) -> str:
        """Address and name."""
        return openai_fingerprint(self._name, self._settings)

    @property
    def usage(self) -> Usage:
        """What the server says that it read and wrote, since this was opened."""
        return self._standing.usage

    @property
    def most_under_way(self) -> int:
        """The most requests that were under way at once."""
        return self._standing.pace.most_under_way

    def reads_exactly(self, choices: tuple[str, ...]) -> bool:
        """Whether just these choices' probabilities are asked for; the server is asked once.

        Raises:
            InputError: nobody ever answered there.
            WorkFailed: it does not say.
        """
        if choices not in self._abilities.ids:
            call = _Call(self._address, self._standing, self._abilities, self._note)
            list(Background[None](lambda _, is_ending: call.learned(choices, is_ending)).results())
        return bool(self._abilities.ids[choices])

    def plan(self, requests: Sequence[Request]) -> list[list[int]]:
        """Every request alone, so that each answer is kept as soon as it is there."""
        return [[i] for i in range(len(requests))]

    def answer(self, batches: Sequence[Sequence[Request]]) -> Iterator[tuple[int, list[Answer]]]:
        """Batches as they finish, several at once; after an error those under way are still yielded."""
        if not batches:
            return
        call = _Call(self._address, self._standing, self._abilities, self._note)
        work = Background[_Answered](lambda hand_on, is_ending: call.made(batches, hand_on, is_ending))
        try:
            for answered in work.results():
                yield answered.number, answered.answers
        finally:
            self._tell()

    def _tell(self) -> None:
        """What was read and written, once it is worth a line."""
        usage = self._standing.usage
        if usage.requests - self._told_requests < PROBED_FROM:
            return
        self._told_requests = usage.requests
        unseen = self._abilities.told_unseen()
        self._note(
            f"backend: {self._address.settings.base_url}: so far {usage.told(self._address.settings.prices)}"
            f"{'; ' if unseen else ''}{unseen}"
        )


class _Call:
    """One call of `answer`, in its event loop."""

    def __init__(self, address: Address, standing: Standing, abilities: Abilities, note: Callable[[str], None]) -> None:
        self._address, self._standing, self._abilities, self._note = address, standing, abilities, note
        self._error: Exception | None = None

    async def made(
        self,
        batches: Sequence[Sequence[Request]],
        hand_on: Callable[[_Answered], None],
        is_ending: Callable[[], bool],
    ) -> None:
        """Asks all batches; then raises the first error, if there was one."""
        self._standing.pace.begin()
        async with self._connected(is_ending) as (endpoint, probe):
            questions = Questions(self._address, endpoint, probe)
            await questions.prepare(chain.from_iterable(batches))
            telling = asyncio.create_task(self._told(probe, len(batches)))
            under_way: set[asyncio.Task[None]] = set()
            try:
                await self._begin(questions, batches, hand_on, under_way)
                await asyncio.gather(*under_way)
            finally:
                for task in (telling, *under_way):
                    task.cancel()
                await asyncio.gather(telling, *under_way, return_exceptions=True)
        if self._error is not None:
            raise self._error

    async def learned(self, choices: tuple[str, ...], is_ending: Callable[[], bool]) -> None:
        """Asks nothing but how such choices are asked for."""
        async with self._connected(is_ending) as (_, probe):
            await probe.ids_of(choices)

    @asynccontextmanager
    async def _connected(self, is_ending: Callable[[], bool]) -> AsyncIterator[tuple[Endpoint, Probe]]:
        async with Transport(self._address.url, self._address.key, self._address.settings.concurrency) as transport:
            endpoint = Endpoint(self._address, transport, self._standing, Ending(is_ending))
            yield endpoint, Probe(self._address, endpoint, self._abilities)

    async def _begin(
        self,
        questions: Questions,
        batches: Sequence[Sequence[Request]],
        hand_on: Callable[[_Answered], None],
        under_way: set[asyncio.Task[None]],
    ) -> None:
        """Begins every batch, as many at once as the pace allows, or until nothing new should be begun."""
        waiting = iter(enumerate(batches))
        while (n_free := await self._standing.pace.room()) and self._error is None and not questions.ending.is_over:
            begun = [
                asyncio.create_task(self._asked(questions, number, batch, hand_on))
                for number, batch in islice(waiting, n_free)
            ]
            if not begun:
                return
            under_way.update(begun)
            for task in begun:
                task.add_done_callback(under_way.discard)
            for _ in range(2):  # they take their places, or their contexts do
                await asyncio.sleep(0)

    async def _asked(
        self, questions: Questions, number: int, batch: Sequence[Request], hand_on: Callable[[_Answered], None]
    ) -> None:
        try:
            hand_on(_Answered(number, [await questions.answer(request) for request in batch]))
        except Stopped as stopped:
            if len(batch) == 1:
                hand_on(_Answered(number, [stopped.came]))
            self._error = self._error or stopped.error
        except Exception as error:  # raised again in the caller's thread
            self._error = self._error or error

    async def _told(self, probe: Probe, n_batches: int) -> None:
        if n_batches < PROBED_FROM or self._abilities.is_told:
            return
        self._abilities.is_told = True
        with suppress(SelfPriorityError):  # nothing waits for it; what does will say so
            if line := await probe.line():
                self._note(line)


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
