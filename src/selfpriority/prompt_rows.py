"""The rows of a file of prompts: JSON lines, CSV, parquet or one prompt a line.

A file that is not what its name says it is is an InputError that names file and line. Knows columns, not prompts.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from selfpriority.errors import InputError
from selfpriority.outside import MOST_UNPACKED_MIB, decode, json_rows, lines, read_bytes, unpacked
from selfpriority.recipe import Prompts

ID_COLUMNS = ("id", "source_id")
_MOST_ROWS = 5_000_000


class PromptRow(NamedTuple):
    """One row of a source; `place` is what messages call it (`prompts.jsonl:12`)."""

    place: str
    number: int
    columns: Mapping[str, Any]
    n_mended: int = 0


_Reader = Callable[[Path, bytes, Prompts], Iterator[PromptRow]]
"""(path, its bytes, what is asked of it) -> rows."""


def is_readable(path: Path) -> bool:
    """Whether its name says that its format is one of `FORMATS`."""
    return _format(path) in FORMATS


def read_prompt_rows(path: Path, source: Prompts) -> list[PromptRow]:
    """The rows of a file that is readable, each with the columns that are asked for.

    Raises:
        InputError: the file or a row is not what its name or the recipe says (file and line named).
    """
    raw = read_bytes(path)
    if not raw:
        raise InputError(f"{path}: is empty")
    rows = list(FORMATS[_format(path)](path, unpacked(path, raw) if path.suffix == ".gz" else raw, source))
    for row in rows:
        _check_columns(row, source)
    return rows


def _format(path: Path) -> str:
    return "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix


def _jsonl_rows(path: Path, raw: bytes, source: Prompts) -> Iterator[PromptRow]:
    for row in json_rows(path, decode(path, raw)):
        if not isinstance(row.value, dict):
            needs = f"a row is an object with a column {source.column!r}"
            raise InputError(f"{row.place}: {needs}, this is {kind_of(row.value)}")
        yield PromptRow(row.place, row.number, row.value, row.n_mended)


def _csv_rows(path: Path, raw: bytes, source: Prompts) -> Iterator[PromptRow]:
    csv.field_size_limit(2**31 - 1)  # the whole file is in memory already
    reader = csv.DictReader(io.StringIO(decode(path, raw), newline=""), strict=True)
    try:
        _check_names(reader.fieldnames or (), f"{path}:1")  # reads the header
        opens = reader.line_num + 1
        for number, columns in enumerate(reader, start=1):
            if None in columns:
                raise InputError(f"{path}:{opens}: more fields than the header has; quote a field that holds commas")
            yield PromptRow(f"{path}:{opens}", number, columns)
            opens = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}: the row after line {reader.line_num} is not CSV: {error}") from None


def _txt_rows(path: Path, raw: bytes, source: Prompts) -> Iterator[PromptRow]:
    for number, line in enumerate(lines(decode(path, raw)), start=1):
        yield PromptRow(f"{path}:{number}", number, {source.column: line})


def _parquet_rows(path: Path, raw: bytes, source: Prompts) -> Iterator[PromptRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(raw))
        wanted = wanted_columns(file.schema_arrow.names, str(path), source)
        if file.metadata.num_rows > _MOST_ROWS:
            raise InputError(f"{path}: holds more than {_MOST_ROWS} rows; take a part of it")
        rows: list[Mapping[str, Any]] = []
        size = 0
        for batch in file.iter_batches(1024, columns=wanted):  # few bytes of the file may stand for any number
            for column in batch.columns:
                size += (column.dictionary_decode() if pa.types.is_dictionary(column.type) else column).nbytes
            if size > MOST_UNPACKED_MIB * 2**20:
                raise InputError(f"{path}: holds more than {MOST_UNPACKED_MIB} MiB once unpacked; take a part of it")
            rows += batch.to_pylist()
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: not parquet that can be read: {first_line(error)}") from None
    for number, columns in enumerate(rows, start=1):
        yield PromptRow(f"{path}: row {number}", number, columns)


def wanted_columns(names: Sequence[str], place: str, source: Prompts) -> list[str]:
    """The columns of a table that are read; InputError where the prompts' is not among them."""
    _check_names(names, place)
    _check_columns(PromptRow(place, 0, dict.fromkeys(names)), source)
    wanted = dict.fromkeys((*ID_COLUMNS, source.column, source.kind_column, "split"))
    return [name for name in wanted if name in names]


def first_line(error: Exception) -> str:
    """What another library says of an error, as far as one line goes."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _check_names(names: Sequence[str], place: str) -> None:
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise InputError(f"{place}: two columns are called {twice!r}; rename or remove one")


FORMATS: dict[str, _Reader] = {
    ".jsonl": _jsonl_rows,
    ".jsonl.gz": _jsonl_rows,
    ".csv": _csv_rows,
    ".parquet": _parquet_rows,
    ".txt": _txt_rows,
}


def _check_columns(row: PromptRow, source: Prompts) -> None:
    wanted = [source.column]
    if source.kind_column != Prompts.model_fields["kind_column"].default:
        wanted.append(source.kind_column)
    for column in wanted:
        if column not in row.columns:
            raise InputError(f"{row.place}: no column {column!r}; columns: {', '.join(map(str, row.columns))}")


def kind_of(value: object) -> str:
    """What messages call a JSON value."""
    names = {
        dict: "an object",
        list: "a list",
        str: "text",
        bool: "a truth value",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), "null" if value is None else type(value).__name__)
