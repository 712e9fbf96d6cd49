"""Eq. 3 over one optimizer batch: weights from the whole of it, loss and tallies of any part.

The losses of the parts add up to the loss of the batch however it is cut (method.md 3.4). Knows
log-probabilities as a tensor, and no model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from selfpriority.method.loss import gap_weights, pair_losses, pair_shares, reward
from selfpriority.recipe import Align
from selfpriority.training.encode import EncodedPool

LIGHT = 0.1  # a pair with less weight than this hardly takes part (method.md 3.3)
TALLIES = ("loss", "margin", "accuracy", "chosen_logp", "rejected_logp", "nonfinite")


@dataclass(frozen=True)
class Weighted:
    """A pool within its optimizer batch."""

    pool: EncodedPool
    weights: Tensor
    """[pairs] w_i of Eq. 3."""
    share: float
    """What each of its pairs contributes to the mean."""


def weigh(pools: Sequence[EncodedPool], settings: Align) -> list[Weighted]:
    """The pools of one whole optimizer batch with their weights and shares."""
    gaps = [gap for pool in pools for gap in pool.gaps]
    mean_gap = math.fsum(gaps) / len(gaps)
    shares = pair_shares([len(pool.pairs) for pool in pools], settings.count)
    return [
        Weighted(pool, gap_weights(torch.tensor(pool.gaps), mean_gap, settings.alpha), share)
        for pool, share in zip(pools, shares, strict=True)
    ]


def n_light(batch: Sequence[Weighted]) -> int:
    """Number of pairs whose weight is under 0.1."""
    return sum(int((weighted.weights < LIGHT).sum()) for weighted in batch)


def part_loss(logps: Tensor, part: Sequence[Weighted], settings: Align) -> tuple[Tensor, Tensor]:
    """What some pools of a batch add to its loss.

    Args:
        part: some pools of a batch that was weighed whole.
        settings: beta and gamma of Eq. 3.
        logps: [R] mean log-probability of every response, pool after pool.

    Returns:
        The loss, with gradient, and the sums over the part's pairs named by `TALLIES`, [6], without.
    """
    device = logps.device
    pairs = torch.tensor(_numbered_pairs([weighted.pool for weighted in part]), device=device)
    weights = torch.cat([weighted.weights for weighted in part]).to(device)
    shares = torch.cat([torch.full_like(weighted.weights, weighted.share) for weighted in part]).to(device)
    chosen, rejected = logps[pairs[:, 0]], logps[pairs[:, 1]]
    margins = reward(chosen, settings.beta) - reward(rejected, settings.beta)
    losses = pair_losses(margins, weights, settings.gamma)
    loss = (shares * losses).sum()
    tallies = (
        loss,
        margins.sum(),
        (margins > 0).sum(),
        chosen.sum(),
        rejected.sum(),
        (~losses.isfinite()).sum(),
    )
    return loss, torch.stack([tally.detach().float() for tally in tallies])


def _numbered_pairs(pools: Sequence[EncodedPool]) -> list[tuple[int, int]]:
    """Pairs of all pools, their responses numbered through."""
    numbered: list[tuple[int, int]] = []
    first = 0
    for pool in pools:
        numbered += [(first + chosen, first + rejected) for chosen, rejected in pool.pairs]
        first += len(pool.response_ids)
    return numbered
