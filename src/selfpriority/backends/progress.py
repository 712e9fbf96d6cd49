"""Reports how far the requests of one call are. Wraps any `LanguageModel` and is one; prints nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from selfpriority.backends.cache import Cached, Reused, n_tokens
from selfpriority.backends.pulse import Beat, listening
from selfpriority.language_model import Answer, Generate, LanguageModel, Request

BEAT_EVERY = 0.2
"""Seconds between two reports from inside a batch."""


@dataclass(frozen=True)
class Progress:
    """How far one call is."""

    done: int
    """Requests answered, those from disk included."""
    total: int
    cached: int
    """Requests answered from disk."""
    tokens: int
    """Tokens generated in this call, none from disk, of requests that are done."""
    seconds: float
    """Since the call began."""
    answers: int = 0
    """Answers there are, those of the batch in hand included: a request may ask for several."""
    n_answers: int = 0
    """Answers that are asked for; 0: nobody counted them."""
    tokens_in_hand: int = 0
    """Tokens generated for the batch in hand."""
    shard: int = 1
    """Which part of the step's prompts this call is about."""
    shards: int = 1
    """How many such parts there are, of about one size."""


class Watched:
    """`model` with a report after every batch, and from inside one where the model tells how far it is.

    Args:
        model: who is asked; if it is a `Cached`, answers from disk are counted apart.
        on_progress: called once at the start with nothing done, then as answers come.
    """

    def __init__(self, model: LanguageModel, on_progress: Callable[[Progress], None]) -> None:
        self.model = model
        self.on_progress = on_progress

    @property
    def fingerprint(self) -> str:
        """The wrapped model's."""
        return self.model.fingerprint

    def plan(self, requests: Sequence[Request]) -> list[list[int]]:
        """The wrapped model's plan."""
        return self.model.plan(requests)

    def answer(self, batches: Sequence[Sequence[Request]]) -> Iterator[tuple[int, list[Answer]]]:
        """The wrapped model's answers, in its order."""
        reused = self.model.reused if isinstance(self.model, Cached) else Reused()
        requests_before, tokens_before = reused.requests, reused.tokens
        count = _Count(Progress(0, sum(map(len, batches)), 0, 0, 0.0, 0, sum(map(_n_answers, batches))))
        tokens = 0
        self.on_progress(count.so_far)

        def hear(beat: Beat) -> None:
            if (inside := count.heard(beat)) is not None:
                self.on_progress(inside)

        answering = self.model.answer(batches)
        while True:
            with listening(hear):
                answered = next(answering, None)
            if answered is None:
                return
            number, answers = answered
            tokens += sum(map(n_tokens, answers))
            count.so_far = Progress(
                done=count.so_far.done + len(answers),
                total=count.so_far.total,
                cached=reused.requests - requests_before,
                tokens=tokens - (reused.tokens - tokens_before),
                seconds=count.seconds,
                answers=count.so_far.answers + _n_answers(batches[number]),
                n_answers=count.so_far.n_answers,
            )
            self.on_progress(count.so_far)
            yield number, answers


class _Count:
    """What was reported last of whole batches, and when."""

    def __init__(self, start: Progress) -> None:
        self.so_far = start
        self._began = self._last = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def heard(self, beat: Beat) -> Progress | None:
        """With the batch in hand; None: too soon after the one before."""
        now = time.monotonic()
        if now - self._last < BEAT_EVERY:
            return None
        self._last = now
        answers = min(self.so_far.answers + beat.answers, self.so_far.n_answers)
        return replace(self.so_far, answers=answers, tokens_in_hand=beat.tokens, seconds=self.seconds)


def _n_answers(batch: Sequence[Request]) -> int:
    return sum(request.n if isinstance(request, Generate) else 1 for request in batch)
