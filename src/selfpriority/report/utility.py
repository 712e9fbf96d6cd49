"""What the systems still know, as the page shows it: MT-Bench in a table of its own, all else as it is.

Reads `utility.json`. Knows nothing of run directories.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selfpriority.evaluation.mt_bench import judge_lines
from selfpriority.report.plain import DASH, clean, percent, probability, signed, words
from selfpriority.report.tables import Grid

Json = Mapping[str, Any]
OWN_TABLE = ("systems", "trained", "mt_bench")
"""Parts of `utility.json` that the table of unknown shapes leaves out: hashes, and what `mt_bench_grid` shows."""


def other_utility(utility: Json | None) -> Json:
    """`utility.json` without what is shown elsewhere."""
    return {name: part for name, part in (utility or {}).items() if name not in OWN_TABLE}


def mt_bench_grid(utility: Json | None) -> Grid | None:
    """Means by turn and category, the differences beside them, and who judged; None where nobody asked."""
    told = (utility or {}).get("mt_bench")
    if told is None:
        return None
    systems, contests, n = told["systems"], told["difference"], told["n_questions"]
    tested = [part for key in contests for part in (key.replace("_vs_", " against "), "p, corrected")]
    measures = [("overall",), ("turn_1",), ("turn_2",), *(("categories", name) for name in _categories(systems))]
    rows = [
        (words(path[-1]), (*(_mean(_at(row, path), n) for row in systems.values()), *_tests(contests, path)))
        for path in measures
    ]
    empty = (DASH,) * len(tested)
    rows += [
        ("words an answer", (*(_whole(row["words"]) for row in systems.values()), *empty)),
        ("cut at the limit", (*(percent(row["cut"]) for row in systems.values()), *empty)),
        ("unrated", (*(_unrated(row["unrated"]) for row in systems.values()), *empty)),
    ]
    note = f"{n} questions of two turns; " + "; ".join(map(clean, judge_lines(told["judge"]))) + "."
    return Grid((*systems, *tested), tuple(rows), note)


def _categories(systems: Json) -> list[str]:
    return list(next(iter(systems.values()))["categories"]) if systems else []


def _at(row: Json, path: tuple[str, ...]) -> Json:
    for name in path:
        row = row[name]
    return row


def _mean(cell: Json, n_questions: int) -> str:
    """With the number of questions behind it where it is not all of them: an interval over two says little."""
    if cell["mean"] is None:
        return "not rated"
    few = "" if cell["n"] == n_questions else f", n\N{NO-BREAK SPACE}{cell['n']}"
    return f"{cell['mean']:.2f} ({cell['low']:.2f} to {cell['high']:.2f}){few}"


def _tests(contests: Json, path: tuple[str, ...]) -> list[str]:
    parts = []
    for contest in contests.values():
        cell = _at(contest, path)
        drawn = cell["mean"] is not None
        parts.append(f"{signed(cell['mean'])} ({signed(cell['low'])} to {signed(cell['high'])})" if drawn else DASH)
        parts.append(probability(cell["p_holm"]) or DASH)
    return parts


def _whole(value: float | None) -> str:
    return DASH if value is None else f"{value:.0f}"


def _unrated(turns: Mapping[str, Mapping[str, int]]) -> str:
    """Every reason with its number; "0" where all were rated."""
    reasons = [f"{words(turn)}: {words(reason)} {n}" for turn, found in turns.items() for reason, n in found.items()]
    return ", ".join(reasons) or "0"
