"""Step 6: whose likelihood is learned, by `method: sft` and by the term `align.nll`, and with which weight.

Every other answer of a pool is only compared. Knows pairs and ratings; the mean over tokens is in `loss`.
"""

from __future__ import annotations

from collections import Counter

from selfpriority.recipe.align import Learn
from selfpriority.records import PairedPool


def learned(paired: PairedPool, learn: Learn) -> dict[int, float]:
    """Weights of the answers that are learned, by index in `Pool.responses`.

    Args:
        paired: a pool. Where pairs follow an order some answer wins more of them than it loses; of pairs of one's own
            that stand both ways none may, and then `best` and `winners` have nothing to learn. Of a pool without pairs
            every answer is learned and weighs 1.
        learn: `best` and `winners` weigh 1 a pool: many winners say no more about how a prompt should be answered than
            a single one, so they share the 1 equally. `chosen` weighs 1 every answer that wins some pair, however many
            it loses.
    """
    if not paired.pairs:
        return dict.fromkeys(range(len(paired.pool.responses)), 1.0)
    if learn == "chosen":
        return dict.fromkeys(sorted({pair.chosen for pair in paired.pairs}), 1.0)
    lead = Counter(pair.chosen for pair in paired.pairs)
    lead.subtract(pair.rejected for pair in paired.pairs)
    if learn == "winners":
        winners = sorted(index for index, wins in lead.items() if wins > 0)
        return dict.fromkeys(winners, 1 / max(1, len(winners)))
    responses = paired.pool.responses
    best = max(lead, key=lambda index: (lead[index], responses[index].scores, -index))  # the first of equal ones
    return {best: 1.0} if lead[best] > 0 else {}
