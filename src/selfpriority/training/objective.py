"""The loss of one optimizer batch: weights from the whole of it, loss and tallies of any part.

The losses of the parts add up to the loss of the batch however it is cut (docs/deviations.md 6). Knows
log-probabilities as a tensor, and no model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from selfpriority.method.loss import (
    dpo_reward,
    gap_weights,
    ipo_losses,
    negative_log_likelihood,
    pair_losses,
    pair_shares,
    reward,
    token_shares,
)
from selfpriority.method.rival_losses import bfpo_losses, bfpo_targets, kto_losses, safedpo_targets, tis_rejected
from selfpriority.recipe import Align
from selfpriority.training.desirable import Kto, balance_of, signed_shares
from selfpriority.training.encode import EncodedPool

LIGHT = 0.1  # a pair with less weight than this hardly takes part (docs/deviations.md 5)
TALLIES = ("loss", "nll", "margin", "accuracy", "chosen_logp", "rejected_logp", "nonfinite")

_Reward = Callable[[Tensor, Tensor, Tensor, Align], Tensor]  # mean log-probabilities, reference, lengths: all [R]
_PairLosses = Callable[[Tensor, Tensor, Tensor, Align], Tensor]  # margins, weights, targets: all [pairs]

_REWARDS: Mapping[str, _Reward] = {
    "spa": lambda logps, _reference, _lengths, settings: reward(logps, settings.beta),
    "simpo": lambda logps, _reference, _lengths, settings: reward(logps, settings.beta),
    "dpo": lambda logps, reference, lengths, settings: dpo_reward(logps, reference, lengths, settings.beta),
    "ipo": lambda logps, reference, _lengths, _settings: logps - reference,
    "kto": lambda logps, reference, lengths, settings: dpo_reward(logps, reference, lengths, settings.beta),
    "bfpo": lambda logps, reference, lengths, _settings: dpo_reward(logps, reference, lengths, 1.0),
    "safedpo": lambda logps, reference, lengths, settings: dpo_reward(logps, reference, lengths, settings.beta),
    "tis_dpo": lambda logps, reference, lengths, settings: dpo_reward(logps, reference, lengths, settings.beta),
    "sft": lambda logps, _reference, _lengths, settings: reward(logps, settings.beta),  # for the record alone
}
_PAIR_LOSSES: Mapping[str, _PairLosses] = {
    "spa": lambda margins, weights, _targets, settings: pair_losses(margins, weights, settings.gamma),
    "simpo": lambda margins, weights, _targets, settings: pair_losses(margins, weights, settings.gamma),
    "dpo": lambda margins, weights, _targets, _settings: pair_losses(margins, weights, gamma=0.0),
    "ipo": lambda margins, weights, _targets, settings: ipo_losses(margins, weights, settings.beta),
    "kto": lambda margins, _weights, _targets, _settings: torch.zeros_like(margins),  # of answers, not of pairs
    "bfpo": lambda margins, weights, targets, _settings: bfpo_losses(margins, weights, targets),
    "safedpo": lambda margins, weights, targets, _settings: pair_losses(margins, weights, targets),
    "tis_dpo": lambda margins, weights, _targets, _settings: pair_losses(margins, weights, gamma=0.0),
    "sft": lambda margins, _weights, _targets, _settings: torch.zeros_like(margins),
}


@dataclass(frozen=True)
class Weighted:
    """A pool within its optimizer batch."""

    pool: EncodedPool
    weights: Tensor
    """[pairs] w_i of Eq. 3."""
    share: float
    """What each of its pairs contributes to the mean."""
    token_shares: Tensor
    """[responses] what each contributes to the mean per token of the batch's learned responses; 0 if not learned."""
    reference: Tensor
    """[responses] mean log-probability under the model that training started from; 0 where the method needs none. Where
    tokens weigh [responses, 2], as `response_logps` has it."""
    targets: Tensor
    """[pairs] the margin that `safedpo` and `bfpo` ask for; else 0."""
    desired: Tensor
    """[responses] for `kto` what each contributes to the mean, below 0 if it is undesirable; else 0."""
    baseline: float
    """KTO's beta * z0, of the whole batch."""


def weigh(
    pools: Sequence[EncodedPool],
    settings: Align,
    references: Sequence[Tensor] | None = None,
    kto: Kto | None = None,
) -> list[Weighted]:
    """The pools of one whole optimizer batch with their weights and shares.

    A response is learned once, in however many pairs it is.

    Args:
        pools: the whole batch.
        settings: method, alpha and count; `simpo` is alpha 0.
        references: of every pool, [responses] mean log-probability under the starting model, for methods that
            need it.
        kto: what `kto` knows of the whole training and of the policy; else the batch is the whole training, and the
            policy still its own reference.
    """
    references = references or [torch.zeros(len(pool.response_ids)) for pool in pools]
    gaps = [gap for pool in pools for gap in pool.gaps]
    mean_gap = math.fsum(gaps) / max(len(gaps), 1)  # answers that are learned alone make no pair
    shares = pair_shares([len(pool.pairs) for pool in pools], settings.count)
    lengths = [_learned_lengths(pool) for pool in pools]
    n_learned_tokens = math.fsum(length for of_pool in lengths for length in of_pool)
    desired = [torch.zeros(len(pool.response_ids)) for pool in pools]
    if settings.method == "kto":
        kto = kto or Kto(balance_of(pools), z0=0.0)
        desired = signed_shares(pools, kto.balance, settings.count)
    return [
        Weighted(
            pool,
            gap_weights(torch.tensor(pool.gaps), mean_gap, settings.gap_exponent),
            share,
            token_shares(torch.tensor(of_pool), n_learned_tokens or 1.0),  # 0: nothing in the batch is learned
            reference,
            _targets(pool, settings),
            signed,
            settings.beta * kto.z0 if kto else 0.0,
        )
        for pool, share, of_pool, reference, signed in zip(pools, shares, lengths, references, desired, strict=True)
    ]


