"""One prompt set's part of the page: its tables, bars and figures, for the main set and every further one.

Reads summaries. Knows nothing of run directories.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from markupsafe import Markup

from selfpriority.evaluation.decline import alarms_of_decline
from selfpriority.evaluation.records import Summary
from selfpriority.report.figures import Range
from selfpriority.report.further_judges import other_judges, unconfirmed
from selfpriority.report.tables import (
    BehaviourTable,
    DifferenceRow,
    Grid,
    WinBar,
    behaviour_changes,
    difference_rows,
    pareto_of,
    span,
    win_bars,
)
from selfpriority.report.verdict import doubts, result_in_words
from selfpriority.report.view import PromptSet, View


@dataclass(frozen=True)
class Result:
    """What came out on one prompt set."""

    anchor: str
    """Where the page's links lead."""
    title: str
    summary: Summary
    span: Range
    """Edges of the figures under the means."""
    pareto: Markup | None
    wins: list[WinBar]
    differences: list[DifferenceRow]
    other_judges: Grid | None
    behaviour_changes: list[BehaviourTable]
    sentence: str = ""
    """Of a further set; the main set's is the page's headline."""
    alarms: tuple[str, ...] = ()
    """Likewise."""
    cautions: tuple[str, ...] = ()
    """Likewise."""

    @property
    def kinds(self) -> list[str]:
        """Of its prompts."""
        return list(self.summary.by_kind)


def main_result(view: View) -> Result | None:
    """The set that the headline speaks of; None without an evaluation."""
    return _result(view.summary, "result", "Result") if view.summary else None


def further_result(further: PromptSet) -> Result:
    """A further set, with a sentence and cautions of its own."""
    summary = further.summary
    return replace(
        _result(summary, f"result-{further.name}", further.name.replace("_", " ").capitalize()),
        sentence=result_in_words(summary),
        alarms=tuple(alarms_of_decline(summary)),
        cautions=(*doubts(summary), *unconfirmed(summary)),
    )


def _result(summary: Summary, anchor: str, title: str) -> Result:
    return Result(
        anchor=anchor,
        title=title,
        summary=summary,
        span=span(summary),
        pareto=pareto_of(summary),
        wins=win_bars(summary),
        differences=list(difference_rows(summary)),
        other_judges=other_judges(summary),
        behaviour_changes=list(behaviour_changes(summary)),
    )
