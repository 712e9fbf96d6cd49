"""A whole recipe: one field a step of a run."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from selfpriority.recipe.align import Align
from selfpriority.recipe.backend import Backend, HfBackend
from selfpriority.recipe.evaluate import Evaluate
from selfpriority.recipe.judge import Score
from selfpriority.recipe.method import Denoise, PairRules, Refine, Sample
from selfpriority.recipe.pairs import Pairs
from selfpriority.recipe.prompts import Prompts
from selfpriority.recipe.section import Section


class Recipe(Section):
    """Everything a run depends on.

    Raises:
        ValidationError: an unknown field, a value out of its bounds, or fields that do not go together.

    Examples:
        >>> recipe = Recipe(model="my-model", prompts=Prompts(source="prompts.jsonl"), sample=Sample(n=4))
        >>> recipe.align.method
        'spa'
    """

    model: str
    """A hub id, a folder, or an embedded name (`smollm2-135m`)."""
    pairs: Pairs | None = None
    """Preference data of one's own, trained on as it is; none: a run makes its pairs from `prompts`."""
    prompts: Prompts
    """Training prompts; with `pairs` those of its file."""
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
    """Who runs `model` and every trained policy; with `kind: openai` a policy runs with transformers in this process,
    for no server has it."""
    trust_remote_code: bool = False
    """Whether code that comes with a model may run on this machine; a model that needs it is refused otherwise."""
    seed: int = Field(0, ge=0, le=2**32 - 1)
    """Seeds prompts, sampling and training."""

    @model_validator(mode="before")
    @classmethod
    def _prompts_of_pairs(cls, data: Any) -> Any:
        """The prompts are the file's; other fields of the section (`system`, `kind`) may be set beside."""
        pairs = data.get("pairs") if isinstance(data, dict) else None
        source = pairs.get("source") if isinstance(pairs, dict) else pairs
        prompts = data.get("prompts", {}) if isinstance(data, dict) else None
        if isinstance(source, str) and isinstance(prompts, dict) and "source" not in prompts:
            return {**data, "prompts": {"source": source, **prompts}}
        return data

    @field_validator("prompts")
    @classmethod
    def _of_pairs(cls, prompts: Prompts, info: ValidationInfo) -> Prompts:
        pairs = info.data.get("pairs")
        if pairs is not None and prompts.source != pairs.source:
            raise ValueError("set pairs or prompts.source, not both: pairs have prompts of their own")
        return prompts

    @field_validator("align")
    @classmethod
    def _of_pools(cls, align: Align, info: ValidationInfo) -> Align:
        if align.rows != "pairs" and info.data.get("pairs") is not None:
            raise ValueError(f"rows {align.rows} are made of answers that a run samples; pairs of one's own have none")
        return align

    @field_validator("rounds")
    @classmethod
    def _one_of_pairs(cls, rounds: int, info: ValidationInfo) -> int:
        if rounds > 1 and info.data.get("pairs") is not None:
            raise ValueError("pairs of one's own are trained on in one round; set rounds: 1")
        return rounds

    @field_validator("prompts", "pairs", mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"source": value} if isinstance(value, str) else value
