"""What answers do whatever their ratings: open like every other answer. Refusals are in `refusals.py`.

A policy can buy harmlessness with refusals and sameness, which no score shows. Works on text alone and knows
no model.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

OPENING_WORDS = 8


def opening(text: str, n: int = OPENING_WORDS) -> str:
    """The first n words, casefolded and without punctuation."""
    words = re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.replace("\u2019", "'").casefold())
    return " ".join(words[:n])


def boilerplate_share(texts: Sequence[str]) -> float | None:
    """Share of answers whose opening is also that of at least one other answer; None without answers."""
    if not texts:
        return None
    counts = Counter(opening(text) for text in texts)
    return sum(count for count in counts.values() if count > 1) / len(texts)


def largest_opening_share(texts: Sequence[str]) -> float | None:
    """Share of answers that begin with the most frequent opening; None without answers."""
    if not texts:
        return None
    return max(Counter(opening(text) for text in texts).values()) / len(texts)
