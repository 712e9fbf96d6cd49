"""The content of a model's files as one hash, kept so that weights are read once. Opens no model."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from selfpriority.models.cache import cache_folder
from selfpriority.models.embedded import EMBEDDED
from selfpriority.models.files import DESCRIPTION, WEIGHTS, adapter_base, folder_of, matching, resolve
from selfpriority.models.trust import code_is_trusted, names_code

_NO_CONTENT = ("trainer_state.json", "README.md")
_BASE = re.compile(rb'"base_model_name_or_path": *"(?:[^"\\]|\\.)*",?')


def fingerprint(folder_or_id: str) -> str:
    """SHA-256 over configuration, tokenizer and weights, names and content; an adapter's includes its base's.

    The digest is kept in the cache folder by place, size and times of the files, so a second call reads no weights.
    Where an adapter says that its base lies is no content. A hub id that is not here is its own fingerprint.
    """
    folder = folder_of(folder_or_id)
    if folder is None:
        return folder_or_id
    files = _content_files(folder)
    stamp = json.dumps([(file.name, *_marks(file)) for file in files])
    record = cache_folder() / "fingerprints" / f"{_sha256(str(folder.resolve()).encode())[:32]}.json"
    digest = _kept_digest(record, stamp)
    if digest is None:
        digest = _digest(files)
        _keep_digest(record, stamp, digest)
    base = adapter_base(folder)
    base = resolve(base) if base in EMBEDDED else base
    return digest if base is None else _sha256(f"{digest} on {fingerprint(base)}".encode())


def _content_files(folder: Path) -> list[Path]:
    patterns = (*DESCRIPTION, *WEIGHTS, *(["*.py"] if code_is_trusted() and names_code(folder) else []))
    return [file for file in matching(folder, patterns) if file.name not in _NO_CONTENT]


def _marks(file: Path) -> tuple[int, ...]:
    """What changes with the content: the time of the last change of a file's data can be set by anybody."""
    found = file.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _digest(files: Iterable[Path]) -> str:
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            if file.name == "adapter_config.json":  # the base's content counts, not its place
                content = _sha256(_BASE.sub(b"", stream.read()))
            else:
                content = hashlib.file_digest(stream, "sha256").hexdigest()
        total.update(f"{file.name} {content}\n".encode())
    return total.hexdigest()


def _kept_digest(record: Path, stamp: str) -> str | None:
    try:
        kept = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return str(kept["digest"]) if kept.get("stamp") == stamp else None


def _keep_digest(record: Path, stamp: str, digest: str) -> None:
    """Best effort: a cache folder that cannot be written costs time, not correctness."""
    with contextlib.suppress(OSError):
        record.parent.mkdir(parents=True, exist_ok=True)
        partial = record.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps({"stamp": stamp, "digest": digest}), encoding="utf-8")
        partial.replace(record)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
