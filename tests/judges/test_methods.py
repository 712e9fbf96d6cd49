"""Which method is recommended: by hand."""

from __future__ import annotations

from selfpriority.intervals import Interval
from selfpriority.judges.methods import Method, MethodCell, MethodRow, compared


def row(name: str, low: float, seconds: float = 1.0, second: bool = True, is_for_training: bool = True) -> MethodRow:
    first = MethodCell("honesty", Interval(0.8, low, 0.9, 100), None, 100, 0.0, low > 0.5, "")
    last = MethodCell("helpfulness", Interval(0.8, 0.6, 0.9, 100), None, 100, 0.0, second, "")
    return MethodRow(Method(name, f"score.method={name}", is_for_training), (first, last), seconds)


def test_the_best_lower_bound_wins_and_of_equal_ones_the_cheaper() -> None:
    rows = (row("a", 0.611, 9.0), row("b", 0.649, 5.0), row("c", 0.651, 3.0), row("d", 0.646, 4.0))
    assert compared("m", rows).recommended == "c"
    assert compared("m", rows[:2] + rows[3:]).recommended == "d"  # 0.65 both, as they are shown
    assert compared("m", rows).advice == ("recommended: c (at least 0.65 in honesty, chance is 0.50): score.method=c")


def test_what_may_be_chance_is_said_or_not_recommended() -> None:
    doubtful = compared("m", (row("a", 0.6, second=False),))
    assert doubtful.advice.startswith("recommended: a (at least 0.60 in honesty, chance is 0.50; in helpfulness it may")
    none = compared("m", (row("a", 0.48), MethodRow(Method("b", "score.method=b"), cannot="a server shows no states")))
    assert none.recommended is None
    assert none.advice == "recommended: none; no method is better than chance in honesty"
    assert compared("m", ()).recommended is None


def test_a_judge_of_the_evaluation_is_measured_and_not_trained_on() -> None:
    rows = (row("a", 0.6), row("outside", 0.9, is_for_training=False))
    assert compared("m", rows).recommended == "a"


def test_pairs_count_where_there_are_no_single_answers() -> None:
    pairs = MethodCell("honesty", None, Interval(0.7, 0.618, 0.8, 40), 80, 0.0, True, "")
    assert pairs.low == 0.62
    assert MethodCell("honesty", None, None, 80, 1.0, False, "").low == 0.0
