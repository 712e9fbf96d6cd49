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
    bins = () if isinstance(objective, ComparedObjective) else objective.calibration
    shares = ", ".join(f"{one.rating:.1f}: {PAGE.share(one.positive)}" for one in bins)
    return calibration(bins, f"{objective.objective}, share labelled good by rating: {shares}") if bins else None


def beside_the_label(report: Report) -> Grid | None:
    """What else moves a judge (length, refusals, texts that speak to it), a column an objective; None: not measured."""
    by_objective = {objective.objective: _beside(objective) for objective in report.objectives}
    measures = list(dict.fromkeys(name for figures in by_objective.values() for name in figures))
    columns = tuple(words(name) for name, figures in by_objective.items() if figures)
    rows = tuple(
        GridRow(words(name), tuple(magnitude(figures.get(name)) for figures in by_objective.values() if figures))
        for name in measures
    )
    return Grid(columns, rows) if rows else None


def _beside(objective: ObjectiveReport | ComparedObjective) -> dict[str, float | None]:
    """What moves it -> the figure."""
    bias = None if isinstance(objective, ComparedObjective) else objective.bias
    echo = None if isinstance(objective, ComparedObjective) else objective.said_back
    attacks = asdict(objective.attacks) if objective.attacks else {}
    by_kind = attacks.pop("by_kind", {})
    told = {
        "bias": asdict(bias) if bias else {},
        "attacks": attacks,
        "attacks, by kind": by_kind,
        "said back": {"good answers above the question": echo.estimate} if echo else {},
    }
    return {f"{group}: {name}": value for group, figures in told.items() for name, value in figures.items()}
