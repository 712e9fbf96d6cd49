"""Whether a call of a server is over before all is asked, and sleep that ends when it is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

LOOK_UP = 0.2
"""Seconds after which whoever sleeps looks whether somebody else has ended the work."""


class Ending:
    """The end of one call, in its event loop.

    Args:
        is_ending: whether somebody outside wants nothing new to be begun; may be told from another thread.
    """

    def __init__(self, is_ending: Callable[[], bool]) -> None:
        self._is_ending, self._failed = is_ending, asyncio.Event()

    @property
    def is_over(self) -> bool:
        """Whether nothing new is posted: an error has ended the work, or somebody has."""
        return self._failed.is_set() or self._is_ending()

    def fail(self) -> None:
        """An error ends the work: whoever sleeps wakes up."""
        self._failed.set()

    async def sleep(self, seconds: float) -> None:
        """Waits so long, or until the work is over."""
        until = asyncio.get_running_loop().time() + seconds
        while not self.is_over and (left := until - asyncio.get_running_loop().time()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._failed.wait(), min(left, LOOK_UP))
