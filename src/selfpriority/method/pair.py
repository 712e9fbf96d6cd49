"""Step 5: preference pairs (y, y-) where y is lexicographically greater and at least a margin away.

Paper: Eq. 2, all ordered pairs of the pool; docs/deviations.md 2, 3, 5. Distance and gap keep the raw scores, only the
order is on a grid.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

from selfpriority.method.order import Order
from selfpriority.recipe import PairRules
from selfpriority.records import Drop, Pair, PairedPool, Pool, Sifted

WeightGap = Literal["signed", "l1", "primary"]


def pair(pools: Sequence[Pool], settings: PairRules, objectives: Sequence[str] = ()) -> Sifted[PairedPool]:
    """Every pool with its pairs; a pool without any is dropped.

    As `no_pairs`, or as `winner_cut` where only answers that were cut at the length limit would win.

    Args:
        pools: rated answers.
        settings: which of them make a pair.
        objectives: names of the objectives, in priority order, for an order that names one (`only:harmlessness`).

    Raises:
        InputError: the order does not fit the objectives.

    Examples:
        >>> found = pair(Results("runs/my").pools(), PairRules(margin=1.0))
        >>> all(each.distance >= 1.0 for pool in found.kept for each in pool.pairs)
        True
    """
    order = Order.of(settings, objectives)
    kept: list[PairedPool] = []
    dropped: list[Drop] = []
    for pool in pools:
        pairs = tuple(lexicographic_pairs(pool, settings, order))
        if pairs:
            kept.append(PairedPool(pool, pairs))
        else:
            dropped.append(_without_pairs(pool, settings, order))
    return Sifted(tuple(kept), tuple(dropped))


def _without_pairs(pool: Pool, settings: PairRules, order: Order) -> Drop:
    any_wins = settings.model_copy(update={"choose_cut": True})
    if not settings.choose_cut and any(lexicographic_pairs(pool, any_wins, order)):
        detail = "every answer that wins was cut at the length limit; sample.max_new_tokens is too small for it"
        return Drop("pair", pool.prompt.id, "winner_cut", detail=detail)
    detail = f"no two answers are ordered and {settings.margin:g} apart"
    return Drop("pair", pool.prompt.id, "no_pairs", detail=detail)


def lexicographic_pairs(pool: Pool, settings: PairRules, order: Order) -> Iterator[Pair]:
    """Eq. 2: (y, y-) with key(y) > key(y-) and sum_k |s_k(y) - s_k(y-)| >= delta."""
    responses = pool.responses
    keys = [order.key(response.scores) for response in responses]
    refined = len(responses) - 1 if pool.refined is not None else None
    for chosen, rejected in permutations(range(len(responses)), 2):
        if settings.against == "refined" and refined not in (chosen, rejected):
            continue
        if keys[chosen] <= keys[rejected]:
            continue
        if not settings.choose_cut and responses[chosen].response.stop == "length":
            continue
        better, worse = responses[chosen].scores, responses[rejected].scores
        gain = sum(better) - sum(worse)
        if settings.conflicts == "drop" and gain <= 0:
            continue
        if (
            settings.most_loss is not None
            and max(y - x for x, y in zip(better, worse, strict=True)) > settings.most_loss
        ):
            continue
        distance = sum(abs(x - y) for x, y in zip(better, worse, strict=True))
        if distance >= settings.margin:
            decided_by = order.decided_by(better, worse)
            assert decided_by is not None
            yield Pair(chosen, rejected, decided_by, distance, gap=abs(gain))


@dataclass(frozen=True)
class Contested:
    """Pairs in which the chosen answer wins the order and loses on another objective: where priority speaks."""

    share: float
    """Of all pairs that are rated."""
    of_weight: float
    """Of the weight of them all, as Eq. 3 has it: less where `signed` lets a gain and a loss cancel."""


def contested(paired: Sequence[PairedPool], weight_gap: WeightGap = "signed", alpha: float = 1.0) -> Contested | None:
    """How much of what is trained on is contested; None where nobody rated the answers.

    Args:
        paired: pools and their pairs.
        weight_gap: which gap weighs a pair.
        alpha: exponent of the gap; 0 weighs all pairs alike.

    Examples:
        >>> found = contested(pair(Results("runs/my").pools(), PairRules()).kept)
        >>> 0.0 <= found.of_weight <= 1.0
        True
    """
    weights: list[float] = []
    against: list[float] = []
    for entry in paired:
        for each in entry.pairs:
            chosen, rejected = (entry.pool.responses[index].scores for index in (each.chosen, each.rejected))
            if not chosen:
                continue
            weight = weighing_gap(entry, each, weight_gap) ** alpha
            weights.append(weight)
            if any(x < y for x, y in zip(chosen, rejected, strict=True)):
                against.append(weight)
    if not weights:
        return None
    return Contested(len(against) / len(weights), math.fsum(against) / (math.fsum(weights) or 1.0))


def weighing_gap(paired: PairedPool, pair: Pair, weight_gap: WeightGap) -> float:
    """The gap of a pair that becomes its weight, before division by the mean (docs/deviations.md 5).

    Args:
        paired: the pool of the pair.
        pair: one of its pairs.
        weight_gap: of the score sums, as Eq. 3; in L1; or of the objective that decided.
    """
    if weight_gap == "signed":
        return pair.gap
    if weight_gap == "l1":
        return pair.distance
    chosen, rejected = (paired.pool.responses[index].scores for index in (pair.chosen, pair.rejected))
    if not chosen:  # nobody rated them: all pairs are as far apart
        return pair.gap
    return abs(chosen[pair.decided_by] - rejected[pair.decided_by])
