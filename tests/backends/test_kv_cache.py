"""The growing cache holds what transformers' own holds."""

from __future__ import annotations

import torch
from transformers import DynamicCache, LlamaConfig

from selfpriority.backends.kv_cache import GrowingLayer, growing_cache


def test_holds_what_the_models_own_cache_holds():
    config = LlamaConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2)
    ours, theirs = growing_cache(config), DynamicCache(config=config)
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
        cache.batch_select_indices(torch.tensor([3, 1]))
    grow(2, 1)
    assert ours.get_seq_length() == theirs.get_seq_length() == 79


def test_a_token_is_written_in_place():
    layer = GrowingLayer()
    layer.update(torch.zeros(1, 1, 4, 8), torch.zeros(1, 1, 4, 8))
    before = layer.keys.data_ptr()
    layer.update(torch.ones(1, 1, 1, 8), torch.ones(1, 1, 1, 8))
    assert layer.keys.data_ptr() == before
