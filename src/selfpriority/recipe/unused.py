"""Fields that somebody wrote and that nothing reads, because another field says so: told, for a value is no wish lost.

They are no mistakes: whoever tries another method on a recipe leaves the old one's values where they are. What would
make another judge or another training of it is refused where it is read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from selfpriority.recipe.align import Align
from selfpriority.recipe.evaluate import Evaluate
from selfpriority.recipe.judge import InWords, JudgeSection
from selfpriority.recipe.method import Refine
from selfpriority.recipe.prompts import Prompts
from selfpriority.recipe.recipe import Recipe
from selfpriority.recipe.section import Section

_BY_LOSS: Mapping[str, tuple[str, ...]] = {
    "simpo": ("alpha", "weight_gap"),
    "dpo": ("gamma",),
    "ipo": ("gamma",),
    "sft": ("beta", "gamma"),
    "kto": ("gamma", "alpha", "weight_gap"),
    "bfpo": ("gamma", "alpha", "weight_gap"),
    "safedpo": ("gamma", "alpha", "weight_gap"),
    "tis_dpo": ("gamma", "alpha", "weight_gap"),
    "grpo": ("gamma", "alpha", "weight_gap", "nll", "count", "average", "stop_on_collapse", "report_to", "max_length"),
}
_BY_SAFETY: Mapping[str, tuple[str, ...]] = {"safe_from": ("bfpo", "safedpo", "grpo"), "unsafe_margin": ("safedpo",)}
"""Field -> the methods that read it."""
_BY_RATING: Mapping[str, tuple[str, ...]] = {"expected": ("max_new_tokens",), "verbal": ("mass_floor",)}


def unused_fields(recipe: Recipe) -> list[str]:
    """One line for every field with a value of its own that nothing reads: field, value, why."""
    judges = {"score.judge": recipe.score.judge}
    if recipe.evaluate.prompts is not None:
        judges |= {"evaluate.judge": recipe.evaluate.judge}
        judges |= {f"evaluate.more_judges.{name}": judge for name, judge in recipe.evaluate.more_judges.items()}
    if recipe.pairs is not None:
        del judges["score.judge"]
    in_judges = [line for place, judge in judges.items() for line in _of_judge(place, judge)]
    collected = _of_refine(recipe.refine) if recipe.pairs is None else _of_own_pairs(recipe)
    return [*in_judges, *collected, *unused_in_training(recipe.align), *_of_evaluate(recipe.evaluate)]


def unused_in_training(align: Align, said: Collection[str] | None = None) -> list[str]:
    """The same of `align` alone, as a further system of the evaluation trains too.

    Args:
        align: how it is trained.
        said: fields that may be told of; none: all.
    """
    idle = [*_BY_LOSS.get(align.method, ()), *(name for name, by in _BY_SAFETY.items() if align.method not in by)]
    named = tuple(name for name in idle if said is None or name in said)
    lines = list(_idle(align, "align", named, f"method {align.method}"))
    is_said = said is None or "learn" in said
    if is_said and align.learn is not None and align.method != "sft" and not align.nll:
        lines.append(f"align.learn: {align.learn} is not used: method {align.method} with nll 0 learns no likelihood")
    return lines


def _of_judge(place: str, judge: JudgeSection) -> Iterator[str]:
    if isinstance(judge, InWords):
        yield from _idle(judge, place, _BY_RATING[judge.method], f"method {judge.method}")


def _of_refine(refine: Refine) -> Iterator[str]:
    if refine.n == 1:
        yield from _idle(refine, "refine", ("keep",), "one refinement a prompt (refine.n: 1)")


def _of_own_pairs(recipe: Recipe) -> Iterator[str]:
    by = "a recipe with pairs of its own, which collects none"
    for place in ("sample", "refine", "denoise"):
        section = getattr(recipe, place)
        yield from _idle(section, place, tuple(type(section).model_fields), by)
    others = tuple(name for name in Prompts.model_fields if name not in ("source", "system", "kind"))
    yield from _idle(recipe.prompts, "prompts", others, by)


def _of_evaluate(evaluate: Evaluate) -> Iterator[str]:
    if evaluate.prompts is None:
        others = tuple(name for name in Evaluate.model_fields if name != "prompts")
        yield from _idle(evaluate, "evaluate", others, "a recipe without evaluate.prompts, which evaluates nothing")
    elif evaluate.comparer is not None and not evaluate.pairwise:
        yield "evaluate.comparer: is not used with evaluate.pairwise: false, which compares nothing"
    elif isinstance(evaluate.comparer, InWords):
        yield from _idle(evaluate.comparer, "evaluate.comparer", ("scales",), "a judge that compares")


def _idle(section: Section, place: str, names: tuple[str, ...], by: str) -> Iterator[str]:
    for name in names:
        value = getattr(section, name)
        if value != type(section).model_fields[name].get_default():
            told = "" if isinstance(value, Section | dict) else f" {value}"
            yield f"{place}.{name}:{told} is not used by {by}"
