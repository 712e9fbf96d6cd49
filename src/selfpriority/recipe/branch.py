"""A recipe that differs from another in how its training is done: what a control of the evaluation is trained by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selfpriority.errors import InputError
from selfpriority.plain_text import shown
from selfpriority.recipe.align import SCALES
from selfpriority.recipe.file import parse
from selfpriority.recipe.recipe import Recipe

SECTIONS = ("denoise", "pair", "align")
"""What may differ: all that comes after the answers and their ratings, which the branch shares."""


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
