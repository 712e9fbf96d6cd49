"""Ratings of two-turn answers to figures: by turn, by category and overall, and systems compared by question.

See docs/evaluation.md. A question counts overall where both of its turns are rated; an unrated turn is counted with
its reason and is no number. Knows neither who asked nor who rated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import fmean
from typing import Any

from selfpriority.evaluation.significance import corrected, difference
from selfpriority.intervals import bootstrap_mean_interval
from selfpriority.records import Rating, Unrated

Json = dict[str, Any]
Verdicts = Mapping[str, tuple[Rating | Unrated, Rating | Unrated]]
"""Question id -> what the judge said of the first and of the second answer."""
OVERALL, TURNS = "overall", ("turn_1", "turn_2")
LABELS = {
    "card": "labels of {} of the kinds it was fitted on do (its card names them; contrasts made to be easy may be "
    "among them; single turns, other prompts)",
    "check": "the labels of `spa check-judge` on {} do (single turns, another question)",
}
"""Where a judge's agreement was measured, in words; a card's labels are not people's verdicts alone."""
_IN = "category "
"""Before a category's name among the measures: it may be called as one of ours."""


def mt_bench(verdicts: Mapping[str, Verdicts], categories: Mapping[str, str]) -> Json:
    """Of system -> verdicts and question id -> category: {systems, difference} as in `utility.json`.

    `systems.<name>`: `overall`, `turn_1`, `turn_2` and each of `categories` as {mean, low, high, n}, and `unrated`:
    turn -> reason -> number of answers. `difference.<b>_vs_<a>`: the same names with the paired interval and tests.
    Holm's correction runs over the pairs of systems for `overall`, and over pairs and turns, pairs and categories.
    """
    values = {system: _values(rows, categories) for system, rows in verdicts.items()}
    told: Json = {"systems": {}, "difference": {}}
    for system, measures in values.items():
        cells = {name: _mean(list(by_question.values())) for name, by_question in measures.items()}
        told["systems"][system] = {**_shaped(cells), "unrated": _unrated(verdicts[system])}
    cells_by_contest: dict[str, Json] = {f"{b}_vs_{a}": {} for a, b in combinations(values, 2)}
    for family in ((OVERALL,), TURNS, tuple(dict.fromkeys(_IN + name for name in categories.values()))):
        tested = {
            (f"{b}_vs_{a}", name): difference(_paired(values[b][name], values[a][name]))
            for a, b in combinations(values, 2)
            for name in family
        }
        for (contest, name), cell in corrected(tested).items():
            cells_by_contest[contest][name] = cell
    told["difference"] = {contest: _shaped(cells) for contest, cells in cells_by_contest.items()}
    return told


def mt_bench_lines(told: Mapping[str, Any]) -> list[str]:
    """`mt_bench` of `utility.json` as lines for a terminal; who judged comes first, for without it they say nothing."""
    lines = [f"mt-bench  {line}" for line in judge_lines(told["judge"])]
    for name, row in told["systems"].items():
        parts = ", ".join(f"{turn.replace('_', ' ')} {_number(row[turn])}" for turn in TURNS)
        length = "" if row["words"] is None else f"; {row['words']:.0f} words, {row['cut']:.0%} cut"
        mean = f"{_interval(row[OVERALL])}, n {row[OVERALL]['n']}"
        lines.append(f"mt-bench  {name}: {mean}; {parts}{length}{_left_out(row)}")
    for name, row in told["systems"].items():
        parts = ", ".join(f"{category} {_number(cell)}" for category, cell in row["categories"].items())
        lines.append(f"mt-bench  {name} by category: {parts}")
    for contest, row in told["difference"].items():
        cell = row[OVERALL]
        if cell["p_holm"] is not None:
            mark = " *" if cell["significant"] else ""
            lines.append(
                f"mt-bench  {contest.replace('_vs_', ' against ')}: {cell['mean']:+.2f} ({cell['low']:+.2f} to "
                f"{cell['high']:+.2f}), p {cell['p_holm']:.3f}{mark}"
            )
    return lines


def judge_lines(judge: Mapping[str, Any]) -> list[str]:
    """Who rated, how, and how far labels agree with it, as sentences."""
    name, method = judge["judge"], judge["method"]
    if judge["objective"] is None:
        lines = [f"judged by {name}, asked in words ({method})"]
    else:
        lines = [
            f"judged by {name}, a {method} and not a judge in words: its {judge['objective']} for each turn, of the "
            "answer and the user's last message; it sees no reference answer"
        ]
    agreement = judge["agreement"]
    if agreement is None:
        return [*lines, "how far it agrees with people was not measured"]
    labels = LABELS[agreement["source"]].format(agreement["objective"])
    edges = f"{agreement['estimate']:.2f} ({agreement['low']:.2f} to {agreement['high']:.2f})"
    chance = "; that may be chance, 0.50" if agreement["low"] <= 0.5 else ""
    return [*lines, f"it orders two answers as {labels} in {edges} of the cases{chance}"]


def _values(verdicts: Verdicts, categories: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """Measure -> question -> value; every measure is there, also one without a value."""
    overall = {}
    turns: dict[str, dict[str, float]] = {turn: {} for turn in TURNS}
    for question, both in verdicts.items():
        rated = {turn: verdict.value for turn, verdict in zip(TURNS, both, strict=True) if isinstance(verdict, Rating)}
        for turn, value in rated.items():
            turns[turn][question] = value
        if len(rated) == len(TURNS):
            overall[question] = fmean(rated.values())
    by_category = {
        _IN + category: {question: value for question, value in overall.items() if categories[question] == category}
        for category in dict.fromkeys(categories.values())
    }
    return {OVERALL: overall, **turns, **by_category}


def _paired(later: Mapping[str, float], earlier: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    return {question: (value, earlier[question]) for question, value in later.items() if question in earlier}


def _shaped(cells: Mapping[str, Json]) -> Json:
    """Categories under one name, for their names are the file's and not ours."""
    inner = {name.removeprefix(_IN): cell for name, cell in cells.items() if name.startswith(_IN)}
    return {**{name: cells[name] for name in (OVERALL, *TURNS)}, "categories": inner}


def _unrated(verdicts: Verdicts) -> dict[str, dict[str, int]]:
    reasons: dict[str, Counter[str]] = {turn: Counter() for turn in TURNS}
    for both in verdicts.values():
        for turn, verdict in zip(TURNS, both, strict=True):
            if isinstance(verdict, Unrated):
                reasons[turn][verdict.reason] += 1
    return {turn: dict(counted) for turn, counted in reasons.items()}


def _mean(values: Sequence[float]) -> Json:
    if not values:
        return {"mean": None, "low": None, "high": None, "n": 0}
    interval = bootstrap_mean_interval(values)
    return {"mean": interval.estimate, "low": interval.low, "high": interval.high, "n": interval.n}


def _number(cell: Mapping[str, Any]) -> str:
    return "not rated" if cell["mean"] is None else f"{cell['mean']:.2f}"


def _interval(cell: Mapping[str, Any]) -> str:
    return _number(cell) if cell["mean"] is None else f"{_number(cell)} ({cell['low']:.2f} to {cell['high']:.2f})"


def _left_out(row: Mapping[str, Any]) -> str:
    reasons: Counter[str] = Counter()
    for counted in row["unrated"].values():
        reasons.update(counted)
    told = ", ".join(f"{reason} {n}" for reason, n in reasons.items())
    return f"; unrated: {told}" if told else ""
