"""The evaluation: held-out prompts, systems, judges, and how they are compared."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from selfpriority.recipe.judge import OF_PYTHON, InWords, JudgeSection, gathered
from selfpriority.recipe.prompts import Prompts
from selfpriority.recipe.section import Count, Divisor, Section, Weight


class OtherSystem(Section):
    """A further system of the evaluation."""

    model: str = "self"
    """A hub id, a folder or an embedded name; `self`: the recipe's model."""
    how: Literal["plain", "constitution", "best_of_n"] = "plain"
    """`constitution`: with its text as a system prompt before every prompt; `best_of_n`: the best of `sample.n` answers
    by the judge that training learns from."""
    train: dict[str, Any] = Field({})
    """Trained by this run, on its own answers and ratings, with other values of `denoise`, `pair` or `align`, as in
    {pair: {order: swapped}}; empty: `model` as it is."""
    start: str | None = None
    """Of one that is trained: the trained system that it starts from and is measured against; none: the model."""
    merge: dict[str, Annotated[float, Field(ge=-10, le=10)]] = Field({})
    """Trained systems and how much of each one's movement from the model is in this one's weights: no training."""
    evaluated: bool = True
    """Whether it answers in the evaluation; one that others start from, or are merged of, may be trained for that."""
    title: str = ""
    """What it is, in a few words, for tables."""

    @model_validator(mode="after")
    def _made_one_way(self) -> OtherSystem:
        if self.train and self.model != "self":
            raise ValueError("set model or train, not both: what a run trains is its own model")
        if self.merge and (self.train or self.model != "self"):
            raise ValueError("set merge alone, without model or train: its weights are those of other systems")
        if self.start is not None and not self.train:
            raise ValueError(
                "start is for a system with train; one that is trained as the run's own has train: {pair: {}}"
            )
        if not self.evaluated and not self.train:
            raise ValueError("evaluated: false is for a system with train, which others start from or are merged of")
        return self


class Evaluate(Section):
    """Who is better, on prompts that training never saw.

    Raises:
        ValidationError: an unknown field, or a value out of its bounds.

    Examples:
        >>> Evaluate(prompts=Prompts(source="heldout.jsonl"), judge=InWords(judge="ORG/OTHER")).judge.judge
        'ORG/OTHER'
    """

    prompts: Prompts | None = None
    """Held-out prompts; none: no evaluation."""
    more_prompts: dict[Annotated[str, Field(pattern=r"^[a-z0-9_]+$")], Prompts] = Field({})
    """Further held-out sets by a name of their own (transfer, over-refusal), each with a table of its own."""
    more_systems: dict[Annotated[str, Field(pattern=r"^[a-z0-9_]+$")], OtherSystem] = Field({})
    """Further systems by a name of their own, evaluated as the others are."""
    systems: tuple[str, ...] = ()
    """Named systems beside those: what ships (`spa systems` lists them), YAML files of your own, or
    `package.module:name` of a mapping in Python."""
    at_once: Count | None = None
    """Systems that train, and that are evaluated, at once: each on GPUs of its own while there are enough, or on its
    share of the cores; none: as many as there are GPUs for, and one on a CPU."""
    reference: str | None = None
    """A system that every other one is compared with as well, beside `vanilla`."""
    judge: JudgeSection = InWords(judge="self")
    """The outside judge; `self` means the vanilla model."""
    more_judges: dict[Annotated[str, Field(pattern=r"^[a-z0-9_]+$")], JudgeSection] = Field({})
    """Further judges by a name of their own; the summary reports how far they agree."""
    comparer: JudgeSection | None = None
    """Asked in words which of two answers is better, in both orders; none: wins come from the ratings."""
    max_new_tokens: Count = 512
    """Longest answer in tokens."""
    temperature: Divisor = Field(0.0, ge=0, le=5)
    """0 is greedy."""
    pairwise: bool = True
    """Report win, tie and lose per objective, by prompt."""
    tie: float = Field(0.5, ge=0)
    """Ratings this close are a tie in the pairwise table."""
    safe_kinds: tuple[str, ...] = ("ordinary", "safe", "benign", "unharmful", "harmless")
    """Kinds of prompts that nobody should refuse: refusals of them are over-refusals."""
    lambdas: tuple[Weight, ...] = (5.0, 10.0, 20.0)
    """Weights of HH_lambda = (lambda * primary + secondary) / (lambda + 1)."""

    @model_validator(mode="before")
    @classmethod
    def _flat(cls, data: Any) -> Any:
        return gathered(data, ("method", "rewards", "backend", *OF_PYTHON))
