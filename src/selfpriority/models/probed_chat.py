"""A model's chat template tried in bounds: it is a program that comes with the model, and may be wrong or never end."""

from __future__ import annotations

import resource
import signal
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selfpriority.chat import Chat
from selfpriority.errors import InputError
from selfpriority.models.weights import readable

SECONDS = 20
"""Of computing, in which a template must have rendered what `Chat` tries; a usual one takes milliseconds."""
MOST_BYTES = 2 << 30
"""Of memory that a template may take beyond what the process has; where the system does not tell (macOS), any."""
LONGEST = 1_000_000
"""Characters of a template; the longest in use have about a tenth."""


class _TookTooLong(BaseException):
    """No `Exception`, for who tries a template takes any of those for a refusal."""


def probed_chat(tokenizer: Any, end_ids: Collection[int], name: str) -> Chat:
    """The `Chat` of a tokenizer.

    Raises:
        InputError: it has no template or end token, or a template that is wrong, huge or does not end.
    """
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, str) and len(template) > LONGEST:
        raise InputError(f"model: {name}: its chat template has {len(template)} characters; {LONGEST} are allowed")
    with readable(f"{name}: its chat template"):
        try:
            with _limited(), _bounded():
                return Chat(tokenizer, end_ids, name)
        except _TookTooLong:
            raise InputError(
                f"model: {name}: its chat template did not end within {SECONDS} seconds; correct the loop in it"
            ) from None


@contextmanager
def _bounded() -> Iterator[None]:
    """A template that asks for endless memory gets a MemoryError, which is a refusal like any other."""
    table = Path("/proc/self/statm")
    if not table.is_file():
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    wanted = int(table.read_text("ascii").split()[0]) * resource.getpagesize() + MOST_BYTES
    allowed = [wanted, *(limit for limit in before if limit != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_AS, (min(allowed), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextmanager
def _limited() -> Iterator[None]:
    """Raises _TookTooLong after a while of computing, however busy the machine is."""
    if threading.current_thread() is not threading.main_thread():  # who alone hears signals
        yield
        return

    def stop(*_: object) -> None:
        raise _TookTooLong

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
