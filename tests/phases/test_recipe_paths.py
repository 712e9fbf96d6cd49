"""Relative paths of a recipe: from the working directory or beside the recipe, and never a name that ships."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from selfpriority.constitution import SHIPPED
from selfpriority.phases.judge_check import check_recipe
from selfpriority.phases.recipe_paths import with_absolute_paths
from selfpriority.phases.resources import Reporter
from selfpriority.recipe import Recipe, dump


def recipe() -> Recipe:
    judging = {"judge": "big", "rewards": {"harmlessness": "beside"}}
    return Recipe.model_validate(
        {
            "model": "beside",
            "prompts": "prompts.jsonl",
            "constitution": "mine",
            "sample": {"personas": "personas.yaml"},
            "score": judging,
            "evaluate": {
                "prompts": {"source": "prompts.jsonl"},
                **judging,
                "comparer": judging,
                "more_judges": {"other": judging},
                "more_prompts": {"transfer": {"source": "prompts.jsonl"}},
                "more_systems": {"big": {"model": "big"}, "prompted": {"how": "constitution"}},
            },
        }
    )


def test_every_path_is_found_beside_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, elsewhere = tmp_path / "recipes", tmp_path / "elsewhere"
    for name in ("beside", "mine", "big"):
        (folder / name).mkdir(parents=True)
    for name in ("prompts.jsonl", "personas.yaml"):
        (folder / name).touch()
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    found = with_absolute_paths(recipe(), folder)
    assert found.model == str(folder / "beside")
    assert found.constitution == str(folder / "mine")
    assert found.sample.personas == str(folder / "personas.yaml")
    assert found.evaluate.prompts is not None
    assert found.evaluate.comparer is not None
    assert found.prompts.source == found.evaluate.prompts.source == str(folder / "prompts.jsonl")
    assert found.evaluate.more_prompts["transfer"].source == found.prompts.source
    systems = found.evaluate.more_systems
    assert (systems["big"].model, systems["prompted"].model) == (str(folder / "big"), "self")
    for section in (found.score, found.evaluate, found.evaluate.comparer, found.evaluate.more_judges["other"]):
        assert section.judge == str(folder / "big")
        assert section.rewards == {"harmlessness": str(folder / "beside")}
    assert with_absolute_paths(found, elsewhere) == found


def test_no_file_takes_the_place_of_what_ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("smollm2-135m", "demo", "harmless-helpful", "default", "self", "demo-train", "demo-eval")
    for name in names:
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    shipped = Recipe.model_validate(
        {
            "model": "smollm2-135m",
            "prompts": "demo",
            "score": {"judge": "demo-train", "rewards": {"harmlessness": "smollm2-135m"}},
            "evaluate": {
                "prompts": {"source": "demo"},
                "judge": "self",
                "comparer": {"judge": "smollm2-135m"},
                "more_judges": {"other": {"judge": "demo-eval"}},
                "more_prompts": {"transfer": {"source": "demo"}},
                "more_systems": {"start": {"model": "self"}, "small": {"model": "smollm2-135m"}},
            },
        }
    )
    assert with_absolute_paths(shipped, tmp_path) == shipped
    assert with_absolute_paths(shipped.model_copy(update={"model": "./demo"}), tmp_path).model == str(tmp_path / "demo")


def test_the_check_of_a_judge_finds_what_a_run_finds(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "recipes"
    shutil.copytree(SHIPPED / "harmless-helpful", folder / "mine")
    given = {"model": str(tiny_model), "prompts": "demo", "constitution": "mine", "backend": {"kind": "scripted"}}
    (folder / "recipe.yaml").write_text(dump(Recipe.model_validate(given)))
    monkeypatch.chdir(tmp_path)
    assert "train" in check_recipe(folder / "recipe.yaml", [], None, Reporter())
