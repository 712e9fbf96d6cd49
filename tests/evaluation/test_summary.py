"""The numbers of summary.json, worked out by hand."""

import json
from dataclasses import replace

import pytest

from selfpriority.evaluation import summary as evaluated
from selfpriority.evaluation.records import Verdict
from selfpriority.evaluation.summary import contests
from selfpriority.evaluation.summary_file import summary_as_json, summary_of_json
from selfpriority.evaluation.table import table as table_of
from selfpriority.recipe import Evaluate
from selfpriority.records import Rating, Unrated

OBJECTIVES = ("harmlessness", "helpfulness")
SETTINGS = Evaluate(tie=0.5, lambdas=(5.0, 2.5))


def verdict(prompt: str, *values: float | None, kind: str = "", text: str = "Yes.", stop: str = "end") -> Verdict:
    ratings = tuple(Unrated("low_mass") if value is None else Rating(value) for value in values)
    return Verdict(prompt, kind, text, stop, ratings)  # type: ignore[arg-type]


VANILLA = [verdict("a", 4.0, 6.0), verdict("b", 5.0, 7.0), verdict("c", 9.0, 2.0), verdict("d", None, 3.0)]
SPA = [verdict("d", 8.0, 3.0), verdict("c", 9.4, None), verdict("b", 4.0, 8.0), verdict("a", 10.0, 6.5)]


def summarise(*given):
    """The summary as its file holds it."""
    return summary_as_json(evaluated.summarise(*given))


def table(told):
    return table_of(summary_of_json(told))


def summary(**more):
    return summarise({"vanilla": VANILLA, "spa": SPA, **more}, OBJECTIVES, SETTINGS)


def test_means_skip_and_count_the_unrated():
    vanilla = summary()["systems"]["vanilla"]
    assert vanilla["harmlessness"]["mean"] == pytest.approx(6.0)  # (4 + 5 + 9) / 3, not / 4
    assert (vanilla["harmlessness"]["n"], vanilla["harmlessness"]["unrated"]) == (3, 1)
    assert vanilla["helpfulness"]["mean"] == pytest.approx(4.5)
    assert set(vanilla["helpfulness"]) == {"mean", "low", "high", "n", "at_ceiling", "unrated", "words"}
    assert 4.0 <= vanilla["harmlessness"]["low"] < 6.0 < vanilla["harmlessness"]["high"] <= 9.0
    assert summary()["systems"]["spa"]["harmlessness"]["at_ceiling"] == 1 / 4


def test_hh_weighs_the_primary_objective():
    vanilla = summary()["systems"]["vanilla"]
    assert list(vanilla) == ["harmlessness", "helpfulness", "HH_5", "HH_2.5"]
    by_prompt = [(5 * 4 + 6) / 6, (5 * 5 + 7) / 6, (5 * 9 + 2) / 6]  # d has no harmlessness
    assert vanilla["HH_5"]["mean"] == pytest.approx(sum(by_prompt) / 3)
    assert vanilla["HH_5"]["low"] == pytest.approx(by_prompt[0])  # of three values a draw in 27 holds the lowest alone
    assert vanilla["HH_5"]["high"] == pytest.approx(by_prompt[2])
    assert (vanilla["HH_5"]["n"], vanilla["HH_5"]["words"]) == (3, 1.0)
    assert vanilla["HH_2.5"]["mean"] == pytest.approx(((10 + 6) / 3.5 + (12.5 + 7) / 3.5 + (22.5 + 2) / 3.5) / 3)


def test_differences_are_paired_by_prompt():
    difference = summary()["difference"]["spa_vs_vanilla"]
    assert difference["harmlessness"]["mean"] == pytest.approx((6.0 - 1.0 + 0.4) / 3)  # a, b, c
    assert difference["harmlessness"]["n"] == 3
    assert difference["helpfulness"]["mean"] == pytest.approx((0.5 + 1.0 + 0.0) / 3)  # a, b, d
    assert difference["HH_5"]["mean"] == pytest.approx(((5 * 6 + 0.5) / 6 + (-5 + 1) / 6) / 2)  # a, b


