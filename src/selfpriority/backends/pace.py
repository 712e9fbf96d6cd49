"""How many requests may be under way at a server: found from what it does, never above the recipe's number.

Begins low and doubles with each round of answers; from the first sign of too much on it grows by one a round. Signs are
a server that says so (429, 503), silence, and answers that come no faster though more requests are under way: a server
that queues never says no. Knows no request and no connection; runs in one event loop at a time.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

FIRST = 8
"""Requests under way in the beginning."""
KEPT = 0.7
"""Share of the limit that is left after a sign of too much."""
FASTER, DOUBLY = 1.05, 1.15
"""Answers come faster where they come so many times as fast; where twice as many requests are under way, the second."""
MOST_FLAT = 2
"""Rounds in a row without faster answers, after which doubling ends."""
AHEAD = 1.25
"""How far the limit may go beyond the one that gave the fastest answers so far."""
LEAST_ROUND = 16
"""Answers, at least, over which speed is measured."""


class Pace:
    """Places for requests under way.

    Args:
        most: the recipe's number.
        clock: seconds from any beginning.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = most, clock
        self._limit = float(min(FIRST, most))
        self._doubles, self._was_refused = True, False
        self._cut_at = 0.0
        self.most_under_way = 0
        """The most places that were taken at once."""
        self.begin()

    @property
    def limit(self) -> int:
        """Requests that may be under way now."""
        return int(self._limit)

    def begin(self) -> None:
        """A new call, in a new event loop: what was learned of the limit stays, speed is measured anew."""
        self._under_way = self._n_since_full = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._door: asyncio.Future[None] | None = None
        self._doubles = not self._was_refused
        self._fastest, self._fastest_limit, self._n_flat = 0.0, self._limit, 0
        self._new_round()

    async def enter(self) -> None:
        """Takes a place as soon as one is free; those who wait come in order."""
        if self._waiting or self._under_way >= self.limit:
            place = asyncio.get_running_loop().create_future()
            self._waiting.append(place)
            try:
                await place
            except asyncio.CancelledError:
                if place.done() and not place.cancelled():  # it was given, and nobody takes it
                    self.leave()
                raise
            return
        self._take()

    def leave(self) -> None:
        """Gives a place back."""
        self._under_way -= 1
        self._admit()

    async def __aenter__(self) -> None:
        await self.enter()

    async def __aexit__(self, *_: object) -> None:
        self.leave()

    async def room(self) -> int:
        """Free places, once there are any and nobody waits for them. For one waiter: whoever brings new work."""
        while self._waiting or self._under_way >= self.limit:
            self._door = asyncio.get_running_loop().create_future()
            await self._door
        return self.limit - self._under_way

    def answered(self) -> None:
        """A request was answered: the limit grows, and once a round the speed is looked at."""
        self._n_since_full += 1
        if self._n_since_full > self._limit / 2:  # what is not used says nothing of the limit
            self._new_round()
            return
        self._n_answers += 1
        step = 1.0 if self._doubles else 1.0 / self._limit
        self._limit = min(float(self._most), self._limit + step)
        if self._n_answers >= self._n_round:
            self._look()
        self._admit()

    def refused(self, sent: float) -> None:
        """The server said, or showed by silence, that a request sent at `sent` (`time.monotonic`) was too much.

        One round of refusals cuts once: what was sent before a cut says nothing of the limit after it.
        """
        if sent <= self._cut_at:
            return
        self._limit = max(1.0, self._limit * (0.5 if self._doubles else KEPT))
        self._doubles, self._was_refused = False, True
        self._cut_at = self._clock()
        self._fastest, self._fastest_limit, self._n_flat = 0.0, self._limit, 0
        self._new_round()

    def _look(self) -> None:
        """Compares this round's speed with the fastest; where more requests gave no more answers, goes back."""
        speed = self._n_answers / max(self._clock() - self._began, 1e-9)
        if speed > self._fastest * (DOUBLY if self._doubles else FASTER):
            self._fastest, self._fastest_limit, self._n_flat = speed, self._round_limit, 0
        elif self._doubles:
            self._n_flat += 1
            if self._n_flat >= MOST_FLAT:
                self._doubles = False
                self._limit = self._fastest_limit
        elif self._limit >= AHEAD * self._fastest_limit or self.limit >= self._most > self._fastest_limit:
            self._limit = self._fastest_limit
            self._fastest = (self._fastest + speed) / 2  # a lucky round is no measure for ever
        self._new_round()

    def _new_round(self) -> None:
        self._began, self._round_limit, self._n_answers = self._clock(), self._limit, 0
        self._n_round = max(self.limit, LEAST_ROUND)

    def _take(self) -> None:
        self._under_way += 1
        if self._under_way >= self.limit:
            self._n_since_full = 0
        self.most_under_way = max(self.most_under_way, self._under_way)

    def _admit(self) -> None:
        while self._waiting and self._under_way < self.limit:
            place = self._waiting.popleft()
            if not place.done():
                self._take()
                place.set_result(None)
        if self._door is not None and not self._waiting and self._under_way < self.limit:
            if not self._door.done():
                self._door.set_result(None)
            self._door = None
