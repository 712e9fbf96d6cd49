"""float32 weights as bfloat16 without losing what training changed: rounded up or down by a draw, right on average.

A fine-tune moves most weights by less than half of bfloat16's last place, and rounding to the nearest takes all of
that back. Here a weight goes up with the probability of its place between its two neighbours, so the expected weight
is the float32 one, and what sums over many weights, as a change of the log-probabilities does, survives. A weight
that bfloat16 can hold stays as it is. The draws belong to the name of a tensor: the same weights give the same file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

CHUNK = 1 << 22
"""Weights at a time: what rounding or comparing holds beside a tensor is bounded."""
_LOST = 16  # bits of a float32 that a bfloat16 lacks


def rounded(weight: Tensor, name: str) -> Tensor:
    """float32 -> bfloat16 of the same shape; unbiased, and the same for the same weight and name.

    Args:
        weight: any shape, on any device.
        name: of the tensor in its model.
    """
    draws = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big"))
    out = torch.empty(weight.shape, dtype=torch.bfloat16, device=weight.device)
    flat = out.view(-1)
    for part, values in chunks(weight.detach()):
        draw = torch.randint(0, 1 << _LOST, values.shape, generator=draws, dtype=torch.int32).to(values.device)
        # the bits of a float's size ascend with its size, so that adding to them is adding to it
        bits = (values.float().contiguous().view(torch.int32) + draw) >> _LOST
        drawn = bits.to(torch.int16).view(torch.bfloat16)
        flat[part] = torch.where(drawn.isfinite(), drawn, values.to(torch.bfloat16))
    return out


@torch.no_grad()
def to_bfloat16(model: Any) -> Any:
    """The model with its float32 weights `rounded` in place, one at a time, and all else cast."""
    for name, weight in model.named_parameters():
        if weight.dtype is torch.float32:
            weight.data = rounded(weight, name)
    return model.to(torch.bfloat16)


def chunks(tensor: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """A tensor's numbers in order, some at a time, and where they stand."""
    flat = tensor.reshape(-1)
    for first in range(0, len(flat), CHUNK):
        part = slice(first, min(first + CHUNK, len(flat)))
        yield part, flat[part]
