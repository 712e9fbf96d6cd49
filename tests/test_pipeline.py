"""Whole runs on a tiny model with scripted answers: what is done, what is done again, what a run leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from selfpriority.recipe import Recipe

# a whole run in seconds: answers are scripted, the training is real
SMALL: dict[str, Any] = {
    "prompts": {"source": "demo", "split": "train", "limit": 6},
    "sample": {"n": 4, "max_new_tokens": 12},
    "score": {"require_signal": False},
    "refine": {"max_new_tokens": 12},
    "denoise": {"consistency": "off", "keep_lowest": 1.0},
    "pair": {"margin": 0.1},
    "align": {"learning_rate": 1e-3, "tokens_per_step": 400, "dtype": "float32"},
    "evaluate": {"prompts": {"source": "demo", "split": "heldout", "limit": 4}, "max_new_tokens": 12},
    "backend": {"kind": "scripted"},
}


def write_recipe(folder: Path, model: Path, **changes: Any) -> Path:
    recipe = {"model": str(model), **SMALL}
    for name, value in changes.items():
        recipe[name] = {**recipe[name], **value} if isinstance(value, dict) and name in recipe else value
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(Recipe.model_validate(recipe).model_dump(mode="json")))
    return path


def spa(*arguments: object, check: int = 0, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "selfpriority", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
        cwd=cwd,
    )
    assert done.returncode == check, done.stderr
    assert "Traceback" not in done.stderr
    return done


def steps(run: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((run / "manifest.json").read_text())["steps"]
    return manifest


@pytest.fixture(scope="module")
def finished(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("run")
    recipe = write_recipe(folder, tiny_model)
    spa("run", recipe, "--out", folder / "run")
    return recipe, folder / "run"


def test_a_run_leaves_what_the_documentation_says(finished: tuple[Path, Path]) -> None:
    _, run = finished
    expected = {
        "recipe.yaml", "resolved.yaml", "manifest.json", "judge.json", "report.html",
        "round-1/1-candidates.jsonl", "round-1/2-scored.jsonl", "round-1/3-refined.jsonl", "round-1/4-pools.jsonl",
        "round-1/5-pairs.jsonl", "round-1/drops.jsonl", "round-1/funnel.json", "round-1/training.jsonl",
        "round-1/policy/model.safetensors", "round-1/policy/tokenizer.json",
        "evaluation/answers-vanilla.jsonl", "evaluation/verdicts-spa.jsonl", "evaluation/summary.json",
        "evaluation/table.md",
    }  # fmt: skip
    assert {name for name in expected if not (run / name).is_file()} == set()
    assert not list(run.glob("round-1/checkpoints-*"))


def test_the_funnel_adds_up_and_chains(finished: tuple[Path, Path]) -> None:
    funnel = json.loads((finished[1] / "round-1" / "funnel.json").read_text())["steps"]
    assert list(funnel) == ["prompts", "sample", "score", "refine", "denoise", "pair", "align"]
    before = None
    for row in funnel.values():
        assert row["in"] == row["out"] + sum(row["dropped"].values())
        assert before is None or row["in"] == before
        before = row["out"]


def test_pairs_read_as_a_preference_data_set(finished: tuple[Path, Path]) -> None:
    rows = [json.loads(line) for line in (finished[1] / "round-1" / "5-pairs.jsonl").read_text().splitlines()]
    assert rows
    for row in rows:
        assert [turn["role"] for turn in row["chosen"]] == ["assistant"]
        assert row["prompt"][-1]["role"] == "user"
        assert set(row["chosen_scores"]) == {"harmlessness", "helpfulness"}
        assert row["decided_by"] in row["chosen_scores"]


def test_training_prompts_carry_no_persona(finished: tuple[Path, Path]) -> None:
    rows = [json.loads(line) for line in (finished[1] / "round-1" / "5-pairs.jsonl").read_text().splitlines()]
    assert all(turn["role"] != "system" for row in rows for turn in row["prompt"])


def test_the_policy_loads_and_differs_from_its_start(finished: tuple[Path, Path], tiny_model: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    trained = AutoModelForCausalLM.from_pretrained(finished[1] / "round-1" / "policy", dtype=torch.float32)
    start = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    assert any(not torch.equal(a, b) for a, b in zip(trained.parameters(), start.parameters(), strict=True))


def test_the_same_command_again_does_nothing(finished: tuple[Path, Path]) -> None:
    recipe, run = finished
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.jsonl")}
    manifest = steps(run)
    done = spa("run", recipe, "--out", run)
    assert steps(run) == manifest
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*.jsonl")} == before
    assert done.stderr.count("done before") == 4
    assert "report:" in done.stdout


@pytest.mark.slow
def test_a_changed_recipe_redoes_exactly_what_depends_on_it(tiny_model: Path, tmp_path: Path) -> None:
    recipe, run = write_recipe(tmp_path, tiny_model), tmp_path / "run"
    spa("run", recipe, "--out", run)
    before = steps(run)
    done = spa("run", recipe, "pair.margin=4.0", "--out", run)
    after = steps(run)
    changed = {name for name in after if after[name].get("key") != before[name].get("key")}
    # a margin touches pairs, so training, so the trained system's answers; vanilla's are as good as before
    assert changed == {
        "round-1/pair", "round-1/align", "evaluation/answers-spa", "evaluation/verdicts-spa", "evaluation/summary",
        "report",
    }  # fmt: skip
    assert "round-1/pair: its inputs changed" in done.stderr
    assert "round-1/sample: its inputs" not in done.stderr


@pytest.mark.slow
def test_two_rounds_train_from_one_another(tiny_model: Path, tmp_path: Path) -> None:
    recipe, run = write_recipe(tmp_path, tiny_model, rounds=2), tmp_path / "run"
    spa("run", recipe, "--out", run)
    assert (run / "round-2" / "policy" / "model.safetensors").is_file()
    first, second = (run / f"round-{n}" / "policy" / "model.safetensors" for n in (1, 2))
    assert first.read_bytes() != second.read_bytes()


@pytest.mark.slow
def test_new_prompts_per_round_are_dealt_out_without_overlap(tiny_model: Path, tmp_path: Path) -> None:
    recipe, run = write_recipe(tmp_path, tiny_model, rounds=2, prompts_per_round="new"), tmp_path / "run"
    spa("run", recipe, "--out", run)

    def ids(number: int) -> set[str]:
        rows = (run / f"round-{number}" / "1-candidates.jsonl").read_text().splitlines()
        return {json.loads(row)["prompt"]["id"] for row in rows}

    assert len(ids(1)) == len(ids(2)) == 3
    assert not ids(1) & ids(2)


@pytest.mark.usefixtures("own_cache")
def test_a_judge_at_chance_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, tiny_model, score={"require_signal": True})
    done = spa("run", recipe, "--out", tmp_path / "run", check=3)
    assert "is refused" in done.stderr
    assert "score.require_signal=false" in done.stderr
    assert not (tmp_path / "run" / "round-1").exists()
    spa("check-judge", recipe, check=3)


@pytest.mark.slow
def test_phases_work_on_their_own(tiny_model: Path, tmp_path: Path) -> None:
    whole = {"max_new_tokens": 64}  # so that most answers end: doctor calls a round bad that shows no endings
    recipe, run = write_recipe(tmp_path, tiny_model, sample=whole, refine=whole), tmp_path / "run"
    spa("run", recipe, "--out", run)
    (run / "round-1" / "5-pairs.jsonl").unlink()
    spa("collect", run)
    spa("align", run)
    assert "harmlessness" in spa("evaluate", run).stdout
    assert json.loads(spa("evaluate", run, "--json").stdout)["systems"]["spa"]
    (run / "report.html").unlink()
    spa("report", run)
    assert (run / "report.html").is_file()
    assert "sample" in spa("show", run).stdout
    assert spa("doctor", run).stdout


def test_all_prompts_lost_is_a_failure_that_says_where(tiny_model: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, tiny_model, pair={"margin": 18.0})
    done = spa("run", recipe, "--out", tmp_path / "run", check=1)
    assert "round-1/pair: no prompt is left (6 no_pairs)" in done.stderr
