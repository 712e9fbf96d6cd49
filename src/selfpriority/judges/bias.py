"""What else a judge's ratings follow beside the label: length, refusing; and what a rating is worth, by tenths.

See docs/judging.md. Ratings, labels and texts in, plain numbers out. Knows no judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from selfpriority.intervals import Floats, ranks
from selfpriority.languages import spaced
from selfpriority.refusals import is_refusal

BINS = 10
LEAST = 5
"""Fewest answers of a group that a mean may rest on."""


@dataclass(frozen=True)
class Bin:
    """A tenth of the answers, by rating."""

    low: float
    high: float
    rating: float
    """Mean rating."""
    positive: float
    """Share labelled 1."""
    n: int


@dataclass(frozen=True)
class Bias:
    """What moves a rating among answers of the same label. None: too few answers to say."""

    length: float | None
    """Rank correlation of rating and words within each label: 0 for a judge that does not look at length."""
    refusal: float | None
    """Rating of refusals minus other answers of the same label, in points."""
    n_refusals: int
    longer_preferred: float | None
    """Share of the pairs of unlike length in which the judge rates the longer answer higher."""
    longer_chosen: float | None
    """The same share by the labels: what the judge's share is to be compared with."""
    n_pairs: int


def calibration(rated: Sequence[tuple[float, bool]]) -> tuple[Bin, ...]:
    """(rating, label) pairs in up to ten bins of equal size, lowest first; equal ratings stay in one bin."""
    if not rated:
        return ()
    ordered = sorted(rated)
    ratings = np.array([rating for rating, _ in ordered])
    edges = {int(np.searchsorted(ratings, ratings[len(ordered) * i // BINS])) for i in range(BINS)}
    starts = sorted(edges)
    bins = [ordered[start:end] for start, end in zip(starts, [*starts[1:], len(ordered)], strict=True)]
    return tuple(
        Bin(part[0][0], part[-1][0], fmean(r for r, _ in part), fmean(label for _, label in part), len(part))
        for part in bins
    )


def bias(
    rated: Sequence[tuple[float, bool, str]], pairs: Sequence[tuple[tuple[float, str], tuple[float, str]]]
) -> Bias:
    """Bias on single answers (rating, label, text) and on pairs of (rating, text), the chosen one first."""
    by_label = [[(rating, text) for rating, label, text in rated if label is value] for value in (True, False)]
    unlike = [pair for pair in pairs if _words(pair[0][1]) != _words(pair[1][1])]
    longer = [_words(chosen[1]) > _words(rejected[1]) for chosen, rejected in unlike]
    preferred = [
        0.5 if chosen[0] == rejected[0] else float((chosen[0] > rejected[0]) == is_longer)
        for (chosen, rejected), is_longer in zip(unlike, longer, strict=True)
    ]
    return Bias(
        length=_length(by_label),
        refusal=_refusal(by_label),
        n_refusals=sum(is_refusal(text) for _, _, text in rated),
        longer_preferred=fmean(preferred) if preferred else None,
        longer_chosen=fmean(longer) if longer else None,
        n_pairs=len(unlike),
    )


def _length(by_label: Sequence[Sequence[tuple[float, str]]]) -> float | None:
    """Correlation of the ranks within each label, over the labels together."""
    large = [answers for answers in by_label if len(answers) >= LEAST]
    first = [_centred([rating for rating, _ in answers]) for answers in large]
    second = [_centred([_words(text) for _, text in answers]) for answers in large]
    if not first:
        return None
    a, b = np.concatenate(first), np.concatenate(second)
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 0.0 else None


def _centred(values: Sequence[float]) -> Floats:
    """Ranks around 0, on a scale that does not depend on how many there are."""
    ranked = ranks(np.asarray(values, dtype=np.float64))
    centred: Floats = (ranked - ranked.mean()) / len(ranked)
    return centred


def _refusal(by_label: Sequence[Sequence[tuple[float, str]]]) -> float | None:
    """Mean over the labels that hold enough of both, weighed by the refusals in them."""
    differences, weights = [], []
    for answers in by_label:
        refusing = [rating for rating, text in answers if is_refusal(text)]
        others = [rating for rating, text in answers if not is_refusal(text)]
        if min(len(refusing), len(others)) >= LEAST:
            differences.append(fmean(refusing) - fmean(others))
            weights.append(len(refusing))
    return float(np.average(differences, weights=weights)) if differences else None


def _words(text: str) -> int:
    return len(spaced(text).split())
