"""Who rates or compares, as a recipe says it. Knows no model and no file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from selfpriority.recipe.backend import Backend
from selfpriority.recipe.section import Probability, Section


class Score(Section):
    """Who rates, and how."""

    judge: str = "self"
    """`self` (the policy), a model, or a folder of fitted heads (or the shipped `demo-train`, `ranking`): probe."""
    method: Literal["expected", "verbal", "probe", "reward"] = "expected"
    """Digit probabilities, a written rating, heads on hidden states, or sequence-classification models."""
    rewards: dict[str, str] = Field({})
    """For `method: reward`: a sequence-classification model per objective."""
    backend: Backend | None = None
    """Who runs a judge in words; none: the recipe's backend."""
    mass_floor: Probability = 0.5
    """Expected ratings whose digits hold less probability than this are unrated."""
    max_new_tokens: int = Field(512, ge=1)
    """Longest written verdict in tokens (`verbal`)."""
    require_signal: bool = True
    """Refuse to train on a judge whose agreement with the labelled answers may be chance."""


class OtherJudge(Section):
    """A further judge of the evaluation."""

    judge: str
    """As `score.judge`; `self` means the vanilla model."""
    method: Literal["expected", "verbal", "probe", "reward"] = "expected"
    """As `score.method`."""
    rewards: dict[str, str] = Field({})
    """As `score.rewards`."""
    backend: Backend | None = None
    """As `score.backend`."""
