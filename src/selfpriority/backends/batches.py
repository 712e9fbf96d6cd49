"""Cuts sequences of known length into batches under a token budget, and finds what they share. Knows numbers only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PASS_TOKENS = 4096
"""Positions of one forward pass over prompts: what a layer needs for a moment grows with them, speed does no more."""

LEAST_ROWS = 8
"""Contexts of a request that are always read at once: what asks about few things is computed as it ever was."""


@dataclass(frozen=True)
class Cost:
    """What one request adds to a batch."""

    group: str
    """Only requests of one group may share a batch."""
    sequences: int
    length: int
    """Tokens of its longest sequence, those still to be generated included."""


def cut(costs: Sequence[Cost], tokens_per_batch: int, max_batch: int) -> list[list[int]]:
    """Indices of `costs` in batches: groups in order of appearance, the longest first within each.

    The padded size (sequences times the longest length) stays within `tokens_per_batch` and the sequences
    within `max_batch`, unless a single request is larger than either.
    """
    batches: list[list[int]] = []
    for group in dict.fromkeys(cost.group for cost in costs):
        members = [i for i, cost in enumerate(costs) if cost.group == group]
        members.sort(key=lambda i: -costs[i].length)  # stable: equal lengths keep their order
        longest = n_sequences = 0
        for index in members:
            cost = costs[index]
            grown = n_sequences + cost.sequences
            if n_sequences and grown <= max_batch and grown * longest <= tokens_per_batch:
                batches[-1].append(index)
                n_sequences = grown
            else:
                batches.append([index])
                longest, n_sequences = cost.length, cost.sequences
    return batches


def n_shared(contexts: Sequence[Sequence[object]]) -> int:
    """Length of the longest common prefix that leaves every context a token; 0 for a single context."""
    if len(contexts) == 1:
        return 0
    return min(n_alike(contexts), min(map(len, contexts)) - 1)


def n_alike(sequences: Sequence[Sequence[object]]) -> int:
    """Length of the longest common prefix."""
    n_most = min(map(len, sequences))
    return next((i for i in range(n_most) if len({ids[i] for ids in sequences}) > 1), n_most)


def passes(lengths: Sequence[int], most: int | None = None) -> list[slice]:
    """Rows of these lengths, some for each forward pass: the same numbers as in one, and less in between.

    A pass is as wide as its own longest row, so rows in order of length hardly pad. Its positions stay within `most`,
    by default `PASS_TOKENS`; a longer row makes a pass alone.
    """
    found: list[slice] = []
    first = widest = 0
    for row, length in enumerate(lengths):
        widest = max(widest, length)
        if row > first and (row + 1 - first) * widest > (most or PASS_TOKENS):
            found.append(slice(first, row))
            first, widest = row, length
    return [*found, slice(first, len(lengths))] if lengths else []


def rows_at_once(n_rows: int, width: int, most: int) -> int:
    """How many of one request's contexts are read together: what they share is held once for each of them."""
    return min(n_rows, max(LEAST_ROWS, most // max(1, width)))
