"""What labelled answers say about questions: which way each points, what it weighs, and a rating made of all.

Plain numbers: a question's value is a number, missing where it was not answered. Source: docs/judging.md. Knows no
model and no wording.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from selfpriority.intervals import auc
from selfpriority.judges.fit import deal
from selfpriority.judges.heads import rating_of
from selfpriority.records import Rating, Unrated

Floats = NDArray[np.float64]

CHANCE = 0.5
NO_SIGNAL = 0.05
"""A question is dropped where its AUC lies no further from chance: from 0.45 to 0.55, both included."""
LEAST_READ = 0.5
"""Share of the questions' weight under which what was answered makes no rating."""
FOLDS = 5
_STILL = 1e-6  # values that vary by less are one value, and rounding
_CLOSE = 1e-9  # an AUC of 0.55 is a fraction that no float holds


@dataclass(frozen=True)
class Weighed:
    """What the labelled answers say about one question."""

    question: str
    sign: int
    """1: a higher value is better; -1: a lower one."""
    weight: float
    """|2 AUC - 1|; 0: dropped."""
    mean: float
    """Of its values over the labelled answers."""
    sd: float
    """Their standard deviation; positive."""
    auc: float | None = None
    """Probability that an answer labelled 1 has the higher value; None: no two labels were answered."""


@dataclass(frozen=True)
class Orientation:
    """The questions of one objective, oriented and weighted."""

    questions: tuple[Weighed, ...]
    centre: float
    """Score that is rated 5.5: the mean over the labelled answers."""
    spread: float
    """Standard deviation of their scores; positive."""
    n: int
    """Labelled answers behind it."""

    @property
    def kept(self) -> tuple[str, ...]:
        """The questions that count."""
        return tuple(weighed.question for weighed in self.questions if weighed.weight)

    def score(self, values: Mapping[str, float]) -> float | None:
        """Weighted mean of sign * (value - mean) / sd over the questions that were answered.

        Args:
            values: by question.

        Returns:
            None where less than half of the weight was answered.
        """
        answered = [weighed for weighed in self.questions if weighed.weight and weighed.question in values]
        total = sum(weighed.weight for weighed in self.questions)
        weight = sum(weighed.weight for weighed in answered)
        if not total or weight < LEAST_READ * total:
            return None
        return sum(w.weight * w.sign * (values[w.question] - w.mean) / w.sd for w in answered) / weight

    def rating(self, values: Mapping[str, float]) -> Rating | Unrated:
        """On 1..10, as fitted heads map a logit: rising, 5.5 at the labelled answers' mean."""
        if not self.kept:
            return Unrated("no_question", "the model's yes to no question tells good anchors from bad ones")
        score = self.score(values)
        if score is None:
            return Unrated("low_mass", "the model says neither yes nor no to most of the questions")
        return Rating(rating_of((score - self.centre) / self.spread))


def orient(questions: Sequence[str], values: Floats, labels: Sequence[bool]) -> Orientation:
    """Which way each question points, and what it weighs.

    Args:
        questions: names of the columns.
        values: [answers, questions], NaN where a question was not answered.
        labels: whether each answer is good.
    """
    good = np.asarray(labels, dtype=np.bool_)
    weighed = tuple(_weighed(name, values[:, column], good) for column, name in enumerate(questions))
    whole = Orientation(weighed, 0.0, 1.0, len(good))
    scores = [score for score in map(whole.score, answered(questions, values)) if score is not None]
    centre, spread = (float(np.mean(scores)), float(np.std(scores))) if scores else (0.0, 1.0)
    return Orientation(weighed, centre, spread if spread > 0.0 else 1.0, len(good))


def orient_without(
    questions: Sequence[str], values: Floats, labels: Sequence[bool], groups: Sequence[str]
) -> dict[str, Orientation]:
    """For every group an orientation that never saw it, so that its answers may be evidence.

    Args:
        questions: names of the columns.
        values: [answers, questions].
        labels: whether each answer is good.
        groups: of each answer, usually its prompt; those of a fold are left out together.
    """
    names = sorted(set(groups))
    found: dict[str, Orientation] = {}
    for held in deal(names, min(FOLDS, len(names)), seed=0):
        seen = [row for row, group in enumerate(groups) if group not in held]
        fitted = orient(questions, values[seen], [labels[row] for row in seen])
        found |= dict.fromkeys(held, fitted)
    return found


def answered(questions: Sequence[str], values: Floats) -> list[dict[str, float]]:
    """Each row of `values` [answers, questions] by question, without what is missing."""
    return [
        {name: float(value) for name, value in zip(questions, row, strict=True) if np.isfinite(value)} for row in values
    ]


def _weighed(question: str, column: Floats, good: NDArray[np.bool_]) -> Weighed:
    is_there = np.isfinite(column)
    values, labels = column[is_there], good[is_there]
    if labels.all() or not labels.any():
        return Weighed(question, 1, 0.0, 0.0, 1.0)
    area, sd = auc(values.tolist(), labels.tolist()), float(values.std())
    says_something = abs(area - CHANCE) > NO_SIGNAL + _CLOSE and sd > _STILL
    weight = abs(2.0 * area - 1.0) if says_something else 0.0
    return Weighed(
        question, 1 if area >= CHANCE else -1, weight, float(values.mean()), sd if sd > _STILL else 1.0, area
    )
