"""Systems of a run that train or are evaluated at once, each on a part of the machine: GPUs or a share of the cores.

Knows which system starts from which, and that an interrupt ends all; what is done with one of them is the caller's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from glob import glob

from selfpriority.evaluation.records import System
from selfpriority.interrupts import INTERRUPTED
from selfpriority.phases.children import ALONE, Place, Siblings
from selfpriority.phases.judge_names import judge_backend
from selfpriority.phases.models import in_process
from selfpriority.phases.summary import judges_of
from selfpriority.phases.systems import asks
from selfpriority.recipe import (
    VANILLA,
    Backend,
    HfBackend,
    JudgeSection,
    OpenaiBackend,
    RayBackend,
    Recipe,
    VllmBackend,
)

LOOK_UP = 0.2
"""Seconds after which a wait looks for signals."""
_DEVICES = ("/dev/nvidia[0-9]*", "/dev/kfd", "/dev/dxg")
"""Where a GPU is, at least one of these is there: NVIDIA's, AMD's, and that of Linux under Windows."""
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
    answering = [backend for recipe in found for backend in (recipe.backend, _own_backend(recipe.score.judge))]
    if len(found) < 2 or at_once == 1 or any(map(_takes_gpus_itself, answering)):
        return [ALONE]
    gpus, each = _gpus(), max(recipe.align.processes for recipe in found)
    groups = [gpus[start : start + each] for start in range(0, len(gpus) - each + 1, each)]
    return _places(min(at_once or max(1, len(groups)), len(found)), each, groups)


def evaluation_places(recipe: Recipe, systems: Sequence[System]) -> list[Place]:
    """Where systems are evaluated, as many at once as there are places: on a GPU each, or on its share of the cores.

    One place where who answers or judges chooses its GPUs itself, and where a judge is at a server: what that may be
    asked at once is said for one process.

    Args:
        recipe: the run's.
        systems: those that are left to be evaluated.
    """
    sections = [*judges_of(recipe).values()]
    if any(system.how == "best_of_n" for system in systems):  # the judge of training chooses
        sections.append(recipe.score.judge)
    answers = in_process(recipe.backend)
    judges = [judge_backend(section, recipe.backend) for section in sections]
    if any(isinstance(each, OpenaiBackend) or _takes_gpus_itself(each) for each in (answers, *judges)):
        return [ALONE]
    at_once = recipe.evaluate.at_once
    if len(systems) < 2 or at_once == 1:
        return [ALONE]
    gpus = _gpus() if isinstance(answers, HfBackend) and answers.device in ("auto", "cuda") else []
    most = min(at_once or len(gpus), len(gpus)) if gpus else at_once or 1  # each plans for all of a GPU's memory
    return _places(min(most, len(systems)), 1, [[gpu] for gpu in gpus])


def systems_apart(systems: Sequence[System], n: int, recipe: Recipe) -> list[tuple[str, ...]]:
    """Names of the systems in `n` parts that take about as long, each in the given order; fewer where there are fewer.

    What is asked with vanilla's answers before it stays with vanilla, and finds them.
    """
    behind_vanilla = tuple(system.name for system in systems if system.name == VANILLA or asks(system))
    costs: dict[tuple[str, ...], int] = {behind_vanilla: len(behind_vanilla)}
    for system in systems:
        if system.name not in behind_vanilla:
            costs[(system.name,)] = recipe.sample.n if system.how == "best_of_n" else 1
    parts, totals = [set[str]() for _ in range(n)], [0] * n
    for names in sorted(costs, key=lambda names: -costs[names]):  # the largest first, of equal ones the first
        least = totals.index(min(totals))
        parts[least].update(names)
        totals[least] += costs[names]
    return [tuple(system.name for system in systems if system.name in part) for part in parts if part]


def _places(n: int, n_processes: int, groups: Sequence[Sequence[str]]) -> list[Place]:
    """So many places, each with a group of GPUs, or where there is none with a share of the cores for its processes."""
    if n < 2:
        return [ALONE]
    siblings = Siblings()
    if groups:
        return [Place({VISIBLE: ",".join(groups[i % len(groups)])}, siblings) for i in range(n)]
    threads = {} if THREADS in os.environ else {THREADS: str(max(1, _n_cores() // (n * n_processes)))}
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
                ready = _next(waiting, starts, ended)
                is_alone = not under_way and len(ready) == 1
                for name in ready:
                    if code := ended.get(starts[name] or ""):
                        ended[name] = code
                    elif free:
                        place = free.pop()
                        taken = _whole(place) if is_alone else place
                        under_way[threads.submit(train, name, taken)] = name, place
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


def _whole(place: Place) -> Place:
    """All cores in place of a share, for the only one that can begin; who has a GPU has no use for others."""
    return place if VISIBLE in place.environment else Place({}, place.siblings)


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


def _own_backend(section: JudgeSection) -> Backend | None:
    backend: Backend | None = getattr(section, "backend", None)
    return backend


def _takes_gpus_itself(backend: Backend | None) -> bool:
    """Whether it answers on GPUs that it chooses, so that a part of them would not be what it looks for."""
    return isinstance(backend, RayBackend | VllmBackend) or (isinstance(backend, HfBackend) and ":" in backend.device)


def _gpus() -> list[str]:
    """The GPUs that this process may use, as the variable names them."""
    if "torch" not in sys.modules and not any(glob(pattern) for pattern in _DEVICES):
        return []  # known in no time: importing torch takes seconds
    import torch

    n, told = torch.cuda.device_count(), os.environ.get(VISIBLE)
    names = [str(i) for i in range(n)] if told is None else [name.strip() for name in told.split(",")]
    return names[:n]


def _n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
