"""Steps and micro-batches: every pool once an epoch, budgets held, same seed same order."""

from __future__ import annotations

import random

import pytest

from selfpriority.recipe import Align
from selfpriority.training.encode import EncodedPool
from selfpriority.training.groups import plan_steps


def _pool(name: str, n_prompt: int, *n_responses: int) -> EncodedPool:
    return EncodedPool(
        name,
        (5,) * n_prompt,
        tuple((6,) * n for n in n_responses),
        ((0, 1),),
        (1.0,),
        (1.0,) + (0.0,) * (len(n_responses) - 1),
    )


def test_every_pool_once_an_epoch(encoded_pools):
    plan = plan_steps(encoded_pools(23), Align(epochs=3, tokens_per_step=100, tokens_per_batch=60), seed=1)
    for epoch in range(3):
        visited = [index for step in plan.steps if step.epoch == epoch for index in step.pools]
        assert sorted(visited) == list(range(23))


def test_order_depends_on_seed_and_epoch_only(encoded_pools):
    settings = Align(epochs=2, tokens_per_step=100)
    plan = plan_steps(encoded_pools(23), settings, seed=1)
    assert plan == plan_steps(encoded_pools(23), settings, seed=1)
    assert plan != plan_steps(encoded_pools(23), settings, seed=2)
    first, second = ([step.pools for step in plan.steps if step.epoch == epoch] for epoch in (0, 1))
    assert first != second


def test_optimizer_batches_are_evenly_filled(encoded_pools):
    pools = encoded_pools(40)
    plan = plan_steps(pools, Align(tokens_per_step=200), seed=0)
    filled = [sum(pools[index].n_tokens for index in step.pools) for step in plan.steps]
    longest = max(pool.n_tokens for pool in pools)
    assert sum(filled) / len(filled) <= 200
    assert max(filled) - min(filled) <= 2 * longest


@pytest.mark.parametrize("shares_prompt", [True, False])
def test_micro_batches_hold_the_budget_and_do_not_change_the_steps(encoded_pools, shares_prompt):
    pools = encoded_pools(30)
    small = plan_steps(pools, Align(tokens_per_step=400, tokens_per_batch=150), 0, shares_prompt)
    large = plan_steps(pools, Align(tokens_per_step=400, tokens_per_batch=10_000), 0)
    assert [set(step.pools) for step in small.steps] == [set(step.pools) for step in large.steps]
    assert all(len(step.micro_batches) == 1 for step in large.steps)
    for micro_batch in (micro_batch for step in small.steps for micro_batch in step.micro_batches):
        rows = [pools[index] for index in micro_batch]
        if shares_prompt:
            size = sum(pool.n_tokens for pool in rows)
        else:
            size = sum(len(pool.response_ids) for pool in rows) * max(pool.longest for pool in rows)
        assert size <= 150 or len(micro_batch) == 1


def test_a_pool_over_the_budget_stands_alone():
    pools = [_pool("small", 2, 3, 3), _pool("large", 20, 50, 50), _pool("small too", 2, 3, 3)]
    plan = plan_steps(pools, Align(tokens_per_batch=32), seed=0)
    assert [step.micro_batches for step in plan.steps] == [((1,), (0, 2))]


def test_pools_of_mixed_length_are_packed_without_padding(encoded_pools):
    lengths = random.Random(5)
    mixed = [_pool(f"{n}", lengths.randint(5, 300), *(lengths.randint(1, 400) for _ in range(9))) for n in range(40)]
    settings = Align(tokens_per_batch=4096)
    assert plan_steps(mixed, settings, seed=0).padding < 0.02
    assert plan_steps(mixed, settings, seed=0, shares_prompt=False).padding > 0.02  # what the plain form would pay


def test_padding_is_the_share_of_positions_without_token():
    pools = [_pool("a", 4, 3, 3), _pool("b", 2, 2, 2)]  # 10 and 6 tokens
    assert plan_steps(pools, Align(), 0).padding == 0  # packed into one row
    assert plan_steps(pools, Align(tokens_per_batch=10), 0).padding == 0
    # four rows, 7 + 7 + 4 + 4 tokens in 4 x 7 positions
    assert plan_steps(pools, Align(), 0, shares_prompt=False).padding == pytest.approx(1 - 22 / 28)
