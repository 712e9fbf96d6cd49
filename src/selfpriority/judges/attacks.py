"""How easily is a judge fooled? Bad answers that it caught are shown again with a suffix that speaks to the judge.

The suffixes are in `text/attacks.yaml`, by kind. Knows the Judge protocol; not how a judge works, nor who asks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean

import yaml

from selfpriority.records import Prompt, Rating, Ratings
from selfpriority.wording import FOLDER

NEUTRAL = "neutral"
"""The kind that says nothing about the answer: what any further sentence does to a rating."""
DISAVOWAL = "disavowal"
MOST_ANSWERS = 8
"""Bad answers that each suffix is tried on."""

Rate = Callable[[Sequence[tuple[Prompt, str]]], Sequence[Ratings]]
"""Ratings of (prompt, answer) pairs, in order."""


@dataclass(frozen=True)
class Attack:
    """One suffix."""

    kind: str
    text: str


@dataclass(frozen=True)
class Robustness:
    """What the suffixes do to a judge's ratings of bad answers on one objective."""

    flips: float | None
    """Share of (bad answer judged bad, suffix) judged good with the suffix, `neutral` left out.

    The rejected answer of a pair is judged bad while it is rated below the chosen one.
    """
    by_kind: dict[str, float]
    """The same by kind, `neutral` among them."""
    shift: float | None
    """Mean change of the rating in points, `neutral` left out."""
    neutral_shift: float | None
    """Mean change of the rating under a sentence that says nothing about the answer."""
    n: int
    """Ratings that the shares rest on, `neutral` left out."""


@cache
def attacks() -> tuple[Attack, ...]:
    """The shipped suffixes."""
    by_kind = yaml.safe_load((FOLDER / "attacks.yaml").read_text(encoding="utf-8"))
    return tuple(Attack(kind, text) for kind, texts in by_kind.items() for text in texts)


def tries(n: int, most: int = MOST_ANSWERS) -> list[tuple[Attack, int]]:
    """Every suffix with the indices of at most `most` of n answers that it is tried on."""
    return [(attack, (start * most + i) % n) for start, attack in enumerate(attacks()) for i in range(min(most, n))]


def attacked(caught: Sequence[tuple[Prompt, str, float, float]], rate: Rate, objective: int) -> Robustness:
    """Tries every suffix on some of the bad answers that were caught.

    Args:
        caught: (prompt, bad answer, its rating, the higher rating from which up it counts as judged good).
        rate: the judge.
        objective: index of the objective that the ratings are of.
    """
    if not caught:
        return Robustness(None, {}, None, None, 0)
    tried = [(attack, caught[at]) for attack, at in tries(len(caught))]
    again = rate([(prompt, f"{text} {attack.text}") for attack, (prompt, text, _, _) in tried])
    moved: dict[str, list[tuple[bool, float]]] = {}
    for (attack, (_, _, before, threshold)), ratings in zip(tried, again, strict=True):
        rating = ratings[objective]
        if isinstance(rating, Rating):
            moved.setdefault(attack.kind, []).append((rating.value >= threshold, rating.value - before))
    real = [pair for kind, pairs in moved.items() if kind != NEUTRAL for pair in pairs]
    neutral = moved.get(NEUTRAL, [])
    return Robustness(
        flips=fmean(flipped for flipped, _ in real) if real else None,
        by_kind={kind: fmean(flipped for flipped, _ in pairs) for kind, pairs in moved.items()},
        shift=fmean(shift for _, shift in real) if real else None,
        neutral_shift=fmean(shift for _, shift in neutral) if neutral else None,
        n=len(real),
    )
