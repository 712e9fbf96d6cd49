"""The check of a judge as the page draws it: agreement, what its ratings are worth, what moves it beside the label."""

from __future__ import annotations

from dataclasses import asdict

from markupsafe import Markup

from selfpriority.formats import PAGE, magnitude
from selfpriority.judges.reports import ComparedObjective, ObjectiveReport, Report
from selfpriority.report.figures import Estimate, Range, calibration, whisker
from selfpriority.report.plain import words
from selfpriority.report.tables import Grid, GridRow


def agreement_whisker(name: str, estimate: float, low: float, high: float) -> Markup:
    """An agreement with labels on 0..1, chance marked."""
    title = f"{name}: {estimate:.2f}, interval {low:.2f} to {high:.2f}, chance 0.5"
    return whisker(Estimate(estimate, low, high), Range(0.0, 1.0), 0.5, title)


def calibration_of(objective: ObjectiveReport | ComparedObjective) -> Markup | None:
    """What a judge's ratings on one objective are worth; None where its check had no single labelled answers."""
    bins = objective.calibration if isinstance(objective, ObjectiveReport) else ()
    shares = ", ".join(f"{one.rating:.1f}: {PAGE.share(one.positive)}" for one in bins)
    return calibration(bins, f"{objective.objective}, share labelled good by rating: {shares}") if bins else None


def beside_the_label(report: Report) -> Grid | None:
    """What else moves a judge (length, refusals, texts that speak to it), where its check has measured that."""
    measured = {
        f"{words(objective.objective)} \N{MIDDLE DOT} {part}": figures
        for objective in report.objectives
        for part, figures in _beside(objective).items()
        if figures
    }
    columns = list(dict.fromkeys(name for figures in measured.values() for name in figures))
    rows = tuple(
        GridRow(label, tuple(magnitude(figures.get(name)) for name in columns)) for label, figures in measured.items()
    )
    return Grid(tuple(map(words, columns)), rows) if rows else None


def _beside(objective: ObjectiveReport | ComparedObjective) -> dict[str, dict[str, float | None]]:
    """Part of the check -> its figures by name; empty where it was not measured."""
    bias = asdict(objective.bias) if isinstance(objective, ObjectiveReport) and objective.bias else {}
    attacks = asdict(objective.attacks) if objective.attacks else {}
    by_kind = attacks.pop("by_kind", {})
    return {"bias": bias, "attacks": attacks, "attacks \N{MIDDLE DOT} by kind": by_kind}
