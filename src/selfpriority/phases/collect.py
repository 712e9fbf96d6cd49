"""One round's collection: its steps in order, each reading and writing the run directory, those done before skipped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from selfpriority.errors import WorkFailed
from selfpriority.phases.own_steps import steps_of
from selfpriority.phases.resources import Resources
from selfpriority.phases.round_inputs import round_prompts
from selfpriority.phases.round_steps import Round, RoundStep
from selfpriority.run import Run, Spent, Step, key_of
from selfpriority.storage import read_rows, write_rows


def collect_steps(run: Run, resources: Resources, number: int) -> list[Step]:
    """The steps of a round with their keys, each holding all that the step depends on."""
    here = Round(run, resources, number)
    steps: list[Step] = []
    key = ""
    for step in steps_of(resources.recipe):
        key = key_of(key, step.name, step.key_parts(here))
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
            resources.reporter.note(f"{entry.name}: {why}, so it is done again")
            if before is not None and before.key != entry.key:
                run.forget_from(number, step.name)
        with run.recording(entry) as spent:
            _do(step, here, spent)
        made = run.manifest.steps[entry.name]
        if before is not None and before.key == made.key and before.files not in (None, made.files):
            run.undo(steps[place + 1 :])  # their files were made of other rows


def _do(step: RoundStep, here: Round, spent: Spent) -> None:
    run = here.run
    came_in = _input(step, here)
    sifted = step.work(here, came_in, spent)
    rows = step.rows(here, sifted.kept)
    write_rows(run.round(here.number) / step.file, rows, step.row)
    run.record_sifted(here.number, step.name, len(came_in), sifted)
    step.remark(here, rows)
    if not sifted.kept:  # never done: every further command comes here again, and tells why
        reasons = ", ".join(f"{n} {reason}" for reason, n in sifted.reasons.items()) or "no prompt came in"
        name = step.entry(here.number)
        raise WorkFailed(f"{name}: no prompt is left ({reasons}); `spa show {run.folder}` shows the funnel")


def _input(step: RoundStep, here: Round) -> Sequence[Any]:
    """The rows of the step before; the first step has the round's prompts, whose own losses are counted here."""
    if step.is_first:
        loaded = round_prompts(here.recipe, here.number)
        here.run.record_sifted(here.number, "prompts", len(loaded.kept) + len(loaded.dropped_prompts), loaded)
        return loaded.kept
    steps = steps_of(here.recipe)
    before = steps[steps.index(step) - 1]
    return read_rows(here.run.round(here.number) / before.file, before.row)
