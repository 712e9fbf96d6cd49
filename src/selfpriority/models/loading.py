"""A model ready to answer, on its device and in its arithmetic, or described without its weights. Knows no requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from selfpriority.chat import Chat
from selfpriority.errors import InputError
from selfpriority.models.arithmetic import device_of, dtype_of
from selfpriority.models.files import described, resolve
from selfpriority.models.fingerprint import fingerprint
from selfpriority.models.guards import Guard, guard_of
from selfpriority.models.probed_chat import probed_chat
from selfpriority.models.trust import code_is_trusted
from selfpriority.models.weights import Opened, base_of, id_list, open_model, readable
from selfpriority.recipe import HfBackend

ENCODERS = frozenset({"bert", "mpnet", "roberta", "xlm-roberta"})
"""Kinds of models that read whole texts and write none, as `model_type` in `config.json` names them."""


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
class Encoder:
    """An encoder ready to read."""

    model: Any
    tokenizer: Any
    context: int
    """Most tokens of one sequence."""
    fingerprint: str
    """Content of the files."""


@dataclass(frozen=True)
class LoadedGuard:
    """A guard model ready to judge."""

    model: Any
    tokenizer: Any
    guard: Guard
    """How it is asked."""
    pad_id: int
    context: int | None
    """Most tokens of one sequence, if the model has a limit."""
    fingerprint: str
    """Content of the files, and the arithmetic."""


@dataclass(frozen=True)
class Description:
    """What a model's files say without its weights."""

    chat: Chat | None
    """None: an encoder or a guard, with which nobody talks."""
    config: Any


def describe(name: str) -> Description | None:
    """Tokenizer and configuration of `name`; None if they are not on this machine.

    Raises:
        InputError: no such model, unreadable files, no chat template or end token.
    """
    source = described(name)
    if source is None:
        return None
    config = _config(source, name)
    if config.model_type in ENCODERS:
        return Description(None, config)
    with readable(name):
        tokenizer = AutoTokenizer.from_pretrained(**source, trust_remote_code=code_is_trusted())
        if guard_of(name, tokenizer) is not None:
            return Description(None, config)
        end_ids = id_list(config.get_text_config().eos_token_id)
    return Description(probed_chat(tokenizer, end_ids, name), config)


def load_causal(name: str, settings: HfBackend) -> Loaded:
    """The language model `name`, an adapter merged into its base.

    Raises:
        InputError: no such model or device, unreadable or incomplete weights, no chat template or end token.
    """
    return _load(name, settings, AutoModelForCausalLM)


def is_encoder(name: str) -> bool:
    """Whether `name`, which is on this machine or will be fetched, is an encoder.

    Raises:
        InputError: no such model, or unreadable files.
    """
    return bool(_config(_fetched(name), name).model_type in ENCODERS)


def is_guard(name: str) -> bool:
    """Whether `name`, which is on this machine or will be fetched, is a guard model, and no reward model.

    Raises:
        InputError: no such model, or unreadable files.
    """
    source = _fetched(name)
    if any("SequenceClassification" in kind for kind in _config(source, name).architectures or ()):
        return False
    with readable(name):
        tokenizer = AutoTokenizer.from_pretrained(**source, trust_remote_code=code_is_trusted())
    return guard_of(name, tokenizer) is not None


def _fetched(name: str) -> dict[str, Any]:
    """Where the files of `name` lie, which are fetched if they have to be."""
    resolve(name)
    found = described(name)
    assert found is not None, "it was resolved"
    return found


def _config(source: dict[str, Any], name: str) -> Any:
    with readable(name):
        return AutoConfig.from_pretrained(**source, trust_remote_code=code_is_trusted())


def load_guard(name: str, settings: HfBackend) -> LoadedGuard:
    """The guard model `name`.

    Raises:
        InputError: as `load_causal`, or it is no guard of a known kind.
    """
    device = device_of(settings.device)
    dtype = dtype_of(settings.dtype, device)
    opened = open_model(name, dtype, AutoModelForCausalLM)
    guard = guard_of(name, opened.tokenizer)
    if guard is None:
        raise InputError(f"model: {name} is no guard model of a known kind; a reward model has one label")
    pad_id = next((i for i in (opened.tokenizer.pad_token_id, opened.tokenizer.eos_token_id) if i is not None), 0)
    model = opened.model.to(device).eval()
    return LoadedGuard(model, opened.tokenizer, guard, int(pad_id), _context(model), _content(opened, dtype))


def load_encoder(name: str, settings: HfBackend) -> Encoder:
    """The encoder `name`, in float32 whatever the settings: it is small, and rates alike on every machine.

    Raises:
        InputError: no such model or device, unreadable or incomplete weights, or a tokenizer without padding.
    """
    device = device_of(settings.device)
    opened = open_model(name, torch.float32, AutoModel)
    if opened.tokenizer.pad_token_id is None:
        raise InputError(f"model: {name} has no padding token; set pad_token in its tokenizer")
    context = min(opened.model.config.max_position_embeddings, opened.tokenizer.model_max_length)
    return Encoder(opened.model.to(device).eval(), opened.tokenizer, int(context), fingerprint(opened.source))


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
    device = device_of(settings.device)
    dtype = dtype_of(settings.dtype, device)
    opened = open_model(name, dtype, kind)
    model = opened.model
    chat = probed_chat(opened.tokenizer, opened.end_ids, name)
    pad_id = chat.end_id if opened.tokenizer.pad_token_id is None else int(opened.tokenizer.pad_token_id)
    model.config.pad_token_id = pad_id  # by which a classifier finds the last token of a row
    ends = frozenset({*opened.end_ids, chat.end_id})
    return Loaded(model.to(device).eval(), chat, ends, pad_id, _context(model), _content(opened, dtype))


def _context(model: Any) -> int | None:
    """Most tokens of one sequence, if the model has a limit."""
    found: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return found


def _content(opened: Opened, dtype: torch.dtype) -> str:
    """What stands for the files and the arithmetic."""
    content = f"{fingerprint(opened.source)} {str(dtype).removeprefix('torch.')}"
    if dtype is torch.bfloat16 and base_of(opened.source) is not None:
        content += " drawn"  # merged by `rounding`, and no longer to the nearest
    return content
