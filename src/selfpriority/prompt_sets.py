"""Prompt sets of others by a short name: where they lie, how they are read, and what to know before reading them.

A set is a YAML file in `text/prompt_sets/`; one more file is one more set. No row of any of them ships. Asks no hub.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

from pydantic import Field, ValidationError, model_validator

from selfpriority.errors import InputError
from selfpriority.outside import parse_yaml, read_text
from selfpriority.recipe import Prompts
from selfpriority.recipe.section import Section

FOLDER = Path(str(files("selfpriority"))) / "text" / "prompt_sets"


class PromptSet(Section):
    """A set as its file has it."""

    title: str = Field(min_length=1)
    """Its name and what it holds."""
    hub: str | None = None
    """Id of the data set on the hub."""
    file: str = ""
    """Where it lies that no hub has."""
    licence: str = Field(min_length=1)
    gated: bool = False
    """Whether the hub asks who reads it: log in and accept its terms there."""
    hazard: str = ""
    """What a reader will meet."""
    column: str = "prompt"
    kind_column: str = "kind"
    kind: str = ""
    """What all its prompts are, where no column says it."""
    characters: int | None = Field(None, ge=1)
    """Of a prompt in the mean, for plans that are made without the set."""
    splits: dict[str, str | None] = Field({})
    """Split -> the configuration that has it; the first is taken where a recipe names none."""

    @model_validator(mode="after")
    def _lies_somewhere(self) -> PromptSet:
        if (self.hub is None) == (not self.file) or (self.hub is not None) != bool(self.splits):
            raise ValueError("a set has hub and splits, or file")
        return self


def prompt_sets() -> list[str]:
    """Names of the sets of others."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


@cache
def read_prompt_set(name: str) -> PromptSet:
    """The set of a name.

    Raises:
        InputError: its file is wrong.
    """
    path = FOLDER / f"{name}.yaml"
    try:
        return PromptSet.model_validate(parse_yaml(read_text(path), str(path)))
    except ValidationError as error:
        raise InputError(f"{path}: {error.errors()[0]['msg']}") from None


def written_out(source: Prompts, place: str = "prompts") -> Prompts:
    """The section with a set's hub id, split, configuration and columns in place of its name; any other as it is.

    What the recipe says of columns and configuration goes before what the set says. `place` is its section's name.

    Raises:
        InputError: the set lies on no hub, or has no such split.
    """
    if source.source not in prompt_sets():
        return source
    name, known = source.source, read_prompt_set(source.source)
    if known.hub is None:
        raise InputError(f"{place}.source: {name} lies on no hub: it is {known.file}; make that file and name it here")
    split = source.split or next(iter(known.splits))
    if split not in known.splits and source.config is None:
        raise InputError(f"{place}.split: {name} has no split {split!r}; its splits: {', '.join(known.splits)}")
    usual = Prompts(source=known.hub)
    changes: dict[str, object] = {"source": known.hub, "split": split}
    for field, value in (("column", known.column), ("kind_column", known.kind_column), ("kind", known.kind)):
        if getattr(source, field) == getattr(usual, field):
            changes[field] = value
    if source.config is None:
        changes["config"] = known.splits[split]
    return source.model_copy(update=changes)


def prompt_set_lines() -> str:
    """A line a set: name, what it holds, its splits, licence, whether it is gated, hazard."""
    found = [(name, read_prompt_set(name)) for name in prompt_sets()]
    width = max(len(name) for name, _ in found)
    return "\n".join(f"{name:{width}}  {_told(known)}" for name, known in found)


def _told(known: PromptSet) -> str:
    where = f"{known.hub}, splits {', '.join(known.splits)}" if known.hub else f"a file: {known.file}"
    gate = ["gated: accept its terms on the hub"] if known.gated else []
    return "; ".join([known.title, where, f"licence {known.licence}", *gate, *([known.hazard] if known.hazard else [])])
