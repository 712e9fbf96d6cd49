"""Preference rows, `5-pairs.jsonl`: a pool's pairs as a data set TRL reads as it is, and back.

Knows the record of a pair and nothing of where rows are stored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from selfpriority.records import Message, Pair, PairedPool, Pool, Scored

UNRATED = "preference"
"""What decides a pair whose answers nobody rated."""


@dataclass(frozen=True)
class PreferenceRow:
    """One pair, readable on its own: conversational `prompt`, `chosen` and `rejected`, with scores by objective.

    Scores are from 1 to 10; `distance` and `gap` are in the same points.

    Examples:
        >>> row = Results("runs/my").pairs()[0]
        >>> row.chosen[0].role, row.gap >= 0
        ('assistant', True)
    """

    prompt_id: str
    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    chosen_scores: dict[str, float]
    rejected_scores: dict[str, float]
    decided_by: str
    distance: float
    gap: float
    chosen_id: str
    rejected_id: str
    chosen_stop: str
    rejected_stop: str


def preference_rows(paired: Sequence[PairedPool], objectives: Sequence[str]) -> list[PreferenceRow]:
    """One row per pair, pool by pool; `objectives` names the scores in priority order."""
    rows = []
    for entry in paired:
        responses = entry.pool.responses
        for pair in entry.pairs:
            chosen, rejected = responses[pair.chosen], responses[pair.rejected]
            rows.append(
                PreferenceRow(
                    prompt_id=entry.pool.prompt.id,
                    prompt=entry.pool.prompt.messages,
                    chosen=(Message("assistant", chosen.response.text),),
                    rejected=(Message("assistant", rejected.response.text),),
                    chosen_scores=by_objective(chosen, objectives),
                    rejected_scores=by_objective(rejected, objectives),
                    decided_by=objectives[pair.decided_by],
                    distance=pair.distance,
                    gap=pair.gap,
                    chosen_id=chosen.response.id,
                    rejected_id=rejected.response.id,
                    chosen_stop=chosen.response.stop,
                    rejected_stop=rejected.response.stop,
                )
            )
    return rows


def by_objective(scored: Scored, objectives: Sequence[str]) -> dict[str, float]:
    """The scores by name; none where nobody rated the answer."""
    return dict(zip(objectives, scored.scores, strict=True)) if scored.scores else {}


def objectives_in(rows: Sequence[PreferenceRow]) -> tuple[str, ...]:
    """What the scores of `rows` are called, in priority order; what decided them where there are none."""
    return tuple(rows[0].chosen_scores) or (rows[0].decided_by,) if rows else ()


def paired_pools(
    pools: Sequence[Pool], rows: Sequence[PreferenceRow], objectives: Sequence[str], keeps_unpaired: bool = False
) -> list[PairedPool]:
    """The pools with the pairs that `rows` name, in the order of `pools`.

    Args:
        pools: of a round.
        rows: its pairs.
        objectives: names of the objectives, in priority order.
        keeps_unpaired: whether a pool without a row stays, for its answers to be learned; else it is left out.
    """
    by_prompt: dict[str, list[PreferenceRow]] = {}
    for row in rows:
        by_prompt.setdefault(row.prompt_id, []).append(row)
    paired = []
    for pool in pools:
        index = {scored.response.id: i for i, scored in enumerate(pool.responses)}
        pairs = tuple(
            Pair(
                chosen=index[row.chosen_id],
                rejected=index[row.rejected_id],
                decided_by=list(objectives).index(row.decided_by),
                distance=row.distance,
                gap=row.gap,
            )
            for row in by_prompt.get(pool.prompt.id, ())
        )
        if pairs or keeps_unpaired:
            paired.append(PairedPool(pool, pairs))
    return paired


def deciders(rows: Iterable[PreferenceRow], objectives: Sequence[str]) -> dict[str, int]:
    """How many pairs each objective decided."""
    counts = Counter(row.decided_by for row in rows)
    return {name: counts[name] for name in objectives}
