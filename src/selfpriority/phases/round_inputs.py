"""What a round begins with: its model, who runs that, its judge and its prompts. Told by recipe and number alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain

from selfpriority.errors import InputError
from selfpriority.languages import called
from selfpriority.own_pairs.pools import own_pairs
from selfpriority.personas import Persona, load_personas, personas_for, without_personas
from selfpriority.phases.models import in_process
from selfpriority.prompts import Loaded, load_prompts, row_places
from selfpriority.recipe import Backend, InWords, JudgeSection, OpenaiBackend, Recipe
from selfpriority.records import Drop, Prompt
from selfpriority.run import Run


def start_of_round(run: Run, recipe: Recipe, number: int) -> str:
    """The model a round starts from: the recipe's, then the last round's policy."""
    return recipe.model if number == 1 else str(run.policy(number - 1))


def start_of_training(run: Run, recipe: Recipe, number: int) -> str:
    """The model that a round trains, which may be another than the one that answered its prompts."""
    start = recipe.align.start
    return run.named_from_here(start) if number == 1 and start is not None else start_of_round(run, recipe, number)


def generator(recipe: Recipe, number: int) -> Backend:
    """Who runs a round's model: the recipe's backend, but a policy of ours is on no server."""
    return recipe.backend if number == 1 else in_process(recipe.backend)


def training_judge(recipe: Recipe, number: int) -> JudgeSection:
    """The judge of a round; one that is the policy itself runs where the policy does."""
    judge = recipe.score.judge
    if number == 1 or not isinstance(judge, InWords) or judge.judge != "self":
        return judge
    own = judge.backend  # a server knows the model only as it was: the policy runs as the recipe says
    backend = in_process(recipe.backend) if own is None or isinstance(own, OpenaiBackend) else own
    return judge.model_copy(update={"backend": backend})


def used_personas(recipe: Recipe, prompts: Sequence[Prompt]) -> list[Persona]:
    """The recipe's personas, in order, that are for one of the prompts, by its language."""
    personas = load_personas(recipe.sample.personas)
    used = set(chain.from_iterable(personas_for([prompt.text for prompt in prompts], personas)))
    return [each for each in personas if each in used]


def notes_of_languages(recipe: Recipe, prompts: Sequence[Prompt]) -> list[str]:
    """A line for every language of the prompts that has no personas.

    Raises:
        InputError: there are no such personas.
    """
    shares = without_personas([prompt.text for prompt in prompts], load_personas(recipe.sample.personas))
    return [
        f"sample.personas: {share:.0%} of the prompts are in {called(language)}, which has none; they get the English"
        for language, share in shares.items()
    ]


def training_prompts(recipe: Recipe) -> Loaded:
    """All prompts that training may see: those of `prompts`, or of the file of one's own pairs."""
    if recipe.pairs is not None:
        return own_pairs(recipe.pairs, recipe.prompts).prompts
    return load_prompts(recipe.prompts, recipe.seed)


def prompt_places(recipe: Recipe) -> Mapping[str, str]:
    """Prompt -> place of its row, as messages call it. Reads the source once more."""
    if recipe.pairs is not None:
        return own_pairs(recipe.pairs, recipe.prompts).places
    return row_places(recipe.prompts)


def round_prompts(recipe: Recipe, number: int) -> Loaded:
    """The prompts of one round; `prompts_per_round: new` deals them out evenly."""
    loaded = training_prompts(recipe)
    if recipe.prompts_per_round == "same":
        return loaded
    dropped = loaded.dropped if number == 1 else ()
    return replace(loaded, kept=loaded.kept[number - 1 :: recipe.rounds], dropped=dropped)


def usable_prompts(recipe: Recipe, number: int) -> Loaded:
    """As `round_prompts`.

    Raises:
        InputError: the round has none.
    """
    prompts = round_prompts(recipe, number)
    if not prompts.kept:
        raise InputError(f"prompts: {recipe.prompts.source}: no usable prompt; dropped: {prompts.reasons or 'none'}")
    return prompts


def with_places(
    dropped: Sequence[Drop], places_of: Callable[[], Mapping[str, str]], step: str, note: Callable[[str], None]
) -> tuple[Drop, ...]:
    """The drops; those for turns that a chat template does not take name the row of their prompt, and are told.

    Args:
        dropped: of one step.
        places_of: prompt -> its row, as messages call it; asked only where there is something to tell.
        step: what the note calls the step.
        note: tells it.
    """
    refused = [drop for drop in dropped if drop.reason == "turns"]
    if not refused:
        return tuple(dropped)
    places = places_of()
    placed = {
        drop: replace(drop, detail=f"{places.get(drop.prompt_id, drop.prompt_id)}: {drop.detail}") for drop in refused
    }
    rows = list(dict.fromkeys(drop.detail for drop in placed.values()))
    note(
        f"{step}: {len(rows)} prompts dropped: turns that the model's chat template does not take "
        f"({rows[0]}{', ...' if len(rows) > 1 else ''}); join or leave out such turns"
    )
    return tuple(placed.get(drop, drop) for drop in dropped)
