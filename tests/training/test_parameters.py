"""Parameters counted without weights are those of the model."""

from __future__ import annotations

import re

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from selfpriority.errors import InputError
from selfpriority.recipe import Align, Lora
from selfpriority.training.adapters import load_policy
from selfpriority.training.parameters import check_trainable, counts, n_parameters
from tests.test_pipeline import spa, write_recipe


@pytest.fixture
def config(tiny_model):
    return AutoConfig.from_pretrained(tiny_model)


def test_all_of_a_model(config, tiny_model, embedded_model):
    whole = AutoModelForCausalLM.from_pretrained(tiny_model).num_parameters()
    assert n_parameters(config) == whole
    assert counts(config, None).trained == whole
    assert n_parameters(AutoConfig.from_pretrained(embedded_model)) == 134_515_008  # tied embeddings count once


def test_what_adapters_train_and_leave(config, tiny_model):
    model = load_policy(tiny_model, Align(dtype="float32", lora=Lora(r=4)), seed=0).model
    found = counts(config, Lora(r=4))
    assert found.trained == sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert found.frozen_linear + found.frozen_rest == n_parameters(config)
    assert found.frozen_linear == 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64)


def test_adapters_on_nothing(config):
    with pytest.raises(InputError, match=r"align\.lora\.targets"):
        counts(config, Lora(targets=("nothing",)))


@pytest.mark.parametrize(
    ("targets", "says"),
    [
        (
            ["nosuch"],
            "no module 'nosuch'; it has q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, lm_head",
        ),
        (["q_proj", "nosuch"], "no module 'nosuch'"),  # peft would adapt the first alone and go on
        (["q_proj", "query_key_value"], "no module 'query_key_value'"),
        (["Q_PROJ"], "no module 'Q_PROJ'"),
        (["proj"], "no module 'proj'"),
        ([""], "no module ''"),
        (["input_layernorm"], "modules that can be adapted: q_proj"),
        (["self_attn"], "modules that can be adapted: q_proj"),
    ],
)
def test_targets_that_the_model_has_not(tiny_model, targets, says):
    with pytest.raises(InputError, match=re.escape(says)) as caught:
        check_trainable(str(tiny_model), Lora(targets=targets))
    [line] = caught.value.lines
    assert line.startswith("align.lora.targets: ")
    assert "\n" not in line


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj"], ["layers.0.self_attn.q_proj"], ["embed_tokens"]])
def test_targets_that_it_has(tiny_model, targets):
    check_trainable(str(tiny_model), Lora(targets=targets))


def test_wrong_targets_are_found_before_anything_is_asked(tiny_model, tmp_path):
    recipe = write_recipe(tmp_path, tiny_model)
    done = spa("run", recipe, "align.lora.targets=[nosuch]", "--out", tmp_path / "run", check=2)
    assert "align.lora.targets: the model has no module 'nosuch'; it has q_proj" in done.stderr
    assert not (tmp_path / "run" / "round-1").exists()
    assert not (tmp_path / "run" / "judge.json").exists()
