"""Log-probabilities of given tokens straight from hidden states, without ever holding [tokens, vocabulary].

The output head is met in slices of the vocabulary: forward keeps a running log-sum-exp, backward computes each slice's
probabilities again and writes the slice's weight gradient once. A call whose logits fit a fixed budget keeps them
instead of computing them twice. Knows a weight matrix and token ids; nothing of models or pools.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from selfpriority.training.tied_embeddings import Tie

SLICE_BYTES = 2**26
"""Of the float32 logits that exist at once, whatever the number of tokens and the size of the vocabulary."""
KEPT_BYTES = 2**28
"""Logits that need no more than this are kept for backward: a constant, so memory stays bounded."""


def token_logps(hidden: Tensor, weight: Tensor, targets: Tensor, tie: Tie | None = None) -> Tensor:
    """Logarithm of softmax(hidden @ weight.T)[targets], with gradients for both factors.

    Under autocast the products are computed in its type; sums over the vocabulary are float32 (float64 for float64).

    Args:
        hidden: [N, hidden size]
        weight: [vocabulary, hidden size], the output head without bias.
        targets: [N] token ids.
        tie: takes the gradient of a weight that is the embeddings' as well.

    Returns:
        [N], float32 (float64 for float64).
    """
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    logps: Tensor = _TokenLogps.apply(hidden, weight, targets, dtype, tie)  # type: ignore[no-untyped-call]
    return logps


class _TokenLogps(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype, tie: Tie | None
    ) -> Tensor:
        exact = torch.promote_types(dtype, torch.float32)
        states, head = hidden.detach().to(dtype), weight.detach().to(dtype)
        size = len(targets) * exact.itemsize
        keeps = any(ctx.needs_input_grad[:2]) and size * len(head) <= KEPT_BYTES
        kept: list[Tensor] = []
        highest = torch.full((len(targets),), -torch.inf, dtype=exact, device=hidden.device)
        total = torch.zeros_like(highest)  # of exp(logits - highest), over the slices so far
        chosen = torch.zeros_like(highest)
        for start, end in _slices(len(head), size):
            logits = (states @ head[start:end].T).to(exact)  # [N, end - start]
            before, highest = highest, torch.maximum(highest, logits.amax(dim=1))
            total = total * (before - highest).exp() + (logits - highest[:, None]).exp_().sum(dim=1)
            rows, columns = _within(targets, start, end)
            chosen[rows] = logits[rows, columns]
            if keeps:
                kept.append(logits)
        ctx.save_for_backward(hidden, weight, targets, highest, total, *kept)
        ctx.dtype, ctx.tie = dtype, tie
        return (chosen - highest) - total.log()  # in this order: the difference of two large numbers comes first

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        hidden, weight, targets, highest, total, *kept = ctx.saved_tensors
        states, head = hidden.to(ctx.dtype), weight.to(ctx.dtype)
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        to_states = torch.zeros_like(states, dtype=total.dtype) if wants_hidden else None
        to_weight = torch.empty_like(weight) if wants_weight else None
        for number, (start, end) in enumerate(_slices(len(head), len(targets) * total.itemsize)):
            part = head[start:end]
            logits = kept[number] if kept else (states @ part.T).to(total.dtype)
            slopes = (logits - highest[:, None]).exp_().mul_((-grad / total)[:, None])  # of one-hot minus softmax
            rows, columns = _within(targets, start, end)
            slopes[rows, columns] += grad[rows]
            slopes = slopes.to(ctx.dtype)
            if to_states is not None:
                to_states += slopes @ part
            if to_weight is not None:
                of_slice = to_weight[start:end]  # every row of the gradient is written once
                if of_slice.dtype == slopes.dtype:
                    torch.mm(slopes.T, states, out=of_slice)
                else:
                    of_slice.copy_(slopes.T @ states)
        if ctx.tie is not None and to_weight is not None:
            ctx.tie.gradient, to_weight = to_weight, None
        return None if to_states is None else to_states.to(hidden.dtype), to_weight, None, None, None


def _slices(vocabulary: int, row_bytes: int) -> list[tuple[int, int]]:
    """Ranges of the vocabulary, nearly equal, whose logits need at most `SLICE_BYTES`."""
    n = -(-vocabulary * row_bytes // SLICE_BYTES)
    width = -(-vocabulary // max(n, 1))
    return [(start, min(start + width, vocabulary)) for start in range(0, vocabulary, width)]


def _within(targets: Tensor, start: int, end: int) -> tuple[Tensor, Tensor]:
    """Rows whose target lies in the slice, and the target's column there."""
    rows = ((targets >= start) & (targets < end)).nonzero()[:, 0]
    return rows, targets[rows] - start
