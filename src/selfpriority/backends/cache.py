"""Every answer is kept on disk the moment its batch is done, so that no request is ever asked twice.

Wraps any `LanguageModel` and is one. Owns the SQLite file; knows neither models nor steps.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from selfpriority.backends.answers import from_json, key_of, to_json
from selfpriority.errors import WorkFailed
from selfpriority.language_model import PASSING, Answer, Completion, Failure, LanguageModel, Request

_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY,
    answer TEXT NOT NULL,
    times_asked INTEGER NOT NULL,
    created REAL NOT NULL
) WITHOUT ROWID
"""
_STORE = """
INSERT INTO answers (key, answer, times_asked, created) VALUES (?, ?, 1, ?)
ON CONFLICT (key) DO UPDATE SET answer = excluded.answer, times_asked = times_asked + 1
"""
_LOOKUP_SIZE = 500  # under SQLite's limit on the variables of one statement


@dataclass
class Reused:
    """What was answered from disk since the cache was opened."""

    requests: int = 0
    tokens: int = 0
    """Generated tokens in those answers."""


class Cached:
    """`model` behind a store of its answers.

    Args:
        model: who is asked what is not stored.
        path: the SQLite file; several models may share it, for the key holds the model's fingerprint.

    Raises:
        WorkFailed: the file cannot be opened, read or written, or the disk is full. What is stored stays.
    """

    def __init__(self, model: LanguageModel, path: Path) -> None:
        self.model = model
        self.path = path
        self.reused = Reused()
        with self._readable():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._store = sqlite3.connect(path, timeout=60)
            self._store.execute("PRAGMA journal_mode=WAL")
            self._store.execute("PRAGMA synchronous=NORMAL")
            self._store.execute(_SCHEMA)

    @property
    def fingerprint(self) -> str:
        """The wrapped model's."""
        return self.model.fingerprint

    def plan(self, requests: Sequence[Request]) -> list[list[int]]:
        """The wrapped model's plan over all requests, stored or not."""
        return self.model.plan(requests)

    def answer(self, batches: Sequence[Sequence[Request]]) -> Iterator[tuple[int, list[Answer]]]:
        """First the batches that are stored whole, then the others as their missing requests are answered."""
        fingerprint = self.fingerprint
        keys = [[key_of(fingerprint, request) for request in batch] for batch in batches]
        known = self._known([key for batch in keys for key in batch])
        incomplete = [n for n, batch in enumerate(keys) if any(key not in known for key in batch)]
        for number in sorted(set(range(len(batches))) - set(incomplete)):
            yield number, self._merged(keys[number], {})
        missing = [
            [request for request, key in zip(batches[n], keys[n], strict=True) if key not in known] for n in incomplete
        ]
        for position, answers in self.model.answer(missing) if missing else ():
            number = incomplete[position]
            new_keys = [key for key in keys[number] if key not in known]
            new = dict(zip(new_keys, answers, strict=True))
            self._keep(new)
            yield number, self._merged(keys[number], new)

    def close(self) -> None:
        """Closes the file; a killed process needs no closing."""
        self._store.close()

    def _known(self, keys: Sequence[str]) -> set[str]:
        return {key for key, _ in self._rows("key, times_asked", keys)}

    def _merged(self, keys: Sequence[str], new: dict[str, Answer]) -> list[Answer]:
        """The batch's answers in order: those just made, and the others from disk."""
        old = {key: from_json(stored) for key, stored in self._rows("key, answer", [k for k in keys if k not in new])}
        self.reused.requests += len(old)
        self.reused.tokens += sum(n_tokens(answer) for answer in old.values())
        answers = {**old, **new}
        return [answers[key] for key in keys]

    def _rows(self, columns: str, keys: Sequence[str]) -> Iterator[tuple[str, str]]:
        for start in range(0, len(keys), _LOOKUP_SIZE):
            part = keys[start : start + _LOOKUP_SIZE]
            marks = ", ".join("?" * len(part))
            with self._readable():
                yield from self._store.execute(f"SELECT {columns} FROM answers WHERE key IN ({marks})", part).fetchall()

    def _keep(self, answers: dict[str, Answer]) -> None:
        """Stores a batch in one transaction; a failure that says nothing of the request is not kept."""
        now = time.time()
        rows = [
            (key, to_json(answer), now)
            for key, answer in answers.items()
            if not (isinstance(answer, Failure) and answer.reason in PASSING)
        ]
        with self._readable(), self._store:
            self._store.executemany(_STORE, rows)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if "full" in str(error):
                raise WorkFailed(
                    f"{self.path}: the disk is full; all answers so far are kept: "
                    "make room, then run the same command again"
                ) from error
            raise WorkFailed(f"{self.path}: the store of answers cannot be used: {error}") from error
        except sqlite3.DatabaseError as error:
            raise WorkFailed(f"{self.path}: the store of answers is damaged ({error}); move it away") from error


def n_tokens(answer: Answer) -> int:
    """Generated tokens in an answer."""
    return sum(text.n_tokens for text in answer.texts) if isinstance(answer, Completion) else 0
