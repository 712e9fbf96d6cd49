"""Tied embeddings: head and lookup add to one gradient of the size of the vocabulary instead of making one each.

Left alone, autograd makes a [vocabulary, hidden] gradient for either use and a third for their sum, all at the end of
the backward pass, when every other gradient exists too. Here the head leaves its own with a `Tie`, and the lookup,
whose backward pass comes last, adds the rows of its tokens. Knows a module's two ends; nothing of pools.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


@dataclass
class Tie:
    """What the head hands to the lookup within one backward pass."""

    gradient: Tensor | None = None
    """[vocabulary, hidden size]"""


@contextmanager
def tied_lookup(causal_lm: Any) -> Iterator[Tie | None]:
    """Ties the two ends during a forward pass; None where they are not one trained matrix, or are not plain modules.

    Several processes exchange the gradient of a parameter when autograd has summed it, so there it is left alone.
    """
    lookup, head = causal_lm.get_input_embeddings(), causal_lm.get_output_embeddings()
    is_tied = (
        type(lookup) is nn.Embedding
        and type(head) is nn.Linear
        and head.bias is None
        and lookup.weight is head.weight
        and lookup.weight.requires_grad
        and not (torch.distributed.is_available() and torch.distributed.is_initialized())
    )
    if not is_tied:
        yield None
        return
    tie = Tie()

    def tied(module: nn.Embedding, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
        result: Tensor = _Lookup.apply(out.detach(), given[0], module.weight, module.padding_idx, tie)  # type: ignore[no-untyped-call]
        return result

    handle = lookup.register_forward_hook(tied)
    try:
        yield tie
    finally:
        handle.remove()


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, out: Tensor, ids: Tensor, weight: Tensor, padding: int | None, tie: Tie) -> Tensor:
        ctx.save_for_backward(ids, weight)
        ctx.padding, ctx.tie = padding, tie
        return out.view_as(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, Tensor, None, None]:
        ids, weight = ctx.saved_tensors
        total, ctx.tie.gradient = ctx.tie.gradient, None
        if total is None:  # no token was predicted
            total = torch.zeros_like(weight)
        occurring, places = ids.unique(return_inverse=True)
        # sums in a fixed order on every device, which index_add_ does not
        rows = torch.ops.aten.embedding_dense_backward(grad.contiguous(), places, len(occurring), -1, False)
        if ctx.padding is not None:  # as `nn.Embedding`: the row of the padding token learns from the head alone
            rows[occurring == ctx.padding] = 0
        total[occurring] += rows.to(total.dtype)
        return None, None, total, None, None
