"""The gate before training, where a phase is started alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfpriority.pipeline import start
from selfpriority.run import read_json
from tests.test_bad_input import run_cli
from tests.test_pipeline import write_recipe


@pytest.mark.parametrize(("require_signal", "code"), [(True, 3), (False, 0)])
def test_collecting_alone_does_not_walk_around_the_gate(
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    require_signal: bool,
    code: int,
) -> None:
    recipe = write_recipe(tmp_path, tiny_model, score={"require_signal": require_signal})
    run, _ = start(recipe, [], tmp_path / "run")
    assert run_cli(monkeypatch, "collect", run.folder) == code
    assert (run.round(1) / "5-pairs.jsonl").is_file() == (not require_signal)
    said = capfd.readouterr().err
    assert ("is refused" if require_signal else "training on a judge that may be chance, as the recipe asks") in said
    assert not read_json(run.folder / "judge.json")["train"]["usable"]
