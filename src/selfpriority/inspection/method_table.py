"""The methods that a model can judge by side by side, as text for a terminal. Measures nothing."""

from __future__ import annotations

from collections.abc import Iterator

from selfpriority.formats import TERMINAL
from selfpriority.intervals import Interval
from selfpriority.judges.methods import Comparison, MethodCell, MethodRow
from selfpriority.text_table import text_table

HEADS = ("method", "objective", "AUC", "95 % interval", "pairs", "n", "unrated", "seconds")


def method_table(found: Comparison) -> str:
    """A line for each method and objective, or why a method cannot be used; then which to take."""
    rows = [cells for row in found.rows for cells in _rows(row)]
    return "\n".join([*text_table([HEADS, *rows], "<<><>>>>"), found.advice])


def _rows(row: MethodRow) -> Iterator[tuple[str, ...]]:
    if row.cannot:
        yield row.method.name, row.cannot
    for number, cell in enumerate(row.objectives):
        yield row.method.name, cell.objective, *_cells(cell), "" if number else f"{row.seconds:.0f}"


def _cells(cell: MethodCell) -> tuple[str, ...]:
    auc, pairs = cell.auc, cell.pair_accuracy
    return (
        TERMINAL.number(auc.estimate if auc else None),
        _edges(auc),
        TERMINAL.number(pairs.estimate if pairs else None),
        str(cell.n),
        TERMINAL.share(cell.unrated),
    )


def _edges(measured: Interval | None) -> str:
    return TERMINAL.dash if measured is None else f"{measured.low:.2f} to {measured.high:.2f}"
