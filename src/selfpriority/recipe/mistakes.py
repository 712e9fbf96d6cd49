"""What is wrong with a recipe, one line a mistake. Knows pydantic's errors and none of the fields."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

KINDS = ("hf", "scripted", "openai")
"""Kinds of backend, which pydantic puts between a field and the fields in it."""


def mistake_lines(error: ValidationError, name: str, root: type[BaseModel]) -> Iterator[str]:
    """One line a mistake: what `name` calls the recipe, field, what is allowed and what was given.

    `root` is the class that was validated; its fields are what an unknown name is compared with. What a field with
    `repr=False` was given is never quoted.
    """
    for problem in _of_fields(root, error):
        location = [str(part) for part in problem["loc"]]
        field = ".".join(part for part in location if part not in KINDS)
        value = problem["input"]
        fields = _fields_at(root, location[:-1])
        if problem["type"] == "extra_forbidden":
            known = list(fields)
            initials = [name for name in known if location[-1] == "".join(word[0] for word in name.split("_"))]  # lr
            close = initials or difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
            yield f"{name}: {field}: unknown field; {hint}"
        elif problem["type"] == "missing":
            yield f"{name}: {field}: required field is missing"
        else:
            message = problem["msg"].removeprefix("Value error, ")
            info = fields.get(location[-1]) if location else None
            if info is not None and not info.repr:  # it may hold a secret by mistake
                yield f"{name}: {field}: {message} ({info.description})"
                continue
            shown = "" if isinstance(value, dict) else f" (got {value!r})"
            yield f"{name}: {field}: {message}{shown}"


def _of_fields(root: type[BaseModel], error: ValidationError) -> list[dict[str, Any]]:
    """The mistakes, those that pydantic tells of each form that one field may take put together."""
    told: dict[tuple[Any, ...], dict[str, Any]] = {}
    for number, problem in enumerate(error.errors()):
        place = problem["loc"]
        if len(place) > 1 and _has_forms(_fields_at(root, [str(part) for part in place[:-2]]).get(str(place[-2]))):
            place = place[:-1]
            if place in told:
                told[place]["msg"] += f"; or: {problem['msg']}"
                continue
            told[place] = {**problem, "loc": place}
        else:
            told[(*place, number)] = dict(problem)
    return list(told.values())


def _has_forms(field: FieldInfo | None) -> bool:
    """Whether it takes values of several forms, none of them a section."""
    kind = None if field is None else field.annotation
    return get_origin(kind) in (Union, UnionType) and not _classes(kind)


def _fields_at(root: type[BaseModel], location: Sequence[str]) -> dict[str, FieldInfo]:
    """The fields that a section has."""
    sections = [root]
    for part in location:
        inner = [c for s in sections if part in s.model_fields for c in _classes(s.model_fields[part].annotation)]
        if inner:
            sections = inner
        elif part in KINDS:
            sections = [s for s in sections if get_args(s.model_fields["kind"].annotation) == (part,)]
        # else the name of an entry, which is of the section that all entries are of
    return sections[0].model_fields


def _classes(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in _classes(part)]
