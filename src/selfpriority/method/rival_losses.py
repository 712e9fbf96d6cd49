"""The losses of SPA's rivals, for `spa compare`: SafeDPO, BFPO, KTO, TIS-DPO. Formulas: docs/method.md.

Pure functions on tensors with one entry per pair or per answer, as in `loss`; the loss of a batch is the plain sum over
any split of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def safedpo_targets(safe_chosen: Tensor, safe_rejected: Tensor, unsafe_margin: float) -> Tensor:
    """SafeDPO (ICLR 2026): (u_rejected - u_chosen) * Delta, the gamma of its `pair_losses` on rewards of DPO, [pairs].

    Args:
        safe_chosen: [pairs] 1 where the chosen answer is safe, else 0: 1 - u.
        safe_rejected: the same of the rejected answer.
        unsafe_margin: Delta.
    """
    return (safe_chosen - safe_rejected) * unsafe_margin


_BFPO_B1, _BFPO_B3, _BFPO_A = 3.0, 0.5, 0.5  # as published


def bfpo_targets(safe_chosen: Tensor, safe_rejected: Tensor, beta: float) -> Tensor:
    """BFPO (arXiv 2408.15313): (b1 b3 S_chosen - b3 S_rejected - a) / beta, nats that the log-ratios shall differ by.

    Args:
        safe_chosen: [pairs] S, 1 where the chosen answer is safe, else 0.
        safe_rejected: the same of the rejected answer.
        beta: the smaller, the further apart.
    """
    return (_BFPO_B1 * _BFPO_B3 * safe_chosen - _BFPO_B3 * safe_rejected - _BFPO_A) / beta


def bfpo_losses(margins: Tensor, weights: Tensor, targets: Tensor) -> Tensor:
    """BFPO: w_i * (margin - target)^2, [pairs] -> [pairs].

    Args:
        margins: difference, chosen minus rejected, of log pi / pi_ref, sums over the tokens.
        weights: of the pairs.
        targets: as from `bfpo_targets`.
    """
    return weights * (margins - targets) ** 2


@dataclass(frozen=True)
class Balance:
    """KTO's lambdas: what an answer of either side counts."""

    desirable: float
    undesirable: float


_MOST_DESIRED = 4 / 3


def kto_balance(n_desirable: int, n_undesirable: int) -> Balance:
    """KTO (arXiv 2402.01306, Eq. 8): lambda_D n_D / (lambda_U n_U) in [1, 4/3], the rarer side counting more.

    Args:
        n_desirable: answers of the whole training; none, as where pairs stand both ways, are in balance.
        n_undesirable: likewise.
    """
    ratio = n_desirable / n_undesirable if n_desirable and n_undesirable else 1.0
    if ratio < 1:
        return Balance(1 / ratio, 1.0)
    return Balance(1.0, max(1.0, ratio / _MOST_DESIRED))


def kto_baseline(now: Tensor, reference: Tensor, lengths: Tensor) -> float:
    """KTO's z0: max(0, mean of log pi(y' | x) - log pi_ref(y' | x)) over answers y' to other prompts than x, in nats.

    Args:
        now: [answers] mean log-probability per token.
        reference: the same under the model that training started from.
        lengths: [answers] tokens.
    """
    return max(0.0, float((lengths * (now - reference).double()).mean()))


def kto_losses(rewards: Tensor, sides: Tensor, baseline: float) -> Tensor:
    """KTO: 1 - sigmoid(r(y) - z0) of a desirable answer, 1 - sigmoid(z0 - r(y)) of an undesirable one, [answers].

    Args:
        rewards: as from `dpo_reward`.
        sides: [answers] above 0 where desirable, below 0 where undesirable.
        baseline: beta * z0, a constant: no gradient goes through it.
    """
    return torch.sigmoid(-sides.sign() * (rewards - baseline))


_TIS_LEAST, _TIS_MOST = 0.7, 1.3  # as published


def tis_weights(ratios: Tensor) -> Tensor:
    """TIS-DPO (arXiv 2410.04350): weights of an answer's tokens where it is chosen, by rank of `ratios`: [T] -> [T].

    From 0.7 to 1.3 in equal steps; of equal ratios the earlier token has the lower rank, and a token alone weighs 1.

    Args:
        ratios: log-probability of each token under a good persona minus that under a bad one, [T], T at least 1.
    """
    if len(ratios) == 1:
        return torch.ones_like(ratios)
    ranks = ratios.argsort(stable=True).argsort()
    return _TIS_LEAST + (_TIS_MOST - _TIS_LEAST) * ranks.to(ratios.dtype) / (len(ratios) - 1)


def tis_rejected(rewards: Tensor, weighted: Tensor) -> Tensor:
    """TIS-DPO: rewards where answers are rejected, any shape. There tokens weigh in the reverse order of ranks.

    In equal steps w and its reverse make 2 at every token, so sum_t (2 - w_t) x_t is twice the plain sum less the
    weighted one.

    Args:
        rewards: as from `dpo_reward`, all tokens weighing 1.
        weighted: the same with the weights of `tis_weights`.
    """
    return (_TIS_LEAST + _TIS_MOST) * rewards - weighted
