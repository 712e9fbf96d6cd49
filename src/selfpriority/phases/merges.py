"""Systems whose weights are a sum of what others learned: `evaluate.more_systems.NAME.merge`. Nothing is trained.

A merged model lies in the folder `merged/NAME` of the run, and its step in the run's own manifest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from selfpriority.errors import WorkFailed
from selfpriority.phases.branches import branches, check_branches_trained, policies
from selfpriority.phases.models import model_key
from selfpriority.phases.resources import Resources
from selfpriority.recipe import Recipe, check_merges, merged_systems
from selfpriority.report.cards import write_policy_cards
from selfpriority.run import MERGED, Run, key_of
from selfpriority.run_records import Step

_NUMERICS = {"save", "dtype", "weights"}
"""Fields of `align` that decide in which type a model is saved."""


@dataclass(frozen=True)
class Merge:
    """One such system."""

    name: str
    weights: Mapping[str, float]
    """Policy -> how much of its movement from the model is in this one's weights."""
    folder: Path
    """Where its model lies, once it is merged."""

    def step(self, recipe: Recipe) -> Step:
        """Its entry in the manifest; the policies are there."""
        parts = [(model_key(policy), weight) for policy, weight in self.weights.items()]
        numerics = recipe.align.model_dump(include=_NUMERICS)
        return Step(f"{MERGED}/{self.name}", key_of("merge", model_key(recipe.model), parts, numerics), (self.folder,))


def merges(run: Run, recipe: Recipe) -> list[Merge]:
    """The systems that are merged of others, in the order of the recipe.

    Raises:
        InputError: one is merged of what this run does not train.
    """
    check_merges(recipe)
    asked = merged_systems(recipe)
    made = policies(run, recipe, branches(run, recipe)) if asked else {}
    return [
        Merge(name, {made[part]: weight for part, weight in parts.items()}, run.folder / MERGED / name)
        for name, parts in asked.items()
    ]


def merge_steps(run: Run, resources: Resources) -> list[Step]:
    """The entries of all merges; the policies are there."""
    return [merge.step(resources.recipe) for merge in merges(run, resources.recipe)]


def merge(run: Run, resources: Resources) -> None:
    """Makes the models that are not made.

    Raises:
        WorkFailed: a system that one is merged of is not trained, or the disk is full.
    """
    from selfpriority.training.merge import save_merged  # loads torch

    recipe = resources.recipe
    check_branches_trained(run, resources)
    for each in merges(run, recipe):
        step = each.step(recipe)
        if run.is_done(step):
            continue
        if why := run.why_again(step):
            resources.reporter.note(f"{step.name}: {why}, so it is done again")
        with run.recording(step):
            save_merged(recipe.model, each.weights, recipe.align, each.folder)
    write_policy_cards(run)


def check_all_made(run: Run, resources: Resources) -> None:
    """Raises WorkFailed unless all that is evaluated was trained, or merged, under the present recipe."""
    check_branches_trained(run, resources)
    for step in merge_steps(run, resources):
        if not run.is_done(step):
            raise WorkFailed(
                f"{run.folder}: {step.name} is not merged under the present recipe; `spa run` with the "
                f"run's recipe merges it"
            )
