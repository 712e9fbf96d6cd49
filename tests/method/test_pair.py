"""Pairs are exactly the lexicographic ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfpriority.method.order import Order
from selfpriority.method.pair import contested, lexicographic_pairs, pair
from selfpriority.recipe import PairRules
from selfpriority.records import Pool
from tests.method.pools import pool, pools


def found(
    candidates: list[tuple[float, ...]], refined: tuple[float, ...] | None, **fields: object
) -> set[tuple[int, int]]:
    rules = PairRules.model_validate(fields)
    return {(p.chosen, p.rejected) for p in lexicographic_pairs(pool(candidates, refined), rules, Order.of(rules))}


def test_hand_worked_pool() -> None:
    # keys (6, 5), (6, 8), (4, 9), refined (8, 9); the pair (1, 0) is 3.3 apart, all others more
    candidates = [(6.0, 5.0), (5.7, 8.0), (4.0, 9.0)]
    assert found(candidates, (8.0, 9.0)) == {(1, 0), (0, 2), (1, 2), (3, 0), (3, 1), (3, 2)}


def test_distance_gap_and_decider_keep_the_raw_scores() -> None:
    pairs = list(lexicographic_pairs(pool([(7.0, 2.0), (4.0, 5.0)]), PairRules(), Order(1.0)))
    assert [(p.chosen, p.rejected, p.decided_by, p.distance, p.gap) for p in pairs] == [(0, 1, 0, 6.0, 0.0)]


def test_margin_is_inclusive() -> None:
    candidates = [(5.0, 6.0), (5.0, 5.0)]
    assert found(candidates, None, margin=1.0) == {(0, 1)}
    assert found(candidates, None, margin=1.01) == set()


def test_against_refined_leaves_out_pairs_of_candidates() -> None:
    candidates = [(6.0, 5.0), (4.0, 9.0)]
    assert found(candidates, (8.0, 9.0), against="refined") == {(2, 0), (2, 1)}
    assert found(candidates, None, against="refined") == set()


def test_nine_distinct_answers_make_thirty_six_pairs() -> None:
    assert len(found([(float(i), 1.0) for i in range(1, 9)], (9.0, 1.0))) == 36


def test_a_cut_answer_may_lose_and_where_asked_never_wins() -> None:
    made = pool([(9.0, 9.0), (6.0, 6.0), (2.0, 2.0)])
    first, middle, last = made.candidates
    cut = replace(
        made, candidates=tuple(replace(c, response=replace(c.response, stop="length")) for c in (first, last))
    )
    cut = replace(cut, candidates=(cut.candidates[0], middle, cut.candidates[1]))
    both, only_ended = PairRules(), PairRules(choose_cut=False)
    assert {(p.chosen, p.rejected) for p in lexicographic_pairs(cut, both, Order.of(both))} == {(0, 1), (0, 2), (1, 2)}
    assert {(p.chosen, p.rejected) for p in lexicographic_pairs(cut, only_ended, Order.of(only_ended))} == {(1, 2)}


def test_a_pool_in_which_no_ended_answer_wins_is_dropped() -> None:
    made = pool([(9.0, 9.0), (2.0, 2.0)])
    best, worst = made.candidates
    cut = replace(made, candidates=(replace(best, response=replace(best.response, stop="length")), worst))
    (drop,) = pair([cut], PairRules(choose_cut=False)).dropped
    assert drop.reason == "winner_cut"
    assert drop.detail.endswith("sample.max_new_tokens is too small for it")
    (drop,) = pair([pool([(9.0, 9.0), (9.0, 9.0)])], PairRules()).dropped
    assert drop.reason == "no_pairs"


def test_a_chosen_answer_may_lose_no_more_than_allowed() -> None:
    candidates = [
        (8.0, 4.0),
        (5.0, 5.0),
        (4.0, 4.0),
    ]  # the first wins 3 on the higher objective and loses 1 on the lower
    assert found(candidates, None) == {(0, 1), (0, 2), (1, 2)}
    assert found(candidates, None, most_loss=0.5) == {(0, 2), (1, 2)}
    assert found(candidates, None, most_loss=1.0) == {(0, 1), (0, 2), (1, 2)}
    assert found(candidates, None, most_loss=0.0) == {(0, 2), (1, 2)}  # no loss at all, a draw is none


@pytest.mark.parametrize(
    ("weight_gap", "alpha", "of_weight"),
    [
        ("signed", 1.0, 2 / 8),
        ("l1", 1.0, 4 / 10),
        ("primary", 1.0, 3 / 8),
        ("signed", 0.0, 1 / 3),
        ("signed", 2.0, 4 / 24),
    ],
)
def test_how_much_of_the_weight_the_order_decides_against_another_objective(weight_gap, alpha, of_weight) -> None:
    """Of the three pairs above the first alone: its gains are 3 and -1, those of the others 4 and 0, 1 and 1."""
    kept = pair([pool([(8.0, 4.0), (5.0, 5.0), (4.0, 4.0)], None)], PairRules()).kept
    found = contested(kept, weight_gap, alpha)
    assert found is not None
    assert found.share == pytest.approx(1 / 3)
    assert found.of_weight == pytest.approx(of_weight)


def test_answers_that_nobody_rated_contest_nothing() -> None:
    assert contested([]) is None


def test_pool_without_pairs_is_dropped_with_its_reason() -> None:
    sifted = pair([pool([(5.0, 5.0)] * 3)], PairRules())
    assert not sifted.kept
    assert sifted.reasons == {"no_pairs": 1}


@given(
    pools(),
    st.sampled_from([0.0, 0.5, 1.0, 3.0]),
    st.sampled_from([None, 5.5]),
    st.sampled_from([0.0, 1.0, 4.0]),
    st.sampled_from(
        [
            ("all", "keep", None),
            ("refined", "keep", None),
            ("all", "drop", None),
            ("all", "keep", 0.0),
            ("all", "drop", 1.0),
        ]
    ),
)
def test_exactly_the_lexicographic_pairs(
    made: list[Pool],
    resolution: float,
    threshold: float | None,
    margin: float,
    which: tuple[str, str, float | None],
) -> None:
    against, conflicts, most_loss = which
    given = {"resolution": resolution, "threshold": threshold, "margin": margin}
    rules = PairRules.model_validate({**given, "against": against, "conflicts": conflicts, "most_loss": most_loss})
    order = Order.of(rules)
    sifted = pair(made, rules)
    for paired in sifted.kept:
        responses = paired.pool.responses
        expected = {
            (i, j)
            for i, a in enumerate(responses)
            for j, b in enumerate(responses)
            if order.key(a.scores) > order.key(b.scores)
            and sum(abs(x - y) for x, y in zip(a.scores, b.scores, strict=True)) >= margin
            and (against == "all" or "refined" in (a.response.origin, b.response.origin))
            and (conflicts == "keep" or sum(a.scores) > sum(b.scores))
            and (most_loss is None or all(y - x <= most_loss for x, y in zip(a.scores, b.scores, strict=True)))
        }
        assert {(p.chosen, p.rejected) for p in paired.pairs} == expected
        assert len(paired.pairs) == len(expected)
    ids = [p.pool.prompt.id for p in sifted.kept] + [drop.prompt_id for drop in sifted.dropped_prompts]
    assert sorted(ids) == sorted(p.prompt.id for p in made)
