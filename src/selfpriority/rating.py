"""What a judge is: (prompt, answer) pairs in, one verdict per objective out.

`words` is all that is specific to reading a verdict out of text or digit probabilities; who asks is in
`judges/`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from selfpriority.records import Prompt, Rating, Ratings, Response, Unrated

LOWEST, HIGHEST = 1.0, 10.0
DIGITS = tuple("0123456789")


@dataclass(frozen=True)
class Item:
    """One answer to be rated."""

    prompt: Prompt
    response: Response


class Judge(Protocol):
    """Whoever rates. Implementations: `judges/words.py`, `judges/probe.py`, `judges/reward.py`."""

    @property
    def fingerprint(self) -> str:
        """Content hash of everything a verdict depends on: model, wording, heads."""
        ...

    @property
    def objectives(self) -> tuple[str, ...]:
        """Names of the objectives it rates, in priority order."""
        ...

    def rate(self, items: Sequence[Item]) -> list[Ratings]:
        """One tuple of K verdicts per item, in order."""
        ...


def expected_rating(probabilities: Sequence[float], mass_floor: float) -> Rating | Unrated:
    """Expected rating from the probabilities of the digits 0..9 at one position, on 1..10 (docs/judging.md).

    Args:
        probabilities: ten probabilities, not renormalised.
        mass_floor: below this captured mass the answer is unrated, never a number.
    """
    mass = sum(probabilities)
    if mass < mass_floor or mass <= 0.0:
        return Unrated("low_mass", f"digits hold {mass:.3f} of the probability, floor {mass_floor}")
    mean = sum(digit * p for digit, p in enumerate(probabilities)) / mass
    variance = sum((digit - mean) ** 2 * p for digit, p in enumerate(probabilities)) / mass
    return Rating(value=mean + LOWEST, mass=min(mass, 1.0), variance=variance)


_NUMBER = r"(\d+(?:\.\d+)?)"
_RATING = re.compile(
    rf"(?:rating|score|verdict)\W{{0,6}}(?:(?:is|of)\W{{0,3}})?{_NUMBER}"  # Rating: 7
    rf"|{_NUMBER}\s*(?:/|out of)\s*10\b"  # 7/10
    rf"|\[\[\s*{_NUMBER}\s*\]\]"  # [[7]]
    rf"|^\W*{_NUMBER}\W*$",  # 7, alone on its line
    flags=re.IGNORECASE | re.MULTILINE,
)


def verbal_rating(text: str) -> Rating | Unrated:
    """The last rating in a judge's text wins (docs/judging.md).

    Only a marked number is a rating: "I see 3 problems" is no verdict, and a text without one is unrated.
    """
    found = [next(number for number in match.groups() if number) for match in _RATING.finditer(text)]
    if not found:
        return Unrated("no_rating", "the judge's text holds no rating")
    value = float(found[-1])
    if not LOWEST <= value <= HIGHEST:
        return Unrated("out_of_range", f"rating {value:g} is outside 1..10")
    return Rating(value=value)
