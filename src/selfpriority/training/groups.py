"""Pools to optimizer steps, steps to micro-batches by token budget: a function of pools, settings and seed.

An optimizer step holds about `tokens_per_step` distinct tokens; a micro-batch is what one forward pass
computes and changes memory, never the result. Knows token counts, no tensors and no model.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from selfpriority.recipe import Align
from selfpriority.training.encode import EncodedPool


@dataclass(frozen=True)
class Step:
    """One optimizer batch: indices of pools, cut into micro-batches."""

    epoch: int
    """Counts from 0."""
    micro_batches: tuple[tuple[int, ...], ...]

    @property
    def pools(self) -> tuple[int, ...]:
        """All pools of the batch."""
        return tuple(index for micro_batch in self.micro_batches for index in micro_batch)


@dataclass(frozen=True)
class Plan:
    """The optimizer steps of a whole training, in order."""

    steps: tuple[Step, ...]
    padding: float
    """Share of the computed positions that hold no token."""


def plan_steps(pools: Sequence[EncodedPool], settings: Align, seed: int, shares_prompt: bool = True) -> Plan:
    """Every epoch visits all pools once, in an order drawn from seed and epoch.

    Args:
        pools: what is trained on.
        settings: epochs and the two token budgets.
        seed: decides the order, with the number of the epoch.
        shares_prompt: whether pools are packed into one row or a row is one response (`logps.Form`); it shapes
            the micro-batches and leaves the optimizer steps as they are.
    """
    shapes = {index: _shape(pool, shares_prompt) for index, pool in enumerate(pools)}
    steps = tuple(
        Step(epoch, _micro_batches(batch, shapes, settings.tokens_per_batch))
        for epoch in range(settings.epochs)
        for batch in _optimizer_batches(pools, settings.tokens_per_step, random.Random(f"{seed}:{epoch}"))
    )
    return Plan(steps, _padding(steps, shapes))


def cut(
    batch: Sequence[int], pools: Sequence[EncodedPool], budget: int, shares_prompt: bool
) -> tuple[tuple[int, ...], ...]:
    """Some pools of an optimizer batch, by index, as micro-batches of at most `budget` tokens."""
    return _micro_batches(batch, {index: _shape(pools[index], shares_prompt) for index in batch}, budget)


def n_computed(pool: EncodedPool, shares_prompt: bool) -> int:
    """Tokens that a pass over the pool computes, in the packed or the plain form."""
    return _shape(pool, shares_prompt).n_tokens


@dataclass(frozen=True)
class _Shape:
    n_rows: int
    width: int
    n_tokens: int


def _shape(pool: EncodedPool, shares_prompt: bool) -> _Shape:
    if shares_prompt:  # packed, a token is a row of its own: nothing is padded to anything
        return _Shape(pool.n_tokens, 1, pool.n_tokens)
    n_rows = len(pool.response_ids)
    return _Shape(n_rows, pool.longest, pool.n_tokens + (n_rows - 1) * len(pool.prompt_ids))


def _optimizer_batches(pools: Sequence[EncodedPool], budget: int, draw: random.Random) -> list[list[int]]:
    order = list(range(len(pools)))
    draw.shuffle(order)
    total = sum(pool.n_tokens for pool in pools)
    n_batches = ceil(total / budget)  # evenly filled: no small last batch that weighs as much as a full one
    batches: list[list[int]] = [[] for _ in range(n_batches)]
    seen = 0
    for index in order:
        middle = seen + pools[index].n_tokens / 2
        batches[int(middle * n_batches / total)].append(index)
        seen += pools[index].n_tokens
    return [batch for batch in batches if batch]


def _micro_batches(batch: Sequence[int], shapes: Mapping[int, _Shape], budget: int) -> tuple[tuple[int, ...], ...]:
    """Longest first, so that rows of one forward pass are alike; a pool over the budget stands alone."""
    batches: list[list[int]] = []
    n_rows = width = 0
    for index in sorted(batch, key=lambda index: (-shapes[index].width, -shapes[index].n_tokens, index)):
        if batches and (n_rows + shapes[index].n_rows) * width <= budget:
            batches[-1].append(index)
            n_rows += shapes[index].n_rows
        else:
            batches.append([index])
            n_rows, width = shapes[index].n_rows, shapes[index].width
    return tuple(map(tuple, batches))


def _padding(steps: Sequence[Step], shapes: Mapping[int, _Shape]) -> float:
    n_tokens = n_positions = 0
    for micro_batch in (micro_batch for step in steps for micro_batch in step.micro_batches):
        rows = [shapes[index] for index in micro_batch]
        n_tokens += sum(row.n_tokens for row in rows)
        n_positions += sum(row.n_rows for row in rows) * max(row.width for row in rows)
    return 1 - n_tokens / n_positions if n_positions else 0.0
