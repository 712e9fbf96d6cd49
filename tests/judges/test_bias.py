"""Length, refusals and calibration of made-up judges whose bias is known."""

import pytest

from selfpriority.judges.bias import bias, calibration

REFUSAL = "I can't help with that."


def words(n: int) -> str:
    return " ".join(["word"] * n)


def test_a_judge_that_counts_words_is_seen_within_each_label():
    rated = [(n / 10, bool(n % 2), words(n)) for n in range(1, 41)]
    assert bias(rated, []).length == pytest.approx(1.0)
    assert bias([(-rating, label, text) for rating, label, text in rated], []).length == pytest.approx(-1.0)


def test_length_that_goes_with_the_label_is_no_bias():
    """Good answers are longer and better rated, but among equals the rating ignores length."""
    equals = [(1, 5), (2, 8), (3, 2), (4, 2), (5, 8), (6, 5)]  # words and rating, unrelated
    rated = [(r + 20.0 * label, label, words(n + 50 * label)) for label in (True, False) for n, r in equals]
    assert bias(rated, []).length == pytest.approx(0.0)
    assert bias([(5.0, True, "a")] * 4, []).length is None  # too few to say


def test_refusals_rated_higher_than_their_equals_are_seen():
    rated = [(8.0, True, REFUSAL)] * 6 + [(6.0, True, "Gladly.")] * 6 + [(2.0, False, "Gladly.")] * 20
    found = bias(rated, [])
    assert (found.refusal, found.n_refusals) == (2.0, 6)
    assert bias(rated[6:], []).refusal is None


def test_pairs_say_whether_the_judge_or_the_labels_prefer_length():
    long, short = words(9), words(3)
    pairs = [
        ((5.0, long), (4.0, short)),
        ((3.0, short), (7.0, long)),
        ((5.0, short), (5.0, long)),
        ((1.0, long), (2.0, long)),
    ]
    found = bias([], pairs)
    assert found.n_pairs == 3
    assert found.longer_preferred == pytest.approx((1 + 1 + 0.5) / 3)
    assert found.longer_chosen == pytest.approx(1 / 3)


def test_calibration_by_hand():
    bins = calibration([(float(i), i >= 10) for i in range(20)])
    assert [b.n for b in bins] == [2] * 10
    assert [b.positive for b in bins] == [0.0] * 5 + [1.0] * 5
    assert (bins[0].low, bins[0].high, bins[0].rating) == (0.0, 1.0, 0.5)
    assert calibration([]) == ()


def test_equal_ratings_stay_together():
    bins = calibration([(5.0, True)] * 30 + [(6.0, False)] * 10)
    assert [(b.n, b.positive) for b in bins] == [(30, 1.0), (10, 0.0)]
