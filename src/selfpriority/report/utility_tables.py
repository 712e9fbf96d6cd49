"""What the systems still know, as the page shows it: right answers and perplexity, and MT-Bench in a table of its own.

Reads the records of `spa utility` and of the evaluation. Knows nothing of run directories.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from selfpriority.evaluation.mt_bench import judge_lines
from selfpriority.evaluation.perplexity import alarms_in_words
from selfpriority.evaluation.records import Cell, Contest, Difference, Perplexity, PerplexityRow
from selfpriority.evaluation.utility_records import MtBenchResult, Task
from selfpriority.formats import PAGE, probability
from selfpriority.plain_text import clean
from selfpriority.report.plain import words
from selfpriority.report.tables import Grid, GridRow
from selfpriority.report.view import View

FEW = 5
"""Systems that have a column each."""


def known(view: View) -> Grid | None:
    """Shares of right answers by task and the perplexity of plain prose; None without either.

    A column a system, where there are few; else a row a system and comparison, for no page is that wide.
    """
    tasks, alarm = view.utility.tasks if view.utility else {}, perplexity_of(view)
    systems = list(dict.fromkeys(name for task in tasks.values() for name in task.systems))
    systems += [name for name in (alarm.systems if alarm else {}) if name not in systems]
    contests = list(dict.fromkeys(contest for task in tasks.values() for contest in task.difference))
    shots = view.utility.n_fewshot if view.utility else 0
    rows = [
        (
            _task(name, shots, task),
            (
                *(_share(task.systems.get(system)) for system in systems),
                *(text for contest in contests for text in _points(task.difference.get(contest))),
            ),
        )
        for name, task in tasks.items()
    ]
    if alarm:
        cells = (_times(alarm.systems.get(system)) for system in systems)
        rows.append(("perplexity on plain prose", (*cells, *(PAGE.dash for _ in range(2 * len(contests))))))
    note = "Right answers in percent, differences in points, paired by question. Perplexity is an alarm alone."
    if not rows:
        return None
    grid = Grid((*systems, *_tested(contests)), tuple(GridRow(*row) for row in rows), note)
    return grid if len(systems) <= FEW else _turned(grid, len(systems))


def _turned(grid: Grid, n_systems: int) -> Grid:
    """Rows as columns; a comparison and its p, two columns before, share a row."""
    rows = [
        GridRow(name, tuple(row.cells[at] for row in grid.rows)) for at, name in enumerate(grid.columns[:n_systems])
    ]
    for at in range(n_systems, len(grid.columns), 2):
        pairs = [row.cells[at : at + 2] for row in grid.rows]
        cells = tuple(change if p == PAGE.dash else f"{change}, p {p}" for change, p in pairs)
        rows.append(GridRow(grid.columns[at], cells))
    return Grid(tuple(row.name for row in grid.rows), tuple(rows), grid.note)


def losses(view: View) -> Iterator[str]:
    """What a system seems to have lost, a sentence each: perplexity over the alarm, clearly fewer right answers."""
    if alarm := perplexity_of(view):
        yield from alarms_in_words(alarm)
    for name, task in (view.utility.tasks if view.utility else {}).items():
        for contest, cell in task.difference.items():
            if cell.mean is not None and cell.mean < 0 and cell.significant:
                title = "MMLU" if name == "mmlu" else words(name)
                fewer = PAGE.share(-cell.mean, 1)
                yield f"{contest.a} answers {fewer} fewer of the questions of {title} rightly than {contest.b}."


def perplexity_of(view: View) -> Perplexity | None:
    """What the alarm found, in the evaluation or else in `spa utility`."""
    in_evaluation = view.summary.perplexity if view.summary else None
    return in_evaluation or (view.utility.perplexity if view.utility else None)


def _task(name: str, shots: int, task: Task) -> str:
    n = max((cell.n for cell in task.systems.values()), default=0)
    shown = f", {shots} examples" if name == "mmlu" and shots else ""
    return f"{'MMLU' if name == 'mmlu' else words(name)}{shown}, {n:,} questions"


def _share(cell: Cell | None) -> str:
    return PAGE.dash if cell is None else PAGE.mean(cell, 1, 100.0)


def _points(cell: Difference | None) -> Sequence[str]:
    if cell is None or cell.mean is None:
        return PAGE.dash, PAGE.dash
    return PAGE.change(cell, 1, 100.0), probability(cell.p_holm) or PAGE.dash


def _times(row: PerplexityRow | None) -> str:
    if row is None:
        return PAGE.dash
    return f"{row.perplexity:.1f}" + ("" if row.ratio == 1.0 else f", {row.ratio:.2f} times")


def _tested(contests: Sequence[Contest]) -> list[str]:
    """Headings of a contest's two columns."""
    return [part for contest in contests for part in (f"{contest.a} against {contest.b}", "p, corrected")]


def mt_bench_grid(result: MtBenchResult | None) -> Grid | None:
    """Means by turn and category, the differences beside them, and who judged; None where nobody asked."""
    if result is None:
        return None
    systems, contests, n = result.systems, result.difference, result.n_questions
    first = next(iter(systems.values()))
    rows = [
        (
            words(measure),
            (
                *(_mean(row.measures[measure], n) for row in systems.values()),
                *(text for row in contests.values() for text in _test(row.measures[measure])),
            ),
        )
        for measure in first.measures
    ]
    empty = (PAGE.dash,) * (2 * len(contests))
    rows += [
        ("words an answer", (*(PAGE.number(row.words, 0) for row in systems.values()), *empty)),
        ("cut at the limit", (*(PAGE.share(row.cut) for row in systems.values()), *empty)),
        ("unrated", (*(_unrated(row.unrated) for row in systems.values()), *empty)),
    ]
    note = f"{n} questions of two turns; " + "; ".join(map(clean, judge_lines(result.judge))) + "."
    return Grid((*systems, *_tested(list(contests))), tuple(GridRow(*row) for row in rows), note)


def _mean(cell: Cell, n_questions: int) -> str:
    """With the number of questions behind it where it is not all of them: an interval over two says little."""
    if cell.mean is None:
        return "not rated"
    few = "" if cell.n == n_questions else f", n\N{NO-BREAK SPACE}{cell.n}"
    return f"{PAGE.mean(cell)}{few}"


def _test(cell: Difference) -> Sequence[str]:
    return PAGE.change(cell), probability(cell.p_holm) or PAGE.dash


def _unrated(turns: Mapping[str, Mapping[str, int]]) -> str:
    """Every reason with its number; "0" where all were rated."""
    reasons = [f"{words(turn)}: {words(reason)} {n}" for turn, row in turns.items() for reason, n in row.items()]
    return ", ".join(reasons) or "0"
