"""Objectives in order of priority, with their text, scale and anchors: shipped, or a user's folder.

A folder holds `constitution.yaml` and the anchor files it lists. Knows nothing of models.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from selfpriority.errors import InputError
from selfpriority.outside import parse_yaml, read_text, written_rows

_MOST_MISTAKES = 20
SHIPPED = Path(str(files("selfpriority"))) / "text" / "constitutions"


class Objective(BaseModel):
    """One thing to want: its name, what it means, its scale and the question a judge is asked.

    Raises:
        ValidationError: a field is missing, unknown or empty, or the name is not of `a-z0-9_-`.

    Examples:
        >>> first = load_constitution("harmless-helpful").objectives[0]
        >>> first.name, sorted(first.rubric)[-1]
        ('harmlessness', 10)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    definition: str = Field(min_length=1)
    rubric: dict[int, str]
    question: str = Field(min_length=1)
    question_reworded: str = Field(min_length=1)

    @property
    def levels(self) -> list[tuple[int, str]]:
        """The rubric's levels and what each means, the worst first."""
        return sorted(self.rubric.items())


class Anchor(BaseModel):
    """A labelled example for `check-judge`: one prompt with a good, a useless and a bad answer.

    Raises:
        ValidationError: a field is missing, unknown or empty.

    Examples:
        >>> anchor = load_constitution("harmless-helpful").anchors[0]
        >>> anchor.violates in ("harmlessness", "helpfulness")
        True
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    domain: str
    kind: str
    violates: str
    """The objective the bad answer violates; good and useless answers meet it."""
    prompt: str = Field(min_length=1)
    good: str = Field(min_length=1)
    useless: str = Field(min_length=1)
    bad: str = Field(min_length=1)


@dataclass(frozen=True)
class Constitution:
    """Objectives, most important first, and their anchors.

    Examples:
        >>> constitution = load_constitution("honest-helpful")
        >>> constitution.names
        ('honesty', 'helpfulness')
        >>> constitution.text.splitlines()[0].partition(":")[0]
        '1. Honesty'
    """

    name: str
    summary: str
    objectives: tuple[Objective, ...]
    anchors: tuple[Anchor, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Objective names in priority order."""
        return tuple(objective.name for objective in self.objectives)

    @cached_property
    def text(self) -> str:
        """The constitution as it stands in a model's prompt."""
        return "\n".join(
            f"{rank}. {objective.name.capitalize()}: {objective.definition.strip()}"
            for rank, objective in enumerate(self.objectives, start=1)
        )


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    summary: str
    objectives: tuple[Objective, ...] = Field(min_length=2)
    anchors: tuple[str, ...] = ()


def shipped_constitutions() -> list[str]:
    """Names of the constitutions that ship with the package.

    Examples:
        >>> shipped_constitutions()
        ['harmless-helpful', 'harmless-honest-helpful', 'honest-helpful']
    """
    return sorted(path.parent.name for path in SHIPPED.glob("*/constitution.yaml"))


def load_constitution(name: str) -> Constitution:
    """The constitution of a shipped name or a folder.

    Args:
        name: one of `shipped_constitutions()`, or a path.

    Raises:
        InputError: no such constitution, or its file is malformed (file and field named).

    Examples:
        >>> load_constitution("harmless-helpful").names
        ('harmlessness', 'helpfulness')
        >>> load_constitution("harmles-helpful")
        Traceback (most recent call last):
        selfpriority.errors.InputError: ...did you mean harmless-helpful?
    """
    folder = SHIPPED / name if (SHIPPED / name).is_dir() else Path(name)
    path = folder / "constitution.yaml"
    if not path.is_file():
        close = difflib.get_close_matches(name, shipped_constitutions(), n=1, cutoff=0.4)
        hint = f"did you mean {close[0]}?" if close else f"shipped: {', '.join(shipped_constitutions())}"
        raise InputError(f"constitution: {name!r} is neither shipped nor a folder with constitution.yaml; {hint}")
    try:
        content = _File.model_validate(parse_yaml(read_text(path), str(path)))
    except ValidationError as error:
        told = [f"{path}: {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:_MOST_MISTAKES]]
        raise InputError(*told) from None
    names = [objective.name for objective in content.objectives]
    if len(set(names)) != len(names):
        raise InputError(f"{path}: objective names must differ, got {', '.join(names)}")
    anchors = tuple(anchor for file in content.anchors for anchor in _read_anchors(folder / file))
    for anchor in anchors:
        if anchor.violates not in names:
            raise InputError(f"{path}: anchor {anchor.id} violates {anchor.violates!r}, none of {', '.join(names)}")
    return Constitution(content.name, content.summary, content.objectives, anchors)


def _read_anchors(path: Path) -> list[Anchor]:
    anchors = []
    for row in written_rows(path, read_text(path, "no such anchor file, named by its constitution.yaml")):
        try:
            anchors.append(Anchor.model_validate(row.value))
        except ValidationError as error:
            raise InputError(f"{row.place}: not an anchor: {' '.join(str(error).split())[:200]}") from None
    return anchors
