"""Deals an optimizer batch to the ranks that compute it together: by tokens, and equally many passes for each.

The whole batch is known to every rank, so nothing has to be agreed on. Passes are equal in number because some
engines exchange weights in every pass (FSDP): a rank that is done early makes up with a pass of weight 0.
Knows token counts, no tensors and no process group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from selfpriority.recipe import Align
from selfpriority.training.encode import EncodedPool
from selfpriority.training.groups import cut, n_computed

_TWICE = 4 / 3  # what a pool in pieces costs: one more forward pass, which is a third of forward and backward


@dataclass(frozen=True)
class Share:
    """What one rank computes of an optimizer batch."""

    micro_batches: tuple[tuple[int, ...], ...]
    """Indices of pools; those of all ranks together are the batch."""
    n_looks: int
    """Passes without gradients that every rank makes, the first passes over pools in pieces."""
    n_passes: int
    """Passes with gradients that every rank makes, after the others."""


def deal(
    batch: Sequence[int], pools: Sequence[EncodedPool], settings: Align, shares_prompt: bool, n_ranks: int
) -> list[Share]:
    """The shares of all ranks: the costliest pool first, each to the rank with the least to do.

    Args:
        batch: indices into `pools` of one optimizer batch.
        pools: what is trained on.
        settings: `tokens_per_batch` cuts a rank's pools into micro-batches and large pools into pieces.
        shares_prompt: as in `groups.plan_steps`.
        n_ranks: processes that train together.
    """
    costs = {index: _cost(pools[index], settings, shares_prompt) for index in batch}
    hands: list[list[int]] = [[] for _ in range(n_ranks)]
    loads = [0.0] * n_ranks
    for index in sorted(batch, key=lambda index: (-costs[index], index)):
        rank = loads.index(min(loads))
        hands[rank].append(index)
        loads[rank] += costs[index]
    cuts = [cut(hand, pools, settings.tokens_per_batch, shares_prompt) for hand in hands]
    counts = [
        [len(in_pieces([pools[index] for index in micro_batch], settings)) for micro_batch in micro_batches]
        for micro_batches in cuts
    ]
    n_looks = max(sum(n for n in of_rank if n > 1) for of_rank in counts)
    n_passes = max(map(sum, counts))
    return [Share(micro_batches, n_looks, n_passes) for micro_batches in cuts]


def in_pieces(pools: Sequence[EncodedPool], settings: Align) -> list[list[EncodedPool]]:
    """Pools that go through the model together: all of them, or a lone pool over the token budget cut by responses.

    With dropout the two passes of a pool in pieces would not see the same model, so such a pool stays whole.
    """
    [first, *others] = pools
    drops_out = settings.lora is not None and settings.lora.dropout > 0
    if others or first.n_tokens <= settings.tokens_per_batch or drops_out:
        return [list(pools)]
    pieces: list[list[int]] = []
    room = 0
    for index, response in enumerate(first.response_ids):
        if not pieces or len(response) > room:
            pieces.append([])
            room = settings.tokens_per_batch - len(first.prompt_ids)
        pieces[-1].append(index)
        room -= len(response)
    return [[_only(first, piece)] for piece in pieces]


def _only(pool: EncodedPool, responses: Sequence[int]) -> EncodedPool:
    """Some responses of a pool, for a pass that knows no pairs."""
    ids = tuple(pool.response_ids[index] for index in responses)
    weights = tuple(pool.token_weights[index] for index in responses) if pool.token_weights else ()
    return replace(pool, response_ids=ids, pairs=(), gaps=(), learned=(), token_weights=weights)


def smallest(pools: Sequence[EncodedPool]) -> EncodedPool:
    """The least that can be passed through the model: the shortest prompt with its shortest response."""
    shortest = min(pools, key=lambda pool: len(pool.prompt_ids) + min(map(len, pool.response_ids)))
    lengths = list(map(len, shortest.response_ids))
    return _only(shortest, [lengths.index(min(lengths))])


def _cost(pool: EncodedPool, settings: Align, shares_prompt: bool) -> float:
    pieces = in_pieces([pool], settings)
    n_tokens = sum(n_computed(piece, shares_prompt) for [piece] in pieces)
    return n_tokens if len(pieces) == 1 else _TWICE * n_tokens
