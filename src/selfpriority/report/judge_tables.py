"""The check of a judge as the page draws it: agreement, what its ratings are worth, what moves it beside the label."""

from __future__ import annotations

from collections.abc import Mapping
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
    """What else moves a judge (length, refusals, texts that speak to it), where its check has measured that."""
    measured = {label: figures for o in report.objectives for label, figures in _beside(o).items() if figures}
    columns = list(dict.fromkeys(name for figures in measured.values() for name in figures))
    rows = tuple(
        GridRow(label, tuple(magnitude(figures.get(name)) for name in columns)) for label, figures in measured.items()
    )
    return Grid(tuple(map(words, columns)), rows) if rows else None


def _beside(objective: ObjectiveReport | ComparedObjective) -> dict[str, Mapping[str, float | None]]:
    """What moves it -> figure by name."""
    bias = None if isinstance(objective, ComparedObjective) else objective.bias
    attacks = asdict(objective.attacks) if objective.attacks else {}
    by_kind = attacks.pop("by_kind", {})
    start = f"{words(objective.objective)} \N{MIDDLE DOT} "
    return {
        f"{start}bias": asdict(bias) if bias else {},
        f"{start}attacks": attacks,
        f"{start}attacks \N{MIDDLE DOT} by kind": by_kind,
    }
