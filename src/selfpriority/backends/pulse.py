"""How far the batch in hand is, told from inside a model's loop to whoever watches. Changes nothing that is computed.

Nobody listens: a beat costs a look at a variable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class Beat:
    """The batch in hand."""

    answers: int
    """Finished."""
    tokens: int
    """Drawn for all of them so far."""


_LISTENER: ContextVar[Callable[[Beat], None] | None] = ContextVar("listener", default=None)


@contextmanager
def listening(hear: Callable[[Beat], None]) -> Iterator[None]:
    """While this lasts, `hear` is told every beat of this thread."""
    token = _LISTENER.set(hear)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def beat(answers: int, tokens: int) -> None:
    """Says how far the batch in hand is."""
    hear = _LISTENER.get()
    if hear is not None:
        hear(Beat(answers, tokens))
