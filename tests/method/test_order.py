"""The lexicographic order on a grid."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from pydantic import ValidationError

from selfpriority.errors import InputError
from selfpriority.method.order import Order
from selfpriority.recipe import PairRules
from tests.method.pools import score_vectors


def test_higher_objective_decides_alone_when_it_differs() -> None:
    order = Order(resolution=1.0)
    assert order.key((7.0, 1.0)) > order.key((5.0, 10.0))
    assert order.decided_by((7.0, 1.0), (5.0, 10.0)) == 0


def test_lower_objective_speaks_when_the_higher_share_a_cell() -> None:
    order = Order(resolution=1.0)
    assert order.key((6.9, 4.1)) > order.key((7.4, 4.0))  # both round to 7
    assert order.decided_by((6.9, 4.1), (7.4, 4.0)) == 1


def test_exact_comparison_at_resolution_zero() -> None:
    assert Order(resolution=0.0).decided_by((7.0, 9.0), (7.0001, 1.0)) == 0


def test_last_objective_is_never_on_the_grid() -> None:
    assert Order(resolution=3.0).decided_by((5.0, 5.0), (5.0, 5.1)) == 1


@pytest.mark.parametrize(("score", "cell"), [(4.49, 4), (4.5, 5), (5.49, 5), (5.5, 6), (6.5, 7)])
def test_cells_are_equally_wide_where_round_would_make_them_even(score: float, cell: float) -> None:
    assert Order(resolution=1.0).key((score, 0.0))[0] == cell


def test_three_objectives_ask_the_second_before_the_third() -> None:
    order = Order(resolution=1.0)
    assert order.decided_by((5.0, 6.0, 1.0), (5.2, 4.0, 9.0)) == 1
    assert order.key((5.0, 6.0, 1.0)) > order.key((5.2, 4.0, 9.0))


def test_threshold_makes_good_enough_equal() -> None:
    order = Order(resolution=1.0, threshold=6.0)
    assert order.decided_by((9.0, 3.0), (6.0, 4.0)) == 1
    assert order.decided_by((9.0, 3.0), (5.4, 4.0)) == 0
    assert order.decided_by((6.0, 3.0), (5.99, 4.0)) == 0  # although both lie in one cell of the grid


@given(score_vectors(3), score_vectors(3), score_vectors(3))
def test_it_is_a_weak_order(a: tuple[float, ...], b: tuple[float, ...], c: tuple[float, ...]) -> None:
    order = Order(resolution=1.0, threshold=7.5)
    ka, kb, kc = order.key(a), order.key(b), order.key(c)
    assert not (ka > kb and kb > ka)
    if ka >= kb and kb >= kc:
        assert ka >= kc
    assert (order.decided_by(a, b) is None) == (ka == kb)


def test_the_controls_turn_the_order_around_or_know_none() -> None:
    safe, useful = (8.0, 2.0), (4.0, 7.0)
    order, swapped, plain = (Order(2.0, by=by) for by in ("priority", "swapped", "sum"))
    assert order.key(safe) > order.key(useful)
    assert swapped.key(safe) < swapped.key(useful)
    assert plain.key(safe) < plain.key(useful)  # 10 against 11
    assert (order.decided_by(safe, useful), swapped.decided_by(safe, useful)) == (0, 1)
    assert plain.decided_by(safe, useful) == 1  # 5 apart, the other 4
    assert plain.decided_by((3.0, 4.0), (4.0, 3.0)) is None
    # on a grid of 2 both are as useful, and the swapped order asks for the safer one
    assert swapped.key((8.0, 7.0)) > swapped.key((4.0, 7.2))
    assert swapped.decided_by((8.0, 7.0), (4.0, 7.2)) == 0


NAMES = ("harmlessness", "helpfulness")


def of(order: str, names: tuple[str, ...] = NAMES) -> Order:
    return Order.of(PairRules(order=order, resolution=2.0), names)


def test_one_objective_alone_is_compared_exactly_and_the_others_never() -> None:
    first, second = of("only:harmlessness"), of("only:helpfulness")
    a, b = (7.2, 1.0), (7.0, 9.0)  # one cell of the grid of 2
    assert first.key(a) > first.key(b)
    assert (first.decided_by(a, b), second.decided_by(a, b)) == (0, 1)
    assert second.key(a) < second.key(b)
    assert first.key((7.0, 1.0)) == first.key((7.0, 9.0))
    assert first.decided_by((7.0, 1.0), (7.0, 9.0)) is None


def test_a_mix_orders_by_the_weighted_sum_and_names_who_weighs_most() -> None:
    safe, useful = (6.0, 2.0), (4.0, 4.5)
    # 6:4 is 44 against 42, 1:1 is 8 against 8.5
    assert of("mix:6,4").key(safe) > of("mix:6,4").key(useful)
    assert of("mix:1,1").key(safe) < of("mix:1,1").key(useful)
    assert of("mix:6,4").decided_by(safe, useful) == 0  # 12 apart, the other 10
    assert of("mix:1,1").decided_by(safe, useful) == 1  # 2 apart, the other 2.5
    assert of("mix:3,2").decided_by((4.0, 4.0), (2.0, 7.0)) is None  # 20 and 20
    assert of("mix:0.1,0.2").decided_by((3.0, 0.0), (1.0, 1.0)) is None  # 0.30000000000000004 is 0.3


def test_of_two_scores_a_mix_of_ones_is_the_plain_sum() -> None:
    vectors = [(a / 2, b / 2) for a in range(2, 8) for b in range(2, 8)]
    for a in vectors:
        for b in vectors:
            assert (of("mix:1,1").key(a) > of("mix:1,1").key(b)) == (of("sum").key(a) > of("sum").key(b))
            assert of("mix:1,1").decided_by(a, b) == of("sum").decided_by(a, b)


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ("only:honesty", "pair.order: 'only:honesty' names no objective; known here: harmlessness, helpfulness"),
        ("mix:6,3,1", "'mix:6,3,1' has 3 weights, but the objectives are harmlessness, helpfulness; give one"),
    ],
)
def test_an_order_that_does_not_fit_the_objectives_is_told(order: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        of(order)


@pytest.mark.parametrize(
    "order", ["upwards", "only:", "only", "mix", "mix:", "mix:6,x", "mix:0,0", "mix:-1,2", "mix:inf,1"]
)
def test_an_order_of_no_known_kind_is_no_recipe(order: str) -> None:
    with pytest.raises(ValidationError, match=r"only:OBJECTIVE or a mix|takes a weight"):
        PairRules(order=order)
