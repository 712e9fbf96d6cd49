"""What further judges make of the same answers, beside the evaluation judge, and how far all of them agree.

Reads the summary of one prompt set. Knows nothing of run directories.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from selfpriority.evaluation.records import Contest, Difference, Rv, Summary
from selfpriority.formats import PAGE, star
from selfpriority.plain_text import clean
from selfpriority.report.plain import words
from selfpriority.report.tables import Grid, GridRow, ordered_contests
from selfpriority.report.verdict import main_contest

MAIN = "evaluation judge"
NOTE = (
    "* p, corrected over the objectives and systems of that judge, is at most 0.05. "
    "Krippendorff's alpha: 1 where all judges rate alike, 0 at chance."
)


def other_judges(summary: Summary) -> Grid | None:
    """Differences by judge, a column an objective, and Krippendorff's alpha under them; None with one judge."""
    if not summary.judges:
        return None
    contests = ordered_contests(summary)
    several = len(contests) > 1
    rows = [
        GridRow(
            clean(judge) + (f", {_minus(contest)}" if several else ""),
            tuple(_change(cells.get(name)) for name in summary.objectives),
        )
        for contest in contests
        for judge, cells in _by_judge(summary, contest).items()
    ]
    first = f"Differences: {_minus(contests[0])}. " if len(contests) == 1 else ""
    rv = _rv(summary.agreement.rv) if summary.agreement else ""
    return Grid(tuple(map(words, summary.objectives)), (*rows, *_alphas(summary)), f"{first}{NOTE}{rv}")


def unconfirmed(summary: Summary | None) -> Iterator[str]:
    """A sentence for every clear change of the main comparison that another judge does not see."""
    contest = main_contest(summary)
    if summary is None or contest is None:
        return
    ours, *others = _by_judge(summary, contest).items()
    clear = {name: ours[1][name] for name in summary.objectives if name in ours[1] and ours[1][name].significant}
    for judge, cells in others:
        for name, change in clear.items():
            other = cells.get(name)
            if other is None or _confirms(other, change):
                continue
            sees = "the opposite" if other.significant else "no clear change"
            yield f"{clean(judge)}, a further judge of the same answers, sees {sees} in {words(name)}."


def _confirms(other: Difference, change: Difference) -> bool:
    return other.significant and (other.mean or 0.0) * (change.mean or 0.0) > 0


def _by_judge(summary: Summary, contest: Contest) -> dict[str, Mapping[str, Difference]]:
    """Judge -> its differences by objective, the evaluation judge first."""
    further = {judge: standing.difference.get(contest, {}) for judge, standing in summary.judges.items()}
    return {MAIN: summary.difference.get(contest, {}), **further}


def _change(cell: Difference | None) -> str:
    return PAGE.dash if cell is None else f"{PAGE.change(cell)}{star(cell.significant)}"


def _alphas(summary: Summary) -> Iterator[GridRow]:
    alpha = summary.agreement.alpha if summary.agreement else {}
    by_scale = {
        "interval": {name: row.interval for name, row in alpha.items()},
        "ordinal": {name: row.ordinal for name, row in alpha.items()},
    }
    for scale, values in by_scale.items():
        yield GridRow(f"alpha, {scale}", tuple(PAGE.signed(values.get(name)) for name in summary.objectives))


def _minus(contest: Contest) -> str:
    return clean(f"{contest.a} minus {contest.b}")


def _rv(values: Mapping[Contest, Rv]) -> str:
    """The RV coefficients of the judges' ratings on all objectives together, as the end of the note."""
    told = [f"{_pair(judges)} {PAGE.number(rv.value)}" for judges, rv in values.items() if rv.value is not None]
    return f" RV coefficient of all objectives together: {', '.join(told)}." if told else ""


def _pair(judges: Contest) -> str:
    return f"{MAIN if judges.a == 'judge' else clean(judges.a)} and {clean(judges.b)}"
