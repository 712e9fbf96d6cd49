"""Answers drawn by transformers: through this program, and in everybody's first loop. See `collect.py`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from collection import TEMPERATURE, Case
from measured import Timed, cpu_seconds, peak_mb
from transformers import AutoModelForCausalLM

from selfpriority.backends.cache import Cached
from selfpriority.backends.hf import HfModel
from selfpriority.backends.written import begun
from selfpriority.language_model import Completion, Generate, ask
from selfpriority.models.served import load_served
from selfpriority.recipe import HfBackend

PLAIN = "plain-"


def drawing(case: Case) -> list[Generate]:
    """What is asked for: n answers to each of the shipped prompts."""
    return [Generate(p.messages, case.n, TEMPERATURE, case.top_p, case.new_tokens, 0) for p in case.shown()]


def by_transformers(case: Case) -> Timed:
    """Ours, behind the store of answers."""
    requests = drawing(case)
    model = HfModel(case.model, HfBackend(dtype=case.dtype))
    ask(model, [replace(requests[0], seed=1)])  # it is open, and warm
    with tempfile.TemporaryDirectory() as folder:
        cached = Cached(model, Path(folder) / "answers.sqlite")
        started, cpu = time.perf_counter(), cpu_seconds()
        found = ask(cached, requests)
        seconds, cpu = time.perf_counter() - started, cpu_seconds() - cpu
        cached.close()
    tokens = sum(text.n_tokens for answer in found if isinstance(answer, Completion) for text in answer.texts)
    return Timed("hf", seconds, tokens, cpu, peak_mb(), requests=len(requests))


def by_plain_loop(case: Case, at_once: int) -> Timed:
    """`transformers.generate`, so many answers at a time, each prompt once and its n answers together."""
    served = load_served(case.model)
    prompts = sorted((begun(served.chat, request) for request in drawing(case)), key=len, reverse=True)
    model = AutoModelForCausalLM.from_pretrained(served.folder, dtype=getattr(torch, case.dtype)).eval()
    ends = sorted(served.end_ids)
    pad = ends[0]
    drawn = {"do_sample": True, "temperature": 0.9, "top_p": case.top_p, "top_k": 0, "num_return_sequences": case.n}

    def tokens_of(batch: Sequence[list[int]]) -> int:
        width = max(map(len, batch))
        ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in batch])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in batch])
        out = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=case.new_tokens,
            eos_token_id=ends,
            pad_token_id=pad,
            **drawn,
        )[:, width:]
        ended = torch.isin(out, torch.tensor(ends))
        return sum(int(row.int().argmax()) + 1 if row.any() else len(row) for row in ended)

    with torch.inference_mode():
        tokens_of(prompts[-1:])  # it is warm
        started, cpu = time.perf_counter(), cpu_seconds()
        step = max(1, at_once // case.n)
        tokens = sum(tokens_of(prompts[first : first + step]) for first in range(0, len(prompts), step))
        seconds = time.perf_counter() - started
    return Timed(f"{PLAIN}{at_once}", seconds, tokens, cpu_seconds() - cpu, peak_mb(), requests=len(prompts))
