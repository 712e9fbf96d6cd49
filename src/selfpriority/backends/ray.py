"""Replicas of a model on a Ray cluster: every one an actor that has the model open, fed by this process alone.

Ray Core actors and not Ray Data, which asks finished rows again when an actor dies. Here a batch is with one replica
until its answers are back, and only batches that were with a replica that died are asked again. Knows no cache: it is
whoever calls that keeps what is yielded, and nobody else writes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from weakref import WeakSet

from selfpriority.errors import InputError, SelfPriorityError, WorkFailed
from selfpriority.language_model import Answer, LanguageModel, Request
from selfpriority.recipe import RayBackend, VllmBackend

MOST_DEATHS = 3
"""Replicas that may die over one task before it is said to be the task's fault."""
PATIENCE = 60.0
"""Seconds without any replica after which it is told what the cluster has."""
_SECONDS_TO_CONNECT = 10
_TOGETHER = 32
"""Batches of one request each that an engine is given at once, so that it has a batch of its own to fill."""

Opens = Callable[[], LanguageModel]
Told = Callable[[str], None]


class Replica:
    """What runs in the actor: the model, opened there."""

    def __init__(self, opens: Opens) -> None:
        self._model = opens()

    def fingerprint(self) -> str:
        """The model's, so the actor is up once this is told."""
        return self._model.fingerprint

    def plan(self, requests: Sequence[Request]) -> list[list[int]]:
        """The model's."""
        return self._model.plan(requests)

    def answer(self, batches: Sequence[Sequence[Request]]) -> list[list[Answer]]:
        """The answers by batch."""
        return [answers for _, answers in sorted(self._model.answer(batches), key=lambda found: found[0])]


@dataclass
class _Task:
    """Batches that go to a replica together."""

    numbers: tuple[int, ...]
    deaths: int = 0
    """Replicas that died while they had it."""


@dataclass
class _Seat:
    """The place of one replica; where one died a new one is begun, which waits until a node has room for it."""

    actor: Any
    is_up: bool = False
    flying: dict[Any, _Task] = field(default_factory=dict)
    """Tasks that it has, by the reference of their answers."""


@dataclass(frozen=True)
class _Landed:
    """A task that is over."""

    seat: _Seat
    actor: Any
    """Who had it; the seat has another one by and by, where that died."""
    task: _Task
    reference: Any


