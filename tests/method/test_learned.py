"""Whose likelihood is learned: pools whose wins and losses are counted by hand."""

from __future__ import annotations

import pytest

from selfpriority.method.learned import learned
from selfpriority.method.pair import pair
from selfpriority.recipe import PairRules
from selfpriority.records import Message, Pair, PairedPool, Pool, Prompt, Rating, Response, Scored


def pool(*scores: tuple[float, float]) -> Pool:
    rated = (Scored(Response(f"y{i}", "p", "text", "end", 2), tuple(map(Rating, s))) for i, s in enumerate(scores))
    return Pool(Prompt("p", (Message("user", "x"),)), tuple(rated))


def with_pairs(given: Pool, *pairs: tuple[int, int]) -> PairedPool:
    return PairedPool(given, tuple(Pair(a, b, decided_by=0, distance=1.0, gap=1.0) for a, b in pairs))


def test_of_a_whole_order_one_answer_is_best_and_half_are_winners() -> None:
    # from the best: y3 (4 wins), y0 (3 wins, 1 loss), y2 (2 and 2), y4 (1 and 3), y1 (4 losses)
    entry = pair([pool((8, 5), (2, 5), (6, 5), (9.5, 5), (4, 5))], PairRules()).kept[0]
    assert len(entry.pairs) == 10
    assert learned(entry, "best") == {3: 1.0}
    assert learned(entry, "winners") == {0: 0.5, 3: 0.5}
    assert learned(entry, "chosen") == {0: 1.0, 2: 1.0, 3: 1.0, 4: 1.0}


def test_the_best_leads_in_wins_over_losses_and_not_in_wins_alone() -> None:
    # y0 wins 2 and loses none; y1 wins 3 and loses 2
    entry = with_pairs(pool(*[(5, 5)] * 7), (0, 1), (0, 5), (6, 1), (1, 2), (1, 3), (1, 4))
    assert learned(entry, "best") == {0: 1.0}
    assert learned(entry, "winners") == {0: pytest.approx(1 / 3), 1: pytest.approx(1 / 3), 6: pytest.approx(1 / 3)}


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        (((6, 9), (7, 2), (3, 3)), 1),  # the first objective decides
        (((7, 2), (7, 3), (3, 3)), 1),  # then the second
        (((7, 3), (7, 3), (3, 3)), 0),  # then the place
    ],
)
def test_among_equal_leads_ratings_decide_in_order_of_priority_and_then_the_place(scores, best) -> None:
    assert learned(with_pairs(pool(*scores), (0, 2), (1, 2)), "best") == {best: 1.0}


def test_under_a_sum_too_equal_leads_go_by_priority_and_stay_so() -> None:
    # 9 and 8.75, under half a point apart in L1, so neither beats the other; both beat y2
    scores = ((4.5, 4.5), (4.6, 4.15), (1, 1))
    entry = pair([pool(*scores)], PairRules(order="sum")).kept[0]
    assert {(p.chosen, p.rejected) for p in entry.pairs} == {(0, 2), (1, 2)}
    assert learned(entry, "best") == {1: 1.0}
    assert learned(pair([pool((3, 6), (6, 3), (1, 1))], PairRules(order="sum")).kept[0], "best") == {1: 1.0}


@pytest.mark.parametrize("pairs", [((0, 1), (1, 0)), ((0, 1), (1, 2), (2, 0))], ids=["both ways", "a circle"])
def test_where_nobody_wins_more_than_he_loses_nothing_is_learned(pairs) -> None:
    """Pairs of one's own may contradict each other: they are compared as they stand."""
    entry = with_pairs(pool((5, 5), (5, 5), (5, 5)), *pairs)
    assert learned(entry, "best") == {}
    assert learned(entry, "winners") == {}
    assert learned(entry, "chosen") == dict.fromkeys({a for a, _ in pairs}, 1.0)
