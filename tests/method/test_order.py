"""The lexicographic order on a grid."""

from __future__ import annotations

import pytest
from hypothesis import given

from selfpriority.method.order import Order
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
