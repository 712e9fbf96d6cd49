"""A model for an engine that opens the weights itself: where they lie, and all that is said around them.

Reads configuration and tokenizer as `loading` does, and no weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer

from selfpriority.chat import Chat
from selfpriority.errors import InputError
from selfpriority.models.files import ADAPTER_CONFIG, folder_of, resolve
from selfpriority.models.fingerprint import fingerprint
from selfpriority.models.probed_chat import probed_chat
from selfpriority.models.trust import code_is_trusted, json_object
from selfpriority.models.weights import base_of, id_list, readable


@dataclass(frozen=True)
class Adapter:
    """Low-rank weights beside a model's own."""

    folder: Path
    rank: int


@dataclass(frozen=True)
class Served:
    """What an engine is told of a model, and what is read and written around it."""

    folder: Path
    """Whole weights with their configuration; of an adapter its base's."""
    adapter: Adapter | None
    chat: Chat
    end_ids: frozenset[int]
    """Every token that closes a turn: the chat template's and those of the generation config."""
    context: int | None
    """Most tokens of one sequence, if the model has a limit."""
    content: str
    """Stands for the files, an adapter's and its base's."""


def load_served(name: str) -> Served:
    """The model `name`, its files on this machine.

    Raises:
        InputError: no such model, unreadable files, no chat template or end token, or an adapter that an engine cannot
            lay beside its base.
    """
    source = resolve(name)
    folder = folder_of(source)
    assert folder is not None, "it was resolved"
    base = base_of(source)
    own = folder if base is None else _whole(base)
    with readable(name):
        has_tokenizer = (folder / "tokenizer_config.json").is_file()
        trusted = code_is_trusted()
        tokenizer = AutoTokenizer.from_pretrained(str(folder if has_tokenizer else own), trust_remote_code=trusted)
        config = AutoConfig.from_pretrained(str(own), trust_remote_code=trusted)
        ends = _ends(own, config)
    _check_room(tokenizer, config, name)
    chat = probed_chat(tokenizer, ends, name)
    adapter = None if base is None else Adapter(folder, _rank(folder, name))
    context = getattr(config.get_text_config(), "max_position_embeddings", None)
    return Served(own, adapter, chat, frozenset({*ends, chat.end_id}), context, fingerprint(source))


def _whole(base: str) -> Path:
    folder = folder_of(base)
    assert folder is not None, "it was resolved with its adapter"
    return folder


def _ends(folder: Path, config: Any) -> list[int]:
    """As transformers knows them of a model that it opens: the generation config's, where there is one."""
    generation = folder / "generation_config.json"
    if generation.is_file():
        return id_list(json_object(generation).get("eos_token_id"))
    return id_list(config.get_text_config().eos_token_id)


def _check_room(tokenizer: Any, config: Any, name: str) -> None:
    """An engine would read beyond its embeddings, and take other requests down with it."""
    n_tokens, n_rows = max(tokenizer.get_vocab().values(), default=-1) + 1, config.get_text_config().vocab_size
    if n_tokens > n_rows:
        raise InputError(
            f"model: {name}: its tokenizer has {n_tokens} tokens, its configuration {n_rows}; save it whole, with the "
            f"embeddings of the added tokens, or answer with backend.kind=hf"
        )


def _rank(folder: Path, name: str) -> int:
    """The largest rank of the adapter in `folder`.

    Raises:
        InputError: it holds more than low-rank weights.
    """
    told = json_object(folder / ADAPTER_CONFIG)
    more = [field for field in ("modules_to_save", "use_dora", "trainable_token_indices") if told.get(field)]
    if more or told.get("peft_type", "LORA") != "LORA":
        what = more[0] if more else told["peft_type"]
        raise InputError(
            f"model: {name}: its adapter has {what}, which vLLM lays beside no model; `spa merge` makes whole weights "
            f"of it, or answer with backend.kind=hf"
        )
    return max(1, int(told.get("r", 8)), *map(int, told.get("rank_pattern", {}).values()))
