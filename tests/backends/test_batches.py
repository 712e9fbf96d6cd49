from hypothesis import given
from hypothesis import strategies as st

from selfpriority.backends.batches import Cost, cut

costs = st.builds(Cost, st.sampled_from("ab"), st.integers(1, 12), st.integers(0, 300))


@given(st.lists(costs, max_size=40), st.integers(1, 2000), st.integers(1, 20))
def test_every_request_is_in_one_batch_and_budgets_hold(costs: list[Cost], tokens: int, most: int) -> None:
    batches = cut(costs, tokens, most)
    assert sorted(i for batch in batches for i in batch) == list(range(len(costs)))
    for batch in batches:
        members = [costs[i] for i in batch]
        n_sequences = sum(cost.sequences for cost in members)
        assert len({cost.group for cost in members}) == 1
        if len(batch) > 1:
            assert n_sequences <= most
            assert n_sequences * max(cost.length for cost in members) <= tokens
    assert cut(costs, tokens, most) == batches


def test_longest_first_and_full_batches() -> None:
    lengths = [10, 40, 20, 40, 10]
    assert cut([Cost("a", 2, n) for n in lengths], tokens_per_batch=160, max_batch=96) == [[1, 3], [2, 0, 4]]


def test_groups_do_not_mix() -> None:
    mixed = [Cost(group, 1, 5) for group in "abab"]
    assert cut(mixed, 1000, 10) == [[0, 2], [1, 3]]


def test_single_request_over_budget_goes_alone() -> None:
    assert cut([Cost("a", 8, 1000), Cost("a", 1, 1)], 100, 4) == [[0], [1]]
