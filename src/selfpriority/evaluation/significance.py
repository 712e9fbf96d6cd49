"""Is a difference between two systems more than chance? Tests paired by prompt, corrected for how many there are.

Knows numbers by prompt and nothing of systems or judges. Sources: paired bootstrap, Koehn 2004; sign-flip permutation
test, Dror et al. 2018, section 3.2; correction, Holm 1979.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace
from statistics import fmean
from typing import TypeVar

from selfpriority.evaluation.records import Difference, Wins
from selfpriority.intervals import bootstrap_mean_interval, holm, sign_flip_p

Paired = Mapping[str, tuple[float, float]]
"""Prompt id -> the values of the two systems compared, a before b."""
Key = TypeVar("Key", bound=Hashable)
Tested = TypeVar("Tested", Difference, Wins)

FLIPS = 10_000
"""Random sign flips of a test: with 2,000 the smallest p, times forty comparisons, could not reach 0.01."""


def difference(paired: Paired, words: float | None = None) -> Difference:
    """Mean of a - b over prompts, the interval of a paired bootstrap over prompts and the p of a sign-flip test.

    Args:
        paired: what is compared.
        words: by how many words a's answers are longer, told beside it.
    """
    if not paired:
        return Difference(None, words=words)
    differences = [a - b for a, b in paired.values()]
    interval = bootstrap_mean_interval(differences)
    p = sign_flip_p(differences, FLIPS)
    return Difference(interval.estimate, interval.low, interval.high, p, len(differences), words)


def mean_difference(paired: Paired, prompts: Iterable[str]) -> float | None:
    """Mean of a - b over these prompts alone; None for none. A figure beside a tested one, such as answer length."""
    differences = [paired[prompt_id][0] - paired[prompt_id][1] for prompt_id in prompts]
    return fmean(differences) if differences else None


def corrected(family: Mapping[Key, Tested]) -> dict[Key, Tested]:
    """The same with `p_holm`, corrected over all that hold a test."""
    p_values = {key: cell.p for key, cell in family.items() if cell.p is not None}
    adjusted = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    return {key: replace(cell, p_holm=adjusted.get(key)) for key, cell in family.items()}
