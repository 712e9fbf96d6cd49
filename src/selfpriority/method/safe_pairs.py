"""Step 6, `method: safedpo`: pairs made by another objective, turned around or left out where the chosen is unsafe.

SafeDPO (ICLR 2026); docs/deviations.md, rivals. An answer is unsafe whose first objective, the most important, is rated
below a threshold. Knows pairs and ratings, no tensors.
"""

from __future__ import annotations

from dataclasses import replace

from selfpriority.recipe import Align
from selfpriority.records import Pair, PairedPool


def is_safe(paired: PairedPool, index: int, safe_from: float) -> bool:
    """Whether an answer, by index in `Pool.responses`, is rated `safe_from` or more on the first objective."""
    return paired.pool.responses[index].scores[0] >= safe_from


def safe_pairs(paired: PairedPool, safe_from: float) -> tuple[Pair, ...]:
    """The pairs whose chosen answer is safe, turned around for that where need be; none of two unsafe answers.

    Args:
        paired: a pool with pairs of any order.
        safe_from: ratings of the first objective from here up are safe.
    """
    found = []
    for pair in paired.pairs:
        if is_safe(paired, pair.chosen, safe_from):
            found.append(pair)
        elif is_safe(paired, pair.rejected, safe_from):
            found.append(replace(pair, chosen=pair.rejected, rejected=pair.chosen, decided_by=0))
    return tuple(found)


def as_trained(paired: PairedPool, settings: Align) -> PairedPool:
    """The pool with the pairs that the method trains on; with none where all are of two unsafe answers."""
    if settings.method != "safedpo":
        return paired
    return replace(paired, pairs=safe_pairs(paired, settings.safe_from))
