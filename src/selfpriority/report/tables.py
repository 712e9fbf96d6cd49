"""The comparison of systems as the page's tables and bars want it: numbers in words, figures beside them.

Reads the summary of one prompt set. Knows nothing of run directories.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from selfpriority.evaluation.records import Behaviour, Cell, Contest, Difference, Standing, Summary, Wins
from selfpriority.formats import PAGE, probability, star, stated
from selfpriority.rating import HIGHEST, LOWEST
from selfpriority.report.figures import Estimate, Range, shares, whisker
from selfpriority.report.pareto import Place, pareto
from selfpriority.report.plain import words
from selfpriority.report.verdict import change_in_numbers


@dataclass(frozen=True)
class GridRow:
    """One row of a table of texts."""

    name: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Grid:
    """A table of texts."""

    columns: tuple[str, ...]
    rows: tuple[GridRow, ...]
    note: str = ""
    """What has to be known to read it."""


@dataclass(frozen=True)
class Measure:
    """A measure of behaviour: what its difference is called, and what its unit is worth."""

    title: str
    unit: float = 1.0


BEHAVIOUR = {
    "refusal": Measure("refusals, points", 100.0),
    "over_refusal": Measure("over-refusals, points", 100.0),
    "words": Measure("words an answer"),
}
TESTED_BEHAVIOUR = (
    "Points are percentage points. * p, corrected for the number of comparisons of behaviour (Holm), is at most 0.05. "
    "Intervals resample prompts and are not corrected."
)


def ordered_contests(summary: Summary) -> list[Contest]:
    """All that were compared, those with the first system in front."""
    against_first = summary.against_first()
    return [*against_first, *(contest for contest in summary.difference if contest not in against_first)]


@dataclass(frozen=True)
class DifferenceRow:
    """One difference of two systems in words, with its figure."""

    contest: Contest
    kind: str
    """Of prompts, or `all`."""
    name: str
    """Objective or HH_<lambda>."""
    n: int
    words: str
    mean: str
    interval: str
    p: str
    p_holm: str
    is_clear: bool
    figure: Markup


def difference_rows(summary: Summary) -> Iterator[DifferenceRow]:
    """One row for every contest, kind of prompt and objective."""
    groups = {"all": summary.standing, **_kinds(summary)}
    reach = reach_of(
        cell for group in groups.values() for cells in group.difference.values() for cell in cells.values()
    )
    for contest in ordered_contests(summary):
        for kind, group in groups.items():
            for name, cell in group.difference.get(contest, {}).items():
                if kind == "all" or name in summary.objectives:
                    yield difference_row(contest, kind, name, cell, reach)


def _kinds(summary: Summary) -> Mapping[str, Standing]:
    return summary.by_kind if len(summary.by_kind) > 1 else {}


def reach_of(cells: Iterable[Difference]) -> float:
    """How far the figures of these differences reach on both sides of none; at least 1."""
    return max([1.0, *(abs(edge) for cell in cells for edge in (cell.low, cell.high) if edge is not None)])


def difference_row(contest: Contest, kind: str, name: str, cell: Difference, reach: float) -> DifferenceRow:
    """One difference; `reach` is what the edges of its figure mean."""
    title = f"{name}, {contest.a} minus {contest.b}, {kind} prompts: {change_in_numbers(cell)}"
    estimate = estimate_of(cell)
    return DifferenceRow(
        contest=contest,
        kind=kind,
        name=name,
        n=cell.n,
        words=PAGE.signed(cell.words, 1),
        mean=PAGE.signed(cell.mean),
        interval=f"{PAGE.signed(cell.low)} to {PAGE.signed(cell.high)}" if estimate else "",
        p=probability(cell.p),
        p_holm=probability(cell.p_holm),
        is_clear=cell.significant,
        figure=whisker(estimate, Range(-reach, reach), 0.0, title) if estimate else Markup(),
    )


def estimate_of(cell: Cell | Difference | None) -> Estimate | None:
    """What a figure draws of a mean; None where nothing was rated, or no interval is known."""
    if cell is None or cell.mean is None or cell.low is None or cell.high is None:
        return None
    return Estimate(cell.mean, cell.low, cell.high)


def mean_words(cells: Mapping[str, Cell]) -> str:
    """Mean length of the answers behind a system's scores; several where the scores rest on different answers."""
    lengths = [PAGE.number(cell.words, 1) for cell in cells.values() if cell.words is not None]
    return " / ".join(dict.fromkeys(lengths)) or PAGE.dash


