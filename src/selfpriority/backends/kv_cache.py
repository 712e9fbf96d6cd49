"""A key-value cache that grows in place: a new token is written where it stays, and prompts may come in pieces.

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
    _rows: slice | None = None
    _n_rows = 0

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Appends [rows, heads, new tokens, size]; returns all keys and all values."""
        if self._rows is not None:
            self._key_room = _placed(self._key_room, key_states, self._rows, self._n_rows)
            self._value_room = _placed(self._value_room, value_states, self._rows, self._n_rows)
            return key_states, value_states
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys, self._key_room = _append(self.keys, self._key_room, key_states)
        self.values, self._value_room = _append(self.values, self._value_room, value_states)
        return self.keys, self.values

    def expect(self, rows: slice, n_rows: int) -> None:
        """The next update holds the first tokens of some of `n_rows` rows."""
        self._rows, self._n_rows = rows, n_rows

    def join(self) -> None:
        """All rows have come: from here on tokens are appended."""
        assert self._key_room is not None
        assert self._value_room is not None
        self.lazy_initialization(self._key_room, self._value_room)
        end = self._key_room.shape[-2] - _ROOM
        self.keys, self.values = self._key_room[..., :end, :], self._value_room[..., :end, :]
        self._rows = None


def growing_cache(config: Any) -> DynamicCache:
    """An empty cache for a model; layers that keep a sliding window or another state stay as they are."""
    cache = DynamicCache(config=config)
    growing: Any = GrowingLayer  # its initialiser is untyped
    cache.layers = [growing() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def takes_pieces(cache: DynamicCache) -> bool:
    """Whether the rows of a prompt may come one piece after another."""
    return bool(cache.layers) and all(isinstance(layer, GrowingLayer) for layer in cache.layers)


def expect(cache: DynamicCache, rows: slice, n_rows: int) -> None:
    """Every layer's next update holds these rows."""
    for layer in cache.layers:
        layer.expect(rows, n_rows)


def join(cache: DynamicCache) -> None:
    """Every layer has all its rows."""
    for layer in cache.layers:
        layer.join()


def _placed(room: Tensor | None, new: Tensor, rows: slice, n_rows: int) -> Tensor:
    """The room of all rows with `new` in its place."""
    if room is None:
        room = new.new_empty(n_rows, *new.shape[1:-2], new.shape[-2] + _ROOM, new.shape[-1])
    room[rows, ..., : new.shape[-2], :] = new
    return room


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
