"""Two turns asked, judged and compared in this process: scripted answers, probes, a server, the embedded model."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Any

import pytest

from selfpriority import cli
from selfpriority.errors import InputError
from selfpriority.evaluation.conversation import Question
from selfpriority.evaluation.records import Contest
from selfpriority.evaluation.utility_records import Utility, read_utility, utility_as_json
from selfpriority.phases.judge_check import gate
from selfpriority.phases.judge_names import judge_entry
from selfpriority.phases.mt_bench import MtBench, NamedJudge, _agreement, judging, mt_bench_of
from selfpriority.phases.resources import Resources
from selfpriority.phases.tau import other_judge
from selfpriority.phases.utility import Questions, utility, utility_text
from selfpriority.recipe import InWords, dump
from selfpriority.storage import read_json
from tests.backends.conftest import Reply, chat, serving
from tests.phases.test_evaluate import count_as_trained, opened

assert serving  # a fixture
ASKED = (
    Question("1", "writing", ("Write a sentence about rain.", "Make it shorter.")),
    Question("2", "math", ("What is seven plus five?", "Double it."), ("12", "24")),
    Question("3", "writing", ("Name a colour.", "Name another one.")),
)


def work(given: Resources, **changes: Any) -> dict[str, Any]:
    """What was found, as its file holds it."""
    asked = replace(MtBench(ASKED, max_new_tokens=12), **changes)
    return utility_as_json(utility(given.run, given, Questions(mt_bench=asked)))


def n_stored(given: Resources) -> list[tuple[str, int]]:
    import sqlite3

    with sqlite3.connect(given.run.cache) as store:
        return store.execute("SELECT key, times_asked FROM answers ORDER BY key").fetchall()


def test_every_system_is_asked_and_rated_in_words(tiny_model, tmp_path):
    given = opened(tmp_path / "run", tiny_model)
    told = work(given)
    found = told["mt_bench"]
    assert (found["judge"]["judge"], found["judge"]["method"]) == ("self", "expected")
    assert found["judge"]["objective"] is None
    assert found["n_questions"] == 3
    assert found["systems"]["spa"]["overall"]["n"] == 3
    assert set(found["systems"]["spa"]["categories"]) == {"writing", "math"}
    assert found["difference"]["spa_vs_vanilla"]["overall"]["mean"] == 0.0  # the policy is the model itself
    assert read_json(given.run.evaluation / "utility.json") == told
    rows = [json.loads(line) for line in (given.run.evaluation / "mt_bench-spa.jsonl").read_text().splitlines()]
    assert [row["question_id"] for row in rows] == ["1", "2", "3"]
    assert 1.0 <= rows[0]["turns"][1]["verdict"]["value"] <= 10.0
    text = utility_text(read_utility(given.run.evaluation / "utility.json"))
    assert "mt-bench  judged by self, asked in words (expected)" in text
    assert "mt-bench  spa against vanilla: +0.00" in text


def test_the_same_command_asks_nothing_twice(tiny_model, tmp_path):
    first = work(opened(tmp_path / "run", tiny_model))
    before = n_stored(opened(tmp_path / "run", tiny_model))
    assert {n for _, n in before} == {1}
    assert work(opened(tmp_path / "run", tiny_model))["mt_bench"] == first["mt_bench"]
    assert n_stored(opened(tmp_path / "run", tiny_model)) == before


def test_what_was_found_before_stays_while_the_systems_are_the_same(tiny_model, tmp_path):
    given = opened(tmp_path / "run", tiny_model)
    told = work(given)
    again: Utility = utility(given.run, given, Questions())
    assert utility_as_json(again)["mt_bench"] == told["mt_bench"]
    path = given.run.evaluation / "utility.json"
    path.write_text(json.dumps({**told, "systems": {"vanilla": "other weights"}}), encoding="utf-8")
    assert utility(given.run, given, Questions()).mt_bench is None


def test_a_judge_in_words_comes_before_a_probe(tiny_model, tmp_path):
    asked = MtBench(ASKED, 12)
    probe = {"judge": "demo-eval", "method": "probe"}
    assert judging(opened(tmp_path / "a", tiny_model, **probe).recipe, asked).method == "probe"
    both = opened(tmp_path / "b", tiny_model, **probe, comparer={"judge": "big", "method": "verbal"}).recipe
    assert (judging(both, asked).judge, judging(both, asked).method) == ("big", "verbal")
    named = replace(asked, judge=InWords(judge="bigger"))
    assert (judging(both, named).judge, judging(both, named).method) == ("bigger", "expected")


def test_refused_and_unreadable_verdicts_are_counted_and_are_no_numbers(tiny_model, tmp_path, serving):
    def respond(body: dict[str, Any], n: int) -> Reply:
        return {1: chat("", finish="content_filter"), 2: chat("Fine, I suppose.")}.get(n, chat("Right.\nRating: 8"))

    server = serving(respond)
    backend = server.settings(concurrency=1)
    judge = InWords(judge="big", method="verbal", backend=backend)
    row = work(opened(tmp_path / "run", tiny_model), judge=judge)["mt_bench"]["systems"]["vanilla"]
    assert row["overall"]["mean"] == 8.0
    reasons = {reason: n for turn in row["unrated"].values() for reason, n in turn.items()}
    assert reasons == {"refused": 1, "no_rating": 1}


def test_a_judge_that_there_is_not_is_told_before_anybody_is_asked(tiny_model, tmp_path):
    given = opened(tmp_path / "run", tiny_model)
    with pytest.raises(InputError, match="'no such judge' is no folder"):
        work(given, judge=InWords(judge="no such judge"))
    assert not given.run.cache.exists()
    assert not given.run.evaluation.exists()


def test_a_judge_that_fails_costs_nothing_of_what_was_found_before(tiny_model, tmp_path, monkeypatch):
    right = {"mmlu": {name: {"q1": 1.0, "q2": 0.0} for name in ("vanilla", "spa")}}
    monkeypatch.setattr("selfpriority.phases.utility._right", lambda *_: right)  # the harness need not be installed
    given = opened(tmp_path / "run", tiny_model)
    nobody = {"kind": "openai", "base_url": "http://127.0.0.1:9/v1", "retries": 0}
    judge = InWords.model_validate({"judge": "big", "method": "verbal", "backend": nobody})
    with pytest.raises(InputError, match="cannot be reached"):
        utility(given.run, given, Questions(tasks=("mmlu",), mt_bench=MtBench(ASKED, 12, judge)))
    kept = read_json(given.run.evaluation / "utility.json")
    assert kept["tasks"]["mmlu"]["systems"]["spa"]["mean"] == 0.5
    told = utility(given.run, given, Questions())  # asks neither again
    assert utility_as_json(told)["tasks"] == kept["tasks"]
    assert told.tasks["mmlu"].difference[Contest("spa", "vanilla")].mean == 0.0


def test_agreement_is_that_of_the_very_judge_that_was_checked(tiny_model, tmp_path, serving):
    given = opened(tmp_path / "run", tiny_model)
    score = given.recipe.score.model_copy(update={"require_signal": False})
    given.recipe = given.recipe.model_copy(update={"score": score})
    gate(given.run, given)
    checked = read_json(given.run.folder / "judge.json")["evaluate"]
    assert checked["key"] == judge_entry(given.recipe.evaluate.judge, given)["key"]
    assert work(given)["mt_bench"]["judge"]["agreement"]["source"] == "check"
    elsewhere = InWords(judge="self", method="expected", backend=serving(lambda *_: Reply(status=400)).settings())
    spec = judging(given.recipe, MtBench(ASKED, 12, elsewhere))
    assert (spec.judge, spec.method) == (checked["judge"], checked["method"])  # the name alone is the same
    assert _agreement(given.run, given, spec) is None


def test_options_that_do_not_go_together(tmp_path):
    assert mt_bench_of(None, None, 1024, NamedJudge()) is None
    with pytest.raises(InputError, match="--mt-bench FILE, which is not given"):
        mt_bench_of(None, None, 1024, NamedJudge("big"))
    with pytest.raises(InputError, match="--judge MODEL is asked, which is not given"):
        mt_bench_of(tmp_path / "q.jsonl", None, 1024, NamedJudge(method="verbal"))
    with pytest.raises(InputError, match="--base-url URL, which is not given"):
        other_judge("big", "expected", None, "MY_KEY")


def test_the_key_of_a_judge_that_is_named_comes_from_the_variable_that_is_named():
    assert other_judge("big", "expected", "https://h/v1", "MY_KEY").backend.api_key_env == "MY_KEY"
    assert other_judge("big", "expected", "http://h/v1", None).backend.api_key_env is None
    with pytest.raises(InputError, match=r"backend\.api_key_env: ") as caught:
        other_judge("big", "expected", "http://h/v1", "sk-proj-4f3Kq0aXw")
    assert "4f3Kq0aXw" not in str(caught.value)


def test_the_command(tiny_model, tmp_path, monkeypatch, capsys):
    given = opened(tmp_path / "run", tiny_model)
    given.run.recipe.write_text(dump(given.recipe), encoding="utf-8")
    questions = tmp_path / "q.jsonl"
    rows = [{"question_id": q.id, "category": q.category, "turns": q.turns} for q in ASKED]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    arguments = ["utility", given.run.folder, "--mt-bench", questions, "--limit", 2, "--max-new-tokens", 12, "--json"]
    monkeypatch.setattr(sys, "argv", ["spa", *map(str, arguments), "--judge", "self", "--method", "expected"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 0
    found = json.loads(capsys.readouterr().out)["mt_bench"]
    assert (found["n_questions"], found["max_new_tokens"], found["judge"]["judge"]) == (2, 12, "self")


def test_the_embedded_model_answers_two_turns_and_a_probe_is_told_to_be_one(embedded_model, tmp_path):
    folder = tmp_path / "run"
    given = opened(folder, embedded_model, judge="demo-eval", method="probe")
    recipe = given.recipe.model_validate({**given.recipe.model_dump(), "model": "smollm2-135m", "backend": {}})
    given = Resources(recipe, given.run, given.reporter)
    count_as_trained(given)
    found = work(given)["mt_bench"]
    judge, row = found["judge"], found["systems"]["vanilla"]
    assert (judge["method"], judge["objective"]) == ("probe", "helpfulness")
    assert judge["agreement"]["source"] == "card"
    assert 0.7 < judge["agreement"]["low"] < judge["agreement"]["high"] < 0.9
    assert row["overall"]["n"] == 3
    assert 1.0 < row["overall"]["mean"] < 10.0
    assert 1 <= row["words"] <= 12
    assert found["difference"]["spa_vs_vanilla"]["overall"]["mean"] == 0.0
    rows = [json.loads(line) for line in (folder / "evaluation" / "mt_bench-vanilla.jsonl").read_text().splitlines()]
    assert all(turn["answer"] for row in rows for turn in row["turns"])
