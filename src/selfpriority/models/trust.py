"""Whether code that comes with a model may run here: not unless the recipe says `trust_remote_code: true`.

One answer for the whole process, which follows one recipe. Knows which fields of a model's files name code.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from selfpriority.errors import InputError
from selfpriority.outside import read_text

_NAMES_CODE = {
    "config.json": "auto_map",
    "tokenizer_config.json": "auto_map",
    "adapter_config.json": "megatron_config",  # by which peft imports whatever `megatron_core` names
}
_trusted = False


def trust_code(trusted: bool) -> None:
    """What the recipe says from now on."""
    global _trusted
    _trusted = trusted


def code_is_trusted() -> bool:
    """What every `from_pretrained` is told."""
    return _trusted


def names_code(folder: Path) -> str | None:
    """File and field by which a model's folder asks for code that it brings or names, if it does."""
    for name, field in _NAMES_CODE.items():
        if (folder / name).is_file() and json_object(folder / name).get(field):
            return f"{name} has {field}"
    return None


def check_code(folder: Path, name: str) -> None:
    """Raises InputError for the model `name` in a folder that asks for code of its own, which nobody trusts."""
    asks = None if _trusted else names_code(folder)
    if asks:
        raise InputError(
            f"model: {name}: {asks}, which runs code that comes with the model; read that code, and if you trust it "
            f"set trust_remote_code: true in the recipe (of `spa fit-judge`: --trust-remote-code)"
        )


def json_object(path: Path) -> dict[str, Any]:
    """The object in one of a model's JSON files.

    Raises:
        InputError: it holds none.
    """
    try:
        found = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"model: {path}: not JSON: {error}") from None
    if not isinstance(found, dict):
        raise InputError(f"model: {path}: must hold a JSON object, it holds a {type(found).__name__}")
    return found
