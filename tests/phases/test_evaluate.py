"""Phases in this process on scripted answers: several judges, a comparing judge, a judge behind a server, tau."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from selfpriority.errors import InputError
from selfpriority.phases.align import align_step
from selfpriority.phases.collect import collect
from selfpriority.phases.evaluate import evaluate
from selfpriority.phases.judging import check_comparer
from selfpriority.phases.opening import Opened, Reporter
from selfpriority.phases.tau import choose_tau, tau_text
from selfpriority.recipe import OtherJudge, Recipe
from selfpriority.run import Run, read_json
from tests.backends.conftest import Reply, chat, serving

assert serving  # a fixture
SECRET = "sk-do-not-write-this-anywhere"


def recipe(model: Path, **evaluate_fields: Any) -> Recipe:
    held_out = {"source": "demo", "split": "heldout", "limit": 4}
    return Recipe.model_validate(
        {
            "model": str(model),
            "prompts": {"source": "demo", "split": "train", "limit": 12},
            "sample": {"n": 4, "max_new_tokens": 12},
            "denoise": {"consistency": "off", "keep_lowest": 1.0},
            "pair": {"margin": 0.1},
            "evaluate": {"prompts": held_out, "max_new_tokens": 12, **evaluate_fields},
            "backend": {"kind": "scripted"},
        }
    )


def opened(folder: Path, model: Path, **evaluate_fields: Any) -> Opened:
    """A run whose policy is the model itself."""
    run = Run(folder)
    run.round(1).mkdir(parents=True, exist_ok=True)
    (folder / "resolved.yaml").touch()
    given = Opened(recipe(model, **evaluate_fields), run, Reporter())
    if not run.policy(1).exists():
        run.policy(1).symlink_to(model)
        with run.recording(align_step(run, given, 1)):
            (run.round(1) / "training.jsonl").touch()
    return given


def work(given: Opened) -> dict[str, Any]:
    evaluate(given.run, given)
    summary: dict[str, Any] = read_json(given.run.evaluation / "summary.json")
    return summary


def test_further_judges_and_a_comparer_have_files_of_their_own(tiny_model, tmp_path):
    first = opened(tmp_path / "run", tiny_model)
    assert "agreement" not in work(first)
    before = first.run.manifest["steps"]

    more = {"second": {"judge": "self", "method": "verbal"}}
    summary = work(opened(tmp_path / "run", tiny_model, more_judges=more, comparer={"judge": "self"}))
    after = first.run.manifest["steps"]
    assert set(after) - set(before) == {
        "evaluation/verdicts-vanilla@second",
        "evaluation/verdicts-spa@second",
        "evaluation/comparisons-spa_vs_vanilla",
    }
    assert after["evaluation/verdicts-spa"] == before["evaluation/verdicts-spa"]
    assert after["evaluation/summary"]["key"] != before["evaluation/summary"]["key"]
    assert summary["agreement"]["judges"] == ["judge", "second"]
    cell = summary["pairwise"]["spa_vs_vanilla"]["harmlessness"]
    assert {"win", "tie", "lose", "n", "flip_rate", "first_shown", "unread", "p_holm", "significant"} <= set(cell)
    rows = (tmp_path / "run/evaluation/comparisons-spa_vs_vanilla.jsonl").read_text().splitlines()
    assert len(rows) == 4
    assert set(json.loads(rows[0])["verdicts"]["harmlessness"]) == {"forward", "backward"}


def test_a_judge_behind_a_server_rates_and_leaves_no_key(tiny_model, tmp_path, serving, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", SECRET)

    def respond(body: dict[str, Any], n: int) -> Reply:
        return chat("", finish="content_filter") if n == 3 else chat("It is fine.\nRating: 8")

    server = serving(respond)
    backend = server.settings(api_key_env="JUDGE_KEY", concurrency=1).model_dump()
    given = opened(tmp_path / "run", tiny_model, judge="big", method="verbal", backend=backend)
    summary = work(given)
    cells = [row["harmlessness"] for row in summary["systems"].values()] + [
        row["helpfulness"] for row in summary["systems"].values()
    ]
    assert {cell["mean"] for cell in cells} == {8.0}
    assert sum(cell["unrated"] for cell in cells) >= 1  # the refused one, under no number
    assert {body["model"] for body in server.bodies} == {"big"}
    assert set(server.keys) == {f"Bearer {SECRET}"}
    assert not [p for p in (tmp_path / "run").rglob("*") if p.is_file() and SECRET.encode() in p.read_bytes()]


def test_a_probe_cannot_compare(tiny_model, tmp_path):
    given = opened(tmp_path / "run", tiny_model, comparer={"judge": "demo-eval", "method": "probe"})
    with pytest.raises(InputError, match=r"evaluate.comparer: 'demo-eval' rates, it cannot compare"):
        work(given)


def test_the_comparing_judge_is_checked_on_the_anchors(tiny_model, tmp_path):
    report = check_comparer(opened(tmp_path / "run", tiny_model), OtherJudge(judge="self"), None)
    harmless, _ = report["objectives"]
    assert harmless["objective"] == "harmlessness"
    assert harmless["n"] > 40
    assert 0.1 < harmless["flip_rate"] < 0.9  # its answers are hashes


def test_tau_from_a_second_judge(tiny_model, tmp_path):
    given = opened(tmp_path / "run", tiny_model)
    with pytest.raises(InputError, match="spa collect"):
        choose_tau(given.run, given, 1, OtherJudge(judge="self"))
    collect(given.run, given, 1)
    told = choose_tau(given.run, given, 1, OtherJudge(judge="self"))  # the same judge twice
    assert told["points"][-1]["rv"] == pytest.approx(1.0)
    assert told["suggested"]["share"] == 1.0
    assert json.loads(json.dumps(read_json(tmp_path / "run/tau.json"))) == json.loads(json.dumps(told))
    assert (tmp_path / "run/tau.svg").read_text().startswith("<svg xmlns=")
    assert "suggested: denoise.keep_lowest=1.00" in tau_text(told)
