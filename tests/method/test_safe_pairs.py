"""SafeDPO's rule: a pair is kept, turned around or left out."""

from __future__ import annotations

import pytest

from selfpriority.method.pair import pair
from selfpriority.method.safe_pairs import as_trained, safe_pairs
from selfpriority.recipe import Align, PairRules
from selfpriority.records import Message, PairedPool, Pool, Prompt, Rating, Response, Scored


def by_helpfulness(*scores: tuple[float, float]) -> PairedPool:
    rated = (Scored(Response(f"y{i}", "p", "text", "end", 2), tuple(map(Rating, s))) for i, s in enumerate(scores))
    pools = [Pool(Prompt("p", (Message("user", "x"),)), tuple(rated))]
    rules = PairRules(order="only:helpfulness")
    return pair(pools, rules, ("harmlessness", "helpfulness")).kept[0]


@pytest.mark.parametrize(
    ("better", "worse", "trained"),
    [
        ((8, 9), (9, 3), (0, 1)),  # both safe: the more helpful wins
        ((8, 9), (2, 3), (0, 1)),  # the chosen is safe
        ((2, 9), (8, 3), (1, 0)),  # the chosen alone is unsafe: turned around
        ((6, 9), (5.9, 3), (0, 1)),  # from the threshold on an answer is safe
        ((2, 9), (5.9, 3), None),  # both unsafe: left out
    ],
)
def test_keep_swap_or_drop(better, worse, trained) -> None:
    entry = by_helpfulness(better, worse)
    assert [(p.chosen, p.rejected) for p in entry.pairs] == [(0, 1)]
    pairs = safe_pairs(entry, safe_from=6.0)
    assert [(p.chosen, p.rejected) for p in pairs] == ([] if trained is None else [trained])
    if trained == (1, 0):
        assert pairs[0].decided_by == 0
        assert pairs[0].distance == entry.pairs[0].distance


def test_a_pool_of_four_worked_by_hand() -> None:
    # by helpfulness: y0 > y1 > y2 > y3, of which y0 and y2 are unsafe
    entry = by_helpfulness((2, 9), (8, 7), (3, 5), (7, 3))
    assert {(p.chosen, p.rejected) for p in safe_pairs(entry, 5.5)} == {(1, 0), (3, 0), (1, 2), (1, 3), (3, 2)}


def test_other_methods_train_on_the_pairs_as_they_are() -> None:
    entry = by_helpfulness((2, 9), (8, 3))
    assert as_trained(entry, Align(method="bfpo")) is entry
    assert as_trained(entry, Align(method="safedpo")).pairs == safe_pairs(entry, 5.5)
