"""How many parameters a model has and a training changes, counted on torch's meta device: shapes without numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from selfpriority.errors import InputError
from selfpriority.recipe import Lora
from selfpriority.training.adapters import adapted


@dataclass(frozen=True)
class Counts:
    """Parameters of a model under a training; tied ones count once."""

    trained: int
    frozen_linear: int
    """What `align.lora.quantize` would hold in 4 bits: linear layers but the output head."""
    frozen_rest: int


def n_parameters(config: Any, classifies: bool = False) -> int:
    """Parameters of a causal language model, or of a classifier, of this configuration."""
    kind: Any = AutoModelForSequenceClassification if classifies else AutoModelForCausalLM
    return sum(weight.numel() for weight in _on_meta(kind, config).parameters())


def counts(config: Any, lora: Lora | None) -> Counts:
    """What a training of such a model changes and what it leaves as it is.

    Raises:
        InputError: `lora` names modules that the model does not have.
    """
    model = _on_meta(AutoModelForCausalLM, config)
    total = sum(weight.numel() for weight in model.parameters())
    if lora is None:
        return Counts(total, 0, 0)
    head = model.get_output_embeddings()
    n_linear = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear) and m is not head)
    try:
        with torch.device("meta"):
            policy = adapted(model, lora)
    except ValueError as error:
        raise InputError(f"align.lora.targets: {str(error).splitlines()[0]}") from error
    trained = sum(weight.numel() for weight in policy.parameters() if weight.requires_grad)
    return Counts(trained, n_linear, total - n_linear)


def _on_meta(kind: Any, config: Any) -> Any:
    with torch.device("meta"):
        return kind.from_config(config)
