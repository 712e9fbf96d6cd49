"""A key-value cache that grows in steps: a new token is written in place instead of copying all that went before.

transformers' own cache concatenates every layer at every token. Knows nothing of requests.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

_ROOM = 64  # tokens that fit before the next copy


class GrowingLayer(DynamicLayer):  # type: ignore[no-untyped-call]  # its base class registers subclasses
    """A `DynamicLayer` whose keys and values are the filled part of larger tensors."""

    _key_room: Tensor | None = None
    _value_room: Tensor | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Appends [rows, heads, new tokens, size]; returns all keys and all values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys, self._key_room = _append(self.keys, self._key_room, key_states)
        self.values, self._value_room = _append(self.values, self._value_room, value_states)
        return self.keys, self.values


def growing_cache(config: Any) -> DynamicCache:
    """An empty cache for a model; layers that keep a sliding window or another state stay as they are."""
    cache = DynamicCache(config=config)
    growing: Any = GrowingLayer  # its initialiser is untyped
    cache.layers = [growing() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def _append(held: Tensor | None, room: Tensor | None, new: Tensor) -> tuple[Tensor, Tensor]:
    """`held` and `new` one after the other, and the tensor they lie in."""
    length = held.shape[-2] if held is not None and held.numel() else 0
    end = length + new.shape[-2]
    # rows that were selected since lie in a tensor of their own
    if room is None or held is None or room.shape[-2] < end or held.data_ptr() != room.data_ptr():
        room = new.new_empty(*new.shape[:-2], end + _ROOM, new.shape[-1])
        if held is not None and length:
            room[..., :length, :] = held
    room[..., length:end, :] = new
    return room[..., :end, :], room
