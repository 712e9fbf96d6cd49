"""What is loaded for training: in which type, quantised or not, and what is said where that cannot be."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from selfpriority.errors import InputError
from selfpriority.recipe import Align, Lora
from selfpriority.training.adapters import compute_dtype, load_policy
from selfpriority.training.align import Places, train

QLORA = Align(lora=Lora(r=4, quantize="nf4"), dtype="float32", learning_rate=1e-2, epochs=4, tokens_per_step=120)
HAS_BITSANDBYTES = importlib.util.find_spec("bitsandbytes") is not None


@pytest.mark.parametrize(
    ("settings", "weights", "arithmetic"),
    [
        (Align(dtype="float32"), torch.float32, torch.float32),
        (Align(dtype="bfloat16"), torch.float32, torch.bfloat16),
        (Align(weights="bfloat16"), torch.bfloat16, torch.bfloat16),
    ],
)
def test_types_of_weights_and_arithmetic(tiny_model, settings, weights, arithmetic):
    assert {weight.dtype for weight in load_policy(tiny_model, settings, 0).model.parameters()} == {weights}
    assert compute_dtype(settings) is arithmetic


@pytest.mark.skipif(HAS_BITSANDBYTES, reason="bitsandbytes is installed")
def test_quantised_adapters_without_bitsandbytes_name_the_extra(tiny_model):
    with pytest.raises(
        InputError, match=r"nf4 needs bitsandbytes, which is not installed; install it with selfpriority\[qlora\]"
    ):
        load_policy(tiny_model, QLORA, 0)


@pytest.mark.skipif(not HAS_BITSANDBYTES, reason="needs the extra qlora")
def test_adapters_train_on_a_quantised_base(tiny_model, paired_pool, tmp_path):
    wide = tmp_path / "wide"  # bitsandbytes quantises in blocks of 64
    config = AutoConfig.from_pretrained(tiny_model, hidden_size=64, intermediate_size=128, head_dim=16)
    AutoModelForCausalLM.from_config(config).save_pretrained(wide)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(wide)
    pools = [paired_pool(f"Question {number}?", ("No, that is not safe.", "Yes, go.")) for number in range(6)]
    places = Places(tmp_path / "policy", tmp_path / "training.jsonl", tmp_path / "checkpoints")
    train(pools, wide, QLORA, 0, places)
    records = [json.loads(line) for line in places.log.read_text().splitlines()]
    assert records[-1]["margin"] > records[0]["margin"]
    assert (places.policy / "adapter_model.safetensors").is_file()
    model = load_policy(wide, QLORA, 0).model
    assert {type(weight).__name__ for name, weight in model.named_parameters() if "q_proj.base" in name} == {
        "Params4bit"
    }
