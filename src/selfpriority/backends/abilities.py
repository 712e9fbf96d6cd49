"""What a server can do beyond what all can: asked at the start, for next to nothing, and told in one line.

Its list of models is free; how it cuts tokens too (vLLM alone tells); one greeting of one token shows whether it gives
several draws and the probabilities of tokens. What it does not tell is unknown, and nothing depends on it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from selfpriority.backends.http import GREETING, Address, Endpoint, Json, chat_body
from selfpriority.backends.replies import positions
from selfpriority.backends.transport import Reply, root_of
from selfpriority.language_model import Failure
from selfpriority.records import Message

TOP_LOGPROBS = 20
"""The most that the protocol gives; what a choice outside of them holds is not known."""
MOST_IDS = 128
"""Tokens that vLLM tells the probabilities of at most."""
PATIENCE = 10.0
"""Seconds for a question that a server answers from memory."""
LIMITS = (
    ("x-ratelimit-limit-requests", "requests"),
    ("anthropic-ratelimit-requests-limit", "requests"),
    ("x-ratelimit-limit-tokens", "tokens"),
    ("anthropic-ratelimit-tokens-limit", "tokens"),
)


@dataclass(frozen=True)
class Card:
    """What a server's list says of one model."""

    owner: str = ""
    context: int | None = None
    """Tokens of a prompt and its answer."""


@dataclass
class Abilities:
    """What is known of a server over all calls."""

    takes_many: bool = True
    """Until it refuses `n` above 1."""
    gave_probabilities: bool = False
    is_told: bool = False
    card: Card | None = None
    ids: dict[tuple[str, ...], tuple[int, ...]] = field(default_factory=dict)
    """Choices -> the tokens that spell them; empty where one takes several, or the server does not say."""
    n_weighed: int = 0
    """Contexts that probabilities were told for since the last time that `unseen` was told."""
    unseen: list[float] = field(default_factory=list)
    """Of those with choices that were not named: the most that these may hold."""

    def count_unseen(self, unseen: float) -> None:
        """Counts a context."""
        self.n_weighed += 1
        if unseen:
            self.unseen.append(unseen)

    def told_unseen(self) -> str:
        """What the server left out since this was last asked, in half a line; empty where it left out nothing."""
        n, unseen = self.n_weighed, self.unseen
        self.n_weighed, self.unseen = 0, []
        if not unseen:
            return ""
        return (
            f"in {len(unseen):,} of {n:,} contexts it did not name every choice, and those hold at most "
            f"{sum(unseen) / len(unseen):.2g} of the probability in the mean, {max(unseen):.2g} in one: missing mass"
        )


@dataclass(frozen=True)
class _Shown:
    """What the reply to the greeting shows."""

    n_choices: int
    n_probable: int
    """Tokens whose probabilities are told."""
    words: frozenset[str]
    limits: str


