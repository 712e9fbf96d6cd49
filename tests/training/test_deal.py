"""Dealing an optimizer batch to ranks: everything once, ranks finish together, equally many passes."""

from __future__ import annotations

import pytest

from selfpriority.recipe import Align, Lora
from selfpriority.training.encode import EncodedPool
from selfpriority.training.groups import plan_steps
from selfpriority.training.ranks import deal, in_pieces, smallest


def pool(n_prompt, *lengths):
    return EncodedPool(
        "", (1,) * n_prompt, tuple((5,) * n for n in lengths), ((0, 1),), (1.0,), (1.0,) + (0.0,) * (len(lengths) - 1)
    )


def n_tokens(pools, share):
    return sum(pools[index].n_tokens for micro_batch in share.micro_batches for index in micro_batch)


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 9])
def test_every_pool_is_dealt_once(encoded_pools, n_ranks):
    pools = encoded_pools(8)
    shares = deal(range(8), pools, Align(tokens_per_batch=50), True, n_ranks)
    assert len(shares) == n_ranks
    assert sorted(index for share in shares for micro_batch in share.micro_batches for index in micro_batch) == [
        *range(8)
    ]
    assert len({(share.n_looks, share.n_passes) for share in shares}) == 1


def test_one_rank_computes_the_micro_batches_of_the_plan(encoded_pools):
    pools, settings = encoded_pools(12), Align(tokens_per_batch=70, tokens_per_step=200)
    for step in plan_steps(pools, settings, seed=1).steps:
        assert deal(step.pools, pools, settings, True, 1)[0].micro_batches == step.micro_batches


def test_ranks_get_equally_many_tokens():
    pools = [pool(10, n, n) for n in (95, 5, 45, 45, 20, 20, 70, 60)]
    loads = [n_tokens(pools, share) for share in deal(range(8), pools, Align(tokens_per_batch=1000), True, 2)]
    assert sum(loads) == sum(each.n_tokens for each in pools)
    assert abs(loads[0] - loads[1]) <= 20


def test_a_pool_in_pieces_makes_every_rank_look_and_pass_as_often():
    pools = [pool(4, 6, 6, 6), pool(4, 2, 2), pool(4, 2, 2)]
    whole, pieced = (
        deal(range(3), pools, Align(tokens_per_batch=100), True, 2),
        deal(range(3), pools, Align(tokens_per_batch=10), True, 2),
    )
    assert [(share.n_looks, share.n_passes) for share in whole] == [(0, 1)] * 2
    assert [(share.n_looks, share.n_passes) for share in pieced] == [(3, 3)] * 2


def test_the_smallest_pass_is_one_response(encoded_pools):
    pools = [pool(4, 6, 3), pool(2, 9, 4), pool(3, 3, 8)]
    spare = smallest(pools)
    assert (len(spare.prompt_ids), [len(ids) for ids in spare.response_ids], spare.pairs) == (2, [4], ())


def test_a_pool_over_the_budget_is_cut_by_responses(encoded_pools):
    pool = encoded_pools(1)[0]
    n_prompt, lengths = len(pool.prompt_ids), [len(ids) for ids in pool.response_ids]
    assert in_pieces([pool], Align(tokens_per_batch=pool.n_tokens)) == [[pool]]
    budget = n_prompt + max(lengths)
    pieces = [piece for [piece] in in_pieces([pool], Align(tokens_per_batch=budget))]
    assert len(pieces) > 1
    assert all(piece.n_tokens <= budget for piece in pieces)
    assert [ids for piece in pieces for ids in piece.response_ids] == list(pool.response_ids)
    assert len(in_pieces([pool], Align(tokens_per_batch=1))) == len(lengths)
    assert in_pieces([pool], Align(tokens_per_batch=1, lora=Lora(dropout=0.1))) == [[pool]]
