"""A step's file while its prompts are done shard by shard: nothing holds all rows, and what is finished is not redone.

Beside the file lie, until it is whole, its rows so far, their drops, and a note of how much of both counts. A kill
leaves all three: the next start goes on behind the last whole shard, if the step and its input are still the same.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from selfpriority.language_model import PASSING
from selfpriority.records import Drop, Sifted
from selfpriority.run_records import FunnelStep, Spent
from selfpriority.storage import Damaged, append_rows, iter_rows, read_record, remove, write_record

SHARD = 1000
"""Prompts, or rows of the step before, that go through a step together."""
T = TypeVar("T")


@dataclass(frozen=True)
class Grown:
    """How far a file has grown."""

    key: str
    """Of the step and of what it reads."""
    counts: FunnelStep = field(default_factory=lambda: FunnelStep(0, 0))
    bytes: int = 0
    """Of its rows; what stands behind them belongs to a shard that was not finished."""
    dropped_bytes: int = 0
    """Of its drops, likewise."""
    spent: Spent = field(default_factory=Spent)
    """What that cost, in all the processes that worked on it."""


class Growing(Generic[T]):
    """One step's file as it grows.

    Args:
        path: where it will be.
        cls: type of its rows.
        key: of the step and of what it reads; what was begun under another is begun anew.
    """

    def __init__(self, path: Path, cls: type[T], key: str) -> None:
        self._path, self._cls = path, cls
        self._rows, self._drops, self._note = (path.with_name(f".{path.name}.{kind}") for kind in _KINDS)
        self.so_far = self._begun(key) or Grown(key)
        self._is_for_good = True

    def add(self, n_in: int, rows: Iterable[T], sifted: Sifted[Any], spent: Spent) -> None:
        """Puts a finished shard behind those before, all or nothing.

        A shard that lost something to a failure that may pass is finished for this process alone, and so is what comes
        behind: a kill later, the next start asks again for what is missing, and finds the rest among the answers kept.

        Args:
            n_in: rows that went into it.
            rows: of the file.
            sifted: what was kept and dropped.
            spent: what the step has cost so far.
        """
        before = self.so_far
        n_bytes = append_rows(self._rows, before.bytes, rows, self._cls)
        n_dropped = append_rows(self._drops, before.dropped_bytes, sifted.dropped, Drop)
        counts = _sum(before.counts, FunnelStep.of(n_in, sifted))
        self.so_far = Grown(before.key, counts, n_bytes, n_dropped, spent)
        self._is_for_good &= not any(drop.reason in PASSING for drop in sifted.dropped)
        if self._is_for_good:
            write_record(self._note, self.so_far)

    def finish(self) -> None:
        """Puts the whole file in its place; the drops stay until `clear`."""
        append_rows(self._rows, self.so_far.bytes, (), self._cls)  # cuts off what an unfinished shard left
        append_rows(self._drops, self.so_far.dropped_bytes, (), Drop)
        self._rows.replace(self._path)

    def drops(self) -> Iterator[Drop]:
        """All of them, shard by shard."""
        return iter_rows(self._drops, Drop)

    def clear(self) -> None:
        """Removes what lay beside the file."""
        for path in (self._rows, self._drops, self._note):
            remove(path)

    def _begun(self, key: str) -> Grown | None:
        """What is there of this very step; None: nothing that can be gone on with."""
        with contextlib.suppress(Damaged, OSError):
            grown = read_record(self._note, Grown)
            is_all_there = (
                self._rows.stat().st_size >= grown.bytes and self._drops.stat().st_size >= grown.dropped_bytes
            )
            if grown.key == key and is_all_there:
                return grown
        return None


_KINDS = ("growing", "growing-drops", "growing-note")


def _sum(a: FunnelStep, b: FunnelStep) -> FunnelStep:
    lost = Counter(a.dropped) + Counter(b.dropped), Counter(a.responses_dropped) + Counter(b.responses_dropped)
    return FunnelStep(a.n_in + b.n_in, a.out + b.out, dict(lost[0]), dict(lost[1]))
