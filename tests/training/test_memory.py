"""Bytes per parameter: by hand, and against what a training step really leaves in memory."""

from __future__ import annotations

import random
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from transformers import LlamaConfig, LlamaForCausalLM

from selfpriority.recipe import Align, Lora
from selfpriority.training.adapters import adapted, leave_casts_to_autocast, load_policy
from selfpriority.training.encode import EncodedPool
from selfpriority.training.head import SLICE_BYTES
from selfpriority.training.logps import Form, response_logps
from selfpriority.training.memory import Shape, activations, footprint, passing
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


SHAPE = Shape(layers=3, hidden=128, query=128, key_value=64, inner=320, vocabulary=512)
ONE = replace(SHAPE, layers=1)
CHECKPOINTED = FULL.model_copy(update={"gradient_checkpointing": True})
KEPT = {
    "float32": (FULL, torch.float32),
    "autocast": (Align(dtype="bfloat16"), torch.float32),
    "bfloat16 weights": (Align(weights="bfloat16"), torch.bfloat16),
    "adapter": (Align(dtype="float32", lora=Lora(r=1)), torch.float32),
    "adapter, bfloat16": (Align(dtype="bfloat16", lora=Lora(r=1)), torch.bfloat16),
}


@pytest.mark.parametrize(("settings", "dtype"), KEPT.values(), ids=KEPT)
def test_activations_are_what_autograd_keeps(settings, dtype):
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=SHAPE.vocabulary,
            hidden_size=SHAPE.hidden,
            intermediate_size=SHAPE.inner,
            num_hidden_layers=SHAPE.layers,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
    ).to(dtype)
    if settings.lora is not None:
        model = adapted(model, settings.lora)
        leave_casts_to_autocast(model)
    draw = random.Random(0)
    prompt, *answers = (tuple(draw.choices(range(512), k=50)) for _ in range(6))
    pool = EncodedPool("p", prompt, tuple(answers), ((0, 1),), (1.0,), (1.0,) + (0.0,) * (len(answers) - 1))
    own = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    casts = {weight.shape for weight in model.parameters() if weight.dim() == 2}  # autocast's, counted by `footprint`
    storages = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and tensor.shape not in casts and tensor.shape[::-1] not in casts:
            storages[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, or its place is given to another
        return tensor

    in_bfloat16 = settings.dtype == "bfloat16" or settings.weights == "bfloat16"
    autocast = torch.autocast("cpu", torch.bfloat16) if in_bfloat16 else nullcontext()
    with saved_tensors_hooks(keep, lambda tensor: tensor), autocast:
        response_logps(model, [pool], Form(True, True))
    planned = activations(SHAPE, pool.n_tokens, settings, in_bfloat16)
    assert sum(n for n, _ in storages.values()) == pytest.approx(planned, rel=0.15)


def test_checkpointing_keeps_a_layer_and_the_inputs_of_all():
    by_layer = (activations(SHAPE, 100, FULL, False) - activations(ONE, 100, FULL, False)) / (SHAPE.layers - 1)
    saved = activations(SHAPE, 100, FULL, False) - activations(SHAPE, 100, CHECKPOINTED, False)
    assert saved == (SHAPE.layers - 1) * by_layer - SHAPE.layers * 100 * SHAPE.hidden * 4


def test_what_passes_by_hand():
    head = SHAPE.vocabulary * SHAPE.hidden
    assert passing(SHAPE, 100, FULL) == 2 * 100 * SHAPE.vocabulary * 4 + head * 4
    assert passing(SHAPE, 100, Align(processes=2)) == 2 * 100 * SHAPE.vocabulary * 4 + 2 * head * 4
    assert passing(SHAPE, 10**6, Align(lora=Lora())) == 2 * SLICE_BYTES


def size(tensors):
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
