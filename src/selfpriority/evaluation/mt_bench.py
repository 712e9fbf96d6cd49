"""Ratings of two-turn answers to figures: by turn, by category and overall, and systems compared by question.

See docs/evaluation.md. A question counts overall where both of its turns are rated; an unrated turn is counted with
its reason and is no number. Knows neither who asked nor who rated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from selfpriority.evaluation.records import Cell, Contest, Difference
from selfpriority.evaluation.significance import corrected, difference
from selfpriority.evaluation.summary import contests
from selfpriority.evaluation.utility_records import (
    MtBenchDifference,
    MtBenchJudge,
    MtBenchResult,
    MtBenchSystem,
)
from selfpriority.formats import TERMINAL, star
from selfpriority.intervals import bootstrap_mean_interval
from selfpriority.records import Rating, Unrated

TURNS = ("turn_1", "turn_2")
LABELS = {
    "card": "labels of {} of the kinds it was fitted on do (its card names them; contrasts made to be easy may be "
    "among them; single turns, other prompts)",
    "check": "the labels of `spa check-judge` on {} do (single turns, another question)",
}
"""Where a judge's agreement was measured, in words; a card's labels are not people's verdicts alone."""


@dataclass(frozen=True)
class TurnVerdicts:
    """What the judge said of the first and of the second answer to one question."""

    first: Rating | Unrated
    second: Rating | Unrated

    @property
    def by_turn(self) -> dict[str, Rating | Unrated]:
        """By the turn's name."""
        return dict(zip(TURNS, (self.first, self.second), strict=True))


Verdicts = Mapping[str, TurnVerdicts]
"""Question id -> what the judge said."""


@dataclass(frozen=True)
class _Values:
    """One system's values by question; a measure without any is there all the same."""

    overall: dict[str, float]
    turns: dict[str, dict[str, float]]
    categories: dict[str, dict[str, float]]


def system_means(verdicts: Verdicts, categories: Mapping[str, str]) -> MtBenchSystem:
    """The figures of one system.

    Args:
        verdicts: of its answers.
        categories: question id -> category.
    """
    values = _values(verdicts, categories)
    return MtBenchSystem(
        overall=_mean(values.overall),
        turn_1=_mean(values.turns["turn_1"]),
        turn_2=_mean(values.turns["turn_2"]),
        categories={name: _mean(by_question) for name, by_question in values.categories.items()},
        unrated=_unrated(verdicts),
    )


def compared_systems(
    verdicts: Mapping[str, Verdicts], categories: Mapping[str, str]
) -> dict[Contest, MtBenchDifference]:
    """Every system against the first, paired by question.

    Holm's correction runs over the contests for `overall`, and over contests and turns, contests and categories.
    """
    values = {system: _values(rows, categories) for system, rows in verdicts.items()}
    met = contests(list(values))
    overall = corrected({c: _difference(values[c.a].overall, values[c.b].overall) for c in met})
    turns = corrected(
        {(c, turn): _difference(values[c.a].turns[turn], values[c.b].turns[turn]) for c in met for turn in TURNS}
    )
    names = list(dict.fromkeys(categories.values()))
    by_category = corrected(
        {(c, n): _difference(values[c.a].categories[n], values[c.b].categories[n]) for c in met for n in names}
    )
    return {
        c: MtBenchDifference(
            overall[c], turns[c, "turn_1"], turns[c, "turn_2"], {name: by_category[c, name] for name in names}
        )
        for c in met
    }


def mt_bench_lines(result: MtBenchResult) -> list[str]:
    """The result as lines for a terminal; who judged comes first, for without it they say nothing."""
    lines = [f"mt-bench  {line}" for line in judge_lines(result.judge)]
    for name, row in result.systems.items():
        parts = f"turn 1 {_number(row.turn_1)}, turn 2 {_number(row.turn_2)}"
        length = "" if row.words is None else f"; {row.words:.0f} words, {row.cut:.0%} cut"
        mean = f"{_number(row.overall)}{_interval(row.overall)}, n {row.overall.n}"
        lines.append(f"mt-bench  {name}: {mean}; {parts}{length}{_left_out(row)}")
    for name, row in result.systems.items():
        parts = ", ".join(f"{category} {_number(cell)}" for category, cell in row.categories.items())
        lines.append(f"mt-bench  {name} by category: {parts}")
    for contest, tested in result.difference.items():
        cell = tested.overall
        if cell.p_holm is not None:
            p = f"p {cell.p_holm:.3f}{star(cell.significant)}"
            lines.append(f"mt-bench  {contest.a} against {contest.b}: {TERMINAL.change(cell)}, {p}")
    return lines


def judge_lines(judge: MtBenchJudge) -> list[str]:
    """Who rated, how, and how far labels agree with it, as sentences."""
    name, method = judge.judge, judge.method
    if judge.objective is None:
        lines = [f"judged by {name}, asked in words ({method})"]
    else:
        lines = [
            f"judged by {name}, a {method} and not a judge in words: its {judge.objective} for each turn, of the "
            "answer and the user's last message; it sees no reference answer"
        ]
    agreement = judge.agreement
    if agreement is None:
        return [*lines, "how far it agrees with people was not measured"]
    labels = LABELS[agreement.source].format(agreement.objective)
    edges = f"{agreement.estimate:.2f} {TERMINAL.edges(agreement.low, agreement.high)}"
    chance = "; that may be chance, 0.50" if agreement.low <= 0.5 else ""
    return [*lines, f"it orders two answers as {labels} in {edges} of the cases{chance}"]


def _values(verdicts: Verdicts, categories: Mapping[str, str]) -> _Values:
    overall: dict[str, float] = {}
    turns: dict[str, dict[str, float]] = {turn: {} for turn in TURNS}
    for question, both in verdicts.items():
        rated = {turn: verdict.value for turn, verdict in both.by_turn.items() if isinstance(verdict, Rating)}
        for turn, value in rated.items():
            turns[turn][question] = value
        if len(rated) == len(TURNS):
            overall[question] = fmean(rated.values())
    by_category = {
        category: {question: value for question, value in overall.items() if categories[question] == category}
        for category in dict.fromkeys(categories.values())
    }
    return _Values(overall, turns, by_category)


def _difference(a: Mapping[str, float], b: Mapping[str, float]) -> Difference:
    return difference({question: (value, b[question]) for question, value in a.items() if question in b})


def _unrated(verdicts: Verdicts) -> dict[str, dict[str, int]]:
    reasons: dict[str, Counter[str]] = {turn: Counter() for turn in TURNS}
    for both in verdicts.values():
        for turn, verdict in both.by_turn.items():
            if isinstance(verdict, Unrated):
                reasons[turn][verdict.reason] += 1
    return {turn: dict(found) for turn, found in reasons.items()}


def _mean(by_question: Mapping[str, float]) -> Cell:
    if not by_question:
        return Cell(None)
    interval = bootstrap_mean_interval(list(by_question.values()))
    return Cell(interval.estimate, interval.low, interval.high, interval.n)


def _number(cell: Cell) -> str:
    return "not rated" if cell.mean is None else f"{cell.mean:.2f}"


def _interval(cell: Cell) -> str:
    return "" if cell.low is None or cell.high is None else f" {TERMINAL.edges(cell.low, cell.high)}"


def _left_out(row: MtBenchSystem) -> str:
    reasons: Counter[str] = Counter()
    for found in row.unrated.values():
        reasons.update(found)
    listed = ", ".join(f"{reason} {n}" for reason, n in reasons.items())
    return f"; unrated: {listed}" if listed else ""
