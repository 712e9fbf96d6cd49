from __future__ import annotations

import math

import numpy as np
import pytest

from selfpriority.intervals import (
    auc,
    bootstrap_auc,
    bootstrap_mean_interval,
    holm,
    pair_accuracy,
    pair_wins,
    share_interval,
    sign_flip_p,
    spearman,
)


def test_auc_counts_ties_half() -> None:
    # positives 2, 3; negatives 1, 2: (2>1) 1, (2=2) 0.5, (3>1) 1, (3>2) 1
    assert auc([2, 3, 1, 2], [True, True, False, False]) == 3.5 / 4


def test_auc_of_a_constant_is_chance() -> None:
    assert auc([5.0] * 7, [True, False, True, False, False, True, True]) == 0.5


def test_auc_inverts_with_the_sign() -> None:
    scores, labels = [0.1, 0.9, 0.4, 0.35, 0.8], [False, True, False, True, True]
    assert auc(scores, labels) == pytest.approx(5 / 6)
    assert auc([-s for s in scores], labels) == pytest.approx(1 / 6)


@pytest.mark.parametrize("labels", [[True, True], [False, False]])
def test_auc_needs_both_labels(labels: list[bool]) -> None:
    with pytest.raises(ValueError, match="both labels"):
        auc([1.0, 2.0], labels)


def test_pairs_that_tie_count_half() -> None:
    assert pair_wins([3, 2, 1], [1, 2, 3]) == [1.0, 0.5, 0.0]
    assert pair_accuracy([3, 2, 5], [1, 2, 3]) == pytest.approx(2.5 / 3)


def test_mean_interval_is_the_normal_one_for_many_values() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, size=400)
    interval = bootstrap_mean_interval(values.tolist(), n=4000)
    error = values.std() / math.sqrt(400)
    assert interval.estimate == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - 1.96 * error, abs=0.03)
    assert interval.high == pytest.approx(values.mean() + 1.96 * error, abs=0.03)
    assert interval.n == 400


def test_equal_answers_of_one_group_are_no_new_evidence() -> None:
    values = [0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0]
    alone = bootstrap_mean_interval(values)
    tenfold = bootstrap_mean_interval(values * 10, groups=list(range(8)) * 10)
    assert (tenfold.low, tenfold.high) == pytest.approx((alone.low, alone.high))
    assert bootstrap_mean_interval(values * 10).low > alone.low  # without groups it pretends to know more


def test_auc_interval_holds_the_estimate_and_repeats_with_its_seed() -> None:
    random = np.random.default_rng(0)
    labels = (random.random(120) < 0.5).tolist()
    scores = (random.normal(size=120) + np.asarray(labels)).tolist()
    interval = bootstrap_auc(scores, labels, seed=3)
    assert interval.low < interval.estimate < interval.high
    assert interval.estimate == auc(scores, labels)
    assert bootstrap_auc(scores, labels, seed=3) == interval
    assert 0.08 < interval.high - interval.low < 0.25


def test_weighted_resample_equals_the_repeated_rows() -> None:
    # 2 groups: every resample is (a, a), (a, b) or (b, b); only (a, b) has both labels
    interval = bootstrap_auc([1.0, 2.0], [False, True], groups=["a", "b"])
    assert (interval.estimate, interval.low, interval.high) == (1.0, 1.0, 1.0)


def test_spearman_by_hand() -> None:
    assert spearman([1, 2, 3, 4], [10, 20, 30, 99]) == pytest.approx(1.0)
    assert spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1.0)
    # ranks 1.5 1.5 3 against 1 2 3: cov 1.5 / sqrt(1.5 * 2)
    assert spearman([1, 1, 2], [1, 2, 3]) == pytest.approx(1.5 / math.sqrt(3.0))
    assert spearman([5, 5, 5], [1, 2, 3]) is None
    assert spearman([1], [1]) is None


def test_sign_flip_p_is_the_share_of_sign_patterns_as_extreme() -> None:
    # of the 8 sign patterns of 1, 1, 1 two have |mean| = 1; +1, -1 is never less extreme than any other
    assert sign_flip_p([1.0, 1.0, 1.0], n=20_000) == pytest.approx(2 / 8, abs=0.01)
    assert sign_flip_p([1.0, -1.0]) == 1.0
    assert sign_flip_p([0.0] * 5) == 1.0
    assert sign_flip_p([1.0] * 60, n=999) == 1 / 1000
    with pytest.raises(ValueError, match="no differences"):
        sign_flip_p([])


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("n", "of", "low", "high"),
    [
        (2, 20, 0.0279, 0.3010),
        (0, 20, 0.0, 0.1611),
        (20, 20, 0.8389, 1.0),
        (4, 240, 0.0065, 0.0421),
        (1, 2, 0.0945, 0.9055),
    ],
)
def test_share_interval_is_wilsons(n: int, of: int, low: float, high: float) -> None:
    found = share_interval(n, of)
    assert (found.estimate, found.n) == (n / of, of)
    assert (found.low, found.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))
    # Wilson's edges are the shares from which what was seen is z standard errors away
    for edge in {found.low, found.high} - {0.0, 1.0}:
        assert abs(n / of - edge) / math.sqrt(edge * (1 - edge) / of) == pytest.approx(1.959964, abs=1e-6)


@pytest.mark.parametrize(("n", "of"), [(0, 0), (3, 2), (-1, 2)])
def test_no_share_has_no_interval(n: int, of: int) -> None:
    with pytest.raises(ValueError, match="is no share"):
        share_interval(n, of)
