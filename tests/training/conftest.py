"""Pools to train on: token ids for the arithmetic, records with text for the whole way."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import logsigmoid

from selfpriority.records import Message, Pair, PairedPool, Pool, Prompt, Rating, Response, Scored
from selfpriority.training.encode import EncodedPool


@pytest.fixture
def llama(tiny_model: Path) -> Any:
    """A fresh copy of the tiny Llama, float32."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)


@pytest.fixture
def encoded_pools() -> Callable[[int], list[EncodedPool]]:
    """n pools of 2 to 5 random responses, every pair among them, with uneven gaps."""

    def make(n: int) -> list[EncodedPool]:
        draw = random.Random(7)
        return [_encoded(f"p{number}", draw) for number in range(n)]

    return make


@pytest.fixture
def paired_pool() -> Callable[..., PairedPool]:
    """A pool of texts, best first, and all its pairs."""

    def make(
        prompt: str = "Is the river safe?", texts: tuple[str, ...] = ("No.", "Yes, go."), stop: str = "end"
    ) -> PairedPool:
        record = Prompt(prompt, (Message("user", prompt),))
        candidates = tuple(
            Scored(
                Response(f"{prompt}-{rank}", prompt, text, stop, n_tokens=0),
                (Rating(9.0 - 2 * rank), Rating(5.0 + rank)),
            )
            for rank, text in enumerate(texts)
        )
        pairs = tuple(
            Pair(a, b, decided_by=0, distance=3.0 * (b - a), gap=1.0 * (b - a))
            for a, b in combinations(range(len(texts)), 2)
        )
        return PairedPool(Pool(record, candidates), pairs)

    return make


def _encoded(name: str, draw: random.Random) -> EncodedPool:
    def ids(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw.randrange(3, 300) for _ in range(draw.randint(low, high)))

    responses = tuple((*ids(2, 12), 2) for _ in range(draw.randint(2, 5)))
    pairs = tuple(combinations(range(len(responses)), 2))
    learned = (1.0,) * (len(responses) - 1) + (0.0,)  # all that are chosen in some pair
    prompt, gaps = (1, *ids(3, 9)), tuple(draw.uniform(0, 4) for _ in pairs)
    safe = tuple((int(name[1:]) + index) % 3 > 0 for index in range(len(responses)))
    return EncodedPool(name, prompt, responses, pairs, gaps, learned, safe)


@pytest.fixture
def pairwise() -> Callable[..., Any]:
    """The reference for every method: rows of pairs, [model, pools, settings, starting model] -> loss."""
    return _pairwise


@pytest.fixture
def pairwise_simpo() -> Callable[..., Any]:
    """The reference: weighted SimPO as a pair-wise trainer computes it, [model, pools, settings] -> loss."""
    return _pairwise_simpo


def _padded_side(model, sequences):
    """Mean response log-probability of (prompt, response) rows in one ordinary right-padded batch."""
    width = max(len(prompt) + len(response) for prompt, response in sequences)
    ids = torch.full((len(sequences), width), 2)  # the end token pads, as in the tiny model's configuration
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, -100)
    for row, (prompt, response) in enumerate(sequences):
        n = len(prompt) + len(response)
        ids[row, :n] = torch.tensor(prompt + response)
        mask[row, :n] = 1
        labels[row, len(prompt) : n] = torch.tensor(response)
    logps = model(input_ids=ids, attention_mask=mask).logits[:, :-1].log_softmax(-1)
    labels = labels[:, 1:]
    taken = logps.gather(-1, labels.clamp(min=0)[..., None])[..., 0] * (labels != -100)
    return taken.sum(-1) / (labels != -100).sum(-1)


def _pairwise(model, pools, settings, start):
    """Sums of log-probabilities of every pair's two rows under both models, then the papers' formulas."""

    def sums(which, column):
        rows = [(pool.prompt_ids, pool.response_ids[pair[column]]) for pool in pools for pair in pool.pairs]
        lengths = torch.tensor([len(response) for _, response in rows])
        return _padded_side(which, rows) * lengths, lengths

    (chosen, n_chosen), (rejected, n_rejected) = (sums(model, column) for column in (0, 1))
    with torch.no_grad():
        (chosen_start, _), (rejected_start, _) = (sums(start, column) for column in (0, 1))
    gaps = torch.tensor([gap for pool in pools for gap in pool.gaps])
    weights = (gaps / gaps.mean()) ** settings.alpha
    beta = settings.beta
    if settings.method == "dpo":
        logits = (chosen - rejected) - (chosen_start - rejected_start)
        losses = weights * torch.log1p(torch.exp(-beta * logits))
    elif settings.method == "ipo":
        logits = (chosen - chosen_start) / n_chosen - (rejected - rejected_start) / n_rejected
        losses = weights * (logits - 1 / (2 * beta)) ** 2
    elif settings.method in ("bfpo", "safedpo"):
        logits = (chosen - rejected) - (chosen_start - rejected_start)
        safe = torch.tensor([[pool.safe[index] for index in pair] for pool in pools for pair in pool.pairs])
        if settings.method == "bfpo":
            losses = (logits - (1.5 * safe[:, 0].float() - 0.5 * safe[:, 1].float() - 0.5) / beta) ** 2
        else:
            unsafe = (~safe).float()
            shift = (unsafe[:, 1] - unsafe[:, 0]) * settings.unsafe_margin
            losses = torch.log1p(torch.exp(shift - beta * logits))
    else:
        logits = beta * chosen / n_chosen - beta * rejected / n_rejected - settings.gamma
        losses = torch.log1p(torch.exp(-logits))
    n_of_pool = torch.tensor([len(pool.pairs) for pool in pools for _ in pool.pairs])
    return losses.mean() if settings.count == "pairs" else (losses / n_of_pool).sum() / len(pools)


def _pairwise_simpo(model, pools, settings):
    """Every pair as two rows of two separate forward passes; weights and mean over the whole batch."""
    pairs = [
        (p.prompt_ids, p.response_ids[a], p.response_ids[b], gap, len(p.pairs))
        for p in pools
        for (a, b), gap in zip(p.pairs, p.gaps, strict=True)
    ]
    chosen = _padded_side(model, [(prompt, y) for prompt, y, *_ in pairs])
    rejected = _padded_side(model, [(prompt, y) for prompt, _, y, *_ in pairs])
    gaps = torch.tensor([gap for *_, gap, _ in pairs])
    weights = (gaps / gaps.mean()) ** settings.alpha
    losses = -weights * logsigmoid(settings.beta * (chosen - rejected) - settings.gamma)
    if settings.count == "pairs":
        return losses.mean()
    n_of_pool = torch.tensor([n for *_, n in pairs])
    return (losses / n_of_pool).sum() / len(pools)
