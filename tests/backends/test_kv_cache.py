"""The growing cache holds what transformers' own holds."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache, LlamaConfig

from selfpriority.backends.kv_cache import GrowingLayer, Rows, growing_cache, part_of

CONFIG = LlamaConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2)


@pytest.mark.parametrize("n_tokens", [0, 20, 200], ids=["nothing", "too few", "enough"])
def test_holds_what_the_models_own_cache_holds(n_tokens):
    """With so many tokens announced."""
    ours, theirs = growing_cache(CONFIG, n_tokens), DynamicCache(config=CONFIG)
    assert all(isinstance(layer, GrowingLayer) for layer in ours.layers)
    torch.manual_seed(0)

    def grow(rows: int, n_tokens: int) -> None:
        for index in range(2):
            states = torch.randn(2, rows, 2, n_tokens, 8)
            for got, want in zip(
                ours.update(states[0], states[1], index), theirs.update(states[0], states[1], index), strict=True
            ):
                torch.testing.assert_close(got, want, atol=0, rtol=0)

    grow(3, 5)
    for cache in (ours, theirs):
        cache.batch_select_indices(torch.tensor([0, 0, 2, 1]))
    for n_tokens in [1] * 70 + [3]:  # past the room of one step
        grow(4, n_tokens)
    for cache in (ours, theirs):
        cache.batch_select_indices(torch.tensor([1, 3]))  # in place
    grow(2, 1)
    assert ours.get_seq_length() == theirs.get_seq_length() == 79


def test_a_token_is_written_in_place():
    layer = GrowingLayer()
    layer.update(torch.zeros(1, 1, 4, 8), torch.zeros(1, 1, 4, 8))
    before = layer.keys.data_ptr()
    layer.update(torch.ones(1, 1, 1, 8), torch.ones(1, 1, 1, 8))
    assert layer.keys.data_ptr() == before


def test_parts_fill_the_rows_of_the_whole():
    torch.manual_seed(0)
    states = torch.randn(2, 2, 5, 2, 4, 8)  # keys and values of two layers, five rows of four tokens
    whole, parts = growing_cache(CONFIG, 10), growing_cache(CONFIG, 10)
    for index in range(2):
        whole.update(states[0, index], states[1, index], index)
    for rows in (slice(0, 2), slice(2, 4), slice(4, 6)):
        part = part_of(parts, Rows(rows.start, 5, 4))
        assert part.get_seq_length() == 0
        for index in range(2):
            part.update(states[0, index, rows], states[1, index, rows], index)
    for ours, theirs in zip(parts.layers, whole.layers, strict=True):
        assert torch.equal(ours.keys, theirs.keys)
        assert torch.equal(ours.values, theirs.values)
    before = parts.layers[0].keys.data_ptr()
    parts.update(states[0, 0, :, :, :1], states[1, 0, :, :, :1], 0)
    assert parts.layers[0].keys.data_ptr() == before  # there was room


def test_shorter_rows_end_where_the_longest_do_behind_zeros(monkeypatch):
    """What lies in memory before may be no number, and what is masked still enters a sum, times zero."""
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda like, *shape: torch.full(shape, float("nan")))
    whole = growing_cache(CONFIG, 10)
    long, short = torch.ones(2, 2, 4, 8), torch.full((1, 2, 3, 8), 2.0)
    for states, rows in ((long, Rows(0, 3, 4)), (short, Rows(2, 3, 4))):
        part_of(whole, rows).update(states, -states, 0)
    keys, values = whole.layers[0].keys, whole.layers[0].values
    assert keys[:2].eq(1).all()
    assert keys[2, :, 0].eq(0).all()
    assert keys[2, :, 1:].eq(2).all()
    assert torch.equal(values, -keys)


def test_a_cache_of_other_layers_has_no_parts():
    config = LlamaConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, sliding_window=4)
    config.layer_types = ["full_attention", "sliding_attention"]
    assert part_of(growing_cache(config), Rows(0, 5, 4)) is None
