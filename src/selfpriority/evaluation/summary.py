"""Verdicts of several systems on the same prompts to their summary.

See docs/evaluation.md: mean rating with bootstrap interval, HH_lambda, wins by prompt, paired differences, all of it
again by kind of prompt, and behaviour. Unrated is skipped and counted, never 0. Knows nothing of models or files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median

from selfpriority.evaluation.agreement import Scores, agreement
from selfpriority.evaluation.behaviour import boilerplate_share, largest_opening_share, relevance, repetition
from selfpriority.evaluation.records import (
    Behaviour,
    Cell,
    Cells,
    Contest,
    Difference,
    Differences,
    Standing,
    Summary,
    Verdict,
    Wins,
)
from selfpriority.evaluation.significance import corrected, difference, mean_difference
from selfpriority.evaluation.wins import wins, wins_by_comparing, won_or_lost
from selfpriority.intervals import bootstrap_mean_interval
from selfpriority.judges.check import CEILING
from selfpriority.judges.comparer import Compared
from selfpriority.languages import spaced, unread
from selfpriority.recipe import Evaluate
from selfpriority.records import Rating
from selfpriority.refusals import is_refusal

OTHER_KIND = "other"
"""What prompts without a kind are called."""

MAIN_JUDGE = "judge"
"""What `evaluate.judge` is called among several."""

Verdicts = Mapping[str, Sequence[Verdict]]
"""System -> its judged answers."""
Values = Mapping[str, float]
"""Prompt id -> a value."""


@dataclass(frozen=True)
class Further:
    """What an evaluation may hold beside one judge's verdicts."""

    comparisons: Mapping[Contest, Sequence[Sequence[Compared]]] | None = None
    """For each prompt that both answered, in the order of a's verdicts, what a judge in words said of the two answers,
    by objective; None: nobody compared."""
    judges: Mapping[str, Verdicts] = field(default_factory=dict)
    """Further judges' verdicts on the same answers, by the judge's name."""


def contests(systems: Sequence[str], reference: str | None = None) -> list[Contest]:
    """Every other system against the first and, in turn, against the reference; no two systems meet twice."""
    if not systems:
        return []
    first, *others = systems
    met = [Contest(name, first) for name in others]
    if reference in others:
        met += [Contest(name, reference) for name in others if name != reference]
    return met


def summarise(
    systems: Verdicts, objectives: Sequence[str], settings: Evaluate, further: Further | None = None
) -> Summary:
    """Everything in `summary.json` that rests on ratings and texts; a mean of nothing is null.

    Holm's correction runs over all objectives and contests of one table; HH_lambda says no more than the
    objectives do and is a family of its own, as are all kinds together, the wins, and behaviour.

    Args:
        systems: the first is compared with all others (usually `vanilla`).
        objectives: in priority order.
        settings: of the evaluation.
        further: other judges, and one that compares.
    """
    further = further or Further()
    table = _Table(objectives, settings)
    kinds = dict.fromkeys(verdict.kind for verdicts in systems.values() for verdict in verdicts)
    parts = {kind or OTHER_KIND: _of_kind(systems, kind) for kind in kinds}
    overall = table.standings({"": systems})[""]
    return Summary(
        tuple(objectives),
        overall.systems,
        overall.difference,
        pairwise=table.wins(systems, further.comparisons) if settings.pairwise else None,
        by_kind=table.standings(parts),
        behaviour={name: _behaviour(verdicts, settings) for name, verdicts in systems.items()},
        behaviour_difference=table.behaviour_differences(systems),
        judges={name: table.standings({"": verdicts})[""] for name, verdicts in further.judges.items()},
        agreement=agreement(
            {MAIN_JUDGE: _scores(systems), **{name: _scores(v) for name, v in further.judges.items()}}, objectives
        )
        if further.judges
        else None,
    )


