"""What the checks of the judges found, as records: `judge.json`, with its one reader and its one writer.

Knows no judge and measures nothing. What an older version left out reads as not measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from selfpriority.formats import unrated
from selfpriority.intervals import Interval
from selfpriority.judges.attacks import Robustness
from selfpriority.judges.bias import Bias, Bin
from selfpriority.storage import intact, read_json, write_json

COMPARER = "comparer"
"""The role of the judge that compares."""
TRAIN = "train"
"""The role of the training judge."""
ECHO_BAR = 0.75
"""A judge that rates the question, said back, above over a quarter of the good answers reads likeness, not help."""


@dataclass(frozen=True)
class ObjectiveReport:
    """What the labels say about a judge on one objective. None: could not be measured."""

    objective: str
    source: str = ""
    """Whose labels: `labels: FILE`, or `anchors` where the file has none of this objective, or there is no file."""
    auc: Interval | None = None
    """Probability that an answer labelled 1 outscores one labelled 0; interval over prompts."""
    pair_accuracy: Interval | None = None
    n: int = 0
    """Labelled answers asked for, single or in pairs."""
    at_ceiling: float | None = None
    """Share of the ratings from 9.95 up: above them nothing can be better."""
    unrated: float = 0.0
    """Share of answers without a rating."""
    unrated_reasons: dict[str, int] = field(default_factory=dict)
    rank_correlation: float | None = None
    """Spearman correlation between the two wordings of the question."""
    wording_shift: float | None = None
    """Mean absolute difference between the two wordings, in rating points."""
    threshold: float | None = None
    """Rating that separates the labels best; from here up an answer counts as judged good."""
    disavowal_flips: float | None = None
    """Share of (bad answer judged bad, disavowal) judged good once the disavowal is appended; see `attacks`."""
    attacks: Robustness | None = None
    """The same with every shipped suffix that speaks to the judge."""
    calibration: tuple[Bin, ...] = ()
    """Share of answers labelled 1 by tenths of the ratings; empty without single labelled answers."""
    bias: Bias | None = None
    """What moves the rating beside the label."""
    said_back: Interval | None = None
    """Of the last objective: share of the anchors' good answers that are rated above the question, said back."""
    usable: bool = False
    reason: str = ""
    """Why it is not usable, or the agreement if it is, in words."""

    @property
    def likes_an_echo(self) -> bool:
        """Whether it takes what is close to the question for an answer to it."""
        return self.said_back is not None and self.said_back.estimate < ECHO_BAR

    @property
    def unrated_in_words(self) -> str:
        """How many of the answers got no rating, and why."""
        return unrated(self.unrated_reasons, self.n)


@dataclass(frozen=True)
class JudgeReport:
    """Whether a judge that rates can be trained on, and what that rests on."""

    usable: bool
    judge: str
    """What the recipe calls it; until it is named, its fingerprint."""
    objectives: tuple[ObjectiveReport, ...]
    reasons: tuple[str, ...]
    """One line for every objective that stands in the way."""
    method: str = ""
    key: str = ""
    """Equal keys, the same judge, here and in `summary.json`."""

    def named(self, judge: str, method: str, key: str) -> JudgeReport:
        """The same of a judge that has a name."""
        return replace(self, judge=judge, method=method, key=key)


@dataclass(frozen=True)
class Turned:
    """What suffixes on the worse answer do to verdicts that were right, on one objective."""

    flips: float | None
    """Share of (pair decided rightly, suffix) not decided for the better answer any more, `neutral` left out."""
    to_worse: float | None
    """Share that is then decided for the worse answer, in both orders; the others became ties."""
    by_kind: dict[str, float]
    """`flips` by kind, `neutral` among them."""
    n: int
    """Verdicts that the shares rest on, `neutral` left out."""


@dataclass(frozen=True)
class ComparedObjective:
    """What labelled pairs say about a judge that compares, on one objective. None: could not be measured."""

    objective: str
    agreement: Interval | None
    """How often the chosen answer is the better one, ties half; interval over prompts."""
    win: float | None
    tie: float | None
    lose: float | None
    n: int
    """Pairs that were read in both orders."""
    flip_rate: float | None
    """Share of them whose orders disagree."""
    first_shown: float | None
    """Share of the decided verdicts that went to the answer shown first; 0.5 without a bias of position."""
    unread: dict[str, int]
    """Reason -> pairs without an outcome."""
    usable: bool
    reason: str
    source: str
    """Whose labels, as of a judge that rates."""
    attacks: Turned | None = None


@dataclass(frozen=True)
class ComparerReport:
    """Whether a judge that compares can be believed."""

    usable: bool
    reasons: tuple[str, ...]
    objectives: tuple[ComparedObjective, ...]
    judge: str = ""
    method: str = ""
    key: str = ""

    def named(self, judge: str, method: str, key: str) -> ComparerReport:
        """As of a judge that rates."""
        return replace(self, judge=judge, method=method, key=key)


Report = JudgeReport | ComparerReport


@dataclass(frozen=True)
class JudgeChecks:
    """Every check of a run, by role; none without anchors to check with."""

    raters: dict[str, JudgeReport] = field(default_factory=dict)
    comparer: ComparerReport | None = None

    @property
    def train(self) -> JudgeReport | None:
        """The training judge's."""
        return self.raters.get(TRAIN)

    def by_role(self) -> dict[str, Report]:
        """All of them, the comparing judge's last."""
        return {**self.raters, **({} if self.comparer is None else {COMPARER: self.comparer})}

    def of_key(self, key: str) -> Report | None:
        """The first check of the judge that has this key, whatever its role."""
        return next((report for report in self.by_role().values() if report.key == key), None)


_RATER, _COMPARER = TypeAdapter(JudgeReport), TypeAdapter(ComparerReport)


def checks_as_json(checks: JudgeChecks) -> dict[str, Any]:
    """As `judge.json` holds them."""
    return {role: _as_json(report) for role, report in checks.by_role().items()}


def _as_json(report: Report) -> dict[str, Any]:
    told = asdict(report)
    for row in told["objectives"]:
        if row.get("said_back", ...) is None:  # asked of the last objective alone, and not by older versions
            del row["said_back"]
    return told


def write_checks(path: Path, checks: JudgeChecks) -> None:
    """Writes `judge.json`, all or nothing."""
    write_json(path, checks_as_json(checks))


def read_checks(path: Path) -> JudgeChecks:
    """The checks in a file that this program wrote; none where there is no file."""
    with intact(str(path)):
        told = dict(_checked(read_json(path))) if path.is_file() else {}
        comparer = told.pop(COMPARER, None)
        return JudgeChecks(
            {role: _RATER.validate_python(report) for role, report in told.items()},
            None if comparer is None else _COMPARER.validate_python(comparer),
        )


def _checked(told: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Roles with a check: once a role without one stood there as well."""
    yield from ((role, report) for role, report in told.items() if report)
