"""What passes between the steps of the method: frozen, named, in priority order wherever scores appear.

A record knows its own arithmetic (scores, covariance) and nothing of models, files or settings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

Stop = Literal["end", "length"]
Origin = Literal["sampled", "refined"]
T = TypeVar("T")


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    Examples:
        >>> Message("user", "How do I bake bread?").role
        'user'
    """

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Prompt:
    """What the model is asked. The messages end with a user turn.

    Examples:
        >>> Prompt("q1", (Message("user", "How do I bake bread?"),), kind="ordinary").text
        'How do I bake bread?'
    """

    id: str
    messages: tuple[Message, ...]
    kind: str = ""
    """What the source says the prompt is ("harmful", "ordinary", ...); empty when it says nothing."""

    @property
    def text(self) -> str:
        """The last user turn."""
        return self.messages[-1].content


def under(system: str, messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The conversation under a system prompt, before a system turn that it has already; empty: as it is."""
    if not system:
        return messages
    if messages[0].role == "system":
        return (Message("system", f"{system}\n\n{messages[0].content}"), *messages[1:])
    return (Message("system", system), *messages)


def without(system: str, messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """What stands under a system prompt: the other way round of `under`."""
    first = messages[0]
    if not system or first.role != "system" or not first.content.startswith(system):
        return messages
    own = first.content.removeprefix(system).removeprefix("\n\n")
    return (Message("system", own), *messages[1:]) if own else messages[1:]


@dataclass(frozen=True)
class Response:
    """One answer to one prompt.

    Examples:
        >>> Response("q1/y1", "q1", "Mix, wait, bake.", "end", n_tokens=6).origin
        'sampled'
    """

    id: str
    prompt_id: str
    text: str
    stop: Stop
    """`end`: the model closed its turn. `length`: it was cut, so no end token may follow it in training."""
    n_tokens: int
    origin: Origin = "sampled"
    persona: str = ""
    thinking: Annotated[str, Field(exclude_if=lambda thinking: not thinking)] = ""
    """What the model thought before it answered: kept to be read, never rated and never trained."""


def flaw(response: Response, keep_cut: bool) -> str:
    """Why an answer cannot enter a pool; empty where it can. What was cut while it was still thinking is no answer."""
    if not response.text.strip():
        return "cut_thinking" if response.thinking and response.stop == "length" else "empty"
    return "cut" if response.stop == "length" and not keep_cut else ""


@dataclass(frozen=True)
class Rating:
    """A judge's number on 1..10 for one objective.

    Examples:
        >>> Rating(7.5, mass=0.98).value
        7.5
    """

    value: float
    mass: float = 1.0
    """Probability the judge gave to all allowed ratings before renormalising."""
    variance: float = 0.0
    """Variance of the rating's own distribution, in squared rating points."""


@dataclass(frozen=True)
class Unrated:
    """A verdict that could not be read. Never a number, never zero.

    Examples:
        >>> Unrated("low_mass", "digits hold 0.031 of the probability, floor 0.5").reason
        'low_mass'
    """

    reason: str
    detail: str = ""


Ratings = tuple[Rating | Unrated, ...]
"""One verdict per objective, in priority order."""


@dataclass(frozen=True)
class Scored:
    """A response with a rating for every objective, in priority order; without any where nobody rated it.

    Examples:
        >>> answer = Response("q1/y1", "q1", "Mix, wait, bake.", "end", n_tokens=6)
        >>> Scored(answer, (Rating(9.0), Rating(7.5))).scores
        (9.0, 7.5)
    """

    response: Response
    ratings: tuple[Rating, ...]

    @property
    def scores(self) -> tuple[float, ...]:
        """The K ratings as plain numbers, in priority order."""
        return tuple(rating.value for rating in self.ratings)


@dataclass(frozen=True)
class Candidates:
    """The sampled answers of one prompt, not rated yet.

    Examples:
        >>> found = Results("runs/my").candidates()[0]
        >>> all(response.prompt_id == found.prompt.id for response in found.responses)
        True
    """

    prompt: Prompt
    responses: tuple[Response, ...]


@dataclass(frozen=True)
class Pool:
    """The rated answers of one prompt: the candidates and, after refinement, one improved answer.

    Examples:
        >>> pool = Results("runs/my").pools()[0]
        >>> len(pool.responses) == len(pool.candidates) + (pool.refined is not None)
        True
    """

    prompt: Prompt
    candidates: tuple[Scored, ...]
    refined: Scored | None = None
    other_refinements: tuple[Scored, ...] = ()
    """Further refinements that were paid for but are not the lexicographically best."""

    @property
    def responses(self) -> tuple[Scored, ...]:
        """All answers that may enter a pair; pair indices count in this order, the refined one last."""
        return self.candidates + (() if self.refined is None else (self.refined,))


@dataclass(frozen=True)
class Pair:
    """Two answers of one pool, by index into `Pool.responses`; the chosen is lexicographically greater.

    Examples:
        >>> [each] = [each for pool in pair(Results("runs/my").pools(), PairRules()).kept for each in pool.pairs][:1]
        >>> each.distance >= each.gap
        True
    """

    chosen: int
    rejected: int
    decided_by: int
    """Index of the objective that decided the order."""
    distance: float
    """L1 distance of the score vectors (Eq. 2)."""
    gap: float
    """Absolute difference of the score sums (Eq. 3)."""


@dataclass(frozen=True)
class PairedPool:
    """A pool and its preference pairs: the unit of training.

    Examples:
        >>> paired = pair(Results("runs/my").pools(), PairRules()).kept[0]
        >>> best = paired.pool.responses[paired.pairs[0].chosen]
        >>> len(best.scores)
        2
    """

    pool: Pool
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class Drop:
    """A prompt (or, with `response_id`, one response) that left the method, and why.

    Examples:
        >>> Drop("denoise", "q1", "not_better").reason
        'not_better'
    """

    step: str
    prompt_id: str
    reason: str
    response_id: str | None = None
    detail: str = ""


@dataclass(frozen=True)
class Sifted(Generic[T]):
    """What a step kept and what it dropped. Every prompt that enters is in exactly one of the two.

    Drops with a `response_id` are single answers lost from a pool; they do not count as prompts.

    Examples:
        >>> found = Sifted(kept=("q1",), dropped=(Drop("sample", "q2", "empty"),))
        >>> found.reasons
        {'empty': 1}
    """

    kept: tuple[T, ...]
    dropped: tuple[Drop, ...]

    @property
    def dropped_prompts(self) -> tuple[Drop, ...]:
        """The drops that are whole prompts."""
        return tuple(drop for drop in self.dropped if drop.response_id is None)

    @property
    def reasons(self) -> dict[str, int]:
        """Number of dropped prompts by reason."""
        return dict(Counter(drop.reason for drop in self.dropped_prompts))


def covariance(rows: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Population covariance of n score vectors, [n, K] -> [K, K] (docs/deviations.md 4)."""
    return np.atleast_2d(np.cov(np.asarray(rows, dtype=np.float64), rowvar=False, bias=True))
