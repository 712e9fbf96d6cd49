"""How many parameters a model has and a training changes, counted on torch's meta device: shapes without numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

from selfpriority.errors import InputError
from selfpriority.models.files import resolve
from selfpriority.models.loading import ENCODERS, describe
from selfpriority.models.trust import code_is_trusted
from selfpriority.models.weights import base_of, check_shapes, readable
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
    """Parameters of a causal language model, of a classifier or of an encoder of this configuration."""
    kind: Any = AutoModelForSequenceClassification if classifies else AutoModelForCausalLM
    if config.model_type in ENCODERS and not classifies:
        kind = AutoModel
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
    policy = _adapted(model, lora)
    trained = sum(weight.numel() for weight in policy.parameters() if weight.requires_grad)
    return Counts(trained, n_linear, total - n_linear)


def check_trainable(name: str, lora: Lora | None) -> None:
    """Whether the model `name` can be trained, as far as its files say so without the weights' numbers.

    Raises:
        InputError: unreadable files, a weight of another shape than the configuration says, or modules for adapters
            that the model does not have.
    """
    source = resolve(name)
    description = describe(name)
    assert description is not None, "it was resolved"
    if description.chat is None:
        raise InputError(f"model: {name} is an encoder or a guard, which writes no answers; name a language model")
    model = _on_meta(AutoModelForCausalLM, description.config)
    with readable(name):
        if base_of(source) is not None:  # its own adapter is trained on
            return
        check_shapes(source, model, name)
    if lora is not None:
        _adapted(model, lora)


def _adapted(model: Any, lora: Lora) -> Any:
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    known = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in names))
    targets = (lora.targets,) if isinstance(lora.targets, str) else lora.targets
    everywhere = [name for name, _ in model.named_modules() if name]
    for target in targets if lora.targets != "all-linear" else ():
        if not any(name == target or name.endswith(f".{target}") for name in everywhere):
            raise InputError(f"align.lora.targets: the model has no module {target!r}; it has {known}")
    try:
        with torch.device("meta"):
            return adapted(model, lora)
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"align.lora.targets: {reason}; modules that can be adapted: {known}") from error


def _on_meta(kind: Any, config: Any) -> Any:
    with readable(str(config.name_or_path)), torch.device("meta"):
        return kind.from_config(config, trust_remote_code=code_is_trusted())
