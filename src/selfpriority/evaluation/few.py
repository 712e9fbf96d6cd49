"""A summary as people are shown it: an interval over a handful of prompts looks like knowledge and is none.

Changes nothing in `summary.json`, which holds what was computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from selfpriority.evaluation.records import Cell, Contest, Difference, Standing, Summary, Wins

FEWEST = 5
"""From so many prompts on an interval is shown. Resampling fewer gives edges that are single prompts."""
Measured = TypeVar("Measured", Cell, Difference)
Name = TypeVar("Name", str, Contest)


def is_thin(n: int) -> bool:
    """Whether a figure rests on too few values for an interval; 0: an older version did not count."""
    return 0 < n < FEWEST


def without_thin_intervals(summary: Summary) -> Summary:
    """The same without the intervals over fewer than `FEWEST` prompts; means, counts and tests stay."""
    whole = _standing(summary.standing)
    pairwise = summary.pairwise and {
        contest: {name: bare_wins(cell) for name, cell in cells.items()} for contest, cells in summary.pairwise.items()
    }
    return replace(
        summary,
        systems=whole.systems,
        difference=whole.difference,
        pairwise=pairwise,
        by_kind={kind: _standing(part) for kind, part in summary.by_kind.items()},
        behaviour_difference=_bare(summary.behaviour_difference),
        judges={judge: _standing(part) for judge, part in summary.judges.items()},
    )


def bare(cell: Measured) -> Measured:
    """The same without an interval where it rests on too few values."""
    return replace(cell, low=None, high=None) if is_thin(cell.n) else cell


def bare_wins(cell: Wins) -> Wins:
    """Likewise."""
    return replace(cell, intervals={}) if is_thin(cell.n) else cell


def _standing(part: Standing) -> Standing:
    return Standing(_bare(part.systems), _bare(part.difference))


def _bare(table: Mapping[Name, Mapping[str, Measured]]) -> dict[Name, dict[str, Measured]]:
    return {key: {name: bare(cell) for name, cell in cells.items()} for key, cells in table.items()}
