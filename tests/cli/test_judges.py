"""`spa check-judge --labels FILE` from the file to the exit code, with heads that were fitted on such labels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from selfpriority.phases.judge_check import fit
from selfpriority.phases.resources import Reporter
from selfpriority.recipe import Prompts, Recipe
from tests.test_bad_input import run_cli

N = 24
Check = Callable[..., Any]


def single(number: int, objective: str, label: int) -> dict[str, object]:
    response = f"yes please number {number}" if label else f"9 9 9 9 {number}"
    return {"prompt": f"question {number}", "response": response, "objective": objective, "label": label}


def pair(number: int, objective: str) -> dict[str, object]:
    chosen, rejected = (single(number, objective, label)["response"] for label in (1, 0))
    return {"prompt": f"question {number}", "chosen": chosen, "rejected": rejected, "objective": objective}


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def folder(tiny_model: Path, own_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Single answers on harmlessness, pairs on helpfulness, both in one file, and a recipe whose heads know them."""
    folder = tmp_path_factory.mktemp("labels")
    singles = [single(number, "harmlessness", label) for number in range(N) for label in (1, 0)]
    pairs = [pair(number, "helpfulness") for number in range(N)]
    write(folder / "singles.jsonl", singles)
    write(folder / "pairs.jsonl", pairs)
    both = write(folder / "both.jsonl", [*singles, *pairs])
    recipe = Recipe(model=str(tiny_model), prompts=Prompts(source="none"))
    fit([both], recipe, folder / "heads", (1, 2), 1.0, Reporter())
    recipe = {
        "model": str(tiny_model),
        "prompts": "demo",
        "score": {"judge": "heads", "method": "probe"},
        "evaluate": {
            "prompts": {"source": "demo", "split": "heldout"},
            "judge": "heads",
            "comparer": {"judge": str(tiny_model), "backend": {"kind": "scripted"}},
        },
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder


@pytest.fixture
def check(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Check:
    def call(name: str, *options: str, code: int) -> str:
        told = run_cli(monkeypatch, "check-judge", folder / "recipe.yaml", "--labels", folder / name, *options)
        said = capsys.readouterr()
        assert told == code, said.err
        return said.out

    return call


def sources(report: dict[str, Any]) -> list[str]:
    assert [row["objective"] for row in report["objectives"]] == ["harmlessness", "helpfulness"]
    return [row["source"] for row in report["objectives"]]


def test_single_answers_speak_for_their_objective_and_the_anchors_for_the_other(check: Check, folder: Path) -> None:
    reports = json.loads(check("singles.jsonl", "--json", code=3))
    file = f"labels: {folder / 'singles.jsonl'}"
    harmless, helpful = reports["train"]["objectives"]
    assert sources(reports["train"]) == [file, "anchors"]
    assert (harmless["n"], harmless["auc"]["n"], harmless["pair_accuracy"]) == (2 * N, 2 * N, None)
    assert harmless["usable"]
    assert sum(part["n"] for part in harmless["calibration"]) == 2 * N
    assert helpful["n"] > 2 * N
    assert not helpful["usable"]  # the heads know nothing of the anchors
    assert sources(reports["comparer"]) == ["anchors", "anchors"]  # single answers are no pairs


def test_pairs_speak_for_their_objective_with_the_comparing_judge_too(check: Check, folder: Path) -> None:
    reports = json.loads(check("pairs.jsonl", "--json", code=3))
    file = f"labels: {folder / 'pairs.jsonl'}"
    helpful = reports["train"]["objectives"][1]
    assert sources(reports["train"]) == sources(reports["comparer"]) == ["anchors", file]
    assert (helpful["n"], helpful["auc"], helpful["pair_accuracy"]["n"]) == (2 * N, None, N)
    assert helpful["usable"]
    assert reports["comparer"]["objectives"][1]["n"] == N


def test_labels_of_every_objective_decide_alone_and_the_text_names_them(check: Check, folder: Path) -> None:
    text = check("both.jsonl", code=0)
    file = f"labels: {folder / 'both.jsonl'}"
    assert [line.endswith(file) for line in text.splitlines() if line.startswith("training judge  ")] == [True, True]
    harmless, helpful = (line for line in text.splitlines() if line.startswith("comparing judge, "))
    assert harmless.endswith("pairs from anchors")
    assert helpful.endswith(f"pairs from {file}")
    assert "training judge (" in text
    assert ": usable" in text


def test_a_file_that_is_no_labels_is_told_in_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = write(folder / "wrong.jsonl", [{"prompt": "q", "response": "a", "objective": "harmlessness"}])
    assert run_cli(monkeypatch, "check-judge", folder / "recipe.yaml", "--labels", wrong) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "wrong.jsonl:1: needs either response and label, or chosen and rejected" in line
