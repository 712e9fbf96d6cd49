"""The one protocol every backend meets: requests in, answers out.

Four kinds of question cover the method: write text (`Generate`), weigh given continuations (`Choose`), show
hidden states (`Embed`), classify an answer (`Classify`). A fifth is for a function of the user's own, which no model
answers (`Rate`). Batching, caching and progress are wrappers of the same shape, so the steps know none of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from selfpriority.records import Message, Stop
from selfpriority.thinking import OPENS, SHUTS


@dataclass(frozen=True)
class Generate:
    """Write n answers to a conversation. The seed makes equal requests with different draws distinct."""

    messages: tuple[Message, ...]
    n: int
    temperature: float
    """0 is greedy."""
    top_p: float
    max_new_tokens: int
    seed: int
    opening: str = field(default="", repr=False)  # draws are seeded by what is shown, and stay what they were
    """How every answer begins, put into the model's mouth; the answer goes on from it and holds it."""


@dataclass(frozen=True)
class Choose:
    """How probable is each choice as the next token of each context? Contexts should share a long prefix."""

    contexts: tuple[tuple[Message, ...], ...]
    choices: tuple[str, ...]


Span = Literal["response", "prompt"]
"""What a hidden state is the mean over: the tokens of the response, or those of the last user turn."""


@dataclass(frozen=True)
class Embed:
    """Mean hidden states of `response`, answered to `messages`: for each of `spans`, at each of `layers`."""

    messages: tuple[Message, ...]
    response: str
    layers: tuple[int, ...]
    """0 is the embedding, L the output of the L-th block."""
    spans: tuple[Span, ...] = ("response",)
    stop: Stop = "end"
    """How the response ended: the end token of a finished one is one of its tokens, a cut one has none."""
    opening: str = ""
    """What the response goes on from, in the same turn: read before it, and no part of its mean."""


@dataclass(frozen=True)
class Classify:
    """The scalar a sequence-classification (reward) model gives to `response`, answered to `messages`."""

    messages: tuple[Message, ...]
    response: str


@dataclass(frozen=True)
class Rate:
    """What a function of the user's own makes of `response`, answered to `messages`, on each of `objectives`."""

    messages: tuple[Message, ...]
    response: str
    objectives: tuple[str, ...]


Request = Generate | Choose | Embed | Classify | Rate


_OPENING, _OPENS = re.compile(OPENS, re.I), re.compile(rf"\s*{OPENS}", re.I)
_CLOSING = re.compile(rf"{SHUTS}\s*", re.I)


@dataclass(frozen=True)
class Text:
    """One generated answer."""

    text: str
    n_tokens: int
    """Those of its thinking too."""
    stop: Stop
    thinking: str = ""
    """What the model thought before it answered; never part of the answer."""

    @classmethod
    def of(cls, written: str, n_tokens: int, stop: Stop, *, opened: bool = False, thinking: str = "") -> Text:
        """An answer as it was written, the thinking in it (`<think>...</think>` at its beginning) kept apart.

        Args:
            written: the whole text; thinking that nothing closes leaves no answer.
            n_tokens: its length.
            stop: how it ended.
            opened: the prompt has opened the thinking. A closing tag that nothing opens says so too.
            thinking: what was kept apart already.
        """
        thoughts, start = [thinking], 0
        while True:
            opens, closing = _OPENS.match(written, start), _CLOSING.search(written, start)
            is_closed = closing is not None and not _OPENING.search(written, start, closing.start())
            if not (opens or opened or is_closed):
                break
            end = closing.start() if closing else len(written)
            thoughts.append(written[opens.end() if opens else start : end].strip())
            start, opened = closing.end() if closing else end, False
        return cls(written[start:], n_tokens, stop, "\n\n".join(filter(None, thoughts)))


@dataclass(frozen=True)
class Completion:
    """Answer to `Generate`: n texts, or at least one and a failure for each that is missing."""

    texts: tuple[Text, ...]
    missing: tuple[Failure, ...] = ()


@dataclass(frozen=True)
class Chances:
    """What one context of a `Choose` gave."""

    probabilities: tuple[float, ...]
    """Of the choices, not renormalised."""
    unseen: float = 0.0
    """The most that choices may hold together of which nothing was told: they count as 0 in `probabilities`."""


