"""Further systems that a run trains on its own answers: each is a run of its own in the folder `systems/NAME`.

A branch shares the answers, ratings and cache, and differs in what comes after: `evaluate.more_systems.NAME.train`.
As it is a run, all that works on runs works on it: `spa show RUN/systems/NAME`, `spa export`, `spa doctor`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace

from selfpriority.errors import WorkFailed
from selfpriority.phases.align import check_trained
from selfpriority.phases.collect import collect_steps
from selfpriority.phases.resources import Resources
from selfpriority.phases.round_steps import REFINE, ROUND_STEPS
from selfpriority.recipe import TRAINED, Recipe, branch_of, dump, in_order
from selfpriority.records import Drop
from selfpriority.run import DROPS, SYSTEMS, Run
from selfpriority.run_records import Step
from selfpriority.storage import content_of, write_rows, write_text

N_SHARED = ROUND_STEPS.index(REFINE) + 1
"""Steps of the first round that ask models: they are taken over, what follows is done anew in seconds."""


@dataclass(frozen=True)
class Branch:
    """One such system."""

    name: str
    recipe: Recipe
    run: Run

    @property
    def policy(self) -> str:
        """The policy that answers in the evaluation."""
        return str(self.run.policy(self.recipe.rounds))


def branches(run: Run, recipe: Recipe) -> list[Branch]:
    """The systems that are trained beside the run's own, each behind the one that it starts from.

    Raises:
        InputError: one differs in what it may not, has a value that cannot be, or starts from what is not trained.
    """
    found: list[Branch] = []
    for name in in_order(recipe):
        other = recipe.evaluate.more_systems[name]
        theirs = branch_of(recipe, other.train, f"evaluate.more_systems.{name}.train")
        folder = run.folder / SYSTEMS / name
        if other.start is not None:  # told from the branch's own folder, so that a run may be moved
            start = os.path.relpath(policies(run, recipe, found)[other.start], folder)
            theirs = theirs.model_copy(update={"align": theirs.align.model_copy(update={"start": start})})
        found.append(Branch(name, theirs, Run(folder)))
    return found


def policies(run: Run, recipe: Recipe, trained: Sequence[Branch]) -> dict[str, str]:
    """System -> policy of the run's own and of others that were trained beside."""
    return {TRAINED: str(run.policy(recipe.rounds)), **{branch.name: branch.policy for branch in trained}}


def check_branches_trained(run: Run, resources: Resources) -> None:
    """Raises WorkFailed unless every policy, of the run and of its branches, was trained under the present recipe."""
    check_trained(run, resources)
    for branch in branches(run, resources.recipe):
        try:
            check_trained(branch.run, Resources(branch.recipe, branch.run, resources.reporter))
        except WorkFailed as error:
            lack = f"{SYSTEMS}/{branch.name} is not trained under the present recipe"
            raise WorkFailed(f"{run.folder}: {lack}; `spa run` with the run's recipe trains it") from error


def prepare(branch: Branch, run: Run, resources: Resources) -> Resources:
    """Makes the branch's folder a run that has what the run's first round has asked of models; its resources."""
    write_text(branch.run.recipe, [dump(branch.recipe)])
    for judge in ("heads", "battery"):  # those that a model made for itself
        if (run.folder / judge).is_dir():
            shutil.copytree(run.folder / judge, branch.run.folder / judge, dirs_exist_ok=True)
    theirs = Resources(branch.recipe, branch.run, resources.reporter)
    ours = collect_steps(run, resources, 1)[: N_SHARED if resources.recipe.pairs is None else 1]
    taken: set[str] = set()
    for mine, its in zip(ours, collect_steps(branch.run, theirs, 1), strict=False):
        if mine.key != its.key or not run.is_done(mine):  # refined in another order: asked again, and known
            break
        if not (branch.run.is_done(its) and _is_copy(mine, its)):
            branch.run.undo([Step(name, "", ()) for name in branch.run.manifest.steps if name not in taken])
            _take_over(mine, run, its, branch.run)
        taken.add(its.name)
    return theirs


def _is_copy(mine: Step, its: Step) -> bool:
    """Whether the branch has the run's very rows: answers that were lost and drawn anew have the same key."""
    return all(content_of(a) == content_of(b) for a, b in zip(mine.outputs, its.outputs, strict=True))


def _take_over(mine: Step, run: Run, its: Step, branch: Run) -> None:
    """A step's files and counts, as they are in the run."""
    number = mine.round
    branch.forget_damaged_counts(number)
    branch.forget_from(number, its.counts[0])
    with branch.recording(its):
        for source, target in zip(mine.outputs, its.outputs, strict=True):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
        drops = [drop for drop in run.drops(number) if drop.step in mine.counts]
        write_rows(branch.round(number) / DROPS, [*branch.drops(number), *drops], Drop)
        funnel, counted = branch.funnel(number), run.funnel(number).steps
        steps = {**funnel.steps, **{name: counted[name] for name in mine.counts}}
        branch.write_funnel(number, replace(funnel, steps=steps))
