"""The alarm of the first objective: the method exists to raise it, so a fall is the first thing a reader must know.

Reads the summary. Claims no more than the corrected test does: beyond chance it is an alarm, within chance a note.
"""

from __future__ import annotations

from selfpriority.evaluation.records import Contest, Difference, Summary
from selfpriority.formats import PAGE, stated
from selfpriority.plain_text import clean


def alarms_of_decline(summary: Summary) -> list[str]:
    """A sentence for every system that is rated lower than the first on the first objective, beyond chance."""
    return [
        f"The first objective fell: {_told(summary, contest, cell)}, beyond chance (corrected p {stated(cell.p_holm)})."
        for contest in summary.against_first()
        if (cell := _first_objective(summary, contest)) and _fell(cell) and cell.significant and cell.p_holm is not None
    ]


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


def _told(summary: Summary, contest: Contest, cell: Difference) -> str:
    name = summary.objectives[0].replace("_", " ")
    lower = PAGE.number(abs(cell.mean or 0.0))
    return clean(f"{contest.a} is rated {lower} lower in {name} than {contest.b}")
