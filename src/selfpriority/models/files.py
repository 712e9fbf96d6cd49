"""What the name of a model means: an embedded model, a folder, or a hub id, and where its files lie.

Knows file names and the hub's local cache; opens no weights.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from pathlib import Path

from selfpriority.errors import InputError
from selfpriority.models.embedded import EMBEDDED, conversion, converted, find_gguf

WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "adapter_model*.bin")
DESCRIPTION = ("*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def resolve(name: str) -> str:
    """The folder or hub id that `name` means, its files on this machine: what `from_pretrained` takes.

    An embedded name is converted to safetensors once, or fetched from the hub without its package.
    A hub id is fetched unless the hub's cache holds it, and stays an id.

    Raises:
        InputError: nothing of that name, a folder without a model, or a hub id that cannot be fetched.
    """
    if name in EMBEDDED:
        return _resolve_embedded(name)
    path = Path(name).expanduser()
    if path.is_dir():
        missing = _missing(path)
        if missing:
            raise InputError(f"model: folder {name} has no {missing}; a model folder holds config.json and its weights")
        return str(path)
    if path.exists():
        raise InputError(f"model: {name} is a file; give the folder of a model, a hub id or an embedded name")
    if _HUB_ID.fullmatch(name):
        return _fetched(name)
    raise InputError(f"model: {name!r} is no folder, hub id (owner/name) or embedded name; {_nearest(name)}")


def described(name: str) -> dict[str, str] | None:
    """Where the configuration and tokenizer of `name` lie on this machine, as arguments of `from_pretrained`.

    Nothing is fetched and nothing converted; of an adapter it is its base's. None: they are not here, as of a hub id
    that was never fetched (its `config.json` and tokenizer alone would do).

    Raises:
        InputError: nothing of that name, or a folder without a model.
    """
    if name in EMBEDDED:
        gguf = find_gguf(EMBEDDED[name])
        if gguf is None:
            return described(EMBEDDED[name].hub_id)
        target = conversion(name, gguf)
        if target.is_dir():
            return {"pretrained_model_name_or_path": str(target)}
        return {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    is_hub_id = _HUB_ID.fullmatch(name) and not Path(name).exists()
    folder = _in_hub_cache(name) if is_hub_id else Path(resolve(name))
    if folder is None or not (folder / "config.json").is_file():
        base = adapter_base(folder) if folder else None
        return described(base) if base else None
    return {"pretrained_model_name_or_path": str(folder)}


def embedded_models() -> list[str]:
    """Names of the embedded models."""
    return sorted(EMBEDDED)


def adapter_base(folder: Path) -> str | None:
    """Name of the base model if `folder` holds a peft adapter, else None."""
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"model: {folder / 'adapter_config.json'}: not JSON: {error}") from None
    base = config.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise InputError(f"model: {folder / 'adapter_config.json'} names no base_model_name_or_path")
    return base


def _resolve_embedded(name: str) -> str:
    embedded = EMBEDDED[name]
    gguf = find_gguf(embedded)
    if gguf is not None:
        return str(converted(name, gguf))
    try:
        return _fetched(embedded.hub_id)
    except InputError as error:
        raise InputError(*error.lines, f"model: {name} also comes with the package {embedded.distribution}") from error


def _missing(folder: Path) -> str:
    """What keeps `folder` from being a model, or an empty string."""
    if (folder / "adapter_config.json").is_file():
        return "" if any(folder.glob("adapter_model*")) else "adapter_model.safetensors"
    if not (folder / "config.json").is_file():
        return "config.json"
    for index in sorted(folder.glob("*.index.json")):
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        lost = sorted(shard for shard in shards if not (folder / shard).is_file())
        return lost[0] if lost else ""
    return "" if matching(folder, WEIGHTS) else "weights (model.safetensors)"


def _nearest(name: str) -> str:
    close = difflib.get_close_matches(name.lower(), EMBEDDED, n=1, cutoff=0.4)
    return f"did you mean {close[0]}?" if close else f"embedded: {', '.join(EMBEDDED)}"


def _fetched(hub_id: str) -> str:
    """`hub_id`, its files in the hub's local cache."""
    if snapshot(hub_id) is None:
        _download(hub_id)
    return hub_id


def _download(hub_id: str) -> None:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(hub_id, allow_patterns=[*DESCRIPTION, "*.safetensors"]))
        if _missing(folder):  # an older repository, without safetensors
            folder = Path(snapshot_download(hub_id, allow_patterns=[*DESCRIPTION, *WEIGHTS]))
    except Exception as error:  # OSError, ValueError, or what the hub's HTTP library of the day raises
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise InputError(f"model: {hub_id} is no folder here, and the hub did not give it: {reason}") from error
    missing = _missing(folder)
    if missing:
        raise InputError(f"model: hub repository {hub_id} has no {missing}")


def snapshot(hub_id: str) -> Path | None:
    """The complete local snapshot of a hub id."""
    folder = _in_hub_cache(hub_id)
    return None if folder is None or _missing(folder) else folder


def _in_hub_cache(hub_id: str) -> Path | None:
    """What there is of a hub id on this machine, complete or not."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub_id, local_files_only=True))
    except (OSError, ValueError):  # not there, or no hub id at all
        return None


def matching(folder: Path, patterns: Iterable[str]) -> list[Path]:
    """Files of a folder by name patterns, each once, in order."""
    return sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})
