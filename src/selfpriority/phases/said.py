"""What a run knows so far, in one line a phase: the judge's verdict, where the prompts of a round went, who won.

Reads the run directory, finished or not; says nothing where there is nothing.
"""

from __future__ import annotations

from selfpriority.errors import SelfPriorityError
from selfpriority.evaluation.files import EvaluationFiles
from selfpriority.evaluation.summary_file import read_summary
from selfpriority.formats import counted
from selfpriority.judges.reports import ObjectiveReport, read_checks
from selfpriority.report.verdict import result_in_words
from selfpriority.run import Run
from selfpriority.run_records import FunnelStep


def verdict_said(run: Run) -> str:
    """Whether the training judge is better than chance, and by how much."""
    check = read_checks(run.folder / "judge.json").train
    if check is None:
        return ""
    agreement = [
        f"{objective.objective} {measured.estimate:.2f}"
        for objective in check.objectives
        if isinstance(objective, ObjectiveReport) and (measured := objective.auc or objective.pair_accuracy)
    ]
    verdict = "better than chance" if check.usable else "not shown to be better than chance"
    return f"judge {verdict} (0.50): {', '.join(agreement)}" if agreement else f"judge {verdict}"


def funnel_said(run: Run, number: int) -> str:
    """How many prompts every step of a round kept, what was dropped and why, and the pairs."""
    funnel = run.funnel(number)
    told = [f"{name} {step.out:,}{_lost(step)}" for name, step in funnel.steps.items()]
    pairs = funnel.pairs.n if funnel.pairs else None
    return " → ".join(told) + (f"; {pairs:,} pairs" if pairs is not None else "")


def result_said(run: Run) -> str:
    """What came out, as the report's first sentence says it."""
    path = EvaluationFiles(run.evaluation).summary
    return result_in_words(read_summary(path)) if path.is_file() else ""


def quietly(run: Run, phase: str, number: int) -> str:
    """What one phase of a run has to say; nothing while its files cannot be read."""
    try:
        match phase:
            case "check-judge":
                return verdict_said(run)
            case "collect":
                return funnel_said(run, number)
            case "evaluate":
                return result_said(run)
            case _:
                return ""
    except (SelfPriorityError, OSError, ValueError):
        return ""


def _lost(step: FunnelStep) -> str:
    return f" ({counted(step.dropped)})" if step.dropped else ""
