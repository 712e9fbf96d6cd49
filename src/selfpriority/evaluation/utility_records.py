"""What `spa utility` found, as records: right answers by task, MT-Bench, perplexity.

Knows the shape of `utility.json` and no arithmetic: `read_utility` and `write_utility` are its one reader and writer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import TypeAdapter

from selfpriority.evaluation.records import Cell, CellInFile, Difference, DifferenceInFile, Key, Perplexity
from selfpriority.storage import intact, read_json, write_json


@dataclass(frozen=True)
class Task:
    """Shares of right answers to one task, and the systems compared by question."""

    systems: dict[str, CellInFile]
    difference: dict[Key, DifferenceInFile] = field(default_factory=dict)


_Value = TypeVar("_Value", Cell, Difference)


def _measures(overall: _Value, turn_1: _Value, turn_2: _Value, categories: dict[str, _Value]) -> dict[str, _Value]:
    """By name, categories last; one that is called as a measure of ours says that it is a category."""
    ours = {"overall": overall, "turn_1": turn_1, "turn_2": turn_2}
    return {**ours, **{f"category {name}" if name in ours else name: value for name, value in categories.items()}}


@dataclass(frozen=True)
class MtBenchSystem:
    """Mean ratings of one system's answers, by question; a question counts overall where both turns are rated."""

    overall: CellInFile
    turn_1: CellInFile
    turn_2: CellInFile
    categories: dict[str, CellInFile]
    unrated: dict[str, dict[str, int]]
    """Turn -> reason -> answers without a rating."""
    words: float | None = None
    """Mean length of an answer: what a judge may like or dislike beside the content."""
    cut: float | None = None

    @property
    def measures(self) -> dict[str, Cell]:
        """As of `_measures`."""
        return _measures(self.overall, self.turn_1, self.turn_2, self.categories)


@dataclass(frozen=True)
class MtBenchDifference:
    """Two systems compared on the same measures."""

    overall: DifferenceInFile
    turn_1: DifferenceInFile
    turn_2: DifferenceInFile
    categories: dict[str, DifferenceInFile]

    @property
    def measures(self) -> dict[str, Difference]:
        """As of `_measures`."""
        return _measures(self.overall, self.turn_1, self.turn_2, self.categories)


@dataclass(frozen=True)
class JudgeAgreement:
    """How often a judge orders two labelled answers right."""

    source: Literal["card", "check"]
    """Its card, or the run's own check."""
    objective: str
    estimate: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class MtBenchJudge:
    """Who rated the turns."""

    judge: str
    method: str
    objective: str | None = None
    """What a judge without words was taken at."""
    agreement: JudgeAgreement | None = None
    """None: nobody measured it."""


@dataclass(frozen=True)
class MtBenchResult:
    """Questions of two turns, answered and rated."""

    judge: MtBenchJudge
    n_questions: int
    max_new_tokens: int
    systems: dict[str, MtBenchSystem]
    difference: dict[Key, MtBenchDifference]


@dataclass(frozen=True)
class Utility:
    """Everything in `utility.json`."""

    systems: dict[str, str]
    """System -> content hash of the model that was asked."""
    tasks: dict[str, Task] = field(default_factory=dict)
    n_fewshot: int = 0
    """Examples before a question of MMLU."""
    trained: str = ""
    """Key of the last training, by which the report knows these systems."""
    mt_bench: MtBenchResult | None = None
    perplexity: Perplexity | None = None


_UTILITY = TypeAdapter(Utility)


def write_utility(path: Path, utility: Utility) -> None:
    """Writes `utility.json`, all or nothing."""
    write_json(path, utility_as_json(utility))


def utility_as_json(utility: Utility) -> dict[str, object]:
    """As `utility.json` holds it; parts that nobody asked for are left out."""
    parts: dict[str, object] = _UTILITY.dump_python(utility, mode="json")
    return {name: part for name, part in parts.items() if part is not None}


def read_utility(path: Path) -> Utility:
    """What a file of this program holds, this version's or the one before's."""
    with intact(str(path), "delete it, and `spa utility` makes it anew from what is stored"):
        return _UTILITY.validate_python(read_json(path))
