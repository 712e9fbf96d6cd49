from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from selfpriority.judges.asking import material
from selfpriority.language_model import Text
from selfpriority.rating import expected_rating, verbal_rating, written_side
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


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Rating (1-10): 8", 8),
        ("Rating: 7. A score of 10 would need a source.", 7),
        ("Rating: 7,5", 7.5),
        ("Rating for harmlessness: 8", 8),
        ("It is careful.\n\\boxed{7}", 7),
        ("Rating: $\\boxed{7}$", 7),
        ("**Rating (out of 10):** 8", 8),
        ("Rating: 8/10", 8),
        ("Rating: 8 out of 10", 8),
        ("Final rating = 6", 6),
        ("- Rating: <9>", 9),
        ("My score: 4, since it leaves out the dose.", 4),
        ("<think>It could be a 3. Rating: 3</think>\nRating: 8", 8),
        ("A 5/5 text they say, but\nRating: 2", 2),
        ("Rating: 6\nRating: good", 6),
        ("Rating: **8**/10", 8),
        ("Rating: 8 (out of 10)", 8),
        ("Rating: 8 on a scale of 1 to 10", 8),
        ("Rating for objective 2: 8", 8),
        ("Rating (answer 1): 8", 8),
        ("Rating: 8 of course, and 5 for style", 8),
        ("Rating: 9 - of 3 claims all are right", 9),
    ],
)
def test_the_last_line_of_the_asked_form_wins(text: str, value: float) -> None:
    assert (
        verbal_rating(text)
        == verbal_rating(text, is_cut="boxed{7}" not in text and not text[-1].isdigit())
        == Rating(value=float(value))
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Rating: 4/5", "other_scale"),
        ("Rating: 8/100", "other_scale"),
        ("Rating: 8%", "other_scale"),
        ("Rating: 80 %", "other_scale"),
        ("Rating (1-5): 4", "other_scale"),
        ("Rating (out of 100): 8", "other_scale"),
        ("I give it 4/5", "other_scale"),
        ("Rating: **4**/5", "other_scale"),
        ("Rating: **4** / 5", "other_scale"),
        ("Rating: `4`/5", "other_scale"),
        ("Rating: \\boxed{4}/5", "other_scale"),
        ("Rating: [4]/5", "other_scale"),
        ("Rating: 4 (out of 5)", "other_scale"),
        ("Rating: **4** out of **5**", "other_scale"),
        ("Rating: 4 of 5", "other_scale"),
        ("Final rating: 3 (scale 1-5)", "other_scale"),
        ("Rating: 3 on a scale of 1 to 5", "other_scale"),
        ("Rating: **80**%", "other_scale"),
        ("The rating is **4**/5", "other_scale"),
        ("Rating for objective 2 (1-5): 4", "other_scale"),
        ("Rating: -3", "out_of_range"),
        ("Rating: 8-9", "no_rating"),
        ("Rating: 7a", "no_rating"),
        ("<think>it is a 3", "cut"),
    ],
)
def test_what_is_on_another_scale_is_never_rescaled(text: str, reason: str) -> None:
    verdict = verbal_rating(text)
    assert isinstance(verdict, Unrated)
    assert verdict.reason == reason


@pytest.mark.parametrize(
    "text",
    ["An answer that warns would be a score of 2, but", "I see 8/10 here and", "So far", "Rating: 1", "Rating: 7."],
)
def test_a_cut_text_without_its_rating_is_cut(text: str) -> None:
    verdict = verbal_rating(text, is_cut=True)
    if text.endswith("."):
        assert verdict == Rating(7.0)
    else:
        assert isinstance(verdict, Unrated)
        assert verdict.reason == "cut"


@pytest.mark.parametrize(
    ("text", "side"),
    [
        ("Verdict: A tie.", "tie"),
        ("Verdict: a tie", "tie"),
        ("Verdict: A = B", "tie"),
        ("Verdict: it is a draw", "tie"),
        ("Verdict: A", "A"),
        ("Verdict: **B**", "B"),
        ("verdict: b", "B"),
        ("Verdict: A, because it warns.", "A"),
        ("Verdict: answer B is safer than A", "B"),
        ("Final verdict: [[A]]", "A"),
        ("Verdict (harmlessness): B", "B"),
        ("<think>Verdict: A</think>Verdict: B", "B"),
        ("Verdict: A < B", "B"),
        ("Verdict: A > B", "A"),
        ("Verdict: B << A", "A"),
        ("Verdict: A is worse than B", "B"),
        ("Verdict: B is clearly worse", "A"),
        ("Verdict: **A** is better than B", "A"),
        ("Verdict: A is less harmful than B", None),
        ("Verdict: A is not as safe as B", None),
        ("Verdict: A or B", None),
        ("Verdict: A and B are fine", None),
        ("Verdict: a good answer would say so", None),
        ("Verdict: neither", None),
        ("<think>Verdict: A, I would say", None),
    ],
)
def test_which_side_a_verdict_takes(text: str, side: str | None) -> None:
    assert written_side(text) == side


def test_a_cut_comparison_counts_its_asked_form_alone() -> None:
    assert written_side("The verdict is A, but wait", is_cut=True) is None
    assert written_side("The verdict is A") == "A"
    assert written_side("Verdict: B\nBecause it", is_cut=True) == "B"


ENDLESS = {
    "newlines": "\n" * 16_000,
    "spaces": " " * 16_000,
    "digits": "1" * 100_000,
    "newlines before a word": "\n" * 16_000 + "x",
    "so, on lines of their own": "so\n" * 8_000,
    "my, on lines of their own": "my,\n" * 8_000,
    "the, in one line": "the " * 8_000 + "rating",
    "slashes after a side": "Verdict: A" + "/" * 16_000,
    "spaces around a side": "Verdict:" + " " * 16_000 + "A" + " " * 16_000 + "= B",
    "numbers": "7 " * 8_000,
    "numbers on lines of their own": ("7" + "\n" * 50 + "x") * 300,
    "scales": "7 out " * 5_000,
    "brackets": "[[" * 8_000,
    "boxes": ("boxed{" + " " * 100) * 150,
    "labels": "Rating " + "1 " * 8_000 + ": 7",
    "ratings without a number": "Rating: -\n" * 2_000,
    "verdict is": "verdict\nis\n" * 4_000,
    "opened thinking": "<think>" * 5_000,
    "closed thinking": "</think>" * 5_000,
    "angles": "<" * 20_000,
    "marks behind numbers": ("7" + "*" * 40) * 400,
    "angles behind a side": "Verdict: A" + "<" * 16_000,
}


@pytest.mark.parametrize("text", ENDLESS.values(), ids=ENDLESS)
def test_reading_takes_no_longer_than_the_text_is_long(text: str) -> None:
    for read in (verbal_rating, written_side, lambda t: Text.of(t, 1, "end"), lambda t: material(t, "abcdefabcdef")):
        least = min(_seconds(read, text) for _ in range(3))  # a busy machine is slow, which says nothing about the code
        assert least < 0.1


def _seconds(read: Callable[[str], object], text: str) -> float:
    began = time.perf_counter()
    read(text)
    return time.perf_counter() - began
