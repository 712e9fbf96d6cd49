"""`training.jsonl`: one line a step and none twice, whatever was stopped and continued."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selfpriority.storage import write_text

Record = dict[str, Any]  # numbers, and `alarm`, a text, where there is one


class Journal:
    """The record of a training, continued behind step `resumed_from`.

    Args:
        path: lines of later steps, and a last line cut short, are removed: those steps run again.
        on_step: called with every record after it is on disk.
    """

    def __init__(self, path: Path, resumed_from: int, on_step: Callable[[Record], None] | None = None) -> None:
        self.path = path
        self.on_step = on_step
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = _lines_up_to(path, resumed_from)
        self.alarms: Counter[str] = Counter()
        """Steps by the alarm they raised."""
        for line in lines:
            self._count(json.loads(line))
        write_text(path, lines)

    def write(self, record: Record) -> None:
        """Appends one record, as JSON."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")
        self._count(record)
        if self.on_step:
            self.on_step(record)

    def _count(self, record: Record) -> None:
        if "alarm" in record:
            self.alarms.update(record["alarm"].split(", "))


def _lines_up_to(path: Path, step: int) -> list[str]:
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    return [line for line in whole if 0 < _step(line) <= step]


def _step(line: str) -> int:
    """The step of a line; 0 where somebody damaged it, for no training is done again for its log."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return 0
