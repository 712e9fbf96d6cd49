"""A recipe that differs from another in how its training is done: what a control of the evaluation is trained by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from selfpriority.errors import InputError
from selfpriority.plain_text import shown
from selfpriority.recipe.align import SCALES
from selfpriority.recipe.file import parse
from selfpriority.recipe.recipe import Recipe

SECTIONS = ("denoise", "pair", "align")
"""What may differ: all that comes after the answers and their ratings, which the branch shares."""
VANILLA, TRAINED = "vanilla", "spa"
"""The recipe's model, and the policy that its last round trains: systems of every evaluation."""


def branch_of(recipe: Recipe, changes: Mapping[str, Any], place: str) -> Recipe:
    """The recipe with `changes` (section -> field -> value) and without an evaluation of its own.

    Raises:
        InputError: a section that may not differ, or a value that cannot be; `place` says where it was written.
    """
    for section in changes:
        if section not in SECTIONS:
            allowed = ", ".join(SECTIONS)
            raise InputError(f"{place}: {shown(section)} may not differ between systems of one run; {allowed} may")
    data = recipe.model_dump(mode="json", exclude={"evaluate"})
    align = changes.get("align")
    if isinstance(align, Mapping) and "beta" not in align:
        method = str(align.get("method", recipe.align.method))
        if SCALES.get(method) is not SCALES.get(recipe.align.method):
            del data["align"]["beta"]  # it belongs to the recipe's own method
    denoise = changes.get("denoise")
    for one, other in (("max_det", "keep_lowest"), ("keep_lowest", "max_det")):
        if isinstance(denoise, Mapping) and denoise.get(one) is not None:
            del data["denoise"][other]  # each is a reading of tau, and the recipe has written out its own
    return parse(_merged(data, changes), place)


def trained_systems(recipe: Recipe) -> list[str]:
    """Names of the systems that a run trains beside its own, in the order of the recipe."""
    return [name for name, other in recipe.evaluate.more_systems.items() if other.train]


def merged_systems(recipe: Recipe) -> dict[str, dict[str, float]]:
    """System -> what it is merged of and how much of each, of those that are, in the order of the recipe."""
    return {name: other.merge for name, other in recipe.evaluate.more_systems.items() if other.merge}


def in_order(recipe: Recipe) -> list[str]:
    """The same names, each behind the one that it starts from.

    Raises:
        InputError: one starts from a system that is not trained here, or from itself in the end.
    """
    names = trained_systems(recipe)
    ordered: list[str] = []
    for name in names:
        way = [name]
        while (start := recipe.evaluate.more_systems[way[-1]].start) not in (None, TRAINED, *ordered):
            place = f"evaluate.more_systems.{way[-1]}.start"
            if start not in names:
                raise InputError(f"{place}: {shown(start)} is not trained by this run; {_trained_here(names)}")
            if start in way:
                raise InputError(f"{place}: {shown(start)} starts from {way[-1]} itself; let one start from the model")
            way.append(str(start))
        ordered += [step for step in reversed(way) if step not in ordered]
    return ordered


def check_merges(recipe: Recipe) -> None:
    """Raises InputError for a system that is merged of one that is not trained here."""
    names = trained_systems(recipe)
    for name, parts in merged_systems(recipe).items():
        for part in parts:
            if part not in (TRAINED, *names):
                place = f"evaluate.more_systems.{name}.merge"
                raise InputError(f"{place}: {shown(part)} is not trained by this run; {_trained_here(names)}")


def _trained_here(names: Sequence[str]) -> str:
    return f"it trains {', '.join([TRAINED, *names])}"


def _merged(data: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`data` with `changes` in it, mappings within mappings."""
    merged = dict(data)
    for name, value in changes.items():
        inner = merged.get(name)
        if isinstance(value, Mapping) and isinstance(inner, Mapping):
            merged[name] = _merged(inner, value)
        else:
            merged[name] = value
    return merged