class RayModel:
    """A model behind as many replicas as the settings say.

    Args:
        opens: opens the model; called in every replica, so it has to be picklable.
        settings: where the cluster is, how many replicas, what each takes.
        note: told in a line what is missing while no replica is up, and of each that died.

    Raises:
        InputError: there is no Ray, or no such cluster; while answering, replicas hold different models.
        WorkFailed: while answering, a task cost several replicas their lives.
    """

    def __init__(self, opens: Opens, settings: RayBackend, note: Told = lambda text: None) -> None:
        self._settings, self._note = settings, note
        self._ray = connected(settings)
        kind = self._ray.remote(Replica).options(num_cpus=settings.cpus, num_gpus=settings.gpus, max_restarts=0)
        self._begun = partial(kind.remote, opens)
        self._seats: list[_Seat] = []
        self._starting: dict[Any, _Seat] = {}
        self._fingerprint = ""
        self._n_stillborn = 0
        self.is_busy = False

    @property
    def fingerprint(self) -> str:
        """That of the model in the replicas."""
        if not self._fingerprint:
            self._wait_for_one()
        return self._fingerprint

    @property
    def takes(self) -> dict[str, float]:
        """What its replicas take of the cluster."""
        settings = self._settings
        return {"CPU": settings.cpus * settings.replicas, "GPU": settings.gpus * settings.replicas}

    @property
    def is_idle(self) -> bool:
        """Whether it has replicas and asks them nothing."""
        return bool(self._seats) and not self.is_busy

    def dismiss(self) -> None:
        """Gives back what the replicas take; they are begun anew when they are needed."""
        for seat in self._seats:
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.kill(seat.actor)
        self._seats, self._starting = [], {}

    def plan(self, requests: Sequence[Request]) -> list[list[int]]:
        """That of the first replica which is up."""
        while True:
            seat = self._wait_for_one()
            try:
                return list(self._ray.get(seat.actor.plan.remote(requests)))
            except self._ray.exceptions.RayError as error:
                self._lose(seat, error)

    def answer(self, batches: Sequence[Sequence[Request]]) -> Iterator[tuple[int, list[Answer]]]:
        """Batches as they come back, `depth` tasks with every replica at a time."""
        size = _TOGETHER if isinstance(self._settings.each, VllmBackend) else 1
        numbers, self.is_busy = range(len(batches)), True
        waiting = deque(_Task(tuple(numbers[i : i + size])) for i in range(0, len(numbers), size))
        try:
            while waiting or self._flying():
                self._feed(waiting, batches)
                failed: list[tuple[_Landed, BaseException]] = []
                for landed in list(self._landed()):  # the good ones first: a death takes only what is still in hand
                    try:
                        answers = self._ray.get(landed.reference)
                    except self._ray.exceptions.RayError as error:
                        failed.append((landed, error))
                        continue
                    yield from zip(landed.task.numbers, answers, strict=True)
                for landed, why in failed:
                    is_its_first = landed.seat.actor is landed.actor
                    lost = self._lose(landed.seat, why) if is_its_first else []
                    waiting.extendleft(_survivors([landed.task, *lost], why))
        finally:
            for seat in self._seats:  # what was asked for is not wanted any more
                for reference in seat.flying:
                    with contextlib.suppress(self._ray.exceptions.RayError):
                        self._ray.cancel(reference)
                seat.flying.clear()
            self.is_busy = False

    def _flying(self) -> bool:
        return any(seat.flying for seat in self._seats)

    def _feed(self, waiting: deque[_Task], batches: Sequence[Sequence[Request]]) -> None:
        """Gives tasks to the replicas that are up, one each in turn, so that the last tasks are shared."""
        for _ in range(self._settings.depth):
            for seat in self._seats:
                if waiting and seat.is_up and len(seat.flying) < self._settings.depth:
                    task = waiting.popleft()
                    asked = [batches[number] for number in task.numbers]
                    seat.flying[seat.actor.answer.remote(asked)] = task

    def _landed(self) -> Iterator[_Landed]:
        """Tasks that are over, done or not, once there is one; replicas that came up meanwhile are known to be up."""
        owners = {reference: seat for seat in self._seats for reference in seat.flying}
        if not owners:
            self._wait_for_one()
            return
        over, _ = self._ray.wait([*owners, *self._starting], num_returns=1)
        more, _ = self._ray.wait([*owners, *self._starting], num_returns=len(owners) + len(self._starting), timeout=0)
        for reference in dict.fromkeys([*over, *more]):
            if reference in self._starting:
                self._came_up(reference)
            elif reference in owners and reference in owners[reference].flying:  # else its replica died just now
                seat = owners[reference]
                yield _Landed(seat, seat.actor, seat.flying.pop(reference), reference)

    def _wait_for_one(self) -> _Seat:
        """A replica that is up; of none at all, all are begun."""
        told = False
        if not self._seats:
            _make_room(self._ray, self)
            self._seats = [_Seat(self._begun()) for _ in range(self._settings.replicas)]
            self._starting = {seat.actor.fingerprint.remote(): seat for seat in self._seats}
        while True:
            if up := next((seat for seat in self._seats if seat.is_up), None):
                return up
            over, _ = self._ray.wait(list(self._starting), num_returns=1, timeout=PATIENCE)
            for reference in over:
                self._came_up(reference)
            if not over and not told:
                told = True
                self._note(self._shortage())

    def _came_up(self, reference: Any) -> None:
        seat = self._starting.pop(reference)
        try:
            found = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            self._n_stillborn += 1
            if self._n_stillborn >= MOST_DEATHS * len(self._seats):
                raise WorkFailed(f"backend.kind=ray: replicas die as they start: {_first_line(error)}") from error
            self._lose(seat, error)
            return
        if self._fingerprint and found != self._fingerprint:
            raise InputError(
                "backend.kind=ray: replicas hold different models: the files of the model, or versions, differ between "
                "nodes; give all of them one folder or one environment"
            )
        self._fingerprint, seat.is_up, self._n_stillborn = found, True, 0

    def _lose(self, seat: _Seat, error: BaseException) -> list[_Task]:
        """A replica died, or has to: another is begun in its place, and what it had is handed back.

        Raises:
            SelfPriorityError: what is wrong is the recipe's or the model's, and another replica would find it too.
        """
        cause = getattr(error, "cause", None)
        if isinstance(cause, InputError) or _is_death_of_start(error):
            raise InputError(*(cause.lines if isinstance(cause, InputError) else [_start_of(error)])) from error
        if seat.is_up:
            self._note(f"a replica died ({_first_line(error)}); what it had is asked again")
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.kill(seat.actor)  # an engine that failed is no good any more, though its process may live
        lost = list(seat.flying.values())
        seat.actor, seat.is_up = self._begun(), False
        seat.flying.clear()
        self._starting[seat.actor.fingerprint.remote()] = seat
        return lost

    def _shortage(self) -> str:
        has = self._ray.cluster_resources()
        needs = f"{self._settings.cpus:g} CPUs and {self._settings.gpus:g} GPUs"
        there = f"{has.get('CPU', 0):g} CPUs and {has.get('GPU', 0):g} GPUs"
        return (
            f"no replica is up after {PATIENCE:.0f} s: each takes {needs}, and the cluster has {there} in all; "
            f"waiting for nodes"
        )


