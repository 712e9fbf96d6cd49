"""A whole recipe: one field a step of a run."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from selfpriority.recipe.align import Align
from selfpriority.recipe.backend import Backend, HfBackend
from selfpriority.recipe.evaluate import Evaluate
from selfpriority.recipe.judge import Score
from selfpriority.recipe.method import Denoise, PairRules, Refine, Sample
from selfpriority.recipe.prompts import Prompts
from selfpriority.recipe.section import Section


class Recipe(Section):
    """Everything a run depends on."""

    model: str
    """A hub id, a folder, or an embedded name (`smollm2-135m`)."""
    prompts: Prompts
    """Training prompts."""
    constitution: str = "harmless-helpful"
    """A shipped constitution or a folder of one's own."""
    rounds: int = Field(1, ge=1, le=10)
    """How often collect and align repeat, each round from the last policy."""
    prompts_per_round: Literal["same", "new"] = "same"
    """`same`: every round uses all prompts; `new`: the prompts are split evenly over the rounds."""
    sample: Sample = Sample()
    score: Score = Score()
    refine: Refine = Refine()
    denoise: Denoise = Denoise()
    pair: PairRules = PairRules()
    align: Align = Align()
    evaluate: Evaluate = Evaluate()
    backend: Backend = HfBackend()
    """Who runs `model`; a trained policy, which is on no server, always runs in this process."""
    trust_remote_code: bool = False
    """Whether code that comes with a model may run on this machine; a model that needs it is refused otherwise."""
    seed: int = Field(0, ge=0, le=2**32 - 1)
    """Seeds prompts, sampling and training."""

    @field_validator("prompts", mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"source": value} if isinstance(value, str) else value