@dataclass(frozen=True)
class _Table:
    """What every table of one evaluation has in common."""

    objectives: Sequence[str]
    settings: Evaluate

    @property
    def lambdas(self) -> tuple[float, ...]:
        return self.settings.lambdas if len(self.objectives) > 1 else ()

    def contests(self, systems: Verdicts) -> list[Contest]:
        return contests(list(systems), self.settings.reference)

    def standings(self, parts: Mapping[str, Verdicts]) -> dict[str, Standing]:
        """By part; the correction runs over all parts together."""
        plain: dict[tuple[str, Contest, str], Difference] = {}
        mixed: dict[tuple[str, Contest, str], Difference] = {}
        for part, systems in parts.items():
            for contest in self.contests(systems):
                a, b = systems[contest.a], systems[contest.b]
                for index, objective in enumerate(self.objectives):
                    plain[part, contest, objective] = _rated_difference(a, b, _rated(a, index), _rated(b, index))
                for weight in self.lambdas:
                    mixed[part, contest, f"HH_{weight:g}"] = _rated_difference(a, b, _hh(a, weight), _hh(b, weight))
        differences: dict[str, dict[Contest, Differences]] = {part: {} for part in parts}
        for (part, contest, name), cell in {**corrected(plain), **corrected(mixed)}.items():
            differences[part].setdefault(contest, {})[name] = cell
        return {part: Standing(self.means(systems), differences[part]) for part, systems in parts.items()}

    def means(self, systems: Verdicts) -> dict[str, Cells]:
        means: dict[str, Cells] = {}
        for name, verdicts in systems.items():
            lengths = _lengths(verdicts)
            means[name] = {o: _rated_mean(verdicts, index, lengths) for index, o in enumerate(self.objectives)}
            for weight in self.lambdas:
                means[name][f"HH_{weight:g}"] = _mean(_hh(verdicts, weight), lengths)
        return means

    def wins(
        self, systems: Verdicts, comparisons: Mapping[Contest, Sequence[Sequence[Compared]]] | None
    ) -> dict[Contest, dict[str, Wins]]:
        cells: dict[tuple[Contest, str], Wins] = {}
        for contest in self.contests(systems):
            a, b = systems[contest.a], systems[contest.b]
            lengths = _shared(_lengths(a), _lengths(b))
            for index, objective in enumerate(self.objectives):
                if comparisons is not None:
                    rows = dict(zip(lengths, (row[index] for row in comparisons[contest]), strict=True))
                    read = [prompt_id for prompt_id, row in rows.items() if row.outcome is not None]
                    cell = wins_by_comparing(list(rows.values()), mean_difference(lengths, read))
                else:
                    paired = _shared(_rated(a, index), _rated(b, index))
                    outcomes = won_or_lost(paired, self.settings.tie)
                    cell = wins(outcomes, flip_rate=0.0, words=mean_difference(lengths, paired))
                cells[contest, objective] = cell
        nested: dict[Contest, dict[str, Wins]] = {contest: {} for contest in self.contests(systems)}
        for (contest, objective), cell in corrected(cells).items():
            nested[contest][objective] = cell
        return nested

    def behaviour_differences(self, systems: Verdicts) -> dict[Contest, Differences]:
        cells: dict[tuple[Contest, str], Difference] = {}
        for contest in self.contests(systems):
            a, b = systems[contest.a], systems[contest.b]
            refusals = _shared(_refusals(a), _refusals(b))
            safe = {verdict.prompt_id for verdict in a if verdict.kind in self.settings.safe_kinds}
            cells[contest, "refusal"] = difference(refusals)
            cells[contest, "over_refusal"] = difference({id_: pair for id_, pair in refusals.items() if id_ in safe})
            cells[contest, "words"] = difference(_shared(_lengths(a), _lengths(b)))
        nested: dict[Contest, Differences] = {contest: {} for contest in self.contests(systems)}
        for (contest, name), cell in corrected(cells).items():
            nested[contest][name] = cell
        return nested


