"""What is wrong with a recipe, one line a mistake. Knows pydantic's errors and none of the fields."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from selfpriority.plain_text import shown


@dataclass(frozen=True)
class _Place:
    """A place in a recipe."""

    names: tuple[str, ...]
    """The fields on the way, without the kinds that pydantic puts between a field and the fields in it."""
    fields: dict[str, FieldInfo]
    """What a section here may hold."""


def mistake_lines(error: ValidationError, name: str, root: Any, given: object = None) -> Iterator[str]:
    """One line a mistake: what `name` calls the recipe, field, what is allowed and what was given.

    `root` is the section, or the kinds of section, that was validated; its fields are what an unknown name is compared
    with. `given` is what was validated: a judge that is spelled flat in it is not told of as a section of its own. What
    a field with `repr=False` was given is never quoted.
    """
    for problem in _of_fields(root, error):
        location = [str(part) for part in problem["loc"]]
        field = ".".join(_as_given(_place(root, location).names, given))
        value = problem["input"]
        fields = _place(root, location[:-1]).fields
        if problem["type"] == "extra_forbidden":
            known = list(fields)
            initials = [name for name in known if location[-1] == "".join(word[0] for word in name.split("_"))]  # lr
            close = initials or difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
            yield f"{name}: {field}: unknown field; {hint}"
        elif problem["type"] == "missing":
            yield f"{name}: {field}: required field is missing"
        elif problem["type"] == "union_tag_invalid":
            yield f"{name}: {field}.kind: {shown(problem['ctx']['tag'])} is none of {problem['ctx']['expected_tags']}"
        else:
            message = problem["msg"].removeprefix("Value error, ")
            info = fields.get(location[-1]) if location else None
            if info is not None and not info.repr:  # it may hold a secret by mistake
                yield f"{name}: {field}: {message} ({info.description})"
                continue
            got = "" if isinstance(value, dict) else f" (got {shown(value)})"
            yield f"{name}: {field}: {message}{got}"


def _as_given(names: Sequence[str], given: object) -> Iterator[str]:
    """The names as somebody wrote them who spelled the fields of `judge` beside it."""
    for number, part in enumerate(names):
        inner = given.get(part) if isinstance(given, dict) else None
        is_flat = part == "judge" and isinstance(given, dict) and not isinstance(inner, dict)
        if not is_flat or number == len(names) - 1:
            yield part
        given = inner


def _of_fields(root: Any, error: ValidationError) -> list[dict[str, Any]]:
    """The mistakes, those that pydantic tells of each form that one field may take put together."""
    told: dict[tuple[Any, ...], dict[str, Any]] = {}
    for number, problem in enumerate(error.errors()):
        place = problem["loc"]
        names = [str(part) for part in place]
        of_form = (k for k in range(1, len(names)) if _has_forms(_place(root, names[: k - 1]).fields.get(names[k - 1])))
        if (end := next(of_form, None)) is not None:
            place = place[:end]
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


def _place(root: Any, location: Sequence[str]) -> _Place:
    """The place that pydantic's `location` means."""
    sections, names, is_entry = _classes(root), [], False
    for part in location:
        of_kind = [section for section in sections if _kind(section) == part]
        if len(sections) > 1 and of_kind and not is_entry:
            sections = of_kind
            continue
        names.append(part)
        if is_entry:  # a name of the user's own, which is of the section that all entries are of
            is_entry = False
            continue
        found = [section.model_fields[part].annotation for section in sections if part in section.model_fields]
        is_entry = any(get_origin(annotation) is dict for annotation in found)
        sections = [inner for annotation in found for inner in _classes(annotation)] or sections
    return _Place(tuple(names), sections[0].model_fields)


def _kind(section: type[BaseModel]) -> str | None:
    field = section.model_fields.get("kind")
    kinds = () if field is None else get_args(field.annotation)  # a field of any text tells no kinds apart
    return kinds[0] if kinds else None


def _classes(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in _classes(part)]