_FLEETS: WeakSet[RayModel] = WeakSet()
"""Models of this process that may have replicas."""


def _make_room(ray: Any, model: RayModel) -> None:
    """Dismisses replicas of models that nobody is asking now, where the cluster has no room for those of `model`."""
    room = ray.available_resources()
    lacking = {name: wanted - room.get(name, 0.0) for name, wanted in model.takes.items()}
    for other in list(_FLEETS):
        if other is not model and other.is_idle and any(n > 0 for n in lacking.values()):
            other.dismiss()
            lacking = {name: n - other.takes[name] for name, n in lacking.items()}
    _FLEETS.add(model)


def connected(settings: RayBackend) -> Any:
    """Ray, once this process is a driver of the cluster: of the one named, or of one of this machine alone.

    Raises:
        InputError: Ray is not installed, or nothing answers at the address.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError(f"backend.kind: ray needs Ray ({error}); pip install 'selfpriority[ray]'") from error
    if not ray.is_initialized():
        _join(ray, settings.address or os.environ.get("RAY_ADDRESS") or "local")
    return ray


def _join(ray: Any, address: str) -> None:
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # what a dead replica had is asked of another
    before = signal.getsignal(signal.SIGTERM)
    try:
        if ":" in address and "://" not in address:  # Ray itself tries for minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=_SECONDS_TO_CONNECT).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=None)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        place = f"backend.address: {address}"
        raise InputError(
            f"{place}: no Ray cluster answers there ({_first_line(error)}); `ray start --head` begins one"
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)  # Ray puts a handler of its own there


def _survivors(tasks: Sequence[_Task], error: BaseException) -> list[_Task]:
    """Tasks to be asked again, each with a death more.

    Raises:
        WorkFailed: one has cost several replicas their lives.
    """
    for task in tasks:
        task.deaths += 1
        if task.deaths >= MOST_DEATHS:
            cause = getattr(error, "cause", None)
            if isinstance(cause, SelfPriorityError):
                raise WorkFailed(str(cause)) from error
            raise WorkFailed(
                f"backend.kind=ray: {task.deaths} replicas died over the same requests ({_first_line(error)}); "
                f"what was answered is kept"
            ) from error
    return list(reversed(tasks))


def _is_death_of_start(error: BaseException) -> bool:
    """Whether the model could not be opened at all, by a mistake of ours that the error's text names."""
    return type(error).__name__ == "ActorDiedError" and f"{InputError.__name__}: " in str(error)


def _start_of(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if f"{InputError.__name__}: " in line]
    return lines[-1].split(f"{InputError.__name__}: ", 1)[1]


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
