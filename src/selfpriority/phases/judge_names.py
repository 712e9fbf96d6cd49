"""Which judge a recipe means, and what it is known by: described without opening it.

A finished step is recognised by its judge's key, so that no model is loaded for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from selfpriority.constitution import Constitution
from selfpriority.errors import InputError
from selfpriority.judges.battery import battery_hash
from selfpriority.judges.contrast import contrast_hash
from selfpriority.judges.heads import Heads, read_heads
from selfpriority.judges.probe import READING
from selfpriority.judges.python import PythonRater, judging_function, rater_fingerprint
from selfpriority.judges.words import wording
from selfpriority.language_model import LanguageModel
from selfpriority.own_python import OwnPython, find
from selfpriority.phases.models import arithmetic, model_key, reading
from selfpriority.recipe import (
    Backend,
    ByBattery,
    ByContrast,
    ByProbe,
    ByPython,
    ByReward,
    InWords,
    JudgeSection,
    Recipe,
)
from selfpriority.run import key_of
from selfpriority.wording import FOLDER, text_hash

if TYPE_CHECKING:
    from selfpriority.phases.resources import Resources

SHIPPED_HEADS = FOLDER / "heads"


def judge_key(section: JudgeSection, policy: str, constitution: Constitution, backend: Backend) -> str:
    """What a judge's verdicts depend on, without opening it; `backend` is the recipe's."""
    runner = judge_backend(section, backend)
    numerics = arithmetic(runner)
    match section:
        case ByProbe():
            heads = fitted_heads(section.judge)
            model = model_key(heads.model)
            return key_of("probe", READING, heads.fingerprint, model, constitution.names, numerics)
        case ByContrast():
            model = model_key(named_model(section, policy))
            return key_of("contrast", READING, model, contrast_hash(constitution.names), constitution.names, numerics)
        case ByBattery():
            model = model_key(named_model(section, policy), runner)
            return key_of("battery", model, battery_hash(constitution), constitution.names, numerics)
        case ByReward():
            check_rewards(section, constitution)
            models = {name: model_key(model) for name, model in section.rewards.items()}
            return key_of("reward", models, constitution.names, constitution.anchors, numerics)
        case InWords():
            settings = (section.method, section.mass_floor, section.max_new_tokens)
            texts = text_hash(wording("expected", section.scales), wording("verbal", section.scales))
            model = model_key(named_model(section, policy), runner)
            return key_of("words", model, constitution.objectives, texts, settings, numerics)
        case ByPython():
            return key_of("python", rater_fingerprint(own_function(section), section.version), constitution.names)


def judge_entry(section: JudgeSection, resources: Resources) -> dict[str, str]:
    """How files name a judge outside the rounds: {judge, method, key}; equal keys, the same judge."""
    recipe = resources.recipe
    key = judge_key(section, recipe.model, resources.constitution, recipe.backend)
    return {"judge": section.judge, "method": section.method, "key": key}


def judge_backend(section: JudgeSection, backend: Backend) -> Backend:
    """Who runs a judge: `backend` is the recipe's. A server shows no hidden states and classifies nothing."""
    return section.backend or backend if isinstance(section, InWords | ByBattery) else reading(backend)


def named_model(section: InWords | ByContrast | ByBattery, policy: str) -> str:
    """Who is asked, or whose hidden states are read; `self` is `policy`."""
    return policy if section.judge == "self" else section.judge


def comparing(recipe: Recipe) -> InWords | None:
    """The judge that decides who wins by comparing answers, where there is one.

    Raises:
        InputError: it is one that cannot compare.
    """
    section = recipe.evaluate.comparer
    if section is None or recipe.evaluate.prompts is None or not recipe.evaluate.pairwise:
        return None
    if not isinstance(section, InWords):
        raise InputError(f"evaluate.comparer: {section.judge!r} rates, it cannot compare; use a model in words")
    return section


