"""Relative paths of a recipe: from the working directory or beside the recipe, and never a name that ships."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from selfpriority.constitution import SHIPPED
from selfpriority.phases.judge_check import check_recipe
from selfpriority.phases.recipe_paths import with_absolute_paths
from selfpriority.phases.resources import Reporter
from selfpriority.recipe import ByProbe, ByReward, InWords, Recipe, dump


def recipe() -> Recipe:
    judging = {"judge": "big"}
    rewarding = {"method": "reward", "rewards": {"harmlessness": "beside"}}
    return Recipe.model_validate(
        {
            "model": "beside",
            "prompts": "prompts.jsonl",
            "constitution": "mine",
            "sample": {"personas": "personas.yaml"},
            "score": rewarding,
            "evaluate": {
                "prompts": {"source": "prompts.jsonl"},
                **judging,
                "comparer": judging,
                "more_judges": {"other": judging, "rewards": rewarding},
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
    for judge in (found.evaluate.judge, found.evaluate.comparer, found.evaluate.more_judges["other"]):
        assert judge == InWords(judge=str(folder / "big"))
    for judge in (found.score.judge, found.evaluate.more_judges["rewards"]):
        assert judge == ByReward(kind="reward", rewards={"harmlessness": str(folder / "beside")})
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
            "score": {"judge": "demo-train", "method": "probe"},
            "evaluate": {
                "prompts": {"source": "demo"},
                "judge": "self",
                "comparer": {"judge": "smollm2-135m"},
                "more_judges": {"other": {"method": "reward", "rewards": {"harmlessness": "smollm2-135m"}}},
                "more_prompts": {"transfer": {"source": "demo"}},
                "more_systems": {"start": {"model": "self"}, "small": {"model": "smollm2-135m"}},
            },
        }
    )
    assert with_absolute_paths(shipped, tmp_path) == shipped
    assert with_absolute_paths(shipped.model_copy(update={"model": "./demo"}), tmp_path).model == str(tmp_path / "demo")


def test_the_name_of_heads_alone_means_a_probe(tmp_path: Path) -> None:
    given = {"model": "m", "prompts": "demo", "score": {"judge": "demo-train"}, "evaluate": {"judge": "demo-eval"}}
    found = with_absolute_paths(Recipe.model_validate(given), tmp_path)
    assert found.score.judge == ByProbe(kind="probe", judge="demo-train")
    assert found.evaluate.judge == ByProbe(kind="probe", judge="demo-eval")


@pytest.mark.usefixtures("own_cache")
def test_the_check_of_a_judge_finds_what_a_run_finds(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "recipes"
    shutil.copytree(SHIPPED / "harmless-helpful", folder / "mine")
    given = {"model": str(tiny_model), "prompts": "demo", "constitution": "mine", "backend": {"kind": "scripted"}}
    (folder / "recipe.yaml").write_text(dump(Recipe.model_validate(given)))
    monkeypatch.chdir(tmp_path)
    assert check_recipe(folder / "recipe.yaml", [], None, Reporter()).train is not None
