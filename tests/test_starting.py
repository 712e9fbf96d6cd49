"""How a run takes up a recipe: nobody else works on it and its inputs are sound. And when its page is rewritten."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfpriority.errors import InputError
from selfpriority.inputs import check_inputs
from selfpriority.phases.resources import Reporter, Resources
from selfpriority.pipeline import follow, report, run_all, start
from selfpriority.recipe import load
from selfpriority.run import Run
from selfpriority.storage import write_json
from tests.test_pipeline import write_recipe


def written(run: Run) -> dict[str, str]:
    return {path.name: path.read_text() for path in run.folder.iterdir() if path.suffix == ".yaml"}


def test_a_run_that_somebody_works_on_keeps_its_recipe(tiny_model: Path, tmp_path: Path) -> None:
    recipe, folder = write_recipe(tmp_path, tiny_model), tmp_path / "run"
    follow(*start(recipe, [], folder))
    run, asked = start(recipe, ["align.beta=5"], folder)
    before = written(run)
    with run.locked("run"), pytest.raises(InputError, match="another spa process"):
        run_all(run, asked, Reporter())
    assert written(run) == before
    assert set(before) == {"recipe.yaml", "resolved.yaml"}
    assert load(run.recipe).align.beta != 5


def test_a_mistake_leaves_the_recipe_of_before_or_a_place_to_begin(tiny_model: Path, tmp_path: Path) -> None:
    recipe, folder = write_recipe(tmp_path, tiny_model), tmp_path / "run"
    for _ in range(2):
        run, asked = start(recipe, ["prompts.source=typo.jsonl"], folder)
        with pytest.raises(InputError, match=r"typo\.jsonl"):
            run_all(run, asked, Reporter())
        assert not written(run)
    follow(*start(recipe, [], folder))
    before = written(run)
    with pytest.raises(InputError):
        run_all(*start(recipe, ["prompts.source=typo.jsonl"], folder), Reporter())
    assert written(run) == before


def test_a_kill_while_the_recipe_is_written_leaves_a_run(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, folder = write_recipe(tmp_path, tiny_model), tmp_path / "run"
    run, asked = start(recipe, [], folder)
    with monkeypatch.context() as killing:
        left = iter([_write])
        killing.setattr("selfpriority.pipeline.write_text", lambda *given: next(left)(*given))
        with pytest.raises(StopIteration):
            follow(run, asked)
    follow(*start(recipe, [], folder))
    assert set(written(run)) == {"recipe.yaml", "resolved.yaml"}


def _write(path: Path, parts: list[str]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(parts))


def test_the_page_is_rewritten_when_what_it_shows_comes_about_without_a_step(tiny_model: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, tiny_model)
    run, asked = start(recipe, [], tmp_path / "run")
    follow(run, asked)

    def age() -> int:
        return report(run).stat().st_mtime_ns

    ages = [age()]
    assert age() == ages[0]
    write_json(run.evaluation / "utility.json", {"systems": {"vanilla": "hash"}, "tasks": {}, "n_fewshot": 0})
    ages.append(age())
    (run.evaluation / "reviews-ann.jsonl").touch()
    ages.append(age())
    follow(*start(recipe, ["evaluate.tie=0.75"], run.folder))
    ages.append(age())
    assert "0.75" in report(run).read_text()
    assert len(set(ages)) == 4
    assert age() == ages[-1]


def test_a_beta_far_from_the_usual_is_told_at_the_start(tiny_model: Path, tmp_path: Path) -> None:
    """As a file that was copied from SimPO's recipe holds it, with another method written above it."""
    recipe = write_recipe(tmp_path, tiny_model, align={"method": "dpo", "beta": 2.5})
    run, asked = start(recipe, [], tmp_path / "run")
    told: list[str] = []
    resources = Resources(asked.recipe, run, Reporter())
    resources.reporter.note = told.append  # type: ignore[method-assign]
    check_inputs(resources)
    assert told == ["align.beta: 2.5 is unusual for dpo (summed log-ratios: 0.01 to 0.5)"]
