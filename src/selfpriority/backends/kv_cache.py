"""A key-value cache with room for all tokens to come: a new one is written in place, and what went before stays.

transformers' own cache concatenates every layer at every token. Knows nothing of requests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

_ROOM = 64  # tokens that fit before the next copy, where more come than were announced


@dataclass(frozen=True)
class Rows:
    """Where some rows lie in a larger cache."""

    first: int
    of: int
    """Rows of the whole."""
    width: int
    """Tokens of its rows. Shorter ones end where the longest do, behind zeros that no mask lets through."""


class GrowingLayer(DynamicLayer):  # type: ignore[no-untyped-call]  # its base class registers subclasses
    """A `DynamicLayer` whose keys and values are the filled part of larger tensors.

    Args:
        n_tokens: most tokens of a row that are expected.
    """

    def __init__(self, n_tokens: int = 0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._n_tokens = n_tokens
        self._key_room: Tensor | None = None
        self._value_room: Tensor | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Appends [rows, heads, new tokens, size]; returns all keys and all values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys, self._key_room = self._append(self.keys, self._key_room, key_states)
        self.values, self._value_room = self._append(self.values, self._value_room, value_states)
        return self.keys, self.values

    def fill(self, key_states: Tensor, value_states: Tensor, rows: Rows) -> None:
        """Puts keys and values of the first tokens into some rows."""
        if self._key_room is None or self._value_room is None:
            self.lazy_initialization(key_states, value_states)
            self._key_room = self._room(key_states, rows.of, rows.width)
            self._value_room = self._room(value_states, rows.of, rows.width)
        self.keys = _written(self._key_room, key_states, rows)
        self.values = _written(self._value_room, value_states, rows)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keeps the rows of these numbers; ascending ones, each once, move up in place."""
        self.keys, self._key_room = self._selected(self.keys, self._key_room, indices)
        self.values, self._value_room = self._selected(self.values, self._value_room, indices)

    def _room(self, states: Tensor, n_rows: int, n_tokens: int) -> Tensor:
        n_tokens = self._n_tokens if n_tokens <= self._n_tokens else n_tokens + _ROOM
        return states.new_empty(n_rows, states.shape[1], n_tokens, states.shape[-1])

    def _append(self, held: Tensor | None, room: Tensor | None, new: Tensor) -> tuple[Tensor, Tensor]:
        """`held` and `new` one after the other, and the tensor they lie in."""
        length = held.shape[-2] if held is not None and held.numel() else 0
        end = length + new.shape[-2]
        if room is None or room.shape[-2] < end:
            room = self._room(new, len(new), end)
            if held is not None and length:
                room[..., :length, :] = held
        room[..., length:end, :] = new
        return room[..., :end, :], room

    def _selected(self, held: Tensor | None, room: Tensor | None, indices: Tensor) -> tuple[Tensor, Tensor]:
        assert held is not None
        assert room is not None
        length = held.shape[-2]
        if len(indices) > 1 and bool((indices.diff() <= 0).any()):
            wider = room.new_empty(len(indices), *room.shape[1:])
            wider[..., :length, :] = held[indices]
            return wider[..., :length, :], wider
        # gathered at once: a GPU takes as long for the call as for the copy, and there is one call a row and layer else
        room[: len(indices), :, :length] = held[indices]
        room = room[: len(indices)]
        return room[..., :length, :], room


class _Part(DynamicLayer):  # type: ignore[no-untyped-call]  # as above
    """What some rows begin with, written into the rows of a `GrowingLayer`."""

    def __init__(self, whole: GrowingLayer, rows: Rows) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._whole, self._rows = whole, rows

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Hands keys and values on; they are all there are, for a part is computed in one pass."""
        self._whole.fill(key_states, value_states, self._rows)
        return key_states, value_states


def growing_cache(config: Any, n_tokens: int = 0) -> DynamicCache:
    """An empty cache for a model; layers that keep a sliding window or another state stay as they are.

    Args:
        config: the model's.
        n_tokens: most tokens of a row that are expected; of more, everything is copied now and then.
    """
    cache = DynamicCache(config=config)
    cache.layers = [GrowingLayer(n_tokens) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def part_of(cache: DynamicCache, rows: Rows) -> DynamicCache | None:
    """An empty cache whose rows become some of those of `cache`; None: other kinds of layers."""
    if not is_growing(cache):
        return None
    layers = [_Part(layer, rows) for layer in cache.layers if isinstance(layer, GrowingLayer)]
    part = DynamicCache()
    part.layers = list(layers)
    return part


def is_growing(cache: DynamicCache) -> bool:
    """Whether every layer keeps all keys and values, so that rows can be put together from several caches."""
    return bool(cache.layers) and all(isinstance(layer, GrowingLayer) for layer in cache.layers)


def put_rows(cache: DynamicCache, part_cache: DynamicCache, rows: Rows) -> None:
    """Copies the rows of a cache into some of those of `cache`; both of growing layers."""
    for whole, part in zip(cache.layers, part_cache.layers, strict=True):
        assert isinstance(whole, GrowingLayer)
        assert isinstance(part, DynamicLayer)
        assert part.keys is not None
        assert part.values is not None
        whole.fill(part.keys, part.values, rows)


def _written(room: Tensor, states: Tensor, rows: Rows) -> Tensor:
    n_front = rows.width - states.shape[-2]
    written = room[rows.first : rows.first + len(states)]
    written[:, :, :n_front] = 0  # what is masked counts zero times, which of a number that is none is none
    written[:, :, n_front : rows.width] = states
    return room[..., : rows.width, :]
