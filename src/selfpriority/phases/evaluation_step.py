"""A step of the evaluation, and the order of many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from selfpriority.evaluation.records import System
from selfpriority.records import Prompt
from selfpriority.run_records import Spent, Step


@dataclass(frozen=True)
class EvaluationStep:
    """One step: its entry in the manifest, and what it does."""

    step: Step
    work: Callable[[Spent], None]
    reads: tuple[str, ...] = ()
    """Names of the steps whose files it reads: if one of those is done again and finds something else, so is this."""
    system: System | None = None
    """Whose answers it asks for or rates; None: of no single one."""
    asks: Sequence[Prompt] = ()
    """What the system is to answer in it."""


def system_by_system(steps: Sequence[EvaluationStep]) -> list[EvaluationStep]:
    """Of each system the answers to every set, then the verdicts on them; what compares systems comes last."""
    names = list(dict.fromkeys(each.system.name for each in steps if each.system))

    def place(step: EvaluationStep) -> tuple[int, bool]:
        return names.index(step.system.name) if step.system else len(names), not step.asks

    return sorted(steps, key=place)


def asks_the_same(one: EvaluationStep, other: EvaluationStep) -> bool:
    """Whether both ask one system, so that it may be asked once."""
    return bool(one.asks and other.asks) and one.system == other.system
