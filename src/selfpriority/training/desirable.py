"""What KTO needs to know: which answers are desirable, what either side counts, and answers to other prompts.

Knows token ids and index pairs, and no model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from selfpriority.errors import WorkFailed
from selfpriority.method.rival_losses import Balance, kto_balance
from selfpriority.training.encode import EncodedPool


@dataclass(frozen=True)
class Kto:
    """What KTO knows beside the pools of a batch."""

    balance: Balance
    """Of the whole training."""
    z0: float
    """Nats, of this batch under the policy as it is now (`method.loss.kto_baseline`)."""


def sides(pool: EncodedPool) -> list[int]:
    """Of every response 1 if it wins more pairs than it loses (desirable), -1 if it loses more, 0 if as many.

    Where every two answers make a pair that is 1 above the pool's lexicographic median and -1 below it
    (docs/deviations.md, rivals).
    """
    lead = Counter(chosen for chosen, _ in pool.pairs)
    lead.subtract(rejected for _, rejected in pool.pairs)
    return [(lead[index] > 0) - (lead[index] < 0) for index in range(len(pool.response_ids))]


def balance_of(pools: Sequence[EncodedPool]) -> Balance:
    """Lambdas of pools with at least one pair each; none of an answer that wins as many pairs as it loses."""
    n = Counter(side for pool in pools for side in sides(pool))
    return kto_balance(n[1], n[-1])


def signed_shares(pools: Sequence[EncodedPool], balance: Balance, count: Literal["pairs", "pools"]) -> list[Tensor]:
    """What each answer contributes to the mean of KTO's losses: times its lambda, and below 0 if it is undesirable.

    Args:
        pools: one whole optimizer batch.
        balance: the lambdas.
        count: `pairs` is KTO's mean over all answers of either side; `pools` lets every pool count equally.

    Returns:
        [responses] of every pool; 0 for an answer of neither side.
    """
    of_pools = [sides(pool) for pool in pools]
    n_all = sum(map(abs, (side for of_pool in of_pools for side in of_pool)))
    lambdas = {1: balance.desirable, -1: -balance.undesirable, 0: 0.0}
    shares = []
    for of_pool in of_pools:
        n = n_all if count == "pairs" else len(pools) * sum(map(abs, of_pool))
        shares.append(torch.tensor([lambdas[side] / max(n, 1) for side in of_pool]))  # 0: no answer is of either side
    return shares


def mismatched(pools: Sequence[EncodedPool]) -> list[EncodedPool]:
    """Every prompt with the answers to the next pool's, the last with those to the first: the y' of KTO's z0.

    Which pool is next does not depend on batches, so the reference of all is measured once. An answer that makes its
    new prompt longer than anything trained on is cut there: it is measured, never learned.

    Raises:
        WorkFailed: there is but one pool.
    """
    if len(pools) < 2:
        raise WorkFailed(
            "align.method: kto compares with answers to other prompts, but 1 pool is left to train on; "
            "add prompts, loosen denoise, or use align.method=dpo"
        )
    longest = max(pool.longest for pool in pools)
    return [
        replace(
            pool,
            response_ids=tuple(ids[: longest - len(pool.prompt_ids)] for ids in other.response_ids),
            pairs=(),
            gaps=(),
            learned=(),
        )
        for pool, other in zip(pools, [*pools[1:], pools[0]], strict=True)
    ]
