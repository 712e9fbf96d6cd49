"""Parameters counted without weights are those of the model."""

from __future__ import annotations

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from selfpriority.errors import InputError
from selfpriority.recipe import Align, Lora
from selfpriority.training.adapters import load_policy
from selfpriority.training.parameters import counts, n_parameters


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
