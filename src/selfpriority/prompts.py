"""Where prompts come from: a file, a shipped set or a hub data set in, unique prompts with ids out.

A row that holds no usable prompt is a Drop with a reason; a source that is not what it says it is (not JSON,
not UTF-8, no such column) is an InputError that names file and line. Knows nothing of models: a prompt longer
than a model's context is found where the model is.
"""

from __future__ import annotations

import contextlib
import csv
import difflib
import gzip
import hashlib
import io
import json
import random
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from selfpriority.errors import InputError, WorkFailed
from selfpriority.recipe import Prompts
from selfpriority.records import Drop, Message, Prompt, Sifted

SHIPPED = Path(str(files("selfpriority"))) / "text" / "prompts"

_ID_COLUMNS = ("id", "source_id")
_ROLES = ("system", "user", "assistant")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


class _Row(NamedTuple):
    """One row of a source; `place` is what messages call it (`prompts.jsonl:12`)."""

    place: str
    number: int
    columns: Mapping[str, Any]


_Reader = Callable[[Path, bytes, str], Iterator[_Row]]
"""(path, its bytes, the prompt column) -> rows."""


def load_prompts(source: Prompts, seed: int) -> Sifted[Prompt]:
    """The prompts of a source, each id once, each text once.

    Rows are taken in order (shuffled by `seed` if `source.shuffle`) until `source.limit` prompts are kept;
    rows after that are not looked at. Reasons to drop: `empty`, `duplicate` (same text, outer white space
    aside, as an earlier row).

    Raises:
        InputError: the source does not exist, cannot be read, or a row is not a prompt (file and line named).
        WorkFailed: the hub cannot be reached.
    """
    rows = _rows(source)
    if not rows:
        raise InputError(f"{source.source}: holds no prompts")
    if source.shuffle:
        random.Random(seed).shuffle(rows)
    sifted = _sift(rows, source)
    if not sifted.kept:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sifted.reasons.items())
        raise InputError(f"{source.source}: no prompt is left of {len(rows)} rows ({reasons})")
    return sifted


def said_in(prompt: Prompt) -> tuple[tuple[str, str], ...]:
    """(role, text) of every turn, outer white space aside: what makes two prompts the same."""
    return tuple((message.role, message.content.strip()) for message in prompt.messages)


def row_places(source: Prompts) -> dict[str, str]:
    """Id -> place of its row, as messages call it (`prompts.jsonl:12`). Reads the source once more."""
    places: dict[str, str] = {}
    for row in _rows(source):
        with contextlib.suppress(InputError):  # a bad row past the limit holds no prompt that anybody took
            places.setdefault(_prompt(row, source).id, row.place)
    return places


