"""What further judges make of the same answers, beside the evaluation judge, and how far all of them agree.

Reads the summary. Knows nothing of run directories.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from selfpriority.plain_text import clean
from selfpriority.report.plain import DASH, signed, words
from selfpriority.report.tables import Grid
from selfpriority.report.verdict import is_clear, main_contest
from selfpriority.report.view import View

Json = Mapping[str, Any]
MAIN = "evaluation judge"
NOTE = (
    "* p, corrected over the objectives and systems of that judge, is at most 0.05. "
    "Krippendorff's alpha: 1 where all judges rate alike, 0 at chance."
)


def other_judges(view: View) -> Grid | None:
    """Differences by judge, a column an objective, and Krippendorff's alpha under them; None with one judge."""
    summary = view.summary or {}
    judges, agreement = summary.get("judges") or {}, summary.get("agreement") or {}
    if not judges:
        return None
    contests = list(summary["difference"])
    rows = [
        (
            clean(judge) + (f", {_minus(key)}" if len(contests) > 1 else ""),
            tuple(_change(cells.get(name)) for name in view.objectives),
        )
        for key in contests
        for judge, cells in _by_judge(view, key)
    ]
    alpha = agreement.get("alpha") or {}
    for scale in ("interval", "ordinal"):
        values = (alpha.get(name, {}).get(scale) for name in view.objectives)
        rows.append((f"alpha, {scale}", tuple(DASH if v is None else signed(v) for v in values)))
    return Grid(
        tuple(map(words, view.objectives)), tuple(rows), f"{_first(contests)}{NOTE}{_rv(agreement.get('rv') or {})}"
    )


def unconfirmed(view: View) -> Iterator[str]:
    """A sentence for every clear change of the main comparison that another judge does not see."""
    contest = main_contest(view)
    if view.summary is None or contest is None:
        return
    for judge, cells in list(_by_judge(view, contest))[1:]:
        for name, change in view.summary["difference"].get(contest, {}).items():
            other = cells.get(name)
            if name not in view.objectives or other is None or not is_clear(change):
                continue
            if is_clear(other) and other["mean"] * change["mean"] > 0:
                continue
            sees = "the opposite" if is_clear(other) else "no clear change"
            yield f"{clean(judge)}, a further judge of the same answers, sees {sees} in {words(name)}."


def _by_judge(view: View, contest: str) -> Iterator[tuple[str, Json]]:
    """(judge, its differences by objective), the evaluation judge first."""
    summary = view.summary or {}
    yield MAIN, summary["difference"].get(contest, {})
    for judge, found in (summary.get("judges") or {}).items():
        yield judge, found["difference"].get(contest, {})


def _change(cell: Json | None) -> str:
    if cell is None or cell["mean"] is None:
        return DASH
    star = " *" if is_clear(cell) else ""
    return f"{signed(cell['mean'])} ({signed(cell['low'])} to {signed(cell['high'])}){star}"


def _first(contests: Sequence[str]) -> str:
    """What the rows are differences of where there is but one comparison; else each row says its own."""
    return f"Differences: {_minus(contests[0])}. " if len(contests) == 1 else ""


def _minus(contest: str) -> str:
    return clean(contest.replace("_vs_", " minus "))


def _rv(found: Mapping[str, Json]) -> str:
    """The RV coefficients of the judges' ratings on all objectives together, as the end of the note."""
    told = [f"{_pair(key)} {row['value']:.2f}" for key, row in found.items() if row["value"] is not None]
    return f" RV coefficient of all objectives together: {', '.join(told)}." if told else ""


def _pair(key: str) -> str:
    first, _, second = key.partition("_vs_")
    return f"{MAIN if first == 'judge' else clean(first)} and {clean(second)}"
