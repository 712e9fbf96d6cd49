"""Recipes to plan, and the same recipes run on scripted answers with the model itself as the policy."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from selfpriority import cli
from selfpriority.phases.collect import collect
from selfpriority.phases.evaluate import evaluate
from selfpriority.phases.judge_check import gate
from selfpriority.phases.resources import Reporter, Resources
from selfpriority.recipe import load
from selfpriority.run import Run


@pytest.fixture
def written(tmp_path: Path, tiny_model: Path) -> Callable[..., Path]:
    """A small recipe as a file, with sections changed."""

    def write(**changes: Any) -> Path:
        recipe: dict[str, Any] = {
            "model": str(tiny_model),
            "prompts": {"source": "demo", "split": "train", "limit": 6},
            "sample": {"n": 4, "max_new_tokens": 12},
            "score": {"require_signal": False},
            "refine": {"n": 2, "max_new_tokens": 10},
            "denoise": {"consistency": "off", "keep_lowest": 1.0},
            "pair": {"margin": 0.1},
            "align": {"dtype": "float32"},
            "evaluate": {"prompts": {"source": "demo", "split": "heldout", "limit": 4}, "max_new_tokens": 12},
            "backend": {"kind": "scripted"},
        }
        for name, value in changes.items():
            recipe[name] = {**recipe[name], **value} if isinstance(value, dict) and name != "backend" else value
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe))
        return path

    return write


@pytest.fixture
def done(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Run]:
    """The run of a recipe, all steps but training; the evaluation takes the policy as it lies there."""
    monkeypatch.setattr("selfpriority.phases.evaluate.check_all_made", lambda *_: None)

    def run(recipe: Path) -> Run:
        run = Run(tmp_path / "run")
        run.round(1).mkdir(parents=True)
        run.recipe.touch()
        run.policy(1).symlink_to(tiny_model)
        opened = Resources(load(recipe), run, Reporter())
        gate(run, opened)
        collect(run, opened, 1)
        evaluate(run, opened)
        return run

    return run


@pytest.fixture
def spa_plan(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """The command with these arguments: what it says, once its exit code is the one that is expected."""

    def call(*arguments: object, code: int = 0) -> Any:
        monkeypatch.setattr(sys, "argv", ["spa", "plan", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        said = capsys.readouterr()
        assert stopped.value.code == code, said.err
        return said

    return call
