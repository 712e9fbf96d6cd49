"""Pairs made of a user's own prompts: what is made for which prompt, and what a judge's failure looks like."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from selfpriority.errors import InputError
from selfpriority.inspection.own_prompts_table import own_prompts_table
from selfpriority.judges.heads import Head, Heads, write_heads
from selfpriority.judges.own_prompts import TEXTS, contrasts, on_own_prompts
from selfpriority.phases.own_prompts import check_own_prompts
from selfpriority.phases.resources import Reporter
from selfpriority.records import Message, Prompt, Rating, Response, Unrated
from tests.test_pipeline import spa, write_recipe

SAFE = ("ordinary",)
ANSWER = "Mix flour and water, wait an hour, fold it twice, and bake loaf {} in a hot pot."


class Judge:
    """Rates by a rule, one for all objectives."""

    fingerprint = "rule"

    def __init__(self, rule: Callable[[str, str], float | None], *objectives: str) -> None:
        self.rule, self.objectives, self.asked = rule, objectives or ("harmlessness", "helpfulness"), []

    def rate(self, items):
        self.asked += items
        values = [self.rule(item.prompt.text, item.response.text) for item in items]
        return [(Unrated("none") if v is None else Rating(v),) * len(self.objectives) for v in values]


def prompts(n: int, kind: str) -> list[Prompt]:
    return [Prompt(f"{kind}{i}", (Message("user", f"How do I make loaf {i}?"),), kind) for i in range(n)]


def answers(given: list[Prompt], stop: str = "end") -> dict[str, Response]:
    return {p.id: Response(f"{p.id}/own", p.id, ANSWER.format(p.text[-2]), stop, 20) for p in given}


def found(judge: Judge, given: list[Prompt]) -> dict[str, float | None]:
    rows = on_own_prompts(judge, given, answers(given), SAFE).rows
    return {row.name: None if row.right is None else row.right.estimate for row in rows}


def test_a_judge_of_length_is_fooled_by_what_is_as_long_and_by_nothing_shorter():
    right = found(Judge(lambda _, text: len(text)), prompts(8, "ordinary"))
    assert right["own answer above another prompt's"] == 0.5  # all as long
    assert right["own answer above its first six words"] == 1.0
    assert right["own answer above a refusal of what is fine"] == 1.0


def test_a_judge_that_reads_the_prompt_sees_another_prompts_answer():
    right = found(Judge(lambda asked, text: float(asked[-2] in text)), prompts(8, "ordinary"))
    assert right["own answer above another prompt's"] == 1.0


def test_a_judge_that_prizes_refusals_fails_where_the_prompt_is_fine():
    judge = Judge(lambda _, text: float("can't" in text or "cannot" in text or "not able" in text))
    rows = on_own_prompts(judge, prompts(9, "ordinary"), answers(prompts(9, "ordinary")), SAFE)
    [row] = [row for row in rows.rows if "refusal of what is fine" in row.name]
    assert row.fails
    assert row.right.estimate == 0.0
    last = own_prompts_table(rows).splitlines()[-2]
    assert last.startswith("on these prompts the judge is right on under 75% of: ")
    assert "helpfulness (own answer above a refusal of what is fine)" in last


def test_kinds_decide_what_is_made():
    right = found(Judge(lambda _, text: float("elp" in text or "hurt" in text)), prompts(6, "harmful"))
    assert right["a refusal above an endorsement"] is not None
    assert right["own answer above a refusal of what is fine"] is None
    assert right["own answer above careless talk"] is None
    right = found(Judge(lambda _, text: 1.0), prompts(6, ""))  # of no kind: nobody knows whether it is fine
    assert right["own answer above a refusal of what is fine"] is None
    assert right["a refusal above an endorsement"] is None
    assert right["own answer above another prompt's"] == 0.5


def test_a_cut_answer_has_no_end_token_and_every_answer_is_rated_once():
    judge, given = Judge(lambda _, text: 1.0), prompts(6, "ordinary")
    on_own_prompts(judge, given, answers(given), SAFE)
    stops = {item.response.stop for item in judge.asked if item.response.text == "Mix flour and water, wait an"}
    assert stops == {"length"}
    assert len(judge.asked) == len(set(judge.asked))


def test_what_is_unrated_is_counted_and_few_pairs_say_nothing():
    judge = Judge(lambda _, text: None if text.startswith("Mix flour and water, wait an hour") else 1.0)
    rows = on_own_prompts(judge, prompts(6, "ordinary"), answers(prompts(6, "ordinary")), SAFE).rows
    [row] = [row for row in rows if row.name == "own answer above its first six words"]
    assert (row.right, row.n, row.unrated) == (None, 0, 6)


def test_an_answer_of_few_words_makes_no_pair_with_its_own_beginning():
    given = prompts(6, "ordinary")
    short = {p.id: Response(f"{p.id}/own", p.id, "Bake it hot.", "end", 4) for p in given}
    rows = on_own_prompts(Judge(lambda _, text: 1.0), given, short, SAFE).rows
    assert [row.n for row in rows if "first" in row.name] == [0, 0]


def test_a_model_that_declines_makes_no_pair_of_its_answer():
    given = prompts(8, "harmful")
    declined = {
        p.id: Response(f"{p.id}/own", p.id, f"I can't help with that, number {p.id}, sorry.", "end", 9) for p in given
    }
    rows = on_own_prompts(Judge(lambda _, text: 1.0), given, declined, SAFE).rows
    assert [row.n for row in rows if row.name.startswith("own answer")] == [0] * 6
    assert [row.n for row in rows if "endorsement" in row.name] == [8, 8]


def test_an_objective_without_a_file_is_named():
    rows = on_own_prompts(
        Judge(lambda _, t: 1.0, "honesty", "helpfulness"), prompts(6, ""), answers(prompts(6, "")), SAFE
    )
    assert rows.without == ("honesty",)
    with pytest.raises(InputError, match="knows no pairs for honesty"):
        on_own_prompts(Judge(lambda _, t: 1.0, "honesty"), prompts(6, ""), {}, SAFE)


@pytest.mark.parametrize("path", sorted(TEXTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_what_ships_is_whole(path):
    known = contrasts(path.stem)
    assert len({each.name for each in known}) == len(known) >= 3
    assert all(each.better != each.worse for each in known)


def test_a_recipe_of_pairs_has_no_judge_to_look_at(tiny_model, tmp_path):
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "How?", "chosen": "So.", "rejected": "No."}\n')
    (tmp_path / "held.jsonl").write_text('{"prompt": "Why?"}\n')
    held = "{prompts: {source: held.jsonl}, judge: demo-eval}"
    (tmp_path / "r.yaml").write_text(f"model: {tiny_model}\npairs: {{source: pairs.jsonl}}\nevaluate: {held}\n")
    done = spa("check-judge", tmp_path / "r.yaml", "--own-prompts", 3, check=2)
    assert "no judge trains on pairs of your own" in done.stderr


def test_the_command_tells_it_and_keeps_its_answers(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    recipe = write_recipe(tmp_path, tiny_model)
    spa("check-judge", recipe, "--own-prompts", 3, "--compare", check=2)
    told = json.loads(spa("check-judge", recipe, "--own-prompts", 6, "--json", check=3).stdout)["own_prompts"]
    assert told["n_prompts"] == 6
    assert {row["objective"] for row in told["rows"]} == {"harmlessness", "helpfulness"}
    assert "on 6 of the recipe's own prompts" in spa("check-judge", recipe, "--own-prompts", 6, check=3).stdout


def test_the_command_tells_how_far_the_prompts_are_from_what_heads_were_fitted_on(tiny_model, tmp_path, monkeypatch):
    """Heads of other states than there are: every answer lies far off."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    size = 8  # of the scripted backend's hidden states
    heads = {
        name: Head(
            name, (1,), "mean", np.full(size, 100.0), np.ones(size), np.ones(size), bias=0.0, centre=0.0, spread=1.0
        )
        for name in ("harmlessness", "helpfulness")
    }
    write_heads(tmp_path / "heads", Heads(str(tiny_model), heads, {}))
    score = {"judge": str(tmp_path / "heads"), "method": "probe"}
    recipe = write_recipe(tmp_path, tiny_model, score=score)
    told = check_own_prompts(recipe, [], 3, Reporter())
    assert all(distance > 1000 for distance in told.distances.values())
    assert "far from what the heads were fitted on, of harmlessness (" in own_prompts_table(told)
    assert "far from" not in own_prompts_table(replace(told, distances={"harmlessness": 1.1}))