def answer_counts(cells: Mapping[str, Cell]) -> str:
    """Rated answers behind a system's scores, likewise; a bare mean of an older version does not know."""
    return " / ".join(dict.fromkeys(str(c.n) for c in cells.values() if c.mean is None or c.n))


def unrated_counts(cells: Mapping[str, Cell]) -> str:
    """Answers without a rating, likewise; empty where every answer has one."""
    found = list(dict.fromkeys(c.unrated for c in cells.values() if c.unrated is not None))
    return " / ".join(map(str, found)) if any(found) else ""


@dataclass(frozen=True)
class Refusals:
    """How much of what a system was asked it refuses, in words."""

    share: str
    wrongly: str = ""
    """Of the prompts that nobody should refuse; empty where there are none, or for a single kind of prompt."""


def refusals_of(behaviour: Behaviour, kind: str) -> Refusals:
    """Of one kind of prompt, or of all (empty), where those that nobody should refuse are told apart."""
    if kind:
        return Refusals(PAGE.share(behaviour.refusal.get(kind)))
    n = sum(behaviour.n.get(each, 0) for each in behaviour.refusal)
    refused = sum(share * behaviour.n.get(each, 0) for each, share in behaviour.refusal.items())
    wrongly = "" if behaviour.over_refusal is None else PAGE.share(behaviour.over_refusal)
    return Refusals(PAGE.share(refused / n if n else None), wrongly)


@dataclass(frozen=True)
class WinPart:
    """A share of the prompts: `win`, `tie` or `lose`."""

    name: str
    share: float
    interval: str
    """In words; empty where nobody resampled."""


@dataclass(frozen=True)
class WinBar:
    """How often one system beat another on one objective."""

    contest: Contest
    objective: str
    wins: Wins
    parts: tuple[WinPart, ...]
    bar: Markup
    p: str = ""
    """Of "as many won as lost", corrected; empty without a test."""
    words: str = ""
    """Difference in words on the same prompts; empty where nobody counted."""

    @property
    def is_by_comparing(self) -> bool:
        """Whether a judge saw both answers in both orders, not one rating each."""
        return self.wins.first_shown is not None or self.wins.unread is not None


def win_bars(summary: Summary) -> list[WinBar]:
    """Every contest that has been counted by prompt."""
    pairwise = summary.pairwise or {}
    named = ((contest, pairwise.get(contest, {})) for contest in ordered_contests(summary))
    return [win_bar(contest, name, cell) for contest, cells in named for name, cell in cells.items() if cell.n]


def win_bar(contest: Contest, objective: str, wins: Wins) -> WinBar:
    """The bar of one contest on one objective."""
    by_name = {"win": wins.win or 0.0, "tie": wins.tie or 0.0, "lose": wins.lose or 0.0}
    parts = tuple(WinPart(name, share, _share_interval(wins, name)) for name, share in by_name.items())
    title = ", ".join(f"{name} {share:.0%}" for name, share in by_name.items())
    return WinBar(
        contest=contest,
        objective=objective,
        wins=wins,
        parts=parts,
        bar=shares(by_name, f"{objective}, {contest.a} against {contest.b}: {title}"),
        p="" if wins.p_holm is None else stated(wins.p_holm),
        words="" if wins.words is None else PAGE.signed(wins.words, 1),
    )


def _share_interval(wins: Wins, name: str) -> str:
    return " to ".join(PAGE.share(edge) for edge in wins.intervals.get(name, ()))


