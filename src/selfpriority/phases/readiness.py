"""Whether this machine has what a recipe asks for, as far as that can be known before any work.

Packages, variables, GPUs, folders of heads and, where the hub must not be asked, models. Opens no model and fetches
none, so that a plan may ask too; all that is missing is told at once. A judge in Python is imported, which runs its
module.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from selfpriority.backends.engine import vllm_version
from selfpriority.backends.http import key_variable
from selfpriority.errors import InputError
from selfpriority.judges.heads import Heads
from selfpriority.judges.python import judging_function
from selfpriority.models.files import described, out_of_reach
from selfpriority.personas import load_personas
from selfpriority.phases.judge_names import comparing, fitted_heads, named_model, own_function
from selfpriority.recipe import (
    Align,
    Backend,
    ByBattery,
    ByContrast,
    ByProbe,
    ByPython,
    ByReward,
    InWords,
    JudgeSection,
    OpenaiBackend,
    RayBackend,
    Recipe,
    VllmBackend,
    branch_of,
    engine_of,
    trained_systems,
)
from selfpriority.training.extras import missing_extras


@dataclass(frozen=True)
class _Probe:
    """A judge by fitted heads, and what its folder holds."""

    place: str
    section: ByProbe
    heads: Heads | None
    why: str
    """There are none; empty where there are."""


@dataclass(frozen=True)
class _Opened:
    """A model whose weights are opened on this machine."""

    place: str
    name: str


@dataclass(frozen=True)
class _Training:
    """A training, and what stands before its fields in a message."""

    prefix: str
    settings: Align


@dataclass(frozen=True)
class Ahead:
    """What is left to do, beside asking judges."""

    collects: bool = True
    trains: bool = True
    evaluates: bool = True
    elsewhere: bool = False
    """Nothing will be done on this machine, so nothing has to be here or to be fetched."""


def check_ready(recipe: Recipe, objectives: tuple[str, ...], ahead: Ahead) -> None:
    """Looks for everything that the steps of a run will need.

    Args:
        recipe: with absolute paths, its judges as they are meant.
        objectives: of its constitution.
        ahead: what is done needs nothing any more.

    Raises:
        InputError: one line for everything that is missing: field, value, remedy.
    """
    ahead = ahead if recipe.pairs is None else replace(ahead, collects=False)  # what is there already asks nobody
    probes = list(_probes(recipe))
    lines = [
        *_judges(recipe, probes, objectives),
        *_keys(recipe, ahead),
        *_engines(recipe, ahead),
        *_models(recipe, probes, ahead),
    ]
    lines += _openings(recipe) if ahead.collects else ()
    for training in _trainings(recipe) if ahead.trains else ():
        lines += [f"{training.prefix}{line}" for line in missing_extras(training.settings)]
    if lines:
        raise InputError(*dict.fromkeys(lines))


def roles(recipe: Recipe) -> dict[str, JudgeSection]:
    """Place in the recipe -> every judge that will be asked."""
    found = {"score": recipe.score.judge} if recipe.pairs is None else {}
    if recipe.evaluate.prompts is None:
        return found
    found["evaluate"] = recipe.evaluate.judge
    found |= {f"evaluate.more_judges.{name}": judge for name, judge in recipe.evaluate.more_judges.items()}
    comparer = comparing(recipe)
    return found if comparer is None else {**found, "evaluate.comparer": comparer}


def _probes(recipe: Recipe) -> Iterator[_Probe]:
    for place, section in roles(recipe).items():
        if isinstance(section, ByProbe):
            try:
                yield _Probe(place, section, fitted_heads(section.judge), "")
            except InputError as error:
                yield _Probe(place, section, None, error.lines[0])


def _judges(recipe: Recipe, probes: Sequence[_Probe], objectives: tuple[str, ...]) -> Iterator[str]:
    """What is missing in folders of heads, and objectives that nobody rates."""
    for probe in probes:
        if probe.heads is None:
            yield f"{probe.place}: {probe.why}"
        elif missing := [name for name in objectives if name not in probe.heads.by_objective]:
            yield (
                f"{probe.place}.judge: {probe.section.judge}: no fitted head for {', '.join(missing)}; there are heads "
                f"for {', '.join(probe.heads.by_objective) or 'nothing'}; `spa fit-judge` fits them to labelled answers"
            )
    for place, section in roles(recipe).items():
        if isinstance(section, ByReward) and (missing := [name for name in objectives if name not in section.rewards]):
            yield f"{place}.rewards: no model for {', '.join(missing)}; name a sequence classifier of one label"
    for place, section in roles(recipe).items():
        if isinstance(section, ByPython):
            try:
                judging_function(own_function(section))
            except InputError as error:
                yield f"{place}.judge: {error.lines[0]}"


def _openings(recipe: Recipe) -> Iterator[str]:
    """Answers that are begun for the model, where it would begin them itself."""
    if not isinstance(recipe.backend, OpenaiBackend):
        return
    with contextlib.suppress(InputError):  # of the personas themselves; told where they are looked at alone
        if any(persona.opening for persona in load_personas(recipe.sample.personas)):
            yield (
                f"sample.personas: {recipe.sample.personas} holds openings, and the server at "
                f"{recipe.backend.base_url} goes on from none; use personas without them, or backend.kind=hf"
            )


def _keys(recipe: Recipe, ahead: Ahead) -> Iterator[str]:
    for place, backend in _servers(recipe, ahead).items():
        variable = key_variable(backend)
        if variable and not os.environ.get(variable, "").strip():
            yield (
                f"{place}.api_key_env: ${variable}, the key for {backend.base_url}, is not set; export {variable}=..., "
                f"or name the variable that holds it"
            )


def _engines(recipe: Recipe, ahead: Ahead) -> Iterator[str]:
    """Interpreters without vLLM where an engine will be started, and no Ray where there shall be replicas."""
    is_answering = ahead.collects or (ahead.evaluates and recipe.evaluate.prompts is not None)
    for place, each in _backends(recipe, is_answering).items():
        if isinstance(each, RayBackend) and importlib.util.find_spec("ray") is None:
            yield f"{place}.kind: ray: Ray is not installed; pip install 'selfpriority[ray]' on all nodes"
        backend = engine_of(each) if each else None
        if isinstance(backend, VllmBackend):
            try:
                vllm_version(backend.python or sys.executable)
            except InputError as error:
                yield f"{place}.{error.lines[0].removeprefix('backend.')}"


def _servers(recipe: Recipe, ahead: Ahead) -> dict[str, OpenaiBackend]:
    """Place in the recipe -> every server that will be asked."""
    found = _backends(recipe, ahead.collects)
    return {place: backend for place, backend in found.items() if isinstance(backend, OpenaiBackend)}


def _backends(recipe: Recipe, is_answering: bool) -> dict[str, Backend | None]:
    """Place in the recipe -> whoever will be asked; the recipe's own where it answers, or a judge has no other."""
    served = {place: each for place, each in roles(recipe).items() if isinstance(each, InWords | ByBattery)}
    found: dict[str, Backend | None] = {f"{place}.backend": section.backend for place, section in served.items()}
    if is_answering or None in found.values():  # a judge without a backend of its own is asked where the recipe's is
        found = {"backend": recipe.backend, **found}
    return found


