"""Interrupts that wait for the end of a step, so that its work is not lost. Knows signals, and no kind of work."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 130
"""Exit code of a process that an interrupt ended."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def deferred_interrupts(at_once_if_repeated: bool) -> Iterator[list[int]]:
    """Signals to stop that arrived within the body, which has to look at them; only in the main thread.

    Args:
        at_once_if_repeated: a second one of a kind raises KeyboardInterrupt wherever the body is. A process among
            several may get the same interrupt from the terminal and from its launcher.
    """
    received: list[int] = []

    def receive(number: int, _: object) -> None:
        received.append(number)
        if at_once_if_repeated and received.count(number) > 1:
            raise KeyboardInterrupt

    before = {}
    if threading.current_thread() is threading.main_thread():
        # one that is ignored (nohup, a job in the background) stays ignored
        heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, receive) for number in heard}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
