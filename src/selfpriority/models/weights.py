"""Weights and tokenizer of a model from its files with transformers and peft, for answers and for training alike.

Weights that are missing, and files that cannot be read, are one line. Knows no device and no chat.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from selfpriority.errors import InputError
from selfpriority.models.files import adapter_base, resolve


@dataclass(frozen=True)
class Opened:
    """What a model's files hold."""

    model: Any
    tokenizer: Any
    source: str
    """The folder or hub id."""

    @property
    def end_ids(self) -> list[int]:
        """The end-of-sequence ids of the model's generation config."""
        config = getattr(self.model, "generation_config", None)
        return id_list(None if config is None else config.eos_token_id)


def open_model(name: str, dtype: torch.dtype, kind: Any = AutoModelForCausalLM) -> Opened:
    """The model `name`; an adapter is merged into its base in float32, then cast.

    Args:
        name: a hub id, a folder (of a model or an adapter) or an embedded name.
        dtype: of the weights.
        kind: the class of transformers.

    Raises:
        InputError: no such model, or unreadable or incomplete weights.
    """
    source = resolve(name)
    with readable(name):
        base = base_of(source)
        if base is None:
            model = _complete(source, name, dtype, kind)
        else:
            merged = _adapted(_complete(resolve(base), base, torch.float32, kind), source)
            model = merged.merge_and_unload().to(dtype)
        return Opened(model, AutoTokenizer.from_pretrained(_tokenizer_source(source)), source)


def open_adapter(name: str, dtype: torch.dtype, **how: Any) -> Opened:
    """The model `name` under the adapter that it is, to be trained on, or alone if it is none.

    Args:
        name: as above.
        dtype: of the weights of the base.
        how: what `from_pretrained` takes beside them: quantization.

    Raises:
        InputError: as above.
    """
    source = resolve(name)
    with readable(name):
        base = base_of(source)
        model = _complete(resolve(base) if base else source, base or name, dtype, AutoModelForCausalLM, **how)
        model = _adapted(model, source, is_trainable=True) if base else model
        return Opened(model, AutoTokenizer.from_pretrained(_tokenizer_source(source)), source)


def base_of(source: str) -> str | None:
    """Name of the base model if `source` is the folder of an adapter, else None."""
    return adapter_base(Path(source)) if Path(source).is_dir() else None


def id_list(ids: int | list[int] | None) -> list[int]:
    """Token ids as configurations give them: none, one or several."""
    return [] if ids is None else ids if isinstance(ids, list) else [ids]


@contextmanager
def silent() -> Iterator[None]:
    """Without progress bars, and without a warning that peft causes by an old name of transformers."""
    shows_progress = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
            yield
    finally:
        if shows_progress:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Silent, and turns what transformers raises for unreadable files into one line."""
    try:
        with silent():
            yield
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(f"model: {name} cannot be loaded: {reason}") from error


def _complete(source: str, name: str, dtype: torch.dtype, kind: Any, **how: Any) -> Any:
    model, report = kind.from_pretrained(source, dtype=dtype, output_loading_info=True, **how)
    missing = sorted(report["missing_keys"])
    if missing:  # transformers would fill them with random numbers and go on
        raise InputError(f"model: {name} has no weights for {missing[0]} ({len(missing)} missing)")
    return model


def _adapted(model: Any, source: str, is_trainable: bool = False) -> Any:
    from peft import PeftModel  # a base model needs no peft

    return PeftModel.from_pretrained(model, source, is_trainable=is_trainable)


def _tokenizer_source(source: str) -> str:
    """An adapter's folder may lack the tokenizer; it is then its base's."""
    base = None if (Path(source) / "tokenizer_config.json").is_file() else base_of(source)
    return source if base is None else resolve(base)
