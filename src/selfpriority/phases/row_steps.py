"""The steps of a round whose training learns a rival's rows: they share answers, ratings and refinements with SPA's.

The rows are written where a collected round has pools and pairs, so training and all that looks at a run find them
there. From the step `rows` on, the funnel counts rows and no prompts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from selfpriority.phases.round_steps import REFINE, SAMPLE, SCORE, Round, RoundStep, Work, write_deciders
from selfpriority.preferences import PreferenceRow, preference_rows
from selfpriority.records import PairedPool, Pool, Sifted
from selfpriority.rivals.known import rows_key, rows_of
from selfpriority.rivals.rows import Means, Rows
from selfpriority.run import PAIRS, POOLS
from selfpriority.run_records import Spent


def means_of(here: Round, spent: Spent) -> Means:
    """What the round's rows are made with."""
    is_planned = here.resources.stand_ins is not None
    return Means(here.recipe, here.resources.constitution, lambda: here.model("rows", spent), is_planned)


def _rival(here: Round) -> Rows:
    return rows_of(here.recipe.align)


def _key(here: Round) -> object:
    return rows_key(here.recipe.align), _rival(here).reads(here.recipe)


def _make(here: Round, spent: Spent, _: Iterable[Pool]) -> Work:
    rival, means = _rival(here), means_of(here, spent)

    def work(pools: Sequence[Pool]) -> Sifted[tuple[Pool, ...]]:
        made = rival.make(pools, means)
        return replace(made, dropped=tuple(replace(drop, step="rows") for drop in made.dropped))  # whoever dropped it

    return work


def _flat(here: Round, kept: Sequence[tuple[Pool, ...]]) -> list[Pool]:
    return [row for rows in kept for row in rows]


def _pair_key(here: Round) -> object:
    return "rows"  # all that pairs follow from is in the key of the rows


def _pair(here: Round, spent: Spent, _: Iterable[Pool]) -> Work:
    rival, means = _rival(here), means_of(here, spent)
    return lambda rows: Sifted(tuple(PairedPool(row, rival.pairs(row, means)) for row in rows), ())


def _pair_rows(here: Round, paired: Sequence[PairedPool]) -> list[PreferenceRow]:
    return preference_rows(paired, here.resources.constitution.names)


def _count(here: Round, rows: Iterable[PreferenceRow]) -> None:
    write_deciders(here, rows, here.resources.constitution.names)


ROWS = RoundStep("rows", POOLS, Pool, _key, _make, _flat, is_whole=True)
PAIR_ROWS = RoundStep("pair", PAIRS, PreferenceRow, _pair_key, _pair, _pair_rows, _count)
ROW_STEPS = (SAMPLE, SCORE, REFINE, ROWS, PAIR_ROWS)
