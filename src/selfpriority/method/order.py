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

from selfpriority.errors import InputError
from selfpriority.plain_text import shown
from selfpriority.recipe import PairRules
from selfpriority.recipe.method import mix_weights

_SAME = 9  # decimals of a weighted sum: what its rounding makes differ is equal


@dataclass(frozen=True)
class Order:
    """Which of two score vectors is greater.

    Args:
        resolution: width of the grid for every objective but the last; 0 compares exactly.
        threshold: scores from here up count as equal on every objective but the last; None switches it off.
        by: `priority` as above; the controls: `swapped`, the last objective first, and `sum`, no order at all.
        only: index of the one objective that counts, compared exactly; None: all count.
        weights: of every objective in a weighted sum that takes the place of any order; empty: there is none.
    """

    resolution: float
    threshold: float | None = None
    by: str = "priority"
    only: int | None = None
    weights: tuple[float, ...] = ()

    @classmethod
    def of(cls, rules: PairRules, objectives: Sequence[str] = ()) -> Order:
        """The order a recipe asks for.

        Args:
            rules: the recipe's `pair`.
            objectives: their names, most important first; orders that name or weigh objectives need them.

        Raises:
            InputError: `only` names none of them, or `mix` weighs more or fewer.
        """
        kind, _, rest = rules.order.partition(":")
        weights, only = mix_weights(rules.order), None
        if kind == "only":
            if rest not in objectives:
                known = ", ".join(objectives) or "no objectives are given"
                raise InputError(f"pair.order: {shown(rules.order)} names no objective; known here: {known}")
            only = objectives.index(rest)
        if kind == "mix" and objectives and len(weights) != len(objectives):
            raise InputError(
                f"pair.order: {shown(rules.order)} has {len(weights)} weights, but the objectives are "
                f"{', '.join(objectives)}; give one weight for each"
            )
        return cls(rules.resolution, rules.threshold, kind, only, weights)

    def key(self, scores: Sequence[float]) -> tuple[float, ...]:
        """Order key (round(s_1 / resolution), ..., s_K): compare keys as Python compares tuples."""
        if self.by == "sum":
            return (math.fsum(scores),)
        if self.weights:
            return (round(math.fsum(self._weighed(scores)), _SAME),)
        if self.only is not None:
            return (scores[self.only],)
        *higher, last = scores if self.by == "priority" else reversed(scores)
        return (*(self._cell(score) for score in higher), last)

    def decided_by(self, a: Sequence[float], b: Sequence[float]) -> int | None:
        """Index of the first objective on which the keys differ; None when they are equal.

        Of a sum the one that differs most, by its weight where it has one.
        """
        if self.by == "sum" or self.weights:
            apart = [abs(x - y) for x, y in zip(self._weighed(a), self._weighed(b), strict=True)]
            return apart.index(max(apart)) if self.key(a) != self.key(b) else None
        if self.only is not None:
            return self.only if self.key(a) != self.key(b) else None
        first = next((k for k, (x, y) in enumerate(zip(self.key(a), self.key(b), strict=True)) if x != y), None)
        return first if first is None or self.by == "priority" else len(a) - 1 - first

    def _weighed(self, scores: Sequence[float]) -> list[float]:
        weights = self.weights or (1.0,) * len(scores)
        return [weight * score for weight, score in zip(weights, scores, strict=True)]

    def _cell(self, score: float) -> float:
        if self.threshold is not None and score >= self.threshold:
            return math.inf
        # floor(x + 1/2), not round(): Python rounds halves to even, which would make cells of unequal width
        return math.floor(score / self.resolution + 0.5) if self.resolution else score