def _rated_difference(a: Sequence[Verdict], b: Sequence[Verdict], of_a: Values, of_b: Values) -> Difference:
    paired = _shared(of_a, of_b)
    return difference(paired, mean_difference(_shared(_lengths(a), _lengths(b)), paired))


def _scores(systems: Verdicts) -> Scores:
    """System and prompt -> ratings."""
    return {
        f"{name}/{verdict.prompt_id}": [r.value if isinstance(r, Rating) else None for r in verdict.ratings]
        for name, verdicts in systems.items()
        for verdict in verdicts
    }


def _of_kind(systems: Verdicts, kind: str) -> Verdicts:
    return {name: [v for v in verdicts if v.kind == kind] for name, verdicts in systems.items()}


def _rated(verdicts: Sequence[Verdict], objective: int) -> dict[str, float]:
    """Prompt id -> rating, unrated answers left out."""
    ratings = ((v.prompt_id, v.ratings[objective]) for v in verdicts)
    return {prompt_id: rating.value for prompt_id, rating in ratings if isinstance(rating, Rating)}


def _hh(verdicts: Sequence[Verdict], weight: float) -> dict[str, float]:
    """Prompt id -> HH_lambda = (lambda * primary + secondary) / (lambda + 1), where both are rated."""
    both = _shared(_rated(verdicts, 0), _rated(verdicts, 1))
    return {prompt: (weight * primary + secondary) / (weight + 1) for prompt, (primary, secondary) in both.items()}


def _shared(a: Values, b: Values) -> dict[str, tuple[float, float]]:
    return {prompt_id: (value, b[prompt_id]) for prompt_id, value in a.items() if prompt_id in b}


def _rated_mean(verdicts: Sequence[Verdict], objective: int, lengths: Values) -> Cell:
    rated = _rated(verdicts, objective)
    at_ceiling = fmean(value >= CEILING for value in rated.values()) if rated else None
    return _mean(rated, lengths, len(verdicts) - len(rated), at_ceiling)


def _mean(values: Values, lengths: Values, unrated: int | None = None, at_ceiling: float | None = None) -> Cell:
    """Of values by prompt id, with its interval and the mean length of the same answers."""
    if not values:
        return Cell(None, unrated=unrated)
    interval = bootstrap_mean_interval(list(values.values()))
    words = fmean(lengths[prompt_id] for prompt_id in values)
    return Cell(interval.estimate, interval.low, interval.high, len(values), unrated, at_ceiling, words)


def _lengths(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Prompt id -> words of the answer."""
    return {verdict.prompt_id: float(len(spaced(verdict.text).split())) for verdict in verdicts}


def _refusals(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Prompt id -> 1.0 if the answer refuses."""
    return {verdict.prompt_id: float(is_refusal(verdict.text)) for verdict in verdicts}


def _behaviour(verdicts: Sequence[Verdict], settings: Evaluate) -> Behaviour:
    texts = [verdict.text for verdict in verdicts]
    kinds: dict[str, list[bool]] = {}
    for verdict in verdicts:
        kinds.setdefault(verdict.kind or OTHER_KIND, []).append(is_refusal(verdict.text))
    safe = [flag for kind, flags in kinds.items() if kind in settings.safe_kinds for flag in flags]
    return Behaviour(
        refusal={kind: fmean(flags) for kind, flags in kinds.items()},
        n={kind: len(flags) for kind, flags in kinds.items()},
        over_refusal=fmean(safe) if safe else None,
        boilerplate=boilerplate_share(texts),
        largest_opening=largest_opening_share(texts),
        relevance=relevance([verdict.prompt for verdict in verdicts], texts),
        repetition=repetition(texts),
        words=median(len(spaced(text).split()) for text in texts) if texts else None,
        cut=fmean(verdict.stop == "length" for verdict in verdicts) if verdicts else None,
        unread=unread(texts),
    )
