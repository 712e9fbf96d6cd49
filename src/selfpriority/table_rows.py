"""The rows of a table in a file: JSON lines, one JSON list, CSV or parquet, each with the place that messages name.

A file that is not what its name says it is is an InputError that names file and line. Knows columns, and not what any
of them means.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from selfpriority.errors import InputError
from selfpriority.outside import MOST_UNPACKED_MIB, decode, json_rows, lines, parse_json, read_bytes, unpacked

_MOST_ROWS = 5_000_000


class TableRow(NamedTuple):
    """One row of a file; `place` is what messages call it (`prompts.jsonl:12`)."""

    place: str
    number: int
    columns: Mapping[str, Any]
    n_mended: int = 0
    """Texts in it in which U+FFFD stands for halves of surrogate pairs."""


class Table(NamedTuple):
    """What is asked of a file."""

    needs: str
    """What a row is, for a message about one that is none: `an object with a column 'prompt'`."""
    choose: Callable[[Sequence[str]], Sequence[str]] = list
    """Columns that a parquet file has -> those that are read."""
    column: str = ""
    """What the column of a file of plain lines is called."""


def file_content(path: Path) -> bytes:
    """The bytes of a file, unpacked where its name says that it is packed.

    Raises:
        InputError: it cannot be read, is empty, or holds too much.
    """
    raw = read_bytes(path)
    if not raw:
        raise InputError(f"{path}: is empty")
    return unpacked(path, raw) if path.suffix == ".gz" else raw


def suffix_of(path: Path) -> str:
    """What a file's name says of its format: `.csv`, `.jsonl.gz`."""
    return "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix


def jsonl_rows(path: Path, raw: bytes, table: Table) -> Iterator[TableRow]:
    """An object a line."""
    for row in json_rows(path, decode(path, raw)):
        _check_object(row.value, row.place, table)
        yield TableRow(row.place, row.number, row.value, row.n_mended)


def json_list_rows(path: Path, raw: bytes, table: Table) -> Iterator[TableRow]:
    """One list of objects; JSON lines that go by the name of JSON are read as such."""
    text = decode(path, raw)
    if text.lstrip()[:1] != "[":
        yield from jsonl_rows(path, raw, table)
        return
    parsed = parse_json(text, str(path))
    for number, value in enumerate(parsed.value, start=1):
        place = f"{path}: row {number}"
        _check_object(value, place, table)
        yield TableRow(place, number, value, parsed.n_mended if number == 1 else 0)


def _check_object(value: object, place: str, table: Table) -> None:
    if not isinstance(value, dict):
        raise InputError(f"{place}: a row is {table.needs}, this is {kind_of(value)}")


def csv_rows(path: Path, raw: bytes, table: Table) -> Iterator[TableRow]:
    """A header line, then a row a record; every value is text."""
    csv.field_size_limit(2**31 - 1)  # the whole file is in memory already
    reader = csv.DictReader(io.StringIO(decode(path, raw), newline=""), strict=True)
    try:
        check_names(reader.fieldnames or (), f"{path}:1")  # reads the header
        opens = reader.line_num + 1
        for number, columns in enumerate(reader, start=1):
            if None in columns:
                raise InputError(f"{path}:{opens}: more fields than the header has; quote a field that holds commas")
            yield TableRow(f"{path}:{opens}", number, columns)
            opens = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}: the row after line {reader.line_num} is not CSV: {error}") from None


def text_rows(path: Path, raw: bytes, table: Table) -> Iterator[TableRow]:
    """A row a line of text, in one column."""
    for number, line in enumerate(lines(decode(path, raw)), start=1):
        yield TableRow(f"{path}:{number}", number, {table.column: line})


def parquet_rows(path: Path, raw: bytes, table: Table) -> Iterator[TableRow]:
    """The columns that `table` chooses of a parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(raw))
        names = file.schema_arrow.names
        check_names(names, str(path))
        wanted = list(table.choose(names))
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
        yield TableRow(f"{path}: row {number}", number, columns)


def first_line(error: Exception) -> str:
    """What another library says of an error, as far as one line goes."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def check_names(names: Sequence[str], place: str) -> None:
    """Raises InputError where two columns have one name."""
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise InputError(f"{place}: two columns are called {twice!r}; rename or remove one")


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
