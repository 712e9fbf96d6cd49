"""A recipe's relative paths made absolute, so that a run may be continued from anywhere.

Knows which fields hold paths, and the names that mean something else there: what ships, and `self`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeVar

from selfpriority.backends.weights import embedded_models
from selfpriority.constitution import shipped_constitutions
from selfpriority.phases.resources import shipped_heads
from selfpriority.prompts import shipped_prompts
from selfpriority.recipe import Evaluate, OtherJudge, OtherSystem, Prompts, Recipe, Score

Locate = Callable[[str, Collection[str]], str]
"""(a name, the names that are no paths in its field) -> an absolute path, or the name as it is."""
_Judging = TypeVar("_Judging", Score, Evaluate, OtherJudge)


def with_absolute_paths(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with its relative paths made absolute.

    A path counts from the working directory or, if nothing is there, from the recipe's `folder`. A reserved or
    shipped name is never a path, whatever lies there under that name; `./name` is one.
    """

    def absolute(name: str, reserved: Collection[str]) -> str:
        for base in (Path.cwd(), folder):
            if name and name not in reserved and (base / name).exists():
                return str((base / name).resolve())
        return name

    personas = absolute(recipe.sample.personas, ("default", "none"))
    return recipe.model_copy(
        update={
            "model": absolute(recipe.model, embedded_models()),
            "prompts": _prompts(recipe.prompts, absolute),
            "constitution": absolute(recipe.constitution, shipped_constitutions()),
            "score": _judging(recipe.score, absolute),
            "sample": recipe.sample.model_copy(update={"personas": personas}),
            "evaluate": _evaluate(recipe.evaluate, absolute),
        }
    )


def _evaluate(section: Evaluate, absolute: Locate) -> Evaluate:
    held_out, comparer = section.prompts, section.comparer
    judges = {name: _judging(other, absolute) for name, other in section.more_judges.items()}
    sets = {name: _prompts(other, absolute) for name, other in section.more_prompts.items()}
    systems = {name: _system(other, absolute) for name, other in section.more_systems.items()}
    return _judging(section, absolute).model_copy(
        update={
            "prompts": held_out and _prompts(held_out, absolute),
            "comparer": comparer and _judging(comparer, absolute),
            "more_judges": judges,
            "more_prompts": sets,
            "more_systems": systems,
        }
    )


def _prompts(section: Prompts, absolute: Locate) -> Prompts:
    return section.model_copy(update={"source": absolute(section.source, shipped_prompts())})


def _system(section: OtherSystem, absolute: Locate) -> OtherSystem:
    return section.model_copy(update={"model": absolute(section.model, ("self", *embedded_models()))})


def _judging(section: _Judging, absolute: Locate) -> _Judging:
    judge = absolute(section.judge, ("self", *shipped_heads(), *embedded_models()))
    rewards = {objective: absolute(model, embedded_models()) for objective, model in section.rewards.items()}
    return section.model_copy(update={"judge": judge, "rewards": rewards})
