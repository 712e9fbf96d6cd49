"""docs/own-python.md: what it prints runs as it is printed."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import yaml

from selfpriority.phases.recipe_paths import with_absolute_paths
from selfpriority.recipe import load
from tests.test_bad_input import run_cli
from tests.test_own_python import tidy  # noqa: F401 - a fixture

PAGE = (Path(__file__).parent.parent / "docs" / "own-python.md").read_text("utf-8")
JUDGE, SYSTEM = re.findall(r"```python\n(.*?)```", PAGE, re.S)
(RECIPE,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)


@pytest.fixture
def printed(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of the page in the working directory, with a model and prompts that there are."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "judging.py").write_text(JUDGE)
    (tmp_path / "mine.py").write_text(SYSTEM)
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "Who are you?"}\n')
    text = RECIPE.replace("ORG/MODEL", str(tiny_model))
    (tmp_path / "my.yaml").write_text(f"{text}backend: {{kind: scripted}}\n")
    return tmp_path / "my.yaml"


def test_the_example_is_short() -> None:
    assert len([line for line in JUDGE.splitlines() if line.strip()]) <= 15


def test_the_judge_is_checked_and_planned(
    printed: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(monkeypatch, "-q", "check-judge", "my.yaml", "--json") == 3
    train = json.loads(capfd.readouterr().out)["train"]
    assert (train["judge"], train["method"]) == ("judging:rate", "python")
    assert {row["objective"]: row["unrated"] for row in train["objectives"]} == {
        "harmlessness": 0.0,
        "helpfulness": 0.0,
    }
    assert run_cli(monkeypatch, "plan", "my.yaml", "--json") == 0
    steps = {step["name"]: step for step in json.loads(capfd.readouterr().out)["steps"]}
    assert steps["round-1/score"]["requests"] > 0
    assert steps["round-1/score"]["forward_tokens"] == steps["round-1/score"]["new_tokens"] == 0
    assert "selfpriority" not in vars(sys.modules["judging"])  # it needs nothing of ours


def test_the_system_is_trained_as_it_says(printed: Path) -> None:
    recipe = with_absolute_paths(load(printed, ["evaluate.systems=[sft, 'mine:careful_dpo']"]), printed.parent)
    system = recipe.evaluate.more_systems["careful_dpo"]
    assert system.train == {"align": {"method": "dpo", "beta": 0.5, "alpha": 0, "nll": 0}}
    assert yaml.safe_load(recipe.model_dump_json())["evaluate"]["systems"] == []
