"""The gate before training, where a phase is started alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from selfpriority.constitution import SHIPPED
from selfpriority.errors import InputError
from selfpriority.inputs import check_inputs
from selfpriority.judges.heads import Head, Heads, write_heads
from selfpriority.judges.reports import read_checks
from selfpriority.phases.collect import collect
from selfpriority.phases.judge_check import check_judges, gate, judge_step
from selfpriority.phases.models import model_key
from selfpriority.phases.resources import Reporter, Resources
from selfpriority.pipeline import follow, start
from selfpriority.recipe import Evaluate, Prompts, Recipe, Score, load
from selfpriority.report.view import read_view
from selfpriority.run import Run
from selfpriority.run_records import Spent
from selfpriority.stages import judge_passes
from selfpriority.storage import read_json
from tests.backends.conftest import Reply, chat, serving
from tests.test_bad_input import run_cli
from tests.test_pipeline import write_recipe

assert serving  # a fixture


@pytest.mark.parametrize(("require_signal", "code"), [(True, 3), (False, 0)])
def test_collecting_alone_does_not_walk_around_the_gate(
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    require_signal: bool,
    code: int,
) -> None:
    recipe = write_recipe(tmp_path, tiny_model, score={"require_signal": require_signal})
    run, asked = start(recipe, [], tmp_path / "run")
    follow(run, asked)
    assert run_cli(monkeypatch, "collect", run.folder) == code
    assert (run.round(1) / "5-pairs.jsonl").is_file() == (not require_signal)
    said = capfd.readouterr().err
    assert ("is refused" if require_signal else "training on a judge that may be chance, as the recipe asks") in said
    assert not read_json(run.folder / "judge.json")["train"]["usable"]


def test_every_judge_of_the_evaluation_is_checked_and_only_the_training_judge_is_the_gate(
    tiny_model: Path, tmp_path: Path
) -> None:
    others = {"more_judges": {"second": {"judge": "self", "method": "verbal"}}, "comparer": {"judge": "self"}}
    recipe = write_recipe(tmp_path, tiny_model, evaluate=others)
    run, asked = start(recipe, [], tmp_path / "run")
    opened = Resources(asked.recipe, run, Reporter())
    follow(run, asked)
    gate(run, opened)
    told = read_json(run.folder / "judge.json")
    assert list(told) == ["train", "evaluate", "more_judges.second", "comparer"]
    assert (told["more_judges.second"]["method"], told["comparer"]["usable"]) == ("verbal", False)
    assert told["comparer"]["objectives"][0]["source"] == "anchors"
    first = judge_step(run, opened)
    assert run.is_done(first)
    for field, value in (("comparer", {"judge": "self", "method": "verbal"}), ("more_judges", {}), ("pairwise", False)):
        evaluate = opened.recipe.evaluate.model_copy(update={field: Evaluate(**{field: value}).__dict__[field]})
        other = Resources(opened.recipe.model_copy(update={"evaluate": evaluate}), run, Reporter())
        assert judge_step(run, other).key != first.key, field


def test_what_a_busy_server_left_out_of_a_check_is_asked_again(tiny_model: Path, tmp_path: Path, serving) -> None:
    """A time-out says nothing of the judge: its check is not over, though it is written down."""
    is_busy = [True]
    odd = "lock"

    def respond(body: dict[str, Any], n: int) -> Reply:
        if is_busy[0] and odd in str(body["messages"]):
            return Reply({"error": {"message": "busy"}}, 500)
        return chat("Rating: 8" if n % 3 else "Rating: 3")

    server = serving(respond)
    backend = server.settings(retries=0, concurrency=1).model_dump()
    judged = {"judge": "big", "method": "verbal", "backend": backend, "require_signal": False}
    recipe = write_recipe(tmp_path, tiny_model, score=judged)
    run, asked = start(recipe, [], tmp_path / "run")
    follow(run, asked)
    gate(run, Resources(asked.recipe, run, Reporter()))
    left_out = read_checks(run.folder / "judge.json").train.objectives[0].unrated_reasons["server_error"]
    assert left_out > 0
    is_busy[0], n_before = False, len(server.bodies)
    gate(run, Resources(asked.recipe, run, Reporter()))
    assert not any(row.unrated_reasons for row in read_checks(run.folder / "judge.json").train.objectives)
    asked_again = [str(body["messages"]) for body in server.bodies[n_before:]]
    assert sum(odd in messages for messages in asked_again) > 0
    answered = {str(body["messages"]) for body in server.bodies[:n_before] if odd not in str(body["messages"])}
    assert not answered & {messages for messages in asked_again if "Say hello" not in messages}
    n_before = len(server.bodies)
    gate(run, Resources(asked.recipe, run, Reporter()))
    assert len(server.bodies) == n_before


def test_a_second_check_asks_nothing_again(tiny_model: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, tiny_model, evaluate={"comparer": {"judge": "self"}})
    run, asked = start(recipe, [], tmp_path / "run")
    follow(run, asked)
    opened, again = Resources(asked.recipe, run, Reporter()), Spent()
    gate(run, opened)
    check_judges(opened, spent=again)
    assert again.requests == again.cached > 0
    assert again.requests == run.manifest.steps["judge"].requests


def without_anchors(folder: Path) -> Path:
    """A constitution as one writes it first."""
    content = yaml.safe_load((SHIPPED / "harmless-helpful" / "constitution.yaml").read_text())
    (folder / "mine").mkdir()
    (folder / "mine" / "constitution.yaml").write_text(yaml.safe_dump({**content, "name": "mine", "anchors": []}))
    return folder / "mine"


def test_without_anchors_a_judge_that_need_not_be_checked_is_not(tiny_model: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, tiny_model, constitution=str(without_anchors(tmp_path)))
    run, asked = start(recipe, [], tmp_path / "run")
    opened = Resources(asked.recipe, run, Reporter())
    told: list[str] = []
    opened.reporter.note = told.append  # type: ignore[method-assign]
    check_inputs(opened)
    follow(run, asked)
    gate(run, opened)
    assert told == ["training on a judge that was not checked, as the recipe asks: 'mine' has no anchors"]
    assert judge_passes(run, opened, judge_step(run, opened))
    collect(run, opened, 1)
    assert read_view(run).judges == {}


def test_without_anchors_reward_models_are_refused_before_anything_is_sampled(tiny_model: Path, tmp_path: Path) -> None:
    rewards = dict.fromkeys(("harmlessness", "helpfulness"), str(tiny_model))
    score = {"method": "reward", "rewards": rewards}
    path = write_recipe(tmp_path, tiny_model, constitution=str(without_anchors(tmp_path)), score=score)
    opened = Resources(load(path), Run(tmp_path / "run"), Reporter())
    with pytest.raises(InputError, match="'mine' has no anchors, and reward models are placed by them"):
        gate(opened.run, opened)


def test_without_anchors_a_judge_that_must_be_checked_is_refused_at_the_start(tiny_model: Path, tmp_path: Path) -> None:
    constitution = str(without_anchors(tmp_path))
    path = write_recipe(tmp_path, tiny_model, constitution=constitution, score={"require_signal": True})
    opened = Resources(load(path), Run(tmp_path / "run"), Reporter())
    for check in (lambda: check_inputs(opened), lambda: gate(opened.run, opened)):
        with pytest.raises(InputError, match="constitution: 'mine' has no anchors to check a judge with"):
            check()
    assert not opened.run.folder.exists()


@pytest.mark.parametrize("retrained", [True, False])
def test_heads_of_a_model_that_has_changed_since_are_not_used_without_a_word(
    tiny_model: Path, tmp_path: Path, retrained: bool
) -> None:
    width = 32
    head = Head("helpfulness", (1,), "mean", *(np.ones(width) for _ in range(3)), bias=0.0, centre=0.0, spread=1.0)
    fitted_on = "0" * 64 if retrained else model_key(str(tiny_model))
    card = {"model_fingerprint": f"hf-1 {fitted_on} float32"}
    objectives = {name: replace(head, objective=name) for name in ("harmlessness", "helpfulness")}
    write_heads(tmp_path / "heads", Heads(str(tiny_model), objectives, card))
    recipe = Recipe(model=str(tiny_model), prompts=Prompts(source="demo"), score=Score(judge=str(tmp_path / "heads")))
    opened = Resources(recipe, Run(tmp_path / "run"), Reporter())
    told: list[str] = []
    opened.reporter.note = told.append  # type: ignore[method-assign]
    for step in ("score", "refine"):
        opened.judge(opened.recipe.score.judge, recipe.model, step, Spent())
    assert len(told) == retrained
    assert all("were fitted on other weights" in line for line in told)
