"""Generate and Choose as chat completions: what is sent for them, and what becomes of the replies.

Contexts of one request are asked side by side. Knows the protocol's fields; how a reply comes about is in `http.py`,
what the server can do in `abilities.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from selfpriority.backends.abilities import TOP_LOGPROBS, Probe
from selfpriority.backends.http import Address, Endpoint, Json, chat_body
from selfpriority.backends.replies import Position, positions, texts_of
from selfpriority.errors import InputError, SelfPriorityError
from selfpriority.language_model import (
    PASSING,
    Answer,
    Chances,
    Choice,
    Choose,
    Completion,
    Failure,
    Generate,
    Request,
    Text,
)
from selfpriority.records import Message

SPACE_FIRST = 0.5
"""Where bare spaces hold more of the probability, the choice stands behind them."""
STOPPED = Failure("cut", "the work was stopped")


class Stopped(Exception):
    """The work ends here; some of a request's draws or contexts came before."""

    def __init__(self, error: SelfPriorityError, came: Answer) -> None:
        super().__init__(str(error))
        self.error, self.came = error, came


class Questions:
    """Requests of one call, each answered by one or several posts.

    Args:
        address: who is asked.
        endpoint: where posts go.
        probe: what the server can do; learned from replies here too.
    """

    def __init__(self, address: Address, endpoint: Endpoint, probe: Probe) -> None:
        self._address, self._endpoint, self._probe, self._abilities = address, endpoint, probe, probe.abilities
        self.ending = endpoint.ending
        """Once it is over, nothing new is posted."""

    async def prepare(self, requests: Iterable[Request]) -> None:
        """Asks what the answers to these depend on, so that all are asked alike."""
        for choices in {request.choices for request in requests if isinstance(request, Choose)}:
            await self._probe.ids_of(choices)

    async def answer(self, request: Request) -> Answer:
        """The answer to one request.

        Raises:
            Stopped: an error ends all work; what came before it is in there.
        """
        match request:
            case Generate():
                return await self._generate(request)
            case Choose():
                return await self._choose(request)
            case _:
                return Failure("unsupported", "an endpoint shows no hidden states and classifies nothing")

    async def _generate(self, request: Generate) -> Answer:
        if request.max_new_tokens < 1 or not request.messages:
            return Failure("empty", "nothing to answer")
        if request.opening:
            return Failure("unsupported", "an endpoint writes its answers from their beginning")
        given: list[Text | Failure] = []
        async with self._endpoint.place:
            while len(given) < request.n:
                left = request.n - len(given)
                given += [STOPPED] * left if self.ending.is_over else await self._drawn(request, given)
        return _completion(given)

    async def _drawn(self, request: Generate, given: Sequence[Text | Failure]) -> list[Text | Failure]:
        """Further draws of a request; where several at once are rejected, one: it tells whose fault that was."""
        missing = request.n - len(given)
        asked = missing if self._abilities.takes_many else 1
        reply = await self._post_draws(request, given, asked)
        if isinstance(reply, Failure) and reply.reason == "rejected" and asked > 1:
            reply = await self._post_draws(request, given, 1)
            if not isinstance(reply, Failure):  # so it was not the request itself
                self._abilities.takes_many = False
        if isinstance(reply, Failure):
            return [reply] * missing  # of the request: another draw would fare no better
        return reply[:missing]

    async def _post_draws(
        self, request: Generate, given: Sequence[Text | Failure], n: int
    ) -> list[Text | Failure] | Failure:
        try:
            return await self._endpoint.post(self._draws(request, len(given), n), texts_of)
        except SelfPriorityError as error:
            self.ending.fail()
            raise Stopped(error, _completion([*given, *[STOPPED] * (request.n - len(given))])) from error

    def _draws(self, request: Generate, n_given: int, n: int) -> Json:
        """The body that asks for so many of those draws of a request that are not there yet."""
        return chat_body(
            self._address,
            request.messages,
            request.max_new_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            n=n,
            seed=request.seed + n_given,
        )

    async def _choose(self, request: Choose) -> Answer:
        """All contexts are asked, also where one is refused; once one fails that may pass, no further is begun."""
        ids = await self._probe.ids_of(request.choices)
        failed: list[Failure] = []
        errors: list[SelfPriorityError] = []

        async def one(context: Sequence[Message]) -> Chances | Failure:
            async with self._endpoint.place:
                if failed or self.ending.is_over:
                    return failed[0] if failed else STOPPED
                try:
                    found = await self._chances(context, request.choices, ids)
                except SelfPriorityError as error:
                    errors.append(error)
                    self.ending.fail()
                    found = STOPPED
                if isinstance(found, Failure) and found.reason in PASSING:
                    failed.append(found)
                return found

        contexts = request.contexts
        found = [await one(contexts[0])] if len(contexts) == 1 else await asyncio.gather(*map(one, contexts))
        answer = Choice.of(found)
        if errors:
            raise Stopped(errors[0], answer)
        return answer

    async def _chances(
        self, context: Sequence[Message], choices: tuple[str, ...], ids: tuple[int, ...]
    ) -> Chances | Failure:
        places = await self._first_words(context, ids)
        if places is None or (isinstance(places, Failure) and places.reason == "rejected"):
            return self._without_probabilities()
        if isinstance(places, Failure):
            return places
        told = [place.position.of(choices) for place in places]
        together = [
            min(1.0, sum(place.chance * row[i] for place, row in zip(places, told, strict=True)))
            for i in range(len(choices))
        ]
        unseen = sum(place.chance * place.position.unseen(choices) for place in places)
        self._abilities.count_unseen(unseen)
        return Chances(tuple(together), unseen)

    async def _first_words(self, context: Sequence[Message], ids: tuple[int, ...]) -> list[Place] | Failure | None:
        """Where an answer may begin, and what with; None: the server tells no probabilities.

        Where the model begins with a bare space, as SentencePiece has it before a digit, the token behind it counts
        too, as probable as both together; only then is the server asked for two tokens.
        """
        reply = await self._positions(context, 1, ids)
        if reply is None or isinstance(reply, Failure):
            return reply
        self._abilities.gave_probabilities = True
        if sum(p for word, p in reply[0].words if not word) <= SPACE_FIRST:
            return [Place(reply[0])]
        longer = await self._positions(context, 2, ())
        if longer is None or isinstance(longer, Failure):
            return longer
        if len(longer) < 2 or not longer[0].is_space:
            return [Place(reply[0])]
        return [Place(longer[0]), Place(longer[1], longer[0].probability(longer[0].token))]

    async def _positions(
        self, context: Sequence[Message], n: int, ids: tuple[int, ...]
    ) -> list[Position] | Failure | None:
        asked: Json = {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        if ids:
            asked["logprob_token_ids"] = list(ids)
        return await self._endpoint.post(chat_body(self._address, context, n, temperature=0.0, **asked), positions)

    def _without_probabilities(self) -> Failure:
        """Never an answer of another kind in its place: a written rating is another measure."""
        if self._abilities.gave_probabilities:
            return Failure("unsupported", "this reply came without token probabilities")
        raise InputError(
            f"backend: {self._address.model} at {self._address.settings.base_url} gives no token probabilities, which "
            f"expected ratings are read from; set method: verbal, and the judge is asked to write its rating"
        )


@dataclass(frozen=True)
class Place:
    """A place where an answer may begin."""

    position: Position
    chance: float = 1.0
    """That it does begin there."""


def _completion(given: Sequence[Text | Failure]) -> Completion | Failure:
    """What was paid for is kept."""
    texts = tuple(text for text in given if isinstance(text, Text))
    failures = tuple(failure for failure in given if isinstance(failure, Failure))
    return Completion(texts, failures) if texts else failures[0]
