"""Attention whose weights are kept for the backward pass: on a CPU in bfloat16 three times as fast as without.

torch's attention (2.13) keeps no weights and computes them again; on a CPU its backward pass does so in small blocks,
which bfloat16 makes slower, not faster. Short sequences have few weights, so they are kept here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import scaled_dot_product_attention

MOST_KEPT = 2**24
"""Bytes of the weights of one call, up to which they are kept; a layer calls for its prompts and its responses."""

_KEEPS: ContextVar[bool] = ContextVar("keeps", default=True)


@contextmanager
def as_torch_does() -> Iterator[None]:
    """No weights are kept while this lasts: for a comparison that no rounding may decide."""
    token = _KEEPS.set(False)
    try:
        yield
    finally:
        _KEEPS.reset(token)


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float | None, dropout: float) -> Tensor:
    """softmax(scale * query @ key^T) @ value, where each query sees what `mask` says.

    Args:
        query: [rows, heads, queries, size]
        key: [rows, heads, keys, size]
        value: [rows, heads, keys, value size]
        mask: [rows or 1, 1, queries, keys], True where a query sees a key; each sees one at least.
        scale: None is 1 / sqrt(size).
        dropout: of the weights; where there is some, they are not kept here.

    Returns:
        [rows, heads, queries, value size]
    """
    if dropout or not _is_better_kept(query, key):
        seen: Tensor = scaled_dot_product_attention(query, key, value, mask, dropout, scale=scale)
        return seen
    low = (states.to(torch.bfloat16) for states in (query, key, value))
    kept: Tensor = _Kept.apply(*low, mask, query.shape[-1] ** -0.5 if scale is None else scale)  # type: ignore[no-untyped-call]
    return kept


def _is_better_kept(query: Tensor, key: Tensor) -> bool:
    if query.device.type != "cpu" or not _KEEPS.get():
        return False
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else query.dtype
    return dtype is torch.bfloat16 and query[..., 0].numel() * key.shape[-2] * dtype.itemsize <= MOST_KEPT


class _Kept(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
        # what all keys have in common moves no weight, and may be so large that bfloat16 would round the rest away
        key = key - key.mean(dim=2, keepdim=True)
        scores = torch.matmul(query * scale, key.transpose(2, 3))
        weights = torch.softmax(scores.masked_fill_(~mask, -torch.inf), dim=-1)
        ctx.save_for_backward(query, key, value, weights)
        ctx.scale = scale
        return weights @ value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, weights = ctx.saved_tensors
        of_weights = grad @ value.transpose(2, 3)
        of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
        of_query = (of_scores @ key).mul_(ctx.scale)
        of_key = (of_scores.transpose(2, 3) @ query).mul_(ctx.scale)
        return of_query, of_key, weights.transpose(2, 3) @ grad, None, None
