"""Self-rewarding without a priority: DPO on the best against the worst answer of a prompt, by the mean of its ratings.

arXiv 2401.10020, with the run's judge. What it lacks beside SPA is the order of objectives.
"""

from __future__ import annotations

from collections.abc import Sequence

from selfpriority.records import Drop, Pair, Pool, Sifted
from selfpriority.rivals.rows import Means, Rows


def _best_and_worst(pool: Pool) -> Pool | None:
    """By the mean of their ratings, of equal ones the first; None where all are alike."""
    by_sum = sorted(pool.responses, key=lambda answer: -sum(answer.scores))
    best, worst = by_sum[0], by_sum[-1]
    return Pool(pool.prompt, (best, worst)) if sum(best.scores) > sum(worst.scores) else None


def best_against_worst(row: Pool) -> tuple[Pair, ...]:
    """The one pair of two answers, the better first: decided by the objective on which they lie furthest apart."""
    best, worst = (answer.scores for answer in row.candidates)
    apart = [x - y for x, y in zip(best, worst, strict=True)]
    return (Pair(0, 1, apart.index(max(apart)), sum(map(abs, apart)), sum(apart)),)


def to_compare(pools: Sequence[Pool]) -> Sifted[Pool]:
    """The best and the worst answer of every pool."""
    rows = {pool.prompt.id: _best_and_worst(pool) for pool in pools}
    dropped = tuple(Drop("rows", prompt, "no_pairs") for prompt, row in rows.items() if row is None)
    return Sifted(tuple(row for row in rows.values() if row is not None), dropped)


def _make(pools: Sequence[Pool], means: Means) -> Sifted[tuple[Pool, ...]]:
    found = to_compare(pools)
    return Sifted(tuple((row,) for row in found.kept), found.dropped)


def _pairs(row: Pool, means: Means) -> tuple[Pair, ...]:
    return best_against_worst(row)


ROWS = Rows(_make, pairs=_pairs)
