"""The cheap alarm in numbers and words: how much less likely every system finds the same texts than the first one.

See docs/evaluation.md. No test: the texts are few, and this is an alarm and not a measure. Knows numbers only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

from selfpriority.evaluation.records import Perplexity, PerplexityRow

ALARM = 1.10
"""A perplexity this many times that of the first system is worth a look."""


class Likelihood(Protocol):
    """How likely a model finds one text."""

    @property
    def nats(self) -> float:
        """Negative log-likelihood of the whole text."""
        ...

    @property
    def n_tokens(self) -> int:
        """Tokens that it is the sum over."""
        ...


def perplexities(texts: Mapping[str, Sequence[Likelihood]]) -> Perplexity:
    """Of system -> its likelihoods of the same texts; `ratio` is to the first system."""
    values = {
        name: math.exp(min(sum(t.nats for t in of_texts) / sum(t.n_tokens for t in of_texts), 700.0))
        for name, of_texts in texts.items()
    }
    first = next(iter(values.values()))
    systems = {name: PerplexityRow(value, value / first) for name, value in values.items()}
    return Perplexity(systems, tuple(name for name, row in systems.items() if row.ratio > ALARM))


def perplexity_lines(found: Perplexity) -> list[str]:
    """A line a system; an alarm is marked."""
    return [
        f"perplexity  {name}: {row.perplexity:.2f} (x {row.ratio:.2f}){'  !' if name in found.alarm else ''}"
        for name, row in found.systems.items()
    ]


def alarms_in_words(found: Perplexity) -> list[str]:
    """A sentence for the systems whose perplexity rings, the worst first; none where none does."""
    first = next(iter(found.systems), "")
    ringing = sorted(found.alarm, key=lambda name: -found.systems[name].ratio)
    if not ringing:
        return []
    names = _listed(ringing)
    times = _listed([f"{found.systems[name].ratio:.2f}" for name in ringing])
    is_one = len(ringing) == 1
    finds, its, it = ("finds", "its", "It") if is_one else ("find", "their", "They")
    return [
        f"{names} {finds} plain prose less likely than {first}: {its} perplexity is {times} times as high, and "
        f"{ALARM:.2f} is where the alarm rings. {it} may have lost some of what {it.lower()} could do."
    ]


def _listed(words: Sequence[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
