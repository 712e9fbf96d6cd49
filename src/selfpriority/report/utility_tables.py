"""What the systems still know, as the page shows it: right answers and perplexity, and MT-Bench in a table of its own.

Reads `utility.json` and the summary. Knows nothing of run directories.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from selfpriority.evaluation.mt_bench import judge_lines
from selfpriority.evaluation.utility import alarms_in_words
from selfpriority.report.plain import DASH, clean, percent, probability, signed, words
from selfpriority.report.tables import Grid
from selfpriority.report.view import View

Json = Mapping[str, Any]


def known(view: View) -> Grid | None:
    """Shares of right answers by task and the perplexity of plain prose, a column a system; None without either."""
    tasks, alarm = (view.utility or {}).get("tasks", {}), alarm_of(view)
    named = [row["systems"] for row in (*tasks.values(), *([alarm] if alarm else []))]
    systems = list(dict.fromkeys(name for row in named for name in row))
    contests = list(dict.fromkeys(key for row in tasks.values() for key in row["difference"]))
    shots = (view.utility or {}).get("n_fewshot", 0)
    rows = [
        (
            _task(name, shots, row["systems"]),
            (
                *(_share(row["systems"].get(system)) for system in systems),
                *(text for key in contests for text in _points(row["difference"].get(key))),
            ),
        )
        for name, row in tasks.items()
    ]
    if alarm:
        cells = (_times(alarm["systems"].get(system)) for system in systems)
        rows.append(("perplexity on plain prose", (*cells, *(DASH for _ in range(2 * len(contests))))))
    tested = [part for key in contests for part in (_against(key), "p, corrected")]
    note = "Right answers in percent, differences in points, paired by question. Perplexity is an alarm alone."
    return Grid((*systems, *tested), tuple(rows), note) if rows else None


def losses(view: View) -> Iterator[str]:
    """What a system seems to have lost, a sentence each: perplexity over the alarm, clearly fewer right answers."""
    if alarm := alarm_of(view):
        yield from alarms_in_words(alarm)
    for name, row in (view.utility or {}).get("tasks", {}).items():
        for key, cell in row["difference"].items():
            if cell["mean"] is not None and cell["mean"] < 0 and cell["significant"]:
                system, _, baseline = key.partition("_vs_")
                task = "MMLU" if name == "mmlu" else words(name)
                yield f"{system} answers {-cell['mean']:.1%} fewer of the questions of {task} rightly than {baseline}."


def alarm_of(view: View) -> Json | None:
    """What `evaluation.utility.perplexities` found, by the evaluation or else by `spa utility`."""
    return (view.summary or {}).get("perplexity") or (view.utility or {}).get("perplexity")


def _task(name: str, shots: int, systems: Json) -> str:
    n = max((row["n"] for row in systems.values()), default=0)
    shown = f", {shots} examples" if name == "mmlu" and shots else ""
    return f"{'MMLU' if name == 'mmlu' else words(name)}{shown}, {n:,} questions"


def _share(cell: Json | None) -> str:
    if cell is None:
        return DASH
    return f"{100 * cell['mean']:.1f} ({100 * cell['low']:.1f} to {100 * cell['high']:.1f})"


def _points(cell: Json | None) -> tuple[str, str]:
    if cell is None or cell["mean"] is None:
        return DASH, DASH
    mean, low, high = (signed(100 * cell[edge], 1) for edge in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})", probability(cell["p_holm"]) or DASH


def _times(cell: Json | None) -> str:
    if cell is None:
        return DASH
    is_first = cell["ratio"] == 1.0
    return f"{cell['perplexity']:.1f}" + ("" if is_first else f", {cell['ratio']:.2f} times")


def _against(key: str) -> str:
    return key.replace("_vs_", " against ")


def mt_bench_grid(utility: Json | None) -> Grid | None:
    """Means by turn and category, the differences beside them, and who judged; None where nobody asked."""
    told = (utility or {}).get("mt_bench")
    if told is None:
        return None
    systems, contests, n = told["systems"], told["difference"], told["n_questions"]
    tested = [part for key in contests for part in (_against(key), "p, corrected")]
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
