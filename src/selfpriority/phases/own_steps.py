"""The steps of a round that begins with preference data of one's own, and which steps a recipe has.

Pools and pairs are written where a collected round has them, so training and all that looks at a run find them there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from selfpriority.errors import InputError
from selfpriority.method.pair import pair
from selfpriority.own_pairs.pools import OwnPairs, file_key, own_pairs
from selfpriority.phases.round_steps import ROUND_STEPS, Round, RoundStep, Work, pair_key, write_deciders
from selfpriority.phases.row_steps import ROW_STEPS
from selfpriority.preferences import PreferenceRow, preference_rows
from selfpriority.recipe import Pairs, Recipe
from selfpriority.records import PairedPool, Pool, Prompt, Sifted
from selfpriority.rivals.known import check_rows
from selfpriority.run import PAIRS, POOLS
from selfpriority.run_records import Spent

_READING = 1
"""Counts up when the same file comes to be read as other pools."""


_IDLE = {
    "pair": "the file of pairs says itself which answer is chosen",
    "denoise": "nothing of a file of one's own is left out for its ratings",
}
"""Section that training on a file of one's own does not depend on -> why."""


def steps_of(recipe: Recipe) -> tuple[RoundStep, ...]:
    """The steps of every round of a recipe, before its training."""
    if recipe.pairs is not None:
        return OWN_STEPS
    return ROUND_STEPS if recipe.align.rows == "pairs" else ROW_STEPS


def check_own(recipe: Recipe) -> None:
    """Whether the recipe can train on its own pairs or its own rows, if it has any.

    Raises:
        InputError: the file of pairs cannot be read, or its answers lack the scores that the training asks for; or
            there are no such rows, or none that the method trains on.
    """
    check_rows(recipe.align)
    if recipe.pairs is None or own_pairs(recipe.pairs, recipe.prompts).is_rated:
        return
    if recipe.align.asks_for_safety:
        raise InputError(
            f"align.method: {recipe.align.method} asks which answers are safe, and {recipe.pairs.source} rates none; "
            f"give it columns score_chosen_NAME and score_rejected_NAME, or take another method"
        )


def as_trained(recipe: Recipe) -> Recipe:
    """The recipe without the sections that its training does not depend on: two that are equal train the same."""
    return recipe.model_copy(update={name: type(getattr(recipe, name))() for name in _idle(recipe)})


def idle_in_system(recipe: Recipe, changes: Mapping[str, Any]) -> list[str]:
    """One line for every field of a further system that its training does not depend on: field, value, why."""
    return [
        f"{section}.{field}: {value} is not used: {_IDLE[section]}"
        for section in _idle(recipe)
        for field, value in changes.get(section, {}).items()
    ]


def _idle(recipe: Recipe) -> tuple[str, ...]:
    if recipe.pairs is None:
        return ()
    is_said = own_pairs(recipe.pairs, recipe.prompts).pairs is not None
    return ("denoise", "pair") if is_said else ("denoise",)


def _section(here: Round) -> Pairs:
    assert here.recipe.pairs is not None, "these are the steps of a recipe with pairs of its own"
    return here.recipe.pairs


def _own(here: Round) -> OwnPairs:
    return own_pairs(_section(here), here.recipe.prompts)


def _read_key(here: Round) -> object:
    return _READING, file_key(_section(here), here.recipe.prompts)


def _read(here: Round, _: Spent, __: Iterable[Prompt]) -> Work:
    return lambda prompts: Sifted(_own(here).pools, ())


def _pair_key(here: Round) -> object:
    return pair_key(here) if _own(here).pairs is None else "as the file says"


def _pair(here: Round, _: Spent, __: Iterable[Pool]) -> Work:
    own = _own(here)
    pairs = own.pairs
    if pairs is None:
        return partial(pair, settings=here.recipe.pair, objectives=own.objectives)
    return lambda pools: Sifted(tuple(PairedPool(pool, pairs[pool.prompt.id]) for pool in pools), ())


def _rows(here: Round, paired: Sequence[PairedPool]) -> list[PreferenceRow]:
    return preference_rows(paired, _own(here).objectives)


def _count(here: Round, rows: Iterable[PreferenceRow]) -> None:
    answers: set[str] = set()

    def counted() -> Iterator[PreferenceRow]:
        for row in rows:
            answers.update((row.chosen_id, row.rejected_id))
            yield row

    n_pairs = sum(write_deciders(here, counted(), _own(here).objectives).values())
    here.resources.reporter.note(
        f"{n_pairs:,} pairs: {len(answers):,} answers, each computed once a pass, instead of {2 * n_pairs:,}"
    )


READ = RoundStep("read", POOLS, Pool, _read_key, _read, is_whole=True, is_first=True)
PAIR_OWN = RoundStep("pair", PAIRS, PreferenceRow, _pair_key, _pair, _rows, _count)
OWN_STEPS = (READ, PAIR_OWN)
