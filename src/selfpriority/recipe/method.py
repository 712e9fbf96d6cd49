"""The method before training: sampling, refining, which prompts are kept, which answers make a pair."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from selfpriority.recipe.section import Count, Divisor, Probability, Section, Share, Weight, off


class Sample(Section):
    """Candidates y_1..y_n of every prompt.

    Raises:
        ValidationError: an unknown field, or a value out of its bounds.

    Examples:
        >>> Sample(n=4, max_new_tokens=256).temperature
        1.2
    """

    n: int = Field(8, ge=2, le=64)
    """Candidates a prompt; more than the number of objectives, or the covariance has no full rank."""
    temperature: Divisor = Field(1.2, gt=0, le=5)
    """Sampling temperature; above 1 for diverse answers where the model stays coherent."""
    top_p: Probability = 0.95
    """Nucleus sampling: smallest set of tokens that holds this probability."""
    max_new_tokens: Count = 512
    """Longest answer in tokens, those of its thinking included."""
    personas: str = "default"
    """`default` or `openings` (shipped, for prompts in English, German, Spanish, French and Chinese), `none`, or a YAML
    file of {name, text, opening, language} rows: a system prompt, how the answer begins, or both."""
    plain: float = Field(0.0, ge=0, le=1)
    """Share of the candidates sampled without a persona."""
    keep_cut: bool = True
    """Whether an answer cut at the length limit may enter a pool."""


Show = Literal["all", "extremes", "best"]
"""All candidates; the worst and the best by the sum of their scores; the best alone."""


class Refine(Section):
    """One improved answer per pool.

    Raises:
        ValidationError: an unknown field, or a value out of its bounds.

    Examples:
        >>> Refine(n=3, keep="consistent").temperature
        0.7
    """

    n: int = Field(1, ge=1, le=16)
    """Refinements a prompt; one of them is kept."""
    keep: Literal["order", "consistent"] = "order"
    """Of several refinements `order` keeps the lexicographically best; `consistent` the one that beats most candidates
    on every objective, of equal ones the lexicographically best."""
    temperature: Divisor = Field(0.7, ge=0, le=5)
    """Sampling temperature of the refinement; 0 is greedy."""
    top_p: Probability = 0.95
    """Nucleus sampling."""
    max_new_tokens: Count = 512
    """Longest refinement in tokens."""
    keep_cut: bool = True
    """Whether a refinement cut at the length limit may enter a pool."""
    show: Show = "all"
    """Which candidates the model reads before it refines; fewer make a shorter prompt."""

    @property
    def in_result(self) -> dict[str, Any]:
        """The fields that a refinement depends on; runs from before there was a choice keep their keys."""
        usual = {"show": self.show == "all", "keep": self.keep == "order"}
        return self.model_dump(exclude={name for name, is_usual in usual.items() if is_usual})


class Denoise(Section):
    """Which prompts' ratings can be trusted.

    Raises:
        ValidationError: an unknown field, a value out of its bounds, or two readings of tau at once.

    Examples:
        >>> Denoise(consistency=0.5).keep_lowest
        0.32
    """

    consistency: Annotated[Literal["strict", "off"] | Share, BeforeValidator(off)] = "strict"
    """`strict`: the refined answer beats every candidate on every objective; a number: that share; `off`."""
    keep_lowest: float | None = Field(0.32, gt=0, le=1)
    """tau as a quantile: keep this share of the prompts left, lowest det(covariance) first; 1.0 keeps all."""
    max_det: float | None = Field(None, gt=0)
    """tau as a number: the largest det(covariance) kept."""
    epsilon: float = Field(1e-6, ge=0)
    """A determinant up to this counts as 0: the ratings do not vary."""
    noise: float = Field(0.0, ge=0, le=9)
    """Rating points of the judge's own noise: a candidate ahead of the refinement by less is a tie, not a loss."""

    @property
    def in_result(self) -> dict[str, Any]:
        """The fields that decide who is kept; runs from before noise was counted keep their keys."""
        return self.model_dump(exclude=set() if self.noise else {"noise"})

    @model_validator(mode="before")
    @classmethod
    def _one_tau(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("max_det") is not None:
            if data.get("keep_lowest") is not None:
                raise ValueError("set max_det or keep_lowest, not both: each is a reading of tau")
            return {**data, "keep_lowest": None}
        return data


_ORDERS = ("priority", "swapped", "sum")


def mix_weights(order: str) -> tuple[float, ...]:
    """The weights in `mix:6,4`; empty for every other order.

    Raises:
        ValueError: one is no number from 0 up, or none is above 0.
    """
    kind, _, listed = order.partition(":")
    if kind != "mix":
        return ()
    try:
        weights = tuple(map(float, listed.split(",")))
    except ValueError:
        weights = ()
    if not any(weights) or not all(math.isfinite(weight) and weight >= 0 for weight in weights):
        raise ValueError("mix takes a weight of 0 or more for every objective, one of them above 0: mix:6,4")
    return weights


def _known(order: str) -> str:
    kind, colon, objective = order.partition(":")
    if order not in _ORDERS and not mix_weights(order) and not (kind == "only" and objective.strip() and colon):
        raise ValueError(f"an order is {', '.join(_ORDERS)}, only:OBJECTIVE or a mix such as mix:6,4")
    return order


OrderBy = Annotated[str, AfterValidator(_known)]
"""Objectives in their order; the last one first; their plain sum, which knows no order; one alone; a weighted sum."""


class PairRules(Section):
    """Which answers of a pool make a preference pair.

    Raises:
        ValidationError: an unknown field, or a value out of its bounds.

    Examples:
        >>> PairRules(margin=2.0, resolution=0.5).against
        'all'
    """

    margin: Weight = 1.0
    """delta of Eq. 2: smallest L1 distance of the score vectors."""
    against: Literal["all", "refined"] = "all"
    """All ordered pairs of the pool, or only those with the refined answer."""
    resolution: Divisor = Field(1.0, ge=0, le=1e6)
    """Grid on which every objective but the last is compared; 0 compares exactly."""
    threshold: float | None = Field(None, ge=1, le=10)
    """Scores from here up count as equal on every objective but the last."""
    conflicts: Literal["keep", "drop"] = "keep"
    """Whether pairs stay whose chosen answer loses on lower objectives what it wins; Eq. 3 weighs them by the loss."""
    order: OrderBy = "priority"
    """`priority`: the method. Controls: `swapped`, `sum`, `only:OBJECTIVE` (one alone), `mix:6,4` (a weighted sum)."""
    most_loss: float | None = Field(None, ge=0)
    """The most a chosen answer may lose on any one objective; 0: nothing at all; none: anything, the paper."""
    choose_cut: bool = True
    """Whether an answer cut at the length limit may be the chosen one of a pair; it may always be the rejected one."""

    @property
    def in_result(self) -> dict[str, Any]:
        """The fields that pairs depend on; runs from before there was a choice keep their keys."""
        usual = {"order": self.order == "priority", "choose_cut": self.choose_cut}
        return self.model_dump(exclude={name for name, is_usual in usual.items() if is_usual})
