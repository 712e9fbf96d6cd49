"""What is loaded for training: in which type, quantised or not, and what is said where that cannot be."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from selfpriority.errors import InputError
from selfpriority.recipe import Align, Lora
from selfpriority.training.adapters import (
    ScaledBetween,
    compute_dtype,
    leave_casts_to_autocast,
    load_policy,
    scale_between,
)
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


def test_an_adapter_without_casts_of_its_own_learns_the_same_and_keeps_less(tiny_model):
    policy = load_policy(tiny_model, Align(dtype="bfloat16", lora=Lora(r=4)), 0).model
    for name, weight in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)  # else nothing of the input comes through

    def learned():
        policy.zero_grad()
        kept = {}

        def keep(tensor):
            kept[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        with hooks, torch.autocast("cpu", torch.bfloat16):
            loss = policy(torch.arange(1, 40)[None]).logits.float().logsumexp(-1).sum()
        loss.backward()
        gradients = [weight.grad.clone() for weight in policy.parameters() if weight.requires_grad]
        return loss.detach(), gradients, sum(tensor.untyped_storage().nbytes() for tensor in kept.values())

    before, of_before, kept_before = learned()
    leave_casts_to_autocast(policy)
    after, of_after, kept_after = learned()
    assert before == after
    assert all(gradient.any() for gradient in of_after)
    assert all(torch.equal(one, other) for one, other in zip(of_before, of_after, strict=True))
    assert kept_after < kept_before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("alpha", "is_between"), [(4, True), (8, True), (2, True), (6, False), (0.1, False)])
def test_an_adapter_that_scales_between_its_matrices_learns_the_same_bit_for_bit(tiny_model, dtype, alpha, is_between):
    settings = Align(dtype=str(dtype).removeprefix("torch."), lora=Lora(r=4, alpha=alpha, dropout=0.25))
    policy = load_policy(tiny_model, settings, 0).model
    for name, weight in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    policy.train()

    def learned():
        policy.zero_grad()
        torch.manual_seed(0)  # what is dropped
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
            loss = policy(torch.arange(1, 40)[None]).logits.float().logsumexp(-1).sum()
        loss.backward()
        return loss.detach(), [weight.grad.clone() for weight in policy.parameters() if weight.requires_grad]

    before, of_before = learned()
    scale_between(policy)
    ways = {type(way) for layer in policy.modules() for way in getattr(layer, "lora_variant", {}).values()}
    assert ways == ({ScaledBetween} if is_between else set())
    after, of_after = learned()
    assert before == after
    assert all(gradient.any() for gradient in of_after)
    assert all(torch.equal(one, other) for one, other in zip(of_before, of_after, strict=True))


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
