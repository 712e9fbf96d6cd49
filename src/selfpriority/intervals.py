"""Agreement measures, their bootstrap intervals and paired tests: AUC, pair accuracy, mean, share, rank correlation.

Plain numbers in, plain numbers out (numpy only). Knows nothing of judges, prompts or systems. Intervals are
95 %; those of resamples are percentile intervals, and with `groups` (usually prompts) whole groups are drawn, because
answers to one prompt are not independent.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

LEVEL = 0.95
_CELLS = 2_000_000  # resampling weights held at once


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval and the number of values behind it."""

    estimate: float
    low: float
    high: float
    n: int


def auc(scores: Sequence[float], labels: Sequence[bool]) -> float:
    """Probability that a positive outscores a negative, ties counting half.

    Raises:
        ValueError: one of the two classes is empty.
    """
    values, positive = _checked(scores, labels)
    return float(_weighted_auc(values, positive, np.ones((1, len(values))))[0])


def pair_accuracy(chosen: Sequence[float], rejected: Sequence[float]) -> float:
    """Share of pairs whose chosen answer scores higher, ties counting half."""
    return float(np.mean(pair_wins(chosen, rejected)))


def pair_wins(chosen: Sequence[float], rejected: Sequence[float]) -> list[float]:
    """1, 0.5 (tie) or 0 per pair."""
    return [
        1.0 if better > worse else 0.5 if better == worse else 0.0
        for better, worse in zip(chosen, rejected, strict=True)
    ]


def share_interval(n: int, of: int) -> Interval:
    """A share with Wilson's interval, which holds for few cases and for none or all of them too.

    Raises:
        ValueError: `n` is no number of cases out of `of`, or there are no cases.
    """
    if not 0 <= n <= of or not of:
        raise ValueError(f"{n} of {of} is no share")
    z = NormalDist().inv_cdf((1.0 + LEVEL) / 2.0)
    share, scale = n / of, 1.0 + z * z / of
    middle = (share + z * z / (2 * of)) / scale
    half = z / scale * sqrt(share * (1.0 - share) / of + z * z / (4 * of * of))
    return Interval(share, 0.0 if n == 0 else middle - half, 1.0 if n == of else middle + half, of)


def bootstrap_mean_interval(
    values: Sequence[float], groups: Sequence[Hashable] | None = None, n: int = 2000, seed: int = 0
) -> Interval:
    """Mean of `values` with its interval over `n` resamples of the groups (of the values, without groups).

    Raises:
        ValueError: no values.
    """
    if not len(values):
        raise ValueError("the mean of no values has no interval")
    array = np.asarray(values, dtype=np.float64)
    blocks = [
        (weights @ array) / weights.sum(axis=1) for weights in _resamples(_group_index(groups, len(array)), n, seed)
    ]
    return _interval(float(array.mean()), np.concatenate(blocks), len(array))


def bootstrap_auc(
    scores: Sequence[float],
    labels: Sequence[bool],
    groups: Sequence[Hashable] | None = None,
    n: int = 2000,
    seed: int = 0,
) -> Interval:
    """AUC with its interval over `n` resamples of the groups; resamples without both classes are left out.

    Raises:
        ValueError: one of the two classes is empty.
    """
    values, positive = _checked(scores, labels)
    blocks = [
        _weighted_auc(values, positive, weights) for weights in _resamples(_group_index(groups, len(values)), n, seed)
    ]
    drawn = np.concatenate(blocks)
    return _interval(auc(scores, labels), drawn[~np.isnan(drawn)], len(values))


