"""Which way to judge suits a model: every method's agreement with labels side by side, and the one to take.

Records and a rule; asks nobody. Source: docs/judging.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from selfpriority.intervals import Interval
from selfpriority.judges.check import CHANCE
from selfpriority.judges.reports import ObjectiveReport

_DECIMALS = 2
"""To which two lower bounds are the same: no more is shown."""


@dataclass(frozen=True)
class MethodCell:
    """What labels say about a method on one objective."""

    objective: str
    auc: Interval | None = None
    """Probability that an answer labelled 1 outscores one labelled 0; None: could not be measured."""
    pair_accuracy: Interval | None = None
    n: int = 0
    """Labelled answers asked for."""
    unrated: float = 0.0
    """Share of them without a rating."""
    better_than_chance: bool = False
    reason: str = ""
    """Why it is not, or the agreement, in words."""

    @classmethod
    def of(cls, report: ObjectiveReport) -> MethodCell:
        """From the check of a judge."""
        measures = (report.auc, report.pair_accuracy, report.n, report.unrated)
        return cls(report.objective, *measures, report.usable, report.reason)

    @property
    def figure(self) -> str:
        """The agreement with its interval, of single answers where there are any, else of pairs."""
        measured = self.auc or self.pair_accuracy
        if measured is None:
            return f"{self.objective} not measured"
        what = "" if self.auc else " of pairs"
        return f"{self.objective} {measured.estimate:.2f} ({measured.low:.2f} to {measured.high:.2f}){what}"

    @property
    def low(self) -> float:
        """Lower bound of the agreement, of single answers where there are any, else of pairs; 0: none."""
        measured = self.auc or self.pair_accuracy
        return round(measured.low, _DECIMALS) if measured else 0.0


@dataclass(frozen=True)
class Method:
    """One way to judge, as it is called and as a recipe says it."""

    name: str
    fields: str
    """Overrides that choose it."""
    is_for_training: bool = True
    """Judges that are the evaluation's alone are measured, and not recommended to train on."""


@dataclass(frozen=True)
class MethodRow:
    """What became of one method."""

    method: Method
    objectives: tuple[MethodCell, ...] = ()
    """In priority order; none where it cannot be used."""
    seconds: float = 0.0
    """That opening it, fitting it and rating the labelled answers took, tries that were interrupted included."""
    cannot: str = ""
    """Why it cannot be used here."""

    @property
    def line(self) -> str:
        """What was found, in one line."""
        cells = ", ".join(cell.figure for cell in self.objectives)
        return f"{self.method.name}: {self.cannot or cells or 'no objective could be measured'}; {self.seconds:.0f} s"


@dataclass(frozen=True)
class Comparison:
    """All methods of a model, and which to take."""

    model: str
    rows: tuple[MethodRow, ...]
    recommended: str | None
    """The method's name; None: none is better than chance on the first objective."""
    advice: str
    """The same in one line, with the reason."""


def compared(model: str, rows: tuple[MethodRow, ...]) -> Comparison:
    """The best lower bound over chance in the first objective; of equal ones, the cheaper method."""
    fit = [row for row in rows if row.method.is_for_training and row.objectives]
    good = [row for row in fit if row.objectives[0].better_than_chance and row.objectives[0].low > CHANCE]
    if not good:
        name = next((row.objectives[0].objective for row in fit), "the first objective")
        return Comparison(model, rows, None, f"recommended: none; no method is better than chance in {name}")
    best = min(good, key=lambda row: (-row.objectives[0].low, row.seconds))
    first, *others = best.objectives
    doubted = [cell.objective for cell in others if not cell.better_than_chance]
    may_be = f"; in {' and '.join(doubted)} it may be chance" if doubted else ""
    why = f"at least {first.low:.2f} in {first.objective}, chance is {CHANCE:.2f}{may_be}"
    return Comparison(model, rows, best.method.name, f"recommended: {best.method.name} ({why}): {best.method.fields}")
