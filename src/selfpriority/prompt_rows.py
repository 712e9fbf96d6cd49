"""The rows of a file of prompts: JSON lines, CSV, parquet or one prompt a line.

A file that is not what its name says it is is an InputError that names file and line. Knows columns, not prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from selfpriority.errors import InputError
from selfpriority.recipe import Prompts
from selfpriority.table_rows import (
    Table,
    TableRow,
    check_names,
    csv_rows,
    file_content,
    jsonl_rows,
    parquet_rows,
    suffix_of,
    text_rows,
)

ID_COLUMNS = ("id", "source_id")

_Reader = Callable[[Path, bytes, Table], Iterator[TableRow]]
"""(path, its bytes, what is asked of it) -> rows."""


def is_readable(path: Path) -> bool:
    """Whether its name says that its format is one of `FORMATS`."""
    return suffix_of(path) in FORMATS


def read_prompt_rows(path: Path, source: Prompts) -> list[TableRow]:
    """The rows of a file that is readable, each with the columns that are asked for.

    Raises:
        InputError: the file or a row is not what its name or the recipe says (file and line named).
    """
    table = Table(
        f"an object with a column {source.column!r}",
        lambda names: wanted_columns(names, str(path), source),
        source.column,
    )
    raw = file_content(path)
    rows = list(FORMATS[suffix_of(path)](path, raw, table))
    for row in rows:
        _check_columns(row, source)
    return rows


def wanted_columns(names: Sequence[str], place: str, source: Prompts) -> list[str]:
    """The columns of a table that are read; InputError where the prompts' is not among them."""
    check_names(names, place)
    _check_columns(TableRow(place, 0, dict.fromkeys(names)), source)
    wanted = dict.fromkeys((*ID_COLUMNS, source.column, source.kind_column, "split"))
    return [name for name in wanted if name in names]


FORMATS: dict[str, _Reader] = {
    ".jsonl": jsonl_rows,
    ".jsonl.gz": jsonl_rows,
    ".csv": csv_rows,
    ".parquet": parquet_rows,
    ".txt": text_rows,
}


def _check_columns(row: TableRow, source: Prompts) -> None:
    wanted = [source.column]
    if source.kind_column != Prompts.model_fields["kind_column"].default:
        wanted.append(source.kind_column)
    for column in wanted:
        if column not in row.columns:
            raise InputError(f"{row.place}: no column {column!r}; columns: {', '.join(map(str, row.columns))}")
