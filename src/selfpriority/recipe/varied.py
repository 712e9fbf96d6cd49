"""Ablations: a system for each of several values of a field, `FIELD=V1,V2`; of several fields, for each combination.

Written as overrides of `evaluate.more_systems`, so that a varied field is trained, kept and compared as any system.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from selfpriority.errors import InputError
from selfpriority.outside import parse_yaml
from selfpriority.plain_text import shown
from selfpriority.recipe.branch import branch_of
from selfpriority.recipe.recipe import Recipe

_SWITCHES = {"False": "off", "True": "on", "None": "none"}


@dataclass(frozen=True)
class _Choice:
    """One value of one field."""

    section: str
    path: tuple[str, ...]
    """Below the section."""
    value: Any

    @property
    def said(self) -> str:
        """The value in a recipe's words."""
        return _SWITCHES.get(str(self.value), str(self.value))

    @property
    def name(self) -> str:
        """Its part of a system's name."""
        return re.sub(r"[^a-z0-9]+", "_", "_".join([*self.path, self.said]).lower()).strip("_")

    @property
    def title(self) -> str:
        """Its part of a system's title."""
        return f"{'.'.join([self.section, *self.path])} = {self.said}"


def varied(recipe: Recipe, asked: Sequence[str]) -> list[str]:
    """The overrides that add a system for every combination of values but the recipe's own, which is `spa`.

    Args:
        recipe: whose fields are varied.
        asked: `FIELD=V1,V2` each, FIELD a dotted path into `denoise`, `pair` or `align`.

    Raises:
        InputError: not of that form, a field that may not differ, a value that cannot be, or nothing that differs.
    """
    _check_apart(asked)
    own = branch_of(recipe, {}, "")
    found: dict[str, str] = {}
    for choices in product(*map(_choices, asked)):
        changes = _changes(choices)
        titles = ", ".join(choice.title for choice in choices)
        if branch_of(recipe, changes, f"--vary {titles}") != own:
            name = "_".join(choice.name for choice in choices)
            found[name] = json.dumps({"title": titles, "train": changes})
    if asked and not found:
        raise InputError(f"--vary {' '.join(map(shown, asked))}: nothing differs from the recipe, which is `spa`")
    return [f"evaluate.more_systems.{name}={fields}" for name, fields in found.items()]


def _check_apart(asked: Sequence[str]) -> None:
    """Raises InputError for a field that is varied twice, or within another."""
    fields = [each.partition("=")[0] for each in asked]
    for number, field in enumerate(fields):
        for other in fields[:number]:
            if f"{field}.".startswith(f"{other}.") or f"{other}.".startswith(f"{field}."):
                raise InputError(f"--vary {shown(field)}: {shown(other)} is varied already; give all its values once")


def _choices(asked: str) -> list[_Choice]:
    field, equals, values = asked.partition("=")
    section, *path = field.split(".")
    if not equals or not path or not values.strip():
        raise InputError(f"--vary {shown(asked)}: FIELD=V1,V2 is meant, for example pair.margin=0.5,1,2")
    return [_Choice(section, tuple(path), value) for value in _values(asked, values)]


def _values(asked: str, values: str) -> Iterator[Any]:
    listed = parse_yaml(f"[{values}]", f"--vary {shown(asked)}")
    for value in listed if isinstance(listed, list) else ():
        if isinstance(value, dict | list):
            raise InputError(f"--vary {shown(asked)}: a value is a number or a word")
        yield value


def _changes(choices: Sequence[_Choice]) -> dict[str, Any]:
    """The values as an entry's `train`: section -> field -> value."""
    changes: dict[str, Any] = {}
    for choice in choices:
        inner = changes.setdefault(choice.section, {})
        for name in choice.path[:-1]:
            inner = inner.setdefault(name, {})
        inner[choice.path[-1]] = choice.value
    return changes