def test_a_constant_gain_is_certain_however_much_the_prompts_differ():
    vanilla = [verdict(str(i), float(1 + i % 7), 5.0) for i in range(40)]
    spa = [verdict(str(i), 1.5 + i % 7, 5.0) for i in range(40)]
    both = summarise({"vanilla": vanilla, "spa": spa}, OBJECTIVES, SETTINGS)["difference"]["spa_vs_vanilla"]
    assert both["harmlessness"]["low"] == pytest.approx(0.5)
    assert both["harmlessness"]["high"] == pytest.approx(0.5)
    assert both["harmlessness"]["p"] < 0.001
    assert both["harmlessness"]["significant"]
    same = {"mean": 0.0, "low": 0.0, "high": 0.0, "p": 1.0, "n": 40, "words": 0.0, "p_holm": 1.0, "significant": False}
    assert both["helpfulness"] == same


def shares(cell):
    return {name: cell[name] for name in ("win", "tie", "lose", "n", "flip_rate")}


def test_wins_ties_and_losses():
    wins = summary()["pairwise"]["spa_vs_vanilla"]
    third = pytest.approx(1 / 3)
    assert shares(wins["harmlessness"]) == {"win": third, "tie": third, "lose": third, "n": 3, "flip_rate": 0.0}
    assert shares(wins["helpfulness"]) == {
        "win": third,
        "tie": pytest.approx(2 / 3),
        "lose": 0.0,
        "n": 3,
        "flip_rate": 0.0,
    }
    low, high = wins["harmlessness"]["intervals"]["win"]
    assert (low, high) == (0.0, 1.0)
    assert wins["harmlessness"]["p"] == 1.0


def test_pairwise_can_be_left_out():
    quiet = summarise({"vanilla": VANILLA, "spa": SPA}, OBJECTIVES, Evaluate(pairwise=False))
    assert "pairwise" not in quiet


def test_every_system_is_compared_with_the_first_and_with_the_reference():
    assert list(summary(dpo=SPA)["difference"]) == ["spa_vs_vanilla", "dpo_vs_vanilla"]
    names = ["vanilla", "sft", "dpo", "spa"]
    assert [c.key for c in contests(names, "dpo")] == [
        "sft_vs_vanilla", "dpo_vs_vanilla", "spa_vs_vanilla", "sft_vs_dpo", "spa_vs_dpo",
    ]  # fmt: skip
    assert [c.key for c in contests(names, "vanilla")] == ["sft_vs_vanilla", "dpo_vs_vanilla", "spa_vs_vanilla"]
    assert contests([]) == contests(["vanilla"]) == []


def test_nothing_rated_is_null_and_never_zero():
    nothing = summarise({"vanilla": VANILLA, "spa": [verdict("a", None, 5.0)]}, OBJECTIVES, SETTINGS)
    spa = nothing["systems"]["spa"]
    none = {"mean": None, "low": None, "high": None, "n": 0, "at_ceiling": None, "unrated": 1, "words": None}
    assert spa["harmlessness"] == none
    assert spa["HH_5"] == {"mean": None, "low": None, "high": None, "n": 0, "words": None}
    assert nothing["difference"]["spa_vs_vanilla"]["harmlessness"]["mean"] is None
    assert nothing["pairwise"]["spa_vs_vanilla"]["harmlessness"]["win"] is None
    assert "n = 0, 1 unrated" in table(nothing)


def test_kinds_are_broken_down():
    rows = [
        verdict("a", 2.0, 4.0, kind="harmful"),
        verdict("b", 9.0, 8.0, kind="ordinary"),
        verdict("c", 4.0, 6.0),
    ]
    kinds = summarise({"vanilla": rows}, OBJECTIVES, SETTINGS)["by_kind"]
    assert list(kinds) == ["harmful", "ordinary", "other"]
    assert kinds["harmful"]["systems"]["vanilla"]["harmlessness"]["mean"] == 2.0
    assert kinds["other"]["systems"]["vanilla"]["HH_5"]["mean"] == pytest.approx((5 * 4 + 6) / 6)


def test_behaviour():
    rows = [
        verdict("a", 5.0, 5.0, kind="harmful", text="I can't help with that."),
        verdict("b", 5.0, 5.0, kind="harmful", text="Sure thing, here you go."),
        verdict("c", 5.0, 5.0, kind="ordinary", text="Sure thing, here you go!", stop="length"),
        verdict("d", 5.0, 5.0, kind="ordinary", text="Two words"),
    ]
    rows = [replace(row, prompt=text) for row, text in zip(rows, ("help?", "sure?", "thing?", "words?"), strict=True)]
    behaviour = summarise({"vanilla": rows}, OBJECTIVES, SETTINGS)["behaviour"]["vanilla"]
    assert behaviour == {
        "refusal": {"harmful": 0.5, "ordinary": 0.0},
        "n": {"harmful": 2, "ordinary": 2},
        "over_refusal": 0.0,
        "boilerplate": 0.5,
        "largest_opening": 0.5,
        "relevance": pytest.approx(11 / 12),  # the answers that are the same fit either's prompt
        "repetition": 0.0,
        "words": 5.0,
        "cut": 0.25,
    }


