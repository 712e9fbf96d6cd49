"""Figures of two-turn ratings by hand: means by turn and category, unrated turns, differences by question."""

from __future__ import annotations

from dataclasses import replace

import pytest

from selfpriority.evaluation.mt_bench import (
    TurnVerdicts,
    compared_systems,
    judge_lines,
    mt_bench_lines,
    system_means,
)
from selfpriority.evaluation.records import Contest
from selfpriority.evaluation.utility_records import JudgeAgreement, MtBenchJudge, MtBenchResult
from selfpriority.records import Rating, Unrated

CATEGORIES = {"a": "writing", "b": "writing", "c": "overall"}  # a category may be called as one of our measures


def both(first: float | None, second: float | None) -> TurnVerdicts:
    return TurnVerdicts(*(Unrated("no_rating") if value is None else Rating(value) for value in (first, second)))


def means(verdicts, categories):
    return {name: system_means(rows, categories) for name, rows in verdicts.items()}


def result(judge, verdicts, categories, **lengths):
    systems = {name: replace(row, **lengths) for name, row in means(verdicts, categories).items()}
    return MtBenchResult(judge, len(categories), 64, systems, compared_systems(verdicts, categories))


CONTEST = Contest("spa", "vanilla")


VERDICTS = {
    "vanilla": {"a": both(4, 6), "b": both(2, 4), "c": both(9, None)},
    "spa": {"a": both(6, 8), "b": both(4, 6), "c": both(5, 7)},
}
PROBE = MtBenchJudge("demo-eval", "probe", "helpfulness")


def test_means_by_turn_and_category():
    told = means(VERDICTS, CATEGORIES)
    assert told["spa"].overall.mean == pytest.approx(6.0)
    assert (told["spa"].turn_1.mean, told["spa"].turn_2.mean) == (pytest.approx(5.0), pytest.approx(7.0))
    assert {name: cell.mean for name, cell in told["spa"].categories.items()} == {"writing": 6.0, "overall": 6.0}


def test_a_question_with_an_unrated_turn_counts_where_it_was_rated_only():
    row = means(VERDICTS, CATEGORIES)["vanilla"]
    assert (row.overall.mean, row.overall.n) == (4.0, 2)
    assert (row.turn_1.mean, row.turn_1.n) == (5.0, 3)
    assert row.turn_2.n == 2
    assert (row.categories["overall"].mean, row.categories["overall"].n) == (None, 0)
    assert row.unrated == {"turn_1": {}, "turn_2": {"no_rating": 1}}


def test_differences_are_paired_by_question_and_tested_in_their_families():
    contest = compared_systems(VERDICTS, CATEGORIES)[CONTEST]
    assert (contest.overall.mean, contest.overall.n) == (2.0, 2)
    assert (contest.turn_1.mean, contest.turn_1.n) == (0.0, 3)
    assert contest.overall.p_holm == contest.overall.p  # two systems: one test overall
    assert contest.turn_2.p_holm == pytest.approx(min(1.0, 2 * contest.turn_2.p))
    assert contest.categories["overall"].p is None


def test_many_questions_show_a_clear_difference():
    names = [f"q{i}" for i in range(40)]
    sides = {"vanilla": {n: both(4, 5) for n in names}, "spa": {n: both(6, 6) for n in names}}
    cell = compared_systems(sides, dict.fromkeys(names, "math"))[CONTEST].overall
    assert (cell.mean, cell.significant) == (1.5, True)


def test_lines_say_who_judged_and_what_is_left_out():
    lines = mt_bench_lines(result(PROBE, VERDICTS, CATEGORIES, words=12.4, cut=0.25))
    assert lines[0].startswith("mt-bench  judged by demo-eval, a probe and not a judge in words: its helpfulness")
    assert "was not measured" in lines[1]
    assert "mt-bench  vanilla: 4.00 (3.00 to 5.00), n 2; turn 1 5.00, turn 2 5.00; 12 words, 25% cut" in lines[2]
    assert lines[2].endswith("; unrated: no_rating 1")
    assert "mt-bench  vanilla by category: writing 4.00, overall not rated" in lines
    assert lines[-1].startswith("mt-bench  spa against vanilla: +2.00 (+2.00 to +2.00), p ")


def test_nothing_rated_is_no_number():
    nothing = {name: {"a": both(None, None)} for name in ("vanilla", "spa")}
    told = result(PROBE, nothing, {"a": "writing"})
    assert told.systems["spa"].overall.mean is None
    lines = mt_bench_lines(told)
    assert any("spa: not rated, n 0" in line and "unrated: no_rating 2" in line for line in lines)


def test_agreement_is_told_with_where_it_was_measured():
    measured = JudgeAgreement("card", "helpfulness", 0.84, 0.81, 0.86, 695)
    (_, told) = judge_lines(replace(PROBE, agreement=measured))
    assert told.startswith("it orders two answers as labels of helpfulness of the kinds it was fitted on do")
    assert "people" not in told
    assert told.endswith("in 0.84 (0.81 to 0.86) of the cases")
    words = MtBenchJudge("self", "expected", agreement=replace(measured, source="check", low=0.31))
    assert judge_lines(words)[0] == "judged by self, asked in words (expected)"
    assert judge_lines(words)[1].endswith("that may be chance, 0.50")
