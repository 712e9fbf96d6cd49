"""Reports how far the requests of one call are. Wraps any `LanguageModel` and is one; prints nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from selfpriority.backends.cache import Cached, Reused, n_tokens
from selfpriority.language_model import Answer, LanguageModel, Request


@dataclass(frozen=True)
class Progress:
    """How far one call is."""

    done: int
    """Requests answered, those from disk included."""
    total: int
    cached: int
    """Requests answered from disk."""
    tokens: int
    """Tokens generated in this call, none from disk."""
    seconds: float
    """Since the call began."""


class Watched:
    """`model` with a report after every batch.

    Args:
        model: who is asked; if it is a `Cached`, answers from disk are counted apart.
        on_progress: called once at the start with nothing done, and after every batch.
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
        total = sum(map(len, batches))
        start = time.monotonic()
        done = tokens = 0
        self.on_progress(Progress(0, total, 0, 0, 0.0))
        for number, answers in self.model.answer(batches):
            done += len(answers)
            tokens += sum(map(n_tokens, answers))
            cached = reused.requests - requests_before
            new_tokens = tokens - (reused.tokens - tokens_before)
            self.on_progress(Progress(done, total, cached, new_tokens, time.monotonic() - start))
            yield number, answers
