"""What can be known before paid work is told before it, all of it at once, by `spa plan` and `spa run` alike."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from selfpriority.errors import InputError
from selfpriority.inputs import check_inputs
from selfpriority.phases.judge_check import check_recipe
from selfpriority.phases.judge_names import SHIPPED_HEADS
from selfpriority.phases.readiness import Ahead, check_ready
from selfpriority.phases.resources import Reporter, Resources
from selfpriority.pipeline import follow, start
from selfpriority.planning.plan import plan
from selfpriority.recipe import RayBackend, Recipe
from selfpriority.run_records import Step
from tests.test_pipeline import write_recipe

SERVER = {"kind": "openai", "base_url": "https://h.example/v1", "api_key_env": "JUDGE_KEY"}
Lines = list[str]


def lines_of(work: Callable[[], object]) -> Lines:
    with pytest.raises(InputError) as caught:
        work()
    assert caught.value.exit_code == 2
    return caught.value.lines


def refused(folder: Path, model: Path, *overrides: str, **changes: Any) -> Lines:
    """What a plan of the recipe says is missing; a run says the same, and writes nothing."""
    recipe = write_recipe(folder, model, **changes)
    run, asked = start(recipe, overrides, folder / "run")
    by_run = lines_of(lambda: check_inputs(Resources(asked.recipe, run, Reporter())))
    assert not (folder / "run" / "resolved.yaml").exists()
    assert lines_of(lambda: plan(recipe, overrides, folder / "run")) == by_run
    return by_run


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A package is not installed, or what it needs is not."""
    return lambda name: monkeypatch.setitem(sys.modules, name, None)


def test_packages_of_a_training_are_missed_before_anything_is_asked(
    tiny_model: Path, tmp_path: Path, without: Callable[[str], None]
) -> None:
    without("mlflow")
    without("bitsandbytes")
    align = {"report_to": ["mlflow"], "lora": {"quantize": "nf4"}}
    of_branch = {"dpo": {"train": {"align": {"report_to": ["mlflow"], "beta": 2.5}}}}
    told = refused(tmp_path, tiny_model, align=align, evaluate={"more_systems": of_branch})
    assert told[0].startswith("align.report_to: mlflow ")
    assert told[0].endswith("; pip install mlflow, or leave it out")
    assert told[1].startswith("align.lora.quantize: nf4 needs bitsandbytes, which ")
    assert told[1].endswith("; install it with selfpriority[qlora]")
    assert told[2].startswith("evaluate.more_systems.dpo.train: align.report_to: mlflow ")


def test_a_broken_package_says_why(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trackio.py").write_text("raise OSError('libcuda.so.1: cannot open')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "trackio", raising=False)
    [line] = refused(tmp_path, tiny_model, align={"report_to": ["trackio"]})
    assert line.startswith("align.report_to: trackio cannot be imported (libcuda.so.1: cannot open); pip install")


