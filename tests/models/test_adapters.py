"""Adapters as other tools leave them: with tokens of their own, on a base named by a relative path, or damaged."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from selfpriority.errors import InputError
from selfpriority.models.files import adapter_base, resolve
from selfpriority.models.fingerprint import fingerprint
from selfpriority.models.loading import load_causal
from selfpriority.recipe import Align, HfBackend, Lora
from selfpriority.training.adapters import load_policy, save_policy

SETTINGS = HfBackend(device="cpu", dtype="float32")
LOW = Align(dtype="float32", lora=Lora(r=2, targets=("q_proj",)))
NEW = ["<|think|>", "<|done|>", "<|tool|>"]


@pytest.fixture
def base(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "base"))


def by_peft(base: Path, folder: Path, rows: int, tokens: list[str], **lora: Any) -> torch.Tensor:
    """Saves what peft trained on more or fewer rows; returns its logits."""
    torch.manual_seed(1)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(tokens)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model.resize_token_embeddings(rows, mean_resizing=False)
    config = LoraConfig(r=2, task_type="CAUSAL_LM", **{"target_modules": ["q_proj"], **lora})
    with warnings.catch_warnings(action="ignore"):
        adapted = get_peft_model(model, config)
    for name, weight in adapted.named_parameters():
        if weight.requires_grad or (rows != n_tokens(base) and ("embed_tokens" in name or "lm_head" in name)):
            torch.nn.init.normal_(weight, std=0.2)
    with warnings.catch_warnings(action="ignore"):
        adapted.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return logits(adapted)


def n_tokens(base: Path) -> int:
    return len(AutoTokenizer.from_pretrained(base))


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(torch.tensor([[1, 7, 9, 30]])).logits


@pytest.mark.parametrize(
    ("n_new", "lora"),
    [
        (3, {}),  # resized: peft then saves both ends whole
        (3, {"modules_to_save": ["embed_tokens", "lm_head"]}),
        (3, {"target_modules": ["q_proj", "embed_tokens", "lm_head"]}),
        (64, {"modules_to_save": ["embed_tokens", "lm_head"]}),  # padded to a round number
        (-4, {"modules_to_save": ["embed_tokens", "lm_head"]}),
    ],
    ids=["resized", "saved", "low-rank", "padded", "fewer"],
)
def test_added_tokens_answer_and_train_as_peft_has_them(
    base: Path, tmp_path: Path, n_new: int, lora: dict[str, Any]
) -> None:
    n_rows = n_tokens(base) + n_new
    tokens = NEW if n_new > 0 else []
    expected = by_peft(base, tmp_path / "adapter", n_rows, tokens, **lora)
    if n_new < 0:
        with pytest.raises(InputError, match=f"its tokenizer has {n_rows + 4} tokens, its embeddings {n_rows} rows"):
            load_causal(str(tmp_path / "adapter"), SETTINGS)
        return
    answering = load_causal(str(tmp_path / "adapter"), SETTINGS)
    torch.testing.assert_close(logits(answering.model), expected, atol=1e-4, rtol=0)
    policy = load_policy(tmp_path / "adapter", LOW, seed=0)
    torch.testing.assert_close(logits(policy.model), expected, atol=1e-4, rtol=0)
    save_policy(policy, tmp_path / "next")
    again = load_policy(tmp_path / "next", LOW, seed=0)
    torch.testing.assert_close(logits(again.model), expected, atol=1e-4, rtol=0)
    assert again.tokenizer.convert_tokens_to_ids(NEW[0]) == n_rows - n_new


def test_added_tokens_without_rows_are_one_line(base: Path, tmp_path: Path) -> None:
    by_peft(base, tmp_path / "adapter", n_tokens(base), [])
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(NEW + [f"<|{n}|>" for n in range(400)])
    tokenizer.save_pretrained(tmp_path / "adapter")
    for opens in (
        lambda: load_causal(str(tmp_path / "adapter"), SETTINGS),
        lambda: load_policy(tmp_path / "adapter", LOW, 0),
    ):
        with pytest.raises(InputError, match=r"its tokenizer has \d+ tokens, its embeddings \d+ rows") as caught:
            opens()
        assert len(caught.value.lines) == 1


def rename_base(adapter: Path, base: str) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": base}))


@pytest.mark.parametrize("name", ["../base", "./../base/", "../x/../base"])
def test_a_relative_base_counts_from_the_adapter(
    base: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").mkdir()
    expected = by_peft(base, tmp_path / "adapter", n_tokens(base), [])
    rename_base(tmp_path / "adapter", name)
    monkeypatch.chdir("/")
    assert adapter_base(tmp_path / "adapter") == str(base)
    torch.testing.assert_close(logits(load_causal(str(tmp_path / "adapter"), SETTINGS).model), expected)


@pytest.mark.parametrize("name", ["../nosuch", "nosuch", "/nosuch/model", "nobody-at-all/no-such-model"])
def test_a_lost_base_names_the_adapter(base: Path, tmp_path: Path, name: str) -> None:
    by_peft(base, tmp_path / "adapter", n_tokens(base), [])
    rename_base(tmp_path / "adapter", name)
    with pytest.raises(InputError) as caught:
        resolve(str(tmp_path / "adapter"))
    [line] = caught.value.lines
    assert name in line
    assert str(tmp_path / "adapter") in line
    assert "adapter_config.json" in line


def test_an_adapter_that_lacks_weights_is_refused(base: Path, tmp_path: Path) -> None:
    by_peft(base, tmp_path / "adapter", n_tokens(base), [])
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    weights = load_file(file)
    del weights[next(name for name in weights if "lora_A" in name)]
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(InputError, match="missing adapter keys"):
        load_causal(str(tmp_path / "adapter"), SETTINGS)


def test_a_new_adapter_names_its_base_as_the_recipe_does(base: Path, tmp_path: Path) -> None:
    save_policy(load_policy(base, LOW, seed=0), tmp_path / "policy")
    assert adapter_base(tmp_path / "policy") == str(base)
    save_policy(load_policy(tmp_path / "policy", LOW, seed=0), tmp_path / "next")
    assert adapter_base(tmp_path / "next") == str(base)
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with warnings.catch_warnings(action="ignore"):
        PeftModel.from_pretrained(plain, tmp_path / "next")  # as other tools open it


def test_an_adapter_of_an_embedded_model_says_its_name_and_no_place(embedded_model: Path, tmp_path: Path) -> None:
    save_policy(load_policy("smollm2-135m", LOW, seed=0), tmp_path / "policy")
    assert adapter_base(tmp_path / "policy") == "smollm2-135m"
    texts = [path.read_text() for path in (tmp_path / "policy").iterdir() if path.suffix in (".json", ".md")]
    assert not [text for text in texts if str(embedded_model) in text]
    policy = load_policy(tmp_path / "policy", LOW, seed=0)
    assert policy.base == "smollm2-135m"


def test_the_place_of_the_base_is_no_content_but_the_base_is(base: Path, tmp_path: Path) -> None:
    by_peft(base, tmp_path / "adapter", n_tokens(base), [])
    before = fingerprint(str(tmp_path / "adapter"))
    shutil.copytree(base, tmp_path / "elsewhere")
    rename_base(tmp_path / "adapter", str(tmp_path / "elsewhere"))
    assert fingerprint(str(tmp_path / "adapter")) != before  # written on one line now
    one_line = fingerprint(str(tmp_path / "adapter"))
    rename_base(tmp_path / "adapter", "../base")
    assert fingerprint(str(tmp_path / "adapter")) == one_line
    (base / "generation_config.json").write_text("{}")
    assert fingerprint(str(tmp_path / "adapter")) != one_line


def test_a_merged_adapter_does_not_copy_its_head_once_a_row(base: Path, tmp_path: Path) -> None:
    by_peft(base, tmp_path / "adapter", n_tokens(base), [])
    head = load_causal(str(tmp_path / "adapter"), SETTINGS).model.get_output_embeddings()
    last = torch.randn(4, 6, head.in_features)[:, -1:]  # what transformers hands it: a slice of all states
    with torch.inference_mode(), torch.profiler.profile() as seen:
        head(last)
    assert "aten::bmm" not in {event.key for event in seen.key_averages()}  # one product, not one a row
