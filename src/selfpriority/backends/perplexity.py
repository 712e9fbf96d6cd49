"""How likely does a model find given texts? Negative log-likelihood, one forward pass a text. Knows no task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from selfpriority.models.loading import load_causal
from selfpriority.recipe import HfBackend


@dataclass(frozen=True)
class Likelihood:
    """Of one text: sum of -log p over its tokens but the first, in nats, and how many those are."""

    nats: float
    n_tokens: int


@torch.inference_mode()
def likelihoods(name: str, texts: Sequence[str], settings: HfBackend) -> list[Likelihood]:
    """Plain text without a chat template, as in pre-training.

    Args:
        name: a model or policy, as `HfModel` takes it.
        texts: each of at least two tokens, within the model's context.
        settings: device and arithmetic.

    Raises:
        InputError: the model or the device cannot be used.
    """
    loaded = load_causal(name, settings)
    found = []
    for text in texts:
        ids = loaded.chat.tokenizer(text, return_tensors="pt")["input_ids"].to(loaded.model.device)  # [1, T]
        logits = loaded.model(input_ids=ids).logits[0, :-1].float()  # [T - 1, vocabulary]
        nats = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum")
        found.append(Likelihood(float(nats), ids.shape[1] - 1))
    return found