def test_keys_of_all_servers_are_missed_at_once(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    judge = {"judge": "big", "backend": SERVER}
    changes = {"score": judge, "evaluate": {"judge": judge, "comparer": judge, "more_judges": {"x": judge}}}
    told = refused(tmp_path, tiny_model, **changes)
    assert [line.partition(":")[0] for line in told] == [
        f"{place}.backend.api_key_env" for place in ("score", "evaluate", "evaluate.more_judges.x", "evaluate.comparer")
    ]
    assert told[0].endswith(
        "$JUDGE_KEY, the key for https://h.example/v1, is not set; export JUDGE_KEY=..., or name the variable that "
        "holds it"
    )
    monkeypatch.setenv("JUDGE_KEY", "k")
    run, asked = start(tmp_path / "recipe.yaml", [], tmp_path / "run")
    check_inputs(Resources(asked.recipe, run, Reporter()))


def test_a_server_goes_on_from_no_opening(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "k")
    (tmp_path / "mine.yaml").write_text("- {name: a, text: Be a.}\n- {name: b, text: Be b., opening: 'No,'}\n")
    changes: dict[str, Any] = {"backend": SERVER, "score": {"judge": "self"}}
    for personas in ("openings", str(tmp_path / "mine.yaml")):
        [line] = refused(tmp_path, tiny_model, sample={"personas": personas}, **changes)
        assert line == (
            f"sample.personas: {personas} holds openings, and the server at https://h.example/v1 goes on from none; "
            f"use personas without them, or backend.kind=hf"
        )
    run, asked = start(write_recipe(tmp_path, tiny_model, **changes), [], tmp_path / "run")
    check_inputs(Resources(asked.recipe, run, Reporter()))


def test_folders_of_heads_are_complete_and_know_every_objective(tiny_model: Path, tmp_path: Path) -> None:
    for name in ("cut", "other"):
        shutil.copytree(SHIPPED_HEADS / "demo-train", tmp_path / name)
    (tmp_path / "cut" / "card.json").unlink()
    card = json.loads((tmp_path / "other" / "card.json").read_text())
    del card["objectives"]["helpfulness"]
    (tmp_path / "other" / "card.json").write_text(json.dumps({**card, "model": str(tiny_model)}))
    score, evaluate = ({"judge": str(tmp_path / name), "method": "probe"} for name in ("cut", "other"))
    told = refused(tmp_path, tiny_model, score=score, evaluate=evaluate)
    assert "is no folder of fitted heads, card.json is missing" in told[0]
    assert told[0].startswith("score: ")
    assert told[1].startswith(f"evaluate.judge: {tmp_path / 'other'}: no fitted head for helpfulness; there are heads")
    with pytest.raises(InputError, match="no fitted head for helpfulness"):
        check_recipe(tmp_path / "recipe.yaml", [f"score.judge={tmp_path / 'other'}"], None, Reporter())


def test_models_that_the_hub_may_not_be_asked_for(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    rewards = {"method": "reward", "rewards": dict.fromkeys(("harmlessness", "helpfulness"), "nobody/no-such-reward")}
    others = {"big": {"model": "nobody/no-such-model"}}
    told = refused(tmp_path, tiny_model, score={"judge": "self", **rewards}, evaluate={"more_systems": others})
    assert [line.partition(": ")[0] for line in told] == [
        "evaluate.more_systems.big.model",
        "score.rewards.harmlessness",
        "score.rewards.helpfulness",
    ]
    assert told[1].endswith(
        "nobody/no-such-reward is not on this machine, and HF_HUB_OFFLINE forbids to ask the hub; fetch it first, or "
        "unset that"
    )


def test_what_is_done_needs_nothing_any_more(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without: Callable[[str], None]
) -> None:
    """What was trained elsewhere is evaluated without a tracker, and a finished run is shown without a key."""
    from selfpriority import inputs

    without("mlflow")
    recipe = write_recipe(
        tmp_path, tiny_model, align={"report_to": ["mlflow"]}, evaluate={"judge": "b", "backend": SERVER}
    )
    run, asked = start(recipe, [], tmp_path / "run")
    follow(run, asked)
    with run.recording(Step("judge", "some", ())):
        pass
    given = Resources(asked.recipe, run, Reporter())
    monkeypatch.setattr(inputs, "align_step", lambda *_: Step("judge", "some", ()))
    assert [line.partition(":")[0] for line in lines_of(lambda: check_inputs(given))] == [
        "evaluate.backend.api_key_env"
    ]
    monkeypatch.setattr(inputs, "is_done", lambda *_: True)
    check_inputs(given)


def test_a_check_of_a_served_judge_needs_no_model_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "k")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    recipe = Recipe.model_validate({"model": "nobody/no-such-model", "prompts": "demo", "backend": SERVER})
    names = ("harmlessness", "helpfulness")
    check_ready(recipe, names, Ahead(collects=False, trains=False, evaluates=False))
    with pytest.raises(InputError, match="model: nobody/no-such-model"):
        check_ready(recipe, names, Ahead(collects=False))


def test_what_is_collected_needs_no_key_of_its_server(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    score = {"judge": "demo-train", "method": "probe"}
    given = {"model": str(tiny_model), "prompts": "demo", "backend": SERVER, "score": score}
    recipe, names = Recipe.model_validate(given), ("harmlessness", "helpfulness")
    check_ready(recipe, names, Ahead(collects=False))
    with pytest.raises(InputError, match=r"backend.api_key_env: \$JUDGE_KEY"):
        check_ready(recipe, names, Ahead())


def test_replicas_want_ray_and_say_their_arithmetic(
    tmp_path: Path, tiny_model: Path, without: Callable[[str], None]
) -> None:
    without("ray")
    backend = {"kind": "ray", "each": {"dtype": "float32"}, "gpus": 0}
    [line] = refused(tmp_path, tiny_model, backend=backend)
    assert line == "backend.kind: ray: Ray is not installed; pip install 'selfpriority[ray]' on all nodes"
    with pytest.raises(ValidationError, match=r"dtype: auto may mean one thing on one node and another on the next"):
        RayBackend(kind="ray", each={"kind": "hf"})  # type: ignore[arg-type] - as a recipe says it
