"""Step 6: weighted SimPO on the mean log-probabilities of pairs, and the losses the paper compares it with.

Paper: Eq. 3; docs/deviations.md 5, 6. Pure functions on tensors with one entry per pair or per answer; knows neither
models nor batches. What belongs to a whole optimizer batch, its mean gap and its number of pairs, comes in
through weights and shares, so the loss of a batch is the plain sum over any split of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def reward(mean_logps: Tensor, beta: float) -> Tensor:
    """Eq. 3: r(y) = beta * mean_t log pi(y_t | x, y_<t), any shape."""
    return beta * mean_logps


def gap_weights(gaps: Tensor, mean_gap: float, alpha: float) -> Tensor:
    """Eq. 3: w_i = (gap_i / mean gap) ^ alpha, [pairs] -> [pairs].

    Args:
        gaps: not negative.
        mean_gap: over every pair of the optimizer batch, all ranks and micro-batches (docs/deviations.md 6). When it
            is 0 no pair differs from another and every ratio is 1.
        alpha: 0 makes every weight 1, which is SimPO.
    """
    ratios = gaps / mean_gap if mean_gap > 0 else torch.ones_like(gaps)
    return ratios**alpha


def pair_shares(n_pairs: Sequence[int], count: Literal["pairs", "pools"]) -> list[float]:
    """What one pair of each pool contributes to the mean of Eq. 3; all pairs of a batch together make 1.

    Args:
        n_pairs: number of pairs, at least 1, of every pool of the optimizer batch.
        count: `pairs` is the paper's mean over pairs; `pools` lets every pool count equally (docs/deviations.md 6).
    """
    if count == "pairs":
        return [1 / sum(n_pairs)] * len(n_pairs)
    return [1 / (len(n_pairs) * n) for n in n_pairs]


def pair_losses(margins: Tensor, weights: Tensor, gamma: float | Tensor) -> Tensor:
    """Eq. 3: -w_i * logsigmoid(r(y_i) - r(y-_i) - gamma), [pairs] -> [pairs].

    Args:
        margins: r(y_i) - r(y-_i), rewards as in `reward`.
        weights: as from `gap_weights`.
        gamma: target margin, absolute (not a ratio to beta); one of all pairs, or [pairs].
    """
    return -weights * logsigmoid(margins - gamma)


def dpo_reward(mean_logps: Tensor, reference: Tensor, lengths: Tensor, beta: float) -> Tensor:
    """DPO (arXiv 2305.18290): beta * (log pi(y | x) - log pi_ref(y | x)), sums over the tokens, [answers] -> [answers].

    Its loss is `pair_losses` with gamma 0.

    Args:
        mean_logps: per token.
        reference: the same under the model that training started from.
        lengths: tokens of each answer.
        beta: the smaller, the further the policy may go from the reference.
    """
    return beta * lengths * (mean_logps - reference)


def ipo_losses(margins: Tensor, weights: Tensor, beta: float) -> Tensor:
    """IPO (arXiv 2310.12036): w_i * (margin - 1 / (2 beta))^2, [pairs] -> [pairs].

    Args:
        margins: difference, chosen minus rejected, of mean log pi(y_t) / pi_ref(y_t) per token, as TRL has it; the
            paper's own sums over tokens would ask short and long answers for the same margin.
        weights: as from `gap_weights`.
        beta: strength of the regularisation, 1 / (2 beta) being the margin asked for.
    """
    return weights * (margins - 1 / (2 * beta)) ** 2


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
        n_desirable: answers of the whole training, at least 1.
        n_undesirable: likewise.
    """
    ratio = n_desirable / n_undesirable
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


def token_shares(lengths: Tensor, n_tokens: float) -> Tensor:
    """What the mean log-probability of each answer contributes to a mean over tokens, [answers] -> [answers].

    Args:
        lengths: tokens of each answer, times its weight where answers have one.
        n_tokens: their sum over all answers that the mean is over, in the whole optimizer batch; their shares make 1.
    """
    return lengths / n_tokens


def negative_log_likelihood(mean_logps: Tensor, shares: Tensor) -> Tensor:
    """-sum_y share(y) * mean_t log pi(y_t | x, y_<t): the mean per token that supervised fine-tuning lowers.

    Args:
        mean_logps: [answers]
        shares: [answers], as from `token_shares`; 0 for an answer that is not learned.
    """
    return -(shares * mean_logps).sum()
