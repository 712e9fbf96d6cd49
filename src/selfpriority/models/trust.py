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
    """Raises InputError for the model `name` in a folder that asks for code of its own, which nobody trusts.

    Where transformers has the class itself, that is used, and the code that came along is never looked at.
    """
    asks = None if _trusted else names_code(folder)
    if asks and not _is_known(folder, asks):
        raise InputError(
            f"model: {name}: {asks}, which runs code that comes with the model; read that code, and if you trust it "
            f"set trust_remote_code: true in the recipe (of `spa fit-judge`: --trust-remote-code)"
        )


def _is_known(folder: Path, asks: str) -> bool:
    """Whether transformers can open what the file is about without the code."""
    import transformers  # slow, and nearly no model names code

    if asks.startswith("adapter_config.json"):
        return False
    told = {
        path.name: json_object(path)
        for path in (folder / "config.json", folder / "tokenizer_config.json")
        if path.is_file()
    }
    kind = str(told.get("config.json", {}).get("model_type"))
    tokenizer = told.get("tokenizer_config.json", {})
    has_class = hasattr(transformers, str(tokenizer.get("tokenizer_class"))) or not tokenizer.get("auto_map")
    return kind in transformers.CONFIG_MAPPING and has_class


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
