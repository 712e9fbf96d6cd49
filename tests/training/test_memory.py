"""Bytes per parameter: by hand, and against what a training step really leaves in memory."""

from __future__ import annotations

import pytest
import torch

from selfpriority.recipe import Align, Lora
from selfpriority.training.adapters import load_policy
from selfpriority.training.memory import footprint
from selfpriority.training.optimizer import MasterAdamW

FULL = Align(dtype="float32")
SETTINGS = {
    "float32": FULL,
    "bfloat16": Align(weights="bfloat16"),
    "lora": Align(dtype="float32", lora=Lora(r=4)),
    "lora on bfloat16": Align(dtype="bfloat16", lora=Lora(r=4)),
}


def test_bytes_by_hand():
    assert footprint(FULL, in_bfloat16=False).trained == 4 + 4 + 8
    assert footprint(FULL, in_bfloat16=True).trained == 4 + 2 + 4 + 8
    assert footprint(FULL.model_copy(update={"average": 0.9}), in_bfloat16=False).trained == 20
    assert footprint(Align(weights="bfloat16"), in_bfloat16=True).trained == 2 + 2 + 8 + 2
    qlora = footprint(Align(lora=Lora(quantize="nf4")), in_bfloat16=True)
    assert qlora.frozen == pytest.approx(4.127 / 8, rel=1e-3)  # the QLoRA paper's bits a weight
    assert qlora.total(n_trained=1_000, n_frozen=1_000_000) == pytest.approx(18_000 + 515_869, rel=1e-4)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_bytes_are_those_of_a_real_step(tiny_model, settings):
    model = load_policy(tiny_model, settings, seed=0).model
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    frozen = [weight for weight in model.parameters() if not weight.requires_grad]
    optimizer = MasterAdamW(trained, lr=1e-3) if settings.weights == "bfloat16" else torch.optim.AdamW(trained)
    model(torch.tensor([[1, 2, 3]])).logits.float().sum().backward()
    optimizer.step()
    per_parameter = footprint(settings, in_bfloat16=settings.dtype == "bfloat16")
    states = [value for state in optimizer.state.values() for name, value in state.items() if name != "step"]
    n_trained = sum(weight.numel() for weight in trained)
    assert size(trained) == per_parameter.weights * n_trained
    assert size([weight.grad for weight in trained]) == per_parameter.gradients * n_trained
    assert size(states) == per_parameter.optimizer * n_trained
    assert size(frozen) == per_parameter.frozen * sum(weight.numel() for weight in frozen)


def size(tensors):
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
