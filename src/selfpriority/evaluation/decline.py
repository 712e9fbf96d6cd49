"""The alarm of the first objective: the method exists to raise it, so a fall is the first thing a reader must know.

Reads the summary. Claims no more than the corrected test does: beyond chance it is an alarm, within chance a note. What
a further judge alone sees fall counts as well: a reader must not learn it from a table below.
"""

from __future__ import annotations

from dataclasses import dataclass

from selfpriority.evaluation.records import Contest, Difference, Summary
from selfpriority.formats import PAGE, stated
from selfpriority.plain_text import clean


@dataclass(frozen=True)
class Fall:
    """An objective that a further judge alone sees fall, beyond chance."""

    judge: str
    objective: str
    change: Difference


def falls_elsewhere(summary: Summary, contest: Contest) -> list[Fall]:
    """What further judges see fall in this contest where the evaluation judge does not, by judge and priority."""
    ours = summary.difference.get(contest, {})
    return [
        Fall(judge, objective, cell)
        for judge, standing in summary.judges.items()
        for objective in summary.objectives
        if (cell := standing.difference.get(contest, {}).get(objective)) and _fell_beyond_chance(cell)
        if objective not in ours or not _fell_beyond_chance(ours[objective])
    ]


def alarms_of_decline(summary: Summary) -> list[str]:
    """A sentence for every system that is rated lower than the first on the first objective, beyond chance."""
    found: list[str] = []
    for contest in summary.against_first():
        cell = _first_objective(summary, contest)
        if cell is not None and _fell_beyond_chance(cell):
            found.append(f"The first objective fell: {_told(summary, contest, cell)}, {_beyond(cell)}.")
        found += [
            f"The first objective fell for {clean(fall.judge)}, a further judge: "
            f"{_told(summary, contest, fall.change)}, {_beyond(fall.change)}."
            for fall in falls_elsewhere(summary, contest)
            if fall.objective == summary.objectives[0]
        ]
    return found


def notes_of_decline(summary: Summary, contest: Contest) -> list[str]:
    """A sentence where the first objective is lower in this contest and chance may be the reason; else nothing."""
    cell = _first_objective(summary, contest)
    if cell is None or not _fell(cell) or cell.significant:
        return []
    return [f"The first objective did not rise: {_told(summary, contest, cell)}, which may be chance."]


def _first_objective(summary: Summary, contest: Contest) -> Difference | None:
    return summary.difference.get(contest, {}).get(summary.objectives[0]) if summary.objectives else None


def _fell(cell: Difference) -> bool:
    return cell.mean is not None and round(cell.mean, 2) < 0


def _fell_beyond_chance(cell: Difference) -> bool:
    return _fell(cell) and cell.significant and cell.p_holm is not None


def _beyond(cell: Difference) -> str:
    return "beyond chance" if cell.p_holm is None else f"beyond chance (corrected p {stated(cell.p_holm)})"


def _told(summary: Summary, contest: Contest, cell: Difference) -> str:
    name = summary.objectives[0].replace("_", " ")
    lower = PAGE.number(abs(cell.mean or 0.0))
    return clean(f"{contest.a} is rated {lower} lower in {name} than {contest.b}")
