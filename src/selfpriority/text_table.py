"""Tables of plain text: columns of one width, two spaces apart. Knows strings only."""

from __future__ import annotations

from collections.abc import Sequence


def text_table(rows: Sequence[Sequence[str]], sides: str) -> list[str]:
    """The rows as lines.

    Args:
        rows: cells, the head among them. In a row that is short its last cell is a sentence, which runs on.
        sides: for every column `<` (to the left) or `>` (to the right).
    """
    measured = [row if len(row) == len(sides) else row[:-1] for row in rows]
    widths = [max((len(row[i]) for row in measured if i < len(row)), default=0) for i in range(len(sides))]
    lines = []
    for row in rows:
        cells = (f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=False))
        lines.append("  ".join(cells).rstrip())
    return lines
