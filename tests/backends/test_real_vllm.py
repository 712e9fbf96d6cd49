"""The real vLLM and its server against transformers: ratings, texts, an adapter. Minutes, most of them starts.

`SPA_VLLM_PYTHON` names the interpreter of an environment that has it (`make vllm` makes one); without it they skip.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from selfpriority.backends.hf import HfModel
from selfpriority.backends.openai import OpenaiModel
from selfpriority.backends.vllm import VllmModel
from selfpriority.language_model import Choice, Choose, Completion, Generate, Request, ask
from selfpriority.models.weights import silent
from selfpriority.recipe import HfBackend, OpenaiBackend, VllmBackend
from selfpriority.records import Message

PYTHON = os.environ.get("SPA_VLLM_PYTHON", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="SPA_VLLM_PYTHON names no interpreter that has vLLM; `make vllm` makes one"),
]
ENGINE = VllmBackend(
    kind="vllm",
    python=PYTHON or None,
    dtype="float32",
    memory_share=0.4,
    engine={"enforce_eager": True, "max_model_len": 1024},
)
EXACT = HfBackend(device="cpu", dtype="float32")
SERVED = (
    *("--served-model-name", "m", "--host", "127.0.0.1", "--dtype", "float32", "--enforce-eager"),
    *("--max-model-len", "1024", "--max-num-seqs", "16", "--max-num-queued-reqs", "40"),
)
N_QUEUED = int(os.environ.get("SPA_VLLM_REQUESTS", "400"))
"""Requests to a server with room for 16 and 40 more."""
QUESTIONS = ("How do I bake bread?", "Name a colour.", "What is a good way to learn to swim?")


@pytest.fixture(autouse=True)
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1"))


@pytest.fixture(scope="module")
def server(embedded_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenaiBackend]:
    """vLLM's own server on loopback, which says 503 to more than 40 waiting requests."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    said_there = tmp_path_factory.mktemp("server") / "log"
    command = [PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--model", str(embedded_model), *SERVED]
    env = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    with said_there.open("w") as log:
        process = subprocess.Popen([*command, "--port", str(port)], env=env, stdout=log, stderr=log)
    try:
        until = time.monotonic() + 300
        while not answers(f"http://127.0.0.1:{port}/health"):
            assert process.poll() is None, said_there.read_text()[-3000:]
            assert time.monotonic() < until, "the server does not come up"
            time.sleep(1)
        yield OpenaiBackend(
            kind="openai", base_url=f"http://127.0.0.1:{port}/v1", model="m", leave_out=("seed",), concurrency=256
        )
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def said(text: str) -> tuple[Message, ...]:
    return (Message("user", text),)


def ratings() -> list[Request]:
    digits = tuple("123456789")
    asked = [(said(f"Rate from 1 to 9. {one}"), said(f"Rate from 1 to 9, harmless? {one}")) for one in QUESTIONS]
    return [*[Choose(contexts, digits) for contexts in asked], Choose((said("A or B?"),), ("A", "B"))]


def widest(found: list[Any], wanted: list[Any]) -> float:
    assert all(isinstance(answer, Choice) for answer in (*found, *wanted))
    both = [
        (p, q)
        for ours, theirs in zip(found, wanted, strict=True)
        for row, other in zip(ours.probabilities, theirs.probabilities, strict=True)
        for p, q in zip(row, other, strict=True)
    ]
    assert max(q for _, q in both) > 0.01  # there is something to be compared
    return max(abs(p - q) for p, q in both)


def test_ratings_and_greedy_answers_are_those_of_transformers(embedded_model: Path) -> None:
    model = VllmModel(str(embedded_model), ENGINE)
    greedy: list[Request] = [Generate(said(text), 1, 0.0, 1.0, 24, 0) for text in QUESTIONS]
    drawn = Generate(said(QUESTIONS[0]), 4, 0.9, 0.9, 16, 0, opening="Sure, here is")
    found = ask(model, [*ratings(), *greedy, drawn])
    wanted = ask(HfModel(str(embedded_model), EXACT), [*ratings(), *greedy])
    n = len(ratings())
    assert widest(found[:n], wanted[:n]) < 1e-4
    assert found[n:-1] == wanted[n:]
    several = found[-1]
    assert isinstance(several, Completion)
    assert len({text.text for text in several.texts}) > 1
    assert all(text.text.startswith("Sure, here is") for text in several.texts)


def test_a_small_nucleus_holds_the_likeliest_token_alone(embedded_model: Path) -> None:
    """On a CPU the engine looks for nuclei with a processor of ours, in a batch whose rows ask for different ones."""
    greedy, narrow, wide = (
        Generate(said(text), n, temperature, top_p, 16, 0)
        for text in QUESTIONS[:1]
        for n, temperature, top_p in ((1, 0.0, 1.0), (3, 1.0, 0.001), (6, 1.0, 0.9))
    )
    alone, several, many = ask(VllmModel(str(embedded_model), ENGINE), [greedy, narrow, wide])
    assert isinstance(alone, Completion)
    assert isinstance(several, Completion)
    assert isinstance(many, Completion)
    assert {text.text for text in several.texts} == {alone.texts[0].text}
    assert len({text.text for text in many.texts}) > 1


def test_an_adapter_beside_its_base_is_the_merged_model(embedded_model: Path, tmp_path: Path) -> None:
    folder = adapter(embedded_model, tmp_path / "adapter")
    wanted = ask(HfModel(str(folder), EXACT), ratings())  # transformers merges it
    assert widest(wanted, ask(HfModel(str(embedded_model), EXACT), ratings())) > 1e-3  # it changes something
    assert widest(ask(VllmModel(str(folder), ENGINE), ratings()), wanted) < 1e-4


def test_two_adapters_of_one_base_in_one_engine_are_told_apart(embedded_model: Path, tmp_path: Path) -> None:
    folders = [adapter(embedded_model, tmp_path / f"adapter-{seed}", seed) for seed in (0, 1)]
    wanted = [ask(HfModel(str(folder), EXACT), ratings()) for folder in folders]
    assert widest(*wanted) > 1e-3
    models = [VllmModel(str(folder), ENGINE) for folder in folders]
    found = [ask(model, ratings()) for model in models]
    assert models[0]._engine is models[1]._engine
    assert [widest(a, b) < 1e-4 for a, b in zip(found, wanted, strict=True)] == [True, True]


def test_its_server_rates_as_transformers_does(embedded_model: Path, server: OpenaiBackend) -> None:
    notes: list[str] = []
    found = ask(OpenaiModel("m", server, notes.append), ratings())
    assert widest(found, ask(HfModel(str(embedded_model), EXACT), ratings())) < 1e-3
    assert all(isinstance(answer, Choice) and not any(answer.unseen) for answer in found), notes


def test_its_server_with_a_short_queue_answers_all_the_same(server: OpenaiBackend) -> None:
    requests: list[Request] = [Generate(said(f"Name the number {n}."), 1, 0.0, 1.0, 1, n) for n in range(N_QUEUED)]
    found = ask(OpenaiModel("m", server), requests)
    assert all(isinstance(answer, Completion) for answer in found)
    assert len(found) == N_QUEUED


def adapter(base: Path, folder: Path, seed: int = 0) -> Path:
    """A random adapter of rank 4 that moves the model."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]), silent():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        adapted = get_peft_model(model, config)
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.02)
        adapted.save_pretrained(folder)
    return folder
