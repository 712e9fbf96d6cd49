"""Answers and training open one model: what they find of it, and what they say where it cannot be opened."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from selfpriority.chat import Chat
from selfpriority.errors import InputError
from selfpriority.models import arithmetic
from selfpriority.models.loading import load_causal
from selfpriority.recipe import Align, HfBackend, Lora
from selfpriority.training.adapters import compute_dtype, load_policy

SETTINGS = HfBackend(device="cpu", dtype="float32")
FULL, LOW = Align(dtype="float32"), Align(dtype="float32", lora=Lora(r=2, targets=["q_proj"]))


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "copy"))


@pytest.fixture
def adapter(copy: Path, tmp_path: Path) -> Path:
    """One that changes something, without a tokenizer of its own."""
    policy = load_policy(copy, LOW, seed=0)
    for name, weight in policy.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.constant_(weight, 0.1)
    policy.model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def logits(model) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.tensor([[1, 7, 9, 30]])).logits


@pytest.mark.parametrize("align", [FULL, LOW], ids=["full", "adapters"])
def test_end_ids_are_those_of_the_generation_config(copy: Path, align: Align) -> None:
    config = json.loads((copy / "generation_config.json").read_text())
    config["eos_token_id"] = [config["eos_token_id"], 5]
    (copy / "generation_config.json").write_text(json.dumps(config))
    answering, policy = load_causal(str(copy), SETTINGS), load_policy(copy, align, seed=0)
    assert 5 in policy.end_ids
    assert {*policy.end_ids, Chat(policy.tokenizer, policy.end_ids).end_id} == answering.end_ids


@pytest.mark.parametrize("align", [FULL, LOW], ids=["full", "adapters"])
def test_an_adapter_has_its_bases_tokenizer_and_one_meaning(adapter: Path, copy: Path, align: Align) -> None:
    assert not (adapter / "tokenizer_config.json").exists()
    answering, policy = load_causal(str(adapter), SETTINGS), load_policy(adapter, align, seed=0)
    assert policy.tokenizer.get_vocab() == answering.chat.tokenizer.get_vocab()
    assert policy.tokenizer.chat_template == answering.chat.tokenizer.chat_template
    expected = logits(answering.model)
    torch.testing.assert_close(logits(policy.model.eval()), expected, atol=1e-5, rtol=0)
    assert not torch.allclose(logits(AutoModelForCausalLM.from_pretrained(copy)), expected, atol=1e-3)


def damage_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def damage_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"no weights")


def damage_one_weight(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (damage_config, "has no config.json"),
        (damage_weights, "cannot be loaded"),
        (damage_one_weight, r"no weights for model\.norm\.weight"),
    ],
)
@pytest.mark.parametrize("align", [FULL, LOW], ids=["full", "adapters"])
def test_a_broken_model_is_the_same_line(copy: Path, damage, says: str, align: Align) -> None:
    damage(copy)
    with pytest.raises(InputError, match=says) as answering:
        load_causal(str(copy), SETTINGS)
    with pytest.raises(InputError) as training:
        load_policy(copy, align, seed=0)
    assert training.value.lines == answering.value.lines
    assert len(training.value.lines) == 1


def test_incomplete_weights_under_an_adapter_are_refused(adapter: Path, copy: Path) -> None:
    damage_one_weight(copy)
    for opens in (lambda: load_causal(str(adapter), SETTINGS), lambda: load_policy(adapter, LOW, seed=0)):
        with pytest.raises(InputError, match=r"no weights for model\.norm\.weight"):
            opens()


@pytest.mark.parametrize("multiplies", [True, False])
def test_automatic_arithmetic_is_one_rule(monkeypatch: pytest.MonkeyPatch, multiplies: bool) -> None:
    monkeypatch.setattr(arithmetic, "_multiplies_bfloat16", lambda _: multiplies)
    wanted = torch.bfloat16 if multiplies else torch.float32
    assert compute_dtype(Align(dtype="auto")) is wanted
    assert arithmetic.settled(HfBackend()).dtype == str(wanted).removeprefix("torch.")
