"""Who rates or compares, as a recipe says it: a model asked in words or by questions, heads, rewards, a function.

A judge is also read from the flat spelling, fields of every kind side by side with `method` for the kind, as older
recipes and `FIELD=VALUE` have it. Knows no model and no file.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from selfpriority.own_python import FORM
from selfpriority.recipe.backend import Backend
from selfpriority.recipe.section import Count, Probability, Section

Scales = Literal["last", "first"]


class InWords(Section):
    """A language model that is asked under the constitution.

    Raises:
        ValidationError: an unknown field, or a value out of its bounds.

    Examples:
        >>> InWords(judge="ORG/MODEL", method="verbal").max_new_tokens
        512
    """

    kind: Literal["words"] = "words"
    """How the judge comes to a rating."""
    judge: str
    """A model, or `self`: the policy where it trains, the vanilla model where it evaluates."""
    method: Literal["expected", "verbal"] = "expected"
    """Digit probabilities, or a written rating."""
    backend: Backend | None = None
    """Who runs it; none: the recipe's backend."""
    mass_floor: Probability = 0.5
    """Expected ratings whose digits hold less probability than this are unrated."""
    max_new_tokens: Count = 512
    """Longest written verdict in tokens (`verbal`)."""
    scales: Scales = "last"
    """Where it reads what the ratings mean: behind every answer, or first, once for all: a third of the reading where
    an engine keeps what texts begin with."""

    @property
    def said(self) -> list[str]:
        """Fields about how the model is asked that somebody wrote: the method, and what is not the default."""
        return [name for name in ("method", "backend", "mass_floor", "max_new_tokens", "scales") if self._is_said(name)]

    def _is_said(self, name: str) -> bool:
        is_default = getattr(self, name) == type(self).model_fields[name].default
        return name in self.model_fields_set and (name == "method" or not is_default)

    @field_validator("method", mode="before")
    @classmethod
    def _flat_method(cls, value: Any) -> Any:
        if value not in ("expected", "verbal", *_KINDS):  # where `method` tells the kind, it may be any
            raise ValueError(
                "Input should be 'expected', 'verbal', 'battery', 'probe', 'contrast', 'reward' or 'python'"
            )
        return value


class ByProbe(Section):
    """Fitted heads on a model's hidden states.

    Raises:
        ValidationError: an unknown field.

    Examples:
        >>> judge = open_judge(ByProbe(kind="probe", judge="my-heads"), load_constitution("harmless-helpful"))
        >>> judge.objectives
        ('harmlessness', 'helpfulness')
    """

    kind: Literal["probe"]
    """How the judge comes to a rating."""
    judge: str
    """A folder of fitted heads, or the name of those that ship (`demo-train`, `ranking`, ...)."""

    @property
    def method(self) -> Literal["probe"]:
        """As files name it."""
        return self.kind


class ByContrast(Section):
    """Heads on a model's hidden states, fitted on answers that it writes behind openings of ours: nobody labels any."""

    kind: Literal["contrast"]
    """How the judge comes to a rating."""
    judge: str = "self"
    """A model, or `self`: the recipe's, in every round."""

    @property
    def method(self) -> Literal["contrast"]:
        """As files name it."""
        return self.kind


class ByBattery(Section):
    """A language model that is asked many small questions, yes or no, which the anchors orient and weigh."""

    kind: Literal["battery"]
    """How the judge comes to a rating."""
    judge: str = "self"
    """A model, or `self`: the recipe's, in every round."""
    backend: Backend | None = None
    """Who runs it; none: the recipe's backend."""

    @property
    def method(self) -> Literal["battery"]:
        """As files name it."""
        return self.kind


class ByReward(Section):
    """A reward model (one label) or a guard model (it writes safe or unsafe) per objective.

    Raises:
        ValidationError: an unknown field.

    Examples:
        >>> sorted(ByReward(kind="reward", rewards={"harmlessness": "ORG/ONE", "helpfulness": "ORG/OTHER"}).rewards)
        ['harmlessness', 'helpfulness']
    """

    kind: Literal["reward"]
    """How the judge comes to a rating."""
    judge: str = "self"
    """What files call it; nobody is asked by this name."""
    rewards: dict[str, str] = Field({})
    """Objective -> model."""

    @property
    def method(self) -> Literal["reward"]:
        """As files name it."""
        return self.kind


