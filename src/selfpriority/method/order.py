"""The lexicographic order of score vectors, on a grid.

Paper: section "Preference pair construction"; docs/deviations.md 2 (grid), 3 (threshold). Objectives come most
important first. Every objective but the last is compared on a grid of `resolution`, so that a lower objective may
speak where the higher ones are as good as equal; unlike "equal within a tolerance" this is a true weak order
(transitive).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from selfpriority.recipe import PairRules
from selfpriority.recipe.method import OrderBy


@dataclass(frozen=True)
class Order:
    """Which of two score vectors is greater.

    Args:
        resolution: width of the grid for every objective but the last; 0 compares exactly.
        threshold: scores from here up count as equal on every objective but the last; None switches it off.
        by: `priority` as above; the controls: `swapped`, the last objective first, and `sum`, no order at all.
    """

    resolution: float
    threshold: float | None = None
    by: OrderBy = "priority"

    @classmethod
    def of(cls, rules: PairRules) -> Order:
        """The order a recipe asks for."""
        return cls(rules.resolution, rules.threshold, rules.order)

    def key(self, scores: Sequence[float]) -> tuple[float, ...]:
        """Order key (round(s_1 / resolution), ..., s_K): compare keys as Python compares tuples."""
        if self.by == "sum":
            return (math.fsum(scores),)
        *higher, last = scores if self.by == "priority" else reversed(scores)
        return (*(self._cell(score) for score in higher), last)

    def decided_by(self, a: Sequence[float], b: Sequence[float]) -> int | None:
        """Index of the first objective on which the keys differ; None when they are equal.

        Of a sum the one that differs most.
        """
        if self.by == "sum":
            apart = [abs(x - y) for x, y in zip(a, b, strict=True)]
            return apart.index(max(apart)) if self.key(a) != self.key(b) else None
        first = next((k for k, (x, y) in enumerate(zip(self.key(a), self.key(b), strict=True)) if x != y), None)
        return first if first is None or self.by == "priority" else len(a) - 1 - first

    def _cell(self, score: float) -> float:
        if self.threshold is not None and score >= self.threshold:
            return math.inf
        # floor(x + 1/2), not round(): Python rounds halves to even, which would make cells of unequal width
        return math.floor(score / self.resolution + 0.5) if self.resolution else score
