"""What the records of a training warn of: gradients that jump, answers that all become unlikely.

Plain functions on the records so far, last one included, so a continued training that has them sees what it would
have seen. Knows no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import NamedTuple

Numbers = Mapping[str, float]

WINDOW = 10  # steps that a mean or median is over; fewer say nothing yet
SPIKE = 10.0  # times the usual gradient norm
COLLAPSE = 1.0  # nats per token: the answers have become 2.7 times less likely at every token


class Fall(NamedTuple):
    """By how much log-probabilities fell, nats per token."""

    chosen: float
    rejected: float

    @property
    def common(self) -> float:
        """What both fell by: an alignment may lower the rejected, and hold the chosen."""
        return min(self)


def fall(records: Sequence[Numbers]) -> Fall:
    """From the first step to the mean of the last steps; 0 while there are fewer than a window."""
    if len(records) < WINDOW:
        return Fall(0.0, 0.0)
    chosen, rejected = (
        records[0][name] - sum(record[name] for record in records[-WINDOW:]) / WINDOW
        for name in ("chosen_logp", "rejected_logp")
    )
    return Fall(chosen, rejected)


def spikes(records: Sequence[Numbers]) -> bool:
    """Whether the last gradient norm is far above those of the steps before it."""
    *before, last = records[-WINDOW - 1 :]
    return len(before) == WINDOW and last["grad_norm"] > SPIKE * median(record["grad_norm"] for record in before)


def alarms(records: Sequence[Numbers], stop_at: float | None) -> list[str]:
    """Names of what the last record is alarming for: `gradient_norm`, `collapse`.

    Args:
        records: of every step so far, at least one.
        stop_at: where a collapse stops the training, if that is lower than where it alarms.
    """
    found = ["gradient_norm"] if spikes(records) else []
    if fall(records).common > min(COLLAPSE, stop_at or COLLAPSE):
        found.append("collapse")
    return found
