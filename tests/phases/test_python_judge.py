"""A judge in Python in check, rounds and plan: found, refused in a line, counted, and asked anew once it changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from selfpriority.errors import InputError
from selfpriority.inputs import check_inputs
from selfpriority.phases.collect import collect
from selfpriority.phases.judge_check import gate
from selfpriority.phases.judge_names import judge_key, own_function
from selfpriority.phases.resources import Reporter, Resources
from selfpriority.phases.tau import other_judge
from selfpriority.pipeline import follow, start
from selfpriority.planning.pace import rates
from selfpriority.planning.plan import Given, plan
from selfpriority.recipe import ByPython, load
from selfpriority.run import Run
from selfpriority.storage import read_json
from tests.test_bad_input import run_cli
from tests.test_own_python import tidy  # noqa: F401 - a fixture
from tests.test_pipeline import write_recipe

JUDGE = """
from pathlib import Path

CALLS = Path(__file__).with_name("calls.txt")


def rate(answers, objectives):
    with CALLS.open("a") as calls:
        calls.write("".join(f"{each.answer}\\n" for each in answers))
    return [row(each.answer.split(), objectives) for each in answers]


def row(words, objectives):
    n = len(words)
    size = sum(map(len, words))
    return None if n < 5 else {name: 1.0 + (n, size)[k % 2] % 10 * 0.9 for k, name in enumerate(objectives)}