def check_rewards(section: ByReward, constitution: Constitution) -> None:
    """Raises InputError for an objective without a model, and without anchors to place rewards by."""
    missing = [name for name in constitution.names if name not in section.rewards]
    if missing:
        raise InputError(f"score.rewards: no model for {', '.join(missing)}")
    if not constitution.anchors:
        raise InputError(f"constitution: {constitution.name!r} has no anchors, and reward models are placed by them")


def own_function(section: ByPython) -> OwnPython:
    """Where a judge in Python lies; nothing of it is run.

    Raises:
        InputError: there is no such module, or its folder is told from nowhere.
    """
    if section.folder is not None and not Path(section.folder).is_absolute():
        raise InputError(f"{section.judge!r}: folder {section.folder!r} is no absolute path, as a run has it")
    return find(section.judge, () if section.folder is None else (Path(section.folder),))


def open_rater(section: ByPython) -> LanguageModel:
    """The function, imported, behind the protocol of a model; InputError as of `own_function` and its import."""
    own = own_function(section)
    return PythonRater(judging_function(own), own, section.version, section.batch_size)


def located(section: ByPython, folders: Sequence[Path]) -> ByPython:
    """The judge with the first of the folders that holds its module; as it is where none does."""
    if section.folder is not None:
        return section
    with contextlib.suppress(InputError):
        if not (own := find(section.judge, folders)).is_installed:
            return section.model_copy(update={"folder": str(own.folder)})
    return section


def with_judges(recipe: Recipe, change: Callable[[JudgeSection], JudgeSection]) -> Recipe:
    """The recipe with every judge changed."""
    score, evaluate = recipe.score, recipe.evaluate
    judges = {
        "judge": change(evaluate.judge),
        "comparer": evaluate.comparer and change(evaluate.comparer),
        "more_judges": {name: change(other) for name, other in evaluate.more_judges.items()},
    }
    return recipe.model_copy(
        update={
            "score": score.model_copy(update={"judge": change(score.judge)}),
            "evaluate": evaluate.model_copy(update=judges),
        }
    )


def of_model(section: JudgeSection, model: str) -> JudgeSection:
    """What is fitted on a model itself is that of the recipe's `model`, not of a policy that it becomes.

    What training moves must not move its own measure.
    """
    if not isinstance(section, ByContrast | ByBattery):
        return section
    return section.model_copy(update={"judge": named_model(section, model)})


def meant(section: JudgeSection) -> JudgeSection:
    """A judge as it is on this disk: the name of fitted heads means those where nothing says how a model is asked.

    Raises:
        InputError: heads are named, and a method or a field that is of another kind of judge.
    """
    is_heads = section.judge != "self" and heads_folder(section.judge) is not None
    if not is_heads or isinstance(section, ByProbe):
        return section
    if not isinstance(section, InWords):
        does = {"contrast": "makes heads of its own", "battery": "asks a model"}
        what = does.get(section.method, "asks the models that rewards names")
        raise InputError(
            f"judge: {section.judge!r} names fitted heads, and method {section.method} {what}; say judge=self"
            f"{'' if isinstance(section, ByReward) else ', or name a model'}"
        )
    if said := section.said:
        raise InputError(
            f"judge: {section.judge!r} names fitted heads, which read no {' or '.join(said)}; leave that out or say "
            f"method=probe alone, or name a model (judge=self: the recipe's)"
        )
    return ByProbe(kind="probe", judge=section.judge)


def heads_folder(name: str) -> Path | None:
    """The folder of fitted heads that `name` means, shipped or the user's own; None when it means something else."""
    for folder in (SHIPPED_HEADS / name, Path(name)):
        if (folder / "heads.safetensors").is_file():
            return folder
    return None


def shipped_heads() -> list[str]:
    """Names of the heads that ship with the package."""
    return sorted(path.parent.name for path in SHIPPED_HEADS.glob("*/heads.safetensors"))


def fitted_heads(name: str) -> Heads:
    """The heads in the folder that `name` means."""
    folder = heads_folder(name)
    if folder is None:
        shipped = ", ".join(shipped_heads())
        raise InputError(f"judge: {name!r} holds no fitted heads; shipped: {shipped}; `spa fit-judge` makes them")
    return read_heads(folder)
