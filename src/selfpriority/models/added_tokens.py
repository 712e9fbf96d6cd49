"""Tokens that were added under an adapter: the base gets the rows that the adapter was trained with.

Knows peft's names of weights; opens only the adapter's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from safetensors import safe_open

from selfpriority.errors import InputError
from selfpriority.models.files import folder_of


@dataclass(frozen=True)
class _Rows:
    """What one weight of an adapter says of the embeddings."""

    n: int
    is_whole: bool
    """It stands in place of the base's."""


def fit_rows(model: Any, source: str) -> bool:
    """Gives a base model as many rows in its embeddings as the adapter `source` has.

    Returns:
        Whether the adapter brings whole embeddings.
    """
    found = list(_rows(model, source))
    n_rows = max((rows.n for rows in found), default=0)
    if n_rows and n_rows != len(model.get_input_embeddings().weight):
        model.resize_token_embeddings(n_rows, mean_resizing=False)
    return any(rows.is_whole for rows in found)


def check_room(tokenizer: Any, model: Any, name: str) -> None:
    """Raises InputError for a model without a row for each of its tokens."""
    n_tokens, n_rows = max(tokenizer.get_vocab().values(), default=-1) + 1, len(model.get_input_embeddings().weight)
    if n_tokens > n_rows:
        raise InputError(
            f"model: {name}: its tokenizer has {n_tokens} tokens, its embeddings {n_rows} rows; save it with the "
            f"embeddings of the added tokens (peft: save_embedding_layers=True)"
        )


def _rows(model: Any, source: str) -> Iterator[_Rows]:
    """Of each weight on the embeddings, in or out, in an adapter's file."""
    folder = folder_of(source)
    path = folder / "adapter_model.safetensors" if folder else None
    if path is None or not path.is_file():
        return
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    names = {name for name, module in model.named_modules() if any(module is end for end in ends)}
    with safe_open(path, framework="pt") as weights:
        for key in weights.keys():  # noqa: SIM118  # it is no mapping
            name, _, part = key.removeprefix("base_model.model.").removesuffix(".weight").rpartition(".")
            is_whole = f"{name}.{part}" in names or (name in names and part == "base_layer")
            if is_whole or (name in names and part == "lora_B"):
                yield _Rows(weights.get_slice(key).get_shape()[0], is_whole)
            elif name in names and part == "lora_embedding_A":
                yield _Rows(weights.get_slice(key).get_shape()[1], False)
