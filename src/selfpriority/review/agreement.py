"""How far a judge agrees with people, and people with each other: the order of two answers, the ranks of many.

Plain records in, shares with intervals out; prompts are resampled whole. Knows nothing of files or pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from selfpriority.intervals import Interval, bootstrap_mean_interval, bootstrap_spearman
from selfpriority.review.reviews import TIE, Review

Ratings = Mapping[tuple[str, str], Mapping[str, float | None]]
"""(prompt id, system) -> objective -> the judge's rating; None is unrated."""


@dataclass(frozen=True)
class Preference:
    """One person's order of two systems' answers to one prompt, on one objective."""

    rater: str
    prompt_id: str
    objective: str
    systems: tuple[str, str]
    """In alphabetical order."""
    order: int
    """1: the first is better, -1: the second, 0: a tie."""


@dataclass(frozen=True)
class Agreement:
    """Share of comparisons with the same order, a tie of the judge counting half."""

    objective: str
    who: str
    share: Interval | None
    """None: nobody preferred anything."""
    n_ties: int
    """Comparisons in which the person saw no difference; they are left out."""


@dataclass(frozen=True)
class Correlation:
    """How far the judge's ratings rise and fall with a person's, over all answers to all prompts."""

    objective: str
    who: str
    rho: Interval | None
    """Spearman's rank correlation; None: fewer than two answers, or one of both always says the same."""


def preferences(reviews: Sequence[Review]) -> list[Preference]:
    """Every comparison somebody made, and every one that follows from ratings of the same prompt's answers."""
    found: dict[tuple[str, str, str, tuple[str, str]], Preference] = {}
    rated: dict[tuple[str, str, str], dict[str, int]] = {}
    for review in reviews:
        for objective, verdict in review.verdicts.items():
            if isinstance(verdict, int):
                rated.setdefault((review.rater, review.prompt_id, objective), {})[review.systems[0]] = verdict
            else:
                first, second = sorted(review.systems)
                order = {first: 1, second: -1, TIE: 0}[verdict]
                made = Preference(review.rater, review.prompt_id, objective, (first, second), order)
                found[made.rater, made.prompt_id, objective, made.systems] = made
    for (rater, prompt_id, objective), values in rated.items():
        for first, second in combinations(sorted(values), 2):
            order = (values[first] > values[second]) - (values[first] < values[second])
            derived = Preference(rater, prompt_id, objective, (first, second), order)
            found.setdefault((rater, prompt_id, objective, derived.systems), derived)
    return list(found.values())


def with_judge(made: Iterable[Preference], ratings: Ratings, who: str, objectives: Sequence[str]) -> list[Agreement]:
    """How often the judge's order is the person's, by objective; of pairs with a preference that the judge rated."""
    by_objective: dict[str, list[Preference]] = {objective: [] for objective in objectives}
    for each in made:
        by_objective.setdefault(each.objective, []).append(each)
    return [_judged(objective, rows, ratings, who) for objective, rows in by_objective.items()]


def _judged(objective: str, rows: Sequence[Preference], ratings: Ratings, who: str) -> Agreement:
    same, prompts = [], []
    for row in rows:
        first, second = (ratings.get((row.prompt_id, system), {}).get(objective) for system in row.systems)
        if row.order and first is not None and second is not None:
            agreed = (first - second) * row.order
            same.append(1.0 if agreed > 0 else 0.5 if agreed == 0 else 0.0)
            prompts.append(row.prompt_id)
    share = bootstrap_mean_interval(same, prompts) if same else None
    return Agreement(objective, who, share, sum(row.order == 0 for row in rows))


def correlations(reviews: Iterable[Review], ratings: Ratings, who: str, objectives: Sequence[str]) -> list[Correlation]:
    """One person's ratings against the judge's, by objective; prompts are resampled whole.

    One person at a time: two may use the scale so differently that their ratings cannot be ranked together.
    """
    given = [review for review in reviews if review.rater == who]
    found = []
    for objective in objectives:
        rows = [
            (float(verdict), judged, review.prompt_id)
            for review in given
            if isinstance(verdict := review.verdicts.get(objective), int)
            and (judged := ratings.get((review.prompt_id, review.systems[0]), {}).get(objective)) is not None
        ]
        person, judge, prompts = zip(*rows, strict=True) if rows else ((), (), ())
        found.append(Correlation(objective, who, bootstrap_spearman(person, judge, prompts)))
    return found


def between_raters(made: Sequence[Preference], objectives: Sequence[str]) -> list[Agreement]:
    """For every two raters and objective: how often they decide alike on what both compared, a tie being a decision."""
    decided = {(row.rater, row.prompt_id, row.objective, row.systems): row.order for row in made}
    raters = list(dict.fromkeys(row.rater for row in made))
    found = []
    for one, other in combinations(sorted(raters), 2):
        for objective in objectives:
            shared = [
                (row, decided[other, row.prompt_id, objective, row.systems])
                for row in made
                if (row.rater, row.objective) == (one, objective)
                and (other, row.prompt_id, objective, row.systems) in decided
            ]
            same = [float(row.order == order) for row, order in shared]
            share = bootstrap_mean_interval(same, [row.prompt_id for row, _ in shared]) if same else None
            ties = sum(row.order == order == 0 for row, order in shared)
            found.append(Agreement(objective, f"{one} and {other}", share, ties))
    return found