class ByPython(Section):
    """A function of the user's own, which runs in this process (docs/own-python.md).

    Raises:
        ValidationError: an unknown field, or a value out of its bounds.

    Examples:
        >>> ByPython(kind="python", judge="judging:rate", folder="my-judge").batch_size
        32
    """

    kind: Literal["python"]
    """How the judge comes to a rating."""
    judge: str
    """`package.module:name` of the function."""
    folder: str | None = None
    """Where its module lies; none: the working directory or the recipe's folder if it is there, else what is
    installed."""
    version: str = ""
    """Another text when something changed that its source does not show, a model behind an address for one: then all
    is rated anew."""
    batch_size: Count = 32
    """Answers that it is given at once; the verdicts of every call are kept."""

    @property
    def method(self) -> Literal["python"]:
        """As files name it."""
        return self.kind

    @field_validator("judge")
    @classmethod
    def _names_a_function(cls, value: str) -> str:
        if not FORM.fullmatch(value):
            raise ValueError("must be package.module:name of a function, as in mypackage.judging:rate")
        return value


_KINDS: dict[str, type[Section]] = {
    "words": InWords,
    "probe": ByProbe,
    "contrast": ByContrast,
    "battery": ByBattery,
    "reward": ByReward,
    "python": ByPython,
}
_EVERY = {"judge", "method", "rewards", "backend"}
"""What a judge that version 0.1.0 wrote out names, whatever its kind: what is not of it says nothing, nor a default."""
_WRITTEN_OUT = {name: InWords.model_fields[name].default for name in ("method", "mass_floor", "max_new_tokens")}


def _with_kind(value: Any) -> Any:
    """The flat spelling with `method` read as the kind; what is empty there says nothing about another kind."""
    if not isinstance(value, dict):
        return value
    if "kind" in value:  # who writes that a model is asked in words has said how
        return {"method": "expected", **value} if value["kind"] == "words" else value
    method = value.get("method")
    kind = method if method in _KINDS else "words"
    known = {name for section in _KINDS.values() for name in section.model_fields} - {*_KINDS[kind].model_fields}
    idle = {name for name in known if value.keys() >= _EVERY or value.get(name) in (None, {})}
    if value.keys() >= _EVERY:  # all that says no more than the default does
        idle |= {name for name in _WRITTEN_OUT if value.get(name) == _WRITTEN_OUT[name]}
    idle |= set() if kind == "words" else {"method"}
    return {"kind": kind, **{name: given for name, given in value.items() if name not in idle}}


JudgeSection = Annotated[
    InWords | ByProbe | ByContrast | ByBattery | ByReward | ByPython,
    Field(discriminator="kind"),
    BeforeValidator(_with_kind),
]
OF_PYTHON = ("folder", "version", "batch_size")
"""What stands beside the name of a function, in the flat spelling."""


def gathered(data: Any, fields: Iterable[str]) -> Any:
    """A section whose judge may be spelled flat: its `judge` with the fields beside it that are the judge's."""
    if not isinstance(data, dict):
        return data
    beside = {name: data[name] for name in fields if name in data}
    judge = data.get("judge", "self")
    if isinstance(judge, Section) or not (beside or "judge" in data):
        return data
    others = {name: value for name, value in data.items() if name not in beside}
    named = judge if isinstance(judge, dict) else {"judge": judge}
    unnamed = {} if "kind" in named else {"judge": "self"}
    return {**others, "judge": {**unnamed, **named, **beside}}


class Score(Section):
    """Who rates, and how.

    Raises:
        ValidationError: an unknown field, or a judge of no kind that there is.

    Examples:
        >>> Score(judge=ByProbe(kind="probe", judge="demo-train")).require_signal
        True
    """

    judge: JudgeSection = InWords(judge="self")
    """Who rates the answers of training."""
    require_signal: bool = True
    """Refuse to train on a judge whose agreement with the labelled answers may be chance."""

    @model_validator(mode="before")
    @classmethod
    def _flat(cls, data: Any) -> Any:
        return gathered(data, ("method", "rewards", "backend", "mass_floor", "max_new_tokens", "scales", *OF_PYTHON))
