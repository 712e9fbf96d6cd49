"""Every answer is kept on disk the moment its batch is done, so that no request is ever asked twice.

Wraps any `LanguageModel` and is one. Owns the SQLite file; knows neither models nor steps. Nothing is stored that was
not checked, and what is stored and cannot be read is asked again.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from selfpriority.backends.answers import fault, key_of, n_passing, read_answer, rest_of, to_json, together
from selfpriority.errors import WorkFailed
from selfpriority.language_model import PASSING, Answer, Choose, Completion, Failure, LanguageModel, Request

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
_PARTLY = "+"
"""Follows the key of a completion some of whose draws are to be asked for again."""
_EXACT = " exactly"
"""Follows a server's fingerprint in the keys of choices that it is asked for by their tokens."""
_LOOKUP_SIZE = 500  # under SQLite's limit on the variables of one statement


@runtime_checkable
class Exacting(Protocol):
    """A model that may read choices in two ways, which are two measures."""

    def reads_exactly(self, choices: tuple[str, ...]) -> bool:
        """Whether every choice's probability is told, however small; the usual is the most probable tokens'."""
        ...


@dataclass(frozen=True)
class _Keys:
    fingerprint: str
    exactly: frozenset[tuple[str, ...]] = frozenset()
    """Choices that are read exactly."""

    def of(self, batches: Sequence[Sequence[Request]]) -> list[list[str]]:
        """By batch and request."""
        return [[key_of(self._reader(request), request) for request in batch] for batch in batches]

    def _reader(self, request: Request) -> str:
        is_exact = isinstance(request, Choose) and request.choices in self.exactly
        return f"{self.fingerprint}{_EXACT}" if is_exact else self.fingerprint


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
        note: told in one line of answers that cannot be read and are asked again.

    Raises:
        WorkFailed: the file cannot be opened, read or written, or the disk is full. What is stored stays.
    """

    def __init__(self, model: LanguageModel, path: Path, note: Callable[[str], None] = lambda text: None) -> None:
        self.model = model
        self.path = path
        self._note = note
        self.reused = Reused()
        with self._readable():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._store = sqlite3.connect(path, timeout=60)
            self._store.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")  # damage is found on reading
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
        keys = self._keys(batches)
        known = self._known([key for batch in keys for key in batch])
        n_known, incomplete = len(known), []
        for number, batch in enumerate(batches):
            asked = dict(zip(keys[number], batch, strict=True))
            stored = self._stored({key: request for key, request in asked.items() if key in known})
            if len(stored) == len(asked):
                yield number, self._merged(keys[number], stored, {})
            else:
                known -= asked.keys() - stored.keys()
                incomplete.append(number)
        if n_unread := n_known - len(known):
            are = "is" if n_unread == 1 else "are"
            self._note(f"{self.path.name}: {n_unread} of the stored answers cannot be read and {are} asked again")
        missing = [
            {key: request for key, request in zip(keys[n], batches[n], strict=True) if key not in known}
            for n in incomplete
        ]
        for position, new in self._asked(missing):
            number = incomplete[position]
            others = {key: r for key, r in zip(keys[number], batches[number], strict=True) if key in known}
            yield number, self._merged(keys[number], self._stored(others), new)

    def _keys(self, batches: Sequence[Sequence[Request]]) -> list[list[str]]:
        """The keys of all requests. Those of choices that a server is asked for exactly are keys of their own.

        So what was read from the most probable tokens alone never stands beside it in one call. The server is asked
        which it is only where not all is stored in either way.
        """
        usual = _Keys(self.fingerprint)
        weighed = [request for batch in batches for request in batch if isinstance(request, Choose)]
        if not weighed or not isinstance(self.model, Exacting):
            return usual.of(batches)
        exact = _Keys(self.fingerprint, frozenset(request.choices for request in weighed))
        for keys in (usual, exact):
            (wanted,) = keys.of([weighed])
            if self._known(wanted) == {*wanted}:
                return keys.of(batches)
        exactly = frozenset(choices for choices in exact.exactly if self.model.reads_exactly(choices))
        return _Keys(self.fingerprint, exactly).of(batches)

    def _asked(self, batches: Sequence[dict[str, Request]]) -> Iterator[tuple[int, dict[str, Answer]]]:
        """(batch number, its answers by key) as each is answered, checked and kept; draws that came are not asked."""
        requests = {key: request for batch in batches for key, request in batch.items()}
        came = self._stored(requests, _PARTLY)
        wanted = {key: rest_of(r, came[key]) if key in came else r for key, r in requests.items()}
        asked = [[wanted[key] for key in batch] for batch in batches]
        for number, answers in self.model.answer(asked) if asked else ():
            new: dict[str, Answer] = {}
            for key, answer in zip(batches[number], answers, strict=True):
                why = fault(wanted[key], answer)
                sound = Failure("garbage", why) if why else answer
                new[key] = together(came[key], sound) if key in came else sound
            self._keep(new)
            yield number, new

    def close(self) -> None:
        """Closes the file; a killed process needs no closing."""
        self._store.close()

    def _known(self, keys: Sequence[str]) -> set[str]:
        return {key for key, _ in self._rows("key, times_asked", keys)}

    def _stored(self, requests: Mapping[str, Request], suffix: str = "") -> dict[str, Answer]:
        """The answers on disk that can be read, by key."""
        rows = self._rows("key, answer", [key + suffix for key in requests]) if requests else ()
        named = ((key.removesuffix(suffix), stored) for key, stored in rows)
        read = ((key, read_answer(requests[key], stored)) for key, stored in named)
        return {key: answer for key, answer in read if answer is not None}

    def _merged(self, keys: Sequence[str], old: dict[str, Answer], new: dict[str, Answer]) -> list[Answer]:
        """The batch's answers in order: those from disk, and those just made."""
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
        kept = {
            key + (_PARTLY if n_passing(answer) else ""): to_json(answer)
            for key, answer in answers.items()
            if not (isinstance(answer, Failure) and answer.reason in PASSING)
        }
        with self._readable(), self._store:
            self._store.executemany(_STORE, [(key, stored, now) for key, stored in kept.items()])
            self._store.executemany("DELETE FROM answers WHERE key = ?", [(key + _PARTLY,) for key in kept])

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
