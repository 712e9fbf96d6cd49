"""What the manifest and the funnel of a run say, as records: steps, what they cost, prompts and pairs they counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from selfpriority.records import Sifted
from selfpriority.storage import Content


@dataclass(frozen=True)
class Step:
    """One entry of the manifest: its name, what it depends on and the files it writes."""

    name: str
    key: str
    outputs: tuple[Path, ...]
    round: int = 0
    """Whose funnel it counts in; 0: in none."""
    counts: tuple[str, ...] = ()
    """What the funnel calls what it counts there; without them it is not done."""


def trained_by(number: int) -> str:
    """Name of the step that trains on a round's pairs."""
    return f"round-{number}/align"


@dataclass
class Spent:
    """What a step cost, counted while it runs."""

    requests: int = 0
    cached: int = 0
    tokens: int = 0
    peak_mb: int = 0
    """Most memory that its process had held when it ended, earlier steps' included; 0: not measured."""
    seconds: float = 0.0
    """By the clock; while the step runs, those of the processes that worked on it before and were ended."""

    def go_on(self, before: Spent) -> None:
        """Counts what earlier processes have spent on the step that this one goes on with."""
        self.requests += before.requests
        self.cached += before.cached
        self.tokens += before.tokens
        self.seconds += before.seconds


FINISHED = ("done", "older")
"""States of a step that has ended; whether it is this recipe's, its key says."""


@dataclass(frozen=True)
class StepEntry:
    """What the manifest says of one step."""

    state: str
    """`running`, `done`, or `older`: done under another recipe than the run follows now."""
    key: str
    seconds: float = 0.0
    requests: int = 0
    cached: int = 0
    tokens: int = 0
    peak_mb: int | None = None
    """As of `Spent`; None in runs of older versions."""
    files: dict[str, Content] | None = None
    """What it wrote, by the file's place in the run; None in runs of older versions."""


@dataclass(frozen=True)
class Manifest:
    """`manifest.json`: the steps that were begun, in order of their first time."""

    name: str
    versions: dict[str, str] = field(default_factory=dict)
    steps: dict[str, StepEntry] = field(default_factory=dict)


@dataclass(frozen=True)
class FunnelStep:
    """Prompts of one step: what came in went out or was dropped; single answers that were lost count apart."""

    n_in: Annotated[int, Field(alias="in")]
    out: int
    dropped: dict[str, int] = field(default_factory=dict)
    """Reason -> prompts."""
    responses_dropped: dict[str, int] = field(default_factory=dict)
    """Reason -> answers."""

    @classmethod
    def of(cls, n_in: int, sifted: Sifted[Any]) -> FunnelStep:
        """Of a step that `n_in` prompts went into."""
        lost = Counter(drop.reason for drop in sifted.dropped if drop.response_id is not None)
        return cls(n_in, len(sifted.kept), sifted.reasons, dict(lost))


@dataclass(frozen=True)
class PairCounts:
    """Pairs of a round; None: not counted yet."""

    n: int | None = None
    decided_by: dict[str, int] | None = None
    """Objective -> pairs that it decided."""
    trained: int | None = None
    light_share: float | None = None
    """Share of the trained pairs that weigh under 0.1."""
    contested: float | None = None
    """Share of the trained pairs whose chosen answer loses on another objective than the one that decided."""
    contested_weight: float | None = None
    """Share of the weight that those hold."""
    survived: float | None = None
    """Share of the training's movement that is in the saved policy."""


@dataclass(frozen=True)
class Funnel:
    """`funnel.json` of a round, the steps in order."""

    steps: dict[str, FunnelStep] = field(default_factory=dict)
    pairs: PairCounts | None = None