def sign_flip_p(differences: Sequence[float], n: int = 2000, seed: int = 0) -> float:
    """Two-sided p of a paired mean: share of `n` random sign flips at least as far from 0 as what was seen.

    Raises:
        ValueError: no differences.
    """
    if not len(differences):
        raise ValueError("no differences, no test")
    array = np.asarray(differences, dtype=np.float64)
    random = np.random.default_rng(seed)
    seen, rows = abs(float(array.mean())), max(1, _CELLS // len(array))
    extreme = 0
    for start in range(0, n, rows):
        signs = random.integers(0, 2, size=(min(rows, n - start), len(array))) * 2.0 - 1.0
        extreme += int((np.abs(signs @ array) / len(array) >= seen - 1e-12).sum())
    return (1 + extreme) / (1 + n)  # the seen signs are one of the possible ones, so p is never 0


def holm(p_values: Sequence[float]) -> list[float]:
    """Every test's p, corrected for the number of tests, in the order given (Holm 1979).

    Rejecting all that are <= 0.05 makes even one false rejection at most 5 % likely, whatever the tests share.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Rank correlation, tied values sharing their mean rank; None where one column does not vary."""
    if len(first) < 2:
        return None
    a, b = ranks(np.asarray(first, dtype=np.float64)), ranks(np.asarray(second, dtype=np.float64))
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 0.0 else None


def bootstrap_spearman(
    first: Sequence[float],
    second: Sequence[float],
    groups: Sequence[Hashable] | None = None,
    n: int = 2000,
    seed: int = 0,
) -> Interval | None:
    """Rank correlation with its interval over `n` resamples of the groups; None where one column does not vary.

    Resamples in which one column does not vary are left out.
    """
    seen = spearman(first, second)
    if seen is None:
        return None
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    drawn = [
        spearman(np.repeat(a, times).tolist(), np.repeat(b, times).tolist())
        for weights in _resamples(_group_index(groups, len(a)), n, seed)
        for times in weights.astype(np.int64)
    ]
    return _interval(seen, np.asarray([value for value in drawn if value is not None]), len(a))


def _checked(scores: Sequence[float], labels: Sequence[bool]) -> tuple[Floats, NDArray[np.bool_]]:
    values, positive = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.bool_)
    if len(values) != len(positive):
        raise ValueError(f"{len(values)} scores for {len(positive)} labels")
    if positive.all() or not positive.any():
        raise ValueError("an AUC needs answers of both labels")
    return values, positive


def _weighted_auc(values: Floats, positive: NDArray[np.bool_], weights: Floats) -> Floats:
    """AUC of each row of `weights` [B, N] -> [B]; NaN where a class has no weight."""
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(values[order]) > 0])
    up = np.add.reduceat(weights[:, order] * positive[order], starts, axis=1)
    down = np.add.reduceat(weights[:, order] * ~positive[order], starts, axis=1)
    below = np.cumsum(down, axis=1) - down
    total = up.sum(axis=1) * down.sum(axis=1)
    won = (up * (below + 0.5 * down)).sum(axis=1)
    return np.asarray(np.divide(won, total, out=np.full(len(weights), np.nan), where=total > 0))


def _group_index(groups: Sequence[Hashable] | None, n: int) -> Counts:
    if groups is None:
        return np.arange(n)
    if len(groups) != n:
        raise ValueError(f"{len(groups)} groups for {n} values")
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    return np.asarray([numbers[group] for group in groups])


def _resamples(index: Counts, n: int, seed: int) -> Iterator[Floats]:
    """How often each value is drawn in each resample, in blocks of [<= B, N] that stay small."""
    random = np.random.default_rng(seed)
    n_groups = int(index.max()) + 1
    rows = max(1, _CELLS // max(len(index), n_groups))
    share = np.full(n_groups, 1.0 / n_groups)
    for start in range(0, n, rows):
        drawn = random.multinomial(n_groups, share, size=min(rows, n - start))
        yield drawn[:, index].astype(np.float64)


def _interval(estimate: float, drawn: Floats, n: int) -> Interval:
    tail = (1.0 - LEVEL) / 2.0
    low, high = np.quantile(drawn, [tail, 1.0 - tail]) if len(drawn) else (np.nan, np.nan)
    return Interval(estimate, float(low), float(high), n)


def ranks(values: Floats) -> Floats:
    """Rank of each value from 1, tied values sharing their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2.0)[inverse], dtype=np.float64)
