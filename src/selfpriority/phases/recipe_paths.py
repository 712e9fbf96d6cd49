"""A recipe's relative paths made absolute and its named systems written out: a run is continued from anywhere.

Knows which fields hold paths, and the names that mean something else there: what ships, and `self`. A judge whose name
turns out to be a folder of fitted heads becomes one by probe.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from selfpriority.constitution import load_constitution, shipped_constitutions
from selfpriority.errors import InputError
from selfpriority.models.files import embedded_models
from selfpriority.outside import sound
from selfpriority.own_python import find
from selfpriority.personas import known_personas
from selfpriority.phases.judge_names import located, meant, shipped_heads, with_judges
from selfpriority.prompt_sets import prompt_sets, written_out
from selfpriority.prompts import shipped_prompts
from selfpriority.recipe import (
    Backend,
    ByBattery,
    ByPython,
    ByReward,
    Evaluate,
    InWords,
    JudgeSection,
    OtherSystem,
    Prompts,
    RayBackend,
    Recipe,
    VllmBackend,
    with_named,
)

Locate = Callable[[str, Collection[str]], str]
"""(a name, the names that are no paths in its field) -> an absolute path, or the name as it is."""


def with_absolute_paths(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with its relative paths made absolute, and its named systems as entries of `more_systems`.

    A path counts from the working directory or, if nothing is there, from the recipe's `folder`. A reserved or
    shipped name is never a path, whatever lies there under that name; `./name` is one.
    """

    def absolute(name: str, reserved: Collection[str]) -> str:
        for base in (Path.cwd(), folder):
            path = base / name
            if name and name not in reserved and path.exists():  # the name of a link tells a file's format
                found = str(path.resolve() if path.is_dir() else path.parent.resolve() / path.name)
                if sound(found) != found:
                    raise InputError(f"{sound(found)}: its name or a folder's is not UTF-8; rename it")
                return found
        return name

    personas = absolute(recipe.sample.personas, known_personas())
    constitution = absolute(recipe.constitution, shipped_constitutions())
    start, rows = recipe.align.start, recipe.align.rows
    rows_folder = recipe.align.rows_folder or _folder_of(rows, (Path.cwd(), folder))
    found = recipe.model_copy(
        update={
            "model": absolute(recipe.model, embedded_models()),
            "backend": _backend(recipe.backend, absolute),
            **_training_data(recipe, absolute),
            "constitution": constitution,
            "sample": recipe.sample.model_copy(update={"personas": personas}),
            "align": recipe.align.model_copy(
                update={"start": start and absolute(start, embedded_models()), "rows_folder": rows_folder}
            ),
            "evaluate": _evaluate(_with_named(recipe, folder, constitution), absolute, (Path.cwd(), folder)),
        }
    )
    return with_judges(found, lambda section: _judge(section, absolute, (Path.cwd(), folder)))


def _with_named(recipe: Recipe, folder: Path, constitution: str) -> Evaluate:
    """Its evaluation with the systems that it names written out, so that a run keeps them as they were."""
    section = recipe.evaluate
    if not section.systems:
        return section
    names = load_constitution(constitution).names
    found = with_named(section.more_systems, section.systems, (Path.cwd(), folder), names, recipe.pairs is None)
    return section.model_copy(update={"systems": (), "more_systems": found})


def _evaluate(section: Evaluate, absolute: Locate, folders: Sequence[Path]) -> Evaluate:
    held_out = section.prompts
    return section.model_copy(
        update={
            "prompts": held_out and _prompts(held_out, absolute, "evaluate.prompts"),
            "more_prompts": {
                name: _prompts(other, absolute, f"evaluate.more_prompts.{name}")
                for name, other in section.more_prompts.items()
            },
            "more_systems": {name: _system(other, absolute, folders) for name, other in section.more_systems.items()},
        }
    )


def _training_data(recipe: Recipe, absolute: Locate) -> dict[str, object]:
    """The sections that say where prompts or pairs are; those of pairs lie in one file."""
    if recipe.pairs is None:
        return {"prompts": _prompts(recipe.prompts, absolute, "prompts")}
    source = {"source": absolute(recipe.pairs.source, ())}
    return {"pairs": recipe.pairs.model_copy(update=source), "prompts": recipe.prompts.model_copy(update=source)}


def _backend(backend: Backend, absolute: Locate) -> Backend:
    """With its interpreter where it is; the link that a virtual environment's is stays that link."""
    if isinstance(backend, RayBackend):
        return backend.model_copy(update={"each": _backend(backend.each, absolute)})
    if not isinstance(backend, VllmBackend) or backend.python is None:
        return backend
    return backend.model_copy(update={"python": absolute(backend.python, ())})


def _prompts(section: Prompts, absolute: Locate, place: str) -> Prompts:
    known = (*shipped_prompts(), *prompt_sets())
    return written_out(section.model_copy(update={"source": absolute(section.source, known)}), place)


def _system(section: OtherSystem, absolute: Locate, folders: Sequence[Path]) -> OtherSystem:
    train, align = section.train, section.train.get("align")
    if isinstance(align, dict) and not align.get("rows_folder"):
        found = _folder_of(str(align.get("rows", "pairs")), folders)
        train = {**train, "align": {**align, "rows_folder": found}} if found else train
    return section.model_copy(update={"model": absolute(section.model, ("self", *embedded_models())), "train": train})


def _folder_of(rows: str, folders: Sequence[Path]) -> str | None:
    """The first of the folders that holds the module of rows in Python; what is wrong with it is told where it runs."""
    with contextlib.suppress(InputError):
        if ":" in rows and not (own := find(rows, folders)).is_installed:
            return str(own.folder)
    return None


def _judge(section: JudgeSection, absolute: Locate, folders: Sequence[Path]) -> JudgeSection:
    if isinstance(section, ByPython):
        given = section.folder and absolute(section.folder, ())
        return located(section.model_copy(update={"folder": given}), folders)
    changes: dict[str, object] = {"judge": absolute(section.judge, ("self", *shipped_heads(), *embedded_models()))}
    if isinstance(section, ByReward):
        models = section.rewards.items()
        changes["rewards"] = {objective: absolute(model, embedded_models()) for objective, model in models}
    if isinstance(section, InWords | ByBattery) and section.backend is not None:
        changes["backend"] = _backend(section.backend, absolute)
    return meant(section.model_copy(update=changes))
