"""`spa plan` from the recipe to the table: what is known, what is said to be unknown, what is wrong."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from selfpriority.phases.judge_names import SHIPPED_HEADS
from tests.phases.test_judge_check import without_anchors


def test_without_rates_there_is_no_time_and_without_prices_no_money(written, spa_plan, tmp_path):
    told = json.loads(spa_plan(written(), "--json", "--out", tmp_path / "run").out)
    assert told["rates"] is None
    assert told["total"]["seconds"] is told["total"]["cost"] is None
    assert set(told["tokens"].values()) == {"tokenizer"}
    assert not (tmp_path / "run").exists()


def test_an_earlier_run_gives_the_rates(written, done, spa_plan, tmp_path):
    recipe = written()
    done(recipe)
    told = json.loads(spa_plan(recipe, "--json", "--out", tmp_path / "run").out)
    seconds = {step["name"]: step["seconds"] for step in told["steps"]}
    assert seconds.pop("round-1/align") is None  # it was not trained
    assert all(value is not None for value in seconds.values())
    assert told["total"]["seconds"] is None


def test_memory_by_phase_and_by_choice(written, spa_plan, tmp_path):
    recipe = written(backend={"kind": "hf", "dtype": "float32", "tokens_per_batch": 100, "max_batch": 2})
    told = json.loads(spa_plan(recipe, "--json", "--out", tmp_path / "run").out)
    assert set(told["memory"]) == {"check-judge", "collect (round 1)", "evaluate"}
    weights = told["memory"]["collect (round 1)"]["weights"]
    assert told["memory"]["evaluate"]["weights"] == 2 * weights  # vanilla and policy
    assert [row["is_chosen"] for row in told["training"]["choices"]] == [True, False, False, False]
    full, low, adapters, quantized = told["training"]["choices"]
    assert full["optimizer"] == 2 * full["weights"] == 2 * weights
    assert low["gradients"] == full["gradients"] / 2
    assert quantized["weights"] < adapters["weights"] < low["weights"] + full["weights"]
    assert full["activations_checkpointed"] < full["activations"]


@pytest.mark.slow
@pytest.mark.parametrize(("memory", "fits"), [(2, True), (0.001, False), (None, None)])
def test_the_phases_are_held_against_the_card_that_the_recipe_names(written, spa_plan, tmp_path, memory, fits):
    recipe = written(backend={"kind": "hf", "dtype": "float32", "memory": memory})
    arguments = (recipe, "align.tokens_per_batch=1000", "--out", tmp_path / "run")
    told, text = json.loads(spa_plan(*arguments, "--json").out), spa_plan(*arguments).out
    if memory is None:
        assert told["card"] is None
        assert "one card" not in text
        assert told["generation_tokens"] == 16384
        return
    assert told["card"]["size"] == memory * 1e9
    chosen = next(row["total"] for row in told["training"]["choices"] if row["is_chosen"])
    assert told["card"]["phases"] == {**{name: held["total"] for name, held in told["memory"].items()}, "align": chosen}
    assert (max(told["card"]["phases"].values()) < memory * 1e9) == fits
    assert f"one card of {memory:.2f} GB: it {'fits' if fits else 'does not fit'} (check-judge " in text
    assert (told["generation_tokens"] > 16384) == fits


@pytest.mark.slow
def test_what_an_earlier_run_held_stands_beside_the_plan(written, spa_plan, tmp_path):
    recipe, run = written(backend={"kind": "hf", "dtype": "float32"}), tmp_path / "run"
    before = json.loads(spa_plan(recipe, "--json", "--out", run).out)["memory"]
    assert all(held["peak"] is None for held in before.values())
    assert "measured before" not in spa_plan(recipe, "--out", run).out
    for held in before.values():
        assert held["total"] > held["weights"] + held["cache"] + held["passing"] > held["passing"] > 0
    entry = {"state": "done", "key": "k", "seconds": 1.0, "requests": 2, "cached": 0, "tokens": 5}
    steps = {
        "round-1/sample": {**entry, "peak_mb": 1200},
        "round-1/score": {**entry, "peak_mb": 1900},
        "round-1/refine": entry,  # of a version that did not measure
        "evaluation/answers-vanilla": entry,
    }
    run.mkdir()
    (run / "resolved.yaml").touch()
    (run / "manifest.json").write_text(json.dumps({"name": "run", "versions": {}, "steps": steps}))
    after = json.loads(spa_plan(recipe, "--json", "--out", run).out)["memory"]
    assert {phase: held["peak"] for phase, held in after.items()} == {
        "check-judge": None,
        "collect (round 1)": 1.9e9,
        "evaluate": None,
    }
    [collected] = [
        line for line in spa_plan(recipe, "--out", run).out.splitlines() if line.startswith("collect (round")
    ]
    assert collected.endswith("1.90 GB")


def test_the_table_says_what_it_rests_on(written, spa_plan):
    text = spa_plan(written(), "--rates", "prefill=1000,generate=100,train=50", "--prices", "in=1,out=2").out
    assert "<= " in text
    assert "tokens of" in text
    assert "time: from --rates" in text
    assert "0.00" in text


def test_a_loss_with_a_reference_measures_beside_training_and_holds_no_second_model(written, spa_plan):
    def plan(method: str) -> dict[str, Any]:
        return json.loads(spa_plan(written(align={"dtype": "float32", "method": method, "epochs": 3}), "--json").out)

    spa, kto = plan("spa"), plan("kto")
    [once] = {sum(step["trained_tokens"] for step in found["steps"]) // 3 for found in (spa, kto)}
    assert [found["training"]["measured_tokens"] for found in (spa, kto)] == [0, 5 * once]
    assert spa["training"]["choices"] == kto["training"]["choices"]


def test_a_model_that_is_not_here_is_not_fetched(written, spa_plan, embedded_model, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # a run would ask the hub for it
    # the judge's heads read the embedded model, which is here
    recipe = written(model="nobody/no-such-model", score={"judge": "demo-train"}, backend={"kind": "hf"})
    told = json.loads(spa_plan(recipe, "--json").out)
    assert told["tokens"]["nobody/no-such-model"].startswith("estimate")
    assert told["memory"]["evaluate"]["weights"] is None
    assert told["training"]["choices"] == []
    assert "unknown" in spa_plan(recipe).out


def test_heads_of_a_model_that_is_not_here_are_planned_without_it(written, spa_plan, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    heads = shutil.copytree(SHIPPED_HEADS / "demo-train", tmp_path / "heads")
    card = json.loads((heads / "card.json").read_text())
    (heads / "card.json").write_text(json.dumps({**card, "model": "nobody/no-such-model"}))
    recipe = written(score={"judge": str(heads)}, backend={"kind": "hf", "device": "cpu"})
    told = json.loads(spa_plan(recipe, "--json", "--out", tmp_path / "run").out)
    assert told["tokens"]["nobody/no-such-model"].startswith("estimate")
    assert told["memory"]["collect (round 1)"]["weights"] is None


def test_a_judge_that_only_a_server_knows_is_told_to_be_counted_by_characters(written, spa_plan, tiny_model):
    server = {"kind": "openai", "base_url": "http://localhost:1/v1"}
    told = json.loads(spa_plan(written(evaluate={"judge": "gpt-4o", "backend": server}), "--json").out)
    assert told["tokens"]["gpt-4o"] == "estimate: 4 characters a token, for only its server knows it"
    assert told["tokens"][str(tiny_model)] == "tokenizer"


@pytest.mark.parametrize("require_signal", [True, False])
def test_a_constitution_without_anchors_is_planned_where_it_can_be_run(written, spa_plan, tmp_path, require_signal):
    recipe = written(constitution=str(without_anchors(tmp_path)), score={"require_signal": require_signal})
    said = spa_plan(recipe, "--out", tmp_path / "run", code=2 if require_signal else 0)
    assert ("has no anchors to check a judge with" in said.err) == require_signal


def test_a_server_costs_and_holds_nothing_here_but_the_evaluated_systems_do(written, spa_plan):
    backend = {"kind": "openai", "base_url": "http://localhost:1/v1", "model": "somebody/else"}
    told = json.loads(spa_plan(written(backend=backend), "--json", "--prices", "in=1,out=2").out)
    assert set(told["memory"]) == {"evaluate"}  # no server has the policy, and vanilla answers where it does
    assert told["total"]["cost"] > 0
    by_name = {step["name"]: step for step in told["steps"]}
    score = by_name["round-1/score"]
    assert score["new_tokens"] == 2 * score["requests"]  # a token of every context
    assert by_name["round-1/align"]["cost"] == by_name["evaluation/answers-spa"]["cost"] == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere.yaml"], "no such recipe"),
        (["demo", "--rates", "fast"], "--rates"),
        (["demo", "--prices", "in=1"], "--prices"),
        (["demo", "sample.n=2"], "sample.n"),
        (["demo", "model=smollm2-136m"], "did you mean smollm2-135m"),
    ],
)
def test_wrong_input(arguments, told, spa_plan, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    said = spa_plan(*arguments, code=2)
    (line,) = said.err.splitlines()
    assert told in line
    assert said.out == ""


def test_a_folder_without_weights_is_wrong_before_any_work(written, spa_plan, tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    assert "weights" in spa_plan(written(model=str(tmp_path / "model")), code=2).err


def test_adapters_on_modules_that_there_are_not(written, spa_plan):
    recipe = written(align={"lora": {"targets": ["nothing"]}})
    assert "align.lora.targets" in spa_plan(recipe, code=2).err


def test_systems_to_compare_are_planned_as_compare_would_and_read_each_model_once(
    written, spa_plan, tmp_path, monkeypatch
):
    from selfpriority.models import loading

    described: list[str] = []

    def counted(name: str) -> loading.Description:
        described.append(name)
        return describe(name)

    describe = loading.describe
    monkeypatch.setattr(loading, "describe", counted)
    recipe = written()
    plain = json.loads(spa_plan(recipe, "--json", "--out", tmp_path / "run").out)
    n_plain, described[:] = len(described), []
    told = json.loads(
        spa_plan(recipe, "--systems", "sft,kto", "--vary", "pair.margin=1,2", "--json", "--out", tmp_path / "run").out
    )
    trained = {step["name"] for step in told["steps"] if step["trained_tokens"]} - {
        step["name"] for step in plain["steps"] if step["trained_tokens"]
    }
    assert trained == {f"systems/{name}/round-1/align" for name in ("sft", "kto", "margin_1", "margin_2")}
    assert len(described) == len(set(described)) == n_plain
