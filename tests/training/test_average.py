"""The moving average of the weights: by hand, through checkpoints, and what is saved."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from selfpriority.recipe import Align, Lora
from selfpriority.training.align import Places, train
from selfpriority.training.average import Average

FULL = Align(learning_rate=1e-2, dtype="float32", epochs=4, tokens_per_step=120, tokens_per_batch=80, average=0.5)
LORA = FULL.model_copy(update={"lora": Lora(r=4, alpha=8.0)})


class Killed(BaseException):
    """Stands for a signal: nothing of the program may catch it."""


def places(folder):
    return Places(folder / "policy", folder / "training.jsonl", folder / "checkpoints")


def weights(policy):
    return load_file(next(policy.glob("*.safetensors")))


def moved(average, *values, dtype=torch.float32):
    """A model of one trained and one frozen weight after steps that left these values."""
    model = nn.Linear(1, 1).to(dtype)
    model.bias.requires_grad_(False)
    for value in values:
        with torch.no_grad():
            model.weight.fill_(value)
        average.update(model, lambda weight: weight.detach())
    return model


def test_begins_with_the_first_steps_weights_and_decays():
    average = Average(0.9)
    model = moved(average, 1.0, 2.0, 4.0)
    frozen = model.bias.item()
    assert average.weights["weight"].item() == pytest.approx(0.9 * (0.9 * 1 + 0.1 * 2) + 0.1 * 4)
    average.move_into(model)
    assert model.weight.item() == pytest.approx(1.39)
    assert model.bias.item() == frozen


def test_is_kept_in_float32_whatever_the_weights_are():
    average = Average(0.999)
    moved(average, 1.0, *[1.0078125] * 3, dtype=torch.bfloat16)  # one step of bfloat16 above 1: the average moves less
    assert average.weights["weight"].dtype is torch.float32
    assert average.weights["weight"].item() == pytest.approx(1 + 0.0078125 * (1 - 0.999**3), abs=1e-7)


def test_continues_from_a_checkpoint(tmp_path):
    (tmp_path / "checkpoint-2").mkdir()
    straight, stopped = Average(0.8), Average(0.8)
    moved(straight, 1.0, 3.0, 7.0)
    moved(stopped, 1.0, 3.0)
    stopped.save(tmp_path / "checkpoint-2")
    continued = Average(0.8)
    continued.load(tmp_path / "checkpoint-2")
    moved(continued, 7.0)
    assert torch.equal(continued.weights["weight"], straight.weights["weight"])


@pytest.mark.parametrize("settings", [FULL, LORA], ids=["full", "lora"])
def test_what_is_saved_is_the_average_also_after_a_kill(tiny_model, paired_pool, tmp_path, settings):
    texts = ("No, that is not safe.", "Yes, go.", "The lazy dog.")
    pools = [paired_pool(f"Question {number}?", texts) for number in range(6)]
    last = settings.model_copy(update={"average": 0.0})
    train(pools, tiny_model, last, 0, places(tmp_path / "last"))
    train(pools, tiny_model, settings, 0, places(tmp_path / "straight"))
    assert _losses(tmp_path / "straight") == _losses(tmp_path / "last")  # the training itself is the same

    def kill(record):
        if record["step"] == 4:
            raise Killed

    often = settings.model_copy(update={"checkpoint_minutes": 1e-9})
    with pytest.raises(Killed):
        train(pools, tiny_model, often, 0, places(tmp_path / "stopped"), kill)
    assert train(pools, tiny_model, often, 0, places(tmp_path / "stopped")).resumed_from == 3
    wanted, got, final = (weights(tmp_path / name / "policy") for name in ("straight", "stopped", "last"))
    assert wanted.keys() == got.keys() == final.keys()
    assert all(torch.equal(wanted[name], got[name]) for name in wanted)
    assert any(not torch.equal(wanted[name], final[name]) for name in wanted)


def _losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "training.jsonl").read_text().splitlines()]
