"""Every input of a run, looked at before any work: a mistake shows in the first second, not after the first hour."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from selfpriority.errors import InputError
from selfpriority.method.order import Order
from selfpriority.phases.align import align_step
from selfpriority.phases.branches import Branch, branches
from selfpriority.phases.evaluate import check_evaluation
from selfpriority.phases.judge_check import check_anchors
from selfpriority.phases.launch import node_command
from selfpriority.phases.merges import merges
from selfpriority.phases.models import model_key
from selfpriority.phases.own_steps import as_trained, check_own, idle_in_system
from selfpriority.phases.readiness import Ahead, check_ready
from selfpriority.phases.resources import Reporter, Resources
from selfpriority.phases.round_inputs import notes_of_languages, start_of_training, usable_prompts
from selfpriority.recipe import (
    TRAINED,
    OpenaiBackend,
    RayBackend,
    Recipe,
    VllmBackend,
    branch_of,
    dump,
    is_as_shipped,
    unused_fields,
    unused_in_training,
)
from selfpriority.stages import before, behind, is_done, rounds


def check_inputs(resources: Resources) -> None:
    """Reads every input before any work: a mistake shows in the first second, not after the first hour.

    Raises:
        InputError: constitution, prompts, personas, model, held-out prompts or a judge are wrong, or this machine lacks
            what is left to do needs: a package, a key's variable, GPUs.
    """
    recipe = resources.recipe
    check_anchors(resources)  # reads the constitution
    _check_machine(resources)
    model_key(recipe.model)  # of its files, which training needs whoever generates
    if recipe.align.start is not None:
        model_key(recipe.align.start)
    check_own(recipe)
    prompts = usable_prompts(recipe, recipe.rounds)
    for note in notes_of_languages(recipe, prompts.kept):
        resources.reporter.note(note)
    for note in prompts.notes("prompts"):
        resources.reporter.note(note)
    for reason, n in prompts.reasons.items():
        resources.reporter.note(f"prompts: {n} dropped: {reason}")
    for unused in unused_fields(recipe):
        resources.reporter.note(unused)
    if recipe.align.nodes > 1:
        how = node_command(recipe.align, resources.run.folder)
        resources.reporter.note(f"align.nodes: {recipe.align.nodes}: the run stops before a training, until {how}")
    if strange := recipe.align.strange_beta:
        resources.reporter.note(strange)
    beside = branches(resources.run, recipe)  # what is wrong with one is found here
    for branch in beside:
        _check_branch(branch, recipe.evaluate.more_systems[branch.name].train, resources.reporter)
    for line in _same_twice(recipe, beside):
        resources.reporter.note(line)
    merges(resources.run, recipe)
    if recipe.evaluate.prompts is not None:
        check_evaluation(resources)
    _check_training(resources)


def _check_machine(resources: Resources) -> None:
    """Whether this machine has what is left to do needs; a run that is done needs nothing."""
    run = resources.run
    ahead, is_over = Ahead(), False
    if run.manifest.steps:  # else its keys would fetch models, which comes after all that costs nothing
        with contextlib.suppress(InputError):  # told where what is wrong is looked at by itself
            trains = _trains_yet(resources)
            ahead = Ahead(collects=trains and _collects_yet(resources), trains=trains)
            phases = (*before(run, resources), *rounds(run, resources), *behind(run, resources))
            is_over = not trains and all(is_done(run, resources, phase) for phase in phases)
    if not is_over:
        check_ready(resources.recipe, resources.constitution.names, ahead)


def _trains_yet(resources: Resources) -> bool:
    """Whether a training is left to do, of the run or of a system beside it; rounds are looked at in order."""
    beside = branches(resources.run, resources.recipe)
    for theirs in (resources, *(Resources(each.recipe, each.run, resources.reporter) for each in beside)):
        for number in range(1, theirs.recipe.rounds + 1):
            if not theirs.run.is_done(align_step(theirs.run, theirs, number)):
                return True
    return False


def _collects_yet(resources: Resources) -> bool:
    """Whether candidates are left to be drawn; of a later round that is not known before the one before is trained."""
    run = resources.run
    for phase in rounds(run, resources):
        if not is_done(run, resources, phase):
            return phase.name == "collect" or phase.round < resources.recipe.rounds
    return False


def _check_branch(branch: Branch, changes: Mapping[str, Any], reporter: Reporter) -> None:
    place = f"evaluate.more_systems.{branch.name}.train"
    theirs = Resources(branch.recipe, branch.run, reporter)
    try:
        names = theirs.constitution.names
        if branch.recipe.pairs is None:
            Order.of(branch.recipe.pair, names)
        check_own(branch.recipe)
        _check_training(theirs)
    except InputError as error:
        raise InputError(*(f"{place}: {line}" for line in error.lines)) from error
    # what a shipped system says of its own method nobody here wrote, so no wish is lost
    is_shipped = is_as_shipped(branch.name, changes, names)
    idle = [] if is_shipped else unused_in_training(branch.recipe.align, changes.get("align", {}))
    for line in filter(None, [*idle, *idle_in_system(branch.recipe, changes), branch.recipe.align.strange_beta]):
        reporter.note(f"{place}: {line}")


def _same_twice(recipe: Recipe, beside: Sequence[Branch]) -> Iterator[str]:
    """A line for every system that is trained as another one is."""
    seen = {dump(as_trained(branch_of(recipe, {}, ""))): TRAINED}
    for branch in beside:
        start = recipe.evaluate.more_systems[branch.name].start or ""
        twin = seen.setdefault(f"{dump(as_trained(branch.recipe))}{start}", branch.name)
        if twin != branch.name:
            yield f"evaluate.more_systems.{branch.name}: under this recipe it is trained as {twin} is; leave it out"


def _check_training(resources: Resources) -> None:
    """Whether the model that shall be trained can be, without its weights; nothing once it was."""
    recipe, run = resources.recipe, resources.run
    is_named = recipe.align.lora is not None and recipe.align.lora.targets != "all-linear"
    # else its files are opened before anything is paid for
    is_served = isinstance(recipe.backend, OpenaiBackend | VllmBackend | RayBackend)
    start = start_of_training(run, recipe, 1)
    waits = Path(start).is_absolute() and not Path(start).exists()  # for one that is trained first
    if not (is_named or is_served) or (not waits and run.is_done(align_step(run, resources, 1))):
        return
    from selfpriority.training.parameters import check_trainable

    check_trainable(recipe.model, recipe.align.lora)
