"""A run that trains a system online beside its own: what it draws by, and that it is done once. Needs TRL."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from statistics import fmean

import pytest

from tests.test_pipeline import SMALL, spa, steps, write_recipe

pytestmark = pytest.mark.slow
if not importlib.util.find_spec("trl"):
    pytest.skip("TRL is not installed: the extra `online` brings it", allow_module_level=True)


def test_a_run_trains_a_system_online_by_the_lengths_it_drew_and_once(tiny_model: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, tiny_model, evaluate={**SMALL["evaluate"], "systems": ["online_grpo"]})
    run = tmp_path / "run"
    told = spa("run", recipe, "--out", run).stderr
    assert "systems/online_grpo/round-1/align: " in told
    assert "with answers that the policy drew" in told
    system = run / "systems" / "online_grpo"
    log = [json.loads(line) for line in (system / "round-1" / "training.jsonl").read_text().splitlines()]
    drawn = [json.loads(line) for line in (system / "round-1" / "1-candidates.jsonl").read_text().splitlines()]
    usual = fmean(response["n_tokens"] for row in drawn for response in row["responses"])
    assert usual < SMALL["sample"]["max_new_tokens"]
    assert [row["step"] for row in log] == list(range(1, log[0]["n_steps"] + 1))
    assert {"reward", "kl"} <= set(log[0])
    assert "online_grpo" in json.loads((run / "evaluation" / "summary.json").read_text())["systems"]
    key = steps(system)["round-1/align"]["key"]
    assert "online_grpo: align (round 1): done before" in spa("run", recipe, "--out", run).stderr
    assert steps(system)["round-1/align"]["key"] == key
