"""The token budget of generation: by a GPU's memory, and the same for a run from its start to its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from selfpriority.phases.batch_tokens import by_memory, with_batch_tokens
from selfpriority.recipe import HfBackend, Recipe, dump
from selfpriority.run import Run
from selfpriority.storage import write_text

# the tiny Llama: 2 layers of 2 key heads of 8, in float32 a token has 2 * 2 * 16 * 4 bytes of keys and values
KEPT = 256
ONE = {"device": "cpu", "dtype": "float32", "memory": 1}


def made(model: Path, **changes: Any) -> Recipe:
    backend = {"device": "cpu", "dtype": "float32"}
    return Recipe.model_validate({"model": str(model), "prompts": {"source": "demo"}, "backend": backend, **changes})


@pytest.fixture
def weights(tiny_model):
    """Bytes of the tiny model."""
    from transformers import AutoModelForCausalLM

    return 4 * AutoModelForCausalLM.from_pretrained(tiny_model).num_parameters()


def test_keys_and_values_get_what_the_models_leave(tiny_model, weights):
    """Vanilla and one policy lie in memory together; 15 % stay free; whole thousands of 1,024."""
    memory = (2 * weights + 10_300 * KEPT) / 0.85
    assert by_memory(made(tiny_model), memory) == 10 * 1024
    assert by_memory(made(tiny_model, rounds=2), memory) == 10 * 1024  # policies are open one at a time


def test_a_judge_of_another_model_takes_its_part(tiny_model, weights, tmp_path):
    import shutil

    other = shutil.copytree(tiny_model, tmp_path / "other")
    judged = made(tiny_model, evaluate={"judge": str(other)})
    memory = (3 * weights + 10_300 * KEPT) / 0.85
    assert by_memory(judged, memory) == 10 * 1024
    by_contrast = made(tiny_model, score={"judge": {"kind": "contrast", "judge": str(other)}})
    assert by_memory(by_contrast, memory) == 10 * 1024
    served = {"judge": str(other), "backend": {"kind": "openai", "base_url": "http://localhost:1/v1"}}
    assert by_memory(made(tiny_model, evaluate=served), memory - weights / 0.85) == 10 * 1024


def test_a_small_memory_leaves_a_batch_and_none_leaves_the_default(tiny_model, tmp_path):
    assert by_memory(made(tiny_model), 1.0) == 4096
    assert by_memory(made(tiny_model), 0.0) is None
    assert by_memory(made("nobody/nothing-of-this-name"), 8e10) is None  # type: ignore[arg-type]
    settled = with_batch_tokens(made(tiny_model), Run(tmp_path / "run"))
    assert settled.backend == HfBackend(device="cpu", dtype="float32", tokens_per_batch=16384)


def test_a_run_keeps_the_number_it_was_started_with(tiny_model, tmp_path):
    run = Run(tmp_path / "run")
    first = with_batch_tokens(made(tiny_model, backend=ONE), run)
    assert isinstance(first.backend, HfBackend)
    n = first.backend.batch_tokens
    assert n > 16384
    write_text(run.recipe, [dump(first)])
    assert with_batch_tokens(made(tiny_model, backend={**ONE, "memory": 80}), run).backend.batch_tokens == n
    given = made(tiny_model, backend={"tokens_per_batch": 700})
    assert with_batch_tokens(given, run) == given


def test_a_server_has_no_budget(tiny_model, tmp_path):
    served = made(tiny_model, backend={"kind": "openai", "base_url": "http://localhost:1/v1"})
    assert with_batch_tokens(served, Run(tmp_path / "run")) == served


def test_the_demo_keeps_its_own():
    from selfpriority.recipe import load

    demo = load(Path(__file__).parent.parent.parent / "recipes" / "demo.yaml")
    assert isinstance(demo.backend, HfBackend)
    assert demo.backend.batch_tokens == 49152
