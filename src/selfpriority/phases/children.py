"""Runs the process of a phase from its start to its end: what it says is heard, and interrupts and stops reach it."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO

from selfpriority.interrupts import INTERRUPTED
from selfpriority.phases.resources import Reporter

EVENTS = "SPA_EVENTS"
"""Set for the process of a phase whose words are read by the one that started it."""
SECONDS_TO_HEAR = 2.0
"""That a child has to end once its stdin is closed, and its last words to arrive once it is gone."""


class Siblings:
    """Processes that run at once, each waited for by a thread of its own: a signal to this process reaches all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: list[subprocess.Popen[bytes]] = []
        self.is_over = False
        """Whether no further one shall begin."""

    @contextlib.contextmanager
    def with_one_more(self, child: subprocess.Popen[bytes]) -> Iterator[None]:
        """A child that has begun, until it has ended."""
        with self._lock:
            self._running.append(child)
            if self.is_over:  # it began while the others were told
                child.send_signal(_interrupt())
        try:
            yield
        finally:
            with self._lock:
                self._running.remove(child)

    def interrupt(self) -> None:
        """Has all of them store what they have and end; no further one begins."""
        with self._lock:
            self.is_over = True
            for child in self._running:
                child.send_signal(_interrupt())

    def end(self) -> None:
        """Ends all of them at once: each learns it by the end of its stdin."""
        with self._lock:
            for child in self._running:
                if child.stdin is not None:
                    child.stdin.close()

    @contextlib.contextmanager
    def stopping_together(self) -> Iterator[None]:
        """Ctrl-Z in the main thread stops all of them too."""
        with _stopping_together(lambda: [child.pid for child in tuple(self._running)]):
            yield


@dataclass(frozen=True)
class Place:
    """Where the process of a phase runs: alone on the machine, or beside others on its own part of it."""

    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that say which part that is; they go before the user's."""
    siblings: Siblings | None = None


ALONE = Place()


def run_child(command: Sequence[str], allocator: Mapping[str, str], reporter: Reporter, place: Place = ALONE) -> int:
    """Runs a process to its end; its exit code.

    The child has a process group of its own, so that an interrupt reaches it exactly once, from here, whether the
    terminal sent it (Ctrl-C) or somebody sent it to this process alone; a second one here ends both. Of several that
    run at once `Siblings` does that, and this is called in a thread.

    Args:
        command: what is run; it shall end when its stdin closes.
        allocator: variables for it, unless the user has set them.
        reporter: hears what it writes, if it wants to.
        place: where it runs.

    Raises:
        KeyboardInterrupt: interrupted; the child has ended.
    """
    if place.siblings is not None and place.siblings.is_over:
        return INTERRUPTED
    events = {EVENTS: "1"} if reporter.hears else {}
    environment = {**allocator, **os.environ, **place.environment, **events}
    told = subprocess.PIPE if reporter.hears else None
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stderr=told, env=environment, process_group=0) as child,
        place.siblings.with_one_more(child) if place.siblings is not None else _stopping_together(lambda: [child.pid]),
        _listening(child, reporter),
    ):
        try:
            code = child.wait()
            is_stopped = code < 0 and place.siblings is not None and place.siblings.is_over
            return INTERRUPTED if is_stopped else code  # it had not begun to hear signals
        except KeyboardInterrupt:
            child.send_signal(_interrupt())
            _wait_for_the_end(child)
            raise KeyboardInterrupt from None


def _interrupt() -> signal.Signals:
    """What interrupts a child: Ctrl-C's signal, unless it is ignored here (a job in the background), and so there."""
    return signal.SIGTERM if signal.getsignal(signal.SIGINT) is signal.SIG_IGN else signal.SIGINT


def _wait_for_the_end(child: subprocess.Popen[bytes]) -> None:
    """Waits while an interrupted child stores what it has; a further interrupt ends it."""
    try:
        child.wait()
    finally:
        if child.stdin is not None:
            child.stdin.close()  # by which it learns that it shall end
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=SECONDS_TO_HEAR)


@contextlib.contextmanager
def _listening(child: subprocess.Popen[bytes], reporter: Reporter) -> Iterator[None]:
    """Whatever the child writes reaches the reporter, line by line, while and shortly after it runs.

    The pipe is the listener's alone from here on: to close it would wait until nobody writes into it any more, which
    may be long after the child.
    """
    told, child.stderr = child.stderr, None
    if told is None:
        yield
        return
    listener = threading.Thread(target=_listen, args=(told, reporter), daemon=True)
    listener.start()
    try:
        yield
    finally:
        listener.join(timeout=SECONDS_TO_HEAR)  # a process that outlives the child may hold the pipe


def _listen(told: IO[bytes], reporter: Reporter) -> None:
    with io.TextIOWrapper(told, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            with contextlib.suppress(Exception):  # a line that cannot be shown must not keep the child from writing
                reporter.hear(line.rstrip("\n"))


@contextlib.contextmanager
def _stopping_together(running: Callable[[], Sequence[int]]) -> Iterator[None]:
    """Ctrl-Z stops the children too, and `fg` or `bg` continues them: the terminal speaks to this process alone."""

    def stop(*_: object) -> None:
        stopped = running()
        _signal_groups(stopped, signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)  # the next line runs once somebody continues this process
        _signal_groups(stopped, signal.SIGCONT)

    if threading.current_thread() is not threading.main_thread():  # who runs a recipe in a thread has no terminal
        yield
        return
    before = signal.signal(signal.SIGTSTP, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTSTP, before)


def _signal_groups(leaders: Sequence[int], number: signal.Signals) -> None:
    for leader in leaders:
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            os.killpg(leader, number)
