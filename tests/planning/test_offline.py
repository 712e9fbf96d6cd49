"""A plan without hub and files: what stands for prompts that are not here, known shapes, and what luck would keep."""

from __future__ import annotations

import math
from itertools import permutations
from pathlib import Path

import pytest
from typer.testing import CliRunner

from selfpriority.cli.app import app
from selfpriority.errors import InputError
from selfpriority.models.known_shapes import known_config
from selfpriority.planning.luck import lucky_share
from selfpriority.planning.plan import Given, Plan, plan
from selfpriority.planning.table import plan_text
from selfpriority.recipe import load
from tests.test_pipeline import write_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
PUBLISHED = {
    "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248,
    "mistralai/Mistral-7B-Instruct-v0.2": 7_241_732_096,
    "Qwen/Qwen2.5-14B-Instruct": 14_770_033_664,
    "Qwen/Qwen3Guard-Gen-0.6B": 596_049_920,  # Qwen3's, its head tied
    "Skywork/Skywork-Reward-V2-Qwen3-1.7B": 1_720_574_976,
    "microsoft/Phi-4-mini-instruct": 3_836_021_760,
}
"""Parameters, from the models' own weight indices."""


@pytest.fixture(autouse=True)
def nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def planned(name: str, *fields: str) -> Plan:
    return plan(RECIPES / f"{name}.yaml", fields, None, Given(offline=True))


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(RECIPES.glob("*b-*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_for_a_gpu_is_planned_with_its_memory_and_fits_its_card(path: Path) -> None:
    found = planned(path.stem)
    assert found.card is not None
    assert found.card.suffices
    assert all(held.total for held in found.memory.values())
    assert len(found.invented) == (2 if "honeset" in path.stem else 3)  # XSTest beside the set that is trained on
    assert found.training.pools > 200


def test_a_known_shape_has_as_many_parameters_as_its_model() -> None:
    from selfpriority.training.parameters import n_parameters

    assert {name: n_parameters(known_config(name)) for name in PUBLISHED} == PUBLISHED
    assert known_config("ORG/MODEL") is None


def test_what_is_guessed_is_said() -> None:
    text = plan_text(planned("llama-3.1-8b-saferlhf", "prompts.limit=100", "evaluate.prompts.limit=5"))
    assert "prompts of PKU-Alignment/PKU-SafeRLHF: 100 (its limit) of 71 characters, for they are not here" in text
    assert "memory of meta-llama/Llama-3.1-8B-Instruct: by its shape, which is known" in text
    # 0.32 of 100, and one in nine of those
    assert "at most 32 pools" in text
    assert "; on 4, in" in text


def test_a_set_without_a_limit_is_a_guess_and_one_that_is_here_is_read() -> None:
    [held_out, train] = planned("mistral-7b-honeset").invented
    assert train.startswith("prompts of honeset.train.jsonl: 1,000 (a guess, for it has no limit) of 80 characters")
    assert held_out.startswith("prompts of honeset.test.jsonl: 1,000")
    assert planned("demo").invented == ()


def test_without_the_option_what_is_missing_is_a_mistake_and_with_it_a_wrong_name_still_is() -> None:
    with pytest.raises(InputError, match="not on this machine"):
        plan(RECIPES / "llama-3.1-8b-saferlhf.yaml", (), None)
    with pytest.raises(InputError):
        planned("llama-3.1-8b-saferlhf", "prompts.source=demoo")


def test_on_the_shell(tiny_model: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, tiny_model, prompts={"source": "ORG/SET", "limit": 7})
    done = CliRunner().invoke(app, ["plan", str(recipe), "--offline"])
    assert done.exit_code == 0, done.output
    assert "prompts of ORG/SET: 7 (its limit) of 80 characters" in done.output


@pytest.mark.parametrize(
    ("n", "m", "rule"), [(3, 1, "strict"), (4, 1, 0.25), (4, 1, 0.5), (3, 2, "strict"), (3, 2, 0.6)]
)
def test_luck_is_counted_over_all_orders(n: int, m: int, rule: str | float) -> None:
    fields = [f"sample.n={n}", f"refine.n={m}", f"denoise.consistency={rule}"]
    k = n if rule == "strict" else math.ceil(float(rule) * n)
    orders = list(permutations(range(n + m)))
    consistent = [order for order in orders if sum(max(order[:m]) > other for other in order[m:]) >= k]
    recipe = load(RECIPES / "demo.yaml", fields)
    assert lucky_share(recipe) == pytest.approx(len(consistent) / len(orders))


def test_without_the_test_none_is_lost() -> None:
    assert lucky_share(load(RECIPES / "demo.yaml", ["denoise.consistency=off"])) == 1.0