def clear_wins(bars: Sequence[WinBar]) -> str:
    """Which bars a corrected test calls more than chance, in sentences; empty where nobody tested."""
    if all(bar.wins.p_holm is None for bar in bars):
        return ""
    several = len({bar.contest.b for bar in bars}) > 1
    clear = [
        f"{'More won than lost' if bar.parts[0].share > bar.parts[2].share else 'More lost than won'} is clear for "
        f"{words(bar.objective)} ({bar.contest.a}{f' against {bar.contest.b}' if several else ''})."
        for bar in bars
        if bar.wins.significant
    ]
    return " ".join(clear) or "No win is clear once corrected for the number of comparisons."


def pareto_of(summary: Summary) -> Markup | None:
    """Systems by the means of their first two objectives; None with fewer than two of either."""
    if len(summary.objectives) < 2:
        return None
    one, other = summary.objectives[:2]
    places = []
    for system, cells in summary.systems.items():
        primary, secondary = estimate_of(cells.get(one)), estimate_of(cells.get(other))
        if primary and secondary:
            places.append(Place(system, primary, secondary))
    names = (words(one), words(other))
    title = "; ".join(f"{p.name}: {names[0]} {p.primary.value:.2f}, {names[1]} {p.secondary.value:.2f}" for p in places)
    return pareto(places, names, title) if len(places) > 1 else None


def span(summary: Summary) -> Range:
    """The whole ratings between which every mean and its interval lies: the scale of the table's figures."""
    groups = [summary.systems, *(part.systems for part in summary.by_kind.values())]
    cells = [cells.get(name) for systems in groups for cells in systems.values() for name in summary.objectives]
    rated = [estimate for cell in cells if (estimate := estimate_of(cell))]
    if not rated:
        return Range(LOWEST, HIGHEST)
    low, high = math.floor(min(e.low for e in rated)), math.ceil(max(e.high for e in rated))
    return Range(float(low), float(max(high, low + 1)))


def drawn_from(summaries: Iterable[Summary], bounds: Range) -> str:
    """What the lines under the means are, in a sentence; empty where answers are too few for any line."""
    cells = (
        summary.systems[system][name]
        for summary in summaries
        for system in summary.systems
        for name in summary.objectives
        if name in summary.systems[system]
    )
    if not any(map(estimate_of, cells)):
        return ""
    return f"The lines under the means run from {bounds.low:g} to {bounds.high:g}."


def mean_whisker(name: str, cell: Cell, bounds: Range) -> Markup:
    """A mean rating on the scale that all of them share."""
    estimate = estimate_of(cell)
    if estimate is None:
        return Markup()
    edges = f"drawn from {bounds.low:g} to {bounds.high:g}"
    title = f"{name}: {estimate.value:.2f}, interval {estimate.low:.2f} to {estimate.high:.2f}, {edges}"
    return whisker(estimate, bounds, None, title)


@dataclass(frozen=True)
class BehaviourTable:
    """How one system behaves otherwise than another."""

    title: str
    grid: Grid


def behaviour_changes(summary: Summary) -> Iterator[BehaviourTable]:
    """How systems behave otherwise on the same prompts, a table for every contest."""
    columns = ("difference", "95\u202f% interval", "p, corrected", "p", "n")
    for contest in ordered_contests(summary):
        cells = summary.behaviour_difference.get(contest)
        if cells:
            named = ((BEHAVIOUR.get(name, Measure(words(name))), cell) for name, cell in cells.items())
            rows = tuple(_behaviour_row(measure, cell) for measure, cell in named)
            title = f"{contest.a} minus {contest.b}, on the same prompts"
            yield BehaviourTable(title, Grid(columns, rows))


def _behaviour_row(measure: Measure, cell: Difference) -> GridRow:
    name = f"{measure.title}{star(cell.significant)}"
    if cell.mean is None:
        return GridRow(name, (PAGE.dash, "", "", "", "0"))
    mean = PAGE.signed(cell.mean * measure.unit, 1)
    edges = (PAGE.signed(edge * measure.unit, 1) for edge in (cell.low, cell.high) if edge is not None)
    return GridRow(name, (mean, " to ".join(edges), probability(cell.p_holm), probability(cell.p), str(cell.n)))
