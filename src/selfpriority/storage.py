"""Records in the files of a run: written all or nothing, read back one by one, and told from what was not written.

Knows JSON, and neither names nor places of a run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from selfpriority.errors import InputError, WorkFailed

T = TypeVar("T")

MADE_ANEW = "delete it, and `spa run` makes it anew from what is stored"
"""What becomes of most files of a run."""


class Damaged(InputError):
    """A file of a run is not what was written."""


@dataclass(frozen=True)
class Content:
    """What a file, or a folder of files, holds."""

    sha256: str
    rows: int | None = None
    """Lines of a JSONL file."""


def write_rows(path: Path, rows: Iterable[T], cls: type[T]) -> None:
    """Writes records as JSONL, all or nothing."""
    adapter = _adapter(cls)
    write_text(path, (adapter.dump_json(row).decode() + "\n" for row in rows))


def read_rows(path: Path, cls: type[T], remedy: str = MADE_ANEW) -> list[T]:
    """Records of a JSONL file this program wrote.

    Raises:
        Damaged: a line is no such record.
    """
    return list(iter_rows(path, cls, remedy))


def iter_rows(path: Path, cls: type[T], remedy: str = MADE_ANEW, skipped: int = 0) -> Iterator[T]:
    """The same one by one, so that nobody holds all of them; the first `skipped` are not looked at.

    Raises:
        Damaged: a line is no such record.
    """
    adapter = _adapter(cls)
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if number > skipped:
                with intact(f"{path}:{number}", remedy):
                    row = adapter.validate_json(line)
                yield row


def append_rows(path: Path, start: int, rows: Iterable[T], cls: type[T]) -> int:
    """Writes records as JSONL into a file from a place in it on, and cuts off what stood behind; its size then.

    Nobody else may read it yet: a kill leaves half a row.

    Args:
        path: the file; made if missing, and no link is followed.
        start: bytes that stay.
        rows: what is written.
        cls: their type.

    Raises:
        WorkFailed: the disk is full or not writable.
    """
    adapter = _adapter(cls)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+b") as file:
            file.truncate(start)
            file.seek(start)
            file.writelines(adapter.dump_json(row) + b"\n" for row in rows)
            file.flush()
            os.fsync(file.fileno())
            return file.tell()
    except OSError as error:
        raise WorkFailed(f"{path}: cannot write: {error.strerror}; free space and run the same command") from error


def write_record(path: Path, record: T) -> None:
    """Writes one record as JSON, all or nothing; what is None is not named."""
    write_json(path, as_json(record, without_none=True))


def read_record(path: Path, cls: type[T], remedy: str = MADE_ANEW) -> T:
    """The record in a JSON file this program wrote; what another version wrote beside its fields is passed over.

    Raises:
        Damaged: it holds no such record.
    """
    with intact(str(path), remedy):
        return _adapter(cls).validate_json(path.read_bytes())


def as_json(record: object, *, without_none: bool = False) -> Any:
    """A record as JSON holds it."""
    return _adapter(type(record)).dump_python(record, mode="json", by_alias=True, exclude_none=without_none)


def json_text(record: object) -> str:
    """A record as the commands print it with `--json`."""
    return json.dumps(as_json(record), indent=1)


def write_json(path: Path, value: object) -> None:
    """Writes JSON, all or nothing."""
    write_text(path, [json.dumps(value, indent=1, ensure_ascii=False) + "\n"])


def read_json(path: Path, remedy: str = MADE_ANEW) -> Any:
    """The value in a JSON file this program wrote.

    Raises:
        Damaged: it is not JSON.
    """
    with intact(str(path), remedy):
        return json.loads(path.read_text("utf-8"))


@contextmanager
def intact(place: str, remedy: str = MADE_ANEW) -> Iterator[None]:
    """Runs the body, which reads what this program wrote at `place`; what it cannot read there is one line.

    Raises:
        Damaged: with the place and `remedy`.
    """
    try:
        yield
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"])
        reason = f"{field}: {problem['msg']}" if field else problem["msg"]
        raise Damaged(f"{place}: not what was written there ({reason}); {remedy}") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        reason = str(error).split("\n")[0] or type(error).__name__
        raise Damaged(f"{place}: not what was written there ({reason}); {remedy}") from None
    except IsADirectoryError:
        raise Damaged(f"{place}: is a folder, a file was written there; {remedy}") from None


def write_text(path: Path, parts: Iterable[str]) -> None:
    """Writes a file beside its place and renames it there, so a reader never sees half of it.

    A link in its place is replaced; what it leads to stays.

    Raises:
        WorkFailed: the disk is full or not writable; what was there before stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        with temporary.open("x", encoding="utf-8") as file:  # x: nobody's link is followed
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise WorkFailed(f"{path}: cannot write: {error.strerror}; free space and run the same command") from error


def remove(path: Path) -> None:
    """Removes a file or folder, if there is one."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def content_of(path: Path) -> Content:
    """What is in a file, or in all files of a folder together with their names; read once while nobody changes it.

    A folder's card (`README.md`) is none of it: it is written again when there is more to say, and nothing reads it.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() and file != path / "README.md")
        named = [(file.relative_to(path).as_posix(), content_of(file).sha256) for file in files]
        return Content(hashlib.sha256(repr(named).encode()).hexdigest())
    status = path.stat()
    stamp = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    known = _CONTENTS.get(path)
    if known is None or known[0] != stamp:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        known = _CONTENTS[path] = (stamp, Content(digest, _n_lines(path) if path.suffix == ".jsonl" else None))
    return known[1]


_CONTENTS: dict[Path, tuple[tuple[int, ...], Content]] = {}
_ADAPTERS: dict[type, TypeAdapter[Any]] = {}  # building one costs milliseconds, and files have thousands of rows


def _n_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)


def _adapter(cls: type[T]) -> TypeAdapter[T]:
    if cls not in _ADAPTERS:
        _ADAPTERS[cls] = TypeAdapter(cls)
    return _ADAPTERS[cls]
