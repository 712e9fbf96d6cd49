"""Differences that are chance are seldom called significant, real ones are found.

`ratings.json` holds real ratings, numbers only: the sampled answers of one system to 64 shipped prompts, rated
by a fitted judge on two objectives ([prompts, answers, objectives]). Two random answers of a prompt are the
system against itself.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from selfpriority.evaluation.summary import summarise
from selfpriority.evaluation.records import Verdict
from selfpriority.evaluation.significance import corrected, difference, wins, won_or_lost
from selfpriority.recipe import Evaluate
from selfpriority.records import Rating

RATINGS = json.loads((Path(__file__).parent / "ratings.json").read_text("utf-8"))
OBJECTIVES = ("harmlessness", "helpfulness")


def against_itself(seed: int, gain: float = 0.0) -> list[dict[str, tuple[float, float]]]:
    """Per objective: prompt -> ratings of two different answers of one system, the first raised by `gain`."""
    random = np.random.default_rng(seed)
    drawn = [random.permutation(len(answers))[:2] for answers in RATINGS]
    return [
        {
            str(number): (answers[first][objective] + gain, answers[second][objective])
            for number, (answers, (first, second)) in enumerate(zip(RATINGS, drawn, strict=True))
        }
        for objective in range(len(OBJECTIVES))
    ]


@pytest.mark.parametrize("objective", [0, 1], ids=OBJECTIVES)
def test_a_system_against_itself_is_significant_in_five_per_cent_of_the_draws(objective: int) -> None:
    found = [difference(against_itself(seed)[objective])["p"] <= 0.05 for seed in range(200)]
    assert 0.03 <= np.mean(found) <= 0.07


def test_the_intervals_of_a_system_against_itself_leave_out_zero_as_seldom() -> None:
    cells = [difference(against_itself(seed)[0]) for seed in range(200)]
    assert 0.03 <= np.mean([not cell["low"] <= 0.0 <= cell["high"] for cell in cells]) <= 0.08


def test_corrected_over_both_objectives_a_false_alarm_on_either_is_as_rare_as_one_test_alone() -> None:
    families = [corrected(dict(enumerate(map(difference, against_itself(seed))))) for seed in range(200)]
    assert np.mean([any(cell["significant"] for cell in family.values()) for family in families]) <= 0.07


def test_a_planted_difference_is_found() -> None:
    found = [difference(against_itself(seed, gain=1.0)[0]) for seed in range(20)]
    assert all(cell["p"] <= 0.05 and cell["low"] > 0 for cell in found)
    assert np.mean([cell["mean"] for cell in found]) == pytest.approx(1.0, abs=0.2)


def test_a_whole_summary_finds_the_planted_objective_and_no_other() -> None:
    harmless, _ = against_itself(0, gain=1.5)
    _, helpful = against_itself(0)
    systems = {
        name: [Verdict(p, "", "Yes.", "end", (Rating(harmless[p][i]), Rating(helpful[p][i]))) for p in harmless]
        for name, i in (("vanilla", 1), ("spa", 0))
    }
    cells = summarise(systems, OBJECTIVES, Evaluate())["difference"]["spa_vs_vanilla"]
    assert {name: cells[name]["significant"] for name in OBJECTIVES} == {"harmlessness": True, "helpfulness": False}
    assert cells["harmlessness"]["p_holm"] == pytest.approx(2 * cells["harmlessness"]["p"])


def test_wins_come_with_intervals_and_their_own_test() -> None:
    cell = wins([1] * 30 + [0] * 50 + [-1] * 20)
    assert (cell["win"], cell["tie"], cell["lose"], cell["n"]) == (0.3, 0.5, 0.2, 100)
    low, high = cell["intervals"]["win"]
    assert (low, high) == pytest.approx((0.21, 0.39), abs=0.02)
    assert 0.1 < cell["p"] < 0.35
    assert wins([])["win"] is None


def test_ratings_at_most_a_tie_apart_decide_nothing() -> None:
    paired = {"a": (6.1, 5.5), "b": (6.0, 5.5), "c": (5.0, 5.5), "d": (4.9, 5.5)}
    assert won_or_lost(paired, 0.5) == [1, 0, 0, -1]


def test_what_was_not_tested_does_not_count_as_a_comparison() -> None:
    cells = corrected({"a": {"p": 0.02}, "b": {"p": None}, "c": {"p": 0.5}})
    assert cells["a"] == {"p": 0.02, "p_holm": 0.04, "significant": True}
    assert cells["b"] == {"p": None, "p_holm": None, "significant": False}
