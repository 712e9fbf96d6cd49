"""A run with answers of two systems to six held-out prompts; the last is answered alike by both."""

import json
from pathlib import Path

import pytest

from selfpriority.evaluation.records import Summary
from selfpriority.evaluation.summary_file import write_summary
from selfpriority.recipe import Recipe, dump
from selfpriority.run import Run
from selfpriority.storage import write_json, write_text

N_PROMPTS = 6


@pytest.fixture
def run(tmp_path: Path) -> Run:
    folder = tmp_path / "demo"
    recipe = Recipe.model_validate({"model": "m", "prompts": "p.jsonl", "constitution": "harmless-helpful"})
    write_text(folder / "resolved.yaml", [dump(recipe)])
    write_json(folder / "manifest.json", {"name": "demo", "versions": {}, "steps": {}})
    summary = Summary(("harmlessness", "helpfulness"), {"vanilla": {}, "spa": {}}, {})
    write_summary(folder / "evaluation" / "summary.json", summary)
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
        "response": {
            "id": f"p{number}/{system}",
            "prompt_id": f"p{number}",
            "text": text,
            "stop": "end",
            "n_tokens": len(text.split()),
        },
    }
