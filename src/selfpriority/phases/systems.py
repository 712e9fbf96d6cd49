"""What is evaluated on what: the systems of a run, and its held-out prompt sets. Opens no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from selfpriority.constitution import Constitution
from selfpriority.errors import InputError
from selfpriority.evaluation.files import EvaluationFiles
from selfpriority.evaluation.records import BETWEEN, System
from selfpriority.phases.branches import branches, policies
from selfpriority.phases.merges import merges
from selfpriority.phases.round_inputs import training_prompts
from selfpriority.prompts import Loaded, load_prompts, said_in
from selfpriority.recipe import TRAINED, VANILLA, OtherSystem, Prompts, Recipe
from selfpriority.records import Drop, Prompt, under, without
from selfpriority.rivals.known import rows_of
from selfpriority.run import Run

Said = tuple[tuple[str, str], ...]
"""(role, text) of every turn."""


@dataclass(frozen=True)
class PromptSet:
    """Held-out prompts and where what is found on them lies."""

    name: str
    """Empty: the main one, `evaluate.prompts`."""
    prompts: Loaded
    files: EvaluationFiles
    source: Prompts

    @property
    def place(self) -> str:
        """The field of the recipe it comes from."""
        return f"evaluate.more_prompts.{self.name}" if self.name else "evaluate.prompts"

    def step(self, what: str) -> str:
        """The name of one of its steps."""
        return f"evaluation/{self.name}/{what}" if self.name else f"evaluation/{what}"


def systems(run: Run, recipe: Recipe) -> list[System]:
    """What is evaluated: the recipe's model, the policy of every round, and what the recipe adds.

    The last round's policy is `spa`, those before it are `spa-round-<n>`; what is trained for others alone is none. All
    of them answer `in_process`: a server has no policy of ours, and one system here and one there would differ in more
    than training.

    Raises:
        InputError: a further system is called as one of ours, or as nobody can tell from two.
    """
    last = recipe.rounds
    ours = [System(VANILLA, recipe.model)]
    own = recipe.align
    ours += [System(f"{TRAINED}-round-{n}", str(run.policy(n)), n, trained=own) for n in range(1, last)]
    ours += [System(TRAINED, str(run.policy(last)), last, trained=own)]
    names = {system.name for system in ours}
    beside = branches(run, recipe)
    made, trained = policies(run, recipe, beside), {branch.name: branch.recipe.align for branch in beside}
    made |= {merge.name: str(merge.folder) for merge in merges(run, recipe)}
    for name, other in recipe.evaluate.more_systems.items():
        if name in names:
            raise InputError(
                f"evaluate.more_systems.{name}: every evaluation has a system of this name; choose another"
            )
        if BETWEEN in f"{name}_":
            raise InputError(f"evaluate.more_systems.{name}: files write {BETWEEN!r} between two names; choose another")
        if other.evaluated:
            model = made.get(name) or meant_model(other, recipe)
            ours.append(System(name, model, how=other.how, trained=trained.get(name)))
    return ours


def meant_model(other: OtherSystem, recipe: Recipe) -> str:
    """The model of a further system that is not trained here."""
    return recipe.model if other.model == "self" else other.model


def plain_models(run: Run, recipe: Recipe) -> dict[str, str]:
    """System -> model of those that are a model of their own and asked as it is, without a prompt before or behind."""
    return {system.name: system.model for system in systems(run, recipe) if system.how == "plain" and not asks(system)}


def asks(system: System) -> bool:
    """Whether it is asked in a way of its own, as the rows that it was trained on are (`selfpriority.rivals`)."""
    align = system.trained
    return align is not None and align.rows != "pairs" and rows_of(align).ask is not None


def check_systems(run: Run, recipe: Recipe) -> None:
    """Raises InputError for a further system with a name that cannot be, or a reference that is no system."""
    names = [system.name for system in systems(run, recipe)]
    reference = recipe.evaluate.reference
    if reference is not None and reference not in names:
        raise InputError(f"evaluate.reference: {reference!r} is no system of this run; it has {', '.join(names)}")


def prompts_to(system: System, prompts: Sequence[Prompt], constitution: Constitution) -> list[Prompt]:
    """The prompts as the system is asked them."""
    if system.how != "constitution":
        return list(prompts)
    return [replace(prompt, messages=under(constitution.text, prompt.messages)) for prompt in prompts]


def prompt_sets(run: Run, recipe: Recipe) -> list[PromptSet]:
    """The held-out prompts of the recipe, the main set first; none without `evaluate.prompts`."""
    if recipe.evaluate.prompts is None:
        return []
    trained = _said_in_training(recipe)
    first = _held_out(recipe, recipe.evaluate.prompts, trained, "evaluate.prompts")
    sets = [PromptSet("", first, EvaluationFiles(run.evaluation), recipe.evaluate.prompts)]
    for name, source in recipe.evaluate.more_prompts.items():
        found = _held_out(recipe, source, trained, f"evaluate.more_prompts.{name}")
        sets.append(PromptSet(name, found, EvaluationFiles(run.evaluation / name), source))
    return sets


def heldout_prompts(recipe: Recipe) -> Loaded:
    """The evaluation prompts; those that also train are dropped (`seen_in_training`), or the proof would be none."""
    source = recipe.evaluate.prompts
    if source is None:
        raise InputError("evaluate.prompts: not set, so there is nothing to evaluate on; name held-out prompts")
    return _held_out(recipe, source, _said_in_training(recipe), "evaluate.prompts")


def _said_in_training(recipe: Recipe) -> set[Said]:
    """What is said in the prompts of all rounds: together they are every prompt of the recipe."""
    loaded = training_prompts(recipe)
    return {form for prompt in loaded.kept for form in _forms(prompt, recipe.prompts)}


def _forms(prompt: Prompt, source: Prompts) -> set[Said]:
    """A prompt as the model hears it, and as its row has it: under another system prompt it is not another prompt."""
    bare = replace(prompt, messages=without(source.system or "", prompt.messages))
    return {said_in(prompt), said_in(bare)}


def _held_out(recipe: Recipe, source: Prompts, trained: set[Said], place: str) -> Loaded:
    if source.system is None:
        source = source.model_copy(update={"system": recipe.prompts.system})
    loaded = load_prompts(source, recipe.seed, place)
    seen = {prompt.id for prompt in loaded.kept if _forms(prompt, source) & trained}
    kept = tuple(prompt for prompt in loaded.kept if prompt.id not in seen)
    lost = tuple(Drop("evaluate", prompt.id, "seen_in_training") for prompt in loaded.kept if prompt.id in seen)
    if not kept:
        raise InputError(f"{place}: {source.source}: no prompt is left that training never saw")
    return replace(loaded, kept=kept, dropped=loaded.dropped + lost)
