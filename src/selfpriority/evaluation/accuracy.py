"""Has the model lost what it knew? Right and wrong answers by question, systems compared by pairs.

See docs/evaluation.md. Questions are those of lm-evaluation-harness; who asks them is in `phases/utility.py`. Knows
numbers only.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

from selfpriority.evaluation.records import Cell, Contest, Difference
from selfpriority.evaluation.significance import corrected, difference
from selfpriority.evaluation.summary import contests
from selfpriority.evaluation.utility_records import Task
from selfpriority.formats import TERMINAL, star
from selfpriority.intervals import bootstrap_mean_interval


def accuracies(right: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, Task]:
    """Of task -> system -> question -> 1.0 or 0.0: every task's shares and differences.

    Differences are paired by question: the sign-flip test on right minus wrong is McNemar's, and Holm's correction
    runs over all tasks and contests.
    """
    cells: dict[tuple[str, Contest], Difference] = {}
    for task, systems in right.items():
        for contest in contests(list(systems)):
            a, b = systems[contest.a], systems[contest.b]
            cells[task, contest] = difference({q: (value, b[q]) for q, value in a.items() if q in b})
    tasks = {
        task: Task({name: _share(questions) for name, questions in systems.items()}) for task, systems in right.items()
    }
    for (task, contest), cell in corrected(cells).items():
        tasks[task].difference[contest] = cell
    return tasks


def task_lines(name: str, task: Task) -> list[str]:
    """One task for a terminal."""
    lines = [
        f"{name}  {system}: {TERMINAL.share(cell.mean, 1)} ({_share_edges(cell)}), n {cell.n}"
        for system, cell in task.systems.items()
    ]
    for contest, cell in task.difference.items():
        if cell.mean is None or cell.low is None or cell.high is None or cell.p_holm is None:
            continue
        edges = f"{cell.low:+.1%} to {cell.high:+.1%}"
        tested = f"p {cell.p_holm:.3f}{star(cell.significant)}"
        lines.append(f"{name}  {contest.a} against {contest.b}: {cell.mean:+.1%} ({edges}), {tested}")
    return lines


def _share_edges(cell: Cell) -> str:
    return f"{TERMINAL.share(cell.low, 1)} to {TERMINAL.share(cell.high, 1)}"


def _share(questions: Mapping[str, float]) -> Cell:
    values = list(questions.values())
    interval = bootstrap_mean_interval(values)
    return Cell(fmean(values), interval.low, interval.high, interval.n)