@dataclass(frozen=True)
class Choice:
    """Answer to `Choose`: [contexts, choices] probabilities at one position, not renormalised.

    Of some of the contexts alone where others are missing, with a failure for each; see `by_context`.
    """

    probabilities: tuple[tuple[float, ...], ...]
    missing: tuple[Failure, ...] = ()
    unseen: tuple[float, ...] = ()
    """By row of `probabilities`, as of `Chances`; empty: 0 for all."""
    holes: tuple[int, ...] = ()
    """Which contexts the failures are of; empty: of the last ones."""

    @classmethod
    def of(cls, contexts: Sequence[Chances | Failure]) -> Choice | Failure:
        """The answer that has these contexts; the first failure, where all failed alike: for good, or for now."""
        weighed = [found for found in contexts if isinstance(found, Chances)]
        missing = [(i, found) for i, found in enumerate(contexts) if isinstance(found, Failure)]
        if missing and not weighed and len({failure.reason in PASSING for _, failure in missing}) == 1:
            return missing[0][1]
        unseen = tuple(found.unseen for found in weighed)
        holes = tuple(i for i, _ in missing)
        return cls(
            tuple(found.probabilities for found in weighed),
            tuple(failure for _, failure in missing),
            unseen if any(unseen) else (),
            () if holes == tuple(range(len(weighed), len(contexts))) else holes,
        )

    @property
    def by_context(self) -> tuple[Chances | Failure, ...]:
        """What each context gave, in order."""
        n = len(self.probabilities)
        unseen = self.unseen or (0.0,) * n
        weighed = iter([Chances(row, most) for row, most in zip(self.probabilities, unseen, strict=True)])
        missing = dict(zip(self.holes or range(n, n + len(self.missing)), self.missing, strict=True))
        return tuple(missing.get(i) or next(weighed) for i in range(n + len(missing)))


@dataclass(frozen=True)
class Vectors:
    """Answer to `Embed`: [spans x layers, hidden size], the first span's layers first, float32."""

    vectors: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Value:
    """Answer to `Classify`."""

    value: float
    is_rating: bool = False
    """Whether it is on the scale of 1 to 10 already, as a guard's verdict; a reward has no unit."""


@dataclass(frozen=True)
class Verdict:
    """Answer to `Rate`: on 1..10 by objective; None where it was not rated."""

    ratings: tuple[float | None, ...]


@dataclass(frozen=True)
class Failure:
    """A request without an answer: data, not a crash.

    Of the request itself: `too_long`, `turns` (the chat template does not take them), `refused` (a content filter),
    `rejected`, `empty`. Of who was asked, so that asking again may help: see `PASSING`.
    """

    reason: str
    detail: str = ""


PASSING = frozenset({"unsupported", "garbage", "rate_limited", "rejected", "server_error", "cut", "timeout"})
"""Failures that say nothing sure of the request: no cache keeps them, and a later command asks again."""
BUSY = frozenset({"rate_limited", "server_error", "timeout", "cut"})
"""Those of them that say something of the moment, and nothing of the model."""


Answer = Completion | Choice | Vectors | Value | Verdict | Failure


class LanguageModel(Protocol):
    """Whoever answers requests: a backend, or a wrapper of one.

    Examples:
        >>> from selfpriority.language_model import Generate, ask
        >>> question = Generate(
        ...     (Message("user", "How do I bake bread?"),), n=2, temperature=1.0, top_p=0.9, max_new_tokens=8, seed=0
        ... )
        >>> [answer] = ask(open_model("my-model"), [question])
        >>> [text.n_tokens <= 8 for text in answer.texts]
        [True, True]
    """

    @property
    def fingerprint(self) -> str:
        """Content hash of weights, tokenizer and numerics: equal fingerprint, equal answers."""
        ...

    def plan(self, requests: Sequence[Request]) -> list[list[int]]:
        """Indices of the requests to be asked together.

        A deterministic function of all requests, cached or not: low-precision results depend on the batch
        they were computed in, so a resumed run must form the batches of the first one.
        """
        ...

    def answer(self, batches: Sequence[Sequence[Request]]) -> Iterator[tuple[int, list[Answer]]]:
        """Yields (batch number, its answers in order) as each batch finishes."""
        ...


def ask(model: LanguageModel, requests: Sequence[Request]) -> list[Answer]:
    """Answers of `model` in the order of the requests; equal requests are asked once."""
    unique = list(dict.fromkeys(requests))
    batches = model.plan(unique)
    answers: dict[Request, Answer] = {}
    for number, batch in model.answer([[unique[i] for i in indices] for indices in batches]):
        answers.update(zip((unique[i] for i in batches[number]), batch, strict=True))
    return [answers[request] for request in requests]
