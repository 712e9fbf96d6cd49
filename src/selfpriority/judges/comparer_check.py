"""Is a judge that compares worth believing? Agreement with labelled pairs, place, and suffixes that turn its verdict.

Source: docs/judging.md. What `check.py` is for ratings; knows the Comparer and labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from selfpriority.constitution import Constitution
from selfpriority.intervals import Interval, bootstrap_mean_interval
from selfpriority.judges.attacks import MOST_ANSWERS, NEUTRAL, tries
from selfpriority.judges.check import LEAST, MOST_UNRATED, agreement, doubt
from selfpriority.judges.comparer import Compared, Comparer, Duel, orders
from selfpriority.judges.labels import LabelledPair, Labels, anchors_as_labels
from selfpriority.judges.reports import ComparedObjective, ComparerReport, Turned

MOST_PAIRS = MOST_ANSWERS // 2
"""Pairs that each suffix is tried on; each is asked about in two orders, so that a check costs what a rater's does."""


def check_comparer(comparer: Comparer, constitution: Constitution, labels: Labels | None = None) -> ComparerReport:
    """How far a comparing judge is to be believed.

    Args:
        comparer: who is measured.
        constitution: its anchors speak for every objective that `labels` has no pairs of.
        labels: a user's own labels; single answers are no pairs.
    """
    objectives = []
    for k, own in enumerate(_pairs(constitution, labels)):
        asked = comparer.about(constitution.names[k])
        said = [row[0] for row in asked.compare(_duels(own.pairs))]
        found = _measured(constitution.names[k], own, said)
        right = [pair for pair, verdict in zip(own.pairs, said, strict=True) if verdict.outcome == 1]
        is_last = k == len(constitution.names) - 1  # not attacked, as with raters
        objectives.append(found if is_last else replace(found, attacks=_attacked(asked, right)))
    reasons = tuple(row.reason for row in objectives if not row.usable)
    return ComparerReport(not reasons, reasons, tuple(objectives))


def ask_all_pairs(comparer: Comparer, constitution: Constitution) -> None:
    """Asks what `check_comparer` asks without labels, with suffixes as if every pair had been decided rightly."""
    chosen = _pairs(constitution, None)
    for name, own in zip(constitution.names, chosen, strict=True):
        comparer.about(name).compare(_duels(own.pairs))
    for name, own in zip(constitution.names, chosen[:-1], strict=False):
        comparer.about(name).compare([duel for _, duel in _attacks(own.pairs)])


def _pairs(constitution: Constitution, labels: Labels | None) -> list[Labels]:
    """The labels whose pairs speak for each objective."""
    anchors = anchors_as_labels(constitution)
    given = [(anchors if labels is None else labels).of(name) for name in constitution.names]
    return [own if own.pairs else anchors.of(name) for name, own in zip(constitution.names, given, strict=True)]


def _duels(pairs: Sequence[LabelledPair]) -> list[Duel]:
    return [Duel(pair.prompt, pair.chosen, pair.rejected) for pair in pairs]


def _measured(name: str, labels: Labels, said: Sequence[Compared]) -> ComparedObjective:
    pairs = labels.pairs
    read = [(row.outcome, pair.group) for pair, row in zip(pairs, said, strict=True) if row.outcome is not None]
    agreed = bootstrap_mean_interval([(o + 1) / 2 for o, _ in read], [g for _, g in read]) if read else None
    problem = _problem(agreed, 1 - len(read) / len(pairs) if pairs else 0.0)
    both = orders(said)
    win, tie, lose = (fmean(o == sign for o, _ in read) if read else None for sign in (1, 0, -1))
    return ComparedObjective(
        objective=name,
        agreement=agreed,
        win=win,
        tie=tie,
        lose=lose,
        n=len(read),
        flip_rate=both.flip_rate,
        first_shown=both.first_shown,
        unread=both.unread,
        usable=not problem,
        reason=f"{name}: {problem or agreement(agreed)}",
        source=labels.source,
    )


def _attacks(pairs: Sequence[LabelledPair]) -> list[tuple[str, Duel]]:
    """(kind, some pair with a suffix on its worse answer) for every suffix."""
    tried = [(attack, pairs[at]) for attack, at in tries(len(pairs), MOST_PAIRS)]
    return [(a.kind, Duel(pair.prompt, pair.chosen, f"{pair.rejected} {a.text}")) for a, pair in tried]


def _attacked(comparer: Comparer, right: Sequence[LabelledPair]) -> Turned:
    tried = _attacks(right)
    outcomes: dict[str, list[int]] = {}
    for (kind, _), row in zip(tried, comparer.compare([duel for _, duel in tried]), strict=True):
        outcome = row[0].outcome
        if outcome is not None:
            outcomes.setdefault(kind, []).append(outcome)
    real = [outcome for kind, found in outcomes.items() if kind != NEUTRAL for outcome in found]
    return Turned(
        flips=fmean(outcome != 1 for outcome in real) if real else None,
        to_worse=fmean(outcome == -1 for outcome in real) if real else None,
        by_kind={kind: fmean(outcome != 1 for outcome in found) for kind, found in outcomes.items()},
        n=len(real),
    )


def _problem(agreed: Interval | None, unread: float) -> str:
    if unread > MOST_UNRATED:
        return f"{unread:.0%} of the pairs got no verdict"
    if agreed is None:
        return "no labelled pairs were compared"
    if agreed.n < LEAST:
        return f"{agreed.n} compared pairs are too few, {LEAST} are needed"
    return doubt(agreed)
