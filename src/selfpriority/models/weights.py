"""Weights and tokenizer of a model from its files with transformers and peft, for answers and for training alike.

Weights that are missing, and files that cannot be read, are one line; nothing in them runs. Knows no device, no chat.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from selfpriority.errors import InputError, SelfPriorityError
from selfpriority.models.added_tokens import check_room, fit_rows
from selfpriority.models.files import folder_of, matching, resolve, resolved_base
from selfpriority.models.rounding import to_bfloat16
from selfpriority.models.trust import code_is_trusted


@dataclass(frozen=True)
class Opened:
    """What a model's files hold."""

    model: Any
    tokenizer: Any
    end_ids: list[int]
    """The end-of-sequence ids of the model's generation config."""
    source: str
    """The folder or hub id."""
    brings_embeddings: bool = False
    """It is an adapter with whole embeddings beside the low-rank weights."""


def open_model(name: str, dtype: torch.dtype, kind: Any = AutoModelForCausalLM, reads: bool = True) -> Opened:
    """The model `name`; an adapter is merged into its base in float32, then cast so that its changes survive.

    Args:
        name: a hub id, a folder (of a model or an adapter) or an embedded name.
        dtype: of the weights.
        kind: the class of transformers.
        reads: whether the weights are; else they have shapes and no numbers, on torch's meta device.

    Raises:
        InputError: no such model, or unreadable or incomplete weights.
    """
    source = resolve(name)
    with readable(name):
        base = base_of(source)
        if not reads:
            model = _unread(base or source, dtype, kind)
            if base is not None:
                fit_rows(model, source)
                _keep_head_once(model)
        elif base is None:
            model = _complete(source, name, dtype, kind)
        else:
            model = _complete(base, base, torch.float32, kind)
            fit_rows(model, source)
            merged = _adapted(model, source)
            model = merged.merge_and_unload()
            model = to_bfloat16(model) if dtype is torch.bfloat16 else model.to(dtype)
            _keep_head_once(model)
        return Opened(model, _tokenizer(source, model, name), _end_ids(model), source)


def _keep_head_once(model: Any) -> None:
    """Hands the head its states in one piece.

    Given the last of each row's states as they lie, torch 2.13 copies a frozen head once a row: 48 rows of a model of
    135M parameters took 2.6 GB, and 18 times as long. A merged adapter leaves its base frozen.
    """
    head = model.get_output_embeddings()
    if head is not None:
        head.register_forward_pre_hook(lambda _, given: (given[0].contiguous(), *given[1:]))


def open_adapter(name: str, dtype: torch.dtype, reads: bool = True, **how: Any) -> Opened:
    """The model `name` under the adapter that it is, to be trained on, or alone if it is none.

    Args:
        name: as above.
        dtype: of the weights of the base.
        reads: whether those are, as above.
        how: what `from_pretrained` takes beside them: quantization.

    Raises:
        InputError: as above.
    """
    source = resolve(name)
    with readable(name):
        base = base_of(source)
        if reads:
            model = _complete(base or source, base or name, dtype, AutoModelForCausalLM, **how)
        else:
            model = _unread(base or source, dtype, AutoModelForCausalLM)
        brings = base is not None and fit_rows(model, source)
        model = _adapted(model, source, is_trainable=True) if base else model
        return Opened(model, _tokenizer(source, model, name), _end_ids(model), source, brings)


def base_of(source: str) -> str | None:
    """Folder or hub id of the base model if `source` is that of an adapter, else None."""
    folder = folder_of(source)
    return None if folder is None else resolved_base(folder)


