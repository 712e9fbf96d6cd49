"""Step 6: weighted SimPO on the mean log-probabilities of pairs, and the losses the paper compares it with.

Paper: Eq. 3; docs/deviations.md 5, 6. Pure functions on tensors with one entry per pair or per answer; knows neither
models nor batches. What belongs to a whole optimizer batch, its mean gap and its number of pairs, comes in
through weights and shares, so the loss of a batch is the plain sum over any split of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def reward(mean_logps: Tensor, beta: float) -> Tensor:
    """Eq. 3: r(y) = beta * mean_t log pi(y_t | x, y_<t), any shape.

    Args:
        mean_logps: mean log-probability of a token of each answer, in nats, end token included.
        beta: scale.

    Examples:
        >>> import torch
        >>> reward(torch.tensor([-1.0, -2.0]), beta=2.5)
        tensor([-2.5000, -5.0000])
    """
    return beta * mean_logps


def gap_weights(gaps: Tensor, mean_gap: float, alpha: float) -> Tensor:
    """Eq. 3: w_i = (gap_i / mean gap) ^ alpha, [pairs] -> [pairs].

    Args:
        gaps: not negative.
        mean_gap: over every pair of the optimizer batch, all ranks and micro-batches (docs/deviations.md 6). When it
            is 0 no pair differs from another and every ratio is 1.
        alpha: 0 makes every weight 1, which is SimPO.

    Examples:
        >>> import torch
        >>> gap_weights(torch.tensor([1.0, 3.0]), mean_gap=2.0, alpha=1.0)
        tensor([0.5000, 1.5000])
    """
    ratios = gaps / mean_gap if mean_gap > 0 else torch.ones_like(gaps)
    return ratios**alpha


def pair_shares(n_pairs: Sequence[int], count: Literal["pairs", "pools"]) -> list[float]:
    """What one pair of each pool contributes to the mean of Eq. 3; all pairs of a batch together make 1.

    Args:
        n_pairs: number of pairs of every pool of the optimizer batch; a pool without any is learned and not compared.
        count: `pairs` is the paper's mean over pairs; `pools` lets every pool count equally (docs/deviations.md 6).

    Returns:
        A share a pool, [pools], from 0 to 1.

    Examples:
        >>> pair_shares([1, 3], "pairs")
        [0.25, 0.25]
        >>> pair_shares([1, 2], "pools")
        [0.5, 0.25]
    """
    if count == "pairs":
        return [1 / max(sum(n_pairs), 1)] * len(n_pairs)
    return [1 / (len(n_pairs) * max(n, 1)) for n in n_pairs]


def pair_losses(margins: Tensor, weights: Tensor, gamma: float | Tensor) -> Tensor:
    """Eq. 3: -w_i * logsigmoid(r(y_i) - r(y-_i) - gamma), [pairs] -> [pairs].

    Args:
        margins: r(y_i) - r(y-_i), rewards as in `reward`.
        weights: as from `gap_weights`.
        gamma: target margin, absolute (not a ratio to beta); one of all pairs, or [pairs].

    Examples:
        >>> import torch
        >>> pair_losses(torch.tensor([2.0]), weights=torch.ones(1), gamma=2.0)  # log 2: as likely as not
        tensor([0.6931])
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
