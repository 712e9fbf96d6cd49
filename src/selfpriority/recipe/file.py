"""A recipe's YAML file: read with `FIELD=VALUE` overrides, and written with every default visible.

A mistake is an `InputError`: file, field, value, remedy.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from selfpriority.errors import InputError
from selfpriority.outside import parse_yaml, read_text
from selfpriority.plain_text import shown
from selfpriority.recipe.align import SCALES
from selfpriority.recipe.judge import JudgeSection
from selfpriority.recipe.mistakes import mistake_lines
from selfpriority.recipe.recipe import Recipe

_JUDGE: TypeAdapter[JudgeSection] = TypeAdapter(JudgeSection)
_MOST_MISTAKES = 20
"""That are told at once."""


def load(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML file with `FIELD=VALUE` overrides (dotted paths) applied.

    Args:
        path: of the file.
        overrides: as `align.beta=2.5`.

    Raises:
        InputError: one line per mistake: file, field, value, what is allowed; or a beta in the file is that of another
            method than the overrides name.

    Examples:
        >>> load_recipe("my.yaml", ["sample.n=16"]).sample.n
        16
    """
    data = read_yaml(Path(path))
    written = data.get("align")
    for override in overrides:
        set_field(data, override)
    recipe = parse(data, str(path), overrides)
    if not {"align", "align.beta"} & {override.partition("=")[0] for override in overrides}:
        _check_beta(written, recipe.align.method, str(path))
    return recipe


def _check_beta(written: Any, method: str, name: str) -> None:
    """Whether `method`, once overrides are applied, can take over the beta that is written in the file for its method.

    A file names both, so what it says is meant; an override that names the method alone has not seen the beta.
    """
    if not isinstance(written, dict) or "beta" not in written:
        return
    was, scale = str(written.get("method", "spa")), SCALES.get(method)
    if scale is None or scale is SCALES.get(was):
        return
    if was not in SCALES and written["beta"] == scale.default:  # a method without a beta writes the usual one out
        return
    low, high = scale.usual
    raise InputError(
        f"{name}: align.beta: {shown(written['beta'])} is written for method {was}; {method} has another scale "
        f"({scale.of}, {low:g} to {high:g}): add align.beta={scale.default:g}, or the value you mean"
    )


def parse(data: object, name: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in parsed YAML.

    Args:
        data: of the file, with its overrides set.
        name: what error messages call it.
        overrides: these; a number among them that a text field was given is the text as it was written.
    """
    if not isinstance(data, dict):
        raise InputError(f"{name}: a recipe is a mapping of fields, this is {type(data).__name__}")
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        texts = [override for override in overrides if _is_text(override, data, error)]
        if not texts:
            raise _wrong(mistake_lines(error, name, Recipe, data)) from None
    for override in texts:
        path, _, value = override.partition("=")
        set_field(data, f"{path}={json.dumps(value)}")
    return parse(data, name)


def _is_text(override: str, data: dict[str, Any], error: ValidationError) -> bool:
    """Whether an override gave a number to a field of text: quotes that YAML asks for are gone in a shell."""
    *parents, last = override.partition("=")[0].split(".")
    value: Any = data
    for name in (*parents, last):
        value = value.get(name) if isinstance(value, dict) else None
    return isinstance(value, int | float) and any(
        problem["type"] == "string_type"
        and problem["loc"][-1] == last
        and problem["loc"][0] == (*parents, last)[0]
        and problem["input"] == value
        for problem in error.errors()
    )


load_recipe = load
"""Its name in the package, where `load` would not say what is loaded."""


def parse_judge(data: object, name: str) -> JudgeSection:
    """One judge in parsed YAML; `name` is what error messages call it."""
    try:
        return _JUDGE.validate_python(data)
    except ValidationError as error:
        raise _wrong(mistake_lines(error, name, JudgeSection)) from None


def _wrong(lines: Iterator[str]) -> InputError:
    """The first of the mistakes, each told once."""
    told = dict.fromkeys(islice(lines, _MOST_MISTAKES))
    more = ["there are more mistakes than these"] if next(lines, None) is not None else []
    return InputError(*told, *more)


def dump(recipe: Recipe) -> str:
    """The recipe as YAML with every default visible."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a recipe file.

    Raises:
        InputError: the file cannot be read or is no mapping: file, line, what is wrong.
    """
    text = read_text(path, "no such recipe; `spa recipes` lists those that ship")
    data = parse_yaml(text, str(path))
    if data is None:
        raise InputError(f"{path}: the recipe is empty; `spa recipes demo` prints one to start from")
    if not isinstance(data, dict):
        raise InputError(f"{path}: a recipe is a mapping of fields, this is {type(data).__name__}")
    return data


def set_field(data: dict[str, Any], override: str) -> None:
    """Sets one `FIELD=VALUE`, a dotted path and a YAML value, in place.

    Raises:
        InputError: it is not of that form.
    """
    path, equals, value = override.partition("=")
    if not equals or not path:
        raise InputError(f"{shown(override)}: overrides are FIELD=VALUE, for example align.beta=2.5")
    *parents, last = path.split(".")
    for parent in parents:
        inner = data.get(parent)
        short = {"judge" if parent == "judge" else "source": inner} if isinstance(inner, str) else {}
        data[parent] = dict(inner) if isinstance(inner, dict) else short
        data = data[parent]
    data[last] = parse_yaml(value, f"{path}: {shown(value)}")
