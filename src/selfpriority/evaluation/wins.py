"""How often does one system win against another, by prompt? From ratings, or from what a judge that compares said.

See docs/evaluation.md. Knows outcomes and nothing of systems.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from selfpriority.evaluation.records import Wins
from selfpriority.evaluation.significance import FLIPS, Paired
from selfpriority.intervals import bootstrap_mean_interval, sign_flip_p
from selfpriority.judges.comparer import Compared, orders


def won_or_lost(paired: Paired, tie: float) -> list[int]:
    """For each prompt 1 if a's value is the higher one, -1 if b's is, 0 if they are at most `tie` apart."""
    differences = [a - b for a, b in paired.values()]
    return [(d > tie) - (d < -tie) for d in differences]


def wins(outcomes: Sequence[int], flip_rate: float | None = None, words: float | None = None) -> Wins:
    """Shares of won (1), tied (0) and lost (-1) prompts with their intervals, and the p of "as many won as lost"."""
    if not outcomes:
        return Wins(None, None, None, 0, flip_rate=flip_rate, words=words)
    shares = {
        name: bootstrap_mean_interval([float(outcome == sign) for outcome in outcomes])
        for name, sign in (("win", 1), ("tie", 0), ("lose", -1))
    }
    return Wins(
        shares["win"].estimate,
        shares["tie"].estimate,
        shares["lose"].estimate,
        len(outcomes),
        intervals={name: (share.low, share.high) for name, share in shares.items()},
        p=sign_flip_p([float(outcome) for outcome in outcomes], FLIPS),
        flip_rate=flip_rate,
        words=words,
    )


def wins_by_comparing(rows: Sequence[Compared], words: float | None = None) -> Wins:
    """The same of duels that a judge saw in both orders, and what the orders say about the judge."""
    outcomes = [row.outcome for row in rows if row.outcome is not None]
    both = orders(rows)
    return replace(wins(outcomes, both.flip_rate, words), first_shown=both.first_shown, unread=both.unread)
