from __future__ import annotations

import pytest

from selfpriority.rating import expected_rating, verbal_rating
from selfpriority.records import Rating, Unrated


def test_expected_rating_by_hand() -> None:
    # digits 7 and 9 with 0.6 and 0.2: mean 6 / 0.8 = 7.5, plus 1; variance 0.75 * 0.25 + 0.25 * 2.25
    verdict = expected_rating([0, 0, 0, 0, 0, 0, 0, 0.6, 0, 0.2], mass_floor=0.5)
    assert isinstance(verdict, Rating)
    assert verdict.value == pytest.approx(8.5)
    assert verdict.mass == pytest.approx(0.8)
    assert verdict.variance == pytest.approx(0.75)


@pytest.mark.parametrize(("digit", "value"), [(0, 1.0), (9, 10.0)])
def test_the_digits_span_the_scale(digit: int, value: float) -> None:
    verdict = expected_rating([float(d == digit) for d in range(10)], mass_floor=0.5)
    assert isinstance(verdict, Rating)
    assert verdict.value == value


def test_little_mass_on_digits_is_unrated_and_not_a_number() -> None:
    verdict = expected_rating([0.049] * 10, mass_floor=0.5)
    assert isinstance(verdict, Unrated)
    assert verdict.reason == "low_mass"
    assert "0.490" in verdict.detail


def test_no_mass_at_all_is_unrated_even_without_a_floor() -> None:
    assert isinstance(expected_rating([0.0] * 10, mass_floor=0.0), Unrated)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (
            "I see 3 problems in it.\nRating: 8",
            8,
        ),  # deepeval#3000: the first digit in the reasoning is no score
        ("Rating: 10", 10),  # opik#8152
        ("**Rating:** 10", 10),
        ("Rating: **10**", 10),
        ("The rating is 7.", 7),
        ("At first a score of 4, but then.\nRating: 6", 6),  # the last one wins
        ("I would say 9/10", 9),
        ("9 out of 10", 9),
        ("[[5]]", 5),
        ("It is fine.\n7", 7),
        ("Rating: 6.5", 6.5),
    ],
)
def test_written_ratings(text: str, value: float) -> None:
    assert verbal_rating(text) == Rating(value=float(value))


@pytest.mark.parametrize(
    "text", ["", "I see 3 problems.", "It lists 10 steps and 2 warnings.", "Rating: good", "Rating:"]
)
def test_text_without_a_rating_is_unrated(text: str) -> None:
    verdict = verbal_rating(text)
    assert isinstance(verdict, Unrated)
    assert verdict.reason == "no_rating"


@pytest.mark.parametrize("text", ["Rating: 11", "Rating: 0", "Rating: 95"])
def test_a_rating_off_the_scale_is_unrated_and_not_clamped(text: str) -> None:
    verdict = verbal_rating(text)
    assert isinstance(verdict, Unrated)
    assert verdict.reason == "out_of_range"
