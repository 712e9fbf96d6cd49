"""How many requests are under way at once: as many as the server bears, whatever it does when it is full."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from selfpriority.backends.pace import FIRST, Pace


class Leap(selectors.DefaultSelector):
    """Waits for nothing: time goes on to what comes next, so that a busy machine changes nothing."""

    now = 0.0

    def select(self, timeout=None):
        self.now += timeout or 0.0
        return super().select(0)


def run(work: Callable[[Callable[[], float]], Awaitable[Any]]) -> Any:
    """What `work` returns, given the clock."""
    leap = Leap()
    loop = asyncio.SelectorEventLoop(leap)
    loop.time = lambda: leap.now
    try:
        return loop.run_until_complete(work(loop.time))
    finally:
        loop.close()


class Engine:
    """A server in the same event loop: `slots` requests at once; the others wait, or are refused from `queue` on."""

    def __init__(self, slots: int, queue: int = 10**9, seconds: float = 0.01) -> None:
        self.slots, self.queue, self.seconds = asyncio.Semaphore(slots), queue, seconds
        self.under_way = self.refused = self.most = 0

    async def serve(self) -> bool:
        if self.under_way >= self.queue:
            self.refused += 1
            return False
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        async with self.slots:
            await asyncio.sleep(self.seconds)
        self.under_way -= 1
        return True


async def ask(pace: Pace, engine: Engine, n: int) -> list[int]:
    """Makes n requests and returns the limit after each answer."""
    limits: list[int] = []

    async def one() -> None:
        async with pace:
            while True:
                sent = asyncio.get_running_loop().time()
                if await engine.serve():
                    break
                pace.refused(sent)
                await asyncio.sleep(0.005)
            pace.answered()
            limits.append(pace.limit)

    pace.begin()
    tasks: list[asyncio.Task[None]] = []
    while len(tasks) < n:
        tasks += [asyncio.create_task(one()) for _ in range(min(await pace.room(), n - len(tasks)))]
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    return limits


def made(most: int, n: int, slots: int, queue: int = 10**9) -> tuple[Pace, Engine, list[int]]:
    async def work(clock: Callable[[], float]) -> tuple[Pace, Engine, list[int]]:
        pace, engine = Pace(most, clock), Engine(slots, queue)
        return pace, engine, await ask(pace, engine, n)

    return run(work)


def test_it_doubles_up_to_the_recipes_number_and_no_further():
    pace, engine, limits = made(most=64, n=400, slots=1000)
    assert limits[0] <= FIRST + 1
    assert max(limits) == engine.most == pace.most_under_way == 64


@pytest.mark.parametrize("most", [1, 3])
def test_a_small_number_is_kept_from_the_first_request_on(most):
    pace, engine, _ = made(most=most, n=40, slots=1000)
    assert engine.most == pace.most_under_way == most


def test_refusals_cut_it_to_what_the_server_takes():
    _, engine, limits = made(most=256, n=1500, slots=1000, queue=40)
    assert engine.most <= 40
    assert 20 <= sum(limits[500:]) / len(limits[500:]) <= 42
    assert engine.refused < 150  # a tenth, most of them while it was found out


def test_a_server_that_queues_in_silence_is_not_given_all():
    """More requests under way bring no more answers: only longer ones."""
    _, _, limits = made(most=256, n=1500, slots=20)
    late = limits[-500:]
    assert sum(late) / len(late) < 110
    assert min(late) >= FIRST


def test_one_round_of_refusals_cuts_once():
    pace = Pace(100, lambda: 5.0)
    for _ in range(8):
        pace.refused(4.0)
    assert pace.limit == FIRST // 2
    pace.refused(5.5)  # sent after the cut
    assert pace.limit < FIRST // 2


def test_it_never_ends_at_nothing():
    pace = Pace(100, lambda: 5.0)
    for _ in range(50):
        pace.refused(6.0)
    assert pace.limit == 1


def test_who_gives_up_waiting_takes_no_place():
    async def work() -> None:
        pace = Pace(1)
        await pace.enter()
        waiting, next_one = asyncio.create_task(pace.enter()), asyncio.create_task(pace.enter())
        await asyncio.sleep(0)
        pace.leave()  # the place is given to `waiting`, which is cancelled before it hears of it
        waiting.cancel()
        await asyncio.wait_for(next_one, 5)
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(work())
