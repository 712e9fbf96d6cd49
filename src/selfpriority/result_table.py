"""The result of an evaluation on a terminal: the tables of `table.md`, as wide as the terminal and no wider.

Knows Markdown tables of one line a row, nothing of what stands in them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

_CELL = re.compile(r"(?<!\\)\|")
_RULE = re.compile(r"\|[\s:|-]+\|")


def print_result(console: Console, markdown: str) -> None:
    """Prints text with tables; every other line as it stands, wrapped."""
    for is_table, lines in groupby(markdown.splitlines(), key=lambda line: line.startswith("|")):
        if is_table:
            console.print(_table(list(_rows(lines)), console.width))
        else:
            for line in lines:
                console.print(Text(line))


def _rows(lines: Iterator[str]) -> Iterator[list[str]]:
    for line in lines:
        if not _RULE.fullmatch(line.strip()):
            yield [cell.strip().replace("\\|", "|") for cell in _CELL.split(line.strip())[1:-1]]


def _table(rows: Sequence[Sequence[str]], width: int) -> Table:
    """The first row is the head, the first column says what a row is; turned where it fits better so."""
    turned = list(zip(*rows, strict=True))
    head, *body = turned if width < _natural(rows) > _natural(turned) else rows
    words = [max(map(len, name.split()), default=0) for name in head]
    is_roomy = sum(words) + 2 * len(words) <= width
    table = Table(box=SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False)
    for number, name in enumerate(head):
        side: Literal["left", "right"] = "left" if number == 0 else "right"
        table.add_column(Text(name), justify=side, overflow="fold", min_width=words[number] if is_roomy else None)
    for row in body:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _natural(rows: Sequence[Sequence[str]]) -> int:
    """Columns of a terminal that a table takes without a line break."""
    return sum(2 + max(map(len, column)) for column in zip(*rows, strict=True))
