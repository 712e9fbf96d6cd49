"""Opens a model's folder with transformers: weights, tokenizer, device and arithmetic. Knows no requests."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from selfpriority.backends.weights import adapter_base, described, fingerprint, resolve
from selfpriority.chat import Chat
from selfpriority.errors import InputError
from selfpriority.recipe import HfBackend


@dataclass(frozen=True)
class Loaded:
    """A model ready to answer."""

    model: Any
    chat: Chat
    end_ids: frozenset[int]
    """Every token that closes a turn: the chat template's and those of the generation config."""
    pad_id: int
    """Fills rows up; masked wherever it stands."""
    context: int | None
    """Most tokens of one sequence, if the model has a limit."""
    fingerprint: str
    """Content of the files, and the arithmetic."""


@dataclass(frozen=True)
class Description:
    """What a model's files say without its weights."""

    chat: Chat
    config: Any


def describe(name: str) -> Description | None:
    """Tokenizer and configuration of `name`; None if they are not on this machine.

    Raises:
        InputError: no such model, unreadable files, no chat template or end token.
    """
    source = described(name)
    if source is None:
        return None
    with _readable(name):
        config = AutoConfig.from_pretrained(**source)
        tokenizer = AutoTokenizer.from_pretrained(**source)
    ids = config.get_text_config().eos_token_id
    end_ids = [] if ids is None else ids if isinstance(ids, list) else [ids]
    return Description(Chat(tokenizer, end_ids, name), config)


def bytes_per_weight(settings: HfBackend) -> int:
    """What a weight takes in the arithmetic that `settings` mean on this machine."""
    return _dtype(settings.dtype, _device(settings.device)).itemsize


def settled(settings: HfBackend) -> HfBackend:
    """The same with the device and the arithmetic that `auto` means on this machine."""
    device = _device(settings.device)
    dtype = str(_dtype(settings.dtype, device)).removeprefix("torch.")
    return settings.model_copy(update={"device": str(device), "dtype": dtype})


def load_causal(name: str, settings: HfBackend) -> Loaded:
    """The language model `name`, an adapter merged into its base.

    Raises:
        InputError: no such model or device, unreadable or incomplete weights, no chat template or end token.
    """
    return _load(name, settings, AutoModelForCausalLM)


def load_classifier(name: str, settings: HfBackend) -> Loaded:
    """The reward model `name`: a sequence classifier with one label.

    Raises:
        InputError: as `load_causal`, or a model without a trained head of one label.
    """
    loaded = _load(name, settings, AutoModelForSequenceClassification)
    n_labels = loaded.model.config.num_labels
    if n_labels != 1:
        raise InputError(f"model: {name} has {n_labels} labels; a reward model has one")
    return loaded


def _load(name: str, settings: HfBackend, kind: Any) -> Loaded:
    source = resolve(name)
    device = _device(settings.device)
    dtype = _dtype(settings.dtype, device)
    with _readable(name):
        model = _weights(source, name, kind, dtype)
        tokenizer = AutoTokenizer.from_pretrained(_tokenizer_source(source))
    end_ids = _end_ids(model)
    chat = Chat(tokenizer, end_ids, name)
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    content = f"{fingerprint(source)} {str(dtype).removeprefix('torch.')}"
    pad_id = chat.end_id if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
    model.config.pad_token_id = pad_id  # by which a classifier finds the last token of a row
    return Loaded(model.to(device).eval(), chat, frozenset({*end_ids, chat.end_id}), pad_id, context, content)


def _weights(source: str, name: str, kind: Any, dtype: torch.dtype) -> Any:
    base = adapter_base(Path(source)) if Path(source).is_dir() else None
    if base is None:
        model, report = kind.from_pretrained(source, dtype=dtype, output_loading_info=True)
        missing = sorted(report["missing_keys"])
        if missing:  # transformers would fill them with random numbers and go on
            raise InputError(f"model: {name} has no weights for {missing[0]} ({len(missing)} missing)")
        return model
    from peft import PeftModel  # a base model needs no peft

    with warnings.catch_warnings():  # peft asks for a property by its former name; nothing the user could change
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        merged: Any = PeftModel.from_pretrained(_weights(resolve(base), base, kind, torch.float32), source)
    return merged.merge_and_unload().to(dtype)


def _tokenizer_source(source: str) -> str:
    folder = Path(source)
    if not folder.is_dir() or (folder / "tokenizer_config.json").is_file():
        return source
    base = adapter_base(folder)
    return source if base is None else resolve(base)


def _end_ids(model: Any) -> list[int]:
    config = getattr(model, "generation_config", None)
    ids = None if config is None else config.eos_token_id
    return [] if ids is None else ids if isinstance(ids, list) else [ids]


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch raises either for a device that is not there
        reason = str(error).split("\n")[0]
        raise InputError(f"backend.device: {name} cannot be used here: {reason}") from error
    return device


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name != "auto":
        return torch.float32 if name == "float32" else torch.bfloat16
    return torch.bfloat16 if _multiplies_bfloat16(device) else torch.float32


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":  # mkldnn's own check passes wherever it can emulate
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Turns what transformers raises for unreadable files into one line; hides its progress bars."""
    shows_progress = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(f"model: {name} cannot be loaded: {reason}") from error
    finally:
        if shows_progress:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