def _targets(pool: EncodedPool, settings: Align) -> Tensor:
    """[pairs] as in `Weighted`."""
    if not settings.asks_for_safety:
        return torch.zeros(len(pool.pairs))
    chosen, rejected = (torch.tensor([float(pool.safe[pair[side]]) for pair in pool.pairs]) for side in (0, 1))
    if settings.method == "bfpo":
        return bfpo_targets(chosen, rejected, settings.beta)
    return safedpo_targets(chosen, rejected, settings.unsafe_margin)


def n_light(batch: Sequence[Weighted]) -> int:
    """Number of pairs whose weight is under 0.1."""
    return sum(int((weighted.weights < LIGHT).sum()) for weighted in batch)


def part_loss(logps: Tensor, part: Sequence[Weighted], settings: Align) -> tuple[Tensor, Tensor]:
    """What some pools of a batch add to its loss.

    Args:
        part: some pools of a batch that was weighed whole.
        settings: the method with its beta and gamma, and the weight of the learned responses' likelihood.
        logps: [R] mean log-probability of every response, pool after pool; [R, 2] where tokens weigh, as
            `response_logps` has it.

    Returns:
        The loss, with gradient, and the sums over the part's pairs named by `TALLIES`, [7], without.
    """
    device = logps.device
    pairs = torch.tensor(_numbered_pairs([weighted.pool for weighted in part]), dtype=torch.long, device=device)
    pairs = pairs.reshape(-1, 2)  # there may be none
    weights = torch.cat([weighted.weights for weighted in part]).to(device)
    shares = torch.cat([torch.full_like(weighted.weights, weighted.share) for weighted in part]).to(device)
    reference = torch.cat([weighted.reference for weighted in part]).to(device)
    (logps, own), (reference, own_reference) = _plain_and_weighted(logps), _plain_and_weighted(reference)
    chosen, rejected = logps[pairs[:, 0]], logps[pairs[:, 1]]
    lengths = torch.tensor([len(ids) for weighted in part for ids in weighted.pool.response_ids], device=device)
    rewards = _REWARDS[settings.method](logps, reference, lengths, settings)
    as_chosen = as_rejected = rewards
    if settings.method == "tis_dpo":
        as_chosen = _REWARDS[settings.method](own, own_reference, lengths, settings)
        as_rejected = tis_rejected(rewards, as_chosen)
    margins = as_chosen[pairs[:, 0]] - as_rejected[pairs[:, 1]]
    targets = torch.cat([weighted.targets for weighted in part]).to(device)
    losses = _PAIR_LOSSES[settings.method](margins, weights, targets, settings)
    learned_shares = torch.cat([weighted.token_shares for weighted in part]).to(device)
    nll = negative_log_likelihood(logps, learned_shares)
    loss = (shares * losses).sum()
    if settings.method == "kto":
        desired = torch.cat([weighted.desired for weighted in part]).to(device)
        loss = (desired.abs() * kto_losses(rewards, desired, part[0].baseline)).sum()
    nll_weight = 1.0 if settings.method == "sft" else settings.nll
    if nll_weight:  # 0 times an infinity would be no number
        loss = loss + nll_weight * nll
    tallies = (
        loss,
        nll,
        margins.sum(),
        (margins > 0).sum(),
        chosen.sum(),
        rejected.sum(),
        (~(margins + losses).isfinite()).sum(),
    )
    return loss, torch.stack([tally.detach().float() for tally in tallies])


def _plain_and_weighted(logps: Tensor) -> tuple[Tensor, Tensor]:
    """The means of all responses with all tokens alike and by their weights: the same where no token weighs."""
    return (logps[:, 0], logps[:, 1]) if logps.dim() > 1 else (logps, logps)


def _learned_lengths(pool: EncodedPool) -> list[float]:
    """Of every response, its tokens times its weight among those that are learned."""
    return [weight * len(ids) for weight, ids in zip(pool.learned, pool.response_ids, strict=True)]


def _numbered_pairs(pools: Sequence[EncodedPool]) -> list[tuple[int, int]]:
    """Pairs of all pools, their responses numbered through."""
    numbered: list[tuple[int, int]] = []
    first = 0
    for pool in pools:
        numbered += [(first + chosen, first + rejected) for chosen, rejected in pool.pairs]
        first += len(pool.response_ids)
    return numbered
