"""Is a difference between two systems more than chance? Tests paired by prompt, corrected for how many there are.

A cell is what `summary.json` holds about one comparison on one measure. Knows numbers by prompt and nothing of
systems or judges. Sources: paired bootstrap, Koehn 2004; sign-flip permutation test, Dror et al. 2018, section
3.2; correction, Holm 1979.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, TypeVar

from selfpriority.intervals import LEVEL, bootstrap_mean_interval, holm, sign_flip_p

Json = dict[str, Any]
Paired = Mapping[str, tuple[float, float]]
"""Prompt id -> the values of the two systems compared."""
Key = TypeVar("Key", bound=Hashable)

FLIPS = 10_000
"""Random sign flips of a test: with 2,000 the smallest p, times forty comparisons, could not reach 0.01."""


def difference(paired: Paired) -> Json:
    """Mean of a - b over prompts, the interval of a paired bootstrap over prompts and the p of a sign-flip test."""
    if not paired:
        return {"mean": None, "low": None, "high": None, "p": None, "n": 0}
    differences = [a - b for a, b in paired.values()]
    interval = bootstrap_mean_interval(differences)
    return {
        "mean": interval.estimate,
        "low": interval.low,
        "high": interval.high,
        "p": sign_flip_p(differences, FLIPS),
        "n": len(differences),
    }


def mean_difference(paired: Paired, prompts: Iterable[str]) -> float | None:
    """Mean of a - b over these prompts alone; None for none. A figure beside a tested one, such as answer length."""
    differences = [paired[prompt_id][0] - paired[prompt_id][1] for prompt_id in prompts]
    return fmean(differences) if differences else None


def won_or_lost(paired: Paired, tie: float) -> list[int]:
    """For each prompt 1 if a's value is the higher one, -1 if b's is, 0 if they are at most `tie` apart."""
    differences = [a - b for a, b in paired.values()]
    return [(d > tie) - (d < -tie) for d in differences]


def wins(outcomes: Sequence[int]) -> Json:
    """Shares of won (1), tied (0) and lost (-1) prompts with their intervals, and the p of "as many won as lost"."""
    shares: Json = {"win": None, "tie": None, "lose": None, "n": len(outcomes), "intervals": {}, "p": None}
    if not outcomes:
        return shares
    for name, sign in (("win", 1), ("tie", 0), ("lose", -1)):
        interval = bootstrap_mean_interval([float(outcome == sign) for outcome in outcomes])
        shares[name] = interval.estimate
        shares["intervals"][name] = [interval.low, interval.high]
    shares["p"] = sign_flip_p([float(outcome) for outcome in outcomes], FLIPS)
    return shares


def corrected(family: Mapping[Key, Json]) -> dict[Key, Json]:
    """The cells with `p_holm`, corrected over all cells that hold a test, and `significant`: p_holm <= 0.05."""
    tested = [key for key, cell in family.items() if cell["p"] is not None]
    adjusted = dict(zip(tested, holm([family[key]["p"] for key in tested]), strict=True))
    return {key: {**cell, **_decided(adjusted.get(key))} for key, cell in family.items()}


def _decided(p: float | None) -> Json:
    return {"p_holm": p, "significant": p is not None and p <= 1.0 - LEVEL + 1e-12}