def id_list(ids: object) -> list[int]:
    """Token ids as configurations give them: none, one or several.

    Raises:
        ValueError: they are no numbers.
    """
    given = [] if ids is None else ids if isinstance(ids, list) else [ids]
    found = [token for token in given if isinstance(token, int)]
    if len(found) < len(given):
        raise ValueError(f"eos_token_id must be a number or a list of numbers, it is {ids!r}")
    return found


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Writes a tokenizer without what transformers notes of this machine: whether it may reach the hub."""
    tokenizer.init_kwargs["local_files_only"] = False
    tokenizer.save_pretrained(folder)


@contextmanager
def silent() -> Iterator[None]:
    """Without progress bars and reports, and without a warning that peft causes by an old name of transformers."""
    shows_progress, verbosity = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if shows_progress:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Silent, and turns what is raised for unreadable files into one line."""
    try:
        with silent():
            yield
    except (SelfPriorityError, MemoryError, torch.OutOfMemoryError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # malformed files make the libraries raise anything; tokenizers' own is no Exception
        told = next(filter(None, map(str.strip, str(error).splitlines())), "")
        reason = told if told and isinstance(error, OSError | ValueError) else f"{type(error).__name__}: {told}"
        raise InputError(f"model: {name} cannot be loaded: {reason}") from error


def _complete(source: str, name: str, dtype: torch.dtype, kind: Any, **how: Any) -> Any:
    how |= {"dtype": dtype, "trust_remote_code": code_is_trusted(), "weights_only": True}
    model, report = kind.from_pretrained(source, output_loading_info=True, ignore_mismatched_sizes=True, **how)
    for weight, found, wanted in sorted(report["mismatched_keys"]):
        raise _mismatch(name, weight, found, wanted)
    missing = sorted(report["missing_keys"])
    if missing:  # transformers would fill them with random numbers and go on
        raise InputError(f"model: {name} has no weights for {missing[0]} ({len(missing)} missing)")
    n_layers = getattr(model.config.get_text_config(), "num_hidden_layers", sys.maxsize)
    for weight in sorted(report["unexpected_keys"]):
        layer = re.search(r"\.layers\.(\d+)\.", weight)
        if layer and int(layer[1]) >= n_layers:  # transformers would go on without it
            raise InputError(f"model: {name} has {weight}, but config.json says num_hidden_layers: {n_layers}")
    return model


def _unread(source: str, dtype: torch.dtype, kind: Any) -> Any:
    """The model without its numbers, but with the buffers that are computed and stand in no file."""
    trusts = code_is_trusted()
    config = AutoConfig.from_pretrained(source, trust_remote_code=trusts)
    with init_empty_weights(include_buffers=False):
        model = kind.from_config(config, dtype=dtype, trust_remote_code=trusts)
    model.tie_weights()  # in there each is put on the device by itself
    return model.eval()


def check_shapes(source: str, model: Any, name: str) -> None:
    """Holds what the files say of their weights against a model without numbers.

    Raises:
        InputError: one has another shape; those that transformers renames are not compared.
    """
    folder = folder_of(source)
    wanted = {weight: list(tensor.shape) for weight, tensor in model.state_dict().items()}
    for file in matching(folder, ["*.safetensors"]) if folder else []:
        with safe_open(file, framework="pt") as weights:
            for weight in wanted.keys() & set(weights.keys()):
                found = weights.get_slice(weight).get_shape()
                if found != wanted[weight]:
                    raise _mismatch(name, weight, found, wanted[weight])


def _mismatch(name: str, weight: str, found: Iterable[int], wanted: Iterable[int]) -> InputError:
    shapes = f"has the shape {list(found)} in the file and {list(wanted)} by config.json"
    return InputError(f"model: {name} cannot be loaded: {weight} {shapes}")


def _end_ids(model: Any) -> list[int]:
    config = getattr(model, "generation_config", None)
    return id_list(None if config is None else config.eos_token_id)


def _adapted(model: Any, source: str, is_trainable: bool = False) -> Any:
    from peft import PeftModel  # a base model needs no peft

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Found missing adapter keys")  # peft would go on with untrained ones
        return PeftModel.from_pretrained(model, source, is_trainable=is_trainable)


def _tokenizer(source: str, model: Any, name: str) -> Any:
    """The tokenizer, whose tokens all have a row; an adapter's folder may lack it, and it is then its base's."""
    folder = folder_of(source)
    has_own = folder is not None and (folder / "tokenizer_config.json").is_file()
    base = None if has_own else base_of(source)
    tokenizer = AutoTokenizer.from_pretrained(base or source, trust_remote_code=code_is_trusted())
    check_room(tokenizer, model, name)
    return tokenizer
