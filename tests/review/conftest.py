"""A run with answers of two systems to six held-out prompts; the last is answered alike by both."""

import json
from pathlib import Path

import pytest

from selfpriority.recipe import Recipe, dump
from selfpriority.run import Run, write_json, write_text

N_PROMPTS = 6


@pytest.fixture
def run(tmp_path: Path) -> Run:
    folder = tmp_path / "demo"
    recipe = Recipe.model_validate({"model": "m", "prompts": "p.jsonl", "constitution": "harmless-helpful"})
    write_text(folder / "resolved.yaml", [dump(recipe)])
    write_json(folder / "manifest.json", {"name": "demo", "versions": {}, "steps": {}})
    write_json(folder / "evaluation" / "summary.json", {"systems": {"vanilla": {}, "spa": {}}})
    for system in ("vanilla", "spa"):
        rows = [answer(number, system) for number in range(N_PROMPTS)]
        write_text(folder / "evaluation" / f"answers-{system}.jsonl", (json.dumps(row) + "\n" for row in rows))
    return Run.existing(folder)


def answer(number: int, system: str) -> dict:
    same = number == N_PROMPTS - 1
    text = "The same." if same else f"Text {number} in the manner of {'A' if system == 'spa' else 'B'}."
    messages = [{"role": "user", "content": f"Question {number}?"}]
    return {
        "prompt": {"id": f"p{number}", "messages": messages, "kind": "ordinary"},
        "response": {"id": f"p{number}/{system}", "text": text, "stop": "end"},
    }