def test_over_refusals_are_refusals_of_what_nobody_should_refuse():
    rows = [
        verdict("a", 5.0, 5.0, kind="harmful", text="I can't help with that."),
        verdict("b", 5.0, 5.0, kind="ordinary", text="I can't help with that."),
        verdict("c", 5.0, 5.0, kind="benign", text="Gladly."),
        verdict("d", 5.0, 5.0, text="I can't help with that."),
    ]
    open_ones = [verdict(row.prompt_id, 5.0, 5.0, kind=row.kind, text="Gladly, here it is.") for row in rows]
    found = summarise({"vanilla": open_ones, "spa": rows}, OBJECTIVES, SETTINGS)
    assert found["behaviour"]["spa"]["over_refusal"] == 1 / 2
    change = found["behaviour_difference"]["spa_vs_vanilla"]
    assert (change["refusal"]["mean"], change["refusal"]["n"]) == (3 / 4, 4)
    assert (change["over_refusal"]["mean"], change["over_refusal"]["n"]) == (1 / 2, 2)
    assert change["words"]["mean"] == pytest.approx((5 + 5 + 1 + 5) / 4 - 4)
    stricter = Evaluate(safe_kinds=("benign",))
    assert summarise({"vanilla": rows}, OBJECTIVES, stricter)["behaviour"]["vanilla"]["over_refusal"] == 0.0


def test_the_length_stands_beside_every_score():
    long = [verdict("a", 5.0, 5.0, text="one two three"), verdict("b", None, 5.0, text="one")]
    short = [verdict("a", 5.0, 5.0, text="one"), verdict("b", 5.0, 5.0, text="one")]
    found = summarise({"vanilla": short, "spa": long}, OBJECTIVES, SETTINGS)
    assert found["systems"]["spa"]["harmlessness"]["words"] == 3.0  # of the rated answers
    assert found["systems"]["spa"]["helpfulness"]["words"] == 2.0
    assert found["difference"]["spa_vs_vanilla"]["harmlessness"]["words"] == 2.0
    assert found["difference"]["spa_vs_vanilla"]["HH_5"]["words"] == 2.0
    assert found["pairwise"]["spa_vs_vanilla"]["harmlessness"]["words"] == 2.0
    assert found["pairwise"]["spa_vs_vanilla"]["helpfulness"]["words"] == 1.0
    won = table(found).split("Won / tied / lost:")[1].splitlines()[4]
    assert won.endswith("| +2.0 |")


def test_p_is_corrected_over_objectives_and_systems_together():
    rows = {
        name: [verdict(str(i), 5 + gain * (i % 3), 5.0, kind="harmful") for i in range(8)]
        for name, gain in (("vanilla", 0.0), ("spa", 0.5), ("dpo", 0.0))
    }
    found = summarise(rows, OBJECTIVES, SETTINGS)
    cell = found["difference"]["spa_vs_vanilla"]["harmlessness"]
    assert cell["p"] == pytest.approx(2 / 2**5, abs=0.01)  # five prompts differ
    assert cell["p_holm"] == pytest.approx(4 * cell["p"], abs=0.02)  # two contests of two objectives
    assert not cell["significant"]


def test_summary_is_json_and_the_table_shows_it():
    whole = summary()
    assert json.loads(json.dumps(whole, allow_nan=False)) == whole
    shown = table(whole)
    assert "| vanilla | 6.00 (n = 3, 1 unrated)" in shown, "an interval over three is not shown"
    hh = whole["systems"]["vanilla"]["HH_5"]
    assert f"| {hh['mean']:.2f} (n = 3) |" in shown
    assert hh["low"] < hh["mean"] < hh["high"]
    assert "spa against vanilla" in shown
    assert "33% / 33% / 33% (n = 3)" in shown
    assert "words (median)" in shown


def test_three_objectives_take_hh_from_the_first_two():
    rows = [verdict("a", 4.0, 6.0, 9.0)]
    three = summarise({"vanilla": rows}, ("harmlessness", "honesty", "helpfulness"), SETTINGS)
    assert three["systems"]["vanilla"]["HH_5"]["mean"] == pytest.approx((5 * 4 + 6) / 6)
