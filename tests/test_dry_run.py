"""Every recipe that ships goes its whole way with a scripted model: a dry run, in minutes and without its weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.test_pipeline import spa

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_goes_its_whole_way(recipe: Path, tiny_model: Path, tmp_path: Path) -> None:
    """What is left of it: constitution, personas, steps, denoising, pairs, loss, rate and schedule, systems."""
    prompts = {split: tmp_path / f"{split}.jsonl" for split in ("train", "test")}
    for split, path in prompts.items():
        path.write_text("".join(json.dumps({"prompt": f"{split}: what is {i}?"}) + "\n" for i in range(12)))
    held_out = f"prompts: {{source: {prompts['test']}, limit: 4}}"
    scripted = "{judge: self, method: expected, require_signal: false}"
    run = tmp_path / "run"
    spa(
        "run", recipe, "--out", run, f"model={tiny_model}", "backend={kind: scripted}",
        f"prompts={{source: {prompts['train']}, limit: 12}}", f"score={scripted}", "sample.max_new_tokens=12",
        "refine.max_new_tokens=12", "denoise.consistency=off", "denoise.keep_lowest=1.0", "align.epochs=1",
        "align.processes=1", "align.parallel=ddp", "align.weights=float32", "align.dtype=float32",
        f"evaluate={{{held_out}, max_new_tokens: 12, judge: self}}",
    )  # fmt: skip
    manifest = json.loads((run / "manifest.json").read_text())
    states = {name: step["state"] for name, step in manifest["steps"].items()}
    assert set(states.values()) == {"done"}
    assert {"round-1/sample", "round-1/pair", "round-1/align", "evaluation/summary", "report"} <= set(states)
