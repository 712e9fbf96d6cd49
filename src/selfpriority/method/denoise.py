"""Step 4: throw away prompts whose ratings cannot be trusted.

Paper: section "Uncertainty-guided denoising", two tests on a pool: consistency, s_k(refined) > max_i s_k(y_i) for every
k, and informativeness, 0 < det(covariance of the candidates' scores) <= tau. Traps: docs/deviations.md 1, 4, 7.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from selfpriority.rating import HIGHEST
from selfpriority.recipe import Denoise
from selfpriority.records import Drop, Pool, Sifted, covariance


def denoise(pools: Sequence[Pool], settings: Denoise, tau: float | None = None) -> Sifted[Pool]:
    """Pools that pass both tests.

    Reasons: `no_refinement`, `ceiling` (a candidate holds the highest rating, so nothing can beat it), `not_better`,
    `no_spread` (det is 0), `too_much_spread` (det > tau).

    Args:
        pools: of refined answers; n candidates with K ratings each.
        settings: which of the two tests, and how strict: rating points and shares from 0 to 1.
        tau: most determinant, in rating points to the power of 2 K, where these are some of the pools that it is told
            from (`tau_of`); None: these are all.

    Examples:
        >>> pools = Results("runs/my").scored()  # not refined
        >>> denoise(pools, Denoise()).reasons
        {'no_refinement': 6}
        >>> len(denoise(pools, Denoise(consistency="off", keep_lowest=1.0)).kept)
        6
    """
    rule, noise = settings.consistency, settings.noise
    dropped = [Drop("denoise", p.prompt.id, reason) for p in pools if (reason := inconsistency(p, rule, noise))]
    lost = {drop.prompt_id for drop in dropped}
    consistent = [pool for pool in pools if pool.prompt.id not in lost]
    dets = {pool.prompt.id: determinant(covariance([c.scores for c in pool.candidates])) for pool in consistent}
    spread = [pool for pool in consistent if dets[pool.prompt.id] > settings.epsilon]
    if tau is None:
        tau = _tau([dets[pool.prompt.id] for pool in spread], settings)
    kept = [pool for pool in spread if dets[pool.prompt.id] <= tau]
    for pool in consistent:
        det = dets[pool.prompt.id]
        if det <= settings.epsilon:
            dropped.append(Drop("denoise", pool.prompt.id, "no_spread", detail=f"det {det:.3g}"))
        elif det > tau:
            dropped.append(Drop("denoise", pool.prompt.id, "too_much_spread", detail=f"det {det:.3g}, tau {tau:.3g}"))
    return Sifted(tuple(kept), tuple(dropped))


def tau_of(pools: Iterable[Pool], settings: Denoise) -> float:
    """The most determinant that `settings` let a pool have, seen from all pools; holds none of them.

    Args:
        pools: of refined answers, looked at once, one by one.
        settings: as of `denoise`.
    """
    if settings.max_det is not None or settings.keep_lowest is None:
        return _tau((), settings)
    told = (pool for pool in pools if not inconsistency(pool, settings.consistency, settings.noise))
    dets = (determinant(covariance([c.scores for c in pool.candidates])) for pool in told)
    return _tau([det for det in dets if det > settings.epsilon], settings)


def inconsistency(pool: Pool, rule: str | float, noise: float = 0.0) -> str:
    """Why the refined answer does not beat the candidates, or an empty string.

    Args:
        pool: candidates and refined answer.
        rule: `strict` (beat all, the paper), a share of the candidates to beat on every objective, or `off`.
        noise: rating points; a candidate that is ahead by less is a tie, and a tie is as good as beaten. 0, the paper:
            even an equal candidate is not beaten.
    """
    if rule == "off":
        return ""
    if pool.refined is None:
        return "no_refinement"
    needed = n_of_share(1.0 if rule == "strict" else float(rule), len(pool.candidates))
    for k, refined in enumerate(pool.refined.scores):
        candidates = [c.scores[k] for c in pool.candidates]
        beaten = sum(refined + noise > score for score in candidates)  # without noise a tie is not an improvement
        if beaten < needed:
            unbeatable = sum(score >= HIGHEST + noise for score in candidates)
            return "ceiling" if len(candidates) - unbeatable < needed else "not_better"
    return ""


def determinant(matrix: ArrayLike) -> float:
    """Det of a matrix [K, K]."""
    return float(np.linalg.det(np.asarray(matrix, dtype=np.float64)))


def _tau(dets: Sequence[float], settings: Denoise) -> float:
    if settings.max_det is not None:
        return settings.max_det
    if settings.keep_lowest is None or not dets:
        return math.inf
    return sorted(dets)[n_of_share(settings.keep_lowest, len(dets)) - 1]


def n_of_share(share: float, n: int) -> int:
    """How many of `n` make a share, at least."""
    return math.ceil(share * n - 1e-9)  # 0.28 * 25 is 7.000000000000001
