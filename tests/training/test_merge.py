"""Merged models: the weighted sum of what trainings moved, and not of what their adapters are made of."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from selfpriority.errors import InputError
from selfpriority.models.weights import open_model, silent
from selfpriority.recipe import Align
from selfpriority.training.merge import merged, save_merged
from tests.conftest import tiny_llama


def weights_of(name: Path) -> dict[str, torch.Tensor]:
    return {place: w.detach().clone() for place, w in open_model(str(name), torch.float32).model.named_parameters()}


@pytest.fixture(scope="module")
def adapters(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two adapters of the tiny model, of different ranks, that move every linear layer."""
    folders = []
    for seed, rank in ((1, 2), (2, 4)):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
        config = LoraConfig(r=rank, lora_alpha=8, target_modules="all-linear", init_lora_weights=False)
        folders.append(tmp_path_factory.mktemp("merge") / f"adapter-{seed}")
        with silent():
            get_peft_model(model, config).save_pretrained(folders[-1])
    return folders


def test_the_sum_is_of_weight_deltas(tiny_model: Path, adapters: list[Path]) -> None:
    base, one, other = (weights_of(folder) for folder in (tiny_model, *adapters))
    for a, b in ((0.6, 0.4), (0.9, 0.1), (0.5, 0.25), (1.5, 0.0)):
        found = dict(merged(str(tiny_model), {str(adapters[0]): a, str(adapters[1]): b}).model.named_parameters())
        moved = 0.0
        for name, weight in found.items():
            want = base[name] + a * (one[name] - base[name]) + b * (other[name] - base[name])
            torch.testing.assert_close(weight.detach(), want, rtol=0, atol=1e-6)
            moved = max(moved, float((want - base[name]).abs().max()))
        assert moved > 0.01  # the adapters do something


def test_the_end_points_are_the_policies_to_the_bit(tiny_model: Path, adapters: list[Path]) -> None:
    for policy in adapters:
        found = dict(merged(str(tiny_model), {str(policy): 1.0}).model.named_parameters())
        assert all(torch.equal(weight, weights_of(policy)[name]) for name, weight in found.items())
    untouched = dict(merged(str(tiny_model), {str(adapters[0]): 0.0}).model.named_parameters())
    assert all(torch.equal(weight, weights_of(tiny_model)[name]) for name, weight in untouched.items())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_saved_is_a_model_that_opens(
    tiny_model: Path, adapters: list[Path], tmp_path: Path, dtype: str
) -> None:
    settings = Align.model_validate({"save": dtype})
    parts = {str(adapters[0]): 0.7, str(adapters[1]): 0.3}
    save_merged(str(tiny_model), parts, settings, tmp_path / "merged" / "soup")
    saved = weights_of(tmp_path / "merged" / "soup")
    for name, weight in merged(str(tiny_model), parts).model.named_parameters():
        torch.testing.assert_close(saved[name], weight.detach(), rtol=0 if dtype == "float32" else 1e-2, atol=1e-6)
    written = AutoModelForCausalLM.from_pretrained(tmp_path / "merged" / "soup", dtype="auto")
    assert str(written.dtype) == f"torch.{dtype}"
    assert (tmp_path / "merged" / "soup" / "tokenizer.json").is_file()


def test_models_of_other_shapes_are_told(tiny_model: Path, adapters: list[Path], tmp_path: Path) -> None:
    tiny_llama(384, num_hidden_layers=1).save_pretrained(tmp_path / "small")
    for path in tiny_model.glob("*token*"):
        (tmp_path / "small" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(InputError, match=r"small cannot be merged: its model\.layers\.1\.\S+ is not there"):
        merged(str(tiny_model), {str(adapters[0]): 0.5, str(tmp_path / "small"): 0.5})
