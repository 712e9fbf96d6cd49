"""What an evaluation holds, as records: systems, answers, verdicts, and the summary of them all.

Knows the shape of every file of an `evaluation` folder and no arithmetic. What an older version left out reads as not
measured.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PlainSerializer, WrapSerializer

from selfpriority.intervals import LEVEL
from selfpriority.judges.comparer import Compared
from selfpriority.recipe import Align
from selfpriority.records import Prompt, Rating, Ratings, Response, Stop, Unrated

BETWEEN = "_vs_"
"""Stands between two names where files spell a contest."""


@dataclass(frozen=True)
class System:
    """One of the systems that an evaluation compares."""

    name: str
    """What files and tables call it."""
    model: str
    """Who answers: a hub id, a folder or an embedded name."""
    round: int = 0
    """The round whose policy it is; 0: of no round."""
    how: Literal["plain", "constitution", "best_of_n"] = "plain"
    """As it is; under the constitution as a system prompt; or the best of several answers to a prompt."""
    trained: Align | None = None
    """How the run trains it; None: it does not."""


@dataclass(frozen=True)
class Contest:
    """Two systems that are compared; every figure of it is of `a`: a minus b, or a against b."""

    a: str
    b: str

    @property
    def key(self) -> str:
        """As files spell it."""
        return f"{self.a}{BETWEEN}{self.b}"

    @classmethod
    def of(cls, key: str) -> Contest:
        """The contest that files spell `key`."""
        a, _, b = key.partition(BETWEEN)
        return cls(a, b)


def _contest(value: object) -> object:
    return Contest.of(value) if isinstance(value, str) else value


Key = Annotated[Contest, BeforeValidator(_contest), PlainSerializer(lambda contest: contest.key, return_type=str)]
"""A contest where JSON has a name."""


@dataclass(frozen=True)
class AnswerRow:
    """One line of `answers-<system>.jsonl`."""

    prompt: Prompt
    response: Response


@dataclass(frozen=True)
class VerdictRow:
    """One line of `verdicts-<system>.jsonl` or `verdicts-<system>@<judge>.jsonl`."""

    prompt_id: str
    kind: str
    ratings: dict[str, Rating | Unrated]
    """By objective."""
    refusal: bool


@dataclass(frozen=True)
class ComparisonRow:
    """One line of `comparisons-<a>_vs_<b>.jsonl`: what was said with a shown first, then with b."""

    prompt_id: str
    kind: str
    verdicts: dict[str, Compared]


@dataclass(frozen=True)
class Verdict:
    """One system's answer to one prompt joined with a judge's ratings of it, in priority order."""

    prompt_id: str
    kind: str
    text: str
    stop: Stop
    ratings: Ratings
    prompt: str = ""
    """What was asked, to see whether the answer speaks about it."""


@dataclass(frozen=True)
class Cell:
    """A mean with its 95 % interval; None: nothing was rated."""

    mean: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    unrated: int | None = None
    """Answers without a rating; None where nobody counts them, as of a figure made of several ratings."""
    at_ceiling: float | None = None
    """Share of the ratings from 9.95 up."""
    words: float | None = None
    """Mean length of the answers behind the mean."""


@dataclass(frozen=True)
class Difference:
    """Mean of a - b over the prompts that both have a value for, with interval and tests; None: there are none."""

    mean: float | None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    n: int = 0
    words: float | None = None
    """The same of the answers' lengths in words; None where nobody counted."""
    p_holm: float | None = None
    """Corrected for the number of tests of its family (Holm)."""

    @property
    def significant(self) -> bool:
        """Whether the corrected test says that it is more than chance; without such a test nothing is claimed."""
        return is_significant(self.p_holm)


@dataclass(frozen=True)
class Wins:
    """How often a won against b, by prompt: shares of the prompts that were decided or tied; None: there are none."""

    win: float | None
    tie: float | None
    lose: float | None
    n: int
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    """`win`, `tie`, `lose` -> the edges of the share's interval."""
    p: float | None = None
    """Of "as many won as lost"."""
    flip_rate: float | None = None
    """Share whose two orders disagree; 0.0 by construction where the wins come from ratings."""
    first_shown: float | None = None
    """Of a judge that compares: share of its decided verdicts that went to the answer shown first."""
    unread: dict[str, int] | None = None
    """Of a judge that compares: reason -> prompts without an outcome. None: the wins come from ratings."""
    words: float | None = None
    p_holm: float | None = None

    @property
    def significant(self) -> bool:
        """As of a difference."""
        return is_significant(self.p_holm)


def is_significant(p_holm: float | None) -> bool:
    """Whether a corrected p is at most 0.05."""
    return p_holm is not None and p_holm <= 1.0 - LEVEL + 1e-12


def _number_as_cell(value: object) -> object:
    return {"mean": value} if isinstance(value, int | float) else value  # HH_lambda once was a bare number


def _tested(value: Any, plain: Any) -> Any:
    return {**plain(value), "significant": value.significant}


def _tested_alone(value: Any, plain: Any) -> Any:
    return _without(_tested(value, plain), "words")  # of behaviour, which is words among others


