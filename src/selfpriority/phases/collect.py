"""One round's collection: its steps in order, each reading and writing the run directory, those done before skipped.

A step takes its prompts shard by shard, so that a million of them need no more memory than a few thousand.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import ceil
from typing import Any

from selfpriority.errors import WorkFailed
from selfpriority.phases.own_steps import steps_of
from selfpriority.phases.resources import Resources, Shard
from selfpriority.phases.round_inputs import round_prompts
from selfpriority.phases.round_steps import Round, RoundStep, Work
from selfpriority.phases.shards import SHARD, Growing
from selfpriority.run import Run, key_of
from selfpriority.run_records import Spent, Step, trained_by
from selfpriority.storage import content_of, iter_rows


def collect_steps(run: Run, resources: Resources, number: int) -> list[Step]:
    """The steps of a round with their keys, each holding all that the step depends on."""
    here = Round(run, resources, number)
    steps: list[Step] = []
    key = ""
    for step in steps_of(resources.recipe):
        key = step.key(here, key)
        steps.append(Step(step.entry(number), key, (run.round(number) / step.file,), number, step.counts))
    return steps


def collect(run: Run, resources: Resources, number: int) -> None:
    """Does the steps of a round that are not done.

    Raises:
        WorkFailed: a step lost its last prompt; the funnel so far is written and says where they went.
    """
    here = Round(run, resources, number)
    steps = collect_steps(run, resources, number)
    for place, (step, entry) in enumerate(zip(steps_of(resources.recipe), steps, strict=True)):
        if run.is_done(entry):
            continue
        run.forget_damaged_counts(number)
        before = run.manifest.steps.get(entry.name)
        if why := run.why_again(entry):
            resources.reporter.note(f"{run.named(entry.name)}: {why}, so it is done again")
            if before is not None and before.key != entry.key:
                run.forget_from(number, step.name)
        with run.recording(entry) as spent:
            _do(step, here, entry, spent)
        if run.is_made_otherwise(entry, before):  # what comes behind was made of other rows, the training too
            trained = trained_by(number)
            if trained in run.manifest.steps:
                resources.reporter.note(
                    f"{run.named(trained)}: {entry.name} found other rows than before, so it is done again"
                )
            run.undo([*steps[place + 1 :], Step(trained, "", ())])


def _do(step: RoundStep, here: Round, entry: Step, spent: Spent) -> None:
    run = here.run
    came_in = _input(step, here)
    (path,) = entry.outputs
    growing: Growing[Any] = Growing(path, step.row, key_of(entry.key, came_in.content))
    spent.go_on(growing.so_far.spent)
    began = time.monotonic() - spent.seconds
    work: Work | None = None
    for shard in _shards(came_in, growing.so_far.counts.n_in, step.is_whole, here):
        work = work or step.opened(here, spent, came_in.all())
        sifted = work(shard)
        growing.add(len(shard), step.rows(here, sifted.kept), sifted, replace(spent, seconds=time.monotonic() - began))
    growing.finish()
    counts = growing.so_far.counts
    run.record_counts(here.number, step.name, counts, growing.drops())
    growing.clear()
    step.remark(here, iter_rows(path, step.row))
    if not counts.out:  # never done: every further command comes here again, and tells why
        reasons = ", ".join(f"{n} {reason}" for reason, n in counts.dropped.items()) or "no prompt came in"
        raise WorkFailed(
            f"{run.named(entry.name)}: no prompt is left ({reasons}); `spa show {run.folder}` shows the funnel"
        )


@dataclass(frozen=True)
class _Input:
    """What comes into a step, row by row."""

    rows: Callable[[int], Iterable[Any]]
    """How many are passed over -> the others."""
    n: int
    content: str
    """A hash of it; empty where the step's key says it."""

    def all(self) -> Iterable[Any]:
        """Every row."""
        return self.rows(0)


def _shards(came_in: _Input, done: int, is_whole: bool, here: Round) -> Iterator[Sequence[Any]]:
    """What is not done yet, shard by shard; whoever watches is told which it is."""
    size = max(came_in.n, 1) if is_whole else SHARD
    rest = iter(came_in.rows(done))
    while shard := tuple(islice(rest, size)):
        here.resources.shard = Shard(done // size + 1, max(1, ceil(came_in.n / size)))
        yield shard
        done += len(shard)
    here.resources.shard = Shard()


def _input(step: RoundStep, here: Round) -> _Input:
    """The rows of the step before; the first step has the round's prompts, whose own losses are counted here."""
    if step.is_first:
        loaded = round_prompts(here.recipe, here.number)
        here.run.record_sifted(here.number, "prompts", len(loaded.kept) + len(loaded.dropped_prompts), loaded)
        return _Input(lambda done: loaded.kept[done:], len(loaded.kept), "")
    steps = steps_of(here.recipe)
    before = steps[steps.index(step) - 1]
    path = here.run.round(here.number) / before.file
    content = content_of(path)
    return _Input(lambda done: iter_rows(path, before.row, skipped=done), content.rows or 0, content.sha256)
