"""Systems of a run that train at once, each on a part of the machine: its own GPUs, or a share of the cores.

Knows which system starts from which, and that an interrupt ends all; how one of them is trained is the caller's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from selfpriority.interrupts import INTERRUPTED
from selfpriority.phases.children import ALONE, Place, Siblings
from selfpriority.recipe import Backend, HfBackend, RayBackend, Recipe, VllmBackend

LOOK_UP = 0.2
"""Seconds after which a wait looks for signals."""
VISIBLE, THREADS = "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"

Train = Callable[[str, Place], int]
"""Trains a system where it is told to; its exit code."""


def places(found: Sequence[Recipe], at_once: int | None) -> list[Place]:
    """Where systems train, as many at once as there are places: each has the GPUs of one training to itself.

    Without a GPU, or with too few, it is one place unless more are asked for; on a CPU each has its share of the cores,
    unless the user has said how many threads a process has. Where an engine, a cluster or a device by its number
    answers, it is one place: which GPUs those take is not ours to say.

    Args:
        found: the systems' recipes.
        at_once: `evaluate.at_once`.
    """
    if len(found) < 2 or at_once == 1 or any(map(_takes_gpus_itself, found)):
        return [ALONE]
    gpus, each = _gpus(), max(recipe.align.processes for recipe in found)
    groups = [gpus[start : start + each] for start in range(0, len(gpus) - each + 1, each)]
    n = min(at_once or max(1, len(groups)), len(found))
    if n == 1:
        return [ALONE]
    siblings = Siblings()
    if groups:
        return [Place({VISIBLE: ",".join(groups[i % len(groups)])}, siblings) for i in range(n)]
    threads = {} if THREADS in os.environ else {THREADS: str(max(1, _n_cores() // (n * each)))}
    return [Place(threads, siblings)] * n


def train_all(starts: Mapping[str, str | None], where: Sequence[Place], train: Train) -> dict[str, int]:
    """Trains every system, those behind the one that they start from; exit codes of those that came to an end.

    One that fails holds up those that start from it, and no other; an interrupted one is the last.

    Args:
        starts: system -> the one it starts from, if that is one of them; in the order in which they may be trained.
        where: as many train at once.
        train: trains one. In a thread, where there are several places.

    Raises:
        KeyboardInterrupt: interrupted; all have ended.
    """
    if len(where) > 1:
        return _at_once(starts, where, train)
    ended: dict[str, int] = {}
    for name, start in starts.items():
        ended[name] = ended.get(start or "") or train(name, where[0])
        if ended[name] == INTERRUPTED:
            break
    return ended


def _at_once(starts: Mapping[str, str | None], where: Sequence[Place], train: Train) -> dict[str, int]:
    ended: dict[str, int] = {}
    waiting, free = list(starts), list(where)
    under_way: dict[Future[int], tuple[str, Place]] = {}
    siblings = where[0].siblings
    assert siblings is not None
    with ThreadPoolExecutor(len(where)) as threads, siblings.stopping_together():
        try:
            while waiting or under_way:
                for name in _next(waiting, starts, ended):
                    if code := ended.get(starts[name] or ""):
                        ended[name] = code
                    elif free:
                        place = free.pop()
                        under_way[threads.submit(train, name, place)] = name, place
                    else:
                        break
                    waiting.remove(name)
                for training in wait(under_way, LOOK_UP, FIRST_COMPLETED).done:
                    name, place = under_way.pop(training)
                    ended[name] = training.result()
                    free.append(place)
                    if ended[name] == INTERRUPTED:
                        raise KeyboardInterrupt
        except BaseException:  # an interrupt too: whatever ends this ends all that train
            _end(siblings, under_way)
            raise
    return {name: ended[name] for name in starts}


def _next(waiting: Sequence[str], starts: Mapping[str, str | None], ended: Mapping[str, int]) -> list[str]:
    """Those that wait for no other."""
    return [name for name in waiting if starts[name] not in starts or starts[name] in ended]


def _end(siblings: Siblings, under_way: Mapping[Future[int], object]) -> None:
    """Has all end with what they have; a further interrupt ends them at once."""
    try:
        siblings.interrupt()
        while wait(under_way, LOOK_UP).not_done:
            pass
    except BaseException:  # the second interrupt
        siblings.end()
        raise


def _takes_gpus_itself(recipe: Recipe) -> bool:
    """Whether something answers on GPUs that it chooses, so that a part of them would not be what it looks for."""
    judge: Backend | None = getattr(recipe.score.judge, "backend", None)
    return any(
        isinstance(backend, RayBackend | VllmBackend) or (isinstance(backend, HfBackend) and ":" in backend.device)
        for backend in (recipe.backend, judge)
    )


def _gpus() -> list[str]:
    """The GPUs that this process may use, as the variable names them."""
    import torch

    n, told = torch.cuda.device_count(), os.environ.get(VISIBLE)
    names = [str(i) for i in range(n)] if told is None else [name.strip() for name in told.split(",")]
    return names[:n]


def _n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