def _cell_as_json(value: Any, plain: Any) -> Any:
    fields = plain(value)
    counted = {} if value.unrated is None else {name: fields[name] for name in ("at_ceiling", "unrated")}
    return _without(fields, "at_ceiling", "unrated") | counted


def _wins_as_json(value: Any, plain: Any) -> Any:
    fields = _tested(value, plain)
    return fields if value.unread is not None else _without(fields, "first_shown", "unread")


def _without(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}


CellInFile = Annotated[Cell, BeforeValidator(_number_as_cell), WrapSerializer(_cell_as_json)]
DifferenceInFile = Annotated[Difference, WrapSerializer(_tested)]
Cells = dict[str, CellInFile]
"""Objective or HH_<lambda> -> mean."""
Differences = dict[str, DifferenceInFile]
"""Objective, HH_<lambda> or behaviour -> difference."""


@dataclass(frozen=True)
class Standing:
    """Where the systems stand under one judge, or on one kind of prompt."""

    systems: dict[str, Cells]
    difference: dict[Key, Differences] = field(default_factory=dict)


@dataclass(frozen=True)
class Behaviour:
    """What a system's answers do whatever their ratings (`behaviour.py`)."""

    refusal: dict[str, float]
    """Kind of prompt -> share of the answers that refuse."""
    n: dict[str, int] = field(default_factory=dict)
    """Kind of prompt -> answers."""
    over_refusal: float | None = None
    boilerplate: float | None = None
    largest_opening: float | None = None
    relevance: float | None = None
    repetition: float | None = None
    """Mean share of repeated 4-grams of words; None where nobody counted."""
    words: float | None = None
    """Median length of an answer."""
    cut: float | None = None
    unread: dict[str, float] = field(default_factory=dict)
    """Language whose refusals this program does not know -> share of the answers."""


@dataclass(frozen=True)
class Alpha:
    """Krippendorff's alpha of all judges on one objective, on two scales; None where it cannot be told."""

    interval: float | None
    ordinal: float | None
    n: int
    """Answers that at least two judges rated."""


@dataclass(frozen=True)
class Rv:
    """RV coefficient of two judges' ratings on all objectives together."""

    value: float | None
    n: int
    """Answers that both rated."""


@dataclass(frozen=True)
class Agreement:
    """How far the judges of an evaluation agree."""

    judges: tuple[str, ...]
    alpha: dict[str, Alpha]
    rv: dict[Key, Rv]
    """Of two judges, not of two systems."""


@dataclass(frozen=True)
class PerplexityRow:
    """How one system finds plain prose."""

    perplexity: float
    ratio: float
    """To the first system's."""


@dataclass(frozen=True)
class Perplexity:
    """What the alarm found."""

    systems: dict[str, PerplexityRow]
    alarm: tuple[str, ...] = ()
    """Systems over the threshold."""


@dataclass(frozen=True)
class JudgeName:
    """How files name a judge: equal keys, the same judge."""

    judge: str
    method: str
    key: str


@dataclass(frozen=True)
class PromptCount:
    """The held-out prompts."""

    n: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    """Reason -> prompts that were left out."""


@dataclass(frozen=True)
class Summary:
    """Everything in `summary.json` (docs/evaluation.md).

    Means and differences are in rating points from 1 to 10, with 95 % intervals; shares are from 0 to 1.

    Examples:
        >>> summary = Results("runs/my").summary
        >>> [contest.key for contest in summary.against_first()]
        ['spa_vs_vanilla']
    """

    objectives: tuple[str, ...]
    """In priority order."""
    systems: dict[str, Cells]
    """The first is what the others are compared with."""
    difference: dict[Key, Differences]
    pairwise: dict[Key, dict[str, Annotated[Wins, WrapSerializer(_wins_as_json)]]] | None = None
    by_kind: dict[str, Standing] = field(default_factory=dict)
    behaviour: dict[str, Behaviour] = field(default_factory=dict)
    behaviour_difference: dict[Key, dict[str, Annotated[Difference, WrapSerializer(_tested_alone)]]] = field(
        default_factory=dict
    )
    judges: dict[str, Standing] = field(default_factory=dict)
    """Further judges of the same answers."""
    agreement: Agreement | None = None
    judge: JudgeName | None = None
    prompts: PromptCount = PromptCount()
    drops: dict[str, dict[str, int]] = field(default_factory=dict)
    """System -> reason -> prompts it has no answer to."""
    perplexity: Perplexity | None = None
    models: dict[str, str] = field(default_factory=dict)
    """System -> key of the model that answered; none in runs of older versions."""

    @property
    def first(self) -> str:
        """The system that all others are compared with; empty without any."""
        return next(iter(self.systems), "")

    @property
    def standing(self) -> Standing:
        """Under the evaluation's own judge, on all prompts."""
        return Standing(self.systems, self.difference)

    def against_first(self) -> list[Contest]:
        """The contests with the first system, in order."""
        return [contest for contest in self.difference if contest.b == self.first]
