"""How long the rest of a run takes, from its plan and from what its steps took so far. Nothing is guessed.

A step that is to come takes as long as one of its kind took, by planned tokens; where none of its kind is done, as long
as one that does the same work (writes, reads or trains). Work that nobody measured yet makes the whole a lower bound.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from selfpriority.planning.pace import kind_of
from selfpriority.run import SYSTEMS
from selfpriority.run_records import FINISHED, StepEntry


@dataclass(frozen=True)
class Ahead:
    """The planned work of one step, in tokens."""

    name: str
    new_tokens: int = 0
    prompt_tokens: int = 0
    forward_tokens: int = 0
    trained_tokens: int = 0

    @property
    def sort(self) -> str:
        """What most of its time goes to."""
        return "trains" if self.trained_tokens else "writes" if self.new_tokens else "reads"

    @property
    def size(self) -> int:
        """Tokens of that sort."""
        return self.trained_tokens or self.new_tokens or self.prompt_tokens + self.forward_tokens


@dataclass(frozen=True)
class Rest:
    """Seconds that remain, as far as they can be known."""

    seconds: float
    is_whole: bool
    """Whether every step to come is in it; else there is more."""


def rest_of(
    planned: Sequence[Ahead],
    entries: Mapping[str, StepEntry],
    in_hand: float | None,
    at_once: int = 1,
    evaluated_at_once: int = 1,
) -> Rest | None:
    """What remains of a run; None where no step to come can be told.

    Args:
        planned: its steps.
        entries: what the manifest says of them, by the step's name.
        in_hand: seconds that remain of what runs now; None: not known.
        at_once: further systems that train at once, once all have begun.
        evaluated_at_once: systems that are evaluated at once.
    """
    pace = _Pace(planned, entries)
    n_running = sum(step.name in entries and entries[step.name].state == "running" for step in planned)
    parts: list[float | None] = []
    for step in planned:
        state = entries[step.name].state if step.name in entries else ""
        if state == "running" and in_hand is not None:
            parts.append(in_hand / max(1, n_running))
        elif state != "done" and step.size:
            seconds = pace.seconds(step)
            shared_by = at_once if step.name.startswith(f"{SYSTEMS}/") else evaluated_at_once if _is_of_one(step) else 1
            parts.append(seconds and seconds / shared_by)
    known = [part for part in parts if part is not None]
    return Rest(sum(known), len(known) == len(parts)) if known else None


def running_takes(planned: Sequence[Ahead], entries: Mapping[str, StepEntry]) -> float | None:
    """Seconds that the step which runs now takes in all, by the pace of those before it; None: not known.

    Args:
        planned: the run's steps.
        entries: what the manifest says of them, by the step's name.
    """
    pace = _Pace(planned, entries)
    now = (step for step in planned if step.name in entries and entries[step.name].state == "running")
    step = next(now, None)
    return pace.seconds(step) if step is not None and step.size else None


def _is_of_one(step: Ahead) -> bool:
    """Whether it is what one system answers, or the verdicts on that; else something that is done once for all."""
    return kind_of(step.name).partition("@")[0] in ("answers", "verdicts")


class _Pace:
    """Seconds a planned token, by kind of step and by sort of work."""

    def __init__(self, planned: Sequence[Ahead], entries: Mapping[str, StepEntry]) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._tokens: defaultdict[str, int] = defaultdict(int)
        for step in planned:
            entry = entries.get(step.name)
            if entry is None or entry.state not in FINISHED or not step.size or _came_from_disk(entry):
                continue
            for name in (kind_of(step.name), step.sort):
                self._seconds[name] += entry.seconds
                self._tokens[name] += step.size

    def seconds(self, step: Ahead) -> float | None:
        names = (name for name in (kind_of(step.name), step.sort) if self._tokens[name])
        name = next(names, None)
        return None if name is None else step.size * self._seconds[name] / self._tokens[name]


def _came_from_disk(entry: StepEntry) -> bool:
    return bool(entry.requests) and entry.cached >= entry.requests