class Probe:
    """Asks a server what it can do. For one call, in its event loop.

    Args:
        address: who is asked.
        endpoint: where greetings go.
        abilities: what is known already; learned here.
    """

    def __init__(self, address: Address, endpoint: Endpoint, abilities: Abilities) -> None:
        self._address, self._endpoint = address, endpoint
        self.abilities = abilities
        self._lock = asyncio.Lock()

    async def ids_of(self, choices: tuple[str, ...]) -> tuple[int, ...]:
        """The tokens that spell the choices, each with and without a space before it, where the server tells.

        Raises:
            InputError: nobody ever answered there.
            WorkFailed: whether it tells cannot be found out now. Answers read in another way are another measure.
        """
        known = self.abilities.ids
        if choices not in known:
            async with self._lock:
                if choices not in known:
                    known[choices] = await self._spelled(choices)
        return known[choices]

    async def line(self) -> str:
        """What the server can do, for the user; empty where it does not answer the greeting."""
        digit = ("7",)
        ids = await self.ids_of(digit)
        shown = await self._shown(ids)
        if shown is None:
            return ""
        card, settings = self.abilities.card or Card(), self._address.settings
        exact = ids and "7" in shown.words
        parts = [
            f"it is {card.owner}" if card.owner else "",
            f"contexts of {card.context:,} tokens" if card.context else "",
            "several draws a request" if shown.n_choices > 1 else "one draw a request",
            f"probabilities of {'exactly the asked' if exact else f'the {shown.n_probable} most probable'} tokens"
            if shown.n_probable
            else "no probabilities of tokens (method: verbal judges without)",
            shown.limits,
            f"at most {settings.concurrency} requests at once",
        ]
        return f"backend: {settings.base_url}: {', '.join(filter(None, parts))}"

    async def _shown(self, ids: tuple[int, ...]) -> _Shown | None:
        """What a greeting shows; where both things together are refused, each is asked for alone."""
        exact: Json = {"logprob_token_ids": list(ids)} if ids else {}
        weighed: Json = {"logprobs": True, "top_logprobs": TOP_LOGPROBS, **exact}
        both = await self._greeted(n=2, **weighed)
        if isinstance(both, _Shown):
            return both
        if both.reason not in ("rejected", "refused"):
            return None
        many, probable = await self._greeted(n=2), await self._greeted(n=1, **weighed)
        if isinstance(many, Failure) and isinstance(probable, Failure):
            return None
        if isinstance(probable, _Shown):
            n = many.n_choices if isinstance(many, _Shown) else 1
            if isinstance(many, Failure) and many.reason == "rejected":
                self.abilities.takes_many = False
            return _Shown(n, probable.n_probable, probable.words, probable.limits)
        return many if isinstance(many, _Shown) else None

    async def _greeted(self, **parameters: object) -> _Shown | Failure:
        greeting = [Message("user", GREETING[0]["content"])]
        # at temperature 0 vLLM refuses several draws, which would be alike
        body = chat_body(self._address, greeting, 1, temperature=1.0, **parameters)
        async with self._endpoint.place:
            return await self._endpoint.once(body, _seen)

    async def _spelled(self, choices: tuple[str, ...]) -> tuple[int, ...]:
        if (await self._card()).owner != "vllm":
            return ()
        spellings = [spelling for choice in choices for spelling in (choice, f" {choice}")]
        alone: list[int | None] = []
        for spelling in spellings:
            if (tokens := await self._tokens(spelling)) is None:  # what one of them lacks would be missing in silence
                return ()
            alone.append(tokens[0] if len(tokens) == 1 else None)
        by_choice = zip(alone[::2], alone[1::2], strict=True)
        if any(plain is None and spaced is None for plain, spaced in by_choice):
            return ()
        ids = tuple(sorted({token for token in alone if token is not None}))
        return ids if len(ids) <= MOST_IDS else ()

    async def _tokens(self, text: str) -> list[int] | None:
        """How the server cuts a text; None where it does not say."""
        body = {"model": self._address.model, "prompt": text, "add_special_tokens": False}
        url = f"{root_of(self._address.settings.base_url)}/tokenize"
        tokens = (await self._endpoint.beside("POST", url, body, PATIENCE) or {}).get("tokens")
        return tokens if isinstance(tokens, list) and all(type(token) is int for token in tokens) else None

    async def _card(self) -> Card:
        if self.abilities.card is None:
            url = f"{self._address.settings.base_url.rstrip('/')}/models"
            listed = await self._endpoint.beside("GET", url, None, PATIENCE) or {}
            self.abilities.card = _card_of(listed, self._address.model)
        return self.abilities.card


def _card_of(listed: Json, model: str) -> Card:
    """What the list of models says of one; servers name the length of its context in several ways."""
    rows = listed.get("data")
    own = [row for row in rows if isinstance(row, dict) and row.get("id") == model] if isinstance(rows, list) else []
    if not own:
        return Card()
    meta = own[0].get("meta")
    lengths = [own[0].get("max_model_len"), own[0].get("context_length"), own[0].get("max_context_length")]
    lengths += [meta.get("n_ctx"), meta.get("n_ctx_train")] if isinstance(meta, dict) else []
    owner = str(own[0].get("owned_by") or "")
    is_name = re.fullmatch(r"[\w.-]{1,30}", owner)
    return Card(owner if is_name else "", next((n for n in lengths if type(n) is int and n > 0), None))


def _seen(reply: Reply, said: Any) -> _Shown:
    found = positions(said)
    words = [word for word, _ in found[0].words] if found else []
    return _Shown(len(said["choices"]), len(words), frozenset(words), _limits(reply.headers))


def _limits(headers: Mapping[str, str]) -> str:
    """The limits that a reply's headers name; most servers mean those of a minute."""
    told = {kind: headers[name].strip() for name, kind in LIMITS if re.fullmatch(r"\s*\d+\s*", headers.get(name, ""))}
    return f"a limit of {' and '.join(f'{int(n):,} {kind}' for kind, n in told.items())}" if told else ""