def shipped_prompts() -> list[str]:
    """Names of the prompt sets that ship with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.jsonl"))


def _rows(source: Prompts) -> list[_Row]:
    ships = source.source in shipped_prompts()
    path = SHIPPED / f"{source.source}.jsonl" if ships else Path(source.source)
    if not path.exists() and not _reader(path) and _HUB_ID.fullmatch(source.source):
        return _hub_rows(source)
    if source.config is not None:
        raise InputError(f"prompts.config: {source.config!r} is for hub data sets, {source.source} is not one")
    read = _checked_reader(path)
    rows = list(read(path, _bytes(path), source.column))
    for row in rows:
        _check_columns(row, source)
    split = source.split or ("train" if ships else None)
    return rows if split is None else _split(rows, split, path)


def _split(rows: list[_Row], split: str, path: Path) -> list[_Row]:
    known = sorted({str(row.columns["split"]) for row in rows if row.columns.get("split") is not None})
    if split not in known:
        hint = f"its splits: {', '.join(known)}" if known else "it has no column 'split'"
        raise InputError(f"prompts.split: {path} has no split {split!r}; {hint}")
    return [row for row in rows if row.columns.get("split") == split]


def _checked_reader(path: Path) -> _Reader:
    reader = _reader(path)
    if path.is_dir():
        raise InputError(f"{path}: is a directory, prompts are a file: {', '.join(_READERS)}")
    if path.exists() and reader is None:
        raise InputError(f"{path}: cannot tell its format from its name; known: {', '.join(_READERS)}")
    if path.exists() and reader is not None:
        return reader
    if not path.parent.is_dir():
        raise InputError(f"{path}: no such file, nor the folder {path.parent}")
    near = [entry.name for entry in path.parent.iterdir() if entry.is_file() and _reader(entry)]
    close = difflib.get_close_matches(path.name, [*near, *shipped_prompts()], n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else f"shipped sets: {', '.join(shipped_prompts())}"
    raise InputError(f"{path}: no such file; {hint}")


def _bytes(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
        if not raw:
            raise InputError(f"{path}: is empty")
        return gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path}: not gzip, or cut short: {error}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def _reader(path: Path) -> _Reader | None:
    suffixes = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    return _READERS.get(suffixes)


def _decode(path: Path, raw: bytes) -> str:
    try:
        return raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (byte {error.start})") from None


def _lines(path: Path, raw: bytes) -> list[str]:
    # not splitlines(): it also splits at characters that JSON strings may hold
    lines = _decode(path, raw).split("\n")
    return [line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1])]


def _jsonl_rows(path: Path, raw: bytes, column: str) -> Iterator[_Row]:
    for number, line in enumerate(_lines(path, raw), start=1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            columns = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{place}: not JSON: {error.msg} (column {error.colno})") from None
        if not isinstance(columns, dict):
            raise InputError(f"{place}: a row is an object with a column {column!r}, this is {_kind_of(columns)}")
        yield _Row(place, number, columns)


def _csv_rows(path: Path, raw: bytes, column: str) -> Iterator[_Row]:
    reader = csv.DictReader(io.StringIO(_decode(path, raw), newline=""), strict=True)
    try:
        _ = reader.fieldnames  # reads the header
        opens = reader.line_num + 1
        for number, columns in enumerate(reader, start=1):
            if None in columns:
                raise InputError(f"{path}:{opens}: more fields than the header has; quote a field that holds commas")
            yield _Row(f"{path}:{opens}", number, columns)
            opens = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}: the row after line {reader.line_num} is not CSV: {error}") from None


def _txt_rows(path: Path, raw: bytes, column: str) -> Iterator[_Row]:
    for number, line in enumerate(_lines(path, raw), start=1):
        yield _Row(f"{path}:{number}", number, {column: line})


def _parquet_rows(path: Path, raw: bytes, column: str) -> Iterator[_Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(raw))
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not parquet: {str(error).splitlines()[0]}") from None
    for number, columns in enumerate(table.to_pylist(), start=1):
        yield _Row(f"{path}: row {number}", number, columns)


_READERS: dict[str, _Reader] = {
    ".jsonl": _jsonl_rows,
    ".jsonl.gz": _jsonl_rows,
    ".csv": _csv_rows,
    ".parquet": _parquet_rows,
    ".txt": _txt_rows,
}


def _hub_rows(source: Prompts) -> list[_Row]:
    import datasets
    import datasets.exceptions

    name = source.source
    try:
        loaded = datasets.load_dataset(name, source.config, split=source.split)
    except ConnectionError as error:
        raise WorkFailed(f"{name}: neither a file here nor reachable on the hub: {error}") from None
    except (datasets.exceptions.DatasetsError, OSError, ValueError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(f"{name}: neither a file here nor a hub data set that loads: {first}") from None
    if isinstance(loaded, datasets.DatasetDict):
        if len(loaded) > 1:
            raise InputError(f"prompts.split: {name} has several splits, name one: {', '.join(map(str, loaded))}")
        loaded = next(iter(loaded.values()))
    names = loaded.column_names
    _check_columns(_Row(name, 0, dict.fromkeys(names)), source)
    wanted = [column for column in (*_ID_COLUMNS, source.column, source.kind_column) if column in names]
    rows = loaded.select_columns(list(dict.fromkeys(wanted))).to_list()
    return [_Row(f"{name}: row {number}", number, columns) for number, columns in enumerate(rows, start=1)]


def _check_columns(row: _Row, source: Prompts) -> None:
    wanted = [source.column]
    if source.kind_column != Prompts.model_fields["kind_column"].default:
        wanted.append(source.kind_column)
    for column in wanted:
        if column not in row.columns:
            raise InputError(f"{row.place}: no column {column!r}; columns: {', '.join(map(str, row.columns))}")


def _sift(rows: Iterable[_Row], source: Prompts) -> Sifted[Prompt]:
    kept: list[Prompt] = []
    dropped: list[Drop] = []
    seen_texts: dict[tuple[tuple[str, str], ...], str] = {}
    used_ids: set[str] = set()
    for row in rows:
        if source.limit is not None and len(kept) == source.limit:
            break
        prompt = _prompt(row, source)
        text = said_in(prompt)
        if not text[-1][1]:
            dropped.append(Drop("prompts", _unused(prompt.id, row, used_ids), "empty", detail=row.place))
        elif text in seen_texts:
            detail = f"{row.place}: same text as {seen_texts[text]}"
            dropped.append(Drop("prompts", _unused(prompt.id, row, used_ids), "duplicate", detail=detail))
        elif prompt.id in used_ids:
            raise InputError(f"{row.place}: the id {prompt.id!r} belongs to another prompt already; ids must be unique")
        else:
            kept.append(prompt)
            seen_texts[text] = prompt.id
        used_ids.add(prompt.id)
    return Sifted(tuple(kept), tuple(dropped))


def _unused(prompt_id: str, row: _Row, used_ids: set[str]) -> str:
    """An id for a dropped row: a second row of an id is told from the first by its number."""
    return f"{prompt_id}#{row.number}" if prompt_id in used_ids else prompt_id


def _prompt(row: _Row, source: Prompts) -> Prompt:
    messages = _messages(row, source.column)
    kind = row.columns.get(source.kind_column)
    return Prompt(_id(row, messages), messages, "" if kind is None else str(kind))


def _messages(row: _Row, column: str) -> tuple[Message, ...]:
    value = row.columns[column]
    if value is None or isinstance(value, str):
        messages: tuple[Message, ...] = (Message("user", value or ""),)
    elif isinstance(value, list):
        messages = tuple(_message(turn, row, column) for turn in value) or (Message("user", ""),)
    else:
        raise InputError(f"{row.place}: {column!r} is {_kind_of(value)}, it must be text or a list of messages")
    roles = [message.role for message in messages]
    if roles[-1] != "user" or "system" in roles[1:]:
        raise InputError(f"{row.place}: {column!r} must end with a user turn and hold a system turn only at its start")
    try:
        "".join(message.content for message in messages).encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(f"{row.place}: {column!r} holds half of a surrogate pair, which is not text") from None
    return messages


def _message(turn: object, row: _Row, column: str) -> Message:
    if isinstance(turn, dict) and turn.get("role") in _ROLES and isinstance(turn.get("content"), str):
        return Message(turn["role"], turn["content"])
    raise InputError(
        f"{row.place}: {column!r} is a list, so each entry must be {{role, content}} with role one of "
        f"{', '.join(_ROLES)} and text as content"
    )


def _id(row: _Row, messages: tuple[Message, ...]) -> str:
    for column in _ID_COLUMNS:
        value = row.columns.get(column)
        if value is None or value == "":
            continue
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise InputError(f"{row.place}: {column!r} is {_kind_of(value)}, an id is text or a whole number")
        return str(value)
    text = messages[0].content if len(messages) == 1 else json.dumps([[m.role, m.content] for m in messages])
    return f"p-{hashlib.sha256(text.encode('utf-8')).hexdigest()[:12]}"


def _kind_of(value: object) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "text",
        bool: "a truth value",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), "null" if value is None else type(value).__name__)
