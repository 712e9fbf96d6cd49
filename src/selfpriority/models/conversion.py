"""`python -m selfpriority.models.conversion FILE FOLDER`: a GGUF file as safetensors, in float32, with its tokenizer.

A program of its own, for what it loads shall leave memory with it. Knows no names.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from selfpriority.models.weights import save_tokenizer


def convert(gguf: Path, folder: Path) -> None:
    """Writes the model in the file `gguf` to `folder`."""
    source: dict[str, Any] = {
        "pretrained_model_name_or_path": str(gguf.parent),
        "gguf_file": gguf.name,
        "trust_remote_code": False,
    }
    config = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32, quantization_config=config)
    model.save_pretrained(folder)
    for described in (folder / "config.json", folder / "generation_config.json"):
        _without_version(described)
    save_tokenizer(AutoTokenizer.from_pretrained(**source), folder)


def _without_version(described: Path) -> None:
    """The same weights are the same model, whichever version of the library wrote them out."""
    if described.exists():
        values = json.loads(described.read_text(encoding="utf-8"))
        values.pop("transformers_version", None)
        described.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