"""
OWN: dict[str, Any] = {"method": "python", "judge": "mine.judging:rate", "require_signal": False}


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache folder and a working directory of its own, and the judge beside the recipe."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "judging.py").write_text(JUDGE)


def n_calls(folder: Path) -> int:
    calls = folder / "mine" / "calls.txt"
    return len(calls.read_text().splitlines()) if calls.exists() else 0


def opened(recipe: Path, run: Path) -> Resources:
    where, asked = start(recipe, [], run)
    resources = Resources(asked.recipe, where, Reporter())
    check_inputs(resources)
    follow(where, asked)
    return resources


def collected(recipe: Path, run: Path) -> Run:
    resources = opened(recipe, run)
    gate(resources.run, resources)
    collect(resources.run, resources, 1)
    return resources.run


def test_a_run_is_rated_by_it_and_rated_anew_once_it_changed(tiny_model: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, tiny_model, score=OWN)
    run = collected(recipe, tmp_path / "run")
    assert read_json(run.folder / "judge.json")["train"]["judge"] == "mine.judging:rate"
    dropped = read_json(run.round(1) / "funnel.json")["steps"]["score"]["responses_dropped"]
    assert dropped.keys() == {"no_rating"}
    rows = [json.loads(line) for line in (run.round(1) / "drops.jsonl").read_text().splitlines()]
    unrated = [row["detail"] for row in rows if row["reason"] == "no_rating"]
    assert set(unrated) == {"harmlessness: mine.judging:rate gave None"}
    resolved = yaml.safe_load(run.recipe.read_text())["score"]["judge"]
    assert resolved == {
        "kind": "python", "judge": "mine.judging:rate", "folder": str(tmp_path), "version": "", "batch_size": 32,
    }  # fmt: skip
    before = n_calls(tmp_path)
    assert before > 0
    key = run.manifest.steps["round-1/score"].key
    collected(recipe, tmp_path / "run")
    assert n_calls(tmp_path) == before
    (tmp_path / "mine" / "judging.py").write_text(JUDGE.replace("0.9", "0.8"))
    assert collected(recipe, tmp_path / "run").manifest.steps["round-1/score"].key != key
    assert n_calls(tmp_path) == 2 * before


def test_a_run_goes_on_from_anywhere_and_takes_no_folder_that_lies_nowhere(tiny_model: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, tiny_model, score=OWN)
    run = opened(recipe, tmp_path / "run").run
    section = load(run.recipe).score.judge
    assert isinstance(section, ByPython)
    assert own_function(section).file == tmp_path / "mine" / "judging.py"
    with pytest.raises(InputError, match=r"folder '\.' is no absolute path"):  # of a run that somebody sends
        own_function(section.model_copy(update={"folder": "."}))


def test_who_rates_and_not_where_it_lies_is_in_the_key(tmp_path: Path, tiny_model: Path) -> None:
    resources = opened(write_recipe(tmp_path, tiny_model, score=OWN), tmp_path / "run")
    section = resources.recipe.score.judge

    def key(**changes: Any) -> str:
        changed = section.model_copy(update=changes)
        return judge_key(changed, "m", resources.constitution, resources.recipe.backend)

    assert key(batch_size=1) == key()
    assert key(version="2") != key()
    assert key(judge="mine.judging:row") != key()


@pytest.mark.parametrize(
    ("field", "told"),
    [
        ("score.judge.judge=mine.nope:rate", "score.judge: 'mine.nope:rate': there is no module mine.nope"),
        ("score.judge.judge=mine.judging:rat", "judging.py holds no rat; did you mean rate?"),
        ("score.judge.judge=mine.judging:CALLS", "a judge is a function of (answers, objectives)"),
        ("score.judge.judge=mine.judging", "score.judge.judge: must be package.module:name of a function, as in"),
        (
            "score={method: python, judge: 'mine.judging:rate', version: 2}",
            "score.version: Input should be a valid string (got 2)",
        ),
        (
            "evaluate.more_judges={other: {method: python, judge: mine.judging:no}}",
            "evaluate.more_judges.other.judge: 'mine.judging:no': ",
        ),
    ],
)
def test_what_is_wrong_is_one_line_before_any_work(
    field: str,
    told: str,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    recipe = write_recipe(tmp_path, tiny_model, score=OWN)
    for verb in ("run", "plan", "check-judge"):
        assert run_cli(monkeypatch, verb, recipe, field) == 2
        (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("spa: ")]
        assert told in line
    assert n_calls(tmp_path) == 0


def test_check_judge_asks_a_function_as_any_judge_and_pays_once(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path, tiny_model, score={**OWN, "batch_size": 100})
    assert run_cli(monkeypatch, "-q", "check-judge", recipe, "--json") == 3
    told = json.loads(capfd.readouterr().out)["train"]
    assert (told["judge"], told["method"]) == ("mine.judging:rate", "python")
    assert told["objectives"][0]["n"] > 100
    assert "no_rating" in told["objectives"][0]["unrated_reasons"]
    paid = n_calls(tmp_path)
    assert run_cli(monkeypatch, "-q", "check-judge", recipe, "--compare", "--method", "python") == 3
    assert "python mine.judging:rate" in capfd.readouterr().out
    assert n_calls(tmp_path) == paid


def test_looking_at_a_run_runs_none_of_it(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run = collected(write_recipe(tmp_path, tiny_model, score=OWN), tmp_path / "run").folder
    ran = "__import__('pathlib').Path(__file__).with_name('it-ran').touch()"
    (tmp_path / "mine" / "judging.py").write_text(f"{ran}\ndef rate(answers, objectives): ...\n")
    for verb in (["show", run], ["report", run], ["export", run, "--to", tmp_path / "pairs.jsonl"]):
        assert run_cli(monkeypatch, *verb) == 0, capfd.readouterr().err
    assert not (tmp_path / "mine" / "it-ran").exists()
    assert run_cli(monkeypatch, "plan", tmp_path / "recipe.yaml") == 0
    assert (tmp_path / "mine" / "it-ran").exists()


def test_a_judge_that_fails_stops_the_work_in_one_line(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine" / "judging.py").write_text("def rate(answers, objectives):\n    return [1 / 0]\n")
    recipe = write_recipe(tmp_path, tiny_model, score=OWN)
    assert run_cli(monkeypatch, "-q", "check-judge", recipe) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert "judge mine.judging:rate in" in line
    assert "raised ZeroDivisionError: division by zero (judging.py, line 2)" in line


def test_a_plan_counts_its_answers_and_no_tokens_and_knows_no_time(tiny_model: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, tiny_model, score=OWN)
    fast = rates("prefill=1000,generate=1000,train=1000")
    found = {step.name: step for step in plan(recipe, [], tmp_path / "run", Given(fast)).steps}
    score = found["round-1/score"]
    assert score.requests > 0
    assert (score.prompt_tokens, score.forward_tokens, score.new_tokens, score.seconds) == (0, 0, 0, None)
    assert found["round-1/sample"].seconds
    assert n_calls(tmp_path) == 0
    on_gpu = plan(recipe, ["backend={kind: hf}"], tmp_path / "run")
    assert all(held.weights for held in on_gpu.memory.values())
    assert on_gpu.tokens.keys() == {str(tiny_model)}


def test_a_judge_named_on_the_command_line_lies_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = other_judge("mine.judging:rate", "python", None, None)
    assert isinstance(found, ByPython)
    assert found.folder == str(tmp_path)


def test_a_module_in_the_working_directory_is_found_wherever_the_recipe_lies(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "elsewhere"
    (tmp_path / "mine").rename(here / "mine")
    (tmp_path / "recipes").mkdir()
    recipe = write_recipe(tmp_path / "recipes", tiny_model, score=OWN)
    assert run_cli(monkeypatch, "run", recipe, "--out", tmp_path / "run") == 0
    assert f"folder: {here}" in (tmp_path / "run" / "resolved.yaml").read_text()
    assert n_calls(here) > 0
