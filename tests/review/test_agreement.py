"""Shares counted by hand."""

import pytest

from selfpriority.review.agreement import between_raters, correlations, preferences, with_judge
from selfpriority.review.reviews import Review


def compared(rater: str, prompt_id: str, better: str) -> Review:
    key = f"c{prompt_id}"
    return Review(rater, "compare", key, prompt_id, ("vanilla", "spa"), ("", ""), {"h": better}, 1.0, "")


def rated(rater: str, prompt_id: str, system: str, rating: int) -> Review:
    return Review(rater, "rate", f"r{prompt_id}{system}", prompt_id, (system,), ("",), {"h": rating}, 1.0, "")


RATINGS = {
    (prompt_id, system): {"h": value}
    for prompt_id, pair in {
        "p1": (3.0, 7.0),
        "p2": (7.0, 3.0),
        "p3": (5.0, 5.0),
        "p4": (2.0, 9.0),
        "p5": (None, 4.0),
    }.items()
    for system, value in zip(("vanilla", "spa"), pair, strict=True)
}


def test_agreement_with_the_judge_leaves_out_ties_of_people_and_halves_those_of_the_judge():
    made = preferences(
        [
            compared("ann", "p1", "spa"),  # as the judge
            compared("ann", "p2", "spa"),  # against the judge
            compared("ann", "p3", "spa"),  # the judge ties
            compared("ann", "p4", "tie"),
            compared("ann", "p5", "spa"),  # the judge has no rating
        ]
    )
    [row] = with_judge(made, RATINGS, "ann", ["h"])
    assert row.share is not None
    assert (row.share.estimate, row.share.n, row.n_ties) == (pytest.approx(0.5), 3, 1)
    assert row.share.low <= 0.5 <= row.share.high


def test_without_a_preference_there_is_no_share():
    [row] = with_judge(preferences([compared("ann", "p1", "tie")]), RATINGS, "ann", ["h"])
    assert (row.share, row.n_ties) == (None, 1)


def test_ratings_of_one_rater_make_comparisons_and_a_comparison_goes_before_them():
    made = preferences(
        [
            rated("ann", "p1", "vanilla", 4),
            rated("ann", "p1", "spa", 9),
            rated("ann", "p2", "spa", 9),
            rated("bob", "p2", "vanilla", 1),
            rated("ann", "p4", "vanilla", 9),
            rated("ann", "p4", "spa", 2),
            compared("ann", "p4", "spa"),
        ]
    )
    assert {(row.prompt_id, row.systems, row.order) for row in made} == {
        ("p1", ("spa", "vanilla"), 1),
        ("p4", ("spa", "vanilla"), 1),
    }


def test_raters_agree_where_both_decide_alike_a_tie_included():
    reviews = [compared("ann", p, better) for p, better in (("p1", "spa"), ("p2", "tie"), ("p3", "spa"), ("p4", "spa"))]
    reviews += [compared("bob", p, better) for p, better in (("p1", "spa"), ("p2", "tie"), ("p3", "vanilla"))]
    [row] = between_raters(preferences(reviews), ["h"])
    assert row.share is not None
    assert (row.who, row.share.n, row.n_ties) == ("ann and bob", 3, 1)
    assert row.share.estimate == pytest.approx(2 / 3)


def test_one_rater_alone_has_nobody_to_agree_with():
    assert between_raters(preferences([compared("ann", "p1", "spa")]), ["h"]) == []


def test_ratings_of_different_prompts_are_ranked_against_the_judges():
    """One answer a prompt orders no two answers, and still says whether judge and person see alike."""
    made = [
        rated("ann", "p1", "spa", 6),  # the judge: 7, 3, 5, 2
        rated("ann", "p2", "spa", 5),
        rated("ann", "p3", "spa", 9),
        rated("ann", "p4", "vanilla", 1),
        rated("ann", "p5", "vanilla", 8),  # unrated by the judge
        rated("bob", "p1", "spa", 1),
        compared("ann", "p2", "vanilla"),
    ]
    assert preferences([review for review in made if review.mode == "rate"]) == []
    [row] = correlations(made, RATINGS, "ann", ["h"])
    assert row.rho is not None
    assert (row.rho.estimate, row.rho.n) == (pytest.approx(0.8), 4)
    assert row.rho.low <= 0.8 <= row.rho.high
    assert [row.rho for row in correlations(made, RATINGS, "bob", ["h"])] == [None]