def _models(recipe: Recipe, probes: Sequence[_Probe], ahead: Ahead) -> Iterator[str]:
    """Those that run here, where they are no models, or neither are here nor can be fetched."""
    wrong: set[str] = set()
    for opened in (*_answering(recipe, ahead), *_judging(recipe, probes)):
        if not ahead.elsewhere and (why := out_of_reach(opened.name)):
            yield f"{opened.place}: {why}"
        elif opened.name not in wrong and (why := _no_model(opened.name)):
            wrong.add(opened.name)  # a model that is its own judge is one mistake
            yield f"{opened.place}: {why}"


def _no_model(name: str) -> str:
    """Why a name is no model's, without opening or fetching it; empty where nothing speaks against it."""
    try:
        described(name)
    except InputError as error:
        return error.lines[0].removeprefix("model: ")
    return ""


def _answering(recipe: Recipe, ahead: Ahead) -> Iterator[_Opened]:
    """Models that are trained or answer; only one round's candidates may come from a server."""
    is_collected_here = ahead.collects and not isinstance(recipe.backend, OpenaiBackend)
    if is_collected_here or ahead.trains or ahead.evaluates:
        yield _Opened("model", recipe.model)
    if ahead.trains and recipe.align.start is not None:
        yield _Opened("align.start", recipe.align.start)
    others = recipe.evaluate.more_systems.items() if ahead.evaluates and recipe.evaluate.prompts is not None else ()
    for name, other in others:
        if other.model != "self":
            yield _Opened(f"evaluate.more_systems.{name}.model", other.model)


def _judging(recipe: Recipe, probes: Sequence[_Probe]) -> Iterator[_Opened]:
    yield from (_Opened(f"{probe.place}.judge", probe.heads.model) for probe in probes if probe.heads is not None)
    for place, section in roles(recipe).items():
        match section:
            case ByReward():
                yield from (_Opened(f"{place}.rewards.{name}", model) for name, model in section.rewards.items())
            case ByContrast():
                yield _Opened(f"{place}.judge", named_model(section, recipe.model))
            case InWords() | ByBattery() if not isinstance(section.backend or recipe.backend, OpenaiBackend):
                yield _Opened(f"{place}.judge", named_model(section, recipe.model))


def _trainings(recipe: Recipe) -> Iterator[_Training]:
    yield _Training("", recipe.align)
    for name in trained_systems(recipe):
        place = f"evaluate.more_systems.{name}.train"
        yield _Training(f"{place}: ", branch_of(recipe, recipe.evaluate.more_systems[name].train, place).align)
