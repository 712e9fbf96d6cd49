"""Up to which spread can a judge's ratings be trusted? Agreement with a stronger judge as prompts enter.

Paper: section "Uncertainty-guided denoising", analysis: prompts enter in order of rising det(covariance) of the weak
judge's scores, and the RV coefficient between both judges' scores is read at each share. Knows numbers only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from selfpriority.evaluation.agreement import rv
from selfpriority.intervals import Floats
from selfpriority.method.denoise import determinant
from selfpriority.records import covariance

STEPS = 20
LEAST = 10
"""Fewest prompts that a point of the curve rests on."""
RESAMPLES = 500


@dataclass(frozen=True)
class TwiceRated:
    """A prompt's candidates under both judges, [n candidates, K objectives] each."""

    weak: tuple[tuple[float, ...], ...]
    strong: tuple[tuple[float, ...], ...]

    @property
    def det(self) -> float:
        """Determinant of the covariance of the weak judge's scores: what tau bounds."""
        return determinant(covariance(self.weak))


@dataclass(frozen=True)
class Point:
    """The prompts up to one spread."""

    share: float
    n: int
    max_det: float
    """The tau that keeps exactly these prompts."""
    rv: float | None
    """Of all scores of these prompts: do the judges see the same answers as good?"""
    rv_within: float | None
    """Of the scores minus their prompt's mean, which is what pairs are made of."""


@dataclass(frozen=True)
class Curve:
    """How agreement changes as prompts enter, and the tau that it suggests."""

    points: tuple[Point, ...]
    suggested: Point | None
    """The last point whose RV is within one standard error of the best; None without a curve."""
    standard_error: float | None
    """Of the best RV, by resampling prompts."""
    n_flat: int
    """Prompts left out because their det is not over epsilon: denoising drops them whatever tau is."""


def curve(prompts: Sequence[TwiceRated], epsilon: float, seed: int = 0) -> Curve:
    """The curve over all prompts whose det is over `epsilon`, in steps of a twentieth from the `LEAST`-th prompt on.

    The one-standard-error rule (Breiman et al. 1984) takes the most prompts that the best agreement does not
    clearly speak against.
    """
    entering = sorted((prompt for prompt in prompts if prompt.det > epsilon), key=lambda prompt: prompt.det)
    total = len(entering)
    counts = sorted({max(LEAST, round(total * step / STEPS)) for step in range(1, STEPS + 1)}) if total >= LEAST else []
    points = tuple(_point(entering[:n], total) for n in counts)
    measured = [point for point in points if point.rv is not None]
    n_flat = len(prompts) - total
    if not measured:
        return Curve(points, None, None, n_flat)
    best = max(measured, key=lambda point: point.rv or 0.0)
    error = _standard_error(entering[: best.n], seed)
    near = [point for point in measured if (point.rv or 0.0) >= (best.rv or 0.0) - error]
    return Curve(points, max(near, key=lambda point: point.n), error, n_flat)


def _point(prompts: Sequence[TwiceRated], total: int) -> Point:
    weak, strong = [np.array(p.weak) for p in prompts], [np.array(p.strong) for p in prompts]
    return Point(
        share=len(prompts) / total,
        n=len(prompts),
        max_det=prompts[-1].det,
        rv=rv(np.concatenate(weak), np.concatenate(strong)),
        rv_within=rv(_centred(weak), _centred(strong)),
    )


def _centred(scores: Sequence[Floats]) -> Floats:
    return np.concatenate([rows - rows.mean(axis=0) for rows in scores])


def _standard_error(prompts: Sequence[TwiceRated], seed: int) -> float:
    """Standard deviation of the RV over resamples of the prompts."""
    random = np.random.default_rng(seed)
    weak, strong = [np.array(p.weak) for p in prompts], [np.array(p.strong) for p in prompts]
    drawn = []
    for _ in range(RESAMPLES):
        chosen = random.integers(0, len(prompts), len(prompts))
        value = rv(np.concatenate([weak[i] for i in chosen]), np.concatenate([strong[i] for i in chosen]))
        if value is not None:
            drawn.append(value)
    return float(np.std(drawn)) if drawn else 0.0
