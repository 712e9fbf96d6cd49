"""Self-rewarding without a priority: DPO on the best against the worst answer of a prompt, by the mean of its ratings.

arXiv 2401.10020, with the run's judge. What it lacks beside SPA is the order of objectives.
"""

from __future__ import annotations

from collections.abc import Sequence

from selfpriority.recipe import Recipe
from selfpriority.records import Drop, Pair, Pool, Sifted
from selfpriority.rivals.rows import Means, Rows


def _best_and_worst(pool: Pool, choose_cut: bool) -> Pool | None:
    """By the mean of their ratings, of equal ones the first; None where all are alike, or none that may win ended."""
    by_sum = sorted(pool.responses, key=lambda answer: -sum(answer.scores))
    may_win = [answer for answer in by_sum if choose_cut or answer.response.stop == "end"]
    if not may_win or sum(may_win[0].scores) <= sum(by_sum[-1].scores):
        return None
    return Pool(pool.prompt, (may_win[0], by_sum[-1]))


def best_against_worst(row: Pool) -> tuple[Pair, ...]:
    """The one pair of two answers, the better first: decided by the objective on which they lie furthest apart."""
    best, worst = (answer.scores for answer in row.candidates)
    apart = [x - y for x, y in zip(best, worst, strict=True)]
    return (Pair(0, 1, apart.index(max(apart)), sum(map(abs, apart)), sum(apart)),)


def to_compare(pools: Sequence[Pool], choose_cut: bool) -> Sifted[Pool]:
    """The best and the worst answer of every pool; the best of those that ended, unless cut ones may be chosen."""
    rows = {pool.prompt.id: _best_and_worst(pool, choose_cut) for pool in pools}
    dropped = tuple(Drop("rows", prompt, "no_pairs") for prompt, row in rows.items() if row is None)
    return Sifted(tuple(row for row in rows.values() if row is not None), dropped)


def _make(pools: Sequence[Pool], means: Means) -> Sifted[tuple[Pool, ...]]:
    found = to_compare(pools, means.recipe.pair.choose_cut)
    return Sifted(tuple((row,) for row in found.kept), found.dropped)


def _pairs(row: Pool, means: Means) -> tuple[Pair, ...]:
    return best_against_worst(row)


def _reads(recipe: Recipe) -> object:
    """Rows from before cut answers could be left out keep their keys."""
    return () if recipe.pair.choose_cut else "the best of those that ended"


ROWS = Rows(_make, reads=_reads, pairs=_pairs)
