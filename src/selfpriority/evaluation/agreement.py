"""How far do judges agree? Krippendorff's alpha by objective and the RV coefficient of their score vectors.

Sources: Krippendorff, Content Analysis (2004), chapter 11; Robert and Escoufier 1976 for RV. Plain numbers in,
plain numbers out; knows nothing of judges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from selfpriority.evaluation.records import Agreement, Alpha, Contest, Rv
from selfpriority.intervals import Floats, ranks

Matrix = Sequence[Sequence[float]] | Floats
Scores = Mapping[str, Sequence[float | None]]
"""Name of an answer -> its ratings in priority order; None: unrated."""


def alpha(units: Sequence[Sequence[float]], ordinal: bool = False) -> float | None:
    """Krippendorff's alpha of the ratings that each unit got, for interval or ordinal data.

    1: full agreement, 0: as chance would have it, below: worse. Units with fewer than two ratings say nothing.
    None where nothing can be compared or no two ratings differ.
    """
    rated = [np.asarray(unit, dtype=np.float64) for unit in units if len(unit) > 1]
    if not rated:
        return None
    if ordinal:  # Krippendorff's ordinal metric is the interval metric on mean ranks
        ranked = ranks(np.concatenate(rated))
        rated = np.split(ranked, np.cumsum([len(unit) for unit in rated])[:-1])
    pooled = np.concatenate(rated)
    n = len(pooled)
    seen = sum(_squares(unit) / (len(unit) - 1) for unit in rated) / n
    expected = _squares(pooled) / (n * (n - 1))
    return float(1.0 - seen / expected) if expected > 0.0 else None


def rv(a: Matrix, b: Matrix) -> float | None:
    """RV coefficient of two judges' score vectors on the same answers, [n, K] each: 0 unrelated, 1 equal in shape.

    A squared correlation of configurations: blind to shifts, rotations and scale. None where one does not vary.
    """
    x, y = (np.asarray(m, dtype=np.float64) for m in (a, b))
    if len(x) < 2:
        return None
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    scale = float(np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    return float(np.linalg.norm(x.T @ y) ** 2) / scale if scale > 1e-12 else None


def agreement(judges: Mapping[str, Scores], objectives: Sequence[str]) -> Agreement:
    """How far judges agree on each objective and, two by two, on all of them together."""
    answers = dict.fromkeys(answer for scores in judges.values() for answer in scores)
    alphas = {}
    for index, objective in enumerate(objectives):
        units = [_given(judges, answer, index) for answer in answers]
        alphas[objective] = Alpha(alpha(units), alpha(units, ordinal=True), sum(len(unit) > 1 for unit in units))
    pairs = {Contest(a, b): _rv(judges[a], judges[b]) for a, b in combinations(judges, 2)}
    return Agreement(tuple(judges), alphas, pairs)


def whole(scores: Scores) -> dict[str, list[float]]:
    """The answers rated on every objective."""
    return {name: [v for v in row if v is not None] for name, row in scores.items() if None not in row}


def _rv(a: Scores, b: Scores) -> Rv:
    first, second = whole(a), whole(b)
    shared = [answer for answer in first if answer in second]
    return Rv(rv([first[name] for name in shared], [second[name] for name in shared]), len(shared))


def _given(judges: Mapping[str, Scores], answer: str, index: int) -> list[float]:
    values = [scores[answer][index] for scores in judges.values() if answer in scores]
    return [value for value in values if value is not None]


def _squares(values: Floats) -> float:
    """Sum of squared differences over all ordered pairs."""
    n = len(values)
    return float(2.0 * (n * (values @ values) - values.sum() ** 2))
