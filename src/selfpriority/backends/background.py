"""Work in an event loop, in a thread of its own, whose results a plain generator hands on. Knows no server."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from selfpriority.interrupts import deferred_interrupts

T = TypeVar("T")

GRACE = 3.0
"""Seconds that an interrupt waits for what is under way: it is paid for."""
LOOK_UP = 0.2
"""Seconds after which a wait looks for signals."""


@dataclass(frozen=True)
class _End:
    """The work is over."""

    error: BaseException | None


class Background(Generic[T]):
    """Work that hands on results while it goes on.

    Args:
        work: gets what hands a result on, and what tells whether nothing new should be begun.
    """

    def __init__(self, work: Callable[[Callable[[T], None], Callable[[], bool]], Awaitable[None]]) -> None:
        self._work = work
        self._results: queue.SimpleQueue[list[T] | _End] = queue.SimpleQueue()
        self._fresh: list[T] = []
        self._is_ending = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        # a daemon: an interrupt must not wait for a server's silence
        self._thread = threading.Thread(target=self._run, daemon=True)

    def results(self) -> Iterator[T]:
        """Every result as it comes, then the error that ended the work, if one did.

        An interrupt begins nothing new, hands on what is finished within `GRACE`, and goes on as an interrupt; also one
        that comes while a result is being kept, for until the end it only is noted. A second one ends all at once, and
        so does whoever closes the generator.
        """
        self._thread.start()
        try:
            with deferred_interrupts(at_once_if_repeated=True) as received:
                while not isinstance(results := self._next(received), _End | None):
                    yield from results
                if received:
                    self._is_ending = True
                    yield from self._last()
        finally:
            self._is_ending = True
            self._cancel()
        if received:
            signal.raise_signal(received[0])  # whoever heard signals before hears of it now
            raise KeyboardInterrupt
        if results is not None and results.error is not None:
            raise results.error

    def _next(self, received: list[int]) -> list[T] | _End | None:
        """The next results, None once there is an interrupt: looks up now and then, for it may come at any time."""
        while not received:
            with contextlib.suppress(queue.Empty):
                return self._results.get(timeout=LOOK_UP)
        return None

    def _last(self) -> Iterator[T]:
        until = time.monotonic() + GRACE
        with contextlib.suppress(queue.Empty):
            while not isinstance(results := self._results.get(timeout=max(0.0, until - time.monotonic())), _End):
                yield from results

    def _hand_on(self, result: T) -> None:
        """What comes in one turn of the loop goes on together: waking the other thread for each costs more."""
        if not self._fresh:
            asyncio.get_running_loop().call_soon(self._flush)
        self._fresh.append(result)

    def _flush(self) -> None:
        if self._fresh:
            self._results.put(self._fresh)
            self._fresh = []

    def _cancel(self) -> None:
        loop, task = self._loop, self._task
        if loop is not None and task is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                loop.call_soon_threadsafe(task.cancel)
        self._thread.join(timeout=GRACE)

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            asyncio.run(self._main())
        except asyncio.CancelledError:
            pass
        except BaseException as caught:  # raised again in the caller's thread
            error = caught
        self._flush()
        self._results.put(_End(error))

    async def _main(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        if not self._is_ending:
            await self._work(self._hand_on, lambda: self._is_ending)
